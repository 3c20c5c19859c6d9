"""How far the learner is: derived from the files, with the last check's outcome remembered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from learn_gpt2 import manifest
from learn_gpt2.assembly import swap
from learn_gpt2.checking import headers, runner
from learn_gpt2.checking.runner import Report
from learn_gpt2.course import backups
from learn_gpt2.manifest import MODEL_FILE, MODULE_PROBLEMS, MODULES, PROBLEMS, Problem

UNTOUCHED, IN_PROGRESS, PASSED = "untouched", "in progress", "passed"
FORCED = headers.FORCED_IN  # it is in the model although its checks don't pass


@dataclass(frozen=True)
class Standing:
    """The state of one problem.

    state: untouched, in progress, passed, or forced into the model. checked: whether the counts
    are of the file as it is now. swapped: whose piece runs in the model. changed: what changed
    since it was swapped in. fails_in_model: whether the piece in there is known to fail its
    checks. lost: why there is no file to check, or "".
    """

    number: int
    title: str
    folder: str
    state: str
    passed: int
    total: int
    checked: bool
    swapped: str
    changed: str
    peeked: bool
    fails_in_model: bool = False
    lost: str = ""

    @property
    def words(self) -> str:
        """The state in words, with counts."""
        if self.lost:
            return self.lost
        if self.state != IN_PROGRESS:
            return self.state
        if not self.total:
            return "in progress (not checked yet)"
        if not self.checked:
            return "in progress (changed since its last check)"
        return f"in progress ({self.passed} of {self.total} checks pass)"

    @property
    def in_model(self) -> str:
        """Whose piece runs in the model, and what is to be known of it."""
        notes = []
        if self.fails_in_model and self.state != FORCED:
            notes.append("fails its checks")
        if self.changed:
            notes.append(self.changed)
        return self.swapped + (f" ({', '.join(notes)})" if notes else "")


def _key(problem: Problem) -> str:
    return f"{problem.number:02d}"


def remember(root: Path, report: Report) -> str:
    """Keep what a run of the learner's own file came to. Returns why that could not be done, as a
    sentence, or "".
    """
    problem = manifest.get(report.problem)
    if Path(report.path) != problem.problem_path(root):
        return ""
    passed, total = report.counts
    first = report.first_failure
    if first and "broken-model" in first.mistakes:
        return ""  # says nothing of this file
    # even a file that does not parse has a digest, so that the board says that it was checked
    digest = backups.source_digest(Path(report.path)) if report.digest == "-" else report.digest
    failed = sum(r.status == "failed" for r in report.results)
    found: dict[str, object] = {"digest": digest, "passed": passed, "total": total}
    found["failed"] = failed
    if first:
        found |= {"failing": first.name, "hint": first.hint, "mistakes": first.mistakes}
    return update(root, problem, replaced=CHECK_RESULTS, **found)


CHECK_RESULTS = ("digest", "passed", "total", "failed", "failing", "hint", "mistakes")


def check(root: Path, problem: Problem) -> Report:
    """Run a problem's checks on the learner's file, in a process of its own, and remember."""
    report = runner.run_isolated(root, problem)
    remember(root, report)
    return report


def entry(root: Path, problem: Problem) -> dict:
    """What is remembered of one problem."""
    return backups.read_memory(root).get(_key(problem), {})


def update(root: Path, problem: Problem, replaced: tuple[str, ...] = (), **values: object) -> str:
    """Remember more of one problem, and forget what `replaced` names. Returns why that could not
    be done, as a sentence, or "": nothing that was found out is lost because a disk is read-only.
    """
    try:
        with backups.memory_lock(root):
            memory = backups.read_memory(root)
            before = memory.get(_key(problem), {})
            kept = {name: value for name, value in before.items() if name not in replaced}
            memory[_key(problem)] = kept | values
            backups.write_memory(root, memory)
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        return (
            f"This result could not be stored in {backups.folder(root)} ({why}), so `learn status` "
            "will not show it."
        )
    return ""


def standings(root: Path) -> list[Standing]:
    """All eighteen, in order. Runs nothing and imports no torch."""
    rows = {row.number: row for row in swap.board(root)}
    memory = backups.read_memory(root)
    return [_standing(root, p, rows[p.number], memory.get(_key(p), {})) for p in PROBLEMS]


def _standing(root: Path, problem: Problem, row: swap.Row, seen: dict) -> Standing:
    digest = backups.source_digest(problem.problem_path(root))
    passed, total = int(seen.get("passed", 0)), int(seen.get("total", 0))
    checked = bool(total) and seen.get("digest") == digest
    in_model = row.owner == "yours" and not row.changed
    # what was forced in fails until a check of the very same text has passed
    known = bool(total) and seen.get("digest") == row.digest
    fails = row.owner == "yours" and (passed < total if known else row.forced)
    if backups.untouched(root, problem):
        state, passed, total = UNTOUCHED, 0, 0
    elif checked and passed == total:
        state = PASSED
    elif in_model and fails and row.forced:
        state = FORCED
    elif in_model and not checked:
        state = PASSED
    else:
        state = IN_PROGRESS
    return Standing(
        number=problem.number,
        title=problem.title,
        folder=problem.folder,
        state=state,
        passed=passed,
        total=total,
        checked=checked,
        swapped=row.owner,
        changed=row.changed,
        peeked=bool(seen.get("peeked")),
        fails_in_model=fails,
        lost="" if digest else backups.why_lost(root, problem),
    )


def current(rows: list[Standing]) -> Standing | None:
    """The problem to work on: the first in progress or forced into the model, else the first
    untouched, else None.
    """
    for states in ((IN_PROGRESS, FORCED), (UNTOUCHED,)):
        for row in rows:
            if row.state in states:
                return row
    return None


def next_step(rows: list[Standing]) -> str:
    """What to do next, as a command and a reason."""
    ready = [r for r in rows if r.state == PASSED and (r.swapped != "yours" or r.changed)]
    row = current(rows)
    if ready and (row is None or row.number > ready[0].number):
        return f"learn swap {ready[0].number:02d}    (passed: run your piece in the model)"
    if row is None:
        return "gpt2 generate    (all eighteen pieces are yours: let your GPT-2 write)"
    if row.state == FORCED:
        return f"learn check {row.number:02d}    (your piece in the model fails its checks)"
    if row.state == UNTOUCHED:
        if row.number == MODULE_PROBLEMS[0].number and all(mine(r) for r in rows[: row.number - 1]):
            return (
                "learn next    (the model is yours, and `gpt2 generate` lets it write; part two "
                f"begins with problems/{row.folder}/README.md)"
            )
        return f"learn next    (open problems/{row.folder}/README.md and problem.py)"
    return f"learn check {row.number:02d}    (problems/{row.folder}/problem.py)"


def mine(row: Standing) -> bool:
    """Whether a problem has passed, and the learner's own piece runs."""
    return row.state == PASSED and row.swapped == "yours"


def share(root: Path) -> tuple[int, int]:
    """(lines of the seven files that are the learner's code, lines of code in all). Empty lines and
    the headers count for neither.
    """
    own, whole = 0, 0
    for module in MODULES:
        try:
            text = swap.read_model(root, module)
        except ValueError:
            continue
        owner = ""
        for i, line in enumerate(text.split("\n")):
            header = headers.HEADER.fullmatch(line)
            if header and (i == 0 or module == MODEL_FILE):
                owner = header["owner"]
            elif line.strip():
                whole += 1
                own += owner == "yours"
    return own, whole
