"""`learn bisect`: which piece makes the product differ, and what is no difference."""

import shutil
from pathlib import Path

import pytest

from learn_gpt2.assembly import bisection, swap
from learn_gpt2.manifest import MODULE_PROBLEMS, get

ROOT = Path(__file__).resolve().parents[3]
MODEL = swap.assemble_model(ROOT, {})

# an edit of each solution, and what bisect says of it
WRONG = {
    13: (("logits * penalty, logits / penalty", "logits / penalty, logits / penalty"), "penalty"),
    14: (("= v.detach()", "= k.detach()"), "the logits through the KV cache"),
    15: (("hidden = len(prompt) - 1", "hidden = len(prompt)"), "the targets for a prompt"),
    16: (("alpha / rank", "alpha"), "the logits with an adapter"),
    17: (("2 ** (bits - 1) - 1", "2 ** (bits - 1)"), "the scales"),
    18: (("/ comm.size", "/ 1"), "gradients"),
}


def behavior(number: int, text: str) -> dict:
    """What the reference's model does with this text in problem NUMBER's file."""
    return bisection.behavior(MODEL, {get(number).module: text})


@pytest.mark.parametrize("number", WRONG)
def test_a_wrong_file_of_part_two_is_found(number: int) -> None:
    """Catches a bisect that looks at the model alone."""
    text = get(number).solution_path(ROOT).read_text(encoding="utf-8")
    (old, new), says = WRONG[number]
    assert old in text
    reference = behavior(number, text)
    assert not bisection.difference(behavior(number, text), reference)
    told = bisection.difference(behavior(number, text.replace(old, new)), reference)
    assert says in told
    assert "differ" in told


@pytest.mark.parametrize("problem", MODULE_PROBLEMS, ids=lambda p: p.folder)
def test_a_file_that_breaks_off_is_named(problem) -> None:
    """Catches a skeleton in the product that bisect takes for the model's fault, or for right."""
    text = problem.solution_path(ROOT).read_text(encoding="utf-8")
    skeleton = problem.skeleton_path(ROOT).read_text(encoding="utf-8")
    told = bisection.difference(behavior(problem.number, skeleton), behavior(problem.number, text))
    assert "stops with NotImplementedError: TODO" in told


def test_the_culprit_among_all_eighteen(course: Path) -> None:
    """Catches a right piece that is blamed because another one, in another file, is wrong."""
    for problem in (get(3), *MODULE_PROBLEMS):
        shutil.copy(problem.solution_path(course), problem.problem_path(course))
    text = get(14).solution_path(course).read_text(encoding="utf-8")
    (old, new), _ = WRONG[14]
    get(14).problem_path(course).write_text(text.replace(old, new), encoding="utf-8")
    chosen = {problem.number: "yours" for problem in (get(3), *MODULE_PROBLEMS)}
    swap.write_together(
        course,
        {
            swap.file_path(course, module): text.encode()
            for module, text in swap.assemble_files(course, chosen).items()
        },
    )
    found = bisection.bisect(course)
    assert found.pieces == (3, 13, 14, 15, 16, 17, 18)
    assert found.culprits == (14,)
    swap.swap(course, [get(14)], "reference")
    assert bisection.bisect(course).culprits == ()
