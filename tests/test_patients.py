"""Which sample speaks for a patient."""

from __future__ import annotations

import itertools

import pytest

from nicheloop import patients


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
