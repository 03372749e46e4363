"""The feedback loop in one sample: forward arm, response, return arm.  See docs/loop.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import decoys, io, mixtures
from nicheloop import ligand_receptor as lr
from nicheloop.arms import Floats, bootstrap_strengths, describe, level, log_ligand, strongest_arm
from nicheloop.crosstalk import load
from nicheloop.detection import Detection, furthest, wanted_genes
from nicheloop.errors import NotAssessable
from nicheloop.response import (
    COVARIATES,
    HALVES,
    LABELS,
    NFKB,
    STAT3,
    Contrast,
    response_arm,
    strata_of,
    stratified_difference,
)
from nicheloop.roles import roles

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_niche import Crosstalk, Loop
    from nicheloop.config_states import Scoring

__all__ = [
    "ARMS",
    "COVARIATES",
    "LABELS",
    "NFKB",
    "READOUTS",
    "RETURN",
    "RETURN_READOUT",
    "STAT3",
    "Contrast",
    "bootstrap_strengths",
    "forward_pairs",
    "level",
    "loop_arms",
    "readouts",
    "response_arm",
    "run_loop",
    "score_readouts",
    "spared_genes",
    "strata_of",
    "stratified_difference",
    "strongest_arm",
    "unanswered",
]

# axis -> leave-out read-out of its receptor in malignant cells; None: RNA has no read-out that is not circular
READOUTS: dict[str, str | None] = {
    "IL6_classic": STAT3,
    "IL6_trans": STAT3,
    "IL6_autocrine": STAT3,
    "OSM": STAT3,
    "LIF": STAT3,
    "IL1B": NFKB,
    "TNF": NFKB,
    "TGFB1": None,  # the response is EMT, which the CSC state is defined by
    "CCL18": NFKB,
    "CXCL8": None,
    "PPBP": None,
}
AUTOCRINE = ("IL6_autocrine",)  # malignant cells are the senders: no niche takes part in the forward arm
LIGAND_ONLY = {
    "CXCL8": "CXCR1 and CXCR2 of malignant cells cannot be measured reliably in droplet RNA: ligand side only"
}
GUARD_ONLY = {"PPBP": "CXCL7 is cut from PPBP protein that platelets store: RNA does not measure it, guard only"}
# return arm: axis -> receivers; macrophages lose CCR2, so its receptor is looked for on monocytes
RETURN = {
    "CCL2": ("monocyte",),
    "CSF1": ("macrophage",),
    "CSF2": ("macrophage", "monocyte"),
    "CXCL1_2_3_5_6": (
        "neutrophil",
        "myeloid",
    ),  # CXCR2 is on neutrophils, which droplet data lose: usually not measurable
}
RESPONDING = ("macrophage", "monocyte")  # the receivers whose response is read
RETURN_READOUT = "M2"  # the clean set shares no gene with any ligand or receptor
ARMS = ("A", "B", "C", "B_aldh1a3")  # the response arm by each label; A and C do not depend on it
FIELDS = (
    "effect", "effect_low", "effect_high", "z", "p", "p_label", "p_pair", "p_decoy", "effect_stress", "effect_ifn",
    "effect_adjusted", "p_raw", "p_stress", "p_ifn", "p_adjusted", "niche_ligand", "response", "response_high",
    "response_aldh1a3", "stress_level", "ambient_rate",
    "effect_beyond_stress", "p_beyond_stress", "p_stress_differs",
)  # fmt: skip


def readouts() -> dict[str, tuple[str, ...]]:
    """Genes of the read-outs as they are used: those that STAT3 and NF-kB sets share are in neither.

    With them a response to IL6 alone would count as one to TNF and IL1B as well.
    """
    from nicheloop import genes

    sets = genes.signatures()
    shared = set(sets[STAT3].genes) & set(sets[NFKB].genes)
    out = {name: tuple(g for g in sets[name].genes if g not in shared) for name in (STAT3, NFKB)}
    return out | {RETURN_READOUT: tuple(sets[RETURN_READOUT].genes)}


def stress_genes() -> tuple[str, ...]:
    """Genes of dissociation stress that are in no read-out, no label and no pair of the loop."""
    from nicheloop import genes

    axes = {g for p in lr.pairs_of_axes(genes.axes()) for g in p.genes}
    taken = axes | {g for members in readouts().values() for g in members}
    return tuple(g for g in genes.signatures()["STRESS"].genes if g not in taken)


def spared_genes() -> frozenset[str]:
    """Genes by which no malignant cell is left out of arm B: read-outs, covariates and those of the labels."""
    from nicheloop import genes

    sets = genes.signatures()
    asked = [*readouts().values(), *(sets[c].genes for c in COVARIATES), *(split.genes for split in LABELS.values())]
    return frozenset(g for members in asked for g in members)


# -------------------------------------------------------------------------------------------- forward and return arms
def forward_pairs(axes: Sequence[Any]) -> dict[str, list[lr.Pair]]:
    """Axis of `READOUTS` -> pairs from the niche to malignant cells; of `AUTOCRINE`, from malignant cells.

    Pairs with a gene that defines a CSC label (CD44 of the SPP1, MIF and hyaluronan axes) are left out: the label would
    be tested against itself.
    """
    defining = frozenset().union(*(label.genes for label in LABELS.values()))
    by_id = {axis.id: axis for axis in axes}
    return {
        name: [
            p
            for p in lr.pairs_of_axes([by_id[name]])
            if p.receiver == "malignant"
            and (name in AUTOCRINE or p.sender not in mixtures.NOT_NICHE)
            and not defining & set(p.genes)
        ]
        for name in READOUTS
        if name in by_id
    }


def loop_arms(
    sample: lr.Sample, cells: pd.DataFrame, axes: Sequence[Any], options: Loop, crosstalk: Crosstalk, seed: int,
    notes: dict[str, str] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Measure the arms of every axis of `READOUTS` in one sample.

    Candidates of an arm are all its pairs with enough cells and counts; those measurable as observed are tested.

    Parameters
    ----------
    sample, cells
        Counts and populations; the same cells with the columns of `LABELS`, clone, n_counts and z_<set>, in the same
        order.
    axes
        Axes as from ``genes.axes()``.

    Returns
    -------
    One row per axis and arm of `ARMS` as in the ``loop_arms`` contract.  An arm that cannot be measured is NA with a
    status, never 0.
    """
    from nicheloop import scoring

    notes = notes or {}
    members = scoring.resolve_sets(readouts(), [str(g) for g in sample.genes])
    strict = crosstalk.model_copy(update={"min_cells": options.min_senders})
    by_id = {axis.id: axis for axis in axes}
    forward = forward_pairs(axes)
    back = [
        p
        for name, receivers in RETURN.items()
        for p in lr.pairs_of_axes([by_id[name]] if name in by_id else [])
        if p.sender == "malignant" and p.receiver in receivers
    ]
    reserved = {g for p in lr.pairs_of_axes(axes) for g in p.genes}
    asked = [p for pairs in forward.values() for p in pairs] + back
    seen = Detection.of(sample, wanted_genes(asked))
    malignant = sample.masks[:, sample.names.index("malignant")]
    n_malignant = int(malignant.sum())

    def obstacle(pair: lr.Pair) -> tuple[str, str] | None:
        if n_malignant < options.min_malignant:
            note = f" ({notes['malignant']})" if "malignant" in notes and not n_malignant else ""
            return "too_few_cells", f"{n_malignant} malignant cells{note}; {options.min_malignant} are needed"
        return seen.obstacle(pair, strict, notes)

    obstacles = {p: obstacle(p) for p in asked}
    candidates = [
        p
        for p in dict.fromkeys(asked)
        if p.axis not in LIGAND_ONLY | GUARD_ONLY and (obstacles[p] is None or seen.candidate(p, strict))
    ]
    measurable = np.array([obstacles[p] is None for p in candidates], dtype=bool)
    tested = lr.test_pairs(sample, candidates, reserved, crosstalk, seed) if measurable.any() else None
    pools = decoys.Pools.of(sample, roles(), reserved) if measurable.any() else None

    def arm(pairs: Sequence[lr.Pair]) -> dict[str, Any]:
        mine = [i for i, p in enumerate(candidates) if p in set(pairs)]
        if tested is None or not measurable[mine].any():
            if not pairs:
                return {"what": "-", "status": "no_pair", "reason": "the axis has no sender"}
            met = {p: o for p in pairs if (o := obstacles[p]) is not None}
            status = furthest(o[0] for o in met.values())
            nearest, why = next((p, o[1]) for p, o in met.items() if o[0] == status)
            said = describe(nearest)
            return {"what": said, "status": status, "reason": f"{said}: {why}"}
        found = strongest_arm(
            sample,
            [candidates[i] for i in mine],
            tested.part(mine),
            measurable[mine],
            n_bootstrap=options.n_bootstrap,
            confidence=options.confidence,
            seed=seed,
        )
        best = max((i for i in mine if measurable[i]), key=lambda i: (tested.strength[i], -i))
        if pools is not None:  # shown beside p, not part of it: see docs/loop.md
            (against,), (compared,) = decoys.decoy_p(pools, [candidates[best]], crosstalk, seed)
            found["p_decoy"] = float(against)
            if np.isfinite(against):
                found["reason"] += f", {against:.3g} against decoys" + (f" ({compared})" if compared else "")
        return {"status": "tested", **found}

    returning = arm(back)
    enough = n_malignant >= options.min_malignant
    # the response is read in macrophages and monocytes: ligands of other receivers are not paired with it
    answered = [p for p in back if p.receiver in RESPONDING]
    returning["niche_ligand"] = log_ligand(sample, seen, answered, strict, notes) if enough else np.nan
    niche = np.any(sample.masks[:, [sample.names.index(n) for n in RESPONDING]], axis=1)
    niche = np.asarray(niche, dtype=bool)
    genes_needed = {"min_genes": options.min_readout_genes}
    returning["response"] = level(sample, members[RETURN_READOUT], niche, min_cells=options.min_senders, **genes_needed)
    patient_wide = {
        "stress_level": level(
            sample,
            stress_genes(),
            sample.totals > 0,
            min_cells=options.min_malignant,
            min_genes=options.min_readout_genes,
        ),
        "ambient_rate": float(sample.rate),
    }
    returning |= patient_wide
    levels = {
        name: level(sample, members[name], malignant, min_cells=options.min_malignant, **genes_needed)
        for name in (STAT3, NFKB)
    }
    high = {}
    for label, split in LABELS.items():
        state = cells[split.column].astype(object).fillna("") if split.column in cells else None
        high[label] = malignant & (
            np.zeros(len(cells), dtype=bool) if state is None else (state == split.high).to_numpy()
        )
    levels_high = {
        (label, name): level(sample, members[name], mask, min_cells=options.min_csc, **genes_needed)
        for label, mask in high.items()
        for name in (STAT3, NFKB)
    }
    tumour = cells.assign(mixed=mixtures.mixed_cells(sample, spared_genes(), options))[malignant]
    responses: dict[tuple[str, str | None], dict[str, Any]] = {}
    rows = []
    for name, pairs in forward.items():
        readout = READOUTS[name]
        if name in GUARD_ONLY:
            said = {"status": "not_measurable", "reason": _guard(seen, name)}
            rows += [{"axis": name, "arm": a, "what": "-", **said} for a in ARMS]
            continue
        if name in LIGAND_ONLY:
            a: dict[str, Any] = {
                "what": describe(pairs[0]),
                "status": "not_measurable",
                "reason": LIGAND_ONLY[name] + _bounds(seen, pairs, crosstalk),
            }
        else:
            a = arm(pairs)
        a |= patient_wide
        a["niche_ligand"] = log_ligand(sample, seen, pairs, strict, notes)
        a["response"] = levels[readout] if readout else np.nan
        a["response_high"] = levels_high["m_csc", readout] if readout else np.nan
        a["response_aldh1a3"] = levels_high["aldh1a3", readout] if readout else np.nan
        for label in LABELS:
            if (label, readout) not in responses:
                found = response_arm(tumour, readout, options, crosstalk.n_permutations, seed, label)
                responses[label, readout] = found
        rows += [
            {"axis": name, "arm": "A", **a},
            {"axis": name, "arm": "B", **responses["m_csc", readout]},
            {"axis": name, "arm": "C", **returning},
            {"axis": name, "arm": "B_aldh1a3", **responses["aldh1a3", readout]},
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
        [{"axis": n, "arm": a, "what": "-", "status": status, "reason": reason} for n in READOUTS for a in ARMS]
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
    out_chain: str | Path | None = None,
) -> None:
    """Write the arms of every axis for one sample, and with `out_chain` the levels of the serial niche chain.

    `scoring` holds the options by which the read-outs of arm B are scored (see `readouts`); the defaults without it.
    """
    from nicheloop import chain, genes

    name = io.Counts(counts).sample
    also = {} if out_chain is None else {"chain": out_chain}
    with io.stage_output(out, "loop_arms", stage="loop", sample=name, also=also) as result:
        try:
            reader, cells, sample, notes = load(counts, cell_types, malignancy, csc, tam, ambient)
            reader.require(counts=True)
        except NotAssessable as err:
            result.table = unanswered(err.status, err.reason)
            result.extra["chain"] = chain.unmeasured(err.status, err.reason)
            raise
        result.extra["chain"] = chain.measure_chain(sample, crosstalk)
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
    """``z_<read-out>`` of `readouts` and `HALVES` of stress for malignant cells, by them alone; NaN for other cells."""
    from nicheloop import config_states, scoring

    options = options or config_states.Scoring()
    malignant = sample.masks[:, sample.names.index("malignant")]
    sets = {name: members for name, members in readouts().items() if name != RETURN_READOUT}
    symbols, x = [str(g) for g in sample.genes], io.lognormalise(sample.x[malignant].tocsr())
    z = scoring.score_sets(
        x, symbols, sets,
        n_bins=options.n_bins, min_genes=options.min_genes, min_cells=options.min_cells,
    )  # fmt: skip
    out = {f"z_{name}": np.full(len(malignant), np.nan) for name in sets}
    for name in sets:
        out[f"z_{name}"][malignant] = z[name].to_numpy()
    # plain means of disjoint halves: a score against matched genes would bind one half to the other
    place = {g: i for i, g in enumerate(symbols)}
    known = [place[g] for g in sorted(stress_genes()) if g in place]
    for half, column in enumerate(HALVES):
        out[column] = np.full(len(malignant), np.nan)
        mine = known[half::2]
        if len(mine) >= options.min_genes and malignant.any():
            out[column][malignant] = np.asarray(x[:, mine].mean(axis=1)).ravel()
    return out
