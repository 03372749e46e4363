rule provenance:
    input:
        html="<results>/report.html",
        atlas="<results>/atlas.h5ad",
        status="<results>/cohort/status.tsv",
        facts=["<results>/cohort/facts.tsv"] if SETTINGS.dataset else [],
    output:
        out="<results>/provenance.json",
    log:
        "<results>/logs/provenance.log",
    benchmark:
        "<results>/benchmarks/provenance.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(0, 1000),
        runtime=minutes(60),
    params:
        code=code_digest("provenance"),
        config=json.dumps(SETTINGS.model_dump(), sort_keys=True),
        folder=lambda wildcards, output: str(Path(output.out).parent),
    message:
        "Checksums of all that went in and came out"
    shell:
        "python -m nicheloop provenance --results {params.folder:q} --out {output.out:q} --config {params.config:q}"
        " 2> {log:q}"
