"""Contracts: every one can be met, every breach is caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nicheloop import contracts, io, tables
from nicheloop.errors import NotAssessable

ROOT = Path(__file__).resolve().parents[1]


def test_outputs_page_is_generated():
    assert (ROOT / "docs/outputs.md").read_text() == tables.outputs_markdown(), "run `make generate`"


@pytest.mark.parametrize("name", sorted(tables.CONTRACTS))
def test_empty_table_meets_its_contract_and_survives_the_disk(name: str, tmp_path: Path):
    suffix = Path(tables.CONTRACTS[name].path).suffix
    path = tmp_path / f"t{suffix}"
    io.write_table(tables.empty(name), path, name)
    back = io.read_table(path)
    assert list(back.columns) == list(tables.empty(name).columns)
    assert len(back) == 0


@pytest.mark.parametrize("name", sorted(tables.CONTRACTS))
def test_key_columns_are_declared(name: str):
    contract = tables.CONTRACTS[name]
    declared = {c.name for c in contract.columns}
    assert set(contract.key) <= declared


def qc_row(**values: object) -> pd.DataFrame:
    row = {
        "cell_id": "s:a", "n_counts": 10.0, "n_genes": 5, "pct_mito": 1.0, "pct_ribo": np.nan, "pct_hb": np.nan,
        "doublet_score": np.nan, "doublet": pd.NA, "qc_pass": True, "qc_reason": "pass",
    }  # fmt: skip
    return pd.DataFrame([{**row, **values}])


def test_conform_orders_and_casts():
    table = tables.conform(qc_row()[["qc_reason", *[c for c in qc_row() if c != "qc_reason"]]], "qc")
    assert next(iter(table)) == "cell_id"
    assert str(table["n_genes"].dtype) == "Int64"
    assert str(table["doublet"].dtype) == "boolean"


@pytest.mark.parametrize(
    "values",
    [
        {"n_counts": -1},
        {"pct_mito": 101},
        {"qc_reason": "whim"},
        {"qc_pass": pd.NA},
        {"cell_id": None},
        {"n_counts": "many"},
        {"unknown": 1},
    ],
)
def test_breach_is_caught(values: dict):
    with pytest.raises(contracts.ContractError):
        tables.conform(qc_row(**values), "qc")


def states(**values: object) -> pd.DataFrame:
    """Three rows of a table with bounds, allowed values, NA that is allowed and a key."""
    whole = pd.concat([qc_row(cell_id=f"s:{i}", doublet=bool(i), pct_hb=float(i)) for i in range(3)], ignore_index=True)
    for column, value in values.items():
        whole[column] = pd.Series([*whole[column][:2], value], dtype=object)
    return whole


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"pct_hb": np.nan, "doublet": pd.NA},
        {"pct_hb": 100.0},
        {"pct_hb": 100.0001},
        {"pct_hb": np.inf},
        {"pct_hb": -0.0},
        {"n_counts": np.nan},
        {"n_genes": -1},
        {"qc_reason": ""},
        {"cell_id": "s:1"},
        {"cell_id": None},
        {"qc_pass": pd.NA},
    ],
)
def test_a_table_passes_if_and_only_if_its_schema_lets_it(values: dict):
    import pandera.errors

    table = states(**values)
    columns = tables.CONTRACTS["qc"].columns
    cast = pd.DataFrame({c.name: table[c.name].astype(contracts.DTYPES[c.kind]) for c in columns})
    try:
        tables.schema("qc", cast.columns).validate(cast, lazy=True)
    except pandera.errors.SchemaErrors:
        with pytest.raises(contracts.ContractError, match="breaks its contract"):
            tables.conform(table, "qc")
    else:
        pd.testing.assert_frame_equal(tables.conform(table, "qc"), cast)


def test_missing_column_and_repeated_key_are_caught():
    with pytest.raises(contracts.ContractError, match="missing"):
        tables.conform(qc_row().drop(columns="qc_pass"), "qc")
    with pytest.raises(contracts.ContractError):
        tables.conform(pd.concat([qc_row(), qc_row()]), "qc")


def test_a_name_can_be_declared_once_only():
    before = tables.CONTRACTS["qc"]
    with pytest.raises(ValueError, match="'qc' is declared twice"):
        contracts.declare("qc", "samples/{sample}/other.parquet", "another table", ["cell_id"], contracts.CELL)
    assert tables.CONTRACTS["qc"] is before


def test_stage_output_turns_not_assessable_into_an_empty_table_with_its_status(tmp_path: Path):
    with io.stage_output(tmp_path / "q.parquet", "qc", stage="qc", sample="s") as result:
        result.summary["n"] = 3
        raise NotAssessable("no_cells", "nothing there")
    status = io.read_status(tmp_path / "q.parquet")
    assert (status.status, status.reason, status.summary) == ("no_cells", "nothing there", {"n": 3})
    assert len(io.read_table(tmp_path / "q.parquet")) == 0


def test_stage_output_writes_nothing_when_the_program_fails(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), io.stage_output(tmp_path / "q.parquet", "qc", stage="qc"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_same_table_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        io.write_table(qc_row(), tmp_path / f"{name}.parquet", "qc", io.Status("qc", "s", summary={"x": np.float64(1)}))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_tsv_round_trip_keeps_na_and_words(tmp_path: Path):
    table = pd.DataFrame([{"sample": "NA12", "patient": "p", "cell_type": "caf", "n_cells": 0, "fraction": np.nan}])
    io.write_table(table, tmp_path / "c.tsv", "composition")
    back = io.read_table(tmp_path / "c.tsv")
    assert back.loc[0, "sample"] == "NA12"
    assert np.isnan(back.loc[0, "fraction"])


def test_text_given_as_categories_is_written_as_text(tmp_path: Path):
    plain = pd.concat([qc_row(cell_id=f"s:{i}", qc_reason=r) for i, r in enumerate(["pass", "low_counts", "pass"])])
    few = plain.assign(
        cell_id=pd.Categorical(plain["cell_id"], categories=["other", "s:2", "s:1", "s:0"]),
        qc_reason=plain["qc_reason"].astype("category"),
    )
    for name, table in (("plain", plain), ("few", few)):
        io.write_table(table, tmp_path / f"{name}.parquet", "qc")
    assert (tmp_path / "plain.parquet").read_bytes() == (tmp_path / "few.parquet").read_bytes()
    pd.testing.assert_frame_equal(tables.conform(few, "qc"), tables.conform(plain, "qc"))
    with pytest.raises(contracts.ContractError, match="whim"):
        tables.conform(few.assign(qc_reason=pd.Categorical(["pass", "whim", "pass"])), "qc")
    with pytest.raises(contracts.ContractError):
        tables.conform(few.assign(cell_id=pd.Categorical.from_codes([0, 1, -1], ["a", "b"])), "qc")
    with pytest.raises(contracts.ContractError):
        tables.conform(few.assign(cell_id=pd.Categorical(["a", "b", "a"])), "qc")


def test_a_table_of_the_contract_shares_nothing_with_what_it_was_made_of():
    given = qc_row()
    tables.conform(given, "qc")["n_counts"].to_numpy()[:] = 0
    assert given["n_counts"].tolist() == [10.0]
