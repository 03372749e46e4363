"""Decoys: expressed secreted x membrane pairs without a recorded interaction, really tested.  See docs/crosstalk.md."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import stats
from nicheloop.detection import Detection
from nicheloop.ligand_receptor import PER, Bools, Floats, Ints, Pair, Sample, population_means
from nicheloop.roles import Roles

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_niche import Crosstalk

NEAREST = 20  # genes nearest in abundance among which the decoy of a ligand or receptor is chosen


@dataclass(frozen=True)
class Pools:
    """Secreted and membrane genes of one sample, sorted by abundance; genes of any axis are in neither.

    Attributes
    ----------
    overall : (genes,) counts per 10,000 over the sample
    means : (populations, genes) ambient-corrected counts per 10,000
    secreted, membrane : positions, sorted by `overall` and then by symbol
    seen : detection of those genes
    place : (genes,) column of each in `seen`, -1 for the others
    usable : those of a class that are measurable in a population, filled when first asked
    """

    sample: Sample
    roles: Roles
    overall: Floats
    means: Floats
    secreted: Ints
    membrane: Ints
    seen: Detection
    place: Ints
    usable: dict[tuple[str, str], Ints] = field(default_factory=dict)

    @classmethod
    def of(cls, sample: Sample, roles: Roles, reserved: Iterable[str]) -> Pools:
        """Sort what the sample has of both classes; `reserved` genes (those of any axis) stay out."""
        sums, lookup, kept = sample.sums, sample.gene_index, set(reserved)
        overall = sums.everywhere * (PER / max(float(sample.totals.sum()), 1.0))

        def sorted_class(names: frozenset[str]) -> Ints:
            use = sorted(lookup[g] for g in names if g in lookup and g not in kept)
            found = np.array([i for i in use if sums.everywhere[i] > 0], dtype=np.int64)
            return found[np.argsort(overall[found], kind="stable")]

        secreted, membrane = sorted_class(roles.secreted), sorted_class(roles.membrane)
        seen = Detection.of(sample, [str(g) for g in sample.genes[np.concatenate([secreted, membrane])]])
        place = np.full(len(sample.genes), -1, dtype=np.int64)
        place[[lookup[g] for g in seen.column]] = list(seen.column.values())
        means = population_means(sums.umi, sums.library_size, sample.ambient_mean())
        return cls(sample, roles, overall, means, secreted, membrane, seen, place)

    @cached_property
    def recorded(self) -> Ints:
        """Sorted codes (see `unrecorded`) of recorded interactions between genes of `seen`."""
        lookup, here = self.sample.gene_index, self.seen.column
        codes = [
            lookup[gene] * len(lookup) + lookup[other]
            for gene, others in self.roles.partners.items()
            if gene in here
            for other in others
            if other in here
        ]
        return np.sort(np.array(codes, dtype=np.int64))

    def unrecorded(self, ligands: Ints, receptors: Ints) -> Bools:
        """Whether genes of `seen`, by position, share no recorded interaction, pair by pair."""
        if not self.recorded.size:
            return np.ones(ligands.shape, dtype=bool)
        code = ligands * len(self.place) + receptors
        at = np.minimum(np.searchsorted(self.recorded, code), self.recorded.size - 1)
        return np.asarray(self.recorded[at] != code)

    def measurable(self, kind: str, population: str, options: Crosstalk) -> Ints:
        """Genes of a class that pass the floor and exceed ambient RNA in a population, by abundance.

        ``kind`` is ``secreted``, ``membrane`` or ``both``.
        """
        key = (kind, population)
        if key not in self.usable:
            if kind == "both":
                either = [self.measurable(k, population, options) for k in ("secreted", "membrane")]
                found = np.sort(np.concatenate(either))
                self.usable[key] = found[np.argsort(self.overall[found], kind="stable")]
            else:
                pool = self.secreted if kind == "secreted" else self.membrane
                found = pool[self.seen.all_detected(population, self.place[pool], options)]
                above = self.seen.all_above_ambient(population, self.place[found], options.ambient_alpha)
                self.usable[key] = found[above]
        return self.usable[key]

    def kind_of(self, gene: str, side: str) -> str:
        """Class whose genes may stand in: membrane genes for receptors and membrane ligands, else secreted ones."""
        return "secreted" if side == "ligand" and gene not in self.roles.membrane else "membrane"

    def stand_ins(
        self, gene: str, side: str, population: str, options: Crosstalk, *, control: bool = False
    ) -> tuple[Ints, str]:
        """Return genes that may stand in for a gene of a pair, and in words what is unusual about them.

        Returns
        -------
        The ``n_stand_ins`` nearest in abundance of the first class with ``min_stand_ins`` genes, else none: those of
        the gene's class that are measurable in the population and would be at the gene's abundance; secreted and
        membrane genes together.  For a positive control (`control`) then also those that are measurable at their own
        abundance; for claims that would be too easy a comparison.
        """
        at, kind = self.sample.gene_index[gene], self.kind_of(gene, side)
        mean, i = float(self.overall[at]), self.seen.names.index(population)

        def at_its_abundance(pool: Ints) -> Ints:
            columns = self.place[pool]
            scale = mean / self.overall[pool]
            enough = (self.seen.umi[i, columns] * scale >= options.min_umi) & (
                self.seen.positive[i, columns] * scale >= options.min_positive_cells
            )
            return pool[enough]

        like, both = (self.measurable(k, population, options) for k in (kind, "both"))
        steps = [(at_its_abundance(like), ""), (at_its_abundance(both), "secreted and membrane genes")]
        if control:
            steps += [(like, f"{kind} genes of any abundance"), (both, "secreted and membrane genes of any abundance")]
        for pool, said in steps:
            others = pool[pool != at]
            if others.size >= options.min_stand_ins:
                near = window(self.overall, others, mean, options.n_stand_ins)
                return near, f"{gene} compared with {said}" if said else ""
        few = f"nothing to compare {gene} with: {others.size} secreted and membrane genes would do in {population}"
        return others[:0], few


def window(overall: Floats, pool: Ints, mean: float, width: int) -> Ints:
    """The `width` genes of a sorted pool around a mean."""
    centre = int(np.searchsorted(overall[pool], mean))
    start = max(0, min(centre - width // 2, pool.size - width))
    return pool[start : start + width]


def decoy_p(pools: Pools, pairs: Sequence[Pair], options: Crosstalk, seed: int) -> tuple[Floats, list[str]]:
    """(pairs,) p of measurable pairs against decoys between the same two populations, and what is unusual about it.

    Every gene is replaced by a gene of its class (secreted, membrane) near in abundance and scaled to the same
    abundance over the sample, that is measurable in the same population and would be at that abundance; with too few
    of them the class is widened (`Pools.stand_ins`).  Combinations with a recorded interaction are left out.

    Returns
    -------
    p = (b + 1) / (n + 1), and words: empty where neither class was widened.  p is 1 where fewer than ``min_stand_ins``
    genes can stand in on a side even so, NaN where the matrix itself holds fewer secreted or membrane genes than that
    (a panel, a simulation).

    Notes
    -----
    The null hypothesis: sender and receiver concentrate this ligand and this receptor no more than they do other
    secreted and membrane genes that can be measured in them.  Labels and expression alone cannot say that: pairs of
    unrelated proteins are specific to cell types as well.  Only measurable genes stand in, because the pair itself was
    asked only where it is measurable.  Genes of other classes never do: they are less specific to cell types.
    """
    sample, overall = pools.sample, pools.overall
    lookup = sample.gene_index
    out, words = np.full(len(pairs), np.nan), [""] * len(pairs)
    if min(pools.secreted.size, pools.membrane.size) < options.min_stand_ins:
        return out, words
    for k, pair in enumerate(pairs):
        control = pair.arm == "positive_control"
        sides = [pools.stand_ins(pair.ligand, "ligand", pair.sender, options, control=control)]
        sides += [pools.stand_ins(g, "receptor", pair.receiver, options, control=control) for g in pair.receptor]
        words[k] = "; ".join(dict.fromkeys(said for _, said in sides if said))
        if any(p.size == 0 for p, _ in sides):
            out[k] = 1.0
            continue
        name = f"decoy:{pair.ligand}:{'+'.join(pair.receptor)}:{pair.sender}:{pair.receiver}"
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        drawn = [p[rng.integers(0, p.size, options.n_matched_pairs)] for p, _ in sides]
        ligands, subunits = drawn[0], drawn[1:]
        free = np.all([pools.unrecorded(ligands, b) for b in subunits], axis=0)
        s, r = sample.names.index(pair.sender), sample.names.index(pair.receiver)

        def level(population: int, stand_in: Ints, gene: str) -> Floats:
            return np.asarray(pools.means[population, stand_in] * (overall[lookup[gene]] / overall[stand_in]))

        ligand = level(s, ligands, pair.ligand)
        receptor = np.min([level(r, b, g) for b, g in zip(subunits, pair.receptor, strict=True)], axis=0)
        observed = np.sqrt(pools.means[s, lookup[pair.ligand]] * min(pools.means[r, lookup[g]] for g in pair.receptor))
        out[k] = stats.permutation_p(float(observed), np.sqrt(ligand * receptor)[free])
    return out, words


def choose_decoys(pools: Pools, like: Sequence[Pair], options: Crosstalk, seed: int) -> list[Pair]:
    """Choose up to ``n_decoys`` measurable decoys, each like a tested pair in abundance and populations.

    Parameters
    ----------
    like
        Pairs that were tested, in a fixed order; their ligands and limiting subunits set the abundance.
    options
        ``n_decoys`` and the floors.
    seed
        Of the choice; the same sample gives the same decoys.
    """
    rng = np.random.default_rng([seed, zlib.crc32(b"decoys")])
    genes, overall, lookup = pools.sample.genes, pools.overall, pools.sample.gene_index

    def choices(side: str, population: str) -> Ints:
        return pools.measurable("secreted" if side == "ligand" else "membrane", population, options)

    usable = [p for p in like if choices("ligand", p.sender).size and choices("receptor", p.receiver).size]
    found: dict[Pair, None] = {}
    for attempt in range(50 * options.n_decoys if usable else 0):
        if len(found) == options.n_decoys:
            break
        pair = usable[int(rng.integers(len(usable)))]
        # the first tries stay near; where near pairs run out, any abundance will do rather than none
        width = NEAREST if attempt < 25 * options.n_decoys else len(genes)
        limiting = min(pair.receptor, key=lambda g: (overall[lookup[g]], g))
        ligands = window(overall, choices("ligand", pair.sender), float(overall[lookup[pair.ligand]]), width)
        receptors = window(overall, choices("receptor", pair.receiver), float(overall[lookup[limiting]]), width)
        ligand, receptor = str(genes[rng.choice(ligands)]), str(genes[rng.choice(receptors)])
        if not pools.roles.recorded(ligand, receptor):
            found[Pair("DECOY_MATCHED", "decoy", ligand, (receptor,), pair.sender, pair.receiver)] = None
    return sorted(found, key=lambda p: (p.sender, p.receiver, p.ligand, p.receptor))


def summarise_decoys(
    samples: Sequence[tuple[str, str, str, str, pd.DataFrame]],
    *,
    alpha: float,
    confidence: float,
    min_decoys: int,
) -> pd.DataFrame:
    """Summarise how many tested decoys are significant, per sample and over patients.

    Parameters
    ----------
    samples
        (patient, sample, status, reason, rows of the ``decoy_pairs`` contract) of one sample per patient.
    alpha, confidence, min_decoys
        Level; confidence of the intervals; fewest tested decoys that say anything.

    Returns
    -------
    Rows of the ``decoys`` contract, the cohort's last.  Decoys of one sample share genes and cells, so the cohort's
    interval widens the binomial one by the spread between samples (variance ratio, at least 1).
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for patient, sample, status, reason, table in samples:
        n = len(table)
        row: dict[str, Any] = {"patient": patient, "sample": sample, "n_tested": n}
        row |= {f"n_{k}": int((table[k] <= alpha).sum()) for k in ("p", "p_usual")} if n else {"n_p": 0, "n_p_usual": 0}
        enough = n >= min_decoys
        row["status"] = "ok" if enough else (status if n == 0 and status != "ok" else "too_few_decoys")
        row["reason"] = (
            f"{n} decoys tested" if enough else (reason or f"{n} decoys could be tested, {min_decoys} are needed")
        )
        rows.append(row | _share(row["n_p"], row["n_p_usual"], n, 1.0, confidence, alpha, enough))
    good = [r for r in rows if r["status"] == "ok"]
    n, k, usual = (int(sum(r[c] for r in good)) for c in ("n_tested", "n_p", "n_p_usual"))
    inflation = 1.0
    if len(good) > 1 and 0 < k < n:
        share = k / n
        pearson = sum((r["n_p"] - r["n_tested"] * share) ** 2 / (r["n_tested"] * share * (1 - share)) for r in good)
        inflation = max(1.0, pearson / (len(good) - 1))
    total = {
        "patient": "cohort", "sample": "cohort", "n_tested": n, "n_p": k, "n_p_usual": usual,
        "status": "ok" if good else "too_few_decoys",
        "reason": f"{n} decoys in {len(good)} of {len(rows)} patients",
    }  # fmt: skip
    rows.append(total | _share(k, usual, n, inflation, confidence, alpha, bool(good)))
    return pd.DataFrame(rows).rename(columns={"n_p": "n_significant", "n_p_usual": "n_significant_usual"})


def _share(
    k: int, usual: int, n: int, inflation: float, confidence: float, alpha: float, enough: bool
) -> dict[str, float | str]:
    from scipy.stats import binom

    if not enough:
        nothing = dict.fromkeys(("fraction", "fraction_low", "fraction_high", "fraction_usual", "p_excess"), np.nan)
        return {**nothing, "verdict": "not assessable"}
    low, high = stats.wilson(k / inflation, n / inflation, confidence)
    p = float(binom.sf(np.ceil(k / inflation) - 1, int(n / inflation), alpha))
    words = "no more than the level" if p > alpha else "more than the level: read every axis with this in mind"
    return {
        "fraction": k / n, "fraction_low": low, "fraction_high": high, "fraction_usual": usual / n, "p_excess": p,
        "verdict": words,
    }  # fmt: skip
