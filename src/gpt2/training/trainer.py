"""Training: one loop for a laptop, a GPU, and many of them under torchrun.

    gpt2 train --preset tiny
    torchrun --nproc-per-node=8 -m gpt2 train --preset gpt2-124m-fineweb

A run is a function of its settings: which sequences a step sees and every random number it draws
follow from (seed, step, rank). So a run that was interrupted and resumed on a CPU ends with the
same bits, and evaluating more or less often changes nothing. Shapes: B sequences of T tokens.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.common.files import short
from gpt2.common.folder_lock import only_one
from gpt2.inference.fused import fuse
from gpt2.training.console import Console, Pace
from gpt2.training.interruption import Interruption, Stopped
from gpt2.training.optimization import Together, autocast_dtype, make_optimizers, scheduled_rate
from gpt2.training.ranks import World, open_world, seed_step, whole
from gpt2.training.resuming import changes, check_fits, resumed_config, saved_config
from gpt2.training.run_log import LOG_NAME, RunLog, clock, read_log
from gpt2.training.settings import TrainConfig
from gpt2.training.setup import adapt, batch_plan, build_model, find_origin, parallelize
from gpt2.training.speed import keep_freed_memory, speed_up_dropout

if TYPE_CHECKING:
    from torch import Tensor

    from gpt2.data.shards import DataIndex
    from gpt2.training.evaluation import Loss

BEST_NAME = "best"
ADAPTER_NAME = "adapter"  # of a run with LoRA: A and B of the best model
LORA = "lora"  # the slot of A and B in a checkpoint

__all__ = [
    "BEST_NAME",
    "LOG_NAME",
    "Stopped",
    "Trainer",
    "World",
    "autocast_dtype",
    "code_version",
    "make_optimizers",
    "open_world",
    "read_log",
    "resumed_config",
    "scheduled_rate",
    "seed_step",
    "train",
]


class Trainer:
    """One run in one process: `Trainer(config, run, world).train()`."""

    def __init__(
        self,
        config: TrainConfig,
        run: str | Path,
        world: World,
        *,
        resume: bool = False,
        on_event: Callable[[dict], None] | None = None,
    ):
        """ValueError for data, a model or a checkpoint that don't fit the settings."""
        import torch

        from gpt2.data.shards import BatchLoader, TokenSource
        from gpt2.formats.opening import load_tokenizer
        from gpt2.training.evaluator import Evaluator
        from gpt2.training.run_state import RunState
        from gpt2.training.state import CheckpointStore

        self.config, self.run, self.world = config, Path(run), world
        self.on_event = on_event or (lambda event: None)
        self.console = Console(world.main)
        self.log: RunLog | None = None  # rank 0's, while it trains
        if config.threads:
            torch.set_num_threads(config.threads)
        self.index = self._prepare(resume)
        self.tokenizer = load_tokenizer(self.index.folder)
        self.train_source = TokenSource(self.index, "train")
        val = TokenSource(self.index, "val") if "val" in self.index.splits else None
        self.micro, self.accumulate = batch_plan(config, world.size)
        loader = BatchLoader(
            self.train_source,
            self.micro,
            config.context,
            order=config.order,
            seed=config.seed,
            rank=world.rank,
            world_size=world.size,
        )
        self.autocast = autocast_dtype(config.precision, world.device)
        self.store = CheckpointStore(self.run, config.keep_last)
        latest = self._checkpoint_to_resume(resume)
        seed_step(config.seed, -1, 0)
        origin = find_origin(config, self.index, latest)
        if origin is not None:
            for note in origin.notes:
                self.console.say(f"note: {note}")
            for tokens in (self.train_source, val):
                if tokens is not None:
                    tokens.rows = origin.rows
        # texts end where they ended in the model that this one goes on from
        named = origin is not None and origin.roles.eos
        self.roles = origin.roles if origin is not None and named else self.tokenizer.roles
        # Any: FSDP gives the model methods of its own
        self.core: Any = build_model(config, self.index, origin, world.device)
        fuse(self.core)
        if world.device.type == "cpu" and not config.compile:
            speed_up_dropout(self.core)
            keep_freed_memory()
        self.model: Any = parallelize(self.core, config, world)
        optimizers = make_optimizers(self.core, config)
        self.optimizer: Any = Together(optimizers)
        self.state = RunState(self.core, optimizers, loader, config.ema_decay)
        self.evaluator = Evaluator(
            config,
            self.core,
            self.tokenizer,
            self.roles,
            self.train_source,
            val,
            world,
            self.autocast,
        )
        self.last_val: Loss | None = None
        self.asked = Interruption()  # what this process was sent
        self.stopping = False  # what all ranks have agreed on
        self.changed: list[str] = []  # what differs from the run's settings so far
        if latest:
            self._restore(latest)

    # ------------------------------------------------------------------------------- making ready

    def _prepare(self, resume: bool) -> DataIndex:
        from gpt2.data.preparing import prepare
        from gpt2.data.shards import INDEX_NAME, read_index

        folder = self.config.data_folder
        if resume and not os.path.exists(folder / INDEX_NAME):
            # a checkpoint may come from anywhere: what it says is no reason to write to a folder
            name = short(str(folder))
            raise ValueError(
                f"the run was trained on {name}, which is not there: name it with --data, or make "
                f"it again (`gpt2 prepare {short(self.config.source)} --out {name} "
                f"--tokenizer {short(self.config.tokenizer)}`)"
            )
        if self.world.main and not (folder / INDEX_NAME).exists():
            if self.config.data and folder.exists() and any(folder.iterdir()):
                read_index(folder)  # says what is wrong with it
            prepare(
                self.config.source,
                folder,
                tokenizer=self.config.tokenizer,
                vocab_size=self.config.vocab_size,
                progress=True,
                say=self.console.say,
            )
        self._barrier()
        return read_index(folder)

    def _checkpoint_to_resume(self, resume: bool) -> Path | None:
        """The run's last checkpoint. ValueError for one that nobody wants to go on from, and for
        none where one is wanted.
        """
        latest = self.store.latest()
        if latest and not resume:
            raise ValueError(
                f"{self.run} already holds a run ({latest.name}): resume it with "
                f"`gpt2 train --resume {self.run}`, or choose another --out"
            )
        if resume and not latest:
            raise ValueError(f"{self.run} holds no checkpoint to resume from")
        return latest

    def _barrier(self) -> None:
        if self.world.size > 1:
            import torch.distributed as dist

            dist.barrier()

    @property
    def done(self) -> int:
        """Steps that are done."""
        return self.state.step

    @property
    def step_tokens(self) -> int:
        """Tokens per optimizer step, over all ranks."""
        return self.micro * self.accumulate * self.world.size * self.config.context

    # --------------------------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Write a checkpoint of this moment. All ranks must call it."""
        tensors, weights = self.state.tensors(self.world)
        if self.world.main:
            described = self.state.describe() | {
                "format": "gpt2-training",
                "version": 1,
                "config": asdict(self.config),
                "total_batch_tokens": self.step_tokens,
                "random": {"seed": self.config.seed, "next_step": self.done},
                "code": code_version(),
                "world_size": self.world.size,
            }
            if self.config.lora:
                names = [n for n, p in self.core.named_parameters()]
                tensors |= {
                    f"{LORA}/{name}": value
                    for name, value in zip(names, weights, strict=True)
                    if ".lora_" in name
                }
            self.store.save(
                self.done, described, tensors, lambda folder: self._export(folder, weights)
            )
        self._barrier()

    def _restore(self, path: Path) -> None:
        """Go on from a checkpoint. ValueError that names every setting that doesn't fit it."""
        from gpt2.training.state import checkpoint_step, read_checkpoint

        described, tensors = read_checkpoint(path)
        try:
            check_fits(path, described, self.config, self.step_tokens)
            if self.config.lora:
                tensors = self._take_lora(tensors)
            self.state.restore(described, tensors)
            if self.done != checkpoint_step(path):
                raise TypeError(f"it says that it is step {self.done}")
        except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise ValueError(f"{path} is damaged: {type(error).__name__} {error}") from None
        self.changed = changes(saved_config(path, described), self.config, self.done)
        if described.get("code") != code_version():
            self.changed.append("note: the model's code changed since this checkpoint was written")

    def _take_lora(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put a checkpoint's A and B into the model; the other tensors. LookupError for a missing
        one, RuntimeError for one of another shape.
        """
        import torch

        with torch.no_grad():
            for name, parameter in self.core.named_parameters():
                if ".lora_" in name:
                    value = tensors[f"{LORA}/{name}"]
                    if value.shape != parameter.shape:
                        raise RuntimeError(f"{name} has the shape {tuple(value.shape)}")
                    parameter.copy_(value)
        return {key: value for key, value in tensors.items() if not key.startswith(f"{LORA}/")}

    def _export(self, folder: Path, weights: list[Tensor], adapter: Path | None = None) -> None:
        """Whole weights, in the order of the parameters → a Hugging Face folder. With LoRA, the
        update is in its weights; adapter: a folder for A and B alone.
        """
        import torch

        from gpt2.formats.checkpoints import save_pretrained, skip_init
        from gpt2.model import GPT2Model

        with skip_init():
            model = GPT2Model(self.core.config)
        if self.config.lora:
            adapt(model, self.config)
        with torch.no_grad():
            for p, value in zip(model.parameters(), weights, strict=True):
                p.copy_(value)
        if self.config.lora:
            from gpt2.formats.adapters import write_adapter
            from gpt2.lora import adapter_state, merge_lora

            if adapter is not None:
                config = self.config
                state, alpha = adapter_state(model), config.lora_alpha
                write_adapter(adapter, state, alpha, config.lora_dropout, config.init_from)
            merge_lora(model)
        save_pretrained(model, folder, self.tokenizer, roles=self.roles)

    def _keep_best(self, weights: list[Tensor]) -> None:
        try:
            self._export(self.run / BEST_NAME, weights, self.run / ADAPTER_NAME)
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
                raise
            last = self.store.latest()
            raise ValueError(
                f"the best model cannot be written to {self.run / BEST_NAME}: {error}. "
                f"Last checkpoint: {last or 'none'}"
            ) from None

    # --------------------------------------------------------------------------------- the loop

    def train(self) -> dict[str, Any]:
        """Run to the end → the last figures. Stopped after Ctrl-C, with a checkpoint written."""
        if self.world.main:
            self.log = RunLog(self.run, self.done, self.on_event, self.config.tensorboard)
        try:
            self._announce()
            with self.asked:
                self._take_steps()
        finally:
            if self.log:
                self.log.close()
        return {
            "step": self.done,
            "val_loss": self.last_val.nats if self.last_val else None,
            "best": self.state.best,
            "seconds": round(self.state.seconds, 1),
        }

    def _take_steps(self) -> None:
        import time

        config, state = self.config, self.state
        began = time.monotonic() - state.seconds
        pace = Pace(state.step)
        while state.step < config.max_steps:
            loss, norm = self._step()
            state.count(loss)
            state.seconds = time.monotonic() - began
            self._check_finite(loss)
            ended = state.step == config.max_steps
            if state.step % config.log_interval == 0 or ended or self.stopping:
                self._report(norm, pace.ask(state.step) * self.step_tokens)
            enough = False
            if not self.stopping and self._time_to_look(ended):
                enough = self._look(ended)
                pace.restart(state.step)  # time spent looking is not training speed
            on_time = state.step % config.checkpoint_interval == 0
            if on_time or ended or enough or self.stopping:
                self.save()
            if self.stopping:
                self.console.leave()
                raise Stopped(
                    f"stopped after step {state.step}; go on with `gpt2 train --resume {self.run}`"
                )
            if enough:
                self.console.say(
                    f"no better validation loss for {config.patience} validations: done"
                )
                return

    def _step(self) -> tuple[float, float]:
        """One optimizer step → mean loss over all ranks, gradient norm."""
        from gpt2.training_step import train_step

        config, world = self.config, self.world
        seed_step(config.seed, self.done, world.rank)
        rate = scheduled_rate(self.done, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batches = [self.state.loader.next() for _ in range(self.accumulate)]
        loss, norm = train_step(
            self.model,
            self.optimizer,
            [(self._here(inputs), self._here(targets)) for inputs, targets in batches],
            grad_clip=config.grad_clip or math.inf,
            autocast_dtype=self.autocast,
        )
        self.state.average()
        return self._agree(loss), float(whole(norm))

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.world.device, non_blocking=True)

    def _agree(self, loss: Tensor | float) -> float:
        """All ranks' mean loss; and whether any of them was asked to stop, which stops all."""
        import torch

        loss = torch.as_tensor(loss, device=self.world.device).detach()
        report = torch.stack([loss, loss.new_tensor(float(self.asked.signal))])
        if self.world.size > 1:
            torch.distributed.all_reduce(report)
            report[0] /= self.world.size
        self.stopping = float(report[1]) > 0
        return float(report[0])

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            last = self.store.latest()
            raise ValueError(
                f"the loss is {loss} at step {self.done}: a lower --lr may help. "
                f"Last checkpoint: {last or 'none'}"
            )

    # -------------------------------------------------------------------------------- looking on

    def _announce(self) -> None:
        config = self.config
        count = sum(math.prod(p.shape) for p in self.core.parameters())
        self.console.say(
            f"{count:,} parameters on {self.world.size} × {self.world.device} "
            f"({'bfloat16 autocast' if self.autocast else 'float32'}), "
            f"{self.index.source.get('name')}: {self.train_source.tokens:,} tokens, "
            f"{self.step_tokens:,} per step ({self.world.size} ranks × {self.accumulate} × "
            f"{self.micro} × {config.context}), steps {self.done + 1} … {config.max_steps}"
        )
        for line in self.changed:
            self.console.say(line)
        if self.changed:
            self._write({"step": self.done, "notes": self.changed})

    def _write(self, event: dict) -> None:
        if self.log:
            self.log.write(event)

    def _report(self, norm: float, rate: float) -> None:
        """A line of the log and of the screen; rate: tokens per second."""
        loss = self.state.take_mean_loss()
        lr = scheduled_rate(self.done - 1, self.config)
        self._write(
            {
                "step": self.done,
                "loss": round(loss, 6),
                "lr": lr,
                "grad_norm": round(norm, 4),
                "tokens_per_s": round(rate),
                "seconds": round(self.state.seconds, 1),
            }
        )
        left = (self.config.max_steps - self.done) * self.step_tokens / rate
        self.console.progress(
            f"step {self.done}/{self.config.max_steps}  loss {loss:.4f}  lr {lr:.2e}  "
            f"|g| {norm:.2f}  {rate:,.0f} tokens/s  {clock(left)} left"
        )

    def _time_to_look(self, ended: bool) -> bool:
        return self._time_to_validate(ended) or self._time_to_sample(ended)

    def _time_to_validate(self, ended: bool) -> bool:
        interval = self.config.eval_interval
        return ended or bool(interval and self.done % interval == 0)

    def _time_to_sample(self, ended: bool) -> bool:
        interval = self.config.sample_interval
        return bool(interval) and (ended or self.done % interval == 0)

    def _look(self, ended: bool) -> bool:
        """Validate, keep the best, sample, each when it is time → is it enough?"""
        enough = self._validate_and_keep() if self._time_to_validate(ended) else False
        if self._time_to_sample(ended):
            if self.world.main and not self._shared_out():
                text = self.sample()
                self._write({"step": self.done, "sample": text})
                self.console.say(f"--- sample at step {self.done}\n{text}\n---")
            self._barrier()
        return enough

    def validate(self) -> Loss | None:
        """Validation loss of what is kept; None without a validation split."""
        with self.state.averaged():
            return self.evaluator.loss()

    def sample(self) -> str:
        """A text of the model as it is kept."""
        with self.state.averaged():
            return self.evaluator.sample()

    def _shared_out(self) -> bool:
        return self.world.size > 1 and self.config.parallel == "fsdp"

    def _validate_and_keep(self) -> bool:
        """→ has it not become better for `patience` times?"""
        from gpt2.training.run_state import gather

        result = self.validate()
        event: dict[str, Any] = {"step": self.done}
        if result is not None:
            self.last_val = result
            event |= {
                "val_loss": round(result.nats, 6),
                "val_perplexity": round(result.perplexity, 4),
                "val_bits_per_byte": round(result.bits_per_byte or 0.0, 5),
            }
        if self.config.hellaswag and not self._shared_out():
            if self.world.main:
                with self.state.averaged():
                    score = self.evaluator.hellaswag()
                if score is not None:
                    event |= {"hellaswag_acc": score.acc, "hellaswag_acc_norm": score.acc_norm}
            self._barrier()
        better = self.state.validated(None if result is None else result.nats)
        if better:
            weights = gather(self.state.weights, self.world)
            if self.world.main:
                self._keep_best(weights)
        event["seconds"] = round(self.state.seconds, 1)
        if result is not None:
            self._write(event)
            self.console.say(
                f"step {self.done}  validation loss {result.nats:.4f}  perplexity "
                f"{result.perplexity:.3f}  {result.bits_per_byte or 0:.4f} bits per byte"
                + ("  (best)" if better else "")
            )
        patience = self.config.patience
        return patience is not None and self.state.since_best >= patience


def code_version() -> dict[str, str]:
    """What computes: the package's version, PyTorch's, and the model file's hash."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    import gpt2.model

    try:
        package = version("learn-gpt2")
    except PackageNotFoundError:
        package = "unknown"
    source = Path(gpt2.model.__file__).read_bytes()
    return {
        "learn-gpt2": package,
        "torch": torch.__version__,
        "model.py": hashlib.sha256(source).hexdigest()[:16],
    }


def train(
    config: TrainConfig,
    run: str | Path,
    *,
    resume: bool = False,
    on_event: Callable[[dict], None] | None = None,
) -> dict[str, Any]:
    """Train to the end, in this process or, under torchrun, as one of many → the last figures.

    The run's folder gets `log.jsonl`, `checkpoints/` and `best/`. on_event is called with every
    line of the log.
    """
    with open_world(config.device) as world, only_one(run) if world.main else nullcontext():
        return Trainer(config, run, world, resume=resume, on_event=on_event).train()
