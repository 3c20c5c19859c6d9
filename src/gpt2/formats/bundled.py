"""Where the model that comes with this package is."""

from __future__ import annotations

from pathlib import Path


def bundled() -> Path:
    """The folder of the model that comes with this package. ValueError when it is not there."""
    folder = Path(__file__).resolve().parent.parent / "bundled"
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"this copy has no bundled model ({folder}); name one, e.g. --model gpt2 or "
            "--model FOLDER"
        )
    return folder
