"""A count matrix as its file holds it, and which of its columns name genes.  See docs/ingest.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nicheloop import genes
from nicheloop.inputs import DataError

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

BLOCK_VALUES = 4_000_000  # values of a dense table held at once: 16 MB, independent of the file's size
SNIFFED = 500  # features looked at to tell genes from cells


@dataclass
class RawCounts:
    """A matrix as its file holds it.

    Attributes
    ----------
    matrix : (cells, features) CSR float32
    barcodes : (cells,) names of the cells, unique
    names : (features,) names of the features as in the file
    identifiers : (features,) Ensembl ids as in the file, or None
    obs : (cells, columns) table of the cells (h5ad, dense text with several label columns), or None
    format : one of `inputs.FORMATS`
    source : which matrix of the file was read (``X``, ``raw.X``, ``layers[counts]``, a file name)
    is_counts : whether the values are whole numbers
    n_other_features : features that are not gene expression (antibodies, guides), left out
    annotation : (cells,) the annotation asked for, or None if the file has no such column
    notes : what a reader of the record should know
    """

    matrix: csr_matrix
    barcodes: list[str]
    names: list[str]
    identifiers: list[str] | None
    format: str
    source: str
    obs: pd.DataFrame | None = None
    is_counts: bool = True
    n_other_features: int = 0
    annotation: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def feature_columns(columns: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str] | None]:
    """Pick names and Ensembl ids among the columns of a feature table.

    Parameters
    ----------
    columns
        Column name -> (features,) text.

    Returns
    -------
    tuple
        (features,) names: the column with most known genes; (features,) Ensembl ids, or None.
    """
    if not columns:
        raise DataError("the feature table has no column")
    ids: tuple[float, str] | None = None
    best: tuple[float, str] | None = None
    for key, values in columns.items():
        step = max(1, len(values) // SNIFFED)
        seen = [str(v) for v in values[::step]]
        ensembl = float(np.mean([v.startswith("ENS") for v in seen])) if seen else 0.0
        share = known_share(seen)
        if ensembl > 0.5 and (ids is None or ensembl > ids[0]):
            ids = (ensembl, key)
        elif ensembl <= 0.5 and (best is None or share > best[0]):
            best = (share, key)
    identifiers = [str(v) for v in columns[ids[1]]] if ids else None
    if identifiers is not None and (best is None or best[0] == 0):
        return identifiers, identifiers
    assert best is not None
    return [str(v) for v in columns[best[1]]], identifiers


def known_share(names: Sequence[str]) -> float:
    """Share of names that look like genes: human ones, or (at half weight) known after folding case, as in mouse."""
    if not len(names):
        return 0.0
    dates = set(genes.spreadsheet_dates([str(n) for n in names]))  # they were genes once

    def hit(name: str) -> float:
        return 1.0 if name in dates or genes.resolve(name) else 0.5 if genes.resolve(name.upper()) else 0.0

    return float(np.mean([hit(str(n)) for n in names]))


def fractional_share(x: csr_matrix) -> float:
    """Share of the stored values that are not whole numbers; 0 for an empty matrix."""
    return float(np.mean(x.data != np.rint(x.data))) if x.nnz else 0.0
