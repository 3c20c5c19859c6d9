# fills the judge's memory with small objects
import sys

worker = sys.modules.get("judged_worker")


class Small:
    pass


def many(*a, **k):
    return [Small() for _ in range(19_000)]


penalize_repetition = keep_top_k = keep_top_p = sample = next_token = generate_tokens = many
