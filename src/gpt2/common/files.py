"""Files of JSON, and files of the Hugging Face hub: what needs no PyTorch.

Tokenizers stand on this alone, so that a process that only encodes text stays small.
"""

from __future__ import annotations

import json
import re
import reprlib
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


def short(value: Any) -> str:
    """A value from a file for an error message, cut to a line's length."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = text[:200] if text[:200].isprintable() else ascii(text[:200])
    return text if len(text) <= 80 else text[:77] + "…"


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """A JSON file → its object. ValueError that names the file when it is none, or is too large."""
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
