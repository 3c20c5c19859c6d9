"""A learner's file in every state it can be in: one short message that names file and line."""

import sys
from pathlib import Path

import pytest

from learn_gpt2 import manifest
from learn_gpt2.checking import loading
from learn_gpt2.checking.loading import PieceError

GOOD = """
import torch
from torch import nn
class SimpleAttention(nn.Module):
    def __init__(self, n_embd):
        super().__init__()
    def forward(self, x):
        return x
"""


def load(tmp_path: Path, text: str | bytes, number: int = 2) -> loading.Piece:
    path = tmp_path / "problem.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return loading.load(manifest.get(number), path)


def error(tmp_path: Path, text: str | bytes, number: int = 2) -> PieceError:
    with pytest.raises(PieceError) as caught:
        load(tmp_path, text, number)
    assert len(str(caught.value).splitlines()) <= 6
    assert "problem.py" in str(caught.value)
    return caught.value


def test_a_good_file_loads(tmp_path: Path) -> None:
    """Catches a loader that refuses ordinary files."""
    piece = load(tmp_path, GOOD)
    assert piece.SimpleAttention.__name__ == "SimpleAttention"
    assert len(piece.digest) == 7


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (GOOD.replace("(self, x):", "(self, x:"), "syntax-error", "problem.py:7"),
        (GOOD + "\tx = 1\n        y = 2\n", "syntax-error", "problem.py:"),
        (GOOD.replace("import torch\n", "import torhc\n"), "import-error", "torhc"),
        (GOOD + "\nraise RuntimeError('halt')", "import-error", "problem.py:10"),
        (GOOD + "\nimport sys; sys.exit(0)", "import-error", "ends the program"),
        (GOOD.replace("SimpleAttention", "SimpelAttention"), "missing-name", "SimpelAttention"),
        ("", "missing-name", "defines nothing"),
        (GOOD + "\nSimpleAttention = 3", "no-class", "must be a class"),
        (b"\xff\xfe\x00garbage", "not-utf8", "UTF-8"),
        (GOOD.encode() + b"# caf\xe9", "not-utf8", "UTF-8"),
        (GOOD + "\0", "not-utf8", "NUL"),
        (GOOD + "#" * 1_000_001, "file-too-large", "bytes"),
    ],
)
def test_a_broken_file_is_one_message(tmp_path: Path, text, kind: str, says: str) -> None:
    """Catches a traceback, or a message without the place, for files that can't be examined."""
    found = error(tmp_path, text)
    assert found.kind == kind
    assert says in str(found)


def test_a_missing_file_says_how_to_get_it_back(tmp_path: Path) -> None:
    """Catches a bare FileNotFoundError."""
    with pytest.raises(PieceError, match="learn reset"):
        loading.load(manifest.get(2), tmp_path / "problem.py")


def test_an_endless_import_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a loader that waits forever."""
    monkeypatch.setattr(loading, "LOAD_SECONDS", 0.3)
    assert error(tmp_path, GOOD + "\nwhile True:\n    pass\n").kind == "import-loops"


def test_an_endless_import_that_catches_everything_is_stopped(tmp_path, monkeypatch) -> None:
    """Catches a limit that `except Exception` can swallow."""
    monkeypatch.setattr(loading, "LOAD_SECONDS", 0.3)
    loop = "\nwhile True:\n    try:\n        while True: pass\n    except Exception: pass\n"
    assert error(tmp_path, GOOD + loop).kind == "import-loops"


def test_windows_line_endings_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    """Catches a loader that refuses files written by editors on Windows."""
    load(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())


BORROWED = [
    (3, "from gpt2.model import ScaledDotProductAttention"),
    (3, "from gpt2.model import ScaledDotProductAttention as Mine"),
    (
        3,
        "import gpt2.model\n"
        "class ScaledDotProductAttention(gpt2.model.ScaledDotProductAttention): pass",
    ),
    (
        3,
        "import gpt2.model as m\n"
        "class ScaledDotProductAttention(m.ScaledDotProductAttention): pass",
    ),
    (3, "from gpt2 import model\nScaledDotProductAttention = model.ScaledDotProductAttention"),
    (4, "from gpt2.model import CausalMultiHeadAttention as MultiHeadAttention"),
    (3, "def f():\n    from gpt2.model import MultiHeadAttention"),
    (3, "import transformers"),
    (3, "from transformers.models.gpt2 import modeling_gpt2"),
    (12, "from transformers import GPT2LMHeadModel as GPT2Model"),
    (3, "import solutions"),
    (3, "import learn_gpt2.checking.runner"),
    (10, "from gpt2.model import GPT2Model"),
    (
        11,
        "import gpt2.model\nclass GPT2Model(gpt2.model.GPT2Model):\n"
        "    def _init_weights(self, module):\n        super()._init_weights(module)",
    ),
    (
        11,
        "from gpt2.model import GPT2Model as Base\nclass GPT2Model(Base):\n"
        "    def _init_weights(self, module):\n        Base._init_weights(self, module)",
    ),
    (11, "import gpt2.model\nclass GPT2Model(gpt2.model.GPT2Model): pass"),
    (
        12,
        "import gpt2.model\nclass GPT2Model(gpt2.model.GPT2Model):\n"
        "    @staticmethod\n    def _build_weight_mapping(n):\n"
        "        return gpt2.model.GPT2Model._build_weight_mapping(n)\n"
        "    @classmethod\n    def from_pretrained(cls, name):\n"
        "        return super().from_pretrained(name)",
    ),
]


@pytest.mark.parametrize(("number", "text"), BORROWED)
def test_a_borrowed_answer_is_refused(tmp_path: Path, number: int, text: str) -> None:
    """Catches a file that passes because it takes the reference's own answer."""
    assert error(tmp_path, text, number).kind in ("borrowed-answer", "missing-name")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (3, "import importlib\nm = importlib.import_module('gpt2.model')\n"
            "ScaledDotProductAttention = getattr(m, 'ScaledDot' + 'ProductAttention')"),
        (3, "import sys\nScaledDotProductAttention = "
            "vars(sys.modules['gpt2.model'])['ScaledDotProductAttention']"),
    ],
)  # fmt: skip
def test_a_smuggled_answer_is_not_there(tmp_path: Path, number: int, text: str) -> None:
    """Catches a borrowed answer that no look at the source can see."""
    error(tmp_path, text, number)


def test_earlier_pieces_may_be_used(tmp_path: Path) -> None:
    """Catches a guard that refuses what the problem builds on."""
    text = (
        "from gpt2.model import ScaledDotProductAttention\nfrom torch import nn\n"
        "class MultiHeadAttention(nn.Module):\n    pass\n"
    )
    load(tmp_path, text, 4)


def test_the_model_is_whole_again_afterwards(tmp_path: Path) -> None:
    """Catches a guard that stays in place: later tests would miss pieces of the model."""
    error(tmp_path, "1 / 0", 3)
    import gpt2.model

    assert sys.modules["gpt2.model"] is gpt2.model
    assert hasattr(gpt2.model, "ScaledDotProductAttention")


def test_pytorchs_own_layer_norm_is_an_answer(tmp_path: Path) -> None:
    """Catches a guard that takes subclassing PyTorch for cheating."""
    text = (
        "from torch import nn\nclass LayerNorm(nn.LayerNorm):\n    pass\n"
        "class ResidualBlock(nn.Module):\n    pass\n"
    )
    load(tmp_path, text, 7)


def test_open_todos_are_found() -> None:
    """Catches a parser that misses a TODO, or takes a comment for one."""
    import ast

    source = 'def f():\n    # TODO 1: x\n    raise NotImplementedError("TODO 3: f")\n'
    assert loading.open_todos(ast.parse(source)) == {3: 3}
