"""What is written of a class: nothing that a student wrote means more than its text, anywhere."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from learn_gpt2.grading import escaping, reports
from learn_gpt2.grading.page import page
from tests.learn_gpt2.grading import made

BAD_IDS = ("off-by-one", "$\\frac{$", "# forged\n", "<img src=x>", "\x1b[2J", "\ud800")


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("mistake", BAD_IDS, ids=[str(i) for i in range(len(BAD_IDS))])
def test_every_report_is_written_whatever_stands_in_it(mistake: str, tmp_path: Path) -> None:
    """Catches one student's text that ends everybody's report: a formula in the plot, a lone
    surrogate in a file, a character that XML can't hold.
    """
    written = reports.write_all(tmp_path, made.report(mistake))
    assert "index.html" in written
    for name in ("grades.csv", "report.json", "statistics.md", "index.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "\x1b" not in text, name
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().tag == "testsuites"
    assert len(list((tmp_path / "feedback").glob("*.md"))) == len(made.NAMES)
    assert (tmp_path / "statistics.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_a_student_wrote_is_html() -> None:
    """Catches a name or a message that becomes an element, or an attribute that runs code."""
    names = tuple(name for name in made.NAMES if name.isprintable())
    text = page(made.report(names=names))
    elements = Elements(text)
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 1
    assert not {"img", "iframe", "object", "b onerror"} & set(tags)
    for tag, attributes in elements.found:
        assert not [key for key in attributes if key.startswith("on")], tag
        for key in ("src", "href"):
            assert re.fullmatch(r"#[\w-]+", attributes.get(key, "#x")), (tag, attributes)
    for name in names:
        assert name in elements.text, name
    assert "<img src=x onerror=alert(1)>" in elements.text


def test_the_page_has_everybody_and_their_feedback() -> None:
    """Catches a student without a row or a section, a link to nowhere, a message left out."""
    report = made.report()
    elements = Elements(page(report))
    ids = {attributes["id"] for _, attributes in elements.found if "id" in attributes}
    links = {a["href"][1:] for tag, a in elements.found if tag == "a"}
    assert links <= ids
    assert {f"s{i + 1}-03" for i in range(len(made.NAMES))} <= ids
    assert elements.text.count("It scales") == len(made.NAMES)
    assert "off-by-one" in elements.text
    # percent in the table, and the state of the problem where it was not graded
    report["students"][0]["problems"][1]["state"] = "missing"
    assert "not handed in" in page(report)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """Catches a page that loads something, or that its own policy would not let run."""
    import base64
    import hashlib

    text = page(made.report(names=("ann",)))
    assert not re.search(r"(?i)https?://|url\(|@import", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    for tag in ("style", "script"):
        inner = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "prefers-color-scheme: dark" in text


def test_an_empty_class_has_a_page() -> None:
    """Catches a division by nobody."""
    report = made.report(names=())
    report["copies"] = []
    assert "0 students" in page(report)


FORMULAS = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "bob;=1+1",
    "bob,=1",
    "\t=1",
    " =1",
    "＝1",
    'a;"=1"',
    "x|=1",
)


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_however_it_is_split(text: str) -> None:
    """Catches a name that a spreadsheet computes, whichever separator its country has."""
    for separator in ",;\t|":
        for part in escaping.cell(text).split(separator):
            assert part.strip().strip('"').strip()[:1] not in ("=", "+", "-", "@", "＝"), part


def test_the_table_of_marks_has_no_formula() -> None:
    """Catches a column that is written without the escape."""
    rows = list(csv.reader(io.StringIO(reports.grades_csv(made.report()))))
    for row in rows:
        for cell in row:
            for part in re.split(r"[;,|\t]", cell):
                assert part.strip()[:1] not in ("=", "+", "@"), row


def test_markdown_shows_a_text_as_it_is() -> None:
    """Catches a heading, a table's end, a link or an image made of somebody's name. The oracle is
    markdown-it's renderer.
    """
    markdown_it = pytest.importorskip("markdown_it")
    render = markdown_it.MarkdownIt("commonmark", {"linkify": False}).enable("table").render
    for text in (
        *made.NAMES,
        "- a",
        "1. b",
        "+ c",
        "> d",
        "    e",
        "[x](y)",
        "![x](y)",
        "a_b_c",
        "`",
    ):
        shown = render(f"{escaping.markdown(text)}\n")
        inner = re.sub(r"^<p>|</p>\n$", "", shown)
        assert "<" not in inner, (text, shown)
    table = render(f"| a | b |\n|---|---|\n| {escaping.markdown('x | y')} | z |\n")
    assert table.count("<td>") == 2


def test_statistics_have_our_headings_alone() -> None:
    """Catches a heading that a student forged."""
    report = made.report("# forged\n")
    report["misconceptions"][0]["says"] = "x\n# forged too"
    headings = [line for line in reports.statistics_md(report).splitlines() if line.startswith("#")]
    assert headings == ["# 12 students", "## Misconceptions", "## Same work", "## To look at"]


def test_a_message_can_not_end_its_block() -> None:
    """Catches a message with a fence of its own."""
    block = escaping.quoted("a\n````\nb")
    assert block[0] == "`````text"
    assert block[-1] == "`````"
    assert [line for line in block if line.startswith("`````")] == [block[0], block[-1]]


def test_json_has_neither_nan_nor_lone_surrogates() -> None:
    """Catches a report that JavaScript, jq or a strict reader refuses."""
    text = escaping.json_text(
        {"a\ud800": [float("nan"), float("inf"), 1.5, "\udcfc"], "b": (True,)}
    )
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {
        "a?": [None, None, 1.5, "?"],
        "b": [True],
    }
    text.encode("utf-8")


def test_a_terminal_is_not_commanded() -> None:
    """Catches a name that clears the screen, turns the text around or begins a new line."""
    assert escaping.one_line("a\x1b[2Jb\nc\u202ed\x9be\ud800") == "a?[2Jb?c?d?e?"
    assert escaping.one_line("می‌خواهم") == "می‌خواهم"  # a joiner inside a Persian word


def test_file_names_are_short_and_apart() -> None:
    """Catches two students whose feedback goes to one file, and a name that a system refuses."""
    names = ["a/b", "a:b", "CON", "x" * 300, "字" * 200, "字" * 200 + "2", "..", "", "\ud800"]
    found = escaping.file_names(names)
    assert len({name.lower() for name in found.values()}) == len(names)
    assert all(0 < len(name.encode()) <= 255 - 10 for name in found.values())
    assert not set(found.values()) & {"..", ".", "", "CON"}
