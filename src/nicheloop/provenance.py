"""Where results come from: versions, configuration, seed, command, and checksums of all that went in and came out.

``provenance.json`` is the last file a run writes.  `nicheloop verify` holds the results folder against it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicheloop import __version__, datasets, io, sheet, workflow

if TYPE_CHECKING:
    from nicheloop.config import Config

NAME = "provenance.json"
PACKAGES = (
    "anndata",
    "faiss-cpu",
    "gseapy",
    "harmonypy",
    "h5py",
    "igraph",
    "jinja2",
    "leidenalg",
    "matplotlib",
    "numba",
    "numpy",
    "pandas",
    "pandera",
    "pyarrow",
    "pydantic",
    "pydeseq2",
    "scanpy",
    "scikit-learn",
    "scipy",
    "snakemake",
    "umap-learn",
)
# Not results: they differ from run to run.
NOT_RECORDED = {"logs", "benchmarks", NAME, "failed.json", "checked.json"}


def versions() -> dict[str, str | None]:
    """Version of every package whose numbers matter; None where it is not installed."""

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {package: version(package) for package in PACKAGES}


def resources() -> dict[str, str]:
    """Checksum of every shipped resource by its path."""
    for folder in (Path(__file__).parent / "resources", Path(__file__).resolve().parents[2] / "resources"):
        if folder.is_dir():
            return {
                path.relative_to(folder).as_posix(): io.sha256(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file() and "__pycache__" not in path.parts
            }
    return {}


def describe(config: Config) -> dict[str, Any]:
    """Versions, configuration, seed, checksums of shipped resources, name of the sheet; no date, no platform."""
    return {
        "nicheloop": __version__,
        "python": ".".join(str(v) for v in sys.version_info[:3]),
        "packages": versions(),
        "seed": config.seed,
        "sample_sheet": Path(config.samples).name,
        "config": config.model_dump(mode="json"),
        "resources_sha256": resources(),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository that holds `folder`, and whether files differ from it; None outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    try:
        if not (Path(git("rev-parse", "--show-toplevel")) / "Snakefile").is_file():
            return None  # the repository of somebody else, in which nicheloop is installed
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def recorded_files(results: Path) -> list[str]:
    """Paths of all results below a results folder, sorted; logs, timings and hidden files are none."""
    found = []
    for path in results.rglob("*"):
        parts = path.relative_to(results).parts
        if path.is_file() and parts[0] not in NOT_RECORDED and not any(p.startswith(".") for p in parts):
            found.append("/".join(parts))
    return sorted(found)


def checksums(files: Sequence[str]) -> list[dict[str, Any]]:
    """Path, size and checksum of each file."""
    return [{"path": str(p), "bytes": Path(p).stat().st_size, "sha256": io.sha256(p)} for p in files]


def input_files(config: Config, results: Path) -> dict[str, list[dict[str, Any]]]:
    """Files each sample is read from, with size and checksum; the demo has none, its files are results.

    Files of a public data set stand in the cache; their receipts below ``downloads`` say what was fetched.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in workflow.prepare(config.model_dump())[1]:
        if row.get("source"):
            names = [results / "downloads" / d / f"{name}.json" for d, name in datasets.downloads([row])]
            receipts = [io.read_json(p) for p in names if p.is_file()]
            found[row["sample"]] = [{"path": r["path"], "bytes": r["size"], "sha256": r["sha256"]} for r in receipts]
        elif config.samples != "demo":
            found[row["sample"]] = checksums([f for f in sheet.input_files(row["path"]) if Path(f).is_file()])
    return found


def run_provenance(results: str | Path, out: str | Path, *, config: Config, command: str | None) -> None:
    """Write ``provenance.json``.

    Parameters
    ----------
    results
        Results folder; every file in it gets a checksum.
    command
        Command line of the run, where it is known.
    """
    results = Path(results)
    record = describe(config) | {
        "git": git_state(Path(__file__).parent),
        "command": command,
        "inputs": dict(sorted(input_files(config, results).items())),
        "outputs_sha256": {name: io.sha256(results / name) for name in recorded_files(results)},
    }
    io.write_json(out, record)
