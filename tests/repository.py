"""A copy of the repository in which snakemake runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "config.yaml", "environment.yml", "workflow", "src", "resources", "profiles")


@dataclass
class Repository:
    """Where it lies, and the interpreter that runs it."""

    folder: Path
    python: str = sys.executable

    def snakemake(
        self, *arguments: str, check: bool = True, cores: int = 2, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", **variables}
        command = [self.python, "-m", "snakemake", "--cores", str(cores), *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, text=True, capture_output=True, check=False)
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
        return done

    def planned(self, *arguments: str) -> dict[str, int]:
        """Jobs a dry run would start: rule name to count."""
        text = self.snakemake("--dry-run", "--quiet", "rules", *arguments)
        return {
            rule: int(n)
            for rule, n in re.findall(r"^([a-z_]+)\s+(\d+)\s*$", text.stdout + text.stderr, flags=re.MULTILINE)
            if rule != "total"
        }


def copy_repository(folder: Path) -> Repository:
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    return Repository(folder)
