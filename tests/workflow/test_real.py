"""Five real samples from files to report, where they are present."""

from __future__ import annotations

from pathlib import Path

import pytest

import browser
import real_cohort
from nicheloop import io
from repository import Repository, copy_repository

pytestmark = [pytest.mark.workflow, pytest.mark.real, pytest.mark.xdist_group("real")]


@pytest.fixture(scope="module")
def results(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy: Repository = copy_repository(tmp_path_factory.mktemp("real") / "nicheloop")
    sheet = real_cohort.write_sheet(real_data, copy.folder / "results-real")
    copy.snakemake("--quiet", "rules", "--config", f"samples={sheet}", "results=results-real", cores=1)
    return copy.folder / "results-real"


@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
def test_report_in_a_browser(results: Path) -> None:
    browser.check_report(results / "report.html")


def test_report_and_atlas_are_there(results: Path):
    assert (results / "report.html").stat().st_size > 100_000
    assert (results / "atlas.h5ad").exists()


def test_idc_holds_epithelium_macrophages_and_stroma_but_no_lymphocytes(results: Path):
    types = io.read_cells(results / "cohort/cell_types.parquet", "tenx_idc")["cell_type"].value_counts()
    assert types["epithelial"] > 250
    assert 10 <= types.get("myeloid", 0) <= 60
    assert 5 <= types.get("caf", 0) + types.get("pvl", 0) + types.get("endothelial", 0) <= 60
    assert types.get("t_nk", 0) + types.get("b_cell", 0) <= 8


def test_idc_malignancy_is_what_the_reference_ladder_gives(results: Path):
    calls = io.read_table(results / "samples/tenx_idc/malignancy.parquet")
    assert set(calls.loc[calls["malignancy"] != "not_epithelial", "malignancy_status"]) <= {
        "reference_other_chemistry", "insufficient_reference_cells", "not_callable", "metrics_disagree", "no_null_cells",
    }  # fmt: skip


def test_normal_breasts_hold_no_malignant_cell(results: Path):
    for sample in ("normal_1", "normal_2"):
        calls = io.read_table(results / f"samples/{sample}/malignancy.parquet")["malignancy"]
        assert (calls == "malignant").sum() == 0


def test_guards_differ_between_the_two_references(results: Path):
    guards = io.read_json(results / "samples/qian_072/ingest.json")["guards"]
    assert guards["PPBP"] == guards["CXCR1"] == "absent from reference"
    assert io.read_json(results / "samples/qian_043/ingest.json")["guards"]["PPBP"] == "present"


def test_small_samples_end_with_a_named_status(results: Path):
    patients = io.read_table(results / "cohort/csc_patients.tsv").set_index("sample")
    for sample in ("qian_043", "qian_072"):
        assert patients.loc[sample, "status"] != "ok"
        assert patients.loc[sample, "reason"]
