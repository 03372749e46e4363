"""Sizing table of docs/hpc.md: cells to memory and time of every rule, from the logs of finished runs.

python -m benchmarks.sizes RESULTS ...
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from benchmarks import process
from nicheloop import io

PAGE = Path(__file__).resolve().parents[1] / "docs/hpc.md"
BEGIN, END = "<!-- sizes: begin -->", "<!-- sizes: end -->"


def measured(results: Path) -> Iterator[dict[str, object]]:
    """One row per job: rule, cells it saw, peak memory (MB), processor time and duration (s)."""
    records = [io.read_json(p) for p in results.glob("samples/*/ingest.json")]
    cells = {r["sample"]: int(r["n_cells"]) for r in records}
    for job in process.usage(results):
        seen = cells.get(job["sample"], 0) if job["sample"] else sum(cells.values())
        if seen:
            yield {
                "rule": job["rule"],
                "cells": seen,
                "mb": job["peak_mb"],
                "cpu": job["cpu_seconds"],
                "s": job["seconds"],
            }


def table(folders: list[Path]) -> str:
    """Markdown: the largest job of every rule, and the largest one seen in a smaller run."""
    frame = pd.DataFrame([row for folder in folders for row in measured(folder)])
    lines = ["| rule | cells | memory, MB | processor time, s | duration, s |", "|---|---:|---:|---:|---:|"]
    for rule, rows in frame.groupby("rule", sort=True):
        rows = rows.sort_values("cells").drop_duplicates("cells", keep="last")
        shown = rows.iloc[[0, -1]] if len(rows) > 1 else rows
        for r in shown.itertuples():
            lines.append(f"| {rule} | {r.cells:,} | {r.mb:,.0f} | {r.cpu:,.0f} | {r.s:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    text = PAGE.read_text()
    new = f"{BEGIN}\n{table([Path(a) for a in sys.argv[1:]])}\n{END}"
    PAGE.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: new, text, flags=re.DOTALL))
