"""File formats of count matrices: 10x .h5 and folders, MatrixMarket, .h5ad, .loom, dense text.  See docs/ingest.md.

Every reader gives cells x features as CSR with the file's own names; naming the genes is left to `nicheloop.ingest`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nicheloop import inputs
from nicheloop.errors import UserError
from nicheloop.inputs import DENSE_SUFFIXES, FORMATS, HDF5_SUFFIXES, DataError, bare, reading
from nicheloop.rawcounts import RawCounts, fractional_share
from nicheloop.readers_hdf5 import check_hdf5, hdf5_format, read_10x_h5, read_h5ad, read_loom
from nicheloop.readers_mtx import read_mtx
from nicheloop.readers_text import ORIENTATIONS, read_dense, split_head
from nicheloop.selection import Selection

__all__ = ["ORIENTATIONS", "Layout", "RawCounts", "detect_format", "glance", "read_counts"]

# The largest log2(TPM + 1), since TPM sum to a million: a table of fractions that never exceeds this was logged.
LARGEST_LOG = float(np.log2(1e6 + 1))


@dataclass(frozen=True)
class Layout:
    """What a file does not say of itself: given by the catalogue of data sets.

    Attributes
    ----------
    features, barcodes : files of a MatrixMarket matrix; None: found beside it
    selection : which cells are the sample's; None: all
    missing_is_zero : in a dense table, empty and NaN mean 0
    """

    features: Path | None = None
    barcodes: Path | None = None
    selection: Selection | None = None
    missing_is_zero: bool = False


def detect_format(path: str | Path, fmt: str | None = None) -> tuple[str, Path]:
    """Format of a file, folder or prefix (``folder/GSM1_``), from content and names, and the path to read.

    Raises
    ------
    UserError
        If nothing is there, nothing can be recognised, or a folder holds several samples.
    """
    source = inputs.locate(path)
    name = bare(source)
    if fmt is not None:
        return fmt, source
    if name.endswith(".mtx"):
        return "10x_mtx", source
    if name.endswith(HDF5_SUFFIXES):
        return hdf5_format(source), source
    if name.endswith(DENSE_SUFFIXES):
        return "dense", source
    raise inputs.unknown(source)


def read_counts(
    path: str | Path,
    *,
    fmt: str | None = None,
    annotation: str | None = None,
    integer_tolerance: float = 0.0,
    layout: Layout | None = None,
) -> RawCounts:
    """Read a count matrix of any known format and check its values.

    Parameters
    ----------
    path
        File, folder, or prefix of a MatrixMarket triplet (``folder/GSM1_``).
    fmt
        One of `FORMATS`; None: recognised from content and names.
    annotation
        Column of the cells' table to keep as the user's own annotation.
    integer_tolerance
        Largest share of stored values that may not be whole numbers in a count matrix; they are rounded.
    layout
        Which cells are meant, and what else the file does not say.

    Returns
    -------
    RawCounts
        Whole numbers >= 0 if ``is_counts``, else values >= 0 as they are (dense text only).

    Raises
    ------
    DataError
        If the data cannot be used: what is wrong, with which file, and what to do.
    UserError
        If nothing is at `path` or `fmt` is unknown.
    """
    path = Path(path)
    if fmt in ("", "auto"):
        fmt = None
    if fmt is not None and fmt not in FORMATS:
        raise UserError(
            f"{path}: unknown format '{fmt}'. Known: {', '.join(FORMATS)}; leave it empty to have it recognised."
        )
    fmt, source = detect_format(path, fmt)
    layout = layout or Layout()
    with reading(source):
        if fmt == "10x_h5":
            raw = read_10x_h5(source)
        elif fmt == "10x_mtx":
            raw = read_mtx(source, layout.features, layout.barcodes, layout.selection)
        elif fmt == "h5ad":
            raw = read_h5ad(source, annotation, integer_tolerance, layout.selection)
        elif fmt == "loom":
            raw = read_loom(source)
        else:
            raw = read_dense(source, missing_is_zero=layout.missing_is_zero)
        if layout.selection is not None and fmt not in ("10x_mtx", "h5ad"):  # those read the chosen cells only
            _take(raw, layout.selection, source)
        if raw.annotation is None and annotation is not None and raw.obs is not None and annotation in raw.obs.columns:
            raw.annotation = ["" if v is None or v != v else str(v) for v in raw.obs[annotation]]
        return _checked(raw, source, integer_tolerance)


def _take(raw: RawCounts, selection: Selection, source: Path) -> None:
    """Keep the chosen cells."""
    positions, raw.obs = selection.pick(raw.barcodes, raw.obs, source)
    raw.matrix = raw.matrix[positions].tocsr()
    raw.barcodes = [raw.barcodes[i] for i in positions]


def glance(path: str | Path, fmt: str | None = None) -> tuple[str, Path]:
    """Recognise a sample and look at the head of its file; no value is read.

    Returns
    -------
    tuple
        One of `FORMATS`; the file that holds the counts.

    Raises
    ------
    DataError
        For what can be seen from names and first lines: `read_counts` would fail likewise.
    """
    fmt, source = detect_format(path, fmt)
    if fmt == "10x_mtx":
        inputs.label_files(source)
        inputs.check_mtx(source)
    elif fmt == "dense":
        split_head(source)
    else:
        check_hdf5(source)
    return fmt, source


def _place(raw: RawCounts, bad: np.ndarray) -> str:
    """Name of the first entry for which a mask over the stored values holds."""
    at = int(np.flatnonzero(bad)[0])
    cell = int(np.searchsorted(raw.matrix.indptr, at, side="right")) - 1
    return f"the first for feature '{raw.names[int(raw.matrix.indices[at])]}' in cell '{raw.barcodes[cell]}'"


def _checked(raw: RawCounts, path: Path, integer_tolerance: float) -> RawCounts:
    x = raw.matrix
    if x.shape != (len(raw.barcodes), len(raw.names)):
        raise DataError(
            f"{path}: {raw.source} is {x.shape[0]} cells x {x.shape[1]} features, but the file names "
            f"{len(raw.barcodes)} cells and {len(raw.names)} features. The file is damaged: write it again."
        )
    x.sum_duplicates()
    if not np.isfinite(x.data).all():
        bad = ~np.isfinite(x.data)
        raise DataError(
            f"{path}: {int(bad.sum())} missing or infinite values, {_place(raw, bad)}. Every entry must be a number."
        )
    if x.nnz and x.data.min() < 0:
        bad = x.data < 0
        reason = f"{int(bad.sum())} negative values (smallest {x.data.min():g}), {_place(raw, bad)}"
        raise DataError(f"{path}: {reason}: scaled data, not counts. Give raw counts.", "no_counts_found")
    share = fractional_share(x)
    raw.is_counts = share <= integer_tolerance
    if raw.is_counts and share > 0:
        raw.notes.append(f"{share:.2g} of the values were not whole numbers and were rounded")
        x.data = np.rint(x.data)
    elif not raw.is_counts and raw.format != "dense":
        reason = f"{share:.0%} of the values are not whole numbers: normalised data. Give raw counts."
        raise DataError(f"{path}: {reason}", "no_counts_found")
    elif not raw.is_counts and x.data.max() <= LARGEST_LOG:
        raise DataError(
            f"{path}: {share:.0%} of the values are not whole numbers and none exceeds {x.data.max():.3g}: "
            "log-transformed data. Give raw counts (or TPM).",
            "no_counts_found",
        )
    x.eliminate_zeros()
    if x.shape[0] and not x.nnz:
        raise DataError(f"{path}: every entry is 0. Give raw counts.", "no_counts_found")
    seen: set[str] = set()
    repeated = [b for b in raw.barcodes if b in seen or seen.add(b)]  # type: ignore[func-returns-value]
    if repeated:
        raise DataError(
            f"{path}: {len(repeated)} cell names occur more than once, such as '{repeated[0]}'. "
            "Give each cell a unique name."
        )
    if nameless := sum(not b.strip() for b in raw.barcodes):
        raise DataError(f"{path}: {nameless} cells have no name. Give each cell a unique name.")
    if raw.is_counts and x.nnz and x.data.max() <= 1:
        raw.notes.append("no value exceeds 1: presence and absence rather than counts?")
    if path.name.endswith(".gz") and path.with_suffix("").is_file():
        raw.notes.append(f"{path.name} was read; {path.with_suffix('').name} beside it was not")
    return raw
