"""The coupling swap: do two factors belong together within patients?  See docs/loop.md."""

from __future__ import annotations

from collections.abc import Sequence
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


def coupling_swap(
    ligand: Floats, response: Floats, strata: Sequence[str], *, min_stratum: int, n_swaps: int, seed: int
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

    Returns
    -------
    `Coupling`, one-sided (greater).

    Notes
    -----
    What is swapped is coupling: the mean log strength itself is constant over all pairings and would have no power.
    """
    ligand, response = np.asarray(ligand, dtype=float), np.asarray(response, dtype=float)
    names = np.asarray(list(strata), dtype=object)
    use = np.isfinite(ligand) & np.isfinite(response)
    rng = np.random.default_rng(seed)
    kept: list[tuple[Floats, Floats]] = []
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
            kept.append((standard(ligand[mine]), standard(response[mine])))
    text = "; ".join(said) or "no patient with both factors"
    total = sum(len(a) for a, _ in kept)
    if not kept:
        return Coupling(np.nan, np.nan, 0, text)
    value = sum(float(a @ b) for a, b in kept) / total
    null = np.zeros(n_swaps)
    for a, b in kept:
        order = np.argsort(rng.random((n_swaps, len(b))), axis=1)
        null += b[order] @ a
    return Coupling(value, stats.permutation_p(value, null / total), total, text)


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
