"""Loading, naming and writing a model whose pieces were made in another way than ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import gpt2.model
from gpt2.formats.checkpoints import Tensors, save_pretrained
from gpt2.formats.gguf import save_gguf
from gpt2.formats.opening import open_model
from gpt2.formats.parameters import model_tensors, parameter_names, put_embeddings_first
from gpt2.inference.engine import prepare
from gpt2.inference.loading import load_model
from gpt2.training.trainer import train
from tests.small_gpt2 import tiny
from tests.training_helpers import make_data, settings


@pytest.fixture
def head_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """New models list the head before the embeddings, as a right piece may."""
    make = gpt2.model.GPT2Model.__init__

    def init(self: nn.Module, config: gpt2.model.GPT2Config) -> None:
        make(self, config)
        for name in [name for name in self._modules if name != "lm_head"]:
            self._modules[name] = self._modules.pop(name)

    monkeypatch.setattr(gpt2.model.GPT2Model, "__init__", init)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(7)[None])


def test_the_table_has_one_name(head_first: None) -> None:
    """Catches a training state that calls the shared table by whichever name came first."""
    model = tiny()
    assert next(name for name, _ in model.named_parameters()) == "lm_head.weight"
    names = parameter_names(model)
    assert names[0] == "embeddings.wte.weight"
    assert "lm_head.weight" not in names
    named = dict(model.named_parameters(remove_duplicate=False))
    pairs = zip(names, model.parameters(), strict=True)
    assert all(named[name] is parameter for name, parameter in pairs)


def test_embeddings_first(head_first: None) -> None:
    """Catches a reordering that loses a part or changes what is computed."""
    model = tiny()
    want, parts = logits(model), set(model._modules)
    put_embeddings_first(model)
    assert next(iter(model._modules)) == "embeddings"
    assert set(model._modules) == parts
    assert torch.equal(logits(model), want)


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_head_made_first_is_written_and_read(head_first: None, tmp_path: Path, kind: str) -> None:
    """Catches an export that looks a tensor up under a name which the model lists second."""
    if kind == "gguf":
        pytest.importorskip("gguf")
    model = tiny()
    write = save_gguf if kind == "gguf" else save_pretrained
    path = write(model, tmp_path / kind)
    assert torch.equal(logits(load_model(open_model(path))), logits(model))


def test_a_mapping_with_prefixes_is_not_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an export whose names depend on how problem 12's mapping spells them."""
    plain = gpt2.model.GPT2Model._build_weight_mapping

    def prefixed(n_layer: int) -> dict[str, tuple[str, bool]]:
        return {f"transformer.{key}": value for key, value in plain(n_layer).items()}

    monkeypatch.setattr(gpt2.model.GPT2Model, "_build_weight_mapping", staticmethod(prefixed))
    model = tiny()
    held = Tensors([save_pretrained(model, tmp_path / "out") / "model.safetensors"])
    assert {key.count("transformer.") for key in held} == {1}
    assert len(held) == len(dict(model_tensors(model)))


def test_from_pretrained_without_dtype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches half precision that is asked of a from_pretrained which has no such argument."""
    folder = save_pretrained(tiny(), tmp_path / "out")
    theirs = gpt2.model.GPT2Model.from_pretrained
    seen = []

    def plain(cls: type, model_name: str = "gpt2") -> nn.Module:
        seen.append(model_name)
        return theirs(model_name)

    monkeypatch.setattr(gpt2.model.GPT2Model, "from_pretrained", classmethod(plain))
    model = load_model(open_model(folder), dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert seen == [str(folder)]
    assert model.lm_head.weight is model.embeddings.wte.weight


def test_a_missing_parameter_is_named() -> None:
    """Catches an export that ends in a KeyError."""
    model = tiny()
    del model.h[1].ln_2.bias
    model.h[1].ln_2.bias = torch.zeros(20)
    with pytest.raises(ValueError, match=r"h\.1\.ln_2\.bias"):
        dict(model_tensors(model))


def test_training_goes_on_with_a_head_made_first(head_first: None, tmp_path: Path) -> None:
    """Catches a run whose end, or whose resumption, looks up the table by its other name."""
    data = make_data(tmp_path)
    few = {"max_steps": 2, "checkpoint_interval": 2, "optimizer": "muon", "ema_decay": 0.9}
    train(settings(data, **few), tmp_path / "run")
    figures = train(settings(data, **few | {"max_steps": 3}), tmp_path / "run", resume=True)
    assert figures["step"] == 3


def test_int8_takes_a_transposed_weight() -> None:
    """Catches int8 layers that ask for a weight whose rows lie one behind the other."""
    model = tiny()
    want = logits(model)
    for block in model.h:
        weight = block.mlp.c_fc.weight
        weight.data = weight.data.t().contiguous().t()
    assert torch.equal(logits(model), want)
    with prepare(model, quantize="int8"), torch.no_grad():
        got = model(torch.arange(7)[None])
    assert torch.isfinite(got).all()


def test_a_functional_dropout_keeps_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches the fused kernel in the place of an attention whose dropout is not a module."""
    import torch.nn.functional as F

    from gpt2.inference.fused import fusible

    model = tiny()
    assert len(fusible(model)) == len(model.h)
    for block in model.h:
        block.attn.attention.p = 0.1
        block.attn.attention.dropout = None

    def forward(self, q, k, v, mask=None):
        scores = q @ k.mT / q.size(-1) ** 0.5
        scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        weights = F.dropout(scores.softmax(-1), self.p, self.training)
        return weights @ v, weights

    monkeypatch.setattr(gpt2.model.ScaledDotProductAttention, "forward", forward)
    assert fusible(model) == []
