"""``nicheloop run``: from paths to a finished report, through the same Snakemake workflow as everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nicheloop import io, sheet
from nicheloop.config import read_config
from nicheloop.errors import UserError

PACKAGE = Path(__file__).parent
SHEET_ENDINGS = (".tsv", ".csv", ".txt")


def workflow_folder() -> Path:
    """Folder holding the Snakefile: inside the installed package, or the repository root."""
    for folder in (PACKAGE / "pipeline", PACKAGE.parents[1]):
        if (folder / "Snakefile").is_file():
            return folder
    raise UserError("the workflow (Snakefile) was not found beside the package; reinstall nicheloop.")


def is_sheet(path: Path) -> bool:
    """Whether a file is a sample sheet: a text table whose header names 'sample' and 'path'."""
    if not path.is_file() or path.suffix.lower() not in SHEET_ENDINGS:
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as handle:
        header = handle.readline().replace(",", "\t").replace(";", "\t").split("\t")
    return {"sample", "path"} <= {h.strip() for h in header}


def sheet_for(paths: Sequence[str], out: Path) -> str:
    """Value of ``samples`` for these paths; writes ``samples.tsv`` into `out` where the paths are data."""
    if list(paths) == ["demo"]:
        return "demo"
    if len(paths) == 1 and is_sheet(Path(paths[0])):
        sheet.read_sheet(paths[0])
        return str(Path(paths[0]).resolve())
    rows = sheet.sheet_from_paths(paths)
    text = "sample\tpath\n" + "".join(f"{r['sample']}\t{r['path']}\n" for r in rows)
    io.write_text(out / "samples.tsv", text)
    return str(out / "samples.tsv")


def run(
    paths: Sequence[str], out: Path, *, cores: int, config: str | None, dry_run: bool, snakemake: Sequence[str] = ()
) -> int:
    """Write the sheet and run the workflow; returns Snakemake's exit code.

    Raises
    ------
    UserError
        For a missing path or a wrong configuration, before anything starts.
    """
    out = out.expanduser().resolve()
    folder = workflow_folder()
    configfile = Path(config).resolve() if config else folder / "config.yaml"
    read_config(configfile)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise UserError(f"{out}: cannot be created ({err.strerror}). Choose another --out.") from None
    samples = sheet_for(paths, out)
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(folder / "Snakefile"), "--directory", str(out),
        "--configfile", str(configfile), "--cores", str(cores), "--rerun-incomplete", "--show-failed-logs",
        *(["--dry-run", "--quiet", "rules"] if dry_run else ["--quiet", "rules", "host"]), *snakemake,
        "--config", f"samples={samples}", f"results={out}",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])}
    code = subprocess.run(command, env=environment, check=False).returncode
    if code == 0 and not dry_run:
        print(f"\nThe report is ready: {out / 'report.html'}")
    return code
