"""Pseudobulk contrasts between states within patients, and enrichment of their rankings.  See docs/enrich.md."""

from __future__ import annotations

import contextlib
import io as text_io
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nicheloop import io, stats
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    import pandas as pd

    from nicheloop.config_niche import Enrich

# contrast -> (table, column, high side, low side, genes that define the contrast)
CONTRASTS: dict[str, tuple[str, str, str, str]] = {
    "m_csc": ("csc", "csc_state", "m_csc", "other"),
    "aldh1a3": ("csc", "aldh1a3_state", "high", "low"),
    "tam_m2": ("tam", "tam_class", "m2_like", "m1_like"),
}
WORDS = {
    "m_csc": ("CSC-high", "other malignant"),
    "aldh1a3": ("ALDH1A3-high", "ALDH1A3-low malignant"),
    "tam_m2": ("M2-like", "M1-like"),
}
DEFINING = {"m_csc": ("CD24", "CD44"), "aldh1a3": ("ALDH1A3",)}


def defining_genes(contrast: str) -> tuple[str, ...]:
    """Genes by which the two sides were told apart: they differ by construction.

    They leave rankings and gene sets, and are marked ``circular`` in the table of genes.
    """
    from nicheloop import genes

    if contrast in DEFINING:
        return DEFINING[contrast]
    signatures = genes.signatures()
    return tuple(sorted({*signatures["M1"].genes, *signatures["M2"].genes}))


def run_pseudobulk(counts: str | Path, csc: str | Path, tam: str | Path, out: str | Path, *, options: Enrich) -> None:
    """Write summed counts of both sides of each contrast; too small ones are left out, and the summary says so."""
    import pandas as pd

    reader = io.Counts(counts)
    with io.stage_output(out, "pseudobulk", stage="pseudobulk", sample=reader.sample) as result:
        reader.require(counts=True)
        tables = {"csc": csc, "tam": tam}
        groups: dict[tuple[str, str], np.ndarray] = {}
        for contrast, (source, column, high, low) in CONTRASTS.items():
            cells = io.read_table(tables[source], columns=["cell_id", column])
            status = io.read_status(tables[source])
            state = cells[column].astype(object).to_numpy()
            sides = {side: cells["cell_id"].to_numpy(dtype=object)[state == side] for side in (high, low)}
            sizes = {f"{contrast}_{side}": len(ids) for side, ids in sides.items()}
            if min(sizes.values()) < options.min_cells:
                why = f" ({source}: {status.status})" if not status.ok else ""
                said = " and ".join(f"{n} {name} cells" for name, n in sizes.items())
                result.summary[contrast] = f"left out: {said}{why}; {options.min_cells} of each are needed"
                continue
            result.summary[contrast] = " and ".join(f"{n} {name} cells" for name, n in sizes.items())
            groups.update({(contrast, side): ids for side, ids in sides.items()})
        if not groups:
            raise NotAssessable("too_few_cells", "; ".join(f"{k} {v}" for k, v in result.summary.items()))
        wanted = np.unique(np.concatenate(list(groups.values())))
        x = reader.matrix(cells=wanted)
        indicator = np.array([np.isin(wanted, ids) for ids in groups.values()], dtype=np.float64)
        sums = np.asarray(x.T.astype(np.float64) @ indicator.T).T
        result.table = pd.concat(
            [
                pd.DataFrame(
                    {
                        "contrast": contrast,
                        "state": f"{contrast}_{side}",
                        "n_cells": len(ids),
                        "gene": reader.genes,
                        "counts": total,
                    }
                )
                for ((contrast, side), ids), total in zip(groups.items(), sums, strict=True)
            ],
            ignore_index=True,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress of the fits out of the log; their errors still come through."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(text_io.StringIO()),
        contextlib.redirect_stderr(text_io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def wide(rows: pd.DataFrame, contrast: str, min_counts: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Arrange pseudobulks of one contrast for a paired fit.

    Parameters
    ----------
    rows
        Rows of the ``pseudobulk`` contract with a column ``patient``.
    min_counts
        Counts a gene must reach in at least half of the pseudobulks (one per patient).

    Returns
    -------
    counts (pseudobulks, genes) int, and metadata with patient and state (high, low), both sorted by patient and state;
    only patients with both states, and genes that are in every one of their samples.
    """
    import pandas as pd

    _, _, high, low = CONTRASTS[contrast]
    sides = {f"{contrast}_{high}": "high", f"{contrast}_{low}": "low"}
    mine = rows[(rows["contrast"] == contrast) & rows["state"].isin(sides)]
    mine = mine.assign(side=mine["state"].map(sides).astype(object))
    table = mine.pivot(index=["patient", "side"], columns="gene", values="counts").sort_index()
    both = table.index.get_level_values("patient").value_counts()
    table = table[table.index.get_level_values("patient").isin(both.index[both == 2])]
    table = table.dropna(axis="columns")  # a gene that one reference lacks is not zero there
    enough = (table >= min_counts).sum() >= len(table) // 2  # half: a gene may be silent on one side
    table = table.loc[:, enough].sort_index(axis="columns")
    metadata = table.index.to_frame(index=False).rename(columns={"side": "state"}).astype(str)
    # PyDESeq2 reads '_' and '-' in levels as formula syntax: neutral names
    codes = {p: f"p{i}" for i, p in enumerate(dict.fromkeys(metadata["patient"]))}
    metadata["patient"] = metadata["patient"].map(codes)
    metadata.index = [f"b{i}" for i in range(len(metadata))]
    return pd.DataFrame(
        table.to_numpy().round().astype(np.int64), index=metadata.index, columns=list(table.columns)
    ), metadata


def paired_de(counts: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
    """Fit a negative-binomial model ``~ patient + state`` with PyDESeq2 (doi:10.1093/bioinformatics/btad547).

    Returns
    -------
    One row per gene, sorted by symbol: gene, mean_counts, log2_fold_change (high against low), its standard error,
    statistic (Wald), p, q.
    """
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats

    with _quiet():
        inference = DefaultInference(n_cpus=1)
        data = DeseqDataSet(
            counts=counts, metadata=metadata, design="~patient + state", inference=inference, quiet=True
        )
        data.deseq2()
        test = DeseqStats(data, contrast=["state", "high", "low"], inference=inference, quiet=True)
        test.summary()
    found = test.results_df.rename(
        columns={
            "baseMean": "mean_counts",
            "log2FoldChange": "log2_fold_change",
            "lfcSE": "standard_error",
            "stat": "statistic",
            "pvalue": "p",
            "padj": "q",
        }
    )
    found = found[["mean_counts", "log2_fold_change", "standard_error", "statistic", "p", "q"]].astype(float)
    return found.rename_axis("gene").reset_index().sort_values("gene", ignore_index=True)


def parts_of(metadata: pd.DataFrame, most: int) -> list[pd.DataFrame]:
    """Metadata cut into as few parts as have at most `most` patients each: every n-th patient, sizes differ by one."""
    patients = list(dict.fromkeys(metadata["patient"]))
    n = -(-len(patients) // most)
    return [metadata[metadata["patient"].isin(patients[i::n])] for i in range(n)]


def pooled_de(fits: Sequence[pd.DataFrame], sizes: Sequence[int]) -> pd.DataFrame:
    """Pool fits of different patients by the inverse of their variances (a fixed effect, as in one fit of all).

    Parameters
    ----------
    fits
        As `paired_de` returns them, of the same genes.
    sizes
        (fits,) patients of each.

    Returns
    -------
    As `paired_de`; p two-sided from the normal distribution, q Benjamini-Hochberg over the genes with a p.  A fit
    without a fold change of a gene (no count in it) has no say on that gene; NA: none has one.
    """
    import pandas as pd
    from scipy.stats import norm

    def stacked(column: str) -> np.ndarray:
        return np.array([fit.set_index("gene")[column].reindex(genes).to_numpy(float) for fit in fits])

    genes = sorted({g for fit in fits for g in fit["gene"]})
    effect, error = stacked("log2_fold_change"), stacked("standard_error")
    weight = np.where(np.isfinite(effect) & (error > 0), 1.0 / error**2, 0.0)
    total = weight.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(total > 0, (weight * np.nan_to_num(effect)).sum(axis=0) / total, np.nan)
        error = np.where(total > 0, 1 / np.sqrt(total), np.nan)
    p = 2 * norm.sf(np.abs(mean / error))
    q = np.full(len(genes), np.nan)
    q[np.isfinite(p)] = stats.bh(p[np.isfinite(p)])
    counts = np.average(stacked("mean_counts"), axis=0, weights=np.array(sizes, dtype=float))
    return pd.DataFrame({
        "gene": genes, "mean_counts": counts, "log2_fold_change": mean, "standard_error": error,
        "statistic": mean / error, "p": p, "q": q,
    })  # fmt: skip


def enrichment(
    ranking: pd.Series, sets: Mapping[str, Sequence[str]], defining: Collection[str], options: Enrich, seed: int
) -> pd.DataFrame:
    """Rank-based enrichment with gseapy's prerank (doi:10.1073/pnas.0506580102, doi:10.1093/bioinformatics/btac757).

    Parameters
    ----------
    ranking
        Gene -> Wald statistic; NaN is left out.
    sets
        Gene sets; `defining` genes are taken out of them and of the ranking.

    Returns
    -------
    One row per set of allowed size: gene_set, size, nes, p, q, leading_edge; empty where none is large enough.
    """
    import pandas as pd

    columns = ["gene_set", "size", "nes", "p", "q", "leading_edge"]
    ranking = ranking.dropna()
    ranking = ranking[~ranking.index.isin(list(defining))].sort_index().sort_values(ascending=False, kind="stable")
    available = set(ranking.index)
    trimmed = {name: sorted(set(members) & available) for name, members in sorted(sets.items())}
    trimmed = {name: members for name, members in trimmed.items() if options.min_set <= len(members) <= options.max_set}
    if not trimmed:
        return pd.DataFrame(columns=columns)
    import gseapy

    with _quiet():
        found = gseapy.prerank(
            rnk=ranking, gene_sets=trimmed, min_size=options.min_set, max_size=options.max_set, outdir=None,
            no_plot=True, permutation_num=options.n_permutations, seed=seed, threads=1, verbose=False,
        ).res2d  # fmt: skip
    table = pd.DataFrame({
        "gene_set": found["Term"].astype(str), "size": found["Term"].map({k: len(v) for k, v in trimmed.items()}),
        "nes": found["NES"].astype(float), "p": found["NOM p-val"].astype(float), "q": found["FDR q-val"].astype(float),
        "leading_edge": found["Lead_genes"].fillna("").astype(str),
    })  # fmt: skip
    p, smallest = signed_p(ranking, trimmed, options, seed)
    table["p"] = table["gene_set"].map(p)
    table["q"] = np.maximum(table["q"], table["gene_set"].map(smallest))  # gseapy's q may be 0, which cannot be meant
    return table.sort_values("gene_set", ignore_index=True)


def signed_p(
    ranking: pd.Series, sets: Mapping[str, Sequence[str]], options: Enrich, seed: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Permutation p of enrichment scores: (b + 1) / (n + 1) over the n permutations with the sign of the observed one.

    gseapy's nominal p is b / n of the same permutations: 0 where none is as extreme.

    Returns
    -------
    Set -> p, and set -> smallest p that its permutations can give, 1 / (n + 1).
    """
    from gseapy.gse import prerank_rs

    weight = 1.0  # gseapy.prerank's default, as for the scores
    with _quiet():
        found = prerank_rs(
            ranking.index.to_list(), ranking.to_list(), {k: list(v) for k, v in sets.items()}, weight,
            options.min_set, options.max_set, options.n_permutations, 1, seed,
        )  # fmt: skip
    p, smallest = {}, {}
    for one in found.summaries:
        null = np.asarray(one.esnull, dtype=np.float64)
        same = null[null >= 0] if one.es >= 0 else null[null < 0]
        p[one.term] = stats.permutation_p(abs(one.es), np.abs(same))
        smallest[one.term] = 1 / (len(same) + 1)
    return p, smallest


def _unanswered(contrast: str, status: str, reason: str, n_patients: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    base = {"contrast": contrast, "status": status, "reason": reason}
    de = (
        base
        | {"gene": "-", "n_patients": n_patients, "circular": False}
        | dict.fromkeys(("mean_counts", "log2_fold_change", "statistic", "p", "q"), np.nan)
    )
    sets = base | {"gene_set": "-", "size": None, "nes": np.nan, "p": np.nan, "q": np.nan, "leading_edge": None}
    return pd.DataFrame([de]), pd.DataFrame([sets])


def contrast_tables(
    rows: pd.DataFrame, contrast: str, sets: Mapping[str, Sequence[str]], options: Enrich, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit one contrast over patients and rank its genes against the sets: rows of ``de`` and ``enrichment``."""
    high, low = WORDS[contrast]
    counts, metadata = wide(rows, contrast, options.min_counts)
    n = int(metadata["patient"].nunique())
    if n < options.min_patients:
        reason = f"{n} patients have enough {high} and {low} cells; {options.min_patients} are needed"
        return _unanswered(contrast, "too_few_patients", reason, n)
    if counts.shape[1] < options.min_set:
        reason = (
            f"{counts.shape[1]} genes reach {options.min_counts} counts in half of the pseudobulks; "
            f"{options.min_set} are needed"
        )
        return _unanswered(contrast, "too_few_genes", reason, n)
    parts = parts_of(metadata, options.patients_per_fit)
    fits = [paired_de(counts.loc[part.index], part) for part in parts]
    found = fits[0] if len(fits) == 1 else pooled_de(fits, [part["patient"].nunique() for part in parts])
    found = found.drop(columns="standard_error")
    reason = f"{high} against {low} cells, ~ patient + state, {n} patients"
    if len(fits) > 1:
        reason += f", fitted in {len(fits)} parts whose fold changes were pooled by inverse variance"
    defining = defining_genes(contrast)
    circular = found["gene"].isin(defining)
    de = found.assign(contrast=contrast, status="ok", reason=reason, n_patients=n, circular=circular)
    enriched = enrichment(found.set_index("gene")["statistic"], sets, defining, options, seed)
    if enriched.empty:
        return de, _unanswered(contrast, "no_set", "no gene set has enough genes in the ranking", n)[1]
    named = ", ".join(defining) if len(defining) <= 5 else f"the {len(defining)} genes of the M1 and M2 sets"
    return de, enriched.assign(
        contrast=contrast, status="ok", reason=f"{reason}; left out because they define the contrast: {named}"
    )


def run_enrich(
    pseudobulk: Sequence[str | Path],
    records: Sequence[str | Path],
    out_de: str | Path,
    out_enrichment: str | Path,
    *,
    options: Enrich,
    seed: int,
    scores: Sequence[str | Path] | None = None,
) -> None:
    """Write differential expression and enrichment of every contrast: one primary tumour sample per patient.

    `scores` decide which sample speaks for a patient (`patients.assessable_cells`); without them the cells of the
    pseudobulks do.
    """
    import pandas as pd

    from nicheloop import axes, genes, patients, tables

    with io.stage_output(out_de, "de", stage="enrich", also={"enrichment": out_enrichment}) as result:
        read = {io.read_status(path).sample: io.read_table(path) for path in pseudobulk}
        own = {name: int(t.drop_duplicates("state")["n_cells"].sum()) for name, t in read.items()}
        cells = patients.assessable_cells(scores) if scores else own
        known = [io.read_json(r) for r in records]
        primary, left_out = axes.tumour_samples(known, cells), axes.not_primary(known)
        parts = [read[s].assign(patient=p) for p, s in sorted(primary.items()) if s in read and len(read[s])]
        rows = pd.concat(parts, ignore_index=True) if parts else tables.empty("pseudobulk").assign(patient="")
        sets = genes.hallmark()
        both = [contrast_tables(rows, contrast, sets, options, seed) for contrast in CONTRASTS]
        result.table = _stack([de for de, _ in both])
        result.extra["enrichment"] = _stack([enriched for _, enriched in both])
        result.summary = {
            c: {"status": str(de["status"].iloc[0]), "n_patients": int(de["n_patients"].iloc[0])}
            for c, (de, _) in zip(CONTRASTS, both, strict=True)
        } | {"not_primary_tumour": sorted(left_out)}
        words = axes.left_out_words(len(left_out))
        for table in (result.table, result.extra["enrichment"]):
            table["reason"] = table["reason"] + words


def _stack(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate by records: a placeholder row of NA must not decide a column's dtype."""
    import pandas as pd

    return pd.DataFrame([record for part in parts for record in part.to_dict("records")])
