"""Gathering statuses: what every stage could and could not do."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fake_results import make
from nicheloop import io, status
from nicheloop.io import Status


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    results = tmp_path_factory.mktemp("results")
    samples = make(results, cells=60)
    status.run_status(results, samples, results / "cohort" / "status.tsv")
    return results, samples


def test_every_sample_and_stage_has_one_row(folder: tuple[Path, list[str]]) -> None:
    results, samples = folder
    table = io.read_table(results / "cohort" / "status.tsv")
    assert not table.duplicated(["stage", "sample"]).any()
    assert set(samples) | {"cohort"} == set(table["sample"])
    per = table[table["sample"] == "T1"]["stage"]
    assert {"ingest", "qc", "malignancy", "tam", "csc"} <= set(per)


def test_unreadable_sample_says_why_everywhere(folder: tuple[Path, list[str]]) -> None:
    results, _ = folder
    table = io.read_table(results / "cohort" / "status.tsv").query("sample == 'T5'")
    assert (table["status"] == "unreadable").all()
    assert table["reason"].str.contains("middle of a line").all()
    said = io.read_json(results / "samples" / "T5" / "status.json")
    assert said["stages"]["qc"]["status"] == "unreadable"


def test_sample_without_macrophages(folder: tuple[Path, list[str]]) -> None:
    results, _ = folder
    stages = io.read_json(results / "samples" / "T3" / "status.json")["stages"]
    assert stages["tam"]["status"] == "too_few_macrophages"
    assert stages["qc"]["status"] == "ok" and stages["qc"]["summary"]["n_barcodes"] == 60


def test_missing_table_is_not_run(tmp_path: Path) -> None:
    samples = make(tmp_path, cells=60, truth=False)
    (tmp_path / "samples" / "T1" / "tam.parquet").unlink()
    (tmp_path / "samples" / "T3" / "ingest.json").unlink()
    status.run_status(tmp_path, samples, tmp_path / "cohort" / "status.tsv")
    table = io.read_table(tmp_path / "cohort" / "status.tsv").set_index(["sample", "stage"])["status"]
    assert table["T1", "tam"] == "not_run"
    assert table["T3", "ingest"] == "not_run"
    sheet = pd.read_csv(tmp_path / "cohort" / "samples.tsv", sep="\t", index_col="sample")
    assert sheet.loc["T3", "status"] == "not_run" and sheet.loc["T3", "patient"] == "T3"


def test_worse_status_wins_within_a_stage(tmp_path: Path) -> None:
    for name, path, value in (("malignancy", "malignancy", "ok"), ("cnv", "cnv", "insufficient_reference_cells")):
        from nicheloop import tables

        io.write_table(
            tables.empty(name),
            tmp_path / f"samples/s1/{path}.parquet",
            name,
            Status("malignancy", "s1", value, "why", {path: 1}),
        )
    found = {s.stage: s for s in status.table_statuses(tmp_path, "s1")}
    assert found["malignancy"].status == "insufficient_reference_cells"
    assert found["malignancy"].summary == {"malignancy": 1, "cnv": 1}


def test_sample_row_flattens_without_losing_columns() -> None:
    row = status.sample_row({
        "sample": "s", "patient": None, "status": "ok", "n_cells": 3, "guards": {"CD24": "absent from reference"},
        "extra": {"age": 50, "status": "alive"}, "subtype": None,
    })  # fmt: skip
    assert row == {
        "sample": "s", "patient": "s", "status": "ok", "n_cells": "3", "guard_CD24": "absent from reference", "age": "50",
        "sheet_status": "alive", "subtype": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "no_rows"),
        (["ok", "x"], "ok"),
        (["b", "a"], "a"),
        (["b", "a", "b"], "b"),
        (["not_present", "tested"], "ok"),
    ],
)
def test_summarise(given: list[str], expected: str) -> None:
    assert status.summarise(given)[0] == expected
    assert status.summarise(given[::-1]) == status.summarise(given)


def test_composition_by_hand(folder: tuple[Path, list[str]]) -> None:
    types = pd.DataFrame(
        {
            "cell_id": list("abcd"),
            "sample": ["s", "s", "s", "t"],
            "cell_type": ["epithelial", "epithelial", "caf", "epithelial"],
        }
    )
    call = pd.Series({"a": "malignant", "b": "unassigned", "c": "not_epithelial"})
    table = status.composition_table(types, call, {"s": "P1"})
    found = {(r.sample, r.cell_type): (r.patient, r.n_cells, round(r.fraction, 3)) for r in table.itertuples()}
    assert found == {
        ("s", "caf"): ("P1", 1, 0.333), ("s", "epithelial_malignant"): ("P1", 1, 0.333),
        ("s", "epithelial_unassigned"): ("P1", 1, 0.333), ("t", "epithelial"): ("t", 1, 1.0),
    }  # fmt: skip
    results, _ = folder
    written = io.read_table(results / "cohort" / "composition.tsv")
    assert written.groupby("sample")["fraction"].sum().round(4).eq(1).all()
