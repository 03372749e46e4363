"""Does a score follow the copy number at its own locus?  Clones within tumours, and tumours among each other.

A gain of 11p raises CD44 without any change of state.  See docs/csc.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nicheloop import stats

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

# score -> (column of the cells, gene whose locus may move it); expression in counts per 10,000, so that depth cancels
SCORES: tuple[tuple[str, str, str], ...] = (
    ("m_csc", "m_csc_prob", "CD44"), ("m_csc", "m_csc_prob", "CD24"), ("CD44 expression", "umi_CD44", "CD44"),
    ("CD24 expression", "umi_CD24", "CD24"), ("aldh1a3", "aldh1a3_prob", "ALDH1A3"),
    ("ALDH1A3 expression", "umi_ALDH1A3", "ALDH1A3"), ("ALDH1A1 expression", "umi_ALDH1A1", "ALDH1A1"),
    ("EMT", "z_EMT_malignant", "VIM"), ("STAT3", "z_STAT3_core", "JAK2"), ("STAT3", "z_STAT3_core", "IL6ST"),
    ("IL6 expression", "umi_IL6", "IL6"),
)  # fmt: skip
BETWEEN = ("z_EMT_malignant", "z_STAT3_core")  # z are relative to the sample: they cannot be compared between tumours


def clone_rows(cells: pd.DataFrame, loci: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of the ``csc_loci`` contract of one sample, without its name.

    Parameters
    ----------
    cells
        Malignant cells: clone, n_counts and the columns of `SCORES` (left out where not measured).
    loci
        clone name (``clone_1``) -> entries of `cnv_checks.marker_loci`.
    """
    rows = []
    clone = cells["clone"].to_numpy(dtype=np.float64, na_value=np.nan)
    for name, entries in sorted(loci.items()):
        here = cells[clone == float(name.removeprefix("clone_"))]
        at = {e["gene"]: e for e in entries}
        for score, column, gene in SCORES:
            if gene not in at or not len(here):
                continue
            values = values_of(here, column)
            known = values[np.isfinite(values)]
            rows.append({
                "score": score, "gene": gene, "clone": name, "locus": at[gene]["locus"], "n_cells": len(here),
                "log2": at[gene]["log2"], "z": at[gene]["z"], "seen": at[gene]["seen"],
                "mean": float(known.mean()) if len(known) else np.nan,
                "se": float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else np.nan,
            })  # fmt: skip
    return rows


def values_of(cells: pd.DataFrame, column: str) -> Floats:
    """(cells,) a score, counts as counts per 10,000; NaN where not measured."""
    if column not in cells:
        return np.full(len(cells), np.nan)
    values = np.asarray(cells[column], dtype=np.float64)
    return (
        values / np.maximum(np.asarray(cells["n_counts"], dtype=np.float64), 1.0) * 1e4
        if column.startswith("umi_")
        else values
    )


def locus_tests(
    rows: pd.DataFrame, *, n_permutations: int, confidence: float, seed: int, min_patients: int
) -> pd.DataFrame:
    """Rows of the ``csc_locus_tests`` contract: each score against its locus, between and within tumours.

    Parameters
    ----------
    rows
        ``csc_loci`` of primary tumours, one per patient.
    min_patients
        Fewest patients for a correlation between tumours.

    Notes
    -----
    Between: Spearman correlation over patients of the mean score and the copy number at the locus (both weighted by
    the cells of the clones), p by permuting patients.  Within: slope between the clones of highest and lowest copy
    number where the change seen differs, pooled over patients with random effects; what patients share cancels there.
    """
    import pandas as pd

    out = []
    for score, column, gene in SCORES:
        part = rows[(rows["score"] == score) & (rows["gene"] == gene)] if len(rows) else rows
        measured = part[part["mean"].notna() & part["log2"].notna()] if len(part) else part
        row: dict[str, Any] = {"score": score, "gene": gene, "n_patients": 0, "rho": np.nan, "p": np.nan, "n_within": 0}
        row |= dict.fromkeys(("slope", "slope_low", "slope_high"), np.nan)
        means, copies, slopes, errors = [], [], [], []
        for _, clones in measured.groupby("sample", sort=True) if len(measured) else ():
            w = clones["n_cells"].to_numpy(dtype=np.float64)
            means.append(float(np.average(clones["mean"], weights=w)))
            copies.append(float(np.average(clones["log2"], weights=w)))
            if clones["seen"].nunique() > 1:
                top, bottom = clones.loc[clones["log2"].idxmax()], clones.loc[clones["log2"].idxmin()]
                step = float(top["log2"] - bottom["log2"])
                error = float(np.hypot(top["se"], bottom["se"])) / step if step > 0 else np.nan
                if np.isfinite(error) and error > 0:
                    slopes.append(float(top["mean"] - bottom["mean"]) / step)
                    errors.append(error)
        row["n_patients"] = len(means)
        told = []
        if column in BETWEEN:
            told.append("between tumours: not asked (z are relative to the sample)")
        elif len(means) < min_patients:
            told.append(f"between tumours: {len(means)} patients, {min_patients} needed")
        else:
            rho = stats.spearman(means, copies)
            if np.isfinite(rho):
                rng = np.random.default_rng(seed)
                null = np.array([stats.spearman(rng.permutation(means), copies) for _ in range(n_permutations)])
                row |= {"rho": rho, "p": float(stats.permutation_p(rho, null, alternative="two-sided"))}
            else:
                told.append("between tumours: the same in all")
        meta = stats.random_effects(slopes, errors, confidence)
        row["n_within"] = meta.n
        if meta.n:
            row |= {"slope": meta.effect, "slope_low": meta.low, "slope_high": meta.high}
        else:
            told.append("within tumours: no tumour has clones that differ at the locus")
        answered = np.isfinite(row["rho"]) or meta.n > 0
        out.append(row | {"status": "ok" if answered else "not_assessable", "reason": "; ".join(told)})
    return pd.DataFrame(out)
