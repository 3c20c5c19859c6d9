"""Checks of problem 12, on small checkpoints that are written for them, in Hugging Face's layout.

The oracle computes GPT-2 from the checkpoint's own tensors, with Conv1D's x @ W + b. No network.
"""

import inspect
import itertools
import json
import re
import tempfile
import types
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from unittest import mock

import torch

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import CheckFailed, check, compare, expect_no_seed, fail, sizes_from
from learn_gpt2.checking.surroundings import (
    Folder,
    downloads,
    no_network,
    quiet_transformers,
    unset_memory_is_nan,
)
from learn_gpt2.checking.textbook import model as textbook_model

# Sizes that all differ. attn.c_proj is (C, C): its shape can't tell whether it was transposed.
V, P, C, L, H = sizes_from((29, 13, 12, 3, 4), (31, 17, 12, 4, 2), (35, 14, 24, 3, 4))
EPS = 0.03

PARTS = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")

KNOWN = known(__file__)


# ── checkpoints and the oracle ──────────────────────────────────────────────────────────────────


def settings_of(**changes):
    """What config.json says, among it much that a GPT2Config does not know."""
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.21,
        "bos_token_id": 0,
        "embd_pdrop": 0.22,
        "eos_token_id": 0,
        "initializer_range": 0.02,
        "layer_norm_epsilon": EPS,
        "model_type": "gpt2",
        "n_ctx": P,
        "n_embd": C,
        "n_head": H,
        "n_inner": None,
        "n_layer": L,
        "n_positions": P,
        "resid_pdrop": 0.23,
        "vocab_size": V,
        **changes,
    }


def tensors_of(settings):
    """Random tensors in their layout, by their names without prefix."""
    width = settings["n_embd"]
    shapes = {
        "wte.weight": (settings["vocab_size"], width),
        "wpe.weight": (settings["n_positions"], width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }
    for i in range(settings["n_layer"]):
        for part, outputs, inputs in (
            ("attn.c_attn", 3 * width, width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ):
            shapes[f"h.{i}.{part}.weight"] = (inputs, outputs)  # Conv1D: (in, out)
            shapes[f"h.{i}.{part}.bias"] = (outputs,)
        for norm in ("ln_1", "ln_2"):
            shapes[f"h.{i}.{norm}.weight"] = shapes[f"h.{i}.{norm}.bias"] = (width,)
    generator = torch.Generator().manual_seed(12)
    return {name: torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}


@contextmanager
def checkpoint(tensors, settings, prefix="transformer.", extra=None):
    """A folder with config.json and model.safetensors; extra: tensors under their full names."""
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        (Path(folder) / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        stored = {f"{prefix}{name}": t.clone().contiguous() for name, t in tensors.items()}
        stored |= {name: t.clone().contiguous() for name, t in (extra or {}).items()}
        save_file(stored, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        yield Folder(folder)


def ours(name):
    """Their name → ours."""
    return f"embeddings.{name}" if name.startswith("w") else name


def turned(name, tensor):
    """A tensor of theirs as it must lie in our model."""
    return tensor.T if name.endswith(CONV1D) else tensor


def gpt2(t, settings, ids, **switches):
    """GPT-2 from the checkpoint's own tensors, with any step replaced: ids → logits."""
    w = {ours(name): turned(name, tensor) for name, tensor in t.items()}
    return textbook_model(w, SimpleNamespace(**settings), [ids], **switches)


# ── running the learner's code ──────────────────────────────────────────────────────────────────


def call(piece, folder, **keywords):
    """GPT2Model.from_pretrained(folder), errors and all."""
    with no_network(), unset_memory_is_nan(), quiet_transformers():
        return piece.GPT2Model.from_pretrained(folder, **keywords)


def load(piece, folder, otherwise=None, **keywords):
    """The model of a folder that is in order.

    An error is explained; otherwise: the mistake that is behind it when nothing else is known.
    """
    try:
        model = call(piece, folder, **keywords)
    except NotImplementedError:
        raise
    except Exception as error:
        m = _behind(error, folder) or otherwise
        if m is None:
            raise
        fail(m, f"A right checkpoint is refused: {type(error).__name__}: {_short(error)}")
    if isinstance(model, (tuple, list)):
        fail(KNOWN["wrong-return"], f"It returns a {type(model).__name__} of {len(model)}.")
    if not isinstance(model, torch.nn.Module):
        fail(KNOWN["wrong-return"], f"It returns {type(model).__name__}.")
    return model


def _short(error):
    lines = str(error).strip().splitlines() or [""]
    return " ".join(line.strip() for line in lines[:2])[:220]


def _names_in(folder):
    """The names of the tensors in a folder's file, as one text."""
    from safetensors import safe_open

    with safe_open(Path(folder) / "model.safetensors", framework="pt") as file:
        return " ".join(file.keys())


def _behind(error, folder):
    """The mistake that an error on a right checkpoint tells of."""
    text = f"{type(error).__name__}: {error}"
    settings = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    if re.search(r"\b(1024|768|2304|3072|50257)\b", text):  # GPT-2 small's sizes
        return KNOWN["config-not-read"]
    if isinstance(error, TypeError) and "unexpected keyword" in text and "Config" in text:
        return KNOWN["config-keys"]
    if re.search(r"\.(bin|pt|pth)\b", text):
        return KNOWN["pickle-loaded"]
    if re.search(r"no network|cannot be reached|offline|\bhub\b|HFValidation", text, re.I):
        return KNOWN["name-ignored"]
    layers = [int(layer) for layer in re.findall(r"\bh\.(\d+)\.", text)]
    if any(layer >= settings["n_layer"] for layer in layers):
        return KNOWN["config-not-read"]
    if "leaf Variable" in text or "requires grad is being used in an in-place" in text:
        return KNOWN["needs-no-grad"]
    # what the file holds can't be missing, and what it doesn't hold can't be too much
    held = _names_in(folder)
    if re.search(r"attn\.masked_bias|(?<!c_)attn\.bias", text) and ".attn.bias" in held:
        return KNOWN["mask-buffers"]
    if "lm_head" in text:
        return KNOWN["head-refused"] if "lm_head.weight" in held else KNOWN["head-required"]
    if "c_attn.bias" in text and "c_proj.bias" not in text and "ln_1" not in text:
        return KNOWN["mask-filter-too-wide"]
    rows = [settings[field] for field in ("vocab_size", "n_positions")]
    if re.search("|".join(rf"\({C}, {n}\)|\({n}\)" for n in rows), text):
        return KNOWN["transposes-embeddings"]
    if re.search(r"wte\.weight|wpe\.weight", text) and re.search(
        r"wpe\.|ln_|KeyErr|missing", text, re.I
    ):
        return KNOWN["prefix"]
    shapes = r"size of tensor a|size mismatch|broadcast shape|shape|\(\d+, \d+\)|expanded size"
    if re.search(shapes, text, re.I):
        return KNOWN["no-transpose"]
    return None


def expect_weights(model, tensors, settings, nothing=KNOWN["nothing-loaded"]):
    """Check that every parameter holds the checkpoint's tensor; what differs is named."""
    mine = {n: p.detach() for n, p in model.named_parameters(remove_duplicate=False)}
    wrong = []
    for name, tensor in tensors.items():
        want = turned(name, tensor).float()
        got = mine.get(ours(name))
        if got is None or got.shape != want.shape:
            fail(
                KNOWN["tensor-skipped"],
                f"{ours(name)} is {'missing' if got is None else tuple(got.shape)}, expected "
                f"{tuple(want.shape)}.",
            )
        if not torch.equal(got.float(), want):
            wrong.append(name)
    if not wrong:
        return
    listed = f"Look at {', '.join(ours(n) for n in wrong[:3])}{' …' if len(wrong) > 3 else ''}."

    def is_turned(name):
        got, want = mine[ours(name)].float(), turned(name, tensors[name]).float()
        return want.dim() == 2 and want.size(0) == want.size(1) and torch.equal(got, want.T)

    if all(is_turned(name) for name in wrong):
        if all(n.endswith("attn.c_proj.weight") for n in wrong):
            fail(KNOWN["c-proj-not-transposed"], listed)
        fail(KNOWN["transposes-embeddings"], listed)
    for name in wrong:
        want = turned(name, tensors[name]).float()
        if torch.equal(mine[ours(name)].float(), tensors[name].float().reshape(want.shape)):
            fail(
                KNOWN["reshape-instead-of-transpose"]
                if want.size(0) != want.size(-1)
                else KNOWN["c-proj-not-transposed"],
                listed,
            )
    for name in wrong:
        for other, tensor in tensors.items():
            got, theirs = mine[ours(name)].float(), turned(other, tensor).float()
            if other != name and got.shape == theirs.shape and torch.equal(got, theirs):
                fail(KNOWN["wrong-tensor"], f"{ours(name)} holds what the file calls {other}.")
    close = all(
        torch.allclose(mine[ours(n)].float(), turned(n, tensors[n]).float(), rtol=2e-2, atol=1e-2)
        for n in wrong
    )
    if close:
        fail(
            KNOWN["wrong-dtype"],
            "The numbers are rounded: they pass through a dtype of fewer bits.",
        )
    if len(wrong) == len(tensors):
        fail(nothing, listed)
    if all(".c_attn." in n for n in wrong) and all(
        _reordered(mine[ours(n)].float(), turned(n, tensors[n]).float()) for n in wrong
    ):
        fail(KNOWN["qkv-reordered"], listed)
    if all(n.endswith("c_attn.bias") for n in wrong):
        fail(KNOWN["mask-filter-too-wide"], listed)
    if all(n.endswith(".bias") for n in wrong):
        fail(KNOWN["biases-not-loaded"], listed)
    layers = {n.split(".")[1] for n in wrong if n.startswith("h.")}
    if len(layers) == 1 and all(n.startswith("h.") for n in wrong) and len(wrong) > 6:
        fail(KNOWN["layer-not-loaded"], listed)
    fail(KNOWN["tensor-skipped"], listed)


def _reordered(got, want):
    """Whether the thirds of one tensor are those of the other, in another order."""
    return any(
        torch.equal(got, torch.cat([want.chunk(3)[i] for i in order]))
        for order in itertools.permutations(range(3))
    )


def expect_logits(model, tensors, settings, t=7):
    """Check the model's logits against the oracle."""
    ids = torch.randint(settings["vocab_size"], (2, t), generator=torch.Generator().manual_seed(t))
    with torch.no_grad():
        compare(
            lambda: model(ids),
            gpt2(tensors, settings, ids),
            KNOWN.of("heads"),
            lambda **switches: gpt2(tensors, settings, ids, **switches),
            what="the loaded model's output",
            axes="B T V",
            rtol=1e-3,
            atol=1e-3,
        )


# ── the mapping ─────────────────────────────────────────────────────────────────────────────────


def mapping_of(piece, n_layer):
    """The learner's mapping, its keys without prefix, checked to be a dict of pairs."""
    try:
        mapping = piece.GPT2Model._build_weight_mapping(n_layer)
    except TypeError as error:
        if "positional argument" in str(error):
            fail(KNOWN["not-static"], f"Python says: {error}")
        raise
    method = inspect.getattr_static(piece.GPT2Model, "_build_weight_mapping")
    if isinstance(method, types.FunctionType):
        fail(KNOWN["not-static"], "Called on a model it would take the model for n_layer.")
    if not isinstance(mapping, dict):
        fail(KNOWN["mapping-form"], f"It is a {type(mapping).__name__}.")
    pairs = {}
    for key, value in mapping.items():
        if not isinstance(key, str):
            fail(KNOWN["mapping-form"], f"A key is {key!r}.")
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            fail(KNOWN["mapping-form"], f"{key!r} leads to {value!r}.")
        if not isinstance(value[0], str) or not isinstance(value[1], (bool, int)):
            fail(KNOWN["mapping-form"], f"{key!r} leads to {value!r}.")
        pairs[key.removeprefix("transformer.")] = (value[0], bool(value[1]))
    return pairs


def expect_keys(mapping, n_layer):
    """Check the mapping's keys: every tensor of a checkpoint with n_layer blocks, nothing else."""
    want = set(tensors_of(settings_of(n_layer=n_layer)))
    got = set(mapping) - {"lm_head.weight"}
    missing, extra = sorted(want - got), sorted(got - want)
    if not missing and not extra:
        return
    listed = (
        [f"Missing: {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}"] if missing else []
    )
    listed += [f"Too much: {', '.join(extra[:3])}{' …' if len(extra) > 3 else ''}"] if extra else []
    if any(key.startswith("embeddings.") for key in extra):
        fail(KNOWN["mapping-inverted"], *listed)
    if any(re.search(r"\.attn\.(masked_)?bias$", key) for key in extra):
        fail(KNOWN["buffer-in-mapping"], *listed)
    layers_missing = {key.split(".")[1] for key in missing if key.startswith("h.")}
    layers_extra = {key.split(".")[1] for key in extra if key.startswith("h.")}
    if layers_missing == {"0"} and layers_extra == {str(n_layer)}:
        fail(KNOWN["layers-from-1"], *listed)
    if missing and all(key.endswith(".bias") for key in missing) and len(missing) > 2:
        fail(KNOWN["mapping-lacks-biases"], *listed)
    if any(key.startswith(("wte", "wpe")) for key in missing):
        fail(KNOWN["mapping-lacks-embeddings"], *listed)
    if any(key.startswith("ln_f") for key in missing):
        fail(KNOWN["mapping-lacks-ln-f"], *listed)
    if not extra and len(layers_missing) == 1 and len(missing) == 12:
        fail(KNOWN["mapping-lacks-last-layer"], *listed)
    if missing:
        fail(KNOWN["mapping-incomplete"], *listed)
    if all(key.startswith(f"h.{n_layer}.") for key in extra):
        fail(KNOWN["mapping-extra-layer"], *listed)
    fail(KNOWN["mapping-unknown-key"], *listed)


@check(todo=2, points=2)
def test_mapping_keys(piece):
    """The mapping covers every tensor of a checkpoint, and nothing else"""
    first = mapping_of(piece, L)
    for n_layer in (1, 5):
        if set(mapping_of(piece, n_layer)) == set(first):
            fail(KNOWN["fixed-layers"])
    for n_layer in (L, 1, 12):
        expect_keys(mapping_of(piece, n_layer), n_layer)


@check(todo=2, needs=test_mapping_keys)
def test_mapping_names(piece):
    """Each of their names leads to ours"""
    from gpt2.model import GPT2Config

    known = piece.GPT2Model(GPT2Config(V, P, C, L, H))
    same = {name: id(p) for name, p in known.named_parameters(remove_duplicate=False)}
    for key, (name, _) in mapping_of(piece, L).items():
        if name not in same:
            fail(KNOWN["mapping-unknown-name"], f"{key!r} leads to {name!r}.")
        want = "lm_head.weight" if key == "lm_head.weight" else ours(key)
        if same[name] != same[want]:
            fail(KNOWN["mapping-crossed"], f"{key!r} leads to {name!r}, expected {want!r}.")


@check(todo=2, needs=test_mapping_keys, points=2)
def test_mapping_transposes(piece):
    """The four Conv1D weights of each block are transposed, and the embeddings are not"""
    mapping = mapping_of(piece, L)
    flat = [key for key in mapping if key.endswith(CONV1D) and not mapping[key][1]]
    if len(flat) == 4 * L:
        fail(KNOWN["transpose-inverted"] if mapping["wte.weight"][1] else KNOWN["no-transpose"])
    if flat:
        square = all("attn.c_proj" in key for key in flat)
        fail(
            KNOWN["c-proj-not-transposed"] if square else KNOWN["transpose-missing"],
            f"Look at {flat[0]}.",
        )
    for key in ("wte.weight", "wpe.weight", "lm_head.weight"):
        if key in mapping and mapping[key][1]:
            fail(KNOWN["transposes-embeddings"], f"Look at {key}.")


# ── from_pretrained ─────────────────────────────────────────────────────────────────────────────


@check(todo=8, needs=(test_mapping_names, test_mapping_transposes), points=2)
def test_loads_a_folder(piece):
    """A local folder with config.json and model.safetensors gives a model with its config"""
    method = inspect.getattr_static(piece.GPT2Model, "from_pretrained")
    if not isinstance(method, (classmethod, staticmethod)):
        fail(KNOWN["not-a-classmethod"])
    name = next(iter(inspect.signature(piece.GPT2Model.from_pretrained).parameters.values()), None)
    if name is None or name.name != "model_name" or name.default != "gpt2":
        fail(KNOWN["default-name"], f"Its first argument is `{name}`.")
    settings = settings_of()
    with checkpoint(tensors_of(settings), settings) as folder:
        model = load(piece, folder)
    if not any(base.__name__ == "GPT2Model" for base in type(model).__mro__):
        fail(KNOWN["wrong-return"], f"It returns a {type(model).__name__}, not a GPT2Model.")
    for field in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "layer_norm_epsilon"):
        got = getattr(model.config, field, None)
        if got != settings[field]:
            fail(
                KNOWN["config-not-read"],
                f"config.{field} is {got}, config.json says {settings[field]}.",
            )
    default = type(model.config)()
    for field in ("embd_pdrop", "attn_pdrop", "resid_pdrop"):
        got = getattr(model.config, field, None)
        # the contract does not say that dropout is read, but what is there must not be lost
        if got not in (settings[field], getattr(default, field)):
            fail(
                KNOWN["config-not-read:dropout-changed"],
                f"config.{field} is {got}, config.json says {settings[field]}.",
            )
    p = model.embeddings.drop.p
    if p != model.config.embd_pdrop:
        fail(
            KNOWN["config-not-read:dropout-changed"],
            f"embeddings.drop.p is {p}, embd_pdrop {model.config.embd_pdrop}.",
        )


@check(todo=8, needs=test_loads_a_folder, points=3)
def test_every_weight(piece):
    """Every parameter holds the checkpoint's tensor, the square ones the right way round"""
    settings = settings_of()
    tensors = tensors_of(settings)
    with checkpoint(tensors, settings) as folder:
        try:
            expect_weights(load(piece, folder), tensors, settings)
        except CheckFailed as failed:
            if "nothing-loaded" not in failed.mistakes:
                raise
            with checkpoint(tensors, settings, prefix="") as other:
                expect_weights(load(piece, other), tensors, settings)
            fail(KNOWN["prefix"], "Keys without the prefix load; with it, none arrives.")


@check(todo=8, needs=test_every_weight)
def test_tied_and_ready(piece):
    """The head is still tied, the model is in eval mode, and it can be trained on"""
    settings = settings_of()
    with checkpoint(tensors_of(settings), settings) as folder:
        model = load(piece, folder)
    if model.lm_head.weight is not model.embeddings.wte.weight:
        fail(KNOWN["untied-head"])
    training = [name for name, module in model.named_modules() if module.training]
    if training:
        fail(KNOWN["not-eval"], f"Look at {training[0] or 'model.training'}.")
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    if frozen:
        fail(KNOWN["frozen"], f"{frozen[0]}.requires_grad is False.")
    try:
        model(torch.arange(5)[None]).pow(2).mean().backward()
    except RuntimeError as error:
        fail(KNOWN["frozen"], f"PyTorch says: {_short(error)}")


@check(todo=8, needs=test_every_weight)
def test_other_tensors_stay(piece):
    """What the model's parts made in __init__ besides weights is still there"""
    settings = settings_of()
    make = piece.GPT2Model.__init__

    def init(self, *args, **kwargs):
        make(self, *args, **kwargs)
        self.h[0].attn.register_buffer("kept", torch.tensor([3.0, 1.0, 4.0]), persistent=False)

    with (
        checkpoint(tensors_of(settings), settings) as folder,
        mock.patch.object(piece.GPT2Model, "__init__", init),
    ):
        model = load(piece, folder, KNOWN["buffers-lost"])
    kept = getattr(model.h[0].attn, "kept", None)
    if kept is not None and (kept.is_meta or kept.tolist() != [3.0, 1.0, 4.0]):
        fail(KNOWN["buffers-lost"])


@check(todo=8, needs=test_every_weight)
def test_leaves_torch_alone(piece):
    """Loading a model sets no seed and leaves torch as it was"""
    settings = settings_of()
    with checkpoint(tensors_of(settings), settings) as folder:
        expect_no_seed(lambda: load(piece, folder), "from_pretrained")


@check(todo=8, needs=test_every_weight)
def test_options(piece):
    """revision, cache_dir and token go to open_checkpoint, and a hub name to the hub"""
    from gpt2.formats import checkpoints

    settings = settings_of()
    with checkpoint(tensors_of(settings), settings) as folder:
        options = {"revision": "v2", "cache_dir": "there", "token": "secret"}
        with downloads(folder, checkpoints, "_download") as asked:
            try:
                call(piece, "owner/name", **options)
            except NotImplementedError:
                raise
            except Exception:
                if asked:
                    raise
                return  # whoever reads hub and files by himself is not followed there
    if asked and asked[0] != ("owner/name", *options.values()):
        seen = ", ".join(f"{n}={v!r}" for n, v in zip(options, asked[0][1:], strict=True))
        fail(
            KNOWN["options-not-passed"],
            f"Asked for 'owner/name' with {options}, it gets {asked[0][0]!r} with {seen}.",
        )


@check(todo=8, needs=test_every_weight, points=2, follows=test_tied_and_ready)
def test_logits(piece):
    """The loaded model's logits are those of the checkpoint, computed with Conv1D's x @ W + b"""
    for changes in ({}, {"n_head": 3, "n_layer": 1, "layer_norm_epsilon": 1e-5}):
        settings = settings_of(**changes)
        tensors = tensors_of(settings)
        with checkpoint(tensors, settings) as folder:
            expect_logits(load(piece, folder), tensors, settings)


@check(todo=8, needs=test_every_weight, follows=(test_tied_and_ready, test_logits))
def test_other_sizes(piece):
    """Other sizes, among them one in which vocabulary, positions and width are equal"""
    for sizes in ((8, 8, 8, 2, 2), (31, 9, 20, 1, 5), (7, 40, 6, 4, 3)):
        names = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        settings = settings_of(**dict(zip(names, sizes, strict=True)))
        tensors = tensors_of(settings)
        with checkpoint(tensors, settings) as folder:
            model = load(piece, folder, KNOWN["config-not-read"])
            expect_weights(model, tensors, settings)
            expect_logits(model, tensors, settings)


@check(todo=8, needs=test_every_weight, points=2, follows=test_tied_and_ready)
def test_without_prefix(piece):
    """Keys without the prefix `transformer.` load as well"""
    settings = settings_of()
    tensors = tensors_of(settings)
    with checkpoint(tensors, settings, prefix="") as folder:
        try:
            model = load(piece, folder, KNOWN["prefix"])
        except CheckFailed as failed:
            if "no-transpose" in failed.mistakes:
                fail(KNOWN["prefix"])
            raise
        expect_weights(model, tensors, settings, nothing=KNOWN["prefix"])


@check(
    todo=8, needs=test_every_weight, points=2, follows=(test_tied_and_ready, test_without_prefix)
)
def test_mask_buffers(piece):
    """The mask buffers of older files are not weights, and no error"""
    settings = settings_of()
    tensors = tensors_of(settings)
    for prefix, dtype in (("", torch.float32), ("transformer.", torch.bool)):
        mask = torch.ones(1, 1, P, P).tril().to(dtype)
        masks = {f"{prefix}h.{i}.attn.bias": mask for i in range(L)}
        masks |= {f"{prefix}h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(L)}
        with checkpoint(tensors, settings, prefix, masks) as folder:
            model = load(piece, folder, KNOWN["mask-buffers"])
            expect_weights(model, tensors, settings)
            expect_logits(model, tensors, settings)
        names = [
            name for name in model.state_dict() if name.endswith((".attn.bias", "masked_bias"))
        ]
        if names:
            fail(KNOWN["mask-buffers"], f"The model holds {names[0]}.")


@check(todo=8, needs=test_every_weight, follows=(test_without_prefix, test_tied_and_ready))
def test_head_in_the_file(piece):
    """A file that holds lm_head.weight, equal to wte.weight, loads; the head stays tied"""
    settings = settings_of()
    tensors = tensors_of(settings)
    for prefix in ("transformer.", ""):
        head = {"lm_head.weight": tensors["wte.weight"]}
        with checkpoint(tensors, settings, prefix, head) as folder:
            model = load(piece, folder, KNOWN["head-refused"])
        expect_weights(model, tensors, settings)
        if model.lm_head.weight is not model.embeddings.wte.weight:
            fail(KNOWN["untied-head"])


def expect_refusal(piece, folder, name, what, accepted):
    """Check that loading fails with an error that names the tensor."""
    try:
        model = call(piece, folder)
    except NotImplementedError:
        raise
    except Exception as error:
        if name not in str(error):
            fail(
                KNOWN["unhelpful-error"],
                f"When {what}, the error must name {name}. It is {type(error).__name__}: "
                f"{_short(error)}",
            )
        if not isinstance(error, ValueError):
            fail(
                KNOWN["wrong-error-type"],
                f"When {what}, {type(error).__name__} is raised: {_short(error)}",
            )
    else:
        if (
            accepted is KNOWN["shape-broadcast"]
            and not (model.get_parameter(ours(name)) == 1).all()
        ):
            accepted = KNOWN[
                "misshapen-accepted"
            ]  # it was passed over, and not spread over the weight
        fail(accepted, f"Nothing is raised when {what}.")


@check(todo=8, needs=test_every_weight, points=2)
def test_missing_tensor(piece):
    """A tensor that is missing is an error that names it"""
    settings = settings_of()
    tensors = tensors_of(settings)
    names = (f"h.{L - 1}.attn.c_proj.bias", "h.1.ln_2.weight", "h.0.mlp.c_fc.weight", "wpe.weight")
    for name in (*names, "ln_f.bias"):
        rest = {key: t for key, t in tensors.items() if key != name}
        with checkpoint(rest, settings) as folder:
            expect_refusal(piece, folder, name, f"{name} is missing", KNOWN["missing-ignored"])


@check(
    todo=8, needs=test_every_weight, points=2, follows=(test_without_prefix, test_head_in_the_file)
)
def test_unexpected_tensor(piece):
    """A tensor that belongs to no GPT-2 of this config is an error that names it"""
    settings = settings_of()
    tensors = tensors_of(settings)
    for prefix, name in (
        ("transformer.", "h.0.attn.c_attn.lora_A"),
        ("transformer.", f"h.{L}.ln_1.weight"),
        ("", "score.weight"),
        ("", "lm_head.bias"),
        ("transformer.", "norm.ln_f.weight"),  # last: a name that only lstrip makes right
    ):
        extra = {f"{prefix}{name}": torch.ones(C)}
        with checkpoint(tensors, settings, extra=extra) as folder:
            what = f"the file also holds {name}"
            accepted = KNOWN["lstrip"] if name.startswith("norm.") else KNOWN["unexpected-ignored"]
            expect_refusal(piece, folder, name, what, accepted)


@check(todo=8, needs=test_every_weight, points=2)
def test_misshapen_tensor(piece):
    """A tensor of the wrong shape is an error that names it, also where it could be broadcast"""
    settings = settings_of()
    tensors = tensors_of(settings)
    for name, shape, m in (
        ("h.1.ln_1.bias", (1,), KNOWN["shape-broadcast"]),
        ("ln_f.weight", (1,), KNOWN["shape-broadcast"]),
        ("h.0.attn.c_proj.weight", (C, 1), KNOWN["shape-broadcast"]),
        ("h.2.mlp.c_proj.weight", (1, C), KNOWN["shape-broadcast"]),
        ("h.1.mlp.c_fc.bias", (C,), KNOWN["misshapen-accepted"]),
        ("h.0.attn.c_attn.bias", (3, C), KNOWN["misshapen-accepted"]),
        ("h.0.attn.c_attn.weight", (C, 3 * C + 1), KNOWN["misshapen-accepted"]),
        ("h.2.mlp.c_fc.weight", (4 * C, C), KNOWN["misshapen-accepted"]),
        ("wpe.weight", (P + 1, C), KNOWN["misshapen-accepted"]),
        ("wte.weight", (V - 1, C), KNOWN["misshapen-accepted"]),
    ):
        changed = {**tensors, name: torch.ones(shape)}
        with checkpoint(changed, settings) as folder:
            was = tuple(tensors[name].shape)
            what = f"{name} is {shape} and not {was}"
            expect_refusal(piece, folder, name, what, m)


@check(todo=8, needs=test_every_weight)
def test_dtypes(piece):
    """Files in bfloat16 or float16 give a float32 model"""
    settings = settings_of()
    for stored in (torch.bfloat16, torch.float16):
        tensors = {name: t.to(stored) for name, t in tensors_of(settings).items()}
        with checkpoint(tensors, settings) as folder:
            model = load(piece, folder)
            for name, parameter in model.named_parameters():
                if parameter.dtype != torch.float32:
                    fail(
                        KNOWN["wrong-dtype"],
                        f"From a file in {stored}, {name} is {parameter.dtype}.",
                    )
            expect_weights(model, tensors, settings)
    if "dtype" in inspect.signature(piece.GPT2Model.from_pretrained).parameters:
        tensors = tensors_of(settings)
        with checkpoint(tensors, settings) as folder:
            model = load(piece, folder, dtype=torch.bfloat16)
        for name, parameter in model.named_parameters():
            if parameter.dtype != torch.bfloat16:
                fail(
                    KNOWN["wrong-dtype"], f"With dtype=torch.bfloat16, {name} is {parameter.dtype}."
                )
        expect_weights(model, {name: t.to(torch.bfloat16) for name, t in tensors.items()}, settings)


class Payload:
    """In a pickle, it calls a function of this file when it is read, as a stranger's might."""

    opened: ClassVar[list[str]] = []

    def __reduce__(self):
        return _opened, ("the pickle was run",)


def _opened(text):
    Payload.opened.append(text)
    return text


@check(todo=8, needs=test_loads_a_folder)
def test_pickle_is_refused(piece):
    """A folder without safetensors is an error, also when a pickle lies there"""
    settings = settings_of()
    tensors = {f"transformer.{name}": t for name, t in tensors_of(settings).items()}
    # transformers reads tensors out of a pickle and runs nothing; that is its users' own choice
    by_transformers = re.search(r"^\s*(from|import)\s+transformers\b", piece.source, re.MULTILINE)
    with checkpoint(tensors_of(settings), settings) as folder:
        (Path(folder) / "model.safetensors").unlink()
        for pickled in (None, tensors, {**tensors, "payload": Payload()}):
            if pickled is not None:
                torch.save(pickled, Path(folder) / "pytorch_model.bin")
            Payload.opened.clear()
            try:
                call(piece, folder)
            except NotImplementedError:
                raise
            except Exception:
                accepted = False
            else:
                accepted = True
            if Payload.opened:
                fail(
                    KNOWN["pickle-loaded"],
                    "The checks put a function call into one, and it was carried out.",
                )
            if accepted and not (pickled is tensors and by_transformers):
                fail(
                    KNOWN["nothing-loaded"] if pickled is None else KNOWN["pickle-loaded"],
                    "Nothing is raised without model.safetensors"
                    f"{'' if pickled is None else ', with a pickle'}.",
                )
