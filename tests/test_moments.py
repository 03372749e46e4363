from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from helpers import write_counts
from nicheloop import io, moments


def counts(n=60, genes=40, seed=0):
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix(
        rng.poisson(rng.gamma(0.5, 3, (1, genes)) * np.exp(rng.normal(0, 0.5, (n, 1)))), dtype=np.float32
    )


def totals(x):
    return np.asarray(x.sum(axis=1, dtype=np.float64)).ravel()


def test_moments_equal_dense_arithmetic():
    x = counts()
    positive, mean, variance = moments.gene_moments(x, totals(x))
    dense = x.toarray().astype(float) / totals(x)[:, None] * 1e4
    np.testing.assert_array_equal(positive, (dense > 0).sum(axis=0))
    np.testing.assert_allclose(mean, dense.mean(axis=0))
    np.testing.assert_allclose(variance, dense.var(axis=0, ddof=1))


def test_explicit_zeros_and_empty_cells_count_as_zeros():
    x = sparse.csr_matrix(
        (np.array([2.0, 0.0, 2.0], dtype=np.float32), np.array([0, 1, 0]), np.array([0, 2, 3, 3])), shape=(3, 2)
    )
    positive, mean, variance = moments.gene_moments(x, totals(x))
    np.testing.assert_array_equal(positive, [2, 0])
    np.testing.assert_allclose(mean, [2e4 / 3, 0])
    np.testing.assert_allclose(variance, [np.var([1e4, 1e4, 0], ddof=1), 0])


def test_one_cell_has_no_variance():
    positive, mean, variance = moments.gene_moments(counts(1), totals(counts(1)))
    assert np.isnan(variance).all() and mean.sum() == pytest.approx(1e4) and positive.max() == 1


def test_variance_of_a_nearly_constant_gene_survives():
    x = sparse.csr_matrix(np.array([[1e6, 1.0], [1e6, 2.0], [1e6, 3.0]], dtype=np.float32))
    _, _, variance = moments.gene_moments(x, np.full(3, 1e4))
    assert variance[0] == 0 and variance[1] == pytest.approx(1.0)


@pytest.mark.parametrize("n_bins", [5, 20])
def test_dispersion_by_pandas(n_bins):
    rng = np.random.default_rng(0)
    mean, variance = rng.gamma(0.5, 3, 400) + 1e-3, rng.gamma(1, 3, 400)
    variance[:3] = 0
    frame = pd.DataFrame({"m": np.log1p(mean), "d": np.log(np.where(variance > 0, variance / mean, np.nan))})
    group = frame.groupby(pd.cut(frame["m"], n_bins), observed=True)["d"]
    average, deviation = group.transform("mean"), group.transform("std")
    alone = deviation.isna() & frame["d"].notna()
    expected = ((frame["d"] - average) / deviation).where(~alone, 1.0)
    np.testing.assert_allclose(moments.normalised_dispersion(mean, variance, n_bins), expected)


def test_dispersion_does_not_depend_on_gene_order_and_survives_equal_means():
    rng = np.random.default_rng(1)
    mean, variance = rng.gamma(1, 3, 100), rng.gamma(1, 3, 100)
    order = rng.permutation(100)
    np.testing.assert_allclose(
        moments.normalised_dispersion(mean[order], variance[order]),
        moments.normalised_dispersion(mean, variance)[order],
    )
    assert np.isfinite(moments.normalised_dispersion(np.ones(9), variance[:9])).all()
    assert moments.normalised_dispersion(np.zeros(0), np.zeros(0)).shape == (0,)


def test_gene_patterns():
    def found(pattern, genes):
        return [g for g in genes if pattern.fullmatch(g)]

    genes = ["IGHV1-2", "IGKJ5", "IGHD3-10", "TRAV1-2", "TRBD1", "TRGV9", "TRDJ1"]
    others = ["IGHD", "IGHG1", "IGKC", "IGLC2", "TRAC", "TRBC1", "TRDN", "IGHMBP2", "TRAP1", "IGLL5", "IGHA1"]
    assert found(moments.VARIABLE_REGION, [*genes, *others]) == genes


def write_qc(path, ids, passed):
    table = pd.DataFrame({"cell_id": ids, "n_counts": 1.0, "n_genes": 1, "pct_mito": np.nan, "pct_ribo": np.nan, "pct_hb": np.nan,
                          "doublet_score": np.nan, "doublet": pd.array([pd.NA] * len(ids), dtype="boolean"), "qc_pass": passed,
                          "qc_reason": np.where(passed, "pass", "low_counts")})  # fmt: skip
    io.write_table(table, path, "qc", io.Status("qc", "s1"))


def test_run_reads_kept_cells_only(tmp_path):
    x = counts()
    path = write_counts(tmp_path, x, [f"G{i}" for i in range(40)])
    kept = np.arange(60) % 3 > 0
    write_qc(tmp_path / "qc.parquet", io.Counts(path).cell_ids, kept)
    moments.run_moments(path, tmp_path / "qc.parquet", tmp_path / "m.parquet")
    table = io.read_table(tmp_path / "m.parquet")
    positive, mean, variance = moments.gene_moments(x[kept], totals(x[kept]))
    assert (table["n_cells"] == 40).all() and table["n_positive"].tolist() == positive.tolist()
    np.testing.assert_allclose(table["mean"], mean)
    np.testing.assert_allclose(table["variance"], variance)


def test_run_without_cells_says_so(tmp_path):
    path = write_counts(tmp_path, counts(4), [f"G{i}" for i in range(40)])
    write_qc(tmp_path / "qc.parquet", io.Counts(path).cell_ids, np.zeros(4, dtype=bool))
    moments.run_moments(path, tmp_path / "qc.parquet", tmp_path / "m.parquet")
    assert len(io.read_table(tmp_path / "m.parquet")) == 0
    assert io.read_status(tmp_path / "m.parquet").status == "no_cells"
