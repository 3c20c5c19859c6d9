"""Files that are written as a whole or not at all, JSON, and files of the Hugging Face hub.

This module does not import PyTorch, so that a process that only encodes text stays small.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import reprlib
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WEIGHTS = "model.safetensors"
END_OF_TEXT_ID = 50256  # `<|endoftext|>` in GPT-2's own vocabulary of 50,257
MAX_JSON_BYTES = 8 * 2**20  # a config takes 1 kB; a hostile file does not get to fill the memory

# The hub's short names, which it forwards to these repositories.
HUB_NAMES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}


# A training checkpoint's folder, `RUN/checkpoints/step-00000250`
STEP_NAME = re.compile(r"step-(\d{8,})")


def in_a_run(folder: Path) -> Path:
    """A training run's folder → its best checkpoint, or the last one where none was validated; any
    other folder → itself.
    """
    if (folder / "config.json").is_file():
        return folder
    if (folder / "best" / "config.json").is_file():
        return folder / "best"
    inside = folder if folder.name == "checkpoints" else folder / "checkpoints"
    found = inside.iterdir() if inside.is_dir() else ()
    steps = {int(match[1]): path for path in found if (match := STEP_NAME.fullmatch(path.name))}
    return steps[max(steps)] if steps else folder


# ── writing ─────────────────────────────────────────────────────────────────────────────────────

WINDOWS = os.name == "nt"
ASIDE = ".writing-"  # how everything begins that is written aside; nothing else is called so


@contextlib.contextmanager
def written_aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name to write a file to; it is renamed to `path` when the block ends.

    A reader sees either the old file or the complete new one, also after a power cut. It gets
    the permissions of the file that it replaces, or those of any new file; a link stays a link. If
    the block fails, `path` is as it was, and nothing is left behind.
    """
    path = Path(os.path.realpath(path))
    part = _beside(path)
    part.touch(exist_ok=False)
    mode = (path if path.exists() else part).stat().st_mode & 0o7777
    try:
        yield part
        sync(part)
        os.chmod(part, mode)  # some libraries let only the owner read what they write
        replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def folder_written_aside(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder to write to; it is renamed to `folder` when the block ends.

    If a folder of that name exists, its files are replaced one by one, each as a whole, and its
    other files stay. If the block fails, nothing has changed and nothing is left behind.
    """
    folder = Path(os.path.abspath(folder))
    # inside it, or beside it: on the same disk, or nothing could be renamed
    part = _beside(folder / folder.name if folder.is_dir() else folder)
    part.mkdir(parents=True)
    try:
        yield part
        for path in sorted(part.rglob("*")):
            sync(path)
        sync(part)
        if folder.is_dir():
            for path in sorted(part.iterdir()):
                replace(path, folder / path.name)
            sync(folder)
        else:
            replace(part, folder)
            sync(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace a file as a whole, see `written_aside`; its folder is made where need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as part:
        part.write_bytes(data)


def write_json(path: Path, content: Any, *, ascii_only: bool = True) -> None:
    """Write JSON as a whole file, as Hugging Face does: indented, one line feed at the end."""
    text = json.dumps(content, indent=2, ensure_ascii=ascii_only) + "\n"
    # a file's name may be invalid Unicode; backslashes spell it as JSON does
    write_atomically(path, text.encode("utf-8", "backslashreplace"))


def _beside(path: Path) -> Path:
    """A free name in the same folder: hidden, of the same kind, and short enough for any disk."""
    return path.with_name(f"{ASIDE}{secrets.token_hex(8)}{path.suffix[:20]}")


def sweep(folder: Path) -> None:
    """Delete what a killed process left written aside, in a folder that nobody else writes to."""
    for path in folder.glob(f"{ASIDE}*"):
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def replace(source: Path, target: Path) -> None:
    """Rename, onto a file that is there too. Windows refuses while another program reads either of
    them, as virus scanners and editors do for a moment: it is tried again for a second.
    """
    for wait in (0.02, 0.05, 0.1, 0.2, 0.6) if WINDOWS else ():
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(wait)
    os.replace(source, target)


def sync(path: Path) -> None:
    """What the file or folder holds is on the disk."""
    if path.is_dir() and WINDOWS:
        return  # Windows opens no folders; it writes their entries in order
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


def short(value: Any) -> str:
    """A value from a file for an error message, cut to a line's length."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = text[:200] if text[:200].isprintable() else ascii(text[:200])
    return text if len(text) <= 80 else text[:77] + "…"


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """A JSON file → its object. ValueError that names a file that is not one or is too large."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise ValueError(f"{size} bytes; at most {limit} are read")
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent} has no {path.name}") from None
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a JSON {type(found).__name__}, not an object")
    return found


def download_file(repo: str, filename: str, **options: Any) -> Path | None:
    """One file of a hub repository → its path in the local cache, fetched if it isn't there; None
    when the repository has no such file.

    ValueError that says what to do for an unknown repository, no network, and no permission.
    """
    from gpt2.common.network import Unreachable, check_reachable, hub_address

    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError:
        raise ValueError(
            f"{repo} is on the Hugging Face hub, and huggingface_hub is not installed: "
            "`pip install huggingface_hub`, or give a folder with "
            f"config.json and {WEIGHTS}"
        ) from None
    try:
        try:  # what is here already is taken as it is: no network, no wait without one
            return Path(hf_hub_download(repo, filename, **options, local_files_only=True))
        except errors.LocalEntryNotFoundError:
            # without an answer the hub's library would try again for a minute
            check_reachable(hub_address())
            return Path(hf_hub_download(repo, filename, **options))
    except Unreachable as error:
        raise ValueError(
            f"{repo} is not on this machine and the Hugging Face hub cannot be reached ({error}); "
            f"connect once, or give a folder with config.json and {WEIGHTS}"
        ) from None
    except errors.GatedRepoError:
        raise ValueError(f"{repo} is gated: accept its terms on the hub and pass a token") from None
    except errors.RepositoryNotFoundError:
        raise ValueError(
            f"no model {repo!r} on the Hugging Face hub (or it is private and needs a token); "
            f"known names: {', '.join(HUB_NAMES)}"
        ) from None
    except errors.RevisionNotFoundError:
        raise ValueError(f"{repo} on the hub has no revision {options.get('revision')!r}") from None
    except errors.LocalEntryNotFoundError:  # before EntryNotFoundError, of which it is one
        raise ValueError(
            f"{repo} is not on this machine and the Hugging Face hub cannot be reached; "
            f"connect once, or give a folder with config.json and {WEIGHTS}"
        ) from None
    except errors.EntryNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{repo} could not be fetched from the Hugging Face hub: {error}"
        ) from None
