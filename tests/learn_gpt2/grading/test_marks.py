"""Marks that accuse nobody: `learn check` and `learn grade` make the same of the same file."""

import os
from pathlib import Path

import pytest

from learn_gpt2.grading import sandbox
from tests.class_of_40 import solution
from tests.learn_gpt2.grading import agreement, harmless

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="made with fork")
ALL = os.environ.get("LEARN_AGREEMENT") == "all"  # the whole list and all banks: an hour
SAMPLE = (
    "set_default_device('cuda'",
    "import matplotlib.pyplot as plt",
    "@torch.compile",
    "@torch.compile(backend='eager')",
    "import platform",
    "from tqdm.auto",
    "import yaml, psutil",
    "os.makedirs",
    "faulthandler",
    "mkldnn",
    "torch.save(torch.ones(2), 'x.pt')",
    "unittest.main",
    "FileHandler",
    "/tmp/notes.txt",
    "reconfigure",
    "set_num_interop_threads(2)",
    "nvidia-smi'], capture",
    "\nargs = argparse",
)


def sample() -> list[harmless.Line]:
    """One line for each that was ever refused, and some of every kind; or all of them."""
    lines = [line for line in harmless.LINES if line.possible]
    if ALL:
        return lines
    return [line for line in lines if any(text in line.text for text in SAMPLE)]


def test_there_are_many_harmless_lines() -> None:
    """Catches a list that shrinks, holds a line twice, or whose lines can't be tried here."""
    assert len({line.text for line in harmless.LINES}) == len(harmless.LINES) >= 140
    assert sum(line.possible for line in harmless.LINES) >= 130
    for line in harmless.LINES:
        compile(line.put_into(solution(1)), line.name, "exec")


def test_harmless_lines_cost_nothing(tmp_path: Path) -> None:
    """Catches an honest file that one of the two refuses, or that is given other points."""
    lines = sample()
    assert len(lines) >= 12
    sources = list(agreement.with_lines(1, lines).values())
    for what in (agreement.by_check, agreement.by_grade):
        verdicts = what(1, sources, tmp_path / what.__name__)
        refused = [
            f"{line.text}\n  {verdict.first}"
            for line, verdict in zip(lines, verdicts, strict=True)
            if not verdict.passed
        ]
        assert not refused, f"{what.__name__}:\n" + "\n".join(refused)


@pytest.mark.parametrize("number", range(1, 13) if ALL else (3, 9))
def test_both_make_the_same_of_the_banks(number: int, tmp_path: Path) -> None:
    """Catches a right or a wrong answer that `learn grade` sees otherwise than `learn check`."""
    named = agreement.of_bank(number)
    if not ALL:
        kinds = ("right", "wrong")
        few = [[name for name in named if name.startswith(kind)] for kind in kinds]
        named = {name: named[name] for names in few for name in names[:: len(names) // 4]}
    assert agreement.differences(number, named, tmp_path) == []


# what grading does not take, and the word for it
REFUSED = {
    "import torch.nn.functional as F\nF.relu = F.gelu": "changes-torch",
    "from torch import nn\nnn.Module.__repr__ = lambda self: 'mine'": "changes-torch",
    "import torch\ntorch.set_default_device('meta')": "default-device",
    "import torch\ntorch.set_default_dtype(torch.float64)": "default-dtype-set",
    "import threading, time\n"
    "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()": ("leaves-a-thread"),
    "import sys\nsys.settrace(lambda *a: None)": "traces",
    "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9))\n"
    "except OSError:\n    pass": ("reaches-out"),
    "import os\nif os.fork() == 0:\n    os._exit(0)": "reaches-out",
    "try:\n    open('/never-there/x', 'w')\nexcept OSError:\n    pass": "reaches-out",
    "import torch\ntorch.allclose = lambda *a, **k: True": "tampering",
}


def test_what_grading_refuses_is_told_beforehand(tmp_path: Path) -> None:
    """Catches a file that is refused without the student's having been told, a fact told as an
    accusation, and a message without the line or the name of what was found.
    """
    put = [harmless.Line(text).put_into(solution(3)) for text in REFUSED]
    checked = agreement.by_check(3, put, tmp_path / "check")
    graded = agreement.by_grade(3, put, tmp_path)
    for (text, kind), one, two in zip(REFUSED.items(), checked, graded, strict=True):
        assert kind in one.mistakes, f"{text}\n{one.first}"
        assert kind in two.mistakes, f"{text}\n{two.first}"
        assert (one.points, two.points) == (0, 0), text
        if kind != "tampering":
            assert "tampering" not in one.mistakes | two.mistakes, text


def test_a_fact_names_what_was_found() -> None:
    """Catches a message that leaves the learner guessing."""
    from learn_gpt2.checking.conduct import Fact, _replaced

    fact = _replaced("torch.nn.functional.relu", "relu")
    assert fact.kind == "changes-torch"
    assert "torch.nn.functional.relu" in fact.message
    assert _replaced("torch.allclose", "allclose").kind == "tampering"
    assert _replaced("learn_gpt2.checking.checks.compare", "compare").kind == "tampering"
    assert Fact("traces", "traces.").message == "The file traces. [traces]"
    with pytest.raises(ValueError, match="KINDS"):  # grading would leave it out
        Fact("unheard-of", "does something.")


HELPERS = "from helpers import embed\n"


def test_a_helper_module_is_explained(tmp_path: Path) -> None:
    """Catches "No module named helpers" without a word on why it is not there."""
    for what in (agreement.by_check, agreement.by_grade):
        (verdict,) = what(3, [HELPERS + solution(3)], tmp_path / what.__name__)
        assert verdict.points == 0
        assert "'helpers'" in verdict.first
        assert "only the piece itself is read" in verdict.first


CACHES = """
import os, pathlib, tempfile
for name in ("HOME", *{names!r}):
    folder = pathlib.Path(os.environ[name])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kept").write_text("x")
(pathlib.Path.home() / "kept").write_text("x")
(pathlib.Path(__file__).parent / "plot.png").write_bytes(b"x")
with tempfile.NamedTemporaryFile() as file:
    file.write(b"x")
"""


def test_a_home_and_caches_can_be_written(tmp_path: Path) -> None:
    """Catches a library that fails because it can't keep what it made."""
    source = CACHES.format(names=sandbox.CACHES) + solution(3)
    (verdict,) = agreement.by_grade(3, [source], tmp_path)
    assert verdict.passed, verdict.first
