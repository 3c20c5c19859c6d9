"""Problem 16: LoRA, an update of low rank beside frozen weights.

Shapes: (…, in) the rows that a linear layer reads, (…, out) those it writes, r the rank.
"""

import math

import torch
from torch import Tensor, nn

# What peft puts in front of our names: its own two wrappers, then Hugging Face's name of the model.
PREFIX = "base_model.model.transformer."


class LoRALinear(nn.Module):
    """A frozen linear layer and a trained update of rank r beside it: (…, in) → (…, out).

    Attributes: `base` the layer as it was, frozen; `lora_A` nn.Linear(in, r) and `lora_B`
    nn.Linear(r, out), both without bias; `scaling` = alpha / r; `merged`, False at first.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        # Step 1: the base stays as it is, with its dtype and on its device, and is not trained
        self.base = base.requires_grad_(False)
        like = {"device": base.weight.device, "dtype": base.weight.dtype}
        # Step 2: a random A and a B of zeros: their product is zero, so that training starts from
        # the model as it was, and B's gradient is not zero, so that it starts at all
        self.lora_A = nn.Linear(base.in_features, rank, bias=False, **like)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False, **like)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)
        # Step 3: divided by the rank, so that another rank does not ask for another learning rate
        self.scaling = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.merged = False

    def forward(self, x: Tensor) -> Tensor:
        """base(x) + scaling · lora_B(lora_A(dropout(x))): (…, in) → (…, out)."""
        # Step 4: a merged weight holds the update already; dropout acts on the update's input alone
        if self.merged:
            return self.base(x)
        return self.base(x) + self.scaling * self.lora_B(self.lora_A(self.dropout(x)))

    def merge(self) -> None:
        """Add the update to the base's weight; nothing happens when it is there already."""
        # Step 5: y = x Wᵀ + s (x Aᵀ) Bᵀ = x (W + s B A)ᵀ
        if not self.merged:
            with torch.no_grad():
                self.base.weight += self._update()
            self.merged = True

    def unmerge(self) -> None:
        """Take the update out of the base's weight again; nothing happens when it is not there."""
        # Step 6: the same update, the other way
        if self.merged:
            with torch.no_grad():
                self.base.weight -= self._update()
            self.merged = False

    def _update(self) -> Tensor:
        """What A and B add to the weight: (out, in)."""
        return self.scaling * (self.lora_B.weight @ self.lora_A.weight)


def add_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: tuple[str, ...] = ("c_attn",),
) -> list[str]:
    """Put a LoRALinear in place of each linear layer whose name ends in a target: their names.

    A target is the last part of a name. ValueError, before anything changes, for a target that no
    linear layer is called, and for `lm_head`, whose weight is the embeddings' table as well.
    """
    # Step 7: find them all before the first is replaced
    if "lm_head" in targets:
        raise ValueError(
            "lm_head cannot be a target: its weight is the embeddings' table, and an update of one "
            "would not be an update of the other"
        )
    inside = _inside_lora(model)
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name not in inside
    }
    found = {name: layer for name, layer in layers.items() if _last(name) in targets}
    unknown = sorted(set(targets) - {_last(name) for name in found})
    if unknown or not found:
        there = sorted({_last(name) for name in layers} - {"lm_head"})
        raise ValueError(
            f"no linear layer is called {', '.join(unknown) or 'nothing'}; there are "
            f"{', '.join(there) or 'none'}"
        )
    made = {name: LoRALinear(layer, rank, alpha, dropout) for name, layer in found.items()}
    # Step 8: freeze everything, put the new layers in, and let their A and B alone learn
    model.requires_grad_(False)
    for name, layer in made.items():
        _replace(model, name, layer.train(found[name].training))
    return list(made)


def merge_lora(model: nn.Module) -> nn.Module:
    """Put plain linear layers with the update in them in place of all LoRALinear; the model."""
    # Step 9: what is left is a model of the same layers, names and speed as before
    for name, layer in _lora_layers(model).items():
        layer.merge()
        _replace(model, name, layer.base)
    return model


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """All A (r, in) and B (out, r), named by peft: `PREFIX` + `h.0.attn.c_attn.lora_A.weight`."""
    # Step 10: nothing of the base: that is what makes an adapter small
    return {name: weight.detach().clone() for name, weight in _adapter_weights(model).items()}


def load_adapter_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy an adapter's tensors into the model's A and B. ValueError that names what is missing,
    unexpected or of another shape, and for a model that is merged; then nothing is loaded.
    """
    # Step 11: look at everything before the first copy
    merged = [name for name, layer in _lora_layers(model).items() if layer.merged]
    if merged:
        raise ValueError(f"{merged[0]} is merged: unmerge it before loading another adapter")
    weights = _adapter_weights(model)
    for what, names in (
        ("missing", weights.keys() - state.keys()),
        ("not expected", state.keys() - weights.keys()),
    ):
        if names:
            raise ValueError(f"{len(names)} of the adapter's tensors {what}: {min(names)}")
    for name, weight in weights.items():
        if state[name].shape != weight.shape:
            raise ValueError(
                f"{name} has the shape {tuple(state[name].shape)}, expected {tuple(weight.shape)}"
            )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(state[name])


def _last(name: str) -> str:
    """The last part of a module's name."""
    return name.rpartition(".")[2]


def _lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """All LoRALinear of the model, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LoRALinear)}


def _inside_lora(model: nn.Module) -> set[str]:
    """The names of the layers that belong to a LoRALinear: its base, A and B."""
    layers = _lora_layers(model)
    return {f"{name}.{part}" for name in layers for part in ("base", "lora_A", "lora_B")}


def _adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of all A and B, under the names that peft gives them."""
    return {
        f"{PREFIX}{name}.{part}.weight": getattr(layer, part).weight
        for name, layer in _lora_layers(model).items()
        for part in ("lora_A", "lora_B")
    }


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place that has this name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
