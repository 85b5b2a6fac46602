"""Run every notebook and gather what it found on one page that needs nothing else to be read.

A cell tagged ``page`` sends its outputs to that page, in the order of the series.
"""

import html
import re
import time
from pathlib import Path
from typing import Any

from ckfr_helpers.runtime import CkfrError, atomic_path, repo_root

STYLE = """
:root { color-scheme: light; }
body { font: 17px/1.6 system-ui, sans-serif; color: #1d2733; background: #fff; margin: 0 auto; max-width: 62rem;
       padding: 2rem 1.25rem 6rem; }
h1 { line-height: 1.2; } h2 { margin-top: 3.5rem; border-top: 1px solid #d5dbe1; padding-top: 1.5rem; }
a { color: #00528f; } .question { font-size: 1.1em; color: #44525f; } .time { color: #5d6b78; font-size: .85em; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92em; }
th, td { padding: .35em .8em; border-bottom: 1px solid #e3e8ec; text-align: right; }
th:first-child, td:first-child { text-align: left; } pre { background: #f4f6f8; padding: .8em 1em; overflow-x: auto; }
"""


def build_demo(out: Path, notebooks: Path | None = None) -> Path:
    """Execute the notebooks in order and write ``out/index.html`` beside their executed copies.

    Args:
        out: folder for the page, one ``.ipynb`` and one ``.html`` a notebook.
        notebooks: folder of the notebooks; the checkout's by default.

    Returns:
        The page.

    Raises:
        CkfrError: if there are no notebooks, or one of them fails; the sentence says which and why.
    """
    import nbformat
    from nbconvert import HTMLExporter

    folder = notebooks or _own_notebooks()
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise CkfrError(f"No notebook in {folder}; expected files such as 01_hierarchy_distances.ipynb.")
    out.mkdir(parents=True, exist_ok=True)
    parts: list[str] = []
    for path in paths:
        print(f"{path.stem} …", end=" ", flush=True)
        start = time.perf_counter()
        book = _execute(path)
        seconds = time.perf_counter() - start
        print(f"{seconds:.0f} s", flush=True)
        _write(out / path.name, nbformat.writes(book))
        _write(out / f"{path.stem}.html", HTMLExporter().from_notebook_node(book)[0])
        parts.append(_section(path.stem, book, seconds))
    _write(out / "index.html", _page(parts))
    return out / "index.html"


def _own_notebooks() -> Path:
    root = repo_root()
    if root is None:
        raise CkfrError(
            "The notebooks are not part of the installed package; name their folder with --notebooks."
        )
    return root / "notebooks"


def _execute(path: Path) -> Any:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    book = nbformat.read(path, as_version=4)
    client = NotebookClient(
        book, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise CkfrError(f"{path.name} failed: {error.ename}: {error.evalue}") from error
    except (CellTimeoutError, DeadKernelError) as error:
        raise CkfrError(f"{path.name} failed: {error}") from error
    return book


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _section(stem: str, book: Any, seconds: float) -> str:
    title, question = _title(book)
    shown = [
        _output(output)
        for cell in book.cells
        if cell.cell_type == "code" and "page" in cell.metadata.get("tags", [])
        for output in cell.outputs
    ]
    return (
        f'<h2><a href="{stem}.html">{html.escape(title)}</a></h2>\n<p class="question">{html.escape(question)}</p>\n'
        + "\n".join(part for part in shown if part)
        + f'\n<p class="time">{stem}: {seconds:.0f} s on this machine</p>'
    )


def _title(book: Any) -> tuple[str, str]:
    """The first heading, and the first line of prose under it without its Markdown marks."""
    first = next((cell.source for cell in book.cells if cell.cell_type == "markdown"), "")
    lines = [line.strip() for line in first.splitlines() if line.strip()]
    title = next((line.lstrip("# ") for line in lines if line.startswith("#")), "Notebook")
    prose = next((line for line in lines if not line.startswith(("#", "[!", "<", "|"))), "")
    return title, re.sub(r"[*_`]", "", prose)


def _output(output: Any) -> str:
    data = output.get("data", {})
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            alt = html.escape(output.get("metadata", {}).get(kind, {}).get("alt", "figure"))
            return f'<figure><img alt="{alt}" src="data:{kind};base64,{data[kind].strip()}"></figure>'
    if "text/html" in data:
        return f'<div class="scroll">{data["text/html"]}</div>'
    if "text/markdown" in data:
        return f"<p>{html.escape(data['text/markdown'])}</p>"
    text = output.get("text") or data.get("text/plain", "")
    return f"<pre>{html.escape(text)}</pre>" if text else ""


def _page(parts: list[str]) -> str:
    heading = "A lion is closer to a tiger than to a frying pan"
    body = "\n".join(parts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{heading}</title><style>{STYLE}</style></head>
<body><h1>{heading}</h1>
<p>Categorical Knowledge Fused Recognition, notebook by notebook: what this machine has just computed. The notebooks'
quick settings made these figures; the tables of the five-seed studies are marked as such.</p>
{body}
</body></html>
"""
