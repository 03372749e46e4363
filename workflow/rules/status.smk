rule status:
    input:
        records=per_sample("ingest.json"),
        qc=per_sample("qc.parquet"),
        moments=per_sample("moments.parquet"),
        evidence=per_sample("evidence.parquet"),
        ambient=per_sample("ambient.parquet"),
        malignancy=per_sample("malignancy.parquet"),
        scores=per_sample("scores.parquet"),
        csc=per_sample("csc.parquet"),
        csc_nulls=per_sample("csc_pairs.parquet"),
        tam=per_sample("tam.parquet"),
        crosstalk=per_sample("crosstalk.parquet"),
        loop=per_sample("loop.parquet"),
        pseudobulk=per_sample("pseudobulk.parquet"),
        screen=SCREENS,
        embedding="<results>/cohort/embedding.parquet",
        cell_types="<results>/cohort/cell_types.parquet",
        csc_rates="<results>/cohort/csc_rates.parquet",
    output:
        out="<results>/cohort/status.tsv",
        samples="<results>/cohort/samples.tsv",
        composition="<results>/cohort/composition.tsv",
        # samples/<sample>/status.json is written as well.  Snakemake notes every input for every output: with both per
        # sample its own process stood still for a minute at 260 samples.
    log:
        "<results>/logs/status.log",
    benchmark:
        "<results>/benchmarks/status.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("status"),
        folder=lambda wildcards, output: str(Path(output.out).parents[1]),
        names=SAMPLES,
        strict="--strict" if SETTINGS.strict else "",
    message:
        "Gathering what could and could not be done"
    shell:
        "python -m nicheloop status --results {params.folder:q} --samples {params.names:q} --out {output.out:q} {params.strict} 2> {log:q}"
