rule qc:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
    output:
        out="<results>/samples/{sample}/qc.parquet",
    log:
        "<results>/logs/qc/{sample}.log",
    benchmark:
        "<results>/benchmarks/qc/{sample}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(8, 2000),
        runtime=minutes(30),
    params:
        code=code_digest("qc"),
        config=sections("qc"),
        seed=SETTINGS.seed,
    message:
        "Quality control of {wildcards.sample}"
    shell:
        "python -m nicheloop qc"
        " --counts {input.counts:q} --out {output.out:q} --config {params.config:q}"
        " --seed {params.seed} 2> {log:q}"
