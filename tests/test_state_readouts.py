"""Read-outs of CSC states: against regression, against drawn sets, and what random sets and labels may give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from nicheloop import io, scoring
from nicheloop import state_readouts as readouts
from nicheloop.config_states import Csc, Scoring

OPTIONS = Csc(n_null_sets=199, n_label_permutations=199)


def tumour(seed: int, *, n: int = 240, n_high: int = 60, fold: float = 1.0, stress: float = 0.0) -> tuple:
    """Counts of malignant cells; genes of the EMT read-out `fold` times higher in the state, stress moving with it."""
    rng = np.random.default_rng(seed)
    members = list(readouts.readout_genes()["EMT_malignant"])
    genes = [*members, "CXCR4", *[f"X{i}" for i in range(1500)]]
    rate = rng.lognormal(-1.0, 1.0, len(genes))
    size = rng.lognormal(0, 0.4, n)
    high = np.arange(n) < n_high
    z = rng.normal(size=n) + stress * high
    mean = np.outer(size, rate)
    mean[:, : len(members)] *= np.where(high, fold, 1.0)[:, None] * np.exp(0.3 * z * bool(stress))[:, None]
    x = sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
    cells = pd.DataFrame({
        "cell_id": [f"s:{i:04d}" for i in range(n)], "csc_state": np.where(high, "m_csc", "other"), "n_counts": np.asarray(x.sum(axis=1)).ravel(),
        "clone": np.where(np.arange(n) % 3 == 0, 1.0, 2.0), "z_STRESS": z, "z_G2M": rng.normal(size=n),
    })  # fmt: skip
    return io.lognormalise(x), genes, cells


def rows_of(data: tuple, **settings: object) -> pd.DataFrame:
    found, _ = readouts.contrasts(*data, "m_csc", options=OPTIONS, scoring_options=Scoring(), seed=1, **settings)
    return pd.DataFrame(found).set_index(["readout", "adjustment"])


def test_effect_is_the_coefficient_of_a_regression() -> None:
    x, genes, cells = tumour(0, fold=1.5, stress=0.5)
    rows = rows_of((x, genes, cells))
    y = x[:, [genes.index(g) for g in readouts.readout_genes()["EMT_malignant"]]].toarray().mean(axis=1)
    state = (cells["csc_state"] == "m_csc").to_numpy(float)
    assert rows.at[("EMT_malignant", "none"), "effect"] == pytest.approx(
        y[state == 1].mean() - y[state == 0].mean(), rel=1e-5
    )
    design = np.column_stack([np.ones(len(y)), state, cells["z_STRESS"]])
    assert rows.at[("EMT_malignant", "stress"), "effect"] == pytest.approx(np.linalg.lstsq(design, y)[0][1], rel=1e-4)
    assert abs(rows.at[("EMT_malignant", "stress"), "effect"]) < abs(rows.at[("EMT_malignant", "none"), "effect"])


def test_a_planted_readout_is_found_and_an_unseen_one_is_named() -> None:
    rows = rows_of(tumour(1, fold=1.6))
    emt = rows.loc["EMT_malignant"]
    assert (emt.loc[["none", "depth", "stress", "clone", "all"], "p"] <= 0.011).all()
    assert rows.at[("CXCL12", "none"), "status"] == "readout_not_measurable"
    assert rows.at[("EMT_malignant", "hypoxia"), "status"] == "no_covariate"
    assert rows["p"].where(rows["status"] != "tested").isna().all()


def test_without_an_effect_p_keeps_its_level() -> None:
    """80 tumours in which state and read-out have nothing to do with each other, the set being co-expressed."""
    p = []
    for seed in range(80):
        x, genes, cells = tumour(100 + seed, n=120, n_high=40, stress=1e-9)
        p.append(rows_of((x, genes, cells)).at[("EMT_malignant", "none"), "p"])
    assert np.mean(np.array(p) <= 0.05) <= 0.15  # exact binomial bound of 5 % at n = 80, p < 0.001


def test_order_of_cells_and_genes_does_not_matter() -> None:
    x, genes, cells = tumour(2, fold=1.2)
    columns = np.random.default_rng(0).permutation(len(genes))
    one = rows_of((x, genes, cells))
    other = rows_of((x[:, columns], [genes[i] for i in columns], cells))
    numbers = ["effect", "null_mean", "null_sd", "p_sets", "p_label"]
    np.testing.assert_allclose(one[numbers].to_numpy(float), other[numbers].to_numpy(float), rtol=1e-5, atol=1e-7)


def test_too_few_cells_of_a_state_are_said() -> None:
    rows = rows_of(tumour(3, n_high=5))
    assert set(rows["status"]) == {"too_few_state_cells"}
    assert rows["effect"].isna().all()


def test_covariates_that_determine_the_state_leave_nothing() -> None:
    x, genes, cells = tumour(4)
    cells["clone"] = np.where(cells["csc_state"] == "m_csc", 1.0, 2.0)
    assert rows_of((x, genes, cells)).at[("EMT_malignant", "clone"), "status"] == "state_not_separable"


def test_drawn_sets_have_the_limit_as_their_moments() -> None:
    x, genes, _ = tumour(5)
    bins = scoring.gene_bins(x, genes, n_bins=10)
    members = np.arange(20)
    _, mean, sd, _ = scoring.matched_null(x, bins, [members])
    drawn = scoring.draw_sets(bins, genes, members, n_sets=4000, seed=3, name="a")
    dense = np.asarray(x[:5].todense(), dtype=float)
    values = dense[:, drawn].mean(axis=2)
    np.testing.assert_allclose(values.mean(axis=1), mean[:5, 0], atol=4 * sd[:5, 0].max() / np.sqrt(4000))
    np.testing.assert_allclose(values.std(axis=1), sd[:5, 0], rtol=0.06)
    assert not np.isin(drawn, members).any()
    order = np.random.default_rng(1).permutation(len(genes))
    other = scoring.draw_sets(
        bins[order], [genes[i] for i in order], np.flatnonzero(np.isin(order, members)), n_sets=4000, seed=3, name="a"
    )
    assert (np.asarray(genes)[drawn] == np.asarray(genes)[order[other]]).all()
