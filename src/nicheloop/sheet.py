"""The sample sheet: one row per sample, checked as a whole before any job starts."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nicheloop import datasets, inputs, patients
from nicheloop.errors import UserError
from nicheloop.inputs import FORMATS

KNOWN = (
    "sample", "path", "patient", "format", "subtype", "tissue", "treatment", "sorting", "chemistry", "dataset",
    "malignancy", "annotation", "raw",
)  # fmt: skip
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
UNKNOWN = {"", "na", "n/a", "nan", "none", "unknown", "null"}
# Names that every sample's files have: the folder above says which sample it is.
GENERIC = {"outs", "matrix", "raw_feature_bc_matrix", "raw_gene_bc_matrices", *inputs.NESTED}
UNUSABLE = re.compile(r"[{}\t\r\n]")  # in a path: the workflow reads {x} as a wildcard, and a sheet cannot hold a tab


def _value(text: str | None) -> str | None:
    """A cell of the sheet; empty and the usual words for missing become None, which means unknown."""
    text = (text or "").strip()
    return None if text.lower() in UNKNOWN else text


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines of a text table with their numbers, without comments and empty ones."""
    try:
        with inputs.open_text(path) as handle:
            text = handle.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such sample sheet. Give its path as 'samples' (or 'demo').") from None
    except (OSError, EOFError, UnicodeError) as err:
        raise UserError(f"{path}: cannot be read as a UTF-8 text table ({err}). Save it as TSV or CSV.") from None
    return [(n, t) for n, t in enumerate(text.splitlines(), start=1) if t.strip() and not t.startswith("#")]


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header (known columns in lower case) and numbered rows."""
    numbered = _lines(path)
    lines = [line for _, line in numbered]
    if not lines:
        raise UserError(f"{path}: the sample sheet is empty. It needs the columns 'sample' and 'path'.")
    delimiter = "\t" if "\t" in lines[0] else ("," if "," in lines[0] else ";")
    try:
        table = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as err:
        raise UserError(f"{path}: cannot be read as a table ({err}). Save it as TSV or CSV.") from None
    header = [h.strip().lower() if h.strip().lower() in KNOWN else h.strip() for h in table[0]]
    return header, [(n, row) for (n, _), row in zip(numbered[1:], table[1:], strict=False)]


def looks_like_sheet(path: Path) -> bool:
    """Whether a text file is meant as a sample sheet: 'path' in its header, or 'sample' above a row without numbers."""
    try:
        header, rows = _read(path)
    except UserError:
        return False
    names = {h.lower() for h in header}
    return "path" in names or ("sample" in names and not any(v.strip().isdigit() for _, r in rows[:1] for v in r))


def input_files(path: str | Path) -> list[str]:
    """Files a sample is read from, so that a change is seen: the file, or the parts in a folder or of a prefix."""
    return [str(p) for p in inputs.parts(path)]


def _path_problems(path: str) -> Iterable[str]:
    if UNUSABLE.search(path):
        yield f"{path!r} has a curly bracket, tab or line break in it, which the workflow cannot use. Rename it."
    elif not inputs.exists(Path(path)):
        yield f"{path} does not exist"


def _problems(where: str, row: dict[str, Any], seen: dict[str, str], paths: dict[str, str]) -> Iterable[str]:
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
    elif datasets.URL.match(path):
        try:
            row |= datasets.url_row(row)
        except UserError as err:
            yield f"{where}: {err}"
        if path in paths:
            yield f"{where}: {path} stands already at {paths[path]}. One path is one sample."
        paths.setdefault(path, where)
    else:
        for problem in _path_problems(path):
            remedy = f" (sample {sample!r}). Paths are relative to the sheet's folder." if "exist" in problem else ""
            yield f"{where}: {problem}{remedy}"
        files = "|".join(input_files(path))
        if files in paths:
            yield f"{where}: the data of {path} stand already at {paths[files]}. One path is one sample."
        paths.setdefault(files, where)
    if row["format"] is not None and row["format"] not in FORMATS:
        yield f"{where}: format {row['format']!r} is not known; leave it empty or use one of {', '.join(FORMATS)}."
    if row["malignancy"] not in (None, "assumed"):
        yield f"{where}: malignancy {row['malignancy']!r} is not known; leave it empty or write 'assumed'."
    if row["raw"] is not None and datasets.URL.match(row["raw"]):
        yield f"{where}: raw {row['raw']!r} is an address; download the unfiltered matrix and give its path."
    elif row["raw"] is not None:
        for problem in _path_problems(row["raw"]):
            yield f"{where}: raw matrix: {problem} (sample {sample!r}). Leave the column empty where there is none."
    try:
        row["tissue"] = patients.canonical_tissue(row["tissue"])
    except ValueError as err:
        yield f"{where}: {err}."


def read_sheet(path: str | Path) -> list[dict[str, Any]]:
    """Read and check a sample sheet.

    Parameters
    ----------
    path
        TSV or CSV with a header.  Required columns: ``sample``, ``path`` (a file, a folder, or an
        http(s) or file address).

    Returns
    -------
    One dict per sample with every column of `KNOWN` (None means unknown; ``patient`` defaults to ``sample``; ``tissue``
    is a word of ``patients.TISSUES``), ``extra``, a dict of the further columns, and for an address ``source`` (see
    `datasets.row`).

    Raises
    ------
    UserError
        With one line per problem, all of them together.
    """
    path = Path(path)
    header, lines = _read(path)
    problems = [
        f"{path}: column '{c}' is missing. Found: {', '.join(header)}. A sample sheet needs 'sample' and 'path'."
        for c in ("sample", "path")
        if c not in header
    ]
    problems += [
        f"{path}: column {c!r} stands twice. Rename or remove one."
        for c in sorted({c for c in header if header.count(c) > 1})
    ]
    if problems:
        raise UserError(problems)
    rows: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    paths: dict[str, str] = {}
    for number, fields in lines:
        if any(f.strip() for f in fields[len(header) :]):
            problems.append(
                f"{path}, line {number}: has {len(fields)} fields, the header {len(header)}. Put a field that "
                "holds the separator in double quotes."
            )
        line = dict(zip(header, fields, strict=False))
        row: dict[str, Any] = {c: _value(line.get(c)) for c in KNOWN}
        row["extra"] = {c: _value(line.get(c)) for c in header if c and c not in KNOWN}
        if row["raw"] is not None and not datasets.URL.match(row["raw"]):
            row["raw"] = str((path.parent / Path(row["raw"]).expanduser()).resolve())
        if row["path"] is not None and not datasets.URL.match(row["path"]):
            try:
                row["path"] = str(inputs.absolute(row["path"], path.parent))
            except UserError as err:
                problems.append(f"{path}, line {number}: {err}")
                continue
        problems += _problems(f"{path}, line {number}", row, seen, paths)
        row["patient"] = row["patient"] or row["sample"]
        rows.append(row)
    if not rows and not problems:
        problems.append(f"{path}: the sample sheet has a header but no sample. Add one line per sample.")
    if problems:
        raise UserError(problems)
    return rows


def _stem(name: str) -> str:
    for ending in (".gz", *inputs.HDF5_SUFFIXES, *inputs.DENSE_SUFFIXES, ".mtx", ".tar", ".tgz", ".zip"):
        name = name.removesuffix(ending)
    return name


def sheet_from_paths(paths: Iterable[str | Path]) -> list[dict[str, str]]:
    """Rows (sample, path) for files, folders or addresses given on the command line; names come from the file names.

    Raises
    ------
    UserError
        If a path does not exist, cannot be used, or stands twice.
    """
    words = [str(p) for p in paths]
    urls = [w for w in words if datasets.URL.match(w)]
    resolved_of = {Path(w): inputs.absolute(w) for w in words if not datasets.URL.match(w)}
    found = [Path(w) for w in words if not datasets.URL.match(w)]
    problems = [f"{u}: is given twice. One path is one sample." for u in dict.fromkeys(urls) if urls.count(u) > 1]
    given: dict[str, Path] = {}
    for path in found:
        resolved = resolved_of[path]
        files = "|".join(input_files(resolved))
        if not inputs.exists(resolved):
            problems.append(f"{path}: no such file or folder. Check the spelling, or give 'demo' alone for the demo.")
        else:
            problems += _path_problems(str(resolved))
        if files in given:
            problems.append(f"{path}: its data are given twice (also as {given[files]}). One path is one sample.")
        given.setdefault(files, path)
    if problems:
        raise UserError(problems)
    rows: list[dict[str, str]] = []
    taken: set[str] = set()
    for word in words:
        address = bool(datasets.URL.match(word))
        path = Path(urlsplit(word).path) if address else resolved_of[Path(word)]
        folder, stem = path.parent, _stem(path.name)
        while stem in GENERIC and folder.name:
            folder, stem = folder.parent, folder.name
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-") or "sample"
        if stem.lower() in UNKNOWN:
            stem = f"sample_{stem}"
        name, n = stem, 2
        while name.lower() in taken:
            name, n = f"{stem}_{n}", n + 1
        taken.add(name.lower())
        rows.append({"sample": name, "path": word if address else str(path)})
    return rows
