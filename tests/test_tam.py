"""Macrophages on two axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import record_of, write_counts
from nicheloop import genes, io, tables, tam, tam_patients
from nicheloop.config_states import Scoring, Tam

OPTIONS = Tam()


def myeloid(n: int = 60, seed: int = 0, sample: str = "s1") -> pd.DataFrame:
    """Score table of `n` macrophages, 20 monocytes, 5 dendritic cells and 5 neutrophils."""
    rng = np.random.default_rng(seed)
    kinds = ["macrophage"] * n + ["monocyte_classical"] * 20 + ["cDC2"] * 5 + ["neutrophil"] * 5
    total = len(kinds)
    macrophage = np.array(kinds) == "macrophage"
    return pd.DataFrame({
        "cell_id": [f"{sample}:m{i}" for i in range(total)], "cell_type_minor": kinds, "compartment": "myeloid",
        "n_counts": rng.integers(2000, 20000, total).astype(float), "foreign_share": np.nan, "z_monocyte": np.where(macrophage, -1.0, 1.0),
        "z_macrophage": np.where(macrophage, 1.0, -1.0), "z_M1": rng.normal(0.5, 1, total), "z_M2": rng.normal(0.8, 1, total),
        "level_M1": rng.gamma(3, 0.1, total), "level_M2": rng.gamma(6, 0.1, total),
        **{f"z_{s}": rng.normal(0, 1, total) for s in tam.STATES},
    })  # fmt: skip


def test_minor_types_of_the_annotation_are_understood() -> None:
    expected = {"monocyte_classical": "monocyte", "macrophage": "macrophage", "LAM1_FABP5": "macrophage",
                "Mac_EGR1": "macrophage", "cDC1": "dendritic", "pDC": "dendritic", "DC_LAMP3": "dendritic",
                "neutrophil": "neutrophil", "myeloid": "not_assessable"}  # fmt: skip
    nan = np.full(len(expected), np.nan)
    got = tam.myeloid_classes(np.array(list(expected), dtype=object), nan, nan, band=0.5)
    assert got.tolist() == list(expected.values())
    names = [n for n, m in genes.markers("minor").items() if m.parent == "myeloid"]
    nan = np.full(len(names), np.nan)
    assert "not_assessable" not in tam.myeloid_classes(np.array(names, dtype=object), nan, nan, band=0.5)


def test_the_minor_type_decides_and_the_score_difference_where_there_is_none() -> None:
    minor = np.array(["myeloid", "macrophage", None, "", "cDC1", "neutrophil", "monocyte_classical"], dtype=object)
    mono, mac = np.array([1.0, 1.0, 0.2, -1.0, -3.0, 3.0, -3.0]), np.zeros(7)
    got = tam.myeloid_classes(minor, mono, mac, band=0.5)
    expected = ["monocyte", "macrophage", "transitional", "macrophage", "dendritic", "neutrophil", "monocyte"]
    assert got.tolist() == expected
    assert tam.myeloid_classes(minor[:1], np.array([0.5]), np.array([0.0]), band=0.5).tolist() == ["transitional"]


def test_a_sample_of_macrophages_alone_has_no_monocyte() -> None:
    # Scores of a pure population: the difference is noise around 0 and exceeds the band in a third of the cells.
    rng = np.random.default_rng(0)
    got = tam.myeloid_classes(
        np.full(200, "macrophage", dtype=object), rng.normal(0, 0.8, 200), rng.normal(0, 0.8, 200), band=0.5
    )
    assert set(got) == {"macrophage"}


def test_axes_make_four_classes() -> None:
    m1, m2 = np.array([1.0, 1.0, 0.9, 0.9]), np.array([1.0, 0.9, 1.0, 0.9])
    assert tam.axis_classes(m1, m2, 1.0).tolist() == ["mixed", "m1_like", "m2_like", "low"]


def test_dominant_state_needs_a_margin() -> None:
    z = np.array([[2.0, 1.4, 0], [2.0, 1.6, 0], [np.nan, 1.0, 0.2], [np.nan, np.nan, 3.0], [-1.0, -2.0, -3.0]])
    got = tam.dominant_state(z, ["a", "b", "c"], margin=0.5)
    assert got.tolist() == ["a", "mixed", "b", None, "a"]


def test_cells_of_a_sample() -> None:
    cells = myeloid()
    cells.loc[0, ["z_monocyte", "z_macrophage"]] = 0.0
    cells.loc[0, "cell_type_minor"] = None
    table, status, _ = tam.call_cells(cells, options=OPTIONS)
    assert status == "ok"
    assert table["myeloid_class"].value_counts().to_dict() == {
        "macrophage": 59, "monocyte": 20, "dendritic": 5, "neutrophil": 5, "transitional": 1,
    }  # fmt: skip
    assert table.loc[0, "tam_class"] == "transitional"
    assert table.loc[0, "m1_z"] == cells.loc[0, "z_M1"]
    assert table.loc[60:, "m1_z"].isna().all()
    assert set(table.loc[60:, "tam_class"]) == {"not_macrophage"}
    called = table.iloc[1:60]
    assert ((called["m1_z"] >= 1) == called["tam_class"].isin(["m1_like", "mixed"])).all()
    assert ((called["m2_z"] >= 1) == called["tam_class"].isin(["m2_like", "mixed"])).all()
    assert called["tam_state"].notna().all()


def test_order_of_cells_does_not_matter() -> None:
    cells = myeloid()
    a = tam.call_cells(cells, options=OPTIONS)[0].set_index("cell_id")
    b = tam.call_cells(cells.sample(frac=1, random_state=1), options=OPTIONS)[0].set_index("cell_id").loc[a.index]
    pd.testing.assert_frame_equal(a, b)


def test_too_few_macrophages_and_sets_that_are_not_measurable() -> None:
    table, status, reason = tam.call_cells(myeloid(n=19), options=OPTIONS)
    assert status == "too_few_macrophages"
    assert "19" in reason
    assert set(table["tam_class"]) == {"not_assessable", "not_macrophage"}
    assert table["m1_z"].isna().all()
    assert tam.call_cells(myeloid(n=20), options=OPTIONS)[1] == "ok"
    assert tam.call_cells(myeloid().drop(columns="z_M1"), options=OPTIONS)[1] == "axes_not_measurable"
    assert tam.call_cells(myeloid().assign(z_M2=np.nan), options=OPTIONS)[1] == "axes_not_measurable"


def test_cells_with_rna_of_another_type_get_no_class() -> None:
    cells, share = myeloid(), np.zeros(90)
    share[:3], share[70] = 0.4, 0.4
    table, status, reason = tam.call_cells(cells, options=OPTIONS, foreign=share)
    assert status == "ok"
    assert "3 more hold RNA of another type" in reason
    assert set(table.loc[:2, "tam_class"]) == {"not_assessable"}
    assert set(table.loc[:2, "tam_status"]) == {"foreign_rna"}
    assert table.loc[70, "tam_status"] == "not_macrophage"
    assert tam_patients.summarise(table, cells.set_index("cell_id"), options=OPTIONS)["n_macrophage"] == 57
    assert tam.call_cells(cells, options=OPTIONS, foreign=np.full(90, 0.4))[1] == "too_few_macrophages"


def test_adjusted_axes_are_residuals_and_the_class_follows_them() -> None:
    cells = myeloid(n=200)
    cells["z_IFN"], cells["z_STRESS"] = np.random.default_rng(1).normal(size=(2, len(cells)))
    cells["z_M1"] += 2 * cells["z_IFN"]
    table, _, _ = tam.call_cells(cells, options=OPTIONS)
    m1 = table.loc[:199, "m1_z_adjusted"]
    assert abs(np.corrcoef(m1, cells.loc[:199, "z_IFN"])[0, 1]) < 1e-9
    assert m1.mean() == pytest.approx(cells.loc[:199, "z_M1"].mean())
    high = table.loc[:199, "tam_class_adjusted"].isin(["m1_like", "mixed"])
    assert (high == (m1 >= 1)).all()
    plain = tam.call_cells(myeloid(), options=OPTIONS)[0]
    assert plain["m1_z_adjusted"].isna().all()
    assert set(plain["tam_class_adjusted"]) == {"not_assessable", "not_macrophage"}  # nothing to adjust for: no answer


def write_sample(folder: Path, cells: pd.DataFrame, sample: str, **record: object) -> dict[str, Path]:
    paths = {k: folder / sample / f"{k}.parquet" for k in ("scores", "tam", "draws", "profiles")}
    paths["record"] = folder / sample / "ingest.json"
    io.write_table(cells.drop(columns=["cell_type_minor", "cell_type"], errors="ignore"), paths["scores"], "scores")
    io.write_table(tables.empty("profiles"), paths["profiles"], "profiles")
    names = [*genes.signatures()["M1"].genes, *genes.signatures()["M2"].genes, *[f"X{i}" for i in range(300)]]
    x = np.random.default_rng(0).poisson(0.8, (len(cells), len(names)))
    paths["counts"] = write_counts(
        folder / sample, x, names, sample=sample, barcodes=[c.split(":")[1] for c in cells["cell_id"]], record=record
    )
    io.write_json(paths["record"], record_of(sample, len(cells), len(names), **record))
    return paths


def test_files_of_a_cohort(tmp_path: Path) -> None:
    good = myeloid(sample="good")
    t_cell = good.iloc[:1].assign(cell_id="good:t", compartment="t_nk", z_M1=np.nan)
    frames = {
        "good": pd.concat([good.assign(cell_type="myeloid"), t_cell.assign(cell_type="t_nk", cell_type_minor="t_cd4")]),
        "node": myeloid(n=200, sample="node").assign(cell_type="myeloid"),
        "few": myeloid(n=5, sample="few").assign(cell_type="myeloid"),
        "none": myeloid(sample="none").assign(cell_type="caf"),
        "broken": myeloid(sample="broken").iloc[:0].assign(cell_type="caf"),
        "benign": myeloid(n=100, sample="benign").assign(cell_type="myeloid"),
    }
    records: dict[str, dict[str, object]] = {
        "good": {"patient": "A"}, "node": {"patient": "A", "tissue": "lymph node"}, "few": {}, "none": {"is_counts": False},
        "broken": {"status": "unreadable", "reason": "cannot be read"}, "benign": {"tissue": "normal"},
    }  # fmt: skip
    samples = {s: write_sample(tmp_path, f, s, **records[s]) for s, f in frames.items()}
    types = pd.concat([f.assign(sample=s) for s, f in frames.items()])
    types = types[["cell_id", "sample", "cell_type", "cell_type_minor"]].assign(
        cluster="0", confidence=1.0, margin=1.0, runner_up="caf", cell_type_reason="ok", platelet=False, cycling=False,
        cell_type_input=pd.NA,
    )  # fmt: skip
    io.write_table(types, tmp_path / "types.parquet", "cell_types")
    status = {}
    for name, s in samples.items():
        tam.run_tam(
            s["counts"], tmp_path / "types.parquet", s["scores"], s["profiles"], s["tam"], s["draws"], options=OPTIONS,
            scoring=Scoring(), seed=1,
        )  # fmt: skip
        status[name] = io.read_status(s["tam"]).status
    assert status == {"good": "ok", "node": "ok", "few": "too_few_macrophages", "none": "too_few_macrophages",
                      "broken": "unreadable", "benign": "ok"}  # fmt: skip
    assert len(io.read_table(samples["good"]["tam"])) == 90  # the T cell is not a row
    assert len(io.read_table(samples["none"]["tam"])) == 0

    tam_patients.run_tam_patients(
        *[[s[k] for s in samples.values()] for k in ("tam", "draws", "scores", "record")], tmp_path / "p.tsv",
        tmp_path / "m.tsv", tmp_path / "c.tsv", options=OPTIONS,
    )  # fmt: skip
    rows = io.read_table(tmp_path / "p.tsv").set_index("sample")
    assert rows["primary_sample"].tolist() == [True, False, True, True, True, False]
    assert rows.loc["benign", "status"] == "normal_tissue"
    assert rows.loc["benign", "reason"] == "normal tissue, not a tumour; 100 macrophages"
    assert rows.loc["benign", "n_macrophage"] == 100
    assert (
        rows.loc["benign", ["m1_median", "m1_level", "m1_m2_rho", "fraction_low", "fraction_m1_like_z0.5"]].isna().all()
    )
    assert rows.loc["good", "m2_level"] == pytest.approx(good["level_M2"][:60].median(), rel=1e-4)
    fractions = [f"fraction_{c}" for c in ("m1_like", "m2_like", "mixed", "low")]
    assert rows.loc["good", fractions].sum() == pytest.approx(1)
    assert rows.loc["good", "n_macrophage"] == 60
    m1, m2 = good["z_M1"][:60], good["z_M2"][:60]
    assert rows.loc["good", "m1_median"] == pytest.approx(m1.median(), rel=1e-4)
    assert rows.loc["good", "fraction_m1_like_z0.5"] == pytest.approx(((m1 >= 0.5) & (m2 < 0.5)).mean(), rel=1e-4)
    assert "fraction_m2_like_z1.5" in rows
    assert rows.loc[["few", "none", "broken"], [*fractions, "m1_median", "m1_m2_rho"]].isna().all(axis=None)
    assert rows.loc["few", "n_macrophage"] == 5
    assert rows.loc["good", "rho_null_low"] < rows.loc["good", "rho_null_high"]
    assert rows.loc["few", ["rho_null_low", "p_rho"]].isna().all()
    markers = io.read_table(tmp_path / "m.tsv").set_index(["sample", "gene"])["status"]
    assert markers["few", "CD163"] == "too_few_macrophages"
    assert markers["good", "CD163"] == "gene_absent"  # no umi column in these scores
    cohort = io.read_table(tmp_path / "c.tsv").set_index("adjustment")
    assert cohort.loc["depth", "n_assessable"] == 1
    assert cohort.loc["depth", "status"] == "too_few_patients"


def test_cohort_of_no_sample(tmp_path: Path) -> None:
    files = [tmp_path / f for f in ("p.tsv", "m.tsv", "c.tsv")]
    tam_patients.run_tam_patients([], [], [], [], *files, options=OPTIONS)
    assert len(io.read_table(tmp_path / "p.tsv")) == 0
