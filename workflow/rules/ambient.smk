rule ambient:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
        cell_types="<results>/cohort/cell_types.parquet",
        raw=raw_files,
    output:
        out="<results>/samples/{sample}/ambient.parquet",
        out_profiles="<results>/samples/{sample}/profiles.parquet",
    log:
        "<results>/logs/ambient/{sample}.log",
    benchmark:
        "<results>/benchmarks/ambient/{sample}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("ambient"),
        config=sections("ambient"),
        raw=raw_option,
    message:
        "Ambient RNA of {wildcards.sample}"
    shell:
        "python -m nicheloop ambient"
        " --counts {input.counts:q} --cell-types {input.cell_types:q} --out {output.out:q}"
        " --out-profiles {output.out_profiles:q} --config {params.config:q} {params.raw} 2> {log:q}"
