rule simulate:
    output:
        sheet="<results>/demo/samples.tsv",
        truth="<results>/demo/truth_cells.tsv.gz",
        truth_samples="<results>/demo/truth_samples.tsv",
        data=[
            f"<results>/demo/{sample}/{part}"
            for sample in (SAMPLES if DEMO else [])
            for part in ("matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz")
        ],
    log:
        "<results>/logs/simulate.log",
    benchmark:
        "<results>/benchmarks/simulate.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(0, 2000),
        runtime=minutes(30),
    params:
        code=code_digest("simulate"),
        config=sections("simulate"),
        seed=SETTINGS.seed,
        folder=lambda wildcards, output: str(Path(output.sheet).parent),
    message:
        "Simulating the demo cohort"
    shell:
        "python -m nicheloop simulate --out {params.folder:q} --config {params.config:q} --seed {params.seed}"
        " > {log:q} 2>&1"
