"""First chapter of the report: what came in, what was found, what could not be assessed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicheloop import figures
from nicheloop.figures import type_words
from nicheloop.report_data import Data, cohort_words, find_figure
from nicheloop.report_niche import towards_malignant
from nicheloop.report_page import (
    MAIN_AXES,
    Block,
    Linked,
    anchor_of,
    bullets,
    count,
    fraction,
    heading,
    interval,
    listed,
    text,
)
from nicheloop.report_text import short_words
from nicheloop.status import GOOD, summarise

if TYPE_CHECKING:
    import pandas as pd


PLACES = {
    "quality": "Quality",
    "annotation": "Annotation",
    "malignancy": "Malignancy",
    "csc": "Cancer stem cells (CD44/CD24 and ALDH1A3)",
    "macrophages": "Macrophages (M1/M2)",
    "crosstalk": "Crosstalk (IL6, CXCL8, PPBP)",
    "loop": "Loop",
    "cohort": "Cohort",
    "missing": "Not assessable",
}


class Sentences:
    """Sentences of the first screen, each with the chapter it comes from."""

    def __init__(self) -> None:
        self.entries: list[Linked] = []

    def say(self, place: str, sentence: str) -> None:
        """Add a sentence that leads to a chapter."""
        title = PLACES[place]
        self.entries.append(Linked(sentence, anchor_of(title), title.split(" (")[0]))


def warnings_of(d: Data) -> list[Linked]:
    """What is wrong, each with its place; empty where nothing is."""
    said = Sentences()
    failed = failed_samples(d)
    if failed:
        said.say(
            "missing",
            f"{len(failed)} of {count(len(d.samples), 'sample')} {'was' if len(failed) == 1 else 'were'} not finished "
            f"because a job failed: {listed(failed)}. What follows holds for the rest.",
        )
    unread = [s for s in d.samples if d.sheet_value(s, "status") == "unreadable" and s not in failed]
    if unread:
        said.say("missing", f"{count(len(unread), 'sample')} could not be read: {listed(unread)}.")
    facts = d.table("facts")
    hard = facts[(facts["result"] == "differ") & (facts["severity"] == "hard")]
    if len(hard):
        said.say(
            "quality", f"{count(len(hard), 'published fact')} of the hard kind "
            f"{'differs' if len(hard) == 1 else 'differ'} from "
            "what was read: the files may not be the data described.",
        )  # fmt: skip
    ambient = {s: find_figure(d.summary("ambient", s), "contamination") for s in d.samples}
    dirty = [s for s, v in ambient.items() if v > d.config.report.warn_ambient]
    if dirty:
        said.say(
            "quality",
            f"Much ambient RNA (above {fraction(d.config.report.warn_ambient)} of a cell's counts): {listed(dirty)}.",
        )
    calls = d.per_sample("malignancy", ["cell_id", "malignancy"])
    normal = calls[
        calls["sample"].isin([s for s in d.samples if d.is_normal(s)]) & (calls["malignancy"] != "not_epithelial")
    ]
    wrong = int((normal["malignancy"] == "malignant").sum())
    if wrong:
        said.say(
            "malignancy",
            f"{wrong} of {count(len(normal), 'epithelial cell')} of normal tissue were called malignant, "
            "which is an error.",
        )
    flagged = d.statuses[
        (d.statuses["stage"] == "malignancy") & d.statuses["status"].isin(("caf_flagged", "caf_called_malignant"))
    ]
    if len(flagged):
        said.say(
            "malignancy", f"More fibroblasts than allowed look malignant: {listed(sorted(set(flagged['sample'])))}."
        )
    controls = d.table("axis_controls")
    if len(controls):
        best = controls.groupby("control")["verdict"].apply(set)
        missed = sorted(str(c) for c, v in best.items() if "positive" not in v and "not positive" in v)
        if missed:
            said.say("crosstalk", f"Positive controls that were not found where their cells are: {listed(missed)}.")
    decoys = d.table("decoys")
    total = decoys[(decoys["patient"] == "cohort") & decoys["p_excess"].notna()]
    if len(total) and float(total["p_excess"].iloc[0]) < d.config.loop.alpha:
        said.say(
            "crosstalk", f"More made-up pairs than allowed are significant: {fraction(total['fraction'].iloc[0])}."
        )
    return said.entries


def summary_chapter(d: Data) -> list[Block]:
    """What came in, what was found, what could not be assessed."""
    n_samples = len(d.samples)
    patients = {d.sheet_value(s, "patient") or s for s in d.samples}
    readable = [s for s in d.samples if d.sheet_value(s, "status") == "ok"]
    normals = [s for s in d.samples if d.is_normal(s)]
    qc = d.per_sample("qc", ["cell_id", "qc_pass"])
    n_in, n_kept = len(qc), int(qc["qc_pass"].sum()) if len(qc) else 0
    types = d.table("cell_types")
    unresolved = int((types["cell_type"] == "unresolved").sum())
    calls = d.per_sample("malignancy", ["cell_id", "malignancy"])
    n_malignant = int((calls["malignancy"] == "malignant").sum())
    csc, tam = d.table("csc_patients"), d.table("tam_patients")
    tumours = d.tumours
    spoken = csc[csc["sample"].isin(tumours)]
    good = spoken[spoken["m_csc_fraction"].notna()]
    aldh = spoken[spoken["aldh1a3_fraction"].notna()]
    macro = tam[tam["sample"].isin(tumours)]
    macro_good = macro[macro["status"].isin(GOOD)]
    loop = d.table("loop")
    loop = loop[loop["sample"].isin(tumours)]

    blocks = [
        Block(
            "cards",
            entries=[
                (f"{len(readable)} of {n_samples}", "samples could be read"),
                (f"{n_kept:,}", f"cells kept of {n_in:,} barcodes"),
                (f"{n_malignant:,}", "malignant cells"),
                (f"{len(good)} of {len(tumours)}", "tumours with a CD44+/CD24- fraction"),
                (f"{len(macro_good)} of {len(tumours)}", "tumours with macrophages assessed"),
                _present(loop),
            ],
        )
    ]
    found = Sentences()
    unread = f" {count(n_samples - len(readable), 'sample')} could not be read." if len(readable) < n_samples else ""
    found.say(
        "quality",
        f"{count(n_samples, 'sample')} of {count(len(patients), 'patient')} came in"
        + (f", {len(normals)} of them normal tissue" if normals else "")
        + f".{unread} "
        + (
            f"Of {n_in:,} barcodes {n_kept:,} ({fraction(n_kept / n_in)}) passed quality control."
            if n_in
            else "No barcode was read."
        ),
    )
    if len(types):
        found.say(
            "annotation",
            f"{len(types) - unresolved:,} of {len(types):,} cells were given a type; {unresolved:,} "
            f"({fraction(unresolved / len(types))}) stay unresolved.",
        )
    with_malignant = [s for s in tumours if ((calls["sample"] == s) & (calls["malignancy"] == "malignant")).any()]
    found.say(
        "malignancy",
        f"In {len(with_malignant)} of {count(len(tumours), 'tumour')} malignant cells were called ({n_malignant:,} "
        "cells)" + (_normal_rate(calls, normals)) + ".",
    )
    if len(good):
        ordered = good.sort_values("m_csc_fraction", kind="stable")
        lowest, highest = ordered.iloc[0], ordered.iloc[-1]
        spread = (
            f"from {interval(lowest.m_csc_fraction, lowest.m_csc_low, lowest.m_csc_high)} in {lowest['sample']} to "
            f"{interval(highest.m_csc_fraction, highest.m_csc_low, highest.m_csc_high)} in {highest['sample']}"
        )
        if len(good) == 1:
            spread = f"{interval(lowest.m_csc_fraction, lowest.m_csc_low, lowest.m_csc_high)} in {lowest['sample']}"
        found.say(
            "csc",
            f"In {len(good)} of {count(len(tumours), 'tumour')} the CD44+/CD24- fraction of malignant cells could be "
            f"estimated: {spread} (95 % intervals).",
        )
    else:
        found.say(
            "csc",
            f"In none of {count(len(tumours), 'tumour')} could the CD44+/CD24- fraction of malignant cells be "
            "estimated.",
        )
    found.say(
        "csc",
        f"An ALDH1A3-high fraction (RNA, not enzyme activity) could be given in {len(aldh)} of "
        f"{count(len(tumours), 'tumour')}"
        + (f"; median {fraction(aldh['aldh1a3_fraction'].median())}." if len(aldh) else "."),
    )
    if len(macro_good):
        mixed = macro_good["fraction_mixed"].median()
        found.say(
            "macrophages",
            f"Macrophages could be assessed in {len(macro_good)} of {count(len(tumours), 'tumour')}; in the median "
            f"tumour {fraction(mixed)} of them are high on both axes, M1 and M2.",
        )
    else:
        found.say("macrophages", f"Macrophages could be assessed in none of {count(len(tumours), 'tumour')}.")
    for sentence in _crosstalk_sentences(d):
        found.say("crosstalk", sentence)
    cohort = d.table("loop_cohort")
    forward = cohort[cohort["axis"].isin(("IL6_classic", "IL6_trans", "IL6", "IL6_autocrine"))]
    for sentence in cohort_words(forward if len(forward) else cohort.head(2)):
        found.say("cohort", sentence)

    missing = Sentences()
    for sentence in failed_words(d):
        missing.say("missing", sentence)
    if len(readable) < n_samples:
        for sample in d.samples:
            if sample not in readable and sample not in failed_samples(d):
                why = d.sheet_value(sample, "reason") or d.sheet_value(sample, "status")
                missing.say("missing", f"{sample}: {why}.")
    for table, what in ((csc, "CD44+/CD24- and ALDH1A3-high fractions"), (tam, "Macrophages"), (loop, "Loop")):
        if not len(table):
            missing.say("missing", f"{what}: no tumour has a row; the stage was not run or had nothing to work with.")
    silent = [s for s in tumours if s not in with_malignant and s in readable]
    if silent:
        said = d.statuses[(d.statuses["stage"] == "malignancy") & d.statuses["sample"].isin(silent)]
        said = said.assign(status=said["status"].replace("ok", "epithelial_cells_called_normal"))
        missing.say(
            "malignancy",
            f"No malignant cell in {len(silent)} of {count(len(tumours), 'tumour')}: {_reasons(said, len(tumours))}.",
        )
    for rows, column, what in (
        (spoken[spoken["m_csc_fraction"].isna()], "status", "CD44+/CD24- fraction"),
        (spoken[spoken["aldh1a3_fraction"].isna()], "aldh1a3_status", "ALDH1A3-high fraction"),
        (macro[~macro["status"].isin(GOOD)], "status", "Macrophages"),
    ):
        if len(rows):
            missing.say(
                "macrophages" if what == "Macrophages" else "csc",
                f"{what}, {len(rows)} of {count(len(tumours), 'tumour')}: {_reasons(rows, len(tumours), column)}.",
            )
    for axis, rows in loop[~loop["status"].isin(GOOD)].groupby("axis"):
        if axis in MAIN_AXES[:4]:
            n_all = int((loop["axis"] == axis).sum())
            missing.say(
                "loop",
                f"Loop over {str(axis).replace('_', ' ')}, {len(rows)} of {count(n_all, 'tumour')}: "
                f"{_reasons(rows, n_all)}.",
            )
    axes = d.table("axes")
    for axis in ("IL6_classic", "CXCL8", "PPBP"):
        rows = axes[axes["axis"] == axis]
        if len(rows) and (rows["n_assessable"] == 0).all():
            missing.say(
                "crosstalk",
                towards_malignant(d, axis)
                or f"{axis.replace('_', ' ')}: no pair of types can be tested; the commonest obstacle is "
                f"'{short_words(summarise(list(rows['status']))[0])}'.",
            )
        elif axis != "IL6_classic" and (said := towards_malignant(d, axis)):
            missing.say("crosstalk", said)
    wrong = warnings_of(d)
    if wrong:
        blocks.insert(0, Block("warnings", title="Something is wrong", entries=list(wrong)))
    blocks += [
        heading("What came in and what was found"),
        bullets(found.entries),
        heading("What could not be assessed, and why"),
    ]
    blocks.append(bullets(missing.entries) if missing.entries else text("Everything that was asked could be assessed."))
    blocks.append(
        text(
            "'NA' means not assessable, never zero. Each reason is put in plain words in the chapter 'Not assessable'."
        )
    )
    return blocks


def failed_samples(d: Data) -> dict[str, tuple[str, str]]:
    """Samples of which a job failed: the first failed stage and its reason (`nicheloop.recover`)."""
    rows = d.statuses[(d.statuses["status"] == "failed") & d.statuses["sample"].isin(d.samples)]
    found = {str(r.sample): (str(r.stage), str(r.reason or "")) for r in figures.records(rows[::-1])}
    return {s: found[s] for s in d.samples if s in found}


def failed_words(d: Data) -> list[str]:
    """A sentence for every sample of which a job failed: the program stopped there, the data say nothing."""
    return [
        f"{s}: the stage {stage} failed ({reason.rstrip('.') or 'no reason was recorded'}). This is no finding about "
        "the sample; the same command tries it again."
        for s, (stage, reason) in failed_samples(d).items()
    ]


def _reasons(rows: pd.DataFrame, n: int, column: str = "status") -> str:
    """``too few malignant cells (T4); ...``, grouped by status; samples are not named where they are all `n`."""
    parts = []
    for status, group in sorted(rows.groupby(column)):
        who = f" ({listed(group['sample'])})" if len(group) < n or n == 1 else ""
        parts.append(f"{short_words(str(status))}{who}")
    return "; ".join(parts)


def _present(loop: pd.DataFrame) -> tuple[str, str]:
    """Figure and words: ``2 of 4`` tumours with all three arms over any IL6 axis."""
    rows = loop[loop["axis"].str.startswith("IL6")] if len(loop) else loop
    can = rows[rows["verdict"] != "not assessable"]
    present = can[can["verdict"] == "all three arms present"]
    if not len(can):
        return "none", "tumours in which all three arms of the IL6 loop can be assessed"
    words = "tumours with all three arms of the IL6 loop, of those assessable"
    return f"{present['patient'].nunique()} of {can['patient'].nunique()}", words


def _normal_rate(calls: pd.DataFrame, normals: list[str]) -> str:
    rows = calls[calls["sample"].isin(normals) & (calls["malignancy"] != "not_epithelial")]
    if not len(rows):
        return ""
    n = int((rows["malignancy"] == "malignant").sum())
    share = f"{n} ({fraction(n / len(rows))}) were called malignant"
    return f"; of {count(len(rows), 'epithelial cell')} of normal tissue {share}" + (", which is an error" if n else "")


def _crosstalk_sentences(d: Data) -> list[str]:
    axes = d.table("axes")
    out = []
    for axis in ("IL6_classic", "IL6_trans", "CXCL8", "PPBP"):
        rows = axes[axes["axis"] == axis]
        if not len(rows):
            continue
        best = rows.iloc[int(rows["n_assessable"].to_numpy().argmax())]
        name = axis.replace("_", " ")
        if best["n_assessable"] > 0:
            out.append(
                f"{name} could be tested in {best['n_assessable']:.0f} of {count(best['n_patients'], 'tumour')} for "
                f"its most measurable pair ({type_words(str(best['sender']))} to "
                f"{type_words(str(best['receiver']))}), significant in {best['n_significant']:.0f}."
            )
        else:
            out.append(f"{name} could be tested in no tumour; why is said below.")
    return out
