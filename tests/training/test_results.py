"""The long table of results, against SciPy, pandas and counting by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ckfr_helpers.metrics import Interval
from ckfr_helpers.runtime import CkfrError, as_json
from ckfr_helpers.teaching.plots import study as figures
from ckfr_helpers.teaching.plots import study_tables as tables
from ckfr_helpers.training.results import (
    CRM,
    Results,
    as_table,
    chance_sentence,
    compare,
    made_by,
    parse,
    read_results,
    run_rows,
    spell,
    verdict,
    write_results,
)

MACHINE = {"code": "0.2.0 1a2b", "torch": "2.4", "cores": 2}
PHOTOS = np.repeat([11, 12, 13, 14], [3, 5, 2, 6])  # which photograph each of 16 scenes shows
RATES, ALPHAS = (0.001, 0.01), (1, 5, 20)


def study(**changes) -> dict:
    return {
        "name": "drawn", "datasets": [{"label": f"bias {b}", "name": "photos"} for b in (0, 0.9)],
        "methods": {"cross-entropy": {}, "ckfr": {"alpha": list(ALPHAS)}}, "seeds": [0, 1, 2, 3, 4],
        "lr_for": "baseline", "lr_by": "top1", "choose_by": "hdist@1", "choose_over": "each", "scores": [],
        **changes,
    }  # fmt: skip


@pytest.fixture
def drawn() -> Results:
    """Five seeds of cross-entropy at two rates, of CKFR at three alphas, on two data sets; all at random."""
    generator = np.random.default_rng(3)
    rows = []
    for dataset in ("bias 0", "bias 0.9"):
        settings = [("cross-entropy", {"lr": lr}) for lr in RATES]
        settings += [("ckfr", {"lr": lr, "alpha": alpha}) for lr in RATES for alpha in ALPHAS]
        for method, parameters in settings:
            for seed in range(5):
                names = ("top1", "hdist@1", "mistake_severity", "crm_hdist@1", "crm_mistake_severity")
                scores = {s: dict(zip(names, generator.random(5), strict=True)) for s in ("val", "test")}
                where = {"study": "drawn", "dataset": dataset, "method": method, "seed": seed,
                         "parameters": spell(parameters), "made_by": made_by(MACHINE)}  # fmt: skip
                rows += run_rows(where, scores, {"top1": generator.random(16) < 0.5}, PHOTOS)
    return Results(as_table(rows), {"study": study(), "made_by": {made_by(MACHINE): MACHINE}})


def by_hand(drawn: Results, dataset: str, method: str, score: str, split: str, parameters: str) -> np.ndarray:
    rows = drawn.table[drawn.table.photo.isna()]
    wanted = {"dataset": dataset, "method": method, "score": score, "split": split, "parameters": parameters}
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows.sort_values("seed").value.to_numpy()


def test_settings_are_chosen_on_validation_alone(drawn):
    for dataset in drawn.datasets:
        means = [by_hand(drawn, dataset, "cross-entropy", "top1", "val", f"lr={lr:g}").mean() for lr in RATES]
        rate = RATES[int(np.argmax(means))]
        assert drawn.best_rate(dataset) == rate
        assert drawn.chosen[dataset, "cross-entropy"] == f"lr={rate:g}"
        grid = {
            a: by_hand(drawn, dataset, "ckfr", "hdist@1", "val", f"lr={rate:g} alpha={a}").mean()
            for a in ALPHAS
        }
        assert parse(drawn.chosen[dataset, "ckfr"]) == {"lr": rate, "alpha": min(grid, key=grid.__getitem__)}
    spoilt = drawn.table.assign(value=drawn.table.value.where(drawn.table.split == "val", 0.5))
    assert Results(spoilt, drawn.about).chosen == drawn.chosen


def test_each_method_may_have_its_own_rate_and_all_data_sets_one_choice(drawn):
    each = Results(drawn.table, {"study": study(lr_for="each")})
    for dataset in each.datasets:
        grid = {
            spell({"lr": lr, "alpha": a}): by_hand(
                drawn, dataset, "ckfr", "hdist@1", "val", f"lr={lr:g} alpha={a}"
            ).mean()
            for lr in RATES
            for a in ALPHAS
        }
        assert each.chosen[dataset, "ckfr"] == min(grid, key=grid.__getitem__)
    together = Results(drawn.table, {"study": study(choose_over="all")})
    mean = {
        lr: np.mean([by_hand(drawn, d, "cross-entropy", "top1", "val", f"lr={lr:g}") for d in drawn.datasets])
        for lr in RATES
    }
    rates = {parse(text)["lr"] for text in together.chosen.values()}
    assert rates == {max(mean, key=mean.__getitem__)}
    assert together.chosen["bias 0", "ckfr"] == together.chosen["bias 0.9", "ckfr"]


def test_a_setting_that_lacks_a_seed_is_never_chosen(drawn):
    best = drawn.chosen["bias 0", "ckfr"]
    gone = drawn.table[~((drawn.table.parameters == best) & (drawn.table.seed == 3))]
    assert Results(gone, drawn.about).chosen["bias 0", "ckfr"] != best


def test_intervals_are_students_t_over_seeds_and_paired(drawn):
    dataset = "bias 0.9"
    base, ours = drawn.chosen[dataset, "cross-entropy"], drawn.chosen[dataset, "ckfr"]
    for score in ("top1", "hdist@1", "mistake_severity"):
        a = by_hand(drawn, dataset, "ckfr", score, "test", ours)
        b = by_hand(drawn, dataset, "cross-entropy", score, "test", base)
        mean = drawn.mean(dataset, "ckfr", score)
        ends = stats.t.interval(0.95, 4, a.mean(), stats.sem(a))
        np.testing.assert_allclose([mean.mean, mean.low, mean.high], [a.mean(), *ends])
        difference = drawn.difference(dataset, "ckfr", score)
        ends = stats.ttest_rel(a, b).confidence_interval(0.95)
        np.testing.assert_allclose([difference.low, difference.high], ends)
    crm = by_hand(drawn, dataset, "cross-entropy", "crm_hdist@1", "test", base)
    a = by_hand(drawn, dataset, "ckfr", "hdist@1", "test", ours)
    found = drawn.difference(dataset, "ckfr", "hdist@1", CRM)
    np.testing.assert_allclose([found.low, found.high], stats.ttest_rel(a, crm).confidence_interval(0.95))
    assert drawn.mean(dataset, CRM, "hdist@1").mean == pytest.approx(crm.mean())
    assert drawn.mean(dataset, CRM, "top1") is None  # no crm_top1 in this table


def test_a_score_that_one_seed_lacks_has_no_interval(drawn):
    where = (
        (drawn.table.method == "ckfr") & (drawn.table.score == "mistake_severity") & (drawn.table.seed == 2)
    )
    holes = Results(drawn.table.assign(value=drawn.table.value.mask(where)), drawn.about)
    assert holes.mean("bias 0", "ckfr", "mistake_severity") is None
    assert holes.difference("bias 0", "ckfr", "mistake_severity") is None
    assert verdict(None, "mistake_severity") == "not defined"


def test_over_photographs_whole_photographs_are_resampled(drawn):
    """Against a bootstrap written out with the photographs' scenes, from the same generator."""
    found = drawn.over_photographs("bias 0", "ckfr", "top1", "cross-entropy")
    rows = drawn.table[(drawn.table.dataset == "bias 0") & drawn.table.photo.notna()]
    share = {
        m: rows[rows.parameters == drawn.chosen["bias 0", m]].groupby("photo").value.mean()
        for m in ("ckfr", "cross-entropy")
    }
    apart = (share["ckfr"] - share["cross-entropy"]).to_numpy()
    sizes = np.bincount(PHOTOS)[11:]
    draws = np.random.default_rng(0).integers(4, size=(2000, 4))
    estimates = [np.average(apart[draw], weights=sizes[draw]) for draw in draws]
    assert found.n == 4
    assert found.mean == pytest.approx(np.average(apart, weights=sizes))
    np.testing.assert_allclose([found.low, found.high], np.quantile(estimates, [0.025, 0.975]))
    assert drawn.over_photographs("bias 0", "ckfr", "hdist@1") is None  # no such rows


def test_what_lies_at_the_edge_of_its_grid_is_named(drawn):
    edges = drawn.at_the_edge()
    for (dataset, method), text in drawn.chosen.items():
        alpha = parse(text).get("alpha")
        named = edges[(edges.dataset == dataset) & (edges.method == method) & (edges.parameter == "alpha")]
        assert len(named) == (method == "ckfr" and alpha in (1, 20))
        if len(named):
            assert named.edge.item() == {1: "smallest", 20: "largest"}[alpha]
    assert set(edges[edges.parameter == "lr"].method) == {"cross-entropy", "ckfr"}  # of two, each is an edge


def test_verdicts_know_which_way_is_better():
    up, down, over = Interval(0.2, 0.1, 0.3, 5), Interval(-0.2, -0.3, -0.1, 5), Interval(0.1, -0.1, 0.3, 5)
    assert [verdict(up, s) for s in ("top1", "hdist@5", "crm_top1", "drop", "energy")] == [
        "better", "worse", "better", "worse", "better",
    ]  # fmt: skip
    assert verdict(down, "mistake_severity") == "better"
    assert verdict(over, "top1") == "the interval includes zero"
    alone = Interval(0.2, float("nan"), float("nan"), 1)
    said = chance_sentence([*[up, down, over] * 7, None, alone])
    assert said.startswith("21 intervals at 95 % stand here; 14 exclude zero.")
    assert "about 1 would" in said


def test_a_table_is_read_as_it_was_written(drawn, tmp_path):
    hole = drawn.table.value.mask(drawn.table.index == 0)
    drawn = Results(drawn.table.assign(value=hole), {**drawn.about, "how": {"unknown": float("nan")}})
    write_results(drawn, tmp_path / "drawn.csv")
    assert json.loads((tmp_path / "drawn.json").read_text())["how"] == {"unknown": None}
    again = read_results(tmp_path / "drawn.csv")
    assert again.chosen == drawn.chosen
    kept, read = (r.table[r.table.photo.isna()].reset_index(drop=True) for r in (drawn, again))
    pd.testing.assert_frame_equal(read, kept, rtol=1e-5)
    rows = again.table[again.table.photo.notna()]  # of photographs, the chosen settings' alone
    assert len(rows) == 4 * len(drawn.chosen) * 5
    for dataset in drawn.datasets:
        mine, theirs = (r.over_photographs(dataset, "ckfr", "top1") for r in (drawn, again))
        assert mine.low == pytest.approx(theirs.low, abs=1e-5)
    assert again.about["made_by"][again.table.made_by[0]] == MACHINE
    (tmp_path / "drawn.json").write_text('{"study"')
    with pytest.raises(CkfrError, match="cannot be read"):
        read_results(tmp_path / "drawn.csv")
    (tmp_path / "drawn.json").write_text("{}")
    with pytest.raises(CkfrError, match="does not say which study"):
        read_results(tmp_path / "drawn.csv")
    (tmp_path / "drawn.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CkfrError, match="lacks the columns study, dataset"):
        read_results(tmp_path / "drawn.csv")


def test_json_holds_no_nan():
    values = {"a": [np.float64("nan"), float("inf"), 1 / 3]}
    assert json.loads(as_json(values, digits=6)) == {"a": [None, None, 0.333333]}
    assert json.loads(as_json(values))["a"][2] == 1 / 3


def test_parameters_are_spelt_and_parsed():
    values = {"lr": 0.0003, "alpha": 5.0, "measure": "wu_palmer"}
    assert spell(values) == "lr=0.0003 alpha=5 measure=wu_palmer"
    assert parse(spell(values)) == values
    assert parse("") == {}


def test_figures_draw_the_intervals_and_tables_say_them(drawn):
    told = compare([drawn], ["top1"])
    ours = told[(told.dataset == "bias 0") & (told.method == "ckfr")].iloc[0]
    figure = figures.differences([drawn], ("top1",), ["ckfr"])
    drawn_ends = {tuple(np.round(line.get_xdata(), 6)) for line in figure.axes[0].lines}
    for interval in (ours.difference, ours.photographs_difference):
        assert (round(interval.low, 6), round(interval.high, 6)) in drawn_ends
    table = tables.losses([drawn], ("top1",))
    title = f"CKFR (alpha {parse(ours.parameters)['alpha']:g})"
    half = ours.difference.high - ours.difference.mean
    assert table.loc[("photos, bias 0", title), "top-1 accuracy"].startswith(
        f"{ours.difference.mean:+.3f} ± {half:.3f}"
    )
    assert set(tables.verdicts([drawn], scores=("top1", "hdist@1")).columns) == {
        "top-1 accuracy", "hierarchical distance@1", "hierarchical distance@1, against CRM",
    }  # fmt: skip
    bars = figures.by_bias(drawn, ("top1",)).axes[0].containers
    means = [drawn.mean(dataset, "cross-entropy", "top1").mean for dataset in drawn.datasets]
    np.testing.assert_allclose(bars[0].lines[0].get_ydata().astype(float), means)
    assert len(figures.by_alpha([drawn], ("top1",)).axes[0].containers) == 2
    ring = figures.choices([drawn]).axes[0].lines[1]
    chosen = parse(drawn.chosen["bias 0", "ckfr"])["alpha"]
    assert ring.get_xdata()[0] == ALPHAS.index(int(chosen))
