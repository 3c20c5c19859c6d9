"""`gpt2 validate`: a right model passes all twelve, and a wrong one fails where it is wrong."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_gpt2 import ROOT, byte_tokenizer, tiny, use_bpe
from torch import nn

import gpt2.generation.generating
import gpt2.sampling
from gpt2 import cli
from gpt2.formats.checkpoints import save_pretrained
from gpt2.model import GPT2Config, GPT2Model
from gpt2.validation import oracle
from gpt2.validation.stages import CHECKPOINTS, Result, Rounding, validate

BUNDLED = ROOT / "src" / "gpt2" / "bundled"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with a byte-level vocabulary."""
    tokenizer = byte_tokenizer()
    model = tiny(vocab_size=tokenizer.vocab_size, n_positions=40)
    return save_pretrained(model, tmp_path_factory.mktemp("validate") / "model", tokenizer)


@pytest.fixture(scope="module")
def reference(folder: Path) -> oracle.Reference:
    """What Hugging Face computes with it."""
    return oracle.load_reference(folder, "transformers")


def results(model: nn.Module, reference: oracle.Reference) -> dict[int, Result]:
    return {result.number: result for result in validate(model, reference)}


def states(found: dict[int, Result]) -> dict[str, set[int]]:
    """State → the checkpoints in it."""
    names = {result.state for result in found.values()}
    return {name: {n for n, r in found.items() if r.state == name} for name in names}


# ------------------------------------------------------------------------------------ right models


def test_a_right_model_passes_all_twelve(folder: Path, reference: oracle.Reference) -> None:
    """Catches a checkpoint that compares with the wrong tensor, or allows too little."""
    found = results(GPT2Model.from_pretrained(folder), reference)
    assert states(found) == {"passed": set(range(1, 13))}
    assert [result.number for result in found.values()] == list(range(1, 13))
    assert all(result.difference <= result.tolerance for result in found.values())


def test_the_bundled_model_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches stored tensors that are not the bundled weights'; `gpt2 validate
    src/gpt2/bundled --store` makes them again. Without transformers, as a user's machine may be.
    """
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "transformers" else real(name)
    )
    reference = oracle.load_reference(BUNDLED)
    assert reference.oracle.startswith("stored")
    assert [scene.ids.shape[0] for scene in reference.scenes] == [1, 2]
    found = results(GPT2Model.from_pretrained(BUNDLED), reference)
    assert states(found) == {"passed": set(range(1, 13))}
    tolerances = [found[n].tolerance for n in range(1, 10)]
    assert all(5e-6 < tolerance < 2e-3 for tolerance in tolerances)
    assert found[1].tolerance < found[8].tolerance


def test_stored_tensors_are_hugging_faces() -> None:
    """Catches stored tensors that went stale in anything but the weights."""
    stored, live = (oracle.load_reference(BUNDLED, name) for name in ("stored", "transformers"))
    for ours, theirs in zip(stored.scenes, live.scenes, strict=True):
        assert ours.text == theirs.text
        assert torch.equal(ours.ids, theirs.ids)
        assert ours.tensors.keys() == theirs.tensors.keys() - {"blocks"}
        for name, tensor in ours.tensors.items():
            torch.testing.assert_close(tensor, theirs.tensors[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_within_its_bound(dtype: torch.dtype) -> None:
    """Catches norms or softmax that accumulate in half precision, which leave the bound."""
    reference = oracle.load_reference(BUNDLED, "stored")
    found = results(GPT2Model.from_pretrained(BUNDLED, dtype=dtype), reference)
    assert states(found) == {"passed": set(range(1, 13))}
    # what was measured is far above float32's: it is the half-precision model that was looked at
    assert found[8].difference > 20 * found[8].tolerance * torch.finfo(torch.float32).eps


def test_tolerances_grow_with_the_roundings() -> None:
    """Catches a tolerance that does not know width, depth or precision."""
    config = GPT2Config()
    rounding = Rounding(config, torch.float32)
    stages = ["ln_1", "c_attn", "weights", "attn", "mlp", "block", "logits"]
    sizes = [rounding.relative(stage) for stage in stages]
    assert sizes == sorted(sizes)
    # GPT-2 small: a norm's two sums of 768 terms, by hand
    assert sizes[0] == pytest.approx(4 * 2**-23 * math.sqrt(1536))
    assert 1e-5 < sizes[0] < sizes[-1] < 1e-3
    deeper = Rounding(GPT2Config.gpt2_xl(), torch.float32)
    assert deeper.relative("logits") > 2 * sizes[-1]
    assert Rounding(config, torch.bfloat16).relative("block") > 100 * rounding.relative("block")


def test_the_model_is_left_as_it_was(folder: Path, reference: oracle.Reference) -> None:
    """Catches hooks, modes or weights that stay changed."""
    model = GPT2Model.from_pretrained(folder).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    results(model, reference)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


# ------------------------------------------------------------------------------------ wrong models


def forward(module: nn.Module, function: Callable) -> None:
    """Let a module compute something else."""
    module.__dict__["forward"] = function


def biased_norm(model: GPT2Model, patch: pytest.MonkeyPatch) -> None:
    ln = model.h[0].ln_1

    def compute(x: torch.Tensor) -> torch.Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + ln.eps).sqrt()
        return x * ln.weight + ln.bias

    forward(ln, compute)


def no_qkv_bias(model: GPT2Model, patch: pytest.MonkeyPatch) -> None:
    linear = model.h[0].attn.c_attn
    forward(linear, lambda x: F.linear(x, linear.weight))


def positions_start_anew(model: GPT2Model, patch: pytest.MonkeyPatch) -> None:
    plain = model.embeddings.forward
    forward(model.embeddings, lambda ids, start_pos=0: plain(ids, 0))


def no_scale(model: GPT2Model, patch: pytest.MonkeyPatch) -> None:
    model.h[0].attn.attention.scale = 1.0


def no_projection(model: GPT2Model, patch: pytest.MonkeyPatch) -> None:
    forward(model.h[0].attn.c_proj, lambda x: x)


def erf_gelu(model: GPT2Model, patch: pytest.MonkeyPatch) -> None:
    for block in model.h:
        forward(block.mlp.act, F.gelu)


def no_second_residual(model: GPT2Model, patch: pytest.MonkeyPatch) -> None:
    block = model.h[0]

    def compute(x: torch.Tensor, cache=None) -> torch.Tensor:
        x = x + block.attn(block.ln_1(x), cache)
        return block.mlp(block.ln_2(x))

    forward(block, compute)


def no_last_norm(model: GPT2Model, patch: pytest.MonkeyPatch) -> None:
    forward(model.ln_f, lambda x: x)


def first_position(model: GPT2Model, patch: pytest.MonkeyPatch) -> None:
    plain = model.forward

    def compute(ids, cache=None, last_only=False) -> torch.Tensor:
        logits = plain(ids, cache)
        return logits[:, :1] if last_only else logits

    forward(model, compute)


def least_likely(model: GPT2Model, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gpt2.sampling, "next_token", lambda logits, **_: logits.argmin(-1))


def temperature_upside_down(model: GPT2Model, patch: pytest.MonkeyPatch) -> None:
    plain = gpt2.generation.generating.filter_logits

    def compute(logits, *, temperature=1.0, **options) -> torch.Tensor:
        return plain(logits, temperature=temperature and 1 / temperature, **options)

    patch.setattr(gpt2.generation.generating, "filter_logits", compute)


def new_token_sees_one_key(model: GPT2Model, patch: pytest.MonkeyPatch) -> None:
    for block in model.h:
        attn = block.attn

        def compute(q, k, v, attn=attn) -> torch.Tensor:
            T, S = q.size(-2), k.size(-2)
            mask = torch.ones(T, S, dtype=torch.bool).tril(0 if T == 1 else S - T)
            return attn.attention(q, k, v, mask)[0]

        attn._attend = compute


TWELVE = [
    (1, biased_norm, "LayerNorm"),
    (2, no_qkv_bias, "MultiHeadAttention"),
    (3, positions_start_anew, "Embeddings"),
    (4, no_scale, "ScaledDotProductAttention"),
    (5, no_projection, "CausalMultiHeadAttention"),
    (6, erf_gelu, "NewGELU"),
    (7, no_second_residual, "TransformerBlock"),
    (8, no_last_norm, "GPT2Model.forward"),
    (9, first_position, "GPT2Model.forward"),
    (10, least_likely, "next_token"),
    (11, temperature_upside_down, "gpt2.generation"),
    (12, new_token_sees_one_key, "CausalMultiHeadAttention"),
]


def dependents(number: int) -> set[int]:
    """The checkpoints that need this one, directly or through others."""
    found = {number}
    for checkpoint in CHECKPOINTS:
        if found & set(checkpoint.needs):
            found.add(checkpoint.number)
    return found - {number}


@pytest.mark.parametrize(
    ("number", "spoil", "part"), TWELVE, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_fault_fails_at_its_checkpoint(
    folder: Path,
    reference: oracle.Reference,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    spoil: Callable,
    part: str,
) -> None:
    """Catches a checkpoint that lets its fault pass, blames another part, or does not stop those
    that depend on it.
    """
    model = GPT2Model.from_pretrained(folder)
    spoil(model, monkeypatch)
    found = results(model, reference)
    assert min(states(found)["failed"]) == number
    assert found[number].part == part
    assert found[number].causes
    assert found[number].difference > found[number].tolerance
    assert states(found).get("skipped", set()) >= dependents(number)
    assert all(found[n].state == "passed" for n in range(1, number))


def test_the_twelve_are_all_broken_once() -> None:
    """Catches a thirteenth checkpoint, or one without its fault."""
    assert [number for number, _, _ in TWELVE] == [c.number for c in CHECKPOINTS]


def positions_from_one(model, patch) -> None:
    plain = model.embeddings.forward
    forward(model.embeddings, lambda ids, start_pos=0: plain(ids, start_pos + 1))


def raw_stream_to_attention(model, patch) -> None:
    block = model.h[0]

    def compute(x, cache=None):
        block.ln_1(x)
        x = x + block.attn(x, cache)
        return x + block.mlp(block.ln_2(x))

    forward(block, compute)


def no_first_residual(model, patch) -> None:
    block = model.h[0]

    def compute(x, cache=None):
        x = block.attn(block.ln_1(x), cache)
        return x + block.mlp(block.ln_2(x))

    forward(block, compute)


def cache_swapped(model, patch) -> None:
    from gpt2.cache import LayerCache

    plain = LayerCache.append
    patch.setattr(LayerCache, "append", lambda self, k, v: plain(self, v, k)[::-1])


def one_cache_for_all(model, patch) -> None:
    for block in model.h[1:]:
        plain = block.forward
        forward(block, lambda x, cache=None, plain=plain: plain(x, None))


def no_mask(model, patch) -> None:
    for block in model.h:
        block.attn._attend = lambda q, k, v, attn=block.attn: attn.attention(q, k, v)[0]


def heads_by_view(model, patch) -> None:
    for block in model.h:
        attn = block.attn
        attn.split_heads = lambda x, attn=attn: x.reshape(
            x.size(0), attn.n_head, x.size(1), attn.head_dim
        )


def merge_by_view(model, patch) -> None:
    for block in model.h:
        block.attn.merge_heads = lambda x: x.reshape(x.size(0), x.size(2), -1)


def projection_transposed(model, patch) -> None:
    weight = model.h[0].attn.c_proj.weight
    weight.data = weight.data.t().contiguous()


def late_weights_forgotten(model, patch) -> None:
    with torch.no_grad():
        model.h[2].mlp.c_fc.bias.zero_()


def pieces_masked_from_the_left(model, patch) -> None:
    for block in model.h:
        attn = block.attn

        def compute(q, k, v, attn=attn) -> torch.Tensor:
            T, S = q.size(-2), k.size(-2)
            mask = None if T == 1 else torch.ones(T, S, dtype=torch.bool).tril()
            return attn.attention(q, k, v, mask)[0]

        attn._attend = compute


@pytest.mark.parametrize(
    ("spoil", "number", "part"),
    [
        (positions_from_one, 1, "Embeddings"),
        (raw_stream_to_attention, 2, "TransformerBlock"),
        (cache_swapped, 3, "CausalMultiHeadAttention"),
        (one_cache_for_all, 3, "GPT2Model.forward"),
        (no_mask, 4, "CausalMultiHeadAttention"),
        (heads_by_view, 4, "MultiHeadAttention"),
        (merge_by_view, 5, "MultiHeadAttention"),
        (projection_transposed, 5, "GPT2Model.from_pretrained"),
        (no_first_residual, 6, "TransformerBlock"),
        (late_weights_forgotten, 8, "GPT2Model.from_pretrained"),
        (pieces_masked_from_the_left, 12, "CausalMultiHeadAttention"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_right_part_is_blamed(
    folder: Path,
    reference: oracle.Reference,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable,
    number: int,
    part: str,
) -> None:
    """Catches a learner sent to the wrong problem: a checkpoint can fail for several reasons."""
    model = GPT2Model.from_pretrained(folder)
    spoil(model, monkeypatch)
    found = results(model, reference)
    # swapping keys and values in the cache also shows elsewhere, but nowhere before
    assert number in states(found)["failed"]
    assert all(found[n].state == "passed" for n in range(1, number) if n != 3)
    assert found[number].part == part


def test_a_model_that_stops(folder: Path, reference: oracle.Reference) -> None:
    """Catches a traceback for a piece that raises: what came before it is still judged."""
    model = GPT2Model.from_pretrained(folder)

    def stop(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such luck")

    forward(model.h[0].mlp, stop)
    found = results(model, reference)
    assert found[6].state == "failed"
    assert "no such luck" in found[6].message
    assert all(found[n].state == "passed" for n in (1, 2, 4, 5))


def test_a_piece_without_the_module(folder: Path, reference: oracle.Reference) -> None:
    """Catches a right piece that is refused because it attends by itself."""
    model = GPT2Model.from_pretrained(folder)
    for block in model.h:

        def attend(q, k, v):
            T, S = q.size(-2), k.size(-2)
            mask = torch.ones(T, S, dtype=torch.bool).tril(S - T)
            return F.scaled_dot_product_attention(q, k, v, mask)

        block.attn._attend = attend
    found = results(model, reference)
    assert states(found) == {"passed": set(range(1, 13)) - {4}, "not seen": {4}}


def test_nan_is_a_failure(folder: Path, reference: oracle.Reference) -> None:
    """Catches NaN, which is neither more nor less than a tolerance."""
    model = GPT2Model.from_pretrained(folder)
    forward(model.ln_f, lambda x: x * math.nan)
    found = results(model, reference)
    assert found[8].state == "failed"
    assert "NaN" in found[8].message


# ---------------------------------------------------------------------------------- stored tensors


def test_stored_tensors_of_other_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    """Catches a model judged by what another one computes."""
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(ValueError, match=r"has no validation\.safetensors.*--store"):
        oracle.load_reference(copy, "stored")
    path = oracle.store(copy, oracle.load_reference(copy, "transformers"))
    assert sorted(results(GPT2Model.from_pretrained(copy), oracle.load_reference(copy, "stored")))
    with torch.no_grad():
        model = GPT2Model.from_pretrained(copy)
        model.ln_f.bias.add_(1)
    save_pretrained(model, copy)
    with pytest.raises(ValueError, match="computed with other weights"):
        oracle.load_reference(copy, "stored")
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read"):
        oracle.load_reference(copy, "stored")


def test_prompts_without_a_tokenizer(tmp_path: Path) -> None:
    """Catches weights that can't be validated because a vocabulary is missing."""
    folder = save_pretrained(tiny(), tmp_path / "bare")
    found = results(GPT2Model.from_pretrained(folder), oracle.load_reference(folder))
    assert states(found) == {"passed": set(range(1, 13))}


def test_hello_in_gpt2s_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches wrong ids written down for GPT-2's own vocabulary."""
    use_bpe(monkeypatch)
    from gpt2.text.tokenizers import GPT2Tokenizer

    tokenizer = GPT2Tokenizer.load()
    assert {text: tokenizer.encode(text) for text in oracle.GPT2_IDS} == oracle.GPT2_IDS
    assert oracle.GPT2_IDS[oracle.PROMPT] == [15496, 13]


@pytest.mark.slow
def test_the_shape_of_gpt2(tmp_path: Path) -> None:
    """Catches tolerances that only hold for small models: 124M parameters. About 20 seconds."""
    torch.manual_seed(0)
    folder = save_pretrained(GPT2Model(GPT2Config()), tmp_path / "124M")
    reference = oracle.load_reference(folder)
    assert reference.scenes[0].ids.tolist() == [[15496, 13]]
    found = results(GPT2Model.from_pretrained(folder), reference)
    assert states(found) == {"passed": set(range(1, 13))}


# ------------------------------------------------------------------------------------- the command


def run(*args: object) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gpt2", "validate", *map(str, args)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)


def test_the_command() -> None:
    """Catches lines without tensor, oracle, tolerance or difference, and a wrong exit code."""
    done = run("--oracle", "stored", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert "oracle: stored" in lines[0]
    assert len(lines) == 14
    assert all("✓" in line and "allowed" in line for line in lines[1:13])


def test_the_command_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches exit code 0 for a model that is wrong, and a failure without its cause."""
    monkeypatch.setattr(gpt2.sampling, "next_token", lambda logits, **_: logits.argmin(-1))
    with pytest.raises(SystemExit) as ended:
        cli.main(["validate", str(folder)])
    text = capsys.readouterr().out
    assert ended.value.code == 1
    assert "✗ 10" in text
    assert "likely: next_token must take the largest" in text
    assert "skipped: needs checkpoint 10" in text
    with pytest.raises(SystemExit) as ended:
        cli.main(["validate", str(folder), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["state"] for row in rows] == ["passed"] * 9 + ["failed", "passed", "skipped"]
    assert ended.value.code == 1


@pytest.mark.parametrize(
    ("args", "code", "named"),
    [(["/no/such/folder"], 1, "no folder"), (["--oracle", "none"], 2, "oracle")],
)
def test_wrong_calls(args: list[str], code: int, named: str) -> None:
    """Catches a traceback, and a failure that looks like success."""
    done = run(*args)
    assert done.returncode == code
    assert named in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------ published outputs


def pretrained(name: str) -> GPT2Model:
    """Real weights, or skip and say why."""
    try:
        return GPT2Model.from_pretrained(name)
    except ValueError as error:
        pytest.skip(f"{name}'s weights cannot be had: {error}")


@pytest.mark.network
def test_gpt2_mediums_published_text() -> None:
    """Catches any difference from the text that gpt2-medium is known to write after `Hello.`."""
    from gpt2.text.tokenizers import GPT2Tokenizer

    model = pretrained("gpt2-medium")
    ids = torch.tensor([[15496, 13]])
    found = generate_greedy(model, ids, 10)
    assert GPT2Tokenizer.load().decode(found) == "Hello. I'm a little late to the party, but"


@pytest.mark.network
def test_gpt2s_published_ids() -> None:
    """Catches any difference from the ids in Hugging Face's own test of GPT-2's greedy text
    (tests/models/gpt2/test_modeling_gpt2.py, test_lm_generate_gpt2).
    """
    model = pretrained("gpt2")
    expected = [464, 3290, 373, 1043, 287, 257, 2214, 1474, 262, 16246, 286, 2688, 290, 2688]
    expected += [27262, 13, 198, 198, 464, 3290]
    assert generate_greedy(model, torch.tensor([[464, 3290]]), 18) == expected


def generate_greedy(model: GPT2Model, ids: torch.Tensor, n: int) -> list[int]:
    return gpt2.generation.generating.generate(model, ids, n, temperature=0.0)[0].tolist()
