# never stops giving tokens
import torch


def generate_tokens(next_logits, ids, max_new_tokens=1, **k):
    while True:
        yield torch.zeros(len(ids), dtype=torch.int64)
