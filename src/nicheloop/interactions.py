"""Ligand-receptor resources given by the user: LIANA's table, a CellPhoneDB folder, a plain TSV.  See docs/screen.md.

None of them is shipped: LIANA's is read from its installed package, the others from a path.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nicheloop.errors import UserError

LIANA = "liana"  # the word that means: the consensus of the installed liana
CONSENSUS = "consensus"
SEPARATOR = "_"  # between the subunits of a complex
CELLPHONEDB_FILES = ("interaction_input.csv", "gene_input.csv", "complex_input.csv")


@dataclass(frozen=True, order=True)
class Interaction:
    """One pair; each side is a complex of one or more genes, in the resource's order."""

    ligand: tuple[str, ...]
    receptor: tuple[str, ...]

    @property
    def names(self) -> tuple[str, str]:
        """Ligand and receptor with their subunits joined by ``_``."""
        return SEPARATOR.join(self.ligand), SEPARATOR.join(self.receptor)


def _complex(name: str) -> tuple[str, ...]:
    if SEPARATOR not in name:
        return (name.strip(),) if name.strip() else ()
    return tuple(dict.fromkeys(part.strip() for part in name.split(SEPARATOR) if part.strip()))


def _unique(found: Iterable[Interaction], source: str) -> list[Interaction]:
    """Each pair once; sorted, so that the order of the file's lines does not matter."""
    pairs = {(i.ligand, i.receptor): i for i in found if i.ligand and i.receptor}
    if not pairs:
        raise UserError(f"{source}: no ligand-receptor pair found.")
    return [pairs[key] for key in sorted(pairs)]  # tuples compare faster than interactions do


def _lines(path: Path, wanted: Iterable[str], delimiter: str = ",") -> tuple[dict[str, int], list[list[str]]]:
    """Place of every column of a delimited text file that has the wanted ones, and its lines, each as wide as that."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader((line for line in handle if not line.startswith("#")), delimiter=delimiter)
            header = next(reader, [])
            blank = [""] * len(header)  # a line may end early
            lines = [line if len(line) >= len(blank) else line + blank[len(line) :] for line in reader if line]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Check screen.resource.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise UserError(f"{path}: cannot be read as a table of text ({err}). Check screen.resource.") from None
    missing = [c for c in wanted if c not in header]
    if missing:
        raise UserError(f"{path}: columns missing: {', '.join(missing)}. Found: {', '.join(header) or 'nothing'}.")
    return {name: i for i, name in enumerate(header) if name}, lines


def _rows(path: Path, wanted: Iterable[str], delimiter: str = ",") -> list[dict[str, str]]:
    """Rows of a delimited text file that has the wanted columns."""
    place, lines = _lines(path, wanted, delimiter)
    return [{name: line[i] for name, i in place.items()} for line in lines]


def liana_file() -> Path:
    """Resource table inside the installed liana, found without importing it.

    Raises
    ------
    UserError
        If liana is not installed or does not hold the table.
    """
    from importlib.util import find_spec

    found = find_spec("liana")
    if found is None or not found.submodule_search_locations:
        raise UserError("screen.resource: 'liana', but liana is not installed: pip install liana, or give a path.")
    path = Path(next(iter(found.submodule_search_locations))) / "resource" / "omni_resource.csv"
    if not path.is_file():
        raise UserError(f"{path}: the installed liana does not hold its resource table; give screen.resource a path.")
    return path


def read_liana(path: str | Path, name: str = CONSENSUS) -> list[Interaction]:
    """Pairs of one resource of LIANA's table (doi:10.1038/s41467-022-30755-0).

    Raises
    ------
    UserError
        If the file cannot be read or holds no resource of that name.
    """
    path = Path(path)
    columns = ("source_genesymbol", "target_genesymbol", "resource")
    place, lines = _lines(path, columns)  # of many resources: rows by name would take longer than all the rest
    source, target, resource = (place[c] for c in columns)
    known = sorted({line[resource] for line in lines})
    if name not in known:
        raise UserError(f"{path}: no resource '{name}'. It holds: {', '.join(known) or 'nothing'}.")
    return _unique(
        (Interaction(_complex(line[source]), _complex(line[target])) for line in lines if line[resource] == name),
        str(path),
    )


def read_cellphonedb(folder: str | Path) -> list[Interaction]:
    """Pairs of a CellPhoneDB v5 folder (doi:10.1038/s41596-024-01137-1): partner a as ligand, partner b as receptor.

    A partner is a UniProt accession (one gene) or a complex of them.  A pair with a partner that the folder itself does
    not resolve is a fault of the folder and an error, not a pair less.

    Raises
    ------
    UserError
        If a file is missing, lacks a column, or names a partner that is nowhere defined.
    """
    folder = Path(folder)
    gene = {r["uniprot"]: r["gene_name"] for r in _rows(folder / "gene_input.csv", ("gene_name", "uniprot"))}
    parts: dict[str, tuple[str, ...]] = {u: (g,) for u, g in gene.items()}
    unknown: set[str] = set()
    for row in _rows(folder / "complex_input.csv", ("complex_name", "uniprot_1")):
        subunits = [v for k, v in sorted(row.items()) if k.startswith("uniprot_") and v]
        unknown.update(u for u in subunits if u not in gene)
        parts[row["complex_name"]] = tuple(dict.fromkeys(gene.get(u, u) for u in subunits))
    rows = _rows(folder / "interaction_input.csv", ("partner_a", "partner_b"))
    unknown.update(r[side] for r in rows for side in ("partner_a", "partner_b") if r[side] not in parts)
    if unknown:
        some = ", ".join(sorted(unknown)[:5])
        raise UserError(f"{folder}: {len(unknown)} partners are neither a gene nor a complex of the folder: {some}.")
    return _unique((Interaction(parts[r["partner_a"]], parts[r["partner_b"]]) for r in rows), str(folder))


def read_tsv(path: str | Path) -> list[Interaction]:
    """Pairs of a tab-separated file with the columns ligand and receptor; subunits are joined by ``_``.

    Raises
    ------
    UserError
        If the file cannot be read, lacks a column or holds no pair.
    """
    rows = _rows(Path(path), ("ligand", "receptor"), "\t")
    return _unique((Interaction(_complex(r["ligand"]), _complex(r["receptor"])) for r in rows), str(path))


def files(resource: str) -> list[Path]:
    """Files a resource is read from, so that a change in them re-runs what depends on them."""
    if resource == LIANA:
        return [liana_file()]
    path = Path(resource)
    return [path / name for name in CELLPHONEDB_FILES] if path.is_dir() else [path]


def read(resource: str | Path) -> list[Interaction]:
    """Read a resource: ``liana``, LIANA's CSV, a CellPhoneDB folder, or a TSV.

    Returns
    -------
    Each pair once, sorted.

    Raises
    ------
    UserError
        If it cannot be read, with the file and what is wrong.
    """
    if str(resource) == LIANA:
        return read_liana(liana_file())
    path = Path(resource)
    if path.is_dir():
        return read_cellphonedb(path)
    return read_liana(path) if path.suffix == ".csv" else read_tsv(path)
