"""Fixtures that every room uses: runs that land in a temporary folder, and the painted source by its name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flat_colours import FlatColours

from ckfr_helpers import datasets
from ckfr_helpers.datasets.scenes import backgrounds

datasets.register(FlatColours.name, FlatColours)


@pytest.fixture(scope="session", autouse=True)
def _runs_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test leaves a run among the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CKFR_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty ``data_root()`` for a test that fetches, caches or paints."""
    folder = tmp_path / "data"
    monkeypatch.setenv("CKFR_DATA", str(folder))
    backgrounds.places.cache_clear()
    yield folder
    backgrounds.places.cache_clear()
