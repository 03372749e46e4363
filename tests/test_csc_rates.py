"""Rates of the low and the high state: against scipy, tumours of one state, ambient RNA, luminal-progenitor likeness."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import minimize

from csc_cohort import ASSOCIATED, INDEPENDENT, KNOWN, OPTIONS, counts, simulate
from nicheloop import csc, csc_patients, csc_rates
from nicheloop import csc_model as model
from nicheloop.config_states import Csc
from nicheloop.csc_rates import GeneRates


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
    found = csc_rates.estimate_gene("CD24", table, group, floor=0, low_start=0, options=OPTIONS)
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
    return csc_patients.summarise(table, states, rates, options=OPTIONS, rng=np.random.default_rng(0), ambient=ambient)


MIXED = np.array([0.20, 0.50, 0.15, 0.15])


def one_rate(seed: int, cd44: float, cd24: float, median: float = 16000) -> pd.DataFrame:
    return simulate(seed, median=median, sample=f"one{seed}", rates=(cd44, cd44, cd24, cd24))


def test_tumours_of_one_state_get_no_fraction_and_do_not_touch_that_of_the_others() -> None:
    good = [simulate(20 + i, weights=MIXED, median=16000, sample=f"s{i}") for i in range(5)]
    one = [one_rate(30, 1.2, 1.0), one_rate(31, 1.5, 0.7), one_rate(32, 0.8, 1.5)]
    rates = csc_rates.estimate_rates(good + one, [{}] * 8, options=OPTIONS)
    alone = csc_rates.estimate_rates(good, [{}] * 5, options=OPTIONS)
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
    rates = csc_rates.estimate_rates([*good, pure], [{}] * 6, options=OPTIONS)
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
    rates = csc_rates.estimate_rates(tumours, [{}] * 8, options=OPTIONS)
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
        rates = csc_rates.estimate_rates(samples, ambient, options=OPTIONS)
        assert rates["CD24"].rates.low < 0.1
        for s, a, x in zip(samples, ambient, lows, strict=True):
            here = csc_rates.rates_in_sample(s, rates, options=OPTIONS, ambient=a)
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
    a, b = (
        csc_rates.rates_table({"u": csc_rates.estimate_rates(p, [{}] * 3, options=OPTIONS)}) for p in (parts, shuffled)
    )
    pd.testing.assert_frame_equal(a, b, check_exact=True)


@pytest.mark.parametrize("weights", [ASSOCIATED, INDEPENDENT])
def test_estimated_rates_recover_the_fraction(weights: np.ndarray) -> None:
    samples = [simulate(50 + i, weights=weights, median=16000, sample=f"s{i}") for i in range(6)]
    rates = csc_rates.estimate_rates(samples, [{}] * 6, options=OPTIONS)
    assert rates["CD44"].rates.high == pytest.approx(3.0, rel=0.15)
    assert rates["CD24"].rates.high == pytest.approx(4.0, rel=0.15)
    found = [csc.assess_m_csc(s, rates, options=OPTIONS) for s in samples]
    assert abs(np.mean([f.weights[csc.M_CSC] for f in found]) - weights[csc.M_CSC]) < 0.02
    positive = np.concatenate([f.prob > 0.8 for f in found])
    truth = np.concatenate([s["truth"] == 2 for s in samples])
    assert truth[positive].mean() > 0.7


# ---------------------------------------------------------------------------------------------------------- ALDH1A3
def test_lp_effect_is_recovered_and_removes_what_it_explains() -> None:
    samples = [simulate(70 + i, lp=0.5, median=16000, sample=f"s{i}") for i in range(4)]
    rates = csc_rates.estimate_rates(samples, [{}] * 4, options=OPTIONS)
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
        rates = csc_rates.estimate_rates(tables, [{}] * len(tables), options=options)
        states, _, _ = csc.call_cells(tables[-1], rates, options=options)
        return csc_patients.summarise(tables[-1], states, rates, options=options, rng=np.random.default_rng(0))

    lp_like = last(samples)
    assert lp_like["aldh1a3_fraction"] > 0.4  # its low cells make as much as others' high cells; 0.15 are high
    assert lp_like["aldh1a3_lp_fraction"] < 0.5 * lp_like["aldh1a3_fraction"]
    within = [s.assign(level_LP_covariate=s["level_LP_covariate"] - s["level_LP_covariate"].mean()) for s in samples]
    assert last(within)["aldh1a3_lp_fraction"] > 0.4  # a covariate centred in every sample adjusts nothing
    assert lp_like["aldh1a3_lp_low"] < lp_like["aldh1a3_lp_fraction"] < lp_like["aldh1a3_lp_high"]


def test_without_covariate_there_is_no_adjusted_probability() -> None:
    table = simulate(1, n=800, median=25000)
    rates = csc_rates.estimate_rates([table.drop(columns="level_LP_covariate")], [{}], options=OPTIONS)
    assert np.isnan(rates["ALDH1A3"].rates.effect)
    states, _, aldh = csc.call_cells(table, rates, options=OPTIONS)
    assert aldh.ok
    assert states["aldh1a3_prob"].notna().all()
    assert states["aldh1a3_lp_prob"].isna().all()


def test_tumours_of_one_state_each_are_told_apart_as_a_whole() -> None:
    """As cell lines are: some CD44-high/CD24-low, some the reverse, none mixed; one in the middle gets no answer."""
    rng = np.random.default_rng(8)
    spread = np.exp(rng.normal(0, 0.3, (12, 2)))
    kinds = [(5.0, 0.3)] * 6 + [(0.15, 8.0)] * 6
    tumours = [one_rate(70 + i, *(np.array(k) * s)) for i, (k, s) in enumerate(zip(kinds, spread, strict=True))]
    middle = one_rate(90, 0.9, 0.3)
    found = csc_rates.estimate_rates([*tumours, middle], [{}] * 13, options=OPTIONS)
    assert {found[g].status for g in ("CD44", "CD24")} == {"ok"}
    assert "one state each" in found["CD44"].reason
    assert found["CD44"].rates.bic_gain_samples < 0
    called = [csc.call_cells(t, found, options=OPTIONS) for t in tumours]
    assert {c[1].status for c in called} == {"ok"}
    median = [c[0]["m_csc_prob"].median() for c in called]
    assert min(median[:6]) > 0.99
    assert max(median[6:]) < 0.01
    assert csc.call_cells(middle, found, options=OPTIONS)[1].status == "not_bimodal"


def test_interval_carries_the_error_of_ambient_rate_and_of_the_effect() -> None:
    rates = model.Rates(0.2, 4.0, 3.0, effect=0.5, centre=0.0)
    rng = np.random.default_rng(0)
    size, covariate = rng.lognormal(0.5, 0.3, 400), rng.normal(3.0, 1.0, 400)
    draw = {"n_bootstrap": 300, "confidence": 0.95}
    weights = np.array([0.7, 0.3])

    def width(r: model.Rates, shift: np.ndarray | None) -> float:
        found = model.bootstrap([r], size, weights, 1, covariate=shift, rng=np.random.default_rng(1), **draw)
        return found.high - found.low

    known = width(rates, None)
    assert width(replace(rates, effect_se=0.1), covariate) > 1.2 * known
    assert width(replace(rates, log_low_se=1.0), None) > 1.1 * known


def test_ambient_rate_in_place_of_the_low_one_brings_its_own_error() -> None:
    sample = simulate(1, rates=(0.2, 3.0, 1.0, 4.0))
    here = csc_rates.rates_in_sample(sample, KNOWN, options=OPTIONS, ambient={"CD24": 0.9, "CD24 log_se": 0.2})
    assert here["CD24"].rates.low == pytest.approx(0.9)
    assert here["CD24"].rates.log_low_se == pytest.approx(0.2)
    assert here["CD44"].rates.log_low_se == KNOWN["CD44"].rates.log_low_se


def test_error_of_the_effect_is_its_spread_over_repeats() -> None:
    found = []
    for seed in range(30):
        t = simulate(300 + seed, n=400, median=20000, lp=0.3)
        z = t["level_LP_covariate"].to_numpy()
        x, size = t["umi_ALDH1A3"].to_numpy(), t["n_counts"].to_numpy() / 1e4
        found.append(model.fit_effect(x, size, np.zeros(400, dtype=int), z, model.Rates(0.1, 4.0, 3.0)))
    effects, _, errors = np.array(found).T
    assert np.mean(errors) == pytest.approx(np.std(effects, ddof=1), rel=0.4)
    assert np.mean(effects) == pytest.approx(0.3, abs=0.03)
