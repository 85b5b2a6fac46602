"""Run every notebook and gather the outputs of the cells tagged ``page`` on one page: `ckfr demo`."""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter

from ckfr_helpers.runtime import CkfrError, repo_root

AT_A_TIME = 2  # notebooks; each has a kernel with some two gigabytes
TITLE = "A lion is closer to a tiger than to a frying pan"
HEAD = f"""# {TITLE}

Categorical Knowledge Fused Recognition, notebook by notebook: what this machine has just computed, with the
notebooks' quick settings. Tables of five-seed studies say so."""


def build_demo(out: Path, notebooks: Path | None = None) -> Path:
    """Execute the notebooks (the checkout's by default) and write ``out/index.html`` beside their copies.

    Raises:
        CkfrError: if there are no notebooks, or one of them fails; the sentence says which and why.
    """
    folder = notebooks or Path(repo_root() or "", "notebooks")
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise CkfrError(f"No notebook in {folder}; name the folder of 01_hierarchy_distances.ipynb.")
    out.mkdir(parents=True, exist_ok=True)
    index = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(HEAD)], metadata={"title": TITLE})
    for path, book in zip(paths, _executed(paths, out), strict=True):
        title = book.cells[0].source.split("\n")[0].lstrip("# ")
        index.cells.append(nbformat.v4.new_markdown_cell(f"## [{title}]({path.stem}.html)"))
        index.cells += [cell for cell in book.cells if "page" in cell.metadata.get("tags", [])]
    outputs_only = HTMLExporter(exclude_input=True, exclude_output_prompt=True)
    page = out / "index.html"
    page.write_text(outputs_only.from_notebook_node(index)[0], encoding="utf-8")
    return page


def _executed(paths: list[Path], out: Path) -> list[Any]:
    """The notebooks, run two at a time and written to ``out`` as they end."""

    def execute(path: Path) -> Any:
        book, started = nbformat.read(path, as_version=4), time.monotonic()
        run_notebook(book, path)
        print(f"{path.stem}: {time.monotonic() - started:.0f} s", flush=True)
        nbformat.write(book, out / path.name)
        (out / f"{path.stem}.html").write_text(HTMLExporter().from_notebook_node(book)[0], encoding="utf-8")
        return book

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        # The later ones take longer, so they begin first.
        waiting = [pool.submit(execute, path) for path in reversed(paths)]
        try:
            return [one.result() for one in reversed(waiting)]
        finally:
            pool.shutdown(cancel_futures=True)


def run_notebook(book: Any, path: Path, timeout: int = 1800) -> None:
    """Run all cells of a notebook from nbformat in the folder of ``path``, its file; replaces its outputs.

    Raises:
        CkfrError: if a cell fails, takes more than ``timeout`` seconds, or ends the kernel.
    """
    # A kernel warns on its standard error of things no reader can act on; it is read when a kernel dies.
    with tempfile.TemporaryFile("w+") as log:
        resources = {"metadata": {"path": str(path.parent)}}
        client = NotebookClient(book, timeout=timeout, kernel_name="python3", resources=resources)
        threads = str(max(1, (os.cpu_count() or 1) // AT_A_TIME))
        try:
            client.execute(stderr=log, env={"OMP_NUM_THREADS": threads, **os.environ})
        except CellExecutionError as error:
            raise CkfrError(f"{path.name} failed: {error.ename}: {error.evalue}") from error
        except (CellTimeoutError, DeadKernelError) as error:
            log.seek(0)
            raise CkfrError(f"{path.name} failed: {error}\n{log.read()[-2000:]}".strip()) from error
