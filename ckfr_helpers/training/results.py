"""The one table of results, and every choice, interval and verdict that is computed from it.

A row is one number, its columns `COLUMNS`:

- ``parameters``: what a run was given, e.g. ``lr=0.001 alpha=5``; empty where there is nothing to choose.
- ``seed``: empty for what needs no training and has no seed, such as a map that is the same everywhere.
- ``photo``, ``pictures``: filled only where the value is the mean over the scenes of one photograph, and how
  many these are; such rows exist for the settings that were chosen, and intervals resample them.
- ``made_by``: which process computed it; the JSON file beside the table holds code version, hardware and
  library versions under that name, and the study as it was asked for.
"""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ckfr_helpers.losses.rivals import BASELINE
from ckfr_helpers.metrics import Interval, bootstrap_interval, mean_interval, paired_difference
from ckfr_helpers.metrics.intervals import LEVEL
from ckfr_helpers.runtime import CkfrError, as_json, result_file
from ckfr_helpers.training.checkpoints import write_text

COLUMNS = ("study", "dataset", "method", "parameters", "seed", "split", "score", "value", "photo", "pictures",
           "made_by")  # fmt: skip
SCORES = ("top1", "top5", "mistake_severity", "hdist@1", "hdist@5", "cross_entropy", "correlation",
          "correlation_spearman", "crm_top1", "crm_mistake_severity", "crm_hdist@1",
          "crm_hdist@5")  # fmt: skip
CRM = f"{BASELINE} + CRM"  # cross-entropy's networks with minimum-risk decisions: the crm_ scores


def more_is_better(score: str) -> bool:
    """False for distances, severities, cross-entropy and the drop on a foreign background."""
    name = score.removeprefix("crm_")
    return not name.startswith(("mistake_severity", "hdist@", "cross_entropy", "drop", "offset_share"))


def spell(parameters: Mapping[str, Any]) -> str:
    """``{"lr": 0.001, "alpha": 5.0}`` -> ``"lr=0.001 alpha=5"``."""
    return " ".join(
        f"{k}={v:g}" if isinstance(v, (int, float)) else f"{k}={v}" for k, v in parameters.items()
    )


def parse(parameters: str) -> dict[str, Any]:
    """The inverse of `spell`; what is no number stays text."""
    found: dict[str, Any] = dict(pair.split("=", 1) for pair in parameters.split())
    for key, value in found.items():
        with contextlib.suppress(ValueError):
            found[key] = float(value)
    return found


@dataclass(frozen=True)
class Results:
    """Everything a study found."""

    table: pd.DataFrame  # `COLUMNS`, one number a row
    about: dict[str, Any]  # "study" (as asked for), "made_by", "how" (rules of choice in words), "failed"

    @property
    def name(self) -> str:
        """Of the study."""
        return self.about["study"]["name"]

    @property
    def datasets(self) -> list[str]:
        """Labels, in the order of the study."""
        return [data["label"] for data in self.about["study"]["datasets"]]

    def methods(self, dataset: str) -> list[str]:
        """Those with a setting that every seed finished, cross-entropy first, its CRM last."""
        found = [m for m in self.about["study"]["methods"] if (dataset, m) in self.chosen]
        return [*found, CRM] if (dataset, BASELINE) in self.chosen else found

    def validation(self, score: str) -> pd.DataFrame:
        """Means over seeds of a validation score, of settings that all seeds finished.

        Columns dataset, method, parameters, mean; one mean for all data sets where these choose together.
        """
        table, seeds = self.table, self.about["study"]["seeds"]
        own = table[(table.split == "val") & (table.score == score) & table.seed.isin(seeds)]
        found = _means(own, ["dataset", "method", "parameters"], "value", len(seeds))
        if self.about["study"].get("choose_over") != "all":
            return found
        whole = _means(found, ["method", "parameters"], "mean", len(self.datasets))
        return pd.DataFrame({"dataset": self.datasets}).merge(whole, how="cross")

    def best_rate(self, dataset: str) -> float | None:
        """The learning rate at which cross-entropy validates best; None before any rate is finished."""
        by = self.about["study"]["lr_by"]
        best = _best(self.validation(by).query("dataset == @dataset and method == @BASELINE"), by)
        return None if best is None else parse(best)["lr"]

    @cached_property
    def chosen(self) -> dict[tuple[str, str], str]:
        """(data set, method) -> the parameters that validation chose."""
        by, one_rate = self.about["study"]["choose_by"], self.about["study"]["lr_for"] == "baseline"
        found = {}
        for (dataset, method), own in self.validation(by).groupby(["dataset", "method"], sort=False):
            if one_rate:
                rate = self.best_rate(str(dataset))
                own = own[[parse(text).get("lr") == rate for text in own.parameters]]
            best = _best(own, by)
            if best is not None:
                found[str(dataset), str(method)] = best
        return found

    def values(self, dataset: str, method: str, score: str, parameters: str | None = None) -> pd.Series:
        """One test score a seed, index seed, at the chosen parameters unless others are given."""
        rows = self._rows(dataset, method, score, parameters)
        return rows[rows.photo.isna() & rows.seed.notna()].set_index("seed").value.sort_index()

    def mean(self, dataset: str, method: str, score: str, parameters: str | None = None) -> Interval | None:
        """Mean over seeds on test with its 95 % interval; None where a seed lacks the score."""
        found = self.values(dataset, method, score, parameters)
        return None if found.empty or found.isna().any() else mean_interval(found)

    def difference(
        self, dataset: str, method: str, score: str, against: str = BASELINE, parameters: str | None = None
    ) -> Interval | None:
        """Mean difference to another method on test, paired on seeds, with its 95 % interval."""
        mine, theirs = self.values(dataset, method, score, parameters), self.values(dataset, against, score)
        pairs = pd.concat([mine, theirs], axis=1)
        if pairs.empty or pairs.isna().any(axis=None):
            return None
        return paired_difference(pairs.iloc[:, 0], pairs.iloc[:, 1])

    def over_photographs(
        self, dataset: str, method: str, score: str, against: str | None = None
    ) -> Interval | None:
        """Mean over seeds and scenes, or its difference to another method, resampling photographs.

        It asks what a reader with other photographs should expect, where `mean` asks about other seeds.
        """
        mine, *theirs = (
            self._rows(dataset, one, score).groupby("photo").agg({"value": "mean", "pictures": "first"})
            for one in (method, against)
            if one is not None
        )
        if theirs:
            mine = mine.assign(value=mine.value - theirs[0].value).dropna()
        if mine.empty:
            return None
        # One value a scene: a photograph with more scenes weighs more, as it does in the score itself.
        scenes = mine.loc[mine.index.repeat(mine.pictures.astype(int))]
        return bootstrap_interval(scenes.value.to_numpy(float), scenes.index.to_numpy(int))

    def level(self, dataset: str, method: str, score: str) -> float | None:
        """One number on test: the mean over whatever seeds there are, also of what has no seed."""
        rows = self._rows(dataset, method, score)
        rows = rows[rows.photo.isna()]
        return None if rows.empty else float(rows.value.mean())

    def at_the_edge(self) -> pd.DataFrame:
        """Chosen values that are the smallest or largest tried: dataset, method, parameter, value, edge.

        Beyond such a value something better may lie, and nobody has looked.
        """
        tried, found = self.validation(self.about["study"]["choose_by"]), []
        for (dataset, method), text in self.chosen.items():
            own = tried[(tried.dataset == dataset) & (tried.method == method)]
            grid = pd.DataFrame([parse(one) for one in own.parameters])
            for name, value in parse(text).items():
                if isinstance(value, float) and grid[name].nunique() > 1:
                    edge = {grid[name].min(): "smallest", grid[name].max(): "largest"}.get(value)
                    found += [] if edge is None else [(dataset, method, name, value, edge)]
        return pd.DataFrame(found, columns=["dataset", "method", "parameter", "value", "edge"])

    @cached_property
    def _groups(self) -> dict[Any, pd.DataFrame]:
        test = self.table[self.table.split == "test"]
        return dict(iter(test.groupby(["dataset", "method", "parameters", "score"], sort=False)))

    def _rows(self, dataset: str, method: str, score: str, parameters: str | None = None) -> pd.DataFrame:
        if method == CRM:
            method, score = BASELINE, f"crm_{score}"
        if parameters is None:
            parameters = self.chosen.get((dataset, method), "")
        return self._groups.get((dataset, method, parameters, score), self.table.iloc[:0])


def compare(
    results: Sequence[Results], scores: Sequence[str], methods: Sequence[str] | None = None
) -> pd.DataFrame:
    """Everything a figure or table may tell of the chosen settings on test, one row a method and score.

    Returns:
        study, dataset, method, parameters, score, and `Interval` or None in mean, difference (to
        cross-entropy), against_crm, photographs, photographs_difference.
    """
    rows = []
    for one, dataset in ((some, dataset) for some in results for dataset in some.datasets):
        shown = [method for method in one.methods(dataset) if methods is None or method in methods]
        for method, score in itertools.product(shown, scores):
            at, plain = (dataset, method, score), method == BASELINE
            row: dict[str, Any] = {"study": one.name, "dataset": dataset, "method": method, "score": score}
            row |= {"parameters": one.chosen.get((dataset, method), ""), "mean": one.mean(*at)}
            row["difference"] = None if plain else one.difference(*at)
            row["against_crm"] = None if method in (BASELINE, CRM) else one.difference(*at, CRM)
            row["photographs"] = one.over_photographs(*at)
            row["photographs_difference"] = None if plain else one.over_photographs(*at, BASELINE)
            rows.append(row)
    return pd.DataFrame(rows)


def verdict(difference: Interval | None, score: str) -> str:
    """One of better, worse, the interval includes zero, not defined (a severity without mistakes, say)."""
    if difference is None:
        return "not defined"
    if not difference.excludes_zero:
        return "the interval includes zero"
    return "better" if (difference.mean > 0) == more_is_better(score) else "worse"


def chance_sentence(intervals: Iterable[Interval | None]) -> str:
    """Of intervals side by side: how many there are, how many exclude zero, and how many would by chance."""
    told = [one for one in intervals if one is not None and not np.isnan(one.low)]
    return (
        f"{len(told)} intervals at 95 % stand here; {sum(one.excludes_zero for one in told)} exclude zero. "
        f"If there were no difference at all, about {(1 - LEVEL) * len(told):.0f} would, by chance."
    )


def run_rows(
    where: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, float | None]],
    photos: Mapping[str, Sequence[float]] | None = None,
    groups: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """The rows of one run, all with the columns of ``where``: ``scores`` are split -> score -> value.

    ``photos`` holds for a score one value a test scene, to be averaged within the photographs in ``groups``.
    """
    rows = [
        {**where, "split": split, "score": score, "value": np.nan if value is None else value}
        for split, own in scores.items()
        for score, value in own.items()
    ]
    for score, values in (photos or {}).items():
        means = pd.Series(np.asarray(values, float)).groupby(np.asarray(groups)).agg(["mean", "size"])
        rows += [
            {**where, "split": "test", "score": score, "value": m, "photo": photo, "pictures": n}
            for photo, m, n in means.itertuples()
        ]
    return rows


def as_table(rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Rows as a table with all columns in order and one type each."""
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    texts = [c for c in COLUMNS if c not in ("seed", "value", "photo", "pictures")]
    whole = dict.fromkeys(("seed", "photo", "pictures"), "Int64")
    return table.assign(**{c: table[c].fillna("") for c in texts}).astype(
        {**dict.fromkeys(texts, str), **whole, "value": float}
    )


def made_by(environment: Mapping[str, Any]) -> str:
    """A short name for the process that computed a row: equal for equal code, hardware and libraries."""
    return "p" + hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:6]


def write_results(results: Results, table: Path) -> None:
    """The table as CSV (six digits) and, beside it under the same name, what is known of it as strict JSON.

    Of the rows for single photographs only those of chosen settings are kept: they are what intervals need.
    """
    chosen = {(dataset, method, text) for (dataset, method), text in results.chosen.items()}
    rows = results.table
    keys = rows[["dataset", "method", "parameters"]].itertuples(index=False, name=None)
    kept = rows[rows.photo.isna() | pd.Series([key in chosen for key in keys], index=rows.index)]
    write_text(table, kept.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    write_text(table.with_suffix(".json"), as_json(results.about, digits=6))


def read_results(table: str | Path) -> Results:
    """A committed result, e.g. ``"study_photos_grid"``, or the CSV file of one's own.

    Raises:
        CkfrError: if it is missing, or is no such table.
    """
    path = result_file(f"{table}.csv") if isinstance(table, str) else table
    try:
        rows = pd.read_csv(path, dtype={"made_by": str})
        about = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError) as error:
        raise CkfrError(f"The results {path} cannot be read ({str(error).splitlines()[0]}).") from error
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing:
        raise CkfrError(f"{path} is no table of results: it lacks the columns {', '.join(missing)}.")
    if not isinstance(about, dict) or "study" not in about:
        raise CkfrError(f"{path.with_suffix('.json')} does not say which study it belongs to.")
    return Results(as_table(rows), about)


def _means(rows: pd.DataFrame, keys: list[str], column: str, expected: int) -> pd.DataFrame:
    found = rows.groupby(keys, sort=False)[column].agg(["mean", "count"]).reset_index()
    return found[found["count"] == expected].drop(columns="count")


def _best(tried: pd.DataFrame, score: str) -> str | None:
    means = tried.dropna(subset="mean").set_index("parameters")["mean"] * (1 if more_is_better(score) else -1)
    return None if means.empty else str(means.idxmax())
