"""nicheloop: cancer stem cells, macrophages and their cytokine loop in breast-tumour single-cell RNA-seq.

Each stage is a module named like it (``nicheloop.csc``, ``nicheloop.tam`` ...); modules are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

ROOMS = (
    "ambient", "annotate", "assemble", "axes", "config", "crosstalk", "csc", "csc_patients", "csc_rates", "detection",
    "embed", "enrich", "genes", "ingest", "io", "ligand_receptor", "loop", "loop_cohort", "malignancy", "moments", "qc",
    "report", "score", "scoring", "simulate", "stats", "tables", "tam",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ROOMS:
        return importlib.import_module(f"nicheloop.{name}")
    raise AttributeError(f"module 'nicheloop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *ROOMS])
