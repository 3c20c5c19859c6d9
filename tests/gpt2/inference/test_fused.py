"""The fused kernel in the place of a model's own attention: where it may stand, what it gives."""

import copy

import pytest
import torch
from torch import Tensor, nn

from gpt2.cache import KVCache
from gpt2.inference.engine import Inference
from gpt2.inference.fused import FusedAttention, fuse, fused_attention, fusible
from gpt2.model import GPT2Model
from tests.small_gpt2 import tiny


def model(**settings: float) -> GPT2Model:
    """A small model whose attention has something to decide."""
    torch.manual_seed(0)
    made = tiny(vocab_size=11, n_positions=9, **settings)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5)
    return made


def through_a_cache(made: GPT2Model, ids: Tensor) -> Tensor:
    """Logits of the same ids in pieces of 3, 1 and the rest."""
    cache = KVCache(made.config, batch_size=len(ids))
    return torch.cat([made(part, cache) for part in (ids[:, :3], ids[:, 3:4], ids[:, 4:])], 1)


def test_it_gives_what_the_models_own_attention_gives() -> None:
    """Catches a mask, a scale or a layer of its own: at once, and in pieces with a cache."""
    made = model().eval()
    ids = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        own = made(ids), through_a_cache(made, ids)
        with fused_attention(made):
            assert all("forward" in block.attn.attention.__dict__ for block in made.h)
            fused = made(ids), through_a_cache(made, ids)
    for got, want in zip(fused, own, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert not any("forward" in block.attn.attention.__dict__ for block in made.h)


def test_gradients_are_the_models_own() -> None:
    """Catches a training run that learns something else than the model as it is written."""
    ids = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(1))
    gradients = []
    for put_on in (False, True):
        made = model(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0).train()
        assert fuse(made) == (len(made.h)) if put_on else True
        made(ids).square().mean().backward()
        gradients.append([p.grad for p in made.parameters()])
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


def test_a_copy_has_an_attention_of_its_own() -> None:
    """Catches a copy that asks the original's attention whether it is in training mode."""
    made = model().train()
    fuse(made)
    twin = copy.deepcopy(made)
    for block in twin.h:
        assert block.attn.attention.forward.attention is block.attn.attention


class Doubled(nn.Module):
    """Wraps an attention and gives twice its output."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.inner = attention

    def forward(self, q, k, v, mask=None):
        """Twice the output."""
        y, weights = self.inner(q, k, v, mask)
        return 2 * y, weights


class Biased(Doubled):
    """Right today, with a parameter that training would change."""

    def __init__(self, attention: nn.Module):
        super().__init__(attention)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, q, k, v, mask=None):
        """The output, plus a bias of 0."""
        y, weights = self.inner(q, k, v, mask)
        return y + self.bias, weights


class Backward(Doubled):
    """Looks at later positions only."""

    def forward(self, q, k, v, mask=None):
        """With the mask turned round."""
        return self.inner(q, k, v, None if mask is None else mask.mT)


@pytest.mark.parametrize("kind", [Doubled, Biased, Backward])
def test_an_attention_that_does_something_else_stays(kind: type[Doubled]) -> None:
    """Catches a piece that is replaced by what it should have computed."""
    made = model().eval()
    for block in made.h:
        block.attn.attention = kind(block.attn.attention)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        own = made(ids)
        assert fusible(made) == []
    with Inference(made):
        assert torch.equal(made(ids), own)


def test_a_layer_that_masks_in_another_way_keeps_its_attention() -> None:
    """Catches the kernel's causal mask where the layer asked for another one."""
    made = model().eval()
    for block in made.h:
        block.attn._attend = lambda q, k, v, attn=block.attn: attn.attention(
            q, k, v, torch.ones(q.size(-2), k.size(-2), dtype=torch.bool)
        )[0]
    assert fusible(made) == []


def test_who_listens_to_the_attention_gets_its_weights() -> None:
    """Catches a picture of the attention that finds none."""
    made = model().eval()
    found: list[Tensor] = []
    made.h[1].attn.attention.register_forward_hook(lambda m, i, o: found.append(o[1]))
    with Inference(made):
        made(torch.arange(8)[None])
    assert found[0].shape[-2:] == (8, 8)


def test_dropout_acts_in_training_and_not_in_eval_mode() -> None:
    """Catches weights that are never dropped, or dropped while the model writes."""
    made = model(attn_pdrop=0.5).train()
    attention = made.h[0].attn.attention
    fused = FusedAttention(attention)
    q = torch.randn(1, 1, 6, 4)
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    attention.train()
    assert not torch.equal(fused(q, q, q, mask)[0], fused(q, q, q, mask)[0])
    attention.eval()
    assert torch.equal(fused(q, q, q, mask)[0], fused(q, q, q, mask)[0])


def test_no_attention_no_kernel() -> None:
    """Catches a module that is not a GPT-2 and brings the look at it down."""
    assert fusible(nn.Linear(2, 2)) == []
    assert fuse(nn.ModuleDict({"h": nn.ModuleList([nn.Linear(2, 2)])})) == 0


def test_nobody_hears_the_comparison() -> None:
    """Catches a hook that is told of a trial's numbers as if they were the model's."""
    made, heard = model(), []
    first = made.h[0].attn
    for module in first.modules():
        module.register_forward_hook(lambda module, inputs, output: heard.append(module))
        module.register_forward_pre_hook(lambda module, inputs: heard.append(module))
    inference = Inference(made)
    assert len(inference.fused) == len(made.h)
    assert not heard
    ids = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(1))
    with inference:
        made(ids)
    # each once before and once after, those inside of the attention too
    assert sorted(map(id, heard)) == sorted(2 * [id(module) for module in first.modules()])


def test_it_follows_a_hook_that_changes_something() -> None:
    """Catches a mask or weights, changed from outside, that the kernel goes past."""
    made = model().eval()
    ids = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(1))
    attention = made.h[0].attn.attention
    with torch.no_grad():
        plain = made(ids)
        for add in (
            lambda: attention.register_forward_pre_hook(lambda m, inputs: (*inputs[:3], None)),
            lambda: attention.dropout.register_forward_hook(lambda m, inputs, output: output / 2),
        ):
            hook = add()
            own = made(ids)
            assert not torch.allclose(own, plain, atol=1e-2)
            with fused_attention(made):
                torch.testing.assert_close(made(ids), own, rtol=1e-4, atol=1e-4)
            hook.remove()
