"""Which pieces `src/gpt2/model.py` is made of, and putting other ones in.

The state is in model.py itself: each section's header says whose piece it is and from which file
and line; a learner's also has the first digits of the source's SHA-256. So nothing is lost with
`.learn/`, which holds the backups alone.

What another command needs: `current_pieces`, `assemble_model`, `install`, `undo`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2.common.files import write_atomically
from learn_gpt2.assembly import sections
from learn_gpt2.assembly.assemble import assemble
from learn_gpt2.assembly.sections import Section, Source
from learn_gpt2.checking.headers import HEADER, placed
from learn_gpt2.checking.loading import not_there
from learn_gpt2.manifest import PROBLEMS, Problem

if TYPE_CHECKING:
    from learn_gpt2.checking.runner import Report

WINDOWS = os.name == "nt"
VERIFY_SECONDS = 60.0
LOCK_SECONDS = 180.0  # for another process that changes the model
DIFF_LINES = 40

Choice = str | Path | Source  # "yours", "reference", a file, or a source at hand


def model_path(root: Path) -> Path:
    """The assembled model."""
    return root / "src" / "gpt2" / "model.py"


def backup_folder(root: Path) -> Path:
    """Where the models before each swap are kept, numbered in order."""
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


def read_model(root: Path) -> str:
    """The text of model.py, with "\\n" line ends. ValueError when it is not there or no text."""
    path = model_path(root)
    try:
        return path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except FileNotFoundError:
        raise ValueError(
            f"{path} is not there; `learn swap --reference all` writes it again"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(
            f"{path} is not UTF-8 text; `learn swap --reference all` writes it again"
        ) from None


def current_pieces(root: Path) -> dict[int, Source]:
    """The twelve pieces that model.py is made of now, by problem number.

    A reference piece is read from solutions/. A learner's is the source as it was swapped in: its
    file if that has not changed since, else what stands in model.py. `assemble_model(root,
    current_pieces(root))` writes the same model again (with the solutions as they are now).
    ValueError when model.py has not all twelve sections.
    """
    pieces = sections.split(read_model(root))
    for number, piece in pieces.items():
        with contextlib.suppress(OSError, ValueError):
            if piece.owner in ("yours", "reference"):
                fresh = load_source(root, number, piece.owner)
                if piece.owner == "reference" or fresh.digest == piece.digest:
                    pieces[number] = dataclasses.replace(fresh, forced=piece.forced)
    return pieces


def assemble_model(root: Path, choices: Mapping[int, Choice]) -> str:
    """The text of model.py for a choice of pieces; a problem not named gets the reference.

    `{3: "yours", 5: Path("…/problem.py")}`. Writes nothing. ValueError that names file and line for
    a piece that does not parse or can't be carried over.
    """
    unknown = [n for n in choices if not 1 <= n <= len(PROBLEMS)]
    if unknown:
        raise ValueError(f"no problem {unknown[0]}; there are 1 to {len(PROBLEMS)}")
    return assemble(
        load_source(root, problem.number, choices.get(problem.number, "reference"))
        for problem in PROBLEMS
    )


@dataclass(frozen=True)
class Row:
    """One line of the board. changed: what is different from when it was swapped in, or "".
    forced: it went in although its checks did not pass.
    """

    number: int
    title: str
    owner: str
    path: str
    line: int
    digest: str
    changed: str = ""
    forced: bool = False


def board(root: Path) -> list[Row]:
    """Whose piece is where in model.py, and which sources changed since. ValueError as
    `current_pieces`.
    """
    text = read_model(root)
    pieces = sections.split(text)
    stands = _by_number(sections.sections_of(text))
    expected: dict[int, list[str]] = {}
    with contextlib.suppress(OSError, ValueError):
        current = assemble_model(root, current_pieces(root))
        expected = _by_number(sections.sections_of(current))
    rows = []
    for problem in PROBLEMS:
        piece = pieces[problem.number]
        changed = ""
        edited = bool(expected) and stands[problem.number] != expected[problem.number]
        if piece.owner == "reference":
            changed = "differs from solutions/" if edited else ""
        elif piece.owner == "yours":
            try:
                fresh = load_source(root, problem.number, "yours")
                if fresh.digest != piece.digest:
                    changed = "your file changed since"
                elif edited:
                    changed = "edited in model.py"
            except (OSError, ValueError):
                changed = "your file can't be read"
        rows.append(
            Row(
                problem.number,
                problem.title,
                piece.owner,
                piece.path,
                piece.line,
                piece.digest,
                changed,
                piece.forced,
            )
        )
    return rows


def _by_number(found: list[Section]) -> dict[int, list[str]]:
    texts: dict[int, list[str]] = {}
    for section in found:
        texts.setdefault(section.number, []).append(section.text)
    return texts


# --- checking and writing ---


def verify(root: Path, text: str, seconds: float | None = None) -> None:
    """Import a model's text in a process of its own, beside model.py, and run it once.

    It must have every class of the contract, run a forward pass and a step with the KV cache.
    ValueError that says what went wrong, and in whose piece.
    """
    target = model_path(root)
    try:
        compile(text, str(target), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"the model would not compile: {error}") from None
    handle, name = tempfile.mkstemp(prefix=".model-", suffix=".py", dir=target.parent)
    with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    try:
        _verify_file(root, Path(name), text, seconds or VERIFY_SECONDS)
    finally:
        Path(name).unlink(missing_ok=True)


def _verify_file(root: Path, path: Path, text: str, seconds: float) -> None:
    contract = {p.number: list(p.provides) for p in PROBLEMS}
    environment = {
        **os.environ,
        "PYTHONPATH": str(root / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    script = Path(__file__).with_name("trial.py")
    # Windows can't delete what a process that outlived the trial holds open
    with tempfile.TemporaryDirectory(prefix="learn-swap-", ignore_cleanup_errors=True) as folder:
        verdict = Path(folder) / "verdict.json"
        with open(Path(folder) / "output", "w+b") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", str(script), str(path), str(verdict), json.dumps(contract)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                start_new_session=os.name == "posix",
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise ValueError(
                    f"the model with this piece was still running after {seconds:g} s; "
                    "is there a loop that never ends?"
                ) from None
            finally:
                _end(process)
        try:
            result = json.loads(verdict.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ValueError(
                f"the model with this piece ended Python (exit code {code}) before it had run"
            ) from None
    if result.get("error"):
        raise ValueError(result["error"] + _whose_line(text, result.get("line")))


def _end(process: subprocess.Popen) -> None:
    """Stop what is left of a process, and of what it started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


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
    root: Path, text: str, why: str, *, backup: bool = True, before: str | None = None
) -> Path | None:
    """Verify a model's text and put it in model.py's place; returns the backup of the one before.

    why: a few words for the backup's name, such as "swap-05". before: the text that the new one was
    made from; ValueError when another is there by now. Nothing is written when it equals what is
    there.
    """
    path = model_path(root)
    if path.exists() and path.read_bytes() == text.encode():
        return None
    verify(root, text)
    if before is not None and path.exists() and read_model(root) != before:
        raise ValueError(f"{path} was changed by something else meanwhile; nothing written")
    kept = keep(root, why) if backup else None
    write_atomically(path, text.encode())
    return kept


def keep(root: Path, why: str) -> Path | None:
    """Back the present model.py up as .learn/backups/model/0007-before-swap-05.py."""
    path = model_path(root)
    if not path.exists():
        return None
    last = max((_order(p) for p in _backups(root)), default=0)
    words = re.sub(r"[^a-z0-9]+", "-", why.lower()).strip("-")[:60]
    backup = backup_folder(root) / f"{last + 1:04d}-before-{words}.py"
    write_atomically(backup, path.read_bytes())
    return backup


def _order(backup: Path) -> int:
    return int(backup.name.split("-")[0])


def _backups(root: Path) -> list[Path]:
    folder = backup_folder(root)
    found = [p for p in folder.glob("*-before-*.py") if re.match(r"\d+-", p.name)]
    return sorted(found, key=_order)


def undo(root: Path) -> tuple[Path, int]:
    """Bring the model before the last swap back; once more goes one further.

    Returns the backup that came back and how many are left. The model that it replaces is kept too,
    as .learn/backups/model/undone-….py. ValueError when there is nothing to undo.
    """
    with model_lock(root):
        return _undo(root)


def _undo(root: Path) -> tuple[Path, int]:
    backups = _backups(root)
    if not backups:
        raise ValueError("nothing to undo: no swap has changed the model yet")
    last = backups[-1]
    path = model_path(root)
    if path.exists():
        undone = last.with_name(f"undone-{last.name.replace('-before-', '-')}")
        write_atomically(undone, path.read_bytes())
    write_atomically(path, last.read_bytes())
    last.unlink()
    return last, len(backups) - 1


def whose_differences(root: Path) -> tuple[list[int], list[int]]:
    """Where model.py is not what the solutions give: (the learner's pieces, the other sections)."""
    try:
        there = sections.sections_of(read_model(root))
    except ValueError:
        return [], []
    mine = sorted({s.number for s in there if s.owner != "reference"})
    stands = _by_number(there)
    wanted = _by_number(sections.sections_of(assemble_model(root, {})))
    edited = [n for n in sorted(wanted) if n not in mine and stands.get(n) != wanted[n]]
    return mine, edited


def check(root: Path) -> str:
    """ "" when model.py is exactly what the solutions give, else a unified diff, cut short."""
    expected = assemble_model(root, {})
    path = model_path(root)
    present = read_model(root) if path.exists() else ""
    if present == expected:
        return ""
    diff = list(
        difflib.unified_diff(
            expected.splitlines(),
            present.splitlines(),
            "what the solutions give",
            "src/gpt2/model.py",
            lineterm="",
            n=2,
        )
    )
    if not diff:
        return "src/gpt2/model.py differs at its very end, in line ends"
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
    """Put pieces into model.py: the learner's ("yours", one by one and each after its tests) or the
    "reference" (all at once). The first that is refused ends it; those before it stay in.

    `undo` takes the whole call back. run_tests: `runner.run_isolated`, unless another is given.
    force: a piece whose tests fail goes in too. tell: called with each outcome as it comes.
    waiting: called when another process changes the model just now, and this one waits.
    """
    with model_lock(root, waiting):
        return _swap(root, list(problems), owner, force, run_tests, tell)


@contextlib.contextmanager
def model_lock(root: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """One process at a time changes model.py. ValueError after LOCK_SECONDS, and when the course
    can't be written.
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
    backed_up = False
    for i, problem in enumerate(problems):
        try:
            message = _swap_yours(root, problem, why, force, run_tests, not backed_up)
        except (ValueError, OSError) as error:
            note(problem.number, "refused", str(error), isinstance(error, ChecksFail))
            for later in problems[i + 1 :]:
                note(later.number, "not tried")
            break
        if message is None:
            forced = placed(read_model(root))[problem.number].forced
            note(
                problem.number,
                "unchanged",
                "it is in the model already"
                + (": forced, since its checks don't pass" if forced else ""),
            )
        else:
            backed_up = True
            note(problem.number, "swapped", message)
    return outcomes


def _swap_references(root: Path, problems: list[Problem], why: str) -> dict[int, str]:
    try:
        before: str | None = read_model(root)
        pieces: dict[int, Choice] = dict(current_pieces(root))
    except ValueError:
        if len(problems) < len(PROBLEMS):
            raise
        before, pieces = None, {}  # a model that can't be read back is written again
    owners = {number: piece.owner for number, piece in pieces.items()}
    stands = _by_number(sections.sections_of(before or ""))
    pieces |= {problem.number: "reference" for problem in problems}
    text = assemble_model(root, pieces)
    install(root, text, why, before=before)
    comes = _by_number(sections.sections_of(text))
    same = {n for n in comes if owners.get(n) == "reference" and stands.get(n) == comes[n]}
    return {p.number: "unchanged" if p.number in same else "swapped" for p in problems}


def _swap_yours(
    root: Path, problem: Problem, why: str, force: bool, run_tests, backup: bool
) -> str | None:
    """Swap one in; what to say about it, or None when it is in already."""
    before = read_model(root)
    piece = load_source(root, problem.number, "yours")
    pieces = current_pieces(root)
    text = assemble_model(root, {**pieces, problem.number: piece})
    if text == before:
        return None
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
        text = assemble_model(root, {**pieces, problem.number: piece})
    if load_source(root, problem.number, "yours").digest != piece.digest:
        raise ValueError(f"{piece.path} changed while its checks ran; swap it in again")
    if text == before:
        return None
    install(root, text, why, backup=backup, before=before)
    return report.words if report.passed else f"FORCED: {report.words}"


def _span(problems: list[Problem]) -> str:
    numbers = [p.number for p in problems]
    whole = len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]}-{numbers[-1]}" if whole else "-".join(map(str, numbers))
