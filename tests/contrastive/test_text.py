"""Each text is computed once and comes back in its place; what is not here is said; and MiniLM itself."""

import sys
from types import SimpleNamespace

import pytest
import torch

from ckfr_helpers.contrastive.text import TextEncoder, packaged_model
from ckfr_helpers.runtime import CkfrError


class Counting:
    """Stands in for the library's model: a text becomes its length and its first letter."""

    def __init__(self, folder, device, local_files_only):
        assert local_files_only
        self.asked = []

    def encode(self, texts, convert_to_tensor, show_progress_bar):
        self.asked += texts
        return torch.tensor([[len(text), ord(text[0])] for text in texts], dtype=torch.float64)


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Counting))
    (tmp_path / "modules.json").write_text("[]")
    return TextEncoder(tmp_path)


def test_each_distinct_text_is_computed_once(encoder):
    encoder._model.asked.clear()
    found = encoder(["lion", "pan", "lion"])
    assert found.tolist() == [[4, 108], [3, 112], [4, 108]]
    assert found.dtype == torch.float32
    assert encoder(["pan", "apple"]).tolist() == [[3, 112], [5, 97]]
    assert encoder._model.asked == ["lion", "pan", "apple"]
    assert encoder.width == 2


def test_texts_that_are_none_are_said(encoder):
    with pytest.raises(CkfrError, match="The texts are 'lion'; expected a list"):
        encoder("lion")
    with pytest.raises(CkfrError, match=r"The texts are \[\]"):
        encoder([])
    with pytest.raises(CkfrError, match="Text 1 is '  '; expected words"):
        encoder(["lion", "  "])


def test_what_is_not_here_is_said(tmp_path, monkeypatch):
    with pytest.raises(CkfrError, match="holds no sentence encoder"):
        TextEncoder(tmp_path)
    (tmp_path / "modules.json").write_text("[]")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(CkfrError, match=r"library sentence-transformers is not here .*ckfr-helpers\[text\]"):
        TextEncoder(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CkfrError, match=r"all-MiniLM-L6-v2 is not here; .*ckfr-helpers\[text\]"):
        packaged_model()


@pytest.mark.slow
def test_minilm_knows_what_is_like_what():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("all_minilm_l6_v2")
    encoder = TextEncoder()
    lion, tiger, pan = encoder(["a lion", "a tiger", "a frying pan"])
    assert encoder.width == 384
    assert float(lion.norm()) == pytest.approx(1, abs=1e-5)
    assert float(lion @ tiger) > float(lion @ pan) + 0.2
