"""Problem 09: the configuration. One object holds every number that defines a GPT-2's shape."""

from dataclasses import dataclass


@dataclass
class GPT2Config:
    """The settings of a GPT-2; the defaults are GPT-2 small's, with Hugging Face's names.

    Every argument is an attribute of the same name. ValueError that names the field and its value
    for: n_embd not divisible by n_head, a size that is not a positive int, a probability outside
    [0, 1], an epsilon ≤ 0.
    """

    vocab_size: int = 50257  # 50,000 merges + 256 bytes + 1 end-of-text token
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5

    def __post_init__(self):
        # TODO 1: check the five sizes
        # TODO 2: check the three probabilities and the epsilon
        # TODO 3: check that the heads divide the width
        raise NotImplementedError("TODO 1: GPT2Config.__post_init__")

    @property
    def n_inner(self) -> int:
        """Width of the feed-forward network's hidden layer."""
        # TODO 4: four times the width
        raise NotImplementedError("TODO 4: GPT2Config.n_inner")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        # TODO 5: the width of one head
        raise NotImplementedError("TODO 5: GPT2Config.head_dim")

    @classmethod
    def gpt2_small(cls) -> "GPT2Config":
        """124,439,808 parameters."""
        # TODO 6: GPT-2 small
        raise NotImplementedError("TODO 6: GPT2Config.gpt2_small")

    @classmethod
    def gpt2_medium(cls) -> "GPT2Config":
        """354,823,168 parameters."""
        # TODO 7: GPT-2 medium: 1024 wide, 24 layers, 16 heads
        raise NotImplementedError("TODO 7: GPT2Config.gpt2_medium")

    @classmethod
    def gpt2_large(cls) -> "GPT2Config":
        """774,030,080 parameters."""
        # TODO 8: GPT-2 large: 1280 wide, 36 layers, 20 heads
        raise NotImplementedError("TODO 8: GPT2Config.gpt2_large")

    @classmethod
    def gpt2_xl(cls) -> "GPT2Config":
        """1,557,611,200 parameters."""
        # TODO 9: GPT-2 XL: 1600 wide, 48 layers, 25 heads
        raise NotImplementedError("TODO 9: GPT2Config.gpt2_xl")
