"""Shipped signatures: what a stage reads by name is there, under current symbols, and free of the markers."""

from __future__ import annotations

import pytest

from nicheloop import genes, resources, score, state_readouts, tam

MARKERS = {"CD44", "CD24", "ALDH1A3"}


def test_every_signature_a_stage_reads_is_shipped() -> None:
    wanted = {
        *state_readouts.SCORES.values(),
        *state_readouts.CYCLE,
        "EMT_malignant",
        *score.LEVELS,
        *tam.STATES,
        "M1",
        "M2",
    }
    assert wanted <= set(resources.yaml("signatures.yaml"))


@pytest.mark.parametrize("name", sorted(genes.signatures()))
def test_a_signature_holds_current_symbols_once_and_names_its_source(name: str) -> None:
    signature = resources.yaml("signatures.yaml")[name]
    assert signature["source"]
    assert len(signature["genes"]) == len(set(signature["genes"]))
    assert [genes.resolve(g) for g in signature["genes"]] == signature["genes"]


def test_no_readout_or_covariate_of_a_state_holds_its_markers() -> None:
    sets = genes.signatures()
    covariates = {g for n in (*state_readouts.SCORES.values(), *state_readouts.CYCLE) for g in sets[n].genes}
    assert not MARKERS & covariates
    assert not MARKERS & {g for members in state_readouts.readout_genes().values() for g in members}


def test_tables_come_without_comment_lines() -> None:
    rows = resources.tsv("hallmark.tsv")
    assert len(rows) == 50
    assert not any(r[0].startswith("#") for r in rows)
