rule assemble:
    input:
        embedding="<results>/cohort/embedding.parquet",
        clusters="<results>/cohort/clusters.parquet",
        cell_types="<results>/cohort/cell_types.parquet",
        counts=per_sample("counts.h5ad"),
        qc=per_sample("qc.parquet"),
        malignancy=per_sample("malignancy.parquet"),
        scores=per_sample("scores.parquet"),
        csc=per_sample("csc.parquet"),
        tam=per_sample("tam.parquet"),
    output:
        out="<results>/atlas.h5ad",
    log:
        "<results>/logs/assemble.log",
    benchmark:
        "<results>/benchmarks/assemble.tsv"
    # The longest of the last steps goes first.
    priority: 10
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(12, 4000),
        runtime=minutes(120),
    params:
        lists=lists("counts", "qc", "malignancy", "scores", "csc", "tam"),
        code=code_digest("assemble"),
    message:
        "Assembling the atlas"
    shell:
        "python -m nicheloop assemble {params.lists}"
        " --embedding {input.embedding:q} --clusters {input.clusters:q}"
        " --cell-types {input.cell_types:q}"
        " --out {output.out:q} 2> {log:q}"
