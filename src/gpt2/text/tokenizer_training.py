"""Tokenizers made from a user's own text; the `tokenizers` library does the training."""

from __future__ import annotations

from collections.abc import Iterable

from gpt2.text.tokenizers import END_OF_TEXT, JSONTokenizer

BYTES = 256  # a byte-level vocabulary starts with one token per byte


def train_char(texts: Iterable[str]) -> JSONTokenizer:
    """One token per character that occurs, in the order of their code points.

    A character that does not occur cannot be encoded. ValueError when there is no text.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    if not characters:
        raise ValueError("there is no text to take characters from")
    backend = Tokenizer(models.WordLevel({char: i for i, char in enumerate(sorted(characters))}))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return JSONTokenizer(backend)


def train_bpe(texts: Iterable[str], vocab_size: int) -> JSONTokenizer:
    """Byte-level BPE like GPT-2's: 256 bytes, the merges that the text asks for, end of text.

    The result may have fewer than vocab_size tokens when the text has no more pairs to merge; it
    encodes any text. ValueError for a vocab_size without room for the bytes and the end of text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab_size < BYTES + 1:
        raise ValueError(
            f"vocab_size = {vocab_size}: byte-level BPE takes at least {BYTES + 1} "
            "(256 bytes and the end of text)"
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(iter(texts), trainer)
    # last, as in GPT-2: its id is the vocabulary's largest
    backend.add_special_tokens([END_OF_TEXT])
    return JSONTokenizer(backend)
