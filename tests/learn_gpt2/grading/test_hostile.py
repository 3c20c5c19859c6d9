"""Input that means harm, in short: properties of the parsers, some cases of the fuzzer for each,
and what the fuzzer has found.
"""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_gpt2 import byte_tokenizer, char_tokenizer

from gpt2.cli import run
from gpt2.data.shards import TokenSource, read_index
from gpt2.formats.checkpoints import find_checkpoint, read_header, read_settings
from gpt2.formats.opening import load_tokenizer, open_model
from gpt2.generation.generating import filter_logits
from gpt2.sampling import next_token
from gpt2.text.tokenizers import StreamDecoder
from gpt2.training.evaluation import read_hellaswag
from gpt2.training.settings import TrainConfig, read_settings_file
from gpt2.training.trainer import resumed_config, train
from tests.fuzz import all_targets
from tests.fuzz.harness import CANARY, NAMED, Watch, try_case
from tests.fuzz.mutate import Mutator
from tests.fuzz.targets import ALPHABET, allowed_tokens, model_folder
from tests.training_helpers import make_data
from tests.training_helpers import settings as small_run

BRIEF = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)

# --------------------------------------------------------------------- what holds for every input

BYTES, CHARS = byte_tokenizer(), char_tokenizer(ALPHABET)


@BRIEF
@given(st.text())
def test_any_text_survives_byte_level_bpe(text: str) -> None:
    """Catches a character that is lost, changed or refused, whole or as it streams."""
    ids = BYTES.encode(text)
    assert BYTES.decode(ids) == text
    stream = StreamDecoder(BYTES)
    assert "".join(map(stream.push, ids)) + stream.finish() == text


@BRIEF
@given(st.text(alphabet=[*ALPHABET, "x", "🤖", "\ud800"]))
def test_a_character_tokenizer_encodes_its_own_characters_alone(text: str) -> None:
    """Catches unknown characters dropped in silence, and known ones refused."""
    if set(text) <= set(ALPHABET):
        assert CHARS.encode(text) == [ALPHABET.index(char) for char in text]
    else:
        with pytest.raises(ValueError, match=r"no token for|lone surrogate"):
            CHARS.encode(text)


@BRIEF
@given(
    seed=st.integers(0, 2**32),
    temperature=st.sampled_from([0.0, 1e-9, 0.3, 1.0, 7.0, 1e4]),
    top_k=st.none() | st.integers(1, 30),
    top_p=st.none() | st.floats(1e-6, 1.0),
    penalty=st.floats(1e-3, 1e3),
)
def test_filtering_agrees_with_plain_python(
    seed: int, temperature: float, top_k: int | None, top_p: float | None, penalty: float
) -> None:
    """Catches a token that may be drawn and should not be, and the other way round."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 17, generator=generator) * 4
    seen = torch.rand(2, 17, generator=generator) < 0.3
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    filtered = filter_logits(logits, **options, repetition_penalty=penalty, seen=seen)
    oracle = allowed_tokens(logits, seen, **options, repetition_penalty=penalty)
    rest = {"repetition_penalty": penalty, "seen": seen, "generator": generator}
    drawn = next_token(logits, **options, **rest)
    for row, token, (surely, perhaps) in zip(filtered, drawn, oracle, strict=True):
        kept = set(row.isfinite().nonzero()[:, 0].tolist())
        assert surely <= kept <= perhaps
        assert int(token) in kept


@BRIEF
@given(tree=JSON)
def test_any_json_is_refused_by_name(
    tree: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Catches any other exception than a ValueError that names the file."""
    folder = tmp_path_factory.getbasetemp() / "any-json"
    folder.mkdir(exist_ok=True)
    text = json.dumps(tree)
    for name in ("config.json", "index.json", "hellaswag.jsonl"):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text.encode())
    for read, path, named in (
        (read_settings, folder / "config.json", "config.json"),
        (read_index, folder, "index.json"),
        (read_hellaswag, folder / "hellaswag.jsonl", "hellaswag.jsonl"),
    ):
        with pytest.raises(ValueError, match=named):
            read(path)
    try:
        found = read_header(folder / "x.safetensors")
    except ValueError as error:
        assert "x.safetensors" in str(error)  # noqa: PT017 (no tensors at all is a whole file)
    else:
        assert found == {}


@BRIEF
@given(
    numbers=st.dictionaries(
        st.sampled_from(list(TrainConfig.__dataclass_fields__)), st.integers(-3, 2**70)
    )
)
def test_settings_come_back_from_toml(
    numbers: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Catches a setting that is read as another, or not at all."""
    path = tmp_path_factory.getbasetemp() / "run.toml"
    path.write_text("\n".join(f"{k} = {v}" for k, v in numbers.items()), encoding="utf-8")
    found = read_settings_file(path)
    assert found == numbers
    try:
        config = TrainConfig(**found)
    except ValueError as error:
        assert any(name in str(error) for name in numbers)  # noqa: PT017
    else:
        assert all(getattr(config, name) == value for name, value in numbers.items())


@BRIEF
@given(
    shards=st.lists(
        st.lists(st.integers(0, 70_000), min_size=1, max_size=9), min_size=1, max_size=4
    ),
    vocab_size=st.integers(1, 80_000),
)
def test_shards_hold_what_was_put_in(
    shards: list[list[int]], vocab_size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Catches a token lost at a shard's edge, and an id beyond the vocabulary let through."""
    folder = tmp_path_factory.getbasetemp() / "shards"
    folder.mkdir(exist_ok=True)
    dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
    listed = []
    for i, ids in enumerate(shards):
        ids[:] = [token % (1 << 16) for token in ids] if dtype == "uint16" else ids
        np.save(folder / f"train-{i}.npy", np.array(ids, dtype))
        listed.append({"file": f"train-{i}.npy", "tokens": len(ids)})
    everything = [token for ids in shards for token in ids]
    split = {"tokens": len(everything), "bytes": 1, "shards": listed}
    index = {"format": "gpt2-token-shards", "dtype": dtype, "vocab_size": vocab_size}
    index |= {"tokenizer": "char", "source": {}, "splits": {"train": split}}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    source = TokenSource(read_index(folder), "train")
    if max(everything) < vocab_size:
        assert source.read(0, source.tokens).tolist() == everything
    else:
        with pytest.raises(ValueError, match="the vocabulary ends at"):
            source.read(0, source.tokens)


# ------------------------------------------------------------------------- the fuzzer, for seconds


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """What a case touches; an audit hook stays for good, so there is one."""
    return Watch(tmp_path_factory.mktemp("fuzz"))


NAMES = [name for name, target in all_targets().items() if not hasattr(target, "most")]


@pytest.mark.parametrize("name", NAMES)
def test_some_cases_of_the_fuzzer(name: str, watch: Watch, monkeypatch) -> None:
    """Catches for each parser what a few hostile inputs bring out; `make fuzz` tries thousands."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MPLCONFIGDIR", str(watch.scratch / "home"))
    monkeypatch.delenv("FUZZ_TIKTOKEN", raising=False)
    kept = watch.scratch / f"valid-{NAMES.index(name)}"
    kept.mkdir()
    target = all_targets()[name](kept)
    count = 12 if name in ("commands", "training state") else 30
    results = [try_case(target, 3, number, watch.scratch, watch) for number in range(count)]
    assert [r for r in results if r["verdict"] == "failed"] == []
    assert sum(r["deep"] for r in results) > count / 3  # most get past the first check


def test_the_fuzzer_sees_what_it_looks_for(watch: Watch) -> None:
    """Catches a watch that sleeps: code from data, files beside the folder, wrong exceptions."""

    class Careless(all_targets()["config.json"]):
        def make(self, m: Mutator, folder: Path) -> str:
            return m.rng.choice(("pickle", "outside", "read", "type", "silent"))

        def check(self, given: str, folder: Path) -> None:
            if given == "pickle":
                assert pickle.loads(pickle.dumps(len)) is len
            elif given == "outside":
                (folder.parent / "x").write_text("x", encoding="utf-8")
            elif given == "read":
                assert (folder.parent / "canary.txt").read_text(encoding="utf-8") == CANARY
            elif given == "type":
                raise KeyError("x")
            else:
                raise ValueError("no")

    kept = watch.scratch / "careless"
    kept.mkdir()
    target = Careless(kept)
    results = [try_case(target, 0, number, watch.scratch, watch) for number in range(30)]
    assert {result["verdict"] for result in results} == {"failed"}
    assert len({result["message"][:12] for result in results}) >= 5
    assert NAMED == "named"


# ------------------------------------------------------------------------ what the fuzzer has found


def refused(read, *arguments: object) -> str:
    """The message of the ValueError."""
    with pytest.raises(ValueError, match=r".") as caught:
        read(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        '{"ctx": "a", "endings": "abcd", "label": 0}',  # four letters are four texts
        '{"ctx": "a", "endings": ["b", "c", "d", "e"], "label": 2.7}',  # was taken as 2
        '{"ctx": "a", "endings": ["b", "c", "d", "e"], "label": true}',  # was taken as 1
        '{"ctx": "a", "endings": ["b", "c", "d", "e"], "label": 1e999}',  # an OverflowError
    ],
)
def test_hellaswag_takes_nothing_for_something_else(tmp_path: Path, line: str) -> None:
    """Catches examples made of what is not a list and no label."""
    (tmp_path / "h.jsonl").write_text(line, encoding="utf-8")
    assert "h.jsonl, line 1" in refused(read_hellaswag, tmp_path / "h.jsonl")


@pytest.mark.parametrize("shape", ["(" * 3000 + ")" * 3000, "[" * 120, "-" * 9000 + "1"])
def test_a_shards_header_is_no_program(tmp_path: Path, shape: str) -> None:
    """Catches the errors of Python's own parser, which NumPy reads headers with."""
    target = all_targets()["token shards"](tmp_path)
    text = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}}}"
    for name, data in target.shards.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "train-00000.npy").write_bytes(target.header(text, b""))
    (tmp_path / "index.json").write_text(json.dumps(target.index), encoding="utf-8")
    message = refused(TokenSource, read_index(tmp_path), "train")
    assert "train-00000.npy" in message
    assert len(message) < 500


def test_an_index_does_not_open_the_folder_above(tmp_path: Path) -> None:
    """Catches `..` as a shard's name."""
    index = json.loads(json.dumps(all_targets()["token shards"](tmp_path).index))
    index["splits"]["val"]["shards"][0]["file"] = ".."
    (tmp_path / "index.json").write_text(json.dumps(index), encoding="utf-8")
    assert "outside its folder" in refused(read_index, tmp_path)


def test_merges_that_make_no_new_token(tmp_path: Path) -> None:
    """Catches a pair listed twice (tiktoken's panic), or of tokens that do not exist yet, read
    otherwise than Hugging Face's library reads it.
    """
    from tokenizers import ByteLevelBPETokenizer

    target = all_targets()["vocab/merges"](tmp_path)
    (tmp_path / "tokenizer.json").unlink(missing_ok=True)

    def write(merges: list[tuple[str, str]], more: str = "") -> None:
        vocab, lines = target.files(merges)
        (tmp_path / "merges.txt").write_text(lines + more, encoding="utf-8")
        (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")

    write([("a", "b"), ("a", "b")])
    assert "one id to two tokens" in refused(load_tokenizer, tmp_path)
    write([("ab", "c"), ("a", "b")])
    theirs = ByteLevelBPETokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    text = "abc the cab, a b"
    assert load_tokenizer(tmp_path).encode(text) == theirs.encode(text).ids
    write([("ab", "c"), ("a", "b")], "x y\n")
    assert "does not make a new token" in refused(load_tokenizer, tmp_path)


DOUBLE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
WIDEN = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "Sequence", "normalizers": [DOUBLE] * 60}}, "has a normalizer"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [WIDEN] * 60}}, "60 of them"),
        ({"added_tokens": [{"id": 2**31, "content": "x"}]}, "has a token 2147483648"),
    ],
)
def test_a_tokenizer_cannot_fill_the_memory(tmp_path: Path, change: dict, message: str) -> None:
    """Catches text doubled sixty times, and a table of 2³¹ ids."""
    char_tokenizer(ALPHABET).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    described = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps(described), encoding="utf-8")
    assert message in refused(load_tokenizer, tmp_path)


def test_encoding_is_not_random(tmp_path: Path) -> None:
    """Catches BPE dropout, a setting for training, left on."""
    byte_tokenizer().save(tmp_path)
    path = tmp_path / "tokenizer.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    described["model"]["dropout"] = 0.9
    path.write_text(json.dumps(described), encoding="utf-8")
    assert load_tokenizer(tmp_path).encode("the question " * 9) == BYTES.encode("the question " * 9)


def test_weights_that_are_no_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a RuntimeError from comparing NaN with NaN when the model is prepared."""
    from gpt2.cli import cli
    from gpt2.formats.checkpoints import save_pretrained

    model = model_folder(tmp_path)
    with torch.no_grad():
        model.ln_f.weight.fill_(math.nan)
    save_pretrained(model, tmp_path)
    assert run(cli, "gpt2", ["generate", "--model", str(tmp_path), "--prompt", "abc"]) == 1
    assert "not finite" in capsys.readouterr().err


def test_a_config_that_transformers_refuses(tmp_path: Path) -> None:
    """Catches a traceback of the oracle's for a field that this GPT-2 does not read."""
    from gpt2.validation.oracle import ask_transformers

    model_folder(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"eos_token_id": ["x"]}
    path.write_text(json.dumps(config), encoding="utf-8")
    try:
        ask_transformers(open_model(tmp_path))  # older versions take it
    except ValueError as error:
        assert "transformers cannot load" in str(error)  # noqa: PT017


def test_a_home_that_nobody_has() -> None:
    """Catches pathlib's RuntimeError for `~somebody`."""
    assert "~nobody-of-that-name" in refused(find_checkpoint, "~nobody-of-that-name/x")
    assert "no model" in refused(find_checkpoint, "x" * 9000)  # an OSError of pathlib's


def test_a_message_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Catches control characters and pages of text from a file or an argument in an error."""
    import click

    @click.command()
    def command() -> None:
        raise ValueError("\x1b[2J" + "x" * 9000)

    assert run(command, "gpt2", []) == 1
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert len(said) < 2000


def test_a_checkpoint_does_not_say_where_to_write(tmp_path: Path) -> None:
    """Catches a resumed run that prepares data wherever its training.json says."""
    data = make_data(tmp_path, 400)
    train(small_run(data, max_steps=4), tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "step-00000004" / "training.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state["config"]["data"] = str(tmp_path / "elsewhere")
    path.write_text(json.dumps(state), encoding="utf-8")
    config = resumed_config(tmp_path / "run", {"max_steps": 5})
    with pytest.raises(ValueError, match="which is not there"):
        train(config, tmp_path / "run", resume=True)
    assert not (tmp_path / "elsewhere").exists()
    state["config"]["data"] = "x" * 9000  # an OSError
    path.write_text(json.dumps(state), encoding="utf-8")
    config = resumed_config(tmp_path / "run", {"max_steps": 5})
    assert len(refused(lambda: train(config, tmp_path / "run", resume=True))) < 500
    for change in ({"total_batch_tokens": "x"}, {"config": {"lr": math.nan}}):
        path.write_text(json.dumps(state | change), encoding="utf-8")
        assert "training.json" in refused(resumed_config, tmp_path / "run", {})


@pytest.mark.parametrize("settings", [{"lr": 10**400}, {"max_steps": 10**400}, {"lr": "x" * 9000}])
def test_settings_beyond_any_number(settings: dict) -> None:
    """Catches an OverflowError for what no float holds, and pages of text in a message."""
    assert len(refused(lambda: TrainConfig(**settings))) < 300


# ------------------------------------------------------------------------------- claims of a size

CLAIMS = """
import resource, sys
from pathlib import Path
import torch
from gpt2.model import GPT2Model
taken = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (taken + 2**28, -1))
try:
    GPT2Model.from_pretrained(sys.argv[1])
except ValueError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a ceiling on address space")
@pytest.mark.parametrize("claim", ["vocabulary", "layers", "header", "tensor"])
def test_a_claim_of_a_size_allocates_nothing(tmp_path: Path, claim: str) -> None:
    """Catches memory taken because a file says so; the process has 256 MiB more than torch."""
    model_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    data = (tmp_path / "model.safetensors").read_bytes()
    if claim == "vocabulary":
        config["vocab_size"] = 2**31 - 1
    elif claim == "layers":
        config["n_layer"] = 2**31 - 1
    elif claim == "header":
        data = (10**18).to_bytes(8, "little") + data[8:]
    else:
        header = json.dumps(
            {"wte.weight": {"dtype": "F32", "shape": [10**18], "data_offsets": [0, 4 * 10**18]}}
        ).encode()
        data = len(header).to_bytes(8, "little") + header
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", CLAIMS, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("refused:"), done.stderr[-500:]
