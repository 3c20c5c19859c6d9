"""What Windows and macOS need: portable calls, UTF-8 said aloud, old consoles, CRLF, odd paths.

CI runs everything on Windows and macOS; here Linux is stripped of what Windows has not.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest

from gpt2.common import files
from learn_gpt2 import manifest
from learn_gpt2.commands import keys
from learn_gpt2.course import layout as courses
from tests.conftest import ROOT

SOURCES = sorted([*(ROOT / "src").rglob("*.py"), ROOT / "setup.py"])
sources = pytest.mark.parametrize(
    "path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix()
)


# ── in the source ───────────────────────────────────────────────────────────────────────────────

MODULES = {
    *("fcntl", "grp", "msvcrt", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"),
    "winreg",
}
NAMES = {
    "os": {
        *("O_CLOEXEC", "O_NOFOLLOW", "O_PATH", "WNOHANG", "chown", "chroot", "fork", "forkpty"),
        *("getegid", "geteuid", "getgid", "getloadavg", "getuid", "killpg", "lchown", "mkfifo"),
        *("nice", "openpty", "pread", "pwrite", "sched_getaffinity", "setgid", "setgroups"),
        *("setpgid", "setresgid", "setresuid", "setsid", "setuid", "statvfs", "uname"),
    },
    "signal": {
        *("ITIMER_REAL", "SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP"),
        *("SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGXFSZ", "alarm", "pause", "pthread_kill"),
        *("setitimer", "sigwait"),
    },
}
# words in a condition that keep other systems out
GUARDS = ("hasattr(", "os.name", "sys.platform", "LINUX", "POSIX", "CAN_FORK", "fork", "except")
# functions that are called on the systems that have these names, and who sees to it
ASKED_FOR = {
    "learn_gpt2/commands/keys.py": {"_cbreak": "single_keys asks for os.name"},
    "learn_gpt2/checking/limits.py": {"_by_signal": "time_limit asks for setitimer"},
    "learn_gpt2/checking/warm.py": {"_in_child": "Warm asks for CAN_FORK"},
    "learn_gpt2/grading/examiner.py": {
        name: "_main takes _all_at_once where the system can't fork"
        for name in ("answer", "_judge", "start_keeper", "_open_keeper", "_worker")
    },
    "learn_gpt2/grading/keeper.py": {
        name: "only started where the system can fork"
        for name in ("serve", "_start_keeper", "run", "_work", "_watch", "_end", "_fresh_scratch")
    },
    "learn_gpt2/grading/worker.py": {"serve": "only started where the system can fork"},
    "learn_gpt2/grading/sandbox.py": {
        name: "for the processes that examiner.answer forks, and for what probe finds"
        for name in (
            *("_works", "_try_namespaces", "unshare", "build_root", "_bind", "_allow"),
            *("free_uid", "confine", "end_all", "_reap", "_counts_per_namespace"),
        )
    },
}


def only_somewhere(tree: ast.Module, allowed: dict[str, str]) -> list[tuple[int, str]]:
    """Names that not every system has, where nothing asks for the system first: (line, name)."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}

    def guarded(node: ast.AST) -> bool:
        before = node
        while (node := parents.get(node)) is not None:
            if isinstance(node, ast.FunctionDef) and node.name in allowed:
                return True
            branch = isinstance(node, ast.If | ast.IfExp) and before is not node.test
            if branch and any(guard in ast.unparse(node.test) for guard in GUARDS):
                return True
            if isinstance(node, ast.BoolOp):
                first = " ".join(ast.unparse(v) for v in node.values[: node.values.index(before)])
                if any(guard in first for guard in GUARDS):
                    return True
            tried = isinstance(node, ast.Try) and before in node.body
            if tried and any("ImportError" in ast.unparse(h.type or h) for h in node.handlers):
                return True
            if isinstance(node, ast.FunctionDef) and _returns_early(node, before):
                return True
            before = node
        return False

    def _returns_early(function: ast.FunctionDef, before: ast.AST) -> bool:
        """Whether an `if not hasattr(os, "fork"): return` stands above."""
        body = function.body
        above = body[: body.index(before)] if before in body else []
        return any(
            isinstance(s, ast.If)
            and isinstance(s.body[-1], ast.Return | ast.Raise | ast.Continue)
            and any(guard in ast.unparse(s.test) for guard in GUARDS)
            for s in above
        )

    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            names = [node.module]
        elif isinstance(node, ast.Attribute):
            module = getattr(node.value, "id", "")
            names = [f"{module}.{node.attr}"] if node.attr in NAMES.get(module, ()) else []
        if names and not guarded(node):
            found += [(node.lineno, name) for name in names]
    return found


@sources
def test_nothing_is_used_that_only_some_systems_have(path: Path):
    """Catches an os.fork, a SIGKILL or an `import resource` that Windows stumbles over."""
    allowed = ASKED_FOR.get("/".join(path.parts[-3:]), {})
    assert only_somewhere(ast.parse(path.read_text(encoding="utf-8")), allowed) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import os\nos.fork()", 1),
        ("import resource", 1),
        ("import os\nif hasattr(os, 'fork'):\n    os.fork()", 0),
        ("import os\nx = os.getuid() if os.name == 'posix' else 0", 0),
        ("import os\nx = os.name == 'posix' and os.getuid()", 0),
        ("def f():\n    try:\n        import resource\n    except ImportError:\n        return", 0),
        (
            "def f():\n    if not hasattr(os, 'fork'):\n        return\n    os.fork()",
            0,
        ),
        (
            "def f():\n    os.fork()\n    if not hasattr(os, 'fork'):\n        return",
            1,
        ),
    ],
)
def test_such_a_use_is_found(code: str, found: int):
    """Catches a search that finds nothing, or everything."""
    assert len(only_somewhere(ast.parse(code), {})) == found


def without_encoding(tree: ast.Module) -> list[int]:
    """Lines that open a text in whatever encoding the system has."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        words = [ast.unparse(argument) for argument in node.args]
        mode = given.get("mode", next((w for w in words if set(w) <= set("'rwaxbt+")), "''"))
        owner = ast.unparse(getattr(node.func, "value", node.func))
        if name in ("Popen", "run", "check_output") and owner == "subprocess":
            text = given.get("text") == "True" or given.get("universal_newlines") == "True"
            missing = text and "encoding" not in given
        elif name in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile"):
            default_binary = name.endswith("TemporaryFile")
            text = "b" not in mode and not (default_binary and mode == "''")
            other = owner in ("os", "Image", "gzip") and name == "open"
            missing = text and "encoding" not in given and not other
        else:
            missing = name in ("read_text", "write_text") and "encoding" not in given
            missing = missing and len(words) < (1 if name == "read_text" else 2)
        if missing:
            found.append(node.lineno)
    return found


# an archive's entries and a source's documents are bytes, whatever the method is called
BYTES = {
    "grading/intake_child.py": 2,
    "data/preparing.py": 1,
    "data/sources.py": 1,
    "commands/generate.py": 1,
}


@sources
def test_every_text_says_that_it_is_utf8(path: Path):
    """Catches a file that is read in the code page of a Windows."""
    found = without_encoding(ast.parse(path.read_text(encoding="utf-8")))
    assert len(found) == BYTES.get("/".join(path.parts[-2:]), 0), found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open(path)", 1),
        ("open(path, 'rb')", 0),
        ("path.open('w')", 1),
        ("path.open('w', encoding='utf-8')", 0),
        ("path.read_text()", 1),
        ("path.read_text('utf-8')", 0),
        ("path.write_text(text)", 1),
        ("subprocess.run(x, text=True)", 1),
        ("subprocess.run(x, text=True, encoding='utf-8')", 0),
        ("os.open(path, flags)", 0),
    ],
)
def test_a_missing_encoding_is_found(code: str, found: int):
    """Catches a search that finds nothing, or everything."""
    assert len(without_encoding(ast.parse(code))) == found


def test_every_name_is_good_on_windows():
    """Catches a file that can't be checked out: two that differ in case, `aux.py`, a long path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.split("\0") if name]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert not PureWindowsPath(name).is_reserved(), name
        assert not set(name) & set('<>:"|?*\\'), name
        assert not any(part.endswith((".", " ")) for part in name.split("/")), name
        assert len(name) < 120, name  # of 260, with what a learner's own folders take


# ── keys and renames ────────────────────────────────────────────────────────────────────────────


class Console:
    """Windows' msvcrt, with keys that wait."""

    def __init__(self, waiting: str):
        self.waiting = list(waiting)

    def kbhit(self) -> bool:
        return bool(self.waiting)

    def getwch(self) -> str:
        return self.waiting.pop(0)


def test_an_arrow_key_is_no_letter():
    """Catches an arrow that asks for the solution: its last part is a letter, in both worlds."""
    console = Console("n\xe0Sq\x00R")
    assert [keys._windows_key(console) for _ in range(5)] == ["n", "", "q", "", ""]
    typed = (b"n", b"\x1b[A", b"\x1b", b"\x1b[3~", "é".encode(), b"")
    assert [keys._unix_key(data) for data in typed] == ["n", "", "", "", "é", "q"]


def test_a_file_that_is_held_open_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a swap that fails because a virus scanner looks at model.py for a moment."""
    tries = []
    real = os.replace

    def held(source: Path, target: Path) -> None:
        tries.append(source)
        if len(tries) < 3:
            raise PermissionError(13, "in use")
        real(source, target)

    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    monkeypatch.setattr(files.os, "replace", held)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    with pytest.raises(PermissionError):
        files.replace(tmp_path / "a", tmp_path / "b")
    tries.clear()
    monkeypatch.setattr(files, "WINDOWS", True)
    files.replace(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"new"


def test_an_old_console_writes_lines_over(monkeypatch: pytest.MonkeyPatch):
    """Catches `gpt2 train` filling a Windows console with `←[K`, or running commands elsewhere."""
    from gpt2.commands import train

    ran: list[str] = []
    monkeypatch.setattr(train.os, "system", ran.append)
    monkeypatch.setattr(train.sys.stdout, "isatty", lambda: True, raising=False)
    train.switch_escapes_on()
    assert ran == ([""] if os.name == "nt" else [])
    ran.clear()
    monkeypatch.setattr(train, "WINDOWS", True)
    train.switch_escapes_on()
    assert ran == [""]


# ── a system that has less ──────────────────────────────────────────────────────────────────────

# Python imports this before anything else, in every process that the commands start
LIKE_WINDOWS = """
import os, signal, sys
for name in ("fork", "forkpty", "getuid", "geteuid", "getloadavg"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGALRM", "setitimer", "ITIMER_REAL", "alarm", "SIGHUP", "SIGUSR1"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("termios", "tty", "pty", "resource", "pwd", "grp", "fcntl"):
    sys.modules[name] = None
"""


@pytest.fixture
def other_system(course: Path, tmp_path: Path) -> Path:
    """A course as a checkout with CRLF in every text, below a path that is not ASCII."""
    folder = tmp_path / "Mein Kurs ü ω"
    course.rename(folder)
    for path in folder.rglob("*"):
        if path.suffix in (".py", ".md", ".toml", ".txt") and path.is_file():
            path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    shutil.copytree(ROOT / "src" / "gpt2" / "bundled", folder / "src" / "gpt2" / "bundled")
    (folder / "src" / "sitecustomize.py").write_text(LIKE_WINDOWS, encoding="utf-8")
    return folder


def there(folder: Path, module: str, *words: str) -> tuple[int, str]:
    """A command on that system, with an old console: (exit code, what it printed)."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *words],
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": str(folder / "src"),
            "PYTHONIOENCODING": "cp1252",
            "PYTHONUTF8": "0",
            "OMP_NUM_THREADS": "1",
            "LEARN_GPT2_LOAD_SECONDS": "2",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    text = done.stdout.decode("cp1252" if module != "gpt2" else "utf-8", "strict")
    assert "Traceback" not in text, f"{words}\n{text}"
    assert "UnicodeEncodeError" not in text, f"{words}\n{text}"
    return done.returncode, text


def test_a_learner_on_a_system_that_has_less(other_system: Path):
    """Catches a command that needs fork, SIGALRM, termios, a UTF-8 console or "\\n" line ends."""
    problem = manifest.get(3)
    path = problem.problem_path(other_system)
    code, text = there(other_system, "learn_gpt2", "status")
    assert (code, text.count("untouched")) == (0, 18)
    code, text = there(other_system, "learn_gpt2", "check", "3")
    assert code == 1
    assert "untouched" in text

    solution = problem.solution_path(other_system).read_bytes()
    wrong = solution.replace(b" * self.scale", b"")
    path.write_bytes(wrong.rstrip() + b"\r\n")
    code, text = there(other_system, "learn_gpt2", "check", "3")
    assert code == 1
    assert "[no-scale]" in text
    assert there(other_system, "learn_gpt2", "hint", "3")[0] == 0
    assert there(other_system, "learn_gpt2", "explain", "3")[0] == 0
    code, text = there(other_system, "pytest", "problems/03-scaled-dot-product")
    assert code == 1
    assert "[no-scale]" in text

    path.write_bytes(
        solution.replace(b"    def forward", b"    while True: pass\r\n\r\n    def forward")
    )
    code, text = there(other_system, "learn_gpt2", "check", "3")
    assert code == 1
    assert "was still running" in text

    path.write_bytes(solution)
    code, text = there(other_system, "learn_gpt2", "check", "3", "--swap")
    assert code == 0, text
    assert "swapped" in text
    assert there(other_system, "learn_gpt2", "solution", "3")[0] == 0
    code, text = there(other_system, "gpt2", "generate", "--prompt", "Ω", "--max-new-tokens", "3")
    assert code == 1
    assert "has no token for 'Ω'" in text
    assert (
        there(other_system, "gpt2", "generate", "--prompt", "To", "--max-new-tokens", "3")[0] == 0
    )
    for words in (["next"], ["swap"], ["swap", "--undo"], ["grade", "--print-protections"]):
        code, text = there(other_system, "learn_gpt2", *words)
        assert code == 0, text
    there(other_system, "learn_gpt2", "doctor")
    assert there(other_system, "learn_gpt2", "reset", "3", "--yes")[0] == 0
    assert there(other_system, "learn_gpt2", "undo")[0] == 0
    assert path.read_bytes() == solution


def test_a_course_can_be_made_there(other_system: Path, tmp_path: Path):
    """Catches a fresh course that is half CRLF, or a Unicode name that `learn init` can't print."""
    outside = tmp_path / "draußen ω"
    outside.mkdir()
    (other_system / "conftest.py").touch()
    code, text = there(other_system, "learn_gpt2", "init", str(outside / "neu"))
    assert code == 0, text
    assert courses.was_made(outside / "neu")
