"""From letting a slider go to the new picture, in JupyterLab in a headless Chromium.

    python benchmarks/slider_latency.py [--moves 8] [02 03 …]

Every notebook with cells tagged ``panel`` is opened, reduced to these; each slider of its panel is dragged
with the mouse in turn. The page itself keeps the time: from its own pointer-up event until an image with
another address is decoded. So the time holds the front end, the kernel, the computation and the drawing. No
setting is counted twice; a few may be remembered by the panel from its static grid. The last figure is a
burst: five arrow keys in a row, timed from the last one to the picture that stays.

Writes benchmarks/results/slider_latency.json. Needs Chromium, and a machine with nothing else to do.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from lab_panel import OpenPanel, books_with_panels, open_panel  # noqa: E402

from ckfr_helpers.runtime import atomic_path, environment  # noqa: E402

RESULT = Path(__file__).parent / "results" / "slider_latency.json"
TARGETS = {"02": 1.5, "03": 3.0, "04": 1.5}  # seconds
GOLDEN = 0.6180339887
BURST = ("ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft")

# Resolves to the milliseconds from the last of the named events to the picture that stays: decoded, its
# address new, nothing being computed, and no other within `rest` milliseconds. Null if nothing new came.
WATCH = """
([events, rest, patience]) => {
  const panel = document.querySelector('.ckfr-panel');
  const old = panel.querySelector('img').src;
  let released = null, shown = null, src = old;
  const note = () => { released = performance.now(); };
  for (const name of events) document.addEventListener(name, note, true);
  window.latency = new Promise(resolve => {
    const look = setInterval(async () => {
      const image = panel.querySelector('img');
      if (image && image.src !== src) {
        src = image.src;
        const at = performance.now();
        await image.decode();
        shown = [at, performance.now()];
      }
      const now = performance.now();
      const quiet = shown !== null && released !== null && now - shown[1] > rest
        && !panel.querySelector('[role=status]').textContent.includes('computing');
      const late = released !== null && now - released > patience;
      if (quiet || late) {
        clearInterval(look);
        for (const name of events) document.removeEventListener(name, note, true);
        resolve(quiet && src !== old ? shown[1] - released : null);
      }
    }, 5);
  });
}
"""


def sliders(panel: OpenPanel) -> list[str]:
    """Labels of the panel's sliders, in order."""
    boxes = panel.root.locator(".widget-inline-hbox").filter(has=panel.page.locator(".noUi-handle"))
    return [
        (boxes.nth(i).locator(".widget-label").text_content() or "").strip() for i in range(boxes.count())
    ]


def timed(panel: OpenPanel, events: list[str], act) -> float | None:
    """Seconds from the last of the events that ``act`` causes to the newest picture; None if none came."""
    panel.page.evaluate(WATCH, [events, 300, 60_000])
    act()
    milliseconds = panel.page.evaluate("() => window.latency")
    return None if milliseconds is None else milliseconds / 1000


def measure(book: Path, moves: int) -> dict[str, Any]:
    """Latencies of one notebook's panel."""
    with open_panel(book) as panel:
        names = sliders(panel)
        rows: list[dict[str, Any]] = []
        visited = {_settings(panel, names)}
        for attempt in range(8 * moves):
            name, share = names[attempt % len(names)], (0.1 + attempt * GOLDEN) % 1
            before = _settings(panel, names)
            seconds = timed(panel, ["pointerup"], lambda name=name, share=share: panel.drag(name, share))
            settings = _settings(panel, names)
            if seconds is None or settings == before or settings in visited:
                continue  # the same step of the slider, or one that the panel may remember
            visited.add(settings)
            rows.append(
                {"moved": name, "settings": dict(zip(names, settings, strict=True)), "seconds": seconds}
            )
            if len(rows) == moves:
                break
        panel.drag(names[0], 0.99)
        time.sleep(3)
        panel.handle(names[0]).focus()
        burst = timed(panel, ["keydown"], lambda: [panel.page.keyboard.press(key) for key in BURST])
        inside = panel.evaluate("panel.error is None")
    seconds = [row["seconds"] for row in rows]
    target = TARGETS.get(book.name[:2])
    return {
        "notebook": book.stem,
        "median_seconds": statistics.median(seconds),
        "worst_seconds": max(seconds),
        "burst_of_five_seconds": burst,
        "target_seconds": target,
        "worst_within_target": None if target is None else max(seconds) < target,
        "no_error_in_the_panel": inside,
        "moves": rows,
    }


def _settings(panel: OpenPanel, names: list[str]) -> tuple[str, ...]:
    return tuple(panel.readout(name) for name in names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="numbers, e.g. 02 03; all that have a panel by default")
    parser.add_argument("--moves", type=int, default=8)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    books = books_with_panels()
    if arguments.notebooks:
        books = [book for book in books if book.name[:2] in arguments.notebooks]
    results = []
    for book in books:
        load = os.getloadavg()[0]
        found = measure(book, arguments.moves) | {"load_average_before": load}
        print(
            f"{found['notebook']}: median {found['median_seconds']:.2f} s, "
            f"worst {found['worst_seconds']:.2f} s "
            f"of {len(found['moves'])} moves (target {found['target_seconds']} s), load {load:.1f} before",
            flush=True,
        )
        results.append(found)
    with atomic_path(arguments.output) as temporary:
        temporary.write_text(json.dumps({"environment": environment(), "panels": results}, indent=2) + "\n")
    return 0 if all(found["worst_within_target"] is not False for found in results) else 1


if __name__ == "__main__":
    sys.exit(main())
