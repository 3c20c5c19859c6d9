"""What a training run depends on: settings from presets, TOML files and flags."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

PRESETS = Path(__file__).parent / "presets"


def _setting(default: Any, help: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help, **metadata})


LARGEST = 1e308  # NaN is not below it, and an int beyond it is not a float

# may differ between a run and its resumption: they don't touch what is computed, or only when
FREE = {"free": True}


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on; a preset, a TOML file and the flags fill in the same fields."""

    # data
    source: str = _setting(
        "python-docs", "Text from which `gpt2 prepare` makes the data if they are missing."
    )
    data: str | None = _setting(
        None, "Folder with prepared data. Default: data/SOURCE-TOKENIZER.", **FREE
    )
    tokenizer: str = _setting("bpe", "char, bpe, gpt2, or a model's name.")
    vocab_size: int = _setting(1024, "Number of tokens of a bpe tokenizer made from the source.")
    order: str = _setting("random", "Read random windows of the data, or windows in sequence.")
    # model
    n_layer: int = _setting(4, "Number of layers.")
    n_head: int = _setting(4, "Number of attention heads per layer.")
    n_embd: int = _setting(128, "Width of the model.")
    context: int = _setting(128, "Tokens per sequence, T.")
    dropout: float = _setting(0.0, "Dropout on embeddings and residuals.")
    attn_dropout: float | None = _setting(
        None, "Dropout on attention weights; 0 allows the fused kernel. Default: --dropout."
    )
    init_from: str | None = _setting(None, "Fine-tune this model: a hub name or a folder.")
    lora: int | None = _setting(
        None, "Train an update of this rank beside the frozen weights of --init-from (LoRA)."
    )
    lora_alpha: float = _setting(16.0, "LoRA's update is scaled by this over the rank.")
    lora_dropout: float = _setting(0.0, "Dropout on the input of LoRA's update.")
    lora_targets: str = _setting(
        "c_attn", "Linear layers that LoRA adapts: of c_attn, c_proj and c_fc, with commas."
    )
    # optimization
    max_steps: int = _setting(1000, "Number of optimizer steps.", **FREE)
    batch_size: int = _setting(16, "Sequences per forward pass and rank, B.", **FREE)
    total_batch_tokens: int | None = _setting(
        None,
        "Tokens per step over all ranks; gradients of several passes are accumulated if needed.",
    )
    optimizer: str = _setting(
        "adamw", "adamw, or muon for the blocks' matrices with adamw for the rest."
    )
    lr: float = _setting(1e-3, "Peak learning rate.")
    min_lr_ratio: float = _setting(
        0.1, "Fraction of the peak at which the learning-rate schedule ends."
    )
    warmup_steps: int | None = _setting(
        None, "Steps until the learning rate reaches its peak. Default: 10 % of the steps."
    )
    weight_decay: float = _setting(0.1, "Weight decay, on matrices only.")
    beta1: float = _setting(0.9, "AdamW's β₁.")
    beta2: float = _setting(0.95, "AdamW's β₂.")
    momentum: float = _setting(0.95, "Muon's momentum.")
    grad_clip: float = _setting(1.0, "Largest norm of the gradient; 0 means no clipping.")
    ema_decay: float = _setting(0.0, "Average the weights with this decay; 0 means no averaging.")
    seed: int = _setting(1337, "Seed; the same seed gives the same run.")
    # how
    precision: str = _setting("auto", "auto, float32 or bfloat16 (autocast).")
    device: str = _setting("auto", "auto, cpu, cuda or mps.", **FREE)
    parallel: str = _setting(
        "ddp",
        "Under torchrun: ddp, fsdp to share out the model, or own for gpt2/data_parallel.py.",
        **FREE,
    )
    compile: bool = _setting(False, "torch.compile the model.", **FREE)
    threads: int | None = _setting(None, "Number of CPU threads.", **FREE)
    # logging and validation
    log_interval: int = _setting(10, "Steps between lines of the log.", **FREE)
    eval_interval: int = _setting(
        250, "Steps between validations; 0 means only at the end.", **FREE
    )
    eval_tokens: int | None = _setting(None, "Validation tokens to use. Default: all.", **FREE)
    patience: int | None = _setting(
        None, "Stop after this many validations without an improvement.", **FREE
    )
    sample_interval: int = _setting(500, "Steps between samples; 0 means none.", **FREE)
    sample_tokens: int = _setting(100, "Number of tokens in a sample.", **FREE)
    sample_prompt: str = _setting("", "Prompt of the samples.", **FREE)
    hellaswag: str | None = _setting(
        None, "HellaSwag file (JSONL) to score at each validation.", **FREE
    )
    tensorboard: bool = _setting(False, "Also write TensorBoard files.", **FREE)
    # checkpoints
    checkpoint_interval: int = _setting(250, "Steps between checkpoints.", **FREE)
    keep_last: int = _setting(2, "Number of checkpoints to keep.", **FREE)

    def __post_init__(self) -> None:
        """ValueError that names the field and its value for what cannot be trained with."""

        def need(name: str, fine: bool, rule: str) -> None:
            if not fine:
                raise ValueError(f"{name} must be {rule}, got {reprlib.repr(getattr(self, name))}")

        for spec in fields(self):
            value = getattr(self, spec.name)
            kind = str(spec.type)
            if value is None:
                need(spec.name, "None" in kind, f"a {kind}")
                continue
            if kind.startswith("int"):
                need(spec.name, isinstance(value, int) and not isinstance(value, bool), "an int")
                need(spec.name, -(2**63) <= value < 2**63, "an int of 64 bits")
            elif kind.startswith("float"):
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                need(spec.name, number and -LARGEST <= value <= LARGEST, "a finite number")
            elif kind.startswith("bool"):
                need(spec.name, isinstance(value, bool), "true or false")
            else:
                need(spec.name, isinstance(value, str), "a string")
        for name in ("context", "max_steps", "batch_size", "log_interval", "checkpoint_interval"):
            need(name, getattr(self, name) >= 1, "at least 1")
        for name in ("vocab_size", "n_layer", "n_head", "n_embd", "keep_last"):
            need(name, getattr(self, name) >= 1, "at least 1")
        for name in ("total_batch_tokens", "threads", "eval_tokens", "patience"):
            need(name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1")
        for name in ("eval_interval", "sample_interval", "sample_tokens", "grad_clip"):
            need(name, getattr(self, name) >= 0, "at least 0")
        need("warmup_steps", self.warmup_steps is None or self.warmup_steps >= 0, "at least 0")
        need("lr", self.lr > 0, "greater than 0")
        need("weight_decay", self.weight_decay >= 0, "at least 0")
        need("seed", 0 <= self.seed < 2**63, "in [0, 2⁶³)")
        for name in ("beta1", "beta2", "momentum", "ema_decay"):
            need(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        need("lora", self.lora is None or 1 <= self.lora <= 4096, "in [1, 4096]")
        if self.lora is not None:
            need("init_from", bool(self.init_from), "given with lora: it adapts a trained model")
            need("optimizer", self.optimizer == "adamw", "adamw with lora")
            need("parallel", self.parallel != "fsdp", "ddp or own with lora")
        for name in ("min_lr_ratio", "dropout", "lora_dropout"):
            need(name, 0 <= getattr(self, name) <= 1, "in [0, 1]")
        for name, choices in CHOICES.items():
            need(name, getattr(self, name) in choices, f"one of {', '.join(choices)}")

    @property
    def data_folder(self) -> Path:
        """The prepared folder, given or by default."""
        if self.data:
            return Path(self.data)
        tokenizer = f"bpe{self.vocab_size}" if self.tokenizer == "bpe" else self.tokenizer
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in f"{self.source}-{tokenizer}")
        return Path("data") / name[:100].strip("-")

    @property
    def lora_layers(self) -> tuple[str, ...]:
        """The names of the layers that LoRA adapts."""
        return tuple(name.strip() for name in self.lora_targets.split(",") if name.strip())

    @property
    def warmup(self) -> int:
        """Steps of warm-up, given or by default."""
        return round(0.1 * self.max_steps) if self.warmup_steps is None else self.warmup_steps


CHOICES = {
    "order": ("random", "sequential"),
    "optimizer": ("adamw", "muon"),
    "precision": ("auto", "float32", "bfloat16"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "parallel": ("ddp", "fsdp", "own"),
}


def preset_names() -> list[str]:
    """The presets there are."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_settings_file(path: str | Path) -> dict[str, Any]:
    """A TOML file of TrainConfig's fields, flat or in tables of any name → {field: value}.

    ValueError that names the file, and the unknown field with the one that was probably meant.
    """
    import difflib
    import tomllib

    path = Path(path)
    try:
        if path.stat().st_size > 1 << 20:
            raise ValueError(f"{path} is not a settings file: {path.stat().st_size} bytes")
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    flat: dict[str, Any] = {}
    for name, value in raw.items():
        items = value.items() if isinstance(value, dict) else [(name, value)]
        for key, entry in items:
            if key in flat:
                raise ValueError(f"{path} sets {key} twice")
            flat[key] = entry
    known = {spec.name for spec in fields(TrainConfig)}
    for name in flat:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{path}: no setting {reprlib.repr(name)}{hint}")
    return flat


def load_preset(name: str) -> dict[str, Any]:
    """A preset's settings. ValueError that lists those there are."""
    if name not in preset_names():
        raise ValueError(f"no preset {name!r}; there are: {', '.join(preset_names())}")
    return read_settings_file(PRESETS / f"{name}.toml")
