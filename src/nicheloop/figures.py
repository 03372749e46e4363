"""All figures of the report: tables in, matplotlib figures out; no file is touched.  See docs/report.md.

Every function takes DataFrames as the contracts of `nicheloop.tables` describe them and returns a `Figure` drawn
without pyplot (no global state).  A cell type has the same colour everywhere; colours come from palettes made for
colour-blind readers (Paul Tol's), and where colour carries a class, a position, a label or a symbol carries it too.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

TYPE_COLOURS = {
    "epithelial": "#CC6677",
    "epithelial_malignant": "#882255",
    "epithelial_normal": "#EE99AA",
    "epithelial_unassigned": "#F3D5DA",
    "t_nk": "#332288",
    "b_cell": "#88CCEE",
    "plasmablast": "#44AA99",
    "myeloid": "#DDCC77",
    "mast": "#999933",
    "endothelial": "#117733",
    "caf": "#AA4499",
    "pvl": "#EE7733",
    "adipocyte": "#FFEE99",
    "erythrocyte": "#994F1D",
    "platelet": "#6699CC",
    "unresolved": "#BBBBBB",
}
MALIGNANCY_COLOURS = {"malignant": "#882255", "normal": "#44AA99", "unassigned": "#DDCC77", "not_epithelial": "#D5D5D5"}
QC_COLOURS = {
    "pass": "#44AA99",
    "low_counts": "#332288",
    "low_genes": "#88CCEE",
    "high_mito": "#CC6677",
    "doublet": "#DDCC77",
}
TAM_COLOURS = {"m1_like": "#CC6677", "m2_like": "#332288", "mixed": "#AA4499", "low": "#BBBBBB"}
SAMPLE_COLOURS = (
    "#332288",
    "#88CCEE",
    "#44AA99",
    "#117733",
    "#999933",
    "#DDCC77",
    "#CC6677",
    "#882255",
    "#AA4499",
    "#EE7733",
    "#6699CC",
    "#994F1D",
)
ACCENT, GREY, INK = "#882255", "#9A9A9A", "#222222"
STATUS_MARKS = {
    "ligand_not_detected": ("v", "ligand not detected"),
    "receptor_not_detected": ("^", "receptor not detected"),
    "gene_absent_from_reference": ("x", "gene absent from reference"),
    "too_few_cells": (".", "too few cells"),
    "platelet_contamination": ("P", "platelet contamination"),
    "ambient_not_exceeded": ("d", "not above ambient RNA"),
    "no_counts": ("_", "no counts"),
    "too_few_patients": ("+", "too few patients"),
}
STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "axes.axisbelow": True,
    "svg.hashsalt": "nicheloop",
    "svg.fonttype": "path",
    "text.usetex": False,
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
}
WIDTH, DPI = 9.0, 110


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a drawing function under the one style, whatever the user's matplotlibrc says."""

    @functools.wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return inner


def render(figure: Figure, kind: str = "png") -> bytes:
    """Bytes of a figure as ``png`` or ``svg``: no date and no version inside, the same figure gives the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    figure.set_layout_engine("none")  # the layout is solved: a second rendering need not solve it again
    return buffer.getvalue()


def _new(height: float, width: float = WIDTH) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _rows_height(n: int, per: float = 0.24, base: float = 1.1) -> float:
    return base + per * max(n, 1)


def _label_rows(ax: Axes, names: Sequence[str], size: float | None = None) -> None:
    ax.set_yticks(range(len(names)), [short(n, 22) for n in names], fontsize=size)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def records(table: pd.DataFrame) -> Iterable[Any]:
    """Rows as named tuples without the index."""
    return table.itertuples(index=False)


def short(text: str, length: int) -> str:
    """A label cut to `length` characters, with an ellipsis where something was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def percent(value: float) -> str:
    """A fraction as percent with sensible digits."""
    if not np.isfinite(value):
        return "NA"
    digits = 1 if 0 < value < 0.0995 else 0
    return f"{100 * value:.{digits}f}\u00a0%"


@styled
def qc_attrition(reasons: pd.DataFrame) -> Figure:
    """Barcodes kept and dropped; `reasons`: (samples, reasons of `qc_reason`) counts."""
    fig = _new(_rows_height(len(reasons), base=1.3))
    ax = fig.subplots()
    left = np.zeros(len(reasons))
    for reason, colour in QC_COLOURS.items():
        n = reasons[reason].to_numpy(float) if reason in reasons else np.zeros(len(reasons))
        ax.barh(
            range(len(reasons)),
            n,
            left=left,
            color=colour,
            label="kept" if reason == "pass" else reason.replace("_", " "),
        )
        left += n
    for i, (total, kept) in enumerate(zip(left, reasons.get("pass", left * 0), strict=True)):
        ax.text(total, i, f" {kept:,.0f} of {total:,.0f}" if total else " no barcode", va="center", fontsize=7.5)
    _label_rows(ax, list(reasons.index))
    ax.set_xlim(0, max(float(left.max(initial=1)), 1) * 1.15)
    ax.set_xlabel("barcodes")
    ax.set_title("Which filter dropped the barcodes of each sample?", pad=24)
    ax.legend(ncols=5, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    return fig


@styled
def qc_distributions(qc: pd.DataFrame, order: Sequence[str], thresholds: pd.DataFrame | None = None) -> Figure:
    """Boxes of library size, genes and mitochondrial share per sample, all barcodes; ticks mark the thresholds.

    `qc` needs ``sample`` and the metrics; `thresholds` is indexed by sample, its columns named like the metrics.
    """
    from matplotlib.ticker import LogLocator

    fig = _new(_rows_height(len(order), base=1.2))
    metrics = (
        ("n_counts", "UMI per barcode", True),
        ("n_genes", "genes per barcode", True),
        ("pct_mito", "mitochondrial counts (%)", False),
    )
    axes = fig.subplots(1, 3, sharey=True)
    groups = dict(iter(qc.groupby("sample", sort=False)))
    for ax, (column, label, log) in zip(axes, metrics, strict=True):
        for i, sample in enumerate(order):
            values = groups[sample][column].to_numpy(float) if sample in groups else np.array([])
            values = values[np.isfinite(values)]
            if not len(values):
                ax.text(0.02, i, "no value", transform=ax.get_yaxis_transform(), va="center", fontsize=7, color=GREY)
                continue
            low, q1, median, q3, high = np.percentile(values, [1, 25, 50, 75, 99])
            ax.plot([low, high], [i, i], color=GREY, lw=1)
            ax.barh(i, q3 - q1, left=q1, height=0.5, color="#88CCEE")
            ax.plot([median, median], [i - 0.25, i + 0.25], color=INK, lw=1.4)
            if thresholds is not None and sample in thresholds.index and column in thresholds:
                cut = float(thresholds[column][sample])
                if np.isfinite(cut):
                    ax.plot([cut, cut], [i - 0.4, i + 0.4], color=ACCENT, lw=2)
        if log:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
            ax.xaxis.set_minor_formatter(lambda v, _: "")
        else:
            ax.set_xlim(left=0)
        ax.set_xlabel(label)
        ax.grid(axis="x", color="#E5E5E5", lw=0.6)
    _label_rows(axes[0], list(order))
    axes[0].set_title("How deep and how clean is each sample?")
    return fig


def stratified(cells: pd.DataFrame, column: str, most: int, seed: int = 0) -> pd.DataFrame:
    """At most `most` rows, the same share of every group of `column` (at least one), in random drawing order."""
    rng = np.random.default_rng(seed)
    if len(cells) <= most:
        return cells.iloc[rng.permutation(len(cells))]
    share = most / len(cells)
    chosen = []
    for _, rows in sorted(cells.groupby(column, sort=True).indices.items()):
        chosen.append(rng.choice(rows, max(1, int(len(rows) * share)), replace=False))
    taken = np.concatenate(chosen)[:most] if len(chosen) <= most else np.concatenate(chosen)
    return cells.iloc[rng.permutation(taken)]


def sample_colours(order: Sequence[str]) -> dict[str, str]:
    """A colour per sample, repeated after twelve."""
    return {s: SAMPLE_COLOURS[i % len(SAMPLE_COLOURS)] for i, s in enumerate(order)}


@styled
def maps(cells: pd.DataFrame, order: Sequence[str]) -> Figure:
    """The map by sample, type and malignancy; second row without integration where it was computed.

    `cells`: ``umap_1``, ``umap_2``, if computed ``umap_raw_1``, ``umap_raw_2``, and the three columns shown.
    """
    from matplotlib.lines import Line2D

    raw = "umap_raw_1" in cells and bool(cells["umap_raw_1"].notna().any())
    layouts = [("umap_1", "umap_2", "integrated")] + ([("umap_raw_1", "umap_raw_2", "not integrated")] if raw else [])
    colourings = (("sample", sample_colours(order)), ("cell_type", TYPE_COLOURS), ("malignancy", MALIGNANCY_COLOURS))
    legend_rows = 5
    fig = _new(3.0 * len(layouts) + 0.17 * legend_rows + 0.2)
    axes = fig.subplots(len(layouts), 3, squeeze=False)
    size = float(np.clip(12000 / max(len(cells), 1), 0.6, 9))
    for row, (x, y, name) in zip(axes, layouts, strict=True):
        for ax, (column, palette) in zip(row, colourings, strict=True):
            colour = cells[column].astype(object).map(palette).fillna("#BBBBBB").to_numpy(dtype=object)
            ax.scatter(cells[x], cells[y], s=size, c=list(colour), lw=0, rasterized=True)
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{column.replace('_', ' ')}, {name}")
            for side in ax.spines.values():
                side.set_visible(False)
    for ax, (column, palette) in zip(axes[-1], colourings, strict=True):
        present = set(cells[column].dropna())
        names = [n for n in palette if n in present]
        hidden = len(names) - 12
        marks = [
            Line2D([], [], marker="o", ls="", ms=5, color=palette[n], label=short(n.replace("_", " "), 15))
            for n in names[:12]
        ]
        if hidden > 0:
            marks.append(Line2D([], [], ls="", label=f"… {hidden} more"))
        columns = 2 if len(marks) > 4 else 1
        ax.legend(
            handles=marks,
            ncols=3 if len(marks) > 8 else columns,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            fontsize=7,
            handletextpad=0.1,
            columnspacing=0.6,
            borderaxespad=0.2,
        )
    return fig


@styled
def composition(table: pd.DataFrame, order: Sequence[str], labels: Mapping[str, str]) -> Figure:
    """Shares of cell types per sample; `table`: contract ``composition``, `labels`: sample -> text of its row."""
    wide = table.pivot(index="sample", columns="cell_type", values="fraction").reindex(list(order)).fillna(0.0)
    sizes = table.groupby("sample")["n_cells"].sum()
    legend_rows = -(-len(wide.columns) // 6)
    fig = _new(_rows_height(len(order), base=1.35 + 0.17 * legend_rows))
    ax = fig.subplots()
    left = np.zeros(len(order))
    for name, colour in TYPE_COLOURS.items():
        if name in wide:
            values = wide[name].to_numpy(float)
            ax.barh(
                range(len(order)),
                values,
                left=left,
                color=colour,
                label=name.replace("_", " "),
                edgecolor="white",
                lw=0.4,
            )
            left += values
    for i, sample in enumerate(order):
        n = int(sizes.get(sample, 0))
        ax.text(1.005, i, f"n = {n:,}" if n else "no cells", va="center", fontsize=7.5)
    _label_rows(ax, list(order))
    ax.set_yticks(range(len(order)), [short(labels.get(s, s), 34) for s in order])
    ax.set_xlim(0, 1.1)
    ax.set_xticks(np.linspace(0, 1, 6), [f"{v:.0f} %" for v in np.linspace(0, 100, 6)])
    ax.set_xlabel("share of the sample's kept cells")
    ax.set_title("What is each sample made of?", pad=10 + 12.5 * legend_rows)
    ax.legend(
        ncols=6,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        fontsize=7.5,
        borderaxespad=0.2,
        columnspacing=1.0,
        handlelength=1.2,
    )
    return fig


@styled
def marker_dots(profiles: pd.DataFrame, markers: Mapping[str, Sequence[str]], per_type: int = 4) -> Figure:
    """Dot plot of marker genes; `profiles`: ``gene``, ``cell_type``, ``fraction``, ``mean_lognorm``, all samples."""
    present = [t for t in TYPE_COLOURS if t in set(profiles["cell_type"])]
    measured = set(profiles["gene"])
    genes: list[str] = []
    groups: list[tuple[str, int]] = []
    for name in [t for t in TYPE_COLOURS if t in markers]:
        mine = [g for g in markers[name] if g in measured and g not in genes][:per_type]
        if mine:
            groups.append((name, len(mine)))
            genes += mine
    where = {g: i for i, g in enumerate(genes)}
    fig = _new(_rows_height(len(present), 0.26, 1.6))
    ax = fig.subplots()
    rows = profiles[profiles["gene"].isin(genes) & profiles["cell_type"].isin(present)]
    dots = ax.scatter(
        rows["gene"].map(where),
        rows["cell_type"].map({t: i for i, t in enumerate(present)}),
        s=2 + 62 * rows["fraction"],
        c=rows["mean_lognorm"],
        cmap="viridis_r",
        vmin=0,
        lw=0,
    )
    ax.set_xticks(range(len(genes)), genes, rotation=90, fontsize=7)
    ax.set_xlim(-0.8, max(len(genes), 1) - 0.2)
    _label_rows(ax, [t.replace("_", " ") for t in present])
    ax.set_ylim(len(present) - 0.4, -1.15)
    edge = 0
    for name, n in groups:
        ax.add_patch(_box(edge - 0.45, -1.0, n - 0.1, 0.22, TYPE_COLOURS[name]))
        edge += n
    ax.set_title("Do the types show their own markers, and only these?")
    bar = fig.colorbar(dots, ax=ax, fraction=0.03, pad=0.01)
    bar.set_label("mean log expression", fontsize=7.5)
    sizes = [ax.scatter([], [], s=2 + 62 * f, color=GREY, label=f"{100 * f:.0f} %") for f in (0.1, 0.5, 1.0)]
    ax.legend(
        handles=sizes,
        title="cells with the gene",
        title_fontsize=7.5,
        ncols=3,
        loc="lower right",
        bbox_to_anchor=(1, 1.0),
        borderaxespad=0.1,
        fontsize=7.5,
        handletextpad=0.2,
        columnspacing=1.0,
    )
    return fig


def _box(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, color=colour, clip_on=False, lw=0)


@styled
def confidence(cell_types: pd.DataFrame, order: Sequence[str], minimum: float) -> Figure:
    """Posterior of the winning type, and the unresolved share of every sample with the reasons."""
    fig = _new(max(2.6, _rows_height(len(order), base=0.9)))
    left, right = fig.subplots(1, 2, width_ratios=(1, 1.25))
    unresolved = cell_types["cell_type"] == "unresolved"
    bins = np.linspace(0, 1, 41)
    left.hist(
        [cell_types.loc[~unresolved, "confidence"], cell_types.loc[unresolved, "confidence"]],
        bins=bins,
        stacked=True,
        color=["#44AA99", GREY],
        label=["typed", "unresolved"],
    )
    left.axvline(minimum, color=ACCENT, lw=1.5, ls="--", label=f"smallest allowed ({minimum:g})")
    left.set(xlabel="posterior of the winning type", ylabel="cells")
    left.legend(loc="upper left")
    left.set_title("How sure are the types?")
    total = cell_types.groupby("sample").size().reindex(list(order)).fillna(0)
    base = np.zeros(len(order))
    palette = {"low_evidence": "#DDCC77", "two_lineages": "#CC6677", "ambient": "#88CCEE", "from_input": "#332288"}
    for reason, colour in palette.items():
        n = (
            cell_types[unresolved & (cell_types["cell_type_reason"] == reason)]
            .groupby("sample")
            .size()
            .reindex(list(order))
            .fillna(0)
        )
        share = (n / total.where(total > 0)).fillna(0).to_numpy(float) * 100
        if share.any():
            right.barh(range(len(order)), share, left=base, color=colour, label=reason.replace("_", " "))
        base += share
    for i, value in enumerate(base):
        right.text(value, i, f" {value:.1f} %" if total.iloc[i] else " no cells", va="center", fontsize=7.5)
    right.set_xlim(0, max(float(base.max(initial=0)) * 1.25, 5))
    _label_rows(right, list(order))
    right.set_xlabel("unresolved cells (% of kept)")
    right.set_title("How many stay unresolved, and why?")
    if base.any():
        right.legend(loc="lower right")
    return fig


def _chromosome(name: str) -> int:
    digits = name.removeprefix("chr")
    return int(digits) if digits.isdigit() else 99


@styled
def cnv(panels: Sequence[tuple[str, pd.DataFrame]]) -> Figure:
    """Copy-number heat maps, one panel per (title, table of contract ``cnv``); common scale, chromosome separators."""
    sizes = [max(t["group"].nunique(), 1) for _, t in panels]
    fig = _new(0.5 + sum(0.19 * n + 0.52 for n in sizes))
    axes = fig.subplots(len(panels), 1, height_ratios=[0.19 * n + 0.22 for n in sizes], squeeze=False)[:, 0]
    every = np.concatenate([t["value"].to_numpy(float) for _, t in panels])
    limit = max(float(np.nanpercentile(np.abs(every), 99)), 0.05)
    image = None
    for ax, (title, table) in zip(axes, panels, strict=True):
        table = table.assign(rank=table["chromosome"].map(_chromosome))
        wide = table.pivot(index="group", columns=["rank", "start"], values="value").sort_index(axis=1)
        groups = sorted(wide.index, key=_group_rank)
        cells = table.groupby("group")["n_cells"].first()
        image = ax.imshow(
            wide.loc[groups].to_numpy(float),
            aspect="auto",
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            interpolation="nearest",
        )
        chromosomes = np.array([c[0] for c in wide.columns])
        edges = np.flatnonzero(np.diff(chromosomes)) + 0.5
        for edge in edges:
            ax.axvline(edge, color="#555555", lw=0.4)
        bounds = np.concatenate([[-0.5], edges, [len(chromosomes) - 0.5]])
        order = list(dict.fromkeys(chromosomes.tolist()))
        # the label of a chromosome too narrow for it is left out
        wide_enough = np.diff(bounds) >= 0.017 * len(chromosomes)
        names = [str(c) if ok else "" for c, ok in zip(order, wide_enough, strict=True)]
        ax.set_xticks((bounds[:-1] + bounds[1:]) / 2, names, fontsize=6.5)
        ax.set_yticks(range(len(groups)), [f"{g.replace('_', ' ')} ({cells[g]:,.0f})" for g in groups], fontsize=7)
        ax.tick_params(length=0)
        ax.set_title(title, fontsize=8.5)
    if image is not None:
        bar = fig.colorbar(image, ax=list(axes), fraction=0.02, pad=0.01, aspect=30 if len(panels) > 2 else 12)
        bar.set_label("mean log ratio", fontsize=7.5)
    return fig


def _group_rank(name: str) -> tuple[int, str]:
    kinds = ("clone", "unassigned", "normal", "caf", "reference")
    return (next((i for i, k in enumerate(kinds) if name.startswith(k)), len(kinds)), name)


@styled
def forest(rows: pd.DataFrame, title: str, label: str, naive: str | None = None) -> Figure:
    """Fractions with intervals; rows without an estimate keep their place and say why.

    `rows`: ``label``, ``value``, ``low``, ``high`` (fractions), ``note`` (text at the right edge), the column `naive`.
    """
    fig = _new(_rows_height(len(rows), 0.27, 1.2))
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
    _label_rows(ax, list(rows["label"]))
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
    fig = _new(_rows_height(len(names), 0.27, 1.1))
    ax = fig.subplots()
    for i, name in enumerate(names):
        values = table.loc[table["cell_type"] == name, "fraction_called"].to_numpy(float)
        colour = TYPE_COLOURS.get(name, ACCENT)
        ax.barh(i, float(np.median(values)), color=colour, alpha=0.35, height=0.6)
        ax.plot(values, np.full(len(values), i), "o", ms=4, color=colour, mec=INK, mew=0.3)
    _label_rows(ax, [n.replace("_", " ") for n in names])
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
    fig = _new(2.15 * rows + 0.6)
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
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    fig.supxlabel("M1 (z against matched null)", fontsize=8.5)
    fig.supylabel("M2 (z against matched null)", fontsize=8.5)
    marks = [
        Line2D([], [], marker="o", ls="", color=c, ms=5, label=n.replace("_", "-")) for n, c in TAM_COLOURS.items()
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
    """Sender x receiver per axis: circle = tested (size: patients, colour: mean effect), other marks say why not.

    `axes_table`: contract ``axes``.
    """
    from matplotlib.lines import Line2D

    shown = [n for n in names if n in set(axes_table["axis"])]
    columns = 2 if len(shown) > 1 else 1
    rows = -(-len(shown) // columns)
    senders = {n: sorted(axes_table.loc[axes_table["axis"] == n, "sender"].unique()) for n in shown}
    receivers = {n: sorted(axes_table.loc[axes_table["axis"] == n, "receiver"].unique()) for n in shown}
    heights = [max(len(senders[n]) for n in shown[r * columns : (r + 1) * columns]) for r in range(rows)]
    fig = _new(sum(0.23 * h + 1.05 for h in heights) + 0.5)
    axes = fig.subplots(rows, columns, squeeze=False, height_ratios=[0.23 * h + 0.5 for h in heights]).ravel()
    tested = axes_table[axes_table["axis"].isin(shown) & axes_table["effect"].notna()]
    limit = max(float(tested["effect"].abs().max()) if len(tested) else 1.0, 0.5)
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
            cmap="PuOr_r",
            vmin=-limit,
            vmax=limit,
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
        ax.set_yticks(range(len(senders[name])), [s.replace("_", " ") for s in senders[name]], fontsize=7)
        wide = max(len(r) for r in receivers[name]) * len(receivers[name]) > 40
        ax.set_xticks(
            range(len(receivers[name])),
            [r.replace("_", " ") for r in receivers[name]],
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
        bar.set_label("mean log2 effect over patients", fontsize=7.5)
    return fig


@styled
def loop_arms(arms: pd.DataFrame, order: Sequence[str], names: Sequence[str], words: Mapping[str, str]) -> Figure:
    """Effects of the arms A, B and C per patient; an arm without an answer says why in its place.

    `arms`: contract ``loop_arms`` with ``label`` (row); `words`: status -> a few words.
    """
    titles = {"A": "A forward (log2)", "B": "B response (z difference)", "C": "C return (log2)"}
    shown = [n for n in names if n in set(arms["axis"])]
    fig = _new(sum(0.2 * max(len(order), 1) + 0.75 for _ in shown) + 0.3)
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
                    why = "no row" if r is None else words.get(r.status, r.status.replace("_", " "))
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
        _label_rows(row[0], list(order), 7)
    return fig


def _symmetric(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    low, high = min(low, 0.0), max(high, 0.5)
    pad = 0.06 * (high - low)
    return low - pad, high + pad


@styled
def enrichment(table: pd.DataFrame, contrast: str, most: int = 16) -> Figure:
    """Strongest gene sets of a contrast by |NES|; filled bars have q < 0.25 (gseapy's FDR)."""
    part = table[(table["contrast"] == contrast) & table["nes"].notna()]
    part = part.reindex(part["nes"].abs().sort_values(ascending=False, kind="stable").index)[:most].sort_values(
        "nes", ascending=False
    )
    fig = _new(_rows_height(len(part), 0.23, 1.1))
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
    ax.set_title(f"Which gene sets lead and trail in {contrast}?")
    return fig


@styled
def truth_fractions(rows: pd.DataFrame) -> Figure:
    """Planted against estimated fraction with interval; `rows`: ``label``, ``truth``, ``value``, ``low``, ``high``."""
    fig = _new(_rows_height(len(rows), 0.27, 1.1))
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
    _label_rows(ax, list(rows["label"]))
    ax.xaxis.set_major_formatter(lambda v, _: f"{100 * v:g} %")
    ax.set_xlim(left=0)
    ax.grid(axis="x", color="#E5E5E5", lw=0.6)
    ax.set_xlabel("CD44+/CD24- share of malignant cells")
    ax.set_title("Does the interval hold the planted fraction?")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=2, borderaxespad=0.1)
    return fig


def chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """Consecutive pieces of at most `size` items."""
    return (items[i : i + size] for i in range(0, len(items), size))
