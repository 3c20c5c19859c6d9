"""How `make site` makes HTML of the READMEs and notebooks as they stand in the repository.

The sources are the repository's own files, so that GitHub and the site show the same text. What
GitHub does by itself is done here: a link to a folder opens its README, and a link to a source
file shows that file.
"""

from __future__ import annotations

import html
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from learn_gpt2.manifest import PROBLEMS  # noqa: E402
from learn_gpt2.upkeep.notebooks import repository  # noqa: E402

log = logging.getLogger(__name__)

project = "Build GPT-2 in twelve problems"
author = "the contributors"
html_title = project
language = "en"
smartquotes = False

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/site/*.md",
    "problems/*.md",
    "problems/*/README.md",
    "problems/*/notebook.ipynb",
    "solutions/README.md",
    "src/*/*/README.md",
]
exclude_patterns = [".*", "build", "runs", "tests"]

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "html_image"]
html_math_renderer = "mathml"  # browsers draw it themselves; a script would come from the network
myst_links_external_new_tab = False
nb_execution_mode = "off"  # shown is what is saved; `make notebooks` runs them
nb_ipywidgets_js: dict[str, Any] = {}  # no notebook has widgets; they'd come from the network

autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "ignore-module-all": True,  # what a module hands on is described where it is from
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
add_module_names = False
toc_object_entries = False

html_theme = "furo"
pygments_dark_style = "a11y-high-contrast-dark"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_selector = "div:not(.no-copy, .output) > div.highlight > pre"
address = repository(ROOT)
if "/OWNER/" not in address:  # a page to edit, once there is an address
    html_theme_options = {
        "source_repository": address,
        "source_branch": "main",
        "source_directory": "",
    }


# ── what stands in the sidebar ──────────────────────────────────────────────────────────────────


def toctree(caption: str, pages: dict[str, str], found: set[str]) -> str:
    """A part of the sidebar: page → its name there, "" for its own title.

    Pages that were not found are left out.
    """
    head = [":hidden:", f":caption: {caption}"] if caption else [":hidden:"]
    entries = [
        f"{name} </{page}>" if name else f"/{page}" for page, name in pages.items() if page in found
    ]
    return "\n".join(["", "", "```{toctree}", *head, "", *entries, "```", ""]) if entries else ""


SIDEBAR = {
    "The course": {
        "problems/README": "",
        **{f"problems/{p.folder}/README": "" for p in PROBLEMS},
        "problems/GLOSSARY": "",
    },
    "Beyond": {
        "solutions/README": "",
        "docs/training": "Training",
        "docs/generation": "Generating text",
        "docs/formats": "Checkpoints and formats",
        "docs/speed": "Speed",
        "docs/determinism": "What is the same each time",
        "docs/instructors": "For instructors",
    },
    "Inside": {
        "CONTRIBUTING": "Contributing",
        "AGENTS": "For coding assistants",
        "docs/site/api": "",
        "src/gpt2/bundled/README": "The bundled model",
    },
}


def add_sidebar(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the sidebar's entries at the end of two kinds of page, in memory only."""
    found = app.env.found_docs
    if page == root_doc:
        source[0] += "".join(toctree(name, pages, found) for name, pages in SIDEBAR.items())
    elif re.fullmatch(r"problems/.+/README", page):
        source[0] += toctree("", {page.replace("README", "notebook"): "Notebook"}, found)


# ── links as GitHub follows them ────────────────────────────────────────────────────────────────


def glossary() -> dict[str, str]:
    """Anchor of a term → its first sentence, which a link to it shows under the mouse."""
    text = (ROOT / "problems" / "GLOSSARY.md").read_text(encoding="utf-8")
    found = {}
    for title, body in re.findall(r"^## (.+?)\n+(.+?)(?=\n\n|\Z)", text, re.M | re.S):
        plain = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", body).replace("`", "").replace("*", "")
        sentence = re.match(r".+?\.(?=\s|$)", " ".join(plain.split()))
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found[slug] = sentence[0] if sentence else plain
    return found


TERMS = glossary()
RAW = re.compile(r'\b((?:href|src|srcset)=)"(?![a-z]+:|#)([^"]+)"')


class Links(SphinxTransform):
    """Links to folders lead to their READMEs, links to other files of ours to a page with the file.

    Runs before anything looks at the references that the parser has made.
    """

    default_priority = 10

    def apply(self, **kwargs: Any) -> None:
        """Rewrite the references of one page."""
        here = (ROOT / self.env.docname).parent
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("reftargetid") in TERMS and node["reftarget"] == "problems/GLOSSARY":
                node["reftitle"] = TERMS[node["reftargetid"]]
            name = node["reftarget"].partition("#")[0]
            folder = (here / name).resolve()
            if node.get("refdomain") is None and name and (folder / "README.md").is_file():
                page = (folder / "README").relative_to(ROOT).as_posix()
                node["refdomain"], node["reftarget"], node["reftargetid"] = "doc", page, None
        for node in list(self.document.findall(addnodes.download_reference)):
            file = (here / node["reftarget"]).resolve().relative_to(ROOT)
            self.env.metadata[self.env.docname].setdefault("files", set()).add(file.as_posix())
            page = self.app.builder.get_target_uri(self.env.docname)
            up = "../" * page.count("/")
            link = nodes.reference("", "", *node.children, refuri=f"{up}{file.as_posix()}.html")
            link["internal"] = True
            node.replace_self(link)
        for node in self.document.findall(nodes.raw):
            raw = RAW.sub(lambda match, node=node: self.raw_link(match, here, node), node.astext())
            node[:] = [nodes.Text(raw)]

    def raw_link(self, match: re.Match[str], here: Path, node: nodes.Node) -> str:
        """A link or picture in raw HTML: a page's address; other files keep theirs, and come along.

        Pages lie where their sources do, so that relative addresses are the same.
        """
        name, _, anchor = match[2].partition("#")
        file = (here / name).resolve()
        page = file / "README.md" if file.is_dir() else file
        if not page.is_file():
            log.warning("a link in raw HTML leads nowhere: %s", match[2], location=node)
        elif self.env.path2doc(str(page)) in self.env.found_docs:
            name = name.rstrip("/") + "/README.md" if file.is_dir() else name
            name = name.rpartition(".")[0] + ".html"
        else:
            files = self.env.metadata[self.env.docname].setdefault("copied", set())
            files.add(file.relative_to(ROOT).as_posix())
        return f'{match[1]}"{name}{"#" if anchor else ""}{anchor}"'


def copy_files(app: Sphinx, error: Exception | None) -> None:
    """The files that raw HTML asks for, to where they are in the repository."""
    for name in set().union(*(data.get("copied", ()) for data in app.env.metadata.values())):
        (Path(app.outdir) / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, Path(app.outdir) / name)


def file_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for every file that some page links to."""
    metadata = app.env.metadata.values()
    for name in sorted(set().union(*(data.get("files", ()) for data in metadata))):
        text = (ROOT / name).read_text(encoding="utf-8")
        try:
            lexer = get_lexer_for_filename(name)
        except ValueError:  # LICENSE: plain text
            body = f"<pre>{html.escape(text)}</pre>"
        else:
            formatter = HtmlFormatter(linenos="inline", lineanchors="L", cssclass="highlight")
            body = highlight(text, lexer, formatter)
        title = html.escape(Path(name).name)
        where = html.escape(name)
        context = {"title": title, "body": f"<h1>{title}</h1>\n<p><code>{where}</code></p>\n{body}"}
        yield name, context, "page.html"


# ── docstrings ──────────────────────────────────────────────────────────────────────────────────


def docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Our docstrings are plain text with `code`: made into reStructuredText that shows the same."""
    parts = re.split(r"(`[^`]+`)", "\n".join(lines))
    for i, part in enumerate(parts):
        # where code touches a letter, as in `id`s, a backslash and a space part them, unseen
        before, after = parts[i - 1 : i], parts[i + 1 : i + 2]
        left = "\\ " if before and before[0][-1:].isalnum() else ""
        right = "\\ " if after and after[0][:1].isalnum() else ""
        text = re.sub(r"([\\*_|])", r"\\\1", part)
        parts[i] = f"{left}`{part}`{right}" if i % 2 else text
    lines[:] = "".join(parts).splitlines()


# ── formulas ────────────────────────────────────────────────────────────────────────────────────


def inline_formula(translator: Any, node: nodes.math) -> None:
    """`$…$` as MathML in the line."""
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def formula(translator: Any, node: nodes.math_block) -> None:
    """`$$…$$` as MathML in a line of its own."""
    translator.body.append(convert(node.astext(), display="block"))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))
    app.connect("source-read", add_sidebar)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("html-collect-pages", file_pages)
    app.connect("build-finished", copy_files)
    app.add_transform(Links)
