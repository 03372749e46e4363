"""What a table contract is: columns with meaning, unit, allowed values and what NA means; and the words they share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from nicheloop.errors import NicheloopError

MAJOR_TYPES = (
    "epithelial", "t_nk", "b_cell", "plasmablast", "myeloid", "mast", "endothelial", "caf", "pvl", "adipocyte",
    "erythrocyte", "platelet", "unresolved",
)  # fmt: skip
MALIGNANCY = ("malignant", "normal", "unassigned", "not_epithelial")
CSC_READOUT_STATES = ("m_csc", "aldh1a3")
CSC_STATES = ("m_csc", "other", "undetermined", "not_assessable")
ALDH_STATES = ("high", "low", "undetermined", "not_assessable")
TAM_CLASSES = ("m1_like", "m2_like", "mixed", "low", "transitional", "not_macrophage", "not_assessable")
MYELOID_CLASSES = ("macrophage", "monocyte", "transitional", "dendritic", "neutrophil", "not_myeloid", "not_assessable")
AXIS_STATUSES = (
    "tested", "ligand_not_detected", "receptor_not_detected", "gene_absent_from_reference", "too_few_cells",
    "platelet_contamination", "ambient_not_exceeded", "no_counts",
)  # fmt: skip

SCREEN_STATUSES = ("tested", "gene_absent_from_reference", "too_few_cells", "below_threshold", "single_type")

Kind = Literal["str", "int", "float", "bool"]
DTYPES = {"str": "string", "int": "Int64", "float": "float64", "bool": "boolean"}


class ContractError(NicheloopError):
    """A table does not keep its contract: a fault of the program, not of the user."""


@dataclass(frozen=True)
class Column:
    """One column: its kind, meaning, unit, what NA means (empty: NA is not allowed) and its allowed values."""

    name: str
    kind: Kind
    what: str
    unit: str = "-"
    na: str = ""
    allowed: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    pattern: bool = False  # the name is a regular expression; any number of columns may match


@dataclass(frozen=True)
class Contract:
    """One table: where it lies below the results folder, what a row is, its key and its columns."""

    name: str
    path: str
    what: str
    key: tuple[str, ...]
    columns: tuple[Column, ...] = field(default=())
    optional: bool = False  # written only where the configuration asks for it


CELL = Column("cell_id", "str", "<sample>:<barcode>")
SAMPLE = Column("sample", "str", "sample name")
PATIENT = Column("patient", "str", "patient (the unit of every test)")
GENE = Column("gene", "str", "current HGNC symbol")
SUBTYPE = Column("subtype", "str", "subtype of the sheet, else the one inferred from RNA", na="unknown")
SUBTYPE_SOURCE = Column(
    "subtype_source", "str", "where the subtype is from", na="unknown", allowed=("sheet", "inferred")
)


def probability(name: str, what: str, na: str = "") -> Column:
    """A column of probabilities."""
    return Column(name, "float", what, "probability", na, low=0.0, high=1.0)


CONTRACTS: dict[str, Contract] = {}


def declare(name: str, path: str, what: str, key: Iterable[str], *columns: Column, optional: bool = False) -> None:
    """Add one contract to the registry; a name can stand for one table only."""
    if name in CONTRACTS:
        raise ValueError(f"the contract {name!r} is declared twice: {CONTRACTS[name].path} and {path}")
    CONTRACTS[name] = Contract(name, path, what, tuple(key), columns, optional)
