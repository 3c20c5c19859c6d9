"""An opened model's weights, by the model's own loader."""

from __future__ import annotations

import functools
import importlib
import inspect
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.formats.checkpoints import LeftOut, watch_calls
from gpt2.formats.parameters import put_embeddings_first

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gpt2.formats.opening import Opened
    from gpt2.model import GPT2Model


def load_model(
    opened: Opened,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    kind: type[GPT2Model] | None = None,
) -> GPT2Model:
    """The weights, by `GPT2Model.from_pretrained`, in eval mode. dtype: None is float32. kind:
    another class than gpt2.model's.

    A `from_pretrained` that opens the files itself, without `open_checkpoint`, cannot know what was
    left out or renamed on the way, nor GGUF: it is then given a plain folder of the same weights.
    """
    kind = kind or importlib.import_module("gpt2.model").GPT2Model
    with warnings.catch_warnings(), watch_calls() as calls, _embeddings_first(kind):
        warnings.simplefilter("ignore", LeftOut)  # `Opened.notes` has them
        try:
            model = _from_pretrained(kind, opened.place, dtype)
        except Exception:
            if calls or opened.plain:
                raise
            with tempfile.TemporaryDirectory() as folder:
                opened.write_plain(Path(folder))
                model = _from_pretrained(kind, Path(folder), dtype)
    return model.to(device)


def _from_pretrained(kind: type[GPT2Model], place: Path, dtype: torch.dtype | None) -> GPT2Model:
    """The model's own loader, which may know no dtype, or pay no heed to it."""
    if dtype is None:
        return kind.from_pretrained(str(place))
    knows = "dtype" in inspect.signature(kind.from_pretrained).parameters
    return kind.from_pretrained(str(place), **{"dtype": dtype} if knows else {}).to(dtype)


@contextmanager
def _embeddings_first(kind: type) -> Iterator[None]:
    """Inside, every new model of this class lists its embeddings first."""
    given = kind.__dict__.get("__init__")
    make = kind.__init__

    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        put_embeddings_first(self)

    kind.__init__ = functools.wraps(make)(init)
    try:
        yield
    finally:
        if given is None:
            del kind.__init__
        else:
            kind.__init__ = given


def put_adapter(model: GPT2Model, folder: str | Path) -> None:
    """Merge an adapter's folder into a model's weights: plain linear layers again, as fast as
    before. ValueError that names what is wrong or does not fit; then the model is unchanged.
    """
    from gpt2.formats.adapters import read_adapter
    from gpt2.formats.checkpoints import settings_of
    from gpt2.lora import add_lora, load_adapter_state, merge_lora

    adapter = read_adapter(folder, settings_of(model.config))
    can_learn = {id(p) for p in model.parameters() if p.requires_grad}
    add_lora(model, adapter.rank, adapter.alpha, 0.0, adapter.targets)
    load_adapter_state(model, adapter.state)
    merge_lora(model)
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in can_learn)
