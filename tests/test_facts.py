"""What papers state, against what was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers import record_of
from nicheloop import datasets, facts, io
from nicheloop.datasets import Fact

WU = datasets.shipped()["GSE176078"]


def records(**changes: Any) -> list[dict[str, Any]]:
    """Records of GSE176078 as the paper has them; `changes` by sample (``-`` written as ``_``)."""
    guards = dict.fromkeys(
        ("CD24", "CD44", "ALDH1A1", "ALDH1A3", "PPBP", "CXCL8", "IL6", "IL6R", "IL6ST", "CXCR1", "CXCR2"), "present"
    )
    found = []
    for i, s in enumerate(WU.samples):
        labels = dict(next(f for f in WU.facts if f.check == "labels").value) if i == 0 else {}  # type: ignore[call-overload]
        values: dict[str, Any] = {
            "subtype": s.subtype, "treatment": s.treatment, "dataset": "GSE176078", "guards": dict(guards),
            "annotation_counts": labels,
        }  # fmt: skip
        found.append({**record_of(s.sample, s.cells or 0, 10, **values), **changes.get(s.sample, {})})
    return found


def results(rows: list[dict[str, Any]]) -> dict[str, str]:
    table = facts.facts_table(rows, datasets.shipped())
    return dict(zip(table["fact"], table["result"], strict=True))


def test_the_paper_agrees_with_itself() -> None:
    assert set(results(records()).values()) == {"pass"}


@pytest.mark.parametrize(
    ("change", "differ"),
    [
        ({"CID3586": {"n_cells": 6177}}, {"W1b", "W2", "W3"}),
        ({"CID3586": {"patient": "CID3838"}}, {"W1"}),
        ({"CID3586": {"subtype": "TNBC"}}, {"W3"}),
        ({"CID3586": {"treatment": "treated"}}, {"W8"}),
        ({"CID3586": {"guards": {"CD24": "absent from reference"}}}, {"W9"}),
        ({"CID3586": {"is_counts": False}}, {"W10"}),
        ({"CID3586": {"annotation_counts": {"Neutrophils": 3}}}, {"W4", "W5"}),
    ],
)
def test_each_difference_is_seen_where_it_is_and_nowhere_else(change: dict[str, Any], differ: set[str]) -> None:
    found = results(records(**change))
    assert {k for k, v in found.items() if v == "differ"} == differ
    assert "not_checked" not in found.values()


def test_a_part_of_the_samples_does_not_contradict_the_whole() -> None:
    found = results(records()[:3])
    assert found["W1"] == found["W1b"] == found["W4"] == "not_checked"
    assert found["W2"] == found["W9"] == found["W10"] == "pass"
    unread = records(CID3586={"status": "unreadable", "n_cells": 0})
    assert results(unread)["W1b"] == "not_checked"
    assert results(unread)["W2"] == "pass"
    assert set(results([{**r, "status": "unreadable"} for r in records()]).values()) == {"not_checked"}


@pytest.mark.parametrize(
    ("check", "value", "record", "agree"),
    [
        ("cells_at_least", 5, {"n_cells": 5}, True),
        ("cells_at_least", 5, {"n_cells": 4}, False),
        ("features", 7, {"n_features": 7}, True),
        ("features", 7, {"n_features": 8}, False),
        ("samples", 1, {}, True),
        ("absent", ["CD24"], {"guards": {"CD24": "absent from reference"}}, True),
        ("absent", ["CD24"], {"guards": {"CD24": "present"}}, False),
        ("absent", ["CD24"], {"guards": {}}, False),
        ("annotated", True, {"annotation_counts": {"T": 1}}, True),
        ("annotated", True, {"annotation_missing": True}, False),
        ("is_counts", False, {"is_counts": False}, True),
        ("is_counts", False, {}, False),
    ],
)
def test_checks(check: str, value: Any, record: dict[str, Any], agree: bool) -> None:
    fact = Fact(id="F", claim="c", check=check, value=value, severity="soft", source="s")  # type: ignore[arg-type]
    assert facts.measure(fact, WU, [{**record_of("CID3586", 4, 7), **record}])[2] is agree


def test_the_table_keeps_its_contract_and_reads_as_lines(tmp_path: Path) -> None:
    paths = []
    for record in [
        *records(CID3586={"n_cells": 1}),
        record_of("mine", 3, 3),
        record_of("x", 1, 1, dataset="elsewhere"),
    ]:
        paths.append(tmp_path / f"{record['sample']}.json")
        io.write_json(paths[-1], record)
    facts.run_facts(paths, tmp_path / "facts.tsv")
    table = io.read_table(tmp_path / "facts.tsv")
    assert set(table["dataset"]) == {"GSE176078"}
    said = facts.lines(table)
    assert len(said) == len(WU.facts)
    assert said[0].startswith("GSE176078 W1b  DIFFERS (hard)  100,064 cells: expected 100,064, found 93,887")
    facts.run_facts(paths[-2:], tmp_path / "none.tsv")
    assert len(io.read_table(tmp_path / "none.tsv")) == 0
