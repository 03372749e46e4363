"""The demo cohort, run once for all workflow tests, in a copy of the repository."""

from __future__ import annotations

import pytest

from repository import Repository, copy_repository


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A fresh copy, nothing run yet (tests must leave it so)."""
    return copy_repository(tmp_path_factory.mktemp("fresh") / "nicheloop")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A copy in which the demo cohort has been run to the report."""
    copy = copy_repository(tmp_path_factory.mktemp("demo") / "nicheloop")
    copy.snakemake("--quiet", "rules")
    return copy
