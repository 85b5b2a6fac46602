"""MaxBoxAcc for a whole image set against a literal loop over a thousand thresholds.

    python benchmarks/max_box_acc.py

Both sides score the same maps in the same run, by turns, in CPU time of one thread. The literal loop is the
protocol as its text reads: threshold, findContours, one box per contour, IoU with every true box, a thousand
times per image; its IoU is vectorised over boxes, as in the public code. The package traces contours once for
each distinct byte value of a map. Counts must be equal for every IoU level and threshold.
Writes benchmarks/results/max_box_acc.json.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from ckfr_helpers.attribution.cam import score_maps
from ckfr_helpers.localization import iou_matrix, max_box_acc
from ckfr_helpers.runtime import atomic_path, environment

RESULT = Path(__file__).parent / "results" / "max_box_acc.json"
IOUS = (0.3, 0.5, 0.7)
SEED = 0


def literal_counts(maps: np.ndarray, boxes: list[np.ndarray], contours: str) -> np.ndarray:
    """How many images are right, per IoU level and threshold: (3, 1000)."""
    counts = np.zeros((len(IOUS), 1000), np.int64)
    for scores, true in zip(maps, boxes, strict=True):
        height, width = scores.shape
        image = (scores * 255).astype(np.uint8)
        found, number = [], []
        for threshold in np.arange(0, 1, 0.001):
            _, above = cv2.threshold(image, int(threshold * image.max()), 255, cv2.THRESH_BINARY)
            traced = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
            if contours == "largest" and traced:
                traced = [max(traced, key=cv2.contourArea)]
            here = []
            for contour in traced:
                x, y, w, h = cv2.boundingRect(contour)
                here.append((x, y, min(x + w, width - 1), min(y + h, height - 1)))
            found += here or [(0, 0, 0, 0)]
            number.append(max(1, len(here)))
        best = iou_matrix(np.array(found), true).max(axis=1)
        best = np.maximum.reduceat(best, np.cumsum([0, *number[:-1]]))
        counts += best[None] >= np.array(IOUS)[:, None]
    return counts


def make_maps(kind: str, count: int) -> np.ndarray:
    """Maps (N, 224, 224) in [0, 1]: noise on a coarse grid, enlarged as class activation maps are."""
    generator = torch.Generator().manual_seed(SEED)
    cells = {"cam 7 x 7": 7, "cam 14 x 14": 14, "speckle 56 x 56": 56}
    if kind in cells:
        raw = torch.rand(count, cells[kind], cells[kind], generator=generator) ** 3
        return score_maps(raw, (224, 224)).numpy()
    if kind == "binary mask":
        y, x = torch.meshgrid(torch.arange(224), torch.arange(224), indexing="ij")
        centres = torch.rand(count, 2, 1, 1, generator=generator) * 224
        return ((y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2 < 50**2).float().numpy()
    return torch.rand(count, 224, 224, generator=generator).numpy()


def make_boxes(count: int) -> list[np.ndarray]:
    draw = np.random.default_rng(SEED)
    x, y = np.sort(draw.integers(0, 224, (count, 2, 2))), np.sort(draw.integers(0, 224, (count, 2, 2)))
    return list(np.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], axis=-1))


def compare(kind: str, contours: str, count: int, repeats: int) -> dict:
    maps, boxes = make_maps(kind, count), make_boxes(count)
    ours, literal = [], []
    max_box_acc(maps[:1], boxes[:1], IOUS, contours)  # warm-up
    for _ in range(repeats):  # by turns, so that a busy machine slows both
        start = time.process_time()
        result = max_box_acc(maps, boxes, IOUS, contours)
        middle = time.process_time()
        expected = literal_counts(maps, boxes, contours)
        ours.append(middle - start)
        literal.append(time.process_time() - middle)
    return {
        "maps": kind,
        "contours": contours,
        "images": count,
        "ms_per_image": 1e3 * statistics.median(ours) / count,
        "literal_ms_per_image": 1e3 * statistics.median(literal) / count,
        "times_faster_than_literal": statistics.median(a / b for a, b in zip(literal, ours, strict=True)),
        "counts_equal": bool(np.array_equal(result.counts, expected)),
        "max_box_acc": result.per_iou.tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--images", type=int, default=20, help="maps of each kind (default 20; noise takes one)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats of both sides (default 5)")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rows = []
    for contours in ("all", "largest"):
        for kind in ("cam 7 x 7", "cam 14 x 14", "speckle 56 x 56", "binary mask", "white noise"):
            slow = kind == "white noise"  # thousands of contours at each threshold: half a minute an image
            few = kind == "speckle 56 x 56"
            images = 1 if slow else max(1, arguments.images // 5) if few else arguments.images
            rows.append(compare(kind, contours, images, 1 if slow else arguments.repeats))
            row = rows[-1]
            print(
                f"{kind:16} {contours:8} literal {row['literal_ms_per_image']:9.1f} ms, here "
                f"{row['ms_per_image']:7.2f} ms: {row['times_faster_than_literal']:6.1f} times faster, "
                f"counts equal: {row['counts_equal']}"
            )
    with atomic_path(RESULT) as path:
        settings = {
            "size": [224, 224],
            "iou_thresholds": IOUS,
            "thresholds": 1000,
            "literal": "cv2.findContours at each of the 1000 thresholds",
            "seed": SEED,
            "threads": 1,
            "repeats": arguments.repeats,
            "load_average_at_end": os.getloadavg()[1],
        }
        result = {
            "environment": environment() | {"opencv": cv2.__version__},
            "settings": settings,
            "rows": rows,
        }
        path.write_text(json.dumps(result, indent=1) + "\n")
    if not all(row["counts_equal"] for row in rows):
        raise SystemExit("Counts differ from the literal loop.")


if __name__ == "__main__":
    main()
