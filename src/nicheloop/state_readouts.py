"""What cells of a CSC state do beside being in it: read-outs against other malignant cells.  See docs/csc.md.

A read-out is the mean log expression of a gene set (or of one gene).  Its difference between the two states is linear
in the genes, adjusted or not, so that the difference of every gene is one sparse product and those of a thousand
matched random sets are sums of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nicheloop import scoring, stats

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from nicheloop.config_states import Csc, Scoring

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# state -> column of the csc table, its value, the value it is compared with
STATES = {"m_csc": ("csc_state", "m_csc", "other"), "aldh1a3": ("aldh1a3_state", "high", "low")}
MARKERS = ("CD44", "CD24", "ALDH1A3")
CYCLE = ("G1S", "G2M")
READOUTS = ("EMT_malignant", "cell_cycle", "angiogenesis", "CXCR4", "CXCL12")
ANGIOGENESIS = "HALLMARK_ANGIOGENESIS"  # without ligands and receptors of the axes, and without the markers
# adjustment -> covariates; "all" leaves the cell cycle out: for ALDH1A3-high cells it is part of the phenotype
SCORES = {"stress": "STRESS", "hypoxia": "HYPOXIA", "ifn": "IFN_MHC", "lp": "LP_covariate"}
ALL = ("depth", "stress", "hypoxia", "ifn", "lp", "clone")
ADJUSTMENTS: dict[str, tuple[str, ...]] = {
    "none": (), **{name: (name,) for name in ALL}, "all": ALL, "all_and_cycle": (*ALL, "cycle"),
}  # fmt: skip


def readout_genes() -> dict[str, tuple[str, ...]]:
    """Genes of every read-out; none of them is a marker that defines a state."""
    from nicheloop import genes

    sets = genes.signatures()
    axes = [a for a in genes.axes() if not a.decoy]
    used = {g for a in axes for g in a.ligands} | {g for a in axes for r in a.receptors for g in r} | set(MARKERS)
    return {
        "EMT_malignant": tuple(sets["EMT_malignant"].genes),
        "cell_cycle": tuple(dict.fromkeys(g for name in CYCLE for g in sets[name].genes)),
        "angiogenesis": tuple(g for g in genes.hallmark()[ANGIOGENESIS] if g not in used),
        "CXCR4": ("CXCR4",),
        "CXCL12": ("CXCL12",),
    }


@dataclass(frozen=True)
class Design:
    """One adjustment: what is left of the state after the covariates, and who takes part.

    Attributes
    ----------
    weights : (cells,) w with sum(w * y) = coefficient of the state in a regression of y on it and the covariates
    basis : (cells, k) orthonormal basis of intercept and covariates
    """

    weights: Floats
    basis: Floats

    def residual(self, y: Floats) -> Floats:
        """(cells, columns) of `y` without what intercept and covariates explain."""
        return y - self.basis @ (self.basis.T @ y)


def design(state: Bools, covariates: Floats, *, min_left: float = 0.01) -> Design | None:
    """Design of one adjustment; None where the covariates all but determine the state.

    Parameters
    ----------
    state
        (cells,) in the state or not.
    covariates
        (cells, k) without NaN; constant columns are ignored.
    min_left
        Smallest share of the state's variance that the covariates may leave.
    """
    columns = [np.ones(len(state))]
    for column in covariates.T:
        spread = column.std()
        if spread > 0:
            columns.append((column - column.mean()) / spread)
    q, triangle = np.linalg.qr(np.column_stack(columns))
    basis = q[:, np.abs(np.diag(triangle)) > 1e-8 * np.sqrt(len(state))]
    value = state.astype(np.float64)
    left = value - basis @ (basis.T @ value)
    total = float(((value - value.mean()) ** 2).sum())
    norm = float(left @ left)
    return Design(left / norm, basis) if total > 0 and norm > min_left * total else None


def covariates(cells: pd.DataFrame) -> dict[str, Floats]:
    """Covariates that can be had of malignant cells, each (cells, k); a cell without a score has the mean.

    Parameters
    ----------
    cells
        n_counts, clone (NA: none), and z_<set>.
    """
    out = {"depth": np.log(np.maximum(cells["n_counts"].to_numpy(dtype=np.float64), 1.0))[:, None]}

    def scores(names: Sequence[str]) -> Floats | None:
        found = [cells[f"z_{n}"].to_numpy(dtype=np.float64) for n in names if f"z_{n}" in cells]
        found = [np.where(np.isfinite(v), v, np.nanmean(v)) for v in found if np.isfinite(v).any()]
        return np.column_stack(found) if found else None

    for name, column in SCORES.items():
        values = scores([column])
        if values is not None:
            out[name] = values
    cycle = scores(CYCLE)
    if cycle is not None:
        out["cycle"] = cycle
    if "clone" in cells:
        clone = np.nan_to_num(cells["clone"].to_numpy(dtype=np.float64), nan=0.0)
        levels = np.unique(clone)
        if len(levels) > 1:
            out["clone"] = (clone[:, None] == levels[1:]).astype(np.float64)
    return out


def two_sided(observed: float, null: Floats) -> float:
    """Two-sided p of a statistic within a null that need not be centred at 0: twice the smaller tail, at most 1."""
    upper = float(stats.permutation_p(observed, null))
    lower = float(stats.permutation_p(observed, null, alternative="less"))
    return min(1.0, 2 * min(upper, lower))


def contrasts(
    x: csr_matrix,
    genes: Sequence[str],
    cells: pd.DataFrame,
    state: str,
    *,
    options: Csc,
    scoring_options: Scoring,
    seed: int,
) -> tuple[list[dict[str, Any]], dict[str, Floats]]:
    """Every read-out in cells of one state against the others, raw and adjusted, with both nulls.

    Parameters
    ----------
    x
        (cells, genes) log-normalised expression of malignant cells, sorted by cell id.
    genes
        (genes,) symbols.
    cells
        (cells,) rows of the same cells: the state's column, n_counts, clone, z_<set>.
    state
        Key of `STATES`.

    Returns
    -------
    Rows of the ``csc_readouts`` contract without the sample, and the null sets' effects of the unadjusted read-outs.

    Notes
    -----
    p_sets: the set among random sets of like expression and detection in the malignant cells (are these genes
    special); p_label: the state permuted over cells, after Freedman and Lane 1983 where adjusted (are these cells
    special).  Genes of a set move together, so matched sets alone would find too much: p is the larger of the two.
    """
    column, high, low = STATES[state]
    named = cells[column].astype(object).to_numpy() if column in cells else np.full(len(cells), "", dtype=object)
    used = np.isin(named, [high, low])
    in_state = np.asarray(named[used] == high, dtype=bool)
    n_high, n_low = int(in_state.sum()), int((~in_state).sum())
    sets = readout_genes()
    head = {"state": state, "n_high": n_high, "n_low": n_low}
    numbers = ("effect", "null_mean", "null_sd", "null_low", "null_high", "se", "p_sets", "p_label", "p")
    empty = {"n_genes": 0, **dict.fromkeys(numbers, np.nan)}

    def refused(status: str, reason: str) -> list[dict[str, Any]]:
        rest = {"status": status, "reason": reason, **empty}
        return [{**head, "readout": r, "adjustment": a, **rest} for r in READOUTS for a in ADJUSTMENTS]

    if n_high + n_low == 0:
        return refused("state_not_assessable", "no malignant cell has a state"), {}
    if min(n_high, n_low) < options.min_state_cells:
        reason = f"{n_high} cells in the state and {n_low} not; {options.min_state_cells} of each are needed"
        return refused("too_few_state_cells", reason), {}
    part, about = x[np.flatnonzero(used)], cells[used]
    bins = scoring.gene_bins(part, genes, n_bins=scoring_options.n_bins)
    lookup = {g: i for i, g in enumerate(genes)}
    found = scoring.resolve_sets(sets, genes)
    columns = {r: np.sort(np.array([lookup[g] for g in found[r]], dtype=np.int64)) for r in READOUTS}
    draws = {
        r: scoring.draw_sets(bins, genes, c, n_sets=options.n_null_sets, seed=seed, name=r)
        for r, c in columns.items()
        if len(c)
    }
    level = {r: np.asarray(part[:, c].mean(axis=1), dtype=np.float64).ravel() for r, c in columns.items() if len(c)}
    seen = {r: bool((bins[c] >= 0).any()) for r, c in columns.items()}
    extra = covariates(about)
    rng = np.random.default_rng(seed)
    order = np.stack([rng.permutation(len(about)).astype(np.int32) for _ in range(options.n_label_permutations)])
    rows, nulls = [], {}
    for adjustment, wanted in ADJUSTMENTS.items():
        have = [name for name in wanted if name in extra]
        fit = design(in_state, np.column_stack([np.zeros((len(about), 1)), *(extra[n] for n in have)]))
        gene = None if fit is None else np.append(np.asarray(part.T @ fit.weights, dtype=np.float64), 0.0)
        for r in READOUTS:
            row = {**head, "readout": r, "adjustment": adjustment, **empty, "n_genes": len(columns[r])}
            needed = 1 if len(sets[r]) == 1 else scoring_options.min_genes
            if len(columns[r]) < needed:
                rows.append(
                    row
                    | {"status": "readout_not_measurable", "reason": f"{len(columns[r])} of its genes in the matrix"}
                )
                continue
            if not seen[r]:
                rows.append(row | {"status": "not_detected", "reason": "seen in none of these cells"})
                continue
            if wanted and (not have or (r == "cell_cycle" and "cycle" in wanted)):
                own = (
                    "is the read-out itself"
                    if r == "cell_cycle" and "cycle" in wanted
                    else "not measurable, or the same in all"
                )
                rows.append(row | {"status": "no_covariate", "reason": f"{adjustment}: {own}"})
                continue
            if fit is None or gene is None:
                rows.append(
                    row | {"status": "state_not_separable", "reason": f"{', '.join(have)} all but determine the state"}
                )
                continue
            effect = float(gene[columns[r]].mean())
            null = gene[draws[r]].mean(axis=1)
            left = fit.residual(level[r])
            permuted = np.concatenate([left[part_] @ fit.weights for part_ in np.array_split(order, 10)])
            p_sets, p_label = (
                two_sided(effect, null),
                float(stats.permutation_p(effect, permuted, alternative="two-sided")),
            )
            missing = [n for n in wanted if n not in have]
            reason = f"{n_high} cells in the state, {n_low} not" + (
                f"; not adjusted for {', '.join(missing)}" if missing else ""
            )
            tail = np.quantile(null, [0.025, 0.975])
            rows.append(row | {
                "status": "tested", "reason": reason, "effect": effect, "null_mean": float(null.mean()),
                "null_sd": float(null.std(ddof=1)), "null_low": float(tail[0]), "null_high": float(tail[1]),
                "se": float(permuted.std(ddof=1)), "p_sets": p_sets, "p_label": p_label, "p": max(p_sets, p_label),
            })  # fmt: skip
            if adjustment == "none":
                nulls[r] = null
    return rows, nulls


def null_table(state: str, nulls: Mapping[str, Floats]) -> pd.DataFrame:
    """(draws,) effects of matched random sets of each read-out, for the figure of the null."""
    import pandas as pd

    parts = [
        pd.DataFrame({"what": f"{state} {name}", "draw": np.arange(len(null)), "value": null})
        for name, null in nulls.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"what": [], "draw": [], "value": []})
