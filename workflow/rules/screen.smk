# Optional: only with screen.resource in the configuration.
from nicheloop import interactions

SCREENS = per_sample("screen.parquet") if SETTINGS.screen.resource else []


rule screen:
    input:
        counts="<results>/samples/{sample}/counts.h5ad",
        cell_types="<results>/cohort/cell_types.parquet",
        malignancy="<results>/samples/{sample}/malignancy.parquet",
        ambient="<results>/samples/{sample}/ambient.parquet",
        # an edit of the resource re-runs the screen
        resource=lambda wildcards: [str(path) for path in interactions.files(SETTINGS.screen.resource)],
    output:
        out="<results>/samples/{sample}/screen.parquet",
    log:
        "<results>/logs/screen/{sample}.log",
    benchmark:
        "<results>/benchmarks/screen/{sample}.tsv"
    conda:
        "../../environment.yml"
    # Samples side by side use cores better than threads inside one.
    # A cluster has no number of cores.
    threads: max(1, min(SETTINGS.screen.threads, (workflow.resource_settings.cores or 2**20) // len(SAMPLES)))
    resources:
        mem_mb=memory(),
        runtime=minutes(30),
    params:
        code=code_digest("screen"),
        config=sections("screen", "crosstalk"),
        seed=SETTINGS.seed,
    message:
        "Ligand-receptor screen of {wildcards.sample}"
    shell:
        "python -m nicheloop screen"
        " --counts {input.counts:q} --cell-types {input.cell_types:q}"
        " --malignancy {input.malignancy:q} --ambient {input.ambient:q}"
        " --out {output.out:q} --config {params.config:q} --seed {params.seed} --threads {threads} 2> {log:q}"
