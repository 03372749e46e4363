"""The report of 26 patients and 100,000 cells in headless Chromium: size, first paint, first colour change.

The results folder is made up (`tests/fake_results.py`): the size and speed of the page are measured, no analysis.

    python benchmarks/bench_report.py [--results DIR] [--loads 5]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

LIMITS = {"megabytes": 12.0, "first_paint_s": 2.0, "first_colour_s": 3.0}
PATIENTS, CELLS = 26, 100_000


def make_report(folder: Path) -> Path:
    """Write the made-up results of the cohort and its report; returns the page."""
    from fake_results import make
    from nicheloop import report, status
    from nicheloop.config import load_config

    config = load_config({"report": {"sample_pages": False}})
    names = tuple(f"P{i:02d}" for i in range(1, PATIENTS + 1))
    # one sample cannot be read and about 14 % of the barcodes are dropped: a little more is made than is kept
    samples = make(folder, cells=round(CELLS / (PATIENTS - 1) / 0.855), names=names, truth=False, genes=120)
    status.run_status(folder, samples, folder / "cohort" / "status.tsv")
    report.run_report(folder, folder / "report.html", config=config)
    return folder / "report.html"


def measure(page: Path, loads: int) -> dict[str, Any]:
    """Seconds to the first contentful paint and to the first change of colour, each in a fresh browser profile."""
    from browser import chromium

    paints, changes = [], []
    for _ in range(loads):
        with chromium() as browser:
            tab = browser.new_page(viewport={"width": 1300, "height": 1000})
            began = time.perf_counter()
            tab.goto(page.as_uri(), wait_until="commit")
            tab.wait_for_selector("html[data-script=ready]", state="attached")
            tab.evaluate("document.getElementById('explorer').scrollIntoView()")
            tab.wait_for_selector("#map-colour option[value=sample]", state="attached")
            tab.wait_for_selector("#explorer[data-drawn]")
            drawn = tab.get_attribute("#explorer", "data-drawn")
            tab.select_option("#map-colour", "sample")
            tab.wait_for_function("n => document.getElementById('explorer').dataset.drawn !== n", arg=drawn)
            changes.append(time.perf_counter() - began)
            paints.append(
                tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN") / 1000
            )
    return {
        "first_paint_s": round(statistics.median(paints), 3),
        "first_colour_s": round(statistics.median(changes), 3),
        "first_paint_all_s": [round(v, 3) for v in paints],
        "first_colour_all_s": [round(v, 3) for v in changes],
    }


def main() -> int:
    """Measure, write ``results/report.json``, fail above a limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", help="folder for the made-up results (kept); default: a temporary one")
    parser.add_argument("--loads", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.results or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        page = folder / "report.html"
        began = time.perf_counter()
        built = not page.exists()
        if built:
            page = make_report(folder)
        made = round(time.perf_counter() - began, 1) if built else None
        found = {
            "patients": PATIENTS,
            "cells": CELLS,
            "megabytes": round(page.stat().st_size / 1e6, 2),
            "made_in_s": made,
            "loads": options.loads,
            **measure(page, options.loads),
            "limits": LIMITS,
            "load_average": round(os.getloadavg()[0], 1),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
    out = Path(__file__).parent / "results" / "report.json"
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    above = [k for k, limit in LIMITS.items() if not found[k] <= limit]
    if above:
        print(f"Above the limit: {', '.join(above)}", file=sys.stderr)
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
