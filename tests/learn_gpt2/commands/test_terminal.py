"""The real commands in a real (pseudo-)terminal: keys, colors, saves, an endless loop."""

import shutil
import time
from pathlib import Path

import pytest

from learn_gpt2 import manifest
from learn_gpt2.course import backups
from tests.terminal import Terminal

PROBLEM = manifest.get(3)


def save(course: Path, *edits: tuple[str, str], through_temporary: bool = True) -> None:
    """Save the solution, edited, as many editors do: beside the file, then moved over it."""
    source = PROBLEM.solution_path(course).read_text(encoding="utf-8")
    for old, new in edits:
        assert old in source
        source = source.replace(old, new)
    path = PROBLEM.problem_path(course)
    if through_temporary:
        aside = path.with_name(".problem.py.swp")
        aside.write_text(source, encoding="utf-8")
        aside.replace(path)
    else:
        path.write_text(source, encoding="utf-8")


UNSCALED = (" * self.scale", "")
LOOP = ("scores = q @", "while True: pass\n        scores = q @")


@pytest.mark.parametrize("poll", [False, True], ids=["events", "polling"])
def test_watch_sees_every_save_and_survives_a_loop(course: Path, poll: bool) -> None:
    """Catches a save that is missed, and a loop that ends the watching."""
    terminal = Terminal(course, "learn_gpt2", "watch", "3", *(["--poll"] if poll else []))
    terminal.read_until("q quit")
    save(course, UNSCALED)
    assert "[no-scale]" in terminal.read_until("q quit")
    save(course, LOOP)
    assert "[endless-loop]" in terminal.read_until("q quit")
    save(course, through_temporary=False)
    assert "Next: learn swap 03" in terminal.read_until("q quit")
    terminal.press("q")
    assert terminal.end() == 0


def test_the_keys_of_watch(course: Path) -> None:
    """Catches a key that does nothing, or resets without asking."""
    save(course, UNSCALED)
    terminal = Terminal(course, "learn_gpt2", "watch", "3")
    terminal.read_until("q quit")
    terminal.press("h")
    assert "hint 2" in terminal.read_until("q quit")
    terminal.press("l")
    assert "12 Pretrained loading" in terminal.read_until("q quit")
    terminal.press("e")
    assert "the scaled scores" in terminal.read_until("q quit")
    terminal.press("s")
    assert "has not passed yet" in terminal.read_until("q quit")
    terminal.press("r")
    terminal.read_until("(y/n)")
    terminal.press("n")
    time.sleep(0.5)
    assert not backups.untouched(course, PROBLEM)
    terminal.press("r")
    terminal.read_until("(y/n)")
    terminal.press("y")
    terminal.read_until("is the skeleton again")
    assert backups.untouched(course, PROBLEM)
    terminal.press("q")
    assert terminal.end() == 0


def test_ctrl_c_ends_watch_and_restores_the_terminal(course: Path) -> None:
    """Catches a terminal that stays without echo."""
    import termios

    terminal = Terminal(course, "learn_gpt2", "watch", "3")
    before = termios.tcgetattr(terminal.descriptor)
    terminal.read_until("q quit")
    assert termios.tcgetattr(terminal.descriptor)[3] != before[3]  # single keys
    terminal.press("\x03")
    assert terminal.end() == 130


def test_a_first_hour(course: Path) -> None:
    """Catches a step of the way from the clone to one's own piece in the model that is broken."""
    terminal = Terminal(course, "learn_gpt2", "next")
    assert "problems/01-embeddings/README.md" in terminal.read_until("learn check 01")
    assert terminal.end() == 0
    shutil.copy(manifest.get(1).solution_path(course), manifest.get(1).problem_path(course))
    terminal = Terminal(course, "learn_gpt2", "check")
    assert "\x1b[32m" in terminal.read_until("Put it into the model?")  # colors, in a terminal
    terminal.press("y\n")
    terminal.read_until("swapped (yours)")
    assert terminal.end() == 0
    terminal = Terminal(course, "learn_gpt2", "status")
    board = terminal.read_until("Next:")
    assert "1 of 18 passed, 1 of yours run" in board
    assert terminal.end() == 0
    terminal = Terminal(course, "learn_gpt2", "reset", "1")
    terminal.read_until("Put the skeleton back into 01?")
    terminal.press("y\n")
    terminal.read_until("is the skeleton again")
    assert terminal.end() == 0
    terminal = Terminal(course, "learn_gpt2", "undo")
    terminal.read_until("as it was before reset")
    assert terminal.end() == 0


def test_watch_puts_a_passed_piece_in_with_one_key(course: Path) -> None:
    """Catches advice that needs a second terminal, and an "n" that goes to the next problem."""
    save(course)
    terminal = Terminal(course, "learn_gpt2", "watch", "3")
    assert "Next: learn swap 03 (press p), then n" in terminal.read_until("q quit")
    terminal.press("r")
    terminal.read_until("(y/n)")
    terminal.press("n")
    assert "Nothing was reset: your file is as it was." in terminal.read_until("q quit")
    terminal.press("p")
    assert "03 Scaled dot product: swapped (yours)" in terminal.read_until("q quit")
    terminal.press("l")
    assert "1 of 18 passed, 1 of yours run" in terminal.read_until("q quit")
    terminal.press("q")
    assert terminal.end() == 0
