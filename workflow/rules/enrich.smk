rule pseudobulk:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
        csc="<results>/samples/{sample}/csc.parquet",
        tam="<results>/samples/{sample}/tam.parquet",
    output:
        out="<results>/samples/{sample}/pseudobulk.parquet",
    log:
        "<results>/logs/pseudobulk/{sample}.log",
    benchmark:
        "<results>/benchmarks/pseudobulk/{sample}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("enrich"),
        config=sections("enrich"),
    message:
        "Pseudobulk of {wildcards.sample}"
    shell:
        "python -m nicheloop pseudobulk"
        " --counts {input.counts:q} --csc {input.csc:q} --tam {input.tam:q} --out {output.out:q}"
        " --config {params.config:q} 2> {log:q}"


rule enrich:
    input:
        pseudobulk=per_sample("pseudobulk.parquet"),
        scores=per_sample("scores.parquet"),
        records=per_sample("ingest.json"),
    output:
        out_de="<results>/cohort/de.tsv",
        out_enrichment="<results>/cohort/enrichment.tsv",
    log:
        "<results>/logs/enrich.log",
    benchmark:
        "<results>/benchmarks/enrich.tsv"
    # The longest but one of the last steps.
    priority: 10
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4, 3000),
        runtime=minutes(60),
    params:
        lists=lists("pseudobulk", "scores", "records"),
        code=code_digest("enrich"),
        config=sections("enrich"),
        seed=SETTINGS.seed,
    message:
        "Differential expression and enrichment"
    shell:
        "python -m nicheloop enrich {params.lists}"
        " --out-de {output.out_de:q} --out-enrichment {output.out_enrichment:q} --config {params.config:q}"
        " --seed {params.seed} 2> {log:q}"
