rule moments:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
        qc="<results>/samples/{sample}/qc.parquet",
    output:
        out="<results>/samples/{sample}/moments.parquet",
    log:
        "<results>/logs/moments/{sample}.log",
    benchmark:
        "<results>/benchmarks/moments/{sample}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("moments"),
    message:
        "Gene moments of {wildcards.sample}"
    shell:
        "python -m nicheloop moments" " --counts {input.counts:q} --qc {input.qc:q} --out {output.out:q} 2> {log:q}"
