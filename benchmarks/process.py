"""A process measured whole: wall time, processor time and peak memory of its tree; and the machine it ran on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

USED = re.compile(r" finished in ([\d.]+) s: ([\d.]+) s of processor time, (?:peak|at most) (\d+) MB")
PRODUCT = (  # what figures of speed hang on
    "src", "workflow", "resources", "profiles", "Snakefile", "config.yaml", "requirements.lock", "benchmarks/cohort.py",
    "benchmarks/peer_script.py",
)  # fmt: skip
INTERVAL = 0.1  # seconds between two looks at the memory of the tree


def run_tree(
    command: Sequence[str | Path], log: Path, *, cores: int, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a command bound to the first `cores` cores; seconds, processor seconds and peak MB of all its processes.

    Memory is the sum of the resident sets of the tree, looked at every tenth of a second: pages two processes share
    count twice.

    Raises
    ------
    RuntimeError
        If the command fails; its log is named.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    before = os.times()
    with open(log, "wb") as stream:
        start = time.perf_counter()
        process = psutil.Popen(
            [str(c) for c in command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        allowed = sorted(psutil.Process().cpu_affinity() or [])[:cores]
        process.cpu_affinity(allowed)
        peak = 0
        while process.poll() is None:
            total = 0
            for one in [process, *_children(process)]:
                try:
                    total += one.memory_info().rss
                except psutil.Error:
                    continue
            peak = max(peak, total)
            time.sleep(INTERVAL)
        seconds = time.perf_counter() - start
    after = os.times()
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: {log}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "peak_mb": round(peak / 1e6)}


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def usage(results: Path) -> Iterator[dict[str, Any]]:
    """What each job of a finished run says at the end of its log.

    Yields rule, sample (None: the cohort), seconds, processor seconds and peak MB.  Snakemake's own benchmark files see
    only the command that waits where jobs fork from one process (`nicheloop.warm`).
    """
    logs = results / "logs"
    for path in sorted(logs.rglob("*.log")):
        found = USED.findall(path.read_text(encoding="utf-8", errors="replace"))
        if found:
            *folder, name = path.relative_to(logs).with_suffix("").parts
            s, cpu, mb = map(float, found[-1])
            rule, sample = (folder[0], name) if folder else (name, None)
            yield {"rule": rule, "sample": sample, "seconds": s, "cpu_seconds": cpu, "peak_mb": mb}


def with_jobs(found: dict[str, Any], results: Path) -> dict[str, Any]:
    """The figures of `run_tree` for a workflow, with the processor time of jobs that forked from one process added.

    Nobody in the tree waits for that process, so the system does not count it.
    """
    jobs = sum(job["cpu_seconds"] for job in usage(results))
    return {**found, "cpu_seconds": round(found["cpu_seconds"] + jobs, 1)}


def machine(cores: int) -> dict[str, Any]:
    """What the figures were measured on; the load before says whether the machine was quiet."""
    model = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), ""
    )
    return {
        "processor": model or platform.processor(), "cores_used": cores, "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9), "python": platform.python_version(),
        "system": platform.system(), "code": code(), "load_before": round(os.getloadavg()[0], 2),
    }  # fmt: skip


def code() -> str:
    """Short commit that last changed what was measured (not the benchmarks or docs), with a mark where files differ."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=Path(__file__).parents[1], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    changed = git("status", "--porcelain", "--untracked-files=no", "--", *PRODUCT)
    return git("log", "-1", "--format=%h", "--abbrev=7", "--", *PRODUCT) + (" and changes" if changed else "")


def versions(python: Path | str, names: Sequence[str]) -> dict[str, str]:
    """Versions of packages in another environment, or in this one."""
    if Path(python).resolve() == Path(sys.executable).resolve() and str(python) == sys.executable:
        return {n: metadata.version(n) for n in names}
    code = f"import importlib.metadata as m; print(*[m.version(n) for n in {list(names)!r}])"
    out = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(names, out, strict=True))
