"""The course's shared runner: loads, checks, swaps and grades the eighteen pieces of `gpt2`."""
