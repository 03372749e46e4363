"""Sample sheets: what is accepted, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from nicheloop import inputs, sheet
from nicheloop.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.h5").write_text("x")
    (tmp_path / "b").mkdir()
    return tmp_path


def write(folder: Path, text: str, name: str = "s.tsv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("sep", ["\t", ",", ";"])
def test_separators_comments_and_byte_order_mark(folder: Path, sep: str):
    text = "\ufeff# my samples\nsample|path|subtype|age\nS1|a.h5|NA|55\nS2|b||\n".replace("|", sep)
    rows = sheet.read_sheet(write(folder, text.replace("\ufeff# my samples\n", "\ufeff")))
    assert [r["sample"] for r in rows] == ["S1", "S2"]
    assert rows[0]["patient"] == "S1"
    assert rows[0]["subtype"] is None
    assert rows[0]["extra"] == {"age": "55"}
    assert rows[1]["extra"] == {"age": None}
    assert Path(rows[0]["path"]) == (folder / "a.h5").resolve()


def test_all_problems_come_together_with_their_lines(folder: Path):
    text = (
        "sample\tpath\tformat\tmalignancy\n"
        "S1\ta.h5\t\t\n"
        "s1\ta.h5\t\t\n"
        "bad name;rm -rf\ta.h5\t\t\n"
        "S3\tgone.h5\t\t\n"
        "S4\t\t\t\n"
        "\tb\tloom5\tsure\n"
    )
    with pytest.raises(UserError) as err:
        sheet.read_sheet(write(folder, text))
    text = "\n".join(err.value.messages)
    for part in (
        "line 3",
        "stands already",
        "line 4",
        "illegal characters",
        "line 5",
        "gone.h5",
        "line 6",
        "line 7",
        "loom5",
        "'sure'",
    ):
        assert part in text, part


@pytest.mark.parametrize("text", ["", "\n\n", "sample\tpath\n", "name\tfile\nx\ty\n", "sample\tsample\tpath\n"])
def test_sheets_without_samples_or_columns_are_refused(folder: Path, text: str):
    with pytest.raises(UserError):
        sheet.read_sheet(write(folder, text))


def test_missing_sheet_is_a_message(folder: Path):
    with pytest.raises(UserError, match="no such sample sheet"):
        sheet.read_sheet(folder / "none.tsv")


def test_names_from_paths_are_legal_and_distinct(folder: Path):
    for part in ("p1/outs/filtered_feature_bc_matrix", "p 2/x", "q/x"):
        (folder / part).mkdir(parents=True)
    rows = sheet.sheet_from_paths([folder / "a.h5", folder / "p 2/x", folder / "q/x", folder / "p 2"])
    assert [r["sample"] for r in rows] == ["a", "x", "x_2", "p_2"]
    assert all(sheet.NAME.fullmatch(r["sample"]) for r in rows)
    with pytest.raises(UserError, match="no such file"):
        sheet.sheet_from_paths([folder / "nope"])


def test_input_files_of_a_folder_are_its_matrix_parts(folder: Path):
    for name in ("x_matrix.mtx.gz", "x_barcodes.tsv.gz", "x_features.tsv.gz", "notes.docx"):
        (folder / "b" / name).write_text("")
    assert [Path(p).name for p in sheet.input_files(folder / "b")] == [
        "x_barcodes.tsv.gz",
        "x_features.tsv.gz",
        "x_matrix.mtx.gz",
    ]


@pytest.mark.parametrize("name", ["x.h5", "x.h5ad", "counts.csv"])
def test_input_files_of_a_folder_with_one_file(folder: Path, name: str):
    (folder / "b" / name).write_text("")
    (folder / "b" / "notes.docx").write_text("")
    assert sheet.input_files(folder / "b") == [str(folder / "b" / name)]


def touch(*paths: Path):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("outs/filtered_feature_bc_matrix", "matrix.mtx.gz"),
        ("filtered_gene_bc_matrices/hg19", "matrix.mtx"),
        ("outs", "filtered_feature_bc_matrix.h5"),
    ],
)
def test_a_cell_ranger_folder_is_searched_for_the_filtered_counts(tmp_path: Path, part: str, name: str):
    for which in ("filtered", "raw"):
        touch(tmp_path / part.replace("filtered", which) / name.replace("filtered", which))
    top = tmp_path / part.split("/")[0]
    touch(tmp_path / "metrics_summary.csv", top / "metrics_summary.csv", top / "molecule_info.h5")
    (top / "outs").symlink_to(top)
    assert inputs.locate(tmp_path) == tmp_path / part / name


def test_a_folder_that_does_not_say_which_file(tmp_path: Path):
    touch(
        tmp_path / "two/counts.csv", tmp_path / "two/metadata.csv", tmp_path / "all/p1/x.h5", tmp_path / "all/p2/x.h5"
    )
    touch(tmp_path / "many/a_matrix.mtx", tmp_path / "many/b_matrix.mtx")
    for name, words in (
        ("two", f"Give the file itself, such as {tmp_path / 'two/counts.csv'}"),
        ("all", f"give each as a path of its own: {tmp_path / 'all'}/*"),
        ("many", f"such as {tmp_path / 'many/a_'} {tmp_path / 'many/b_'}"),
        ("man", "no such file"),
    ):
        with pytest.raises(UserError) as err:
            inputs.locate(tmp_path / name)
        assert words in str(err.value)


def test_input_files_of_prefixes_and_of_what_cannot_be_told(folder: Path):
    for name in ("matrix.mtx", "barcodes.tsv", "genes.tsv"):
        for prefix in ("p1_", "p2_"):
            (folder / "b" / f"{prefix}{name}").write_text("")
    found = [Path(p).name for p in sheet.input_files(folder / "b/p2_")]
    assert found == ["p2_barcodes.tsv", "p2_genes.tsv", "p2_matrix.mtx"]
    assert sheet.input_files(folder / "b") == [str(folder / "b")]
    assert sheet.input_files(folder / "gone") == [str(folder / "gone")]


def test_a_prefix_is_a_path(folder: Path):
    for prefix in ("p1_", "p2_"):
        (folder / "b" / f"{prefix}matrix.mtx").write_text("")
    rows = sheet.sheet_from_paths([folder / "b/p1_", folder / "b/p2_"])
    assert [r["sample"] for r in rows] == ["p1", "p2"]
    assert sheet.read_sheet(write(folder, "sample\tpath\nS1\tb/p1_\nS2\tb/p2_\n"))[1]["path"] == str(folder / "b/p2_")


def test_one_sample_given_twice_is_refused(folder: Path):
    (folder / "b" / "x.h5").write_text("")
    (folder / "link").symlink_to(folder / "b")
    for second in ("b", "link", "b/x.h5"):
        with pytest.raises(UserError, match="twice"):
            sheet.sheet_from_paths([folder / "b", folder / second])
        with pytest.raises(UserError, match=r"line 3: the data of .* stand already at .*line 2"):
            sheet.read_sheet(write(folder, f"sample\tpath\nS1\tb\nS2\t{second}\n"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sample,path\nS1,a.h5,b\n", "line 2: has 3 fields, the header 2"),
        ("sample,path\nS1,a{1}.h5\n", "curly bracket"),
        ("name,path\nS1,a.h5\n", "'sample' is missing. Found: name, path"),
        ("sample,Sample,path\nS1,S1,a.h5\n", "'sample' stands twice"),
        ("sample,path\n", "one line per sample"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, text: str, words: str):
    with pytest.raises(UserError) as err:
        sheet.read_sheet(write(folder, text, "s.csv"))
    assert words in str(err.value)
    assert "s.csv" in str(err.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_capitals_and_the_unicode_text_of_spreadsheets(folder: Path, encoding: str):
    (folder / "s.txt").write_bytes("Sample\tPath\tSite\nS1\ta.h5\tK\xf6ln\n".encode(encoding))
    row = sheet.read_sheet(folder / "s.txt")[0]
    assert (row["sample"], row["extra"]) == ("S1", {"Site": "K\xf6ln"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("na.h5", "sample_na"),
        ("run7/outs/filtered_feature_bc_matrix", "run7"),
        ("GSM1 (x).h5ad", "GSM1_x"),
        ("run8/matrix.mtx.gz", "run8"),
    ],
)
def test_names_survive_the_sheet(folder: Path, name: str, expected: str):
    (folder / name).mkdir(parents=True)
    row = sheet.sheet_from_paths([folder / name])[0]
    assert row["sample"] == expected
    assert sheet.read_sheet(write(folder, f"sample\tpath\n{row['sample']}\t{row['path']}\n"))[0]["sample"] == expected


def test_tissue_is_checked_and_stored_as_one_word(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"")
    (tmp_path / "b.h5").write_bytes(b"")
    (tmp_path / "c.h5").write_bytes(b"")
    path = tmp_path / "samples.tsv"
    path.write_text("sample\tpath\ttissue\na\ta.h5\tPrimary Tumor\nb\tb.h5\tnormal breast\nc\tc.h5\t\n")
    assert [r["tissue"] for r in sheet.read_sheet(path)] == ["tumour", "normal", None]
    path.write_text("sample\tpath\ttissue\na\ta.h5\ttumour\nb\tb.h5\tnot metastatic\n")
    with pytest.raises(UserError) as err:
        sheet.read_sheet(path)
    said = str(err.value)
    assert "line 3" in said and "'not metastatic'" in said
    assert all(word in said for word in ("tumour", "normal", "lymph_node", "metastasis"))


def test_addresses_are_paths(folder: Path):
    url = "https://a.org/x.h5ad"
    rows = sheet.read_sheet(write(folder, f"sample\tpath\nS1\t{url}\nS2\tb\n"))
    assert rows[0]["path"] == url
    assert rows[0]["source"]["files"][0]["url"] == url
    assert "source" not in rows[1]
    for text, words in (
        (f"S1\t{url}\nS2\t{url}\n", "stand"),
        ("S1\thttps://a.org/\n", "does not end in the name of a file"),
    ):
        with pytest.raises(UserError, match=words):
            sheet.read_sheet(write(folder, "sample\tpath\n" + text))
    found = sheet.sheet_from_paths([url, "https://b.org/x.h5ad?y=1", folder / "a.h5"])
    assert [(r["sample"], r["path"]) for r in found[:2]] == [("x", url), ("x_2", "https://b.org/x.h5ad?y=1")]
    with pytest.raises(UserError, match="given twice"):
        sheet.sheet_from_paths([url, url])
