"""A full or read-only disk and missing memory: one message, an exit code, nothing corrupt."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import record_of, write_counts
from nicheloop import io, recover, tables
from nicheloop.errors import UserError

pytestmark = pytest.mark.faults
PANEL = [f"GENE{i}" for i in range(400)]
# A limit on the size of files would cut the modules that Python compiles beside their source, too.
LIMITED = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def qc(counts: Path, out: Path, *, before=None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nicheloop", "qc", "--counts", str(counts), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=before, env=LIMITED)


def one_message(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("nicheloop: ")]
    assert len(said) == 1, done.stderr
    return said[0]


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = np.random.default_rng(0).poisson(3.0, (150, 400))
    return write_counts(tmp_path_factory.mktemp("counts"), x, PANEL)


def test_a_full_disk_stops_a_stage_with_one_message(counts: Path, tmp_path: Path):
    """A limit on the size of a file stands for the full disk: the same system call fails in the same place."""
    out = tmp_path / "qc.parquet"
    out.write_text("what stood there before")
    done = qc(counts, out, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048)))
    said = one_message(done, 2)
    assert str(out) in said and "Make room" in said and "nothing is half-written" in said
    assert [p.name for p in tmp_path.iterdir()] == ["qc.parquet"]
    assert out.read_text() == "what stood there before"


@pytest.mark.parametrize("kind", ["parquet", "tsv", "json", "h5ad"])
def test_a_full_disk_while_any_kind_of_file_is_written(kind: str, tmp_path: Path):
    script = {
        "parquet": "io.write_table(tables.empty('qc'), p, 'qc')",
        "tsv": "io.write_table(tables.empty('status'), p, 'status')",
        "json": "io.write_json(p, list(range(1000)))",
        "h5ad": "ingest.write_counts(p, None, [], record)",
    }[kind]
    code = (
        "import resource, json, sys\n"
        "from nicheloop import ingest, io, tables\n"
        "from nicheloop.errors import UserError\n"
        "p, record = sys.argv[1], json.loads(sys.argv[2])\n"
        "import anndata, pandas, pyarrow.parquet, h5py; tables.empty('qc'); tables.empty('status')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))\n"
        f"try:\n    {script}\nexcept UserError as err:\n    print('MESSAGE', err)\n"
    )
    path = tmp_path / f"x.{kind}"
    arguments = [sys.executable, "-c", code, str(path), __import__("json").dumps(record_of("s", 0, 0))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=LIMITED)
    assert "MESSAGE" in done.stdout, done.stdout + done.stderr
    assert str(path) in done.stdout and "Make room" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A file system of 64 kB, where mounting is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(tiny_disk: Path):
    io.write_text(tiny_disk / "first.txt", "x" * 10000)
    with pytest.raises(UserError, match=r"second\.txt: cannot be written \(No space left on device"):
        io.write_text(tiny_disk / "second.txt", "x" * 100000)
    assert [p.name for p in tiny_disk.iterdir()] == ["first.txt"]


def test_a_file_system_that_is_read_only(tiny_disk: Path, counts: Path):
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    said = one_message(qc(counts, tiny_disk / "samples/s1/qc.parquet"), 2)
    assert "Read-only file system" in said and "Make the folder writable" in said
    command = [sys.executable, "-m", "nicheloop", "run", "demo", "--out", str(tiny_disk / "results")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Read-only file system" in one_message(done, 2)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "Make room"), (errno.EDQUOT, "Make room"), (errno.EROFS, "Make the folder writable"),
        (errno.EACCES, "Make the folder writable"), (errno.EIO, "Look at the disk"),
    ],
)  # fmt: skip
def test_what_the_system_says_is_passed_on(code: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=re.escape(os.strerror(code))) as caught:
        io.write_text(tmp_path / "x.txt", "x")
    assert remedy in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path):
    with pytest.raises(PermissionError, match="input"), io.atomic(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "denied", "/some/input.h5")


def test_temporary_names_differ_and_the_dead_are_swept(tmp_path: Path):
    path = tmp_path / "x.txt"
    with io.atomic(path) as first, io.atomic(path) as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert path.read_text() == "1"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid, name in ((ended.pid, "x.txt"), (os.getpid(), "x.txt"), (ended.pid, "x.txt.gz")):
        (tmp_path / f".{name}.{io._HOST}-{pid}.7.tmp").write_text("half")
    (tmp_path / f".x.txt.another-node-{ended.pid}.7.tmp").write_text("half")
    io.write_text(path, "3")
    left = sorted(p.name for p in tmp_path.glob(".*"))
    assert left == sorted(
        [
            f".x.txt.{io._HOST}-{os.getpid()}.7.tmp",
            f".x.txt.another-node-{ended.pid}.7.tmp",
            f".x.txt.gz.{io._HOST}-{ended.pid}.7.tmp",
        ]
    )


def test_missing_memory_is_one_message(tmp_path: Path):
    """Counts that need 1.2 GB, and 2.5 GB of address space for the whole process with its libraries."""
    import h5py

    path = write_counts(tmp_path, np.ones((3, 400)), PANEL)
    n = 300_000_000
    with h5py.File(path, "r+") as handle:
        node = handle["X"]
        for name in ("data", "indices"):
            kind = node[name].dtype
            del node[name]
            node.create_dataset(name, shape=(n,), dtype=kind, chunks=(1_000_000,), compression="gzip")
    limit = 2_500_000_000
    done = qc(path, tmp_path / "out.parquet", before=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    said = one_message(done, 3)
    assert "not enough memory" in said and "--set-resources qc:mem_mb" in said
    assert not (tmp_path / "out.parquet").exists()


LOG = """\
[Sun Nov 22 08:04:24 2026]
Error in rule qc:
    message: None
    jobid: 2
    input: /r/samples/A/counts.h5ad
    output: {r}/samples/A/qc.parquet
    log: {r}/logs/qc/A.log (check log file(s) for error details)
    shell:
        python -m nicheloop qc
        (command exited with non-zero exit code)

[Sun Nov 22 08:04:25 2026]
    message: Error in group states, SLURM status is: 'OUT_OF_MEMORY'
    jobs:
        rule csc:
            jobid: 3
            output: {r}/samples/B/csc.parquet
            log: {r}/logs/csc/B.log (check log file(s) for error details)
        rule loop:
            jobid: 4
            output: {r}/samples/B/loop.parquet
            log: {r}/logs/loop/B.log (check log file(s) for error details)

[Sun Nov 22 08:04:26 2026]
Error in rule embed:
    jobid: 5
    output: {r}/cohort/embedding.parquet, {r}/cohort/clusters.parquet

"""


def test_failed_jobs_are_read_from_the_log_and_only_the_first_of_a_chain_is_recorded(tmp_path: Path):
    text = LOG.replace("{r}", str(tmp_path))
    found = recover.failures(text)
    assert [(f.rule, f.sample) for f in found] == [("qc", "A"), ("csc", "B"), ("loop", "B"), ("embed", None)]
    assert [f.rule for f in recover.next_in_line(found)] == ["qc", "csc"]
    (tmp_path / "logs/qc").mkdir(parents=True)
    (tmp_path / "logs/qc/A.log").write_text("12:00 qc started\nValueError: broken\n")
    assert recover.reason_of(found[0], tmp_path) == "ValueError: broken"
    assert "killed from outside" in recover.reason_of(found[1], tmp_path)


@pytest.mark.parametrize(
    "stage", ["ingest", "qc", "moments", "evidence", "ambient", "malignancy", "score", "csc", "tam", "loop"]
)
def test_every_stage_of_a_sample_can_be_recorded_as_failed_and_is_forgotten_once_it_was_made(
    stage: str, tmp_path: Path
):
    files = {
        "ingest": ["counts.h5ad", "ingest.json"], "score": ["scores.parquet"],
        "ambient": ["ambient.parquet", "profiles.parquet"], "malignancy": ["malignancy.parquet", "cnv.parquet"],
    }.get(stage, [f"{stage}.parquet"])  # fmt: skip
    failure = recover.Failure(stage, "A", tuple(str(tmp_path / "samples/A" / f) for f in files))
    row = record_of("A", 0, 0) | {"format": None, "path": "x"}
    benchmark = tmp_path / f"benchmarks/{stage}/A.tsv"
    io.write_text(benchmark, "of an earlier run\n")
    written = recover.write_failed(failure, tmp_path, row, "killed")
    assert not benchmark.exists()
    assert sorted(p.name for p in written) == sorted(files)
    for path in written:
        if path.suffix == ".parquet":
            assert io.read_status(path).status == "failed"
            assert len(tables.conform(pd.read_parquet(path), str(recover.contract_of(path.name)))) == 0
        else:
            record = io.read_json(path) if path.suffix == ".json" else io.Counts(path).record
            assert (record["status"], record["reason"]) == ("failed", "killed")
    recover.remember(tmp_path, failure, "killed", written)
    recover.remember(tmp_path, failure, "killed", written)
    recover.settle(tmp_path)
    assert recover.pending(tmp_path, {"A"}) == ([f"A: {stage}"], [str(p) for p in written])
    assert recover.pending(tmp_path, {"B"}) == ([], [])
    for path in written:
        if contract := recover.contract_of(path.name):
            io.write_table(tables.empty(contract), path, contract, io.Status(stage, "A"))
        elif path.suffix == ".json":
            io.write_json(path, {"status": "ok"})
    recover.settle(tmp_path)
    assert recover.pending(tmp_path, {"A"}) == ([], [])
