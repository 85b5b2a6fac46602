"""Tables of studies: what was chosen, what it brought, and whether that can be told apart from chance.

Every function takes summaries as `training.study.run_study` gives them, or as they are read back from the
committed files with `runtime.load_result`.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any

import pandas as pd

from ckfr_helpers import metrics
from ckfr_helpers.losses.rivals import BASELINE
from ckfr_helpers.teaching.plots.names import (
    HIGHER_IS_BETTER,
    dataset_title,
    method_title,
    says_nothing,
)
from ckfr_helpers.teaching.plots.names import STUDY_NAMES as NAMES

Summary = Mapping[str, Any]


def each(summaries: Sequence[Summary]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every data set of every study: its title and its results."""
    for summary in summaries:
        for label, own in summary["results"].items():
            yield dataset_title(summary, label), own


def losses(summaries: Sequence[Summary], scores: Sequence[str] = tuple(NAMES)) -> pd.DataFrame:
    """Cross-entropy's test means, and every other loss's difference to it, paired on seeds.

    A star marks a 95 % interval without zero.
    """
    rows = {}
    for title, own in each(summaries):
        for method, made in own["methods"].items():
            found = {}
            for score in scores:
                if score not in made["scores"] or says_nothing(method, score):
                    continue
                if method == BASELINE:
                    found[NAMES[score]] = f"{made['scores'][score]['mean']['mean']:.3f}"
                    continue
                difference = metrics.Interval(**made["scores"][score]["difference"])
                half = difference.high - difference.mean
                star = " *" if difference.excludes_zero else ""
                found[NAMES[score]] = f"{difference.mean:+.3f}" + (
                    "" if isnan(half) else f" ± {half:.3f}{star}"
                )
            rows[title, method_title(method, made["chosen"])] = found
    return pd.DataFrame(rows).T.fillna("")


def verdicts(
    summaries: Sequence[Summary], method: str = "ckfr", scores: Sequence[str] = tuple(NAMES)
) -> pd.DataFrame:
    """What the intervals say of one loss: better, worse or not told apart; and against the free CRM too."""
    rows: dict[str, dict[str, str]] = {}
    for title, own in each(summaries):
        found = own["methods"][method]["scores"]
        rows[title] = {NAMES[score]: _verdict(found, score, "difference") for score in scores}
        rows[title] |= {
            f"{NAMES[score]}, against CRM": _verdict(found, score, "over_crm")
            for score in ("mistake_severity", "hdist@1")
        }
    return pd.DataFrame(rows).T


def four_ways(
    summaries: Sequence[Summary], method: str = "ckfr", scores: Sequence[str] = ("hdist@1", "hdist@5")
) -> pd.DataFrame:
    """Test means of four ways to answer: cross-entropy and one loss, each without CRM and with it."""
    rows = {}
    for title, own in each(summaries):
        for score in scores:
            rows[title, NAMES[score]] = {
                f"{name}{suffix}": own["methods"][one]["scores"][prefix + score]["mean"]["mean"]
                for prefix, suffix in (("", ""), ("crm_", " + CRM"))
                for one, name in ((BASELINE, BASELINE), (method, method_title(method)))
                if prefix + score in own["methods"][one]["scores"]
            }
    return pd.DataFrame(rows).T


def over_photographs(summaries: Sequence[Summary], method: str = "ckfr") -> pd.DataFrame:
    """Top-1 accuracy with intervals from resampling photographs, where scenes show the same few again."""
    rows = {}
    for title, own in each(summaries):
        if "photographs" not in own:
            continue
        base, ours = (own["methods"][one]["top1_over_photographs"] for one in (BASELINE, method))
        rows[title] = {
            BASELINE: f"{metrics.Interval(**base['mean']):.3f}",
            method_title(method): f"{metrics.Interval(**ours['mean']):.3f}",
            "difference": f"{metrics.Interval(**ours['difference']):+.3f}",
            "photographs": own["photographs"],
        }
    return pd.DataFrame(rows).T


def _verdict(scores: Mapping[str, Any], score: str, which: str) -> str:
    if which not in scores.get(score, {}):
        return "not defined"  # a severity without a single mistake, say
    difference = metrics.Interval(**scores[score][which])
    if not difference.excludes_zero:
        return "not told apart"
    return "better" if (difference.mean > 0) == (score in HIGHER_IS_BETTER) else "worse"
