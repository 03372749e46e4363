"""Command line: parse, call ``run_<stage>``, log.  Stages are declared in one table; nothing heavy is imported for help."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import gc
import importlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nicheloop
from nicheloop.errors import UserError, error_number
from nicheloop.usage import Used

log = logging.getLogger("nicheloop")


@dataclass(frozen=True)
class Stage:
    """One subcommand: the function it calls and where each argument comes from."""

    name: str
    function: str  # "<module>.<function>"
    help: str
    files: dict[str, str]  # argument -> help; one path each
    lists: dict[str, str] = None  # type: ignore[assignment]  # argument -> help; one path per sample
    sections: dict[str, str] = None  # type: ignore[assignment]  # keyword -> config section
    seed: bool = False
    outputs: tuple[str, ...] = ("out",)
    threads: bool = False
    optional: dict[str, str] = None  # type: ignore[assignment]  # argument -> help; a path that may be left out


COUNTS = {"counts": "counts.h5ad of the sample"}
TYPES = {"cell_types": "cohort/cell_types.parquet"}
MALIGNANT = {"malignancy": "malignancy.parquet of the sample"}
STATES = {"csc": "csc.parquet of the sample", "tam": "tam.parquet of the sample"}
RECORD = {"record": "ingest.json of the sample"}
RECORDS = {"records": "ingest.json of every sample"}
RECEPTORS = {"receptors": "cohort/receptor_status.tsv: subtypes where the sheet has none"}


def _lists(*names: str) -> dict[str, str]:
    return {n: f"{n} file of every sample, in the same order" for n in names}


STAGES = (
    Stage("qc", "qc.run_qc", "cell filters, doublets and the reason of every dropped cell", COUNTS, sections={"options": "qc"}, seed=True),
    Stage("moments", "moments.run_moments", "mean and variance of every gene", {**COUNTS, "qc": "qc.parquet of the sample"}),
    Stage("hvg", "embed.run_hvg", "variable genes over samples", {}, _lists("moments"), {"options": "embed"}),
    Stage("embed", "embed.run_embed", "components, integration, neighbours, clusters and map", {"hvg": "cohort/hvg.parquet"},
          _lists("counts", "qc"), {"options": "embed", "kept": "annotate.n_neighbors"}, True,
          ("out_embedding", "out_clusters", "out_neighbors"), threads=True),
    Stage("evidence", "annotate.run_evidence", "marker evidence of every cell", {**COUNTS, "qc": "qc.parquet of the sample"},
          sections={"options": "annotate", "scoring": "scoring"}),
    Stage("annotate", "annotate.run_annotate", "cell types from the evidence of cells and their neighbours",
          {"neighbors": "cohort/neighbors.parquet", "clusters": "cohort/clusters.parquet"}, _lists("evidence"),
          {"options": "annotate"}),
    Stage("ambient", "ambient.run_ambient", "ambient RNA of a sample and its profiles by type", {**COUNTS, **TYPES},
          sections={"options": "ambient"}, outputs=("out", "out_profiles"), optional={"raw": "unfiltered matrix of the sample"}),
    Stage("cnv-reference", "malignancy.run_cnv_reference", "pooled reference expression", {}, {**_lists("profiles"), **RECORDS}),
    Stage("malignancy", "malignancy.run_malignancy", "malignant, normal or unassigned epithelium",
          {**COUNTS, **TYPES, "reference": "cohort/cnv_reference.parquet"}, sections={"options": "malignancy"}, seed=True,
          outputs=("out", "out_cnv")),
    Stage("score", "score.run_score", "gene-set scores against matched nulls",
          {**COUNTS, **TYPES, **MALIGNANT, "profiles": "profiles.parquet of the sample"}, sections={"options": "scoring"}),
    Stage("receptor-status", "receptor_status.run_receptor_status", "receptors and subtype from the RNA of malignant cells", {},
          {**_lists("scores", "malignancy", "ambient"), **RECORDS}, {"options": "receptors"}),
    Stage("csc-rates", "csc_rates.run_csc_rates", "rates of the low and high states", {}, {**_lists("scores", "ambient"), **RECORDS}, {"options": "csc"}),
    Stage("csc", "csc.run_csc", "CD44+/CD24- and ALDH1A3-high states of malignant cells",
          {"scores": "scores.parquet of the sample", "rates": "cohort/csc_rates.parquet", **RECORD,
           "ambient": "ambient.parquet of the sample"}, sections={"options": "csc"}),
    Stage("csc-patients", "csc_patients.run_csc_patients", "CSC states per patient with intervals", {"rates": "cohort/csc_rates.parquet"},
          {**_lists("csc", "scores", "ambient"), **RECORDS}, {"options": "csc"}, True, ("out", "out_controls"),
          optional=RECEPTORS),
    Stage("csc-nulls", "csc_nulls.run_csc_nulls", "nulls of a sample's CSC calls: stand-in pairs, read-outs against matched sets",
          {**COUNTS, "scores": "scores.parquet of the sample", "csc": "csc.parquet of the sample", **MALIGNANT,
           "rates": "cohort/csc_rates.parquet", "ambient": "ambient.parquet of the sample"},
          sections={"options": "csc", "scoring": "scoring"}, seed=True, outputs=("out", "out_readouts", "out_draws")),
    Stage("csc-cohort", "csc_cohort.run_csc_cohort", "CSC nulls, read-outs, marker loci, HER2 and PTEN over patients",
          {"csc_patients": "cohort/csc_patients.tsv"},
          {**_lists("csc", "scores", "malignancy", "ambient", "pairs", "readouts"), **RECORDS}, {"options": "csc"}, True,
          ("out", "out_readouts", "out_loci", "out_locus_tests", "out_her2_pten", "out_her2_pten_tests", "out_isoforms", "out_subtypes")),
    Stage("tam", "tam.run_tam", "macrophages on the M1 and M2 axes",
          {**COUNTS, **TYPES, "scores": "scores.parquet of the sample", "profiles": "profiles.parquet of the sample"},
          sections={"options": "tam", "scoring": "scoring"}, seed=True, outputs=("out", "out_draws")),
    Stage("tam-patients", "tam_patients.run_tam_patients", "macrophages per patient, markers, and the axes over patients", {},
          {**_lists("tam", "draws", "scores"), **RECORDS}, {"options": "tam"}, outputs=("out", "out_markers", "out_cohort"),
          optional=RECEPTORS),
    Stage("crosstalk", "crosstalk.run_crosstalk", "ligand-receptor axes of a sample, measurability first",
          {**COUNTS, **TYPES, **MALIGNANT, **STATES, "ambient": "ambient.parquet of the sample"}, sections={"options": "crosstalk"}, seed=True,
          outputs=("out", "out_decoys")),
    Stage("axes", "axes.run_axes", "axes over patients, positive controls and decoys", {},
          {**_lists("crosstalk", "decoy_pairs", "scores"), **RECORDS}, {"options": "crosstalk", "alpha": "loop.alpha"},
          outputs=("out", "out_subtypes", "out_controls", "out_decoys"), optional=RECEPTORS),
    Stage("screen", "screen.run_screen", "every pair of a ligand-receptor resource between every two cell types (optional)",
          {**COUNTS, **TYPES, **MALIGNANT, "ambient": "ambient.parquet of the sample"}, sections={"options": "screen", "crosstalk": "crosstalk"},
          seed=True, threads=True),
    Stage("loop", "loop.run_loop", "the three arms of the loop in a sample",
          {**COUNTS, **TYPES, **MALIGNANT, **STATES, "scores": "scores.parquet of the sample", "ambient": "ambient.parquet of the sample"},
          sections={"options": "loop", "crosstalk": "crosstalk", "scoring": "scoring"}, seed=True, outputs=("out", "out_chain")),
    Stage("loop-cohort", "loop_cohort.run_loop_cohort", "the loop over patients, with the coupling swap", {},
          {**_lists("loops", "chains", "scores"), **RECORDS}, {"options": "loop"}, True, ("out_loop", "out_cohort", "out_chains"),
          optional=RECEPTORS),
    Stage("pseudobulk", "enrich.run_pseudobulk", "summed counts of contrasted states", {**COUNTS, **STATES}, sections={"options": "enrich"}),
    Stage("enrich", "enrich.run_enrich", "differential expression and enrichment over patients", {}, {**_lists("pseudobulk", "scores"), **RECORDS},
          {"options": "enrich"}, True, ("out_de", "out_enrichment")),
    Stage("assemble", "assemble.run_assemble", "one atlas.h5ad of everything",
          {"embedding": "cohort/embedding.parquet", "clusters": "cohort/clusters.parquet", **TYPES},
          _lists("counts", "qc", "malignancy", "scores", "csc", "tam")),
)  # fmt: skip


def _resolve_config(text: str | None) -> Any:
    """Configuration from a YAML file or from JSON given on the command line; defaults without either."""
    from nicheloop.config import load_config, read_config

    if text is None:
        return load_config({})
    if text.lstrip().startswith("{"):
        return load_config(_json(text, "--config"), "--config")
    try:
        return read_config(text)
    except UnicodeError as err:
        raise UserError(f"{text}: cannot be read as a YAML text file ({err}). Check --config.") from None


def _json(text: str, option: str) -> dict[str, Any]:
    """JSON object given to an option."""
    try:
        value = json.loads(text)
    except ValueError as err:
        raise UserError(f"{option}: not valid JSON ({err}).") from None
    if not isinstance(value, dict):
        raise UserError(f'{option}: expected a JSON object such as {{"key": "value"}}, found {type(value).__name__}.')
    return value


def _cores(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of cores; give 1 or more")
    return int(text)


def _section(config: Any, path: str) -> Any:
    value = config
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _each(given: Sequence[str], samples: str | None) -> list[Path]:
    """Paths as given; with samples each of them stands for one path per sample, ``{sample}`` for its name."""
    if samples is None:
        return [Path(path) for path in given]
    around = [path.rpartition("{sample}") for path in given]
    return [Path(f"{before}{s if mark else ''}{after}") for before, mark, after in around for s in samples.split(",")]


def _run_stage(stage: Stage, args: argparse.Namespace) -> None:
    module, function = stage.function.split(".")
    call = getattr(importlib.import_module(f"nicheloop.{module}"), function)
    arguments: dict[str, Any] = {name: Path(getattr(args, name)) for name in (*stage.files, *stage.outputs)}
    arguments |= {name: Path(getattr(args, name)) for name in stage.optional or {} if getattr(args, name)}
    arguments |= {name: _each(getattr(args, name), args.samples) for name in stage.lists or {}}
    config = _resolve_config(args.config)
    arguments |= {keyword: _section(config, path) for keyword, path in (stage.sections or {}).items()}
    if stage.seed:
        arguments["seed"] = args.seed
    if stage.threads:
        arguments["threads"] = args.threads
    call(**arguments)
    if stage.name == "qc":
        _strict(args.out)


def _ingest(args: argparse.Namespace) -> None:
    from nicheloop import ingest, workflow

    row = workflow.complete(
        _json(args.row, "--row") if args.row else {"sample": args.sample or Path(args.path).name, "path": args.path}
    )
    ingest.run_ingest(
        Path(args.path), Path(args.out), Path(args.record_out), row=row, options=_resolve_config(args.config).ingest
    )
    _strict(args.record_out)


def _datasets(args: argparse.Namespace) -> None:
    from nicheloop import catalogue_text, datasets

    known = datasets.catalogue(_resolve_config(args.config).download.catalogue or None)
    print(catalogue_text.explain(args.name, known) if args.name else catalogue_text.overview(known))


def _download(args: argparse.Namespace) -> None:
    from nicheloop import datasets, launch

    options = _resolve_config(args.config).download
    launch.fetch_all(datasets.rows(",".join(args.names), options.catalogue), options)


def _fetch(args: argparse.Namespace) -> None:
    from nicheloop import download

    download.run_download(
        _json(args.file, "--file"), args.dataset, args.out, options=_resolve_config(args.config).download
    )


def _facts(args: argparse.Namespace) -> None:
    from nicheloop import facts

    facts.run_facts(
        _each(args.records, args.samples), args.out, catalogue=_resolve_config(args.config).download.catalogue
    )


def _strict(path: str) -> None:
    """With ``strict: true`` a sample that cannot be processed stops here; the workflow says so by the environment."""
    if os.environ.get("NICHELOOP_STRICT"):
        from nicheloop import status

        status.require_ok(Path(path))


def _simulate(args: argparse.Namespace) -> None:
    from nicheloop import simulate

    simulate.run_simulate(Path(args.out), options=_resolve_config(args.config).simulate, seed=args.seed)
    print(f"demo cohort written: {Path(args.out) / 'samples.tsv'}")


def _status(args: argparse.Namespace) -> None:
    from nicheloop import status

    status.run_status(Path(args.results), list(args.samples), Path(args.out), strict=args.strict)


def _provenance(args: argparse.Namespace) -> None:
    from nicheloop import provenance

    provenance.run_provenance(
        Path(args.results),
        Path(args.out),
        config=_resolve_config(args.config),
        command=os.environ.get("NICHELOOP_COMMAND"),
    )


def _verify(args: argparse.Namespace) -> int:
    from nicheloop import verify

    return verify.run_verify(Path(args.results))


def _report(args: argparse.Namespace) -> None:
    from nicheloop import report

    config = _resolve_config(args.config)
    threads = args.threads or config.report.threads
    report.run_report(Path(args.results), Path(args.out), config=config, threads=threads)


def _agreement(args: argparse.Namespace) -> None:
    from nicheloop import agreement

    out = Path(args.out) if args.out else Path(args.results) / "cohort" / "agreement.tsv"
    agreement.run_agreement(Path(args.results), out, options=_resolve_config(args.config).screen, seed=args.seed)


def _config(args: argparse.Namespace) -> None:
    from nicheloop import datasets
    from nicheloop.config import default_yaml, json_schema
    from nicheloop.io import write_json, write_text

    if not args.write:
        print(default_yaml(), end="")
        return
    write_text(Path(args.write) / "config.yaml", default_yaml())
    write_json(Path(args.write) / "workflow/schemas/config.schema.json", json_schema())
    write_json(Path(args.write) / "workflow/schemas/datasets.schema.json", datasets.json_schema())


def _outputs(args: argparse.Namespace) -> None:
    from nicheloop.io import write_text
    from nicheloop.tables import outputs_markdown

    if args.write:
        write_text(Path(args.write) / "docs/outputs.md", outputs_markdown())
    else:
        print(outputs_markdown(), end="")


def _run(args: argparse.Namespace) -> int:
    from nicheloop import launch

    return launch.run(
        args.paths,
        Path(args.out),
        cores=args.cores,
        config=args.config,
        dry_run=args.dry_run,
        snakemake=args.snakemake,
        keep_going=args.keep_going,
    )


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32, width=100)


class _Commands(argparse.RawDescriptionHelpFormatter):
    """Help of the whole program, wide enough for the longest command."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30, width=100)

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        self._action_max_length = max(self._action_max_length, 18)  # argparse forgets the indent of commands


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Build the argument parser; where `command` is a stage, without the other stages."""
    top = argparse.ArgumentParser(
        prog="nicheloop",
        formatter_class=_Commands,
        description=(
            "Cancer stem cells, macrophages and the IL6 / CXCL8 / CXCL7 loop in breast-tumour single-cell RNA-seq,\n"
            "per patient and with its uncertainty.\n\n"
            "start here:   nicheloop run FOLDER_OR_FILE ... --out results\n"
            "no data yet:  nicheloop run demo --out results"
        ),
    )
    top.add_argument("--version", action="version", version=f"nicheloop {nicheloop.__version__}")
    commands = top.add_subparsers(
        title="commands",
        description="'run' is all you need; it calls the others, which are the single steps of the workflow.",
        metavar="COMMAND",
        dest="command",
        required=True,
    )

    def add(name: str, text: str, call: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", formatter_class=_Formatter
        )
        sub.set_defaults(call=call)
        return sub

    run = add("run", "from files to report: each path is one sample", _run)
    run.add_argument(
        "paths", nargs="+", metavar="PATH",
        help="10x folder, .h5, .h5ad, .loom or dense table, or its https address; a sample sheet; a data set such as GSE176078; or 'demo'",
    )  # fmt: skip
    run.add_argument("--out", default="results", metavar="DIR", help="folder for all results (default: results)")
    run.add_argument("--cores", type=_cores, default=2, metavar="N", help="processor cores to use (default: 2)")
    run.add_argument("--config", metavar="FILE", help="your config.yaml; keys left out take their defaults")
    run.add_argument("--dry-run", action="store_true", help="check everything and list the jobs; run nothing")
    run.add_argument(
        "--keep-going", action="store_true", help="record a sample whose job was killed as failed and report the rest"
    )
    run.add_argument(
        "--snakemake", nargs=argparse.REMAINDER, default=[], help="everything after this goes to snakemake"
    )

    sub = add("datasets", "list the public data sets that can be run by name, or explain one", _datasets)
    sub.add_argument("name", nargs="?", metavar="NAME", help="data set to explain, such as GSE176078")
    _add_common(sub)
    sub = add("download", "fetch data sets into the cache, for a machine without network", _download)
    sub.add_argument("names", nargs="+", metavar="NAME", help="data sets, such as GSE176078 or GSE161529:ER-0001")
    _add_common(sub)
    sub = add("fetch", "fetch one file of a data set and write its receipt", _fetch)
    sub.add_argument("--file", required=True, metavar="JSON", help="the file's entry in the catalogue")
    sub.add_argument("--dataset", required=True, metavar="NAME", help="the data set it belongs to")
    sub.add_argument("--out", required=True, metavar="FILE", help="receipt to write")
    _add_common(sub)
    sub = add("facts", "check what papers state of the data sets used", _facts)
    sub.add_argument("--records", required=True, nargs="+", metavar="FILE", help="ingest.json of every sample")
    _add_samples(sub)
    sub.add_argument("--out", required=True, metavar="FILE", help="facts.tsv to write")
    _add_common(sub)

    sub = add("simulate", "write the demo cohort as 10x folders, with the truth beside it", _simulate)
    sub.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    _add_common(sub, seed=True)

    sub = add("ingest", "read counts of one sample, whatever their format", _ingest)
    sub.add_argument("--path", required=True, help="file or folder of the sample")
    sub.add_argument("--sample", help="name of the sample (default: the file's name)")
    sub.add_argument("--row", metavar="JSON", help="the sample's row of the sheet")
    sub.add_argument("--out", required=True, metavar="FILE", help="counts.h5ad to write")
    sub.add_argument("--record-out", required=True, metavar="FILE", help="ingest.json to write")
    _add_common(sub)

    mine = [stage for stage in STAGES if stage.name == command]
    for stage in mine or STAGES:
        sub = add(stage.name, stage.help, lambda args, stage=stage: _run_stage(stage, args))
        for name, text in stage.files.items():
            sub.add_argument(f"--{name.replace('_', '-')}", dest=name, required=True, metavar="FILE", help=text)
        for name, text in (stage.lists or {}).items():
            sub.add_argument(
                f"--{name.replace('_', '-')}", dest=name, required=True, nargs="+", metavar="FILE", help=text
            )
        if stage.lists:
            _add_samples(sub)
        for name, text in (stage.optional or {}).items():
            sub.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="FILE", help=f"{text} (optional)")
        for name in stage.outputs:
            sub.add_argument(
                f"--{name.replace('_', '-')}", dest=name, required=True, metavar="FILE", help="file to write"
            )
        if stage.threads:
            sub.add_argument("--threads", type=_cores, metavar="N", help="threads (default: the configuration's)")
        _add_common(sub, seed=stage.seed)

    sub = add("agreement", "compare the screen with liana's cellphonedb on a finished run (needs liana)", _agreement)
    sub.add_argument("results", metavar="DIR", help="results folder of a finished run")
    sub.add_argument("--out", metavar="FILE", help="table to write (default: DIR/cohort/agreement.tsv)")
    _add_common(sub, seed=True)

    sub = add("status", "gather what every stage could and could not do", _status)
    sub.add_argument("--results", required=True, metavar="DIR", help="results folder")
    sub.add_argument("--samples", required=True, nargs="+", metavar="NAME", help="sample names")
    sub.add_argument("--out", required=True, metavar="FILE", help="status.tsv to write; samples.tsv goes beside it")
    sub.add_argument("--strict", action="store_true", help="fail if a sample could not be processed")

    sub = add("report", "the HTML report", _report)
    sub.add_argument("--results", required=True, metavar="DIR", help="results folder")
    sub.add_argument("--out", required=True, metavar="FILE", help="report.html to write")
    sub.add_argument("--threads", type=_cores, metavar="N", help="processes (default: report.threads)")
    _add_common(sub)

    sub = add("provenance", "checksums of all that went in and came out", _provenance)
    sub.add_argument("--results", required=True, metavar="DIR", help="results folder")
    sub.add_argument("--out", required=True, metavar="FILE", help="provenance.json to write")
    _add_common(sub)

    sub = add("verify", "check a results folder against its provenance.json: checksums and contracts", _verify)
    sub.add_argument("results", metavar="DIR", help="results folder")

    sub = add("config", "print the commented default configuration", _config)
    sub.add_argument("--write", metavar="DIR", help="write config.yaml and its schema below this repository folder")
    sub = add("outputs", "print the description of every output table", _outputs)
    sub.add_argument("--write", metavar="DIR", help="write docs/outputs.md below this repository folder")
    return top


def _commands(top: argparse.ArgumentParser) -> list[str]:
    return [name for action in top._actions if isinstance(action.choices, dict) for name in action.choices]


def _no_command(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"no command '{word}'. Did you mean '{close[0]}'?"
    if Path(word).exists():
        return f"no command '{word}', but a file or folder: `nicheloop run {shlex.quote(word)} --out results` reads it."
    return (
        f"no command '{word}'. `nicheloop run PATH ... --out results` is all you need; `nicheloop --help` lists more."
    )


def _no_memory(command: str, err: MemoryError) -> str:
    rule = command.replace("-", "_")
    return (
        f"{command}: not enough memory ({str(err) or 'the system refused more'}). Give this step more, for instance "
        f"`--set-resources {rule}:mem_mb=16000` on a cluster, or close other programs and use fewer --cores."
    )


def _add_samples(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--samples", metavar="A,B", help="names that {sample} in a list of files stands for (optional)")


def _add_common(sub: argparse.ArgumentParser, *, seed: bool = False) -> None:
    sub.add_argument(
        "--config", metavar="FILE|JSON", help="config.yaml, or JSON of the sections needed (default: defaults)"
    )
    if seed:
        sub.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")


def calm_collector() -> None:
    """Let the garbage collector look less often: passes over modules that stay are a tenth of a short job's time."""
    gc.set_threshold(50_000, 20, 20)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    if argv is None:  # a process of our own, not a caller's
        calm_collector()
    words = list(sys.argv[1:] if argv is None else argv)
    top = parser(words[0] if words else None)
    if words and not words[0].startswith("-") and words[0] not in (known := _commands(top)):
        print(f"nicheloop: {_no_command(words[0], known)}", file=sys.stderr)
        return 2
    args = top.parse_args(words)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S"
    )
    logging.captureWarnings(True)
    used = Used()
    step = args.command not in ("run", "config", "outputs", "verify", "datasets", "download")
    try:
        with used if step else contextlib.nullcontext():
            code = args.call(args)
    except UserError as err:
        for message in err.messages:
            print(f"nicheloop: {message}", file=sys.stderr)
        return 2
    except OSError as err:
        code = error_number(err)
        if code is None:
            raise
        place = args.command if err.filename is None else err.filename
        print(
            f"nicheloop: {place}: {os.strerror(code)}. Look at the disk or its permissions, then run again: what was "
            "done is kept.",
            file=sys.stderr,
        )
        return 2
    except MemoryError as err:
        print(f"nicheloop: {_no_memory(args.command, err)}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    if step:
        log.info("%s finished in %s", args.command, used)
    return int(code or 0)
