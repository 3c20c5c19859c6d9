"""Grading on a platform's own machine, one submission at a time: Gradescope's autograder.

`archive` builds what is uploaded there: `setup.sh`, `run_autograder`, and this course with the
versions that it runs with. Gradescope unpacks it as `/autograder/source`, runs `setup.sh` once, and
for each submission `run_autograder`, which calls this module. It examines the submission as
`learn grade` does, and writes `/autograder/results/results.json`.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import zipfile
from importlib import metadata, resources
from pathlib import Path

from gpt2.common.files import write_atomically
from learn_gpt2.course import layout
from learn_gpt2.grading import connectors, gradebook
from learn_gpt2.grading.escaping import json_text
from learn_gpt2.grading.sandbox import Limits

OPTIONS = "options.json"
SUBMITTED = "student"  # what the submission is called among "all" that are graded: it is alone
_NEEDED = re.compile(
    r"(src/(gpt2|learn_gpt2)/(?!bundled/).+|problems/[^/]+/(test_\w+|mistakes)\.py|"
    r"problems/[^/]+/README\.md|solutions/[^/]+\.py|conftest\.py|constraints\.txt|pyproject\.toml|"
    r"LICENSE)\Z"
)
# for a course that is not installed as a package
NEEDED = ("click", "numpy", "psutil", "pytest", "safetensors", "torch", "tqdm")
_EXECUTABLE = 0o100755
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # the same course gives the same archive, bit by bit


# ── building it ─────────────────────────────────────────────────────────────────────────────────


def archive(
    root: Path,
    numbers: tuple[int, ...],
    limits: Limits | None = None,
    own_pieces: bool = False,
    torch_index: str = "",
    also: tuple[str, ...] = (),
) -> bytes:
    """The zip to upload, with `setup.sh` and `run_autograder` at its top.

    torch_index: an index to install torch from, where the usual one has a build that is too large.
    also: packages that students may import.
    """
    source = layout.source_of(root / "src")
    if source is None:
        raise ValueError(f"{root} has no problems/ and solutions/ beside its src/")
    course = {n: data for n, data in layout.content(source).items() if _NEEDED.match(n)}
    requirements = _requirements(root, also)
    options = {
        "problems": list(numbers),
        "own_pieces": own_pieces,
        "limits": (limits or Limits()).to_json(),
        "course": source.version,
    }
    setup = _given("setup.sh").replace("@TORCH@", requirements.pop("torch"))
    setup = setup.replace(
        "@INDEX@", f"--index-url {shlex.quote(torch_index)} " if torch_index else ""
    )
    top = {
        "setup.sh": setup,
        "run_autograder": _given("run_autograder"),
        "requirements.txt": "".join(f"{line}\n" for line in requirements.values()),
        "constraints.txt": course.get("constraints.txt", b"").decode("utf-8"),
        OPTIONS: json_text(options, indent=1) + "\n",
    }
    files = {name: text.encode() for name, text in top.items()}
    files |= {f"course/{name}": data for name, data in course.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _FIRST_DAY)
            entry.compress_type = zipfile.ZIP_DEFLATED
            mode = _EXECUTABLE if name in ("setup.sh", "run_autograder") else 0o100644
            entry.external_attr = mode << 16
            packed.writestr(entry, data)
    return buffer.getvalue()


def _given(name: str) -> str:
    text = (resources.files("learn_gpt2.grading") / "gradescope" / name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def _requirements(root: Path, also: tuple[str, ...]) -> dict[str, str]:
    """Package → its requirement for pip, with the version of constraints.txt or else the installed
    one.
    """
    pinned = {}
    with open(root / "constraints.txt", encoding="utf-8") as file:
        for line in file:
            name, equals, version = line.partition("#")[0].strip().partition("==")
            if equals:
                pinned[_plain(name)] = version
    found = {}
    for name in (*_dependencies(), *also):
        plain = _plain(re.split(r"[^\w.-]", name)[0])
        version = pinned.get(plain) or _installed(plain)
        found[plain] = f"{plain}=={version}" if version else name
    return found


def _dependencies() -> list[str]:
    """What the course needs, as its package says."""
    try:
        required = metadata.requires("learn-gpt2") or []
    except metadata.PackageNotFoundError:
        required = []
    names = [re.split(r"[^\w.-]", line)[0] for line in required if "extra ==" not in line]
    return names or list(NEEDED)


def _installed(name: str) -> str:
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return ""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


# ── running there ───────────────────────────────────────────────────────────────────────────────


def run(base: Path) -> dict:
    """Grade `base`/submission and write `base`/results/results.json; what was written.

    An error is raised and nothing written when the examiner itself fails: then the platform tells
    the instructor, and nobody has 0 points for it.
    """
    options = json.loads((base / "source" / OPTIONS).read_text(encoding="utf-8"))
    chosen = gradebook.Options(
        problems=tuple(options["problems"]),
        limits=Limits(**options["limits"]),
        jobs=max(1, min(2, os.cpu_count() or 1)),
        own_pieces=options["own_pieces"],
    )
    with tempfile.TemporaryDirectory(prefix="learn-autograder-") as folder:
        work = Path(os.path.realpath(folder))
        notices = _copy(base / "submission", work / "handed-in" / SUBMITTED)
        if not any((work / "handed-in" / SUBMITTED).iterdir()):
            notices.append("Nothing was handed in.")
        root = base / "source" / "course"
        report = gradebook.Class(root, work / "handed-in", work / "report", chosen).grade()
    if len(report["students"]) != 1:
        names = ", ".join(student["student"] for student in report["students"])
        raise ValueError(f"one submission was read as {len(report['students'])}: {names}")
    (student,) = report["students"]
    failed = [r for p in student["problems"] for r in p["results"]]
    if any("examiner-ended" in r["mistakes"] for r in failed):
        raise ValueError("the examiner ended without an answer; run it again")
    student["notices"] = [*student["notices"], *notices]
    results = connectors.gradescope_results(student, report)
    text = json_text(results, indent=1) + "\n"
    write_atomically(base / "results" / "results.json", text.encode())
    return results


def _copy(source: Path, target: Path) -> list[str]:
    """Copy a submission, links as links; returns what could not be copied."""
    target.parent.mkdir(parents=True)
    try:
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    except shutil.Error as error:  # pipes and the like: everything else has been copied
        return [f"{Path(str(one[0])).name} is not a regular file" for one in error.args[0][:5]]
    return []


def main() -> None:
    """Argument: the folder that the platform calls /autograder."""
    results = run(Path(sys.argv[1]).resolve())
    print(f"{results['score']} points, {len(results['tests'])} checks")


if __name__ == "__main__":
    main()
