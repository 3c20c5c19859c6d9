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

from gpt2.common.files import (
    STEP_NAME,
    folder_written_aside,
    replace,
    short,
    sweep,
    write_json,
)
from gpt2.formats.checkpoints import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

STATE_NAME = "training.json"
TENSORS_NAME = "training.safetensors"
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
        final = self.folder / f"step-{step:08d}"
        if final.is_dir():
            return final  # this run at this step: the same content
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.sweep()
            with folder_written_aside(final) as part:
                export(part)
                save_tensors(tensors, part / TENSORS_NAME)
                write_json(part / STATE_NAME, state)
        except Exception as error:
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
            replace(path, going)
        except OSError:
            return  # somebody reads it, which stops a rename on Windows; the next save tries again
        shutil.rmtree(going, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what an interrupted run left behind."""
        sweep(self.folder)
        for path in self.folder.glob(f"{GOING}*"):
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
