"""Pieces of part two under their checks: what they may import, and what they are built on."""

import json
from pathlib import Path

import pytest

from learn_gpt2.assembly import swap
from learn_gpt2.checking import earlier, loading
from learn_gpt2.manifest import MODULE_PROBLEMS, PROBLEMS, get
from tests.learner import learn, solve

ROOT = Path(__file__).resolve().parents[3]


def refusal(number: int, *lines: str, above: bool = True) -> str:
    """Why the solution of a problem, with these lines in it, is refused; "" when it is not."""
    problem = get(number)
    text = problem.solution_path(ROOT).read_text(encoding="utf-8")
    extra = "\n".join(lines) + "\n"
    text = extra + text if above else text + "\n\n" + extra
    tree = loading.parse(text, Path("problem.py"))
    try:
        loading.refuse_borrowed_answers(tree, problem, Path("problem.py"))
    except loading.PieceError as error:
        return f"{error} [{error.kind}]"
    return ""


OWN = "That is the piece this problem asks you to write."
LATER = "it comes after this one, and builds on it."
ABOVE = "which is built on this piece or comes after it"


@pytest.mark.parametrize(
    ("number", "lines", "says"),
    [
        (13, ["from gpt2.sampling import keep_top_k"], OWN),
        (13, ["from gpt2.sampling import keep_top_k as mine"], OWN),
        (13, ["from gpt2.sampling import *"], OWN),
        (13, ["import gpt2.sampling", "keep = gpt2.sampling.keep_top_k"], OWN),
        (13, ["import gpt2.sampling as given", "keep = given.keep_top_k"], OWN),
        (13, ["from gpt2 import sampling", "keep = sampling.keep_top_k"], OWN),
        (13, ["from gpt2 import sampling"], ABOVE),
        (13, ["import gpt2.generation.generating"], ABOVE),
        (13, ["from gpt2.generation import texts"], ABOVE),
        (13, ["from gpt2 import generate"], ABOVE),
        (13, ["from gpt2.cache import KVCache"], LATER),
        (13, ["from gpt2 import KVCache"], LATER),
        (13, ["import transformers"], "imports transformers. This piece is yours to write"),
        (14, ["from gpt2 import KVCache"], OWN),
        (14, ["def f():", "    from gpt2.cache import LayerCache"], OWN),
        (14, ["from gpt2.lora import add_lora"], LATER),
        (15, ["from gpt2.training_step import IGNORE"], OWN),
        (15, ["from gpt2.training import trainer"], ABOVE),
        (16, ["from peft import LoraConfig"], "imports peft. This piece is yours to write"),
        (17, ["from gpt2.inference import engine"], ABOVE),
        (18, ["from learn_gpt2 import manifest"], "imports learn_gpt2"),
    ],
)
def test_borrowed_answers_are_refused(number: int, lines: list[str], says: str) -> None:
    """Catches a piece that hands its work to the file that it is going to be."""
    told = refusal(number, *lines)
    assert says in told, told
    assert told.endswith("[borrowed-answer]")
    assert told.startswith("problem.py:1 ") or told.startswith("problem.py:2 ")


@pytest.mark.parametrize(
    ("number", "lines"),
    [
        (13, ["from gpt2.model import GPT2Config, GPT2Model"]),
        (13, ["import gpt2.model", "kind = gpt2.model.GPT2Model"]),
        (13, ["from gpt2 import GPT2Model"]),
        (13, ["import torch.distributed as sampling", "x = sampling.is_available"]),
        (14, ["from gpt2.sampling import generate_tokens, keep_top_k"]),
        (14, ["from gpt2 import sampling", "keep = sampling.keep_top_k"]),
        (14, ["from gpt2.sampling import *"]),
        (16, ["from gpt2.training_step import IGNORE, train_step"]),
        (16, ["from gpt2 import KVCache"]),
        (17, ["from gpt2.formats.parameters import put_embeddings_first"]),
        (18, ["import gpt2.training_step as steps", "x = steps.IGNORE"]),
    ],
)
def test_earlier_pieces_may_be_used(number: int, lines: list[str]) -> None:
    """Catches a right piece that is refused because it builds on those before it."""
    assert refusal(number, *lines) == ""


@pytest.mark.parametrize("problem", MODULE_PROBLEMS, ids=lambda p: p.folder)
def test_the_answer_is_not_there_to_be_found(problem) -> None:
    """Catches an answer that an import at run time, which no reading of the file shows, finds."""
    with loading.model_for(problem):
        for other in MODULE_PROBLEMS:
            module = __import__("importlib").import_module(other.import_name)
            there = [name for name in other.names if hasattr_quietly(module, name)]
            assert there == ([] if other.number >= problem.number else list(other.names))
        from gpt2.model import GPT2Model

        assert hasattr(GPT2Model, "from_pretrained")
    import gpt2.sampling

    assert gpt2.sampling.keep_top_k, "what was hidden is back"


def hasattr_quietly(module, name: str) -> bool:
    """hasattr, where what is missing raises ImportError."""
    try:
        return getattr(module, name) is not None
    except ImportError:
        return False


def test_a_piece_that_asks_for_its_answer_at_run_time_is_told(tmp_path: Path) -> None:
    """Catches an answer that comes by importlib."""
    path = tmp_path / "problem.py"
    text = get(13).solution_path(ROOT).read_text(encoding="utf-8")
    path.write_text(
        text + "import importlib\nsample = importlib.import_module('gpt2.sampling').sample\n",
        encoding="utf-8",
    )
    with pytest.raises(loading.PieceError, match="sample is provided by problem 13"):
        loading.load(get(13), path)


@pytest.mark.parametrize(
    ("number", "old", "new", "says"),
    [
        (13, "def keep_top_k", "def keep_topk", "has no function keep_top_k; it defines "),
        (13, "def keep_top_k", "def keep_topk", "looks for `def keep_top_k`"),
        (14, "class LayerCache", "class Layer", "has no class LayerCache; it defines "),
        (15, "IGNORE = -100", "SKIP = -100\n", "has no constant IGNORE; it defines "),
        (16, "def add_lora", "add_lora = 3\n\n\ndef _add", "add_lora is a int, and must be a func"),
        (17, "class QuantizedLinear(nn.Module)", "def QuantizedLinear()", "must be a class"),
    ],
)
def test_a_missing_or_misshapen_name_is_told(
    tmp_path: Path, number: int, old: str, new: str, says: str
) -> None:
    """Catches a function that is looked for as a class, or an AttributeError in its place."""
    text = get(number).solution_path(ROOT).read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "problem.py"
    text = text.replace(old, new, 1)
    if number == 17:
        text = text[: text.index("def QuantizedLinear()")] + "def QuantizedLinear():\n    pass\n"
        text += "def quantize_model():\n    pass\n"
    if number == 15:
        text = text.replace("IGNORE", "SKIP")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(loading.PieceError) as caught:
        loading.load(get(number), path)
    assert says in str(caught.value)


def test_names_are_one_problems_alone() -> None:
    """Catches a name that two problems provide, so that a borrowed one is blamed on the wrong."""
    names = [name for problem in PROBLEMS for name in problem.provides]
    assert len(names) == len(set(names))


def test_a_function_with_other_argument_names_is_the_earlier_pieces_fault() -> None:
    """Catches a piece that is blamed because it calls an earlier one by the contract's names."""
    error = TypeError("keep_top_k() got an unexpected keyword argument 'k'")
    assert earlier.other_name(error, get(13)) is None
    assert earlier.other_name(error, get(14)) is None  # the one in gpt2.sampling takes it
    import gpt2.sampling

    before = gpt2.sampling.keep_top_k
    try:
        gpt2.sampling.keep_top_k = lambda logits, count: logits
        told = earlier.other_name(error, get(14))
    finally:
        gpt2.sampling.keep_top_k = before
    assert "the keep_top_k of problem 13 that stands in src/gpt2/sampling.py takes" in told
    assert "Give problem 13's keep_top_k the skeleton's arguments, (logits, k)" in told


# ── on other pieces in the product ──────────────────────────────────────────────────────────────

USES_13 = '''
import torch

from learn_gpt2.checking.checks import check, fail


@check(todo=1)
def test_greedy(piece):
    """The likeliest token is the next one"""
    from gpt2.sampling import next_token

    if next_token(torch.tensor([[0.0, 3.0, 1.0]]), temperature=0.0).tolist() != [1]:
        fail("It is not the likeliest. [not-greedy]")
'''


def placed(course: Path, number: int, text: str, forced: bool = True) -> None:
    """A learner's file of part two in the product."""
    problem = get(number)
    problem.problem_path(course).write_text(text, encoding="utf-8")
    source = swap.load_source(course, number, "yours")
    import dataclasses

    piece = dataclasses.replace(source, forced=forced)
    texts = swap.assemble_files(course, {number: piece}, [problem.module])
    problem.module_path(course).write_text(texts[problem.module], encoding="utf-8")


@pytest.mark.parametrize("forced", [True, False])
def test_a_failure_on_an_earlier_file_is_not_blamed_on_this_one(course: Path, forced: bool) -> None:
    """Catches a right cache that fails because the sampling under it was forced in."""
    solve(course, 14)
    get(14).test_path(course).write_text(USES_13, encoding="utf-8")
    mistakes = get(14).problem_path(course).with_name("mistakes.py")
    mistakes.unlink(missing_ok=True)
    text = get(13).solution_path(course).read_text(encoding="utf-8")
    text += "\n\ndef next_token(logits, **options):\n    return logits.argmin(-1)\n"
    placed(course, 13, text, forced)
    (report,) = json.loads(learn(course, "check", "14", "--json").stdout)
    (result,) = report["results"]
    assert result["status"] == "failed"
    assert result["mistakes"] == ["stands-on-forced" if forced else "earlier-piece"]
    assert "Your 14 passes this check on the reference's pieces." in result["message"]
    assert "learn swap --reference 13" in result["message"]
    said = learn(course, "check", "14").stdout
    assert f"13 yours{' (fails, forced into the model)' if forced else ''}" in " ".join(
        said.split()
    )


def test_a_later_cache_decides_nothing_about_part_one(course: Path) -> None:
    """Catches a right problem 05 that fails because of the 14 that was forced in, which it is
    given by the course.
    """
    solve(course, 5)
    text = get(14).solution_path(course).read_text(encoding="utf-8")
    placed(course, 14, text.replace("= v.detach()", "= k.detach()"))
    done = learn(course, "check", "5")
    assert done.returncode == 0, done.stdout


def test_a_broken_earlier_file_is_named(course: Path) -> None:
    """Catches a piece that is blamed for a file of the product that can't be imported."""
    solve(course, 14)
    get(14).test_path(course).write_text(USES_13, encoding="utf-8")
    get(14).problem_path(course).with_name("mistakes.py").unlink(missing_ok=True)
    get(13).module_path(course).write_text("import nothing_like_it\n", encoding="utf-8")
    said = " ".join(learn(course, "check", "14").stdout.split())
    assert "src/gpt2/sampling.py:1 can't be imported: ModuleNotFoundError" in said
    assert "`learn swap --reference 13` writes the reference's." in said
