"""Problem 11: initial weights. The class adds one method to the GPT2Model of problem 10."""

import math

import torch
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
        # TODO 1: linear layers and embeddings
        # TODO 2: layer norms
        # TODO 3: the projections that write into the residual stream
        raise NotImplementedError("TODO 1: GPT2Model._init_weights")
