"""Run every notebook and gather the outputs of the cells tagged ``page`` on one page: `ckfr demo`."""

import contextlib
import html
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ckfr_helpers.runtime import CkfrError, atomic_path, repo_root

HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>A lion is closer to a tiger than to a frying pan</title><style>
body { font: 17px/1.6 system-ui, sans-serif; color: #1d2733; margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem; }
h2 { margin-top: 3.5rem; border-top: 1px solid #d5dbe1; padding-top: 1.5rem; } a { color: #00528f; }
img { max-width: 100%; height: auto; } div { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .35em .8em; border-bottom: 1px solid #e3e8ec; text-align: right; } pre { overflow-x: auto; }
</style><h1>A lion is closer to a tiger than to a frying pan</h1>
<p>Categorical Knowledge Fused Recognition, notebook by notebook: what this machine has just computed, with the
notebooks' quick settings. Tables of five-seed studies say so.</p>"""


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

    root = repo_root()
    if notebooks is None and root is None:
        raise CkfrError("The notebooks are not in the installed package; name their folder with --notebooks.")
    folder = notebooks or Path(root or "", "notebooks")
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise CkfrError(f"No notebook in {folder}; expected files such as 01_hierarchy_distances.ipynb.")
    out.mkdir(parents=True, exist_ok=True)
    pages = {"index": [HEAD]}
    for path in paths:
        book = nbformat.read(path, as_version=4)
        run_notebook(book, path)
        with atomic_path(out / path.name) as temporary:
            nbformat.write(book, temporary)
        pages[path.stem] = [HTMLExporter().from_notebook_node(book)[0]]
        pages["index"].append(_section(path.stem, book))
    for name, parts in pages.items():
        with atomic_path(out / f"{name}.html") as temporary:
            temporary.write_text("\n".join(parts), encoding="utf-8")
    return out / "index.html"


def run_notebook(book: Any, path: Path, timeout: int = 1800) -> None:
    """Run all cells: a progress bar in a terminal, one line at the end in a log.

    Args:
        book: the notebook, from nbformat; its outputs are replaced.
        path: its file, which need not exist; the notebook runs in that folder.
        timeout: seconds a cell may take.

    Raises:
        CkfrError: if a cell fails, takes too long, or ends the kernel.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    cells = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in book.cells)
    # A kernel warns on its standard error of things no reader can act on; it is read when a kernel dies.
    with tempfile.TemporaryFile("w+") as log, _progress(path.stem, cells) as bar:
        client = NotebookClient(
            book, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}},
            on_cell_executed=lambda **_: bar.update(),
        )  # fmt: skip
        try:
            client.execute(stderr=log)
        except CellExecutionError as error:
            raise CkfrError(f"{path.name} failed: {error.ename}: {error.evalue}") from error
        except (CellTimeoutError, DeadKernelError) as error:
            log.seek(0)
            raise CkfrError(f"{path.name} failed: {error}\n{log.read()[-2000:]}".strip()) from error


@contextlib.contextmanager
def _progress(name: str, cells: int) -> Iterator[tqdm]:
    terminal, ended = sys.stdout.isatty(), threading.Event()
    shape = "{desc:30}{bar:24}{n_fmt:>4} of {total_fmt} cells  {elapsed}"
    bar = tqdm(total=cells, desc=name, bar_format=shape, file=sys.stdout, delay=0 if terminal else 1e9)

    def tick() -> None:  # the clock runs on during long cells
        while terminal and not ended.wait(1):
            bar.refresh()

    clock = threading.Thread(target=tick)
    clock.start()
    try:
        yield bar
    finally:
        ended.set()
        clock.join()
        bar.close()
    if not terminal:
        print(f"{name}: {cells} cells, {bar.format_dict['elapsed']:.0f} s", flush=True)


def _section(stem: str, book: Any) -> str:
    title = book.cells[0].source.split("\n")[0].lstrip("# ") or stem
    tagged = [cell for cell in book.cells if "page" in cell.metadata.get("tags", [])]
    shown = [_output(output) for cell in tagged for output in cell.get("outputs", [])]
    return "\n".join([f'<h2><a href="{stem}.html">{html.escape(title)}</a></h2>', *shown])


def _output(output: Any) -> str:
    data = output.get("data", {})
    for kind in {"image/png", "image/jpeg"} & set(data):
        alt = html.escape(output.get("metadata", {}).get(kind, {}).get("alt", "figure"))
        return f'<img alt="{alt}" src="data:{kind};base64,{data[kind].strip()}">'
    plain = html.escape(output.get("text") or data.get("text/plain", ""))
    return f"<div>{data.get('text/html') or f'<pre>{plain}</pre>'}</div>"
