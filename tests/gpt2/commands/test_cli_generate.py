"""`gpt2 generate` and `gpt2 bench` as a user meets them: text, speed, one line per error."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from small_gpt2 import byte_tokenizer, char_tokenizer, tiny

from gpt2 import cli
from gpt2.bench import generation, measuring, registry
from gpt2.commands import generate as command
from gpt2.formats.checkpoints import save_pretrained
from gpt2.formats.opening import open_model
from gpt2.generation.generating import generate

TEXT = "naïve 日本 🤖 e\u0301"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a byte-level vocabulary."""
    tokenizer = byte_tokenizer()
    model = tiny(vocab_size=tokenizer.vocab_size, n_positions=64)
    return save_pretrained(model, tmp_path_factory.mktemp("cli") / "bytes", tokenizer)


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch):
    """Run a command line in this process → exit code, standard output, standard error."""

    def run(*args: object, stdin: bytes = b"") -> tuple[int, str, str]:
        class Input:
            buffer = __import__("io").BytesIO(stdin)
            isatty = staticmethod(lambda: False)

        monkeypatch.setattr(sys, "stdin", Input)
        with pytest.raises(SystemExit) as ended:
            cli.main([str(arg) for arg in args])
        out, err = capfdbinary.readouterr()
        return ended.value.code, out.decode("utf-8"), err.decode("utf-8")

    return run


def write(run, folder: Path, *args: object, **options: object) -> str:
    """`gpt2 generate` that must succeed → its standard output."""
    code, out, err = run("generate", "--model", folder, *args, **options)
    assert code == 0, err
    return out


# ------------------------------------------------------------------------------------------- text


def test_prompt_and_continuation(run, folder: Path) -> None:
    """Catches a text that differs from what `generate` makes of the same tokens."""
    tokenizer = byte_tokenizer()
    model = tiny(vocab_size=tokenizer.vocab_size, n_positions=64)
    ids = torch.tensor([tokenizer.encode("To be")])
    new = generate(model, ids, 20, temperature=0.0, eos_token_id=tokenizer.eos_token_id)
    kept = [i for i in new[0].tolist() if i != tokenizer.eos_token_id]
    args = ("--prompt", "To be", "--max-new-tokens", 20, "--temperature", 0)
    assert write(run, folder, *args) == tokenizer.decode(kept) + "\n"
    assert write(run, folder, *args, "--no-cache") == tokenizer.decode(kept) + "\n"


def test_unicode_survives(run, folder: Path) -> None:
    """Catches a prompt that changes between the command line or standard input and the output."""
    none = ("--max-new-tokens", 0)
    assert write(run, folder, "--prompt", TEXT, *none) == TEXT + "\n"
    assert write(run, folder, *none, stdin=TEXT.encode()) == TEXT + "\n"
    assert write(run, folder, *none, stdin=b"\ta\r\nb\n\n") == "\ta\r\nb\n\n"  # one is dropped
    assert write(run, folder, *none, stdin=b"a\r\n") == "a\n"


def test_an_empty_prompt(run, folder: Path, tmp_path: Path) -> None:
    """Catches an empty tensor, and a start token that is printed."""
    assert write(run, folder, "--prompt", "", "--max-new-tokens", 0) == "\n"
    assert write(run, folder, stdin=b"") != "\n"
    chars = char_tokenizer("\nabc")
    model = save_pretrained(tiny(vocab_size=4), tmp_path / "chars", chars)
    out = write(run, model, "--prompt", "", "--max-new-tokens", 9)
    assert len(out) == 9 + 1
    assert command.start_ids(open_model(model), "") == [0]
    assert command.start_ids(open_model(folder), "") == [byte_tokenizer().eos_token_id]


def test_special_tokens_in_the_prompt_are_text(run, folder: Path) -> None:
    """Catches a prompt that can end the text."""
    text = "a<|endoftext|>b"
    assert write(run, folder, "--prompt", text, "--max-new-tokens", 0) == text + "\n"


def test_the_end_token_ends_the_text_and_is_not_printed(run, folder: Path, monkeypatch) -> None:
    """Catches `<|endoftext|>` on the screen."""
    end = byte_tokenizer().eos_token_id
    monkeypatch.setattr("gpt2.sampling.sample", lambda *_: torch.tensor([end]))
    code, out, err = run("generate", "--model", folder, "--prompt", "a")
    assert (code, out) == (0, "a\n")
    assert err.startswith("1 tokens in")


def test_seeds_and_samples(run, folder: Path) -> None:
    """Catches a seed that is ignored, and samples that are copies of each other."""
    args = ("--prompt", "be", "--max-new-tokens", 12, "--temperature", 1.5, "--seed")
    assert write(run, folder, *args, 1) == write(run, folder, *args, 1)
    assert write(run, folder, *args, 1) != write(run, folder, *args, 2)
    out = write(run, folder, *args, 1, "--num-samples", 3)
    head, *samples = re.split(r"--- sample \d of 3 ---\n", out)
    assert head == ""
    assert len(set(samples)) == 3
    assert samples[0] == write(run, folder, *args, 1)


def test_by_default_as_many_as_fit(run, folder: Path) -> None:
    """Catches a default that the model's context has no room for, with a prompt or without."""
    for args, count in ((["--prompt", "a" * 60], 4), (["--prompt", "a", "--sliding"], 100)):
        _, _, err = run("generate", "--model", folder, "--temperature", 0, *args)
        assert err.startswith(f"{count} tokens in")


def test_the_seed_can_be_read_and_used_again(run, folder: Path) -> None:
    """Catches a text that nobody can have back."""
    args = ("generate", "--model", folder, "--prompt", "be", "--temperature", 2)
    _, out, err = run(*args)
    seed = re.search(r"seed (\d+)", err)[1]
    assert run(*args, "--seed", seed)[1] == out


def test_every_option_at_once(run, folder: Path) -> None:
    """Catches an option that is not passed on, or is passed under another name."""
    seen = {}

    def stream(model, ids, n, **options):
        kernel = model.h[0].mlp.c_fc.forward.args[1]
        seen.update(options, n=n, dtype=model.ln_f.weight.dtype, read=kernel.weight.dtype)
        return iter(())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt2.generation.writing.stream", stream)
        args = "--max-new-tokens 7 --temperature 0.5 --top-k 4 --top-p 0.25 --no-cache --sliding"
        more = "--repetition-penalty 1.5 --dtype bfloat16 --device cpu --seed 3"
        write(run, folder, "--prompt", "a", *args.split(), *more.split())
    generator = seen.pop("generator")
    assert generator.initial_seed() == 3
    assert seen == {
        "n": 7,
        "dtype": torch.float32,  # for the prompt; what is read for each token is
        "read": torch.bfloat16,
        "temperature": 0.5,
        "top_k": 4,
        "top_p": 0.25,
        "repetition_penalty": 1.5,
        "use_cache": False,
        "sliding": True,
        "eos_token_id": byte_tokenizer().roles.eos,
        "never": [],
    }


def greedy(folder: Path, prompt: str = "To be", n: int = 40) -> str:
    """The folder's greedy text, without its prompt: the oracle."""
    tokenizer = byte_tokenizer()
    model = tiny(vocab_size=tokenizer.vocab_size, n_positions=64)
    ids = torch.tensor([tokenizer.encode(prompt)])
    return tokenizer.decode(generate(model, ids, n, temperature=0.0)[0, ids.size(1) :].tolist())


def test_stop_ends_the_text_before_itself(run, folder: Path) -> None:
    """Catches text behind a stop text on the screen, its beginning there, and a stop text that is
    looked for in the prompt.
    """
    args = ("--prompt", "To be", "--max-new-tokens", 40, "--temperature", 0)
    text = greedy(folder)
    assert write(run, folder, *args) == f"To be{text}\n"
    for at in (0, 3, 11):
        stop = text[at : at + 4]
        expected = f"To be{text[: text.index(stop)]}\n"
        assert write(run, folder, *args, "--stop", stop) == expected
        assert write(run, folder, *args, "--stop", "never there", "--stop", stop) == expected
        several = write(run, folder, *args, "--stop", stop, "--num-samples", 2)
        assert several == f"--- sample 1 of 2 ---\n{expected}--- sample 2 of 2 ---\n{expected}"
        assert write(run, folder, *args, "--stop", stop, "--draft", folder) == expected
    assert write(run, folder, *args, "--stop", "To be") == f"To be{text}\n"


def test_eos_names_an_end_token_by_number_or_text(run, folder: Path) -> None:
    """Catches a number read as text, a special token's name that is encoded, and an end token that
    is printed.
    """
    tokenizer, text = byte_tokenizer(), greedy(folder)
    args = ("--prompt", "To be", "--max-new-tokens", 40, "--temperature", 0, "--eos")
    ids = tokenizer.encode("To be")
    model = tiny(vocab_size=tokenizer.vocab_size, n_positions=64)
    new = generate(model, torch.tensor([ids]), 40, temperature=0.0)[0, len(ids) :].tolist()
    plain = next(i for i in new[4:] if tokenizer.token_bytes(i).isascii())
    before = tokenizer.decode(new[: new.index(plain)])
    assert write(run, folder, *args, plain) == f"To be{before}\n"
    assert write(run, folder, *args, tokenizer.decode([plain])) == f"To be{before}\n"
    assert write(run, folder, *args, "<|endoftext|>", "--eos", plain) == f"To be{before}\n"
    assert write(run, folder, *args, "<|endoftext|>") == f"To be{text}\n"
    for wrong, named in (
        ("100000", f"0 … {tokenizer.vocab_size - 1}"),
        ("qq", "is not one token but 2"),
        ("", "token"),
    ):
        code, out, err = run("generate", "--model", folder, *args, wrong)
        assert (code, out) == (1, "")
        assert named in one_line(err)


def test_prompts_of_a_file_side_by_side(run, folder: Path, tmp_path: Path) -> None:
    """Catches a byte-order mark or a carriage return in a prompt, texts in another order, and a
    prompt that gives another text in company.
    """
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfTo be\r\n\r\nquestion\r\nnot")
    args = ("--max-new-tokens", 9, "--temperature", 0)
    expected = [f"{p}{greedy(folder, p, 9)}\n" for p in ("To be", "question", "not")]
    heads = [f"--- prompt {i} of 3 ---\n" for i in (1, 2, 3)]
    out = write(run, folder, "--prompts", tmp_path / "p.txt", *args)
    assert out == "".join(head + text for head, text in zip(heads, expected, strict=True))
    out = write(run, folder, "--prompts", tmp_path / "p.txt", *args, "--num-samples", 2)
    assert out.count("sample 2 of 2") == 3
    assert out.startswith("--- prompt 1 of 3, sample 1 of 2 ---\nTo be")
    code, _, err = run("generate", "--model", folder, "--prompts", tmp_path / "none.txt")
    assert code == 1
    assert "none.txt" in one_line(err)
    (tmp_path / "empty.txt").write_bytes(b"\n\n")
    code, _, err = run("generate", "--model", folder, "--prompts", tmp_path / "empty.txt")
    assert code == 1
    assert "no prompt" in one_line(err)


def test_a_sample_is_the_text_of_its_own_seed(run, folder: Path, monkeypatch) -> None:
    """Catches samples that depend on how many there are, or on how many fit into memory."""
    args = ("--prompt", "be", "--max-new-tokens", 12, "--temperature", 1.5)
    alone = [write(run, folder, *args, "--seed", seed) for seed in (5, 6, 7)]
    expected = "".join(f"--- sample {i} of 3 ---\n{text}" for i, text in enumerate(alone, 1))
    assert write(run, folder, *args, "--seed", 5, "--num-samples", 3) == expected
    monkeypatch.setattr("gpt2.generation.writing.rows_at_once", lambda *_: 2)
    assert write(run, folder, *args, "--seed", 5, "--num-samples", 3) == expected


def test_a_draft_needs_the_same_tokens(run, folder: Path, tmp_path: Path) -> None:
    """Catches guesses of a model to which the numbers mean other words."""
    V = byte_tokenizer().vocab_size
    other = char_tokenizer([chr(0x4E00 + i) for i in range(V)])
    draft = save_pretrained(tiny(vocab_size=V), tmp_path / "other", other)
    args = ("generate", "--model", folder, "--prompt", "be", "--max-new-tokens", 5)
    code, _, err = run(*args, "--draft", draft)
    assert code == 1
    assert "token 0 is" in one_line(err)
    small = save_pretrained(tiny(vocab_size=7), tmp_path / "small", char_tokenizer("abcdefg"))
    code, _, err = run(*args, "--draft", small)
    assert code == 1
    assert f"has 7 tokens and {folder} {V}" in one_line(err)
    code, _, err = run(*args, "--draft", folder, "--repetition-penalty", 1.2)
    assert code == 1
    assert "repetition_penalty = 1.2" in one_line(err)
    assert run(*args, "--draft", folder, "--sliding")[0] == 2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_narrower_dtype_takes_the_engines_kernels(
    run, folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """Catches a model that is converted as a whole, which decodes slower than in float32."""
    from gpt2.inference import engine

    kernel = {"float16": engine.Half16, "bfloat16": engine.BFloat16}[dtype]
    calls = []
    plain = kernel.__call__
    monkeypatch.setattr(kernel, "__call__", lambda self, x: calls.append(1) or plain(self, x))
    write(run, folder, "--prompt", "a", "--max-new-tokens", 3, "--dtype", dtype, "--device", "cpu")
    assert calls


def test_text_comes_as_it_is_made(run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a command that prints all at the end."""
    written = []
    monkeypatch.setattr(click, "echo", lambda text="", **_: written.append(text))
    write(run, folder, "--prompt", "be", "--max-new-tokens", 10, "--seed", 1)
    assert written[0] == "be"
    assert len(written) > 5  # bytes of a character that is not finished yet are held back


# ----------------------------------------------------------------------------------------- errors


def one_line(err: str) -> str:
    assert err.startswith("gpt2: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--temperature", "hot"], "temperature"),
        (["--top-k", "0"], "top-k"),
        (["--top-p", "0"], "top-p"),
        (["--top-p", "1.5"], "top-p"),
        (["--top-p", "nan"], "top-p"),
        (["--repetition-penalty", "0"], "repetition-penalty"),
        (["--max-new-tokens", "-1"], "max-new-tokens"),
        (["--max-new-tokens", "x"], "max-new-tokens"),
        (["--num-samples", "0"], "num-samples"),
        (["--seed", "-1"], "seed"),
        (["--dtype", "int8"], "dtype"),
        (["--device", "tpu"], "device"),
        (["--wat"], "--wat"),
        (["extra"], "extra"),
    ],
)
def test_wrong_usage(run, args: list[str], named: str) -> None:
    """Catches exit code 1 or a traceback for a mistake in the command line."""
    code, out, err = run("generate", *args)
    assert code == 2
    assert out == ""
    assert named in err
    assert "Traceback" not in err


def test_no_such_command(run) -> None:
    """Catches a KeyError from the table of commands."""
    code, _, err = run("generat")
    assert code == 2
    assert "generat" in err


@pytest.mark.parametrize(
    ("args", "stdin", "named"),
    [
        (["--model", "gpt9"], b"a", "no model 'gpt9'"),
        (["--model", "./nowhere"], b"a", "no folder './nowhere'"),
        (["--prompt", "a b" * 99], b"", "n_positions = 64"),
        (["--prompt", "a", "--max-new-tokens", "64"], b"", "n_positions = 64"),
        ([], b"abc\xff", "byte 0xff at position 3"),
        ([], b"\xed\xa0\x80", "not valid UTF-8"),
        (["--prompt", "a\udcff"], b"", "surrogate"),
    ],
)
def test_failures_are_one_line(run, folder: Path, args: list, stdin: bytes, named: str) -> None:
    """Catches tracebacks, text on standard output before the error, and other exit codes."""
    code, out, err = run("generate", "--model", folder, *args, stdin=stdin)
    assert (code, out) == (1, "")
    assert named in one_line(err)


def test_a_vocabulary_of_another_model(run, tmp_path: Path) -> None:
    """Catches ids that the tokenizer has no text for, met halfway through a text: a table of 97
    rows for three characters, by every way to a text.
    """
    folder = save_pretrained(tiny(), tmp_path / "m", char_tokenizer("abc"))
    args = ("--prompt", "a", "--max-new-tokens", 12, "--temperature", 2)
    for more in ((), ("--num-samples", 3), ("--draft", folder), ("--temperature", 0)):
        out = write(run, folder, *args, *more)
        assert set(re.sub("---.*---", "", out)) <= set("abc\n")


def test_an_endless_standard_input(run, folder: Path) -> None:
    """Catches a prompt of any size read into memory and tokenized."""
    code, _, err = run("generate", "--model", folder, stdin=b"a" * (command.MAX_PROMPT_BYTES + 9))
    assert code == 1
    assert "bytes of prompt" in one_line(err)


def test_no_bundled_model(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches a bare FileNotFoundError in an installation without the model."""
    monkeypatch.setattr("gpt2.formats.bundled.__file__", str(tmp_path / "formats" / "bundled.py"))
    code, _, err = run("generate", "--prompt", "a")
    assert code == 1
    assert "--model" in one_line(err)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("two\nlines"), 1, "two lines"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (NotImplementedError("TODO 3: GPT2Model"), 1, "not finished: TODO 3"),
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried"), 1, "not enough memory"),
    ],
)
def test_what_ends_a_command(
    run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    """Catches an exception that reaches the user as a traceback, or with another exit code."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("gpt2.commands.models.open_named", fail)
    found, _, err = run("generate", "--prompt", "a")
    assert found == code
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_mistakes_of_our_own_keep_their_traceback(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a bug in this program hidden behind one friendly line."""
    monkeypatch.setattr("gpt2.commands.models.open_named", lambda name: {}["bug"])
    with pytest.raises(KeyError):
        cli.main(["generate", "--prompt", "a"])


# ------------------------------------------------------------------------- as a process of its own


def shell(*args: object, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "gpt2", *map(str, args)],
        capture_output=True,
        timeout=120,
        check=False,
        **options,
    )


def test_python_m_gpt2(folder: Path) -> None:
    """Catches a process that needs a UTF-8 terminal, or the package's folder as the current
    one.
    """
    done = shell(
        *("generate", "--model", folder, "--max-new-tokens", 3, "--seed", 1),
        input=TEXT.encode(),
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("utf-8").startswith(TEXT)
    assert b"tokens/s" in done.stderr


def test_help_imports_nothing_heavy() -> None:
    """Catches an import of torch that makes every `--help` slow."""
    for args in (["--help"], ["generate", "--help"], ["bench", "--help"]):
        code = f"import sys; from gpt2 import cli; cli.main({args})"
        code = f"import sys, atexit; atexit.register(lambda: print('torch' in sys.modules)); {code}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout.decode().splitlines()[-1] == "False"
        assert b"Usage: gpt2" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise on Windows")
def test_a_reader_that_leaves(folder: Path) -> None:
    """Catches a BrokenPipeError on the screen after `gpt2 generate | head -c 1`."""
    args = ["generate", "--model", folder, "--prompt", "a", "--max-new-tokens", 60]
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()  # long before torch is imported
    _, err = process.stderr.read(), process.wait(120)
    assert b"Traceback" not in _
    assert b"Exception ignored" not in _
    assert err == 1


def test_int8_reaches_the_layers(run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a flag that changes nothing, and one that is ignored next to another dtype."""
    from gpt2.inference.engine import Int8

    calls = []
    plain = Int8.__call__
    monkeypatch.setattr(Int8, "__call__", lambda self, x: calls.append(1) or plain(self, x))
    base = ("generate", "--model", folder, "--prompt", "a", "--max-new-tokens", 3)
    code, _, err = run(*base, "--quantize", "int8", "--device", "cpu")
    assert code == 0, err
    assert calls
    code, _, err = run(*base, "--quantize", "int8", "--dtype", "bfloat16", "--device", "cpu")
    assert code == 1
    assert "float32" in err


def test_an_adapter_changes_the_text(run, folder: Path, tmp_path: Path) -> None:
    """Catches --adapter that has no effect, in generate, eval's loader or export, and one that
    does not fit and is passed over.
    """
    import torch

    from gpt2.formats.adapters import write_adapter
    from gpt2.formats.opening import open_model
    from gpt2.inference.loading import load_model
    from gpt2.lora import adapter_state, add_lora

    model = load_model(open_model(folder))
    add_lora(model, 2, 5)
    torch.manual_seed(0)
    state = {k: torch.randn_like(v) for k, v in adapter_state(model).items()}
    adapter = write_adapter(tmp_path / "adapter", state, 5)
    base = ("--prompt", "a", "--max-new-tokens", 20, "--temperature", 0, "--device", "cpu")
    texts = []
    for more in ((), ("--adapter", adapter)):
        code, out, err = run("generate", "--model", folder, *base, *more)
        assert code == 0, err
        texts.append(out)
    assert texts[0] != texts[1]
    code, _, err = run("export", folder, "--adapter", adapter, "--out", tmp_path / "merged")
    assert code == 0, err
    code, out, err = run("generate", "--model", tmp_path / "merged", *base)
    assert (code, out) == (0, texts[1]), err
    code, _, err = run("generate", *base, "--adapter", adapter)  # the bundled model is wider
    assert code == 1
    assert "has the shape" in err or "lacks" in err


# ------------------------------------------------------------------------------------------ bench


def test_bench_prints_both_and_the_ratio(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a table without one of its figures; how fast it was is not a test."""
    monkeypatch.setattr(generation, "subject", lambda *_: tiny())
    monkeypatch.setattr(generation, "generate", lambda model, ids, n, **_: ids)
    code, out, err = run("bench", "cache", "--quick", "--rounds", 2)
    assert code == 0, err
    for line in (r"\| with cache \| [\d.]+ \|", r"\| without \| [\d.]+ \|.* 1\.00 \|", "torch 2"):
        assert re.search(line, out)
    assert run("bench", "nothing")[0] == 1


@pytest.mark.parametrize(("broken_by", "code"), [(KeyboardInterrupt, 130), (MemoryError, 1)])
def test_bench_keeps_what_it_has_measured(
    broken_by: type[BaseException],
    code: int,
    run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches tables lost with the measurement after them, and a path that is refused late."""
    curve = measuring.Curve("tokens", (1, 2), (3.0, 4.0), (3.0, 3.5))
    results = tuple(measuring.Result(name, (5.0, 7.0)) for name in ("ours", "theirs"))
    first = measuring.Table("A table", "tiny", "tokens/s", results, curve=curve)

    def breaks(**_: object) -> measuring.Table:
        raise broken_by

    measured = {"first": lambda **_: first, "second": breaks, "third": breaks}
    monkeypatch.setattr(registry, "measurements", lambda: measured)
    file, pictures = tmp_path / "new" / "a.json", tmp_path / "pictures"
    found, out, err = run("bench", "--json", file, "--plot", pictures)
    assert found == code
    assert first.markdown() in out
    assert json.loads(file.read_text(encoding="utf-8"))["tables"][0]["title"] == "A table"
    assert (pictures / "a-table.png").exists()
    if broken_by is KeyboardInterrupt:
        assert "Not measured: second third" in err
    for wrong in (("--json", pictures), ("--plot", file), ("--json", file / "b.json")):
        found, out, err = run("bench", *wrong)
        assert found in (1, 2)
        assert "Traceback" not in err
        assert "### " not in out
    assert f"no folder {file}" in err


def test_contenders_take_turns() -> None:
    """Catches rounds that run one contender after the other, and a warm-up that counts."""
    order = []
    contenders = [measuring.Contender(n, lambda n=n: order.append(n), 5) for n in "ab"]
    results = measuring.interleave(contenders, 3)
    assert "".join(order) == "ab" * 4
    assert [len(result.rates) for result in results] == [3, 3]
    table = measuring.Table(
        "t", "s", "x/s", (measuring.Result("a", (9, 6, 60)), measuring.Result("b", (3, 3, 1)))
    )
    assert table.ratio(table.results[0]) == 3
    assert "| a | 9.0 | 6.0 – 60.0 | 3.00 |" in table.markdown()
