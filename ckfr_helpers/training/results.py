"""The one table of results, and every choice, interval and verdict that is computed from it.

A row is one number, its columns `COLUMNS`:

- ``parameters``: what a run was given, e.g. ``lr=0.001 alpha=5``; empty where there is nothing to choose.
- ``seed``: empty for what needs no training and has no seed, such as a map that is the same everywhere.
- ``photo``, ``pictures``: filled only where the value is the mean over the scenes of one photograph, and how
  many these are; such rows exist for the settings that were chosen, and intervals resample them.
- ``made_by``: which process computed it; the JSON file beside the table holds code version, hardware and
  library versions under that name, and the study as it was asked for.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ckfr_helpers.losses.rivals import BASELINE
from ckfr_helpers.metrics.intervals import Interval, bootstrap_interval, mean_interval, paired_difference
from ckfr_helpers.runtime import CkfrError, atomic_path, result_file

COLUMNS = ("study", "dataset", "method", "parameters", "seed", "split", "score", "value", "photo", "pictures",
           "made_by")  # fmt: skip
SCORES = ("top1", "top5", "mistake_severity", "hdist@1", "hdist@5", "cross_entropy", "correlation",
          "correlation_spearman", "crm_top1", "crm_mistake_severity", "crm_hdist@1",
          "crm_hdist@5")  # fmt: skip
CRM = f"{BASELINE} + CRM"  # cross-entropy's networks with minimum-risk decisions: the crm_ scores
LEVEL = 0.95


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
    found: dict[str, Any] = {}
    for key, value in (pair.split("=", 1) for pair in parameters.split()):
        try:
            found[key] = float(value)
        except ValueError:
            found[key] = value
    return found


@dataclass(frozen=True)
class Results:
    """Everything a study found.

    Attributes:
        table: `COLUMNS`, one number a row.
        about: "study" (what was asked for), "made_by", "how" (rules of choice in words), "failed".
    """

    table: pd.DataFrame
    about: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the study."""
        return self.about["study"]["name"]

    @property
    def seeds(self) -> list[int]:
        """As the study asked for them."""
        return list(self.about["study"]["seeds"])

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
        table = self.table
        own = table[(table.split == "val") & (table.score == score) & table.seed.isin(self.seeds)]
        grouped = own[own.photo.isna()].groupby(["dataset", "method", "parameters"], sort=False).value
        found = grouped.agg(["mean", "count"]).reset_index()
        found = found[found["count"] == len(self.seeds)].drop(columns="count")
        if self.about["study"].get("choose_over") == "all":
            whole = found.groupby(["method", "parameters"], sort=False)["mean"].agg(["mean", "count"])
            whole = whole[whole["count"] == len(self.datasets)].drop(columns="count").reset_index()
            return pd.DataFrame({"dataset": self.datasets}).merge(whole, how="cross")
        return found

    def best_rate(self, dataset: str) -> float | None:
        """The learning rate at which cross-entropy validates best; None before any rate is finished."""
        by = self.about["study"]["lr_by"]
        tried = self.validation(by).query("dataset == @dataset and method == @BASELINE")
        best = _best(tried, by)
        return None if best is None else parse(best)["lr"]

    @cached_property
    def chosen(self) -> dict[tuple[str, str], str]:
        """(data set, method) -> the parameters that validation chose."""
        asked = self.about["study"]
        tried, found = self.validation(asked["choose_by"]), {}
        for dataset in self.datasets:
            own = tried[tried.dataset == dataset]
            if asked["lr_for"] == "baseline":
                rate = self.best_rate(dataset)
                own = own[
                    own.parameters.map(lambda text, rate=rate: parse(text).get("lr") == rate).astype(bool)
                ]
            for method, settings in own.groupby("method", sort=False):
                best = _best(settings, asked["choose_by"])
                if best is not None:
                    found[dataset, str(method)] = best
        return found

    def values(
        self, dataset: str, method: str, score: str, parameters: str | None = None, split: str = "test"
    ) -> pd.Series:
        """One score a seed, index seed, at the chosen parameters unless others are given; may be empty."""
        if method == CRM:
            method, score = BASELINE, f"crm_{score}"
        if parameters is None:
            parameters = self.chosen.get((dataset, method), "")
        return self._runs.get((dataset, method, parameters, split, score), pd.Series(dtype=float))

    def mean(self, dataset: str, method: str, score: str, parameters: str | None = None) -> Interval | None:
        """Mean over seeds on test with its 95 % interval; None where a seed lacks the score."""
        found = self.values(dataset, method, score, parameters)
        return None if found.empty or found.isna().any() else mean_interval(found, LEVEL)

    def difference(
        self, dataset: str, method: str, score: str, against: str = BASELINE, parameters: str | None = None
    ) -> Interval | None:
        """Mean difference to another method on test, paired on seeds, with its 95 % interval."""
        mine, theirs = self.values(dataset, method, score, parameters), self.values(dataset, against, score)
        pairs = pd.concat([mine, theirs], axis=1, join="outer")
        if pairs.empty or pairs.isna().any(axis=None):
            return None
        return paired_difference(pairs.iloc[:, 0], pairs.iloc[:, 1], LEVEL)

    def over_photographs(
        self, dataset: str, method: str, score: str, against: str | None = None
    ) -> Interval | None:
        """Mean over seeds and scenes, or its difference to another method, resampling photographs.

        It asks what a reader with other photographs should expect, where `mean` asks about other seeds.
        """
        mine = self._by_photo(dataset, method, score)
        if against is not None:
            theirs = self._by_photo(dataset, against, score)
            mine = mine.assign(value=mine.value - theirs.value).dropna()
        if mine.empty:
            return None
        counts = mine.pictures.astype(int).to_numpy()
        # One value a scene: a photograph with more scenes weighs more, as it does in the score itself.
        return bootstrap_interval(
            np.repeat(mine.value.to_numpy(float), counts),
            np.repeat(mine.index.to_numpy(int), counts),
            level=LEVEL,
        )

    def level(self, dataset: str, method: str, score: str) -> float | None:
        """One number on test: the mean over whatever seeds there are, also of what has no seed."""
        rows = self.table[self.table.photo.isna() & (self.table.split == "test")]
        rows = rows[(rows.dataset == dataset) & (rows.method == method) & (rows.score == score)]
        rows = rows[rows.parameters == self.chosen.get((dataset, method), "")]
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
                column = grid[name].unique()
                if len(column) < 2 or isinstance(value, str) or min(column) < value < max(column):
                    continue
                edge = "largest" if value == max(column) else "smallest"
                found.append((dataset, method, name, value, edge))
        return pd.DataFrame(found, columns=["dataset", "method", "parameter", "value", "edge"])

    @cached_property
    def _runs(self) -> dict[Any, pd.Series]:
        rows = self.table[self.table.photo.isna() & self.table.seed.notna()]
        groups = rows.groupby(["dataset", "method", "parameters", "split", "score"], sort=False)
        return {key: own.set_index("seed").value.sort_index() for key, own in groups}

    def _by_photo(self, dataset: str, method: str, score: str) -> pd.DataFrame:
        """value (mean over seeds) and pictures, index photo."""
        table = self.table
        rows = table[table.photo.notna() & (table.dataset == dataset) & (table.method == method)]
        rows = rows[(rows.score == score) & (rows.parameters == self.chosen.get((dataset, method), ""))]
        return rows.groupby("photo").agg({"value": "mean", "pictures": "first"})


def compare(
    results: Sequence[Results], scores: Sequence[str], methods: Sequence[str] | None = None
) -> pd.DataFrame:
    """Everything a figure or table may tell of the chosen settings on test, one row a method and score.

    Returns:
        study, dataset, method, parameters, score, and `Interval` or None in mean, difference (to
        cross-entropy), against_crm, photographs, photographs_difference.
    """
    rows = []
    for one in results:
        for dataset in one.datasets:
            for method in one.methods(dataset):
                if methods is not None and method not in methods:
                    continue
                plain = method == BASELINE
                for score in scores:
                    at = (dataset, method, score)
                    rows.append(
                        {
                            "study": one.name,
                            "dataset": dataset,
                            "method": method,
                            "parameters": one.chosen.get((dataset, method), ""),
                            "score": score,
                            "mean": one.mean(*at),
                            "difference": None if plain else one.difference(*at),
                            "against_crm": None if method in (BASELINE, CRM) else one.difference(*at, CRM),
                            "photographs": one.over_photographs(*at),
                            "photographs_difference": None if plain else one.over_photographs(*at, BASELINE),
                        }
                    )
    return pd.DataFrame(rows)


def verdict(difference: Interval | None, score: str) -> str:
    """One of better, worse, the interval includes zero, not defined (a severity without mistakes, say)."""
    if difference is None:
        return "not defined"
    if not difference.excludes_zero:
        return "the interval includes zero"
    return "better" if (difference.mean > 0) == more_is_better(score) else "worse"


def chance(intervals: Iterable[Interval | None]) -> dict[str, float]:
    """How many intervals stand side by side, how many exclude zero, and how many would by chance alone."""
    told = [one for one in intervals if one is not None and not np.isnan(one.low)]
    excluding = sum(one.excludes_zero for one in told)
    return {"intervals": len(told), "exclude_zero": excluding, "by_chance": (1 - LEVEL) * len(told)}


def run_rows(
    where: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, float | None]],
    photos: Mapping[str, Sequence[float]] | None = None,
    groups: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """The rows of one run.

    Args:
        where: study, dataset, method, parameters (spelt), seed, made_by.
        scores: split -> score -> value.
        photos: score -> one value a test scene, to be averaged within photographs.
        groups: which photograph each of these scenes shows.
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
    with atomic_path(table) as path:
        kept.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    with atomic_path(table.with_suffix(".json")) as path:
        path.write_text(json.dumps(strict(results.about), indent=1, allow_nan=False) + "\n")


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
    if missing or not isinstance(about, dict) or "study" not in about:
        lacks = f"the columns {', '.join(missing)}" if missing else "its study in the JSON beside it"
        raise CkfrError(f"{path} is no table of results: it lacks {lacks}.")
    return Results(as_table(rows), about)


def strict(value: Any) -> Any:
    """As JSON can hold it: numbers to six digits, null for NaN and infinity."""
    if isinstance(value, Interval):
        return strict(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): strict(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def _best(tried: pd.DataFrame, score: str) -> str | None:
    """The parameters with the best mean; the first of several that are equal."""
    usable = tried.dropna(subset="mean")
    if usable.empty:
        return None
    place = usable["mean"].idxmax() if more_is_better(score) else usable["mean"].idxmin()
    return str(usable.parameters[place])
