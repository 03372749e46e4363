"""Figures: they draw what the tables say and survive what is missing."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from nicheloop import (
    contracts,
    figures,
    figures_cells,
    figures_fonts,
    figures_memory,
    figures_niche,
    figures_patients,
    figures_ticks,
    report_text,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def texts(figure: object) -> str:
    from matplotlib.text import Text

    return " | ".join(t.get_text() for t in figure.findobj(Text))  # type: ignore[attr-defined]


def test_every_type_and_call_has_its_own_colour() -> None:
    assert set(contracts.MAJOR_TYPES) <= set(figures.TYPE_COLOURS)
    assert set(contracts.MALIGNANCY) == set(figures.MALIGNANCY_COLOURS)
    for palette in (figures.TYPE_COLOURS, figures.MALIGNANCY_COLOURS, figures.QC_COLOURS, figures.TAM_COLOURS):
        assert len(set(palette.values())) == len(palette)


def test_every_axis_status_has_a_mark_of_its_own() -> None:
    assert set(contracts.AXIS_STATUSES) - {"tested"} <= set(figures.STATUS_MARKS)
    assert len({m for m, _ in figures.STATUS_MARKS.values()}) == len(figures.STATUS_MARKS)


def test_render_gives_the_same_bytes_whatever_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    counts = pd.DataFrame({"pass": [10, 0], "doublet": [2, 0]}, index=["a", "b"])
    first = [figures.render(figures_cells.qc_attrition(counts), kind) for kind in ("png", "svg")]
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        second = [figures.render(figures_cells.qc_attrition(counts), kind) for kind in ("png", "svg")]
    assert first == second
    assert first[0].startswith(b"\x89PNG") and b"dc:date" not in first[1]


def test_drawing_once_gives_what_savefig_gives() -> None:
    """Matplotlib's own savefig draws twice, the first time for the layout."""
    import matplotlib
    from PIL import Image

    counts = pd.DataFrame({"pass": [10, 0], "doublet": [2, 0]}, index=["a", "b"])
    plain, ours = figures_cells.qc_attrition(counts), figures_cells.qc_attrition(counts)
    saved = {kind: io.BytesIO() for kind in ("png", "svg", "pdf")}
    with matplotlib.rc_context(figures.style()):
        plain.savefig(saved["png"], dpi=figures.DPI)
        figures.render(ours)  # freezes the layout
        ours.savefig(saved["svg"], format="svg", dpi=figures.DPI, metadata={"Date": None, "Creator": None})
        undated = {"CreationDate": None, "Creator": None, "Producer": None}
        with figures_fonts.bare_fonts():
            ours.savefig(saved["pdf"], format="pdf", dpi=figures.DPI, metadata=undated)
    reduced = io.BytesIO()
    figures.few_colours(np.asarray(Image.open(saved["png"]).convert("RGBA")), reduced)
    again = figures_cells.qc_attrition(counts)
    assert figures.render(again) == reduced.getvalue()
    assert figures.render(again, "svg") == saved["svg"].getvalue()
    assert figures.render(again, "pdf") == saved["pdf"].getvalue()


def crowded() -> Figure:
    """Shared, logarithmic and turned axes, labels set by hand, a colour bar, lines of text."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", sharey="row")
    axes[0, 0].plot([0, 1e5], [0.001, 3000])
    axes[0, 0].set_yscale("log")
    axes[0, 1].set_title("two\nlines")
    axes[1, 0].set_yticks([0, 1, 2], ["a", "b b b b", "c"], fontsize=7)
    axes[1, 0].set_xlabel("below", rotation=10)
    axes[1, 1].tick_params(axis="x", labelrotation=60, labelsize=6, color="red")
    axes[1, 1].grid(axis="x")
    figure.colorbar(axes[1, 1].scatter([0, 3], [0, 2], c=[0, 7]), ax=axes)
    return figure


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_what_is_remembered_and_copied_does_not_change_the_picture(kind: str) -> None:
    import matplotlib

    drawn = []
    for ours in (False, True):
        with matplotlib.rc_context(figures.style()), contextlib.ExitStack() as stack:
            if ours:
                stack.enter_context(figures_ticks.copied_ticks())
            figure = crowded()
            if ours:
                stack.enter_context(figures_memory.remembered(figure))
            drawn.append(io.BytesIO())
            metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
            figure.savefig(drawn[-1], format=kind, metadata=metadata)
    assert drawn[0].getvalue() == drawn[1].getvalue()


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    from fontTools import subset
    from matplotlib.axis import Axis
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.text import Text

    def inner() -> tuple[object, ...]:
        changed = Text._get_layout, RendererAgg._prepare_font  # type: ignore[attr-defined]
        return subset.load_font, Axis.get_major_ticks, *changed

    before, figure = inner(), crowded()
    figures.render(figure, "pdf")
    assert inner() == before
    assert not any("_update_ticks" in vars(axis) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis))


def test_a_copied_tick_changes_alone() -> None:
    with figures_ticks.copied_ticks():
        axis = crowded().axes[0].xaxis
        first, second = axis.get_major_ticks(2)
        second.label1.set_fontsize(30)
        second.update_position(7)
    assert first.label1.get_fontsize() != 30 and first.get_loc() != 7
    assert first.tick1line.get_xdata() != second.tick1line.get_xdata()


def test_the_layouts_kept_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_memory, "TEXTS", 5)
    monkeypatch.setattr(figures_memory, "_layouts", {})
    figures.render(crowded())
    assert 0 < len(figures_memory._layouts) <= 5


def test_fonts_of_a_pdf_have_the_glyphs_and_no_tables_for_typesetting() -> None:
    from fontTools import subset
    from fontTools.ttLib import TTFont
    from matplotlib import font_manager

    path = font_manager.findfont("DejaVu Sans")
    whole, bare = TTFont(path), TTFont(io.BytesIO(figures_fonts.bare(path)))
    assert whole.getGlyphOrder() == bare.getGlyphOrder() and whole["hmtx"].metrics == bare["hmtx"].metrics
    assert whole["head"].modified == bare["head"].modified, "a date would differ from run to run"
    assert "GSUB" in whole and not set(figures_fonts.LAYOUT) & set(bare.keys())
    with figures_fonts.bare_fonts():
        assert "GPOS" not in subset.load_font(path, subset.Options())


def test_few_colours_keep_paper_and_areas() -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    picture = np.full((200, 300, 4), 255, np.uint8)
    picture[:40, 50:250, :3] = np.linspace(0, 255, 200)[None, :, None].astype(np.uint8)
    picture[60:90, 50:250, :3] = (136, 34, 85)
    picture[100:180, 50:250, :3] = rng.integers(0, 255, (80, 200, 3))
    out = io.BytesIO()
    figures.few_colours(picture, out)
    few = np.asarray(Image.open(out).convert("RGB")).astype(int)
    assert (few[190] == 255).all() and (few[:, :50] == 255).all()
    assert np.abs(few[60:90] - picture[60:90, :, :3]).max() < 24
    alone = io.BytesIO()
    figures.few_colours(np.full((5, 5, 4), 255, np.uint8), alone)
    assert (np.asarray(Image.open(alone).convert("RGB")) == 255).all()


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


def test_forest_of_patients_says_why_one_is_missing() -> None:
    ends = [f"{n}{e}" for n in ("effect", "specificity") for e in ("", "_low", "_high")]
    table = pd.DataFrame({"label": ["P1", "P2"], "status": ["tested", "too_few_cells"], "q": [0.01, np.nan],
                          **{e: [1.0, np.nan] for e in ends}})  # fmt: skip
    pair = pd.Series({"axis": "IL6_classic", "sender": "icaf", "receiver": "malignant", "effect": 1.0, "effect_low": 0.5,
                      "effect_high": 1.5, "effect_loo_low": 0.8, "effect_loo_high": 1.2,
                      **dict.fromkeys([*ends[3:], "specificity_loo_low", "specificity_loo_high"], np.nan)})  # fmt: skip
    figure = figures_patients.axis_forest([(pair, table)], report_text.short_words, 0.05)
    said = texts(figure)
    assert (
        "IL6 classic: iCAF to malignant" in said
        and said.count("NA: too few cells") == 2
        and "NA: fewer than two" in said
    )
    band = figure.axes[0].patches[0]
    assert (band.get_x(), band.get_width()) == pytest.approx((0.8, 0.4))
    assert figures.render(figure)


def test_responses_show_raw_and_adjusted_for_both_labels() -> None:
    base = {"label": "P1", "axis": "IL6_classic", "status": "tested", "effect": 1.0, "effect_low": 0.5, "effect_high": 1.5,
            "effect_stress": 0.9, "effect_ifn": 0.8, "effect_adjusted": 0.7, "p_raw": 0.01, "p_stress": 0.2, "p_ifn": 0.01,
            "p_adjusted": 0.2}  # fmt: skip
    nothing = {k: np.nan for k, v in base.items() if isinstance(v, float)}
    arms = pd.DataFrame([{**base, "arm": "B"}, {**base, **nothing, "arm": "B_aldh1a3", "status": "too_few_csc"}])
    figure = figures_patients.responses(arms, ["P1"], {"IL6_classic": "STAT3 core"}, report_text.short_words)
    drawn = sorted(
        float(line.get_xdata()[0]) for line in figure.axes[0].lines if line.get_marker() not in ("None", None)
    )
    assert drawn == [0.7, 0.8, 0.9, 1.0]
    assert "NA: too few ALDH1A3-high cells" in texts(figure) and "STAT3 core: CD44+/CD24-" in texts(figure)


def test_decoys_without_a_share_keep_their_row() -> None:
    row = {
        "n_tested": 3.0,
        "fraction": np.nan,
        "fraction_low": np.nan,
        "fraction_high": np.nan,
        "fraction_usual": np.nan,
    }
    table = pd.DataFrame([{**row, "patient": "P1"}, {**row, "patient": "cohort", "fraction": 0.04, "fraction_low": 0.02,
                           "fraction_high": 0.08, "fraction_usual": 0.4}])  # fmt: skip
    said = texts(figures_patients.decoy_shares(table, 0.05))
    assert "NA: 3 decoys tested" in said and "P1" in said


def test_arm_checks_mark_direction_and_expectation() -> None:
    rows = pd.DataFrame({"label": ["a clone 1"] * 3, "region": ["1q", "16q", "9p24"], "expected": ["gain", "loss", "gain"],
                         "seen": ["gain", "gain", "not_measurable"], "agrees": [True, False, False], "log2": [0.4, 0.3, 0.0]})  # fmt: skip
    figure = figures_cells.arm_checks(rows, ["a clone 1"])
    said = texts(figure)
    assert "16q loss" in said and said.count("+") == 2
    assert len(figure.axes[0].patches) == 1  # framed only where it is as expected
    values = np.ma.filled(figure.axes[0].get_images()[0].get_array().astype(float), np.nan)
    assert np.isnan(values[0]).tolist() == [False, False, True]


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


def test_waterfall_ends_where_the_kept_barcodes_begin() -> None:
    reasons = pd.DataFrame({"pass": [400, 300], "low_counts": [50, 10], "doublet": [20, 0]}, index=["a", "b"])
    steps = figures_cells.attrition_steps(reasons)
    assert steps["left"].tolist()[0] == 780 and steps["left"].tolist()[-1] == 700
    assert (steps["left"].shift(1)[1:] - steps["dropped"][1:] == steps["left"][1:]).all()
    said = texts(figures_cells.qc_waterfall(steps))
    assert "700 (90 %)" in said and "-60" in said and "none" in said
    empty = figures_cells.attrition_steps(reasons.iloc[:0])
    assert empty["left"].eq(0).all() and "0 (0 %)" in texts(figures_cells.qc_waterfall(empty))
