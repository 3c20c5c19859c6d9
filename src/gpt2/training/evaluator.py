"""Looking at a model while it trains: validation loss, HellaSwag, a sample of its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from gpt2.data.shards import TokenSource
    from gpt2.model import GPT2Model
    from gpt2.text.roles import Roles
    from gpt2.text.tokenizers import Tokenizer
    from gpt2.training.evaluation import HellaSwag, Loss
    from gpt2.training.ranks import World
    from gpt2.training.settings import TrainConfig


class Evaluator:
    """What is measured of a run's model as it is. It leaves the model and all random numbers of
    training alone, so that looking more or less often changes nothing.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: GPT2Model,
        tokenizer: Tokenizer,
        roles: Roles,
        train: TokenSource,
        val: TokenSource | None,
        world: World,
        autocast: torch.dtype | None,
    ):
        self.config, self.model, self.world = config, model, world
        self.tokenizer, self.roles = tokenizer, roles
        self.train, self.val, self.autocast = train, val, autocast

    def loss(self) -> Loss | None:
        """Validation loss, windows side by side; None without a validation split. All ranks must
        call it.
        """
        from gpt2.training.evaluation import evaluate_loss

        if self.val is None or self.val.tokens < 2:
            return None
        return evaluate_loss(
            self.model,
            self.val,
            length=self.config.context,
            batch_size=self.config.batch_size,
            max_tokens=self.config.eval_tokens,
            autocast=self.autocast,
            rank=self.world.rank,
            world_size=self.world.size,
        )

    def hellaswag(self) -> HellaSwag | None:
        """Its scores; None where no file of examples was given."""
        from gpt2.training.evaluation import evaluate_hellaswag, read_hellaswag

        if not self.config.hellaswag:
            return None
        examples = read_hellaswag(self.config.hellaswag)
        return evaluate_hellaswag(self.model, self.tokenizer, examples)

    def sample(self) -> str:
        """A text that the model writes, from its first token or from `sample_prompt` on."""
        from gpt2.generation.generating import generate

        rows = self.model.config.vocab_size
        given = self.tokenizer.encode(self.config.sample_prompt)
        start = given or [self._first()]
        out = generate(
            self.model,
            torch.tensor([start], device=self.world.device),
            max(0, min(self.config.sample_tokens, self.model.config.n_positions - len(start))),
            temperature=0.8,
            never=[i for i in range(rows) if not self.tokenizer.has(i)],
            generator=torch.Generator(self.world.device).manual_seed(self.config.seed),
        )
        shown = out[0].tolist()
        return self.tokenizer.decode(shown[1:] if shown[0] == self._end() else shown)

    def _first(self) -> int:
        """What a text without a prompt starts from: the end of the text before, or any token."""
        end = self._end()
        return int((self.val or self.train).read(0, 1)[0]) if end is None else end

    def _end(self) -> int | None:
        """The end token, where the model has a row for it."""
        end = self.tokenizer.roles.end
        return end if end is not None and end < self.model.config.vocab_size else None
