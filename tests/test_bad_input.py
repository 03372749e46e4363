"""A corpus of what people hand in: damaged, mistaken and hostile files, each ending in one specific message."""

from __future__ import annotations

import contextlib
import errno
import gzip
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from matrix_files import (
    BANNER,
    BARCODES,
    CELLS,
    GENES,
    IDS,
    SOUND,
    TABLE,
    X,
    check,
    fails,
    features_of,
    h5ad,
    parts,
    run,
    tenx_h5,
    triplet,
)
from nicheloop import inputs, readers
from nicheloop.errors import UserError

pytestmark = pytest.mark.faults

# --- bad input --------------------------------------------------------------------------------------------------------


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
        run(tmp_path / "in", tmp_path, format="zarr")


# --- a corpus of what people hand in ----------------------------------------------------------------------------------


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
        ("x.csv.gz", gzip.compress(TABLE.encode(), mtime=0)[:-9], "truncated"),
        ("x.h5", b"", "the file is empty"),
        ("x.h5", b"<html>", "not an HDF5 file"),
        ("x.h5.gz", gzip.compress(b"x", mtime=0), "gunzip"),
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
    [TABLE.encode("utf-16"), gzip.compress(TABLE.encode(), mtime=0), b"\xef\xbb\xbf" + TABLE.encode()],
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

    def hungry(*_: Any, **__: Any) -> None:
        raise MemoryError("3 TiB")

    monkeypatch.setattr(readers, "read_dense", hungry)
    (tmp_path / "x.csv").write_text(TABLE)
    with pytest.raises(UserError, match="more memory") as caught:
        readers.read_counts(tmp_path / "x.csv")
    assert not isinstance(caught.value, inputs.DataError)


@pytest.mark.parametrize(
    ("err", "words"),
    [
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError(errno.ESTALE, "Stale file handle"), "Stale file handle"),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), "timed out"),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "temporarily unavailable"),  # HDF5's own lock
        (
            OSError("Can't read data (file read failed: errno = 5, error message = 'Input/output error')"),
            "Input/output",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file"), "is gone"),
        (PermissionError(errno.EACCES, "Permission denied"), "no permission"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, OSError) else value,
)
@pytest.mark.parametrize("place", ["_text_rows", "check_mtx", "read_mtx"])
def test_a_failing_disk_is_not_a_property_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, err: OSError, words: str, place: str
) -> None:
    """No record is written: the job fails and is tried again."""

    def broken(*_: Any, **__: Any) -> None:
        with inputs.reading(tmp_path / "in" / "matrix.mtx"):
            raise err

    monkeypatch.setattr(readers if place == "read_mtx" else inputs, place, broken)
    folder = parts(tmp_path / "in")
    with pytest.raises(UserError, match=words) as caught:
        run(folder, tmp_path)
    assert not isinstance(caught.value, inputs.DataError)
    assert str(folder) in str(caught.value) and "again" in str(caught.value)
    assert not (tmp_path / "counts.h5ad").exists() and not (tmp_path / "ingest.json").exists()


def test_a_path_on_a_disk_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise OSError(errno.ESTALE, "Stale file handle", str(tmp_path / "in"))

    monkeypatch.setattr(Path, "stat", gone)
    for call in (inputs.locate, inputs.exists, readers.read_counts):
        with pytest.raises(UserError, match="Stale file handle"):
            call(tmp_path / "in")


@pytest.mark.parametrize("bad", [True, False])
def test_a_glance_agrees_with_reading(tmp_path: Path, bad: bool) -> None:
    folder = parts(tmp_path / "in", matrix_mtx="no\n" if bad else SOUND)
    with pytest.raises(UserError, match="line 1") if bad else contextlib.nullcontext():
        assert readers.glance(folder) == ("10x_mtx", folder / "matrix.mtx")
