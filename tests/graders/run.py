"""`make graders`: every bank, a process per problem; caught, named, false sentences and accepted.
Then right answers in each other's company: mixes of twelve, through checks and product.

Run from the course's root: python -m tests.graders.run [PROBLEM …] [--verbose] [--mixes N]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from learn_gpt2 import manifest
from tests.graders import bank as banks
from tests.graders import mixes

MIXES = 100


def examine_problem(number: int) -> tuple[int, list[banks.Verdict], list[banks.Verdict]]:
    """Both banks of a problem: (number, verdicts on wrong answers, verdicts on right ones)."""
    import torch

    torch.set_num_threads(1)
    bank = banks.load(number)
    with tempfile.TemporaryDirectory() as folder:
        wrong = banks.examine(bank, bank.wrong, Path(folder))
        right = banks.examine(bank, bank.right, Path(folder))
    for verdict in (*wrong, *right):
        for result in verdict.report.results:
            result.exception = None  # tracebacks don't cross processes
    return number, wrong, right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", default=["all"])
    parser.add_argument("--verbose", action="store_true", help="print every message")
    parser.add_argument(
        "--mixes",
        type=int,
        metavar="N",
        help=f"mixes of right answers to try; default: {MIXES}, and 0 where problems are named",
    )
    parser.add_argument("--seed", type=int, default=0, help="another choice of mixes")
    options = parser.parse_args()
    numbers = [problem.number for problem in manifest.select(options.problems)]
    count = options.mixes
    if count is None:
        count = MIXES if options.problems == ["all"] else 0
    started = time.monotonic()
    missed = _banks(numbers, options.verbose) if count == 0 or options.mixes is None else 0
    failed = _mixes(count, options.seed) if count else 0
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if missed or failed else 0


def _workers(most: int) -> int:
    return max(1, min(os.cpu_count() or 1, most))


def _banks(numbers: list[int], verbose: bool) -> int:
    """Print a row per problem, and each answer that was misjudged → how many."""
    totals, misses = [0] * 6, []
    print("problem                      caught      named   false   accepted")
    with ProcessPoolExecutor(_workers(len(numbers))) as pool:
        for number, wrong, right in pool.map(examine_problem, numbers):
            counts = (
                sum(v.caught for v in wrong),
                sum(v.named for v in wrong),
                len(wrong),
                sum(len(v.false) for v in wrong),
                sum(not v.caught for v in right),
                len(right),
            )
            totals = [a + b for a, b in zip(totals, counts, strict=True)]
            _row(manifest.get(number).folder, counts)
            misses += [str(v) for v in wrong if not v.named] + [str(v) for v in right if v.caught]
            misses += [
                f"{v.answer.title} ({v.answer.mistake}): false: {text}"
                for v in wrong
                for text in v.false
            ]
            if verbose:
                print("\n".join(str(v) for v in (*wrong, *right)))
    _row("all", tuple(totals))
    for miss in misses:
        print(f"\n{miss}")
    return len(misses)


def _row(name: str, counts: tuple[int, ...]) -> None:
    caught, named, wrong, false, accepted, right = counts
    shares = f"{caught:4}/{wrong:<4} {named:4}/{wrong:<4} {false:5}   {accepted:4}/{right:<4}"
    print(f"{name:26} {shares}", flush=True)


def _mixes(count: int, seed: int) -> int:
    """Print each mix that fails, and passed / tried → how many failed."""
    chosen = mixes.chosen(count, seed)
    workers = _workers(count)
    shares = [chosen[i::workers] for i in range(workers)]
    with ProcessPoolExecutor(workers) as pool:
        outcomes = [outcome for share in pool.map(mixes.try_all, shares) for outcome in share]
    failed = [outcome for outcome in outcomes if outcome.failures]
    for outcome in failed:
        print(f"\n{outcome}")
    print(f"mixes of right answers, seed {seed}: {count - len(failed)}/{count} passed", flush=True)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
