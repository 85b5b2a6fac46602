"""Bring one Debian package's files, without root and without installing it.

Debian, Ubuntu and so Colab can all download a package with their own client, which knows the mirror and
checks every file against the signed index; ``dpkg-deb`` unpacks it into a folder of ours.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ckfr_helpers.runtime import CkfrError


def fetch_deb(package: str, target: Path) -> Path:
    """Download a Debian package and unpack it, as the current user.

    Args:
        package: its Debian name, e.g. ``"tuxpaint-stamps-default"``.
        target: a new folder; the package's paths start below it (``target/usr/share/...``).

    Returns:
        ``target``.

    Raises:
        CkfrError: where there is no Debian client, or it cannot bring the package, or the package is damaged.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise CkfrError(f"The Debian package {package} needs apt-get and dpkg-deb, which are not here.")
    client = target / "client"
    client.mkdir(parents=True)
    print(f"Downloading the Debian package {package} …", file=sys.stderr)
    deb = _download(package, client)
    done = _run(["dpkg-deb", "--extract", str(deb), str(target)], client)
    shutil.rmtree(client)
    if done.returncode:
        raise CkfrError(f"{deb.name} is damaged and cannot be unpacked ({_last_line(done.stderr)}).")
    return target


def _download(package: str, folder: Path) -> Path:
    """Ask the client for the package; first with the system's lists, then with fresh private ones."""
    # System lists may be absent (a container) or name a version that the mirror has replaced.
    trouble = ""
    for private in (False, True):
        client = _client(folder, private)
        if private:
            trouble = _run([*client, "update"], folder).stderr or trouble
        done = _run([*client, "download", package], folder)
        debs = list(folder.glob("*.deb"))
        if done.returncode == 0 and debs:
            return debs[0]
        trouble = done.stderr or trouble
        for half in debs:
            half.unlink()
    raise CkfrError(f"apt-get could not bring the package {package} ({_last_line(trouble)}).")


def _client(folder: Path, private_lists: bool) -> list[str]:
    """The ``apt-get`` command that writes only below ``folder``."""
    for name in ("cache/archives/partial", "state/lists/partial", "log"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    settings = {"Dir::Cache": folder / "cache", "Dir::Log": folder / "log", "APT::Sandbox::User": ""}
    settings |= {"Acquire::Retries": "1", "Acquire::http::Timeout": "15"}
    if private_lists:
        settings["Dir::State::Lists"] = folder / "state/lists"
    # System hooks would touch system folders, for which we have no rights.
    hooks = [f"#clear APT::Update::{hook};" for hook in ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")]
    config = folder / ("private.conf" if private_lists else "system.conf")
    config.write_text("\n".join([*(f'{key} "{value}";' for key, value in settings.items()), *hooks, ""]))
    return ["apt-get", "-q", "-c", str(config)]


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    language = {**os.environ, "LC_ALL": "C"}  # we read what it says
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=language)


def _last_line(text: str) -> str:
    """The last error of the client, or the last thing it said."""
    lines = [line for line in text.splitlines() if line.strip()] or ["it gave no reason"]
    errors = [line for line in lines if line.startswith("E:")]
    return (errors or lines)[-1].removeprefix("E:").strip().rstrip(".")
