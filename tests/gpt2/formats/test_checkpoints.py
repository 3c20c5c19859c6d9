"""Checkpoints: what is written is what is read, by us and by Hugging Face; the rest is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_gpt2 import char_tokenizer, hugging_face, prompt, tiny
from torch import nn

from gpt2.formats.checkpoints import (
    MAX_HEADER_BYTES,
    open_checkpoint,
    read_header,
    save_pretrained,
    skip_init,
)
from gpt2.formats.gguf import save_gguf
from gpt2.formats.opening import load_tokenizer
from gpt2.model import GPT2Model
from gpt2.text.roles import Roles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good checkpoint to spoil."""
    return save_pretrained(tiny(), tmp_path / "model")


def edit(folder: Path, **fields: object) -> None:
    """Change fields of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def write_header(path: Path, header: object, data: bytes = b"", length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + text + data)


# ------------------------------------------------------------------------------------ round trips


def test_save_and_load_give_the_same_model(folder: Path) -> None:
    """Catches a tensor that is lost, transposed twice or left at its initial value."""
    ours, again = tiny(), GPT2Model.from_pretrained(folder)
    for (name, a), (_, b) in zip(ours.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert again.config == ours.config
    assert again.lm_head.weight is again.embeddings.wte.weight
    assert not again.training


def test_transformers_loads_what_we_save(tmp_path: Path) -> None:
    """Catches wrong keys or orientation, and a config that means another model to them."""
    from transformers import AutoModelForCausalLM

    ours = tiny()
    model, info = AutoModelForCausalLM.from_pretrained(
        save_pretrained(ours, tmp_path / "m"), output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(prompt()).logits, ours(prompt()))


def test_we_load_what_transformers_saves(tmp_path: Path) -> None:
    """Catches a reader that only understands our own files."""
    theirs = hugging_face()
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        ours = GPT2Model.from_pretrained(tmp_path)(prompt())
        torch.testing.assert_close(ours, theirs(prompt()).logits)


def test_shards(tmp_path: Path) -> None:
    """Catches a reader of one file only; transformers cuts the model into several."""
    theirs = hugging_face()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    with torch.no_grad():
        ours = GPT2Model.from_pretrained(tmp_path)(prompt())
        torch.testing.assert_close(ours, theirs(prompt()).logits)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_old_layouts(folder: Path, prefix: str) -> None:
    """Catches a reader that needs the prefix, trips over a stored head or over mask buffers."""
    tensors = {key.replace("transformer.", prefix): t for key, t in weights(folder).items()}
    tensors["lm_head.weight"] = tensors[f"{prefix}wte.weight"].clone()
    for i in range(3):
        tensors[f"{prefix}h.{i}.attn.bias"] = torch.ones(1, 1, 23, 23, dtype=torch.uint8).tril()
        tensors[f"{prefix}h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, folder / "model.safetensors")
    assert torch.equal(GPT2Model.from_pretrained(folder)(prompt()), tiny()(prompt()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_disk(tmp_path: Path, dtype: torch.dtype) -> None:
    """Catches a file that stays float32, and weights that are not widened when loaded."""
    folder = save_pretrained(tiny(), tmp_path / "half", dtype=dtype)
    assert {t.dtype for t in weights(folder).values()} == {dtype}
    assert json.loads((folder / "config.json").read_text())["dtype"] == str(dtype)[6:]
    loaded = GPT2Model.from_pretrained(folder)
    assert loaded.ln_f.weight.dtype == torch.float32
    expected = tiny().h[1].mlp.c_fc.weight.to(dtype).float()
    assert torch.equal(loaded.h[1].mlp.c_fc.weight, expected)
    assert GPT2Model.from_pretrained(folder, dtype=dtype).ln_f.weight.dtype == dtype


def test_through_us_and_back(tmp_path: Path) -> None:
    """Catches a bit lost on the way from Hugging Face's files through ours to theirs."""
    from transformers import GPT2LMHeadModel

    theirs = hugging_face()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    ours = GPT2Model.from_pretrained(tmp_path / "theirs")
    again = GPT2LMHeadModel.from_pretrained(save_pretrained(ours, tmp_path / "ours")).eval()
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    with torch.no_grad():
        assert torch.equal(again(prompt()).logits, theirs(prompt()).logits)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_files_follow_the_umask(tmp_path: Path) -> None:
    """Catches weights that only their owner can read, as safetensors writes them."""
    old = os.umask(0o027)
    try:
        folder = save_pretrained(tiny(), tmp_path / "m", char_tokenizer("abc"))
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_loading_needs_no_transformers(folder: Path, tmp_path: Path) -> None:
    """Catches an import of transformers (seconds, 200 MB) on the way to a model."""
    program = (
        "import sys; from gpt2.model import GPT2Model\n"
        "for path in sys.argv[1:]: GPT2Model.from_pretrained(path)\n"
        "print('transformers' in sys.modules)"
    )
    file = save_gguf(tiny(), tmp_path / "m.gguf", type="q8_0")
    done = subprocess.run(
        [sys.executable, "-c", program, folder, file], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


# ---------------------------------------------------------------------------------- a training run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a run's folder looks like; every model in it is another one."""
    run = tmp_path / "run"
    save_pretrained(tiny(seed=1), run / "best", char_tokenizer("".join(map(chr, range(32, 129)))))
    for seed, step in ((2, 250), (3, 100_000_000)):
        save_pretrained(tiny(seed=seed), run / "checkpoints" / f"step-{step:08d}")
    (run / "checkpoints" / ".writing-step-999999999-1").mkdir()
    return run


def test_a_run_stands_for_its_best_checkpoint(run: Path) -> None:
    """Catches a run's folder refused, or answered with another checkpoint than the best one."""
    assert torch.equal(GPT2Model.from_pretrained(run)(prompt()), tiny(seed=1)(prompt()))
    assert load_tokenizer(run).vocab_size == 97


def test_a_run_without_a_best_one_stands_for_its_last(run: Path) -> None:
    """Catches steps ordered as text (100000000 before 250), and half-written folders taken."""
    shutil.rmtree(run / "best")
    for path in (run, run / "checkpoints", run / "checkpoints" / "step-100000000"):
        assert torch.equal(GPT2Model.from_pretrained(path)(prompt()), tiny(seed=3)(prompt()))


def test_an_empty_run_says_what_is_missing(tmp_path: Path) -> None:
    """Catches a StopIteration or a message about another folder."""
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match=r"has no config\.json"):
        GPT2Model.from_pretrained(tmp_path)


# --------------------------------------------------------------------------------- what was written


def test_saving_over_a_folder_keeps_its_other_files(folder: Path) -> None:
    """Catches a save that clears the folder, leaves rubbish behind, or keeps old weights."""
    (folder / "notes.md").write_text("mine")
    save_pretrained(tiny(seed=5), folder)
    assert (folder / "notes.md").read_text() == "mine"
    assert torch.equal(GPT2Model.from_pretrained(folder)(prompt()), tiny(seed=5)(prompt()))
    assert not [path.name for path in folder.parent.rglob(".*")]


def test_a_save_that_fails_leaves_the_old_files(folder: Path) -> None:
    """Catches writing straight into the folder: half a checkpoint is worse than none."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    class Broken:
        roles = Roles()

        def save(self, folder: Path) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_pretrained(tiny(seed=5), folder, Broken())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_end_token_is_the_tokenizers(tmp_path: Path) -> None:
    """Catches GPT-2's 50256 written for a vocabulary that has no such token."""
    folder = save_pretrained(tiny(), tmp_path / "a")
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] is None
    folder = save_pretrained(tiny(), tmp_path / "b", char_tokenizer("abc", end_of_text=True))
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == 3
    assert (folder / "tokenizer.json").is_file()


# ------------------------------------------------------------------------------- lazy, and no noise


def test_tensors_are_read_one_by_one(folder: Path) -> None:
    """Catches a mapping that reads all of the file to give one tensor's name."""
    settings, tensors = open_checkpoint(folder)
    assert settings["n_embd"] == 20
    assert len(tensors) == 4 + 12 * 3
    (folder / "model.safetensors").unlink()  # (a mapping that is open would survive this)
    assert "transformer.wte.weight" in tensors
    with pytest.raises((ValueError, OSError)):
        tensors["transformer.wte.weight"]


def test_skip_init_draws_nothing() -> None:
    """Catches random numbers spent on weights about to be replaced, and lost ones and zeros."""
    before = torch.random.get_rng_state()
    with skip_init():
        model = GPT2Model(tiny().config)
        assert torch.equal(model.ln_f.weight, torch.ones(20))
        assert torch.equal(nn.Linear(3, 5, bias=False).weight.new_zeros(2), torch.zeros(2))
    tiny(seed=3)
    torch.random.set_rng_state(before)
    expected = torch.rand(3)
    torch.random.set_rng_state(before)
    with skip_init():
        GPT2Model(model.config)
        nn.Linear(3, 5)
        torch.empty(4).normal_()
        torch.empty(4).uniform_(2, 3)
    assert torch.equal(torch.rand(3), expected)
    assert nn.Linear(30, 50).weight.std() > 0  # and afterwards all is as ever


@pytest.mark.filterwarnings("ignore:mean is more than 2 std")
@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (3.0, 4.0)])
def test_skip_init_ends_rejection_sampling(bounds: tuple[float, float]) -> None:
    """Catches a no-op under `trunc_normal_`, which draws until every value lies in bounds."""

    def run() -> None:
        with skip_init():
            nn.init.trunc_normal_(torch.full((9,), 99.0), a=bounds[0], b=bounds[1])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


# ----------------------------------------------------------------------------------- hostile input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "llama"),
        ("model_type", None),
        ("activation_function", "relu"),
        ("activation_function", "gelu"),
        ("n_inner", 81),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("add_cross_attention", True),
        ("tie_word_embeddings", False),
        ("quantization_config", {"bits": 4}),
        ("n_embd", "20"),
        ("n_embd", 20.0),
        ("n_layer", 0),
        ("n_layer", True),
        ("n_head", -5),
        ("vocab_size", None),
        ("vocab_size", 10**400),
        ("resid_pdrop", 1.5),
        ("resid_pdrop", float("nan")),
        ("layer_norm_epsilon", 0),
        ("layer_norm_epsilon", "1e-5"),
    ],
)
def test_a_config_of_another_model_is_refused(folder: Path, field: str, value: object) -> None:
    """Catches a model that loads and computes something else than its config says."""
    edit(folder, **{field: value})
    with pytest.raises(ValueError, match=field):
        GPT2Model.from_pretrained(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("activation_function", "gelu_pytorch_tanh"),
        ("n_inner", 80),
        ("reorder_and_upcast_attn", True),
    ],
)
def test_a_config_that_means_the_same_is_read(folder: Path, field: str, value: object) -> None:
    """Catches checks that are stricter than the arithmetic."""
    edit(folder, **{field: value})
    assert torch.equal(GPT2Model.from_pretrained(folder)(prompt()), tiny()(prompt()))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"n_layer": 4}, r"h\.3\."),
        ({"n_layer": 2**30}, "n_layer"),
        ({"n_layer": 2}, r"unexpected transformer\.h\.2\."),
        ({"vocab_size": 98}, r"wte\.weight"),
        ({"n_positions": 2**30}, r"wpe\.weight"),
        ({"n_embd": 25}, "n_embd"),
        ({"n_head": 3}, "n_head"),
    ],
)
def test_a_config_that_does_not_fit_the_weights(
    folder: Path, fields: dict[str, int], named: str
) -> None:
    """Catches a model built to a config's claim (2³⁰ blocks) before it was compared with the
    file.
    """
    edit(folder, **fields)
    with pytest.raises(ValueError, match=named):
        GPT2Model.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("transformer.h.1.mlp.c_fc.bias"), r"missing h\.1\.mlp\.c_fc\.bias"),
        (lambda t: t.pop("transformer.wte.weight"), r"missing wte\.weight"),
        (lambda t: t.update(extra=torch.ones(2)), "unexpected extra"),
        (lambda t: t.update({"transformer.ln_f.bias": torch.ones(1)}), r"ln_f\.bias"),
        (
            lambda t: t.update({"transformer.h.0.attn.c_attn.weight": torch.ones(60, 20)}),
            r"h\.0\.attn\.c_attn\.weight",
        ),
        (lambda t: t.update({"lm_head.weight": torch.ones(97, 20)}), r"lm_head\.weight differs"),
        (lambda t: t.update({"transformer.ln_f.bias": torch.ones(20).long()}), "I64"),
    ],
)
def test_wrong_tensors_are_named(folder: Path, change, named: str) -> None:
    """Catches a tensor that is missing, extra, misshapen, broadcast, untied or no float, and
    passes.
    """
    tensors = weights(folder)
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=named):
        GPT2Model.from_pretrained(folder)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file(folder: Path, missing: str) -> None:
    """Catches an error that doesn't say which file."""
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=rf"has no {missing}"):
        GPT2Model.from_pretrained(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"gpt2"', b"\xff\xfe", b"[" * 200_000, b'{"n_embd": 1e999']
)
def test_a_config_that_is_no_object(folder: Path, content: bytes) -> None:
    """Catches JSON's own exceptions, RecursionError among them, on their way to the user."""
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        GPT2Model.from_pretrained(folder)


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_truncated_weights(folder: Path, keep: int) -> None:
    """Catches a file cut short anywhere: before the header, in it, in the data."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a whole safetensors file"):
        GPT2Model.from_pretrained(folder)


def test_weights_with_more_behind_them(folder: Path) -> None:
    """Catches data that the header doesn't know of."""
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match="the file holds"):
        GPT2Model.from_pretrained(folder)


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (b"PK\x03\x04" + bytes(60), "pickle"),
        (pickle.dumps({"a": 1}) + bytes(60), "pickle"),
        (b"GGUF" + bytes(60), "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (bytes(64), "header"),
        (b"\xff" * 64, "header"),
    ],
)
def test_foreign_weights(folder: Path, start: bytes, named: str) -> None:
    """Catches a reader that guesses at another format, or reports it as noise."""
    (folder / "model.safetensors").write_bytes(start)
    with pytest.raises(ValueError, match=named):
        GPT2Model.from_pretrained(folder)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 0x3C, 0x13C, 0x10280])
def test_a_header_whose_length_looks_like_another_format(tmp_path: Path, length: int) -> None:
    """Catches a whole file refused because the first bytes of its header's length are those of a
    pickle (0x80 0x02) or of a web page (<).
    """
    path = tmp_path / "a.safetensors"
    header = json.dumps({"a": F32}, separators=(",", ":")).encode().ljust(length)
    path.write_bytes(struct.pack("<Q", length) + header + bytes(8))
    assert len(header) == length
    assert read_header(path)["a"].shape == (2,)


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b"null",
        b'{"a": 1, "a": 2}',
        b'{"a": {"dtype": "F32", "shape": [1' + b"0" * 5000 + b'], "data_offsets": [0, 8]}}',
        {"a": 1},
        {"a": {}},
        {"a": F32 | {"dtype": "F99"}},
        {"a": F32 | {"dtype": ["F32"]}},
        {"a": F32 | {"shape": [10**18]}},
        {"a": F32 | {"shape": [10**18], "data_offsets": [0, 4 * 10**18]}},
        {"a": F32 | {"shape": [2**62] * 8}},
        {"a": F32 | {"shape": [-2]}},
        {"a": F32 | {"shape": [2.0]}},
        {"a": F32 | {"shape": [True, 2]}},
        {"a": F32 | {"shape": "2"}},
        {"a": F32 | {"data_offsets": [8, 0]}},
        {"a": F32 | {"data_offsets": [0]}},
        {"a": F32 | {"data_offsets": [0, 8, 8]}},
        {"a": F32 | {"data_offsets": [4, 12]}},
        {"a": F32, "b": F32},
        {"a" * 10_000: F32 | {"shape": [3]}},
    ],
)
def test_a_lying_header(tmp_path: Path, header: object) -> None:
    """Catches a header believed: 10¹⁸ numbers allocated, offsets outside the file, overlaps."""
    path = tmp_path / "a.safetensors"
    write_header(path, header, bytes(8))
    with pytest.raises(ValueError, match=r"a\.safetensors is not a whole") as caught:
        read_header(path)
    assert len(str(caught.value)) < 600


def test_a_header_too_large_to_read(tmp_path: Path) -> None:
    """Catches a header of any length read into memory (the file is sparse, and takes none)."""
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(2 * MAX_HEADER_BYTES)
    with pytest.raises(ValueError, match="header claims"):
        read_header(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.update({"lm_head.weight": "../secret.safetensors"}), "is not the name"),
        (lambda m: m.update({"lm_head.weight": "/etc/passwd"}), "is not the name"),
        (lambda m: m.update({"lm_head.weight": 7}), "is not the name"),
        (lambda m: m.update({"more": "model.safetensors"}), "has no model"),
        (lambda m: m.update({"transformer.more": min(m.values())}), "is not there"),
        (lambda m: m.pop("transformer.ln_f.bias"), "does not list"),
        (lambda m: m.clear(), "weight_map"),
    ],
)
def test_an_index_that_lies(tmp_path: Path, change, named: str) -> None:
    """Catches shards taken from elsewhere on the disk, lost ones, and keys that are in none."""
    hugging_face().save_pretrained(tmp_path, max_shard_size="20KB")
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=named):
        GPT2Model.from_pretrained(tmp_path)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    """Catches a tensor taken from whichever file came last."""
    hugging_face().save_pretrained(tmp_path, max_shard_size="20KB")
    first, second, *_ = sorted(tmp_path.glob("*.safetensors"))
    key = next(iter(load_file(first)))
    save_file(load_file(second) | {key: load_file(first)[key]}, second)
    with pytest.raises(ValueError, match=f"both hold {key}"):
        GPT2Model.from_pretrained(tmp_path)


class Touch:
    """Unpickled, it would create a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors"])
def test_a_pickle_is_never_loaded(folder: Path, tmp_path: Path, name: str) -> None:
    """Catches code run from a weights file, whatever its name; the way to convert is said."""
    (folder / "model.safetensors").unlink()
    mark = tmp_path / "was here"
    (folder / name).write_bytes(pickle.dumps(Touch(mark)))
    with pytest.raises(ValueError, match=r"pickle.*save_pretrained"):
        GPT2Model.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"pickle.*save_pretrained"):
        GPT2Model.from_pretrained(folder / name)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["", "gpt3", "./nowhere", "/no/where", "a/b/c", "a b", "~/no", "\0"]
)
def test_unknown_models(name: str) -> None:
    """Catches a look-up on the network for what can be no name there, and a bare traceback."""
    with pytest.raises(ValueError, match=r"model|folder"):
        open_checkpoint(name)


def test_known_names_are_listed() -> None:
    """Catches an error that leaves a newcomer guessing."""
    with pytest.raises(ValueError, match="gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2"):
        open_checkpoint("gpt3")


# ----------------------------------------------------------------------- the hub, without a network


def fake_hub(monkeypatch: pytest.MonkeyPatch, download) -> list[tuple[str, str, dict]]:
    """Replace hf_hub_download → the calls that it got."""
    import huggingface_hub

    calls = []

    def hf_hub_download(repo: str, filename: str, **options: object) -> str:
        calls.append((repo, filename, options))
        return str(download(filename))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return calls


@pytest.mark.parametrize("sharded", [False, True])
def test_a_hub_name_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sharded: bool
) -> None:
    """Catches a wrong repository, lost options, and shards that are not fetched."""
    from huggingface_hub.errors import EntryNotFoundError

    hugging_face().save_pretrained(tmp_path, max_shard_size="20KB" if sharded else "5GB")

    def download(filename: str) -> Path:
        if not (tmp_path / filename).is_file():
            raise EntryNotFoundError(filename)
        return tmp_path / filename

    calls = fake_hub(monkeypatch, download)
    model = GPT2Model.from_pretrained("gpt2-xl", revision="abc", token="secret")
    assert torch.equal(model(prompt()), GPT2Model.from_pretrained(tmp_path)(prompt()))
    assert {repo for repo, _, _ in calls} == {"openai-community/gpt2-xl"}
    assert all(o["revision"] == "abc" and o["token"] == "secret" for _, _, o in calls)
    assert {path.name for path in tmp_path.glob("*.safetensors")} < {name for _, name, _ in calls}


def test_what_is_here_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a look-up on the network for files that were fetched before."""
    hugging_face().save_pretrained(tmp_path)
    calls = fake_hub(monkeypatch, lambda filename: tmp_path / filename)
    open_checkpoint("distilgpt2")
    assert all(options["local_files_only"] for _, _, options in calls)


def test_without_a_network_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches half a minute of retries where the hub's name cannot even be looked up."""
    import socket

    from huggingface_hub.errors import LocalEntryNotFoundError

    from gpt2.common import network

    def no_network(*args: object) -> None:
        raise OSError("Name or service not known")

    def download(filename: str) -> Path:
        raise http_error(LocalEntryNotFoundError)

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(network, "getproxies", dict)
    network.ask_once.cache_clear()
    calls = fake_hub(monkeypatch, download)
    with pytest.raises(ValueError, match="cannot be reached"):
        open_checkpoint("gpt2")
    assert [options["local_files_only"] for _, _, options in calls] == [True]


def http_error(kind: type[Exception]) -> Exception:
    """A hub error without a request behind it."""
    error = kind.__new__(kind)
    Exception.__init__(error, "from the hub")
    return error


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("RepositoryNotFoundError", "no model 'some/one'"),
        ("GatedRepoError", "gated"),
        ("RevisionNotFoundError", "no revision"),
        ("LocalEntryNotFoundError", "cannot be reached"),
        ("EntryNotFoundError", "no config.json"),
        ("HfHubHTTPError", "could not be fetched"),
    ],
)
def test_hub_errors(monkeypatch: pytest.MonkeyPatch, kind: str, named: str) -> None:
    """Catches the hub library's exceptions on their way to the user."""
    from huggingface_hub import errors

    def download(filename: str) -> Path:
        raise http_error(getattr(errors, kind))

    fake_hub(monkeypatch, download)
    with pytest.raises(ValueError, match=named):
        open_checkpoint("some/one", revision="x")


def test_without_the_hub_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an ImportError where a word on what to install is due."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.ModuleType("huggingface_hub"))
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        open_checkpoint("gpt2")


def test_no_memory_for_a_tensor_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback where a weight file can't be mapped any more."""
    import safetensors

    folder = save_pretrained(tiny(), tmp_path / "model")

    def full(*args: object, **options: object) -> None:
        raise RuntimeError("unable to mmap 5469776 bytes: Cannot allocate memory (12)")

    monkeypatch.setattr(safetensors, "safe_open", full)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*Cannot allocate memory"):
        GPT2Model.from_pretrained(folder)
