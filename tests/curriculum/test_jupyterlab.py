"""Notebooks in a real JupyterLab, in a real browser: every cell runs, and a learner's edit is seen.

The browser is driven over its DevTools protocol, with the websocket client that JupyterLab brings
along. `SCREENSHOTS=folder` keeps pictures of what was seen.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from learn_gpt2.manifest import PROBLEMS, Problem
from learn_gpt2.upkeep import notebooks

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser, reason=f"no browser: none of {', '.join(BROWSERS)} is there"),
    pytest.mark.skipif(
        not (find_spec("jupyterlab") and find_spec("matplotlib")),
        reason='no JupyterLab: pip install -e ".[plots,notebooks]"',
    ),
]

SECONDS = 180  # for all cells of a notebook, on a busy machine
CODE = "nb.content.widgets.filter(c => c.model.type == 'code')"


class Page:
    """One tab of the browser."""

    def __init__(self, socket: Any):
        self.socket, self.number = socket, 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the DevTools protocol → its result. RuntimeError when it is refused."""
        self.number += 1
        await self.socket.write_message(
            json.dumps({"id": self.number, "method": method, "params": params})
        )
        while True:
            message = json.loads(await self.socket.read_message())
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(message["error"])
                return message["result"]

    async def js(self, text: str) -> Any:
        """The value of a JavaScript expression. RuntimeError when it throws."""
        result = await self.call(
            "Runtime.evaluate", expression=text, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(f"{text}: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def wait(self, text: str, seconds: float = SECONDS) -> Any:
        """The expression's value once it is true; what throws isn't there yet."""
        end, found = time.monotonic() + seconds, None
        while time.monotonic() < end:
            try:
                if found := await self.js(text):
                    return found
            except RuntimeError as error:
                found = error
            await asyncio.sleep(0.3)
        raise AssertionError(f"never true in {seconds:.0f} s: {text} ({found})")

    async def picture(self, name: str) -> None:
        """Keep what is seen, where `SCREENSHOTS` says so."""
        if folder := os.environ.get("SCREENSHOTS"):
            data = (await self.call("Page.captureScreenshot", format="png"))["data"]
            Path(folder, f"{name}.png").write_bytes(base64.b64decode(data))

    async def open(self, address: str, problem: Problem) -> None:
        """A problem's notebook, with its kernel ready; in JavaScript it is `nb` from now on."""
        path = f"problems/{problem.folder}/notebook.ipynb"
        await self.call("Page.navigate", url=f"{address}/lab/tree/{path}?reset")
        await self.wait(
            "!!(nb = [...jupyterapp.shell.widgets('main')]"
            f".find(w => w.sessionContext && w.context.path == '{path}'))"
        )
        await self.js("jupyterapp.shell.activateById(nb.id); 1")
        await self.wait("nb.sessionContext.kernelDisplayStatus == 'idle'")

    async def run(self, command: str, cells: str = CODE) -> None:
        """A command of JupyterLab's menu, and wait until all of these cells have run."""
        await self.js(f"{CODE}.forEach(c => c.model.clearExecution())")
        await self.js(f"jupyterapp.commands.execute('{command}'); 1")
        await self.wait(
            f"{cells}.every(c => c.model.executionCount) || "
            f"{CODE}.some(c => c.model.outputs.toJSON().some(o => o.output_type == 'error'))"
        )

    async def complaints(self) -> list[str]:
        """Errors and what went to stderr, of all cells."""
        return await self.js(
            f"{CODE}.flatMap(c => c.model.outputs.toJSON()"
            ".filter(o => o.output_type == 'error' || o.name == 'stderr')"
            ".map(o => c.model.id + ': ' + (o.evalue || o.text)))"
        )

    async def whose(self) -> str:
        """Run the set-up cell and the piece's again → what the latter prints."""
        await self.js(f"nb.content.activeCellIndex = nb.content.widgets.indexOf({CODE}[1]); 1")
        await self.run("notebook:run-cell", f"[{CODE}[1]]")
        await self.wait(f"{CODE}[1].model.outputs.length")
        return await self.js(f"{CODE}[1].model.outputs.toJSON().map(o => o.text).join('')")


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextmanager
def process(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen]:
    """A process that ends with the block."""
    with log.open("w", encoding="utf-8") as file:
        started = subprocess.Popen(command, stdout=file, stderr=file, **options)
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """A course with untouched skeletons, JupyterLab's address in it, and the browser's."""
    base = tmp_path_factory.mktemp("lab")
    course = base / "course"
    course.mkdir()
    notebooks.copy_course(ROOT, course, "skeletons")
    own = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    own += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    environment = os.environ | {name: str(base / name.lower()) for name in own}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    address = f"http://127.0.0.1:{free_port()}"
    server = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={address.rpartition(':')[2]}", "--IdentityProvider.token="),
        *(f"--ServerApp.root_dir={course}", "--LabApp.expose_app_in_browser=True"),
    ]
    assert browser
    window = [
        *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--remote-debugging-port=0", f"--user-data-dir={base / 'browser'}"),
        *("--window-size=1300,1500", "about:blank"),
    ]
    port = base / "browser" / "DevToolsActivePort"
    with (
        process(server, base / "lab.log", env=environment),
        process(window, base / "browser.log"),
    ):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                devtools = f"http://127.0.0.1:{port.read_text().split()[0]}"
                break
            except (OSError, IndexError):
                time.sleep(0.3)
        else:
            logs = [(base / name).read_text("utf-8")[-1500:] for name in ("lab.log", "browser.log")]
            pytest.fail("JupyterLab or the browser didn't start:\n" + "\n".join(logs))
        yield course, address, devtools


@contextmanager
def in_a_tab(devtools: str) -> Iterator[Any]:
    """Run coroutines on a tab: `with in_a_tab(…) as page_do: page_do(coroutine_function)`."""
    from tornado.websocket import websocket_connect

    with urllib.request.urlopen(f"{devtools}/json") as answer:
        tab = next(t for t in json.load(answer) if t["type"] == "page")

    def do(work: Any) -> None:
        async def connected() -> None:
            connection = await websocket_connect(
                tab["webSocketDebuggerUrl"], max_message_size=2**30
            )
            page = Page(connection)
            await page.call("Page.enable")
            try:
                await work(page)
                await page.js("nb.sessionContext.shutdown()")  # the next one has its own kernel
            finally:
                connection.close()

        asyncio.run(connected())

    yield do


@pytest.mark.parametrize("number", [5, 2, 12])
def test_run_all(lab: tuple[Path, str, str], number: int) -> None:
    """Catches a notebook that runs in the tests' own kernel and not as somebody opens it."""
    _, address, devtools = lab
    problem = PROBLEMS[number - 1]

    async def work(page: Page) -> None:
        await page.open(address, problem)
        await page.run("notebook:run-all-cells")
        await page.picture(f"{number:02d}-end")
        assert await page.complaints() == []
        assert await page.js(f"{CODE}.every(c => c.model.executionCount)")
        first, *_ = await page.js(f"{CODE}[1].model.outputs.toJSON().map(o => o.text)")
        assert first.startswith(f"Problem {number:02d}: the reference, ")
        pictures = "[...nb.node.querySelectorAll('.jp-OutputArea img')]"
        for index in range(await page.js("nb.content.widgets.length")):  # drawn when scrolled to
            await page.js(f"nb.content.scrollToItem({index})")
        assert await page.js(f"{pictures}.filter(i => i.naturalWidth > 300).length") >= 3

    with in_a_tab(devtools) as do:
        do(work)


def test_an_edit_is_seen(lab: tuple[Path, str, str]) -> None:
    """Catches a notebook that goes on with the piece it has opened first."""
    course, address, devtools = lab
    problem = PROBLEMS[4]
    skeleton = problem.problem_path(course).read_text(encoding="utf-8")
    right = problem.solution_path(ROOT).read_text(encoding="utf-8")
    wrong = right.replace("super().__init__(n_embd, n_head,", "super().__init__(n_embd, 1,")
    assert wrong != right

    async def work(page: Page) -> None:
        await page.open(address, problem)
        await page.run("notebook:run-all-cells")
        for name, text, expected in (
            ("right", right, ("05: yours, problems/05-causal-masking/problem.py", "checks pass")),
            ("wrong", wrong, ("05: the reference, ", "checks of your problem.py don't pass yet")),
            ("broken", right + "\ndef broken(:\n", ("05: the reference, ", "don't pass yet")),
            ("right", right + "\n# mine\n", ("05: yours, ", "checks pass")),
        ):
            problem.problem_path(course).write_text(text, encoding="utf-8", newline="\n")
            said = await page.whose()
            await page.picture(f"edit-{name}")
            assert all(words in said for words in expected), (name, said)
        await page.js("nb.content.activeCellIndex = 0; 1")
        await page.run("notebook:run-all-cells")
        await page.picture("edit-end")
        assert await page.complaints() == []

    try:
        with in_a_tab(devtools) as do:
            do(work)
    finally:
        problem.problem_path(course).write_text(skeleton, encoding="utf-8", newline="\n")
