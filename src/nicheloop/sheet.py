"""The sample sheet: one row per sample, checked as a whole before any job starts."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nicheloop.errors import UserError

FORMATS = ("10x_h5", "10x_mtx", "h5ad", "dense")
KNOWN = (
    "sample", "path", "patient", "format", "subtype", "tissue", "treatment", "sorting", "chemistry", "dataset",
    "malignancy", "annotation",
)  # fmt: skip
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
UNKNOWN = {"", "na", "n/a", "nan", "none", "unknown", "null"}
MATRIX_PARTS = re.compile(r"(matrix|barcodes|features|genes|cells)[^/]*\.(mtx|tsv|txt|csv)(\.gz)?$", re.IGNORECASE)


def _value(text: str | None) -> str | None:
    """A cell of the sheet; empty and the usual words for missing become None, which means unknown."""
    text = (text or "").strip()
    return None if text.lower() in UNKNOWN else text


def _read(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such sample sheet. Give its path as 'samples' (or 'demo').") from None
    except (OSError, UnicodeDecodeError) as err:
        raise UserError(f"{path}: cannot be read as a UTF-8 text table ({err}). Save it as TSV or CSV.") from None
    numbered = [(n, t) for n, t in enumerate(text.splitlines(), start=1) if t.strip() and not t.startswith("#")]
    lines = [line for _, line in numbered]
    if not lines:
        raise UserError(f"{path}: the sample sheet is empty. It needs the columns 'sample' and 'path'.")
    delimiter = "\t" if "\t" in lines[0] else ("," if "," in lines[0] else ";")
    reader = csv.reader(lines, delimiter=delimiter)
    header = [h.strip() for h in next(reader)]
    rows = [(n, dict(zip(header, row, strict=False))) for (n, _), row in zip(numbered[1:], reader, strict=False)]
    return header, rows


def input_files(path: str | Path) -> list[str]:
    """Files a sample is read from, so that a change in one is seen: the file itself, or a folder's matrix parts."""
    path = Path(path)
    if not path.is_dir():
        return [str(path)]
    parts = sorted(str(p) for p in path.iterdir() if p.is_file() and MATRIX_PARTS.search(p.name))
    return parts or [str(path)]


def _problems(where: str, row: dict[str, Any], seen: dict[str, str]) -> Iterable[str]:
    sample, path = row["sample"], row["path"]
    if sample is None:
        yield f"{where}: column 'sample' is empty."
    elif not NAME.fullmatch(sample):
        yield f"{where}: sample name {sample!r} has illegal characters; use letters, digits, '.', '_' and '-'."
    elif sample.lower() in seen:
        yield f"{where}: sample {sample!r} stands already at {seen[sample.lower()]}; names must differ."
    if sample is not None:
        seen.setdefault(sample.lower(), where)
    if path is None:
        yield f"{where}: column 'path' is empty (sample {sample!r})."
    elif not Path(path).exists():
        yield f"{where}: {path} does not exist (sample {sample!r}). Paths are relative to the sheet's folder."
    if row["format"] is not None and row["format"] not in FORMATS:
        yield f"{where}: format {row['format']!r} is not known; leave it empty or use one of {', '.join(FORMATS)}."
    if row["malignancy"] not in (None, "assumed"):
        yield f"{where}: malignancy {row['malignancy']!r} is not known; leave it empty or write 'assumed'."


def read_sheet(path: str | Path) -> list[dict[str, Any]]:
    """Read and check a sample sheet.

    Parameters
    ----------
    path
        TSV or CSV with a header.  Required columns: ``sample``, ``path``.

    Returns
    -------
    One dict per sample with every column of `KNOWN` (None means unknown; ``patient`` defaults to ``sample``) and
    ``extra``, a dict of the further columns.

    Raises
    ------
    UserError
        With one line per problem, all of them together.
    """
    path = Path(path)
    header, lines = _read(path)
    problems = [
        f"{path}: column '{c}' is missing. Found: {', '.join(header)}." for c in ("sample", "path") if c not in header
    ]
    problems += [f"{path}: column {c!r} stands twice." for c in sorted({c for c in header if header.count(c) > 1})]
    if problems:
        raise UserError(problems)
    rows: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for number, line in lines:
        row: dict[str, Any] = {c: _value(line.get(c)) for c in KNOWN}
        row["extra"] = {c: _value(line.get(c)) for c in header if c and c not in KNOWN}
        if row["path"] is not None:
            row["path"] = str((path.parent / Path(row["path"]).expanduser()).resolve())
        problems += _problems(f"{path}, line {number}", row, seen)
        row["patient"] = row["patient"] or row["sample"]
        rows.append(row)
    if not rows and not problems:
        problems.append(f"{path}: the sample sheet has a header but no sample.")
    if problems:
        raise UserError(problems)
    return rows


def sheet_from_paths(paths: Iterable[str | Path]) -> list[dict[str, str]]:
    """Rows (sample, path) for files or folders given on the command line; names come from the file names.

    Raises
    ------
    UserError
        If a path does not exist.
    """
    found = [Path(p).expanduser() for p in paths]
    missing = [f"{p}: no such file or folder." for p in found if not p.exists()]
    if missing:
        raise UserError(missing)
    rows: list[dict[str, str]] = []
    taken: set[str] = set()
    for path in found:
        stem = path.resolve().name
        for ending in (".gz", ".h5ad", ".h5", ".csv", ".tsv", ".txt"):
            stem = stem.removesuffix(ending)
        if stem in ("filtered_feature_bc_matrix", "raw_feature_bc_matrix", "outs") and path.resolve().parent.name:
            stem = path.resolve().parent.name
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).lstrip("._-") or "sample"
        name, n = stem, 2
        while name.lower() in taken:
            name, n = f"{stem}_{n}", n + 1
        taken.add(name.lower())
        rows.append({"sample": name, "path": str(path.resolve())})
    return rows
