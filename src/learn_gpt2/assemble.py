"""Sources of the twelve problems → the text of `src/gpt2/model.py`, and back.

Nothing here reads or writes a file of the course. A piece's text is carried over as it stands, cut
out and edited at the places that the syntax tree names; it is never printed anew from the tree.
What `gpt2.model` gives a piece (`from gpt2.model import LayerNorm as LN`) stands in the same file
afterwards, so those imports fall away and `LN` becomes `LayerNorm`.

A *section* is one problem's part of the model, below a ruled header that names its source. Problems
11 and 12 are sections inside the class of problem 10, unless their class does what only a subclass
can do; then it stays one, below problem 10's.
"""

from __future__ import annotations

import ast
import builtins
import codecs
import difflib
import io
import re
import sys
import tokenize
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from learn_gpt2.loading import digest
from learn_gpt2.manifest import PROBLEMS, Problem
from learn_gpt2.names import FUNCTIONS, Names, Scope, Use, binder

WIDTH = 100
MODEL = "GPT2Model"
BASE = 10  # the problem whose class problems 11 and 12 fill in
CLASSES = frozenset(name for problem in PROBLEMS for name in problem.classes)
METHODS = {
    problem.number: {name.partition(".")[2] for name in problem.provides if "." in name}
    for problem in PROBLEMS
}
CURRICULUM = ("learn_gpt2", "problems", "solutions")

DOCSTRING = '''"""GPT-2, bottom-up: from token ids to the logits of the next token.

Axes, in every shape comment: B batch, T new tokens in this call, S keys attended to (the T new ones
and those in the cache), C n_embd, H n_head, D head_dim = C // H, V vocab_size, P n_positions.

Assembled by `learn swap` from twelve files; each section's header names its own. Edit those, in
solutions/ or problems/, not this file: the next swap writes it anew.
"""
'''
HEADER = re.compile(
    r" *# ── (?P<number>\d\d) (?P<title>.+?) ── (?P<owner>reference|yours|file)"
    r"(?: (?P<digest>[0-9a-f]{7}))?: (?P<path>.+?):(?P<line>\d+)(?: ─+)?"
)
HELPERS = "helpers"  # title of a section with what problems 11 and 12 need outside the class


@dataclass(frozen=True)
class Source:
    """The text of one piece and where it comes from.

    owner: "reference", "yours" or "file" (any other file). path: as messages and headers show it.
    line: where the piece starts in its file; 0 for "find out".
    """

    number: int
    owner: str
    path: str
    text: str
    digest: str = ""
    line: int = 0

    @property
    def problem(self) -> Problem:
        """Whose piece it is."""
        return PROBLEMS[self.number - 1]


def read_source(number: int, owner: str, path: Path, shown: str) -> Source:
    """A file → Source, with "\\n" line ends and no byte-order mark.

    ValueError that names the file, and the line where there is one, when it is no Python text.
    """
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{shown}:1: the file is UTF-16; save it as UTF-8")
    if len(data) > 1_000_000:
        raise ValueError(f"{shown} has {len(data):,} bytes; a piece has a few thousand")
    encoding = "utf-8"
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _not_utf8(shown, data, error) from None
    except (SyntaxError, LookupError) as error:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as not_utf8:
            raise _not_utf8(shown, data, not_utf8) from None
        raise ValueError(f"{shown}:1: {error}; save it as UTF-8") from None
    fingerprint = digest(text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return Source(number, owner, shown, text.removeprefix("\ufeff"), fingerprint)


def _not_utf8(shown: str, data: bytes, error: UnicodeDecodeError) -> ValueError:
    line = data.count(b"\n", 0, error.start) + 1
    return ValueError(
        f"{shown}:{line}: byte 0x{data[error.start]:02x} is not {error.encoding}; "
        "save the file as UTF-8"
    )


@dataclass(frozen=True)
class _Import:
    """One name that a top-level import binds. `name` is None for `import module`."""

    local: str
    module: str
    name: str | None
    alias: str | None

    @property
    def origin(self) -> str:
        """What the name stands for, however it was imported."""
        if self.name is not None:
            return f"{self.module}.{self.name}"
        return self.module if self.alias else self.module.split(".")[0]

    def bound_to(self, local: str) -> _Import:
        """The same import under another name."""
        if self.name is None:
            return replace(self, local=local, alias=local)
        return replace(self, local=local, alias=None if local == self.name else local)


@dataclass
class _Reference:
    """A place that means the assembled class `target`: `LN`, `gpt2.model.LayerNorm`, `m.LayerNorm`.

    `attribute` is what is looked up on it, if anything.
    """

    target: str
    start: int
    end: int
    use: Use
    attribute: str | None


class _Statement:
    """A top-level statement, or a statement of a class body: what it binds, reads and changes."""

    def __init__(self, file: _File, node: ast.stmt):
        self.node = node
        self.start, self.end = file.names.start(node), file.names.end(node)
        self.first, self.last = file.names.line(self.start), node.end_lineno
        self.keep = False
        inside = [u for u in file.names.uses if self.start <= u.start < self.end]
        self.uses = [u for u in inside if u.home is file.names.module and u not in file.aliased]
        self.binds = {u.name for u in self.uses if u.stores and u.scope.kind == "module"}
        self.changes = set(_changed(node))


def _root(node: ast.AST) -> str | None:
    """`X` of `X.a[0].b`."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _changed(node: ast.AST) -> Iterable[str]:
    """Names whose objects a module-level statement changes: `X.a = 1`, `X.append(1)`, `X += 1`."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Lambda)):
        return
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete)):
        targets = node.targets if hasattr(node, "targets") else [node.target]
        for target in targets:
            if isinstance(target, (ast.Attribute, ast.Subscript)) and _root(target):
                yield _root(target)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        call = node.value
        if isinstance(call.func, ast.Attribute) and _root(call.func):
            yield "call " + _root(call.func)
        if isinstance(call.func, ast.Name) and call.func.id == "setattr" and call.args:
            yield _root(call.args[0]) or ""
    for child in ast.iter_child_nodes(node):
        yield from _changed(child)


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and any(
        isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
    )


def _parse(text: str, shown: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"{shown}:{error.lineno or 1}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"{shown}: Python can't parse it: {error or 'too deeply nested'}"
        ) from None


def _lines_in_strings(text: str) -> set[int]:
    """Lines whose beginning lies inside a string, so that their indentation is not ours."""
    found: set[int] = set()
    opened: list[int] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        name = tokenize.tok_name[token.type]
        if name == "STRING":
            found.update(range(token.start[0] + 1, token.end[0] + 1))
        elif name in ("FSTRING_START", "TSTRING_START"):
            opened.append(token.start[0])
        elif name in ("FSTRING_END", "TSTRING_END"):
            found.update(range(opened.pop() + 1, token.end[0] + 1))
    return found


def _without_tabs(text: str, shown: str) -> str:
    """Each tab of the indentation becomes four spaces, as everywhere else in the model."""
    if not re.search(r"^[ \t]*\t", text, re.M):
        return text
    inside = _lines_in_strings(text)
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if i + 1 not in inside:
            code = line.lstrip(" \t")
            lines[i] = line[: len(line) - len(code)].replace("\t", "    ") + code
    spaced = "\n".join(lines)
    if ast.dump(_parse(spaced, shown)) != ast.dump(_parse(text, shown)):
        raise ValueError(f"{shown}: tabs and spaces are mixed; indent with spaces alone")
    return spaced


class _File:
    """One source, parsed: what of it goes into the model, and the edits it needs there."""

    def __init__(self, source: Source):
        self.source = source
        self.number = source.number
        self.provides = set(source.problem.classes)
        _parse(source.text, source.path)
        self.text = _without_tabs(source.text, source.path)
        self.tree = _parse(self.text, source.path)
        try:
            self.names = Names(self.text, self.tree)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{source.path}: {error}") from None
        self.parents = {
            child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)
        }
        self.edits: list[tuple[int, int, str]] = []
        self.removed: list[tuple[int, int]] = []
        self.aliases: dict[tuple[Scope, str], str] = {}
        self.aliased: set[Use] = set()
        self.imports: dict[str, list[_Import]] = {}
        self.failures: list[tuple[int, str]] = []  # offset and message; they count where carried
        self._find_aliases()
        self.references = self._find_references()
        self.statements = [
            _Statement(self, node)
            for node in self.tree.body
            if not isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        self._find_imports()
        self.merged = False
        self.needed: set[str] = set()

    def fail(self, offset: int, message: str) -> ValueError:
        """The error for a place in this file."""
        return ValueError(f"{self.source.path}:{self.names.line(offset)}: {message}")

    # --- imports ---

    def _find_aliases(self) -> None:
        """Which names stand for `gpt2`, `gpt2.model` or one of its classes, in which scope."""
        stores = {use.node: use for use in self.names.uses if isinstance(use.node, ast.alias)}
        for statement in self.names.imports:
            node = statement.node
            here = self.names.start(node)
            if isinstance(node, ast.ImportFrom) and node.level:
                raise self.fail(here, "relative imports don't work in a problem's file")
            for alias in node.names:
                if alias.name == "*":
                    raise self.fail(
                        here, f"`from {node.module} import *` hides what is used; name it instead"
                    )
                meaning = _meaning(node, alias)
                module = alias.name if isinstance(node, ast.Import) else node.module
                if module.split(".")[0] in CURRICULUM:
                    self.failures.append(
                        (here, f"imports {module}; the model imports nothing of the curriculum")
                    )
                use = stores[alias]
                if meaning:
                    known = self.aliases.setdefault((use.home, use.name), meaning)
                    if known != meaning:
                        raise self.fail(here, f"{use.name} is imported as two different things")
                    self.aliased.add(use)

    def _find_references(self) -> list[_Reference]:
        """Every place that means something of `gpt2.model`; those that can't be carried fail."""
        references: list[_Reference] = []
        self.package_uses: list[Use] = []
        rebound = self._rebound()
        for use in self.names.uses:
            meaning = self.aliases.get((use.home, use.name))
            if meaning is None or use in self.aliased or not isinstance(use.node, ast.Name):
                continue
            if (use.home, use.name) in rebound:
                definition = rebound[use.home, use.name]
                if not use.eager or use.start >= definition:
                    continue
            self.aliased.add(use)
            node, path = use.node, meaning
            while path in ("gpt2", "gpt2.model"):
                parent = self.parents.get(node)
                if not isinstance(parent, ast.Attribute):
                    break
                if path == "gpt2" and parent.attr != "model":
                    break
                node, path = parent, f"{path}.{parent.attr}"
            if path == "gpt2":
                self.package_uses.append(use)
                continue
            target = path.removeprefix("gpt2.model").removeprefix(".")
            context = getattr(node, "ctx", None)
            if not target:
                message = f"uses the module {use.name} itself; write {use.name}.ClassName"
            elif target not in CLASSES:
                message = f"takes {target} from gpt2.model, which no problem provides"
            elif target in self.provides and not (target == MODEL and self.number > BASE):
                message = f"takes {target} from gpt2.model: that is what this problem provides"
            elif not isinstance(context, ast.Load):
                message = f"assigns to {ast.unparse(node)}, which belongs to another problem"
            else:
                parent = self.parents.get(node)
                attribute = parent.attr if isinstance(parent, ast.Attribute) else None
                end = self.names.end(node)
                references.append(_Reference(target, use.start, end, use, attribute))
                continue
            self.failures.append((use.start, message))
        return references

    def _rebound(self) -> dict[tuple[Scope, str], int]:
        """Names bound both to something of gpt2.model and by the file → where the second begins.

        That is right in one case: `from gpt2.model import GPT2Model`, `class GPT2Model(GPT2Model)`.
        """
        found: dict[tuple[Scope, str], int] = {}
        for use in self.names.uses:
            if use.stores and (use.home, use.name) in self.aliases and use not in self.aliased:
                defines = isinstance(use.node, ast.ClassDef) and use.node in self.tree.body
                if not defines or use.name != MODEL or (use.home, use.name) in found:
                    raise self.fail(
                        use.start, f"binds {use.name}, which it also takes from gpt2.model"
                    )
                found[use.home, use.name] = self.names.end(use.node)
        return found

    def _find_imports(self) -> None:
        """Top-level imports: each name by itself; those that the file binds again stay in place."""
        bound = {name for statement in self.statements for name in statement.binds}
        in_place: list[ast.stmt] = []
        for node in self.tree.body:
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            found = []
            for alias in node.names:
                if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                    continue
                local = alias.asname or alias.name.split(".")[0]
                if _meaning(node, alias) and not (
                    isinstance(node, ast.Import) and alias.name not in ("gpt2", "gpt2.model")
                ):
                    continue
                if isinstance(node, ast.Import):
                    found.append(_Import(local, alias.name, None, alias.asname))
                else:
                    found.append(_Import(local, node.module, alias.name, alias.asname))
            if any(i.local in bound or i.local in self.provides for i in found):
                in_place.append(node)
            else:
                for binding in found:
                    self.imports.setdefault(binding.local, []).append(binding)
        self.statements += [_Statement(self, node) for node in in_place]
        self.statements.sort(key=lambda statement: statement.start)

    # --- what goes along ---

    def statement_of_model(self) -> _Statement | None:
        """The one plain `class GPT2Model` of the file, if that is how it is bound."""
        binding = [s for s in self.statements if MODEL in s.binds]
        if len(binding) == 1 and isinstance(binding[0].node, ast.ClassDef):
            node = binding[0].node
            if node.body[0].lineno > node.lineno:
                return binding[0]
        return None

    def choose(self, start: set[str], without: Iterable[tuple[int, int]] = ()) -> None:
        """Keep the statements that bind the names in `start`, and all that those need."""
        without = list(without)
        needed = set(start)
        constants = {
            name
            for statement in self.statements
            for name in statement.binds
            if isinstance(statement.node, (ast.Assign, ast.AnnAssign))
        }
        growing = True
        while growing:
            growing = False
            for statement in self.statements:
                if statement.keep or _is_main_guard(statement.node):
                    continue
                calls = {f"call {name}" for name in needed & constants}
                if statement.binds & needed or statement.changes & (needed | calls):
                    statement.keep = growing = True
                    needed |= {
                        use.name
                        for use in statement.uses
                        if not any(a <= use.start < b for a, b in without)
                    }
                    needed |= _names_in_annotations(statement.node)
        self.needed = needed
        self.ranges = [(s.start, s.end) for s in self.statements if s.keep]

    def carried(self, start: int) -> bool:
        """Whether the place is in the part of the file that goes into the model."""
        return any(a <= start < b for a, b in self.ranges) and not any(
            a <= start < b for a, b in self.removed
        )

    # --- edits ---

    def drop_imports(self) -> None:
        """Imports of gpt2.model inside functions and blocks fall away."""
        for statement in self.names.imports:
            node, scope = statement.node, statement.scope
            gone = [alias for alias in node.names if _dropped(node, alias)]
            if not gone or not self.carried(self.names.start(node)):
                continue
            start, end = self.names.start(node), self.names.end(node)
            left = [alias for alias in node.names if alias not in gone]
            if left:
                names = ", ".join(a.name + (f" as {a.asname}" if a.asname else "") for a in left)
                origin = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
                self._replace(start, end, f"{origin}import {names}")
            elif scope.kind == "class" and _meaning(node, gone[0]).startswith("gpt2.model."):
                self._replace(
                    start,
                    end,
                    "; ".join(f"{alias.asname or alias.name} = {alias.name}" for alias in gone),
                )
            else:
                alone = len(statement.block) == 1
                line_start = self.names.starts[node.lineno - 1]
                line_end = self.names.starts[node.end_lineno]
                rest = self.text[end:line_end].strip()
                shared = self.text[line_start:start].strip() or (rest and rest[0] != "#")
                if alone or shared:
                    self._replace(start, end, "pass")
                else:
                    self._replace(line_start, line_end, "")

    def _replace(self, start: int, end: int, text: str) -> None:
        self.edits.append((start, end, text))
        self.removed.append((start, end))

    def point(self, reference: _Reference, target: str, fresh) -> None:
        """Write `target` where the reference stands; a local of that name moves out of its way."""
        scope = binder(target, reference.use)
        own = scope is not None and self.aliases.get((scope, target)) == f"gpt2.model.{target}"
        if scope is not None and not own:
            if scope.kind == "class" or target in scope.fixed:
                raise self.fail(
                    reference.start,
                    f"{target} of gpt2.model is hidden by a name of this function or class; "
                    f"call that one something other than {target}",
                )
            local = fresh(f"{target.lower()}_local")
            for use in self.names.uses:
                if use.home is scope and use.name == target:
                    self.edits.append((use.start, use.end, _renamed(use, local)))
            scope.bound[local] = scope.bound.pop(target)
        self.edits.append((reference.start, reference.end, target))

    def rename(self, old: str, new: str) -> None:
        """The module's name `old`, wherever the file means it."""
        for use in self.names.uses:
            if use.name == old and use.home is self.names.module and use not in self.aliased:
                if isinstance(use.node, ast.alias) and not use.node.asname and "." in use.node.name:
                    if self.carried(use.start):
                        raise self.fail(
                            use.start,
                            f"the name {old} is taken by another piece; import it `as` another",
                        )
                    continue
                self.edits.append((use.start, use.end, _renamed(use, new)))

    def cut(self, start: int, end: int) -> str:
        """text[start:end] with its edits."""
        parts, at = [], start
        edits = sorted({edit for edit in self.edits if start <= edit[0] and edit[1] <= end})
        for first, last, text in edits:
            if first < at:  # inside something that was replaced as a whole
                continue
            parts += [self.text[at:first], text]
            at = last
        return "".join(parts) + self.text[at:end]

    def line_span(self, first: int, last: int) -> tuple[int, int]:
        """Offsets of whole lines, from 1, without the last line's end."""
        return self.names.starts[first - 1], self.names.starts[last] - 1

    def trailing(self, node: ast.stmt) -> int:
        """Last line of a definition, with the indented comments that close it."""
        lines = self.text.split("\n")
        last = node.end_lineno
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            for i in range(last, len(lines)):
                if re.match(rf"\s{{{node.col_offset + 1},}}#", lines[i]):
                    last = i + 1
                elif lines[i].strip():
                    break
        return last

    def body(self, statements: list[_Statement]) -> str:
        """Some of the file's statements, with their comments, as they stand."""
        everything = [(node, self.names.line(self.names.start(node))) for node in self.tree.body]
        out, previous = "", None
        lines = self.text.split("\n")
        for statement in statements:
            index = next(i for i, (node, _) in enumerate(everything) if node is statement.node)
            before = everything[index - 1][0] if index else None
            after = everything[index + 1][1] if index + 1 < len(everything) else 0
            if (before is not None and before.end_lineno >= statement.first) or (
                after == statement.last
            ):  # shares its line with another statement
                piece, lead = self.cut(statement.start, statement.end), ""
            else:
                gap_first = self.trailing(before) + 1 if before is not None else 1
                gap = lines[gap_first - 1 : statement.first - 1]
                adjoining = previous is not None and previous.node is before
                introduced = before is None or _is_docstring(before) or before in self.import_nodes
                if not adjoining and not (introduced and before is not None):
                    blank = [i for i, line in enumerate(gap) if not line.strip()]
                    gap = gap[blank[-1] + 1 :] if blank else gap
                    if before is None:
                        gap = [g for g in gap if not re.match(r"#!|#.*coding[:=]", g)]
                lead = "\n".join(gap).strip("\n") if not adjoining else "\n".join(gap)
                lead += "\n" if gap and (lead or adjoining) else ""
                piece = self.cut(*self.line_span(statement.first, self.trailing(statement.node)))
                if adjoining:
                    out += "\n" + lead + piece
                    previous = statement
                    continue
            if previous is not None:
                large = (*FUNCTIONS, ast.ClassDef)
                wide = isinstance(statement.node, large) or isinstance(previous.node, large)
                out += "\n\n\n" if wide else "\n"
            out += lead + piece
            previous = statement
        return out.strip("\n")

    @property
    def import_nodes(self) -> list[ast.stmt]:
        """The file's top-level imports."""
        return [n for n in self.tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]


def _meaning(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    """What an import's name stands for: "gpt2", "gpt2.model", "gpt2.model.X", or "" for others."""
    if isinstance(node, ast.ImportFrom):
        if node.module == "gpt2.model":
            return f"gpt2.model.{alias.name}"
        return "gpt2.model" if (node.module, alias.name) == ("gpt2", "model") else ""
    if alias.asname:
        return alias.name if alias.name in ("gpt2", "gpt2.model") else ""
    return "gpt2" if alias.name.split(".")[0] == "gpt2" else ""


def _dropped(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> bool:
    """Whether an import's name falls away; `import gpt2.cache` stays."""
    meaning = _meaning(node, alias)
    return meaning.startswith("gpt2.model") or (meaning == "gpt2" and alias.name == "gpt2.model")


def _renamed(use: Use, new: str) -> str:
    if isinstance(use.node, ast.alias):
        return new if use.node.name == new else f"{use.node.name} as {new}"
    return new


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _names_in_annotations(node: ast.AST) -> set[str]:
    """Names in annotations that are written as strings, so that their imports go along."""
    found: set[str] = set()
    for part in ast.walk(node):
        for annotation in (getattr(part, "annotation", None), getattr(part, "returns", None)):
            for text in ast.walk(annotation) if annotation is not None else ():
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    try:
                        tree = ast.parse(text.value, mode="eval")
                    except (SyntaxError, ValueError):
                        continue
                    found |= {name.id for name in ast.walk(tree) if isinstance(name, ast.Name)}
    return found


# --- problems 11 and 12 inside the class of problem 10 ---


def _class_names(file: _File, node: ast.ClassDef) -> set[str]:
    """Names that a class body binds."""
    inside = [u for u in file.names.uses if u.stores and u.scope.kind == "class"]
    scopes = {
        u.scope
        for u in inside
        if node.lineno <= file.names.line(u.start) <= node.end_lineno
        and u.scope.parent is file.names.module
    }
    return {u.name for u in inside if u.scope in scopes}


def _content(node: ast.ClassDef) -> list[ast.stmt]:
    """A class body without its docstring."""
    return node.body[1:] if _is_docstring(node.body[0]) else node.body


def _needs_subclass(file: _File, given: set[str]) -> str | None:
    """Why a piece of problem 11 or 12 can't stand inside problem 10's class; None if it can.

    given: names that the class has already.
    """
    statement = file.statement_of_model()
    if statement is None:
        return "GPT2Model is not one plain class"
    node: ast.ClassDef = statement.node
    if node.decorator_list or node.keywords or len(node.bases) != 1:
        return "the class has decorators, keywords or several bases"
    base_start, base_end = file.names.start(node.bases[0]), file.names.end(node.bases[0])
    models = [r for r in file.references if r.target == MODEL]
    if not any((r.start, r.end) == (base_start, base_end) for r in models):
        return "its base is a class of its own"
    if any(MODEL in s.changes for s in file.statements):
        return "the class is changed after its definition"
    own = _class_names(file, node)
    others = set().union(*(METHODS[n] for n in range(BASE, 13) if n != file.number))
    if own & others:
        return "it overrides another problem's method"
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in ("super", "__class__"):
            call = file.parents.get(part)
            attribute = file.parents.get(call)
            plain = isinstance(call, ast.Call) and isinstance(attribute, ast.Attribute)
            if not plain or attribute.attr in own | given or attribute.attr == "__getattr__":
                return "super() means problem 10's class"
    for r in models:
        inside = base_end <= r.start < statement.end
        if inside and (r.use.eager or r.attribute in own):
            return "it uses the class that it extends while it is being defined"
    for helper in file.statements:
        above = helper.keep and helper.start < statement.start
        if above and any(r.use.eager and helper.start <= r.start < helper.end for r in models):
            return "a helper above the class uses the class that it extends"
    return None


def _rename_members(file: _File, node: ast.ClassDef, given: set[str], fresh) -> None:
    """A private method or constant whose name the class has already gets another one."""
    keep = set().union(*METHODS.values())
    for name in sorted(_class_names(file, node) & given - keep):
        private = name.startswith("_") and not name.endswith("__")
        if not private and not name.isupper():
            continue  # a public method of that name is meant to override
        new = fresh(f"{name}_{file.number:02d}")
        for part in ast.walk(node):
            is_member = isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name)
            if is_member and part.attr == name:
                end = file.names.end(part)
                file.edits.append((end - len(name), end, new))
        start, end = file.names.start(node), file.names.end(node)
        for use in file.names.uses:
            if use.name == name and start <= use.start < end and use.home.kind == "class":
                file.edits.append((use.start, use.end, _renamed(use, new)))


# --- the whole ---


def assemble(sources: Mapping[int, Source] | Iterable[Source]) -> str:
    """Twelve sources → the text of model.py.

    ValueError that names file and line for what does not parse or can't be carried.
    """
    values = sources.values() if isinstance(sources, Mapping) else sources
    by_number = {source.number: source for source in values}
    missing = [str(p.number) for p in PROBLEMS if p.number not in by_number]
    if missing:
        raise ValueError(f"no source for problem {', '.join(missing)}: the model needs all twelve")
    files = [_File(by_number[problem.number]) for problem in PROBLEMS]
    assembly = _Assembly(files)
    return assembly.text()


class _Assembly:
    """What the twelve files have in common: names taken, imports, the class of problem 10."""

    def __init__(self, files: list[_File]):
        self.files = files
        self.words = set(re.findall(r"\w+", "\n".join(file.text for file in files)))
        self.imports: dict[str, set[_Import]] = {}  # local name → the imports that bind it
        self.taken: set[str] = set(CLASSES) | set(dir(builtins)) | {"__name__", "__doc__"}
        self.dropped: list[tuple[int, int]] = []
        self._merge()
        for file in files:
            self._settle(file)

    def fresh(self, name: str) -> str:
        """`name`, or with a number behind it, such that no file uses it."""
        candidate, i = name, 2
        while candidate in self.words or candidate in self.taken:
            candidate, i = f"{name}_{i}", i + 1
        self.words.add(candidate)
        return candidate

    def _merge(self) -> None:
        """Decide where 11 and 12 go, then what each file carries."""
        base = self.files[BASE - 1]
        fillers = self.files[BASE:]
        statement = base.statement_of_model()
        given = _class_names(base, statement.node) if statement else set()
        mergeable = statement is not None
        for file in fillers:
            file.choose(file.provides)
            mergeable = mergeable and _needs_subclass(file, given - METHODS[file.number]) is None
            file.merged = mergeable
            if mergeable:
                node = file.statement_of_model().node
                own = _class_names(file, node)
                gone = METHODS[11] | METHODS[12]
                _rename_members(file, node, given - gone, self.fresh)
                given |= own
                missing = METHODS[file.number] - own
                if missing:
                    raise ValueError(
                        f"{file.source.path}:{node.lineno}: {MODEL} has no "
                        f"{' and no '.join(sorted(missing))}, which problem {file.number} provides"
                    )
                for s in file.statements:
                    s.keep = False
                start, end = base_of(file, node)
                header = [(start, end)]
                if _is_docstring(node.body[0]):
                    doc = node.body[0]
                    header.append((file.names.start(doc), file.names.end(doc)))
                file.choose(file.provides, header)
        if statement:
            for node in _content(statement.node):
                for file in fillers:
                    if (
                        file.merged
                        and isinstance(node, FUNCTIONS)
                        and node.name in METHODS[file.number]
                    ):
                        self.dropped.append(self._with_comments(base, statement.node, node))
        for file in self.files[:BASE]:
            file.choose(file.provides, self.dropped if file is base else ())
        base.removed += self.dropped
        base.edits += [(a, b, "") for a, b in self.dropped]

    @staticmethod
    def _with_comments(file: _File, outer: ast.ClassDef, node: ast.stmt) -> tuple[int, int]:
        """Span of a method to leave out, with the blank lines and comments above it."""
        i = outer.body.index(node)
        first = (
            file.trailing(outer.body[i - 1]) + 1 if i else file.names.line(file.names.start(node))
        )
        last = file.trailing(node)
        return file.names.starts[first - 1], file.names.starts[last]

    def _settle(self, file: _File) -> None:
        """Names of one file, against those before it."""
        for offset, message in file.failures:
            top_import = any(file.names.start(n) == offset for n in file.import_nodes)
            locals_ = {
                (a.asname or a.name.split(".")[0])
                for n in file.import_nodes
                if file.names.start(n) == offset
                for a in n.names
            }
            if file.carried(offset) or (top_import and locals_ & file.needed):
                raise file.fail(offset, message)
        bound = {name for s in file.statements if s.keep for name in s.binds}
        for name in sorted(file.provides - bound):
            defined = sorted(n for s in file.statements for n in s.binds)
            near = difflib.get_close_matches(name, defined, 1, 0.5)
            hint = f"; is it {near[0]}?" if near else ""
            raise ValueError(
                f"{file.source.path}: no class {name}, which problem {file.number} provides{hint}"
            )
        file.drop_imports()
        renamed: dict[str, str] = {}
        for name in sorted(bound - file.provides):
            if name in self.taken:
                renamed[name] = self.fresh(f"{name}_{file.number:02d}")
                file.rename(name, renamed[name])
            self.taken.add(renamed.get(name, name))
        self._settle_imports(file, bound)
        file.before = ""
        target = MODEL
        models = [r for r in file.references if r.target == MODEL and file.carried(r.start)]
        if file.number > BASE and not file.merged and models:
            target = self.fresh(f"_{MODEL}_{file.number - 1}")
            self.taken.add(target)
            file.before = f"{target} = {MODEL}\n\n\n"
        if file.number > BASE and not file.merged:
            self._plain_super(file)
        for reference in file.references:
            if file.carried(reference.start):
                new = target if reference.target == MODEL else reference.target
                file.point(reference, new, self.fresh)

    @staticmethod
    def _plain_super(file: _File) -> None:
        """super(GPT2Model, self) → super(): the name will mean the last of the classes."""
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                first = node.args[0]
                if node.func.id == "super" and isinstance(first, ast.Name) and first.id == MODEL:
                    file.edits.append((file.names.start(node), file.names.end(node), "super()"))

    def _settle_imports(self, file: _File, bound: set[str]) -> None:
        for local, bindings in file.imports.items():
            if local not in file.needed or local in bound:
                continue
            origins = {binding.origin for binding in bindings}
            if len(origins) > 1:
                raise ValueError(
                    f"{file.source.path}: imports {local} as {' and as '.join(sorted(origins))}"
                )
            if local == "gpt2" and not any(file.carried(u.start) for u in file.package_uses):
                continue
            origin = origins.pop()
            known = self.imports.get(local)
            if known is None and local not in self.taken:
                self.imports[local] = set()
                self.taken.add(local)
                known = self.imports[local]
            if known is not None and (not known or next(iter(known)).origin == origin):
                self._add(known, bindings)
                continue
            same = [n for n, k in self.imports.items() if next(iter(k)).origin == origin]
            new = same[0] if same else self.fresh(f"{local}_{file.number:02d}")
            if any(b.name is None and not b.alias and "." in b.module for b in bindings):
                raise ValueError(
                    f"{file.source.path}: the name {local} is taken by another piece; "
                    f"import {bindings[0].module} `as` another"
                )
            file.rename(local, new)
            self.taken.add(new)
            if not same:
                self.imports[new] = {bindings[0].bound_to(new)}

    @staticmethod
    def _add(known: set[_Import], bindings: list[_Import]) -> None:
        """The first way to import something is kept; `import a.b` and `import a` add up."""
        for binding in bindings:
            dotted = binding.name is None and not binding.alias
            if not known or dotted:
                known.add(binding)

    # --- text ---

    def text(self) -> str:
        """The whole file."""
        sections: list[str] = []
        merged = [file for file in self.files[BASE:] if file.merged]
        for file in self.files:
            kept = [s for s in file.statements if s.keep]
            if file.merged:
                continue
            if file.number != BASE or not merged:
                sections.append(self._section(file, kept))
                continue
            at = kept.index(file.statement_of_model()) + 1
            inside = [self._inside(filler) for filler in merged]
            sections += [self._helpers(filler, above=True) for filler in merged]
            sections.append("\n\n".join([self._section(file, kept[:at]), *inside]))
            sections.append(self._section(file, kept[at:], HELPERS))
            sections += [self._helpers(filler, above=False) for filler in merged]
        future = "from __future__ import annotations\n\n"
        lazy = any(file.names.lazy_annotations for file in self.files)
        imports = _import_block({i for group in self.imports.values() for i in group})
        head = DOCSTRING + "\n" + (future if lazy else "") + imports
        text = head + "\n" + "\n\n\n".join(section for section in sections if section) + "\n"
        try:
            _parse(text, "the assembled model.py")
        except ValueError as error:
            raise ValueError(
                f"{error}; this is a fault of `learn swap`, please report it"
            ) from None
        return text

    def _section(self, file: _File, statements: list[_Statement], title: str | None = None) -> str:
        """Header and text of some statements; "" for none."""
        if not statements:
            return ""
        header = section_header(file.source, file.names.line(statements[0].start), title=title)
        body = ("" if title else file.before) + file.body(statements)
        definition = re.match(r"(class|def|async)\b|[@#]", body)
        return header + ("\n\n\n" if definition else "\n\n") + body

    def _helpers(self, file: _File, above: bool) -> str:
        """What problem 11 or 12 needs outside the class, above or below it."""
        model = file.statement_of_model()
        kept = [s for s in file.statements if s.keep and s is not model]
        return self._section(file, [s for s in kept if (s.start < model.start) == above], HELPERS)

    def _inside(self, file: _File) -> str:
        """Header and methods of problem 11 or 12, indented as problem 10's class is."""
        base = self.files[BASE - 1].statement_of_model().node
        node = file.statement_of_model().node
        content = _content(node)
        first = file.names.line(file.names.start(content[0]))
        last = file.trailing(node)
        if content[0] is not node.body[0]:
            start_line = node.body[0].end_lineno + 1
        else:
            start_line = file.names.line(file.names.end(node.bases[0])) + 1
            while ":" in self._line(file, start_line - 1) and start_line > first:
                start_line -= 1
        lines = range(start_line, last + 1)
        shift = base.body[0].col_offset - content[0].col_offset
        if shift:
            within = _lines_in_strings(file.text)
            for number in lines:
                at = file.names.starts[number - 1]
                row = self._line(file, number)
                if number not in within and row.strip():
                    spare = len(row) - len(row.lstrip(" "))
                    cut = min(spare, max(0, -shift))
                    file.edits.append((at, at + cut, " " * max(0, shift)))
        body = file.cut(*file.line_span(start_line, last)).strip("\n")
        indent = " " * base.body[0].col_offset
        return section_header(file.source, first, indent) + "\n\n" + body

    @staticmethod
    def _line(file: _File, number: int) -> str:
        start, end = file.line_span(number, number)
        return file.text[start:end]


def base_of(file: _File, node: ast.ClassDef) -> tuple[int, int]:
    """Span of a class's bases."""
    return file.names.start(node.bases[0]), file.names.end(node.bases[-1])


def section_header(source: Source, line: int, indent: str = "", title: str | None = None) -> str:
    """`# ── 05 Causal masking ── reference: solutions/05-causal-masking.py:12 ─────`, at most 100
    columns.
    """
    left = f"{indent}# ── {source.number:02d} {title or source.problem.title} ── {source.owner}"
    if source.owner != "reference":
        left += f" {source.digest}"
    line = source.line or line
    path = "".join(c if c.isprintable() else "?" for c in source.path)
    room = WIDTH - len(left) - len(f": :{line}")
    if len(path) > room:
        path = "…" + path[len(path) - room + 1 :]
    left += f": {path}:{line} "
    return (left + "─" * (WIDTH - len(left))).rstrip()


def _import_block(imports: set[_Import]) -> str:
    """Import lines in ruff's order: standard library, others, gpt2; each thing once."""
    groups: list[list[str]] = [[], [], []]
    plain = sorted(
        {(i.module, i.alias) for i in imports if i.name is None},
        key=lambda pair: (pair[0].lower(), pair[0], pair[1] or ""),
    )
    for module, alias in plain:
        groups[_group(module)].append(f"import {module}" + (f" as {alias}" if alias else ""))
    members: dict[tuple[str, str], list[str]] = {}
    for i in imports:
        if i.name is not None:
            key = (i.module, f"{i.name} as {i.alias}" if i.alias else "")
            members.setdefault(key, []).append(i.name)
    for module, renamed in sorted(members, key=lambda key: (key[0].lower(), key)):
        names = [renamed] if renamed else sorted(set(members[module, renamed]), key=_member_order)
        line = f"from {module} import {', '.join(names)}"
        if len(line) > WIDTH:
            line = f"from {module} import (\n" + "".join(f"    {n},\n" for n in names) + ")"
        groups[_group(module)].append(line)
    return "\n\n".join("\n".join(group) for group in groups if group) + "\n"


def _group(module: str) -> int:
    top = module.split(".")[0]
    return 2 if top == "gpt2" else 0 if top in sys.stdlib_module_names else 1


def _member_order(name: str) -> tuple[int, str, str]:
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name.lower(), name


# --- back ---


@dataclass(frozen=True)
class Section:
    """A header found in a model.py, and the text below it."""

    number: int
    title: str
    owner: str
    path: str
    line: int
    digest: str
    indented: bool
    text: str


def sections(text: str) -> list[Section]:
    """The sections of a model.py, in the order in which they stand; [] when it has none."""
    found: list[Section] = []
    lines = text.replace("\r\n", "\n").split("\n")
    marks = [(i, match) for i, line in enumerate(lines) if (match := HEADER.fullmatch(line))]
    ends = [i for i, _ in marks[1:]] + [len(lines)]
    for (i, match), end in zip(marks, ends, strict=False):
        if 1 <= int(match["number"]) <= len(PROBLEMS):
            found.append(
                Section(
                    number=int(match["number"]),
                    title=match["title"],
                    owner=match["owner"],
                    path=match["path"],
                    line=int(match["line"]),
                    digest=match["digest"] or "",
                    indented=match[0].startswith(" "),
                    text="\n".join(lines[i + 1 : end]).strip("\n"),
                )
            )
    return found


def split(text: str) -> dict[int, Source]:
    """The sources that an assembled model.py holds: `assemble(split(text)) == text`.

    With this a learner's piece stays in the model when its file has changed or gone.
    ValueError that names the problems whose sections are missing.
    """
    text = text.replace("\r\n", "\n")
    found = sections(text)
    missing = [f"{p.number:02d}" for p in PROBLEMS if all(s.number != p.number for s in found)]
    if missing:
        raise ValueError(
            f"model.py has no section for problem {', '.join(missing)}: `learn swap` did not write "
            "it like this. `learn swap --reference all` writes it anew and keeps a backup"
        )
    imports = text[: re.search(HEADER.pattern, text).start()].removeprefix(DOCSTRING).strip("\n")
    sources: dict[int, Source] = {}
    for problem in PROBLEMS:
        own = [s for s in found if s.number == problem.number]
        main = next((s for s in own if s.title == problem.title), own[0])
        parts: list[str] = [imports]
        if any(s.indented for s in own):
            parts.insert(0, "import gpt2.model")
            if imports.startswith("from __future__"):
                parts.reverse()
        for s in own:
            if s.indented:
                parts.append(f"class {MODEL}(gpt2.model.{MODEL}):\n\n{s.text}")
            else:
                parts.append(s.text)
        sources[problem.number] = Source(
            number=problem.number,
            owner=main.owner,
            path=main.path,
            text="\n\n\n".join(parts) + "\n",
            digest=main.digest,
            line=main.line,
        )
    return sources
