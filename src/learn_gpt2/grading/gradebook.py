"""Grading a class: every student's every problem, isolated, cached and explained.

`grade` reads the submissions, has examiners run the checks (`examiner.py`, in `sandbox.py`'s
confinement), and returns plain data that `reports.py` writes down. Marks are the points of the
checks that passed; every other check has its message.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import os
import platform
import queue
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from gpt2.common.files import write_atomically
from learn_gpt2 import manifest
from learn_gpt2.checking.child import Child, NoAnswer, python, surroundings
from learn_gpt2.grading import answers, drawing, sandbox, similarity, submissions
from learn_gpt2.grading.escaping import json_text, one_line
from learn_gpt2.grading.examiner import ask
from learn_gpt2.grading.recognizing import named
from learn_gpt2.grading.roster import Roster
from learn_gpt2.grading.sandbox import Limits, Means
from learn_gpt2.grading.similarity import Prints
from learn_gpt2.grading.submissions import Submission
from learn_gpt2.manifest import Problem

FORMAT = 2  # of report.json and of the cache
START_SECONDS = 300.0  # for importing torch and running the reference once


@dataclass(frozen=True)
class Options:
    """How a class is graded."""

    problems: tuple[int, ...] = tuple(p.number for p in manifest.MODEL_PROBLEMS)
    limits: Limits = field(default_factory=Limits)
    jobs: int = 2
    own_pieces: bool = False
    roster: Roster | None = None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. done of total questions have their answer in the cache."""

    def __init__(self, done: int, total: int):
        super().__init__()
        self.done, self.total = done, total


# ── examiners ───────────────────────────────────────────────────────────────────────────────────


class ExaminerEnded(RuntimeError):
    """The examiner's process has gone, or did not answer in time."""

    def __init__(self, message: str, late: bool = False):
        super().__init__(message)
        self.late = late


class Examiner:
    """A process that answers questions; it is started when it is first needed."""

    def __init__(self, root: Path, options: Options, means: Means, scratch: Path, secret: str = ""):
        self.root, self.options, self.means, self.scratch = root, options, means, scratch
        self.secret = secret
        self._child: Child | None = None
        self._mark = ""
        self._start_seconds = START_SECONDS / 3

    def start(self) -> dict:
        """What the examiner says of itself: the checks, torch's version. ValueError when it finds
        the course itself broken.
        """
        self._mark = secrets.token_hex(16)
        options = {
            "mark": self._mark,
            "numbers": self.options.problems,
            "secret": self.secret,
            "limits": self.options.limits.to_json(),
            "means": vars(self.means),
        }
        command = python("-m", "learn_gpt2.grading.examiner", str(self.root), json.dumps(options))
        self._child = Child(command, _environment(self.root, self.scratch))
        if not self.means.fork:
            return {}
        said = self._read(self._child, START_SECONDS)
        if "error" in said:
            self.close()
            raise ValueError(said["error"])
        return said

    def ask(self, line: str) -> dict:
        """The answer to a line. ExaminerEnded when there is no answer."""
        seconds = self.options.limits.longest + 90.0
        if not self.means.fork:
            # the start, which it needs each time, takes about as long as the first did
            return self._ask_once(line, self.options.limits.seconds + 10 + 3 * self._start_seconds)
        if self._child is None:
            self.start()
        child = self._started()
        try:
            child.tell(line.encode())
            return self._read(child, seconds)
        except (NoAnswer, ExaminerEnded) as error:
            self.close()
            raise ExaminerEnded(str(error)) from None

    def hello(self) -> dict:
        """What `start` gives, also where each question has a process of its own."""
        if self.means.fork:
            return self.start()
        begun = time.monotonic()
        said = self._ask_once("", START_SECONDS)
        self._start_seconds = time.monotonic() - begun
        return said

    def _ask_once(self, line: str, seconds: float) -> dict:
        self.start()
        child, until = self._started(), time.monotonic() + seconds
        try:
            child.tell(line.encode(), last=True)
            output = child.rest(until)
            if child.wait(until) is None:
                raise ExaminerEnded(f"no answer within {seconds:.0f} s", late=True)
        except NoAnswer as error:
            raise ExaminerEnded(str(error), late=error.late) from None
        finally:
            self.close()
        said = [text for text in output.split(b"\n") if text.startswith(self._mark.encode())]
        if said and b'"error"' in said[0][:60]:
            raise ValueError(json.loads(said[0][len(self._mark) :])["error"])
        if len(said) < (2 if line else 1):
            raise ExaminerEnded("the process ended without an answer")
        return json.loads(said[-1][len(self._mark) :])

    def _started(self) -> Child:
        if self._child is None:
            raise ExaminerEnded("the process ended without an answer")
        return self._child

    def _read(self, child: Child, seconds: float) -> dict:
        try:
            return child.marked(self._mark, time.monotonic() + seconds)
        except NoAnswer as error:
            what = f"no answer within {seconds:.0f} s" if error.late else str(error)
            raise ExaminerEnded(what) from None

    def close(self) -> None:
        """End the process and what it started."""
        child, self._child = self._child, None
        if child is not None:
            child.close()


def _environment(root: Path, scratch: Path) -> dict[str, str]:
    """What the examiner is told: nothing that is secret, and nothing that changes results."""
    kept = (
        "PATH",
        "SYSTEMROOT",
        "SYSTEMDRIVE",
        "WINDIR",
        "TEMP",
        "TMP",
        "TMPDIR",
        "LD_LIBRARY_PATH",
    )
    own = {name: os.environ[name] for name in kept if name in os.environ}
    return own | {
        **surroundings(root),
        "PYTHONUTF8": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "LEARN_GPT2_LOAD_SECONDS": "10",
    }


# ── what is asked ───────────────────────────────────────────────────────────────────────────────


@dataclass
class Task:
    """One file under one problem's checks; several students may have handed in the same."""

    problem: Problem
    source: bytes
    model: str
    key: str
    answer: dict | None = None


def reported(root: Path, numbers: tuple[int, ...]) -> dict[int, list[str]]:
    """Titles of the checks that rely in part on what a worker reports about itself: a device, an
    edit in place, operations. The other checks compare numbers.
    """
    from learn_gpt2.checking.runner import load_checks

    return {
        number: [c.title for c in load_checks(root, manifest.get(number)) if c.reported]
        for number in numbers
    }


def weights(root: Path, numbers: tuple[int, ...]) -> dict[int, list[tuple[str, int]]]:
    """Points per check: problem number → [(title, points)], read from the checks themselves."""
    from learn_gpt2.checking.runner import load_checks

    found = {}
    for number in numbers:
        checks = load_checks(root, manifest.get(number))
        found[number] = [(check.title, check.points) for check in checks]
    return found


def course_files(root: Path) -> dict[str, str]:
    """Every file that a mark depends on, and that a student's code must not touch → its hash."""
    found = {}
    problems = ("problems/*/test_*.py", "problems/*/mistakes.py")
    for pattern in ("src/**/*.py", *problems, "solutions/*.py"):
        for path in sorted(root.glob(pattern)):
            if path != root / "src" / "gpt2" / "model.py":  # graded in one that is assembled again
                name = path.relative_to(root).as_posix()
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class Class:
    """Everybody's work on its way to marks."""

    def __init__(
        self, root: Path, folder: Path, out: Path, options: Options, means: Means | None = None
    ):
        self.root, self.out, self.options = root, out, options
        self.means = means or sandbox.probe()
        if self.means.reason_to_refuse:
            raise ValueError(self.means.reason_to_refuse)
        self.problems = [manifest.get(n) for n in options.problems]
        self.files = course_files(root)
        self.digest = hashlib.sha256(json.dumps(self.files).encode()).hexdigest()[:16]
        # with own pieces, a problem is graded in a model that has earlier ones
        wanted = {p.number: p for p in self.problems}
        if options.own_pieces:
            for problem in self.problems:
                wanted |= {p.number: p for p in manifest.prerequisites(problem)}
        everything = [wanted[n] for n in sorted(wanted)]
        self.skeletons = {n: p.skeleton_path(root).read_bytes() for n, p in wanted.items()}
        self.students = submissions.read_all(
            folder, everything, out, options.roster, self.skeletons
        )
        self.tasks: dict[str, Task] = {}
        self.task_of: dict[tuple[str, int], Task] = {}
        self.cannot: dict[tuple[str, int], str] = {}  # own pieces that don't fit together
        self.control: dict[int, Task] = {}  # the reference, graded as everybody is
        self.hello: dict = {}

    @functools.cached_property
    def secret(self) -> str:
        """What this class's numbers are drawn from."""
        return drawing.secret_of(self.out)

    def state(self, student: Submission, number: int) -> str:
        """graded, untouched, refused or missing."""
        if number in student.refused:
            return "refused"
        if number not in student.files:
            return "missing"
        same = _lines(student.files[number]) == _lines(self.skeletons[number])
        return "untouched" if same else "graded"

    # ── grading

    def grade(self, progress: Callable[[int, int], None] = lambda done, total: None) -> dict:
        """Run all that is not in the cache; the report as plain data.

        After Ctrl-C, finished results stay in the cache, and the next call continues.
        """
        scratch = Path(os.path.realpath(tempfile.mkdtemp(prefix="learn-grade-")))
        os.chmod(scratch, 0o755)  # the user that students' code runs as passes through
        examiners = [
            Examiner(self.root, self.options, self.means, scratch, self.secret)
            for _ in range(self.options.jobs)
        ]
        try:
            self.hello = self._checks(examiners[0])
            self._ask_what(examiners[0])
            self._answer(examiners, progress)
        finally:
            for examiner in examiners:
                examiner.close()
            shutil.rmtree(scratch, ignore_errors=True)
        after = course_files(self.root)
        changed = sorted(
            name for name in self.files | after if self.files.get(name) != after.get(name)
        )
        if changed:
            raise ValueError(
                f"{', '.join(changed[:5])} changed while the class was graded: these marks can't "
                "be trusted. If you changed the course yourself, grade again; if not, "
                "`git status` and the students' files tell more"
            )
        return self.report()

    def again(self, student: Submission, number: int) -> dict:
        """One piece of one student, run again with an examiner of its own, whatever the cache has;
        as in the report. The reference runs first, confined in the same way.
        """
        problem = manifest.get(number)
        scratch = Path(os.path.realpath(tempfile.mkdtemp(prefix="learn-grade-")))
        os.chmod(scratch, 0o755)
        examiner = Examiner(self.root, self.options, self.means, scratch, self.secret)
        uid = sandbox.free_uid(0) if self.means.drops else 0
        try:
            self.hello = self._checks(examiner)
            self._ask_what(examiner)
            task = self.task_of.get((student.student, number))
            for wanted in (self.control[number], task):
                if wanted is not None:
                    wanted.answer = self._ask_twice(examiner, wanted, uid, threading.Event())
                    self._expect_full_marks(wanted)
        finally:
            examiner.close()
            shutil.rmtree(scratch, ignore_errors=True)
        return self._problem(student, problem)

    def find(self, name: str) -> Submission:
        """The one student whom a name, a login, an id or an email fits; ValueError otherwise."""
        wanted = name.casefold().strip()

        def words(student: Submission) -> set[str]:
            given = (student.student, student.name, student.login, student.id, student.email)
            return {word.casefold() for word in given if word}

        for fits in (
            lambda s: wanted == s.student.casefold(),
            lambda s: wanted in words(s),
            lambda s: any(wanted in word for word in words(s)),
        ):
            found = [student for student in self.students if fits(student)]
            if len(found) == 1:
                return found[0]
            if found:
                names = ", ".join(one_line(student.student) for student in found[:8])
                raise ValueError(f"{one_line(name)!r} fits {len(found)} students: {names}")
        raise ValueError(f"no student is called {one_line(name)!r}; --dry-run lists them")

    def _checks(self, examiner: Examiner) -> dict:
        """What the examiner says of the checks; from the cache when nothing has changed."""
        facts = [FORMAT, self.digest, platform.python_version(), version("torch"), self.secret]
        text = json.dumps([*facts, self.options.problems])
        path = self.out / ".cache" / f"checks-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        with contextlib.suppress(OSError, ValueError):
            return json.loads(path.read_text(encoding="utf-8"))
        said = examiner.hello()
        write_atomically(path, json.dumps(said, ensure_ascii=False).encode())
        return said

    def _ask_what(self, examiner: Examiner) -> None:
        """Make the tasks, each different file once, and the reference first."""
        for problem in self.problems:
            source = problem.solution_path(self.root).read_bytes()
            key = self._key(problem, source, "")
            self.tasks[key] = self.control[problem.number] = Task(problem, source, "", key)
        for student in self.students:
            for problem in self.problems:
                if self.state(student, problem.number) != "graded":
                    continue
                place = (student.student, problem.number)
                model = self._model(examiner, student, problem) if self.options.own_pieces else ""
                if model is None:
                    continue
                source = student.files[problem.number]
                key = self._key(problem, source, model)
                task = self.tasks.setdefault(key, Task(problem, source, model, key))
                self.task_of[place] = task

    def _model(self, examiner: Examiner, student: Submission, problem: Problem) -> str | None:
        """The model with the student's own earlier pieces; "" when there are none, None when they
        don't fit together (`cannot` says why).
        """
        own = {
            p.number: base64.b64encode(student.files[p.number]).decode("ascii")
            for p in manifest.prerequisites(problem)
            if self.state(student, p.number) == "graded"
        }
        if not own:
            return ""
        try:
            said = examiner.ask(json.dumps({"assemble": own}) + "\n")
        except ExaminerEnded as error:
            said = {"refused": str(error)}
        if "model" not in said:
            self.cannot[student.student, problem.number] = said.get("refused", "no answer")
            return None
        return said["model"]

    def _key(self, problem: Problem, source: bytes, model: str) -> str:
        facts = {
            "format": FORMAT,
            "course": self.digest,
            "problem": problem.number,
            "source": hashlib.sha256(source).hexdigest(),
            "model": hashlib.sha256(model.encode()).hexdigest(),
            "limits": self.options.limits.to_json(),
            "python": platform.python_version(),
            "torch": self.hello.get("torch"),
            "fork": self.means.fork,
            "secret": self.secret,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def _asked(self, problem: Problem) -> list[answers.Asked]:
        """What the examiner is asked about a problem; its answer must be about the same."""
        checks = self.hello["checks"][str(problem.number)]
        return [answers.Asked(c["name"], c["title"], c["points"]) for c in checks]

    def _cached(self, key: str) -> Path:
        return self.out / ".cache" / f"{key}.json"

    def _answer(self, examiners: list[Examiner], progress: Callable[[int, int], None]) -> None:
        todo: queue.SimpleQueue[Task] = queue.SimpleQueue()
        waiting = 0
        for task in self.tasks.values():
            with contextlib.suppress(OSError, ValueError, RecursionError):
                data = json.loads(self._cached(task.key).read_text(encoding="utf-8"))
                task.answer = answers.answer(data, self._asked(task.problem))
            if task.answer is None:
                todo.put(task)
                waiting += 1
        total = len(self.tasks)
        done = total - waiting
        progress(done, total)
        finished: queue.SimpleQueue[Task | BaseException | None] = queue.SimpleQueue()
        stop = threading.Event()
        threads = [
            threading.Thread(
                target=self._work, args=(i, examiner, todo, finished, stop), daemon=True
            )
            for i, examiner in enumerate(examiners[: max(1, waiting)])
        ]
        for thread in threads:
            thread.start()
        try:
            while done < total:
                got = finished.get()
                if isinstance(got, BaseException):
                    raise got
                self._expect_full_marks(got)
                done += 1
                progress(done, total)
        except KeyboardInterrupt:
            raise Interrupted(done, total) from None
        finally:
            stop.set()
            for examiner in examiners:
                examiner.close()

    def _expect_full_marks(self, task: Task) -> None:
        """ValueError when the reference loses a point: then everybody's marks would be wrong."""
        if task is not self.control.get(task.problem.number):
            return
        lost = [r for r in task.answer.get("results", ()) if r["status"] != "passed"]
        why = lost[0]["message"] if lost else task.answer.get("error")
        if why:
            raise ValueError(
                f"nothing is graded: the reference of problem {task.problem.number:02d} does not "
                f"pass when it is confined as students' files are. {why}"
            )

    def _work(self, number: int, examiner: Examiner, todo, finished, stop) -> None:
        """One job: take tasks until there are none."""
        uid = sandbox.free_uid(number) if self.means.drops else 0
        try:
            while not stop.is_set():
                try:
                    task = todo.get_nowait()
                except queue.Empty:
                    return
                answer = self._ask_twice(examiner, task, uid, stop)
                if stop.is_set():
                    return
                task.answer = answer
                if "error" not in answer:
                    write_atomically(self._cached(task.key), json_text(answer).encode())
                finished.put(task)
        except BaseException as error:
            finished.put(error)

    def _ask_twice(self, examiner: Examiner, task: Task, uid: int, stop: threading.Event) -> dict:
        """An answer; {"error": …} when the examiner failed on this file two times."""
        reason = ""
        for _ in range(2):
            if stop.is_set():
                break
            try:
                answer = examiner.ask(ask(task.problem.number, task.source, task.model, uid))
            except ExaminerEnded as error:
                reason = str(error)
                if not self.means.fork:  # the process was the file's own: so was its end
                    return {"results": self._ended(task.problem, error.late)}
                continue
            if "results" in answer:
                try:
                    return answers.answer(answer, self._asked(task.problem))
                except answers.BadAnswer as error:
                    reason = f"its answer is malformed: {error}"
                    continue
            reason = answers.message(str(answer.get("error", "")))
        return {"error": reason}

    def _ended(self, problem: Problem, late: bool) -> list[dict]:
        """A result per check for a file that ended, or outlasted, the process of its own."""
        if late:
            text, mistake = "Stopped: its time was over. Does a loop never end?", "endless-loop"
        else:
            text, mistake = "Python ended: does the file end the program, or crash it?", "crashed"
        return self._alike(problem.number, f"{text} [{mistake}]", mistake)

    # ── the report

    def report(self) -> dict:
        """Everything as plain data: the same for the same submissions, without times."""
        students = [self._student(student) for student in self.students]
        return {
            "format": FORMAT,
            "course": self.digest,
            "python": platform.python_version(),
            "torch": self.hello.get("torch"),
            "options": {
                "problems": list(self.options.problems),
                "own_pieces": self.options.own_pieces,
                "limits": self.options.limits.to_json(),
            },
            "protections": [vars(p) for p in sandbox.protections(self.means, self.options.limits)],
            "students": students,
            "copies": [vars(group) for group in self._copies()],
            "misconceptions": misconceptions(students),
        }

    def _student(self, student: Submission) -> dict:
        graded = [self._problem(student, problem) for problem in self.problems]
        points, most = sum(g["points"] for g in graded), sum(g["max"] for g in graded)
        return {
            "student": student.student,
            "points": points,
            "max": most,
            "percent": percent(points, most),
            "notices": student.notices,
            "attention": student.attention,
            **whose(student),
            "problems": graded,
        }

    def _problem(self, student: Submission, problem: Problem) -> dict:
        number = problem.number
        state = self.state(student, number)
        checks = self.hello["checks"][str(number)]
        task = self.task_of.get((student.student, number))
        answer = (task.answer if task else None) or {}
        results = answer.get("results") or self._same_for_all(student, number, state, answer)
        known = {check["name"]: check["points"] for check in checks}
        results = [dict(result) for result in results]  # several students may have one answer
        for result in results:  # points come from the checks alone
            result["points"] = known[result["name"]]
            result["earned"] = result["points"] if result["status"] == "passed" else 0
        source = student.files.get(number)
        earned, most = sum(r["earned"] for r in results), sum(known.values())
        return {
            "number": number,
            "title": problem.title,
            "state": state,
            "file": student.where.get(number, ""),
            "digest": hashlib.sha256(source).hexdigest()[:7] if source is not None else "",
            "points": earned,
            "max": most,
            "percent": percent(earned, most),
            "unusual": answer.get("unusual", []),
            "results": results,
        }

    def _same_for_all(
        self, student: Submission, number: int, state: str, answer: dict
    ) -> list[dict]:
        """A result per check for a file whose checks were not run, and why they were not."""
        names = " or ".join(submissions.candidates(manifest.get(number)))
        holds = f" What is there: {named(student.unread)}." if student.unread else ""
        place = (student.student, number)
        message, mistake = {
            "missing": (f"Not handed in: there is no {names}.{holds}", "not-handed-in"),
            "refused": (f"Not graded: {student.refused.get(number)}.", "refused"),
            "untouched": ("The file is the skeleton: nothing is written yet.", "untouched"),
            "graded": (
                f"Your own earlier pieces don't fit together: {self.cannot.get(place)}",
                "own-pieces",
            ),
        }[state]
        if "error" in answer:
            message = (
                "The examiner itself ended, two times, while it graded this file "
                f"({answer['error']}). Ask your instructor to look at it."
            )
            mistake = "examiner-ended"
        return self._alike(number, f"{message} [{mistake}]", mistake)

    def _alike(self, number: int, message: str, mistake: str) -> list[dict]:
        """The same failure for every check of a problem."""
        return [
            {
                "name": check["name"],
                "title": check["title"],
                "status": "failed",
                "message": message,
                "mistakes": [mistake],
                "hint": None,
                "todo": None,
                "line": None,
            }
            for check in self.hello["checks"][str(number)]
        ]

    def _copies(self) -> list[similarity.Copies]:
        found: list[similarity.Copies] = []
        for problem in self.problems:
            number = problem.number
            prints = {
                student.student: Prints(**task.answer["prints"])
                for student in self.students
                if (task := self.task_of.get((student.student, number)))
                and task.answer
                and "prints" in task.answer
            }
            reference = similarity.fingerprints(problem.solution_path(self.root).read_bytes())
            skeleton = similarity.fingerprints(self.skeletons[number])
            known = {"the reference solution": reference}
            found += similarity.groups(number, prints, known, skeleton)
        return found


def whose(student: Submission) -> dict:
    """Who a submission is from and where it lay, as plain data."""
    return {
        "name": student.name or student.student,
        "id": student.id,
        "login": student.login,
        "email": student.email,
        "platform": student.platform,
        "source": student.source,
        "late": student.late,
        "unread": student.unread,
        "line": student.person.line if student.person else None,  # of the roster
    }


def _lines(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").rstrip()


def percent(points: int, most: int) -> float:
    """Points as percent of the most there are, to a tenth."""
    return round(100 * points / most, 1) if most else 0.0


# ── statistics ──────────────────────────────────────────────────────────────────────────────────

# what happened to a file or was tried with it, rather than what its author believes
NO_MISCONCEPTIONS = frozenset(
    (
        "changes-torch",
        "crashed",
        "default-device",
        "default-dtype-set",
        "examiner-ended",
        "import-error",
        "import-loops",
        "leaves-a-thread",
        "not-handed-in",
        "not-utf8",
        "open-todo",
        "out-of-time",
        "own-pieces",
        "reaches-out",
        "refused",
        "starts-processes",
        "syntax-error",
        "tampering",
        "too-much-memory",
        "too-much-output",
        "traces",
        "untouched",
    )
)


def misconceptions(students: list[dict]) -> list[dict]:
    """How many students show each named misconception in each problem, commonest first.

    count of handed_in: students with it, and students whose file for the problem was graded.
    """
    handed_in: dict[int, int] = {}
    who: dict[tuple[int, str], list[str]] = {}
    says: dict[tuple[int, str], str] = {}
    for student in students:
        for problem in student["problems"]:
            number = problem["number"]
            handed_in[number] = handed_in.get(number, 0) + (problem["state"] == "graded")
            for result in problem["results"]:
                for mistake in result["mistakes"]:
                    if mistake in NO_MISCONCEPTIONS:
                        continue
                    names = who.setdefault((number, mistake), [])
                    if student["student"] not in names:
                        names.append(student["student"])
                    says.setdefault((number, mistake), sentence(result["message"], mistake))
    found = [
        {
            "problem": number,
            "mistake": mistake,
            "says": says[number, mistake],
            "count": len(names),
            "handed_in": handed_in[number],
            "students": names,
        }
        for (number, mistake), names in who.items()
    ]
    return sorted(found, key=lambda f: (-f["count"], f["problem"], f["mistake"]))


def sentence(message: str, mistake: str) -> str:
    """The line of a message that names a mistake, without its marks."""
    lines = message.splitlines() or [""]
    line = next((text for text in lines if f"[{mistake}]" in text), lines[0])
    line = re.sub(r" ?\(hint \d+\)| ?\[[a-z0-9.-]+\]", "", line[:1000])
    return line.removeprefix("- ").strip()[:200]
