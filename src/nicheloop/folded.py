"""One file of every sample in few words: ``results/samples/{A,B}/qc.parquet``, as shells write it.

A command of the workflow names several files of every sample; in full, those of some hundred samples are longer than
the 128 kB that Linux allows a command of a shell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_ONE = re.compile(r"(?P<before>.*/samples/|samples/)(?P<sample>[^/{},]+)(?P<after>/[^/]+)", re.S)
_SEVERAL = re.compile(r"(?P<before>.*/samples/|samples/)\{(?P<samples>[^/{}]*)\}(?P<after>/[^/]+)", re.S)


def fold(paths: Sequence[str | Path]) -> list[str]:
    """The paths as one where they differ in nothing but the folder below ``samples/``, else as they are."""
    found = [_ONE.fullmatch(str(path)) for path in paths]
    around = {(m["before"], m["after"]) for m in found if m}
    if len(paths) < 2 or len(around) != 1 or not all(found):
        return [str(path) for path in paths]
    before, after = around.pop()
    return [f"{before}{{{','.join(m['sample'] for m in found if m)}}}{after}"]


def unfold(given: Sequence[str]) -> list[str]:
    """The paths that `fold` was given; others stay as they are (no sample's name has a brace)."""
    out: list[str] = []
    for path in given:
        found = _SEVERAL.fullmatch(path)
        samples = found["samples"].split(",") if found else []
        out += [f"{found['before']}{sample}{found['after']}" for sample in samples] if found else [path]
    return out
