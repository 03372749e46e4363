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


@pytest.mark.parametrize("seed", range(4))
def test_between_arms_is_the_sum_of_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 400
    table = np.column_stack([rng.random(n) * (rng.random(n) > 0.2), rng.normal(size=n), rng.normal(size=n)])
    table[:, 1:] *= table[:, :1]
    orders = np.argsort(rng.random((7, n)), axis=1).astype(np.int32)
    starts, ends = np.array([0, 30, 250]), np.array([30, 200, 400])
    out = np.zeros((7, 2))
    kernels.compiled(kernels.between_arms)(orders, table, starts, ends, out)
    for order, found in zip(orders, out, strict=True):
        arms = [table[order[a:b]].sum(axis=0) for a, b in zip(starts, ends, strict=True)]
        np.testing.assert_allclose(found, [sum(s[k] ** 2 / s[0] for s in arms) for k in (1, 2)], rtol=1e-12)


def test_an_arm_without_weight_adds_nothing() -> None:
    out = np.zeros((1, 2))
    kernels.compiled(kernels.between_arms)(
        np.arange(4, dtype=np.int32)[None], np.zeros((4, 3)), np.array([0]), np.array([4]), out
    )
    assert (out == 0).all()


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
