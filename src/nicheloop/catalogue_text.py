"""The catalogue of data sets in words, for the terminal."""

from __future__ import annotations

import textwrap
from collections import Counter

from nicheloop import datasets
from nicheloop.datasets import Catalogue, Dataset
from nicheloop.errors import UserError

WIDTH = 110


def _size(n: int | None) -> str:
    return "size not known" if n is None else f"{n / 1e6:,.1f} MB"


def overview(known: Catalogue) -> str:
    """One line per data set, those that can be run first."""
    lines = [f"{'name':<14} {'samples':>7} {'cells':>9}  {'role':<31} title"]
    runnable = {k: v for k, v in known.items() if v.status == "runnable"}
    for name, entry in runnable.items():
        cells = sum(s.cells or 0 for s in entry.samples)
        count = f"{cells:,}" if cells and all(s.cells for s in entry.samples) else "?"
        lines.append(f"{name:<14} {len(entry.samples):>7} {count:>9}  {entry.role:<31} {entry.title}")
    lines += ["", "Listed, but not to be run by name:"]
    for name, entry in known.items():
        if name not in runnable:
            lines.append(f"{name:<14} {entry.title}")
            lines += textwrap.wrap(entry.reason, WIDTH, initial_indent=" " * 15, subsequent_indent=" " * 15)
    lines += ["", "Explain one: nicheloop datasets GSE176078.  Run one: nicheloop run GSE176078 --out results"]
    lines.append("Some samples of one: nicheloop run GSE176078:CID3586,CID44971 --out results (also GSE161529:TN-*)")
    return "\n".join(lines)


def explain(name: str, known: Catalogue) -> str:
    """All that the catalogue says of one data set.

    Raises
    ------
    UserError
        If it is not there.
    """
    found = datasets.find(name, known) or next(iter(datasets.split(name, known)))
    entry = known.get(found)
    if entry is None:
        raise UserError(f"dataset {name!r} is not in the catalogue. `nicheloop datasets` lists it.")
    lines = [f"{found}: {entry.title}"]
    said = {"paper": entry.paper, "DOI": entry.doi, "technology": entry.technology, "role": entry.role,
            "whole tissue": entry.whole_tissue}  # fmt: skip
    lines += [f"  {k}: {v}" for k, v in said.items() if v]
    if entry.status != "runnable":
        lines += textwrap.wrap(f"cannot be run: {entry.reason}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    lines += [t for c in entry.caveats for t in _item(c, "caveat")]
    lines += _files(entry)
    if entry.samples:
        lines += _samples(entry)
    if entry.facts:
        lines.append("facts checked after reading:")
        lines += [f"  {f.id:<5} {f.severity}  {f.claim} (source: {f.source})" for f in entry.facts]
    return "\n".join(lines)


def _item(text: str, what: str) -> list[str]:
    return textwrap.wrap(f"{what}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    ")


def _files(entry: Dataset) -> list[str]:
    lines = ["files:"] if entry.files else []
    for file in entry.files:
        checksum = f"sha256 {file.sha256[:12]}..." if file.sha256 else "checksum recorded at the first download"
        checked = "" if file.verified else "; address not checked by the authors of this catalogue"
        lines += [f"  {file.name}  {_size(file.size)}, {checksum}{checked}", f"    {file.url}"]
    return lines


def _samples(entry: Dataset) -> list[str]:
    columns = ("sample", "patient", "subtype", "tissue", "treatment", "sorting", "chemistry", "cells")
    rows = [[str(v) if (v := getattr(s, c)) is not None else "-" for c in columns] for s in entry.samples]
    for row, sample in zip(rows, entry.samples, strict=True):
        row[1] = sample.patient or sample.sample
    table = [list(columns), *rows]
    widths = [max(len(r[i]) for r in table) for i in range(len(columns))]
    tissues = ", ".join(f"{n} {t}" for t, n in Counter(s.tissue for s in entry.samples).items())
    lines = [f"{len(rows)} samples of {len({r[1] for r in rows})} patients ({tissues}); '-' is not known:"]
    return lines + ["  " + "  ".join(v.ljust(w) for v, w in zip(r, widths, strict=True)).rstrip() for r in table]
