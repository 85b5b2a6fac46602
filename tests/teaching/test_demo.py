"""`ckfr demo` on notebooks made here: order, tagged outputs only, one sentence when a notebook fails."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.teaching.demo import build_demo


def notebook(folder, name, *cells):
    nbformat.write(new_notebook(cells=list(cells)), folder / f"{name}.ipynb")


def test_page_holds_the_tagged_outputs_in_order(tmp_path):
    books, out = tmp_path / "books", tmp_path / "site"
    books.mkdir()
    tagged = new_code_cell("print(6 * 7, '<b>')", metadata={"tags": ["page"]})
    notebook(books, "02_second", new_markdown_cell("# Second & last\n\nWhy?"), tagged)
    table = new_code_cell(
        "from IPython.display import HTML; HTML('<table><tr><td>a table</td></tr></table>')",
        metadata={"tags": ["page"]},
    )
    notebook(
        books,
        "01_first",
        new_markdown_cell("# First\n\nWhy?"),
        new_code_cell("print('untagged words')"),
        table,
    )
    page = build_demo(out, books)
    text = page.read_text()
    assert (
        text.index("First")
        < text.index("a table")
        < text.index("Second &amp; last")
        < text.index("42 &lt;b&gt;")
    )
    assert "untagged words" not in text
    assert {p.name for p in out.iterdir()} >= {
        "01_first.ipynb",
        "01_first.html",
        "02_second.html",
        "index.html",
    }
    executed = nbformat.read(out / "01_first.ipynb", as_version=4)
    assert executed.cells[1].outputs[0].text == "untagged words\n"


def test_a_failing_notebook_is_named_in_one_sentence(tmp_path):
    notebook(tmp_path, "01_broken", new_code_cell("raise ValueError('no such lion')"))
    with pytest.raises(CkfrError, match=r"01_broken\.ipynb failed: ValueError: no such lion"):
        build_demo(tmp_path / "site", tmp_path)
    assert not (tmp_path / "site" / "index.html").exists()


def test_no_notebooks_is_said(tmp_path):
    with pytest.raises(CkfrError, match="No notebook"):
        build_demo(tmp_path / "site", tmp_path)


def test_a_log_gets_one_line_for_each_notebook_and_none_of_the_kernel_warnings(tmp_path, capfd):
    warning = new_code_cell("import os; os.write(2, b'Debugger warning')")
    notebook(tmp_path, "01_loud", new_markdown_cell("# Loud"), warning, new_code_cell("1 + 1"))
    build_demo(tmp_path / "site", tmp_path)
    printed = capfd.readouterr()
    assert re.fullmatch(r"01_loud: \d+ s\n", printed.out)
    assert "warning" not in printed.err
