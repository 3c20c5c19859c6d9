"""Problem 12: pretrained weights. The class adds two methods to the GPT2Model of problem 11."""

import torch
from torch import nn

import gpt2.model
from gpt2.formats.checkpoints import open_checkpoint, skip_init
from gpt2.model import GPT2Config


class GPT2Model(gpt2.model.GPT2Model):
    """Problem 11's GPT2Model, which can now start from the weights of a Hugging Face checkpoint."""

    @staticmethod
    def _build_weight_mapping(n_layer: int) -> dict[str, tuple[str, bool]]:
        """Every tensor of a Hugging Face GPT-2 checkpoint: {their key: (our key, transpose?)}.

        Their keys are written without the `transformer.` prefix. Theirs stores c_attn, c_proj and
        c_fc as Conv1D (in, out), ours as Linear (out, in). The head is tied to wte and has no
        separate entry.
        """
        # TODO 1: the tensors outside the blocks
        # TODO 2: the twelve tensors of each block; four of them are transposed
        raise NotImplementedError("TODO 1: GPT2Model._build_weight_mapping")

    @classmethod
    def from_pretrained(
        cls, model_name: str = "gpt2", *, dtype: torch.dtype = torch.float32, **options
    ) -> "GPT2Model":
        """A hub name or a local folder → the model in eval mode, tied, with every weight loaded.

        model_name: `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, `distilgpt2`, any repo id, or a
        folder with config.json and model.safetensors. dtype: the parameters' type, whatever
        type the file uses. options go to open_checkpoint (revision, cache_dir, token). ValueError
        that names every tensor that is missing, unexpected or has the wrong shape.
        """
        # TODO 3: open the checkpoint (`settings, tensors = open_checkpoint(…)`: GPT2Config's
        # arguments, and a mapping from their keys to tensors)
        # TODO 4: build the model (inside `skip_init()`, which skips drawing random values)
        # TODO 5: match their keys to the mapping's: with or without prefix, no mask buffers, and
        # the head is tied
        # TODO 6: raise an error that names missing and unexpected tensors
        # TODO 7: copy each tensor, transposed where the mapping says so; name a tensor of the
        # wrong shape in the error
        # TODO 8: return the model in eval mode
        raise NotImplementedError("TODO 3: GPT2Model.from_pretrained")
