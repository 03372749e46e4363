"""More of what people hand in: links, archives, other species, other programs' files, and whatever a random change makes."""

from __future__ import annotations

import gzip
import os
import pickle
import zipfile
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

from matrix_files import (
    CELLS,
    GENES,
    IDS,
    SOUND,
    TABLE,
    X,
    check,
    features_of,
    h5ad,
    loom,
    parts,
    run,
    tenx_h5,
    triplet,
)
from nicheloop import config, datasets, genes, readers, selection, sheet
from nicheloop.errors import UserError
from nicheloop.inputs import DataError

pytestmark = pytest.mark.faults

DATES = "".join(f"{n}-{m},1,2\n" for n in (1, 2, 3) for m in ("Mar", "Sep"))


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        ("gene,a,b\n" + DATES, "not_human_genes", "6 gene names became dates in a spreadsheet"),
        (TABLE.replace("1,2", "1_000,2"), "unreadable", "'1_000' in row 'CD44', column 'a' is not a number"),
        (TABLE.replace("1,2", "0x1F,2"), "unreadable", "'0x1F' in row 'CD44', column 'a' is not a number"),
        (TABLE.replace("1,2", "=A1+1,2"), "unreadable", "'=A1+1' in row 'CD44', column 'a' is not a number"),
        (TABLE.replace("1,2", "#REF!,2"), "unreadable", "'#REF!' in row 'CD44', column 'a' is not a number"),
        (TABLE.replace("1,2", "NaN,2"), "unreadable", "'NaN' in row 'CD44', column 'a' is not a number"),
        (TABLE.replace("1,2", "-0.5,2"), "no_counts_found", "negative"),
        (",CD44,IL6\nc1,x,y\nc2,1,2\nc3,1,4\n", "unreadable", "row 'c1' holds words"),
        ("gene,a,b\nCD44,x,y\nIL6,1,4\n", "unreadable", "'x' in row 'CD44', column 'a'"),
        ('gene,a,b\n"CD44,1,2\nIL6,3,4\n', "unreadable", "the first row has 1"),
        ("gene,a,b\nCD44,1,2,3,4\n", "unreadable", "the header has 3 fields but the first row has 5"),
        ("gene,a,b\nCD44,1,2\nIL6,3,4,5\n", "unreadable", "row 'IL6' has 3 values, the header 2"),
        ("\x00" * 3000, "no_counts_found", "the table is empty"),
        ("gene,a,a\nCD44,1,2\nIL6,3,4\n", "unreadable", "cell names occur more than once, such as 'a'"),
    ],
)
def test_tables(tmp_path: Path, content: str, status: str, words: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    _, record = run(tmp_path / "x.csv", tmp_path)
    assert (record["status"], record["n_cells"]) == (status, 0)
    assert str(tmp_path / "x.csv") in record["reason"]
    assert words in record["reason"]


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.h5ad", "x.h5", "x.loom", "matrix.mtx"])
def test_a_pickle_is_never_loaded(tmp_path: Path, name: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "executed"), "w"))

    content = pickle.dumps(Trap())
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    _, record = run(tmp_path / name, tmp_path)
    assert record["status"] in ("unreadable", "no_counts_found")
    assert name in record["reason"]
    assert not (tmp_path / "executed").exists()


def test_an_object_array_inside_hdf5_is_never_unpickled(tmp_path: Path) -> None:
    path = h5ad(tmp_path / "x.h5ad", X.astype(np.float32))
    with h5py.File(path, "a") as handle:
        del handle["X"]
        handle["X"] = np.void(pickle.dumps(X))
    _, record = run(path, tmp_path)
    assert record["status"] in ("unreadable", "no_counts_found")
    assert str(path) in record["reason"]


def test_a_matrix_whose_parts_do_not_belong_together(tmp_path: Path) -> None:
    path = h5ad(tmp_path / "x.h5ad", X.astype(np.float32))
    with h5py.File(path, "a") as handle:
        del handle["X"]
        handle["X"] = X[:, :4].astype(np.float32)
    _, record = run(path, tmp_path)
    assert "X is 5 cells x 4 features, but the file names 5 cells and 8 features" in record["reason"]
    path = h5ad(tmp_path / "y.h5ad", sparse.csr_matrix(X, dtype=np.float32))
    with h5py.File(path, "a") as handle:
        handle["X/indices"][0] = 99
    assert "cannot be read" in run(path, tmp_path)[1]["reason"]


def test_transposed_matrices_are_named_or_turned(tmp_path: Path) -> None:
    path = tmp_path / "x.h5ad"
    ad.AnnData(X.T.astype(np.float32), pd.DataFrame(index=GENES), pd.DataFrame(index=CELLS)).write_h5ad(path)
    _, record = run(path, tmp_path)
    assert record["status"] == "not_human_genes"
    assert "the matrix is transposed" in record["reason"]
    folder = triplet(tmp_path / "in", X.T[: len(CELLS)], [[c] for c in CELLS], CELLS)
    assert run(folder, tmp_path)[1]["status"] in ("unreadable", "not_human_genes")


def old_h5ad(path: Path) -> Path:
    """As anndata 0.6 wrote it: tables as compound arrays, categories in uns."""
    csr = sparse.csr_matrix(X, dtype=np.float32)
    with h5py.File(path, "w") as handle:
        group = handle.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", np.array(X.shape)
        group["data"], group["indices"], group["indptr"] = csr.data, csr.indices, csr.indptr
        cells = [(c.encode(), [0, 1, -1, 1, 0][i]) for i, c in enumerate(CELLS)]
        handle["obs"] = np.array(cells, dtype=[("index", "S12"), ("kind", "i1")])
        handle["var"] = np.array([(g.encode(),) for g in GENES], dtype=[("index", "S12")])
        handle["uns/kind_categories"] = np.array([b"T", b"B"])
    return path


def test_files_of_an_old_anndata_are_read(tmp_path: Path) -> None:
    counts, record = run(old_h5ad(tmp_path / "x.h5ad"), tmp_path, annotation="kind")
    check(counts)
    assert counts.annotation("annotation_input").tolist() == ["T", "B", "", "B", "T"]
    with h5py.File(tmp_path / "x.h5ad", "a") as handle:
        del handle["obs"]
        handle["obs"] = np.arange(5)
    _, record = run(tmp_path / "x.h5ad", tmp_path)
    assert "'obs' is not a table: written by no known version of anndata" in record["reason"]
    assert str(tmp_path / "x.h5ad") in record["reason"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cell_id": None}, "no column attribute names the cells. Add 'CellID'"),
        ({"cells": CELLS[:3]}, "col_attrs/CellID has 3 entries, the matrix 5"),
        ({"x": np.log1p(X.T)}, "not whole numbers"),
        ({"x": -X.T}, "negative"),
        ({"x": X.T * 0}, "every entry is 0"),
        ({"cells": ["a"] * 5}, "more than once"),
    ],
)
def test_loom_files(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = loom(tmp_path / "x.loom", **change)
    _, record = run(path, tmp_path)
    assert record["status"] in ("unreadable", "no_counts_found")
    assert words in record["reason"] and str(path) in record["reason"]


@pytest.mark.parametrize("make", [tenx_h5, h5ad, loom, old_h5ad])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_hdf5_files_cut_off_anywhere(tmp_path: Path, make: Any, share: float) -> None:
    name = {tenx_h5: "x.h5", loom: "x.loom"}.get(make, "x.h5ad")
    path = make(tmp_path / name, *{tenx_h5: (X, GENES), h5ad: (X.astype(np.float32),)}.get(make, ()))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    _, record = run(path, tmp_path)
    assert record["status"] == "unreadable"
    assert str(path) in record["reason"] and "cannot be read" in record["reason"]


def test_links_that_lead_nowhere_or_in_a_circle(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "matrix.mtx").symlink_to(folder / "b.mtx")
    (folder / "b.mtx").symlink_to(folder / "matrix.mtx")
    (tmp_path / "gone.h5").symlink_to("/nonexistent")
    (tmp_path / "me").symlink_to(tmp_path / "me")
    for path in (folder, folder / "matrix.mtx", tmp_path / "gone.h5", tmp_path / "me"):
        with pytest.raises(DataError, match="a link that leads nowhere or in a circle") as err:
            readers.read_counts(path)
        assert str(path) in str(err.value)
    (folder / "outs").symlink_to(folder)  # a folder that holds itself
    with pytest.raises(DataError, match=r"expected matrix\.mtx"):
        readers.read_counts(folder)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.h5")
    with pytest.raises(DataError, match="is no regular file"):
        readers.read_counts(tmp_path / "x.h5")


def test_archives_in_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("inner.zip", b"PK\x05\x06" + bytes(18))
    _, record = run(tmp_path / "x.zip", tmp_path)
    assert "Unpack it first" in record["reason"]
    (tmp_path / "in").mkdir()
    (tmp_path / "x.zip").rename(tmp_path / "in" / "matrix.csv")
    assert "zip archive, not text" in run(tmp_path / "in", tmp_path)[1]["reason"]


@pytest.mark.parametrize(
    "name", ["a b", "it's", 'say "x"', "ü é 漢字", ";rm -rf ~", "$(touch x)", "`touch x`", "-rf", "a&b|c>d", "*?[x]"]
)
def test_names_of_files_are_only_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    counts, _ = run(triplet(tmp_path / name, X, features_of(GENES), CELLS), tmp_path)
    check(counts)
    assert list(work.iterdir()) == []
    row = sheet.sheet_from_paths([tmp_path / name])[0]
    assert sheet.NAME.fullmatch(row["sample"])


@pytest.mark.parametrize(
    ("x", "symbols", "words"),
    [
        (X[:1], GENES, "a single cell"),
        (X[:, :1] + 1, GENES[:1], "a single gene"),
    ],
)
def test_one_cell_or_one_gene_is_said(tmp_path: Path, x: np.ndarray, symbols: list[str], words: str) -> None:
    _, record = run(triplet(tmp_path / "in", x, features_of(symbols), CELLS[: len(x)]), tmp_path)
    assert record["status"] == "ok"
    assert words in record["warnings"][-1]


def test_fractions_and_other_species(tmp_path: Path) -> None:
    _, record = run(triplet(tmp_path / "a", X + 0.5, features_of(GENES), CELLS), tmp_path)
    assert (record["status"], "normalised data" in record["reason"]) == ("no_counts_found", True)
    mouse = [[f"ENSMUSG{i:011d}", g.capitalize(), "Gene Expression"] for i, g in enumerate(GENES)]
    _, record = run(triplet(tmp_path / "b", X, mouse, CELLS), tmp_path)
    assert (record["status"], "such as Cd44" in record["reason"]) == ("not_human_genes", True)
    half = [["", "1-Mar"], ["", "2-Sep"], *[["", g] for g in GENES[:6]]]
    _, record = run(triplet(tmp_path / "c", X, half, CELLS), tmp_path)
    assert "2 gene names became dates" in record["warnings"][0]


# --- tables of cells ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("cell,owner\n", "is empty"),
        ("cell,cell\na,b\n", "column 'cell' stands twice"),
        ("cell,owner\na,p\nb\n", "row 3: has 1 fields, the header 2"),
        ("cell,owner\na,p\na,q\nb,p\n", "1 cells stand more than once"),
        ("cell,who\na,p\nb,p\n", "has no column 'owner'. Found: cell, who"),
        ("cell,owner\na,q\nb,q\n", "no cell is this sample's (owner = 'p'; column 'owner' holds q)"),
        ("cell,owner\nx,p\ny,p\n", "no column holds the names of the matrix's cells (such as 'a')"),
    ],
)
def test_tables_of_cells(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "meta.csv").write_text(text)
    chosen = selection.Selection(table=tmp_path / "meta.csv", column="owner", value="p")
    with pytest.raises(DataError) as err:
        chosen.pick(["a", "b"], None, tmp_path / "m.mtx")
    assert words in str(err.value) and "meta.csv" in str(err.value)


def test_cells_are_chosen_in_the_order_of_the_matrix(tmp_path: Path) -> None:
    (tmp_path / "meta.tsv").write_text(
        "owner\tkind\np\t1\n".replace("owner\tkind", "cell\towner\tkind").replace("p\t1", "c\tp\tz\na\tp\ty\nb\tq\tx")
    )
    chosen = selection.Selection(table=tmp_path / "meta.tsv", column="owner", value="p")
    at, table = chosen.pick(["a", "b", "c", "d"], None, tmp_path / "m")
    assert at.tolist() == [0, 2]
    assert table is not None and table["kind"].tolist() == ["y", "z"]
    at, table = selection.Selection(pattern="^[ad]$").pick(["a", "b", "c", "d"], None, tmp_path / "m")
    assert (at.tolist(), table) == ([0, 3], None)
    obs = pd.DataFrame({"donor": pd.Categorical(["p", None, "p", "q"])})
    at, table = selection.Selection(column="donor", value="p").pick(["a", "b", "c", "d"], obs, tmp_path / "m")
    assert at.tolist() == [0, 2] and table is not None and len(table) == 2
    with pytest.raises(DataError, match="has no table of cells"):
        selection.Selection(column="donor", value="p").pick(["a"], None, tmp_path / "m")


def test_the_chosen_cells_of_an_h5ad(tmp_path: Path) -> None:
    obs = pd.DataFrame({"donor_id": ["p", "q", "p", "q", "p"]})
    for n, x in enumerate(
        (sparse.csr_matrix(X, dtype=np.float32), sparse.csc_matrix(X, dtype=np.float32), X.astype(np.float32))
    ):
        path = h5ad(tmp_path / f"{n}.h5ad", x, obs=obs)
        layout = readers.Layout(selection=selection.Selection(column="donor_id", value="q"))
        raw = readers.read_counts(path, layout=layout)
        np.testing.assert_array_equal(raw.matrix.toarray(), X[[1, 3]])
        assert raw.barcodes == [CELLS[1], CELLS[3]] and raw.obs is not None and set(raw.obs["donor_id"]) == {"q"}


# --- whatever a random change makes -------------------------------------------------------------------------------------

SEEDS: dict[str, bytes] = {}


def seeds(folder: Path) -> dict[str, bytes]:
    if not SEEDS:
        SEEDS["x.csv"] = TABLE.encode()
        SEEDS["x.tsv.gz"] = gzip.compress(TABLE.replace(",", "\t").encode(), mtime=0)
        SEEDS["matrix.mtx"] = SOUND.encode()
        SEEDS["x.h5"] = tenx_h5(folder / "x.h5", X, GENES).read_bytes()
        SEEDS["x.h5ad"] = h5ad(folder / "x.h5ad", sparse.csr_matrix(X, dtype=np.float32)).read_bytes()
        SEEDS["x.loom"] = loom(folder / "x.loom").read_bytes()
    return SEEDS


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_file_is_read_or_refused_in_words(tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(seeds(tmp_path))))
    content = bytearray(seeds(tmp_path)[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(1, 3))] = data.draw(st.binary(max_size=4))
    folder = tmp_path / "in"
    if not folder.exists():
        parts(folder, matrix_mtx=None)
    path = folder / name if name == "matrix.mtx" else tmp_path / name
    path.write_bytes(bytes(content))
    try:
        raw = readers.read_counts(path)
    except UserError as err:
        assert str(path) in str(err) or str(folder) in str(err)
    else:
        assert raw.matrix.shape == (len(raw.barcodes), len(raw.names))
        assert len(set(raw.barcodes)) == len(raw.barcodes)
        assert np.isfinite(raw.matrix.data).all() and (raw.matrix.data >= 0).all()
    finally:
        path.unlink()


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**6),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
)
NAMES = st.one_of(st.text(max_size=6), st.sampled_from(list(config.Config.model_fields)))
FIELDS = sorted({f for s in config.SECTIONS for f in config.Config.model_fields[s].annotation.model_fields})  # type: ignore[union-attr]
SECTION = st.dictionaries(st.one_of(st.sampled_from(FIELDS), st.text(max_size=4)), VALUES, max_size=3)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, st.one_of(VALUES, SECTION), max_size=4))
def test_any_configuration_is_taken_or_refused_in_words(values: dict[str, Any]) -> None:
    try:
        found = config.load_config(values, "c.yaml")
    except UserError as err:
        assert all(line.startswith("c.yaml: ") for line in err.messages)
    else:
        assert isinstance(found, config.Config)


@settings(max_examples=100, deadline=None)
@given(st.recursive(VALUES, lambda inner: st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6))
def test_any_catalogue_is_taken_or_refused_in_words(values: Any) -> None:
    with pytest.raises(UserError, match=r"c\.yaml"):
        datasets.check(values, "c.yaml")


CELL = st.one_of(
    st.text(max_size=8), st.sampled_from(["s1", "x.h5", "../x.h5", "https://a.org/x.h5", "NA", "normal", "h5ad"])
)
WORDS = st.lists(st.one_of(st.sampled_from([*sheet.KNOWN, "age"]), st.text(max_size=5)), max_size=5)
HEADER = st.one_of(WORDS, WORDS.map(lambda words: ["sample", "path", *words]))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HEADER, st.lists(st.lists(CELL, max_size=5), max_size=4), st.sampled_from("\t,;"))
def test_any_sheet_is_taken_or_refused_in_words(
    tmp_path: Path, header: list[str], rows: list[list[str]], separator: str
) -> None:
    """What is taken has names that are safe in a path and a shell."""
    (tmp_path / "x.h5").touch()
    path = tmp_path / "s.tsv"
    path.write_text("\n".join(separator.join(r) for r in [header, *rows]), encoding="utf-8", errors="replace")
    try:
        found = sheet.read_sheet(path)
    except UserError as err:
        assert all(line.startswith(str(path)) for line in err.messages)
    else:
        assert found and all(sheet.NAME.fullmatch(row["sample"]) for row in found)
        assert len({row["sample"].lower() for row in found}) == len(found)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_as_a_sheet_are_taken_or_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as err:
        sheet.read_sheet(path)
    assert all(line.startswith(str(path)) for line in err.value.messages)


def test_gene_names_of_the_tests_are_known() -> None:
    assert IDS.count("\n") == len(GENES) and all(genes.resolve(g) for g in GENES)
