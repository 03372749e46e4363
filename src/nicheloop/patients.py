"""Which sample speaks for a patient: the patient is the unit of every test, samples are never pooled."""

from __future__ import annotations

import re
from typing import Any

_NORMAL = re.compile(r"\bnormal|\bhealthy|mammoplast", re.IGNORECASE)
_SPREAD = re.compile(r"metasta|lymph|\bnode\b|\bnodal\b|\bLN\b|ascites|effusion|recurren|relapse", re.IGNORECASE)


def patient_of(record: dict[str, Any]) -> str:
    """Patient of a sample; a sample without one stands for itself."""
    return str(record.get("patient") or record["sample"])


def tissue_rank(tissue: str | None) -> int:
    """0 for a primary tumour (or tissue not given), 1 for a metastasis or lymph node, 2 for normal tissue."""
    text = (tissue or "").replace("_", " ")
    if _NORMAL.search(text):
        return 2
    return 1 if _SPREAD.search(text) else 0


def is_normal(record: dict[str, Any]) -> bool:
    """Whether the sheet says normal tissue; unknown tissue counts as tumour."""
    return tissue_rank(record.get("tissue")) == 2


def primary_samples(records: list[dict[str, Any]], n_assessable: dict[str, int]) -> dict[str, str]:
    """Choose one sample per patient: primary tumour first, then the most assessable cells, ties by sample name.

    Parameters
    ----------
    records
        One dict per sample with ``sample``, ``patient`` and ``tissue`` (each may be None but ``sample``).
    n_assessable
        Cells of each sample that the analysis could use; a sample left out has none.

    Returns
    -------
    patient -> sample.  Normal tissue speaks only for a patient without a tumour sample.
    """
    best: dict[str, tuple[int, int, str]] = {}
    for record in records:
        sample, patient = str(record["sample"]), patient_of(record)
        key = (tissue_rank(record.get("tissue")), -int(n_assessable.get(sample, 0)), sample)
        if patient not in best or key < best[patient]:
            best[patient] = key
    return {patient: key[2] for patient, key in best.items()}
