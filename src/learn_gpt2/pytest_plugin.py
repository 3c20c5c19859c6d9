"""pytest on the problems: `pytest problems/05-causal-masking` tests the learner's problem.py.

Options: `--solutions` tests the reference, `--piece FILE` another file. The checks themselves are
run by learn_gpt2.checking.runner; this module finds them, orders their reports and prints the
messages.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from learn_gpt2 import manifest
from learn_gpt2.checking import loading, runner
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
    """The problems that the command line names."""
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
        reporter.write_line(_graded(session.config, problem))
        if problem.builds_on:
            reporter.write_line(f"   builds on {_builds_on(session.config, problem)}")


def _graded(config: pytest.Config, problem: Problem) -> str:
    path, whose = _source(config, problem)
    try:
        short = loading.digest(loading.read_source(path))
    except loading.PieceError:
        short = "unreadable"
    return f"{problem.number:02d} grades {loading.shown(path)} ({short}, {whose})"


def _builds_on(config: pytest.Config, problem: Problem) -> str:
    """The earlier pieces in src/gpt2/model.py, and whose they are."""
    from learn_gpt2.assembly import sections, swap

    try:
        pieces = sections.split(swap.read_model(_root(config)))
    except ValueError as error:
        return f"src/gpt2/model.py as it is ({error})"
    return ", ".join(
        f"{p.number:02d} {pieces[p.number].owner}" for p in manifest.prerequisites(problem)
    )


@pytest.fixture
def piece(request: pytest.FixtureRequest) -> None:
    """What a check is given. The examination loads the file itself, see pytest_pyfunc_call."""


def _examination(item: pytest.Function) -> runner.Examination:
    examinations = item.config.stash.setdefault(_EXAMINATIONS, {})
    if item.path not in examinations:
        from learn_gpt2.checking.checks import checks_in

        problem = _problem_of(item.path)
        if problem is None:
            raise pytest.UsageError(f"{item.path} holds checks but is in no problem's folder")
        path, whose = _source(item.config, problem)
        checks = checks_in(vars(item.module))
        examinations[item.path] = runner.Examination(problem, path, whose, checks)
    return examinations[item.path]


_EXAMINATIONS: pytest.StashKey[dict[Path, runner.Examination]] = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a check through the examination; other tests run as they always do."""
    if getattr(pyfuncitem.function, "check", None) is None:
        return None
    result = _examination(pyfuncitem).run(pyfuncitem.function.__name__)
    if result.status == "skipped":
        pytest.skip(result.message)
    if result.status == "failed":
        raise Failed(result) from result.exception
    return True


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
        """Print it."""
        for line in str(self).splitlines():
            writer.line(line)

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
    if call.excinfo is None or not isinstance(call.excinfo.value, Failed):
        return
    if item.config.getoption("tbstyle") in ("auto", "no", "line"):
        examination, result = _examination(item), call.excinfo.value.result
        same = (r.name for r in examination.results.values() if r.message == result.message)
        first = next(same, result.name)
        outcome.get_result().longrepr = Message(
            result, examination.path, first if first != result.name else None
        )
