from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from helpers import write_counts
from nicheloop import io, qc
from nicheloop.config_cells import Qc

OPTIONS = Qc()
SCORE = {"rate": 0.06, "ratio": 2.0, "n_genes": 2000, "min_cells": 3}
CALL = {"rate": 0.06, "max_excess": 3.0, "min_detectable": 0.25, "n_mads": 3.0}


def tumour(n, *, genes=1500, types=5, rate=0.06, depth=3000.0, seed=0):
    """Poisson counts of `types` kinds of cells with planted doublets: (counts, is doublet, of two kinds)."""
    rng = np.random.default_rng(seed)
    profile = rng.gamma(0.3, 1, genes) * np.exp(rng.normal(0, 1, (types, genes)) * (rng.random((types, genes)) < 0.15))
    profile /= profile.sum(axis=1, keepdims=True)

    def draw():
        kind = rng.integers(0, types, n)
        return kind, profile[kind] * (depth * np.exp(rng.normal(0, 0.35, n)))[:, None]

    (kind, rates), (other, more) = draw(), draw()
    doublet = rng.random(n) < rate
    rates[doublet] += more[doublet]
    return sparse.csr_matrix(rng.poisson(rates).astype(np.float32)), doublet, doublet & (kind != other)


def totals(x):
    return np.asarray(x.sum(axis=1, dtype=np.float64)).ravel()


def names(n):
    return [f"G{i}" for i in range(n)]


def auc(truth, scores):
    return stats.mannwhitneyu(scores[truth], scores[~truth]).statistic / (truth.sum() * (~truth).sum())


# ---------------------------------------------------------------------------------------------------------- metrics
def test_gene_classes_take_the_genes_and_leave_their_likenesses():
    genes = ["MT-ND1", "MT-TF", "MTND1P23", "MTOR", "RPL3", "RPL10A", "RPLP0", "RPS4X", "RPSA", "RPS6KA1", "RPL7P1",
             "RPS27L", "HBB", "HBA1", "HBEGF", "HBP1"]  # fmt: skip
    found = {k: [g for g, m in zip(genes, v, strict=True) if m] for k, v in qc.gene_classes(genes).items()}
    assert found == {
        "mito": ["MT-ND1", "MT-TF"],
        "ribo": ["RPL3", "RPL10A", "RPLP0", "RPS4X", "RPSA", "RPS27L"],
        "hb": ["HBB", "HBA1"],
    }


def test_metrics_by_hand():
    x = sparse.csr_matrix(np.array([[5, 3, 2, 0], [0, 0, 0, 4], [0, 0, 0, 0]], dtype=np.float32))
    table = qc.metrics(x, ["MT-CO1", "RPL3", "CD44", "CD24"])
    assert table["n_counts"].tolist() == [10, 4, 0]
    assert table["n_genes"].tolist() == [3, 1, 0]
    np.testing.assert_allclose(table["pct_mito"], [50, 0, 0])
    np.testing.assert_allclose(table["pct_ribo"], [30, 0, 0])
    assert table["pct_hb"].isna().all()


def test_bound_is_median_and_scaled_mad_between_floor_and_cap():
    values = np.random.default_rng(0).normal(20, 4, 999)
    expected = np.median(values) + 2 * stats.median_abs_deviation(values, scale="normal")
    assert qc.bound(values, 2, 0, 100, upper=True) == pytest.approx(expected, rel=1e-4)
    assert qc.bound(values, 2, 50, 100, upper=True) == 50
    assert qc.bound(values, 2, 0, 10, upper=True) == 10
    assert qc.bound(values, 2, 0, 5, upper=False) == 5
    assert qc.bound(np.array([np.nan]), 2, 0, 30, upper=True) == 30


def run(tmp_path, x, genes=None, *, options=OPTIONS, seed=0, record=None, obs=None, name="a"):
    counts = write_counts(tmp_path / name, x, genes or names(x.shape[1]), record=record, obs=obs)
    out = tmp_path / name / "qc.parquet"
    qc.run_qc(counts, out, options=options, seed=seed)
    return io.read_table(out), io.read_status(out)


def test_shallow_tumour_keeps_most_of_its_cells(tmp_path):
    rng = np.random.default_rng(1)
    x = sparse.csr_matrix(rng.poisson(rng.gamma(0.4, 0.9, 1800) * np.exp(rng.normal(0, 0.35, (300, 1)))))
    table, status = run(tmp_path, x)
    assert 350 < table["n_genes"].median() < 500
    assert (table["qc_reason"].isin(["pass", "doublet"])).mean() > 0.85
    assert status.summary["min_genes"] <= 250


def test_deep_sample_uses_the_caps_and_dying_cells_go(tmp_path):
    x, *_ = tumour(200, depth=12000)
    x = sparse.hstack([x, sparse.csr_matrix((200, 1))]).tolil()
    x[:5, -1] = 100000  # dying
    x[5:8] = 0
    x[8, :] = 0
    x[8, :60] = 10  # enough counts, too few genes
    table, status = run(tmp_path, x.tocsr(), [*names(1500), "MT-CO1"])
    assert status.summary["min_counts"] == OPTIONS.min_counts_cap
    assert status.summary["max_mito"] == OPTIONS.max_mito_floor
    assert table["qc_reason"].tolist()[:9] == ["high_mito"] * 5 + ["low_counts"] * 3 + ["low_genes"]
    assert status.summary["n_high_mito"] == 5 and status.summary["n_low_counts"] == 3
    assert (table["qc_pass"] == (table["qc_reason"] == "pass")).all()
    assert table.loc[~table["qc_reason"].isin(["pass", "doublet"]), "doublet_score"].isna().all()


# --------------------------------------------------------------------------------------------------------- doublets
def test_histogram_minimum_equals_skimage():
    filters = pytest.importorskip("skimage.filters")
    rng = np.random.default_rng(0)
    for shift in (2.0, 4.0, 6.0):
        values = np.concatenate([rng.normal(0, 1, 600), rng.normal(shift, 1, 300)])
        assert qc.histogram_minimum(values) == pytest.approx(filters.threshold_minimum(values))
    falling = np.concatenate([rng.exponential(0.1, 900), rng.normal(2, 0.2, 300)])  # first mode at the edge
    assert qc.histogram_minimum(falling) == pytest.approx(filters.threshold_minimum(falling))
    assert qc.histogram_minimum(np.ones(5)) is None


def test_doublet_scores_against_scanpy_and_planted_doublets():
    import anndata as ad
    import scanpy as sc

    x, doublet, mixed = tumour(700)
    scores, simulated = qc.doublet_scores(x, totals(x), **SCORE, n_pcs=12, seed=0)
    oracle = ad.AnnData(x.copy())
    sc.pp.scrublet(oracle, expected_doublet_rate=0.06, random_state=0, verbose=False)
    theirs = oracle.obs["doublet_score"].to_numpy()
    clear = mixed | ~doublet
    assert len(simulated) == 1400 and scores.min() > 0 and scores.max() < 1
    assert auc(mixed[clear], scores[clear]) > 0.97
    assert auc(mixed[clear], scores[clear]) > auc(mixed[clear], theirs[clear]) - 0.02
    assert stats.spearmanr(scores, theirs)[0] > 0.25  # ranks among singlets are mostly noise, in either
    assert np.corrcoef(scores, theirs)[0, 1] > 0.8


@pytest.mark.parametrize("seed", [0, 1])
def test_calls_find_planted_doublets_and_none_where_there_are_none(seed):
    x, doublet, mixed = tumour(800, seed=seed)
    call = qc.call_doublets(*qc.doublet_scores(x, totals(x), **SCORE, n_pcs=12, seed=0), **CALL)
    assert call.how == "automatic" and call.doublet[mixed].mean() > 0.7 and call.doublet[~doublet].mean() < 0.02
    x, *_ = tumour(800, rate=0.0, seed=seed)
    call = qc.call_doublets(*qc.doublet_scores(x, totals(x), **SCORE, n_pcs=12, seed=0), **CALL)
    assert call.doublet.mean() < 0.01


def test_call_falls_back_when_the_threshold_cannot_be_trusted():
    rng = np.random.default_rng(0)
    simulated = np.concatenate([rng.normal(0.1, 0.02, 500), rng.normal(0.6, 0.02, 500)])
    half = np.concatenate([rng.normal(0.1, 0.02, 300), rng.normal(0.6, 0.02, 300)])  # half of all
    call = qc.call_doublets(half, simulated, **CALL)
    assert call.how != "automatic" and call.doublet.mean() <= 0.06
    one_mode = rng.normal(0.1, 0.02, 1000)
    assert qc.call_doublets(rng.normal(0.1, 0.02, 500), one_mode, **CALL).how == "not_separated"
    rising = rng.uniform(0.1, 0.9, 3000)
    cells = np.concatenate([rng.normal(0.1, 0.01, 980), np.full(20, 0.55)])
    call = qc.call_doublets(cells, rising, **CALL | {"min_detectable": 0.3})
    assert call.doublet[-20:].all() and call.doublet.mean() <= 0.06


def test_run_drops_doublets_or_only_marks_them(tmp_path):
    x, *_ = tumour(400)
    table, status = run(tmp_path, x)
    assert status.ok and status.summary["n_doublets"] == table["doublet"].sum() > 0
    assert (table.loc[table["doublet"].astype(bool), "qc_reason"] == "doublet").all()
    marked, status = run(tmp_path, x, options=Qc(drop_doublets=False), name="b")
    assert marked["doublet"].tolist() == table["doublet"].tolist()
    assert (marked["qc_reason"] == "pass").sum() == len(marked) and not status.summary["doublets_dropped"]
    assert status.summary["doublet_call"] in ("automatic", "expected_rate", "not_separated")


def test_scores_do_not_depend_on_gene_order_and_repeat():
    x, *_ = tumour(300)
    order = np.random.default_rng(3).permutation(x.shape[1])
    first, _ = qc.doublet_scores(x, totals(x), **SCORE, n_pcs=12, seed=5)
    again, _ = qc.doublet_scores(x[:, order].tocsr(), totals(x), **SCORE, n_pcs=12, seed=5)
    np.testing.assert_allclose(first, again, atol=0.15)
    assert (np.abs(first - again) < 1e-12).mean() > 0.99
    other, _ = qc.doublet_scores(x, totals(x), **SCORE, n_pcs=12, seed=6)
    assert not np.array_equal(first, other)


def test_run_does_not_depend_on_cell_order(tmp_path):
    x, *_ = tumour(300)
    table, _ = run(tmp_path, x)
    import anndata as ad

    path = tmp_path / "a" / "counts.h5ad"
    data = ad.read_h5ad(path)
    turned = data[np.random.default_rng(0).permutation(300)].copy()
    turned.write_h5ad(tmp_path / "turned.h5ad")
    qc.run_qc(tmp_path / "turned.h5ad", tmp_path / "turned.parquet", options=OPTIONS, seed=0)
    again = io.read_table(tmp_path / "turned.parquet").set_index("cell_id").loc[table["cell_id"]].reset_index()
    assert again.equals(table)


def test_components_follow_the_number_of_cells():
    assert [qc.n_components(n, 60, 8, 30) for n in (100, 625, 9000)] == [8, 10, 30]


def continuum(n, seed, rate=0.06, genes=1500):
    """Four kinds of cells in which a few genes vary from cell to cell on their own, as cycling or stressed cells do."""
    rng = np.random.default_rng(seed)
    base = rng.gamma(0.3, 1, genes)
    profile = base * np.exp(rng.normal(0, 1.6, (4, genes)) * (rng.random((4, genes)) < 0.15))
    programme = rng.normal(0, 0.45, (25, genes)) * (rng.random((25, genes)) < 0.05)

    def draw():
        kind = rng.choice(4, n, p=[0.5, 0.2, 0.2, 0.1])
        rates = profile[kind] * np.exp(rng.normal(0, 1, (n, 25)) @ programme)
        return kind, rates / rates.sum(axis=1, keepdims=True) * (3000 * np.exp(rng.normal(0, 0.35, n)))[:, None]

    (kind, rates), (other, more) = draw(), draw()
    doublet = rng.random(n) < rate
    rates[doublet] += more[doublet]
    return sparse.csr_matrix(rng.poisson(rates).astype(np.float32)), doublet, doublet & (kind != other)


@pytest.mark.parametrize("seed", [0, 1])
def test_cells_that_vary_on_their_own_do_not_hide_doublets(tmp_path, seed):
    x, doublet, mixed = continuum(600, seed)
    table, status = run(tmp_path, x)
    called = table["doublet"].to_numpy(dtype=bool)
    assert status.summary["doublet_components"] == 10
    assert called[mixed].mean() >= 0.8 and doublet[called].mean() >= 0.8 and called[~doublet].mean() <= 0.03


# ------------------------------------------------------------------------------------------------------- edge cases
def test_few_cells_have_no_doublet_answer(tmp_path):
    x, *_ = tumour(90)
    table, status = run(tmp_path, x)
    assert table["doublet_score"].isna().all() and table["doublet"].isna().all()
    assert "90 cells" in status.summary["doublets"] and table["qc_pass"].all()


def test_values_that_are_not_counts_are_filtered_by_genes_only(tmp_path):
    x, *_ = tumour(150)
    x = x.multiply(1e6 / totals(x)[:, None]).tocsr()
    table, status = run(tmp_path, x, record={"is_counts": False})
    assert status.summary["min_counts"] is None and "no counts" in status.summary["doublets"]
    assert table["qc_pass"].all() and table["doublet"].isna().all()


@pytest.mark.parametrize("n", [0, 1, 5])
def test_tiny_samples(tmp_path, n):
    x = sparse.csr_matrix(np.full((n, 300), 3.0))
    table, status = run(tmp_path, x)
    assert len(table) == n
    assert status.status == ("ok" if n else "no_cells")


def test_failed_sample_keeps_its_status(tmp_path):
    table, status = run(tmp_path, sparse.csr_matrix((0, 3)), record={"status": "unreadable", "reason": "why"})
    assert len(table) == 0 and (status.status, status.reason) == ("unreadable", "why")


def test_only_one_kind_of_cell(tmp_path):
    x, *_ = tumour(300, types=1, rate=0.0)
    table, status = run(tmp_path, x)
    assert table["qc_pass"].mean() > 0.93 and status.ok


def test_above_nine_thousand_cells():
    x, doublet, mixed = tumour(9200, genes=400, depth=1500)
    scores, simulated = qc.doublet_scores(x, totals(x), **SCORE, n_pcs=12, seed=0)
    clear = mixed | ~doublet
    assert auc(mixed[clear], scores[clear]) > 0.95
    assert len(simulated) == 18400
