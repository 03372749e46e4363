"""The demo cohort: simulated tumours and normal breasts, as 10x folders with the truth.  See docs/simulate.md.

Real facts go in (typical rates per cell type, gene positions, common copy-number changes); no cell of a real data set
comes out.  What is planted is written down beside the counts, so that every stage can be checked against it.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from nicheloop.config_cells import Simulate

Region = str  # an arm ("1q"), a band or a set of bands by prefix ("11q13"), or genes joined by "+"
Events = tuple[tuple[Region, int], ...]
HER2_CORE = "ERBB2+GRB7+PGAP3+MIEN1+STARD3+TCAP+PNMT"


@dataclass(frozen=True)
class Plan:
    """What one sample is made of.

    Attributes
    ----------
    loop : what is planted.  ``all``: IL6 in the niche, IL6R in malignant cells, STAT3 response and recruiting ligands
        in the stem-like cells.  ``ligand``: IL6 in the niche only.  ``none``: nothing.
    trunk : (region, copies) of every malignant cell;  clones: further events of clones A, B ...
    csc_factor : the sample's stem-like fraction relative to the option ``csc_fraction``
    cycling : share of malignant cells in cycle
    """

    sample: str
    subtype: str
    tissue: Literal["tumour", "normal"] = "tumour"
    profile: str = ""
    loop: Literal["all", "ligand", "none"] = "none"
    shallow: bool = False
    without_macrophages: bool = False
    platelet_barcodes: int = 0
    trunk: Events = ()
    clones: tuple[Events, ...] = ()
    csc_factor: float = 1.0
    cycling: float = 0.1


PLANS = (
    Plan("demo_tnbc_1", "TNBC", profile="cancer_tnbc", loop="all", csc_factor=1.2, cycling=0.2,
         trunk=(("1q", 3), ("8q", 4), ("17p", 1), ("3q", 3)), clones=((("12p", 3),), (("13q", 1), ("20q", 3)))),
    Plan("demo_tnbc_2", "TNBC", profile="cancer_tnbc", csc_factor=1.05, cycling=0.2, platelet_barcodes=8,
         trunk=(("1q", 3), ("8q", 3), ("17p", 1), ("4p", 1)), clones=((("13q", 1),), (("3q", 3), ("19q12", 6)))),
    Plan("demo_her2_1", "HER2+", profile="cancer_her2", loop="all", csc_factor=0.9, cycling=0.15,
         trunk=((HER2_CORE, 12), ("1q", 3), ("8q", 3), ("17p", 1)), clones=((("20q", 3),), (("18q", 1), ("22q", 1)))),
    Plan("demo_her2_2", "HER2+", profile="cancer_her2", shallow=True, csc_factor=0.9, cycling=0.15,
         trunk=((HER2_CORE + "+TOP2A", 12), ("1q", 3), ("8q", 4), ("8p", 1)), clones=((("20q", 3),), (("17p", 1),))),
    Plan("demo_er_1", "ER+", profile="cancer_er", loop="all", csc_factor=1.0, cycling=0.08,
         trunk=(("1q", 3), ("16q", 1), ("16p", 3), ("22q", 1)), clones=((("8q", 3),), (("11q13", 6), ("17p", 1)))),
    Plan("demo_er_2", "ER+", profile="cancer_er", loop="ligand", without_macrophages=True, csc_factor=0.95,
         cycling=0.08, trunk=(("1q", 3), ("16q", 1), ("20q", 3)), clones=((("8q", 3),), (("13q", 1), ("17q23", 5)))),
    Plan("demo_normal_1", "normal", tissue="normal"),
    Plan("demo_normal_2", "normal", tissue="normal"),
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A cell type: profile column, major type, relative size, cells per 640 of a tumour and per 260 of a normal."""

    profile: str
    major: str
    size: float
    tumour: int
    normal: int


KINDS: dict[str, Kind] = {
    "cancer": Kind("", "epithelial", 1.30, 308, 0),
    "luminal_mature_LumHR": Kind("lum_hr", "epithelial", 1.0, 5, 66),
    "luminal_progenitor_LumSec": Kind("lum_sec", "epithelial", 1.0, 5, 58),
    "basal_myoepithelial": Kind("basal", "epithelial", 1.0, 3, 48),
    "t_cd4": Kind("t_cd4", "t_nk", 0.5, 34, 7),
    "t_cd8": Kind("t_cd8", "t_nk", 0.5, 26, 7),
    "nk": Kind("nk", "t_nk", 0.5, 8, 2),
    "b_cell": Kind("b_cell", "b_cell", 0.5, 18, 3),
    "plasmablast": Kind("plasmablast", "plasmablast", 0.9, 8, 1),
    "monocyte_classical": Kind("monocyte", "myeloid", 0.8, 30, 2),
    "macrophage_pan": Kind("macrophage", "myeloid", 1.1, 46, 8),
    "cDC2": Kind("cdc2", "myeloid", 0.9, 6, 1),
    "mast": Kind("mast", "mast", 0.7, 6, 1),
    "endo_arterial_CXCL12": Kind("endo_arterial", "endothelial", 0.8, 22, 11),
    "endo_venous_ACKR1": Kind("endo_venous", "endothelial", 0.8, 28, 11),
    "pvl_differentiated": Kind("pvl", "pvl", 0.8, 30, 14),
    "iCAF": Kind("icaf", "caf", 1.0, 34, 20),
    "myCAF": Kind("mycaf", "caf", 1.0, 23, 0),
}
MYELOID = ("monocyte_classical", "macrophage_pan", "cDC2")

# Rates of the two states of a marker in malignant cells, UMI per 10,000 (science notes: low 0.2, high 3 and 4).
STATES = {"CD44": (0.2, 4.5), "CD24": (0.2, 6.5), "ALDH1A3": (0.1, 6.0)}
# Malignant cells that are not stem-like (CD44+/CD24-): shares of -/-, -/+ and +/+.  The two markers exclude each other.
OTHER_STATES = (0.12, 0.70, 0.18)
ALDH_SHARE = 0.08  # of malignant cells; never in the CD44+/CD24- state
MACROPHAGE_CLASSES = {"m1_like": 0.30, "m2_like": 0.32, "mixed": 0.14, "low": 0.24}
# IL6 by sender, UMI per 10,000, where the ligand is planted.
IL6 = {
    "iCAF": 4.0, "myCAF": 0.8, "endo_venous_ACKR1": 3.0, "pvl_differentiated": 0.5, "macrophage_pan": 0.3,
    "monocyte_classical": 0.3,
}  # fmt: skip
# Genes of malignant cells in the loop, UMI per 10,000: without it, with it in other cells, with it in stem-like cells.
LOOP_GENES = {"IL6R": (0.12, 0.6, 0.6), "CCL2": (0.03, 0.8, 3.0), "CSF1": (0.12, 0.8, 2.5)}
PROGRAMME = {
    "stat3_response": 2.2,  # fold of the response read-outs in stem-like cells where the loop is planted
    "emt": 1.4,  # fold of the EMT set in stem-like cells
    "csc_cycling": 0.4,  # cycling of stem-like cells relative to the others
    "cycle": 12.0,  # fold of phase genes in a cycling cell
    "axis_high": 3.5, "axis_high_max_rate": 25.0, "axis_low": 0.7,  # M1 and M2 sets in macrophages
    "stress_sd": 0.5, "ifn_sd": 0.3,  # sd of the log fold of a cell
    "patient_sd": 0.4, "patient_sd_fixed": 0.1,  # sd of the log fold of a gene in a tumour (housekeeping: fixed)
    "batch_sd": 0.08,  # sd of the log fold of a gene between samples, all types
}  # fmt: skip
SHAPE, SHAPE_STEADY = 3.0, 12.0  # gamma shape of a gene between cells of one state; mitochondrial and ribosomal genes
LIBRARY_SD, MITO_SD, AMBIENT_SD = 0.4, 0.25, 0.2  # log-normal sd between cells
MITO_SHARE = 0.065
DAMAGED_SHARE, DAMAGED_LIBRARY, DAMAGED_MITO = 0.012, 0.35, (0.3, 0.6)  # dying cells: how many, size, range of mito
PLATELET_SHARE = 0.06  # of the library of a contaminated barcode
CHEMISTRY = "10x 3' v3"
BLOCK = 256  # cells made at a time


@dataclass(frozen=True)
class Profiles:
    """Rates per cell type.

    Attributes
    ----------
    types : names of the types
    genes, ensembl : (genes,) symbols and Ensembl ids
    rates : (types, genes) UMI per 10,000
    cytoband : (genes,) such as ``17q12``; ``M`` for mitochondrial genes
    """

    types: tuple[str, ...]
    genes: NDArray[np.object_]
    ensembl: NDArray[np.object_]
    rates: NDArray[np.float64]
    cytoband: NDArray[np.str_]

    def column(self, name: str) -> NDArray[np.float64]:
        """(genes,) rates of a type."""
        out: NDArray[np.float64] = self.rates[self.types.index(name)]
        return out

    def where(self, names: Any) -> NDArray[np.int64]:
        """Positions of the genes that are in the table, ascending."""
        return np.flatnonzero(np.isin(self.genes.astype(str), list(names)))

    def region(self, region: Region) -> NDArray[np.int64]:
        """Positions of the genes of a copy-number region."""
        if "+" in region:
            return self.where(region.split("+"))
        return np.flatnonzero(np.char.startswith(self.cytoband, region))


@dataclass(frozen=True)
class Simulated:
    """One sample: (cells, genes) int32 counts, the truth of each barcode, and the truth of the sample."""

    counts: csr_matrix
    barcodes: NDArray[np.object_]
    cells: pd.DataFrame
    truth: dict[str, Any]


def sample_names(options: Simulate) -> list[dict[str, str]]:
    """Rows of the sample sheet, without writing anything: the workflow needs them when it is parsed.

    Returns
    -------
    list of dict
        ``sample``, ``path`` (relative to the sheet's folder), ``patient``, ``subtype``, ``tissue``, ``treatment``,
        ``chemistry``, ``dataset``.
    """
    return [
        {
            "sample": plan.sample, "path": plan.sample, "patient": plan.sample, "subtype": plan.subtype,
            "tissue": plan.tissue, "treatment": "naive", "chemistry": CHEMISTRY, "dataset": "demo",
        }
        for plan in PLANS
    ]  # fmt: skip


@cache
def profiles() -> Profiles:
    """Read the shipped rates and the positions of their genes; a gene the gene table does not know is left out."""
    import pandas as pd

    from nicheloop import genes, resources

    header, *rows = resources.tsv("demo_profiles.tsv.gz")
    table = genes.table()
    position = table.index.get_indexer(pd.Index([row[0] for row in rows]))
    kept = [(row, p) for row, p in zip(rows, position, strict=True) if p >= 0]
    cytoband = table["chromosome"].str.removeprefix("chr") + table["band"].fillna("")
    names, at = [row[0] for row, _ in kept], [p for _, p in kept]
    return Profiles(
        types=tuple(header[1:]),
        genes=np.array(names, dtype=object),
        ensembl=table["ensembl_id"].to_numpy(dtype=object)[at],
        rates=np.array([row[1:] for row, _ in kept], dtype=np.float64).T,
        cytoband=cytoband.fillna("").to_numpy(dtype=str)[at],
    )


def composition(plan: Plan, n_cells: int) -> dict[str, int]:
    """Cells of each kind, adding up to `n_cells` (largest remainder)."""
    normal = plan.tissue == "normal"
    shares = {name: kind.normal if normal else kind.tumour for name, kind in KINDS.items()}
    if plan.without_macrophages:
        shares.update(dict.fromkeys(MYELOID, 0))
    exact = np.array(list(shares.values()), dtype=np.float64) * n_cells / sum(shares.values())
    whole = np.floor(exact).astype(int)
    order = np.argsort(-(exact - whole), kind="stable")
    whole[order[: n_cells - whole.sum()]] += 1
    return {name: int(n) for name, n in zip(shares, whole, strict=True) if n}


def copy_numbers(plan: Plan, table: Profiles) -> NDArray[np.float64]:
    """(clones, genes) copies; 2 where nothing happened."""
    out = np.full((max(len(plan.clones), 1), len(table.genes)), 2.0)
    for clone, events in enumerate(plan.clones or ((),)):
        for region, copies in (*plan.trunk, *events):
            where = table.region(region)
            if not len(where):
                raise ValueError(f"{plan.sample}: no gene lies in the copy-number region {region!r}")
            out[clone, where] = copies
    return out


def describe_clones(plan: Plan) -> str:
    """Copy-number events in words: ``trunk 1q:3,8q:4; A 12p:3; B 13q:1``."""
    parts = [("trunk", plan.trunk), *((chr(65 + i), events) for i, events in enumerate(plan.clones))]
    return "; ".join(f"{name} " + ",".join(f"{r}:{c}" for r, c in events) for name, events in parts if events)


def _cells(plan: Plan, kinds: NDArray[np.object_], csc_fraction: float, rng: np.random.Generator) -> pd.DataFrame:
    """State of each cell: type, clone, marker states, macrophage class, phase of the cycle."""
    import pandas as pd

    n = len(kinds)
    malignant = kinds == "cancer"
    fraction = min(csc_fraction * plan.csc_factor, 1.0)
    weights = np.array([fraction, *(np.array(OTHER_STATES) * (1 - fraction))])
    state = rng.choice(4, n, p=weights)  # m_csc, -/-, -/+, +/+
    csc = malignant & (state == 0)
    eligible = malignant & ~csc
    aldh = eligible & (rng.random(n) < min(ALDH_SHARE / max(1 - fraction, ALDH_SHARE), 1.0))
    clone = np.array([chr(65 + i) for i in rng.integers(0, max(len(plan.clones), 1), n)], dtype=object)
    tam = rng.choice(np.array(list(MACROPHAGE_CLASSES), dtype=object), n, p=list(MACROPHAGE_CLASSES.values()))
    cycling = np.where(malignant, plan.cycling, 0.02) * np.where(csc, PROGRAMME["csc_cycling"], 1.0)
    phase = np.where(rng.random(n) < cycling, rng.choice(np.array(["G1S", "G2M"], dtype=object), n), "none")
    return pd.DataFrame(
        {
            "cell_type": [KINDS[k].major for k in kinds],
            "cell_type_minor": kinds,
            "malignant": malignant,
            "clone": np.where(malignant, clone, "NA"),
            "csc_state": np.where(malignant, np.where(csc, "m_csc", "other"), "NA"),
            "cd44_high": malignant & ((state == 0) | (state == 3)),
            "cd24_high": malignant & (state >= 2),
            "aldh1a3_high": aldh,
            "tam_class": np.where(kinds == "macrophage_pan", tam, "not_macrophage"),
            "phase": phase,
        }
    )


def _effects(
    plan: Plan, cells: pd.DataFrame, table: Profiles, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Design (cells, effects) and log folds (effects, genes); a cell's log fold is their product."""
    from nicheloop import genes

    sets = {name: table.where(s.genes) for name, s in genes.signatures().items()}
    n, n_genes = len(cells), len(table.genes)
    malignant = cells["malignant"].to_numpy()
    columns: list[NDArray[np.float64]] = []
    folds: list[NDArray[np.float64]] = []

    def add(column: Any, where: NDArray[np.int64], fold: Any) -> None:
        row = np.zeros(n_genes)
        row[where] = fold
        columns.append(np.asarray(column, dtype=np.float64))
        folds.append(row)

    everywhere = np.arange(n_genes)
    steady = _steady(table)
    add(np.ones(n), everywhere, rng.normal(0, PROGRAMME["batch_sd"], n_genes))
    sd = np.where(steady, PROGRAMME["patient_sd_fixed"], PROGRAMME["patient_sd"])
    add(malignant, everywhere, rng.normal(0, 1, n_genes) * sd)
    for i, copies in enumerate(copy_numbers(plan, table)):
        add(malignant & (cells["clone"] == chr(65 + i)).to_numpy(), everywhere, np.log(copies / 2))
    add(rng.normal(0, PROGRAMME["stress_sd"], n), sets["STRESS"], 1.0)
    add(rng.normal(0, PROGRAMME["ifn_sd"], n), sets["IFN"], 1.0)
    for phase in ("G1S", "G2M"):
        add(cells["phase"] == phase, sets[phase], np.log(PROGRAMME["cycle"]))
    csc = (cells["csc_state"] == "m_csc").to_numpy()
    add(csc, sets["EMT_malignant"], np.log(PROGRAMME["emt"]))
    if plan.loop == "all":
        response = np.union1d(sets["STAT3_core"], sets["IL6_STAT3_leaveout"])
        add(csc, response, np.log(PROGRAMME["stat3_response"]))
    base = table.column("macrophage")
    low = np.log(PROGRAMME["axis_low"]) / np.log(PROGRAMME["axis_high"])
    for name, classes in {"M1": ("m1_like", "mixed"), "M2": ("m2_like", "mixed")}.items():
        where = sets[name]
        room = PROGRAMME["axis_high_max_rate"] / np.maximum(base[where], 1e-6)
        fold = np.log(np.clip(room, 1.3, PROGRAMME["axis_high"]))
        macrophage = (cells["tam_class"] != "not_macrophage").to_numpy()
        add(np.where(cells["tam_class"].isin(classes), 1.0, low) * macrophage, where, fold)
    return np.stack(columns, axis=1).astype(np.float32), np.stack(folds).astype(np.float32)


def _steady(table: Profiles) -> NDArray[np.bool_]:
    """(genes,) mitochondrial and ribosomal protein genes, which vary little from cell to cell."""
    return np.array([g.startswith(("MT-", "RPL", "RPS")) for g in table.genes])


def _planted(plan: Plan, cells: pd.DataFrame) -> list[tuple[str, NDArray[np.float64]]]:
    """Gene and (cells,) rate in UMI per 10,000, NaN where the profile's own rate stays."""
    malignant, csc = cells["malignant"].to_numpy(), (cells["csc_state"] == "m_csc").to_numpy()
    out = []
    for gene, column in {"CD44": "cd44_high", "CD24": "cd24_high", "ALDH1A3": "aldh1a3_high"}.items():
        low, high = STATES[gene]
        out.append((gene, np.where(malignant, np.where(cells[column], high, low), np.nan)))
    for gene, (without, other, stem) in LOOP_GENES.items():
        rate = np.where(csc, stem, other) if plan.loop == "all" else np.full(len(cells), without)
        out.append((gene, np.where(malignant, rate, np.nan)))
    if plan.loop != "none":
        out.append(("IL6", cells["cell_type_minor"].map(IL6).to_numpy(dtype=np.float64)))
    return out


def simulate_sample(plan: Plan, table: Profiles, *, options: Simulate, seed: int) -> Simulated:
    """Simulate one sample; pure: the same arguments give the same counts.

    The expected share of gene g in cell c is  rate(type, g) x folds(c, g) / sum,  mitochondrial genes scaled to the
    cell's own share; counts are Poisson with mean  library x (1 - ambient) x share x Gamma(shape, 1/shape).  Doublets
    add a second cell, ambient RNA is drawn from the library-weighted mean of all cells of the sample.

    Parameters
    ----------
    plan
        What the sample is made of.
    table
        Rates and positions, as from `profiles`.
    options
        Section ``simulate`` of the configuration.
    seed
        Seed; the sample's name is mixed in, so samples do not depend on each other.

    Returns
    -------
    Simulated
        (cells, genes) counts, barcodes, truth per barcode and per sample.
    """
    from scipy import sparse

    rng = np.random.default_rng([seed, zlib.crc32(plan.sample.encode())])
    n = options.cells_per_normal if plan.tissue == "normal" else options.cells_per_tumour
    n_doublets = round(options.doublet_rate * n)
    names = np.array([name for name, k in composition(plan, n).items() for _ in range(k)], dtype=object)
    # Barcodes first, then the second cells of the doublets.
    kinds = np.concatenate([rng.permutation(names), rng.choice(names, n_doublets)])
    cells = _cells(plan, kinds, options.csc_fraction, rng)
    design, folds = _effects(plan, cells, table, rng)
    planted = [(int(w[0]), rate) for gene, rate in _planted(plan, cells) if len(w := table.where([gene]))]

    order = rng.permutation(n)
    doublets, rest = order[:n_doublets], order[n_doublets:]
    n_damaged = round(DAMAGED_SHARE * n)
    damaged, platelets = rest[:n_damaged], rest[n_damaged : n_damaged + plan.platelet_barcodes]
    target = options.shallow_umi if plan.shallow else options.median_umi
    library = np.array([KINDS[k].size for k in kinds]) * rng.lognormal(0, LIBRARY_SD, len(kinds))
    library *= target / np.median(library[:n])
    library[damaged] *= DAMAGED_LIBRARY
    mito_share = np.clip(MITO_SHARE * rng.lognormal(0, MITO_SD, len(kinds)), 0.005, 0.2)
    mito_share[damaged] = rng.uniform(*DAMAGED_MITO, n_damaged)
    ambient_share = np.minimum(options.ambient_fraction * rng.lognormal(-(AMBIENT_SD**2) / 2, AMBIENT_SD, n), 0.9)

    rows = np.array([table.types.index(KINDS[k].profile or plan.profile) for k in kinds])
    mito = np.array([g.startswith("MT-") for g in table.genes])
    steady = np.flatnonzero(_steady(table))
    partner = np.full(n, -1)
    partner[doublets] = np.arange(n, n + n_doublets)

    def shares(of: NDArray[np.int64]) -> NDArray[np.float64]:
        """Give the (cells, genes) expected share of each gene in the RNA of the cells."""
        mean: NDArray[np.float64] = table.rates[rows[of]] * np.exp(design[of] @ folds)
        total_mito = mean[:, mito].sum(axis=1)
        nuclear = (1 - mito_share[of]) / (mean.sum(axis=1) - total_mito)
        mean *= np.where(mito, (mito_share[of] / total_mito)[:, None], nuclear[:, None])
        for gene, rate in planted:
            mean[:, gene] = np.where(np.isnan(rate[of]), mean[:, gene], rate[of] / 1e4)
        return mean

    pool = np.zeros(len(table.genes))
    blocks = []
    for start in range(0, n, BLOCK):
        first = np.arange(start, min(start + BLOCK, n))
        second = partner[first]
        second = second[second >= 0]
        of = np.concatenate([first, second])
        mean = shares(of) * library[of][:, None]
        pool += mean.sum(axis=0)
        noise = rng.standard_gamma(SHAPE, mean.shape, dtype=np.float32) / np.float32(SHAPE)
        noise[:, steady] = rng.standard_gamma(SHAPE_STEADY, (len(of), len(steady))) / SHAPE_STEADY
        mean *= noise
        mean[np.flatnonzero(partner[first] >= 0)] += mean[len(first) :]
        mean = mean[: len(first)] * (1 - ambient_share[first])[:, None]
        blocks.append(sparse.csr_matrix(rng.poisson(mean).astype(np.int32)))
    counts = sparse.vstack(blocks, format="csr")

    full = library[:n] + np.where(partner >= 0, library[partner], 0.0)
    ambient = _draw(pool, rng.poisson(full * ambient_share), rng)
    counts = counts + ambient
    if len(platelets):
        n_platelet = np.zeros(n, dtype=np.int64)
        n_platelet[platelets] = rng.poisson(PLATELET_SHARE * full[platelets])
        counts = counts + _draw(table.column("platelet"), n_platelet, rng)
    counts.sort_indices()

    barcodes = _barcodes(n, rng)
    truth = cells.iloc[:n].copy()
    truth.insert(0, "sample", plan.sample)
    truth.insert(0, "cell_id", [f"{plan.sample}:{b}" for b in barcodes])
    truth["doublet"] = partner >= 0
    truth["doublet_with"] = np.where(partner >= 0, kinds[partner], "NA")
    truth["damaged"] = np.isin(np.arange(n), damaged)
    truth["platelet"] = np.isin(np.arange(n), platelets)
    truth["n_umi"] = np.asarray(counts.sum(axis=1)).ravel().astype(np.int64)
    malignant = truth["malignant"].to_numpy()
    summary = {
        "sample": plan.sample,
        "patient": plan.sample,
        "subtype": plan.subtype,
        "tissue": plan.tissue,
        "loop_planted": "yes" if plan.loop == "all" else "no",
        "il6_planted": "no" if plan.loop == "none" else "yes",
        "csc_fraction": float((truth["csc_state"] == "m_csc").sum() / malignant.sum()) if malignant.any() else np.nan,
        "csc_fraction_expected": min(options.csc_fraction * plan.csc_factor, 1.0) if malignant.any() else np.nan,
        "aldh1a3_fraction": float(truth.loc[malignant, "aldh1a3_high"].mean()) if malignant.any() else np.nan,
        "clone_events": describe_clones(plan) or "NA",
        "shallow": "yes" if plan.shallow else "no",
        "without_macrophages": "yes" if plan.without_macrophages else "no",
        "ambient_fraction": float(ambient.sum() / counts.sum()),
        "n_cells": n,
        "n_malignant": int(malignant.sum()),
        "n_doublets": n_doublets,
        "n_platelet_barcodes": len(platelets),
        "median_umi": float(truth["n_umi"].median()),
    }
    return Simulated(counts, barcodes, truth, summary)


def _draw(profile: NDArray[np.float64], totals: NDArray[np.int64], rng: np.random.Generator) -> csr_matrix:
    """(cells, genes) counts of `totals` molecules per cell drawn from one profile."""
    from scipy import sparse

    cumulative = np.cumsum(profile / profile.sum())
    gene = np.minimum(np.searchsorted(cumulative, rng.random(int(totals.sum())), side="right"), len(profile) - 1)
    cell = np.repeat(np.arange(len(totals)), totals)
    ones = np.ones(len(gene), dtype=np.int32)
    return sparse.coo_matrix((ones, (cell, gene)), shape=(len(totals), len(profile))).tocsr()


def _barcodes(n: int, rng: np.random.Generator) -> NDArray[np.object_]:
    """(n,) distinct 16-base barcodes in alphabetic order, as in 10x files."""
    bases = np.array(list("ACGT"))
    found: set[str] = set()
    while len(found) < n:
        found.update("".join(row) + "-1" for row in bases[rng.integers(0, 4, (n - len(found), 16))])
    return np.array(sorted(found), dtype=object)


def _write_gz(path: Path, data: bytes) -> None:
    """Write gzip with no name and no time inside: the same content gives the same bytes."""
    from nicheloop import io

    with io.atomic(path) as temporary:
        temporary.write_bytes(gzip.compress(data, compresslevel=1, mtime=0))


def write_10x(folder: Path, counts: csr_matrix, barcodes: Any, symbols: Any, ensembl: Any) -> None:
    """Write (cells, genes) counts as a 10x v3 folder: genes are rows and cells are columns of ``matrix.mtx.gz``."""
    import io as streams

    from scipy import io as sio
    from scipy import sparse

    cells = sparse.csr_matrix(counts)
    column = np.repeat(np.arange(cells.shape[0], dtype=np.int32), np.diff(cells.indptr))
    matrix = sparse.coo_matrix((cells.data, (cells.indices, column)), shape=(cells.shape[1], cells.shape[0]))
    stream = streams.BytesIO()
    sio.mmwrite(stream, matrix, field="integer", symmetry="general")
    folder.mkdir(parents=True, exist_ok=True)
    _write_gz(folder / "matrix.mtx.gz", stream.getvalue())
    _write_gz(folder / "barcodes.tsv.gz", "".join(f"{b}\n" for b in barcodes).encode())
    lines = (f"{e or s}\t{s}\tGene Expression\n" for s, e in zip(symbols, ensembl, strict=True))
    _write_gz(folder / "features.tsv.gz", "".join(lines).encode())


def run_simulate(out_dir: str | Path, *, options: Simulate, seed: int) -> None:
    """Write the demo cohort: 10x folders, ``samples.tsv``, ``truth_cells.tsv.gz`` and ``truth_samples.tsv``."""
    import pandas as pd

    from nicheloop import io

    out = Path(out_dir)
    table = profiles()
    cells, samples = [], []
    for plan in PLANS:
        simulated = simulate_sample(plan, table, options=options, seed=seed)
        write_10x(out / plan.sample, simulated.counts, simulated.barcodes, table.genes, table.ensembl)
        cells.append(simulated.cells)
        samples.append(simulated.truth)
    text = pd.concat(cells).to_csv(sep="\t", index=False, lineterminator="\n")
    _write_gz(out / "truth_cells.tsv.gz", text.encode())
    tsv: dict[str, Any] = {"sep": "\t", "index": False, "na_rep": "NA", "lineterminator": "\n"}
    io.write_text(out / "truth_samples.tsv", pd.DataFrame(samples).to_csv(float_format="%.6g", **tsv))
    io.write_text(out / "samples.tsv", pd.DataFrame(sample_names(options)).to_csv(**tsv))
