"""A course's folder made from the package that runs: `learn init`, and the files for it.

Everything outside `src/` is shipped in the wheel as `learn_gpt2/course_files/`, which setup.py
fills from the repository's own folders (`outside` says with what). The folder has the layout of the
repository, a `src/` with both packages included: the model that a learner's pieces go into is
theirs, and every command then uses the packages of the course that it is called in.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import learn_gpt2
from learn_gpt2.manifest import MODULES, PROBLEMS, course_around

CARRIED = "course_files"  # the folder inside the installed package
RECORD = "src/installed.json"  # in a course that was made: which version, and what each file was
PACKAGES = ("gpt2", "learn_gpt2")
WRITTEN = tuple(f"src/gpt2/{module}" for module in MODULES)  # what pieces are swapped into

_OUTSIDE = (
    "problems/*.md",
    "problems/*/README.md",
    "problems/*/test_*.py",
    "problems/*/mistakes.py",
    "problems/*/notebook.ipynb",
    "problems/*/*.svg",
    "problems/*/*.png",
    "solutions/*.md",
    "solutions/*.py",
    "docs/determinism.md",
    "docs/formats.md",
    "docs/instructors.md",
    "docs/speed.md",
    "docs/training.md",
    "docs/*.png",
    "AGENTS.md",
    "conftest.py",
    "constraints.txt",
    "pyproject.toml",
    "LICENSE",
)


def outside(root: Path) -> list[Path]:
    """The files outside `src/` that a course is made of; problem.py is not one of them, since it
    comes from its skeleton.
    """
    return sorted(path for pattern in _OUTSIDE for path in root.glob(pattern) if path.is_file())


# ── where the files are ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Source:
    """files: holds problems/ and the like. packages: holds gpt2/ and learn_gpt2/."""

    files: Path
    packages: Path

    @property
    def version(self) -> str:
        """The project's version."""
        project = tomllib.loads((self.files / "pyproject.toml").read_text(encoding="utf-8"))
        own = project.get("project") or project.get("tool", {}).get("learn-gpt2", {})
        return own.get("version", "unknown")


def source_of(packages: Path) -> Source | None:
    """The files that belong to the packages in a folder: carried by them, or of a checkout."""
    for files in (packages / "learn_gpt2" / CARRIED, packages.parent):
        if all((files / name).is_dir() for name in ("problems", "solutions")):
            return Source(files, packages)
    return None


def running() -> Source:
    """The files of the package that runs. ValueError when it carries none."""
    here = Path(learn_gpt2.__file__).resolve().parents[1]
    source = source_of(here)
    if source is None:
        raise ValueError(
            f"the package in {here} came without the course's files; install it again from the "
            "repository: pip install --force-reinstall --no-deps ADDRESS"
        )
    return source


def installed_beside(root: Path) -> Source | None:
    """The first package on Python's path that is not the course's own."""
    for entry in sys.path:
        packages = Path(entry or ".").resolve()
        if packages != (root / "src").resolve() and (packages / "learn_gpt2").is_dir():
            source = source_of(packages)
            if source is not None:
                return source
    return None


# ── what a course is made of ────────────────────────────────────────────────────────────────────


def content(source: Source) -> dict[str, bytes]:
    """Every file of a fresh course: its name → its bytes."""
    from learn_gpt2.assembly.swap import assemble_files

    found = {p.relative_to(source.files).as_posix(): p.read_bytes() for p in outside(source.files)}
    for package in PACKAGES:
        for path in sorted((source.packages / package).rglob("*")):
            inner = path.relative_to(source.packages)
            hidden = any(part.startswith((".", "__pycache__")) for part in inner.parts)
            carried = inner.parts[:2] == ("learn_gpt2", CARRIED)
            if path.is_file() and path.suffix != ".pyc" and not hidden and not carried:
                found[f"src/{inner.as_posix()}"] = path.read_bytes()
    for problem in PROBLEMS:
        skeleton = found[f"src/learn_gpt2/skeletons/{problem.folder}.py"]
        found[f"problems/{problem.folder}/problem.py"] = skeleton
    # the package's own files may hold somebody's pieces
    for module, text in assemble_files(source.files, {}).items():
        found[f"src/gpt2/{module}"] = text.encode()
    found["pyproject.toml"] = _pyproject(source).encode()
    found["README.md"] = README.encode()
    found[".gitignore"] = GITIGNORE.encode()
    return found


GITIGNORE = ".learn/\n.venv/\n__pycache__/\n.pytest_cache/\n.ipynb_checkpoints/\nruns/\n"

README = """\
# Your GPT-2, problem by problem

Start with [the path](problems/README.md) and then
[problem 01](problems/01-embeddings/README.md): read the README, fill in `problem.py` beside it, and
run

```sh
pytest problems/01-embeddings      # checks your file and names the first mistake
learn swap 01                      # puts your piece into src/gpt2/model.py, in place of ours
gpt2 generate --prompt "To be"     # lets your GPT-2 write
```

`learn` alone shows where you are and what comes next; `learn hint 01` helps when you are stuck, and
`learn watch` checks whenever you save. In this folder, `learn`, `gpt2` and `pytest` use the
folder's own `src/`, whatever else is installed.

| folder | contents |
|---|---|
| [`problems/`](problems) | the READMEs, your files, the checks, the notebooks |
| [`src/gpt2/`](src/gpt2) | the GPT-2; your pieces go into the seven files that lie in it |
| [`solutions/`](solutions) | our pieces, to compare with afterwards |
| [`docs/`](docs) | training, formats of checkpoints, grading a class |

The notebooks need Jupyter and a plotting library: `pip install jupyterlab matplotlib`. When a newer
version of the package is installed, `learn update` brings it here and keeps your files as they are.
The folder is yours; with `git init` you can keep its history.
"""


def _pyproject(source: Source) -> str:
    """The repository's settings for pytest, and the version."""
    text = (source.files / "pyproject.toml").read_text(encoding="utf-8")
    section = re.search(r"^\[tool\.pytest\.ini_options\]\n.*?(?=^\[|\Z)", text, re.M | re.S)
    if section is None:
        raise ValueError(f"{source.files / 'pyproject.toml'} has no [tool.pytest.ini_options]")
    return f'{section[0].strip()}\n\n[tool.learn-gpt2]\nversion = "{source.version}"\n'


def fingerprint(data: bytes) -> str:
    """Digits that tell whether a file was changed; line ends don't count."""
    return hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest()[:16]


def record(source: Source, files: dict[str, bytes]) -> dict:
    """What `src/installed.json` holds: the version, and each file's fingerprint."""
    return {
        "version": source.version,
        "files": {name: fingerprint(data) for name, data in sorted(files.items())},
    }


def read_record(root: Path) -> dict:
    """The record of a course that was made; without files when it is damaged."""
    try:
        found = json.loads((root / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if isinstance(found, dict) and isinstance(found.get("files"), dict):
        return found
    return {"version": "unknown", "files": {}}


def encoded(found: dict) -> bytes:
    """A record as it is stored."""
    return (json.dumps(found, indent=1) + "\n").encode()


def was_made(root: Path) -> bool:
    """Whether a course was made by `learn init`, and is not a checkout."""
    return (root / RECORD).is_file()


def name_of(found: dict) -> str:
    """A version by name: 0.1.0 (3f2a91c); the digits change with any file."""
    whole = json.dumps(found["files"], sort_keys=True).encode()
    return f"{found['version']} ({hashlib.sha256(whole).hexdigest()[:7]})"


# ── making one ──────────────────────────────────────────────────────────────────────────────────


def make(folder: Path, source: Source | None = None) -> Path:
    """Make a fresh course; it is there as a whole or not at all. Returns its path.

    ValueError when the folder is inside a course, or holds anything.
    """
    folder = Path(os.path.abspath(folder))
    around = course_around(folder)
    if around == folder:
        raise ValueError(f"{folder} is a course already. Change into it: `learn` shows it")
    if around is not None:
        raise ValueError(
            f"{folder} is inside the course {around}, which you can work in: `learn` shows it. "
            "For another one, choose a folder outside it"
        )
    from gpt2.common.files import replace

    _must_be_free(folder)
    source = source or running()
    files = content(source)
    files[RECORD] = encoded(record(source, files))
    part = folder.with_name(f".{folder.name}-part") if not folder.exists() else folder / ".part"
    shutil.rmtree(part, ignore_errors=True)
    moved: list[Path] = []
    try:
        for name, data in files.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if part.parent != folder:
            replace(part, folder)
            return folder
        # an empty folder that is there may be the current one, which must stay the same folder
        for path in sorted(part.iterdir(), key=lambda path: path.name == "src"):
            moved.append(folder / path.name)
            replace(path, moved[-1])
        part.rmdir()
    except BaseException:
        for path in (part, *moved):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise
    return folder


def _must_be_free(folder: Path) -> None:
    """ValueError that says what a folder holds; what an earlier attempt left does not count."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose the name of a new folder")
    if not folder.exists():
        if folder.is_symlink():
            raise ValueError(f"{folder} is a link to nowhere; choose the name of a new folder")
        return
    there = sorted(path.name for path in folder.iterdir() if path.name != ".part")
    if there:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise ValueError(
            f"{folder} is not empty: it holds {', '.join(there[:3])}{more}. Nothing was written. "
            "Choose the name of a new folder, or empty this one"
        )
