"""Gene identity: current symbols, Ensembl ids, aliases, guards, and the gene sets that come with the package.

Nothing else in the package compares gene names.  See docs/genes.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nicheloop import resources

if TYPE_CHECKING:
    import pandas as pd

GUARDED = ("CD24", "CD44", "ALDH1A3", "ALDH1A1", "IL6", "IL6R", "IL6ST", "CXCL8", "CXCR1", "CXCR2", "PPBP")
PRESENT, ABSENT = "present", "absent from reference"
# SEPT1, MARCH1 and DEC1 as spreadsheets mangle them (DOI 10.1186/1471-2105-5-80).
_DATE = re.compile(
    r"\d{1,2}-(Mar|Sep|Sept|Dec)|(Mar|Sep|Sept|Dec)-\d{1,2}|\d{4}-(03|09|12)-\d{2}( 00:00:00)?", re.IGNORECASE
)
_ENSEMBL = re.compile(r"ENSG\d{11}")
_ORF = re.compile(r"^(C(?:\d+|X|Y))ORF(\d+)$")
_GENOME = re.compile(r"^(GRCh3[78](-2020-A|-2024-A)?|hg19|hg38)_+")


@dataclass(frozen=True)
class Markers:
    """Markers of a cell type; `parent` is the major type of a minor type."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]
    parent: str | None
    source: str = ""


@dataclass(frozen=True)
class Signature:
    """A gene set and where it comes from."""

    genes: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Axis:
    """A ligand-receptor axis: any ligand, any of the receptors, each a complex of subunits that are all needed."""

    id: str
    ligands: tuple[str, ...]
    receptors: tuple[tuple[str, ...], ...]
    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    arm: str
    evidence: str
    caveat: str
    decoy: bool
    arm_detail: str = ""
    rna_measurable: str = ""


@dataclass(frozen=True)
class Found:
    """Genes of a set that are in a matrix, under the matrix's names, and those that are not."""

    present: list[str]
    missing: list[str]


@dataclass(frozen=True)
class Resolved:
    """Features with today's names: (features,) each.

    Attributes
    ----------
    symbols : current symbol, or the feature's own name where it is not known
    ensembl : Ensembl id without version, ``""`` where unknown
    known : whether the feature was recognised as a human gene
    """

    symbols: np.ndarray
    ensembl: np.ndarray
    known: np.ndarray


@cache
def _rows() -> list[list[str]]:
    return resources.tsv("genes.tsv.gz")[1:]


@cache
def _ensembl_of() -> dict[str, str]:
    return {row[0]: row[1] for row in _rows()}


@cache
def _symbol_of() -> dict[str, str]:
    """Ensembl id -> symbol."""
    return {row[1]: row[0] for row in _rows() if row[1]}


@cache
def _aliases() -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Unambiguous aliases, ambiguous aliases."""
    unique: dict[str, str] = {}
    ambiguous: dict[str, tuple[str, ...]] = {}
    for alias, symbol in resources.tsv("gene_aliases.tsv.gz")[1:]:
        if "|" in symbol:
            ambiguous[alias] = tuple(symbol.split("|"))
        else:
            unique[alias] = symbol
    return unique, ambiguous


@cache
def table() -> pd.DataFrame:
    """All known human genes, hg38.

    Returns
    -------
    DataFrame indexed by current symbol: ``ensembl_id`` (without version, ``""`` unknown), ``chromosome`` (``chr1`` ...
    ``chrX``, ``chrM``), ``start``, ``end`` (1-based), ``band`` (``q21.3``), ``arm`` (``1q``); NA: position unknown.
    The table is shared: do not change it in place.
    """
    import pandas as pd

    columns = list(zip(*_rows(), strict=True))
    frame = pd.DataFrame(
        dict(zip(("ensembl_id", "chromosome", "start", "end", "band"), columns[1:], strict=True)),
        index=pd.Index(columns[0], name="symbol", dtype=object),
    )
    for column in ("start", "end"):
        values = frame[column].to_numpy(dtype=np.int64)
        frame[column] = np.where(values > 0, values, np.nan)
    arm = frame["chromosome"].str.removeprefix("chr") + frame["band"].str[:1]
    frame["arm"] = arm.where(frame["band"] != "", None)
    for column in ("chromosome", "band"):
        frame[column] = frame[column].where(frame[column] != "", None)
    return frame


def ambiguous(name: str) -> tuple[str, ...]:
    """Symbols an ambiguous alias may stand for; empty if the name is not an ambiguous alias."""
    return _aliases()[1].get(name, ())


@cache
def resolve(name: str) -> str | None:
    """Today's symbol of a symbol, alias or Ensembl id; None where unknown or ambiguous.

    Understood: Ensembl ids with or without version, ``SYMBOL_ENSG...`` (the id decides), aliases, a genome prefix
    (``GRCh38_CD44``), dots for hyphens (``HLA.DRA``) and ``C19ORF33``.  A current symbol is never read as an alias,
    and case is not folded: ``Cd44`` is a mouse gene.
    """
    name = name.strip()
    symbols = _ensembl_of()
    if name in symbols:
        return name
    unique = _aliases()[0]  # only now: most names are current
    identifier = _ENSEMBL.search(name)
    if identifier:
        found = _symbol_of().get(identifier.group()) or unique.get(identifier.group())
        if found or identifier.group() == name.split(".")[0]:
            return found
        name = name.replace(identifier.group(), "").strip("_|-. ")
        return resolve(name) if name else None
    if name in unique:
        return unique[name]
    for other in (_GENOME.sub("", name), _ORF.sub(r"\1orf\2", name), name.replace(".", "-")):
        if other != name and (other in symbols or other in unique):
            return other if other in symbols else unique[other]
    return None


def ensembl_id(symbol: str) -> str:
    """Ensembl id of a current symbol, ``""`` where unknown."""
    return _ensembl_of().get(symbol, "")


def resolve_features(names: Sequence[str], identifiers: Sequence[str] | None = None) -> Resolved:
    """Resolve the features of a matrix.

    Parameters
    ----------
    names
        (features,) symbols, aliases or Ensembl ids.
    identifiers
        (features,) Ensembl ids where the file has them.  A known id decides; an unknown one falls back to the name.

    Returns
    -------
    Resolved
        Unknown features keep their own name (and id).  A feature called CD24 with another id is not CD24: it
        becomes CD24P4, CD24P2 or ``CD24_<id>``; so for every guarded gene.
    """
    size = len(names)
    symbols, ensembl = np.empty(size, dtype=object), np.empty(size, dtype=object)
    known = np.zeros(size, dtype=bool)
    by_id, unique = _symbol_of(), _aliases()[0]
    for i, name in enumerate(names):
        name = str(name).strip()
        match = _ENSEMBL.search(str(identifiers[i])) if identifiers is not None else None
        match = match or _ENSEMBL.search(name)
        own = match.group() if match else ""
        if not name or name.lower() in ("nan", "na", "none"):  # some files name only what has a symbol
            name = str(identifiers[i]).strip() if identifiers is not None else ""
            name = name or f"feature{i + 1}"
        symbol = (by_id.get(own) or unique.get(own)) if own else None
        if symbol is None:
            symbol = resolve(name)
            if symbol in GUARDED and own and own != ensembl_id(symbol):  # another gene under this name
                symbol, name = None, f"{name}_{own}"
        if symbol is None:
            symbols[i], ensembl[i] = name, own
        else:
            symbols[i], ensembl[i], known[i] = symbol, _ensembl_of()[symbol] or own, True
    return Resolved(symbols, ensembl, known)


def match(wanted: Iterable[str], available: Iterable[str]) -> dict[str, str | None]:
    """Name in a matrix of every wanted gene, aliases resolved on both sides; None where the matrix does not hold it.

    `available` may be a dict by name, which saves making one.
    """
    names = available if isinstance(available, dict) else dict.fromkeys(map(str, available))
    by_symbol: dict[str, str] | None = None
    out: dict[str, str | None] = {}
    for gene in wanted:
        symbol = resolve(gene) or gene
        hit: str | None = symbol if symbol in names else gene if gene in names else None
        if hit is None:
            if by_symbol is None:  # only now: most matrices carry current symbols
                by_symbol, current = {}, _ensembl_of()
                for name in names:
                    by_symbol.setdefault(name if name in current else resolve(name) or name, name)
            hit = by_symbol.get(symbol)
        out[gene] = hit
    return out


def find(wanted: Iterable[str], available: Iterable[str]) -> Found:
    """Genes of a set that a matrix holds, aliases resolved on both sides.

    Returns
    -------
    Found
        ``present``: names as in `available`, in the order of `wanted`, each once; ``missing``: names as in `wanted`.
    """
    wanted = list(wanted)
    hits = match(wanted, available)
    present = dict.fromkeys(hit for gene in wanted if (hit := hits[gene]) is not None)
    return Found(list(present), [gene for gene in wanted if hits[gene] is None])


def guards(symbols: Iterable[str], ensembl: Iterable[str] | None = None) -> dict[str, str]:
    """Whether the genes every conclusion hangs on can be measured in a matrix.

    Parameters
    ----------
    symbols
        (genes,) current symbols.
    ensembl
        (genes,) Ensembl ids, ``""`` where unknown.

    Returns
    -------
    dict
        Gene -> ``present`` or ``absent from reference``.  A gene with an Ensembl id must have the right one: CD24 is
        ENSG00000272398, never its pseudogenes ENSG00000185275 or ENSG00000261333.
    """
    names = list(symbols)
    ids = [""] * len(names) if ensembl is None else [str(e).split(".")[0] for e in ensembl]
    found = dict.fromkeys(GUARDED, ABSENT)
    for name, identifier in zip(names, ids, strict=True):
        if name in found and identifier in ("", ensembl_id(name)):
            found[name] = PRESENT
    return found


def spreadsheet_dates(names: Iterable[str]) -> list[str]:
    """Names that a spreadsheet turned into dates (``1-Mar`` was MARCHF1 or MTARC1): not recoverable."""
    return [n for n in names if _DATE.fullmatch(n)]


@cache
def _markers() -> dict[str, dict[str, Markers]]:
    return {
        level: {
            name: Markers(tuple(v["positive"]), tuple(v["negative"]), v.get("parent"), v["source"])
            for name, v in types.items()
        }
        for level, types in resources.yaml("markers.yaml").items()
    }


def markers(level: Literal["major", "minor"]) -> dict[str, Markers]:
    """Markers of the major or minor cell types."""
    return dict(_markers()[level])


def states() -> dict[str, Markers]:
    """Markers of states that any type can be in (cycling)."""
    return dict(_markers()["states"])


@cache
def _signatures() -> dict[str, Signature]:
    return {k: Signature(tuple(v["genes"]), v["source"]) for k, v in resources.yaml("signatures.yaml").items()}


def signatures() -> dict[str, Signature]:
    """Gene signatures by name; read-outs share no gene with the axes' ligands and receptors or the CSC markers."""
    return dict(_signatures())


@cache
def _axes() -> tuple[Axis, ...]:
    return tuple(
        Axis(
            id=a["id"], ligands=tuple(a["ligands"]), receptors=tuple(tuple(r) for r in a["receptors"]),
            senders=tuple(a["senders"]), receivers=tuple(a["receivers"]), arm=a["arm"], evidence=a["evidence"],
            caveat=a["caveat"], decoy=a["decoy"], arm_detail=a["arm_detail"], rna_measurable=str(a["rna_measurable"]),
        )
        for a in resources.yaml("axes.yaml")
    )  # fmt: skip


def axes() -> list[Axis]:
    """Ligand-receptor axes, positive controls and decoys included."""
    return list(_axes())


@cache
def _cna() -> Mapping[str, Any]:
    content: Mapping[str, Any] = resources.yaml("cna.yaml")
    return content


def cna_checks() -> list[dict[str, Any]]:
    """Copy-number changes expected in breast tumours.

    Returns
    -------
    list of dict
        ``region``, ``chromosome`` (chr1), ``arm`` (1q), ``bands``, ``direction`` (gain, loss), ``change`` (as in the
        source), ``anchor_genes``, ``subtype``, ``source``.
    """
    return [dict(c) for c in _cna()["checks"]]


def marker_loci() -> dict[str, str]:
    """Band of the marker genes whose own copy number can move a score (``{"CD44": "11p13", ...}``)."""
    return dict(_cna()["marker_loci"])


def cnv_masked(symbols: Iterable[str]) -> np.ndarray:
    """(genes,) bool: genes to leave out of copy-number windows.

    Lineage programmes whose genes sit together (HLA, histones, immunoglobulin and T-cell receptor loci, keratin, S100
    and mucin clusters) and mitochondrial and ribosomal genes look like copy-number changes when the reference is of
    another lineage.
    """
    names = [str(s) for s in symbols]
    out = np.zeros(len(names), dtype=bool)
    arms = {row[0]: row[2].removeprefix("chr") + row[5][:1] for row in _rows()}
    for mask in _cna()["masked"]:
        pattern, on = re.compile(mask["symbol"]), set(mask.get("arm", "").split())
        for i, name in enumerate(names):
            if not out[i] and pattern.fullmatch(name) and (not on or arms.get(name, "") in on):
                out[i] = True
    return out


@cache
def _hallmark() -> dict[str, tuple[str, ...]]:
    return {name: tuple(genes) for name, *genes in resources.tsv("hallmark.tsv")}


def hallmark() -> dict[str, tuple[str, ...]]:
    """MSigDB hallmark gene sets, ``HALLMARK_...`` -> symbols (CC BY 4.0, DOI 10.1016/j.cels.2015.12.004)."""
    return dict(_hallmark())


@dataclass(frozen=True)
class MarkerUse:
    """How the annotation reads markers; see ``resources/marker_use.yaml``."""

    shared: Mapping[str, tuple[str, ...]]  # gene -> further types that make it
    broad: frozenset[str]  # genes that say nothing of the major type
    called: tuple[str, ...]  # minor types that are called
    last: tuple[str, ...]  # types given only to cells that show no other lineage
    kin: tuple[tuple[str, ...], ...]  # types whose joint evidence is no sign of two cells


@cache
def marker_use() -> MarkerUse:
    """How the annotation reads markers (domain knowledge, kept by hand)."""
    use = resources.yaml("marker_use.yaml")
    return MarkerUse(
        shared={gene: tuple(types) for gene, types in use["shared"].items()},
        broad=frozenset(use["broad"]),
        called=tuple(use["called"]),
        last=tuple(use["last"]),
        kin=tuple(tuple(group) for group in use["kin"]),
    )


def platelet_genes() -> tuple[str, ...]:
    """Genes that together mark a barcode contaminated by platelets."""
    return markers("major")["platelet"].positive
