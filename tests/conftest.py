"""For every room: runs land in a temporary folder, and the painted source is known by its name."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from flat_colours import FlatColours

from ckfr_helpers import datasets
from ckfr_helpers.runtime import data_root

datasets.register(FlatColours.name, FlatColours)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not (data_root() / "photos").is_dir():
        for item in items:
            if item.get_closest_marker("photos"):
                item.add_marker(pytest.mark.skip(reason="the photographs are not here: `ckfr fetch photos`"))
    # Files that take long go first, so that both workers of `make test` are busy until the end.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _runs_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test leaves a run among the user's, or waits a second before a download's second attempt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
        patch.setenv("CKFR_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield
