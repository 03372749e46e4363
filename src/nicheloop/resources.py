"""Where the shipped files are: inside the package (installed), else ``resources/`` of the repository."""

from __future__ import annotations

import gzip
from importlib.resources import files
from pathlib import Path
from typing import Any


def path(name: str) -> Path:
    """Path of a shipped file, such as ``markers.yaml``.

    Raises
    ------
    FileNotFoundError
        If the installation is incomplete.
    """
    packaged = Path(str(files("nicheloop"))) / "resources" / name
    if packaged.is_file():
        return packaged
    shipped = Path(__file__).resolve().parents[2] / "resources" / name
    if shipped.is_file():
        return shipped
    raise FileNotFoundError(f"shipped file {name} is missing (looked at {packaged} and {shipped}): reinstall nicheloop")


def text(name: str) -> str:
    """Text of a shipped file, gunzipped if its name ends in .gz."""
    data = path(name).read_bytes()
    return (gzip.decompress(data) if name.endswith(".gz") else data).decode("utf-8")


def tsv(name: str) -> list[list[str]]:
    """Rows of a shipped tab-separated file without its comment lines; a header is the first row."""
    return [line.split("\t") for line in text(name).split("\n") if line and not line.startswith("#")]


def yaml(name: str) -> Any:
    """Content of a shipped YAML file."""
    import yaml as parser

    return parser.load(text(name), Loader=getattr(parser, "CSafeLoader", parser.SafeLoader))
