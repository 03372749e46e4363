"""Tumour and normal cells that differ in copy number alone: expression clusters hold both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from nicheloop import cnv, cnv_arms, cnv_cells, cnv_groups, cnv_moved, cnv_split, genes
from test_cnv_neighbours import CHANGES, SETTINGS, over_all_cells
from test_malignancy import ARMS, STROMA, call, simulate


@pytest.mark.parametrize(
    ("seed", "n", "arms", "umi", "floor"),
    [
        (5, {"malignant": 120, "normal": 40}, ARMS, 1000, 0.95),
        (5, {"malignant": 90, "normal": 90}, CHANGES, 2000, 0.93),
        (5, {"malignant": 50, "normal": 110}, CHANGES, 1000, 0.7),
    ],
)
def test_normal_cells_of_the_same_programme_are_not_swept_along(seed, n, arms, umi, floor):
    """Malignant and normal cells share one expression programme: nothing but the arms tells them apart."""
    x, truth, symbols = simulate(seed, {**n, **STROMA}, umi=umi, arms=arms)
    found, _ = call(x, truth, symbols)
    assert (found.call[truth == "normal"] == "malignant").mean() <= 0.05
    assert over_all_cells(found, truth) >= floor
    assert found.summary["baseline"] == "own_normal_epithelium"


@pytest.mark.parametrize(
    ("n", "shuffles", "alike"),
    [(60, 37, False), (16, 16, False), (5, 1, False), (33, 3, True), (64, 5, False), (130, 2, False)],
)
def test_products_of_many_shuffles_are_those_of_the_scores_of_each_one(place, n, shuffles, alike):
    """Numbers of cells and shuffles that do not fill what is done in one pass; cells of one depth have no slope."""
    table, where = place
    keep = np.random.default_rng(n).random(len(table)) > 0.1  # columns without a place, and not in genomic order
    along = np.random.default_rng(5).permutation(len(table))
    where = cnv.layout(table.iloc[along].assign(chromosome=lambda t: np.where(keep, t["chromosome"], "")), 100, 10)
    x, like = cells(place, 4, n)[:, along], np.arange(n) % 2
    deep = np.ones(n) if alike else cnv_arms.depth(x)
    orders = cnv_groups.shuffles(len(where.arms), 20, shuffles, 3)
    found = np.concatenate(list(cnv_moved.moved_products(x, where, orders, deep, like)))
    assert len(found) == shuffles
    for products, order in zip(found, orders, strict=True):
        plain = cnv_arms.without_depth(cnv_arms.scores(x, replace(where, arms=where.arms[order])), deep, like)
        plain -= plain.mean(axis=0)
        np.testing.assert_allclose(products, plain.T @ plain, rtol=0, atol=1e-11 * (plain**2).sum())


@pytest.fixture(scope="module")
def place():
    table = genes.table()
    table = table[table["chromosome"].isin(cnv.AUTOSOMES) & table["arm"].notna()].iloc[::4]
    return table, cnv.layout(table, 100, 10)


def cells(place, seed, n, arms=None, programme=0.0):
    """(cells, genes) counts; the second half carries `arms`, or a programme anywhere in the genome."""
    rng = np.random.default_rng(seed)
    table = place[0]
    level = rng.gamma(0.5, 1.0, len(table)) + 0.01
    other = (
        level * table["arm"].map(arms or {}).fillna(1.0).to_numpy() * np.exp(programme * rng.normal(size=len(table)))
    )
    rate = np.where(np.arange(n)[:, None] < n // 2, level / level.sum(), other / other.sum())
    from nicheloop import io

    depth = 1500 * np.exp(rng.normal(0, 0.3, (n, 1)))
    return io.lognormalise(sparse.csr_matrix(rng.poisson(depth * rate).astype(np.float32)))


def p_of(place, x):
    like = np.zeros(x.shape[0], dtype=np.int64)
    return cnv_split.arm_mixture(x, cnv_arms.depth(x), like, place[1], SETTINGS)


def test_cells_that_differ_along_arms_are_a_mixture_and_programmes_are_not(place):
    assert p_of(place, cells(place, 0, 120, arms=CHANGES))[0] == 0.01
    p = [p_of(place, cells(place, s, 120, programme=0.5))[0] for s in range(8)]
    assert np.median(p) > 0.05
    assert np.median([p_of(place, cells(place, s, 120))[0] for s in range(8)]) > 0.05


@pytest.mark.parametrize("level", [0.025, 0.3])
def test_shuffles_that_end_early_decide_the_same(place, level):
    for seed, arms in ((0, CHANGES), (1, None), (2, None), (3, {"1q": 1.15})):
        x = cells(place, seed, 80, arms=arms)
        like = np.zeros(x.shape[0], dtype=np.int64)
        early = cnv_split.arm_mixture(x, cnv_arms.depth(x), like, place[1], SETTINGS, stop_above=level)
        whole = p_of(place, x)
        np.testing.assert_array_equal(early <= level, whole <= level)
        assert (early <= whole).all()


def test_arm_scores_are_linear_and_by_hand(place):
    table, where = place
    x = cells(place, 1, 6)
    found = cnv_arms.scores(x, where)
    names = np.unique(where.arms.astype(str))
    genes_of = {a: (table["arm"] == a).to_numpy() for a in names}
    mean = np.array([np.asarray(x[:, g].mean(axis=1)).ravel() * np.sqrt(g.sum()) for g in genes_of.values()]).T
    np.testing.assert_allclose(found, mean - mean.mean(axis=1, keepdims=True), atol=2e-5)
    average = cnv_arms.scores(sparse.csr_matrix(x.mean(axis=0)), where)[0]
    np.testing.assert_allclose(average, found.mean(axis=0), atol=2e-5)


def test_depth_is_taken_off_within_like_cells_only():
    rng = np.random.default_rng(2)
    like = np.repeat([0, 1], 100)
    deep = rng.normal(size=200) + like
    values = np.outer(deep, [1.0, -2.0]) + np.outer(like, [3.0, 0.0])
    found = cnv_arms.without_depth(values, deep, like)
    np.testing.assert_allclose(found - found[0], np.outer(like, [3.0, 0.0]) - like[0], atol=1e-9)


def test_values_are_rescaled_to_the_two_kinds():
    rng = np.random.default_rng(3)
    truth = np.repeat([1.0, 0.0], 60)
    value = np.r_[0.3 + 0.5 * truth + 0.01 * rng.normal(size=120), 9.0]
    found = cnv_cells.rescaled(value, truth, np.r_[np.ones(120, bool), False], np.ones(121))
    assert found[:60].mean() == pytest.approx(1) and found[60:120].mean() == pytest.approx(0)
    assert found[120] == pytest.approx((9.0 - value[60:120].mean()) / (value[:60].mean() - value[60:120].mean()))


def test_shares_of_a_contrast_do_not_shrink_with_lineage_genes(place):
    """The difference to stroma is clipped more than that to kin; which group is diploid must not depend on it."""
    table, where = place
    rng = np.random.default_rng(4)
    base = rng.gamma(1.0, 0.4, len(table)) + 0.1
    lineage = base * np.exp(rng.normal(0, 1.5, len(table)))
    tumour = lineage * table["arm"].map(CHANGES).fillna(1.0).to_numpy()
    means = [tumour, lineage]
    evidence = [(False, cnv_groups.arm_evidence(m, base, where, SETTINGS)) for m in means]
    kinds = cnv_groups.kinds_of_groups(
        means, base, evidence, where, SETTINGS, need=1.75, max_p=0.01, min_signal=0.5, max_share=0.35, sure=2.25
    )
    assert kinds == ["aneuploid", "diploid"]
