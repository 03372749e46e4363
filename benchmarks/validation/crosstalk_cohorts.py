"""Simulated tumours at the level of axis, read-out and matched genes: what is planted is known, nothing else is there.

A tumour has six cell types and a few hundred genes.  Genes of the axes have the same share of every cell unless an arm
is planted; background genes differ between types.  Counts are Poisson, axis and read-out genes with gamma noise.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.ligand_receptor import Sample

Floats = NDArray[np.float64]

AXES = ("IL6_classic", "IL6_trans", "PPBP", "CCL2", "CSF1")  # asked of every simulated tumour
TYPES = {"malignant": 150, "icaf": 40, "endo_venous": 30, "macrophage": 40, "monocyte": 40, "t_cd4": 40}
SHARES = {  # per 10,000, in every type where nothing is planted
    "IL6": 1.5, "IL6R": 1.5, "IL6ST": 3.0, "CSF1": 1.5, "IL34": 1.0,
    "CSF1R": 2.5, "CCL2": 1.5, "CCL7": 1.0, "CCL8": 1.0, "CCR2": 1.5, "ADAM17": 3.0, "PPBP": 0.0, "CXCR1": 0.0,
    "CXCR2": 0.0,
}  # fmt: skip
READOUT_SHARE, COVARIATE_SHARE = 5.0, 5.0
N_NFKB, N_M2, N_STRESS = 20, 12, 25  # genes of the larger sets that the small matrix holds
N_BACKGROUND, N_ROLE = 300, 60  # genes besides the named ones; secreted, and as many membrane proteins, among them
BACKGROUND_SHARE, BACKGROUND_SD = 2.0, 1.0  # per 10,000: median, sd of the log; the axes' genes lie in the middle of it
N_ABUNDANT = 20  # genes of the same share in all types that make up the rest of the library
TYPE_SD, ROLE_SD = 0.6, 1.3  # sd of the log fold of a gene between types: any gene, secreted and membrane proteins
SHAPE = 3.0  # gamma shape of axis and read-out genes between cells
LIBRARY, LIBRARY_SD = 3000.0, 0.4
CSC_SHARE = 0.4
FACTOR_SD = {"ligand": 0.7, "response": 0.35, "return": 0.7, "niche": 0.35}  # of log levels between patients
SUBTYPES = {"ER+": 0.42, "TNBC": 0.38, "HER2+": 0.20}


@dataclass(frozen=True)
class Strength:
    """A planted loop.

    Attributes
    ----------
    ligand, receptor : fold of the share where the axis is at home
    elsewhere : fold in all other types
    response : fold of the read-out in CSC-high cells
    rho : correlation over patients of ligand and response, where they are coupled
    """

    ligand: float
    receptor: float
    elsewhere: float
    response: float
    rho: float


STRENGTHS = {
    "weak": Strength(4.0, 2.0, 0.5, 1.25, 0.4),
    "medium": Strength(6.0, 3.0, 0.3, 1.5, 0.7),
    "strong": Strength(8.0, 4.0, 0.15, 2.0, 0.9),
}
SURE = Strength(8.0, 4.0, 0.05, 2.0, 0.9)  # an arm that is certainly there, for nulls of the others


@dataclass(frozen=True)
class Design:
    """What a tumour is made of.

    Attributes
    ----------
    arms : arms that are truly present, of "ABC"
    strength : how strong they are, and how ligand and response go together over patients (0: two independent factors)
    specific : sd of the log fold between types of IL6 and its receptors: as that of other genes; 0: the same everywhere
    depth : library of a type relative to the others
    call_depth : slope of the log odds of being called CSC-high on log library
    ambient, ambient_known : range of a patient's ambient share; the fraction of it that the product is told
    elsewhere : IL6 is made by CD4 T cells (no sender of the axis) and reaches others as ambient RNA only
    platelets : share of barcodes with platelet RNA
    doublets : share of malignant barcodes that hold an iCAF too; such barcodes are called CSC-high `doublet_odds` times
        as often
    cell_stress : log fold of stress genes, and of the read-out genes that are stress genes, in CSC-high cells
    stress_readout : all genes of the read-out follow stress, not only those that are stress genes
    patient_stress : sd over patients of a log fold of stress genes, those of the read-out among them, and of IL6
    caf_readout : fold of the STAT3 read-out in iCAF
    scale : factor on the shares of the axes' genes
    """

    arms: str = ""
    strength: Strength = STRENGTHS["medium"]
    coupled: bool = False
    specific: float = 0.0
    depth: dict[str, float] = field(default_factory=dict)
    call_depth: float = 0.0
    ambient: tuple[float, float] = (0.0, 0.0)
    ambient_known: float = 1.0
    elsewhere: bool = False
    platelets: float = 0.0
    doublets: float = 0.0
    doublet_odds: float = 1.0
    cell_stress: float = 0.0
    stress_readout: bool = False
    patient_stress: float = 0.0
    caf_readout: float = 1.0
    scale: float = 1.0

    def but(self, **values: Any) -> Design:
        """A copy with some values changed."""
        return replace(self, **values)


@dataclass(frozen=True)
class Panel:
    """Genes of the small matrix: sorted symbols, (types, genes) shares, and the positions of each set."""

    genes: NDArray[np.object_]
    shares: Floats
    background: NDArray[np.bool_]
    sets: dict[str, NDArray[np.int64]]
    at: dict[str, int]


@cache
def panel() -> Panel:
    """Build the genes once; the background's differences between types are the same in every patient."""
    from nicheloop import genes, loop
    from nicheloop.roles import roles

    readouts, signatures = loop.readouts(), genes.signatures()
    taken: set[str] = set(SHARES)
    sets: dict[str, list[str]] = {}

    def take(name: str, members: Any, limit: int = 10**6) -> None:
        sets[name] = [g for g in members if g not in taken][:limit]
        taken.update(sets[name])

    take("STAT3", readouts[loop.STAT3])
    take("NFKB", readouts[loop.NFKB], N_NFKB)
    take("M2", readouts[loop.RETURN_READOUT], N_M2)
    take("IFN", signatures["IFN"].genes)
    take("STRESS", signatures["STRESS"].genes, N_STRESS)
    platelet = [g for g in ("PF4", "GP9", "TUBB1", "ITGA2B") if g not in taken]
    asked = {g for a in genes.axes() for g in (*a.ligands, *(u for r in a.receptors for u in r))}
    known = taken | asked | set(platelet) | {g for s in signatures.values() for g in s.genes}
    others = N_BACKGROUND - 2 * N_ROLE
    background = [f"B{i:03d}" for i in range(others)]
    for members in (roles().secreted, roles().membrane):
        background += sorted(members - known - set(background))[:N_ROLE]
    abundant = [f"H{i:03d}" for i in range(N_ABUNDANT)]
    symbols = np.array(sorted([*taken, *platelet, *background, *abundant]), dtype=object)
    at = {g: i for i, g in enumerate(symbols)}
    rng = np.random.default_rng(zlib.crc32(b"panel"))
    shares = np.zeros((len(TYPES), len(symbols)))
    for gene, share in SHARES.items():
        shares[:, at[gene]] = share / 1e4
    for name in sets:
        for gene in sets[name]:
            shares[:, at[gene]] = (READOUT_SHARE if name in ("STAT3", "NFKB", "M2") else COVARIATE_SHARE) / 1e4
    is_background = np.zeros(len(symbols), dtype=bool)
    is_background[[at[g] for g in background]] = True
    base = BACKGROUND_SHARE / 1e4 * rng.lognormal(0, BACKGROUND_SD, N_BACKGROUND)
    role = np.isin(symbols[is_background].astype(str), background[others:])
    shares[:, is_background] = base * np.exp(
        np.where(role, ROLE_SD, TYPE_SD) * rng.standard_normal((len(TYPES), N_BACKGROUND))
    )
    positions = {name: np.array([at[g] for g in members]) for name, members in sets.items()}
    positions["shared"] = np.array([at[g] for g in sets["STAT3"] if g in signatures["STRESS"].genes])
    positions["abundant"] = np.array([at[g] for g in abundant])
    positions["platelet"] = np.array([at[g] for g in [*platelet, "PPBP"]])
    return Panel(symbols, shares, is_background, positions, at)


@dataclass(frozen=True)
class Factors:
    """A patient's standard-normal levels: forward ligand and response, return ligand and response, stress."""

    ligand: float
    response: float
    back: float
    niche: float
    stress: float


def draw_factors(design: Design, rng: np.random.Generator) -> Factors:
    """Draw what differs between patients; ligand and response share the strength's rho where they are coupled."""
    z = rng.standard_normal(5)
    rho = design.strength.rho if design.coupled else 0.0
    rest = np.sqrt(1 - rho**2)
    return Factors(z[0], rho * z[0] + rest * z[1], z[2], rho * z[2] + rest * z[3], z[4])


@dataclass(frozen=True)
class Tumour:
    """A simulated tumour as the product sees it, and the log-normalised counts' source for cell-level tests."""

    sample: Sample
    cells: pd.DataFrame
    kind: NDArray[np.int64]


def draw_tumour(design: Design, rng: np.random.Generator, factors: Factors | None = None) -> Tumour:
    """Draw one tumour."""
    import pandas as pd
    from scipy import sparse

    from nicheloop import genes, io, loop, populations, scoring
    from nicheloop import ligand_receptor as lr

    p, s = panel(), design.strength
    f = factors or draw_factors(design, rng)
    kind = np.repeat(np.arange(len(TYPES)), list(TYPES.values()))
    n = len(kind)
    names = list(TYPES)
    malignant, icaf = kind == 0, kind == names.index("icaf")
    library = LIBRARY * rng.lognormal(0, LIBRARY_SD, n) * np.array([design.depth.get(t, 1.0) for t in names])[kind]
    clone = rng.integers(1, 3, n)
    second = malignant & (rng.random(n) < design.doublets)
    odds = CSC_SHARE / (1 - CSC_SHARE) * np.where(second, design.doublet_odds, 1.0)
    odds = odds * np.exp(design.call_depth * np.log(library / np.median(library[malignant])))
    csc = malignant & (rng.random(n) < odds / (1 + odds))

    shares = p.shares.copy()
    shares[:, [p.at[g] for g in SHARES]] *= design.scale
    fold = rng.lognormal(0, 0.3, len(p.genes))
    shares[:, p.background] *= fold[p.background]
    if design.specific:
        for gene in ("IL6", "IL6R", "IL6ST"):
            wild = rng.lognormal(0, design.specific, len(TYPES))
            shares[:, p.at[gene]] *= wild / wild.mean()
    if design.elsewhere:
        shares[:, p.at["IL6"]] = 0.0
        shares[names.index("t_cd4"), p.at["IL6"]] = 60 / 1e4
    if "A" in design.arms:
        plant(shares, p.at["IL6"], icaf_row(names), s.ligand, s.elsewhere)
        for gene in ("IL6R", "IL6ST"):
            plant(shares, p.at[gene], [0], s.receptor, s.elsewhere)
    if "C" in design.arms:
        plant(shares, p.at["CSF1"], [0], s.ligand, s.elsewhere)
        plant(shares, p.at["CSF1R"], [names.index("macrophage")], 2 * s.receptor, s.elsewhere)
    if "A" in design.arms or design.coupled:
        shares[icaf_row(names), p.at["IL6"]] *= np.exp(FACTOR_SD["ligand"] * f.ligand)
    if "C" in design.arms or design.coupled:
        shares[0, p.at["CSF1"]] *= np.exp(FACTOR_SD["return"] * f.back)
    shares[icaf_row(names)[0], p.sets["STAT3"]] *= design.caf_readout
    shares[0, p.sets["STAT3"]] *= np.exp(FACTOR_SD["response"] * f.response)
    niche = [names.index("macrophage"), names.index("monocyte")]
    shares[np.ix_(niche, p.sets["M2"])] *= 3 * np.exp(FACTOR_SD["niche"] * f.niche)
    if design.patient_stress:
        up = np.exp(design.patient_stress * f.stress)
        moved = p.sets["STAT3"] if design.stress_readout else p.sets["shared"]
        shares[:, [*p.sets["STRESS"], *moved, p.at["IL6"]]] *= up
    # abundant genes make room: an unplanted gene has exactly the same share of every type
    shares[:, p.sets["abundant"]] = ((1 - shares.sum(axis=1)) / N_ABUNDANT)[:, None]

    share = shares[kind]
    own = np.ones((n, 1))
    stress = rng.normal(0, 0.3, n) + design.cell_stress * csc
    follows = [*p.sets["STRESS"], *(p.sets["STAT3"] if design.stress_readout else p.sets["shared"])]
    share[:, follows] *= np.exp(stress)[:, None]
    if "B" in design.arms:
        share[np.ix_(csc, p.sets["STAT3"])] *= s.response
    noisy = ~p.background
    noisy[p.sets["abundant"]] = False
    share[:, noisy] *= rng.gamma(SHAPE, 1 / SHAPE, (n, int(noisy.sum())))
    mean = library[:, None] * share * own
    if second.any():
        partner = rng.choice(np.flatnonzero(icaf), int(second.sum()))
        mean[second] += mean[partner]
    pool = mean.sum(axis=0) / mean.sum()
    rate = rng.uniform(*design.ambient)
    mean = (1 - rate) * mean + rate * mean.sum(axis=1)[:, None] * pool
    platelet = rng.random(n) < design.platelets
    if platelet.any():
        mean[np.ix_(platelet, p.sets["platelet"])] += 0.02 * LIBRARY
    x = sparse.csr_matrix(rng.poisson(mean).astype(np.float64))

    masks = np.zeros((n, len(populations.NAMES)), dtype=bool)
    inside = {
        "malignant": malignant, "epithelial": malignant, "csc_high": csc, "icaf": icaf, "caf": icaf,
        "endo_venous": kind == 2, "endothelial": kind == 2, "macrophage": kind == 3, "monocyte": kind == 4,
        "myeloid": (kind == 3) | (kind == 4), "t_cd4": kind == 5, "t_nk": kind == 5,
    }  # fmt: skip
    for name, mask in inside.items():
        masks[:, populations.NAMES.index(name)] = mask & ~platelet
    masks[:, populations.NAMES.index("platelet")] = platelet
    totals = np.asarray(x.sum(axis=1)).ravel()
    ambient = np.asarray(x.sum(axis=0)).ravel() / totals.sum()
    sample = lr.Sample(
        x, totals, p.genes, populations.NAMES, masks, ambient, rate * design.ambient_known,
        frozenset(genes.platelet_genes()),
    )  # fmt: skip
    cells = pd.DataFrame({
        "csc_state": np.where(masks[:, 0], np.where(csc, "m_csc", "other"), "not_assessable"),
        "clone": clone.astype(float), "n_counts": totals,
    })  # fmt: skip
    for column, z in loop.score_readouts(sample, None).items():
        cells[column] = z
    covariates = {name: genes.signatures()[name].genes for name in loop.COVARIATES}
    mask = masks[:, 0]
    z = scoring.score_sets(
        io.lognormalise(x[mask]), [str(g) for g in p.genes], covariates, n_bins=25, min_genes=5, min_cells=20
    )
    for name in covariates:
        cells[f"z_{name}"] = np.nan
        cells.loc[mask, f"z_{name}"] = z[name].to_numpy()
    return Tumour(sample, cells, kind)


def plant(shares: Floats, gene: int, home: list[int], fold: float, elsewhere: float) -> None:
    """Raise a gene's share where it is at home and lower it elsewhere, in place."""
    factor = np.full(len(shares), elsewhere)
    factor[home] = fold
    shares[:, gene] *= factor


def icaf_row(names: list[str]) -> list[int]:
    """Rows of the types that send IL6."""
    return [names.index("icaf"), names.index("endo_venous")]


def draw_record(i: int, rng: np.random.Generator) -> dict[str, Any]:
    """Sheet row of a patient."""
    subtype = str(rng.choice(list(SUBTYPES), p=list(SUBTYPES.values())))
    return {
        "sample": f"s{i:04d}",
        "patient": f"p{i:04d}",
        "subtype": subtype,
        "dataset": "simulated",
        "tissue": "tumour",
    }
