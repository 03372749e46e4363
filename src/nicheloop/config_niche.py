"""Options of the stages between cells: axes, screen, loop, enrichment."""

from __future__ import annotations

from typing import Literal

from nicheloop.config_options import Section, mixed_alpha, mixed_fold, mixed_share, option


class Crosstalk(Section):
    """Ligand-receptor axes, per sample."""

    min_cells: int = option(20, "fewest cells of a type", unit="cells", why="fewer cannot show 5 % expression", ge=3)
    min_umi: int = option(10, "fewest UMI of a gene in its type", unit="UMI", why="above counting noise", ge=1)
    min_positive_cells: int = option(3, "fewest cells with the gene", unit="cells", why="one cell is an accident", ge=1)
    n_permutations: int = option(
        1000, "permutations of the type labels", unit="permutations", why="smallest p 0.001", ge=99
    )
    abundant_fraction: float = option(
        0.05,
        "share of the sample's cells from which a gene counts as abundant; it must then be in that share of its type",
        unit="fraction",
        why="fewer cells of a type are doublets with those that make it",
        gt=0,
        le=1,
    )
    n_matched_pairs: int = option(500, "expression-matched gene pairs", unit="pairs", why="smallest p 0.002", ge=99)
    n_matched_genes: int = option(
        100,
        "genes nearest in mean expression from which stand-ins are drawn",
        unit="genes",
        why="close, yet many",
        ge=10,
    )
    n_stand_ins: int = option(
        40,
        "measurable secreted or membrane genes from which the decoys of a pair are drawn",
        unit="genes",
        why="near, yet many",
        ge=10,
    )
    min_stand_ins: int = option(
        8, "fewest such genes for a p against decoys; 1 with fewer", unit="genes", why="64 combinations", ge=5
    )
    n_decoys: int = option(
        300, "matched decoys tested per sample", unit="pairs", why="a share of 5 % within 2.5 %", ge=0
    )
    min_decoys: int = option(200, "fewest tested decoys for a fraction", unit="pairs", why="5 % within 3 %", ge=1)
    matched_cells: int = option(
        30,
        "cells per population when patients are compared at equal cells and depth",
        unit="cells",
        why="most types have them",
        ge=5,
    )
    matched_depth: int = option(
        2000, "counts per cell at that comparison", unit="UMI", why="most cells have them", ge=10
    )
    platelet_share: float = option(
        0.5,
        "share of a ligand's UMI in platelet barcodes that makes it platelet RNA",
        unit="fraction",
        why="most of it",
        gt=0,
        le=1,
    )
    ambient_alpha: float = option(
        0.01,
        "level of the test that counts exceed the ambient expectation",
        unit="probability",
        why="usual",
        gt=0,
        lt=1,
    )
    confidence: float = option(
        0.95, "confidence of bounds and intervals", unit="probability", why="usual", gt=0.5, lt=1
    )


class Screen(Section):
    """Optional: every pair of a ligand-receptor resource between every two cell types."""

    resource: str = option(
        "",
        "'liana' (the consensus of an installed liana), its CSV, a CellPhoneDB v5 folder, or a TSV with the columns "
        "ligand and receptor; empty: no screen",
        unit="path",
        why="the axes are the question; a screen is exploration",
    )
    method: Literal["strength", "cellphonedb"] = option(
        "strength", "statistic: of the axes (geometric mean, ambient and floor) or CellPhoneDB's", unit="-", why="ours"
    )
    labels: Literal["major", "minor"] = option(
        "major", "cell types screened; malignant cells are one of them", unit="-", why="pairs grow with their square"
    )
    n_permutations: int = option(
        1000, "permutations of the type labels", unit="permutations", why="as for an axis", ge=99
    )
    min_cells: int = option(20, "fewest cells of a type", unit="cells", why="as for an axis", ge=3)
    expr_prop: float = option(
        0.1,
        "cellphonedb: smallest share of cells with each gene in its type",
        unit="fraction",
        why="CellPhoneDB's and LIANA's default",
        ge=0,
        le=1,
    )
    confidence: float = option(0.95, "confidence of the bound of p", unit="probability", why="usual", gt=0.5, lt=1)
    threads: int = option(
        2, "most threads of one sample; never more than granted", unit="threads", why="the result does not change", ge=1
    )


class Loop(Section):
    """The feedback loop: forward, response and return arms."""

    min_senders: int = option(20, "fewest sender cells", unit="cells", why="as for an axis", ge=3)
    min_malignant: int = option(50, "fewest malignant cells", unit="cells", why="as for the CSC fraction", ge=5)
    min_csc: int = option(20, "fewest CSC-high cells", unit="cells", why="a contrast needs both sides", ge=3)
    niche_share: float = mixed_share("malignant", "niche population", "is left out of the response arm")
    niche_fold: float = mixed_fold("malignant")
    stress_alpha: float = option(
        0.01,
        "level at which stress itself differs between CSC-high and other cells, so that arm B is not judged",
        unit="probability",
        why="below it what the adjustment leaves can pass for a response; smaller differences are adjusted for",
        gt=0,
        lt=1,
    )
    niche_alpha: float = mixed_alpha()
    min_readout_genes: int = option(
        3, "fewest genes of a read-out for its level", unit="genes", why="a level of two genes is two genes", ge=1
    )
    depth_strata: int = option(
        4, "library-size strata of the response arm", unit="strata", why="depth moves every score", ge=1
    )
    min_patients: int = option(
        10,
        "fewest assessable patients for a claim about the cohort",
        unit="patients",
        why="power at n = 10: |rho| 0.79",
        ge=3,
    )
    min_stratum: int = option(
        4, "fewest patients of a subtype and data set to be swapped", unit="patients", why="24 pairings", ge=2
    )
    alpha: float = option(0.05, "level of the arm tests", unit="probability", why="usual", gt=0, lt=1)
    n_bootstrap: int = option(
        200,
        "bootstrap samples of cells for the intervals of the arms",
        unit="samples",
        why="2.5 % tails with 5 points",
        ge=20,
    )
    n_swaps: int = option(
        9999, "permuted pairings of the coupling swap", unit="pairings", why="smallest p 0.0001", ge=99
    )
    confidence: float = option(0.95, "confidence of the arms' intervals", unit="probability", why="usual", gt=0.5, lt=1)


class Enrich(Section):
    """Pseudobulk contrasts and enrichment of ranked lists."""

    min_cells: int = option(
        10, "fewest cells of a pseudobulk", unit="cells", why="section 8 of the science notes", ge=3
    )
    min_patients: int = option(3, "fewest patients with both states", unit="patients", why="a paired contrast", ge=2)
    patients_per_fit: int = option(
        40,
        "most patients of one fit; more are fitted in parts of like size, and their fold changes pooled",
        unit="patients",
        why="a fit has a column per patient: its time grows with the cube of them, hours at 250",
        ge=3,
    )
    min_counts: int = option(
        10, "counts a gene must reach in half of the pseudobulks", unit="UMI", why="as edgeR's filterByExpr", ge=1
    )
    min_set: int = option(10, "smallest gene set", unit="genes", why="gseapy's usual lower bound is 15", ge=3)
    max_set: int = option(500, "largest gene set", unit="genes", why="gseapy's default", ge=10)
    n_permutations: int = option(1000, "permutations of prerank", unit="permutations", why="gseapy's default", ge=100)
