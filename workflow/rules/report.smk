COHORT_TABLES = [
    "embedding.parquet",
    "clusters.parquet",
    "cell_types.parquet",
    "receptor_status.tsv",
    "csc_rates.parquet",
    "csc_patients.tsv",
    "csc_controls.tsv",
    "csc_isoforms.tsv",
    "csc_subtypes.tsv",
    "csc_nulls.tsv",
    "csc_readouts.tsv",
    "csc_loci.tsv",
    "csc_locus_tests.tsv",
    "her2_pten.tsv",
    "her2_pten_tests.tsv",
    "tam_patients.tsv",
    "tam_markers.tsv",
    "tam_cohort.tsv",
    "axes.tsv",
    "axis_subtypes.tsv",
    "axis_controls.tsv",
    "decoys.tsv",
    "composition.tsv",
    "loop.tsv",
    "loop_cohort.tsv",
    "chains.tsv",
    "de.tsv",
    "enrichment.tsv",
]
SAMPLE_TABLES = [
    "qc",
    "profiles",
    "malignancy",
    "cnv",
    "scores",
    "csc",
    "csc_pairs",
    "csc_readouts",
    "csc_draws",
    "tam",
    "tam_draws",
    "crosstalk",
    "loop",
]


rule report:
    input:
        status="<results>/cohort/status.tsv",
        samples="<results>/cohort/samples.tsv",
        per_sample=[path for name in SAMPLE_TABLES for path in per_sample(f"{name}.parquet")],
        counts=per_sample("counts.h5ad"),
        tables=[f"<results>/cohort/{name}" for name in COHORT_TABLES],
        demo=["<results>/demo/truth_cells.tsv.gz", "<results>/demo/truth_samples.tsv"] if DEMO else [],
    output:
        html=report(
            "<results>/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"what": "the whole report"},
        ),
        subsets=directory("<results>/tables"),
        pages=directory("<results>/report"),
        figures=report(
            directory("<results>/figures"),
            patterns=["{figure}.png"],
            caption="../report/figures.rst",
            category=chapter_of,
            labels=figure_labels,
        ),
    log:
        "<results>/logs/report.log",
    benchmark:
        "<results>/benchmarks/report.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.report.threads
    resources:
        mem_mb=memory(6, 2500),
        runtime=minutes(60),
    params:
        code=code_digest("report"),
        config=json.dumps(SETTINGS.model_dump(), sort_keys=True),
        folder=lambda wildcards, output: str(Path(output.html).parent),
    message:
        "Writing the report"
    shell:
        "python -m nicheloop report --results {params.folder:q} --out {output.html:q} --config {params.config:q}"
        " --threads {threads} 2> {log:q}"
