"""Cell types: marker evidence of every cell, then types over the cohort.  See docs/annotate.md.

Evidence is a naive Bayes log-likelihood ratio: are the counts of a type's markers those of a cell that makes them, or
no more than ambient RNA of this sample would leave?  It knows the depth of the cell and does not depend on which other
types happen to be in the sample, so that a sample of one type is annotated like any other.  Clusters act as a prior:
they lift cells with little evidence and cannot overrule a cell whose own evidence is strong.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import genes as identity
from nicheloop import io
from nicheloop.errors import NotAssessable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from nicheloop import config

    Floats = NDArray[np.float64]

STATES = ("G1S", "G2M", "IFN", "STRESS")
NONE = "unresolved"
_BLOCK = 20000  # cells per block of marker counts: bounds memory, not the result
_UNIFORM = 0.02  # share of a cluster's prior spread evenly over the types: no type is ever ruled out by a cluster
_ROUNDS = 30


def marker_llr(
    counts: Floats, size: Floats, pool: Floats, *, rate: float, shape: float, share: float, floor: float
) -> Floats:
    """Log-likelihood ratio of "the cell makes the gene" against "ambient RNA only".

    Made: gamma-Poisson with mean max(`rate`, `pool`) per 10,000 and gamma shape `shape`.  Not made: Poisson with
    `share` * `pool` + `floor` per 10,000.

    Parameters
    ----------
    counts
        (cells, genes) UMI.
    size
        (cells,) library size / 10,000; positive.
    pool
        (genes,) rate in the pooled cells of the sample, UMI per 10,000.

    Returns
    -------
    (cells, genes) nats.
    """
    from scipy.special import gammaln

    off = size[:, None] * (share * pool + floor)[None, :]
    on = size[:, None] * np.maximum(rate, pool)[None, :]
    made = (
        gammaln(counts + shape)
        - gammaln(shape)
        + shape * np.log(shape / (shape + on))
        + counts * np.log(on / (shape + on))
    )
    return np.asarray(made - (counts * np.log(off) - off))


def weigh(llr: Floats, probability: float, limit: float) -> Floats:
    """Evidence of a marker that a cell of the type makes with `probability` only, kept within +-`limit` nats."""
    mixed = np.log1p(probability * np.expm1(np.clip(llr, -50.0, 50.0)))
    return np.clip(mixed, -limit, limit)


def panel(available: Sequence[str]) -> dict[str, Any]:
    """Marker design over the genes of a matrix.

    Returns
    -------
    dict
        ``genes``: (markers,) present in `available`; ``major``, ``minor``: names; (markers, major) bool: ``own``,
        ``shared`` (made by some cells of the type), ``negative``, ``counted`` (own or of a minor type; of platelets
        and erythrocytes only those no other type makes); ``minor_positive``: (markers, minor) bool.
    """
    major, minor, use = identity.markers("major"), identity.markers("minor"), identity.marker_use()
    sets = {("major", t): m for t, m in major.items()} | {("minor", t): m for t, m in minor.items()}
    wanted = dict.fromkeys(g for m in sets.values() for g in (*m.positive, *m.negative))
    names = identity.find(list(wanted), available).present
    index = {g: i for i, g in enumerate(names)}

    def rows(members: Sequence[str]) -> list[int]:
        return [index[g] for g in identity.find(list(members), names).present]

    types, minors = list(major), list(minor)
    shape = (len(names), len(types))
    own, shared, negative = (np.zeros(shape, dtype=bool) for _ in range(3))
    minor_positive = np.zeros((len(names), len(minors)), dtype=bool)
    for j, t in enumerate(types):
        own[rows(major[t].positive), j] = True
        negative[rows(major[t].negative), j] = True
    for j, t in enumerate(minors):
        minor_positive[rows(minor[t].positive), j] = True
        parent = minor[t].parent
        if parent in types and t in use.called:
            shared[rows(minor[t].positive), types.index(parent)] = True
    declared = own | shared  # of the type itself or of its minor types
    for gene, others in use.shared.items():
        for i in rows([gene]):
            for t in others:
                shared[i, types.index(t)] = True
    broad = rows(sorted(use.broad))
    own[broad] = shared[broad] = declared[broad] = False
    unrelated = (own | shared).astype(np.int64) @ (~_kin(types)).astype(np.int64) > 0
    counted = np.where(np.isin(types, use.last)[None, :], declared & ~unrelated, declared)
    shared &= ~own
    return {
        "genes": names, "major": types, "minor": minors, "own": own, "shared": shared, "negative": negative,
        "counted": counted, "minor_positive": minor_positive,
    }  # fmt: skip


def cell_evidence(counts: csr_matrix, genes: Sequence[str], options: config.Annotate) -> pd.DataFrame:
    """Marker evidence of every cell.

    Parameters
    ----------
    counts
        (cells, genes) UMI of one sample.
    genes
        (genes,) symbols.

    Returns
    -------
    DataFrame (cells,): ``llr_major_<type>``, ``llr_minor_<type>`` in nats and ``n_major_<type>``, ``n_minor_<type>``
    (positive markers seen, of the type or its minor types).  NaN: the matrix holds no marker of the type.
    """
    import pandas as pd

    design = panel(genes)
    lookup = {g: i for i, g in enumerate(genes)}
    columns = np.array([lookup[g] for g in design["genes"]], dtype=np.int64)
    total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    size = np.maximum(total, 1.0) / 1e4
    marked = counts[:, columns]
    pool = np.asarray(marked.sum(axis=0), dtype=np.float64).ravel() / max(size.sum(), 1e-12)
    own, shared, negative = (design[k].astype(np.float64) for k in ("own", "shared", "negative"))
    minor = design["minor_positive"].astype(np.float64)
    n, n_major, n_minor = counts.shape[0], len(design["major"]), len(design["minor"])
    llr_major, seen_major = np.zeros((n, n_major)), np.zeros((n, n_major))
    llr_minor, seen_minor = np.zeros((n, n_minor)), np.zeros((n, n_minor))
    limit = options.max_marker_evidence
    for start in range(0, n, _BLOCK):
        here = slice(start, start + _BLOCK)
        x = marked[here].toarray().astype(np.float64)
        llr = marker_llr(
            x, size[here], pool, rate=options.marker_rate, shape=options.marker_shape,
            share=options.ambient_share, floor=options.ambient_floor,
        )  # fmt: skip
        strong, weak = weigh(llr, options.marker_probability, limit), weigh(llr, options.shared_probability, limit)
        llr_major[here] = strong @ own + weak @ shared - options.negative_weight * np.maximum(strong, 0.0) @ negative
        llr_minor[here] = strong @ minor
        seen_major[here] = (x > 0) @ design["counted"].astype(np.float64)
        seen_minor[here] = (x > 0) @ minor
    llr_major[:, ~(design["own"] | design["shared"]).any(axis=0)] = np.nan
    seen_major[:, ~design["counted"].any(axis=0)] = np.nan
    llr_minor[:, ~design["minor_positive"].any(axis=0)] = np.nan
    seen_minor[:, ~design["minor_positive"].any(axis=0)] = np.nan
    table = np.hstack([llr_major, llr_minor, seen_major, seen_minor])
    names = [f"{what}_{level}_{t}" for what in ("llr", "n") for level in ("major", "minor") for t in design[level]]
    return pd.DataFrame(table, columns=names)


def run_evidence(
    counts: str | Path, qc: str | Path, out: str | Path, *, options: config.Annotate, scoring: config.Scoring
) -> None:
    """Write the marker evidence of one sample's kept cells (contract ``evidence``)."""
    import pandas as pd

    from nicheloop.scoring import score_sets

    source = io.Counts(counts)
    with io.stage_output(out, "evidence", stage="evidence", sample=source.sample) as result:
        source.require(counts=False)
        cells = io.kept_cells(qc)
        if not len(cells):
            raise NotAssessable("no_cells", "no cell passed quality control")
        x = source.matrix(cells=cells)
        names = list(source.genes)
        signatures = identity.signatures()
        sets: dict[str, Sequence[str]] = {f"z_major_{t}": m.positive for t, m in identity.markers("major").items()}
        sets |= {f"z_minor_{t}": m.positive for t, m in identity.markers("minor").items()}
        sets |= {f"z_state_{s}": signatures[s].genes for s in STATES if s in signatures}
        sets |= {f"z_state_{s}": m.positive for s, m in identity.states().items()}
        z = score_sets(
            io.lognormalise(x), names, sets,
            n_bins=scoring.n_bins, min_genes=scoring.min_genes, min_cells=scoring.min_cells,
        )  # fmt: skip
        table = pd.concat([z, cell_evidence(x, names, options)], axis=1)
        table.insert(0, "cell_id", cells)
        table["annotation_input"] = input_annotation(source, cells)
        result.table = table
        result.summary = {"n_cells": len(cells)}


def input_annotation(source: io.Counts, cells: NDArray[Any]) -> NDArray[Any]:
    """(cells,) annotation that came with the input; None where there is none."""
    try:
        values = source.annotation("annotation_input")
    except KeyError:
        return np.full(len(cells), None, dtype=object)
    lookup = dict(zip(source.cell_ids, values, strict=True))
    return np.array([lookup[c] or None for c in cells], dtype=object)


def posterior(llr: Floats, clusters: NDArray[np.int64], *, weight: float, none: float) -> tuple[Floats, Floats]:
    """Posterior over types, with the composition of each cell's cluster as prior (empirical Bayes, EM).

    Parameters
    ----------
    llr
        (cells, types) evidence against ambient RNA, nats.
    clusters
        (cells,) cluster codes from 0.
    weight
        Weight w of the cluster: log posterior = 2 (1 - w) evidence + 2 w log prior + constant; 0.5 is Bayes' rule.
    none
        Evidence the class "none of them" stands for, nats.

    Returns
    -------
    posterior, prior
        (cells, types + 1) and (clusters, types + 1); the last column is "none of them".
    """
    from scipy.special import softmax

    n, t = llr.shape
    evidence = np.hstack([llr, np.full((n, 1), none)])
    n_clusters = int(clusters.max(initial=-1)) + 1
    size = np.bincount(clusters, minlength=n_clusters).astype(np.float64)
    prior = np.full((n_clusters, t + 1), 1.0 / (t + 1))
    p = softmax(2 * (1 - weight) * evidence, axis=1)
    for _ in range(_ROUNDS):
        mass = np.column_stack([np.bincount(clusters, weights=p[:, j], minlength=n_clusters) for j in range(t + 1)])
        # One cell's worth of the even mixture keeps clusters of few cells from deciding about themselves.
        new = (mass + 1.0 / (t + 1)) / (size[:, None] + 1.0)
        new = (1 - _UNIFORM) * new + _UNIFORM / (t + 1)
        p = softmax(2 * (1 - weight) * evidence + 2 * weight * np.log(new)[clusters], axis=1)
        done = np.abs(new - prior).max(initial=0.0) < 1e-6
        prior = new
        if done:
            break
    return p, prior


def _kin(types: Sequence[str]) -> NDArray[np.bool_]:
    """(types, types) whether two types are the same lineage, or neighbours that share markers."""
    out = np.eye(len(types), dtype=bool)
    for group in identity.marker_use().kin:
        index = [i for i, t in enumerate(types) if t in group]
        out[np.ix_(index, index)] = True
    return out


def call_major(
    llr: Floats, seen: Floats, clusters: NDArray[np.int64], types: Sequence[str], options: config.Annotate
) -> pd.DataFrame:
    """Major type of every cell.

    Parameters
    ----------
    llr, seen
        (cells, types) evidence in nats and positive markers seen.
    clusters
        (cells,) cluster codes from 0.
    types
        Names of the columns.

    Returns
    -------
    DataFrame (cells,): cell_type, confidence, margin, runner_up, cell_type_reason.  Unresolved cells keep the posterior
    of the best type.  Reasons: ``two_lineages`` strong evidence of two unrelated types; ``ambient`` enough markers, but
    no more than ambient RNA explains; ``low_evidence`` otherwise.
    """
    import pandas as pd

    names = np.array([*types, NONE], dtype=object)
    n, t = llr.shape
    llr, seen = np.nan_to_num(llr, nan=-np.inf), np.nan_to_num(seen, nan=0.0)
    last = np.isin(names[:-1], identity.marker_use().last)
    other = llr[:, ~last].max(axis=1, initial=-np.inf) >= options.min_evidence
    llr = np.where(last[None, :] & other[:, None], -np.inf, llr)
    p, _ = posterior(llr, clusters, weight=options.cluster_weight, none=options.min_evidence)
    order = np.argsort(-p, axis=1, kind="stable")
    rows = np.arange(n)
    best, second = order[:, 0], order[:, 1]
    named = np.where(best == t, second, best)  # best type that is a type
    confidence, margin = p[rows, best], p[rows, best] - p[rows, second]

    # Markers: in the cell itself, or half as many on average in the cells of its cluster that were given the same type.
    groups = clusters * t + named
    count = np.bincount(groups, minlength=(int(clusters.max(initial=0)) + 1) * t)
    usual = np.bincount(groups, weights=seen[rows, named], minlength=len(count)) / np.maximum(count, 1)
    marked = (seen[rows, named] >= options.min_markers) | (usual[groups] >= options.min_markers / 2)

    unrelated = np.where(_kin(types)[named], -np.inf, llr).max(axis=1, initial=-np.inf)
    first = llr[rows, named]
    two = (unrelated >= options.min_second_evidence) & (unrelated >= options.two_lineages * first)
    resolved = (best < t) & (confidence >= options.min_confidence) & marked & ~two
    many = seen.max(axis=1, initial=0.0) >= options.min_markers
    ambient = many & (llr.max(axis=1, initial=-np.inf) < options.min_evidence)
    reason = np.select([resolved, two, ambient], ["ok", "two_lineages", "ambient"], default="low_evidence")
    return pd.DataFrame(
        {
            "cell_type": np.where(resolved, names[best], NONE),
            "confidence": confidence,
            "margin": margin,
            "runner_up": names[second],
            "cell_type_reason": reason,
        }
    )


def call_minor(
    llr: Floats, seen: Floats, clusters: NDArray[np.int64], names: Sequence[str], options: config.Annotate
) -> NDArray[Any]:
    """Minor type of the cells of one major type; '' where the evidence supports none.

    Parameters
    ----------
    llr, seen
        (cells, minor types) evidence in nats and positive markers seen (NaN: not measurable).
    clusters
        (cells,) cluster codes from 0.
    """
    n, t = llr.shape
    out = np.full(n, "", dtype=object)
    if n < options.min_cells_minor or t == 0:
        return out
    llr = np.nan_to_num(llr, nan=-np.inf)
    p, _ = posterior(llr, clusters, weight=options.cluster_weight, none=options.min_evidence)
    best, rows = p.argmax(axis=1), np.arange(n)
    named = np.minimum(best, t - 1)
    # Subtypes are neighbours: a cell must show the markers itself, its cluster cannot stand in for it.
    own = (seen[rows, named] >= options.min_markers) & (llr[rows, named] > 0)
    supported = (best < t) & (p[rows, best] >= options.min_confidence) & own
    out[supported] = np.array(names, dtype=object)[named[supported]]
    return out


def annotate(evidence: pd.DataFrame, clusters: NDArray[Any], options: config.Annotate) -> pd.DataFrame:
    """Types of all cells of the cohort.

    Parameters
    ----------
    evidence
        (cells,) rows of the contract ``evidence``.
    clusters
        (cells,) cluster labels.

    Returns
    -------
    DataFrame (cells,): cell_type, cell_type_minor, confidence, margin, runner_up, cell_type_reason, platelet, cycling.
    """
    types = [t for t in identity.markers("major") if f"llr_major_{t}" in evidence]
    codes = np.unique(np.asarray(clusters).astype(str), return_inverse=True)[1].astype(np.int64)

    def block(prefix: str, names: Sequence[str]) -> Floats:
        # A column that is NA in every sample is dropped when samples are joined.
        return evidence.reindex(columns=[f"{prefix}_{t}" for t in names]).to_numpy(dtype=np.float64)

    table = call_major(block("llr_major", types), block("n_major", types), codes, types, options)
    minor = table["cell_type"].to_numpy(dtype=object).copy()
    in_use = identity.marker_use().called
    minors = {t: m for t, m in identity.markers("minor").items() if t in in_use and f"llr_minor_{t}" in evidence}
    for major in types:
        names = [t for t, m in minors.items() if m.parent == major]
        index = np.flatnonzero(table["cell_type"] == major)
        if not names or not len(index):
            continue
        local = np.unique(codes[index], return_inverse=True)[1].astype(np.int64)
        called = call_minor(block("llr_minor", names)[index], block("n_minor", names)[index], local, names, options)
        minor[index] = np.where(called == "", minor[index], called)
    table.insert(1, "cell_type_minor", minor)

    def above(column: str, cut: float) -> NDArray[np.bool_]:
        # NA: not measurable, so not seen.
        values = evidence[column].to_numpy(dtype=np.float64) if column in evidence else np.full(len(evidence), np.nan)
        return np.asarray(np.nan_to_num(values, nan=-np.inf) >= cut)

    table["platelet"] = above("n_major_platelet", options.platelet_markers)
    table["cycling"] = above("z_state_cycling", options.cycling_z)
    return table


def run_annotate(
    evidence: Sequence[str | Path], clusters: str | Path, out: str | Path, *, options: config.Annotate
) -> None:
    """Write the type of every kept cell of the cohort (contract ``cell_types``)."""
    import pandas as pd

    with io.stage_output(out, "cell_types", stage="annotate") as result:
        tables = [io.read_table(path) for path in evidence]
        tables = [t for t in tables if len(t)]
        if not tables:
            raise NotAssessable("no_cells", "no sample has a cell that passed quality control")
        cells = pd.concat([t.dropna(axis=1, how="all") for t in tables], ignore_index=True)
        placed = io.read_table(clusters, columns=["cell_id", "cluster"]).set_index("cell_id")["cluster"]
        sample = cells["cell_id"].str.rsplit(":", n=1).str[0]
        # A cell without a cluster (no map was made) has its sample as its cluster.
        cluster = placed.reindex(cells["cell_id"]).to_numpy(dtype=object)
        missing = pd.isna(cluster)
        cluster[missing] = "none"
        codes = np.where(missing, "sample " + sample.to_numpy(dtype=object), cluster)
        table = annotate(cells, codes, options)
        table.insert(0, "cell_id", cells["cell_id"].to_numpy())
        table.insert(1, "sample", sample.to_numpy())
        table.insert(2, "cluster", cluster)
        # A column that is NA throughout was dropped above.
        given = cells["annotation_input"].to_numpy(dtype=object) if "annotation_input" in cells else None
        table["cell_type_input"] = pd.array([None] * len(cells) if given is None else given, dtype="string")
        result.table = table
        result.summary = {"n_cells": len(table), "cell_types": table["cell_type"].value_counts().sort_index().to_dict()}
