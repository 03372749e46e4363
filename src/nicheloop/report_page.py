"""Pieces of the report page: blocks, wording of numbers, and the writer of figures and tables."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicheloop import figures, io
from nicheloop.report_text import short_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


ROWS = 30  # rows of a table shown in the page; all of them are in the file it points to
LETTERS = 180  # a longer text is cut in the page
UNCUT = 100_000
PANELS = 8  # samples per figure of small multiples
SAMPLES = 60  # samples per figure with one row each
MAIN_AXES = ("IL6_classic", "IL6_trans", "IL6_autocrine", "CXCL8", "PPBP", "CCL2", "CSF1")


@dataclass
class Column:
    """A column of a table in the page."""

    label: str
    numeric: bool = False


@dataclass
class Block:
    """One piece of a chapter; `kind` says which fields the template uses."""

    kind: str
    text: str = ""
    title: str = ""
    entries: list[Any] = field(default_factory=list)
    name: str = ""
    caption: str = ""
    alt: str = ""
    uri: str = ""
    width: int = 0
    height: int = 0
    columns: list[Column] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    shown: str = ""
    path: str = ""


@dataclass
class Chapter:
    """A heading and its blocks."""

    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        """Id of the section."""
        words = "".join(c if c.isalnum() else " " for c in self.title.lower()).split()
        return "-".join(words)


def text(value: str) -> Block:
    """A paragraph."""
    return Block("text", text=value)


def note(value: str) -> Block:
    """A paragraph that must not be overlooked."""
    return Block("note", text=value)


def heading(value: str) -> Block:
    """A heading inside a chapter."""
    return Block("heading", text=value)


def bullets(entries: Iterable[str]) -> Block:
    """A list."""
    return Block("bullets", entries=list(entries))


def count(n: float, one: str, many: str | None = None) -> str:
    """``1 cell``, ``1,200 cells``; thousands separated."""
    return f"{n:,.0f} {one if n == 1 else many or one + 's'}"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names joined by commas and 'and'; after `most` the rest is counted."""
    names = list(names)
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else "none"


def number(value: Any, digits: int = 3) -> str:
    """A number as text with `digits` significant digits; NA for missing ones."""
    if value is None or value != value:
        return "NA"
    value = float(value)
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def fraction(value: Any) -> str:
    """A fraction as percent; NA for a missing one."""
    return "NA" if value is None or value != value else figures.percent(float(value))


def interval(value: Any, low: Any, high: Any) -> str:
    """``10 % (7.0 to 14 %)``."""
    if value is None or value != value:
        return "NA"
    lower = fraction(low).removesuffix("\u00a0%")
    return f"{fraction(value)} ({lower} to {fraction(high)})"


def many(names: Sequence[str], what: str = "samples") -> str:
    """Say that a figure shows only the first ones."""
    return f" The first {SAMPLES} of {len(names)} {what} are drawn." if len(names) > SAMPLES else ""


FORMS: dict[str, Callable[[Any], str]] = {"#": number, "%": fraction, "=": short_words, "~": str}


def columns(spec: str) -> dict[str, tuple[str, Callable[[Any], str] | None]]:
    """Columns from one line: ``name``, ``name: heading``, ``name # heading`` (number), ``name % heading`` (share).

    ``name = heading`` is a status, ``name ~ heading`` a number in words, such as one with its interval.  Columns are
    separated by ``|``; a heading left out is the name.
    """
    out: dict[str, tuple[str, Callable[[Any], str] | None]] = {}
    for part in spec.split("|"):
        name, _, rest = part.strip().partition(" ")
        mark, _, label = rest.strip().partition(" ")
        form = FORMS.get(mark)
        head = label if form else rest
        out[name.rstrip(":")] = (head.strip() or name.rstrip(":"), form)
    return out


class Page:
    """Collects what a chapter shows and writes figures and full tables beside the page."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.captions: dict[str, str] = {}

    def figure(self, name: str, figure: Figure, title: str, caption: str, alt: str) -> Block:
        """Embed a figure as PNG; save it as PNG and SVG in ``figures/``."""
        png = figures.render(figure, "png")
        svg = figures.render(figure, "svg")
        for kind, data in (("png", png), ("svg", svg)):
            with io.atomic(self.folder / "figures" / f"{name}.{kind}") as temporary:
                temporary.write_bytes(data)
        width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
        uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        return Block("figure", name=name, title=title, caption=caption, alt=alt, uri=uri, width=width, height=height)

    def table(
        self,
        name: str,
        table: pd.DataFrame,
        columns: Mapping[str, tuple[str, Callable[[Any], str] | None]],
        title: str,
        caption: str = "",
        *,
        path: str = "",
        most: int = ROWS,
        letters: int = LETTERS,
    ) -> Block:
        """Show the first `most` rows; without `path` the whole table is written to ``tables/``.

        A text longer than `letters` is cut; reasons are shown uncut (`UNCUT`).

        `columns`: column -> (heading, formatter); a column with a formatter other than `short_words` is aligned as
        numbers.
        """
        if not path:
            path = f"tables/{name}.tsv"
            with io.atomic(self.folder / path) as temporary:
                table.to_csv(temporary, sep="\t", index=False, na_rep="NA", float_format="%.6g", lineterminator="\n")
        rows = []
        for record in figures.records(table.head(most)[list(columns)]):
            cells = []
            for value, (_, form) in zip(record, columns.values(), strict=True):
                missing = value is None or value != value or value == ""
                cells.append("NA" if missing else form(value) if form else figures.short(str(value), letters))
            rows.append(cells)
        shown = (
            f"{len(rows):,} of {count(len(table), 'row')} shown."
            if len(table) > len(rows)
            else f"{count(len(table), 'row')}."
        )
        heads = [Column(label, form not in (None, short_words)) for label, form in columns.values()]
        return Block("table", name=name, title=title, caption=caption, columns=heads, rows=rows, shown=shown, path=path)
