"""Receptors from malignant pseudobulk: intervals, ambient RNA, HER2 by two kinds of evidence, which subtype is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from helpers import record_of
from nicheloop import datasets, io, loop_cohort, patients, simulate, tables, tam_patients
from nicheloop import receptor_status as rs
from nicheloop.config import Config
from nicheloop.config_cells import Receptors, Simulate
from nicheloop.config_niche import Loop
from nicheloop.config_states import Tam

OPTIONS = Receptors()
NONE = (np.nan, np.nan, np.nan)
LUMINAL = {"ESR1": 200, "PGR": 60, "ERBB2": 40, "GRB7": 20, "PGAP3": 5, "MIEN1": 120, "STARD3": 15}
AMPLIFIED = {"ERBB2": 700, "GRB7": 200, "PGAP3": 60, "MIEN1": 1100, "STARD3": 120}
BASAL = {"KRT5": 400, "KRT14": 100, "KRT17": 500, "MIEN1": 100, "ERBB2": 20}


def cells(
    cpm: dict[str, float],
    *,
    n: int = 100,
    umi: float = 8000,
    kind: str = "malignant",
    seed: int = 0,
    shape: float = 2.0,
) -> pd.DataFrame:
    """Score table of one compartment: gamma-Poisson counts of the genes, 0 for those not named."""
    rng = np.random.default_rng([seed, len(kind)])
    total = np.round(rng.lognormal(np.log(umi), 0.4, n))
    counts = {
        f"umi_{g}": rng.poisson(rng.gamma(shape, 1 / shape, n) * cpm.get(g, 0.0) * total / 1e6).astype(float)
        for g in rs.GENES
    }
    return pd.DataFrame({"compartment": kind, "n_counts": total, **counts})


def row_of(
    table: pd.DataFrame, *, her2: bool | None = None, rates: dict[str, float] | None = None
) -> dict[str, object]:
    return rs.markers_of(table, {"her2": {"clone_1": {"amplified": her2}}}, rates or {}, OPTIONS)


def test_interval_is_garwoods_where_cells_are_poisson() -> None:
    table = pd.DataFrame({"n_counts": np.full(100, 1e4), "umi_ESR1": [1.0] * 7 + [0.0] * 93})
    level = rs.level_of(table, ("ESR1",), NONE, 0.95)
    assert (level.umi, level.cpm) == (7, 7)
    assert level.low == pytest.approx(chi2.ppf(0.025, 14) / 2) and level.high == pytest.approx(chi2.ppf(0.975, 16) / 2)


def test_interval_covers_the_rate_of_tumours_whose_cells_differ() -> None:
    inside = 0
    for seed in range(300):
        level = rs.level_of(cells({"ESR1": 60}, seed=seed, shape=0.7), ("ESR1",), NONE, 0.95)
        inside += level.low <= 60 <= level.high
    assert inside / 300 >= 0.92  # binomial: 0.95 with 300 draws is 0.925 to 0.975


@pytest.mark.parametrize(
    ("cpm", "n", "umi", "expected"),
    [
        (LUMINAL, 100, 8000, "HR+"),
        (AMPLIFIED, 100, 8000, "HER2+"),
        (AMPLIFIED | {"ESR1": 200, "PGR": 60}, 100, 8000, "HER2+"),
        (BASAL, 300, 8000, "TNBC"),
        (BASAL, 25, 700, "undetermined"),  # 17,500 UMI: no PGR count says nothing
        (LUMINAL, 25, 700, "undetermined"),
    ],
)
def test_subtype_is_told_where_depth_allows_it(cpm: dict[str, float], n: int, umi: float, expected: str) -> None:
    row = row_of(cells(cpm, n=n, umi=umi))
    assert row["subtype_inferred"] == expected
    assert row["status"] == ("undetermined" if expected == "undetermined" else "ok")
    shallow = umi < 1000
    assert row["basal"] == ("positive" if "KRT5" in cpm else "undetermined" if shallow else "negative")
    if shallow:
        assert "negative" not in (row["er"], row["pr"])


def test_ambient_rna_makes_no_receptor() -> None:
    """Tumour cells that hold ESR1 only because luminal RNA floats in the sample."""
    tumour = cells({**BASAL, "ESR1": 60}, n=200, shape=50)
    assert row_of(tumour)["er"] == "positive"
    known = row_of(tumour, rates={"ESR1": 0.55} | dict.fromkeys(set(rs.GENES) - {"ESR1"}, 0.0))
    assert known["er"] == "negative" and known["ambient_source"] == "estimated" and known["er_ambient_cpm"] == 55
    assert known["er_umi"] == tumour["umi_ESR1"].sum()
    others = pd.concat([tumour, cells({"ESR1": 55}, n=400, kind="t_nk", shape=50)])
    row = row_of(others)
    assert row["er"] == "negative" and row["ambient_source"] == "other_cells"
    # fibroblasts make ESR1 themselves: no measure of what floats
    assert row_of(pd.concat([tumour, cells({"ESR1": 55}, n=400, kind="caf")]))["ambient_source"] == "none"
    # an ambient rate that is hardly known takes more off the lower end, and less off the upper
    rates = {"ESR1": 0.55, "ESR1 log_se": 1.0} | dict.fromkeys(set(rs.GENES) - {"ESR1"}, 0.0)
    assert row_of(tumour, rates=rates)["er"] == "undetermined"


@pytest.mark.parametrize(
    ("cpm", "amplicon", "expected"),
    [
        (AMPLIFIED, None, "positive"),
        (AMPLIFIED, True, "positive"),
        (AMPLIFIED, False, "undetermined"),
        (LUMINAL, None, "negative"),
        (LUMINAL, True, "undetermined"),
        ({**LUMINAL, "ERBB2": 150}, False, "negative"),  # luminal expression without an amplicon
        ({**LUMINAL, "ERBB2": 900}, None, "undetermined"),
        ({**AMPLIFIED, "ERBB2": 20}, None, "undetermined"),  # neighbours without the gene itself are no HER2
    ],
)
def test_her2_is_two_kinds_of_evidence(cpm: dict[str, float], amplicon: bool | None, expected: str) -> None:
    assert row_of(cells(cpm, n=300, shape=20), her2=amplicon)["her2"] == expected


def test_absent_genes_and_few_cells_are_named() -> None:
    table = cells(LUMINAL)
    row = row_of(table.assign(umi_PGR=np.nan))
    assert row["status"] == "gene_absent_from_reference" and "PGR" in str(row["reason"]) and row["pr"] == "not_measured"
    assert row["er"] == "positive" and row["subtype_inferred"] == "HR+"  # what is measured still speaks
    assert row_of(table.drop(columns="umi_GRB7"))["her2"] == "not_measured"
    few = row_of(cells(LUMINAL, n=19))
    assert few["status"] == "too_few_malignant" and few["er"] == few["her2"] == "not_measured"
    assert np.isnan(float(str(few["er_cpm"]))) and few["subtype_inferred"] == "undetermined"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("ER+", "HR+"), ("HR+/HER2-", "HR+"), ("ER+/HER2+", "HER2+"), ("HER2+", "HER2+"), ("HER2-enriched", "HER2+"),
        ("TNBC", "TNBC"), ("triple-negative", "TNBC"), ("Triple negative", "TNBC"), ("Luminal B", "HR+"),
        ("ER-/PR-/HER2-", "TNBC"), ("HR-/HER2+", "HER2+"), ("Basal-like", "TNBC"), ("PR+", "HR+"), ("ER positive", "HR+"),
        ("normal", None), ("", None), (None, None), ("apocrine", None), ("HER2-", None),
    ],
)  # fmt: skip
def test_words_of_a_sheet(word: str | None, expected: str | None) -> None:
    assert rs.canonical(word) == expected


def test_every_subtype_of_the_catalogue_is_understood_or_no_tumours() -> None:
    words = {s.subtype for d in datasets.catalogue(None).values() for s in d.samples if s.subtype}
    assert {w for w in words if rs.canonical(w) is None} <= {"normal"}


def test_the_sheet_stands_and_the_inferred_takes_its_word() -> None:
    given = [
        ("ER+", "HR+"),
        ("ER+", "TNBC"),
        ("HR+", "undetermined"),
        (None, "HR+"),
        (None, "HER2+"),
        (None, "undetermined"),
    ]
    rows = rs.used_subtypes([{"subtype_sheet": s, "subtype_inferred": i} for s, i in given])
    assert [(r["subtype_used"], r["subtype_source"], r["agreement"]) for r in rows] == [
        ("ER+", "sheet", "agrees"), ("ER+", "sheet", "differs"), ("HR+", "sheet", "not_compared"),
        ("ER+", "inferred", "not_compared"), ("HER2+", "inferred", "not_compared"), (None, "none", "not_compared"),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- files
def write(folder: Path, sample: str, table: pd.DataFrame, **record: object) -> dict[str, Path]:
    """Write what the stage reads of one sample."""
    folder = folder / sample
    folder.mkdir()
    paths = {n: folder / f for n, f in (("scores", "scores.parquet"), ("malignancy", "malignancy.parquet"),
                                        ("ambient", "ambient.parquet"), ("records", "ingest.json"))}  # fmt: skip
    ids = [f"{sample}:c{i}" for i in range(len(table))]
    io.write_table(
        table.assign(cell_id=ids, foreign_share=np.nan), paths["scores"], "scores", io.Status("score", sample)
    )
    io.write_table(tables.empty("malignancy"), paths["malignancy"], "malignancy", io.Status("malignancy", sample))
    ambient = pd.DataFrame({"gene": rs.GENES, "ambient_fraction": 1e-6, "contamination_rate": 0.05, "pool": "cells"})
    io.write_table(ambient, paths["ambient"], "ambient", io.Status("ambient", sample))
    io.write_json(paths["records"], record_of(sample, len(table), len(rs.GENES), **record))
    return paths


def readers(folder: Path, files: dict[str, list[Path]], receptors: Path) -> None:
    """Cohort tables by subtype hold the inferred one, marked; without the receptors they know none."""
    n = len(files["scores"])
    out = [folder / f"{name}.tsv" for name in ("tam", "markers", "cohort")]
    empty = {}
    for name in ("tam", "tam_draws", "loop_arms"):
        empty[name] = [path.parent / f"{name}.parquet" for path in files["scores"]]
        for path in empty[name]:
            io.write_table(tables.empty(name), path, name, io.Status(name, path.parent.name))
    for given, expected in ((receptors, ("ER+", "inferred")), (None, (None, None))):
        tam_patients.run_tam_patients(
            empty["tam"], empty["tam_draws"], files["scores"], files["records"], *out, options=Tam(), receptors=given
        )
        table = io.read_table(out[0]).set_index("sample")
        assert len(table) == n and table.at["b", "subtype_source"] == "sheet"
        assert tuple(None if pd.isna(v) else v for v in table.loc["a1", ["subtype", "subtype_source"]]) == expected
        loop_cohort.run_loop_cohort(
            empty["loop_arms"], files["records"], out[1], out[2], options=Loop(), seed=0, receptors=given
        )
        table = io.read_table(out[1]).set_index("patient").loc["A"].iloc[0]
        assert tuple(None if pd.isna(v) else v for v in table[["subtype", "subtype_source"]]) == expected
        said = "subtype inferred from RNA: 1 of" in io.read_table(out[2])["strata"].iloc[0]
        assert said == (given is not None)


def test_one_row_for_every_patient_and_the_subtype_reaches_the_records(tmp_path: Path) -> None:
    nothing = cells(LUMINAL, n=1).iloc[:0]
    samples = [
        write(tmp_path, "a1", cells(LUMINAL, n=200), patient="A", tissue="tumour"),
        write(tmp_path, "a2", cells(BASAL, n=300), patient="A", tissue="lymph_node"),
        write(tmp_path, "a3", cells(BASAL, n=300), patient="A", tissue="normal"),
        write(tmp_path, "b", cells(LUMINAL, n=200), subtype="ER+"),
        write(tmp_path, "n", cells(LUMINAL, n=200), tissue="normal"),
        write(tmp_path, "tpm", cells(LUMINAL, n=200), is_counts=False),
        write(tmp_path, "gone", nothing, status="unreadable", reason="cannot be read"),
        write(tmp_path, "few", cells(LUMINAL, n=5)),
    ]
    files = {k: [s[k] for s in samples] for k in samples[0]}
    out = tmp_path / "receptor_status.tsv"
    rs.run_receptor_status(**files, out=out, options=OPTIONS)
    table = io.read_table(out).set_index("patient")
    assert table["status"].to_dict() == {
        "A": "ok", "b": "ok", "n": "normal_tissue", "tpm": "no_counts", "gone": "unreadable", "few": "too_few_malignant",
    }  # fmt: skip
    assert table.at["A", "sample"] == "a1" and table.at["A", "er_ambient_cpm"] == pytest.approx(0.05)
    assert table.at["A", "subtype_used"] == "ER+" and table.at["A", "subtype_source"] == "inferred"
    assert set(table.loc[["n", "tpm", "gone", "few"], "er"]) == {"not_measured"}
    assert table.loc[["n", "tpm", "gone", "few"], "er_cpm"].isna().all() and table.at["n", "n_malignant"] == 200
    assert table.at["gone", "reason"] == "cannot be read" and table.at["few", "subtype_source"] == "none"
    records = [io.read_json(r) for r in files["records"]]
    given = {r["sample"]: (r["subtype"], r["subtype_source"]) for r in patients.with_subtypes(records, out)}
    assert given["a1"] == given["a2"] == ("ER+", "inferred")  # a patient has one subtype
    assert given["a3"] == (None, None)  # normal tissue has none
    assert given["b"] == ("ER+", "sheet") and given["few"] == (None, None)
    assert patients.with_subtypes(records, None)[0]["subtype"] is None
    readers(tmp_path, files, out)
    rs.run_receptor_status([], [], [], [], out, options=OPTIONS)
    assert io.read_table(out).empty


# ------------------------------------------------------------------------------------------------- simulated and real
@pytest.mark.parametrize("plan", [p for p in simulate.PLANS if p.tissue == "tumour"], ids=lambda p: p.sample)
def test_demo_tumours_have_the_subtype_that_was_planted(plan: simulate.Plan) -> None:
    """Counts of the demo with the true labels, without the copy-number stage; the shallow one may stay open."""
    found = simulate.simulate_sample(plan, simulate.profiles(), options=Simulate(), seed=0)
    truth = found.cells.reset_index(drop=True)
    column = {g: i for i, g in enumerate(simulate.profiles().genes)}
    umi = {f"umi_{g}": np.asarray(found.counts[:, [column[g]]].todense()).ravel().astype(float) for g in rs.GENES}
    kind = np.where(truth["malignant"], "malignant", truth["cell_type"])
    table = pd.DataFrame(
        {"compartment": kind, "n_counts": np.asarray(found.counts.sum(axis=1)).ravel().astype(float), **umi}
    )
    row = rs.markers_of(table, {}, {}, Config().receptors)
    expected = rs.canonical(plan.subtype)
    assert row["subtype_inferred"] in ({expected, "undetermined"} if plan.shallow else {expected})


# Receptors by protein or amplification as published for the lines; those the RNA cannot tell are listed below.
HER2_LINES = {"AU565", "BT474", "HCC1954", "MDAMB361"}
ER_LINES = {"BT483", "CAMA1", "EFM19", "HCC1500", "KPL1", "MCF7", "MDAMB361", "T47D"}
TN_LINES = {"BT549", "CAL51", "CAL851", "DU4475", "HCC1143", "HCC1187", "HCC1937", "HCC38", "HCC70", "HS578T", "MDAMB436",
            "MDAMB468", "MX1"}  # fmt: skip
BASAL_LINES = {
    "BT20",
    "CAL851",
    "HCC1143",
    "HCC1187",
    "HCC1937",
    "HCC1954",
    "HCC70",
    "HS578T",
    "MCF12A",
    "MDAMB468",
    "MX1",
}


def test_cell_lines_of_known_receptors(real_data: Path) -> None:
    """30 cells of each line are shallow: no call may be wrong, and those that are clear must be made."""
    import anndata as ad

    adata = ad.read_h5ad(real_data / "cell_lines" / "BC_cell_lines_930.h5ad")
    symbols = adata.var["symbol"].to_numpy()
    calls = {}
    for line, rows in adata.obs.groupby("cell_line", observed=True).indices.items():
        x = adata.X[rows]
        umi = {f"umi_{g}": np.asarray(x[:, np.flatnonzero(symbols == g)].sum(axis=1)).ravel() for g in rs.GENES}
        total = np.asarray(x.sum(axis=1)).ravel()
        calls[str(line)] = row_of(
            pd.DataFrame({"compartment": "malignant", "n_counts": total, **umi}).astype({"n_counts": float})
        )
    table = pd.DataFrame(calls).T
    print(table[["er", "pr", "her2", "basal", "subtype_inferred"]].to_string())
    assert not (table.loc[sorted(ER_LINES), "er"] == "negative").any()
    assert not (table.loc[sorted(TN_LINES | {"AU565", "JIMT1", "MDAMB453"}), "er"] == "positive").any()
    assert {"MCF7", "HCC1500", "CAMA1"} <= set(table.index[table["er"] == "positive"]) <= ER_LINES
    assert set(table.index[table["her2"] == "positive"]) == HER2_LINES
    assert not (table.loc[sorted(TN_LINES), "her2"] == "positive").any()
    assert set(table.index[table["basal"] == "positive"]) >= {"MCF12A", "HCC1187", "HCC70", "MX1"}
    assert set(table.index[table["basal"] == "positive"]) <= BASAL_LINES | {"JIMT1", "DU4475"}


def test_real_tumour_of_known_receptor(real_data: Path) -> None:
    """An ER-positive tumour of 687 barcodes; no part in the choice of the cuts.  Epithelium stands for malignant cells."""
    import h5py
    from scipy import sparse

    file = real_data / "tumours" / "tenx_idc" / "Breast_Cancer_3p_LT_filtered_feature_bc_matrix.h5"
    with h5py.File(file) as handle:
        m = handle["matrix"]
        x = sparse.csc_matrix((m["data"][:], m["indices"][:], m["indptr"][:]), shape=m["shape"][:]).T.tocsr()
        symbols = m["features"]["name"].asstr()[:]
    column = {g: i for i, g in enumerate(symbols)}
    total = np.asarray(x.sum(axis=1), dtype=float).ravel()
    mito = np.asarray(x[:, [i for g, i in column.items() if g.startswith("MT-")]].sum(axis=1)).ravel() / total
    umi = {f"umi_{g}": np.asarray(x[:, [column[g]]].todense()).ravel().astype(float) for g in rs.GENES}
    epithelial = np.asarray(x[:, [column["EPCAM"]]].todense()).ravel() > 0
    table = pd.DataFrame({"compartment": np.where(epithelial, "malignant", "unresolved"), "n_counts": total, **umi})
    row = row_of(table[mito < 0.2])
    assert (row["er"], row["pr"], row["her2"], row["basal"]) == ("positive", "positive", "negative", "negative")
    assert row["subtype_inferred"] == "HR+" and row["ambient_source"] == "none"
