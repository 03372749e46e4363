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
