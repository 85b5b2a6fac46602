"""One object in many scenes: queries, a database in which every photograph returns, and distractors.

    found = retrieval_set("test")
    answers = found.answers(target for _, target in found.database)
    truths = [Truth(*one) for one in answers]  # for `ckfr_helpers.retrieval.protocols.evaluate`

A photograph returns elsewhere, in another size, turned, mirrored, in other light, behind or in front of other
things. The viewpoint never changes: this is the search for near-duplicates of an object, which is easier than
that for a building seen from another side.
"""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np

from ckfr_helpers.datasets.base import Split, Target, check_split
from ckfr_helpers.datasets.scenes.several import SeveralScenes
from ckfr_helpers.runtime import CkfrError, check_number

Role = Literal["queries", "database"]
Grade = Literal["easy", "hard", "junk"]

# An object of which less is seen, as a share of the picture or of itself, can be asked of nobody.
JUNK_AREA, JUNK_VISIBLE = 0.004, 0.25
# Small; partly covered; or one thing among others that fill more of the picture.
HARD_AREA, HARD_VISIBLE, HARD_SHARE = 0.02, 0.75, 0.25

# A query shows its object well; in the database it may be small or nearly hidden.
ROLES: dict[Role, dict[str, Any]] = {
    "queries": {"sides": (0.3, 0.5), "overlap": 0.1, "turn": 12.0},
    "database": {"sides": (0.1, 0.6), "overlap": 0.9, "turn": 25.0, "gather": 0.5},
}
DISTRACTORS: dict[Split, Split] = {"train": "val", "val": "train", "test": "val"}
"""The split whose photographs distract from those of another."""


class InstanceScenes(SeveralScenes):
    """Scenes in which photographs, not classes, take turns as the first object.

    Scene ``i`` shows photograph ``i % len(photos)``, so every one returns equally often; it also comes as
    company of others, which the targets tell.

    Args:
        split: whose photographs.
        role: ``"queries"`` are large, hardly covered, and stand in places of their own; in the ``"database"``
            an object may be small or nearly hidden.
        returns: scenes of each photograph.
        size, seed: as in `SeveralScenes`.
        options: ``objects, root, cutouts, hierarchy, instances`` of `SeveralScenes`.

    Raises:
        CkfrError: as `SeveralScenes`, and if there is no such role.
    """

    name = "instances"

    def __init__(
        self,
        split: str,
        role: Role = "database",
        size: int = 448,
        returns: int = 1,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if role not in ROLES:
            raise CkfrError(f"There is no role {role!r}; expected queries or database.")
        check_number("returns", returns, 1, whole=True)
        super().__init__(split, size, 1, seed, **ROLES[role], **options)
        self.bank = f"{split} {role}" if role == "queries" else split
        self.labels = np.tile(self._owner, returns)
        _ = self._places  # as in `PhotoScenes`: painted now, once

    def photo_of(self, index: int) -> int:
        """Index into ``photos`` of the first object of a scene."""
        return range(len(self))[index] % len(self.photos)


class Answers(NamedTuple):
    """What a search should find, as ids of database scenes, in rising order."""

    easy: tuple[int, ...]
    hard: tuple[int, ...]
    junk: tuple[int, ...]  # neither right nor wrong: too little of the object is seen


class RetrievalSet(NamedTuple):
    """Query ``i`` asks for photograph ``i``, whose box is the first in its target."""

    queries: InstanceScenes
    database: InstanceScenes
    distractors: SeveralScenes  # without any of the queries' photographs

    def answers(self, targets: Iterable[Target]) -> list[Answers]:
        """One `Answers` a query, from the targets of the database in its order.

        An id is a position in the database; distractors come after it, and are nobody's answer.

        Raises:
            CkfrError: if there are not as many targets as scenes in the database.
        """
        found: list[dict[Grade, list[int]]] = [
            {"easy": [], "hard": [], "junk": []} for _ in self.queries.photos
        ]
        count = 0
        for count, target in enumerate(targets, start=1):
            for photo, grade in grades(target).items():
                found[photo][grade].append(count - 1)
        if count != len(self.database):
            raise CkfrError(f"There are {count} targets for a database of {len(self.database)} scenes.")
        return [Answers(*(tuple(ids) for ids in one.values())) for one in found]


def grades(target: Target) -> dict[int, Grade]:
    """How hard each photograph in a scene of `SeveralScenes` is to find there."""
    areas = target["masks"].float().mean((1, 2))
    result: dict[int, Grade] = {}
    for photo, area, visible in zip(target["photos"].tolist(), areas, target["visible"], strict=True):
        if area < JUNK_AREA or visible < JUNK_VISIBLE:
            result[photo] = "junk"
        elif area < HARD_AREA or visible < HARD_VISIBLE or area < HARD_SHARE * areas.sum():
            result[photo] = "hard"
        else:
            result[photo] = "easy"
    return result


def retrieval_set(
    split: str, size: int = 448, seed: int = 0, returns: int = 5, distractors: int = 150, **options: Any
) -> RetrievalSet:
    """Queries and database of a split's photographs, and distractor scenes of another's.

    Args:
        split: test, or val for choices between methods, or train for whitening. (In train one animal has
            two photographs, and finding the other one counts as wrong.)
        size, seed: as in `SeveralScenes`; another seed gives other scenes of the same photographs.
        returns: database scenes in which each photograph is the first object.
        distractors: scenes of photographs that no query asks for.
        options: ``objects, root, instances`` of `SeveralScenes`.

    Raises:
        CkfrError: as `InstanceScenes`.
    """
    other = DISTRACTORS[check_split(split)]
    return RetrievalSet(
        InstanceScenes(split, "queries", size, 1, seed, **options),
        InstanceScenes(split, "database", size, returns, seed, **options),
        SeveralScenes(other, size, distractors, seed, **ROLES["database"], **options),
    )
