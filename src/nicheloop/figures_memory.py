"""While a figure is drawn, what matplotlib works out again and again is remembered: ticks and the extents of texts.

Laying out and drawing asks every axis some fifteen times for its ticks and the boxes of their labels, although these
change only with the place of the axes.  Nothing is approximated: the picture is the same to the byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Text

TEXTS = 20_000  # layouts of texts kept; then all are forgotten
_layouts: dict[Any, Any] = {}  # the figures of a report share most of their labels


@contextlib.contextmanager
def remembered(figure: Figure) -> Iterator[None]:
    """Draw inside: the ticks of the figure's axes and the layouts of texts are worked out once.

    Parameters
    ----------
    figure
        What is drawn; locators, formatters and the looks of ticks must stay as they are inside.
    """
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.text import Text

    axes: list[Any] = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    slow = Text._get_layout  # type: ignore[attr-defined]
    settings = _text_settings()

    def layout(text: Text, renderer: Any) -> Any:
        if text.get_wrap():  # depends on the place
            return slow(text, renderer)
        key = (settings, *_looks(text, renderer))
        if key not in _layouts:
            _keep(key, slow(text, renderer))
        return _layouts[key]

    prepared = RendererAgg._prepare_font

    def prepare(renderer: Any, font: Any) -> Any:
        return _Shaped(prepared(renderer, font), (settings, renderer.dpi, hash(font)))

    for axis in axes:
        _remember_ticks(axis)
    Text._get_layout = layout  # type: ignore[attr-defined]
    RendererAgg._prepare_font = prepare  # type: ignore[method-assign]
    try:
        yield
    finally:
        Text._get_layout = slow  # type: ignore[attr-defined]
        RendererAgg._prepare_font = prepared  # type: ignore[method-assign]
        for axis in axes:
            del axis._update_ticks, axis._get_ticklabel_bboxes


class _Shaped:
    """A font of a size that remembers the glyphs of a text and where they stand; all else is the font's."""

    def __init__(self, font: Any, key: Any):
        self._font, self._key = font, key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._font, name)

    def _layout(self, text: str, **how: Any) -> Any:
        key = (self._key, text, *sorted(how.items()))
        if key not in _layouts:
            _keep(key, list(self._font._layout(text, **how)))
        return _layouts[key]


def _keep(key: Any, value: Any) -> None:
    if len(_layouts) >= TEXTS:
        _layouts.clear()
    _layouts[key] = value


def _text_settings() -> tuple[Any, ...]:
    import matplotlib

    rc = matplotlib.rcParams
    return (rc["text.hinting"], *rc["font.sans-serif"])


def _looks(text: Text, renderer: Any) -> tuple[Any, ...]:
    """All that the layout of a text, relative to its place, follows from."""
    figure: Any = text.get_figure(root=True)
    return (
        type(getattr(renderer, "_renderer", renderer)),  # of a renderer that wraps two, the one in use
        figure.dpi,
        text.get_text(),
        hash(text.get_fontproperties()),
        text.get_rotation(),
        text.get_rotation_mode(),
        text.get_horizontalalignment(),
        text.get_verticalalignment(),
        text._multialignment,  # type: ignore[attr-defined]
        text._linespacing,  # type: ignore[attr-defined]
        text.get_usetex(),
        text.get_parse_math(),
    )


def _remember_ticks(axis: Axis) -> None:
    """Put the remembering in front of two methods of this axis."""
    update, measure = axis._update_ticks, axis._get_ticklabel_bboxes  # type: ignore[attr-defined]
    known: dict[Any, Any] = {}

    def place() -> Any:
        return (axis.axes.bbox.bounds, tuple(axis.get_view_interval()))

    def ticks() -> Any:
        here = place()
        if known.get("place") != here:
            known.clear()
            known["ticks"], known["place"] = update(), here
        return known["ticks"]

    def boxes(shown: Any, renderer: Any) -> Any:
        kind = type(getattr(renderer, "_renderer", renderer))
        if shown is not known.get("ticks") or known["place"] != place():
            return measure(shown, renderer)
        if kind not in known:
            known[kind] = measure(shown, renderer)
        return known[kind]

    axis._update_ticks, axis._get_ticklabel_bboxes = ticks, boxes  # type: ignore[attr-defined]
