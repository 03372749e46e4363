"""Options of the stages that say what each cell is: reading, quality, map, types, copy number."""

from __future__ import annotations

from typing import Literal

from nicheloop.config_options import Section, option


class Simulate(Section):
    """The demo cohort: 6 tumours and 2 normal breasts, written as 10x folders with the truth beside them."""

    cells_per_tumour: int = option(
        640, "cells written for each tumour", unit="cells", why="enough of every type to be assessable", ge=200
    )
    cells_per_normal: int = option(
        260, "cells written for each normal breast", unit="cells", why="a negative control, kept small", ge=100
    )
    median_umi: int = option(
        11000, "median library size", unit="UMI per cell", why="CD24 is informative from about 10,000 UMI", ge=500
    )
    shallow_umi: int = option(
        2000,
        "median library size of the one shallow tumour",
        unit="UMI per cell",
        why="shows a fraction that cannot be read at that depth",
        ge=300,
    )
    ambient_fraction: float = option(
        0.03, "share of each library that is ambient RNA", unit="fraction", why="usual for fresh tissue", ge=0, le=0.5
    )
    doublet_rate: float = option(
        0.04, "share of barcodes holding two cells", unit="fraction", why="usual for 5,000 loaded cells", ge=0, le=0.3
    )
    csc_fraction: float = option(
        0.15, "share of malignant cells that are CD44+/CD24-", unit="fraction", why="between 10 and 20 %", ge=0, le=1
    )


class Ingest(Section):
    """Reading counts and naming genes."""

    min_resolved: float = option(
        0.5,
        "smallest share of features that must resolve to a human gene",
        unit="fraction",
        why="below it the file is not human genes or is mangled",
        ge=0,
        le=1,
    )
    integer_tolerance: float = option(
        0.001,
        "largest share of non-integer values in a count matrix",
        unit="fraction",
        why="TPM and normalised values are far above it",
        ge=0,
        le=1,
    )


class Qc(Section):
    """Cell filters, per sample: median +- n_mads scaled MAD, kept between a floor and a cap."""

    n_mads: float = option(
        3.0, "distance from the median at which a cell is an outlier", unit="scaled MAD", why="usual practice", gt=0
    )
    min_counts_floor: int = option(
        200, "the count threshold is never below this", unit="UMI", why="below it a barcode is likely empty", ge=0
    )
    min_counts_cap: int = option(
        500, "the count threshold is never above this", unit="UMI", why="a shallow tumour keeps its cells", ge=0
    )
    min_genes_floor: int = option(
        100, "the gene threshold is never below this", unit="genes", why="neutrophils have few hundred genes", ge=0
    )
    min_genes_cap: int = option(
        250, "the gene threshold is never above this", unit="genes", why="a tumour with a median of 400 genes", ge=0
    )
    max_mito_floor: float = option(
        10.0,
        "the mitochondrial threshold is never below this",
        unit="percent",
        why="tumour cells are rich",
        ge=0,
        le=100,
    )
    max_mito_cap: float = option(
        30.0,
        "the mitochondrial threshold is never above this",
        unit="percent",
        why="above it a cell is dying",
        ge=0,
        le=100,
    )
    drop_doublets: bool = option(
        True, "leave predicted doublets out of all later stages", unit="yes or no", why="they imitate every mixed state"
    )
    doublet_rate: float = option(
        0.06, "expected share of doublets", unit="fraction", why="10x: about 0.8 % per 1,000 cells", gt=0, lt=0.5
    )
    min_cells_doublets: int = option(
        100, "fewer cells than this: doublets are not assessed", unit="cells", why="nothing to simulate from", ge=20
    )
    doublet_sim_ratio: float = option(
        2.0, "simulated doublets per cell", unit="doublets per cell", why="scrublet's default", gt=0, le=10
    )
    doublet_n_genes: int = option(
        2000, "variable genes the doublet score uses", unit="genes", why="as for the embedding", ge=50
    )
    doublet_min_cells: int = option(
        3, "a variable gene of the doublet score has a count in this many cells", unit="cells", why="scrublet's", ge=1
    )
    doublet_cells_per_pc: int = option(
        60,
        "cells per principal component of the doublet score",
        unit="cells",
        why="with 30 components for 600 cells recall fell from 0.75 to 0.56 on the demo, on cell lines by a quarter",
        ge=1,
    )
    doublet_min_pcs: int = option(
        8, "never fewer components than this", unit="components", why="the lineages of a tumour", ge=2
    )
    doublet_max_pcs: int = option(
        30, "never more components than this", unit="components", why="scrublet's number", ge=2
    )
    doublet_max_excess: float = option(
        3.0,
        "the automatic threshold is trusted up to this multiple of the expected share",
        unit="fold",
        why="more is a mistaken mode",
        ge=1,
    )
    doublet_min_detectable: float = option(
        0.25,
        "smallest share of simulated doublets above a threshold for it to be used",
        unit="fraction",
        why="below it doublets do not stand out",
        ge=0,
        le=1,
    )


class Embed(Section):
    """Variable genes, principal components, integration, neighbours, clusters, map."""

    n_hvg: int = option(2000, "variable genes", unit="genes", why="usual practice", ge=50)
    n_bins: int = option(20, "bins of mean expression for the dispersion", unit="bins", why="scanpy's default", ge=2)
    min_cells_sample: int = option(
        20,
        "a sample with fewer cells has no vote on variable genes and does not start an integration",
        unit="cells",
        why="its variances are noise",
        ge=2,
    )
    n_pcs: int = option(30, "principal components", unit="components", why="usual practice", ge=2)
    integrate: bool = option(
        True, "integrate samples with harmony", unit="yes or no", why="types should meet across patients"
    )
    n_neighbors: int = option(15, "neighbours of a cell", unit="cells", why="scanpy's default", ge=2)
    exact_neighbors_below: int = option(
        150_000,
        "up to this size neighbours are exact, above it they come from an HNSW index",
        unit="cells",
        why="exact search grows with the square of the cells; below, it is the faster one as well",
        ge=0,
    )
    resolutions: list[float] = option(
        [0.5, 1.0, 2.0], "leiden resolutions tried", unit="-", why="a coarse, a usual and a fine one", min_length=1
    )
    stability_runs: int = option(
        3, "repeats per resolution for the stability choice", unit="runs", why="enough to see an unstable one", ge=2
    )
    leiden: Literal["auto", "leidenalg", "igraph"] = option(
        "auto",
        "leiden implementation; auto: leidenalg for small graphs, igraph for large ones",
        unit="-",
        why="the same quality function; igraph reaches at least as much of it in a fifth of the time",
    )
    igraph_from: int = option(
        100_000,
        "edges of the neighbour graph from which auto means igraph",
        unit="edges",
        why="about 9,000 cells: below, the reference implementation takes seconds",
        ge=0,
    )
    leiden_iterations: int = option(
        4, "leiden iterations; -1 runs until nothing improves", unit="iterations", why="little changes after", ge=-1
    )
    stability_tolerance: float = option(
        0.02,
        "resolutions whose stability is this close to the best are equal; the finest of them is chosen",
        unit="adjusted Rand index",
        why="three repeats do not tell 0.99 from 0.98",
        ge=0,
        le=1,
    )
    umap_min_dist: float = option(0.4, "UMAP minimal distance", unit="-", why="readable islands", ge=0, le=1)
    umap_epochs: int = option(200, "UMAP epochs", unit="epochs", why="umap-learn's default for large data", ge=10)
    threads: int = option(
        4,
        "most threads of this job and of annotate; never more than granted",
        unit="threads",
        why="the result does not change",
        ge=1,
    )
    parallel_edges: int = option(
        200_000,
        "edges of the neighbour graph from which repeats of leiden run in processes of their own",
        unit="edges",
        why="below, starting a process costs more than a repeat; the result is the same",
        ge=0,
    )


class Annotate(Section):
    """Major and minor cell types."""

    min_confidence: float = option(
        0.5,
        "below this posterior a cell is unresolved",
        unit="probability",
        why="below it a type is more likely wrong than right",
        ge=0,
        le=1,
    )
    min_markers: int = option(
        2,
        "fewest positive markers of a type seen in the cell, or half as many on average in its neighbours of that type",
        unit="genes",
        why="one gene may be ambient",
        ge=1,
    )
    min_evidence: float = option(
        2.0,
        "smallest log-likelihood ratio of the type against ambient RNA, in the cell or its neighbours of that type",
        unit="nats",
        why="odds of about 7",
        ge=0,
    )
    marker_rate: float = option(
        3.0, "expected rate of a marker in the type that makes it", unit="UMI per 10,000", why="a typical marker", gt=0
    )
    marker_shape: float = option(
        0.5,
        "gamma shape of that rate over genes and cells",
        unit="-",
        why="rates of markers differ a hundredfold",
        gt=0,
    )
    marker_probability: float = option(
        0.7,
        "chance that a cell of the type makes a given marker",
        unit="probability",
        why="subtypes differ",
        gt=0,
        lt=1,
    )
    shared_probability: float = option(
        0.3,
        "the same for markers of its minor types and for shared markers",
        unit="probability",
        why="most lack it",
        gt=0,
        lt=1,
    )
    ambient_share: float = option(
        0.1,
        "share of a cell's counts assumed to be ambient RNA",
        unit="fraction",
        why="upper range of fresh tissue",
        gt=0,
        lt=1,
    )
    ambient_floor: float = option(
        0.02, "rate any gene is seen at without being made", unit="UMI per 10,000", why="misassigned reads", gt=0
    )
    max_marker_evidence: float = option(
        4.0, "largest evidence of one marker, for or against", unit="nats", why="no type rests on one gene", gt=0
    )
    negative_weight: float = option(
        0.5, "weight of the evidence of negative markers", unit="fraction", why="they may be ambient", ge=0, le=1
    )
    two_lineages: float = option(
        0.5,
        "evidence of a second lineage, relative to the first, that makes a cell unresolved",
        unit="fraction",
        why="a doublet holds half of each",
        gt=0,
        le=1,
    )
    min_second_evidence: float = option(
        30.0,
        "evidence a second lineage must have to count as one",
        unit="nats",
        why="eight strong markers; bursts of ambient RNA reach 25",
        ge=0,
    )
    cycling_z: float = option(
        2.0, "z of the cycling score above which a cell cycles", unit="z", why="upper 2.5 % of its null", ge=0
    )
    n_neighbors: int = option(
        15, "neighbours of a cell that speak for it", unit="cells", why="as in the map; 8 to 30 did alike", ge=0
    )
    neighbor_weight: float = option(
        0.3,
        "weight of one neighbour beside the cell's own evidence",
        unit="fraction",
        why="neighbours share their noise; 0.2 to 0.5 did alike on labelled cells",
        ge=0,
        le=1,
    )
    neighbors_own: float = option(
        0.6,
        "share of neighbours expected to be of the cell's own type before anything is learnt",
        unit="fraction",
        why="types are neighbours of themselves more often than not",
        ge=0,
        lt=1,
    )
    neighbors_own_cells: float = option(
        2.0, "how many cells that expectation is worth", unit="cells", why="ten real cells soon overrule it", gt=0
    )
    misleading: float = option(
        0.0001,
        "chance that a cell's own markers mislead (stray RNA, unseen doublet)",
        unit="probability",
        why="fifteen neighbours of one mind can then overrule them; 0.001 to never did nearly alike",
        gt=0,
        lt=1,
    )
    temperature: float = option(
        2.0,
        "what scores are divided by in the confidence",
        unit="-",
        why="markers are no independent witnesses; with 2 the confidence of labelled cells was near the share right",
        ge=1,
    )
    max_rounds: int = option(
        60, "most rounds in which cells and neighbours are brought into accord", unit="rounds", why="30 suffice", ge=1
    )
    tolerance: float = option(
        0.0001, "stop when no probability moves by more", unit="probability", why="far below what is reported", gt=0
    )
    max_library: float = option(
        20000.0,
        "larger libraries are scaled down to this before markers are judged",
        unit="UMI",
        why="reads of full-length protocols are no molecules",
        ge=1000,
    )
    source: Literal["computed", "input"] = option(
        "computed",
        "which types are used: those computed here, or the annotation that came with the input",
        unit="-",
        why="one method for all samples; labels that are not understood keep the computed type",
    )
    min_cells_minor: int = option(
        10, "fewest cells of a major type before minor types are given", unit="cells", why="too few to compare", ge=1
    )
    platelet_markers: int = option(
        2,
        "platelet genes that make a barcode platelet-contaminated",
        unit="genes",
        why="PPBP alone is not enough",
        ge=1,
    )


class Ambient(Section):
    """Contamination by ambient RNA, from genes a cell type cannot make."""

    empty_max_umi: int = option(
        100,
        "most UMI of a droplet of the raw matrix that counts as empty",
        unit="UMI",
        why="as SoupX; cells have more",
        ge=1,
    )
    min_empty: int = option(
        100, "fewest empty droplets for their composition to be used", unit="droplets", why="else it is noise", ge=1
    )

    min_cells: int = option(
        20,
        "fewest cells of a compartment to estimate its contamination",
        unit="cells",
        why="a mean of few is noise",
        ge=1,
    )
    min_marker_umi: int = option(
        50, "fewest UMI of the marker genes in the sample", unit="UMI", why="a rate from few counts is noise", ge=1
    )
    min_makers: int = option(
        5,
        "fewest cells that make a marker group for it to be used",
        unit="cells",
        why="without them the pooled cells do not hold what leaks",
        ge=1,
    )
    outlier_p: float = option(
        0.0001,
        "cells whose marker UMI are less likely than this from ambient RNA alone are left out",
        unit="probability",
        why="doublets and wrongly typed cells",
        gt=0,
        lt=0.1,
    )
    confidence: float = option(
        0.95, "confidence of the interval of the rate", unit="probability", why="usual", gt=0.5, lt=1
    )


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


class Receptors(Section):
    """Receptor status of a tumour from the summed RNA of its malignant cells; cuts in counts per million (CPM).

    Levels of 31 breast cancer lines (Gambardella 2022) lie behind the cuts; docs/malignancy.md shows them.
    """

    min_malignant: int = option(
        20, "fewest malignant cells of a patient", unit="cells", why="the spread between cells is not known below", ge=2
    )
    confidence: float = option(
        0.95,
        "level of the interval that must lie on one side of a cut",
        unit="probability",
        why="usual; a shallow sample is undetermined, not negative",
        gt=0.5,
        lt=1,
    )
    er_cpm: float = option(
        25.0,
        "ESR1 beyond ambient RNA, oestrogen receptor",
        unit="CPM",
        why="lines with clear receptor 54 to 362, without 0 to 12 (BT20, negative by protein: 28)",
        gt=0,
    )
    pr_cpm: float = option(
        10.0,
        "PGR beyond ambient RNA, progesterone receptor",
        unit="CPM",
        why="positive lines 13 to 73, others 0 to 4",
        gt=0,
    )
    erbb2_cpm: float = option(
        100.0,
        "ERBB2 beyond ambient RNA",
        unit="CPM",
        why="amplified lines 179 to 679 (but JIMT1 24, MDAMB453 45), others at most 56",
        gt=0,
    )
    neighbours_cpm: float = option(
        700.0,
        "GRB7, PGAP3, MIEN1 and STARD3 together, beyond ambient RNA",
        unit="CPM",
        why="amplified lines 1,072 to 7,227 (but MDAMB453 405), others at most 588",
        gt=0,
    )
    erbb2_alone_fold: float = option(
        3.0,
        "ERBB2 this far above its cut without its neighbours is undetermined, not negative",
        unit="fold",
        why="luminal cells make more ERBB2 without an amplicon, up to about twice the cut",
        ge=1,
    )
    basal_cpm: float = option(
        100.0,
        "KRT5, KRT14 and KRT17 together, beyond ambient RNA",
        unit="CPM",
        why="basal lines 211 to 3,614, others at most 7",
        gt=0,
    )
