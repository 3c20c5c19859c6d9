"""The process that grades: torch and the checks imported once, a confined child for every check.

It is asked on standard input, one JSON line per student and problem, and answers on standard
output. Three kinds of process: this server, which runs nothing of a student's; for each question a
watcher, which doesn't either, and which in a process namespace is the first process; and below it
for each check a child that is confined, loads the file, runs the check and says what came of it.
Where the system can't fork, a question is a process of its own that runs all checks.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import re
import secrets
import select
import shutil
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from learn_gpt2 import manifest
from learn_gpt2.checking import loading
from learn_gpt2.checking.runner import Examination, Result, load_checks, run_checks
from learn_gpt2.grading import sandbox
from learn_gpt2.grading.sandbox import Cage, Limits, Means
from learn_gpt2.manifest import Problem

if TYPE_CHECKING:
    from learn_gpt2.checking.checks import Check
    from learn_gpt2.grading.integrity import Seal

GRACE = 2.0  # seconds beyond a check's own limit before its process is ended
MAX_ANSWER = 1_000_000


@dataclass
class Server:
    """What every question needs, made before the first."""

    root: Path
    limits: Limits
    means: Means
    checks: dict[int, list[Check]] = field(default_factory=dict)
    seal: Seal | None = None


def prepare(root: Path, numbers: list[int], limits: Limits, means: Means) -> Server:
    """Import what checks need, put the reference model in place, and run the reference once.

    ValueError when the reference does not pass here: then nobody's grade would mean anything.
    """
    import torch
    import torch._dynamo  # replaces functions of torch when it is first needed

    from learn_gpt2.assembly import swap
    from learn_gpt2.grading.integrity import Seal

    torch.set_num_threads(1)  # a child of a process with threads could hang
    install_model(swap.assemble_model(root, {}))
    server = Server(root, limits, means)
    for number in numbers:
        problem = manifest.get(number)
        report = run_checks(root, problem, "reference")
        if not report.passed:
            failed = next((r for r in report.results if r.status == "failed"), None)
            why = f"{failed.title}: {failed.message}" if failed else "it has no checks"
            raise ValueError(f"the reference of problem {number:02d} fails here. {why}")
        server.checks[number] = load_checks(root, problem)
    server.seal = Seal([f"checks_{number:02d}" for number in numbers])
    gc.collect()
    gc.freeze()
    return server


def install_model(text: str) -> None:
    """Make a model's text what `gpt2.model` is in this process."""
    import gpt2

    module = types.ModuleType("gpt2.model", "GPT-2, assembled for grading.")
    module.__file__ = "gpt2/model.py"
    sys.modules["gpt2.model"] = gpt2.model = module
    exec(compile(text, "gpt2/model.py", "exec", dont_inherit=True), module.__dict__)


def forget_answers(problem: Problem) -> None:
    """Take this and later problems' answers out of memory; `loading.model_for` only hides them."""
    module = sys.modules["gpt2.model"]
    for name in loading.owned_names(problem):
        module.__dict__.pop(name, None)
    for later in manifest.PROBLEMS[max(problem.number, 11) - 1 :]:
        for name in later.provides:
            model = getattr(module, "GPT2Model", None)
            if model is not None and hasattr(model, method := name.partition(".")[2]):
                setattr(model, method, _forgotten)


def _forgotten(*arguments: object, **options: object) -> None:
    """In place of an answer. Does nothing, as the given `_init_weights` of problem 10 does."""


# ── one question ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Question:
    """One student's file for one problem. model: the text of the model that it is graded in, ""
    for the reference.
    """

    problem: Problem
    source: bytes
    model: str
    uid: int

    @classmethod
    def from_json(cls, data: dict) -> Question:
        """From a line of standard input."""
        source = base64.b64decode(data["source"])
        return cls(manifest.get(data["number"]), source, data["model"], data["uid"])


def ask(number: int, source: bytes, model: str = "", uid: int = 0) -> str:
    """A question as a line."""
    text = base64.b64encode(source).decode("ascii")
    return json.dumps({"number": number, "source": text, "model": model, "uid": uid}) + "\n"


def answer(server: Server, question: Question) -> dict:
    """Have a question answered by a watcher of its own, and wait for it."""
    scratch = Path(os.path.realpath(tempfile.mkdtemp(prefix="learn-grade-")))
    os.chmod(scratch, 0o755)
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(readable)
            _start_watcher(server, question, scratch, writable)
        finally:
            os._exit(1)
    os.close(writable)
    try:
        data = _read_until(readable, server.limits.seconds + 30.0)
    finally:
        os.close(readable)
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        shutil.rmtree(scratch, ignore_errors=True)
    try:
        return json.loads(data)
    except ValueError:
        return {"error": "the process that watches the checks ended without an answer"}


def _read_until(readable: int, seconds: float) -> bytes:
    chunks, end = [], time.monotonic() + seconds
    while select.select([readable], [], [], max(0.0, end - time.monotonic()))[0]:
        chunk = os.read(readable, 1 << 16)
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks)


def _start_watcher(server: Server, question: Question, scratch: Path, writable: int) -> None:
    """Become the watcher, or in namespaces the parent of the watcher. Does not return."""
    spaces = server.means.namespaces
    try:
        sandbox.end_with_parent()
        if spaces:
            sandbox.unshare(spaces)  # before `guard`, after which /proc/self is root's
            child = os.fork()
            if child:
                os.close(writable)
                os.waitpid(child, 0)
                os._exit(0)
            sandbox.end_with_parent()
            sandbox.build_root(server.root, scratch, server.limits)
            scratch = sandbox.SCRATCH
        sandbox.guard()
        data = Watcher(server, question, scratch).run()
    except Exception as error:  # ours, not the student's: told as it is
        data = {"error": f"{type(error).__name__}: {error}"}
    sandbox.end_all(bool(spaces))
    with os.fdopen(writable, "wb") as pipe:
        pipe.write(json.dumps(data).encode())
    os._exit(0)


@dataclass(frozen=True)
class Ending:
    """How a child ended. how: ended, time, memory, output or processes."""

    how: str
    code: int
    lines: list[str]  # what it said with the mark in front

    @property
    def crash(self) -> str:
        """The code or the signal, in words."""
        if self.code >= 0:
            return f"with code {self.code}"
        try:
            return f"by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"by signal {-self.code}"


class Watcher:
    """Runs the checks of one question, each in a child that it watches and cleans up after."""

    def __init__(self, server: Server, question: Question, scratch: Path):
        self.server = server
        self.limits = server.limits
        self.question = question
        self.scratch = scratch
        self.cage = Cage(server.means, server.limits, server.root, scratch, question.uid)
        self.file = scratch / "problems" / question.problem.folder / "problem.py"
        self.end = time.monotonic() + server.limits.seconds
        self.untouched: bool | None = None  # all TODOs open; None: not known yet

    def run(self) -> dict:
        """What came of the checks, as plain data, and what the file looks like."""
        about = self._about()
        results: dict[str, Result] = {}
        stopped: Result | None = None  # why the file could not even be loaded
        for check in self.server.checks[self.question.problem.number]:
            result = Result(check.name, check.title, "failed", points=check.points)
            if stopped is not None:
                result.message, result.mistakes = stopped.message, stopped.mistakes
                result.line = stopped.line
            elif self.end - time.monotonic() <= 0:
                result.message = (
                    f"Not run: the {self.limits.seconds:g} s for this problem were used up by the "
                    "checks before. [out-of-time]"
                )
                result.mistakes = ["out-of-time"]
            elif not self._skipped(check, results, result):
                result, loaded = self._check(check, results)
                stopped = None if loaded else result
            results[check.name] = result
        data = [{k: v for k, v in vars(r).items() if k != "exception"} for r in results.values()]
        return {"results": data, **about}

    def _skipped(self, check: Check, before: dict[str, Result], result: Result) -> bool:
        """Whether what it needs has failed, as the runner sees it; then no child is needed."""
        if self.untouched is not False:
            return False
        examination = Examination(
            self.question.problem,
            self.file,
            "yours",
            self.server.checks[self.question.problem.number],
        )
        examination.results = before
        examination._piece = types.SimpleNamespace()  # loaded, and known not to be untouched
        return examination._skip(check, result)

    # ── children

    def _check(self, check: Check, before: dict[str, Result]) -> tuple[Result, bool]:
        """Run one check in a child: its result, and whether the file could be loaded."""
        seconds = self.limits.load_seconds + check.seconds + GRACE

        def run(say: Callable[[dict], None]) -> None:
            _examine(self.server, self.question, self.file, check, before, say)

        ending = self._child(run, seconds, check.seconds + GRACE)
        said: dict = {}
        for line in ending.lines:
            with contextlib.suppress(ValueError):
                said |= json.loads(line)
        loaded = bool(said.get("loaded"))
        self.untouched = said.get("untouched", self.untouched)
        if ending.how == "ended" and "result" in said:
            result = Result(**said["result"])
            result.message = self._clean(result.message)
            return result, loaded
        message, mistake = self._explain(ending, check)
        result = Result(check.name, check.title, "failed", f"{message} [{mistake}]", [mistake])
        result.points = check.points
        return result, loaded

    def _explain(self, ending: Ending, check: Check) -> tuple[str, str]:
        limits = self.limits
        return {
            "time": (
                "Stopped: its time was over. Does a loop never end, or catch everything?",
                "endless-loop",
            ),
            "memory": (
                f"Stopped: it took more than {limits.memory} MB of memory.",
                "too-much-memory",
            ),
            "output": (
                f"Stopped: it printed more than {limits.output:,} bytes. Take the prints out.",
                "too-much-output",
            ),
            "processes": (
                f"Stopped: it started more than {limits.processes} processes. A piece needs none.",
                "starts-processes",
            ),
            "ended": (
                f"The process that ran this check ended {ending.crash} and no result: "
                "does the file end the program, or crash it?",
                "crashed",
            ),
        }[ending.how]

    def _about(self) -> dict:
        """Fingerprints of the file and what is unusual in it: parsed in a child, not run."""
        from learn_gpt2.grading import integrity, similarity

        def look(say: Callable[[dict], None]) -> None:
            source = self.question.source
            files = self.question.problem.number == 12
            say({"prints": asdict(similarity.fingerprints(source))})
            say({"unusual": integrity.unusual(source, files)[:20]})

        about: dict = {}
        for line in self._child(look, self.limits.load_seconds).lines:
            about |= json.loads(line)
        return about

    def _child(
        self,
        work: Callable[[Callable[[dict], None]], None],
        seconds: float,
        then: float = 0.0,
    ) -> Ending:
        """Run work(say) in a confined child, for so long at most, and end all that it started.

        then: the seconds left once it has said something for the first time.
        """
        self._fresh_scratch()
        mark = secrets.token_hex(16)
        results, results_in = os.pipe()
        output, output_in = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _only_these(results_in, output_in)
                self._confine()
                work(_speaker(4, mark))
            except BaseException:
                os._exit(1)
            finally:
                os._exit(0)
        os.close(results_in)
        os.close(output_in)
        try:
            how, code, data = self._watch(child, results, output, mark, seconds, then)
        finally:
            os.close(results)
            os.close(output)
            sandbox.end_all(bool(self.server.means.namespaces), [child])
        lines = data.decode("utf-8", "replace").splitlines()
        said = [line.removeprefix(mark) for line in lines if line.startswith(mark)]
        return Ending(how, code, said)

    def _watch(
        self, child: int, results: int, output: int, mark: str, seconds: float, then: float
    ) -> tuple[str, int, bytes]:
        """(how it ended, its code, what it wrote as results)."""
        said, printed = bytearray(), 0
        now = time.monotonic()
        end, look = min(now + seconds, self.end), now + 0.3
        for pipe in (results, output):
            os.set_blocking(pipe, False)
        waiting = [results, output]
        while True:
            # both closed: it is about to end
            ready = select.select(waiting, [], [], 0.05 if waiting else 0.001)[0]
            for pipe in ready:
                with contextlib.suppress(BlockingIOError):
                    chunk = os.read(pipe, 1 << 16)
                    if not chunk:
                        waiting.remove(pipe)
                    elif pipe == results:
                        said += chunk
                        if then and mark.encode() in said:
                            end, then = min(time.monotonic() + then, self.end), 0.0
                    else:
                        printed += len(chunk)
            if printed > self.limits.output or len(said) > MAX_ANSWER:
                return "output", 0, bytes(said)
            process, status = os.waitpid(child, os.WNOHANG)
            if process:  # read what is there; what it left behind may hold the pipes open
                self._drain(results, said)
                return "ended", os.waitstatus_to_exitcode(status), bytes(said)
            now = time.monotonic()
            if now > end:
                return "time", 0, bytes(said)
            if now > look:
                look = now + (0.1 if sandbox.LINUX else 0.5)
                family = sandbox.family(os.getpid())
                if len(family) > self.limits.processes:
                    return "processes", 0, bytes(said)
                if sum(family.values()) > self.limits.memory * sandbox.MEGABYTE:
                    return "memory", 0, bytes(said)

    def _drain(self, pipe: int, said: bytearray) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(said) <= MAX_ANSWER and (chunk := os.read(pipe, 1 << 16)):
                said += chunk

    # ── the scratch folder

    def _fresh_scratch(self) -> None:
        """The file, and an empty folder to write to: nothing passes from one check to the next."""
        for inner in self.scratch.iterdir():
            shutil.rmtree(inner) if inner.is_dir() and not inner.is_symlink() else inner.unlink()
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(self.question.source)
        work = self.scratch / "work"
        work.mkdir()
        if self.question.uid:
            os.chown(work, self.question.uid, self.question.uid)

    def _confine(self) -> None:
        work = str(self.scratch / "work")
        os.chdir(work)
        os.environ.update(HOME=work, TMPDIR=work, TMP=work, TEMP=work, USER="student")
        tempfile.tempdir = work
        sandbox.confine(self.cage)

    def _clean(self, text: str) -> str:
        return clean(text, self.scratch)


def clean(text: str, scratch: Path | None = None) -> str:
    """A message without what changes from run to run, and without control characters."""
    if scratch is not None:
        text = text.replace(f"{scratch}{os.sep}", "")
    text = re.sub(r"\b0x[0-9a-fA-F]{6,16}\b", "0x…", text)
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _only_these(results: int, output: int) -> None:
    """Nothing stays open but: 0 nowhere, 1 and 2 the output, 4 the results."""
    keep = [os.dup2(results, 254), os.dup2(output, 255)]
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.closerange(3, 254)
    os.dup2(keep[1], 1)
    os.dup2(keep[1], 2)
    os.dup2(keep[0], 4, inheritable=False)
    os.closerange(5, 65_536)


def _speaker(pipe: int, mark: str) -> Callable[[dict], None]:
    """A function that sends data with the mark. What it needs is taken now, not looked up later."""
    write, dumps, identity, own = os.write, json.dumps, os.getpid, os.getpid()

    def say(data: dict) -> None:
        if identity() != own:  # the file forked, and its child came this far
            os._exit(1)
        text = f"\n{mark}{dumps(data)}\n".encode()
        while text:
            text = text[write(pipe, text) :]

    return say


def _examine(
    server: Server,
    question: Question,
    path: Path,
    check: Check,
    before: dict[str, Result],
    say: Callable[[dict], None],
) -> None:
    """In the confined child: load the file, run one check, say what came of it."""
    from learn_gpt2.grading import integrity

    problem = question.problem
    examination = Examination(problem, path, "yours", server.checks[problem.number])
    examination.results |= before
    loading.LOAD_SECONDS = server.limits.load_seconds
    result = Result(check.name, check.title, "failed", points=check.points)
    reached = integrity.listen(server.root, path.parents[2])
    loaded = _load(server, question, examination, result)
    if loaded:
        say({"loaded": True, "untouched": examination._untouched()})
        result = examination.run(check.name)
        broken = server.seal.broken()
        if broken:
            _tampered(result, broken)
        _name_memory(result, server.limits)
    if reached:
        result.status, result.mistakes = "failed", ["reaches-out"]
        result.message = (
            f"The file reaches for what is not its own: {reached[0]}. A piece computes with torch, "
            "and needs neither processes nor the network nor the course's files. [reaches-out]"
        )
    say({"result": {k: v for k, v in vars(result).items() if k != "exception"}})


def _load(server: Server, question: Question, examination: Examination, result: Result) -> bool:
    """Whether the file loads and leaves all that it is judged by as it was; else result says."""
    try:
        if question.model:
            with loading.time_limit(server.limits.load_seconds):
                install_model(question.model)
        forget_answers(question.problem)
    except BaseException as error:
        result.message = (
            "Your own earlier pieces, which this one is built on here, can't be imported: "
            f"{type(error).__name__}: {str(error)[:300]} [own-pieces]"
        )
        result.mistakes = ["own-pieces"]
        return False
    with contextlib.suppress(loading.PieceError):
        examination.piece  # noqa: B018 - loads the file
    broken = server.seal.broken()
    if broken:
        _tampered(result, broken)
        return False
    if isinstance(examination._piece, loading.PieceError):
        result.message = str(examination._piece)
        result.mistakes = [examination._piece.kind]
        if examination._piece.kind == "syntax-error":
            version = ".".join(map(str, sys.version_info[:2]))
            result.message += f"\nThis was Python {version}; does it run in yours?"
        _name_memory(result, server.limits)
        return False
    return True


def _tampered(result: Result, broken: str) -> None:
    result.status = "failed"
    result.message = (
        f"The file changes what it is judged by: {broken}. A piece defines its classes and leaves "
        "everything else as it is. [tampering]"
    )
    result.mistakes = ["tampering"]


def _name_memory(result: Result, limits: Limits) -> None:
    if result.status == "failed" and re.search(
        r"MemoryError|can't allocate memory|Cannot allocate memory", result.message
    ):
        result.message += f"\nMore than {limits.memory} MB were asked for. [too-much-memory]"
        result.mistakes = [*result.mistakes, "too-much-memory"]


# ── own pieces ──────────────────────────────────────────────────────────────────────────────────


def assemble(root: Path, sources: dict[int, bytes]) -> str:
    """The model's text with a student's pieces. Parses their files: call it in a child.

    ValueError that names what can't be carried over.
    """
    from learn_gpt2.assembly import sections, swap

    choices = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, data in sources.items():
            path = Path(folder) / f"{number}.py"
            path.write_bytes(data)
            shown = f"problems/{manifest.get(number).folder}/problem.py"
            choices[number] = sections.read_source(number, "yours", path, shown)
    return swap.assemble_model(root, choices)


def _assembled(server: Server, data: dict) -> dict:
    """Assemble in a child with limits, where the system can fork."""
    sources = {int(n): base64.b64decode(text) for n, text in data["assemble"].items()}
    if not server.means.fork:
        return _try_assembling(server.root, sources)
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            import resource

            bound = sandbox._status("VmSize") + server.limits.memory * sandbox.MEGABYTE
            if sandbox.LINUX:
                resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
            with os.fdopen(writable, "wb") as pipe:
                pipe.write(json.dumps(_try_assembling(server.root, sources)).encode())
        finally:
            os._exit(0)
    os.close(writable)
    text = _read_until(readable, server.limits.load_seconds)
    os.close(readable)
    with contextlib.suppress(OSError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        return json.loads(text)
    except ValueError:
        return {"refused": "the pieces can't be put together within the limits"}


def _try_assembling(root: Path, sources: dict[int, bytes]) -> dict:
    try:
        return {"model": assemble(root, sources)}
    except (ValueError, RecursionError, MemoryError, OSError) as error:
        return {"refused": str(error)}


# ── without fork ────────────────────────────────────────────────────────────────────────────────


def _all_at_once(server: Server, question: Question) -> dict:
    """All checks in this process, which is the question's own."""
    from learn_gpt2.grading import integrity, similarity

    said: dict = {}
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(prefix="learn-grade-") as folder:
        scratch = Path(os.path.realpath(folder))
        path = scratch / "problems" / question.problem.folder / "problem.py"
        path.parent.mkdir(parents=True)
        path.write_bytes(question.source)
        for check in server.checks[question.problem.number]:
            said.clear()
            _examine(server, question, path, check, results, said.update)
            results[check.name] = result = Result(**said["result"])
            result.message = clean(result.message, scratch)
            if not said.get("loaded"):
                for other in server.checks[question.problem.number]:
                    same = Result(other.name, other.title, "failed", result.message)
                    same.mistakes, same.points = result.mistakes, other.points
                    results[other.name] = same
                break
    data = [{k: v for k, v in vars(r).items() if k != "exception"} for r in results.values()]
    prints = asdict(similarity.fingerprints(question.source))
    files = question.problem.number == 12
    unusual = integrity.unusual(question.source, files)[:20]
    return {"results": data, "prints": prints, "unusual": unusual}


# ── the process ─────────────────────────────────────────────────────────────────────────────────


def hello(server: Server) -> dict:
    """What the asker needs to know of the checks."""
    import torch

    return {
        "torch": torch.__version__,
        "checks": {
            str(number): [
                {"name": c.name, "title": c.title, "points": c.points, "todo": c.todo}
                for c in checks
            ]
            for number, checks in server.checks.items()
        },
    }


def _main(arguments: list[str]) -> None:
    """Arguments: the course's root, the options as JSON."""
    root, options = Path(arguments[0]), json.loads(arguments[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    mark = options["mark"]

    def send(data: dict) -> None:
        answers.write(f"\n{mark}{json.dumps(data)}\n")
        answers.flush()

    try:
        means = Means(**options["means"])
        server = prepare(root, options["numbers"], Limits(**options["limits"]), means)
    except Exception as error:
        send({"error": str(error)})
        return
    send(hello(server))
    for line in sys.stdin:
        data = json.loads(line)
        if "assemble" in data:
            send(_assembled(server, data))
        elif means.fork:
            send(answer(server, Question.from_json(data)))
        else:
            send(_all_at_once(server, Question.from_json(data)))
            os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1:])
