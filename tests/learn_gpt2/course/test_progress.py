"""The board is true: forced pieces, refused swaps, pytest's results, and what each is called."""

import json
import re
from pathlib import Path

import pytest

from learn_gpt2 import manifest
from learn_gpt2.assembly import swap
from learn_gpt2.assembly.sections import split
from learn_gpt2.checking.runner import verdict
from learn_gpt2.course import progress
from tests.learner import UNSCALED, learn, run, solve, write

FORCED = "fails, forced into the model"


def standing(course: Path, number: int) -> progress.Standing:
    """One row of the board."""
    return progress.standings(course)[number - 1]


@pytest.fixture
def forced(course: Path) -> Path:
    """A course whose model has a wrong 03, by force."""
    write(course, 3, UNSCALED)
    done = learn(course, "swap", "3", "--force")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FORCED: 1 of " in done.stdout
    return course


def test_a_forced_piece_never_reads_as_passed(forced: Path) -> None:
    """Catches "18 of 18 passed" with a piece that is known to fail, in any command that shows it;
    also when what was remembered is lost.
    """
    for _ in range(2):
        row = standing(forced, 3)
        assert (row.state, row.words, row.fails_in_model) == (FORCED, FORCED, True)
        board = learn(forced, "status").stdout
        assert f"✗ 03 Scaled dot product       {FORCED}" in board
        assert "0 of 18 passed, 1 of yours run in src/gpt2/ (03 fails)." in board
        assert "Next: learn check 03" in board
        (forced / ".learn" / "progress.json").unlink(missing_ok=True)
    assert "fails its checks" in learn(forced, "next").stdout
    pieces = learn(forced, "swap").stdout.splitlines()
    assert FORCED in next(line for line in pieces if line.startswith("  03"))
    tested = run(forced, "pytest", "-q", "problems/05-causal-masking").stdout
    assert f"builds on 03 yours ({FORCED}), 04 reference" in tested


def test_a_forced_piece_stays_forced_through_other_swaps(forced: Path) -> None:
    """Catches a mark that the next swap, or the reading back of model.py, wipes out."""
    solve(forced, 6)
    assert learn(forced, "swap", "6").returncode == 0
    assert standing(forced, 3).state == FORCED
    assert standing(forced, 6).state == progress.PASSED
    pieces = split(swap.read_model(forced))
    assert [n for n, piece in pieces.items() if piece.forced] == [3]
    write(forced, 3, UNSCALED, ("import math", "import math  # later"))
    row = standing(forced, 3)  # the file is another one now; the model's piece still fails
    assert (row.state, row.fails_in_model) == (progress.IN_PROGRESS, True)
    assert "fails its checks, your file changed since" in row.in_model


def test_a_mended_piece_is_forced_no_more(forced: Path) -> None:
    """Catches a piece that stays marked when its checks pass."""
    solve(forced, 3)
    assert learn(forced, "check", "3").returncode == 0
    row = standing(forced, 3)
    assert (row.state, row.fails_in_model) == (progress.PASSED, True)  # the old one is in there
    assert learn(forced, "swap", "3").returncode == 0
    row = standing(forced, 3)
    assert (row.state, row.fails_in_model, row.in_model) == (progress.PASSED, False, "yours")
    assert "forced" not in swap.read_model(forced)


def test_forcing_twice_says_that_it_fails(forced: Path) -> None:
    """Catches "it is in the model already" with no word of its checks."""
    again = learn(forced, "swap", "3", "--force")
    assert "in the model already: forced, since its checks don't pass" in again.stdout
    refused = learn(forced, "swap", "3")
    assert refused.returncode == 1
    assert "[no-scale]" in refused.stdout


@pytest.mark.parametrize("command", ["check", "pytest"])
def test_a_right_piece_on_a_forced_one_is_not_blamed(forced: Path, command: str) -> None:
    """Catches 04 blamed for what 03 does."""
    solve(forced, 4)
    if command == "check":
        done = learn(forced, "check", "4")
    else:
        done = run(forced, "pytest", "problems/04-multi-head-attention")
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert f"builds on 03 yours ({FORCED})" in said
    assert "Your 04 passes this check on the reference's pieces." in said
    assert "it stands on your 03, which fails its own checks: forced in" in said
    assert "learn check 03" in said
    assert "learn swap --reference 03" in said
    entry = progress.entry(forced, progress.manifest.get(4))
    assert entry["mistakes"] == ["stands-on-forced"]
    assert "comes from an earlier piece" in learn(forced, "hint", "4").stdout


def test_a_wrong_piece_on_a_forced_one_is_told_its_own_mistake(forced: Path) -> None:
    """Catches a mistake of 04 that hides behind 03's."""
    write(forced, 4, ("q, k, v = map(self.split_heads", "k, q, v = map(self.split_heads"))
    done = learn(forced, "check", "4", "--json")
    report = json.loads(done.stdout)[0]
    first = next(r for r in report["results"] if r["status"] == "failed")
    assert first["mistakes"] != ["stands-on-forced"]
    assert "qkv-order" in first["mistakes"]


def test_pytest_on_a_whole_problem_reaches_the_board(course: Path) -> None:
    """Catches a result that only `learn check` keeps, and one that is not about the file."""
    write(course, 3, UNSCALED)
    run(course, "pytest", "-q", "problems/03-scaled-dot-product", "--solutions")
    run(course, "pytest", "-q", "problems/03-scaled-dot-product", "-k", "builds")
    assert standing(course, 3).words == "in progress (not checked yet)"
    run(course, "pytest", "-q", "problems/03-scaled-dot-product")
    row = standing(course, 3)
    assert row.checked
    assert 0 < row.passed < row.total
    assert f"({row.passed} of {row.total} checks pass)" in row.words
    assert "03 hint 2:" in learn(course, "hint", "3").stdout
    solve(course, 3)
    assert standing(course, 3).words == "in progress (changed since its last check)"
    run(course, "pytest", "-q", "problems/03-scaled-dot-product")
    assert standing(course, 3).words == "passed"


def test_a_refused_swap_reaches_the_board(course: Path) -> None:
    """Catches checks that ran, failed, and left no trace; and skipped ones that count as failed."""
    write(course, 3, UNSCALED)
    refused = learn(course, "swap", "3")
    assert refused.returncode == 1
    assert "don't pass" not in refused.stdout
    assert standing(course, 3).checked
    entry = progress.entry(course, progress.manifest.get(3))
    assert entry["mistakes"] == ["no-scale"]
    assert entry["failed"] < entry["total"] - entry["passed"]


def test_a_file_that_does_not_parse_was_checked(course: Path) -> None:
    """Catches "changed since its last check" of a file that nobody has touched since."""
    path = write(course, 3)
    path.write_text("def forward(:\n", encoding="utf-8")
    assert learn(course, "check", "3").returncode == 1
    assert standing(course, 3).words.startswith("in progress (0 of")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((14, 0, 0), "all 14 checks pass"),
        ((14, 1, 13), "1 of 14 checks fails, and 13 more wait for it"),
        ((14, 1, 1), "1 of 14 checks fails, and 1 more waits for it"),
        ((14, 3, 2), "3 of 14 checks fail, and 2 more wait for them"),
        ((14, 2, 0), "2 of 14 checks fail"),
    ],
)
def test_a_skipped_check_has_not_failed(counts: tuple[int, int, int], words: str) -> None:
    """Catches "14 of 14 checks don't pass" where one failed and 13 were not run."""
    assert verdict(*counts) == words


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<<<<<<< HEAD\nx = 1\n", "Git leaves such a mark"),
        ("def f():\n    x = 1\n\ty = 2\n", "turn all tabs into spaces"),
        ("def f():\n    x = 1\n   y = 2\n", "Lines of one block begin in the same column"),
        ("x = (1,\n", "was never closed"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_told_once(course: Path, text: str, says: str) -> None:
    """Catches sixteen failures of a file that no check has looked at."""
    write(course, 3).write_text(text, encoding="utf-8")
    said = learn(course, "check", "3").stdout
    assert says in said
    assert re.search(r"None of the \d+ checks could run\.", said)
    assert "✗" not in said
    assert "learn hint" not in said


# ── eighteen ────────────────────────────────────────────────────────────────────────────────────


def finish(course: Path, numbers: range) -> None:
    """The solutions as the learner's files, and swapped in."""
    solve(course, *numbers)
    texts = swap.assemble_files(course, dict.fromkeys(numbers, "yours"))
    swap.write_together(course, {swap.file_path(course, m): t.encode() for m, t in texts.items()})


def test_the_board_has_two_parts(course: Path) -> None:
    """Catches a board of twelve, or one that doesn't say where part two begins."""
    lines = learn(course, "status").stdout.splitlines()
    assert lines[12] == "  Part two: the engine around it"
    numbers = [int(line.split()[1]) for line in lines[:12] + lines[13:19]]
    assert numbers == list(range(1, 19))
    assert lines[19] == "0 of 18 passed, 0 of yours run in src/gpt2/."


def test_after_the_twelve_part_two_is_next(course: Path) -> None:
    """Catches a course that ends at twelve, or that leads on without a word of what is done."""
    finish(course, range(1, 13))
    said = learn(course, "status").stdout
    assert "12 of 18 passed, 12 of yours run in src/gpt2/." in said
    assert "Next: learn next    (the model is yours, and `gpt2 generate` lets it write" in said
    assert "problems/13-text-generation/README.md" in said
    assert "13 Text generation (medium, 60–90 min)" in learn(course, "next").stdout
    solve(course, 13)
    assert "Next: learn check 13" in learn(course, "status").stdout


def test_the_end_says_what_share_is_the_learners(course: Path) -> None:
    """Catches an ending that nobody notices, or a share that counts what is not the learner's."""
    finish(course, range(1, 19))
    said = learn(course, "status").stdout
    assert "18 of 18 passed, 18 of yours run in src/gpt2/." in said
    found = re.search(r"finished the course: ([\d,]+) of the ([\d,]+) lines .* \((\d+) %\)", said)
    own, whole, percent = (int(part.replace(",", "")) for part in found.groups())
    assert (own, whole) == progress.share(course)
    text = swap.read_model(course)
    head = text[: text.index("# ── 01 ")]
    assert whole - own == sum(bool(line.strip()) for line in head.splitlines())
    assert percent == round(100 * own / whole) > 90
    swap.swap(course, [manifest.get(14)], "reference")
    assert "That was all of it" not in learn(course, "status").stdout
    gone = [line for line in swap.read_model(course, "cache.py").splitlines()[1:] if line.strip()]
    assert progress.share(course) == (own - len(gone), whole)
