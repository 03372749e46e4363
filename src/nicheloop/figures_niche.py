"""Figures of the report on states and signals: fractions, macrophages, axes, loop, enrichment, demo truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nicheloop.figures import (
    ACCENT,
    GREY,
    INK,
    STATUS_MARKS,
    TAM_COLOURS,
    TYPE_COLOURS,
    label_rows,
    new_figure,
    records,
    rows_height,
    short,
    styled,
    type_words,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@styled
def forest(rows: pd.DataFrame, title: str, label: str, naive: str | None = None) -> Figure:
    """Fractions with intervals; rows without an estimate keep their place and say why.

    `rows`: ``label``, ``value``, ``low``, ``high`` (fractions), ``note`` (text at the right edge), the column `naive`.
    """
    fig = new_figure(rows_height(len(rows), 0.27, 1.2))
    ax = fig.subplots()
    top = np.nanmax([*rows["high"].to_numpy(float), *(rows[naive].to_numpy(float) if naive else []), 0.05])
    ax.set_xlim(-0.01 * top, top * 1.08)
    for i, row in enumerate(records(rows)):
        if np.isfinite(row.value):
            ax.plot([row.low, row.high], [i, i], color=ACCENT, lw=2, solid_capstyle="butt")
            ax.plot(row.value, i, "o", color=ACCENT, ms=5.5)
            ax.text(1.01, i, row.note, transform=ax.get_yaxis_transform(), va="center", fontsize=7.5)
        else:
            ax.text(
                0, i, f"NA: {short(str(row.note), 105)}", va="center", fontsize=7.5, color="#666666", style="italic"
            )
    if naive and rows[naive].notna().any():
        shown = rows["value"].notna().to_numpy()
        ax.plot(
            rows.loc[shown, naive],
            np.flatnonzero(shown),
            "x",
            color=GREY,
            ms=5,
            label="CD44 > 0 and CD24 = 0 (do not trust)",
        )
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1.0), borderaxespad=0.1)
    label_rows(ax, list(rows["label"]))
    ax.set_yticks(range(len(rows)), [short(str(x), 34) for x in rows["label"]])
    ax.xaxis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
    ax.grid(axis="x", color="#E5E5E5", lw=0.6)
    ax.set_xlabel(label)
    ax.set_title(title, pad=18 if naive else 6)
    return fig


@styled
def controls(table: pd.DataFrame) -> Figure:
    """Share of every compartment that the CSC caller would take; one dot per sample, the bar is the median."""
    table = table.dropna(subset=["fraction_called"])
    names = [n for n in ("malignant", *TYPE_COLOURS) if n in set(table["cell_type"])]
    fig = new_figure(rows_height(len(names), 0.27, 1.1))
    ax = fig.subplots()
    for i, name in enumerate(names):
        values = table.loc[table["cell_type"] == name, "fraction_called"].to_numpy(float)
        colour = TYPE_COLOURS.get(name, ACCENT)
        ax.barh(i, float(np.median(values)), color=colour, alpha=0.35, height=0.6)
        ax.plot(values, np.full(len(values), i), "o", ms=4, color=colour, mec=INK, mew=0.3, clip_on=False)
    label_rows(ax, [type_words(n) for n in names])
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
    ax.set_xlabel("cells that would be called CD44+/CD24-")
    ax.set_title("What if all cells were scored?")
    return fig


@styled
def tam_planes(panels: Sequence[tuple[str, pd.DataFrame]], cut: float) -> Figure:
    """M1 x M2 plane of every sample; a panel is (title, macrophages of contract ``tam``)."""
    from matplotlib.lines import Line2D

    columns = 4
    rows = -(-len(panels) // columns)
    fig = new_figure(2.15 * rows + 0.6)
    axes = fig.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    every = np.concatenate([t[["m1_z", "m2_z"]].to_numpy(float).ravel() for _, t in panels])
    low, high = np.nanmin([*every, -2.0]) - 0.3, np.nanmax([*every, 2.0]) + 0.3
    for ax, (title, table) in zip(axes, panels, strict=False):
        colour = table["tam_class"].astype(object).map(TAM_COLOURS).fillna("#DDDDDD")
        ax.scatter(table["m1_z"], table["m2_z"], s=7, c=list(colour), lw=0)
        ax.axhline(cut, color=GREY, lw=0.7, ls="--")
        ax.axvline(cut, color=GREY, lw=0.7, ls="--")
        ax.set_title(short(title, 30), fontsize=8.5)
        ax.set(xlim=(low, high), ylim=(low, high))
        ax.tick_params(labelbottom=True)
    for i, ax in enumerate(axes[: len(panels)]):
        if i % columns == 0:
            ax.set_ylabel("M2 z", fontsize=8.5)
        if i + columns >= len(panels):
            ax.set_xlabel("M1 z", fontsize=8.5)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    marks = [
        Line2D(
            [], [], marker="o", ls="", color=c, ms=5, label=n.replace("_", "-").replace("m1", "M1").replace("m2", "M2")
        )
        for n, c in TAM_COLOURS.items()
    ]
    marks.append(Line2D([], [], marker="o", ls="", color="#DDDDDD", ms=5, label="transitional or no class"))
    fig.legend(
        handles=marks,
        loc="outside upper left",
        ncols=5,
        title=f"class (cut at z = {cut:g})",
        alignment="left",
        title_fontsize=8,
    )
    return fig


@styled
def axis_dots(axes_table: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Sender x receiver per axis: circle = tested (size: patients, colour: mean strength), other marks say why not.

    `axes_table`: contract ``axes``.
    """
    from matplotlib.lines import Line2D

    shown = [n for n in names if n in set(axes_table["axis"])]
    columns = 2 if len(shown) > 1 else 1
    rows = -(-len(shown) // columns)
    senders = {n: sorted(axes_table.loc[axes_table["axis"] == n, "sender"].unique()) for n in shown}
    receivers = {n: sorted(axes_table.loc[axes_table["axis"] == n, "receiver"].unique()) for n in shown}
    heights = [max(len(senders[n]) for n in shown[r * columns : (r + 1) * columns]) for r in range(rows)]
    fig = new_figure(sum(0.23 * h + 1.05 for h in heights) + 0.5)
    axes = fig.subplots(rows, columns, squeeze=False, height_ratios=[0.23 * h + 0.5 for h in heights]).ravel()
    tested = axes_table[axes_table["axis"].isin(shown) & axes_table["effect"].notna()]
    low, high = (float(tested["effect"].min()), float(tested["effect"].max())) if len(tested) else (0.0, 1.0)
    most = max(int(axes_table["n_patients"].max()), 1)
    image, used = None, set()
    for ax, name in zip(axes, shown, strict=False):
        part = axes_table[axes_table["axis"] == name]
        y = part["sender"].map({s: i for i, s in enumerate(senders[name])})
        x = part["receiver"].map({s: i for i, s in enumerate(receivers[name])})
        some, known = part["n_assessable"] > 0, part["effect"].notna()
        size = 30 + 120 * part["n_assessable"] / most
        lonely = some & ~known
        ax.scatter(x[lonely], y[lonely], s=size[lonely], facecolor="none", edgecolor="#666666", lw=0.9)
        image_here = ax.scatter(
            x[known],
            y[known],
            s=size[known],
            c=part.loc[known, "effect"],
            cmap="viridis_r",
            vmin=low,
            vmax=max(high, low + 0.5),
            edgecolor="#444444",
            lw=0.5,
        )
        image = image_here if known.any() else image
        for i in part.index[some.to_numpy()]:
            ax.annotate(
                f"{part.loc[i, 'n_significant']:.0f}/{part.loc[i, 'n_assessable']:.0f}",
                (x[i], y[i]),
                xytext=(8, 0),
                textcoords="offset points",
                fontsize=6.5,
                va="center",
            )
        for status, (mark, _) in STATUS_MARKS.items():
            mine = ~some & (part["status"] == status)
            if mine.any():
                used.add(status)
                colour = {"color": "#8A8A8A"} if mark in "x_+" else {"facecolor": "none", "edgecolor": "#8A8A8A"}
                ax.scatter(x[mine], y[mine], s=26, marker=mark, lw=0.8, **colour)
        ax.set_yticks(range(len(senders[name])), [type_words(s) for s in senders[name]], fontsize=7)
        wide = max(len(r) for r in receivers[name]) * len(receivers[name]) > 40
        ax.set_xticks(
            range(len(receivers[name])),
            [type_words(r) for r in receivers[name]],
            fontsize=7,
            rotation=30 if wide else 0,
            ha="right" if wide else "center",
        )
        ax.set(xlim=(-0.6, len(receivers[name]) - 0.4), ylim=(len(senders[name]) - 0.4, -0.6))
        ax.tick_params(length=0)
        ax.set_title(name.replace("_", " "))
        ax.grid(color="#F0F0F0", lw=0.6)
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    marks = [
        Line2D(
            [],
            [],
            marker="o",
            ls="",
            mfc="none",
            mec="#666666",
            ms=8,
            label="tested (significant / assessable patients)",
        )
    ]
    for status in [s for s in STATUS_MARKS if s in used]:
        mark, words = STATUS_MARKS[status]
        marks.append(Line2D([], [], marker=mark, ls="", mfc="none", mec="#8A8A8A", ms=5.5, label=words))
    fig.legend(handles=marks, loc="outside upper left", ncols=4, fontsize=7.5, columnspacing=1.0, handletextpad=0.3)
    fig.supylabel("sender", fontsize=8.5)
    fig.supxlabel("receiver", fontsize=8.5)
    if image is not None:
        bar = fig.colorbar(image, ax=list(axes), fraction=0.025, pad=0.01, aspect=30)
        bar.set_label("mean log2 strength over patients", fontsize=7.5)
    return fig


@styled
def loop_arms(arms: pd.DataFrame, order: Sequence[str], names: Sequence[str], words: Callable[[str], str]) -> Figure:
    """Effects of the arms A, B and C per patient; an arm without an answer says why in its place.

    `arms`: contract ``loop_arms`` with ``label`` (row); `words`: a few words for a status.
    """
    titles = {"A": "A forward (log2)", "B": "B response (z difference)", "C": "C return (log2)"}
    shown = [n for n in names if n in set(arms["axis"])]
    fig = new_figure(sum(0.2 * max(len(order), 1) + 0.75 for _ in shown) + 0.3)
    axes = fig.subplots(max(len(shown), 1), 3, squeeze=False, sharey=True)
    lookup = {(r.axis, r.arm, r.label): r for r in records(arms)}
    limits = {
        a: _symmetric(arms.loc[arms["arm"] == a, ["effect_low", "effect_high", "effect"]].to_numpy(float))
        for a in "ABC"
    }
    for row, name in zip(axes, shown, strict=False):
        for ax, arm in zip(row, "ABC", strict=True):
            low, high = limits[arm]
            ax.axvline(0, color="#777777", lw=0.8)
            for i, label in enumerate(order):
                r = lookup.get((name, arm, label))
                if r is None or not np.isfinite(r.effect):
                    why = "no row" if r is None else words(r.status)
                    ax.text(
                        (0.0 if high >= -low else low) + 0.02 * (high - low),
                        i,
                        f"NA: {short(why, 40)}",
                        fontsize=6.5,
                        va="center",
                        color="#777777",
                        style="italic",
                    )
                    continue
                ax.barh(i, r.effect, height=0.55, color=ACCENT if r.p < 0.05 else "#D5B5C6")
                if np.isfinite(r.effect_low) and np.isfinite(r.effect_high):
                    ax.plot([r.effect_low, r.effect_high], [i, i], color=INK, lw=1)
            ax.set_xlim(low, high)
            ax.set_title(f"{name.replace('_', ' ')}: {titles[arm]}", fontsize=8.5)
            ax.tick_params(axis="x", labelsize=7)
        label_rows(row[0], list(order), 7)
    return fig


def _symmetric(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    low, high = min(low, 0.0), max(high, 0.5)
    pad = 0.06 * (high - low)
    return low - pad, high + pad


@styled
def enrichment(table: pd.DataFrame, contrast: str, said: str, most: int = 16) -> Figure:
    """Strongest gene sets of a contrast (`said`: in words) by |NES|; filled bars have q < 0.25 (gseapy's FDR)."""
    part = table[(table["contrast"] == contrast) & table["nes"].notna()]
    part = part.reindex(part["nes"].abs().sort_values(ascending=False, kind="stable").index)[:most].sort_values(
        "nes", ascending=False
    )
    fig = new_figure(rows_height(len(part), 0.23, 1.1))
    ax = fig.subplots()
    strong = (part["q"] < 0.25).to_numpy()
    colours = np.where(part["nes"] > 0, "#882255", "#332288")
    bars = ax.barh(range(len(part)), part["nes"], color=colours)
    for bar, fill in zip(bars, strong, strict=True):
        bar.set_alpha(1.0 if fill else 0.35)
    ax.axvline(0, color="#777777", lw=0.8)
    ax.set_yticks(range(len(part)), [short(str(g), 46) for g in part["gene_set"]], fontsize=7.5)
    ax.set_ylim(len(part) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("normalised enrichment score (pale: q of 0.25 or more)")
    ax.set_title(f"Which gene sets lead and trail: {said}?")
    return fig


@styled
def truth_fractions(rows: pd.DataFrame) -> Figure:
    """Planted against estimated fraction with interval; `rows`: ``label``, ``truth``, ``value``, ``low``, ``high``."""
    fig = new_figure(rows_height(len(rows), 0.27, 1.1))
    ax = fig.subplots()
    for i, r in enumerate(records(rows)):
        if np.isfinite(r.value):
            ax.plot([r.low, r.high], [i, i], color=ACCENT, lw=2, solid_capstyle="butt")
            ax.plot(
                r.value,
                i,
                "o",
                color=ACCENT,
                ms=5.5,
                label="estimate, 95 % interval" if i == rows["value"].notna().argmax() else None,
            )
        else:
            ax.text(
                1.01,
                i,
                "no estimate",
                transform=ax.get_yaxis_transform(),
                va="center",
                fontsize=7.5,
                color="#666666",
                style="italic",
            )
    ax.plot(rows["truth"], np.arange(len(rows)), "D", mfc="none", mec=INK, ms=6, label="planted")
    label_rows(ax, list(rows["label"]))
    ax.xaxis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
    ax.set_xlim(left=0)
    ax.grid(axis="x", color="#E5E5E5", lw=0.6)
    ax.set_xlabel("CD44+/CD24- share of malignant cells")
    ax.set_title("Does the interval hold the planted fraction?")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=2, borderaxespad=0.1)
    return fig
