"""Options of the stages that score cells: gene sets, cancer stem cells, macrophages."""

from __future__ import annotations

from nicheloop.config_options import Section, mixed_alpha, mixed_fold, mixed_share, option


class Scoring(Section):
    """Gene-set scores against expression-matched nulls."""

    n_bins: int = option(
        25, "expression bins from which a set's null genes are drawn", unit="bins", why="as in Tirosh 2016", ge=3
    )
    min_genes: int = option(
        3,
        "fewest genes of a set that must be in the matrix",
        unit="genes",
        why="a score of two genes is two genes",
        ge=1,
    )
    min_cells: int = option(
        20, "fewest cells of a compartment to be scored", unit="cells", why="matching needs a mean", ge=3
    )
    foreign_share: float = mixed_share("malignant", "other type", "is left out")
    foreign_fold: float = mixed_fold("malignant")
    foreign_alpha: float = mixed_alpha()


class Csc(Section):
    """CD44+/CD24- and ALDH1A3-high states, in malignant cells only."""

    min_malignant: int = option(
        50, "fewest malignant cells of a patient", unit="cells", why="interval too wide below", ge=5
    )
    min_informative: float = option(
        0.5,
        "smallest share of malignant cells informative for CD24",
        unit="fraction",
        why="else zero is not low",
        ge=0,
        le=1,
    )
    informative_zero: float = option(
        0.05,
        "a cell is informative if a high cell shows zero with at most this probability",
        unit="probability",
        why="3 UMI",
        gt=0,
        lt=1,
    )
    positive: float = option(
        0.8, "posterior above which a cell is positive", unit="probability", why="clear calls only", gt=0.5, lt=1
    )
    negative: float = option(
        0.2, "posterior below which a cell is negative", unit="probability", why="clear calls only", gt=0, lt=0.5
    )
    shape: float = option(
        3.0, "gamma shape of the expression within a state (start value)", unit="-", why="SCIENCE simulation", gt=0
    )
    min_shape: float = option(
        1.0, "smallest gamma shape of one state", unit="-", why="below 1 one state imitates two", gt=0
    )
    n_bootstrap: int = option(
        200, "parametric bootstrap samples, rates refitted", unit="samples", why="2.5 % tails with 5 points", ge=20
    )
    confidence: float = option(0.95, "level of the intervals", unit="probability", why="usual", gt=0.5, lt=1)
    resolvable: float = option(
        0.01,
        "fraction below which shallow data cannot be told from zero",
        unit="fraction",
        why="simulation",
        ge=0,
        le=1,
    )
    min_bic_gain: float = option(
        10.0,
        "BIC gain of two components over one",
        unit="BIC",
        why="very strong evidence (Kass and Raftery 1995)",
        ge=0,
    )
    min_rate_ratio: float = option(
        3.0, "smallest high to low rate ratio", unit="fold", why="closer states cannot be told apart", gt=1
    )
    pure_fold: float = option(
        1.5,
        "a tumour with one state is purely low or high within this factor of that state's rate, else not bimodal",
        unit="fold",
        why="below the root of min_rate_ratio: the two ranges never meet",
        ge=1,
    )
    pure_share: float = option(
        0.33,
        "the same in a cohort of tumours of one state each: share of the way, in the log, to the other rate",
        unit="fraction",
        why="thirds: low, between, high",
        ge=0,
        lt=0.5,
    )
    pure_min_ratio: float = option(
        8.0,
        "smallest high to low rate ratio in such a cohort",
        unit="fold",
        why="each third is then at least two-fold wide; tumours of one continuum come out closer",
        gt=1,
    )
    min_state_cells: int = option(
        20, "fewest cells of each state for its read-outs", unit="cells", why="a mean of few cells is noise", ge=3
    )
    n_null_sets: int = option(
        1000, "random sets matched to each read-out", unit="sets", why="smallest two-sided p 0.002", ge=99
    )
    n_label_permutations: int = option(
        1000, "permutations of the state over cells", unit="permutations", why="smallest p 0.001", ge=99
    )
    max_listed: int = option(
        20_000,
        "divisions of patients into PTEN-low and others that are all listed; more are drawn (n_label_permutations)",
        unit="divisions",
        why="an exact p up to 16 patients",
        ge=1,
    )
    n_matched_pairs: int = option(
        500, "gene pairs matched to CD44 and CD24 in mean and detection", unit="pairs", why="smallest p 0.002", ge=99
    )
    n_matched_genes: int = option(
        100, "nearest genes from which the stand-ins of a marker are drawn", unit="genes", why="10,000 pairs", ge=10
    )
    match_fold: float = option(
        2.0,
        "largest difference of a stand-in from its marker, in mean and in the odds of detection",
        unit="fold",
        why="nearer ones are preferred; beyond it a gene is not alike",
        gt=1,
    )
    max_null_cells: int = option(
        2000, "malignant cells that the pair null is computed on", unit="cells", why="time; drawn by the seed", ge=100
    )
    pten_low_fold: float = option(
        0.5,
        "PTEN of malignant cells counts as low at this share of the median of other tumours' malignant cells",
        unit="fold",
        why="one copy of two",
        gt=0,
        lt=1,
    )
    min_stratum: int = option(
        3,
        "fewest patients on each side of a comparison of strata",
        unit="patients",
        why="below it no p can be small",
        ge=2,
    )
    min_correlation: int = option(
        5, "fewest patients of a correlation with copy number", unit="patients", why="smallest p 0.017", ge=4
    )
    alpha: float = option(0.05, "level of a test", unit="probability", why="usual", gt=0, lt=0.5)


class Tam(Section):
    """Macrophages on two axes, M1 and M2."""

    min_macrophages: int = option(
        20, "fewest macrophages of a patient", unit="cells", why="below it no class is given", ge=3
    )
    class_z: float = option(
        1.0, "z at which an axis is high", unit="z", why="sensitivity at 0.5 and 1.5 in the table", gt=0
    )
    sensitivity_z: list[float] = option(
        [0.5, 1.5], "other cuts reported", unit="z", why="is the class fragile?", min_length=1
    )
    monocyte_band: float = option(
        0.5,
        "half-width of the band called transitional between monocyte and macrophage",
        unit="z",
        why="a gradient",
        ge=0,
    )
    state_margin: float = option(
        0.5, "lead of the dominant state over the next", unit="z", why="the sets overlap", ge=0
    )
    foreign_share: float = mixed_share("myeloid", "other type", "gets no class")
    foreign_fold: float = mixed_fold("myeloid")
    foreign_alpha: float = mixed_alpha()
    n_null_sets: int = option(
        1000, "pairs of random sets matched to M1 and M2", unit="sets", why="smallest two-sided p 0.002", ge=99
    )
    confidence: float = option(0.95, "level of the intervals", unit="probability", why="usual", gt=0.5, lt=1)
