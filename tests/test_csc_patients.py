"""Fractions per patient, control types, and the three stages from file to file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from csc_cohort import HALF_PERCENT, KNOWN, OPTIONS, simulate, without
from helpers import record_of
from nicheloop import csc, csc_patients, csc_rates, io


@pytest.mark.parametrize("median", [16000, 25000])
def test_half_a_percent_is_not_distinguishable_from_zero(median: int) -> None:
    said = []
    for seed in range(6):
        table = simulate(300 + seed, n=600, weights=HALF_PERCENT, median=median)
        states, _, _ = csc.call_cells(table, KNOWN, options=OPTIONS)
        row = csc_patients.summarise(table, states, KNOWN, options=OPTIONS, rng=np.random.default_rng(seed))
        said.append(row["m_csc_wording"])
        assert row["m_csc_high"] >= 0.005
    assert said.count(csc_patients.NOT_DISTINGUISHABLE) >= 5


def test_ten_percent_is_estimated_and_the_contrasts_point_the_right_way() -> None:
    table = simulate(9, n=600, median=16000)
    states, _, _ = csc.call_cells(table, KNOWN, options=OPTIONS)
    row = csc_patients.summarise(table, states, KNOWN, options=OPTIONS, rng=np.random.default_rng(0))
    assert row["m_csc_wording"] == "estimated"
    assert row["m_csc_low"] < 0.10 < row["m_csc_high"]
    assert row["odds_ratio"] < 1  # CD44 and CD24 exclude each other here
    assert row["emt_z_csc"] > 1
    assert row["cycling_z_csc"] == 0
    assert row["overlap_fraction"] == pytest.approx(row["overlap_expected"], abs=0.02)  # drawn independently


def test_controls_show_why_other_types_are_left_out() -> None:
    rows = {r["cell_type"]: r for r in csc_patients.controls(simulate(4, others=60), KNOWN, options=OPTIONS)}
    assert rows["t_nk"]["fraction_called"] > 0.5
    assert rows["pvl"]["fraction_called"] < 0.1
    assert rows["myeloid"]["n_cells"] == 0
    assert np.isnan(rows["myeloid"]["fraction_called"])


# ------------------------------------------------------------------------------------------------------------ files
def write_sample(
    folder: Path, table: pd.DataFrame, sample: str, summary: dict[str, object] | None = None, **record: object
) -> dict[str, Path]:
    folder = folder / sample
    paths = {k: folder / f"{k}.parquet" for k in ("scores", "ambient", "csc")}
    paths["record"] = folder / "ingest.json"
    said = io.Status("score", sample, summary=summary or {})
    io.write_table(table.drop(columns="truth", errors="ignore"), paths["scores"], "scores", said)
    ambient = pd.DataFrame(
        {
            "gene": ["CD44", "CD24", "ACTB"],
            "ambient_fraction": [1e-4, 1e-4, 1e-2],
            "contamination_rate": 0.03,
            "pool": "cells",
        }
    )
    io.write_table(ambient, paths["ambient"], "ambient")
    io.write_json(paths["record"], record_of(sample, len(table), 3, **record))
    return paths


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Path]]]:
    """Eight samples run through the three stages: two good ones of one patient, and every way to fail."""
    folder = tmp_path_factory.mktemp("csc")
    empty = simulate(1).iloc[:0]
    samples = [
        write_sample(
            folder, simulate(1, n=500, median=18000, sample="a1", others=30), "a1", patient="A", tissue="primary"
        ),
        write_sample(folder, simulate(2, n=600, median=18000, sample="a2"), "a2", patient="A", tissue="lymph node"),
        write_sample(folder, simulate(3, n=300, median=18000, sample="b"), "b", subtype="TNBC"),
        write_sample(folder, simulate(4, n=300, median=3000, sample="shallow"), "shallow"),
        write_sample(folder, without(simulate(5, sample="v19", median=25000), "CD24"), "v19"),
        write_sample(folder, simulate(6, n=90, sample="tpm"), "tpm", is_counts=False),
        write_sample(folder, empty, "broken", status="unreadable", reason="cannot be read"),
        write_sample(folder, simulate(7, n=500, sample="other", median=18000), "other", chemistry="10x 3' v2"),
    ]
    scores, ambient, records = ([s[k] for s in samples] for k in ("scores", "ambient", "record"))
    csc_rates.run_csc_rates(scores, ambient, records, folder / "rates.parquet", options=OPTIONS)
    for s in samples:
        csc.run_csc(s["scores"], folder / "rates.parquet", s["record"], s["ambient"], s["csc"], options=OPTIONS)
    cells = [s["csc"] for s in samples]
    csc_patients.run_csc_patients(
        cells, scores, ambient, records, folder / "rates.parquet", folder / "p.tsv", folder / "c.tsv",
        options=OPTIONS, seed=1,
    )  # fmt: skip
    return folder, samples


def test_rates_file_has_a_row_per_chemistry_and_gene(cohort: tuple[Path, list[dict[str, Path]]]) -> None:
    rates = io.read_table(cohort[0] / "rates.parquet").set_index(["chemistry", "gene"])
    assert set(rates.index.get_level_values(0)) == {"unknown", "10x 3' v2"}
    assert len(rates) == 6
    row = rates.loc[("unknown", "CD24")]
    assert row["status"] == "ok"
    assert row["low"] >= 0.03 - 1e-9  # ambient: 0.03 x 1e-4 x 10,000
    assert rates.loc[("unknown", "CD44"), "n_cells"] == 500 + 600 + 300 + 300 + 400


def test_every_kept_cell_has_a_row_and_every_failure_its_name(cohort: tuple[Path, list[dict[str, Path]]]) -> None:
    status = {}
    for s in cohort[1]:
        table, scores = io.read_table(s["csc"]), io.read_table(s["scores"])
        assert table["cell_id"].tolist() == scores["cell_id"].tolist()
        status[s["csc"].parent.name] = io.read_status(s["csc"]).status
    assert status == {
        "a1": "ok", "a2": "ok", "b": "ok", "shallow": "not_informative_depth", "v19": "cd24_absent_from_reference",
        "tpm": "no_counts", "broken": "unreadable", "other": "ok",
    }  # fmt: skip
    v19 = io.read_table(cohort[1][4]["csc"])
    assert set(v19["aldh1a3_state"]) >= {"high", "low"}  # ALDH1A3 stands on its own


def test_the_cause_of_too_few_malignant_cells_is_named(tmp_path: Path) -> None:
    table = simulate(1, n=90, others=5).assign(compartment="epithelial")
    said = {"malignancy": {"status": "insufficient_reference_cells", "epithelial": {"without a call": 90}}}
    s = write_sample(tmp_path, table, "x", summary=said)
    good = write_sample(tmp_path, simulate(2, n=500, median=18000), "good")
    both = [s, good]
    scores, ambient, records = ([p[k] for p in both] for k in ("scores", "ambient", "record"))
    csc_rates.run_csc_rates(scores, ambient, records, tmp_path / "r.parquet", options=OPTIONS)
    for p in both:
        csc.run_csc(p["scores"], tmp_path / "r.parquet", p["record"], p["ambient"], p["csc"], options=OPTIONS)
    status = io.read_status(s["csc"])
    assert status.status == "too_few_malignant"
    words = (
        "0 malignant cells, 50 needed (malignancy: insufficient_reference_cells; 90 epithelial cells without a call)"
    )
    assert status.reason == words
    known = io.read_status(good["csc"]).summary["ambient_rate"]
    assert known.pop("ALDH1A3") is None
    assert known == pytest.approx({"CD44": 0.03, "CD24": 0.03})
    csc_patients.run_csc_patients(
        [p["csc"] for p in both], scores, ambient, records, tmp_path / "r.parquet", tmp_path / "p.tsv",
        tmp_path / "c.tsv", options=OPTIONS, seed=1,
    )  # fmt: skip
    assert io.read_table(tmp_path / "p.tsv").set_index("sample").loc["x", "reason"] == words


def test_normal_tissue_speaks_for_nobody_and_stays_out_of_the_rates(tmp_path: Path) -> None:
    both = [
        write_sample(tmp_path, simulate(2, n=500, median=18000, sample="t"), "t", patient="A", tissue="tumour"),
        write_sample(tmp_path, simulate(3, n=700, median=18000, sample="n"), "n", patient="B", tissue="normal"),
    ]
    scores, ambient, records = ([p[k] for p in both] for k in ("scores", "ambient", "record"))
    csc_rates.run_csc_rates(scores, ambient, records, tmp_path / "r.parquet", options=OPTIONS)
    assert set(io.read_table(tmp_path / "r.parquet")["n_cells"]) == {500}
    for p in both:
        csc.run_csc(p["scores"], tmp_path / "r.parquet", p["record"], p["ambient"], p["csc"], options=OPTIONS)
    csc_patients.run_csc_patients(
        [p["csc"] for p in both], scores, ambient, records, tmp_path / "r.parquet", tmp_path / "p.tsv",
        tmp_path / "c.tsv", options=OPTIONS, seed=1,
    )  # fmt: skip
    rows = io.read_table(tmp_path / "p.tsv").set_index("sample")
    assert rows["primary_sample"].tolist() == [True, False]
    assert rows.loc["n", "status"] == rows.loc["n", "aldh1a3_status"] == "normal_tissue"
    assert rows.loc["n", "n_malignant"] == 700
    assert "700 cells called malignant" in rows.loc["n", "reason"]
    assert rows.loc["n", ["m_csc_fraction", "aldh1a3_fraction", "overlap_fraction"]].isna().all()


def test_patient_table(cohort: tuple[Path, list[dict[str, Path]]]) -> None:
    rows = io.read_table(cohort[0] / "p.tsv").set_index("sample")
    assert bool(rows.loc["a1", "primary_sample"])
    assert not bool(rows.loc["a2", "primary_sample"])  # more cells, but a lymph node
    assert rows.loc["a1", "m_csc_low"] < 0.10 < rows.loc["a1", "m_csc_high"]
    assert rows.loc["broken", "status"] == "unreadable"
    assert np.isnan(rows.loc["shallow", "m_csc_fraction"])
    assert rows.loc["shallow", "informative_fraction"] < 0.5
    assert rows.loc["b", "subtype"] == "TNBC"
    controls = io.read_table(cohort[0] / "c.tsv")
    assert len(controls) == 8 * len(csc_patients.CONTROL_TYPES)


def test_interval_of_a_sample_does_not_depend_on_the_others(
    cohort: tuple[Path, list[dict[str, Path]]], tmp_path: Path
) -> None:
    folder, samples = cohort
    alone = samples[2]
    csc_patients.run_csc_patients(
        [alone["csc"]], [alone["scores"]], [alone["ambient"]], [alone["record"]], folder / "rates.parquet",
        tmp_path / "p.tsv", tmp_path / "c.tsv", options=OPTIONS, seed=1,
    )  # fmt: skip
    columns = ["m_csc_fraction", "m_csc_low", "m_csc_high", "aldh1a3_low", "aldh1a3_high"]
    a = io.read_table(tmp_path / "p.tsv").set_index("sample").loc["b", columns]
    b = io.read_table(folder / "p.tsv").set_index("sample").loc["b", columns]
    assert a.tolist() == b.tolist()


def test_cohort_without_any_usable_sample(tmp_path: Path) -> None:
    s = write_sample(tmp_path, simulate(1).iloc[:0], "broken", status="unreadable", reason="cannot be read")
    csc_rates.run_csc_rates([s["scores"]], [s["ambient"]], [s["record"]], tmp_path / "r.parquet", options=OPTIONS)
    assert set(io.read_table(tmp_path / "r.parquet")["status"]) == {"too_few_malignant"}
    csc.run_csc(s["scores"], tmp_path / "r.parquet", s["record"], s["ambient"], s["csc"], options=OPTIONS)
    csc_patients.run_csc_patients(
        [s["csc"]], [s["scores"]], [s["ambient"]], [s["record"]], tmp_path / "r.parquet", tmp_path / "p.tsv", tmp_path / "c.tsv",
        options=OPTIONS, seed=0,
    )  # fmt: skip
    assert io.read_table(tmp_path / "p.tsv")["status"].tolist() == ["unreadable"]
