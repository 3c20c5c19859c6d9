"""Which students submitted the same work: equal files, equal except for comments and formatting, or
equal except for names.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass

EXACT, LAYOUT, NAMES = "equal", "equal except for comments and layout", "equal except for names"
# So little beyond the skeleton that most right answers look alike.
SHORT = 60


@dataclass(frozen=True)
class Prints:
    """Three fingerprints of a source, from strict to tolerant, and its size in tree nodes.

    layout and names are "" when the file does not parse.
    """

    exact: str
    layout: str
    names: str
    size: int


@dataclass(frozen=True)
class Copies:
    """Students whose files for one problem are the same, and how much so."""

    problem: int
    kind: str
    students: tuple[str, ...]


def fingerprints(data: bytes) -> Prints:
    """A file's three fingerprints. It is parsed, not run; still call it under a memory limit."""
    text = data.replace(b"\r\n", b"\n")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(text).readline)
        tree = ast.parse(text.decode(encoding))
        _drop_docstrings(tree)
        layout = ast.dump(tree)
        size = sum(1 for _ in ast.walk(tree))
        tree = ast.fix_missing_locations(_Renamer(tree).visit(tree))
        names = ast.dump(tree)
    except (SyntaxError, ValueError, LookupError, RecursionError, MemoryError):
        return Prints(_hash(text), "", "", 0)
    return Prints(_hash(text), _hash(layout.encode()), _hash(names.encode()), size)


def groups(
    problem: int, prints: Mapping[str, Prints], known: Mapping[str, Prints], skeleton: Prints
) -> list[Copies]:
    """Groups of students with the same work, strictest kind first; no group comes twice.

    prints: of each student. known: of files that a student may have copied ("the reference").
    The skeleton, and what hardly goes beyond it, counts for nobody.
    """
    found: list[Copies] = []
    seen: set[frozenset[str]] = set()
    for kind, field in ((EXACT, "exact"), (LAYOUT, "layout"), (NAMES, "names")):
        same: dict[str, list[str]] = {}
        for student, own in prints.items():
            value = getattr(own, field)
            if value and not _too_short(own, skeleton):
                same.setdefault(value, []).append(student)
        for value, students in same.items():
            who = sorted(students)
            who += [name for name, own in known.items() if getattr(own, field) == value]
            if len(who) > 1 and frozenset(who) not in seen:
                seen.add(frozenset(who))
                found.append(Copies(problem, kind, tuple(who)))
    return found


def _too_short(own: Prints, skeleton: Prints) -> bool:
    if own.exact == skeleton.exact or (own.names and own.names == skeleton.names):
        return True
    return own.size - skeleton.size < SHORT and bool(own.size)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _drop_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]


class _Renamer(ast.NodeTransformer):
    """Names that the file itself gives are numbered in order of appearance; imported ones are
    spelled out (`F.softmax` → torch.nn.functional.softmax); annotations go.
    """

    def __init__(self, tree: ast.Module):
        self.imported: dict[str, str] = {}
        own: dict[str, None] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    full = alias.name if alias.asname else alias.name.split(".")[0]
                    self.imported[alias.asname or full] = full
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        for node in ast.walk(tree):  # a second walk: now all imports are known
            for name in _given(node):
                if name not in self.imported:
                    own.setdefault(name)
        self.own = own
        self.numbers: dict[str, str] = {}

    def _new(self, name: str) -> str:
        if name not in self.own:
            return name
        return self.numbers.setdefault(name, f"n{len(self.numbers)}")

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.imported.get(node.id) or self._new(node.id), node.ctx)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        value = self.visit(node.value)
        if isinstance(value, ast.Name) and value.id in self.imported.values():
            full = f"{value.id}.{node.attr}"
            self.imported.setdefault(full, full)
            return ast.Name(full, node.ctx)
        return ast.Attribute(value, self._new(node.attr), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self._new(node.arg), None)

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        return ast.keyword(node.arg and self._new(node.arg), self.visit(node.value))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name = self._new(node.name)
        node.returns = None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.name = self._new(node.name)
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt | None:
        if node.value is None:
            return None
        return ast.Assign([self.visit(node.target)], self.visit(node.value))


def _given(node: ast.AST) -> list[str]:
    """The names that a node gives to something."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return [node.attr]
    return []
