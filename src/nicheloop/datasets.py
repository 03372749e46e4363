"""The catalogue of public data sets: what it holds, and what a selection means in samples and files.

A data set is an entry of ``resources/datasets.yaml`` (or of the user's own file), not code.  See docs/datasets.md.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nicheloop import patients, resources
from nicheloop.errors import UserError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Format = Literal["10x_h5", "10x_mtx", "h5ad", "loom", "dense"]
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
URL = re.compile(r"(https?|file)://", re.IGNORECASE)
SHEET = ("patient", "subtype", "tissue", "treatment", "sorting", "chemistry", "malignancy")
FROM_URLS = "url"  # the "data set" of addresses given in a sample sheet


class Entry(BaseModel):
    """A part of the catalogue; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class File(Entry):
    """One file to download; it is shared by all samples that are read from it."""

    name: Name = Field(description="name in the cache; layouts refer to it")
    url: str = Field(description="https, http or file address, or a path on this machine", min_length=1)
    size: int | None = Field(None, description="bytes; null: not known", ge=1)
    sha256: Sha256 | None = Field(None, description="checksum; null: recorded at the first download, then enforced")
    verified: bool = Field(False, description="whether the address was fetched by the authors of this entry")
    unpack: bool = Field(False, description="an archive, to be unpacked beside itself")

    @model_validator(mode="after")
    def _archive(self) -> File:
        if self.unpack and not self.name.lower().endswith(ARCHIVES):
            raise ValueError(f"'{self.name}' is to be unpacked but is none of {', '.join(ARCHIVES)}")
        return self


class Cells(Entry):
    """Which cells of a matrix are a sample's: by a column of a table, by values of others, by the cell's name."""

    table: str | None = Field(
        None, description="table of cells (a part); null: the cells' table inside the matrix file"
    )
    name: str | None = Field(None, description="column of the cells' names; null: the first that matches the matrix")
    column: str | None = Field(None, description="column that tells samples apart")
    value: str = Field("{sample}", description="value of that column for this sample")
    where: dict[str, str] = Field(default_factory=dict, description="further columns and the value each must have")
    pattern: str | None = Field(None, description="regular expression found in the names of the sample's cells")

    @model_validator(mode="after")
    def _says_something(self) -> Cells:
        if self.column is None and self.pattern is None and not self.where:
            raise ValueError("'cells' needs 'column', 'where' or 'pattern'")
        if self.pattern is not None:
            try:
                re.compile(self.pattern.replace("{", "").replace("}", ""))
            except re.error as err:
                raise ValueError(f"'pattern' is no regular expression: {err}") from None
        return self


class Layout(Entry):
    """Where a sample is found in the files: one path, or matrix, features and barcodes; FILE or ARCHIVE!PATTERN."""

    path: str | None = Field(None, description="file, or folder of an archive (ARCHIVE! alone: the whole archive)")
    matrix: str | None = Field(None, description="MatrixMarket file")
    features: str | None = Field(None, description="its features")
    barcodes: str | None = Field(None, description="its barcodes")
    format: Format | None = Field(None, description="format; null: recognised")
    missing_is_zero: bool = Field(False, description="in a dense table: empty and NaN mean 0")
    cells: Cells | None = Field(None, description="which cells are the sample's; null: all")
    annotation: str | None = Field(None, description="column of the cells that holds the authors' annotation")

    @model_validator(mode="after")
    def _one_way(self) -> Layout:
        triplet = (self.matrix, self.features, self.barcodes)
        if (self.path is None) == (None in triplet) or (self.path is not None and any(triplet)):
            raise ValueError("give either 'path', or all of 'matrix', 'features' and 'barcodes'")
        return self

    def parts(self) -> list[str]:
        """Parts it refers to."""
        tables = [self.cells.table] if self.cells else []
        return [p for p in (self.path, self.matrix, self.features, self.barcodes, *tables) if p is not None]


class Sample(Entry):
    """One sample: what the papers say of it."""

    sample: Name = Field(description="name, unique in the catalogue")
    key: str | None = Field(None, description="how the files call it; null: as its name")
    patient: Name | None = Field(None, description="patient; null: as the sample")
    subtype: str | None = Field(None, description="subtype; null: not known")
    tissue: Literal["tumour", "normal", "lymph_node", "metastasis"] = Field(description="tissue")
    treatment: str | None = Field(None, description="naive, treated, or what was given; null: not known")
    sorting: str | None = Field(None, description="how cells were chosen; null: not known")
    chemistry: str | None = Field(None, description="chemistry; samples of one chemistry share reference rates")
    malignancy: Literal["assumed"] | None = Field(None, description="'assumed' for sorted tumour cells and cell lines")
    cells: int | None = Field(None, description="cells expected in the files", ge=1)
    layout: str = Field("default", description="which of the data set's layouts")
    extra: dict[str, str] = Field(default_factory=dict, description="carried through to the atlas")


class Fact(Entry):
    """Something a paper states that can be checked once the files were read."""

    id: Name
    claim: str = Field(min_length=1)
    check: Literal[
        "cells", "cells_at_least", "features", "patients", "samples", "cells_per_sample", "cells_by_subtype", "labels",
        "no_labels", "annotated", "present", "absent", "is_counts", "treated",
    ]  # fmt: skip
    value: bool | int | str | list[str] | dict[str, int] = Field(description="expected; 'samples': each sample's cells")
    severity: Literal["hard", "soft"]
    source: str = Field(min_length=1)


class Dataset(Entry):
    """One data set."""

    title: str
    paper: str = ""
    doi: Annotated[str, Field(pattern=r"^10\.\d{4,9}/\S+$")] | None = None
    technology: str = ""
    role: str = Field("", description="discovery, validation, normal reference, control ...")
    whole_tissue: Literal["yes", "no", "partial", "unclear", "normal"] = "unclear"
    status: Literal["runnable", "not_runnable"]
    reason: str = Field("", description="why it cannot be run, and what to do instead")
    caveats: list[str] = Field(default_factory=list)
    files: list[File] = Field(default_factory=list)
    layouts: dict[str, Layout] = Field(default_factory=dict)
    samples: list[Sample] = Field(default_factory=list)
    facts: list[Fact] = Field(default_factory=list)

    @model_validator(mode="after")
    def _whole(self) -> Dataset:
        if self.status == "not_runnable":
            if not self.reason:
                raise ValueError("a data set that is not runnable needs its 'reason'")
            return self
        if not (self.files and self.layouts and self.samples):
            raise ValueError("a runnable data set needs 'files', 'layouts' and 'samples'")
        names = [f.name for f in self.files]
        for what, values in (
            ("file", names),
            ("sample", [s.sample for s in self.samples]),
            ("fact", [f.id for f in self.facts]),
        ):
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(f"{what} {twice[0]!r} stands twice")
        for key, layout in self.layouts.items():
            for part in layout.parts():
                file, bang, _ = part.partition("!")
                if file not in names:
                    raise ValueError(f"layout {key!r}: no file {file!r} among {', '.join(names)}")
                if bang and not self.file(file).unpack:
                    raise ValueError(f"layout {key!r}: {file!r} is not unpacked, so {part!r} cannot be a part of it")
        for sample in self.samples:
            if sample.layout not in self.layouts:
                raise ValueError(f"sample {sample.sample!r}: no layout {sample.layout!r}")
        return self

    def file(self, name: str) -> File:
        """File of this name."""
        return next(f for f in self.files if f.name == name)


Catalogue = dict[str, Dataset]


class _Catalogue(BaseModel):
    """Data sets by name."""

    model_config = ConfigDict(title="Catalogue of data sets", extra="forbid")
    entries: dict[Name, Dataset]


def json_schema() -> dict[str, Any]:
    """JSON schema of a catalogue file, as shipped in ``workflow/schemas``."""
    schema = _Catalogue.model_json_schema()
    entries = schema.pop("properties")["entries"]
    for key in ("required", "additionalProperties", "type"):
        schema.pop(key, None)
    keep = {k: v for k, v in entries.items() if k in ("additionalProperties", "patternProperties", "propertyNames")}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "type": "object", **keep}


def check(values: Any, source: str) -> Catalogue:
    """Check a catalogue as read from YAML.

    Raises
    ------
    UserError
        With one line per problem: entry, key, what was given and what is allowed.
    """
    if not isinstance(values, dict) or not values:
        raise UserError(f"{source}: expected 'NAME:' entries of data sets, found {type(values).__name__}.")
    try:
        return _Catalogue.model_validate({"entries": copy.deepcopy(values)}).entries
    except ValidationError as err:
        lines = []
        for e in err.errors():
            place = ".".join(str(p) for p in e["loc"] if p not in ("entries", "[key]"))
            lines.append(f"{source}: '{place}': {e['msg'].removeprefix('Value error, ')}.")
        raise UserError(lines) from None


def read(path: str | Path) -> Catalogue:
    """Read a user's catalogue file."""
    import yaml

    path = Path(path).expanduser()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such catalogue. Check 'download.catalogue'.") from None
    except (OSError, UnicodeError, yaml.YAMLError) as err:
        raise UserError(f"{path}: cannot be read as a YAML catalogue ({' '.join(str(err).split())}).") from None
    return check(values, str(path))


@cache
def shipped() -> Catalogue:
    """Catalogue that comes with the package."""
    return check(resources.yaml("datasets.yaml"), "resources/datasets.yaml")


def catalogue(extra: str | Path | None = None) -> Catalogue:
    """Shipped catalogue and the user's own; an entry of the user replaces one of the same name."""
    return {**shipped(), **(read(extra) if extra else {})}


# --- choosing ---------------------------------------------------------------------------------------------------------


def find(name: str, known: Iterable[str]) -> str | None:
    """Name as the catalogue writes it, whatever the case; None if it is not there."""
    return {k.lower(): k for k in known}.get(name.strip().lower())


def split(selection: str, known: Iterable[str]) -> dict[str, list[str]]:
    """Data sets of a selection and the sample patterns asked of each (none: all).

    ``GSE176078:CID3586,CID44971,tenx-idc`` is two samples of one data set, and another data set: what follows a comma
    is a data set where the catalogue has one of that name, else one more sample.

    Raises
    ------
    UserError
        For names that are not there.
    """
    known = list(known)
    chosen: dict[str, list[str]] = {}
    current: str | None = None
    for item in (t.strip() for t in selection.split(",")):
        if not item:
            continue
        head, colon, first = item.partition(":")
        name = find(head, known)
        if name is not None and (colon or find(item, known)):
            current = name
            chosen.setdefault(name, [])
            if colon and first.strip():
                chosen[name].append(first.strip())
        elif current is not None and chosen[current] and not colon:
            chosen[current].append(item)
        else:
            close = difflib.get_close_matches(head, known, n=1, cutoff=0.7)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise UserError(
                f"dataset {head!r} is not in the catalogue.{hint} `nicheloop datasets` lists it; your own entries go "
                "into the file named by 'download.catalogue'."
            )
    if not chosen:
        raise UserError(f"dataset {selection!r} names no data set. `nicheloop datasets` lists them.")
    return chosen


def looks_chosen(text: str, known: Iterable[str]) -> bool:
    """Whether a word of the command line is meant as a data set: one of the catalogue, or of the form of a series."""
    head = text.split(",")[0].partition(":")[0]
    return find(head, known) is not None or bool(re.fullmatch(r"(GSE\d+|E-MTAB-\d+)", head, re.IGNORECASE))


def samples_of(name: str, dataset: Dataset, patterns: Iterable[str] = ()) -> list[Sample]:
    """Samples of a data set that a selection asks for, in the catalogue's order.

    Raises
    ------
    UserError
        If the data set cannot be run, or a pattern matches none of its samples.
    """
    if dataset.status != "runnable":
        raise UserError(f"dataset {name}: cannot be run: {dataset.reason}")
    wanted = list(patterns)
    if not wanted:
        return list(dataset.samples)
    hits = {p: [s for s in dataset.samples if fnmatchcase(s.sample.lower(), p.lower())] for p in wanted}
    for pattern, found in hits.items():
        if not found:
            names = [s.sample for s in dataset.samples]
            close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5) or names[:3]
            raise UserError(
                f"dataset {name} has no sample {pattern!r}. It has {len(names)}, such as {', '.join(close)}."
            )
    chosen = {s.sample for found in hits.values() for s in found}
    return [s for s in dataset.samples if s.sample in chosen]


def _filled(text: str | None, sample: Sample, *, pattern: bool = False) -> str | None:
    """Text with {sample} and {key} replaced; other curly brackets stay (they count repeats in a pattern)."""
    if text is None:
        return None
    for word, value in (("{sample}", sample.sample), ("{key}", sample.key or sample.sample)):
        text = text.replace(word, re.escape(value) if pattern else value)
    return text


def row(name: str, dataset: Dataset, sample: Sample) -> dict[str, Any]:
    """Row of the sample sheet for one sample, with ``source``: the files it is read from, and its place in them."""
    layout = dataset.layouts[sample.layout]
    used = {part.partition("!")[0] for part in layout.parts()}
    where = layout.model_dump(exclude={"annotation", "format"}, exclude_none=True)
    where = {k: _filled(v, sample) if isinstance(v, str) else v for k, v in where.items()}
    if layout.cells is not None:
        cells = layout.cells.model_dump(exclude_none=True)
        cells |= {k: _filled(cells[k], sample) for k in ("table", "value") if k in cells}
        if layout.cells.pattern is not None:
            cells["pattern"] = _filled(layout.cells.pattern, sample, pattern=True)
        where["cells"] = cells
    out: dict[str, Any] = {"sample": sample.sample, "path": f"{name}:{sample.sample}", "format": layout.format}
    out |= {k: getattr(sample, k) for k in SHEET}
    out |= {
        "patient": sample.patient or sample.sample, "dataset": name, "annotation": layout.annotation,
        "extra": dict(sample.extra),
        "source": {
            "dataset": name, "layout": where,
            "files": [f.model_dump(exclude={"verified"}) for f in dataset.files if f.name in used],
        },
    }  # fmt: skip
    out["tissue"] = patients.canonical_tissue(sample.tissue)
    return out


def rows(selection: str, extra: str | Path | None = None) -> list[dict[str, Any]]:
    """Sheet rows of a selection of data sets; no file is looked at.

    Raises
    ------
    UserError
        For unknown or not runnable data sets, unknown samples, and names that occur in two data sets.
    """
    known = catalogue(extra)
    found: list[dict[str, Any]] = []
    for name, patterns in split(selection, known).items():
        found += [row(name, known[name], s) for s in samples_of(name, known[name], patterns)]
    return found


def url_row(values: dict[str, Any]) -> dict[str, Any]:
    """Row of a sheet whose path is an address, with the ``source`` that a row of the catalogue has.

    Raises
    ------
    UserError
        If the address names no file.
    """
    url = str(values["path"])
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(unquote(urlsplit(url).path)).name).lstrip("._-")
    if not name:
        raise UserError(f"{url}: the address does not end in the name of a file. Give the address of the file itself.")
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:10]}-{name[-90:]}"
    unpack = name.lower().endswith(ARCHIVES)
    file = File(name=name, url=url, size=None, sha256=None, verified=False, unpack=unpack)
    where = {"path": f"{name}!" if unpack else name}
    source = {"dataset": FROM_URLS, "layout": where, "files": [file.model_dump(exclude={"verified"})]}
    return {**values, "source": source}


def downloads(sheet_rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Files that these rows are read from: (data set, file) to its entry."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for values in sheet_rows:
        source: dict[str, Any] = values.get("source") or {}
        for file in source.get("files", []):
            found[(source["dataset"], file["name"])] = file
    return found
