"""The training loop's parts against PyTorch's own, and the command from preset to text."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from small_gpt2 import tiny
from training_helpers import make_data, settings

from gpt2.cli import cli
from gpt2.data.shards import BatchLoader, TokenSource, read_index
from gpt2.figures.plots import curve, plot_run, text_plot
from gpt2.formats.checkpoints import save_pretrained
from gpt2.formats.opening import load_tokenizer
from gpt2.model import GPT2Model
from gpt2.training.settings import TrainConfig, load_preset, preset_names, read_settings_file
from gpt2.training.trainer import Trainer, World, make_optimizers, read_log, scheduled_rate, train

CPU = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared text."""
    return make_data(tmp_path_factory.mktemp("text"))


def test_losses_and_weights_are_those_of_a_plain_loop(data: Path, tmp_path: Path) -> None:
    """Catches a wrong shift, a missing average over parts, decay on biases, a schedule that is a
    step late: the same ten steps are written out here with PyTorch's AdamW and schedulers.
    """
    config = settings(data, max_steps=10, dropout=0.0, warmup_steps=3, lr=0.01, grad_clip=0.5)
    trainer = Trainer(config, tmp_path, CPU)
    model = GPT2Model(trainer.core.config)
    model.load_state_dict(trainer.core.state_dict())
    trainer.train()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    other = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.95),
    )
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 3, 1.0, 2)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7, 0.001)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [3])
    loader = BatchLoader(TokenSource(read_index(data), "train"), 8, 10, seed=config.seed)
    rows = read_log(tmp_path / "log.jsonl")
    for row in (row for row in rows if "loss" in row):
        x, y = loader.next()
        loss = F.cross_entropy(model(x).transpose(1, 2), y)  # all parts at once
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        assert row["loss"] == pytest.approx(loss.item(), abs=2e-6)
        assert row["grad_norm"] == pytest.approx(float(norm), abs=2e-4)
        assert row["lr"] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-5)
        optimizer.step()
        schedule.step()
    for ours, theirs in zip(trainer.core.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)  # the rate was up to 1e-2


def test_the_schedule_at_its_corners() -> None:
    """Catches a warm-up that starts at zero or a cosine that ends elsewhere than at a tenth."""
    config = TrainConfig(max_steps=100, lr=2.0)
    assert config.warmup == 10
    assert scheduled_rate(0, config) == pytest.approx(0.2)
    assert scheduled_rate(9, config) == scheduled_rate(10, config) == pytest.approx(2.0)
    assert scheduled_rate(55, config) == pytest.approx(1.1)
    assert scheduled_rate(100, config) == scheduled_rate(1000, config) == pytest.approx(0.2)
    assert scheduled_rate(0, replace(config, warmup_steps=0)) == 2.0


def test_decay_is_on_matrices_only() -> None:
    """Catches norms and biases pulled to zero, and parameters in no group or in two."""
    model = tiny()
    for kind in ("adamw", "muon") if hasattr(torch.optim, "Muon") else ("adamw",):
        groups = [
            group
            for optimizer in make_optimizers(model, TrainConfig(optimizer=kind))
            for group in optimizer.param_groups
        ]
        for group in groups:
            dims = {p.dim() > 1 for p in group["params"]}
            assert dims == {group["weight_decay"] > 0}
        found = [id(p) for group in groups for p in group["params"]]
        assert sorted(found) == sorted(id(p) for p in model.parameters())


def test_averaged_weights_are_what_is_validated_and_kept(data: Path, tmp_path: Path) -> None:
    """Catches an average that is never used, or that leaks into training."""
    config = settings(data, ema_decay=0.5, max_steps=6, log_interval=1)
    trainer = Trainer(config, tmp_path / "a", CPU)
    expected = [p.detach().clone() for p in trainer.core.parameters()]
    step = trainer._step

    def watched():
        result = step()
        decay = min(0.5, (1 + trainer.done) / (10 + trainer.done))
        for value, p in zip(expected, trainer.core.parameters(), strict=True):
            value.mul_(decay).add_(p.detach(), alpha=1 - decay)
        return result

    trainer._step = watched
    trainer.train()
    kept = GPT2Model.from_pretrained(tmp_path / "a" / "best")
    for value, p in zip(expected, kept.parameters(), strict=True):
        torch.testing.assert_close(value, p.detach(), rtol=1e-4, atol=1e-6)
    train(replace(config, ema_decay=0.0), tmp_path / "b")
    one, two = (
        [row["loss"] for row in read_log(tmp_path / run / "log.jsonl") if "loss" in row]
        for run in "ab"
    )
    assert one == two


def test_a_token_that_follows_another_is_learnt(tmp_path: Path) -> None:
    """Catches a loop that runs but does not learn: of "abcabc…" the loss falls below 0.1."""
    (tmp_path / "a.txt").write_text("abc" * 700)
    config = TrainConfig(
        source=str(tmp_path / "a.txt"),
        data=str(tmp_path / "d"),
        tokenizer="char",
        n_layer=1,
        n_head=2,
        n_embd=16,
        context=8,
        max_steps=60,
        lr=0.02,
        device="cpu",
        sample_interval=0,
        threads=1,
    )
    assert train(config, tmp_path / "run")["val_loss"] < 0.1


def test_early_stopping_after_so_many_worse_validations(data: Path, tmp_path: Path) -> None:
    """Catches a run that goes on, or that stops at the first worse one."""
    config = settings(
        data, max_steps=500, lr=3.0, grad_clip=0.0, eval_interval=1, patience=3, warmup_steps=0
    )
    result = train(config, tmp_path)
    vals = [r["val_loss"] for r in read_log(tmp_path / "log.jsonl") if "val_loss" in r]
    assert len(vals) == result["step"] < 500
    best = vals.index(min(vals))
    assert len(vals) - 1 - best == 3


def test_a_loss_that_is_no_number_ends_the_run(data: Path, tmp_path: Path) -> None:
    """Catches hours of training on NaN."""
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step"):
        train(settings(data, lr=1e38, grad_clip=0.0, max_steps=50), tmp_path)


def test_fine_tuning_starts_from_the_given_weights(data: Path, tmp_path: Path) -> None:
    """Catches --init-from that starts from random weights, or takes another tokenizer's text."""
    index = read_index(data)
    model = tiny(vocab_size=index.vocab_size)
    save_pretrained(model, tmp_path / "m", load_tokenizer(data))
    config = settings(data, init_from=str(tmp_path / "m"), context=9, total_batch_tokens=72)
    trainer = Trainer(config, tmp_path / "run", CPU)
    for ours, theirs in zip(trainer.core.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert trainer.core.h[0].attn.resid_dropout.p == 0.1
    trainer.train()
    best = GPT2Model.from_pretrained(tmp_path / "run" / "best")
    assert best.config.n_positions == model.config.n_positions
    save_pretrained(tiny(), tmp_path / "other")
    with pytest.raises(ValueError, match=f"97 tokens.*prepared with {index.vocab_size}"):
        Trainer(replace(config, init_from=str(tmp_path / "other")), tmp_path / "r", CPU)
    with pytest.raises(ValueError, match="context = 24 > n_positions = 23"):
        Trainer(replace(config, context=24, total_batch_tokens=None), tmp_path / "r", CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "lr must be greater than 0"),
        ({"lr": math.nan}, "lr must be a finite number"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"dropout": 1.5}, "dropout must be in"),
        ({"seed": -1}, "seed must be in"),
        ({"precision": "float8"}, "precision must be one of"),
        ({"n_layer": "4"}, "n_layer must be an int"),
        ({"compile": 1}, "compile must be true or false"),
        ({"source": 5}, "source must be a string"),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict, message: str) -> None:
    """Catches a value that fails deep inside PyTorch, or not at all."""
    with pytest.raises(ValueError, match=message):
        TrainConfig(**change)


def test_batches_that_do_not_divide_are_refused(data: Path, tmp_path: Path) -> None:
    """Catches a total batch that is silently rounded."""
    with pytest.raises(ValueError, match="90 is not divisible by context × ranks = 20 × 1"):
        Trainer(settings(data, total_batch_tokens=90, context=20), tmp_path, CPU)
    with pytest.raises(ValueError, match="not divisible by batch_size = 3"):
        Trainer(settings(data, batch_size=3), tmp_path, CPU)


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_settings(name: str) -> None:
    """Catches a preset with a misspelt field, or a total batch that its context doesn't divide."""
    config = TrainConfig(**load_preset(name))
    assert (config.total_batch_tokens or 0) % (config.context * 8) == 0
    assert config.n_embd % config.n_head == 0


def test_a_toml_file_with_a_typo_says_what_was_meant(tmp_path: Path) -> None:
    """Catches settings that are ignored in silence."""
    path = tmp_path / "mine.toml"
    path.write_text("[a]\nlr = 0.1\n[b]\nmax_stps = 5\n")
    with pytest.raises(ValueError, match="did you mean max_steps"):
        read_settings_file(path)
    for text in ("lr = ", "[a]\nlr = 1.0\n[b]\nlr = 2.0\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"mine\.toml"):
            read_settings_file(path)
    with pytest.raises(ValueError, match="no preset"):
        load_preset("../../pyproject")


def test_flags_win_over_the_file_and_the_file_over_the_preset(data: Path, tmp_path: Path) -> None:
    """Catches settings merged in another order, and a run that tells less than it should."""
    path = tmp_path / "mine.toml"
    path.write_text("n_layer = 1\nmax_steps = 7\nn_embd = 8\nn_head = 2\ncontext = 16\n")
    arguments = ["train", "--preset", "shakespeare-char", "--config", str(path), "--max-steps"]
    arguments += ["4", "--data", str(data), "--out", str(tmp_path / "run"), "--eval-tokens", "50"]
    arguments += ["--threads", "1", "--log-interval", "2", "--sample-prompt", "the ", "--device"]
    result = CliRunner().invoke(cli, [*arguments, "cpu"], catch_exceptions=False)
    assert result.exit_code == 0
    for words in ("step 4/4", "tokens/s", "left", "lr ", "|g|", "validation loss", "--- sample"):
        assert words in result.output
    saved = json.loads((tmp_path / "run/checkpoints/step-00000004/training.json").read_text())
    chosen = {name: saved["config"][name] for name in ("n_layer", "max_steps", "beta2")}
    assert chosen == {"n_layer": 1, "max_steps": 4, "beta2": 0.99}
    text = CliRunner().invoke(
        cli, ["generate", "--model", str(tmp_path / "run/best"), "--prompt", "the ", "--seed", "1"]
    )
    assert text.exit_code == 0
    plot = CliRunner().invoke(cli, ["plot", str(tmp_path / "run")], catch_exceptions=False)
    assert plot.exit_code == 0
    assert (tmp_path / "run/curves.png").read_bytes().startswith(b"\x89PNG")


def test_training_writes_what_its_log_promises(data: Path, tmp_path: Path) -> None:
    """Catches figures that are missing from the log, and a sample that does not begin as asked."""
    config = settings(data, eval_interval=6, sample_interval=6, sample_prompt="cat", log_interval=5)
    train(config, tmp_path)
    rows = read_log(tmp_path / "log.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [5, 10, 12]
    assert {"lr", "grad_norm", "tokens_per_s", "seconds"} <= rows[0].keys()
    assert [row["step"] for row in rows if "val_loss" in row] == [6, 12]
    assert all(row["sample"].startswith("cat") for row in rows if "sample" in row)


def test_hellaswag_and_tensorboard_while_training(data: Path, tmp_path: Path) -> None:
    """Catches a score that is not logged, and events that are not written."""
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    line = {"ctx": "the cat", "endings": ["sat", "ran.", "on a", "mat,"], "label": 0}
    (tmp_path / "h.jsonl").write_text(json.dumps(line) + "\n")
    config = settings(data, hellaswag=str(tmp_path / "h.jsonl"), tensorboard=True, context=16)
    train(replace(config, total_batch_tokens=64), tmp_path / "run")
    assert any("hellaswag_acc_norm" in row for row in read_log(tmp_path / "run/log.jsonl"))
    assert list((tmp_path / "run/tensorboard").iterdir())


def test_the_text_plot_puts_values_where_they_are(tmp_path: Path) -> None:
    """Catches a curve upside down or mirrored, or wider than the terminal."""
    rows = [{"step": s, "loss": 4.0 - s} for s in (1, 2, 3)] + [{"step": 2, "loss": math.nan}]
    lines = text_plot({"train loss": curve(rows, "loss")}, width=21, height=7).splitlines()
    places = [(y, line.index("t") - 11) for y, line in enumerate(lines[:7]) if "t" in line[11:]]
    assert places == [(0, 0), (3, 10), (6, 20)]
    narrow = CliRunner(env={"COLUMNS": "40"})
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    output = narrow.invoke(cli, ["plot", str(log), "--text-only"], catch_exceptions=False).output
    assert max(map(len, output.splitlines())) <= 40
    (tmp_path / "bin").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="no steps"):
        narrow.invoke(cli, ["plot", str(tmp_path / "bin")], catch_exceptions=False)
    with pytest.raises(ValueError, match="no figures"):
        text_plot({"train loss": []})
    with pytest.raises(ValueError, match="no figures"):
        plot_run([], "x.png")


def test_help_needs_no_torch() -> None:
    """Catches a heavy import at the top of what the command line reads."""
    program = "import sys; from gpt2.cli import cli; cli.list_commands(None); import gpt2.commands"
    program += ".train; import gpt2.commands.prepare, gpt2.commands.plot, gpt2.commands.eval"
    program += "; assert not {'torch', 'transformers', 'matplotlib'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_each_setting_has_a_flag_and_a_word_of_help() -> None:
    """Catches a setting that the command line cannot reach."""
    text = CliRunner().invoke(cli, ["train", "--help"]).output
    for spec in fields(TrainConfig):
        assert f"--{spec.name.replace('_', '-')}" in text
        assert spec.metadata["help"]


def test_the_training_benchmark_compares_the_same_work() -> None:
    """Catches a comparison of different sizes or losses (its figures are not looked at)."""
    from gpt2.bench.training import Loop, hugging_face_model, measure_training, small_config

    config = replace(small_config(), resid_pdrop=0.0, embd_pdrop=0.0)
    ours = GPT2Model(config)
    theirs = hugging_face_model(config)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    weights = dict(ours.named_parameters())
    mapping = ours._build_weight_mapping(config.n_layer)
    with torch.no_grad():
        for name, (own, flip) in mapping.items():
            p = theirs.get_parameter(f"transformer.{name}")
            p.copy_(weights[own].t() if flip else weights[own])
    one = Loop(ours, lambda model, ids: model(ids), (2, 16), 65)
    two = Loop(theirs, lambda model, ids: model(ids).logits, (2, 16), 65)
    assert torch.equal(one.inputs, two.inputs)
    for _ in range(3):
        one()
        two()
    for name, (own, flip) in mapping.items():
        p = theirs.get_parameter(f"transformer.{name}").detach()
        torch.testing.assert_close(weights[own].detach(), p.t() if flip else p, atol=3e-4, rtol=0)
    table = measure_training(quick=True, rounds=1)
    names = {result.name for result in table.results}
    assert names == {"gpt2.model", "a plain model", "transformers"}
    assert "backward" in table.markdown()


def test_bits_per_byte_while_training_are_of_the_tokens_scored(tmp_path: Path) -> None:
    """Catches the whole split's bytes per token in the log, where --eval-tokens scores its start:
    three bytes a token there, and one later.
    """
    from gpt2.data.preparing import prepare

    (tmp_path / "a.txt").write_text("ab" * 150 + "日" * 100 + "ab" * 150, encoding="utf-8")
    prepare(str(tmp_path / "a.txt"), tmp_path / "d", tokenizer="char", val_fraction=2 / 3)
    config = settings(tmp_path / "d", max_steps=1, eval_tokens=40)
    train(config, tmp_path / "run")
    row = next(row for row in read_log(tmp_path / "run" / "log.jsonl") if "val_loss" in row)
    expected = row["val_loss"] / math.log(2) / 3  # 40 tokens of three bytes
    assert row["val_bits_per_byte"] == pytest.approx(expected, abs=1e-5)
