"""A Debian package through a stand-in for apt-get and the machine's own dpkg-deb."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from ckfr_helpers.datasets.fetching.debian import fetch_deb
from ckfr_helpers.runtime import CkfrError

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="there is no dpkg-deb here")


@pytest.fixture
def deb(tmp_path) -> Path:
    """A package with one file, as dpkg itself makes it."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    )
    (tree / "usr" / "share").mkdir(parents=True)
    (tree / "usr" / "share" / "one.txt").write_text("one")
    subprocess.run(["dpkg-deb", "--build", str(tree), str(tmp_path / "tiny.deb")], check=True)
    return tmp_path / "tiny.deb"


def stand_in(monkeypatch, folder: Path, script: str) -> None:
    """An ``apt-get`` that is called as ``-q -c SETTINGS COMMAND …``: $3 and $4 are the last two."""
    folder.mkdir()
    (folder / "apt-get").write_text("#!/bin/sh\n" + script)
    (folder / "apt-get").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@needs_dpkg
def test_a_package_is_brought_by_lists_of_its_own_and_unpacked(deb, tmp_path, monkeypatch):
    stand_in(
        monkeypatch,
        tmp_path / "bin",
        f"""
        grep -q "Dir::State::Lists" "$3" || exit 9
        case "$4" in
          update) touch updated;;
          download) [ -f updated ] && cp {deb} . ;;
        esac
        """,
    )
    target = fetch_deb("tiny", tmp_path / "out")
    found = [str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()]
    assert found == ["usr/share/one.txt"]


@needs_dpkg
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('echo "E: Unable to locate package x" >&2; exit 100', r"package x \(Unable to locate package x\)"),
        ('[ "$4" = download ] && echo "not a package" > x.deb; exit 0', "x.deb is damaged"),
    ],
)
def test_what_the_client_says_is_passed_on(tmp_path, monkeypatch, script, message):
    stand_in(monkeypatch, tmp_path / "bin", script)
    with pytest.raises(CkfrError, match=message):
        fetch_deb("x", tmp_path / "out")


def test_a_machine_without_the_client_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CkfrError, match="x needs apt-get and dpkg-deb, which are not here"):
        fetch_deb("x", tmp_path / "out")
