"""What patients can be compared by: balanced specificity, equal cells and depth.  See docs/crosstalk.md."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nicheloop.ligand_receptor import PER, Floats, Index, Pair, Sample, mean_variances

if TYPE_CHECKING:
    from nicheloop.config_niche import Crosstalk

# Types that together hold every cell once: subtypes and states of them are no further opponents.
TYPES = (
    "malignant", "t_nk", "b_cell", "plasmablast", "myeloid", "mast", "endothelial", "caf", "pvl", "adipocyte",
)  # fmt: skip


def specificity(sample: Sample, pairs: Sequence[Pair], options: Crosstalk) -> tuple[Floats, Floats]:
    """Log2 of how much more ligand and receptor their populations have than the other types, each type counting once.

    Parameters
    ----------
    sample, pairs
        One sample; pairs whose genes it has.
    options
        ``min_cells``: smaller types are no opponents.

    Returns
    -------
    (pairs,) half the sum of log2 (ligand in senders / mean of other types) and the same of the limiting subunit in
    receivers, and its standard error (delta method, populations independent).  0 means no more than elsewhere.  NaN
    where no other type has enough cells.

    Notes
    -----
    Permuted labels mix types in the sample's proportions; here every type counts once, so the number does not move with
    composition as long as the same types are there.  A mean below half a count is taken as half a count.
    """
    wanted = sorted({g for p in pairs for g in p.genes})
    lookup = sample.gene_index
    columns = np.array([lookup[g] for g in wanted], dtype=np.int64)
    means, variances, total = mean_variances(sample, columns)
    index = Index.of(pairs, sample.names, wanted)
    size = sample.masks.sum(axis=0)
    types = [i for i, n in enumerate(sample.names) if n in TYPES and size[i] >= options.min_cells]
    overlap = (sample.masks.T.astype(np.int64) @ sample.masks.astype(np.int64)) > 0

    def against(population: int, gene: int) -> tuple[float, float]:
        others = [t for t in types if not overlap[population, t]]
        if not others or total[population] <= 0:
            return np.nan, np.nan
        mine = max(means[population, gene], 0.5 * PER / total[population])
        theirs = max(float(means[others, gene].mean()), 0.5 * PER / float(total[others].sum()))
        spread = variances[population, gene] / mine**2
        spread += float(variances[others, gene].sum()) / len(others) ** 2 / theirs**2
        return float(np.log2(mine / theirs)), float(spread / np.log(2) ** 2)

    value, error = np.full(len(pairs), np.nan), np.full(len(pairs), np.nan)
    for k in range(len(pairs)):
        receiver, subunits = int(index.receiver[k]), index.subunits[k]
        limiting = int(subunits[means[receiver, subunits].argmin()])
        (a, va), (b, vb) = against(int(index.sender[k]), int(index.ligand[k])), against(receiver, limiting)
        value[k], error[k] = (a + b) / 2, np.sqrt(va + vb) / 2
    return value, error


def at_equal_depth(
    sample: Sample, pairs: Sequence[Pair], options: Crosstalk, seed: int
) -> tuple[list[str], Floats, Floats]:
    """Measure pairs once more with the same number of cells and counts per cell on every side in every sample.

    Parameters
    ----------
    sample, pairs
        One sample; pairs whose genes it has.
    options
        ``matched_cells`` cells of at least ``matched_depth`` counts are drawn from each population, and their counts
        thinned to that depth; then the floors of detection.
    seed
        The draw of a population does not depend on which pairs are asked.

    Returns
    -------
    (pairs,) status (``tested``, ``too_few_cells``, ``ligand_not_detected``, ``receptor_not_detected``), log2 strength
    and its standard error; NaN where not tested.
    """
    lookup, ambient = sample.gene_index, sample.ambient_mean()
    chosen: dict[str, np.ndarray | None] = {}
    drawn: dict[tuple[str, str], Floats] = {}
    by_gene = sample.by_gene
    n, depth = options.matched_cells, options.matched_depth

    def cells_of(population: str) -> np.ndarray | None:
        if population not in chosen:
            mask = sample.masks[:, sample.names.index(population)] & (sample.totals >= depth)
            found = np.flatnonzero(mask)
            rng = np.random.default_rng([seed, zlib.crc32(f"matched:{population}".encode())])
            chosen[population] = np.sort(rng.choice(found, n, replace=False)) if len(found) >= n else None
        return chosen[population]

    def counts(population: str, gene: str) -> Floats:
        if (population, gene) not in drawn:
            cells = cells_of(population)
            rng = np.random.default_rng([seed, zlib.crc32(f"matched:{population}:{gene}".encode())])
            full = np.zeros(len(sample.totals))
            column = slice(*by_gene.indptr[lookup[gene] : lookup[gene] + 2])
            full[by_gene.indices[column]] = by_gene.data[column]
            whole = full[cells].round().astype(np.int64)
            drawn[population, gene] = rng.binomial(whole, depth / sample.totals[cells]).astype(float)
        return drawn[population, gene]

    status, strength, error = [], np.full(len(pairs), np.nan), np.full(len(pairs), np.nan)
    for k, pair in enumerate(pairs):
        if cells_of(pair.sender) is None or cells_of(pair.receiver) is None:
            status.append("too_few_cells")
            continue
        sides = [(pair.sender, pair.ligand), *((pair.receiver, g) for g in pair.receptor)]
        ok = [
            counts(p, g).sum() >= options.min_umi and (counts(p, g) > 0).sum() >= options.min_positive_cells
            for p, g in sides
        ]
        if not all(ok):
            status.append("receptor_not_detected" if ok[0] else "ligand_not_detected")
            continue
        scale = PER / depth
        levels = [max(counts(p, g).mean() * scale - ambient[lookup[g]], 0.0) for p, g in sides]
        worst = 1 + int(np.argmin(levels[1:]))
        status.append("tested")
        if levels[0] > 0 and levels[worst] > 0:
            spread = [counts(*sides[j]).var(ddof=1) / n * scale**2 / levels[j] ** 2 for j in (0, worst)]
            strength[k] = np.log2(np.sqrt(levels[0] * levels[worst]))
            error[k] = np.sqrt(sum(spread)) / (2 * np.log(2))
    return status, strength, error
