"""Chapter of the report on malignancy: three-way call, copy number with its checks, receptor status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nicheloop import contracts, figures, figures_cells, figures_states
from nicheloop.report_axes import span
from nicheloop.report_data import Data, find_figure, rung, words_of
from nicheloop.report_page import (
    PANELS,
    SAMPLES,
    Block,
    Page,
    bullets,
    columns,
    count,
    fraction,
    listed,
    many,
    note,
    number,
    text,
)
from nicheloop.report_text import explain, short_words

if TYPE_CHECKING:
    import pandas as pd

BASELINES = {
    "own_normal_epithelium": "normal epithelium of the sample",
    "normal_epithelium": "pooled normal epithelium",
    "own_epithelium": "all epithelium of the sample",
    "reference": "reference cells",
}


def clone_table(d: Data) -> pd.DataFrame:
    """Clones of every sample with the expected copy-number changes found in them, and the HER2 check."""
    import pandas as pd

    calls = d.per_sample("malignancy", ["cell_id", "clone"]).dropna(subset=["clone"])
    rows = []
    for s in d.samples:
        summary = d.summary("malignancy", s)
        checks, her2 = summary.get("arm_checks") or {}, summary.get("her2") or {}
        if not checks:
            continue
        sizes = calls.loc[calls["sample"] == s, "clone"].value_counts().sort_index()
        events, other = region_words(checks, agrees=True), region_words(checks, agrees=False)
        looked = {c["region"] for v in checks.values() for c in v if c["seen"] != "not_measurable"}
        rows.append(
            {
                "sample": s,
                "subtype": d.sheet_value(s, "subtype"),
                "clones": f"{len(checks)} ({', '.join(f'{n:,}' for n in sizes)})",
                "against": BASELINES.get(str(summary.get("baseline")), words_of(summary, "baseline")),
                "events": ", ".join(events) or "none",
                "n_events": f"{len(events)} of {len(looked)}",
                "other": ", ".join(other) or "none",
                "her2": her2_words(her2),
            }
        )
    return pd.DataFrame(rows)


def region_words(checks: Mapping[str, Sequence[Mapping[str, Any]]], *, agrees: bool) -> list[str]:
    """``1q gain``, ``8q24 gain (2)``: changes seen in any clone, in or against the expected direction."""
    seen: dict[str, list[str]] = {}
    for clone, regions in checks.items():
        for r in regions:
            if r["seen"] in ("gain", "loss") and bool(r["agrees"]) == agrees:
                seen.setdefault(f"{r['region']} {r['seen']}", []).append(clone.removeprefix("clone_"))
    return [k if len(v) == len(checks) else f"{k} ({', '.join(v)})" for k, v in seen.items()]


def her2_words(checks: Mapping[str, Mapping[str, Any]]) -> str:
    """``amplified (7 of 7 genes)``; the clone in which most genes stand out speaks; NA where too few are measured."""
    known = [c for c in checks.values() if c.get("amplified") is not None]
    if not known:
        return "NA"
    best = max(known, key=lambda c: (bool(c["amplified"]), len(c["high"])))
    genes = f"{len(best['high'])} of {len(best['measured'])} genes"
    return f"{'amplified' if best['amplified'] else 'not amplified'} ({genes})"


def malignancy_chapter(d: Data, page: Page) -> list[Block]:
    """Three-way call, false-positive rate, copy-number heat maps."""
    import pandas as pd

    calls = d.per_sample("malignancy", ["cell_id", "malignancy", "malignancy_status"])
    rows = []
    for s in d.samples:
        mine = calls[calls["sample"] == s]["malignancy"].value_counts()
        summary = d.summary("malignancy", s)
        status = d.statuses[(d.statuses["stage"] == "malignancy") & (d.statuses["sample"] == s)]["status"]
        own = summary.get("n_reference")
        n_reference = float(sum(own.values())) if isinstance(own, dict) else find_figure(summary, "n_reference")
        central = {k: v for k, v in summary.items() if "upper" not in k}
        rows.append(
            {
                "sample": s,
                "epithelial": int(mine.drop("not_epithelial", errors="ignore").sum()),
                **{c: int(mine.get(c, 0)) for c in ("malignant", "normal", "unassigned")},
                "reference": rung(d, s, calls) if len(mine) else "",
                "n_reference": n_reference,
                "fpr": find_figure(central, "reference", "positive"),
                "fpr_upper": find_figure(summary, "reference", "positive", "upper"),
                "caf_malignant": find_figure(summary, "caf", "malignant"),
                "status": str(status.iloc[0]) if len(status) else "not_run",
            }
        )
    frame = pd.DataFrame(rows)
    n_epithelial = int(frame["epithelial"].sum())
    shown = frame.head(SAMPLES)
    counts = shown.set_index("sample")[["malignant", "normal", "unassigned"]]
    blocks = [
        text(
            f"Of {n_epithelial:,} epithelial cells {int(frame['malignant'].sum()):,} were called malignant, "
            f"{int(frame['normal'].sum()):,} normal and {int(frame['unassigned'].sum()):,} unassigned. Unassigned "
            "cells are left out of everything that is said about malignant cells."
        ),
        page.figure(
            "malignancy_calls",
            figures_states.malignancy_calls(counts),
            "Which epithelial cells are malignant?",
            f"n = {n_epithelial:,} epithelial cells of {count(len(shown), 'sample')}. Unassigned: the evidence "
            "decides neither way, or "
            f"nothing could be compared.{many(d.samples)}",
            f"Stacked bars: {int(frame['malignant'].sum()):,} malignant, {int(frame['normal'].sum()):,} normal and "
            f"{int(frame['unassigned'].sum()):,} unassigned epithelial cells.",
            counts.reset_index(),
        ),
        page.table(
            "malignancy",
            frame,
            {
                "sample": ("sample", None),
                "epithelial": ("epithelial cells", number),
                "malignant": ("malignant", number),
                "normal": ("normal", number),
                "unassigned": ("unassigned", number),
                "reference": ("reference", short_words),
                "n_reference": ("cells of it", number),
                "fpr": ("false positive", fraction),
                "fpr_upper": ("at most", fraction),
                "caf_malignant": ("CAF malignant", fraction),
                "status": ("status", short_words),
            },
            "Three-way call per sample.",
            "Reference: where the normal cells of the comparison come from, and how many they are. False positive: "
            "share of held-out reference cells above the cut, with its upper bound. CAF are a negative control: they "
            "must not look malignant. In normal tissue every malignant call is an error.",
            most=60,
        ),
        *reasons_blocks(d, calls, page),
        *warning_blocks(d),
    ]
    found = clone_table(d)
    if len(found):
        blocks.append(
            page.table(
                "clones",
                found,
                columns(
                    "sample | subtype | clones | against: compared with | events: expected changes found | n_events: "
                    "found | other: the other way | her2: HER2 amplicon"
                ),
                "Do the clones carry changes that breast tumours carry?",
                "Clones: malignant cells of each, largest first. Expected: recurrent gains and losses of the shipped "
                "list, found where the mean over the region stands out in the expected direction; in brackets the "
                "clones, where not all have it. The other way: a gain where a loss is expected, or the reverse. HER2 "
                "amplicon: by expression alone, ERBB2 and its neighbours beyond the level of 17q; beside it the genes "
                "that stand out.",
            )
        )
    table = d.per_sample("cnv")
    panels = []
    for s in d.samples:
        profile = table[table["sample"] == s]
        if len(profile):
            panels.append((f"{figures.short(d.label(s), 40)}; reference: {short_words(rung(d, s, calls))}", profile))
    for i, part in enumerate(figures.chunks(panels[: 4 * PANELS], PANELS), start=1):
        more = f" The first {4 * PANELS} of {len(panels)} samples are drawn." if len(panels) > 4 * PANELS else ""
        blocks.append(
            page.figure(
                f"cnv_{i}",
                figures_cells.cnv(part),
                "Does the genome of malignant cells differ from the reference?",
                "Mean log ratio to the reference per group (n cells in brackets) along the chromosomes 1 to 22; red: "
                "gain, blue: loss; all panels share one scale. The title names the reference rung. Normal epithelium "
                f"and CAF should be pale.{more}",
                "Copy-number heat maps of " + listed([p[0].split(";")[0] for p in part], 20) + ".",
                pd.concat([p[1] for p in part]),
            )
        )
    if not panels:
        blocks.append(note("No sample has a copy-number profile."))
    return blocks + check_blocks(d, page) + receptor_blocks(d, page)


def reasons_blocks(d: Data, calls: pd.DataFrame, page: Page) -> list[Block]:
    """Epithelial cells of every sample by call with the reason of the call, and what prevented calls in plain words."""
    rank = {s: i for i, s in enumerate(d.samples)}
    order = {c: i for i, c in enumerate(contracts.MALIGNANCY)}
    rows = calls[calls["malignancy"] != "not_epithelial"].groupby(["sample", "malignancy", "malignancy_status"]).size()
    frame = rows.rename("cells").reset_index()
    frame["share"] = frame["cells"] / frame.groupby("sample")["cells"].transform("sum")
    ranked = frame.assign(_s=frame["sample"].map(rank), _c=frame["malignancy"].map(order)).sort_values(
        ["_s", "_c", "cells", "malignancy_status"], ascending=[True, True, False, True], kind="stable"
    )
    why = sorted(set(frame.loc[frame["malignancy"] == "unassigned", "malignancy_status"]))
    return [
        page.table(
            "malignancy_reasons",
            ranked[list(frame.columns)],
            columns(
                "sample | malignancy: call | malignancy_status = reference, or why not called | cells # | share % "
                "share of epithelial"
            ),
            "Malignant, normal or unassigned, and why?",
            "Called cells name the reference they were compared with; unassigned ones what prevented a call.",
            most=90,
        ),
        *([bullets(f"{short_words(s).capitalize()}: {explain(s)}" for s in why)] if why else []),
    ]


def warning_blocks(d: Data) -> list[Block]:
    """Warnings of the malignancy stage in plain words, each with the samples it concerns."""
    of: dict[str, list[str]] = {}
    for s in d.samples:
        for name in d.summary("malignancy", s).get("warnings") or []:
            of.setdefault(str(name), []).append(d.label(s))
    said = [f"{short_words(k).capitalize()} ({listed(v, 12)}): {explain(k)}" for k, v in of.items()]
    return [text("Calls to read with care:"), bullets(said)] if said else []


def by_clone(item: tuple[str, Any]) -> int:
    """Number of a clone, so that clone_10 comes after clone_9."""
    return int(item[0].removeprefix("clone_"))


def checks_of(d: Data, key: str) -> pd.DataFrame:
    """Entries of a check (``arm_checks``, ``marker_loci``) of all clones of all samples, one row each."""
    import pandas as pd

    rows = [
        {"sample": s, "clone": clone.removeprefix("clone_"), **entry}
        for s in d.samples
        for clone, entries in sorted((d.summary("malignancy", s).get(key) or {}).items(), key=by_clone)
        for entry in entries
    ]
    return pd.DataFrame(rows)


def check_blocks(d: Data, page: Page) -> list[Block]:
    """Expected arm changes of every clone as a figure, and copy number at the genes that states and axes read."""
    blocks: list[Block] = []
    arms, loci = checks_of(d, "arm_checks"), checks_of(d, "marker_loci")
    if len(arms):
        arms = arms.assign(label=[f"{r.sample} clone {r.clone}" for r in figures.records(arms)])
        groups = list(figures.chunks(list(dict.fromkeys(arms["label"])), 40))
        for i, part in enumerate(groups[:2], start=1):
            shown = arms[arms["label"].isin(part)]
            more = f" The first 80 of {arms['label'].nunique()} clones are drawn." if len(groups) > 2 else ""
            blocks.append(
                page.figure(
                    f"arm_checks_{i}",
                    figures_cells.arm_checks(shown, part),
                    "Which recurrent gains and losses of breast tumours does each clone carry?",
                    f"n = {count(len(part), 'clone')} of {count(shown['sample'].nunique(), 'sample')}. Colour: mean "
                    "clipped log2 difference of the region to the baseline of the sample; '+': gain, '\u2212': loss "
                    "that stands out from the spread of all genes; framed: in the expected direction, which the label "
                    f"under each column gives; empty: too few genes.{more}",
                    f"Heat map of {shown['region'].nunique()} chromosome regions by clone, with marks where a change "
                    "is seen.",
                    shown[["sample", "clone", "region", "expected", "seen", "agrees", "n_genes", "log2", "z"]],
                )
            )
        blocks.append(
            page.table(
                "arm_checks",
                arms[arms["seen"].isin(("gain", "loss"))].assign(
                    agrees=lambda t: ["yes" if v else "no" for v in t["agrees"]]
                ),
                columns(
                    "sample | clone | region | expected | seen | agrees: as expected | n_genes # genes | log2 # log2 "
                    "difference | z #"
                ),
                "Changes that stand out.",
                "Regions without a change and regions with too few genes are left out here.",
                most=20,
            )
        )
    if len(loci):
        changed = loci[loci["seen"].isin(("gain", "loss"))]
        said = f"of {count(len(loci), 'look')} at a locus ({count(loci['gene'].nunique(), 'gene')} in each clone)"
        blocks.append(
            text(
                f"A state read from one gene may be its copy number: {said} {len(changed)} "
                f"{'shows' if len(changed) == 1 else 'show'} a gain or loss. There, high or low expression of the gene "
                "in that clone may follow from the genome."
            )
        )
        blocks.append(
            page.table(
                "marker_loci",
                loci.assign(
                    changed=~loci["seen"].isin(("gain", "loss")), nothing=loci["seen"] == "not_measurable"
                ).sort_values(["changed", "nothing", "gene", "sample"], kind="stable")[list(loci.columns)],
                columns(
                    "gene | locus | sample | clone | seen = copy number nearby | n_genes # genes used | log2 # log2 "
                    "difference | z #"
                ),
                "Is a marker gene gained or lost?",
                "Copy number from the nearest measured genes on the arm; the gene itself is left out. Gains and losses "
                "first.",
                most=24,
            )
        )
    return blocks


def receptor_blocks(d: Data, page: Page) -> list[Block]:
    """Receptor status by RNA beside the sheet's subtype; nothing where the table was not written."""
    table = d.table("receptor_status")
    if not len(table):
        return []
    order = {s: i for i, s in enumerate(d.samples)}
    table = table.assign(_=table["sample"].map(order)).sort_values("_", kind="stable").drop(columns="_")
    inferred = table[table["subtype_source"] == "inferred"]
    differs = table[table["agreement"] == "differs"]
    compared = table[table["agreement"] != "not_compared"]
    said = (
        "Receptor status from the RNA of malignant cells, beside the subtype of the sample sheet. RNA is not "
        "immunohistochemistry: where only RNA speaks, the status is inferred and marked so. A receptor is positive or "
        "negative where the whole interval lies on one side of its cut."
    )
    if len(compared):
        said += f" Sheet and RNA agree in {len(compared) - len(differs)} of {count(len(compared), 'patient')} compared."
    if len(differs):
        said += f" They differ in {listed(list(differs['patient'].astype(str)))}: the sheet's is used."
    if len(inferred):
        names = listed(list(inferred["patient"].astype(str)))
        said += f" The inferred subtype stands in every table by subtype for {names}, whose sheet gives none."
    shown = table.assign(
        **{
            f"{m}_shown": [span(*v) for v in table[[f"{m}_cpm", f"{m}_low", f"{m}_high"]].to_numpy(float)]
            for m in ("er", "pr", "erbb2", "neighbours", "basal")
        }
    )
    sets = d.config.receptors
    return [
        text(said),
        page.table(
            "receptor_status",
            shown,
            columns(
                "patient | sample | subtype_sheet: sheet | subtype_inferred: by RNA | agreement = agreement | "
                "subtype_used: used | subtype_source = from | n_malignant # malignant cells | er = ER | er_shown ~ "
                "ESR1 | pr = PR | pr_shown ~ PGR | her2 = HER2 | erbb2_shown ~ ERBB2 | neighbours_shown ~ its "
                "neighbours | her2_amplicon = amplicon | basal = basal keratins | basal_shown ~ KRT5, 14, 17 | "
                "status = | reason: reason"
            ),
            "Which receptors does the RNA of malignant cells show?",
            f"n = {count(len(table), 'patient')}; pseudobulk of malignant cells, counts per million beyond ambient RNA "
            f"with {fraction(sets.confidence)} intervals. Cuts: ESR1 {sets.er_cpm:g}, PGR {sets.pr_cpm:g}, ERBB2 "
            f"{sets.erbb2_cpm:g}, its neighbours (GRB7, PGAP3, MIEN1, STARD3) together {sets.neighbours_cpm:g}, basal "
            f"keratins together {sets.basal_cpm:g}. NA: fewer than {sets.min_malignant} malignant cells, or the gene "
            "is not in the matrix.",
            path="cohort/receptor_status.tsv",
            most=60,
        ),
    ]
