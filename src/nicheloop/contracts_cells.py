"""Contracts of what each cell is: quality, map, types, copy number, receptors."""

from __future__ import annotations

from nicheloop.contracts import CELL, GENE, MAJOR_TYPES, MALIGNANCY, PATIENT, SAMPLE, Column, declare, probability

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
    "neighbors", "cohort/neighbors.parquet", "nearest other cells of every kept cell in the integrated components",
    ["cell_id"],
    CELL, SAMPLE,
    Column(r"neighbor_\d+", "int", "the cell, as a row of this table (first: 0); nearest first", "row", "there are no more",
           low=0, pattern=True),
)  # fmt: skip
declare(
    "cell_types", "cohort/cell_types.parquet", "type of every kept cell", ["cell_id"],
    CELL, SAMPLE,
    Column("cluster", "str", "leiden cluster"),
    Column("cell_type", "str", "major type", allowed=MAJOR_TYPES),
    Column("cell_type_minor", "str", "minor type where the evidence supports one, else the major type"),
    probability("confidence", "posterior of the type given (of the best one where unresolved)"),
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
    "composition", "cohort/composition.tsv", "cells per sample and type", ["sample", "cell_type"],
    PATIENT, SAMPLE,
    Column("cell_type", "str", "major type; epithelial split by malignancy"),
    Column("n_cells", "int", "cells", "cells", low=0),
    Column("fraction", "float", "share of the sample's kept cells", "fraction", "sample without cells", low=0, high=1),
)  # fmt: skip
