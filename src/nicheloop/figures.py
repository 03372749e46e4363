"""Figures of the report, the common part: colours, style, rendering.  See docs/report.md.

Drawing functions live in `figures_cells` and `figures_niche`: tables in, matplotlib figures out; no file is touched.
Every one takes DataFrames as the contracts of `nicheloop.tables` describe them and returns a `Figure` drawn without
pyplot (no global state).  A cell type has the same colour everywhere; colours come from palettes made for colour-blind
readers (Paul Tol's), and where colour carries a class, a position, a label or a symbol carries it too.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

P = ParamSpec("P")
NAMES = {
    "t_nk": "T/NK", "b_cell": "B cell", "caf": "CAF", "pvl": "PVL", "icaf": "iCAF", "mycaf": "myCAF", "apcaf": "apCAF",
    "epithelial_malignant": "epithelial, malignant", "epithelial_normal": "epithelial, normal",
    "epithelial_unassigned": "epithelial, unassigned", "csc_high": "CSC-high",
    "nk": "NK", "t_cd4": "CD4 T", "t_cd8": "CD8 T", "treg": "Treg",
    "endo_venous": "venous endothelium",
}  # fmt: skip
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
CSC_COLOURS = {
    "m_csc": "#882255",
    "high": "#882255",
    "other": "#88CCEE",
    "low": "#88CCEE",
    "undetermined": "#DDCC77",
    "not_assessable": "#D5D5D5",
}
SUBTYPE_COLOURS = {
    "TNBC": "#882255",
    "HER2+": "#DDCC77",
    "HER2+/ER+": "#999933",
    "ER+": "#332288",
    "LumA": "#332288",
    "LumB": "#88CCEE",
    "metaplastic": "#EE7733",
}
TISSUE_COLOURS = {"primary tumour": "#882255", "normal": "#44AA99", "lymph node": "#DDCC77", "metastasis": "#EE7733"}
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
STYLE_FILE = Path(__file__).parent / "templates" / "figures.mplstyle"  # the one style of every figure
WIDTH, DPI = 9.0, 110


@functools.cache
def style() -> dict[Any, Any]:
    """Settings of the style file."""
    import matplotlib

    return dict(matplotlib.rc_params_from_file(STYLE_FILE, use_default_template=False))


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a drawing function under the one style, whatever the user's matplotlibrc says."""

    @functools.wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib

        from nicheloop.figures_ticks import copied_ticks

        with matplotlib.rc_context(), copied_ticks():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(style())
            return draw(*args, **kwargs)

    return inner


def render(figure: Figure, kind: str = "png") -> bytes:
    """Bytes of a figure as ``png``, ``svg`` or ``pdf``: no date and no version inside, same figure, same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from nicheloop.figures_fonts import bare_fonts
    from nicheloop.figures_memory import remembered
    from nicheloop.figures_ticks import copied_ticks

    buffer = io.BytesIO()
    before, figure.dpi = figure.dpi, DPI
    # each is drawn once: savefig draws twice, the first time to solve the layout
    with matplotlib.rc_context(style()), copied_ticks(), remembered(figure):
        canvas = FigureCanvasAgg(figure)
        if kind == "png" or isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
            canvas.draw()
        if kind == "png":
            few_colours(np.asarray(canvas.buffer_rgba()), buffer)
        elif kind == "svg":
            FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
        else:
            undated = {"CreationDate": None, "Creator": None, "Producer": None}
            with bare_fonts():
                FigureCanvasPdf(figure).print_pdf(buffer, metadata=undated)
    figure.dpi = before
    if figure.get_layout_engine() is not None:
        figure.set_layout_engine("none")  # the layout is solved: a second rendering need not solve it again
        for ax in figure.axes:  # the solver's last bits differ from run to run and would name the SVG's clip paths
            left, bottom, width, height = (round(float(v), 5) for v in ax.get_position().bounds)
            ax.set_position((left, bottom, width, height))
    return buffer.getvalue()


def few_colours(picture: NDArray[np.uint8], out: io.BytesIO) -> None:
    """Write (height, width, 4) pixels as PNG with a palette of 256 colours: half the bytes, no visible difference.

    The palette is made for the ink alone, most of a figure is paper: the colour of its corner, kept as it is.
    """
    from PIL import Image

    pixels = np.ascontiguousarray(picture).view(np.uint32).reshape(picture.shape[:2])
    ink = pixels != pixels[0, 0]
    image = Image.fromarray(np.append(pixels[ink], pixels[0, 0]).view(np.uint8).reshape(1, -1, 4)).convert("RGB")
    few = image.quantize(255, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    which = np.zeros(pixels.shape, np.uint8)
    which[ink] = np.asarray(few)[0, :-1] + 1
    image = Image.fromarray(which)
    image.putpalette([*picture[0, 0, :3].tolist(), *(few.getpalette() or [])])
    image.save(out, "png")


def new_figure(height: float, width: float = WIDTH) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def rows_height(n: int, per: float = 0.24, base: float = 1.1) -> float:
    return base + per * max(n, 1)


def label_rows(ax: Axes, names: Sequence[str], size: float | None = None) -> None:
    ax.set_yticks(range(len(names)), [short(n, 22) for n in names], fontsize=size)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def records(table: pd.DataFrame) -> Iterable[Any]:
    """Rows as named tuples without the index."""
    return table.itertuples(index=False)


def short(text: str, length: int) -> str:
    """A label cut to `length` characters, with an ellipsis where something was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def type_words(name: str) -> str:
    """Name of a cell type or population as a reader writes it: ``t_nk`` is T/NK."""
    return NAMES.get(name, name.replace("_", " "))


def percent(value: float) -> str:
    """A fraction as percent with sensible digits."""
    if not np.isfinite(value):
        return "NA"
    digits = 1 if 0 < value < 0.0995 else 0
    return f"{100 * value:.{digits}f}\u00a0%"


def chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """Consecutive pieces of at most `size` items."""
    return (items[i : i + size] for i in range(0, len(items), size))
