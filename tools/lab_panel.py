"""A notebook's panel in JupyterLab in a headless Chromium: for the browser tests and the latency benchmark.

A reduced copy of the notebook is opened: its set-up cell and the cells tagged ``panel``, run from the menu as
a reader would. JupyterLab, its settings and its kernel live in a temporary folder and end with the block.
"""

import ast
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import BlockingKernelClient
from playwright.sync_api import BrowserContext, Locator, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
TAG = "panel"
PATIENCE = 900  # seconds for JupyterLab and the first cells: notebook 04 trains four networks first
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage"]  # as root, and in containers with a small /dev/shm
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Path of a Chromium here, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def books_with_panels() -> list[Path]:
    """Committed notebooks that have a cell tagged ``panel``, in order."""
    books = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return [path for path in books if any(_tagged(c, TAG) for c in nbformat.read(path, as_version=4).cells)]


def reduced(path: Path, changes: Mapping[str, str] | None = None) -> nbformat.NotebookNode:
    """Set-up cell and panel cells of a notebook, without outputs, with some of their text changed."""
    book = nbformat.read(path, as_version=4)
    book.cells = [cell for cell in book.cells if _tagged(cell, "setup") or _tagged(cell, TAG)]
    for cell in book.cells:
        cell.outputs, cell.execution_count = [], None
    for old, new in (changes or {}).items():
        (cell,) = [cell for cell in book.cells if old in cell.source]
        cell.source = cell.source.replace(old, new)
    return book


def _tagged(cell: nbformat.NotebookNode, tag: str) -> bool:
    return cell.cell_type == "code" and tag in cell.metadata.get("tags", [])


@dataclass
class OpenPanel:
    """A live panel on a page.

    Attributes:
        page: the page, to take screenshots of.
        root: the panel's element.
        kernel: a client of the notebook's own kernel.
    """

    page: Page
    root: Locator
    kernel: BlockingKernelClient

    @property
    def picture(self) -> str:
        """The address of the picture shown: a data address, so another picture is another string."""
        return self.root.locator("img").get_attribute("src", timeout=1000 * PATIENCE) or ""

    @property
    def numbers(self) -> str:
        """The text under the picture."""
        return self.root.locator("[role=status]").text_content(timeout=1000 * PATIENCE) or ""

    def slider(self, control: str) -> Locator:
        """The whole slider with this label."""
        label = self.page.locator(".widget-label", has_text=re.compile(rf"^\s*{re.escape(control)}\s*$"))
        return self.root.locator(".widget-inline-hbox").filter(has=label)

    def handle(self, control: str) -> Locator:
        """The part of a slider that is dragged."""
        return self.slider(control).locator(".noUi-handle")

    def readout(self, control: str) -> str:
        """What stands beside a slider."""
        return (self.slider(control).locator(".widget-readout").text_content() or "").strip()

    def drag(self, control: str, share: float) -> None:
        """Drag a slider with the mouse to a share of its length, from 0 (left) to 1, and let go."""
        handle = self.handle(control)
        handle.scroll_into_view_if_needed()
        here = handle.bounding_box()
        track = handle.locator("xpath=ancestor::*[contains(@class, 'noUi-base')]").bounding_box()
        assert here is not None
        assert track is not None
        y = here["y"] + here["height"] / 2
        self.page.mouse.move(here["x"] + here["width"] / 2, y)
        self.page.mouse.down()
        self.page.mouse.move(track["x"] + share * track["width"], y, steps=5)
        self.page.mouse.up()

    def evaluate(self, expression: str) -> Any:
        """A Python expression's value in the notebook's kernel; it must have a literal ``repr``."""
        reply = self.kernel.execute(
            "", silent=True, store_history=False, user_expressions={"it": expression}, reply=True,
            timeout=PATIENCE,
        )["content"]["user_expressions"]["it"]  # fmt: skip
        if reply["status"] != "ok":
            raise RuntimeError(f"{expression}: {reply['ename']}: {reply['evalue']}")
        return ast.literal_eval(reply["data"]["text/plain"])


@contextlib.contextmanager
def open_panel(
    book: Path, width: int = 1100, height: int = 900, changes: Mapping[str, str] | None = None
) -> Iterator[OpenPanel]:
    """The live panel of one notebook in a JupyterLab of its own: `open_lab`, then `Lab.open`."""
    with open_lab(width, height) as lab, lab.open(book, changes) as panel:
        yield panel


@contextlib.contextmanager
def open_lab(width: int = 1100, height: int = 900) -> Iterator["Lab"]:
    """Start JupyterLab and Chromium; both take seconds, so several notebooks may share them.

    Args:
        width, height: of a page, in pixels.

    Raises:
        RuntimeError: if there is no Chromium, or JupyterLab does not start.
    """
    browser_path = chromium()
    if browser_path is None:
        raise RuntimeError(f"No Chromium here; looked for {', '.join(NAMES)}.")
    with tempfile.TemporaryDirectory(prefix="ckfr-lab-") as folder:
        (Path(folder) / "notebooks").mkdir()
        with _server(Path(folder)) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
            context = browser.new_context(viewport={"width": width, "height": height})
            context.set_default_timeout(1000 * PATIENCE)
            try:
                yield Lab(Path(folder), address, context)
            finally:
                browser.close()


@dataclass
class Lab:
    """A JupyterLab in a browser: its folder, its address with a place for the path, the browser."""

    home: Path
    address: str
    context: BrowserContext

    @contextlib.contextmanager
    def open(self, book: Path, changes: Mapping[str, str] | None = None) -> Iterator[OpenPanel]:
        """Open a reduced notebook, run it, and give its live panel; its kernel ends with the block.

        Args:
            book: the notebook.
            changes: text of one cell each -> what stands there instead, for less work before the panel.

        Raises:
            playwright.sync_api.Error: if the panel does not appear.
        """
        nbformat.write(reduced(book, changes), self.home / "notebooks" / book.name)
        page = self.context.new_page()
        # A workspace of its own, or JupyterLab would open the notebook before it once more.
        page.goto(self.address.format(path=f"lab/workspaces/{book.stem}/tree/{book.name}"))
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        sessions, log = self.address.format(path="api/sessions"), self.home / "lab.log"
        _wait_for(sessions, "the kernel", log, '"execution_state": "idle"')
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        root = page.locator(".ckfr-panel")
        root.locator("img").wait_for(state="attached")
        root.scroll_into_view_if_needed()
        kernel = _client(self.home / "runtime")
        try:
            yield OpenPanel(page, root, kernel)
        finally:
            kernel.stop_channels()
            page.close()
            self._end_kernels(sessions)

    def _end_kernels(self, sessions: str) -> None:
        for session in json.loads(urllib.request.urlopen(sessions).read()):
            one = sessions.replace("api/sessions", f"api/sessions/{session['id']}")
            urllib.request.urlopen(urllib.request.Request(one, method="DELETE"))


@contextlib.contextmanager
def _server(home: Path) -> Iterator[str]:
    """A JupyterLab that serves ``home/notebooks``; gives its address with a place for the path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    # No question about news, which would lie over the page and ask the network.
    (settings / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
    places = {
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "IPYTHONDIR": home / "ipython",
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={home / 'notebooks'}",
    ]  # fmt: skip
    with (home / "lab.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {k: str(v) for k, v in places.items()}
        )
        try:
            base = f"http://127.0.0.1:{port}/"
            address = base + "{path}?token=" + token
            _wait_for(address.format(path="api/status"), "JupyterLab", home / "lab.log", server=server)
            yield address
        finally:
            server.terminate()  # ends its kernels too
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for(
    address: str, what: str, log: Path, answer: str = "", server: subprocess.Popen | None = None
) -> None:
    """Ask JupyterLab until it answers, and the answer holds a text."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and (server is None or server.poll() is None):
        try:
            with urllib.request.urlopen(address, timeout=30) as reply:
                if answer in reply.read().decode():
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.3)
    raise RuntimeError(
        f"{what} did not come within {PATIENCE} s, or ended:\n" + log.read_text(errors="replace")[-2000:]
    )


def _client(runtime: Path) -> BlockingKernelClient:
    (connection,) = runtime.glob("kernel-*.json")
    client = BlockingKernelClient(connection_file=str(connection))
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=PATIENCE)
    return client
