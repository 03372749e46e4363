# Not a parameter of the rule: where a file is kept and how often it is tried changes nothing in it.
os.environ.update(NICHELOOP_DOWNLOAD=stage_config(SETTINGS, "download"))


rule download:
    output:
        "<results>/downloads/{dataset}/{file}.json",
    log:
        "<results>/logs/download/{dataset}/{file}.log",
    benchmark:
        "<results>/benchmarks/download/{dataset}/{file}.tsv"
    wildcard_constraints:
        dataset="|".join(sorted({re.escape(dataset) for dataset, _ in DOWNLOADS})) or "none",
        file="|".join(sorted({re.escape(name) for _, name in DOWNLOADS})) or "none",
    retries: 1
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("download"),
        entry=lambda wildcards: json.dumps(DOWNLOADS[wildcards.dataset, wildcards.file], sort_keys=True),
    message:
        "Fetching {wildcards.file} of {wildcards.dataset}"
    shell:
        "python -m nicheloop fetch --file {params.entry:q} --dataset {wildcards.dataset:q} --out {output:q}"
        ' --config "$NICHELOOP_DOWNLOAD" 2> {log:q}'


rule facts:
    input:
        records=per_sample("ingest.json"),
    output:
        "<results>/cohort/facts.tsv",
    log:
        "<results>/logs/facts.log",
    benchmark:
        "<results>/benchmarks/facts.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(0, 1500),
        runtime=minutes(30),
    params:
        lists=lists("records"),
        code=code_digest("facts"),
        config=json.dumps({"download": {"catalogue": SETTINGS.download.catalogue}}),
    message:
        "Checking what the papers state"
    shell:
        "python -m nicheloop facts {params.lists} --out {output:q} --config {params.config:q} 2> {log:q}"
