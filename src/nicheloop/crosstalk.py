"""Ligand-receptor axes within one sample, measurability first, and over patients.  See docs/crosstalk.md."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nicheloop import io, populations, stats
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from nicheloop.config import Crosstalk

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

PER = 1e4  # all means are counts per 10,000
BLOCK = 4_000_000  # elements of the dense block of permuted indicators; results do not depend on it
WORDS = {
    "tested": "tested",
    "ligand_not_detected": "ligand not detected",
    "receptor_not_detected": "receptor not detected",
    "gene_absent_from_reference": "gene absent from the reference",
    "too_few_cells": "too few cells",
    "platelet_contamination": "platelet contamination",
    "ambient_not_exceeded": "ambient RNA not exceeded",
    "no_counts": "no counts",
}


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
class Sample:
    """Counts and populations of one sample, in an order that does not depend on the files'.

    Attributes
    ----------
    x : (cells, genes) CSR float64, counts
    totals : (cells,) library sizes over all genes of the matrix
    genes : (genes,) symbols, sorted
    names, masks : populations and their (cells, populations) membership
    ambient : (genes,) share of each gene in the ambient pool, 0 where unknown
    rate : share of a cell's counts that is ambient; NaN where not estimated
    platelet_genes : genes whose counts in platelet barcodes are contamination
    """

    x: csr_matrix
    totals: Floats
    genes: NDArray[np.object_]
    names: tuple[str, ...]
    masks: Bools
    ambient: Floats
    rate: float
    platelet_genes: frozenset[str]

    def gene_index(self) -> dict[str, int]:
        """Position of every gene."""
        return {g: i for i, g in enumerate(self.genes)}

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


def weighted_sums(x: csr_matrix, totals: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Sum counts and library sizes with (cells, columns) weights: (columns, genes) and (columns,)."""
    return np.asarray((x.T @ weights).T), np.asarray(totals @ weights)


def above_floor(umi: Floats, positive: Floats, index: Index, options: Crosstalk) -> Bools:
    """(..., pairs) whether ligand and every subunit have enough counts in enough cells of their population.

    Parameters
    ----------
    umi, positive
        (..., populations, genes) counts and cells with a count.
    """
    enough = (umi >= options.min_umi) & (positive >= options.min_positive_cells)
    ligand = enough[..., index.sender, index.ligand]
    return np.asarray(ligand & enough[..., index.receiver[:, None], index.subunits].all(axis=-1))


def permuted_sums(
    x: csr_matrix, totals: Floats, masks: Bools, n: int, rng: np.random.Generator
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Yield counts and cells with a count (permutations, populations, genes), and library sizes, under permuted cells.

    One permutation moves all populations together, so their sizes and overlaps (csc_high within malignant) are kept.
    """
    from scipy.sparse import hstack

    cells, width = masks.shape
    both = hstack([x, (x > 0).astype(np.float64)], format="csr")  # one product for counts and cells with a count
    step = max(1, BLOCK // max(1, cells * width))
    indicator = masks.astype(np.float64)
    for start in range(0, n, step):
        count = min(step, n - start)
        order = np.stack(
            [rng.permutation(cells) for _ in range(count)], axis=1
        )  # drawn one by one: blocks do not matter
        sums, total = weighted_sums(both, totals, indicator[order].reshape(cells, count * width))
        sums = sums.reshape(count, width, -1)
        yield sums[..., : x.shape[1]], sums[..., x.shape[1] :], total.reshape(count, width)


def label_null(
    x: csr_matrix,
    totals: Floats,
    masks: Bools,
    ambient: Floats,
    index: Index,
    options: Crosstalk,
    rng: np.random.Generator,
) -> tuple[Floats, Bools]:
    """(permutations, pairs) strengths under permuted type labels, and whether the pair is measurable there.

    Complexes take their minimum anew each time, and every pair meets the floor that the observed pair had to meet.
    """
    null, seen = [], []
    for umi, positive, total in permuted_sums(x, totals, masks, options.n_permutations, rng):
        seen.append(above_floor(umi, positive, index, options))
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
    lookup = sample.gene_index()
    index = Index.of(pairs, sample.names, list(sample.genes))
    width, n, m = options.n_matched_genes, options.n_matched_pairs, sample.masks.astype(np.float64)
    sums, total = weighted_sums(sample.x, sample.totals, m)
    positive, _ = weighted_sums((sample.x > 0).astype(np.float64), sample.totals, m)
    enough = (sums >= options.min_umi) & (positive >= options.min_positive_cells)
    means = population_means(sums, total, sample.ambient_mean())
    overall = np.asarray(sample.x.sum(axis=0)).ravel() * (PER / max(sample.totals.sum(), 1.0))
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
    from scipy.sparse import diags

    x, n, m = sample.x[:, columns], sample.totals, sample.masks.astype(np.float64)
    sums, total = weighted_sums(x, n, m)
    share = np.divide(sums, total[:, None], out=np.zeros_like(sums), where=total[:, None] > 0)
    squares = np.asarray((x.multiply(x)).T @ m).T
    cross = np.asarray((diags(n) @ x).T @ m).T
    residual = squares - 2 * share * cross + share**2 * (m.T @ n**2)[:, None]
    cells = m.sum(axis=0)
    bessel = np.divide(cells, cells - 1, out=np.full_like(cells, np.nan), where=cells > 1)
    variance = (
        np.maximum(residual, 0)
        * bessel[:, None]
        * np.divide(PER, total, out=np.zeros_like(total), where=total > 0)[:, None] ** 2
    )
    means = population_means(sums, total, sample.ambient_mean()[columns])
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
    lookup = sample.gene_index()
    columns = np.array([lookup[g] for g in wanted], dtype=np.int64)
    masks = sample.masks[:, [sample.names.index(n) for n in used]]
    small = Sample(
        sample.x, sample.totals, sample.genes, tuple(used), masks, sample.ambient, sample.rate, sample.platelet_genes
    )
    index = Index.of(pairs, used, wanted)
    x, ambient = sample.x[:, columns], sample.ambient_mean()[columns]
    sums, total = weighted_sums(x, sample.totals, masks.astype(np.float64))
    observed = strengths(population_means(sums, total, ambient), index)
    rng = np.random.default_rng([seed, zlib.crc32(b"labels")])
    return Tested(
        observed,
        *label_null(x, sample.totals, masks, ambient, index, options, rng),
        *pair_null(small, pairs, reserved, options, seed),
        log2_standard_error(small, index, columns),
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


# ------------------------------------------------------------------------------------------------------ measurability
@dataclass(frozen=True)
class Detection:
    """What is seen of the axes' genes in every population: arrays are (populations, genes) unless said otherwise."""

    names: tuple[str, ...]
    column: dict[str, int]  # gene -> column; genes that are absent are not in it
    size: Ints  # (populations,) cells
    umi: Floats
    positive: Floats  # cells with a count
    expected: Floats  # counts expected from ambient RNA; NaN where it is not estimated
    everywhere: Floats  # (genes,) counts of all cells
    n_cells: int  # of the sample
    platelet_genes: frozenset[str]

    @classmethod
    def of(cls, sample: Sample, wanted: Iterable[str]) -> Detection:
        """Count the wanted genes in the sample's populations."""
        lookup = sample.gene_index()
        known = sorted(set(wanted) & set(lookup))
        columns = np.array([lookup[g] for g in known], dtype=np.int64)
        x, m = sample.x[:, columns], sample.masks.astype(np.float64)
        umi, library = weighted_sums(x, sample.totals, m)
        positive, _ = weighted_sums((x > 0).astype(np.float64), sample.totals, m)
        expected = library[:, None] * (sample.rate * sample.ambient[columns])[None, :]
        everywhere = np.asarray(x.sum(axis=0)).ravel()
        column = {g: i for i, g in enumerate(known)}
        return cls(
            sample.names, column, sample.masks.sum(axis=0), umi, positive, expected, everywhere, x.shape[0],
            sample.platelet_genes,
        )  # fmt: skip

    def cells(self, population: str) -> int:
        """Cells of a population; 0 for one that was not asked for."""
        return int(self.size[self.names.index(population)]) if population in self.names else 0

    def numbers(self, population: str, gene: str, confidence: float) -> tuple[float, float, float, float]:
        """UMI, fraction of positive cells, its upper bound, and UMI expected from ambient RNA."""
        i, g = self.names.index(population), self.column[gene]
        n, k = int(self.size[i]), float(self.positive[i, g])
        return self.umi[i, g], k / n if n else np.nan, stats.upper_bound(k, n, confidence), self.expected[i, g]

    def detected(self, population: str, gene: str, options: Crosstalk) -> bool:
        """Whether there are enough counts in enough cells."""
        i, g = self.names.index(population), self.column[gene]
        return bool(self.umi[i, g] >= options.min_umi and self.positive[i, g] >= options.min_positive_cells)

    def above_ambient(self, population: str, gene: str, alpha: float) -> bool:
        """Whether the counts exceed what ambient RNA explains (Poisson, one-sided); yes where it is not estimated."""
        from scipy.special import pdtrc

        i, g = self.names.index(population), self.column[gene]
        level = self.expected[i, g]
        return bool(np.isnan(level) or level <= 0 or pdtrc(self.umi[i, g] - 1, level) < alpha)

    def nowhere(self, genes: Iterable[str], options: Crosstalk) -> str:
        """Genes without one count in a sample large enough to say so, in words with the upper bound; else empty."""
        unseen = [g for g in genes if self.everywhere[self.column[g]] == 0]
        if not unseen or self.n_cells < options.min_cells:
            return ""
        bound = 100 * stats.upper_bound(0, self.n_cells, options.confidence)
        return (
            f"{' and '.join(unseen)} in none of the {self.n_cells} cells of the sample (at most {bound:.2g} % of them)"
        )

    def words(self, population: str, gene: str) -> str:
        """Counts in words."""
        i, g = self.names.index(population), self.column[gene]
        return f"{self.umi[i, g]:.0f} {gene} UMI in {self.positive[i, g]:.0f} of {self.size[i]} {population} cells"

    def beyond_ambient_words(self, population: str, gene: str) -> str:
        """Counts against ambient expectation in words."""
        level = self.expected[self.names.index(population), self.column[gene]]
        return f"{self.words(population, gene)}, {level:.1f} UMI are expected from ambient RNA"

    def limiting(self, population: str, receptor: Sequence[str]) -> str:
        """Least expressed subunit of a complex in a population, ties by symbol."""
        i = self.names.index(population)
        return min(receptor, key=lambda gene: (self.umi[i, self.column[gene]], gene))

    def ligand_obstacle(
        self, pair: Pair, options: Crosstalk, notes: dict[str, str], sides: Sequence[str]
    ) -> tuple[str, str] | None:
        """First obstacle up to and including the ligand, looking at the populations `sides`; None if there is none."""
        if pair.ligand not in self.column:
            return "gene_absent_from_reference", f"{pair.ligand} not in this matrix: its reference cannot show it"
        n_platelet, total = self.cells("platelet"), self.everywhere[self.column[pair.ligand]]
        if pair.sender == "platelet" and n_platelet:
            return (
                "platelet_contamination",
                f"the senders are {n_platelet} platelet-contaminated barcodes, not cells of the tumour",
            )
        if pair.ligand in self.platelet_genes and n_platelet and total > 0:
            inside = self.umi[self.names.index("platelet"), self.column[pair.ligand]]
            if inside >= options.platelet_share * total:
                return "platelet_contamination", (
                    f"{inside:.0f} of {total:.0f} {pair.ligand} UMI sit in {n_platelet} platelet barcodes"
                )
        unseen = self.nowhere([pair.ligand], options)
        if unseen:
            return "ligand_not_detected", unseen
        short = [side for side in dict.fromkeys(sides) if self.cells(side) < options.min_cells]
        if short:
            said = [
                f"{self.cells(s)} {s} cells" + (f" ({notes[s]})" if s in notes and not self.cells(s) else "")
                for s in short
            ]
            return "too_few_cells", f"{' and '.join(said)}; {options.min_cells} are needed"
        if not self.detected(pair.sender, pair.ligand, options):
            return "ligand_not_detected", f"{self.words(pair.sender, pair.ligand)}: {_floor(options)}"
        if not self.above_ambient(pair.sender, pair.ligand, options.ambient_alpha):
            return "ambient_not_exceeded", self.beyond_ambient_words(pair.sender, pair.ligand)
        return None

    def candidate(self, pair: Pair, options: Crosstalk) -> bool:
        """Whether the pair could be measured under some labelling: enough cells, and enough counts in the sample.

        Neither changes when labels are permuted, so leaving the others out takes nothing from a permutation test.
        """
        return (
            all(g in self.column and self.everywhere[self.column[g]] >= options.min_umi for g in pair.genes)
            and pair.sender != "platelet"
            and min(self.cells(pair.sender), self.cells(pair.receiver)) >= options.min_cells
        )

    def obstacle(self, pair: Pair, options: Crosstalk, notes: dict[str, str]) -> tuple[str, str] | None:
        """First obstacle to testing a pair, in a fixed order, or None."""
        absent = [g for g in pair.genes if g not in self.column]
        if absent:
            return "gene_absent_from_reference", f"{', '.join(absent)} not in this matrix: its reference cannot show it"
        found = self.ligand_obstacle(pair, options, notes, (pair.sender, pair.receiver))
        unseen = self.nowhere(pair.receptor, options)
        if unseen and (not found or found[0] == "too_few_cells"):
            return "receptor_not_detected", unseen
        if found:
            return found
        missing = [g for g in pair.receptor if not self.detected(pair.receiver, g, options)]
        if missing:
            said = " and ".join(self.words(pair.receiver, g) for g in missing)
            return "receptor_not_detected", f"{said}: {_floor(options)}"
        for gene in pair.receptor:
            if not self.above_ambient(pair.receiver, gene, options.ambient_alpha):
                return "ambient_not_exceeded", self.beyond_ambient_words(pair.receiver, gene)
        return None


def _floor(options: Crosstalk) -> str:
    return f"fewer than {options.min_umi} UMI or {options.min_positive_cells} cells"


def measure(
    sample: Sample,
    pairs: Sequence[Pair],
    options: Crosstalk,
    *,
    is_counts: bool = True,
    notes: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Say of every pair whether it can be tested, and by how far it cannot.

    Parameters
    ----------
    sample, pairs
        What there is and what is asked; nothing asked is ever dropped.
    options
        Thresholds.
    is_counts
        Whether the matrix holds counts; without them nothing is measured.
    notes
        Population -> why it has no cells, said in the reason.

    Returns
    -------
    One row per pair with the measurability columns of the ``crosstalk`` contract; NA where a gene is absent.
    """
    import pandas as pd

    seen = Detection.of(sample, {g for p in pairs for g in p.genes})
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        row: dict[str, Any] = {
            "axis": pair.axis, "arm": pair.arm, "ligand": pair.ligand, "receptor": "+".join(pair.receptor),
            "sender": pair.sender, "receiver": pair.receiver, "status": "no_counts",
            "reason": "the matrix holds normalised values, not counts",
            "n_sender": seen.cells(pair.sender), "n_receiver": seen.cells(pair.receiver),
        }  # fmt: skip
        for side in ("ligand", "receptor"):
            row.update({f"{side}_{what}": np.nan for what in ("umi", "fraction", "upper", "ambient_umi")})
        row |= {"n_platelet": seen.cells("platelet"), "n_neutrophil": seen.cells("neutrophil")}
        if is_counts:
            chosen = {"ligand": (pair.sender, pair.ligand)} if pair.ligand in seen.column else {}
            if all(g in seen.column for g in pair.receptor):
                chosen["receptor"] = (pair.receiver, seen.limiting(pair.receiver, pair.receptor))
            for side, (population, gene) in chosen.items():
                values = seen.numbers(population, gene, options.confidence)
                row.update(
                    zip((f"{side}_{w}" for w in ("umi", "fraction", "upper", "ambient_umi")), values, strict=True)
                )
            note = "; ambient RNA not estimated" if np.isnan(sample.rate) else ""
            row["status"], row["reason"] = seen.obstacle(pair, options, notes or {}) or (
                "tested",
                ", ".join(
                    [seen.words(pair.sender, pair.ligand), *(seen.words(pair.receiver, g) for g in pair.receptor)]
                )
                + note,
            )
        rows.append(row)
    return pd.DataFrame(rows)


def score_axes(
    sample: Sample,
    pairs: Sequence[Pair],
    options: Crosstalk,
    seed: int,
    *,
    is_counts: bool = True,
    notes: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Measure every pair and test those that can be tested; returns the rows of the ``crosstalk`` contract."""
    table = measure(sample, pairs, options, is_counts=is_counts, notes=notes)
    results = ["strength", "log2_effect", "log2_se", "z", "p_label", "p_pair", "p", "q"]
    table[results] = np.nan
    chosen = np.flatnonzero((table["status"] == "tested").to_numpy())
    if chosen.size:
        reserved = {g for p in pairs for g in p.genes}
        tested = test_pairs(sample, [pairs[int(i)] for i in chosen], reserved, options, seed)
        effect, z = summarise_null(tested.strength, tested.label)
        p_label = stats.permutation_p(tested.strength, np.where(tested.label_seen, tested.label, 0.0))
        p_pair = stats.permutation_p(tested.strength, tested.pair)
        p = np.maximum(p_label, p_pair)
        q = adjusted_within_families(sample, pairs, chosen, p, options)
        columns = [tested.strength, effect, tested.log2_se, z, p_label, p_pair, p, q]
        # ambient RNA above the observed mean leaves a strength of 0 without a log: no standard error
        table.loc[chosen, results] = np.where(np.isfinite(np.column_stack(columns)), np.column_stack(columns), np.nan)
    return table


def family(arm: str) -> str:
    """Family of tests of an axis: the claims together; positive controls and decoys each on their own."""
    return arm if arm in ("positive_control", "decoy") else "claim"


def adjusted_within_families(
    sample: Sample, pairs: Sequence[Pair], chosen: Ints, p: Floats, options: Crosstalk
) -> Floats:
    """Benjamini-Hochberg of tested pairs within their family; a pair that could have been tested counts with p = 1.

    Parameters
    ----------
    chosen, p
        (tested,) positions in `pairs` and p-values.
    """
    seen = Detection.of(sample, {g for pair in pairs for g in pair.genes})
    asked = np.array([1.0 if seen.candidate(pair, options) else np.nan for pair in pairs])
    asked[chosen] = p
    families = np.array([family(pair.arm) for pair in pairs], dtype=object)
    q = np.full(len(pairs), np.nan)
    for name in set(families):
        q[families == name] = stats.bh(asked[families == name])
    return q[chosen]


# -------------------------------------------------------------------------------------------------------------- files
def load(
    counts: str | Path,
    cell_types: str | Path,
    malignancy: str | Path,
    csc: str | Path,
    tam: str | Path,
    ambient: str | Path,
    names: Iterable[str] = populations.NAMES,
) -> tuple[io.Counts, pd.DataFrame, Sample, dict[str, str]]:
    """Read one sample for the axes.

    Returns
    -------
    The counts, the cells (sorted by id, with type, malignancy, clone, csc_state, myeloid_class), the `Sample`, and for
    populations that have no cells because an earlier stage gave no answer, that answer.

    Raises
    ------
    NotAssessable
        If ingest or annotation gave nothing for this sample.
    """
    import pandas as pd

    from nicheloop import genes

    reader = io.Counts(counts)
    reader.require(counts=False)
    cells = io.read_cells(cell_types, reader.sample, ["cell_type", "cell_type_minor", "platelet"]).sort_index()
    if cells.empty:
        raise NotAssessable("no_cells", "no cell of this sample passed quality control and annotation")
    notes = {}
    for path, columns, affected in (
        (malignancy, ["malignancy", "clone"], ("malignant", "csc_high")),
        (csc, ["csc_state"], ("csc_high",)),
        (tam, ["myeloid_class"], ("macrophage", "monocyte")),
    ):
        part = io.read_table(path, columns=["cell_id", *columns]).set_index("cell_id")
        cells = cells.join(part)
        status = io.read_status(path)
        if not status.ok:
            notes.update({name: f"{status.stage}: {status.status}" for name in affected if name not in notes})
    order = np.argsort(reader.genes.astype(str), kind="stable")
    x = reader.matrix(cells=cells.index)[:, order].astype(np.float64).tocsr()
    symbols = reader.genes[order]
    profile = io.read_table(ambient)
    share = pd.Series(profile["ambient_fraction"].to_numpy(dtype=float), index=profile["gene"].astype(str))
    rate = float(profile["contamination_rate"].iloc[0]) if len(profile) else np.nan
    sample = Sample(
        x=x,
        totals=np.asarray(x.sum(axis=1)).ravel(),
        genes=symbols,
        names=tuple(names),
        masks=np.column_stack([populations.members(name, cells) for name in names]),
        ambient=share.reindex(symbols).fillna(0.0).to_numpy(),
        rate=rate,
        platelet_genes=frozenset(genes.platelet_genes()),
    )
    return reader, cells, sample, notes


def run_crosstalk(
    counts: str | Path,
    cell_types: str | Path,
    malignancy: str | Path,
    csc: str | Path,
    tam: str | Path,
    ambient: str | Path,
    out: str | Path,
    *,
    options: Crosstalk,
    seed: int,
) -> None:
    """Write every axis x sender x receiver of one sample, testable or not."""
    from nicheloop import genes

    sample_name = io.Counts(counts).sample
    with io.stage_output(out, "crosstalk", stage="crosstalk", sample=sample_name) as result:
        reader, cells, sample, notes = load(counts, cell_types, malignancy, csc, tam, ambient)
        is_counts = bool(reader.record["is_counts"])
        result.table = score_axes(sample, pairs_of_axes(genes.axes()), options, seed, is_counts=is_counts, notes=notes)
        result.summary = {
            "n_cells": len(cells),
            "n_malignant": int(sample.masks[:, sample.names.index("malignant")].sum()),
            "statuses": dict(sorted(Counter(result.table["status"]).items())),
            "ambient_rate": sample.rate,
        }
        reader.require(counts=True)  # rows are written, and the stage's status says no_counts


# ------------------------------------------------------------------------------------------------------------- cohort
def tumour_samples(records: Sequence[dict[str, Any]], n_assessable: dict[str, int]) -> dict[str, str]:
    """Patient -> the sample of the primary tumour that speaks for it; patients without one are left out."""
    return _by_rank(records, n_assessable, 0)


def not_primary(records: Sequence[dict[str, Any]], n_assessable: dict[str, int] | None = None) -> dict[str, str]:
    """Patient -> lymph node or metastasis, for patients without a primary tumour: no part of any cohort claim."""
    return _by_rank(records, n_assessable or {}, 1)


def _by_rank(records: Sequence[dict[str, Any]], n_assessable: dict[str, int], rank: int) -> dict[str, str]:
    from nicheloop import patients

    tissue = {str(r["sample"]): r.get("tissue") for r in records}
    chosen = patients.primary_samples(list(records), n_assessable)
    return {p: s for p, s in sorted(chosen.items()) if patients.tissue_rank(tissue[s]) == rank}


def left_out_words(n: int) -> str:
    """Say how many patients have no primary tumour sample; empty for none."""
    return f"; {n} more without a primary tumour sample (not_primary_tumour)" if n else ""


def assessable_cells(paths: Sequence[str | Path]) -> dict[str, int]:
    """Sample -> cells by which its patient's sample is chosen: malignant ones first, all cells to break ties."""
    out = {}
    for path in paths:
        status = io.read_status(path)
        malignant, cells = (int(status.summary.get(k) or 0) for k in ("n_malignant", "n_cells"))
        out[status.sample] = malignant * 10_000_000 + cells  # lexicographic: no sample has ten million cells
    return out


def summarise_axes(
    rows: pd.DataFrame,
    n_patients: int,
    *,
    confidence: float,
    alpha: float,
    not_run: dict[str, str],
    n_left_out: int = 0,
) -> pd.DataFrame:
    """Summarise axes over patients.

    Parameters
    ----------
    rows
        Rows of the ``crosstalk`` contract of one sample per patient, with a column ``patient``.
    n_patients
        Patients with a primary sample, with rows or without.
    confidence, alpha
        Of the interval; level of q for ``n_significant``.
    not_run
        Patient -> status, for patients without any row.
    n_left_out
        Patients without a primary tumour sample, for the reason.

    Returns
    -------
    One row per axis, sender and receiver.  A patient's value is the tested ligand-receptor pair with the largest
    strength: chosen by strength, never by its p-value.  Pooled is log2 strength, not its ratio to permuted labels: that
    ratio depends on the share of each type in the sample.
    """
    import pandas as pd

    out = []
    for (axis, sender, receiver), group in rows.groupby(["axis", "sender", "receiver"], sort=False):
        tested = group[group["status"] == "tested"].sort_values(
            ["patient", "strength", "ligand", "receptor"], ascending=[True, False, True, True]
        )
        best = tested.drop_duplicates("patient")
        obstacles = Counter(dict.fromkeys(WORDS, 0))
        for _, mine in group[~group["patient"].isin(best["patient"])].groupby("patient"):
            obstacles[furthest(mine["status"])] += 1
        obstacles.update(not_run.values())
        obstacles = Counter({k: v for k, v in obstacles.items() if v})
        n = len(best)
        strength = best["strength"].to_numpy(dtype=float)
        logs = np.log2(strength, out=np.full(len(strength), np.nan), where=strength > 0)
        meta = stats.random_effects(logs, best["log2_se"], confidence)
        words = [f"{v} {WORDS.get(k, k.replace('_', ' '))}" for k, v in obstacles.most_common()]
        if n >= 2:
            status, reason = "ok", f"tested in {n} of {n_patients} patients"
        elif n == 1:
            status, reason = "too_few_patients", f"tested in 1 of {n_patients} patients, 2 are needed"
        else:
            status = obstacles.most_common(1)[0][0] if obstacles else "too_few_patients"
            reason = f"tested in none of {n_patients} patients"
        undetected = {
            side: group[group["status"] == f"{side}_not_detected"][f"{side}_upper"].max()
            for side in ("ligand", "receptor")
        }
        show = n >= 2
        out.append({
            "axis": axis, "arm": group["arm"].iloc[0], "sender": sender, "receiver": receiver, "n_patients": n_patients,
            "n_assessable": n, "n_significant": int((best["q"] < alpha).sum()), "status": status,
            "reason": "; ".join([reason, *words]) + left_out_words(n_left_out),
            "effect": meta.effect if show else np.nan, "effect_low": meta.low if show else np.nan,
            "effect_high": meta.high if show else np.nan,
            "max_upper_ligand": undetected["ligand"], "max_upper_receptor": undetected["receptor"],
        })  # fmt: skip
    return pd.DataFrame(out)


def furthest(statuses: Iterable[str]) -> str:
    """Of several obstacles, return the one met last on the way to a test: the nearest any pair came."""
    order = (
        "no_counts", "gene_absent_from_reference", "platelet_contamination", "too_few_cells", "ligand_not_detected",
        "ambient_not_exceeded", "receptor_not_detected", "tested",
    )  # fmt: skip
    return max(statuses, key=order.index)


def run_axes(
    crosstalk: Sequence[str | Path], records: Sequence[str | Path], out: str | Path, *, options: Crosstalk, alpha: float
) -> None:
    """Write the cohort table of axes: one primary tumour sample per patient."""
    import pandas as pd

    with io.stage_output(out, "axes", stage="axes") as result:
        known = [io.read_json(r) for r in records]
        primary, left_out = tumour_samples(known, assessable_cells(crosstalk)), not_primary(known)
        result.summary = {"n_patients": len(primary), "not_primary_tumour": sorted(left_out)}
        patient_of = {sample: patient for patient, sample in primary.items()}
        parts, not_run = [], {}
        for path in crosstalk:
            status = io.read_status(path)
            if status.sample not in patient_of:
                continue
            table = io.read_table(path)
            if table.empty:
                not_run[patient_of[status.sample]] = status.status
            else:
                parts.append(table.assign(patient=patient_of[status.sample]))
        if not parts:
            reason = "no patient has a primary tumour sample in which an axis could be asked for"
            name = "not_primary_tumour" if left_out and not primary else "no_samples"
            raise NotAssessable(name, reason + left_out_words(len(left_out)))
        rows = pd.concat(parts, ignore_index=True)
        result.table = summarise_axes(
            rows, len(primary), confidence=options.confidence, alpha=alpha, not_run=not_run, n_left_out=len(left_out)
        )
        result.summary["n_axes"] = int(rows["axis"].nunique())
