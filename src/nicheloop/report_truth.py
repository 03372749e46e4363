"""Chapter of the report on the demo cohort: what was planted beside what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nicheloop import figures, figures_niche
from nicheloop.figures import type_words
from nicheloop.report_data import Data
from nicheloop.report_page import Block, Page, columns, count, fraction, note, number

if TYPE_CHECKING:
    import pandas as pd


def macro_f1(truth: Sequence[str], found: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Mean F1 over the types of the truth, and F1 of each; a type never found has F1 0."""
    truth_, found_ = np.asarray(truth, dtype=object), np.asarray(found, dtype=object)
    scores = {}
    for name in sorted(set(truth_)):
        hit = float(((truth_ == name) & (found_ == name)).sum())
        scores[name] = 2 * hit / float((truth_ == name).sum() + (found_ == name).sum())
    return (float(np.mean(list(scores.values()))) if scores else float("nan")), scores


def balanced_accuracy(truth: np.ndarray, found: np.ndarray) -> float:
    """Mean of sensitivity and specificity of two boolean arrays; NaN if the truth has one class only."""
    if truth.all() or not truth.any():
        return float("nan")
    return float((found[truth].mean() + (~found[~truth]).mean()) / 2)


def _truth_flag(values: pd.Series, yes: Sequence[str]) -> np.ndarray:
    return values.astype(str).str.lower().isin([*yes, "true", "1", "1.0", "yes"]).to_numpy()


def truth_chapter(d: Data, page: Page) -> list[Block]:
    """The demo cohort's planted truth beside what was found."""
    import pandas as pd

    cells = pd.read_csv(d.results / "demo" / "truth_cells.tsv.gz", sep="\t", na_values=["NA"], keep_default_na=False)
    path = d.results / "demo" / "truth_samples.tsv"
    planted = (
        pd.read_csv(path, sep="\t", na_values=["NA"], keep_default_na=False)
        if path.exists()
        else pd.DataFrame({"sample": []})
    )
    cells["sample"] = cells["cell_id"].str.rsplit(":", n=1).str[0] if "sample" not in cells else cells["sample"]
    blocks = [
        note(
            "The demo cohort is simulated, and what was planted is known. These figures say how well the pipeline "
            "finds it; they say nothing about biology."
        )
    ]
    doublet = _truth_flag(cells["doublet"], ["doublet"]) if "doublet" in cells else np.zeros(len(cells), dtype=bool)
    cells["is_doublet"] = doublet
    both = d.cells.merge(cells, on="cell_id", suffixes=("", "_truth"))
    single = both[~both["is_doublet"]]
    facts = []
    if len(single) and "cell_type_truth" in single:
        score, per_type = macro_f1(
            single["cell_type_truth"].astype(str).tolist(), single["cell_type"].astype(str).tolist()
        )
        facts.append(
            {
                "question": "Cell types",
                "figure": "macro F1 over planted types",
                "value": number(score, 4),
                "n": f"{len(single):,} kept singlets",
            }
        )
        cross = (
            pd.crosstab(single["cell_type_truth"], single["cell_type"])
            .reset_index()
            .rename(columns={"cell_type_truth": "planted"})
        )
        cross["F1"] = [per_type.get(str(t), float("nan")) for t in cross["planted"]]
    else:
        cross = pd.DataFrame()
    if "malignant" in single and len(single):
        epithelial = single[single["malignancy"].isin(["malignant", "normal", "unassigned"])]
        truth = _truth_flag(epithelial["malignant"], ["malignant"])
        called = epithelial["malignancy"].isin(["malignant", "normal"]).to_numpy()
        found = (epithelial["malignancy"] == "malignant").to_numpy()
        facts.append(
            {
                "question": "Malignant cells",
                "figure": "balanced accuracy, malignant or normal called",
                "value": number(balanced_accuracy(truth[called], found[called])),
                "n": f"{int(called.sum()):,} of {len(epithelial):,} epithelial cells called",
            }
        )
        facts.append(
            {
                "question": "Malignant cells",
                "figure": "balanced accuracy, unassigned counted as not malignant",
                "value": number(balanced_accuracy(truth, found)),
                "n": f"{len(epithelial):,} epithelial cells",
            }
        )
    qc = d.per_sample("qc", ["cell_id", "doublet"]).merge(cells[["cell_id", "is_doublet"]], on="cell_id")
    qc = qc[qc["doublet"].notna()]
    if len(qc) and "doublet" in cells:
        said, real = qc["doublet"].astype(bool).to_numpy(), qc["is_doublet"].to_numpy()
        recall = float(said[real].mean()) if real.any() else float("nan")
        precision = float(real[said].mean()) if said.any() else float("nan")
        facts.append(
            {"question": "Doublets", "figure": "recall", "value": fraction(recall), "n": f"{int(real.sum()):,} planted"}
        )
        facts.append(
            {
                "question": "Doublets",
                "figure": "precision",
                "value": fraction(precision),
                "n": f"{int(said.sum()):,} called",
            }
        )
    tam = d.per_sample("tam", ["cell_id", "tam_class"])
    if "tam_class" in cells and len(tam):
        part = tam.merge(cells[["cell_id", "tam_class"]], on="cell_id", suffixes=("", "_truth"))
        part = part[
            part["tam_class"].isin(["m1_like", "m2_like", "mixed", "low"])
            & part["tam_class_truth"].isin(["m1_like", "m2_like", "mixed", "low"])
        ]
        if len(part):
            score, _ = macro_f1(part["tam_class_truth"].astype(str).tolist(), part["tam_class"].astype(str).tolist())
            facts.append(
                {
                    "question": "Macrophage classes",
                    "figure": "macro F1 over planted classes",
                    "value": number(score, 4),
                    "n": f"{len(part):,} macrophages with a class",
                }
            )
    if facts:
        blocks.append(
            page.table(
                "truth",
                pd.DataFrame(facts),
                {"question": ("question", None), "figure": ("figure", None), "value": ("value", str), "n": ("n", None)},
                "How well is the planted truth found?",
            )
        )
    if len(cross):
        blocks.append(
            page.table(
                "truth_confusion",
                cross.assign(planted=[type_words(str(v)) for v in cross["planted"]]),
                {
                    "planted": ("planted", None),
                    "F1": ("F1", lambda v: number(v, 4)),
                    **{c: (type_words(c), number) for c in cross.columns if c not in ("planted", "F1")},
                },
                "Planted against found types.",
                "Kept singlets; rows: planted, columns: found.",
            )
        )
    blocks += _truth_fractions(d, page, cells, planted)
    blocks += _truth_loop(d, page, planted)
    return blocks


def _truth_fractions(d: Data, page: Page, cells: pd.DataFrame, planted: pd.DataFrame) -> list[Block]:
    import pandas as pd

    estimates = d.table("csc_patients").set_index("sample")
    rows = []
    for s in d.tumours:
        truth = float("nan")
        mine = cells[(cells["sample"] == s) & ~cells["is_doublet"]]
        if "malignant" in cells and "csc_state" in cells and len(mine):
            malignant = mine[_truth_flag(mine["malignant"], ["malignant"])]
            if len(malignant):
                truth = float(_truth_flag(malignant["csc_state"], ["m_csc", "mcsc", "csc", "both", "double"]).mean())
        elif "csc_fraction" in planted:
            values = planted.loc[planted["sample"] == s, "csc_fraction"]
            truth = float(values.iloc[0]) if len(values) else truth
        if s in estimates.index:
            e = estimates.loc[s]
            rows.append(
                {
                    "sample": s,
                    "label": d.label(s),
                    "truth": truth,
                    "value": e["m_csc_fraction"],
                    "low": e["m_csc_low"],
                    "high": e["m_csc_high"],
                    "status": e["status"],
                }
            )
    if not rows:
        return []
    frame = pd.DataFrame(rows)
    frame["inside"] = [
        "NA" if v != v or t != t else "yes" if low <= t <= high else "no"
        for v, t, low, high in frame[["value", "truth", "low", "high"]].to_numpy(float)
    ]
    known = frame[frame["inside"] != "NA"]
    held = int((known["inside"] == "yes").sum())
    out = []
    if frame["truth"].notna().any():
        out.append(
            page.figure(
                "truth_csc",
                figures_niche.truth_fractions(frame),
                "Does the interval hold the planted CD44+/CD24- fraction?",
                f"n = {count(len(frame), 'tumour')}; the interval holds the planted fraction in {held} of "
                f"{count(len(known), 'tumour')} with an estimate. Diamond: planted among malignant singlets; dot and "
                "line: estimate and 95 % interval.",
                f"Planted and estimated CSC fractions per tumour; the interval holds the truth in {held} of "
                f"{len(known)}.",
                frame[["sample", "truth", "value", "low", "high", "inside", "status"]],
            )
        )
    out.append(
        page.table(
            "truth_csc",
            frame,
            columns(
                "sample | truth % planted | value % estimate | low % | high % | inside: planted within interval | "
                "status ="
            ),
            "CD44+/CD24- fraction, planted and estimated.",
        )
    )
    return out


def _truth_loop(d: Data, page: Page, planted: pd.DataFrame) -> list[Block]:
    import pandas as pd

    column = next((c for c in planted.columns if "loop" in c), None)
    loop = d.table("loop")
    if column is None or not len(loop):
        return []
    rows = []
    named = set(planted["sample"].astype(str))
    for sample in [s for s in d.samples if s in named]:
        mine = loop[(loop["sample"] == sample) & loop["axis"].str.startswith("IL6")]
        for v in figures.records(mine):
            rows.append(
                {
                    "sample": sample,
                    "planted": str(planted.loc[planted["sample"].astype(str) == sample, column].iloc[0]),
                    "axis": v.axis,
                    "verdict": v.verdict,
                    "status": v.status,
                }
            )
    if not rows:
        return []
    return [
        page.table(
            "truth_loop",
            pd.DataFrame(rows),
            columns("sample | planted: loop planted | axis | verdict | status ="),
            "Loop, planted and found.",
            "One patient can show no more than all three arms present; a loop that is not planted should not be "
            "present.",
        )
    ]
