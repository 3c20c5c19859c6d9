"""Where a text ends: stop texts across tokens, end tokens, and what Hugging Face makes of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from small_gpt2 import byte_tokenizer, prompt, tiny

from gpt2.formats.checkpoints import save_pretrained
from gpt2.generation.generating import generate, generate_batch, stream, stream_batch
from gpt2.generation.texts import Continuation, StopTexts, stream_texts


def in_pieces(text: str, stops: list[str], sizes: list[int]) -> tuple[list[str], StopTexts]:
    """What is shown of a text that comes in pieces of these sizes, piece by piece."""
    filtered, shown, at = StopTexts(stops), [], 0
    for size in sizes:
        shown.append(filtered.push(text[at : at + size]))
        at += size
    shown.append(filtered.push(text[at:]))
    shown.append(filtered.finish())
    return shown, filtered


def before_the_stop(text: str, stops: list[str]) -> str:
    """The oracle: the shortest beginning that ends with a stop text, without the longest such."""
    for end in range(len(text) + 1):
        met = [stop for stop in stops if text[:end].endswith(stop)]
        if met:
            return text[: end - max(map(len, met))]
    return text


def test_stop_texts_in_any_pieces() -> None:
    """Catches a stop text that is missed across pieces, text behind it, text that is held back for
    ever, and an answer that depends on how the text is cut: 3,000 texts of three letters.
    """
    chosen = random.Random(1)
    met = 0
    for _ in range(3000):
        text = "".join(chosen.choices("abé", k=chosen.randrange(0, 20)))
        stops = [
            "".join(chosen.choices("abé", k=chosen.randrange(1, 6)))
            for _ in range(chosen.randrange(0, 4))
        ]
        sizes = [chosen.randrange(0, 4) for _ in range(chosen.randrange(0, 15))]
        shown, filtered = in_pieces(text, stops, sizes)
        assert "".join(shown) == before_the_stop(text, stops)
        assert (filtered.found is not None) == any(stop in text for stop in stops)
        met += filtered.found is not None
    assert 1000 < met < 2800


def test_only_what_may_begin_a_stop_text_is_held_back() -> None:
    """Catches text that comes later than it must: the tail "aba" of a text may begin "abac"."""
    filtered = StopTexts(["abac", "xyz"])
    assert [filtered.push(piece) for piece in ("ab", "a", "b", "q", "xy")] == [
        *("", "", "ab", "abq", ""),
    ]
    assert filtered.finish() == "xy"


@pytest.mark.parametrize("stops", [[""], ["a", ""], ["\udcff"], [3]])
def test_stop_texts_that_make_no_sense(stops: list) -> None:
    """Catches an empty stop text, which would end every text before it began."""
    with pytest.raises(ValueError, match="stop text"):
        StopTexts(stops)


def test_a_continuation_ends_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Catches tokens counted or shown after the end, and half a character that is lost."""
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("naïve 日本 question")
    for most in range(len(ids) + 1):
        text = Continuation(tokenizer, most, {tokenizer.roles.end}, [])
        assert text.ended == (most == 0)
        shown = "".join(text.push(i) for i in ids) + text.finish()
        assert shown == tokenizer.decode(ids[:most])
        assert text.tokens == most
    text = Continuation(tokenizer, 99, {ids[3]}, [])
    assert "".join(text.push(i) for i in ids) == tokenizer.decode(ids[:3])
    assert (text.tokens, text.ended, text.finish()) == (4, True, "")
    short = Continuation(tokenizer, 99, (), ["zzz"])
    assert short.push(ids[0]) + short.finish() == tokenizer.decode(ids[:1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory):
    """Our model and tokenizer, and Hugging Face's from the same folder."""
    from transformers import AutoTokenizer, GPT2LMHeadModel

    tokenizer = byte_tokenizer()
    model = tiny(2, vocab_size=tokenizer.vocab_size, n_positions=80)
    folder: Path = tmp_path_factory.mktemp("pair") / "m"
    save_pretrained(model, folder, tokenizer)
    theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    return model, tokenizer, theirs, AutoTokenizer.from_pretrained(folder)


def test_stop_texts_end_where_hugging_faces_do(pair) -> None:
    """Catches a text that ends one token early or late: every stop text of two to four characters
    at every fifth place of a greedy text, against `generate(stop_strings=…)`.
    """
    model, tokenizer, theirs, their_tokenizer = pair
    ids = torch.tensor([tokenizer.encode("To be")])
    whole = generate(model, ids, 60, temperature=0.0)[0, ids.size(1) :].tolist()
    text = tokenizer.decode(whole)
    assert len(set(whole)) > 10
    straddling = 0
    for at in range(0, len(text) - 4, 5):
        stop = text[at : at + 2 + at % 3]
        if "\ufffd" in stop:
            continue
        found = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=60,
            do_sample=False,
            stop_strings=[stop],
            tokenizer=their_tokenizer,
            pad_token_id=0,
            eos_token_id=None,
        )[0, ids.size(1) :].tolist()
        ours = Continuation(tokenizer, 60, (), [stop])
        steps = stream(model, ids, 60, temperature=0.0)
        shown = "".join(piece for _, piece in stream_texts(((0, int(t)) for (t,) in steps), [ours]))
        assert ours.tokens == len(found)
        assert shown == text[: text.index(stop)]
        straddling += all(stop not in tokenizer.decode([i]) for i in found)
    assert straddling > 3


def test_several_end_tokens_and_forbidden_ones_are_hugging_faces(pair) -> None:
    """Catches a second end token that is passed over, a row that goes on after its own, and an id
    that is drawn although it stands for nothing.
    """
    model, tokenizer, theirs, _ = pair
    V = tokenizer.vocab_size
    ids = torch.cat([prompt(1, 7, seed, V) for seed in (1, 2, 3)])
    plain = generate(model, ids, 30, temperature=0.0)[:, 7:]
    ends = [int(plain[0, 5]), int(plain[1, 9])]
    never = sorted({int(plain[0, 1]), int(plain[2, 2])} - set(ends))
    for row in ids:
        expected = theirs.generate(
            row[None],
            attention_mask=torch.ones(1, 7),
            max_new_tokens=30,
            do_sample=False,
            eos_token_id=ends,
            suppress_tokens=never,
            pad_token_id=0,
        )[0].tolist()
        options = {"temperature": 0.0, "eos_token_id": ends, "never": never}
        assert generate(model, row[None], 30, **options)[0].tolist() == expected
        assert generate_batch(model, [row], 30, **options)[0].tolist() == expected
        assert not set(expected[7:]) & set(never)
    together = generate(model, ids, 30, eos_token_id=ends, temperature=0.0)[:, 7:].tolist()
    met = [next(i for i, token in enumerate(row) if token in ends) for row in together[:2]]
    assert len(set(met)) == 2
    for row, at in zip(together, met, strict=False):
        assert set(row[at:]) == {row[at]}  # it goes on with the end token that it met
    for name, wrong in (("eos_token_id", [3, V]), ("never", [-1]), ("never", range(V))):
        with pytest.raises(ValueError, match=name):
            stream(model, ids, 3, **{name: wrong})


def test_rows_of_one_prompt_read_it_once_and_leave_when_told(pair) -> None:
    """Catches a prompt that is computed once per sample, rows that are copies of one another, and a
    row that goes on after its reader has said that it ended.
    """
    model, tokenizer, _, _ = pair
    ids = torch.tensor(tokenizer.encode("question: "))
    shapes: list[tuple[int, ...]] = []
    handle = model.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(3)]

    rows: list[list[int]] = [[], [], []]
    lengths = (2, 9, 5)
    for number, token in stream_batch(
        model,
        [ids] * 3,
        20,
        generators=generators(),
        ended=lambda number: len(rows[number]) == lengths[number],
        temperature=1.2,
    ):
        rows[number].append(token)
    handle.remove()
    assert shapes[0] == (1, len(ids))
    assert {shape[1] for shape in shapes[1:]} == {1}
    assert len(shapes) == 1 + 8
    for row, length, draw in zip(rows, lengths, generators(), strict=True):
        alone = generate(model, ids[None], length, generator=draw, temperature=1.2)
        assert row == alone[0, len(ids) :].tolist()
    assert len({tuple(row[:2]) for row in rows}) > 1
