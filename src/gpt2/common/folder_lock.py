"""A folder that one process at a time writes to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LOCK_NAME = ".lock"


@contextmanager
def only_one(folder: str | Path) -> Iterator[None]:
    """Inside, nobody else is in `only_one` of this folder, which is made where need be.

    The system lets go of the lock with the process, also of one that was killed. ValueError when
    another process has it. A file system without locks is used without.
    """
    folder = Path(folder)
    path = folder / LOCK_NAME
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error}") from None
    with file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            raise ValueError(
                f"{folder} is being written by another process: wait for it, or choose another "
                "folder"
            ) from None
        except (ImportError, OSError):
            pass
        try:
            yield
        finally:
            if os.name != "nt":  # Windows deletes no open file
                path.unlink(missing_ok=True)
                if new:
                    with suppress(OSError):
                        folder.rmdir()  # nothing came of it


def _lock(file: BinaryIO) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
