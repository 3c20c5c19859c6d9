"""`gpt2 train --lora`: A and B alone learn, and the run's folder holds an adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt2.formats.checkpoints import save_pretrained
from gpt2.formats.opening import load_tokenizer, open_model
from gpt2.inference.loading import load_model, put_adapter
from gpt2.training.settings import TrainConfig
from gpt2.training.trainer import train
from tests.small_gpt2 import tiny
from tests.training_helpers import make_data, settings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared text."""
    return make_data(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the text's tokens."""
    tokenizer = load_tokenizer(data)
    folder = tmp_path_factory.mktemp("base")
    sizes = {"vocab_size": tokenizer.vocab_size, "n_positions": 12, "n_embd": 12, "n_head": 3}
    return save_pretrained(tiny(n_layer=2, **sizes), folder / "model", tokenizer)


def lora(data: Path, base: Path, **changes) -> TrainConfig:
    """Settings of a small run with LoRA; alpha / rank is not 1."""
    given = {"init_from": str(base), "lora": 3, "lora_alpha": 7.0, "lr": 1e-2}
    return settings(data, **(given | {"lora_targets": "c_attn, c_fc"} | changes))


def weights(place: Path) -> dict[str, torch.Tensor]:
    """A model's tensors."""
    return {k: v.detach() for k, v in load_model(open_model(place)).named_parameters()}


def test_only_the_update_is_trained(data: Path, base: Path, tmp_path: Path) -> None:
    """Catches a base that learns too, an adapter that is not the model's, and one that is empty."""
    train(lora(data, base), tmp_path / "run")
    before, best = weights(base), weights(tmp_path / "run" / "best")
    moved = {name for name in before if not torch.equal(before[name], best[name])}
    assert moved == {f"h.{i}.{end}.weight" for i in range(2) for end in ("attn.c_attn", "mlp.c_fc")}
    for name in moved:
        assert torch.linalg.matrix_rank(best[name] - before[name], rtol=1e-4) == 3
    model = load_model(open_model(base))
    put_adapter(model, tmp_path / "run" / "adapter")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, best[name], rtol=0, atol=1e-6)


def test_resumed_as_if_never_stopped(data: Path, base: Path, tmp_path: Path) -> None:
    """Catches A, B or their moments that are lost, and a base that has the update in it twice."""
    import shutil

    train(lora(data, base), tmp_path / "run")
    whole = (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "run", stopped)
    shutil.rmtree(stopped / "checkpoints" / "step-00000012")
    shutil.rmtree(stopped / "adapter")
    train(lora(data, base), stopped, resume=True)
    assert (stopped / "adapter" / "adapter_model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"init_from": None}, "init_from"),
        ({"lora": 0}, "lora must be"),
        ({"optimizer": "muon"}, "adamw with lora"),
        ({"lora_targets": "lm_head"}, "lm_head"),
        ({"lora_targets": "q_proj"}, "q_proj"),
    ],
    ids=str,
)
def test_what_cannot_be_adapted(
    change: dict, says: str, data: Path, base: Path, tmp_path: Path
) -> None:
    """Catches a run that starts with settings of which one has no effect."""
    with pytest.raises(ValueError, match=says):
        train(lora(data, base, **change), tmp_path / "run")
