"""The three-way call of one sample's epithelium.  See docs/malignancy.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nicheloop import cnv, cnv_arms, cnv_cells, cnv_checks, cnv_groups, cnv_neighbours, cnv_split
from nicheloop.cnv_reference import NORMAL_POOL, NOT_NULL, Pool, Reference, at_depth, mean_of, reference_mean
from nicheloop.errors import NotAssessable
from nicheloop.stats import wilson

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from scipy import sparse

    from nicheloop.cnv import Bools, Floats, Ints
    from nicheloop.config_malignancy import Malignancy

DETECTABLE = {"1q": 1.0, "16q": -1.0}  # the commonest pair in breast cancer, in units of options.detectable_shift


@dataclass
class Calls:
    """What was found, one entry per cell of the sample (NaN and 0 where not computed)."""

    call: NDArray[np.object_]
    status: NDArray[np.object_]
    value: Floats
    correlation: Floats
    clone: Ints
    profiles: Floats | None = None
    layout: cnv.Layout | None = None
    reference: Bools | None = None
    summary: dict[str, Any] = field(default_factory=dict)


def _held_out(
    x: sparse.csr_matrix,
    types: NDArray[np.object_],
    fold: Ints,
    reference: Reference,
    base: Floats,
    where: cnv.Layout,
    options: Malignancy,
) -> Floats:
    """(cells, windows) profiles; a cell of the sample's own reference is scored while its fold is left out."""
    out = cnv.smooth(x, base, where, options.lfc_clip)
    if reference.mean is None:
        for k in range(options.n_folds):
            test = np.flatnonzero(reference.null & (fold == k))
            rest = reference.null & (fold != k)
            if len(test) and rest.any():
                mean = reference_mean(x, types, rest, options.min_group)
                out[test] = cnv.smooth(x[test], mean, where, options.lfc_clip)
    return out


def _lineage_background(
    x: sparse.csr_matrix,
    types: NDArray[np.object_],
    base: Floats,
    where: cnv.Layout,
    settings: cnv_groups.Settings,
    min_cells: int,
) -> dict[str, float]:
    """Arm coherence of each normal lineage against the others: what a diploid cell type looks like in this sample."""
    names = [t for t in np.unique(types.astype(str)) if t not in NOT_NULL and (types == t).sum() >= min_cells]
    means = {t: mean_of(x, types == t) for t in names}
    out = {}
    for name in names:
        others = [m for t, m in means.items() if t != name]
        out[name] = cnv_groups.arm_evidence(
            means[name], np.mean(others, axis=0) if others else base, where, settings
        ).ratio
    return out


def _neighbours(
    x: sparse.csr_matrix, cells: Ints, by_name: Ints, options: Malignancy, seed: int
) -> cnv_neighbours.Neighbourhood:
    """Neighbours and small clusters of some cells, in the order of their ids; genes in the order of their names."""
    return cnv_neighbours.neighbourhood(
        x[cells], by_name, n_genes=options.neighbour_genes, n_components=options.neighbour_components,
        k=options.n_neighbours, resolution=options.cluster_resolution, min_cells=options.min_group, seed=seed,
    )  # fmt: skip


def _by_arm(
    x: sparse.csr_matrix,
    types: NDArray[np.object_],
    order: Ints,
    atoms: Ints,
    fold: Ints,
    reference: Reference,
    base: Floats,
    where: cnv.Layout,
    options: Malignancy,
) -> tuple[Floats, Floats]:
    """(cells, arms) scores against the reference; (epithelium in `order`, arms) those of the even genes; no depth."""

    def against(mean: Floats) -> Floats:
        return cnv_arms.scores(sparse.csr_matrix(mean[None, :]), where)[0]

    from scipy import sparse

    out = cnv_arms.scores(x, where)
    take = np.tile(against(np.nan_to_num(base)), (len(out), 1))
    if reference.mean is None:
        for k in range(options.n_folds):
            test, rest = reference.null & (fold == k), reference.null & (fold != k)
            if test.any() and rest.any():
                take[test] = against(reference_mean(x, types, rest, options.min_group))
    out -= take
    deep = cnv_arms.depth(x)
    rest = np.flatnonzero(types != "epithelial")
    out[order] = cnv_arms.without_depth(out[order], deep[order], atoms)
    out[rest] = cnv_arms.without_depth(
        out[rest], deep[rest], np.unique(types[rest].astype(str), return_inverse=True)[1]
    )
    return out, cnv_arms.without_depth(cnv_arms.scores(x[order], where, 0), deep[order], atoms)


def _against(values: Floats, cells: Bools, members: Bools) -> Floats:
    """(cells, columns) `cells` minus the mean of `members`, each member against the others."""
    out, n = values.copy(), int(members.sum())
    out[cells] -= values[members].mean(axis=0)
    out[members] *= n / (n - 1)
    return out


def _noise(
    x: sparse.csr_matrix, types: NDArray[np.object_], base: Floats, where: cnv.Layout, options: Malignancy
) -> Floats:
    """(cells,) noise of each profile from its two halves; the halves' own difference is taken off per type."""
    differ = cnv.halves_differ(x, base, where, options.lfc_clip)
    for name in np.unique(types.astype(str)):
        differ[types == name] -= differ[types == name].mean(axis=0)
    return cnv_cells.noise(differ)


def assess(
    x: sparse.csr_matrix,
    cell_ids: NDArray[np.object_],
    types: NDArray[np.object_],
    positions: pd.DataFrame,
    reference: Reference,
    normal: Pool | None,
    *,
    options: Malignancy,
    seed: int,
) -> Calls:
    """Call the epithelial cells of one sample.

    Parameters
    ----------
    x
        (cells, genes) log1p counts per 10,000 (or other log values).
    cell_ids, types
        (cells,) id and major type.
    positions
        One row per gene of `x`: chromosome (empty: leave out), start, end, arm; index: symbol.
    reference
        Rung; see `choose_reference`.
    normal
        Pool of normal epithelium, if the cohort has one.

    Returns
    -------
    Calls; `summary` holds the figures of the decision.

    Raises
    ------
    NotAssessable
        ``too_few_genes``: not enough expressed genes with a position.
    """
    epithelial, caf = types == "epithelial", types == "caf"
    n_cells = len(types)
    own = reference_mean(x, types, reference.null, options.min_group)
    base = own if reference.mean is None else at_depth(reference.mean, own)
    mean_e = mean_of(x, epithelial)
    with np.errstate(invalid="ignore"):
        used = (mean_e + base) / 2 >= options.min_mean_expression
    if normal is not None and (used & np.isfinite(normal.mean)).sum() < used.sum() / 2:
        normal = None  # measured with another gene list: no common ground
    if normal is not None:
        used &= np.isfinite(normal.mean)
        if reference.mean is not None:
            normal = Pool(at_depth(normal.mean, mean_e), normal.n_cells)
    placed = positions.assign(chromosome=np.where(used, positions["chromosome"], ""))
    every = cnv.layout(placed, options.window, options.step)
    settings = cnv_groups.Settings(
        n_permutations=options.n_permutations, min_arm_genes=options.min_arm_genes, window=options.window,
        lineage_mads=options.lineage_mads, seed=seed, block=options.block_genes, pseudo=options.pseudo_expression,
        clip=options.arm_log2_clip, n_components=options.split_components,
        half_weight=options.half_weight_expression, n_mixture=options.mixture_permutations,
        max_cells=options.mixture_cells,
    )  # fmt: skip
    if len(every.columns) < options.window * 2:
        raise NotAssessable(
            "too_few_genes", f"{len(every.columns)} expressed genes with a position, {2 * options.window} needed"
        )

    difference = cnv_groups.log_difference(mean_e[every.columns], base[every.columns], settings.pseudo)
    outstanding = cnv_groups.lineage_genes(difference, every.arm_codes[1], options.window, options.lineage_mads)
    where = cnv.subset(every, ~outstanding, placed, options.window, options.step)
    fold = cnv.folds(cell_ids, options.n_folds)
    profiles = _held_out(x, types, fold, reference, base, where, options)

    # groups of different copy number, and which of them carry changes that no normal lineage shows
    cells = np.flatnonzero(epithelial)
    order = cells[np.argsort(cell_ids[cells].astype(str), kind="stable")]
    by_name = np.argsort(positions.index.to_numpy(dtype=object).astype(str), kind="stable")
    near = _neighbours(x, order, by_name, options, seed)
    by_arm, even = _by_arm(x, types, order, near.atoms, fold, reference, base, where, options)
    background = _lineage_background(x, types, base, every, settings, options.min_group)
    need = max([options.min_coherence, *background.values()])
    joined = cnv_neighbours.join_atoms(
        x[order], near.atoms, every, settings, options.max_coherence_p, options.min_coherence
    )

    def follows_arms(mean: Floats, shift: dict[str, float] | None = None) -> tuple[bool, cnv_groups.Coherence]:
        tests = [cnv_groups.arm_evidence(mean, base, every, settings, shift)]
        if normal is not None and reference.mean is not normal.mean:
            tests.append(cnv_groups.arm_evidence(mean, normal.mean, every, settings, shift))
        weakest = min(tests, key=lambda t: t.ratio)
        return all(t.p <= options.max_coherence_p for t in tests) and weakest.ratio >= need, weakest

    found, deep = [], cnv_arms.depth(x[order])
    for part in (np.flatnonzero(joined == k) for k in np.unique(joined)):
        split = cnv_split.split_groups(
            x[order[part]], by_arm[order[part]], even[part], deep[part], near.atoms[part], where, settings=settings,
            min_cells=options.min_group, max_p=options.max_coherence_p, max_mixture_p=options.max_mixture_p,
            aneuploid=lambda mean: follows_arms(mean)[0],
        )  # fmt: skip
        found += [part[g] for g in split]
    groups = [np.isin(np.arange(n_cells), order[g]) for g in found]
    means = [mean_of(x, g) for g in groups]

    evidence = [follows_arms(m) for m in means]
    kinds = cnv_groups.kinds_of_groups(
        means, base, evidence, every, settings, need=need, max_p=options.max_coherence_p, min_signal=options.min_signal,
        max_share=options.max_contrast_share, sure=options.sure_coherence,
    )  # fmt: skip
    aneuploid = [k == "aneuploid" for k in kinds]
    strongest = max((e.ratio for (_, e), yes in zip(evidence, aneuploid, strict=True) if yes), default=np.nan)
    diploid = np.any(
        [g for g, k in zip(groups, kinds, strict=True) if k == "diploid"] or [np.zeros(n_cells, bool)], axis=0
    )

    # what epithelium without copy-number change looks like here: own normal cells, else the pool, else the reference
    corrected, arm_corrected = profiles.copy(), by_arm.copy()
    if diploid.any():
        baseline, base_mean = "own_normal_epithelium", mean_of(x, diploid)
        corrected, arm_corrected = _against(profiles, epithelial, diploid), _against(by_arm, epithelial, diploid)
    elif normal is not None and any(aneuploid):
        from scipy import sparse

        baseline, base_mean = NORMAL_POOL, normal.mean
        row = sparse.csr_matrix(np.nan_to_num(normal.mean)[None, :])
        corrected[epithelial] -= cnv.smooth(row, base, where, options.lfc_clip)[0]
        arm_corrected[epithelial] -= (
            cnv_arms.scores(row, where)[0] - cnv_arms.scores(sparse.csr_matrix(base[None, :]), where)[0]
        )
    elif not any(aneuploid):
        baseline, base_mean = "own_epithelium", base
        corrected[epithelial] -= profiles[epithelial].mean(axis=0)
    else:
        baseline, base_mean = "reference", base

    kept = [i for i, k in enumerate(kinds) if k == "aneuploid"]
    clones = cnv_groups.join_clones(
        [groups[i] for i in kept], [means[i] for i in kept], base_mean, every, settings, options.max_coherence_p
    )
    if not clones:  # nothing to look for but the strongest cells
        differ = cnv.halves_differ(x[cells], base, where, options.lfc_clip)
        strength = cnv.signal_to_noise(corrected[cells], differ - differ.mean(axis=0))
        n_top = min(len(cells), max(options.min_group, int(np.ceil(options.top_fraction * len(cells)))))
        top = np.lexsort((cell_ids[cells].astype(str), -strength))[:n_top]
        clones = [np.isin(np.arange(n_cells), cells[top])]
    rounds, parts = 0, [(order, near)]
    level: Floats = np.zeros(n_cells)
    if any(aneuploid):  # else no cell is judged by its neighbours
        rounds, level = options.refit_rounds, _noise(x, types, base, where, options)
        rest = np.flatnonzero(~epithelial)
        rest = rest[np.argsort(cell_ids[rest].astype(str), kind="stable")]
        parts.append((rest, _neighbours(x, rest, by_name, options, seed)))
    last = np.zeros(n_cells)
    before: tuple[Any, ...] = ()
    for again in range(rounds + 1):
        correlations = cnv.correlations(corrected, clones)
        amplitudes = np.array([cnv.amplitude(arm_corrected, g) for g in clones])
        likely = correlations.copy()  # which clone: a shallow cell alone cannot tell
        likely[:, order] = (
            correlations[:, order] + cnv_neighbours.pooled(correlations[:, order].T, near.indices).T
        ) / 2
        nearest = likely.argmax(axis=0)
        correlation = correlations[nearest, np.arange(n_cells)]
        value = amplitudes[nearest, np.arange(n_cells)]
        probability = np.full(n_cells, np.nan)
        if not any(aneuploid):
            break
        members = np.any(clones, axis=0)
        if again and diploid.any():
            value = cnv_cells.rescaled(value, last[epithelial], epithelial, level)
        spread = max(
            cnv_cells.spread_of(value[reference.null], level[reference.null], 0.0),
            cnv_cells.spread_of(value[members], level[members], 1.0),
            cnv_cells.spread_of(value[diploid], level[diploid], 0.0),
        )
        on_axis = cnv_cells.two_kinds(value[epithelial], level[epithelial], spread, options.min_signal)
        apart = not diploid.any() and on_axis.gain > 2 * np.log(epithelial.sum())  # two more parameters pay (BIC)
        if apart:
            value = (value - on_axis.low) / (on_axis.high - on_axis.low)
            spread /= (on_axis.high - on_axis.low) ** 2
        odds = cnv_cells.log_odds(value, level, spread, options.min_signal)
        for part, alike in parts:
            probability[part] = cnv_cells.posterior(
                odds[part], alike, n_rounds=options.posterior_rounds, floor=options.neighbour_floor
            )
        turned = any(
            kind in ("aneuploid", "diploid") and ((probability[g] >= 0.5) == (kind == "diploid")).mean() > 0.5
            for g, kind in zip(groups, kinds, strict=True)
        )
        if before and turned:  # cells may change sides, whole groups may not: profiles have run away
            nearest, correlation, value, probability, base_mean = before
            break
        before = nearest, correlation, value, probability, base_mean
        if again == rounds:
            break
        last = probability
        # the groups again, from the cells themselves: a normal cell in the wrong group must not blur both profiles
        sure = [g & (probability >= 0.5) for g in (epithelial & (nearest == k) for k in range(len(clones)))]
        own = epithelial & (probability < 0.5)
        if min(int(g.sum()) for g in sure) < options.min_group:
            break
        clones = sure
        if own.sum() >= options.min_group and (diploid.any() or split):
            diploid, baseline = own, "own_normal_epithelium"
            corrected, arm_corrected = _against(profiles, epithelial, own), _against(by_arm, epithelial, own)
            base_mean = mean_of(x, own)

    cut_r, cut_v = cnv.cut_at(correlation[reference.null], options.max_reference_fpr), options.min_signal
    below = correlation <= cut_r
    if any(aneuploid):
        cut_v = max(cut_v, cnv.cut_at(value[reference.null], options.max_reference_fpr))
        below &= value < options.min_signal
    else:
        value = np.full(n_cells, np.nan)  # no tumour profile to be a share of
    above = (correlation > cut_r) & (value > cut_v)
    said = cnv_cells.verdict(above, below, probability, options.min_probability)
    null_above = cnv_cells.held_out_passes(correlation[reference.null], value[reference.null], options)
    passed = cnv_cells.verdict(null_above, ~null_above, probability[reference.null], options.min_probability).malignant
    call = np.where(epithelial, "unassigned", "not_epithelial").astype(object)
    status = np.where(epithelial, "metrics_disagree", "not_epithelial").astype(object)
    shift = {arm: sign * options.detectable_shift for arm, sign in DETECTABLE.items()}
    largest = int(np.argmax([g.sum() for g in groups]))
    detectable = any(aneuploid) or follows_arms(means[largest], shift)[0]
    weak = any(aneuploid) and strongest < options.sure_coherence
    n_caf, caf_share = int(caf.sum()), float(said.malignant[caf].mean()) if caf.any() else np.nan
    caf_failed = any(aneuploid) and n_caf >= options.min_group and caf_share >= options.max_caf_failed
    if caf_failed:  # fibroblasts differ from the reference as the tumour does: the reference is at fault
        status[epithelial] = "caf_control_failed"
    elif weak:
        status[epithelial] = "weak_evidence"
    elif any(aneuploid):
        call[epithelial & said.malignant], call[epithelial & said.normal] = "malignant", "normal"
        status[epithelial & (said.malignant | said.normal)] = reference.rung
    else:
        status[epithelial] = "not_callable"
        if normal is not None and detectable:  # compared with normal epithelium, and a change would have been seen
            call[epithelial & below], status[epithelial & below] = "normal", reference.rung

    malignant = call == "malignant"
    clone = cnv_cells.number_clones(nearest, malignant, cell_ids)
    scored = epithelial | reference.null | caf
    value, correlation = np.where(scored, value, np.nan), np.where(scored, correlation, np.nan)
    out = Calls(call, status, value, correlation, clone, profiles, where, reference.null)
    n_null, false = int(reference.null.sum()), int(passed.sum())
    judged = any(aneuploid)  # nothing could be called malignant otherwise: no error rate to speak of
    out.summary = {
        "baseline": baseline,
        "callable": (not (weak or caf_failed)) if any(aneuploid) else (normal is not None and detectable),
        "weak_evidence": weak,
        "warnings": [
            name
            for name, true in (
                ("caf_flagged", bool(n_caf and caf_share > options.max_caf_malignant)),
                ("no_normal_baseline", any(aneuploid) and baseline == "reference"),
            )
            if true
        ],
        "strongest_coherence": strongest,
        "change_detectable": detectable,
        "groups": [
            {"cells": int(g.sum()), "kind": k, "arm_coherence": e.ratio, "p": e.p}
            for g, k, (_, e) in zip(groups, kinds, evidence, strict=True)
        ],
        "lineage_coherence": background,
        "coherence_needed": need,
        "cut_correlation": cut_r,
        "cut_value": cut_v,
        "reference_false_positive_rate": false / n_null if judged else np.nan,
        "reference_false_positive_upper": wilson(false, n_null)[1] if judged else np.nan,
        "n_null": n_null,
        "n_caf": n_caf,
        "caf_malignant_share": caf_share,
        "caf_control_failed": caf_failed,
        "caf_flag": bool(n_caf and caf_share > options.max_caf_malignant),
        "n_genes": len(where.columns),
        "n_lineage_genes": int(outstanding.sum()),
        "n_windows": len(where.start),
        "arm_checks": {},
        "her2": {},
        "marker_loci": {},
    }
    for k in range(1, int(clone.max(initial=0)) + 1):
        mean = mean_of(x, clone == k)
        out.summary["arm_checks"][f"clone_{k}"] = cnv_checks.arm_checks(
            mean, base_mean, every, positions, settings, options.min_arm_z
        )
        out.summary["her2"][f"clone_{k}"] = cnv_checks.her2_check(
            mean, (base_mean, base), positions, settings.pseudo, options
        )
        out.summary["marker_loci"][f"clone_{k}"] = cnv_checks.marker_loci(
            mean, base_mean, every, positions, settings, min_z=options.min_arm_z, n_genes=options.locus_genes
        )
    return out
