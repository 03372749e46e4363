"""File formats of count matrices: 10x .h5 and folders, MatrixMarket triplets, .h5ad, dense text.  See docs/ingest.md.

Every reader gives cells x features as CSR with the file's own names; naming the genes is left to `nicheloop.ingest`.
"""

from __future__ import annotations

import contextlib
import csv
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from nicheloop import genes, inputs
from nicheloop.errors import UserError
from nicheloop.inputs import DENSE_SUFFIXES, FORMATS, HDF5_SUFFIXES, DataError, bare, reading

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

BLOCK_VALUES = 4_000_000  # values of a dense table held at once: 16 MB, independent of the file's size
SNIFFED = 500  # features looked at to tell genes from cells
# The largest log2(TPM + 1), since TPM sum to a million: a table of fractions that never exceeds this was logged.
LARGEST_LOG = float(np.log2(1e6 + 1))
ORIENTATIONS = ("genes in rows", "cells in rows")
FLOAT32_MAX = float(np.finfo(np.float32).max)


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
    format : one of `FORMATS`
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
        return _hdf5_format(source), source
    if name.endswith(DENSE_SUFFIXES):
        return "dense", source
    raise inputs.unknown(source)


def _check_hdf5(path: Path) -> None:
    import h5py

    with reading(path):
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty. Download it again.")
        if inputs.is_gzip(path):
            raise DataError(f"{path}: a compressed HDF5 file. Unpack it first (gunzip).")
        if not h5py.is_hdf5(path):
            raise DataError(f"{path}: not an HDF5 file, or cut off at its start: cannot be read. Download it again.")


def _hdf5_format(path: Path) -> str:
    import h5py

    _check_hdf5(path)
    with reading(path), h5py.File(path, "r") as handle:
        keys = set(handle)
        if {"obs", "var"} <= keys:
            return "h5ad"
        if "matrix" in keys or any("barcodes" in getattr(handle[k], "keys", list)() for k in keys):
            return "10x_h5"
        raise DataError(
            f"{path}: neither a 10x matrix nor an h5ad file (it holds {', '.join(sorted(keys)) or 'nothing'}). "
            "Give filtered_feature_bc_matrix.h5 or an h5ad."
        )


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
    hits = [1.0 if genes.resolve(str(n)) else 0.5 if genes.resolve(str(n).upper()) else 0.0 for n in names]
    return float(np.mean(hits))


# --- 10x HDF5 ---------------------------------------------------------------------------------------------------------


def read_10x_h5(path: Path) -> RawCounts:
    """Read a Cell Ranger .h5 (version 2: one group per genome; version 3: group ``matrix``)."""
    import h5py
    from scipy.sparse import csr_matrix

    _check_hdf5(path)
    with reading(path), h5py.File(path, "r") as handle:
        if "matrix" in handle:
            group, features = handle["matrix"], handle["matrix/features"]
            names, ids = features["name"].asstr()[:], features["id"].asstr()[:]
            kinds = (
                features["feature_type"].asstr()[:]
                if "feature_type" in features
                else np.full(len(names), "Gene Expression")
            )
            source = "matrix"
        else:
            genomes = sorted(k for k in handle if "barcodes" in getattr(handle[k], "keys", list)())
            human = [g for g in genomes if re.match(r"grch|hg", g, re.IGNORECASE)] if len(genomes) > 1 else genomes
            if len(human) != 1:
                raise DataError(f"{path}: holds several genomes ({', '.join(genomes)}). Keep the human one only.")
            source = human[0]
            group = handle[source]
            names, ids = group["gene_names"].asstr()[:], group["genes"].asstr()[:]
            kinds = np.full(len(names), "Gene Expression")
        n_features, n_cells = (int(n) for n in group["shape"][:])
        barcodes = [str(b) for b in group["barcodes"].asstr()[:]]
        if (len(names), len(barcodes)) != (n_features, n_cells):
            raise DataError(
                f"{path}: the matrix is {n_features} features x {n_cells} cells but lists {len(names)} features and "
                f"{len(barcodes)} barcodes."
            )
        arrays = (group["data"][:].astype(np.float32), group["indices"][:], group["indptr"][:])
        x = csr_matrix(arrays, shape=(n_cells, n_features))
        x.check_format(full_check=True)
    keep = np.flatnonzero(np.asarray(kinds, dtype=object) == "Gene Expression")
    if len(keep) == 0:
        raise DataError(
            f"{path}: holds no 'Gene Expression' features (it holds {', '.join(sorted(set(kinds)))}).",
            "no_counts_found",
        )
    if len(keep) < n_features:
        x = x[:, keep].tocsr()
    return RawCounts(
        x, barcodes, [str(n) for n in names[keep]], [str(i) for i in ids[keep]], "10x_h5", source,
        n_other_features=n_features - len(keep),
    )  # fmt: skip


# --- MatrixMarket -----------------------------------------------------------------------------------------------------


def read_mtx(path: Path) -> RawCounts:
    """Read a MatrixMarket file with its features and barcodes (Cell Ranger 2, 3, or plain genes.txt, barcodes.txt)."""
    from scipy.io import mmread
    from scipy.sparse import coo_matrix, csr_matrix

    feature_file, barcode_file = inputs.label_files(path)
    marked = inputs.check_mtx(path)
    with reading(path), contextlib.ExitStack() as stack:
        source: Any = path
        if marked or inputs.is_gzip(path) != path.name.endswith(".gz"):
            source = stack.enter_context(inputs.open_bytes(path))
            source.seek(3 if marked else 0)
        x = coo_matrix(mmread(source)).astype(np.float32)
    rows, cols = x.shape
    features, cells = inputs.labels(feature_file, x.shape), inputs.labels(barcode_file, x.shape)
    n_features, n_cells = len(features[0]), len(cells[0])
    if (rows, cols) == (n_features, n_cells):
        matrix = csr_matrix(x.T)
    elif (rows, cols) == (n_cells, n_features):
        matrix = csr_matrix(x)
    else:
        raise DataError(
            f"{path}: the matrix is {rows} x {cols} but {feature_file.name} lists {n_features} features and "
            f"{barcode_file.name} {n_cells} barcodes. The three files must belong together."
        )
    other = 0
    kinds = next((c for c in features if "Gene Expression" in set(c[:SNIFFED]) or "Gene Expression" in set(c)), None)
    if kinds is not None:
        keep = np.flatnonzero(np.asarray(kinds, dtype=object) == "Gene Expression")
        other = n_features - len(keep)
        matrix = matrix[:, keep].tocsr()
        features = [[c[i] for i in keep] for c in features if c is not kinds]
    names, ids = feature_columns({str(i): c for i, c in enumerate(features)})
    barcodes = next((c for c in cells if len(set(c)) == len(c) and not c[0].isdigit()), cells[0])
    return RawCounts(matrix, barcodes, names, ids, "10x_mtx", path.name, n_other_features=other)


# --- h5ad -------------------------------------------------------------------------------------------------------------


def fractional_share(x: csr_matrix) -> float:
    """Share of the stored values that are not whole numbers; 0 for an empty matrix."""
    return float(np.mean(x.data != np.rint(x.data))) if x.nnz else 0.0


def _h5ad_matrix(node: Any) -> csr_matrix:
    """A matrix of an h5ad file as CSR; dense ones in blocks of rows."""
    from anndata.io import read_elem
    from scipy.sparse import csr_matrix, vstack

    if hasattr(node, "keys"):
        return csr_matrix(read_elem(node)).astype(np.float32)
    step = max(1, BLOCK_VALUES // max(1, node.shape[1]))
    blocks = [csr_matrix(node[i : i + step].astype(np.float32)) for i in range(0, node.shape[0], step)]
    return csr_matrix(vstack(blocks, format="csr")) if blocks else csr_matrix(node.shape, dtype=np.float32)


def read_h5ad(path: Path, annotation: str | None = None, integer_tolerance: float = 0.0) -> RawCounts:
    """Read an h5ad: the first of the layers counts and raw_counts, ``raw.X``, ``X`` that holds whole numbers."""
    import h5py
    import pandas as pd
    from anndata.io import read_elem

    _check_hdf5(path)
    with reading(path), h5py.File(path, "r") as handle:
        obs = read_elem(handle["obs"])
        places = [(f"layers[{k}]", f"layers/{k}", "var") for k in ("counts", "raw_counts")]
        places += [("raw.X", "raw/X", "raw/var"), ("X", "X", "var")]
        tried = []
        for source, key, var_key in places:  # noqa: B007 (used after the loop)
            if key not in handle:
                continue
            x = _h5ad_matrix(handle[key])
            share = fractional_share(x)
            if not np.isfinite(x.data).all():
                tried.append(f"{source} (missing or infinite values)")
            elif x.nnz and x.data.min() < 0:
                tried.append(f"{source} (negative values)")
            elif share > integer_tolerance:
                tried.append(f"{source} ({share:.0%} not whole numbers)")
            elif x.shape[0] and not x.count_nonzero():
                tried.append(f"{source} (only zeros)")
            else:
                break
        else:
            layers = sorted(set(handle["layers"]) - {"counts", "raw_counts"}) if "layers" in handle else []
            also = f" Other layers, not looked at: {', '.join(layers)}." if layers else ""
            raise DataError(
                f"{path}: holds no raw counts (normalised?): {', '.join(tried) or 'no matrix'}.{also} Put raw counts "
                "into layers['counts'], raw.X or X.",
                "no_counts_found",
            )
        var = read_elem(handle[var_key])
    columns = {"index": [str(v) for v in var.index]}
    for column in var.columns:
        if not pd.api.types.is_numeric_dtype(var[column]):
            columns[str(column)] = ["" if v is None or v != v else str(v) for v in var[column]]
    names, ids = feature_columns(columns)
    chosen = None
    if annotation is not None and annotation in obs.columns:
        chosen = ["" if missing else str(v) for v, missing in zip(obs[annotation], obs[annotation].isna(), strict=True)]
    return RawCounts(
        x, [str(b) for b in obs.index], names, ids, "h5ad", source, obs=obs.reset_index(drop=True), annotation=chosen
    )


# --- dense text -------------------------------------------------------------------------------------------------------


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


def _head(path: Path, n: int = 40) -> tuple[list[str], list[list[str]], str]:
    """Header, first data rows and separator of a dense table; comment lines are skipped."""
    lines: list[str] = []
    with reading(path), inputs.open_text(path) as handle:
        for line in handle:
            if line.strip() and not (line.startswith("#") and not lines):
                lines.append(line.rstrip("\r\n"))
            if len(lines) > n:
                break
    if len(lines) < 2:
        raise DataError(f"{path}: the table is empty (expected a header and at least one row).", "no_counts_found")
    counts = {s: lines[1].count(s) for s in ("\t", ",", ";", " ")}
    separator = max(counts, key=lambda s: counts[s])
    rows = list(csv.reader(lines, delimiter=separator))
    header, body = rows[0], rows[1:]
    if len(header) == len(body[0]) - 1:  # R leaves out the name of the row names
        header = ["", *header]
    if len(header) != len(body[0]):
        raise DataError(f"{path}: the header has {len(header)} fields but the first row has {len(body[0])}.")
    return header, body, separator


def _split_head(path: Path) -> tuple[list[str], list[str], int, str]:
    """Names of the columns of numbers, whole header, number of label columns, and separator of a dense table."""
    with reading(path):
        header, body, separator = _head(path)
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
    return columns, header, n_labels, separator


def _data_lines(handle: IO[str]) -> Iterator[str]:
    """Lines below the header; empty ones and comments above the header are skipped."""
    header = False
    for line in handle:
        if line.strip() and (header or not line.startswith("#")):
            if header:
                yield line.rstrip("\r\n")
            header = True


def _row(line: str, n_labels: int, columns: list[str], separator: str, path: Path) -> tuple[list[str], np.ndarray]:
    """Labels and numbers of one line; what cannot be read is named by row and column."""
    parts = line.split(separator, n_labels)
    if len(parts) == n_labels + 1 and '"' not in parts[-1] and all(p.count('"') in (0, 2) for p in parts):
        own = [p.strip().strip('"') for p in parts[:n_labels]]
        with contextlib.suppress(ValueError):
            values = np.fromstring(parts[-1], dtype=np.float64, sep=separator)
            if len(values) == len(columns) and (np.abs(values) < FLOAT32_MAX).all():
                return own, values
    fields = next(csv.reader([line], delimiter=separator))
    own, fields = fields[:n_labels], fields[n_labels:]
    name = own[0] if own else line[:20]
    if len(fields) != len(columns):
        raise DataError(
            f"{path}: row '{name}' has {len(fields)} values, the header {len(columns)}. The file is damaged."
        )
    values = np.empty(len(columns))
    for i, text in enumerate(fields):
        try:
            values[i] = float(text)
        except ValueError:
            values[i] = np.nan
        if not abs(values[i]) < FLOAT32_MAX:
            raise DataError(
                f"{path}: {text!r} in row '{name}', column '{columns[i]}' is not a number. Every entry must be one, "
                "with a point for decimals and nothing between thousands."
            )
    return own, values


def read_dense(path: Path) -> RawCounts:
    """Read a table of genes x cells or cells x genes; the axis whose labels are genes decides, never the shape.

    Values that are not whole numbers (TPM of full-length protocols) are read and flagged; logged values are refused.
    """
    import pandas as pd
    from scipy.sparse import csr_matrix, vstack

    columns, header, n_labels, separator = _split_head(path)
    labels: list[list[str]] = [[] for _ in range(n_labels)]
    blocks: list[csr_matrix] = []
    block = np.empty((max(1, BLOCK_VALUES // len(columns)), len(columns)), dtype=np.float32)
    used = 0
    with reading(path), inputs.open_text(path) as handle, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fromstring, where a line ends early: looked at again
        for line in _data_lines(handle):
            own, block[used] = _row(line, n_labels, columns, separator, path)
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
    keys = [h if h.strip() else f"column{i}" for i, h in enumerate(header[: len(labels)])]
    if len(set(keys)) < len(keys):
        keys = [f"{k}_{i}" for i, k in enumerate(keys)]
    if row_share >= column_share:  # genes in rows
        names, ids = feature_columns(dict(zip(keys, labels, strict=True)))
        raw = RawCounts(csr_matrix(x.T), columns, names, ids, "dense", path.name)
    else:
        names, ids = feature_columns({"columns": columns})
        unique = next((i for i, c in enumerate(labels) if len(set(c)) == len(c)), 0)
        others = {k: c for i, (k, c) in enumerate(zip(keys, labels, strict=True)) if i != unique}
        raw = RawCounts(x, labels[unique], names, ids, "dense", path.name, obs=pd.DataFrame(others) if others else None)
    raw.notes.append(ORIENTATIONS[0] if row_share >= column_share else ORIENTATIONS[1])
    return raw


# --- any --------------------------------------------------------------------------------------------------------------


def read_counts(
    path: str | Path, *, fmt: str | None = None, annotation: str | None = None, integer_tolerance: float = 0.0
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
    with reading(source):
        if fmt == "10x_h5":
            raw = read_10x_h5(source)
        elif fmt == "10x_mtx":
            raw = read_mtx(source)
        elif fmt == "h5ad":
            raw = read_h5ad(source, annotation, integer_tolerance)
        else:
            raw = read_dense(source)
        if raw.annotation is None and annotation is not None and raw.obs is not None and annotation in raw.obs.columns:
            raw.annotation = ["" if v is None or v != v else str(v) for v in raw.obs[annotation]]
        return _checked(raw, source, integer_tolerance)


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
        _split_head(source)
    else:
        _check_hdf5(source)
    return fmt, source


def _place(raw: RawCounts, bad: np.ndarray) -> str:
    """Name of the first entry for which a mask over the stored values holds."""
    at = int(np.flatnonzero(bad)[0])
    cell = int(np.searchsorted(raw.matrix.indptr, at, side="right")) - 1
    return f"the first for feature '{raw.names[int(raw.matrix.indices[at])]}' in cell '{raw.barcodes[cell]}'"


def _checked(raw: RawCounts, path: Path, integer_tolerance: float) -> RawCounts:
    x = raw.matrix
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
