"""One table from the sender and receiver names of the axes to cells.

Populations may overlap: csc_high lies in malignant, icaf in caf.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nicheloop.contracts import MAJOR_TYPES

if TYPE_CHECKING:
    import pandas as pd

Mask = NDArray[np.bool_]

# name -> pattern that the minor type must match in full (case is ignored)
MINOR = {
    "icaf": r"icaf.*",
    "mycaf": r"mycaf.*",
    "endo_venous": r"endo_venous.*",
    "t_cd4": r"t_cd4.*|treg.*|tfh.*",  # regulatory and follicular helper cells are CD4+ T cells
    "t_cd8": r"t_cd8.*",
    "treg": r"treg.*",
    "tfh": r"tfh.*",
    "nk": r"nk",
}
# name -> the same for myeloid cells that the macrophage stage did not class
MYELOID = {
    "macrophage": r"macrophage.*|lam\d?(_.*)?|mac_.*",
    "monocyte": r"monocyte.*",
    "dendritic": r"[cp]dc\d?.*|dc_.*|dendritic.*",
    "neutrophil": r"neutrophil.*",
}
NAMES = tuple(
    dict.fromkeys(
        [
            "malignant",
            "csc_high",
            *[m for m in MAJOR_TYPES if m not in ("platelet", "unresolved")],
            *MYELOID,
            *MINOR,
            "platelet",
        ]
    )
)


def members(name: str, cells: pd.DataFrame) -> Mask:
    """Say which cells of one sample belong to a named population.

    Parameters
    ----------
    name
        One of `NAMES`.
    cells
        One sample's cells with the columns cell_type, cell_type_minor, malignancy, csc_state, myeloid_class and
        platelet; NA is "not that".

    Returns
    -------
    (cells,) bool.  Platelet-contaminated barcodes belong to ``platelet`` and to nothing else.

    Raises
    ------
    KeyError
        If the name is none of the vocabulary's: an axis must never lose a sender silently.
    """
    return masks([name], cells)[:, 0]


def masks(names: Iterable[str], cells: pd.DataFrame) -> Mask:
    """(cells, names) `members` of several populations."""
    values: dict[str, NDArray[np.object_]] = {}

    def text(column: str) -> NDArray[np.object_]:
        if column not in values:
            values[column] = cells[column].astype(object).where(cells[column].notna(), "").to_numpy(dtype=object)
        return values[column]

    def minor(pattern: str) -> Mask:
        found, inverse = minors
        hit = np.array([re.fullmatch(pattern, v, re.IGNORECASE) is not None for v in found], dtype=bool)
        return hit[inverse] if len(found) else np.zeros(len(cells), dtype=bool)

    def mask(name: str) -> Mask:
        if name not in NAMES:
            raise KeyError(f"population '{name}' is not in the vocabulary: {', '.join(NAMES)}")
        if name == "platelet":
            return platelet
        if name in ("malignant", "csc_high"):
            out = text("malignancy") == "malignant"
            if name == "csc_high":
                out = out & (text("csc_state") == "m_csc")
        elif name in MYELOID:
            called = text("myeloid_class")
            open_call = np.isin(called, ["", "not_assessable"]) & (text("cell_type") == "myeloid")
            out = (called == name) | (open_call & minor(MYELOID[name]))
        elif name in MINOR:
            out = minor(MINOR[name])
        else:
            out = text("cell_type") == name
        if name not in ("malignant", "csc_high", "epithelial"):
            out = out & (text("malignancy") != "malignant")  # assumed malignant cells may look like stroma
        return np.asarray(out & ~platelet, dtype=bool)

    minors = np.unique(text("cell_type_minor").astype(str), return_inverse=True)
    flagged = cells["platelet"].astype("boolean").fillna(False).to_numpy(dtype=bool)
    platelet = flagged | (text("cell_type") == "platelet")
    return np.column_stack([mask(name) for name in names])
