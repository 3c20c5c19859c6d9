"""Links of ours lead somewhere; `make links` finds and asks those of others. No network here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import links


@pytest.mark.parametrize(
    "path", links.documents(), ids=lambda path: path.relative_to(links.ROOT).as_posix()
)
def test_links_lead_somewhere(path: Path):
    """Catches a link to a file or a heading that was renamed, in text or in a notebook."""
    assert links.broken_links(path, links.text_of(path)) == []


def test_every_kind_of_document_is_looked_at():
    """Catches a pattern that finds nothing, so that nothing would be checked."""
    names = {path.relative_to(links.ROOT).as_posix() for path in links.documents()}
    notebook = "problems/05-causal-masking/notebook.ipynb"
    assert {"README.md", "docs/training.md", "problems/GLOSSARY.md", notebook} <= names
    assert "../06-feedforward-network/README.md" in links.targets(
        links.text_of(links.ROOT / notebook)
    )


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](README.md) [b](#here)\n\n# Here", 0),
        ("[a](nowhere.md)", 1),
        ("[a](README.md#nowhere)", 1),
        ("[a](#nowhere)\n\n# Here", 1),
        ("[a][b]\n\n[b]: nowhere.md", 1),
        ('<img src="nowhere.svg">', 1),
        ('<source srcset="nowhere.svg">', 1),
        ("`[a](nowhere.md)` and [b](https://example.org/nowhere.md)", 0),
        ("```\n# Here\n```\n[a](#here)", 1),
    ],
)
def test_a_broken_link_is_found(text: str, broken: int):
    """Catches a search for links that finds none."""
    assert len(links.broken_links(links.ROOT / "made-up.md", text)) == broken


def test_external_links_are_found_with_their_documents():
    """Catches a list that leaves a document out, or asks twice for two places of one page."""
    found = links.external()
    assert links.ROOT / "README.md" in found["https://pytorch.org/get-started/locally/"]
    assert not [address for address in found if "#" in address]


class Answers(BaseHTTPRequestHandler):
    """A site with one page, and one that only answers GET."""

    def do_HEAD(self) -> None:
        """The page by its head."""
        self.send_response({"/page": 200, "/get-only": 405}.get(self.path, 404))
        self.end_headers()

    def do_GET(self) -> None:
        """Both pages."""
        self.send_response(200 if self.path in ("/page", "/get-only") else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_asking(site: str, monkeypatch: pytest.MonkeyPatch):
    """Catches a missing page that counts as there, and a page refused for its kind of request."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert links.ask(f"{site}/page") == ""
    assert links.ask(f"{site}/get-only") == ""
    assert links.ask(f"{site}/nowhere").startswith("404")
    assert links.ask("http://127.0.0.1:9/", seconds=2) != ""
    assert links.ask("http://[broken/") != ""


def test_what_failed_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Catches a run that ends well although a link is dead, or that doesn't say where it stands."""
    page = links.ROOT / "README.md"
    monkeypatch.setattr(links, "external", lambda: {"http://a/": [page], "http://b/": [page]})
    monkeypatch.setattr(links, "ask", lambda address: "404 Gone" if "b" in address else "")
    assert links.main() == 1
    out = capsys.readouterr().out
    assert "ok      http://a/" in out
    assert "FAILED  http://b/\n        404 Gone; in README.md" in out
    assert "2 external links, 1 without" in out
