"""The feedback loop: forward arm, response, return arm; per patient, and coupled over the cohort.  See docs/loop.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nicheloop import crosstalk as ct
from nicheloop import io, stats
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
ASKED = ("tested", "ligand_not_detected", "receptor_not_detected", "ambient_not_exceeded")  # arm A had its cells
NOT_PRIMARY = "not_primary_tumour"
NOT_NICHE = ("malignant", "csc_high", "epithelial", "platelet")
PRESENT, ABSENT, UNKNOWN = "all three arms present", "not present", "not assessable"
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
def bootstrap_strengths(sample: ct.Sample, pair: ct.Pair, n: int, seed: int) -> Floats:
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
    sums, total = ct.weighted_sums(x, totals, both)
    means = ct.population_means(
        sums.reshape(n, len(names), -1), total.reshape(n, len(names)), sample.ambient_mean()[columns]
    )
    index = ct.Index.of([pair], names, list(pair.genes))
    return ct.strengths(means, index)[:, 0]


def strongest_arm(
    sample: ct.Sample,
    pairs: Sequence[ct.Pair],
    tested: ct.Tested,
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
    effect, z = ct.summarise_null(np.array([strength]), tested.label.max(axis=1)[:, None])
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


def _what(pair: ct.Pair) -> str:
    return f"{pair.ligand} of {pair.sender} to {'+'.join(pair.receptor)} of {pair.receiver}"


def log_ligand(
    sample: ct.Sample, seen: ct.Detection, pairs: Sequence[ct.Pair], options: Crosstalk, notes: dict[str, str]
) -> float:
    """Log of the largest measurable ligand mean of the senders (counts per 10,000); NaN where none is measurable."""
    lookup = sample.gene_index()
    best = 0.0
    for sender, ligand in dict.fromkeys((p.sender, p.ligand) for p in pairs):
        pair = next(p for p in pairs if (p.sender, p.ligand) == (sender, ligand))
        if seen.ligand_obstacle(pair, options, notes, (sender,)) is None:
            i = seen.names.index(sender)
            mean = ct.PER * seen.umi[i, seen.column[ligand]] / sample.totals[sample.masks[:, i]].sum()
            best = max(best, float(mean - sample.ambient_mean()[lookup[ligand]]))
    return float(np.log(best)) if best > 0 else np.nan


def level(sample: ct.Sample, members: Sequence[str], mask: Bools, *, min_cells: int, min_genes: int) -> float:
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
    return float(np.log2(1 + sums * (ct.PER / total)).mean())


def loop_arms(
    sample: ct.Sample, cells: pd.DataFrame, axes: Sequence[Any], options: Loop, crosstalk: Crosstalk, seed: int,
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
        name: [p for p in ct.pairs_of_axes([by_id[name]]) if p.receiver == "malignant" and p.sender not in NOT_NICHE]
        for name in READOUTS
        if name in by_id
    }
    back = [
        p
        for name, receivers in RETURN.items()
        for p in ct.pairs_of_axes([by_id[name]] if name in by_id else [])
        if p.sender == "malignant" and p.receiver in receivers
    ]
    reserved = {g for p in ct.pairs_of_axes(axes) for g in p.genes}
    asked = [p for pairs in forward.values() for p in pairs] + back
    seen = ct.Detection.of(sample, {g for p in asked for g in p.genes} | {"IL6R"})
    malignant = sample.masks[:, sample.names.index("malignant")]
    n_malignant = int(malignant.sum())

    def obstacle(pair: ct.Pair) -> tuple[str, str] | None:
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
    tested = ct.test_pairs(sample, candidates, reserved, crosstalk, seed) if measurable.any() else None

    def arm(pairs: Sequence[ct.Pair]) -> dict[str, Any]:
        mine = [i for i, p in enumerate(candidates) if p in set(pairs)]
        if tested is None or not measurable[mine].any():
            if not pairs:
                return {"what": "-", "status": "no_pair", "reason": "the axis has no niche sender"}
            status = ct.furthest(obstacles[p][0] for p in pairs if obstacles[p])  # type: ignore[index]
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


def _guard(seen: ct.Detection, axis: str) -> str:
    total = seen.everywhere[seen.column["PPBP"]] if "PPBP" in seen.column else None
    counted = "PPBP is absent from this reference" if total is None else f"{total:.0f} PPBP UMI in the sample"
    return f"{GUARD_ONLY[axis]}; {counted}, {seen.cells('platelet')} platelet barcodes"


def _bounds(seen: ct.Detection, pairs: Sequence[ct.Pair], options: Crosstalk) -> str:
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
            reader, cells, sample, notes = ct.load(counts, cell_types, malignancy, csc, tam, ambient)
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


def score_readouts(sample: ct.Sample, options: Scoring | None) -> dict[str, Floats]:
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


# ------------------------------------------------------------------------------------------------------------- cohort
@dataclass(frozen=True)
class Coupling:
    """Mean product of two standardised factors over patients, against permuted pairings; NaN without a stratum."""

    value: float
    p: float
    n: int
    strata: str


def coupling_swap(
    ligand: Floats, response: Floats, strata: Sequence[str], *, min_stratum: int, n_swaps: int, seed: int
) -> Coupling:
    """Ask whether a patient's own ligand and response belong together more than swapped ones.

    Parameters
    ----------
    ligand, response
        (patients,) factors; a patient with NaN in either is left out.  The draws follow the patients' order: sort them.
    strata
        (patients,) subtype and data set, within which factors are standardised and pairings permuted; strata that begin
        with ``unknown_`` are never swapped.
    min_stratum, n_swaps, seed
        Smallest stratum that takes part; permuted pairings.

    Returns
    -------
    `Coupling`, one-sided (greater).

    Notes
    -----
    What is swapped is coupling: the mean log strength itself is constant over all pairings and would have no power.
    """
    ligand, response = np.asarray(ligand, dtype=float), np.asarray(response, dtype=float)
    names = np.asarray(list(strata), dtype=object)
    use = np.isfinite(ligand) & np.isfinite(response)
    rng = np.random.default_rng(seed)
    kept: list[tuple[Floats, Floats]] = []
    said = []
    for name in sorted(set(names[use])):
        mine = use & (names == name)
        n = int(mine.sum())
        if str(name).startswith("unknown_"):
            said.append(f"{name}: {n} (not swapped)")
        elif n < min_stratum:
            said.append(f"{name}: {n} (too small)")
        else:
            said.append(f"{name}: {n}")
            kept.append((_standard(ligand[mine]), _standard(response[mine])))
    text = "; ".join(said) or "no patient with both factors"
    total = sum(len(a) for a, _ in kept)
    if not kept:
        return Coupling(np.nan, np.nan, 0, text)
    value = sum(float(a @ b) for a, b in kept) / total
    null = np.zeros(n_swaps)
    for a, b in kept:
        order = np.argsort(rng.random((n_swaps, len(b))), axis=1)
        null += b[order] @ a
    return Coupling(value, stats.permutation_p(value, null / total), total, text)


def _standard(x: Floats) -> Floats:
    sd = x.std()
    return (x - x.mean()) / sd if sd > 0 else np.zeros_like(x)


def verdict(rows: pd.DataFrame, alpha: float) -> dict[str, Any]:
    """Combine the three arms of one patient and axis: intersection-union, or the arms that prevented an answer."""
    by_arm: dict[str, Any] = {str(r["arm"]): r for r in rows.to_dict("records")}
    missing = [a for a in "ABC" if by_arm[a]["status"] != "tested"]
    p = {f"p_{a.lower()}": float(by_arm[a]["p"]) for a in "ABC"}
    if missing:
        words = "; ".join(f"arm {a}: {by_arm[a]['reason']}" for a in missing)
        status = f"arm_{missing[0].lower()}_{by_arm[missing[0]]['status']}"
        return {"status": status, "verdict": UNKNOWN, "reason": words, **p, "p": np.nan, "score": np.nan}
    worst = max(p.values())
    weakest = max(p, key=lambda k: p[k]).removeprefix("p_").upper()
    return {
        "status": "assessable", "verdict": PRESENT if worst <= alpha else ABSENT,
        "reason": f"the weakest arm is {weakest} (p {worst:.3g})", **p, "p": worst,
        "score": min(float(by_arm[a]["z"]) for a in "ABC"),
    }  # fmt: skip


def stratum(record: dict[str, Any]) -> str:
    """Subtype and data set of a patient; ``unknown_<column>`` where the sheet does not say."""
    for column in ("subtype", "dataset"):
        if not record.get(column):
            return f"unknown_{column}"
    return f"{record['subtype']} in {record['dataset']}"


def wording(
    n_patients: int, n_assessable: int, n_asked: int, n_present: int, p: dict[str, float], q: float, options: Loop
) -> str:
    """Write the sentence that may be said of a cohort, and of no single patient.

    Parameters
    ----------
    n_asked
        Patients whose forward arm had enough cells, measurable or not: the trials of the binomial.
    p
        ``present`` (more patients with three arms than the level of the test gives by chance), ``forward`` and
        ``return`` (coupling swaps); NaN where not done.
    q
        Benjamini-Hochberg over axes of the largest of the three.
    """
    if n_assessable < options.min_patients:
        return (
            f"No statement about a loop: all three arms can be measured in {n_assessable} of {n_patients} patients, "
            f"{options.min_patients} are needed."
        )
    seen = f"All three arms are present in {n_present} of {n_assessable} assessable patients"
    if n_asked > n_assessable:
        seen += f" ({n_asked} had the cells for it)"
    lacking = []
    if not p["present"] < options.alpha:
        lacking.append(f"that is no more than the level of the test gives by chance (p {p['present']:.2g})")
    for side in ("forward", "return"):
        if np.isnan(p[side]):
            lacking.append(
                f"the {side} coupling could not be swapped: no stratum of subtype and data set is large enough"
            )
        elif not p[side] < options.alpha:
            lacking.append(f"the {side} coupling is not stronger than between swapped patients (p {p[side]:.2g})")
    if not lacking and not q < options.alpha:
        lacking.append(f"after adjustment for the axes asked, q is {q:.2g}")
    if lacking:
        return f"{seen}, but {'; '.join(lacking)}: no statement about a loop."
    return f"{seen}, and ligand and response belong together within patients (q {q:.2g}): consistent with a loop."


def summarise_loop(
    loops: dict[str, pd.DataFrame], records: dict[str, dict[str, Any]], options: Loop, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Combine arms per patient and over the cohort.

    Parameters
    ----------
    loops, records
        Patient -> ``loop_arms`` rows and ingest record of the sample that speaks for the patient.

    Returns
    -------
    Tables of the ``loop`` and ``loop_cohort`` contracts.
    """
    import pandas as pd
    from scipy.stats import binom

    patients = sorted(loops)
    tables = {p: (loops[p] if len(loops[p]) else unanswered("not_run", "the sample gave no table")) for p in patients}
    per_patient, cohort, evidence = [], [], []
    for axis in READOUTS:
        n_asked = 0
        found, factors = [], {"A": ([], []), "C": ([], [])}  # type: ignore[var-annotated]
        for patient in patients:
            rows = tables[patient]
            rows = rows[rows["axis"] == axis]
            if rows.empty:
                rows = unanswered("axis_missing", "the axis was not asked")
                rows = rows[rows["axis"] == axis]
            result = verdict(rows, options.alpha)
            found.append(result)
            n_asked += rows.loc[rows["arm"] == "A", "status"].iloc[0] in ASKED
            record = records[patient]
            per_patient.append(
                {
                    "patient": patient,
                    "sample": record["sample"],
                    "subtype": record.get("subtype") or None,
                    "axis": axis,
                    **result,
                }
            )
            for arm, (ligand, response) in factors.items():
                row = rows[rows["arm"] == arm].iloc[0]
                ligand.append(row["niche_ligand"])
                response.append(row["response"])
        strata = [stratum(records[p]) for p in patients]
        swap = {
            arm: coupling_swap(
                np.array(a), np.array(b), strata, min_stratum=options.min_stratum, n_swaps=options.n_swaps, seed=seed
            )
            for arm, (a, b) in factors.items()
        }
        n_assessable = sum(r["verdict"] != UNKNOWN for r in found)
        n_present = sum(r["verdict"] == PRESENT for r in found)
        # An arm's p holds for "tested and significant": whoever had the cells is a trial, tested or not.
        chance = float(binom.sf(n_present - 1, n_asked, options.alpha)) if n_assessable else np.nan
        p = {"present": chance, "forward": swap["A"].p, "return": swap["C"].p}
        evidence.append((n_assessable, n_asked, n_present, p))
        status = (
            "not_assessable"
            if not n_assessable
            else "ok"
            if n_assessable >= options.min_patients
            else "too_few_patients"
        )
        cohort.append({
            "axis": axis, "n_patients": len(patients), "n_assessable": n_assessable, "n_present": n_present,
            "status": status,
            "coupling_forward": swap["A"].value, "p_forward": swap["A"].p,
            "coupling_return": swap["C"].value, "p_return": swap["C"].p,
            "strata": f"forward: {swap['A'].strata}. return: {swap['C'].strata}",
        })  # fmt: skip
    claims = [
        max(p.values()) if n >= options.min_patients and not np.isnan(list(p.values())).any() else np.nan
        for n, _, _, p in evidence
    ]
    for line, (n, asked, k, p), q in zip(cohort, evidence, stats.bh(claims), strict=True):
        line["wording"] = wording(len(patients), n, asked, k, p, float(q), options)
    return pd.DataFrame(per_patient), pd.DataFrame(cohort)


def run_loop_cohort(
    loops: Sequence[str | Path],
    records: Sequence[str | Path],
    out_loop: str | Path,
    out_cohort: str | Path,
    *,
    options: Loop,
    seed: int,
) -> None:
    """Write the loop of every patient and what may be said of the cohort."""
    from nicheloop.tables import empty

    with io.stage_output(out_loop, "loop", stage="loop_cohort", also={"loop_cohort": out_cohort}) as result:
        read = {r["sample"]: r for r in (io.read_json(path) for path in records)}
        primary = ct.tumour_samples(list(read.values()), ct.assessable_cells(loops))
        tables = {io.read_status(path).sample: path for path in loops}
        chosen = {p: s for p, s in primary.items() if s in tables}
        other = ct.not_primary(list(read.values()), ct.assessable_cells(loops))
        result.summary = {"n_patients": len(chosen), NOT_PRIMARY: sorted(other)}
        left_out = {p: read[s] for p, s in other.items()}
        if not chosen:
            status = NOT_PRIMARY if other else "no_samples"
            result.table = _with_left_out(empty("loop"), left_out)
            raise NotAssessable(status, "no patient has a primary tumour sample" + ct.left_out_words(len(other)))
        result.table, result.extra["loop_cohort"] = summarise_loop(
            {p: io.read_table(tables[s]) for p, s in chosen.items()},
            {p: read[s] for p, s in chosen.items()},
            options,
            seed,
        )
        result.summary["verdicts"] = dict(Counter(result.table["verdict"]))
        result.table = _with_left_out(result.table, left_out)


def _with_left_out(table: pd.DataFrame, others: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Rows of the ``loop`` contract for patients without a primary tumour sample: shown, and part of no claim."""
    import pandas as pd

    rows = table.to_dict("records")
    for patient, record in others.items():
        said = {
            "patient": patient, "sample": record["sample"], "subtype": record.get("subtype") or None,
            "status": NOT_PRIMARY, "verdict": UNKNOWN,
            "reason": f"no primary tumour sample; this one is {record['tissue']}",
            **dict.fromkeys(("p_a", "p_b", "p_c", "p", "score"), np.nan),
        }  # fmt: skip
        rows += [said | {"axis": axis} for axis in READOUTS]
    return pd.DataFrame(rows, columns=list(table.columns))


# -------------------------------------------------------------------------------------------------------- circularity
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
    apart = {"CSC call", "ALDH call", "ligands", "receptors of the loop's axes", "receptors of other axes"}
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
