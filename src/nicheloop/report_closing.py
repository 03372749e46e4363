"""Closing chapters of the report: what could not be assessed, limitations, methods."""

from __future__ import annotations

from nicheloop import figures
from nicheloop.report_data import Data
from nicheloop.report_page import Block, Page, bullets, columns, heading, listed, text
from nicheloop.report_text import LIMITATIONS, explain
from nicheloop.status import GOOD


def not_assessable_chapter(d: Data, page: Page) -> list[Block]:
    """Every status that is not ok, in plain words."""
    import pandas as pd

    found: list[tuple[str, str, str, str]] = []  # what, status, unit, reason
    bad = d.statuses[~d.statuses["status"].isin(GOOD)]
    for (sample, status), members in bad.groupby(["sample", "status"], sort=True):
        stages = listed(members["stage"], 20)
        reason = next((str(r) for r in members["reason"] if r), "")
        found.append((f"stage{'s' if len(members) > 1 else ''} {stages}", str(status), str(sample), reason))
    for name, what, column, who in (
        ("csc_patients", "CD44+/CD24- fraction", "status", "sample"),
        ("csc_patients", "ALDH1A3-high fraction", "aldh1a3_status", "sample"),
        ("tam_patients", "macrophages", "status", "sample"),
        ("loop", "loop", "status", "sample"),
        ("csc_rates", "rates of the CSC model", "status", "gene"),
        ("loop_cohort", "loop, cohort", "status", "axis"),
        ("de", "pseudobulk contrast", "status", "contrast"),
        ("enrichment", "enrichment", "status", "contrast"),
        ("axes", "axis over patients", "status", "axis"),
    ):
        table = d.table(name)
        rows = table[~table[column].isin(GOOD)]
        reason = rows["reason"] if "reason" in rows and column == "status" else pd.Series("", index=rows.index)
        found += [(what, str(s), str(w), str(r or "")) for s, w, r in zip(rows[column], rows[who], reason, strict=True)]
    for name, what in (("crosstalk", "axis in a sample"), ("loop_arms", "arm of the loop in a sample")):
        rows = d.per_sample(name)
        rows = rows[~rows["status"].isin(GOOD)]
        found += [
            (what, str(r.status), str(r.sample), str(r.reason or ""))
            for r in figures.records(rows[["status", "sample", "reason"]])
        ]
    calls = d.cells["malignancy_status"] if len(d.cells) else pd.Series(dtype=object)
    unassigned = d.cells[d.cells["malignancy"] == "unassigned"] if len(calls) else d.cells
    found += [
        ("malignancy of a cell", str(s), str(w), "")
        for s, w in zip(unassigned.get("malignancy_status", []), unassigned.get("sample", []), strict=True)
    ]
    if not found:
        return [text("Every stage gave an answer for every sample, and every question could be assessed.")]
    frame = pd.DataFrame(found, columns=["what", "status", "who", "reason"])
    lines = []
    for (what, status), group in frame.groupby(["what", "status"], sort=True):  # type: ignore[assignment]
        names = sorted(set(group["who"]))
        reasons = [r for r in dict.fromkeys(group["reason"]) if r]
        lines.append(
            {
                "what": what,
                "status": status,
                "meaning": explain(str(status)),
                "times": len(group),
                "where": listed(names, 6),
                "example": figures.short(reasons[0], 160) if reasons else "",
            }
        )
    table = pd.DataFrame(lines)
    return [
        text(
            "Every question that has no answer, with its status in plain words. A status belongs to the data, not to "
            "the tumour: 'not detected' and 'too few cells' are statements about what was sequenced."
        ),
        page.table(
            "not_assessable",
            table,
            columns("what: question | status | meaning: in plain words | times # | where | example: for example"),
            "What could not be assessed.",
            most=200,
        ),
    ]


def limitations_chapter(d: Data, page: Page) -> list[Block]:
    """What the data cannot show, and how findings may be worded."""
    rules = (
        "Say 'consistent with', not 'drives', 'causes' or 'proves'.",
        "Say 'ALDH1A3-high', not 'ALDH+' or 'ALDEFLUOR-positive'.",
        "Say 'CD44+/CD24- by RNA', with the interval; below about 1 % in shallow data say 'not distinguishable from "
        "zero'.",
        "Say 'not detected (at most x % of cells)', not 'absent'.",
        "Give n as patients, not as cells.",
    )
    return [bullets(LIMITATIONS), heading("Wording rules"), bullets(rules)]
