"""What a check puts around a piece while it runs it: another device, a count of operations, no
memory behind tensors, no network.

Each is a block: `with operations() as seen: module(x)`. Where the piece runs in this process, the
block works here; where it runs in a worker, the worker is told which blocks are open and opens the
same ones there. So this file imports torch and the standard library alone: a worker runs it by its
path.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# the blocks that are open: name → what a worker needs to know of it
OPEN: dict[str, object] = {}
MAX_OPERATIONS = 20_000


@contextmanager
def _open(name: str, about: object) -> Iterator[None]:
    outer = dict(OPEN)
    OPEN[name] = about
    try:
        yield
    finally:
        OPEN.clear()
        OPEN.update(outer)


# ── another device ──────────────────────────────────────────────────────────────────────────────


class Away(TorchFunctionMode):
    """Takes some tensors for tensors of another device (they say: meta), and follows what is made
    of them. Tensors on the real meta device would cost a second of imports, hold no numbers, and
    let some operations mix devices. Of a tensor that no operation seen here has made, nothing is
    known, and nothing is said.
    """

    DEVICE = torch.device("meta")

    def __enter__(self):
        self._block = _open("away", True)
        self._block.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        self._block.__exit__(None, None, None)
        return super().__exit__(*error)

    def move(self, t: Tensor) -> Tensor:
        """Take t for a tensor of the other device, also in a later run that finds it in a cache."""
        t.lies_elsewhere = True
        return t

    def leave(self, t: Tensor) -> Tensor:
        """Take t for a tensor of the CPU."""
        t.lies_elsewhere = False
        return t

    def holds(self, t: object) -> bool:
        """Whether t is a tensor of the other device."""
        return getattr(t, "lies_elsewhere", None) is True

    def misses(self, t: object) -> bool:
        """Whether t is known to be a tensor of the CPU."""
        return getattr(t, "lies_elsewhere", None) is False

    def _here(self, value: object) -> object:
        is_device = isinstance(value, (torch.device, str)) and str(value) == str(self.DEVICE)
        return torch.device("cpu") if is_device else value

    def __torch_function__(self, function, types, args=(), kwargs=None):
        from torch.utils import _device
        from torch.utils._pytree import tree_leaves, tree_map

        kwargs = dict(kwargs or {})
        if function is torch.device:
            return function(*args, **kwargs)
        name = getattr(function, "__name__", "")
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        away = any(self.holds(t) for t in given)
        if function == Tensor.device.__get__:
            return self.DEVICE if away else function(*args)
        # a GPU takes numbers and indices from the CPU, and copies when asked to
        at_home = any(t.dim() and self.misses(t) for t in given)
        known = not given or away or any(self.misses(t) for t in given)
        if away and at_home and name not in ("to", "copy_", "type_as", "__getitem__"):
            raise RuntimeError("Expected all tensors to be on the same device")
        if name == "to" and len(given) > 1:
            away = self.holds(given[1])
        device = kwargs.get("device", "cpu" if name == "cpu" else None)
        if name == "to" and len(args) > 1 and isinstance(args[1], (str, torch.device)):
            device = args[1]
        if device is None and not given and str(_device.CURRENT_DEVICE) == str(self.DEVICE):
            device = kwargs["device"] = self.DEVICE  # inside `with torch.device(x.device):`
        if device is not None:
            away = str(device) == str(self.DEVICE)
            known = True
        args, kwargs = tree_map(self._here, (args, kwargs))
        got = function(*args, **kwargs)
        if name in ("to", "cpu"):
            got = got.clone()  # not the tensor itself, which stays where it is
        if known:
            for t in tree_leaves(got):
                if isinstance(t, Tensor):
                    (self.move if away else self.leave)(t)
        return got


def tensors_that_stay(module: torch.nn.Module) -> list[Tensor]:
    """Tensors that moving the module does not move: its parts' plain attributes (also in lists and
    dicts), and the globals of the files that define them.
    """
    from torch.utils._pytree import tree_leaves

    found: list[object] = []
    for part in module.modules():
        found += [v for k, v in vars(part).items() if k not in ("_parameters", "_buffers")]
        home = sys.modules.get(type(part).__module__)
        if home is not None and not home.__name__.startswith("torch"):
            found += [v for v in vars(home).values() if isinstance(v, (Tensor, list, tuple, dict))]
    return [t for t in tree_leaves(found) if isinstance(t, Tensor)]


# ── operations ──────────────────────────────────────────────────────────────────────────────────


class _Recording(TorchFunctionMode):
    def __init__(self, seen: list):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if len(self.seen) < MAX_OPERATIONS:
            shape = tuple(result.shape) if isinstance(result, Tensor) else ()
            self.seen.append((getattr(function, "__name__", "").strip("_"), shape))
        return result


@contextmanager
def operations() -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    """Inside, torch's operations are written down: (name without underscores, shape of what it
    gives, () for what is not a tensor).
    """
    seen: list[tuple[str, tuple[int, ...]]] = []
    with _open("operations", seen), _Recording(seen):
        yield seen


class _Operands(TorchFunctionMode):
    def __init__(self, last: list[Tensor]):
        super().__init__()
        self.last = last

    def __torch_function__(self, function, types, args=(), kwargs=None):
        from torch.utils._pytree import tree_leaves

        given = tree_leaves((args, kwargs or {}))
        self.last[:] = [t for t in given if isinstance(t, Tensor) and t.is_floating_point()]
        return function(*args, **(kwargs or {}))


@contextmanager
def operands() -> Iterator[list[Tensor]]:
    """Inside, the list holds the tensors that the last operation was given: afterwards it says at
    which operation a run stopped.
    """
    last: list[Tensor] = []
    with _open("operands", last), _Operands(last):
        yield last


# ── no memory ───────────────────────────────────────────────────────────────────────────────────


@contextmanager
def without_memory(skip_init: Callable) -> Iterator[None]:
    """Inside, modules are made with shapes and without numbers. skip_init: the course's own, which
    draws no random numbers (drawing them there would make PyTorch import its compiler).
    """
    with _open("without_memory", True), torch.device("meta"), skip_init():
        yield


@contextmanager
def unset_memory_is_nan() -> Iterator[None]:
    """Inside, a tensor made with torch.empty is NaN: otherwise it may be the file's own numbers,
    read a moment ago and freed, and look loaded.
    """
    # not torch.use_deterministic_algorithms, which imports the compiler: a second
    before = torch.are_deterministic_algorithms_enabled()
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    try:
        with _open("unset_memory_is_nan", True):
            yield
    finally:
        torch._C._set_deterministic_algorithms(before)


# ── network and hub ─────────────────────────────────────────────────────────────────────────────


class Folder(str):
    """A folder's path that is given to a piece: a worker gets a copy of what lies in it."""


@contextmanager
def no_network() -> Iterator[None]:
    """Inside, whoever asks for the network is refused at once."""
    import os
    import socket
    from unittest import mock

    def refuse(*arguments, **keywords):
        raise OSError("no network in the tests")

    settings = sys.modules.get("huggingface_hub.constants")
    with (
        _open("no_network", True),
        mock.patch.object(socket, "getaddrinfo", refuse),
        mock.patch.object(socket.socket, "connect", refuse),
        mock.patch.dict(os.environ, {} if settings else {"HF_HUB_OFFLINE": "1"}),
        mock.patch.object(settings or os, "HF_HUB_OFFLINE", True, create=True),
    ):
        yield


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, transformers shows no bars and reports, of which the checks would fill pages."""
    module = sys.modules.get("transformers.utils.logging")
    if module is None:
        with _open("quiet_transformers", True):
            yield
        return
    level, bars = module.get_verbosity(), module.is_progress_bar_enabled()
    module.set_verbosity_error()
    module.disable_progress_bar()
    try:
        with _open("quiet_transformers", True):
            yield
    finally:
        module.set_verbosity(level)
        if bars:
            module.enable_progress_bar()


@contextmanager
def downloads(folder: str, module: object, name: str) -> Iterator[list[tuple]]:
    """Inside, what the course's `module` would download with its function `name` is `folder`; what
    was asked for is in the list, as (repository, …).
    """
    from pathlib import Path
    from unittest import mock

    asked: list[tuple] = []

    def download(repository, *given):
        asked.append((repository, *given))
        return Path(folder)

    about = {"folder": folder, "module": module.__name__, "name": name, "asked": asked}
    with _open("downloads", about), mock.patch.object(module, name, download):
        yield asked


# ── in a worker ─────────────────────────────────────────────────────────────────────────────────


@contextmanager
def same_as(told: dict, modules: dict[str, object]) -> Iterator[dict]:
    """Open the blocks that the judge has open. Gives what is to be told it afterwards.

    modules: the course's modules that a piece may import, by name.
    """
    said: dict = {}
    with contextlib.ExitStack() as stack:
        if told.get("no_network"):
            stack.enter_context(no_network())
        if told.get("quiet_transformers"):
            stack.enter_context(quiet_transformers())
        if told.get("unset_memory_is_nan"):
            stack.enter_context(unset_memory_is_nan())
        if told.get("downloads"):
            about = told["downloads"]
            module = modules[about["module"]]
            asked = stack.enter_context(downloads(about["folder"], module, about["name"]))
            said["asked"] = asked
        if told.get("without_memory"):
            stack.enter_context(without_memory(modules["skip_init"]))
        if told.get("operations"):
            said["operations"] = stack.enter_context(operations())
        if told.get("operands"):
            said["operands"] = stack.enter_context(operands())
        if told.get("away"):
            stack.enter_context(Away())
        yield said


def tell() -> dict:
    """The blocks that are open here, for a worker."""
    told: dict = {name: True for name in OPEN if name != "downloads"}
    if "downloads" in OPEN:
        about = OPEN["downloads"]
        told["downloads"] = {key: about[key] for key in ("folder", "module", "name")}
    return told


def hear(said: dict) -> None:
    """Write down here what a worker saw inside the same blocks."""
    if "operations" in OPEN:
        OPEN["operations"] += said.get("operations", [])
    if "operands" in OPEN and "operands" in said:
        OPEN["operands"][:] = said["operands"]
    if "downloads" in OPEN:
        OPEN["downloads"]["asked"] += said.get("asked", [])
