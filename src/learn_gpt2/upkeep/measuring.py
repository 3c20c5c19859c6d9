"""How fast the learner's commands answer; `make bench` runs this module.

Medians of interleaved runs; what depends on the machine is given as a ratio to `import torch`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gpt2.common.files import write_atomically
from learn_gpt2 import manifest
from learn_gpt2.checking.warm import Warm
from learn_gpt2.manifest import find_root

ROUNDS = 7


def _seconds(command: list[str], root: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=root, capture_output=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(root: Path, rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds by what was measured, from interleaved rounds."""
    python = [sys.executable]
    problem = manifest.get(5)
    pytest = [*python, "-m", "pytest", f"problems/{problem.folder}", "--solutions", "-q"]
    with tempfile.TemporaryDirectory() as folder, _Saves(root, Path(folder)) as saves:
        runs: dict[str, Callable[[], float]] = {
            "import torch": lambda: _seconds([*python, "-c", "import torch"], root),
            "pytest problems/05-causal-masking": lambda: _seconds(pytest, root),
            "learn --help": lambda: _seconds([*python, "-m", "learn_gpt2", "--help"], root),
            "learn status": lambda: _seconds([*python, "-m", "learn_gpt2", "status"], root),
            "learn watch, save to verdict": saves.verdict,
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                times[name].append(run())
    return {name: statistics.median(values) for name, values in times.items()}


class _Saves:
    """Saves of a copied problem.py, seen and checked as `learn watch` does it."""

    def __init__(self, root: Path, folder: Path):
        self.copy = folder / "course"
        self.root = root
        self.problem = manifest.get(5)

    def __enter__(self) -> _Saves:
        import shutil

        skip = shutil.ignore_patterns("__pycache__", "bundled", "*.ipynb")
        for name in ("src", "problems", "solutions"):
            shutil.copytree(self.root / name, self.copy / name, ignore=skip)
        self.path = self.problem.problem_path(self.copy)
        self.source = self.problem.solution_path(self.copy).read_bytes()
        self.warm = Warm(self.copy)
        self.count = 0
        self.verdict()
        return self

    def verdict(self) -> float:
        """Seconds from a save to the report: the event from the file system and the checks."""
        import threading

        import watchfiles

        stop, ready = threading.Event(), threading.Event()
        done: list[float] = []

        def watch() -> None:
            changes = watchfiles.watch(
                self.copy / "problems",
                debounce=60,
                step=20,
                stop_event=stop,
                rust_timeout=100,
                yield_on_timeout=True,
            )
            for change in changes:
                ready.set()
                if change:
                    report = self.warm.check(self.problem)
                    done.append(time.perf_counter())
                    assert report.passed, report.first_failure
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        ready.wait(10)
        self.count += 1
        started = time.perf_counter()
        write_atomically(self.path, self.source + f"\n# save {self.count}\n".encode())
        watcher.join(60)
        stop.set()
        return done[0] - started

    def __exit__(self, *error: object) -> None:
        self.warm.close()


def table(medians: dict[str, float]) -> str:
    """Markdown."""
    torch = medians["import torch"]
    rows = ["| what | median s | × import torch |", "| --- | ---: | ---: |"]
    rows += [f"| {name} | {value:.2f} | {value / torch:.2f} |" for name, value in medians.items()]
    return "\n".join(rows)


if __name__ == "__main__":
    os.environ.pop("PYTEST_ADDOPTS", None)
    print(table(measure(find_root(), 3 if "--quick" in sys.argv else ROUNDS)))
