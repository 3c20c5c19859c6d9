"""Problem 12: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(12)

WTE = '            "wte.weight": ("embeddings.wte.weight", False),\n'
WPE = '            "wpe.weight": ("embeddings.wpe.weight", False),\n'
LN_F = '            "ln_f.weight": ("ln_f.weight", False),\n            "ln_f.bias": ("ln_f.bias", False),\n'
LAYERS = "for i in range(n_layer):"
PARTS = '("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")'
WEIGHT = 'mapping[f"h.{i}.{part}.weight"] = (f"h.{i}.{part}.weight", ".c_" in part)'
BIAS = '                mapping[f"h.{i}.{part}.bias"] = (f"h.{i}.{part}.bias", False)\n'
RETURN_MAPPING = "return mapping"
OPEN = "settings, tensors = open_checkpoint(model_name, **options)"
CONFIG = "config = GPT2Config(**settings)"
MODEL = "model = cls(config).to(dtype)"
THEIRS = 'theirs = {key.removeprefix("transformer."): key for key in tensors}'
MASKS = 'if not name.endswith((".attn.bias", ".attn.masked_bias"))'
HEAD = 'head = theirs.pop("lm_head.weight", None)'
CHECK_HEAD = "if head and not torch.equal(tensors[head].to(dtype), tensors[wte].to(dtype)):"
MISSING = 'problems = [f"missing {name}" for name in mapping if name not in theirs]'
UNEXPECTED = (
    'problems += [f"unexpected {key}" for name, key in theirs.items() if name not in mapping]'
)
LOOP = "for name, (our_name, transpose) in mapping.items():"
TURN = "tensor = tensor.t() if transpose and tensor.dim() == 2 else tensor"
SHAPE = "if tensor.shape != ours[our_name].shape:"
COPY = "ours[our_name].copy_(tensor)"
EVAL = "return model.eval()"

# ── the mapping ─────────────────────────────────────────────────────────────────────────────────

bank.wrong_edit("mapping-lacks-embeddings", "no wpe", (WPE, ""))
bank.wrong_edit("mapping-lacks-embeddings", "no wte", (WTE, ""))
bank.wrong_edit("mapping-lacks-ln-f", "no ln_f", (LN_F, ""))
bank.wrong_edit(
    "mapping-lacks-ln-f",
    "no bias of ln_f",
    ('            "ln_f.bias": ("ln_f.bias", False),\n', ""),
)
bank.wrong_edit("mapping-lacks-biases", "no biases in the blocks", (BIAS, ""))
bank.wrong_edit(
    "mapping-lacks-last-layer", "the last layer left out", (LAYERS, "for i in range(n_layer - 1):")
)
bank.wrong_edit("mapping-extra-layer", "a layer too many", (LAYERS, "for i in range(n_layer + 1):"))
bank.wrong_edit("layers-from-1", "layers from 1", (LAYERS, "for i in range(1, n_layer + 1):"))
bank.wrong_edit("fixed-layers", "always 12 layers", (LAYERS, "for i in range(12):"))
bank.wrong_edit("mapping-incomplete", "no ln_2", (PARTS, PARTS.replace('"ln_2", ', "")))
bank.wrong_edit(
    "mapping-incomplete", "no attn.c_proj", (PARTS, PARTS.replace('"attn.c_proj", ', ""))
)
bank.wrong_edit(
    "buffer-in-mapping",
    "attn.bias is mapped",
    (BIAS, BIAS + '            mapping[f"h.{i}.attn.bias"] = (f"h.{i}.attn.bias", False)\n'),
)
bank.wrong_edit(
    "mapping-unknown-key",
    "query, key and value apart",
    (
        BIAS,
        BIAS
        + '            mapping[f"h.{i}.attn.q.weight"] = (f"h.{i}.attn.c_attn.weight", True)\n',
    ),
)
bank.wrong_edit(
    "mapping-inverted",
    "our names first",
    (RETURN_MAPPING, "return {ours: (theirs, t) for theirs, (ours, t) in mapping.items()}"),
)
bank.wrong_edit(
    "mapping-unknown-name", "embeddings without their module", (WTE, WTE.replace("embeddings.", ""))
)
bank.wrong_edit(
    "mapping-unknown-name",
    "`transformer.h` on our side",
    (WEIGHT, WEIGHT.replace('(f"h.', '(f"transformer.h.')),
)
bank.wrong_edit(
    "mapping-crossed", "all layers into the first", (WEIGHT, WEIGHT.replace('(f"h.{i}', '(f"h.0'))
)
bank.wrong_edit(
    "mapping-crossed",
    "norms crossed",
    (
        RETURN_MAPPING,
        'swap = {"ln_1": "ln_2", "ln_2": "ln_1"}\n        return {k: (".".join(swap.get(p, p) for p in o.split(".")), t) for k, (o, t) in mapping.items()}',
    ),
)
bank.wrong_edit(
    "mapping-form",
    "names alone",
    (RETURN_MAPPING, "return {theirs: ours for theirs, (ours, _) in mapping.items()}"),
)
bank.wrong_edit(
    "mapping-form",
    "a list of triples",
    (RETURN_MAPPING, "return [(theirs, *rest) for theirs, rest in mapping.items()]"),
)
bank.wrong_edit(
    "not-static",
    "an ordinary method",
    (
        "    @staticmethod\n    def _build_weight_mapping(n_layer: int)",
        "    def _build_weight_mapping(self, n_layer: int)",
    ),
)
bank.wrong_edit(
    "no-transpose", "nothing transposed", (WEIGHT, WEIGHT.replace('".c_" in part', "False"))
)
bank.wrong_edit(
    "c-proj-not-transposed",
    "attn.c_proj not transposed",
    (WEIGHT, WEIGHT.replace('".c_" in part', 'part in ("attn.c_attn", "mlp.c_fc", "mlp.c_proj")')),
)
bank.wrong_edit(
    "transpose-missing",
    "c_fc not transposed",
    (WEIGHT, WEIGHT.replace('".c_" in part', 'part.endswith(("c_attn", "c_proj"))')),
)
bank.wrong_edit(
    "transpose-missing",
    "no c_proj transposed",
    (WEIGHT, WEIGHT.replace('".c_" in part', 'part.endswith(("c_attn", "c_fc"))')),
)
bank.wrong_edit("transposes-embeddings", "wte transposed", (WTE, WTE.replace("False", "True")))
bank.wrong_edit("transposes-embeddings", "wpe transposed", (WPE, WPE.replace("False", "True")))

# ── from_pretrained ─────────────────────────────────────────────────────────────────────────────

bank.wrong_edit("not-a-classmethod", "no @classmethod", ("    @classmethod\n", ""))
bank.wrong_edit(
    "name-ignored", "always gpt2", (OPEN, 'settings, tensors = open_checkpoint("gpt2")')
)
bank.wrong_edit("default-name", "no default", ('model_name: str = "gpt2"', "model_name: str"))
bank.wrong_edit("config-not-read", "GPT-2 small's config", (CONFIG, "config = GPT2Config()"))
bank.wrong_edit(
    "config-not-read",
    "n_head not read",
    (CONFIG, 'config = GPT2Config(**{k: v for k, v in settings.items() if k != "n_head"})'),
)
bank.wrong_edit(
    "config-not-read",
    "epsilon not read",
    (
        CONFIG,
        'config = GPT2Config(**{k: v for k, v in settings.items() if k != "layer_norm_epsilon"})',
    ),
)
bank.wrong_edit(
    "prefix",
    "keys must have the prefix",
    (
        THEIRS,
        'theirs = {key.removeprefix("transformer."): key for key in tensors if key.startswith("transformer.")}',
    ),
)
bank.wrong_edit(
    "prefix", "keys must not have the prefix", (THEIRS, "theirs = {key: key for key in tensors}")
)
bank.wrong_edit(
    "prefix",
    "the first 12 letters cut off",
    (THEIRS, "theirs = {key[12:]: key for key in tensors}"),
)
bank.wrong_edit("mask-buffers", "mask buffers are an error", (MASKS, "if True"))
bank.wrong_edit(
    "mask-buffers", "masked_bias is an error", (MASKS, 'if not name.endswith(".attn.bias")')
)
bank.wrong_edit(
    "mask-filter-too-wide",
    "c_attn.bias left out as well",
    (MASKS, 'if not name.endswith(("attn.bias", "attn.masked_bias"))'),
)
bank.wrong_edit("head-refused", "lm_head.weight is an error", (HEAD, "head = None"))
bank.wrong_edit(
    "missing-ignored",
    "missing tensors skipped",
    (MISSING, "problems = []"),
    (LOOP, LOOP + "\n                if name not in theirs:\n                    continue"),
)
bank.wrong_edit("unexpected-ignored", "unexpected tensors skipped", (UNEXPECTED, "pass"))
bank.wrong_edit(
    "unexpected-ignored",
    "all of lm_head skipped",
    (
        HEAD,
        HEAD
        + '\n        theirs = {n: k for n, k in theirs.items() if not n.startswith("lm_head")}',
    ),
)
bank.wrong_edit(
    "unexpected-ignored",
    "further layers skipped",
    (
        UNEXPECTED,
        UNEXPECTED.replace("not in mapping", 'not in mapping and not name.startswith("h.")'),
    ),
)
bank.wrong_edit(
    "unhelpful-error",
    "only how many",
    (
        MISSING,
        'problems = [f"{sum(n not in theirs for n in mapping)} missing"] if any(n not in theirs for n in mapping) else []',
    ),
)
bank.wrong_edit("shape-broadcast", "no shape check", (SHAPE, "if False:"))
bank.wrong_edit(
    "shape-broadcast",
    "as many numbers are enough",
    (SHAPE, "if tensor.numel() > ours[our_name].numel():"),
)
bank.wrong_edit(
    "misshapen-accepted",
    "reshaped",
    (SHAPE, "if tensor.numel() != ours[our_name].numel():"),
    (COPY, "ours[our_name].copy_(tensor.reshape(ours[our_name].shape))"),
)
bank.wrong_edit("no-transpose", "transpose not applied", (TURN, "pass"))
bank.wrong_edit(
    "c-proj-not-transposed",
    "transposed only when the shape asks for it",
    (
        TURN,
        "tensor = tensor.t() if tensor.shape != ours[our_name].shape and tensor.dim() == 2 else tensor",
    ),
)
bank.wrong_edit("nothing-loaded", "nothing copied", (COPY, "pass"), (CHECK_HEAD, "if False:"))
bank.wrong_edit(
    "biases-not-loaded",
    "biases not copied",
    (COPY, "ours[our_name].copy_(tensor) if tensor.dim() > 1 or 'ln' in name else None"),
)
bank.wrong_edit(
    "layer-not-loaded",
    "the last layer not copied",
    (
        COPY,
        'ours[our_name].copy_(tensor) if not name.startswith(f"h.{config.n_layer - 1}.") else None',
    ),
)
bank.wrong_edit(
    "tensor-skipped",
    "wpe not copied",
    (COPY, 'ours[our_name].copy_(tensor) if name != "wpe.weight" else None'),
)
bank.wrong_edit(
    "wrong-tensor",
    "the first layer copied into all",
    (
        LOOP,
        LOOP
        + '\n                if name.startswith("h."):\n                    name = "h.0." + name.split(".", 2)[2]',
    ),
)
bank.wrong_edit(
    "untied-head",
    "new parameters",
    (
        COPY,
        "owner, _, leaf = our_name.rpartition('.')\n                setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(tensor.to(dtype)))",
    ),
    (CHECK_HEAD, "if False:"),
)
bank.wrong_edit("needs-no-grad", "no no_grad", ("with torch.no_grad():", "if True:"))
bank.wrong_edit("not-eval", "training mode", (EVAL, "return model"))
bank.wrong_edit("not-eval", "train()", (EVAL, "return model.train()"))
bank.wrong_edit("wrong-return", "(model, config)", (EVAL, "return model.eval(), config"))
bank.wrong_edit("wrong-return", "nothing returned", (EVAL, "model.eval()"))
bank.wrong_edit("frozen", "frozen", (EVAL, "return model.eval().requires_grad_(False)"))
bank.wrong_edit(
    "wrong-dtype", "the file's dtype", (COPY, "ours[our_name].data = tensor.contiguous()")
)
bank.wrong_edit(
    "wrong-dtype", "through half precision", (COPY, "ours[our_name].copy_(tensor.half())")
)
bank.wrong_edit("wrong-dtype", "dtype ignored", (MODEL, "model = cls(config)"))

bank.wrong_edit(
    "config-not-read",
    "always 12 layers looked for",
    (
        "mapping = cls._build_weight_mapping(config.n_layer)",
        "mapping = cls._build_weight_mapping(12)",
    ),
)
bank.wrong_edit(
    "config-not-read",
    "n_positions not read",
    (CONFIG, 'config = GPT2Config(**{k: v for k, v in settings.items() if k != "n_positions"})'),
)
bank.wrong_edit(
    "transposes-embeddings",
    "every matrix transposed",
    (TURN, "tensor = tensor.t() if tensor.dim() == 2 else tensor"),
)
bank.wrong_edit(
    "transpose-inverted",
    "flags inverted",
    (WEIGHT, WEIGHT.replace(".c_", ".ln_")),
    (WTE, WTE.replace("False", "True")),
)
bank.wrong_edit(
    "reshape-instead-of-transpose",
    "reshape",
    (TURN, "tensor = tensor.reshape(ours[our_name].shape) if transpose else tensor"),
)
bank.wrong_edit(
    "c-proj-not-transposed",
    "square ones turned back",
    (
        TURN,
        TURN
        + "\n                tensor = tensor.t() if tensor.dim() == 2 and tensor.size(0) == tensor.size(1) else tensor",
    ),
)
bank.wrong_edit(
    "lstrip",
    "lstrip, which strips letters",
    (THEIRS, 'theirs = {key.lstrip("transformer."): key for key in tensors}'),
)
bank.wrong_edit(
    "head-required", "the head must be in the file", (HEAD, 'head = theirs.pop("lm_head.weight")')
)
bank.wrong_edit(
    "untied-head",
    "the file's head becomes a parameter of its own",
    (
        EVAL,
        "if head:\n            model.lm_head.weight = torch.nn.Parameter(tensors[head].clone())\n        return model.eval()",
    ),
)
bank.wrong_edit(
    "nothing-loaded",
    "initialized again afterwards",
    (EVAL, "model.apply(model._init_weights)\n        return model.eval()"),
)
bank.wrong_edit("nothing-loaded", "a fresh model returned", (EVAL, "return cls(config).eval()"))
bank.wrong_edit("wrong-return", "the state dict returned", (EVAL, "return model.state_dict()"))
bank.wrong_edit(
    "mapping-form",
    "pairs reversed",
    (WEIGHT, 'mapping[f"h.{i}.{part}.weight"] = (".c_" in part, f"h.{i}.{part}.weight")'),
)

READS_FILES = """
    import json
    from pathlib import Path
    import torch
    from torch import nn
    from safetensors.torch import load_file
    import gpt2.model
    from gpt2.model import GPT2Config

    class GPT2Model(gpt2.model.GPT2Model):
        @staticmethod
        def _build_weight_mapping(n_layer):
            names = {"wte.weight": ("embeddings.wte.weight", False), "wpe.weight": ("embeddings.wpe.weight", False)}
            for i in range(n_layer):
                for norm in ("ln_1", "ln_2"):
                    for kind in ("weight", "bias"):
                        names[f"h.{i}.{norm}.{kind}"] = (f"h.{i}.{norm}.{kind}", False)
                for linear in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
                    names[f"h.{i}.{linear}.weight"] = (f"h.{i}.{linear}.weight", True)
                    names[f"h.{i}.{linear}.bias"] = (f"h.{i}.{linear}.bias", False)
            names["ln_f.weight"] = ("ln_f.weight", False)
            names["ln_f.bias"] = ("ln_f.bias", False)
            return names

        @classmethod
        def from_pretrained(cls, model_name="gpt2"):
            folder = Path(model_name)
            raw = json.loads((folder / "config.json").read_text())
            wanted = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "layer_norm_epsilon")
            config = GPT2Config(**{key: raw[key] for key in wanted})
            model = cls(config)
            file = load_file(folder / "model.safetensors")
            found = {}
            for key, tensor in file.items():
                name = key[len("transformer."):] if key.startswith("transformer.") else key
                if name.endswith(".attn.bias") or name.endswith(".attn.masked_bias") or name == "lm_head.weight":
                    continue
                found[name] = tensor
            mapping = cls._build_weight_mapping(config.n_layer)
            if set(found) != set(mapping):
                raise ValueError(f"differences: {sorted(set(found) ^ set(mapping))}")
            state = {}
            for name, (our_name, transpose) in mapping.items():
                tensor = found[name].T if transpose else found[name]
                want = model.state_dict()[our_name].shape
                if tensor.shape != want:
                    raise ValueError(f"{name}: {tuple(tensor.shape)}, expected {tuple(want)}")
                state[our_name] = tensor
            state["lm_head.weight"] = state["embeddings.wte.weight"]
            model.load_state_dict(state)
            return model.eval()
"""

bank.wrong_edit(
    "pickle-loaded",
    "torch.load on pytorch_model.bin",
    ('load_file(folder / "model.safetensors")', 'torch.load(folder / "pytorch_model.bin")'),
    base=READS_FILES,
)
bank.wrong_edit(
    "pickle-loaded",
    "the pickle when there is nothing else",
    (
        'load_file(folder / "model.safetensors")',
        'load_file(folder / "model.safetensors") if (folder / "model.safetensors").exists() else torch.load(folder / "pytorch_model.bin")',
    ),
    base=READS_FILES,
)
bank.wrong_edit(
    "config-keys",
    "all of config.json handed on",
    ("GPT2Config(**{key: raw[key] for key in wanted})", "GPT2Config(**raw)"),
    base=READS_FILES,
)
bank.wrong_edit(
    "missing-ignored",
    "strict=False",
    ("model.load_state_dict(state)", "model.load_state_dict(state, strict=False)"),
    ("if set(found) != set(mapping):", "if False:"),
    (
        "for name, (our_name, transpose) in mapping.items():",
        "for name, (our_name, transpose) in mapping.items():\n            if name not in found:\n                continue",
    ),
    (
        'state["lm_head.weight"] = state["embeddings.wte.weight"]',
        'state["lm_head.weight"] = state.get("embeddings.wte.weight", torch.zeros(config.vocab_size, config.n_embd))',
    ),
    base=READS_FILES,
    also="unexpected-ignored",
)
bank.wrong_edit(
    "untied-head",
    "assign=True",
    (
        "model.load_state_dict(state)",
        "model.load_state_dict({k: v.float().clone() for k, v in state.items()}, assign=True)",
    ),
    base=READS_FILES,
)

# ── right ones ──────────────────────────────────────────────────────────────────────────────────

bank.right_file("reads the files itself, load_state_dict", READS_FILES)
bank.right_edit(
    "keys with the prefix, lm_head in the mapping, pairs as lists",
    (
        RETURN_MAPPING,
        'full = {f"transformer.{key}": [*pair] for key, pair in mapping.items()}\n        return {**full, "lm_head.weight": ["lm_head.weight", False]}',
    ),
    (
        THEIRS,
        'theirs = {("transformer." + key.removeprefix("transformer.") if not key.startswith("lm_head") else key): key for key in tensors}',
    ),
    (
        HEAD,
        'head = None\n        theirs.setdefault("lm_head.weight", theirs.get("transformer.wte.weight", ""))',
    ),
    ('wte = theirs["wte.weight"]', "wte = None"),
)
bank.wrong_edit(
    "wrong-error-type",
    "a KeyError that names the tensor",
    (
        MISSING,
        "for name in mapping:\n            if name not in theirs:\n                raise KeyError(name)\n        problems = []",
    ),
)
bank.right_edit(
    "the first missing one named, .data instead of no_grad, transposed flags for vectors, too",
    (
        WEIGHT,
        WEIGHT
        + '\n                mapping[f"h.{i}.{part}.bias"] = (f"h.{i}.{part}.bias", ".c_" in part)',
    ),
    (BIAS, ""),
    (
        MISSING,
        "for name in mapping:\n            if name not in theirs:\n                raise ValueError(name)\n        problems = []",
    ),
    (COPY, "ours[our_name].data[...] = tensor"),
)
bank.right_file(
    "walks through the file's keys, builds the mapping by a comprehension, collects what is left",
    """
    import re
    import torch
    import gpt2.model as base
    from gpt2.formats.checkpoints import open_checkpoint

    OUTER = ["wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"]
    TURN = {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    INNER = sorted(TURN) + ["ln_1", "ln_2"]

    def our_name(key):
        return "embeddings." + key if key[:2] == "wt" or key[:2] == "wp" else key

    class GPT2Model(base.GPT2Model):
        @staticmethod
        def _build_weight_mapping(n_layer):
            keys = OUTER + [f"h.{i}.{p}.{k}" for i in range(n_layer) for p in INNER for k in ("weight", "bias")]
            return {
                key: (our_name(key), key.endswith("weight") and any(f".{t}." in key for t in TURN))
                for key in keys
            }

        @classmethod
        def from_pretrained(cls, model_name="gpt2", **options):
            options.pop("dtype", None)
            settings, tensors = open_checkpoint(model_name, **options)
            model = cls(base.GPT2Config(**settings))
            parameters = dict(model.named_parameters())
            todo = cls._build_weight_mapping(settings["n_layer"])
            for key in tensors:
                name = re.sub(r"^transformer\\.", "", key)
                if re.search(r"\\.attn\\.(masked_)?bias$", name) or name == "lm_head.weight":
                    continue
                if name not in todo:
                    raise ValueError(f"what is {key}?")
                ours, turn = todo.pop(name)
                value = tensors[key]
                if turn:
                    value = value.permute(*reversed(range(value.ndim)))
                target = parameters[ours]
                if list(value.shape) != list(target.shape):
                    raise ValueError(f"{key} has shape {list(value.shape)}, {ours} needs {list(target.shape)}")
                with torch.no_grad():
                    target.copy_(value)
            if todo:
                raise ValueError("missing: " + ", ".join(todo))
            model.train(False)
            return model
    """,
)
bank.right_edit(
    "no skip_init, a twin tied again after new parameters were put in",
    (
        "with skip_init():\n            model = cls(config).to(dtype)",
        "model = cls(config).to(dtype)",
    ),
    (
        COPY,
        "owner, _, leaf = our_name.rpartition('.')\n                setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(tensor.to(dtype).clone()))",
    ),
    (EVAL, "model.lm_head.weight = model.embeddings.wte.weight\n        return model.eval()"),
)

# ── written by somebody who had not seen the checks ─────────────────────────────────────────────

PLAIN = """
    import torch
    import gpt2.model
    from gpt2.formats.checkpoints import open_checkpoint, skip_init
    from gpt2.model import GPT2Config

    class GPT2Model(gpt2.model.GPT2Model):
        @staticmethod
        def _build_weight_mapping(n_layer):
            mapping = {}
            for name in ("wte", "wpe"):
                mapping[name + ".weight"] = ("embeddings." + name + ".weight", False)
            for i in range(n_layer):
                for part in ("ln_1", "ln_2"):
                    for kind in ("weight", "bias"):
                        mapping[f"h.{i}.{part}.{kind}"] = (f"h.{i}.{part}.{kind}", False)
                for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
                    mapping[f"h.{i}.{part}.weight"] = (f"h.{i}.{part}.weight", True)
                    mapping[f"h.{i}.{part}.bias"] = (f"h.{i}.{part}.bias", False)
            for kind in ("weight", "bias"):
                mapping[f"ln_f.{kind}"] = (f"ln_f.{kind}", False)
            return mapping

        @classmethod
        def from_pretrained(cls, model_name="gpt2", *, dtype=torch.float32, **options):
            settings, tensors = open_checkpoint(model_name, **options)
            config = GPT2Config(**settings)
            with skip_init():
                model = cls(config).to(dtype)
            mapping = cls._build_weight_mapping(config.n_layer)
            found = {}
            for key in tensors.keys():
                name = key[len("transformer."):] if key.startswith("transformer.") else key
                if name == "lm_head.weight":
                    continue
                if name.endswith(".attn.bias") or name.endswith(".attn.masked_bias"):
                    continue
                found[name] = key
            missing = [name for name in mapping if name not in found]
            unexpected = [name for name in found if name not in mapping]
            if missing or unexpected:
                raise ValueError(f"missing tensors {missing}, unexpected tensors {unexpected}")
            params = dict(model.named_parameters())
            with torch.no_grad():
                for name, (ours, transpose) in mapping.items():
                    value = tensors[found[name]]
                    if transpose:
                        value = value.t()
                    target = params[ours]
                    if value.shape != target.shape:
                        raise ValueError(f"{found[name]}: {value.shape} and not {target.shape}")
                    target.copy_(value)
            model.eval()
            return model
"""
CONFIG = "config = GPT2Config(**settings)"
FOR_KEY = "for key in tensors.keys():"
STRIP = 'name = key[len("transformer."):] if key.startswith("transformer.") else key'
COPY = "target.copy_(value)"
for mistake, title, *edits in (
    (
        "config-not-read",
        "all dropout 0, for evaluation",
        (CONFIG, "config = GPT2Config(**{**settings, 'resid_pdrop': 0.0, 'attn_pdrop': 0.0})"),
    ),
    (
        "config-not-read",
        "nn.Dropout set to 0 after loading",
        (
            "        model.eval()\n",
            "        for m in model.modules():\n"
            "            if isinstance(m, torch.nn.Dropout):\n"
            "                m.p = 0.0\n"
            "        model.eval()\n",
        ),
    ),
    ("options-not-passed", "options dropped", ("(model_name, **options)", "(model_name)")),
    ("not-static", "@staticmethod forgotten", ("    @staticmethod\n", "")),
    (
        "head-required",
        "lm_head.weight is mapped",
        ("return mapping", "return {**mapping, 'lm_head.weight': ('lm_head.weight', False)}"),
    ),
    (
        "qkv-reordered",
        "key, query, value",
        (
            COPY,
            COPY.replace(
                "value", "(value.roll(len(value) // 3, 0) if 'c_attn' in name else value)"
            ),
        ),
    ),
    (
        "seed-set",
        "a seed while loading",
        (CONFIG, "torch.manual_seed(0)\n        " + CONFIG),
    ),
    (
        "grad-left-off",
        "gradients off for good",
        ("with torch.no_grad():", "if torch.set_grad_enabled(False):"),
    ),
    (
        "prefix",
        "the prefix of the first key decides",
        (FOR_KEY, "first = sorted(tensors)[0].startswith('transformer.')\n        " + FOR_KEY),
        (STRIP, 'name = key[len("transformer."):] if first else key'),
    ),
    (
        "unexpected-ignored",
        "the whole head is passed over",
        ('if name == "lm_head.weight":', 'if name.startswith("lm_head"):'),
    ),
    (
        "frozen",
        "loaded in inference mode",
        ("with skip_init():", "with skip_init(), torch.inference_mode():"),
        ("with torch.no_grad():", "with torch.inference_mode():"),
    ),
):
    bank.wrong_edit(mistake, title, *edits, base=PLAIN)
bank.right_file(
    "load_state_dict on renamed tensors; its error as a ValueError",
    """
    import re
    import torch
    import gpt2.model
    from gpt2.formats.checkpoints import open_checkpoint, skip_init

    class GPT2Model(gpt2.model.GPT2Model):
        @staticmethod
        def _build_weight_mapping(n_layer):
            same = lambda k, t=False: (k, (k, t))
            pairs = [same("ln_f.weight"), same("ln_f.bias")]
            pairs += [(f"{w}.weight", (f"embeddings.{w}.weight", False)) for w in ("wte", "wpe")]
            for layer in range(n_layer):
                p = f"h.{layer}."
                pairs += [same(p + n + s) for n in ("ln_1", "ln_2") for s in (".weight", ".bias")]
                for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
                    pairs += [same(p + n + ".weight", True), same(p + n + ".bias")]
            return dict(pairs)

        @classmethod
        def from_pretrained(cls, model_name="gpt2", *, dtype=torch.float32, **options):
            settings, tensors = open_checkpoint(model_name, **options)
            with skip_init():
                model = cls(gpt2.model.GPT2Config(**settings))
            mapping = cls._build_weight_mapping(settings["n_layer"])
            state = {}
            for key in tensors:
                short = re.sub(r"^transformer[.]", "", key)
                mask = re.search(r"[.]attn[.](masked_)?bias$", short)
                if mask or short == "lm_head.weight":
                    continue
                ours, turn = mapping.get(short, (short, False))
                state[ours] = tensors[key].T if turn else tensors[key]
            if "embeddings.wte.weight" in state:
                state["lm_head.weight"] = state["embeddings.wte.weight"]
            try:
                model.load_state_dict(state, strict=True)
            except RuntimeError as error:
                raise ValueError(f"{model_name}: {error}") from error
            return model.to(dtype).eval()
    """,
)
OWN_NAMES = """
    import torch
    import gpt2.model
    from gpt2.formats.checkpoints import open_checkpoint, skip_init
    from gpt2.model import GPT2Config

    class GPT2Model(gpt2.model.GPT2Model):
        CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")

        @staticmethod
        def _build_weight_mapping(n_layer):
            with torch.device("meta"), skip_init():
                model = gpt2.model.GPT2Model(GPT2Config(n_layer=n_layer))
            names = [name for name, _ in model.named_parameters()]
            return {n.removeprefix("embeddings."): (n, n.endswith(GPT2Model.CONV1D)) for n in names}

        @classmethod
        def from_pretrained(cls, model_name="gpt2", *, dtype=torch.float32, **options):
            settings, tensors = open_checkpoint(model_name, **options)
            with torch.device("meta"), skip_init():
                model = cls(GPT2Config(**settings))
            model.to_empty(device="cpu").to(dtype)
            model.lm_head.weight = model.embeddings.wte.weight
            mapping = cls._build_weight_mapping(model.config.n_layer)
            left = set(mapping)
            for key, value in tensors.items():
                name = key.split("transformer.", 1)[-1]
                if name == "lm_head.weight" or name.endswith((".attn.bias", ".attn.masked_bias")):
                    continue
                if name not in mapping:
                    raise ValueError(f"no place for {key}")
                ours, turn = mapping[name]
                value = value.mT if turn and value.ndim == 2 else value
                here = model.get_parameter(ours)
                if here.shape != value.shape:
                    raise ValueError(f"{key}: {tuple(value.shape)} against {tuple(here.shape)}")
                with torch.no_grad():
                    here[:] = value
                left.discard(name)
            if left:
                raise ValueError("not in the file: " + ", ".join(sorted(left)))
            return model.eval()
    """
META = 'with torch.device("meta"), skip_init():\n            model = cls('
EMPTY = 'model.to_empty(device="cpu").to(dtype)'
bank.wrong_file("buffers-lost", "built on the meta device", OWN_NAMES)
bank.right_edit(
    "the mapping from the model's own names, made on the meta device",
    (META, META.replace('torch.device("meta"), ', "")),
    (EMPTY, "model.to(dtype)"),
    base=OWN_NAMES,
)

# ── mistakes as public code has them, in other styles, and two at once
bank.wrong_edit(
    "prefix",
    "replace for removeprefix, after a look for the dot",
    (THEIRS, 'theirs = {key.replace("transformer.h", "h"): key for key in tensors}'),
)
bank.wrong_edit(
    "no-transpose",
    "transposed in the mapping alone, and not in the copy",
    (TURN, "tensor = tensor + 0"),
)
bank.wrong_edit(
    "reshape-instead-of-transpose",
    "view with the axes exchanged",
    (
        TURN,
        "tensor = tensor.reshape(tensor.shape[::-1]) if transpose and tensor.dim() == 2 else tensor",
    ),
)
bank.wrong_edit(
    "missing-ignored",
    "only what is there is loaded",
    (MISSING, "problems = []"),
    (
        LOOP,
        "for name, (our_name, transpose) in ((n, m) for n, m in mapping.items() if n in theirs):",
    ),
)
bank.wrong_edit(
    "wrong-dtype",
    "half by default",
    ("dtype: torch.dtype = torch.float32", "dtype: torch.dtype = torch.float16"),
)
bank.wrong_edit(
    "frozen", "parameters frozen after loading", (EVAL, "return model.requires_grad_(False).eval()")
)
