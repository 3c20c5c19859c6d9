"""`learn swap` and its module: what goes into model.py, what is refused, what comes back."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from learn_gpt2 import cli, manifest
from learn_gpt2.assembly import swap
from learn_gpt2.assembly.sections import sections_of
from learn_gpt2.checking.runner import Report, Result
from learn_gpt2.manifest import MODEL_FILE, PROBLEMS

ROOT = Path(__file__).resolve().parents[3]

UNSCALED = '''"""A wrong answer to problem 03: the scores are not scaled."""

import torch
from torch import nn

MINUS = float("-inf")


class ScaledDotProductAttention(nn.Module):
    def __init__(self, n_embd, dropout=0.1):
        super().__init__()
        self.dropout = nn.Dropout(dropout)

    def forward(self, q, k, v, mask=None):
        scores = q @ k.transpose(-2, -1)  # no √d_k
        if mask is not None:
            scores = scores.masked_fill(~mask, MINUS)
        weights = self.dropout(torch.softmax(scores, dim=-1))
        return weights @ v, weights
'''


@pytest.fixture
def course(tmp_path) -> Path:
    """A copy of the course whose problem.py files are finished; the reference is in the model."""
    root = tmp_path / "a course, copied"
    ignore = shutil.ignore_patterns("__pycache__", "*.safetensors", "bundled", "*.ipynb")
    for folder in ("problems", "solutions", "src/gpt2", "src/learn_gpt2"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignore)
    for module, text in swap.assemble_files(root, {}).items():
        swap.write_atomically(swap.file_path(root, module), text.encode())
    for problem in PROBLEMS:
        text = problem.solution_path(root).read_text(encoding="utf-8")
        problem.problem_path(root).write_text(text + "\n# mine\n", encoding="utf-8")
    return root


@pytest.fixture
def unverified(monkeypatch):
    """Leave out the trial run in another process, where a test is about something else."""
    monkeypatch.setattr(
        swap, "verify", lambda root, texts: [compile(t, m, "exec") for m, t in texts.items()]
    )


def verdict(*failing: int):
    """A stand-in for the runner: the problems named fail their second check."""

    def run_tests(root: Path, problem: manifest.Problem) -> Report:
        bad = problem.number in failing
        results = [
            Result("check_a", "a", "passed"),
            Result("check_b", "b", "failed" if bad else "passed", "is 2.00 times" if bad else ""),
        ]
        return Report(problem.number, str(problem.problem_path(root)), "yours", "", results)

    return run_tests


def put(root: Path, number: int, text: str) -> None:
    """Write a learner's file."""
    PROBLEMS[number - 1].problem_path(root).write_text(text, encoding="utf-8")


def model(root: Path) -> bytes:
    """model.py as it is."""
    return swap.model_path(root).read_bytes()


def owners(root: Path) -> str:
    """One letter per problem of model.py: r for reference, y for yours."""
    return "".join(row.owner[0] for row in swap.board(root)[:12])


def learn(root: Path, *arguments: str):
    """Run the command in this process."""
    return CliRunner().invoke(cli.cli, ["--root", str(root), *arguments])


def run_learn(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `python -m learn_gpt2` of this repository in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "learn_gpt2", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1", **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


LOGITS = """
import torch
from gpt2.model import GPT2Config, GPT2Model
torch.manual_seed(0)
config = GPT2Config(vocab_size=13, n_positions=11, n_embd=6, n_layer=2, n_head=3)
model = GPT2Model(config).eval()
for parameter in model.parameters():
    parameter.data *= 9
with torch.no_grad():
    print(model(torch.arange(10).view(2, 5)).sum().item())
"""


def logits(root: Path) -> float:
    """The sum of the logits that this course's gpt2.model computes."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-P", "-c", LOGITS]
    return float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


# --- the repository ---


def test_model_is_what_the_solutions_give():
    """A solution changed without `learn swap --reference all`, or model.py edited by hand."""
    assert swap.check(ROOT) == ""


def test_an_edit_is_found_and_shown(course):
    """A check that compares nothing."""
    path = swap.model_path(course)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("std=0.02)", "std=0.03)", 1), encoding="utf-8")
    assert "-            nn.init.normal_(module.weight, std=0.02)" in swap.check(course)
    result = learn(course, "swap", "--check")
    assert result.exit_code == 1
    assert "+            nn.init.normal_(module.weight, std=0.03)" in result.output
    path.write_text(text, encoding="utf-8")
    assert learn(course, "swap", "--check").exit_code == 0


def test_windows_line_ends_are_no_difference(course, unverified):
    """A checkout with "\\r\\n" that is taken for an edited one."""
    path = swap.model_path(course)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert swap.check(course) == ""
    assert {row.changed for row in swap.board(course)} == {""}
    swap.swap(course, [PROBLEMS[2]], run_tests=verdict())
    assert b"\r" not in model(course)


# --- in, out and back ---


def test_a_forced_wrong_piece_runs_in_the_model_and_undo_takes_it_out(course):
    """A swap that changes the file and not the model: the block of problem 05 must run this 03."""
    before, expected = model(course), logits(course)
    put(course, 3, UNSCALED)
    refused = swap.swap(course, [PROBLEMS[2]], run_tests=verdict(3))
    assert refused[0].state == "refused"
    assert "1 of 2 checks fails; first check_b: is 2.00 times" in refused[0].message
    assert model(course) == before
    (outcome,) = swap.swap(course, [PROBLEMS[2]], run_tests=verdict(3), force=True)
    assert outcome.state == "swapped"
    assert outcome.message.startswith("FORCED: 1 of 2")
    assert abs(logits(course) - expected) > 1e-3
    row = swap.board(course)[2]
    assert (row.owner, row.path, row.line, row.changed) == (
        "yours",
        "problems/03-scaled-dot-product/problem.py",
        6,
        "",
    )
    assert "# no √d_k" in model(course).decode()
    swap.undo(course)
    assert model(course) == before
    assert logits(course) == expected


def test_right_pieces_of_all_twelve_give_the_same_logits(course):
    """A piece that is lost or doubled when every one of them is the learner's."""
    expected = logits(course)
    text = swap.assemble_model(course, {problem.number: "yours" for problem in PROBLEMS})
    swap.install(course, {MODEL_FILE: text}, "test")
    assert owners(course) == "y" * 12
    assert logits(course) == expected


def test_undo_goes_back_level_by_level(course, unverified):
    """One backup that the next swap overwrites."""
    states = [model(course)]
    for number in (1, 7, 12):
        swap.swap(course, [PROBLEMS[number - 1]], run_tests=verdict())
        states.append(model(course))
    assert len(set(states)) == 4
    for state in states[-2::-1]:
        swap.undo(course)
        assert model(course) == state
    with pytest.raises(ValueError, match="nothing to undo"):
        swap.undo(course)
    swap.swap(course, [PROBLEMS[4]], run_tests=verdict())
    swap.undo(course)
    assert model(course) == states[0]


def test_a_range_stops_at_the_first_refusal_and_undo_takes_all_of_it_back(course, unverified):
    """Pieces behind a refused one swapped in, or one undo per piece of a single command."""
    before = model(course)
    outcomes = swap.swap(course, PROBLEMS[3:8], run_tests=verdict(6))
    states = [(o.number, o.state) for o in outcomes]
    assert states == [
        (4, "swapped"),
        (5, "swapped"),
        (6, "refused"),
        (7, "not tried"),
        (8, "not tried"),
    ]
    assert owners(course) == "rrryyrrrrrrr"
    swap.undo(course)
    assert model(course) == before


def test_each_piece_is_tested_on_top_of_those_before_it(course, unverified):
    """Tests of problem 5 that run against the model from before problem 4 was swapped in."""
    seen = []

    def run_tests(root, problem):
        seen.append(owners(root))
        return verdict()(root, problem)

    swap.swap(course, PROBLEMS[3:6], run_tests=run_tests)
    assert seen == ["rrrrrrrrrrrr", "rrryrrrrrrrr", "rrryyrrrrrrr"]


def test_the_reference_comes_back_and_the_rest_stays(course, unverified):
    """`--reference 8-12` that resets other problems too."""
    swap.swap(course, PROBLEMS, run_tests=verdict())
    assert owners(course) == "y" * 12
    outcomes = swap.swap(course, PROBLEMS[7:], "reference")
    assert {o.state for o in outcomes} == {"swapped"}
    assert owners(course) == "yyyyyyyrrrrr"
    swap.swap(course, PROBLEMS, "reference")
    assert swap.check(course) == ""


def test_the_state_is_in_the_model_itself(course, unverified):
    """Whose piece is where forgotten with .learn/."""
    swap.swap(course, PROBLEMS[2:5], run_tests=verdict())
    shutil.rmtree(course / ".learn")
    assert owners(course) == "rryyyrrrrrrr"
    assert {row.changed for row in swap.board(course)} == {""}


def test_a_swapped_piece_stays_while_its_file_changes(course, unverified):
    """Another swap that takes a half-edited file along, or fails because of it."""
    put(course, 3, UNSCALED)
    swap.swap(course, [PROBLEMS[2]], run_tests=verdict())
    put(course, 3, "class Half(:\n")
    assert swap.board(course)[2].changed == "your file changed since"
    for _ in range(2):
        swap.swap(course, [PROBLEMS[4]], run_tests=verdict())
        swap.swap(course, [PROBLEMS[4]], "reference")
    assert "# no √d_k" in model(course).decode()
    row = swap.board(course)[2]
    assert (row.owner, row.line) == ("yours", 6)
    PROBLEMS[2].problem_path(course).unlink()
    assert swap.board(course)[2].changed == "your file can't be read"
    assert swap.current_pieces(course)[3].digest == row.digest


def test_the_board_tells_what_changed(course, unverified):
    """A changed solution or a hand-edited section that nobody hears of."""
    path = PROBLEMS[5].solution_path(course)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("self.drop = nn", "self.drop  = nn"), encoding="utf-8")
    changed = {row.number: row.changed for row in swap.board(course) if row.changed}
    assert changed == {6: "differs from solutions/"}
    swap.swap(course, [PROBLEMS[0]], run_tests=verdict())
    path = swap.model_path(course)
    edited = path.read_text(encoding="utf-8").replace("# (T,)", "# (T)")
    path.write_text(edited, encoding="utf-8")
    changed = {row.number: row.changed for row in swap.board(course) if row.changed}
    assert changed == {1: "edited in model.py"}


def test_swapping_what_is_in_already_runs_no_tests(course, unverified):
    """A needless backup and a needless test run."""
    swap.swap(course, [PROBLEMS[2]], run_tests=verdict())
    (outcome,) = swap.swap(course, [PROBLEMS[2]], run_tests=None)
    assert outcome.state == "unchanged"
    assert len(list(swap.backup_folder(course).glob("*-before-*"))) == 1


# --- what must not get in ---

BAD = {
    "import fails": ("raise RuntimeError('no')", "can't be imported.*RuntimeError: no"),
    "ends Python": ("import os; X = os._exit(0)", "ended Python .exit code 0. before it had run"),
    "loops": ("while True: X = 1", "still running after 3 s"),
    "forward fails": ("", r"doesn't run.*`return self\.nothing`.$"),
    "wrong shape": ("", r"must have shape \(2, 5, 11\)"),
    "no class": ("", "must provide a class SimpleAttention"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_model_that_does_not_run_is_not_written(course, case, monkeypatch):
    """A piece that passes its tests, or is forced, and then breaks the model for all else."""
    line, message = BAD[case]
    before = model(course)
    number = 6
    text = PROBLEMS[5].solution_path(course).read_text(encoding="utf-8")
    if case == "no class":
        number, text = 2, "SimpleAttention = lambda n: None\n"
    elif case == "forward fails":
        text = text.replace('return F.gelu(x, approximate="tanh")', "return self.nothing")
    elif case == "wrong shape":
        number = 10
        text = PROBLEMS[9].solution_path(course).read_text(encoding="utf-8")
        text = text.replace("self.lm_head(self.ln_f(x))", "self.lm_head(self.ln_f(x))[0]")
    else:
        text = text.replace("class NewGELU", f"def X(): pass\n{line}\n\nclass NewGELU", 1)
        text = text.replace("raise RuntimeError", "for X in [X]: raise RuntimeError")
        text = text.replace('"""GELU in', 'x = X\n    """GELU in')
    put(course, number, text)
    if case == "loops":
        monkeypatch.setattr(swap, "VERIFY_SECONDS", 3)
    (outcome,) = swap.swap(course, [PROBLEMS[number - 1]], run_tests=verdict(), force=True)
    assert outcome.state == "refused"
    assert re.search(message, outcome.message), outcome.message
    assert model(course) == before
    assert not list(swap.model_path(course).parent.glob(".model*")), "a file was left behind"
    assert not swap.backup_folder(course).exists()


def test_a_file_that_changes_while_its_tests_run_is_refused(course, unverified):
    """Text that no test has seen."""

    def run_tests(root, problem):
        put(root, 3, UNSCALED)
        return verdict()(root, problem)

    before = model(course)
    (outcome,) = swap.swap(course, [PROBLEMS[2]], run_tests=run_tests)
    assert "changed while its checks ran" in outcome.message
    assert model(course) == before


def test_a_model_that_changes_meanwhile_is_not_overwritten(course, unverified):
    """Two swaps at once, of which the first is lost."""

    def run_tests(root, problem):
        swap.model_path(root).write_text("# other\n", encoding="utf-8")
        return verdict()(root, problem)

    (outcome,) = swap.swap(course, [PROBLEMS[2]], run_tests=run_tests)
    assert "changed by something else" in outcome.message
    assert model(course) == b"# other\n"


def test_a_wrecked_model_is_written_anew_and_kept(course, unverified):
    """No way back from a model.py that was overwritten, or a way that loses it."""
    wreck = b"x = 'caf\xe9'\n"
    swap.model_path(course).write_bytes(wreck)
    for arguments in (["05"], []):
        result = learn(course, "swap", *arguments)
        assert result.exit_code == 1 or isinstance(result.exception, ValueError)
    assert model(course) == wreck
    swap.swap(course, PROBLEMS, "reference")
    assert swap.check(course) == ""
    assert next(swap.backup_folder(course).glob("*-before-*")).read_bytes() == wreck
    swap.undo(course)
    assert model(course) == wreck
    swap.model_path(course).unlink()
    with pytest.raises(ValueError, match="is not there"):
        swap.board(course)
    swap.swap(course, PROBLEMS, "reference")
    assert swap.check(course) == ""


def test_other_sources(course, tmp_path):
    """A file from anywhere in place of a piece, as graders and comparisons need it."""
    path = tmp_path / "student.py"
    path.write_text(UNSCALED, encoding="utf-8")
    text = swap.assemble_model(course, {3: path, 1: "yours"})
    assert "# no √d_k" in text
    assert next(s for s in sections_of(text) if s.number == 3).owner == "file"
    with pytest.raises(ValueError, match="no problem 19"):
        swap.assemble_model(course, {19: "yours"})
    with pytest.raises(ValueError, match="not 'mine'"):
        swap.assemble_model(course, {3: "mine"})
    with pytest.raises(FileNotFoundError, match=r"none\.py is not there\. Problem 03 has no piece"):
        swap.assemble_model(course, {3: tmp_path / "none.py"})


# --- the command ---


def test_help_is_quick_and_imports_nothing_heavy(course):
    """`learn --help` that waits for torch."""
    code = (
        "import sys; from learn_gpt2 import cli\n"
        "for words in (['--help'], ['swap', '--help'], ['swap'], ['swap', '--check']):\n"
        "    try: cli.main(words)\n"
        "    except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'transformers', 'matplotlib', 'pytest'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = {**os.environ, "PYTHONPATH": str(course / "src"), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=course, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swap", "19"], "no problem '19'"),
        (["swap", "7-1"], "runs backwards"),
        (["swap", ","], "which problems"),
        (["swap", "--reference"], "which problems"),
        (["swap", "--force"], "which problems"),
        (["swap", "--undo", "--check"], "stand alone"),
        (["swap", "--check", "5"], "stand alone"),
        (["swap", "--reference", "--force", "5"], "--force is for your pieces"),
        (["nonsense"], "No such command"),
    ],
)
def test_a_wrong_call_ends_with_2(course, arguments, message):
    """A wrong call that does something, or passes for a failure of the course."""
    result = learn(course, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_failures_are_one_line_and_end_with_1(course, tmp_path):
    """A traceback."""
    for cwd, arguments in ((tmp_path, ["swap"]), (course, ["swap", "--undo"])):
        done = run_learn(cwd, *arguments)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("learn: ")
        assert done.stderr.count("\n") == 1


def test_the_command_swaps_undoes_and_prints_json(course, unverified, monkeypatch):
    """Output that a program can't read, or an exit code that says otherwise."""
    monkeypatch.setattr("learn_gpt2.checking.runner.run_isolated", verdict(6))
    result = learn(course, "swap", "5-7", "--json")
    assert result.exit_code == 1
    assert [o["state"] for o in json.loads(result.output)] == ["swapped", "refused", "not tried"]
    rows = json.loads(learn(course, "swap", "--json").output)
    assert [row["owner"][0] for row in rows] == list("rrrryrrrrrrr" + "r" * 6)
    result = learn(course, "swap", "6", "--force")
    assert result.exit_code == 0
    assert "FORCED" in result.output
    result = learn(course, "swap", "--undo")
    assert "before `learn swap 6`; 1 more to undo" in result.output
    assert json.loads(learn(course, "swap", "--undo", "--json").output)["left"] == 0
    assert json.loads(learn(course, "swap", "--check", "--json").output)["same"] is True
    assert "05 Causal masking" in learn(course, "swap").output


def test_a_copied_course_is_its_own(course):
    """The command of one checkout, run inside another: it must use and change the other alone."""
    form = course / "src" / "learn_gpt2" / "assembly" / "sections.py"
    form.write_text(
        form.read_text(encoding="utf-8").replace("GPT-2, bottom-up", "COPIED"), encoding="utf-8"
    )
    here = swap.model_path(ROOT).read_bytes()
    for cwd, words in ((course / "problems", []), (ROOT, ["--root", str(course)])):
        done = run_learn(cwd, *words, "swap", "--check")
        assert done.returncode == 1
        assert '-"""COPIED: from token ids' in done.stdout, done.stdout + done.stderr
    done = run_learn(course, "swap", "--reference", "all")
    assert done.returncode == 0, done.stderr
    assert model(course).startswith(b'"""COPIED')
    assert swap.model_path(ROOT).read_bytes() == here


def test_the_tests_of_a_piece_decide(course):
    """A swap that does not ask the runner: a wrong answer must not get in, a right one must."""
    problem = PROBLEMS[2]
    right = problem.problem_path(course).read_text(encoding="utf-8")
    put(course, 3, UNSCALED)
    result = learn(course, "swap", "3")
    assert result.exit_code == 1
    assert "Use --force to put it in anyway" in result.output
    put(course, 3, right)
    (outcome,) = swap.swap(course, [problem])
    assert outcome.state == "swapped", outcome.message
