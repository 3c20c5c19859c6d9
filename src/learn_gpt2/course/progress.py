"""How far the learner is: derived from the files, with the last check's outcome remembered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from learn_gpt2 import manifest
from learn_gpt2.assembly import swap
from learn_gpt2.checking.runner import Report
from learn_gpt2.course import backups
from learn_gpt2.manifest import PROBLEMS, Problem

UNTOUCHED, IN_PROGRESS, PASSED = "untouched", "in progress", "passed"


@dataclass(frozen=True)
class Standing:
    """Where one problem stands.

    state: untouched, in progress or passed. checked: whether the counts are of the file as it is
    now. swapped: whose piece runs in the model. changed: what changed since it was swapped in.
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

    @property
    def words(self) -> str:
        """The state in words, with counts."""
        if self.state == UNTOUCHED:
            return "untouched"
        counts = f"{self.passed} of {self.total} checks" if self.total else "not checked yet"
        if self.state == PASSED:
            return "passed"
        return f"in progress ({counts}{'' if self.checked or not self.total else ', then changed'})"


def _key(problem: Problem) -> str:
    return f"{problem.number:02d}"


def remember(root: Path, report: Report) -> None:
    """Keep what a run of the learner's own file came to."""
    problem = manifest.get(report.problem)
    if Path(report.path) != problem.problem_path(root):
        return
    passed, total = report.counts
    first = report.first_failure
    entry = {"digest": report.digest, "passed": passed, "total": total}
    if first:
        entry |= {"failing": first.name, "hint": first.hint, "mistakes": first.mistakes}
    memory = backups.read_memory(root)
    old = memory.get(_key(problem), {})
    kept = {k: old[k] for k in ("hints", "peeked") if k in old}
    memory[_key(problem)] = kept | entry
    backups.write_memory(root, memory)


def entry(root: Path, problem: Problem) -> dict:
    """What is remembered of one problem."""
    return backups.read_memory(root).get(_key(problem), {})


def update(root: Path, problem: Problem, **values: object) -> None:
    """Remember more of one problem."""
    memory = backups.read_memory(root)
    memory[_key(problem)] = entry(root, problem) | values
    backups.write_memory(root, memory)


def standings(root: Path) -> list[Standing]:
    """All twelve, in order. Runs nothing and imports no torch."""
    rows = {row.number: row for row in swap.board(root)}
    memory = backups.read_memory(root)
    return [_standing(root, p, rows[p.number], memory.get(_key(p), {})) for p in PROBLEMS]


def _standing(root: Path, problem: Problem, row: swap.Row, seen: dict) -> Standing:
    digest = backups.source_digest(problem.problem_path(root))
    passed, total = int(seen.get("passed", 0)), int(seen.get("total", 0))
    checked = bool(total) and seen.get("digest") == digest
    in_model = row.owner == "yours" and not row.changed
    if backups.untouched(root, problem):
        state, passed, total = UNTOUCHED, 0, 0
    elif (checked and passed == total) or (in_model and not checked):
        # what runs in the model has passed its checks, or was forced in, which its check tells
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
    )


def current(rows: list[Standing]) -> Standing | None:
    """The problem to work on: the first in progress, else the first untouched, else None."""
    for state in (IN_PROGRESS, UNTOUCHED):
        for row in rows:
            if row.state == state:
                return row
    return None


def next_step(rows: list[Standing]) -> str:
    """What to do next, as a command and a reason."""
    ready = [r for r in rows if r.state == PASSED and (r.swapped != "yours" or r.changed)]
    row = current(rows)
    if ready and (row is None or row.number > ready[0].number):
        return f"learn swap {ready[0].number:02d}    (passed: run your piece in the model)"
    if row is None:
        return "gpt2 generate    (all twelve pieces are yours: let your GPT-2 write)"
    if row.state == UNTOUCHED:
        return f"learn next    (open problems/{row.folder}/README.md and problem.py)"
    return f"learn check {row.number:02d}    (problems/{row.folder}/problem.py)"
