"""Loss and HellaSwag against what they mean, computed one token at a time."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from small_gpt2 import char_tokenizer, hugging_face, tiny
from training_helpers import make_data

from gpt2.cli import cli
from gpt2.data.shards import TokenSource, read_index
from gpt2.formats.checkpoints import save_pretrained
from gpt2.formats.opening import load_tokenizer
from gpt2.model import GPT2Model
from gpt2.training.evaluation import evaluate_hellaswag, evaluate_loss, read_hellaswag, windows


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> TokenSource:
    """A validation split."""
    return TokenSource(read_index(make_data(tmp_path_factory.mktemp("text"), 1700)), "val")


def fitting(source: TokenSource, **sizes: int) -> GPT2Model:
    """A small model for that split's vocabulary."""
    return tiny(vocab_size=source.index.vocab_size, **sizes)


@pytest.mark.parametrize("tokens", [2, 9, 10, 11, 31, 50])
@pytest.mark.parametrize("stride", [1, 4, 10])
def test_each_token_but_the_first_is_scored_once(tokens: int, stride: int) -> None:
    """Catches tokens scored twice or not at all, at every remainder."""
    scored: list[int] = []
    for window in windows(tokens, 10, stride):
        end = window.start + window.length
        assert 1 <= window.scored <= window.length <= 10
        scored += range(end - window.scored + 1, end + 1)
    assert scored == list(range(1, tokens))


@pytest.mark.parametrize("stride", [None, 5, 1])
def test_the_loss_is_the_mean_of_each_tokens_own(source: TokenSource, stride: int | None) -> None:
    """Catches a mean of means, a wrong context, and dropout left on: the oracle is one forward
    pass of Hugging Face's model per token.
    """
    model = fitting(source).train()
    theirs = hugging_face(vocab_size=source.index.vocab_size)
    theirs.load_state_dict(_theirs(model), strict=False)
    length, step = 11, stride or 11
    ids = torch.from_numpy(source.read(0, source.tokens))
    total = 0.0
    for target in range(1, len(ids)):
        # the first window whose end reaches the target
        window = max(0, math.ceil((target - length) / step))
        context = ids[window * step : target][None]
        with torch.no_grad():
            logits = theirs(context).logits[0, -1].double()
        total -= float(torch.log_softmax(logits, -1)[ids[target]])
    found = evaluate_loss(model, source, length=length, stride=stride, batch_size=3)
    assert found.tokens == len(ids) - 1
    assert found.nats == pytest.approx(total / (len(ids) - 1), abs=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.nats))
    assert found.bits_per_byte == pytest.approx(found.nats / math.log(2))  # a byte per character
    assert model.training


def _theirs(model: GPT2Model) -> dict[str, torch.Tensor]:
    """Our weights under Hugging Face's names."""
    ours = dict(model.named_parameters())
    mapping = model._build_weight_mapping(model.config.n_layer)
    weights = {
        f"transformer.{name}": ours[own].detach().t().contiguous() if flip else ours[own].detach()
        for name, (own, flip) in mapping.items()
    }
    return weights | {"lm_head.weight": ours["embeddings.wte.weight"].detach()}


def test_bits_per_byte_counts_bytes_and_not_tokens(tmp_path: Path) -> None:
    """Catches a figure that a coarser tokenizer would make look better or worse."""
    from gpt2.data.preparing import prepare

    (tmp_path / "a.txt").write_text("日本 " * 400, encoding="utf-8")
    index = prepare(str(tmp_path / "a.txt"), tmp_path / "d", tokenizer="char")
    source = TokenSource(index, "val")
    found = evaluate_loss(tiny(vocab_size=index.vocab_size), source, length=8)
    # 40 times 3 + 3 + 1 bytes, of which the first token, with 3 bytes, is not scored
    assert (found.tokens, found.bytes) == (40 * 3 - 1, 40 * 7 - 3)
    assert found.bits_per_byte == pytest.approx(found.nats / math.log(2) * 119 / 277)


def test_bits_per_byte_of_some_tokens_counts_their_bytes(tmp_path: Path) -> None:
    """Catches the whole split's bytes per token, where only its first tokens are scored: three
    bytes a token at first and one later, counted by hand; and an end token counted as text.
    """
    from gpt2.data.preparing import prepare

    # one document, all for validation but its first byte
    (tmp_path / "a.txt").write_text("日" * 50 + "a" * 450, encoding="utf-8")
    options = {"tokenizer": "char", "val_fraction": 0.9}
    source = TokenSource(prepare(str(tmp_path / "a.txt"), tmp_path / "d", **options), "val")
    assert source.tokens == 500 - 20  # the first tenth of 600 bytes is 20 characters
    model = tiny(vocab_size=source.index.vocab_size)
    for most, scored, size in ((10, 10, 30), (29, 29, 87), (60, 60, 29 * 3 + 31), (None, 479, 537)):
        for stride in (8, 3):
            found = evaluate_loss(model, source, length=8, stride=stride, max_tokens=most)
            assert (found.tokens, found.bytes) == (scored, size)
            expected = found.nats * scored / math.log(2) / size
            assert found.bits_per_byte == pytest.approx(expected)
    for i in range(4):
        (tmp_path / f"{i}.md").write_text("ab" + "cdef"[i], encoding="utf-8")
    files = ",".join(str(tmp_path / f"{i}.md") for i in range(4))
    index = prepare(files, tmp_path / "e", vocab_size=257, val_fraction=0.75)
    source = TokenSource(index, "val")
    ids = source.read(0, source.tokens)
    assert (ids == 256).sum() == 3  # the end token behind each document
    found = evaluate_loss(tiny(vocab_size=257), source, length=8)
    assert (found.tokens, found.bytes) == (len(ids) - 1, len(ids) - 1 - 3)


def hellaswag_file(folder: Path) -> Path:
    """Five examples in the published format, labels as numbers and as strings."""
    rows = []
    texts = ["the cat sat on", "a mat, and", "then it ran.", "the mat,", "and"]
    endings = ["a cat", "the mat, and then it ran.", "it", "on the cat, then"]
    for i, ctx in enumerate(texts):
        rows.append(
            {
                "ind": i,
                "activity_label": "x",
                "ctx": ctx,
                "endings": endings[i % 2 :] + endings[: i % 2],
                "label": i % 4 if i % 2 else str(i % 4),
            }
        )
    path = folder / "hellaswag.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_hellaswag_is_scored_as_published(source: TokenSource, tmp_path: Path) -> None:
    """Catches padding that counts, the context scored along, endings without their space: each
    ending is scored alone by Hugging Face's model.
    """
    examples = read_hellaswag(hellaswag_file(tmp_path))
    tokenizer = load_tokenizer(source.index.folder)
    for seed in range(4):
        model = tiny(seed, vocab_size=source.index.vocab_size, n_positions=64)
        theirs = hugging_face(vocab_size=source.index.vocab_size, n_positions=64)
        theirs.load_state_dict(_theirs(model), strict=False)
        sums, means = [], []
        for example in examples:
            scores = []
            for ending in example.endings:
                context, ids = tokenizer.encode(example.context), tokenizer.encode(" " + ending)
                with torch.no_grad():
                    logits = theirs(torch.tensor([context + ids])).logits[0].double()
                chosen = torch.log_softmax(logits, -1)[len(context) - 1 : -1]
                scores.append([-float(row[i]) for row, i in zip(chosen, ids, strict=True)])
            by_sum = min(range(4), key=lambda n: sum(scores[n]))
            by_mean = min(range(4), key=lambda n: sum(scores[n]) / len(scores[n]))
            sums.append(by_sum == example.label)
            means.append(by_mean == example.label)
        for batch_size in (1, 3):
            found = evaluate_hellaswag(model, tokenizer, examples, batch_size)
            assert found.acc == sum(sums) / 5
            assert found.acc_norm == sum(means) / 5


def test_a_context_too_long_loses_its_beginning(source: TokenSource, tmp_path: Path) -> None:
    """Catches an example past n_positions that ends the evaluation."""
    examples = read_hellaswag(hellaswag_file(tmp_path))
    tokenizer = load_tokenizer(source.index.folder)
    found = evaluate_hellaswag(fitting(source, n_positions=12), tokenizer, examples)
    assert 0 <= found.acc <= 1


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        '{"ctx": "a"}',
        '{"ctx": "a", "endings": ["b"], "label": 0}',
        '{"ctx": "a", "endings": ["b", "c", "d", "e"], "label": 4}',
    ],
)
def test_a_foreign_hellaswag_file_is_refused(tmp_path: Path, line: str) -> None:
    """Catches a traceback for a file in another format."""
    (tmp_path / "x.jsonl").write_text(line)
    with pytest.raises(ValueError, match=r"x\.jsonl"):
        read_hellaswag(tmp_path / "x.jsonl")


def test_gpt2_eval_states_what_it_measured(source: TokenSource, tmp_path: Path) -> None:
    """Catches a command that hides the stride, or another tokenizer's data."""
    folder = source.index.folder
    model = fitting(source, n_positions=64)
    save_pretrained(model, tmp_path / "m", load_tokenizer(folder))
    arguments = ["eval", str(tmp_path / "m"), "--data", str(folder), "--context", "16"]
    arguments += ["--stride", "5", "--hellaswag", str(hellaswag_file(tmp_path))]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    expected = evaluate_loss(model, source, length=16, stride=5)
    assert f"loss {expected.nats:.4f} nats per token" in result.output
    assert "context 16, stride 5" in result.output
    assert "acc_norm" in result.output
    save_pretrained(tiny(vocab_size=5), tmp_path / "other", char_tokenizer("abcde"))
    result = CliRunner().invoke(cli, ["eval", str(tmp_path / "other"), "--data", str(folder)])
    assert isinstance(result.exception, ValueError)
    assert "5 tokens" in str(result.exception)
    others = "".join(chr(0x4E00 + i) for i in range(source.index.vocab_size))
    save_pretrained(model, tmp_path / "same-size", char_tokenizer(others))
    result = CliRunner().invoke(cli, ["eval", str(tmp_path / "same-size"), "--data", str(folder)])
    assert "another tokenizer" in str(result.exception)
