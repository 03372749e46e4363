"""From what the catalogue says of a sample to its counts: files already fetched, archives already unpacked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nicheloop import io
from nicheloop.errors import UserError
from nicheloop.inputs import DataError
from nicheloop.readers import Layout, RawCounts, read_counts
from nicheloop.selection import Selection

SHOWN = 6  # members of an archive named in a message


def receipts(source: Mapping[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """What `nicheloop download` wrote of each file of a source, by the file's name.

    Raises
    ------
    UserError
        If a file was not fetched, or is no longer in the cache.
    """
    found = {}
    for file in source["files"]:
        path = folder / source["dataset"] / f"{file['name']}.json"
        if not path.is_file():
            raise UserError(
                f"{path}: is missing: {file['name']} was not fetched. Run the workflow, which fetches it first."
            )
        receipt = io.read_json(path)
        for place in (receipt["path"], receipt["folder"]):
            if place is not None and not Path(place).exists():
                raise UserError(
                    f"{place}: is no longer in the cache. Delete {path} and run again: the file is then fetched again."
                )
        found[file["name"]] = receipt
    return found


def part(text: str, fetched: Mapping[str, Mapping[str, Any]]) -> Path:
    """Path of FILE, of the one file that matches in ARCHIVE!PATTERN, or of the whole ARCHIVE!.

    Raises
    ------
    DataError
        If the archive holds no such file, or several.
    """
    name, bang, pattern = text.partition("!")
    receipt = fetched[name]
    if not bang:
        return Path(receipt["path"])
    folder = Path(receipt["folder"])
    if not pattern:
        inside = [p for p in folder.iterdir() if not p.name.startswith(".")]
        while len(inside) == 1 and inside[0].is_dir():
            inside, folder = [p for p in inside[0].iterdir() if not p.name.startswith(".")], inside[0]
        return inside[0] if len(inside) == 1 else folder
    if ".." in Path(pattern).parts or Path(pattern).is_absolute():
        raise DataError(f"{name}: the pattern {pattern!r} leads out of the archive. Correct the data set's layout.")
    hits = sorted(p for p in folder.glob(pattern) if p.is_file() and not p.name.startswith("._"))
    if len(hits) != 1:
        held = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        shown = ", ".join(str(h.relative_to(folder)) for h in hits[:SHOWN]) or (
            f"none. It holds {len(held)} files: {', '.join(held[:SHOWN])}{' ...' if len(held) > SHOWN else ''}"
        )
        raise DataError(
            f"{name}: expected one file {pattern!r} in the archive, found {shown}. Correct the data set's layout."
        )
    return hits[0]


def read_source(
    source: Mapping[str, Any], folder: Path, *, fmt: str | None, annotation: str | None, integer_tolerance: float
) -> tuple[RawCounts, list[dict[str, Any]]]:
    """Read the part of a data set that is one sample's.

    Parameters
    ----------
    source
        ``dataset``, ``files`` and ``layout`` as made by `nicheloop.datasets.row`.
    folder
        Folder of receipts, ``<results>/downloads``.
    fmt, annotation, integer_tolerance
        As for `nicheloop.readers.read_counts`.

    Returns
    -------
    tuple
        The counts; name, address, checksum and size of every file they come from.
    """
    fetched = receipts(source, folder)
    where = source["layout"]
    cells = where.get("cells")
    selection = None
    if cells is not None:
        table = part(cells["table"], fetched) if cells.get("table") else None
        selection = Selection(
            table,
            cells.get("name"),
            cells.get("column"),
            cells.get("value", ""),
            cells.get("where", {}),
            cells.get("pattern"),
        )
    if where.get("matrix"):
        path = part(where["matrix"], fetched)
        layout = Layout(part(where["features"], fetched), part(where["barcodes"], fetched), selection)
        fmt = fmt or "10x_mtx"
    else:
        path = part(where["path"], fetched)
        layout = Layout(selection=selection, missing_is_zero=where.get("missing_is_zero", False))
    raw = read_counts(path, fmt=fmt, annotation=annotation, integer_tolerance=integer_tolerance, layout=layout)
    return raw, [{k: r[k] for k in ("name", "url", "sha256", "size")} for r in fetched.values()]
