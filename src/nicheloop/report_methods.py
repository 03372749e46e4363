"""Methods of the report: what ran in this run, in sentences with numbers and sources, and the options in force."""

from __future__ import annotations

from nicheloop import __version__, tables
from nicheloop.provenance import versions
from nicheloop.report_data import Data
from nicheloop.report_page import Block, Page, bullets, count, heading, listed, text
from nicheloop.report_text import METHOD_NOTES

# What a stage leaves behind: it ran if the table is there.  "{sample}" tables are looked for in any sample.
LEFT_BY = {
    "qc": "qc", "embed": "embedding", "scoring": "scores", "annotate": "cell_types", "ambient": "ambient",
    "malignancy": "malignancy", "csc": "csc", "tam": "tam", "crosstalk": "crosstalk", "loop": "loop_arms",
    "enrich": "enrichment", "screen": "screen",
}  # fmt: skip
SOURCES = {
    "qc": ("scrublet: Wolock 2019, DOI 10.1016/j.cels.2018.11.005", "scanpy: Wolf 2018, DOI 10.1186/s13059-017-1382-0"),
    "embed": (
        "harmony: Korsunsky 2019, DOI 10.1038/s41592-019-0619-0",
        "Leiden: Traag 2019, DOI 10.1038/s41598-019-41695-z",
        "UMAP: McInnes 2018, DOI 10.21105/joss.00861",
    ),
    "malignancy": ("inferring copy number from RNA: Tirosh 2016, DOI 10.1126/science.aad0501",),
    "csc": (
        "CD44+/CD24- cells: Al-Hajj 2003, DOI 10.1073/pnas.0530291100",
        "ALDH1: Ginestier 2007, DOI 10.1016/j.stem.2007.08.014",
    ),
    "tam": ("macrophage states: Ma 2022, DOI 10.1016/j.it.2022.04.008",),
    "crosstalk": (
        "label permutation: Efremova 2020, DOI 10.1038/s41596-020-0292-x",
        "false discovery rate: Benjamini and Hochberg 1995, DOI 10.1111/j.2517-6161.1995.tb02031.x",
        "random effects: DerSimonian and Laird 1986, DOI 10.1016/0197-2456(86)90046-2",
    ),
    "loop": ("IL6 loop: Iliopoulos 2009, PMC2783826; Korkaya 2012, DOI 10.1016/j.molcel.2012.06.014",),
    "enrich": (
        "DESeq2: Love 2014, DOI 10.1186/s13059-014-0550-8",
        "PyDESeq2: Muzellec 2023, DOI 10.1093/bioinformatics/btad547",
        "GSEA: Subramanian 2005, DOI 10.1073/pnas.0506580102",
        "GSEApy: Fang 2023, DOI 10.1093/bioinformatics/btac757",
    ),
}
WORKFLOW = (
    "Snakemake: Mölder 2021, DOI 10.12688/f1000research.29032.2",
    "AnnData: Virshup 2024, DOI 10.21105/joss.04371",
)
USES = {
    "embed": ("harmonypy", "leidenalg", "igraph", "faiss-cpu"),
    "malignancy": ("scipy",),
    "enrich": ("pydeseq2", "gseapy"),
}  # fmt: skip


def ran(d: Data, stage: str) -> bool:
    """Whether a stage left a table with rows in this results folder."""
    name = LEFT_BY.get(stage)
    return name is not None and name in tables.CONTRACTS and d.has_rows(name)


def run_words(d: Data) -> list[str]:
    """The run in sentences, with its own numbers."""
    qc = d.per_sample("qc", ["cell_id", "qc_pass"])
    chemistry = sorted({d.sheet_value(s, "chemistry") for s in d.samples} - {""})
    patients = len({d.sheet_value(s, "patient") or s for s in d.samples})
    said = [
        f"{count(len(d.samples), 'sample')} of {count(patients, 'patient')} were analysed with nicheloop {__version__} "
        f"(seed {d.config.seed}); chemistry: {listed(chemistry) if chemistry else 'not said'}."
    ]
    if len(qc):
        n = d.config.qc
        said.append(
            f"Of {count(len(qc), 'barcode')} {int(qc['qc_pass'].sum()):,} were kept, with thresholds per sample at "
            f"{n.n_mads:g} scaled "
            "median absolute deviations."
        )
    skipped = [s for s in METHOD_NOTES if s in LEFT_BY and not ran(d, s)]
    if skipped:
        said.append(f"Not run, or without any answer: {listed(skipped, 12)}.")
    return said


def methods_chapter(d: Data, page: Page) -> list[Block]:
    """What was done in this run, with its sources and the options in force."""
    found = versions()
    blocks = [text(s) for s in run_words(d)]
    blocks.append(
        text(
            "What each stage did follows; a stage that left nothing is not described. Values that differ from the "
            "defaults are marked."
        )
    )
    blocks.append(bullets(f"Workflow and data: {s}." for s in WORKFLOW))
    defaults = type(d.config)()
    for name, words in METHOD_NOTES.items():
        section = getattr(d.config, name, None)
        if section is None or not ran(d, name):
            continue
        values = section.model_dump()
        usual = getattr(defaults, name).model_dump()
        entries = []
        for key, value in values.items():
            info = type(section).model_fields[key]
            extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
            unit = extra.get("unit")
            unit_text = f" {unit}" if unit and unit not in ("-", "yes or no", "text") else ""
            changed = f" (default {usual[key]})" if value != usual[key] else ""
            entries.append(f"{info.description}: {value}{unit_text}{changed}")
        by = [f"{p} {found[p]}" for p in USES.get(name, ()) if found.get(p)]
        blocks += [heading(name), text(words + (f" Computed with {listed(by)}." if by else ""))]
        if name in SOURCES:
            blocks.append(bullets(f"{s}." for s in SOURCES[name]))
        blocks.append(Block("code", title=f"options of {name}", text="\n".join(entries)))
    return blocks
