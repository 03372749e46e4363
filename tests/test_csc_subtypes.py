"""Subtypes against other tumours: the patient is the unit, the interval of every tumour counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nicheloop import csc_subtypes
from nicheloop.config_states import Csc


def patients(
    fractions: dict[str, list[float]], width: float = 0.02, chemistry: str = "10x", n: int = 500
) -> pd.DataFrame:
    rows = [
        {"patient": f"{s}{i}", "sample": f"{s}{i}", "subtype": s or None, "subtype_source": "sheet", "chemistry": chemistry,
         "n_malignant": n, "m_csc_fraction": f, "m_csc_low": max(f - width, 0.0), "m_csc_high": min(f + width, 1.0),
         "aldh1a3_fraction": np.nan, "aldh1a3_low": np.nan, "aldh1a3_high": np.nan}
        for s, values in fractions.items() for i, f in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def contrasts(table: pd.DataFrame) -> pd.DataFrame:
    found = csc_subtypes.subtype_contrasts(table, options=Csc(), seed=0)
    return found[found["outcome"] == "m_csc"].set_index("subtype")


def test_a_planted_odds_ratio_is_found_with_its_exact_p() -> None:
    got = contrasts(patients({"TNBC": [0.30, 0.32, 0.28, 0.31], "ER+": [0.10, 0.11, 0.09, 0.10, 0.12]})).loc["TNBC"]
    odds = lambda f: f / (1 - f)  # noqa: E731
    assert got["odds_ratio"] == pytest.approx(odds(0.3025) / odds(0.104), rel=0.03)
    assert got["odds_low"] < got["odds_ratio"] < got["odds_high"] and got["odds_low"] > 1
    assert got["p"] == pytest.approx(1 / 126)  # the most extreme of 9 choose 4 divisions
    assert got["fraction_low"] < 0.30 < got["fraction_high"]
    assert (got["n_subtype"], got["n_others"], got["status"]) == (4, 5, "tested")


def test_a_wide_interval_of_its_own_makes_a_tumour_say_less() -> None:
    table = patients({"TNBC": [0.1, 0.1, 0.5], "ER+": [0.1, 0.1, 0.1]})
    sure = contrasts(table).loc["TNBC", "fraction"]
    unsure = table.assign(m_csc_low=table["m_csc_low"].where(table["m_csc_fraction"] < 0.4, 0.01),
                          m_csc_high=table["m_csc_high"].where(table["m_csc_fraction"] < 0.4, 0.99))  # fmt: skip
    assert contrasts(unsure).loc["TNBC", "fraction"] < sure


def test_too_few_unknown_and_another_chemistry_are_no_comparison() -> None:
    few = contrasts(patients({"TNBC": [0.3, 0.2], "ER+": [0.1, 0.1, 0.1]})).loc["TNBC"]
    assert few["status"] == "too_few_patients" and np.isnan(few["odds_ratio"]) and np.isnan(few["p"])
    assert "3 of each" in few["reason"] and few["fraction"] > 0
    unknown = contrasts(patients({"TNBC": [0.3] * 3, "ER+": [0.1] * 3, "": [0.9] * 4})).loc["TNBC"]
    assert unknown["n_others"] == 3 and "4 of unknown subtype left out" in unknown["reason"]
    apart = pd.concat([patients({"TNBC": [0.3] * 4}), patients({"ER+": [0.1] * 4}, chemistry="nuclei")])
    assert (contrasts(apart)["status"] == "too_few_patients").all()
    assert csc_subtypes.subtype_contrasts(apart.iloc[:0], options=Csc(), seed=0).empty


def test_a_fraction_of_nought_is_half_a_cell() -> None:
    got = contrasts(patients({"TNBC": [0.0, 0.0, 0.0], "ER+": [0.1, 0.12, 0.1]})).loc["TNBC"]
    assert 0 < got["fraction"] < 0.02 and 0 <= got["odds_ratio"] < 0.2
