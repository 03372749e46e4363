"""The feedback loop in one sample: forward arm, response, return arm.  See docs/loop.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nicheloop import io, stats
from nicheloop import ligand_receptor as lr
from nicheloop.crosstalk import load
from nicheloop.detection import Detection, furthest
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config import Crosstalk, Loop, Scoring

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

STAT3, NFKB = "STAT3_core", "NFKB_leaveout_stressfree"
# axis -> leave-out read-out of its receptor in malignant cells; None: RNA has no read-out that is not circular
READOUTS: dict[str, str | None] = {
    "IL6_classic": STAT3,
    "IL6_trans": STAT3,
    "OSM": STAT3,
    "LIF": STAT3,
    "IL1B": NFKB,
    "TNF": NFKB,
    "TGFB1": None,  # the response is EMT, which the CSC state is defined by
    "CCL18": NFKB,
    "CXCL8": None,
    "PPBP": None,
}
LIGAND_ONLY = {
    "CXCL8": "CXCR1 and CXCR2 of malignant cells cannot be measured reliably in droplet RNA: ligand side only"
}
GUARD_ONLY = {"PPBP": "CXCL7 is cut from PPBP protein that platelets store: RNA does not measure it, guard only"}
# return arm: axis -> receivers; macrophages lose CCR2, so its receptor is looked for on monocytes
RETURN = {"CCL2": ("monocyte",), "CSF1": ("macrophage",)}
RETURN_READOUT = "M2"  # the clean set shares no gene with any ligand or receptor
COVARIATES = ("STRESS", "IFN")
DEPTH = "library size"  # clone x depth strata are coarse: within one, a score may still follow depth
NOT_NICHE = ("malignant", "csc_high", "epithelial", "platelet")
FIELDS = ("effect", "effect_low", "effect_high", "z", "p", "effect_adjusted", "niche_ligand", "response")


def readouts() -> dict[str, tuple[str, ...]]:
    """Genes of the read-outs as they are used: those that STAT3 and NF-kB sets share are in neither.

    With them a response to IL6 alone would count as one to TNF and IL1B as well.
    """
    from nicheloop import genes

    sets = genes.signatures()
    shared = set(sets[STAT3].genes) & set(sets[NFKB].genes)
    out = {name: tuple(g for g in sets[name].genes if g not in shared) for name in (STAT3, NFKB)}
    return out | {RETURN_READOUT: tuple(sets[RETURN_READOUT].genes)}


# ---------------------------------------------------------------------------------------------------- response arm
def strata_of(clone: Floats, depth: Floats, n_depth: int) -> NDArray[np.int64]:
    """(cells,) strata: clone x library-size quantile; cells without a clone are one clone."""
    clones = np.unique(np.nan_to_num(np.asarray(clone, dtype=np.float64), nan=0.0), return_inverse=True)[1]
    edges = np.quantile(depth, np.linspace(0, 1, n_depth + 1)[1:-1]) if len(depth) else np.empty(0)
    return np.asarray(clones * n_depth + np.searchsorted(edges, depth, side="right"), dtype=np.int64)


@dataclass(frozen=True)
class Contrast:
    """Difference of a read-out between two labels within strata."""

    effect: float
    low: float
    high: float
    z: float
    p: float
    n_strata: int


def stratified_difference(
    y: Floats,
    label: Bools,
    strata: NDArray[np.int64],
    *,
    n_permutations: int,
    n_bootstrap: int,
    confidence: float,
    seed: int,
) -> Contrast | None:
    """Mean of `y` where `label` holds minus where it does not, within strata, against permuted labels.

    Parameters
    ----------
    y, label, strata
        (cells,) read-out without NaN, label, stratum.  The draws follow the order of the cells: sort them first.
    n_permutations, n_bootstrap, confidence, seed
        Label permutations within strata; bootstrap over cells within stratum and label for the interval.

    Returns
    -------
    `Contrast`, one-sided (greater) p; None where no stratum holds both labels.

    Notes
    -----
    Strata are weighted n1 n0 / (n1 + n0): the estimate is the label's coefficient in a regression with stratum effects.
    """
    rng = np.random.default_rng(seed)
    codes = np.unique(strata, return_inverse=True)[1]
    k = int(codes.max()) + 1 if len(codes) else 0
    one_hot = np.zeros((len(y), k))
    one_hot[np.arange(len(y)), codes] = 1.0
    size, n1 = one_hot.sum(axis=0), one_hot[label].sum(axis=0)
    weight = n1 * (size - n1) / np.maximum(size, 1)
    if weight.sum() <= 0:
        return None
    centred = y - (one_hot @ ((y @ one_hot) / size))
    effect = float(centred[label].sum() / weight.sum())
    # permuting within strata: sort by stratum plus a random key
    order = np.argsort(codes, kind="stable")
    values, position = centred[order], label[order]
    shuffled = np.argsort(codes[order] + rng.random((n_permutations, len(y))), axis=1)
    null = values[shuffled][:, position].sum(axis=1) / weight.sum()
    sd = null.std(ddof=1)
    boot = np.empty(n_bootstrap)
    groups = [
        np.flatnonzero((codes == s) & (label == side)) for s in range(k) for side in (True, False) if weight[s] > 0
    ]
    for b in range(n_bootstrap):
        means = [y[g[rng.integers(0, len(g), len(g))]].mean() for g in groups]
        boot[b] = (np.subtract(means[0::2], means[1::2]) * weight[weight > 0]).sum() / weight.sum()
    low, high = np.quantile(boot, [(1 - confidence) / 2, (1 + confidence) / 2])
    z = effect / sd if sd > 0 else 0.0
    return Contrast(
        effect, float(low), float(high), float(z), stats.permutation_p(effect, null), int((weight > 0).sum())
    )


def response_arm(
    cells: pd.DataFrame, readout: str | None, options: Loop, n_permutations: int, seed: int
) -> dict[str, Any]:
    """Compare the read-out of CSC-high and other malignant cells of the same clone and depth (arm B).

    Parameters
    ----------
    cells
        Malignant cells, sorted, with csc_state, clone, n_counts, and columns z_<set>.
    readout
        Name of the leave-out set, or None.

    Returns
    -------
    Columns of the ``loop_arms`` contract.  p is the larger of the raw one and the one adjusted for stress, interferon
    and log library size.
    """
    own = " (genes that no other read-out has)" if readout in (STAT3, NFKB) else ""
    what = f"{readout or 'no read-out'}{own}, CSC-high minus other malignant cells within clone and depth"
    row: dict[str, Any] = {"what": what}
    if readout is None:
        return row | {"status": "no_readout", "reason": "RNA has no read-out of this axis that is not circular"}
    if len(cells) < options.min_malignant:
        return row | {
            "status": "too_few_malignant",
            "reason": f"{len(cells)} malignant cells; {options.min_malignant} are needed",
        }
    state = cells["csc_state"].astype(object).fillna("not_assessable").to_numpy()
    n_high, n_low = int((state == "m_csc").sum()), int((state == "other").sum())
    if n_high + n_low == 0:
        return row | {"status": "csc_not_assessable", "reason": "no malignant cell has a CSC state"}
    if min(n_high, n_low) < options.min_csc:
        return row | {
            "status": "too_few_csc",
            "reason": f"{n_high} CSC-high and {n_low} other malignant cells; {options.min_csc} of each are needed",
        }
    used = cells[np.isin(state, ["m_csc", "other"])]
    if f"z_{readout}" not in used or used[f"z_{readout}"].isna().all():
        return row | {"status": "readout_not_measurable", "reason": f"{readout} has too few genes in this matrix"}
    used = used[used[f"z_{readout}"].notna()]
    y = used[f"z_{readout}"].to_numpy(dtype=float)
    label = (used["csc_state"] == "m_csc").to_numpy(dtype=bool)
    strata = strata_of(
        used["clone"].to_numpy(dtype=float), used["n_counts"].to_numpy(dtype=float), options.depth_strata
    )
    draw: dict[str, Any] = {
        "n_permutations": n_permutations, "n_bootstrap": options.n_bootstrap, "confidence": options.confidence,
        "seed": seed,
    }  # fmt: skip
    raw = stratified_difference(y, label, strata, **draw)
    if raw is None:
        return row | {"status": "no_common_stratum", "reason": "no clone and depth stratum holds both states"}
    names = [c for c in COVARIATES if f"z_{c}" in used and used[f"z_{c}"].notna().any()]
    reason = f"{n_high} CSC-high and {n_low} other cells in {raw.n_strata} strata"
    p, adjusted = raw.p, np.nan
    depth = np.log(np.maximum(used["n_counts"].to_numpy(dtype=float), 1.0))
    covariates = np.column_stack([depth, *(used[f"z_{c}"].to_numpy(dtype=float) for c in names)])
    residual = stats.residualise(y, covariates)
    keep = np.isfinite(residual)
    second = stratified_difference(residual[keep], label[keep], strata[keep], **draw) if keep.any() else None
    if second is not None:
        p, adjusted = max(p, second.p), second.effect
        reason += f"; p {raw.p:.3g} raw, {second.p:.3g} adjusted for {', '.join([*names, DEPTH])}"
    if len(names) < len(COVARIATES):
        reason += f"; not adjusted for {' and '.join(c for c in COVARIATES if c not in names)} (not measurable)"
    return row | {
        "status": "tested", "reason": reason, "effect": raw.effect, "effect_low": raw.low, "effect_high": raw.high,
        "z": raw.z, "p": p, "effect_adjusted": adjusted,
    }  # fmt: skip


# -------------------------------------------------------------------------------------------- forward and return arms
def bootstrap_strengths(sample: lr.Sample, pair: lr.Pair, n: int, seed: int) -> Floats:
    """(n,) strengths of one pair with cells drawn anew within every combination of the two populations."""
    rng = np.random.default_rng(seed)
    lookup = sample.gene_index()
    columns = np.array([lookup[g] for g in pair.genes], dtype=np.int64)
    names = list(dict.fromkeys([pair.sender, pair.receiver]))
    masks = sample.masks[:, [sample.names.index(p) for p in names]]
    inside = masks.any(axis=1)
    masks, x, totals = masks[inside], sample.x[inside][:, columns], sample.totals[inside]
    weights = np.zeros((len(masks), n))
    atom = masks @ (2 ** np.arange(len(names)))
    for code in np.unique(atom):
        cells = np.flatnonzero(atom == code)
        weights[cells] = rng.multinomial(len(cells), np.full(len(cells), 1 / len(cells)), size=n).T
    both = (weights[:, :, None] * masks[:, None, :]).reshape(len(masks), -1)
    sums, total = lr.weighted_sums(x, totals, both)
    means = lr.population_means(
        sums.reshape(n, len(names), -1), total.reshape(n, len(names)), sample.ambient_mean()[columns]
    )
    index = lr.Index.of([pair], names, list(pair.genes))
    return lr.strengths(means, index)[:, 0]


def strongest_arm(
    sample: lr.Sample,
    pairs: Sequence[lr.Pair],
    tested: lr.Tested,
    measurable: Bools,
    *,
    n_bootstrap: int,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """Strength of the strongest measurable pair; both nulls take their maximum over all candidates anew in every draw.

    Parameters
    ----------
    pairs, tested
        All pairs of the arm that could be measured under some labelling, with their strengths and nulls.
    measurable
        (pairs,) those that are measurable as observed; at least one.

    Returns
    -------
    Columns of the ``loop_arms`` contract: log2 effect with a bootstrap interval of the strongest pair, z, and the
    larger of the label-permutation and the matched-pair p.

    Notes
    -----
    In every draw a pair counts only where it meets the floor that observed pairs had to meet, otherwise with 0; an arm
    without a measurable pair has strength 0.  So p is calibrated for "tested and significant", not among tested arms.
    Effect and z are against permuted maxima without that floor: zeros would inflate them.
    """
    best = int(np.argmax(np.where(measurable, tested.strength, -1.0)))
    strength = tested.strength[best]
    effect, z = lr.summarise_null(np.array([strength]), tested.label.max(axis=1)[:, None])
    p_label = stats.permutation_p(float(strength), np.where(tested.label_seen, tested.label, 0.0).max(axis=1))
    p_pair = stats.permutation_p(float(strength), np.where(tested.pair_seen, tested.pair, 0.0).max(axis=1))
    boot = bootstrap_strengths(sample, pairs[best], n_bootstrap, seed)
    low = high = np.nan
    if strength > 0 and (boot > 0).any():
        boot = np.maximum(boot, boot[boot > 0].min())  # a draw without the ligand has no logarithm
        tails = np.quantile(np.log2(boot / strength), [(1 - confidence) / 2, (1 + confidence) / 2])
        low, high = float(effect[0] + tails[0]), float(effect[0] + tails[1])
    return {
        "what": _what(pairs[best]), "effect": float(effect[0]), "effect_low": low, "effect_high": high,
        "z": float(z[0]), "p": max(p_label, p_pair),
        "reason": f"strongest of {int(measurable.sum())} measurable pairs ({len(pairs)} with enough cells); "
        f"p {p_label:.3g} by labels, {p_pair:.3g} by gene pairs",
    }  # fmt: skip


def _what(pair: lr.Pair) -> str:
    return f"{pair.ligand} of {pair.sender} to {'+'.join(pair.receptor)} of {pair.receiver}"


def log_ligand(
    sample: lr.Sample, seen: Detection, pairs: Sequence[lr.Pair], options: Crosstalk, notes: dict[str, str]
) -> float:
    """Log of the largest measurable ligand mean of the senders (counts per 10,000); NaN where none is measurable."""
    lookup = sample.gene_index()
    best = 0.0
    for sender, ligand in dict.fromkeys((p.sender, p.ligand) for p in pairs):
        pair = next(p for p in pairs if (p.sender, p.ligand) == (sender, ligand))
        if seen.ligand_obstacle(pair, options, notes, (sender,)) is None:
            i = seen.names.index(sender)
            mean = lr.PER * seen.umi[i, seen.column[ligand]] / sample.totals[sample.masks[:, i]].sum()
            best = max(best, float(mean - sample.ambient_mean()[lookup[ligand]]))
    return float(np.log(best)) if best > 0 else np.nan


def level(sample: lr.Sample, members: Sequence[str], mask: Bools, *, min_cells: int, min_genes: int) -> float:
    """Level of a read-out in a population on a scale that patients share: the factor of the coupling swap.

    Parameters
    ----------
    members
        Genes of the read-out, as the matrix calls them; those that are not in it are left out.
    mask
        (cells,) the population.
    min_cells, min_genes
        Fewest cells and genes; NaN with fewer.

    Returns
    -------
    Mean over the genes of log2(1 + counts per 10,000), counts summed over the cells.

    Notes
    -----
    The z scores of the score stage cannot serve here.  Their null is matched within the same cells of the same sample,
    so their mean is near 0 in every patient, whatever the set does.
    """
    lookup = sample.gene_index()
    columns = [lookup[g] for g in members if g in lookup]
    total = float(sample.totals[mask].sum())
    if int(mask.sum()) < min_cells or len(columns) < min_genes or total <= 0:
        return np.nan
    sums = np.asarray(sample.x[mask][:, columns].sum(axis=0), dtype=float).ravel()
    return float(np.log2(1 + sums * (lr.PER / total)).mean())


def loop_arms(
    sample: lr.Sample, cells: pd.DataFrame, axes: Sequence[Any], options: Loop, crosstalk: Crosstalk, seed: int,
    notes: dict[str, str] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Measure the three arms of every axis of `READOUTS` in one sample.

    Candidates of an arm are all its pairs with enough cells and counts; those measurable as observed are tested.

    Parameters
    ----------
    sample, cells
        Counts and populations; the same cells with csc_state, clone, n_counts and z_<set> columns, in the same order.
    axes
        Axes as from ``genes.axes()``.

    Returns
    -------
    Three rows per axis as in the ``loop_arms`` contract.  An arm that cannot be measured is NA with a status, never 0.
    """
    from nicheloop import scoring

    notes = notes or {}
    members = scoring.resolve_sets(readouts(), [str(g) for g in sample.genes])
    strict = crosstalk.model_copy(update={"min_cells": options.min_senders})
    by_id = {axis.id: axis for axis in axes}
    forward = {
        name: [p for p in lr.pairs_of_axes([by_id[name]]) if p.receiver == "malignant" and p.sender not in NOT_NICHE]
        for name in READOUTS
        if name in by_id
    }
    back = [
        p
        for name, receivers in RETURN.items()
        for p in lr.pairs_of_axes([by_id[name]] if name in by_id else [])
        if p.sender == "malignant" and p.receiver in receivers
    ]
    reserved = {g for p in lr.pairs_of_axes(axes) for g in p.genes}
    asked = [p for pairs in forward.values() for p in pairs] + back
    seen = Detection.of(sample, {g for p in asked for g in p.genes} | {"IL6R"})
    malignant = sample.masks[:, sample.names.index("malignant")]
    n_malignant = int(malignant.sum())

    def obstacle(pair: lr.Pair) -> tuple[str, str] | None:
        if n_malignant < options.min_malignant:
            note = f" ({notes['malignant']})" if "malignant" in notes and not n_malignant else ""
            return "too_few_cells", f"{n_malignant} malignant cells{note}; {options.min_malignant} are needed"
        if pair.axis == "IL6_trans":  # trans-signalling needs a source of soluble receptor somewhere in the tumour
            if "IL6R" not in seen.column:
                return (
                    "gene_absent_from_reference",
                    "IL6R not in this matrix: no source of soluble receptor can be shown",
                )
            if seen.everywhere[seen.column["IL6R"]] < crosstalk.min_umi:
                return "receptor_not_detected", "IL6R is seen in no cell type: no source of soluble receptor"
        return seen.obstacle(pair, strict, notes)

    obstacles = {p: obstacle(p) for p in asked}
    candidates = [
        p
        for p in dict.fromkeys(asked)
        if p.axis not in LIGAND_ONLY | GUARD_ONLY and (obstacles[p] is None or seen.candidate(p, strict))
    ]
    measurable = np.array([obstacles[p] is None for p in candidates], dtype=bool)
    tested = lr.test_pairs(sample, candidates, reserved, crosstalk, seed) if measurable.any() else None

    def arm(pairs: Sequence[lr.Pair]) -> dict[str, Any]:
        mine = [i for i, p in enumerate(candidates) if p in set(pairs)]
        if tested is None or not measurable[mine].any():
            if not pairs:
                return {"what": "-", "status": "no_pair", "reason": "the axis has no niche sender"}
            status = furthest(obstacles[p][0] for p in pairs if obstacles[p])  # type: ignore[index]
            nearest = next(p for p in pairs if obstacles[p] and obstacles[p][0] == status)  # type: ignore[index]
            return {"what": _what(nearest), "status": status, "reason": f"{_what(nearest)}: {obstacles[nearest][1]}"}  # type: ignore[index]
        found = strongest_arm(
            sample,
            [candidates[i] for i in mine],
            tested.part(mine),
            measurable[mine],
            n_bootstrap=options.n_bootstrap,
            confidence=options.confidence,
            seed=seed,
        )
        return {"status": "tested", **found}

    returning = arm(back)
    enough = n_malignant >= options.min_malignant
    returning["niche_ligand"] = log_ligand(sample, seen, back, strict, notes) if enough else np.nan
    niche = np.any(sample.masks[:, [sample.names.index(n) for n in ("macrophage", "monocyte")]], axis=1)
    niche = np.asarray(niche, dtype=bool)
    genes_needed = {"min_genes": options.min_readout_genes}
    returning["response"] = level(sample, members[RETURN_READOUT], niche, min_cells=options.min_senders, **genes_needed)
    levels = {
        name: level(sample, members[name], malignant, min_cells=options.min_malignant, **genes_needed)
        for name in (STAT3, NFKB)
    }
    tumour = cells[malignant]
    responses: dict[str | None, dict[str, Any]] = {}
    rows = []
    for name, pairs in forward.items():
        readout = READOUTS[name]
        if name in GUARD_ONLY:
            said = {"status": "not_measurable", "reason": _guard(seen, name)}
            rows += [{"axis": name, "arm": a, "what": "-", **said} for a in "ABC"]
            continue
        if name in LIGAND_ONLY:
            a: dict[str, Any] = {
                "what": _what(pairs[0]),
                "status": "not_measurable",
                "reason": LIGAND_ONLY[name] + _bounds(seen, pairs, crosstalk),
            }
        else:
            a = arm(pairs)
        a["niche_ligand"] = log_ligand(sample, seen, pairs, strict, notes)
        a["response"] = levels[readout] if readout else np.nan
        if readout not in responses:
            responses[readout] = response_arm(tumour, readout, options, crosstalk.n_permutations, seed)
        rows += [
            {"axis": name, "arm": "A", **a},
            {"axis": name, "arm": "B", **responses[readout]},
            {"axis": name, "arm": "C", **returning},
        ]
    return _table(rows)


def _table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame(list(rows), columns=["axis", "arm", "what", "status", "reason", *FIELDS])
    table[list(FIELDS)] = table[list(FIELDS)].astype(float)
    return table


def _guard(seen: Detection, axis: str) -> str:
    total = seen.everywhere[seen.column["PPBP"]] if "PPBP" in seen.column else None
    counted = "PPBP is absent from this reference" if total is None else f"{total:.0f} PPBP UMI in the sample"
    return f"{GUARD_ONLY[axis]}; {counted}, {seen.cells('platelet')} platelet barcodes"


def _bounds(seen: Detection, pairs: Sequence[lr.Pair], options: Crosstalk) -> str:
    """Upper bounds of the receptors in malignant cells, in words."""
    said = []
    for gene in dict.fromkeys(g for p in pairs for g in p.receptor):
        if gene not in seen.column:
            said.append(f"{gene} absent from this reference")
        elif seen.cells("malignant"):
            upper = seen.numbers("malignant", gene, options.confidence)[2]
            said.append(f"{seen.words('malignant', gene)} (at most {100 * upper:.2g} % of them)")
    return "".join(f"; {s}" for s in said)


def unanswered(status: str, reason: str) -> pd.DataFrame:
    """All arms of all axes with the one reason why none was measured."""
    return _table(
        [{"axis": n, "arm": a, "what": "-", "status": status, "reason": reason} for n in READOUTS for a in "ABC"]
    )


def run_loop(
    counts: str | Path,
    cell_types: str | Path,
    malignancy: str | Path,
    csc: str | Path,
    tam: str | Path,
    scores: str | Path,
    ambient: str | Path,
    out: str | Path,
    *,
    options: Loop,
    crosstalk: Crosstalk,
    seed: int,
    scoring: Scoring | None = None,
) -> None:
    """Write the three arms of every axis for one sample.

    `scoring` holds the options by which the read-outs of arm B are scored (see `readouts`); the defaults without it.
    """
    from nicheloop import genes

    name = io.Counts(counts).sample
    with io.stage_output(out, "loop_arms", stage="loop", sample=name) as result:
        try:
            reader, cells, sample, notes = load(counts, cell_types, malignancy, csc, tam, ambient)
            reader.require(counts=True)
        except NotAssessable as err:
            result.table = unanswered(err.status, err.reason)
            raise
        values = io.read_table(scores).set_index("cell_id")
        cells = cells.join(values[[f"z_{c}" for c in COVARIATES if f"z_{c}" in values]])
        cells["n_counts"] = sample.totals
        for column, z in score_readouts(sample, scoring).items():
            cells[column] = z
        result.table = loop_arms(sample, cells, genes.axes(), options, crosstalk, seed, notes)
        arms = Counter(f"{a} {s}" for a, s in zip(result.table["arm"], result.table["status"], strict=True))
        result.summary = {
            "n_cells": len(cells),
            "n_malignant": int(sample.masks[:, sample.names.index("malignant")].sum()),
            "arms": dict(sorted(arms.items())),
        }


def score_readouts(sample: lr.Sample, options: Scoring | None) -> dict[str, Floats]:
    """``z_<read-out>`` of `readouts` for malignant cells, matched among them; NaN for other cells."""
    from nicheloop import config, scoring

    options = options or config.Scoring()
    malignant = sample.masks[:, sample.names.index("malignant")]
    sets = {name: members for name, members in readouts().items() if name != RETURN_READOUT}
    z = scoring.score_sets(
        io.lognormalise(sample.x[malignant]), [str(g) for g in sample.genes], sets,
        n_bins=options.n_bins, min_genes=options.min_genes, min_cells=options.min_cells,
    )  # fmt: skip
    out = {f"z_{name}": np.full(len(malignant), np.nan) for name in sets}
    for name in sets:
        out[f"z_{name}"][malignant] = z[name].to_numpy()
    return out
