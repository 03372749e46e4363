"""Which sample speaks for a patient."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from helpers import record_of
from nicheloop import io, patients


def record(sample: str, patient: str | None = "P", tissue: str | None = None) -> dict[str, str | None]:
    return {"sample": sample, "patient": patient, "tissue": tissue}


@pytest.mark.parametrize(
    ("tissue", "rank"),
    [
        (None, 0), ("", 0), ("tumour", 0), ("Tumor", 0), ("primary", 0), ("Primary  tumour", 0), ("primary_tumor", 0),
        ("Lymph node", 1), ("lymph_node", 1), ("METASTASIS", 1), ("Normal", 2), ("normal breast", 2), ("healthy", 2),
    ],
)  # fmt: skip
def test_rank_of_a_tissue(tissue: str | None, rank: int) -> None:
    assert patients.tissue_rank(tissue) == rank


@pytest.mark.parametrize(
    "tissue",
    ["no evidence of metastasis", "primary, node-negative", "adjacent normal", "brain", "LN", "non-metastatic"],
)
def test_a_word_that_would_have_to_be_guessed_is_refused(tissue: str) -> None:
    with pytest.raises(ValueError, match="lymph_node"):
        patients.tissue_rank(tissue)


def test_canonical_words_are_their_own_canonical_word() -> None:
    for word, others in patients.TISSUES.items():
        assert {patients.canonical_tissue(w) for w in (word, *others)} == {word}
    assert patients.canonical_tissue(None) is None


def test_most_assessable_cells_then_name() -> None:
    records = [record("b"), record("c"), record("a")]
    assert patients.primary_samples(records, {"a": 5, "b": 9, "c": 1}) == {"P": "b"}
    assert patients.primary_samples(records, {"a": 5, "b": 5, "c": 1}) == {"P": "a"}
    assert patients.primary_samples(records, {}) == {"P": "a"}


def test_normal_tissue_never_speaks_for_a_tumour_and_the_primary_comes_before_a_node() -> None:
    records = [record("n", tissue="normal"), record("l", tissue="lymph node"), record("t", tissue="primary")]
    cells = {"n": 900, "l": 500, "t": 1}
    assert patients.primary_samples(records, cells) == {"P": "t"}
    assert patients.primary_samples(records[:2], cells) == {"P": "l"}
    assert patients.primary_samples(records[:1], cells) == {"P": "n"}


def test_the_order_of_samples_does_not_matter_and_every_patient_has_one() -> None:
    records = [record("a", "P"), record("b", "P"), record("c", "Q"), record("d", None)]
    expected = {"P": "b", "Q": "c", "d": "d"}
    for order in itertools.permutations(records):
        assert patients.primary_samples(list(order), {"b": 2, "a": 1}) == expected


def test_no_samples() -> None:
    assert patients.primary_samples([], {}) == {}


def scored(folder, sample: str, malignant: int, others: int, status: bool = True):
    """``scores.parquet`` with so many malignant and other cells, and the sample's record beside it."""
    folder.mkdir(parents=True)
    n = malignant + others
    table = pd.DataFrame({
        "cell_id": [f"{sample}:c{i}" for i in range(n)], "compartment": ["malignant"] * malignant + ["caf"] * others,
        "n_counts": np.full(n, 5000.0), "foreign_share": np.nan,
    })  # fmt: skip
    known = io.Status("score", sample) if status else None
    io.write_table(table, folder / "scores.parquet", "scores", *([known] if known else []))
    (folder / "ingest.json").write_text(json.dumps(record_of(sample, n, 10, patient="P")))
    return folder / "scores.parquet"


def test_cells_by_which_a_sample_is_chosen(tmp_path) -> None:
    paths = [scored(tmp_path / "a", "a", 5, 900), scored(tmp_path / "b", "b", 6, 1), scored(tmp_path / "c", "c", 6, 2, False),
             scored(tmp_path / "d", "d", 0, 0)]  # fmt: skip
    cells = patients.assessable_cells(paths)
    assert sorted(cells, key=lambda s: cells[s]) == ["d", "a", "b", "c"]  # malignant cells first, then all cells
    assert patients.primary_samples([record(s) for s in "abcd"], cells) == {"P": "c"}
