"""Command line: every command explains itself, fits the function it calls, and answers bad input in words."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from nicheloop import cli, launch


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "nicheloop", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("stage", cli.STAGES, ids=lambda s: s.name)
def test_a_stage_calls_its_function_with_exactly_its_arguments(stage: cli.Stage):
    module, function = stage.function.split(".")
    signature = inspect.signature(getattr(importlib.import_module(f"nicheloop.{module}"), function))
    given = {
        *stage.files,
        *(stage.lists or {}),
        *stage.outputs,
        *(stage.sections or {}),
        *(["seed"] if stage.seed else []),
    }
    required = {n for n, p in signature.parameters.items() if p.default is inspect.Parameter.empty}
    assert required <= given <= set(signature.parameters)


def test_help_of_every_command_reads():
    parser = cli.parser()
    names = ["run", "simulate", "ingest", "status", "report", "config", "outputs", *[s.name for s in cli.STAGES]]
    for name in names:
        with pytest.raises(SystemExit) as done:
            parser.parse_args([name, "--help"])
        assert done.value.code == 0


def test_help_needs_no_heavy_import():
    code = (
        "import sys; from nicheloop import cli; cli.parser().format_help(); print([m for m in sys.modules if m in %r])"
    )
    heavy = ["scanpy", "anndata", "pandas", "numpy", "scipy", "pydantic", "matplotlib"]
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.h5", "--out", "{out}"], "nowhere.h5: no such file"),
        (["qc", "--counts", "nowhere.h5ad", "--out", "{out}/q.parquet"], "nowhere.h5ad"),
        (["qc", "--counts", "x", "--out", "y", "--config", '{"qc": {"n_mad": 1}}'], "Did you mean 'n_mads'"),
        (["run", "demo", "--out", "{out}", "--config", "nowhere.yaml"], "nowhere.yaml: no such configuration file"),
    ],
)
def test_bad_input_is_a_message_and_exit_code_2(arguments: list[str], words: str, tmp_path: Path):
    done = run(*[a.replace("{out}", str(tmp_path)) if "{out}" in a else a for a in arguments])
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_paths_become_a_sheet_and_sheets_are_taken_as_they_are(tmp_path: Path):
    (tmp_path / "a.h5").write_text("")
    assert launch.sheet_for(["demo"], tmp_path) == "demo"
    written = Path(launch.sheet_for([str(tmp_path / "a.h5")], tmp_path / "out"))
    assert written.read_text() == f"sample\tpath\na\t{(tmp_path / 'a.h5').resolve()}\n"
    assert launch.sheet_for([str(written)], tmp_path / "out") == str(written)
