"""The workflow on a real SLURM of one node: same bytes, memory that grows, nothing half-written."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import slurm

import small_run
from repository import copy_repository
from small_run import BAD, GOOD

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]
# As a user would edit the profile; the status is asked for sooner, because these jobs last seconds.
EDITS = {
    '"your_account"': '"lab"',
    '"your_partition"': '"short"',
    "status-checks: 20": "status-checks: 3",
    "latency-wait: 60": "latency-wait: 10",
}
WITHOUT_ACCOUNTING = {"# slurm-status-command": "slurm-status-command"}


@dataclass
class Cluster:
    """A running SLURM and a copy of the repository with an edited profile."""

    slurm: slurm.Slurm
    source: Path

    def start(self, out: Path, *options: str, samples: str | Path = "demo") -> subprocess.Popen[str]:
        command = [
            sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", *options,
            "--config", f"samples={samples}", f"results={out}",
        ]  # fmt: skip
        environment = {
            **small_run.environment(self.source),
            "PATH": self.slurm.environment["PATH"],
            "SLURM_CONF": self.slurm.environment["SLURM_CONF"],
        }
        return subprocess.Popen(
            command, cwd=self.source, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, out: Path, *options: str, samples: str | Path = "demo") -> str:
        process = self.start(out, *options, samples=samples)
        words, _ = process.communicate(timeout=1500)
        assert process.returncode == 0, words[-6000:]
        return words


@dataclass
class Local:
    """What a run without SLURM gives for two very small samples, up to the moments."""

    sheet: Path
    out: Path


def edited_copy(folder: Path, edits: dict[str, str]) -> Path:
    source = copy_repository(folder / "nicheloop").folder
    profile = source / "profiles/slurm/profile.yaml"
    text = profile.read_text()
    for before, after in edits.items():
        assert before in text
        text = text.replace(before, after)
    profile.write_text(text)
    return source


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A SLURM as most are: an accounting database, in which only the account of the profile may submit."""
    if reason := slurm.missing(accounting=True):
        pytest.skip(f"no SLURM with accounting can be started here: {reason}")
    source = edited_copy(tmp_path_factory.mktemp("slurm"), EDITS)
    with slurm.cluster(tmp_path_factory.mktemp("accounting"), account="lab") as running:
        yield Cluster(running, source)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A SLURM without accounting."""
    if reason := slurm.missing():
        pytest.skip(f"no SLURM can be started here: {reason}")
    source = edited_copy(tmp_path_factory.mktemp("slurm"), EDITS | WITHOUT_ACCOUNTING)
    with slurm.cluster(tmp_path_factory.mktemp("plain")) as running:
        yield Cluster(running, source)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    folder = tmp_path_factory.mktemp("small")
    sheet, out = small_run.write_sheet(folder), folder / "local"
    source = copy_repository(folder / "nicheloop").folder
    code, words = small_run.finish(source, sheet, out, "--snakemake", "--until", "moments")
    assert code == 0, words
    return Local(sheet, out)


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < end
        time.sleep(0.2)


def test_the_demo_gives_the_same_bytes_as_a_local_run(cluster: Cluster, tmp_path: Path):
    """Asked for by sacct: the profile as it is, but for account and partition."""
    out, here = tmp_path / "out", tmp_path / "here"
    words = cluster.run(out)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", f"results={here}"]
    subprocess.run(
        command, cwd=cluster.source, env=small_run.environment(cluster.source), check=True, capture_output=True
    )
    found = small_run.digest(out)
    assert found == small_run.digest(here)
    assert len(found) > 8 * 10
    submitted = re.findall(r"has been submitted with SLURM jobid (\d+) \(log: \S*/slurm_logs/([\w.]+)/", words)
    # Eight samples: three chains each, the ambient steps of four at a time, and six steps of the cohort.
    kinds = Counter(re.sub("^(group|rule)_", "", name).partition("_")[0] for _, name in submitted)
    assert kinds["read"] == kinds["malignancy"] == kinds["states"] == 8, kinds
    assert sum(kinds.values()) <= 33, kinds
    ended = cluster.slurm.call("sacct", "--allusers", "--allocations", "--noheader", "--format=JobID,State,Account")
    assert {tuple(line.split()[1:]) for line in ended.splitlines()} == {("COMPLETED", "lab")}, ended
    assert "--profile profiles/slurm" in (out / "provenance.json").read_text()


def test_a_job_above_its_memory_is_killed_and_comes_back_with_more(cluster: Cluster, local: Local, tmp_path: Path):
    out = tmp_path / "out"
    name = f"samples/{GOOD}/qc.parquet"
    # Room for Snakemake in the job (140 MB), none for the step beside it.
    memory = "mem_mb=240*attempt**3"
    words = cluster.run(
        out, str(out / name), "--set-resources", f"ingest:{memory}", f"qc:{memory}", samples=local.sheet
    )
    assert "Trying to restart" in words, words[-3000:]
    states = cluster.slurm.call("squeue", "--all", "--states=all", "--noheader", "--format=%m %T").split("\n")
    small = [line for line in states if line.startswith("240M")]
    assert small and not any("COMPLETED" in line for line in small), states
    assert "1920M COMPLETED" in states
    assert "exceeded memory limit" in (cluster.slurm.folder / "slurmd.log").read_text()
    assert (out / name).read_bytes() == (local.out / name).read_bytes()


def test_scancel_and_a_killed_driver_leave_nothing_half_written(plain: Cluster, local: Local, tmp_path: Path):
    out = tmp_path / "out"
    whole = small_run.digest(local.out)
    targets = [str(out / f"samples/{s}/moments.parquet") for s in (GOOD, BAD)]
    process = plain.start(out, *targets, "--retries", "0", samples=local.sheet)
    wait_for(lambda: (out / f"logs/ingest/{GOOD}.log").exists(), process)
    for job, state in plain.slurm.jobs().items():
        if state in ("RUNNING", "PENDING"):
            plain.slurm.call("scancel", job)
    words, _ = process.communicate(timeout=600)
    assert process.returncode != 0, words
    assert small_run.digest(out).items() <= whole.items()
    process = plain.start(out, *targets, samples=local.sheet)
    wait_for(lambda: "RUNNING" in plain.slurm.jobs().values(), process)
    small_run.kill_group(process)
    for job, state in plain.slurm.jobs().items():
        if state in ("RUNNING", "PENDING"):
            plain.slurm.call("scancel", job)
    assert small_run.digest(out).items() <= whole.items()
    plain.run(out, *targets, "--unlock", samples=local.sheet)
    plain.run(out, *targets, samples=local.sheet)
    found = small_run.digest(out)
    assert found.items() <= whole.items()
    assert {f"samples/{s}/moments.parquet" for s in (GOOD, BAD)} <= set(found)
