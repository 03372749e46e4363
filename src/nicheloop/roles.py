"""Which genes are secreted or membrane proteins, and which pairs have a recorded interaction (CellPhoneDB v5.0.0)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from nicheloop import genes, resources


@dataclass(frozen=True)
class Roles:
    """Facts of ``resources/lr_roles.tsv``.

    Attributes
    ----------
    secreted : genes of secreted proteins without a membrane form
    membrane : genes of transmembrane proteins without a secreted form
    partners : gene -> genes it shares a recorded interaction with, subunits one by one
    """

    secreted: frozenset[str]
    membrane: frozenset[str]
    partners: dict[str, frozenset[str]]

    def recorded(self, ligand: str, receptor: str) -> bool:
        """Whether the two genes share a recorded interaction, in either direction."""
        return receptor in self.partners.get(ligand, frozenset())


@cache
def roles() -> Roles:
    """Secreted and membrane genes, with the interactions of CellPhoneDB and of the axes of this package."""
    rows = resources.tsv("lr_roles.tsv")[1:]
    partners = {gene: set(others.split(";")) - {""} for gene, _, _, others in rows}
    for axis in genes.axes():
        for ligand in axis.ligands:
            for receptor in (g for complex_ in axis.receptors for g in complex_):
                partners.setdefault(ligand, set()).add(receptor)
                partners.setdefault(receptor, set()).add(ligand)
    return Roles(
        frozenset(gene for gene, secreted, _, _ in rows if secreted == "1"),
        frozenset(gene for gene, _, membrane, _ in rows if membrane == "1"),
        {gene: frozenset(others) for gene, others in partners.items()},
    )
