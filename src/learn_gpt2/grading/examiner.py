"""The process that grades: torch and the checks imported once, a judge for every question.

It is asked on standard input, one JSON line per student and problem, and answers on standard
output. For each question it forks a judge (`judge.py`), which knows the checks and never imports
the student's file. What the judge asks is answered by a worker (`worker.py`), which a server of its
own forks and confines (`keeper.py`): that server knows nothing of the course. Where the system
can't fork, a question is a process of its own that runs all checks.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from learn_gpt2 import manifest
from learn_gpt2.checking import loading
from learn_gpt2.checking.conduct import Seal, Watch
from learn_gpt2.checking.limits import TimeLimit, time_limit
from learn_gpt2.checking.loading import PieceError
from learn_gpt2.checking.runner import Examination, Result, load_checks, run_checks
from learn_gpt2.grading import drawing, sandbox
from learn_gpt2.grading.judge import Judge, RemotePiece, given_texts, imports_of, open_piece
from learn_gpt2.grading.sandbox import Limits, Means
from learn_gpt2.grading.wire import Gone, Late, Line, WireError
from learn_gpt2.manifest import Problem

if TYPE_CHECKING:
    from learn_gpt2.checking.checks import Check

PATIENCE = 2.0  # how many times its own limit a check may take in all, questions and answers
MOST_RANKS = 24  # workers for the threads of one check
GRACE = 5.0  # seconds beyond that before its process is ended
START_SECONDS = 120.0  # for the server of workers to import torch
# what a check undoes in its own process when a file has left it so
UNDONE = frozenset(("grad-left-off", "default-dtype-set", "mode-left-on"))
JUDGE_MEMORY = 4096  # MB that a judge may take beyond what it has


@dataclass
class Server:
    """What every question needs, made before the first."""

    root: Path
    limits: Limits
    means: Means
    checks: dict[int, list[Check]] = field(default_factory=dict)
    model: str = ""  # the reference's text
    keeper: socket.socket | None = None  # asks the server of workers
    keeper_process: subprocess.Popen | None = None
    given: dict[tuple[int, str], dict] = field(default_factory=dict)
    views: dict[int, dict] = field(default_factory=dict)


def prepare(
    root: Path, numbers: list[int], limits: Limits, means: Means, secret: str = ""
) -> Server:
    """Import what checks need, put the reference model in place, and run the reference once, with
    numbers drawn from the secret.

    ValueError when the reference does not pass here: then nobody's grade would mean anything.
    """
    import torch
    import torch._dynamo  # replaces functions of torch when it is first needed

    from learn_gpt2.assembly import swap

    torch.set_num_threads(1)  # a child of a process with threads could hang
    server = Server(root, limits, means, model=swap.assemble_model(root, {}))
    if means.fork:
        start_keeper(server)  # imports torch while this process runs the reference
    install_model(server.model)
    for attempt in range(drawing.ATTEMPTS if secret else 1):
        drawing.draw_from(secret, attempt)
        why = _why_not(server, numbers)
        if not why:
            break
    else:
        raise ValueError(why)
    for number in numbers if means.fork else ():
        problem = manifest.get(number)
        server.given[number, ""] = given_texts(root, problem, server.model)
        server.views[number] = asdict(sandbox.view(root, number))
    if means.fork:
        wait_for_keeper(server)
    gc.collect()
    gc.freeze()
    return server


def _why_not(server: Server, numbers: list[int]) -> str:
    """Load the checks, and run the reference: "" when it passes, else what it fails."""
    for number in numbers:
        problem = manifest.get(number)
        report = run_checks(server.root, problem, "reference")
        if not report.passed:
            failed = next((r for r in report.results if r.status == "failed"), None)
            why = f"{failed.title}: {failed.message}" if failed else "it has no checks"
            return f"the reference of problem {number:02d} fails here. {why}"
        server.checks[number] = load_checks(server.root, problem)
    return ""


def start_keeper(server: Server) -> None:
    """Start the server of workers: torch, and nothing of the course."""
    ours, theirs = socket.socketpair()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LEARN_GPT2")}
    server.keeper_process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-s",
            "-B",
            str(Path(__file__).with_name("keeper.py")),
            str(theirs.fileno()),
        ],
        pass_fds=[theirs.fileno()],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    theirs.close()
    server.keeper = ours


def wait_for_keeper(server: Server) -> None:
    """Until the server of workers is ready. ValueError when it does not get there."""
    server.keeper.settimeout(START_SECONDS)
    try:
        ready = server.keeper.recv(1)
    except OSError:
        ready = b""
    if ready != b"r":
        raise ValueError("the process that students' code is forked from does not start")
    server.keeper.settimeout(None)


def install_model(text: str) -> None:
    """Make a model's text what `gpt2.model` is in this process."""
    import gpt2

    module = types.ModuleType("gpt2.model", "GPT-2, assembled for grading.")
    module.__file__ = "gpt2/model.py"
    sys.modules["gpt2.model"] = gpt2.model = module
    loading.execute(text, "gpt2/model.py", module)


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
    """Have a question answered by a judge of its own, and wait for it."""
    if server.keeper_process is None or server.keeper_process.poll() is not None:
        start_keeper(server)  # where a student's code may send signals, it may have ended it
        wait_for_keeper(server)
    scratch = Path(os.path.realpath(tempfile.mkdtemp(prefix="learn-grade-")))
    os.chmod(scratch, 0o755)
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(readable)
            _judge(server, question, scratch, writable)
        finally:
            os._exit(1)
    os.close(writable)
    try:
        data = _read_until(readable, server.limits.longest + 30.0)
    finally:
        os.close(readable)
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        sandbox.clear(scratch)
        shutil.rmtree(scratch, ignore_errors=True)
    try:
        return json.loads(data)
    except ValueError:
        return {"error": "the process that judges ended without an answer"}


def _read_until(readable: int, seconds: float) -> bytes:
    chunks, end = [], time.monotonic() + seconds
    while select.select([readable], [], [], max(0.0, end - time.monotonic()))[0]:
        chunk = os.read(readable, 1 << 16)
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks)


def _judge(server: Server, question: Question, scratch: Path, writable: int) -> None:
    """Judge one file, and say what came of it. Does not return."""
    try:
        import resource

        sandbox.end_with_parent()
        if sandbox.LINUX:
            bound = sandbox.status("VmSize") + JUDGE_MEMORY * sandbox.MEGABYTE
            resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
        data = Sitting(server, question, scratch).run()
    except Exception as error:  # ours, not the student's: told as it is
        data = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(writable, "wb") as pipe:
        pipe.write(json.dumps(data).encode())
    os._exit(0)


@dataclass
class Place:
    """Where a worker runs: its keeper, and who asks it."""

    line: socket.socket  # to the keeper
    judge: Judge | None = None
    piece: RemotePiece | None = None  # what the worker holds
    how: tuple[str, int] = ("ended", 0)  # how the last worker ended

    def start(self, path: Path, lines: int, seconds: float) -> Judge:
        """Who asks a new worker."""
        down, down_in = os.pipe()
        up, up_in = os.pipe()
        told = json.dumps({"seconds": seconds}).encode()
        socket.send_fds(self.line, [told], [down, up_in])
        os.close(down)
        os.close(up_in)
        self.judge = Judge(Line(up, down_in), path, lines)
        return self.judge

    def again(self, seconds: float) -> RemotePiece:
        """What the worker holds, for another check."""
        self.line.sendall(json.dumps({"seconds": seconds}).encode() + b"\n")
        self.judge = Judge(self.judge.line, self.judge.path, self.judge.lines)
        self.piece = self.piece.again(self.judge)
        return self.piece

    def stop(self) -> None:
        """End the worker that runs, and everything it started."""
        if self.judge is None:
            return
        self.judge.line.close()
        self.judge = self.piece = None
        self.line.sendall(b"stop\n")
        told = json.loads(self.line.recv(4096) or b"{}")
        self.how = (told.get("how", "ended"), told.get("code", 0))


class Sitting:
    """The checks of one question. A worker answers for one after the other, as a learner's own run
    has one process for them; after a check that went wrong in it, the next has a new one.
    """

    def __init__(self, server: Server, question: Question, scratch: Path):
        self.server, self.question, self.scratch = server, question, scratch
        self.limits = server.limits
        self.file = scratch / "problems" / question.problem.folder / "problem.py"
        self.end = time.monotonic() + server.limits.seconds
        self.credit = server.limits.longest - server.limits.seconds  # for importing what is large
        self.started: list[str] = []  # programs that the file started, in words
        self.places: list[Place] = []  # the first for the check, the others for its threads
        self.ranks: dict[int, Place] = {}  # thread → its place
        self.lock = threading.Lock()

    def run(self) -> dict:
        """What came of the checks, as plain data, and the file's fingerprints."""
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(self.question.source)
        problem = self.question.problem
        key = (problem.number, self.question.model)
        wanted = imports_of(self.question.source)
        if key not in self.server.given or wanted:
            model = self.question.model or self.server.model
            self.given = given_texts(self.server.root, problem, model, wanted)
        else:
            self.given = self.server.given[key]
        self.place = self._open_place()
        checks = self.server.checks[problem.number]
        examination = Examination(problem, self.file, "yours", checks)
        examination.patience = PATIENCE
        results = []
        stopped: Result | None = None  # why the file could not even be loaded
        for check in checks:
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
            else:
                loaded, result = self._check(examination, check)
                stopped = None if loaded else result
            examination.results[check.name] = result
            results.append({k: v for k, v in vars(result).items() if k != "exception"})
        for place in self.places:
            place.stop()
        return {
            "results": results,
            "unusual": list(dict.fromkeys(self.started))[:20],
            **self._about(),
        }

    def _check(self, examination: Examination, check: Check) -> tuple[bool, Result]:
        """Run one check: whether the file could be loaded, and the result."""
        piece = examination._piece
        if isinstance(piece, RemotePiece) and examination.skips(check):
            return True, examination.run(check.name)
        result = Result(check.name, check.title, "failed", points=check.points)
        loaded = well = False
        try:
            examination._piece = self._piece(check, piece)
            loaded = True
            examination._piece.examined_as = examination
            examination._piece.elsewhere = lambda: self._rank(check)
            self.place.judge.seconds = check.seconds
            result = examination.run(check.name)
            judges = [place.judge for place in (self.place, *self.ranks.values()) if place.judge]
            for failure in (result.exception, *(judge.failure for judge in judges)):
                if isinstance(failure, WireError):
                    raise failure
            # what can be relied on for another check
            well = result.exception is None or isinstance(result.exception, Exception)
            waiting = any(judge.waiting for judge in judges)
            well = well and not (waiting or UNDONE & set(result.mistakes))
            well = not self._conduct(result) and well
        except PieceError as error:
            self._unloaded(result, error)
            with contextlib.suppress(WireError):
                self._conduct(result)
        except WireError as error:
            well = False
            self._stop()
            message, mistake = self._explain(error)
            result = Result(check.name, check.title, "failed", f"{message} [{mistake}]", [mistake])
            result.points = check.points
        finally:
            if not well:
                self._stop()
            self.ranks.clear()
        if loaded:
            self._name_memory(result)
        result.message = clean(result.message, self.scratch)
        result.mistakes = [m for m in result.mistakes if re.fullmatch(r"[a-z0-9.-]{1,60}", m)][:8]
        return loaded, result

    def _piece(self, check: Check, before: object) -> RemotePiece:
        """The file in a worker: the one that answered for the last check, or a new one."""
        if self.place.piece is not None:
            return self.place.again(self._seconds(check))
        begun = time.monotonic()
        opened = self._open(self.place, check)
        # a new worker imports again what the file imports; a learner's run does it once
        given = min(time.monotonic() - begun, self.credit)
        self.credit, self.end = self.credit - given, self.end + given
        return opened

    def _open(self, place: Place, check: Check) -> RemotePiece:
        place.piece = open_piece(
            self.question.problem,
            self.file,
            lambda path, lines: place.start(path, lines, self._seconds(check)),
            self.given,
            self.limits.load_seconds,
        )
        return place.piece

    def _rank(self, check: Check) -> RemotePiece:
        """The file in a worker for this thread alone: a rank of several shares nothing."""
        thread = threading.get_ident()
        with self.lock:
            if thread not in self.ranks:
                taken = list(self.ranks.values())
                free = [p for p in self.places[1:] if all(p is not other for other in taken)]
                if not free and len(self.places) > MOST_RANKS:
                    raise Gone("a check with too many threads")
                place = self.ranks[thread] = free[0] if free else self._open_place()
            else:
                return self.ranks[thread].piece
        if place.piece is None:
            self._open(place, check)
        else:
            place.again(self._seconds(check))
        place.judge.seconds, place.judge.random = check.seconds, False
        return place.piece

    def _conduct(self, result: Result) -> bool:
        """Whether the file does besides defining its piece what grading does not take."""
        if self.place.judge is None:
            return True
        fact, started = self.place.judge.conduct()
        self.started += started
        if fact is not None and result.status != "skipped" and fact[0] not in result.mistakes:
            kind, text = fact
            result.status, result.mistakes = "failed", [kind]
            result.message = f"The file {text} [{kind}]"
        return fact is not None

    def _unloaded(self, result: Result, error: PieceError) -> None:
        result.message, result.mistakes = str(error), [error.kind]
        cause = error.__cause__
        if getattr(cause, "of_given", False):
            result.message = (
                "Your own earlier pieces, which this one is built on here, can't be imported: "
                f"{type(cause).__name__}: {str(cause)[:300]} [own-pieces]"
            )
            result.mistakes = ["own-pieces"]
        if error.kind == "syntax-error":
            version = ".".join(map(str, sys.version_info[:2]))
            result.message += f"\nThis was Python {version}; does it run in yours?"
        self._name_memory(result)

    def _name_memory(self, result: Result) -> None:
        if result.status == "failed" and re.search(
            r"MemoryError|can't allocate memory|Cannot allocate memory", result.message
        ):
            result.message += f"\nMore than {self.limits.memory} MB were asked for. "
            result.message += "[too-much-memory]"
            result.mistakes = [*result.mistakes, "too-much-memory"]

    def _explain(self, error: WireError) -> tuple[str, str]:
        """Why there was no answer."""
        limits = self.limits
        ends = [p.how for p in (self.place, *self.ranks.values())]
        how, code = next((end for end in ends if end[0] not in ("ended", "stopped")), ends[0])
        if how in ("ended", "stopped"):
            how = {Late: "time", Gone: "ended"}.get(type(error), "no answer")
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
            "disk": (
                f"Stopped: it wrote more than {4 * limits.file_size} MB, or more than "
                f"{limits.names:,} files.",
                "too-much-disk",
            ),
            "processes": (
                f"Stopped: it started more than {limits.processes} processes. A piece needs none.",
                "starts-processes",
            ),
            "ended": (
                f"The process that ran the file ended {_crash(code)}: does the file end the "
                "program, or crash it?",
                "crashed",
            ),
        }.get(
            how,
            (
                f"What runs the file gave no answer that can be read ({error}): does the file "
                "change more than its own classes?",
                "tampering",
            ),
        )

    def _about(self) -> dict:
        """Fingerprints of the file: it is parsed, not run."""
        from learn_gpt2.grading import similarity

        with contextlib.suppress(Exception, TimeLimit), time_limit(self.limits.load_seconds):
            return {"prints": asdict(similarity.fingerprints(self.question.source))}
        return {}

    # ── workers

    def _open_place(self) -> Place:
        """A keeper for this question, with a folder of its own."""
        box = self.scratch / f"box-{len(self.places)}"
        box.mkdir()
        line, theirs = socket.socketpair()
        job = {
            "means": vars(self.server.means),
            "limits": self.limits.to_json(),
            "view": self.server.views[self.question.problem.number],
            "scratch": str(box),
            "uid": self.question.uid,
        }
        with theirs:
            socket.send_fds(self.server.keeper, [json.dumps(job).encode()], [theirs.fileno()])
        line.settimeout(60.0)
        if line.recv(1) != b"r":
            raise OSError("students' code can't be confined as it should")
        self.places.append(Place(line))
        return self.places[-1]

    def _seconds(self, check: Check) -> float:
        """How long a worker may run for a check, its start included."""
        return min(
            3 * self.limits.load_seconds + 3 * PATIENCE * check.seconds + GRACE,  # as `time_limit`
            max(1.0, self.end - time.monotonic()),
        )

    def _stop(self) -> None:
        """End the workers of this check."""
        for place in (self.place, *self.ranks.values()):
            place.stop()


def _crash(code: int) -> str:
    """The code or the signal with which a process ended, in words."""
    if code >= 0:
        return f"with code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def clean(text: str, scratch: Path | None = None) -> str:
    """A message without what changes from run to run, and without control characters."""
    if scratch is not None:
        text = text.replace(f"{scratch}{os.sep}", "")
    text = re.sub(r"\b0x[0-9a-fA-F]{6,16}\b", "0x…", text[:4000])
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


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

            bound = sandbox.status("VmSize") + server.limits.memory * sandbox.MEGABYTE
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
    """All checks in this process, which is the question's own: here the file meets its judge."""
    from learn_gpt2.grading import similarity

    with tempfile.TemporaryDirectory(prefix="learn-grade-") as folder:
        scratch = Path(os.path.realpath(folder))
        path = scratch / "problems" / question.problem.folder / "problem.py"
        path.parent.mkdir(parents=True)
        path.write_bytes(question.source)
        if question.model:
            install_model(question.model)
        checks = server.checks[question.problem.number]
        own = (str(scratch), os.getcwd(), tempfile.gettempdir())
        watch = Watch(path, own, (str(server.root / "solutions") + os.sep,), offline=True)
        watch.seal = Seal([f"checks_{question.problem.number:02d}"], lazily=True)
        watch.listen()
        report = Examination(question.problem, path, "yours", checks).run_all()
        fact = watch.fact()
        for result in report.results:
            if fact is not None:
                result.status, result.mistakes, result.message = "failed", [fact.kind], fact.message
            result.message = clean(result.message, scratch)
    data = report.to_json()["results"]
    return {
        "results": data,
        "unusual": list(dict.fromkeys(watch.started))[:20],
        "prints": asdict(similarity.fingerprints(question.source)),
    }


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
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    mark = options["mark"]
    sys.argv[1:] = []  # a file that reads its arguments finds none, as with `python problem.py`

    def send(data: dict) -> None:
        out.write(f"\n{mark}{json.dumps(data)}\n")
        out.flush()

    try:
        means = Means(**options["means"])
        server = prepare(
            root, options["numbers"], Limits(**options["limits"]), means, options["secret"]
        )
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
