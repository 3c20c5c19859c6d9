"""Who a name is: every name in a Python file, where it stands and which scope binds it.

`symtable` knows the scopes but not the places, and `ast` knows the places but not the scopes;
renaming without touching anything else needs both. Places are offsets into the text, in characters.
"""

from __future__ import annotations

import ast
import bisect
import re
import sys
import tokenize
from dataclasses import dataclass, field
from io import StringIO

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(eq=False)
class Scope:
    """A module, class, function (lambdas too) or comprehension, and the names that it binds."""

    kind: str  # "module", "class", "function" or "comprehension"
    parent: Scope | None = None
    bound: dict[str, int] = field(default_factory=dict)  # name → offset from which it is bound
    fixed: set[str] = field(default_factory=set)  # parameters: callers may name them
    module_names: set[str] = field(default_factory=set)  # declared `global`
    outer_names: set[str] = field(default_factory=set)  # declared `nonlocal`


@dataclass(eq=False)
class Use:
    """One occurrence of a name. `text[start:end]` is what a renaming replaces."""

    name: str
    start: int
    end: int
    scope: Scope  # where it stands
    node: ast.AST
    stores: bool = False
    eager: bool = True  # looked up while the module is imported, not when a function is called
    home: Scope | None = None  # the scope whose name it is; a builtin counts as the module's


@dataclass(eq=False)
class ImportStatement:
    """An `import` anywhere in the file, and the block of statements that it stands in."""

    node: ast.Import | ast.ImportFrom
    scope: Scope
    block: list[ast.stmt]


class Names(ast.NodeVisitor):
    """All names of a file: `uses`, `imports`, `module` (its outermost scope)."""

    def __init__(self, text: str, tree: ast.Module):
        self.text = text
        self.starts = [0]
        for line in text.split("\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.lazy_annotations = any(
            isinstance(node, ast.ImportFrom)
            and node.module == "__future__"
            and any(alias.name == "annotations" for alias in node.names)
            for node in tree.body
        )
        if sys.version_info < (3, 12):
            _FStrings(self).place(tree)
        self.uses: list[Use] = []
        self.imports: list[ImportStatement] = []
        self.module = self.scope = Scope("module")
        self.eager = True
        self.bound_from = 0  # from where on a name stored now can be read in a class body
        self._block(tree.body)
        for use in self.uses:
            use.home = self._home(use)

    # --- places ---

    def offset(self, line: int, column: int) -> int:
        """Line (from 1) and column in bytes, as `ast` counts, → offset in characters."""
        start = self.starts[line - 1]
        text = self.text[start : self.starts[line]]
        if not text.isascii():
            column = len(text.encode()[:column].decode(errors="ignore"))
        return start + column

    def start(self, node: ast.AST) -> int:
        """Where a node starts, its decorators included."""
        first = min([node, *getattr(node, "decorator_list", [])], key=lambda n: n.lineno)
        start = self.offset(first.lineno, first.col_offset)
        if first is not node:
            start = self.text.rindex("@", 0, start)
        return start

    def end(self, node: ast.AST) -> int:
        """Where a node ends."""
        return self.offset(node.end_lineno, node.end_col_offset)

    def line(self, offset: int) -> int:
        """The line, from 1, that an offset lies in."""
        return bisect.bisect_right(self.starts, offset)

    # --- scopes ---

    def _home(self, use: Use) -> Scope:
        scope: Scope | None = use.scope
        if use.name in scope.module_names:
            return self.module
        first = True
        while scope is not None and scope is not self.module:
            if use.name in scope.module_names:
                return self.module
            if use.name in scope.bound and use.name not in scope.outer_names:
                if scope.kind != "class":
                    return scope
                # a class body's names are seen by itself alone, and only once they are bound
                if first and (use.stores or use.start >= scope.bound[use.name]):
                    return scope
            # a comprehension in a class body evaluates its first iterable there, the rest not
            first = False
            scope = scope.parent
        return self.module

    def _use(self, name: str, start: int, end: int, node: ast.AST, stores: bool) -> None:
        scope = self.scope
        if stores:
            self._bind(name, scope)
        self.uses.append(Use(name, start, end, scope, node, stores, self.eager))

    def _bind(self, name: str, scope: Scope) -> None:
        if name not in scope.module_names and name not in scope.outer_names:
            scope.bound.setdefault(name, self.bound_from)

    def _search(self, pattern: str, name: str, start: int, end: int) -> tuple[int, int]:
        gap = r"(?:\s|\\\n)+"
        found = re.compile(pattern.replace(" ", gap) + rf"({re.escape(name)})\b").search(
            self.text, start, end
        )
        if found is None:  # a name written in another Unicode form than Python keeps
            raise ValueError(f"line {self.line(start)}: can't find the name {name!r} in the text")
        return found.span(1)

    def _block(self, body: list[ast.stmt]) -> None:
        for statement in body:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                self.imports.append(ImportStatement(statement, self.scope, body))
            before = self.bound_from
            definition = isinstance(statement, (*FUNCTIONS, ast.ClassDef))
            if definition or not hasattr(statement, "body"):
                self.bound_from = self.end(statement)
            else:  # a compound statement's parts set their own
                self.bound_from = self.start(statement)
            self.visit(statement)
            self.bound_from = before

    def generic_visit(self, node: ast.AST) -> None:
        """Children in order; lists of statements as blocks."""
        for _, value in ast.iter_fields(node):
            if isinstance(value, ast.AST):
                self.visit(value)
            elif isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self._block(value)
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, ast.AST):
                        self.visit(item)

    def visit_Name(self, node: ast.Name) -> None:
        stores = not isinstance(node.ctx, ast.Load)
        self._use(node.id, self.offset(node.lineno, node.col_offset), self.end(node), node, stores)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        inner, scope = self.scope, self.scope
        while scope.kind == "comprehension":  # `:=` binds outside of comprehensions
            scope = scope.parent
        self.scope = scope
        self.visit(node.target)
        self.scope = inner

    def _annotation(self, node: ast.AST | None) -> None:
        if node is not None:
            before, self.eager = self.eager, self.eager and not self.lazy_annotations
            self.visit(node)
            self.eager = before

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        self._annotation(node.annotation)
        if node.value is not None:
            self.visit(node.value)

    def _arguments(self, arguments: ast.arguments) -> list[ast.arg]:
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
        for default in [*arguments.defaults, *arguments.kw_defaults]:
            if default is not None:
                self.visit(default)
        for argument in every:
            self._annotation(argument.annotation)
        return every

    def _inside(self, kind: str, lazy: bool):
        outer = (self.scope, self.eager)
        self.scope = Scope(kind, self.scope)
        self.eager = self.eager and not lazy
        return outer

    def _function(self, node: ast.AST, arguments: list[ast.arg], body: list[ast.AST]) -> None:
        outer = self._inside("function", lazy=True)
        for parameter in getattr(node, "type_params", []):
            self._bind(parameter.name, self.scope)
            self.scope.fixed.add(parameter.name)
        for argument in arguments:
            self._bind(argument.arg, self.scope)
            self.scope.fixed.add(argument.arg)
        self._declare(body)
        if isinstance(node, ast.Lambda):
            self.visit(node.body)
        else:
            self._block(node.body)
        self.scope, self.eager = outer

    def _declare(self, body: list[ast.AST]) -> None:
        """Note this scope's `global` and `nonlocal` names before its first use of them."""
        todo = list(body)
        while todo:
            node = todo.pop()
            if isinstance(node, ast.Global):
                self.scope.module_names.update(node.names)
            elif isinstance(node, ast.Nonlocal):
                self.scope.outer_names.update(node.names)
            elif not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Lambda)):
                todo += ast.iter_child_nodes(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        self._use(node.name, *self._definition(node), node, True)
        arguments = self._arguments(node.args)
        self._annotation(node.returns)
        self._function(node, arguments, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def _definition(self, node) -> tuple[int, int]:
        start = self.offset(node.lineno, node.col_offset)
        return self._search(r"\b(?:def|class) ", node.name, start, self.end(node))

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node, self._arguments(node.args), [])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in [*node.decorator_list, *node.bases, *node.keywords]:
            self.visit(part)
        self._use(node.name, *self._definition(node), node, True)
        outer = self._inside("class", lazy=False)
        for parameter in getattr(node, "type_params", []):
            self._bind(parameter.name, self.scope)
        self._declare(node.body)
        self._block(node.body)
        self.scope, self.eager = outer

    def _comprehension(self, node) -> None:
        self.visit(node.generators[0].iter)
        outer = self._inside("comprehension", lazy=False)
        for i, generator in enumerate(node.generators):
            self.visit(generator.target)
            if i:
                self.visit(generator.iter)
            for condition in generator.ifs:
                self.visit(condition)
        for part in ("key", "value", "elt"):
            if hasattr(node, part):
                self.visit(getattr(node, part))
        self.scope, self.eager = outer

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name != "*":
                name = alias.asname or alias.name.split(".")[0]
                start = self.offset(alias.lineno, alias.col_offset)
                self._use(name, start, self.end(alias), alias, True)

    visit_ImportFrom = visit_Import

    def visit_Global(self, node: ast.Global | ast.Nonlocal) -> None:
        start, end = self.start(node), self.end(node)
        for name in node.names:
            self._use(name, *self._search(r"\b", name, start, end), node, False)

    visit_Nonlocal = visit_Global

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self.visit(node.type)
        if node.name:
            span = self._search(r"\bas ", node.name, self.end(node.type), self.end(node))
            self._use(node.name, *span, node, True)
        self._block(node.body)

    def _capture(self, node, name: str | None) -> None:
        if name:
            end = self.end(node)
            if isinstance(node, ast.MatchMapping):
                start, end = self._search(r"\*\*\s*", name, self.start(node), end)
            else:
                start = end - len(name)
            self._use(name, start, end, node, True)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.pattern is not None:
            self.visit(node.pattern)
        self._capture(node, node.name)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        self._capture(node, node.name)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.generic_visit(node)
        self._capture(node, node.rest)


def binder(name: str, use: Use) -> Scope | None:
    """The scope that would catch `name` before the module does, or None."""
    scope, first = use.scope, True
    while scope.parent is not None:
        if name in scope.module_names:
            return None
        if (
            name in scope.bound
            and name not in scope.outer_names
            and (scope.kind != "class" or (first and use.start >= scope.bound[name]))
        ):
            return scope
        scope, first = scope.parent, False
    return None


class _FStrings:
    """Before Python 3.12 the parser gives names inside f-strings wrong places; this gives the right
    ones, by reading the braces again.
    """

    def __init__(self, names: Names):
        self.names = names
        self.text = names.text
        self.found: list[tuple[int, int]] = []

    def place(self, tree: ast.AST) -> None:
        """Put right every f-string below `tree`."""
        todo = [tree]
        while todo:
            node = todo.pop()
            if isinstance(node, ast.JoinedStr):
                self._place(node)
            else:
                todo += ast.iter_child_nodes(node)

    def _place(self, node: ast.JoinedStr) -> None:
        spans = self._literals(self.names.start(node), self.names.end(node))
        fields = iter([field for literal in spans for field in self._fields(*literal)])
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                value.value = self._reparse(*next(fields))
                for inner in value.format_spec.values if value.format_spec else []:
                    if isinstance(inner, ast.FormattedValue):
                        inner.value = self._reparse(*next(fields))

    def _literals(self, start: int, end: int) -> list[tuple[int, int]]:
        """The string literals that stand side by side in text[start:end]."""
        part = "(" + self.text[start:end] + ")"
        rows = [0]
        for row in part.split("\n"):
            rows.append(rows[-1] + len(row) + 1)
        return [
            (
                start - 1 + rows[t.start[0] - 1] + t.start[1],
                start - 1 + rows[t.end[0] - 1] + t.end[1],
            )
            for t in tokenize.generate_tokens(StringIO(part).readline)
            if t.type == tokenize.STRING
        ]

    def _reparse(self, start: int, end: int) -> ast.expr:
        """The expression in text[start:end], its nodes at their true places."""
        line = self.names.line(start)
        column = len(self.text[self.names.starts[line - 1] : start].encode())
        padded = "\n" * (line - 1) + "(\n" + " " * column + self.text[start:end] + "\n)"
        expression = ast.increment_lineno(ast.parse(padded), -1).body[0].value
        self.place(expression)
        return expression

    def _fields(self, start: int, end: int) -> list[tuple[int, int]]:
        """The spans of the expressions in one literal's braces, in the order of the tree."""
        prefix = re.match(r"[A-Za-z]*", self.text[start:end])[0].lower()
        if "f" not in prefix:
            return []
        quotes = 3 if self.text[start + len(prefix) :][:3] in ('"""', "'''") else 1
        self.found = []
        self._literal(start + len(prefix) + quotes, end - quotes, "r" in prefix, False)
        return self.found

    def _literal(self, i: int, end: int, raw: bool, in_spec: bool) -> int:
        while i < end:
            if not raw and self.text.startswith("\\N{", i):
                i = self.text.index("}", i) + 1
            elif (not raw and self.text[i] == "\\") or (
                not in_spec and self.text[i : i + 2] in ("{{", "}}")
            ):
                i += 2
            elif self.text[i] == "{":
                i = self._field(i + 1, end, raw)
            elif self.text[i] == "}" and in_spec:
                return i
            else:
                i += 1
        return i

    def _field(self, i: int, end: int, raw: bool) -> int:
        start, depth = i, 0
        while i < end:
            character = self.text[i]
            if character in "\"'":
                quote = character * 3 if self.text.startswith(character * 3, i) else character
                i = self.text.index(quote, i + len(quote)) + len(quote)
                continue
            if character in "([{":
                depth += 1
            elif depth and character in ")]}":
                depth -= 1
            elif not depth and self.text[i : i + 2] in ("!=", "==", "<=", ">="):
                i += 1
            elif not depth and character in "!:=}":
                break
            i += 1
        self.found.append((start, i))
        while self.text[i] in "= \t\n":
            i += 1
        if self.text[i] == "!":
            i += 2
        while self.text[i] in " \t\n":
            i += 1
        if self.text[i] == ":":
            i = self._literal(i + 1, end, raw, True)
        return i + 1
