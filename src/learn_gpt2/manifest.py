"""The eighteen problems: the one place that knows their names, what they provide, what they build
on and which file of `src/gpt2/` they write.

Part one, 1 to 12, makes up `model.py`. Part two, 13 to 18, is the engine around it: each of its
problems is a whole file by itself.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

MODEL_FILE = "model.py"


@dataclass(frozen=True)
class Problem:
    """One of the eighteen. `provides` are top-level names of classes, functions and constants, or
    `Class.method` for a place inside another's class. `module`: the file of `src/gpt2/` that the
    piece is part of, or is.
    """

    number: int
    slug: str
    title: str
    provides: tuple[str, ...]
    builds_on: tuple[int, ...]
    minutes: str
    difficulty: str
    idea: str
    module: str = MODEL_FILE

    @property
    def in_model(self) -> bool:
        """Whether the piece is a section of model.py; else it is a whole file of its own."""
        return self.module == MODEL_FILE

    @property
    def import_name(self) -> str:
        """The name that the piece's file is imported by, such as `gpt2.sampling`."""
        return f"gpt2.{self.module.removesuffix('.py')}"

    @property
    def folder(self) -> str:
        """Name of the folder under problems/, and of the file under solutions/ without its
        `.py`.
        """
        return f"{self.number:02d}-{self.slug}"

    @property
    def test_file(self) -> str:
        """Name of the test file inside the folder."""
        return f"test_{self.slug.replace('-', '_')}.py"

    @property
    def names(self) -> tuple[str, ...]:
        """Top-level names that the problem's file defines."""
        return tuple(dict.fromkeys(name.split(".")[0] for name in self.provides))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes among them: they begin with a capital, and constants are all in
        capitals.
        """
        return tuple(n for n in self.names if n[0].isupper() and not n.isupper())

    def problem_path(self, root: Path) -> Path:
        """The learner's file."""
        return root / "problems" / self.folder / "problem.py"

    def skeleton_path(self, root: Path) -> Path:
        """The untouched skeleton, which problem.py starts as and `learn reset` goes back to."""
        return root / "src" / "learn_gpt2" / "skeletons" / f"{self.folder}.py"

    def solution_path(self, root: Path) -> Path:
        """The reference."""
        return root / "solutions" / f"{self.folder}.py"

    def test_path(self, root: Path) -> Path:
        """The checks."""
        return root / "problems" / self.folder / self.test_file

    def mistakes_path(self, root: Path) -> Path:
        """The catalog of known mistakes, beside the checks that use it."""
        return root / "problems" / self.folder / "mistakes.py"

    def readme_path(self, root: Path) -> Path:
        """The text with the hints."""
        return root / "problems" / self.folder / "README.md"

    def module_path(self, root: Path) -> Path:
        """The file of the product that the piece goes into."""
        return root / "src" / "gpt2" / self.module


PROBLEMS: tuple[Problem, ...] = (
    Problem(
        number=1,
        slug="embeddings",
        title="Embeddings",
        provides=("Embeddings",),
        builds_on=(),
        minutes="30–45",
        difficulty="easy",
        idea="what a token is, where it stands",
    ),
    Problem(
        number=2,
        slug="attention-basics",
        title="Attention basics",
        provides=("SimpleAttention",),
        builds_on=(),
        minutes="45–60",
        difficulty="medium",
        idea="a soft lookup by dot product",
    ),
    Problem(
        number=3,
        slug="scaled-dot-product",
        title="Scaled dot product",
        provides=("ScaledDotProductAttention",),
        builds_on=(),
        minutes="30–45",
        difficulty="medium",
        idea="keep the softmax from saturating",
    ),
    Problem(
        number=4,
        slug="multi-head-attention",
        title="Multi-head attention",
        provides=("MultiHeadAttention",),
        builds_on=(3,),
        minutes="60–90",
        difficulty="hard",
        idea="many small attentions at once",
    ),
    Problem(
        number=5,
        slug="causal-masking",
        title="Causal masking",
        provides=("CausalMultiHeadAttention",),
        builds_on=(4,),
        minutes="45–60",
        difficulty="medium",
        idea="never look ahead; remember the past",
    ),
    Problem(
        number=6,
        slug="feedforward-network",
        title="Feed-forward network",
        provides=("NewGELU", "FeedForward"),
        builds_on=(),
        minutes="30",
        difficulty="easy",
        idea="each token thinks for itself",
    ),
    Problem(
        number=7,
        slug="layer-norm-residuals",
        title="Layer norm and residuals",
        provides=("LayerNorm", "ResidualBlock"),
        builds_on=(),
        minutes="45",
        difficulty="medium",
        idea="a steady stream through many layers",
    ),
    Problem(
        number=8,
        slug="transformer-block",
        title="Transformer block",
        provides=("TransformerBlock",),
        builds_on=(5, 6, 7),
        minutes="60–90",
        difficulty="hard",
        idea="tokens talk, then think; add up",
    ),
    Problem(
        number=9,
        slug="gpt2-config",
        title="GPT-2 config",
        provides=("GPT2Config",),
        builds_on=(),
        minutes="20–30",
        difficulty="easy",
        idea="four sizes from nine numbers",
    ),
    Problem(
        number=10,
        slug="full-model",
        title="Full model",
        provides=("GPT2Model.__init__", "GPT2Model.forward"),
        builds_on=(1, 7, 8, 9),
        minutes="90–120",
        difficulty="hard",
        idea="from token ids to logits",
    ),
    Problem(
        number=11,
        slug="weight-initialization",
        title="Weight initialization",
        provides=("GPT2Model._init_weights",),
        builds_on=(10,),
        minutes="45",
        difficulty="medium",
        idea="start where learning can begin",
    ),
    Problem(
        number=12,
        slug="pretrained-loading",
        title="Pretrained loading",
        provides=("GPT2Model._build_weight_mapping", "GPT2Model.from_pretrained"),
        builds_on=(11,),
        minutes="120–180",
        difficulty="very hard",
        idea="bring GPT-2's own weights to life",
    ),
    Problem(
        number=13,
        slug="text-generation",
        title="Text generation",
        provides=(
            "penalize_repetition",
            "keep_top_k",
            "keep_top_p",
            "sample",
            "next_token",
            "generate_tokens",
        ),
        builds_on=(10,),
        minutes="60–90",
        difficulty="medium",
        idea="choose the next token, again and again",
        module="sampling.py",
    ),
    Problem(
        number=14,
        slug="kv-cache",
        title="KV cache",
        provides=("LayerCache", "KVCache", "cached_logits"),
        builds_on=(5, 13),
        minutes="60–90",
        difficulty="hard",
        idea="compute nothing twice",
        module="cache.py",
    ),
    Problem(
        number=15,
        slug="fine-tuning",
        title="Fine-tuning",
        provides=(
            "IGNORE",
            "build_example",
            "collate",
            "masked_loss",
            "learning_rate",
            "parameter_groups",
            "train_step",
        ),
        builds_on=(10,),
        minutes="90–120",
        difficulty="hard",
        idea="learn from answers alone",
        module="training_step.py",
    ),
    Problem(
        number=16,
        slug="lora",
        title="LoRA",
        provides=(
            "LoRALinear",
            "add_lora",
            "merge_lora",
            "adapter_state",
            "load_adapter_state",
        ),
        builds_on=(15,),
        minutes="60–90",
        difficulty="hard",
        idea="train two thin matrices in place of one",
        module="lora.py",
    ),
    Problem(
        number=17,
        slug="quantization",
        title="Quantization",
        provides=(
            "absmax_scale",
            "quantize",
            "dequantize",
            "pack_int4",
            "unpack_int4",
            "QuantizedLinear",
            "quantize_model",
        ),
        builds_on=(10,),
        minutes="90–120",
        difficulty="hard",
        idea="weights in eight bits, or in four",
        module="quantization.py",
    ),
    Problem(
        number=18,
        slug="distributed-training",
        title="Distributed training",
        provides=("shard", "broadcast_parameters", "average_gradients", "DataParallel"),
        builds_on=(15,),
        minutes="90–120",
        difficulty="very hard",
        idea="many machines, one gradient",
        module="data_parallel.py",
    ),
)

MODEL_PROBLEMS: tuple[Problem, ...] = tuple(p for p in PROBLEMS if p.in_model)
MODULE_PROBLEMS: tuple[Problem, ...] = tuple(p for p in PROBLEMS if not p.in_model)
# the files of `src/gpt2/` that the problems write, in their order
MODULES: tuple[str, ...] = tuple(dict.fromkeys(problem.module for problem in PROBLEMS))
_BY_MODULE: dict[str, Problem] = {problem.module: problem for problem in MODULE_PROBLEMS}
# names of parts, as commands take them
PARTS = {"all": PROBLEMS, "part-one": MODEL_PROBLEMS, "part-two": MODULE_PROBLEMS}


def module_problem(module: str) -> Problem:
    """The problem that is a whole file of `src/gpt2/`, by that file's name. KeyError for others."""
    return _BY_MODULE[module]


def reference_name(module: str) -> str:
    """What `learn swap --reference` is given to write a file of `src/gpt2/` again: "13", "all"."""
    return f"{_BY_MODULE[module].number:02d}" if module in _BY_MODULE else "all"


def prerequisites(problem: Problem) -> tuple[Problem, ...]:
    """The problems that this one builds on, directly or through others, in order."""
    found: set[int] = set()
    todo = list(problem.builds_on)
    while todo:
        number = todo.pop()
        if number not in found:
            found.add(number)
            todo += PROBLEMS[number - 1].builds_on
    return tuple(PROBLEMS[number - 1] for number in sorted(found))


def get(name: str | int) -> Problem:
    """A problem by number (`5`, `"05"`), slug (`"causal-masking"`), folder or any path into it.

    ValueError that lists them all when nothing fits.
    """
    text = str(name).strip().replace("\\", "/").rstrip("/")
    if re.fullmatch(r"\d{1,4}", text) and 1 <= int(text) <= len(PROBLEMS):
        return PROBLEMS[int(text) - 1]
    parts = [part.removesuffix(".py") for part in text.split("/")]
    for problem in PROBLEMS:
        if problem.folder in parts or problem.slug in parts:
            return problem
    raise ValueError(
        f"no problem {str(name)!r}; there are "
        + ", ".join(f"{problem.folder}" for problem in PROBLEMS)
    )


def select(words: list[str] | tuple[str, ...]) -> list[Problem]:
    """Problems from words such as `5`, `05`, `1-7`, `13-18`, `all`, `part-one`, `part-two`,
    `causal-masking`, `1,3,5`: sorted, each once.

    ValueError that names the word that fits nothing.
    """
    chosen: set[int] = set()
    for word in (part for text in words for part in text.split(",") if part.strip()):
        word = word.strip()
        span = re.fullmatch(r"(\d{1,4})\s*(?:-|–|\.\.)\s*(\d{1,4})", word)
        part = word.lower().replace("_", "-").replace(" ", "-")
        if part in PARTS:
            chosen.update(problem.number for problem in PARTS[part])
        elif span:
            first, last = get(span[1]).number, get(span[2]).number
            if first > last:
                raise ValueError(f"{word!r} runs backwards; write {last}-{first}")
            chosen.update(range(first, last + 1))
        else:
            chosen.add(get(word).number)
    return [PROBLEMS[number - 1] for number in sorted(chosen)]


def course_around(start: Path | str | None = None) -> Path | None:
    """The first folder, from `start` (default: the current one) upward, that holds `problems/`,
    `solutions/` and `src/gpt2`; None when there is none.
    """
    start = Path(os.path.abspath(start or Path.cwd()))
    for folder in (start, *start.parents):
        parts = (folder / "problems", folder / "src" / "gpt2", folder / "solutions")
        if all(part.is_dir() for part in parts):
            return folder
    return None


def find_root(start: Path | str | None = None) -> Path:
    """The course's folder, from `start` (default: the current directory) upward.

    It is the first one that holds `problems/`, `solutions/` and `src/gpt2`. FileNotFoundError that
    says where was looked.
    """
    root = course_around(start)
    if root is None:
        raise FileNotFoundError(
            f"{os.path.abspath(start or Path.cwd())} is not inside the course: neither it nor a "
            "folder above it holds problems/, solutions/ and src/gpt2/. Change into the course's "
            "folder, or use --root; `learn init FOLDER` makes a new one."
        )
    return root
