"""The process that holds a student's module, and nothing that could answer for it.

It is forked from a server (`keeper.py`) that has torch, and learns from the judge what to hold: the
text of the student's file, and the texts of those modules of the course that the file may import,
without what the file is to write itself. It runs what it is asked to run on the numbers it is
given, and says what came of it. It makes no verdict and knows no check. Whatever it says may be a
lie: the judge takes it for numbers and names, and for nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import itertools
import linecache
import os
import random
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent


def beside(name: str, *places: str) -> types.ModuleType:
    """A module of ours that needs torch and the standard library alone, run by its path."""
    full = f"judged_{name}"
    if full not in sys.modules:
        path = next(p for place in places or (".",) if (p := HERE / place / f"{name}.py").exists())
        spec = importlib.util.spec_from_file_location(full, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


wire = beside("wire")
surroundings = beside("surroundings", "../checking")
limits = beside("limits", "../checking")
conduct = beside("conduct", "../checking")

CONDUCT: dict = {}  # what a file may write to, set by the keeper; nothing is noted without
SEALS: list = []  # torch as it is before the file
MAX_MEMBERS = 400  # of a class that are described
COMPARED = 4_000_000  # numbers of one tensor; of larger ones only torch's own count of changes
SPECIAL = frozenset(("__init__", "__new__", "__call__", "__getattr__", "__eq__", "__repr__"))


# ── what the course gives ───────────────────────────────────────────────────────────────────────


class Given(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the course's modules in texts: name → {text, package, missing}."""

    def __init__(self, texts: dict[str, dict]):
        self.texts = texts

    def find_spec(self, name, path=None, target=None):
        about = self.texts.get(name)
        if about is None:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, is_package=bool(about.get("package")))
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        about = self.texts[module.__name__]
        file = f"{module.__name__.replace('.', '/')}.py"
        module.__file__ = file
        missing, number = about.get("missing"), about.get("number")
        exec(compile(about["text"], file, "exec", dont_inherit=True), module.__dict__)
        if missing:

            def absent(name: str, missing=missing, number=number, whose=module.__name__):
                if name in missing:
                    raise ImportError(
                        f"{name} is provided by problem {missing[name]:02d} and is not there yet "
                        f"for problem {number:02d}"
                    )
                raise AttributeError(f"module {whose!r} has no attribute {name!r}")

            module.__getattr__ = absent


# ── what the judge gives ────────────────────────────────────────────────────────────────────────


class GivenObject:
    """An object that lives with the judge: a cache, for instance. What it can do besides being
    called, its own class adds.
    """

    def __init__(self, worker, gid: int):
        object.__setattr__(self, "_given", (worker, gid))

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        worker, gid = self._given
        return worker.of_given(gid, "get", name)

    def __setattr__(self, name, value):
        worker, gid = self._given
        worker.of_given(gid, "set", name, value)

    def __deepcopy__(self, memo):
        return self


def given_class(name: str, able: list[str]) -> type:
    """The class of an object that lives with the judge. able: the special methods that it has."""

    def method(special: str) -> Callable:
        what = "call" if special == "__call__" else special

        def ask(self, *args, **kwargs):
            worker, gid = self._given
            if special == "__exit__":
                args = wire.left_by(*args[:2])
            return worker.of_given(gid, what, None, *args, **kwargs)

        return ask

    return type(name, (GivenObject,), {special: method(special) for special in able})


class GivenModule(nn.Module):
    """A module that lives with the judge, such as a sublayer."""

    def __init__(self, worker, gid: int, parameters: dict[str, Tensor]):
        super().__init__()
        object.__setattr__(self, "_given", (worker, gid))
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value))

    def forward(self, *args, **kwargs):
        worker, gid = self._given
        return worker.of_given(gid, "call", None, *args, **kwargs)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "_given" not in vars(self):
                raise
        worker, gid = self._given
        return worker.of_given(gid, "get", name)


# ── the worker ──────────────────────────────────────────────────────────────────────────────────


@dataclass
class Seen:
    """A parameter or buffer as the judge knows it."""

    tensor: Tensor
    key: tuple
    copy: Tensor | None
    grad: bytes | None = None  # of its gradient, as both sides last knew it


def _key(t: Tensor) -> tuple:
    pointer = 0 if t.device.type == "meta" else t.data_ptr()
    version = -1 if t.is_inference() else t._version
    return pointer, version, tuple(t.shape), t.stride(), t.dtype, t.requires_grad


class Worker(wire.Peer):
    """Answers the judge."""

    def __init__(self, line):
        super().__init__(line)
        self.sign = 1
        self.modes: dict[int, list[int]] = {}  # oid of a root → its modules' modes, as told
        self.loose: list[int] = []  # numbers of parameters that came without a module
        self.module = types.ModuleType("piece")
        self.path = ""
        self.given_modules: dict[str, object] = {}
        self.objects: dict[int, object] = {}
        self.ids: dict[int, int] = {}
        self.classes: dict[int, type] = {}
        self.tensors: dict[int, Seen] = {}
        self.tensor_ids: dict[int, int] = {}
        self.storages: dict[int, tuple] = {}  # address → (number, storage kept alive)
        self.gifts: dict[int, object] = {}
        self.prints: dict[int, tuple] = {}  # a root module's oid → its structure, as it was told
        self.roots: dict[int, int] = {}  # oid → the oid of the module that it was told in
        self.told_classes: list[dict] = []
        self.told_storages: list[dict] = []
        self.folders: dict[str, str] = {}
        self.watch = None
        self.torch_before = self._torch_now()
        self.provides: list[str] = []
        self._broken: tuple | None = None  # the question that an error broke off

    # ── questions

    def answer(self, message, parts) -> dict:
        kind = message.kind
        if kind == "back":
            return self.back(message, parts)
        if kind == "load":
            return self._load(message.body)
        if kind == "do":
            return self._do(message, parts)
        if kind == "left":
            return self._left()
        if kind == "again":
            return self._again()
        if kind == "conduct":
            fact = None if self.watch is None else self.watch.fact()
            said = {} if fact is None else {"kind": fact.kind, "text": fact.text}
            return said | {"started": [] if self.watch is None else self.watch.started[:3]}
        raise wire.WireError(f"a question of no kind that there is: {kind!r}")

    def _load(self, body: dict) -> dict:
        self.will_share = body.get("shares") is True
        self.path = self._own_copy(body)
        sys.meta_path.insert(0, Given(body["given"]))
        module = types.ModuleType(body["name"])
        module.__file__ = self.path
        sys.modules[module.__name__] = module  # dataclasses look a class's module up by name
        linecache.cache[self.path] = (
            len(body["source"]),
            None,
            body["source"].splitlines(keepends=True),
            self.path,
        )
        self.module = module
        try:
            for name in ("gpt2", *body["given"]):
                if not body["given"].get(name, {}).get("later"):
                    importlib.import_module(name)
        except BaseException as error:
            error.of_given = True
            raise
        random.seed(0)
        torch.default_generator.manual_seed(0)
        if CONDUCT:
            self.watch = conduct.Watch(Path(self.path), offline=True, seal=SEALS[0], **CONDUCT)
            self.watch.listen()
        code = compile(body["source"], self.path, "exec", dont_inherit=True)
        with limits.time_limit(body["seconds"]):
            exec(code, module.__dict__)
        self.torch_before = self._torch_now()
        self.provides = body["provides"]
        self.shares = self.will_share
        return self._told({"names": self._names()})

    def _names(self) -> dict:
        """What the problem asks for: classes with what is in them, of others what they are."""
        names, parts = {}, wire.Parts()
        for name in self.provides:
            if name in self.module.__dict__ or hasattr(self.module, name):
                value = getattr(self.module, name)
                home = getattr(value, "__module__", None)
                names[name] = (
                    self.write(value, parts)
                    if isinstance(value, type)
                    else {
                        "type": type(value).__name__[:80],
                        "callable": callable(value),
                        "home": home[:200] if isinstance(home, str) else "",
                    }
                )
        return names

    def _again(self) -> dict:
        """For another check: the module stays, and what was made for the last check goes."""
        for table in self._tables():
            table.clear()
        random.seed(0)
        gc.collect(1)
        return self._told({"names": self._names()})

    def _tables(self) -> tuple:
        return (
            *(self.objects, self.ids, self.classes, self.tensors, self.tensor_ids, self.storages),
            *(self.gifts, self.prints, self.roots, self.kept, self.forget, self.modes, self.loose),
            *(self.stores, self.store_at, self.generators),
            *(self.told_classes, self.told_storages),
        )

    def _own_copy(self, body: dict) -> str:
        """The path of a copy of the file that lies in this process's own folder: a file may look
        for its own place, and write something beside it.
        """
        folder = Path(body["path"]).parent
        own = Path(os.path.abspath("."), *folder.parts[1:][-2:])
        with contextlib.suppress(OSError):  # then there is no such place, and the file runs anyway
            own.mkdir(parents=True, exist_ok=True)
            (own / Path(body["path"]).name).write_text(body["source"], encoding="utf-8")
        self.folders[str(own)] = str(folder)
        return str(own / Path(body["path"]).name)

    def _torch_now(self) -> tuple[torch.dtype, int]:
        from torch._C import _len_torch_function_stack

        return torch.get_default_dtype(), _len_torch_function_stack()

    def _left(self) -> dict:
        """How calls have left torch, compared with how importing the file left it."""
        (dtype, modes), (before, modes_before) = self._torch_now(), self.torch_before
        return {
            "gradients": torch.is_grad_enabled(),
            "dtype": "" if dtype == before else str(dtype).removeprefix("torch."),
            "modes": modes > modes_before,
        }

    def _do(self, message, parts) -> dict:
        body = message.body
        if not self.shares:
            self._push(body, message)
        given = self.given(message)
        target = self.read(body["target"], message)
        args, kwargs = self.read(body["args"], message), self.read(body["kwargs"], message)
        roots = self._roots(target, args, kwargs)
        inputs = [leaf for leaf, _ in given]
        parameters = [self.tensors[pid].tensor for pid in body.get("pids", [])]
        holders = [(path, held, _held(held)) for path, held in _holders([args, kwargs])]
        told, said = body.get("told", {}), {}
        if told.get("downloads"):
            told["downloads"]["folder"] = self.read(told["downloads"]["folder"], message)
        doing = (roots, message, said, holders)
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(bool(body["grad"]) and before)
        try:
            with (
                limits.time_limit(body["seconds"]),
                surroundings.same_as(told, self.given_modules_by_name()) as heard,
                wire.autocast(body.get("autocast")),
            ):
                try:
                    if told.get("away"):
                        self._move(roots)
                    result = self._run(body, target, args, kwargs)
                finally:
                    said |= heard
            done: dict = {"value": self.write(result, parts)}
            self.keep(inputs, parts, done, parameters)
        except BaseException:
            self._broken = doing
            raise
        finally:
            after = torch.is_grad_enabled()
            torch.set_grad_enabled(before)
            if after != (bool(body["grad"]) and before):
                said["grad"] = after  # the judge goes on in the mode in which it is left
        return done | self._after(doing, parts)

    def given_modules_by_name(self) -> dict[str, object]:
        """The course's modules, and `skip_init`, as the blocks need them."""

        class Names(dict):
            def __missing__(self, name):
                if name == "skip_init":
                    found = [
                        m.skip_init
                        for n, m in sys.modules.items()
                        if n.startswith("gpt2.") and hasattr(m, "skip_init")
                    ]
                    return found[0]
                return sys.modules[name]

        return Names()

    def _run(self, body: dict, target: object, args: list, kwargs: dict) -> object:
        what, name = body["what"], body.get("name")
        if what == "call":
            function = target if name is None else getattr(target, name)
            return function(*args, **kwargs)
        if what == "get":
            return getattr(target, name)
        if what == "set":
            return setattr(target, name, args[0])
        if what == "copy":
            import copy

            return copy.deepcopy(target)
        if what == "record":
            return self._record(target, name, args, kwargs)
        return {
            "eq": lambda: target == args[0],
            "ne": lambda: target != args[0],
            "repr": lambda: repr(target),
            "str": lambda: str(target),
            "len": lambda: len(target),
            "iter": lambda: list(itertools.islice(target, wire.MAX_ITEMS)),
            "next": lambda: self._next(target),
            "enter": lambda: type(target).__enter__(target),
            "exit": lambda: wire.leave(target, args),
            "item": lambda: target[args[0]],
            "hash": lambda: hash(target),
            "bool": lambda: bool(target),
        }[what]()

    def _moved(self, holders: list[tuple], parts) -> list:
        """Lists and dicts among the arguments that hold something else now: where each is, and what
        it holds, as the place of what it held before, or a new value.
        """
        found = []
        for path, held, before in holders:
            now = _held(held)
            same = len(now) == len(before) and all(
                a[1] is b[1] and (a[0] is b[0] or a[0] == b[0])
                for a, b in zip(now, before, strict=True)
            )
            if same:
                continue
            rows = []
            for key, value in now:
                place = next((i for i, (_, old) in enumerate(before) if old is value), None)
                told = self.write(value, parts) if place is None else None
                rows.append([self.write(key, parts), place, told])
            found.append([path, rows])
        return found

    def _next(self, target: object) -> tuple:
        """(True, an iterator's next value), or (False, None) at its end."""
        end = object()
        value = next(target, end)
        return (False, None) if value is end else (True, value)

    def _record(self, cls: type, name: str, args: list, kwargs: dict) -> tuple:
        """An instance of a subclass whose method `name` does nothing but note what it is given:
        (instance, [(argument, whether the instance had a config)], …). The tables that it is given
        it fills with ones, as `checks.record_calls` does.
        """
        seen = []

        def noted(self, module):
            seen.append((module, hasattr(self, "config")))
            if isinstance(module, nn.Embedding):
                module.weight.data.fill_(1.0)

        made = type("Recording", (cls,), {name: noted})(*args, **kwargs)
        return made, seen

    def _move(self, roots: list[nn.Module]) -> None:
        for root in roots:
            for t in surroundings.tensors_that_stay(root):
                t.lies_elsewhere = False
            for t in (*root.parameters(), *root.buffers()):
                t.lies_elsewhere = True

    def _after(self, doing: tuple, parts) -> dict:
        """What changed while a question was answered."""
        roots, message, said, holders = doing
        if moved := self._moved(holders, parts):
            said["moved"] = moved
        body: dict = {}
        edited = []
        for number, about in enumerate(message.about):
            t = message.tensors.get(number)
            sent = t is not None and "blob" in about
            if sent and self._is_edited(t, about, message):
                parts.tensors.append(wire.write_tensor(t, parts))
                edited.append([number, len(parts.tensors) - 1])
        if edited:
            body["edited"] = edited
        changed = () if self.shares else roots  # there, every message tells of them
        updates = [u for root in changed if (u := self._changes(root, parts))]
        if updates:
            body["updates"] = updates
        if said:
            if "operations" in said:
                said["operations"] = [[n[:80], list(s)] for n, s in said["operations"]]
            if "operands" in said:
                said["operands"] = self.write([t.detach() for t in said["operands"]], parts)
            if "asked" in said:
                said["asked"] = self.write(list(said["asked"]), parts)
            body["said"] = said
        return self._told(body)

    def _is_edited(self, t: Tensor, about: dict, message) -> bool:
        with wire.NO_OVERRIDES(), torch.no_grad():
            plain = t.detach()
            if plain.dtype not in wire.NAMES or list(plain.shape) != about["shape"]:
                return False
            if wire.NAMES[plain.dtype] != about["dtype"]:
                return False
            if "strides" in about:
                return not torch.equal(plain, wire.read_tensor(about, message.blobs))
            return wire.raw(plain) != message.blobs[about["blob"]]

    def _told(self, body: dict) -> dict:
        if self.told_classes:
            body["classes"], self.told_classes = self.told_classes, []
        return body

    # ── errors

    def describe_error(self, error: BaseException, parts) -> dict:
        kinds = [k.__name__ for k in type(error).__mro__]
        try:
            text = str(error)
        except BaseException:
            text = ""
        for here, there in self.folders.items():  # as the judge calls them
            text = text.replace(here, there)
        line, inner, trace = None, False, error.__traceback__
        while trace is not None:
            inner = trace.tb_frame.f_code.co_filename == self.path
            line = trace.tb_lineno if inner else line
            trace = trace.tb_next
        body = {
            "type": type(error).__name__,
            "kinds": kinds[:20],
            "text": text[: wire.MAX_TEXT],
            "line": line,
            "inner": inner,
        }
        if getattr(error, "of_given", False) is True:
            body["given"] = True
        name = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and isinstance(name, str):
            body["name"] = name[:200]
        broken, self._broken = self._broken, None
        if broken is not None:
            with contextlib.suppress(ValueError, RuntimeError):
                body |= self._after(broken, parts)
        return self._told(body)

    # ── objects

    def oid(self, value: object) -> int:
        """An object's number; it stays alive from now on."""
        if id(value) not in self.ids:
            number = len(self.ids) + 1
            self.ids[id(value)] = number
            self.objects[number] = value
        return self.ids[id(value)]

    def is_value(self, t: Tensor) -> bool:
        return not self.shares or id(t) not in self.tensor_ids

    def write_object(self, value: object, parts) -> object:
        if isinstance(value, Tensor):
            return ["p", self.tensor_ids[id(value)]]
        if isinstance(value, torch.Generator):
            for number, (generator, _) in self.generators.items():
                if generator is value:
                    return ["given", number]
        if isinstance(value, nn.Module) and self.shares and id(value) in self.ids:
            return ["r", self.ids[id(value)]]
        if isinstance(value, (bool, int, float, str)) and type(value).__mro__[1] in (
            int,
            float,
            str,
        ):  # numpy's float64 is a float, an IntEnum an int
            for kind in (int, float, str):
                if isinstance(value, kind):
                    return self.write(kind(value), parts)
        if isinstance(value, type):
            return ["k", self._class(value)]
        if isinstance(value, nn.Module):
            return ["o", self._describe_root(value, parts)]
        if isinstance(value, GivenObject):
            return ["given", value._given[1]]
        cls = type(value)
        about = {"oid": self.oid(value), "cls": self._class(cls), "callable": callable(value)}
        if hasattr(cls, "__next__"):
            about["next"] = True
        if isinstance(value, types.FunctionType):
            about["signature"] = self._signature(value)
        if cls.__module__ == "gpt2.model" and hasattr(value, "__dict__"):
            fields = {k: v for k, v in vars(value).items() if not k.startswith("_")}
            about["fields"] = self.write(fields, parts, wire.MAX_DEPTH - 3)
        return ["o", about]

    def read_object(self, tag: str, rest: list, message) -> object:
        if tag == "r":
            return self.objects[rest[0]]
        if tag == "k":
            return self.classes[rest[0]]
        if tag == "piece":
            return self.module
        if tag == "c":  # an object of one of the course's classes, made again from the same values
            cls = getattr(importlib.import_module("gpt2.model"), rest[0])
            return cls(**self.read(rest[1], message))
        if tag == "folder":
            return self._folder(rest[0], rest[1], message)
        if tag == "path":
            return Path(self._folder(rest[0], rest[1], message))
        if tag == "given":
            gid, about = rest
            if gid not in self.gifts:
                if about.get("module"):
                    named = self.read(about["parameters"], message)
                    self.gifts[gid] = GivenModule(self, gid, named)
                else:
                    name = str(about.get("name", "GivenObject"))  # as errors will call it
                    self.gifts[gid] = given_class(name, about.get("able", []))(self, gid)
            return self.gifts[gid]
        if tag == "p":
            if rest[0] not in self.tensors:
                self._take(rest[1], message)
                self.loose.append(rest[0])
            return self.tensors[rest[0]].tensor
        if tag == "module":
            return self._adopt(rest[0], message)
        if tag == "generator":
            if rest[0] not in self.generators:
                state = torch.frombuffer(bytearray(message.blobs[rest[1]]), dtype=torch.uint8)
                made = torch.Generator()
                made.set_state(state)
                self.generators[rest[0]] = made, message.blobs[rest[1]]
            return self.generators[rest[0]][0]
        if tag == "iterator":
            return iter(self.read(rest[0], message))
        return super().read_object(tag, rest, message)

    def _folder(self, name: str, files: list, message) -> str:
        """A copy of a folder of the judge's, under the same last name."""
        target = Path(os.path.abspath("given")) / Path(name).name
        target.mkdir(parents=True, exist_ok=True)
        for inner in target.iterdir():
            inner.unlink()
        for file, blob in files:
            (target / file).write_bytes(message.blobs[blob])
        self.folders[str(target)] = name
        return str(target)

    def of_given(self, gid: int, what: str, name: str | None, *args, **kwargs) -> object:
        """Ask the judge to do something with an object of its own."""
        parts = wire.Parts()
        body = {
            "gid": gid,
            "what": what,
            "name": name,
            "args": self.write(list(args), parts),
            "kwargs": self.write(dict(kwargs), parts),
            "grad": torch.is_grad_enabled(),
            "autocast": wire.autocast_now(),
        }
        inputs = [t for t in parts.sources if t.requires_grad]
        answer = self.ask("given", body, parts)
        if "pids" in answer.body:
            inputs += self.read(answer.body["pids"], answer)
        self.link(answer, inputs)
        return self.read(answer.body.get("value"), answer)

    def error(self, message) -> BaseException:
        """What the judge's own objects raise, as it would have been raised here."""
        body = message.body
        import builtins

        kind = getattr(builtins, body.get("type", ""), RuntimeError)
        return kind(body.get("text", ""))

    # ── classes

    def _class(self, cls: type) -> int:
        """A class's number; what it is goes with the answer."""
        if id(cls) in self.ids:
            return self.ids[id(cls)]
        number = self.oid(cls)
        self.classes[number] = cls
        home = cls.__module__ if isinstance(cls.__module__, str) else ""
        own = home == self.module.__name__
        kind = "own" if own else "course" if home == "gpt2.model" else home.split(".")[0]
        about = {
            "cid": number,
            "name": cls.__name__,
            "home": home[:200],
            "kind": kind[:40],
            "place": cls.__qualname__[:200],
            "bases": [self._class(base) for base in cls.__bases__],
        }
        if own or kind not in ("torch", "builtins", "course"):
            about["members"] = self._members(cls)
        self.told_classes.append(about)
        return number

    def _members(self, cls: type) -> list:
        found = []
        for name, value in list(vars(cls).items())[:MAX_MEMBERS]:
            if name.startswith("__") and name not in SPECIAL:
                continue
            if isinstance(value, types.FunctionType) and name != "__new__":
                found.append([name, "function", self._signature(value)])
            elif isinstance(value, classmethod):
                found.append([name, "classmethod", self._signature(value.__func__)])
            elif isinstance(value, staticmethod):
                found.append([name, "staticmethod", self._signature(value.__func__)])
            elif inspect.isdatadescriptor(value) or isinstance(value, functools.cached_property):
                # a property, a named tuple's field, a slot: each object has its own
                found.append([name, "property", None])
            elif value is None or type(value) in (bool, int, float, str):
                found.append([name, "value", self.write(value, wire.Parts())])
            elif name not in ("__new__", "__repr__", "__getattr__") and not name.startswith("_"):
                found.append([name, "other", None])
        return found

    def _signature(self, function: Callable) -> list | None:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return None
        found = []
        for p in parameters:
            given = p.default is not p.empty
            default = None
            if given:
                try:
                    default = self.write(p.default, wire.Parts())
                except ValueError:
                    given = True
            found.append([p.name, int(p.kind), given, default])
        return found

    # ── modules

    def _roots(self, *values: object) -> list[nn.Module]:
        """The modules among what a question is about, as the judge was told them."""
        found: dict[int, nn.Module] = {}

        def look(value: object, depth: int = 0) -> None:
            if isinstance(value, types.MethodType):
                value = value.__self__
            if isinstance(value, nn.Module) and not isinstance(value, GivenModule):
                oid = self.ids.get(id(value))
                root = self.roots.get(oid)
                if root is not None:
                    found[root] = self.objects[root]
            elif isinstance(value, (list, tuple)) and depth < 3:
                for v in value:
                    look(v, depth + 1)
            elif isinstance(value, dict) and depth < 3:
                for v in value.values():
                    look(v, depth + 1)

        for value in values:
            look(value)
        return list(found.values())

    def _describe_root(self, module: nn.Module, parts) -> dict:
        oid = self.oid(module)
        root = self.roots.get(oid, oid)
        told: set[int] = set()
        about = self._describe(module, parts, root, told)
        if root == oid:
            self.prints[oid] = self._print(module)
            if "_modules" in vars(module):
                self.modes[oid] = self._modes(module)
        return about

    def _modes(self, root: nn.Module) -> list[int]:
        return [int(vars(m).get("training") is True) for m in nn.Module.modules(root)]

    # what comes from the judge, and what is told it with every message

    def _take(self, about: dict, message) -> Tensor:
        """A parameter or buffer of a module that the judge gives."""
        number = about["pid"]
        if number not in self.tensors:
            t = message.tensor(about["x"]).clone()
            if about["parameter"]:
                t = nn.Parameter(t, requires_grad=about["grad"])
            elif about["grad"]:
                t.requires_grad_()
            self.tensor_ids[id(t)] = number
            self._remember(number, t)
            if about["g"] is not None:
                t.grad = message.tensor(about["g"]).clone()
                self.tensors[number].grad = wire.raw(t.grad.contiguous())
        return self.tensors[number].tensor

    def _adopt(self, about: dict, message, root: int = 0) -> nn.Module:
        """A module of the judge's: of the same class where that is PyTorch's or the course's, else
        one whose forward runs there.
        """
        oid = about["oid"]
        if oid in self.objects:
            return self.objects[oid]
        root = root or oid
        home, place = about["cls"]
        cls = getattr(sys.modules.get(home), place, None) if home else None
        made = nn.Module.__new__(cls or GivenModule)
        nn.Module.__init__(made)
        if cls is None:
            object.__setattr__(made, "_given", (self, about["gid"]))
            self.gifts[about["gid"]] = made
        self.objects[oid], self.ids[id(made)], self.roots[oid] = made, oid, root
        inside = vars(made)
        inside["training"] = about["training"]
        for name, told in about["parameters"]:
            inside["_parameters"][name] = None if told is None else self._take(told, message)
        for name, told, lasting in about["buffers"]:
            inside["_buffers"][name] = None if told is None else self._take(told, message)
            if not lasting:
                inside["_non_persistent_buffers_set"].add(name)
        for name, told in about["modules"]:
            inner = None if told is None else self._adopt(told, message, root)
            inside["_modules"][name] = inner
        for name, told in about["attributes"]:
            inside[name] = self.read(told, message)
        if root == oid:
            self.prints[oid] = self._print(made)
            self.modes[oid] = self._modes(made)
        return made

    def changes_out(self, body: dict, parts) -> None:
        updates = []
        for oid in self.prints:
            root = self.objects[oid]
            change = self._changes(root, parts)
            if change is None:
                continue
            if "module" not in change:
                if not change["tensors"] and change["modes"] == self.modes.get(oid):
                    continue
                self.modes[oid] = change["modes"]
            updates.append(change)
        loose = []
        for number in self.loose:
            t = self.tensors[number].tensor
            if not self._is_known(t, number):
                loose.append(self._tensor(t, parts))
        gradients = []
        for number, seen in self.tensors.items():
            g = seen.tensor.grad if seen.tensor.is_leaf else None
            data = None if g is None else wire.raw(g.detach().contiguous())
            if data != seen.grad:
                seen.grad = data
                n = None
                if g is not None:
                    parts.tensors.append(wire.write_tensor(g, parts))
                    n = len(parts.tensors) - 1
                gradients.append([number, n])
        told = (("updates", updates), ("loose", loose), ("grads", gradients))
        body |= {name: value for name, value in told if value}
        self._told(body)

    def changes_in(self, message) -> None:
        self._push(message.body, message)
        for number, n in message.body.get("grads", []):
            seen = self.tensors[number]
            g = None if n is None else message.tensor(n)
            with wire.NO_OVERRIDES(), torch.no_grad():
                if g is None or seen.tensor.grad is None:
                    seen.tensor.grad = g
                else:
                    seen.tensor.grad.copy_(g)
            seen.grad = None if g is None else wire.raw(g.contiguous())

    def _describe(self, module: nn.Module, parts, root: int, told: set[int]) -> dict:
        oid = self.oid(module)
        about: dict = {"oid": oid}
        if oid in told:
            return about
        told.add(oid)
        self.roots.setdefault(oid, root)
        inside = object.__getattribute__(module, "__dict__")
        about["cls"] = self._class(type(module))
        about["module"] = True
        if self._is_hooked(module):
            about["hooked"] = True
        about["training"] = inside.get("training") is True
        if "_parameters" not in inside:
            about["bare"] = True
            return about
        about["parameters"] = [
            [name, None if p is None else self._tensor(p, parts)]
            for name, p in inside["_parameters"].items()
        ]
        transient = inside.get("_non_persistent_buffers_set", ())
        about["buffers"] = [
            [name, None if b is None else self._tensor(b, parts), name not in transient]
            for name, b in inside.get("_buffers", {}).items()
        ]
        about["modules"] = [
            [name, None if m is None else self._describe(m, parts, root, told)]
            for name, m in inside.get("_modules", {}).items()
        ]
        about["attributes"] = [
            [name, self._attribute(value, parts, root, told)]
            for name, value in list(inside.items())
            if not name.startswith("_") and name != "training"
        ]
        return about

    def _is_hooked(self, module: nn.Module) -> bool:
        """Whether more than its class's forward runs when it is called."""
        inside = object.__getattribute__(module, "__dict__")
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return "forward" in inside or any(inside.get(name) for name in hooks)

    def _attribute(self, value: object, parts, root: int, told: set[int]) -> object:
        if isinstance(value, nn.Module):
            return ["o", self._describe(value, parts, root, told)]
        if isinstance(value, Tensor):
            try:
                return self.write(value.detach(), parts)
            except ValueError:
                return None
        if isinstance(value, (list, tuple)) and len(value) <= 100:
            items = [self._attribute(v, parts, root, told) for v in value]
            return ["l" if isinstance(value, list) else "t", items]
        if isinstance(value, dict) and len(value) <= 100 and all(type(k) is str for k in value):
            items = [[k, self._attribute(v, parts, root, told)] for k, v in value.items()]
            return ["d", items]
        return self.write(value, parts, wire.MAX_DEPTH - 3)

    def _tensor(self, t: Tensor, parts) -> dict:
        """What a parameter or buffer is: its number, and where its numbers lie."""
        number = self.tensor_ids.get(id(t))
        if number is None:
            number = self.tensor_ids[id(t)] = len(self.tensor_ids) + 1
        about: dict = {
            "pid": number,
            "parameter": isinstance(t, nn.Parameter),
            "grad": bool(t.requires_grad),
            "leaf": bool(t.is_leaf),
        }
        with wire.NO_OVERRIDES(), torch.no_grad():
            plain = t.detach()
            if plain.device.type == "meta":
                about["meta"] = True
                about["dtype"], about["shape"] = wire.NAMES[plain.dtype], list(plain.shape)
            else:
                about |= self._place(plain, parts)
        self._remember(number, t)
        return about

    def _remember(self, number: int, t: Tensor) -> None:
        with wire.NO_OVERRIDES(), torch.no_grad():
            whole = t.device.type != "meta" and t.numel() <= COMPARED
            before = self.tensors.get(number)
            grad = None if before is None else before.grad
            self.tensors[number] = Seen(t, _key(t), t.detach().clone() if whole else None, grad)

    def _place(self, plain: Tensor, parts) -> dict:
        """Dtype, shape, strides and offset in a storage, whose bytes go along the first time."""
        storage = plain.untyped_storage()
        address = storage.data_ptr()
        known = self.storages.get(address)
        about = {
            "dtype": wire.NAMES[plain.dtype],
            "shape": list(plain.shape),
            "strides": list(plain.stride()),
            "offset": plain.storage_offset(),
        }
        if known is None or not address:
            known = (len(self.storages) + 1, storage)
            self.storages[address or -len(self.storages) - 1] = known
        about["storage"] = known[0]
        data = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))
        parts.blobs.append(wire.raw(data))
        about["bytes"] = len(parts.blobs) - 1
        return about

    def _print(self, root: nn.Module) -> tuple:
        """What must be the same for the judge's picture of a module to hold."""
        found, seen = [], set()

        def look(module: nn.Module) -> None:
            if id(module) in seen:
                return
            seen.add(id(module))
            inside = object.__getattribute__(module, "__dict__")
            if "_parameters" not in inside:
                return
            found.append((id(module), type(module), tuple(inside), self._is_hooked(module)))
            for group in ("_parameters", "_buffers"):
                found.append(tuple((n, id(t)) for n, t in inside.get(group, {}).items()))
            for name, value in inside.items():
                if name[0] != "_" and name != "training":
                    plain = value is None or type(value) in (bool, int, float, str)
                    found.append(value if plain else id(value))
            inner = inside.get("_modules", {})
            found.append(tuple((n, id(m)) for n, m in inner.items()))
            for m in inner.values():
                if m is not None:
                    look(m)

        look(root)
        return tuple(found)

    def _changes(self, root: nn.Module, parts) -> dict | None:
        """What the judge must be told of a module after something ran."""
        oid = self.oid(root)
        found = self._print(root)
        change: dict = {}
        if found != self.prints.get(oid):
            change["module"] = self._describe_root(root, parts)
            return change
        modes, tensors = [], []
        if "_parameters" not in vars(root):
            return None
        for module in nn.Module.modules(root):
            modes.append(1 if vars(module).get("training") is True else 0)
        for group in (nn.Module.parameters(root), nn.Module.buffers(root)):
            for t in group:
                if not self._is_known(t, self.tensor_ids[id(t)]):
                    tensors.append(self._tensor(t, parts))
        return {"root": oid, "modes": modes, "tensors": tensors}

    def _is_known(self, t: Tensor, number: int) -> bool:
        """Whether a parameter or buffer is as the judge knows it."""
        seen = self.tensors[number]
        with wire.NO_OVERRIDES(), torch.no_grad():
            return _key(t) == seen.key and (seen.copy is None or torch.equal(t.detach(), seen.copy))

    def _push(self, body: dict, message) -> None:
        """Take over what the judge has set: modes and numbers."""
        for oid, modes in body.get("modes", []):
            for module, mode in zip(nn.Module.modules(self.objects[oid]), modes, strict=True):
                if module.training is not bool(mode):
                    module.training = bool(mode)
        for pid, number, grad in body.get("numbers", []):
            seen = self.tensors[pid]
            if number is not None:
                with wire.NO_OVERRIDES(), torch.no_grad():
                    t = message.tensor(number)
                    if seen.tensor.dtype == t.dtype and seen.tensor.shape == t.shape:
                        seen.tensor.data.copy_(t)
                    else:
                        seen.tensor.data = t.clone()
            if seen.tensor.requires_grad is not grad and seen.tensor.is_leaf:
                seen.tensor.requires_grad_(grad)
            self._remember(pid, seen.tensor)


def _held(holder: list | dict) -> list[tuple]:
    """What a list or dict holds: (key or place, value), …"""
    return list(holder.items() if isinstance(holder, dict) else enumerate(holder))


def _holders(value: object, path: tuple = ()) -> Iterator[tuple[list[int], list | dict]]:
    """The lists and dicts in a value, with the way there."""
    if isinstance(value, (list, dict)) and path[1:]:
        yield list(path), value
    if isinstance(value, (list, tuple, dict)) and len(path) < 5 and len(value) <= 2000:
        inner = value.values() if isinstance(value, dict) else value
        for i, v in enumerate(inner):
            yield from _holders(v, (*path, i))


def work(readable: int, writable: int) -> None:
    """Answer the judge by these two pipes until it ends."""
    with contextlib.suppress(wire.WireError):
        Worker(wire.Line(readable, writable)).serve()


def warm() -> None:
    """Use once what torch imports when it is first used; each worker would pay for it again."""
    import copy
    import socket  # noqa: F401
    import tempfile  # noqa: F401
    from unittest import mock  # noqa: F401

    import torch._dynamo

    torch.set_num_threads(1)
    layers = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Dropout(0.5), nn.GELU("tanh"))
    table, x = nn.Embedding(5, 3), torch.arange(4).view(2, 2)
    for _ in range(2):
        y = layers(table(x))
        heads = y.unflatten(-1, (2, 2)).transpose(1, 2)
        mask = torch.ones(2, 2, dtype=torch.bool).tril()
        y = nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        y = y + (heads @ heads.mT).masked_fill(~mask, -torch.inf).softmax(-1) @ heads
        loss, parameters = y.pow(2).sum(), list(layers.parameters())
        torch.autograd.grad([loss], parameters, retain_graph=True, allow_unused=True)
        y.sum().backward()
    copy.deepcopy(layers).to(torch.bfloat16).load_state_dict(layers.state_dict())
    nn.init.normal_(torch.empty(3), 0.0, 0.02)
    inspect.signature(nn.Linear.forward)
    with contextlib.suppress(ImportError):
        import numpy  # noqa: F401
    with surroundings.operations(), surroundings.Away() as away:
        away.move(torch.zeros(2)) + 1
    with contextlib.suppress(Exception):
        torch.compile(lambda x: x)(torch.ones(1))  # what torch replaces for that, it replaces now
    SEALS.append(conduct.Seal())
    gc.collect()
    gc.freeze()
