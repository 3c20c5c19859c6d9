"""Several processes compute what one computes; only the first writes; a dead one ends the run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_helpers import command, launcher, make_data, settings, torchrun

from gpt2.training.state import CheckpointStore
from gpt2.training.trainer import read_log, resumed_config, train

# no dropout: ranks draw different masks than one process would
STEPS = ["--max-steps", "20", "--dropout", "0", "--checkpoint-interval", "10", "--keep-last", "9"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared text."""
    return make_data(tmp_path_factory.mktemp("text"))


def losses(run: Path) -> list[float]:
    """Training loss of each step."""
    return [row["loss"] for row in read_log(run / "log.jsonl") if "loss" in row]


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    config = settings(data, max_steps=20, dropout=0.0, checkpoint_interval=10, keep_last=9)
    train(config, run)
    return run


@pytest.mark.parametrize("parallel", ["ddp", "fsdp", "own"])
def test_two_processes_train_as_one(parallel: str, data: Path, alone: Path, tmp_path: Path) -> None:
    """Catches gradients summed instead of averaged, synced too early, clipped by a part's norm;
    and data read twice. Total batch 80 tokens: 2 ranks × 2 parts × 2 sequences of 10.
    """
    run = tmp_path / "run"
    result = torchrun(2, *command(data, *STEPS), "--parallel", parallel, "--out", str(run))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("step 20/20") == 1  # rank 0 alone prints
    assert "2 × 2 × 10" in result.stdout
    one, two = losses(alone), losses(run)
    assert len(one) == len(two) == 20
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-5
    assert one[0] - one[-1] > 0.03  # it learnt, so the steps did something
    ours = load_file(CheckpointStore(run).all()[-1] / "training.safetensors")
    theirs = load_file(CheckpointStore(alone).all()[-1] / "training.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-5)

    # the second half again, by another number of processes, from the whole checkpoint
    import shutil

    shutil.rmtree(CheckpointStore(run).all()[-1])
    train(resumed_config(run, {}), run, resume=True)
    assert max(abs(a - b) for a, b in zip(one, losses(run), strict=True)) < 1e-5


def test_one_process_s_run_goes_on_with_two(data: Path, tmp_path: Path, alone: Path) -> None:
    """Catches a shared-out model or optimizer that starts from nothing when resumed (FSDP)."""
    run = tmp_path / "run"
    train(
        settings(data, max_steps=20, dropout=0.0, checkpoint_interval=10, keep_last=9),
        run,
    )
    import shutil

    shutil.rmtree(CheckpointStore(run).all()[-1])
    result = torchrun(2, "--resume", str(run), "--parallel", "fsdp")
    assert result.returncode == 0, result.stderr
    assert max(abs(a - b) for a, b in zip(losses(alone), losses(run), strict=True)) < 1e-5


# a rank that tells its process's number and takes its time over each step
SLOW_RANK = """
import os, pathlib, runpy, sys, time
import gpt2.training.trainer
pathlib.Path(sys.argv.pop(1), "rank-" + os.environ["RANK"]).write_text(str(os.getpid()))
step = gpt2.training.trainer.Trainer._step
def slow(self):
    time.sleep(0.1)
    return step(self)
gpt2.training.trainer.Trainer._step = slow
sys.argv.insert(1, "train")
runpy.run_module("gpt2", run_name="__main__")
"""


def test_a_killed_rank_ends_the_run_which_goes_on_with_four(
    data: Path, tmp_path: Path, alone: Path
) -> None:
    """Catches a rank that waits forever for a dead one, an end that does not say who died, and a
    resumption on other ranks that repeats or leaves out sequences: the losses of all 20 steps are
    those of one process.
    """
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("Windows has no SIGKILL")
    run, script = tmp_path / "run", tmp_path / "rank.py"
    script.write_text(SLOW_RANK, encoding="utf-8")
    steps = [*STEPS[:-4], "--checkpoint-interval", "3", "--keep-last", "9"]
    line = [*launcher(2), str(script), str(tmp_path), *command(data, *steps), "--out", str(run)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 120
        while CheckpointStore(run).latest() is None:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        ranks = [int((tmp_path / f"rank-{rank}").read_text()) for rank in (0, 1)]
        os.kill(ranks[1], signal.SIGKILL)
        output = process.communicate(timeout=120)[0]
    finally:
        process.kill()
    assert process.returncode != 0
    assert f"(pid: {ranks[1]})" in output
    assert "SIGKILL" in output
    with pytest.raises(ProcessLookupError):  # the other one has ended as well
        os.kill(ranks[0], 0)
    assert CheckpointStore(run).all()[-1].name < "step-00000020"

    result = torchrun(4, "--resume", str(run))
    assert result.returncode == 0, result.stderr
    assert "4 ranks × 1 × 2 × 10" in result.stdout
    one, two = losses(alone), losses(run)
    assert len(two) == 20
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-5


def test_a_rank_s_error_ends_the_run(data: Path, tmp_path: Path) -> None:
    """Catches ranks that wait forever for one that failed, and an error that is swallowed."""
    result = torchrun(
        2, *command(data, *STEPS), "--total-batch-tokens", "90", "--out", str(tmp_path / "run")
    )
    assert result.returncode != 0
    assert "total_batch_tokens = 90 is not divisible by context × ranks = 10 × 2" in result.stderr
