"""Make the committed notebooks from their text sources.

    python tools/notebooks.py build [NAME ...]            # text -> notebook; unchanged cells keep outputs
    python tools/notebooks.py build --execute [NAME ...]  # … and run them
    python tools/notebooks.py check                       # do the notebooks say what their sources say?
    python tools/notebooks.py solve [NAME ...]            # run them with every folded solution put in

People edit and review notebooks/src/NN_name.py; readers open notebooks/NN_name.ipynb.
"""

import argparse
import hashlib
import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from ckfr_helpers.teaching.demo import run_notebook

ROOT = Path(__file__).resolve().parents[1]
BOOKS = ROOT / "notebooks"
SOURCES = BOOKS / "src"
TIMEOUT = 1800  # seconds a cell


def from_source(source: Path) -> NotebookNode:
    """The notebook that a text source describes, without outputs; the same text gives the same bytes."""
    book = jupytext.read(source)
    for place, cell in enumerate(book.cells):
        # jupytext draws random ids; these change only when the cell or its place does.
        cell["id"] = hashlib.sha256(f"{place}{cell.cell_type}{cell.source}".encode()).hexdigest()[:12]
    book.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return book


def said(book: NotebookNode) -> list[tuple[str, str, tuple[str, ...]]]:
    """What a notebook says apart from outputs: type, text and tags of every cell."""
    return [(c.cell_type, c.source, tuple(c.metadata.get("tags", []))) for c in book.cells]


def execute(book: NotebookNode, path: Path) -> None:
    """Run all cells in the notebooks' folder and keep no trace of when or where."""
    run_notebook(book, path, TIMEOUT)
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [kept for kept in map(tidy, cell.outputs) if kept is not None]
    # A code host's page cannot run widgets, and refuses a notebook whose widget state lacks its 'state' key.
    book.metadata.pop("widgets", None)


def tidy(output: NotebookNode) -> NotebookNode | None:
    """An output without what only a live kernel can show: widget views and progress bars."""
    if output.output_type == "stream" and output.name == "stderr":
        return None
    data = output.get("data", {})
    if {"application/vnd.jupyter.widget-view+json", "application/javascript"} & set(data):
        return None
    return output


def keep_outputs(book: NotebookNode, path: Path) -> None:
    """Give cells whose text did not change the outputs they had."""
    if not path.is_file():
        return
    old = {c.source: c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"}
    for cell in book.cells:
        if cell.cell_type == "code" and cell.source in old:
            cell.outputs = old[cell.source].outputs
            cell.execution_count = old[cell.source].execution_count


def build(names: list[str], run: bool) -> None:
    """Write the named notebooks, or all."""
    for source in sorted(SOURCES.glob("*.py")):
        if names and not any(source.stem.startswith(name) for name in names):
            continue
        book, path = from_source(source), BOOKS / f"{source.stem}.ipynb"
        start = time.perf_counter()
        if run:
            execute(book, path)
        else:
            keep_outputs(book, path)
        nbformat.validate(book)
        path.write_text(nbformat.writes(book) + "\n", encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} KB, {time.perf_counter() - start:.0f} s")


def check() -> list[str]:
    """One sentence for each notebook that does not match its source."""
    faults = []
    stems = {p.stem for p in SOURCES.glob("*.py")} | {p.stem for p in BOOKS.glob("*.ipynb")}
    for stem in sorted(stems):
        source, path = SOURCES / f"{stem}.py", BOOKS / f"{stem}.ipynb"
        if not source.is_file() or not path.is_file():
            faults.append(f"{stem} has no {'source' if path.is_file() else 'notebook'}.")
        elif said(from_source(source)) != said(nbformat.read(path, as_version=4)):
            faults.append(f"{stem}.ipynb differs from its source; run `make notebooks`.")
    return faults


def solved(book: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """A copy in which each folded solution runs just before the cell that checks it, and the solutions."""
    cells: list[NotebookNode] = []
    solutions = []
    for cell in book.cells:
        cells.append(cell)
        if cell.cell_type != "markdown":
            continue
        for text in re.findall(r"<details>.*?</details>", cell.source, flags=re.DOTALL):
            code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
            if code:
                check = max(i for i, one in enumerate(cells) if one.cell_type == "code")
                cells.insert(check, nbformat.v4.new_code_cell(code))
                solutions.append(code)
    copy = nbformat.from_dict({**book, "cells": cells})
    return copy, solutions


def solve(names: list[str]) -> list[str]:
    """Run the named notebooks, or all, with their solutions; one sentence for each exercise left open."""
    faults = []
    for source in sorted(SOURCES.glob("*.py")):
        if names and not any(source.stem.startswith(name) for name in names):
            continue
        book, solutions = solved(from_source(source))
        execute(book, BOOKS / f"{source.stem}.ipynb")
        said = [o.get("text", "") for cell in book.cells if cell.cell_type == "code" for o in cell.outputs]
        waiting = [line for text in said for line in text.splitlines() if "waits for you" in line]
        print(f"{source.stem}: {len(solutions)} solutions pass their checks")
        faults += [f"{source.stem}: {line}" for line in waiting]
    return faults


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("build", help="write notebooks from their sources")
    making.add_argument("names", nargs="*", help="e.g. 02; all by default")
    making.add_argument("--execute", action="store_true", help="run them too")
    commands.add_parser("check", help="compare notebooks with their sources")
    solving = commands.add_parser("solve", help="run notebooks with their folded solutions")
    solving.add_argument("names", nargs="*", help="e.g. 02; all by default")
    arguments = parser.parse_args()
    if arguments.command == "build":
        build(arguments.names, arguments.execute)
        return 0
    faults = check() if arguments.command == "check" else solve(arguments.names)
    print(
        "\n".join(faults) or ("Notebooks and sources agree." if arguments.command == "check" else "Solved.")
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
