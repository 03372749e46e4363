"""What can be checked before a job starts: dry run, lint, sheets, configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("workflow")]


def test_dry_run_shows_every_job_without_data(repository):
    jobs = repository.planned()
    per_sample = (
        "ingest",
        "qc",
        "moments",
        "evidence",
        "ambient",
        "malignancy",
        "score",
        "csc",
        "csc_nulls",
        "tam",
        "crosstalk",
        "loop",
        "pseudobulk",
    )
    assert {jobs[rule] for rule in per_sample} == {8}
    for rule in (
        "simulate",
        "hvg",
        "embed",
        "annotate",
        "csc_rates",
        "csc_cohort",
        "axes",
        "loop_cohort",
        "enrich",
        "assemble",
        "status",
        "report",
    ):
        assert jobs[rule] == 1
    assert not (repository.folder / "results").exists()


def test_lint_is_clean(repository):
    done = repository.snakemake("--lint", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Congratulations" in done.stdout + done.stderr


def test_wrong_sheet_and_config_are_named_together(repository, tmp_path: Path):
    sheet = tmp_path / "s.tsv"
    sheet.write_text("sample\tpath\nA\tgone.h5\nA\tgone.h5\n")
    done = repository.snakemake("--dry-run", "--config", f"samples={sheet}", "qc={n_mad: 3}", check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    for part in ("qc.n_mad", "gone.h5 does not exist", "stands already", "line 3"):
        assert part in text, text
    assert "Traceback" not in text


def test_user_sheet_and_results_folder(repository, tmp_path: Path):
    (tmp_path / "x.h5").write_text("")
    sheet = tmp_path / "my.tsv"
    sheet.write_text("sample\tpath\nA\tx.h5\n")
    jobs = repository.planned("--config", f"samples={sheet}", f"results={tmp_path / 'out dir'}")
    assert jobs["ingest"] == 1
    assert "simulate" not in jobs


def test_one_more_sample_leaves_the_others_alone(repository, tmp_path: Path):
    """A sheet is no input of a rule: each sample depends on its own row."""
    for rule_file in (repository.folder / "workflow/rules").glob("*.smk"):
        assert not re.search(r"input:[^#]*SETTINGS\.samples", rule_file.read_text()), rule_file.name


def test_commands_of_large_cohorts_fit_into_a_shell(repository, tmp_path: Path):
    """Linux allows one argument, and so the command of a shell, 128 kB; 300 samples are more than that in full."""
    results = tmp_path / "a_folder_of_results_with_a_name_of_usual_length"
    sheet = tmp_path / "s.tsv"
    rows = [f"tumour_{i:04d}\t{tmp_path}/tumour_{i:04d}.h5" for i in range(300)]
    for row in rows:
        Path(row.split("\t")[1]).touch()
    sheet.write_text("\n".join(["sample\tpath", *rows]) + "\n")
    planned = repository.snakemake(
        "--dry-run", "--printshellcmds", "--until", "csc_cohort", "--config", f"samples={sheet}", f"results={results}"
    ).stdout
    commands = [line for line in planned.splitlines() if "python -m nicheloop" in line]
    longest = max(commands, key=len)
    assert len(commands) > 300 * 8 and "nicheloop csc-cohort" in longest and len(longest) < 131_072 / 2
    assert 300 * 7 * len(f"{results}/samples/tumour_0000/csc.parquet") > 131_072


def test_every_rule_carries_the_digest_of_its_code(repository):
    for rule_file in (repository.folder / "workflow/rules").glob("*.smk"):
        rules = re.split(r"^rule ", rule_file.read_text(), flags=re.MULTILINE)[1:]
        for rule in rules:
            assert "code_digest(" in rule, rule.split(":")[0]


def test_a_changed_option_is_no_changed_code():
    """Values of options reach a rule as its own parameter; the modules that declare them must not re-run everything."""
    from nicheloop import cli, workflow

    for stage in {s.function.split(".")[0] for s in cli.STAGES} | {"ingest", "report"}:
        assert not [m for m in workflow.modules_of(stage) if m.startswith("config")], stage
