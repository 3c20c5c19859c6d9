"""The set-up: what is installed, in what order, when, and what is said when it can't be."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEPENDENCIES = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
EXTRAS = {
    name: [Requirement(text) for text in texts]
    for name, texts in PROJECT["project"]["optional-dependencies"].items()
}
ALL = [*DEPENDENCIES, *(wanted for extra in EXTRAS.values() for wanted in extra)]


# ---------------------------------------------------------------- versions


def pins(text: str) -> dict[str, str]:
    """The constraints: package → exact version. ValueError on any other kind of line."""
    found = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)", line)
        if match is None:
            raise ValueError(f"not of the form name==version: {line!r}")
        found[match[1]] = match[2]
    return found


PINS = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))


@pytest.mark.parametrize("line", ["torch", "torch>=2", "torch==2.13.0+cpu", "torch==2.*", "-e ."])
def test_a_loose_pin_is_found(line: str):
    """Catches a constraints file that leaves the version, or the build, to chance."""
    with pytest.raises(ValueError, match="not of the form"):
        pins(line)


@pytest.mark.parametrize("wanted", ALL, ids=str)
def test_pins_satisfy_the_project(wanted: Requirement):
    """Catches a dependency without a pin, or pinned below what the project asks for."""
    assert wanted.specifier.contains(PINS[canonicalize_name(wanted.name)])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have packages of their own")
def test_every_installed_dependency_is_pinned():
    """Catches a package, brought along by another, whose version is left to chance."""
    todo, seen, missing = list(ALL), set(), set()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if (name, *wanted.extras) in seen:
            continue
        seen.add((name, *wanted.extras))
        if name not in PINS:
            missing.add(name)
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # an extra that nobody asked for
            continue
        for text in requires:
            inner = Requirement(text)
            marked = [{"extra": extra} for extra in (*wanted.extras, "")]
            if inner.marker is None or any(inner.marker.evaluate(extra) for extra in marked):
                todo.append(inner)
    cuda = {name for name in missing if name.startswith(("nvidia-", "triton", "cuda-"))}
    assert missing - cuda == set()  # torch itself pins its CUDA packages exactly
    assert len(seen) > 30


def imports(tree: ast.AST, at_top: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """Every import below a node, and whether it runs when the file is loaded."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, at_top
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        inside |= isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        yield from imports(node, at_top and not inside)


def modules(node: ast.stmt) -> list[str]:
    """The packages that an import names; none for a relative one."""
    if isinstance(node, ast.ImportFrom):
        return [] if node.level else [node.module.split(".")[0]]
    return [alias.name.split(".")[0] for alias in node.names]


@pytest.mark.parametrize("package", ["gpt2", "learn_gpt2"])
def test_imports_are_declared(package: str):
    """Catches a package that is here by luck, because a tool for development brought it along."""
    declared = {canonicalize_name(wanted.name) for wanted in DEPENDENCIES}
    optional = {canonicalize_name(w.name) for extra in EXTRAS.values() for w in extra}
    ours = {"gpt2", "learn_gpt2"} if package == "learn_gpt2" else {"gpt2"}
    unknown = set()
    for path in sorted((ROOT / "src" / package).rglob("*.py")):
        for node, at_top in imports(ast.parse(path.read_text(encoding="utf-8"))):
            for module in modules(node):
                name = canonicalize_name({"PIL": "pillow"}.get(module, module))
                # an optional one may be imported where it is used, never when a file is loaded
                allowed = declared if at_top else declared | optional
                if name not in allowed and module not in sys.stdlib_module_names | ours:
                    unknown.add(f"{path.name}: {module}")
    assert unknown == set()


def test_every_file_of_the_packages_is_installed():
    """Catches a data file or a folder that an installed copy would lack."""
    listed = subprocess.run(
        ["git", "ls-files", "src"], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip("not a git checkout")
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    for name in listed.stdout.split():
        path = Path(name)
        if not (ROOT / path).exists():
            continue
        package, inner = path.parts[1], Path(*path.parts[2:])
        in_package = path.suffix == ".py" and (ROOT / path.parent / "__init__.py").exists()
        is_data = any(inner.match(pattern) for pattern in patterns.get(package, []))
        assert in_package or is_data, f"{name} is neither in a package nor among package-data"


# ---------------------------------------------------------------- make


needs_make = pytest.mark.skipif(
    os.name == "nt" or shutil.which("make") is None, reason="make and a POSIX shell are needed"
)

# Stands in for a Python: answers with its version, makes an environment out of itself, and
# writes down what it is asked to do.
FAKE_PYTHON = """#!/bin/sh
case "$1 $2 $3" in
  "-c import sys; print"*) echo "{version}" ;;
  "-c import sys; sys.exit"*) exit {too_old} ;;
  "-m venv --clear") echo "$*" >> "{log}"; mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip --version") ;;
  "-m ensurepip "*) exit 1 ;;
  *) echo "$*" >> "{log}" ;;
esac
"""


class Checkout:
    """A copy of the Makefile in a folder of its own, where every Python is a stand-in."""

    def __init__(self, folder: Path):
        self.folder, self.log = folder / "course", folder / "log"
        self.tools = folder / "tools"
        self.tools.mkdir()
        self.folder.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.folder / name)
        for tool in ("make", "sh", "grep", "cksum", "cp", "mkdir", "rm", "ls", "touch", "cat"):
            (self.tools / tool).symlink_to(shutil.which(tool))

    def python(self, name: str, version: str) -> None:
        """Put a stand-in on the path."""
        too_old = int(tuple(map(int, version.split("."))) < (3, 11))
        script = FAKE_PYTHON.format(version=version, too_old=too_old, log=self.log)
        (self.tools / name).write_text(script, encoding="utf-8")
        (self.tools / name).chmod(0o755)

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run make with nothing on the path but the stand-ins."""
        return subprocess.run(
            ["make", *words],
            cwd=self.folder,
            env={"PATH": str(self.tools), "SHELL": str(self.tools / "sh")},
            capture_output=True,
            encoding="utf-8",
        )

    def calls(self) -> list[str]:
        """What the stand-ins were asked to do since the last look."""
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        self.log.unlink(missing_ok=True)
        return text.splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@needs_make
def test_make_installs_torch_first_and_once(checkout: Checkout):
    """Catches a wrong order, a loose version, and work done again when nothing has changed."""
    checkout.python("python3", "3.11.2")
    first = checkout.make("setup")
    assert first.returncode == 0, first.stderr
    venv, torch, rest = checkout.calls()
    assert venv == "-m venv --clear .venv"
    assert torch.endswith(f"-c constraints.txt torch=={PINS['torch']}")
    assert "-c constraints.txt" in rest
    assert rest.endswith("-e .[dev,plots]")
    assert "3.11.2" in first.stdout
    assert ". .venv/bin/activate" in first.stdout

    assert checkout.make("setup").returncode == 0
    assert checkout.calls() == []

    for name in ("constraints.txt", "pyproject.toml"):
        later = (checkout.folder / ".venv").stat().st_mtime + 10
        os.utime(checkout.folder / name, (later, later))
        assert checkout.make("setup").returncode == 0
        assert checkout.calls() == [torch, rest]
        now = later - 20
        os.utime(checkout.folder / name, (now, now))


@needs_make
@pytest.mark.parametrize(
    ("target", "extra", "command"),
    [
        ("site", "site", "-m sphinx"),
        ("lint", "lint", "-m ruff check"),
        ("notebooks", "notebooks", "-m learn_gpt2.upkeep.notebooks run"),
    ],
)
def test_what_few_need_is_installed_where_it_is_asked_for(
    checkout: Checkout, target: str, extra: str, command: str
):
    """Catches a set-up that makes every learner wait for Sphinx, and one repeated at every run."""
    checkout.python("python3", "3.11.2")
    assert checkout.make("setup").returncode == 0
    assert not any(extra in call for call in checkout.calls())
    checkout.make(target)
    install, first, *_ = checkout.calls()
    assert install.endswith(f"-c constraints.txt --quiet -e .[dev,plots,{extra}]")
    assert first.startswith(command)
    checkout.make(target)
    assert checkout.calls()[0] == first


@needs_make
def test_make_takes_the_newest_versions_when_asked(checkout: Checkout):
    """Catches a weekly job that tests the pinned versions once more."""
    checkout.python("python3", "3.11.2")
    result = checkout.make("setup", "CONSTRAINTS=/dev/null")
    assert result.returncode == 0, result.stderr
    _, torch, rest = checkout.calls()
    assert torch.endswith("-c /dev/null torch")
    assert "-c /dev/null" in rest


@needs_make
def test_make_sets_a_renamed_folder_up_again(checkout: Checkout):
    """Catches an environment that goes on using the folder it was copied from."""
    checkout.python("python3", "3.12.0")
    assert checkout.make("setup").returncode == 0
    checkout.calls()
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("renamed"))
    result = checkout.make("setup")
    assert result.returncode == 0, result.stderr
    assert "copied or renamed" in result.stdout
    calls = checkout.calls()
    assert calls[0] == "-m venv --without-pip .venv"
    assert calls[-1].endswith("-e .[dev,plots]")


@needs_make
def test_make_takes_the_first_python_that_is_new_enough(checkout: Checkout):
    """Catches a set-up that stops at the first Python by name."""
    checkout.python("python3.13", "3.9.0")
    checkout.python("python3", "3.12.5")
    result = checkout.make("setup")
    assert result.returncode == 0, result.stderr
    assert "with python3 (3.12.5)" in result.stdout


@needs_make
def test_make_without_a_new_python_says_what_it_found(checkout: Checkout):
    """Catches an old Python that is used, or an error that doesn't help."""
    checkout.python("python3", "3.10.14")
    result = checkout.make("setup")
    assert result.returncode != 0
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "python3 is 3.10.14" in result.stderr
    assert checkout.calls() == []


@needs_make
def test_make_takes_the_python_that_it_is_given(checkout: Checkout):
    """Catches PYTHON=… being ignored, and a fallback to another one in silence."""
    checkout.python("python3", "3.11.0")
    checkout.python("mine", "3.12.1")
    assert "with mine (3.12.1)" in checkout.make("setup", "PYTHON=mine").stdout
    shutil.rmtree(checkout.folder / ".venv")
    result = checkout.make("setup", "PYTHON=nonesuch")
    assert result.returncode != 0
    assert "Found: none" in result.stderr


# ---------------------------------------------------------------- CI


@needs_make
def test_ci_run_calls_make_test(tmp_path: Path):
    """Catches a CI script that needs its own folder as current directory, or waits for input."""
    fake = tmp_path / "make"
    fake.write_text('#!/bin/sh\nread line && exit 9\npwd; echo "$@"\n', encoding="utf-8")
    fake.chmod(0o755)
    result = subprocess.run(
        [ROOT / ".ci" / "run"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        input="a line that nobody should read\n",
        capture_output=True,
        encoding="utf-8",
    )
    assert result.stdout.split() == [str(ROOT), "test"]
    assert result.returncode == 0, result.stderr


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def missing_targets(text: str) -> list[str]:
    """What a text has make do that the Makefile has no target for."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    names = re.findall(r"(?:run:\s*|&& |\")make ([\w-]+)", text)
    return [name for name in names if not re.search(rf"^{re.escape(name)}:", makefile, re.M)]


def workflow_defects(text: str) -> list[str]:
    """Actions that are not pinned, or don't say what they are, and targets that make hasn't."""
    pinned = r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$"
    defects = [
        f"{name} is not pinned to a commit, with its version behind it"
        for name in re.findall(r"uses:\s*(.+)", text)
        if not name.startswith("./") and not re.search(pinned, name)
    ]
    return defects + [f"make has no target {name}" for name in missing_targets(text)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows(path: Path):
    """Catches a workflow that runs whatever an action's tag points to, or a missing target."""
    assert workflow_defects(path.read_text(encoding="utf-8")) == []


def test_workflows_pin_the_same_actions():
    """Catches an action that was renewed in one workflow only."""
    texts = [path.read_text(encoding="utf-8") for path in WORKFLOWS]
    pins_of: dict[str, set[str]] = {}
    for name, pin in re.findall(r"uses: ([^@\s]+)@(.+)", "\n".join(texts)):
        pins_of.setdefault(name, set()).add(pin)
    assert {name: pins for name, pins in pins_of.items() if len(pins) > 1} == {}
    assert "actions/checkout" in pins_of


def test_ci_does_what_the_makefile_offers():
    """Catches a check that a maintainer runs by hand and CI does not."""
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert "run: .ci/run\n" in text  # which is make test
    for target in ("demo", "lint", "graders", "notebooks", "site"):
        assert f"run: make {target}\n" in text


def test_the_newest_releases_are_what_the_weekly_job_tests():
    """Catches a step without CONSTRAINTS=…, which would install the pinned versions again."""
    text = (ROOT / ".github" / "workflows" / "newest.yml").read_text(encoding="utf-8")
    steps = re.findall(r"run: (make .+)", text)
    assert len(steps) > 2
    assert all(step.endswith(" CONSTRAINTS=/dev/null") for step in steps)


@pytest.mark.parametrize(
    "line",
    [
        "uses: actions/checkout@v4",
        "uses: actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd",
        "run: make nonsense",
    ],
)
def test_a_defect_of_a_workflow_is_found(line: str):
    """Catches a search that finds nothing."""
    assert len(workflow_defects(line)) == 1


def test_windows_runs_the_readmes_commands():
    """Catches a README whose lines for PowerShell nobody has run."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```powershell\n(.*?)```", readme, re.S)
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    create, *rest = block[1].splitlines()
    assert create == "py -3.11 -m venv .venv"
    assert len(rest) == 2
    for line in rest:
        assert f"run: {line}\n" in workflow


# ---------------------------------------------------------------- dev container


def test_dev_container():
    """Catches a container that can't be read, is too old, or runs what the project hasn't."""
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    settings = json.loads(text)
    image = re.fullmatch(
        r"mcr\.microsoft\.com/devcontainers/python:(3\.\d+)-\w+", settings["image"]
    )
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(image[1])
    commands = [settings["onCreateCommand"], settings["postCreateCommand"]]
    assert commands[1].startswith("make setup && ")
    assert missing_targets(text) == []
    for command in commands:
        for name in re.findall(r"-c (\S+)", command):
            assert (ROOT / name).is_file()
        for name in re.findall(r"-c constraints\.txt (\S+)", command):
            assert name in PINS
    tools = settings["customizations"]
    assert {"ms-python.python", "ms-toolsai.jupyter"} <= set(tools["vscode"]["extensions"])
    for name in tools["codespaces"]["openFiles"]:
        assert (ROOT / name).is_file()


def test_a_missing_target_of_the_container_is_found():
    """Catches a search that overlooks what a container runs."""
    assert missing_targets('{"postCreateCommand": "make this && make setup"}') == ["this"]
