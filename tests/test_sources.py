"""The layouts of the public data sets, read through the shipped catalogue from tiny files under their names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mini_geo
from http_server import Server, running
from matrix_files import GENES, X, h5ad
from nicheloop import datasets, download, ingest, io, readers_mtx, sources
from nicheloop.config import Download
from nicheloop.config_cells import Ingest
from nicheloop.errors import UserError
from nicheloop.inputs import DataError


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as it:
        yield it


def options(tmp_path: Path, server: Server) -> Download:
    mirrors = {mini_geo.GEO: server.url + "/"}
    return Download(cache=str(tmp_path / "cache"), backoff_seconds=0, min_free_gb=0, retries=1, mirrors=mirrors)


def serve(server: Server, mini: mini_geo.Mini) -> None:
    for url, content in mini.files.items():
        server.serve(url.removeprefix(mini_geo.GEO.rstrip("/")), content)


def fetch(rows: list[dict[str, Any]], folder: Path, chosen: Download) -> None:
    for (dataset, name), file in datasets.downloads(rows).items():
        download.run_download(file, dataset, folder / dataset / f"{name}.json", options=chosen)


def read(row: dict[str, Any], tmp_path: Path) -> tuple[io.Counts, dict[str, Any]]:
    out = tmp_path / "out" / row["sample"]
    ingest.run_ingest(tmp_path / "downloads", out / "counts.h5ad", out / "ingest.json", row=row, options=Ingest())
    return io.Counts(out / "counts.h5ad"), json.loads((out / "ingest.json").read_text())


@pytest.mark.parametrize("name", mini_geo.EVERY)
def test_a_data_set_is_read_sample_by_sample(name: str, tmp_path: Path, server: Server) -> None:
    mini = mini_geo.EVERY[name]()
    serve(server, mini)
    rows = datasets.rows(f"{name}:{','.join(mini.samples)}")
    fetch(rows, tmp_path / "downloads", options(tmp_path, server))
    assert len(server.requests) == len(mini.files)  # shared by all samples
    for row in rows:
        sample = row["sample"]
        counts, record = read(row, tmp_path)
        assert (record["status"], record["reason"]) == ("ok", "")
        assert counts.cell_ids.tolist() == [f"{sample}:{c}" for c in mini.cells[sample]]
        np.testing.assert_allclose(counts.matrix().toarray(), mini.samples[sample], rtol=1e-6)
        assert record["is_counts"] is (name != "GSE75688")
        assert record["guards"]["CD24"] == ("absent from reference" if name == "GSE75688" else "present")
        assert (record["dataset"], record["patient"], record["tissue"]) == (name, row["patient"], row["tissue"])
        assert {f["name"] for f in record["files"]} == {u.rsplit("/", 1)[1] for u in mini.files}
        assert all(len(f["sha256"]) == 64 for f in record["files"])


def test_labels_of_the_authors_are_taken_over(tmp_path: Path, server: Server) -> None:
    for name, sample, labels in (
        ("GSE176078", "CID3586", {"T-cells": 2, "Myeloid": 1}),
        ("GSE148673", "Gao-TNBC1", {"N": 1, "T": 3}),
        ("GSE75688", "Chung-BC01", {"Tumor": 2, "Bcell": 1}),
    ):
        serve(server, mini_geo.EVERY[name]())
        rows = datasets.rows(f"{name}:{sample}")
        fetch(rows, tmp_path / "downloads", options(tmp_path, server))
        counts, record = read(rows[0], tmp_path)
        assert record["annotation_counts"] == labels
        assert sorted(set(counts.annotation("annotation_input"))) == sorted(labels)


def test_blocks_of_a_large_matrix_give_the_same(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mini = mini_geo.wu()
    serve(server, mini)
    rows = datasets.rows("GSE176078:CID44971")
    fetch(rows, tmp_path / "downloads", options(tmp_path, server))
    monkeypatch.setattr(readers_mtx, "BLOCK_ENTRIES", 3)
    counts, _ = read(rows[0], tmp_path)
    np.testing.assert_array_equal(counts.matrix().toarray(), mini.samples["CID44971"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((b"\n1 8 ", b"\n%1 8 "), "its header says"),
        ((b"\n1 1 ", b"\n99 1 "), "row outside 1 to 8"),
        ((b"\n1 1 ", b"\nx 1 "), "cannot be read"),
        ((b"orig.ident", b"orig_ident"), "has no column 'orig.ident'. Found: column0, orig_ident"),
        ((b'"CID3586"', b'"CID0000"'), "no cell is this sample's (orig.ident = 'CID3586'"),
        ((b"_ACGT", b"-ACGT"), "no column holds the names of the matrix's cells"),
        (
            (b"metadata.csv", b"metadat2.csv"),
            "expected one file '**/metadata.csv' in the archive, found none. It holds 4 files",
        ),
    ],
)
def test_what_is_wrong_in_an_archive_is_a_status_of_the_sample(
    tmp_path: Path, server: Server, change: tuple[bytes, bytes], words: str
) -> None:
    import gzip
    import io as stdio
    import tarfile

    mini = mini_geo.wu()
    (url, content), *_ = mini.files.items()
    with tarfile.open(fileobj=stdio.BytesIO(content)) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    for name in list(members):
        if change[0] == b"_ACGT" and "metadata" in name:
            continue
        members[name.replace(change[0].decode(), change[1].decode())] = members.pop(name).replace(*change)
    server.serve(url.removeprefix(mini_geo.GEO.rstrip("/")), gzip.compress(mini_geo.tar(members)))
    rows = datasets.rows("GSE176078:CID3586")
    fetch(rows, tmp_path / "downloads", options(tmp_path, server))
    _, record = read(rows[0], tmp_path)
    assert record["status"] in ("unreadable", "no_cells")
    assert words in record["reason"]


def test_files_that_are_not_there_stop_the_job(tmp_path: Path, server: Server) -> None:
    serve(server, mini_geo.wu())
    rows = datasets.rows("GSE176078:CID3586")
    with pytest.raises(UserError, match="was not fetched") as err:
        read(rows[0], tmp_path)
    assert not isinstance(err.value, DataError)
    fetch(rows, tmp_path / "downloads", options(tmp_path, server))
    for path in (tmp_path / "cache").rglob("*.tar.gz"):
        path.unlink()
    with pytest.raises(UserError, match=r"no longer in the cache. Delete .*json and run again"):
        read(rows[0], tmp_path)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("*.mtx", "expected one file '*.mtx' in the archive, found a.mtx, b.mtx"),
        ("*.h5", "found none. It holds 2 files: a.mtx, b.mtx"),
        ("../x", "leads out of the archive"),
        ("/etc/passwd", "leads out of the archive"),
    ],
)
def test_a_pattern_means_one_file_of_the_archive(tmp_path: Path, pattern: str, words: str) -> None:
    for name in ("a.mtx", "b.mtx", "._a.mtx"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text("")
    (tmp_path / "in" / "._a.mtx").unlink()
    with pytest.raises(DataError) as err:
        sources.part(f"x.tar!{pattern}", {"x.tar": {"path": "x", "folder": str(tmp_path / "in")}})
    assert words in str(err.value)


def test_addresses_in_a_sheet(tmp_path: Path, server: Server) -> None:
    """A single file, and an archive that holds one 10x folder."""
    from nicheloop import sheet

    h5ad(tmp_path / "x.h5ad", X.astype("float32"))
    server.serve("/x.h5ad?v=1", (tmp_path / "x.h5ad").read_bytes())
    folder = {
        "deep/er/matrix.mtx": mini_geo.mtx(X),
        "deep/er/genes.tsv": mini_geo.lines(*[[g] for g in GENES]),
        "deep/er/barcodes.tsv": mini_geo.lines(*[[f"c{i}"] for i in range(len(X))]),
    }
    server.serve("/y.tar.gz", mini_geo.tar(folder, "w:gz"))
    path = tmp_path / "s.tsv"
    path.write_text(f"sample\tpath\nA\t{server.url}/x.h5ad?v=1\nB\t{server.url}/y.tar.gz\n")
    rows = sheet.read_sheet(path)
    fetch(rows, tmp_path / "downloads", options(tmp_path, server))
    for row in rows:
        counts, record = read(row, tmp_path)
        assert record["status"] == "ok", record["reason"]
        np.testing.assert_array_equal(counts.matrix().toarray(), X)
