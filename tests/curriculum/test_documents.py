"""What the documents say is so: tables equal the manifest, commands exist.

A command in a `sh`, `console` or `powershell` block, or in a line of code that starts with one of
the project's commands, is checked by a function of its own kind; one that no function knows is
an error, so that a new kind of command gets its check.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from learn_gpt2.manifest import PROBLEMS, select
from tests.graders import bank as banks
from tests.links import documents, text_of, without_code_blocks

ROOT = Path(__file__).resolve().parents[2]
every_document = pytest.mark.parametrize(
    "path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix()
)


# ---------------------------------------------------------------- the table of the twelve


def table_rows(text: str) -> list[tuple[str, ...]]:
    """The rows of the path's table: number, title, folder, idea, minutes, difficulty."""
    row = r"^\| (\d\d) \| \[(.+?)\]\((.+?)\) \| (.+?) \| (.+?) \| (.+?) \|$"
    return re.findall(row, text, re.MULTILINE)


def test_the_table_equals_the_manifest():
    """Catches a problem renamed, or its time or difficulty changed, in one place only."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    expected = [
        (f"{p.number:02d}", p.title, f"problems/{p.folder}", p.idea, p.minutes, p.difficulty)
        for p in PROBLEMS
    ]
    assert table_rows(text) == expected


def test_the_site_has_every_module():
    """Catches a module that is added, renamed or split, and missing from the reference."""
    commands_alone = {"__init__", "__main__", "cli", "checkout"}
    modules = {path.stem for path in (ROOT / "src" / "gpt2").glob("*.py")} - commands_alone
    text = (ROOT / "docs" / "site" / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"^\.\. automodule:: gpt2\.(\w+)$", text, re.M)
    assert sorted(named) == sorted(modules)


# ---------------------------------------------------------------- commands


def commands(text: str) -> list[str]:
    """The commands of a document: lines of shell blocks, and code in prose that is a command."""
    found = []
    for language, block in re.findall(r"^```(\w+)[^\n]*\n(.*?)^```", text, re.M | re.S):
        if language not in ("sh", "bash", "shell", "console", "powershell"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if language == "console":  # the rest of such a block is output
                if not line.startswith("$ "):
                    continue
                line = line[2:]
            found += [part.strip() for part in uncommented(line).split("&&") if part.strip()]
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", without_code_blocks(text)):
        if re.match(r"(make|learn|gpt2|pytest|python -m) [^=(]+$", code) and "…" not in code:
            found.append(code)
    return found


def uncommented(line: str) -> str:
    """A line up to its comment."""
    return re.sub(r"(^|\s+)#.*$", "", line)


def check(command: str) -> None:
    """AssertionError or ValueError when a command could not work."""
    words = shlex.split(command.replace("\\", "/"))
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    # .venv\Scripts\python -m gpt2 … is gpt2 …
    if re.fullmatch(r"(\.venv/(Scripts|bin)/)?(python3?|py)(\.exe)?", words[0]):
        words.pop(0)
        if re.fullmatch(r"-3\.\d+", words[0]):
            words.pop(0)
        assert words[0] == "-m", f"{command!r}: only `python -m …` is known"
        words.pop(0)
        words[0] = words[0].replace("learn_gpt2", "learn")
    if words[0] == "uv":
        words.pop(0)
        if words[:2] == ["venv", "--python"]:
            words = ["venv", ".venv"]
    checker = CHECKS.get(words[0])
    assert checker, f"{command!r}: no check knows this kind of command; add one to CHECKS"
    checker(words[1:])


def check_make(words: list[str]) -> None:
    """Each word is a target of the Makefile, or sets a variable that it reads."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        if is_variable:
            assert f"$({name})" in text or f"$(or $({name})," in text, f"make reads no {name}"
        else:
            assert re.search(rf"^{re.escape(word)}:", text, re.M), f"make has no target {word}"


def check_pip(words: list[str]) -> None:
    """Constraints files exist, and so do the extras of the project."""
    assert words[0] == "install", f"pip {words[0]} is unknown here"
    words = words[1:]
    while words:
        word = words.pop(0)
        if word in ("-c", "-r"):
            assert (ROOT / words.pop(0)).is_file()
        elif word == "-e":
            target = words.pop(0)
            match = re.fullmatch(r"\.(?:\[([\w,-]+)\])?", target)
            assert match, f"pip install -e {target!r}"
            project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
            extras = set((match[1] or "").split(",")) - {""}
            assert extras <= project["optional-dependencies"].keys()
        else:
            assert re.fullmatch(r"--?[a-z-]+", word), f"pip install {word!r} has no check"


PYTEST_OPTIONS = ("--tb", "--pdb")  # of pytest's own, those that are taught
# plugins that are loaded by name, each with its options
PLUGINS = {"nbval.plugin": ("--nbval-lax",)}


def check_pytest(words: list[str]) -> None:
    """Paths exist and options are known to pytest or to the course's plugin."""
    plugin = (ROOT / "src/learn_gpt2/pytest_plugin.py").read_text(encoding="utf-8")
    known = list(PYTEST_OPTIONS)
    while "-p" in words:
        at = words.index("-p")
        known += PLUGINS[words[at + 1]]
        words = words[:at] + words[at + 2 :]
    for word in words:
        if word.startswith("--"):
            name = word.split("=")[0]
            assert f'"{name}"' in plugin or name in known, f"pytest has no {word} here"
        elif word not in ("-q", "-v", "-x", "-s"):
            assert (ROOT / word.split("::")[0]).exists(), f"{word} does not exist"


def check_click(module: str, words: list[str]) -> None:
    """The command line parses: subcommands, options, values and arguments."""
    groups = vars(importlib.import_module(module)).values()
    command = next(value for value in groups if isinstance(value, click.Group))
    words = words[: words.index("--help")] if "--help" in words else words
    context = None
    try:
        while isinstance(command, click.Group):
            context = click.Context(command, parent=context, info_name=module)
            _, words, _ = command.make_parser(context).parse_args(list(words))
            if not words:
                return
            name, command, words = command.resolve_command(context, words)
            context = click.Context(command, parent=context, info_name=name)
        command.make_context(command.name, list(words), parent=context)
    except click.ClickException as error:
        raise AssertionError(error.format_message()) from error
    if module.startswith("learn_gpt2"):  # problem numbers mean a problem that there is
        select([word for word in words if re.fullmatch(r"\d.*", word)])


def check_torchrun(words: list[str]) -> None:
    """Options are torchrun's, and what it starts is `gpt2 train` with options of its own."""
    from torch.distributed.run import get_args_parser

    try:
        parsed = get_args_parser().parse_args(words)
    except SystemExit:
        raise AssertionError(f"torchrun knows no {words}") from None
    assert parsed.module
    assert parsed.training_script == "gpt2"
    assert parsed.training_script_args[0] == "train"
    check_click("gpt2.cli", parsed.training_script_args)


CHECKS = {
    "torchrun": check_torchrun,
    "make": check_make,
    "pip": check_pip,
    "pytest": check_pytest,
    "gpt2": lambda words: check_click("gpt2.cli", words),
    "learn": lambda words: check_click("learn_gpt2.cli", words),
    "venv": lambda words: _assert_equal(words, [".venv"]),
    ".": lambda words: _assert_equal(words, [".venv/bin/activate"]),
    "cd": lambda words: None,
    "git": lambda words: _assert_equal(words[:1], ["clone"]),
    "cp": lambda words: None,
    "tests.class_of_40": lambda words: _assert_equal(words, []),
    "tests.graders.run": lambda words: select(words or ["all"]) and None,
    "learn.upkeep.notebooks": lambda words: check_click("learn_gpt2.upkeep.notebooks", words),
}


def _assert_equal(got: list[str], want: list[str]) -> None:
    assert got == want


@every_document
def test_commands_exist(path: Path):
    """Catches a document that tells of a target, option or folder that is not there."""
    for command in commands(text_of(path)):
        check(command)


def commands_in_messages() -> list[str]:
    """Commands that the programs' own texts and the workflows name, as far as they are fixed."""
    paths = [*ROOT.glob("src/**/*.py"), *ROOT.glob("problems/*/*.py"), *ROOT.glob("solutions/*.py")]
    found = set()
    for path in paths:
        text = re.sub(r'"\n\s*f?"', "", path.read_text(encoding="utf-8"))  # strings side by side
        found.update(code for code in commands(text) if not re.search(r"[{}A-Z<|]", code))
    return sorted(code for code in found if re.match(r"(make|learn|gpt2|pytest) ", code))


@pytest.mark.parametrize("command", commands_in_messages())
def test_commands_in_messages_exist(command: str):
    """Catches an error message that sends the learner to a command that is not there."""
    try:
        check(command)
    except AssertionError as error:  # `learn reset` may be named without its arguments
        if not re.match(r"Missing (argument|option)|Option .* requires an argument", str(error)):
            raise


def test_messages_name_commands():
    """Catches a search that overlooks them."""
    found = commands_in_messages()
    assert {"make setup", "learn swap --reference all", "learn undo"} <= set(found)
    assert len(found) > 12


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```sh\nmake demo  # writes\n# nothing\nmake a && make b\n```", "make demo|make a|make b"),
        ("```console\n$ make demo\nmake this is output\n```", "make demo"),
        ("```python\nmake demo\n```", ""),
        ("`make demo`, `learn swap 01` and `gpt2.cache`", "make demo|learn swap 01"),
        ("```sh\nmake \\\n  demo\n```", "make    demo"),
    ],
)
def test_commands_are_found(text: str, found: str):
    """Catches a search that overlooks commands, so that nothing would be checked."""
    assert "|".join(commands(text)) == found


@pytest.mark.parametrize(
    "command",
    [
        "make nonsense",
        "make demo NONSENSE=1",
        "pip install -c nonsense.txt -e .",
        "pip install -e '.[nonsense]'",
        "pip install nonsense",
        "pytest problems/13-nonsense",
        "pytest problems --nonsense",
        "pytest --nbval-lax problems",
        "gpt2 nonsense",
        "gpt2 generate --nonsense 1",
        "gpt2 generate --max-new-tokens many",
        "torchrun --nonsense=8 -m gpt2 train",
        "torchrun -m gpt2 train --nonsense",
        "learn nonsense",
        "learn swap 19",
        "learn swap --nonsense",
        "python3 -m venv elsewhere",
        "python3 nonsense.py",
        "python -m tests.graders.run 19",
        "python -m learn_gpt2.upkeep.notebooks nonsense",
        "nonsense",
    ],
)
def test_a_wrong_command_is_found(command: str):
    """Catches a check that accepts anything."""
    with pytest.raises((AssertionError, ValueError)):
        check(command)


def test_readme_commands_run():
    """Catches a first command of the README that stops with an error: the demo, run for real."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = next(command for command in commands(text) if command.startswith("gpt2 generate"))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8"}
    words = [sys.executable, "-m", *shlex.split(command), "--max-new-tokens", "5"]
    result = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert result.returncode == 0, result.stderr
    prompt = shlex.split(command)[shlex.split(command).index("--prompt") + 1]
    assert result.stdout.startswith(prompt)
    assert len(result.stdout) > len(prompt) + 1


def test_the_readme_shows_what_the_model_writes():
    """Catches a sample that is another model's, or another sampler's."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command, shown = re.search(
        r"`gpt2 (generate [^`]+)`:\n\n```text\n(.*?)```", text, re.S
    ).groups()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8"}
    words = [sys.executable, "-m", "gpt2", *shlex.split(command)]
    result = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert len(shown) > 80
    assert result.stdout.startswith(shown.rstrip()), result.stdout + result.stderr


def test_the_readme_counts_the_banks():
    """Catches a number of answers that was true once."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    all_banks = [banks.load(p.number) for p in PROBLEMS]
    for kind, said in (("wrong", "wrong answers caught"), ("right", "right answers accepted")):
        count = sum(len(getattr(bank, kind)) for bank in all_banks)
        assert re.search(rf"^\| {said}.*\| {count} of {count} \|", text, re.M), (kind, count)
