"""Sizing table of docs/hpc.md: cells to memory and time of every rule, from the benchmark files of finished runs.

python benchmarks/sizes.py RESULTS ...
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from nicheloop import io

PAGE = Path(__file__).resolve().parents[1] / "docs/hpc.md"
BEGIN, END = "<!-- sizes: begin -->", "<!-- sizes: end -->"


def measured(results: Path) -> Iterator[dict[str, object]]:
    """One row per benchmark file: rule, cells it saw, peak memory (MB), processor time and duration (s)."""
    records = [io.read_json(p) for p in results.glob("samples/*/ingest.json")]
    cells = {r["sample"]: int(r["n_cells"]) for r in records}
    for path in sorted((results / "benchmarks").rglob("*.tsv")):
        row = pd.read_csv(path, sep="\t", na_values=["-"]).iloc[-1]
        gathered = path.parent.name == "benchmarks"
        rule = path.stem if gathered else path.parent.name
        seen = sum(cells.values()) if gathered else cells.get(path.stem, 0)
        if seen:
            yield {"rule": rule, "cells": seen, "mb": row["max_rss"], "cpu": row["cpu_time"], "s": row["s"]}


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
