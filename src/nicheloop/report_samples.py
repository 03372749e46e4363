"""Pages of single samples below ``report/``: the chapters that one sample can fill, static, no files beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nicheloop import io, tables
from nicheloop.report_annotation import annotation_chapter
from nicheloop.report_cells import composition_chapter, quality_chapter
from nicheloop.report_closing import not_assessable_chapter
from nicheloop.report_data import Data
from nicheloop.report_loop import loop_chapter
from nicheloop.report_malignancy import malignancy_chapter
from nicheloop.report_niche import barcode_blocks, measurability_table, towards_malignant
from nicheloop.report_page import MAIN_AXES, Block, Chapter, Page, bullets, columns, note, text
from nicheloop.report_states import csc_chapter, tam_chapter

if TYPE_CHECKING:
    import pandas as pd


class OneSample(Data):
    """The tables of a cohort cut to one sample; tables without samples are empty."""

    def __init__(self, cohort: Data, sample: str):
        super().__init__(cohort.results, cohort.config)
        self.cohort, self.sample = cohort, sample

    def _mine(self, table: pd.DataFrame) -> pd.DataFrame:
        if "sample" not in table:
            return table.iloc[:0]
        return table[table["sample"] == self.sample].reset_index(drop=True)

    def table(self, name: str) -> pd.DataFrame:
        """A cohort table, this sample's rows; of a table of cells no others are read."""
        if self.path(name).suffix == ".parquet" and "sample" in tables.empty(name):
            return super().table(name)
        return self._mine(self.cohort.table(name))

    def _read(self, name: str, columns: list[str] | None = None) -> pd.DataFrame:
        return io.read_table(self.path(name), columns, where=[("sample", "==", self.sample)])

    @property
    def sheet(self) -> pd.DataFrame:  # type: ignore[override]
        """The sample's row."""
        return self.cohort.sheet.loc[[self.sample]]

    @property
    def samples(self) -> list[str]:  # type: ignore[override]
        """The one sample."""
        return [self.sample]

    @property
    def tumours(self) -> list[str]:  # type: ignore[override]
        """The sample, unless it is normal tissue."""
        return [] if self.is_normal(self.sample) else [self.sample]

    @property
    def composition(self) -> pd.DataFrame:  # type: ignore[override]
        """Its composition."""
        return self._mine(self.cohort.composition)


def axes_of(d: Data, page: Page) -> list[Block]:
    """What can be measured of each axis in this sample, and every tested pair."""
    rows = d.per_sample("crosstalk")
    if not len(rows):
        return [note("No axis was looked at in this sample; the chapter 'Not assessable' says why.")]
    said = [s for s in (towards_malignant(d, a) for a in MAIN_AXES) if s]
    tested = rows[rows["status"] == "tested"].sort_values(["q", "axis"], kind="stable")
    return [
        measurability_table(d, rows, page),
        *([bullets(said)] if said else []),
        *barcode_blocks(rows, page),
        page.table(
            "pairs",
            tested,
            columns(
                "axis | ligand | receptor | sender | receiver | strength # | specificity # | p_label # p labels | "
                "p_pair # "
                "p matched pairs | p_decoy # p decoys | q #"
            ),
            "Tested pairs of this sample.",
            most=60,
        ),
    ]


CHAPTERS: tuple[tuple[str, Callable[[Data, Page], list[Block]]], ...] = (
    ("Quality", quality_chapter),
    ("Composition", composition_chapter),
    ("Annotation", annotation_chapter),
    ("Malignancy", malignancy_chapter),
    ("Cancer stem cells (CD44/CD24 and ALDH1A3)", csc_chapter),
    ("Macrophages (M1/M2)", tam_chapter),
    ("Crosstalk (IL6, CXCL8, PPBP)", axes_of),
    ("Loop", loop_chapter),
    ("Not assessable", not_assessable_chapter),
)


def sample_chapters(cohort: Data, sample: str) -> list[Chapter]:
    """Chapters of one sample's page."""
    d, page = OneSample(cohort, sample), Page(cohort.results, files=False)
    known = [
        f"{what}: {d.sheet_value(sample, column)}"
        for column, what in (
            ("patient", "patient"), ("subtype", "subtype"), ("tissue", "tissue"), ("treatment", "treatment"),
            ("chemistry", "chemistry"), ("dataset", "data set"), ("status", "status"), ("reason", "reason"),
        )
        if d.sheet_value(sample, column)
    ]  # fmt: skip
    first = [
        bullets(known),
        text("This page repeats what the report says of one sample; only the cohort supports a claim."),
    ]
    return [Chapter("Sample", first), *(Chapter(title, make(d, page)) for title, make in CHAPTERS)]
