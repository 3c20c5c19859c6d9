"""One source on its way into `src/gpt2/model.py`: what of it goes along, and how its text changes.

The text is cut out and edited at the places that the syntax tree names; it is never
generated from the tree. What `gpt2.model` gives a piece (`from gpt2.model import LayerNorm as LN`)
stands in the same file afterwards, so those imports fall away and `LN` becomes `LayerNorm`.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from learn_gpt2.assembly.names import FUNCTIONS, Names, Scope, Use, binder
from learn_gpt2.assembly.sections import MODEL, Source
from learn_gpt2.manifest import MODEL_PROBLEMS

BASE = 10  # the problem whose class problems 11 and 12 fill in
CLASSES = frozenset(name for problem in MODEL_PROBLEMS for name in problem.names)
CURRICULUM = ("learn_gpt2", "problems", "solutions")


@dataclass(frozen=True)
class Import:
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

    def bound_to(self, local: str) -> Import:
        """The same import under another name."""
        if self.name is None:
            return replace(self, local=local, alias=local)
        return replace(self, local=local, alias=None if local == self.name else local)


@dataclass
class Reference:
    """A place that means the assembled class `target`: `LN`, `gpt2.model.LayerNorm`, `m.LayerNorm`.

    `attribute` is what is looked up on it, if anything.
    """

    target: str
    start: int
    end: int
    use: Use
    attribute: str | None


class Statement:
    """A top-level statement, or a statement of a class body: what it binds, reads and changes."""

    def __init__(self, file: File, node: ast.stmt):
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


def parse(text: str, shown: str) -> ast.Module:
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


def lines_in_strings(text: str) -> set[int]:
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
    inside = lines_in_strings(text)
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if i + 1 not in inside:
            code = line.lstrip(" \t")
            lines[i] = line[: len(line) - len(code)].replace("\t", "    ") + code
    spaced = "\n".join(lines)
    if ast.dump(parse(spaced, shown)) != ast.dump(parse(text, shown)):
        raise ValueError(f"{shown}: tabs and spaces are mixed; indent with spaces alone")
    return spaced


class File:
    """One source, parsed: what of it goes into the model, and the edits it needs there."""

    def __init__(self, source: Source):
        self.source = source
        self.number = source.number
        self.provides = set(source.problem.names)
        parse(source.text, source.path)
        self.text = _without_tabs(source.text, source.path)
        self.tree = parse(self.text, source.path)
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
        self.imports: dict[str, list[Import]] = {}
        self.failures: list[tuple[int, str]] = []  # offset and message; they count where carried
        self._find_aliases()
        self.references = self._find_references()
        self.statements = [
            Statement(self, node)
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

    def _find_references(self) -> list[Reference]:
        """Every place that means something of `gpt2.model`; those that can't be carried fail."""
        references: list[Reference] = []
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
                references.append(Reference(target, use.start, end, use, attribute))
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
                    found.append(Import(local, alias.name, None, alias.asname))
                else:
                    found.append(Import(local, node.module, alias.name, alias.asname))
            if any(i.local in bound or i.local in self.provides for i in found):
                in_place.append(node)
            else:
                for binding in found:
                    self.imports.setdefault(binding.local, []).append(binding)
        self.statements += [Statement(self, node) for node in in_place]
        self.statements.sort(key=lambda statement: statement.start)

    # --- what goes along ---

    def statement_of_model(self) -> Statement | None:
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
            home = self.names.module if scope.kind == "module" else scope
            plain = isinstance(node, ast.Import) and any(not alias.asname for alias in gone)
            if plain and any(use.home is home for use in self.package_uses):
                left.append(ast.alias("gpt2"))  # `gpt2.cache` reaches its package by this import
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
                alone = all(
                    isinstance(other, (ast.Import, ast.ImportFrom))
                    and all(_dropped(other, alias) for alias in other.names)
                    for other in statement.block
                )
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

    def point(self, reference: Reference, target: str, fresh: Callable[[str], str]) -> None:
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
                    self.edits.append((use.start, use.end, renamed_to(use, local)))
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
                self.edits.append((use.start, use.end, renamed_to(use, new)))

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

    def body(self, statements: list[Statement]) -> str:
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
                introduced = before is None or is_docstring(before) or before in self.import_nodes
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


def renamed_to(use: Use, new: str) -> str:
    if isinstance(use.node, ast.alias):
        return new if use.node.name == new else f"{use.node.name} as {new}"
    return new


def is_docstring(node: ast.stmt) -> bool:
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
