rule tam:
    input:
        cell_types="<results>/cohort/cell_types.parquet",
        scores="<results>/samples/{sample}/scores.parquet",
        record="<results>/samples/{sample}/ingest.json",
    output:
        out="<results>/samples/{sample}/tam.parquet",
    log:
        "<results>/logs/tam/{sample}.log",
    benchmark:
        "<results>/benchmarks/tam/{sample}.tsv"
    group:
        "states"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("tam"),
        config=sections("tam"),
    message:
        "Macrophages of {wildcards.sample}"
    shell:
        "python -m nicheloop tam"
        " --cell-types {input.cell_types:q} --scores {input.scores:q} --record {input.record:q}"
        " --out {output.out:q} --config {params.config:q} 2> {log:q}"


rule tam_patients:
    input:
        tam=per_sample("tam.parquet"),
        scores=per_sample("scores.parquet"),
        records=per_sample("ingest.json"),
    output:
        out="<results>/cohort/tam_patients.tsv",
    log:
        "<results>/logs/tam-patients.log",
    benchmark:
        "<results>/benchmarks/tam-patients.tsv"
    group:
        "cohort"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("tam"),
        config=sections("tam"),
    message:
        "Macrophages per patient"
    shell:
        "python -m nicheloop tam-patients"
        " --tam {input.tam:q} --scores {input.scores:q} --records {input.records:q}"
        " --out {output.out:q} --config {params.config:q} 2> {log:q}"
