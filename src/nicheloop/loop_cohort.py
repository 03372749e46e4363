"""The feedback loop over patients: verdicts, coupling swap, and what may be said of a cohort.  See docs/loop.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import axes, chain, io, patients, stability, stats
from nicheloop.circularity import circularity
from nicheloop.coupling import Coupling, coupling_swap, from_rna, stratum
from nicheloop.errors import NotAssessable
from nicheloop.loop import AUTOCRINE, READOUTS, unanswered

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_niche import Loop

__all__ = [
    "Coupling", "circularity", "coupling_swap", "run_loop_cohort", "stratum", "summarise_loop", "verdict", "wording",
]  # fmt: skip

ASKED = ("tested", "ligand_not_detected", "receptor_not_detected", "ambient_not_exceeded")  # arm A had its cells
NOT_PRIMARY = "not_primary_tumour"
# label -> the row that is arm B; BH over axes within a label (CD44+/CD24- is the primary claim)
RESPONSES = {"m_csc": "B", "aldh1a3": "B_aldh1a3"}
# factor of the coupling swaps -> arm and column
FACTORS = {
    "stress": ("A", "stress_level"), "ambient": ("A", "ambient_rate"),
    "niche": ("A", "niche_ligand"), "malignant": ("A", "response"), "csc_high": ("A", "response_high"),
    "aldh1a3_high": ("A", "response_aldh1a3"), "sent_back": ("C", "niche_ligand"), "niche_response": ("C", "response"),
}  # fmt: skip
SWAPS = {
    "forward": ("niche", "malignant"), "forward_high": ("niche", "csc_high"),
    "forward_aldh1a3": ("niche", "aldh1a3_high"), "return": ("sent_back", "niche_response"),
}  # fmt: skip
PRESENT, ABSENT, UNKNOWN = "all three arms present", "not present", "not assessable"
SAME_CELLS = " Ligand and response are read in the same malignant cells: any state of theirs can couple the two."
MEANING = (
    "a property of the cell types, since unrelated secreted x membrane pairs often pass arms A and C as well "
    "(cohort/decoys.tsv): only the cohort's coupling bears on a loop"
)


def verdict(rows: pd.DataFrame, alpha: float, response: str = "B") -> dict[str, Any]:
    """Combine the three arms of one patient and axis: intersection-union, or the arms that prevented an answer.

    Parameters
    ----------
    rows
        ``loop_arms`` rows of one axis.
    alpha
        Level.
    response
        The row that is arm B: ``B`` (CD44+/CD24-) or ``B_aldh1a3``.
    """
    return _combine({str(r["arm"]): r for r in rows.to_dict("records")}, alpha, response)


def _combine(found: dict[str, dict[str, Any]], alpha: float, response: str) -> dict[str, Any]:
    """`verdict` of the rows of one axis by arm."""
    by_arm = {"A": found["A"], "B": found[response], "C": found["C"]}
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
        "reason": f"the weakest arm is {weakest} (p {worst:.3g})" + (f"; {MEANING}" if worst <= alpha else ""),
        **p, "p": worst,
        "score": min(float(by_arm[a]["z"]) for a in "ABC"),
    }  # fmt: skip


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
        ``return`` (coupling swaps), and ``forward_high`` (to CSC-high cells) where it was asked; NaN where not done.
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
    names = {"forward": "forward", "forward_high": "forward (to CSC-high cells)", "return": "return"}
    if not p["present"] < options.alpha:
        lacking.append(f"that is no more than the level of the test gives by chance (p {p['present']:.2g})")
    for side in (s for s in names if s in p):
        if np.isnan(p[side]):
            lacking.append(
                f"the {names[side]} coupling could not be swapped in {options.min_patients} patients: too few have "
                "both factors in a stratum of subtype and data set that is large enough"
            )
        elif not p[side] < options.alpha:
            lacking.append(
                f"the {names[side]} coupling is not stronger than between swapped patients (p {p[side]:.2g})"
            )
    if not lacking and not q < options.alpha:
        lacking.append(f"after adjustment for the axes asked, q is {q:.2g}")
    if lacking:
        return f"{seen}, but {'; '.join(lacking)}: no statement about a loop."
    return f"{seen}, and ligand and response belong together within patients (q {q:.2g}): consistent with a loop."


def summarise_loop(
    loops: dict[str, pd.DataFrame], records: dict[str, dict[str, Any]], options: Loop, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Combine arms per patient and over the cohort, for both labels of the response arm.

    Parameters
    ----------
    loops, records
        Patient -> ``loop_arms`` rows and ingest record of the sample that speaks for the patient.

    Returns
    -------
    Tables of the ``loop`` and ``loop_cohort`` contracts.
    """
    import pandas as pd

    names = sorted(loops)
    # one pass over every table: patient -> axis -> arm -> row
    missing = _by_axis(unanswered("axis_missing", "the axis was not asked"))
    not_run = _by_axis(unanswered("not_run", "the sample gave no table"))
    tables = {p: missing | (_by_axis(loops[p]) if len(loops[p]) else not_run) for p in names}
    strata = [stratum(records[p]) for p in names]
    inferred = from_rna(records[p] for p in names)
    per_patient, cohort = [], []
    claims: dict[str, list[tuple[int, int, int, dict[str, float]]]] = {label: [] for label in RESPONSES}
    for axis in READOUTS:
        found: dict[str, list[dict[str, Any]]] = {label: [] for label in RESPONSES}
        factors: dict[str, list[float]] = {name: [] for name in FACTORS}
        n_asked = 0
        for patient in names:
            by_arm = tables[patient][axis]
            n_asked += by_arm["A"]["status"] in ASKED
            for name, (arm, column) in FACTORS.items():
                factors[name].append(by_arm[arm].get(column, np.nan))
            for label, arm in RESPONSES.items():
                found[label].append(_combine(by_arm, options.alpha, arm) if arm in by_arm else _not_asked(arm))
            first, second = found["m_csc"][-1], found["aldh1a3"][-1]
            record = records[patient]
            per_patient.append({
                "patient": patient, "sample": record["sample"], "subtype": record.get("subtype") or None,
                "subtype_source": record.get("subtype_source"), "axis": axis,
                **first, "p_b_aldh1a3": second["p_b"], "p_aldh1a3": second["p"],
                **{f"aldh1a3_{k}": second[k] for k in ("status", "verdict", "reason", "score")},
            })  # fmt: skip
        swap = {
            name: coupling_swap(
                np.array(factors[ligand]), np.array(factors[response]), strata,
                min_stratum=options.min_stratum, n_swaps=options.n_swaps, seed=seed,
                covariates=np.column_stack([factors["stress"], factors["ambient"]]),
            )
            for name, (ligand, response) in SWAPS.items()
        }  # fmt: skip
        line: dict[str, Any] = {
            "axis": axis, "n_patients": len(names), "n_asked": n_asked,
            "strata": f"forward: {swap['forward'].strata}. return: {swap['return'].strata}{inferred}",
        }  # fmt: skip
        for name, one in swap.items():
            line |= {
                f"coupling_{name}": one.value, f"p_{name}": one.p, f"p_{name}_adjusted": one.p_adjusted,
                f"n_swapped_{name}": one.n,
                **{f"null_{name}_{end}": v for end, v in zip(("low", "median", "high"), one.null, strict=True)},
            }  # fmt: skip
        for label in RESPONSES:
            prefix = "" if label == "m_csc" else f"{label}_"
            summary, p = _claim(found[label], n_asked, options)
            # the swap to CSC-high cells is asked where their level was measured at all
            high = "forward_high" if label == "m_csc" else "forward_aldh1a3"
            needed = {"forward": swap["forward"], "return": swap["return"]}
            if swap[high].n or np.isfinite(np.array(factors[SWAPS[high][1]], dtype=float)).any():
                needed["forward_high"] = swap[high]
            # the larger of both; too few swapped patients carry no claim
            p |= {
                k: np.maximum(c.p, c.p_adjusted) if c.n >= options.min_patients else np.nan for k, c in needed.items()
            }
            claims[label].append((summary["n_assessable"], n_asked, summary["n_present"], p))
            line |= {f"{prefix}{k}": v for k, v in summary.items()}
        rho = stability.detectable_rho(line["n_assessable"], options.alpha)
        line |= {"detectable_rho": rho}
        cohort.append(line)
    for label, rows_of in claims.items():
        prefix = "" if label == "m_csc" else f"{label}_"
        largest = [
            max(p.values()) if n >= options.min_patients and not np.isnan(list(p.values())).any() else np.nan
            for n, _, _, p in rows_of
        ]
        for line, (n, asked, k, p), q in zip(cohort, rows_of, stats.bh(largest), strict=True):
            line[f"{prefix}q"] = float(q)
            said = wording(len(names), n, asked, k, p, float(q), options)
            line[f"{prefix}wording"] = said + (
                SAME_CELLS if line["axis"] in AUTOCRINE and n >= options.min_patients else ""
            )
    return pd.DataFrame(per_patient), pd.DataFrame(cohort)


def _by_axis(rows: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """``loop_arms`` rows by axis and arm."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows.to_dict("records"):
        out.setdefault(str(row["axis"]), {})[str(row["arm"])] = {str(k): v for k, v in row.items()}
    return out


def _not_asked(arm: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("p_a", "p_b", "p_c", "p", "score"), np.nan)
    return {"status": "not_asked", "verdict": UNKNOWN, "reason": f"arm {arm} was not asked", **nothing}


def _claim(found: Sequence[dict[str, Any]], n_asked: int, options: Loop) -> tuple[dict[str, Any], dict[str, float]]:
    """Patients with an answer and with all three arms, and the p of so many (an arm's p: tested and significant)."""
    from scipy.stats import binom

    n = sum(r["verdict"] != UNKNOWN for r in found)
    k = sum(r["verdict"] == PRESENT for r in found)
    # whoever had the cells is a trial, tested or not
    chance = float(binom.sf(k - 1, n_asked, options.alpha)) if n else np.nan
    low, high = stats.wilson(k, n, options.confidence)
    status = "not_assessable" if not n else "ok" if n >= options.min_patients else "too_few_patients"
    summary = {
        "n_assessable": n, "n_present": k, "status": status, "present_low": low, "present_high": high,
        "p_present": chance,
    }  # fmt: skip
    return summary, {"present": chance}


def run_loop_cohort(
    loops: Sequence[str | Path],
    records: Sequence[str | Path],
    out_loop: str | Path,
    out_cohort: str | Path,
    *,
    options: Loop,
    seed: int,
    scores: Sequence[str | Path] | None = None,
    chains: Sequence[str | Path] | None = None,
    out_chains: str | Path | None = None,
    receptors: str | Path | None = None,
) -> None:
    """Write the loop of every patient and what may be said of the cohort, and with `chains` the serial niche chain.

    `scores` decide which sample speaks for a patient (`patients.assessable_cells`).
    """
    from nicheloop.tables import empty

    also = {"loop_cohort": out_cohort} | ({} if out_chains is None else {"chains": out_chains})
    with io.stage_output(out_loop, "loop", stage="loop_cohort", also=also) as result:
        known = patients.with_subtypes([io.read_json(path) for path in records], receptors)
        read = {r["sample"]: r for r in known}
        cells = patients.assessable_cells(scores) if scores else axes.assessable_cells(loops)
        primary = axes.tumour_samples(list(read.values()), cells)
        tables = {io.read_status(path).sample: path for path in loops}
        chosen = {p: s for p, s in primary.items() if s in tables}
        other = axes.not_primary(list(read.values()), cells)
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
        if chains:
            levels = {io.read_status(path).sample: path for path in chains}
            result.extra["chains"] = chain.summarise_chain(
                {p: io.read_table(levels[s]) for p, s in chosen.items() if s in levels},
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
            "subtype_source": record.get("subtype_source"), "status": NOT_PRIMARY, "verdict": UNKNOWN,
            "reason": f"no primary tumour sample; this one is {record['tissue']}",
            **dict.fromkeys(("p_a", "p_b", "p_c", "p", "score", "p_b_aldh1a3", "p_aldh1a3", "aldh1a3_score"), np.nan),
        }  # fmt: skip
        said |= {f"aldh1a3_{k}": said[k] for k in ("status", "verdict", "reason")}
        rows += [said | {"axis": axis} for axis in READOUTS]
    return pd.DataFrame(rows, columns=list(table.columns))
