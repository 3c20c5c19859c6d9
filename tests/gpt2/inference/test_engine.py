"""Prepared models: the same text, undone bit for bit, close in fewer bytes, whoever's pieces."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_gpt2 import ROOT, hugging_face, prompt, tiny
from torch import nn

from gpt2.bench.generation import drift
from gpt2.cache import KVCache
from gpt2.generation.generating import decode_step, generate, prefill
from gpt2.inference import engine
from gpt2.inference.engine import (
    FEW_ROWS,
    BFloat16,
    ByTheLayer,
    Half16,
    Int4,
    Int8,
    prepare,
    quantize_whole,
    quantized,
)
from gpt2.model import GPT2Config, GPT2Model
from gpt2.quantization import QuantizedLinear
from learn_gpt2.assembly.assemble import assemble
from learn_gpt2.assembly.sections import Source
from learn_gpt2.manifest import PROBLEMS
from tests.graders import bank as banks

WAYS = {
    "float32": {},
    "float16": {"dtype": torch.float16},
    "bfloat16": {"dtype": torch.bfloat16},
    "int8": {"quantize": "int8"},
    "int4": {"quantize": "int4"},
}
each_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """One thread, which small work is fastest on; float32 layers are sliced all the same."""
    before, least = torch.get_num_threads(), engine.FEWEST_THREADS
    torch.set_num_threads(1)
    engine.FEWEST_THREADS = 1
    yield
    torch.set_num_threads(before)
    engine.FEWEST_THREADS = least


def wide(**sizes: int) -> GPT2Model:
    """Large enough for slices: 300 · 900 numbers and more in each of most layers."""
    return tiny(**({"n_embd": 300, "n_head": 5, "vocab_size": 1999, "n_positions": 260} | sizes))


def states(model: nn.Module) -> list[object]:
    """Everything about a model that preparing could leave changed."""
    tensors = [*model.parameters(), *model.buffers()]
    found: list[object] = [(id(t), t.data_ptr(), t.dtype, t._version) for t in tensors]
    found += [t.detach().clone().view(torch.uint8).tolist() for t in tensors if t.numel() < 2000]
    for module in model.modules():
        found.append((id(module), type(module), module.training, sorted(module.__dict__)))
        found.append(list(module._modules))
    return found


def bundled() -> Path:
    """The bundled model's folder, or a skip."""
    folder = ROOT / "src" / "gpt2" / "bundled"
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"no bundled model in {folder}")
    return folder


def shakespeare() -> str:
    """Tiny Shakespeare, or a skip that says where it was looked for."""
    beside = ROOT.parent / "shared" / "data" / "tinyshakespeare" / "input.txt"
    path = Path(os.environ.get("TINY_SHAKESPEARE") or beside)
    if not path.is_file():
        pytest.skip(f"Tiny Shakespeare is not at {path} (TINY_SHAKESPEARE names another)")
    return path.read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------- identity


def test_prepared_float32_writes_the_same_200_tokens() -> None:
    """Catches fast layers that change the text, at one and at many rows."""
    model, ids = wide(), prompt(1, 9)
    plain = plain_text(model, ids, 200)
    with prepare(model) as prepared:
        assert len(prepared.replaced) > 3
        assert torch.equal(generate(model, ids, 200, temperature=0.0), plain)
    assert len(set(plain[0].tolist())) > 20


def plain_text(model: GPT2Model, ids: torch.Tensor, n: int) -> torch.Tensor:
    """Greedy text by PyTorch's own layers: the model's forward and nothing of the engine."""
    cache = KVCache(model.config, len(ids))
    found, step = [ids], ids
    with torch.no_grad():
        for _ in range(n):
            step = model(step, cache, last_only=True)[:, -1].argmax(-1, keepdim=True)
            found.append(step)
    return torch.cat(found, 1)


def test_the_bundled_model_prepared_writes_the_same_200_tokens() -> None:
    """Catches what random weights hide: real logits are close to one another."""
    model = GPT2Model.from_pretrained(bundled())
    ids = torch.tensor([[1, 5, 20]])
    plain = plain_text(model, ids, 200)
    with prepare(model):
        assert torch.equal(generate(model, ids, 200, temperature=0.0), plain)


@pytest.mark.slow
def test_the_124m_shape_prepared_writes_the_same_200_tokens() -> None:
    """Catches slices that do not fit GPT-2's own sizes (50,257 rows are not a multiple of 16)."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = GPT2Model(GPT2Config.gpt2_small()).eval()
    ids = prompt(1, 32, V=50257)
    plain = plain_text(model, ids, 200)
    with prepare(model) as prepared:
        assert len(prepared.replaced) == 49
        assert torch.equal(generate(model, ids, 200, temperature=0.0), plain)


@each_way
@pytest.mark.parametrize("training", [False, True])
def test_restore_is_bit_for_bit(way: str, training: bool) -> None:
    """Catches a layer, a tensor, a mode or an attribute that stays changed."""
    model = wide().train(training)
    before = states(model)
    logits = logits_of(model)
    prepared = prepare(model, **WAYS[way])
    assert prepared.replaced
    assert any("forward" in module.__dict__ for module in model.modules())
    generate(model, prompt(2, 5), 4)
    prepared.restore()
    prepared.restore()
    assert states(model) == before
    torch.testing.assert_close(logits_of(model), logits, rtol=0, atol=0)


def logits_of(model: GPT2Model) -> torch.Tensor:
    """Plain logits, without dropout, and without a trace on the model's mode."""
    modes = [module.training for module in model.modules()]
    with torch.no_grad():
        found = model.eval()(prompt(2, 9))
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    return found


def test_restored_after_an_error() -> None:
    """Catches a model left half prepared: by an error in the block, and by one in prepare."""
    model = wide()
    before = states(model)
    with pytest.raises(KeyError), prepare(model, quantize="int8"):
        raise KeyError
    assert states(model) == before
    with torch.no_grad():
        model.h[2].mlp.c_proj.weight[3, 4] = 1e5
    before = states(model)
    with pytest.raises(ValueError, match="too large for float16"):
        prepare(model, dtype=torch.float16)
    assert states(model) == before


def test_a_model_is_prepared_once() -> None:
    """Catches a second preparation on top of the first, which could not be undone in any order."""
    model = wide()
    for way in WAYS.values():
        with prepare(model, **way), pytest.raises(ValueError, match="prepared already"):
            prepare(model)
    with prepare(model):
        pass


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": torch.int8}, "float32, float16 or bfloat16"),
        ({"quantize": "int3"}, "int3"),
        ({"quantize": "int8", "dtype": torch.bfloat16}, "either int8 or"),
        ({"quantize": "int8", "compile": True}, "not compiled"),
    ],
)
def test_what_cannot_be_combined(options: dict, words: str) -> None:
    """Catches an option that is ignored in silence."""
    with pytest.raises(ValueError, match=words):
        prepare(tiny(), **options)
    with pytest.raises(ValueError, match="float32 models"):
        prepare(tiny().half(), quantize="int8")


# ------------------------------------------------------------------------------ fewer bytes


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("N", "K"), [(67, 35), (33 * 20, 20), (16, 48)])
@pytest.mark.parametrize("M", [1, 2, 7, FEW_ROWS])
@pytest.mark.parametrize(("kernel", "off"), [(Half16, 2**-10), (BFloat16, 2**-7), (Int8, 2**-6)])
def test_kernels_are_close(kernel, off: float, M: int, N: int, K: int, bias: bool) -> None:
    """Catches a lost bias or scale, a transposed weight, rows mixed up: float64 is the oracle."""
    torch.manual_seed(M)
    module = nn.Linear(K, N, bias=bias)
    with torch.no_grad():
        module.weight.mul_(torch.rand(N, 1) * 5).add_(0.3)
        x = torch.randn(M, K)
        want = F.linear(
            x.double(), module.weight.double(), None if not bias else module.bias.double()
        )
        found = kernel(QuantizedLinear(module) if kernel is Int8 else module)(x)
    assert found.dtype == torch.float32
    assert found.shape == (M, N)
    assert (found - want).norm() < off * want.norm()


def test_int8_takes_out_what_the_logits_have_in_common() -> None:
    """Catches the direction of the mean row left in: it would cost the logits their digits."""
    torch.manual_seed(0)
    module = nn.Linear(32, 400, bias=False)
    with torch.no_grad():
        module.weight.add_(3.0)
        x = torch.randn(1, 32) + 2
        layer = QuantizedLinear(module)
        want = F.linear(x.double(), layer.qweight.double() * layer.scale.double())
        found = Int8(layer)(x)
        coarse = torch._weight_int8pack_mm(x.bfloat16(), *pack(module.weight))
    assert (found - want).abs().max() < (coarse - want).abs().max() / 5


def pack(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 as it is usually done: one scale per row, in bfloat16."""
    scale = weight.abs().amax(1) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale.bfloat16()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("N", "K"), [(67, 64), (33 * 32, 32), (16, 96)])
def test_kernels_multiply_what_the_piece_quantized(N: int, K: int, bits: int) -> None:
    """Catches a kernel with integers or scales of its own, and one that loses rows or the bias."""
    torch.manual_seed(N)
    module = nn.Linear(K, N)
    x = torch.randn(5, K)
    kernel = quantized(module, bits)
    assert type(kernel) is {8: Int8, 4: Int4}[bits]
    layer = QuantizedLinear(module, bits, None if bits == 8 else 32)
    with torch.no_grad():
        found, want = kernel(x), layer(x)
    assert (found - want).norm() < 2**-7 * want.norm()


def test_another_piece_is_what_quantizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a second copy of the quantizing code: with a piece that drops every second bit of the
    weights, the product must be that piece's.
    """
    import gpt2.quantization as piece

    plain = piece.quantize
    monkeypatch.setattr(piece, "quantize", lambda w, s, bits=8: plain(w, s, bits) // 16 * 16)
    module, x = nn.Linear(64, 32), torch.randn(3, 64)
    want = F.linear(
        x,
        piece.dequantize(
            piece.quantize(module.weight, s := piece.absmax_scale(module.weight.detach())), s
        ),
        module.bias,
    )
    with torch.no_grad():
        found = quantized(module, 8)(x)
        exact = module(x)
    assert (found - want).norm() < 2**-7 * want.norm()
    assert (found - exact).norm() > 2**-5 * want.norm()


def test_a_piece_that_no_kernel_fits_computes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a kernel that is used although it gives something else than the piece."""
    import gpt2.quantization as piece

    class Doubled(piece.QuantizedLinear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    monkeypatch.setattr(piece, "QuantizedLinear", Doubled)
    module, x = nn.Linear(64, 32), torch.randn(3, 64)
    for bits in (8, 4):
        kernel = quantized(module, bits)
        assert type(kernel) is ByTheLayer
        with torch.no_grad():
            assert (kernel(x) - 2 * module(x)).norm() < 0.2 * module(x).norm()


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantized_for_good_is_what_decoding_gives(kind: str) -> None:
    """Catches `eval --quantize` and `generate --quantize` that quantize in two ways."""
    model = tiny()
    ids = prompt(1, 3)
    with prepare(model, quantize=kind) as prepared:
        found = prepared(ids)
    quantize_whole(model, kind)
    with torch.no_grad():
        want = model(ids)
    assert (found - want).norm() < 0.02 * want.norm()


@each_way
def test_bytes_per_token(way: str) -> None:
    """Catches arithmetic that counts the plain weights for the narrow ones."""
    model = wide()
    numbers = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    with prepare(model, **WAYS[way]) as prepared:
        width = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "int4": 0.5}[way]
        # rows of 300 are padded to 320; at 4 bits scales count
        wide_rows = {"int8": 1.1, "int4": 1.35}.get(way, 1.0)
        assert numbers <= prepared.bytes_per_token / width <= wide_rows * numbers


@pytest.mark.parametrize("way", ["float16", "bfloat16", "int8"])
def test_many_rows_and_gradients_take_the_plain_weights(way: str) -> None:
    """Catches gradients that are lost, and prompts read with rounded weights."""
    model = wide()
    ids = prompt(2, FEW_ROWS)
    plain = logits_of(model)
    with prepare(model, **WAYS[way]) as prepared:
        torch.testing.assert_close(logits_of(model), plain, rtol=0, atol=2e-2 * plain.std().item())
        logits = model(ids)
        logits.sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        with torch.no_grad():
            off = (model(ids) - logits).norm() / logits.norm()
        assert off < 1e-4  # rounding, which such large weights make larger
        assert not torch.equal(prepared(ids[:1, :3]), logits[:1, :3])


@pytest.mark.parametrize("way", ["float16", "bfloat16", "int8", "int4"])
def test_perplexity_on_the_bundled_model(way: str) -> None:
    """Catches narrow weights that cost more than 1 % of perplexity (4 bits: 5 %): on the
    bundled model's data, every token through the layers that decoding uses.
    """
    from gpt2.formats.opening import load_tokenizer

    folder = bundled()
    model = GPT2Model.from_pretrained(folder)
    text = shakespeare()[-40_000:]  # its validation part
    ids = torch.tensor(load_tokenizer(folder).encode(text))
    T = model.config.n_positions
    windows = ids[: 16 * T].view(16, T)
    found = drift(model, windows, **WAYS[way])
    near = 0.05 if way == "int4" else 0.01
    assert math.isclose(found.perplexity, found.plain_perplexity, rel_tol=near)
    most = {"float16": 1e-5, "bfloat16": 1e-3, "int8": 1e-3, "int4": 5e-2}[way]
    assert -1e-12 < found.kl < most


# -------------------------------------------------------------------------- whoever's pieces


RIGHT = [(n, place) for n in range(1, 13) for place in range(len(banks.load(n).right))]


@pytest.mark.parametrize(("number", "place"), RIGHT)
def test_every_right_answer_prepared(number: int, place: int, tmp_path: Path) -> None:
    """Catches an engine that needs more of a model than the contract's names."""
    solutions = {p.number: p.solution_path(ROOT).read_text(encoding="utf-8") for p in PROBLEMS}
    solutions[number] = banks.load(number).right[place].source
    text = assemble([Source(n, "file", f"{n}.py", source) for n, source in solutions.items()])
    path = tmp_path / f"swapped_{number}_{place}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
        check_prepared(module)
    finally:
        del sys.modules[spec.name]


def check_prepared(module) -> None:
    """A model of the module's: the same text prepared, close in fewer bytes, restored."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 197, "n_positions": 23, "n_embd": 20, "n_layer": 2, "n_head": 5}
    model = module.GPT2Model(module.GPT2Config(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    ids = prompt(2, 5)
    plain = plain_text(model, ids, 9)
    logits = logits_of(model)
    with prepare(model) as prepared:
        assert isinstance(prepared.decoder, engine._Rows)  # it trusts the model's parts
        assert torch.equal(generate(model, ids, 9, temperature=0.0), plain)
    for way in ("float16", "bfloat16", "int8"):
        with prepare(model, **WAYS[way]) as prepared:
            near = prepared(prompt(2, 9)[:, :5])
        assert (near - logits[:, :5]).norm() < 0.1 * logits[:, :5].norm()
    decoder = engine._Fixed(model, compile=False)
    cache = KVCache(model.config, 2)
    with torch.no_grad():
        tokens = decoder.forward(ids, cache, last_only=True)[:, -1].argmax(-1)
        found = decoder.forward(tokens[:, None], cache, last_only=True)[:, -1]
        want = model(torch.cat([ids, tokens[:, None]], 1))[:, -1]
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits_of(model), logits, rtol=0, atol=0)


# ---------------------------------------------------------------------- steps in rows, on the CPU


@each_way
@pytest.mark.parametrize("B", [1, 3])
def test_steps_in_rows_say_what_the_modules_say(B: int, way: str) -> None:
    """Catches a step that reads another position, weight or cache row than the model's own."""
    model, ids = wide(), prompt(B, 5)
    text = prompt(B, 12, seed=8)
    with prepare(model, **WAYS[way]) as prepared:
        assert isinstance(prepared.decoder, engine._Rows)
        calls = []
        hook = model.h[1].register_forward_pre_hook(lambda *_: calls.append(1))
        logits = {}
        for name in ("rows", "modules"):
            cache = KVCache(model.config, B)
            found = [prefill(model, ids, cache)]
            if name == "modules":
                model.__dict__.pop("forward")
            calls.clear()
            found += [decode_step(model, tokens, cache) for tokens in text.t()]
            assert len(calls) == (0 if name == "rows" else 12)
            assert cache.length == 17
            logits[name] = torch.stack(found)
        hook.remove()
    off = (logits["rows"] - logits["modules"]).norm() / logits["modules"].norm()
    # the same kernels; bfloat16 rows turn a rounding of float32 into one of their own
    assert off < (1e-5 if way in ("float32", "float16") else 1e-2)


def test_another_gpt2_keeps_its_own_steps() -> None:
    """Catches a model that is not what the contract says (a ReLU) being replaced by one that is."""
    model, ids = wide(), prompt(2, 5)
    for block in model.h:
        block.mlp.act = nn.ReLU()
    plain = plain_text(model, ids, 9)
    with prepare(model) as prepared:
        assert prepared.decoder is None
        assert torch.equal(generate(model, ids, 9, temperature=0.0), plain)


def test_who_listens_hears_every_step() -> None:
    """Catches hooks on the attention that hear the prompt alone."""
    model, ids = wide(), prompt(1, 5)
    heard = []
    with prepare(model):
        handle = model.h[0].attn.attention.register_forward_hook(
            lambda module, inputs, output: heard.append(output[1].shape[-1])
        )
        generate(model, ids, 4, temperature=0.0)
        handle.remove()
    assert heard == [5, 6, 7, 8]


def test_steps_refuse_what_the_model_refuses() -> None:
    """Catches a token that is not there being read from somewhere else, and a full cache."""
    model = wide()
    with prepare(model) as prepared:
        cache = KVCache(model.config, 1, 2)
        for wrong in (-1, model.config.vocab_size):
            with pytest.raises((ValueError, IndexError)):
                prepared(torch.tensor([[wrong]]), cache)
            assert cache.length == 0
        prepared(torch.tensor([[1]]), cache)
        prepared(torch.tensor([[1]]), cache)
        with pytest.raises(ValueError, match="max_length = 2"):
            prepared(torch.tensor([[1]]), cache)


# ------------------------------------------------------------------------- fixed shapes, GPUs


@pytest.mark.parametrize("B", [1, 3])
def test_fixed_shapes_say_the_same(B: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a mask, a position or a bucket that is off by one, on the CPU."""
    monkeypatch.setattr(engine, "BUCKET", 4)
    model, ids = tiny(), prompt(B, 5)
    decoder = engine._Fixed(model, compile=False)
    cache, ours = KVCache(model.config, B), KVCache(model.config, B)
    logits = prefill(model, ids, cache)
    with torch.no_grad():
        decoder.forward(ids, ours, last_only=True)
        for _ in range(model.config.n_positions - 5):
            tokens = logits.argmax(-1)
            logits = decode_step(model, tokens, cache)
            found = decoder.forward(tokens[:, None], ours, last_only=True)[:, -1]
            torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
            assert ours.length == cache.length
        with pytest.raises(ValueError, match="23"):
            decoder.forward(tokens[:, None], ours)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fixed_shapes_are_for_models_that_say_the_same(dtype: torch.dtype) -> None:
    """Catches a GPU's fast path taken for a model that computes something else, and refused for
    one that only rounds in another order.
    """
    model = tiny().to(dtype)
    assert engine._Fixed.of(model, compile=False) is not None
    for block in model.h:  # pieces of another's: attention that is doubled
        plain = block.attn.forward
        block.attn.forward = lambda x, cache=None, plain=plain: 2 * plain(x, cache)
    assert engine._Fixed.of(model, compile=False) is None
    other = tiny().to(dtype)
    other.h[1].attn.projections = other.h[1].attn.c_attn
    del other.h[1].attn.c_attn
    assert engine._Fixed.of(other, compile=False) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compile", [False, True])
def test_on_a_gpu(dtype: torch.dtype, compile: bool) -> None:
    """Catches a graph that reads an old position or cache: teacher-forced logits are the oracle."""
    model, ids = wide(), prompt(3, 7)
    before = states(model)
    with prepare(model, dtype=dtype, device="cuda", compile=compile):
        cache = KVCache(model.config, 3, device="cuda", dtype=dtype)
        logits = [prefill(model, ids.cuda(), cache)]
        text = prompt(3, 150, seed=4).cuda()
        logits += [decode_step(model, tokens, cache) for tokens in text.t()]
        found = torch.stack(logits, 1).float().cpu()
    assert states(model) == before
    with torch.no_grad():
        want = model(torch.cat([ids, text.cpu()], 1))[:, 6:]
    off = 1e-3 if dtype == torch.float32 else 5e-2
    assert (found - want).norm() < off * want.norm()


def test_a_model_of_hugging_faces_has_linear_layers_of_another_kind() -> None:
    """Catches layers that look like linear ones and are not (theirs are transposed)."""
    model = hugging_face()
    ids = prompt(1, 5)
    with torch.no_grad():
        before = model(ids).logits
    with prepare(model, quantize="int8") as prepared:
        assert [type(layer) for layer in prepared.replaced] == [nn.Linear]  # the head
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)
