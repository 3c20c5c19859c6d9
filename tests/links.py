"""The links of every Markdown file and notebook; `python -m tests.links` asks the external ones.

test_links.py checks the internal ones at every run. The external ones need a network and are other
people's, so a maintainer asks for them: `make links`.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PATTERNS = (
    "*.md",
    "docs/**/*.md",
    "problems/**/*.md",
    "problems/*/*.ipynb",
    "solutions/**/*.md",
    "src/*/**/*.md",
    "tests/*/*.md",
)
SECONDS = 15  # for one answer
_BROWSER = {"User-Agent": "Mozilla/5.0 (link check)", "Accept": "*/*"}


def documents() -> list[Path]:
    """All Markdown files and notebooks of the project."""
    return sorted({path for pattern in _PATTERNS for path in ROOT.glob(pattern)})


def text_of(path: Path) -> str:
    """A document's Markdown; a notebook's is that of its text cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def without_code_blocks(text: str) -> str:
    """The text with its fenced blocks left out."""
    return re.sub(r"^(`{3,}|~{3,}).*?^\1`*\s*$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, made as GitHub makes them, and explicit ids."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", without_code_blocks(text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        name, count = slug, 0
        while name in found:
            count += 1
            name = f"{slug}-{count}"
        found.add(name)
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def targets(text: str) -> list[str]:
    """Where a document's links and pictures point: [a](b), [a]: b, <b>, and HTML's src and href."""
    prose = re.sub(r"`[^`\n]*`", "", without_code_blocks(text))
    found = re.findall(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)", prose)
    found += re.findall(r"^\[[^\]]+\]:\s+(\S+)", prose, re.MULTILINE)
    found += re.findall(r"<(https?://[^>\s]+)>", prose)
    found += re.findall(r"(?:src|href|srcset)=\"([^\"]+)\"", prose)
    return found


def is_external(target: str) -> bool:
    """Whether a link leaves the project."""
    return re.match(r"[a-z]+:", target) is not None


def broken_links(path: Path, text: str) -> list[str]:
    """Links and pictures to files, folders and headings of ours that are not there."""
    broken = []
    for target in targets(text):
        if is_external(target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name) if name else path
        if name and not file.exists():
            broken.append(target)
        elif anchor and file.suffix in (".md", ".ipynb"):
            there = text if file == path else text_of(file)
            if anchor not in anchors(there):
                broken.append(target)
    return broken


# ── other people's ──────────────────────────────────────────────────────────────────────────────


def external() -> dict[str, list[Path]]:
    """Every external address, without its anchor → the documents that link to it."""
    found: dict[str, list[Path]] = {}
    for path in documents():
        for target in targets(text_of(path)):
            if target.startswith(("http://", "https://")):
                where = found.setdefault(target.partition("#")[0], [])
                if path not in where:
                    where.append(path)
    return dict(sorted(found.items()))


def ask(address: str, seconds: float = SECONDS) -> str:
    """ "" when an address answers, or what is wrong with it."""
    answer = ""
    for method in ("HEAD", "GET"):  # some know GET alone
        try:
            request = urllib.request.Request(address, method=method, headers=_BROWSER)
            with urllib.request.urlopen(request, timeout=seconds):
                return ""
        except urllib.error.HTTPError as error:
            answer = f"{error.code} {error.reason}"
        except urllib.error.URLError as error:
            return str(error.reason)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"{type(error).__name__}: {error}"
    return answer


def rows(found: dict[str, list[Path]]) -> Iterator[tuple[str, str, str]]:
    """Address, what is wrong with it or "", and where it stands: eight asked at a time."""
    with ThreadPoolExecutor(8) as pool:
        for (address, paths), answer in zip(found.items(), pool.map(ask, found), strict=True):
            where = ", ".join(path.relative_to(ROOT).as_posix() for path in paths)
            yield address, answer, where


def main() -> int:
    """Print each address and how it answered → 1 if one did not."""
    found = external()
    failed = 0
    for address, answer, where in rows(found):
        failed += bool(answer)
        print(f"{'FAILED' if answer else 'ok':6}  {address}", flush=True)
        if answer:
            print(f"        {answer}; in {where}", flush=True)
    print(f"{len(found)} external links, {failed} without a good answer")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
