"""The report: one offline HTML file from the tables below the results folder.  See docs/report.md.

Every chapter is a function from `Data` (tables, read when asked for) to blocks; `Page` writes figures and tables beside
the page.  The text is fixed in `nicheloop.report_text`, the figures in `nicheloop.figures`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import __version__, figures, io, tables
from nicheloop.report_text import LIMITATIONS, METHOD_NOTES, SHORT_WORDS, explain
from nicheloop.status import GOOD, composition_table, summarise

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from nicheloop.config import Config
    from nicheloop.config import Report as Options

MAIN_AXES = ("IL6_classic", "IL6_trans", "IL6_autocrine", "CXCL8", "PPBP", "CCL2", "CSF1")
PACKAGES = (
    "anndata",
    "gseapy",
    "harmonypy",
    "h5py",
    "igraph",
    "infercnvpy",
    "jinja2",
    "leidenalg",
    "matplotlib",
    "numpy",
    "pandas",
    "pandera",
    "pyarrow",
    "pydantic",
    "pydeseq2",
    "scanpy",
    "scikit-learn",
    "scipy",
    "snakemake",
    "umap-learn",
)
ROWS = 30  # rows of a table shown in the page; all of them are in the file it points to
LETTERS = 180  # a longer text is cut in the page
PANELS = 8  # samples per figure of small multiples
SAMPLES = 60  # samples per figure with one row each


# ------------------------------------------------------------------------------------------------------------ blocks
@dataclass
class Column:
    """A column of a table in the page."""

    label: str
    numeric: bool = False


@dataclass
class Block:
    """One piece of a chapter; `kind` says which fields the template uses."""

    kind: str
    text: str = ""
    title: str = ""
    entries: list[Any] = field(default_factory=list)
    name: str = ""
    caption: str = ""
    alt: str = ""
    uri: str = ""
    width: int = 0
    height: int = 0
    columns: list[Column] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    shown: str = ""
    path: str = ""


@dataclass
class Chapter:
    """A heading and its blocks."""

    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        """Id of the section."""
        words = "".join(c if c.isalnum() else " " for c in self.title.lower()).split()
        return "-".join(words)


def text(value: str) -> Block:
    """A paragraph."""
    return Block("text", text=value)


def note(value: str) -> Block:
    """A paragraph that must not be overlooked."""
    return Block("note", text=value)


def heading(value: str) -> Block:
    """A heading inside a chapter."""
    return Block("heading", text=value)


def bullets(entries: Iterable[str]) -> Block:
    """A list."""
    return Block("bullets", entries=list(entries))


# ----------------------------------------------------------------------------------------------------------- wording
def count(n: float, one: str, many: str | None = None) -> str:
    """``1 cell``, ``1,200 cells``; thousands separated."""
    return f"{n:,.0f} {one if n == 1 else many or one + 's'}"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names joined by commas and 'and'; after `most` the rest is counted."""
    names = list(names)
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else "none"


def number(value: Any, digits: int = 3) -> str:
    """A number as text with `digits` significant digits; NA for missing ones."""
    if value is None or value != value:
        return "NA"
    value = float(value)
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def fraction(value: Any) -> str:
    """A fraction as percent; NA for a missing one."""
    return "NA" if value is None or value != value else figures.percent(float(value))


def interval(value: Any, low: Any, high: Any) -> str:
    """``10 % (7.0 to 14 %)``."""
    if value is None or value != value:
        return "NA"
    lower = fraction(low).removesuffix("\u00a0%")
    return f"{fraction(value)} ({lower} to {fraction(high)})"


def smallest_rho(n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest correlation that `n` patients show with this power (Fisher z, two-sided); NaN below 4 patients."""
    from scipy.stats import norm

    if n < 4:
        return float("nan")
    return math.tanh(float(norm.ppf(1 - alpha / 2) + norm.ppf(power)) / math.sqrt(n - 3))


def power_statement(n: int) -> str:
    """What a cohort of `n` assessable patients could show, beside two fixed points."""
    fixed = "26 patients show a correlation with 80 % power only from |rho| = 0.53 on, 10 patients from 0.79 on."
    if n < 4:
        return f"Power: {fixed} With {count(n, 'assessable patient')} no correlation can be judged."
    return f"Power: {fixed} The {n} assessable patients of this cohort: from {smallest_rho(n):.2f} on."


# -------------------------------------------------------------------------------------------------------------- data
def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Nullable dtypes as object, float64 and bool, so that NA is NaN or None."""
    import pandas as pd

    out = {}
    for name in table.columns:
        values = table[name]
        if isinstance(values.dtype, pd.StringDtype):
            out[name] = values.astype(object).where(values.notna(), None)
        elif isinstance(values.dtype, pd.Int64Dtype):
            out[name] = values.astype("float64")
        elif isinstance(values.dtype, pd.BooleanDtype):
            out[name] = (
                values.astype(object).where(values.notna(), None) if values.isna().any() else values.astype(bool)
            )
        else:
            out[name] = values
    return pd.DataFrame(out, index=table.index)


class Data:
    """The results folder as tables; each is read when first asked for, a missing file is an empty table."""

    def __init__(self, results: Path, config: Config):
        self.results, self.config = results, config
        self._cache: dict[str, pd.DataFrame] = {}

    def path(self, name: str, sample: str = "") -> Path:
        """Where the table of a contract lies."""
        return self.results / tables.CONTRACTS[name].path.format(sample=sample)

    def table(self, name: str) -> pd.DataFrame:
        """A cohort table."""
        if name not in self._cache:
            path = self.path(name)
            table = io.read_table(path) if path.exists() else tables.empty(name)
            empty = plain(tables.empty(name))
            missing = {c: empty[c].reindex(table.index) for c in empty.columns if c not in table.columns}
            self._cache[name] = plain(table.assign(**missing))
        return self._cache[name]

    def per_sample(self, name: str, columns: list[str] | None = None) -> pd.DataFrame:
        """A table of all samples with ``sample`` as first column."""
        import pandas as pd

        key = f"{name}|{columns}"
        if key not in self._cache:
            parts = []
            for sample in self.samples:
                path = self.path(name, sample)
                if path.exists():
                    part = io.read_table(path, columns)
                    if len(part):
                        part.insert(0, "sample", sample)
                        parts.append(plain(part))
            empty = plain(tables.empty(name)[columns] if columns else tables.empty(name))
            empty.insert(0, "sample", pd.Series([], dtype=object))
            self._cache[key] = pd.concat(parts, ignore_index=True) if parts else empty
        return self._cache[key]

    @cached_property
    def sheet(self) -> pd.DataFrame:
        """`cohort/samples.tsv`, indexed by sample, everything as text."""
        import pandas as pd

        path = self.path("samples")
        table = pd.read_csv(path, sep="\t", dtype=str, na_values=["NA"], keep_default_na=False)
        return table.set_index("sample", drop=False)

    @cached_property
    def samples(self) -> list[str]:
        """Samples by tissue (tumours first), subtype and name: one order for every figure."""

        def key(sample: str) -> tuple[bool, bool, str, str]:
            subtype = self.sheet_value(sample, "subtype")
            return (self.is_normal(sample), not subtype, subtype, sample)

        return sorted(self.sheet.index, key=key)

    def sheet_value(self, sample: str, column: str) -> str:
        """A sheet value as text, empty where unknown."""
        value = self.sheet[column].get(sample) if column in self.sheet else None
        return value if isinstance(value, str) else ""

    def is_normal(self, sample: str) -> bool:
        """Whether the sheet says the sample is normal tissue."""
        return self.sheet_value(sample, "tissue").strip().lower().startswith("normal")

    def label(self, sample: str) -> str:
        """Name of a sample with its subtype, or 'normal'."""
        what = "normal" if self.is_normal(sample) else self.sheet_value(sample, "subtype")
        return f"{sample} ({what})" if what else sample

    @cached_property
    def tumours(self) -> list[str]:
        """Samples that speak for a tumour: the primary ones of the CSC table, else every sample that is not normal."""
        table = self.table("csc_patients")
        primary = set(table.loc[table["primary_sample"].astype(bool), "sample"]) if len(table) else set()
        chosen = [s for s in self.samples if s in primary and not self.is_normal(s)]
        return chosen or [s for s in self.samples if not self.is_normal(s)]

    @cached_property
    def statuses(self) -> pd.DataFrame:
        """`cohort/status.tsv`."""
        return self.table("status")

    def summary(self, stage: str, sample: str) -> dict[str, Any]:
        """Figures a stage left for a sample."""
        rows = self.statuses[(self.statuses["stage"] == stage) & (self.statuses["sample"] == sample)]
        values = json.loads(rows["summary"].iloc[0]) if len(rows) else {}
        return values if isinstance(values, dict) else {}

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per kept cell: type, call and coordinates."""
        types = self.table("cell_types")
        out = types.merge(
            self.per_sample("malignancy", ["cell_id", "malignancy", "malignancy_status"]).drop(columns="sample"),
            on="cell_id",
            how="left",
        )
        coordinates = self.table("embedding")
        wanted = ["cell_id", *[c for c in coordinates.columns if c.startswith("umap_")]]
        return out.merge(coordinates[wanted], on="cell_id", how="left")

    @cached_property
    def composition(self) -> pd.DataFrame:
        """`cohort/composition.tsv`, computed here where it was not written."""
        if self.path("composition").exists():
            return self.table("composition")
        cells = self.cells
        patients = {s: self.sheet_value(s, "patient") or s for s in self.samples}
        if not len(cells):
            return tables.empty("composition")
        return composition_table(cells, cells.set_index("cell_id")["malignancy"], patients)


def find_figure(summary: Mapping[str, Any], *words: str) -> float:
    """First number of a stage's summary whose key holds all words (shortest key first); NaN where there is none."""
    keys = sorted((k for k in summary if all(w in k.lower() for w in words)), key=lambda k: (len(k), k))
    for key in keys:
        if isinstance(summary[key], int | float) and not isinstance(summary[key], bool):
            return float(summary[key])
    return float("nan")


# ------------------------------------------------------------------------------------------------------------ writer
class Page:
    """Collects what a chapter shows and writes figures and full tables beside the page."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.captions: dict[str, str] = {}

    def figure(self, name: str, figure: Figure, title: str, caption: str, alt: str) -> Block:
        """Embed a figure as PNG; save it as PNG and SVG in ``figures/``."""
        png = figures.render(figure, "png")
        svg = figures.render(figure, "svg")
        for kind, data in (("png", png), ("svg", svg)):
            with io.atomic(self.folder / "figures" / f"{name}.{kind}") as temporary:
                temporary.write_bytes(data)
        width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
        uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        return Block("figure", name=name, title=title, caption=caption, alt=alt, uri=uri, width=width, height=height)

    def table(
        self,
        name: str,
        table: pd.DataFrame,
        columns: Mapping[str, tuple[str, Callable[[Any], str] | None]],
        title: str,
        caption: str = "",
        *,
        path: str = "",
        most: int = ROWS,
    ) -> Block:
        """Show the first `most` rows; without `path` the whole table is written to ``tables/``.

        `columns`: column -> (heading, formatter); a column with a formatter is aligned as numbers.
        """
        if not path:
            path = f"tables/{name}.tsv"
            with io.atomic(self.folder / path) as temporary:
                table.to_csv(temporary, sep="\t", index=False, na_rep="NA", float_format="%.6g", lineterminator="\n")
        rows = []
        for record in figures.records(table.head(most)[list(columns)]):
            cells = []
            for value, (_, form) in zip(record, columns.values(), strict=True):
                missing = value is None or value != value or value == ""
                cells.append("NA" if missing else form(value) if form else figures.short(str(value), LETTERS))
            rows.append(cells)
        shown = (
            f"{len(rows):,} of {count(len(table), 'row')} shown."
            if len(table) > len(rows)
            else f"{count(len(table), 'row')}."
        )
        heads = [Column(label, form is not None) for label, form in columns.values()]
        return Block("table", name=name, title=title, caption=caption, columns=heads, rows=rows, shown=shown, path=path)


def columns(spec: str) -> dict[str, tuple[str, Callable[[Any], str] | None]]:
    """Columns from one line: ``name``, ``name: heading``, ``name # heading`` (number), ``name % heading`` (share).

    Columns are separated by ``|``; a heading left out is the name.
    """
    out: dict[str, tuple[str, Callable[[Any], str] | None]] = {}
    for part in spec.split("|"):
        name, _, rest = part.strip().partition(" ")
        mark, _, label = rest.strip().partition(" ")
        form = {"#": number, "%": fraction}.get(mark)
        head = label if form else rest
        out[name.rstrip(":")] = (head.strip() or name.rstrip(":"), form)
    return out


def many(names: Sequence[str], what: str = "samples") -> str:
    """Say that a figure shows only the first ones."""
    return f" The first {SAMPLES} of {len(names)} {what} are drawn." if len(names) > SAMPLES else ""


# ---------------------------------------------------------------------------------------------------------- chapters
def status_words(status: str) -> str:
    """A status as words: ``arm_a_too_few_cells`` is 'arm A: too few cells'."""
    if status.startswith(("arm_a_", "arm_b_", "arm_c_")):
        return f"arm {status[4].upper()}: {status[6:].replace('_', ' ')}"
    return status.replace("_", " ")


def _reasons(rows: pd.DataFrame, column: str = "status") -> str:
    """``T4: too few informative cells; ...``, grouped by status."""
    parts = []
    for status, group in sorted(rows.groupby(column)):
        parts.append(f"{listed(group['sample'])}: {status_words(str(status))}")
    return "; ".join(parts)


def summary_chapter(d: Data) -> list[Block]:
    """What came in, what was found, what could not be assessed."""
    n_samples = len(d.samples)
    patients = {d.sheet_value(s, "patient") or s for s in d.samples}
    readable = [s for s in d.samples if d.sheet_value(s, "status") == "ok"]
    normals = [s for s in d.samples if d.is_normal(s)]
    qc = d.per_sample("qc", ["cell_id", "qc_pass"])
    n_in, n_kept = len(qc), int(qc["qc_pass"].sum()) if len(qc) else 0
    types = d.table("cell_types")
    unresolved = int((types["cell_type"] == "unresolved").sum())
    calls = d.per_sample("malignancy", ["cell_id", "malignancy"])
    n_malignant = int((calls["malignancy"] == "malignant").sum())
    csc, tam = d.table("csc_patients"), d.table("tam_patients")
    tumours = d.tumours
    spoken = csc[csc["sample"].isin(tumours)]
    good = spoken[spoken["m_csc_fraction"].notna()]
    aldh = spoken[spoken["aldh1a3_fraction"].notna()]
    macro = tam[tam["sample"].isin(tumours)]
    macro_good = macro[macro["status"].isin(GOOD)]
    loop = d.table("loop")
    loop = loop[loop["sample"].isin(tumours)]

    blocks = [
        Block(
            "cards",
            entries=[
                (f"{len(readable)} of {n_samples}", "samples could be read"),
                (f"{n_kept:,}", f"cells kept of {n_in:,} barcodes"),
                (f"{n_malignant:,}", "malignant cells"),
                (f"{len(good)} of {len(tumours)}", "tumours with a CD44+/CD24- fraction"),
                (f"{len(macro_good)} of {len(tumours)}", "tumours with macrophages assessed"),
                (_present(loop)[0], "tumours with all three arms of the IL6 loop, of those assessable"),
            ],
        )
    ]
    found = []
    unread = f" {count(n_samples - len(readable), 'sample')} could not be read." if len(readable) < n_samples else ""
    found.append(
        f"{count(n_samples, 'sample')} of {count(len(patients), 'patient')} came in"
        + (f", {len(normals)} of them normal tissue" if normals else "")
        + f".{unread} "
        + (
            f"Of {n_in:,} barcodes {n_kept:,} ({fraction(n_kept / n_in)}) passed quality control."
            if n_in
            else "No barcode was read."
        )
    )
    if len(types):
        found.append(
            f"{len(types) - unresolved:,} of {len(types):,} cells were given a type; {unresolved:,} "
            f"({fraction(unresolved / len(types))})"
            " stay unresolved."
        )
    with_malignant = [s for s in tumours if ((calls["sample"] == s) & (calls["malignancy"] == "malignant")).any()]
    found.append(
        f"In {len(with_malignant)} of {count(len(tumours), 'tumour')} malignant cells were called ({n_malignant:,} "
        "cells)" + (_normal_rate(calls, normals)) + "."
    )
    if len(good):
        ordered = good.sort_values("m_csc_fraction", kind="stable")
        lowest, highest = ordered.iloc[0], ordered.iloc[-1]
        spread = (
            f"from {interval(lowest.m_csc_fraction, lowest.m_csc_low, lowest.m_csc_high)} in {lowest['sample']} to "
            f"{interval(highest.m_csc_fraction, highest.m_csc_low, highest.m_csc_high)} in {highest['sample']}"
        )
        if len(good) == 1:
            spread = f"{interval(lowest.m_csc_fraction, lowest.m_csc_low, lowest.m_csc_high)} in {lowest['sample']}"
        found.append(
            f"In {len(good)} of {count(len(tumours), 'tumour')} the CD44+/CD24- fraction of malignant cells could "
            f"be estimated: {spread}"
            " (95 % intervals)."
        )
    else:
        found.append(
            f"In none of {count(len(tumours), 'tumour')} could the CD44+/CD24- fraction of malignant cells be "
            "estimated."
        )
    found.append(
        f"An ALDH1A3-high fraction (RNA, not enzyme activity) could be given in {len(aldh)} of "
        f"{count(len(tumours), 'tumour')}"
        + (f"; median {fraction(aldh['aldh1a3_fraction'].median())}." if len(aldh) else ".")
    )
    if len(macro_good):
        m2 = int((macro_good["fraction_m2_like"] > macro_good["fraction_m1_like"]).sum())
        found.append(
            f"Macrophages could be assessed in {len(macro_good)} of {count(len(tumours), 'tumour')}; in {m2} of "
            "these M2-like"
            " macrophages outnumber M1-like ones."
        )
    else:
        found.append(f"Macrophages could be assessed in none of {count(len(tumours), 'tumour')}.")
    found += _crosstalk_sentences(d)
    cohort = d.table("loop_cohort")
    forward = cohort[cohort["axis"].isin(("IL6_classic", "IL6_trans", "IL6", "IL6_autocrine"))]
    found += cohort_words(forward if len(forward) else cohort.head(2))

    missing = []
    if len(readable) < n_samples:
        missing += [
            f"{s}: {d.sheet_value(s, 'reason') or d.sheet_value(s, 'status')}." for s in d.samples if s not in readable
        ]
    for table, what in ((csc, "CD44+/CD24- and ALDH1A3-high fractions"), (tam, "Macrophages"), (loop, "Loop")):
        if not len(table):
            missing.append(f"{what}: no tumour has a row; the stage was not run or had nothing to work with.")
    silent = [s for s in tumours if s not in with_malignant and s in readable]
    if silent:
        said = d.statuses[(d.statuses["stage"] == "malignancy") & d.statuses["sample"].isin(silent)]
        missing.append(f"No malignant cell in {len(silent)} of {count(len(tumours), 'tumour')}: {_reasons(said)}.")
    for rows, column, what in (
        (spoken[spoken["m_csc_fraction"].isna()], "status", "CD44+/CD24- fraction"),
        (spoken[spoken["aldh1a3_fraction"].isna()], "aldh1a3_status", "ALDH1A3-high fraction"),
        (macro[~macro["status"].isin(GOOD)], "status", "Macrophages"),
    ):
        if len(rows):
            missing.append(f"{what}, {len(rows)} of {count(len(tumours), 'tumour')}: {_reasons(rows, column)}.")
    for axis, rows in loop[~loop["status"].isin(GOOD)].groupby("axis"):
        if axis in MAIN_AXES[:4]:
            n_all = int((loop["axis"] == axis).sum())
            missing.append(
                f"Loop over {str(axis).replace('_', ' ')}, {len(rows)} of {count(n_all, 'tumour')}: {_reasons(rows)}."
            )
    axes = d.table("axes")
    for axis in ("IL6_classic", "CXCL8", "PPBP"):
        rows = axes[axes["axis"] == axis]
        if len(rows) and (rows["n_assessable"] == 0).all():
            missing.append(
                f"Axis {axis.replace('_', ' ')}: no pair of types can be tested; the commonest obstacle is "
                f"'{status_words(summarise(list(rows['status']))[0])}'."
            )
    blocks += [
        heading("What came in and what was found"),
        bullets(found),
        heading("What could not be assessed, and why"),
    ]
    blocks.append(bullets(missing) if missing else text("Everything that was asked could be assessed."))
    blocks.append(
        text(
            "'NA' means not assessable, never zero. Each reason is put in plain words in the chapter 'Not assessable'."
        )
    )
    return blocks


def cohort_words(table: pd.DataFrame) -> list[str]:
    """The sentence that may be said of the cohort, per axis; axes with the same sentence share it."""
    said: dict[str, list[str]] = {}
    for row in figures.records(table):
        if row.wording:
            said.setdefault(str(row.wording), []).append(str(row.axis).replace("_", " "))
    return [f"{listed(axes, 12)}: {wording}" for wording, axes in said.items()]


def _present(loop: pd.DataFrame) -> tuple[str, str]:
    """``2 of 4`` tumours with all three arms over any IL6 axis."""
    rows = loop[loop["axis"].str.startswith("IL6")] if len(loop) else loop
    can = rows[rows["verdict"] != "not assessable"]
    present = can[can["verdict"] == "all three arms present"]
    return f"{present['patient'].nunique()} of {can['patient'].nunique()}", ""


def _normal_rate(calls: pd.DataFrame, normals: list[str]) -> str:
    rows = calls[calls["sample"].isin(normals) & (calls["malignancy"] != "not_epithelial")]
    if not len(rows):
        return ""
    n = int((rows["malignancy"] == "malignant").sum())
    share = f"{n} ({fraction(n / len(rows))}) were called malignant"
    return f"; of {count(len(rows), 'epithelial cell')} of normal tissue {share}" + (", which is an error" if n else "")


def _crosstalk_sentences(d: Data) -> list[str]:
    axes = d.table("axes")
    out = []
    for axis in ("IL6_classic", "IL6_trans", "CXCL8", "PPBP"):
        rows = axes[axes["axis"] == axis]
        if not len(rows):
            continue
        best = rows.iloc[int(rows["n_assessable"].to_numpy().argmax())]
        name = axis.replace("_", " ")
        if best["n_assessable"] > 0:
            out.append(
                f"{name} could be tested in {best['n_assessable']:.0f} of {count(best['n_patients'], 'tumour')} "
                "for its most measurable pair"
                f" ({best['sender']} to {best['receiver']}), significant in {best['n_significant']:.0f}."
            )
        else:
            out.append(f"{name} could be tested in no tumour.")
    return out


def quality_chapter(d: Data, page: Page) -> list[Block]:
    """Attrition, distributions, guards."""
    import pandas as pd

    qc = d.per_sample("qc")
    order = d.samples[:SAMPLES]
    if not len(qc):
        return [note("No sample has a quality table: nothing could be read.")]
    reasons = qc.groupby(["sample", "qc_reason"]).size().unstack(fill_value=0).reindex(order, fill_value=0)
    cuts = pd.DataFrame({s: thresholds(d.summary("qc", s)) for s in order}).T
    section = d.config.qc
    total, kept = len(qc), int(qc["qc_pass"].sum())
    rows = []
    for s in d.samples:
        mine = qc[qc["sample"] == s]
        cut = thresholds(d.summary("qc", s))
        contamination = find_figure(d.summary("ambient", s), "contamination", "rate")
        if not np.isfinite(contamination):
            contamination = find_figure(d.summary("ambient", s), "contamination")
        rows.append(
            {
                "sample": s,
                "status": d.sheet_value(s, "status"),
                "barcodes": len(mine),
                "kept": int(mine["qc_pass"].sum()),
                "median_umi": mine.loc[mine["qc_pass"].astype(bool), "n_counts"].median(),
                "median_genes": mine.loc[mine["qc_pass"].astype(bool), "n_genes"].median(),
                "min_counts": cut["n_counts"],
                "min_genes": cut["n_genes"],
                "max_mito": cut["pct_mito"],
                "doublets": float(mine["doublet"].eq(True).sum())
                if len(mine) and mine["doublet"].notna().any()
                else np.nan,
                "doublet_call": words_of(d.summary("qc", s), "doublet_call", "doublets"),
                "contamination": contamination,
            }
        )
    frame = pd.DataFrame(rows)
    blocks = [
        text(
            f"Of {total:,} barcodes {kept:,} ({fraction(kept / total)}) were kept. Thresholds are set per sample: "
            f"median and {section.n_mads:g} scaled"
            f" MAD, with the count threshold held between {section.min_counts_floor:,} and "
            f"{section.min_counts_cap:,} UMI, the gene threshold"
            f" between {section.min_genes_floor:,} and {section.min_genes_cap:,} and the mitochondrial one between "
            f"{section.max_mito_floor:g} and"
            f" {section.max_mito_cap:g} %."
        ),
        page.figure(
            "qc_attrition",
            figures.qc_attrition(reasons),
            "Which filter dropped the barcodes of each sample?",
            f"n = {total:,} barcodes of {count(len(order), 'sample')}; the first filter that fails is "
            f"counted.{many(d.samples)}",
            f"Stacked bars: {kept} of {total} barcodes kept over {len(order)} samples.",
        ),
        page.figure(
            "qc_distributions",
            figures.qc_distributions(qc, order, cuts),
            "How deep and how clean is each sample?",
            f"n = {total:,} barcodes before filtering. Bar: middle half; black: median; line: 1st to 99th "
            "percentile; dark red: the threshold in"
            " force in that sample (lower limit for UMI and genes, upper limit for mitochondrial share), where it "
            "was recorded.",
            "Per sample ranges of library size, detected genes and mitochondrial share with thresholds.",
        ),
        page.table(
            "quality",
            frame,
            columns(
                "sample | status | barcodes # | kept # | median_umi # median UMI | median_genes # median genes | "
                "min_counts # min UMI | min_genes # min genes | max_mito # max mito % | doublets # | "
                "doublet_call: doublet call | contamination % ambient share"
            ),
            "Quality per sample.",
            "Doublet call: how the threshold was found, or why doublets were not looked for. Medians of kept "
            "cells; ambient share: counts of a cell that are ambient RNA, from genes its type cannot make.",
        ),
    ]
    guards = [c for c in d.sheet.columns if c.startswith("guard_")]
    if guards:
        blocks.append(
            page.table(
                "guards",
                d.sheet.loc[d.samples].reset_index(drop=True),
                {"sample": ("sample", None), **{c: (c.removeprefix("guard_"), None) for c in guards}},
                "Are the genes the questions need in each matrix at all?",
                "A gene that is absent from the reference cannot be measured; its zeros say nothing.",
                path="cohort/samples.tsv",
            )
        )
    return blocks


def words_of(summary: Mapping[str, Any], *keys: str) -> str:
    """First text found under one of the keys, underscores as spaces; empty where there is none."""
    return next((str(summary[k]).replace("_", " ") for k in keys if isinstance(summary.get(k), str)), "")


def thresholds(summary: Mapping[str, Any]) -> dict[str, float]:
    """Thresholds of quality control from the stage's summary; NaN where it does not say."""
    flat: dict[str, Any] = {}
    for key, value in summary.items():
        flat.update({f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value})
    flat = {k.rsplit(".", 1)[-1]: v for k, v in flat.items()}
    return {
        "n_counts": find_figure(flat, "min", "counts"),
        "n_genes": find_figure(flat, "min", "genes"),
        "pct_mito": find_figure(flat, "max", "mito"),
    }


def map_chapter(d: Data, page: Page) -> list[Block]:
    """The map."""
    cells = d.cells
    if "umap_1" not in cells or not cells["umap_1"].notna().any():
        return [note("There is no map: no cells were embedded.")]
    cells = cells[cells["umap_1"].notna()]
    drawn = figures.stratified(cells, "sample", d.config.report.max_map_points, d.config.seed)
    some = (
        "all cells"
        if len(drawn) == len(cells)
        else f"{len(drawn):,} of {len(cells):,} cells, the same share of every sample"
    )
    raw = "umap_raw_1" in cells and bool(cells["umap_raw_1"].notna().any())
    beside = (
        " Lower row: the same cells without integration." if raw else " A map without integration was not computed."
    )
    return [
        page.figure(
            "maps",
            figures.maps(drawn, d.samples),
            "Do types meet across samples while malignant cells stay with their patient?",
            f"n = {some}.{beside} Malignant cells should separate by patient: their copy number differs. A map is "
            "for orientation; distances and"
            " densities on it are not evidence.",
            f"UMAP of {len(drawn)} cells coloured by sample, by cell type and by malignancy call, "
            + ("integrated above, not integrated below." if raw else "integrated."),
        )
    ]


def composition_chapter(d: Data, page: Page) -> list[Block]:
    """What each sample is made of."""
    table = d.composition
    if not len(table):
        return [note("No cell was given a type.")]
    order = d.samples[:SAMPLES]
    n = int(table["n_cells"].sum())
    return [
        page.figure(
            "composition",
            figures.composition(table, order, {s: d.label(s) for s in order}),
            "What is each sample made of?",
            f"n = {n:,} kept cells; samples by subtype, normal tissue last.{many(d.samples)} Epithelial cells are "
            "split by the malignancy call. Shares sum to"
            " one: more of one type means less of the others. Dissociation loses neutrophils, adipocytes and "
            "fragile cells.",
            f"Stacked bars of cell type shares for {len(order)} samples.",
        ),
        page.table(
            "composition_top",
            table.sort_values(["n_cells", "sample"], ascending=[False, True], kind="stable"),
            columns("sample | cell_type: type | n_cells # cells | fraction % share"),
            "The largest groups.",
            path="cohort/composition.tsv",
            most=12,
        ),
    ]


def annotation_chapter(d: Data, page: Page) -> list[Block]:
    """Markers, confidence, unresolved cells."""
    import pandas as pd

    types = d.table("cell_types")
    if not len(types):
        return [note("No cell was given a type.")]
    blocks: list[Block] = []
    profiles = d.per_sample("profiles")
    markers = marker_genes()
    if len(profiles) and markers:
        wanted = {g for genes in markers.values() for g in genes}
        part = profiles[profiles["gene"].isin(wanted)].assign(weighted=lambda t: t["mean_lognorm"] * t["n_cells"])
        pooled = part.groupby(["gene", "cell_type"])[["n_cells", "n_positive", "weighted"]].sum().reset_index()
        pooled["fraction"] = pooled["n_positive"] / pooled["n_cells"]
        pooled["mean_lognorm"] = pooled["weighted"] / pooled["n_cells"]
        blocks.append(
            page.figure(
                "markers",
                figures.marker_dots(pooled, markers),
                "Do the types show their own markers, and only these?",
                f"n = {len(types):,} cells of all samples. Dot area: share of the type's cells with a count; "
                "colour: mean of log1p counts per 10,000. The first"
                " markers of every type are drawn; coloured bars above show which type a gene belongs to.",
                "Dot plot of marker genes by cell type.",
            )
        )
    minimum = d.config.annotate.min_confidence
    unresolved = types["cell_type"] == "unresolved"
    blocks.append(
        page.figure(
            "confidence",
            figures.confidence(types, d.samples[:SAMPLES], minimum),
            "How sure are the types, and how many cells stay unresolved?",
            f"n = {len(types):,} cells; {int(unresolved.sum()):,} ({fraction(unresolved.mean())}) are unresolved. "
            f"Below a posterior of {minimum:g}, or without enough"
            f" markers, a cell gets no type: better unknown than wrong.{many(d.samples)}",
            "Histogram of annotation confidence and unresolved share per sample.",
        )
    )
    minor = types.groupby(["cell_type", "cell_type_minor"]).agg(
        cells=("cell_id", "size"), samples=("sample", "nunique"), confidence=("confidence", "median")
    )
    minor = minor.reset_index().sort_values(["cells", "cell_type_minor"], ascending=[False, True], kind="stable")
    blocks.append(
        page.table(
            "minor_types",
            minor,
            columns(
                "cell_type: type | cell_type_minor: minor type | cells # | samples # | confidence # median confidence"
            ),
            "Types and minor types.",
            "A minor type equal to the major one: no finer evidence.",
            most=25,
        )
    )
    given = types[types["cell_type_input"].notna()]
    if len(given):
        cross = pd.crosstab(given["cell_type_input"].astype(str), given["cell_type"]).reset_index()
        blocks.append(
            page.table(
                "input_annotation",
                cross,
                {
                    "cell_type_input": ("annotation in the input", None),
                    **{c: (c.replace("_", " "), number) for c in cross.columns[1:]},
                },
                "How do the types compare with the annotation in the input?",
                f"n = {len(given):,} cells with an annotation. It was not used to give types unless the sheet says so.",
            )
        )
    return blocks


def marker_genes() -> dict[str, tuple[str, ...]]:
    """Positive markers of the major types, as shipped; empty where the resource is not there."""
    try:
        from nicheloop import genes
    except ImportError:
        return {}
    return {name: tuple(m.positive) for name, m in genes.markers("major").items()}


def rung(d: Data, sample: str, calls: pd.DataFrame) -> str:
    """Rung of a sample's reference ladder: from the stage's summary, else the commonest status of epithelial cells."""
    for stage in ("malignancy", "cnv"):
        summary = d.summary(stage, sample)
        for key in ("rung", "reference_rung", "reference_status", "reference"):
            if isinstance(summary.get(key), str) and summary[key]:
                return str(summary[key])
    mine = calls[(calls["sample"] == sample) & (calls["malignancy"] != "not_epithelial")]
    return str(mine["malignancy_status"].mode().iloc[0]) if len(mine) else "not recorded"


def malignancy_chapter(d: Data, page: Page) -> list[Block]:
    """Three-way call, false-positive rate, copy-number heat maps."""
    import pandas as pd

    calls = d.per_sample("malignancy", ["cell_id", "malignancy", "malignancy_status"])
    rows = []
    for s in d.samples:
        mine = calls[calls["sample"] == s]["malignancy"].value_counts()
        summary = d.summary("malignancy", s)
        status = d.statuses[(d.statuses["stage"] == "malignancy") & (d.statuses["sample"] == s)]["status"]
        own = summary.get("n_reference")
        n_reference = float(sum(own.values())) if isinstance(own, dict) else find_figure(summary, "n_reference")
        central = {k: v for k, v in summary.items() if "upper" not in k}
        rows.append(
            {
                "sample": s,
                "epithelial": int(mine.drop("not_epithelial", errors="ignore").sum()),
                **{c: int(mine.get(c, 0)) for c in ("malignant", "normal", "unassigned")},
                "reference": rung(d, s, calls) if len(mine) else "",
                "n_reference": n_reference,
                "fpr": find_figure(central, "reference", "positive"),
                "fpr_upper": find_figure(summary, "reference", "positive", "upper"),
                "caf_malignant": find_figure(summary, "caf", "malignant"),
                "status": str(status.iloc[0]) if len(status) else "not_run",
            }
        )
    frame = pd.DataFrame(rows)
    n_epithelial = int(frame["epithelial"].sum())
    blocks = [
        text(
            f"Of {n_epithelial:,} epithelial cells {int(frame['malignant'].sum()):,} were called malignant, "
            f"{int(frame['normal'].sum()):,} normal and"
            f" {int(frame['unassigned'].sum()):,} unassigned. Unassigned cells are left out of everything that is "
            "said about malignant cells."
        ),
        page.table(
            "malignancy",
            frame,
            {
                "sample": ("sample", None),
                "epithelial": ("epithelial", number),
                "malignant": ("malignant", number),
                "normal": ("normal", number),
                "unassigned": ("unassigned", number),
                "reference": ("reference", lambda v: v.replace("_", " ")),
                "n_reference": ("reference cells", number),
                "fpr": ("false-positive rate", fraction),
                "fpr_upper": ("its upper bound", fraction),
                "caf_malignant": ("CAF called malignant", fraction),
                "status": ("status", None),
            },
            "Three-way call per sample.",
            "False-positive rate: share of held-out reference cells above the cut. CAF are a negative control: "
            "they must not look malignant. In normal tissue"
            " every malignant call is an error.",
        ),
    ]
    blocks[-1].columns[5].numeric = False
    table = d.per_sample("cnv")
    panels = []
    for s in d.samples:
        profile = table[table["sample"] == s]
        if len(profile):
            panels.append(
                (f"{figures.short(d.label(s), 40)}; reference: {rung(d, s, calls).replace('_', ' ')}", profile)
            )
    for i, part in enumerate(figures.chunks(panels[: 4 * PANELS], PANELS), start=1):
        more = f" The first {4 * PANELS} of {len(panels)} samples are drawn." if len(panels) > 4 * PANELS else ""
        blocks.append(
            page.figure(
                f"cnv_{i}",
                figures.cnv(part),
                "Does the genome of malignant cells differ from the reference?",
                "Mean log ratio to the reference per group (n cells in brackets) along the chromosomes 1 to 22; "
                "red: gain, blue: loss; all panels share one scale."
                f" The title names the reference rung. Normal epithelium and CAF should be pale.{more}",
                "Copy-number heat maps of " + listed([p[0].split(";")[0] for p in part], 20) + ".",
            )
        )
    if not panels:
        blocks.append(note("No sample has a copy-number profile."))
    return blocks


def csc_chapter(d: Data, page: Page) -> list[Block]:
    """CD44/CD24 and ALDH1A3, per tumour."""
    table = d.table("csc_patients")
    if not len(table):
        return [note("There is no table of cancer stem cell states.")]
    rank = {s: i for i, s in enumerate(d.samples)}
    table = table.assign(rank=table["sample"].map(rank)).sort_values("rank", kind="stable")
    primary = table[table["sample"].isin(d.tumours)]
    good = primary["m_csc_fraction"].notna()
    sets = d.config.csc
    blocks = [
        text(
            "Malignant cells only. A zero for CD24 means 'low' only in a cell that would show CD24 if it were "
            "high; the fraction comes from a joint model of both"
            " genes with the depth of every cell, and its interval carries the uncertainty of the rates. "
            "CD44+/CD24- and ALDH1A3-high are two states and are not"
            " averaged. CD44+/CD24- is also a marker of basal and mesenchymal subtypes: read fractions beside the "
            "subtype."
        )
    ]
    shown = primary.head(SAMPLES)
    rows = shown.assign(
        label=[d.label(s) for s in shown["sample"]],
        value=shown["m_csc_fraction"],
        low=shown["m_csc_low"],
        high=shown["m_csc_high"],
        note=[
            f"{fraction(r.m_csc_fraction)}, n = {r.n_malignant:,.0f}"
            if r.m_csc_fraction == r.m_csc_fraction
            else f"{str(r.status).replace('_', ' ')}{': ' + r.reason if r.reason else ''}"
            for r in figures.records(shown)
        ],
    )
    if len(rows):
        blocks.append(
            page.figure(
                "csc_forest",
                figures.forest(
                    rows,
                    f"In {int(good.sum())} of {len(primary)} tumours the CD44+/CD24- fraction can be estimated",
                    "CD44+/CD24- share of malignant cells",
                    "naive_fraction",
                ),
                f"In {int(good.sum())} of {len(primary)} tumours the CD44+/CD24- fraction can be estimated.",
                f"n = {int(primary['n_malignant'].sum()):,} malignant cells of {count(len(primary), 'tumour')}, "
                "one primary sample per patient. Dot and line: estimate and 95 %"
                " interval. Cross: the simple rule CD44 > 0 and CD24 = 0, shown to be distrusted. NA: fewer than "
                f"{sets.min_malignant} malignant cells, fewer than"
                f" {fraction(sets.min_informative)} of them informative for CD24, or another reason as "
                f"given.{many(list(primary['sample']), 'tumours')}",
                f"Forest plot of CD44+/CD24- fractions; {int(good.sum())} tumours with an estimate, "
                f"{int((~good).sum())} without.",
            )
        )
    blocks.append(
        page.table(
            "csc_patients",
            table,
            columns(
                "sample | subtype | n_malignant # malignant cells | median_umi # median UMI | "
                "informative_fraction % informative for CD24 | m_csc_fraction % CD44+/CD24- | m_csc_low % low | "
                "m_csc_high % high | m_csc_wording: may be said | odds_ratio # odds ratio | emt_z_csc # EMT z | "
                "cycling_z_csc # G2M z | status"
            ),
            "CD44+/CD24- per sample.",
            "Odds ratio: association of CD44 high and CD24 high. EMT and G2M z: CSC-high minus other malignant "
            "cells, within the sample."
            " Samples that do not speak for a tumour are listed too.",
            path="cohort/csc_patients.tsv",
        )
    )
    controls = d.table("csc_controls")
    blocks.append(heading("What if all cells were scored?"))
    if controls["fraction_called"].notna().any():
        pooled = controls.dropna(subset=["fraction_called"])
        wide = pooled.groupby("cell_type").agg(
            samples=("sample", "nunique"),
            cells=("n_cells", "sum"),
            median=("fraction_called", "median"),
            highest=("fraction_called", "max"),
        )
        wide = wide.reset_index().sort_values(["median", "cell_type"], ascending=[False, True], kind="stable")
        blocks.append(
            page.figure(
                "csc_controls",
                figures.controls(controls),
                "What if all cells were scored?",
                f"n = {int(pooled['n_cells'].sum()):,} cells of {count(pooled['sample'].nunique(), 'sample')}. "
                "Dot: a sample; bar: the median of samples. The same caller applied to every type. T cells,"
                " fibroblasts and perivascular cells express CD44 and no CD24 by nature: without the restriction "
                "to malignant cells most 'stem cells' would be stroma.",
                "Share of cells of each type that the CD44/CD24 caller would take.",
            )
        )
        blocks.append(
            page.table(
                "csc_controls",
                wide,
                columns("cell_type: cells | samples # | cells # n | median % median share called | highest %"),
                "The CD44/CD24 caller on every type.",
                path="cohort/csc_controls.tsv",
            )
        )
    else:
        blocks.append(
            text("Not available: the rates of the two states were not estimated, so no cell of any type can be called.")
        )
    blocks.append(heading("ALDH1A3"))
    aldh = primary.head(SAMPLES)
    ok = aldh["aldh1a3_fraction"].notna()
    if ok.any():
        rows = aldh.assign(
            label=[d.label(s) for s in aldh["sample"]],
            value=aldh["aldh1a3_fraction"],
            low=aldh["aldh1a3_low"],
            high=aldh["aldh1a3_high"],
            note=[
                f"{fraction(r.aldh1a3_fraction)}, LP-adjusted {fraction(r.aldh1a3_lp_fraction)}"
                if r.aldh1a3_fraction == r.aldh1a3_fraction
                else str(r.aldh1a3_status).replace("_", " ")
                for r in figures.records(aldh)
            ],
        )
        blocks.append(
            page.figure(
                "aldh1a3_forest",
                figures.forest(
                    rows,
                    f"In {int(ok.sum())} of {len(aldh)} tumours an ALDH1A3-high fraction can be estimated",
                    "ALDH1A3-high share of malignant cells",
                ),
                f"In {int(ok.sum())} of {len(aldh)} tumours an ALDH1A3-high fraction can be estimated.",
                f"n = {int(aldh['n_malignant'].sum()):,} malignant cells of {count(len(aldh), 'tumour')}. RNA, not "
                "enzyme activity: never read it as ALDEFLUOR-positive. LP-adjusted: the expected rate follows"
                " luminal-progenitor likeness, because normal progenitors express ALDH1A3.",
                "Forest plot of ALDH1A3-high fractions.",
            )
        )
    blocks.append(
        page.table(
            "aldh1a3",
            table,
            columns(
                "sample | subtype | n_malignant # malignant cells | aldh1a3_fraction % ALDH1A3-high | aldh1a3_low "
                "% low | aldh1a3_high % high | aldh1a3_lp_fraction % LP-adjusted | overlap_fraction % in both "
                "states | overlap_expected % if independent | aldh1a3_status: status"
            ),
            "ALDH1A3-high per sample.",
            "In both states: CD44+/CD24- and ALDH1A3-high, beside what independence would give.",
            path="cohort/csc_patients.tsv",
        )
    )
    return blocks


def tam_chapter(d: Data, page: Page) -> list[Block]:
    """M1 and M2 as two axes."""
    table = d.table("tam_patients")
    if not len(table):
        return [note("There is no table of macrophages.")]
    rank = {s: i for i, s in enumerate(d.samples)}
    table = table.assign(rank=table["sample"].map(rank)).sort_values("rank", kind="stable")
    cells = d.per_sample("tam")
    macrophages = cells[cells["m1_z"].notna() & cells["m2_z"].notna()]
    panels = []
    for s in d.samples:
        mine = macrophages[macrophages["sample"] == s]
        if len(mine):
            panels.append((f"{s}, n = {len(mine):,}", mine))
    good = table[table["sample"].isin(d.tumours) & table["status"].isin(GOOD)]
    cut = d.config.tam.class_z
    blocks = [
        text(
            "M1 and M2 are two axes: a macrophage can be high on both (mixed) or on neither (low). Monocytes are "
            "split off first. Macrophages could be assessed in"
            f" {len(good)} of {count(len(d.tumours), 'tumour')}."
        )
    ]
    for i, part in enumerate(figures.chunks(panels[: 3 * PANELS], PANELS), start=1):
        blocks.append(
            page.figure(
                f"tam_{i}",
                figures.tam_planes(part, cut),
                "Where do the macrophages of each sample lie between M1 and M2?",
                f"n = {sum(len(p[1]) for p in part):,} macrophages of {count(len(part), 'sample')}; z against "
                f"expression-matched nulls; dashed: the class cut at z = {cut:g}."
                " Sets without secreted genes, so that the axes share nothing with the crosstalk chapter.",
                "Scatter of M1 against M2 z for " + listed([p[0] for p in part], 20) + ".",
            )
        )
    if not panels:
        blocks.append(note("No sample has scored macrophages."))
    blocks.append(
        page.table(
            "tam_patients",
            table,
            columns(
                "sample | subtype | n_macrophage # macrophages | n_monocyte # monocytes | m1_median # median M1 z "
                "| m2_median # median M2 z | fraction_m1_like % M1-like | fraction_m2_like % M2-like | "
                "fraction_mixed % mixed | fraction_low % low | m1_m2_rho # rho of the axes | status | reason"
            ),
            "Macrophages per sample.",
            f"Classes at z = {cut:g}; the full table has the shares at other cuts. A ratio of M1 to M2 is not given.",
            path="cohort/tam_patients.tsv",
        )
    )
    states = cells[cells["tam_state"].notna()]
    if len(states):
        wide = (
            states.groupby("tam_state")
            .agg(macrophages=("cell_id", "size"), samples=("sample", "nunique"))
            .reset_index()
        )
        wide["share"] = wide["macrophages"] / wide["macrophages"].sum()
        wide = wide.sort_values(["macrophages", "tam_state"], ascending=[False, True], kind="stable")
        blocks.append(
            page.table(
                "tam_states",
                wide,
                columns("tam_state: dominant state | macrophages # | share % | samples #"),
                "Dominant states (Ma 2022).",
                "A state is given only where it leads the next by a margin; the sets overlap, so many macrophages "
                "stay mixed.",
            )
        )
    return blocks


def crosstalk_chapter(d: Data, page: Page) -> list[Block]:
    """Measurability first, then the axes."""
    import pandas as pd

    rows = d.per_sample("crosstalk")
    axes = d.table("axes")
    if not len(rows):
        return [note("No axis could be looked at in any sample; the chapter 'Not assessable' says why.")]
    main = rows[rows["axis"].isin(MAIN_AXES) & rows["sample"].isin(d.tumours)]
    table = []
    for axis in [a for a in MAIN_AXES if a in set(main["axis"])]:
        part = main[main["axis"] == axis]
        testable = part[part["status"] == "tested"]["sample"].nunique()
        obstacle = part[part["status"] != "tested"]["status"].value_counts()
        top = sorted(obstacle.items(), key=lambda kv: (-kv[1], kv[0]))[0] if len(obstacle) else ("", 0)
        hidden = part[part["status"] == "receptor_not_detected"]["receptor_upper"]
        quiet = part[part["status"] == "ligand_not_detected"]["ligand_upper"]
        table.append(
            {
                "axis": axis,
                "genes": f"{part['ligand'].iloc[0]} to {part['receptor'].iloc[0]}"
                + (" …" if part["receptor"].nunique() > 1 or part["ligand"].nunique() > 1 else ""),
                "samples": part["sample"].nunique(),
                "testable": testable,
                "pairs": len(part),
                "pairs_tested": int((part["status"] == "tested").sum()),
                "obstacle": f"{SHORT_WORDS.get(str(top[0]), str(top[0]).replace('_', ' '))} ({top[1]})"
                if top[0]
                else "none",
                "ligand_upper": quiet.max() if len(quiet) else np.nan,
                "receptor_upper": hidden.max() if len(hidden) else np.nan,
            }
        )
    guards = main.groupby("sample")[["n_platelet", "n_neutrophil"]].max().reset_index()
    guard_words = listed(
        [f"{r.sample} {r.n_platelet:.0f} and {r.n_neutrophil:.0f}" for r in figures.records(guards)], 12
    )
    blocks = [
        text(
            "First, can the axis be seen at all? A pair of types is tested only where the ligand and every "
            "receptor subunit pass the detection floor and the ambient"
            " expectation. 'Not detected' comes with the upper bound of how many cells may still express the "
            "gene: it is not proof of absence."
        ),
        page.table(
            "measurability",
            pd.DataFrame(
                table,
                columns=[
                    "axis",
                    "genes",
                    "samples",
                    "testable",
                    "pairs",
                    "pairs_tested",
                    "obstacle",
                    "ligand_upper",
                    "receptor_upper",
                ],
            ),
            columns(
                "axis | genes | samples # tumours | testable # testable in | pairs # pairs of types | "
                "pairs_tested # pairs tested | obstacle: commonest obstacle (pairs) | ligand_upper % undetected "
                "ligand, at most | receptor_upper % undetected receptor, at most"
            ),
            "Which axes can be measured?",
            "Upper bound: largest fraction of cells that may express the gene where it was not detected (rule of "
            "three or exact).",
        ),
        text(
            f"Platelet barcodes and neutrophils per tumour: {guard_words}."
            " PPBP (CXCL7) RNA marks platelets, and CXCR1/CXCR2 belong to neutrophils, which droplet data lose: "
            "both axes are expected to be 'not measurable'."
        ),
    ]
    shown = [a for a in MAIN_AXES if a in set(axes["axis"])]
    for i, names in enumerate((shown[:4], shown[4:]), start=1):
        if names:
            n = int(axes["n_patients"].max())
            blocks.append(
                page.figure(
                    f"axes_{i}",
                    figures.axis_dots(axes, names),
                    f"Who can talk to whom over {listed([a.replace('_', ' ') for a in names])}?",
                    f"n = {count(n, 'tumour')}, one primary sample each. Circle: tested; size: patients in whom it "
                    "was tested; colour: mean log2 effect over permuted labels (random effects,"
                    " two patients or more; hollow: one patient); numbers: significant of assessable patients. "
                    "Other marks: the commonest reason why the pair could not be tested.",
                    "Sender by receiver dots for " + listed(list(names)) + ".",
                )
            )
    ranked = axes.assign(size=axes["effect"].abs()).sort_values(
        ["n_significant", "size", "axis", "sender", "receiver"],
        ascending=[False, False, True, True, True],
        kind="stable",
    )
    ranked = ranked[ranked["n_assessable"] > 0]
    if len(ranked):
        blocks.append(
            page.table(
                "axes",
                ranked,
                columns(
                    "axis | arm: role | sender | receiver | n_assessable # assessable patients | n_significant # "
                    "significant | effect # log2 effect | effect_low # low | effect_high # high | status"
                ),
                "The strongest measurable pairs.",
                "Significant: q below alpha within the patient's sample. Decoys should be null and positive "
                "controls present.",
                path="cohort/axes.tsv",
                most=20,
            )
        )
    kinds = axes[axes["arm"].isin(("positive_control", "decoy"))]
    if len(kinds):
        pooled = (
            kinds.groupby(["arm", "axis"])
            .agg(pairs=("sender", "size"), assessable=("n_assessable", "sum"), significant=("n_significant", "sum"))
            .reset_index()
        )
        blocks.append(
            page.table(
                "axis_controls",
                pooled,
                columns("arm: kind | axis | pairs # | assessable # patient tests | significant #"),
                "Positive controls and decoys.",
                "A positive control that is never significant, or a decoy that is, warns of the whole chapter.",
            )
        )
    return blocks


def loop_chapter(d: Data, page: Page) -> list[Block]:
    """Three arms per patient."""
    arms, loop = d.per_sample("loop_arms"), d.table("loop")
    if not len(arms) and not len(loop):
        return [note("The loop could not be looked at in any sample; the chapter 'Not assessable' says why.")]
    blocks = [
        text(
            "Three arms: A, the niche signals to malignant cells; B, CSC-high malignant cells respond more than "
            "CSC-low ones of the same clone and depth; C, malignant cells signal"
            " back. The patient's p is the largest of the three, and an arm that cannot be measured makes the "
            "answer NA, not zero. Of one patient no more is said than"
            " 'all three arms present', 'not present' or 'not assessable'."
        )
    ]
    tumours = d.tumours[:SAMPLES]
    mine = arms[arms["sample"].isin(tumours)].assign(label=lambda t: t["sample"])
    names = [a for a in MAIN_AXES if a in set(mine["axis"])] + sorted(set(mine["axis"]) - set(MAIN_AXES))
    measured = set(mine.loc[mine["status"].isin(GOOD), "axis"])
    names = [a for a in names if a in MAIN_AXES or a in measured][:6]
    for i, part in enumerate(figures.chunks(names, 3 if len(tumours) < 16 else 1), start=1):
        blocks.append(
            page.figure(
                f"loop_{i}",
                figures.loop_arms(mine, tumours, part, SHORT_WORDS),
                f"Which arms stand out in which tumour: {listed([a.replace('_', ' ') for a in part])}?",
                f"n = {count(len(tumours), 'tumour')}, one primary sample each. Bar: effect with its interval; "
                "dark: p below 0.05 against the arm's null; A and C: log2 strength over permuted"
                " labels, B: read-out z of CSC-high minus CSC-low cells. NA: the arm could not be "
                f"measured.{many(d.tumours, 'tumours')}",
                "Bars of the arms A, B and C per tumour for " + listed(list(part)) + ".",
            )
        )
    if len(loop):
        order = {a: i for i, a in enumerate(MAIN_AXES)}
        ranked = loop.assign(rank=loop["axis"].map(order).fillna(99)).sort_values(
            ["rank", "axis", "verdict", "patient"], kind="stable"
        )
        first = ranked[ranked["axis"].isin(MAIN_AXES)]
        blocks.append(
            page.table(
                "loop",
                first if len(first) else ranked,
                columns("sample | axis | verdict | p_a # p A | p_b # p B | p_c # p C | p # p (largest) | reason"),
                "What may be said of each patient.",
                "Scores are not comparable between patients.",
                path="cohort/loop.tsv",
            )
        )
    return blocks


def cohort_chapter(d: Data, page: Page) -> list[Block]:
    """What may be said of the cohort, and with what power."""
    table = d.table("loop_cohort")
    csc = d.table("csc_patients")
    n_csc = int(csc[csc["sample"].isin(d.tumours)]["m_csc_fraction"].notna().sum())
    n_loop = int(table["n_assessable"].max()) if len(table) else 0
    blocks = [
        text("The patient is the unit. One primary sample speaks for a patient; others are shown and never pooled."),
        note(
            power_statement(n_csc)
            + f" A claim about the loop needs {d.config.loop.min_patients} assessable patients; here there are at "
            f"most {n_loop}."
        ),
    ]
    if len(table):
        blocks.append(bullets(cohort_words(table)))
        blocks.append(
            page.table(
                "loop_cohort",
                table,
                columns(
                    "axis | n_patients # patients | n_assessable # assessable | n_present # all three arms | "
                    "coupling_forward # coupling A-B | p_forward # p | coupling_return # coupling C | p_return "
                    "# p | status | strata"
                ),
                "The loop in the cohort.",
                "Coupling: mean product of ligand and response over patients, standardised within subtype and "
                "data set; p from swapping patients within these strata. Strata with fewer"
                f" than {d.config.loop.min_stratum} patients are not swapped.",
                path="cohort/loop_cohort.tsv",
            )
        )
    primary = csc[csc["sample"].isin(d.tumours)]
    if len(primary):
        groups = primary.assign(subtype=primary["subtype"].fillna("unknown")).groupby("subtype")
        wide = groups.agg(
            tumours=("sample", "size"),
            assessable=("m_csc_fraction", "count"),
            median=("m_csc_fraction", "median"),
            lowest=("m_csc_fraction", "min"),
            highest=("m_csc_fraction", "max"),
            aldh=("aldh1a3_fraction", "median"),
        ).reset_index()
        blocks.append(
            page.table(
                "csc_by_subtype",
                wide,
                columns(
                    "subtype | tumours # | assessable # with an estimate | median % median CD44+/CD24- | lowest % "
                    "| highest % | aldh % median ALDH1A3-high"
                ),
                "Stem-cell states by subtype.",
                "Descriptive; no test. CD44+/CD24- is expected to be more frequent in basal-like tumours because "
                "it is a subtype marker too.",
            )
        )
    return blocks


def enrichment_chapter(d: Data, page: Page) -> list[Block]:
    """Pseudobulk contrasts and prerank."""
    table, de = d.table("enrichment"), d.table("de")
    blocks = [
        text(
            "Counts are summed per patient and state and compared within patients. Gene permutation ranks gene "
            "sets; it is not a test between patients."
        )
    ]
    names = {"m_csc": "CD44+/CD24- against other malignant cells", "tam_m2": "M2-like against other macrophages"}
    if not len(table) and not len(de):
        return [*blocks, note("No contrast was made; the chapter 'Not assessable' says why.")]
    for contrast in sorted(set(table["contrast"]) | set(de["contrast"])):
        part, genes = table[table["contrast"] == contrast], de[de["contrast"] == contrast]
        blocks.append(heading(f"{contrast}: {names.get(contrast, 'high against low state')}"))
        bad = part[part["nes"].isna()]
        if len(part) == len(bad):
            source = bad if len(bad) else genes
            blocks.append(
                text(
                    f"Not assessable: {explain(str(source['status'].iloc[0]))} {source['reason'].iloc[0] or ''}".strip()
                    + "."
                )
            )
        else:
            n = genes["n_patients"].max() if len(genes) else np.nan
            blocks.append(
                page.figure(
                    f"enrichment_{contrast}",
                    figures.enrichment(table, contrast),
                    f"Which gene sets lead and trail in {contrast}?",
                    (f"n = {count(n, 'patient')} with both states. " if n == n else "")
                    + "Sets with the largest absolute normalised enrichment score; pale: q of 0.25 or more.",
                    f"Bars of normalised enrichment scores for {contrast}.",
                )
            )
            ranked = (
                part.assign(size_abs=part["nes"].abs())
                .sort_values(["q", "size_abs"], ascending=[True, False], kind="stable")
                .drop(columns="size_abs")
            )
            ranked = ranked.assign(
                lead=[figures.short(str(v).replace(";", ", "), 70) if v else "" for v in ranked["leading_edge"]]
            )
            blocks.append(
                page.table(
                    f"enrichment_{contrast}",
                    ranked,
                    columns("gene_set: gene set | size # genes | nes # NES | p # | q # | lead: leading genes"),
                    "Gene sets by q.",
                    path="cohort/enrichment.tsv",
                    most=15,
                )
            )
        good = genes[genes["log2_fold_change"].notna()]
        if len(good):
            ranked = good.assign(size_abs=good["statistic"].abs()).sort_values(
                ["q", "size_abs", "gene"], ascending=[True, False, True], kind="stable"
            )
            blocks.append(
                page.table(
                    f"de_{contrast}",
                    ranked,
                    columns(
                        "gene | n_patients # patients | mean_counts # mean counts | log2_fold_change # log2 fold "
                        "| p # | q #"
                    ),
                    "Genes by q.",
                    "Genes that define a state rank high by construction (CD44 and CD24 in m_csc).",
                    path="cohort/de.tsv",
                    most=15,
                )
            )
    return blocks


# -------------------------------------------------------------------------------------------------------- demo truth
def macro_f1(truth: Sequence[str], found: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Mean F1 over the types of the truth, and F1 of each; a type never found has F1 0."""
    truth_, found_ = np.asarray(truth, dtype=object), np.asarray(found, dtype=object)
    scores = {}
    for name in sorted(set(truth_)):
        hit = float(((truth_ == name) & (found_ == name)).sum())
        scores[name] = 2 * hit / float((truth_ == name).sum() + (found_ == name).sum())
    return (float(np.mean(list(scores.values()))) if scores else float("nan")), scores


def balanced_accuracy(truth: np.ndarray, found: np.ndarray) -> float:
    """Mean of sensitivity and specificity of two boolean arrays; NaN if the truth has one class only."""
    if truth.all() or not truth.any():
        return float("nan")
    return float((found[truth].mean() + (~found[~truth]).mean()) / 2)


def _truth_flag(values: pd.Series, yes: Sequence[str]) -> np.ndarray:
    return values.astype(str).str.lower().isin([*yes, "true", "1", "1.0", "yes"]).to_numpy()


def truth_chapter(d: Data, page: Page) -> list[Block]:
    """The demo cohort's planted truth beside what was found."""
    import pandas as pd

    cells = pd.read_csv(d.results / "demo" / "truth_cells.tsv.gz", sep="\t", na_values=["NA"], keep_default_na=False)
    path = d.results / "demo" / "truth_samples.tsv"
    planted = (
        pd.read_csv(path, sep="\t", na_values=["NA"], keep_default_na=False)
        if path.exists()
        else pd.DataFrame({"sample": []})
    )
    cells["sample"] = cells["cell_id"].str.rsplit(":", n=1).str[0] if "sample" not in cells else cells["sample"]
    blocks = [
        note(
            "The demo cohort is simulated, and what was planted is known. These figures say how well the pipeline "
            "finds it; they say nothing about biology."
        )
    ]
    doublet = _truth_flag(cells["doublet"], ["doublet"]) if "doublet" in cells else np.zeros(len(cells), dtype=bool)
    cells["is_doublet"] = doublet
    both = d.cells.merge(cells, on="cell_id", suffixes=("", "_truth"))
    single = both[~both["is_doublet"]]
    facts = []
    if len(single) and "cell_type_truth" in single:
        score, per_type = macro_f1(
            single["cell_type_truth"].astype(str).tolist(), single["cell_type"].astype(str).tolist()
        )
        facts.append(
            {
                "question": "Cell types",
                "figure": "macro F1 over planted types",
                "value": number(score),
                "n": f"{len(single):,} kept singlets",
            }
        )
        cross = (
            pd.crosstab(single["cell_type_truth"], single["cell_type"])
            .reset_index()
            .rename(columns={"cell_type_truth": "planted"})
        )
        cross["F1"] = [per_type.get(str(t), float("nan")) for t in cross["planted"]]
    else:
        cross = pd.DataFrame()
    if "malignant" in single and len(single):
        epithelial = single[single["malignancy"].isin(["malignant", "normal", "unassigned"])]
        truth = _truth_flag(epithelial["malignant"], ["malignant"])
        called = epithelial["malignancy"].isin(["malignant", "normal"]).to_numpy()
        found = (epithelial["malignancy"] == "malignant").to_numpy()
        facts.append(
            {
                "question": "Malignant cells",
                "figure": "balanced accuracy, malignant or normal called",
                "value": number(balanced_accuracy(truth[called], found[called])),
                "n": f"{int(called.sum()):,} of {len(epithelial):,} epithelial cells called",
            }
        )
        facts.append(
            {
                "question": "Malignant cells",
                "figure": "balanced accuracy, unassigned counted as not malignant",
                "value": number(balanced_accuracy(truth, found)),
                "n": f"{len(epithelial):,} epithelial cells",
            }
        )
    qc = d.per_sample("qc", ["cell_id", "doublet"]).merge(cells[["cell_id", "is_doublet"]], on="cell_id")
    qc = qc[qc["doublet"].notna()]
    if len(qc) and "doublet" in cells:
        said, real = qc["doublet"].astype(bool).to_numpy(), qc["is_doublet"].to_numpy()
        recall = float(said[real].mean()) if real.any() else float("nan")
        precision = float(real[said].mean()) if said.any() else float("nan")
        facts.append(
            {"question": "Doublets", "figure": "recall", "value": fraction(recall), "n": f"{int(real.sum()):,} planted"}
        )
        facts.append(
            {
                "question": "Doublets",
                "figure": "precision",
                "value": fraction(precision),
                "n": f"{int(said.sum()):,} called",
            }
        )
    tam = d.per_sample("tam", ["cell_id", "tam_class"])
    if "tam_class" in cells and len(tam):
        part = tam.merge(cells[["cell_id", "tam_class"]], on="cell_id", suffixes=("", "_truth"))
        part = part[
            part["tam_class"].isin(["m1_like", "m2_like", "mixed", "low"])
            & part["tam_class_truth"].isin(["m1_like", "m2_like", "mixed", "low"])
        ]
        if len(part):
            score, _ = macro_f1(part["tam_class_truth"].astype(str).tolist(), part["tam_class"].astype(str).tolist())
            facts.append(
                {
                    "question": "Macrophage classes",
                    "figure": "macro F1 over planted classes",
                    "value": number(score),
                    "n": f"{len(part):,} macrophages with a class",
                }
            )
    if facts:
        blocks.append(
            page.table(
                "truth",
                pd.DataFrame(facts),
                {"question": ("question", None), "figure": ("figure", None), "value": ("value", str), "n": ("n", None)},
                "How well is the planted truth found?",
            )
        )
    if len(cross):
        blocks.append(
            page.table(
                "truth_confusion",
                cross,
                {
                    "planted": ("planted", None),
                    "F1": ("F1", number),
                    **{c: (c.replace("_", " "), number) for c in cross.columns if c not in ("planted", "F1")},
                },
                "Planted against found types.",
                "Kept singlets; rows: planted, columns: found.",
            )
        )
    blocks += _truth_fractions(d, page, cells, planted)
    blocks += _truth_loop(d, page, planted)
    return blocks


def _truth_fractions(d: Data, page: Page, cells: pd.DataFrame, planted: pd.DataFrame) -> list[Block]:
    import pandas as pd

    estimates = d.table("csc_patients").set_index("sample")
    rows = []
    for s in d.tumours:
        truth = float("nan")
        mine = cells[(cells["sample"] == s) & ~cells["is_doublet"]]
        if "malignant" in cells and "csc_state" in cells and len(mine):
            malignant = mine[_truth_flag(mine["malignant"], ["malignant"])]
            if len(malignant):
                truth = float(_truth_flag(malignant["csc_state"], ["m_csc", "mcsc", "csc", "both", "double"]).mean())
        elif "csc_fraction" in planted:
            values = planted.loc[planted["sample"] == s, "csc_fraction"]
            truth = float(values.iloc[0]) if len(values) else truth
        if s in estimates.index:
            e = estimates.loc[s]
            rows.append(
                {
                    "sample": s,
                    "label": d.label(s),
                    "truth": truth,
                    "value": e["m_csc_fraction"],
                    "low": e["m_csc_low"],
                    "high": e["m_csc_high"],
                    "status": e["status"],
                }
            )
    if not rows:
        return []
    frame = pd.DataFrame(rows)
    frame["inside"] = [
        "NA" if v != v or t != t else "yes" if low <= t <= high else "no"
        for v, t, low, high in frame[["value", "truth", "low", "high"]].to_numpy(float)
    ]
    known = frame[frame["inside"] != "NA"]
    held = int((known["inside"] == "yes").sum())
    out = []
    if frame["truth"].notna().any():
        out.append(
            page.figure(
                "truth_csc",
                figures.truth_fractions(frame),
                "Does the interval hold the planted CD44+/CD24- fraction?",
                f"n = {count(len(frame), 'tumour')}; the interval holds the planted fraction in {held} of "
                f"{count(len(known), 'tumour')} with an estimate. Diamond: planted among"
                " malignant singlets; dot and line: estimate and 95 % interval.",
                "Planted and estimated CSC fractions per tumour.",
            )
        )
    out.append(
        page.table(
            "truth_csc",
            frame,
            columns(
                "sample | truth % planted | value % estimate | low % | high % | inside: planted within interval | "
                "status"
            ),
            "CD44+/CD24- fraction, planted and estimated.",
        )
    )
    return out


def _truth_loop(d: Data, page: Page, planted: pd.DataFrame) -> list[Block]:
    import pandas as pd

    column = next((c for c in planted.columns if "loop" in c), None)
    loop = d.table("loop")
    if column is None or not len(loop):
        return []
    rows = []
    for r in figures.records(planted):
        sample = str(getattr(r, "sample", ""))
        mine = loop[(loop["sample"] == sample) & loop["axis"].str.startswith("IL6")]
        for v in figures.records(mine):
            rows.append(
                {
                    "sample": sample,
                    "planted": str(planted.loc[planted["sample"].astype(str) == sample, column].iloc[0]),
                    "axis": v.axis,
                    "verdict": v.verdict,
                    "status": v.status,
                }
            )
    if not rows:
        return []
    return [
        page.table(
            "truth_loop",
            pd.DataFrame(rows),
            columns("sample | planted: loop planted | axis | verdict | status"),
            "Loop, planted and found.",
            "One patient can show no more than all three arms present; a loop that is not planted should not be "
            "present.",
        )
    ]


# --------------------------------------------------------------------------------------------------------- last ones
def not_assessable_chapter(d: Data, page: Page) -> list[Block]:
    """Every status that is not ok, in plain words."""
    import pandas as pd

    found: list[tuple[str, str, str, str]] = []  # what, status, unit, reason
    bad = d.statuses[~d.statuses["status"].isin(GOOD)]
    for (sample, status), members in bad.groupby(["sample", "status"], sort=True):
        stages = listed(members["stage"], 20)
        reason = next((str(r) for r in members["reason"] if r), "")
        found.append((f"stage{'s' if len(members) > 1 else ''} {stages}", str(status), str(sample), reason))
    for name, what, column, who in (
        ("csc_patients", "CD44+/CD24- fraction", "status", "sample"),
        ("csc_patients", "ALDH1A3-high fraction", "aldh1a3_status", "sample"),
        ("tam_patients", "macrophages", "status", "sample"),
        ("loop", "loop", "status", "sample"),
        ("csc_rates", "rates of the CSC model", "status", "gene"),
        ("loop_cohort", "loop, cohort", "status", "axis"),
        ("de", "pseudobulk contrast", "status", "contrast"),
        ("enrichment", "enrichment", "status", "contrast"),
        ("axes", "axis over patients", "status", "axis"),
    ):
        table = d.table(name)
        rows = table[~table[column].isin(GOOD)]
        reason = rows["reason"] if "reason" in rows and column == "status" else pd.Series("", index=rows.index)
        found += [(what, str(s), str(w), str(r or "")) for s, w, r in zip(rows[column], rows[who], reason, strict=True)]
    for name, what in (("crosstalk", "axis in a sample"), ("loop_arms", "arm of the loop in a sample")):
        rows = d.per_sample(name)
        rows = rows[~rows["status"].isin(GOOD)]
        found += [
            (what, str(r.status), str(r.sample), str(r.reason or ""))
            for r in figures.records(rows[["status", "sample", "reason"]])
        ]
    calls = d.cells["malignancy_status"] if len(d.cells) else pd.Series(dtype=object)
    unassigned = d.cells[d.cells["malignancy"] == "unassigned"] if len(calls) else d.cells
    found += [
        ("malignancy of a cell", str(s), str(w), "")
        for s, w in zip(unassigned.get("malignancy_status", []), unassigned.get("sample", []), strict=True)
    ]
    if not found:
        return [text("Every stage gave an answer for every sample, and every question could be assessed.")]
    frame = pd.DataFrame(found, columns=["what", "status", "who", "reason"])
    lines = []
    for (what, status), group in frame.groupby(["what", "status"], sort=True):  # type: ignore[assignment]
        names = sorted(set(group["who"]))
        reasons = [r for r in dict.fromkeys(group["reason"]) if r]
        lines.append(
            {
                "what": what,
                "status": status,
                "meaning": explain(str(status)),
                "times": len(group),
                "where": listed(names, 6),
                "example": figures.short(reasons[0], 160) if reasons else "",
            }
        )
    table = pd.DataFrame(lines)
    return [
        text(
            "Every question that has no answer, with its status in plain words. A status belongs to the data, not "
            "to the tumour: 'not detected' and 'too few cells' are"
            " statements about what was sequenced."
        ),
        page.table(
            "not_assessable",
            table,
            columns("what: question | status | meaning: in plain words | times # | where | example: for example"),
            "What could not be assessed.",
            most=200,
        ),
    ]


def limitations_chapter(d: Data, page: Page) -> list[Block]:
    """What the data cannot show, and how findings may be worded."""
    rules = (
        "Say 'consistent with', not 'drives', 'causes' or 'proves'.",
        "Say 'ALDH1A3-high', not 'ALDH+' or 'ALDEFLUOR-positive'.",
        "Say 'CD44+/CD24- by RNA', with the interval; below about 1 % in shallow data say 'not distinguishable "
        "from zero'.",
        "Say 'not detected (at most x % of cells)', not 'absent'.",
        "Give n as patients, not as cells.",
    )
    return [bullets(LIMITATIONS), heading("Wording rules"), bullets(rules)]


def methods_chapter(d: Data, page: Page) -> list[Block]:
    """What was done, with the options in force."""
    blocks = [text("What each stage did, and the options in force. Values that differ from the defaults are marked.")]
    defaults = type(d.config)()
    for name, words in METHOD_NOTES.items():
        section = getattr(d.config, name, None)
        if section is None:
            continue
        values = section.model_dump()
        usual = getattr(defaults, name).model_dump()
        entries = []
        for key, value in values.items():
            info = type(section).model_fields[key]
            extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
            unit = extra.get("unit")
            unit_text = f" {unit}" if unit and unit not in ("-", "yes or no", "text") else ""
            changed = f" (default {usual[key]})" if value != usual[key] else ""
            entries.append(f"{info.description}: {value}{unit_text}{changed}")
        blocks += [heading(name), text(words), Block("code", title="options", text="\n".join(entries))]
    return blocks


def provenance(config: Config, results: Path) -> dict[str, Any]:
    """Versions, configuration, seed, checksums of shipped resources and names of the inputs; no date, no platform."""
    import hashlib
    import sys
    from importlib import metadata

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    checksums: dict[str, str] = {}
    for folder in (Path(__file__).parent / "resources", Path(__file__).resolve().parents[2] / "resources"):
        if folder.is_dir():
            for path in sorted(folder.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    checksums.setdefault(
                        path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()
                    )
            break
    return {
        "nicheloop": __version__,
        "python": ".".join(str(v) for v in sys.version_info[:3]),
        "packages": {p: version(p) for p in PACKAGES},
        "seed": config.seed,
        "sample_sheet": Path(config.samples).name,
        "config": config.model_dump(mode="json"),
        "resources_sha256": checksums,
    }


def provenance_chapter(d: Data, page: Page, record: dict[str, Any]) -> list[Block]:
    """Versions, configuration, seed and inputs."""
    import pandas as pd
    import yaml

    packages = pd.DataFrame(
        [
            ("python", record["python"]),
            ("nicheloop", record["nicheloop"]),
            *((k, v or "not installed") for k, v in record["packages"].items()),
        ],
        columns=["package", "version"],
    )
    wanted = [
        c
        for c in (
            "sample",
            "patient",
            "subtype",
            "tissue",
            "treatment",
            "sorting",
            "chemistry",
            "dataset",
            "n_features",
            "n_genes",
            "n_unresolved",
            "is_counts",
        )
        if c in d.sheet
    ]
    blocks = [
        text(
            f"nicheloop {record['nicheloop']}, Python {record['python']}, seed {record['seed']}, sample sheet "
            f"'{record['sample_sheet']}'. The same input, configuration and versions"
            " give the same bytes; this page holds no date. Everything here is also in provenance.json."
        ),
        page.table(
            "inputs",
            d.sheet.loc[d.samples, wanted].reset_index(drop=True),
            {c: (c.replace("_", " "), None) for c in wanted},
            "Samples as they came in.",
            path="cohort/samples.tsv",
        ),
        page.table("versions", packages, columns("package | version"), "Versions."),
    ]
    if record["resources_sha256"]:
        sums = pd.DataFrame([(k, v) for k, v in record["resources_sha256"].items()], columns=["resource", "sha256"])
        sums["short"] = sums["sha256"].str[:16]
        blocks.append(
            page.table("resources", sums, columns("resource | short: sha256 (first 16)"), "Shipped resources.")
        )
    blocks.append(
        Block("code", title="configuration", text=yaml.safe_dump(record["config"], sort_keys=False, allow_unicode=True))
    )
    return blocks


CHAPTERS: tuple[tuple[str, Callable[[Data, Page], list[Block]]], ...] = (
    ("Quality", quality_chapter),
    ("Map", map_chapter),
    ("Composition", composition_chapter),
    ("Annotation", annotation_chapter),
    ("Malignancy", malignancy_chapter),
    ("Cancer stem cells (CD44/CD24 and ALDH1A3)", csc_chapter),
    ("Macrophages (M1/M2)", tam_chapter),
    ("Crosstalk (IL6, CXCL8, PPBP)", crosstalk_chapter),
    ("Loop", loop_chapter),
    ("Cohort", cohort_chapter),
    ("Enrichment", enrichment_chapter),
    ("Demo truth", truth_chapter),
    ("Not assessable", not_assessable_chapter),
    ("Limitations", limitations_chapter),
    ("Methods", methods_chapter),
)


def render_page(title: str, lead: str, chapters: Sequence[Chapter]) -> str:
    """HTML of the report; every text is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("nicheloop"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=title, lead=lead, chapters=chapters, version=__version__
    )


def run_report(results: str | Path, out: str | Path, *, options: Options, config: Config) -> None:
    """Write the report; its figures, full tables and ``provenance.json`` go into the results folder.

    Reads everything below the results folder; a table that is missing or empty leads to a sentence that says so.  The
    same tables and configuration give the same bytes.
    """
    results, out = Path(results), Path(out)
    data, page = Data(results, config), Page(results)
    record = provenance(config, results)
    chapters = [Chapter("Summary", summary_chapter(data))]
    for title, make in CHAPTERS:
        if make is truth_chapter and not (results / "demo" / "truth_cells.tsv.gz").exists():
            continue
        chapters.append(Chapter(title, make(data, page)))
    chapters.append(Chapter("Provenance", provenance_chapter(data, page, record)))
    lead = (
        "Cancer stem cells, macrophages and their cytokine loop in breast-tumour single-cell RNA-seq: per patient, "
        "with uncertainty, and with what could not be assessed."
    )
    io.write_json(results / "provenance.json", record)
    io.write_text(out, render_page(options.title, lead, chapters))
