"""`learn swap` on the problems of part two: each of them is a whole file of `src/gpt2/`."""

import codecs
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
from learn_gpt2.assembly import modules, sections, swap
from learn_gpt2.checking.runner import Report, Result
from learn_gpt2.manifest import MODULE_PROBLEMS, MODULES, PROBLEMS

ROOT = Path(__file__).resolve().parents[3]
SAMPLING = manifest.get(13)
HEADER = "# ── 13 Text generation ── yours "


@pytest.fixture
def course(tmp_path) -> Path:
    """A copy of the course whose problem.py files are finished; the reference is in the product."""
    root = tmp_path / "a course, copied"
    ignore = shutil.ignore_patterns("__pycache__", "*.safetensors", "bundled", "*.ipynb", "*.svg")
    for folder in ("problems", "solutions", "src/gpt2", "src/learn_gpt2"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignore)
    for module, text in swap.assemble_files(root, {}).items():
        swap.file_path(root, module).write_text(text, encoding="utf-8", newline="\n")
    for problem in PROBLEMS:
        text = problem.solution_path(root).read_text(encoding="utf-8")
        put(root, problem.number, text + "\n# mine\n")
    return root


@pytest.fixture
def unverified(monkeypatch):
    """Leave out the trial run in another process, where a test is about something else."""
    monkeypatch.setattr(
        swap, "verify", lambda root, texts: [compile(t, m, "exec") for m, t in texts.items()]
    )


def put(root: Path, number: int, data: str | bytes) -> Path:
    """Write a learner's file."""
    path = manifest.get(number).problem_path(root)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


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


def put_in(root: Path, *numbers: int, failing: tuple[int, ...] = (), **options) -> dict[int, str]:
    """`learn swap NUMBERS`: what came of each."""
    chosen = [manifest.get(n) for n in numbers]
    outcomes = swap.swap(root, chosen, run_tests=verdict(*failing), **options)
    return {outcome.number: outcome.state for outcome in outcomes}


def files(root: Path) -> dict[str, bytes]:
    """The seven files as they are."""
    return {module: swap.file_path(root, module).read_bytes() for module in MODULES}


def mine(root: Path) -> list[int]:
    """The problems whose piece in the product is the learner's."""
    return [row.number for row in swap.board(root) if row.owner == "yours"]


def learn(root: Path, *arguments: str):
    """Run the command in this process."""
    return CliRunner().invoke(cli.cli, ["--root", str(root), *arguments])


# --- the repository ---


@pytest.mark.parametrize("problem", MODULE_PROBLEMS, ids=lambda p: p.folder)
def test_a_file_is_a_header_and_the_solution(problem):
    """A module that was edited by hand, or a solution that was changed without a swap."""
    text = problem.module_path(ROOT).read_text(encoding="utf-8")
    header, _, rest = text.partition("\n")
    number, title, path = problem.number, problem.title, f"solutions/{problem.folder}.py:1"
    assert header.startswith(f"# ── {number} {title} ── reference: {path} ─")
    assert rest == problem.solution_path(ROOT).read_text(encoding="utf-8")


def test_every_file_of_the_ground_floor_is_a_problems():
    """A file beside the seven that no problem writes, or one of the seven that is missing."""
    there = {path.name for path in (ROOT / "src" / "gpt2").glob("*.py")}
    assert there - {"__init__.py", "__main__.py", "cli.py"} == set(MODULES)
    assert len(MODULES) == 7


# --- in, out and back ---


def test_a_whole_file_goes_in_and_comes_back(course):
    """A swap that loses part of the file, changes another one, or can't be undone."""
    before = files(course)
    assert put_in(course, 13) == {13: "swapped"}
    after = files(course)
    assert {name for name in MODULES if before[name] != after[name]} == {"sampling.py"}
    text = after["sampling.py"].decode()
    assert text.startswith(HEADER)
    assert ": problems/13-text-generation/problem.py:1 ─" in text.split("\n")[0]
    assert text.partition("\n")[2] == SAMPLING.problem_path(course).read_text(encoding="utf-8")
    assert mine(course) == [13]
    assert put_in(course, 13) == {13: "unchanged"}
    swap.undo(course)
    assert files(course) == before
    with pytest.raises(ValueError, match="nothing to undo"):
        swap.undo(course)


def test_a_section_and_a_file_go_in_together_and_one_undo_takes_both_back(course, unverified):
    """One undo for each file of a single command."""
    before = files(course)
    assert put_in(course, 5, 13, 14) == dict.fromkeys((5, 13, 14), "swapped")
    assert mine(course) == [5, 13, 14]
    backups = sorted(path.name for path in swap.backup_folder(course).glob("*-before-*"))
    assert backups == [
        "0001-before-swap-5-13-14.cache.py",
        "0001-before-swap-5-13-14.py",
        "0001-before-swap-5-13-14.sampling.py",
    ]
    middle = files(course)
    put_in(course, 7)
    swap.undo(course)
    assert files(course) == middle
    swap.undo(course)
    assert files(course) == before


def test_what_is_refused_stays_out_and_what_came_before_it_stays_in(course, unverified):
    """A refused file that is half written, or pieces behind it swapped in."""
    before = files(course)
    states = put_in(course, 5, 13, 14, failing=(13,))
    assert states == {5: "swapped", 13: "refused", 14: "not tried"}
    assert mine(course) == [5]
    assert files(course)["sampling.py"] == before["sampling.py"]
    put(course, 13, "def keep_top_k(logits, k:\n")
    (outcome,) = swap.swap(course, [SAMPLING], run_tests=verdict(), force=True)
    assert outcome.state == "refused"
    assert outcome.message.startswith("problems/13-text-generation/problem.py:1: ")
    swap.undo(course)
    assert files(course) == before


def test_a_forced_file_says_so_until_a_passing_one_replaces_it(course, unverified):
    """A file that fails its checks and looks like any other in the product."""
    assert put_in(course, 13, failing=(13,), force=True) == {13: "swapped"}
    assert ", forced: problems/13" in files(course)["sampling.py"].decode().split("\n")[0]
    assert swap.board(course)[12].forced
    put_in(course, 13)
    assert not swap.board(course)[12].forced


def test_the_reference_comes_back_in_all_files_at_once(course, unverified):
    """`--reference all` that forgets the six files, or writes some of them only."""
    before = files(course)
    put_in(course, *range(1, 19))
    assert mine(course) == list(range(1, 19))
    swap.swap(course, [manifest.get(n) for n in (3, 14)], "reference")
    assert mine(course) == [n for n in range(1, 19) if n not in (3, 14)]
    swap.swap(course, PROBLEMS, "reference")
    assert files(course) == before
    assert swap.check(course) == ""
    swap.undo(course)
    assert mine(course) == [n for n in range(1, 19) if n not in (3, 14)]


def test_all_files_are_written_or_none(course, unverified, monkeypatch):
    """Half of the files the learner's and half the reference's, after a disk was full."""
    put_in(course, *range(1, 19))
    before = files(course)
    written = []
    write = swap.write_atomically

    def full_at_the_fourth(path, data):
        if path.parent.name == "gpt2":
            written.append(path.name)
            if len(written) == 4:
                raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(swap, "write_atomically", full_at_the_fourth)
    with pytest.raises(OSError, match="No space"):
        swap.swap(course, PROBLEMS, "reference")
    assert files(course) == before


def test_a_file_stays_in_while_the_learner_edits_theirs(course, unverified):
    """A swapped file that goes when its source changes or is deleted."""
    put_in(course, 13)
    text = files(course)["sampling.py"]
    put(course, 13, "def half(:\n")
    assert swap.board(course)[12].changed == "your file changed since"
    put_in(course, 14)
    swap.swap(course, [manifest.get(14)], "reference")
    SAMPLING.problem_path(course).unlink()
    assert swap.board(course)[12].changed == "your file can't be read"
    assert files(course)["sampling.py"] == text
    assert swap.current_pieces(course)[13].text == text.decode().partition("\n")[2]
    assert swap.assemble_files(course, swap.current_pieces(course)) == {
        name: data.decode() for name, data in files(course).items()
    }


def test_a_stray_edit_is_found_and_shown(course, unverified):
    """`swap --check` that looks at model.py alone."""
    path = swap.file_path(course, "lora.py")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("class LoRALinear", "class LoRALinear ", 1), encoding="utf-8")
    assert "+class LoRALinear " in swap.check(course)
    assert swap.whose_differences(course) == ([], [16])
    assert swap.board(course)[15].changed == "differs from solutions/"
    result = learn(course, "swap", "--check")
    assert result.exit_code == 1
    assert "src/gpt2/lora.py differs from what the solutions give in 16." in result.output
    put_in(course, 5, 13)
    result = learn(course, "swap", "--check")
    assert "src/gpt2/model.py holds pieces of yours: 05." in result.output
    assert "src/gpt2/sampling.py is your 13." in result.output
    path = swap.file_path(course, "sampling.py")
    path.write_text(path.read_text(encoding="utf-8") + "# stray\n", encoding="utf-8")
    assert swap.board(course)[12].changed == "edited in sampling.py"
    assert learn(course, "swap", "--reference", "all").exit_code == 0
    assert learn(course, "swap", "--check").exit_code == 0


@pytest.mark.parametrize("damage", ["no header", "not there", "not text"])
def test_a_file_that_swap_did_not_write(course, unverified, damage):
    """A damaged file of part two that keeps the whole board, or its own repair, from working."""
    path = swap.file_path(course, "sampling.py")
    data = {"no header": b"x = 1\n", "not text": b"caf\xe9"}.get(damage)
    path.write_bytes(data) if data else path.unlink()
    row = swap.board(course)[12]
    assert row.owner == "unknown"
    assert "sampling.py" in row.changed
    assert put_in(course, 5) == {5: "swapped"}
    swap.swap(course, [SAMPLING], "reference")
    assert swap.board(course)[12].owner == "reference"
    swap.swap(course, [manifest.get(5)], "reference")
    assert swap.check(course) == ""
    swap.undo(course)
    swap.undo(course)
    if data:
        assert path.read_bytes() == data, "what stood there was not kept"


# --- what learners' files look like ---

BODY = SAMPLING.solution_path(ROOT).read_text(encoding="utf-8")
SHAPES = {
    "future": "from __future__ import annotations\n\n" + BODY,
    "docstring and future": '"""Mine."""\nfrom __future__ import annotations\n' + BODY,
    "shebang": "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n" + BODY,
    "utf-8 declared": "# coding: utf8\n" + BODY,
    "latin-1 declared": "# -*- coding: latin-1 -*-\nWORD = 'caf\u00e9'\nimport math\n",
    "latin-1 in line 2": "#!/usr/bin/python\n# vim: set fileencoding=latin-1 :\nW = '\u00e9'\n",
    "windows": BODY.replace("\n", "\r\n"),
    "old mac": BODY.replace("\n", "\r"),
    "byte-order mark": "\ufeff" + BODY,
    "no final newline": BODY.rstrip("\n"),
    "many final newlines": BODY + "\n\n\n",
    "tabs": BODY.replace("    ", "\t"),
    "form feed": "\f" + BODY,
    "a header in the middle": BODY + "# ── 13 Text generation ── reference: solutions/x.py:1 ──\n",
    "a line like a section's": "# ── 05 Causal masking ── yours 1234567: problems/x.py:1 ──\n"
    + BODY,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_of_any_form_survives(course, unverified, shape):
    """A header that pushes a `__future__` import, a docstring or an encoding out of its place."""
    text = SHAPES[shape]
    if "latin-1" in shape:
        text += BODY.replace("−", "-").replace("≥", ">=").encode("ascii", "ignore").decode()
    data = text.encode("latin-1" if "latin-1" in shape else "utf-8")
    put(course, 13, data)
    assert put_in(course, 13) == {13: "swapped"}, shape
    written = files(course)["sampling.py"]
    assert written.startswith(HEADER.encode())
    assert b"\r" not in written
    assert codecs.BOM_UTF8 not in written
    ours: dict = {"__name__": "gpt2.sampling"}
    exec(compile(written, "sampling.py", "exec", dont_inherit=True), ours)
    theirs: dict = {"__name__": "piece"}
    exec(compile(data, "problem.py", "exec", dont_inherit=True), theirs)
    assert ours.get("__doc__") == theirs.get("__doc__")
    for name in {*ours, *theirs} - {"__builtins__", "__name__"}:
        if isinstance(theirs[name], (str, int, float)):
            assert ours[name] == theirs[name], name
        assert type(ours[name]) is type(theirs[name]), name
    row = swap.board(course)[12]
    assert (row.owner, row.changed) == ("yours", "")
    assert put_in(course, 13) == {13: "unchanged"}
    source = modules.read_module(written.decode(), SAMPLING)
    assert modules.module_text(source) == written.decode()


def test_utf_16_is_refused_by_name(course):
    """A file that an editor saved as UTF-16, taken for something else."""
    put(course, 13, codecs.BOM_UTF16_LE + BODY.encode("utf-16-le"))
    (outcome,) = swap.swap(course, [SAMPLING], run_tests=verdict())
    assert outcome.state == "refused"
    assert "UTF-16; save it as UTF-8" in outcome.message


# --- what must not get in ---

BAD = {
    "import fails": ("raise RuntimeError('no')", "sampling.py can't be imported.*RuntimeError: no"),
    "ends Python": ("import os; os._exit(0)", "ended Python .exit code 0. before it had run"),
    "loops": ("while True: pass", "still running after 3 s"),
    "prints": ("print('shapes:', 1)", "prints 'shapes: 1' while it is imported"),
    "imports the course": ("import learn_gpt2", "imports learn_gpt2; the model imports nothing"),
    "imports what is above it": ("from gpt2.generation import generating", "stands below that"),
    "imports itself": ("import gpt2.sampling", "stands below that"),
    "imports a later piece": ("from gpt2 import KVCache", "stands below that"),
    "imports a neighbor": ("from . import cache", "stands below that"),
    "a name is gone": ("del keep_top_k", "must provide a function keep_top_k, got None"),
    "a name is a number": ("sample = 3", "must provide a function sample, got 3"),
    "wrong shape": (
        "_next = next_token\ndef next_token(*a, **k): return _next(*a, **k)[None]",
        r"sampling.py doesn't run.*must have shape \(2,\), got \(1, 2\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_does_not_run_is_not_written(course, case, monkeypatch):
    """A file that passes its checks, or is forced, and then breaks the product."""
    line, message = BAD[case]
    before = files(course)
    put(course, 13, f"{BODY}\n{line}\n")
    if case == "loops":
        monkeypatch.setattr(swap, "VERIFY_SECONDS", 3)
    (outcome,) = swap.swap(course, [SAMPLING], run_tests=verdict(13), force=True)
    assert outcome.state == "refused"
    assert re.search(message, outcome.message), outcome.message
    assert files(course) == before
    there = swap.file_path(course, "").iterdir()
    assert not [path.name for path in there if path.name.startswith(".")], "a file was left behind"
    assert not swap.backup_folder(course).exists()


def test_a_missing_name_is_named_with_the_nearest(course):
    """ "There is no keep_top_k" beside a keep_topk, and no word of it."""
    put(course, 13, BODY.replace("keep_top_k", "keep_topk"))
    (outcome,) = swap.swap(course, [SAMPLING], run_tests=verdict())
    assert outcome.message.endswith("no keep_top_k, which problem 13 provides; is it keep_topk?")


def test_the_skeletons_do_not_run(course):
    """A skeleton that is forced in, so that the product stops with NotImplementedError."""
    before = files(course)
    for problem in MODULE_PROBLEMS:
        put(course, problem.number, problem.skeleton_path(ROOT).read_bytes())
        (outcome,) = swap.swap(course, [problem], run_tests=verdict(problem.number), force=True)
        assert outcome.state == "refused", problem.folder
        assert "TODO" in outcome.message, outcome.message
    assert files(course) == before


def test_what_passes_from_where_to_where(course):
    """A right file of any problem of part two that the trial refuses."""
    assert set(put_in(course, *range(13, 19)).values()) == {"swapped"}
    environment = {**os.environ, "PYTHONPATH": str(course / "src")}
    code = "import " + ", ".join(p.import_name for p in MODULE_PROBLEMS)
    code += "; print(gpt2.sampling.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(swap.file_path(course, "sampling.py")), done.stderr


# --- the command ---


def test_the_command_tells_of_files_and_undo(course, unverified, monkeypatch):
    """A board without the six files, or an undo that names its backup's file."""
    monkeypatch.setattr("learn_gpt2.checking.runner.run_isolated", verdict(14))
    result = learn(course, "swap", "13-14", "--json")
    assert result.exit_code == 1
    assert [o["state"] for o in json.loads(result.output)] == ["swapped", "refused"]
    board = learn(course, "swap").output
    assert "The files around it, one piece each:" in board
    assert (
        "13 Text generation            yours     problems/13-text-generation/problem.py:1" in board
    )
    assert learn(course, "swap", "--undo").output == (
        "The model is as it was before `learn swap 13-14`; 0 more to undo.\n"
    )


def test_a_model_from_before_part_two_is_undone(course, unverified):
    """Backups of an older version that nothing brings back any more."""
    old = swap.backup_folder(course) / "0007-before-swap-05.py"
    swap.write_atomically(old, b"# an older model\n")
    put_in(course, 13)
    assert (swap.backup_folder(course) / "0008-before-swap-13.sampling.py").is_file()
    swap.undo(course)
    swap.undo(course)
    assert files(course)["model.py"] == b"# an older model\n"


def test_headers_survive_a_long_path():
    """A header that is wider than the file, or that can't be read back."""
    source = sections.Source(13, "file", "/" + "a long folder/" * 20 + "p.py", BODY, "1234567")
    text = modules.module_text(source)
    assert max(map(len, text.split("\n")[:1])) <= 100
    assert modules.module_text(modules.read_module(text, SAMPLING)) == text
