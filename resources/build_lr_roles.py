"""Derive ``lr_roles.tsv`` from the CellPhoneDB v5.0.0 tables: which genes are secreted or membrane, who meets whom.

    python resources/build_lr_roles.py CELLPHONEDB_FOLDER [OUT_FOLDER]

CELLPHONEDB_FOLDER holds ``gene_input.csv``, ``protein_input.csv``, ``complex_input.csv`` and ``interaction_input.csv``
of cellphonedb-data v5.0.0 (ventolab, doi:10.1038/s41596-024-01137-1).  Kept are gene names, two flags and, for every
gene, the names of the genes it shares a recorded interaction with (any subunit of either partner).  Sources, curators,
annotations and scores stay where they are.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import product
from pathlib import Path

import pandas as pd

from nicheloop import genes

HEAD = """# Genes of ligand-receptor biology: secreted (no membrane form), membrane (transmembrane, no secreted form),
# and the genes each shares a recorded interaction with (subunits of a complex one by one), joined by ';'.
# Facts of cellphonedb-data v5.0.0 (doi:10.1038/s41596-024-01137-1); symbols brought up to date.
# Built by resources/build_lr_roles.py.
"""


def build(folder: Path, out: Path) -> None:
    """Write ``lr_roles.tsv`` into `out`."""
    read = {name: pd.read_csv(folder / f"{name}_input.csv") for name in ("gene", "protein", "complex", "interaction")}
    known = list(genes.table().index)
    symbols = sorted(set(read["gene"]["hgnc_symbol"].dropna()))
    current = {}
    for symbol in symbols:
        found = genes.find([symbol], known).present
        current[symbol] = found[0] if found else symbol
    of_protein: dict[str, set[str]] = defaultdict(set)
    for uniprot, symbol in zip(read["gene"]["uniprot"], read["gene"]["hgnc_symbol"], strict=True):
        if isinstance(symbol, str):
            of_protein[uniprot].add(current[symbol])
    members = dict(of_protein)
    subunits = [c for c in read["complex"] if c.startswith("uniprot_")]
    for row in read["complex"].to_dict("records"):
        parts = [row[c] for c in subunits if isinstance(row[c], str)]
        members[row["complex_name"]] = {g for p in parts for g in of_protein.get(p, ())}
    partners: dict[str, set[str]] = defaultdict(set)
    for a, b in zip(read["interaction"]["partner_a"], read["interaction"]["partner_b"], strict=True):
        for one, other in product(members.get(a, ()), members.get(b, ())):
            partners[one].add(other)
            partners[other].add(one)
    flags: dict[str, list[bool]] = {}
    for row in read["protein"].to_dict("records"):
        for gene in of_protein.get(row["uniprot"], ()):
            found = flags.setdefault(gene, [False, False])
            found[0] |= bool(row["secreted"])
            found[1] |= bool(row["transmembrane"])
    lines = ["gene\tsecreted\tmembrane\tpartners"]
    for gene in sorted(set(flags) | set(partners)):
        secreted, membrane = flags.get(gene, (False, False))
        only = (int(secreted and not membrane), int(membrane and not secreted))
        lines.append(f"{gene}\t{only[0]}\t{only[1]}\t{';'.join(sorted(partners.get(gene, ())))}")
    (out / "lr_roles.tsv").write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent)
    arguments = parser.parse_args()
    build(arguments.folder, arguments.out)
