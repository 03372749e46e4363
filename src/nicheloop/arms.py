"""Forward and return arms of the loop: the strongest pair against both nulls, and the factors of the swap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nicheloop import ligand_receptor as lr
from nicheloop import stats
from nicheloop.detection import Detection

if TYPE_CHECKING:
    from nicheloop.config_niche import Crosstalk

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def bootstrap_strengths(sample: lr.Sample, pair: lr.Pair, n: int, seed: int) -> Floats:
    """(n,) strengths of one pair with cells drawn anew within every combination of the two populations."""
    rng = np.random.default_rng(seed)
    lookup = sample.gene_index
    columns = np.array([lookup[g] for g in pair.genes], dtype=np.int64)
    names = list(dict.fromkeys([pair.sender, pair.receiver]))
    masks = sample.masks[:, [sample.names.index(p) for p in names]]
    inside = masks.any(axis=1)
    masks, x, totals = masks[inside], sample.by_gene[:, columns][inside], sample.totals[inside]
    weights = np.zeros((len(masks), n))
    atom = masks @ (2 ** np.arange(len(names)))
    for code in np.unique(atom):
        cells = np.flatnonzero(atom == code)
        weights[cells] = rng.multinomial(len(cells), np.full(len(cells), 1 / len(cells)), size=n).T
    both = (weights[:, :, None] * masks[:, None, :]).reshape(len(masks), -1)
    sums, total = lr.weighted_sums(x, totals, both)
    means = lr.population_means(
        sums.reshape(n, len(names), -1), total.reshape(n, len(names)), sample.ambient_mean()[columns]
    )
    index = lr.Index.of([pair], names, list(pair.genes))
    return lr.strengths(means, index)[:, 0]


def strongest_arm(
    sample: lr.Sample,
    pairs: Sequence[lr.Pair],
    tested: lr.Tested,
    measurable: Bools,
    *,
    n_bootstrap: int,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """Strength of the strongest measurable pair; both nulls take their maximum over all candidates anew in every draw.

    Parameters
    ----------
    pairs, tested
        All pairs of the arm that could be measured under some labelling, with their strengths and nulls.
    measurable
        (pairs,) those that are measurable as observed; at least one.

    Returns
    -------
    Columns of the ``loop_arms`` contract: log2 effect with a bootstrap interval of the strongest pair, z, and the
    larger of the label-permutation and the matched-pair p.

    Notes
    -----
    In every draw a pair counts only where it meets the floor that observed pairs had to meet, otherwise with 0; an arm
    without a measurable pair has strength 0.  So p is calibrated for "tested and significant", not among tested arms.
    Effect and z are against permuted maxima without that floor: zeros would inflate them.
    """
    best = int(np.argmax(np.where(measurable, tested.strength, -1.0)))
    strength = tested.strength[best]
    effect, z = lr.summarise_null(np.array([strength]), tested.label.max(axis=1)[:, None])
    p_label = stats.permutation_p(float(strength), np.where(tested.label_seen, tested.label, 0.0).max(axis=1))
    p_pair = stats.permutation_p(float(strength), np.where(tested.pair_seen, tested.pair, 0.0).max(axis=1))
    boot = bootstrap_strengths(sample, pairs[best], n_bootstrap, seed)
    low = high = np.nan
    if strength > 0 and (boot > 0).any():
        boot = np.maximum(boot, boot[boot > 0].min())  # a draw without the ligand has no logarithm
        tails = np.quantile(np.log2(boot / strength), [(1 - confidence) / 2, (1 + confidence) / 2])
        low, high = float(effect[0] + tails[0]), float(effect[0] + tails[1])
    return {
        "what": describe(pairs[best]), "effect": float(effect[0]), "effect_low": low, "effect_high": high,
        "z": float(z[0]), "p": max(p_label, p_pair), "p_label": p_label, "p_pair": p_pair,
        "reason": f"strongest of {int(measurable.sum())} measurable pairs ({len(pairs)} with enough cells); "
        f"p {p_label:.3g} by labels, {p_pair:.3g} by gene pairs (unrelated proteins often pass both)",
    }  # fmt: skip


def describe(pair: lr.Pair) -> str:
    """A pair in words."""
    return f"{pair.ligand} of {pair.sender} to {'+'.join(pair.receptor)} of {pair.receiver}"


def log_ligand(
    sample: lr.Sample, seen: Detection, pairs: Sequence[lr.Pair], options: Crosstalk, notes: dict[str, str]
) -> float:
    """Log of the largest measurable ligand mean of the senders (counts per 10,000); NaN where none is measurable."""
    lookup = sample.gene_index
    best = 0.0
    for sender, ligand in dict.fromkeys((p.sender, p.ligand) for p in pairs):
        pair = next(p for p in pairs if (p.sender, p.ligand) == (sender, ligand))
        if seen.ligand_obstacle(pair, options, notes, (sender,)) is None:
            i = seen.names.index(sender)
            mean = lr.PER * seen.umi[i, seen.column[ligand]] / sample.totals[sample.masks[:, i]].sum()
            best = max(best, float(mean - sample.ambient_mean()[lookup[ligand]]))
    return float(np.log(best)) if best > 0 else np.nan


def level(sample: lr.Sample, members: Sequence[str], mask: Bools, *, min_cells: int, min_genes: int) -> float:
    """Level of a read-out in a population on a scale that patients share: the factor of the coupling swap.

    Parameters
    ----------
    members
        Genes of the read-out, as the matrix calls them; those that are not in it are left out.
    mask
        (cells,) the population.
    min_cells, min_genes
        Fewest cells and genes; NaN with fewer.

    Returns
    -------
    Mean over the genes of log2(1 + counts per 10,000), counts summed over the cells.

    Notes
    -----
    The z scores of the score stage cannot serve here.  Their null is matched within the same cells of the same sample,
    so their mean is near 0 in every patient, whatever the set does.
    """
    lookup = sample.gene_index
    columns = [lookup[g] for g in members if g in lookup]
    total = float(sample.totals[mask].sum())
    if int(mask.sum()) < min_cells or len(columns) < min_genes or total <= 0:
        return np.nan
    sums = np.asarray(sample.by_gene[:, columns][mask].sum(axis=0), dtype=float).ravel()
    return float(np.log2(1 + sums * (lr.PER / total)).mean())
