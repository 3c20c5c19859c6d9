"""From tokens to text as they come: whole characters only, and nothing from a stop text on.

A stop text may begin in one token and end in another; what could be its beginning is held back
until it is known not to be, or until the text ends otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from gpt2.text.tokenizers import StreamDecoder

if TYPE_CHECKING:
    from gpt2.text.tokenizers import Tokenizer


class StopTexts:
    """Text in pieces → the same up to the first of the stop texts: `push` each piece and show what
    it returns, then `finish`.

    `found` is the stop text that was met: of several, the one that is complete first, whatever
    pieces the text comes in. All that was returned, joined, is what stands before it.
    """

    def __init__(self, stops: Sequence[str]):
        """ValueError for an empty stop text, which stands everywhere, and for invalid Unicode."""
        self.stops = (stops,) if isinstance(stops, str) else tuple(stops)
        for stop in self.stops:
            if not isinstance(stop, str) or not stop:
                raise ValueError(f"a stop text must be a string of at least 1 character: {stop!r}")
            try:
                stop.encode("utf-8")
            except UnicodeEncodeError:
                raise ValueError(f"the stop text {stop!r} is not valid Unicode") from None
        self.found: str | None = None
        self._held = ""

    def push(self, text: str) -> str:
        """One more piece → what can be shown now; "" once a stop text was met."""
        if self.found is not None:
            return ""
        text = self._held + text
        self._held = ""
        met = [(at + len(stop), at, stop) for stop in self.stops if (at := text.find(stop)) >= 0]
        if met:
            _, at, self.found = min(met)
            return text[:at]
        held = max((_begun(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """The end → what was held back and turned out to be text."""
        held, self._held = self._held, ""
        return held


def _begun(text: str, stop: str) -> int:
    """How many of the text's last characters are the beginning of a stop text, at most all but
    one of its characters.
    """
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


class Continuation:
    """One text's new tokens → the text to show.

    It ends at an end token, which is not shown; before a stop text; or after `most` tokens.
    Attributes: `tokens`, how many there were; `ended`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        most: int,
        end_tokens: Collection[int] = (),
        stops: Sequence[str] = (),
    ):
        """ValueError as in `StopTexts`."""
        self.most = most
        self.end_tokens = end_tokens
        self.tokens = 0
        self.ended = most == 0
        self._characters = StreamDecoder(tokenizer)
        self._stops = StopTexts(stops)

    def push(self, token_id: int) -> str:
        """One more token → the text that is now certain; the last of it when `ended` turns true."""
        if self.ended:
            return ""
        self.tokens += 1
        text = ""
        if token_id in self.end_tokens:
            self.ended = True
        else:
            text = self._stops.push(self._characters.push(token_id))
            self.ended = self._stops.found is not None or self.tokens >= self.most
        return text + self._rest() if self.ended else text

    def finish(self) -> str:
        """No more tokens will come → the last of the text, where `push` has not given it yet."""
        if self.ended:
            return ""
        self.ended = True
        return self._rest()

    def _rest(self) -> str:
        return self._stops.push(self._characters.finish()) + self._stops.finish()


def stream_texts(
    tokens: Iterable[tuple[int, int]], texts: Sequence[Continuation]
) -> Iterator[tuple[int, str]]:
    """Tokens with the number of their text → pieces of text with the same number.

    A text's last piece comes when it has ended, and no token is taken once all have.
    """
    if not all(text.ended for text in texts):
        for number, token in tokens:
            piece = texts[number].push(token)
            if piece:
                yield number, piece
            if texts[number].ended and all(text.ended for text in texts):
                break
    for number, text in enumerate(texts):
        if rest := text.finish():
            yield number, rest
