rule tam:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
        cell_types="<results>/cohort/cell_types.parquet",
        scores="<results>/samples/{sample}/scores.parquet",
        profiles="<results>/samples/{sample}/profiles.parquet",
    output:
        out="<results>/samples/{sample}/tam.parquet",
        out_draws="<results>/samples/{sample}/tam_draws.parquet",
    log:
        "<results>/logs/tam/{sample}.log",
    benchmark:
        "<results>/benchmarks/tam/{sample}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("tam"),
        config=sections("tam", "scoring"),
        seed=SETTINGS.seed,
    message:
        "Macrophages of {wildcards.sample}"
    shell:
        "python -m nicheloop tam"
        " --counts {input.counts:q} --cell-types {input.cell_types:q} --scores {input.scores:q}"
        " --profiles {input.profiles:q} --out {output.out:q} --out-draws {output.out_draws:q}"
        " --config {params.config:q} --seed {params.seed} 2> {log:q}"


rule tam_patients:
    input:
        tam=per_sample("tam.parquet"),
        draws=per_sample("tam_draws.parquet"),
        scores=per_sample("scores.parquet"),
        records=per_sample("ingest.json"),
        receptors="<results>/cohort/receptor_status.tsv",
    output:
        out="<results>/cohort/tam_patients.tsv",
        out_markers="<results>/cohort/tam_markers.tsv",
        out_cohort="<results>/cohort/tam_cohort.tsv",
    log:
        "<results>/logs/tam-patients.log",
    benchmark:
        "<results>/benchmarks/tam-patients.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        lists=lists("tam", "draws", "scores", "records"),
        code=code_digest("tam_patients"),
        config=sections("tam"),
    message:
        "Macrophages per patient"
    shell:
        "python -m nicheloop tam-patients {params.lists}"
        " --out {output.out:q} --out-markers {output.out_markers:q} --out-cohort {output.out_cohort:q}"
        " --receptors {input.receptors:q}"
        " --config {params.config:q} 2> {log:q}"
