"""Notebook 05's pictures: questions, answers, ranked lists, and where each way of asking looks."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

from ckfr_helpers.attribution.cam import score_maps
from ckfr_helpers.retrieval.regions import similarity_maps
from ckfr_helpers.retrieval.rivals import Pictures, Ranker
from ckfr_helpers.teaching.plots.photos import Tile, overlay, photo_grid
from ckfr_helpers.teaching.plots.retrieval_study import title
from ckfr_helpers.teaching.plots.style import BASELINE, OURS, subplots
from ckfr_helpers.teaching.retrieval_lesson import SIZE, Collection

MARKS = {"easy": "✓ right", "hard": "✓ right, hard", "junk": "junk", "": "✗ wrong"}


def question(collection: Collection, query: int, caption: str = "") -> Tile:
    """A query with its box."""
    image, target = collection.queries[query]
    return Tile(image.numpy(), caption, target["boxes"][:1])


def answers(collection: Collection, query: int, each: int = 2) -> list[Tile]:
    """A query, and the first few easy and the first few hard pictures that show it, objects boxed."""
    truth = collection.truths[query]
    wanted = [*truth.easy[:each], *truth.hard[:each]]
    return [question(collection, query), *(_found(collection, query, one, "") for one in wanted)]


def ranked(collection: Collection, query: int, scores: Tensor, count: int) -> list[Tile]:
    """A query and the pictures with the highest scores (M,), best first, each marked right or wrong."""
    tiles = [question(collection, query)]
    for picture in scores.argsort(descending=True, stable=True)[:count].tolist():
        grade = collection.grade(query, picture)
        tiles.append(_found(collection, query, picture, f"{MARKS[grade]}  {scores[picture]:.2f}"))
    return tiles


def whose_maps(
    collection: Collection,
    queries: Pictures,
    database: Pictures,
    weight: Tensor,
    pairs: Sequence[tuple[int, int]],
    classes: int = 8,
) -> Figure:
    """Where three ways of weighting look, for pairs of a query and a picture that shows it."""
    rows: dict[str, list[Tile]] = {name: [] for name in ("the question", "a picture")}
    ranker = Ranker("query's classes", classes=classes)
    for query, picture in pairs:
        image = collection.database[picture][0].numpy()
        features, asked = database.features[[picture]], queries.features[query]
        ways = {
            "own classes": ranker.maps(features, weight, database.classes[picture, :classes]).mean(1),
            "query's classes": ranker.maps(features, weight, queries.classes[query, :classes]).mean(1),
            "query's features": similarity_maps(features, asked.sum((1, 2))[None])[:, 0],
        }
        rows["the question"].append(question(collection, query))
        rows["a picture"].append(_found(collection, query, picture, ""))
        for name, found in ways.items():
            large = score_maps(found, (SIZE, SIZE))[0].numpy()
            rows.setdefault(name, []).append(Tile(overlay(image, large)))
    return photo_grid(rows, side=2.1)


def energy_and_precision(energy: Mapping[str, np.ndarray], precision: Mapping[str, np.ndarray]) -> Figure:
    """One dot a query: energy on its object against average precision; one panel a method."""
    figure, axes = subplots(1, len(energy), figsize=(4.2 * len(energy), 3.4), sharey=True, squeeze=False)
    figure.set_layout_engine("constrained")
    reach = 1.1 * max(np.nanmax(shares) for shares in energy.values())
    for axis, (method, shares), colour in zip(axes[0], energy.items(), (BASELINE, OURS), strict=False):
        axis.scatter(shares, precision[method], s=36, color=colour, edgecolor="white")
        tie = spearmanr(shares, precision[method], nan_policy="omit")[0]
        axis.set(title=f"{title(method)}\nrank correlation {tie:+.2f}", xlim=(0, reach), ylim=(0, 1.03))
        axis.set_xlabel("energy of the weights on the object")
    axes[0, 0].set_ylabel("average precision (medium)")
    return figure


def _found(collection: Collection, query: int, picture: int, caption: str) -> Tile:
    """A database picture; where the query's photograph is in it, with its box."""
    image, target = collection.database[picture]
    photo = collection.queries[query][1]["photos"][0]
    return Tile(image.numpy(), caption, target["boxes"][target["photos"] == photo])
