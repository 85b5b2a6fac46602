"""Pictures a second with and without the memory-mapped cache, and in the original demo's loader form.

    python benchmarks/loader_speed.py                           # JPEGs made here, as large as ImageNet's
    python benchmarks/loader_speed.py --tiny PATH               # Tiny-ImageNet's pictures, 64 × 64

The original form reads a picture with ``plt.imread`` and makes it a PIL image for the pixel pipeline, three
times for each anchor: the anchor and two partners. Ours decodes once and reads one picture an anchor, since
every other picture of the batch is a partner already; with the cache it decodes nothing. Each form runs with
the original's training pipeline and with its evaluation pipeline, on the same files, in turns within one run,
in one process: more workers multiply all of them alike. What counts is processor time, so that other work on
the machine favours nobody; waiting for a disk is therefore not in it (the files lie in the page cache, as
they do from the second epoch on where memory is enough). Writes benchmarks/results/loader_speed.json.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from ckfr_helpers import datasets
from ckfr_helpers.datasets.base import ImageSource
from ckfr_helpers.datasets.cache import cached
from ckfr_helpers.datasets.files import FileSource
from ckfr_helpers.datasets.loading import TransformedView, single_thread
from ckfr_helpers.datasets.subset import Part
from ckfr_helpers.datasets.transforms import make_transform, stored_side
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.runtime import atomic_path, environment

RESULT = Path(__file__).parent / "results" / "loader_speed.json"
WIDTH, HEIGHT = 500, 375  # ImageNet's commonest size; its files average 110 kB


def photograph(rng: np.random.Generator) -> Image.Image:
    """A picture with a photograph's spectrum: noise whose amplitude falls off with frequency, in colour."""
    across, down = np.meshgrid(np.fft.rfftfreq(WIDTH), np.fft.fftfreq(HEIGHT))
    fall = 1 / np.maximum(np.hypot(across, down), 1 / WIDTH)
    planes = []
    for _ in range(3):
        phase = rng.standard_normal(fall.shape) + 1j * rng.standard_normal(fall.shape)
        plane = np.fft.irfft2(phase * fall, s=(HEIGHT, WIDTH))
        planes.append(plane / plane.std())
    shared = planes[0]  # colours of a photograph go together
    pixels = [128 + 48 * (0.8 * shared + 0.6 * plane) for plane in planes]
    return Image.fromarray(np.clip(np.stack(pixels, axis=-1), 0, 255).astype(np.uint8))


class Files(FileSource):
    """JPEG files in one folder, one class: what a loader of ours reads."""

    name, split = "files", "train"
    hierarchy = Hierarchy.from_pairs([("all", "one")])

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))
        names = [path.name for path in self.paths]
        self._hold(folder, names, np.zeros(len(names), dtype=np.int64))


class OriginalForm:
    """The original demo's way to an anchor: three files, each through matplotlib and PIL."""

    def __init__(self, paths: Sequence[Path], train: bool, size: int) -> None:
        self.paths = paths
        before = round(size * 256 / 224)
        steps = (
            [
                transforms.RandomResizedCrop(before, scale=(0.9, 1.0), ratio=(0.75, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.RandomAutocontrast(),
                transforms.RandomRotation(10, interpolation=transforms.InterpolationMode.BILINEAR),
                transforms.RandomApply([transforms.GaussianBlur(5, sigma=(0.6, 1.5))], p=0.6),
            ]
            if train
            else [transforms.Resize((before, before))]
        )
        self.transform = transforms.Compose([*steps, transforms.CenterCrop(size), transforms.ToTensor()])

    def __call__(self, index: int) -> None:
        partners = torch.randint(len(self.paths), (2,)).tolist()
        for place in (index, *partners):
            pixels = plt.imread(self.paths[place])
            if pixels.ndim == 2:
                pixels = np.stack([pixels] * 3, axis=-1)
            self.transform(Image.fromarray(pixels))


def through(source: ImageSource, train: bool, size: int) -> Callable[[int], object]:
    view = TransformedView(source, make_transform("original", train, size))
    return lambda index: view[index]


def rate(form: Callable[[int], object], indices: Sequence[int]) -> float:
    """Anchors a second of processor time, which others' work on the machine hardly changes."""
    start = time.process_time()
    for index in indices:
        form(index)
    return len(indices) / (time.process_time() - start)


def measure(source: ImageSource, paths: Sequence[Path], folder: Path, arguments: argparse.Namespace) -> dict:
    start = time.process_time()
    copy = cached(source, stored_side("original", arguments.size), folder, workers=0, progress=False)
    built = len(source) / (time.process_time() - start)
    order = np.random.default_rng(0)
    rows = {}
    for name, train in (("training pipeline", True), ("evaluation pipeline", False)):
        forms = {
            "original": OriginalForm(paths, train, arguments.size),
            "files": through(source, train, arguments.size),
            "cache": through(copy, train, arguments.size),
        }
        rates: dict[str, list[float]] = {form: [] for form in forms}
        for _ in range(arguments.repeats + 1):
            indices = order.integers(0, len(paths), arguments.anchors).tolist()
            for form, call in forms.items():  # in turns, so that whatever disturbs one disturbs all
                rates[form].append(rate(call, indices))
        median = {form: statistics.median(values[1:]) for form, values in rates.items()}  # the first warms up
        rows[name] = {
            "anchors_per_second": median,
            "pictures_per_second": {form: (3 if form == "original" else 1) * median[form] for form in median},
            "cache_over_files": median["cache"] / median["files"],
            "cache_over_original": median["cache"] / median["original"],
            "files_over_original": median["files"] / median["original"],
        }
    decode = rate(lambda index: source[index], range(len(paths)))
    fetch = rate(lambda index: copy[index], range(len(paths)))
    rows["without a pipeline"] = {
        "pictures_per_second": {"files": decode, "cache": fetch},
        "cache_over_files": fetch / decode,
    }
    return {"building_pictures_per_second": built, "forms": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--tiny", type=Path, help="Tiny-ImageNet's folder or zip, written again as loose files"
    )
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--anchors", type=int, default=100, help="anchors in each timing")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=224, help="side of what the pipelines give")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    single_thread()  # one thread here too
    torch.manual_seed(0)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "files"
        folder.mkdir()
        if arguments.tiny is not None:
            whole = datasets.open_source("tiny-imagenet", "test", root=arguments.tiny)
            part = Part(whole, range(min(arguments.pictures, len(whole))))
            for index in range(len(part)):  # the same pictures as loose files, for plt.imread
                buffer = io.BytesIO()
                pixels = part[index][0].permute(1, 2, 0).numpy()
                Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
                (folder / f"{index:06}.jpg").write_bytes(buffer.getvalue())
        else:
            rng = np.random.default_rng(0)
            for index in range(arguments.pictures):
                photograph(rng).save(folder / f"{index:06}.jpg", quality=90)
        source = Files(folder)
        average = sum(path.stat().st_size for path in source.paths) / len(source)
        results = {
            "environment": environment(),
            "settings": {
                "files": "Tiny-ImageNet" if arguments.tiny else f"generated, {WIDTH} x {HEIGHT}",
                "bytes_per_file": round(average),
                **{key: getattr(arguments, key) for key in ("pictures", "anchors", "repeats", "size")},
                "cache_side": stored_side("original", arguments.size),
                "processes": 1,
                "clock": "processor time of the one process",
            },
            **measure(source, source.paths, Path(scratch) / "cache", arguments),
            "load_average_before": load_before,
        }
    with atomic_path(arguments.output) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
