"""The course's shared runner: loads, checks, swaps and grades the twelve pieces of `gpt2.model`."""
