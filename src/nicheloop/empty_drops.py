"""Ambient pool from the empty droplets of a raw (unfiltered) matrix, where the user has one.  See docs/ambient.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nicheloop.inputs import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nicheloop.config_cells import Ambient


def empty_pool(
    path: str | Path, genes: Sequence[str], barcodes: Sequence[str], options: Ambient
) -> tuple[NDArray[np.float64], int, float]:
    """Composition of the droplets that hold no cell.

    Parameters
    ----------
    path
        Raw matrix of the sample, in any format that ingest reads.
    genes
        (genes,) symbols of the sample's counts; the pool is given for them.
    barcodes
        Barcodes of the sample's cells, kept or not; they are never empty.
    options
        `empty_max_umi` and `min_empty`.

    Returns
    -------
    (genes,) share of each gene, empty droplets used, and their UMI.

    Raises
    ------
    DataError
        If the matrix cannot be read, holds no counts, has none of the sample's barcodes (another sample's matrix), or
        too few empty droplets.
    """
    from nicheloop.ingest import name_genes
    from nicheloop.readers import read_counts

    raw = read_counts(path)
    if not raw.is_counts:
        raise DataError(f"{path}: the raw matrix holds no counts.", "raw_no_counts")
    known = set(barcodes)
    cells = np.fromiter((b in known for b in raw.barcodes), dtype=bool, count=len(raw.barcodes))
    if not cells.any():
        raise DataError(
            f"{path}: holds none of the sample's barcodes (such as {', '.join(list(barcodes)[:2])}): it is another "
            "sample's. Give the raw matrix of this one.",
            "raw_other_sample",
        )
    total = np.asarray(raw.matrix.sum(axis=1), dtype=np.float64).ravel()
    empty = ~cells & (total > 0) & (total <= options.empty_max_umi)
    if int(empty.sum()) < options.min_empty:
        raise DataError(
            f"{path}: {int(empty.sum())} droplets without a cell have at most {options.empty_max_umi} UMI, "
            f"{options.min_empty} are needed: is the matrix filtered?",
            "raw_too_few_empty",
        )
    named = name_genes(raw)
    summed = np.asarray(named.matrix[np.flatnonzero(empty)].sum(axis=0), dtype=np.float64).ravel()
    lookup = dict(zip(named.symbols, summed, strict=True))
    pool = np.array([lookup.get(g, 0.0) for g in genes])
    if not pool.sum() > 0:
        raise DataError(f"{path}: its empty droplets hold none of the sample's genes.", "raw_other_genes")
    return pool / pool.sum(), int(empty.sum()), float(total[empty].sum())
