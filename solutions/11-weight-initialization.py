"""Problem 11: initial weights. The class adds one method to the GPT2Model of problem 10."""

import math

from torch import nn

import gpt2.model
from gpt2.model import LayerNorm, TransformerBlock


class GPT2Model(gpt2.model.GPT2Model):
    """Problem 10's GPT2Model, whose __init__ ends with self.apply(self._init_weights)."""

    def _init_weights(self, module: nn.Module) -> None:
        """Set one module's initial weights, in place; `apply` calls it for every module, children
        before parents.

        nn.Linear and nn.Embedding: weight N(0, 0.02²), bias 0. LayerNorm: weight 1, bias 0. The
        projections that write into the residual stream, attn.c_proj and mlp.c_proj: weight N(0,
        (0.02/√(2·n_layer))²).
        """
        # Step 1: so small that an untrained model finds all tokens about equally likely
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        # Step 2: a norm starts without any scaling or shift
        elif isinstance(module, LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        # Step 3: 2·n_layer branches add up in the stream, so each is divided by √(2·n_layer)
        # (GPT-2 paper, section 2.3). A block comes after its children, so this overrides step 1
        elif isinstance(module, TransformerBlock):
            for projection in (module.attn.c_proj, module.mlp.c_proj):
                nn.init.normal_(projection.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))
