"""Answers in the manner of what people publish: nanoGPT, minGPT, Hugging Face's library, textbooks,
courses' solutions, and the mistakes that go with them. Each is written for the contract's names.

A bank takes its problem's entries from here when it is loaded.
"""

from __future__ import annotations

import textwrap

# problem number → (title, source)
RIGHT: dict[int, list[tuple[str, str]]] = {number: [] for number in range(1, 13)}
# problem number → (the mistake that must be named, title, source)
WRONG: dict[int, list[tuple[str, str, str]]] = {number: [] for number in range(1, 13)}


def right(number: int, title: str, source: str) -> None:
    """Write down a right answer."""
    RIGHT[number].append((title, textwrap.dedent(source).lstrip()))


def wrong(number: int, mistake: str, title: str, source: str) -> None:
    """Write down a wrong answer and what it must be told."""
    WRONG[number].append((mistake, title, textwrap.dedent(source).lstrip()))


# ── 03 ──────────────────────────────────────────────────────────────────────────────────────────

SDPA = """
    import math
    import torch
    import torch.nn.functional as F
    from torch import nn

    class ScaledDotProductAttention(nn.Module):
        def __init__(self, n_embd, dropout=0.1):
            super().__init__()
            self.n_embd = n_embd
            self.attn_dropout = nn.Dropout(dropout)

        def forward(self, q, k, v, mask=None):
            att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            if mask is not None:
                att = {}
            att = F.softmax(att, dim=-1)
            att = self.attn_dropout(att)
            return att @ v, att
"""


def sdpa(masking: str) -> str:
    """The attention with this masked."""
    return SDPA.format(masking) if "{}" in SDPA else SDPA


right(3, "nanoGPT's way", sdpa("att.masked_fill(mask == 0, float('-inf'))"))
right(
    3,
    "masked with the dtype's lowest number",
    sdpa("att.masked_fill(~mask, torch.finfo(att.dtype).min)"),
)
right(
    3,
    "minus the dtype's largest number, added",
    sdpa("att + (~mask) * -torch.finfo(att.dtype).max"),
)
right(
    3,
    "torch.where with the lowest number as a tensor",
    sdpa(
        "torch.where(mask, att, torch.full([], torch.finfo(att.dtype).min, dtype=att.dtype, device=att.device))"
    ),
)
for number in ("-1e4", "-1e5", "-100000.0", "-65000", "-1e6"):
    wrong(3, "mask-finite", f"masked with {number}", sdpa(f"att.masked_fill(~mask, {number})"))
wrong(3, "mask-finite", "-1e9, which float16 has not", sdpa("att.masked_fill(mask == 0, -1e9)"))
wrong(
    3,
    "mask-finite",
    "float32's lowest number, whatever the dtype",
    sdpa("att.masked_fill(~mask, torch.finfo(torch.float32).min)"),
)
