rule hvg:
    input:
        moments=per_sample("moments.parquet"),
    output:
        out="<results>/cohort/hvg.parquet",
    log:
        "<results>/logs/hvg.log",
    benchmark:
        "<results>/benchmarks/hvg.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        lists=lists("moments"),
        code=code_digest("embed"),
        config=sections("embed"),
    message:
        "Variable genes"
    shell:
        "python -m nicheloop hvg {params.lists}" " --out {output.out:q} --config {params.config:q} 2> {log:q}"


rule embed:
    input:
        hvg="<results>/cohort/hvg.parquet",
        counts=per_sample("counts.h5ad"),
        qc=per_sample("qc.parquet"),
    output:
        out_embedding="<results>/cohort/embedding.parquet",
        out_clusters="<results>/cohort/clusters.parquet",
        out_neighbors="<results>/cohort/neighbors.parquet",
    log:
        "<results>/logs/embed.log",
    benchmark:
        "<results>/benchmarks/embed.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.embed.threads
    resources:
        mem_mb=memory(3, 4000),
        runtime=minutes(240),
    params:
        lists=lists("counts", "qc"),
        code=code_digest("embed"),
        config=sections("embed", "annotate.n_neighbors"),
        seed=SETTINGS.seed,
    message:
        "Components, integration, neighbours, clusters and map"
    shell:
        "python -m nicheloop embed {params.lists}"
        " --hvg {input.hvg:q}"
        " --out-embedding {output.out_embedding:q} --out-clusters {output.out_clusters:q}"
        " --out-neighbors {output.out_neighbors:q}"
        " --config {params.config:q} --seed {params.seed} --threads {threads} 2> {log:q}"
