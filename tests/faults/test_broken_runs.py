"""Runs that are killed, starved or disturbed: nothing half-written, and the same command ends as if nothing had been."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import small_run
from nicheloop import io
from repository import copy_repository
from small_run import BAD, GOOD

pytestmark = [pytest.mark.faults, pytest.mark.workflow, pytest.mark.xdist_group("faults")]


@dataclass
class Reference:
    """An undisturbed run."""

    source: Path
    sheet: Path
    out: Path
    words: str
    numba: str

    def run(self, out: Path, *options: str, **values: str) -> tuple[int, str]:
        return small_run.finish(self.source, self.sheet, out, *options, NUMBA_CACHE_DIR=self.numba, **values)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    source = copy_repository(tmp_path_factory.mktemp("faults") / "nicheloop").folder
    folder = tmp_path_factory.mktemp("small")
    sheet, out = small_run.write_sheet(folder), folder / "undisturbed"
    made = Reference(source, sheet, out, "", str(folder / "numba"))
    code, made.words = made.run(out)
    assert code == 0, made.words
    return made


def verify(reference: Reference, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nicheloop", "verify", str(out)]
    return subprocess.run(
        command, env=small_run.environment(reference.source), capture_output=True, text=True, check=False
    )


def test_one_bad_sample_does_not_lose_the_others(reference: Reference):
    record = io.read_json(reference.out / f"samples/{BAD}/status.json")
    assert record["stages"]["ingest"]["status"] == "unreadable"
    assert "matrix.mtx.gz" in record["stages"]["ingest"]["reason"]
    assert {s["status"] for s in record["stages"].values()} == {"unreadable"}
    good = io.read_json(reference.out / f"samples/{GOOD}/status.json")
    assert good["stages"]["qc"]["status"] == "ok"
    assert len(io.read_table(reference.out / f"samples/{GOOD}/qc.parquet")) == 200
    assert f"sample {BAD} was not used (unreadable)" in reference.words
    page = (reference.out / "report.html").read_text()
    assert BAD in page and "truncated" in page


def test_a_finished_run_is_verified_and_every_change_is_named(reference: Reference, tmp_path: Path):
    done = verify(reference, reference.out)
    assert done.returncode == 0, done.stdout + done.stderr
    record = io.read_json(reference.out / "provenance.json")
    assert len(record["inputs"][GOOD]) == 3
    assert "snakemake" in record["command"]
    out = tmp_path / "changed"
    shutil.copytree(reference.out, out)
    path = out / f"samples/{GOOD}/csc.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    (out / "cohort/axes.tsv").write_text("axis\n")
    (out / "report.html").unlink()
    (out / "extra.tsv").write_text("x\n")
    done = verify(reference, out)
    assert done.returncode == 1
    for words in (
        f"DIFFERS: samples/{GOOD}/csc.parquet: its content changed",
        f"DIFFERS: samples/{GOOD}/csc.parquet: cannot be read",
        "DIFFERS: cohort/axes.tsv: breaks the contract",
        "DIFFERS: report.html: is not there any more",
        "note: extra.tsv",
    ):
        assert words in done.stdout, done.stdout


def kills(reference: Reference, out: Path, seed: int, n: int) -> int:
    """Kill a run again and again at random moments; what stands after each kill is whole and as it should be."""
    whole = small_run.digest(reference.out)
    done = 0
    for n_tables, seconds in small_run.moments(seed, n, small_run.tables_of(reference.out)):
        process = small_run.start(reference.source, reference.sheet, out, NUMBA_CACHE_DIR=reference.numba)
        done += small_run.kill_after(process, out, n_tables, seconds)
        for name, checksum in small_run.digest(out).items():
            assert whole[name] == checksum, f"{name} was half-written when the run was killed"
    code, words = reference.run(out)
    assert code == 0, words
    assert small_run.digest(out) == whole
    assert not list(out.rglob(".*.tmp"))
    assert verify(reference, out).returncode == 0
    return done


def test_killed_five_times_and_started_again(reference: Reference, tmp_path: Path):
    assert kills(reference, tmp_path / "killed", seed=1, n=5) == 5


@pytest.mark.faults_long
def test_killed_fifteen_times_more(reference: Reference, tmp_path: Path):
    assert kills(reference, tmp_path / "killed", seed=2, n=15) == 15


def test_a_job_killed_from_outside_is_recorded_and_tried_again(reference: Reference, tmp_path: Path):
    """What follows from the loop of the good sample is taken away, and its job is killed whenever it starts."""
    out = tmp_path / "out"
    shutil.copytree(reference.out, out, ignore=shutil.ignore_patterns(".snakemake"))
    sheet = reference.sheet
    again = [
        f"samples/{GOOD}/loop.parquet",
        "cohort/loop.tsv",
        "cohort/loop_cohort.tsv",
        "report.html",
        "provenance.json",
    ]
    for name in [*again, "cohort/status.tsv", "cohort/samples.tsv", "cohort/composition.tsv"]:
        (out / name).unlink()
    os.utime(out / f"benchmarks/loop/{GOOD}.tsv", (0, 0))  # older than what the job reads, as after a change upstream
    process = small_run.start(reference.source, sheet, out, "--keep-going", NUMBA_CACHE_DIR=reference.numba)
    killed = small_run.kill_jobs(process, lambda words: "loop" in words and any(f"/{GOOD}/loop" in w for w in words))
    words, _ = process.communicate()
    assert killed >= 1
    assert process.returncode == 0, words
    assert f"sample {GOOD} is recorded as failed at loop: the job was killed from outside" in words
    status = io.read_status(out / f"samples/{GOOD}/loop.parquet")
    assert (status.status, status.sample) == ("failed", GOOD)
    stages = io.read_json(out / f"samples/{GOOD}/status.json")["stages"]
    assert stages["loop"]["status"] == "failed" and stages["qc"]["status"] == "ok"
    assert "killed from outside" in (out / "report.html").read_text()
    seen = verify(reference, out)
    assert seen.returncode == 0, seen.stdout
    assert f"note: samples/{GOOD}: failed at loop" in seen.stdout
    code, words = reference.run(out)
    assert code == 0, words
    assert f"{GOOD}: loop failed in the last run and is tried again" in words
    assert small_run.digest(out) == small_run.digest(reference.out)


@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_two_runs_in_one_folder_are_refused_and_nothing_of_the_first_is_touched(
    reference: Reference, tmp_path: Path, options: tuple[str, ...]
):
    import fcntl

    out = tmp_path / "out"
    out.mkdir()
    (out / "samples.tsv").write_text("of the first run\n")
    command = [
        sys.executable,
        "-m",
        "nicheloop",
        "run",
        str(reference.sheet.parent / GOOD),
        "--out",
        str(out),
        *options,
    ]
    with open(out / ".nicheloop.lock", "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = subprocess.run(
            command, env=small_run.environment(reference.source), capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert "another run works in this folder" in done.stderr
    assert (out / "samples.tsv").read_text() == "of the first run\n"


def test_strict_names_the_bad_sample_and_stops(reference: Reference, tmp_path: Path):
    config = tmp_path / "c.yaml"
    config.write_text("strict: true\n")
    code, words = reference.run(tmp_path / "out", "--config", str(config))
    assert code == 1
    assert f"strict: sample {BAD} cannot be processed (ingest: unreadable)" in words
    assert not (tmp_path / f"out/samples/{BAD}/ingest.json").exists()
    code, words = reference.run(tmp_path / "out2", "--config", str(config), "--keep-going")
    assert code == 2 and "strict: true" in words


def test_plain_snakemake_names_the_command_that_goes_on(reference: Reference, tmp_path: Path):
    command = [
        sys.executable, "-m", "snakemake", "--cores", "1", "--until", "ingest", "--directory", str(tmp_path),
        "--snakefile", str(reference.source / "Snakefile"), "--configfile", str(reference.source / "config.yaml"),
        "--config", f"samples={reference.sheet}", f"results={tmp_path / 'out'}", "strict=true",
    ]  # fmt: skip
    environment = small_run.environment(reference.source)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"nicheloop run {reference.sheet} --out {tmp_path / 'out'}" in done.stderr
    assert "--keep-going" in done.stderr
