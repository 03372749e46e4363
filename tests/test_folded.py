"""One file of every sample in few words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicheloop import folded

NAMES = st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True), unique=True, max_size=8)
FOLDERS = st.sampled_from(["", "/r/", "a b/samples/x/", "/with {braces}, commas/", "/samples/{A,B}/"])


@given(samples=NAMES, folder=FOLDERS)
def test_what_is_folded_unfolds_to_the_same_paths(samples, folder):
    paths = [f"{folder}samples/{s}/qc.parquet" for s in samples]
    short = folded.fold(paths)
    assert folded.unfold(short) == paths
    assert len(short) == min(1, len(paths))


@pytest.mark.parametrize(
    "paths",
    [
        ["a/samples/x/qc.parquet", "b/samples/y/qc.parquet"],
        ["a/samples/x/qc.parquet", "a/samples/y/csc.parquet"],
        ["a/samples/x/qc.parquet", "a/other/y/qc.parquet"],
        ["one.parquet"],
        [],
    ],
)
def test_other_paths_stay_as_they_are(paths):
    assert folded.fold(paths) == paths and folded.unfold(paths) == paths


def test_a_thousand_samples_fit_into_a_command():
    paths = [f"/home/user/project/results/samples/tumour_{i:04d}/counts.h5ad" for i in range(1000)]
    assert len(" ".join(paths)) > 50_000 and len(folded.fold(paths)[0]) < 13_000
