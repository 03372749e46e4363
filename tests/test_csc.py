"""CD44/CD24 and ALDH1A3 states: the model against scipy, the simulation of the science notes, reasons and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import minimize

from helpers import record_of
from nicheloop import csc, io
from nicheloop import csc_model as model
from nicheloop.config import Csc
from nicheloop.csc import GeneRates
from nicheloop.csc_model import Rates

KNOWN = {
    "CD44": GeneRates("ok", "", 0, Rates(0.2, 3.0, 3.0)),
    "CD24": GeneRates("ok", "", 0, Rates(0.2, 4.0, 3.0)),
    "ALDH1A3": GeneRates("ok", "", 0, Rates(0.1, 4.0, 3.0)),
}
ASSOCIATED = np.array([0.10, 0.70, 0.10, 0.10])  # low/low, low/high, high/low, high/high
INDEPENDENT = np.outer([0.75, 0.25], [0.2, 0.8]).ravel()  # high/low 5 %
HALF_PERCENT = np.array([0.045, 0.75, 0.005, 0.20])
OPTIONS = Csc(n_bootstrap=60)


def counts(rng: np.random.Generator, rate: np.ndarray, size: np.ndarray, shape: float = 3.0) -> np.ndarray:
    return rng.poisson(rng.gamma(shape, rate / shape) * size).astype(float)


def simulate(
    seed: int,
    *,
    n: int = 400,
    weights: np.ndarray = ASSOCIATED,
    median: float = 11000,
    sample: str = "s1",
    aldh: float = 0.3,
    others: int = 0,
    lp: float = 0.0,
) -> pd.DataFrame:
    """Score table of one tumour; column ``truth`` is the joint state."""
    rng = np.random.default_rng(seed)
    umi = np.round(rng.lognormal(np.log(median), 0.5, n))
    size, state = umi / 1e4, rng.choice(4, n, p=weights)
    z = rng.standard_normal(n)
    high = rng.random(n) < aldh
    table = pd.DataFrame({
        "cell_id": [f"{sample}:c{i:04d}" for i in range(n)], "compartment": "malignant", "n_counts": umi,
        "umi_CD44": counts(rng, np.where(state // 2, 3.0, 0.2), size),
        "umi_CD24": counts(rng, np.where(state % 2, 4.0, 0.2), size),
        "umi_ALDH1A3": counts(rng, np.where(high, 4.0, 0.1) * np.exp(lp * z), size),
        "z_LP_covariate": z, "z_EMT_malignant": np.where(state == 2, 2.0, 0.0), "z_G2M": 0.0, "truth": state,
    })  # fmt: skip
    parts = [table]
    for kind, rate in (("t_nk", 3.0), ("caf", 3.0), ("pvl", 0.2)):
        if others:
            s = np.full(others, 0.9)
            parts.append(pd.DataFrame({
                "cell_id": [f"{sample}:{kind}{i}" for i in range(others)], "compartment": kind, "n_counts": 9000.0,
                "umi_CD44": counts(rng, np.full(others, rate), s), "umi_CD24": counts(rng, np.full(others, 0.05), s),
                "umi_ALDH1A3": 0.0, "z_LP_covariate": np.nan, "z_EMT_malignant": np.nan, "z_G2M": 0.0, "truth": -1,
            }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


# ----------------------------------------------------------------------------------------------------------- model
def test_emission_is_negative_binomial_with_offset() -> None:
    rng = np.random.default_rng(0)
    x, size = rng.poisson(5, 200).astype(float), rng.uniform(0.1, 4, 200)
    mean = 3.7 * size
    expected = stats.nbinom.logpmf(x, 2.5, 2.5 / (2.5 + mean))
    np.testing.assert_allclose(model.log_emission(x, size, 3.7, 2.5), expected, rtol=1e-9)
    np.testing.assert_allclose(model.zero_probability(size, 3.7, 2.5), stats.nbinom.pmf(0, 2.5, 2.5 / (2.5 + mean)))


def test_informative_needs_three_umi_in_the_poisson_limit_and_more_when_dispersed() -> None:
    size = np.array([2.9, 3.1, 5.0, 5.3])
    assert (model.zero_probability(size, 1.0, 1e6) <= 0.05).tolist() == [False, True, True, True]
    assert (model.zero_probability(size, 1.0, 3.0) <= 0.05).tolist() == [False, False, False, True]


def test_weights_reach_the_maximum_of_the_likelihood() -> None:
    table = simulate(3, median=5000)
    size = table["n_counts"].to_numpy() / 1e4
    parts = [KNOWN[g].rates.log_lik(table[f"umi_{g}"].to_numpy(), size) for g in ("CD44", "CD24")]
    weights, loglik = model.fit_weights(model.joint_log_likelihood(*parts))

    lik = np.stack([
        stats.nbinom.pmf(table["umi_CD44"], 3, 3 / (3 + a * size)) * stats.nbinom.pmf(table["umi_CD24"], 3, 3 / (3 + b * size))
        for a in (0.2, 3.0) for b in (0.2, 4.0)
    ])  # fmt: skip

    def loss(logits: np.ndarray) -> float:
        w = np.exp(np.append(logits, 0.0))
        return -np.log(w / w.sum() @ lik).sum()

    best = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 5000})
    w = np.exp(np.append(best.x, 0.0))
    np.testing.assert_allclose(weights, w / w.sum(), atol=1e-4)
    assert loglik == pytest.approx(-best.fun, abs=1e-5)


def test_batched_fits_equal_single_fits_and_survive_no_cells() -> None:
    rng = np.random.default_rng(1)
    log_lik = rng.normal(size=(3, 4, 50))
    together, _ = model.fit_weights(log_lik)
    for one, expected in zip(log_lik, together, strict=True):
        np.testing.assert_allclose(model.fit_weights(one)[0], expected, atol=1e-5)
    assert model.fit_weights(np.zeros((4, 0)))[0].tolist() == [0.25] * 4


def test_posterior_is_bayes_rule() -> None:
    log_lik = np.log(np.array([[0.2, 1e-300], [0.4, 1e-200]]))
    np.testing.assert_allclose(model.posterior(log_lik, np.array([0.8, 0.2]))[:, 0], [2 / 3, 1 / 3])
    assert np.isfinite(model.posterior(log_lik, np.array([1.0, 0.0]))).all()


def test_rates_are_the_maximum_and_their_errors_come_from_the_curvature() -> None:
    table = simulate(5, n=600)
    x, size = table["umi_CD44"].to_numpy(), table["n_counts"].to_numpy() / 1e4
    fit = model.fit_rates(x, size, np.zeros(600, dtype=int), shape=3.0, min_shape=1.0)

    def loss(theta: np.ndarray) -> float:  # independent: scipy's law, one weight
        low, high, r, w = *np.exp(theta[:3]), 1 / (1 + np.exp(-theta[3]))
        pmf = [stats.nbinom.pmf(x, r, r / (r + rate * size)) for rate in (low, high)]
        return -np.log((1 - w) * pmf[0] + w * pmf[1]).sum()

    start = [np.log(fit.low), np.log(fit.high), np.log(fit.shape), -1.0]
    best = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8, "maxiter": 4000})
    np.testing.assert_allclose(np.log([fit.low, fit.high, fit.shape]), best.x[:3], atol=5e-3)
    step = 1e-3
    hessian = np.array([
        [sum(si * sj * loss(best.x + step * (si * np.eye(4)[i] + sj * np.eye(4)[j])) for si in (1, -1) for sj in (1, -1))
         / (4 * step**2) for j in range(4)] for i in range(4)
    ])  # fmt: skip
    errors = np.sqrt(np.diag(np.linalg.inv(hessian)))[:2]
    np.testing.assert_allclose([fit.log_low_se, fit.log_high_se], errors, rtol=0.05)


def test_low_rate_is_never_below_the_ambient_rate() -> None:
    table = simulate(6, n=600)
    x, size = table["umi_CD24"].to_numpy(), table["n_counts"].to_numpy() / 1e4
    fit = model.fit_rates(x, size, np.zeros(600, dtype=int), shape=3.0, min_shape=1.0, floor=0.5)
    assert fit.low == pytest.approx(0.5)
    assert fit.log_low_se == 0.0


@pytest.mark.parametrize(("shape", "samples"), [(3.0, 1), (3.0, 6), (1.0, 6)])
def test_one_state_is_not_taken_for_two(shape: float, samples: int) -> None:
    rng = np.random.default_rng(11)
    table = simulate(1, n=300 * samples)
    size = table["n_counts"].to_numpy() / 1e4
    table["umi_CD24"] = counts(rng, np.full(len(table), 2.0), size, shape)
    group = np.repeat(np.arange(samples), 300)
    found = csc.estimate_gene("CD24", table, group, floor=0, low_start=0, options=OPTIONS)
    assert found.status == "not_bimodal"
    assert found.rates is None
    assert "mean 2" in found.reason or "mean 1.9" in found.reason


def test_patients_that_differ_more_than_their_cells_are_named() -> None:
    rng = np.random.default_rng(2)
    size = rng.lognormal(0.1, 0.5, 1200)
    group = np.repeat(np.arange(4), 300)
    x = counts(rng, np.array([0.3, 0.8, 2.0, 5.0])[group], size)
    assert model.fit_rates(x, size, group, shape=3.0, min_shape=1.0).bic_gain_samples < 0


def test_rates_do_not_depend_on_cell_order() -> None:
    parts = [simulate(i, sample=f"s{i}") for i in range(3)]
    shuffled = [p.sample(frac=1, random_state=4) for p in parts]
    a, b = (csc.rates_table({"u": csc.estimate_rates(p, [{}] * 3, options=OPTIONS)}) for p in (parts, shuffled))
    pd.testing.assert_frame_equal(a, b, check_exact=True)


# ------------------------------------------------------------------------------------ the simulation of section 1.5
def fractions(weights: np.ndarray, median: float, repeats: int = 12) -> np.ndarray:
    """(repeats, 3) naive, product and joint estimate with known rates, 600 cells."""
    out = []
    for seed in range(repeats):
        table = simulate(1000 + seed, n=600, weights=weights, median=median)
        size = table["n_counts"].to_numpy() / 1e4
        x44, x24 = table["umi_CD44"].to_numpy(), table["umi_CD24"].to_numpy()
        a, b = (KNOWN[g].rates.log_lik(table[f"umi_{g}"].to_numpy(), size) for g in ("CD44", "CD24"))
        p44, p24 = (model.posterior(part, model.fit_weights(part)[0])[1] for part in (a, b))
        joint = model.fit_weights(model.joint_log_likelihood(a, b))[0][csc.M_CSC]
        out.append([np.mean((x44 > 0) & (x24 == 0)), np.mean(p44 * (1 - p24)), joint])
    return np.array(out)


def test_product_halves_an_association_and_the_joint_fit_does_not() -> None:
    _, product, joint = fractions(ASSOCIATED, 10000).mean(axis=0)
    assert product < 0.07
    assert abs(joint - 0.10) < 0.015


@pytest.mark.parametrize("median", [2000, 20000])
def test_naive_rule_overstates_a_rare_state_and_the_joint_fit_does_less(median: int) -> None:
    naive, _, joint = fractions(HALF_PERCENT, median).mean(axis=0)
    assert naive > 0.015
    assert abs(joint - 0.005) < abs(naive - 0.005) / 2


def test_joint_fit_has_the_smallest_worst_case_error() -> None:
    error = [
        np.sqrt(((fractions(w, m) - w[csc.M_CSC]) ** 2).mean(axis=0)) for w in (ASSOCIATED, INDEPENDENT, HALF_PERCENT)
        for m in (10000, 20000)
    ]  # fmt: skip
    assert np.argmin(np.max(error, axis=0)) == 2


@pytest.mark.parametrize("weights", [ASSOCIATED, INDEPENDENT])
def test_estimated_rates_recover_the_fraction(weights: np.ndarray) -> None:
    samples = [simulate(50 + i, weights=weights, median=16000, sample=f"s{i}") for i in range(6)]
    rates = csc.estimate_rates(samples, [{}] * 6, options=OPTIONS)
    assert rates["CD44"].rates.high == pytest.approx(3.0, rel=0.15)
    assert rates["CD24"].rates.high == pytest.approx(4.0, rel=0.15)
    found = [csc.assess_m_csc(s, rates, options=OPTIONS) for s in samples]
    assert abs(np.mean([f.weights[csc.M_CSC] for f in found]) - weights[csc.M_CSC]) < 0.02
    positive = np.concatenate([f.prob > 0.8 for f in found])
    truth = np.concatenate([s["truth"] == 2 for s in samples])
    assert truth[positive].mean() > 0.7


def test_interval_covers_the_truth() -> None:
    hits = []
    genes = [KNOWN["CD44"].rates, KNOWN["CD24"].rates]
    for seed in range(60):
        table = simulate(2000 + seed, n=300, median=16000)
        size = table["n_counts"].to_numpy() / 1e4
        found = csc.assess_m_csc(table, KNOWN, options=OPTIONS)
        rng = np.random.default_rng(seed)
        ends = model.bootstrap(genes, size, found.weights, 2, n_bootstrap=100, confidence=0.95, rng=rng)
        hits.append(ends.low <= 0.10 <= ends.high)
    assert stats.binomtest(sum(hits), len(hits), 0.95).pvalue > 0.001


def test_uncertain_rates_widen_the_interval() -> None:
    table = simulate(1)
    size = table["n_counts"].to_numpy() / 1e4
    widths = []
    for error in (0.0, 0.4):
        genes = [Rates(0.2, 3.0, 3.0, error, error), Rates(0.2, 4.0, 3.0, error, error)]
        ends = model.bootstrap(
            genes, size, ASSOCIATED, 2, n_bootstrap=200, confidence=0.95, rng=np.random.default_rng(0)
        )
        widths.append(ends.high - ends.low)
    assert widths[1] > 1.3 * widths[0]


@pytest.mark.parametrize("median", [16000, 25000])
def test_half_a_percent_is_not_distinguishable_from_zero(median: int) -> None:
    said = []
    for seed in range(6):
        table = simulate(300 + seed, n=600, weights=HALF_PERCENT, median=median)
        states, _, _ = csc.call_cells(table, KNOWN, options=OPTIONS)
        row = csc.summarise(table, states, KNOWN, options=OPTIONS, rng=np.random.default_rng(seed))
        said.append(row["m_csc_wording"])
        assert row["m_csc_high"] >= 0.005
    assert said.count(csc.NOT_DISTINGUISHABLE) >= 5


def test_ten_percent_is_estimated_and_the_contrasts_point_the_right_way() -> None:
    table = simulate(9, n=600, median=16000)
    states, _, _ = csc.call_cells(table, KNOWN, options=OPTIONS)
    row = csc.summarise(table, states, KNOWN, options=OPTIONS, rng=np.random.default_rng(0))
    assert row["m_csc_wording"] == "estimated"
    assert row["m_csc_low"] < 0.10 < row["m_csc_high"]
    assert row["odds_ratio"] < 1  # CD44 and CD24 exclude each other here
    assert row["emt_z_csc"] > 1
    assert row["cycling_z_csc"] == 0
    assert row["overlap_fraction"] == pytest.approx(row["overlap_expected"], abs=0.02)  # drawn independently


# --------------------------------------------------------------------------------------------------------- ALDH1A3
def test_lp_effect_is_recovered_and_removes_what_it_explains() -> None:
    samples = [simulate(70 + i, lp=0.5, median=16000, sample=f"s{i}") for i in range(4)]
    rates = csc.estimate_rates(samples, [{}] * 4, options=OPTIONS)
    assert rates["ALDH1A3"].rates.effect == pytest.approx(0.5, abs=0.1)
    lp_like = samples[0].assign(z_LP_covariate=samples[0]["z_LP_covariate"] + 1.0)
    same, shifted = csc.lp_adjusted(samples[0], rates)[1], csc.lp_adjusted(lp_like, rates)[1]
    assert shifted < same  # the same counts mean less in a tumour that resembles luminal progenitors


def test_without_covariate_there_is_no_adjusted_probability() -> None:
    table = simulate(1, n=800, median=25000)
    rates = csc.estimate_rates([table.drop(columns="z_LP_covariate")], [{}], options=OPTIONS)
    assert np.isnan(rates["ALDH1A3"].rates.effect)
    states, _, aldh = csc.call_cells(table, rates, options=OPTIONS)
    assert aldh.ok
    assert states["aldh1a3_prob"].notna().all()
    assert states["aldh1a3_lp_prob"].isna().all()


# --------------------------------------------------------------------------------------------------------- reasons
def without(table: pd.DataFrame, gene: str) -> pd.DataFrame:
    return table.assign(**{f"umi_{gene}": np.nan})


NOT_BIMODAL = {**KNOWN, "CD44": GeneRates("not_bimodal", "one state")}


@pytest.mark.parametrize(
    ("table", "rates", "status"),
    [
        (without(simulate(1), "CD24"), KNOWN, "cd24_absent_from_reference"),
        (simulate(1).drop(columns="umi_CD24"), KNOWN, "cd24_absent_from_reference"),
        (without(simulate(1), "CD44"), KNOWN, "cd44_absent_from_reference"),
        (simulate(1, n=49), KNOWN, "too_few_malignant"),
        (simulate(1, n=90).assign(compartment="caf"), KNOWN, "too_few_malignant"),
        (simulate(1, median=3000), KNOWN, "not_informative_depth"),
        (simulate(1), NOT_BIMODAL, "not_bimodal"),
        (simulate(1), {}, "rates_not_estimated"),
    ],
)
def test_reason_of_no_answer(table: pd.DataFrame, rates: dict[str, GeneRates], status: str) -> None:
    states, m_csc, _ = csc.call_cells(table, rates, options=OPTIONS)
    assert m_csc.status == status
    malignant = (table["compartment"] == "malignant").to_numpy()
    assert set(states["csc_status"][malignant]) <= {status}
    assert set(states["csc_status"][~malignant]) <= {"not_malignant"}
    assert (states["csc_state"] == "not_assessable").all()
    assert states["m_csc_prob"].isna().all()


def test_cells_keep_their_state_in_any_order() -> None:
    table = simulate(4, others=20)
    a = csc.call_cells(table, KNOWN, options=OPTIONS)[0].set_index("cell_id")
    b = (
        csc.call_cells(table.sample(frac=1, random_state=0), KNOWN, options=OPTIONS)[0]
        .set_index("cell_id")
        .loc[a.index]
    )
    np.testing.assert_allclose(a["m_csc_prob"], b["m_csc_prob"], atol=1e-6)
    assert (a["csc_state"] == b["csc_state"]).all()
    assert a.loc["s1:t_nk0", "csc_status"] == "not_malignant"


def test_controls_show_why_other_types_are_left_out() -> None:
    rows = {r["cell_type"]: r for r in csc.controls(simulate(4, others=60), KNOWN, options=OPTIONS)}
    assert rows["t_nk"]["fraction_called"] > 0.5
    assert rows["pvl"]["fraction_called"] < 0.1
    assert rows["myeloid"]["n_cells"] == 0
    assert np.isnan(rows["myeloid"]["fraction_called"])


# ----------------------------------------------------------------------------------------------------------- files
def write_sample(folder: Path, table: pd.DataFrame, sample: str, **record: object) -> dict[str, Path]:
    folder = folder / sample
    paths = {k: folder / f"{k}.parquet" for k in ("scores", "ambient", "csc")}
    paths["record"] = folder / "ingest.json"
    io.write_table(table.drop(columns="truth", errors="ignore"), paths["scores"], "scores")
    ambient = pd.DataFrame(
        {"gene": ["CD44", "CD24", "ACTB"], "ambient_fraction": [1e-4, 1e-4, 1e-2], "contamination_rate": 0.03}
    )
    io.write_table(ambient, paths["ambient"], "ambient")
    io.write_json(paths["record"], record_of(sample, len(table), 3, **record))
    return paths


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Path]]]:
    """Eight samples run through the three stages: two good ones of one patient, and every way to fail."""
    folder = tmp_path_factory.mktemp("csc")
    empty = simulate(1).iloc[:0]
    samples = [
        write_sample(
            folder, simulate(1, n=500, median=18000, sample="a1", others=30), "a1", patient="A", tissue="primary"
        ),
        write_sample(folder, simulate(2, n=600, median=18000, sample="a2"), "a2", patient="A", tissue="lymph node"),
        write_sample(folder, simulate(3, n=300, median=18000, sample="b"), "b", subtype="TNBC"),
        write_sample(folder, simulate(4, n=300, median=3000, sample="shallow"), "shallow"),
        write_sample(folder, without(simulate(5, sample="v19", median=25000), "CD24"), "v19"),
        write_sample(folder, simulate(6, n=90, sample="tpm"), "tpm", is_counts=False),
        write_sample(folder, empty, "broken", status="unreadable", reason="cannot be read"),
        write_sample(folder, simulate(7, n=500, sample="other", median=18000), "other", chemistry="10x 3' v2"),
    ]
    scores, ambient, records = ([s[k] for s in samples] for k in ("scores", "ambient", "record"))
    csc.run_csc_rates(scores, ambient, records, folder / "rates.parquet", options=OPTIONS)
    for s in samples:
        csc.run_csc(s["scores"], folder / "rates.parquet", s["record"], s["csc"], options=OPTIONS)
    cells = [s["csc"] for s in samples]
    csc.run_csc_patients(
        cells, scores, records, folder / "rates.parquet", folder / "p.tsv", folder / "c.tsv", options=OPTIONS, seed=1
    )
    return folder, samples


def test_rates_file_has_a_row_per_chemistry_and_gene(cohort: tuple[Path, list[dict[str, Path]]]) -> None:
    rates = io.read_table(cohort[0] / "rates.parquet").set_index(["chemistry", "gene"])
    assert set(rates.index.get_level_values(0)) == {"unknown", "10x 3' v2"}
    assert len(rates) == 6
    row = rates.loc[("unknown", "CD24")]
    assert row["status"] == "ok"
    assert row["low"] >= 0.03 - 1e-9  # ambient: 0.03 x 1e-4 x 10,000
    assert rates.loc[("unknown", "CD44"), "n_cells"] == 500 + 600 + 300 + 300 + 400


def test_every_kept_cell_has_a_row_and_every_failure_its_name(cohort: tuple[Path, list[dict[str, Path]]]) -> None:
    status = {}
    for s in cohort[1]:
        table, scores = io.read_table(s["csc"]), io.read_table(s["scores"])
        assert table["cell_id"].tolist() == scores["cell_id"].tolist()
        status[s["csc"].parent.name] = io.read_status(s["csc"]).status
    assert status == {
        "a1": "ok", "a2": "ok", "b": "ok", "shallow": "not_informative_depth", "v19": "cd24_absent_from_reference",
        "tpm": "no_counts", "broken": "unreadable", "other": "ok",
    }  # fmt: skip
    v19 = io.read_table(cohort[1][4]["csc"])
    assert set(v19["aldh1a3_state"]) >= {"high", "low"}  # ALDH1A3 stands on its own


def test_patient_table(cohort: tuple[Path, list[dict[str, Path]]]) -> None:
    rows = io.read_table(cohort[0] / "p.tsv").set_index("sample")
    assert bool(rows.loc["a1", "primary_sample"])
    assert not bool(rows.loc["a2", "primary_sample"])  # more cells, but a lymph node
    assert rows.loc["a1", "m_csc_low"] < 0.10 < rows.loc["a1", "m_csc_high"]
    assert rows.loc["broken", "status"] == "unreadable"
    assert np.isnan(rows.loc["shallow", "m_csc_fraction"])
    assert rows.loc["shallow", "informative_fraction"] < 0.5
    assert rows.loc["b", "subtype"] == "TNBC"
    controls = io.read_table(cohort[0] / "c.tsv")
    assert len(controls) == 8 * len(csc.CONTROL_TYPES)


def test_interval_of_a_sample_does_not_depend_on_the_others(
    cohort: tuple[Path, list[dict[str, Path]]], tmp_path: Path
) -> None:
    folder, samples = cohort
    alone = samples[2]
    csc.run_csc_patients(
        [alone["csc"]], [alone["scores"]], [alone["record"]], folder / "rates.parquet", tmp_path / "p.tsv", tmp_path / "c.tsv",
        options=OPTIONS, seed=1,
    )  # fmt: skip
    columns = ["m_csc_fraction", "m_csc_low", "m_csc_high", "aldh1a3_low", "aldh1a3_high"]
    a = io.read_table(tmp_path / "p.tsv").set_index("sample").loc["b", columns]
    b = io.read_table(folder / "p.tsv").set_index("sample").loc["b", columns]
    assert a.tolist() == b.tolist()


def test_cohort_without_any_usable_sample(tmp_path: Path) -> None:
    s = write_sample(tmp_path, simulate(1).iloc[:0], "broken", status="unreadable", reason="cannot be read")
    csc.run_csc_rates([s["scores"]], [s["ambient"]], [s["record"]], tmp_path / "r.parquet", options=OPTIONS)
    assert set(io.read_table(tmp_path / "r.parquet")["status"]) == {"too_few_malignant"}
    csc.run_csc(s["scores"], tmp_path / "r.parquet", s["record"], s["csc"], options=OPTIONS)
    csc.run_csc_patients(
        [s["csc"]], [s["scores"]], [s["record"]], tmp_path / "r.parquet", tmp_path / "p.tsv", tmp_path / "c.tsv",
        options=OPTIONS, seed=0,
    )  # fmt: skip
    assert io.read_table(tmp_path / "p.tsv")["status"].tolist() == ["unreadable"]


# -------------------------------------------------------------------------------------------- AnnData and real data
def test_score_on_anndata_finds_genes_by_ensembl_id_and_refuses_other_values() -> None:
    import anndata as ad

    from nicheloop.errors import UserError

    table = simulate(8, n=900, median=25000)
    filler = table["n_counts"] - table[["umi_CD44", "umi_CD24", "umi_ALDH1A3"]].sum(axis=1)
    x = np.column_stack([table["umi_CD44"], table["umi_CD24"], table["umi_ALDH1A3"], filler])
    adata = ad.AnnData(x, obs=pd.DataFrame(index=table["cell_id"].tolist()))
    adata.var_names = ["ENSG00000026508", "ENSG00000272398", "ENSG00000184254", "ACTB"]
    adata.obs["tumour"] = np.arange(900) >= 20
    out = csc.score(adata, malignant="tumour")
    assert out.index.tolist() == adata.obs_names.tolist()
    assert (out["csc_status"][:20] == "not_malignant").all()
    truth = (table["truth"] == 2).to_numpy()
    assert out["m_csc_prob"][20:][truth[20:]].mean() > 5 * out["m_csc_prob"][20:][~truth[20:]].mean()
    adata.X = adata.X / 3.0
    with pytest.raises(UserError, match="raw counts"):
        csc.score(adata)


def test_cell_lines_of_known_phenotype_are_told_apart(real_data: Path) -> None:
    import anndata as ad

    adata = ad.read_h5ad(real_data / "cell_lines" / "BC_cell_lines_930.h5ad")
    names = list(adata.var_names)
    table = pd.DataFrame({
        "cell_id": adata.obs_names.to_numpy(), "compartment": "malignant", "n_counts": np.asarray(adata.X.sum(axis=1)).ravel(),
        **{f"umi_{g}": np.asarray(adata.X[:, [names.index(e)]].sum(axis=1)).ravel()
           for g, e in {"CD44": "ENSG00000026508", "CD24": "ENSG00000272398"}.items()},
    })  # fmt: skip
    line = adata.obs["cell_line"].astype(str).to_numpy()
    options = Csc(min_malignant=20, min_informative=0.0)
    samples = [table[line == name] for name in np.unique(line)]
    rates = csc.estimate_rates(samples, [{}] * len(samples), options=options)
    prob = pd.concat([csc.call_cells(s, rates, options=options)[0] for s in samples]).set_index("cell_id")["m_csc_prob"]
    prob = prob.reindex(table["cell_id"]).to_numpy(dtype=float)
    a = prob[np.isin(line, ["BT549", "HS578T", "MDAMB436", "MCF12A"])]
    b = prob[np.isin(line, ["MCF7", "T47D", "BT474", "AU565", "MDAMB361"])]
    assert (len(a), len(b)) == (120, 150)
    auroc = stats.mannwhitneyu(a, b).statistic / (len(a) * len(b))
    assert auroc >= 0.98
