"""Fixtures shared by the tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
ROOT = Path(__file__).resolve().parents[1]
# Compiled kernels are kept beside pytest's own cache: every workflow run of the suite would compile them anew.
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".pytest_cache" / "numba"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data, or skip."""
    folder = Path(os.environ.get("NICHELOOP_REAL_DATA", ROOT / "data" / "real"))
    if not folder.is_dir():
        pytest.skip(f"no real data: set NICHELOOP_REAL_DATA (looked at {folder})")
    return folder


@pytest.fixture(scope="session")
def report_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a small cohort of made-up tables, with their report."""
    from report_pages import build

    results = tmp_path_factory.mktemp("results")
    build(results, cells=80)
    return results


@pytest.fixture(scope="session")
def report_html(report_results: Path) -> str:
    """Text of that report."""
    return (report_results / "report.html").read_text(encoding="utf-8")
