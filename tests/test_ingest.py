"""Reading counts of every format, naming genes, and what happens to damaged or unsuitable files."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.io import mmwrite

from nicheloop import genes, ingest, inputs, io, readers
from nicheloop.config import Ingest
from nicheloop.errors import NotAssessable, UserError

GENES = ["CD44", "CD24", "IL6", "CXCL8", "PPBP", "EPCAM", "KRT8", "ALDH1A3"]
SYMBOLS = sorted(s for s, e in genes._ensembl_of().items() if e)
X = np.random.default_rng(0).poisson(1.0, (5, len(GENES)))
CELLS = [f"AAAC{i}-1" for i in range(len(X))]


def triplet(
    folder: Path, x: np.ndarray, features: list[list[str]], barcodes: list[str], *, prefix: str = "", v2: bool = False
) -> Path:
    """10x folder: v2 plain genes.tsv, or v3 gzipped features.tsv; `x` is cells x features."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "genes.tsv" if v2 else "features.tsv.gz": features,
        "barcodes.tsv" if v2 else "barcodes.tsv.gz": [[b] for b in barcodes],
    }
    for name, rows in texts.items():
        text = "".join("\t".join(r) + "\n" for r in rows)
        (folder / (prefix + name)).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    mmwrite(folder / f"{prefix}matrix.mtx", sparse.coo_matrix(x.T))
    if not v2:
        plain = folder / f"{prefix}matrix.mtx"
        (folder / f"{prefix}matrix.mtx.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return folder


def features_of(symbols: list[str]) -> list[list[str]]:
    return [[genes.ensembl_id(s), s, "Gene Expression"] for s in symbols]


def tenx_h5(path: Path, x: np.ndarray, symbols: list[str], *, version: int = 3, kinds: list[str] | None = None) -> Path:
    csr = sparse.csr_matrix(x)
    with h5py.File(path, "w") as handle:
        group = handle.create_group("matrix" if version == 3 else "GRCh38")
        group["data"], group["indices"], group["indptr"] = csr.data.astype(np.int32), csr.indices, csr.indptr
        group["shape"] = np.array([x.shape[1], x.shape[0]])
        group["barcodes"] = np.array(CELLS, dtype="S")
        ids = np.array([genes.ensembl_id(s) for s in symbols], dtype="S")
        if version == 3:
            group["features/id"], group["features/name"] = ids, np.array(symbols, dtype="S")
            group["features/feature_type"] = np.array(kinds or ["Gene Expression"] * len(symbols), dtype="S")
        else:
            group["genes"], group["gene_names"] = ids, np.array(symbols, dtype="S")
    return path


def h5ad(path: Path, x: Any, symbols: list[str] = GENES, *, obs: pd.DataFrame | None = None, **layers: Any) -> Path:
    obs = pd.DataFrame(index=CELLS) if obs is None else obs.set_axis(CELLS, axis=0)
    adata = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=symbols))
    for name, layer in layers.items():
        adata.layers[name] = layer
    adata.write_h5ad(path)
    return path


def dense(
    path: Path, x: np.ndarray, rows: list[str], columns: list[str], *, sep: str = "\t", corner: str | None = "gene"
) -> Path:
    header = sep.join(columns if corner is None else [corner, *columns])
    text = "\n".join([header, *(sep.join([r, *map(str, v)]) for r, v in zip(rows, x, strict=True))]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def run(path: Path, tmp_path: Path, **row: Any) -> tuple[io.Counts, dict[str, Any]]:
    out, record = tmp_path / "out" / "counts.h5ad", tmp_path / "out" / "ingest.json"
    ingest.run_ingest(path, out, record, row={"sample": "s1", "path": str(path), **row}, options=Ingest())
    counts = io.Counts(out)
    assert json.loads(record.read_text()) == counts.record
    return counts, counts.record


def check(counts: io.Counts, x: np.ndarray = X, symbols: list[str] = GENES) -> None:
    assert counts.genes.tolist() == symbols
    assert counts.cell_ids.tolist() == [f"s1:{c}" for c in CELLS]
    assert counts.ensembl.tolist() == [genes.ensembl_id(s) for s in symbols]
    np.testing.assert_array_equal(counts.matrix().toarray(), x)


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("v2", [True, False])
@pytest.mark.parametrize("prefix", ["", "GSM1_sampleA_", "Tcells-"])
def test_10x_folders(tmp_path: Path, v2: bool, prefix: str) -> None:
    features = [f[:2] if v2 else f for f in features_of(GENES)]
    counts, record = run(triplet(tmp_path / "in", X, features, CELLS, prefix=prefix, v2=v2), tmp_path)
    check(counts)
    assert (record["status"], record["format"], record["n_cells"], record["n_unresolved"]) == ("ok", "10x_mtx", 5, 0)


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
    monkeypatch.setattr(readers, "BLOCK_VALUES", 11)
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


# --- bad input --------------------------------------------------------------------------------------------------------


def fails(path: Path, tmp_path: Path, status: str, reason: str) -> None:
    counts, record = run(path, tmp_path)
    assert record["status"] == status
    assert reason in record["reason"]
    assert str(path.name) in record["reason"]
    assert len(counts.cell_ids) == len(counts.genes) == record["n_cells"] == 0
    with pytest.raises(NotAssessable):
        counts.require()


def test_truncated_gzip(tmp_path: Path) -> None:
    folder = triplet(tmp_path / "in", X, features_of(GENES), CELLS)
    for name in ("matrix.mtx.gz", "features.tsv.gz"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        fails(folder, tmp_path, "unreadable", "truncated")
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("gene\ta\tb\nCD44\t-1\t2\nCD24\t1\t0\n", "no_counts_found", "negative"),
        ("gene\ta\tb\nCD44\t1\t2\nCD24\t\t0\n", "unreadable", "row 'CD24', column 'a'"),
        ("gene\ta\tb\nCD44\t1\tinf\nCD24\t1\t0\n", "unreadable", "row 'CD44', column 'b'"),
        ("gene\ta\tb\nCD44\t0.5\t2\nCD24\t1\t1.2\n", "no_counts_found", "log"),
        ("gene\ta\ta\nCD44\t1\t2\n", "unreadable", "more than once"),
        ("gene\ta\tb\nCD44\t1\t2\nCD24\t1\n", "unreadable", "row 'CD24'"),
        ("", "no_counts_found", "empty"),
        ("gene\ta\tb\n", "no_counts_found", "empty"),
        ("gene\ta\tb\nCd44\t1\t2\nIl6\t1\t2\nGm1992\t2\t3\n", "not_human_genes", "Cd44"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, status: str, reason: str) -> None:
    (tmp_path / "x.tsv").write_text(text)
    fails(tmp_path / "x.tsv", tmp_path, status, reason)


def test_bad_hdf5(tmp_path: Path) -> None:
    path = tenx_h5(tmp_path / "x.h5", X, GENES)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    fails(path, tmp_path, "unreadable", "cannot be read")
    path.write_bytes(b"not hdf5")
    fails(path, tmp_path, "unreadable", "cannot be read")
    with h5py.File(path, "w") as handle:
        handle["something"] = 1
    fails(path, tmp_path, "unreadable", "neither")


def test_normalised_h5ad_is_refused(tmp_path: Path) -> None:
    path = h5ad(tmp_path / "x.h5ad", sparse.csr_matrix(np.log1p(X)))
    fails(path, tmp_path, "no_counts_found", "X (")
    path = h5ad(tmp_path / "x.h5ad", sparse.csr_matrix(X - 1.0))
    fails(path, tmp_path, "no_counts_found", "negative")


def test_a_few_fractions_are_rounded_within_the_tolerance(tmp_path: Path) -> None:
    x = np.full((5, 8), 3.0)
    x[0, 0] = 2.6
    path = h5ad(tmp_path / "x.h5ad", sparse.csr_matrix(x))
    raw = readers.read_counts(path, integer_tolerance=0.05)
    assert raw.is_counts
    assert raw.matrix[0, 0] == 3
    with pytest.raises(UserError, match="normalised"):
        readers.read_counts(path, integer_tolerance=0.01)


def test_no_cells(tmp_path: Path) -> None:
    path = tmp_path / "x.h5ad"
    ad.AnnData(sparse.csr_matrix((0, 8), dtype=np.float32), var=pd.DataFrame(index=GENES)).write_h5ad(path)
    fails(path, tmp_path, "no_cells", "no cell")


def test_empty_folder_and_missing_path(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    fails(tmp_path / "in", tmp_path, "no_counts_found", "found nothing")
    with pytest.raises(UserError, match="no such file"):
        run(tmp_path / "nowhere", tmp_path)
    with pytest.raises(UserError, match="unknown format"):
        run(tmp_path / "in", tmp_path, format="loom")


# --- a corpus of what people hand in ----------------------------------------------------------------------------------

IDS = "".join(f"{genes.ensembl_id(g)}\t{g}\n" for g in GENES)
BARCODES = "".join(f"{c}\n" for c in CELLS)
BANNER = "%%MatrixMarket matrix coordinate integer general\n"
ENTRIES = [f"{g + 1} {c + 1} {X[c, g]}\n" for c, g in zip(*np.nonzero(X), strict=True)]
SOUND = BANNER + f"8 5 {len(ENTRIES)}\n" + "".join(ENTRIES)
ENDINGS = re.compile("(_mtx|_tsv)(_gz)?$")
TABLE = "gene,a,b\nCD44,1,2\nIL6,3,0\n"


def parts(folder: Path, **files: Any) -> Path:
    """A 10x folder of version 2; keywords replace files (None: leave out), ``_`` standing for the dot."""
    folder.mkdir()
    whole: dict[str, Any] = {"matrix_mtx": SOUND, "genes_tsv": IDS, "barcodes_tsv": BARCODES, **files}
    for name, content in whole.items():
        if content is not None:
            data = content if isinstance(content, bytes) else content.encode()
            (folder / ENDINGS.sub(lambda m: m[0].replace("_", "."), name)).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"matrix_mtx": "<html>404</html>"}, "matrix.mtx, line 1: not a Matrix Market file"),
        ({"matrix_mtx": BANNER + "8 5 1\n9 1 3\n"}, "Row index out of bounds"),
        ({"matrix_mtx": BANNER + "8 5 999999999999\n1 1 1\n"}, "'8 5 999999999999'"),
        ({"matrix_mtx": BANNER + f"8 5 1\n1 1 {10**30}\n"}, "out of range"),
        ({"matrix_mtx": BANNER + "8 5 1\n1 1 x\n"}, "Line 3"),
        ({"matrix_mtx": SOUND[: len(SOUND) // 2]}, "cannot be read"),
        ({"matrix_mtx": BANNER + "8 5 0\n"}, "every entry is 0"),
        ({"matrix_mtx": BANNER + "8 5 1\n2 3 -4\n"}, "feature 'CD24' in cell 'AAAC2-1'"),
        ({"matrix_mtx": BANNER.replace("integer", "real") + "8 5 1\n2 3 nan\n"}, "feature 'CD24' in cell 'AAAC2-1'"),
        ({"matrix_mtx": BANNER.replace("integer", "pattern") + "8 5 1\n2 3\n"}, "holds no counts"),
        ({"matrix_mtx": BANNER.replace("integer", "complex") + "8 5 1\n2 3 1 1\n"}, "holds no counts"),
        ({"barcodes_tsv": BARCODES + "".join(f"c{i}\n" for i in range(4))}, "9 barcodes"),
        ({"barcodes_tsv": BARCODES + "c6\n"}, "6 barcodes"),
        ({"genes_tsv": "ENSG00000146648\tEGFR\n" + IDS}, "9 features"),
        ({"barcodes_tsv": BARCODES.replace(CELLS[1], "")}, "barcodes.tsv, line 2: the line is empty"),
        ({"barcodes_tsv": "A\n" * 5}, "such as 'A'"),
        ({"barcodes_tsv": "M\xfcller\n".encode("latin-1") * 5}, "save it as UTF-8"),
        ({"barcodes_tsv": b"PK\x03\x04" + bytes(200)}, "Excel workbook"),
        ({"barcodes_tsv": ""}, "barcodes.tsv: the file is empty"),
        ({"barcodes_tsv": None}, "barcodes or cells beside it"),
        ({"genes_tsv": None}, "features or genes beside it"),
        ({"genes_tsv": IDS.replace("\tCD24", "")}, "genes.tsv, line 2: has 1 columns"),
        ({"b_matrix_mtx": SOUND}, "give each by its prefix"),
    ],
)
def test_bad_10x_folders(tmp_path: Path, files: dict[str, Any], reason: str) -> None:
    _, record = run(parts(tmp_path / "in", **files), tmp_path)
    assert record["status"] in ("unreadable", "no_counts_found")
    assert reason in record["reason"]
    assert str(tmp_path / "in") in record["reason"]
    assert record["n_cells"] == 0


@pytest.mark.parametrize(
    "files",
    [
        {"genes_tsv": IDS.replace("\n", "\r\n"), "matrix_mtx": SOUND.replace("\n", "\r\n")},
        {"genes_tsv": "\ufeff" + IDS, "barcodes_tsv": "\ufeff" + BARCODES, "matrix_mtx": "\ufeff" + SOUND},
        {"genes_tsv": IDS.encode("utf-16"), "barcodes_tsv": BARCODES.encode("utf-16")},
        {"genes_tsv": gzip.compress(IDS.encode()), "matrix_mtx": gzip.compress(SOUND.encode())},
        {"matrix_mtx": None, "matrix_mtx_gz": SOUND, "genes_tsv": None, "genes_tsv_gz": IDS},
        {"matrix_mtx_gz": gzip.compress(SOUND.encode())},
        {"barcodes_tsv": "cell_id\n" + BARCODES, "genes_tsv": "gene_id\tsymbol\n" + IDS},
        {"barcodes_tsv": "cell\tnUMI\n" + BARCODES.replace("\n", "\t7\n")},
        {"._matrix_mtx": b"\x00", "._genes_tsv": b"\x00"},
    ],
)
def test_harmless_oddities_of_10x_folders_are_read(tmp_path: Path, files: dict[str, Any]) -> None:
    counts, record = run(parts(tmp_path / "in", **files), tmp_path)
    assert record["reason"] == ""
    check(counts)
    assert len(record["warnings"]) == ("matrix_mtx_gz" in files and "matrix_mtx" not in files)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.csv", TABLE.replace("1,2", '"1,000",2'), "'1,000' in row 'CD44', column 'a'"),
        ("x.csv", TABLE.replace("1,2", "\x00,2"), "row 'CD44', column 'a'"),
        ("x.csv", TABLE.replace("1,2", "1e300,2"), "'1e300' in row 'CD44', column 'a'"),
        ("x.tsv", "gene;a;b\nCD44;1,5;2\nIL6;2;1\n", "a point for decimals"),
        ("x.csv", "gene,a,b\nCD44,0,0\nIL6,0,0\n", "every entry is 0"),
        ("x.csv", TABLE.replace("a,b", "a,"), "1 cells have no name"),
        ("x.csv", 'gene,a\n"' + "x" * 200_000 + '",1\n', "field larger"),
        ("x.csv", "<html>\n<body>404\n</html>\n", "no column of numbers"),
        ("barcodes.tsv", BARCODES, "the folder of a 10x matrix"),
        ("sheet.tsv", "name\tfile\nx\ty\n", "columns 'sample' and 'path'"),
        ("x.csv", b"PK\x03\x04" + bytes(100), "Save the table as CSV"),
        ("x.rds", b"\x1f\x8b", "Export the counts from R"),
        ("x.tar.gz", b"\x1f\x8b", "Unpack it first"),
        ("x.csv.gz", gzip.compress(TABLE.encode())[:-9], "truncated"),
        ("x.h5", b"", "the file is empty"),
        ("x.h5", b"<html>", "not an HDF5 file"),
        ("x.h5.gz", gzip.compress(b"x"), "gunzip"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isprintable() else "content",
)
def test_bad_files(tmp_path: Path, name: str, content: str | bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    _, record = run(tmp_path / name, tmp_path)
    assert record["status"] in ("unreadable", "no_counts_found")
    assert str(tmp_path / name) in record["reason"]
    assert reason in record["reason"]


@pytest.mark.parametrize(
    "content",
    [TABLE.encode("utf-16"), gzip.compress(TABLE.encode()), b"\xef\xbb\xbf" + TABLE.encode()],
    ids=["UTF-16", "gzip", "byte order mark"],
)
def test_text_is_opened_by_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    np.testing.assert_array_equal(readers.read_counts(tmp_path / "x.csv").matrix.toarray(), [[1, 3], [2, 0]])


def test_zero_layers_are_passed_over_and_other_layers_named(tmp_path: Path) -> None:
    counts = sparse.csr_matrix(X, dtype=np.float32)
    check(run(h5ad(tmp_path / "x.h5ad", counts, counts=sparse.csr_matrix(X * 0)), tmp_path)[0])
    path = h5ad(tmp_path / "x.h5ad", np.full(X.shape, np.nan), umi=counts)
    fails(path, tmp_path, "no_counts_found", "X (missing or infinite values). Other layers, not looked at: umi.")


def test_several_people_or_species_in_one_file_are_a_warning(tmp_path: Path) -> None:
    obs = pd.DataFrame({"Donor.ID": list("ppqqr"), "sample": ["s"] * 5})
    x = sparse.csr_matrix(X, dtype=np.float32)
    _, record = run(h5ad(tmp_path / "x.h5ad", x, [*GENES[:5], "mm10_A", "mm10_B", "mm10_C"], obs=obs), tmp_path)
    assert record["status"] == "ok"
    assert len(record["warnings"]) == 2
    assert "mm10_A" in record["warnings"][0]
    assert "'Donor.ID' of the cells holds 3 values" in record["warnings"][1]
    _, record = run(h5ad(tmp_path / "x.h5ad", sparse.csr_matrix((X > 0) * 1.0)), tmp_path)
    assert "no value exceeds 1" in record["warnings"][0]


def test_no_memory_is_not_a_property_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job must fail, so that it is tried again with more."""

    def hungry(*_: Any) -> None:
        raise MemoryError("3 TiB")

    monkeypatch.setattr(readers, "read_dense", hungry)
    (tmp_path / "x.csv").write_text(TABLE)
    with pytest.raises(UserError, match="more memory") as caught:
        readers.read_counts(tmp_path / "x.csv")
    assert not isinstance(caught.value, inputs.DataError)


@pytest.mark.parametrize("bad", [True, False])
def test_a_glance_agrees_with_reading(tmp_path: Path, bad: bool) -> None:
    folder = parts(tmp_path / "in", matrix_mtx="no\n" if bad else SOUND)
    with pytest.raises(UserError, match="line 1") if bad else contextlib.nullcontext():
        assert readers.glance(folder) == ("10x_mtx", folder / "matrix.mtx")


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
