"""The parts of the benchmarks that decide what a figure means."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import cohort, growth, page, peer, planted, process


def test_quality_counts_what_is_not_answered_as_wrong():
    truth = pd.DataFrame({
        "cell_id": list("abcdef"), "cell_type": ["epithelial"] * 3 + ["caf"] * 3, "malignant": [True, True, False] + [False] * 3,
        "doublet": [False] * 5 + [True], "damaged": False,
    })  # fmt: skip
    told = truth[["cell_id", "cell_type", "malignant"]]
    assert peer.quality(told, truth) == {"cells_kept": 6, "types_macro_f1": 1.0, "malignant_balanced_accuracy": 1.0}
    worse = told.assign(
        cell_type=["epithelial", "unresolved", "epithelial", "caf", "caf", "b_cell"],
        malignant=[True, False] + [False] * 4,
    )
    found = peer.quality(worse, truth)
    assert found["types_macro_f1"] == pytest.approx((0.8 + 1.0) / 2)  # the doublet does not count
    assert found["malignant_balanced_accuracy"] == pytest.approx(0.75)


def test_planted_axes_are_told_by_strength_and_called_by_p():
    plans = [
        SimpleNamespace(sample=s, loop=loop) for s, loop in zip("abcd", ("all", "all", "ligand", "none"), strict=True)
    ]
    key = dict(zip(planted.KEY, ("IL6", "IL6R_IL6ST", "caf", "malignant"), strict=True))
    rows = [
        {**key, "sample": "a", "strength": 3.0, "p": 0.001},
        {**key, "sample": "a", "strength": 1.0, "p": 0.9},  # of two rows of an axis the strongest counts
        {**key, "sample": "b", "strength": 0.5, "p": 0.3},
        {**key, "sample": "c", "strength": 0.7, "p": 0.04},
        {**key, "sample": "d", "strength": np.nan, "p": np.nan},
        {**key, "sample": "d", "sender": "mast", "strength": 9.0, "p": 0.001},  # another sender answers nothing
    ]
    table = pd.DataFrame(rows)
    strength, p = planted.chosen(table, "strength", largest=True), planted.chosen(table, "p", largest=False)
    assert strength.droplevel("axis").to_dict() == {"a": 3.0, "b": 0.5, "c": 0.7}
    # One axis: a above c and d, b below c; two axes nobody has seen: 1/2 each.  Calls: 1 of 6 true, 5 of 6 others not.
    assert planted.quality(strength, p, plans) == {
        "axes_auc": pytest.approx((3 / 4 + 1 / 2 + 1 / 2) / 3, abs=1e-4),
        "axes_balanced_accuracy": pytest.approx((1 / 6 + 5 / 6) / 2, abs=1e-4),
    }


def test_exponent_of_a_known_power():
    rows = [
        {"cells": n, "rules": {"embed": {"cpu_seconds": 1e-4 * n**1.3}, "qc": {"cpu_seconds": n / 100}}}
        for n in (1e4, 3e4, 1e5)
    ]
    assert growth.exponents(rows) == {"embed": 1.3, "qc": 1.0}
    slower = {"cells": 1e6, "code": "another", "rules": {"embed": {"cpu_seconds": 1e9}, "old": {"cpu_seconds": 1.0}}}
    assert growth.exponents([*rows, slower]) == {"embed": 1.3, "qc": 1.0}  # two states of the code are no growth


def test_process_tree_counts_the_memory_of_children(tmp_path: Path):
    child = "import sys; x = bytearray(150_000_000); x[::4096] = b'1' * len(x[::4096]); import time; time.sleep(1)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    found = process.run_tree([sys.executable, "-c", code], tmp_path / "log", cores=1)
    assert found["peak_mb"] > 150
    with pytest.raises(RuntimeError, match="ended with 3"):
        process.run_tree([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log", cores=1)


def test_cohort_is_26_patients_of_the_published_subtypes_and_repeats(tmp_path: Path):
    plans = cohort.plans(cohort.PATIENTS)
    assert len({p.sample for p in plans}) == 26
    assert pd.Series([p.subtype for p in plans]).value_counts().to_dict() == {"ER+": 11, "TNBC": 10, "HER2+": 5}
    for name in ("a", "b"):
        cohort._write_sample((plans[0], 200, tmp_path / name, 3))
    for part in ("matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz"):
        assert (tmp_path / "a/p001" / part).read_bytes() == (tmp_path / "b/p001" / part).read_bytes()
    from scipy.io import mmread

    x = mmread(tmp_path / "a/p001/matrix.mtx.gz").tocsc()
    assert x.shape == (cohort.N_GENES, 200)
    assert 1000 < np.median(np.diff(x.indptr)) < 2200


def test_scaling_continues_the_fitted_lines(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    assert page.scaling() == ["Not measured yet: `make bench-growth`.", ""]
    machine = {"processor": "P", "cores_used": 2, "cores": 2, "memory_gb": 24, "python": "3.11"}
    row = lambda n, jobs: {  # noqa: E731
        "cells": n, "samples": jobs, "load_before": 0.1, "disk_mb": n // 100, "seconds": n / 100, "peak_mb": 900,
        "without": ["atlas.h5ad"] if n == 10**6 else [],
        "rules": {
            "embed": {"jobs": 1, "cpu_seconds": n * 0.036, "peak_mb": n * 0.02},
            "qc": {"jobs": jobs, "cpu_seconds": n * 0.0036, "peak_mb": 300.0},
        },
    }  # fmt: skip
    (tmp_path / "growth.json").write_text(json.dumps({"machine": machine, "rows": [row(10_000, 3)], "exponents": {}}))
    assert "| embed | 1 | 200 | 360 |" in page.scaling()
    (tmp_path / "growth.json").write_text(
        json.dumps({"machine": machine, "rows": [row(10_000, 3), row(30_000, 8)], "exponents": {}})
    )
    text = page.scaling()
    assert "| embed | 1 | 600 | 1,080 | 10.0, 20,000 | 100.0, 200,000 |" in text
    assert "| qc | 8 | 300 | 108 | 1.0, 300 | 10.0, 300 |" in text  # a job sees one sample, whatever the cohort
    large = row(10**6, 260)
    del large["rules"]["qc"]  # left out of this run
    (tmp_path / "growth.json").write_text(
        json.dumps({"machine": machine, "rows": [row(10_000, 3), row(30_000, 8), large], "exponents": {}})
    )
    text = page.scaling()
    assert "| embed | 1 | 20,000 | 36,000 | 100.0, 200,000 |" in text  # a million is measured now
    assert "| qc (30,000 cells) | 8 | 300 | 108 | 10.0, 300 |" in text
    assert "1,000,000 cells (260 samples without atlas.h5ad) 10,000 s, 0.9 GB, 10.0 GB." in text[-2]


def test_page_says_what_was_not_measured(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    text = "\n".join([*page.peer(), *page.usual(), *page.growth()])
    assert "Not measured: 10,000, 50,000, 100,000 cells" in text


def test_sizes_beyond_the_measured_are_not_made_small_by_what_is_fixed():
    linear = [(n, 800 + 0.005 * n) for n in (1e4, 3e4, 1e5)]  # a power fitted to these says 2,000 at a million
    assert page.beyond(linear, 1e6) == pytest.approx(5800)
    square = [(n, 1e-8 * n**2) for n in (1e4, 3e4, 1e5)]
    assert page.beyond(square, 1e6) == pytest.approx(1e4)
