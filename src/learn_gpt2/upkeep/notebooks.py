"""Run, re-execute and edit the notebooks of the problems: `python -m learn_gpt2.upkeep.notebooks`.

`run` executes them in copies of the course in three states; `update` re-executes them and saves
their outputs, so that nothing changes where nothing was edited; `text` and `write` turn one into
Markdown and back, which is how they are edited; `figure` saves a cell's figure for a README.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from gpt2.common.files import write_atomically
from learn_gpt2 import manifest
from learn_gpt2.manifest import PROBLEMS, Problem
from learn_gpt2.upkeep import nbval_plugin

CELL_SECONDS = 120
VARIES = "varies"  # tag of a cell whose outputs depend on the machine: update keeps the saved ones
SETUP = "setup"  # id of the first code cell, as PIECE is that of the second one

Notebook = dict[str, Any]


# ── the two cells that follow from the project ──────────────────────────────────────────────────


def repository(root: Path) -> str:
    """The project's public address: `[project.urls] Repository` in pyproject.toml."""
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].rstrip("/")


def setup_source(root: Path) -> str:
    """The first code cell: find the course around the notebook, or install it on Colab.

    JupyterLab starts a kernel in the notebook's folder. VS Code may start it elsewhere, and says
    in a variable of its own which file the notebook is.
    """
    return f"""\
import os
import sys
from pathlib import Path

here = Path(globals().get("__vsc_ipynb_file__", "notebook.ipynb")).resolve().parent
root = next((f for f in (here, *here.parents) if (f / "src" / "learn_gpt2").is_dir()), None)
if root:
    os.chdir(here)
    if str(root / "src") not in sys.path:
        sys.path.insert(0, str(root / "src"))
elif "google.colab" in sys.modules:
    package = "learn-gpt2[plots] @ git+{repository(root)}"
    get_ipython().run_line_magic("pip", f'install --quiet "{{package}}"')

from learn_gpt2.notebook import start  # not found? keep the notebook in the course's folder

start()"""


def badge(root: Path, problem: Problem) -> str:
    """The line with the button that opens a notebook on Colab."""
    address = repository(root).removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{address}/blob/main/{_relative(problem)}"
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({picture})]({link})"


def _relative(problem: Problem) -> str:
    return f"problems/{problem.folder}/notebook.ipynb"


def notebook_path(root: Path, problem: Problem) -> Path:
    """Where a problem's notebook is."""
    return root / _relative(problem)


def existing(root: Path, words: tuple[str, ...] = ()) -> list[Problem]:
    """The problems that have a notebook, or those of them that the words name."""
    chosen = manifest.select(words) if words else PROBLEMS
    return [p for p in chosen if notebook_path(root, p).is_file()]


# ── notebooks as Markdown ───────────────────────────────────────────────────────────────────────

# How jupytext writes them: nothing but the cells, a Markdown cell's end where a heading comes
MARKDOWN = {"extension": ".md", "format_name": "markdown", "split_at_heading": True}
# Pandoc's way of naming a code cell, which is read as well: ```python {#id .tag}
PANDOC_FENCE = re.compile(r"^```python \{#([\w-]+)((?: \.[\w-]+)*)\}$", re.M)


def from_text(text: str, root: Path, problem: Problem) -> Notebook:
    """Markdown → a notebook without outputs.

    A fence ```python id="name" is a code cell; what stands between is Markdown, one cell per `## `
    heading. The badge and the set-up cell are put in after the title. jupytext reads it; it drops
    the cells' own ids, so that a code cell's stands in its fence, and a Markdown cell's follows
    from its heading or from the code cell before it.
    """
    import jupytext

    found = jupytext.reads(PANDOC_FENCE.sub(_fence, text), fmt=MARKDOWN)
    cells: list[dict[str, Any]] = []
    before = "title"
    for cell in found.cells:
        if cell.cell_type == "code":
            before = cell.metadata.get("id", "")
            if not before:
                first = cell.source.partition("\n")[0]
                raise ValueError(f'a code cell needs a name, ```python id="name": {first!r}')
            cells.append(_code(before, cell.source, list(cell.metadata.get("tags", []))))
        elif cells and cells[-1]["cell_type"] == "markdown" and not _heads(cell.source):
            cells[-1]["source"] += f"\n\n{cell.source}"  # two empty lines are as good as one
        else:
            cells.append(_markdown(cell.source, before))
    if not cells or not cells[0]["source"].startswith("# "):
        raise ValueError("a notebook begins with its title: `# 05 · …`")
    title, _, rest = cells[0]["source"].partition("\n")
    cells[0]["source"] = f"{title}\n\n{badge(root, problem)}\n{rest}".rstrip("\n")
    cells.insert(1, _code(SETUP, setup_source(root), []))
    ids = [cell["id"] for cell in cells]
    if repeated := sorted({i for i in ids if ids.count(i) > 1}):
        raise ValueError(f"two cells are called {repeated[0]!r}")
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def _fence(match: re.Match[str]) -> str:
    tags = json.dumps([tag.lstrip(".") for tag in match[2].split()])
    return f'```python id="{match[1]}"' + (f" tags={tags}" if match[2] else "")


def _heads(source: str) -> bool:
    """Whether a Markdown cell starts a section."""
    return source.startswith(("# ", "## "))


def _markdown(source: str, before: str) -> dict[str, Any]:
    """A Markdown cell, named after its heading, or after the code cell before it."""
    name = f"after-{before}"
    if _heads(source):
        words = re.findall(r"[a-z0-9]+", source.partition("\n")[0].lower())
        name = "text-" + ("-".join(words)[:50].strip("-") or "untitled")
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def _code(name: str, source: str, tags: list[str]) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": {"tags": tags} if tags else {},
        "outputs": [],
        "source": source,
    }


def to_text(notebook: Notebook) -> str:
    """A notebook → its Markdown, from which `from_text` makes the same cells again."""
    import jupytext
    import nbformat

    cells = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            source = re.sub(r"^\[!\[Open in Colab\].*\n{0,2}", "", source, flags=re.M).rstrip("\n")
            cells.append(nbformat.v4.new_markdown_cell(source))
        elif cell["id"] != SETUP:
            metadata = {"id": cell["id"], **cell["metadata"]}
            cells.append(nbformat.v4.new_code_cell(source, metadata=metadata))
    filters = {"notebook_metadata_filter": "-all", "cell_metadata_filter": "all"}
    whole = nbformat.v4.new_notebook(cells=cells, metadata={"jupytext": filters, **METADATA})
    return jupytext.writes(whole, fmt=MARKDOWN)


def read(path: Path) -> Notebook:
    """A notebook file, with each source as one text."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def dump(notebook: Notebook) -> bytes:
    """A notebook as it is stored: one line of text per line of source, no needless metadata."""
    cells = []
    for cell in notebook["cells"]:
        tags = cell.get("metadata", {}).get("tags", [])
        metadata = {"tags": list(tags)} if tags else {}
        kept = {"cell_type": cell["cell_type"], "id": cell["id"], "metadata": metadata}
        if cell["cell_type"] == "code":
            kept["execution_count"] = cell.get("execution_count")
            kept["outputs"] = [_output(output) for output in _joined(cell["outputs"])]
        kept["source"] = _lines(cell["source"])
        cells.append(dict(sorted(kept.items())))
    whole = {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode()


def _lines(text: str | list[str]) -> list[str]:
    return "".join(text).splitlines(keepends=True)


def _joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs in which neighboring pieces of one stream are one: how they were cut is chance."""
    joined: list[dict[str, Any]] = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output["output_type"] == "stream" and last.get("name") == output["name"]:
            last["text"] = "".join(last["text"]) + "".join(output["text"])
        else:
            joined.append(dict(output))
    return joined


def _output(output: dict[str, Any]) -> dict[str, Any]:
    stored = dict(output)
    if "text" in stored:
        stored["text"] = _lines(stored["text"])
    if "data" in stored:
        stored["data"] = {
            kind: value if kind.startswith("image/") else _lines(value)
            for kind, value in sorted(stored["data"].items())
        }
        stored["data"] = {
            kind: "".join(value).strip() if kind.startswith("image/") else value
            for kind, value in stored["data"].items()
        }
    return dict(sorted(stored.items()))


# ── pictures that a README shows ────────────────────────────────────────────────────────────────


def figures(notebook: Notebook) -> dict[str, tuple[bytes, str]]:
    """The first figure of each cell that has one: {its id: (the PNG, its words)}."""
    found: dict[str, tuple[bytes, str]] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                alt = output["metadata"]["image/png"]["alt"]
                found.setdefault(cell["id"], (base64.b64decode("".join(picture)), alt))
    return found


def save_figure(root: Path, problem: Problem, cell: str) -> str:
    """Write a cell's figure beside its notebook as `<cell>.png` → the Markdown that shows it.

    ValueError when no cell of that name has a figure.
    """
    path = notebook_path(root, problem)
    there = figures(read(path))
    if cell not in there:
        raise ValueError(
            f"{_relative(problem)}: no cell {cell!r} with a figure; {', '.join(there)}"
        )
    picture, alt = there[cell]
    target = path.with_name(f"{cell}.png")
    if not target.is_file() or target.read_bytes() != picture:
        write_atomically(target, picture)
    return f"![{alt}]({target.name})"


# ── running ─────────────────────────────────────────────────────────────────────────────────────


def execute(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Run one notebook from top to bottom, in its folder, in a fresh kernel → (its cells with what
    they show, "" or what went wrong).
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    surroundings = nbval_plugin.Surroundings()
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return [], re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()
    finally:
        surroundings.close()
    ran = json.loads(json.dumps(notebook.cells))
    wrong = [
        f"cell {cell['id']!r}: {text}"
        for cell in ran
        for text in nbval_plugin.complaints(cell, cell.get("outputs", []), path)
    ]
    return ran, "\n".join(wrong)


# ── the three states of the course ──────────────────────────────────────────────────────────────

STATES = ("skeletons", "solutions", "mix")
BROKEN, HALF_DONE = 6, 8  # in the mix: a file that does not parse, and one that fails its checks


def copy_course(root: Path, folder: Path, state: str) -> dict[int, bool]:
    """A copy of the course in a state → for each problem whether the learner's piece is to serve.

    skeletons: nothing was written yet. solutions: every problem.py is right. mix: the odd ones
    are right, and those of 1 to 5 and 13 to 15 are swapped in; one is broken, one half done, the
    rest are untouched.
    """
    from learn_gpt2.assembly import swap

    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.svg", ".ipynb_checkpoints")
    for name in ("src", "problems", "solutions"):
        shutil.copytree(root / name, folder / name, ignore=skip)
    shutil.copy(root / "pyproject.toml", folder / "pyproject.toml")
    serves = {}
    for problem in PROBLEMS:
        n = problem.number
        serves[n] = state == "solutions" or (state == "mix" and n % 2 == 1)
        source = problem.solution_path(root) if serves[n] else problem.skeleton_path(root)
        text = source.read_text(encoding="utf-8")
        if state == "mix" and n == BROKEN:
            text += "\ndef broken(:\n"
        if state == "mix" and n == HALF_DONE:
            text += "\n# begun\n"
        problem.problem_path(folder).write_text(text, encoding="utf-8", newline="\n")
    chosen = (*range(1, 6), *range(13, 16))
    swapped = {n: "yours" for n in chosen if state == "mix" and serves[n]}
    for module, text in swap.assemble_files(folder, swapped).items():
        swap.file_path(folder, module).write_text(text, encoding="utf-8", newline="\n")
    return serves


def make_states(root: Path, folder: Path, states: tuple[str, ...]) -> None:
    """Copies of the course in these states, each in a folder of that name; with what each
    notebook is to say of whose piece it runs on, for the plugin that looks at it.
    """
    for state in states:
        serves = copy_course(root, folder / state, state)
        says = {
            PROBLEMS[n - 1].folder: f"Problem {n:02d}: {'yours' if its else 'the reference'}, "
            for n, its in serves.items()
        }
        (folder / state / nbval_plugin.EXPECTED).write_text(json.dumps(says), encoding="utf-8")


# ── commands ────────────────────────────────────────────────────────────────────────────────────


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run, re-execute and edit the notebooks of the problems."""


@cli.command("run")
@click.argument("problems", nargs=-1)
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Default: all.")
@click.option("--workers", type=click.IntRange(min=1), help="Default: one per core.")
def run_command(problems: tuple[str, ...], states: tuple[str, ...], workers: int | None) -> None:
    """Execute notebooks in copies of the course: untouched skeletons, solutions, a mix.

    It is `pytest -p nbval.plugin --nbval-lax` on all of them.
    """
    root = manifest.find_root()
    with tempfile.TemporaryDirectory(prefix="course-", ignore_cleanup_errors=True) as folder:
        make_states(root, Path(folder), states or STATES)
        paths = [
            str(Path(state, _relative(problem)))
            for problem in existing(root, problems)
            for state in states or STATES
        ]
        options = [
            *("--disable-plugin-autoload", "-p", "no:cacheprovider", "-q", "--rootdir", folder),
            *("-p", "nbval.plugin", "--nbval-lax", f"--nbval-cell-timeout={CELL_SECONDS}"),
            *("-p", "learn_gpt2.upkeep.nbval_plugin"),
            *("-p", "xdist", "-n", str(workers or "auto"), "--dist", "loadfile"),
        ]
        click.echo(f"pytest {' '.join(options)} …  ({len(paths)} notebooks)")
        # -P: nothing in the current folder may pass for a module
        command = [sys.executable, "-P", "-m", "pytest", *options, *paths]
        sys.exit(subprocess.run(command, cwd=folder, check=False).returncode)


@cli.command("update")
@click.argument("problems", nargs=-1)
@click.option("--fresh", is_flag=True, help=f"Renew what cells tagged {VARIES!r} show, too.")
@click.option("--workers", type=click.IntRange(min=1), help="Default: one per core.")
def update_command(problems: tuple[str, ...], fresh: bool, workers: int | None) -> None:
    """Re-execute notebooks with the reference and save what they show."""
    root = manifest.find_root()
    failed = False
    with tempfile.TemporaryDirectory(prefix="course-") as folder:
        copy = Path(folder) / "course"
        copy_course(root, copy, "skeletons")
        found = {problem: notebook_path(copy, problem) for problem in existing(root, problems)}
        for problem, path in found.items():
            path.write_bytes(dump(_renewed(read(path), root, problem)))
        spawn = get_context("spawn")
        with ProcessPoolExecutor(workers or os.cpu_count() or 1, mp_context=spawn) as pool:
            runs = {pool.submit(execute, path): problem for problem, path in found.items()}
            for run in as_completed(runs):
                ran, error = run.result()
                if error:
                    failed = True
                    click.echo(f"{runs[run].folder}: not saved\n{error}", err=True)
                else:
                    click.echo(_saved(root, runs[run], ran, fresh))
    sys.exit(1 if failed else 0)


def _saved(root: Path, problem: Problem, ran: list[dict[str, Any]], fresh: bool) -> str:
    """Keep what a notebook's cells showed, and renew the figures saved of it → a line to print."""
    path = notebook_path(root, problem)
    before = path.read_bytes()
    data = dump({"cells": ran if fresh else _kept(ran, read(path)["cells"])})
    if data != before:
        write_atomically(path, data)
    for saved in sorted(path.parent.glob("*.png")):
        save_figure(root, problem, saved.stem)
    said = "unchanged" if data == before else "saved"
    return f"{problem.folder:26} {len(data) / 1000:4.0f} kB  {said}"


def _renewed(notebook: Notebook, root: Path, problem: Problem) -> Notebook:
    """The same with the badge and the set-up cell as they should be now."""
    return from_text(to_text(notebook), root, problem)


def _kept(cells: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cells in which those that vary have their saved outputs, unless their source changed."""
    saved = {c["id"]: c for c in before if c["cell_type"] == "code" and c["outputs"]}
    for cell in cells:
        old = saved.get(cell["id"])
        varies = VARIES in cell["metadata"].get("tags", [])
        if varies and old and "".join(old["source"]) == "".join(cell["source"]):
            cell["outputs"] = old["outputs"]
    return cells


@cli.command("figure")
@click.argument("problem")
@click.argument("cell")
def figure_command(problem: str, cell: str) -> None:
    """Save a cell's figure as a PNG beside its notebook, for the README, and print the line that
    shows it. `update` renews the file.
    """
    root = manifest.find_root()
    try:
        click.echo(save_figure(root, manifest.get(problem), cell))
    except ValueError as error:
        raise click.ClickException(str(error)) from None


@cli.command("text")
@click.argument("problem")
def text_command(problem: str) -> None:
    """Print a notebook as Markdown, to be edited and given back to `write`."""
    root = manifest.find_root()
    click.echo(to_text(read(notebook_path(root, manifest.get(problem)))), nl=False)


@cli.command("write")
@click.argument("problem")
@click.argument("source", type=click.File(encoding="utf-8"))
def write_command(problem: str, source: Any) -> None:
    """Make a notebook of Markdown (a file, or - for standard input); outputs of cells whose id and
    code are the same are kept. `update` runs it.
    """
    root = manifest.find_root()
    found = manifest.get(problem)
    path = notebook_path(root, found)
    try:
        notebook = from_text(source.read(), root, found)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    saved = {c["id"]: c for c in read(path)["cells"]} if path.is_file() else {}
    for cell in notebook["cells"]:
        old = saved.get(cell["id"], {})
        if cell["cell_type"] == "code" and old.get("source") == cell["source"]:
            cell["outputs"] = old["outputs"]
            cell["execution_count"] = old["execution_count"]
    write_atomically(path, dump(notebook))
    click.echo(f"{_relative(found)}: {len(notebook['cells'])} cells")


if __name__ == "__main__":
    try:
        cli()
    except ModuleNotFoundError as error:
        missing = f"{error.name} is not installed; the extra [notebooks] has it: "
        sys.exit(missing + 'pip install -c constraints.txt -e ".[dev,plots,notebooks]"')
