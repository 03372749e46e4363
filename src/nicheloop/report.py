"""The report: one offline HTML file from the tables below the results folder.  See docs/report.md.

Every chapter is a function from `report_data.Data` to blocks; `report_page.Page` writes figures and tables beside the
page.  The text is fixed in `nicheloop.report_text`, the figures in `nicheloop.figures`.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nicheloop import __version__, io, report_embed
from nicheloop.provenance import describe
from nicheloop.report_annotation import annotation_chapter
from nicheloop.report_cells import composition_chapter, map_chapter, quality_chapter
from nicheloop.report_closing import limitations_chapter, not_assessable_chapter
from nicheloop.report_cohort import cohort_chapter, enrichment_chapter
from nicheloop.report_data import Data
from nicheloop.report_loop import loop_chapter
from nicheloop.report_malignancy import malignancy_chapter
from nicheloop.report_methods import methods_chapter
from nicheloop.report_niche import crosstalk_chapter
from nicheloop.report_page import Block, Chapter, Page, columns, heading, text
from nicheloop.report_samples import sample_chapters
from nicheloop.report_screen import has_screen, screen_chapter
from nicheloop.report_states import csc_chapter, tam_chapter
from nicheloop.report_summary import summary_chapter
from nicheloop.report_truth import truth_chapter

if TYPE_CHECKING:
    from nicheloop.config import Config

CHAPTERS: tuple[tuple[str, Callable[[Data, Page], list[Block]]], ...] = (
    ("Quality", quality_chapter),
    ("Map", map_chapter),
    ("Composition", composition_chapter),
    ("Annotation", annotation_chapter),
    ("Malignancy", malignancy_chapter),
    ("Cancer stem cells (CD44/CD24 and ALDH1A3)", csc_chapter),
    ("Macrophages (M1/M2)", tam_chapter),
    ("Crosstalk (IL6, CXCL8, PPBP)", crosstalk_chapter),
    ("Loop", loop_chapter),
    ("Cohort", cohort_chapter),
    ("Enrichment", enrichment_chapter),
    ("Screen", screen_chapter),
    ("Demo truth", truth_chapter),
    ("Not assessable", not_assessable_chapter),
    ("Limitations", limitations_chapter),
    ("Methods", methods_chapter),
)


def provenance_chapter(d: Data, page: Page, record: dict[str, Any]) -> list[Block]:
    """Versions, configuration, seed and inputs."""
    import pandas as pd
    import yaml

    packages = pd.DataFrame(
        [
            ("python", record["python"]),
            ("nicheloop", record["nicheloop"]),
            *((k, v or "not installed") for k, v in record["packages"].items()),
        ],
        columns=["package", "version"],
    )
    blocks = [
        text(
            f"nicheloop {record['nicheloop']}, Python {record['python']}, seed {record['seed']}, sample sheet "
            f"'{record['sample_sheet']}'. The same input, configuration and versions give the same bytes; this page "
            "holds no date. Everything here is also in provenance.json."
        ),
        page.table("versions", packages, columns("package | version"), "Versions."),
    ]
    if record["resources_sha256"]:
        sums = pd.DataFrame([(k, v) for k, v in record["resources_sha256"].items()], columns=["resource", "sha256"])
        sums["short"] = sums["sha256"].str[:16]
        blocks.append(
            page.table("resources", sums, columns("resource | short: sha256 (first 16)"), "Shipped resources.")
        )
    blocks.append(
        Block("code", title="configuration", text=yaml.safe_dump(record["config"], sort_keys=False, allow_unicode=True))
    )
    return blocks


def render_page(
    title: str,
    lead: str,
    chapters: Sequence[Chapter],
    payloads: Mapping[str, str] | None = None,
    *,
    script: bool = True,
) -> str:
    """HTML of the report; every text is escaped, and only the page's own scripts may run.

    `payloads`: id -> packed bytes (`nicheloop.report_embed`); without `script` the page is static.
    """
    from importlib.resources import files

    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("nicheloop"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = {
        n: (files("nicheloop") / "templates" / n).read_text("utf-8") for n in ("report.css", "early.js", "report.js")
    }
    scripts = {"early": parts["early.js"], "script": parts["report.js"]} if script else {"early": "", "script": ""}
    return environment.get_template("report.html.j2").render(
        title=title,
        lead=lead,
        chapters=chapters,
        version=__version__,
        css=parts["report.css"],
        policy=report_embed.policy(*(s for s in scripts.values() if s)),
        payloads=payloads or {},
        **scripts,
    )


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for cyclic garbage seldom: figures are many small objects, and the search takes a tenth of the time.

    What the page before left is looked for once, at the start: frozen it would stay.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@seldom_collected()
def write_sample_page(data: Data, sample: str) -> None:
    """Write the page of one sample."""
    title = f"{data.config.report.title}: {sample}"
    alone = render_page(title, "One sample of the cohort.", sample_chapters(data, sample), script=False)
    io.write_text(data.results / "report" / f"{sample}.html", alone)


def _in_process(write: Callable[..., None], *args: Any) -> None:
    write(_tables[0], *args)


_tables: list[Data] = []  # of a process that writes pages: each of its pages reads a cohort's table once


def _read_in(results: Path, config: Config) -> None:
    _tables.append(Data(results, config))


def run_report(results: str | Path, out: str | Path, *, config: Config, threads: int = 1) -> None:
    """Write the report; its figures and full tables go into the results folder.

    Reads everything below the results folder; a table that is missing or empty leads to a sentence that says so.  The
    same tables and configuration give the same bytes, whatever the threads (processes that share the pages).
    """
    results, out = Path(results), Path(out)
    data = Data(results, config)
    pages = data.samples if config.report.sample_pages else []
    if threads < 2 or len(pages) < 2:
        write_main_page(data, out)
        for sample in pages:
            write_sample_page(data, sample)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(threads, get_context("spawn"), _read_in, (results, config)) as pool:
        written = [pool.submit(_in_process, write_main_page, out)]
        written += [pool.submit(_in_process, write_sample_page, sample) for sample in pages]
        for page in written:
            page.result()


@seldom_collected()
def write_main_page(data: Data, out: Path) -> None:
    """Write the page of the cohort, its figures and tables."""
    results, config = data.results, data.config
    options, page = config.report, Page(results)
    record = describe(config)
    chapters = [Chapter("Summary", summary_chapter(data))]
    if options.sample_pages:
        chapters[0].blocks.append(heading("Pages of single samples"))
        chapters[0].blocks.append(
            Block("links", entries=[(s, f"report/{quote(s, safe='')}.html") for s in data.samples])
        )
    for title, make in CHAPTERS:
        if make is truth_chapter and not (results / "demo" / "truth_cells.tsv.gz").exists():
            continue
        if make is screen_chapter and not has_screen(data):
            continue
        chapters.append(Chapter(title, make(data, page)))
    chapters.append(Chapter("Provenance", provenance_chapter(data, page, record)))
    lead = (
        "Cancer stem cells, macrophages and their cytokine loop in breast-tumour single-cell RNA-seq: per patient, "
        "with uncertainty, and with what could not be assessed."
    )
    io.write_text(out, render_page(options.title, lead, chapters, {**page.payloads, **report_embed.libraries()}))
    for folder in ("figures", "tables", "report"):  # the workflow expects them, filled or not
        (results / folder).mkdir(exist_ok=True)
