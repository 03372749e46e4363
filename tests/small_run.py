"""A very small run through the whole workflow: one tumour of 200 cells, and one sample whose matrix is cut in two."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

GOOD, BAD = "good", "bad"


def write_sheet(folder: Path) -> Path:
    """Write simulated data (seed 0) and a sheet that names both samples."""
    from nicheloop import simulate
    from nicheloop.config_cells import Simulate

    table = simulate.profiles()
    options = Simulate(cells_per_tumour=200, cells_per_normal=100)
    made = simulate.simulate_sample(simulate.PLANS[0], table, options=options, seed=0)
    for sample in (GOOD, BAD):
        simulate.write_10x(folder / sample, made.counts, made.barcodes, table.genes, table.ensembl)
    matrix = folder / BAD / "matrix.mtx.gz"
    matrix.write_bytes(matrix.read_bytes()[:3000])
    sheet = folder / "sheet.tsv"
    sheet.write_text(f"sample\tpath\n{GOOD}\t{folder / GOOD}\n{BAD}\t{folder / BAD}\n")
    return sheet


def environment(source: Path, **values: str) -> dict[str, str]:
    """Environment in which the package comes from a copy of the repository."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "NICHELOOP_COMMAND")}
    return {**kept, "PYTHONPATH": str(source / "src"), "PYTHONDONTWRITEBYTECODE": "1", **values}


def start(source: Path, sheet: Path, out: Path, *options: str, **values: str) -> subprocess.Popen[str]:
    """Start ``nicheloop run`` in a process group of its own."""
    command = [sys.executable, "-m", "nicheloop", "run", str(sheet), "--out", str(out), "--cores", "2", *options]
    return subprocess.Popen(
        command, cwd=sheet.parent, env=environment(source, **values), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(source: Path, sheet: Path, out: Path, *options: str, **values: str) -> tuple[int, str]:
    """Exit code and words of a whole ``nicheloop run``."""
    process = start(source, sheet, out, *options, **values)
    words, _ = process.communicate(timeout=1500)
    return process.returncode, words


def digest(folder: Path) -> dict[str, str]:
    """Checksum of every table and record below a results folder (the report names the folder itself)."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.suffix in (".parquet", ".tsv", ".h5ad") or p.name in ("ingest.json", "status.json")
        if not {"benchmarks", "logs", ".snakemake"} & set(p.relative_to(folder).parts)
    }


def tables_of(folder: Path) -> int:
    """How many tables stand below a results folder."""
    return sum(1 for _ in folder.glob("*/*.parquet")) + sum(1 for _ in folder.glob("samples/*/*.parquet"))


def kill_group(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a run and all its jobs."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def kill_after(process: subprocess.Popen[str], out: Path, n_tables: int, seconds: float) -> bool:
    """SIGKILL a run some time after `n_tables` stand in its folder; False if it ended before."""
    while tables_of(out) < n_tables:
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    time.sleep(seconds)
    if process.poll() is not None:
        return False
    kill_group(process)
    return True


def jobs_of(session: int) -> dict[int, list[str]]:
    """Processes of a session and their arguments."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == session:
                found[int(folder.name)] = (folder / "cmdline").read_text().split("\0")
        except (OSError, ValueError):
            continue
    return found


def kill_jobs(process: subprocess.Popen[str], chosen: Callable[[list[str]], bool]) -> int:
    """SIGKILL every job of a run that is chosen by its arguments, until the run ends; returns how many."""
    n = 0
    while process.poll() is None:
        for pid, words in jobs_of(process.pid).items():
            if "nicheloop" in words and Path(words[0]).name.startswith("python") and chosen(words):
                try:
                    os.kill(pid, signal.SIGKILL)
                    n += 1
                except ProcessLookupError:
                    continue
        time.sleep(0.05)
    return n


def moments(seed: int, n: int, n_tables: int) -> list[tuple[int, float]]:
    """Random moments to kill at, from the first to the last table of a run: so many tables stand, so many seconds on."""
    rng = np.random.default_rng(seed)
    when = np.sort(rng.choice(n_tables - 2, n, replace=False)) + 1
    return [(int(w), float(rng.uniform(0, 2))) for w in when]
