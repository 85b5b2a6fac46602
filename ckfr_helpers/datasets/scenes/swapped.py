"""The same scenes in another kind of place: matched pairs for measuring what a background is worth."""

from ckfr_helpers.datasets.base import Example, ImageSource
from ckfr_helpers.datasets.scenes.single import PhotoScenes


class OnBackground(ImageSource):
    """Every scene of a source, moved to one kind of place; cut-out, size, position and camera stay.

    Scene ``i`` of ``OnBackground(scenes, "usual")`` and of ``OnBackground(scenes, "foreign")`` are a matched
    pair: what a network says of the two can differ through the background alone.

    Args:
        scenes: the scenes as they stand.
        background: ``"usual"``, ``"foreign"`` or a family, as `PhotoScenes.scene` takes it.

    Raises:
        CkfrError: if there is no such background.
    """

    def __init__(self, scenes: PhotoScenes, background: str) -> None:
        scenes.scene(0, background)  # an unknown background is refused now, not in a worker
        self.scenes, self.background = scenes, background
        self.name, self.split, self.hierarchy = scenes.name, scenes.split, scenes.hierarchy
        self.labels = scenes.labels

    def fingerprint(self) -> str:
        """Changes with the scenes, and with the background."""
        return f"{self.scenes.fingerprint()}-{self.background}"

    def where(self, index: int) -> str:
        return f"{self.scenes.where(index)}, {self.background} background"

    def __getitem__(self, index: int) -> Example:
        return self.scenes.scene(index, self.background)
