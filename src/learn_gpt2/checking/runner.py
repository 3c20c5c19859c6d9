"""Run a problem's checks on a file: in this process, or in one of its own.

`Examination` is what pytest, `learn` and the graders share: it loads the file once, runs checks in
the order in which they stand, skips those whose needs failed, and turns whatever happens into a
`Result` with a message for the learner.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import json
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from learn_gpt2 import manifest
from learn_gpt2.checking import child, faults, loading
from learn_gpt2.checking.headers import Placed, placed_everywhere
from learn_gpt2.checking.limits import TimeLimit, time_limit
from learn_gpt2.checking.loading import Piece, PieceError, shown
from learn_gpt2.checking.output import (
    DebuggerWanted,
    Heard,
    cut_print,
    no_debugger,
    one_check,
    quietly,
)
from learn_gpt2.manifest import Problem

if TYPE_CHECKING:
    from learn_gpt2.checking.checks import Check

MESSAGE_LINES = 6
# what a failure is called that names no mistake
UNNAMED = frozenset(("raises", "shape-mismatch", "wrong-shape", "wrong-dtype", "no-gradient"))
# mistakes that reach beyond the call in which they are made: what fails after them proves nothing
SPREADING = frozenset(
    (
        *("module-remembers", "state-kept-in-module", "model-keeps-state", "shared-attributes"),
        *("grad-left-off", "default-dtype-set", "mode-left-on", "mode-changed", "seed-set"),
        *("edits-input", "edits-weights", "dropout-in-eval", "shared-memory", "shared-weights"),
    )
)
# what keeps every check from running, and is told for each
TOLD_EACH_TIME = frozenset(("open-todo", "exits", "endless-loop", "crashed"))


@dataclass
class Result:
    """What came of one check. status: passed, failed or skipped."""

    name: str
    title: str
    status: str
    message: str = ""
    mistakes: list[str] = field(default_factory=list)
    hint: int | None = None
    todo: int | None = None  # the TODO that is still open, when that is why it failed
    points: int = 1
    line: int | None = None  # in the examined file
    cause: str = ""  # the check that failed, when that is why this one was skipped
    printed: str = ""  # what the file printed while the first failing check ran, cut
    exception: BaseException | None = field(default=None, repr=False, compare=False)


@dataclass
class Report:
    """What came of a problem's checks."""

    problem: int
    path: str
    whose: str
    digest: str
    results: list[Result]

    @property
    def passed(self) -> bool:
        """Whether every check passed (and there was one)."""
        return bool(self.results) and all(r.status == "passed" for r in self.results)

    @property
    def first_failure(self) -> Result | None:
        """The failure to work on."""
        return next((r for r in self.results if r.status == "failed"), None)

    @property
    def counts(self) -> tuple[int, int]:
        """(checks passed, checks in all)."""
        return sum(r.status == "passed" for r in self.results), len(self.results)

    @property
    def unloadable(self) -> bool:
        """Whether the file could not even be loaded, so that no check looked at it."""
        kinds = {kind for r in self.results for kind in r.mistakes}
        same = len({r.message for r in self.results}) == 1
        return len(self.results) > 1 and same and bool(kinds & loading.UNLOADABLE)

    @property
    def words(self) -> str:
        """What came of it: "1 of 14 checks fails, and 13 more wait for it"."""
        if self.unloadable:
            return f"none of the {len(self.results)} checks could run"
        return verdict(
            len(self.results),
            sum(r.status == "failed" for r in self.results),
            sum(r.status == "skipped" for r in self.results),
        )

    def to_json(self) -> dict:
        """As plain data."""
        data = asdict(self)
        for result in data["results"]:
            del result["exception"]
        return data

    @classmethod
    def from_json(cls, data: dict) -> Report:
        """From what to_json gave."""
        return cls(**{**data, "results": [Result(**r) for r in data["results"]]})


def verdict(total: int, failed: int, skipped: int) -> str:
    """Counts of checks in words; a skipped one has not failed."""
    if not failed:
        return f"all {total} checks pass" if total > 1 else "its check passes"
    if failed == total > 1:  # each of them ran and failed, or the file could not be loaded at all
        return f"none of the {total} checks passes"
    text = f"{failed} of {total} checks {'fails' if failed == 1 else 'fail'}"
    if skipped:
        it = "it" if failed == 1 else "them"
        text += f", and {skipped} more wait{'s' if skipped == 1 else ''} for {it}"
    return text


class Examination:
    """One file under a problem's checks. Loads it at the first check.

    root: the course, when a failure is to be traced to the earlier pieces in its model. through:
    exceptions that end the run and are not the result of a check, such as leaving a debugger.

    """

    def __init__(
        self,
        problem: Problem,
        path: Path,
        whose: str,
        checks: list[Check],
        root: Path | None = None,
        through: tuple[type[BaseException], ...] = (),
    ):
        self.problem = problem
        self.path = path
        self.whose = whose
        self.checks = {check.name: check for check in checks}
        self.root = root
        self.through = (KeyboardInterrupt, *through)
        self.results: dict[str, Result] = {}
        self.patience = 1.0  # how many times as long as its limit a check may take in all
        self._piece: Piece | PieceError | None = None
        self._on_reference: Piece | None = None
        self._base: loading.Modules | None = None
        self._earlier: list[Placed] | None = None

    @property
    def piece(self) -> Piece:
        """The loaded file. PieceError, the same one each time, when it can't be loaded."""
        if self._piece is None:
            try:
                self._piece = loading.load(self.problem, self.path, self.whose)
            except PieceError as error:
                self._piece = error
        if isinstance(self._piece, PieceError):
            raise self._piece
        return self._piece

    def run(self, name: str, call: Callable[[Piece], object] | None = None) -> Result:
        """Run one check, unless a check that it needs has failed. call: in place of its function,
        to step through it.
        """
        check = self.checks[name]
        result = Result(check.name, check.title, "passed", points=check.points)
        self.results[name] = result
        if not self._skip(check, result):
            self._run(check, result, call or check.function)
            self._leave_consequences(result)
        result.message = "\n".join(result.message.splitlines()[:MESSAGE_LINES])
        return result

    def _untouched(self) -> bool:
        """Whether every TODO that a check waits for is still open."""
        if not isinstance(self._piece, Piece):
            return False
        todos = self._piece.open_todos
        return all(any(n <= c.todo for n in todos) for c in self.checks.values())

    def skips(self, check: Check) -> bool:
        """Whether a check that it needs has failed, so that it will not be run."""
        return self._skip(check, Result(check.name, check.title, "passed"))

    def _skip(self, check: Check, result: Result) -> bool:
        broken = [
            other
            for name in check.needs
            if (other := self.results.get(name)) and other.status != "passed"
        ]
        try:
            self.piece  # noqa: B018 - loads the file
        except PieceError:
            return False
        if not broken or self._untouched():
            return False
        cause = broken[0]
        while cause.status == "skipped" and cause.cause in self.results:
            cause = self.results[cause.cause]
        result.cause = cause.name
        result.status = "skipped"
        result.message = f"needs {cause.name}, which failed: {cause.title}"
        return True

    def _leave_consequences(self, result: Result) -> None:
        """Skip a failure that says nothing new, or nothing that could be relied on: one mistake is
        told once.

        It says nothing new when it names what was named before, or no mistake at all, after another
        check has failed; nothing reliable after a mistake that changes whatever runs later, or
        after a check that it follows from.
        """
        if result.status != "failed" or isinstance(result.exception, PieceError):
            return
        before = [r for r in self.results.values() if r.status == "failed" and r is not result]
        said = {m for r in before for m in r.mistakes}
        if not before or (said | set(result.mistakes)) & TOLD_EACH_TIME:
            return
        causes = [r for r in before if r.name in self.checks[result.name].follows]
        causes += [r for r in before if set(r.mistakes) & SPREADING]
        if set(result.mistakes) <= said | UNNAMED:
            named = set(result.mistakes) - UNNAMED
            causes += [r for r in before if set(r.mistakes) & named] + before[:1]
        if causes:
            result.cause = causes[0].name
            result.status = "skipped"
            result.message = f"fails as well; first mend {causes[0].name}: {causes[0].title}"
            result.mistakes, result.hint, result.line, result.exception = [], None, None, None

    def _run(self, check: Check, result: Result, call: Callable[[Piece], object]) -> None:
        # a file that looped once will loop again: the others needn't wait as long
        looped = any("endless-loop" in r.mistakes for r in self.results.values())
        seconds = min(check.seconds, 1.0) if looped else check.seconds
        try:
            piece = self.piece
            _same_seeds()
            with (
                one_thread(),
                loading.model_for(self.problem),
                one_check(),
                time_limit(seconds * self.patience),
            ):
                call(piece)
        except self.through:
            raise
        except TimeLimit as error:
            line, code = loading.line_in(error, self.path)
            where = f" It was at {shown(self.path)}:{line}: {code}" if line else ""
            if code.startswith(("import ", "from ")):
                self._failed(
                    result,
                    f"Stopped after {seconds:g} s, in the middle of an import.{where}\n"
                    "Imports take long the first time: put them at the top of the file, where "
                    "they are not part of a check's time. [slow-import]",
                    ["slow-import"],
                    error,
                )
                return
            self._failed(
                result,
                f"Stopped after {seconds:g} s: does a loop never end?{where} [endless-loop]",
                ["endless-loop"],
                error,
            )
        except BaseException as error:
            self._let_through(error)
            self._explain(result, error)
            told = isinstance(error, (PieceError, SystemExit, DebuggerWanted)) or result.todo
            if not told and "earlier-piece-names" not in result.mistakes:
                self._trace_to_earlier_pieces(check, result)

    def _let_through(self, error: BaseException | None) -> None:
        """Raise what ends the run when a check has caught it on its way."""
        while error is not None:
            if isinstance(error, self.through):
                raise error
            error = error.__cause__ or error.__context__

    def _trace_to_earlier_pieces(self, check: Check, result: Result) -> None:
        """A failure on earlier pieces that are not the reference's may be theirs: run the check
        again on the reference's, and say whose it is.
        """
        earlier = self._earlier_pieces()
        if not earlier or self.root is None:
            return
        forced = [p for p in earlier if p.forced]
        try:
            with quietly():
                again = self._run_on_reference(check)
        except Exception:  # nothing is known then, and the first message stands
            return
        if again.status == "passed":
            result.message = _blame(self.problem, earlier, forced)
            result.mistakes = ["stands-on-forced" if forced else "earlier-piece"]
            result.hint = result.line = None
        elif forced:
            result.message, result.mistakes = again.message, again.mistakes
            result.hint, result.line = again.hint, again.line

    def _run_on_reference(self, check: Check) -> Result:
        if self._base is None:
            self._base = loading.reference_modules(self.root, self.problem)
        if self._on_reference is None:
            self._on_reference = loading.load(self.problem, self.path, self.whose, self._base)
        result = Result(check.name, check.title, "passed", points=check.points)
        _same_seeds()
        try:
            with (
                one_thread(),
                loading.model_for(self.problem, self._base),
                time_limit(check.seconds),
            ):
                check.function(self._on_reference)
        except TimeLimit:
            raise ValueError("it took too long") from None
        except Exception as error:
            self._explain(result, error)
        return result

    def _earlier_pieces(self) -> list[Placed]:
        """The earlier pieces in the course's model that are not the reference's; none where no
        failure is traced to them, so that nothing is read then.
        """
        if self.root is None:
            return []
        if self._earlier is None:
            there = placed_now(manifest.prerequisites(self.problem)).values()
            self._earlier = [p for p in there if p.owner != "reference"]
        return self._earlier

    def be_ready(self) -> None:
        """Read what belongs to the course now, before a watch looks at what the file opens."""
        with contextlib.suppress(Exception):  # a check says what is wrong with it
            loading.the_model()
            for earlier in manifest.prerequisites(self.problem):
                loading.the_model(earlier.import_name)
            loading.given_cache()
            if self._earlier_pieces() and self.root is not None:
                self._base = loading.reference_modules(self.root, self.problem)

    def _failed(
        self, result: Result, message: str, mistakes: list[str], error: BaseException
    ) -> None:
        result.status = "failed"
        result.message = message
        result.mistakes = mistakes
        result.exception = error
        result.line, _ = loading.line_in(error, self.path)

    def _explain(self, result: Result, error: BaseException) -> None:
        from learn_gpt2.checking.checks import CheckFailed
        from learn_gpt2.checking.diagnosis import explain_exception
        from learn_gpt2.checking.earlier import ID, other_name

        line, code = loading.line_in(error, self.path)
        where = f"{shown(self.path)}:{line}" if line else shown(self.path)
        if isinstance(error, CheckFailed):
            self._failed(result, str(error), list(error.mistakes), error)
            result.hint = error.hint
        elif isinstance(error, PieceError):
            self._failed(result, str(error), [error.kind], error)
        elif isinstance(error, NotImplementedError) and str(error).startswith("TODO"):
            number, _, place = str(error).removeprefix("TODO").strip().partition(":")
            self._failed(
                result,
                f"TODO {number} is still open:{place} ({where}).\n"
                "Write the code above the `raise NotImplementedError` line, then delete that line.",
                ["open-todo"],
                error,
            )
            result.todo = int(number) if number.isdigit() else None
        elif isinstance(error, DebuggerWanted):
            self._failed(
                result,
                f"{where} asks for a debugger, which needs a terminal of its own: "
                f"`pytest problems/{self.problem.folder}` stops there. [debugger]\n    {code}",
                ["debugger"],
                error,
            )
        elif isinstance(error, SystemExit):
            self._failed(
                result,
                f"{where} ends the program (exit). Take that out.\n    {code}",
                ["exits"],
                error,
            )
        elif (told := other_name(error, self.problem)) is not None:
            self._failed(result, told, [ID], error)
        elif line is None and faults.is_ours(error, self.path, self._names()):
            self._failed(result, faults.told(error, result.name), [faults.ID], error)
        else:
            known = explain_exception(error)
            first = (str(error).strip().splitlines() or [""])[0][:300]
            text = [f"{type(error).__name__}: {first}"]
            if line:
                text.append(f"  at {where}: {code}")
            if known:
                text.append(f"{known[1]} [{known[0]}]")
            self._failed(result, "\n".join(text), [known[0]] if known else ["raises"], error)

    def _names(self) -> set[str]:
        """What the examined file defines, functions in classes too."""
        if not isinstance(self._piece, Piece):
            return set()
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        return {n.name for n in ast.walk(ast.parse(self._piece.source)) if isinstance(n, kinds)}

    def run_all(self) -> Report:
        """Run every check, in order."""
        results = [self.run(name) for name in self.checks]
        return self.report(results)

    def report(self, results: list[Result]) -> Report:
        """Wrap results up."""
        try:
            digest = self.piece.digest
        except PieceError:
            digest = "-"
        return Report(self.problem.number, str(self.path), self.whose, digest, results)


def placed_now(problems: Iterable[Problem] = manifest.PROBLEMS) -> dict[int, Placed]:
    """Whose piece of these problems stands where in the gpt2 that runs; {} when that can't be
    told.
    """
    import gpt2

    return placed_everywhere(Path(gpt2.__file__).parent, problems)


def builds_on(problem: Problem) -> str:
    """`builds on 03 yours (fails, forced into the model), 04 reference`: the earlier pieces in
    src/gpt2/model.py; "" for a problem that builds on none.
    """
    earlier = manifest.prerequisites(problem)
    if not earlier:
        return ""
    there = placed_now(earlier)
    if not there:
        return "builds on src/gpt2/ as it is"
    words = (
        f"{p.number:02d} {there[p.number].words if p.number in there else '?'}" for p in earlier
    )
    return f"builds on {', '.join(words)}"


def _blame(problem: Problem, earlier: list[Placed], forced: list[Placed]) -> str:
    """What to say of a check that passes on the reference's earlier pieces alone."""
    own = f"Your {problem.number:02d} passes this check on the reference's pieces."
    if forced:
        names = ", ".join(f"{p.number:02d}" for p in forced)
        it, fails = ("it", "fails its") if len(forced) == 1 else ("them", "fail their")
        return (
            f"{own} In the model it stands on your {names}, which {fails} own checks: forced "
            f"in.\nMend {it} first: learn check {forced[0].number:02d}. Or take {it} out again: "
            f"learn swap --reference {names.replace(' ', '')} [stands-on-forced]"
        )
    names = ", ".join(f"{p.number:02d}" for p in earlier)
    one = f"it stands on your {names}" if len(earlier) == 1 else f"it stands on yours: {names}"
    return (
        f"{own} In the model {one}: look there first.\nTo go on with the reference's for now: "
        f"learn swap --reference {names.replace(' ', '')} [earlier-piece]"
    )


def _same_seeds() -> None:
    """The same file gets the same verdict each time."""
    import torch

    random.seed(0)
    # torch.manual_seed would also queue a call for each kind of GPU, which costs more than a check
    torch.default_generator.manual_seed(0)


class CourseBroken(ValueError):
    """A file of the course is missing or damaged: not the learner's doing, and no verdict."""


def load_checks(root: Path, problem: Problem) -> list[Check]:
    """The checks in a problem's test file, in order. CourseBroken when they can't be had."""
    from learn_gpt2.checking.checks import checks_in

    path = problem.test_path(root)
    if not path.is_file():
        raise CourseBroken(lost_checks(root, problem))
    spec = importlib.util.spec_from_file_location(f"checks_{problem.number:02d}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        return checks_in(vars(module))
    except Exception as error:
        raise CourseBroken(
            f"The checks in {shown(path)} can't be run ({type(error).__name__}: {error}). That is "
            "the course's fault or an edit's, not your problem.py's: `learn doctor` looks at it."
        ) from error


def lost_checks(root: Path, problem: Problem) -> str:
    """What to say when a problem's test file is not there."""
    path = problem.test_path(root)
    if not path.parent.is_dir() and (other := loading.renamed(path.parent)):
        return (
            f"The folder problems/{problem.folder} is not there. Was it renamed? There is "
            f"problems/{other}: give it its name back."
        )
    back = f"git checkout -- {shown(path)}" if (root / ".git").exists() else "learn update"
    return (
        f"{shown(path)}, which holds the checks of problem {problem.number:02d}, is not there. "
        f"`{back}` brings it back."
    )


def piece_path(root: Path, problem: Problem, source: str | Path) -> tuple[Path, str]:
    """("yours" | "reference" | a path) → the file and the word for whose it is."""
    if source == "reference":
        return problem.solution_path(root), "REFERENCE"
    if source == "yours":
        return problem.problem_path(root), "yours"
    return Path(source).resolve(), "yours"


def run_checks(root: Path, problem: Problem, source: str | Path = "yours") -> Report:
    """Run a problem's checks in this process. What the file prints is not shown; what it printed
    in the first check that fails is in that check's result.
    """
    path, whose = piece_path(root, problem, source)
    try:
        checks = load_checks(root, problem)
    except Exception as error:  # whatever a damaged test file may raise
        return _not_loaded(problem, path, whose, root, error)
    return _run_all(Examination(problem, path, whose, checks, root))


def _not_loaded(problem: Problem, path: Path, whose: str, root: Path, error: Exception) -> Report:
    """The report where a problem's checks can't be loaded."""
    name = f"the checks of problem {problem.number:02d}"
    message = faults.told(error, name, problem.test_path(root))
    broken = Result("load", f"{name} can be loaded", "failed", message, [faults.ID])
    return Report(problem.number, str(path), whose, "-", [broken])


def _run_all(examination: Examination) -> Report:
    results: list[Result] = []
    with no_debugger():
        for name in examination.checks:
            heard = Heard()
            with redirect_stdout(heard), redirect_stderr(heard):
                results.append(examination.run(name))
            if [r.status for r in results].count("failed") == 1 and results[-1].status == "failed":
                results[-1].printed = cut_print(heard.text)
    return examination.report(results)


def run_watched(root: Path, problem: Problem, source: str | Path = "yours") -> Report:
    """`run_checks`, and one result more when the file does what `learn grade` doesn't take.

    For a process that ends afterwards: it stays under watch, and without the network. CourseBroken
    when there are no checks to run.
    """
    from learn_gpt2.checking.conduct import watch_learner

    path, whose = piece_path(root, problem, source)
    if whose != "yours":
        return run_checks(root, problem, source)
    sys.argv[1:] = []  # a file that reads its arguments finds none
    checks = load_checks(root, problem)  # CourseBroken: there is no verdict to be remembered
    examination = Examination(problem, path, whose, checks, root)
    examination.be_ready()  # what is opened now is not the file's doing
    watch = watch_learner(path, root, f"checks_{problem.number:02d}")
    report = _run_all(examination)
    fact = watch.fact()
    if fact is not None:
        title = "the file leaves everything but its piece as it is"
        text = f"{fact.message}\n`learn grade` gives such a file no points."
        result = Result("test_leaves_the_rest", title, "failed", text, [fact.kind], points=0)
        report.results.append(result)
    return report


@contextmanager
def one_thread() -> Iterator[None]:
    """Tiny tensors are fastest on one thread, and by far when the machine is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Spare:
    """A process that imports what checks need, waits for one problem, runs its checks and ends."""

    def __init__(self, root: Path):
        self.root = root
        command = child.python("-m", "learn_gpt2.checking.runner", str(root))
        self._child = child.Child(command, child.environment(root))

    def run(self, problem: Problem, source: str | Path = "yours", seconds: float = 120.0) -> Report:
        """Run the checks; once only. The file may loop, exit or crash: a report comes back.

        It comes marked with a number that the file is not told, so that what it prints is no
        verdict.
        """
        path, whose = piece_path(self.root, problem, source)
        mark = secrets.token_hex(16)
        named = source if source in ("yours", "reference") else str(path)
        job = json.dumps({"problem": problem.number, "source": named})
        try:
            self._child.tell(f"{mark}\n{job}\n".encode(), last=True)
            return answered(self._child.marked(mark, time.monotonic() + seconds))
        except child.NoAnswer as nothing:
            message = f"The checks were stopped after {seconds:.0f} s."
            if not nothing.late:
                message = (
                    f"The process that ran the checks ended with code {nothing.code} and "
                    f"no result: does {shown(path)} end the program, or crash it?"
                )
        finally:
            self.close()
        failed = Result("run", "the checks run to their end", "failed", message, ["crashed"])
        return Report(problem.number, str(path), whose, "-", [failed])

    def close(self) -> None:
        """End it, whatever it does."""
        self._child.close()


def answer(root: Path, problem: Problem, source: str | Path = "yours") -> dict:
    """What a process that runs the checks sends back: a report, or why there is none."""
    try:
        return run_watched(root, problem, source).to_json()
    except CourseBroken as error:
        return {"course broken": str(error)}


def answered(data: dict) -> Report:
    """What `answer` sent → a report. CourseBroken when there is none."""
    if "course broken" in data:
        raise CourseBroken(data["course broken"])
    return Report.from_json(data)


def run_isolated(
    root: Path, problem: Problem, source: str | Path = "yours", seconds: float = 120.0
) -> Report:
    """Run a problem's checks in a process of its own, see `Spare`."""
    return Spare(root).run(problem, source, seconds)


def _main(root: Path) -> None:
    import torch  # noqa: F401 - before there is work, so that a spare process has it ready

    from learn_gpt2.checking import checks  # noqa: F401

    send = child.answering()  # once there is work
    job = sys.stdin.readline()
    if job:
        data = json.loads(job)
        send(answer(root, manifest.get(data["problem"]), data["source"]))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
