"""`python -m gpt2` does what the environment's `gpt2` command does."""

from importlib.metadata import entry_points

from gpt2.cli import main

if __name__ == "__main__":
    found = entry_points(group="console_scripts", name="gpt2")
    ours = [entry for entry in found if entry.dist and entry.dist.name == "learn-gpt2"]
    (ours[0].load() if ours else main)()
