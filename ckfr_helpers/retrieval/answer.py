"""The answer to one query: stored descriptors rank the collection, the query's classes re-rank the first."""

from pathlib import Path

import torch
from torch import Tensor

from ckfr_helpers.models.classifier import Classifier, evaluating
from ckfr_helpers.retrieval.collection import CHUNK, Collection
from ckfr_helpers.retrieval.pictures import (
    describe_features,
    describe_pictures,
    fit,
    likeliest,
    picture_features,
    read_picture,
)
from ckfr_helpers.retrieval.regions import inside
from ckfr_helpers.retrieval.search import expand, search
from ckfr_helpers.runtime import check_number

QUERY_CLASSES = 8  # the likeliest of the query, which the first pictures are asked for
Box = list[float]  # x0, y0, x1, y1 in pixels, both ends inside


@torch.inference_mode()
def rank(
    model: Classifier,
    collection: Collection,
    path: Path,
    box: Box | None,
    online: int,
    most: int,
    expansion: int = 0,
) -> tuple[Tensor, list[tuple[int, float]]]:
    """The picture (3, H, W), and rows of the collection without it, best first, with their scores.

    The query is what the features of the whole picture hold inside the box; its classes are those of the box
    cut out.

    Args:
        model: in whose features the collection is described.
        collection: what is searched.
        path: of the query; if it is one of the collection's own pictures, that is left out.
        box: None takes the whole picture.
        online: so many of the first are read again, described for the query's classes, and sorted by that;
            their scores are of other descriptors than those after them.
        most: rows to rank.
        expansion: neighbours that the query is joined by before the collection is ranked by it again.

    Raises:
        CkfrError: for a picture that cannot be read, a box outside it, or a network without class maps.
    """
    check_number("expansion", expansion, 0, whole=True)
    picture, recipe = read_picture(path), collection.recipe
    height, width = picture.shape[1:]
    x0, y0, x1, y1 = box or [0, 0, width - 1, height - 1]
    with evaluating(model):
        features = picture_features(model, fit(picture, recipe.size)[None])
        part, classes = inside(features, [x0, y0, x1, y1], (height, width)), None
        if online or recipe.method == "classes":
            top, left = (min(max(0, int(low)), side - 1) for low, side in ((y0, height), (x0, width)))
            crop = picture[:, top : int(y1) + 1, left : int(x1) + 1]
            seen = picture_features(model, fit(crop, recipe.size)[None])
            classes = likeliest(model, seen, max(recipe.classes, QUERY_CLASSES))[0]
        own = None if classes is None or recipe.method != "classes" else classes[: recipe.classes]
        places = [collection.pictures / name for name in collection.names]
        vector = describe_features(model, part, recipe, own)
        if expansion:
            near = search(vector, collection.descriptors, expansion + 1).ids[0].tolist()
            near = [row for row in near if places[row] != path.resolve()][:expansion]  # not the query itself
            vector = expand(vector, collection.descriptors, [near], len(near))
        hits = search(vector, collection.descriptors, most)
        pairs = zip(hits.ids[0].tolist(), hits.scores[0].tolist(), strict=True)
        ranked = [(row, score) for row, score in pairs if places[row] != path.resolve()]
        if classes is None or not online:
            return picture, ranked
        asked = classes[:QUERY_CLASSES]
        query = describe_features(model, part, recipe, asked)[0]
        again: list[tuple[int, float]] = []
        for start in range(0, len(ranked[:online]), CHUNK):
            chunk = [row for row, _ in ranked[:online][start : start + CHUNK]]
            pictures = [fit(read_picture(places[row]), recipe.size) for row in chunk]
            scores = describe_pictures(model, pictures, recipe, asked) @ query
            again += zip(chunk, scores.tolist(), strict=True)
    return picture, sorted(again, key=lambda one: -one[1]) + ranked[online:]
