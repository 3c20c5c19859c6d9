# calls the judge's functions from inside the judge's calls, without end
import sys

import torch

worker = sys.modules.get("judged_worker")


class Again:
    def __call__(self, *given):
        return generate_tokens(self, torch.zeros(1, 1, dtype=torch.long), 3)


def generate_tokens(next_logits, ids, *a, **k):
    for _ in range(20_000):
        next_logits(ids)
    return Again()
