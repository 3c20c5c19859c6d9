"""Prompts and their continuations, written as they come: one text, or several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor

from gpt2.generation.arguments import SamplingKeywords
from gpt2.generation.generating import stream, stream_batch
from gpt2.generation.speculative import speculate
from gpt2.generation.texts import Continuation, stream_texts

if TYPE_CHECKING:
    from gpt2.formats.opening import Opened
    from gpt2.model import GPT2Model
    from gpt2.text.tokenizers import Tokenizer

CACHE_BYTES = 2**30  # of keys and values in one batch


@dataclass(frozen=True)
class Row:
    """A text to write: its prompt, the prompt's ids (T,), a line to write before it or "", and the
    seed of its random numbers.
    """

    prompt: str
    ids: Tensor
    head: str = ""
    seed: int = 0

    def generator(self) -> torch.Generator:
        """Random numbers that no other row draws from."""
        return torch.Generator(self.ids.device).manual_seed(self.seed % 2**64)


class Writer:
    """Writes texts with one model, by one set of rules. `tokens` counts the new ones so far."""

    def __init__(
        self,
        model: GPT2Model,
        tokenizer: Tokenizer,
        max_new_tokens: int,
        echo: Callable[[str], object],
        *,
        draft: GPT2Model | None = None,
        stops: Sequence[str] = (),
        ends: tuple[int, ...] = (),
        never: Sequence[int] = (),
        use_cache: bool = True,
        sliding: bool = False,
        **sampling: Unpack[SamplingKeywords],
    ):
        """echo is called with each piece of text. draft: a model to guess with, as in `speculate`;
        stops: texts that a text ends before; the rest as in `stream`.
        """
        self.model, self.tokenizer, self.most = model, tokenizer, max_new_tokens
        self.echo, self.draft, self.sampling = echo, draft, sampling
        self.stops, self.ends, self.never = stops, ends, never
        self.use_cache, self.sliding = use_cache, sliding
        self.tokens = 0

    def write(self, rows: Sequence[Row]) -> None:
        """Each row's prompt and continuation, one after the other, the first as it comes.

        Several rows are computed side by side, as many as memory for their keys and values is
        meant for. ValueError as in `stream`, before the first character is written.
        """
        if self.draft is not None or len(rows) == 1:
            for row in rows:
                self._write([row], self._alone)
            return
        most = rows_at_once(self.model, max(len(row.ids) for row in rows) + self.most)
        for first in range(0, len(rows), most):
            self._write(rows[first : first + most], self._side_by_side)

    def _alone(
        self, rows: Sequence[Row], texts: Sequence[Continuation]
    ) -> Iterable[tuple[int, int]]:
        """One row's new tokens, each with the row's number, 0."""
        (row,) = rows
        ids, generator = row.ids[None], row.generator()
        if self.draft is None:
            steps = stream(
                self.model,
                ids,
                self.most,
                eos_token_id=self.ends,
                never=self.never,
                use_cache=self.use_cache,
                sliding=self.sliding,
                generator=generator,
                **self.sampling,
            )
            return ((0, int(token)) for (token,) in steps)
        pieces = speculate(
            self.model,
            self.draft,
            ids,
            self.most,
            eos_token_id=self.ends,
            never=self.never,
            generator=generator,
            **self.sampling,
        )
        return ((0, token) for piece in pieces for token in piece)

    def _side_by_side(
        self, rows: Sequence[Row], texts: Sequence[Continuation]
    ) -> Iterable[tuple[int, int]]:
        """New tokens of all rows, each with its row's number."""
        return stream_batch(
            self.model,
            [row.ids for row in rows],
            self.most,
            eos_token_id=self.ends,
            never=self.never,
            use_cache=self.use_cache,
            sliding=self.sliding,
            generators=[row.generator() for row in rows],
            ended=lambda number: texts[number].ended,
            **self.sampling,
        )

    def _write(
        self,
        rows: Sequence[Row],
        way: Callable[[Sequence[Row], Sequence[Continuation]], Iterable[tuple[int, int]]],
    ) -> None:
        texts = [Continuation(self.tokenizer, self.most, self.ends, self.stops) for _ in rows]
        tokens = way(rows, texts)  # checks the arguments, so it comes before anything is written
        waiting = [""] * len(rows)
        current = 0
        self._begin(rows[0])
        for number, piece in stream_texts(tokens, texts):
            if number == current:
                self.echo(piece)
            else:
                waiting[number] += piece
            while texts[current].ended and current + 1 < len(rows):
                current += 1
                self._begin(rows[current], waiting[current])
        for later in range(current + 1, len(rows)):  # they ended without another piece
            self._begin(rows[later], waiting[later])
        self.echo("\n")
        self.tokens += sum(text.tokens for text in texts)

    def _begin(self, row: Row, text: str | None = None) -> None:
        """A row's head, its prompt, and what there is of its text; None for the very first row."""
        if text is not None:
            self.echo("\n")
        if row.head:
            self.echo(f"{row.head}\n")
        self.echo(row.prompt)
        if text:
            self.echo(text)


def rows_at_once(model: GPT2Model, positions: int) -> int:
    """How many texts of so many positions are computed side by side: their keys and values take at
    most 1 GiB.
    """
    config, weight = model.config, next(model.parameters())
    positions = min(positions, config.n_positions)
    row = 2 * config.n_layer * positions * config.n_embd * weight.element_size()
    return max(1, CACHE_BYTES // row)


def end_tokens(opened: Opened, names: Sequence[str]) -> tuple[int, ...]:
    """--eos → ids: a number, a special token's name, or a text that is one token; none given: the
    model's own. ValueError that says how many tokens a text is instead.
    """
    if not names:
        return opened.roles.eos
    return tuple(dict.fromkeys(_end_token(opened, name) for name in names))


def _end_token(opened: Opened, name: str) -> int:
    tokenizer = opened.tokenizer
    if name.isascii() and name.isdecimal():
        if int(name) >= opened.rows:
            raise ValueError(f"--eos {name}: the model's tokens are 0 … {opened.rows - 1}")
        return int(name)
    found = tokenizer.special_tokens.get(name)
    if found is None:
        try:
            ids = tokenizer.encode(name)
        except ValueError as error:
            raise ValueError(f"--eos {name!r}: {error}") from None
        found = ids[0] if len(ids) == 1 else tokenizer.id_of(name)
        if found is None:
            raise ValueError(
                f"--eos {name!r} is not one token but {len(ids)}; --stop ends at any text"
            )
    if found >= opened.rows:
        raise ValueError(f"--eos {name!r} is token {found}, and the model has {opened.rows} rows")
    return found


def check_same_words(opened: Opened, draft: Opened) -> None:
    """ValueError that names the first token which means one thing to the model and another to the
    draft.
    """
    if draft.rows != opened.rows:
        raise ValueError(
            f"{draft.name} has {draft.rows} tokens and {opened.name} {opened.rows}: a draft model "
            "needs the same ones"
        )
    ours, theirs = opened.tokenizer, draft.tokenizer
    for i in range(min(ours.vocab_size, theirs.vocab_size, opened.rows)):
        pair = [_bytes_or_none(tokenizer, i) for tokenizer in (ours, theirs)]
        if pair[0] != pair[1]:
            raise ValueError(
                f"token {i} is {pair[0]!r} in {opened.name} and {pair[1]!r} in {draft.name}: a "
                "draft model needs the same tokens"
            )


def _bytes_or_none(tokenizer: Tokenizer, token: int) -> bytes | None:
    try:
        return tokenizer.token_bytes(token)
    except ValueError:
        return None
