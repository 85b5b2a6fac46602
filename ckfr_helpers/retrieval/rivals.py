"""Every way of ranking a collection that notebook 05 compares, behind one call.

Each method turns a query and a picture into one vector; pictures are ranked by cosine. What differs is where
in a picture the vector comes from: everywhere, where some classes are seen, where the query's features are
seen, in the best window, or (for a ceiling) where the object is known to be.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast, get_args

import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor

from ckfr_helpers.retrieval.descriptors import (
    Method,
    aggregate,
    channel_weights,
    class_maps,
    class_weighted_descriptors,
    describe,
    describe_maps,
    fit_whitening,
)
from ckfr_helpers.retrieval.pooling import region_maxima
from ckfr_helpers.retrieval.regions import best_windows, box_masks, rerank, similarity_maps
from ckfr_helpers.runtime import CkfrError

POOLINGS: tuple[str, ...] = get_args(Method)
CLASSWISE = ("own classes", "random classes", "query's classes")
ORACLES = ("all objects' masks", "each object's mask")
METHODS = (*POOLINGS, "query cropped", *CLASSWISE, "query's features", "best window", *ORACLES)
ALONE = (
    *POOLINGS,
    "query cropped",
    "own classes",
    "random classes",
    "all objects' masks",
)  # each picture has one vector


@dataclass(frozen=True)
class Pictures:
    """What a network sees in some pictures.

    Attributes:
        features: (N, C, h, w) float32, last feature maps; of queries, zero outside their boxes.
        classes: (N, K) int64, the network's classes from the likeliest to the least; of queries, for the
            picture inside the box alone.
        masks: (N, n, h, w) float32, the share of every cell that is each of its objects, zero where there are
            fewer; only the oracles look. Of queries, empty.
        crops: (N, C, h, w), of queries: what the network sees in the part inside the box alone, enlarged.
    """

    features: Tensor
    classes: Tensor
    masks: Tensor
    crops: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def weights(self) -> Tensor:
        """`descriptors.channel_weights`, (N, C)."""
        return channel_weights(self.features)


@dataclass(frozen=True)
class Ranker:
    """A method with its settings.

    Attributes:
        method: one of `METHODS`.
        classes: how many classes of each picture, of the query, or at random.
        threshold: what a class map shows below this share of its maximum does not count.
        power: of GeM.
        dimension: after whitening; 0 leaves vectors as they are.
        expansion: how many first neighbours are added to the query before it asks again.
        rerank: how many of the first are looked at again, box by box, see `regions.rerank`.
        seed: of the random classes.
    """

    method: str
    classes: int = 8
    threshold: float = 0.0
    power: float = 3.0
    dimension: int = 0
    expansion: int = 0
    rerank: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise CkfrError(f"There is no method {self.method!r}; expected one of {', '.join(METHODS)}.")

    def whitening(self, train: Pictures, weight: Tensor) -> PCA | None:
        """Fitted on other pictures: their vectors of this method, one class each where it is by classes."""
        if not self.dimension:
            return None
        if self.method == "rmac":
            vectors = F.normalize(region_maxima(train.features).flatten(0, 1), dim=1)
        elif self.method == "query cropped":
            vectors = describe(train.features, "gem", power=self.power)
        elif self.method in POOLINGS:
            vectors = describe(train.features, cast(Method, self.method), power=self.power)
        elif self.method in CLASSWISE:
            vectors = describe_maps(train.features, self.maps(train.features, weight, train.classes[:, :1]))
        else:
            everywhere = train.features.new_ones(len(train), 1, *train.features.shape[2:])
            vectors = describe_maps(train.features, everywhere)
        return fit_whitening(vectors, self.dimension)

    def scores(
        self, queries: Pictures, database: Pictures, weight: Tensor, whitening: PCA | None = None
    ) -> Tensor:
        """How well every picture answers every query, (Q, M): cosines; after re-ranking, places in the list.

        Each query is answered by itself, so answers do not depend on which queries there are, or their order.

        Args:
            queries, database: what to ask, and what is asked.
            weight: (K, C) of the classifier, for methods by classes.
            whitening: from `whitening`.
        """
        rows = []
        for query, vectors in self.vectors(queries, database, weight, whitening):
            found = vectors @ query
            if self.expansion:
                first = found.topk(self.expansion).indices
                found = vectors @ F.normalize(query + vectors[first].sum(0), dim=0)
            rows.append(found)
        return torch.stack(rows) if not self.rerank else self._again(rows, queries, database, weight)

    def _again(self, rows: list[Tensor], queries: Pictures, database: Pictures, weight: Tensor) -> Tensor:
        """The first of each list sorted again by boxes of the query's class maps; (Q, M), the best has M."""
        found = torch.empty(len(rows), len(database))
        for index, row in enumerate(rows):
            order = row.argsort(descending=True, stable=True)
            first, chosen = order[: self.rerank], queries.classes[index, : self.classes]
            own, theirs = queries.features[index : index + 1], database.features[first]
            query = describe_maps(own, self.maps(own, weight, chosen))[0]
            order = rerank(order, query, theirs, self.maps(theirs, weight, chosen))
            found[index, order] = torch.arange(len(order), 0, -1).float()
        return found

    def vectors(
        self, queries: Pictures, database: Pictures, weight: Tensor, whitening: PCA | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For each query its vector (D,) and those of all pictures (M, D), which may depend on the query."""
        if self.method in ALONE:
            ours, theirs = (self._alone(part, weight, whitening) for part in (queries, database))
            yield from ((query, theirs) for query in ours)
            return
        own = torch.ones(len(queries), 1, *queries.features.shape[2:])
        columns = torch.arange(len(queries))[:, None]  # which of the maps below belong to a query, (Q, n)
        if self.method == "query's classes":
            asked, columns = queries.classes[:, : self.classes].unique(return_inverse=True)
            own = self.maps(queries.features, weight, queries.classes[:, : self.classes])
            maps = self.maps(database.features, weight, asked)
        elif self.method == "each object's mask":
            maps, columns = database.masks, torch.arange(database.masks.shape[1]).expand(len(queries), -1)
        else:
            wanted = queries.features.sum((2, 3))
            maps = (similarity_maps if self.method == "query's features" else _best_windows)(
                database.features, wanted
            )
        # One pass over the features for the maps of all queries: (M, N, C).
        found = class_weighted_descriptors(database.features, maps) * database.weights[:, None]
        mine = class_weighted_descriptors(queries.features, own) * queries.weights[:, None]
        for index, chosen in enumerate(columns):
            query = aggregate(mine[index : index + 1], whitening)[0]
            if self.method == "each object's mask":  # the one that is most like the query
                every = torch.stack([aggregate(found[:, [one]], whitening) for one in chosen])  # (n, M, D)
                best = (every @ query).argmax(0)
                yield query, every[best, torch.arange(len(best))]
            else:
                yield query, aggregate(found[:, chosen], whitening)

    def maps(self, features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
        """`descriptors.class_maps` with what lies below the threshold at zero, (B, N, H, W)."""
        maps = class_maps(features, weight, classes)
        return maps.where(maps >= self.threshold, 0.0)

    def _alone(self, pictures: Pictures, weight: Tensor, whitening: PCA | None) -> Tensor:
        """(N, D), each picture's vector whatever is asked."""
        features = pictures.features
        if self.method in POOLINGS:
            return describe(features, cast(Method, self.method), power=self.power, whitening=whitening)
        if self.method == "query cropped":
            own = features if pictures.crops is None else pictures.crops
            return describe(own, "gem", power=self.power, whitening=whitening)
        if self.method == "all objects' masks":
            maps = torch.ones(len(pictures), 1, *features.shape[2:])  # a query is its object already
            if len(pictures.masks):
                maps = pictures.masks.sum(1, keepdim=True)
        else:
            chosen = pictures.classes[:, : self.classes]
            if self.method == "random classes":
                draw = torch.Generator().manual_seed(self.seed)
                chosen = torch.randperm(len(weight), generator=draw)[: self.classes]
            maps = self.maps(features, weight, chosen)
        return describe_maps(features, maps, whitening=whitening)


def _best_windows(features: Tensor, wanted: Tensor) -> Tensor:
    """(M, C, H, W), (Q, C) -> (M, Q, H, W): one in the window most like each query, zero elsewhere."""
    _, boxes = best_windows(features, wanted)  # (M, Q, 4)
    masks = box_masks(boxes.flatten(0, 1), *features.shape[2:])
    return masks.unflatten(0, boxes.shape[:2]).float()
