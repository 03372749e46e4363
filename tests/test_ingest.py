"""Naming genes, and what ingest writes of a sample."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from matrix_files import CELLS, GENES, SYMBOLS, X, features_of, h5ad, run, triplet
from nicheloop import ingest, readers
from nicheloop.config_cells import Ingest
from nicheloop.errors import UserError

# --- names ------------------------------------------------------------------------------------------------------------


def test_old_names_ids_and_duplicates_become_one_gene(tmp_path: Path) -> None:
    names = ["IL8", "CXCL8", "ENSG00000169429.12", "HLA.DRA", "1-Mar", "novel1", "IL12"]
    x = np.arange(35).reshape(5, 7)
    path = h5ad(tmp_path / "x.h5ad", sparse.csr_matrix(x, dtype=np.float32), names)
    counts, record = run(path, tmp_path)
    assert counts.genes.tolist() == ["CXCL8", "HLA-DRA", "1-Mar", "novel1", "IL12"]
    np.testing.assert_array_equal(counts.matrix().toarray(), np.column_stack([x[:, :3].sum(axis=1), x[:, 3:]]))
    assert record["n_features"] == 7
    assert record["n_resolved"] == 4
    assert record["n_unresolved"] == 3
    assert record["unresolved_examples"] == ["1-Mar", "novel1", "IL12"]
    assert record["n_duplicates_summed"] == 2
    assert record["n_spreadsheet_dates"] == 1
    assert record["ambiguous_examples"] == ["IL12"]
    assert "1-Mar" in record["warnings"][0]
    assert record["guards"]["CXCL8"] == "present"
    assert record["guards"]["CD24"] == "absent from reference"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([*GENES, "IL8", "CXCL7", "novel", *SYMBOLS[:20]]), min_size=1, max_size=30),
    st.integers(0, 2**32 - 1),
)
def test_summing_keeps_every_count(names: list[str], seed: int) -> None:
    x = np.random.default_rng(seed).poisson(1, (4, len(names)))
    matrix, first = ingest.collapse(sparse.csr_matrix(x, dtype=np.float32), np.array(names, dtype=object))
    np.testing.assert_array_equal(np.asarray(matrix.sum(axis=1)).ravel(), x.sum(axis=1))
    unique = list(dict.fromkeys(names))
    assert [names[i] for i in first] == unique
    for j, name in enumerate(unique):
        np.testing.assert_array_equal(matrix[:, [j]].toarray().ravel(), x[:, [n == name for n in names]].sum(axis=1))


def test_pseudogene_of_cd24_does_not_count_as_cd24(tmp_path: Path) -> None:
    features = features_of(GENES)
    features[1][0] = "ENSG00000185275"
    counts, record = run(triplet(tmp_path / "in", X, features, CELLS), tmp_path)
    assert record["guards"]["CD24"] == "absent from reference"
    assert "CD24" not in counts.genes
    assert "CD24P4" in counts.genes


def test_the_sheet_goes_into_the_record(tmp_path: Path) -> None:
    path = h5ad(tmp_path / "x.h5ad", sparse.csr_matrix(X, dtype=np.float32))
    _, record = run(
        path, tmp_path, subtype="TNBC", tissue="", age=41, batch=None, extra={"site": "A"}, patient=float("nan")
    )
    assert (record["sample"], record["patient"], record["subtype"], record["tissue"]) == ("s1", "s1", "TNBC", None)
    assert record["extra"] == {"age": "41", "batch": None, "site": "A"}
    with pytest.raises(UserError, match="sample"):
        ingest.run_ingest(path, tmp_path / "o", tmp_path / "r", row={"sample": ""}, options=Ingest())


def test_output_is_deterministic(tmp_path: Path) -> None:
    path = h5ad(tmp_path / "x.h5ad", sparse.csr_matrix(X, dtype=np.float32))
    first = (run(path, tmp_path)[0].path.read_bytes(), (tmp_path / "out" / "ingest.json").read_bytes())
    assert first == (run(path, tmp_path)[0].path.read_bytes(), (tmp_path / "out" / "ingest.json").read_bytes())


# --- real data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "cells", "features", "absent"),
    [
        ("tumours/tenx_idc", 687, 36601, set()),
        ("tumours/qian_sc5rJUQ043", 95, 33694, set()),
        ("tumours/qian_scrJUQ072", 130, 15684, {"CXCR1", "PPBP"}),
        ("normals/sample1", 140, 25269, set()),
        ("normals/sample2", 120, 25269, set()),
        ("cell_lines/BC_cell_lines_930.h5ad", 930, 30087, {"CXCR1", "CXCR2", "PPBP"}),
    ],
)
def test_real_samples(real_data: Path, tmp_path: Path, path: str, cells: int, features: int, absent: set[str]) -> None:
    counts, record = run(real_data / path, tmp_path, annotation="cell_line")
    assert (record["status"], record["n_cells"], record["n_features"]) == ("ok", cells, features)
    assert record["is_counts"]
    assert record["n_resolved"] / features > 0.95
    assert record["n_genes"] > 0.98 * features
    assert {g for g, s in record["guards"].items() if s != "present"} == absent
    raw = readers.read_counts(real_data / path)
    x = counts.matrix()
    assert x.shape == (cells, record["n_genes"])
    assert x.sum(dtype=np.float64) == raw.matrix.sum(dtype=np.float64)  # nothing is lost
    assert "cell_lines" not in path or set(counts.annotation("annotation_input")) >= {"MCF7", "BT549"}


def test_real_10x_totals_agree_with_scanpy_free_reading(real_data: Path, tmp_path: Path) -> None:
    """CD44 counts per cell straight from HDF5."""
    counts, _ = run(real_data / "tumours/tenx_idc", tmp_path)
    with h5py.File(next((real_data / "tumours/tenx_idc").glob("*.h5"))) as handle:
        names = handle["matrix/features/name"].asstr()[:]
        gene = int(np.flatnonzero(names == "CD44")[0])
        hits = handle["matrix/indices"][:] == gene
        assert counts.matrix(genes=["CD44"]).sum() == handle["matrix/data"][:][hits].sum()
