rule csc_rates:
    input:
        scores=per_sample("scores.parquet"),
        ambient=per_sample("ambient.parquet"),
        records=per_sample("ingest.json"),
    output:
        out="<results>/cohort/csc_rates.parquet",
    log:
        "<results>/logs/csc-rates.log",
    benchmark:
        "<results>/benchmarks/csc-rates.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("csc_rates"),
        config=sections("csc"),
    message:
        "Rates of CD44, CD24 and ALDH1A3"
    shell:
        "python -m nicheloop csc-rates"
        " --scores {input.scores:q} --ambient {input.ambient:q} --records {input.records:q}"
        " --out {output.out:q} --config {params.config:q} 2> {log:q}"


rule csc:
    input:
        scores="<results>/samples/{sample}/scores.parquet",
        rates="<results>/cohort/csc_rates.parquet",
        record="<results>/samples/{sample}/ingest.json",
        ambient="<results>/samples/{sample}/ambient.parquet",
    output:
        out="<results>/samples/{sample}/csc.parquet",
    log:
        "<results>/logs/csc/{sample}.log",
    benchmark:
        "<results>/benchmarks/csc/{sample}.tsv"
    group:
        "states"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("csc"),
        config=sections("csc"),
    message:
        "Cancer stem cells of {wildcards.sample}"
    shell:
        "python -m nicheloop csc"
        " --scores {input.scores:q} --rates {input.rates:q} --record {input.record:q}"
        " --ambient {input.ambient:q} --out {output.out:q} --config {params.config:q} 2> {log:q}"


rule csc_patients:
    input:
        rates="<results>/cohort/csc_rates.parquet",
        csc=per_sample("csc.parquet"),
        scores=per_sample("scores.parquet"),
        ambient=per_sample("ambient.parquet"),
        records=per_sample("ingest.json"),
    output:
        out="<results>/cohort/csc_patients.tsv",
        out_controls="<results>/cohort/csc_controls.tsv",
    log:
        "<results>/logs/csc-patients.log",
    benchmark:
        "<results>/benchmarks/csc-patients.tsv"
    group:
        "cohort"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("csc_patients"),
        config=sections("csc"),
        seed=SETTINGS.seed,
    message:
        "Cancer stem cells per patient"
    shell:
        "python -m nicheloop csc-patients"
        " --rates {input.rates:q} --csc {input.csc:q} --scores {input.scores:q}"
        " --ambient {input.ambient:q} --records {input.records:q} --out {output.out:q}"
        " --out-controls {output.out_controls:q}"
        " --config {params.config:q} --seed {params.seed} 2> {log:q}"
