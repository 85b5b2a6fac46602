"""The ground floor: option checks, the code version, and pickles read without running them."""

import os
import pickle
import subprocess

import numpy as np
import pytest

from ckfr_helpers import runtime
from ckfr_helpers.runtime import CkfrError, check_number, code_version, load_plain_pickle

PLAIN = {
    "numbers": [1, -2.5, True, None, 10**30, np.float32(0.5), np.int64(3)],
    "text": ("ä", {"inner": ["x"]}, b"raw"),
    "image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "swapped": np.arange(4, dtype=">i4"),
    "names": np.array(["lion", "pan"]),
    "objects": np.array([{"a": 1}, [2, "x"]], dtype=object),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_plain_data_of_every_protocol_comes_back_equal(tmp_path, protocol):
    (tmp_path / "p").write_bytes(pickle.dumps(PLAIN, protocol=protocol))
    found = load_plain_pickle(tmp_path / "p", "a test")
    np.testing.assert_equal(found, PLAIN)
    assert found["image"].dtype == np.uint8
    found["image"][0] = 1  # writable, and of its own


class Calls:
    """Runs a function when an ordinary unpickler reads it."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", [lambda x: x, lambda x: {1: [x]}, lambda x: np.array([x, 1])])
def test_nothing_that_a_pickle_names_is_run(tmp_path, place):
    mark = tmp_path / "executed"
    (tmp_path / "p").write_bytes(pickle.dumps(place(Calls(os.system, f"touch {mark}"))))
    with pytest.raises(CkfrError, match=r"p is refused as a test: it wants to run posix.system"):
        load_plain_pickle(tmp_path / "p", "a test")
    assert not mark.exists()
    pickle.loads((tmp_path / "p").read_bytes())  # the payload is live
    assert mark.exists()


# An array of objects whose type claims to hold plain bytes, so that NumPy would take these for pointers.
FORGED = (
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\ntcnumpy\ndtype\n(S'O8'\nI0\nI1\ntR"
    b"(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x01\\x01\\x01\\x01\\x01\\x01\\x01\\x01'\ntb."
)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Calls(eval, "1")),
        pickle.dumps(np.array([(1, 2)], dtype=[("a", "i4"), ("b", "O")])),
        pickle.dumps(np.eye),
        FORGED,
        b"cnumpy\ndtype\n(N}S'code'\nI1\nstb.",  # patches a name for the whole process
        b"Ppersistent\n.",
        b"",
        b"<html>",
        pickle.dumps(PLAIN)[:-40],
        b"]" * 9 + b"a" * 8,
    ],
)
def test_anything_but_plain_data_is_one_sentence(tmp_path, content):
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(CkfrError, match=r"p is (refused as|not) a test"):
        load_plain_pickle(tmp_path / "p", "a test")


@pytest.mark.parametrize(
    ("value", "limits", "said"),
    [
        ("abc", {}, "x is 'abc'; expected a number of at least 0."),
        (True, {}, "True"),
        (float("nan"), {}, "nan"),
        (-0.1, {}, "-0.1"),
        (0, {"above": True}, "above 0"),
        (2, {"high": 2, "below": True}, "at least 0 and below 2"),
        (3, {"high": 2}, "and at most 2"),
        (1.5, {"whole": True}, "a whole number"),
    ],
)
def test_numbers_out_of_range_are_named(value, limits, said):
    with pytest.raises(CkfrError, match=said):
        check_number("x", value, 0, **limits)


def test_numbers_in_range_pass():
    for value, limits in [(0, {}), (2, {"high": 2}), (np.float32(1), {}), (np.int64(1), {"whole": True})]:
        check_number("x", value, 0, **limits)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of one commit in place of the real one."""
    (tmp_path / "ckfr_helpers").mkdir()
    (tmp_path / "ckfr_helpers" / "x.py").write_text("x = 1\n")
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(runtime, "repo_root", lambda: tmp_path)
    code_version.cache_clear()
    yield tmp_path
    code_version.cache_clear()


def test_the_code_version_names_commit_and_changes(checkout, monkeypatch):
    commit = subprocess.check_output(["git", "-C", str(checkout), "rev-parse", "HEAD"], text=True)
    (checkout / "notes.txt").write_text("a result beside the code changes nothing")
    version, found = code_version().split()
    assert version[0].isdigit()
    assert commit.startswith(found)
    (checkout / "ckfr_helpers" / "x.py").write_text("x = 2\n")
    code_version.cache_clear()
    assert code_version() == f"{version} {found}+changed"
    code_version.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert code_version() == f"{version} unknown"


def test_a_missing_pickle_is_named(tmp_path):
    with pytest.raises(runtime.CkfrError, match=r"no file .*truth\.pkl; expected a ground truth"):
        runtime.load_plain_pickle(tmp_path / "truth.pkl", "a ground truth")
