"""A report of made-up tables, and how its page is read."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from fake_results import make
from nicheloop import (
    report,
    status,
)
from nicheloop.config import Config, load_config

HEADINGS = [
    "Summary", "Quality", "Map", "Composition", "Annotation", "Malignancy", "Cancer stem cells (CD44/CD24 and ALDH1A3)",
    "Macrophages (M1/M2)", "Crosstalk (IL6, CXCL8, PPBP)", "Loop", "Cohort", "Enrichment", "Demo truth", "Not assessable",
    "Limitations", "Methods", "Provenance",
]  # fmt: skip


class Reader(HTMLParser):
    """Headings, tags, links, images and text of a page; unbalanced tags are an error."""

    VOID = ("meta", "img", "br", "hr", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "h2":
            self.headings.append("")
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "h2":
            self.headings[-1] += data
        if not {"style", "script"} & set(self.stack):
            self.text.append(data)


def build(results: Path, config: Config | None = None, **kwargs: Any) -> str:
    samples = make(results, **kwargs)
    status.run_status(results, samples, results / "cohort" / "status.tsv")
    config = config or load_config({"report": {"sample_pages": False}})
    report.run_report(results, results / "report.html", config=config)
    return (results / "report.html").read_text(encoding="utf-8")


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.stack
    return reader


def cell_texts(page: str, table: str) -> list[list[str]]:
    """Body cells of one table of the page."""
    body = page[page.index(f'id="table-{table}"') :]
    body = body[body.index("<tbody>") : body.index("</tbody>")]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in body.split("</tr>")[:-1]]


def said_by(page: str) -> str:
    return " ".join("".join(read(page).text).split())
