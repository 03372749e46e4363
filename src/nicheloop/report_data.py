"""The results folder as tables, read when asked for, and what is looked up in the stages' summaries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicheloop import io, patients, tables
from nicheloop.report_page import listed
from nicheloop.status import composition_table

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config import Config


def flagged(table: pd.DataFrame) -> pd.DataFrame:
    """The table with "(inferred)" behind each subtype that is from RNA and not of the sheet."""
    marked = [
        f"{subtype} (inferred)" if source == "inferred" else subtype
        for subtype, source in zip(table["subtype"], table["subtype_source"], strict=True)
    ]
    return table.assign(subtype=marked)


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
            table = self._read(name) if self.path(name).exists() else tables.empty(name)
            empty = plain(tables.empty(name))
            missing = {c: empty[c].reindex(table.index) for c in empty.columns if c not in table.columns}
            self._cache[name] = plain(table.assign(**missing))
        return self._cache[name]

    def _read(self, name: str, columns: list[str] | None = None) -> pd.DataFrame:
        return io.read_table(self.path(name), columns)

    def has_rows(self, name: str) -> bool:
        """Whether a table, of the cohort or of any sample, has a row; Parquet tables are not read for that."""
        import pyarrow.parquet as pq

        if "{sample}" not in tables.CONTRACTS[name].path and self.path(name).suffix == ".tsv":
            return bool(len(self.table(name)))
        paths = dict.fromkeys(self.path(name, sample) for sample in self.samples)
        return any(path.exists() and pq.read_metadata(path).num_rows for path in paths)

    def per_sample(
        self, name: str, columns: list[str] | None = None, *, where: list[tuple[str, str, Any]] | None = None
    ) -> pd.DataFrame:
        """A table of all samples with ``sample`` as first column; `columns`, `where`: as in `io.read_table`."""
        import pandas as pd

        key = f"{name}|{columns}|{where}"
        if key not in self._cache:
            parts = []
            for sample in self.samples:
                path = self.path(name, sample)
                if path.exists():
                    part = io.read_table(path, columns, where=where)
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

    @cached_property
    def _sheet_values(self) -> dict[str, dict[str, Any]]:
        """Column -> sample -> value: asked for tens of thousands of times."""
        return {column: self.sheet[column].to_dict() for column in self.sheet}

    def sheet_value(self, sample: str, column: str) -> str:
        """A sheet value as text, empty where unknown."""
        value = self._sheet_values.get(column, {}).get(sample)
        return value if isinstance(value, str) else ""

    def is_normal(self, sample: str) -> bool:
        """Whether the sheet says the sample is normal tissue."""
        return patients.is_normal({"tissue": self.sheet_value(sample, "tissue")})

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
        return out.merge(self._map(), on="cell_id", how="left")

    def _map(self) -> pd.DataFrame:
        import pyarrow.parquet as pq

        path = self.path("embedding")
        if not path.exists():
            return plain(tables.empty("embedding")[["cell_id"]])
        columns = [c for c in pq.read_schema(path).names if c == "cell_id" or c.startswith("umap_")]
        return plain(self._read("embedding", columns))

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


def rung(d: Data, sample: str, calls: pd.DataFrame) -> str:
    """Rung of a sample's reference ladder: from the stage's summary, else the commonest status of epithelial cells."""
    for stage in ("malignancy", "cnv"):
        summary = d.summary(stage, sample)
        for key in ("rung", "reference_rung", "reference_status", "reference"):
            if isinstance(summary.get(key), str) and summary[key]:
                return str(summary[key])
    mine = calls[(calls["sample"] == sample) & (calls["malignancy"] != "not_epithelial")]
    return str(mine["malignancy_status"].mode().iloc[0]) if len(mine) else "not recorded"


def marker_genes() -> dict[str, tuple[str, ...]]:
    """Positive markers of the major types, as shipped; empty where the resource is not there."""
    try:
        from nicheloop import genes
    except ImportError:
        return {}
    return {name: tuple(m.positive) for name, m in genes.markers("major").items()}


def cohort_words(table: pd.DataFrame, column: str = "wording") -> list[str]:
    """The sentence that may be said of the cohort, per axis; axes with the same sentence share it."""
    said: dict[str, list[str]] = {}
    for axis, wording in zip(table["axis"], table[column], strict=True):
        if isinstance(wording, str) and wording:
            said.setdefault(wording, []).append(str(axis).replace("_", " "))
    return [f"{listed(axes, 12)}: {wording}" for wording, axes in said.items()]
