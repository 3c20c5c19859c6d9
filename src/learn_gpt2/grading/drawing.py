"""The sizes, weights and inputs of a grading, drawn from a secret of the class.

Checks are public, and so are the numbers that they use: a file could be right for those alone. In a
grading every seed is mixed with a secret, and the sizes are one of the sets that a test file
declares. The secret is in the report's folder, so the same folder gives the same marks again; who
writes a file can't know it. A secret for which the reference does not pass every check is passed
over: some checks measure frequencies, and one seed in thousands is unlucky.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

NAME = ".secret"
ATTEMPTS = 8


def secret_of(out: Path) -> str:
    """The secret of a report's folder, made when there is none yet."""
    path = out / NAME
    try:
        text = path.read_text(encoding="ascii").strip()
        if len(text) >= 32:
            return text[:200]
    except (OSError, UnicodeDecodeError):
        pass
    text = secrets.token_hex(32)
    out.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # what is there is too short, or another process was faster
        path.write_text(text, encoding="ascii")
    else:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
    return path.read_text(encoding="ascii").strip()


def draw_from(secret: str, attempt: int = 0) -> None:
    """From now on, in this process: what checks draw depends on the secret. "" for the public
    numbers.
    """
    import torch

    from learn_gpt2.checking import checks

    if not hasattr(torch, "PlainGenerator"):
        torch.PlainGenerator = torch.Generator
    if not secret:
        torch.Generator = torch.PlainGenerator
        checks.choose_sizes(None)
        return
    digest = hashlib.sha256(f"{secret} {attempt}".encode()).digest()
    salt = int.from_bytes(digest[:6], "big")

    class Salted(torch.PlainGenerator):
        """A generator whose seeds are those of this class."""

        def manual_seed(self, seed: int):
            return super().manual_seed((seed * 0x9E3779B1 + salt) % (1 << 62))

    torch.Generator = Salted

    def choose(count: int) -> int:  # the same each time that a file is loaded
        return digest[8] % count

    checks.choose_sizes(choose)
