"""Ligand-receptor pairs: their strength in one sample, and its two nulls.  See docs/crosstalk.md."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nicheloop.permuted import permuted_sums

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix, csr_matrix

    from nicheloop.config_niche import Crosstalk

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

PER = 1e4  # all means are counts per 10,000


@dataclass(frozen=True)
class Pair:
    """One question: this ligand, this receptor complex, these two populations."""

    axis: str
    arm: str
    ligand: str
    receptor: tuple[str, ...]
    sender: str
    receiver: str

    @property
    def genes(self) -> tuple[str, ...]:
        """Ligand and subunits."""
        return (self.ligand, *self.receptor)


@dataclass(frozen=True)
class Sums:
    """What populations hold of every gene of a sample.

    Attributes
    ----------
    umi, positive : (populations, genes) counts, and cells with a count
    library_size : (populations,) summed library sizes
    everywhere : (genes,) counts of all cells
    share : (genes,) share of all cells with a count
    """

    umi: Floats
    positive: Floats
    library_size: Floats
    everywhere: Floats
    share: Floats


@dataclass(frozen=True)
class Sample:
    """Counts and populations of one sample, in an order that does not depend on the files'.

    Attributes
    ----------
    x : (cells, genes) CSR or CSC float64, counts
    totals : (cells,) library sizes over all genes of the matrix
    genes : (genes,) symbols, sorted
    names, masks : populations and their (cells, populations) membership
    ambient : (genes,) share of each gene in the ambient pool, 0 where unknown
    rate : share of a cell's counts that is ambient; NaN where not estimated
    platelet_genes : genes whose counts in platelet barcodes are contamination
    """

    x: csr_matrix | csc_matrix
    totals: Floats
    genes: NDArray[np.object_]
    names: tuple[str, ...]
    masks: Bools
    ambient: Floats
    rate: float
    platelet_genes: frozenset[str]

    @cached_property
    def gene_index(self) -> dict[str, int]:
        """Position of every gene."""
        return {g: i for i, g in enumerate(self.genes)}

    @cached_property
    def by_gene(self) -> csc_matrix:
        """(cells, genes) the counts gene by gene."""
        return self.x.tocsc()

    @cached_property
    def sums(self) -> Sums:
        """Of all populations and genes; every question about the sample begins with some of them."""
        from scipy.sparse import csc_matrix

        x, n = self.by_gene, self.masks.shape[1]
        every = np.column_stack([self.masks, np.ones(len(self.masks), dtype=bool)]).astype(np.float64)
        umi, library = weighted_sums(x, self.totals, every)
        ones = csc_matrix(((x.data > 0).astype(np.float64), x.indices, x.indptr), shape=x.shape)
        positive, _ = weighted_sums(ones, self.totals, every)
        return Sums(umi[:n], positive[:n], library[:n], umi[n], positive[n] / max(1, x.shape[0]))

    def ambient_mean(self) -> Floats:
        """(genes,) ambient counts per 10,000 that every population carries; 0 where not estimated."""
        return self.ambient * (0.0 if np.isnan(self.rate) else self.rate) * PER


def pairs_of_axes(axes: Iterable[Any]) -> list[Pair]:
    """List every axis x ligand x receptor complex x sender x receiver once, in the axes' order."""
    found = [
        Pair(axis.id, axis.arm, ligand, tuple(receptor), sender, receiver)
        for axis in axes
        for ligand in axis.ligands
        for receptor in axis.receptors
        for sender in axis.senders
        for receiver in axis.receivers
    ]
    return list(dict.fromkeys(found))


# ------------------------------------------------------------------------------------------------ strength and nulls
def population_means(sums: Floats, totals: Floats, ambient: Floats) -> Floats:
    """Depth-normalised means of populations less their ambient part.

    Parameters
    ----------
    sums
        (..., populations, genes) summed counts.
    totals
        (..., populations) summed library sizes.
    ambient
        (genes,) ambient counts per 10,000.

    Returns
    -------
    (..., populations, genes) counts per 10,000, never below 0; 0 for a population without counts.
    """
    scale = np.divide(PER, totals, out=np.zeros_like(totals), where=totals > 0)
    out = sums * scale[..., None]
    out -= ambient
    return np.maximum(out, 0.0, out=out)


@dataclass(frozen=True)
class Index:
    """Positions of pairs in (populations, genes) arrays; short complexes repeat their first subunit."""

    sender: Ints
    receiver: Ints
    ligand: Ints
    subunits: Ints  # (pairs, subunits)

    @classmethod
    def of(cls, pairs: Sequence[Pair], names: Sequence[str], genes: Sequence[str]) -> Index:
        """Look up every pair; a KeyError names what is missing."""
        pop = {n: i for i, n in enumerate(names)}
        gene = {g: i for i, g in enumerate(genes)}
        width = max((len(p.receptor) for p in pairs), default=1)
        padded = [[gene[r] for r in (p.receptor + p.receptor[:1] * width)[:width]] for p in pairs]
        return cls(
            np.array([pop[p.sender] for p in pairs], dtype=np.int64),
            np.array([pop[p.receiver] for p in pairs], dtype=np.int64),
            np.array([gene[p.ligand] for p in pairs], dtype=np.int64),
            np.array(padded, dtype=np.int64).reshape(len(pairs), width),
        )


def strengths(means: Floats, index: Index) -> Floats:
    """Geometric mean of the ligand in senders and the least expressed subunit in receivers.

    Parameters
    ----------
    means
        (..., populations, genes) as from `population_means`.
    index
        The pairs.

    Returns
    -------
    (..., pairs) counts per 10,000.
    """
    ligand = means[..., index.sender, index.ligand]
    receptor = means[..., index.receiver[:, None], index.subunits].min(axis=-1)
    return np.asarray(np.sqrt(ligand * receptor))


def weighted_sums(x: csr_matrix | csc_matrix, totals: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Sum counts and library sizes with (cells, columns) weights: (columns, genes) and (columns,)."""
    return np.asarray((x.T @ weights).T), np.asarray(totals @ weights)


def least_cells(share: Floats, masks: Bools, options: Crosstalk) -> Floats:
    """(populations, genes) fewest cells with a count that make a gene detected in a population.

    A gene that is abundant in the sample (in ``abundant_fraction`` of its cells or more) must be in that share of the
    population's cells as well: in fewer, doublets with the cells that make it are the nearer explanation.  Neither the
    abundance nor the size of a population changes when labels are permuted.

    Parameters
    ----------
    share
        (genes,) share of all cells with a count.
    """
    wanted = np.ceil(options.abundant_fraction * masks.sum(axis=0) - 1e-9)[:, None]
    abundant = (share >= options.abundant_fraction)[None, :]
    return np.maximum(np.where(abundant, wanted, 0.0), float(options.min_positive_cells))


def above_floor(umi: Floats, positive: Floats, index: Index, options: Crosstalk, least: Floats | None = None) -> Bools:
    """(..., pairs) whether ligand and every subunit have enough counts in enough cells of their population.

    Parameters
    ----------
    umi, positive
        (..., populations, genes) counts and cells with a count.
    least
        (populations, genes) as from `least_cells`; ``min_positive_cells`` without it.
    """
    enough = (umi >= options.min_umi) & (positive >= (options.min_positive_cells if least is None else least))
    ligand = enough[..., index.sender, index.ligand]
    return np.asarray(ligand & enough[..., index.receiver[:, None], index.subunits].all(axis=-1))


def label_null(
    x: csr_matrix,
    totals: Floats,
    masks: Bools,
    ambient: Floats,
    index: Index,
    least: Floats,
    options: Crosstalk,
    rng: np.random.Generator,
) -> tuple[Floats, Bools]:
    """(permutations, pairs) strengths under permuted type labels, and whether the pair is measurable there.

    One permutation moves all populations together, so their sizes and overlaps (csc_high within malignant) are kept.
    Complexes take their minimum anew each time, and every pair meets the floor that the observed pair had to meet
    (`least` as from `least_cells`).
    """
    null, seen = [], []
    for umi, positive, total in permuted_sums(x, totals, masks, options.n_permutations, rng):
        seen.append(above_floor(umi, positive, index, options, least))
        null.append(strengths(population_means(umi, total, ambient), index))
    return np.concatenate(null), np.concatenate(seen)


def matched_genes(
    overall: Floats, candidates: Ints, wanted: str, mean: float, role: str, *, width: int, n: int, seed: int
) -> Ints:
    """Draw stand-ins for a gene among the genes nearest to it in mean expression over the sample.

    Parameters
    ----------
    overall
        (genes,) mean over the sample.
    candidates
        Positions that may stand in, sorted by mean and then by symbol; at least one.
    wanted, mean
        The gene and its mean over the sample.
    role
        ``ligand`` or ``receptor``; the draws of one gene in one role do not depend on which other genes are tested.
    width, n
        Genes in the window; draws.

    Returns
    -------
    (n,) positions.
    """
    rng = np.random.default_rng([seed, zlib.crc32(f"{role}:{wanted}".encode())])
    centre = int(np.searchsorted(overall[candidates], mean))
    start = max(0, min(centre - width // 2, candidates.size - width))
    return candidates[rng.integers(start, min(start + width, candidates.size), n)]


def pair_null(
    sample: Sample, pairs: Sequence[Pair], reserved: Iterable[str], options: Crosstalk, seed: int
) -> tuple[Floats, Bools]:
    """(draws, pairs) strengths of expression-matched stand-in genes between the same populations; are they measurable.

    Every gene of the real pair is replaced; a complex by as many genes as it has subunits.  Genes of any axis
    (`reserved`) do not stand in.  NaN where nothing can stand in.
    """
    lookup = sample.gene_index
    index = Index.of(pairs, sample.names, list(sample.genes))
    width, n, sums = options.n_matched_genes, options.n_matched_pairs, sample.sums
    enough = (sums.umi >= options.min_umi) & (sums.positive >= least_cells(sums.share, sample.masks, options))
    means = population_means(sums.umi, sums.library_size, sample.ambient_mean())
    overall = sums.everywhere * (PER / max(sample.totals.sum(), 1.0))
    allowed = overall > 0
    allowed[[lookup[g] for g in set(reserved) if g in lookup]] = False
    candidates = np.flatnonzero(allowed)
    candidates = candidates[np.argsort(overall[candidates], kind="stable")]  # genes are sorted: ties by symbol

    drawn: dict[tuple[str, str], Ints] = {}

    def stand_in(gene: str, role: str) -> Ints:
        if (gene, role) not in drawn:
            mean = float(overall[lookup[gene]])
            drawn[gene, role] = matched_genes(overall, candidates, gene, mean, role, width=width, n=n, seed=seed)
        return drawn[gene, role]

    null, seen = np.full((n, len(pairs)), np.nan), np.ones((n, len(pairs)), dtype=bool)
    if candidates.size == 0:
        return null, seen
    for column, pair in enumerate(pairs):
        sender, receiver = index.sender[column], index.receiver[column]
        ligand, subunits = stand_in(pair.ligand, "ligand"), [stand_in(g, "receptor") for g in pair.receptor]
        null[:, column] = np.sqrt(means[sender, ligand] * np.min([means[receiver, g] for g in subunits], axis=0))
        seen[:, column] = enough[sender, ligand] & np.all([enough[receiver, g] for g in subunits], axis=0)
    return null, seen


def mean_variances(sample: Sample, columns: Ints) -> tuple[Floats, Floats, Floats]:
    """Means of populations, their variances from the spread between cells, and library sizes.

    Returns
    -------
    (populations, genes) counts per 10,000 less the ambient part; (populations, genes) variance of that mean (delta
    method for a ratio of sums; NaN with one cell); (populations,) summed library sizes.
    """
    x, n, m = sample.by_gene[:, columns], sample.totals, sample.masks.astype(np.float64)
    sums, total = sample.sums.umi[:, columns], sample.sums.library_size
    share = np.divide(sums, total[:, None], out=np.zeros_like(sums), where=total[:, None] > 0)
    values, depth = x.data.copy(), n[x.indices]
    x.data = values * values
    squares = np.asarray(x.T @ m).T
    x.data = depth * values
    cross = np.asarray(x.T @ m).T
    residual = squares - 2 * share * cross + share**2 * (m.T @ n**2)[:, None]
    cells = m.sum(axis=0)
    bessel = np.divide(cells, cells - 1, out=np.full_like(cells, np.nan), where=cells > 1)
    variance = (
        np.maximum(residual, 0)
        * bessel[:, None]
        * np.divide(PER, total, out=np.zeros_like(total), where=total > 0)[:, None] ** 2
    )
    return population_means(sums, total, sample.ambient_mean()[columns]), variance, total


def log2_standard_error(sample: Sample, index: Index, columns: Ints) -> Floats:
    """(pairs,) standard error of log2 strength from the spread between cells (delta method for a ratio of sums).

    The limiting subunit is taken as known and sender and receiver as independent.

    Parameters
    ----------
    index
        Pairs, with gene positions into `columns`.
    columns
        Positions of those genes in the sample.
    """
    means, variance, _ = mean_variances(sample, columns)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = variance / means**2
    limiting = means[index.receiver[:, None], index.subunits].argmin(axis=1)
    receptor = index.subunits[np.arange(len(limiting)), limiting]
    joint = relative[index.sender, index.ligand] + relative[index.receiver, receptor]
    return np.asarray(np.sqrt(joint) / (2 * np.log(2)))


@dataclass(frozen=True)
class Tested:
    """Strengths of pairs with their two nulls: (pairs,), (permutations, pairs), (draws, pairs).

    ``label_seen`` and ``pair_seen`` say where a pair of the null meets the floor of measurability.
    """

    strength: Floats
    label: Floats
    label_seen: Bools
    pair: Floats
    pair_seen: Bools
    log2_se: Floats

    def part(self, columns: Sequence[int]) -> Tested:
        """Some of the pairs."""
        i = list(columns)
        return Tested(
            self.strength[i], self.label[:, i], self.label_seen[:, i], self.pair[:, i], self.pair_seen[:, i],
            self.log2_se[i],
        )  # fmt: skip


def test_pairs(sample: Sample, pairs: Sequence[Pair], reserved: Iterable[str], options: Crosstalk, seed: int) -> Tested:
    """Compute the strengths of pairs and both nulls."""
    wanted = sorted({g for p in pairs for g in p.genes})
    used = sorted({n for p in pairs for n in (p.sender, p.receiver)})
    lookup = sample.gene_index
    columns = np.array([lookup[g] for g in wanted], dtype=np.int64)
    among = [sample.names.index(n) for n in used]
    masks, sums, ambient = sample.masks[:, among], sample.sums, sample.ambient_mean()[columns]
    index = Index.of(pairs, used, wanted)
    means = population_means(sums.umi[among][:, columns], sums.library_size[among], ambient)
    x = sample.by_gene[:, columns].tocsr()
    least = least_cells(sums.share[columns], masks, options)
    rng = np.random.default_rng([seed, zlib.crc32(b"labels")])
    return Tested(
        strengths(means, index),
        *label_null(x, sample.totals, masks, ambient, index, least, options, rng),
        *pair_null(sample, pairs, reserved, options, seed),
        log2_standard_error(sample, Index.of(pairs, sample.names, wanted), columns),
    )


test_pairs.__test__ = False  # type: ignore[attr-defined]  # a name, not a test: pytest must not collect it


def summarise_null(strength: Floats, label: Floats) -> tuple[Floats, Floats]:
    """Return log2 effect and z of strengths against their permutations.

    The mean of the null counts the observed labelling as one of the permutations, so the effect is always finite.
    """
    mean = (label.sum(axis=0) + strength) / (label.shape[0] + 1)
    sd = label.std(axis=0, ddof=1)
    centred = strength - label.mean(axis=0)
    z = np.divide(centred, sd, out=np.zeros_like(centred), where=sd > 1e-12 * np.maximum(mean, 1e-300))
    with np.errstate(divide="ignore"):
        effect = np.where(strength > 0, np.log2(np.maximum(strength, 1e-300) / np.maximum(mean, 1e-300)), 0.0)
    return effect, z
