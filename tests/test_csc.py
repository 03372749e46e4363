"""CD44/CD24 and ALDH1A3 states: the model against scipy, the simulation of the science notes, reasons and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import minimize

from helpers import record_of
from nicheloop import csc, io
from nicheloop import csc_model as model
from nicheloop.config import Csc
from nicheloop.csc import GeneRates
from nicheloop.csc_model import Rates

KNOWN = {
    "CD44": GeneRates("ok", "", 0, Rates(0.2, 3.0, 3.0)),
    "CD24": GeneRates("ok", "", 0, Rates(0.2, 4.0, 3.0)),
    "ALDH1A3": GeneRates("ok", "", 0, Rates(0.1, 4.0, 3.0)),
}
ASSOCIATED = np.array([0.10, 0.70, 0.10, 0.10])  # low/low, low/high, high/low, high/high
INDEPENDENT = np.outer([0.75, 0.25], [0.2, 0.8]).ravel()  # high/low 5 %
HALF_PERCENT = np.array([0.045, 0.75, 0.005, 0.20])
OPTIONS = Csc(n_bootstrap=60)


def counts(rng: np.random.Generator, rate: np.ndarray, size: np.ndarray, shape: float = 3.0) -> np.ndarray:
    return rng.poisson(rng.gamma(shape, rate / shape) * size).astype(float)


def simulate(
    seed: int,
    *,
    n: int = 400,
    weights: np.ndarray = ASSOCIATED,
    median: float = 11000,
    sample: str = "s1",
    aldh: float = 0.3,
    others: int = 0,
    lp: float = 0.0,
    lp_shift: float = 0.0,
    lp_spread: float = 1.0,
    aldh_low: float = 0.1,
    rates: tuple[float, float, float, float] = (0.2, 3.0, 0.2, 4.0),
) -> pd.DataFrame:
    """Score table of one tumour; column ``truth`` is the joint state.

    `rates`: low and high of CD44, low and high of CD24.  `lp_shift`: luminal-progenitor level of the whole tumour.
    """
    rng = np.random.default_rng(seed)
    umi = np.round(rng.lognormal(np.log(median), 0.5, n))
    size, state = umi / 1e4, rng.choice(4, n, p=weights)
    z = lp_shift + lp_spread * rng.standard_normal(n)
    high = rng.random(n) < aldh
    table = pd.DataFrame({
        "cell_id": [f"{sample}:c{i:04d}" for i in range(n)], "compartment": "malignant", "n_counts": umi,
        "umi_CD44": counts(rng, np.where(state // 2, rates[1], rates[0]), size),
        "umi_CD24": counts(rng, np.where(state % 2, rates[3], rates[2]), size),
        "umi_ALDH1A3": counts(rng, np.where(high, 4.0, aldh_low) * np.exp(lp * z), size),
        "level_LP_covariate": np.maximum(5.0 + z, 0.0), "z_EMT_malignant": np.where(state == 2, 2.0, 0.0), "z_G2M": 0.0, "truth": state,
    })  # fmt: skip
    parts = [table]
    for kind, rate in (("t_nk", 3.0), ("caf", 3.0), ("pvl", 0.2)):
        if others:
            s = np.full(others, 0.9)
            parts.append(pd.DataFrame({
                "cell_id": [f"{sample}:{kind}{i}" for i in range(others)], "compartment": kind, "n_counts": 9000.0,
                "umi_CD44": counts(rng, np.full(others, rate), s), "umi_CD24": counts(rng, np.full(others, 0.05), s),
                "umi_ALDH1A3": 0.0, "level_LP_covariate": 0.1, "z_EMT_malignant": np.nan, "z_G2M": 0.0, "truth": -1,
            }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


# ----------------------------------------------------------------------------------------------------------- model
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


def test_rates_are_the_maximum_and_their_errors_come_from_the_curvature() -> None:
    table = simulate(5, n=600)
    x, size = table["umi_CD44"].to_numpy(), table["n_counts"].to_numpy() / 1e4
    fit = model.fit_rates(x, size, np.zeros(600, dtype=int), shape=3.0, min_shape=1.0)

    def loss(theta: np.ndarray) -> float:  # independent: scipy's law, one weight
        low, high, r, w = *np.exp(theta[:3]), 1 / (1 + np.exp(-theta[3]))
        pmf = [stats.nbinom.pmf(x, r, r / (r + rate * size)) for rate in (low, high)]
        return -np.log((1 - w) * pmf[0] + w * pmf[1]).sum()

    start = [np.log(fit.low), np.log(fit.high), np.log(fit.shape), -1.0]
    best = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8, "maxiter": 4000})
    np.testing.assert_allclose(np.log([fit.low, fit.high, fit.shape]), best.x[:3], atol=5e-3)
    step = 1e-3
    hessian = np.array([
        [sum(si * sj * loss(best.x + step * (si * np.eye(4)[i] + sj * np.eye(4)[j])) for si in (1, -1) for sj in (1, -1))
         / (4 * step**2) for j in range(4)] for i in range(4)
    ])  # fmt: skip
    errors = np.sqrt(np.diag(np.linalg.inv(hessian)))[:2]
    np.testing.assert_allclose([fit.log_low_se, fit.log_high_se], errors, rtol=0.05)


def test_low_rate_is_never_below_the_ambient_rate() -> None:
    table = simulate(6, n=600)
    x, size = table["umi_CD24"].to_numpy(), table["n_counts"].to_numpy() / 1e4
    fit = model.fit_rates(x, size, np.zeros(600, dtype=int), shape=3.0, min_shape=1.0, floor=0.5)
    assert fit.low == pytest.approx(0.5)
    assert fit.log_low_se == 0.0


@pytest.mark.parametrize(("shape", "samples"), [(3.0, 1), (3.0, 6), (1.0, 6)])
def test_one_state_is_not_taken_for_two(shape: float, samples: int) -> None:
    rng = np.random.default_rng(11)
    table = simulate(1, n=300 * samples)
    size = table["n_counts"].to_numpy() / 1e4
    table["umi_CD24"] = counts(rng, np.full(len(table), 2.0), size, shape)
    group = np.repeat(np.arange(samples), 300)
    found = csc.estimate_gene("CD24", table, group, floor=0, low_start=0, options=OPTIONS)
    assert found.status == "not_bimodal"
    assert found.rates is None
    assert "mean 2" in found.reason or "mean 1.9" in found.reason


def test_patients_that_differ_more_than_their_cells_are_named() -> None:
    rng = np.random.default_rng(2)
    size = rng.lognormal(0.1, 0.5, 1200)
    group = np.repeat(np.arange(4), 300)
    x = counts(rng, np.array([0.3, 0.8, 2.0, 5.0])[group], size)
    assert model.fit_rates(x, size, group, shape=3.0, min_shape=1.0).bic_gain_samples < 0


def patient_row(table: pd.DataFrame, rates: dict[str, GeneRates], **ambient: float) -> dict[str, object]:
    states, _, _ = csc.call_cells(table, rates, options=OPTIONS, ambient=ambient)
    return csc.summarise(table, states, rates, options=OPTIONS, rng=np.random.default_rng(0), ambient=ambient)


MIXED = np.array([0.20, 0.50, 0.15, 0.15])


def one_rate(seed: int, cd44: float, cd24: float, median: float = 16000) -> pd.DataFrame:
    return simulate(seed, median=median, sample=f"one{seed}", rates=(cd44, cd44, cd24, cd24))


def test_tumours_of_one_state_get_no_fraction_and_do_not_touch_that_of_the_others() -> None:
    good = [simulate(20 + i, weights=MIXED, median=16000, sample=f"s{i}") for i in range(5)]
    one = [one_rate(30, 1.2, 1.0), one_rate(31, 1.5, 0.7), one_rate(32, 0.8, 1.5)]
    rates = csc.estimate_rates(good + one, [{}] * 8, options=OPTIONS)
    alone = csc.estimate_rates(good, [{}] * 5, options=OPTIONS)
    for gene in ("CD44", "CD24"):
        assert rates[gene].rates == alone[gene].rates
        assert "3 samples left out" in rates[gene].reason
    rows = [patient_row(t, rates) for t in good + one]
    assert [r["status"] for r in rows] == ["ok"] * 5 + ["not_bimodal"] * 3
    assert sum(r["m_csc_low"] <= 0.15 <= r["m_csc_high"] for r in rows[:5]) >= 4
    assert all(np.isnan(r["m_csc_fraction"]) for r in rows[5:])
    assert "one state explains CD44 as well: mean 1.18 UMI per 10,000" in rows[5]["reason"]
    assert "one state explains CD24 as well: mean 1.02 UMI per 10,000" in rows[5]["reason"]


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.25, 2.5])
def test_a_nearly_pure_tumour_keeps_its_answer(scale: float) -> None:
    good = [simulate(20 + i, weights=MIXED, median=20000, sample=f"s{i}") for i in range(5)]
    pure = simulate(
        40, weights=np.array([0.015, 0.485, 0.015, 0.485]), median=20000, rates=(0.2, 3.0, 0.2, 4.0 * scale)
    )
    rates = csc.estimate_rates([*good, pure], [{}] * 6, options=OPTIONS)
    row = patient_row(pure, rates)
    assert row["status"] == "ok"
    assert row["m_csc_fraction"] < 0.04
    all_low = simulate(41, weights=np.array([0.5, 0.0, 0.5, 0.0]), median=20000)
    row = patient_row(all_low, rates)
    assert row["status"] == "ok"
    assert row["m_csc_fraction"] == pytest.approx(0.5, abs=0.1)


def test_a_cohort_of_one_state_tumours_is_not_bimodal_although_tumours_differ() -> None:
    rng = np.random.default_rng(3)
    tumours = [one_rate(60 + i, *np.exp(rng.normal(np.log(2.0), 0.8, 2))) for i in range(8)]
    rates = csc.estimate_rates(tumours, [{}] * 8, options=OPTIONS)
    assert {rates[g].status for g in ("CD44", "CD24")} == {"not_bimodal"}
    assert "samples differ more than the cells within them" in patient_row(tumours[0], rates)["reason"]


def test_the_low_state_of_a_sample_is_its_own_ambient_rate() -> None:
    lows = (0.05, 0.05, 0.05, 0.1, 0.8, 1.2)
    weights = np.array([0.25, 0.35, 0.15, 0.25])
    rows: dict[float, list[float]] = {x: [] for x in lows}
    unaware: dict[float, list[float]] = {x: [] for x in lows}
    for repeat in range(4):
        samples = [
            simulate(500 + 10 * repeat + i, weights=weights, median=16000, sample=f"s{i}", rates=(0.2, 3.0, x, 4.0))
            for i, x in enumerate(lows)
        ]
        ambient = [{"CD24": x, "CD44": 0.1} for x in lows]
        rates = csc.estimate_rates(samples, ambient, options=OPTIONS)
        assert rates["CD24"].rates.low < 0.1
        for s, a, x in zip(samples, ambient, lows, strict=True):
            here = csc.rates_in_sample(s, rates, options=OPTIONS, ambient=a)
            assert here["CD24"].rates.low >= x
            aware = csc.assess_m_csc(s, here, options=OPTIONS)
            if aware.ok:  # 1.2 and 4 are 3.3-fold apart: now and then one state explains them as well
                rows[x].append(aware.weights[csc.M_CSC])
                unaware[x].append(csc.assess_m_csc(s, rates, options=OPTIONS).weights[csc.M_CSC])
    assert all(len(found) >= 4 for x, found in rows.items() if x < 1)
    assert len(rows[1.2]) >= 2
    for x, found in rows.items():
        assert np.mean(found) == pytest.approx(0.15, abs=0.03), x
    assert np.mean(unaware[1.2]) < 0.08  # one low rate for all would call the ambient of that sample expression


def test_ambient_near_the_high_rate_leaves_no_answer_and_an_unknown_one_the_common_rate() -> None:
    table = simulate(1, median=20000)
    row = patient_row(table, KNOWN, CD24=1.5)
    assert row["status"] == "hidden_by_ambient"
    assert "1.5 UMI per 10,000 of CD24" in row["reason"]
    assert patient_row(table, KNOWN, CD24=np.nan)["m_csc_fraction"] == patient_row(table, KNOWN)["m_csc_fraction"]


def test_rates_do_not_depend_on_cell_order() -> None:
    parts = [simulate(i, sample=f"s{i}") for i in range(3)]
    shuffled = [p.sample(frac=1, random_state=4) for p in parts]
    a, b = (csc.rates_table({"u": csc.estimate_rates(p, [{}] * 3, options=OPTIONS)}) for p in (parts, shuffled))
    pd.testing.assert_frame_equal(a, b, check_exact=True)


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


@pytest.mark.parametrize("weights", [ASSOCIATED, INDEPENDENT])
def test_estimated_rates_recover_the_fraction(weights: np.ndarray) -> None:
    samples = [simulate(50 + i, weights=weights, median=16000, sample=f"s{i}") for i in range(6)]
    rates = csc.estimate_rates(samples, [{}] * 6, options=OPTIONS)
    assert rates["CD44"].rates.high == pytest.approx(3.0, rel=0.15)
    assert rates["CD24"].rates.high == pytest.approx(4.0, rel=0.15)
    found = [csc.assess_m_csc(s, rates, options=OPTIONS) for s in samples]
    assert abs(np.mean([f.weights[csc.M_CSC] for f in found]) - weights[csc.M_CSC]) < 0.02
    positive = np.concatenate([f.prob > 0.8 for f in found])
    truth = np.concatenate([s["truth"] == 2 for s in samples])
    assert truth[positive].mean() > 0.7


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


@pytest.mark.parametrize("median", [16000, 25000])
def test_half_a_percent_is_not_distinguishable_from_zero(median: int) -> None:
    said = []
    for seed in range(6):
        table = simulate(300 + seed, n=600, weights=HALF_PERCENT, median=median)
        states, _, _ = csc.call_cells(table, KNOWN, options=OPTIONS)
        row = csc.summarise(table, states, KNOWN, options=OPTIONS, rng=np.random.default_rng(seed))
        said.append(row["m_csc_wording"])
        assert row["m_csc_high"] >= 0.005
    assert said.count(csc.NOT_DISTINGUISHABLE) >= 5


def test_ten_percent_is_estimated_and_the_contrasts_point_the_right_way() -> None:
    table = simulate(9, n=600, median=16000)
    states, _, _ = csc.call_cells(table, KNOWN, options=OPTIONS)
    row = csc.summarise(table, states, KNOWN, options=OPTIONS, rng=np.random.default_rng(0))
    assert row["m_csc_wording"] == "estimated"
    assert row["m_csc_low"] < 0.10 < row["m_csc_high"]
    assert row["odds_ratio"] < 1  # CD44 and CD24 exclude each other here
    assert row["emt_z_csc"] > 1
    assert row["cycling_z_csc"] == 0
    assert row["overlap_fraction"] == pytest.approx(row["overlap_expected"], abs=0.02)  # drawn independently


# --------------------------------------------------------------------------------------------------------- ALDH1A3
def test_lp_effect_is_recovered_and_removes_what_it_explains() -> None:
    samples = [simulate(70 + i, lp=0.5, median=16000, sample=f"s{i}") for i in range(4)]
    rates = csc.estimate_rates(samples, [{}] * 4, options=OPTIONS)
    assert rates["ALDH1A3"].rates.effect == pytest.approx(0.5, abs=0.1)
    lp_like = samples[0].assign(level_LP_covariate=samples[0]["level_LP_covariate"] + 1.0)
    same, shifted = csc.lp_adjusted(samples[0], rates)[1][1], csc.lp_adjusted(lp_like, rates)[1][1]
    assert shifted < same  # the same counts mean less in a tumour that resembles luminal progenitors


def test_a_tumour_that_resembles_luminal_progenitors_as_a_whole_is_adjusted() -> None:
    options = Csc(n_bootstrap=60, min_informative=0.0)
    shifts = (-1 / 3, -1 / 3, -1 / 3, 0.0, 0.0, 1.0)
    samples = [
        simulate(90 + i, lp=0.8, lp_shift=d, lp_spread=0.3, aldh_low=0.4, aldh=0.15, median=16000, sample=f"s{i}")
        for i, d in enumerate(shifts)
    ]

    def last(tables: list[pd.DataFrame]) -> dict[str, object]:
        rates = csc.estimate_rates(tables, [{}] * len(tables), options=options)
        states, _, _ = csc.call_cells(tables[-1], rates, options=options)
        return csc.summarise(tables[-1], states, rates, options=options, rng=np.random.default_rng(0))

    lp_like = last(samples)
    assert lp_like["aldh1a3_fraction"] > 0.4  # its low cells make as much as others' high cells; 0.15 are high
    assert lp_like["aldh1a3_lp_fraction"] < 0.5 * lp_like["aldh1a3_fraction"]
    within = [s.assign(level_LP_covariate=s["level_LP_covariate"] - s["level_LP_covariate"].mean()) for s in samples]
    assert last(within)["aldh1a3_lp_fraction"] > 0.4  # a covariate centred in every sample adjusts nothing
    assert lp_like["aldh1a3_lp_low"] < lp_like["aldh1a3_lp_fraction"] < lp_like["aldh1a3_lp_high"]


def test_without_covariate_there_is_no_adjusted_probability() -> None:
    table = simulate(1, n=800, median=25000)
    rates = csc.estimate_rates([table.drop(columns="level_LP_covariate")], [{}], options=OPTIONS)
    assert np.isnan(rates["ALDH1A3"].rates.effect)
    states, _, aldh = csc.call_cells(table, rates, options=OPTIONS)
    assert aldh.ok
    assert states["aldh1a3_prob"].notna().all()
    assert states["aldh1a3_lp_prob"].isna().all()


# --------------------------------------------------------------------------------------------------------- reasons
def without(table: pd.DataFrame, gene: str) -> pd.DataFrame:
    return table.assign(**{f"umi_{gene}": np.nan})


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


def test_controls_show_why_other_types_are_left_out() -> None:
    rows = {r["cell_type"]: r for r in csc.controls(simulate(4, others=60), KNOWN, options=OPTIONS)}
    assert rows["t_nk"]["fraction_called"] > 0.5
    assert rows["pvl"]["fraction_called"] < 0.1
    assert rows["myeloid"]["n_cells"] == 0
    assert np.isnan(rows["myeloid"]["fraction_called"])


# ----------------------------------------------------------------------------------------------------------- files
def write_sample(
    folder: Path, table: pd.DataFrame, sample: str, summary: dict[str, object] | None = None, **record: object
) -> dict[str, Path]:
    folder = folder / sample
    paths = {k: folder / f"{k}.parquet" for k in ("scores", "ambient", "csc")}
    paths["record"] = folder / "ingest.json"
    said = io.Status("score", sample, summary=summary or {})
    io.write_table(table.drop(columns="truth", errors="ignore"), paths["scores"], "scores", said)
    ambient = pd.DataFrame(
        {"gene": ["CD44", "CD24", "ACTB"], "ambient_fraction": [1e-4, 1e-4, 1e-2], "contamination_rate": 0.03}
    )
    io.write_table(ambient, paths["ambient"], "ambient")
    io.write_json(paths["record"], record_of(sample, len(table), 3, **record))
    return paths


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Path]]]:
    """Eight samples run through the three stages: two good ones of one patient, and every way to fail."""
    folder = tmp_path_factory.mktemp("csc")
    empty = simulate(1).iloc[:0]
    samples = [
        write_sample(
            folder, simulate(1, n=500, median=18000, sample="a1", others=30), "a1", patient="A", tissue="primary"
        ),
        write_sample(folder, simulate(2, n=600, median=18000, sample="a2"), "a2", patient="A", tissue="lymph node"),
        write_sample(folder, simulate(3, n=300, median=18000, sample="b"), "b", subtype="TNBC"),
        write_sample(folder, simulate(4, n=300, median=3000, sample="shallow"), "shallow"),
        write_sample(folder, without(simulate(5, sample="v19", median=25000), "CD24"), "v19"),
        write_sample(folder, simulate(6, n=90, sample="tpm"), "tpm", is_counts=False),
        write_sample(folder, empty, "broken", status="unreadable", reason="cannot be read"),
        write_sample(folder, simulate(7, n=500, sample="other", median=18000), "other", chemistry="10x 3' v2"),
    ]
    scores, ambient, records = ([s[k] for s in samples] for k in ("scores", "ambient", "record"))
    csc.run_csc_rates(scores, ambient, records, folder / "rates.parquet", options=OPTIONS)
    for s in samples:
        csc.run_csc(s["scores"], folder / "rates.parquet", s["record"], s["ambient"], s["csc"], options=OPTIONS)
    cells = [s["csc"] for s in samples]
    csc.run_csc_patients(
        cells, scores, ambient, records, folder / "rates.parquet", folder / "p.tsv", folder / "c.tsv",
        options=OPTIONS, seed=1,
    )  # fmt: skip
    return folder, samples


def test_rates_file_has_a_row_per_chemistry_and_gene(cohort: tuple[Path, list[dict[str, Path]]]) -> None:
    rates = io.read_table(cohort[0] / "rates.parquet").set_index(["chemistry", "gene"])
    assert set(rates.index.get_level_values(0)) == {"unknown", "10x 3' v2"}
    assert len(rates) == 6
    row = rates.loc[("unknown", "CD24")]
    assert row["status"] == "ok"
    assert row["low"] >= 0.03 - 1e-9  # ambient: 0.03 x 1e-4 x 10,000
    assert rates.loc[("unknown", "CD44"), "n_cells"] == 500 + 600 + 300 + 300 + 400


def test_every_kept_cell_has_a_row_and_every_failure_its_name(cohort: tuple[Path, list[dict[str, Path]]]) -> None:
    status = {}
    for s in cohort[1]:
        table, scores = io.read_table(s["csc"]), io.read_table(s["scores"])
        assert table["cell_id"].tolist() == scores["cell_id"].tolist()
        status[s["csc"].parent.name] = io.read_status(s["csc"]).status
    assert status == {
        "a1": "ok", "a2": "ok", "b": "ok", "shallow": "not_informative_depth", "v19": "cd24_absent_from_reference",
        "tpm": "no_counts", "broken": "unreadable", "other": "ok",
    }  # fmt: skip
    v19 = io.read_table(cohort[1][4]["csc"])
    assert set(v19["aldh1a3_state"]) >= {"high", "low"}  # ALDH1A3 stands on its own


def test_the_cause_of_too_few_malignant_cells_is_named(tmp_path: Path) -> None:
    table = simulate(1, n=90, others=5).assign(compartment="epithelial")
    said = {"malignancy": {"status": "insufficient_reference_cells", "epithelial": {"without a call": 90}}}
    s = write_sample(tmp_path, table, "x", summary=said)
    good = write_sample(tmp_path, simulate(2, n=500, median=18000), "good")
    both = [s, good]
    scores, ambient, records = ([p[k] for p in both] for k in ("scores", "ambient", "record"))
    csc.run_csc_rates(scores, ambient, records, tmp_path / "r.parquet", options=OPTIONS)
    for p in both:
        csc.run_csc(p["scores"], tmp_path / "r.parquet", p["record"], p["ambient"], p["csc"], options=OPTIONS)
    status = io.read_status(s["csc"])
    assert status.status == "too_few_malignant"
    words = (
        "0 malignant cells, 50 needed (malignancy: insufficient_reference_cells; 90 epithelial cells without a call)"
    )
    assert status.reason == words
    known = io.read_status(good["csc"]).summary["ambient_rate"]
    assert known.pop("ALDH1A3") is None
    assert known == pytest.approx({"CD44": 0.03, "CD24": 0.03})
    csc.run_csc_patients(
        [p["csc"] for p in both], scores, ambient, records, tmp_path / "r.parquet", tmp_path / "p.tsv",
        tmp_path / "c.tsv", options=OPTIONS, seed=1,
    )  # fmt: skip
    assert io.read_table(tmp_path / "p.tsv").set_index("sample").loc["x", "reason"] == words


def test_normal_tissue_speaks_for_nobody_and_stays_out_of_the_rates(tmp_path: Path) -> None:
    both = [
        write_sample(tmp_path, simulate(2, n=500, median=18000, sample="t"), "t", patient="A", tissue="tumour"),
        write_sample(tmp_path, simulate(3, n=700, median=18000, sample="n"), "n", patient="B", tissue="normal"),
    ]
    scores, ambient, records = ([p[k] for p in both] for k in ("scores", "ambient", "record"))
    csc.run_csc_rates(scores, ambient, records, tmp_path / "r.parquet", options=OPTIONS)
    assert set(io.read_table(tmp_path / "r.parquet")["n_cells"]) == {500}
    for p in both:
        csc.run_csc(p["scores"], tmp_path / "r.parquet", p["record"], p["ambient"], p["csc"], options=OPTIONS)
    csc.run_csc_patients(
        [p["csc"] for p in both], scores, ambient, records, tmp_path / "r.parquet", tmp_path / "p.tsv",
        tmp_path / "c.tsv", options=OPTIONS, seed=1,
    )  # fmt: skip
    rows = io.read_table(tmp_path / "p.tsv").set_index("sample")
    assert rows["primary_sample"].tolist() == [True, False]
    assert rows.loc["n", "status"] == rows.loc["n", "aldh1a3_status"] == "normal_tissue"
    assert rows.loc["n", "n_malignant"] == 700
    assert "700 cells called malignant" in rows.loc["n", "reason"]
    assert rows.loc["n", ["m_csc_fraction", "aldh1a3_fraction", "overlap_fraction"]].isna().all()


def test_patient_table(cohort: tuple[Path, list[dict[str, Path]]]) -> None:
    rows = io.read_table(cohort[0] / "p.tsv").set_index("sample")
    assert bool(rows.loc["a1", "primary_sample"])
    assert not bool(rows.loc["a2", "primary_sample"])  # more cells, but a lymph node
    assert rows.loc["a1", "m_csc_low"] < 0.10 < rows.loc["a1", "m_csc_high"]
    assert rows.loc["broken", "status"] == "unreadable"
    assert np.isnan(rows.loc["shallow", "m_csc_fraction"])
    assert rows.loc["shallow", "informative_fraction"] < 0.5
    assert rows.loc["b", "subtype"] == "TNBC"
    controls = io.read_table(cohort[0] / "c.tsv")
    assert len(controls) == 8 * len(csc.CONTROL_TYPES)


def test_interval_of_a_sample_does_not_depend_on_the_others(
    cohort: tuple[Path, list[dict[str, Path]]], tmp_path: Path
) -> None:
    folder, samples = cohort
    alone = samples[2]
    csc.run_csc_patients(
        [alone["csc"]], [alone["scores"]], [alone["ambient"]], [alone["record"]], folder / "rates.parquet",
        tmp_path / "p.tsv", tmp_path / "c.tsv", options=OPTIONS, seed=1,
    )  # fmt: skip
    columns = ["m_csc_fraction", "m_csc_low", "m_csc_high", "aldh1a3_low", "aldh1a3_high"]
    a = io.read_table(tmp_path / "p.tsv").set_index("sample").loc["b", columns]
    b = io.read_table(folder / "p.tsv").set_index("sample").loc["b", columns]
    assert a.tolist() == b.tolist()


def test_cohort_without_any_usable_sample(tmp_path: Path) -> None:
    s = write_sample(tmp_path, simulate(1).iloc[:0], "broken", status="unreadable", reason="cannot be read")
    csc.run_csc_rates([s["scores"]], [s["ambient"]], [s["record"]], tmp_path / "r.parquet", options=OPTIONS)
    assert set(io.read_table(tmp_path / "r.parquet")["status"]) == {"too_few_malignant"}
    csc.run_csc(s["scores"], tmp_path / "r.parquet", s["record"], s["ambient"], s["csc"], options=OPTIONS)
    csc.run_csc_patients(
        [s["csc"]], [s["scores"]], [s["ambient"]], [s["record"]], tmp_path / "r.parquet", tmp_path / "p.tsv", tmp_path / "c.tsv",
        options=OPTIONS, seed=0,
    )  # fmt: skip
    assert io.read_table(tmp_path / "p.tsv")["status"].tolist() == ["unreadable"]


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
    options = Csc(min_malignant=20, min_informative=0.0)
    samples = [table[line == name] for name in np.unique(line)]
    # Each line has one state with a rate of its own: no line is given a fraction ...
    found = csc.estimate_rates(samples, [{}] * len(samples), options=options)
    assert {found[g].status for g in ("CD44", "CD24")} == {"not_bimodal"}
    # ... but at rates fitted over all lines the posterior ranks their cells as the phenotypes say.
    group = np.unique(line, return_inverse=True)[1]
    size = table["n_counts"].to_numpy() / 1e4
    rates = {
        g: GeneRates(
            "ok", "", 930, model.fit_rates(table[f"umi_{g}"].to_numpy(), size, group, shape=3.0, min_shape=1.0)
        )
        for g in ("CD44", "CD24")
    }
    prob = np.full(len(table), np.nan)
    for name in np.unique(line):
        prob[line == name] = csc.assess_m_csc(table[line == name], rates, options=options).prob
    a = prob[np.isin(line, ["BT549", "HS578T", "MDAMB436", "MCF12A"])]
    b = prob[np.isin(line, ["MCF7", "T47D", "BT474", "AU565", "MDAMB361"])]
    assert (len(a), len(b)) == (120, 150)
    auroc = stats.mannwhitneyu(a, b).statistic / (len(a) * len(b))
    assert auroc >= 0.98
