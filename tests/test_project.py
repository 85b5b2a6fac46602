"""The project's own promises: one list of dependencies, imports that point down, a clean tree."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
URL = PROJECT["project"]["urls"]["Repository"]

# Ground floor first: a room may import from any room before it, never from one after it.
FLOORS = [
    ("runtime",),
    ("wordnet",),
    ("pseudo_distances", "tree_checks"),
    ("hierarchy",),
    ("losses",),
    ("baselines",),
    ("metrics", "statistics"),
    ("localization", "attention"),
    ("backbones",),
    ("models",),
    ("cam",),
    ("datasets",),
    ("training",),
    ("looking", "sanity"),
    ("look_lesson",),
    ("arrangement",),
    ("plots",),
    ("sliders",),
    ("demo",),
    ("__main__",),
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "ckfr_helpers").parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively; rooms are named in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("ckfr_helpers.")}
    return {name for name in found if name in FLOOR}


MODULES = sorted(
    p for p in (ROOT / "ckfr_helpers").rglob("*.py") if p != ROOT / "ckfr_helpers" / "__init__.py"
)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_point_down(path):
    here = room_of(path)
    assert here in FLOOR, f"{here} stands on no floor: give it one in FLOORS and in ckfr_helpers/__init__.py"
    above = {room for room in imported_rooms(path) if room != here and FLOOR[room] > FLOOR[here]}
    assert not above, f"{path.name} imports from above: {sorted(above)}"


def test_environment_file_lists_the_same_dependencies():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == [*PROJECT["project"]["dependencies"], "-e ."]
    assert f"python{PROJECT['project']['requires-python']}" in environment["dependencies"]


def test_one_repository_address_everywhere():
    """pyproject.toml names the repository; whatever else names one on that host's own path must agree."""
    owner = URL.removeprefix("https://github.com/")
    assert f"repository-code: {URL}" in (ROOT / "CITATION.cff").read_text()
    texts = [ROOT / "README.md", *sorted((ROOT / "notebooks").rglob("*.py"))]
    for path in texts:
        for found in re.findall(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/", path.read_text()):
            assert found == owner, f"{path.name} points Colab at {found}"


def tracked() -> list[Path]:
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_file_is_heavy_and_no_dataset_or_weight_is_committed():
    for path in tracked():
        limit = 4_000_000 if path.name == "wordnet.tsv" else 400_000
        assert path.stat().st_size < limit, f"{path.name} has {path.stat().st_size} bytes"
        assert path.suffix not in {".pth", ".pt", ".deb", ".zip", ".jpg", ".jpeg", ".npy"}, path.name


def test_no_path_of_one_machine_is_committed():
    homes = re.compile(r"(?<![\w./~-])/(?:home|Users|root|work)/\w")
    for path in tracked():
        if path.suffix in {".py", ".md", ".toml", ".yml", ".yaml", ".ipynb", ".json", ".csv", ".cff", ""}:
            found = homes.search(path.read_text(errors="ignore"))
            assert not found, f"{path.name}: {found.group()}"


def test_package_is_importable_without_torch():
    """`import ckfr_helpers.hierarchy` must not pay for torch: it is the ground floor."""
    import sys

    code = "import ckfr_helpers.hierarchy, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_readme_shows_the_committed_results():
    """Every number in the README's tables is a result file's; `python tools/readme.py` writes them."""
    import sys

    sys.path.insert(0, str(ROOT / "tools"))
    import readme

    text = (ROOT / "README.md").read_text()
    assert readme.up_to_date(text) == text
