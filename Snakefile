# nicheloop: from public breast-tumour counts to one report.  This file is the table of contents.
#
#   snakemake --cores 2                                         the embedded demo cohort
#   snakemake --cores 2 --config samples=my.tsv results=out     your own samples


configfile: "config.yaml"


pathvars:
    results=config.get("results", "results"),


include: "workflow/rules/common.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/qc.smk"
include: "workflow/rules/moments.smk"
include: "workflow/rules/embed.smk"
include: "workflow/rules/annotate.smk"
include: "workflow/rules/ambient.smk"
include: "workflow/rules/malignancy.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/csc.smk"
include: "workflow/rules/tam.smk"
include: "workflow/rules/crosstalk.smk"
include: "workflow/rules/screen.smk"
include: "workflow/rules/loop.smk"
include: "workflow/rules/enrich.smk"
include: "workflow/rules/assemble.smk"
include: "workflow/rules/status.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/provenance.smk"


rule all:
    default_target: True
    input:
        "<results>/report.html",
        "<results>/atlas.h5ad",
        "<results>/provenance.json",
        ["<results>/cohort/facts.tsv"] if SETTINGS.dataset else [],
