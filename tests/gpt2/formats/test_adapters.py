"""Adapters in peft's format. `peft` itself is the oracle, in both directions."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from gpt2.formats.adapters import CONFIG, PICKLE, WEIGHTS, read_adapter, write_adapter
from gpt2.formats.checkpoints import save_pretrained, save_tensors, settings_of
from gpt2.inference.loading import put_adapter
from gpt2.lora import adapter_state, add_lora
from tests.small_gpt2 import tiny

RANK, ALPHA = 3, 7  # alpha / rank is not 1, nor a whole number
IDS = torch.tensor([[5, 3, 96, 0, 7, 41], [1, 2, 3, 4, 5, 6]])


def adapted(targets: tuple[str, ...] = ("c_attn", "c_proj")) -> torch.nn.Module:
    """A tiny model with random numbers in its updates."""
    model = tiny()
    add_lora(model, RANK, ALPHA, 0.0, targets)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter's folder that is right."""
    return write_adapter(tmp_path / "adapter", adapter_state(adapted()), ALPHA)


def base_of(tmp_path: Path):
    """The tiny model as Hugging Face loads it."""
    from transformers import GPT2LMHeadModel

    save_pretrained(tiny(), tmp_path / "base")
    return GPT2LMHeadModel.from_pretrained(tmp_path / "base").eval()


@pytest.mark.filterwarnings("ignore")
def test_peft_loads_ours(folder: Path, tmp_path: Path) -> None:
    """Catches names, shapes, a scaling or a configuration that peft reads otherwise."""
    peft = pytest.importorskip("peft")
    theirs = peft.PeftModel.from_pretrained(base_of(tmp_path), folder).eval()
    with torch.no_grad():
        ours, wanted = adapted()(IDS), theirs(IDS).logits
        assert (wanted - tiny()(IDS)).abs().max() > 0.1  # the adapter does something
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["c_attn"]},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.attn\.c_proj"},
        {"target_modules": ["c_proj"], "use_rslora": True},
        {"target_modules": ["mlp.c_proj", "c_fc"], "layers_to_transform": [1]},
        {"target_modules": ["c_proj"], "exclude_modules": ["mlp.c_proj"]},
        {"target_modules": ["c_attn"], "init_lora_weights": "gaussian", "fan_in_fan_out": True},
    ],
    ids=str,
)
def test_ours_loads_peft(options: dict, tmp_path: Path) -> None:
    """Catches an option of peft's that is read otherwise than peft means it."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.1, **options)
    theirs = peft.get_peft_model(base_of(tmp_path), config).eval()
    torch.manual_seed(2)
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    theirs.save_pretrained(tmp_path / "adapter")
    model = tiny()
    with torch.no_grad():
        plain = model(IDS)
        put_adapter(model, tmp_path / "adapter")
        torch.testing.assert_close(model(IDS), theirs(IDS).logits, rtol=0, atol=1e-5)
        assert (model(IDS) - plain).abs().max() > 0.1
    assert all(type(m).__name__ != "LoRALinear" for m in model.modules())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "LOHA"}, "peft_type must be LORA"),
        ({"peft_type": None}, "peft_type must be LORA"),
        ({"r": 0}, "r must be an int"),
        ({"r": True}, "r must be an int"),
        ({"r": 4}, "has the shape"),
        ({"lora_alpha": "16"}, "lora_alpha must be a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a number"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"c_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"c_proj": 2}}, "alpha_pattern"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"use_rslora": "yes"}, "use_rslora"),
        ({"something_new": 3}, "something_new"),
        ({"target_modules": ["q_proj"]}, "q_proj"),
        ({"target_modules": ["lm_head", "c_attn"]}, "lm_head"),
        ({"target_modules": None}, "target_modules must be"),
        ({"target_modules": "("}, "not a regular expression"),
        ({"target_modules": "(a+)+b"}, "too involved"),
        ({"target_modules": "nothing"}, "fits no layer"),
        ({"target_modules": ["c_attn"]}, "no place in the model"),
        ({"target_modules": "all-linear"}, "lacks"),
        ({"layers_to_transform": [0]}, "no place in the model"),
    ],
    ids=str,
)
def test_what_is_refused(change: dict, says: str, folder: Path) -> None:
    """Catches an option that is passed over in silence, so that another model is computed."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8")) | change
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    model = tiny()
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        put_adapter(model, folder)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_tensors_that_do_not_fit(folder: Path) -> None:
    """Catches an adapter that lacks a tensor, or holds NaN, another one, or another model's."""
    settings = settings_of(tiny().config)
    state = read_adapter(folder, settings).state
    name = next(iter(state))
    for changed, says in (
        ({k: v for k, v in state.items() if k != name}, "lacks"),
        ({**state, "nobody.lora_A.weight": state[name].clone()}, "no place in the model"),
        ({**state, name: state[name] * float("nan")}, "NaN or infinite"),
        ({**state, name: state[name].t().contiguous()}, "has the shape"),
    ):
        save_tensors(changed, folder / WEIGHTS)
        with pytest.raises(ValueError, match=says):
            read_adapter(folder, settings)
    save_tensors(state, folder / WEIGHTS)
    with pytest.raises(ValueError, match="has the shape"):
        read_adapter(folder, settings | {"n_embd": 25})


def test_pickles(folder: Path) -> None:
    """Catches a pickle that runs code, and one of tensors alone that is refused."""
    settings = settings_of(tiny().config)
    wanted = read_adapter(folder, settings).state
    (folder / WEIGHTS).unlink()
    with pytest.raises(ValueError, match=f"no {WEIGHTS}"):
        read_adapter(folder, settings)
    torch.save(wanted, folder / PICKLE)
    found = read_adapter(folder, settings).state
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code ran')",))

    (folder / PICKLE).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="file of tensors alone"):
        read_adapter(folder, settings)
