"""Which of a student's files is which problem: by its place, its name, or what it defines.

Tables first, so that a new habit of naming is one more entry; `recognize` then weighs all files
of one student against each other. Nothing here runs or parses a student's code.
"""

from __future__ import annotations

import io
import json
import re
import tokenize
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, lru_cache

from learn_gpt2.checking import child
from learn_gpt2.grading import platforms
from learn_gpt2.grading.trees import Node, Refused, intake, shown
from learn_gpt2.manifest import Problem

MAX_NOTEBOOK = 20_000_000  # bytes of a notebook: pictures are in it
MAX_READ = 400  # files of one student whose text is looked at
CHILD_SECONDS = 30.0  # for one notebook or page
MOST_LETTERS = 300  # of a name that is looked at
MOST_NAMED = 6  # files that a notice names; the others are counted

# Endings of a file that may hold a piece; what follows .py was added by a browser or a platform.
CODE = re.compile(
    r"(?i)(.*?)((?:[ .]py[w3]?)+)((?:\.(?:txt|text|download|bak|orig|old|tmp|save))*)~?"
)
NOTEBOOK = re.compile(r"(?i)(.*?)((?:\.ipynb)+)((?:\.(?:json|txt|download))*)")
TEXT = re.compile(r"(?i)(.*?)(\.(?:txt|text))()")
PAGE = re.compile(r"(?i)(.*?)(\.html?)()")

# problem.py (1), problem.py-2: the number belongs before the ending
LATE_NUMBER = re.compile(r"(?i)(\.(?:py|ipynb))([-_ ]*\(\d{1,3}\)|[-_ ]+\d{1,3})\Z")

# Words that stand beside a problem's name and name nothing
AROUND_A_NAME = {"", "gpt", "my", "the", "hw", "homework", "problem", "final", "solution", "v"}
# Files that are around a piece and are not one
NOT_PIECES = re.compile(
    r"(?ix) test[s]?[-_].* | .*[-_]tests? | conftest | mistakes | setup | __init__ | __main__"
)
# What else a course's folder holds, by the first parts of its path
COURSE_FOLDERS = re.compile(
    r"(?i)(?:solutions/\d\d-[^/]+|src/(?:gpt2|learn_gpt2|[^/]+\.egg-info)/.*|tests/.*|docs/.*)"
)
COURSE_FILES = re.compile(
    r"(?ix) readme.* | licen[cs]e.* | pyproject\.toml | makefile | constraints\.txt | glossary\.md "
    r"| contributing.* | conftest\.py | setup\.(?:py|cfg) | requirements.*\.txt | tox\.ini "
    r"| .*\.(?:svg|toml|lock|cfg|ini|yml|yaml) | mistakes\.py | test_.*\.py | notebook\.ipynb "
    r"| missed\.png | uv\.lock | changelog.* | citation\.cff"
)

DOCUMENT = re.compile(r"(?i).*\.(?:pdf|docx?|odt|rtf|pages|zip|tar|t?gz|7z|rar)")

# Endings of a name that tell submissions of a file apart: (what, rank). A higher rank is a
# later one; a number in it (group n) counts inside the rank.
SUFFIXES: tuple[tuple[str, int], ...] = (
    (r"[-_ .]*[(\[](?P<n>\d{1,4})[)\]]", 1),  # a browser's second download, Windows' second file
    (r"[-_ .]+v(?:er(?:sion)?)?[-_. ]?(?P<n>\d{1,4})(?:\.\d+)*", 1),
    (r"[-_ .]+(?:rev|take|try|attempt|versuch|nr|no)[-_. ]?(?P<n>\d{1,4})", 1),
    (r"[-_ ]+(?P<n>\d{1,3})", 1),  # Canvas numbers repeated submissions
    (
        r"[-_ .]+(?:really|very|the|my|mine|submit(?:ted)?|submission|solutions?|solved|answers?|"
        r"done|finished|completed?|ok|end|ende|abgabe|loesung|lösung|rendu|entrega|working|graded)",
        0,
    ),
    (
        r"[-_ .]+(?:final(?:e|ly)?|finale?s?|fix(?:ed)?|latest|newest|new|neu|updated?|corrected|"
        r"last|resubmi(?:t|tted|ssion)|redo|revised|definitiv)(?P<n>\d{0,3})",
        2,
    ),
    (r"[-_ .]+(?:copy|kopie|copia|copie|kopi)(?:[-_ ]*\(?(?P<n>\d{1,3})\)?)?", -1),
    (
        r"[-_ .]+(?:old|ol|alt|backup|bak|orig(?:inal)?|drafts?|wip|broken|before|previous|prev|"
        r"skeleton|template)(?P<n>\d{0,3})",
        -2,
    ),
)
PREFIXES: tuple[tuple[str, int], ...] = (
    (
        r"(?:copy(?:[-_ ]*\((?P<n>\d+)\))?[-_ ]of|kopie[-_ ]von|copia[-_ ]de|copie[-_ ]de)[-_ ]+",
        -1,
    ),
    (r"(?:final|finished|solved|my|the|fixed)[-_ ]+", 0),
    (r"(?P<n>\d{14})_", 0),  # Ilias: the time of the upload
)
_SUFFIXES = tuple((re.compile(f"(?:{regex})\\Z", re.I), rank) for regex, rank in SUFFIXES)
_PREFIXES = tuple((re.compile(regex, re.I), rank) for regex, rank in PREFIXES)

# Folders that tell one submission from another
VERSION_FOLDER = re.compile(
    r"(?i)(?:version|attempt|versuch|submission|try|rev(?:ision)?|v|abgabe|upload|entrega|rendu|"
    r"resubmission|take)[-_ #]*(\d{1,6})"
)
OLD_FOLDER = re.compile(
    r"(?i)(?:old|backups?|bak|archived?|archiv|previous|drafts?|alt|wip|orig(?:inal)?s?|superseded|"
    r"replaced|versions?|history).*"
)

# A problem by its number alone, with what is written before it: (words, whether a number behind
# them is a problem's even where nothing else says so).
NUMBERED: tuple[tuple[str, bool], ...] = (
    (
        r"problem|prob|pb|p|exercise|ex|task|question|q|aufgabe|übung|uebung|probleme|problema|",
        True,
    ),
    (r"piece|part|step|solution|sol|answer|lesson|chapter|ch|unit|module", True),
    (r"homework|hw|assignment|ass?|lab|week|w|ps|pset|sheet|blatt|devoir|tarea", False),
)
_NUMBERED = tuple(
    (re.compile(rf"(?:{words})[- ]?(?:no-?|nr-?|#)?0*(\d{{1,2}})", re.I), sure)
    for words, sure in NUMBERED
)

_WITHIN_NAME = re.compile(
    r"(?:^|-)(?:problem|prob|exercise|ex|task|question|aufgabe|p|q)-?0*(\d{1,2})(?=-|$)"
)

# How sure a place or a name is, from the course's own layout down
LAYOUT, FOLDER_AND_NAME, FULL_NAME, NAME, WITHIN, CONTENT, ALONE = 6, 5, 4, 3, 2, 1, 0


@dataclass
class File:
    """A file of one student. place: its path inside the hand-in. folders: names of the folders
    around it, those of the class included, which may name the problem. newness: what the platform
    tells of when it came.
    """

    node: Node
    place: str
    name: str
    folders: tuple[str, ...] = ()
    time: str = ""
    attempt: int = 0
    upload: int = 0


@dataclass
class Found:
    """What was recognized. unread: the files that nothing was taken of, those of the platform,
    the course and the system left out.
    """

    files: dict[int, bytes] = field(default_factory=dict)
    where: dict[int, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    attention: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    others: list[int] = field(default_factory=list)  # problems that are there and not graded


# ── names ───────────────────────────────────────────────────────────────────────────────────────


def plain(text: str) -> str:
    """A name in lower case with hyphens between its words: "05_Causal Masking" →
    05-causal-masking.
    """
    text = unicodedata.normalize("NFKC", re.sub(r"%2[0dD]", "-", text)).casefold()
    return re.sub(r"[\s_.+~\u2010-\u2015\u2212-]+", "-", text).strip("-")


def cut(name: str) -> str:
    """A name with its beginning and its end, when an archive gave it thousands of letters."""
    return name if len(name) <= MOST_LETTERS else name[:100] + name[100 - MOST_LETTERS :]


def split_name(name: str) -> tuple[str, str]:
    """(stem, kind): code, notebook, text, page or other."""
    name = cut(name)
    name = re.sub(r"\?[\w=&-]*\Z", "", name)  # what followed the name in an address
    name = LATE_NUMBER.sub(r"\2\1", name)
    for kind, regex in (("notebook", NOTEBOOK), ("code", CODE), ("text", TEXT), ("page", PAGE)):
        if (match := regex.fullmatch(name)) and match[1].strip(" ."):
            return match[1], kind
    return name, "other" if "." in name.strip(".") else "text"


@dataclass(frozen=True)
class Version:
    """Which submission of a file it is: rank, then number."""

    rank: int = 0
    number: int = 0


def versions(stem: str) -> list[tuple[str, Version]]:
    """A stem as it is, and with each ending that tells hand-ins apart taken off, one by one."""
    stem = cut(stem)
    found = [(stem, Version())]
    rank, number = 0, 0
    rest = stem.strip()
    for regex, prefix_rank in _PREFIXES:
        if (match := regex.match(rest)) and re.search(r"\w", rest[match.end() :]):
            rest, rank = rest[match.end() :], min(rank, prefix_rank)
            found.append((rest, Version(rank)))
    for _ in range(6):
        for regex, suffix_rank in _SUFFIXES:
            match = regex.search(rest)
            if match and re.search(r"\w", rest[: match.start()]):
                digits = match.groupdict().get("n")
                rest = rest[: match.start()]
                if suffix_rank < 0:
                    rank = min(rank, suffix_rank)
                elif rank >= 0:
                    rank = max(rank, suffix_rank)
                number = number or int(digits or 0)
                found.append((rest, Version(rank, number)))
                break
        else:
            break
    return found


@cache
def _words(problem: Problem) -> tuple[str, ...]:
    """What names a problem without its number: its slug, its title, what it provides. A function
    that is called by an ordinary word, such as `sample` or `shard`, is none: files and people have
    such names for other reasons.
    """
    names = [problem.slug, problem.title]
    for provided in problem.provides:
        name = provided.rpartition(".")[2]
        if problem.in_model or "_" in name or name in problem.classes or len(name) > 7:
            names.append(name)
    return tuple({_compact(name) for name in names if len(_compact(name)) > 4})


@cache
def _whole_words(problem: Problem) -> tuple[str, ...]:
    """What names a problem when it is all of a name: what it provides beyond `_words`, the file of
    the product that it writes, and a slug too short to be looked for inside other words.
    """
    if problem.in_model:
        return ()
    return _compact(problem.slug), _compact(problem.module.removesuffix(".py"))


@cache
def _full_names(problem: Problem) -> tuple[str, str]:
    """Number and slug without marks, with and without a leading zero."""
    return _compact(problem.folder), f"{problem.number}{_compact(problem.slug)}"


def _compact(text: str) -> str:
    return re.sub(r"[^\w]|_", "", plain(text))


def problem_of(stem: str, problems: Iterable[Problem]) -> tuple[Problem, int, bool] | None:
    """(problem, how sure, whether the name alone will do) of a name without endings; or None."""
    return _problem_of(cut(stem), tuple(problems))


@lru_cache(maxsize=20_000)
def _problem_of(stem: str, problems: tuple[Problem, ...]) -> tuple[Problem, int, bool] | None:
    name = plain(stem)
    flat = _compact(stem)
    if not flat:
        return None
    for problem in problems:
        if name == problem.folder or flat in _full_names(problem):
            return problem, FULL_NAME, True
    for problem in problems:
        if flat in _words(problem) or flat in _whole_words(problem):
            return problem, NAME, True
    for regex, sure in _NUMBERED:
        if match := regex.fullmatch(name):
            for problem in problems:
                if problem.number == int(match[1]):
                    return problem, NAME, sure
    longest = [
        (len(word), problem) for problem in problems for word in _words(problem) if word in flat
    ]
    longest.sort(key=lambda pair: -pair[0])
    if longest and (len(longest) == 1 or longest[0][0] > longest[1][0] or _one(longest)):
        return longest[0][1], NAME, True
    told = {int(number) for number in _WITHIN_NAME.findall(name)}
    parts = set(re.split(r"[^a-z]+", name))
    for problem in problems:  # gpt2_lora; not lora_smith, who is somebody
        whole = rf"(?<!\d)0*{problem.number}[-_ .]*{problem.slug}(?![a-z])"
        alone = parts - AROUND_A_NAME == {problem.slug} and told <= {problem.number}
        if alone or re.search(whole, name):
            return problem, NAME, True
    for problem in problems:
        if told == {problem.number}:  # hw3-problem-1, lee-alice-p1
            return problem, NAME, True
    match = re.match(r"(?:.*?[^\d])??0*(\d{1,2})(?:[^\d].*)?$", name)
    if match and len(re.findall(r"\d+", name)) == 1:
        for problem in problems:
            if problem.number == int(match[1]):
                return problem, NAME, False
    return None


def _one(longest: list[tuple[int, Problem]]) -> bool:
    return len({problem.number for size, problem in longest if size == longest[0][0]}) == 1


def without_problem(stem: str, problems: Iterable[Problem]) -> str:
    """What a loose file's name says besides the problem and the version: alice_01-embeddings →
    alice. "" when nothing is left.
    """
    rest = stem = cut(stem)
    for problem in problems:
        number = f"(?:(?:problem|prob|p|ex|hw)?[-_ ]*0*{problem.number}[-_ .]*)?"
        slug = r"[-_ .]*".join(re.escape(word) for word in problem.slug.split("-"))
        telling = [n for n in problem.names if problem.in_model or "_" in n]
        telling += [n for n in problem.classes if n not in telling]
        for word in (slug, *map(re.escape, telling)):
            new = re.sub(rf"(?i)(?<![^\W_]){number}{word}(?![^\W\d_])", " ", rest)
            if new != rest:
                rest = new
                break
    for text, _ in versions(rest.strip(" -_.")):
        rest = text
    rest = re.sub(
        r"(?i)(?<![^\W_])(?:problem|prob|exercise|homework|hw)[-_ ]*\d{1,2}(?!\w)", " ", rest
    )
    rest = re.sub(r"(?i)(?<![^\W_])problems?(?![^\W_])", " ", rest) if rest != stem else rest
    return re.sub(r"\s+", " ", rest.replace("_", " ")).strip(" -_.")


def without_numbered(stem: str, problems: Iterable[Problem]) -> str:
    """A name without a problem's number and name: alice_01-embeddings → alice. The name as it is
    when it holds none, or nothing else.
    """
    if len(stem) > MOST_LETTERS:
        return stem
    for problem in problems:
        slug = r"[-_ .]*".join(re.escape(word) for word in problem.slug.split("-"))
        number = f"0*{problem.number}"
        either = (
            rf"(?:(?:problem|prob|p)?[-_ ]*{number}[-_ .]*{slug}|(?:problem|prob)[-_ ]*{number})"
        )
        rest = re.sub(rf"(?i)(?<![^\W_]){either}(?![^\W_])", " ", stem)
        if rest == stem:
            continue
        rest = re.sub(r"\s+", " ", rest).strip(" -_.")
        if re.search(r"[^\W\d_]{2}", rest):
            return rest
    return stem


# ── content ─────────────────────────────────────────────────────────────────────────────────────


@cache
def _defines(problem: Problem) -> tuple[re.Pattern, ...]:
    """A pattern for each thing that a problem's file has to define."""
    found = []
    for name in problem.provides:
        owner, _, method = name.rpartition(".")
        if owner:
            found.append(re.compile(rf"^class\s+{owner}\b", re.M))
            found.append(re.compile(rf"^\s+(?:async\s+)?def\s+{method}\b", re.M))
        else:
            found.append(
                re.compile(rf"^(?:(?:class|(?:async\s+)?def)\s+{name}\b|{name}\s*[:=])", re.M)
            )
    return tuple(found)


def fits(text: str, problems: Iterable[Problem]) -> set[int]:
    """Numbers of the problems whose names a text defines, all of them each."""
    return {p.number for p in problems if all(regex.search(text) for regex in _defines(p))}


def _most_specific(text: str, found: set[int]) -> set[int]:
    """Problem 10's file is given an _init_weights that does nothing: that is not problem 11."""
    if {10, 11} <= found and 12 not in found and _does_nothing(text, "_init_weights"):
        return found - {11}
    return found


def _does_nothing(text: str, method: str) -> bool:
    """Whether a method's body is empty but for comments and documentation."""
    first, *lines = text[text.find(f"def {method}") :].splitlines()[:60]
    line = text[: text.find(f"def {method}")].rpartition("\n")[2]
    body = []
    for inner in lines:
        if inner.strip() and len(inner) - len(inner.lstrip()) <= len(line):
            break
        body.append(inner.strip())
    code = re.sub(r'^\s*("""|\'\'\').*?\1', "", "\n".join(body), count=1, flags=re.DOTALL)
    words = [w for w in code.splitlines() if w and not w.startswith("#")]
    return first.rstrip().endswith(":") and all(
        re.match(r"(?:pass|return)\b|\.\.\.", word) for word in words
    )


_OTHER_FORMATS = (
    (b"PK\x03\x04", "is a zip archive or an office document, whatever its name says"),
    (b"%PDF", "is a PDF, whatever its name says"),
    (b"{\\rtf", "is rich text (RTF): it has to be saved as plain text"),
    (b"\xd0\xcf\x11\xe0", "is a Word document, whatever its name says"),
    (b"\x89PNG", "is a picture, whatever its name says"),
    (b"\xff\xd8\xff", "is a picture, whatever its name says"),
)


def other_format(data: bytes) -> str:
    """What a file that is called code is instead; "" when it may be code."""
    for magic, what in _OTHER_FORMATS:
        if data.startswith(magic):
            return what
    head = data[:400].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "is a web page (HTML): the file itself has to be downloaded, not the page around it"
    return ""


def as_python(data: bytes) -> tuple[bytes, str]:
    """(a source that Python reads, what was done to it or ""). UTF-16 with its mark and
    Windows-1252 become UTF-8; anything else stays as it is.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            text = data.decode("utf-16")
        except UnicodeDecodeError:
            return data, ""
        return (data, "") if "\0" in text else (text.encode(), "was UTF-16 and is read as such")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        data.decode(encoding)
    except UnicodeDecodeError:
        pass
    except (SyntaxError, LookupError):
        try:
            data.decode("utf-8")
            return data, ""  # a coding line that Python will complain of
        except UnicodeDecodeError:
            pass
    else:
        return data, ""
    if re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", data):
        return data, ""
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.encode(), "was not UTF-8 and is read as Windows-1252"


def page_text(data: bytes) -> bytes:
    """The text of a page that a platform made of what was typed or pasted into a form. Refused
    when it can't be read.
    """
    answer = _ask_child(["page"], data)
    return str(answer["text"]).encode("utf-8", "replace")


def from_notebook(data: bytes, problems: Iterable[Problem]) -> dict[int, tuple[bytes, list[int]]]:
    """A notebook's code for each problem that it solves: number → (source, numbers of the cells).

    Refused when it can't be read.
    """
    problems = [p for p in problems if _mentions(data, p)]
    if not problems:
        return {}
    wanted = {str(p.number): sorted({name.split(".")[0] for name in p.provides}) for p in problems}
    answer = _ask_child(["notebook", json.dumps(wanted)], data)
    found = {}
    for problem in problems:
        got = answer.get(str(problem.number))
        if got and fits(got["source"], [problem]):
            source = got["source"].encode("utf-8", "replace")
            found[problem.number] = (source, got["cells"])
    return found


def _mentions(data: bytes, problem: Problem) -> bool:
    """Whether a notebook's bytes hold what a problem's code has to hold."""
    words = (f"class {name}" if name in problem.classes else name for name in problem.names)
    return all(word.encode() in data for word in words)


def _ask_child(command: list[str], data: bytes) -> dict:
    """What the confined process says of some bytes. Refused when it refuses, ends, or is late."""
    line, environment = intake(*command)
    done = child.run(line, CHILD_SECONDS, environment, told=data)
    if done.code is None:
        raise Refused("takes too long to read")
    try:
        answer = json.loads(done.output)
    except ValueError:
        raise Refused("ended the process that reads it") from None
    if "refused" in answer:
        raise Refused(shown(str(answer["refused"])))
    return answer


# ── weighing ────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Candidate:
    """A file that may be the one for a problem, and how well it may."""

    file: File
    problem: Problem
    sure: int
    version: Version
    kind: str  # code, notebook, page, text
    data: bytes = b""
    refused: str = ""
    skeleton: bool = False
    fitting: bool = False
    literal: bool = False
    around: tuple[int, int] = (0, 0)  # the version that its folder's or archive's name tells
    old: bool = False
    cells: list[int] = field(default_factory=list)
    note: str = ""

    def clearly_before(self, other: Candidate) -> bool:
        """Whether something says that this one is an earlier hand-in, or a lesser one, than
        another.
        """
        mine, theirs = self.file, other.file
        if (mine.time, mine.attempt) != (theirs.time, theirs.attempt) or self.kind != other.kind:
            return True
        if (self.old and not other.old) or self.version.rank < min(0, other.version.rank + 1):
            return True
        if self.sure <= WITHIN < other.sure:
            return True
        told = (self.around, self.version, mine.upload) != (
            other.around,
            other.version,
            theirs.upload,
        )
        return told and self.sure == other.sure

    @property
    def rank(self) -> tuple:
        """The higher, the better."""
        kinds = {"code": 3, "notebook": 2, "page": 1, "text": 0}
        return (
            not self.refused,
            not self.skeleton,
            (self.file.time, self.file.attempt),
            kinds[self.kind],
            not self.old,
            self.sure >= NAME,
            self.around,
            (self.version.rank, self.version.number),
            self.file.upload,
            self.sure,
            self.fitting,
            self.literal,
            -len(self.file.folders),
        )


def recognize(
    files: list[File],
    problems: list[Problem],
    skeletons: dict[int, bytes],
    every: list[Problem] | None = None,
) -> Found:
    """The file for each problem, out of everything that a student submitted. `every` are the
    course's problems, which names are compared with, also where only some are graded.
    """
    return _Weighing(files, problems, skeletons, every or problems).result()


class _Weighing:
    def __init__(
        self,
        files: list[File],
        problems: list[Problem],
        skeletons: dict[int, bytes],
        every: list[Problem],
    ):
        self.problems, self.every, self.skeletons = problems, every, skeletons
        self.found = Found()
        self.reads = 0
        self.candidates: dict[int, list[Candidate]] = {p.number: [] for p in every}
        self.used: set[int] = set()
        self.said: set[int] = set()
        courses = _course_roots(files)
        self.files = [file for file in files if not _of_the_course(file, courses)]
        self.courses = courses

    def result(self) -> Found:
        rest = [file for file in self.files if not self._by_place(file)]
        self._by_content(rest)
        self._alone(rest)
        for problem in self.problems:
            self._choose(problem)
        graded = {p.number for p in self.problems}
        self.found.others = [n for n, c in self.candidates.items() if c and n not in graded]
        self._unread()
        return self.found

    # ── reading

    def _text(self, candidate: Candidate) -> str:
        """Read a candidate's file; its text, "" when it can't be read."""
        node = candidate.file.node
        self.reads += 1
        try:
            if self.reads > MAX_READ:
                raise Refused(f"{node.path} is not looked at: there are more than {MAX_READ} files")
            most = MAX_NOTEBOOK if candidate.kind == "notebook" else 1_000_000
            data = node.read(most)
            if candidate.kind != "page" and (wrong := other_format(data)):
                raise Refused(f"{candidate.file.place} {wrong}")
            if candidate.kind == "code" and _is_notebook(data):
                candidate.kind = "notebook"
            if candidate.kind == "notebook":
                self._notebook(candidate, data)
            elif candidate.kind == "page":
                if b"class" not in data and b"def" not in data:
                    return ""
                candidate.data = page_text(data)
                candidate.note = "was typed into a form; its text is used"
            else:
                candidate.data, candidate.note = as_python(data)
        except Refused as error:
            candidate.refused = str(error)
            return ""
        skeleton = self.skeletons.get(candidate.problem.number)
        candidate.skeleton = skeleton is not None and _lines(skeleton) == _lines(candidate.data)
        return candidate.data.decode("utf-8", "replace")

    def _notebook(self, candidate: Candidate, data: bytes) -> None:
        place, problem = candidate.file.place, candidate.problem
        try:
            got = from_notebook(data, [problem])
        except Refused as error:
            raise Refused(f"{place} {error}") from None
        if problem.number not in got:
            names = _all_of(problem.names)
            raise Refused(f"{place} is a notebook, and no cell of it defines {names}")
        candidate.data, candidate.cells = got[problem.number]

    # ── by place and name

    def _by_place(self, file: File) -> bool:
        """Whether the place or the name says which problem it is; then it is a candidate."""
        stem, kind = split_name(file.name)
        if kind == "other" or (NOT_PIECES.fullmatch(stem) and kind == "code"):
            return False
        around = self._around(file)
        best: tuple[int, Problem, Version, bool] | None = None
        for text, version in versions(stem):
            said = problem_of(text, self.every)
            if plain(text) == "problem" and around:
                problem, level = around[0], FOLDER_AND_NAME
                if "problems" in [plain(name) for name in file.folders[-2:-1]]:
                    level = LAYOUT
                if around[1] < FULL_NAME:
                    level = NAME
                new = (level, problem, version, True)
            elif said:
                new = (said[1], said[0], version, said[2])
            else:
                continue
            if best is None or (new[3], new[0]) >= (best[3], best[0]):
                best = new
        if best is None and around and kind != "page":
            best = (WITHIN, around[0], versions(stem)[-1][1], True)
        if best is None or (kind in ("text", "page") and best[0] < WITHIN):
            return False
        level, problem, version, alone_will_do = best
        candidate = self._candidate(file, problem, level, version, kind)
        text = self._text(candidate)
        candidate.fitting = problem.number in fits(text, [problem])
        others = _most_specific(text, fits(text, self.every))
        if kind in ("text", "page") and not candidate.fitting:
            return False  # notes about a problem, not its code
        if level <= NAME and not candidate.fitting and not candidate.refused:
            if others or not alone_will_do:
                return False  # what it defines says more than its name
            if level == WITHIN and len(self._code_beside(file)) > 1:
                return False
        self.candidates[problem.number].append(candidate)
        self.said.add(id(file))
        return True

    def _around(self, file: File) -> tuple[Problem, int] | None:
        """The problem that the nearest folder names."""
        for name in reversed(file.folders):
            for text, _ in versions(name):
                said = problem_of(text, self.every)
                if said and said[2]:
                    return said[0], said[1]
        return None

    def _code_beside(self, file: File) -> list[File]:
        folder = file.place.rpartition("/")[0]
        return [
            other
            for other in self.files
            if other.place.rpartition("/")[0] == folder
            and split_name(other.name)[1] == "code"
            and not NOT_PIECES.fullmatch(split_name(other.name)[0])
        ]

    def _candidate(
        self, file: File, problem: Problem, sure: int, version: Version, kind: str
    ) -> Candidate:
        candidate = Candidate(file, problem, sure, version, kind)
        candidate.literal = split_name(file.name)[0] in (problem.folder, "problem")
        for name in file.folders:
            if match := VERSION_FOLDER.fullmatch(name):
                file.attempt = max(file.attempt, int(match[1]))
            elif name.isdigit() and len(name) <= 2 and sure >= NAME:
                file.attempt = max(file.attempt, int(name))
            elif len(name) > 9 and (time := platforms.sortable(name)):
                file.time = max(file.time, time)
        for name in file.folders[-2:]:
            told = versions(name)[-1][1]
            said = problem_of(name, self.every)
            if not (said and said[2]) and (told.rank, told.number) != (0, 0):
                candidate.around = (told.rank, told.number)
        candidate.old = any(OLD_FOLDER.fullmatch(name) for name in file.folders[-2:])
        return candidate

    # ── by content

    def _by_content(self, rest: list[File]) -> None:
        """Files that define what exactly one problem wants that has no file yet."""
        waiting: list[tuple[File, str, str, set[int]]] = []
        for file in rest:
            stem, kind = split_name(file.name)
            if kind == "other" or (NOT_PIECES.fullmatch(stem) and kind == "code"):
                continue
            if kind == "notebook":
                self._notebook_by_content(file, versions(stem)[-1][1])
                continue
            probe = Candidate(file, self.every[0], CONTENT, Version(), kind)
            text = self._text(probe)
            if probe.kind == "notebook":
                self._notebook_by_content(file, versions(stem)[-1][1])
                continue
            numbers = _most_specific(text, fits(text, self.every))
            if numbers:
                waiting.append((file, kind, stem, numbers))
        graded = {p.number for p in self.problems}
        again = True
        while again:  # what is taken by one file leaves less for the others
            again = False
            for item in list(waiting):
                file, kind, stem, numbers = item
                free = {n for n in numbers & graded if not self._has(n)}
                wanted = free or (numbers & graded if len(numbers) == 1 else set())
                if len(wanted) == 1 and (len(numbers) == 1 or len(numbers & graded) == 1 or free):
                    waiting.remove(item)
                    self._take_by_content(file, wanted.pop(), kind, stem)
                    again = True
        for file, _, _, numbers in waiting:
            if numbers & graded and not {n for n in numbers & graded if self._has(n)} >= numbers:
                several = ", ".join(f"{n:02d}" for n in sorted(numbers & graded))
                self.found.attention.append(
                    f"{file.place} could be problem {several}: nothing says which it is for"
                )

    def _has(self, number: int) -> bool:
        return any(not c.refused and not c.skeleton for c in self.candidates[number])

    def _take_by_content(self, file: File, number: int, kind: str, stem: str) -> None:
        problem = next(p for p in self.every if p.number == number)
        version = versions(stem)[-1][1]
        candidate = self._candidate(file, problem, CONTENT, version, kind)
        self._text(candidate)
        candidate.fitting = True
        self.candidates[number].append(candidate)
        self.said.add(id(file))

    def _notebook_by_content(self, file: File, version: Version) -> None:
        try:
            got = from_notebook(file.node.read(MAX_NOTEBOOK), self.problems)
        except Refused as error:
            if file.name.casefold() != "notebook.ipynb":
                self.found.attention.append(f"{file.place}: {str(error).split(': ')[-1]}")
            return
        for problem in self.problems:
            if problem.number in got:
                candidate = self._candidate(file, problem, CONTENT, version, "notebook")
                candidate.data, candidate.cells = got[problem.number]
                candidate.fitting = True
                self.candidates[problem.number].append(candidate)
                self.said.add(id(file))

    def _alone(self, rest: list[File]) -> None:
        """The only file there is, where only one problem is graded."""
        if len(self.problems) != 1 or self._has(self.problems[0].number):
            return
        problem = self.problems[0]
        code = []
        for file in rest:
            stem, kind = split_name(file.name)
            if kind != "code" or id(file) in self.said or NOT_PIECES.fullmatch(stem):
                continue
            if problem_of(versions(stem)[-1][0], [p for p in self.every if p is not problem]):
                continue  # it says that it is another problem's
            code.append((file, versions(stem)[-1][1]))
        if len({plain(versions(split_name(f.name)[0])[-1][0]) for f, _ in code}) == 1:
            for file, version in code:
                candidate = self._candidate(file, problem, ALONE, version, "code")
                text = self._text(candidate)
                if fits(text, [p for p in self.every if p is not problem]):
                    continue
                self.candidates[problem.number].append(candidate)
                self.said.add(id(file))

    # ── choosing

    def _choose(self, problem: Problem) -> None:
        ranked = sorted(self.candidates[problem.number], key=lambda c: c.rank, reverse=True)
        if not ranked:
            return
        best, number = ranked[0], problem.number
        self.found.where[number] = best.file.place
        if best.refused:
            self.found.refused[number] = best.refused
            self.found.notices.append(best.refused)
        else:
            self.found.files[number] = best.data
            self._tell(best)
        others = [
            c
            for c in ranked[1:]
            if (c.refused and c.kind != "notebook")
            or (not c.refused and not c.skeleton and _lines(c.data) != _lines(best.data))
        ]
        if others:
            places = [c.file.place for c in others]
            notice = (
                f"problem {number:02d} is there more than once; {best.file.place} is graded, "
                f"not {named(list(dict.fromkeys(places)))}"
            )
            self.found.notices.append(notice)
            if any(not c.clearly_before(best) and not c.refused for c in others):
                self.found.attention.append(notice)  # nothing says which of them is the later one

    def _tell(self, best: Candidate) -> None:
        """A notice where somebody might have meant something else."""
        place, number = best.file.place, best.problem.number
        if best.kind == "notebook":
            cells = ", ".join(map(str, best.cells))
            many = "cells" if len(best.cells) > 1 else "cell"
            self.found.notices.append(
                f"problem {number:02d} is taken from {place}, a notebook: {many} {cells}, and what "
                "is used there"
            )
        elif best.sure == CONTENT:
            defines = _all_of(best.problem.names)
            self.found.notices.append(
                f"{place} is taken for problem {number:02d}, because it defines {defines}"
            )
        elif best.sure == ALONE:
            self.found.notices.append(
                f"{place} is taken for problem {number:02d}, the only one that is graded"
            )
        if best.note:
            self.found.notices.append(f"{place} {best.note}")

    # ── what is left

    def _unread(self) -> None:
        chosen = {id(c.file) for found in self.candidates.values() for c in found}
        for file in self.files:
            if id(file) in chosen:
                continue
            note = f" ({file.node.note})" if file.node.note else ""
            if platforms.PLATFORM_FILES.fullmatch(file.name) and not note:
                continue
            if not note and _in_course(file, self.courses) and self._from_course(file):
                continue
            self.found.unread.append(f"{file.place}{note}")

    def _from_course(self, file: File) -> bool:
        """Whether a file in a copy of the course is one that came with it, by its name."""
        _, kind = split_name(file.name)
        own = kind in ("code", "notebook") or DOCUMENT.fullmatch(file.name)
        return not own or bool(COURSE_FILES.fullmatch(file.name))


def _is_notebook(data: bytes) -> bool:
    head = data[:2000].lstrip(b"\xef\xbb\xbf \t\r\n")
    return head.startswith(b"{") and b'"cells"' in data and b'"nbformat"' in data


def _lines(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").rstrip()


def named(names: list[str], most: int = MOST_NAMED) -> str:
    """Names as a list in a sentence; the number of those beyond `most`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f", and {more} more" if more > 0 else "")


def _all_of(names: tuple[str, ...]) -> str:
    """What has to be there, in a sentence."""
    return " and ".join(names) if len(names) < 3 else named(list(names))


def _course_roots(files: list[File]) -> set[str]:
    """Folders that hold a copy of the course: problems/ beside solutions/, src/ or the like."""
    inside: dict[str, set[str]] = {}
    for file in files:
        parts = file.place.split("/")
        for i in range(min(len(parts), 8)):
            inside.setdefault("/".join(parts[:i]), set()).add(parts[i].casefold())
    beside = {"solutions", "src", "pyproject.toml", "makefile"}
    return {folder for folder, names in inside.items() if "problems" in names and names & beside}


def _root_of(file: File, courses: set[str]) -> str | None:
    parts = file.place.split("/")
    around = ("/".join(parts[:i]) for i in range(len(parts)))
    return next((folder for folder in around if folder in courses), None)


def _in_course(file: File, courses: set[str]) -> bool:
    return _root_of(file, courses) is not None


def _of_the_course(file: File, courses: set[str]) -> bool:
    """Whether a file came with the course and is not a student's answer."""
    root = _root_of(file, courses)
    if root is None:
        return False
    return bool(COURSE_FOLDERS.fullmatch(file.place[len(root) :].strip("/")))
