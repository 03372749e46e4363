"""The table contracts: what every output holds, in which unit, and what NA means.

A contract is declared once, here.  `conform` casts and checks a table against it before it is written, and
``docs/outputs.md`` is generated from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nicheloop.errors import NicheloopError

if TYPE_CHECKING:
    import pandas as pd

MAJOR_TYPES = (
    "epithelial", "t_nk", "b_cell", "plasmablast", "myeloid", "mast", "endothelial", "caf", "pvl", "adipocyte",
    "erythrocyte", "platelet", "unresolved",
)  # fmt: skip
MALIGNANCY = ("malignant", "normal", "unassigned", "not_epithelial")
CSC_READOUT_STATES = ("m_csc", "aldh1a3")
CSC_STATES = ("m_csc", "other", "undetermined", "not_assessable")
ALDH_STATES = ("high", "low", "undetermined", "not_assessable")
TAM_CLASSES = ("m1_like", "m2_like", "mixed", "low", "transitional", "not_macrophage", "not_assessable")
MYELOID_CLASSES = ("macrophage", "monocyte", "transitional", "dendritic", "neutrophil", "not_myeloid", "not_assessable")
AXIS_STATUSES = (
    "tested", "ligand_not_detected", "receptor_not_detected", "gene_absent_from_reference", "too_few_cells",
    "platelet_contamination", "ambient_not_exceeded", "no_counts",
)  # fmt: skip

SCREEN_STATUSES = ("tested", "gene_absent_from_reference", "too_few_cells", "below_threshold", "single_type")

Kind = Literal["str", "int", "float", "bool"]
DTYPES = {"str": "string", "int": "Int64", "float": "float64", "bool": "boolean"}


class ContractError(NicheloopError):
    """A table does not keep its contract: a fault of the program, not of the user."""


@dataclass(frozen=True)
class Column:
    """One column: its kind, meaning, unit, what NA means (empty: NA is not allowed) and its allowed values."""

    name: str
    kind: Kind
    what: str
    unit: str = "-"
    na: str = ""
    allowed: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    pattern: bool = False  # the name is a regular expression; any number of columns may match


@dataclass(frozen=True)
class Contract:
    """One table: where it lies below the results folder, what a row is, its key and its columns."""

    name: str
    path: str
    what: str
    key: tuple[str, ...]
    columns: tuple[Column, ...] = field(default=())
    optional: bool = False  # written only where the configuration asks for it


CELL = Column("cell_id", "str", "<sample>:<barcode>")
SAMPLE = Column("sample", "str", "sample name")
PATIENT = Column("patient", "str", "patient (the unit of every test)")
GENE = Column("gene", "str", "current HGNC symbol")
SUBTYPE = Column("subtype", "str", "subtype of the sheet, else the one inferred from RNA", na="unknown")
SUBTYPE_SOURCE = Column(
    "subtype_source", "str", "where the subtype is from", na="unknown", allowed=("sheet", "inferred")
)


def _prob(name: str, what: str, na: str = "") -> Column:
    return Column(name, "float", what, "probability", na, low=0.0, high=1.0)


CONTRACTS: dict[str, Contract] = {}


def declare(name: str, path: str, what: str, key: Iterable[str], *columns: Column, optional: bool = False) -> None:
    """Add one contract to the registry; a name can stand for one table only."""
    if name in CONTRACTS:
        raise ValueError(f"the contract {name!r} is declared twice: {CONTRACTS[name].path} and {path}")
    CONTRACTS[name] = Contract(name, path, what, tuple(key), columns, optional)


# ---------------------------------------------------------------------------------------------------- per sample
declare(
    "qc", "samples/{sample}/qc.parquet", "every barcode of the input, kept or dropped, with the reason", ["cell_id"],
    CELL,
    Column("n_counts", "float", "library size", "UMI", low=0),
    Column("n_genes", "int", "genes with a count", "genes", low=0),
    Column("pct_mito", "float", "counts in mitochondrial genes", "percent", "no mitochondrial gene in the matrix", low=0, high=100),
    Column("pct_ribo", "float", "counts in ribosomal protein genes", "percent", "no such gene in the matrix", low=0, high=100),
    Column("pct_hb", "float", "counts in haemoglobin genes", "percent", "no such gene in the matrix", low=0, high=100),
    Column("doublet_score", "float", "scrublet score", "-", "already dropped, or doublets not assessed (see status)"),
    Column("doublet", "bool", "predicted doublet", "-", "already dropped, or doublets not assessed (see status)"),
    Column("qc_pass", "bool", "kept for all later stages"),
    Column("qc_reason", "str", "why it was dropped; first filter that fails", allowed=(
        "pass", "low_counts", "low_genes", "high_mito", "doublet")),
)  # fmt: skip
declare(
    "moments", "samples/{sample}/moments.parquet", "mean and variance of normalised expression over kept cells", ["gene"],
    GENE,
    Column("n_cells", "int", "kept cells", "cells", low=0),
    Column("n_positive", "int", "kept cells with a count", "cells", low=0),
    Column("mean", "float", "mean of counts per 10,000", "counts per 10,000", low=0),
    Column("variance", "float", "sample variance (n - 1) of counts per 10,000", "squared", "fewer than two cells", low=0),
)  # fmt: skip
declare(
    "evidence", "samples/{sample}/evidence.parquet", "marker evidence of every kept cell", ["cell_id"],
    CELL,
    Column(r"z_(major|minor|state)_.+", "float", "marker score against expression-matched null", "z",
           "set not measurable (too few genes in the matrix)", pattern=True),
    Column(r"llr_(major|minor)_.+", "float", "log likelihood of the cell's marker counts if it is of the type, minus that if they are "
           "ambient RNA", "nats", "no marker of the type in the matrix", pattern=True),
    Column(r"n_(major|minor)_.+", "float", "positive markers seen, of the type or its minor types; of platelets and "
           "erythrocytes only those no other type makes", "genes", "no marker of the type in the matrix", pattern=True),
    Column("annotation_input", "str", "annotation found in the input", na="none in the input"),
)  # fmt: skip
declare(
    "ambient", "samples/{sample}/ambient.parquet", "composition of the sample's ambient RNA", ["gene"],
    GENE,
    Column("ambient_fraction", "float", "share of the ambient pool", "fraction", low=0, high=1),
    Column("contamination_rate", "float", "share of a cell's counts that is ambient (one value per sample)", "fraction",
           "not estimated (see status)", low=0, high=1),
    Column("pool", "str", "what the composition is taken from", allowed=("cells", "empty_droplets")),
)  # fmt: skip
declare(
    "profiles", "samples/{sample}/profiles.parquet", "summed expression per cell type", ["gene", "cell_type"],
    GENE,
    Column("cell_type", "str", "major type", allowed=MAJOR_TYPES),
    Column("n_cells", "int", "cells of the type", "cells", low=1),
    Column("n_positive", "int", "of them with a count", "cells", low=0),
    Column("sum_counts", "float", "summed counts", "UMI", low=0),
    Column("mean_lognorm", "float", "mean of log1p counts per 10,000", "log1p counts per 10,000", low=0),
)  # fmt: skip
declare(
    "malignancy", "samples/{sample}/malignancy.parquet", "three-way call of every kept cell", ["cell_id"],
    CELL,
    Column("malignancy", "str", "call", allowed=MALIGNANCY),
    Column("malignancy_status", "str", "why: rung of the reference ladder, or what prevented a call"),
    Column("cna_value", "float", "copy-number signal along the tumour's own profile: 0 none, 1 a typical malignant cell",
           "share", "not computed for this cell, or no aneuploid group"),
    Column("cna_correlation", "float", "correlation with the tumour's own profile, the cell itself left out", "-",
           "not computed for this cell", low=-1, high=1),
    Column("clone", "int", "clone by copy-number profile, 1 = largest", "-", "not malignant", low=1),
)  # fmt: skip
declare(
    "cnv", "samples/{sample}/cnv.parquet", "mean copy-number profile per group", ["group", "chromosome", "start"],
    Column("group", "str", "clone_<n>, normal_epithelium, unassigned_epithelium, caf (negative control) or reference"),
    Column("n_cells", "int", "cells of the group", "cells", low=1),
    Column("chromosome", "str", "chromosome, chr1 to chr22"),
    Column("start", "int", "start of the window", "bp (hg38)", low=0),
    Column("end", "int", "end of the window", "bp (hg38)", low=0),
    Column("arm", "str", "chromosome arm, such as 1q"),
    Column("value", "float", "mean log ratio to the reference", "log ratio"),
)  # fmt: skip
declare(
    "scores", "samples/{sample}/scores.parquet", "gene-set scores within the cell's own compartment, and marker counts",
    ["cell_id"],
    CELL,
    Column("compartment", "str", "malignant, malignant_mixed (holds RNA of a cell of another type), or the major type"),
    Column("n_counts", "float", "library size", "UMI", low=0),
    Column("foreign_share", "float", "share of a malignant cell's RNA that would have to come from a cell of another type",
           "fraction", "not malignant, or no counts", low=0, high=1),
    Column(r"z_.+", "float", "set against expression-matched null of the compartment", "z",
           "set or compartment not measurable", pattern=True),
    Column(r"level_.+", "float", "mean of log1p counts per 10,000 over the genes of the set: one scale for all cells and samples",
           "log1p counts per 10,000", "too few genes of the set in the matrix", low=0, pattern=True),
    Column(r"umi_.+", "float", "counts of one gene", "UMI", "gene absent from this reference", low=0, pattern=True),
)  # fmt: skip
declare(
    "csc", "samples/{sample}/csc.parquet", "cancer stem cell states of malignant cells", ["cell_id"],
    CELL,
    _prob("m_csc_prob", "P(CD44 high, CD24 low | counts)", "not malignant or not assessable"),
    Column("csc_state", "str", "CD44+/CD24- state", allowed=CSC_STATES),
    Column("csc_status", "str", "why a cell is not assessable; 'ok' otherwise"),
    Column("cd24_informative", "bool", "a CD24-high cell of this depth would show it", "-", "not malignant or rates not estimated"),
    _prob("aldh1a3_prob", "P(ALDH1A3 high | counts)", "not malignant or not assessable"),
    _prob("aldh1a3_lp_prob", "the same, adjusted for luminal-progenitor likeness", "not malignant or not assessable"),
    Column("aldh1a3_state", "str", "ALDH1A3 state (RNA, not enzyme activity)", allowed=ALDH_STATES),
    Column("aldh1a3_status", "str", "why a cell is not assessable; 'ok' otherwise"),
)  # fmt: skip
declare(
    "csc_pairs", "samples/{sample}/csc_pairs.parquet", "CD44 and CD24, and pairs of genes like them, by the same model",
    ["first", "second"],
    Column("first", "str", "CD44 or its stand-in: like it in mean and detection, on another chromosome arm"),
    Column("second", "str", "CD24 or its stand-in"),
    Column("observed", "bool", "the pair CD44 and CD24 itself"),
    Column("fraction", "float", "weight of first high, second low", "fraction", low=0, high=1),
    Column("log_odds", "float", "log odds ratio of high and high, half a cell added to each state", "log"),
)  # fmt: skip
declare(
    "csc_readouts", "samples/{sample}/csc_readouts.parquet",
    "read-outs of cells in a CSC state against other malignant cells, raw and adjusted", ["state", "readout", "adjustment"],
    Column("state", "str", "the state", allowed=CSC_READOUT_STATES),
    Column("readout", "str", "gene set or gene; none defines a state"),
    Column("adjustment", "str", "what the state is adjusted for; all: everything but the cell cycle"),
    Column("status", "str", "tested, or why not"),
    Column("reason", "str", "the status in words, with numbers"),
    Column("n_high", "int", "cells in the state", "cells", low=0),
    Column("n_low", "int", "other malignant cells with a call", "cells", low=0),
    Column("n_genes", "int", "genes of the read-out in the matrix", "genes", low=0),
    Column("effect", "float", "mean log expression in the state less that of other cells", "log1p counts per 10,000", "not tested"),
    Column("null_mean", "float", "mean effect of random sets of like expression and detection", "log1p counts per 10,000", "not tested"),
    Column("null_sd", "float", "their standard deviation", "log1p counts per 10,000", "not tested", low=0),
    Column("null_low", "float", "their 2.5 % quantile", "log1p counts per 10,000", "not tested"),
    Column("null_high", "float", "their 97.5 % quantile", "log1p counts per 10,000", "not tested"),
    Column("se", "float", "standard deviation of the effect under permuted states", "log1p counts per 10,000", "not tested", low=0),
    _prob("p_sets", "two-sided, against matched random sets", "not tested"),
    _prob("p_label", "two-sided, against permuted states (Freedman-Lane)", "not tested"),
    _prob("p", "the larger of the two", "not tested"),
)  # fmt: skip
declare(
    "csc_draws", "samples/{sample}/csc_draws.parquet", "effects of the matched random sets of each unadjusted read-out", ["what", "draw"],
    Column("what", "str", "<state> <readout>"),
    Column("draw", "int", "number of the random set", low=0),
    Column("value", "float", "its effect", "log1p counts per 10,000"),
)  # fmt: skip
declare(
    "tam", "samples/{sample}/tam.parquet", "macrophage states of myeloid cells", ["cell_id"],
    CELL,
    Column("myeloid_class", "str", "monocyte, macrophage or other", allowed=MYELOID_CLASSES),
    Column("m1_z", "float", "clean M1 set against matched null in the sample's own myeloid cells: ranks cells of a sample, not "
           "comparable between patients", "z", "not a macrophage or not assessable"),
    Column("m2_z", "float", "clean M2 set likewise: not comparable between patients", "z", "not a macrophage or not assessable"),
    Column("tam_class", "str", "2 x 2 class of the two axes", allowed=TAM_CLASSES),
    Column("tam_status", "str", "why a cell is not assessable; 'ok' otherwise"),
    Column("tam_state", "str", "dominant Ma 2022 state by margin, else 'mixed'", na="not a macrophage or not assessable"),
    Column("foreign_share", "float", "share of RNA that would have to come from a cell of another type", "fraction", "no counts", low=0, high=1),
    Column("m1_z_adjusted", "float", "m1_z beyond interferon and stress", "z", "as m1_z, or neither is measurable"),
    Column("m2_z_adjusted", "float", "m2_z likewise", "z", "as m2_z, or neither is measurable"),
    Column("tam_class_adjusted", "str", "class by the adjusted z", allowed=TAM_CLASSES),
)  # fmt: skip
declare(
    "tam_draws", "samples/{sample}/tam_draws.parquet", "correlation of M1 and M2 over macrophages, and of matched random sets",
    ["adjustment", "draw"],
    Column("adjustment", "str", "beyond depth, or beyond depth, interferon and stress", allowed=("depth", "adjusted")),
    Column("draw", "int", "number of the pair of random sets; -1 is M1 and M2", low=-1),
    Column("value", "float", "Spearman correlation", "-", low=-1, high=1),
)  # fmt: skip
declare(
    "crosstalk", "samples/{sample}/crosstalk.parquet", "every axis x sender x receiver, testable or not",
    ["axis", "ligand", "receptor", "sender", "receiver"],
    Column("axis", "str", "axis of resources/axes.yaml"),
    Column("arm", "str", "role of the axis: forward, return, autocrine, niche, positive_control or decoy"),
    Column("ligand", "str", "ligand gene"),
    Column("receptor", "str", "receptor; subunits of a complex joined by '+'"),
    Column("sender", "str", "sending cell type"),
    Column("receiver", "str", "receiving cell type"),
    Column("status", "str", "tested, or what prevented it", allowed=AXIS_STATUSES),
    Column("reason", "str", "the status in words, with numbers"),
    Column("n_sender", "int", "sender cells (platelet barcodes left out)", "cells", low=0),
    Column("n_receiver", "int", "receiver cells", "cells", low=0),
    Column("ligand_umi", "float", "ligand counts in senders", "UMI", "gene absent", low=0),
    Column("ligand_fraction", "float", "senders with the ligand", "fraction", "gene absent or no cells", low=0, high=1),
    Column("ligand_upper", "float", "upper confidence bound of that fraction (rule of three at zero)", "fraction",
           "gene absent or no cells", low=0, high=1),
    Column("ligand_ambient_umi", "float", "ligand counts expected from ambient RNA", "UMI", "ambient not estimated", low=0),
    Column("receptor_umi", "float", "counts of the least expressed subunit in receivers", "UMI", "gene absent", low=0),
    Column("receptor_fraction", "float", "receivers with the least expressed subunit", "fraction", "gene absent or no cells",
           low=0, high=1),
    Column("receptor_upper", "float", "upper confidence bound of that fraction", "fraction", "gene absent or no cells",
           low=0, high=1),
    Column("receptor_ambient_umi", "float", "counts of that subunit expected from ambient RNA", "UMI",
           "ambient not estimated", low=0),
    Column("n_platelet", "int", "platelet barcodes of the sample", "cells", low=0),
    Column("n_neutrophil", "int", "neutrophils of the sample", "cells", low=0),
    Column("strength", "float", "geometric mean of ambient-corrected ligand and complex", "counts per 10,000", "not tested", low=0),
    Column("log2_effect", "float", "log2 of strength over its mean under permuted labels; not comparable between samples of "
           "different composition", "log2 fold", "not tested"),
    Column("log2_se", "float", "standard error of log2 strength from the spread between cells", "log2", "not tested", low=0),
    Column("z", "float", "strength against permuted labels; grows with cells, not comparable between patients", "z", "not tested"),
    _prob("p_label", "permutation of type labels within the sample, the floor applied in each; calibrated for 'tested and "
          "significant', not among tested rows", "not tested"),
    _prob("p_pair", "expression-matched gene pairs", "not tested"),
    _prob("p_decoy", "measurable secreted x membrane pairs without a recorded interaction, between the same populations",
          "not tested, or the matrix holds too few secreted and membrane genes; 1 where too few are measurable"),
    _prob("p", "the largest of the three", "not tested"),
    _prob("q", "Benjamini-Hochberg over the rows of the sample that could have been tested (others of them with p = 1), within "
          "claims, positive controls or decoys", "not tested"),
    _prob("q_usual", "the same from p_label and p_pair alone: specific to its types, as unrelated proteins are as well", "not tested"),
    Column("specificity", "float", "log2 of ligand in senders and receptor in receivers over the other types, every type counting "
           "once; 0: no more than elsewhere", "log2 fold", "not tested, or no other type with enough cells"),
    Column("specificity_se", "float", "its standard error from the spread between cells", "log2", "as specificity", low=0),
    Column("matched_status", "str", "status once more at matched_cells cells of matched_depth counts on both sides", na="not tested",
           allowed=("tested", "too_few_cells", "ligand_not_detected", "receptor_not_detected")),
    Column("matched_log2_strength", "float", "log2 strength there", "log2 counts per 10,000", "not tested there"),
    Column("matched_log2_se", "float", "its standard error", "log2", "not tested there", low=0),
)  # fmt: skip
declare(
    "decoy_pairs", "samples/{sample}/decoys.parquet", "expressed secreted x membrane pairs without a recorded interaction, tested",
    ["ligand", "receptor", "sender", "receiver"],
    Column("ligand", "str", "secreted gene"),
    Column("receptor", "str", "membrane gene"),
    Column("sender", "str", "sending cell type"),
    Column("receiver", "str", "receiving cell type"),
    Column("strength", "float", "as in the crosstalk table", "counts per 10,000", low=0),
    _prob("p_label", "permutation of type labels"),
    _prob("p_pair", "expression-matched gene pairs"),
    _prob("p_decoy", "other secreted x membrane pairs between the same populations", "too few such genes"),
    _prob("p_usual", "the larger of p_label and p_pair: what these two alone would say"),
    _prob("p", "the largest of the three, by which axes are judged"),
)  # fmt: skip
declare(
    "screen", "samples/{sample}/screen.parquet", "every pair of a resource between every two cell types (only with screen.resource)",
    ["ligand", "receptor", "sender", "receiver"],
    Column("ligand", "str", "ligand of the resource; subunits of a complex joined by '_'"),
    Column("receptor", "str", "receptor of the resource, likewise"),
    Column("sender", "str", "cell type of the ligand"),
    Column("receiver", "str", "cell type of the receptor"),
    Column("status", "str", "tested, or what prevented it", allowed=SCREEN_STATUSES),
    Column("obstacle", "str", "the absent gene, the type with too few cells, the only type, or the side below the threshold (ligand, receptor, both)",
           na="tested"),
    Column("n_sender", "int", "cells of the sender", "cells", low=0),
    Column("n_receiver", "int", "cells of the receiver", "cells", low=0),
    Column("ligand_fraction", "float", "senders with the least detected subunit of the ligand", "fraction", "gene absent or too few cells",
           low=0, high=1),
    Column("receptor_fraction", "float", "receivers with the least detected subunit of the receptor", "fraction",
           "gene absent or too few cells", low=0, high=1),
    Column("ligand_mean", "float", "mean of the least expressed subunit in senders (strength: less ambient, 0 below the floor)",
           "cellphonedb: log1p counts per 10,000; strength: counts per 10,000", "gene absent or too few cells", low=0),
    Column("receptor_mean", "float", "the same of the receptor in receivers", "as ligand_mean", "gene absent or too few cells", low=0),
    Column("score", "float", "cellphonedb: mean of the two means; strength: their geometric mean", "as ligand_mean", "not tested", low=0),
    Column("n_extreme", "int", "permutations of the type labels that reach the score", "permutations", "not tested", low=0),
    _prob("p", "(n_extreme + 1) / (permutations + 1)", "not tested"),
    _prob("p_upper", "exact upper bound of the p that infinitely many permutations would give", "not tested"),
    _prob("q", "Benjamini-Hochberg over the rows of the sample that could have been tested: those below the threshold as labelled, "
          "but not under every labelling, count with p = 1", "not tested"),
    _prob("q_tested", "Benjamini-Hochberg over the tested rows alone, as other tools give it: expression decided which rows those are, "
          "so it is too small", "not tested"),
    optional=True,
)  # fmt: skip
declare(
    "loop_arms", "samples/{sample}/loop.parquet", "the three arms of the loop", ["axis", "arm"],
    Column("axis", "str", "axis of the forward arm"),
    Column("arm", "str", "A forward, B response of CD44+/CD24- cells, C return; B_aldh1a3: response of ALDH1A3-high cells, the second "
           "label", allowed=("A", "B", "C", "B_aldh1a3")),
    Column("what", "str", "sender, receiver and genes that were tested"),
    Column("status", "str", "tested, or what prevented it"),
    Column("reason", "str", "the status in words, with numbers"),
    Column("effect", "float", "A, C: log2 strength over permuted labels; B: z difference CSC-high minus low", "log2 or z", "not tested"),
    Column("effect_low", "float", "lower end of the interval", "as effect", "not tested"),
    Column("effect_high", "float", "upper end of the interval", "as effect", "not tested"),
    Column("z", "float", "against the arm's null; never compared between patients", "z", "not tested"),
    _prob("p", "A, C: the larger of p_label and p_pair; B: the largest of p_raw, p_stress, p_ifn, p_adjusted and p_beyond_stress", "not tested"),
    _prob("p_label", "permutation of type labels", "not tested or arm B"),
    _prob("p_pair", "expression-matched gene pairs", "not tested or arm B"),
    _prob("p_decoy", "strongest pair against secreted x membrane pairs without a recorded interaction; shown, not part of p",
          "not tested, arm B, or too few such genes in the matrix"),
    Column("effect_stress", "float", "arm B adjusted for stress and library size", "z", "not tested, not arm B or not measurable"),
    Column("effect_ifn", "float", "arm B adjusted for interferon and library size", "z", "not tested, not arm B or not measurable"),
    Column("effect_adjusted", "float", "arm B adjusted for stress, interferon and library size", "z", "not tested or not arm B"),
    _prob("p_raw", "arm B within clone and depth strata", "not tested or not arm B"),
    _prob("p_stress", "arm B adjusted for stress and library size", "as effect_stress"),
    _prob("p_ifn", "arm B adjusted for interferon and library size", "as effect_ifn"),
    _prob("p_adjusted", "arm B adjusted for stress, interferon and library size", "not tested or not arm B"),
    Column("niche_ligand", "float", "factor for the coupling swap: log ligand of the niche (A), log return ligand of malignant cells (C)",
           "log counts per 10,000", "not measurable"),
    Column("response", "float", "factor for the coupling swap: level of the read-out, mean over its genes of log2(1 + pseudobulk "
           "counts per 10,000), in malignant cells (A), in receiving niche cells (C)", "log2 counts per 10,000",
           "too few cells or genes"),
    Column("response_high", "float", "the same in CSC-high (CD44+/CD24-) malignant cells", "log2 counts per 10,000",
           "too few cells or genes, or not arm A"),
    Column("response_aldh1a3", "float", "the same in ALDH1A3-high malignant cells", "log2 counts per 10,000",
           "too few cells or genes, or not arm A"),
    Column("stress_level", "float", "level of the stress genes that are in no read-out and no axis, over all cells: covariate of the "
           "coupling swap", "log2 counts per 10,000", "too few cells or genes, or not arms A and C"),
    Column("effect_beyond_stress", "float", "arm B beyond stress as two halves of its genes show it without their noise", "z",
           "not tested, not arm B, or the halves do not agree"),
    _prob("p_beyond_stress", "the same, with the uncertainty of the slope", "as effect_beyond_stress"),
    _prob("p_stress_differs", "two-sided: stress itself between the labels, within clone and depth", "not tested or not arm B"),
    Column("ambient_rate", "float", "share of ambient RNA: covariate of the coupling swap", "fraction", "not estimated, or not arms A and C"),
)  # fmt: skip
declare(
    "chain", "samples/{sample}/chain.parquet", "levels of the serial niche chain IL1B (TAM), IL1R1 (CAF), IL6 (CAF)", ["step"],
    Column("step", "str", "ligand, receptor or response", allowed=("ligand", "receptor", "response")),
    GENE,
    Column("population", "str", "cells in which it is measured"),
    Column("status", "str", "measured, or what prevented it"),
    Column("reason", "str", "the status in words, with numbers"),
    Column("n_cells", "int", "cells", "cells", low=0),
    Column("umi", "float", "counts", "UMI", "not measured", low=0),
    Column("fraction", "float", "cells with a count", "fraction", "not measured or no cells", low=0, high=1),
    Column("upper", "float", "upper confidence bound of that fraction", "fraction", "not measured or no cells", low=0, high=1),
    Column("ambient_umi", "float", "counts expected from ambient RNA", "UMI", "not measured or not estimated", low=0),
    Column("level", "float", "log2(1 + ambient-corrected counts per 10,000); 0: not seen", "log2 counts per 10,000", "not measured", low=0),
)  # fmt: skip
declare(
    "pseudobulk", "samples/{sample}/pseudobulk.parquet", "summed counts of the contrasted states", ["state", "gene"],
    Column("contrast", "str", "m_csc, aldh1a3 or tam_m2"),
    Column("state", "str", "high or low side of the contrast, as <contrast>_<side>"),
    Column("n_cells", "int", "cells summed", "cells", low=1),
    GENE,
    Column("counts", "float", "summed counts", "UMI", low=0),
)  # fmt: skip

# -------------------------------------------------------------------------------------------------------- cohort
declare(
    "hvg", "cohort/hvg.parquet", "variable genes over samples", ["gene"],
    GENE,
    Column("mean", "float", "mean over samples of the mean", "counts per 10,000", low=0),
    Column("dispersion_norm", "float", "mean over samples of the normalised dispersion", "-", "in no sample"),
    Column("n_samples_variable", "int", "samples in which it is among the variable genes", "samples", low=0),
    Column("variable", "bool", "used for the embedding"),
)  # fmt: skip
declare(
    "embedding", "cohort/embedding.parquet", "coordinates of every kept cell", ["cell_id"],
    CELL, SAMPLE,
    Column(r"pc_\d+", "float", "principal component of log-normalised variable genes", "-", pattern=True),
    Column(r"harmony_\d+", "float", "principal component after integration; equal to pc where nothing was integrated", "-", pattern=True),
    Column(r"umap_[12]", "float", "map of the integrated components", "-", pattern=True),
    Column(r"umap_raw_[12]", "float", "map of the unintegrated components", "-", "not computed (one sample)", pattern=True),
)  # fmt: skip
declare(
    "clusters", "cohort/clusters.parquet", "leiden clusters of every kept cell", ["cell_id"],
    CELL, SAMPLE,
    Column(r"leiden_.+", "str", "cluster at that resolution", pattern=True),
    Column("cluster", "str", "cluster at the chosen (most stable) resolution"),
)  # fmt: skip
declare(
    "cell_types", "cohort/cell_types.parquet", "type of every kept cell", ["cell_id"],
    CELL, SAMPLE,
    Column("cluster", "str", "leiden cluster"),
    Column("cell_type", "str", "major type", allowed=MAJOR_TYPES),
    Column("cell_type_minor", "str", "minor type where the evidence supports one, else the major type"),
    _prob("confidence", "posterior of the type given (of the best one where unresolved)"),
    Column("margin", "float", "winning minus second posterior", "probability", low=0, high=1),
    Column("runner_up", "str", "second best type"),
    Column("cell_type_reason", "str", "why unresolved, or where the type comes from; 'ok' otherwise", allowed=(
        "ok", "low_evidence", "two_lineages", "ambient", "no_cells", "from_input", "label_not_understood")),
    Column("platelet", "bool", "platelet-contaminated barcode: any two platelet genes"),
    Column("cycling", "bool", "state: cycling score z above 2"),
    Column("cell_type_input", "str", "annotation found in the input", na="none in the input"),
)  # fmt: skip
declare(
    "cnv_reference", "cohort/cnv_reference.parquet", "pooled reference expression per chemistry and patient", ["pool", "patient", "gene"],
    Column("pool", "str", "chemistry:<name> (endothelial, PVL, T, B) or normal_epithelium"),
    PATIENT,
    GENE,
    Column("n_cells", "int", "cells pooled", "cells", low=1),
    Column("n_samples", "int", "samples pooled", "samples", low=1),
    Column("mean_lognorm", "float", "mean of log1p counts per 10,000", "log1p counts per 10,000", low=0),
)  # fmt: skip
declare(
    "csc_rates", "cohort/csc_rates.parquet", "rates of the two states per gene and chemistry", ["chemistry", "gene"],
    Column("chemistry", "str", "chemistry group; 'unknown' is its own group"),
    GENE,
    Column("status", "str", "ok, or why rates cannot be given"),
    Column("reason", "str", "the status in words"),
    Column("n_cells", "int", "malignant cells used; samples that one state explains as well are left out", "cells", low=0),
    Column("low", "float", "rate of the low state", "UMI per 10,000", "not estimated", low=0),
    Column("high", "float", "rate of the high state", "UMI per 10,000", "not estimated", low=0),
    Column("shape", "float", "gamma shape within a state", "-", "not estimated", low=0),
    Column("log_low_se", "float", "standard error of the log low rate", "log", "not estimated", low=0),
    Column("log_high_se", "float", "standard error of the log high rate", "log", "not estimated", low=0),
    Column("bic_gain", "float", "BIC of one component minus BIC of two", "BIC", "not estimated"),
    Column("bic_gain_samples", "float", "BIC of one component with a rate per sample minus BIC of two; below 0 samples differ "
           "more than cells within them", "BIC", "not estimated"),
    Column("lp_effect", "float", "log-linear effect of level_LP_covariate on the rate", "log per log1p counts per 10,000",
           "not ALDH1A3, not estimated or level not measurable"),
    Column("lp_effect_se", "float", "its standard error", "as lp_effect", "as lp_effect", low=0),
    Column("lp_centre", "float", "level_LP_covariate at which the rates hold: mean of the malignant cells",
           "log1p counts per 10,000", "as lp_effect"),
)  # fmt: skip
_RECEPTOR_CALLS = ("positive", "negative", "undetermined", "not_measured")


def _marker(name: str, what: str) -> tuple[Column, ...]:
    """Level of a marker in malignant cells with its interval."""
    na = "not counts, too few malignant cells or gene absent"
    return (
        Column(f"{name}_umi", "float", f"counts of {what} in malignant cells", "UMI", na, low=0),
        Column(f"{name}_cpm", "float", "their rate beyond ambient RNA", "counts per million", na, low=0),
        Column(f"{name}_low", "float", "lower end of its interval, cells over-dispersed", "counts per million", na, low=0),
        Column(f"{name}_high", "float", "upper end", "counts per million", na, low=0),
        Column(f"{name}_ambient_cpm", "float", "rate that ambient RNA alone would give", "counts per million",
               f"{na}, or ambient_source none: nothing was taken off", low=0),
    )  # fmt: skip


declare(
    "receptor_status", "cohort/receptor_status.tsv", "receptors in the RNA of malignant cells, and the subtype that strata use",
    ["patient"],
    PATIENT, SAMPLE,
    Column("status", "str", "ok, undetermined, or why the RNA says nothing (too_few_malignant, gene_absent_from_reference, no_counts, "
           "normal_tissue, or that of a sample that was not read)"),
    Column("reason", "str", "the status in words, with numbers"),
    Column("subtype_sheet", "str", "subtype of the sheet", na="unknown"),
    Column("subtype_inferred", "str", "what the RNA says", allowed=("HR+", "HER2+", "TNBC", "undetermined")),
    Column("subtype_used", "str", "the sheet's, else the inferred one in the word the sheet has for it", na="unknown"),
    Column("subtype_source", "str", "where that is from", allowed=("sheet", "inferred", "none")),
    Column("agreement", "str", "sheet and RNA", allowed=("agrees", "differs", "not_compared")),
    Column("er", "str", "oestrogen receptor", allowed=_RECEPTOR_CALLS),
    Column("pr", "str", "progesterone receptor", allowed=_RECEPTOR_CALLS),
    Column("her2", "str", "HER2: ERBB2 with its neighbours, and the amplicon", allowed=_RECEPTOR_CALLS),
    Column("basal", "str", "basal keratins; shown, no part of the subtype", allowed=_RECEPTOR_CALLS),
    Column("her2_amplicon", "str", "amplicon seen by the malignancy stage, over the clones", allowed=(
        "amplified", "some_clones", "not_amplified", "not_measurable")),
    Column("n_malignant", "int", "malignant cells", "cells", low=0),
    Column("total_umi", "float", "all their counts", "UMI", low=0),
    Column("ambient_source", "str", "where the ambient rates are from; the weakest of the markers", allowed=(
        "estimated", "other_cells", "none")),
    *_marker("er", "ESR1"), *_marker("pr", "PGR"), *_marker("erbb2", "ERBB2"),
    *_marker("neighbours", "GRB7, PGAP3, MIEN1 and STARD3"), *_marker("basal", "KRT5, KRT14 and KRT17"),
)  # fmt: skip
declare(
    "csc_patients", "cohort/csc_patients.tsv", "CSC states per patient (one primary sample each; others shown)", ["sample"],
    PATIENT, SAMPLE,
    Column("primary_sample", "bool", "the sample that speaks for the patient"),
    SUBTYPE, SUBTYPE_SOURCE,
    Column("chemistry", "str", "chemistry of the sheet", na="unknown"),
    Column("treatment", "str", "treatment of the sheet", na="unknown"),
    Column("status", "str", "ok, or why there is no fraction"),
    Column("reason", "str", "the status in words, with numbers"),
    Column("n_malignant", "int", "malignant cells that take part", "cells", low=0),
    Column("n_foreign", "int", "malignant cells that hold RNA of a cell of another type: left out", "cells", low=0),
    Column("informative_fraction", "float", "malignant cells informative for CD24", "fraction", "rates not estimated", low=0, high=1),
    Column("median_umi", "float", "median library of malignant cells", "UMI", "no malignant cell", low=0),
    Column("m_csc_fraction", "float", "CD44+/CD24- fraction", "fraction", "not assessable", low=0, high=1),
    Column("m_csc_low", "float", "lower end of its interval, rates refitted", "fraction", "not assessable", low=0, high=1),
    Column("m_csc_high", "float", "upper end", "fraction", "not assessable", low=0, high=1),
    Column("m_csc_wording", "str", "how the fraction may be said", na="not assessable"),
    Column("odds_ratio", "float", "pi_11 pi_00 / (pi_10 pi_01) of CD44 and CD24", "-", "not assessable or not defined", low=0),
    Column("naive_fraction", "float", "CD44>0 and CD24==0, shown to be distrusted", "fraction", "not assessable", low=0, high=1),
    Column("aldh1a3_status", "str", "ok, or why there is no ALDH1A3-high fraction"),
    Column("aldh1a3_fraction", "float", "ALDH1A3-high fraction", "fraction", "not assessable", low=0, high=1),
    Column("aldh1a3_low", "float", "lower end of its interval", "fraction", "not assessable", low=0, high=1),
    Column("aldh1a3_high", "float", "upper end", "fraction", "not assessable", low=0, high=1),
    Column("aldh1a3_lp_fraction", "float", "luminal-progenitor-adjusted fraction", "fraction", "not assessable or level not measurable",
           low=0, high=1),
    Column("aldh1a3_lp_low", "float", "lower end of its interval, the fitted effect held", "fraction", "as aldh1a3_lp_fraction",
           low=0, high=1),
    Column("aldh1a3_lp_high", "float", "upper end", "fraction", "as aldh1a3_lp_fraction", low=0, high=1),
    Column("overlap_fraction", "float", "cells in both states", "fraction", "not assessable", low=0, high=1),
    Column("overlap_expected", "float", "the same under independence", "fraction", "not assessable", low=0, high=1),
    Column("emt_z_csc", "float", "mean EMT z in CSC-high minus other cells", "z", "not assessable"),
    Column("cycling_z_csc", "float", "mean G2M z in CSC-high minus other cells", "z", "not assessable"),
)  # fmt: skip
declare(
    "csc_controls", "cohort/csc_controls.tsv", "what the CSC caller says of cells that cannot be CSC", ["sample", "cell_type"],
    SAMPLE,
    Column("cell_type", "str", "compartment"),
    Column("n_cells", "int", "cells", "cells", low=0),
    Column("fraction_called", "float", "share with P(CD44 high, CD24 low) above the positive cut", "fraction",
           "rates not estimated, gene absent or no cell", low=0, high=1),
)  # fmt: skip
declare(
    "csc_nulls", "cohort/csc_nulls.tsv", "CD44 and CD24 among pairs of genes like them, per sample", ["sample"],
    PATIENT, SAMPLE,
    Column("primary_sample", "bool", "the sample that speaks for the patient"),
    SUBTYPE, SUBTYPE_SOURCE,
    Column("status", "str", "ok, or why there is no null"),
    Column("reason", "str", "the status in words, with numbers"),
    Column("n_pairs", "int", "pairs of stand-ins", "pairs", low=0),
    Column("fraction", "float", "CD44+/CD24- weight (of at most max_null_cells cells)", "fraction", "no null", low=0, high=1),
    Column("null_low", "float", "lower end of the fraction of the pairs", "fraction", "no null", low=0, high=1),
    Column("null_median", "float", "their median", "fraction", "no null", low=0, high=1),
    Column("null_high", "float", "upper end", "fraction", "no null", low=0, high=1),
    _prob("p_fraction", "one-sided: pairs with as large a fraction", "no null"),
    Column("log_odds", "float", "log odds ratio of CD44 high and CD24 high", "log", "no null"),
    Column("odds_low", "float", "lower end of that of the pairs", "log", "no null"),
    Column("odds_median", "float", "their median", "log", "no null"),
    Column("odds_high", "float", "upper end", "log", "no null"),
    _prob("p_odds", "two-sided: pairs that go together or apart as far", "no null"),
)  # fmt: skip
declare(
    "csc_readout_cohort", "cohort/csc_readouts.tsv", "read-outs of the CSC states over patients", ["state", "readout", "adjustment"],
    Column("state", "str", "the state", allowed=CSC_READOUT_STATES),
    Column("readout", "str", "gene set or gene"),
    Column("adjustment", "str", "what the state is adjusted for"),
    Column("status", "str", "ok, or too_few_patients for an interval"),
    Column("n_patients", "int", "patients asked", "patients", low=0),
    Column("n_assessable", "int", "patients tested", "patients", low=0),
    Column("n_up", "int", "of them higher in the state than matched sets", "patients", low=0),
    Column("n_down", "int", "lower", "patients", low=0),
    Column("n_significant", "int", "with p below the level", "patients", low=0),
    Column("effect", "float", "random-effects mean of effect less that of matched sets", "log1p counts per 10,000", "no patient tested"),
    Column("effect_low", "float", "lower end of its interval", "log1p counts per 10,000", "fewer than two patients tested"),
    Column("effect_high", "float", "upper end", "log1p counts per 10,000", "fewer than two patients tested"),
    Column("i2", "float", "share of the variance that lies between patients", "fraction", "fewer than two patients tested", low=0, high=1),
)  # fmt: skip
declare(
    "csc_loci", "cohort/csc_loci.tsv", "scores beside the copy number at their own locus, per clone of each primary tumour",
    ["sample", "score", "gene", "clone"],
    PATIENT, SAMPLE,
    Column("score", "str", "what may follow the copy number"),
    Column("gene", "str", "gene of the locus; its neighbours tell the copy number, never itself"),
    Column("clone", "str", "clone_<n> of the malignancy stage"),
    Column("locus", "str", "band"),
    Column("n_cells", "int", "malignant cells of the clone", "cells", low=1),
    Column("log2", "float", "mean clipped log2 difference of the neighbours", "log2", "not measurable"),
    Column("z", "float", "that, against the spread of all genes", "z", "not measurable"),
    Column("seen", "str", "gain, loss, no_change or not_measurable"),
    Column("mean", "float", "mean score: probability, counts per 10,000 or z", "as the score", "not assessable"),
    Column("se", "float", "its standard error over cells", "as the score", "not assessable", low=0),
)  # fmt: skip
declare(
    "csc_locus_tests", "cohort/csc_locus_tests.tsv", "does a score follow the copy number at its locus", ["score", "gene"],
    Column("score", "str", "score"),
    Column("gene", "str", "gene of the locus"),
    Column("status", "str", "ok, or not_assessable"),
    Column("reason", "str", "what could not be asked", na="everything was asked"),
    Column("n_patients", "int", "tumours with score and copy number", "patients", low=0),
    Column("rho", "float", "Spearman correlation over tumours", "-", "not asked", low=-1, high=1),
    _prob("p", "two-sided, patients permuted", "not asked"),
    Column("n_within", "int", "tumours with clones that differ at the locus", "patients", low=0),
    Column("slope", "float", "score per log2 copy number between clones of a tumour, random-effects mean", "score per log2", "no such tumour"),
    Column("slope_low", "float", "lower end of its interval", "score per log2", "fewer than two such tumours"),
    Column("slope_high", "float", "upper end", "score per log2", "fewer than two such tumours"),
)  # fmt: skip
declare(
    "her2_pten", "cohort/her2_pten.tsv", "HER2, PTEN and IL6 of malignant cells, per tumour sample", ["sample"],
    PATIENT, SAMPLE,
    Column("primary_sample", "bool", "the sample that speaks for the patient"),
    SUBTYPE, SUBTYPE_SOURCE,
    Column("treatment", "str", "treatment of the sheet", na="unknown"),
    Column("status", "str", "ok, or why PTEN cannot be read"),
    Column("reason", "str", "the status in words, with numbers"),
    Column("chemistry", "str", "chemistry of the sheet", na="unknown"),
    Column("n_malignant", "int", "malignant cells", "cells", low=0),
    Column("her2_amplicon", "str", "neighbours of ERBB2 co-high, over the clones", allowed=(
        "amplified", "some_clones", "not_amplified", "not_measurable")),
    Column("pten", "str", "low where expression is low or 10q23.3 is lost", allowed=("low", "not_low", "unknown")),
    Column("pten_umi", "float", "PTEN counts in malignant cells", "UMI", "too few malignant cells or gene absent", low=0),
    Column("pten_rate", "float", "PTEN in malignant cells", "counts per 10,000", "as pten_umi", low=0),
    Column("pten_rate_others", "float", "PTEN in the sample's cells that are not epithelial", "counts per 10,000", "no such cell", low=0),
    Column("pten_ratio", "float", "pten_rate over the median of the other primary tumours of the chemistry", "-",
           "too few other tumours", low=0),
    Column("pten_10q", "str", "10q23.3 in the largest clone: gain, loss, no_change or not_measurable"),
    Column("pten_10q_log2", "float", "its mean clipped log2 difference", "log2", "not measurable"),
    Column("il6", "str", "IL6 in malignant cells against ambient RNA", allowed=(
        "beyond_ambient", "not_beyond_ambient", "ambient_not_estimated", "not_measured")),
    Column("il6_umi", "float", "IL6 counts in malignant cells", "UMI", "as pten_umi", low=0),
    Column("il6_ambient_umi", "float", "counts that ambient RNA alone would give", "UMI", "not estimated", low=0),
    Column("il6_fraction", "float", "malignant cells with IL6", "fraction", "not measured", low=0, high=1),
    Column("il6_upper", "float", "its one-sided 95 % upper bound", "fraction", "not measured", low=0, high=1),
    _prob("il6_p", "Poisson: as many counts from ambient RNA alone", "not measured or ambient not estimated"),
    Column("m_csc_fraction", "float", "CD44+/CD24- fraction", "fraction", "not assessable", low=0, high=1),
    Column("m_csc_low", "float", "lower end", "fraction", "not assessable", low=0, high=1),
    Column("m_csc_high", "float", "upper end", "fraction", "not assessable", low=0, high=1),
    Column("aldh1a3_fraction", "float", "ALDH1A3-high fraction", "fraction", "not assessable", low=0, high=1),
)  # fmt: skip
declare(
    "her2_pten_tests", "cohort/her2_pten_tests.tsv", "PTEN-low against other tumours; the patient is the unit", ["stratum", "outcome"],
    Column("stratum", "str", "HER2-amplified, not amplified, or all"),
    Column("outcome", "str", "m_csc_fraction, aldh1a3_fraction or il6_excess (UMI per malignant cell beyond ambient)"),
    Column("status", "str", "tested, or too_few_patients"),
    Column("reason", "str", "the status in words, with n"),
    Column("n_stratum", "int", "tumours of the stratum", "patients", low=0),
    Column("n_low", "int", "PTEN-low ones with the outcome", "patients", low=0),
    Column("n_other", "int", "others with the outcome", "patients", low=0),
    Column("mean_low", "float", "mean outcome of PTEN-low tumours", "as the outcome", "none"),
    Column("mean_other", "float", "mean outcome of the others", "as the outcome", "none"),
    _prob("p", "two-sided, over divisions of the patients", "not tested"),
)  # fmt: skip
declare(
    "csc_isoforms", "cohort/csc_isoforms.tsv", "ALDH isoforms in malignant cells of each tumour, one by one, never summed",
    ["sample", "isoform"],
    PATIENT, SAMPLE,
    Column("primary_sample", "bool", "the sample that speaks for the patient"),
    SUBTYPE, SUBTYPE_SOURCE,
    Column("isoform", "str", "gene"),
    Column("role", "str", "primary (ALDH1A3), secondary (ALDH1A1) or exploratory"),
    Column("status", "str", "beyond_ambient, ambient_not_exceeded, ambient_not_estimated, not_detected, or why nothing is said"),
    Column("n_malignant", "int", "malignant cells that take part", "cells", low=0),
    Column("umi", "float", "counts in malignant cells", "UMI", "nothing is said", low=0),
    Column("rate", "float", "counts per 10,000 of malignant cells", "UMI per 10,000", "nothing is said", low=0),
    Column("fraction", "float", "malignant cells with a count", "fraction", "nothing is said", low=0, high=1),
    Column("upper", "float", "upper 95 % bound of that share (rule of three where it is 0)", "fraction", "nothing is said", low=0, high=1),
    Column("ambient_umi", "float", "counts that ambient RNA would bring", "UMI", "ambient RNA not estimated", low=0),
    _prob("p", "as many counts from ambient RNA alone, one-sided (Poisson)", "ambient RNA not estimated"),
)  # fmt: skip
declare(
    "csc_subtypes", "cohort/csc_subtypes.tsv", "CSC fractions of a subtype against the other tumours of its chemistry; the patient is the unit",
    ["chemistry", "outcome", "subtype"],
    Column("chemistry", "str", "chemistry of the sheet, or unknown: fractions of different chemistries are not compared"),
    Column("outcome", "str", "m_csc (CD44+/CD24-) or aldh1a3 (ALDH1A3-high)"),
    Column("subtype", "str", "subtype"),
    Column("status", "str", "tested, or too_few_patients"),
    Column("reason", "str", "the status in words, with n"),
    Column("n_subtype", "int", "tumours of the subtype with a fraction", "patients", low=0),
    Column("n_others", "int", "other tumours with a fraction", "patients", low=0),
    Column("n_inferred", "int", "tumours of both sides whose subtype is inferred", "patients", low=0),
    Column("fraction", "float", "random-effects mean of the subtype, from logits", "fraction", "no tumour", low=0, high=1),
    Column("fraction_low", "float", "lower end of its interval", "fraction", "fewer than two tumours", low=0, high=1),
    Column("fraction_high", "float", "upper end", "fraction", "fewer than two tumours", low=0, high=1),
    Column("others_fraction", "float", "the mean of the others", "fraction", "no tumour", low=0, high=1),
    Column("odds_ratio", "float", "odds of the state, subtype over others", "-", "not tested", low=0),
    Column("odds_low", "float", "lower end of its interval", "-", "not tested", low=0),
    Column("odds_high", "float", "upper end", "-", "not tested", low=0),
    _prob("p", "two-sided, over divisions of the patients", "not tested"),
)  # fmt: skip
declare(
    "tam_patients", "cohort/tam_patients.tsv", "macrophages per patient (one primary sample each; others shown)", ["sample"],
    PATIENT, SAMPLE,
    Column("primary_sample", "bool", "the sample that speaks for the patient"),
    SUBTYPE, SUBTYPE_SOURCE,
    Column("status", "str", "ok, or why macrophages are not assessed"),
    Column("reason", "str", "the status in words, with numbers"),
    Column("n_myeloid", "int", "myeloid cells", "cells", low=0),
    Column("n_macrophage", "int", "macrophages", "cells", low=0),
    Column("n_monocyte", "int", "monocytes", "cells", low=0),
    Column("m1_median", "float", "median M1 z, relative to the sample's own myeloid cells: not comparable between patients", "z",
           "not assessable"),
    Column("m2_median", "float", "median M2 z, likewise not comparable between patients", "z", "not assessable"),
    Column("m1_level", "float", "median level_M1 of macrophages: one scale for all samples, moves with detection",
           "log1p counts per 10,000", "not assessable or too few genes of the set", low=0),
    Column("m2_level", "float", "median level_M2 of macrophages, likewise", "log1p counts per 10,000",
           "not assessable or too few genes of the set", low=0),
    Column("fraction_m1_like", "float", "M1-like macrophages, by z within the sample: not comparable between patients (so the other "
           "fractions)", "fraction", "not assessable", low=0, high=1),
    Column("fraction_m2_like", "float", "M2-like macrophages", "fraction", "not assessable", low=0, high=1),
    Column("fraction_mixed", "float", "both axes high", "fraction", "not assessable", low=0, high=1),
    Column("fraction_low", "float", "neither axis high", "fraction", "not assessable", low=0, high=1),
    Column("n_foreign", "int", "macrophages and transitional cells that hold RNA of another type: left out", "cells", low=0),
    Column(r"fraction_(m1_like|m2_like|mixed|low)_adjusted", "float", "the same class beyond interferon and stress", "fraction",
           "not assessable", low=0, high=1, pattern=True),
    Column(r"fraction_(m1_like|m2_like|mixed|low)_z.+", "float", "the same class at another cut", "fraction", "not assessable",
           low=0, high=1, pattern=True),
    Column("m1_m2_rho", "float", "Spearman correlation of the axes beyond depth", "-", "not assessable", low=-1, high=1),
    Column("rho_null_low", "float", "lower end of that of matched random sets", "-", "not assessable", low=-1, high=1),
    Column("rho_null_median", "float", "their median", "-", "not assessable", low=-1, high=1),
    Column("rho_null_high", "float", "upper end", "-", "not assessable", low=-1, high=1),
    _prob("p_rho", "two-sided, among matched random sets", "not assessable"),
    Column("m1_m2_rho_adjusted", "float", "beyond depth, interferon and stress", "-", "not assessable", low=-1, high=1),
    Column("rho_adjusted_null_median", "float", "median of matched random sets", "-", "not assessable", low=-1, high=1),
    _prob("p_rho_adjusted", "two-sided, among matched random sets", "not assessable"),
)  # fmt: skip
declare(
    "tam_markers", "cohort/tam_markers.tsv", "single macrophage genes, shown and not summed", ["sample", "gene"],
    SAMPLE, GENE,
    Column("status", "str", "ok, gene_absent or too_few_macrophages"),
    Column("n_macrophage", "int", "macrophages with a class", "cells", low=0),
    Column("rate", "float", "expression", "counts per 10,000", "not measured", low=0),
    Column("fraction", "float", "macrophages with a count", "fraction", "not measured", low=0, high=1),
    Column("upper", "float", "its one-sided 95 % upper bound", "fraction", "not measured", low=0, high=1),
)  # fmt: skip
declare(
    "tam_cohort", "cohort/tam_cohort.tsv", "correlation of M1 and M2 over patients, by Fisher's z", ["adjustment"],
    Column("adjustment", "str", "beyond depth, or beyond depth, interferon and stress", allowed=("depth", "adjusted")),
    Column("status", "str", "ok, or too_few_patients for an interval"),
    Column("n_patients", "int", "patients", "patients", low=0),
    Column("n_assessable", "int", "with a correlation", "patients", low=0),
    Column("rho", "float", "random-effects mean correlation", "-", "no patient", low=-1, high=1),
    Column("rho_low", "float", "lower end of its interval", "-", "fewer than two patients", low=-1, high=1),
    Column("rho_high", "float", "upper end", "-", "fewer than two patients", low=-1, high=1),
    Column("excess", "float", "Fisher z less that of matched random sets", "Fisher z", "no patient"),
    Column("excess_low", "float", "lower end of its interval", "Fisher z", "fewer than two patients"),
    Column("excess_high", "float", "upper end", "Fisher z", "fewer than two patients"),
    Column("i2", "float", "share of the variance of the excess between patients", "fraction", "fewer than two patients", low=0, high=1),
)  # fmt: skip
declare(
    "axes", "cohort/axes.tsv", "every axis x sender x receiver over patients", ["axis", "sender", "receiver"],
    Column("axis", "str", "axis"),
    Column("arm", "str", "role of the axis"),
    Column("sender", "str", "sending cell type"),
    Column("receiver", "str", "receiving cell type"),
    Column("n_patients", "int", "patients", "patients", low=0),
    Column("n_assessable", "int", "patients in whom it was tested", "patients", low=0),
    Column("n_significant", "int", "of them with q below alpha (labels, matched pairs and decoys)", "patients", low=0),
    Column("n_significant_usual", "int", "of them with q_usual below alpha (labels and matched pairs alone)", "patients", low=0),
    Column("status", "str", "ok, too_few_patients, or the commonest obstacle"),
    Column("reason", "str", "the status in words: how many patients with which obstacle"),
    Column("effect", "float", "random-effects mean of log2 strength: a level; 0 has no meaning", "log2 counts per 10,000",
           "fewer than two assessable patients"),
    Column("effect_low", "float", "lower end of its interval", "log2 counts per 10,000", "fewer than two assessable patients"),
    Column("effect_high", "float", "upper end", "log2 counts per 10,000", "fewer than two assessable patients"),
    Column("effect_loo_low", "float", "smallest mean when one patient is left out", "log2 counts per 10,000", "fewer than three"),
    Column("effect_loo_high", "float", "largest", "log2 counts per 10,000", "fewer than three"),
    Column("specificity", "float", "random-effects mean of the balanced specificity; 0: no more than in other types", "log2 fold",
           "fewer than two patients with one"),
    Column("specificity_low", "float", "lower end of its interval", "log2 fold", "as specificity"),
    Column("specificity_high", "float", "upper end", "log2 fold", "as specificity"),
    Column("specificity_loo_low", "float", "smallest mean when one patient is left out", "log2 fold", "fewer than three"),
    Column("specificity_loo_high", "float", "largest", "log2 fold", "fewer than three"),
    Column("sign_changes", "int", "patients without whom the sign of the specificity would change", "patients", "fewer than three", low=0),
    Column("i2", "float", "share of the spread of strength that is between patients", "fraction", "fewer than two", low=0, high=1),
    Column("detectable_specificity", "float", "smallest specificity that this cohort's interval would tell from 0 with 80 % power",
           "log2 fold", "as specificity", low=0),
    Column("detectable_rho", "float", "smallest correlation found with 80 % power in the assessable patients", "-",
           "fewer than four", low=0, high=1),
    Column("n_matched", "int", "patients in whom it is tested at equal cells and depth", "patients", low=0),
    Column("effect_matched", "float", "mean log2 strength at equal cells and depth", "log2 counts per 10,000", "fewer than two"),
    Column("effect_matched_low", "float", "lower end of its interval", "log2 counts per 10,000", "fewer than two"),
    Column("effect_matched_high", "float", "upper end", "log2 counts per 10,000", "fewer than two"),
    Column("power", "str", "what this number of patients could show, in words"),
    Column("max_upper_ligand", "float", "largest upper bound of the ligand's fraction where it was not detected", "fraction", "detected everywhere or never measurable", low=0, high=1),
    Column("max_upper_receptor", "float", "the same for the receptor", "fraction", "detected everywhere or never measurable", low=0, high=1),
)  # fmt: skip
declare(
    "axis_subtypes", "cohort/axis_subtypes.tsv", "axes by subtype of the tumour", ["axis", "sender", "receiver", "subtype"],
    Column("axis", "str", "axis"),
    Column("sender", "str", "sending cell type"),
    Column("receiver", "str", "receiving cell type"),
    Column("subtype", "str", "subtype of the sheet, else the one inferred from RNA; unknown_subtype where neither says"),
    Column("n_patients", "int", "patients of the subtype", "patients", low=0),
    Column("n_inferred", "int", "of them with an inferred subtype", "patients", low=0),
    Column("n_assessable", "int", "of them with a tested pair", "patients", low=0),
    Column("n_significant", "int", "of them with q below alpha", "patients", low=0),
    Column("effect", "float", "random-effects mean of log2 strength", "log2 counts per 10,000", "fewer than two assessable"),
    Column("effect_low", "float", "lower end of its interval", "log2 counts per 10,000", "fewer than two assessable"),
    Column("effect_high", "float", "upper end", "log2 counts per 10,000", "fewer than two assessable"),
    Column("specificity", "float", "random-effects mean of the balanced specificity", "log2 fold", "fewer than two assessable"),
    Column("specificity_low", "float", "lower end of its interval", "log2 fold", "fewer than two assessable"),
    Column("specificity_high", "float", "upper end", "log2 fold", "fewer than two assessable"),
)  # fmt: skip
declare(
    "axis_controls", "cohort/axis_controls.tsv", "positive controls: positive where their cells exist?",
    ["control", "receptor", "sender", "receiver"],
    Column("control", "str", "control, as ligand-receptor"),
    Column("axis", "str", "axis it is taken from"),
    Column("ligand", "str", "ligand gene"),
    Column("receptor", "str", "receptor; subunits joined by '+'"),
    Column("sender", "str", "sending cell type"),
    Column("receiver", "str", "receiving cell type"),
    Column("n_patients", "int", "patients", "patients", low=0),
    Column("n_with_cells", "int", "of them with enough cells on both sides and the genes in the reference", "patients", low=0),
    Column("n_tested", "int", "of them with a tested pair", "patients", low=0),
    Column("n_significant", "int", "of them with p at most alpha", "patients", low=0),
    _prob("p", "binomial: so many significant if each had the level's chance, all patients with cells counted", "none with cells"),
    Column("verdict", "str", "positive, not positive, or not assessable", allowed=("positive", "not positive", "not assessable")),
    Column("reason", "str", "in words, with what prevented the others"),
)  # fmt: skip
declare(
    "decoys", "cohort/decoys.tsv", "matched decoys: how many are significant, per patient and over the cohort (last row)", ["patient"],
    Column("patient", "str", "patient; 'cohort' for all"),
    Column("sample", "str", "sample that speaks for the patient; 'cohort' for all"),
    Column("status", "str", "ok, too_few_decoys, or what stopped the sample"),
    Column("reason", "str", "the status in words, with numbers"),
    Column("n_tested", "int", "decoys tested", "pairs", low=0),
    Column("n_significant", "int", "of them with p at most alpha", "pairs", low=0),
    Column("fraction", "float", "their share", "fraction", "too few decoys", low=0, high=1),
    Column("fraction_low", "float", "lower end of its interval (cohort: widened by the spread between samples)", "fraction",
           "too few decoys", low=0, high=1),
    Column("fraction_high", "float", "upper end", "fraction", "too few decoys", low=0, high=1),
    Column("n_significant_usual", "int", "decoys that labels and expression-matched pairs alone would call significant", "pairs", low=0),
    Column("fraction_usual", "float", "their share", "fraction", "too few decoys", low=0, high=1),
    _prob("p_excess", "binomial: so many or more at a true share of alpha", "too few decoys"),
    Column("verdict", "str", "whether the share is within the level"),
)  # fmt: skip
declare(
    "agreement", "cohort/agreement.tsv", "the screen beside liana's cellphonedb (only after `nicheloop agreement`)", ["sample", "pairs"],
    SAMPLE,
    Column("pairs", "str", "pairs without or with a complex", allowed=("single_gene", "complex")),
    Column("status", "str", "ok, or why the sample could not be compared"),
    Column("n_ours", "int", "rows tested here", "rows", low=0),
    Column("n_liana", "int", "rows liana gives", "rows", low=0),
    Column("n_common", "int", "rows of both", "rows", low=0),
    Column("max_score_difference", "float", "largest absolute difference of the score", "log1p counts per 10,000", "no common row", low=0),
    Column("mean_p_difference", "float", "mean of our share of permutations that reach the score minus liana's", "probability",
           "no common row", low=-1, high=1),
    Column("max_p_difference", "float", "largest absolute difference of these shares", "probability", "no common row", low=0, high=1),
    Column("z_above_2", "float", "rows whose shares differ by more than 1.96 standard errors; about 0.05 or less if only the drawn "
           "permutations differ", "fraction", "no common row", low=0, high=1),
    Column("max_z", "float", "largest such difference", "standard errors", "no common row", low=0),
    Column("same_call", "float", "rows on the same side of 0.05 in both", "fraction", "no common row", low=0, high=1),
    optional=True,
)  # fmt: skip
declare(
    "loop", "cohort/loop.tsv", "loop of every patient: three arms or the reason there is no answer", ["patient", "axis"],
    PATIENT, SAMPLE,
    SUBTYPE, SUBTYPE_SOURCE,
    Column("axis", "str", "axis of the forward arm"),
    Column("status", "str", "assessable, which arm prevented it, or not_primary_tumour (in no cohort claim)"),
    Column("verdict", "str", "about one patient no more than this is said", allowed=(
        "all three arms present", "not present", "not assessable")),
    Column("reason", "str", "in words"),
    _prob("p_a", "forward arm", "not assessable"),
    _prob("p_b", "response arm", "not assessable"),
    _prob("p_c", "return arm", "not assessable"),
    _prob("p", "intersection-union: the largest of the three", "not assessable"),
    Column("score", "float", "smallest of the three z; not comparable between patients", "z", "not assessable"),
    Column("aldh1a3_status", "str", "the same with ALDH1A3-high cells as label"),
    Column("aldh1a3_verdict", "str", "the same", allowed=("all three arms present", "not present", "not assessable")),
    Column("aldh1a3_reason", "str", "in words"),
    _prob("p_b_aldh1a3", "response arm of ALDH1A3-high cells", "not assessable"),
    _prob("p_aldh1a3", "intersection-union with that arm", "not assessable"),
    Column("aldh1a3_score", "float", "smallest of the three z; not comparable between patients", "z", "not assessable"),
)  # fmt: skip
declare(
    "loop_cohort", "cohort/loop_cohort.tsv", "what may be said of the cohort", ["axis"],
    Column("axis", "str", "axis of the forward arm"),
    Column("n_patients", "int", "patients", "patients", low=0),
    Column("n_assessable", "int", "patients with all three arms measured", "patients", low=0),
    Column("n_present", "int", "of them with all three arms present", "patients", low=0),
    Column("status", "str", "ok, too_few_patients or not_assessable"),
    Column("n_asked", "int", "patients whose forward arm had its cells, measurable or not: trials of p_present", "patients", low=0),
    Column("present_low", "float", "lower end of the interval of the share with all three arms", "fraction", "none assessable", low=0, high=1),
    Column("present_high", "float", "upper end", "fraction", "none assessable", low=0, high=1),
    _prob("p_present", "binomial: so many patients with three arms at the level of the test", "none assessable"),
    _prob("q", "largest of p_present and the coupling swaps, raw and adjusted, Benjamini-Hochberg over axes", "too few patients or not swapped"),
    Column("wording", "str", "the sentence that may be said"),
    Column("detectable_rho", "float", "smallest correlation found with 80 % power in the assessable patients", "-", "fewer than four",
           low=0, high=1),
    Column("coupling_forward", "float", "mean product of niche ligand and response, standardised in strata", "-", "not enough patients"),
    _prob("p_forward", "pairing permuted within subtype and data set", "not enough patients"),
    Column("coupling_return", "float", "mean product of return ligand and niche response", "-", "not enough patients"),
    _prob("p_return", "pairing permuted within subtype and data set", "not enough patients"),
    Column(r"p_(forward|forward_high|forward_aldh1a3|return)_adjusted", "float", "the same swap of what stress and ambient RNA of the "
           "patients leave of both factors; a claim needs both below the level", "-", "not enough patients beyond strata and slopes",
           low=0, high=1, pattern=True),
    Column(r"null_(forward|forward_high|forward_aldh1a3|return)_(low|median|high)", "float", "2.5 %, median and 97.5 % of the swapped pairings",
           "-", "not enough patients", pattern=True),
    Column(r"n_swapped_(forward|forward_high|forward_aldh1a3|return)", "int", "patients in strata that were swapped", "patients",
           low=0, pattern=True),
    Column("coupling_forward_high", "float", "as coupling_forward, response of CSC-high cells", "-", "not enough patients"),
    _prob("p_forward_high", "pairing permuted within subtype and data set", "not enough patients"),
    Column("coupling_forward_aldh1a3", "float", "as coupling_forward, response of ALDH1A3-high cells", "-", "not enough patients"),
    _prob("p_forward_aldh1a3", "pairing permuted within subtype and data set", "not enough patients"),
    Column("aldh1a3_n_assessable", "int", "patients with all three arms measured, ALDH1A3-high cells as label", "patients", low=0),
    Column("aldh1a3_n_present", "int", "of them with all three arms present", "patients", low=0),
    Column("aldh1a3_status", "str", "ok, too_few_patients or not_assessable"),
    Column("aldh1a3_present_low", "float", "lower end of the interval of that share", "fraction", "none assessable", low=0, high=1),
    Column("aldh1a3_present_high", "float", "upper end", "fraction", "none assessable", low=0, high=1),
    _prob("aldh1a3_p_present", "binomial, as p_present", "none assessable"),
    _prob("aldh1a3_q", "as q, a family of its own", "too few patients or not swapped"),
    Column("aldh1a3_wording", "str", "the sentence that may be said"),
    Column("strata", "str", "strata and their sizes; those too small are named"),
)  # fmt: skip
declare(
    "chains", "cohort/chains.tsv", "the serial niche chain over patients: IL1B (TAM), IL1R1 (CAF), IL6 (CAF)", ["link"],
    Column("link", "str", "chain: ligand and receptor together with the response; then each alone", allowed=("chain", "ligand", "receptor")),
    Column("what", "str", "genes and populations"),
    Column("n_patients", "int", "patients", "patients", low=0),
    Column("n_assessable", "int", "of them with all levels measured", "patients", low=0),
    Column("n_swapped", "int", "of them in strata that were swapped", "patients", low=0),
    Column("status", "str", "ok, too_few_patients or not_assessable"),
    Column("rho", "float", "Spearman correlation of levels standardised within subtype and data set, over swapped patients", "-",
           "no stratum large enough", low=-1, high=1),
    Column("rho_low", "float", "lower end of its interval", "-", "no stratum large enough, or all ranks agree", low=-1, high=1),
    Column("rho_high", "float", "upper end", "-", "as rho_low", low=-1, high=1),
    Column("coupling", "float", "mean product of the standardised levels", "-", "no stratum large enough"),
    _prob("p", "pairing permuted within subtype and data set", "no stratum large enough"),
    Column("strata", "str", "strata and their sizes; those too small are named"),
    Column("detectable_rho", "float", "smallest correlation found with 80 % power", "-", "fewer than four", low=0, high=1),
    Column("wording", "str", "the sentence that may be said"),
)  # fmt: skip
declare(
    "de", "cohort/de.tsv", "pseudobulk contrast within patients", ["contrast", "gene"],
    Column("contrast", "str", "m_csc, aldh1a3 or tam_m2"),
    Column("status", "str", "ok, or why it was not done"),
    Column("reason", "str", "the status in words"),
    Column("gene", "str", "current HGNC symbol; '-' where the contrast was not done"),
    Column("circular", "bool", "the gene defines the contrast: it differs by construction"),
    Column("n_patients", "int", "patients with both states", "patients", low=0),
    Column("mean_counts", "float", "mean normalised counts", "counts", "not done", low=0),
    Column("log2_fold_change", "float", "high against low state", "log2 fold", "not done"),
    Column("statistic", "float", "Wald statistic", "-", "not done"),
    _prob("p", "Wald test, patients as replicates", "not done or outlier"),
    _prob("q", "Benjamini-Hochberg within the contrast", "not done or filtered"),
)  # fmt: skip
declare(
    "enrichment", "cohort/enrichment.tsv", "prerank enrichment of the contrasts", ["contrast", "gene_set"],
    Column("contrast", "str", "m_csc, aldh1a3 or tam_m2"),
    Column("status", "str", "ok, or why it was not done"),
    Column("reason", "str", "the status in words"),
    Column("gene_set", "str", "gene set; '-' where the contrast was not done"),
    Column("size", "int", "genes of the set in the ranking", "genes", "not done", low=0),
    Column("nes", "float", "normalised enrichment score", "-", "not done"),
    _prob("p", "gseapy prerank, gene permutation: a ranking, not a test between patients", "not done"),
    _prob("q", "gseapy's FDR, at least the smallest p its permutations can give", "not done"),
    Column("leading_edge", "str", "leading genes, joined by ';'", na="not done"),
)  # fmt: skip
declare(
    "composition", "cohort/composition.tsv", "cells per sample and type", ["sample", "cell_type"],
    PATIENT, SAMPLE,
    Column("cell_type", "str", "major type; epithelial split by malignancy"),
    Column("n_cells", "int", "cells", "cells", low=0),
    Column("fraction", "float", "share of the sample's kept cells", "fraction", "sample without cells", low=0, high=1),
)  # fmt: skip
declare(
    "status", "cohort/status.tsv", "what every stage could and could not do for every sample", ["stage", "sample"],
    Column("stage", "str", "stage"),
    Column("sample", "str", "sample; 'cohort' for gather stages"),
    Column("status", "str", "ok, or the named reason"),
    Column("reason", "str", "in words, with numbers"),
    Column("summary", "str", "figures of the stage as JSON"),
)  # fmt: skip
declare(
    "samples", "cohort/samples.tsv", "one row per sample: sheet, ingest figures and feature guards", ["sample"],
    SAMPLE, PATIENT,
    Column(r"(?!sample$|patient$).+", "str", "sheet columns, counts of features and cells, guards", "-", "unknown", pattern=True),
)  # fmt: skip


declare(
    "facts", "cohort/facts.tsv", "what papers state of the public data sets used, against what was read", ["dataset", "fact"],
    Column("dataset", "str", "name in the catalogue"),
    Column("fact", "str", "id of the fact in the catalogue"),
    Column("claim", "str", "in words"),
    Column("expected", "str", "as published"),
    Column("found", "str", "as read"),
    Column("result", "str", "not_checked: only some of its samples were chosen, or one of them could not be read",
           allowed=("pass", "differ", "not_checked")),
    Column("severity", "str", "hard: a difference means other data than described; soft: worth a look", allowed=("hard", "soft")),
    Column("source", "str", "where the fact stands"),
    optional=True,
)  # fmt: skip


def _series(values: pd.Series, column: Column, table: str) -> pd.Series:
    import pandas as pd

    try:
        if column.kind in ("int", "float"):
            values = pd.to_numeric(values)
        out = values.astype(DTYPES[column.kind])
    except (TypeError, ValueError) as err:
        raise ContractError(f"table '{table}', column '{values.name}': not {column.kind}: {err}") from None
    return out.astype("float64") if column.kind == "float" else out


def schema(name: str, columns: Iterable[str]) -> Any:
    """Build the pandera schema of a contract for a table with these columns."""
    import pandera.pandas as pa

    checks = {}
    for column_name in columns:
        column = column_of(name, column_name)
        rules = []
        if column.allowed:
            rules.append(pa.Check.isin(column.allowed))
        if column.low is not None:
            rules.append(pa.Check.ge(column.low))
        if column.high is not None:
            rules.append(pa.Check.le(column.high))
        checks[column_name] = pa.Column(DTYPES[column.kind], checks=rules, nullable=bool(column.na))
    return pa.DataFrameSchema(checks, unique=list(CONTRACTS[name].key), strict=True)


def column_of(name: str, column_name: str) -> Column:
    """Return the contract's column that a table column belongs to."""
    import re

    contract = CONTRACTS[name]
    for column in contract.columns:
        if column.name == column_name or (column.pattern and re.fullmatch(column.name, column_name)):
            return column
    raise ContractError(f"table '{name}': column '{column_name}' is not in its contract.")


def conform(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Cast a table to its contract and check it.

    Parameters
    ----------
    table
        Rows in any column order; the index is dropped.
    name
        Key of `CONTRACTS`.

    Returns
    -------
    A new table with the contract's column order and dtypes.

    Raises
    ------
    ContractError
        On a missing or unknown column, a wrong type or value, an NA that is not allowed or a repeated key.
    """
    import pandas as pd
    import pandera.errors

    contract = CONTRACTS[name]
    missing = [c.name for c in contract.columns if not c.pattern and c.name not in table.columns]
    if missing:
        raise ContractError(f"table '{name}': missing columns {missing}.")
    rank = {id(c): i for i, c in enumerate(contract.columns)}
    order = sorted(table.columns, key=lambda c: rank[id(column_of(name, c))])
    out = pd.DataFrame({c: _series(table[c], column_of(name, c), name) for c in order}).reset_index(drop=True)
    try:
        schema(name, order).validate(out, lazy=True)
    except pandera.errors.SchemaErrors as err:
        cases = err.failure_cases.head(5)[["column", "check", "failure_case"]].to_string(index=False)
        raise ContractError(f"table '{name}' breaks its contract:\n{cases}") from None
    return out


def empty(name: str) -> pd.DataFrame:
    """A table of the contract without rows (pattern columns are left out)."""
    import pandas as pd

    columns = [c for c in CONTRACTS[name].columns if not c.pattern]
    return pd.DataFrame({c.name: pd.Series([], dtype=DTYPES[c.kind]) for c in columns})


def outputs_markdown() -> str:
    """Text of ``docs/outputs.md``."""
    lines = [
        "# Outputs",
        "",
        "Generated from `src/nicheloop/tables.py` by `nicheloop outputs --write`. Paths are below the results folder.",
        "Parquet tables carry the stage's status in their metadata; the same is in `cohort/status.tsv`.",
    ]
    for contract in CONTRACTS.values():
        lines += ["", f"## `{contract.path}`", "", f"{contract.what[0].upper()}{contract.what[1:]}. "]
        lines[-1] += f"Key: {', '.join(f'`{k}`' for k in contract.key)}."
        lines += ["", "| column | type | what | unit | allowed | NA means |", "|---|---|---|---|---|---|"]
        for c in contract.columns:
            label = f"`{c.name}`" + (" (pattern)" if c.pattern else "")
            bounds = f"{'' if c.low is None else f'{c.low:g}'} to {'' if c.high is None else f'{c.high:g}'}"
            allowed = ", ".join(c.allowed) or ("" if c.low is None and c.high is None else bounds)
            cells = [label, c.kind, c.what, c.unit, allowed, c.na or "not allowed"]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
