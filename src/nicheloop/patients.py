"""Which sample speaks for a patient: the patient is the unit of every test, samples are never pooled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# canonical word -> other words a sheet may use for it; anything else is refused when the sheet is read
TISSUES: dict[str, tuple[str, ...]] = {
    "tumour": ("tumor", "primary", "primary tumour", "primary tumor"),
    "normal": ("normal breast", "healthy"),
    "lymph_node": ("lymph node",),
    "metastasis": (),
}
_RANK = {"tumour": 0, "lymph_node": 1, "metastasis": 1, "normal": 2}
_CANONICAL = {word.replace("_", " "): name for name, others in TISSUES.items() for word in (name, *others)}


def patient_of(record: dict[str, Any]) -> str:
    """Patient of a sample; a sample without one stands for itself."""
    return str(record.get("patient") or record["sample"])


def canonical_tissue(tissue: str | None) -> str | None:
    """One of `TISSUES`, or None where the tissue is not given.

    Raises
    ------
    ValueError
        If the word is none of the vocabulary's: a guess would turn a metastasis into a primary tumour.
    """
    words = " ".join((tissue or "").replace("_", " ").lower().split())
    if not words:
        return None
    if words not in _CANONICAL:
        raise ValueError(f"tissue {tissue!r} is not known; leave it empty or use one of {allowed_tissues()}")
    return _CANONICAL[words]


def allowed_tissues() -> str:
    """The vocabulary in words."""
    return ", ".join(f"{name} (also {', '.join(also)})" if also else name for name, also in TISSUES.items())


def tissue_rank(tissue: str | None) -> int:
    """0 for a primary tumour, as which unknown tissue counts; 1 for a lymph node or metastasis, 2 for normal tissue."""
    word = canonical_tissue(tissue)
    return 0 if word is None else _RANK[word]


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


def assessable_cells(scores: Sequence[str | Path]) -> dict[str, int]:
    """Sample -> cells by which its patient's sample is chosen: malignant ones first, all scored cells to break ties.

    One rule for every cohort table, so that no two of them speak of different samples of a patient.

    Parameters
    ----------
    scores
        ``scores.parquet`` of every sample; an empty one counts no cell.
    """
    from nicheloop import io

    out = {}
    for path in scores:
        cells = io.read_table(path, columns=["cell_id", "compartment"])
        # the name is in the status; a table without one names its sample in every cell
        sample = io.read_status(path).sample or str(next(iter(cells["cell_id"]), "")).rsplit(":", 1)[0]
        # lexicographic: no sample has ten million cells
        out[sample] = int((cells["compartment"] == "malignant").sum()) * 10_000_000 + len(cells)
    return out


def with_subtypes(records: Sequence[dict[str, Any]], receptors: str | Path | None) -> list[dict[str, Any]]:
    """Records with ``subtype_source``, and with the inferred subtype where the sheet has none.

    Parameters
    ----------
    records
        Ingest records.
    receptors
        ``cohort/receptor_status.tsv``; None: only the sheet speaks.

    Returns
    -------
    New records.  ``subtype_source`` is ``sheet``, ``inferred``, or None where the subtype is unknown.  Normal tissue is
    never given the subtype of its patient's tumour.
    """
    from nicheloop import io

    inferred: dict[str, str] = {}
    if receptors is not None:
        table = io.read_table(receptors)
        mine = table[table["subtype_source"] == "inferred"]
        inferred = dict(zip(mine["patient"].astype(str), mine["subtype_used"].astype(str), strict=True))
    out = []
    for record in records:
        patient = patient_of(record)
        more: dict[str, str | None]
        if record.get("subtype"):
            more = {"subtype_source": "sheet"}
        elif patient in inferred and not is_normal(record):
            more = {"subtype": inferred[patient], "subtype_source": "inferred"}
        else:
            more = {"subtype_source": None}
        out.append(record | more)
    return out
