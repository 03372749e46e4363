"""Matched-null scores: the closed form against random draws, invariances, calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from nicheloop import io, scoring

SETTINGS = {"n_bins": 10, "min_genes": 3, "min_cells": 5}


@pytest.fixture(scope="module")
def toy() -> tuple[sparse.csr_matrix, list[str]]:
    rng = np.random.default_rng(3)
    share = rng.gamma(0.4, 1.0, 1200)
    share /= share.sum()
    counts = rng.poisson(share[None, :] * rng.lognormal(8.5, 0.4, 60)[:, None])
    return io.lognormalise(sparse.csr_matrix(counts.astype(np.float32))), [f"G{i:04d}" for i in range(1200)]


def sets_of(genes: list[str], n: int, seed: int, size: int = 15) -> dict[str, list[str]]:
    rng = np.random.default_rng(seed)
    return {f"set{k}": rng.choice(genes, size, replace=False).tolist() for k in range(n)}


def test_null_is_the_limit_of_random_draws(toy):
    x, genes = toy
    bins = scoring.gene_bins(x, genes, n_bins=10)
    seen = np.flatnonzero(bins >= 0)
    members = np.random.default_rng(0).choice(seen, 12, replace=False)
    observed, mean, sd, skew = scoring.matched_null(x, bins, [members])
    dense = x.toarray().astype(float)
    rng = np.random.default_rng(1)
    draws = np.empty((20000, len(dense)))
    pools = [np.setdiff1d(np.flatnonzero(bins == bins[g]), members) for g in members]
    for d in range(len(draws)):
        draws[d] = dense[:, [rng.choice(p) for p in pools]].mean(axis=1)
    assert np.allclose(observed[:, 0], dense[:, members].mean(axis=1))
    assert np.allclose(draws.mean(axis=0), mean[:, 0], atol=5 * sd.max() / np.sqrt(len(draws)))
    assert np.allclose(draws.std(axis=0), sd[:, 0], rtol=0.05)
    assert np.allclose(stats.skew(draws, axis=0), skew[:, 0], atol=0.15)


def test_tail_of_a_normal_score_is_that_of_a_normal_law() -> None:
    rng = np.random.default_rng(3)
    for skew in (0.0, 0.4, 1.0, -0.6):
        law = stats.norm() if skew == 0 else stats.pearson3(skew)
        t = law.ppf(np.linspace(0.001, 0.999, 199))
        null = scoring.Null(t[:, None], np.zeros((199, 1)), np.ones((199, 1)), np.full((199, 1), skew))
        z = scoring.normal_score(null)[:, 0]
        assert np.all(np.diff(z) > 0)
        exact = stats.norm.ppf(law.cdf(t))
        assert np.abs(z - exact)[np.abs(exact) < 2.6].max() < 0.06 + 0.1 * abs(skew) ** 2
    draws = rng.gamma(2.0, 1.0, (20_000, 1)) - 2.0
    null = scoring.Null(draws, np.zeros_like(draws), np.full_like(draws, np.sqrt(2)), np.full_like(draws, np.sqrt(2)))
    assert (scoring.normal_score(null) >= 2.326).mean() == pytest.approx(0.01, abs=0.003)
    assert (scoring.standard_score(null) >= 2.326).mean() > 0.025  # what the plain score would give
    flat = scoring.Null(np.ones((2, 1)), np.ones((2, 1)), np.array([[0.0], [1e-15]]), np.zeros((2, 1)))
    assert np.isnan(scoring.normal_score(flat)).all()


def test_bins_match_mean_and_detection(toy):
    x, genes = toy
    bins = scoring.gene_bins(x, genes, n_bins=10, n_detection=2)
    mean = np.asarray(x.mean(axis=0)).ravel()
    detected = np.asarray((x > 0).sum(axis=0)).ravel()
    assert set(np.flatnonzero(bins < 0)) == set(np.flatnonzero(detected == 0))
    for i in range(9):
        here, later = np.isin(bins, (2 * i, 2 * i + 1)), np.isin(bins, (2 * i + 2, 2 * i + 3))
        assert mean[here].max() <= mean[later].min() + 1e-9
        assert detected[bins == 2 * i].max() <= detected[bins == 2 * i + 1].min()
    sizes = np.bincount(bins[bins >= 0])
    assert sizes.max() - sizes.min() <= 2


def test_order_of_genes_and_cells_does_not_matter(toy):
    x, genes = toy
    sets = sets_of(genes, 6, 5)
    z = scoring.score_sets(x, genes, sets, **SETTINGS)
    rng = np.random.default_rng(9)
    columns, rows = rng.permutation(x.shape[1]), rng.permutation(x.shape[0])
    moved = scoring.score_sets(x[rows][:, columns], [genes[c] for c in columns], sets, **SETTINGS)
    assert np.allclose(moved.to_numpy(), z.to_numpy()[rows], atol=1e-9, equal_nan=True)
    assert list(moved.columns) == list(sets)


def test_blocks_give_the_same_scores(toy, monkeypatch):
    x, genes = toy
    sets = sets_of(genes, 3, 6)
    whole = scoring.score_sets(x, genes, sets, **SETTINGS)
    monkeypatch.setattr(scoring, "_BLOCK", 7)
    assert np.allclose(scoring.score_sets(x, genes, sets, **SETTINGS), whole, atol=1e-12)


def test_random_sets_are_standard_normal(toy):
    x, genes = toy
    bins = scoring.gene_bins(x, genes, n_bins=10)
    seen = [g for g, b in zip(genes, bins, strict=True) if b >= 0]
    # 400 sets in one cell each: independent enough for a moment test with a fixed seed.
    z = scoring.score_sets(x, genes, sets_of(seen, 400, 11, size=20), **SETTINGS).to_numpy()
    means, sds = z.mean(axis=1), z.std(axis=1)
    assert abs(means.mean()) < 5 / np.sqrt(400)
    assert np.all(np.abs(means) < 6 / np.sqrt(400))
    assert 0.9 < sds.mean() < 1.1
    assert stats.skew(z.ravel()) < 1


def test_a_planted_set_stands_out(toy):
    x, genes = toy
    mean = np.asarray(x.mean(axis=0)).ravel()
    chosen = np.argsort(-mean)[100:115]
    dense = x.toarray()
    dense[:20, chosen] += 1.0
    z = scoring.score_sets(sparse.csr_matrix(dense), genes, {"up": [genes[i] for i in chosen]}, **SETTINGS)["up"]
    assert z[:20].min() > z[20:].max()


def test_not_measurable_is_nan(toy):
    x, genes = toy
    sets = {"two": genes[:2], "absent": ["NOPE1", "NOPE2", "NOPE3"], "fine": genes[:40]}
    z = scoring.score_sets(x, genes, sets, **SETTINGS)
    assert z["two"].isna().all() and z["absent"].isna().all() and z["fine"].notna().all()
    assert scoring.score_sets(x[:4], genes, sets, **SETTINGS).isna().all(axis=None)
    assert scoring.score_sets(x[:0], genes, sets, **SETTINGS).shape == (0, 3)


def test_an_empty_cell_has_no_evidence(toy):
    x, genes = toy
    empty = sparse.vstack([x, sparse.csr_matrix((1, x.shape[1]), dtype=x.dtype)]).tocsr()
    z = scoring.score_sets(empty, genes, {"fine": genes[:40]}, **SETTINGS)["fine"]
    assert np.isnan(z.iloc[-1]) and z.iloc[:-1].notna().all()


def test_undetected_members_change_nothing(toy):
    x, genes = toy
    wide = sparse.hstack([x, sparse.csr_matrix((x.shape[0], 4), dtype=x.dtype)]).tocsr()
    names = [*genes, "Z1", "Z2", "Z3", "Z4"]
    z = scoring.score_sets(
        wide, names, {"a": genes[:30], "b": [*genes[:30], "Z1", "Z2"], "none": names[-4:]}, **SETTINGS
    )
    assert np.allclose(z["a"], z["b"]) and z["none"].isna().all()


def test_levels_are_means_over_the_genes_of_each_set():
    x = sparse.random(40, 30, density=0.4, random_state=0, format="csr", dtype=np.float32)
    genes = [f"G{i:02d}" for i in range(30)]
    sets = {"a": ["G07", "G01", "G29", "none"], "b": ["G01", "G02"], "few": ["G03", "none"], "none": ["none"]}
    found = scoring.set_levels(x, genes, sets, min_genes=2)
    assert list(found) == list(sets)
    for name, columns in {"a": [1, 7, 29], "b": [1, 2]}.items():
        np.testing.assert_allclose(found[name], x.toarray()[:, columns].mean(axis=1, dtype=float), rtol=1e-12)
    assert found[["few", "none"]].isna().all(axis=None)
    assert scoring.set_levels(x, genes, {"none": ["none"]}, min_genes=1).isna().all(axis=None)


def test_aliases_are_resolved():
    x = sparse.csr_matrix(np.random.default_rng(0).poisson(2.0, (20, 60)).astype(np.float32))
    genes = ["CXCL8", "CCN1", "CCN2", *[f"X{i}" for i in range(57)]]
    z = scoring.score_sets(x, genes, {"new": ["CXCL8", "CCN1", "CCN2"], "old": ["IL8", "CYR61", "CTGF"]}, **SETTINGS)
    assert np.allclose(z["new"], z["old"]) and z["new"].notna().all()


def test_columns_must_fit(toy):
    x, genes = toy
    with pytest.raises(ValueError, match="unique genes"):
        scoring.score_sets(x, [*genes[:-1], genes[0]], {}, **SETTINGS)


def big(seed: int = 0) -> tuple[sparse.csr_matrix, list[str], dict[str, list[str]]]:
    """Enough cells for several blocks, and sets of which one is seen in no cell."""
    rng = np.random.default_rng(seed)
    genes = [f"G{i:04d}" for i in range(300)]
    x = sparse.csr_matrix(
        np.log1p(rng.poisson(rng.lognormal(-1, 1, 300) * rng.lognormal(0, 0.3, (120, 1)))).astype(np.float32)
    )
    return x, genes, {"a": genes[:12], "b": genes[5:40:3], "none": ["X1", "X2", "X3"]}


NULL = {"n_sets": 50, "n_bins": 8, "min_genes": 3, "min_cells": 5, "seed": 1}


@given(seed=st.integers(0, 2**16), threads=st.integers(1, 3), block=st.integers(7, 200))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scores_and_p_do_not_depend_on_order_blocks_or_threads(seed: int, threads: int, block: int) -> None:
    x, genes, sets = big()
    score = {k: v for k, v in NULL.items() if k not in ("n_sets", "seed")}
    z, p = scoring.score_sets(x, genes, sets, **score), scoring.null_p(x, genes, sets, **NULL)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(x.shape[0]), rng.permutation(x.shape[1])
    y, names = x[rows][:, columns], [genes[i] for i in columns]
    mixed = {k: [v[i] for i in rng.permutation(len(v))] for k, v in sets.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_BLOCK", block)
        patch.setattr(scoring, "_COMPILED", 0)  # the compiled loops, against the plain ones above
        other = scoring.score_sets(y, names, mixed, threads=threads, **score)
        other_p = scoring.null_p(y, names, mixed, threads=threads, **NULL)
    np.testing.assert_allclose(other, z.iloc[rows], atol=1e-10)
    np.testing.assert_array_equal(other_p, p.iloc[rows])


def test_null_p_is_the_share_of_drawn_sets() -> None:
    x, genes, sets = big(1)
    p = scoring.null_p(x, genes, sets, **NULL)
    bins = scoring.gene_bins(x, genes, n_bins=8)
    members = np.arange(12)
    drawn = scoring.draw_sets(bins, genes, members, n_sets=50, seed=1, name="a")
    dense = np.round(np.asarray(x.todense(), dtype=float) * 2**32)
    null = np.where(drawn >= 0, dense[:, drawn], 0).sum(axis=2)
    expected = (1 + (null >= dense[:, members].sum(axis=1, keepdims=True)).sum(axis=1)) / 51
    np.testing.assert_allclose(p["a"], expected)
    assert p["none"].isna().all()
    assert np.isnan(scoring.null_p(x[:3], genes, sets, **NULL).to_numpy()).all()


def test_p_of_a_random_set_is_uniform() -> None:
    rng = np.random.default_rng(2)
    x, genes, _ = big(3)
    sets = {f"s{i}": [genes[j] for j in rng.choice(300, 10, replace=False)] for i in range(60)}
    p = scoring.null_p(x, genes, sets, **(NULL | {"n_sets": 99})).to_numpy()[0]
    assert 0.3 < np.nanmean(p) < 0.7
    assert np.nanmean(p <= 0.05) < 0.2
