"""The workflow on a real SLURM of one node: same bytes, memory that grows, nothing half-written."""

from __future__ import annotations

import re
import subprocess
import sys
import time
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
    "# slurm-status-command": "slurm-status-command",
}


@dataclass
class Cluster:
    """A running SLURM, a copy of the repository with an edited profile, and a local run to compare with."""

    slurm: slurm.Slurm
    source: Path
    sheet: Path
    local: Path
    numba: str

    def start(self, out: Path, *options: str) -> subprocess.Popen[str]:
        command = [
            sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", *options,
            "--config", f"samples={self.sheet}", f"results={out}",
        ]  # fmt: skip
        environment = {
            **small_run.environment(self.source, NUMBA_CACHE_DIR=self.numba),
            "PATH": self.slurm.environment["PATH"],
            "SLURM_CONF": self.slurm.environment["SLURM_CONF"],
        }
        return subprocess.Popen(
            command, cwd=self.source, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, out: Path, *options: str) -> str:
        process = self.start(out, *options)
        words, _ = process.communicate(timeout=1500)
        assert process.returncode == 0, words[-6000:]
        return words


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = slurm.missing()
    if reason:
        pytest.skip(f"no SLURM can be started here: {reason}")
    folder = tmp_path_factory.mktemp("small")
    source = copy_repository(tmp_path_factory.mktemp("slurm") / "nicheloop").folder
    sheet, local, numba = small_run.write_sheet(folder), folder / "local", str(folder / "numba")
    code, words = small_run.finish(source, sheet, local, NUMBA_CACHE_DIR=numba)
    assert code == 0, words
    profile = source / "profiles/slurm/profile.yaml"
    text = profile.read_text()
    for before, after in EDITS.items():
        assert before in text
        text = text.replace(before, after)
    profile.write_text(text)
    with slurm.cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield Cluster(running, source, sheet, local, numba)


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < end
        time.sleep(0.2)


def test_the_whole_workflow_gives_the_same_bytes_as_a_local_run(cluster: Cluster, tmp_path: Path):
    out = tmp_path / "out"
    words = cluster.run(out)
    assert small_run.digest(out) == small_run.digest(cluster.local)
    submitted = re.findall(r"has been submitted with SLURM jobid (\d+) \(log: \S*/slurm_logs/(\w+)/", words)
    # 12 jobs of each of 2 samples and 13 of the cohort; a chain is one submission.
    assert len(submitted) <= 13, submitted
    assert sum("read" in name for _, name in submitted) == 2
    assert (out / "provenance.json").exists()
    assert "--profile profiles/slurm" in (out / "provenance.json").read_text()


def test_a_job_above_its_memory_is_killed_and_comes_back_with_more(cluster: Cluster, tmp_path: Path):
    out = tmp_path / "out"
    name = f"samples/{GOOD}/qc.parquet"
    # Room for Snakemake in the job (140 MB), none for the step beside it.
    memory = "mem_mb=240*attempt**3"
    words = cluster.run(out, str(out / name), "--set-resources", f"ingest:{memory}", f"qc:{memory}")
    assert "Trying to restart" in words, words[-3000:]
    states = cluster.slurm.call("squeue", "--all", "--states=all", "--noheader", "--format=%m %T").split("\n")
    small = [line for line in states if line.startswith("240M")]
    assert small and not any("COMPLETED" in line for line in small), states
    assert "1920M COMPLETED" in states
    assert "exceeded memory limit" in (cluster.slurm.folder / "slurmd.log").read_text()
    assert (out / name).read_bytes() == (cluster.local / name).read_bytes()


def test_scancel_and_a_killed_driver_leave_nothing_half_written(cluster: Cluster, tmp_path: Path):
    out = tmp_path / "out"
    whole = small_run.digest(cluster.local)
    targets = [str(out / f"samples/{s}/moments.parquet") for s in (GOOD, BAD)]
    process = cluster.start(out, *targets, "--retries", "0")
    wait_for(lambda: (out / f"logs/ingest/{GOOD}.log").exists(), process)
    for job, state in cluster.slurm.jobs().items():
        if state in ("RUNNING", "PENDING"):
            cluster.slurm.call("scancel", job)
    words, _ = process.communicate(timeout=600)
    assert process.returncode != 0, words
    assert small_run.digest(out).items() <= whole.items()
    process = cluster.start(out, *targets)
    wait_for(lambda: "RUNNING" in cluster.slurm.jobs().values(), process)
    small_run.kill_group(process)
    for job, state in cluster.slurm.jobs().items():
        if state in ("RUNNING", "PENDING"):
            cluster.slurm.call("scancel", job)
    assert small_run.digest(out).items() <= whole.items()
    cluster.run(out, *targets, "--unlock")
    cluster.run(out, *targets)
    found = small_run.digest(out)
    assert found.items() <= whole.items()
    assert {f"samples/{s}/moments.parquet" for s in (GOOD, BAD)} <= set(found)
