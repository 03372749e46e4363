rule ingest:
    input:
        data=data_files,
    output:
        counts="<results>/samples/{sample}/counts.h5ad",
        record="<results>/samples/{sample}/ingest.json",
    log:
        "<results>/logs/ingest/{sample}.log",
    benchmark:
        "<results>/benchmarks/ingest/{sample}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(per_input_mb=30, floor=2000),
        runtime=minutes(60),
    params:
        code=code_digest("ingest"),
        config=sections("ingest"),
        path=data_path,
        row=lambda wildcards: json.dumps(ROW[wildcards.sample], sort_keys=True),
    message:
        "Reading counts of {wildcards.sample}"
    shell:
        "python -m nicheloop ingest --path {params.path:q} --row {params.row:q}"
        " --out {output.counts:q} --record-out {output.record:q} --config {params.config:q} 2> {log:q}"
