"""`learn explain`: the first step that differs, whatever the variables are called."""

from pathlib import Path

import pytest

from learn_gpt2 import manifest
from learn_gpt2.checking import explain

ROOT = Path(__file__).resolve().parents[3]


def told(tmp_path: Path, number: int, *edits: tuple[str, str]) -> dict:
    problem = manifest.get(number)
    source = problem.solution_path(ROOT).read_text(encoding="utf-8")
    for old, new in edits:
        assert old in source, old
        source = source.replace(old, new)
    path = tmp_path / "problem.py"
    path.write_text(source, encoding="utf-8")
    return explain.run(problem, path)


@pytest.mark.parametrize("number", explain.COVERED)
def test_the_reference_agrees(tmp_path: Path, number: int) -> None:
    """Catches a textbook that is not what the course teaches."""
    found = told(tmp_path, number)
    assert (found["differs"], found["error"]) == ("", "")
    assert found["agree"]


@pytest.mark.parametrize(
    ("number", "edit", "step", "clue"),
    [
        (1, ("self.wpe(positions)", "self.wpe(positions + 1)"), "the position embeddings", ""),
        (2, ("dim=-1", "dim=-2"), "the weights", ""),
        (3, (" * self.scale", ""), "the scaled scores", "2.449 times too large"),
        (3, ("~mask", "mask"), "the masked scores", ""),
        (4, ("y, _ =", "q, k = k, q\n        y, _ ="), "the scores q kᵀ", "swapped (a transpose)"),
        (4, (".transpose(1, 2).reshape", ".reshape"), "the merged heads", ""),
        (6, ('approximate="tanh"', 'approximate="none"'), "the activation", "nearly right"),
        (7, ("x + sublayer(self.ln(x))", "sublayer(self.ln(x))"), "x plus the sublayer's", ""),
        (8, ("x = x + self.attn", "x = self.attn"), "x after attention", ""),
        (10, ("self.lm_head(self.ln_f(x))", "self.lm_head(x)"), "ln_f: ", ""),
    ],
)
def test_the_first_step_that_differs(tmp_path, number: int, edit, step: str, clue: str) -> None:
    """Catches an explanation that points before or behind the mistake."""
    found = told(tmp_path, number, edit)
    assert found["differs"].startswith(step), found
    assert clue in found["clue"], found


def test_other_names_and_another_order_make_no_difference(tmp_path: Path) -> None:
    """Catches a comparison that knows the reference's variables."""
    path = tmp_path / "problem.py"
    path.write_text(
        "import torch\nfrom torch import nn\n"
        "class ScaledDotProductAttention(nn.Module):\n"
        "    def __init__(self, n_embd, dropout=0.1):\n"
        "        super().__init__()\n"
        "    def forward(self, a, b, c, mask=None):\n"
        "        t = torch.einsum('...td,...sd->...ts', a / a.size(-1) ** 0.5, b)\n"
        "        t = torch.where(mask, t, -torch.inf)\n"
        "        p = t.softmax(-2)\n"
        "        return p @ c, p\n",
        encoding="utf-8",
    )
    found = explain.run(manifest.get(3), path)
    assert "the scaled scores" in found["agree"]
    assert found["differs"] == "the weights"
    assert (found["line"], found["code"]) == (9, "p = t.softmax(-2)")


def test_a_run_that_stops_is_explained_up_to_there(tmp_path: Path) -> None:
    """Catches an explanation that gives up at the first error."""
    found = told(tmp_path, 4, ("y, _ = self.attention(q, k, v)", "y = self.attention(q, k, v)"))
    assert "the weighted values" in found["agree"]
    assert "AttributeError" in found["error"]


def test_a_file_that_does_not_load_is_refused(tmp_path: Path) -> None:
    """Catches a traceback."""
    path = tmp_path / "problem.py"
    path.write_text("def", encoding="utf-8")
    assert "can't read this line" in explain.run(manifest.get(3), path)["refused"]


def test_problems_without_a_forward_pass_say_so() -> None:
    """Catches a comparison of nothing."""
    with pytest.raises(ValueError, match="no forward pass"):
        explain.explain(ROOT, manifest.get(9))
