"""Options of the malignancy stage."""

from __future__ import annotations

from nicheloop.config_options import Section, option


class Malignancy(Section):
    """Malignant, normal or unassigned epithelium from inferred copy number."""

    min_reference_cells: int = option(
        100, "reference cells of the same sample for the first rung", unit="cells", why="stable reference mean", ge=5
    )
    few_reference_cells: int = option(
        30, "reference cells of the same sample for the second rung", unit="cells", why="still usable, flagged", ge=5
    )
    min_null_cells: int = option(
        20,
        "normal cells of the sample, of any type but CAF, that set the cuts when the reference is pooled",
        unit="cells",
        why="a fresh normal cell exceeds the largest of 20 in 1 of 21 cases; with fewer the error rate is unknown",
        ge=5,
    )
    min_epithelial_cells: int = option(
        10, "fewest epithelial cells to be called", unit="cells", why="two populations cannot be told apart", ge=1
    )
    window: int = option(100, "genes in the sliding window", unit="genes", why="infercnvpy's default", ge=10)
    step: int = option(10, "step of the sliding window", unit="genes", why="infercnvpy's default", ge=1)
    min_mean_expression: float = option(
        0.05,
        "genes below this mean are left out of the windows",
        unit="log1p counts per 10,000",
        why="0.1 lost a third of the malignant cells of a shallow simulated tumour",
        ge=0,
    )
    max_reference_fpr: float = option(
        0.01,
        "share of the reference cells each cut lets pass; the rate reported is counted on cells held out of the cut",
        unit="fraction",
        why="1 %",
        gt=0,
        lt=0.5,
    )
    n_folds: int = option(5, "folds in which reference cells are held out", unit="folds", why="cross-fitting", ge=2)
    top_fraction: float = option(
        0.05,
        "share of cells with the strongest signal whose profile is shown where no group is aneuploid",
        unit="fraction",
        why="Wu 2021",
        gt=0,
        le=1,
    )
    lfc_clip: float = option(
        3.0,
        "log ratios are clipped here",
        unit="log ratio",
        why="infercnvpy's default",
        gt=0,
    )
    lineage_mads: float = option(
        3.0,
        "distance from its genomic neighbours at which a gene is left out as a lineage gene",
        unit="scaled MAD",
        why="usual outlier",
        gt=0,
    )
    min_signal: float = option(
        0.5,
        "share of the tumour's own signal a malignant cell carries",
        unit="fraction",
        why="half way between none and all",
        gt=0,
        lt=1,
    )
    min_group: int = option(
        10,
        "fewest cells of a copy-number group (clone or normal epithelium)",
        unit="cells",
        why="a mean of fewer is noise",
        ge=3,
    )
    neighbour_genes: int = option(
        1500,
        "variable genes that decide which cells resemble each other",
        unit="genes",
        why="enough for shallow cells; 2,000 gave the same clusters",
        ge=100,
    )
    neighbour_components: int = option(
        15,
        "principal components of these genes",
        unit="components",
        why="one sample, one lineage",
        ge=2,
    )
    n_neighbours: int = option(
        10,
        "cells in whose company a cell is judged",
        unit="cells",
        why="the smallest group; more would swallow a few normal cells",
        ge=3,
    )
    cluster_resolution: float = option(
        1.0,
        "resolution of the small expression clusters, joined again where copy number agrees",
        unit="Leiden resolution",
        why="too many clusters are joined again, too few mix tumour and normal cells",
        gt=0,
    )
    max_contrast_share: float = option(
        0.35,
        "share of the difference between two groups that a diploid group may show against the reference",
        unit="fraction",
        why="0 without noise; two clones with changes of their own share about half",
        gt=0,
        lt=0.5,
    )
    neighbour_floor: float = option(
        0.01,
        "smallest probability neighbours can give a cell",
        unit="probability",
        why="clear evidence of the cell itself must win",
        gt=0,
        lt=0.5,
    )
    posterior_rounds: int = option(
        50, "rounds in which cells inform those that resemble them", unit="rounds", why="converges", ge=1
    )
    refit_rounds: int = option(
        3,
        "rounds in which clone and normal profiles are taken again from the cells called",
        unit="rounds",
        why="a group that holds some cells of the other kind blurs both profiles",
        ge=0,
    )
    min_probability: float = option(
        0.9,
        "posterior from which a cell counts as malignant; one minus it as normal",
        unit="probability",
        why="between them, and where it contradicts both metrics, a cell stays unassigned",
        gt=0.5,
        lt=1,
    )
    n_permutations: int = option(
        600,
        "shuffles of gene blocks along the genome",
        unit="permutations",
        why="resolves max_coherence_p over the axes tried for a split",
        ge=99,
    )
    max_coherence_p: float = option(
        0.01,
        "p of arm coherence at which a group is aneuploid",
        unit="probability",
        why="few tests per sample",
        gt=0,
        lt=0.5,
    )
    max_mixture_p: float = option(
        0.05,
        "p at which a group that follows chromosome arms is split into cells that differ along them",
        unit="probability",
        why="a needless split is joined again; a missed one calls normal cells malignant",
        gt=0,
        lt=0.5,
    )
    mixture_permutations: int = option(
        199,
        "shuffles of gene blocks in the test whether cells differ along arms",
        unit="permutations",
        why="resolves max_coherence_p over two components",
        ge=19,
    )
    mixture_cells: int = option(
        1000, "cells at most in that test, spread over the group", unit="cells", why="time; more change little", ge=100
    )
    min_coherence: float = option(
        1.75,
        "smallest arm coherence of an aneuploid group (1: none)",
        unit="ratio",
        why="normal lineages mostly stay below, cell lines above",
        ge=1,
    )
    sure_coherence: float = option(
        2.25,
        "arm coherence that the strongest aneuploid group must reach before any cell of the sample is called",
        unit="ratio",
        why="means of ten real normal cells reached 2.2, 28 and 30 of 31 cancer lines exceed it; less: weak_evidence",
        ge=1,
    )
    min_arm_genes: int = option(
        30,
        "fewest genes of an arm to be judged",
        unit="genes",
        why="a mean of fewer is noise",
        ge=5,
    )
    block_genes: int = option(
        20,
        "neighbouring genes kept together when they are shuffled along the genome",
        unit="genes",
        why="neighbours may share regulation; a fifth of a window",
        ge=1,
    )
    pseudo_expression: float = option(
        0.05,
        "added to both means of a log ratio",
        unit="log1p counts per 10,000",
        why="tames genes seen in few cells; less gave more noise in planted changes",
        gt=0,
    )
    half_weight_expression: float = option(
        0.1,
        "mean expression at which a gene counts half in the test of arm coherence",
        unit="log1p counts per 10,000",
        why="the log ratio of a rarely seen gene is mostly noise",
        gt=0,
    )
    arm_log2_clip: float = option(
        1.0,
        "log2 ratios are clipped here before they are averaged over an arm",
        unit="log2",
        why="one copy more is 0.6; larger is a gene's own regulation",
        gt=0,
    )
    split_components: int = option(
        2,
        "principal components of arm scores tried to split epithelium",
        unit="components",
        why="few clones per sample; more would need more shuffles",
        ge=1,
    )
    detectable_shift: float = option(
        0.4,
        "1q gain and 16q loss of this size must be detectable for a group to count as tested",
        unit="log2",
        why="one copy, damped",
        gt=0,
    )
    min_arm_z: float = option(
        3.0,
        "z at which an arm check counts as a change",
        unit="z",
        why="some 20 checks per clone",
        gt=0,
    )
    locus_genes: int = option(
        50,
        "neighbouring genes of the same arm that tell the local copy number of a marker gene",
        unit="genes",
        why="half a window; the marker itself never counts",
        ge=5,
    )
    her2_log2_fold: float = option(
        1.0,
        "excess at which a gene of the HER2 amplicon is high",
        unit="log2",
        why="amplification, not gain",
        gt=0,
    )
    her2_min_genes: int = option(
        3,
        "high genes that make a HER2 amplicon",
        unit="genes",
        why="ERBB2 alone may be expression",
        ge=1,
    )
    max_caf_malignant: float = option(
        0.05,
        "share of CAFs called malignant above which the sample is flagged",
        unit="fraction",
        why="negative control",
        ge=0,
        le=1,
    )
    max_caf_failed: float = option(
        0.5,
        "share of CAFs called malignant at which no cell of the sample is called",
        unit="fraction",
        why="the control fails as a whole: the reference holds tumour cells, or the annotation is wrong",
        gt=0,
        le=1,
    )
