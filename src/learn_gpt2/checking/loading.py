"""Load a learner's file (or the reference) as a piece that checks can examine.

The file is untrusted: it may not parse, may loop, may exit. Whatever is wrong with it becomes one
`PieceError`, whose message names the file, the line and what to do.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import io
import os
import re
import sys
import tokenize
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from learn_gpt2.checking.limits import TimeLimit, time_limit
from learn_gpt2.manifest import PROBLEMS, Problem

LOAD_SECONDS = float(os.environ.get("LEARN_GPT2_LOAD_SECONDS", 20))
# where an answer must not come from
FOREIGN = ("transformers", "solutions", "learn_gpt2")


class PieceError(Exception):
    """The file can't be examined. The message is for the learner; `kind` is a short id."""

    def __init__(self, message: str, kind: str = "not-loadable"):
        super().__init__(message)
        self.kind = kind


@dataclass
class Piece:
    """A loaded file: `piece.Embeddings` is the class of that name in it."""

    problem: Problem
    path: Path
    whose: str  # "yours" or "REFERENCE"
    source: str
    module: types.ModuleType
    open_todos: dict[int, int] = field(default_factory=dict)  # TODO number → line of its raise
    torch_left = None  # a piece in a worker: a function that asks how it leaves torch there
    examined_as = None  # a piece in a worker, loaded anew for each check: what stays the same

    def __getattr__(self, name: str):
        try:
            return getattr(self.__dict__["module"], name)
        except AttributeError:
            raise PieceError(missing_name(self, name), "missing-name") from None

    @property
    def digest(self) -> str:
        """First seven digits of the source's SHA-256."""
        return digest(self.source)


def digest(source: str) -> str:
    """First seven digits of a source's SHA-256; line endings don't count."""
    return hashlib.sha256(source.replace("\r\n", "\n").encode()).hexdigest()[:7]


def missing_name(piece: Piece, name: str) -> str:
    """What to say when the file doesn't define `name`."""
    defined = [
        node.name
        for node in ast.parse(piece.source).body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    ]
    has = f"it defines {', '.join(defined)}" if defined else "it defines nothing"
    return (
        f"{shown(piece.path)} has no class {name}; {has}.\n"
        f"The name is fixed: what builds on it looks for `class {name}`."
    )


def shown(path: Path) -> str:
    """A path for a message: from the course's root when it is in the course, else as it is."""
    for folder in path.parents:
        if folder.name in ("problems", "solutions"):
            return path.relative_to(folder.parent).as_posix()
    return str(path)


def read_source(path: Path) -> str:
    """A Python file's text, in the encoding it declares. PieceError when it has none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        back = ""
        if path.name == "problem.py":
            back = f" `learn reset {path.parent.name[:2]}` brings the skeleton back."
        raise PieceError(f"{shown(path)} is not there.{back}", "file-missing") from None
    except OSError as error:
        raise PieceError(
            f"{shown(path)} can't be read: {error.strerror}.", "file-missing"
        ) from None
    if len(data) > 1_000_000:
        raise PieceError(
            f"{shown(path)} has {len(data):,} bytes; a piece has a few thousand. "
            "Is it the right file?",
            "file-too-large",
        )
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise PieceError(
            f"{shown(path)} is not UTF-8 text ({error}). Save it as UTF-8 in your editor.",
            "not-utf8",
        ) from None
    if "\0" in text:
        raise PieceError(f"{shown(path)} holds NUL bytes: it is not a text file.", "not-utf8")
    return text


def parse(source: str, path: Path) -> ast.Module:
    """The file's syntax tree. PieceError that names line and column when it does not parse."""
    try:
        return ast.parse(source, filename=str(path))
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise PieceError(
            f"{shown(path)}:{error.lineno}: Python can't read this line: {error.msg}.\n    {line}",
            "syntax-error",
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise PieceError(f"{shown(path)} can't be parsed: {error}.", "syntax-error") from None


def open_todos(tree: ast.Module) -> dict[int, int]:
    """TODO number → line, for every `raise NotImplementedError("TODO n: …")` still in the file."""
    found: dict[int, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            function, arguments = node.exc.func, node.exc.args
            if getattr(function, "id", "") == "NotImplementedError" and arguments:
                text = getattr(arguments[0], "value", None)
                match = re.match(r"TODO (\d+)", text) if isinstance(text, str) else None
                if match:
                    found.setdefault(int(match[1]), node.lineno)
    return found


def owned_names(problem: Problem) -> dict[str, Problem]:
    """Names in gpt2.model that this problem's file must not take from there → whose they are."""
    names: dict[str, Problem] = {}
    for later in PROBLEMS[problem.number - 1 :]:
        for name in later.provides:
            if "." not in name:
                names[name] = later
            elif later.number == 10 and problem.number <= 10:
                names[name.split(".")[0]] = later
    return names


def refuse_borrowed_answers(tree: ast.Module, problem: Problem, path: Path) -> None:
    """PieceError when the file takes its answer from elsewhere instead of writing it."""
    owned = owned_names(problem)
    methods = {name.split(".")[1] for name in problem.provides if "." in name}
    model_names: set[str] = set()  # names by which this file knows the module gpt2.model
    base_names: set[str] = set()  # names by which it knows the given GPT2Model
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
            for alias in node.names:
                if alias.name == "gpt2.model":
                    model_names.add(alias.asname or "gpt2.model")
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
            if node.module == "gpt2":
                model_names |= {a.asname or a.name for a in node.names if a.name == "model"}
            if node.module == "gpt2.model":
                base_names |= {a.asname or a.name for a in node.names if a.name == "GPT2Model"}
                for alias in node.names:
                    if alias.name in owned:
                        _refuse(path, node.lineno, alias.name, owned[alias.name], problem)
        for module in modules:
            if module.split(".")[0] in FOREIGN:
                raise PieceError(
                    f"{shown(path)}:{node.lineno} imports {module}. This piece is yours to write: "
                    "torch and gpt2.model's earlier pieces are all it needs.",
                    "borrowed-answer",
                )
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        base = ast.unparse(node.value)
        if base in model_names and node.attr in owned:
            _refuse(path, node.lineno, node.attr, owned[node.attr], problem)
        from_parent = base in base_names or base in {f"{name}.GPT2Model" for name in model_names}
        if (
            node.attr in methods
            and problem.number > 10
            and (from_parent or base.startswith("super("))
        ):
            raise PieceError(
                f"{shown(path)}:{node.lineno} hands {node.attr} over to the model that is already "
                f"there (`{base}.{node.attr}`).\n"
                "That method is what this problem asks you to write.",
                "borrowed-answer",
            )


def _refuse(path: Path, line: int, name: str, owner: Problem, problem: Problem) -> None:
    if owner.number == problem.number:
        text = f"takes {name} from gpt2.model. That is the piece this problem asks you to write."
    else:
        text = (
            f"takes {name} from gpt2.model, which problem {owner.number:02d} provides: it comes "
            f"after this one, and builds on it."
        )
    raise PieceError(f"{shown(path)}:{line} {text}", "borrowed-answer")


@contextmanager
def model_for(problem: Problem) -> Iterator[None]:
    """While the block runs, `gpt2.model` holds what comes before `problem`, and no more.

    Its own answer is not there to be found: names of this and later problems are missing, and in
    problems 11 and 12 GPT2Model has its methods of those problems blanked.
    """
    import gpt2

    real = importlib.import_module("gpt2.model")
    view = types.ModuleType("gpt2.model", real.__doc__)
    owned = owned_names(problem)
    view.__dict__.update({k: v for k, v in real.__dict__.items() if k not in owned})
    if problem.number > 10:
        view.GPT2Model = _blanked(real.GPT2Model, problem)

    def missing(name: str):
        if name in owned:
            raise ImportError(
                f"{name} is provided by problem {owned[name].number:02d} and is not there yet for "
                f"problem {problem.number:02d}"
            )
        raise AttributeError(f"module 'gpt2.model' has no attribute {name!r}")

    view.__getattr__ = missing
    sys.modules["gpt2.model"] = view
    gpt2.model = view
    try:
        yield
    finally:
        sys.modules["gpt2.model"] = real
        gpt2.model = real


def _blanked(model: type, problem: Problem) -> type:
    """GPT2Model as it is before `problem`: its methods of this and later problems do nothing."""
    body: dict[str, object] = {"__module__": "gpt2.model", "__qualname__": "GPT2Model"}
    if problem.number <= 11:
        body["_init_weights"] = lambda self, module: None

    def yours(*args, **kwargs):
        raise NotImplementedError("problem 12 writes this method")

    body["_build_weight_mapping"] = staticmethod(yours)
    body["from_pretrained"] = classmethod(yours)
    return type("GPT2Model", (model,), body)


def load(problem: Problem, path: Path, whose: str = "yours") -> Piece:
    """Run the file in a fresh module. PieceError when that can't be done or a name is missing."""
    source = read_source(path)
    tree = parse(source, path)
    if whose == "yours":
        refuse_borrowed_answers(tree, problem, path)
    module = types.ModuleType(f"piece_{problem.number:02d}_{digest(source)}")
    module.__file__ = str(path)
    # dataclasses and pickle look a class's module up by name
    sys.modules[module.__name__] = module
    piece = Piece(problem, path, whose, source, module, open_todos(tree))
    try:
        with model_for(problem), time_limit(LOAD_SECONDS):
            exec(compile(tree, str(path), "exec", dont_inherit=True), module.__dict__)
    except TimeLimit:
        raise loops(path, LOAD_SECONDS) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PieceError(import_failed(error, path), "import-error") from error
    _check_names(piece)
    return piece


def loops(path: Path, seconds: float) -> PieceError:
    """What to say when importing the file does not end."""
    return PieceError(
        f"{shown(path)} was still running after {seconds:.0f} s of being imported. "
        "Is there a loop outside the classes?",
        "import-loops",
    )


def import_failed(error: BaseException, path: Path) -> str:
    """What to say when importing the file raises."""
    line, code = line_in(error, path)
    where = f"{shown(path)}:{line}" if line else shown(path)
    if isinstance(error, SystemExit):
        return f"{where} ends the program (exit) while it is being imported. Take that line out."
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{where} imports {error.name!r}, which is not installed.\n    {code}\n"
            "If it is a file of yours: only the piece itself is read, so what it needs goes there."
        )
    return f"{where} can't be imported: {type(error).__name__}: {error}\n    {code}"


def line_in(error: BaseException, path: Path) -> tuple[int | None, str]:
    """The last line of `path` that the error passed through, and its text."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    if line is None:
        return None, ""
    try:
        return line, read_source(path).splitlines()[line - 1].strip()
    except (PieceError, IndexError):
        return line, ""


def _check_names(piece: Piece) -> None:
    """PieceError when a class or method that the problem provides is missing or was borrowed."""
    for provided in piece.problem.provides:
        class_name, _, method = provided.partition(".")
        cls = getattr(piece, class_name)  # PieceError when missing
        if not isinstance(cls, type):
            kind = type(cls).__name__
            raise PieceError(
                f"{shown(piece.path)}: {class_name} is a {kind}, and must be a class.", "no-class"
            )
        own = [c for c in cls.__mro__ if c.__module__ == piece.module.__name__]
        if method and not any(method in c.__dict__ for c in own):
            near = [name for name in cls.__dict__ if not name.startswith("__")]
            raise PieceError(
                f"{shown(piece.path)}: class {class_name} has no method {method}"
                + (f"; it has {', '.join(near)}." if near else "."),
                "missing-name",
            )
        home = cls.__module__ or ""
        if piece.whose == "yours" and home.split(".")[0] in ("gpt2", *FOREIGN):
            raise PieceError(
                f"{shown(piece.path)}: {class_name} is {home}'s. That is the piece this problem "
                "asks you to write.",
                "borrowed-answer",
            )
