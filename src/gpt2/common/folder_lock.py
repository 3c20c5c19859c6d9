"""A folder that one process at a time writes to."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpt2.common.files import sweep

LOCK_NAME = ".lock"
# A holder that just ended may have deleted the file that we opened: a moment to try again.
GRACE_SECONDS = 0.2
NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def only_one(folder: str | Path) -> Iterator[None]:
    """Inside the block, no other process is in `only_one` of this folder, which is made if needed.

    The system releases the lock when the process ends, even if it was killed. ValueError when
    another process has it. On a file system that knows no locks, the folder is used without one.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    path = folder / LOCK_NAME
    new = not folder.exists()
    lock = FileLock(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=GRACE_SECONDS)
    except Timeout:
        raise ValueError(
            f"{folder} is being written by another process: wait for it, or choose another folder"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise ValueError(f"{folder} cannot be written: {error}") from None
    sweep(folder)  # what is written aside here is nobody's
    try:
        yield
    finally:
        # Deleted while it is still held: whoever waits on the deleted file sees that it has no
        # name any more, and starts again. Windows deletes no open file; there `release` does it.
        with suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()
        if new:
            with suppress(OSError):
                folder.rmdir()  # nothing came of it
