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
import reprlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.common.files import short
from gpt2.common.folder_lock import only_one
from gpt2.training.optimization import autocast_dtype, lr_at, make_optimizers
from gpt2.training.ranks import World, open_world, put_whole, seed_step, whole
from gpt2.training.run_log import LOG_NAME, RunLog, clock, read_log
from gpt2.training.settings import TrainConfig
from gpt2.training.setup import batch_plan, build_model, parallelise
from gpt2.training.speed import keep_freed_memory, speed_up_dropout

if TYPE_CHECKING:
    from torch import Tensor

    from gpt2.data.shards import BatchLoader, DataIndex, TokenSource
    from gpt2.text.tokenizers import Tokenizer
    from gpt2.training.evaluation import Loss

BEST_NAME = "best"

__all__ = [
    "BEST_NAME",
    "LOG_NAME",
    "Stopped",
    "Trainer",
    "World",
    "autocast_dtype",
    "code_version",
    "lr_at",
    "make_optimizers",
    "open_world",
    "read_log",
    "resumed_config",
    "seed_step",
    "train",
]


class Stopped(Exception):
    """Ctrl-C or SIGTERM, after the checkpoint was written."""


def _number(name: str, value: object) -> float:
    """A number out of a checkpoint's state. TypeError that shows a little of what is none."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {reprlib.repr(value)}")
    return float(value)


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
        from gpt2.text.tokenizers import load_tokenizer
        from gpt2.training.state import CheckpointStore

        self.config, self.run, self.world = config, Path(run), world
        self.on_event = on_event or (lambda event: None)
        self.log: RunLog | None = None  # rank 0's, while it trains
        if config.threads:
            torch.set_num_threads(config.threads)
        self.index = self._prepare(resume)
        self.tokenizer: Tokenizer = load_tokenizer(self.index.folder)
        self.train_source = TokenSource(self.index, "train")
        self.val_source: TokenSource | None = (
            TokenSource(self.index, "val") if "val" in self.index.splits else None
        )
        self.micro, self.accumulate = batch_plan(config, world.size)
        self.loader: BatchLoader = BatchLoader(
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
        latest = self.store.latest()
        if latest and not resume:
            raise ValueError(
                f"{self.run} already holds a run ({latest.name}): resume it with "
                f"`gpt2 train --resume {self.run}`, or choose another --out"
            )
        if resume and not latest:
            raise ValueError(f"{self.run} holds no checkpoint to resume from")
        seed_step(config.seed, -1, 0)
        self.core = build_model(config, self.index, latest, world.device)
        if world.device.type == "cpu" and not config.compile:
            speed_up_dropout(self.core)
            keep_freed_memory()
        self.model = parallelise(self.core, config, world)
        self.optimizers = make_optimizers(self.core, config)
        self.ema = (
            [p.detach().clone() for p in self.core.parameters()] if config.ema_decay else None
        )
        self.done = 0
        self.seconds = 0.0
        self.best: float | None = None
        self.since_best = 0
        self.loss_sum, self.loss_count = 0.0, 0
        self.last_val: Loss | None = None
        self.last_val_step = -1
        self.signalled = 0  # what this process was sent
        self.stopping = False  # what all ranks have agreed on
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
            )
        self._barrier()
        return read_index(folder)

    def _barrier(self) -> None:
        if self.world.size > 1:
            import torch.distributed as dist

            dist.barrier()

    @property
    def step_tokens(self) -> int:
        """Tokens per optimizer step, over all ranks."""
        return self.micro * self.accumulate * self.world.size * self.config.context

    # --------------------------------------------------------------------------------- checkpoints

    def _names(self) -> list[str]:
        return [name for name, _ in self.core.named_parameters()]

    def _weights(self) -> list[Tensor]:
        """What is evaluated, shown and exported: the averaged weights where there are any."""
        return self.ema if self.ema is not None else list(self.core.parameters())

    def _export(self, folder: Path, weights: list[Tensor]) -> None:
        """Whole weights, in the order of the parameters → a Hugging Face folder."""
        import torch

        from gpt2.formats.checkpoints import save_pretrained, skip_init
        from gpt2.model import GPT2Model

        with skip_init():
            model = GPT2Model(self.core.config)
        with torch.no_grad():
            for p, value in zip(model.parameters(), weights, strict=True):
                p.copy_(value)
        save_pretrained(model, folder, self.tokenizer)

    def _gather(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Whole tensors on the CPU of rank 0; elsewhere empty. All ranks must call it."""
        found = []
        for tensor in tensors:
            full = whole(tensor.detach())
            if self.world.main:
                found.append(full.cpu().clone())
        return found

    def save(self) -> None:
        """Write a checkpoint of this moment. All ranks must call it."""
        names = self._names()
        parameters = list(self.core.parameters())
        slots: dict[str, list[Tensor]] = {}
        where = {id(p): name for name, p in zip(names, parameters, strict=True)}
        steps: dict[str, float] = {}
        flat: dict[str, Tensor] = {}
        for optimizer in self.optimizers:
            for p, state in optimizer.state.items():
                name = where[id(p)]
                for slot, value in state.items():
                    if slot == "step":
                        steps[name] = float(value)
                    else:
                        slots.setdefault(slot, []).append((f"{slot}/{name}", value))
        for pairs in slots.values():
            gathered = self._gather([value for _, value in pairs])
            flat |= dict(zip([key for key, _ in pairs], gathered, strict=False))
        weights = self._gather(self._weights())
        if self.ema is not None:
            raw = self._gather(parameters)
            flat |= dict(zip([f"weight/{name}" for name in names], raw, strict=False))
        if self.world.main:
            self.store.save(
                self.done,
                {
                    "format": "gpt2-training",
                    "version": 1,
                    "step": self.done,
                    "config": asdict(self.config),
                    "total_batch_tokens": self.step_tokens,
                    "loader": self.loader.state(),
                    "random": {"seed": self.config.seed, "next_step": self.done},
                    "optimizer_steps": steps,
                    "seconds": round(self.seconds, 3),
                    "best": self.best,
                    "since_best": self.since_best,
                    "loss_sum": self.loss_sum,
                    "loss_count": self.loss_count,
                    "code": code_version(),
                    "world_size": self.world.size,
                },
                flat,
                lambda folder: self._export(folder, weights),
            )
        self._barrier()

    def _restore(self, path: Path) -> None:
        """Go on from a checkpoint. ValueError that names every setting that doesn't fit it."""
        import torch

        from gpt2.training.state import checkpoint_step, read_checkpoint

        state, tensors = read_checkpoint(path)
        try:
            self._check_fits(path, state)
            names = self._names()
            parameters = dict(zip(names, self.core.parameters(), strict=True))
            if self.ema is not None:
                for value, p in zip(self.ema, parameters.values(), strict=True):
                    value.copy_(p.detach())
                for name, p in parameters.items():
                    put_whole(p, tensors[f"weight/{name}"])
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    for p in group["params"]:
                        name = next(n for n, q in parameters.items() if q is p)
                        slots = {
                            key.split("/", 1)[0]: value
                            for key, value in tensors.items()
                            if key.split("/", 1)[1] == name and not key.startswith("weight/")
                        }
                        for slot, value in slots.items():
                            optimizer.state[p][slot] = torch.zeros_like(p)
                            put_whole(optimizer.state[p][slot], value)
                        if name in state["optimizer_steps"]:
                            count = _number(name, state["optimizer_steps"][name])
                            optimizer.state[p]["step"] = torch.tensor(count, dtype=torch.float32)
            self.loader.load_state(state["loader"])
            for name in ("step", "seconds", "since_best", "loss_sum", "loss_count"):
                _number(name, state[name])
            self.done = int(state["step"])
            self.seconds = float(state["seconds"])
            self.best = None if state["best"] is None else _number("best", state["best"])
            self.since_best = int(state["since_best"])
            self.loss_sum, self.loss_count = float(state["loss_sum"]), int(state["loss_count"])
            if self.done != checkpoint_step(path):
                raise TypeError(f"it says that it is step {self.done}")
        except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise ValueError(f"{path} is damaged: {type(error).__name__} {error}") from None
        if state.get("code") != code_version() and self.world.main:
            self._say("note: the model's code changed since this checkpoint was written")

    def _check_fits(self, path: Path, state: dict) -> None:
        saved = dict(state["config"])
        differ = [
            f"{spec.name} was {saved.get(spec.name)!r} and is {getattr(self.config, spec.name)!r}"
            for spec in fields(TrainConfig)
            if not spec.metadata.get("free")
            and spec.name != "total_batch_tokens"
            and saved.get(spec.name, spec.default) != getattr(self.config, spec.name)
        ]
        if state["total_batch_tokens"] != self.step_tokens:
            differ.append(
                f"tokens per step were {state['total_batch_tokens']} and are {self.step_tokens}"
            )
        if differ:
            raise ValueError(f"{path} was made with other settings: {'; '.join(differ)}")

    # -------------------------------------------------------------------------------- looking on

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Inside, the model holds the averaged weights; after, bit for bit its own."""
        import torch

        if self.ema is None:
            yield
            return
        parameters = list(self.core.parameters())
        own = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            torch._foreach_copy_(parameters, self.ema)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(parameters, own)

    def validate(self) -> Loss | None:
        """Validation loss, windows side by side; None without a validation split."""
        from gpt2.training.evaluation import evaluate_loss

        if self.val_source is None or self.val_source.tokens < 2:
            return None
        with self._averaged():
            return evaluate_loss(
                self.core,
                self.val_source,
                length=self.config.context,
                batch_size=self.config.batch_size,
                max_tokens=self.config.eval_tokens,
                autocast=self.autocast,
                rank=self.world.rank,
                world_size=self.world.size,
            )

    def sample(self) -> str:
        """A text of the model as it is."""
        import torch

        from gpt2.generation.generating import generate

        prompt = self.tokenizer.encode(self.config.sample_prompt)
        if not prompt:
            end = self.tokenizer.eos_token_id
            prompt = [int(self.val_or_train().read(0, 1)[0]) if end is None else end]
        room = self.core.config.n_positions - len(prompt)
        generator = torch.Generator(self.world.device).manual_seed(self.config.seed)
        ids = torch.tensor([prompt], device=self.world.device)
        with self._averaged():
            out = generate(
                self.core,
                ids,
                max(0, min(self.config.sample_tokens, room)),
                temperature=0.8,
                generator=generator,
            )
        skip = 0 if self.config.sample_prompt or self.tokenizer.eos_token_id is None else 1
        return self.tokenizer.decode(out[0, skip:].tolist())

    def val_or_train(self) -> TokenSource:
        return self.val_source or self.train_source

    def _say(self, text: str) -> None:
        if self.world.main:
            if sys.stdout.isatty():
                print("\r\x1b[K", end="")
            print(text, flush=True)

    def _log(self, event: dict) -> None:
        if self.log:
            self.log.write(event)

    # --------------------------------------------------------------------------------- the loop

    def _step(self) -> tuple[float, float]:
        """One optimizer step → mean loss over all ranks, gradient norm."""
        import torch
        import torch.nn.functional as F

        config, world = self.config, self.world
        seed_step(config.seed, self.done, world.rank)
        lr = lr_at(self.done, config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        total = torch.zeros((), device=world.device)
        for part in range(self.accumulate):
            inputs, targets = (t.to(world.device, non_blocking=True) for t in self.loader.next())
            last = part == self.accumulate - 1
            with ExitStack() as stack:
                if world.size > 1 and not last:
                    self._without_sync(stack)
                with (
                    torch.autocast(world.device.type, self.autocast)
                    if self.autocast
                    else nullcontext()
                ):
                    logits = self.model(inputs)  # (B, T, V)
                loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
                (loss / self.accumulate).backward()
            if world.size > 1 and config.parallel == "fsdp":
                self.core.set_requires_gradient_sync(True)
            total += loss.detach() / self.accumulate
        clip = config.grad_clip or math.inf
        norm = whole(torch.nn.utils.clip_grad_norm_(self.core.parameters(), clip))
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            # young averages forget faster, or they would hold the initial weights for long
            decay = min(config.ema_decay, (1 + self.done) / (10 + self.done))
            with torch.no_grad():
                torch._foreach_lerp_(self.ema, list(self.core.parameters()), 1 - decay)
        report = torch.stack([total, total.new_tensor(float(self.signalled))])
        if world.size > 1:
            torch.distributed.all_reduce(report)
            report[0] /= world.size
        self.stopping = float(report[1]) > 0
        return float(report[0]), float(norm)

    def _without_sync(self, stack: ExitStack) -> None:
        """Gradients of all but the last part are added up where they are."""
        if self.config.parallel == "fsdp":
            self.core.set_requires_gradient_sync(False)
        else:
            stack.enter_context(self.model.no_sync())

    def train(self) -> dict[str, Any]:
        """Run to the end → the last figures. Stopped after Ctrl-C, with a checkpoint written."""
        if self.world.main:
            self.log = RunLog(self.run, self.done, self.on_event, self.config.tensorboard)
        try:
            self._announce()
            return self._run_steps()
        finally:
            if self.log:
                self.log.close()

    def _run_steps(self) -> dict[str, Any]:
        config = self.config
        began = time.monotonic() - self.seconds
        tick, tick_step = time.monotonic(), self.done
        with self._signals():
            while self.done < config.max_steps:
                loss, norm = self._step()
                self.done += 1
                self.seconds = time.monotonic() - began
                if not math.isfinite(loss):
                    last = self.store.latest()
                    raise ValueError(
                        f"the loss is {loss} at step {self.done}: a lower --lr may help. "
                        f"Last checkpoint: {last or 'none'}"
                    )
                self.loss_sum += loss
                self.loss_count += 1
                ended = self.done == config.max_steps
                if self.done % config.log_interval == 0 or ended or self.stopping:
                    now = time.monotonic()
                    rate = (self.done - tick_step) * self.step_tokens / max(now - tick, 1e-9)
                    tick, tick_step = now, self.done
                    self._report(norm, rate)
                early = None if self.stopping else self._look(ended)
                if early is not None:  # time spent looking on is not training speed
                    tick, tick_step = time.monotonic(), self.done
                if self.done % config.checkpoint_interval == 0 or ended or early or self.stopping:
                    self.save()
                if self.stopping:
                    if self.world.main and sys.stdout.isatty():
                        print()  # behind the line that was written over and over
                    raise Stopped(
                        f"stopped after step {self.done}; go on with "
                        f"`gpt2 train --resume {self.run}`"
                    )
                if early:
                    self._say(f"no better validation loss for {config.patience} validations: done")
                    break
        return {
            "step": self.done,
            "val_loss": self.last_val.nats if self.last_val else None,
            "best": self.best,
            "seconds": round(self.seconds, 1),
        }

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM finish the step and write a checkpoint; a second one ends at once."""

        def note(number: int, frame: object) -> None:
            if self.signalled:
                raise KeyboardInterrupt
            self.signalled = number

        kinds = [signal.SIGINT, signal.SIGTERM]
        try:
            before = [signal.signal(kind, note) for kind in kinds]
        except ValueError:  # not in the main thread (a notebook's worker): no handlers there
            yield
            return
        try:
            yield
        finally:
            for kind, handler in zip(kinds, before, strict=True):
                signal.signal(kind, handler)

    def _announce(self) -> None:
        config = self.config
        count = sum(math.prod(p.shape) for p in self.core.parameters())
        self._say(
            f"{count:,} parameters on {self.world.size} × {self.world.device} "
            f"({'bfloat16 autocast' if self.autocast else 'float32'}), "
            f"{self.index.source.get('name')}: {self.train_source.tokens:,} tokens, "
            f"{self.step_tokens:,} per step ({self.world.size} ranks × {self.accumulate} × "
            f"{self.micro} × {config.context}), steps {self.done + 1} … {config.max_steps}"
        )

    def _report(self, norm: float, rate: float) -> None:
        loss = self.loss_sum / self.loss_count
        self.loss_sum, self.loss_count = 0.0, 0
        lr = lr_at(self.done - 1, self.config)
        self._log(
            {
                "step": self.done,
                "loss": round(loss, 6),
                "lr": lr,
                "grad_norm": round(norm, 4),
                "tokens_per_s": round(rate),
                "seconds": round(self.seconds, 1),
            }
        )
        left = (self.config.max_steps - self.done) * self.step_tokens / rate
        line = (
            f"step {self.done}/{self.config.max_steps}  loss {loss:.4f}  lr {lr:.2e}  "
            f"|g| {norm:.2f}  {rate:,.0f} tokens/s  {clock(left)} left"
        )
        if self.world.main:
            if sys.stdout.isatty():
                # a line that wraps could not be written over
                line = line[: shutil.get_terminal_size().columns - 1]
                print(f"\r\x1b[K{line}", end="", flush=True)
            else:
                print(line, flush=True)

    def _look(self, ended: bool) -> bool | None:
        """Validate, keep the best, sample, when it is time → stop early? None: it was not time."""
        config, looked, stop = self.config, None, False
        if (config.eval_interval and self.done % config.eval_interval == 0) or ended:
            looked = True
            stop = self._validate_and_keep()
        if config.sample_interval and (self.done % config.sample_interval == 0 or ended):
            looked = True
            if self.world.main and not self._shared_out():
                text = self.sample()
                self._log({"step": self.done, "sample": text})
                self._say(f"--- sample at step {self.done}\n{text}\n---")
            self._barrier()
        return stop if looked else None

    def _shared_out(self) -> bool:
        return self.world.size > 1 and self.config.parallel == "fsdp"

    def _validate_and_keep(self) -> bool:
        """→ has it not become better for `patience` times?"""
        from gpt2.training.evaluation import evaluate_hellaswag, read_hellaswag

        result = self.validate()
        event: dict[str, Any] = {"step": self.done}
        if result is not None:
            self.last_val, self.last_val_step = result, self.done
            event |= {
                "val_loss": round(result.nats, 6),
                "val_perplexity": round(result.perplexity, 4),
                "val_bits_per_byte": round(result.bits_per_byte or 0.0, 5),
            }
        if self.config.hellaswag and not self._shared_out():
            if self.world.main:
                examples = read_hellaswag(self.config.hellaswag)
                with self._averaged():
                    score = evaluate_hellaswag(self.core, self.tokenizer, examples)
                event |= {"hellaswag_acc": score.acc, "hellaswag_acc_norm": score.acc_norm}
            self._barrier()
        better = result is None or self.best is None or result.nats < self.best
        if better:
            weights = self._gather(self._weights())
            if self.world.main:
                self._keep_best(weights)
            self.best = result.nats if result else None
            self.since_best = 0
        else:
            self.since_best += 1
        event["seconds"] = round(self.seconds, 1)
        if result is not None:
            self._log(event)
            self._say(
                f"step {self.done}  validation loss {result.nats:.4f}  perplexity "
                f"{result.perplexity:.3f}  {result.bits_per_byte or 0:.4f} bits per byte"
                + ("  (best)" if better else "")
            )
        patience = self.config.patience
        return patience is not None and self.since_best >= patience

    def _keep_best(self, weights: list[Tensor]) -> None:
        try:
            self._export(self.run / BEST_NAME, weights)
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
                raise
            last = self.store.latest()
            raise ValueError(
                f"the best model cannot be written to {self.run / BEST_NAME}: {error}. "
                f"Last checkpoint: {last or 'none'}"
            ) from None


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


def resumed_config(run: str | Path, changes: dict[str, Any]) -> TrainConfig:
    """The settings of a run's last checkpoint, with those changed that were given.

    ValueError when there is no checkpoint.
    """
    from gpt2.training.state import STATE_NAME, CheckpointStore, read_state

    latest = CheckpointStore(run).latest()
    if latest is None:
        raise ValueError(f"{run} holds no checkpoint to resume from")
    saved = read_state(latest)
    known = {spec.name for spec in fields(TrainConfig)}
    settings = {name: value for name, value in saved["config"].items() if name in known}
    # on another number of ranks a step still takes the tokens that it took
    settings["total_batch_tokens"] = saved.get("total_batch_tokens")
    try:
        config = TrainConfig(**settings)
    except ValueError as error:
        raise ValueError(f"{latest / STATE_NAME}: {error}") from None
    return replace(config, **changes)


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
