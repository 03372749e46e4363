"""Which gene sets of the loop share genes, so that one cannot support the other.  See docs/loop.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicheloop.loop import COVARIATES, NFKB, READOUTS, RETURN, STAT3, forward_pairs, readouts

if TYPE_CHECKING:
    import pandas as pd


def circularity() -> pd.DataFrame:
    """List the overlaps between the sets that are really used: CSC call, read-outs, axes, macrophage axes, covariates.

    Returns
    -------
    One row per pair of sets: set_a, set_b, n_overlap, overlap (symbols joined by ';'), clean (they must not overlap)
    and note.  Overlaps outside clean pairs are shown because they limit what may be read from them.
    """
    from itertools import combinations

    import pandas as pd

    from nicheloop import genes

    sets = {name: set(s.genes) for name, s in genes.signatures().items()}
    used: dict[str, set[str]] = {"CSC call": {"CD44", "CD24"}, "ALDH call": {"ALDH1A3"}}
    axes = [a for a in genes.axes() if not a.decoy]
    used["arm A"] = {g for pairs in forward_pairs(axes).values() for p in pairs for g in p.genes}
    used["ligands"] = {g for a in axes for g in a.ligands}
    used["receptors of the loop's axes"] = {
        g for a in axes if a.id in (*READOUTS, *RETURN) for r in a.receptors for g in r
    }
    used["receptors of other axes"] = {
        g for a in axes if a.id not in (*READOUTS, *RETURN) for r in a.receptors for g in r
    }
    for name in ("M1", "M2", "EMT_malignant", "LP_covariate", *COVARIATES, "monocyte", "macrophage"):
        used[name] = sets[name]
    used |= {name: set(members) for name, members in readouts().items()}
    notes = {
        frozenset(
            {"CSC call", "receptors of other axes"}
        ): "axes that share CD44 with the call are not among the loop's axes",
        frozenset(
            {"receptors of the loop's axes", "monocyte"}
        ): "CCR2 helps to call monocytes: its detection there is expected",
    }
    covariate = {*COVARIATES, "monocyte", "macrophage", "receptors of other axes"}
    apart = {"CSC call", "ALDH call", "arm A", "ligands", "receptors of the loop's axes", "receptors of other axes"}
    rows = []
    for a, b in combinations(used, 2):
        both = sorted(used[a] & used[b])
        # clean: scored set against call or axis, and the two companions of the CSC call against the read-outs
        scored = {STAT3, NFKB, "M1", "M2", "EMT_malignant", "LP_covariate"}
        clean = (a in apart and b in scored) or (a in ("CSC call", "ALDH call") and b not in covariate)
        clean = clean or {a, b} == {STAT3, NFKB}
        clean = clean or ({a, b} & {STAT3, NFKB} != set() and {a, b} & {"EMT_malignant", "LP_covariate"} != set())
        rows.append({
            "set_a": a, "set_b": b, "n_overlap": len(both), "overlap": ";".join(both), "clean": clean,
            "note": notes.get(frozenset({a, b}), ""),
        })  # fmt: skip
    return pd.DataFrame(rows)
