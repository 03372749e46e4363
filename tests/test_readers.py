"""Reading counts of every format."""

from __future__ import annotations

import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.io import mmwrite

from matrix_files import CELLS, GENES, SYMBOLS, X, check, dense, features_of, h5ad, loom, run, tenx_h5, triplet
from nicheloop import genes, ingest, rawcounts, readers, readers_mtx
from nicheloop.errors import NotAssessable, UserError

# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("v2", [True, False])
@pytest.mark.parametrize("prefix", ["", "GSM1_sampleA_", "Tcells-"])
def test_10x_folders(tmp_path: Path, v2: bool, prefix: str) -> None:
    features = [f[:2] if v2 else f for f in features_of(GENES)]
    counts, record = run(triplet(tmp_path / "in", X, features, CELLS, prefix=prefix, v2=v2), tmp_path)
    check(counts)
    assert (record["status"], record["format"], record["n_cells"], record["n_unresolved"]) == ("ok", "10x_mtx", 5, 0)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.booleans())
def test_entries_of_an_mtx_may_stand_in_any_order_and_more_than_once(data: st.DataObject, by_cell: bool) -> None:
    shape = (5, 4)  # features, barcodes
    entry = st.tuples(st.integers(1, shape[0]), st.integers(1, shape[1]), st.integers(1, 9))
    entries = data.draw(st.lists(entry, max_size=25))
    expected = np.zeros(shape)
    for feature, cell, count in entries:
        expected[feature - 1, cell - 1] += count
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = shape[::-1] if by_cell else shape
        lines = [f"{c} {f} {n}" if by_cell else f"{f} {c} {n}" for f, c, n in entries]
        head = ["%%MatrixMarket matrix coordinate integer general", f"{size[0]} {size[1]} {len(entries)}"]
        (folder / "matrix.mtx").write_text("\n".join([*head, *lines]) + "\n")
        (folder / "features.tsv").write_text("".join(f"ENSG{i:011d}\tG{i}\tGene Expression\n" for i in range(shape[0])))
        (folder / "barcodes.tsv").write_text("".join(f"AAAC{i}-1\n" for i in range(shape[1])))
        found = readers_mtx.read_mtx(folder / "matrix.mtx").matrix
    assert found.dtype == np.float32 and found.has_canonical_format
    np.testing.assert_array_equal(found.toarray(), expected.T)


def test_prefix_chooses_a_sample_and_shares_the_features(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for prefix, x in (("GSM1_", X), ("GSM2_", X + 1)):
        triplet(folder, x, features_of(GENES), CELLS, prefix=prefix)
        (folder / f"{prefix}features.tsv.gz").rename(folder / "GSE_features.tsv.gz")
    check(run(folder / "GSM2_", tmp_path)[0], X + 1)
    check(run(folder / "GSM1_", tmp_path)[0], X)
    with pytest.raises(UserError, match="2 matrices"):
        readers.read_counts(folder)


def test_plain_triplet_with_symbols_headers_and_transposed_matrix(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    mmwrite(folder / "cell_counts_matrix.mtx", sparse.coo_matrix(X))  # cells x genes
    (folder / "features.csv").write_text("gene\n" + "\n".join(GENES) + "\n")
    (folder / "barcodes.csv").write_text(",barcode\n" + "".join(f"{i},{c}\n" for i, c in enumerate(CELLS)))
    (folder / "meta_all.csv").write_text("cell,type\n")
    check(run(folder, tmp_path)[0])


@pytest.mark.parametrize("version", [2, 3])
def test_10x_h5(tmp_path: Path, version: int) -> None:
    counts, record = run(tenx_h5(tmp_path / "x.h5", X, GENES, version=version), tmp_path)
    check(counts)
    assert record["format"] == "10x_h5"


def test_antibodies_are_left_out_and_counted(tmp_path: Path) -> None:
    kinds = ["Gene Expression"] * 6 + ["Antibody Capture"] * 2
    counts, record = run(tenx_h5(tmp_path / "x.h5", X, GENES, kinds=kinds), tmp_path)
    check(counts, X[:, :6], GENES[:6])
    assert record["n_other_features"] == 2
    folder = triplet(tmp_path / "in", X, [[*f[:2], k] for f, k in zip(features_of(GENES), kinds, strict=True)], CELLS)
    check(run(folder, tmp_path)[0], X[:, :6], GENES[:6])


@pytest.mark.parametrize("place", ["layer", "raw", "X", "X dense"])
def test_h5ad_finds_the_counts(tmp_path: Path, place: str) -> None:
    path = tmp_path / "x.h5ad"
    logged = sparse.csr_matrix(np.log1p(X))
    if place == "layer":
        h5ad(path, logged, counts=sparse.csc_matrix(X))
    elif place == "raw":
        adata = ad.AnnData(
            sparse.csr_matrix(X).astype(np.float32), obs=pd.DataFrame(index=CELLS), var=pd.DataFrame(index=GENES)
        )
        adata.raw = adata
        adata = adata[:, :4].copy()
        adata.X = logged[:, :4]
        adata.write_h5ad(path)
    else:
        h5ad(path, X.astype(np.float32) if "dense" in place else sparse.csr_matrix(X, dtype=np.float32))
    counts, record = run(path, tmp_path)
    check(counts)
    assert record["source"] == {"layer": "layers[counts]", "raw": "raw.X"}.get(place, "X")


def test_h5ad_keeps_the_cells_table_and_the_annotation(tmp_path: Path) -> None:
    obs = pd.DataFrame({
        "cell/type": pd.Categorical(["T", "T", None, "B", "B"]), "sample": list("abcde"), "score": [1.5, np.nan, 2, 3, 4],
        "n": [1, 2, 3, 4, 5], "flag": [True, False, True, True, False], "empty": [np.nan] * 5,
    })  # fmt: skip
    path = h5ad(
        tmp_path / "x.h5ad",
        sparse.csr_matrix(X, dtype=np.float32),
        obs=obs.drop(columns="cell/type").assign(kind=obs["cell/type"]),
    )
    counts, record = run(path, tmp_path, annotation="kind")
    assert counts.annotation("annotation_input").tolist() == ["T", "T", "", "B", "B"]
    assert counts.annotation("sample").tolist() == ["s1"] * 5
    assert counts.annotation("input_sample").tolist() == list("abcde")
    assert not record["annotation_missing"]
    written = ad.read_h5ad(counts.path).obs
    assert written["score"].isna().tolist() == [False, True, False, False, False]
    assert written["n"].tolist() == [1, 2, 3, 4, 5]
    assert written["flag"].tolist() == ["True", "False", "True", "True", "False"]
    assert "empty" not in written
    _, record = run(path, tmp_path, annotation="no_such_column")
    assert record["status"] == "ok"
    assert record["annotation_missing"]
    assert "no_such_column" in record["warnings"][0]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.txt.gz", "x.csv.gz"])
@pytest.mark.parametrize("rows", ["genes", "cells"])
@pytest.mark.parametrize("corner", ["gene", "", None])
def test_dense_text(tmp_path: Path, name: str, rows: str, corner: str | None) -> None:
    sep = "," if ".csv" in name else "\t"
    if rows == "genes":
        path = dense(tmp_path / name, X.T, GENES, CELLS, sep=sep, corner=corner)
    else:
        path = dense(tmp_path / name, X, CELLS, GENES, sep=sep, corner=corner)
    counts, record = run(path, tmp_path)
    check(counts)
    assert record["format"] == "dense"


def test_dense_in_blocks_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dense(tmp_path / "x.tsv", X.T, GENES, CELLS)
    monkeypatch.setattr(rawcounts, "BLOCK_VALUES", 11)
    check(run(path, tmp_path)[0])


def test_dense_with_several_label_columns(tmp_path: Path) -> None:
    lines = ["gene_id\tgene_name\tgene_type\t" + "\t".join(CELLS)]
    lines += [
        "\t".join([f"{genes.ensembl_id(g)}.7", g, "protein_coding", *map(str, X[:, i])]) for i, g in enumerate(GENES)
    ]
    (tmp_path / "x.txt").write_text("\n".join(lines))
    check(run(tmp_path / "x.txt", tmp_path)[0])


def test_tpm_is_read_and_flagged(tmp_path: Path) -> None:
    tpm = X / X.sum(axis=1, keepdims=True) * 1e6 / 7
    counts, record = run(dense(tmp_path / "x.tsv", tpm.T, GENES, CELLS), tmp_path)
    assert record["status"] == "ok"
    assert record["is_counts"] is False
    np.testing.assert_allclose(counts.matrix().toarray(), tpm, rtol=1e-6)
    with pytest.raises(NotAssessable):
        counts.require()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_orientation_follows_the_genes_not_the_shape(tmp_path: Path, data: st.DataObject) -> None:
    symbols = data.draw(st.lists(st.sampled_from(SYMBOLS), min_size=3, max_size=8, unique=True))
    n_cells = data.draw(st.integers(1, 12))
    x = np.random.default_rng(0).poisson(2, (n_cells, len(symbols)))
    cells = [f"cell_{i}" for i in range(n_cells)]
    names = data.draw(st.sampled_from([symbols, [f"{genes.ensembl_id(s)}.3" for s in symbols]]))
    for path in (
        dense(tmp_path / "a.tsv", x.T, names, cells),
        dense(tmp_path / "b.tsv", x, cells, names, corner="cell"),
    ):
        raw = readers.read_counts(path)
        assert raw.barcodes == cells
        named = ingest.name_genes(raw)
        assert named.symbols.tolist() == symbols
        np.testing.assert_array_equal(named.matrix.toarray(), x)


@pytest.mark.parametrize("block", [None, 7])
def test_loom(tmp_path: Path, block: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if block:
        monkeypatch.setattr(rawcounts, "BLOCK_VALUES", block)
    counts, record = run(loom(tmp_path / "x.loom"), tmp_path, annotation="cluster")
    check(counts)
    assert (record["format"], record["source"]) == ("loom", "matrix")
    assert counts.annotation("annotation_input").tolist() == ["a"] * 5
    assert ad.read_h5ad(counts.path).obs["nUMI"].tolist() == X.sum(axis=1).tolist()


def cellxgene(path: Path, **obs: object) -> Path:
    """As CELLxGENE serves: Ensembl ids as names, symbols as feature_name, counts in raw.X, ontology terms per cell."""
    columns = {
        "assay": "10x 3' v3", "assay_ontology_term_id": "EFO:0009922", "disease": "normal",
        "disease_ontology_term_id": "PATO:0000461", "donor_id": "D1", "tissue": "breast", "is_primary_data": True,
        "cell_type": ["T cell", "B cell"] * 2 + ["T cell"], **obs,
    }  # fmt: skip
    table = pd.DataFrame({k: pd.Series(v if isinstance(v, list) else [v] * 5) for k, v in columns.items()})
    for column in table.columns.drop("is_primary_data"):
        table[column] = table[column].astype("category")
    table.index = pd.Index(CELLS)
    var = pd.DataFrame({"feature_name": pd.Categorical(GENES)}, index=[genes.ensembl_id(g) for g in GENES])
    adata = ad.AnnData(sparse.csr_matrix(X, dtype=np.float32), obs=table, var=var)
    adata.raw = adata.copy()
    adata.X = sparse.csr_matrix(np.log1p(X), dtype=np.float32)
    adata.write_h5ad(path)
    return path


def test_cellxgene_counts_names_and_terms(tmp_path: Path) -> None:
    counts, record = run(cellxgene(tmp_path / "x.h5ad"), tmp_path, annotation="cell_type")
    check(counts)
    assert record["source"] == "raw.X"
    assert (record["tissue"], record["chemistry"]) == ("normal", "10x 3' v3")
    assert record["extra"]["cellxgene_donor_id"] == "D1"
    assert record["annotation_counts"] == {"B cell": 2, "T cell": 3}
    assert record["warnings"] == []


def test_the_sheet_wins_over_cellxgene_and_several_terms_say_nothing(tmp_path: Path) -> None:
    _, record = run(cellxgene(tmp_path / "x.h5ad"), tmp_path, tissue="tumour", chemistry="mine")
    assert (record["tissue"], record["chemistry"]) == ("tumour", "mine")
    path = cellxgene(
        tmp_path / "y.h5ad", assay=["a", "b", "a", "a", "a"], disease_ontology_term_id=["PATO:0000461"] * 4 + ["MONDO:1"],
        is_primary_data=[True, False, True, True, True],
    )  # fmt: skip
    _, record = run(path, tmp_path)
    assert (record["tissue"], record["chemistry"]) == (None, None)
    assert any("is_primary_data" in w for w in record["warnings"])


def test_label_rows_become_columns_of_the_cells(tmp_path: Path) -> None:
    rows = ["\t".join(["x", *CELLS]), "\t".join(["call", "T", "N", "T", "N", "T"]), "\t".join(["group", *"aabba"])]
    rows += ["\t".join([g, *map(str, X[:, i])]) for i, g in enumerate(GENES)]
    (tmp_path / "x.txt").write_text("\n".join(rows) + "\n")
    counts, record = run(tmp_path / "x.txt", tmp_path, annotation="call")
    check(counts)
    assert counts.annotation("annotation_input").tolist() == list("TNTNT")
    assert counts.annotation("group").tolist() == list("aabba")
    assert "'call', 'group'" in record["warnings"][1]


@pytest.mark.parametrize("rows", ["genes", "cells"])
def test_missing_means_zero_only_where_it_is_said(tmp_path: Path, rows: str) -> None:
    text = [
        [str(v) if v else ["", "NaN", "NA"][j % 3] for j, v in enumerate(r)] for r in (X.T if rows == "genes" else X)
    ]
    names, columns = (GENES, CELLS) if rows == "genes" else (CELLS, GENES)
    lines = [",".join(["x", *columns]), *[",".join([n, *t]) for n, t in zip(names, text, strict=True)]]
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    raw = readers.read_counts(tmp_path / "x.csv", layout=readers.Layout(missing_is_zero=True))
    np.testing.assert_array_equal(raw.matrix.toarray(), X)
    with pytest.raises(UserError, match="is not a number"):
        readers.read_counts(tmp_path / "x.csv")
