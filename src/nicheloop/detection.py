"""Measurability: whether a ligand-receptor pair can be tested, and if not by how far.  See docs/crosstalk.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import stats
from nicheloop.ligand_receptor import Bools, Floats, Ints, Pair, Sample

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_niche import Crosstalk


# Axis -> genes that one population besides the receiver must make: trans-signalling needs IL6R, shed by ADAM17.
ELSEWHERE = {"IL6_trans": ("IL6R", "ADAM17")}
NEUTROPHIL_RECEPTORS = frozenset({"CXCR1", "CXCR2"})
PLATELET_LIGANDS = frozenset({"PPBP"})


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
    share: Floats  # (genes,) share of all cells with a count
    n_cells: int  # of the sample
    platelet_genes: frozenset[str]
    shared: Ints  # (populations, populations) cells that two populations share

    @classmethod
    def of(cls, sample: Sample, wanted: Iterable[str]) -> Detection:
        """Count the wanted genes in the sample's populations."""
        lookup = sample.gene_index
        known = sorted(set(wanted) & set(lookup))
        columns = np.array([lookup[g] for g in known], dtype=np.int64)
        m, sums = sample.masks.astype(np.float64), sample.sums
        expected = sums.library_size[:, None] * (sample.rate * sample.ambient[columns])[None, :]
        column = {g: i for i, g in enumerate(known)}
        return cls(
            sample.names, column, sample.masks.sum(axis=0), sums.umi[:, columns], sums.positive[:, columns], expected,
            sums.everywhere[columns], sums.share[columns], len(m), sample.platelet_genes, (m.T @ m).astype(np.int64),
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
        """Whether there are enough counts in enough cells; a gene abundant in the sample must be in enough of them."""
        return bool(self.all_detected(population, np.array([self.column[gene]]), options)[0])

    def all_detected(self, population: str, columns: Ints, options: Crosstalk) -> Bools:
        """`detected` of many genes, by their columns."""
        i = self.names.index(population)
        enough = (self.umi[i, columns] >= options.min_umi) & (self.positive[i, columns] >= options.min_positive_cells)
        return np.asarray(enough & ~self._too_rare(i, columns, options))

    def too_rare(self, population: str, gene: str, options: Crosstalk) -> bool:
        """Whether a gene that is abundant in the sample is in too few cells of a population (doublets explain it)."""
        return bool(self._too_rare(self.names.index(population), np.array([self.column[gene]]), options)[0])

    def _too_rare(self, i: int, columns: Ints, options: Crosstalk) -> Bools:
        least = np.ceil(options.abundant_fraction * self.size[i] - 1e-9)
        return np.asarray((self.share[columns] >= options.abundant_fraction) & (self.positive[i, columns] < least))

    def floor_words(self, population: str, gene: str, options: Crosstalk) -> str:
        """Counts in words, with what was asked of them."""
        i, g = self.names.index(population), self.column[gene]
        few = self.umi[i, g] < options.min_umi or self.positive[i, g] < options.min_positive_cells
        if few or not self.too_rare(population, gene, options):
            return f"{self.words(population, gene)}: {_floor(options)}"
        return (
            f"{self.words(population, gene)}: {100 * options.abundant_fraction:g} % of them are needed, because "
            f"{100 * self.share[g]:.2g} % of all cells have it"
        )

    def above_ambient(self, population: str, gene: str, alpha: float) -> bool:
        """Whether the counts exceed what ambient RNA explains (Poisson, one-sided); yes where it is not estimated."""
        return bool(self.all_above_ambient(population, np.array([self.column[gene]]), alpha)[0])

    def all_above_ambient(self, population: str, columns: Ints, alpha: float) -> Bools:
        """`above_ambient` of many genes, by their columns."""
        from scipy.special import pdtrc

        i = self.names.index(population)
        level = self.expected[i, columns]
        return np.asarray(~(level > 0) | (pdtrc(self.umi[i, columns] - 1, level) < alpha))

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
            return "ligand_not_detected", self.floor_words(pair.sender, pair.ligand, options)
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

    def elsewhere_obstacle(self, pair: Pair, options: Crosstalk) -> tuple[str, str] | None:
        """Whether a gene the axis needs elsewhere in the tumour is missing (`ELSEWHERE`); None where none is needed."""
        needed = ELSEWHERE.get(pair.axis, ())
        absent = [g for g in needed if g not in self.column]
        if absent:
            return (
                "gene_absent_from_reference",
                f"{' and '.join(absent)} not in this matrix: no source of soluble receptor can be shown",
            )
        mine = (
            self.shared[self.names.index(pair.receiver)] if pair.receiver in self.names else np.zeros(len(self.names))
        )
        others = [  # CSC-high cells are malignant cells: no other source
            p
            for p, common in zip(self.names, mine, strict=True)
            if not common and p not in (pair.receiver, "platelet") and self.cells(p) >= options.min_cells
        ]
        if needed and not any(all(self.detected(p, g, options) for g in needed) for p in others):
            return (
                "receptor_not_detected",
                f"no population besides {pair.receiver} makes {' and '.join(needed)}: no source of soluble receptor",
            )
        return None

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
            return "receptor_not_detected", " and ".join(self.floor_words(pair.receiver, g, options) for g in missing)
        for gene in pair.receptor:
            if not self.above_ambient(pair.receiver, gene, options.ambient_alpha):
                return "ambient_not_exceeded", self.beyond_ambient_words(pair.receiver, gene)
        return self.elsewhere_obstacle(pair, options)

    def guard_words(self, pair: Pair) -> str:
        """Neutrophils beside CXCR1 and CXCR2, platelet barcodes beside PPBP, in words; empty for other pairs."""
        said = ""
        if NEUTROPHIL_RECEPTORS & set(pair.receptor):
            said += f"; {self.cells('neutrophil')} neutrophils in the sample"
        if pair.ligand in PLATELET_LIGANDS:
            said += f"; {self.cells('platelet')} platelet barcodes in the sample"
        return said


def wanted_genes(pairs: Iterable[Pair]) -> set[str]:
    """All genes that decide on pairs: ligands, subunits, and those needed elsewhere in the tumour."""
    pairs = list(pairs)
    return {g for p in pairs for g in p.genes} | {g for p in pairs for g in ELSEWHERE.get(p.axis, ())}


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

    seen = Detection.of(sample, wanted_genes(pairs))
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
            row["reason"] += seen.guard_words(pair)
        rows.append(row)
    return pd.DataFrame(rows)


def furthest(statuses: Iterable[str]) -> str:
    """Of several obstacles, return the one met last on the way to a test: the nearest any pair came."""
    order = (
        "no_counts", "gene_absent_from_reference", "platelet_contamination", "too_few_cells", "ligand_not_detected",
        "ambient_not_exceeded", "receptor_not_detected", "tested",
    )  # fmt: skip
    return max(statuses, key=order.index)
