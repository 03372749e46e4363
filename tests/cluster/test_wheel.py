"""The built wheel in a clean environment, from another folder: it carries the workflow and its resources.

The dependencies are those of the present environment, lent by path; nothing is fetched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy
import pytest

import small_run
from nicheloop import io
from repository import ROOT

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("faults")]


def test_the_wheel_runs_from_another_folder(tmp_path: Path):
    pytest.importorskip("hatchling")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def call(*command: object, code: int = 0) -> str:
        done = subprocess.run(
            [str(c) for c in command], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, env=environment, check=True, capture_output=True)
    wheel = next((tmp_path / "dist").glob("nicheloop-*.whl"))
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean/bin/python"
    site = next((tmp_path / "clean/lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(f"{Path(numpy.__file__).parents[1]}\n")
    call(python, "-c", "import nicheloop.io", code=1)
    call(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel)
    where = call(python, "-c", "import nicheloop; print(nicheloop.__file__)")
    assert where.startswith(str(site))
    sheet = small_run.write_sheet(tmp_path / "data")
    command = tmp_path / "clean/bin/nicheloop"
    out = tmp_path / "out"
    assert "ingest" in call(command, "run", sheet, "--out", out, "--dry-run")
    call(command, "run", sheet, "--out", out, "--snakemake", "--until", "qc")
    assert len(io.read_table(out / "samples/good/qc.parquet")) == 200
    assert io.read_status(out / "samples/bad/qc.parquet").status == "unreadable"
