"""The one file a user edits, as typed models.

``config.yaml`` (with its comments) and ``workflow/schemas/config.schema.json`` are generated from these models; a test
fails when they drift apart.  Every field says what it is, in which unit, and why its default is what it is.
"""

from __future__ import annotations

import copy
import difflib
import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from nicheloop.config_cells import Ambient, Annotate, Embed, Ingest, Qc, Receptors, Simulate
from nicheloop.config_malignancy import Malignancy
from nicheloop.config_niche import Crosstalk, Enrich, Loop, Screen
from nicheloop.config_options import Section, option
from nicheloop.config_states import Csc, Scoring, Tam
from nicheloop.errors import UserError


class Download(Section):
    """Public data sets: where they are fetched from and kept.  A change re-runs the report only."""

    catalogue: str = option(
        "", "your own catalogue of data sets, added to the shipped one", unit="path", why="none is needed"
    )
    cache: str = option(
        "",
        "folder for downloads, shared by all runs; empty: NICHELOOP_CACHE, else the platform's cache folder",
        unit="path",
        why="a file is fetched once",
    )
    offline: bool = option(False, "use the cache only", unit="yes or no", why="a first run has to fetch")
    proxy: str = option(
        "", "proxy for all downloads; empty: HTTPS_PROXY and HTTP_PROXY of the environment", unit="address", why="usual"
    )
    mirrors: dict[str, str] = option(
        {}, "other beginnings of addresses, as 'https://official: https://mirror'", unit="address", why="none is needed"
    )
    retries: int = option(5, "further tries after a failure that may pass", unit="tries", why="GEO is often busy", ge=0)
    backoff_seconds: float = option(
        2.0, "wait before the first further try, doubled for each next", unit="seconds", why="spares the server", ge=0
    )
    max_backoff_seconds: float = option(60.0, "longest such wait", unit="seconds", why="a busy minute", ge=0)
    timeout_seconds: float = option(
        60.0, "silence of the server that counts as a failure", unit="seconds", why="slow is not dead", gt=0
    )
    min_free_gb: float = option(
        1.0, "disk space that must stay free in the cache", unit="GB", why="a full disk harms more than this run", ge=0
    )
    max_unpacked_gb: float = option(
        100.0, "largest unpacked archive", unit="GB", why="several times the largest data set here", gt=0
    )
    max_ratio: float = option(
        200.0,
        "largest ratio of unpacked to packed size",
        unit="fold",
        why="a sparse matrix as text packs up to about 20-fold",
        gt=1,
    )
    max_files: int = option(10000, "most files in an archive", unit="files", why="the largest here has 200", ge=1)


class Report(Section):
    """The HTML report."""

    threads: int = option(
        2, "processes that write pages", unit="processes", why="pages of samples beside the main one", ge=1
    )
    title: str = option("nicheloop report", "title of the page", unit="text", why="-")
    max_map_points: int = option(
        20000,
        "cells drawn on the map",
        unit="cells",
        why="keeps the file small; stratified, said in the caption",
        ge=100,
    )
    rare_type_cells: int = option(
        300,
        "a type of at most so many cells in the cohort is drawn whole",
        unit="cells",
        why="a share of a rare type would be a few dots",
        ge=0,
    )
    sample_pages: bool = option(True, "write a page for every sample", unit="yes or no", why="who looks after a sample")
    warn_ambient: float = option(
        0.2,
        "share of ambient RNA above which the first screen warns",
        unit="fraction",
        why="a fifth of the counts from elsewhere makes rare genes doubtful",
        ge=0,
        le=1,
    )


class Config(Section):
    """All options; see each section."""

    samples: str = option("demo", "sample sheet (TSV or CSV), or 'demo'", unit="path", why="runs at once, without data")
    dataset: str = option(
        "",
        "public data sets by name, such as GSE176078 or GSE176078:CID3586,CID44971 (`nicheloop datasets`); instead of "
        "the demo, or beside your sheet",
        unit="names",
        why="nothing is downloaded unasked",
    )
    results: str = option("results", "folder for everything that is written", unit="path", why="usual name")
    seed: int = option(0, "seed of every random step", unit="integer", why="same input, same bytes", ge=0)
    strict: bool = option(
        False,
        "stop when a sample cannot be processed",
        unit="yes or no",
        why="one bad sample should not lose the others",
    )
    simulate: Simulate = Simulate()
    ingest: Ingest = Ingest()
    qc: Qc = Qc()
    embed: Embed = Embed()
    scoring: Scoring = Scoring()
    annotate: Annotate = Annotate()
    ambient: Ambient = Ambient()
    malignancy: Malignancy = Malignancy()
    receptors: Receptors = Receptors()
    csc: Csc = Csc()
    tam: Tam = Tam()
    crosstalk: Crosstalk = Crosstalk()
    screen: Screen = Screen()
    loop: Loop = Loop()
    enrich: Enrich = Enrich()
    download: Download = Download()
    report: Report = Report()


SECTIONS = tuple(
    name
    for name, f in Config.model_fields.items()
    if isinstance(f.annotation, type) and issubclass(f.annotation, Section)
)


def _allowed(names: list[str], given: str) -> str:
    close = difflib.get_close_matches(given, names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} Known: {', '.join(names)}."


def _message(error: Any, source: str) -> str:
    """One line for one pydantic error: where, what was given, what is allowed."""
    place = ".".join(str(p) for p in error["loc"])
    if error["type"] == "extra_forbidden":
        model: type[BaseModel] = Config
        for part in error["loc"][:-1]:
            annotation = model.model_fields[str(part)].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
        return f"{source}: unknown key '{place}'.{_allowed(list(model.model_fields), str(error['loc'][-1]))}"
    return f"{source}: '{place}' is {error.get('input')!r}: {error['msg']}."


def load_config(values: dict[str, Any] | None = None, source: str = "config.yaml") -> Config:
    """Check configuration values and fill in defaults.

    Parameters
    ----------
    values
        Nested mapping as read from YAML or handed over by Snakemake; keys left out take their defaults.
    source
        Name used in messages.

    Raises
    ------
    UserError
        With one line per wrong key or value, all of them together.
    """
    try:
        return Config.model_validate(copy.deepcopy(dict(values or {})), strict=False)
    except ValidationError as err:
        raise UserError([_message(e, source) for e in err.errors()]) from None


def read_config(path: str | Path) -> Config:
    """Read a YAML configuration file."""
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file.") from None
    except (OSError, UnicodeDecodeError) as err:
        raise UserError(f"{path}: cannot be read as a YAML text file ({err}).") from None
    except yaml.YAMLError as err:
        raise UserError(f"{path}: not valid YAML: {err}") from None
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path}: expected 'key: value' lines, found {type(values).__name__}.")
    return load_config(values, source=str(path))


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, width=110, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   ")


def _render(field: FieldInfo, name: str, value: Any, indent: str) -> list[str]:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    text = f"{field.description} [{extra.get('unit')}]; why: {extra.get('why')}"
    dumped = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return [*_comment(text, indent), f"{indent}{name}: {dumped}"]


def default_yaml() -> str:
    """Text of the shipped ``config.yaml``: every option with its comment and default."""
    config = Config()
    lines = [
        "# nicheloop configuration.  As shipped it runs the embedded demo cohort.",
        "# Each option: what it is [unit]; why the default is what it is.",
        "# Generated from src/nicheloop/config.py by `nicheloop config --write`; keys left out take their defaults.",
        "",
    ]
    for name, field in Config.model_fields.items():
        value = getattr(config, name)
        if not isinstance(value, Section):
            lines += [*_render(field, name, value, ""), ""]
            continue
        lines += [*_comment((type(value).__doc__ or "").strip(), ""), f"{name}:"]
        for key, sub in type(value).model_fields.items():
            lines += _render(sub, key, getattr(value, key), "  ")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def json_schema() -> dict[str, Any]:
    """JSON schema of the configuration, as shipped in ``workflow/schemas``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
