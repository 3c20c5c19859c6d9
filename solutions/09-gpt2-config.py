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
        # Step 1: bool is an int in Python, and True is not a size
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive int, got {value!r}")
        # Step 2: NaN compares as false with everything, so this form rejects it as well
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ValueError(f"{name} must be a probability in [0, 1], got {value!r}")
        if not isinstance(self.layer_norm_epsilon, (int, float)) or not self.layer_norm_epsilon > 0:
            raise ValueError(
                f"layer_norm_epsilon must be greater than 0, got {self.layer_norm_epsilon!r}"
            )
        # Step 3: the heads divide the width among them
        if self.n_embd % self.n_head != 0:
            raise ValueError(f"n_embd = {self.n_embd} is not divisible by n_head = {self.n_head}")

    @property
    def n_inner(self) -> int:
        """Width of the feed-forward network's hidden layer."""
        # Step 4: computed, so that it cannot disagree with n_embd
        return 4 * self.n_embd

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        # Step 5: exact, since step 3 has checked it
        return self.n_embd // self.n_head

    @classmethod
    def gpt2_small(cls) -> "GPT2Config":
        """124,439,808 parameters."""
        # Step 6: the defaults
        return cls()

    @classmethod
    def gpt2_medium(cls) -> "GPT2Config":
        """354,823,168 parameters."""
        # Step 7: the heads stay 64 wide in all four sizes; width and depth grow
        return cls(n_embd=1024, n_layer=24, n_head=16)

    @classmethod
    def gpt2_large(cls) -> "GPT2Config":
        """774,030,080 parameters."""
        # Step 8: 1280 / 20 = 64
        return cls(n_embd=1280, n_layer=36, n_head=20)

    @classmethod
    def gpt2_xl(cls) -> "GPT2Config":
        """1,557,611,200 parameters."""
        # Step 9: 1600 / 25 = 64
        return cls(n_embd=1600, n_layer=48, n_head=25)
