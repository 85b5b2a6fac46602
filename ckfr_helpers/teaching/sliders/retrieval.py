"""Notebook 05's panel: a ranked list that follows the number of classes, the threshold and the expansion."""

from collections.abc import Sequence

import ipywidgets as widgets
from torch import Tensor

from ckfr_helpers.retrieval.protocols import average_precision
from ckfr_helpers.retrieval.rivals import Pictures, Ranker
from ckfr_helpers.teaching.plots.photos import photo_grid
from ckfr_helpers.teaching.plots.retrieval import ranked
from ckfr_helpers.teaching.plots.style import jpeg
from ckfr_helpers.teaching.retrieval_lesson import Collection
from ckfr_helpers.teaching.sliders.panel import Panel, View, named

SHOWN = 5
COUNTS = (1, 2, 4, 8, 16, 32)
GRID_COUNTS = (1, 8, 32)


def retrieval_panel(
    collection: Collection, queries: Pictures, database: Pictures, weight: Tensor, asked: Sequence[int]
) -> Panel:
    """Sliders for the query's classes that every picture is asked for; the first pictures and AP follow.

    Args:
        collection: from `retrieval_lesson.collect`; of validation photographs, since who moves a slider while
            looking at a score chooses by it.
        queries, database: from its ``through``.
        weight: (K, C) of the classifier.
        asked: the queries to choose from; the static grid shows the first.
    """
    names = [collection.hierarchy.names[collection.queries[i][1]["label"]] for i in asked]

    def scores_of(query: int, ranker: Ranker) -> Tensor:
        one = slice(query, query + 1)
        return ranker.scores(
            Pictures(queries.features[one], queries.classes[one], queries.masks), database, weight
        )[0]

    def precision(query: int, scores: Tensor) -> float:
        order = scores.argsort(descending=True, stable=True).numpy()
        return average_precision(order, *collection.truths[query].under("medium"))

    plain = {query: precision(query, scores_of(query, Ranker("gem"))) for query in asked}

    def compute(query: int, classes: int, threshold: float, expansion: int) -> View:
        ranker = Ranker("query's classes", classes=classes, threshold=threshold, expansion=expansion)
        index = asked[query]
        scores = scores_of(index, ranker)
        tiles = ranked(collection, index, scores, SHOWN)
        titles = ["query", *(f"rank {rank}" for rank in range(1, SHOWN + 1))]
        numbers = (
            f"{names[query]}, {classes} classes, maps above {threshold:.1f} of their maximum, {expansion} "
            f"answers added | AP (medium) {precision(index, scores):.3f}, GeM {plain[index]:.3f}"
        )
        said = ", ".join(tile.caption for tile in tiles[1:])
        alt = f"The query with its box and the first {SHOWN} pictures for {numbers}: {said}."
        return View(jpeg(photo_grid({"": tiles}, titles, side=1.75)), numbers, alt)

    def static() -> View:
        rows, lines = {}, [f"AP (medium) of {names[0]}; GeM {plain[asked[0]]:.3f}"]
        for count in GRID_COUNTS:
            scores = scores_of(asked[0], Ranker("query's classes", classes=count))
            name = f"{count} class{'es' * (count > 1)}"
            rows[name] = ranked(collection, asked[0], scores, SHOWN - 1)
            lines.append(f"{name:<12}{precision(asked[0], scores):.3f}")
        alt = f"One query ({names[0]}) asked with {', '.join(rows)}, and the first pictures of each list."
        return View(jpeg(photo_grid(rows, side=1.75)), "\n".join(lines), alt)

    wide = 70  # pixels, for the longest label
    options = [(name, place) for place, name in enumerate(names)]
    controls = {
        "query": widgets.SelectionSlider(options=options, value=0, **named("query", wide)),
        "classes": widgets.SelectionSlider(options=COUNTS, value=8, **named("classes", wide)),
        "threshold": widgets.FloatSlider(
            value=0, min=0, max=0.8, step=0.1, readout_format=".1f", **named("threshold", wide)
        ),
        "expansion": widgets.IntSlider(value=0, min=0, max=10, **named("expansion", wide)),
    }
    return Panel(compute, controls, static, height=260)
