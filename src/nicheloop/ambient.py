"""Ambient RNA of a sample, from genes a cell type cannot make.  See docs/ambient.md.

Filtered matrices hold no empty droplets, so the ambient pool is taken to have the composition of all cells together
(what lysed cells leave behind), or, where there is a raw matrix, that of its empty droplets; its share of a cell's
counts is read from genes the cell cannot make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import io
from nicheloop.empty_drops import empty_pool
from nicheloop.errors import NotAssessable, UserError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from nicheloop import config_cells

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """Genes made by `makers` only, and the types that certainly do not make them."""

    name: str
    genes: tuple[str, ...]
    makers: tuple[str, ...]
    others: tuple[str, ...]


LYMPHOID = ("t_nk", "b_cell", "plasmablast")
GROUPS = (
    Group(
        "immunoglobulin",
        ("IGKC", "IGHG1", "IGHG2", "IGHG3", "IGHG4", "IGHA1", "IGHM", "IGLC2", "IGLC3", "JCHAIN"),
        ("b_cell", "plasmablast"),
        ("epithelial", "t_nk", "caf", "pvl", "endothelial", "mast"),
    ),
    Group(
        "haemoglobin",
        ("HBB", "HBA1", "HBA2"),
        ("erythrocyte",),
        ("epithelial", "t_nk", "b_cell", "caf", "pvl", "endothelial", "myeloid"),
    ),
    Group("collagen", ("COL1A1", "COL1A2", "COL3A1"), ("caf", "pvl"), ("epithelial", *LYMPHOID, "myeloid", "mast")),
    Group(
        "t_cell", ("CD3D", "CD3E", "CD3G", "TRAC"), ("t_nk",), ("epithelial", "caf", "pvl", "endothelial", "myeloid")
    ),
    Group(
        "keratin", ("KRT8", "KRT18", "KRT19", "EPCAM"), ("epithelial",), (*LYMPHOID, "myeloid", "endothelial", "mast")
    ),
    Group(
        "complement_c1q", ("C1QA", "C1QB", "C1QC"), ("myeloid",), ("epithelial", "t_nk", "caf", "pvl", "endothelial")
    ),
    Group(
        "endothelial", ("VWF", "CLDN5", "PLVAP"), ("endothelial",), ("epithelial", "t_nk", "b_cell", "caf", "myeloid")
    ),
)


def composition(counts: csr_matrix) -> Floats:
    """(genes,) share of each gene in all counts of the sample; zeros if there are none."""
    total = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    return np.asarray(total / total.sum() if total.sum() > 0 else total)


def contamination(
    observed: Floats, expected: Floats, *, outlier_p: float, rounds: int = 20
) -> tuple[float, NDArray[np.bool_]]:
    """Slope of observed on expected counts, without cells that cannot be ambient only.

    Parameters
    ----------
    observed
        (cells,) counts of the genes the cells cannot make.
    expected
        (cells,) counts if everything were ambient: library size times the share of the genes in the pool; positive.
    outlier_p
        A cell with at least as many counts is less probable than this: left out.

    Returns
    -------
    rate, used
        Pooled slope sum(observed) / sum(expected) over the cells used, and (cells,) which they are.  The search starts
        from the share of cells without any count, which no outlier can pull.
    """
    from scipy.special import pdtrc

    positive = float((observed > 0).mean())
    if 0 < positive < 0.95:
        zero = float((observed == 0).sum())
        low, high = 0.0, 1e3 / float(expected.mean())
        for _ in range(60):  # bisection: the expected number of cells without a count falls as the rate rises
            rate = (low + high) / 2
            low, high = (rate, high) if np.exp(-rate * expected).sum() > zero else (low, rate)
    else:
        rate = float(np.median(observed / expected))
    used = np.ones(len(observed), dtype=bool)
    for _ in range(rounds):
        keep = observed == 0
        keep |= pdtrc(np.maximum(observed - 1, 0), np.maximum(rate * expected, 1e-12)) >= outlier_p
        if not keep.any():
            break
        new = float(observed[keep].sum() / expected[keep].sum())
        if np.array_equal(keep, used) and np.isclose(new, rate, rtol=1e-9, atol=0):
            break
        used, rate = keep, new
    return rate, used


def poisson_interval(count: float, exposure: float, confidence: float) -> tuple[float, float]:
    """Exact (Garwood 1936, doi:10.1093/biomet/28.3-4.437) interval of a rate: `count` events over `exposure`."""
    from scipy.special import gammaincinv

    tail = (1 - confidence) / 2
    low = float(gammaincinv(count, tail)) if count > 0 else 0.0
    return low / exposure, float(gammaincinv(count + 1, 1 - tail)) / exposure


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> int:
    """Position of the lower weighted median; ties keep the given order."""
    order = np.argsort(np.asarray(values), kind="stable")
    reached = np.cumsum(np.asarray(weights, dtype=np.float64)[order])
    return int(order[np.searchsorted(reached, reached[-1] / 2)])


def estimate(
    counts: csr_matrix,
    genes: Sequence[str],
    cell_types: NDArray[Any],
    options: config_cells.Ambient,
    pool: Floats | None = None,
) -> tuple[float, dict[str, Any]]:
    """Contamination rate of one sample.

    Parameters
    ----------
    pool
        (genes,) composition of the ambient pool, from empty droplets; None: that of all cells together.

    Returns
    -------
    rate, summary
        Weighted median over marker groups of the share of counts that is ambient, NaN if no group can be used.  A
        group's weight is the counts it would give were all RNA ambient: a faint true expression of the genes weighs
        most where they are rare.  The summary holds the interval of the middle group (counting noise only; the groups
        show how far they differ) and each group's figures or the reason it was not used.
    """
    from nicheloop import genes as identity

    lookup = {g: i for i, g in enumerate(genes)}
    total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    pool = composition(counts) if pool is None else pool
    found: list[dict[str, Any]] = []
    groups: dict[str, Any] = {}
    for group in GROUPS:
        columns = [lookup[g] for g in identity.find(list(group.genes), genes).present]
        share = float(pool[columns].sum())
        makers = int(np.isin(cell_types, group.makers).sum())
        # Only types with enough cells: few cells of a rare type are the ones most often typed wrongly.
        others = [t for t in group.others if int((cell_types == t).sum()) >= options.min_cells]
        cells = np.flatnonzero(np.isin(cell_types, others) & (total > 0))
        umi = share * float(total.sum())
        if not columns:
            groups[group.name] = {"status": "gene_absent"}
        elif makers < options.min_makers:
            groups[group.name] = {"status": "no_makers", "n_makers": makers}
        elif not len(cells):
            groups[group.name] = {"status": "too_few_cells"}
        elif umi < options.min_marker_umi:
            groups[group.name] = {"status": "too_few_umi", "umi": umi}
        else:
            observed = np.asarray(counts[cells][:, columns].sum(axis=1), dtype=np.float64).ravel()
            expected = total[cells] * share
            rate, used = contamination(observed, expected, outlier_p=options.outlier_p)
            low, high = poisson_interval(float(observed[used].sum()), float(expected[used].sum()), options.confidence)
            value = {
                "rate": min(rate, 1.0),
                "low": min(low, 1.0),
                "high": min(high, 1.0),
                "exposure": expected[used].sum(),
            }
            groups[group.name] = {"status": "ok", "n_cells": int(used.sum()), "n_outliers": int((~used).sum()), **value}
            found.append(value)
    if not found:
        return float("nan"), {"groups": groups}
    middle = weighted_median([v["rate"] for v in found], [v["exposure"] for v in found])
    return found[middle]["rate"], {
        "contamination_rate": found[middle]["rate"],
        "contamination_low": found[middle]["low"],
        "contamination_high": found[middle]["high"],
        "groups": groups,
    }


def profiles(counts: csr_matrix, genes: Sequence[str], cell_types: NDArray[Any]) -> pd.DataFrame:
    """Summed expression per type (contract ``profiles``); zeros too, so that pooled means stay means."""
    import pandas as pd
    from scipy.sparse import csr_matrix as csr

    types, code = np.unique(np.asarray(cell_types).astype(str), return_inverse=True)
    member = csr((np.ones(len(code)), (code, np.arange(len(code)))), shape=(len(types), len(code)))
    summed = np.asarray((member @ counts.astype(np.float64)).todense())
    positive = np.asarray((member @ (counts > 0).astype(np.float64)).todense())
    lognorm = np.asarray((member @ io.lognormalise(counts).astype(np.float64)).todense())
    n_cells = np.bincount(code, minlength=len(types))
    row, column = (index.ravel() for index in np.indices(summed.shape, dtype=np.int32))
    return pd.DataFrame(
        {
            "gene": pd.Categorical.from_codes(column, categories=list(genes)),
            "cell_type": pd.Categorical.from_codes(row, categories=types.tolist()),
            "n_cells": n_cells[row],
            "n_positive": positive.ravel().astype(np.int64),
            "sum_counts": summed.ravel(),
            "mean_lognorm": lognorm.ravel() / n_cells[row],
        }
    )


def run_ambient(
    counts: str | Path,
    cell_types: str | Path,
    out: str | Path,
    out_profiles: str | Path,
    *,
    options: config_cells.Ambient,
    raw: str | Path | None = None,
) -> None:
    """Write a sample's ambient composition and rate (contract ``ambient``) and its profiles (contract ``profiles``).

    `raw`: the sample's unfiltered matrix; its empty droplets then give the composition.  Where they cannot, the status
    summary says why and the cells give it, as without one.

    Status ``contamination_not_estimated``: the composition is there, the rate is NA.
    """
    import pandas as pd

    source = io.Counts(counts)
    also: dict[str, str | Path] = {"profiles": out_profiles}
    with io.stage_output(out, "ambient", stage="ambient", sample=source.sample, also=also) as result:
        source.require(counts=True)
        cells = io.read_cells(cell_types, source.sample, columns=["cell_type"])
        if not len(cells):
            raise NotAssessable("no_cells", "no cell passed quality control")
        x = source.matrix(cells=cells.index)
        types = cells["cell_type"].to_numpy(dtype=object)
        result.extra["profiles"] = profiles(x, list(source.genes), types)
        fraction = composition(x)
        words: dict[str, Any] = {"pool": "cells"}
        if raw:
            barcodes = [c.removeprefix(f"{source.sample}:") for c in source.cell_ids]
            try:
                fraction, n, umi = empty_pool(raw, list(source.genes), barcodes, options)
                words = {"pool": "empty_droplets", "n_empty": n, "empty_umi": umi}
            except UserError as err:
                status = getattr(err, "status", "raw_unreadable")
                words |= {"raw_status": status, "raw_reason": " ".join(err.messages)}
        rate, result.summary = estimate(x, list(source.genes), types, options, fraction)
        result.summary |= words
        result.table = pd.DataFrame({
            "gene": source.genes, "ambient_fraction": fraction, "contamination_rate": rate, "pool": words["pool"],
        })  # fmt: skip
        if np.isnan(rate):
            why = ", ".join(f"{name}: {v['status']}" for name, v in result.summary["groups"].items())
            raise NotAssessable("contamination_not_estimated", f"no marker group can be used ({why})")
