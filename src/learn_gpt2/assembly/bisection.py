"""Which of the learner's pieces make the assembled model differ from the reference's.

Each model is put together from a choice of pieces and run on the same weights and tokens: at once,
in parts through the KV cache, and freshly initialized. Runs in a process of its own, because the
pieces may loop or exit.
"""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from learn_gpt2.assembly import swap
from learn_gpt2.checking import child, loading

SECONDS = 120.0
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Finding:
    """The smallest set of the learner's pieces that makes a difference, and which difference.

    culprits: problem numbers; empty when the model with all of them equals the reference's.
    """

    pieces: tuple[int, ...]
    culprits: tuple[int, ...]
    difference: str


def smallest_difference(
    pieces: Iterable[int], differs: Callable[[tuple[int, ...]], str]
) -> tuple[tuple[int, ...], str]:
    """The smallest subset for which `differs` gives a text, and the text; ((), "") when none does.

    Sets up to three are all tried, in order of size; beyond that, members are taken out one by one.
    """
    pieces = tuple(pieces)
    whole = differs(pieces)
    if not whole:
        return (), ""
    for size in (1, 2, 3):
        for subset in itertools.combinations(pieces, size):
            found = differs(subset)
            if found:
                return subset, found
    rest = pieces
    for piece in pieces:
        smaller = tuple(p for p in rest if p != piece)
        found = differs(smaller)
        if found:
            rest, whole = smaller, found
    return rest, whole


def bisect(root: Path) -> Finding:
    """Look for the pieces of model.py that are the learner's and make a difference.

    ValueError when none of them is the learner's, or the search does not come to its end.
    """
    mine = [n for n, piece in swap.current_pieces(root).items() if piece.owner != "reference"]
    if not mine:
        raise ValueError("every piece in src/gpt2/model.py is the reference's; swap yours in first")
    command = child.python("-m", "learn_gpt2.assembly.bisection", str(root))
    try:
        data = child.ask(command, SECONDS, child.environment(root))
    except child.NoAnswer as nothing:
        if nothing.late:
            message = f"the search was stopped after {SECONDS:.0f} s: a piece loops"
        else:
            message = f"the search ended with code {nothing.code}: {nothing}"
        raise ValueError(message) from None
    return Finding(tuple(mine), tuple(data["culprits"]), data["difference"])


# ── in the process of its own ───────────────────────────────────────────────────────────────────


def behavior(text: str) -> dict[str, object]:
    """What a model does: tensors by what they are, or an error's text under "error"."""
    import torch

    from gpt2.cache import KVCache
    from learn_gpt2.checking.checks import fill

    module = types.ModuleType("gpt2_candidate")
    sys.modules[module.__name__] = module
    try:
        torch.manual_seed(0)
        loading.execute(text, "model.py", module)
        config = module.GPT2Config(
            vocab_size=61, n_positions=19, n_embd=24, n_layer=3, n_head=4, layer_norm_epsilon=1e-5
        )
        model = module.GPT2Model(config).eval()
        spread = {k: v.std() for k, v in model.state_dict().items() if v.numel() > 200}
        fill(model, scale=0.5)
        ids = torch.randint(61, (2, 11), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            cache = KVCache(config, batch_size=2)
            parts = [model(part, cache) for part in (ids[:, :4], ids[:, 4:5], ids[:, 5:])]
            return {
                "the logits": model(ids),
                "the logits through the KV cache": torch.cat(parts, dim=1),
                "the logits with last_only": model(ids, last_only=True),
                "the initial weights": spread,
            }
    except Exception as error:  # anything a piece may raise
        return {"error": f"{type(error).__name__}: {error}"}


def difference(mine: dict, theirs: dict) -> str:
    """What differs between two behaviors, in words; "" when nothing does."""
    import torch

    if "error" in mine:
        return f"the model stops with {mine['error']}"
    for what, want in theirs.items():
        got = mine[what]
        if isinstance(want, dict):
            if got.keys() != want.keys():
                return f"state_dict() has other names: {sorted(got.keys() ^ want.keys())[:4]}"
            far = [k for k in want if not 0.6 < float(got[k] / want[k].clamp_min(1e-9)) < 1.6]
            if far:
                return f"{what} of {far[0]} spread by {got[far[0]]:.3g}, not {want[far[0]]:.3g}"
        elif got.shape != want.shape:
            return f"{what} have shape {tuple(got.shape)}, not {tuple(want.shape)}"
        elif not torch.allclose(
            got, want, rtol=TOLERANCE, atol=TOLERANCE * float(want.abs().max())
        ):
            return f"{what} differ by up to {float((got - want).abs().max()):.3g}"
    return ""


def _main(root: Path) -> None:
    send = child.answering()
    pieces = swap.current_pieces(root)
    mine = [n for n, piece in pieces.items() if piece.owner != "reference"]
    reference = behavior(swap.assemble_model(root, {}))

    def differs(subset: tuple[int, ...]) -> str:
        text = swap.assemble_model(root, {n: pieces[n] for n in subset})
        return difference(behavior(text), reference)

    culprits, told = smallest_difference(mine, differs)
    send({"culprits": culprits, "difference": told})


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
