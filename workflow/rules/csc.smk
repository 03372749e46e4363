rule csc_rates:
    input:
        scores=per_sample("scores.parquet"),
        ambient=per_sample("ambient.parquet"),
        records=per_sample("ingest.json"),
    output:
        out="<results>/cohort/csc_rates.parquet",
    log:
        "<results>/logs/csc-rates.log",
    benchmark:
        "<results>/benchmarks/csc-rates.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        lists=lists("scores", "ambient", "records"),
        code=code_digest("csc_rates"),
        config=sections("csc"),
    message:
        "Rates of CD44, CD24 and ALDH1A3"
    shell:
        "python -m nicheloop csc-rates {params.lists}" " --out {output.out:q} --config {params.config:q} 2> {log:q}"


rule csc:
    input:
        scores="<results>/samples/{sample}/scores.parquet",
        rates="<results>/cohort/csc_rates.parquet",
        record="<results>/samples/{sample}/ingest.json",
        ambient="<results>/samples/{sample}/ambient.parquet",
    output:
        out="<results>/samples/{sample}/csc.parquet",
    log:
        "<results>/logs/csc/{sample}.log",
    benchmark:
        "<results>/benchmarks/csc/{sample}.tsv"
    # Much waits for it, and it is short.
    priority: 10
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("csc"),
        config=sections("csc"),
    message:
        "Cancer stem cells of {wildcards.sample}"
    shell:
        "python -m nicheloop csc"
        " --scores {input.scores:q} --rates {input.rates:q} --record {input.record:q}"
        " --ambient {input.ambient:q} --out {output.out:q} --config {params.config:q} 2> {log:q}"


rule csc_patients:
    input:
        rates="<results>/cohort/csc_rates.parquet",
        receptors="<results>/cohort/receptor_status.tsv",
        csc=per_sample("csc.parquet"),
        scores=per_sample("scores.parquet"),
        ambient=per_sample("ambient.parquet"),
        records=per_sample("ingest.json"),
    output:
        out="<results>/cohort/csc_patients.tsv",
        out_controls="<results>/cohort/csc_controls.tsv",
    log:
        "<results>/logs/csc-patients.log",
    benchmark:
        "<results>/benchmarks/csc-patients.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        lists=lists("csc", "scores", "ambient", "records"),
        code=code_digest("csc_patients"),
        config=sections("csc"),
        seed=SETTINGS.seed,
    message:
        "Cancer stem cells per patient"
    shell:
        "python -m nicheloop csc-patients {params.lists}"
        " --rates {input.rates:q}"
        " --out {output.out:q}"
        " --out-controls {output.out_controls:q} --receptors {input.receptors:q}"
        " --config {params.config:q} --seed {params.seed} 2> {log:q}"


rule csc_nulls:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
        scores="<results>/samples/{sample}/scores.parquet",
        csc="<results>/samples/{sample}/csc.parquet",
        malignancy="<results>/samples/{sample}/malignancy.parquet",
        rates="<results>/cohort/csc_rates.parquet",
        ambient="<results>/samples/{sample}/ambient.parquet",
    output:
        out="<results>/samples/{sample}/csc_pairs.parquet",
        out_readouts="<results>/samples/{sample}/csc_readouts.parquet",
        out_draws="<results>/samples/{sample}/csc_draws.parquet",
    log:
        "<results>/logs/csc-nulls/{sample}.log",
    benchmark:
        "<results>/benchmarks/csc-nulls/{sample}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(per_input_mb=8),
        runtime=minutes(60),
    params:
        code=code_digest("csc_nulls"),
        config=sections("csc", "scoring"),
        seed=SETTINGS.seed,
    message:
        "Nulls of the cancer stem cell calls of {wildcards.sample}"
    shell:
        "python -m nicheloop csc-nulls"
        " --counts {input.counts:q} --scores {input.scores:q} --csc {input.csc:q}"
        " --malignancy {input.malignancy:q} --rates {input.rates:q} --ambient {input.ambient:q}"
        " --out {output.out:q} --out-readouts {output.out_readouts:q} --out-draws {output.out_draws:q}"
        " --config {params.config:q} --seed {params.seed} 2> {log:q}"


rule csc_cohort:
    input:
        csc_patients="<results>/cohort/csc_patients.tsv",
        csc=per_sample("csc.parquet"),
        scores=per_sample("scores.parquet"),
        malignancy=per_sample("malignancy.parquet"),
        ambient=per_sample("ambient.parquet"),
        pairs=per_sample("csc_pairs.parquet"),
        readouts=per_sample("csc_readouts.parquet"),
        records=per_sample("ingest.json"),
    output:
        out="<results>/cohort/csc_nulls.tsv",
        out_readouts="<results>/cohort/csc_readouts.tsv",
        out_loci="<results>/cohort/csc_loci.tsv",
        out_locus_tests="<results>/cohort/csc_locus_tests.tsv",
        out_her2_pten="<results>/cohort/her2_pten.tsv",
        out_her2_pten_tests="<results>/cohort/her2_pten_tests.tsv",
        out_isoforms="<results>/cohort/csc_isoforms.tsv",
        out_subtypes="<results>/cohort/csc_subtypes.tsv",
    log:
        "<results>/logs/csc-cohort.log",
    benchmark:
        "<results>/benchmarks/csc-cohort.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        lists=lists("csc", "scores", "malignancy", "ambient", "pairs", "readouts", "records"),
        code=code_digest("csc_cohort"),
        config=sections("csc"),
        seed=SETTINGS.seed,
    message:
        "Nulls, read-outs and loci of cancer stem cell states over patients"
    shell:
        "python -m nicheloop csc-cohort {params.lists}"
        " --csc-patients {input.csc_patients:q}"
        " --out {output.out:q} --out-readouts {output.out_readouts:q} --out-loci {output.out_loci:q}"
        " --out-locus-tests {output.out_locus_tests:q} --out-her2-pten {output.out_her2_pten:q}"
        " --out-her2-pten-tests {output.out_her2_pten_tests:q} --out-isoforms {output.out_isoforms:q}"
        " --out-subtypes {output.out_subtypes:q}"
        " --config {params.config:q} --seed {params.seed} 2> {log:q}"
