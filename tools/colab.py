"""Install what a hosted notebook lacks, and only that: never torch, torchvision or NumPy.

Replacing a host's torch takes minutes, breaks what was built against it, and is the most common complaint of
notebook readers. So a package that is there, in a version we can work with, stays; the rest is installed
without letting pip touch the three.
"""

import importlib.metadata as metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOSTS_OWN = ("torch", "torchvision", "numpy")
# Needed to make and test the notebooks, not to run them where a notebook server already runs.
NOT_THERE = ("jupyterlab", "nbmake", "ipywidgets")


def numbers(version: str) -> tuple[int, ...]:
    """``"2.11.0+cpu"`` -> (2, 11, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0]))


def missing(requirements: list[str]) -> list[str]:
    """Those requirements (``name>=floor``) that this Python does not meet and that are ours to install."""
    wanted = []
    for requirement in requirements:
        name, _, floor = requirement.partition(">=")
        if name in HOSTS_OWN or name in NOT_THERE:
            continue
        try:
            if numbers(metadata.version(name)) >= numbers(floor):
                continue
        except metadata.PackageNotFoundError:
            pass
        wanted.append(requirement)
    return wanted


def main() -> None:
    """Install the missing packages, holding the host's own at the versions they have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = missing(project["dependencies"])
    if wanted:
        held = [f"{name}=={metadata.version(name)}" for name in HOSTS_OWN]
        print("Installing", ", ".join(wanted))
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted, *held], check=True)


if __name__ == "__main__":
    main()
