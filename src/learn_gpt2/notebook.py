"""What the problems' notebooks run on: which piece, which model, and which files.

`open_piece(5)` is the learner's piece when its checks pass and the reference otherwise, and says
which. Run its cell again after editing `problem.py`: the file is read again.
"""

from __future__ import annotations

import sys
import types
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_gpt2 import manifest
from learn_gpt2.manifest import MODEL_FILE, PROBLEMS, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from gpt2.model import GPT2Model
    from gpt2.text.tokenizers import Tokenizer


def start(seed: int = 0) -> None:
    """Make this kernel ready: packages there, one thread, a seed.

    ImportError that names the interpreter when the kernel is not the course's.
    """
    try:
        import matplotlib  # noqa: F401
        import torch
    except ImportError as error:
        raise ImportError(
            f"this notebook's kernel, {sys.executable}, has no {error.name}. Choose the course's "
            "own (.venv in its folder; `make setup` creates it) as the kernel."
        ) from None
    # tqdm misses a package of Jupyter's that no notebook here needs
    warnings.filterwarnings("ignore", message="IProgress not found")
    torch.set_num_threads(1)  # so little work that threads would wait for one another
    torch.manual_seed(seed)
    torch.set_printoptions(precision=3, sci_mode=False, linewidth=100)


# ── the piece ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class OpenPiece:
    """One problem's piece: `piece.Embeddings` is the class of that name in it."""

    problem: Problem
    whose: str  # "yours", or "the reference"
    path: str  # from the course's root
    digest: str  # first digits of the source's SHA-256
    why: str
    module: types.ModuleType = field(repr=False)
    root: Path | None = field(repr=False, default=None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return getattr(self.module, name)
        except AttributeError:
            raise AttributeError(f"{self.path} has no {name}") from None

    def __str__(self) -> str:
        number = f"Problem {self.problem.number:02d}"
        return f"{number}: {self.whose}, {self.path} ({self.digest}): {self.why}."

    def gpt2(self) -> types.ModuleType:
        """A whole `gpt2.model` with this piece in it: `.GPT2Model`, `.GPT2Config`, every class.

        The other pieces are those that are swapped into the course's model.
        """
        return _whole_model(self)

    def trained(self, name: str | Path | None = None) -> tuple[GPT2Model, Tokenizer]:
        """A trained GPT-2 that runs on this piece, in eval mode, and its tokenizer.

        name: as for `from_pretrained`; default: the bundled model.
        """
        from gpt2.formats.opening import load_tokenizer, open_model
        from gpt2.inference.loading import load_model

        folder = bundled() if name is None else name
        model = load_model(open_model(folder), kind=self.gpt2().GPT2Model)
        return model, load_tokenizer(folder)


def open_piece(name: str | int) -> OpenPiece:
    """Open a problem's piece, and print which it is and why."""
    piece = find_piece(name)
    print(piece)
    return piece


def find_piece(name: str | int, root: Path | None = None) -> OpenPiece:
    """The learner's piece when its checks pass, else the reference; with no course around, that
    of the installed package.

    root: the course's folder; default: found from the current folder upward.
    """
    problem = manifest.get(name)
    try:
        root = root or manifest.find_root()
    except FileNotFoundError:
        return _installed(problem)
    why = _why_not_yours(root, problem)
    if not why:
        try:
            return _load(root, problem, "yours", f"its {_checks(root, problem)} checks pass")
        except Exception as error:
            why = f"your problem.py could not be opened: {error}"
    return _load(root, problem, "the reference", why)


def _load(root: Path, problem: Problem, whose: str, why: str) -> OpenPiece:
    from learn_gpt2.checking import loading

    yours = whose == "yours"
    path = problem.problem_path(root) if yours else problem.solution_path(root)
    piece = loading.load(problem, path, "yours" if yours else "REFERENCE")
    shown = path.relative_to(root).as_posix()
    return OpenPiece(problem, whose, shown, piece.digest, why, piece.module, root)


def _installed(problem: Problem) -> OpenPiece:
    """The reference in the package, where there is no course (on Colab, say)."""
    import importlib

    import gpt2
    from learn_gpt2.checking import loading

    module = importlib.import_module(problem.import_name)
    path = Path(gpt2.__file__).with_name(problem.module)
    digest = loading.digest(path.read_text(encoding="utf-8"))
    why = "this notebook runs outside the course's folder, so it can't see a problem.py of yours"
    return OpenPiece(problem, "the reference", f"gpt2/{problem.module}", digest, why, module)


def _why_not_yours(root: Path, problem: Problem) -> str:
    """Why the learner's file can't serve, or "" when all its checks pass.

    What an earlier run of the checks on the same file came to is believed.
    """
    from learn_gpt2.checking import runner
    from learn_gpt2.course import backups, progress

    path = problem.problem_path(root)
    if not path.is_file():
        return "there is no problem.py"
    if backups.untouched(root, problem):
        return "your problem.py is still the skeleton"
    seen = progress.entry(root, problem)
    digest = backups.source_digest(path)
    if not (digest and seen.get("digest") == digest and seen.get("total")):
        try:
            report = progress.check(root, problem)
        except runner.CourseBroken as error:
            return str(error).rstrip(".")
        words, passed = report.words, report.passed
        first = report.first_failure
        failing = f"; first {first.name}" if first and not report.unloadable else ""
    else:
        total, failed = seen["total"], seen.get("failed", seen["total"] - seen["passed"])
        words = runner.verdict(total, failed, total - seen["passed"] - failed)
        passed = seen["passed"] == total
        failing = f"; first {seen['failing']}" if seen.get("failing") else ""
    return "" if passed else f"the checks of your problem.py don't pass yet ({words}{failing})"


def _checks(root: Path, problem: Problem) -> int:
    from learn_gpt2.course import progress

    return progress.entry(root, problem).get("total", 0)


def _whole_model(piece: OpenPiece) -> types.ModuleType:
    """`gpt2.model` as `learn swap` would assemble it with this piece, as a module of its own; for a
    piece of part two, the model that it is built on.
    """
    if piece.root is None:
        import gpt2.model

        return gpt2.model
    from learn_gpt2.assembly import swap
    from learn_gpt2.checking import headers, loading

    number = piece.problem.number
    choices: dict = dict(swap.current_pieces(piece.root, [MODEL_FILE]))
    if piece.problem.in_model:
        choices[number] = "yours" if piece.whose == "yours" else "reference"
    try:
        text = swap.assemble_model(piece.root, choices)
    except ValueError as error:
        print(f"Your piece can't be carried into a whole model ({error}); the reference's is used.")
        text = swap.assemble_model(piece.root, choices | {number: "reference"})
    others = [
        PROBLEMS[n - 1].folder + (f" ({headers.FORCED_IN})" if c.forced else "")
        for n, c in choices.items()
        if getattr(c, "owner", "") == "yours"
    ]
    if others:
        print("Also yours in this model:", ", ".join(others) + ".")
    module = types.ModuleType(f"gpt2_with_{number:02d}_{loading.digest(text)}")
    module.__file__ = str(swap.model_path(piece.root))
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up
    loading.execute(text, "model.py with this piece", module)
    return module


# ── what is at hand ─────────────────────────────────────────────────────────────────────────────


def bundled() -> Path:
    """The folder of the trained model that comes with the course."""
    from gpt2.formats.bundled import bundled

    return bundled()


def gpt2_tokenizer() -> Tokenizer | None:
    """GPT-2's own tokenizer when its files are on this machine, else None. Never downloads."""
    import hashlib
    import os
    import tempfile

    from gpt2.text.tokenizers import TIKTOKEN_URLS, GPT2Tokenizer

    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    cache = Path(folder or Path(tempfile.gettempdir()) / "data-gym-cache")
    files = [cache / hashlib.sha1(url.encode()).hexdigest() for url in TIKTOKEN_URLS]
    return GPT2Tokenizer.load() if all(file.is_file() for file in files) else None


def gpt2_weights(name: str = "gpt2") -> Path | None:
    """A hub model's folder when its weights are on this machine, else None. Never downloads."""
    from huggingface_hub import try_to_load_from_cache

    from gpt2.formats.checkpoints import HUB_NAMES, WEIGHTS

    repo = HUB_NAMES.get(name, name)
    found = [try_to_load_from_cache(repo, file) for file in ("config.json", WEIGHTS)]
    return Path(found[0]).parent if all(isinstance(path, str) for path in found) else None


def held_out(characters: int = 1024, skip: int = 0) -> str:
    """Shakespeare that the bundled model was not trained on (see gpt2/bundled/README.md).

    ValueError when there are not so many characters.
    """
    from gpt2.formats.bundled import bundled

    text = (bundled() / "held-out.txt").read_text(encoding="utf-8")
    if not 0 < characters <= len(text) - skip or skip < 0:
        raise ValueError(f"{characters} characters from {skip} on: there are {len(text)}")
    return text[skip : skip + characters]


def encode(tokenizer: Tokenizer, text: str) -> Tensor:
    """A text → ids (1, T)."""
    import torch

    return torch.tensor([tokenizer.encode(text)])
