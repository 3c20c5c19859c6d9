"""Which pieces the seven files of `src/gpt2/` are made of, and putting other ones in.

The state is in the files themselves: a header says whose piece it is and from which file and line;
a learner's also has the first digits of the source's SHA-256. model.py has a header for each of its
sections, and each of the other files one in its first line. So nothing is lost with `.learn/`,
which holds the backups alone.

What another command needs: `current_pieces`, `assemble_model`, `assemble_files`, `install`, `undo`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2.common.files import write_atomically
from learn_gpt2.assembly import sections
from learn_gpt2.assembly.assemble import assemble
from learn_gpt2.assembly.modules import module_text, read_module
from learn_gpt2.assembly.sections import Section, Source
from learn_gpt2.checking import child
from learn_gpt2.checking.headers import HEADER, placed_in
from learn_gpt2.checking.loading import not_there
from learn_gpt2.manifest import (
    MODEL_FILE,
    MODEL_PROBLEMS,
    MODULES,
    PROBLEMS,
    Problem,
    module_problem,
    reference_name,
)

if TYPE_CHECKING:
    from learn_gpt2.checking.runner import Report

WINDOWS = os.name == "nt"
VERIFY_SECONDS = 60.0
LOCK_SECONDS = 180.0  # for another process that changes the model
DIFF_LINES = 40

Choice = str | Path | Source  # "yours", "reference", a file, or a source at hand


def model_path(root: Path) -> Path:
    """The assembled model."""
    return file_path(root, MODEL_FILE)


def file_path(root: Path, module: str) -> Path:
    """One of the seven files."""
    return root / "src" / "gpt2" / module


def backup_folder(root: Path) -> Path:
    """Where the files before each swap are kept, numbered in order."""
    return root / ".learn" / "backups" / "model"


# --- what there is ---


def load_source(root: Path, number: int, choice: Choice) -> Source:
    """The source of one problem: the learner's ("yours"), the "reference", or any file.

    ValueError that names file and line when it is not a text; OSError when it can't be read.
    """
    if isinstance(choice, Source):
        return choice
    problem = PROBLEMS[number - 1]
    known = {"yours": problem.problem_path(root), "reference": problem.solution_path(root)}
    if isinstance(choice, str) and choice not in known:
        raise ValueError(f'a piece is "yours", "reference" or a Path, not {choice!r}')
    path = known[choice] if isinstance(choice, str) else choice
    owner = next((word for word, file in known.items() if file == path), "file")
    try:
        shown = path.relative_to(root).as_posix()
    except ValueError:
        shown = path.as_posix()
    if not path.is_file():
        raise FileNotFoundError(f"{not_there(path)} Problem {number:02d} has no piece to take.")
    return sections.read_source(number, owner, path, shown)


def read_model(root: Path, module: str = MODEL_FILE) -> str:
    """The text of model.py or another of the seven files, with "\n" line ends. ValueError when it
    is not there or no text.
    """
    path = file_path(root, module)
    back = f"`learn swap --reference {reference_name(module)}` writes it again"
    try:
        return path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except FileNotFoundError:
        raise ValueError(f"{path} is not there; {back}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; {back}") from None


def _read_if_there(root: Path, module: str) -> str | None:
    """The text of one of the seven files; None when there is no text to be had."""
    try:
        return read_model(root, module)
    except ValueError:
        return None


def pieces_in(root: Path, module: str) -> dict[int, Source]:
    """The pieces that stand in one of the seven files, as they stand there, by problem number.

    ValueError when `learn swap` did not write it.
    """
    text = read_model(root, module)
    if module == MODEL_FILE:
        return sections.split(text)
    problem = module_problem(module)
    return {problem.number: read_module(text, problem)}


def current_pieces(root: Path, modules: Iterable[str] = MODULES) -> dict[int, Source]:
    """The pieces that the seven files are made of now, by problem number.

    A reference piece is read from solutions/. A learner's is the source as it was swapped in: its
    file if that has not changed since, else what stands in the product. `assemble_files(root,
    current_pieces(root))` gives the same files again (with the solutions as they are now).
    modules: look at these files only. ValueError when one of them was not written by `learn swap`.
    """
    pieces: dict[int, Source] = {}
    for module in modules:
        pieces |= pieces_in(root, module)
    for number, piece in pieces.items():
        with contextlib.suppress(OSError, ValueError):
            if piece.owner in ("yours", "reference"):
                fresh = load_source(root, number, piece.owner)
                if piece.owner == "reference" or fresh.digest == piece.digest:
                    pieces[number] = dataclasses.replace(fresh, forced=piece.forced)
    return pieces


def assemble_model(root: Path, choices: Mapping[int, Choice]) -> str:
    """The text of model.py for a choice of pieces; a problem not named gets the reference.

    `{3: "yours", 5: Path("…/problem.py")}`; those of part two change nothing. Writes nothing.
    ValueError that names file and line for a piece that does not parse or can't be carried over.
    """
    _known(choices)
    return assemble(
        load_source(root, problem.number, choices.get(problem.number, "reference"))
        for problem in MODEL_PROBLEMS
    )


def assemble_files(
    root: Path, choices: Mapping[int, Choice], modules: Iterable[str] = MODULES
) -> dict[str, str]:
    """The texts of the seven files (or of `modules`) for a choice of pieces, by the files' names.

    As `assemble_model` in all else.
    """
    _known(choices)
    texts: dict[str, str] = {}
    for module in modules:
        if module == MODEL_FILE:
            texts[module] = assemble_model(root, choices)
        else:
            problem = module_problem(module)
            choice = choices.get(problem.number, "reference")
            texts[module] = module_text(load_source(root, problem.number, choice))
    return texts


def _known(choices: Mapping[int, Choice]) -> None:
    unknown = [n for n in choices if not 1 <= n <= len(PROBLEMS)]
    if unknown:
        raise ValueError(f"no problem {unknown[0]}; there are 1 to {len(PROBLEMS)}")


@dataclass(frozen=True)
class Row:
    """One line of the board. owner: "reference", "yours", "file", or "unknown" where the piece's
    file was not written by `learn swap`. changed: what is different from when it was swapped in,
    or "". forced: it went in although its checks did not pass. module: the file that it stands in.
    """

    number: int
    title: str
    owner: str
    path: str
    line: int
    digest: str
    changed: str = ""
    forced: bool = False
    module: str = MODEL_FILE


def board(root: Path) -> list[Row]:
    """Whose piece is where in the seven files, and which sources changed since. ValueError when
    model.py was not written by `learn swap`.
    """
    rows: list[Row] = []
    for module in MODULES:
        problems = [p for p in PROBLEMS if p.module == module]
        try:
            pieces = pieces_in(root, module)
        except ValueError:
            if module == MODEL_FILE:
                raise
            there = file_path(root, module).is_file()
            what = f"{module} {'was not written by `learn swap`' if there else 'is not there'}"
            rows += [
                Row(p.number, p.title, "unknown", "", 0, "", what, False, module) for p in problems
            ]
            continue
        stands = _texts_in(read_model(root, module), module)
        expected: dict[int, object] = {}
        with contextlib.suppress(OSError, ValueError):
            current = assemble_files(root, current_pieces(root, [module]), [module])[module]
            expected = _texts_in(current, module)
        for problem in problems:
            piece = pieces[problem.number]
            edited = bool(expected) and stands[problem.number] != expected[problem.number]
            rows.append(
                Row(
                    problem.number,
                    problem.title,
                    piece.owner,
                    piece.path,
                    piece.line,
                    piece.digest,
                    _changed(root, problem, piece, edited),
                    piece.forced,
                    module,
                )
            )
    return rows


def _changed(root: Path, problem: Problem, piece: Source, edited: bool) -> str:
    """What is different from when the piece was swapped in, in words; "" when nothing is."""
    if piece.owner == "reference":
        return "differs from solutions/" if edited else ""
    if piece.owner != "yours":
        return ""
    try:
        fresh = load_source(root, problem.number, "yours")
    except (OSError, ValueError):
        return "your file can't be read"
    if fresh.digest != piece.digest:
        return "your file changed since"
    return f"edited in {problem.module}" if edited else ""


def _texts_in(text: str, module: str) -> dict[int, object]:
    """What stands in a file for each problem, to be compared: without the headers, whose line
    numbers may differ.
    """
    if module == MODEL_FILE:
        return dict(_by_number(sections.sections_of(text)))
    problem = module_problem(module)
    return {problem.number: text.partition("\n")[2]}


def _by_number(found: list[Section]) -> dict[int, list[str]]:
    texts: dict[int, list[str]] = {}
    for section in found:
        texts.setdefault(section.number, []).append(section.text)
    return texts


# --- checking and writing ---


def verify(root: Path, texts: Mapping[str, str], seconds: float | None = None) -> None:
    """Import the texts of some of the seven files in a process of its own, beside the files that
    are there, and run them once.

    They must have every name of the contract; the model runs a forward pass and a step with the KV
    cache, and each other file does what the product needs it for. ValueError that says what went
    wrong, and in whose piece.
    """
    for module, text in texts.items():
        try:
            compile(text, str(file_path(root, module)), "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            what = "the model" if module == MODEL_FILE else module
            raise ValueError(f"{what} would not compile: {error}") from None
    files: dict[str, str] = {}
    try:
        for module, text in texts.items():
            target = file_path(root, module)
            handle, name = tempfile.mkstemp(
                prefix=f".{target.stem}-", suffix=".py", dir=target.parent
            )
            files[module] = name
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
        _verify_files(root, files, texts, seconds or VERIFY_SECONDS)
    finally:
        for name in files.values():
            Path(name).unlink(missing_ok=True)


def _verify_files(
    root: Path, files: Mapping[str, str], texts: Mapping[str, str], seconds: float
) -> None:
    contract = {p.number: list(p.provides) for p in PROBLEMS if p.module in files}
    names = {p.module: p.import_name for p in PROBLEMS}
    job = {
        "files": [[names[m], files[m]] for m in MODULES if m in files],
        "contract": {
            names[m]: {n: contract[n] for n in contract if PROBLEMS[n - 1].module == m}
            for m in files
        },
    }
    what = "the model" if MODEL_FILE in files else " and ".join(files)
    command = child.python("-m", "learn_gpt2.assembly.trial", json.dumps(job))
    environment = child.environment(root, PYTHONDONTWRITEBYTECODE="1")
    with tempfile.TemporaryDirectory(prefix="learn-swap-", ignore_cleanup_errors=True) as folder:
        try:
            result = child.ask(command, seconds, environment, cwd=folder)
        except child.NoAnswer as nothing:
            if nothing.late:
                raise ValueError(
                    f"{what} with this piece was still running after {seconds:g} s; "
                    "is there a loop that never ends?"
                ) from None
            raise ValueError(
                f"{what} with this piece ended Python (exit code {nothing.code}) before it had run"
            ) from None
    if result.get("error"):
        text = texts.get(result.get("module") or "", "")
        raise ValueError(result["error"] + _whose_line(text, result.get("line")))


def _whose_line(text: str, line: int | None) -> str:
    """ " (problem 05, problems/…/problem.py: `y = …`)" for a line of the assembled text."""
    if not line:
        return ""
    lines = text.split("\n")
    headers = [m for row in lines[:line] if (m := HEADER.fullmatch(row))]
    if not headers:
        return ""
    where = f"problem {headers[-1]['number']}, {headers[-1]['path']}"
    return f" ({where}: `{lines[line - 1].strip()}`)"


def install(
    root: Path,
    texts: Mapping[str, str],
    why: str,
    *,
    backup: bool = True,
    before: Mapping[str, str | None] | None = None,
    into: int | None = None,
) -> int | None:
    """Verify the texts of some of the seven files and put them in place, all or none; returns the
    number of the backup of those before.

    why: a few words for the backup's name, such as "swap-05". before: the texts that the new ones
    were made from (None for a file that could not be read); ValueError when another is there by
    now. into: the number of a backup that this one is added to, so that one undo brings all back.
    Nothing is written when all are there already.
    """
    new = {m: t for m, t in texts.items() if _bytes_of(file_path(root, m)) != t.encode()}
    if not new:
        return into
    verify(root, new)
    for module, text in (before or {}).items():
        if module in new and _read_if_there(root, module) != text:
            raise ValueError(
                f"{file_path(root, module)} was changed by something else meanwhile; "
                "nothing written"
            )
    kept = keep(root, why, new, into) if backup else into
    write_together(root, {file_path(root, m): t.encode() for m, t in new.items()})
    return kept


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def write_together(root: Path, files: Mapping[Path, bytes]) -> None:
    """Write several files, each as a whole: when one of them can't be, those before it become what
    they were.
    """
    before: dict[Path, bytes | None] = {}
    try:
        for path, data in files.items():
            before[path] = _bytes_of(path)
            write_atomically(path, data)
    except BaseException:
        for path, data in before.items():
            with contextlib.suppress(OSError):
                if data is None:
                    path.unlink(missing_ok=True)
                elif _bytes_of(path) != data:
                    write_atomically(path, data)
        raise


BACKUP = re.compile(r"(?P<number>\d+)-before-(?P<why>[a-z0-9-]*)(?:\.(?P<module>\w+))?\.py")


def keep(
    root: Path, why: str, modules: Iterable[str] = MODULES, into: int | None = None
) -> int | None:
    """Back present files up as .learn/backups/model/0007-before-swap-05.py, which is model.py, and
    0007-before-swap-13.sampling.py; returns the number, None when there was nothing to keep.

    into: add to this backup; a file that it holds already is left as it is there.
    """
    number = into or max(_backups(root), default=0) + 1
    held = {module for module, _ in _backups(root).get(number, [])}
    words = re.sub(r"[^a-z0-9]+", "-", why.lower()).strip("-")[:60]
    for module in modules:
        data = _bytes_of(file_path(root, module))
        if data is None or module in held:
            continue
        suffix = "" if module == MODEL_FILE else f".{Path(module).stem}"
        write_atomically(backup_folder(root) / f"{number:04d}-before-{words}{suffix}.py", data)
        held.add(module)
    return number if held else None


def _backups(root: Path) -> dict[int, list[tuple[str, Path]]]:
    """Number of each backup → the files that it holds, as (which of the seven, where)."""
    found: dict[int, list[tuple[str, Path]]] = {}
    for path in sorted(backup_folder(root).glob("*-before-*.py")):
        match = BACKUP.fullmatch(path.name)
        module = f"{match['module'] or 'model'}.py" if match else ""
        if module in MODULES:
            found.setdefault(int(match["number"]), []).append((module, path))
    return found


def undo(root: Path) -> tuple[Path, int]:
    """Bring the files before the last swap back; once more goes one further.

    Returns a backup that came back and how many are left. The files that it replaces are kept too,
    as .learn/backups/model/undone-….py. ValueError when there is nothing to undo.
    """
    with model_lock(root):
        return _undo(root)


def _undo(root: Path) -> tuple[Path, int]:
    backups = _backups(root)
    if not backups:
        raise ValueError("nothing to undo: no swap has changed the model yet")
    last = backups[max(backups)]
    for module, kept in last:
        if (present := _bytes_of(file_path(root, module))) is not None:
            undone = kept.with_name(f"undone-{kept.name.replace('-before-', '-')}")
            write_atomically(undone, present)
    write_together(root, {file_path(root, m): kept.read_bytes() for m, kept in last})
    for _, kept in last:
        kept.unlink()
    return last[0][1], len(backups) - 1


def whose_differences(root: Path) -> tuple[list[int], list[int]]:
    """Where the seven files are not what the solutions give: (the learner's pieces, the others)."""
    mine: list[int] = []
    edited: list[int] = []
    wanted = assemble_files(root, {})
    for module in MODULES:
        text = _read_if_there(root, module) or ""
        owners = {n: p.owner for n, p in _headers(text, module).items()}
        stands, want = _texts_in(text, module), _texts_in(wanted[module], module)
        for number in sorted(want):
            lost = module != MODEL_FILE and number not in owners  # its header is gone
            if owners.get(number, "reference") != "reference":
                mine.append(number)
            elif lost or (text and stands.get(number) != want[number]):
                edited.append(number)
    return mine, edited


def _headers(text: str, module: str) -> dict[int, Section | Source]:
    """The headers of a text of one of the seven files, by problem number."""
    if module == MODEL_FILE:
        return {s.number: s for s in sections.sections_of(text)}
    problem = module_problem(module)
    try:
        return {problem.number: read_module(text, problem)}
    except ValueError:
        return {}


def check(root: Path) -> str:
    """ "" when the seven files are exactly what the solutions give, else unified diffs, each cut
    short.
    """
    return "\n".join(filter(None, (_check_file(root, module) for module in MODULES)))


def _check_file(root: Path, module: str) -> str:
    expected = assemble_files(root, {}, [module])[module]
    path = file_path(root, module)
    present = read_model(root, module) if path.exists() else ""
    if present == expected:
        return ""
    diff = list(
        difflib.unified_diff(
            expected.splitlines(),
            present.splitlines(),
            "what the solutions give",
            f"src/gpt2/{module}",
            lineterm="",
            n=2,
        )
    )
    if not diff:
        return f"src/gpt2/{module} differs at its very end, in line ends"
    more = len(diff) - DIFF_LINES
    return "\n".join(diff[:DIFF_LINES] + ([f"… and {more} more lines"] if more > 0 else []))


# --- swapping ---


@dataclass(frozen=True)
class Outcome:
    """What came of one problem: "swapped", "unchanged", "refused" or "not tried", and why.

    forcible: `force` would have put it in.
    """

    number: int
    state: str
    message: str = ""
    forcible: bool = False


class ChecksFail(ValueError):
    """A piece whose own checks don't pass."""


def swap(
    root: Path,
    problems: Iterable[Problem],
    owner: str = "yours",
    *,
    force: bool = False,
    run_tests: Callable[[Path, Problem], Report] | None = None,
    tell: Callable[[Outcome], None] = lambda outcome: None,
    waiting: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Put pieces into the seven files: the learner's ("yours", one by one and each after its tests)
    or the "reference" (all at once). The first that is refused ends it; those before it stay in.

    `undo` takes the whole call back. run_tests: `runner.run_isolated`, unless another is given.
    force: a piece whose tests fail goes in too. tell: called with each outcome as it comes.
    waiting: called when another process changes the model just now, and this one waits.
    """
    with model_lock(root, waiting):
        return _swap(root, list(problems), owner, force, run_tests, tell)


@contextlib.contextmanager
def model_lock(root: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """One process at a time changes the seven files. ValueError after LOCK_SECONDS, and when the
    course can't be written.
    """
    from filelock import FileLock, Timeout

    folder = root / ".learn"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "model.lock")
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            waiting()
            lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise ValueError(
            f"another `learn swap` has been changing the model for {LOCK_SECONDS:.0f} s. Wait for "
            "it or end it, then try again"
        ) from None
    except OSError as error:
        raise ValueError(
            f"{folder} can't be written ({error.strerror or error}), so the model can't be changed"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _swap(
    root: Path,
    problems: list[Problem],
    owner: str,
    force: bool,
    run_tests: Callable[[Path, Problem], Report] | None,
    tell: Callable[[Outcome], None],
) -> list[Outcome]:
    outcomes: list[Outcome] = []

    def note(number: int, state: str, message: str = "", forcible: bool = False) -> None:
        outcomes.append(Outcome(number, state, message, forcible))
        tell(outcomes[-1])

    why = "swap-" + ("reference-" if owner == "reference" else "") + _span(problems)
    if owner == "reference":
        for number, state in _swap_references(root, problems, why).items():
            note(number, state)
        return outcomes
    backup: int | None = None
    for i, problem in enumerate(problems):
        try:
            message, backup = _swap_yours(root, problem, why, force, run_tests, backup)
        except (ValueError, OSError) as error:
            note(problem.number, "refused", str(error), isinstance(error, ChecksFail))
            for later in problems[i + 1 :]:
                note(later.number, "not tried")
            break
        if message is None:
            forced = placed_in(problem.module_path(root))[problem.number].forced
            note(
                problem.number,
                "unchanged",
                "it is in the model already"
                + (": forced, since its checks don't pass" if forced else ""),
            )
        else:
            note(problem.number, "swapped", message)
    return outcomes


def _swap_references(root: Path, problems: list[Problem], why: str) -> dict[int, str]:
    wanted = {problem.number for problem in problems}
    modules = [m for m in MODULES if any(p.module == m for p in problems)]
    pieces: dict[int, Choice] = dict.fromkeys(wanted, "reference")
    if MODEL_FILE in modules:
        try:
            pieces = current_pieces(root, [MODEL_FILE]) | pieces
        except ValueError:  # a model that can't be read back is written again as a whole
            if not wanted >= {p.number for p in MODEL_PROBLEMS}:
                raise
    before = {module: _read_if_there(root, module) for module in modules}
    texts = assemble_files(root, pieces, modules)
    install(root, texts, why, before=before)
    states: dict[int, str] = {}
    for problem in problems:
        module, number = problem.module, problem.number
        old = before[module] or ""
        header = _headers(old, module).get(number)
        same = _texts_in(old, module).get(number) == _texts_in(texts[module], module)[number]
        unchanged = same and header is not None and header.owner == "reference"
        states[number] = "unchanged" if unchanged else "swapped"
    return states


def _swap_yours(
    root: Path, problem: Problem, why: str, force: bool, run_tests, backup: int | None
) -> tuple[str | None, int | None]:
    """Swap one in; what to say about it, None when it is in already, and the backup's number."""
    module = problem.module
    if problem.in_model:
        before: str | None = read_model(root)
    else:  # nothing of the old file is needed, and a backup of it is kept
        before = _read_if_there(root, module)
    piece = load_source(root, problem.number, "yours")
    pieces = current_pieces(root, [module]) if problem.in_model else {}
    text = assemble_files(root, {**pieces, problem.number: piece}, [module])[module]
    if text == before:
        return None, backup
    if run_tests is None:
        from learn_gpt2.checking.runner import run_isolated as run_tests
    report = run_tests(root, problem)
    if not report.passed:
        first = report.first_failure
        if not force:
            raise ChecksFail(
                report.words + (f"; first {first.name}: {first.message}" if first else "")
            )
        piece = dataclasses.replace(piece, forced=True)
        text = assemble_files(root, {**pieces, problem.number: piece}, [module])[module]
    if load_source(root, problem.number, "yours").digest != piece.digest:
        raise ValueError(f"{piece.path} changed while its checks ran; swap it in again")
    if text == before:
        return None, backup
    backup = install(root, {module: text}, why, before={module: before}, into=backup)
    return (report.words if report.passed else f"FORCED: {report.words}"), backup


def _span(problems: list[Problem]) -> str:
    numbers = [p.number for p in problems]
    whole = len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]}-{numbers[-1]}" if whole else "-".join(map(str, numbers))
