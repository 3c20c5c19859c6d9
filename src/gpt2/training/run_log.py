"""A run's log: a line of JSON per event, TensorBoard's files on request, and reading it back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt2.common.files import write_atomically

LOG_NAME = "log.jsonl"


class RunLog:
    """What rank 0 writes down: to RUN/log.jsonl, to TensorBoard, and to whoever listens."""

    def __init__(
        self, run: Path, done: int, on_event: Callable[[dict], None], tensorboard: bool = False
    ):
        """Lines of steps behind `done`, which are about to be repeated, go. ValueError where
        TensorBoard is asked for and not installed.
        """
        run.mkdir(parents=True, exist_ok=True)
        self.path, self.on_event = run / LOG_NAME, on_event
        self._board: Any = None
        if self.path.exists():
            kept = [row for row in read_log(self.path) if row["step"] <= done]
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
            write_atomically(self.path, "".join(lines).encode())
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ValueError("--tensorboard: pip install tensorboard") from None
            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=done)

    def write(self, event: dict) -> None:
        """One event with its `step`."""
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")
        self.on_event(event)
        if self._board:
            for name, value in event.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, event["step"])

    def close(self) -> None:
        if self._board:
            self._board.close()


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """A run's log; a last line that was cut off by a crash is left out."""
    rows = []
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def clock(seconds: float) -> str:
    """Seconds → minutes:seconds, with hours where there are any."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
