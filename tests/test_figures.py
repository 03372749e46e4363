"""Figures: they draw what the tables say and survive what is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nicheloop import figures, figures_cells, figures_niche, report_text, tables


def texts(figure: object) -> str:
    from matplotlib.text import Text

    return " | ".join(t.get_text() for t in figure.findobj(Text))  # type: ignore[attr-defined]


def test_every_type_and_call_has_its_own_colour() -> None:
    assert set(tables.MAJOR_TYPES) <= set(figures.TYPE_COLOURS)
    assert set(tables.MALIGNANCY) == set(figures.MALIGNANCY_COLOURS)
    for palette in (figures.TYPE_COLOURS, figures.MALIGNANCY_COLOURS, figures.QC_COLOURS, figures.TAM_COLOURS):
        assert len(set(palette.values())) == len(palette)


def test_every_axis_status_has_a_mark_of_its_own() -> None:
    assert set(tables.AXIS_STATUSES) - {"tested"} <= set(figures.STATUS_MARKS)
    assert len({m for m, _ in figures.STATUS_MARKS.values()}) == len(figures.STATUS_MARKS)


def test_render_gives_the_same_bytes_whatever_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    counts = pd.DataFrame({"pass": [10, 0], "doublet": [2, 0]}, index=["a", "b"])
    first = [figures.render(figures_cells.qc_attrition(counts), kind) for kind in ("png", "svg")]
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        second = [figures.render(figures_cells.qc_attrition(counts), kind) for kind in ("png", "svg")]
    assert first == second
    assert first[0].startswith(b"\x89PNG") and b"dc:date" not in first[1]


def test_stratified_keeps_every_sample_and_its_share() -> None:
    cells = pd.DataFrame({"sample": ["a"] * 900 + ["b"] * 90 + ["c"] * 2, "x": np.arange(992)})
    out = figures_cells.stratified(cells, "sample", 100)
    counts = out["sample"].value_counts()
    assert len(out) <= 101 and set(counts.index) == {"a", "b", "c"}
    assert counts["a"] == 90 and counts["b"] == 9 and out["x"].is_unique
    assert len(figures_cells.stratified(cells, "sample", 10_000)) == 992
    pd.testing.assert_frame_equal(out, figures_cells.stratified(cells, "sample", 100))


def test_forest_keeps_rows_without_an_estimate() -> None:
    rows = pd.DataFrame(
        {
            "label": ["P1", "P2"],
            "value": [0.1, np.nan],
            "low": [0.05, np.nan],
            "high": [0.2, np.nan],
            "note": ["10 %", "too shallow"],
        }
    )
    said = texts(figures_niche.forest(rows, "t", "x"))
    assert "P2" in said and "NA: too shallow" in said
    nothing = rows.assign(value=np.nan, low=np.nan, high=np.nan)
    assert figures.render(figures_niche.forest(nothing, "t", "x"))


def test_loop_arm_without_answer_says_why() -> None:
    arms = pd.DataFrame({
        "label": ["P1"] * 3, "axis": "IL6_classic", "arm": list("ABC"), "status": ["tested", "tested", "ligand_not_detected"],
        "effect": [1.0, 0.5, np.nan], "effect_low": [0.5, np.nan, np.nan], "effect_high": [1.5, np.nan, np.nan], "p": [0.01, 0.2, np.nan],
    })  # fmt: skip
    figure = figures_niche.loop_arms(arms, ["P1", "P2"], ["IL6_classic"], report_text.short_words)
    assert "NA: ligand not detected" in texts(figure) and "NA: no row" in texts(figure)
    bars = [[p.get_width() for p in ax.patches] for ax in figure.axes]
    assert bars == [[1.0], [0.5], []]


def test_axis_dots_show_untestable_pairs() -> None:
    base = {"axis": "IL6_classic", "arm": "forward", "receiver": "malignant", "n_patients": 4, "n_significant": 1}
    table = pd.DataFrame([
        {**base, "sender": "icaf", "n_assessable": 3, "effect": 1.0, "status": "ok"},
        {**base, "sender": "mast", "n_assessable": 1, "effect": np.nan, "status": "too_few_patients"},
        {**base, "sender": "pvl", "n_assessable": 0, "effect": np.nan, "status": "receptor_not_detected"},
    ])  # fmt: skip
    said = texts(figures_niche.axis_dots(table, ["IL6_classic"]))
    assert "1/3" in said and "1/1" in said and "receptor not detected" in said and "mast" in said
    untested = table.assign(n_assessable=0, effect=np.nan, status="no_counts")
    assert figures.render(figures_niche.axis_dots(untested, ["IL6_classic"]))


def test_cnv_orders_chromosomes_as_numbers() -> None:
    rows = [("caf", 5, f"chr{c}", 0, 10, "1p", float(c)) for c in (10, 2, 1)]
    table = pd.DataFrame(rows, columns=["group", "n_cells", "chromosome", "start", "end", "arm", "value"])
    figure = figures_cells.cnv([("s", table)])
    image = figure.axes[0].get_images()[0].get_array()
    assert np.asarray(image).tolist() == [[1.0, 2.0, 10.0]]


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, "0"), (0.0712, "7.1"), (0.099, "9.9"), (0.0996, "10"), (0.5, "50"), (np.nan, "NA")]
)
def test_percent(value: float, expected: str) -> None:
    assert figures.percent(value).split("\u00a0")[0] == expected
