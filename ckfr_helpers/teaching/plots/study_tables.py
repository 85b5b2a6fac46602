"""Tables of studies: what was chosen, what it brought, and whether its interval includes zero."""

import itertools
from collections.abc import Sequence

import pandas as pd

from ckfr_helpers.losses.rivals import BASELINE
from ckfr_helpers.teaching.plots.names import LOOK_NAMES, NAMES, dataset_title, method_title, score_title
from ckfr_helpers.training.results import Results, chance_sentence, compare, verdict


def losses(results: Sequence[Results], scores: Sequence[str] = tuple(NAMES)) -> pd.DataFrame:
    """Cross-entropy's test means, and every other loss's difference to it, paired on seeds.

    A star marks a 95 % interval without zero.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in _told(results, scores).itertuples():
        told = row.mean if row.method == BASELINE else row.difference
        if told is None:
            continue
        text = f"{told.mean:.3f}"
        if row.method != BASELINE:
            half = "" if told.n < 2 else f" ± {told.high - told.mean:.3f}"
            text = f"{told.mean:+.3f}{half}{' *' if told.excludes_zero else ''}"
        own = rows.setdefault((row.title, method_title(row.method, row.parameters)), {})
        own[score_title(row.score)] = text
    return pd.DataFrame(rows).T.fillna("")


def verdicts(
    results: Sequence[Results], method: str = "ckfr", scores: Sequence[str] = tuple(NAMES)
) -> pd.DataFrame:
    """What the intervals say of one loss: better, worse, or that they include zero; and against CRM."""
    rows: dict[str, dict[str, str]] = {}
    for row in _told(results, scores, [method]).itertuples():
        own = rows.setdefault(row.title, {})
        own[score_title(row.score)] = verdict(row.difference, row.score)
        if row.score in ("mistake_severity", "hdist@1"):
            own[f"{score_title(row.score)}, against CRM"] = verdict(row.against_crm, row.score)
    return pd.DataFrame(rows).T


def by_chance(results: Sequence[Results], scores: Sequence[str], methods: Sequence[str] | None = None) -> str:
    """One sentence: how many intervals stand side by side, and how many would exclude zero by chance."""
    told = compare(results, scores, methods)
    return chance_sentence([*told.difference, *told.photographs_difference])


def four_ways(
    results: Sequence[Results], method: str = "ckfr", scores: Sequence[str] = ("hdist@1", "hdist@5")
) -> pd.DataFrame:
    """Test means of four ways to answer: cross-entropy and one loss, each without CRM and with it."""
    ways = itertools.product((("", ""), ("crm_", " + CRM")), (BASELINE, method))
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for (prefix, suffix), name in ways:
        for one in results:
            for label, score in itertools.product(one.datasets, scores):
                told = one.mean(label, name, prefix + score)
                if told is not None:
                    own = rows.setdefault((dataset_title(one, label), score_title(score)), {})
                    own[method_title(name) + suffix] = told.mean
    return pd.DataFrame(rows).T


def look_table(results: Results, scores: Sequence[str] = tuple(LOOK_NAMES)) -> pd.DataFrame:
    """Means over seeds with 95 % intervals, the paired difference, and its interval over photographs."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in _told([results], scores, [BASELINE, "ckfr"]).itertuples():
        if row.mean is not None:
            own = rows.setdefault((row.dataset, score_title(row.score)), {})
            own[method_title(row.method)] = f"{row.mean:.3f}"
            differences = {"seeds": row.difference, "photographs": row.photographs_difference}
            for over, told in differences.items():
                own[f"difference over {over}"] = "" if told is None else f"{told:+.3f}"
    return pd.DataFrame(rows).T


def free_table(results: Sequence[Results]) -> pd.DataFrame:
    """Look scores that need no training, and means before and after it, on each study's first data set."""
    methods = ("uniform map", "random point", "centre map", "whole picture", "untrained", BASELINE)
    columns: dict[str, dict[tuple[str, str], float]] = {one.name: {} for one in results}
    for score, method, one in itertools.product(
        ("energy", "pointing", "max_box_acc_v2", "gt_known"), methods, results
    ):
        value = one.level(one.datasets[0], method, score)
        if value is not None:
            columns[one.name][score_title(score, short=True), method] = value
    return pd.DataFrame(columns)


def _told(
    results: Sequence[Results], scores: Sequence[str], methods: Sequence[str] | None = None
) -> pd.DataFrame:
    """`compare`, with each data set's title beside."""
    titles = {(one.name, label): dataset_title(one, label) for one in results for label in one.datasets}
    told = compare(results, scores, methods)
    return told.assign(title=[titles[key] for key in zip(told.study, told.dataset, strict=True)])
