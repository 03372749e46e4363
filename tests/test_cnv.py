"""Copy-number profiles against infercnvpy and brute force: windows, cuts, splits, arm coherence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from nicheloop import cnv, cnv_cells, cnv_groups, cnv_split
from nicheloop.config_malignancy import Malignancy


# ------------------------------------------------------------------------------------------------ profiles
@pytest.mark.parametrize("n_references", [1, 3])
def test_profiles_equal_infercnvpy_number_by_number(n_references):
    import anndata as ad
    import infercnvpy

    rng = np.random.default_rng(0)
    n_genes, n_cells = 1500, 37
    chromosome = np.array(
        [*["chr1"] * 700, *["chr2"] * 450, *["chr10"] * 260, *["chr21"] * 60, *["chrX"] * 30], dtype=object
    )
    start = rng.permutation(n_genes) * 1000
    var = pd.DataFrame(
        {"chromosome": chromosome, "start": start, "end": start + 500}, index=[f"g{i}" for i in range(n_genes)]
    )
    x = sparse.random(
        n_cells, n_genes, density=0.3, random_state=1, format="csr", data_rvs=lambda n: rng.gamma(2, 2.0, n)
    )
    reference = rng.gamma(1, 1.0, (n_references, n_genes))
    position, expected, _ = infercnvpy.tl.infercnv(
        ad.AnnData(x, var=var), reference=reference, n_jobs=1, inplace=False, window_size=100, step=10
    )
    where = cnv.layout(var.assign(arm="1p"), 100, 10)
    found = cnv.denoise(cnv.smooth(x, reference, where, 3.0), 1.5)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected.toarray(), atol=2e-6)
    firsts = {c: int(np.flatnonzero(where.chromosome == c)[0]) for c in dict.fromkeys(where.chromosome)}
    assert firsts == {k: int(v) for k, v in position.items()}


def test_windows_keep_their_place():
    table = pd.DataFrame(
        {"chromosome": ["chr2", "chr1", "chr1", "chrY", ""], "start": [5.0, 9.0, 1.0, 1.0, np.nan], "end": [6.0, 10.0, 2.0, 2.0, np.nan],
         "arm": ["2p", "1q", "1p", "Yp", None]}, index=list("abcde"))  # fmt: skip
    where = cnv.layout(table, window=10, step=1)
    assert list(where.columns) == [2, 1, 0]
    assert list(where.start) == [1, 5] and list(where.end) == [10, 6]
    assert list(where.chromosome) == ["chr1", "chr2"]
    np.testing.assert_allclose(np.asarray(where.weights.sum(axis=0)).ravel(), 1)
    for which in (0, 1):
        totals = np.asarray(cnv.half(where, which).weights.sum(axis=0)).ravel()
        assert set(np.round(totals, 12)) <= {0.0, 1.0}


def test_blocks_do_not_change_profiles(monkeypatch):
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"chromosome": "chr1", "start": np.arange(300.0), "end": np.arange(300.0) + 1, "arm": "1p"})
    table.index = table.index.astype(str)
    x = sparse.csr_matrix(rng.poisson(0.5, (53, 300)).astype(np.float32))
    where, reference = cnv.layout(table, 50, 5), rng.random(300)
    whole = cnv.smooth(x, reference, where, 3.0)
    monkeypatch.setattr(cnv, "BLOCK", 7)
    monkeypatch.setattr(cnv.blocks, "__defaults__", (7,))
    np.testing.assert_array_equal(whole, cnv.smooth(x, reference, where, 3.0))


@pytest.mark.parametrize("n_references", [1, 3])
@pytest.mark.parametrize("shuffled", [False, True])  # columns in genomic order or not, some without a place
def test_profiles_and_their_halves_equal_dense_ones(n_references, shuffled):
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"chromosome": np.repeat(["chr1", "chr2", ""], [130, 30, 9]), "start": np.arange(169.0)})
    table = table.assign(end=table["start"] + 1, arm="1p").set_axis(np.arange(169).astype(str))
    if shuffled:
        table = table.iloc[rng.permutation(169)]
    x = sparse.csr_matrix(rng.poisson(0.5, (23, 169)).astype(np.float32) * rng.random(169).astype(np.float32))
    where, reference = cnv.layout(table, 50, 5), rng.random((n_references, 169)) / 3

    def plain(weights):
        values, bounds = x.toarray()[:, where.columns].astype(float), reference[:, where.columns]
        low, high = bounds.min(axis=0), bounds.max(axis=0)
        ratio = np.where(values > high, values - high, np.where(values < low, values - low, 0.0))
        sums = np.clip(ratio, -0.4, 0.4) @ weights.toarray()
        return sums - np.median(sums, axis=1, keepdims=True)

    np.testing.assert_allclose(cnv.smooth(x, reference, where, 0.4), plain(where.weights), atol=1e-6)
    even, odd = (plain(cnv.half(where, k).weights) for k in (0, 1))
    np.testing.assert_allclose(cnv.halves_differ(x, reference, where, 0.4), even - odd, atol=1e-6)


def test_a_cell_is_never_compared_with_itself():
    rng = np.random.default_rng(3)
    profiles = rng.normal(size=(40, 300))
    members = np.zeros(40, dtype=bool)
    members[:5] = True
    found, other = cnv.correlations(profiles, [members, ~members])
    for i in (0, 3, 20):
        others = members.copy()
        others[i] = False
        assert found[i] == pytest.approx(np.corrcoef(profiles[i], profiles[others].mean(axis=0))[0, 1])
        rest = ~members
        rest[i] = False
        assert other[i] == pytest.approx(np.corrcoef(profiles[i], profiles[rest].mean(axis=0))[0, 1])
    assert abs(found[:5].mean()) < 0.1  # pure noise; with the cell itself in the mean this would be about 0.45


def test_flat_profiles_and_flat_means_have_no_correlation():
    profiles = np.random.default_rng(3).normal(size=(6, 30)).astype(np.float32)
    profiles[[0, 4]] = 0.25
    members = np.arange(6) < 2  # each alone in the mean of the other
    found = cnv.correlations(profiles, [members])[0]
    assert found[0] == found[1] == found[4] == 0
    assert found[2] == pytest.approx(np.corrcoef(profiles[2], profiles[:2].mean(axis=0))[0, 1])


def test_amplitude_is_one_for_a_typical_member_at_any_depth():
    rng = np.random.default_rng(4)
    signal = rng.normal(size=400)
    noise = rng.normal(size=(300, 400)) * np.repeat([0.3, 2.0, 2.0], 100)[:, None]
    carries = np.repeat([1.0, 1.0, 0.0], 100)
    found = cnv.amplitude(carries[:, None] * signal + noise, carries > 0)
    assert np.median(found[:100]) == pytest.approx(1, abs=0.05)
    assert np.median(found[100:200]) == pytest.approx(1, abs=0.1)
    assert np.median(found[200:]) == pytest.approx(0, abs=0.1)


def test_two_means_finds_the_best_border():
    rng = np.random.default_rng(5)
    values = rng.normal(size=25)
    best = min((np.var(np.sort(values)[:k]) * k + np.var(np.sort(values)[k:]) * (25 - k), k) for k in range(1, 25))[1]
    upper = cnv_split.two_means(values)
    assert upper.sum() == 25 - best and values[upper].min() > values[~upper].max()
    assert not cnv_split.two_means(np.ones(6)).any()


def plain_mixture(values, upper, n_rounds):
    """Two Gaussians of one variance, step by step."""
    share = upper.astype(float)
    for _ in range(n_rounds):
        weights = np.array([share, 1 - share])
        means = weights @ values / weights.sum(axis=1)
        variance = (weights * (values - means[:, None]) ** 2).sum() / len(values)
        odds = weights.sum(axis=1)[:, None] * np.exp(-((values - means[:, None]) ** 2) / (2 * variance))
        share = odds[0] / odds.sum(axis=0)
    return share > 0.5


@pytest.mark.parametrize(("n_upper", "distance"), [(10, 5.0), (40, 2.0), (60, 0.5), (100, 30.0)])
@pytest.mark.parametrize("n_rounds", [1, 3, 50])
def test_mixture_is_that_of_two_gaussians(n_upper, distance, n_rounds):
    rng = np.random.default_rng(n_upper)
    values = 7 + rng.normal(size=120) + distance * (np.arange(120) < n_upper)
    upper = cnv_split.two_means(values)
    found = cnv_split.mixture_side(values, upper, n_rounds)
    np.testing.assert_array_equal(found, plain_mixture(values, upper, n_rounds))


def test_mixture_of_one_value_or_one_side_stays_as_it_was():
    first = np.arange(6) < 2
    np.testing.assert_array_equal(cnv_split.mixture_side(np.full(6, 3.0), first), first)
    np.testing.assert_array_equal(cnv_split.mixture_side(np.where(first, 4.0, 1.0), first), first)
    assert cnv_split.mixture_side(np.arange(6.0), np.ones(6, dtype=bool)).all()


@pytest.mark.parametrize("n_upper", [2, 9, 38])
def test_place_between_means_leaves_the_cell_out(n_upper):
    values = np.random.default_rng(n_upper).normal(size=(40, 7)) + 3.0 * (np.arange(40) < n_upper)[:, None]
    upper = np.arange(40) < n_upper
    found = cnv_split.between_means(values - values.mean(axis=0), upper)
    for i in range(40):
        others = np.arange(40) != i
        high, low = values[upper & others].mean(axis=0), values[~upper & others].mean(axis=0)
        axis = high - low
        assert found[i] == pytest.approx((values[i] - (high + low) / 2) @ axis / (axis @ axis), rel=1e-9)


def test_uneven_groups_are_told_apart():
    rng = np.random.default_rng(6)
    truth = np.arange(400) < 30
    profiles = truth[:, None] * rng.normal(0, 0.5, 200) + rng.normal(size=(400, 200))
    start = truth.copy()
    start[30:120] = True  # an even split, as two means would give
    assert (cnv_split.refine(profiles, start) == truth).mean() > 0.99


@pytest.mark.parametrize(("rate", "expected"), [(0.01, 100.0), (0.02, 99.0), (0.5, 51.0)])
def test_cut_lets_no_more_than_the_rate_pass(rate, expected):
    null = np.random.default_rng(0).permutation(np.arange(1, 101)).astype(float)
    assert cnv.cut_at(null, rate - 1e-9) == expected
    assert (null > cnv.cut_at(null, rate)).mean() <= rate


@pytest.mark.parametrize("rate", [0.01, 0.1])
@pytest.mark.parametrize("n", [2, 7, 50, 230])
def test_held_out_cuts_by_brute_force(n, rate):
    null = np.random.default_rng(n).integers(0, 40, n).astype(float)  # with ties
    expected = [np.sort(np.delete(null, i))[::-1][int(n * rate)] for i in range(n)]
    np.testing.assert_array_equal(cnv.held_out_cuts(null, rate), expected)
    assert cnv.held_out_cuts(null[:1], rate) == [-np.inf]


@pytest.mark.parametrize("n", [30, 50, 300])
def test_reported_error_rate_is_that_of_fresh_reference_cells(n):
    rng, options, repeats, n_fresh = np.random.default_rng(n), Malignancy(), 400, 400
    reported, fresh = [], []
    for _ in range(repeats):
        common = rng.normal(size=n + n_fresh)
        r = common + 0.3 * rng.normal(size=len(common))
        v = 1 + common + 0.3 * rng.normal(size=len(common))
        cut_r, cut_v = (cnv.cut_at(m[:n], options.max_reference_fpr) for m in (r, v))
        assert ((r[:n] > cut_r) & (v[:n] > cut_v)).mean() <= options.max_reference_fpr  # counting these says nothing
        fresh.append(((r[n:] > cut_r) & (v[n:] > max(cut_v, options.min_signal))).mean())
        reported.append(cnv_cells.held_out_passes(r[:n], v[:n], options).mean())
    expected = np.mean(fresh)
    assert expected > 0.005
    assert abs(np.mean(reported) - expected) < 3.5 * np.sqrt(
        expected * (1 - expected) * (1 / n + 1 / n_fresh) / repeats
    )


def test_folds_follow_ids_not_order():
    ids = np.array([f"c{i}" for i in range(23)], dtype=object)
    shuffled = np.random.default_rng(0).permutation(23)
    np.testing.assert_array_equal(cnv.folds(ids, 5)[shuffled], cnv.folds(ids[shuffled], 5))
    assert np.ptp(np.bincount(cnv.folds(ids, 5))) <= 1


# ---------------------------------------------------------------------------------------------- coherence
def test_coherence_holds_its_level_without_arms_and_sees_a_shifted_arm():
    rng = np.random.default_rng(7)
    arms = np.repeat([f"{i}{a}" for i in range(1, 13) for a in "pq"], 120)
    neighbours = lambda: rng.normal(size=len(arms)) + np.repeat(rng.normal(0, 0.7, len(arms) // 5), 5)  # noqa: E731
    p = [
        cnv_groups.coherence(neighbours(), arms, n_permutations=199, min_genes=30, block=20, clip=1.0, seed=s).p
        for s in range(120)
    ]
    assert stats.binomtest(sum(v <= 0.05 for v in p), len(p), 0.05, alternative="greater").pvalue > 0.001
    shifted = neighbours() + 0.6 * (arms == "1q") - 0.9 * (arms == "8p")
    found = cnv_groups.coherence(shifted, arms, n_permutations=199, min_genes=30, block=20, clip=1.0, seed=0)
    assert found.p == 1 / 200 and found.ratio > 1.75
    assert cnv_groups.coherence(
        shifted[:20], arms[:20], n_permutations=99, min_genes=30, block=20, clip=1.0, seed=0
    ) == cnv_groups.Coherence(1.0, 1.0)


@pytest.mark.parametrize("n_permutations", [99, 331])
def test_coherence_is_the_sum_over_arms_shuffle_by_shuffle(n_permutations: int):
    rng = np.random.default_rng(11)
    arms = np.repeat([f"{i}{a}" for i in range(1, 10) for a in "pq"], rng.integers(20, 110, 18))
    values, weights = np.clip(rng.normal(size=len(arms)), -1, 1) + 0.1 * (arms == "1q"), rng.random(len(arms))
    values -= np.median(values)
    found = cnv_groups.coherence(
        values, arms, n_permutations=n_permutations, min_genes=30, block=20, clip=9.0, seed=2, weights=weights
    )
    values = values - np.average(values, weights=weights)
    mean = {a: np.average(values[arms == a], weights=weights[arms == a]) for a in set(arms)}
    names = [a for a in mean if (arms == a).sum() >= 30]

    def between(v, w):
        return sum((v * w)[arms == a].sum() ** 2 / w[arms == a].sum() for a in names)

    orders = cnv_groups.shuffles(len(arms), 20, n_permutations, 2)
    null = np.array([between(values[o], weights[o]) for o in orders])
    left = values - np.array([mean[a] for a in arms])
    scale = np.mean([between(left[o], weights[o]) for o in orders[: cnv_groups.FOR_SCALE]])
    scale /= 1 - len(mean) / (len(arms) // 20)
    assert found.ratio == pytest.approx(between(values, weights) / scale, rel=1e-12)
    assert found.p == (1 + (null >= between(values, weights)).sum()) / (1 + n_permutations)


def test_lineage_genes_are_outliers_among_neighbours_and_arms_are_not():
    rng = np.random.default_rng(8)
    chromosome = np.repeat(["1p", "1q"], 400)
    difference = rng.normal(0, 0.2, 800) + 0.6 * (chromosome == "1q")
    difference[[10, 500]] += 3
    out = cnv_groups.lineage_genes(difference, np.unique(chromosome, return_inverse=True)[1], 100, 3.0)
    assert out[[10, 500]].all() and out.mean() < 0.02
