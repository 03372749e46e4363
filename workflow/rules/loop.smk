rule loop:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
        cell_types="<results>/cohort/cell_types.parquet",
        malignancy="<results>/samples/{sample}/malignancy.parquet",
        csc="<results>/samples/{sample}/csc.parquet",
        tam="<results>/samples/{sample}/tam.parquet",
        scores="<results>/samples/{sample}/scores.parquet",
        ambient="<results>/samples/{sample}/ambient.parquet",
    output:
        out="<results>/samples/{sample}/loop.parquet",
        out_chain="<results>/samples/{sample}/chain.parquet",
    log:
        "<results>/logs/loop/{sample}.log",
    benchmark:
        "<results>/benchmarks/loop/{sample}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("loop"),
        config=sections("loop", "crosstalk", "scoring"),
        seed=SETTINGS.seed,
    message:
        "Loop of {wildcards.sample}"
    shell:
        "python -m nicheloop loop"
        " --counts {input.counts:q} --cell-types {input.cell_types:q}"
        " --malignancy {input.malignancy:q} --csc {input.csc:q} --tam {input.tam:q}"
        " --scores {input.scores:q} --ambient {input.ambient:q} --out {output.out:q}"
        " --out-chain {output.out_chain:q} --config {params.config:q} --seed {params.seed} 2> {log:q}"


rule loop_cohort:
    input:
        loops=per_sample("loop.parquet"),
        chains=per_sample("chain.parquet"),
        scores=per_sample("scores.parquet"),
        records=per_sample("ingest.json"),
        receptors="<results>/cohort/receptor_status.tsv",
    output:
        out_loop="<results>/cohort/loop.tsv",
        out_cohort="<results>/cohort/loop_cohort.tsv",
        out_chains="<results>/cohort/chains.tsv",
    log:
        "<results>/logs/loop-cohort.log",
    benchmark:
        "<results>/benchmarks/loop-cohort.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        lists=lists("loops", "chains", "scores", "records"),
        code=code_digest("loop_cohort"),
        config=sections("loop"),
        seed=SETTINGS.seed,
    message:
        "Loop over patients"
    shell:
        "python -m nicheloop loop-cohort {params.lists}"
        " --receptors {input.receptors:q} --out-loop {output.out_loop:q}"
        " --out-cohort {output.out_cohort:q} --out-chains {output.out_chains:q} --config {params.config:q} --seed {params.seed}"
        " 2> {log:q}"
