"""Provenance and its check, without a run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fake_results import make
from nicheloop import io, provenance, recover, status, verify
from nicheloop.config import Config
from nicheloop.errors import UserError


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    samples = make(folder, cells=60)
    status.run_status(folder, samples, folder / "cohort" / "status.tsv")
    provenance.run_provenance(folder, folder / "provenance.json", config=Config(), command="snakemake --cores 2")
    return folder


def test_untouched_results_are_as_they_were(results: Path, capsys: pytest.CaptureFixture[str]):
    found, n_files = verify.verify(results)
    assert [str(f) for f in found if not f.note] == []
    assert n_files > 30
    assert verify.run_verify(results) == 0
    assert "are as the run wrote them" in capsys.readouterr().out


def test_one_changed_byte_is_found(results: Path, capsys: pytest.CaptureFixture[str]):
    path = results / "samples/T1/qc.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert verify.run_verify(results) == 1
    assert "DIFFERS: samples/T1/qc.parquet: its content changed" in capsys.readouterr().out


def test_logs_hidden_files_and_timings_are_no_results(results: Path):
    for name in ("logs/qc.log", "benchmarks/qc.tsv", ".snakemake/x", "samples/.x/y", "failed.json"):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("[]")
    assert [f for f in verify.verify(results)[0] if "was not written" in f.words] == []


def test_inputs_are_compared_and_a_gone_one_is_a_note(tmp_path: Path):
    here = tmp_path / "x.h5"
    here.write_text("counts")
    inputs = {"A": [*provenance.checksums([str(here)]), {"path": str(tmp_path / "gone"), "bytes": 1, "sha256": "0"}]}
    assert [f.note for f in verify.check_inputs(inputs)] == [True]
    here.write_text("other counts")
    assert [f.note for f in verify.check_inputs(inputs)] == [False, True]


def test_sheet_inputs_are_recorded_with_their_checksums(tmp_path: Path):
    (tmp_path / "x.h5").write_text("counts")
    sheet = tmp_path / "s.tsv"
    sheet.write_text("sample\tpath\nA\tx.h5\n")
    found = provenance.input_files(Config(samples=str(sheet)), tmp_path)
    assert [f["sha256"] for f in found["A"]] == [io.sha256(tmp_path / "x.h5")]
    assert provenance.input_files(Config(), tmp_path) == {}


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}"])
def test_a_folder_without_a_usable_record_is_a_message(text: str | None, tmp_path: Path):
    if text is not None:
        (tmp_path / "provenance.json").write_text(text)
    with pytest.raises(UserError, match=r"provenance\.json"):
        verify.verify(tmp_path)


def test_other_versions_and_resources_are_notes():
    record = provenance.describe(Config())
    assert verify.check_installation(record) == []
    record["packages"] = {**record["packages"], "numpy": "1.0"}
    record["resources_sha256"] = {**record["resources_sha256"], "markers.yaml": "0"}
    found = verify.check_installation(record)
    assert {(f.path, f.note) for f in found} == {("numpy", True), ("resources/markers.yaml", True)}


def test_failed_samples_are_notes(results: Path):
    failure = recover.Failure("qc", "T1", ("qc.parquet",))
    recover.remember(results, failure, "killed", [])
    assert [str(f) for f in verify.check_failed(results)] == ["note: samples/T1: failed at qc: killed"]


def test_the_commit_is_that_of_a_repository_of_ours_only(tmp_path: Path):
    assert provenance.git_state(tmp_path) is None
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "other.txt").write_text("x")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    assert provenance.git_state(tmp_path) is None
    (tmp_path / "Snakefile").write_text("x")
    state = provenance.git_state(tmp_path)
    assert state is not None and len(state["commit"]) == 40 and state["changed"] is False
    (tmp_path / "other.txt").write_text("y")
    assert provenance.git_state(tmp_path)["changed"] is True  # type: ignore[index]


def test_strict_status_names_every_bad_sample(results: Path):
    with pytest.raises(UserError, match="sample T5 cannot be processed \\(ingest: unreadable\\)"):
        status.run_status(results, ["T1", "T5"], results / "cohort" / "status.tsv", strict=True)
    status.run_status(results, ["T1"], results / "cohort" / "status.tsv", strict=True)
    with pytest.raises(UserError, match="strict: sample T5"):
        status.require_ok(results / "samples/T5/qc.parquet")
    status.require_ok(results / "samples/T1/qc.parquet")
