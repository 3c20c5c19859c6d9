"""The commands in the documents' shell blocks are run, in the order in which they stand.

Each document has a copy of the course for itself. `UNRUN` lists what can't be run here, and why;
test_documents.py checks that those parse. Training is cut to a step by options that are appended.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from learn_gpt2 import manifest
from tests.curriculum.test_documents import commands
from tests.links import ROOT, documents, text_of

NETWORK = "needs a package index"
SET_UP = "sets up an environment, which needs a package index; test_setup.py plays it through"
# a command, or its beginning and an ellipsis → why it isn't run
UNRUN = {
    "make demo": SET_UP,
    "make test": SET_UP + ", and it would run this test again",
    "python3 -m venv .venv": SET_UP,
    ". .venv/bin/activate": SET_UP,
    "py -3.11 -m venv .venv": "is for Windows; CI runs it there",
    ".venv\\Scripts\\python …": "is for Windows; CI runs it there",
    "pip install …": NETWORK,
    "uv venv …": "uv is not part of the set-up",
    "uv pip install …": NETWORK,
    "pytest -p nbval.plugin …": "needs the extra for notebooks; `make notebooks` runs it",
    "torchrun …": "needs eight GPUs; test_distributed.py runs torchrun with two processes",
}
SHORT_TRAINING = (
    "--max-steps 1 --warmup-steps 0 --batch-size 1 --total-batch-tokens {context} "
    "--eval-tokens 512 --sample-interval 0 --device cpu"
)
CONTEXTS = {"tiny": 128, "shakespeare-char": 256}
# what a document takes for granted: commands that are run first
BEFORE = {
    "solutions/README.md": ["learn check 05"],
    "docs/formats.md": [
        "gpt2 train --preset shakespeare-char --out runs/shakespeare",
        "gpt2 export runs/shakespeare --gguf shakespeare.gguf --type q8_0",
    ],
}


def blocks(text: str) -> str:
    """A document's fenced blocks alone."""
    return "\n".join(m[0] for m in re.finditer(r"^```\w+[^\n]*\n.*?^```", text, re.M | re.S))


def shell_commands(path: Path) -> list[str]:
    """The commands of a document's shell blocks, in order."""
    return commands(blocks(text_of(path)))


WITH_COMMANDS = [path for path in documents() if shell_commands(path)]


def why_not(command: str) -> str:
    """Why a command isn't run here, or ""."""
    for known, reason in UNRUN.items():
        start = known.removesuffix("…")
        if command == known or (start != known and command.startswith(start)):
            return reason
    return ""


def words_of(command: str) -> list[str]:
    """A command as this Python runs it."""
    first, *words = shlex.split(command)
    python = [sys.executable, "-m"]
    if first in ("python", "python3"):
        return [sys.executable, *words]
    if first == "gpt2" and words[0] == "train":
        preset = words[words.index("--preset") + 1] if "--preset" in words else ""
        given = words.index("--context") + 1 if "--context" in words else 0
        context = words[given] if given else CONTEXTS.get(preset, 128)
        words += SHORT_TRAINING.format(context=context).split()
    if first == "gpt2" and words[0] == "generate":
        words += ["--max-new-tokens", "5"]
    module = {"gpt2": "gpt2", "learn": "learn_gpt2", "pytest": "pytest"}.get(first)
    assert module, f"{command!r}: run it here, or say in UNRUN why not"
    return [*python, module, *words]


def run(command: str, folder: Path, environment: dict[str, str]) -> None:
    """Run one command; AssertionError with its last words when it fails."""
    if command.startswith("cp "):
        shutil.copy(*(folder / word for word in shlex.split(command)[1:]))
        return
    done = subprocess.run(
        words_of(command),
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=600,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}"


@pytest.fixture
def full_course(course: Path) -> Path:
    """A copy of the course with the bundled model, every problem solved, and a class's hand-in."""
    shutil.copytree(ROOT / "src" / "gpt2" / "bundled", course / "src" / "gpt2" / "bundled")
    handed_in = course / "handed-in" / "ann"
    handed_in.mkdir(parents=True)
    for problem in manifest.PROBLEMS:
        shutil.copy(problem.solution_path(course), problem.problem_path(course))
    shutil.copy(manifest.get(3).solution_path(course), handed_in)
    for name in ("my.txt", "my-text.txt"):  # a reader's own text
        part = next(ROOT.glob("src/*/*/held-out.txt")).read_bytes()
        (course / name).write_bytes(part * (1 + 20_000 // len(part)))
    return course


def stand_in_for_shakespeare(course: Path) -> None:
    """In place of Tiny Shakespeare, which would be downloaded: the part of it that comes along."""
    part = next(ROOT.glob("src/*/*/held-out.txt")).read_bytes()
    text = part * (1 + 20_000 // len(part))
    path = course / "texts" / "tinyshakespeare" / "input.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(text)
    code = course / "src" / "gpt2" / "data" / "sources.py"
    name = r'^SHAKESPEARE_SHA256 = "\w+"$'
    mine = f'SHAKESPEARE_SHA256 = "{hashlib.sha256(text).hexdigest()}"'
    changed, count = re.subn(name, mine, code.read_text(encoding="utf-8"), flags=re.M)
    assert count == 1
    code.write_text(changed, encoding="utf-8")


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_run(path: Path, full_course: Path):
    """Catches a document's command that fails when it is typed in as it stands."""
    stand_in_for_shakespeare(full_course)
    environment = os.environ | {
        "PYTHONPATH": str(full_course / "src"),
        "PYTHONIOENCODING": "utf-8",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "GPT2_DATA": str(full_course / "texts"),
    }
    name = path.relative_to(ROOT).as_posix()
    todo = [command for command in shell_commands(path) if not why_not(command)]
    if not todo:
        pytest.skip("none of its commands can be run here: " + why_not(shell_commands(path)[0]))
    for command in [*BEFORE.get(name, []), *todo]:
        run(command, full_course, environment)


def test_what_is_not_run_is_in_some_document():
    """Catches an exception that outlives its command."""
    every = [command for path in WITH_COMMANDS for command in shell_commands(path)]
    for known in UNRUN:
        start = known.removesuffix("…")
        assert [c for c in every if (c.startswith(start) if start != known else c == known)], known
    assert len(every) > 40
    assert sum(not why_not(command) for command in every) > 25


def test_a_command_that_fails_is_found(full_course: Path):
    """Catches a runner that takes every command for done."""
    with pytest.raises(AssertionError, match="nowhere"):
        run("gpt2 generate --model nowhere --prompt x", full_course, dict(os.environ))
    with pytest.raises(AssertionError, match="say in UNRUN"):
        run("nonsense", full_course, dict(os.environ))
