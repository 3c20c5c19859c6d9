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


@pytest.mark.parametrize(
    ("scale", "clue"),
    [
        ("1.0 / n_embd", "exactly 2.449 times too small, that is √6 = √d_k"),
        ("1.0 / n_embd**2", "exactly 14.7 times too small"),
        ("1.0", "exactly 2.449 times too large, that is √6 = √d_k"),
        ("10.0", "exactly 24.49 times too large"),
        ("-(n_embd**-0.5)", "every number has the wrong sign"),
    ],
)
def test_the_ratio_is_that_of_the_learners_own_step(tmp_path, scale: str, clue: str) -> None:
    """Catches a ratio of a tensor that agrees with the step before."""
    found = told(tmp_path, 3, ("self.scale = 1.0 / math.sqrt(n_embd)", f"self.scale = {scale}"))
    assert found["differs"] == "the scaled scores", found
    assert found["clue"].endswith(clue), found
    if scale != "1.0":
        assert "self.scale" in found["code"], found


def test_the_result_is_what_forward_returns(tmp_path: Path) -> None:
    """Catches agreement with a tensor that is made and not returned."""
    found = told(tmp_path, 10, ("return self.lm_head(self.ln_f(x))", LOGITS))
    assert "the logits" in found["agree"]
    assert found["differs"] == explain.RETURNED
    swapped = told(tmp_path, 3, ("return weights @ v, weights", "return weights, weights @ v"))
    assert swapped["differs"] == explain.RETURNED


LOGITS = "return self.lm_head(self.ln_f(x)).relu()"


def test_weights_that_the_textbook_lacks_end_it_with_a_sentence(tmp_path: Path) -> None:
    """Catches a comparison that stops in the textbook's own steps without a result."""
    source = manifest.get(2).solution_path(ROOT).read_text(encoding="utf-8")
    path = tmp_path / "problem.py"
    source = source.replace("nn.Linear(n_embd, n_embd)", "nn.Linear(n_embd, n_embd, False)")
    path.write_text(source, encoding="utf-8")
    found = explain.run(manifest.get(2), path)
    assert "'query.bias'" in found["clue"], found


def test_prints_are_shown(tmp_path: Path) -> None:
    """Catches a print that is swallowed, and one that floods the screen."""
    line = "return self.drop("
    found = told(tmp_path, 6, (line, f"print('here', x.shape)\n        {line}"))
    assert found["printed"] == "here torch.Size([2, 4, 15])\n"
    found = told(tmp_path, 6, (line, f"print('x' * 99999)\n        {line}"))
    assert len(found["printed"]) < 5000
    assert "100000 characters in all" in found["printed"]


def test_stages_that_are_over_take_one_line() -> None:
    """Catches a list of 60 ticks for a model of two blocks."""
    from learn_gpt2.commands.explain import folded

    steps = ["the embeddings", "block 0: ln_1: a", "block 0: ln_1: b", "block 0: x"]
    steps += ["block 1: ln_1: a", "block 1: ln_1: b", "block 1: attention: q"]
    assert folded(steps, "") == ["the embeddings", "block 0: 3 steps", "block 1: 3 steps"]
    assert folded(steps, "block 1: attention: k") == [
        "the embeddings",
        "block 0: 3 steps",
        "block 1: ln_1: 2 steps",
        "block 1: attention: q",
    ]
