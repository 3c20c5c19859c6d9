"""Processes for code that may do anything: an answer comes, or why there is none."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from learn_gpt2.checking import child

ROOT = Path(__file__).resolve().parents[3]
START = "import json, os, subprocess, sys, time; from learn_gpt2.checking.child import answering\n"
SLEEPER = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']{}).pid"


def command(code: str) -> list[str]:
    return child.python("-c", START + code)


def ask(code: str, seconds: float = 30.0) -> object:
    return child.ask(command(code), seconds, child.environment(ROOT))


def gone(pid: int, within: float = 10.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_only_the_marked_line_is_the_answer() -> None:
    """Catches an answer that foreign code prints, before, behind or instead of the real one."""
    fake = 'print(json.dumps({"points": 18})); '
    assert ask(f'send = answering(); {fake}os.write(1, b"1\\n"); send({{"points": 0}})') == {
        "points": 0
    }
    assert ask('print("[1]\\n{}"); answering()([None, "é\\u2028"])') == [None, "é\u2028"]
    with pytest.raises(child.NoAnswer):
        ask(f"answering(); {fake}")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("os._exit(7)", ("no output", 7)),
        ("raise RuntimeError('no such luck')", ("RuntimeError: no such luck", 1)),
        ("answering(); sys.exit('gave up')", ("gave up", 1)),
        ("sys.stdout.close(); os.close(0); raise SystemExit(3)", ("no output", 3)),
    ],
)
def test_why_no_answer_came(code: str, said: tuple[str, int]) -> None:
    """Catches a message that does not say how the process ended."""
    with pytest.raises(child.NoAnswer) as caught:
        ask(code)
    assert (str(caught.value), caught.value.code) == said
    assert not caught.value.late


@pytest.mark.parametrize(
    "code",
    [
        "time.sleep(300)",
        "send = answering()\nwhile True: pass",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)",
        "while True: print('x' * 100_000)",
    ],
)
def test_a_process_that_goes_on_is_ended(code: str) -> None:
    """Catches a wait without an end."""
    started = time.monotonic()
    with pytest.raises(child.NoAnswer) as caught:
        ask(code, seconds=2.0)
    assert caught.value.late
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("detached", ["", ", start_new_session=True"])
def test_what_it_started_ends_with_it(tmp_path: Path, detached: str) -> None:
    """Catches processes of a learner's file that outlive the check, also detached ones."""
    started = f"p = {SLEEPER.format(detached)}; open(sys.argv[1], 'w').write(str(p)); "
    note = tmp_path / "pid"
    done = child.run(
        [*command(started + "time.sleep(300)"), str(note)], 4.0, child.environment(ROOT)
    )
    assert done.code is None
    assert gone(int(note.read_text()))


@pytest.mark.skipif(os.name != "posix", reason="Windows does not know whose child it was")
def test_what_it_started_ends_after_it_too(tmp_path: Path) -> None:
    """Catches a process that stays because the one that started it has ended by itself."""
    note = tmp_path / "pid"
    quiet = ", stdout=subprocess.DEVNULL"
    code = f"open(sys.argv[1], 'w').write(str({SLEEPER.format(quiet)}))"
    done = child.run([*command(code), str(note)], 30.0, child.environment(ROOT))
    assert done.code == 0
    assert gone(int(note.read_text()))


def test_the_whole_of_what_it_said_and_its_last_words() -> None:
    """Catches output cut at a pipe's size, input that is not read, and a lost error."""
    big = "x" * 3_000_000
    code = "print(len(sys.stdin.read())); print('y' * 3_000_000); sys.exit('the end')"
    done = child.run(command(code), 30.0, child.environment(ROOT), told=big.encode())
    assert done.output.splitlines() == ["3000000", "y" * 3_000_000]
    assert (done.last_words, done.code) == ("the end", 1)
    unread = child.run(command(""), 30.0, child.environment(ROOT), told=big.encode())
    assert (unread.output, unread.code) == ("", 0)


def test_a_child_that_stays_is_asked_line_by_line() -> None:
    """Catches answers that are mixed up, cut, waited for too long, or too long."""
    code = "for line in sys.stdin: n = int(line); print('z' * n, flush=True)"
    with child.Child(command(code), child.environment(ROOT)) as echo:
        until = time.monotonic() + 30
        for count in (3, 0, 200_000, 1):
            echo.tell(f"{count}\n".encode())
            assert echo.line(until).strip() == b"z" * count
        echo.tell(b"5\n")
        assert echo.exactly(3, until) == b"zzz"
        assert echo.line(until).strip() == b"zz"
        with pytest.raises(child.NoAnswer) as caught:
            echo.line(time.monotonic() + 0.2)
        assert caught.value.late
        echo.tell(b"500000\n")
        with pytest.raises(child.NoAnswer, match="more than 1000 bytes"):
            echo.line(until, most=1000)
        echo.tell(b"what\n")
        ended = echo.rest(until)
        assert ended.strip().endswith(b"z")
        with pytest.raises(child.NoAnswer) as caught:
            echo.line(until)
        assert caught.value.code == 1
    with pytest.raises(child.NoAnswer):
        echo.tell(b"1\n")
    assert sys.executable in child.python()
