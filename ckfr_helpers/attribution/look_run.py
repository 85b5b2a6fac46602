"""Where a finished run looks: what ``ckfr look`` does."""

import dataclasses
from functools import partial
from pathlib import Path

from ckfr_helpers.attribution import cam
from ckfr_helpers.attribution.look import MapMaker, closed_form, look, look_scores
from ckfr_helpers.datasets.loading import TransformedView, make_loader
from ckfr_helpers.datasets.transforms import make_transform
from ckfr_helpers.models.classifier import Classifier
from ckfr_helpers.runtime import CkfrError, num_workers
from ckfr_helpers.training.run import for_this_machine, load_run, make_fabric, open_split


def look_at_run(
    folder: Path,
    data: str | None = None,
    root: str | Path | None = None,
    *,
    method: cam.Method | None = None,
    accelerator: str | None = None,
    progress: bool = True,
) -> dict[str, float | None]:
    """Localisation scores of a finished run on pictures with boxes or masks; thresholds from their val split.

    Args:
        folder: of the run, as `training.train` leaves it.
        data: another source than the run's own, with the same classes; e.g. ``"folder"``; at ``root``.
        method: a method of `cam.gradient_cam`; None takes the closed form where there is one, else Grad-CAM.
        accelerator: where to compute, if not where the run was trained.

    Returns:
        `look_scores`; ``pxap`` is None where there are no masks.

    Raises:
        CkfrError: if there is no such run, its classes are not the source's, or the source has no boxes.
    """
    run = load_run(folder)
    config = run.config
    if data is not None:  # what the settings say of the run's own data does not hold for other data
        config = dataclasses.replace(config, data=data, data_options={}, root=None, per_class={}, cache=False)
    config = for_this_machine(config, root=root, accelerator=accelerator)
    model = run.model.to(make_fabric(config).device)
    looks = {}
    for split in ("val", "test"):
        source = open_split(config, split, progress)
        if source.classes != run.hierarchy.classes:
            raise CkfrError(
                f"The run in {folder} knows {_some(run.hierarchy.classes)}, {config.data} has "
                f"{_some(source.classes)}; expected the run's own classes, in its order."
            )
        # The whole picture, whatever the run's own test crop: a box may reach to the picture's edge.
        statistics = {"mean": model.mean, "std": model.std} if config.normalise else {}
        view = TransformedView(source, make_transform("light", train=False, size=config.size, **statistics))
        workers = num_workers() if config.workers is None else config.workers
        loader = make_loader(view, 64, train=False, workers=workers)
        looks[split] = look(model, loader, source, _map_maker(model, method), progress=progress)
    return look_scores(looks["test"], looks["val"]) | {"pxap": looks["test"].pxap}


def _some(classes: tuple[str, ...]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:3])}{', …' * (len(classes) > 3)})"


def _map_maker(model: Classifier, method: cam.Method | None) -> MapMaker:
    if method is None and model.gap_linear:
        return closed_form
    return partial(cam.gradient_cam, method=method or "gradcam", raw=True)
