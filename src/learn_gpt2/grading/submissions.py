"""What students submitted: any platform's download, read as bytes and never trusted.

`read_all` finds the students in a folder or an archive (by the platforms' names, `platforms.py`),
all files of each (`trees.py`), and the file for each problem among them (`recognizing.py`). Every
file is read once, before any of their code runs, so that no student can change what another is
graded on. Links are refused, archives are never unpacked to disk, and sizes are bounded. What is
not understood is kept by name; nothing is skipped silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from learn_gpt2 import manifest
from learn_gpt2.grading import platforms, recognizing, trees
from learn_gpt2.grading.platforms import Named, Receipt
from learn_gpt2.grading.recognizing import File, named
from learn_gpt2.grading.roster import Person, Roster, plain_name
from learn_gpt2.grading.trees import Node, Refused
from learn_gpt2.manifest import Problem

MAX_BYTES = trees.MAX_BYTES  # of one piece
MOST_UNREAD = 200  # files that a report names; more are counted
MOST_SHOWN = 320  # letters of a student's name
MAX_LEVELS = 6  # folders around the students that are looked through
WORK_LEVELS = 4  # folders around one student's work, when it is looked for
# A loose file called like this says neither whose it is nor what it is for.
SAYS_NOTHING = re.compile(
    r"(?i)(?:problem|main|solutions?|answers?|code|gpt[-_ ]?2?|model|homework|hw|assignment|task|"
    r"submission|untitled|new|test|final|project|work|my[-_ ]?(?:code|solution|work))?[-_ ]*\d*"
)
PICTURES = re.compile(r"(?i).*\.(?:png|jpe?g|gif|heic|webp|svg|bmp|tiff?|mov|mp4|webm|pdf)")


@dataclass
class Submission:
    """One student's work: the bytes of each piece, and what was refused and why.

    student: the name that is shown, in every report the same, safe to print and like no other's.
    """

    student: str
    files: dict[int, bytes] = field(default_factory=dict)
    where: dict[int, str] = field(default_factory=dict)  # path inside the submission
    refused: dict[int, str] = field(default_factory=dict)  # why a piece was not taken
    notices: list[str] = field(default_factory=list)
    # who it is, as far as the platform's names and the roster tell
    platform: str = ""  # "canvas", "moodle", …; "" for a plain folder
    name: str = ""  # the name alone; `student` may add an id to it to tell two apart
    id: str = ""  # the platform's id that the download's name held (Canvas's user id, …)
    login: str = ""
    email: str = ""
    person: Person | None = None  # the row of the roster
    # what somebody should know of it
    source: str = ""  # its place in what was given to grade; "" if there is none
    late: bool = False  # the platform says so
    unread: list[str] = field(default_factory=list)  # what it holds and nothing was taken of
    attention: list[str] = field(default_factory=list)  # the notices that somebody must look at


def candidates(problem: Problem) -> tuple[str, ...]:
    """Where a piece is in the course's own layout, and in the two that students are asked for."""
    name = problem.folder
    return (f"problems/{name}/problem.py", f"{name}/problem.py", f"{name}.py")


def read_all(
    folder: Path,
    problems: list[Problem],
    out: Path | None = None,
    roster: Roster | None = None,
    skeletons: dict[int, bytes] | None = None,
) -> list[Submission]:
    """Every student's work in a folder or an archive, sorted by name; then those of the roster who
    handed in nothing.

    ValueError when there is nobody, or when the report would lie among the students.
    """
    root = _root(folder)
    if out is not None and out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"--out {out} is inside {folder}: it would be graded as a student")
    intake = _Intake(problems, skeletons or {})
    try:
        intake.look(root)
        found = intake.submissions()
    finally:
        trees.close_all()
    if not intake.handed:
        note = f" ({root.note})" if root.note else ""
        raise ValueError(
            f"{folder} holds no folder and no .zip, and no student's file{note}: it must be what "
            "the platform lets you download, or a folder with one folder or archive per student"
        )
    if roster is not None:
        _enroll(found, roster)
    _make_unique(found)
    return sorted(found, key=lambda s: (not s.source, s.student.casefold(), s.student))


def _root(folder: Path) -> Node:
    if folder.is_dir():
        root = trees.from_disk(folder.resolve(), "")
        root.name = trees.shown(folder.resolve().name)
        return root
    if folder.is_file():
        root = trees.from_disk(folder.resolve(), "")
        opened = trees.from_disk(folder.resolve())
        if opened.kind == "archive":
            root = opened
            if not root.children and root.note:
                raise ValueError(f"{folder} {root.note}")
            return root
        if opened.kind == "bad":
            raise ValueError(f"{folder} {opened.note}")
    raise ValueError(
        f"{folder} is not a folder and not an archive; it must hold what students handed in"
    )


# ── finding the students ────────────────────────────────────────────────────────────────────────


@dataclass
class Part:
    """Something that one student submitted: a file, a folder or an archive. folders: the names of
    what is around it, which may name a problem.
    """

    node: Node
    named: Named
    folders: tuple[str, ...]


@dataclass
class Handed:
    """One student and everything that they submitted."""

    label: str
    named: Named
    parts: list[Part] = field(default_factory=list)


class _Intake:
    """Walks through what was given and gathers students."""

    def __init__(self, problems: list[Problem], skeletons: dict[int, bytes]):
        self.problems, self.skeletons = problems, skeletons
        self.every = list(manifest.PROBLEMS)
        self.handed: dict[tuple, Handed] = {}
        self._rivals: dict[str, bool] = {}

    # ── levels

    def look(self, root: Node) -> None:
        """Gather everybody in the tree."""
        if self._is_work(root, alone=True):
            self._add(Part(root, Named("", student=_label(root)), ()))
        else:
            self._level(root, (), 0)

    def _level(self, node: Node, folders: tuple[str, ...], depth: int) -> None:
        """Gather students whose work is directly in a folder, and look through wrapper folders."""
        entries = [e for e in node.listed if not (e.name.startswith(".") and _no_code(e))]
        metadata = _metadata(node)
        receipts = _receipts(entries)
        before = _common_assignment(entries)
        logins = _repositories(node, entries)
        plain: list[Node] = []
        for entry in entries:
            said = _read_name(entry)
            if said is not None and said.platform == "blackboard":
                said = _with_receipt(entry, said, receipts, before)
            if said is not None and said.platform == "gradescope":
                self._gradescope(entry, said, metadata, folders)
            elif said is not None:
                if said.kind != "receipt":
                    self._add(Part(entry, said, folders))
                else:
                    self._receipt_alone(entry, said, folders)
            elif not entry.holds and platforms.PLATFORM_FILES.fullmatch(entry.name):
                continue
            else:
                plain.append(entry)
        labels = {trees.stem(e.name) if e.kind != "folder" else e.name for e in plain}
        alone = len(plain) == 1 and len(entries) - len(plain) <= 3
        for entry in plain:
            if entry.name in logins:
                login = logins[entry.name]
                self._add(Part(entry, Named("github", login=login, student=login), folders))
            elif entry.holds and self._safely_a_group(entry, plain, alone, depth):
                self._level(entry, (*folders, entry.stem), depth + 1)
            elif entry.holds or entry.kind in ("bad", "link", "other"):
                label = trees.stem(entry.name) if entry.kind != "folder" else entry.name
                again = re.fullmatch(r"(.+?) ?\((\d{1,2})\)", label)
                said = Named("", student=recognizing.without_numbered(label, self.every))
                if again and again[1] in labels:  # downloaded, or handed in, once more
                    said = Named("", student=again[1], attempt=int(again[2]))
                self._add(Part(entry, said, folders))
            else:
                self._loose(entry, folders)

    def _add(self, part: Part) -> None:
        said = part.named
        platform, who = said.key
        key = (platform, who) if platform else ("", said.student)
        label = said.student or said.login or said.email or f"{said.platform} {said.id}".strip()
        if len(label) > MOST_SHOWN:
            label = f"{label[: MOST_SHOWN - 1]}…"
        handed = self.handed.setdefault(key, Handed(label, said))
        if not handed.named.student and said.student:
            handed.label, handed.named = label, said
        handed.parts.append(part)

    def _gradescope(
        self, entry: Node, said: Named, metadata: platforms.Metadata, folders: tuple[str, ...]
    ) -> None:
        """One row for each of those who handed a submission in together."""
        people = metadata.submitters.get(entry.name) or metadata.submitters.get(entry.stem) or []
        time = metadata.times.get(entry.name, "")
        if not people:
            self._add(Part(entry, replace(said, student=f"submission {said.id}"), folders))
        for person in people:
            who = replace(
                said,
                id=person.sid or person.email or f"{said.id} {person.name}",
                student=person.name,
                email=person.email,
                time=time,
            )
            self._add(Part(entry, who, folders))

    def _receipt_alone(self, entry: Node, said: Named, folders: tuple[str, ...]) -> None:
        """A receipt makes a student known, also where no file came with it."""
        self._add(Part(replace_node(entry), said, folders))

    def _loose(self, entry: Node, folders: tuple[str, ...]) -> None:
        """A file beside the students' folders, named by its student or by nobody."""
        stem, _ = recognizing.split_name(entry.name)
        left, dash, right = stem.partition(" - ")
        if dash and right.strip() and recognizing.problem_of(right, self.every):
            label = left
        else:
            label = recognizing.without_problem(stem, self.every)
            label = re.sub(r"(?i)(?<=\w)[-_ ]+(?:hw|homework|work|code|notebook)\Z", "", label)
        if not re.search(r"[^\W\d]", label) or SAYS_NOTHING.fullmatch(label):
            label = entry.name
        self._add(Part(entry, Named("", student=label, file=entry.name), folders))

    # ── what a folder is

    def _is_work(self, node: Node, alone: bool = False, depth: int = 0) -> bool:
        """Whether a folder is one student's work: pieces lie in it, not students."""
        entries = node.listed
        folders = [e for e in entries if e.holds]
        for entry in folders:
            if recognizing.plain(entry.name) == "problems" and not _names_students(entry):
                return True
        pieces = [e for e in entries if self._is_piece(e)]
        others = [e for e in folders if e not in pieces and not _is_version(e.name)]
        others += [e for e in entries if not e.holds and alone and self._names_somebody(e)]
        if pieces and (not alone or not others):
            return True
        if not alone and len(folders) == 1 and depth < WORK_LEVELS:
            inner = folders[0]
            return not _names_students(inner) and self._is_work(inner, False, depth + 1)
        return False

    def _is_piece(self, entry: Node) -> bool:
        """Whether an entry is a piece by its name alone, without a student's name in it."""
        if entry.kind == "folder":
            said = recognizing.problem_of(entry.name, self.every)
            if said is None or said[1] < recognizing.NAME or not said[2]:
                return False
            inner = [e for e in entry.listed if not e.holds]
            stems = [recognizing.split_name(e.name) for e in inner]
            code = [stem for stem, kind in stems if kind in ("code", "notebook")]
            code = [stem for stem in code if not recognizing.NOT_PIECES.fullmatch(stem)]
            plain = {recognizing.plain(recognizing.versions(stem)[-1][0]) for stem in code}
            return bool(plain) and (len(plain) == 1 or "problem" in plain)
        stem, kind = recognizing.split_name(entry.name)
        if kind not in ("code", "notebook"):
            return False
        texts = [text for text, _ in recognizing.versions(stem)]
        if recognizing.plain(texts[-1]) == "problem":
            return True
        known = any(recognizing.problem_of(text, self.every) for text in texts)
        return known and not recognizing.without_problem(stem, self.every)

    def _names_somebody(self, entry: Node) -> bool:
        """Whether a loose file's name holds a problem and, beside it, somebody's name."""
        if _read_name(entry):
            return True
        stem, kind = recognizing.split_name(entry.name)
        if kind not in ("code", "notebook") or recognizing.NOT_PIECES.fullmatch(stem):
            return False
        said = recognizing.problem_of(recognizing.versions(stem)[-1][0], self.every)
        label = recognizing.without_problem(stem, self.every)
        named = re.search(r"[^\W\d]{2}", label) and not SAYS_NOTHING.fullmatch(label)
        return bool(said and named)

    def _safely_a_group(self, entry: Node, siblings: list[Node], alone: bool, depth: int) -> bool:
        """`_is_group`; what can't even be looked at is one student's."""
        try:
            return self._is_group(entry, siblings, alone, depth)
        except Exception:  # whatever it is, `submissions` says it of that student
            return False

    def _is_group(
        self, entry: Node, siblings: list[Node], alone: bool, depth: int, inside: bool = False
    ) -> bool:
        """Whether a folder or an archive holds several students, and is not one's own. inside: it
        is looked at for what is around it.
        """
        if depth >= MAX_LEVELS:
            return False
        children = entry.listed
        if any(c.name.lower().startswith("submission_metadata.") for c in children):
            return True
        said = [name for c in children if (name := _read_name(c))]
        if any(not name.file for name in said):  # a platform's folders, one per student
            return not _same_person({name.student for name in said}, entry.stem)
        wrapper = bool(platforms.WRAPPERS.fullmatch(recognizing.cut(entry.stem)))
        if len({name.key for name in said}) > 1:
            return True
        problem = recognizing.problem_of(entry.stem, self.every)
        only = problem and problem[2] and not recognizing.without_problem(entry.stem, self.every)
        beside = any(_names_students(s) for s in siblings if s is not entry and s.holds)
        if said and (wrapper or alone or only or beside):
            return not _same_person({name.student or name.login for name in said}, entry.stem)
        holders = [c for c in children if c.holds and not _is_version(c.name)]
        holders = [c for c in holders if not any(x.name == "pyvenv.cfg" for x in c.children)]
        holders = [c for c in holders if recognizing.split_name(c.name)[1] != "code"]
        if only and not any(self._is_piece(c) for c in children if not c.holds):
            loose = [c for c in children if recognizing.split_name(c.name)[1] == "code"]
            if len(holders) > inside or len(loose) > 1:
                return True
        if self._is_work(entry):
            return False
        if wrapper and (holders or (alone and len(children) > 1)):
            return True
        if len(holders) == 1 and alone:
            return self._is_group(holders[0], holders, alone, depth + 1, inside=True)
        if len(_bases(holders)) < 2:
            return False
        if alone and (self._overlap(holders) or len(holders) > 4):
            return True
        rivals = [s for s in siblings if s.holds]
        several = [s for s in rivals if self._holds_rivals(s)]
        if entry in several and len(several) > 1 and 2 * len(several) >= len(rivals):
            return True  # sections of a class, each with its students
        names = {c.name for c in holders}
        others = [s for s in siblings if s is not entry and s.holds]
        return any(len(names & {c.name for c in other.listed if c.holds}) > 1 for other in others)

    def _holds_rivals(self, entry: Node) -> bool:
        """Whether two folders in a folder have a file for the same problem."""
        if entry.path not in self._rivals:
            holders = [c for c in entry.listed if c.holds and not _is_version(c.name)]
            work = self._is_work(entry)
            self._rivals[entry.path] = (
                not work and len(_bases(holders)) > 1 and self._overlap(holders)
            )
        return self._rivals[entry.path]

    def _overlap(self, holders: list[Node]) -> bool:
        """Whether two of some folders have a file for the same problem."""
        seen: set[int] = set()
        for holder in holders[:12]:
            numbers = set()
            for node in holder.walk():
                stem, kind = recognizing.split_name(node.name)
                around = node.path.split("/")[-2:-1]
                for text in (stem, *around):
                    said = recognizing.problem_of(text, self.every)
                    if kind in ("code", "notebook") and said:
                        numbers.add(said[0].number)
                if len(numbers) > 30:
                    break
            if numbers & seen:
                return True
            seen |= numbers
        return False

    # ── from parts to submissions

    def submissions(self) -> list[Submission]:
        """Everybody's work. Whatever happens with one is that one's alone."""
        found = []
        for handed in self.handed.values():
            try:
                found += self._split(handed)
            except Exception as error:  # nobody else may pay for it
                reason = f"could not be read ({type(error).__name__}: {str(error)[:200]})"
                lost = Submission(handed.label, source=handed.parts[0].node.path)
                lost.notices = lost.attention = [trees.shown(reason)]
                lost.refused = {p.number: trees.shown(reason) for p in self.problems}
                found.append(_identified(lost, handed))
            for part in handed.parts:
                part.node.forget()
        return found

    def _split(self, handed: Handed) -> list[Submission]:
        """One submission; two if a plain name occurs twice with different work."""
        containers = [p for p in handed.parts if p.node.holds or p.node.kind == "bad"]
        attempts = {p.named.attempt for p in containers}
        if handed.named.platform or len(containers) < 2 or len(attempts) == len(containers):
            return [self._one(handed, handed.parts)]
        loose = [p for p in handed.parts if p not in containers]
        each = [self._one(handed, [part, *loose]) for part in containers]
        differ = any(
            a.files[n] != b.files[n]
            for i, a in enumerate(each)
            for b in each[:i]
            for n in a.files.keys() & b.files.keys()
        )
        if not differ:
            return [self._one(handed, handed.parts)]
        places = " and ".join(p.node.path for p in containers)
        for submission in each:
            notice = f"the same name is there twice, as {places}, with different work: each is "
            submission.notices.insert(0, notice + "graded; keep the one that counts")
            submission.attention.insert(0, submission.notices[0])
        return each

    def _one(self, handed: Handed, parts: list[Part]) -> Submission:
        files: list[File] = []
        for part in parts:
            files += _files(part, several=len(parts) > 1)
        got = recognizing.recognize(files, self.problems, self.skeletons, self.every)
        submission = Submission(
            handed.label,
            files=got.files,
            where=got.where,
            refused=got.refused,
            notices=got.notices,
            source=", ".join(dict.fromkeys(p.node.path or p.node.name for p in parts))[:400],
            late=any(p.named.late for p in parts),
            unread=got.unread[:MOST_UNREAD],
        )
        if len(got.unread) > MOST_UNREAD:
            submission.unread.append(f"{len(got.unread) - MOST_UNREAD} more files")
        _identified(submission, handed)
        self._tell(submission, parts, files, got)
        return submission

    def _tell(
        self,
        submission: Submission,
        parts: list[Part],
        files: list[File],
        got: recognizing.Found,
    ) -> None:
        """Say what was not understood, and refuse by name what could not be opened."""
        numbers = [p.number for p in self.problems]
        missing = [n for n in numbers if n not in got.where]
        trouble = [p.node for p in parts if p.node.note]
        trouble += [f.node for f in files if f.node.note and f.node not in trouble]
        shut = [n for n in trouble if n.kind in ("bad", "archive", "folder", "link", "other")]
        shut = [n for n in shut if not any(n.path in text for text in got.refused.values())]
        told = [f"{node.path or node.name} {node.note}" for node in shut]
        submission.attention += got.attention
        if told:
            submission.attention += [text for text in told if text not in submission.attention]
            submission.refused |= dict.fromkeys(missing, told[0])
        elif len(missing) == len(numbers) and got.others and not got.unread:
            there = named([f"{n:02d}" for n in got.others], 12)
            which = named([f"{n:02d}" for n in missing], 12)
            submission.notices.append(f"nothing for problem {which}; problem {there} is there")
        elif len(missing) == len(numbers):
            there = got.unread or [f.place for f in files]
            holds = f"nothing recognized; holds {named(there)}"
            nothing = "nothing is in it: it is empty"
            submission.attention.append(holds if there else nothing)
        elif missing and any(not PICTURES.fullmatch(name) for name in got.unread):
            which = named([f"{n:02d}" for n in missing], 12)
            submission.attention.append(
                f"nothing for problem {which}; nothing was taken of {named(got.unread)}"
            )
        elif got.unread:
            submission.notices.append(f"not used: {named(got.unread)}")
        submission.attention += [why for why in dict.fromkeys(got.refused.values())]
        if submission.late:
            submission.notices.append(f"handed in late, says {submission.platform}")
        if any(n in got.refused for n in numbers) and got.unread and not told:
            submission.notices.append(f"not used: {named(got.unread)}")
        new = [text for text in submission.attention if text not in submission.notices]
        submission.notices[:0] = new
        submission.notices = list(dict.fromkeys(submission.notices))
        submission.attention = list(dict.fromkeys(submission.attention))


def replace_node(entry: Node) -> Node:
    """A receipt's place without its content: it is the platform's file, not the student's."""
    return Node(entry.name, entry.path, "folder", _children=[])


def _identified(submission: Submission, handed: Handed) -> Submission:
    said = handed.named
    submission.platform, submission.name = said.platform, handed.label
    submission.id, submission.login, submission.email = said.id, said.login, said.email
    return submission


def _label(root: Node) -> str:
    return root.stem if root.kind == "archive" else root.name


def _read_name(entry: Node) -> Named | None:
    """What a platform's name says of a file, a folder or an archive."""
    if entry.kind == "folder":
        said = platforms.read_name(entry.name, "folder")
        if said is None and (match := re.fullmatch(r"(.+?) ?\(([^()\s]+)\)", entry.name)):
            names = {c.name.lower() for c in entry.children}
            if "timestamp.txt" in names or any("attachment" in name for name in names):
                return Named("sakai", student=match[1], login=match[2])
        if said is None and "_" in entry.name:  # unpacked by hand from a platform's flat archive
            said = platforms.read_name(entry.name, "file")
        return said
    said = platforms.read_name(entry.name, "file")
    if said is None and (entry.kind == "archive" or entry.kind == "bad"):
        said = platforms.read_name(trees.stem(entry.name), "folder")
    return said


def _same_person(names: set[str], stem: str) -> bool:
    """Whether all names are one, and a folder's name is that one too."""
    if len(names) != 1:
        return False
    one = plain_name(next(iter(names))).replace(" ", "")
    other = plain_name(stem).replace(" ", "")
    return bool(one) and (one in other or other in one or sorted(one) == sorted(other))


def _names_students(node: Node) -> bool:
    return any(_read_name(c) for c in node.listed[:50])


def _bases(holders: list[Node]) -> set[str]:
    """Names without what tells one submission from another: hw.zip and hw (1).zip have one."""
    return {recognizing.plain(recognizing.versions(h.stem)[-1][0]) for h in holders}


def _no_code(node: Node) -> bool:
    """Whether something hidden was left by a system or a tool and is not a student's work."""
    if node.kind == "folder":
        return all(_no_code(inner) for inner, _ in zip(node.walk(), range(200), strict=False))
    return recognizing.split_name(node.name)[1] not in ("code", "notebook") and not node.holds


def _is_version(name: str) -> bool:
    """Whether a folder's name tells one submission from another rather than who submitted."""
    plain = recognizing.cut(name.strip())
    return bool(
        recognizing.VERSION_FOLDER.fullmatch(plain)
        or recognizing.OLD_FOLDER.fullmatch(plain)
        or re.fullmatch(
            r"(?i)(?:final|new|latest|screenshots?|images?|pics?|docs?|notes?|\d{1,2})", plain
        )
    )


def _small_text(node: Node) -> str:
    try:
        return node.read(5_000_000).decode("utf-8", "replace")
    except Refused:
        return ""


def _metadata(node: Node) -> platforms.Metadata:
    for child in node.listed:
        if re.fullmatch(r"(?i)submission_metadata\.ya?ml", child.name):
            return platforms.read_metadata(_small_text(child))
    return platforms.Metadata()


def _receipts(entries: list[Node]) -> dict[str, Receipt]:
    """Blackboard's receipts, by the name that their files start with."""
    found = {}
    for entry in entries:
        said = platforms.read_name(entry.name, "file") if entry.kind == "file" else None
        if said and said.platform == "blackboard" and said.kind == "receipt":
            receipt = platforms.read_receipt(_small_text(entry))
            if receipt:
                found[entry.name[:-4]] = receipt
    return found


def _common_assignment(entries: list[Node]) -> str:
    """What all of Blackboard's names start with, up to a login: the assignment's name."""
    heads = [e.name.partition("_attempt_")[0] for e in entries if "_attempt_" in e.name]
    if len(set(heads)) < 2:
        return ""
    return _common(heads).rpartition("_")[0]


def _common(names: list[str]) -> str:
    """The letters that all names start with."""
    first, last = min(names), max(names)
    same = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(same, min(len(first), len(last)))]


def _with_receipt(entry: Node, said: Named, receipts: dict[str, Receipt], before: str) -> Named:
    """The student of a Blackboard file, from its receipt or from what the names have in common."""
    for head, receipt in receipts.items():
        if entry.name.startswith(head):
            file = receipt.files.get(entry.name, said.file)
            return replace(said, login=receipt.login, student=receipt.name, file=file)
    head = entry.name.partition("_attempt_")[0]
    if before and head.startswith(f"{before}_"):
        return replace(said, login=head[len(before) + 1 :])
    return said


def _repositories(node: Node, entries: list[Node]) -> dict[str, str]:
    """Folder → login, where folders are repositories of one assignment: hw1-alice, hw1-bob."""
    folders = [e for e in entries if e.holds and _read_name(e) is None]
    cloned = [e for e in folders if any(c.name == ".git" for c in e.children)]
    assignment = re.fullmatch(r"(?i)(.+)[-_ ]submissions?", recognizing.cut(node.name))
    if not assignment and len(cloned) > 1:
        folders = cloned
    names = [trees.stem(e.name) for e in folders]
    prefix = ""
    if assignment and names and all(n.startswith(f"{assignment[1]}-") for n in names):
        prefix = f"{assignment[1]}-"
    elif len(names) > 1:
        common = _common(names).rpartition("-")[0]
        short = any(len(name) < len(common) + 3 for name in names)
        if len(common) > 2 and not short and (assignment or folders is cloned):
            prefix = f"{common}-"
    if not prefix or any(len(name) <= len(prefix) for name in names):
        return {}
    logins = [name[len(prefix) :] for name in names]
    for branch in ("-main", "-master"):
        if all(login.endswith(branch) for login in logins):
            logins = [login.removesuffix(branch) for login in logins]
    return {e.name: login for e, login in zip(folders, logins, strict=True)}


def _files(part: Part, several: bool) -> list[File]:
    """All files of a part."""
    said, node = part.named, part.node
    stamps = {"time": said.time, "attempt": said.attempt, "upload": said.upload}
    if not node.holds:
        return [File(node, node.name, said.file or node.name, part.folders, **stamps)]
    files = []
    root = f"{node.path}/" if node.path else ""
    for inner in node.walk():
        place = inner.path.removeprefix(root)
        folders = tuple(trees.stem(name) for name in place.split("/")[:-1])
        if said.platform == "sakai" and any(platforms.RETURNED.fullmatch(f) for f in folders):
            continue
        name, upload = inner.name, said.upload
        own = platforms.read_name(name, "file")
        if own and own.file and len(own.file) > 3 and own.platform != "e-mail":
            name, upload = own.file, max(upload, own.upload)
        elif match := re.match(r"(\d{14})_(.+)", name):  # Ilias: the time of the upload
            name, upload = match[2], int(match[1])
        if several:
            place = f"{node.name}/{place}"
        stamps["upload"] = upload
        outer = (*part.folders, trees.stem(said.file or node.name))
        files.append(File(inner, place, name, (*outer, *folders), **stamps))
    return files


# ── names ───────────────────────────────────────────────────────────────────────────────────────


def _enroll(found: list[Submission], roster: Roster) -> None:
    """Find everybody in the roster, and add those who submitted nothing."""
    by_person: dict[int, list[Submission]] = {}
    for submission in found:
        said = {"id": submission.id, "login": submission.login, "email": submission.email}
        person = roster.find(**said, name=submission.name)
        if person is None:
            _attend(submission, f"is not in the roster {roster.path.name}")
            continue
        submission.person = person
        submission.login = submission.login or person.login
        submission.email = submission.email or person.email
        submission.id = submission.id or person.id or person.sid
        by_person.setdefault(person.line, []).append(submission)
    for same in by_person.values():
        for submission in same if len(same) > 1 else ():
            others = named([s.source for s in same if s is not submission])
            _attend(submission, f"another submission belongs to the same person: {others}")
    for person in roster.people:
        if person.line not in by_person:
            missing = Submission(
                trees.shown(person.shown),
                notices=[f"handed in nothing, but is in the roster {roster.path.name}"],
                name=trees.shown(person.shown),
                id=person.id or person.sid,
                login=person.login,
                email=person.email,
                person=person,
            )
            found.append(missing)


def _attend(submission: Submission, text: str) -> None:
    submission.notices.append(text)
    submission.attention.append(text)


def _make_unique(found: list[Submission]) -> None:
    """Tell those of one name apart: by id or login where there is one, else by a number."""
    _rename(found, lambda s: f" ({s.id or s.login or s.email})" if s.id or s.login else "")
    number: dict[str, int] = {}
    taken = {s.student for s in found}
    for submission in found:
        name = submission.student
        number[name] = number.get(name, 0) + 1
        if number[name] > 1:
            count = number[name]
            while f"{name} ({count})" in taken:
                count += 1
            submission.student = f"{name} ({count})"
            taken.add(submission.student)


def _rename(found: list[Submission], ending: Callable[[Submission], str]) -> None:
    count: dict[str, int] = {}
    for submission in found:
        submission.student = submission.student or "(no name)"
        count[submission.student] = count.get(submission.student, 0) + 1
    blind = re.compile(r"(?i)participant|teilnehmer.*|participante|deelnemer|anon(?:ymous)?")
    for submission in found:
        if count[submission.student] > 1 or blind.fullmatch(submission.student):
            submission.student += ending(submission)
