"""Problem 12: pretrained weights. The class adds two methods to the GPT2Model of problem 11."""

import torch

import gpt2.model
from gpt2.formats.checkpoints import open_checkpoint, skip_init
from gpt2.model import GPT2Config


class GPT2Model(gpt2.model.GPT2Model):
    """Problem 11's GPT2Model, which can now start from the weights of a Hugging Face checkpoint."""

    @staticmethod
    def _build_weight_mapping(n_layer: int) -> dict[str, tuple[str, bool]]:
        """Every tensor of a Hugging Face GPT-2 checkpoint: {their key: (our key, transpose?)}.

        Their keys are written without the `transformer.` prefix. Theirs stores c_attn, c_proj and
        c_fc as Conv1D (in, out), ours as Linear (out, in). The head is tied to wte and has no
        separate entry.
        """
        # Step 1: the tensors outside the blocks
        mapping = {
            "wte.weight": ("embeddings.wte.weight", False),
            "wpe.weight": ("embeddings.wpe.weight", False),
            "ln_f.weight": ("ln_f.weight", False),
            "ln_f.bias": ("ln_f.bias", False),
        }
        # Step 2: inside the blocks our names are theirs; only the four matrices are transposed
        for i in range(n_layer):
            for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"):
                mapping[f"h.{i}.{part}.weight"] = (f"h.{i}.{part}.weight", ".c_" in part)
                mapping[f"h.{i}.{part}.bias"] = (f"h.{i}.{part}.bias", False)
        return mapping

    @classmethod
    def from_pretrained(
        cls, model_name: str = "gpt2", *, dtype: torch.dtype = torch.float32, **options
    ) -> "GPT2Model":
        """A hub name or a local folder → the model in eval mode, tied, with every weight loaded.

        model_name: `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, `distilgpt2`, any repo id, or a
        folder with config.json and model.safetensors. dtype: the parameters' type, whatever
        type the file uses. options go to open_checkpoint (revision, cache_dir, token). ValueError
        that names every tensor that is missing, unexpected or has the wrong shape.
        """
        # Step 3: `settings` are GPT2Config's arguments, `tensors` a mapping from key to
        # tensor, which is read on access
        settings, tensors = open_checkpoint(model_name, **options)
        config = GPT2Config(**settings)
        # Step 4: there is no need for random values, which would be overwritten
        with skip_init():
            model = cls(config).to(dtype)
        # Step 5: names come with or without prefix; masks are not weights, and the head is wte
        # under another name
        theirs = {key.removeprefix("transformer."): key for key in tensors}
        theirs = {
            name: key
            for name, key in theirs.items()
            if not name.endswith((".attn.bias", ".attn.masked_bias"))
        }
        head = theirs.pop("lm_head.weight", None)
        mapping = cls._build_weight_mapping(config.n_layer)
        # Step 6: all differences are reported at once, before any weight is copied
        ours = dict(model.named_parameters(remove_duplicate=False))
        loaded = {id(ours[our_name]) for our_name, _ in mapping.values()}
        problems = [f"missing {name}" for name in mapping if name not in theirs]
        problems += [f"unexpected {key}" for name, key in theirs.items() if name not in mapping]
        problems += [f"nothing for our {name}" for name, p in ours.items() if id(p) not in loaded]
        if problems:
            raise ValueError(f"{model_name} does not hold this GPT-2: {'; '.join(problems)}")
        wte = theirs["wte.weight"]
        if head and not torch.equal(tensors[head].to(dtype), tensors[wte].to(dtype)):
            raise ValueError(f"{model_name}: {head} differs from {wte}; GPT-2's head is tied to it")
        # Step 7: copy_ would silently broadcast a wrong shape, so shapes are compared first
        with torch.no_grad():
            for name, (our_name, transpose) in mapping.items():
                tensor = tensors[theirs[name]]
                tensor = tensor.t() if transpose and tensor.dim() == 2 else tensor
                if tensor.shape != ours[our_name].shape:
                    raise ValueError(
                        f"{model_name}: {theirs[name]} is {tuple(tensor.shape)} as {our_name}, "
                        f"the config asks for {tuple(ours[our_name].shape)}"
                    )
                ours[our_name].copy_(tensor)
        # Step 8: loaded weights are for predicting; dropout would make the predictions random
        return model.eval()
