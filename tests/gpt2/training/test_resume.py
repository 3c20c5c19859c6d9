"""Interrupted and resumed, a run ends with the same bits; a checkpoint is whole or not there."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_helpers import command, make_data, settings

from gpt2.training.settings import TrainConfig
from gpt2.training.state import CheckpointStore, checkpoint_step, read_checkpoint
from gpt2.training.trainer import Trainer, World, read_log, resumed_config, train

TRAIN = [sys.executable, "-m", "gpt2", "train"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared text."""
    return make_data(tmp_path_factory.mktemp("text"))


def last_tensors(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run's last checkpoint."""
    latest = CheckpointStore(run).latest()
    assert latest is not None
    return {
        f"{file.name}: {name}": tensor
        for file in sorted(latest.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def assert_same_bits(one: Path, other: Path) -> None:
    """The last checkpoints of two runs hold the same tensors, and the logs the same losses."""
    ours, theirs = last_tensors(one), last_tensors(other)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
    losses = [
        [
            (row["step"], row["loss"], row["grad_norm"])
            for row in read_log(run / "log.jsonl")
            if "loss" in row
        ]
        for run in (one, other)
    ]
    assert losses[0] == losses[1]


class Interrupted(Exception):
    """What a test throws into a run."""


@pytest.mark.parametrize(
    ("optimizer", "ema_decay", "order"), [("adamw", 0.0, "random"), ("muon", 0.9, "sequential")]
)
def test_resumed_anywhere_a_run_ends_with_the_same_bits(
    data: Path, tmp_path: Path, optimizer: str, ema_decay: float, order: str
) -> None:
    """Catches any state that a checkpoint forgets: moments, dropout's generator, the loader's
    position, averaged weights, the schedule. Interrupted after each of the steps in turn.
    """
    if optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    config = settings(
        data, optimizer=optimizer, ema_decay=ema_decay, order=order, checkpoint_interval=1
    )
    train(config, tmp_path / "whole")
    for at in range(1, config.max_steps):
        run = tmp_path / f"cut-{at}"

        def cut(event: dict, at: int = at) -> None:
            if event["step"] == at + 1:
                raise Interrupted

        with pytest.raises(Interrupted):
            train(config, run, on_event=cut)
        latest = CheckpointStore(run).latest()
        assert latest is not None
        assert checkpoint_step(latest) == at
        train(resumed_config(run, {}), run, resume=True)
        assert_same_bits(tmp_path / "whole", run)


def test_looking_on_changes_nothing(data: Path, tmp_path: Path) -> None:
    """Catches validation or sampling that draws from training's random numbers."""
    train(settings(data), tmp_path / "a")
    train(settings(data, eval_interval=3, sample_interval=2, sample_tokens=5), tmp_path / "b")
    assert_same_bits(tmp_path / "a", tmp_path / "b")


def kill_and_resume(data: Path, folder: Path, kills: int, seed: int) -> None:
    """Kill a run's process at random moments, resume it each time; it must end like one that was
    left alone, and each moment must leave a whole checkpoint.
    """
    steps = ["--max-steps", "60", "--checkpoint-interval", "1", "--ema-decay", "0.9"]
    config = settings(data, max_steps=60, checkpoint_interval=1, ema_decay=0.9)
    train(config, folder / "whole")
    run, chosen, done = folder / "killed", random.Random(seed), 0
    while done < kills:
        shutil.rmtree(run, ignore_errors=True)
        started = False
        while done < kills or started:
            arguments = (
                ["--resume", str(run)]
                if CheckpointStore(run).latest()
                else [*command(data, *steps), "--out", str(run)]
            )
            process = subprocess.Popen(
                [*TRAIN, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            if done < kills:
                assert process.stdout is not None
                process.stdout.readline()  # it has begun
                time.sleep(chosen.uniform(0, 0.6))
            else:
                process.wait(timeout=120)
            if process.poll() is None:
                process.kill()
                done += 1
                started = True
                process.wait()
                for path in CheckpointStore(run).all():
                    state, tensors = read_checkpoint(path)  # each is whole
                    assert state["step"] == checkpoint_step(path)
                    assert tensors
                continue
            assert process.stderr is not None
            assert process.returncode == 0, process.stderr.read()
            assert_same_bits(folder / "whole", run)
            break


def test_killed_at_random_moments_it_ends_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    """Catches a checkpoint that is read although it was half written (SIGKILL, 3 times)."""
    kill_and_resume(data, tmp_path, kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GPT2_SOAK"), reason="takes minutes: GPT2_SOAK=1")
def test_killed_fifty_times_it_ends_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    """The same with 50 moments."""
    kills = int(os.environ.get("GPT2_KILLS", "50"))
    kill_and_resume(data, tmp_path, kills, seed=2)
    print(f"{kills} kills: each left whole checkpoints, and the runs ended with the same bits")


def test_killed_at_every_file_operation_of_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an order of writes that leaves no whole checkpoint: the save is cut off before each
    rename, sync and deletion in turn.
    """

    class Killed(BaseException):
        """No handler for errors may see it, as none sees a SIGKILL."""

    def save(store: CheckpointStore, step: int) -> None:
        store.save(
            step,
            {"config": {}, "step": step},
            {"a": torch.full((3,), float(step))},
            lambda folder: (folder / "model.safetensors").write_bytes(b"x"),
        )

    for moment in range(60):
        store = CheckpointStore(tmp_path / str(moment), keep_last=1)
        save(store, 1)
        left = moment

        def counted(function):
            def call(*args, **kwargs):
                nonlocal left
                left -= 1
                if left < 0:
                    raise Killed
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for module, name in ((os, "replace"), (os, "fsync"), (shutil, "rmtree")):
                patch.setattr(module, name, counted(getattr(module, name)))
            try:
                save(store, 2)
                finished = True
            except Killed:
                finished = False
        latest = store.latest()
        assert latest is not None
        state, tensors = read_checkpoint(latest)
        assert tensors["a"].tolist() == [float(state["step"])] * 3
        save(store, 3)  # whoever resumes sweeps up
        assert [path.name for path in store.folder.iterdir()] == ["step-00000003"]
        if finished:
            break
    assert moment >= 6


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(data: Path, tmp_path: Path) -> None:
    """Catches a lost step or a traceback when the user stops a run."""
    if os.name == "nt":
        pytest.skip("Windows sends no SIGINT to a single process")
    endless = ["--max-steps", "100000", "--checkpoint-interval", "100000"]
    process = subprocess.Popen(
        [*TRAIN, *command(data, *endless), "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "step 3/" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "gpt2 train --resume" in errors
    assert "Traceback" not in errors
    assert CheckpointStore(tmp_path / "run").latest() is not None


def test_the_last_n_are_kept_and_the_best(data: Path, tmp_path: Path) -> None:
    """Catches checkpoints that pile up, and a best model that is merely the last one."""
    config = settings(data, checkpoint_interval=2, keep_last=3, eval_interval=4, lr=0.5)
    train(config, tmp_path)
    kept = [checkpoint_step(path) for path in CheckpointStore(tmp_path).all()]
    assert kept == [8, 10, 12]
    vals = {r["step"]: r["val_loss"] for r in read_log(tmp_path / "log.jsonl") if "val_loss" in r}
    from gpt2.data.shards import TokenSource, read_index
    from gpt2.model import GPT2Model
    from gpt2.training.evaluation import evaluate_loss

    model = GPT2Model.from_pretrained(tmp_path / "best")
    found = evaluate_loss(model, TokenSource(read_index(data), "val"), max_tokens=100)
    assert found.nats == pytest.approx(min(vals.values()), abs=1e-5)


def test_a_disk_that_is_full_leaves_the_last_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a good checkpoint spoilt, or debris left, when writing fails."""
    import safetensors.torch

    real, calls = safetensors.torch.save_file, []

    def full(tensors, path, *args, **kwargs):
        calls.append(path)
        if len(calls) > 4:  # two files per checkpoint
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return real(tensors, path, *args, **kwargs)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(ValueError, match=r"No space left.*last whole one is .*step-00000008"):
        train(settings(data, max_steps=14), tmp_path)
    monkeypatch.undo()
    store = CheckpointStore(tmp_path)
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "step-00000004",
        "step-00000008",
    ]
    train(resumed_config(tmp_path, {}), tmp_path, resume=True)
    train(settings(data, max_steps=14), tmp_path.with_name("whole"))
    assert_same_bits(tmp_path.with_name("whole"), tmp_path)


def test_a_folder_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    """Catches a traceback for a run whose place is taken by a file."""
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(ValueError, match="cannot be written"):
        train(settings(data), tmp_path)


def test_other_settings_are_refused_by_name(data: Path, tmp_path: Path) -> None:
    """Catches a resumption that goes on with another model, data order or batch."""
    config = settings(data, max_steps=4)
    train(config, tmp_path)
    for change in ({"dropout": 0.2}, {"seed": 5}, {"lr": 0.1}):
        name = next(iter(change))
        with pytest.raises(ValueError, match=f"{name} was"):
            train(replace(config, max_steps=8, **change), tmp_path, resume=True)
    with pytest.raises(ValueError, match="tokens per step were 80 and are 160"):
        train(replace(config, total_batch_tokens=160), tmp_path, resume=True)
    with pytest.raises(ValueError, match="already holds a run"):
        train(config, tmp_path)
    with pytest.raises(ValueError, match="no checkpoint"):
        resumed_config(tmp_path / "nothing", {})


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("training.json", b"{"),
        ("training.json", b"[]"),
        ("training.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{"),
        ("training.safetensors", b"\x80\x04."),
        ("model.safetensors", b"PK\x03\x04"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    data: Path, tmp_path: Path, file: str, content: bytes
) -> None:
    """Catches a damaged or foreign file (a pickle, too) that is loaded or ends in a traceback."""
    config = settings(data, max_steps=4)
    train(config, tmp_path)
    latest = CheckpointStore(tmp_path).latest()
    assert latest is not None
    (latest / file).write_bytes(content)
    with pytest.raises(ValueError, match=file):
        train(replace(config, max_steps=6), tmp_path, resume=True)


def test_nothing_in_a_checkpoint_is_executable(data: Path, tmp_path: Path) -> None:
    """Catches pickles: every file is JSON, safetensors or the tokenizer's JSON."""
    train(settings(data, max_steps=4), tmp_path)
    latest = CheckpointStore(tmp_path).latest()
    assert latest is not None
    for path in latest.iterdir():
        assert path.suffix in (".json", ".safetensors")
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        else:
            load_file(path)


def test_lines_of_steps_that_are_repeated_stand_once_in_the_log(data: Path, tmp_path: Path) -> None:
    """Catches a log in which resumed steps appear twice."""

    def cut(event: dict) -> None:
        if event["step"] == 7:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(settings(data), tmp_path, on_event=cut)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # cut off by a crash
    train(resumed_config(tmp_path, {}), tmp_path, resume=True)
    steps = [row["step"] for row in read_log(tmp_path / "log.jsonl") if "loss" in row]
    assert steps == list(range(1, 13))


def test_a_trainer_is_usable_from_a_notebook(data: Path, tmp_path: Path) -> None:
    """Catches a Trainer that only the command can drive."""
    trainer = Trainer(settings(data), tmp_path, World(0, 1, torch.device("cpu")))
    assert isinstance(trainer.config, TrainConfig)
    assert trainer.train()["step"] == 12


def test_a_changed_schedule_is_announced(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a rate that jumps without a word when a finished run is given more steps: what has
    changed, the rate that was, and the rate that is, as the log then has it.
    """
    run = tmp_path / "run"
    train(settings(data, max_steps=4, log_interval=1, lr=2e-3), run)
    capsys.readouterr()
    train(resumed_config(run, {}), run, resume=True)
    assert "note" not in capsys.readouterr().out
    train(resumed_config(run, {"max_steps": 8}), run, resume=True)
    out = capsys.readouterr().out
    rates = {row["step"]: row["lr"] for row in read_log(run / "log.jsonl") if "lr" in row}
    assert "max_steps was 4 and is 8" in out
    assert "the learning-rate schedule has changed" in out
    assert f"step 4 ran at {rates[4]:.3e}" in out
    assert f"runs at {rates[5]:.3e}" in out
    assert "would have run at 2.000e-04" in out  # the old schedule's end: a tenth of the peak
    assert rates[5] > 2 * 2e-4
    notes = [row for row in read_log(run / "log.jsonl") if "notes" in row]
    assert [row["step"] for row in notes] == [4]


def test_other_changes_are_told_too(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches validation losses that are compared although they are measured on other tokens, and
    an announcement of a schedule that stays as it is.
    """
    run = tmp_path / "run"
    train(settings(data, max_steps=4, checkpoint_interval=2), run)
    shutil.rmtree(CheckpointStore(run).all()[-1])
    capsys.readouterr()
    train(resumed_config(run, {"eval_tokens": 30, "sample_interval": 3}), run, resume=True)
    out = capsys.readouterr().out
    assert re.search(r"eval_tokens was .{1,9} and is 30", out)
    assert "measured on other tokens" in out
    assert "schedule" not in out


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensors: {"exp_avg/h.9.ln_1.weight": tensors.pop("exp_avg/h.0.ln_1.weight")},
        lambda tensors: {"exp_avg": tensors["exp_avg/ln_f.bias"].clone()},
        lambda tensors: [tensors.pop(f"exp_avg{kind}/ln_f.bias") for kind in ("", "_sq")] and {},
        lambda tensors: {"exp_avg/ln_f.bias": torch.zeros(3)},
    ],
    ids=["unknown parameter", "no parameter", "moments missing", "other shape"],
)
def test_moments_that_do_not_fit_are_refused(data: Path, tmp_path: Path, spoil) -> None:
    """Catches moments of a checkpoint that are passed over in silence, which would make another
    run.
    """
    from safetensors.torch import save_file

    train(settings(data, max_steps=2), tmp_path / "run")
    latest = CheckpointStore(tmp_path / "run").latest()
    assert latest is not None
    tensors = load_file(latest / "training.safetensors")
    tensors |= spoil(tensors)
    save_file(tensors, latest / "training.safetensors")
    config = replace(resumed_config(tmp_path / "run", {}), max_steps=3)
    with pytest.raises(ValueError, match=r"step-00000002 is damaged"):
        train(config, tmp_path / "run", resume=True)
