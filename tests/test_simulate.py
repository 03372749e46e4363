"""The demo cohort keeps its word: what the truth says is in the counts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import io as sio
from scipy import stats

from nicheloop import genes, sheet, simulate
from nicheloop.config_cells import Simulate

FILES = ("matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz")
TUMOURS = [p.sample for p in simulate.PLANS if p.tissue == "tumour"]
DEEP = [p.sample for p in simulate.PLANS if p.tissue == "tumour" and not p.shallow]
REFERENCE = ("endothelial", "pvl", "t_nk", "b_cell")
SMALL = Simulate(cells_per_tumour=200, cells_per_normal=100, median_umi=3000)


def plan(sample: str) -> simulate.Plan:
    return next(p for p in simulate.PLANS if p.sample == sample)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    simulate.run_simulate(out, options=Simulate(), seed=0)
    return out


@pytest.fixture(scope="module")
def truth(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "truth_cells.tsv.gz", sep="\t", keep_default_na=False)


@pytest.fixture(scope="module")
def truth_samples(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "truth_samples.tsv", sep="\t", keep_default_na=False, na_values=["NA"])
    return table.set_index("sample")


@pytest.fixture(scope="module")
def read(folder: Path):
    """(cells, genes) counts, symbols and cell ids of a sample, as any reader of 10x files sees them."""
    cache: dict[str, tuple] = {}

    def one(sample: str) -> tuple:
        if sample not in cache:
            here = folder / sample
            counts = sio.mmread(here / "matrix.mtx.gz").T.tocsr()
            features = pd.read_csv(here / "features.tsv.gz", sep="\t", header=None)
            barcodes = pd.read_csv(here / "barcodes.tsv.gz", header=None)[0]
            cache[sample] = counts, features, np.array([f"{sample}:{b}" for b in barcodes])
        return cache[sample]

    return one


def rate(read, truth: pd.DataFrame, sample: str, gene: str, rows) -> float:
    """UMI per 10,000 of a gene in the clean cells for which `rows` holds."""
    counts, features, _ = read(sample)
    cells = truth[truth["sample"] == sample].reset_index(drop=True)
    use = np.flatnonzero(rows(cells) & ~cells["doublet"] & ~cells["damaged"])
    column = counts[:, features.index[features[1] == gene]]
    return float(column[use].sum() / cells["n_umi"].to_numpy()[use].sum() * 1e4)


def minor(name: str):
    return lambda cells: cells["cell_type_minor"] == name


def test_names_need_neither_data_nor_heavy_imports(folder: Path):
    code = "import sys; from nicheloop import simulate; simulate.sample_names(None); print([m for m in ('pandas', 'scipy', 'scanpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    written = pd.read_csv(folder / "samples.tsv", sep="\t", dtype=str).to_dict("records")
    assert written == simulate.sample_names(Simulate())


def test_sheet_is_a_valid_sheet_of_6_tumours_and_2_normals(folder: Path):
    rows = sheet.read_sheet(folder / "samples.tsv")
    assert [(r["subtype"], r["tissue"]) for r in rows] == (
        [(s, "tumour") for s in ("TNBC", "TNBC", "HER2+", "HER2+", "ER+", "ER+")] + [("normal", "normal")] * 2
    )
    assert {r["dataset"] for r in rows} == {"demo"}
    for row in rows:
        assert all((Path(row["path"]) / f).is_file() for f in FILES)


def test_features_are_ids_and_symbols_of_the_gene_table(read):
    _, features, _ = read("demo_er_1")
    table = genes.table()
    assert features.shape[1] == 3 and set(features[2]) == {"Gene Expression"}
    assert features[1].is_unique and features[0].str.fullmatch(r"ENSG\d{11}").all()
    assert (table.loc[features[1], "ensembl_id"].to_numpy() == features[0].to_numpy()).all()
    wanted = {g for s in genes.signatures().values() for g in s.genes}
    wanted |= {g for a in genes.axes() for g in (*a.ligands, *sum(a.receptors, ()))}
    wanted |= {g for level in ("major", "minor") for m in genes.markers(level).values() for g in m.positive}
    known = wanted & set(table.index[table["ensembl_id"] != ""])
    # SAA1, one of the 50 genes of IFN_MHC, is not simulated: a covariate with a gene the matrix lacks
    assert len(known) > 800 and known - set(features[1]) == {"SAA1"}


def test_truth_fits_the_counts(read, truth: pd.DataFrame):
    for sample, cells in truth.groupby("sample"):
        counts, _, ids = read(sample)
        assert (cells["cell_id"].to_numpy() == ids).all() and len(set(ids)) == len(ids)
        assert (cells["n_umi"].to_numpy() == np.asarray(counts.sum(axis=1)).ravel()).all()
        assert counts.data.min() >= 1
    malignant = truth["malignant"]
    assert (truth["cell_type"][malignant] == "epithelial").all() and set(truth["clone"][malignant]) == {"A", "B"}
    assert set(truth["csc_state"][malignant]) == {"m_csc", "other"} and set(truth["csc_state"][~malignant]) == {"NA"}
    assert ((truth["csc_state"] == "m_csc") == (truth["cd44_high"] & ~truth["cd24_high"])).all()
    assert not (truth["aldh1a3_high"] & ((truth["csc_state"] == "m_csc") | ~malignant)).any()
    assert ((truth["tam_class"] != "not_macrophage") == (truth["cell_type_minor"] == "macrophage_pan")).all()


def test_every_tumour_is_assessable(truth: pd.DataFrame, truth_samples: pd.DataFrame):
    clean = truth[~truth["doublet"] & ~truth["damaged"]]
    for sample in TUMOURS:
        cells = clean[clean["sample"] == sample]
        assert cells["malignant"].sum() >= 250
        assert cells["cell_type"].isin(REFERENCE).sum() >= 120
        assert (cells["cell_type_minor"] == "iCAF").sum() >= 20
        assert (cells["cell_type_minor"] == "endo_venous_ACKR1").sum() >= 20
        myeloid = cells["cell_type_minor"].isin(["macrophage_pan", "monocyte_classical"]).sum()
        assert (cells["cell_type"] == "myeloid").sum() == 0 if sample == "demo_er_2" else myeloid >= 40
        assert (cells["csc_state"] == "m_csc").sum() >= 20
    umi = truth.groupby("sample")["n_umi"].median()
    assert (umi[[s for s in umi.index if s != "demo_her2_2"]] >= 10_000).all()
    assert umi["demo_her2_2"] == pytest.approx(2000, rel=0.1)
    assert list(truth_samples.index[truth_samples["shallow"] == "yes"]) == ["demo_her2_2"]
    assert list(truth_samples.index[truth_samples["without_macrophages"] == "yes"]) == ["demo_er_2"]


def test_normals_hold_all_epithelial_types_and_no_malignant_cell(truth: pd.DataFrame, truth_samples: pd.DataFrame):
    normal = truth[truth["sample"].str.startswith("demo_normal")]
    assert not normal["malignant"].any() and set(normal["clone"]) == {"NA"}
    for kind in ("luminal_mature_LumHR", "luminal_progenitor_LumSec", "basal_myoepithelial"):
        assert (normal.groupby("sample")["cell_type_minor"].agg(lambda v, k=kind: (v == k).sum()) >= 30).all()
    assert truth_samples.loc[["demo_normal_1", "demo_normal_2"], "csc_fraction"].isna().all()


def test_libraries_look_like_10x(read):
    for sample in (*DEEP, "demo_normal_1"):
        counts, features, _ = read(sample)
        total = np.asarray(counts.sum(axis=1)).ravel()
        assert 2300 <= np.median(np.diff(counts.indptr)) <= 3700
        mito = counts[:, features.index[features[1].str.startswith("MT-")]]
        assert 0.05 <= np.median(np.asarray(mito.sum(axis=1)).ravel() / total) <= 0.10
    with np.errstate(divide="ignore"):
        assert 0.3 <= np.std(np.log(total)) <= 0.8


@pytest.mark.parametrize(
    ("kind", "name"),
    [("t_nk", "t_cd4"), ("b_cell", "b_cell"), ("plasmablast", "plasmablast"), ("myeloid", "macrophage_pan"), ("mast", "mast"),
     ("endothelial", "endo_venous_ACKR1"), ("caf", "iCAF"), ("pvl", "pvl_differentiated"), ("epithelial", "cancer")],
)  # fmt: skip
def test_markers_are_clear_in_their_type_and_nearly_absent_elsewhere(read, truth: pd.DataFrame, kind: str, name: str):
    sample = "demo_tnbc_1"
    counts, features, _ = read(sample)
    cells = truth[truth["sample"] == sample].reset_index(drop=True)
    clean = ~cells["doublet"] & ~cells["damaged"]
    at = features.index[features[1].isin(genes.markers("major")[kind].positive)]
    share = np.asarray(counts[:, at].sum(axis=1)).ravel() / cells["n_umi"] * 1e4 / len(at)
    own = share[clean & (cells["cell_type_minor"] == name)]
    lineages = {
        "b_cell": ("b_cell", "plasmablast", "t_nk"),
        "plasmablast": ("b_cell", "plasmablast"),
        "pvl": ("pvl", "caf"),
    }
    other = share[clean & ~cells["cell_type"].isin([kind, *lineages.get(kind, ())])]
    assert own.median() >= 1.5
    assert other.quantile(0.9) <= own.median() / 5


def test_same_seed_same_bytes_and_another_seed_other_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(simulate, "PLANS", (plan("demo_tnbc_2"), plan("demo_er_2"), plan("demo_normal_1")))
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        simulate.run_simulate(tmp_path / name, options=SMALL, seed=seed)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 3 * 3 + 3
    for file in files:
        first, again, other = ((tmp_path / n / file).read_bytes() for n in "abc")
        assert first == again, file
        assert (first == other) == (file.name in ("samples.tsv", "features.tsv.gz")), file
        if file.suffix == ".gz":
            assert first[3] == 0 and first[4:8] == b"\0" * 4, "no file name and no time in the gzip header"


def test_samples_do_not_depend_on_each_other():
    alone = simulate.simulate_sample(plan("demo_er_2"), simulate.profiles(), options=SMALL, seed=3)
    simulate.simulate_sample(plan("demo_er_1"), simulate.profiles(), options=SMALL, seed=3)
    again = simulate.simulate_sample(plan("demo_er_2"), simulate.profiles(), options=SMALL, seed=3)
    assert (alone.counts != again.counts).nnz == 0 and alone.cells.equals(again.cells)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.2])
def test_ambient_share_is_what_was_asked_for(share: float):
    options = Simulate(cells_per_tumour=300, median_umi=4000, ambient_fraction=share, doublet_rate=0.0)
    got = simulate.simulate_sample(plan("demo_tnbc_1"), simulate.profiles(), options=options, seed=0)
    assert got.truth["ambient_fraction"] == pytest.approx(share, rel=0.06, abs=1e-9)
    # Independent oracle: plasmablasts' JCHAIN in malignant cells is ambient only.
    table = simulate.profiles()
    cells, total = got.cells, np.asarray(got.counts.sum(axis=1)).ravel()
    at = table.where(["IGKC", "JCHAIN", "IGHG1", "IGHA1"])
    ig = np.asarray(got.counts[:, at].sum(axis=1)).ravel()
    malignant = cells["malignant"].to_numpy()
    seen = ig[malignant].sum()
    made = 4 * 0.008e-4  # the share such markers have outside their types
    expected = (share * ig.sum() / total.sum() + made) * total[malignant].sum()
    # Counting noise, plus 15 %: the mean of a handful of plasmablasts is itself noisy.
    assert abs(seen - expected) <= 4 * np.sqrt(expected) + 0.15 * expected


def test_doublets_are_as_many_as_asked_for_and_hold_two_cells(truth: pd.DataFrame):
    found = truth.groupby("sample")["doublet"].sum().to_dict()
    assert found == {p.sample: 26 if p.tissue == "tumour" else 10 for p in simulate.PLANS}  # 4 % of 640 and of 260
    tumours = truth[truth["sample"].isin(DEEP)]
    ratio = tumours.loc[tumours["doublet"], "n_umi"].mean() / tumours.loc[~tumours["doublet"], "n_umi"].mean()
    assert 1.6 <= ratio <= 2.4
    none = simulate.simulate_sample(
        plan("demo_tnbc_1"), simulate.profiles(), options=replace_options(doublet_rate=0.0), seed=0
    )
    assert not none.cells["doublet"].any()


def replace_options(**values) -> Simulate:
    return SMALL.model_copy(update=values)


@pytest.mark.parametrize("sample", TUMOURS)
def test_copy_numbers_move_the_mean_expression_of_their_arm(read, truth: pd.DataFrame, sample: str):
    counts, _, _ = read(sample)
    cells = truth[truth["sample"] == sample].reset_index(drop=True)
    clean = ~cells["doublet"] & ~cells["damaged"]
    table = simulate.profiles()
    pseudobulk = {}
    for name, rows in {"malignant": cells["malignant"], "reference": cells["cell_type"].isin(REFERENCE)}.items():
        total = np.asarray(counts[np.flatnonzero(rows & clean)].sum(axis=0)).ravel()
        pseudobulk[name] = total / total.sum() * 1e4
    log_ratio = np.log2((pseudobulk["malignant"] + 0.05) / (pseudobulk["reference"] + 0.05))
    expressed = pseudobulk["reference"] > 0.3
    touched = np.zeros(len(expressed), dtype=bool)
    for region, _ in (*plan(sample).trunk, *(e for clone in plan(sample).clones for e in clone)):
        touched[table.region(region)] = True
    neutral = np.median(log_ratio[expressed & ~touched])
    for region, copies in plan(sample).trunk:
        at = np.zeros(len(expressed), dtype=bool)
        at[table.region(region)] = True
        shift = np.median(log_ratio[at & (expressed if "+" not in region else True)]) - neutral
        assert shift * np.sign(copies - 2) > 0.3, (region, copies, shift)


def test_her2_amplicon_is_seen_in_her2_tumours_only(read, truth: pd.DataFrame):
    erbb2 = {s: rate(read, truth, s, "ERBB2", lambda c: c["malignant"]) for s in TUMOURS}
    amplified = [erbb2.pop("demo_her2_1"), erbb2.pop("demo_her2_2")]
    assert min(amplified) > 5 * max(erbb2.values())


@pytest.mark.parametrize("sample", DEEP)
def test_csc_states_are_in_the_counts_at_their_rates(
    read, truth: pd.DataFrame, truth_samples: pd.DataFrame, sample: str
):
    malignant = truth[(truth["sample"] == sample) & truth["malignant"]]
    n, k = len(malignant), (malignant["csc_state"] == "m_csc").sum()
    assert stats.binomtest(int(k), n, truth_samples.loc[sample, "csc_fraction_expected"]).pvalue > 0.001
    assert 0.10 <= truth_samples.loc[sample, "csc_fraction_expected"] <= 0.20
    assert k / n == pytest.approx(truth_samples.loc[sample, "csc_fraction"], rel=1e-5)
    aldh = int(malignant["aldh1a3_high"].sum())
    assert stats.binomtest(aldh, n, simulate.ALDH_SHARE).pvalue > 0.001
    for gene, column in {"CD44": "cd44_high", "CD24": "cd24_high", "ALDH1A3": "aldh1a3_high"}.items():
        low, high = simulate.STATES[gene]
        got = rate(read, truth, sample, gene, lambda c, col=column: c["malignant"] & c[col])
        # Relative error of a mean of n gamma(3) cells weighted by library (log-normal, about 1.3 / n), four of them.
        assert got == pytest.approx(high, rel=4 * np.sqrt(1.3 / 3 / malignant[column].sum())), gene
        got = rate(read, truth, sample, gene, lambda c, col=column: c["malignant"] & ~c[col])
        assert 0.5 * low <= got <= low + 0.25, gene  # ambient RNA adds to it

    # A likelihood with the known rates, blind to the truth, gives the fraction back (gamma-Poisson, sizes known).
    counts, features, _ = read(sample)
    cells = truth[truth["sample"] == sample].reset_index(drop=True)
    use = np.flatnonzero(cells["malignant"] & ~cells["doublet"] & ~cells["damaged"])
    size = cells["n_umi"].to_numpy()[use] / 1e4
    like = {}
    for gene in ("CD44", "CD24"):
        x = counts[:, features.index[features[1] == gene]].toarray().ravel()[use]
        like[gene] = [stats.nbinom.pmf(x, 3, 3 / (3 + r * size)) for r in simulate.STATES[gene]]
    joint = np.stack([a * b for a in like["CD44"] for b in like["CD24"]], axis=1)
    weights = np.full(4, 0.25)
    for _ in range(300):
        posterior = joint * weights
        weights = (posterior / posterior.sum(axis=1, keepdims=True)).mean(axis=0)
    share = (cells["csc_state"].to_numpy()[use] == "m_csc").mean()
    assert weights[2] == pytest.approx(share, abs=3 * np.sqrt(share * (1 - share) / len(use)))


def test_cd44_is_not_a_malignant_gene(read, truth: pd.DataFrame):
    for kind in ("t_cd4", "macrophage_pan", "iCAF"):
        assert rate(read, truth, "demo_er_1", "CD44", minor(kind)) > 1.5


@pytest.mark.parametrize("sample", TUMOURS)
def test_loop_is_where_it_was_planted(read, truth: pd.DataFrame, truth_samples: pd.DataFrame, sample: str):
    def value(gene, rows):
        return rate(read, truth, sample, gene, rows)

    def csc(cells):
        return cells["csc_state"] == "m_csc"

    def other(cells):
        return cells["csc_state"] == "other"

    il6 = value("IL6", minor("iCAF")), value("IL6", minor("endo_venous_ACKR1"))
    assert min(il6) > 1.5 if truth_samples.loc[sample, "il6_planted"] == "yes" else max(il6) < 0.3
    planted = truth_samples.loc[sample, "loop_planted"] == "yes"
    assert planted == (sample in ("demo_tnbc_1", "demo_her2_1", "demo_er_1"))
    for gene in ("CCL2", "CSF1"):
        assert (
            (value(gene, csc) > 2 * value(gene, other) and value(gene, other) > 0.4)
            if planted
            else value(gene, csc) < 0.5
        )
    assert (value("IL6R", csc) > 0.3) == planted or sample == "demo_her2_2"
    names = [g for g in genes.signatures()["STAT3_core"].genes if g not in genes.signatures()["STRESS"].genes]
    fold = np.median([(value(g, csc) + 0.02) / (value(g, other) + 0.02) for g in names])
    assert (1.5 < fold < 3) if planted else (0.6 < fold < 1.4)


def test_platelets_are_in_8_barcodes_of_one_tumour_and_ppbp_nowhere_else(read, truth: pd.DataFrame):
    for sample, cells in truth.groupby("sample"):
        counts, features, _ = read(sample)
        both = [counts[:, features.index[features[1] == g]].toarray().ravel() for g in ("PPBP", "PF4")]
        platelet = cells["platelet"].to_numpy()
        assert platelet.sum() == (8 if sample == "demo_tnbc_2" else 0)
        assert (np.minimum(*both)[platelet] >= 5).all() and (np.maximum(*both)[~platelet] == 0).all()
        for gene in ("CXCR1", "CXCR2", "INS", "EPO", "GCG"):
            assert counts[:, features.index[features[1] == gene]].sum() == 0


def test_macrophage_axes_follow_the_class(read, truth: pd.DataFrame):
    for axis, high, low in (("M1", "m1_like", "m2_like"), ("M2", "m2_like", "m1_like")):
        names = [g for g in genes.signatures()[axis].genes if g in set(read("demo_er_1")[1][1])]
        fold = [
            (rate(read, truth, "demo_er_1", g, lambda c, k=high: c["tam_class"] == k) + 0.05)
            / (rate(read, truth, "demo_er_1", g, lambda c, k=low: c["tam_class"] == k) + 0.05)
            for g in names
        ]
        assert np.median(fold) > 1.8


def test_malignant_cells_differ_between_patients_more_than_stroma_does(read, truth: pd.DataFrame):
    def profile(sample, rows):
        counts, _, _ = read(sample)
        cells = truth[truth["sample"] == sample].reset_index(drop=True)
        total = np.asarray(counts[np.flatnonzero(rows(cells) & ~cells["doublet"])].sum(axis=0)).ravel()
        return total / total.sum() * 1e4

    first, second = (profile(s, lambda c: c["malignant"]) for s in ("demo_tnbc_1", "demo_tnbc_2"))
    expressed = (first > 0.5) & (second > 0.5)
    between = np.std(np.log(first[expressed] / second[expressed]))
    caf = [profile(s, lambda c: c["cell_type"] == "caf") for s in ("demo_tnbc_1", "demo_tnbc_2")]
    both = expressed & (caf[0] > 0.5) & (caf[1] > 0.5)
    assert between > 1.5 * np.std(np.log(caf[0][both] / caf[1][both]))


@pytest.mark.parametrize("n", [200, 333, 640])
def test_composition_adds_up(n: int):
    for one in simulate.PLANS:
        got = simulate.composition(one, n)
        assert sum(got.values()) == n and min(got.values()) >= 1


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_extreme_fractions_are_obeyed(fraction: float):
    options = replace_options(csc_fraction=fraction, ambient_fraction=0.0, doublet_rate=0.0)
    got = simulate.simulate_sample(
        replace(plan("demo_er_1"), csc_factor=1.0), simulate.profiles(), options=options, seed=0
    )
    assert got.truth["csc_fraction"] == fraction and got.truth["ambient_fraction"] == 0


def test_unknown_region_is_an_error():
    broken = replace(plan("demo_er_1"), trunk=(("99q", 3),))
    with pytest.raises(ValueError, match="99q"):
        simulate.copy_numbers(broken, simulate.profiles())
