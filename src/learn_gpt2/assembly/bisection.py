"""Which of the learner's pieces make the product differ from the reference's.

Each model is put together from a choice of pieces and run on the same weights and tokens: at once,
in parts through the KV cache, and freshly initialized. The files of part two that are among the
pieces then do what `behaviors` lists, on that model. Runs in a process of its own, because the
pieces may loop or exit.
"""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from learn_gpt2.assembly import behaviors, swap
from learn_gpt2.checking import child, loading
from learn_gpt2.manifest import MODEL_FILE, MODULES, PROBLEMS

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
    """Look for the pieces that are the learner's and make a difference.

    ValueError when none of them is the learner's, or the search does not come to its end.
    """
    mine = [n for n, piece in swap.current_pieces(root).items() if piece.owner != "reference"]
    if not mine:
        raise ValueError("every piece in src/gpt2/ is the reference's; swap yours in first")
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


def behavior(text: str, files: Mapping[str, str] | None = None) -> dict[str, object]:
    """What a model does: tensors by what they are, or an error's text under "error".

    files: texts of files of part two, by name. What they do on this model is added, and a cache
    among them is the one that the model is run with.
    """
    import torch

    files = files or {}
    model = types.ModuleType("gpt2_candidate")
    sys.modules[model.__name__] = model
    stage = "the model"
    try:
        torch.manual_seed(0)
        loading.execute(text, "model.py", model)
        modules = {"gpt2.model": model}
        for name, source in files.items():
            stage = name
            module = types.ModuleType(f"gpt2_candidate_{Path(name).stem}")
            sys.modules[module.__name__] = module
            with loading.in_place_of(modules):
                loading.execute(source, name, module)
            modules[f"gpt2.{Path(name).stem}"] = module
        with loading.in_place_of(modules):
            stage = "the model"
            found = _of_the_model(model)
            for name in files:
                stage = name
                found |= _of_a_file(name, modules[f"gpt2.{Path(name).stem}"], model)
        return found
    except Exception as error:  # anything a piece may raise
        return {"error": f"{stage} stops with {type(error).__name__}: {error}"}


def _small(module: types.ModuleType):
    """A model with known weights, in eval mode; and how far its initial ones were spread."""
    from learn_gpt2.checking.checks import fill

    config = module.GPT2Config(
        vocab_size=61,
        n_positions=19,
        n_embd=24,
        n_layer=3,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        layer_norm_epsilon=1e-5,
    )
    model = module.GPT2Model(config).eval()
    spread = {k: v.std() for k, v in model.state_dict().items() if v.numel() > 200}
    return fill(model, scale=0.5), spread


def _of_the_model(module: types.ModuleType) -> dict[str, object]:
    import torch

    from gpt2.cache import KVCache

    model, spread = _small(module)
    ids = torch.randint(61, (2, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        cache = KVCache(model.config, batch_size=2)
        parts = [model(part, cache) for part in (ids[:, :4], ids[:, 4:5], ids[:, 5:])]
        return {
            "the logits": model(ids),
            "the logits through the KV cache": torch.cat(parts, dim=1),
            "the logits with last_only": model(ids, last_only=True),
            "the initial weights": spread,
        }


def _of_a_file(name: str, piece: types.ModuleType, module: types.ModuleType) -> dict[str, object]:
    import torch

    model, _ = _small(module)
    with torch.set_grad_enabled(name not in behaviors.NO_GRAPH):
        return {
            f"{name}: {what}": value.detach().clone() if isinstance(value, torch.Tensor) else value
            for what, value in behaviors.OF[name](piece, model)
        }


def difference(mine: dict, theirs: dict) -> str:
    """What differs between two behaviors, in words; "" when nothing does."""
    if "error" in mine:
        return str(mine["error"])
    for what, want in theirs.items():
        told = _differs(what, mine.get(what), want)
        if told:
            return told
    return ""


def _differs(what: str, got: object, want: object) -> str:
    import torch

    one = what.endswith(behaviors.SINGULAR)
    if isinstance(want, dict):
        if got.keys() != want.keys():
            return f"state_dict() has other names: {sorted(got.keys() ^ want.keys())[:4]}"
        far = [k for k in want if not 0.6 < float(got[k] / want[k].clamp_min(1e-9)) < 1.6]
        if far:
            return f"{what} of {far[0]} spread by {got[far[0]]:.3g}, not {want[far[0]]:.3g}"
        return ""
    if isinstance(want, list):
        other = sorted(set(got) ^ set(want))
        return f"{what} differ in {', '.join(other[:4])}" if other else ""
    if isinstance(want, behaviors.Frequencies):
        off = float((got.values - want.values).abs().max())
        return f"{what} differ by up to {off:.2g}" if off > behaviors.FREQUENCY else ""
    if not isinstance(got, torch.Tensor) or got.shape != want.shape:
        shape = tuple(got.shape) if isinstance(got, torch.Tensor) else type(got).__name__
        has = "has" if one else "have"
        return f"{what} {has} shape {shape}, not {tuple(want.shape)}"
    got, want = got.double(), want.double()
    there = want.isfinite()
    if not torch.equal(got.isfinite(), there):
        return f"{what} {'is' if one else 'are'} not finite in the same places"
    got, want = got[there], want[there]
    scale = float(want.abs().max()) if want.numel() else 0.0
    if not torch.allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE * scale):
        by = float((got - want).abs().max())
        return f"{what} {'differs' if one else 'differ'} by up to {by:.3g}"
    return ""


def _main(root: Path) -> None:
    send = child.answering()
    pieces = swap.current_pieces(root)
    mine = [n for n, piece in pieces.items() if piece.owner != "reference"]
    # a file of part two is looked at when it is the learner's, with whatever else is
    files = [m for m in MODULES if m != MODEL_FILE and any(_file(n) == m for n in mine)]
    theirs = swap.assemble_files(root, {}, [MODEL_FILE, *files])
    reference = behavior(theirs.pop(MODEL_FILE), theirs)

    def differs(subset: tuple[int, ...]) -> str:
        chosen = {n: pieces[n] for n in subset}
        wanted = [m for m in files if any(_file(n) == m for n in subset)]
        # the model is run with a cache: with the reference's, unless 14 is in the subset
        given = [m for m in files if m in (*wanted, "cache.py")]
        texts = swap.assemble_files(root, chosen, [MODEL_FILE, *given])
        text = texts.pop(MODEL_FILE)
        asked = {
            what: value
            for what, value in reference.items()
            if what.partition(":")[0] not in files or what.partition(":")[0] in wanted
        }
        return difference(behavior(text, texts), asked)

    culprits, told = smallest_difference(mine, differs)
    send({"culprits": culprits, "difference": told})


def _file(number: int) -> str:
    return PROBLEMS[number - 1].module


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
