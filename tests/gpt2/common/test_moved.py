"""Files that were written before a module moved still find it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "lines",
    [
        "from gpt2.checkpoints import open_checkpoint as found",
        "import gpt2.checkpoints; found = gpt2.checkpoints.open_checkpoint",
        "import gpt2.checkpoints as c; found = c.open_checkpoint",
        "from gpt2 import checkpoints; found = checkpoints.open_checkpoint",
    ],
)
def test_an_old_name_gives_the_same_function(lines: str) -> None:
    """Catches a learner's file of an older course that no longer imports, or gets a copy."""
    program = f"{lines}; from gpt2.formats.checkpoints import open_checkpoint; "
    done = subprocess.run(
        [sys.executable, "-c", program + "assert found is open_checkpoint"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_other_names_stay_unknown() -> None:
    """Catches a finder that answers for every name."""
    with pytest.raises(ModuleNotFoundError):
        __import__("gpt2.checkpoint")
    import gpt2

    with pytest.raises(AttributeError, match="no attribute 'checkpoint'"):
        _ = gpt2.checkpoint
    assert callable(gpt2.load_tokenizer)
