"""Jobs forked from a process that has the libraries loaded: the same bytes, words and exit codes as jobs started alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nicheloop import warm, workflow

COMMAND = [sys.executable, "-m", "nicheloop"]
SLOW = 60  # seconds until something that should have happened has not


class Warm:
    """The process jobs are forked from, as a workflow has it."""

    def __init__(self, folder: Path) -> None:
        alone = {
            **os.environ,
            **workflow.job_environment(str(folder)),
            "PYTHONPATH": str(Path(warm.__file__).parents[1]),
        }
        self.alone = alone | {warm.ADDRESS: "off"}
        self.pipe: int | None = None
        address, self.held = warm.start(alone)
        self.environment = alone | {warm.ADDRESS: address}
        self.socket = Path(address.partition("|")[0])
        self.process = next(p for p in psutil.Process().children() if address_of(p) == "nicheloop.warm")

    def close(self) -> None:
        """End as a workflow does."""
        os.close(self.held)
        if self.pipe is not None:
            os.close(self.pipe)
        self.process.wait(SLOW)
        assert not self.socket.parent.exists()

    def jobs(self) -> list[psutil.Process]:
        return self.process.children()


def address_of(process: psutil.Process) -> str:
    try:
        words = process.cmdline()
    except psutil.Error:  # one that has just ended
        return ""
    return words[2] if len(words) > 2 else ""


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Warm]:
    kept = Warm(tmp_path)
    yield kept
    kept.close()


def run(arguments: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


def waiting(kept: Warm, tmp_path: Path) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """Give a command whose job reads a pipe nobody has written to, and that job."""
    pipe = tmp_path / "config.yaml"
    os.mkfifo(pipe)
    command = subprocess.Popen(
        [*COMMAND, "simulate", "--out", "x", "--config", str(pipe)], env=kept.environment, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where the tests run in the background
    )  # fmt: skip
    kept.pipe = os.open(pipe, os.O_WRONLY)  # returns when the job has opened it
    (job,) = kept.jobs()
    return command, job


CONFIG = '{"simulate": {"cells_per_tumour": 200, "cells_per_normal": 100}}'


def test_a_job_writes_the_same_bytes_and_words(kept: Warm, tmp_path: Path):
    said = {}
    for name, environment in (("warm", kept.environment), ("alone", kept.alone)):
        folder = tmp_path / name
        folder.mkdir()
        said[name] = run(["simulate", "--out", "demo", "--seed", "3", "--config", CONFIG], environment, folder)
    assert said["warm"].returncode == said["alone"].returncode == 0
    assert said["warm"].stdout == said["alone"].stdout != ""
    assert "simulate finished in" in said["warm"].stderr
    files = {
        n: {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()} for n in said
    }
    assert files["warm"] == files["alone"] != {}


@pytest.mark.parametrize(
    "arguments",
    [
        ["moments", "--counts", "absent.h5ad", "--qc", "absent.parquet", "--out", "x.parquet"],
        ["qc", "--counts", "x"],
        ["nonsense"],
        ["--version"],
        ["simulate", "--out", "x", "--config", "{"],
    ],
)
def test_errors_are_those_of_a_job_alone(kept: Warm, tmp_path: Path, arguments: list[str]):
    one, other = (run(arguments, e, tmp_path) for e in (kept.environment, kept.alone))
    assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)


def test_the_job_is_done_by_the_process_that_has_the_libraries(kept: Warm, tmp_path: Path):
    command, job = waiting(kept, tmp_path)
    assert job.pid != command.pid
    assert job.cwd() == str(tmp_path)
    job.terminate()
    assert command.wait(SLOW) == -signal.SIGTERM


def test_a_killed_job_is_a_killed_command(kept: Warm, tmp_path: Path):
    command, job = waiting(kept, tmp_path)
    job.kill()
    assert command.wait(SLOW) == -signal.SIGKILL
    assert run(["--version"], kept.environment, tmp_path).returncode == 0  # the others go on


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_job_ends_with_the_command_that_waits_for_it(kept: Warm, tmp_path: Path, how: signal.Signals):
    command, job = waiting(kept, tmp_path)
    command.send_signal(how)
    assert command.wait(SLOW) == (130 if how is signal.SIGINT else -how)
    assert psutil.wait_procs([job], timeout=SLOW)[1] == []


def test_the_end_of_the_run_is_the_end_of_the_process_but_not_of_its_jobs(tmp_path: Path):
    kept = Warm(tmp_path)
    command, job = waiting(kept, tmp_path)
    os.close(kept.held)
    assert run(["--version"], kept.environment, tmp_path).stdout.startswith("nicheloop ")  # alone
    assert job.is_running() and kept.process.is_running()
    command.kill()
    command.wait(SLOW)
    kept.process.wait(SLOW)
    assert not kept.socket.parent.exists()
    os.close(kept.pipe)


def test_a_terminated_process_removes_its_socket_and_its_commands_end(tmp_path: Path):
    kept = Warm(tmp_path)
    command, job = waiting(kept, tmp_path)
    kept.process.terminate()
    kept.process.wait(SLOW)
    assert not kept.socket.parent.exists()
    job.kill()
    assert command.wait(SLOW) == -signal.SIGKILL
    assert run(["--version"], kept.environment, tmp_path).stdout.startswith("nicheloop ")  # alone
    for end in (kept.held, kept.pipe):
        os.close(end)


@pytest.mark.parametrize("address", ["", "off", "/nowhere/jobs|{}", "no separator", "/nowhere/jobs|another Python"])
def test_without_that_process_a_job_is_done_here(monkeypatch: pytest.MonkeyPatch, address: str):
    monkeypatch.setenv(warm.ADDRESS, address.format(warm.identity()))
    assert warm.ask(["--version"]) is None


def test_a_job_that_is_not_taken_is_done_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As where there is no memory for a copy: the connection is closed."""
    path = str(tmp_path / "jobs")
    monkeypatch.setenv(warm.ADDRESS, f"{path}|{warm.identity()}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        closing = threading.Thread(target=lambda: listener.accept()[0].close())
        closing.start()
        assert warm.ask(["--version"]) is None
        closing.join()


def test_a_folder_of_another_user_is_not_asked(kept: Warm, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(warm.ADDRESS, kept.environment[warm.ADDRESS])
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert warm.ask(["--version"]) is None
    assert kept.jobs() == []


def test_another_python_is_not_asked(kept: Warm, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(warm.ADDRESS, kept.environment[warm.ADDRESS])
    monkeypatch.setattr(sys, "prefix", "/another")
    assert warm.ask(["--version"]) is None
    assert kept.jobs() == []


def test_a_folder_with_too_long_a_name_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with pytest.raises(OSError, match="too long"):
        warm.start({})
    assert list(folder.iterdir()) == []


def test_waiting_loads_nothing_heavy():
    code = "import sys; from nicheloop import warm; warm.ask([]); print(len(sys.modules), 'numpy' in sys.modules)"
    out = subprocess.run([sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(Path(warm.__file__).parents[1])}, capture_output=True, text=True, check=True)  # fmt: skip
    n, numpy = out.stdout.split()
    assert numpy == "False"
    assert int(n) < 100
