"""What a training run takes: memory per GPU, sequences per step, floating-point operations.

The arithmetic behind docs/training.md, for any size: `plan(GPT2Config.gpt2_xl(), …)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt2.model import GPT2Config

WEIGHT, GRADIENT, MOMENTS = 4, 4, 8  # bytes per parameter: float32, float32, AdamW's two float32
CAST = 2  # autocast's bfloat16 copies of the weights
# Kept from forward for backward, in bytes per token: so many per layer and unit of width, with the
# fused attention kernel and bfloat16 autocast (counted by the test with saved-tensor hooks) …
ACTIVATIONS = 40
# … and per entry of the vocabulary: logits in bfloat16 and float32, their log-softmax, its gradient
LOGITS = 2 + 4 + 4 + 4


def parameter_count(config: GPT2Config) -> int:
    """Parameters with the head tied to the embedding."""
    C, V, P, L = config.n_embd, config.vocab_size, config.n_positions, config.n_layer
    block = 12 * C * C + 13 * C  # four matrices, their biases, two norms
    return V * C + P * C + L * block + 2 * C


@dataclass(frozen=True)
class Plan:
    """One GPU's share of a run; bytes are estimates, in which the framework's own are left out."""

    parameters: int
    accumulation: int
    state_bytes: int
    activation_bytes: int
    flops_per_token: int

    @property
    def total_bytes(self) -> int:
        return self.state_bytes + self.activation_bytes

    def days(self, tokens: float, gpus: int, flops_per_second: float) -> float:
        """Days for so many tokens, at a rate that each GPU really reaches."""
        return tokens * self.flops_per_token / (gpus * flops_per_second) / 86400


def plan(
    config: GPT2Config, total_batch_tokens: int, gpus: int, batch_size: int, parallel: str = "ddp"
) -> Plan:
    """Split total_batch_tokens over the GPUs in passes of batch_size sequences of n_positions.

    ValueError that names the numbers when it does not divide.
    """
    T = config.n_positions
    per_pass = gpus * batch_size * T
    if total_batch_tokens % per_pass:
        raise ValueError(
            f"{total_batch_tokens} tokens are not divisible by {gpus} GPUs × {batch_size} "
            f"sequences × {T} = {per_pass}"
        )
    N = parameter_count(config)
    shared = gpus if parallel == "fsdp" else 1
    # FSDP holds one block at a time whole, of which the share below is small
    state = N * (WEIGHT + GRADIENT + MOMENTS) // shared + N * CAST
    tokens = batch_size * T
    kept = tokens * (ACTIVATIONS * config.n_layer * config.n_embd + LOGITS * config.vocab_size)
    # 2 operations per weight forward, 4 backward, and attention's two products with T keys
    flops = 6 * (N - T * config.n_embd) + 12 * config.n_layer * config.n_embd * T
    return Plan(N, total_batch_tokens // per_pass, state, kept, flops)
