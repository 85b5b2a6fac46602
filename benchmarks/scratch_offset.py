"""Do collapsed networks give every picture the same latent? Asked of every run of the study from scratch.

    ckfr study studies/tiny_imagenet_scratch.yaml --root FOLDER_OR_ZIP
    python benchmarks/scratch_offset.py --root FOLDER_OR_ZIP

For each run's last epoch, over the validation pictures: the share of the latents' variance that all pictures
have in common (`arrangement.offset_share`; near 1 no loss on standardised latents can tell pictures apart),
and the top-1 accuracy. Writes benchmarks/results/scratch_offset.json.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from ckfr_helpers.losses.arrangement import offset_share
from ckfr_helpers.runtime import CkfrError, atomic_path, environment, runs_root
from ckfr_helpers.training.checkpoints import load_checkpoint
from ckfr_helpers.training.config import TrainConfig
from ckfr_helpers.training.evaluation import predict
from ckfr_helpers.training.run import make_model, open_split, split_loader

RESULT = Path(__file__).parent / "results" / "scratch_offset.json"


def look_into(folder: Path, root: str | None) -> dict[str, float]:
    """One run: its settings, and what its last epoch's latents share."""
    saved = load_checkpoint(folder / "last.pt")
    config = dataclasses.replace(TrainConfig.from_dict(saved["config"]), root=root, workers=0)
    source = open_split(config, "val", progress=False)
    model = make_model(config, len(source.classes))
    model.load_state_dict(saved["model"])
    seen = predict(model, split_loader(config, source, model))
    return {
        "alpha": config.alpha, "lr": config.lr, "seed": config.seed,
        "val_top1": round(float((seen.logits.argmax(1) == seen.labels).mean()), 4),
        "offset_share": round(offset_share(seen.latents.astype("float64")), 6),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", help="where the data set is, if not in data/")
    root = parser.parse_args().root
    study = runs_root() / "study_tiny_imagenet_scratch"
    # Finished runs alone: a grid that was changed half-way leaves others behind.
    names = sorted(path.stem for path in study.glob("runs/*.json"))
    if not names:
        raise CkfrError(
            f"There are no runs in {study}; `ckfr study studies/tiny_imagenet_scratch.yaml` makes them."
        )
    rows = [look_into(study / "whole" / name, root) for name in names]
    rows.sort(key=lambda row: (row["alpha"], row["lr"], row["seed"]))
    for row in rows:
        print(row)
    with atomic_path(RESULT) as path:
        path.write_text(json.dumps({"environment": environment(), "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
