"""What `learn doctor` looks at. Each finding says what is there and, if need be, what to do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import learn_gpt2
from learn_gpt2.assembly import swap
from learn_gpt2.checking import headers, limits, loading
from learn_gpt2.course import layout
from learn_gpt2.manifest import MODULES, PROBLEMS, reference_name

GOOD, NOTE, BAD = "good", "note", "bad"


@dataclass(frozen=True)
class Finding:
    """One line: its state (good, note, bad), what was found, and what to do about it."""

    state: str
    found: str
    to_do: str = ""


def examine(root: Path) -> list[Finding]:
    """Everything, in order of how much depends on it."""
    looks = (
        _python,
        _environment,
        _torch,
        _packages,
        _files,
        _model,
        _write,
        _disk,
        _terminal,
        _limits,
        _bundled,
        _vocabulary,
        _weights,
    )
    found: list[Finding] = []
    for look in looks:
        try:
            found += look(root)
        except Exception as error:  # a doctor that dies helps nobody
            found.append(
                Finding(BAD, f"{look.__name__.strip('_')}: {type(error).__name__}: {error}")
            )
    return found


def _python(root: Path) -> list[Finding]:
    version = platform.python_version()
    text = f"Python {version} ({sys.executable}) on {platform.platform(terse=True)}"
    return [Finding(GOOD, text)]


def _environment(root: Path) -> list[Finding]:
    here = Path(learn_gpt2.__file__).resolve().parent
    if here != (root / "src" / "learn_gpt2").resolve():
        return [
            Finding(
                BAD,
                f"learn runs from {here}",
                f"Activate {root}'s own .venv, or `make setup` there.",
            )
        ]
    found = []
    if sys.prefix == sys.base_prefix:
        to_do = "" if layout.was_made(root) else "`make setup` makes one in .venv."
        found.append(Finding(NOTE, "no virtual environment is active", to_do))
    stamp, sources = root / ".venv", [root / "pyproject.toml", root / "constraints.txt"]
    stale = [p.name for p in sources if p.exists() and stamp.exists() and _newer(p, root)]
    if stale:
        found.append(
            Finding(
                NOTE, f"{' and '.join(stale)} changed after .venv was made", "Run `make setup`."
            )
        )
    return found or [Finding(GOOD, f"environment {sys.prefix}")]


def _newer(path: Path, root: Path) -> bool:
    stamps = list((root / ".venv").glob(".ready-*"))  # as the Makefile leaves them
    return bool(stamps) and path.stat().st_mtime > max(s.stat().st_mtime for s in stamps)


def _torch(root: Path) -> list[Finding]:
    try:
        import torch
    except Exception as error:  # a broken installation raises OSError and others
        return [Finding(BAD, f"torch can't be imported: {error}", _set_up(root))]
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append(f"cuda ({torch.cuda.get_device_name(0)})")
    if getattr(torch.backends, "mps", None) and torch.backends.mps.is_available():
        devices.append("mps (Apple's GPU)")
    text = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    text += f", devices: {', '.join(devices)}"
    return [Finding(GOOD, text)]


def _packages(root: Path) -> list[Finding]:
    pins = {}
    constraints = root / "constraints.txt"
    if constraints.exists():
        for line in constraints.read_text(encoding="utf-8").splitlines():
            match = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line)
            if match:
                pins[match[1].lower().replace("_", "-")] = match[2]
    found = []
    needed = (
        "click",
        "numpy",
        "psutil",
        "pytest",
        "safetensors",
        "tiktoken",
        "tokenizers",
        "torch",
        "tqdm",
        "watchfiles",
    )
    for name in needed:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding(BAD, f"{name} is not installed", _set_up(root)))
            continue
        pin = pins.get(name)
        if pin and version.split("+")[0] != pin.split("+")[0]:
            found.append(
                Finding(NOTE, f"{name} {version}; the course is tested with {pin}", _set_up(root))
            )
    optional = [n for n in ("matplotlib", "transformers") if not importlib.util.find_spec(n)]
    if optional:
        found.append(
            Finding(
                NOTE,
                f"not installed: {', '.join(optional)}",
                "Some tests and plots need these packages.",
            )
        )
    return found or [Finding(GOOD, "all packages have the tested versions")]


def _back(root: Path, name: str) -> str:
    """How to get a lost file of the course again."""
    if name.endswith("problem.py"):
        return f"`learn reset {name.split('/')[1][:2]}` brings it back."
    if layout.was_made(root):
        return "`learn update` brings it back."
    return f"`git checkout -- {name}` brings it back."


def _set_up(root: Path) -> str:
    """How to get a package that is missing or old."""
    if layout.was_made(root):
        return "Run `python -m pip install -c constraints.txt --upgrade` with its name."
    return "Run `make setup`."


def _files(root: Path) -> list[Finding]:
    renamed = [
        Finding(
            BAD,
            f"the folder problems/{p.folder} is not there; problems/{other} is",
            f"Rename it back: mv problems/{other} problems/{p.folder}",
        )
        for p in PROBLEMS
        if not (folder := p.problem_path(root).parent).is_dir()
        and (other := loading.renamed(folder))
    ]
    if renamed:
        return renamed
    lost = [
        path.relative_to(root).as_posix()
        for p in PROBLEMS
        for path in (
            p.problem_path(root),
            p.solution_path(root),
            p.test_path(root),
            p.mistakes_path(root),
            p.readme_path(root),
        )
        if not path.is_file()
    ]
    if lost:
        return [
            Finding(
                BAD,
                f"missing: {', '.join(lost[:4])}",
                _back(root, lost[0]),
            )
        ]
    return [Finding(GOOD, f"course {root}, all eighteen problems there")]


def _model(root: Path) -> list[Finding]:
    """The seven files: each one's state where something is to be said of it, and whose pieces."""
    found: list[Finding] = []
    for module in MODULES:
        try:
            swap.current_pieces(root, [module])
        except (ValueError, OSError) as error:
            to_do = f"`learn swap --reference {reference_name(module)}` writes it again."
            found.append(Finding(BAD, f"src/gpt2/{module}: {error}", to_do))
    placed = headers.placed_everywhere(root / "src" / "gpt2")
    mine = [
        f"{n:02d}" + (f" ({headers.FORCED_IN})" if p.forced else "")
        for n, p in sorted(placed.items())
        if p.owner != "reference"
    ]
    forced = [n for n, p in sorted(placed.items()) if p.forced]
    text = f"pieces in src/gpt2/: {'yours: ' + ', '.join(mine) if mine else 'the reference'}"
    if forced:
        to_do = f"`learn swap --reference {forced[0]:02d}` takes it out."
        found.append(Finding(NOTE, text, to_do))
    elif not found:
        found.append(Finding(GOOD, text))
    return found


def _write(root: Path) -> list[Finding]:
    for folder in (root, root / "problems", root / "src" / "gpt2"):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            return [
                Finding(
                    BAD,
                    f"{folder} can't be written: {error.strerror}",
                    "Check its owner and permissions.",
                )
            ]
    return [Finding(GOOD, "the course's folders can be written")]


def _disk(root: Path) -> list[Finding]:
    free = shutil.disk_usage(root).free / 1e9
    if free < 1:
        return [
            Finding(
                NOTE, f"{free:.1f} GB of disk free", "GPT-2 small's weights alone need 0.55 GB."
            )
        ]
    return [Finding(GOOD, f"{free:.0f} GB of disk free")]


def _terminal(root: Path) -> list[Finding]:
    size = shutil.get_terminal_size()
    encoding = getattr(sys.stdout, "encoding", None) or "unknown"
    text = f"terminal {size.columns}×{size.lines}, {encoding}"
    if "utf" not in encoding.lower():
        return [Finding(NOTE, text, "Set PYTHONUTF8=1 to see ✓, √ and −.")]
    if size.columns < 100:
        return [Finding(NOTE, text, "The board needs about 100 columns.")]
    return [Finding(GOOD, text)]


def _limits(root: Path) -> list[Finding]:
    return [Finding(GOOD, limits.describe_platform())]


def _bundled(root: Path) -> list[Finding]:
    folder = root / "src" / "gpt2" / "bundled"
    if (folder / "model.safetensors").is_file():
        return [
            Finding(GOOD, "the bundled model is there: `gpt2 generate` works without a network")
        ]
    return [Finding(BAD, f"{folder} holds no model", _back(root, "src/gpt2/bundled"))]


def _vocabulary(root: Path) -> list[Finding]:
    cache = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    folder = Path(cache) if cache else Path(tempfile.gettempdir()) / "data-gym-cache"
    # the names under which tiktoken keeps vocab.bpe and encoder.json
    names = ("6d1cbeee0f20b3d9449abfede4726ed8212e3aee", "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6")
    if all((folder / name).is_file() for name in names):
        return [Finding(GOOD, f"GPT-2's vocabulary is in {folder}")]
    return [
        Finding(
            NOTE,
            "GPT-2's vocabulary is not on this machine",
            "Real GPT-2 fetches it once, when first used.",
        )
    ]


def _weights(root: Path) -> list[Finding]:
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    there = [
        n
        for n in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2")
        if any(
            (hub / f"models--{owner}{n}").is_dir()
            for owner in ("", "openai-community--", "distilbert--")
        )
    ]
    if there:
        return [Finding(GOOD, f"pretrained weights on this machine: {', '.join(there)}")]
    return [
        Finding(
            NOTE,
            "no pretrained GPT-2 on this machine",
            "`gpt2 generate --model gpt2` fetches it (0.55 GB).",
        )
    ]
