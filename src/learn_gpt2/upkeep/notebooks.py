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
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from learn_gpt2 import manifest
from learn_gpt2.manifest import PROBLEMS, Problem

CELL_SECONDS = 120
VARIES = "varies"  # tag of a cell whose outputs depend on the machine: update keeps the saved ones
SETUP, PIECE = "setup", "piece"  # ids of the two cells that every notebook has

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

# a code cell in the Markdown: ```python {#id} or ```python {#id .varies}
FENCE = re.compile(r"```python \{#([\w-]+)((?: \.[\w-]+)*)\}\n(.*?)^```$\n?", re.M | re.S)


def from_text(text: str, root: Path, problem: Problem) -> Notebook:
    """Markdown → a notebook without outputs.

    A fence ```python {#id} is a code cell; what stands between is Markdown, one cell per `## `
    heading. The badge and the set-up cell are put in after the title.
    """
    cells: list[dict[str, Any]] = []
    position, before = 0, "title"
    for match in FENCE.finditer(text):
        cells += _markdown_cells(text[position : match.start()], before)
        before = match[1]
        tags = [tag.lstrip(".") for tag in match[2].split()]
        cells.append(_code(match[1], match[3].rstrip("\n"), tags))
        position = match.end()
    cells += _markdown_cells(text[position:], before)
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


def _markdown_cells(text: str, before: str) -> Iterator[dict[str, Any]]:
    """The cells of a text: named after their heading, or after the code cell before them."""
    for part in re.split(r"^(?=#{1,2} )", text, flags=re.M):
        source = part.strip("\n")
        if source.strip():
            first = source.splitlines()[0].lstrip("#").strip()
            words = re.findall(r"[a-z0-9]+", first.lower())
            title = "-".join(words)[:50].strip("-") or "untitled"
            name = f"text-{title}" if source.startswith("#") else f"after-{before}"
            yield {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


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
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["id"] == SETUP:
            continue
        if cell["cell_type"] == "markdown":
            lines = [
                line for line in source.split("\n") if not line.startswith("[![Open in Colab]")
            ]
            parts.append(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)))
        else:
            tags = "".join(f" .{tag}" for tag in cell["metadata"].get("tags", []))
            parts.append(f"```python {{#{cell['id']}{tags}}}\n{source}\n```")
    return "\n\n".join(parts) + "\n"


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
    from learn_gpt2.assembly.swap import write_atomically

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


@dataclass
class Run:
    """What came of executing one notebook. error: "" when every cell ran.

    seconds: by the clock. busy: of a processor, 0 where the system does not tell.
    """

    state: str
    problem: int
    seconds: float
    busy: float
    error: str = ""
    cells: list[dict[str, Any]] | None = None


@contextmanager
def _surroundings() -> Iterator[None]:
    """The environment of a kernel: one thread, no network, nothing of this project on its path."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        nowhere = "http://127.0.0.1:9"
        os.environ.update(
            OMP_NUM_THREADS="1",
            MKL_NUM_THREADS="1",
            PYTHONHASHSEED="0",
            HF_HUB_OFFLINE="1",
            HF_HOME=folder,
            TIKTOKEN_CACHE_DIR=os.environ.get("TIKTOKEN_CACHE_DIR", folder),
            IPYTHONDIR=folder,
            PYTHONWARNINGS="default",
            http_proxy=nowhere,
            https_proxy=nowhere,
        )
        for name in ("PYTHONPATH", "MPLBACKEND"):
            os.environ.pop(name, None)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def execute(path: Path, state: str, problem: int) -> Run:
    """Run one notebook from top to bottom, in its folder, in a fresh kernel."""
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
    started, busy = time.perf_counter(), _children_seconds()
    error = ""
    with _surroundings():
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as problem_found:
            error = re.sub(r"\x1b\[[\d;]*m", "", str(problem_found)).strip()
    seconds, busy = time.perf_counter() - started, _children_seconds() - busy
    if not error:
        error = "\n".join(_complaints(notebook.cells, path))
    return Run(state, problem, seconds, busy, error, json.loads(json.dumps(notebook.cells)))


def _children_seconds() -> float:
    """Processor time of this process's ended children."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _complaints(cells: list[Any], path: Path) -> list[str]:
    """What is wrong with outputs of cells that all ran: warnings, and this machine's paths."""
    wrong = []
    for cell in cells:
        for output in cell.get("outputs", []):
            text = json.dumps(output)
            if output.get("name") == "stderr":
                wrong.append(f"cell {cell['id']} writes to stderr: {output['text'][:300]}")
            elif str(path.parents[2]) in text or str(Path.home()) + "/" in text:
                wrong.append(f"cell {cell['id']} prints a path of this machine")
    return wrong


def _execute_all(
    jobs: list[tuple[Path, str, int]], workers: int, tell: Callable[[Run], None]
) -> list[Run]:
    runs = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(execute, *job) for job in jobs]
        for future in as_completed(futures):
            runs.append(future.result())
            tell(runs[-1])
    return runs


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


def _wrong_piece(run: Run, serves: bool) -> str:
    """What is wrong with what the notebook says about whose piece it runs on, or ""."""
    cell = next((c for c in run.cells or [] if c["id"] == PIECE), None)
    if cell is None:
        return f"no cell is called {PIECE!r}"
    text = "".join("".join(o.get("text", "")) for o in cell["outputs"])
    expected = f"Problem {run.problem:02d}: {'yours' if serves else 'the reference'}, "
    return "" if text.startswith(expected) else f"expected {expected!r}…, it says {text[:200]!r}"


# ── commands ────────────────────────────────────────────────────────────────────────────────────


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run, re-execute and edit the notebooks of the problems."""


@cli.command("run")
@click.argument("problems", nargs=-1)
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Default: all.")
@click.option("--workers", type=click.IntRange(min=1), help="Default: one per core.")
def run_command(problems: tuple[str, ...], states: tuple[str, ...], workers: int | None) -> None:
    """Execute notebooks in copies of the course: untouched skeletons, solutions, a mix."""
    root = manifest.find_root()
    workers = workers or os.cpu_count() or 1
    chosen = existing(root, problems)
    started = time.perf_counter()
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="course-") as folder:
        jobs, serves = [], {}
        for state in states or STATES:
            copy = Path(folder) / state
            serves[state] = copy_course(root, copy, state)
            jobs += [(notebook_path(copy, p), state, p.number) for p in chosen]

        def tell(run: Run) -> None:
            error = run.error or _wrong_piece(run, serves[run.state][run.problem])
            click.echo(
                f"{PROBLEMS[run.problem - 1].folder:26} {run.state:10} {run.seconds:6.1f} s "
                f"({run.busy:4.1f} s busy)  " + ("FAILED" if error else "ok")
            )
            if error:
                failed.append(f"{run.problem:02d} with {run.state}:\n{error}")

        runs = _execute_all(jobs, workers, tell)
    click.echo(
        f"{len(runs)} runs of {len(chosen)} notebooks on {workers} processes: "
        f"{time.perf_counter() - started:.0f} s, {sum(r.busy for r in runs):.0f} s of processors, "
        f"the longest {max((r.seconds for r in runs), default=0):.1f} s; {len(failed)} failed"
    )
    for text in failed:
        click.echo(f"\n--- {text}", err=True)
    sys.exit(1 if failed else 0)


@cli.command("update")
@click.argument("problems", nargs=-1)
@click.option("--fresh", is_flag=True, help=f"Renew what cells tagged {VARIES!r} show, too.")
@click.option("--workers", type=click.IntRange(min=1), help="Default: one per core.")
def update_command(problems: tuple[str, ...], fresh: bool, workers: int | None) -> None:
    """Re-execute notebooks with the reference and save what they show."""
    from learn_gpt2.assembly.swap import write_atomically

    root = manifest.find_root()
    failed = False
    with tempfile.TemporaryDirectory(prefix="course-") as folder:
        copy = Path(folder) / "course"
        copy_course(root, copy, "skeletons")
        jobs = []
        for problem in existing(root, problems):
            path = notebook_path(copy, problem)
            path.write_bytes(dump(_renewed(read(path), root, problem)))
            jobs.append((path, "skeletons", problem.number))

        def tell(run: Run) -> None:
            nonlocal failed
            problem = PROBLEMS[run.problem - 1]
            path = notebook_path(root, problem)
            if run.error:
                failed = True
                click.echo(f"{problem.folder}: not saved\n{run.error}", err=True)
                return
            before = path.read_bytes()
            cells = run.cells if fresh else _kept(run.cells, read(path)["cells"])
            data = dump({"cells": cells})
            if data != before:
                write_atomically(path, data)
            for saved in sorted(path.parent.glob("*.png")):
                save_figure(root, problem, saved.stem)
            click.echo(
                f"{problem.folder:26} {run.seconds:6.1f} s ({run.busy:4.1f} s busy)  "
                f"{len(data) / 1000:4.0f} kB  " + ("unchanged" if data == before else "saved")
            )

        _execute_all(jobs, workers or os.cpu_count() or 1, tell)
    sys.exit(1 if failed else 0)


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
    from learn_gpt2.assembly.swap import write_atomically

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
    cli()
