"""Pairs of genes like CD44 and CD24: who may stand in, and what the pair null says with and without an association."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from csc_cohort import ASSOCIATED, counts
from nicheloop import csc_pairs
from nicheloop.csc_model import Rates

RATES = (Rates(0.2, 3.0, 3.0), Rates(0.2, 4.0, 3.0))
DRAW = {"n_pairs": 200, "n_genes": 40, "fold": 2.0, "seed": 1}
ARMS = ["11p", "6q", *[f"{1 + i % 5}p" for i in range(120)]]


def tumour(seed: int, weights: np.ndarray, n: int = 300) -> tuple[sparse.csc_matrix, list[str], np.ndarray]:
    """CD44 and CD24 in two states with joint `weights`; 60 genes in like states for each, independent of everything."""
    rng = np.random.default_rng(seed)
    size = rng.lognormal(0.2, 0.4, n)
    state = rng.choice(4, n, p=weights)
    w44, w24 = weights[2] + weights[3], weights[1] + weights[3]
    columns = [counts(rng, np.where(state // 2, 3.0, 0.2), size), counts(rng, np.where(state % 2, 4.0, 0.2), size)]
    for w, high in ((w44, 3.0), (w24, 4.0)):
        columns += [counts(rng, np.where(rng.random(n) < w, high, 0.2), size) for _ in range(60)]
    genes = ["CD44", "CD24", *[f"A{i}" for i in range(60)], *[f"B{i}" for i in range(60)]]
    return sparse.csc_matrix(np.column_stack(columns)), genes, size


def test_an_association_stands_out_and_independence_does_not() -> None:
    found = csc_pairs.matched_pairs(*tumour(0, ASSOCIATED)[:2], ARMS, tumour(0, ASSOCIATED)[2], RATES, **DRAW)
    assert found.status == "ok"
    assert (found.fraction < found.observed_fraction).mean() > 0.98
    assert found.observed_log_odds < np.quantile(found.log_odds, 0.05)
    inside = []
    for seed in range(40):
        x, genes, size = tumour(10 + seed, np.outer([0.75, 0.25], [0.2, 0.8]).ravel())
        null = csc_pairs.matched_pairs(x, genes, ARMS, size, RATES, **DRAW)
        inside.append((1 + (null.fraction >= null.observed_fraction).sum()) / 201)
    assert np.mean(np.array(inside) <= 0.05) <= 0.2  # exact binomial bound of 5 % at n = 40, p < 0.001


def test_arms_of_the_markers_and_unplaced_genes_never_stand_in() -> None:
    x, genes, size = tumour(1, ASSOCIATED)
    arms = list(ARMS)
    arms[2:30], arms[62:70], arms[70:75] = ["11p"] * 28, ["6q"] * 8, [""] * 5
    found = csc_pairs.matched_pairs(x, genes, arms, size, RATES, **(DRAW | {"n_pairs": 50}))
    used = {*found.first, *found.second}
    assert not used & {g for g, a in zip(genes, arms, strict=True) if a in ("11p", "6q", "")}
    arm = dict(zip(genes, arms, strict=True))
    assert all(arm[a] != arm[b] for a, b in zip(found.first, found.second, strict=True))


def test_order_of_genes_does_not_matter() -> None:
    x, genes, size = tumour(2, ASSOCIATED)
    order = np.random.default_rng(0).permutation(len(genes))
    one = csc_pairs.matched_pairs(x, genes, ARMS, size, RATES, **DRAW)
    other = csc_pairs.matched_pairs(
        x[:, order], [genes[i] for i in order], [ARMS[i] for i in order], size, RATES, **DRAW
    )
    assert one.first == other.first
    np.testing.assert_allclose(one.fraction, other.fraction)


def test_too_few_like_genes_are_said() -> None:
    x, genes, size = tumour(3, ASSOCIATED)
    found = csc_pairs.matched_pairs(x[:, :12], genes[:12], ARMS[:12], size, RATES, **DRAW)
    assert found.status == "too_few_matched_genes"
    assert "200 are needed" in found.reason
    assert found.fraction is None
    assert csc_pairs.matched_pairs(x * 0, genes, ARMS, size, RATES, **DRAW).status == "marker_not_detected"


def test_log_odds_are_finite_at_the_edge() -> None:
    weights = np.array([[0.0, 0.5, 0.5, 0.0], [0.25, 0.25, 0.25, 0.25]])
    odds = csc_pairs.log_odds(weights, 100)
    assert np.isfinite(odds).all()
    assert odds[0] < -5
    assert odds[1] == pytest.approx(0)
