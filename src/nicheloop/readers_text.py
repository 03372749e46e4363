"""Count matrices as dense text: genes x cells or cells x genes.  See docs/ingest.md."""

from __future__ import annotations

import contextlib
import csv
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from nicheloop import genes, inputs, rawcounts
from nicheloop.inputs import DataError, reading
from nicheloop.rawcounts import SNIFFED, RawCounts, feature_columns, known_share

ORIENTATIONS = ("genes in rows", "cells in rows")
FLOAT32_MAX = float(np.finfo(np.float32).max)
MAX_LABEL_ROWS = 10
MISSING = ("", "NA", "NaN", "nan", "null", "NULL")
# A number as spreadsheets write it: 1,000 or 1,5.  It cannot be read, but it does not make its column one of labels.
LOCAL_NUMBER = re.compile(r"[-+]?\d+([.,' ]\d+)+")


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return bool(LOCAL_NUMBER.fullmatch(text.strip()))
    return True


def _is_label(values: Sequence[str]) -> bool:
    """Whether a column names rows: more than half of what it holds are no numbers."""
    held = [v for v in values if v.strip() not in MISSING]
    return sum(not _number(v) for v in held) > len(held) / 2


def _is_label_row(fields: Sequence[str]) -> bool:
    """Whether a row holds labels of the cells instead of counts of a gene."""
    return len(fields) > 1 and _is_label(fields[1:]) and genes.resolve(fields[0].strip()) is None


def _head(path: Path, n: int = 40) -> tuple[list[str], list[list[str]], str, int]:
    """Header, first data rows, separator of a dense table, and label rows below the header; comments are skipped."""
    lines: list[str] = []
    with reading(path), inputs.open_text(path) as handle:
        for line in handle:
            if line.strip() and not (line.startswith("#") and not lines):
                lines.append(line.rstrip("\r\n"))
            if len(lines) > n:
                break
    if len(lines) < 2:
        raise DataError(f"{path}: the table is empty: give a header and at least one row.", "no_counts_found")
    counts = {s: lines[1].count(s) for s in ("\t", ",", ";", " ")}
    separator = max(counts, key=lambda s: counts[s])
    rows = list(csv.reader(lines, delimiter=separator))
    header, body = rows[0], rows[1:]
    if len(header) == len(body[0]) - 1:  # R leaves out the name of the row names
        header = ["", *header]
    if len(header) != len(body[0]):
        raise DataError(
            f"{path}: the header has {len(header)} fields but the first row has {len(body[0])}. Write both "
            "with the same fields (the name of the row names may be left out)."
        )
    labelled = next((i for i, row in enumerate(body) if not _is_label_row(row)), len(body))
    if labelled in range(1, MAX_LABEL_ROWS + 1) and labelled < len(body):
        return header, body[labelled:], separator, labelled
    return header, body, separator, 0


@dataclass(frozen=True)
class Head:
    """What the first lines of a dense table say.

    Attributes
    ----------
    columns : names of the columns of numbers
    header : names of all columns
    n_labels : label columns before the numbers
    separator : between fields
    label_rows : rows below the header that hold labels of the cells
    """

    columns: list[str]
    header: list[str]
    n_labels: int
    separator: str
    label_rows: int


def split_head(path: Path) -> Head:
    """Look at the first lines of a dense table."""
    with reading(path):
        header, body, separator, label_rows = _head(path)
    n_labels = 0
    while n_labels < len(header) and _is_label([r[n_labels] for r in body if len(r) > n_labels]):
        n_labels += 1
    if n_labels == 0:
        if header[0].strip() and not genes.resolve(header[0]):
            n_labels = 1  # numeric row names
        elif not header[0].strip():
            n_labels = 1
    columns = header[n_labels:]
    if not columns:
        raise DataError(
            f"{path}: no column of numbers found. Give a table of genes x cells or cells x genes, the folder of a 10x "
            "matrix (not one of its parts), or a sample sheet with the columns 'sample' and 'path'.",
            "no_counts_found",
        )
    return Head(columns, header, n_labels, separator, label_rows)


def _data_lines(handle: IO[str]) -> Iterator[str]:
    """Lines below the header; empty ones and comments above the header are skipped."""
    header = False
    for line in handle:
        if line.strip() and (header or not line.startswith("#")):
            if header:
                yield line.rstrip("\r\n")
            header = True


def _zeros_for_missing(line: str, separator: str) -> str:
    """Line with 0 where nothing stands."""
    gap = separator + separator
    line = line.replace(gap, f"{separator}0{separator}").replace(gap, f"{separator}0{separator}")
    return line + "0" if line.endswith(separator) else line


def _row(line: str, head: Head, path: Path, missing_is_zero: bool) -> tuple[list[str], np.ndarray]:
    """Labels and numbers of one line; what cannot be read is named by row and column."""
    n_labels, columns, separator = head.n_labels, head.columns, head.separator
    if missing_is_zero:
        line = _zeros_for_missing(line, separator)
    parts = line.split(separator, n_labels)
    if len(parts) == n_labels + 1 and '"' not in parts[-1] and all(p.count('"') in (0, 2) for p in parts):
        own = [p.strip().strip('"') for p in parts[:n_labels]]
        with contextlib.suppress(ValueError):
            values = np.fromstring(parts[-1], dtype=np.float64, sep=separator)
            if missing_is_zero:
                values[np.isnan(values)] = 0
            if len(values) == len(columns) and (np.abs(values) < FLOAT32_MAX).all():
                return own, values
    fields = next(csv.reader([line], delimiter=separator))
    own, fields = fields[:n_labels], fields[n_labels:]
    name = own[0] if own else line[:20]
    if len(fields) != len(columns):
        raise DataError(
            f"{path}: row '{name}' has {len(fields)} values, the header {len(columns)}. Every row needs as "
            "many: download or write the file again."
        )
    values = np.empty(len(columns))
    for i, text in enumerate(fields):
        if missing_is_zero and text.strip() in MISSING:
            values[i] = 0
            continue
        try:
            values[i] = np.nan if "_" in text else float(text)  # to Python 1_000 is a number
        except ValueError:
            values[i] = np.nan
        if not abs(values[i]) < FLOAT32_MAX:
            raise DataError(
                f"{path}: {text!r} in row '{name}', column '{columns[i]}' is not a number. Every entry must be one, "
                "with a point for decimals and nothing between thousands."
            )
    return own, values


def read_dense(path: Path, *, missing_is_zero: bool = False) -> RawCounts:
    """Read a table of genes x cells or cells x genes; the axis whose labels are genes decides, never the shape.

    Values that are not whole numbers (TPM of full-length protocols) are read and flagged; logged values are refused.
    Rows below the header that hold labels of the cells (such as another program's calls) become columns of ``obs``.
    """
    import pandas as pd
    from scipy.sparse import csr_matrix, vstack

    head = split_head(path)
    columns, n_labels = head.columns, head.n_labels
    labels: list[list[str]] = [[] for _ in range(n_labels)]
    of_cells: dict[str, list[str]] = {}
    blocks: list[csr_matrix] = []
    block = np.empty((max(1, rawcounts.BLOCK_VALUES // len(columns)), len(columns)), dtype=np.float32)
    used = 0
    with reading(path), inputs.open_text(path) as handle, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fromstring, where a line ends early: looked at again
        for number, line in enumerate(_data_lines(handle)):
            if number < head.label_rows:
                fields = next(csv.reader([line], delimiter=head.separator))
                of_cells[fields[0].strip() or f"labels{number + 1}"] = fields[n_labels:]
                continue
            own, block[used] = _row(line, head, path, missing_is_zero)
            for i, label in enumerate(own):
                labels[i].append(label)
            used += 1
            if used == len(block):
                blocks.append(csr_matrix(block))
                used = 0
    blocks.append(csr_matrix(block[:used]))
    x = csr_matrix(vstack(blocks, format="csr"))
    if not labels:
        labels = [[f"row{i + 1}" for i in range(x.shape[0])]]
    row_share = max(known_share(c[:: max(1, len(c) // SNIFFED)]) for c in labels)
    column_share = known_share(columns[:: max(1, len(columns) // SNIFFED)])
    genes_in_rows = row_share >= column_share
    for name, values in of_cells.items():
        if not genes_in_rows or len(values) != len(columns):
            raise DataError(f"{path}: row '{name}' holds words, not numbers. Every entry must be a number.")
    keys = [h if h.strip() else f"column{i}" for i, h in enumerate(head.header[: len(labels)])]
    if len(set(keys)) < len(keys):
        keys = [f"{k}_{i}" for i, k in enumerate(keys)]
    if genes_in_rows:
        names, ids = feature_columns(dict(zip(keys, labels, strict=True)))
        obs = pd.DataFrame(of_cells) if of_cells else None
        raw = RawCounts(csr_matrix(x.T), columns, names, ids, "dense", path.name, obs=obs)
    else:
        names, ids = feature_columns({"columns": columns})
        unique = next((i for i, c in enumerate(labels) if len(set(c)) == len(c)), 0)
        others = {k: c for i, (k, c) in enumerate(zip(keys, labels, strict=True)) if i != unique}
        raw = RawCounts(x, labels[unique], names, ids, "dense", path.name, obs=pd.DataFrame(others) if others else None)
    raw.notes.append(ORIENTATIONS[0] if genes_in_rows else ORIENTATIONS[1])
    if of_cells:
        raw.notes.append(
            f"rows {', '.join(repr(n) for n in of_cells)} below the header hold words: taken as labels of the cells"
        )
    return raw
