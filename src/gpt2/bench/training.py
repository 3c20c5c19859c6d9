"""How fast training is: our model and Hugging Face's in the same loop, and where a step's time
goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.model import GPT2Config, GPT2Model

if TYPE_CHECKING:
    from gpt2.bench.measuring import Table

PARTS = ("forward", "backward", "step")


def small_config() -> GPT2Config:
    """The size of the `shakespeare-char` preset, with its vocabulary of 65 characters."""
    return GPT2Config(
        vocab_size=65,
        n_positions=256,
        n_embd=192,
        n_layer=6,
        n_head=6,
        attn_pdrop=0.0,
    )


NO_DROPOUT = {
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}  # as gpt2-124m-fineweb has it

# name → config, batch (B, T)
SIZES: dict[str, tuple[Callable[[], GPT2Config], tuple[int, int]]] = {
    "small": (small_config, (16, 256)),
    "10M": (lambda: replace(small_config(), n_embd=384), (8, 256)),
    "124M": (lambda: replace(GPT2Config.gpt2_small(), **NO_DROPOUT), (1, 512)),
}


def hugging_face_model(config: GPT2Config) -> nn.Module:
    """`transformers`' GPT2LMHeadModel of the same size, dropout and attention kernel (sdpa).

    ValueError when transformers is not installed.
    """
    try:
        from transformers import GPT2Config as TheirConfig
        from transformers import GPT2LMHeadModel
    except ImportError:
        raise ValueError("the comparison needs transformers: pip install transformers") from None
    names = "vocab_size n_positions n_embd n_layer n_head resid_pdrop embd_pdrop attn_pdrop"
    theirs = TheirConfig(
        **{name: getattr(config, name) for name in names.split()},
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    return GPT2LMHeadModel(theirs)


class PlainGPT2(nn.Module):
    """A GPT-2 as a plain training script would have it: one projection, PyTorch's layers and its
    fused attention, and nothing for a cache.
    """

    def __init__(self, config: GPT2Config):
        super().__init__()
        C, p = config.n_embd, config.resid_pdrop
        self.wte, self.wpe = nn.Embedding(config.vocab_size, C), nn.Embedding(config.n_positions, C)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.blocks = nn.ModuleList(
            _PlainBlock(C, config.n_head, p, config.attn_pdrop) for _ in range(config.n_layer)
        )
        self.ln_f = nn.LayerNorm(C)
        self.head = nn.Linear(C, config.vocab_size, bias=False)
        self.head.weight = self.wte.weight
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) → logits (B, T, V)."""
        x = self.drop(self.wte(ids) + self.wpe(torch.arange(ids.size(1), device=ids.device)))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))


class _PlainBlock(nn.Module):
    def __init__(self, C: int, n_head: int, p: float, attn_p: float):
        super().__init__()
        self.n_head, self.attn_p = n_head, attn_p
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.drop = nn.Dropout(p)
        gelu = nn.GELU(approximate="tanh")
        self.mlp = nn.Sequential(nn.Linear(C, 4 * C), gelu, nn.Linear(4 * C, C), nn.Dropout(p))

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        heads = self.qkv(self.ln_1(x)).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        q, k, v = heads  # (B, H, T, D) each
        p = self.attn_p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        x = x + self.drop(self.out(y.transpose(1, 2).reshape(B, T, C)))
        return x + self.mlp(self.ln_2(x))


class Loop:
    """One optimizer step after another on one random batch (B, T), its parts timed apart."""

    def __init__(
        self,
        model: nn.Module,
        logits: Callable[[nn.Module, Tensor], Tensor],
        batch: tuple[int, int],
        vocab_size: int,
        device: str = "cpu",
        autocast: torch.dtype | None = None,
    ):
        self.model = model.to(device).train()
        self.logits = logits
        self.device = torch.device(device)
        self.autocast = autocast
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-4, fused=self.device.type in ("cpu", "cuda")
        )
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(vocab_size, (batch[0], batch[1] + 1), generator=generator)
        self.inputs, self.targets = ids[:, :-1].to(device), ids[:, 1:].to(device)
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps = 0

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def __call__(self) -> None:
        """One step."""
        times = [self._clock()]
        context = (
            torch.autocast(self.device.type, self.autocast) if self.autocast else nullcontext()
        )
        with context:
            logits = self.logits(self.model, self.inputs)  # (B, T, V)
        loss = F.cross_entropy(logits.float().flatten(0, 1), self.targets.flatten())
        times.append(self._clock())
        loss.backward()
        times.append(self._clock())
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        times.append(self._clock())
        for part, start, end in zip(PARTS, times[:-1], times[1:], strict=True):
            self.seconds[part] += end - start
        self.steps += 1


def measure_training(
    quick: bool = False, device: str = "cpu", rounds: int = 5, size: str = "small", **_: Any
) -> Table:
    """Training tokens/s: ours, a plain script's model and Hugging Face's in turn.

    size: "small" (the shakespeare-char preset's), "10M" (twice as wide) or "124M" (GPT-2 small).
    quick: two layers, a small batch and vocabulary. The setting line holds each one's milliseconds
    per part: forward, backward, step.
    """
    from gpt2.bench.measuring import Contender, Table, interleave
    from gpt2.inference.fused import fuse
    from gpt2.training.optimization import autocast_dtype
    from gpt2.training.speed import keep_freed_memory, speed_up_dropout

    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    make, batch = SIZES[size]
    config = make()
    if quick:
        config = replace(config, n_layer=2, vocab_size=min(config.vocab_size, 4096))
        batch = (max(1, batch[0] // 4), batch[1] // 4)
    autocast = autocast_dtype("auto", torch.device(device))
    torch.manual_seed(0)
    common = (batch, config.vocab_size, device, autocast)
    keep_freed_memory()  # for all: who comes first would have most page faults
    ours = GPT2Model(config)
    fuse(ours)  # as `gpt2 train` runs it
    speed_up_dropout(ours)
    loops = {
        "gpt2.model": Loop(ours, lambda model, ids: model(ids), *common),
        "a plain model": Loop(PlainGPT2(config), lambda model, ids: model(ids), *common),
        "transformers": Loop(
            hugging_face_model(config), lambda model, ids: model(ids).logits, *common
        ),
    }
    for loop in loops.values():  # the first step allocates the optimizer's moments
        loop()
        loop.seconds, loop.steps = dict.fromkeys(PARTS, 0.0), 0
    tokens = batch[0] * batch[1]
    results = interleave([Contender(name, loop, tokens) for name, loop in loops.items()], rounds)
    parts = "; ".join(
        f"{name}: "
        + ", ".join(f"{part} {loop.seconds[part] / loop.steps * 1e3:.0f} ms" for part in PARTS)
        for name, loop in loops.items()
    )
    dtype = "bfloat16 autocast" if autocast else "float32"
    return Table(
        f"Training, {size}",
        f"{config.n_layer} layers of {config.n_embd}, {config.vocab_size} tokens in the "
        f"vocabulary, B {batch[0]}, T {batch[1]}, {dtype}, dropout {config.resid_pdrop} "
        f"(attention weights {config.attn_pdrop}), AdamW, clipping; {rounds} rounds in turn on "
        f"{device}. Means: {parts}.",
        "tokens/s",
        results,
    )


def measure_training_10m(**options: Any) -> Table:
    """`measure_training` at ten million parameters."""
    return measure_training(size="10M", **options)


def measure_training_124m(**options: Any) -> Table:
    """`measure_training` at GPT-2 small's size."""
    return measure_training(size="124M", **options)
