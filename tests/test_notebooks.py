"""Every committed notebook: equal to its source, executed, small, and readable."""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import colab  # noqa: E402

import notebooks as tool  # noqa: E402

BOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SETUP = (ROOT / "tools" / "setup_cell.txt").read_text().strip()


@pytest.fixture(params=BOOKS, ids=lambda p: p.stem)
def book(request):
    return nbformat.read(request.param, as_version=4)


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert len(BOOKS) >= 3


def test_sources_and_notebooks_agree():
    assert tool.check() == []


def test_a_changed_source_is_noticed(tmp_path, monkeypatch):
    """The comparison itself must be able to fail."""
    source = tmp_path / "01_x.py"
    source.write_text("# %% [markdown]\n# # Title\n\n# %%\n1 + 1\n")
    monkeypatch.setattr(tool, "SOURCES", tmp_path)
    monkeypatch.setattr(tool, "BOOKS", tmp_path)
    tool.build([], run=False)
    assert tool.check() == []
    source.write_text(source.read_text() + "\n# %%\n2 + 2\n")
    assert len(tool.check()) == 1


def test_executed_without_errors(book):
    outputs = [output for cell in code(book) for output in cell.outputs]
    assert outputs
    assert not [o for o in outputs if o.output_type == "error"]
    assert all(cell.execution_count for cell in code(book) if cell.source.strip())


def test_cells_are_short_and_introduced_by_prose(book):
    before = None
    for cell in book.cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 25, cell.source[:80]
            assert before == "markdown", f"no prose before: {cell.source[:80]}"
        before = cell.cell_type


def test_set_up_is_the_same_everywhere(book):
    first = code(book)[0]
    assert first.source.startswith(SETUP)
    assert sum("google.colab" in cell.source for cell in code(book)) == 1


def test_skeleton(book):
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    title = book.cells[0].source.splitlines()[0]
    assert re.match(r"# \d\d · ", title)
    assert len(re.findall(r"Your turn", text)) >= 3
    assert text.count("<details>") >= 3
    for heading in ("did not show", "References"):
        assert heading in text


def test_pictures_have_alt_text(book):
    for cell in code(book):
        for output in cell.outputs:
            for kind in {"image/png", "image/jpeg"} & set(output.get("data", {})):
                assert output.metadata.get(kind, {}).get("alt"), cell.source[:80]


def test_every_exercise_with_a_check_has_a_solution_that_fills_it(book):
    """`tools/notebooks.py solve` runs them; here only that each defines what its exercise left open."""
    _, solutions = tool.solved(book)
    open_names = set()
    for cell in code(book):
        for line in cell.source.splitlines():
            if found := re.match(r"([\w, ]+?)(?:: [^=]+)? = None(?:, None)*\b", line):
                open_names |= {name.strip() for name in found[1].split(",")}
            if "return None  # your code" in line:
                open_names.add(re.findall(r"^def (\w+)", cell.source, flags=re.MULTILINE)[-1])
    filled = set()
    for text in solutions:
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                filled.add(node.name)
            for target in getattr(node, "targets", []):
                filled |= {one.id for one in ast.walk(target) if isinstance(one, ast.Name)}
    assert len(solutions) >= 2
    assert open_names
    assert open_names <= filled


def test_no_widget_state_without_its_key(book):
    assert all("state" in part for part in book.metadata.get("widgets", {}).values())


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_small(path):
    assert path.stat().st_size <= 1_500_000


def test_colab_installs_only_what_is_missing_and_never_torch(monkeypatch):
    there = {"torch": "2.11.0+cu130", "numpy": "2.1.3", "nltk": "3.9.1", "timm": "0.9.0", "pooch": "1.9.0"}

    def version(name):
        if name not in there:
            raise colab.metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(colab.metadata, "version", version)
    wanted = colab.missing(["torch>=2.4", "torchvision>=0.19", "numpy>=1.26", "nltk>=3.9", "timm>=1.0.9",
                            "pooch>=1.8", "grad-cam>=1.5.7", "nbmake>=1.5"])  # fmt: skip
    assert wanted == ["timm>=1.0.9", "grad-cam>=1.5.7"]
