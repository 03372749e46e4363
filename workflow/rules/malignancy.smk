rule cnv_reference:
    input:
        profiles=per_sample("profiles.parquet"),
        records=per_sample("ingest.json"),
    output:
        out="<results>/cohort/cnv_reference.parquet",
    log:
        "<results>/logs/cnv-reference.log",
    benchmark:
        "<results>/benchmarks/cnv-reference.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        lists=lists("profiles", "records"),
        code=code_digest("malignancy"),
    message:
        "Pooled copy-number reference"
    shell:
        "python -m nicheloop cnv-reference {params.lists}" " --out {output.out:q}" " 2> {log:q}"


rule malignancy:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
        cell_types="<results>/cohort/cell_types.parquet",
        reference="<results>/cohort/cnv_reference.parquet",
    output:
        out="<results>/samples/{sample}/malignancy.parquet",
        out_cnv="<results>/samples/{sample}/cnv.parquet",
    log:
        "<results>/logs/malignancy/{sample}.log",
    benchmark:
        "<results>/benchmarks/malignancy/{sample}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(8, 2500),
        runtime=minutes(60),
    params:
        code=code_digest("malignancy"),
        config=sections("malignancy"),
        seed=SETTINGS.seed,
    message:
        "Malignant cells of {wildcards.sample}"
    shell:
        "python -m nicheloop malignancy"
        " --counts {input.counts:q} --cell-types {input.cell_types:q}"
        " --reference {input.reference:q} --out {output.out:q} --out-cnv {output.out_cnv:q}"
        " --config {params.config:q} --seed {params.seed} 2> {log:q}"


rule receptor_status:
    input:
        scores=per_sample("scores.parquet"),
        malignancy=per_sample("malignancy.parquet"),
        ambient=per_sample("ambient.parquet"),
        records=per_sample("ingest.json"),
    output:
        out="<results>/cohort/receptor_status.tsv",
    log:
        "<results>/logs/receptor-status.log",
    benchmark:
        "<results>/benchmarks/receptor-status.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        lists=lists("scores", "malignancy", "ambient", "records"),
        code=code_digest("receptor_status"),
        config=sections("receptors"),
    message:
        "Receptor status per patient"
    shell:
        "python -m nicheloop receptor-status {params.lists}"
        " --out {output.out:q} --config {params.config:q} 2> {log:q}"
