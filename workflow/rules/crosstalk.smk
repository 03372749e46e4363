rule crosstalk:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
        cell_types="<results>/cohort/cell_types.parquet",
        malignancy="<results>/samples/{sample}/malignancy.parquet",
        csc="<results>/samples/{sample}/csc.parquet",
        tam="<results>/samples/{sample}/tam.parquet",
        ambient="<results>/samples/{sample}/ambient.parquet",
    output:
        out="<results>/samples/{sample}/crosstalk.parquet",
        out_decoys="<results>/samples/{sample}/decoys.parquet",
    log:
        "<results>/logs/crosstalk/{sample}.log",
    benchmark:
        "<results>/benchmarks/crosstalk/{sample}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("crosstalk"),
        config=sections("crosstalk"),
        seed=SETTINGS.seed,
    message:
        "Crosstalk of {wildcards.sample}"
    shell:
        "python -m nicheloop crosstalk"
        " --counts {input.counts:q} --cell-types {input.cell_types:q}"
        " --malignancy {input.malignancy:q} --csc {input.csc:q} --tam {input.tam:q}"
        " --ambient {input.ambient:q} --out {output.out:q} --out-decoys {output.out_decoys:q}"
        " --config {params.config:q} --seed {params.seed} 2> {log:q}"


rule axes:
    input:
        crosstalk=per_sample("crosstalk.parquet"),
        decoy_pairs=per_sample("decoys.parquet"),
        scores=per_sample("scores.parquet"),
        records=per_sample("ingest.json"),
        receptors="<results>/cohort/receptor_status.tsv",
    output:
        out="<results>/cohort/axes.tsv",
        out_subtypes="<results>/cohort/axis_subtypes.tsv",
        out_controls="<results>/cohort/axis_controls.tsv",
        out_decoys="<results>/cohort/decoys.tsv",
    log:
        "<results>/logs/axes.log",
    benchmark:
        "<results>/benchmarks/axes.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        lists=lists("crosstalk", "decoy_pairs", "scores", "records"),
        code=code_digest("axes"),
        config=sections("crosstalk", "loop"),
    message:
        "Axes over patients"
    shell:
        "python -m nicheloop axes {params.lists}"
        " --out {output.out:q} --out-subtypes {output.out_subtypes:q}"
        " --out-controls {output.out_controls:q} --out-decoys {output.out_decoys:q}"
        " --receptors {input.receptors:q}"
        " --config {params.config:q} 2> {log:q}"
