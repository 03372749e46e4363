"""The feedback loop over patients: verdicts, coupling swap, and what may be said of a cohort.  See docs/loop.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nicheloop import axes, io, stats
from nicheloop.errors import NotAssessable
from nicheloop.loop import COVARIATES, NFKB, READOUTS, RETURN, STAT3, readouts, unanswered

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config import Loop

Floats = NDArray[np.float64]

ASKED = ("tested", "ligand_not_detected", "receptor_not_detected", "ambient_not_exceeded")  # arm A had its cells
NOT_PRIMARY = "not_primary_tumour"
PRESENT, ABSENT, UNKNOWN = "all three arms present", "not present", "not assessable"


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
        primary = axes.tumour_samples(list(read.values()), axes.assessable_cells(loops))
        tables = {io.read_status(path).sample: path for path in loops}
        chosen = {p: s for p, s in primary.items() if s in tables}
        other = axes.not_primary(list(read.values()), axes.assessable_cells(loops))
        result.summary = {"n_patients": len(chosen), NOT_PRIMARY: sorted(other)}
        left_out = {p: read[s] for p, s in other.items()}
        if not chosen:
            status = NOT_PRIMARY if other else "no_samples"
            result.table = _with_left_out(empty("loop"), left_out)
            raise NotAssessable(status, "no patient has a primary tumour sample" + axes.left_out_words(len(other)))
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
