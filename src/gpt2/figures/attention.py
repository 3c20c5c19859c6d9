"""The attention weights of a model: which position looked at which, in every layer and head; as
numbers, as one picture, and as a page that works offline.

Shapes: L n_layer, H n_head, T tokens.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2.inference.engine import Inference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2.model import GPT2Model

MAX_WEIGHTS = 40_000_000  # a page takes 1.3 bytes for each that is stored


@contextmanager
def recorded(model: GPT2Model) -> Iterator[list[Tensor]]:
    """While the block runs, each layer's weights (B, H, T, S) go into the list, in the order of
    the forward passes.

    By a forward hook on each `block.attn.attention`: with one there, the attention computes its
    weights instead of calling the fused kernel, which never holds them.
    """
    found: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        found.append(output[1].detach())

    handles = [block.attn.attention.register_forward_hook(keep) for block in model.h]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def attention_weights(model: GPT2Model, ids: Tensor) -> Tensor:
    """One text's attention in every layer and head: ids (T,) or (1, T) → (L, H, T, T) on the CPU.

    [layer, head, i, j] is how much of position i's sum comes from position j. The model runs in
    eval mode and is left as it was. A layer that does not call its `attention` (the fused kernel,
    a softmax of its own) has its weights computed from its `c_attn`, and they are shown only if
    they lead to what the layer gave. ValueError for more than one text, and where they don't.
    """
    ids = ids[None] if ids.dim() == 1 else ids
    if ids.dim() != 2 or ids.size(0) != 1:
        raise ValueError(f"give one text at a time, ids (T,) or (1, T), got {tuple(ids.shape)}")
    inference = Inference(model)  # may try the layers out, before they are watched
    with _watched(model) as layers, inference:
        model(ids.to(next(model.parameters()).device))
        found = [layer.weights(number) for number, layer in enumerate(layers)]
    return torch.stack([weights.float().cpu() for weights in found])  # (L, H, T, T)


class _Layer:
    """One layer's attention while the model runs: what went in, what came out, its own weights."""

    def __init__(self, attn: torch.nn.Module):
        self.attn = attn
        self.patched = attn.__dict__.get("forward")  # somebody else's, to be put back
        self.run = attn.forward
        self.given: list[tuple[Tensor, Tensor]] = []  # x (1, T, C), output (1, T, C)
        self.told: list[object] = []  # what each call of its `attention` returned

    def forward(self, *args: object, **kwargs: object) -> object:
        """The layer's forward, written down; also for a block that calls `forward` itself."""
        output = self.run(*args, **kwargs)
        x = args[0] if args else kwargs.get("x")
        if isinstance(x, Tensor) and isinstance(output, Tensor):
            self.given.append((x, output))
        return output

    def weights(self, number: int) -> Tensor:
        """(H, T, T). ValueError that names the layer and says why they can't be shown."""
        if len(self.given) != 1:
            raise ValueError(
                f"layer {number} ran its attention {len(self.given)} times in one pass, not once: "
                "its weights cannot be shown"
            )
        x, output = self.given[0]
        shape = (1, self.attn.n_head, x.size(1), x.size(1))
        told = self.told[0] if len(self.told) == 1 else None
        if isinstance(told, (tuple, list)) and len(told) == 2:
            weights = told[1]
            if isinstance(weights, Tensor) and weights.shape == shape:
                return weights[0]
        weights, made = self._computed(x)
        # what rounding in another order may do, in the model's own number format
        allowed = 40 * torch.finfo(output.dtype).eps * float(output.abs().max())
        off = float((made - output).abs().max())
        if not off <= allowed:
            raise ValueError(
                f"layer {number} does not call its `attention`, and causal attention with its own "
                f"c_attn and c_proj gives another output (off by {off:.3g}): what it attends to "
                "cannot be told"
            )
        return weights

    def _computed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Causal attention by the layer's parameters: x (1, T, C) → (H, T, T), (1, T, C)."""
        T, H = x.size(1), self.attn.n_head
        q, k, v = (
            part.unflatten(-1, (H, -1)).transpose(1, 2) for part in self.attn.c_attn(x).chunk(3, -1)
        )
        scores = q @ k.transpose(-2, -1) / q.size(-1) ** 0.5  # (1, H, T, T)
        later = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(later, float("-inf")).softmax(-1)
        merged = (weights @ v).transpose(1, 2).flatten(2)  # (1, T, C)
        return weights[0], self.attn.c_proj(merged)


@contextmanager
def _watched(model: GPT2Model) -> Iterator[list[_Layer]]:
    """While the block runs, every layer's attention is written down."""
    layers = [_Layer(block.attn) for block in model.h]
    handles = []
    try:
        for layer in layers:

            def keep(module: object, inputs: object, output: object, layer: _Layer = layer) -> None:
                layer.told.append(output)

            handles.append(layer.attn.attention.register_forward_hook(keep))
            layer.attn.__dict__["forward"] = layer.forward
        yield layers
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            layer.attn.__dict__.pop("forward", None)
            if layer.patched is not None:
                layer.attn.__dict__["forward"] = layer.patched


STEPS_BACK = ("the token itself", "the token before", "two before", "three before")


def habits(weights: Tensor) -> dict[str, int]:
    """How many heads spend more than half of their attention on one position: (L, H, T, T) → counts
    for the first token and for those of STEPS_BACK, without the zeros.

    The mean over positions 4 … T−1, where these places differ; {} for a text of fewer tokens.
    """
    T = weights.size(-1)
    if T < 5:
        return {}
    rows = torch.arange(4, T)
    places = {name: rows - back for back, name in enumerate(STEPS_BACK)}
    places["the first token"] = torch.zeros_like(rows)
    shares = {name: weights[:, :, rows, columns].mean(-1) for name, columns in places.items()}
    return {name: n for name, share in shares.items() if (n := int((share > 0.5).sum()))}


def summary(weights: Tensor) -> str:
    """`habits` in words: "2 of 16 heads mostly read the token before, 1 the first token"."""
    L, H = weights.shape[:2]
    found = [f"{n} {what}" for what, n in habits(weights).items()]
    if not found:
        return f"none of {L * H} heads mostly reads one position"
    first, *others = found
    number, _, what = first.partition(" ")
    return ", ".join([f"{number} of {L * H} heads mostly read {what}", *others])


def picture(weights: Tensor, name: str) -> Figure:
    """Every head's map in one figure, a row per layer and a column per head: (L, H, T, T) → it."""
    from gpt2.figures import plots

    L, H, T, _ = weights.shape
    width = max(6.0, min(18.0, 1.6 + 1.5 * H))
    size = (width, 1.1 + L * (width - 1.2) / H * 1.12)
    hidden = weights.masked_fill(torch.ones(T, T).triu(1).bool(), float("nan"))
    maps = {f"{layer}·{h}": hidden[layer, h] for layer in range(L) for h in range(H)}
    fig = plots.heat_maps(
        maps,
        title=f"{name}: {summary(weights)}",
        xlabel="",
        ylabel="",
        limits=(0.0, 1.0),
        per_row=H,
        size=size,
        scale_label="attention weight; above each map: layer·head",
    )
    for ax in fig.axes[: L * H]:
        ax.set(xticks=[], yticks=[], ylabel="", xlabel="")
        ax.title.set_fontsize(8 if H <= 16 else 5)
    for ax in fig.axes[: L * H : H]:
        ax.set_ylabel("reads", fontsize=7)
    for ax in fig.axes[(L - 1) * H : L * H]:
        ax.set_xlabel("is read", fontsize=7)
    return fig


def page(weights: Tensor, tokens: Sequence[str], name: str) -> str:
    """A self-contained web page: (L, H, T, T), T tokens' texts → HTML.

    The reader picks a layer and a head and points at a token; what it attends to is colored.
    Weights are stored in 256 steps. ValueError for more than MAX_WEIGHTS of them, or when the
    tokens are not T.
    """
    L, H, T, _ = weights.shape
    if len(tokens) != T:
        raise ValueError(f"{len(tokens)} tokens for weights of {T}")
    stored = L * H * T * (T + 1) // 2
    if stored > MAX_WEIGHTS:
        raise ValueError(
            f"{L} layers × {H} heads × {T} tokens make {stored:,} weights, too many for a page "
            f"(at most {MAX_WEIGHTS:,}); give a shorter text"
        )
    past = torch.ones(T, T, dtype=torch.bool).tril()
    packed = (weights[:, :, past] * 255).round().to(torch.uint8)  # (L, H, T (T + 1) / 2)
    data = {
        "layers": L,
        "heads": H,
        "tokens": list(tokens),
        "weights": base64.b64encode(packed.numpy().tobytes()).decode("ascii"),
    }
    template = (Path(__file__).parent / "pages" / "attention.html").read_text(encoding="utf-8")
    # a "</script>" in the text must not end the script that holds it
    safe = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    filled = {"TITLE": html.escape(name), "COLORS": json.dumps(_colors()), "DATA": safe}
    # in one pass: what is put in may hold another's mark
    return re.sub("@(TITLE|COLORS|DATA)@", lambda mark: filled[mark[1]], template)


def _colors() -> list[list[int]]:
    """Viridis, the color scale of all figures here, interpolated between 16 colors: 0 … 255."""
    anchors = (
        "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e "
        "1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725"
    )
    points = [list(bytes.fromhex(anchors[k : k + 6])) for k in range(0, len(anchors), 7)]
    scale = []
    for step in range(61):
        low, between = divmod(step, 4)
        high = min(low + 1, len(points) - 1)
        scale.append(
            [
                round(a + (b - a) * between / 4)
                for a, b in zip(points[low], points[high], strict=True)
            ]
        )
    return scale
