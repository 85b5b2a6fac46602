"""Sources and downloads by name."""

import pytest

from ckfr_helpers import datasets
from ckfr_helpers.runtime import CkfrError


def test_the_names_of_sources_and_of_what_can_be_fetched():
    fetched = (
        "photos",
        "mini-imagenet",
        "tiny-imagenet",
        "cifar10",
        "cifar100",
        "voc2007",
        "coco",
        "imagenet",
    )
    assert set(datasets.names()) >= {*fetched, "folder"}  # and what other tests registered
    assert set(datasets.fetchable()) == {*fetched, "wordnet", "photo-lines"}


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(CkfrError, match="no image source 'imagent'; expected one of photos, mini-imagenet"):
        datasets.open_source("imagent", "train")
    with pytest.raises(CkfrError, match="no image source 'wordnet'"):
        datasets.open_source("wordnet", "train")
    with pytest.raises(CkfrError, match=r"no data set 'x' to fetch; expected one of .*wordnet"):
        datasets.fetch("x", root=tmp_path)


@pytest.mark.parametrize("name", ["mini-imagenet", "tiny-imagenet", "cifar10", "cifar100", "voc2007", "coco"])
def test_a_missing_folder_says_what_was_expected_where(name, tmp_path):
    with pytest.raises(CkfrError, match="is not here: expected ") as caught:
        datasets.open_source(name, "train", root=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert f"`ckfr fetch {name}` brings it" in str(caught.value)
    with pytest.raises(CkfrError, match="no split 'dev'; expected one of train, val, test"):
        datasets.open_source(name, "dev", root=tmp_path)
