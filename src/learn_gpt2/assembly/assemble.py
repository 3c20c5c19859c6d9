"""Sources of the twelve problems → the text of `src/gpt2/model.py`. Reads and writes no file.

Problems 11 and 12 become sections inside the class of problem 10, unless their class does what only
a subclass can do; then it stays one, below problem 10's.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping

from learn_gpt2.assembly.carry import (
    BASE,
    CLASSES,
    File,
    Import,
    Statement,
    is_docstring,
    lines_in_strings,
    parse,
    renamed_to,
)
from learn_gpt2.assembly.names import FUNCTIONS
from learn_gpt2.assembly.sections import DOCSTRING, MODEL, WIDTH, Source, section_header
from learn_gpt2.manifest import MODEL_PROBLEMS

METHODS = {
    problem.number: {name.partition(".")[2] for name in problem.provides if "." in name}
    for problem in MODEL_PROBLEMS
}


def assemble(sources: Mapping[int, Source] | Iterable[Source]) -> str:
    """Twelve sources → the text of model.py.

    ValueError that names file and line for what does not parse or can't be carried.
    """
    values = sources.values() if isinstance(sources, Mapping) else sources
    by_number = {source.number: source for source in values}
    missing = [str(p.number) for p in MODEL_PROBLEMS if p.number not in by_number]
    if missing:
        raise ValueError(f"no source for problem {', '.join(missing)}: the model needs all twelve")
    files = [File(by_number[problem.number]) for problem in MODEL_PROBLEMS]
    assembly = _Assembly(files)
    return assembly.text()


class _Assembly:
    """What the twelve files have in common: names taken, imports, the class of problem 10."""

    def __init__(self, files: list[File]):
        self.files = files
        self.words = set(re.findall(r"\w+", "\n".join(file.text for file in files)))
        self.imports: dict[str, set[Import]] = {}  # local name → the imports that bind it
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
                start, end = _bases_span(file, node)
                header = [(start, end)]
                if is_docstring(node.body[0]):
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
    def _with_comments(file: File, outer: ast.ClassDef, node: ast.stmt) -> tuple[int, int]:
        """Span of a method to leave out, with the blank lines and comments above it."""
        i = outer.body.index(node)
        first = (
            file.trailing(outer.body[i - 1]) + 1 if i else file.names.line(file.names.start(node))
        )
        last = file.trailing(node)
        return file.names.starts[first - 1], file.names.starts[last]

    def _settle(self, file: File) -> None:
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
    def _plain_super(file: File) -> None:
        """super(GPT2Model, self) → super(): the name will mean the last of the classes."""
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                first = node.args[0]
                if node.func.id == "super" and isinstance(first, ast.Name) and first.id == MODEL:
                    file.edits.append((file.names.start(node), file.names.end(node), "super()"))

    def _settle_imports(self, file: File, bound: set[str]) -> None:
        module = file.names.module
        for use in file.package_uses:  # gpt2.cache and the like; `import gpt2` at the least
            if use.home is module and file.carried(use.start) and use.name not in file.needed:
                file.needed.add(use.name)
                alias = None if use.name == "gpt2" else use.name
                least = [Import(use.name, "gpt2", None, alias)]
                file.imports[use.name] = file.imports.get(use.name) or least
        for local, bindings in file.imports.items():
            if local not in file.needed or local in bound:
                continue
            origins = {binding.origin for binding in bindings}
            if len(origins) > 1:
                raise ValueError(
                    f"{file.source.path}: imports {local} as {' and as '.join(sorted(origins))}"
                )
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
    def _add(known: set[Import], bindings: list[Import]) -> None:
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
            sections.append(self._section(file, kept[at:], "below"))
            sections += [self._helpers(filler, above=False) for filler in merged]
        future = "from __future__ import annotations\n\n"
        lazy = any(file.names.lazy_annotations for file in self.files)
        imports = _import_block({i for group in self.imports.values() for i in group})
        head = DOCSTRING + "\n" + (future if lazy else "") + imports
        text = head + "\n" + "\n\n\n".join(section for section in sections if section) + "\n"
        try:
            parse(text, "the assembled model.py")
        except ValueError as error:
            raise ValueError(
                f"{error}; this is a fault of `learn swap`, please report it"
            ) from None
        return text

    def _section(self, file: File, statements: list[Statement], place: str = "main") -> str:
        """Header and text of some statements; "" for none."""
        if not statements:
            return ""
        line = file.names.line(statements[0].start)
        header = section_header(file.source, line, place=place)
        body = (file.before if place == "main" else "") + file.body(statements)
        definition = re.match(r"(class|def|async)\b|[@#]", body)
        return header + ("\n\n\n" if definition else "\n\n") + body

    def _helpers(self, file: File, above: bool) -> str:
        """What problem 11 or 12 needs outside the class, above or below it."""
        model = file.statement_of_model()
        kept = [s for s in file.statements if s.keep and s is not model]
        statements = [s for s in kept if (s.start < model.start) == above]
        return self._section(file, statements, "above" if above else "below")

    def _inside(self, file: File) -> str:
        """Header and methods of problem 11 or 12, indented as problem 10's class is."""
        base = self.files[BASE - 1].statement_of_model().node
        node = file.statement_of_model().node
        content = _content(node)
        first = file.names.line(file.names.start(content[0]))
        last = file.trailing(node)
        if content[0] is not node.body[0]:  # behind the docstring
            start_line = node.body[0].end_lineno + 1
        else:
            end = file.names.end(node.bases[0])
            colon = re.compile(r"(?:\s|[,)]|#.*)*:").match(file.text, end)
            start_line = file.names.line(colon.end()) + 1
        lines = range(start_line, last + 1)
        shift = base.body[0].col_offset - content[0].col_offset
        if shift:
            within = lines_in_strings(file.text)
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
    def _line(file: File, number: int) -> str:
        start, end = file.line_span(number, number)
        return file.text[start:end]


def _import_block(imports: set[Import]) -> str:
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


# --- problems 11 and 12 inside the class of problem 10 ---


def _class_names(file: File, node: ast.ClassDef) -> set[str]:
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
    return node.body[1:] if is_docstring(node.body[0]) else node.body


def _needs_subclass(file: File, given: set[str]) -> str | None:
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


def _rename_members(
    file: File, node: ast.ClassDef, given: set[str], fresh: Callable[[str], str]
) -> None:
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
                file.edits.append((use.start, use.end, renamed_to(use, new)))


def _bases_span(file: File, node: ast.ClassDef) -> tuple[int, int]:
    """Span of a class's bases."""
    return file.names.start(node.bases[0]), file.names.end(node.bases[-1])
