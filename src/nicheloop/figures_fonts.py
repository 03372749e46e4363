"""Fonts for PDF: without the tables of a typesetter, which no PDF asks and which cost most of making a subset."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from typing import Any

LAYOUT = ("GSUB", "GPOS", "GDEF", "BASE", "JSTF", "kern", "FFTM")  # text in a PDF is placed glyphs


@functools.cache
def bare(path: str, number: int = 0) -> bytes:
    """A font file without the tables of `LAYOUT`."""
    from fontTools.ttLib import TTFont

    with TTFont(path, fontNumber=number, recalcBBoxes=False, recalcTimestamp=False) as font:  # no date inside
        for table in set(LAYOUT) & set(font.keys()):
            del font[table]
        out = io.BytesIO()
        font.save(out, reorderTables=False)
    return out.getvalue()


@contextlib.contextmanager
def bare_fonts() -> Iterator[None]:
    """Write a PDF inside: its subsets are made of bare fonts; text stays text, glyphs and widths are the same."""
    from fontTools import subset

    whole = subset.load_font

    def load(file: Any, options: subset.Options, **kwargs: Any) -> Any:
        return whole(io.BytesIO(bare(str(file), max(options.font_number, 0))), options, **kwargs)

    subset.load_font = load
    try:
        yield
    finally:
        subset.load_font = whole
