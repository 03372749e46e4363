"""Compiled loops against the plain expressions they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from nicheloop import cnv_groups, kernels


@given(st.integers(0, 6), st.integers(1, 9), st.integers(1, 7), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_dense_product_is_the_sparse_one(rows: int, middle: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left = sparse.random(rows, middle, 0.4, format="csr", random_state=rng, dtype=np.float32)
    right = sparse.random(middle, columns, 0.6, format="csr", random_state=rng)
    found = kernels.dense_product(left, right)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, (left.astype(np.float64) @ right).toarray())


def stretched(orders: np.ndarray, table: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    cut = cnv_groups.stretches(orders, starts, ends)
    out = np.full((len(orders), 2), np.nan)
    sums = np.concatenate([np.zeros((1, 3)), np.cumsum(table, axis=0)])
    kernels.compiled(kernels.between_arms)(cut.first, cut.last, cut.bounds, sums, out)
    return out


@pytest.mark.parametrize("block", [1, 7, 50])
@pytest.mark.parametrize("seed", range(4))
def test_between_arms_is_the_sum_of_squares(seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    n = 400
    table = np.column_stack([rng.random(n) * (rng.random(n) > 0.2), rng.normal(size=n), rng.normal(size=n)])
    table[:, 1:] *= table[:, :1]
    orders = cnv_groups.shuffles(n, block, 7, seed)
    starts, ends = np.array([0, 30, 250]), np.array([30, 200, 390])  # genes between arms, and after the last
    for order, found in zip(orders, stretched(orders, table, starts, ends), strict=True):
        arms = [table[order[a:b]].sum(axis=0) for a, b in zip(starts, ends, strict=True)]
        np.testing.assert_allclose(found, [sum(s[k] ** 2 / s[0] for s in arms) for k in (1, 2)], rtol=1e-10)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 9), st.integers(0, 10_000), st.data())
@settings(max_examples=60, deadline=None)
def test_stretches_are_the_genes_of_each_arm(sizes: list[int], block: int, seed: int, data: st.DataObject) -> None:
    edges = np.cumsum([0, *sizes])
    used = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes))))
    starts, ends = edges[:-1][used], edges[1:][used]
    orders = cnv_groups.shuffles(int(edges[-1]), min(block, int(edges[-1])), 5, seed)
    cut = cnv_groups.stretches(orders, starts, ends)
    assert cut.bounds.shape == (5, len(used) + 1)
    for order, bounds in zip(orders, cut.bounds, strict=True):
        for arm, (a, b) in enumerate(zip(starts, ends, strict=True)):
            parts = range(bounds[arm], bounds[arm + 1])
            genes = [g for k in parts for g in range(cut.first[k], cut.last[k])]
            assert genes == order[a:b].tolist()


def test_an_arm_without_weight_adds_nothing() -> None:
    orders = np.arange(4, dtype=np.int32)[None]
    assert (stretched(orders, np.zeros((4, 3)), np.array([0]), np.array([4])) == 0).all()


def test_coherence_of_a_known_change() -> None:
    """A gained arm, one value per gene: observed is the weighted sum over arms, p the least that can be reached."""
    arms = np.repeat(["1p", "1q", "2p", "2q"], 100).astype(object)
    rng = np.random.default_rng(1)
    difference = rng.normal(0, 0.1, 400) + 0.5 * (arms == "1q")
    found = cnv_groups.coherence(
        difference, arms, n_permutations=99, min_genes=10, seed=0, block=5, clip=2.0, weights=np.ones(400)
    )
    values = difference - np.median(difference)
    values -= values.mean()
    observed = sum(values[arms == a].sum() ** 2 / 100 for a in np.unique(arms))
    moved = cnv_groups.shuffles(400, 5, 99, 0)
    residual = values - np.repeat([values[arms == a].mean() for a in ("1p", "1q", "2p", "2q")], 100)
    left = np.mean([sum(residual[m][arms == a].sum() ** 2 / 100 for a in np.unique(arms)) for m in moved])
    assert found.p == 0.01
    assert found.ratio == pytest.approx(observed / (left / (1 - 4 / 80)), rel=1e-9)


@pytest.mark.parametrize("window", [1, 2, 7, 100])
@pytest.mark.parametrize("digits", [1, 9])  # with and without ties
def test_running_median_is_the_middle_of_each_window(window: int, digits: int) -> None:
    rng = np.random.default_rng(window)
    n = np.array([1, 2, 6, 0, 7, 8, 150, 99, 101, 100])
    ends = np.cumsum(n)
    values = rng.normal(size=ends[-1]).round(digits)
    found = np.full(len(values), np.nan)
    kernels.compiled(kernels.running_median)(values, ends - n, ends, window, found)
    for first, end in zip(ends - n, ends, strict=True):
        part, size = values[first:end], min(window, end - first)
        for i in range(end - first):
            around = np.clip(np.arange(i - size // 2, i - size // 2 + size), 0, end - first - 1)
            assert found[first + i] == np.sort(part[around])[size // 2]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_mean_of_rows_is_the_sparse_one(kind: type) -> None:
    rng = np.random.default_rng(2)
    x = sparse.random(30, 12, 0.4, format="csr", random_state=rng)
    x.data = (9 * x.data).astype(kind)
    for rows in (np.arange(30), np.array([29, 3, 3, 7]), np.array([5])):
        found = kernels.mean_of_rows(x, rows)
        plain = np.asarray(x[rows].mean(axis=0)).ravel()
        assert found.dtype == plain.dtype
        np.testing.assert_allclose(found, plain, rtol=1e-15 if kind is np.int64 else 0)  # bit for bit


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_column_moments_are_the_sparse_ones(kind: type) -> None:
    x = sparse.random(30, 12, 0.4, format="csr", random_state=np.random.default_rng(2), dtype=kind)
    x.data[::5] = 0  # a value that is stored and still not seen
    seen, mean, square = kernels.column_moments(x)
    np.testing.assert_array_equal(seen, (x.toarray() > 0).sum(axis=0))
    np.testing.assert_array_equal(mean, np.asarray(x.mean(axis=0)).ravel())  # bit for bit
    np.testing.assert_array_equal(square, np.asarray(x.multiply(x).mean(axis=0)).ravel())
    assert mean.dtype == square.dtype == kind
