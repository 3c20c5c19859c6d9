"""Training: one loop for a laptop, a GPU, and many of them under torchrun.

    gpt2 train --preset tiny
    torchrun --nproc-per-node=8 -m gpt2.train --preset gpt2-124m-fineweb

A run is a function of its settings: which sequences a step sees and every random number it draws
follow from (seed, step, rank). So a run that was interrupted and resumed on a CPU ends with the
same bits, and evaluating more or less often changes nothing. Shapes: B sequences of T tokens.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.training_config import TrainConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from gpt2.data import BatchLoader, DataIndex, TokenSource
    from gpt2.evaluate import Loss
    from gpt2.model import GPT2Model
    from gpt2.tokenizers import Tokenizer

LOG_NAME = "log.jsonl"
BEST_NAME = "best"


# ------------------------------------------------------------------------------------------ ranks


@dataclass(frozen=True)
class World:
    """Which of how many processes this is, and where it computes."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Rank 0: the one that writes and prints."""
        return self.rank == 0


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto` → cuda, mps or cpu, whatever is there. ValueError when the one asked for is not."""
    import torch

    from gpt2.commands.generate import pick_device as pick

    device = pick(name)
    return torch.device("cuda", local_rank) if device.type == "cuda" else device


@contextmanager
def open_world(device: str) -> Iterator[World]:
    """The processes that torchrun started, or this one alone."""
    import torch
    import torch.distributed as dist

    size = int(os.environ.get("WORLD_SIZE", "1"))
    picked = pick_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if picked.type == "cuda":
        torch.cuda.set_device(picked)
    if "RANK" not in os.environ or size == 1:
        yield World(0, 1, picked)
        return
    dist.init_process_group("nccl" if picked.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size, picked)
        dist.barrier()  # nobody hangs up while another still talks
    finally:
        dist.destroy_process_group()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Every random generator to a state that follows from these three alone."""
    import numpy as np
    import torch

    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    number = int.from_bytes(digest[:8], "little")
    torch.manual_seed(number >> 1)
    np.random.seed(number & 0xFFFFFFFF)
    random.seed(number)


# --------------------------------------------------------------------------------------- the step


def lr_at(step: int, config: TrainConfig) -> float:
    """The learning rate of step 0, 1, …: linear warm-up, then a cosine to min_lr_ratio of the
    peak.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    share = min(1.0, (step - config.warmup) / max(1, config.max_steps - config.warmup))
    low = config.lr * config.min_lr_ratio
    return low + (config.lr - low) * 0.5 * (1 + math.cos(math.pi * share))


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What to compute in where float32 is not needed: bfloat16 where the hardware has it."""
    import torch

    if precision == "float32":
        return None
    if precision == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    if device.type == "cpu":
        # elsewhere a CPU imitates bfloat16, and is slower with it than without
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        checks = [getattr(torch.cpu, name, None) for name in names]
        return torch.bfloat16 if any(check and check() for check in checks) else None
    return None


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the blocks' matrices and AdamW for the rest.

    Decay is on matrices only: biases and norms have no scale to keep small.
    """
    import torch

    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inner = {name for name, p in named if p.dim() == 2 and name.startswith("h.")}
    by_muon = inner if config.optimizer == "muon" else set()
    matrices = [p for name, p in named if p.dim() >= 2 and name not in by_muon]
    vectors = [p for _, p in named if p.dim() < 2]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            fused=next(model.parameters()).device.type in ("cpu", "cuda"),
        )
    ]
    if by_muon:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f"optimizer muon needs PyTorch 2.9 or newer, this is {torch.__version__}"
            )
        optimizers.append(
            torch.optim.Muon(
                [p for name, p in named if name in by_muon],
                lr=config.lr,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                # its steps as long as AdamW's, so that one learning rate does for both
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def whole(tensor: Tensor) -> Tensor:
    """A tensor that FSDP may have shared out between the ranks → all of it, on every rank."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def put_whole(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor, which every rank has, into one that FSDP may have shared out by rows."""
    import torch

    with torch.no_grad():
        if hasattr(target, "device_mesh"):
            mesh = target.device_mesh
            rows = value.chunk(mesh.size(), dim=0)
            target, rank = target.to_local(), mesh.get_local_rank()
            if rank < len(rows):  # fewer rows than ranks leave the last ones nothing
                target.copy_(rows[rank])
        else:
            target.copy_(value)


class Stopped(Exception):
    """Ctrl-C or SIGTERM, after the checkpoint was written."""


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

        from gpt2.data import BatchLoader, TokenSource
        from gpt2.tokenizers import load_tokenizer
        from gpt2.training_checkpoint import CheckpointStore

        self.config, self.run, self.world = config, Path(run), world
        self.on_event = on_event or (lambda event: None)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.index = self._prepare()
        self.tokenizer: Tokenizer = load_tokenizer(self.index.folder)
        self.train_source = TokenSource(self.index, "train")
        self.val_source: TokenSource | None = (
            TokenSource(self.index, "val") if "val" in self.index.splits else None
        )
        self.micro, self.accumulate = self._batch_plan()
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
        self.core = self._build_model(latest)
        self.model = self._parallelise(self.core)
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

    def _prepare(self) -> DataIndex:
        from gpt2.data import INDEX_NAME, read_index
        from gpt2.prepare import prepare

        folder = self.config.data_folder
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

    def _batch_plan(self) -> tuple[int, int]:
        """(sequences per forward pass and rank, forward passes per step)."""
        T, W = self.config.context, self.world.size
        total = self.config.total_batch_tokens or self.config.batch_size * T * W
        if total % (T * W):
            raise ValueError(
                f"total_batch_tokens = {total} is not divisible by context × ranks = {T} × {W}"
            )
        per_rank = total // (T * W)
        micro = min(self.config.batch_size, per_rank)
        if per_rank % micro:
            raise ValueError(
                f"{per_rank} sequences per rank and step (total_batch_tokens = {total} / "
                f"({T} × {W})) are not divisible by batch_size = {micro}"
            )
        return micro, per_rank // micro

    @property
    def step_tokens(self) -> int:
        """Tokens per optimizer step, over all ranks."""
        return self.micro * self.accumulate * self.world.size * self.config.context

    def _build_model(self, checkpoint: Path | None) -> GPT2Model:
        from gpt2.model import GPT2Config, GPT2Model

        config = self.config
        attn = config.dropout if config.attn_dropout is None else config.attn_dropout
        rates = {
            "resid_pdrop": config.dropout,
            "embd_pdrop": config.dropout,
            "attn_pdrop": attn,
        }
        origin = str(checkpoint) if checkpoint else config.init_from
        if origin:
            loaded = GPT2Model.from_pretrained(origin)
            shape = {
                name: getattr(loaded.config, name)
                for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
            }
            eps = loaded.config.layer_norm_epsilon
            model = GPT2Model(GPT2Config(**shape, **rates, layer_norm_epsilon=eps))
            model.load_state_dict(loaded.state_dict())
            if shape["vocab_size"] != self.index.vocab_size:
                raise ValueError(
                    f"{origin} has {shape['vocab_size']} tokens, {self.index.folder} was "
                    f"prepared with {self.index.vocab_size}: prepare the text with the model's "
                    "tokenizer (--tokenizer gpt2, or its folder)"
                )
            if config.context > shape["n_positions"]:
                raise ValueError(
                    f"context = {config.context} > n_positions = {shape['n_positions']} of {origin}"
                )
        else:
            model = GPT2Model(
                GPT2Config(
                    vocab_size=self.index.vocab_size,
                    n_positions=config.context,
                    n_embd=config.n_embd,
                    n_layer=config.n_layer,
                    n_head=config.n_head,
                    **rates,
                )
            )
        return model.to(self.world.device).train()

    def _parallelise(self, core: GPT2Model) -> Callable[[Tensor], Tensor]:
        """DDP copies the model to every rank, FSDP2 shares it out, block by block."""
        if self.world.size > 1 and self.config.parallel == "fsdp":
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            if self.config.optimizer == "muon":
                raise ValueError("optimizer muon needs whole matrices, and fsdp shares them out")
            mesh = init_device_mesh(self.world.device.type, (self.world.size,))
            for block in core.h:
                fully_shard(block, mesh=mesh)
            # without this the last group stays whole after a validation, and is not read anew
            fully_shard(core, mesh=mesh, reshard_after_forward=True)
            return self._compiled(core)
        if self.world.size > 1:
            from torch.nn.parallel import DistributedDataParallel

            return self._compiled(DistributedDataParallel(core))
        return self._compiled(core)

    def _compiled(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        import torch

        return torch.compile(model) if self.config.compile else model

    # --------------------------------------------------------------------------------- checkpoints

    def _names(self) -> list[str]:
        return [name for name, _ in self.core.named_parameters()]

    def _weights(self) -> list[Tensor]:
        """What is evaluated, shown and exported: the averaged weights where there are any."""
        return self.ema if self.ema is not None else list(self.core.parameters())

    def _export(self, folder: Path, weights: list[Tensor]) -> None:
        """Whole weights, in the order of the parameters → a Hugging Face folder."""
        import torch

        from gpt2.checkpoints import save_pretrained, skip_init
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

        from gpt2.training_checkpoint import read_checkpoint

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
                            optimizer.state[p]["step"] = torch.tensor(
                                state["optimizer_steps"][name], dtype=torch.float32
                            )
            self.loader.load_state(state["loader"])
            self.done = int(state["step"])
            self.seconds = float(state["seconds"])
            self.best, self.since_best = state["best"], int(state["since_best"])
            self.loss_sum, self.loss_count = state["loss_sum"], int(state["loss_count"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{path} is damaged: {type(error).__name__} {error}") from None
        if state["code"] != code_version() and self.world.main:
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
        from gpt2.evaluate import evaluate_loss

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

        from gpt2.generate import generate

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
        if not self.world.main:
            return
        with (self.run / LOG_NAME).open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")
        self.on_event(event)
        if self.board:
            for name, value in event.items():
                if name != "step" and isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, event["step"])

    def _open_log(self) -> None:
        """Lines of steps that are about to be repeated go."""
        self.board = None
        if not self.world.main:
            return
        self.run.mkdir(parents=True, exist_ok=True)
        path = self.run / LOG_NAME
        if path.exists():
            kept = [row for row in read_log(path) if row.get("step", 0) <= self.done]
            aside = path.with_name(f".{path.name}.{os.getpid()}")
            aside.write_text(
                "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept),
                encoding="utf-8",
                newline="\n",
            )
            os.replace(aside, path)
        if self.config.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ValueError("--tensorboard: pip install tensorboard") from None
            self.board = SummaryWriter(str(self.run / "tensorboard"), purge_step=self.done)

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
        with ExitStack() as stack:
            self._open_log()
            if self.board:
                stack.callback(self.board.close)
            self._announce()
            return self._run_steps()

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
            f"|g| {norm:.2f}  {rate:,.0f} tokens/s  {_clock(left)} left"
        )
        if self.world.main:
            if sys.stdout.isatty():
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
        from gpt2.evaluate import evaluate_hellaswag, read_hellaswag

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


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


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


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """A run's log; a last line that was cut off by a crash is left out."""
    rows = []
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def resumed_config(run: str | Path, changes: dict[str, Any]) -> TrainConfig:
    """The settings of a run's last checkpoint, with those changed that were given.

    ValueError when there is no checkpoint.
    """
    from gpt2.training_checkpoint import CheckpointStore, read_state

    latest = CheckpointStore(run).latest()
    if latest is None:
        raise ValueError(f"{run} holds no checkpoint to resume from")
    saved = read_state(latest)
    known = {spec.name for spec in fields(TrainConfig)}
    settings = {name: value for name, value in saved["config"].items() if name in known}
    # on another number of ranks a step still takes the tokens that it took
    settings["total_batch_tokens"] = saved["total_batch_tokens"]
    return replace(TrainConfig(**settings), **changes)


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
    with open_world(config.device) as world:
        return Trainer(config, run, world, resume=resume, on_event=on_event).train()


if __name__ == "__main__":
    from gpt2.cli import run as run_command
    from gpt2.cli import run_the_courses_own
    from gpt2.commands.train import command

    run_the_courses_own("gpt2.train")
    code = run_command(command, "gpt2 train")
    if "RANK" in os.environ:
        # threads that FSDP leaves behind may abort a process that winds up in the usual way, when
        # all its work is done ("terminate called without an active exception")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
