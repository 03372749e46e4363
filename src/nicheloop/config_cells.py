"""Options of the stages that say what each cell is: reading, quality, map, types, ambient RNA, receptors."""

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
    umap_epochs: int = option(
        100,
        "UMAP epochs",
        unit="epochs",
        why="half of umap-learn's default for large data: as many neighbours stay neighbours, within a few per cent",
        ge=10,
    )
    map_cells: int = option(
        100_000,
        "most cells whose map is computed, drawn at random above; the others lie among the nearest of them",
        unit="cells",
        why="UMAP runs in one thread, and no number comes from a map",
        ge=1000,
    )
    raw_map_cells: int = option(
        20_000,
        "the same for the map before integration",
        unit="cells",
        why="that map only shows what integration did; as many as the report draws",
        ge=1000,
    )
    threads: int = option(
        4,
        "most threads of this job; never more than granted",
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
        15,
        "neighbours of a cell that speak for it (embed looks for them, and runs again when it is changed)",
        unit="cells",
        why="as in the map; 8 to 30 did alike",
        ge=0,
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
