"""Statistics against scipy, statsmodels and numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sps

from nicheloop import stats


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_bh_agrees_with_scipy(p):
    np.testing.assert_allclose(stats.bh(p), sps.false_discovery_control(p), atol=1e-12)


def test_bh_leaves_na_out():
    got = stats.bh([0.01, np.nan, 0.04, np.nan])
    np.testing.assert_allclose(got[[0, 2]], sps.false_discovery_control([0.01, 0.04]))
    assert np.isnan(got[[1, 3]]).all()
    assert stats.bh([]).size == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats.bh([1.2])


def test_permutation_p_by_hand():
    null = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    np.testing.assert_allclose(stats.permutation_p([2.5, 9.0], null), [2 / 4, 1 / 4])
    assert stats.permutation_p(2.0, [1.0, 2.0, 3.0]) == 3 / 4  # a tie counts against
    assert stats.permutation_p(0.1 + 0.2, [0.3] * 9) == 1.0  # rounding does not make a tie a win
    assert stats.permutation_p(-2.0, [1.0, 0.0, -3.0], alternative="less") == 2 / 4
    assert stats.permutation_p(-2.0, [1.0, 0.0, -3.0], alternative="two-sided") == 2 / 4
    assert np.isnan(stats.permutation_p(np.nan, [1.0, 2.0]))
    assert stats.permutation_p(5.0, [np.nan, 1.0]) == 2 / 3
    with pytest.raises(ValueError, match="alternative"):
        stats.permutation_p(1.0, [1.0], alternative="up")


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 1000)])
def test_proportion_bounds_agree_with_scipy(k, n):
    oracle = sps.binomtest(k, n).proportion_ci(0.9, method="wilson")
    np.testing.assert_allclose(stats.wilson(k, n, 0.9), (oracle.low, oracle.high), atol=1e-12)
    exact = sps.binomtest(k, n, alternative="less").proportion_ci(0.95, method="exact")
    assert stats.upper_bound(k, n) == pytest.approx(exact.high)


def test_rule_of_three():
    assert stats.rule_of_three(3000) == pytest.approx(1 - 0.05 ** (1 / 3000))
    assert stats.rule_of_three(3000) == pytest.approx(3 / 3000, rel=0.01)
    assert np.isnan(stats.rule_of_three(0)) and np.isnan(stats.wilson(0, 0)).all()
    with pytest.raises(ValueError, match="between 0 and n"):
        stats.upper_bound(4, 3)


@pytest.mark.parametrize("seed", range(5))
def test_random_effects_agrees_with_statsmodels(seed):
    from statsmodels.stats.meta_analysis import combine_effects

    rng = np.random.default_rng(seed)
    se = rng.uniform(0.1, 0.6, 9)
    y = rng.normal(0.4, 0.5, 9) + rng.normal(0, se)
    oracle = combine_effects(y, se**2, method_re="pm", use_t=True)
    got = stats.random_effects(y, se)
    assert got.tau2 == pytest.approx(oracle.tau2, abs=1e-4)
    assert got.effect == pytest.approx(oracle.mean_effect_re, abs=1e-4)
    assert got.i2 == pytest.approx(max(0.0, oracle.i2), abs=1e-6)
    sd = np.sqrt(max(1.0, oracle.scale_hksj_re)) * oracle.sd_eff_w_re
    assert got.high - got.effect == pytest.approx(sps.t.ppf(0.975, 8) * sd, rel=1e-3)


def test_random_effects_edges():
    assert np.isnan(stats.random_effects([], []).effect)
    one = stats.random_effects([1.0, np.nan], [0.2, 0.1])
    assert one.effect == 1.0 and one.n == 1 and np.isnan(one.low)
    same = stats.random_effects([1.0, 1.0, 1.0], [0.5, 0.5, 0.5])
    assert same.tau2 == 0 and same.high > 1.0  # identical estimates are no certainty
    assert stats.random_effects([1.0, 2.0], [0.0, 0.3]).n == 1


def test_residualise():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = 3 + 2 * x[:, 0] - x[:, 1] + rng.normal(size=200)
    got = stats.residualise(y, x)
    np.testing.assert_allclose(np.corrcoef(got, x.T)[0, 1:], 0, atol=1e-12)
    assert got.mean() == pytest.approx(y.mean())
    with_na = np.column_stack([x, np.full(200, np.nan)])
    np.testing.assert_allclose(stats.residualise(y, with_na), got)
    y[3] = np.nan
    assert np.isnan(stats.residualise(y, x)[3]) and np.isfinite(stats.residualise(y, x)[4])


def test_spearman():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 5, 50).astype(float), rng.normal(size=50)
    assert stats.spearman(a, b) == pytest.approx(sps.spearmanr(a, b).statistic)
    assert np.isnan(stats.spearman([1, 2], [1, 2])) and np.isnan(stats.spearman([1, 1, 1], [1, 2, 3]))
