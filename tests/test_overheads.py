"""What every job pays before its first work: which packages a stage imports, and how many threads it may use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nicheloop import cli, workflow
from nicheloop.config import load_config

ROOT = Path(__file__).resolve().parents[1]
# each of these costs a second or more; none is needed to start a stage
HEAVY = {"scanpy", "anndata", "pandera", "umap", "pynndescent", "numba", "matplotlib", "sklearn", "snakemake", "gseapy"}


def imported(code: str) -> set[str]:
    """Top-level packages a fresh interpreter holds after `code`."""
    show = "import sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    out = subprocess.run([sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True)
    return set(json.loads(out.stdout.splitlines()[-1]))


def test_no_stage_module_imports_what_is_heavy():
    modules = sorted({stage.function.split(".")[0] for stage in cli.STAGES} | {"ingest", "status", "provenance"})
    code = "; ".join(["import nicheloop.cli, nicheloop.config", *(f"import nicheloop.{m}" for m in modules)])
    assert imported(code) & HEAVY == set()


@pytest.mark.parametrize("name", ["qc", "composition"])
def test_writing_a_table_imports_nothing_heavy(name: str, tmp_path: Path):
    code = f"from nicheloop import io, tables; io.write_table(tables.empty({name!r}), {str(tmp_path / 't.parquet')!r}, {name!r})"
    assert imported(code) & HEAVY == set()


def test_help_imports_no_table_library():
    code = "import nicheloop.cli as c; c.parser()"
    assert imported(code) & (HEAVY | {"pandas", "scipy", "pyarrow", "pydantic"}) == set()


def test_a_rule_is_given_the_sections_or_single_options_it_reads():
    config = load_config({"annotate": {"n_neighbors": 7}})
    given = json.loads(workflow.stage_config(config, "tam", "annotate.n_neighbors", "annotate.source"))
    assert given == {"tam": config.tam.model_dump(), "annotate": {"n_neighbors": 7, "source": config.annotate.source}}
    assert load_config(given).annotate == config.annotate


def test_jobs_are_bound_to_one_blas_and_numba_thread():
    set_ = workflow.job_environment("results")
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        assert set_[variable] == "1"


def test_a_library_is_loaded_without_what_it_can_do_without():
    code = (
        "import sys\n"
        "from nicheloop import lean\n"
        "with lean.without('json.tool', 'wave'):\n"
        "    try:\n"
        "        import wave\n"
        "    except ImportError:\n"
        "        print('hidden')\n"
        "import wave\n"
        "with lean.without('wave'):\n"
        "    import wave as again\n"
        "print(again is wave, 'json.tool' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["hidden", "True", "False"]
