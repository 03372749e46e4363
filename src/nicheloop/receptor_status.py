"""Oestrogen, progesterone and HER2 receptor status per patient from malignant pseudobulk.  See docs/malignancy.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import io, patients
from nicheloop.csc_rates import read_ambient
from nicheloop.her2_pten import her2_status
from nicheloop.score import MIXED

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_cells import Receptors

# Marker -> genes whose counts are summed.  TCAP and PNMT, also in the HER2 amplicon, are silent where it is not
# amplified and too rare for a sum; the copy-number stage reads them.
MARKERS: dict[str, tuple[str, ...]] = {
    "er": ("ESR1",),
    "pr": ("PGR",),
    "erbb2": ("ERBB2",),
    "neighbours": ("GRB7", "PGAP3", "MIEN1", "STARD3"),
    "basal": ("KRT5", "KRT14", "KRT17"),
}
GENES = tuple(g for genes in MARKERS.values() for g in genes)
SOURCES = ("sheet", "inferred", "none")
AGREEMENT = ("agrees", "differs", "not_compared")
# Words of sheets, lower case without spaces, beside those that name a receptor's sign; the last are beginnings.
HER2_WORDS = ("her2", "her2-enriched", "her2enriched", "her2e")
TN_WORDS = ("tnbc", "tn", "triple-", "basal", "basal-like", "basallike", "er-/pr-/her2-", "hr-/her2-", "er-/her2-")
HR_WORDS = ("er+", "hr+", "pr+", "luma", "lumb", "luminal")
PER = 1e6  # rates are counts per million
# No measure of ambient RNA: CAFs make ESR1 themselves, mixed cells hold the tumour's.
NOT_OTHERS = ("malignant", MIXED, "epithelial", "caf", "unresolved")
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Level:
    """Rate of a marker in malignant cells beyond ambient RNA, counts per million; NaN where not measured."""

    umi: float = np.nan
    cpm: float = np.nan
    low: float = np.nan
    high: float = np.nan
    ambient: float = np.nan

    def call(self, cut: float) -> str:
        """Positive or negative where the whole interval lies on one side of `cut`."""
        if not np.isfinite(self.low):
            return "not_measured"
        return "positive" if self.low >= cut else "negative" if self.high < cut else "undetermined"


def dispersion(umi: np.ndarray, total: np.ndarray) -> float:
    """Variance of cells beyond Poisson: Pearson chi-squared over its degrees of freedom, at least 1.

    Parameters
    ----------
    umi, total
        (cells,) counts of the marker, and all counts.
    """
    expected = umi.sum() / max(total.sum(), 1.0) * total
    if len(umi) < 2 or expected.sum() <= 0:
        return 1.0
    use = expected > 0
    return max(1.0, float((((umi - expected)[use]) ** 2 / expected[use]).sum() / (use.sum() - 1)))


def level_of(
    cells: pd.DataFrame, genes: Sequence[str], ambient: tuple[float, float, float], confidence: float
) -> Level:
    """Pseudobulk rate of the sum of some genes with an interval.

    Parameters
    ----------
    cells
        (malignant cells,) n_counts and umi_<gene>.
    genes
        All of them must be measured.
    ambient
        Expected rate from ambient RNA and its lower and upper end, counts per million; NaN: nothing is taken off.
    confidence
        Level of the interval.

    Notes
    -----
    Exact Poisson interval (Garwood 1936, doi:10.1093/biomet/28.3-4.437) of count / phi, stretched by phi, the
    `dispersion` of the cells, less the ambient rate: its upper end off the lower, its lower end off the upper.
    """
    from nicheloop.ambient import poisson_interval

    columns = [f"umi_{g}" for g in genes]
    total = cells["n_counts"].to_numpy(dtype=np.float64)
    if any(c not in cells for c in columns) or not len(cells) or not total.sum() > 0:
        return Level()
    umi = cells[columns].to_numpy(dtype=np.float64).sum(axis=1)
    if not np.isfinite(umi).all():
        return Level()
    phi, k, exposure = dispersion(umi, total), float(umi.sum()), float(total.sum()) / PER
    low, high = poisson_interval(k / phi, exposure / phi, confidence)
    mean, least, most = (a if np.isfinite(a) else 0.0 for a in ambient)
    cpm, low, high = (max(0.0, r) for r in (k / exposure - mean, low - most, high - least))
    return Level(k, cpm, low, high, ambient[0])


def ambient_of(
    genes: Sequence[str], rates: Mapping[str, float], others: pd.DataFrame
) -> tuple[tuple[float, float, float], str]:
    """Expected ambient rate of a marker with its ends (counts per million), and where it is from.

    ``estimated``: the sample's ambient profile and rate; ``other_cells``: the rate in immune, endothelial and
    perivascular cells, which ambient RNA reaches alike; ``none``: neither is there.
    """
    found = [rates.get(g, np.nan) for g in genes]
    if np.isfinite(found).all():
        mean = float(sum(found)) * PER / 1e4
        spread = np.exp(NORMAL_95 * max((rates.get(f"{g} log_se", 0.0) for g in genes), default=0.0))
        return (mean, mean / spread, mean * spread), "estimated"
    columns = [f"umi_{g}" for g in genes]
    total = float(others["n_counts"].sum())
    if all(c in others for c in columns) and total > 0:
        rate = float(others[columns].to_numpy(dtype=np.float64).sum()) / total * PER
        if np.isfinite(rate):
            return (rate, rate, rate), "other_cells"
    return (np.nan, np.nan, np.nan), "none"


def her2_call(erbb2: Level, neighbours: Level, amplicon: str, options: Receptors) -> str:
    """HER2 from the level of ERBB2 and of its neighbours together, and from the amplicon of the copy-number stage.

    Positive: the amplicon is seen in a clone, or ERBB2 and the sum of its neighbours are high.  Negative: the
    neighbours are not high, and ERBB2 is not far above its cut.  Evidence of the two kinds that disagrees leaves it
    undetermined.
    """
    own, near = erbb2.call(options.erbb2_cpm), neighbours.call(options.neighbours_cpm)
    far = erbb2.call(options.erbb2_cpm * options.erbb2_alone_fold)
    if "not_measured" in (own, near):
        level = "not_measured"
    elif own == near == "positive":
        level = "positive"
    elif near == "negative" and far == "negative":
        level = "negative"
    else:
        level = "undetermined"
    if amplicon in ("amplified", "some_clones"):
        return "undetermined" if level == "negative" else "positive"
    if amplicon == "not_amplified":
        return "negative" if level == "negative" else "undetermined"
    return level


def subtype_of(er: str, pr: str, her2: str) -> str:
    """Clinical subtype of three calls: HER2+ whatever the hormone receptors, HR+ where either is positive."""
    if her2 == "positive":
        return "HER2+"
    if her2 != "negative":
        return "undetermined"
    if "positive" in (er, pr):
        return "HR+"
    return "TNBC" if er == pr == "negative" else "undetermined"


def canonical(subtype: str | None) -> str | None:
    """One of HR+, HER2+ and TNBC a sheet's word stands for; None where it stands for none of them."""
    word = "".join((subtype or "").lower().replace("_", "").split())
    word = word.replace("positive", "+").replace("negative", "-").replace("--", "-").replace("-+", "+")
    if "her2+" in word or word in HER2_WORDS:
        return "HER2+"
    if word in TN_WORDS:
        return "TNBC"
    return "HR+" if word.startswith(HR_WORDS) else None


def markers_of(
    scores: pd.DataFrame, malignancy: Mapping[str, Any], rates: Mapping[str, float], options: Receptors
) -> dict[str, Any]:
    """Levels and calls of one sample, without who it is.

    Parameters
    ----------
    scores
        Score table: compartment, n_counts, umi_<gene>.
    malignancy
        Summary of the malignancy stage (her2 per clone).
    rates
        gene -> ambient rate, counts per 10,000, as from `read_ambient`.

    Returns
    -------
    Columns of the ``receptor_status`` contract, with ``status`` and ``reason``.
    """
    cells = scores[scores["compartment"] == "malignant"]
    others = scores[~scores["compartment"].isin(NOT_OTHERS)]
    n, enough = len(cells), len(cells) >= options.min_malignant
    row: dict[str, Any] = {"n_malignant": n, "total_umi": float(cells["n_counts"].sum()) if n else 0.0}
    level: dict[str, Level] = {}
    sources = []
    for name, genes in MARKERS.items():
        ambient, source = ambient_of(genes, rates, others)
        sources.append(source)
        level[name] = level_of(cells, genes, ambient, options.confidence) if enough else Level()
        row |= {
            f"{name}_umi": level[name].umi, f"{name}_cpm": level[name].cpm, f"{name}_low": level[name].low,
            f"{name}_high": level[name].high, f"{name}_ambient_cpm": level[name].ambient if enough else np.nan,
        }  # fmt: skip
    row["ambient_source"] = "none" if "none" in sources else "other_cells" if "other_cells" in sources else "estimated"
    row["her2_amplicon"] = her2_status(malignancy.get("her2") or {})
    row["er"] = level["er"].call(options.er_cpm)
    row["pr"] = level["pr"].call(options.pr_cpm)
    row["her2"] = (
        her2_call(level["erbb2"], level["neighbours"], row["her2_amplicon"], options) if enough else "not_measured"
    )
    row["basal"] = level["basal"].call(options.basal_cpm)
    row["subtype_inferred"] = subtype_of(row["er"], row["pr"], row["her2"])
    if not enough:
        return row | {
            "status": "too_few_malignant",
            "reason": f"{n} malignant cells, {options.min_malignant} needed",
        }
    absent = [
        g for g in GENES if f"umi_{g}" not in cells or not np.isfinite(cells[f"umi_{g}"].to_numpy(dtype=float)).any()
    ]
    said = f"{n} malignant cells, {row['total_umi']:.0f} UMI; HER2 amplicon: {row['her2_amplicon']}"
    if row["ambient_source"] != "estimated":
        said += f"; ambient RNA: {'not known' if row['ambient_source'] == 'none' else 'taken from other cells'}"
    if absent:
        return row | {
            "status": "gene_absent_from_reference", "reason": f"not in the matrix: {', '.join(absent)}; {said}",
        }  # fmt: skip
    if row["subtype_inferred"] == "undetermined":
        return row | {"status": "undetermined", "reason": f"an interval crosses its cut; {said}"}
    return row | {"status": "ok", "reason": said}


def used_subtypes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add ``subtype_used``, ``subtype_source`` and ``agreement``, from ``subtype_sheet`` and ``subtype_inferred``.

    The sheet's word stands where there is one.  An inferred subtype takes the word that most sheet rows of the cohort
    have for it (ER+ beside HR+), so that one subtype is not two strata.
    """
    words: dict[str, Counter[str]] = {}
    for row in rows:
        if row["subtype_sheet"] and (known := canonical(row["subtype_sheet"])):
            words.setdefault(known, Counter())[str(row["subtype_sheet"])] += 1
    out = []
    for row in rows:
        sheet, inferred = row["subtype_sheet"], row["subtype_inferred"]
        known = canonical(sheet)
        compared = known is not None and inferred != "undetermined"
        agreement = "not_compared" if not compared else "agrees" if known == inferred else "differs"
        used, source = (sheet, "sheet") if sheet else (None, "none")
        if not sheet and inferred != "undetermined":
            usual = words.get(inferred)
            used = min(usual, key=lambda w: (-usual[w], w)) if usual else inferred
            source = "inferred"
        out.append(row | {"subtype_used": used, "subtype_source": source, "agreement": agreement})
    return out


def _unanswered(row: dict[str, Any], status: str, reason: str) -> dict[str, Any]:
    """Give a row that says nothing: no level and no call."""
    levels = {k: np.nan for k in row if k.endswith(("_umi", "_cpm", "_low", "_high")) and k != "total_umi"}
    calls = dict.fromkeys(("er", "pr", "her2", "basal"), "not_measured")
    return row | levels | calls | {"subtype_inferred": "undetermined", "status": status, "reason": reason}


def run_receptor_status(
    scores: list[Path],
    malignancy: list[Path],
    ambient: list[Path],
    records: list[Path],
    out: str | Path,
    *,
    options: Receptors,
) -> None:
    """Write one row per patient, from the sample that speaks for it; the ``receptor-status`` stage."""
    import pandas as pd

    with io.stage_output(out, "receptor_status", stage="receptor-status") as result:
        known = [io.read_json(r) for r in records]
        place = {str(r["sample"]): i for i, r in enumerate(known)}
        chosen = patients.primary_samples(known, patients.assessable_cells(scores))
        rows = []
        for patient in sorted(chosen):
            sample = chosen[patient]
            i = place[sample]
            record, cells = known[i], io.read_table(scores[i])
            cells = cells.astype({c: float for c in cells.columns if c not in ("cell_id", "compartment")})
            row = markers_of(cells, io.read_status(malignancy[i]).summary, read_ambient(ambient[i], GENES), options)
            if record["status"] != "ok":
                row = _unanswered(row, str(record["status"]), str(record.get("reason") or "the sample was not read"))
            elif patients.is_normal(record):
                row = _unanswered(row, "normal_tissue", "normal tissue, not a tumour")
            elif not record["is_counts"]:
                row = _unanswered(row, "no_counts", "the matrix holds normalised values (such as TPM), not counts")
            rows.append({"patient": patient, "sample": sample, "subtype_sheet": record.get("subtype") or None, **row})
        if rows:
            result.table = pd.DataFrame(used_subtypes(rows))
            result.summary = {
                "n_patients": len(rows),
                **{f"n_{s}": int((result.table["subtype_source"] == s).sum()) for s in SOURCES},
                **{f"n_{a}": int((result.table["agreement"] == a).sum()) for a in AGREEMENT},
            }
