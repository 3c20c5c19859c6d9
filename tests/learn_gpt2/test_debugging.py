"""Looking inside one's own code: print, breakpoint(), --pdb, in a real terminal."""

import sys
from pathlib import Path

import pytest

from learn_gpt2.checking.limits import in_debugger
from learn_gpt2.checking.output import PRINTED_LINES, cut_print
from tests.learner import UNSCALED, learn, run, write
from tests.terminal import Terminal

SCORES = "        scores = q @ k.transpose(-2, -1)"
FOLDER = "problems/03-scaled-dot-product"


def with_line(course: Path, line: str, *more: tuple[str, str]) -> Path:
    """The learner's 03, unscaled, with a line before the scores."""
    return write(course, 3, UNSCALED, (SCORES, f"        {line}\n{SCORES}"), *more)


def test_the_first_failing_checks_prints_are_shown_once(course: Path) -> None:
    """Catches prints that are swallowed, and those that a diagnosis repeats: the check calls
    forward twice, the diagnosis twenty times more.
    """
    with_line(course, 'print("looking at", tuple(q.shape))')
    checked = learn(course, "check", "3").stdout
    assert checked.count("looking at (3, 4)") == 1
    assert checked.count("What your code printed during this check:") == 1
    assert "times)" not in checked
    tested = run(course, "pytest", FOLDER).stdout
    assert tested.count("looking at (3, 4)") == 1
    assert tested.count("Captured stdout call") == 1
    shown = run(course, "pytest", "-s", "-x", FOLDER).stdout
    assert shown.count("looking at (3, 4)") == 1


def test_a_flood_of_prints_is_cut(course: Path) -> None:
    """Catches a message that nobody finds among megabytes."""
    with_line(course, "for i in range(100_000): print('line', i)")
    for text in (learn(course, "check", "3").stdout, run(course, "pytest", "-x", FOLDER).stdout):
        assert "line 0\n" in text
        assert "more lines; `pytest -s` shows all" in text
        assert len(text) < 6000


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("a\nb\n", "a\nb"),
        ("a\na\na\nb\n", "a\n(the line above: 3 times)\nb"),
        ("q\nk\nq\nk\nq\nk\nend", "q\nk\n(the 2 lines above: 3 times)\nend"),
        ("", ""),
        ("x" * 1000, "x" * 300 + " …"),
    ],
)
def test_what_is_printed_again_and_again_is_shown_once(printed: str, shown: str) -> None:
    """Catches the same shapes, printed by each call, in place of the next thing printed."""
    assert cut_print(printed) == shown


def test_a_long_print_says_how_much_is_left() -> None:
    """Catches lines that go missing without a word."""
    lines = cut_print("\n".join(map(str, range(100)))).splitlines()
    assert len(lines) == PRINTED_LINES + 1
    assert lines[-1] == f"… and {100 - PRINTED_LINES} more lines; `pytest -s` shows all"


def test_breakpoint_stops_in_the_learners_own_frame(course: Path) -> None:
    """Catches a debugger in the runner's frames, and one that can't be left."""
    with_line(course, "breakpoint()")
    terminal = Terminal(course, "pytest", "-x", FOLDER)
    assert "problem.py" in terminal.read_until("(Pdb) ")
    terminal.press("p q.shape\n")
    assert "torch.Size([3, 4])" in terminal.read_until("(Pdb) ")
    terminal.press("q\n")
    assert terminal.end() == 2
    assert "Quitting debugger" in terminal.shown
    assert "1 failed" not in terminal.shown


def test_pdb_stops_where_the_learners_code_raised(course: Path) -> None:
    """Catches a post-mortem in the plugin, or deep inside torch."""
    with_line(course, "torch.zeros(2, 3) @ torch.zeros(2, 3)")
    terminal = Terminal(course, "pytest", "-x", "--pdb", FOLDER)
    terminal.read_until("(Pdb) ")
    terminal.press("p tuple(k.shape)\n")
    assert "(2, 4)" in terminal.read_until("(Pdb) ")
    terminal.press("q\n")
    assert terminal.end() == 2


def test_pdb_says_how_to_get_in_when_the_code_had_returned(course: Path) -> None:
    """Catches a learner left in a frame that is not theirs, without a word."""
    write(course, 3, UNSCALED)
    terminal = Terminal(course, "pytest", "-x", "--pdb", FOLDER)
    said = " ".join(terminal.read_until("(Pdb) ").split())
    assert "Your code had returned when this check failed" in said
    assert f"write breakpoint() into {FOLDER}/problem.py" in said
    assert "test_scaled_dot_product.py" in said
    terminal.press("q\n")
    assert terminal.end() == 2


@pytest.mark.parametrize("line", ["breakpoint()", "import pdb; pdb.set_trace()"])
def test_learn_check_says_where_a_debugger_stops(course: Path, line: str) -> None:
    """Catches BdbQuit, a hang, or a time limit where no terminal is."""
    with_line(course, line)
    done = learn(course, "check", "3")
    said = " ".join(done.stdout.split())
    assert "asks for a debugger, which needs a terminal of its own" in said
    assert f"`pytest {FOLDER}` stops there" in said
    assert line in said


def test_whoever_stands_in_a_debugger_has_no_time_limit() -> None:
    """Catches a limit that ends the looking: seen in the frames, also from another thread."""
    frame = sys._getframe()
    assert not in_debugger(frame)
    frame.f_trace = lambda *_: None
    try:
        assert in_debugger(frame)
    finally:
        frame.f_trace = None
    prompt = {"__name__": "pdb"}
    exec("import sys\nframe = sys._getframe()", prompt)
    assert in_debugger(prompt["frame"])
