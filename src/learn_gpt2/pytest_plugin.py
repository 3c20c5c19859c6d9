"""pytest on the problems: `pytest problems/05-causal-masking` tests the learner's problem.py.

Options: `--solutions` tests the reference, `--piece FILE` another file. The checks themselves are
run by learn_gpt2.checking.runner; this module finds them, orders their reports, prints the
messages, keeps a whole problem's result for the board, and leads a debugger into the learner's
own code.
"""

from __future__ import annotations

import bdb
import inspect
import types
from pathlib import Path

import pytest

from gpt2.common.terminal import wrap
from learn_gpt2 import manifest
from learn_gpt2.checking import loading, output, runner
from learn_gpt2.checking.runner import builds_on
from learn_gpt2.manifest import PROBLEMS, Problem


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("learn_gpt2", "the course")
    group.addoption(
        "--solutions", action="store_true", help="test solutions/ instead of problem.py"
    )
    group.addoption("--piece", metavar="FILE", help="test this file instead of problem.py")


def _problem_of(path: Path) -> Problem | None:
    folder = path.parent if path.suffix == ".py" else path
    return next((p for p in PROBLEMS if folder.name == p.folder), None)


def _root(config: pytest.Config) -> Path:
    try:
        return manifest.find_root(config.rootpath)
    except FileNotFoundError:
        # --piece names a file elsewhere, and a setup.py above both was taken for the root's
        return manifest.find_root(config.invocation_params.dir)


def _source(config: pytest.Config, problem: Problem) -> tuple[Path, str]:
    if config.getoption("solutions") and config.getoption("piece"):
        raise pytest.UsageError("--solutions and --piece exclude each other")
    source: str | Path = "reference" if config.getoption("solutions") else "yours"
    if config.getoption("piece"):
        source = Path(config.getoption("piece"))
    return runner.piece_path(_root(config), problem, source)


def _asked_for(config: pytest.Config) -> list[Problem]:
    """The problems that the command line names, or that a run without arguments is about."""
    found: dict[int, Problem] = {}
    for argument in config.args:
        path = Path(config.invocation_params.dir, str(argument).split("::")[0]).resolve()
        problem = _problem_of(path)
        if problem:
            found[problem.number] = problem
        elif path.name == "problems" or path == config.rootpath:
            found.update({p.number: p for p in PROBLEMS if path.name == "problems"})
    return [found[number] for number in sorted(found)]


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Say what is graded before anything else happens."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    problems = _asked_for(session.config)
    if config_piece := session.config.getoption("piece"):
        if len(problems) != 1:
            raise pytest.UsageError(f"--piece {config_piece} needs exactly one problem's folder")
        if not Path(config_piece).is_file():
            raise pytest.UsageError(f"--piece {config_piece}: there is no such file")
    if reporter is None:
        return
    for problem in problems:
        if not problem.test_path(root := _root(session.config)).is_file():
            reporter.write_line(runner.lost_checks(root, problem))
            continue
        reporter.write_line(_graded(session.config, problem))
        if problem.builds_on:
            reporter.write_line(f"   {builds_on(problem)}")


def _graded(config: pytest.Config, problem: Problem) -> str:
    path, whose = _source(config, problem)
    try:
        short = loading.digest(loading.read_source(path))
    except loading.PieceError:
        short = "unreadable"
    return f"{problem.number:02d} grades {loading.shown(path)} (version {short}, {whose})"


@pytest.fixture
def piece(request: pytest.FixtureRequest) -> None:
    """What a check is given. The examination loads the file itself, see pytest_pyfunc_call."""


def _examination(item: pytest.Function) -> runner.Examination:
    examinations = item.config.stash.setdefault(_EXAMINATIONS, {})
    if item.path not in examinations:
        from learn_gpt2.checking.checks import checks_in

        problem = _problem_of(item.path)
        if problem is None:
            raise pytest.UsageError(_no_problem(item.path))
        path, whose = _source(item.config, problem)
        checks = checks_in(vars(item.module))
        # leaving a debugger ends the run: it is not a result of a check
        through = (pytest.exit.Exception, bdb.BdbQuit)
        examinations[item.path] = runner.Examination(
            problem, path, whose, checks, _root(item.config), through
        )
    return examinations[item.path]


def _no_problem(path: Path) -> str:
    """What to say of checks that lie in no problem's folder: it may have been renamed."""
    text = f"{loading.shown(path)} contains checks, but its folder is not a problem's."
    problem = next((p for p in PROBLEMS if p.test_file == path.name), None)
    return text + (f" Was it renamed? It was called {problem.folder}." if problem else "")


_EXAMINATIONS: pytest.StashKey[dict[Path, runner.Examination]] = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a check through the examination; other tests run as they always do."""
    if getattr(pyfuncitem.function, "check", None) is None:
        return None
    examination = _examination(pyfuncitem)
    step = None
    if pyfuncitem.config.getoption("trace", False):  # pdb at the first line of each check
        # pytest's own debugger, which lets go of what is captured
        debugging = pyfuncitem.config.pluginmanager.get_plugin("debugging")
        stepped = debugging.pytestPDB._init_pdb("runcall")
        check = examination.checks[pyfuncitem.function.__name__]

        def step(piece: loading.Piece) -> object:
            return stepped.runcall(inspect.unwrap(check.function), piece)

    result = examination.run(pyfuncitem.function.__name__, step)
    if result.status == "skipped":
        pytest.skip(result.message)
    if result.status == "failed":
        raise Failed(result) from result.exception
    return True


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """A test file of a problem that can't be loaded is the course's fault, and says so."""
    outcome = yield
    report = outcome.get_result()
    problem = _problem_of(collector.path) if isinstance(collector, pytest.File) else None
    if report.failed and problem is not None and collector.path.name == problem.test_file:
        report.longrepr = (
            f"The course is at fault here, and not your code: the checks of problem "
            f"{problem.number:02d} can't be loaded. `learn doctor` tells whether the course's "
            f"files are whole; if they are, please report this.\n\n{report.longrepr}"
        )


class Failed(Exception):
    """A failed check on its way to pytest's report."""

    def __init__(self, result: runner.Result):
        super().__init__(result.message)
        self.result = result


class Message:
    """A failure's message where pytest would print a traceback."""

    def __init__(self, result: runner.Result, path: Path, same_as: str | None = None):
        self.result = result
        self.same_as = same_as
        first = result.message.splitlines()[0] if result.message else ""
        self.reprcrash = _Crash(str(path), result.line or 0, first)

    def toterminal(self, writer) -> None:
        """Print it, on a terminal broken between words."""
        for line in str(self).splitlines():
            for part in wrap(line, writer.fullwidth) if writer.hasmarkup else (line,):
                writer.line(part)

    def __str__(self) -> str:
        if self.same_as:
            return f"{self.result.title}\nFails for the same reason as {self.same_as}."
        where = f"\n({loading.shown(Path(self.reprcrash.path))}"
        where += f":{self.result.line})" if self.result.line else ")"
        return f"{self.result.title}\n{self.result.message}" + where


class _Crash:
    """Where it failed; pytest's short summary reads `message`."""

    def __init__(self, path: str, lineno: int, message: str):
        self.path, self.lineno, self.message = path, lineno, message

    def __str__(self) -> str:
        return f"{self.path}:{self.lineno}: {self.message}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Show the message; the traceback is there with --tb=long."""
    outcome = yield
    if getattr(getattr(item, "function", None), "check", None) is None:
        return
    if call.when == "call":
        _show_prints_once(item, outcome.get_result())
    if call.excinfo is None or not isinstance(call.excinfo.value, Failed):
        return
    if item.config.getoption("tbstyle") in ("auto", "no", "line"):
        examination, result = _examination(item), call.excinfo.value.result
        same = (r.name for r in examination.results.values() if r.message == result.message)
        first = next(same, result.name)
        outcome.get_result().longrepr = Message(
            result, examination.path, first if first != result.name else None
        )


def _show_prints_once(item: pytest.Item, report: pytest.TestReport) -> None:
    """What the learner's code printed goes under the first failing check only, cut."""
    results = _examination(item).results.values()
    failed = [r.name for r in results if r.status == "failed"]
    first = report.failed and failed[:1] == [item.function.__name__]
    report.sections = [
        (title, output.cut_print(text) + "\n")
        for title, text in report.sections
        if first and title.endswith(" call")
    ]


# ── debuggers ───────────────────────────────────────────────────────────────────────────────────


@pytest.hookimpl(tryfirst=True)
def pytest_exception_interact(
    node: pytest.Item, call: pytest.CallInfo, report: pytest.TestReport
) -> None:
    """`--pdb` lands in the learner's own frame where there is one, else in the check."""
    if call.excinfo is None or not isinstance(call.excinfo.value, Failed):
        return
    if not node.config.getoption("usepdb", False):
        return
    path = _examination(node).path
    error, frames = _own_frames(call.excinfo.value.result.exception, (path, node.path))
    if error is None or frames is None:
        return
    call.excinfo = pytest.ExceptionInfo.from_exc_info((type(error), error, frames))
    innermost = frames
    while innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost.tb_frame.f_code.co_filename != str(path):
        reporter = node.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(
                "Your code had returned when this check failed: the debugger is in the check. "
                f"To stop in your own code, write breakpoint() into {loading.shown(path)}."
            )


def _own_frames(
    error: BaseException | None, files: tuple[Path, ...]
) -> tuple[BaseException | None, types.TracebackType | None]:
    """The error, and its traceback down to the last frame in the first of the files that it went
    through; (None, None) when it went through none.
    """
    for file in files:
        found = error
        while found is not None:
            frames, trace = [], found.__traceback__
            while trace is not None:
                frames.append(trace)
                trace = trace.tb_next
            names = [frame.tb_frame.f_code.co_filename for frame in frames]
            if str(file) in names:
                last = len(names) - 1 - names[::-1].index(str(file))
                cut = None
                for frame in reversed(frames[: last + 1]):
                    cut = types.TracebackType(cut, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
                return found.with_traceback(cut), cut
            found = found.__cause__ or found.__context__
    return None, None


# ── the board ───────────────────────────────────────────────────────────────────────────────────


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run of a whole problem on the learner's own file is a check like any other: the board
    shows it.
    """
    from learn_gpt2.course import progress

    told = set()
    for examination in session.config.stash.get(_EXAMINATIONS, {}).values():
        results = [examination.results.get(name) for name in examination.checks]
        if examination.root is None or not all(results):
            continue
        note = progress.remember(examination.root, examination.report(results))
        if note and note not in told:
            told.add(note)
            reporter = session.config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None:
                reporter.ensure_newline()
                reporter.write_line(note)
