"""The six whole files of `src/gpt2/` beside model.py: one header line, then a solution's own text.

The header is a comment, so whatever must stand first in a file (a docstring, an import of
`__future__`) still does. The text below it is the piece's, character by character, with two
exceptions: the file is UTF-8 with "\\n" line ends whatever the piece was saved as, and a line that
declares another encoding says so.
"""

from __future__ import annotations

import ast
import codecs
import contextlib
import difflib
import re

from learn_gpt2.assembly.carry import CURRICULUM, parse
from learn_gpt2.assembly.sections import Source, section_header
from learn_gpt2.checking import loading
from learn_gpt2.checking.headers import HEADER
from learn_gpt2.manifest import Problem

# PEP 263: Python looks for it in the first two lines
CODING = re.compile(r"^([ \t\f]*#.*?coding[:=][ \t]*)([-\w.]+)")


def module_text(source: Source) -> str:
    """A source → the text of its file in `src/gpt2/`.

    ValueError that names file and line for what does not parse, lacks a name that the problem
    provides, or imports what stands above it.
    """
    problem, text = source.problem, source.text
    tree = parse(text, source.path)
    _refuse_imports(tree, source)
    defined = top_level_names(tree)
    for name in problem.names:
        if name not in defined and "*" not in defined:
            near = difflib.get_close_matches(name, sorted(defined), 1, 0.5)
            hint = f"; is it {near[0]}?" if near else ""
            raise ValueError(
                f"{source.path}: no {name}, which problem {problem.number} provides{hint}"
            )
    first, newline, rest = (text if text.endswith("\n") else text + "\n").partition("\n")
    return "\n".join((section_header(source, 1), _as_utf8(first))) + newline + rest


def _as_utf8(line: str) -> str:
    """The first line of a piece, which is the second of its file; an encoding that it declares,
    where Python would look for it, becomes the file's own. Further down, none is looked for.
    """
    match = CODING.match(line)
    if match is None:
        return line
    with contextlib.suppress(LookupError):
        if codecs.lookup(match[2]).name == "utf-8":
            return line
    return f"{match[1]}utf-8{line[match.end() :]}"


def top_level_names(tree: ast.Module) -> set[str]:
    """Names that a file binds at its top level, in branches too; "*" for an import of all names."""
    found: set[str] = set()
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
            continue
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update((a.asname or a.name).split(".")[0] for a in node.names)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        todo += ast.iter_child_nodes(node)
    return found


def _refuse_imports(tree: ast.Module, source: Source) -> None:
    """ValueError for an import of the curriculum, or of what is built on the piece."""
    for node, module in loading.imported_modules(tree):
        where = f"{source.path}:{node.lineno}"
        if module.split(".")[0] in CURRICULUM:
            raise ValueError(
                f"{where}: imports {module}; the model imports nothing of the curriculum"
            )
        if module.startswith(".") or loading.stands_above(source.problem, module):
            raise ValueError(
                f"{where}: imports {module}, and src/gpt2/{source.problem.module} stands below "
                "that: it imports nothing of gpt2 but earlier pieces"
            )


def read_module(text: str, problem: Problem) -> Source:
    """The source that a written file holds: `module_text(read_module(text, p)) == text`.

    ValueError when its first line is not the header of this problem.
    """
    first, _, rest = text.replace("\r\n", "\n").partition("\n")
    match = HEADER.fullmatch(first)
    if match is None or int(match["number"]) != problem.number:
        raise ValueError(
            f"{problem.module} does not begin with a header of problem {problem.number:02d}: "
            f"`learn swap` did not write it like this. `learn swap --reference "
            f"{problem.number:02d}` writes it again and keeps a backup"
        )
    return Source(
        number=problem.number,
        owner=match["owner"],
        path=match["path"],
        text=rest,
        digest=match["digest"] or "",
        forced=bool(match["forced"]),
        lines={"main": int(match["line"])},
    )
