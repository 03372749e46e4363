rule evidence:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
        qc="<results>/samples/{sample}/qc.parquet",
    output:
        out="<results>/samples/{sample}/evidence.parquet",
    log:
        "<results>/logs/evidence/{sample}.log",
    benchmark:
        "<results>/benchmarks/evidence/{sample}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("annotate"),
        config=sections("annotate", "scoring"),
    message:
        "Marker evidence of {wildcards.sample}"
    shell:
        "python -m nicheloop evidence"
        " --counts {input.counts:q} --qc {input.qc:q} --out {output.out:q}"
        " --config {params.config:q} 2> {log:q}"


rule annotate:
    input:
        clusters="<results>/cohort/clusters.parquet",
        neighbors="<results>/cohort/neighbors.parquet",
        evidence=per_sample("evidence.parquet"),
    output:
        out="<results>/cohort/cell_types.parquet",
    log:
        "<results>/logs/annotate.log",
    benchmark:
        "<results>/benchmarks/annotate.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(10, 3000),
        runtime=minutes(60),
    params:
        lists=lists("evidence"),
        code=code_digest("annotate"),
        config=sections("annotate"),
    message:
        "Cell types"
    shell:
        "python -m nicheloop annotate {params.lists}"
        " --neighbors {input.neighbors:q} --clusters {input.clusters:q} --out {output.out:q}"
        " --config {params.config:q} 2> {log:q}"
