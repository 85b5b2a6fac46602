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
    """Download a package and unpack it below a new folder ``target``, as ``target/usr/share/...``."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise CkfrError(f"The Debian package {package} needs apt-get and dpkg-deb, which are not here.")
    client = target / "client"
    for name in ("cache/archives/partial", "state/lists/partial", "log"):
        (client / name).mkdir(parents=True)
    # Lists of our own: the system's may be absent (a container), or name a version that the mirror replaced.
    settings = {"Dir::Cache": client / "cache", "Dir::Log": client / "log", "APT::Sandbox::User": ""}
    settings |= {"Dir::State::Lists": client / "state/lists"}
    settings |= {"Acquire::Retries": "1", "Acquire::http::Timeout": "15"}
    # System hooks would touch system folders, for which we have no rights.
    hooks = [f"#clear APT::Update::{hook};" for hook in ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")]
    config = [*(f'{key} "{value}";' for key, value in settings.items()), *hooks, ""]
    (client / "apt.conf").write_text("\n".join(config))
    print(f"Downloading the Debian package {package} …", file=sys.stderr)
    apt = ["apt-get", "-q", "-c", str(client / "apt.conf")]
    updated = _run([*apt, "update"], client)
    done = _run([*apt, "download", package], client)
    deb = next(client.glob("*.deb"), None)
    if done.returncode or deb is None:
        trouble = _last_error(updated.stderr if updated.returncode else done.stderr)
        raise CkfrError(f"apt-get could not bring the package {package} ({trouble}).")
    done = _run(["dpkg-deb", "--extract", str(deb), str(target)], client)
    shutil.rmtree(client)
    if done.returncode:
        raise CkfrError(f"{deb.name} is damaged and cannot be unpacked ({_last_error(done.stderr)}).")
    return target


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    language = {**os.environ, "LC_ALL": "C"}  # we read what it says
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=language)


def _last_error(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()] or ["it gave no reason"]
    errors = [line for line in lines if line.startswith("E:")]
    return (errors or lines)[-1].removeprefix("E:").strip().rstrip(".")
