"""The notebooks as they are stored, and the tools that make them. `make notebooks` runs them."""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from learn_gpt2 import notebook
from learn_gpt2.manifest import MODEL_PROBLEMS, PROBLEMS, Problem
from learn_gpt2.upkeep import nbval_plugin, notebooks
from learn_gpt2.upkeep.nbval_plugin import PIECE
from learn_gpt2.upkeep.notebooks import SETUP, VARIES

ROOT = Path(__file__).resolve().parents[3]
MAX_BYTES = 300_000
WITH_NOTEBOOKS = "comes with the extra [notebooks]; `make notebooks` runs this test"
there = pytest.mark.parametrize("problem", notebooks.existing(ROOT), ids=lambda p: p.folder)


def cells_of(problem: Problem) -> list[dict]:
    return notebooks.read(notebooks.notebook_path(ROOT, problem))["cells"]


def code_of(problem: Problem) -> list[dict]:
    return [cell for cell in cells_of(problem) if cell["cell_type"] == "code"]


def prose_of(problem: Problem) -> str:
    return "\n\n".join(c["source"] for c in cells_of(problem) if c["cell_type"] == "markdown")


def figures_of(problem: Problem) -> list[dict]:
    return [o for c in code_of(problem) for o in c["outputs"] if "image/png" in o.get("data", {})]


# ── what is stored ──────────────────────────────────────────────────────────────────────────────


@there
def test_small_and_stored_as_update_stores_it(problem: Problem) -> None:
    """Catches a notebook too large for GitHub to show, or saved by an editor with its extras."""
    data = notebooks.notebook_path(ROOT, problem).read_bytes()
    assert len(data) <= MAX_BYTES
    text = data.decode("utf-8")
    assert notebooks.dump(json.loads(text)).decode("utf-8") == text


@there
def test_cells_have_names(problem: Problem) -> None:
    """Catches a cell whose id is made up again at each save, and a second one of that name."""
    ids = [cell["id"] for cell in cells_of(problem)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{2,63}", i) for i in ids)
    assert not [i for i in ids if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", i)]
    assert [c["id"] for c in code_of(problem)][:2] == [SETUP, PIECE]


@there
def test_set_up_and_badge_follow_from_the_project(problem: Problem) -> None:
    """Catches a notebook that still points to an old address."""
    cells = cells_of(problem)
    assert notebooks.badge(ROOT, problem) in cells[0]["source"]
    assert cells[0]["source"].startswith(f"# {problem.number:02d} · ")
    assert cells[1]["source"] == notebooks.setup_source(ROOT)


@there
def test_every_cell_ran_without_a_word_of_complaint(problem: Problem) -> None:
    """Catches a notebook saved without its outputs, out of order, or with an error or warning."""
    code = code_of(problem)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    silent = [c["id"] for c in code if not c["outputs"] and c["id"] != SETUP]
    assert len(silent) <= len(code) // 3, silent


@there
def test_it_shows_the_reference(problem: Problem) -> None:
    """Catches outputs saved with somebody's own piece, and a call of another problem's."""
    piece = next(cell for cell in code_of(problem) if cell["id"] == PIECE)
    assert f"open_piece({problem.number})" in piece["source"]
    text = "".join("".join(output["text"]) for output in piece["outputs"])
    assert text.startswith(f"Problem {problem.number:02d}: the reference, ")


@there
def test_no_paths_and_no_addresses_of_this_machine(problem: Problem) -> None:
    """Catches an output that holds where it was made."""
    text = notebooks.notebook_path(ROOT, problem).read_text(encoding="utf-8")
    text = re.sub(r'"image/png": "[^"]*"', "", text)
    assert (
        re.findall(
            r"(?:/(?:home|Users|tmp|work|root|usr|var)/\S*|\b[A-Z]:\\\\(?!n)\w+|0x[0-9a-f]{8,})",
            text,
        )
        == []
    )


@there
def test_sections_predictions_and_experiments(problem: Problem) -> None:
    """Catches a notebook that shows without asking, or that leads nowhere."""
    prose = prose_of(problem)
    sections = re.findall(r"^## (.+)$", prose, re.M)
    assert (6 if problem in MODEL_PROBLEMS else 3) <= len(sections) <= 10, sections
    assert sections[-1] == "Try it yourself"
    assert prose.count("**Predict first.**") >= 1
    last = prose.split("## Try it yourself")[1]
    assert len(re.findall(r"^\d\. \*\*", last, re.M)) >= 2


@there
def test_an_answer_comes_after_its_question(problem: Problem) -> None:
    """Catches a prediction that no cell answers."""
    kinds = [
        "question" if "**Predict first.**" in c["source"] else c["cell_type"]
        for c in cells_of(problem)
    ]
    for position, kind in enumerate(kinds):
        if kind == "question":
            assert "code" in kinds[position + 1 : position + 3]


@there
def test_figures_have_words(problem: Problem) -> None:
    """Catches a figure that says nothing to a reader who can't see it, and a foreign style."""
    figures = figures_of(problem)
    assert len(figures) >= (3 if problem in MODEL_PROBLEMS else 2)
    for figure in figures:
        alt = figure["metadata"]["image/png"]["alt"]
        assert len(alt) >= 40
        assert "".join(figure["data"]["text/plain"]) == alt
    assert "plt." not in "\n".join(c["source"] for c in code_of(problem))


@there
def test_code_needs_no_network_and_has_no_clock_where_outputs_are_compared(
    problem: Problem,
) -> None:
    """Catches a download, and a measured time in a cell that isn't marked as varying."""
    for cell in code_of(problem):
        tree = ast.parse(cell["source"])
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if cell["id"] != SETUP:
            assert not names & {"urlopen", "urlretrieve", "hf_hub_download", "get_ipython"}
        if names & {"perf_counter", "perf_counter_ns", "monotonic", "time_ns"}:
            assert VARIES in cell["metadata"].get("tags", []), cell["id"]


@there
def test_a_picture_in_a_readme_is_what_the_notebook_shows(problem: Problem) -> None:
    """Catches a picture of an older model beside its README, one with other words than the
    notebook's, and one that no README shows or that is too large for one.
    """
    folder = problem.readme_path(ROOT).parent
    readme = problem.readme_path(ROOT).read_text(encoding="utf-8")
    there = notebooks.figures(notebooks.read(folder / "notebook.ipynb"))
    for path in folder.glob("*.png"):
        picture, alt = there[path.stem]
        assert path.read_bytes() == picture, (
            "python -m learn_gpt2.upkeep.notebooks figure renews it"
        )
        assert f"![{alt}]({path.name})" in readme
        assert len(picture) <= 60_000


# ── what they run on ────────────────────────────────────────────────────────────────────────────


def put(root: Path, problem: Problem, text: str) -> None:
    problem.problem_path(root).write_text(text, encoding="utf-8")


def solution(problem: Problem) -> str:
    return problem.solution_path(ROOT).read_text(encoding="utf-8")


def test_an_untouched_skeleton_gives_the_reference(course: Path) -> None:
    """Catches a skeleton that serves as a piece."""
    put(course, PROBLEMS[0], PROBLEMS[0].skeleton_path(ROOT).read_text(encoding="utf-8"))
    piece = notebook.find_piece(1, course)
    assert piece.whose == "the reference"
    assert "still the skeleton" in str(piece)
    assert piece.Embeddings(5, 4, 3).wte.weight.shape == (5, 3)


def test_a_piece_that_passes_serves_and_an_edit_is_seen(course: Path) -> None:
    """Catches a piece that stays what it was when its file changes, for better or worse."""
    first = PROBLEMS[0]
    put(course, first, solution(first) + "\nMINE = 1\n")
    piece = notebook.find_piece(1, course)
    assert (piece.whose, piece.MINE) == ("yours", 1)
    assert "problems/01-embeddings/problem.py" in str(piece)
    put(course, first, solution(first) + "\nMINE = 2\n")
    assert notebook.find_piece(1, course).MINE == 2
    wrong = solution(first).replace("+ self.wpe(positions)", "- self.wpe(positions)")
    put(course, first, wrong)
    piece = notebook.find_piece(1, course)
    assert piece.whose == "the reference"
    said = "the checks of your problem.py don't pass yet"
    # what waits for a failed check has not failed
    counted = r"1 of (\d+) checks fails, and \d+ more waits? for it; first test_\w+"
    assert re.fullmatch(rf"{said} \({counted}\)", piece.why)
    again = notebook.find_piece(1, course)  # what was remembered says the same
    assert again.why == piece.why


def test_a_file_that_does_not_parse_gives_the_reference(course: Path) -> None:
    """Catches a notebook that stops at somebody's missing bracket."""
    put(course, PROBLEMS[0], solution(PROBLEMS[0]) + "\ndef broken(:\n")
    piece = notebook.find_piece(1, course)
    assert piece.whose == "the reference"
    assert re.search(r"don't pass yet \(none of the \d+ checks could run\)", piece.why)


def test_the_trained_model_runs_on_the_piece(course: Path) -> None:
    """Catches a model whose piece is another than the one that was announced."""
    third = PROBLEMS[2]
    marked = solution(third).replace("1.0 / math", "MARK / math", 1)
    assert marked != solution(third)
    put(course, third, marked.replace("\n\n\nclass", "\n\nMARK = 1.0\n\n\nclass", 1))
    piece = notebook.find_piece(3, course)
    assert piece.whose == "yours"
    whole = piece.gpt2()
    assert whole.MARK == 1
    assert whole.GPT2Model.__module__ == whole.__name__
    assert not hasattr(notebook.find_piece(1, course).gpt2(), "MARK")


def test_outside_the_course_it_is_the_installed_package(tmp_path: Path) -> None:
    """Catches a notebook that needs the course's folders on Colab, where there are none."""
    code = """
import gpt2.model
from learn_gpt2 import notebook

piece = notebook.find_piece(5)
assert piece.CausalMultiHeadAttention is gpt2.model.CausalMultiHeadAttention
assert piece.gpt2() is gpt2.model
assert "outside the course" in str(piece)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_the_text_was_not_trained_on() -> None:
    """Catches an excerpt from the part of Tiny Shakespeare that models are trained on."""
    path = ROOT.parent / "shared" / "data" / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        pytest.skip(f"no Tiny Shakespeare at {path}")
    text = path.read_text(encoding="utf-8")
    excerpt = notebook.held_out(10_000)
    assert text.index(excerpt) >= len(text) * 0.9
    with pytest.raises(ValueError, match="10001 characters from 5000"):
        notebook.held_out(10_001, 5_000)


# ── how they are made ───────────────────────────────────────────────────────────────────────────

TEXT = """\
# 02 · A title

First words.

```python id="piece"
piece = open_piece(2)
```

## A section

**Predict first.** What?

```python id="measured" tags=["varies"]
print("so much")
```

What happened.
"""


def test_markdown_and_back() -> None:
    """Catches an edit through Markdown that loses or changes a cell."""
    pytest.importorskip("jupytext", reason=WITH_NOTEBOOKS)
    made = notebooks.from_text(TEXT, ROOT, PROBLEMS[1])
    assert [c["id"] for c in made["cells"]] == [
        "text-02-a-title", "setup", "piece", "text-a-section", "measured", "after-measured",
    ]  # fmt: skip
    assert made["cells"][4]["metadata"] == {"tags": ["varies"]}
    assert notebooks.to_text(made) == TEXT
    assert notebooks.from_text(notebooks.to_text(made), ROOT, PROBLEMS[1]) == made


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("code", "%matplotlib inline\nx = 1"),
        ("code", "%%time\nx = 1"),
        ("code", "print('''\n```\nfence\n```\n''')"),
        ("code", "s = '```python id=\"a\"'"),
        ("code", "# only a comment"),
        ("code", "# %%\nx = 1\n\n\n\ny = 2  "),
        ("code", ""),
        ("markdown", "Shown only:\n\n```python\nx = 1\n```\n\nand more."),
        ("markdown", "```text\nplain\n\n\n# no heading\n```"),
        ("markdown", "## A\n\n### B\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
        ("markdown", "$$\na = b\n$$\n\n<details><summary>A</summary>\n\nb\n\n</details>"),
        ("markdown", "one\n\n* list\n\n# no section of its own"),
    ],
)
def test_odd_cells_survive_markdown(kind: str, source: str) -> None:
    """Catches code taken for a fence, a fence taken for code, and a text cut where it has none."""
    pytest.importorskip("jupytext", reason=WITH_NOTEBOOKS)
    made = notebooks._code if kind == "code" else notebooks._markdown
    cells = [notebooks._markdown("# 02 · T", "title"), notebooks._code("piece", "1", [])]
    cells.append(made("odd", source, []) if kind == "code" else made(source, "piece"))
    text = notebooks.to_text({"cells": cells})
    got = notebooks.from_text(text, ROOT, PROBLEMS[1])["cells"]
    assert [(cell["cell_type"], cell["source"]) for cell in got[3:]] == [(kind, source)]


def test_a_cell_may_be_named_as_pandoc_does_and_must_be_named() -> None:
    """Catches names lost from a text of the older kind, and cells with made-up ids."""
    pytest.importorskip("jupytext", reason=WITH_NOTEBOOKS)
    pandoc = TEXT.replace('id="piece"', "{#piece}").replace(
        'id="measured" tags=["varies"]', "{#measured .varies}"
    )
    assert "{#piece}" in pandoc
    expected = notebooks.from_text(TEXT, ROOT, PROBLEMS[1])
    assert notebooks.from_text(pandoc, ROOT, PROBLEMS[1]) == expected
    with pytest.raises(ValueError, match=r"a code cell needs a name.*'x = 1'"):
        notebooks.from_text(TEXT + "\n```python\nx = 1\n```\n", ROOT, PROBLEMS[1])


@there
def test_markdown_and_back_for_each(problem: Problem) -> None:
    """Catches a notebook that can't be edited as Markdown without changing."""
    pytest.importorskip("jupytext", reason=WITH_NOTEBOOKS)
    stored = notebooks.read(notebooks.notebook_path(ROOT, problem))
    made = notebooks.from_text(notebooks.to_text(stored), ROOT, problem)
    keys = ("id", "cell_type", "source", "metadata")
    assert [[c[k] for k in keys] for c in made["cells"]] == [
        [c[k] for k in keys] for c in stored["cells"]
    ]


def test_two_cells_of_one_name_are_refused() -> None:
    """Catches ids that would not be stable."""
    pytest.importorskip("jupytext", reason=WITH_NOTEBOOKS)
    with pytest.raises(ValueError, match="two cells are called 'piece'"):
        notebooks.from_text(TEXT + '\n```python id="piece"\n1\n```\n', ROOT, PROBLEMS[1])


def test_what_varies_stays_as_saved_until_its_code_changes() -> None:
    """Catches timings that change at every update, and outputs that belong to older code."""

    def cell(source: str, output: str, tags: list[str]) -> dict:
        return notebooks._code("timing", source, tags) | {
            "outputs": [{"output_type": "stream", "name": "stdout", "text": output}]
        }

    def kept(new: dict, old: dict) -> str:
        return notebooks._kept([new], [old])[0]["outputs"][0]["text"]

    assert kept(cell("a", "new", [VARIES]), cell("a", "old", [VARIES])) == "old"
    assert kept(cell("b", "new", [VARIES]), cell("a", "old", [VARIES])) == "new"
    assert kept(cell("a", "new", []), cell("a", "old", [])) == "new"


def test_streams_cut_differently_are_stored_alike() -> None:
    """Catches a diff that only tells how fast the kernel wrote."""

    def stored(*pieces: str) -> bytes:
        cell = notebooks._code("words", "print()", [])
        cell["outputs"] = [
            {"output_type": "stream", "name": "stdout", "text": text} for text in pieces
        ]
        return notebooks.dump({"cells": [cell]})

    assert stored("one\n", "two\n") == stored("one\ntwo\n")


def test_a_figure_is_saved_for_a_readme(tmp_path: Path) -> None:
    """Catches a wrong file or words, and a cell without a figure that passes for one."""
    problem = PROBLEMS[1]
    path = notebooks.notebook_path(tmp_path, problem)
    path.parent.mkdir(parents=True)
    made = {"cells": [notebooks._code(name, "", []) for name in ("piece", "measured")]}
    made["cells"][1]["outputs"] = [
        {
            "output_type": "display_data",
            "data": {"image/png": base64.b64encode(bytes_of).decode(), "text/plain": words},
            "metadata": {"image/png": {"alt": words}},
        }
        for bytes_of, words in ((b"first", "A picture of so much."), (b"second", "Another."))
    ]
    path.write_bytes(notebooks.dump(made))
    line = notebooks.save_figure(tmp_path, problem, "measured")
    assert line == "![A picture of so much.](measured.png)"
    assert (path.parent / "measured.png").read_bytes() == b"first"
    with pytest.raises(ValueError, match="no cell 'piece' with a figure; measured"):
        notebooks.save_figure(tmp_path, problem, "piece")


COMPLAINED_OF = {
    "piece": ("print('Problem 02: yours, version 1')", "expected 'Problem 02: the reference, '"),
    "warns": ("import warnings; warnings.warn('old')", "writes to stderr"),
    "tells": ("import os; print(os.getcwd())", "prints a path of this machine"),
    "raises": ("1 / 0", "ZeroDivisionError"),
    "fine": ("print('so much')", ""),
}


def test_what_a_cell_shows_is_looked_at(tmp_path: Path) -> None:
    """Catches a warning, a path of this machine, and a foreign piece that pass for a good run."""
    path = notebooks.notebook_path(tmp_path, PROBLEMS[1])
    says = json.dumps({PROBLEMS[1].folder: "Problem 02: the reference, "})
    (tmp_path / nbval_plugin.EXPECTED).write_text(says, encoding="utf-8")

    def wrong(name: str, stream: str, text: str) -> str:
        output = {"output_type": "stream", "name": stream, "text": text}
        return " ".join(nbval_plugin.complaints({"id": name}, [output], path))

    assert COMPLAINED_OF["piece"][1] in wrong(PIECE, "stdout", "Problem 02: yours, version 1")
    assert COMPLAINED_OF["warns"][1] in wrong("a", "stderr", "UserWarning: old")
    assert COMPLAINED_OF["tells"][1] in wrong("a", "stdout", f"saved as {tmp_path}/a.png")
    assert not wrong(PIECE, "stdout", "Problem 02: the reference, version 1")
    assert not wrong("a", "stdout", "Problem 02: yours, version 1")


def test_nbval_runs_a_notebook_with_these_looks(tmp_path: Path) -> None:
    """Catches a plugin that nbval's cells go past, and one that fails a cell that is right."""
    pytest.importorskip("nbval", reason=WITH_NOTEBOOKS)
    path = notebooks.notebook_path(tmp_path, PROBLEMS[1])
    path.parent.mkdir(parents=True)
    says = json.dumps({PROBLEMS[1].folder: "Problem 02: the reference, "})
    (tmp_path / nbval_plugin.EXPECTED).write_text(says, encoding="utf-8")
    cells = [notebooks._code(name, source, []) for name, (source, _) in COMPLAINED_OF.items()]
    path.write_bytes(notebooks.dump({"cells": cells}))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--disable-plugin-autoload", "-p", "nbval.plugin"),
            *("-p", "learn_gpt2.upkeep.nbval_plugin", "--nbval-lax", "--rootdir", str(tmp_path)),
            str(path),
        ],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        check=False,
    )
    assert "4 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    for _, said in COMPLAINED_OF.values():
        assert said in done.stdout


@pytest.mark.parametrize("state", notebooks.STATES)
def test_the_three_states(state: str, tmp_path: Path) -> None:
    """Catches a copy of the course that isn't in the state which its name promises."""
    from learn_gpt2.assembly import swap
    from learn_gpt2.course import backups

    serves = notebooks.copy_course(ROOT, tmp_path / state, state)
    copy = tmp_path / state
    untouched = [p.number for p in PROBLEMS if backups.untouched(copy, p)]
    swapped = [row.number for row in swap.board(copy) if row.owner == "yours"]
    if state == "mix":
        assert untouched == [2, 4, 10, 12, 14, 16, 18]
        assert swapped == [1, 3, 5, 13, 15]
    else:
        assert untouched == ([] if state == "solutions" else list(range(1, 19)))
        assert swapped == []
    assert (
        sorted(n for n in serves if serves[n])
        == {
            "skeletons": [],
            "solutions": list(range(1, 19)),
            "mix": list(range(1, 19, 2)),
        }[state]
    )


def test_the_set_up_cell_finds_the_course_from_vs_code(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a set-up cell that only looks around the folder in which the kernel was started."""
    cell = notebooks.setup_source(ROOT).split("\nfrom learn_gpt2")[0]
    path = PROBLEMS[4].problem_path(course).with_name("notebook.ipynb")
    for names, start in (({"__vsc_ipynb_file__": str(path)}, tmp_path), ({}, path.parent)):
        monkeypatch.chdir(start)
        monkeypatch.setattr("sys.path", list(sys.path))
        exec(cell, names)
        assert Path.cwd().samefile(path.parent)
        assert sys.path[0] == str(course.resolve() / "src")
