"""Figures about looking: what is computed for them, and that they draw what they are given."""

import numpy as np

from ckfr_helpers.teaching.plots import looking as plots


def a_result():
    def pair(a, b):
        return {
            "baseline": {"mean": a, "low": a - 0.1, "high": a + 0.1, "n": 5},
            "ckfr": {"mean": b, "low": b - 0.1, "high": b + 0.1, "n": 5},
            "difference": {"mean": b - a, "low": b - a - 0.05, "high": b - a + 0.05, "n": 5},
        }

    rows = []
    for bias, a, b in (("0", 0.3, 0.4), ("0.9", 0.2, 0.5)):
        scores = {"energy": pair(a, b), "drop": pair(b, a)}
        every = {"5": {"energy": pair(a, b)["difference"]}, "20": {"energy": pair(b, a)["difference"]}}
        rows.append(
            {"condition": f"bias {bias}", "scores": scores, "every_alpha": every,
             "over_photographs": {"energy": pair(a, b)}}
        )  # fmt: skip
    return {"results": rows, "blind": {"uniform_energy": 0.13}}


def test_the_table_tells_both_intervals():
    table = plots.look_table(a_result(), ("energy", "drop"))
    row = table.loc[("bias 0.9", "energy on the object")]
    assert row["baseline"] == "0.200 [0.100, 0.300]"
    assert row["difference over seeds"] == "+0.300 [+0.250, +0.350]"
    assert row["difference over photographs"] == row["difference over seeds"]
    assert table.loc[("bias 0", "usual − foreign")]["difference over photographs"] == ""


def test_by_bias_draws_means_and_the_blind_level():
    figure = plots.by_bias(a_result(), ("energy", "drop"))
    axis = figure.axes[0]
    drawn = [line.get_ydata() for container in axis.containers for line in container.lines[:1]]
    np.testing.assert_allclose(np.array(drawn, float), [[0.3, 0.2], [0.4, 0.5]])
    assert any(list(line.get_ydata()) == [0.13, 0.13] for line in axis.lines)


def test_by_alpha_leaves_out_what_was_not_measured():
    figure = plots.by_alpha({"scenes": a_result()}, ("energy", "drop"))
    assert len(figure.axes[0].containers) == 2
    assert len(figure.axes[1].containers) == 0


def test_differences_draws_seeds_and_photographs():
    figure = plots.differences({"scenes": a_result()}, ("energy",))
    ends = [
        tuple(np.round(line.get_xdata(), 3)) for line in figure.axes[0].lines if len(line.get_xdata()) == 2
    ]
    assert (0.25, 0.35) in ends
