"""What papers state of the data sets used, against what was read: pass or differ.  See docs/datasets.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicheloop import datasets, io
from nicheloop.datasets import Dataset, Fact

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
# Whole-cohort figures mean nothing where only some of the samples were chosen.
WHOLE = {"cells", "cells_at_least", "patients", "samples", "cells_by_subtype", "labels", "treated"}
SHOWN = 5


def _patients(records: Sequence[Record]) -> int:
    return len({r.get("patient") or r["sample"] for r in records})


def _labels(records: Sequence[Record]) -> Counter[str]:
    total: Counter[str] = Counter()
    for record in records:
        total.update(record.get("annotation_counts") or {})
    return total


def _by_subtype(records: Sequence[Record]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for record in records:
        total[str(record.get("subtype"))] += int(record["n_cells"])
    return dict(total)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in sorted(value.items())) or "none"
    if isinstance(value, list | tuple | set):
        return ", ".join(str(v) for v in sorted(value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _guarded(records: Sequence[Record], gene: str) -> set[str]:
    return {str((r.get("guards") or {}).get(gene, "not looked at")) for r in records}


def measure(fact: Fact, dataset: Dataset, records: Sequence[Record]) -> tuple[Any, Any, bool]:
    """Expected, found, and whether they agree.

    Parameters
    ----------
    fact
        What is stated.
    dataset
        The data set it is stated of.
    records
        What ingest recorded of its samples, all of them read.
    """
    value = fact.value
    cells = {r["sample"]: int(r["n_cells"]) for r in records}
    if fact.check in ("cells", "cells_at_least"):
        found: Any = sum(cells.values())
        return value, found, found >= value if fact.check == "cells_at_least" else found == value  # type: ignore[operator]
    if fact.check == "features":
        numbers = {int(r["n_features"]) for r in records}
        return value, numbers if len(numbers) > 1 else next(iter(numbers)), numbers == {value}
    if fact.check == "patients":
        found = _patients(records)
    elif fact.check == "samples":
        found = len(records)
    elif fact.check == "treated":
        found = sorted(r["sample"] for r in records if r.get("treatment") not in (None, "naive"))
        return value, found, found == sorted(value)  # type: ignore[arg-type]
    elif fact.check == "cells_by_subtype":
        found = _by_subtype(records)
    elif fact.check == "labels":
        found = dict(_labels(records))
    elif fact.check == "no_labels":
        found = sorted(set(_labels(records)) & set(value))  # type: ignore[arg-type]
        return f"none of {_text(value)}", found, not found
    elif fact.check == "annotated":
        missing = sorted(r["sample"] for r in records if r.get("annotation_missing") or not r.get("annotation_counts"))
        return value, f"not in {_text(missing)}" if missing else True, not missing
    elif fact.check in ("present", "absent"):
        wanted = "present" if fact.check == "present" else "absent from reference"
        others = {g: sorted(_guarded(records, g)) for g in value if _guarded(records, g) != {wanted}}  # type: ignore[union-attr]
        return (
            f"{wanted}: {_text(value)}",
            _text({g: "/".join(v) for g, v in others.items()}) if others else wanted,
            not others,
        )
    elif fact.check == "cells_per_sample":
        wanted_cells = {s.sample: s.cells for s in dataset.samples if s.sample in cells and s.cells is not None}
        wrong = {k: cells[k] for k, v in wanted_cells.items() if cells[k] != v}
        said = f"{len(wrong)} of {len(wanted_cells)} differ: " + ", ".join(
            f"{k} {cells[k]:,} instead of {wanted_cells[k]:,}" for k in list(wrong)[:SHOWN]
        )
        return f"{len(wanted_cells)} samples as listed", said if wrong else "all agree", not wrong
    else:  # is_counts
        wrong_kind = sorted(r["sample"] for r in records if bool(r["is_counts"]) != value)
        return value, f"not so: {_text(wrong_kind[:SHOWN])}" if wrong_kind else value, not wrong_kind
    return value, found, found == value


def check_facts(dataset: str, entry: Dataset, records: Sequence[Record]) -> list[dict[str, str]]:
    """Rows of the table ``facts`` for one data set; `records` are those of the samples that were chosen."""
    rows = []
    unread = sorted(r["sample"] for r in records if r["status"] != "ok")
    whole = {r["sample"] for r in records} == {s.sample for s in entry.samples}
    read = [r for r in records if r["status"] == "ok"]
    for fact in entry.facts:
        row = {
            "dataset": dataset,
            "fact": fact.id,
            "claim": fact.claim,
            "severity": fact.severity,
            "source": fact.source,
        }
        if not read or (fact.check in WHOLE and (unread or not whole)):
            why = (
                f"not read: {_text(unread[:SHOWN])}"
                if unread
                else f"{len(records)} of {len(entry.samples)} samples chosen"
            )
            rows.append({**row, "expected": _text(fact.value), "found": why, "result": "not_checked"})
            continue
        expected, found, agree = measure(fact, entry, read)
        rows.append(
            {**row, "expected": _text(expected), "found": _text(found), "result": "pass" if agree else "differ"}
        )
    return rows


def facts_table(records: Sequence[Record], catalogue: datasets.Catalogue) -> pd.DataFrame:
    """Table ``facts`` of all data sets among the samples; a data set outside the catalogue states nothing."""
    import pandas as pd

    from nicheloop import tables

    rows: list[dict[str, str]] = []
    for name in dict.fromkeys(str(r["dataset"]) for r in records if r.get("dataset") in catalogue):
        rows += check_facts(name, catalogue[name], [r for r in records if r.get("dataset") == name])
    columns = [c.name for c in tables.CONTRACTS["facts"].columns]
    return pd.DataFrame(rows, columns=columns) if rows else tables.empty("facts")


def lines(table: pd.DataFrame) -> list[str]:
    """The table for a terminal: what differs first, each with expected and found."""
    said = []
    for result in ("differ", "not_checked", "pass"):
        for row in table[table["result"] == result].itertuples():
            word = {"differ": f"DIFFERS ({row.severity})", "not_checked": "not checked", "pass": "pass"}[result]
            detail = f": {row.found}" if result != "differ" else f": expected {row.expected}, found {row.found}"
            said.append(f"{row.dataset} {row.fact}  {word}  {row.claim}{detail}")
    return said


def run_facts(records: list[Path], out: str | Path, *, catalogue: str = "") -> None:
    """Check the facts of the catalogue's data sets against the records of ingest and write the table ``facts``."""
    table = facts_table([io.read_json(p) for p in records], datasets.catalogue(catalogue or None))
    io.write_table(table, out, "facts")
