"""The learner's commands: board, check, hint, reset, undo, solution, bisect, update."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from learn_gpt2 import manifest
from learn_gpt2.assembly import bisection, swap
from learn_gpt2.course import backups, progress, update

ROOT = Path(__file__).resolve().parents[3]


def learn(course: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
    """The command, as from a terminal, in a copy of the course."""
    return subprocess.run(
        [sys.executable, "-m", "learn_gpt2", *arguments],
        cwd=course,
        env={**os.environ, "PYTHONPATH": str(course / "src")},
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


def solve(course: Path, *numbers: int) -> None:
    for number in numbers:
        problem = manifest.get(number)
        shutil.copy(problem.solution_path(course), problem.problem_path(course))


def board(course: Path) -> dict[int, dict]:
    done = learn(course, "status", "--json")
    assert done.returncode == 0, done.stderr
    return {row["number"]: row for row in json.loads(done.stdout)["problems"]}


def break_scale(course: Path) -> None:
    solve(course, 3)
    path = manifest.get(3).problem_path(course)
    text = path.read_text(encoding="utf-8")
    assert " * self.scale" in text
    path.write_text(text.replace(" * self.scale", ""), encoding="utf-8")


def test_the_board_follows_a_problem_from_untouched_to_swapped(course: Path) -> None:
    """Catches a board that is behind the files, in any of its states."""
    assert board(course)[3]["state"] == "untouched"
    break_scale(course)
    assert board(course)[3]["state"] == "in progress"
    checked = learn(course, "check", "3")
    assert checked.returncode == 1
    assert "[no-scale]" in checked.stdout
    row = board(course)[3]
    assert 0 < row["passed"] < row["total"]
    assert row["checked"]
    solve(course, 3)
    assert board(course)[3]["checked"] is False
    swapped = learn(course, "check", "3", "--swap")
    assert swapped.returncode == 0, swapped.stdout
    assert (board(course)[3]["state"], board(course)[3]["swapped"]) == ("passed", "yours")
    path = manifest.get(3).problem_path(course)
    path.write_text(path.read_text(encoding="utf-8") + "\n# a thought\n", encoding="utf-8")
    assert board(course)[3]["changed"] == "your file changed since"


@pytest.mark.parametrize("damage", ["{", "[]", '{"03": 7}', None])
def test_progress_is_derived_anew_when_it_is_lost(course: Path, damage: str | None) -> None:
    """Catches a board that dies with its memory."""
    solve(course, 3)
    assert learn(course, "check", "3", "--swap").returncode == 0
    memory = course / ".learn" / "progress.json"
    memory.unlink() if damage is None else memory.write_text(damage, encoding="utf-8")
    assert board(course)[3]["state"] == "passed"


def test_check_without_a_number_takes_the_one_in_progress(course: Path) -> None:
    """Catches a check of the wrong problem."""
    break_scale(course)
    assert learn(course, "check").stdout.startswith("03 ")


def test_check_prints_json(course: Path) -> None:
    """Catches output that no program can read."""
    break_scale(course)
    report = json.loads(learn(course, "check", "3", "--json").stdout)[0]
    assert report["problem"] == 3
    assert {r["status"] for r in report["results"]} == {"passed", "failed", "skipped"}


def test_nothing_is_colored_in_a_pipe(course: Path) -> None:
    """Catches color codes in a file or a pipe."""
    break_scale(course)
    for arguments in (["status"], ["check", "3"], ["swap"], ["next"], []):
        assert "\x1b" not in learn(course, *arguments).stdout


def test_hints_go_one_level_further_each_time(course: Path) -> None:
    """Catches a hint that repeats itself, or gives everything at once."""
    break_scale(course)
    learn(course, "check", "3")
    said = [learn(course, "hint", "3").stdout for _ in range(4)]
    assert [text.splitlines()[0].rpartition("(")[2] for text in said] == [
        "a nudge)",
        "the idea)",
        "nearly the code)",
        "nearly the code)",
    ]
    assert all(text.startswith("03 hint 2:") for text in said)


def test_reset_keeps_a_backup_that_undo_brings_back(course: Path) -> None:
    """Catches lost work."""
    break_scale(course)
    problem = manifest.get(3)
    mine = problem.problem_path(course).read_bytes()
    refused = learn(course, "reset", "3", stdin="n\n")
    assert refused.returncode == 0
    assert "Nothing was reset" in refused.stdout
    assert problem.problem_path(course).read_bytes() == mine
    assert learn(course, "reset", "3", stdin="y\n").returncode == 0
    assert backups.untouched(course, problem)
    assert learn(course, "undo").returncode == 0
    assert problem.problem_path(course).read_bytes() == mine
    again = learn(course, "undo")
    assert again.returncode == 1
    assert "nothing to undo" in again.stderr


def test_reset_all_and_every_undo(course: Path) -> None:
    """Catches a reset of several that keeps only one of them."""
    solve(course, 1, 3, 6)
    before = {n: manifest.get(n).problem_path(course).read_bytes() for n in (1, 3, 6)}
    assert learn(course, "reset", "all", "--yes").returncode == 0
    for _ in before:
        assert learn(course, "undo").returncode == 0
    assert before == {n: manifest.get(n).problem_path(course).read_bytes() for n in (1, 3, 6)}


def test_the_solution_waits_until_it_passes(course: Path) -> None:
    """Catches an answer given away, or a peek that nobody remembers."""
    assert learn(course, "solution", "3").returncode == 1
    assert learn(course, "solution", "3", "--peek", stdin="n\n").returncode == 0
    assert board(course)[3]["peeked"] is False
    seen = learn(course, "solution", "3", "--peek", stdin="y\n")
    assert "class ScaledDotProductAttention" in seen.stdout
    assert board(course)[3]["peeked"] is True
    solve(course, 3)
    learn(course, "check", "3")
    assert learn(course, "solution", "3").returncode == 0
    assert board(course)[3]["peeked"] is True


def test_wrong_calls_exit_with_2_and_failures_with_1(course: Path, tmp_path: Path) -> None:
    """Catches a traceback, or an exit code that a script can't use."""
    for arguments in (["check", "99"], ["hint", "x"], ["reset"], ["reset", "0"], ["nothing"]):
        done = learn(course, *arguments)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr
    elsewhere = learn(tmp_path, "status")
    assert elsewhere.returncode == 1 if not (tmp_path / "src").exists() else True


def test_the_smallest_set_of_culprits_is_found() -> None:
    """Catches a search that names too many, or one of two that only fail together."""
    together = {4, 7}

    def differs(subset):
        return "they differ" if together <= set(subset) else ""

    assert bisection.smallest_difference((3, 4, 5, 7, 8), differs) == ((4, 7), "they differ")
    assert bisection.smallest_difference((3, 5), differs) == ((), "")
    five = {1, 2, 3, 4, 5}
    found, _ = bisection.smallest_difference(range(1, 9), lambda s: "x" if five <= set(s) else "")
    assert set(found) == five


def test_bisect_names_the_piece_that_makes_the_model_wrong(course: Path) -> None:
    """Catches a bisect that blames the wrong piece."""
    solve(course, 4, 6)
    break_scale(course)
    for number in ("3", "4", "6"):
        assert learn(course, "swap", number, "--force").returncode == 0
    done = learn(course, "bisect", "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["culprits"] == [3]


def test_doctor_says_what_to_do(course: Path) -> None:
    """Catches a doctor that sees nothing."""
    manifest.get(5).problem_path(course).unlink()
    done = learn(course, "doctor")
    assert done.returncode == 1
    assert "missing: problems/05-causal-masking/problem.py" in done.stdout
    assert "learn reset 05" in done.stdout


def test_doctor_sees_that_the_set_up_is_old(course: Path) -> None:
    """Catches packages that are behind pyproject.toml, and nobody says so."""
    from learn_gpt2.course import doctor

    ready = course / ".venv" / ".ready-123"
    ready.parent.mkdir()
    ready.touch()
    settings = course / "pyproject.toml"
    for later, stale in ((-100, False), (100, True)):
        when = ready.stat().st_mtime + later
        os.utime(settings, (when, when))
        assert doctor._newer(settings, course) == stale


def test_help_and_status_import_no_torch(course: Path) -> None:
    """Catches a heavy import in what should answer at once."""
    code = (
        "import sys; from learn_gpt2.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    for arguments in (["--help"], ["status"], ["next"], ["swap"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=course,
            env={**os.environ, "PYTHONPATH": str(course / "src")},
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert done.stdout.strip().splitlines()[-1] == "[]", arguments


# ── update ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def upstream(course: Path, tmp_path: Path) -> Path:
    """The course as a git repository that learners clone."""
    repository = tmp_path / "upstream"
    shutil.move(course, repository)
    (repository / ".gitignore").write_text("__pycache__/\n.learn/\n", encoding="utf-8")
    commit(repository, "first version", init=True)
    return repository


def run_git(where: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=where, check=True, capture_output=True)


def commit(where: Path, message: str, init: bool = False) -> None:
    if init:
        run_git(where, "init", "-b", "main")
    run_git(where, "add", "-A")
    run_git(where, "commit", "-m", message)


def clone(upstream: Path, tmp_path: Path) -> Path:
    learner = tmp_path / "learner"
    run_git(tmp_path, "clone", str(upstream), str(learner))
    run_git(learner, "config", "user.name", "learner")
    run_git(learner, "config", "user.email", "learner@example.org")
    return learner


def change_upstream(upstream: Path) -> None:
    """A new version: another test, another reference (and so model), another skeleton."""
    test = manifest.get(3).test_path(upstream)
    test.write_text(test.read_text(encoding="utf-8") + "\n# a new check\n", encoding="utf-8")
    for number in (3, 6):
        solution = manifest.get(number).solution_path(upstream)
        text = solution.read_text(encoding="utf-8")
        solution.write_text(text.replace("# Step 1: ", "# Step 1: newer: "), encoding="utf-8")
    for path in (manifest.get(3).problem_path(upstream), manifest.get(3).skeleton_path(upstream)):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("# TODO 1: ", "# TODO 1: newer: "), encoding="utf-8")
    assert learn(upstream, "swap", "--reference", "all").returncode == 0
    commit(upstream, "second version")


@pytest.mark.parametrize("committed", [False, True], ids=["uncommitted", "committed"])
def test_an_update_keeps_the_learners_work(upstream: Path, tmp_path: Path, committed: bool) -> None:
    """Catches a pull that conflicts with, or overwrites, what the learner did."""
    learner = clone(upstream, tmp_path)
    solve(learner, 3)
    path = manifest.get(3).problem_path(learner)
    path.write_text(path.read_text(encoding="utf-8") + "\n# mine\n", encoding="utf-8")
    assert learn(learner, "check", "3", "--swap").returncode == 0
    before = board(learner)
    if committed:
        commit(learner, "my work")
    mine = path.read_bytes()
    change_upstream(upstream)
    done = learn(learner, "update")
    assert done.returncode == 0, done.stderr
    assert "In the model again: 03" in done.stdout
    assert path.read_bytes() == mine
    assert board(learner) == before
    assert "a new check" in manifest.get(3).test_path(learner).read_text(encoding="utf-8")
    model = (learner / "src/gpt2/model.py").read_text(encoding="utf-8")
    assert "newer: " in model  # the reference's 06
    assert "# ── 03 Scaled dot product ── yours" in model
    assert learn(learner, "check", "3").returncode == 0


def test_a_failed_update_leaves_everything_as_it_was(upstream: Path, tmp_path: Path) -> None:
    """Catches files that stay aside when git can't pull."""
    learner = clone(upstream, tmp_path)
    solve(learner, 3)
    assert learn(learner, "check", "3", "--swap").returncode == 0
    kept = {
        p: p.read_bytes() for p in (manifest.get(3).problem_path(learner), swap.model_path(learner))
    }
    shutil.rmtree(upstream)
    done = learn(learner, "update")
    assert done.returncode == 1
    assert "git pull failed" in done.stderr
    assert {p: p.read_bytes() for p in kept} == kept
    assert not (learner / ".learn" / "update").exists()


def test_an_update_that_was_cut_off_is_put_right(upstream: Path, tmp_path: Path) -> None:
    """Catches work that stays aside when the machine was switched off in the middle."""
    learner = clone(upstream, tmp_path)
    solve(learner, 3)
    mine = manifest.get(3).problem_path(learner).read_bytes()
    update.save(learner)
    manifest.get(3).problem_path(learner).write_bytes(b"half")
    assert learn(learner, "update").returncode == 0
    assert manifest.get(3).problem_path(learner).read_bytes() == mine


def without_part_two(course: Path) -> list[Path]:
    """Make a course one from before part two; what was taken away. Its cache was given then."""
    taken = []
    for problem in manifest.MODULE_PROBLEMS:
        taken += [problem.problem_path(course).parent, problem.solution_path(course)]
        taken += [problem.skeleton_path(course), problem.module_path(course)]
    for path in taken:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (course / "src/gpt2/cache.py").write_bytes(manifest.get(14).solution_path(ROOT).read_bytes())
    return taken


@pytest.mark.parametrize("edited", [False, True], ids=["untouched", "edited by hand"])
def test_an_update_brings_part_two_and_loses_nothing(
    upstream: Path, tmp_path: Path, edited: bool
) -> None:
    """Catches a course of twelve that the update to eighteen breaks, or takes work from: a piece,
    or a line that the learner wrote into the cache while that was given.
    """
    newest = tmp_path / "newest"
    shutil.copytree(upstream, newest, ignore=shutil.ignore_patterns(".git"))
    taken = without_part_two(upstream)
    commit(upstream, "before part two")
    learner = clone(upstream, tmp_path)
    solve(learner, 3)
    assert learn(learner, "swap", "3", "--force").returncode == 0
    mine = manifest.get(3).problem_path(learner).read_bytes()
    if edited:
        with open(learner / "src/gpt2/cache.py", "a", encoding="utf-8") as file:
            file.write("# my note\n")
    shutil.copytree(newest, upstream, dirs_exist_ok=True)
    commit(upstream, "part two")
    done = learn(learner, "update")
    assert done.returncode == 0, done.stderr
    assert "In the model again: 03" in done.stdout
    assert all((learner / path.relative_to(upstream)).exists() for path in taken)
    assert manifest.get(3).problem_path(learner).read_bytes() == mine
    rows = board(learner)
    assert [n for n, row in rows.items() if row["swapped"] == "yours"] == [3]
    assert {rows[n]["state"] for n in range(13, 19)} == {"untouched"}
    assert learn(learner, "swap", "--check").stdout.startswith("src/gpt2/model.py holds pieces")
    kept = learner / ".learn/backups/update-0001/src/gpt2/cache.py"
    assert kept.is_file() == edited
    if edited:
        assert kept.read_text(encoding="utf-8").endswith("# my note\n")
        assert "You had changed src/gpt2/cache.py" in done.stdout


def test_a_whole_file_of_the_learners_survives_an_update(upstream: Path, tmp_path: Path) -> None:
    """Catches an update after which the reference draws the tokens again."""
    learner = clone(upstream, tmp_path)
    solve(learner, 13, 16)
    for number in (13, 16):
        path = manifest.get(number).problem_path(learner)
        path.write_text(path.read_text(encoding="utf-8") + "\n# mine\n", encoding="utf-8")
    texts = swap.assemble_files(learner, {13: "yours", 16: "yours"})
    swap.install(learner, texts, "swap-13-16")
    change_upstream(upstream)
    done = learn(learner, "update")
    assert done.returncode == 0, done.stderr
    assert "In the model again: 13, 16" in done.stdout
    for number in (13, 16):
        problem = manifest.get(number)
        text = problem.module_path(learner).read_text(encoding="utf-8")
        assert text.startswith(f"# ── {number} {problem.title} ── yours ")
        assert text.endswith("# mine\n")


def test_next_step_is_a_command(course: Path) -> None:
    """Catches a board that does not say how to go on."""
    rows = progress.standings(course)
    assert progress.next_step(rows).startswith("learn next")
    solve(course, 1)
    assert progress.next_step(progress.standings(course)).startswith("learn check 01")
