"""Every command takes a model by the same rules, and roles survive whatever is done with one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_gpt2 import ROOT  # noqa: F401 (its folder is on the path)

from gpt2 import cli
from gpt2.common import files
from gpt2.data.preparing import prepare
from gpt2.data.shards import TokenSource, read_index
from gpt2.formats.checkpoints import BUNDLED
from gpt2.formats.opening import load_tokenizer, open_model
from tests.gpt2.formats.zoo import NEW, PROMPT, end, plain, plain_size, words

TEXT = "To be, or not to be, that is the question.\n" * 30
END = "</s>"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with several oddities at once: a padded table, the end in the tokenizer's file
    alone, two files of vocabulary, a classifier, names as a wrapper wrote them, n_ctx.
    """
    parts = plain(plain_size() + 48, 45)
    parts.tokenizer = None
    parts.two_files = words()[0]
    parts.added_tokens = {token: end() + i for i, token in enumerate(("</s>", "<s>", "[PAD]"))}
    parts.tokenizer_config = {"eos_token": END, "bos_token": "<s>", "pad_token": "[PAD]"}
    parts.config["n_ctx"] = parts.config.pop("n_positions")
    parts.tensors |= {"score.weight": torch.ones(2, 16)}
    parts.tensors = {f"module.{name}": tensor for name, tensor in parts.tensors.items()}
    return parts.write(tmp_path_factory.mktemp("odd") / "model")


@pytest.fixture(scope="module")
def data(odd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text prepared with that model's tokenizer."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(TEXT, encoding="utf-8")
        (folder / name).write_text(TEXT + name, encoding="utf-8")
    prepare(str(folder), folder / "prepared", tokenizer=str(odd), val_fraction=0.2)
    return folder / "prepared"


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[str, str]:
    """Run a command line that has to succeed → what it printed, and its notes."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    assert stopped.value.code == 0, err
    return out, err


def test_documents_end_with_the_models_token(data: Path, odd: Path) -> None:
    """Catches a text without ends where the end token has another name than GPT-2's."""
    index = read_index(data)
    assert json.loads((data / "index.json").read_text(encoding="utf-8"))["eos_token_id"] == end()
    source = TokenSource(index, "train")
    tokens = source.read(0, source.tokens)
    assert int((tokens == end()).sum()) >= 1
    assert load_tokenizer(data).roles == load_tokenizer(odd).roles


def test_every_command_takes_it(
    odd: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a command with rules of its own, and one that leaves something out in silence."""
    short = ("generate", "--prompt", PROMPT, "--temperature", 0, "--max-new-tokens", NEW)
    text, err = run(capsys, *short, "--model", odd)
    assert "score.weight" in err
    assert "module." in err
    assert END not in text
    assert "bits per byte" in run(capsys, "eval", odd, "--data", data)[0]
    assert "All twelve agree" in run(capsys, "validate", odd)[0]
    run(capsys, "attention", odd, PROMPT, "--out", tmp_path / "a.html")
    run(capsys, "export", odd, "--out", tmp_path / "out", "--gguf", tmp_path / "m.gguf")
    out = tmp_path / "run"
    train = ("--max-steps", 2, "--context", 8, "--batch-size", 2, "--device", "cpu", "--lr", 1e-6)
    run(capsys, "train", "--init-from", odd, "--data", data, "--out", out, *train)
    wanted = open_model(odd).roles
    assert wanted.eos == (end(),)
    for again in (tmp_path / "out", tmp_path / "m.gguf", out, out / "best"):
        assert open_model(again).roles == wanted
        assert run(capsys, *short, "--model", again)[0] == text
    run(capsys, "train", "--resume", out, "--max-steps", 3)
    assert open_model(out / "checkpoints").roles == wanted


def test_bundled_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Catches a name that only one command knows."""
    assert open_model(BUNDLED).settings == open_model().settings
    one = run(capsys, "generate", "--model", "bundled", "--prompt", "a", "--seed", 1)[0]
    assert one == run(capsys, "generate", "--prompt", "a", "--seed", 1)[0]
    assert load_tokenizer(BUNDLED).vocab_size == 65


def test_ids_beyond_the_table_in_prepared_data(tmp_path: Path) -> None:
    """Catches an index error inside the embeddings for data whose tokenizer knows more tokens."""
    parts = plain()
    folder = parts.write(tmp_path / "m")
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    prepare(str(tmp_path / "a.txt"), tmp_path / "data", tokenizer=str(folder), val_fraction=0.1)
    source = TokenSource(read_index(tmp_path / "data"), "train")
    source.rows = 40
    with pytest.raises(ValueError, match="the model's table ends at 39"):
        source.read(0, 50)


# ----------------------------------------------------------------------- the hub, without a network


@pytest.mark.parametrize("words_there", [True, False])
def test_a_hub_name_with_two_files(
    odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words_there: bool
) -> None:
    """Catches a repository whose tokenizer is looked for as tokenizer.json alone."""
    folder = tmp_path / "snapshot"
    shutil.copytree(odd, folder)
    if not words_there:
        (folder / "vocab.json").unlink()
    asked = []

    def download(repo: str, filename: str, **options: object) -> Path | None:
        asked.append(filename)
        return folder / filename if (folder / filename).is_file() else None

    monkeypatch.setattr("gpt2.formats.opening.download_file", download)
    monkeypatch.setattr("gpt2.formats.checkpoints.download_file", download)
    opened = open_model("some/one")
    assert (opened.kind, opened.place) == ("hub", folder)
    if words_there:
        assert opened.encode(PROMPT) == open_model(odd).encode(PROMPT)
        assert opened.roles == open_model(odd).roles
        asked.clear()
        assert load_tokenizer("some/one").encode(PROMPT) == opened.encode(PROMPT)
        assert files.WEIGHTS not in asked
    else:
        with pytest.raises(ValueError, match="no tokenizer"):
            opened.encode(PROMPT)
