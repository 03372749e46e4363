"""ALDH isoforms one by one: against ambient RNA, with a name for every reason to say nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nicheloop import csc_isoforms
from nicheloop.config_states import Csc


def cells(n: int = 60, **umi: list[float] | float) -> pd.DataFrame:
    table = pd.DataFrame({"compartment": ["malignant"] * n + ["caf"] * 10, "n_counts": 10_000.0})
    for gene in csc_isoforms.ROLES:
        table[f"umi_{gene}"] = umi.get(gene, 0.0)
    return table


def rows(table: pd.DataFrame, ambient: dict[str, float] | None = None, counts: bool = True) -> pd.DataFrame:
    found = csc_isoforms.isoform_rows(table, ambient or {}, is_counts=counts, options=Csc())
    return pd.DataFrame(found).set_index("isoform")


def test_each_isoform_is_held_against_its_own_ambient_rate() -> None:
    table = cells(ALDH1A3=2.0, ALDH1A1=1.0, ALDH2=5.0)
    got = rows(table, {"ALDH1A3": 0.5, "ALDH1A1": 1.0})
    assert got["status"][["ALDH1A3", "ALDH1A1", "ALDH2", "ALDH3A1"]].tolist() == [
        "beyond_ambient", "ambient_not_exceeded", "ambient_not_estimated", "not_detected",
    ]  # fmt: skip
    assert got.loc["ALDH1A3", "umi"] == 120  # fibroblasts hold as many a cell and do not count
    assert got.loc["ALDH1A3", "ambient_umi"] == pytest.approx(30)
    assert got.loc["ALDH1A1", "p"] == pytest.approx(stats.poisson.sf(59, 60))
    assert got.loc["ALDH3A1", "upper"] == pytest.approx(3 / 60, rel=0.05)
    assert got["role"].value_counts().to_dict() == {"primary": 1, "secondary": 1, "exploratory": 6}


def test_what_cannot_be_said_has_its_reason_and_no_figure() -> None:
    absent = cells(ALDH1A3=2.0).assign(umi_ALDH2=np.nan)
    figures = ["umi", "rate", "fraction", "upper", "ambient_umi", "p"]
    for got, gene, status in (
        (rows(absent), "ALDH2", "gene_absent_from_reference"),
        (rows(cells(n=5, ALDH1A3=2.0)), "ALDH1A3", "too_few_malignant"),
        (rows(cells(ALDH1A3=2.0), counts=False), "ALDH1A3", "no_counts"),
        (rows(cells()[:0]), "ALDH1A3", "too_few_malignant"),
    ):
        assert got.loc[gene, "status"] == status
        assert got.loc[gene, figures].isna().all()
