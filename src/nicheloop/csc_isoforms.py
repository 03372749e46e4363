"""ALDH isoforms in malignant cells, one by one: their sum would be that of housekeeping enzymes.  See docs/csc.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop.her2_pten import beyond_ambient

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_states import Csc

# Marcato 2011 (doi 10.1002/stem.563): ALDH1A3 tracks ALDEFLUOR; the others are shown beside it and never added up
ROLES = {
    "ALDH1A3": "primary", "ALDH1A1": "secondary",
    **dict.fromkeys(("ALDH2", "ALDH1A2", "ALDH3A1", "ALDH4A1", "ALDH6A1", "ALDH7A1"), "exploratory"),
}  # fmt: skip


def isoform_rows(
    scores: pd.DataFrame, ambient: Mapping[str, float], *, is_counts: bool, options: Csc
) -> list[dict[str, Any]]:
    """Rows of the ``csc_isoforms`` contract of one sample, without who it is.

    Parameters
    ----------
    scores
        Score table: compartment, n_counts, umi_<isoform>.
    ambient
        gene -> ambient rate, counts per 10,000; NaN or left out: not estimated.
    is_counts
        Whether the matrix holds counts.

    Returns
    -------
    One row per isoform.  Figures are NaN where the status says why: ``no_counts``, ``gene_absent_from_reference``,
    ``too_few_malignant``; else ``not_detected``, ``ambient_not_estimated``, ``ambient_not_exceeded`` or
    ``beyond_ambient``.
    """
    cells, nan = scores[scores["compartment"] == "malignant"], float("nan")
    rows = []
    for gene, role in ROLES.items():
        found = beyond_ambient(cells, gene, float(ambient.get(gene, nan)))
        column = f"umi_{gene}"
        absent = len(scores) > 0 and (column not in scores or not np.isfinite(scores[column].astype(float)).any())
        if not is_counts:
            status = "no_counts"
        elif absent:
            status = "gene_absent_from_reference"
        elif len(cells) < options.min_malignant:
            status = "too_few_malignant"
        elif found["umi"] == 0:
            status = "not_detected"
        elif not np.isfinite(found["p"]):
            status = "ambient_not_estimated"
        else:
            status = "beyond_ambient" if found["p"] < options.alpha else "ambient_not_exceeded"
        if status in ("no_counts", "gene_absent_from_reference", "too_few_malignant"):
            found = dict.fromkeys(found, nan)
        rows.append({"isoform": gene, "role": role, "status": status, "n_malignant": len(cells), **found})
    return rows
