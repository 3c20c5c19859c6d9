"""A plugin of pytest for notebooks that nbval runs: what nbval does not look at.

`pytest -p nbval.plugin --nbval-lax` runs each cell and fails where one raises. This adds that a
cell writes no warning and no path of this machine, that the notebook says whose piece it runs on,
and how long each notebook took. `make notebooks` loads it with `-p`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

PIECE = "piece"  # id of the cell that opens a problem's piece; every notebook has one
EXPECTED = "whose-piece.json"  # in a copy of the course: {problem's folder: what its cell says}

_SURROUNDINGS: pytest.StashKey[Surroundings] = pytest.StashKey()


class Surroundings:
    """The environment of a kernel: one thread, no network, nothing of this project on its path."""

    def __init__(self) -> None:
        self._before = dict(os.environ)
        self._folder = tempfile.TemporaryDirectory(prefix="notebook-", ignore_cleanup_errors=True)
        nowhere, folder = "http://127.0.0.1:9", self._folder.name
        os.environ.update(
            OMP_NUM_THREADS="1",
            MKL_NUM_THREADS="1",
            PYTHONHASHSEED="0",
            HF_HUB_OFFLINE="1",
            HF_HOME=folder,
            TIKTOKEN_CACHE_DIR=os.environ.get("TIKTOKEN_CACHE_DIR", folder),
            IPYTHONDIR=folder,
            PYTHONWARNINGS="default",
            http_proxy=nowhere,
            https_proxy=nowhere,
        )
        for name in ("PYTHONPATH", "MPLBACKEND"):
            os.environ.pop(name, None)

    def close(self) -> None:
        """The environment as it was."""
        os.environ.clear()
        os.environ.update(self._before)
        self._folder.cleanup()


def pytest_configure(config: pytest.Config) -> None:
    shares_out = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if not shares_out:  # its workers have the kernels
        config.stash[_SURROUNDINGS] = Surroundings()


def pytest_unconfigure(config: pytest.Config) -> None:
    if surroundings := config.stash.get(_SURROUNDINGS, None):
        surroundings.close()


def complaints(cell: dict[str, Any], outputs: list[dict[str, Any]], path: Path) -> list[str]:
    """What is wrong with the outputs of a cell that ran: warnings, this machine's paths, and in the
    piece's cell somebody else's piece.
    """
    wrong = []
    for output in outputs:
        text = json.dumps(output)
        if output.get("name") == "stderr":
            wrong.append(f"it writes to stderr: {output['text'][:300]}")
        elif str(path.parents[2]) in text or str(Path.home()) + "/" in text:
            wrong.append("it prints a path of this machine")
    expected = path.parents[2] / EXPECTED
    if cell.get("id") == PIECE and expected.is_file():
        says = json.loads(expected.read_text(encoding="utf-8"))[path.parent.name]
        text = "".join("".join(output.get("text", "")) for output in outputs)
        if not text.startswith(says):
            wrong.append(f"expected {says!r}…, it says {text[:200]!r}")
    return wrong


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item):
    outcome = yield
    cell = getattr(item, "cell", None)
    if cell is None or outcome.excinfo is not None:
        return
    if wrong := complaints(cell, getattr(item, "test_outputs", None) or [], item.path):
        name = f"{item.path.parent.name}, cell {cell.get('id')!r}"
        outcome.force_exception(ValueError("\n".join(f"{name}: {text}" for text in wrong)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line per notebook."""
    seconds: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.section("seconds per notebook")
    for name, its in sorted(seconds.items()):
        terminalreporter.write_line(f"{its:6.1f}  {name}")
