"""The screen is planned where a resource is configured, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("workflow")]


def test_a_resource_brings_one_screen_per_sample(repository, tmp_path: Path):
    assert "screen" not in repository.planned()
    resource = tmp_path / "pairs.tsv"
    resource.write_text("ligand\treceptor\nIL6\tIL6R_IL6ST\n")
    jobs = repository.planned("--config", f'screen={{"resource": "{resource}"}}')
    assert jobs["screen"] == 8 and jobs["status"] == 1


def test_a_resource_that_is_not_there_stops_the_run_before_it_starts(repository, tmp_path: Path):
    gone = tmp_path / "gone.tsv"
    done = repository.snakemake("--dry-run", "--config", f'screen={{"resource": "{gone}"}}', check=False)
    assert done.returncode != 0 and "gone.tsv" in done.stdout + done.stderr
