"""The textbook's GPT-2 against PyTorch's and Hugging Face's, and its steps one by one."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_gpt2.checking import textbook
from learn_gpt2.checking.textbook import Steps

CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
CONFIG = SimpleNamespace(
    vocab_size=17, n_positions=11, n_embd=12, n_layer=2, n_head=3, layer_norm_epsilon=0.03
)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Reproducible numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def theirs() -> tuple[nn.Module, dict[str, Tensor]]:
    """Hugging Face's GPT-2 with random weights, and these under our names."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(**vars(CONFIG), n_inner=None, attn_implementation="eager")
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(random(*parameter.shape, seed=seed) * 0.5)
    w = {}
    for name, value in model.transformer.state_dict().items():
        ours = f"embeddings.{name}" if name.startswith("w") else name
        w[ours] = value.T if name.endswith(CONV1D) else value
    return model, w


def test_the_model_is_gpt2() -> None:
    """Catches a wrong step anywhere: the logits are those of an implementation that shares none."""
    model, w = theirs()
    ids = torch.randint(17, (3, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(
            textbook.model(w, CONFIG, [ids]), model(ids).logits, rtol=1e-4, atol=1e-4
        )


def test_pieces_and_the_last_only() -> None:
    """Catches a cache that loses or doubles tokens, positions that restart, and a wrong cut."""
    _, w = theirs()
    ids = torch.randint(17, (2, 7), generator=torch.Generator().manual_seed(2))
    whole, stored = textbook.model(w, CONFIG, [ids]), {}
    fed = textbook.model(w, CONFIG, [ids[:, :3], ids[:, 3:4], ids[:, 4:]], stored=stored)
    torch.testing.assert_close(fed, whole[:, 4:], rtol=1e-4, atol=1e-4)
    assert [k.shape for k, _ in stored.values()] == [(2, 3, 7, 4)] * 2
    last = textbook.model(w, CONFIG, [ids], last_only=True)
    torch.testing.assert_close(last, whole[:, -1:], rtol=1e-4, atol=1e-4)


def test_attention_is_pytorchs() -> None:
    """Catches a wrong scale, softmax or mask, by PyTorch's own operator."""
    q, k, v = random(2, 3, 4, 6), random(2, 3, 5, 6, seed=1), random(2, 3, 5, 6, seed=2)
    mask = torch.ones(4, 5, dtype=torch.bool).tril(1)
    for given in (None, mask):
        output, weights = textbook.attention(q, k, v, given)
        torch.testing.assert_close(output, F.scaled_dot_product_attention(q, k, v, given))
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4))


def test_without_a_mask_it_is_pytorchs_multi_head_attention() -> None:
    """Catches heads that are cut or merged in another way."""
    layer = nn.MultiheadAttention(15, 3, batch_first=True)
    w = {
        "c_attn.weight": layer.in_proj_weight,
        "c_attn.bias": layer.in_proj_bias,
        "c_proj.weight": layer.out_proj.weight,
        "c_proj.bias": layer.out_proj.bias,
    }
    x = random(2, 4, 15)
    want = layer(x, x, x, need_weights=False)[0]
    torch.testing.assert_close(textbook.multi_head(x, w, 3, mask=textbook.unmasked), want)


@pytest.mark.parametrize("name", ["layer_norm", "gelu"])
def test_the_steps_give_what_pytorch_gives(name: str) -> None:
    """Catches a formula that differs from the operator which stands in for it when nothing listens:
    `learn explain` would then list other numbers than the checks compare with.
    """
    x, w, b = random(2, 4, 6) * 3 + 1, random(6, seed=1), random(6, seed=2)
    heard: list[Tensor] = []

    def note(name: str, value: Tensor) -> None:
        heard.append(value)

    if name == "gelu":
        got, want = textbook.gelu(x, note=note), F.gelu(x, approximate="tanh")
    else:
        got, want = textbook.layer_norm(x, w, b, 0.2, note=note), F.layer_norm(x, (6,), w, b, 0.2)
    assert len(heard) > 1
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(heard[-1], want)


def test_a_step_that_is_replaced_reaches_the_pieces() -> None:
    """Catches a switch that a block or the model does not hand down: its mistake would be found in
    nothing.
    """
    _, w = theirs()
    ids = torch.randint(17, (2, 5), generator=torch.Generator().manual_seed(3))
    right = textbook.model(w, CONFIG, [ids])
    for switches in (
        {"divisor": lambda n: 1.0},
        {"gelu": F.relu},
        {"root": lambda v, eps: v + eps},
        {"combine": lambda t, p: t},
        {"drop_resid": torch.zeros_like},
        {"first": lambda x, norm, f: f(norm(x))},
        {"mask": textbook.unmasked},
    ):
        assert not torch.allclose(textbook.model(w, CONFIG, [ids], **switches), right, atol=1e-3)


def test_no_step_is_called_like_an_argument() -> None:
    """Catches a step that can't be replaced, since a function's own argument has its name: the
    mistake's computation then stops with an error, and is never compared.
    """
    import inspect

    for function in (textbook.multi_head, textbook.layer_norm, textbook.gelu, textbook.block):
        assert textbook.NAMES.isdisjoint(inspect.signature(function).parameters), function
    assert textbook.NAMES.isdisjoint(inspect.signature(textbook.model).parameters)


def test_a_block_that_is_passed_twice_runs_with_a_cache() -> None:
    """Catches a mistake that only stops with an error when there is a cache, which has no layer for
    a block that is passed once too often.
    """
    _, w = theirs()
    ids = torch.randint(17, (2, 5), generator=torch.Generator().manual_seed(4))
    twice = textbook.model(w, CONFIG, [ids[:, :3], ids[:, 3:]], blocks=lambda n: [0, *range(n)])
    assert twice.shape == (2, 2, 17)


def test_a_step_that_is_not_there_is_an_error() -> None:
    """Catches a misspelled switch that replaces nothing, so that its mistake is never named."""
    with pytest.raises(TypeError, match="no step is called divisro"):
        Steps().but(divisro=1)


def test_titles_of_steps_are_nested() -> None:
    """Catches steps of one layer that can't be told from another's."""
    _, w = theirs()
    heard = []
    textbook.model(
        w, CONFIG, [torch.tensor([[1, 2, 3]])], note=lambda name, value: heard.append(name)
    )
    assert heard[0] == "the embeddings"
    assert heard[-1] == "the logits"
    assert "block 1: ln_2: the variance" in heard
    assert "block 0: attention: the masked scores" in heard
    assert len(heard) == len(set(heard))
