"""Sample sheets: what is accepted, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from nicheloop import sheet
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
