"""An opened model's weights, by the model's own loader."""

from __future__ import annotations

import inspect
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2.formats.checkpoints import LeftOut, watch_calls
from gpt2.model import GPT2Model

if TYPE_CHECKING:
    import torch

    from gpt2.formats.opening import Opened


def load_model(
    opened: Opened, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> GPT2Model:
    """The weights, by `GPT2Model.from_pretrained`, in eval mode. dtype: None is float32.

    A `from_pretrained` that opens the files itself, without `open_checkpoint`, cannot know what was
    left out or renamed on the way, nor GGUF: it is then given a plain folder of the same weights.
    """
    with warnings.catch_warnings(), watch_calls() as calls:
        warnings.simplefilter("ignore", LeftOut)  # `Opened.notes` has them
        try:
            model = _from_pretrained(opened.place, dtype)
        except Exception:
            if calls or opened.plain:
                raise
            with tempfile.TemporaryDirectory() as folder:
                opened.write_plain(Path(folder))
                model = _from_pretrained(Path(folder), dtype)
    return model.to(device)


def _from_pretrained(place: Path, dtype: torch.dtype | None) -> GPT2Model:
    """The model's own loader, which may know no dtype."""
    if dtype is None:
        return GPT2Model.from_pretrained(str(place))
    if "dtype" in inspect.signature(GPT2Model.from_pretrained).parameters:
        return GPT2Model.from_pretrained(str(place), dtype=dtype)
    return GPT2Model.from_pretrained(str(place)).to(dtype)
