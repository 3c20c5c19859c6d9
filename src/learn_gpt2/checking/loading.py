"""Load a learner's file (or the reference) as a piece that checks can examine.

The file is untrusted: it may not parse, may loop, may exit. Whatever is wrong with it becomes one
`PieceError`, whose message names the file, the line and what to do.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import io
import linecache
import os
import re
import sys
import tokenize
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from learn_gpt2.checking.headers import placed_in
from learn_gpt2.checking.limits import TimeLimit, time_limit
from learn_gpt2.manifest import (
    MODEL_FILE,
    MODULE_PROBLEMS,
    PROBLEMS,
    Problem,
    course_around,
    module_problem,
    prerequisites,
    reference_name,
)

LOAD_SECONDS = float(os.environ.get("LEARN_GPT2_LOAD_SECONDS", 20))
# where an answer must not come from
FOREIGN = ("transformers", "solutions", "learn_gpt2", "peft")
# what of gpt2 lies below the seven files, so that a piece may import it
BELOW = ("common", "text", "formats")
# a file of part two that part one is given
GIVEN_TO_PART_ONE = "cache.py"
Modules = Mapping[str, types.ModuleType]  # by the name that they are imported by


# kinds of PieceError after which nothing of the file has run
UNLOADABLE = frozenset(
    (
        *("file-missing", "file-too-large", "not-utf8", "syntax-error", "import-error"),
        *("import-loops", "borrowed-answer", "broken-model", "not-loadable", "missing-name"),
        *("no-class", "no-function"),
    )
)


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
    examined_as = None  # a piece in a worker, loaded again for each check: what stays the same

    def __getattr__(self, name: str):
        try:
            return getattr(self.__dict__["module"], name)
        except AttributeError:
            raise PieceError(missing_name(self, name), "missing-name") from None

    @property
    def digest(self) -> str:
        """First seven digits of the source's SHA-256."""
        return digest(self.source)


def execute(text: str, name: str, module: types.ModuleType) -> None:
    """Run a source that lies in no file (of this content) in a module. Its lines can be looked up,
    as torch.jit.script and tracebacks do.
    """
    filename = f"<{name}, {digest(text)}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    exec(compile(text, filename, "exec", dont_inherit=True), module.__dict__)


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
    kind, code = _kind(piece.problem, name)
    return (
        f"{shown(piece.path)} has no {kind} {name}; {has}.\n"
        f"The name is fixed: what builds on it looks for `{code}`."
    )


def _kind(problem: Problem, name: str) -> tuple[str, str]:
    """("function", "def sample"): what a provided name is, and how its definition begins."""
    if name in problem.classes or name not in problem.names:
        return "class", f"class {name}"
    return ("constant", f"{name} = …") if name.isupper() else ("function", f"def {name}")


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
        raise PieceError(not_there(path), "file-missing") from None
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


def not_there(path: Path) -> str:
    """What to say of a file that is missing: its folder may have been renamed."""
    folder = path.parent
    if folder.is_dir():
        back = ""
        if path.name == "problem.py":
            back = f" `learn reset {folder.name[:2]}` brings the skeleton back."
        return f"{shown(path)} is not there.{back}"
    text = f"The folder {shown(path).rpartition('/')[0]} is not there."
    if other := renamed(folder):
        return f"{text} Was it renamed? There is {other}: give it its name back."
    return f"{text} `learn doctor` says how to get it back."


def renamed(folder: Path) -> str:
    """The name of the one folder beside a missing one that has its number; "" when none has."""
    beside = folder.parent.glob(f"{folder.name[:2]}*") if folder.parent.is_dir() else ()
    found = [p.name for p in beside if p.is_dir() and p.name != folder.name]
    return found[0] if len(found) == 1 else ""


def parse(source: str, path: Path) -> ast.Module:
    """The file's syntax tree. PieceError that names line and column when it does not parse."""
    try:
        return ast.parse(source, filename=str(path))
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise PieceError(
            f"{shown(path)}:{error.lineno}: Python can't read this line: {error.msg}.\n    {line}"
            + _how_to_mend(error, line),
            "syntax-error",
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise PieceError(f"{shown(path)} can't be parsed: {error}.", "syntax-error") from None


def _how_to_mend(error: SyntaxError, line: str) -> str:
    """A sentence on what usually lies behind a syntax error, where that is known."""
    if line.startswith(("<<<<<<<", "=======", ">>>>>>>", "|||||||")):
        return (
            "\nGit leaves such a mark where two versions of the file did not fit together: keep "
            "the lines of one, and delete the marks."
        )
    if isinstance(error, TabError):
        return "\nLet your editor turn all tabs into spaces; the skeleton has four per level."
    if isinstance(error, IndentationError):
        return "\nLines of one block begin in the same column: compare with the lines above."
    return ""


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


def owned_names(problem: Problem, module: str = MODEL_FILE) -> dict[str, Problem]:
    """Names in a file of gpt2 that this problem's file must not take from there → whose they are.
    They are its own and those of later problems; part one is given the cache.
    """
    names: dict[str, Problem] = {}
    if problem.in_model and module != MODEL_FILE:
        return names
    for later in PROBLEMS[problem.number - 1 :]:
        if later.module != module:
            continue
        for name in later.provides:
            if "." not in name:
                names[name] = later
            elif later.number == 10 and problem.number <= 10:
                names[name.split(".")[0]] = later
    return names


def imported_modules(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Every import of a file: its node, and the module's name. `from gpt2 import x` counts as
    `gpt2.x`, and a relative import keeps its dots.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module == "gpt2":
                for alias in node.names:
                    yield node, f"gpt2.{alias.name}"
            else:
                yield node, module


def stands_above(problem: Problem, module: str) -> bool:
    """Whether a module of gpt2 is built on the file that a problem of part two writes, or is that
    file, so that the file can't import it.
    """
    package, _, inner = module.partition(".")
    first = inner.split(".")[0]
    if package != "gpt2" or not first or first in BELOW:
        return False
    owner = next((p for p in PROBLEMS if first in (p.module.removesuffix(".py"), *p.names)), None)
    return owner is None or owner.number >= problem.number


def refuse_borrowed_answers(tree: ast.Module, problem: Problem, path: Path) -> None:
    """PieceError when the file takes its answer from elsewhere instead of writing it."""
    owned = {name: owned_names(problem, file) for name, file in _files().items()}
    methods = {name.split(".")[1] for name in problem.provides if "." in name}
    known: dict[str, str] = {}  # names by which this file knows a module → that module
    base_names: set[str] = set()  # names by which it knows the given GPT2Model
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
            for alias in node.names:
                if alias.name in owned:
                    known[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
            if node.module == "gpt2":
                for alias in node.names:
                    if (name := f"gpt2.{alias.name}") in owned:
                        known[alias.asname or alias.name] = name
                    for theirs in (n for n in owned if n != "gpt2.model" and not problem.in_model):
                        if alias.name in owned[theirs]:
                            _refuse(path, node.lineno, alias.name, theirs, owned[theirs], problem)
            if node.module == "gpt2.model":
                base_names |= {a.asname or a.name for a in node.names if a.name == "GPT2Model"}
            for alias in node.names if node.module in owned else ():
                theirs = owned[node.module]
                if alias.name in theirs:
                    _refuse(path, node.lineno, alias.name, node.module, theirs, problem)
                if alias.name == "*" and node.module == problem.import_name != "gpt2.model":
                    first = problem.names[0]
                    _refuse(path, node.lineno, first, node.module, theirs, problem)
        for module in modules:
            if module.split(".")[0] in _foreign(problem):
                raise PieceError(
                    f"{shown(path)}:{node.lineno} imports {module}. This piece is yours to write: "
                    f"torch and {_earlier_pieces(problem)} are all it needs.",
                    "borrowed-answer",
                )
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        base = ast.unparse(node.value)
        if base in known and node.attr in owned[known[base]]:
            name = known[base]
            _refuse(path, node.lineno, node.attr, name, owned[name], problem)
        model_names = {name for name, module in known.items() if module == "gpt2.model"}
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
    if not problem.in_model:
        _refuse_what_is_built_on_it(tree, problem, path)


def _refuse_what_is_built_on_it(tree: ast.Module, problem: Problem, path: Path) -> None:
    """PieceError when a file of part two imports a part of gpt2 that stands above it."""
    for node, module in imported_modules(tree):
        if module.split(".")[0] == "gpt2" and stands_above(problem, module):
            raise PieceError(
                f"{shown(path)}:{node.lineno} imports {module}, which is built on this piece or "
                f"comes after it: torch and {_earlier_pieces(problem)} are all it needs.",
                "borrowed-answer",
            )


def _earlier_pieces(problem: Problem) -> str:
    return "gpt2.model's earlier pieces" if problem.in_model else "gpt2's earlier pieces"


@functools.cache
def _files() -> dict[str, str]:
    """The name that each of the seven files is imported by → the file."""
    return {problem.import_name: problem.module for problem in PROBLEMS}


def _foreign(problem: Problem) -> tuple[str, ...]:
    """Packages that the file must not import. Loading weights through transformers, as most
    textbooks do, is a right answer to problem 12; its class is not, and `_check_names` sees that.
    """
    return tuple(name for name in FOREIGN if (problem.number, name) != (12, "transformers"))


def _import_transformers(tree: ast.Module) -> None:
    """Import what a file that loads through transformers needs, before its time is counted: that
    takes seconds, and on a busy machine more than a check may take.
    """
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    if "transformers" in names:
        with contextlib.suppress(ImportError):  # the file's own import tells
            importlib.import_module("transformers.models.gpt2.modeling_gpt2")


def _refuse(
    path: Path, line: int, name: str, module: str, owners: Mapping[str, Problem], problem: Problem
) -> None:
    owner = owners[name]
    if owner.number == problem.number:
        text = f"takes {name} from {module}. That is the piece this problem asks you to write."
    else:
        text = (
            f"takes {name} from {module}, which problem {owner.number:02d} provides: it comes "
            f"after this one, and builds on it."
        )
    raise PieceError(f"{shown(path)}:{line} {text}", "borrowed-answer")


@contextmanager
def model_for(problem: Problem, base: Modules | None = None) -> Iterator[None]:
    """While the block runs, the seven files of `gpt2` hold what comes before `problem`, and no
    more.

    Its own answer is not there to be found: names of this and later problems are missing, and in
    problems 11 and 12 GPT2Model has its methods of those problems blanked. base: the files that the
    earlier pieces are taken from, see `reference_modules`; default: the course's own. PieceError
    when one of those is broken.
    """
    views: dict[str, types.ModuleType] = dict(base or {})
    model = views.get("gpt2.model") or the_model()
    if problem.in_model:
        views["gpt2.model"] = _view(model, problem, MODEL_FILE)
        if problem.number > 10:
            views["gpt2.model"].GPT2Model = _blanked(model.GPT2Model, problem)
        if base is None and (given := given_cache()) is not None:
            views["gpt2.cache"] = given
    else:
        for earlier in prerequisites(problem) if base is None else ():
            the_model(earlier.import_name)  # PieceError says that it is broken
        for later in MODULE_PROBLEMS:
            if later.number >= problem.number:
                empty = types.ModuleType(later.import_name)
                views[later.import_name] = _view(empty, problem, later.module)
    with in_place_of(views):
        yield


@contextmanager
def in_place_of(views: Modules) -> Iterator[None]:
    """While the block runs, importing these names gives these modules."""
    import gpt2

    nothing = object()
    inner = {name: name.removeprefix("gpt2.") for name in views}
    before = {
        name: (sys.modules.get(name), gpt2.__dict__.get(inner[name], nothing)) for name in views
    }
    try:
        for name, view in views.items():
            sys.modules[name] = view
            setattr(gpt2, inner[name], view)
        yield
    finally:
        for name, (module, attribute) in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
            if attribute is nothing:
                gpt2.__dict__.pop(inner[name], None)
            else:
                setattr(gpt2, inner[name], attribute)


def _view(module: types.ModuleType, problem: Problem, file: str) -> types.ModuleType:
    """A module without the names that a problem's file must not take from there."""
    owned = owned_names(problem, file)
    view = types.ModuleType(module.__name__, module.__doc__)
    view.__dict__.update({k: v for k, v in module.__dict__.items() if k not in owned})

    def missing(name: str):
        if name in owned:
            raise ImportError(
                f"{name} is provided by problem {owned[name].number:02d} and is not there yet for "
                f"problem {problem.number:02d}"
            )
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    view.__getattr__ = missing
    return view


def given_cache() -> types.ModuleType | None:
    """The reference's `gpt2.cache`, which part one is given, where a learner's stands in the file:
    a later piece decides nothing about an earlier one. None where the file's own is the one.
    """
    import gpt2

    path = Path(gpt2.__file__).with_name(GIVEN_TO_PART_ONE)
    try:
        stat = path.stat()
    except OSError:
        return None
    return _given_in_place_of(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1)
def _given_in_place_of(path: Path, changed: int, size: int) -> types.ModuleType | None:
    """As given_cache; read once for each state of the file, since a check may be under watch."""
    problem = module_problem(path.name)
    try:
        stands = placed_in(path, (problem,)).get(problem.number)
        root = course_around(path.parent)
        if stands is None or stands.owner == "reference" or root is None:
            return None
        return _reference_file(problem, problem.solution_path(root))
    except (OSError, ValueError, PieceError):
        return None


def the_model(name: str = "gpt2.model") -> types.ModuleType:
    """`gpt2.model`, or another of the seven files. PieceError that says what is wrong with the file
    when it can't be imported.
    """
    import gpt2

    try:
        return importlib.import_module(name)
    except Exception as error:
        path = Path(gpt2.__file__).with_name(f"{name.removeprefix('gpt2.')}.py")
        raise PieceError(broken_model(error, path), "broken-model") from error


def broken_model(error: BaseException, path: Path) -> str:
    """Why a file of src/gpt2/ can't be imported, and what to do."""
    name = f"src/gpt2/{path.name}"
    back = (
        "`learn swap --undo` brings the last one back, and `learn swap --reference "
        f"{reference_name(path.name)}` writes the reference's."
    )
    if not path.is_file():
        return f"{name} is not there. {back}"
    if isinstance(error, SyntaxError):
        where = f":{error.lineno}" if error.lineno else ""
        return f"{name}{where} cannot be read as Python: {error.msg}. {back}"
    line, _ = line_in(error, path)
    where = f":{line}" if line else ""
    what = f"{type(error).__name__}: {error}"
    return f"{name}{where} can't be imported: {what}. {back}"


def reference_modules(root: Path, problem: Problem) -> dict[str, types.ModuleType]:
    """The files of `gpt2` with the reference's pieces, up to the problem before this one."""
    model = types.ModuleType("gpt2.model")
    found = {model.__name__: model}
    earlier = PROBLEMS[: problem.number - 1]
    with in_place_of(found):
        for one in earlier:
            if not one.in_model:
                continue
            module = _reference_file(one, one.solution_path(root))
            for name in one.names:
                setattr(model, name, getattr(module, name))
    for one in earlier:
        if not one.in_model:
            with in_place_of(found):
                found[one.import_name] = _reference_file(one, one.solution_path(root))
    if problem.in_model:
        cache = module_problem(GIVEN_TO_PART_ONE)
        with contextlib.suppress(PieceError):
            found[cache.import_name] = _reference_file(cache, cache.solution_path(root))
    return found


def _reference_file(problem: Problem, path: Path) -> types.ModuleType:
    """A solution, run in a module of its own."""
    source = read_source(path)
    module = types.ModuleType(f"reference_{problem.number:02d}_{digest(source)}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    return module


def _blanked(model: type, problem: Problem) -> type:
    """GPT2Model as it is before `problem`: its methods of this and later problems do nothing."""
    body: dict[str, object] = {"__module__": "gpt2.model", "__qualname__": "GPT2Model"}
    if problem.number <= 11:
        body["_init_weights"] = lambda self, module: None

    def yours(*args, **kwargs):
        raise NotImplementedError("problem 12 writes this method")

    if problem.number > 11:
        from gpt2.formats.parameters import put_embeddings_first

        def init(self, *args, **kwargs):
            model.__init__(self, *args, **kwargs)
            put_embeddings_first(self)  # whichever problem 10 makes first, as the product does

        body["__init__"] = init
    body["_build_weight_mapping"] = staticmethod(yours)
    body["from_pretrained"] = classmethod(yours)
    return type("GPT2Model", (model,), body)


def load(problem: Problem, path: Path, whose: str = "yours", base: Modules | None = None) -> Piece:
    """Run the file in a fresh module. PieceError when that can't be done or a name is missing.

    base: the files that it finds the earlier pieces in, see `model_for`.
    """
    source = read_source(path)
    tree = parse(source, path)
    if whose == "yours":
        refuse_borrowed_answers(tree, problem, path)
    module = types.ModuleType(f"piece_{problem.number:02d}_{digest(source)}")
    module.__file__ = str(path)
    if problem.number == 12:
        _import_transformers(tree)
    # dataclasses and pickle look a class's module up by name
    sys.modules[module.__name__] = module
    piece = Piece(problem, path, whose, source, module, open_todos(tree))
    try:
        with model_for(problem, base), time_limit(LOAD_SECONDS):
            exec(compile(tree, str(path), "exec", dont_inherit=True), module.__dict__)
    except TimeLimit:
        raise loops(path, LOAD_SECONDS) from None
    except (KeyboardInterrupt, PieceError):
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
    """PieceError when a name that the problem provides is missing, is of another kind or was
    borrowed.
    """
    for provided in piece.problem.provides:
        name, _, method = provided.partition(".")
        found = getattr(piece, name)  # PieceError when missing
        kind, _ = _kind(piece.problem, name)
        if kind == "constant":
            continue
        if kind == "class" and not isinstance(found, type):
            raise PieceError(
                f"{shown(piece.path)}: {name} is a {type(found).__name__}, and must be a class.",
                "no-class",
            )
        if kind == "function" and not callable(found):
            raise PieceError(
                f"{shown(piece.path)}: {name} is a {type(found).__name__}, and must be a function.",
                "no-function",
            )
        if method:
            own = [c for c in found.__mro__ if c.__module__ == piece.module.__name__]
            if not any(method in c.__dict__ for c in own):
                near = [n for n in found.__dict__ if not n.startswith("__")]
                raise PieceError(
                    f"{shown(piece.path)}: class {name} has no method {method}"
                    + (f"; it has {', '.join(near)}." if near else "."),
                    "missing-name",
                )
        home = getattr(found, "__module__", None) or ""
        if piece.whose == "yours" and home.split(".")[0] in ("gpt2", *FOREIGN):
            raise PieceError(
                f"{shown(piece.path)}: {name} is {home}'s. That is the piece this problem "
                "asks you to write.",
                "borrowed-answer",
            )
