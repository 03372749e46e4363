"""Pieces of the report page: blocks, wording of numbers, and the writer of figures and tables."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nicheloop import figures, io, report_embed
from nicheloop.report_help import help_for
from nicheloop.report_text import short_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


ROWS = 30  # rows of a table written as HTML; the others are embedded for the table library, up to EMBEDDED
EMBEDDED = 3000
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
    name: str = ""  # of the column in the table's file


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
    order: list[list[str]] = field(default_factory=list)  # value a cell is sorted and saved by; "": its text
    shown: str = ""
    path: str = ""
    help: str = ""
    files: list[tuple[str, str, str]] = field(default_factory=list)  # (PNG, address, id of the embedded copy)
    rest: str = ""  # id of the embedded rows
    data: Any = None


@dataclass
class Linked:
    """A sentence that leads to its place in the page."""

    text: str
    anchor: str = ""
    label: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass
class Chapter:
    """A heading and its blocks."""

    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        """Id of the section."""
        return anchor_of(self.title)


def text(value: str) -> Block:
    """A paragraph."""
    return Block("text", text=value)


def note(value: str) -> Block:
    """A paragraph that must not be overlooked."""
    return Block("note", text=value)


def heading(value: str) -> Block:
    """A heading inside a chapter."""
    return Block("heading", text=value)


def bullets(entries: Iterable[str | Linked]) -> Block:
    """A list."""
    return Block("bullets", entries=list(entries))


def anchor_of(title: str) -> str:
    """Id of the section with this heading."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def raw(value: Any) -> str:
    """A number as the machine reads it, for sorting and saving; empty for what is none."""
    if value is None or value != value or isinstance(value, bool | str):
        return ""
    try:
        return f"{float(value):.9g}"
    except (TypeError, ValueError):
        return ""


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
    if low is None or low != low:
        return fraction(value)
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
    """Collects what a chapter shows; writes figures and full tables beside the page and embeds what JavaScript needs.

    Parameters
    ----------
    folder
        The results folder.
    files
        Whether figures and tables are written beside the page; pages of one sample write none.
    """

    def __init__(self, folder: Path, *, files: bool = True):
        self.folder, self.files = folder, files
        self.payloads: dict[str, str] = {}
        self.figures: list[tuple[str, str, str]] = []  # name, title, caption

    def embed(self, name: str, data: bytes) -> str:
        """Keep bytes in the page, compressed; returns the id of the element that holds them."""
        self.payloads[name] = report_embed.packed(data)
        return name

    def figure(
        self, name: str, figure: Figure, title: str, caption: str, alt: str, data: pd.DataFrame | None = None
    ) -> Block:
        """Embed a figure as PNG; save it as PNG, SVG and PDF in ``figures/``, its data as CSV.

        `data` are the numbers that are drawn, one row per mark.
        """
        png = figures.render(figure, "png")
        width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
        uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        block = Block("figure", name=name, title=title, caption=caption, alt=alt, uri=uri, width=width, height=height)
        block.help, block.data = help_for(name), data
        block.files.append(("PNG", "" if not self.files else f"figures/{quote(name)}.png", ""))
        if not self.files:
            return block
        self.figures.append((name, title, caption))
        made = {"png": png, "svg": figures.render(figure, "svg"), "pdf": figures.render(figure, "pdf")}
        block.files.append(("SVG", f"figures/{quote(name)}.svg", self.embed(f"svg-{name}", made["svg"])))
        block.files.append(("PDF", f"figures/{quote(name)}.pdf", ""))
        if data is not None:
            made["csv"] = report_embed.csv_bytes(data)
            block.files.append(("data CSV", f"figures/{quote(name)}.csv", self.embed(f"csv-{name}", made["csv"])))
        for kind, content in made.items():
            with io.atomic(self.folder / "figures" / f"{name}.{kind}") as temporary:
                temporary.write_bytes(content)
        return block

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
        """Show the first `most` rows, embed the others; without `path` the whole table is written to ``tables/``.

        A text longer than `letters` is cut; reasons are shown uncut (`UNCUT`).

        `columns`: column -> (heading, formatter); a column with a formatter other than `short_words` is aligned as
        numbers.
        """
        if not path and self.files:
            path = f"tables/{name}.tsv"
            with io.atomic(self.folder / path) as temporary:
                table.to_csv(temporary, sep="\t", index=False, na_rep="NA", float_format="%.6g", lineterminator="\n")
        rows, order = [], []
        for record in figures.records(table.head(EMBEDDED)[list(columns)]):
            cells, values = [], []
            for value, (_, form) in zip(record, columns.values(), strict=True):
                missing = value is None or value != value or value == ""
                cells.append("NA" if missing else form(value) if form else figures.short(str(value), letters))
                values.append("" if missing or form in (None, short_words, str) else raw(value))
            rows.append(cells)
            order.append(values)
        shown = f"{len(rows[:most]):,} of {count(len(table), 'row')} shown." if len(table) > most else ""
        shown = shown or f"{count(len(table), 'row')}."
        heads = [Column(label, form not in (None, short_words), n) for n, (label, form) in columns.items()]
        block = Block("table", name=name, title=title, caption=caption, columns=heads, shown=shown, path=path)
        block.rows, block.order = rows[:most], order[:most]
        if len(rows) > most and self.files:
            rest = {"rows": rows[most:], "order": order[most:], "all": len(table)}
            block.rest = self.embed(f"rows-{name}", report_embed.json_bytes(rest))
        return block
