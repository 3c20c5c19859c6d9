"""Downloads as platforms make them, with students as they are: who handed in what is known.

`students()` gives forty, whose names and habits are odd in every way that is known here;
`PLATFORMS` holds a function for each kind of download, which turns them into files.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from learn_gpt2 import manifest

ROOT = Path(__file__).resolve().parents[3]
FIRST = manifest.get(1)
SECOND = manifest.get(2)
RIGHT = {p.number: p.solution_path(ROOT).read_bytes() for p in (FIRST, SECOND)}
SKELETON = {p.number: p.skeleton_path(ROOT).read_bytes() for p in (FIRST, SECOND)}
# each loses some of its points and keeps some
WRONG = {
    1: RIGHT[1].replace(b"raise ValueError(", b"print("),
    2: RIGHT[2].replace(b"dim=-1", b"dim=-2"),
}
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(40)


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip of some files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar of some files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def notebook(*cells: str) -> bytes:
    """A notebook of code cells."""
    found = [{"cell_type": "markdown", "metadata": {}, "source": ["# my work\n"]}]
    for text in cells:
        cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": 1}
        found.append(cell | {"source": text.splitlines(keepends=True)})
    whole = {"cells": found, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1).encode()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Put files into a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content)
    return folder


# ── habits ──────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Work:
    """What a student uploads, file name → content, and what is right or wrong in it. pieces:
    problem → "right", "wrong", or "" for nothing that counts.
    """

    uploads: dict[str, bytes]
    pieces: dict[int, str] = field(default_factory=lambda: {1: "right", 2: "right"})


def habits() -> list[Callable[[], Work]]:
    """Ways in which students hand in the first two problems."""
    one, two = RIGHT[1], RIGHT[2]
    both = {"01-embeddings.py": one, "02-attention-basics.py": two}
    course = {
        "problems/01-embeddings/problem.py": one,
        "problems/01-embeddings/README.md": b"# Embeddings",
        "problems/01-embeddings/test_embeddings.py": b"def test(): pass",
        "problems/02-attention-basics/problem.py": two,
        "solutions/01-embeddings.py": WRONG[1],
        "src/gpt2/model.py": b"class Embeddings: pass",
        "src/learn_gpt2/skeletons/01-embeddings.py": SKELETON[1],
        "README.md": b"# Build GPT-2",
    }
    deep = {f"homework/gpt2-course/{name}": data for name, data in course.items()}
    return [
        lambda: Work(both),
        lambda: Work({"homework.zip": zipped(both)}),
        lambda: Work({"homework.tar.gz": tarred(both)}),
        lambda: Work({"hw.zip": zipped({f"hw/{n}": data for n, data in both.items()})}),
        lambda: Work({"gpt2-course-main.zip": zipped(course)}),
        lambda: Work({"everything.tgz": tarred(deep)}),
        lambda: Work({"all.zip": zipped({"inner.zip": zipped(both), "x/": b""})}),
        lambda: Work({"01-embeddings-1.py": one, "02-attention-basics-1.py": two}),
        lambda: Work({"01_embeddings.py": one, "02_attention_basics.py": two}),
        lambda: Work({"01 Embeddings.py": one, "02 Attention Basics (1).py": two}),
        lambda: Work({"01-EMBEDDINGS.PY": one, "02-Attention-Basics.Py": two}),
        lambda: Work({"01-embeddings.py.txt": one, "02-attention-basics.py.txt": two}),
        lambda: Work({"embeddings.py": one, "attention_basics.py": two}),
        lambda: Work({"Embeddings.py": one, "SimpleAttention.py": two}),
        lambda: Work({"problem1.py": one, "problem2.py": two}),
        lambda: Work({"1.py": one, "2.py": two}),
        lambda: Work({"problem.py": one, "main.py": two}),
        lambda: Work({"problem.py": one, "problem (1).py": two}),
        lambda: Work({"01-embeddings-final.py": one, "02-attention-basics_v2.py": two}),
        lambda: Work(
            {"01-embeddings.py": WRONG[1], "01-embeddings-2.py": one}, {1: "right", 2: ""}
        ),
        lambda: Work(
            {"01-embeddings.py": one, "01-embeddings-old.py": WRONG[1]}, {1: "right", 2: ""}
        ),
        lambda: Work({"Copy of 01-embeddings.py": one, "Copy of 02-attention-basics.py": two}),
        lambda: Work(
            {"02-attention-basics.py": WRONG[2], "shot.png": PICTURE}, {1: "", 2: "wrong"}
        ),
        lambda: Work(
            {"01-embeddings.py": WRONG[1], "report.pdf": b"%PDF-1.7"}, {1: "wrong", 2: ""}
        ),
        lambda: Work({"p01.py": one.replace(b"\n", b"\r\n"), "p02.py": b"\xef\xbb\xbf" + two}),
        lambda: Work({"01-embeddings.py": one.decode().encode("utf-16"), "ex2.py": two}),
        lambda: Work(
            {"homework.ipynb": notebook("%pip install torch", one.decode())}, {1: "right", 2: ""}
        ),
        lambda: Work({"both.ipynb": notebook("!ls", one.decode(), two.decode(), "print(1)")}),
        lambda: Work({"homework.rar": b"Rar!\x1a\x07\x01\x00"}, {1: "", 2: ""}),
        lambda: Work({"homework.7z": b"7z\xbc\xaf\x27\x1c"}, {1: "", 2: ""}),
        lambda: Work({"broken.zip": b"PK\x03\x04 not at all"}, {1: "", 2: ""}),
        lambda: Work({"essay.docx": b"PK\x03\x04docx"}, {1: "", 2: ""}),
        lambda: Work(
            {"01-embeddings.py": SKELETON[1], "02-attention-basics.py": two}, {1: "", 2: "right"}
        ),
        lambda: Work(
            {
                "work.zip": zipped(
                    {"a/problems/01-embeddings/problem.py": SKELETON[1], "a/01-embeddings.py": one}
                )
            },
            {1: "right", 2: ""},
        ),
        lambda: Work(
            {"mac.zip": zipped({**both, "__MACOSX/._01-embeddings.py": b"\0", ".DS_Store": b"\0"})}
        ),
        lambda: Work({"win.zip": zipped({f"hw\\{n}": data for n, data in both.items()})}),
        lambda: Work({"embeddings_final_v3.py": one, "attention-basics-latest.py": two}),
        lambda: Work({"gpt2.py": one}, {1: "right", 2: ""}),
        lambda: Work({"hw1_embeddings.py": one, "hw1_simple_attention.py": two}),
        lambda: Work(
            {"solutions.zip": zipped({f"solutions/{n}": data for n, data in both.items()})}
        ),
    ]


# ── people ──────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Student:
    """A person, and what they handed in."""

    first: str
    last: str
    login: str
    id: int
    work: Work
    late: bool = False

    @property
    def full(self) -> str:
        return f"{self.first} {self.last}".strip()


NAMES = [
    ("Bob", "Example"),
    ("Erin", "Example"),
    ("José", "Ñandú"),
    ("Jürgen", "Müller"),
    ("Siobhán", "O'Brien"),
    ("Anne-Marie", "Lévêque"),
    ("Jan", "van der Berg"),
    ("María José", "de la Cruz"),
    ("雷", "李"),
    ("花子", "山田"),
    ("علي", "حسن"),
    ("Вера", "Иванова"),
    ("Nguyễn", "Thị Hương"),
    ("Wei", "Wang"),
    ("Wei", "Wang"),
    ("X Æ", "A-12"),
    ("Ann", "Lee 🎓"),
    ("Jo", "Ng"),
    ("D'Angelo", "St. John"),
    ("Ýmir", "Þórsson"),
    ("Mary Ann", "Smith"),
    ("Maryann", "Smith"),
    ("John", "Smith Jr."),
    ("Łukasz", "Żółć"),
    ("Chloë", "Brontë"),
    ("Amélie", "Ça"),
    ("Ravi", "Kumar 2"),
    ("Ola", "Nordmann"),
    ("Kari", "Nordmann"),
    ("Tam", "Final"),
    ("April", "May"),
    ("Copy", "Old"),
    ("Max", "Muster"),
    ("Problem", "One"),
    ("Zoë", "Embeddings"),
    ("Al", "Gore"),
    ("Io", "Io"),
    ("Sam", "Submission"),
    ("Maximiliana Theodora Philippina Wilhelmine", "von und zu Hohenstein-Langenburg"),
    ("Pat", "Ω"),
]


def students() -> list[Student]:
    """Forty, each with another habit."""
    found = []
    for i, ((first, last), habit) in enumerate(zip(NAMES, habits(), strict=True)):
        found.append(Student(first, last, f"s{i:02d}user", 12_000 + i, habit(), late=i % 7 == 3))
    return found


# ── downloads ───────────────────────────────────────────────────────────────────────────────────


def word(text: str) -> str:
    """A name as Canvas writes it: letters, digits and underscores, in lower case."""
    return "".join(c for c in text if c.isalnum() or c == "_").lower()


def canvas(people: list[Student]) -> dict[str, bytes]:
    """One flat folder: lastfirst[_LATE]_userid_fileid_name."""
    files = {}
    upload = 678_000
    for s in people:
        for name, data in s.work.uploads.items():
            upload += 1
            late = "_LATE" if s.late else ""
            files[f"{word(s.last + s.first)}{late}_{s.id}_{upload}_{name}"] = data
    return files


def moodle(people: list[Student]) -> dict[str, bytes]:
    """A folder per student and kind of submission."""
    files = {}
    for s in people:
        folder = f"{s.full.replace('_', ' ')}_{s.id}_assignsubmission_file_"
        files |= {f"{folder}/{name}": data for name, data in s.work.uploads.items()}
        if s.id % 3 == 0:
            text = f"{s.full}_{s.id}_assignsubmission_onlinetext_/onlinetext.html"
            files[text] = b"<p>Here it is.</p>"
    return files


def moodle_flat(people: list[Student]) -> dict[str, bytes]:
    """Without folders."""
    return {
        f"{s.full}_{s.id}_assignsubmission_file_{name}": data
        for s in people
        for name, data in s.work.uploads.items()
    }


def moodle_blind(people: list[Student]) -> dict[str, bytes]:
    """Blind marking: everybody is called Participant."""
    return {
        f"Participant_{s.id}_assignsubmission_file_/{name}": data
        for s in people
        for name, data in s.work.uploads.items()
    }


def blackboard(people: list[Student]) -> dict[str, bytes]:
    """assignment_login_attempt_time_name, and a receipt."""
    files = {}
    for s in people:
        head = f"Problem Set_1_{s.login}_attempt_2026-11-30-10-20-{s.id % 60:02d}"
        lines = [f"Name: {s.full} ({s.login})", "Assignment: Problem Set_1", "", "Files:"]
        for name, data in s.work.uploads.items():
            files[f"{head}_{name}"] = data
            lines += [f"\tOriginal filename: {name}", f"\tFilename: {head}_{name}"]
        files[f"{head}.txt"] = "\n".join(lines).encode()
    return files


def gradescope(people: list[Student]) -> dict[str, bytes]:
    """A folder per submission, and who it is from in a file beside them."""
    files, lines = {}, ["---"]
    for s in people:
        folder = f"submission_{400_000 + s.id}"
        lines += [f"{folder}:", "  :submitters:", f'  - :name: "{s.full}"']
        lines += [f"    :sid: '{s.id}'", f"    :email: {s.login}@school.edu"]
        lines += ["  :created_at: 2026-11-30 10:20:30.000000000 Z", "  :score: 0.0"]
        for name, data in s.work.uploads.items():
            files[f"assignment_1234_export/{folder}/{name}"] = data
    files["assignment_1234_export/submission_metadata.yml"] = "\n".join(lines).encode()
    return files


def github(people: list[Student]) -> dict[str, bytes]:
    """Repositories of one assignment, cloned."""
    files = {}
    for s in people:
        folder = f"gpt2-submissions/gpt2-{s.login}"
        files[f"{folder}/.git/config"] = b"[core]"
        files[f"{folder}/.github/workflows/board.yml"] = b"on: push"
        files |= {f"{folder}/{name}": data for name, data in s.work.uploads.items()}
    return files


def brightspace(people: list[Student]) -> dict[str, bytes]:
    """A folder per submission, with its time."""
    files = {"index.html": b"<html></html>"}
    for s in people:
        folder = f"{s.id}-67890 - {s.full} - Nov 30, 2026 1020 AM"
        files |= {f"{folder}/{name}": data for name, data in s.work.uploads.items()}
    return files


def brightspace_flat(people: list[Student]) -> dict[str, bytes]:
    """Without folders."""
    files = {"index.html": b"<html></html>"}
    for s in people:
        head = f"{s.id}-67890 - {s.full} - Nov 30, 2026 {s.id % 11 + 1}20 PM"
        files |= {f"{head} - {name}": data for name, data in s.work.uploads.items()}
    return files


def sakai(people: list[Student]) -> dict[str, bytes]:
    """Folders inside an assignment's folder."""
    files = {
        "Problem Set/grades.csv": b"Problem Set,Points\n\nDisplay ID,ID,Last Name,First Name\n"
    }
    for s in people:
        folder = f"Problem Set/{s.last}, {s.first}({s.login})"
        files[f"{folder}/timestamp.txt"] = b"20261130102030000"
        files[f"{folder}/comments.txt"] = b""
        files[f"{folder}/{s.last}, {s.first}({s.login})_submissionText.html"] = b"<p></p>"
        files[f"{folder}/Feedback Attachment(s)/01-embeddings.py"] = b"your teacher's"
        for name, data in s.work.uploads.items():
            files[f"{folder}/Submission attachment(s)/{name}"] = data
    return files


def teams(people: list[Student]) -> dict[str, bytes]:
    """A folder per student, assignment and version."""
    files = {}
    for i, s in enumerate(people):
        name = f"{s.full}" if s.full != "Wei Wang" else f"Wei Wang {i}"
        folder = f"Submitted files/{name}/Problem Set/Version 2"
        files[f"Submitted files/{name}/Problem Set/Version 1/notes.txt"] = b"soon"
        files |= {f"{folder}/{file}": data for file, data in s.work.uploads.items()}
    return files


def ilias(people: list[Student]) -> dict[str, bytes]:
    """Last_First_login_id, and a time before each file's name."""
    files = {}
    for s in people:
        last, first = s.last.replace("_", " "), s.first.replace("_", " ")
        folder = f"Abgaben/{last}_{first}_{s.login}_{s.id}"
        for name, data in s.work.uploads.items():
            files[f"{folder}/20261130102030_{name}"] = data
    return files


def autolab(people: list[Student]) -> dict[str, bytes]:
    """email_version_name in one folder."""
    return {
        f"{s.login}@school.edu_{s.id % 9 + 1}_{name}": data
        for s in people
        for name, data in s.work.uploads.items()
    }


def codegrade(people: list[Student]) -> dict[str, bytes]:
    """id - name."""
    return {
        f"{s.id} - {s.full}/{name}": data for s in people for name, data in s.work.uploads.items()
    }


def plain(people: list[Student]) -> dict[str, bytes]:
    """A folder per login, made by hand."""
    return {f"{s.login}/{n}": data for s in people for n, data in s.work.uploads.items()}


def archives(people: list[Student]) -> dict[str, bytes]:
    """An archive per login."""
    files = {}
    for i, s in enumerate(people):
        make, ending = (zipped, "zip") if i % 2 else (tarred, "tar.gz")
        files[f"{s.login}.{ending}"] = make(s.work.uploads)
    return files


PLATFORMS: dict[str, Callable[[list[Student]], dict[str, bytes]]] = {
    "archives": archives,
    "autolab": autolab,
    "blackboard": blackboard,
    "brightspace": brightspace,
    "brightspace, flat": brightspace_flat,
    "canvas": canvas,
    "codegrade": codegrade,
    "github": github,
    "gradescope": gradescope,
    "ilias": ilias,
    "moodle": moodle,
    "moodle, blind": moodle_blind,
    "moodle, flat": moodle_flat,
    "plain": plain,
    "sakai": sakai,
    "teams": teams,
}
