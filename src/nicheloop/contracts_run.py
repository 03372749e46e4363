"""Contracts of what came in and how the run ended."""

from __future__ import annotations

from nicheloop.contracts import PATIENT, SAMPLE, Column, declare

declare(
    "status", "cohort/status.tsv", "what every stage could and could not do for every sample", ["stage", "sample"],
    Column("stage", "str", "stage"),
    Column("sample", "str", "sample; 'cohort' for gather stages"),
    Column("status", "str", "ok, or the named reason"),
    Column("reason", "str", "in words, with numbers"),
    Column("summary", "str", "figures of the stage as JSON"),
)  # fmt: skip
declare(
    "samples", "cohort/samples.tsv", "one row per sample: sheet, ingest figures and feature guards", ["sample"],
    SAMPLE, PATIENT,
    Column(r"(?!sample$|patient$).+", "str", "sheet columns, counts of features and cells, guards", "-", "unknown", pattern=True),
)  # fmt: skip
declare(
    "facts", "cohort/facts.tsv", "what papers state of the public data sets used, against what was read", ["dataset", "fact"],
    Column("dataset", "str", "name in the catalogue"),
    Column("fact", "str", "id of the fact in the catalogue"),
    Column("claim", "str", "in words"),
    Column("expected", "str", "as published"),
    Column("found", "str", "as read"),
    Column("result", "str", "not_checked: only some of its samples were chosen, or one of them could not be read",
           allowed=("pass", "differ", "not_checked")),
    Column("severity", "str", "hard: a difference means other data than described; soft: worth a look", allowed=("hard", "soft")),
    Column("source", "str", "where the fact stands"),
    optional=True,
)  # fmt: skip
