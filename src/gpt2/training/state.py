"""Training checkpoints: whole or not there at all, and nothing in them is ever executed.

`RUN/checkpoints/step-00000250/` is a Hugging Face folder (config.json, model.safetensors, the
tokenizer) with two files more: `training.safetensors` (the optimizer's moments and, with weight
averaging, the weights themselves) and `training.json` (everything that is not a tensor). It is
written under another name, synced and renamed, so a folder of that name is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.common.files import STEP_NAME, short

if TYPE_CHECKING:
    from torch import Tensor

STATE_NAME = "training.json"
TENSORS_NAME = "training.safetensors"
ASIDE = ".writing-"
GOING = ".deleting-"


def checkpoint_step(path: Path) -> int | None:
    """The step in a checkpoint folder's name; None for any other name."""
    match = STEP_NAME.fullmatch(path.name)
    return int(match[1]) if match else None


class CheckpointStore:
    """The checkpoints of one run: the last `keep_last` of them."""

    def __init__(self, run: str | Path, keep_last: int = 2):
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1, got {keep_last}")
        self.folder = Path(run) / "checkpoints"
        self.keep_last = keep_last

    def all(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if checkpoint_step(path) is not None]
        return sorted(found, key=lambda path: checkpoint_step(path) or 0)

    def latest(self) -> Path | None:
        """The newest whole checkpoint."""
        return next(reversed(self.all()), None)

    def save(
        self,
        step: int,
        state: dict[str, Any],
        tensors: Mapping[str, Tensor],
        export: Callable[[Path], object],
    ) -> Path:
        """Write a checkpoint, unless that of this step is there; then delete those too many.

        export(folder) writes the model. ValueError that names the last good checkpoint when the
        disk is full or the folder cannot be written; that one stays as it is.
        """
        from safetensors.torch import save_file

        final = self.folder / f"step-{step:08d}"
        aside = self.folder / f"{ASIDE}{final.name}-{os.getpid()}"
        if final.is_dir():
            return final  # this run at this step: the same content
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.sweep()
            aside.mkdir()
            export(aside)
            save_file(dict(tensors), aside / TENSORS_NAME)
            with (aside / STATE_NAME).open("w", encoding="utf-8", newline="\n") as file:
                json.dump(state, file, indent=1)
            # safetensors lets only the owner read its files; these are for whom the umask says
            shutil.copymode(aside / STATE_NAME, aside / TENSORS_NAME)
            for path in aside.iterdir():
                sync(path)
            sync(aside)
            os.replace(aside, final)
            sync(self.folder)
        except Exception as error:
            shutil.rmtree(aside, ignore_errors=True)
            # safetensors has its own exception for a disk that is full
            if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
                raise
            last = self.latest()
            raise ValueError(
                f"the checkpoint of step {step} cannot be written to {self.folder}: {error}. "
                + (f"The last whole one is {last}" if last else "There is none before it")
            ) from None
        self.sweep()
        for old in self.all()[: -self.keep_last]:
            self._delete(old)
        return final

    def _delete(self, path: Path) -> None:
        # renamed first: a checkpoint half deleted must not look like a whole one
        going = self.folder / f"{GOING}{path.name}-{os.getpid()}"
        try:
            os.replace(path, going)
        except OSError:
            return  # somebody reads it, which stops a rename on Windows; the next save tries again
        shutil.rmtree(going, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what an interrupted run left behind."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name.startswith((ASIDE, GOING)):
                shutil.rmtree(path, ignore_errors=True)


def read_state(path: str | Path) -> dict[str, Any]:
    """A checkpoint's `training.json`. ValueError that says what is missing or damaged."""
    path = Path(path)
    try:
        state = json.loads((path / STATE_NAME).read_text(encoding="utf-8"))
        if not isinstance(state, dict) or not isinstance(state.get("config"), dict):
            raise ValueError("it describes no run")
    except FileNotFoundError:
        raise ValueError(f"{path} is not a training checkpoint: {STATE_NAME} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path / STATE_NAME} cannot be read: {error}") from None
    return state


def read_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint folder → (state, tensors). ValueError that says what is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state = read_state(path)
    file = Path(path) / TENSORS_NAME
    try:
        return state, load_file(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {short(str(error))}") from None


def sync(path: Path) -> None:
    """What the file or folder holds is on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders; it writes their entries in order
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
