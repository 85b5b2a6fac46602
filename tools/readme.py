"""Write what the README shows of the results, from the committed result files and notebook 03.

python tools/readme.py            # the tables, between their marks
python tools/readme.py --picture  # and the pictures in docs/; wants a Chromium for the panel
"""

import argparse
import base64
import json
import re
from pathlib import Path

from ckfr_helpers import metrics
from ckfr_helpers.losses.rivals import BASELINE
from ckfr_helpers.retrieval.rivals import METHODS
from ckfr_helpers.runtime import load_result
from ckfr_helpers.teaching.plots.names import NAMES, dataset_title, method_title, score_title
from ckfr_helpers.teaching.plots.retrieval_study import PROTOCOLS
from ckfr_helpers.teaching.plots.retrieval_study import differences as retrieval_differences
from ckfr_helpers.teaching.plots.retrieval_study import title as retrieval_title
from ckfr_helpers.teaching.plots.study import differences
from ckfr_helpers.teaching.plots.style import png, use_style
from ckfr_helpers.training.results import CRM, Results, chance_sentence, parse, read_results

ROOT = Path(__file__).resolve().parents[1]
STUDIES = (
    "study_photos_grid",
    "study_cifar10_grid",
    "study_tiny_imagenet_100",
    "study_tiny_imagenet_scratch",
)
LOOKS = ("study_look_photos", "study_look_tiny_imagenet")
LOOK_SCORES = ("top1", "energy", "pointing", "max_box_acc_v2", "gt_known", "gt_known_fixed", "drop")


def looking() -> str:
    """Markdown: where both networks look, with differences paired on seeds."""
    lines = ["| test split | score | baseline | CKFR | CKFR − baseline |", "|---|---|---|---|---|"]
    told: list[metrics.Interval | None] = []
    for one in (read_results(name) for name in LOOKS):
        for label in one.datasets:
            where = f"{dataset_title(one, label)}, alpha {parse(one.chosen[label, 'ckfr'])['alpha']:g}"
            for score in LOOK_SCORES:
                if one.mean(label, "ckfr", score) is None:
                    continue
                cells = [f"{one.mean(label, method, score):.3f}" for method in (BASELINE, "ckfr")]
                told.append(one.difference(label, "ckfr", score))
                cells.append(_bold(told[-1]))
                lines.append("| " + " | ".join([where, score_title(score), *cells]) + " |")
                where = ""
    return "\n".join([*lines, "", _fair(told, [read_results(name) for name in LOOKS])])


def results() -> str:
    """Markdown: every loss of the grids against cross-entropy, each at the settings validation chose."""
    studies = [read_results(name) for name in STUDIES]
    heads = [*NAMES.values(), "distance@1 against CRM"]
    lines = ["| test split | loss | " + " | ".join(heads) + " |", "|---" * (len(heads) + 2) + "|"]
    told: list[metrics.Interval | None] = []
    for one in studies:
        for label in one.datasets:
            where = dataset_title(one, label)
            for method in one.methods(label):
                plain = method == BASELINE
                found = [None if plain else one.difference(label, method, score) for score in NAMES]
                found.append(
                    None if method in (BASELINE, CRM) else one.difference(label, method, "hdist@1", CRM)
                )
                told += found
                cells = [_bold(difference) for difference in found]
                if plain:
                    cells = [*(f"{one.mean(label, method, score):.3f}" for score in NAMES), ""]
                title = method_title(method, one.chosen.get((label, method), ""))
                lines.append("| " + " | ".join([where, title, *cells]) + " |")
                where = ""
    return "\n".join([*lines, "", _fair(told, studies)])


def finding() -> str:
    """Markdown: notebook 05's ways of ranking, each at the settings validation chose, against GeM."""
    one = read_results("study_retrieval")
    label = one.datasets[0]
    heads = [*(f"mAP {name}" for name in PROTOCOLS.values()), "medium − GeM, over seeds", "over photographs"]
    lines = ["| what is pooled, and where | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    told: list[metrics.Interval | None] = []
    for method in METHODS:
        cells = [f"{one.mean(label, method, score):.3f}" for score in PROTOCOLS]
        found = [None, None] if method == "gem" else [*retrieval_differences(one, method)]
        told += found
        lines.append("| " + " | ".join([retrieval_title(method), *cells, *map(_bold, found)]) + " |")
    return "\n".join([*lines, "", _fair(told, [])])


def _fair(told: list[metrics.Interval | None], studies: list[Results]) -> str:
    """How many bold cells chance alone would give, and which choices lie at the edge of what was tried."""
    edges = [
        f"{method_title(row.method)}, {row.parameter} {row.value:g} ({dataset_title(one, row.dataset)})"
        for one in studies
        for row in one.at_the_edge().itertuples()
    ]
    at_edge = f" Chosen at the edge of what was tried: {'; '.join(edges)}." if edges else ""
    return f"Bold: the interval excludes zero. {chance_sentence(told)}{at_edge}"


def _bold(difference: metrics.Interval | None) -> str:
    if difference is None:
        return ""
    return f"**{difference:+.3f}**" if difference.excludes_zero else f"{difference:+.3f}"


def speeds() -> str:
    """Markdown: each benchmark's ratio, from its result file."""
    loss, step = load_result("loss_speed"), load_result("step_speed_cpu")["steps"][0]
    large, matrix = loss["large_batch"], load_result("hierarchy_distances")
    lines = ["| what | against | ratio |", "|---|---|---|"]
    for row in loss["against_broadcasting"]:
        what = f"exact loss and gradient, all {row['triplets']:,} triplets of a batch of {row['batch']}"
        against = "the definition by broadcasting over (B, B, B), one thread, memory warm"
        lines.append(f"| {what} | {against} | {row['times_faster']:.0f} × |")
    lines.append(
        f"| exact loss and gradient at B = {large['batch']} ({large['triplets']:.1e} triplets) | – | "
        f"peak {large['peak_resident_gb']:.1f} GB for the whole process |"
    )
    what = f"anchors a second in training, {step['model']}, batch {step['batch']}"
    lines.append(f"| {what} | three encodings an anchor | {step['times_the_anchors_per_second']:.1f} × |")
    forms = load_result("loader_speed")["forms"]
    train, test = forms["training pipeline"], forms["evaluation pipeline"]
    for what, against, ratio in (
        (
            "anchors a second through the training pipeline, `--cache`",
            "the original's loader",
            train["cache_over_original"],
        ),
        (
            "pictures a second through the training pipeline, `--cache`",
            "JPEG files",
            train["cache_over_files"],
        ),
        (
            "pictures a second through the evaluation pipeline, `--cache`",
            "JPEG files",
            test["cache_over_files"],
        ),
    ):
        lines.append(f"| {what} | {against} | {ratio:.1f} × |")
    for row in load_result("pooling_speed")["rows"]:
        for part in ("maps", "pooling"):
            what = f"{part} of 64 classes, {row['pictures, channels'][1]} channels, 14 × 14 places"
            ratio = row[f"{part}_times_faster"]
            lines.append(f"| {what} | loops over pictures, classes and channels | {ratio:.0f} × |")
    found = load_result("search_speed")
    near, top = found["approximate"], found["top_k"]
    lines.append(
        f"| exact search, first {found['settings']['k']} of {top['rows']:,} descriptors | "
        f"full argsort | {top['times_faster_than_argsort']:.1f} × |"
    )
    what = f"approximate search among {near['rows']:,} ({near['index_mb']:.0f} MB)"
    lines.append(
        f"| {what}, recall@100 {near['recall_at_100']:.3f} | exact search | "
        f"{near['times_faster_than_exact']:.1f} × |"
    )
    for row in matrix["rows"]:
        lines.append(f"| {row['what']} | {row['against']} | {row['times_faster']:,.0f} × |")
    return "\n".join(lines)


def between_marks(text: str, name: str, content: str) -> str:
    """``text`` with what stands between the marks of ``name`` replaced."""
    start, end = f"<!-- {name}: written by tools/readme.py -->", f"<!-- end of {name} -->"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"README.md lacks the marks {start} and {end}.")
    return pattern.sub(lambda _: f"{start}\n{content}\n{end}", text)


def up_to_date(text: str) -> str:
    """The README's text with its tables as the result files have them now."""
    for name, content in (
        ("results", results()),
        ("looking", looking()),
        ("finding", finding()),
        ("speed", speeds()),
    ):
        text = between_marks(text, name, content)
    return text


def picture() -> None:
    """docs/results.png of the studies; docs/overview.png, notebook 03's distances in the tree and learned."""
    book = json.loads((ROOT / "notebooks" / "03_train_mini_imagenet.ipynb").read_text())
    (ROOT / "docs").mkdir(exist_ok=True)
    use_style()
    figure = differences([read_results(name) for name in STUDIES])
    (ROOT / "docs" / "results.png").write_bytes(png(figure, dpi=110, colours=64))
    for cell in book["cells"]:
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            if alt.startswith("Distances between classes in tree order"):
                (ROOT / "docs" / "overview.png").write_bytes(base64.b64decode(output["data"]["image/png"]))
                return
    raise SystemExit(
        "Notebook 03 holds no figure of the distances between classes; run `make notebooks` first."
    )


def panel_picture() -> None:
    """docs/panel_arrangement.png: notebook 02's panel in a real JupyterLab, alpha moved one step down."""
    import lab_panel  # beside this file; wants a Chromium

    with lab_panel.open_panel(ROOT / "notebooks" / "02_aligned_triplet_loss.ipynb", 1400) as panel:
        before = panel.picture
        panel.handle("alpha").focus()
        panel.page.keyboard.press("ArrowLeft")
        while panel.picture == before:
            panel.page.wait_for_timeout(200)
        panel.evaluate("panel.wait()")
        panel.root.screenshot(path=ROOT / "docs" / "panel_arrangement.png")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--picture", action="store_true", help="make the pictures in docs/ too")
    if parser.parse_args().picture:
        picture()
        panel_picture()
    path = ROOT / "README.md"
    path.write_text(up_to_date(path.read_text()))


if __name__ == "__main__":
    main()
