rule score:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
        cell_types="<results>/cohort/cell_types.parquet",
        malignancy="<results>/samples/{sample}/malignancy.parquet",
        profiles="<results>/samples/{sample}/profiles.parquet",
    output:
        out="<results>/samples/{sample}/scores.parquet",
    log:
        "<results>/logs/score/{sample}.log",
    benchmark:
        "<results>/benchmarks/score/{sample}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("score"),
        config=sections("scoring"),
    message:
        "Gene-set scores of {wildcards.sample}"
    shell:
        "python -m nicheloop score"
        " --counts {input.counts:q} --cell-types {input.cell_types:q}"
        " --malignancy {input.malignancy:q} --profiles {input.profiles:q} --out {output.out:q} --config {params.config:q}"
        " 2> {log:q}"
