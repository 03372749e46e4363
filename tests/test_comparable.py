"""What patients are compared by: balanced specificity, equal cells and depth, stability, power."""

from __future__ import annotations

import numpy as np
import pytest

from nicheloop import comparable, stability, stats
from nicheloop import crosstalk as ct
from nicheloop import ligand_receptor as lr
from nicheloop.config_niche import Crosstalk
from test_crosstalk import sample_of

OPTIONS = Crosstalk(n_permutations=99, n_matched_pairs=99, matched_cells=40, matched_depth=60)
PAIR = lr.Pair("X", "forward", "L", ("R",), "caf", "malignant")
SYMBOLS = ["L", "R", *[f"B{i:02d}" for i in range(60)]]


def tumour(sizes, seed=0, depth=1.0, high=3.0):
    rng = np.random.default_rng(seed)
    kind = np.repeat(np.arange(3), sizes)
    mean = np.full((len(kind), 62), 2.0)
    mean[:, :2] = 0.2
    mean[kind == 1, 0] = mean[kind == 0, 1] = high
    x = rng.poisson(mean * depth).astype(float)
    masks = {"malignant": kind == 0, "caf": kind == 1, "myeloid": kind == 2, "platelet": np.zeros(len(kind), bool)}
    return sample_of(x, SYMBOLS, masks)


def test_specificity_by_hand():
    sample = tumour((60, 50, 40))
    value, error = comparable.specificity(sample, [PAIR], OPTIONS)
    means = {n: 1e4 * np.asarray(sample.x[m].sum(axis=0)).ravel() / sample.totals[m].sum()
             for n, m in zip(sample.names, sample.masks.T, strict=True) if m.any()}  # fmt: skip
    i, j = list(sample.genes).index("L"), list(sample.genes).index("R")
    ligand = means["caf"][i] / np.mean([means["malignant"][i], means["myeloid"][i]])
    receptor = means["malignant"][j] / np.mean([means["caf"][j], means["myeloid"][j]])
    assert value[0] == pytest.approx((np.log2(ligand) + np.log2(receptor)) / 2)
    draws = [comparable.specificity(tumour((60, 50, 40), s), [PAIR], OPTIONS)[0][0] for s in range(60)]
    assert error[0] == pytest.approx(np.std(draws), rel=0.35)


def test_specificity_does_not_follow_composition_and_the_permuted_effect_does():
    mixes = ((20, 300, 680), (400, 400, 200), (900, 40, 60))
    found = [comparable.specificity(tumour(m, 3), [PAIR], OPTIONS)[0][0] for m in mixes]
    assert max(found) - min(found) < 0.25
    effect = [ct.score_axes(tumour(m, 3), [PAIR], OPTIONS, 0)["log2_effect"].iloc[0] for m in mixes]
    assert max(effect) - min(effect) > 1
    none = comparable.specificity(tumour((60, 50, 40), high=0.2), [PAIR], OPTIONS)
    assert abs(none[0][0]) < 3 * none[1][0]  # 0 is no more than elsewhere


def test_specificity_needs_another_type():
    sample = tumour((60, 50, 5))
    own = lr.Pair("X", "forward", "L", ("R",), "caf", "caf")
    assert np.isfinite(comparable.specificity(sample, [own], OPTIONS)[0]).all()
    alone = tumour((5, 50, 5))
    assert np.isnan(comparable.specificity(alone, [own], OPTIONS)[0]).all()


def test_equal_cells_and_depth_take_the_advantage_of_cells_and_depth_away():
    """The same tumour, large and deep or small and shallow: the z differs, the matched strength does not."""
    big, small = tumour((900, 600, 500), depth=3.0), tumour((60, 60, 60), depth=1.0)
    rows = [ct.score_axes(s, [PAIR], OPTIONS, 0).iloc[0] for s in (big, small)]
    assert rows[0]["z"] > 2 * rows[1]["z"]
    assert [r["matched_status"] for r in rows] == ["tested", "tested"]
    gap = abs(rows[0]["matched_log2_strength"] - rows[1]["matched_log2_strength"])
    assert gap < 3 * np.hypot(rows[0]["matched_log2_se"], rows[1]["matched_log2_se"])
    assert rows[0]["matched_log2_se"] == pytest.approx(rows[1]["matched_log2_se"], rel=0.5)  # and so is its error
    draws = [comparable.at_equal_depth(tumour((60, 60, 60), 100 + s), [PAIR], OPTIONS, s)[1][0] for s in range(60)]
    assert rows[1]["matched_log2_se"] == pytest.approx(np.std(draws), rel=0.4)


def test_equal_depth_says_what_is_lost():
    weak = tumour((400, 400, 400), high=0.25)  # ten counts in 400 cells, not in 40
    row = ct.score_axes(weak, [PAIR], OPTIONS.model_copy(update={"matched_depth": 100}), 0).iloc[0]
    assert row["status"] == "tested" and row["matched_status"] in ("ligand_not_detected", "receptor_not_detected")
    few = ct.score_axes(tumour((60, 30, 60)), [PAIR], OPTIONS, 0).iloc[0]
    assert few["matched_status"] == "too_few_cells" and np.isnan(few["matched_log2_strength"])
    other = lr.Pair("Y", "forward", "B01", ("B02",), "caf", "malignant")
    alone = comparable.at_equal_depth(tumour((60, 60, 60)), [PAIR], OPTIONS, 0)
    both = comparable.at_equal_depth(tumour((60, 60, 60)), [other, PAIR], OPTIONS, 0)
    assert alone[1][0] == both[1][1]  # the draw does not depend on what else is asked


def test_leave_one_out_by_hand():
    y, s = np.array([2.0, 1.0, -0.2, 0.1]), np.array([0.3, 0.4, 0.3, 0.5])
    got = stability.leave_one_out([*y, np.nan], [*s, 1.0], 0.95)
    left = [stats.random_effects(np.delete(y, i), np.delete(s, i)).effect for i in range(4)]
    assert (got.low, got.high) == (min(left), max(left)) and got.sign_changes == 0
    one = stability.leave_one_out([5.0, -0.5, -0.5], [0.1, 0.1, 0.1], 0.95)
    assert one.sign_changes == 1  # all hangs on the first patient
    assert np.isnan(stability.leave_one_out([1.0, 2.0], [1.0, 1.0], 0.95).low)


@pytest.mark.parametrize(("n", "rho"), [(10, 0.79), (26, 0.53), (60, 0.35)])
def test_detectable_rho_is_that_of_the_design(n, rho):
    assert stability.detectable_rho(n, 0.05) == pytest.approx(rho, abs=0.006)
    assert np.isnan(stability.detectable_rho(3, 0.05))


def test_detectable_effect_is_found_with_that_power():
    """A cohort whose true mean is the detectable effect is told from 0 in about 80 % of draws."""
    rng = np.random.default_rng(0)
    n, sd, se = 12, 0.8, 0.3
    draws = [stats.random_effects(rng.normal(0, np.hypot(sd, se), n), np.full(n, se)) for _ in range(200)]
    needed = np.median([stability.detectable_effect(m, 0.95) for m in draws])
    found = [m.low + needed > 0 for m in draws]
    assert 0.68 < np.mean(found) < 0.9
    assert np.isnan(stability.detectable_effect(stats.random_effects([1.0], [0.1]), 0.95))
