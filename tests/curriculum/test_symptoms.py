"""What the READMEs say happens, made to happen: the mistake is made, and the symptom is seen.

An oracle here is PyTorch itself, or arithmetic written out once more; never a solution's formula.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gpt2.cache import KVCache
from gpt2.model import FeedForward, GPT2Config, GPT2Model, TransformerBlock
from learn_gpt2 import manifest

ROOT = Path(__file__).resolve().parents[2]


def text_of(number: int) -> str:
    """A problem's README with its line breaks taken out."""
    return " ".join(manifest.get(number).readme_path(ROOT).read_text(encoding="utf-8").split())


def positions_of_texts() -> None:
    torch.zeros(2, 4, 3) + torch.zeros(2, 3)  # (B, T, C) + (B, C)


def a_row_past_the_table() -> None:
    nn.Embedding(4, 2)(torch.tensor([4]))


def keys_not_transposed() -> None:
    torch.zeros(2, 3, 4) @ torch.zeros(2, 3, 4)


def the_batch_is_transposed() -> None:
    torch.zeros(2, 3, 4) @ torch.zeros(2, 3, 4).permute(2, 1, 0)  # what .T does


def viewed_after_a_transpose() -> None:
    torch.zeros(2, 3, 4, 5).transpose(1, 2).view(2, 4, 15)


def a_pair_in_place_of_a_tensor() -> None:
    (torch.zeros(2), torch.zeros(2)).transpose(1, 2)  # type: ignore[attr-defined]


def a_square_mask() -> None:
    mask = torch.ones(2, 2, dtype=torch.bool).tril()
    torch.zeros(1, 1, 2, 5).masked_fill(~mask, -torch.inf)


def a_persistent_mask() -> None:
    module = nn.Linear(2, 2)
    weights = module.state_dict()
    module.register_buffer("mask", torch.ones(2, 2))
    module.load_state_dict(weights)


def layers_swapped() -> None:
    nn.Linear(12, 3)(torch.zeros(2, 4, 3))


def no_keepdim() -> None:
    torch.zeros(2, 3, 8) - torch.zeros(2, 3)


def the_cache_for_the_network() -> None:
    FeedForward(4, 8)(torch.zeros(1, 2, 4), None)  # type: ignore[call-arg]


def heads_and_positions_swapped() -> None:
    TransformerBlock(768, 1024, 12)


def a_float_head_dim() -> None:
    torch.zeros(2, 3, 8).view(2, 3, 2, 8 / 2)  # type: ignore[call-overload]


def no_class_method() -> None:
    class Config:
        def gpt2_medium(cls):
            return cls

    Config.gpt2_medium()  # type: ignore[call-arg]


def cache_in_place_of_a_layer() -> None:
    KVCache(GPT2Config(5, 4, 4, 1, 1)).append(0, 0)  # type: ignore[attr-defined]


def all_layers_in_place_of_one() -> None:
    [].append(0, 0)  # type: ignore[call-arg]


def the_bias_of_a_head_without_one() -> None:
    nn.init.zeros_(nn.Linear(2, 3, bias=False).bias)  # type: ignore[arg-type]


ERRORS: list[tuple[int, str, Callable[[], None]]] = [
    (1, "The size of tensor a (4) must match the size of tensor b (2)", positions_of_texts),
    (1, "index out of range in self", a_row_past_the_table),
    (2, "Expected size for first two dimensions of batch2 tensor", keys_not_transposed),
    (2, "The size of tensor a (2) must match the size of tensor b (4)", the_batch_is_transposed),
    (4, "view size is not compatible", viewed_after_a_transpose),
    (4, "'tuple' object has no attribute", a_pair_in_place_of_a_tensor),
    (5, "The size of tensor a (2) must match the size of tensor b (5)", a_square_mask),
    (5, 'Missing key(s) in state_dict: "mask"', a_persistent_mask),
    (6, "mat1 and mat2 shapes cannot be multiplied", layers_swapped),
    (7, "The size of tensor a (8) must match the size of tensor b (3)", no_keepdim),
    (8, "takes 2 positional arguments but 3 were given", the_cache_for_the_network),
    (9, "must be tuple of ints,but got float", a_float_head_dim),
    (9, "missing 1 required positional argument: 'cls'", no_class_method),
    (10, "'KVCache' object has no attribute 'append'", cache_in_place_of_a_layer),
    (10, "list.append() takes exactly one argument", all_layers_in_place_of_one),
    (11, "'NoneType' object has no attribute", the_bias_of_a_head_without_one),
]


@pytest.mark.parametrize(
    ("number", "said", "mistake"), ERRORS, ids=[f"{n:02d}-{f.__name__}" for n, _, f in ERRORS]
)
def test_the_error_reads_as_told(number: int, said: str, mistake: Callable[[], None]) -> None:
    """Catches an error text that a README quotes and that PyTorch or Python words otherwise."""
    assert said in text_of(number)
    with pytest.raises(Exception, match=re.escape(said)):
        mistake()


def test_swapped_arguments_of_a_block() -> None:
    """Catches problem 08's symptom of swapped heads and positions, where another error comes."""
    assert "`n_embd … not divisible by n_head`" in text_of(8)
    with pytest.raises(ValueError, match=r"n_embd.* is not divisible by n_head"):
        heads_and_positions_swapped()


def test_texts_flattened_into_one() -> None:
    """Catches problem 02's symptom "right for one text, wrong for a batch" where it is not so."""

    def flattened(x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(0, 1)
        return (torch.softmax(rows @ rows.T, -1) @ rows).view_as(x)

    assert "right for one text, wrong for a batch" in text_of(2)
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    right = F.scaled_dot_product_attention(x, x, x, scale=1.0)
    assert torch.allclose(flattened(x[:1]), right[:1], atol=1e-5)
    assert not torch.allclose(flattened(x), right, atol=0.1)


def gelu(x: float, *, factor: float = 0.044715, root: float = math.sqrt(2 / math.pi), power=3):
    return 0.5 * x * (1 + math.tanh(root * (x + factor * x**power)))


def test_wrong_constants_of_gelu() -> None:
    """Catches errors of GELU that grow with x in the README, and vanish in truth."""
    assert (
        "| right at 0 and far from it, off by up to 0.18 or 0.09 around ±1.5 | a wrong constant: "
        "√2/π for √(2/π), or 0.44715 for 0.044715 |"
    ) in text_of(6)
    grid = [i / 100 for i in range(-800, 801)]
    for wrong, most in (({"root": math.sqrt(2) / math.pi}, 0.18), ({"factor": 0.44715}, 0.09)):
        errors = {x: abs(gelu(x, **wrong) - gelu(x)) for x in grid}
        assert round(max(errors.values()), 2) == most
        assert 1.3 < abs(max(errors, key=errors.__getitem__)) < 1.7
        assert errors[0.0] == 0
        assert max(errors[-8.0], errors[8.0]) < 1e-9


def test_a_square_in_place_of_a_cube() -> None:
    """Catches positive inputs that are said to be right with x² for x³."""
    assert "| off by 0.06 at −2, and by 0.015 at 2 | x² for x³ |" in text_of(6)
    assert round(abs(gelu(-2, power=2) - gelu(-2)), 2) == 0.06
    assert round(abs(gelu(2, power=2) - gelu(2)), 3) == 0.015


def test_where_the_exchange_comes_from() -> None:
    """Catches problem 08's worked example where a token is said to get all from another."""
    assert "½ · 1⅔ = ⅚ came from token 0 and ½ · 1 = ½ from token 1 itself" in text_of(8)
    first = F.layer_norm(torch.tensor([1.0, 3.0, 3.0, 9.0]), (4,))[3]
    second = F.layer_norm(torch.tensor([2.0, 0.0, 0.0, 2.0]), (4,))[3]
    torch.testing.assert_close(first / 2, torch.tensor(5 / 6), atol=1e-4, rtol=0)
    torch.testing.assert_close(second / 2, torch.tensor(1 / 2), atol=1e-4, rtol=0)


def test_the_untrained_loss() -> None:
    """Catches a range for GPT-2 small's first loss that its losses don't keep to."""
    found = re.search(r"the last two rows lie between ([\d.]+) and ([\d.]+)", text_of(11))
    assert found
    torch.manual_seed(7)
    model = GPT2Model(GPT2Config()).eval()
    ids = torch.randint(0, 50257, (2, 129))
    with torch.no_grad():
        logits = model(ids[:, :-1])
    loss = float(F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))
    assert float(found[1]) < loss < float(found[2])


def test_square_matrices_left_as_they_are() -> None:
    """Catches another loss than told for attn.c_proj that was not transposed."""
    from gpt2 import load_tokenizer

    found = re.search(
        r"rises from ([\d.]+) to ([\d.]+), close to the ln (\d+) = ([\d.]+)", text_of(12)
    )
    assert found
    folder = ROOT / "src" / "gpt2" / "bundled"
    model = GPT2Model.from_pretrained(folder)
    text = (folder / "held-out.txt").read_text(encoding="utf-8")
    ids = torch.tensor(load_tokenizer(folder).encode(text))
    rows = ids[: len(ids) // 256 * 256].view(-1, 256)

    @torch.no_grad()
    def loss() -> float:
        return float(F.cross_entropy(model(rows)[:, :-1].transpose(1, 2), rows[:, 1:]))

    right = loss()
    with torch.no_grad():
        for block in model.h:
            block.attn.c_proj.weight.copy_(block.attn.c_proj.weight.t().clone())
    wrong = loss()
    V = model.config.vocab_size
    assert [found[1], found[2], found[3]] == [f"{right:.2f}", f"{wrong:.2f}", str(V)]
    assert found[4] == f"{math.log(V):.2f}"


def test_what_the_hub_file_holds() -> None:
    """Catches the size of the weights given as the size of the file that a learner loads."""
    said = text_of(12)
    assert "160 tensors and 548 MB, not 148 and 497.8 MB" in said
    weights, masks = 4 * 124_439_808, 4 * 12 * 1024**2
    assert round(weights / 1e6, 1) == 497.8
    assert round(masks / 1e6, 1) == 50.3
    assert round((weights + masks) / 1e6) == 548
    assert 4 + 12 * 12 == 148
    assert 4 + 12 * 13 == 160


def test_multiplications_of_the_head() -> None:
    """Catches a share of the head that leaves attention out without a word."""
    said = text_of(10)
    assert "38.6 of the 123.5 million multiplications with weights per token" in said
    blocks, head = 12 * 12 * 768**2, 50_257 * 768
    assert round(head / 1e6, 1) == 38.6
    assert round((blocks + head) / 1e6, 1) == 123.5
    assert "18,432 per token looked at, for example 9.4 million at position 511" in said
    assert 12 * 2 * 768 == 18_432
    assert round(18_432 * 512 / 1e6, 1) == 9.4


def test_rounding_to_float16() -> None:
    """Catches a relative bound for float16 that fails for its subnormal numbers."""
    said = " ".join((ROOT / "docs" / "formats.md").read_text(encoding="utf-8").split())
    assert "2⁻¹¹ of each weight, or 2⁻²⁵ for weights below 2⁻¹⁴" in said
    exponents = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * 20 - 25
    weights = 2**exponents  # from 2⁻²⁵ to 2⁻⁵
    off = (weights.half().float() - weights).abs()
    small = weights < 2**-14
    assert (off[~small] <= 2**-11 * weights[~small]).all()
    assert (off[small] <= 2**-25).all()
    assert (off[small] > 2**-11 * weights[small]).any()
