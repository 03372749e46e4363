"""Atomic writes and partial reads of counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from helpers import write_counts
from nicheloop import io
from nicheloop.errors import NotAssessable, UserError


def test_atomic_leaves_the_old_file_when_the_block_fails(tmp_path: Path):
    path = tmp_path / "x.txt"
    io.write_text(path, "old")
    with pytest.raises(RuntimeError), io.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_counts_are_read_by_cell_and_gene_in_the_order_asked(tmp_path: Path):
    x = np.arange(12).reshape(3, 4)
    counts = io.Counts(write_counts(tmp_path, x, list("ABCD"), sample="s"))
    got = counts.matrix(cells=["s:c00002", "s:c00000"], genes=["D", "A"])
    np.testing.assert_array_equal(got.toarray(), x[[2, 0]][:, [3, 0]])
    with pytest.raises(KeyError, match="'Z'"):
        counts.matrix(genes=["Z"])


def test_a_matrix_read_ahead_is_the_same_and_fails_where_it_is_asked_for(tmp_path: Path):
    x = np.random.default_rng(1).poisson(0.5, (30, 12))
    counts = io.Counts(write_counts(tmp_path, x, [f"G{i}" for i in range(12)], sample="s"))
    ahead = counts.matrix_ahead()
    np.testing.assert_array_equal(ahead().toarray(), counts.matrix().toarray())
    assert ahead().dtype == np.float32
    broken = io.Counts(tmp_path / "nowhere.h5ad").matrix_ahead()
    with pytest.raises(UserError, match=r"nowhere\.h5ad"):
        broken()


def test_require_names_what_is_missing(tmp_path: Path):
    for sample, x, record, status in [
        ("a", np.eye(2), {"status": "unreadable", "reason": "cut"}, "unreadable"),
        ("b", np.zeros((0, 2)), {}, "no_cells"),
        ("c", np.eye(2), {"is_counts": False}, "no_counts"),
    ]:
        counts = io.Counts(write_counts(tmp_path / sample, x, ["A", "B"], record=record))
        with pytest.raises(NotAssessable) as err:
            counts.require()
        assert err.value.status == status


def test_a_broken_counts_file_is_a_message(tmp_path: Path):
    (tmp_path / "counts.h5ad").write_text("not hdf5")
    with pytest.raises(UserError, match=r"counts\.h5ad"):
        _ = io.Counts(tmp_path / "counts.h5ad").cell_ids


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 9))
def test_lognormalise_matches_the_dense_formula(seed: int, n: int, m: int):
    x = np.random.default_rng(seed).poisson(0.7, (n, m)).astype(float)
    totals = x.sum(1, keepdims=True)
    expected = np.log1p(np.divide(x * 1e4, totals, out=np.zeros_like(x), where=totals > 0))
    np.testing.assert_allclose(io.lognormalise(sparse.csr_matrix(x)).toarray(), expected, rtol=1e-5)


def test_one_samples_rows_are_read_without_those_of_far_samples(tmp_path: Path):
    n, samples = 3 * io.ROW_GROUP // 10, [f"s{i}" for i in range(10)]
    names = np.repeat(samples, n)
    table = pd.DataFrame(
        {"cell_id": [f"{s}:{i}" for i, s in enumerate(names)], "sample": names, "leiden_1": "1", "cluster": "1"}
    )
    path = tmp_path / "clusters.parquet"
    io.write_table(table, path, "clusters")
    parts = pq.ParquetFile(path).metadata
    assert [parts.row_group(i).num_rows for i in range(parts.num_row_groups)] == [io.ROW_GROUP] * 3
    for sample in samples:  # the parts a sample's rows lie in, by what each says of its names
        found = io.read_cells(path, sample, ["cluster"])
        assert found.index.tolist() == table.loc[table["sample"] == sample, "cell_id"].tolist()
        ends = [parts.row_group(i).column(1).statistics for i in range(3)]
        assert 1 <= sum(e.min <= sample <= e.max for e in ends) <= 2
    some = io.read_table(path, ["cell_id", "sample"], where=[("sample", "in", ["s3", "s7"])])
    assert set(some["sample"]) == {"s3", "s7"} and len(some) == 2 * n
