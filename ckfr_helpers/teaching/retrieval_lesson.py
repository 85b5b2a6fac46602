"""A collection of scenes and questions to it, through one network: what notebook 05 and its study run."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tvf
from torch import Tensor

from ckfr_helpers.attribution.cam import upsample
from ckfr_helpers.attribution.energy import energy_in_mask
from ckfr_helpers.datasets.base import Example, Target
from ckfr_helpers.datasets.scenes.instances import retrieval_set
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.models import Classifier, cache_features
from ckfr_helpers.retrieval.protocols import Truth, evaluate, hierarchical_area
from ckfr_helpers.retrieval.regions import inside
from ckfr_helpers.retrieval.rivals import Pictures, Ranker
from ckfr_helpers.runtime import num_workers

LITE, STAGE, SIZE = "efficientnet_lite0", 7, 384
AREA_AT = 100  # k of the area under hierarchical precision


@dataclass(frozen=True)
class Collection:
    """Queries and pictures of one split, behind a frozen trunk.

    Attributes:
        queries, database: the scenes; the first object of a query is what is looked for.
        hierarchy: of the classes.
        truths: for each query, which pictures show it: easy, hard, junk.
        asked, crops, stored: trunk outputs of the queries, of what is inside their boxes, of the database.
    """

    queries: Sequence[Example]
    database: Sequence[Example]
    hierarchy: Hierarchy
    truths: Sequence[Truth]
    asked: Tensor
    crops: Tensor
    stored: Tensor

    def box(self, index: int) -> Tensor:
        """(4,) of the object that a query asks for."""
        return self.queries[index][1]["boxes"][0]

    def grade(self, query: int, picture: int) -> str:
        """ "easy", "hard", "junk", or empty where a picture does not show what a query asks for."""
        truth = self.truths[query]
        return next((name for name in Truth._fields if picture in getattr(truth, name)), "")

    def through(self, tail: Classifier) -> tuple[Pictures, Pictures]:
        """What a network with this tail sees in queries and database."""
        asked, _ = seen_by(tail, self.asked)
        crops, classes = seen_by(tail, self.crops)  # of the object alone, as a person would crop it
        stored, theirs = seen_by(tail, self.stored)
        boxed = torch.cat([inside(asked[i : i + 1], self.box(i), (SIZE, SIZE)) for i in range(len(asked))])
        most = max(len(target["photos"]) for _, target in self.database)
        cells = stored.new_zeros(len(stored), most, *stored.shape[2:])
        for own, (_, target) in zip(cells, self.database, strict=True):
            shape = (stored.shape[2], stored.shape[3])
            own[: len(target["masks"])] = F.adaptive_avg_pool2d(target["masks"].float(), shape)
        return Pictures(boxed, classes, stored.new_zeros(0), crops), Pictures(stored, theirs, cells)

    def quality(self, scores: Tensor) -> dict[str, np.ndarray]:
        """Of rankings by scores (Q, M): every measure, one value a query.

        Beside those of `protocols.evaluate`: ``ahp``, the area under hierarchical precision, and
        ``first_wrong``, the tree height between the query's class and the nearest class in the first picture
        that does not show it.
        """
        rankings = [row.argsort(descending=True, stable=True).numpy() for row in scores]
        found = evaluate(rankings, self.truths, ks=(1, 5, 10))
        heights = self.hierarchy.distances("lca_height")
        alike = 1 - heights / heights.max()
        areas, wrong = [], []
        for index, (ranking, truth) in enumerate(zip(rankings, self.truths, strict=True)):
            asked = self.queries[index][1]["label"]
            nearest = self._nearest(asked, heights)[ranking]
            areas.append(hierarchical_area(nearest, asked, alike, AREA_AT))
            others = ~np.isin(ranking, [*truth.easy, *truth.hard, *truth.junk])
            wrong.append(heights[asked, nearest[others][0]])
        return found | {"ahp": np.array(areas), "first_wrong": np.array(wrong)}

    def _nearest(self, asked: int, heights: np.ndarray) -> np.ndarray:
        """(M,) class in each picture that is nearest to the one asked for."""
        labels = [target["box_labels"].numpy() for _, target in self.database]
        return np.array([own[heights[asked, own].argmin()] for own in labels])


def collect(
    network: Classifier, split: str, seed: int = 0, progress: bool = False, **options: int
) -> Collection:
    """Compose a split's retrieval set and send it through the network's frozen part.

    Args:
        network: of `models.build_model`; its stages before ``STAGE`` are used.
        split: whose photographs are looked for; no photograph stands in two splits.
        seed: of the scenes.
        progress: show bars.
        options: of `datasets.scenes.instances.retrieval_set`.
    """
    scenes = retrieval_set(split, size=SIZE, seed=seed, **options)
    with ThreadPoolExecutor(max(1, num_workers())) as pool:
        queries, database, others = (
            list(pool.map(part.__getitem__, range(len(part))))
            for part in (scenes.queries, scenes.database, scenes.distractors)
        )
    truths = [Truth(*ids) for ids in scenes.answers(target for _, target in database)]
    for _, target in others:  # photographs of another split, whose numbers would be taken for queries'
        target["photos"] = torch.full_like(target["photos"], -1)
    database += others
    parts = (
        [image for image, _ in queries],
        [_crop(*one) for one in queries],
        [image for image, _ in database],
    )
    outputs = [trunk_outputs(network, images, progress) for images in parts]
    return Collection(queries, database, scenes.database.hierarchy, truths, *outputs)


def trunk_outputs(network: Classifier, images: Sequence[Tensor], progress: bool = False) -> Tensor:
    """Pictures (3, SIZE, SIZE) uint8 through the frozen part, (N, C, h, w) float16."""
    trunk, _ = network.split(STAGE)
    return cache_features(trunk, _batches(network, images), progress=progress).features


def seen_by(tail: Classifier, outputs: Tensor, batch: int = 32) -> tuple[Tensor, Tensor]:
    """Feature maps (N, C, h, w) float32, and classes (N, K) from the likeliest to the least."""
    with torch.inference_mode():
        states = [tail.stages(part.float()) for part in outputs.split(batch)]
        features = torch.cat([tail.to_map(state) for state in states])
        logits = torch.cat([tail.classify(tail.neck(state)) for state in states])
    return features.clone(), logits.argsort(dim=1, descending=True, stable=True)


def energies(
    collection: Collection, queries: Pictures, database: Pictures, weight: Tensor, ranker: Ranker
) -> np.ndarray:
    """(Q,) energy of the class maps on each query's object, mean over its positives; NaN without one.

    The maps are those of a ranker by own or by the query's classes, averaged over them; the energy is that of
    `attribution.energy.energy_in_mask`, on maps enlarged to the picture's size.
    """
    found = []
    for index, truth in enumerate(collection.truths):
        wanted = [*truth.easy, *truth.hard]
        if not wanted:
            found.append(np.nan)
            continue
        asked = queries.classes[index] if ranker.method == "query's classes" else database.classes[wanted]
        maps = ranker.maps(database.features[wanted], weight, asked[..., : ranker.classes]).mean(1)
        photo = collection.queries[index][1]["photos"][0]
        targets = [collection.database[one][1] for one in wanted]
        masks = [target["masks"][target["photos"] == photo].any(0) for target in targets]
        found.append(energy_in_mask(upsample(maps, (SIZE, SIZE)), masks).mean())
    return np.array(found)


def _batches(network: Classifier, images: Sequence[Tensor], size: int = 32) -> Iterator[tuple]:
    for start in range(0, len(images), size):
        part = torch.stack(list(images[start : start + size]))
        rows = torch.arange(start, start + len(part))
        yield network.normalize(part), {"label": rows}, rows


def _crop(image: Tensor, target: Target) -> Tensor:
    """The first object's box of a picture, enlarged to the picture's size."""
    x0, y0, x1, y1 = target["boxes"][0].round().int().tolist()
    cut = image[:, y0 : y1 + 1, x0 : x1 + 1]
    return tvf.resize(cut.as_subclass(Tensor), [SIZE, SIZE], antialias=True)
