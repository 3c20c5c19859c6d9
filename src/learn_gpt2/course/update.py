"""`learn update`: a newer version of the course, with the learner's work as it was.

What the learner changes in files that git tracks are problem.py and the seven files that pieces are
swapped into. Both are copied aside, put back to what git knows, git pulls, and both come back:
problem.py byte for byte, the seven files assembled again from the new reference and the learner's
own pieces.

A course that `learn init` made gets its files from the installed package instead; a file of the
course that the learner has changed is kept in `.learn/backups/update-…` first.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gpt2.common.files import folder_written_aside, write_atomically
from learn_gpt2.assembly import modules, sections, swap
from learn_gpt2.assembly.sections import Source
from learn_gpt2.checking import child, headers
from learn_gpt2.course import backups, layout
from learn_gpt2.manifest import MODEL_FILE, MODULES, PROBLEMS, Problem, module_problem

ASSEMBLY_SECONDS = 600.0


@dataclass(frozen=True)
class Updated:
    """What an update did: versions before and after, problems kept, pieces in the model again.

    backups: names of other files that the learner had changed; what they held is in `saved_in`.
    """

    before: str
    after: str
    kept: tuple[int, ...]
    swapped: tuple[int, ...]
    note: str = ""
    backups: tuple[str, ...] = ()
    saved_in: Path | None = None


def update(root: Path) -> Updated:
    """Get the newest version. ValueError, and everything as it was, when that can't be done."""
    if layout.was_made(root):
        return _from_package(root)
    if git(root, "rev-parse", "--is-inside-work-tree", check=False).strip() != "true":
        raise ValueError(
            f"{root} is not a git checkout, so there is nothing to pull from. Clone the course "
            "again and copy your problems/*/problem.py over."
        )
    if _aside(root).exists():
        restore(root)  # an update was cut off
    if git(root, "rev-parse", "-q", "--verify", "MERGE_HEAD", check=False).strip():
        raise ValueError("a merge is in progress: `git commit` or `git merge --abort` ends it")
    before = git(root, "rev-parse", "--short", "HEAD").strip()
    save(root)
    try:
        dirty = git(root, "diff", "--name-only", "HEAD", "--", *_own_names()).split()
        by_hand = [n for n in dirty if n in layout.WRITTEN and not _holds_pieces(root / n)]
        saved_in = _new_folder(root)
        for name in by_hand:  # an edit that no header tells of would be lost
            if (root / name).is_file():
                write_atomically(saved_in / name, (root / name).read_bytes())
        if dirty:
            git(root, "checkout", "HEAD", "--", *dirty)
        git(root, "pull", "--no-rebase", "--no-edit", "-X", "ours")
    except BaseException:
        git(root, "merge", "--abort", check=False)
        restore(root)
        raise
    swapped, note = _finish(root)
    kept = tuple(p.number for p in PROBLEMS if (_aside(root) / _name(p)).exists())
    shutil.rmtree(_aside(root))
    after = git(root, "rev-parse", "--short", "HEAD").strip()
    return Updated(before, after, kept, swapped, note, tuple(by_hand), saved_in)


def _holds_pieces(path: Path) -> bool:
    """Whether a piece that is not the reference's stands in one of the seven files: it comes back
    from there after the update.
    """
    try:
        return any(p.owner != "reference" for p in headers.placed_in(path).values())
    except (OSError, ValueError):
        return False


def _from_package(root: Path) -> Updated:
    """The installed package's files, for a course that `learn init` made."""
    source = layout.installed_beside(root)
    if source is None:
        raise ValueError(
            f"no installed package was found that {root} could be renewed from: install the course "
            "with pip, in the environment that `learn` runs in"
        )
    if _aside(root).exists():
        restore(root)  # an update was cut off
    new = layout.content(source)
    old, now = layout.read_record(root), layout.record(source, new)
    before, after = layout.name_of(old), layout.name_of(now)
    if old["files"] == now["files"] and all((root / name).is_file() for name in new):
        return Updated(before, after, (), ())
    save(root)
    touched = {name for name in _own_names() if (_aside(root) / name).exists()}
    problems = {_name(p) for p in PROBLEMS}
    saved_in = _new_folder(root)
    written: dict[str, bytes | None] = {}
    changed = []
    try:
        for name in sorted({*new, *old["files"]} - (touched & problems)):
            path = root / name
            present = path.read_bytes() if path.is_file() else None
            if present == new.get(name):
                continue
            theirs = present is not None and name not in problems
            theirs = theirs and not (name in layout.WRITTEN and _holds_pieces(path))
            if theirs and layout.fingerprint(present) != old["files"].get(name):
                if name not in new:
                    continue  # the course has no such file any more; it is the learner's
                write_atomically(saved_in / name, present)
                changed.append(name)
            written[name] = present
            _put(path, new.get(name))
        _put(root / layout.RECORD, layout.encoded(now))
    except BaseException:
        for name, data in written.items():
            _put(root / name, data)
        restore(root)
        raise
    swapped, note = _finish(root)
    shutil.rmtree(_aside(root))
    kept = tuple(p.number for p in PROBLEMS if _name(p) in touched)
    return Updated(before, after, kept, swapped, note, tuple(changed), saved_in)


def _put(path: Path, data: bytes | None) -> None:
    """Write a file as a whole; None: there is to be none. ValueError when the system refuses."""
    try:
        if data is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, data)
    except OSError as error:
        raise ValueError(
            f"{path} can't be written ({error.strerror}); is it open in another program, a "
            "notebook's kernel for instance? Close that and update again"
        ) from None


def _new_folder(root: Path) -> Path:
    """`.learn/backups/update-0001`, or the next number; not made yet."""
    folder = backups.folder(root) / "backups"
    taken = [int(p.name.removeprefix("update-")) for p in folder.glob("update-[0-9]*")]
    return folder / f"update-{max(taken, default=0) + 1:04d}"


def git(root: Path, *arguments: str, check: bool = True) -> str:
    """Run git and return what it prints. ValueError with its last words when it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise ValueError("git is not installed, or not on the PATH") from None
    if check and done.returncode:
        lines = [t for t in done.stderr.splitlines() if not t.startswith("hint:") and t.strip()]
        raise ValueError(f"git {arguments[0]} failed: " + " ".join(lines[-4:])[:500])
    return done.stdout


def _aside(root: Path) -> Path:
    """Where the learner's files are while git works; there only during an update."""
    return backups.folder(root) / "update"


def _name(problem: Problem) -> str:
    return f"problems/{problem.folder}/problem.py"


def _own_names() -> list[str]:
    """The files that are the learner's."""
    return [*layout.WRITTEN, *(_name(p) for p in PROBLEMS)]


def save(root: Path) -> None:
    """Copy the seven files and every touched problem.py aside; complete once the folder has its
    name.
    """
    names = [*layout.WRITTEN, *(_name(p) for p in PROBLEMS if not backups.untouched(root, p))]
    with folder_written_aside(_aside(root)) as part:
        for name in names:
            if (root / name).exists():
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, part / name)


def restore(root: Path) -> None:
    """Put everything back as it was saved."""
    for name in _own_names():
        if (_aside(root) / name).exists():
            write_atomically(root / name, (_aside(root) / name).read_bytes())
    shutil.rmtree(_aside(root), ignore_errors=True)


def _finish(root: Path) -> tuple[tuple[int, ...], str]:
    """The learner's files back; the seven files assembled by the new version's own code."""
    for problem in PROBLEMS:
        saved = _aside(root) / _name(problem)
        if saved.exists():
            write_atomically(root / _name(problem), saved.read_bytes())
    old_model = str(_aside(root) / "src" / "gpt2" / MODEL_FILE)
    command = child.python("-m", "learn_gpt2.course.update", str(root), old_model)
    done = child.run(command, ASSEMBLY_SECONDS, child.environment(root), cwd=root / "src")
    try:
        # the last line: it is said so by every version of the course
        data = json.loads(done.output.splitlines()[-1])
        return tuple(data["swapped"]), data["note"]
    except (IndexError, ValueError, KeyError):
        tail = done.last_words
        for name in layout.WRITTEN:
            if _holds_pieces(_aside(root) / name):
                kept = backups.folder(root) / "backups" / f"{Path(name).stem}-before-update.py"
                write_atomically(kept, (_aside(root) / name).read_bytes())
        return (), f"your pieces were not put into the new model ({tail}); it is the reference's"


def reassemble(root: Path, old_model: Path) -> tuple[list[int], str]:
    """Put the learner's pieces of an older model.py, and of the files beside it, into the present
    ones: (numbers, a note). A file in which they don't run any more is the reference's.
    """
    back: list[int] = []
    failed: list[str] = []
    for module in MODULES:
        mine = _mine(old_model.with_name(module))
        if not mine:
            continue
        try:
            texts = swap.assemble_files(root, mine, [module])
            swap.install(root, texts, "update", backup=False)
            back += mine
        except ValueError as error:
            numbers = ", ".join(f"{n:02d}" for n in sorted(mine))
            failed.append(f"your {numbers} in {module}: {error}")
    if not failed:
        return sorted(back), ""
    return sorted(back), (
        f"not all of your pieces run with the new reference ({'; '.join(failed)}); what they were "
        "in is the reference's now. `learn check` tells more, `learn swap` puts them back in."
    )


def _mine(path: Path) -> dict[int, Source]:
    """The learner's pieces in an older one of the seven files; none in a file that is not there,
    or that was no learner's to write then.
    """
    if not _holds_pieces(path):
        return {}
    text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    if path.name == MODEL_FILE:
        found = sections.split(text)
    else:
        problem = module_problem(path.name)
        found = {problem.number: modules.read_module(text, problem)}
    return {number: piece for number, piece in found.items() if piece.owner != "reference"}


if __name__ == "__main__":
    numbers, words = reassemble(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps({"swapped": numbers, "note": words}))
