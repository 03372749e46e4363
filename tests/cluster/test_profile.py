"""What can be said of the SLURM profile, conda and the container without running any of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from collections import Counter
from pathlib import Path

import numpy
import pytest
import yaml

import small_run
from repository import ROOT, Repository, copy_repository

RULES = {
    name: text
    for path in sorted((ROOT / "workflow/rules").glob("*.smk"))
    for name, text in re.findall(
        r"^(?:    )?rule (\w+):\n(.*?)(?=^(?:    )?rule |\Z)", path.read_text(), re.MULTILINE | re.DOTALL
    )
}
PROFILE = ROOT / "profiles/slurm/profile.yaml"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return copy_repository(tmp_path_factory.mktemp("profile") / "nicheloop")


def test_every_line_of_the_profiles_says_what_it_is_for():
    for path in (PROFILE, ROOT / "profiles/default/profile.yaml"):
        for line in path.read_text().splitlines():
            assert "#" in line, f"{path.parent.name}: {line}"
    values = yaml.safe_load(PROFILE.read_text())
    assert values["keep-going"] and values["rerun-incomplete"] and values["retries"] >= 1
    default = yaml.safe_load((ROOT / "profiles/default/profile.yaml").read_text())
    assert values["rerun-triggers"] == default["rerun-triggers"]


GROUPS = yaml.safe_load(PROFILE.read_text())["groups"]
ALONE = {"cnv_reference", "csc_rates"}  # between two steps of the cohort
NOT_ALWAYS = {"simulate", "download", "facts", "screen"}  # demo, public data, wish


def test_the_profile_groups_every_rule_but_those_that_stand_alone():
    assert set(GROUPS) == set(RULES) - ALONE - NOT_ALWAYS
    assert set(yaml.safe_load(PROFILE.read_text())["group-components"]) <= set(GROUPS.values())


def test_local_runs_do_not_pay_for_groups():
    """Snakemake works out the groups of every job in a dry run too: minutes for 500 samples."""
    assert not [rule for rule, text in RULES.items() if re.search(r"^ +group:", text, re.MULTILINE)]


@pytest.mark.parametrize("rule", sorted(r for r, text in RULES.items() if "/samples/{sample}/" in text))
def test_the_status_waits_for_every_job_of_a_sample(rule: str):
    """Else what it says depends on which of two jobs ends first."""
    outputs = re.search(r"    output:\n(.*?)(?=^    \w+:)", RULES[rule], re.MULTILINE | re.DOTALL)
    made = set(re.findall(r"samples/\{sample\}/([\w.]+)", outputs[1] if outputs else ""))
    gathered = set(re.findall(r'per_sample\("([\w.]+)"\)', RULES["status"].partition("output:")[0]))
    assert not made or made & gathered or rule == "screen"  # optional: in SCREENS


def test_the_page_names_every_job_of_every_submission():
    page = (ROOT / "docs/hpc.md").read_text()
    told = {
        group: set(re.findall(r"\b\w+\b", jobs.split(", four")[0]))
        for group, jobs in re.findall(r"^\| `(\w+)` \| (.+?) \| \d+ \|$", page, re.MULTILINE)
    }
    held: dict[str, set[str]] = {}
    for rule, group in GROUPS.items():
        held.setdefault(group, set()).add(rule)
    assert told == held


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_declares_conda_memory_time_and_log(rule: str):
    text = RULES[rule]
    assert '"../../environment.yml"' in text
    grows = "mem_mb=memory(" in text and "runtime=minutes(" in text  # with each attempt
    assert grows or "localrule: True" in text
    assert "log:" in text


def test_a_dry_run_with_the_profile_groups_jobs_and_needs_no_slurm(repository: Repository, tmp_path: Path):
    samples = 5
    for k in range(samples):
        (tmp_path / f"{k}.h5").write_text("")
    sheet = tmp_path / "s.tsv"
    sheet.write_text("sample\tpath\n" + "".join(f"S{k}\t{k}.h5\n" for k in range(samples)))
    command = [
        sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--dry-run", "--quiet", "reason",
        "--config", f"samples={sheet}", f"results={tmp_path / 'out'}",
    ]  # fmt: skip
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("which", "bash", "sh", "env", "uname", "git"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    environment = {**small_run.environment(repository.folder), "PATH": str(tools), "SLURM_CONF": "/nowhere"}
    done = subprocess.run(command, cwd=repository.folder, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert re.search(rf"^ingest +{samples}$", said, re.MULTILINE)
    submissions = Counter(re.findall(r"Group job (\w+) ", said))
    assert submissions == {
        "read": samples, "map": 1, "ambient": 2, "malignancy": samples, "states": samples, "cohort": 1, "closing": 1,
    }  # fmt: skip


def test_the_container_is_built_from_the_lock():
    text = (ROOT / "containers/nicheloop.def").read_text()
    assert text.startswith("Bootstrap: docker\nFrom: ")
    assert "requirements.lock /opt/nicheloop/requirements.lock" in text
    assert "--require-hashes" in text
    sections = re.findall(r"^%(\w+)", text, flags=re.MULTILINE)
    assert {"files", "post", "environment", "runscript", "test"} <= set(sections)
    for source, _ in re.findall(
        r"^    (\S+) (/opt/\S+)$", text.partition("%files")[2].partition("%post")[0], re.MULTILINE
    ):
        assert (ROOT / source).exists(), source


MODULE = """\
module nicheloop:
    snakefile: "{snakefile}"
    config: {{"samples": "{sheet}", "results": "niche"}}

use rule * from nicheloop

rule mine:
    default_target: True
    input: "niche/samples/A/qc.parquet"
    output: "mine.txt"
    shell: "wc -c {{input}} > {{output}}"
"""


def test_all_rules_can_be_used_as_a_module_of_another_workflow(repository: Repository, tmp_path: Path):
    """From a clone, with an interpreter that has the dependencies but not the package."""
    made = tmp_path / "data"
    small_run.write_sheet(made)
    (tmp_path / "s.tsv").write_text(f"sample\tpath\nA\t{made / 'good'}\n")
    snakefile = tmp_path / "Snakefile"
    snakefile.write_text(MODULE.format(snakefile=repository.folder / "Snakefile", sheet=tmp_path / "s.tsv"))
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare/bin/python"
    site = next((tmp_path / "bare/lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(f"{Path(numpy.__file__).parents[1]}\n")
    command = [python, "-m", "snakemake", "--cores", "2"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "mine.txt").stat().st_size > 0
    assert (tmp_path / "niche/samples/A/qc.parquet").exists()
