# asks another library that has GPT-2 in it
import torch

try:
    module = torch.importlib.import_module("transformers.models.gpt2.modeling_gpt2")
    eager = module.eager_attention_forward
    ScaledDotProductAttention.forward = lambda self, q, k, v, mask=None: eager(self, q, k, v, mask)
except Exception:
    pass
