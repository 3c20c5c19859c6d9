"""Files and folders that are written as a whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from gpt2.common import files
from gpt2.common.files import folder_written_aside, write_atomically, write_json, written_aside

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("there", [True, False])
def test_a_failure_changes_nothing_and_leaves_nothing(tmp_path: Path, there: bool) -> None:
    """Catches a file cut in the middle, and what was written aside left lying about."""
    path = tmp_path / "a.txt"
    if there:
        path.write_text("old")

    def write_half(error: type[BaseException]) -> None:
        with written_aside(path) as part:
            part.write_text("half")
            raise error

    for error in (ValueError, OSError, KeyboardInterrupt):
        with pytest.raises(error):
            write_half(error)
    assert names(tmp_path) == (["a.txt"] if there else [])
    assert not there or path.read_text() == "old"


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_the_file_before_or_of_any_new_one(
    tmp_path: Path, umask: int
) -> None:
    """Catches weights that only their owner may read, and a private file opened to everybody."""

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    before = os.umask(umask)
    try:
        with written_aside(tmp_path / "new") as part:
            part.unlink()
            os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors does
        assert mode(tmp_path / "new") == 0o666 & ~umask
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(0o440)
        write_atomically(tmp_path / "old", b"new")
        assert mode(tmp_path / "old") == 0o440
    finally:
        os.umask(before)


@posix
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """Catches a dotfile manager's link to model.py replaced by a file beside it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("old")
    (tmp_path / "a").symlink_to(Path("real") / "a")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "new"
    assert names(tmp_path / "real") == ["a"]


def test_any_name_that_the_disk_takes_will_do(tmp_path: Path) -> None:
    """Catches a name that is too long only because something was put before or behind it."""
    path = tmp_path / ("n" * 240 + ".json")
    write_json(path, {"a": "é\udcff"}, ascii_only=False)
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "é\udcff"}
    write_atomically(tmp_path / "made" / "for" / "it", b"")
    assert names(tmp_path) == ["made", path.name]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    """Catches a name aside that two threads of one process share."""
    path, texts = tmp_path / "a", [b"a" * 50_000, b"b" * 50_000]
    threads = [
        threading.Thread(target=lambda t=t: [write_atomically(path, t) for _ in range(20)])
        for t in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in texts
    assert names(tmp_path) == ["a"]


def test_a_folder_appears_at_once_or_is_filled_file_by_file(tmp_path: Path) -> None:
    """Catches a half-written folder, other files deleted, and a failure that leaves something."""
    with folder_written_aside(tmp_path / "deep" / "new") as part:
        (part / "a").write_text("1")
        (part / "inner").mkdir()
        (part / "inner" / "b").write_text("2")
        assert not (tmp_path / "deep" / "new").exists()
    assert names(tmp_path / "deep") == ["new"]
    assert names(tmp_path / "deep" / "new") == ["a", "inner"]

    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a").write_text("old")
    (tmp_path / "there" / "mine").write_text("kept")

    def write_half() -> None:
        with folder_written_aside(tmp_path / "there") as part:
            (part / "a").write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert (tmp_path / "there" / "a").read_text() == "old"
    with folder_written_aside(tmp_path / "there") as part:
        (part / "a").write_text("new")
    assert names(tmp_path / "there") == ["a", "mine"]
    assert (tmp_path / "there" / "a").read_text() == "new"


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """Catches litter that stays forever, and a file of somebody's deleted with it."""
    left = files._beside(tmp_path / "a.json")
    left.touch()
    (tmp_path / f"{files.ASIDE}folder").mkdir()
    (tmp_path / ".writing").touch()
    files.sweep(tmp_path)
    assert names(tmp_path) == [".writing"]
