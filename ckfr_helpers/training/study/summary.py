"""What a study says: settings chosen on validation, test scores with intervals, differences to baseline."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ckfr_helpers import metrics
from ckfr_helpers.losses.rivals import BASELINE
from ckfr_helpers.runtime import environment
from ckfr_helpers.training.study.config import SCORES, Study

Record = dict[str, Any]
CRM = f"{BASELINE} + CRM"


def best_rate(study: Study, label: str, records: Sequence[Record]) -> float | None:
    """The learning rate at which cross-entropy validates best, of those that all seeds finished."""
    means = {
        json.loads(key)[0]: _mean([r["val"][study.lr_by] for r in own.values()])
        for key, own in _by_setting(study, label, BASELINE, records).items()
    }
    return _best(means, SCORES[study.lr_by])


def summarise(
    study: Study, records: Sequence[Record], failures: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    """Everything a reader needs without the table.

    Args:
        study: what was asked for.
        records: finished runs.
        failures: (name, reason) of what did not finish.

    Returns:
        "study", "environment", "how" (the rules of choice in words), "failed", and "results": for each data
        set "seeds", "photographs" (scenes only) and "methods". A method has "chosen" (lr and parameters),
        "validation" (the score that chose, for every setting), and for every test score "mean",
        "difference" (to cross-entropy, paired on seeds) and "over_crm" (to ``cross-entropy + CRM``, for
        scores that its decisions change), each an interval ``{mean, low, high, n}``; for scenes also
        "top1_over_photographs". ``cross-entropy + CRM`` is the baseline with minimum-risk
        decisions. A score that is not defined in some run (no mistakes, say) is left out.
    """
    results = {}
    for data in study.datasets:
        methods: dict[str, Any] = {}
        rate = best_rate(study, data.label, records) if study.lr_for == "baseline" else None
        picked: dict[str, dict[int, Record]] = {}
        for method in study.methods:
            settings = _by_setting(study, data.label, method, records)
            if study.lr_for == "baseline":
                means = {
                    k: _mean([r["val"][study.choose_by] for r in own.values()])
                    for k, own in settings.items()
                    if json.loads(k)[0] == rate
                }
            else:
                means = {
                    k: _mean([r["val"][study.choose_by] for r in own.values()]) for k, own in settings.items()
                }
            best = _best(means, SCORES[study.choose_by])
            if best is None:
                continue
            picked[method] = settings[best]
            lr, parameters = json.loads(best)
            methods[method] = {
                "chosen": {"lr": lr, **parameters},
                "validation": [
                    {"lr": json.loads(k)[0], **json.loads(k)[1], study.choose_by: mean}
                    for k, mean in means.items()
                ],
            }
        if BASELINE not in picked:
            continue
        tests = {method: [own[s]["test"] for s in study.seeds] for method, own in picked.items()}
        base = tests[BASELINE]
        methods[CRM] = {"chosen": methods[BASELINE]["chosen"]}
        tests[CRM] = [_with_crm(scores) for scores in base]
        for method, scores in tests.items():
            methods[method]["scores"] = _scores(scores, base, tests[CRM])
        own = {"seeds": list(study.seeds), "methods": methods}
        groups = picked[BASELINE][study.seeds[0]]["test_groups"]
        if groups is not None:
            _over_photographs(methods, picked, groups, study.seeds)
            own["photographs"] = len(set(groups))
        for method, found in picked.items():
            counts = np.concatenate([found[s]["test_distance"] for s in study.seeds])
            methods[method]["severity_counts"] = np.bincount(counts).tolist()
        results[data.label] = own
    return {
        "environment": environment(),
        "study": _asked(study),
        "how": {
            "learning rate": f"{study.lr_by} of {BASELINE} on validation, mean over seeds, for all methods"
            if study.lr_for == "baseline"
            else f"{study.choose_by} on validation, mean over seeds, for each method",
            "parameters": f"{study.choose_by} on validation, mean over seeds",
            "epoch": "top1 on validation, in each run",
            "intervals": "95 %, Student's t over seeds; differences paired on seeds",
            "severity unit": "height of the lowest common ancestor",
        },
        "results": results,
        "failed": [{"name": name, "reason": reason} for name, reason in failures],
    }


def _by_setting(
    study: Study, label: str, method: str, records: Sequence[Record]
) -> dict[str, dict[int, Record]]:
    """Runs of one method by (lr, parameters) as JSON, then by seed; only settings that all seeds finished."""
    found: dict[str, dict[int, Record]] = {}
    for record in records:
        settings = record["settings"]
        if settings["data"]["label"] == label and settings["method"] == method:
            key = json.dumps([settings["lr"], settings["parameters"]])
            found.setdefault(key, {})[settings["seed"]] = record
    return {key: own for key, own in found.items() if set(own) >= set(study.seeds)}


def _best(means: dict[Any, float], more_is_better: bool) -> Any:
    usable = {key: mean for key, mean in means.items() if not np.isnan(mean)}
    if not usable:
        return None
    return (max if more_is_better else min)(usable, key=usable.__getitem__)


def _mean(values: Sequence[float | None]) -> float:
    return float(np.mean([np.nan if value is None else value for value in values]))


def _with_crm(scores: Mapping[str, float]) -> dict[str, float]:
    """The same scores with minimum-risk decisions in the place of the most probable class."""
    return {name: scores.get(f"crm_{name}", value) for name, value in scores.items() if name[:4] != "crm_"}


def _scores(
    scores: Sequence[Mapping[str, float]],
    base: Sequence[Mapping[str, float]],
    free: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Intervals of one method's runs, and of their differences to cross-entropy's without and with CRM."""
    found = {}
    for name in scores[0]:
        mine, theirs = _column(scores, name), _column(base, name)
        if not np.isfinite([mine, theirs]).all():
            continue
        found[name] = {
            "mean": asdict(metrics.mean_interval(mine)),
            "difference": asdict(metrics.paired_difference(mine, theirs)),
        }
        if f"crm_{name}" in base[0] and scores is not free:
            free_answers = _column(free, name)
            if np.isfinite(free_answers).all():
                found[name]["over_crm"] = asdict(metrics.paired_difference(mine, free_answers))
    return found


def _column(scores: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    return np.array([run[name] for run in scores], dtype=np.float64)


def _over_photographs(
    methods: dict[str, Any],
    picked: Mapping[str, Mapping[int, Record]],
    groups: Sequence[int],
    seeds: Sequence[int],
) -> None:
    """Few photographs: the interval that counts resamples them, not scenes of the same ones."""
    right = {
        method: np.mean([np.array(own[s]["test_distance"]) == 0 for s in seeds], axis=0)
        for method, own in picked.items()
    }
    for method, share in right.items():
        methods[method]["top1_over_photographs"] = {
            "mean": asdict(metrics.bootstrap_interval(share, groups)),
            "difference": asdict(metrics.bootstrap_interval(share - right[BASELINE], groups)),
        }


def _asked(study: Study) -> dict[str, Any]:
    """The study as its file says it, without where things lie and what computes them."""
    values = asdict(study)
    del values["executor"]
    for data in values["datasets"]:
        data["root"] = None if data["root"] is None else data["root"].rsplit("/", 1)[-1]
    return values
