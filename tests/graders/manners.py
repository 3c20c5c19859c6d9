"""Answers in the manner of what people publish: nanoGPT, minGPT, Hugging Face's library, textbooks,
courses' solutions, and the mistakes that go with them. Each is written for the contract's names.

A bank takes its problem's entries from here when it is loaded.
"""

from __future__ import annotations

import textwrap

# problem number → (title, source)
RIGHT: dict[int, list[tuple[str, str]]] = {number: [] for number in range(1, 13)}
# problem number → (the mistake that must be named, title, source)
WRONG: dict[int, list[tuple[str, str, str]]] = {number: [] for number in range(1, 13)}


def right(number: int, title: str, source: str) -> None:
    """Write down a right answer."""
    RIGHT[number].append((title, textwrap.dedent(source).lstrip()))


def wrong(number: int, mistake: str, title: str, source: str) -> None:
    """Write down a wrong answer and what it must be told."""
    WRONG[number].append((mistake, title, textwrap.dedent(source).lstrip()))


# ── 12 ──────────────────────────────────────────────────────────────────────────────────────────

MAPPING = """
    import torch
    import gpt2.model
    from gpt2.model import GPT2Config
    {imports}

    class GPT2Model(gpt2.model.GPT2Model):
        @staticmethod
        def _build_weight_mapping(n_layer):
            pairs = dict()
            for name in ("wte.weight", "wpe.weight"):
                pairs["{prefix}" + name] = ("embeddings." + name, False)
            for kind in ("weight", "bias"):
                pairs["{prefix}ln_f." + kind] = ("ln_f." + kind, False)
                for i in range(n_layer):
                    for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
                        name = f"h.{{i}}.{{part}}.{{kind}}"
                        pairs["{prefix}" + name] = (name, kind == "weight")
                    for part in ("ln_1", "ln_2"):
                        name = f"h.{{i}}.{{part}}.{{kind}}"
                        pairs["{prefix}" + name] = (name, False)
            return pairs

        @classmethod
        def from_pretrained(cls, model_name="gpt2", **options):
"""
CONFIG_OF_THEIRS = """
            c = theirs.config
            config = GPT2Config(
                vocab_size=c.vocab_size, n_positions=c.n_positions, n_embd=c.n_embd,
                n_layer=c.n_layer, n_head=c.n_head, resid_pdrop=c.resid_pdrop,
                embd_pdrop=c.embd_pdrop, attn_pdrop=c.attn_pdrop,
                layer_norm_epsilon=c.layer_norm_epsilon,
            )
            model = cls(config)
"""
LISTS_READ = """
            theirs, info = GPT2LMHeadModel.from_pretrained(
                model_name, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
            masks = (".attn.bias", ".attn.masked_bias")
            wrong = [f"missing {key}" for key in info["missing_keys"]]
            wrong += [f"unexpected {key}" for key in info["unexpected_keys"] if not key.endswith(masks)]
            wrong += [f"misshapen {entry}" for entry in info["mismatched_keys"]]
            if wrong:
                raise ValueError("; ".join(sorted(wrong)))
"""
COPIED = """
            sd, sd_hf = model.state_dict(), theirs.state_dict()
            for key, (name, transpose) in cls._build_weight_mapping(config.n_layer).items():
                tensor = sd_hf[key] if key in sd_hf else sd_hf["transformer." + key]
                with torch.no_grad():
                    if transpose:
                        assert tensor.shape[::-1] == sd[name].shape
                        sd[name].copy_(tensor.t())
                    else:
                        assert tensor.shape == sd[name].shape
                        sd[name].copy_(tensor)
            model.eval()
            return model
"""
THROUGH = "from transformers import GPT2LMHeadModel"


def pretrained(*parts: str, imports: str = THROUGH, prefix: str = "") -> str:
    """A piece for problem 12: the mapping, then from_pretrained's body in parts."""
    return MAPPING.format(imports=imports, prefix=prefix) + "".join(parts)


right(
    12,
    "nanoGPT's way, with what transformers reports",
    pretrained(LISTS_READ, CONFIG_OF_THEIRS, COPIED),
)
right(
    12,
    "transformers, keys with the prefix, imported where it is used",
    pretrained(
        "            from transformers import GPT2LMHeadModel\n" + LISTS_READ,
        CONFIG_OF_THEIRS,
        COPIED,
        imports="",
        prefix="transformer.",
    ),
)
right(
    12,
    "transformers' Auto classes and load_state_dict, the config by to_dict()",
    pretrained(
        LISTS_READ.replace("GPT2LMHeadModel", "transformers.AutoModelForCausalLM"),
        """
            known = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "resid_pdrop",
                     "embd_pdrop", "attn_pdrop", "layer_norm_epsilon")
            config = GPT2Config(**{k: v for k, v in theirs.config.to_dict().items() if k in known})
            model = cls(config)
            sd_hf = theirs.float().state_dict()
            ours = {}
            for key, (name, transpose) in cls._build_weight_mapping(config.n_layer).items():
                tensor = sd_hf["transformer." + key]
                ours[name] = tensor.t() if transpose else tensor
            ours["lm_head.weight"] = ours["embeddings.wte.weight"]
            model.load_state_dict(ours)
            return model.eval()
""",
        imports="import transformers",
    ),
)
right(
    12,
    "transformers' own error for a wrong shape, named from the file's header",
    pretrained(
        """
            import os
            from safetensors import safe_open
            theirs = GPT2LMHeadModel(TheirConfig.from_pretrained(model_name))
            want = {k: tuple(v.shape) for k, v in theirs.transformer.state_dict().items()
                    if not k.endswith((".attn.bias", ".attn.masked_bias"))}
            with safe_open(os.path.join(model_name, "model.safetensors"), "pt") as file:
                got = {k.removeprefix("transformer."): tuple(file.get_slice(k).get_shape())
                       for k in file.keys()}
            got.pop("lm_head.weight", None)
            got = {k: v for k, v in got.items() if not k.endswith((".attn.bias", ".attn.masked_bias"))}
            for name in sorted(want.keys() | got.keys()):
                if want.get(name) != got.get(name):
                    raise ValueError(f"{name}: {want.get(name)} wanted, {got.get(name)} there")
            theirs = GPT2LMHeadModel.from_pretrained(model_name, use_safetensors=True)
""",
        CONFIG_OF_THEIRS,
        COPIED,
        imports="from transformers import GPT2Config as TheirConfig, GPT2LMHeadModel",
    ),
)
right(
    12,
    "safetensors' load_file and json, keys with the prefix, a ValueError's subclass",
    pretrained(
        """
            import json, pathlib
            from safetensors.torch import load_file
            folder = pathlib.Path(model_name)
            told = json.loads((folder / "config.json").read_text())
            known = GPT2Config.__init__.__code__.co_varnames
            config = GPT2Config(**{k: v for k, v in told.items() if k in known})
            model = cls(config)
            sd = {}
            for key, tensor in load_file(folder / "model.safetensors").items():
                key = key if key.startswith("transformer.") else "transformer." + key
                if not key.endswith(("lm_head.weight", ".attn.bias", ".attn.masked_bias")):
                    sd[key] = tensor
            mapping = cls._build_weight_mapping(config.n_layer)
            if sd.keys() != mapping.keys():
                raise WrongCheckpoint(sorted(sd.keys() ^ mapping.keys()))
            for key, (name, turn) in mapping.items():
                parameter, tensor = model.get_parameter(name), sd[key]
                tensor = tensor.transpose(0, -1) if turn else tensor
                if parameter.shape != tensor.shape:
                    raise WrongCheckpoint(f"{key} {list(tensor.shape)} {list(parameter.shape)}")
                parameter.data.copy_(tensor)
            return model.eval()

    class WrongCheckpoint(ValueError):
        pass
""",
        imports="",
        prefix="transformer.",
    ),
)

wrong(
    12,
    "missing-ignored",
    "nanoGPT's way as it is: transformers only prints what is missing",
    pretrained(
        "            theirs = GPT2LMHeadModel.from_pretrained(model_name)\n",
        CONFIG_OF_THEIRS,
        COPIED,
    ),
)
wrong(
    12,
    "unexpected-ignored",
    "transformers' missing keys are looked at, its unexpected ones are not",
    pretrained(
        LISTS_READ.replace(
            'wrong += [f"unexpected {key}" for key in info["unexpected_keys"] '
            "if not key.endswith(masks)]",
            "pass",
        ),
        CONFIG_OF_THEIRS,
        COPIED,
    ),
)
wrong(
    12,
    "unhelpful-error",
    "transformers' own error for a wrong shape, which names nothing",
    pretrained(LISTS_READ.replace("ignore_mismatched_sizes=True, ", ""), CONFIG_OF_THEIRS, COPIED),
)
wrong(
    12,
    "misshapen-accepted",
    "transformers told to let wrong shapes be",
    pretrained(
        LISTS_READ.replace(
            'wrong += [f"misshapen {entry}" for entry in info["mismatched_keys"]]', "pass"
        ),
        CONFIG_OF_THEIRS,
        COPIED,
    ),
)
wrong(
    12,
    "wrong-error-type",
    "a KeyError that names the tensor",
    pretrained(LISTS_READ.replace("raise ValueError", "raise KeyError"), CONFIG_OF_THEIRS, COPIED),
)
