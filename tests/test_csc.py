"""CD44/CD24 and ALDH1A3 states: the model against scipy, the simulation of the science notes, reasons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import minimize

from csc_cohort import ASSOCIATED, HALF_PERCENT, INDEPENDENT, KNOWN, OPTIONS, simulate, without
from nicheloop import csc, csc_rates
from nicheloop import csc_model as model
from nicheloop.config_states import Csc
from nicheloop.csc_model import Rates
from nicheloop.csc_rates import GeneRates


# ------------------------------------------------------------------------------------------------------------ model
def test_emission_is_negative_binomial_with_offset() -> None:
    rng = np.random.default_rng(0)
    x, size = rng.poisson(5, 200).astype(float), rng.uniform(0.1, 4, 200)
    mean = 3.7 * size
    expected = stats.nbinom.logpmf(x, 2.5, 2.5 / (2.5 + mean))
    np.testing.assert_allclose(model.log_emission(x, size, 3.7, 2.5), expected, rtol=1e-9)
    np.testing.assert_allclose(model.zero_probability(size, 3.7, 2.5), stats.nbinom.pmf(0, 2.5, 2.5 / (2.5 + mean)))


def test_informative_needs_three_umi_in_the_poisson_limit_and_more_when_dispersed() -> None:
    size = np.array([2.9, 3.1, 5.0, 5.3])
    assert (model.zero_probability(size, 1.0, 1e6) <= 0.05).tolist() == [False, True, True, True]
    assert (model.zero_probability(size, 1.0, 3.0) <= 0.05).tolist() == [False, False, False, True]


def test_weights_reach_the_maximum_of_the_likelihood() -> None:
    table = simulate(3, median=5000)
    size = table["n_counts"].to_numpy() / 1e4
    parts = [KNOWN[g].rates.log_lik(table[f"umi_{g}"].to_numpy(), size) for g in ("CD44", "CD24")]
    weights, loglik = model.fit_weights(model.joint_log_likelihood(*parts))

    lik = np.stack([
        stats.nbinom.pmf(table["umi_CD44"], 3, 3 / (3 + a * size)) * stats.nbinom.pmf(table["umi_CD24"], 3, 3 / (3 + b * size))
        for a in (0.2, 3.0) for b in (0.2, 4.0)
    ])  # fmt: skip

    def loss(logits: np.ndarray) -> float:
        w = np.exp(np.append(logits, 0.0))
        return -np.log(w / w.sum() @ lik).sum()

    best = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 5000})
    w = np.exp(np.append(best.x, 0.0))
    np.testing.assert_allclose(weights, w / w.sum(), atol=1e-4)
    assert loglik == pytest.approx(-best.fun, abs=1e-5)


def test_batched_fits_equal_single_fits_and_survive_no_cells() -> None:
    rng = np.random.default_rng(1)
    log_lik = rng.normal(size=(3, 4, 50))
    together, _ = model.fit_weights(log_lik)
    for one, expected in zip(log_lik, together, strict=True):
        np.testing.assert_allclose(model.fit_weights(one)[0], expected, atol=1e-5)
    assert model.fit_weights(np.zeros((4, 0)))[0].tolist() == [0.25] * 4


def test_posterior_is_bayes_rule() -> None:
    log_lik = np.log(np.array([[0.2, 1e-300], [0.4, 1e-200]]))
    np.testing.assert_allclose(model.posterior(log_lik, np.array([0.8, 0.2]))[:, 0], [2 / 3, 1 / 3])
    assert np.isfinite(model.posterior(log_lik, np.array([1.0, 0.0]))).all()


# ------------------------------------------------------------------------------------ the simulation of section 1.5
def fractions(weights: np.ndarray, median: float, repeats: int = 12) -> np.ndarray:
    """(repeats, 3) naive, product and joint estimate with known rates, 600 cells."""
    out = []
    for seed in range(repeats):
        table = simulate(1000 + seed, n=600, weights=weights, median=median)
        size = table["n_counts"].to_numpy() / 1e4
        x44, x24 = table["umi_CD44"].to_numpy(), table["umi_CD24"].to_numpy()
        a, b = (KNOWN[g].rates.log_lik(table[f"umi_{g}"].to_numpy(), size) for g in ("CD44", "CD24"))
        p44, p24 = (model.posterior(part, model.fit_weights(part)[0])[1] for part in (a, b))
        joint = model.fit_weights(model.joint_log_likelihood(a, b))[0][csc.M_CSC]
        out.append([np.mean((x44 > 0) & (x24 == 0)), np.mean(p44 * (1 - p24)), joint])
    return np.array(out)


def test_product_halves_an_association_and_the_joint_fit_does_not() -> None:
    _, product, joint = fractions(ASSOCIATED, 10000).mean(axis=0)
    assert product < 0.07
    assert abs(joint - 0.10) < 0.015


@pytest.mark.parametrize("median", [2000, 20000])
def test_naive_rule_overstates_a_rare_state_and_the_joint_fit_does_less(median: int) -> None:
    naive, _, joint = fractions(HALF_PERCENT, median).mean(axis=0)
    assert naive > 0.015
    assert abs(joint - 0.005) < abs(naive - 0.005) / 2


def test_joint_fit_has_the_smallest_worst_case_error() -> None:
    error = [
        np.sqrt(((fractions(w, m) - w[csc.M_CSC]) ** 2).mean(axis=0)) for w in (ASSOCIATED, INDEPENDENT, HALF_PERCENT)
        for m in (10000, 20000)
    ]  # fmt: skip
    assert np.argmin(np.max(error, axis=0)) == 2


def test_interval_covers_the_truth() -> None:
    hits = []
    genes = [KNOWN["CD44"].rates, KNOWN["CD24"].rates]
    for seed in range(60):
        table = simulate(2000 + seed, n=300, median=16000)
        size = table["n_counts"].to_numpy() / 1e4
        found = csc.assess_m_csc(table, KNOWN, options=OPTIONS)
        rng = np.random.default_rng(seed)
        ends = model.bootstrap(genes, size, found.weights, 2, n_bootstrap=100, confidence=0.95, rng=rng)
        hits.append(ends.low <= 0.10 <= ends.high)
    assert stats.binomtest(sum(hits), len(hits), 0.95).pvalue > 0.001


def test_uncertain_rates_widen_the_interval() -> None:
    table = simulate(1)
    size = table["n_counts"].to_numpy() / 1e4
    widths = []
    for error in (0.0, 0.4):
        genes = [Rates(0.2, 3.0, 3.0, error, error), Rates(0.2, 4.0, 3.0, error, error)]
        ends = model.bootstrap(
            genes, size, ASSOCIATED, 2, n_bootstrap=200, confidence=0.95, rng=np.random.default_rng(0)
        )
        widths.append(ends.high - ends.low)
    assert widths[1] > 1.3 * widths[0]


# ---------------------------------------------------------------------------------------------------------- reasons
NOT_BIMODAL = {**KNOWN, "CD44": GeneRates("not_bimodal", "one state")}


@pytest.mark.parametrize(
    ("table", "rates", "status"),
    [
        (without(simulate(1), "CD24"), KNOWN, "cd24_absent_from_reference"),
        (simulate(1).drop(columns="umi_CD24"), KNOWN, "cd24_absent_from_reference"),
        (without(simulate(1), "CD44"), KNOWN, "cd44_absent_from_reference"),
        (simulate(1, n=49), KNOWN, "too_few_malignant"),
        (simulate(1, n=90).assign(compartment="caf"), KNOWN, "too_few_malignant"),
        (simulate(1, median=3000), KNOWN, "not_informative_depth"),
        (simulate(1), NOT_BIMODAL, "not_bimodal"),
        (simulate(1), {}, "rates_not_estimated"),
    ],
)
def test_reason_of_no_answer(table: pd.DataFrame, rates: dict[str, GeneRates], status: str) -> None:
    states, m_csc, _ = csc.call_cells(table, rates, options=OPTIONS)
    assert m_csc.status == status
    malignant = (table["compartment"] == "malignant").to_numpy()
    assert set(states["csc_status"][malignant]) <= {status}
    assert set(states["csc_status"][~malignant]) <= {"not_malignant"}
    assert (states["csc_state"] == "not_assessable").all()
    assert states["m_csc_prob"].isna().all()


def test_cells_keep_their_state_in_any_order() -> None:
    table = simulate(4, others=20)
    a = csc.call_cells(table, KNOWN, options=OPTIONS)[0].set_index("cell_id")
    b = (
        csc.call_cells(table.sample(frac=1, random_state=0), KNOWN, options=OPTIONS)[0]
        .set_index("cell_id")
        .loc[a.index]
    )
    np.testing.assert_allclose(a["m_csc_prob"], b["m_csc_prob"], atol=1e-6)
    assert (a["csc_state"] == b["csc_state"]).all()
    assert a.loc["s1:t_nk0", "csc_status"] == "not_malignant"


# -------------------------------------------------------------------------------------------- AnnData and real data
def test_score_on_anndata_finds_genes_by_ensembl_id_and_refuses_other_values() -> None:
    import anndata as ad

    from nicheloop.errors import UserError

    table = simulate(8, n=900, median=25000)
    filler = table["n_counts"] - table[["umi_CD44", "umi_CD24", "umi_ALDH1A3"]].sum(axis=1)
    x = np.column_stack([table["umi_CD44"], table["umi_CD24"], table["umi_ALDH1A3"], filler])
    adata = ad.AnnData(x, obs=pd.DataFrame(index=table["cell_id"].tolist()))
    adata.var_names = ["ENSG00000026508", "ENSG00000272398", "ENSG00000184254", "ACTB"]
    adata.obs["tumour"] = np.arange(900) >= 20
    out = csc.score(adata, malignant="tumour")
    assert out.index.tolist() == adata.obs_names.tolist()
    assert (out["csc_status"][:20] == "not_malignant").all()
    truth = (table["truth"] == 2).to_numpy()
    assert out["m_csc_prob"][20:][truth[20:]].mean() > 5 * out["m_csc_prob"][20:][~truth[20:]].mean()
    adata.X = adata.X / 3.0
    with pytest.raises(UserError, match="raw counts"):
        csc.score(adata)


def test_cell_lines_of_known_phenotype_are_told_apart(real_data: Path) -> None:
    import anndata as ad

    adata = ad.read_h5ad(real_data / "cell_lines" / "BC_cell_lines_930.h5ad")
    names = list(adata.var_names)
    table = pd.DataFrame({
        "cell_id": adata.obs_names.to_numpy(), "compartment": "malignant", "n_counts": np.asarray(adata.X.sum(axis=1)).ravel(),
        **{f"umi_{g}": np.asarray(adata.X[:, [names.index(e)]].sum(axis=1)).ravel()
           for g, e in {"CD44": "ENSG00000026508", "CD24": "ENSG00000272398"}.items()},
    })  # fmt: skip
    line = adata.obs["cell_line"].astype(str).to_numpy()
    options = Csc(min_malignant=20)
    samples = [table[line == name] for name in np.unique(line)]
    # Each line has one state with a rate of its own: read as a whole, not as a mixture.
    found = csc_rates.estimate_rates(samples, [{}] * len(samples), options=options)
    assert {found[g].status for g in ("CD44", "CD24")} == {"ok"}
    assert found["CD44"].rates.bic_gain_samples < 0
    prob, status = np.full(len(table), np.nan), {}
    for name in np.unique(line):
        here = csc_rates.rates_in_sample(table[line == name], found, options=options)
        answer = csc.assess_m_csc(table[line == name], here, options=options)
        status[name] = answer.status
        if answer.prob is not None or answer.shallow is not None:
            prob[line == name] = answer.prob if answer.prob is not None else answer.shallow[1]
    high, low = ["BT549", "HS578T", "MDAMB436", "MCF12A"], ["MCF7", "T47D", "BT474", "AU565", "MDAMB361"]
    assert {status[x] for x in [*high, "MCF7", "T47D", "BT474", "MDAMB361"]} == {"ok"}
    assert (
        status["AU565"] == "not_informative_depth"
    )  # 10 of 30 cells deep enough: no fraction, whatever the posterior says
    a, b = prob[np.isin(line, high)], prob[np.isin(line, low)]
    assert (len(a), len(b)) == (120, 150)
    auroc = stats.mannwhitneyu(a, b).statistic / (len(a) * len(b))
    assert auroc >= 0.99
    assert (a > options.positive).mean() > 0.95
    assert (b < options.negative).mean() > 0.95
