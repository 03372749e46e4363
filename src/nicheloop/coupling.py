"""The coupling swap: do two factors belong together within patients?  See docs/loop.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nicheloop import stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Coupling:
    """Mean product of two standardised factors over patients, against permuted pairings; NaN without a stratum."""

    value: float
    p: float
    n: int
    strata: str
    null: tuple[float, float, float] = (np.nan, np.nan, np.nan)  # 2.5 %, median and 97.5 % of the swapped pairings
    p_adjusted: float = np.nan  # of factors without what the covariates explain; NaN where too few patients are left


def coupling_swap(
    ligand: Floats,
    response: Floats,
    strata: Sequence[str],
    *,
    min_stratum: int,
    n_swaps: int,
    seed: int,
    covariates: Floats | None = None,
) -> Coupling:
    """Ask whether a patient's own ligand and response belong together more than swapped ones.

    Parameters
    ----------
    ligand, response
        (patients,) factors; a patient with NaN in either is left out.  The draws follow the patients' order: sort them.
    strata
        (patients,) subtype and data set, within which factors are standardised and pairings permuted; strata that begin
        with ``unknown_`` are never swapped.
    min_stratum, n_swaps, seed
        Smallest stratum that takes part; permuted pairings.
    covariates
        (patients, covariates) what moves a whole sample, such as its stress and its ambient RNA; a column in which a
        patient is NaN is not adjusted for.

    Returns
    -------
    `Coupling`, one-sided (greater).

    Notes
    -----
    What is swapped is coupling: the mean log strength itself is constant over all pairings and would have no power.
    The adjusted swap pairs what a regression on the covariates leaves of each factor (slopes shared by the strata, all
    centred within them), and asks for `min_stratum` degrees of freedom beyond strata and slopes.
    """
    ligand, response = np.asarray(ligand, dtype=float), np.asarray(response, dtype=float)
    names = np.asarray(list(strata), dtype=object)
    use = np.isfinite(ligand) & np.isfinite(response)
    rng = np.random.default_rng(seed)
    kept: list[NDArray[np.bool_]] = []
    said = []
    for name in sorted(set(names[use])):
        mine = use & (names == name)
        n = int(mine.sum())
        if str(name).startswith("unknown_"):
            said.append(f"{name}: {n} (not swapped)")
        elif n < min_stratum:
            said.append(f"{name}: {n} (too small)")
        else:
            said.append(f"{name}: {n}")
            kept.append(mine)
    text = "; ".join(said) or "no patient with both factors"
    total = sum(int(mine.sum()) for mine in kept)
    if not kept:
        return Coupling(np.nan, np.nan, 0, text)
    orders = [np.argsort(rng.random((n_swaps, int(mine.sum()))), axis=1) for mine in kept]
    value, p, null = _swapped([(ligand[mine], response[mine]) for mine in kept], orders)
    adjusted = np.nan
    if covariates is not None:
        x = np.concatenate([_centred(np.asarray(covariates, dtype=float)[mine]) for mine in kept])
        x = x[:, np.isfinite(x).all(axis=0)]
        x = x[:, x.std(axis=0) > 0] if len(x) else x
        if not x.shape[1]:
            adjusted = p
        elif total - len(kept) - x.shape[1] >= min_stratum:
            ends = np.cumsum([int(mine.sum()) for mine in kept])[:-1]
            left = [
                np.split(y - x @ np.linalg.lstsq(x, y, rcond=None)[0], ends)
                for y in (np.concatenate([_centred(f[mine]) for mine in kept]) for f in (ligand, response))
            ]
            adjusted = _swapped(list(zip(*left, strict=True)), orders)[1]
    low, median, high = (float(v) for v in np.quantile(null, (0.025, 0.5, 0.975)))
    return Coupling(value, p, total, text, (low, median, high), adjusted)


def _swapped(
    factors: Sequence[tuple[Floats, Floats]], orders: Sequence[NDArray[np.int64]]
) -> tuple[float, float, Floats]:
    """Mean product of factors standardised by stratum, its p against the pairings `orders`, and theirs."""
    value, null, total = 0.0, np.zeros(len(orders[0])), 0
    for (ligand, response), order in zip(factors, orders, strict=True):
        a, b = standard(ligand), standard(response)
        value += float(a @ b)
        null += b[order] @ a
        total += len(a)
    return value / total, stats.permutation_p(value / total, null / total), null / total


def _centred(x: Floats) -> Floats:
    """Less the mean of the patients."""
    return x - x.mean(axis=0)


def standard(x: Floats) -> Floats:
    """Standardise to mean 0 and standard deviation 1; a constant becomes 0."""
    sd = x.std()
    return (x - x.mean()) / sd if sd > 0 else np.zeros_like(x)


def stratum(record: dict[str, Any]) -> str:
    """Subtype and data set of a patient; ``unknown_<column>`` where the sheet does not say."""
    for column in ("subtype", "dataset"):
        if not record.get(column):
            return f"unknown_{column}"
    return f"{record['subtype']} in {record['dataset']}"


def from_rna(records: Iterable[dict[str, Any]]) -> str:
    """How many patients stand in their stratum by a subtype inferred from RNA, in words; empty for none."""
    sources = [r.get("subtype_source") for r in records]
    n = sources.count("inferred")
    return f". subtype inferred from RNA: {n} of {len(sources)} patients" if n else ""
