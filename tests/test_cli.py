"""Command line: every command explains itself, fits the function it calls, and answers bad input in words."""

from __future__ import annotations

import importlib
import inspect
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nicheloop import cli, inputs, launch
from nicheloop.errors import UserError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "nicheloop", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("stage", cli.STAGES, ids=lambda s: s.name)
def test_a_stage_calls_its_function_with_exactly_its_arguments(stage: cli.Stage):
    module, function = stage.function.split(".")
    signature = inspect.signature(getattr(importlib.import_module(f"nicheloop.{module}"), function))
    given = {
        *stage.files,
        *(stage.lists or {}),
        *stage.outputs,
        *(stage.sections or {}),
        *(["seed"] if stage.seed else []),
    }
    required = {n for n, p in signature.parameters.items() if p.default is inspect.Parameter.empty}
    assert required <= given <= set(signature.parameters)


def test_help_of_every_command_reads():
    parser = cli.parser()
    names = [
        "run",
        "simulate",
        "ingest",
        "datasets",
        "download",
        "fetch",
        "facts",
        "status",
        "report",
        "config",
        "outputs",
        *[s.name for s in cli.STAGES],
    ]
    for name in names:
        with pytest.raises(SystemExit) as done:
            parser.parse_args([name, "--help"])
        assert done.value.code == 0


def test_help_needs_no_heavy_import():
    code = (
        "import sys; from nicheloop import cli; cli.parser().format_help(); print([m for m in sys.modules if m in %r])"
    )
    heavy = ["scanpy", "anndata", "pandas", "numpy", "scipy", "pydantic", "matplotlib"]
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.faults
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.h5", "--out", "{out}"], "nowhere.h5: no such file"),
        (["qc", "--counts", "nowhere.h5ad", "--out", "{out}/q.parquet"], "nowhere.h5ad"),
        (["qc", "--counts", "x", "--out", "y", "--config", '{"qc": {"n_mad": 1}}'], "Did you mean 'n_mads'"),
        (["run", "demo", "--out", "{out}", "--config", "nowhere.yaml"], "nowhere.yaml: no such configuration file"),
        (["run", "demo", "--out", "{out}", "--config", "{out}"], "cannot be read as a YAML text file"),
        (["run", "demo", "--out", "{out}", "--cores", "0"], "give 1 or more"),
        (["run", "demo", "--out", "{out}/a{b}"], "curly bracket"),
        (["run", "demo", "--out", "/proc/nicheloop"], "cannot be created"),
        (["run", "{out}", "--out", "{out}/o"], "no sample can be used; nothing was started"),
        (["run", "demo", "{out}", "--out", "{out}/o"], "'demo' alone"),
        (["run", "GSE999999", "--out", "{out}/o"], "dataset 'GSE999999' is not in the catalogue"),
        (["run", "Bassez2021", "--out", "{out}/o"], "R objects"),
        (["run", "GSE176078:CID1", "--out", "{out}/o"], "has no sample 'CID1'"),
        (["datasets", "nowhere"], "is not in the catalogue"),
        (
            ["download", "tenx-idc", "--config", '{"download": {"offline": true, "cache": "/proc/x"}}'],
            "cannot be created",
        ),
        (["fetch", "--file", "[1]", "--dataset", "D", "--out", "{out}/r"], "--file: expected a JSON object"),
        (["ingest", "--path", "x", "--out", "y", "--record-out", "z", "--row", "{bad"], "--row: not valid JSON"),
        (["ingest", "--path", "x", "--out", "y", "--record-out", "z", "--row", "[1]"], "--row: expected a JSON object"),
        (["qc", "--counts", "x", "--out", "y", "--config", "{bad"], "--config: not valid JSON"),
        (["run1", "x"], "no command 'run1'. Did you mean 'run'?"),
        (["{out}"], "but a file or folder: `nicheloop run {out} --out results`"),
        (["run", "~nobody_of_this_name/x.h5", "--out", "{out}"], "cannot be used as a path"),
        (["run", "x" * 5000, "--out", "{out}"], "File name too long"),
        (["run", "demo", "--out", "~nobody_of_this_name/o"], "cannot be used as a path"),
        (["status", "--results", "{out}", "--samples", "a", "--out", "/dev/null/x"], "/dev/null: "),
    ],
)
def test_bad_input_is_a_message_and_exit_code_2(arguments: list[str], words: str, tmp_path: Path):
    done = run(*[a.replace("{out}", str(tmp_path)) if "{out}" in a else a for a in arguments])
    assert done.returncode == 2, done.stderr
    assert words.replace("{out}", str(tmp_path)) in done.stderr
    assert "Traceback" not in done.stderr


def test_paths_become_a_sheet_and_sheets_are_taken_as_they_are(tmp_path: Path):
    (tmp_path / "a.h5").write_text("")
    assert launch.sheet_for(["demo"], tmp_path) == "demo"
    written = Path(launch.sheet_for([str(tmp_path / "a.h5")], tmp_path / "out"))
    assert written.read_text() == f"sample\tpath\na\t{(tmp_path / 'a.h5').resolve()}\n"
    assert launch.sheet_for([str(written)], tmp_path / "out") == str(written)


def test_what_is_meant_as_a_sheet_is_read_as_one(tmp_path: Path):
    (tmp_path / "a.h5").write_text("")
    texts = {
        "good.csv": "Sample,Path\nx,a.h5\n",
        "half.tsv": "name\tpath\nx\ta.h5\n",
        "bare.txt": "sample\tfile\nx\ta.h5\n",
    }
    counts = {"cells.csv": "sample,CD44,IL6\nc1,1,2\n", "genes.csv": "gene,a,b\nCD44,1,2\n"}
    for name, text in {**texts, **counts}.items():
        (tmp_path / name).write_text(text)
    assert [launch.is_sheet(tmp_path / n) for n in (*texts, *counts)] == [True] * 3 + [False] * 2
    for name in ("half.tsv", "bare.txt"):
        with pytest.raises(UserError, match="is missing"):
            launch.sheet_for([str(tmp_path / name)], tmp_path / "out")
    with pytest.raises(UserError, match="stands alone"):
        launch.sheet_for([str(tmp_path / "good.csv"), str(tmp_path / "a.h5")], tmp_path / "out")


@pytest.mark.faults
def test_the_survey_names_good_and_bad_samples_and_only_none_at_all_stops(tmp_path: Path, capsys):
    (tmp_path / "good.csv").write_text("gene,a,b\nCD44,1,2\n")
    (tmp_path / "bad.csv").write_text("<html>\n404\n")
    rows = [{"sample": n, "path": str(tmp_path / f"{n}.csv"), "format": None} for n in ("good", "bad")]
    seen = launch.survey(rows)
    assert seen.good == [("good", "dense", str(tmp_path / "good.csv"))]
    assert launch.aligned([("a", "dense", "x"), ("long", "h5ad", "y")]) == ["a     dense  x", "long  h5ad   y"]
    assert len(seen.bad) == 1
    assert "bad.csv: no column of numbers" in seen.bad[0]
    launch._announce(rows, keep_going=False)
    said = capsys.readouterr()
    assert "good.csv" in said.out
    assert "The run goes on without it" in said.err
    with pytest.raises(UserError, match="nothing was started"):
        launch._announce(rows[1:], keep_going=False)


@pytest.mark.faults
def test_a_file_that_cannot_be_opened_now_stops_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    """Its job would fail; with --keep-going the others are run."""
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("gene,a,b\nCD44,1,2\n")
    rows = [{"sample": n, "path": str(tmp_path / f"{n}.csv"), "format": None} for n in "ab"]
    whole = inputs.open_bytes

    def refuse(path: Path):
        if path.name == "b.csv":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(inputs, "open_bytes", refuse)
    with pytest.raises(UserError, match=r"b\.csv: no permission") as caught:
        launch._announce(rows, keep_going=False)
    assert "--keep-going" in str(caught.value)
    launch._announce(rows, keep_going=True)
    assert "b.csv: no permission" in capsys.readouterr().err


@pytest.mark.faults
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(launch.io, "write_text", refuse)
    with pytest.raises(UserError, match=r"cannot be written to .Permission denied."):
        launch._prepare_folder(tmp_path)


@pytest.mark.faults
def test_samples_that_were_not_used_and_warnings_are_said_at_the_end(tmp_path: Path):
    records = {
        "a": {"status": "unreadable", "reason": "a.h5: damaged.", "warnings": []},
        "b": {"status": "ok", "reason": "", "warnings": ["genes in rows", "3 gene names became dates"]},
    }
    for name, record in records.items():
        launch.io.write_json(tmp_path / "samples" / name / "ingest.json", record)
    rows = [{"sample": n} for n in ("a", "b", "not_run")]
    assert launch._aftermath(tmp_path, rows) == [
        "sample a was not used (unreadable): a.h5: damaged.",
        "sample b: 3 gene names became dates.",
    ]


@pytest.mark.parametrize("quote", ["", "'"])
def test_of_a_failed_step_the_cause_and_the_log_are_shown(tmp_path: Path, capfd, quote: str):
    log = tmp_path / f"o{quote} x" / "logs" / "qc" / "s1.log"
    log.parent.mkdir(parents=True)
    log.write_text("12:00 something\nTraceback\nnicheloop: a.h5: damaged.\n12:01 end\n")
    failed = subprocess.CalledProcessError(2, f"set -e; python -m nicheloop qc 2> {shlex.quote(str(log))}")
    code = f"import sys; print({str(failed)!r}, file=sys.stderr)"
    for quiet in (True, False):
        launch._follow([sys.executable, "-c", code], {}, quiet=quiet)
        err = capfd.readouterr().err
        assert err == f"nicheloop: step qc/s1 failed:\nnicheloop: a.h5: damaged.\n  {log}\n"
    assert launch._cause("/nowhere/at/all.log") is None


def test_routine_of_the_workflow_engine_is_left_out_and_trouble_is_not(capfd):
    said = (
        "Building DAG of jobs...|Job stats:|job  count|---  -----|qc  3|Select jobs to execute...|Execute 1 jobs...|"
        "[Sun Nov  2 05:49:15 2026]|Finished jobid: 1 (Rule: report)|1 of 2 steps (50%) done|Error in rule qc:|    jobid: 3"
    ).replace("|", "\n")
    code = launch._follow(
        [sys.executable, "-c", f"import sys; print({said!r}, file=sys.stderr); sys.exit(3)"], {}, quiet=True
    )
    out, err = capfd.readouterr()
    assert code == 3
    assert out == "  1 of 2 steps (50%) done: report\n"
    assert err == "Error in rule qc:\n"


def test_on_a_terminal_the_steps_are_one_line(capsys, monkeypatch: pytest.MonkeyPatch):
    for terminal, expected in ((False, "a\nb\n"), (True, "\r\033[Ka\r\033[Kb\n")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        steps = launch.Steps()
        for words in "ab":
            steps.show(words)
        steps.close()
        steps.close()
        assert capsys.readouterr().out == expected


def test_the_plan_is_short():
    head = "Job stats:\njob      count\n------  ------\n"
    table = "ingest      3\nqc          3\nembed       1\nall         1\ntotal       8\n"
    said = f"{head}{table}\nrule ingest:\n    jobid: 1\n{head}{table}\nReasons:\n    input: ingest\nqc 5\n"
    assert launch.plan_lines(said) == ["7 jobs would run:", "     3 x  ingest, qc", "     1 x  embed"]
    assert launch.plan_lines("Building DAG of jobs...\nNothing to be done.\n") == []


def test_words_of_the_command_line_are_data_sets_or_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tenx-idc").mkdir()  # what is there is a path, whatever its name
    words = ["GSE176078:CID3586,CID44971", "tenx-idc", "x.h5", "gse75688", "https://a.org/GSE1.h5"]
    chosen, paths = launch.named(words, "")
    assert chosen == ["GSE176078:CID3586,CID44971", "gse75688"]
    assert paths == ["tenx-idc", "x.h5", "https://a.org/GSE1.h5"]


def test_a_run_that_fails_in_the_same_place_again_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever makes the workflow try again what is recorded as failed: it is not recorded for ever."""
    calls: list[list[str]] = []

    def follow(command: list[str]) -> int:
        calls.append(command)
        return 1

    monkeypatch.setattr(launch, "_close", lambda *_: (["a.parquet"], ["sample a is recorded as failed"]))
    assert launch._keep_going(["snakemake", "--cores", "2", "--config", "x=1"], ["-R", "b"], follow, tmp_path, []) == 1
    assert ["--cleanup-metadata" in c for c in calls] == [False, True, False]
    assert ["-R" in c for c in calls] == [True, False, False]


@pytest.mark.parametrize("name", [stage.name for stage in cli.STAGES])
def test_a_stage_is_parsed_the_same_whether_or_not_the_others_are_there(name: str):
    def commands(top):
        return next(a for a in top._actions if isinstance(a.choices, dict)).choices

    whole, alone = commands(cli.parser()), commands(cli.parser(name))
    assert alone[name].format_help() == whole[name].format_help()
    stages = {stage.name for stage in cli.STAGES}
    assert set(alone) == (set(whole) - stages) | {name}


def test_a_word_that_is_no_stage_meets_all_commands(capsys):
    assert cli.main(["crostalk"]) == 2
    assert "Did you mean 'crosstalk'?" in capsys.readouterr().err
