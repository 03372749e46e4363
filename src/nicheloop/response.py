"""Arm B of the loop: the leave-out read-out in CSC-high against other malignant cells.  See docs/loop.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nicheloop import attenuation, stats

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_niche import Loop

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

STAT3, NFKB = "STAT3_core", "NFKB_leaveout_stressfree"
COVARIATES = ("STRESS", "IFN")
HALVES = ("stress_1", "stress_2")  # two measurements of stress by disjoint genes
DEPTH = "library size"  # clone x depth strata are coarse: within one, a score may still follow depth


@dataclass(frozen=True)
class Label:
    """How malignant cells are split: the column, its two values, their names, and the genes that define the split."""

    column: str
    high: str
    low: str
    high_words: str
    low_words: str
    status: str  # of a sample in which no cell has a state
    genes: frozenset[str]


LABELS = {
    "m_csc": Label(
        "csc_state", "m_csc", "other", "CSC-high", "other", "csc_not_assessable", frozenset({"CD44", "CD24"})
    ),
    "aldh1a3": Label(
        "aldh1a3_state", "high", "low", "ALDH1A3-high", "ALDH1A3-low", "aldh1a3_not_assessable", frozenset({"ALDH1A3"})
    ),
}


def strata_of(clone: Floats, depth: Floats, n_depth: int) -> NDArray[np.int64]:
    """(cells,) strata: clone x library-size quantile; cells without a clone are one clone."""
    clones = np.unique(np.nan_to_num(np.asarray(clone, dtype=np.float64), nan=0.0), return_inverse=True)[1]
    edges = np.quantile(depth, np.linspace(0, 1, n_depth + 1)[1:-1]) if len(depth) else np.empty(0)
    return np.asarray(clones * n_depth + np.searchsorted(edges, depth, side="right"), dtype=np.int64)


@dataclass(frozen=True)
class Contrast:
    """Difference of a read-out between two labels within strata."""

    effect: float
    low: float
    high: float
    z: float
    p: float
    n_strata: int


def stratified_difference(
    y: Floats,
    label: Bools,
    strata: NDArray[np.int64],
    *,
    n_permutations: int,
    n_bootstrap: int,
    confidence: float,
    seed: int,
) -> Contrast | None:
    """Mean of `y` where `label` holds minus where it does not, within strata, against permuted labels.

    Parameters
    ----------
    y, label, strata
        (cells,) read-out without NaN, label, stratum.  The draws follow the order of the cells: sort them first.
    n_permutations, n_bootstrap, confidence, seed
        Label permutations within strata; bootstrap over cells within stratum and label for the interval.

    Returns
    -------
    `Contrast`, one-sided (greater) p; None where no stratum holds both labels.

    Notes
    -----
    Strata are weighted n1 n0 / (n1 + n0): the estimate is the label's coefficient in a regression with stratum effects.
    """
    rng = np.random.default_rng(seed)
    codes = np.unique(strata, return_inverse=True)[1]
    k = int(codes.max()) + 1 if len(codes) else 0
    one_hot = np.zeros((len(y), k))
    one_hot[np.arange(len(y)), codes] = 1.0
    size, n1 = one_hot.sum(axis=0), one_hot[label].sum(axis=0)
    weight = n1 * (size - n1) / np.maximum(size, 1)
    if weight.sum() <= 0:
        return None
    centred = y - (one_hot @ ((y @ one_hot) / size))
    effect = float(centred[label].sum() / weight.sum())
    # permuting within strata: sort by stratum plus a random key
    order = np.argsort(codes, kind="stable")
    values, position = centred[order], label[order]
    shuffled = np.argsort(codes[order] + rng.random((n_permutations, len(y))), axis=1)
    null = values[shuffled][:, position].sum(axis=1) / weight.sum()
    sd = null.std(ddof=1)
    boot = np.zeros(n_bootstrap)
    for s in np.flatnonzero(weight > 0):
        for side, sign in ((True, 1.0), (False, -1.0)):
            mine = y[(codes == s) & (label == side)]
            draws = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=n_bootstrap)
            boot += sign * weight[s] / weight.sum() * (draws @ mine) / len(mine)
    low, high = np.quantile(boot, [(1 - confidence) / 2, (1 + confidence) / 2])
    z = effect / sd if sd > 0 else 0.0
    return Contrast(
        effect, float(low), float(high), float(z), stats.permutation_p(effect, null), int((weight > 0).sum())
    )


def response_arm(
    cells: pd.DataFrame, readout: str | None, options: Loop, n_permutations: int, seed: int, label: str = "m_csc"
) -> dict[str, Any]:
    """Compare the read-out of CSC-high and other malignant cells of the same clone and depth (arm B).

    Parameters
    ----------
    cells
        Malignant cells, sorted, with the label's column, clone, n_counts, and columns z_<set>; where a column ``mixed``
        marks cells that hold RNA of a niche cell (`mixtures.mixed_cells`), they are left out and counted in the reason.
    readout
        Name of the leave-out set, or None.
    label
        Key of `LABELS`: CD44+/CD24- (the primary one) or ALDH1A3-high cells against the others.

    Returns
    -------
    Columns of the ``loop_arms`` contract: the effect raw, adjusted for stress, for interferon, and for both (each
    adjusted one for log library size too), and beyond stress as two noisy measurements show it (`beyond_noisy`).  p is
    the largest of the five; none (``stress_differs``) where stress differs between the labels and moves the read-out.
    """
    split = LABELS[label]
    own = " (genes that no other read-out has)" if readout in (STAT3, NFKB) else ""
    sides = f"{split.high_words} minus {split.low_words} malignant cells"
    what = f"{readout or 'no read-out'}{own}, {sides} within clone and depth"
    row: dict[str, Any] = {"what": what}
    if readout is None:
        return row | {"status": "no_readout", "reason": "RNA has no read-out of this axis that is not circular"}
    if len(cells) < options.min_malignant:
        return row | {
            "status": "too_few_malignant",
            "reason": f"{len(cells)} malignant cells; {options.min_malignant} are needed",
        }
    nothing = np.full(len(cells), "not_assessable", dtype=object)
    state = cells[split.column].astype(object).fillna("not_assessable").to_numpy() if split.column in cells else nothing
    left_out = ""
    if "mixed" in cells:
        mixed = cells["mixed"].to_numpy(dtype=bool)
        high_out, low_out = (int((mixed & (state == side)).sum()) for side in (split.high, split.low))
        if high_out + low_out:
            left_out = f"; left out: {high_out} {split.high_words} and {low_out} {split.low_words} cells "
            left_out += "that hold RNA of a niche cell"
        cells, state = cells[~mixed], state[~mixed]
    n_high, n_low = int((state == split.high).sum()), int((state == split.low).sum())
    if n_high + n_low == 0:
        return row | {
            "status": split.status,
            "reason": f"no malignant cell is called {split.high_words} or not{left_out}",
        }
    if min(n_high, n_low) < options.min_csc:
        return row | {
            "status": "too_few_csc",
            "reason": f"{n_high} {split.high_words} and {n_low} {split.low_words} malignant cells; "
            f"{options.min_csc} of each are needed{left_out}",
        }
    kept = np.isin(state, [split.high, split.low])
    used, state = cells[kept], state[kept]
    if f"z_{readout}" not in used or used[f"z_{readout}"].isna().all():
        return row | {"status": "readout_not_measurable", "reason": f"{readout} has too few genes in this matrix"}
    measured = used[f"z_{readout}"].notna().to_numpy(dtype=bool)
    used, state = used[measured], state[measured]
    y = used[f"z_{readout}"].to_numpy(dtype=float)
    high = np.asarray(state == split.high, dtype=bool)
    strata = strata_of(
        used["clone"].to_numpy(dtype=float), used["n_counts"].to_numpy(dtype=float), options.depth_strata
    )
    draw: dict[str, Any] = {
        "n_permutations": n_permutations, "n_bootstrap": options.n_bootstrap, "confidence": options.confidence,
        "seed": seed,
    }  # fmt: skip
    raw = stratified_difference(y, high, strata, **draw)
    if raw is None:
        return row | {"status": "no_common_stratum", "reason": "no clone and depth stratum holds both states"}
    names = [c for c in COVARIATES if f"z_{c}" in used and used[f"z_{c}"].notna().any()]
    depth = np.log(np.maximum(used["n_counts"].to_numpy(dtype=float), 1.0))

    def beyond(covariates: list[str]) -> Contrast | None:
        columns = np.column_stack([depth, *(used[f"z_{c}"].to_numpy(dtype=float) for c in covariates)])
        residual = stats.residualise(y, columns)
        keep = np.isfinite(residual)
        return stratified_difference(residual[keep], high[keep], strata[keep], **draw) if keep.any() else None

    found = {"stress": beyond(["STRESS"]) if "STRESS" in names else None,
             "ifn": beyond(["IFN"]) if "IFN" in names else None, "adjusted": beyond(names)}  # fmt: skip
    values = {f"effect_{k}": v.effect if v else np.nan for k, v in found.items()}
    values |= {"p_raw": raw.p} | {f"p_{k}": v.p if v else np.nan for k, v in found.items()}
    beyond_stress = None
    if all(h in used and used[h].notna().all() for h in HALVES):
        halves = np.column_stack([stats.residualise(used[h].to_numpy(dtype=float), depth[:, None]) for h in HALVES])
        beyond_stress = attenuation.beyond_noisy(
            stats.residualise(y, depth[:, None]), halves, high, strata,
            n_bootstrap=options.n_bootstrap, alpha=options.stress_alpha, seed=seed,
        )  # fmt: skip
    p = max([raw.p, *(v.p for v in found.values() if v)])
    reason = f"{n_high} {split.high_words} and {n_low} {split.low_words} cells in {raw.n_strata} strata{left_out}"
    if found["adjusted"]:
        reason += f"; p {raw.p:.3g} raw, {found['adjusted'].p:.3g} adjusted for {', '.join([*names, DEPTH])}"
    for name in names:
        one = found[{"STRESS": "stress", "IFN": "ifn"}[name]]
        reason += f", {one.p:.3g} for {name} alone" if one else ""
    status = "tested"
    if beyond_stress is not None:
        p = float(np.fmax(p, beyond_stress.p))
        values |= {
            "effect_beyond_stress": beyond_stress.effect, "p_beyond_stress": beyond_stress.p,
            "p_stress_differs": beyond_stress.difference_p,
        }  # fmt: skip
        reason += f", {beyond_stress.p:.3g} beyond stress without its noise" if np.isfinite(beyond_stress.p) else ""
        if beyond_stress.follows:
            status, p = "stress_differs", np.nan
            reason = (
                f"{split.high_words} and {split.low_words} cells differ in stress (p {beyond_stress.difference_p:.2g}) "
                f"and {readout} may follow stress: a response cannot be told from it; {reason}"
            )
    else:
        reason += "; a response that follows stress as a whole cannot be told from it"
    if len(names) < len(COVARIATES):
        reason += f"; not adjusted for {' and '.join(c for c in COVARIATES if c not in names)} (not measurable)"
    return row | {
        "status": status, "reason": reason, "effect": raw.effect, "effect_low": raw.low, "effect_high": raw.high,
        "z": raw.z, "p": p, **values,
    }  # fmt: skip
