"""Each problem's skeleton and its solution are one file in two states.

Every rule is a function that takes the two sources and returns what is wrong with them; it is
run on the pairs, and on a pair that was spoilt on purpose, to show that it can fail.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import io
import re
import tokenize
from pathlib import Path

import pytest

from learn_gpt2.manifest import PROBLEMS, Problem

ROOT = Path(__file__).resolve().parents[2]
MAX_COLUMNS = 100
SKELETON_LINES = range(20, 81)

# Functions that a skeleton hands over finished, because another problem writes them.
GIVEN = {10: {"GPT2Model._init_weights"}}

# The published signatures, without annotations. Written down by hand: a renamed argument must
# fail here even when both files of a pair are renamed together.
SIGNATURES = {
    1: {
        "Embeddings.__init__": "(self, vocab_size, n_positions, n_embd, dropout=0.1)",
        "Embeddings.forward": "(self, input_ids, start_pos=0)",
    },
    2: {
        "SimpleAttention.__init__": "(self, n_embd)",
        "SimpleAttention.forward": "(self, x)",
    },
    3: {
        "ScaledDotProductAttention.__init__": "(self, n_embd, dropout=0.1)",
        "ScaledDotProductAttention.forward": "(self, q, k, v, mask=None)",
    },
    4: {
        "MultiHeadAttention.__init__": "(self, n_embd, n_head, dropout=0.1, attn_dropout=None)",
        "MultiHeadAttention.split_heads": "(self, x)",
        "MultiHeadAttention.merge_heads": "(self, x)",
        "MultiHeadAttention.forward": "(self, x)",
    },
    5: {
        "CausalMultiHeadAttention.__init__": (
            "(self, n_embd, n_head, n_positions, dropout=0.1, attn_dropout=None)"
        ),
        "CausalMultiHeadAttention.forward": "(self, x, cache=None)",
    },
    6: {
        "NewGELU.__init__": None,  # takes no arguments: PyTorch's own
        "NewGELU.forward": "(self, x)",
        "FeedForward.__init__": "(self, n_embd, n_inner, dropout=0.1)",
        "FeedForward.forward": "(self, x)",
    },
    7: {
        "LayerNorm.__init__": "(self, n_embd, eps=1e-05)",
        "LayerNorm.forward": "(self, x)",
        "ResidualBlock.__init__": "(self, n_embd, layer_norm_epsilon=1e-05)",
        "ResidualBlock.forward": "(self, x, sublayer)",
    },
    8: {
        "TransformerBlock.__init__": (
            "(self, n_embd, n_head, n_positions, dropout=0.1, *, n_inner=None, "
            "attn_dropout=None, layer_norm_epsilon=1e-05)"
        ),
        "TransformerBlock.forward": "(self, x, cache=None)",
    },
    9: {
        "GPT2Config.__init__": (
            "(self, vocab_size=50257, n_positions=1024, n_embd=768, n_layer=12, n_head=12, "
            "resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, layer_norm_epsilon=1e-05)"
        ),
        "GPT2Config.gpt2_small": "(cls)",
        "GPT2Config.gpt2_medium": "(cls)",
        "GPT2Config.gpt2_large": "(cls)",
        "GPT2Config.gpt2_xl": "(cls)",
    },
    10: {
        "GPT2Model.__init__": "(self, config)",
        "GPT2Model.forward": "(self, input_ids, cache=None, last_only=False)",
    },
    11: {"GPT2Model._init_weights": "(self, module)"},
    12: {
        "GPT2Model._build_weight_mapping": "(n_layer)",
        "GPT2Model.from_pretrained": (
            "(cls, model_name='gpt2', *, dtype=torch.float32, **options)"
        ),
    },
    13: {
        "penalize_repetition": "(logits, seen, penalty)",
        "keep_top_k": "(logits, k)",
        "keep_top_p": "(logits, p)",
        "sample": "(logits, generator=None)",
        "next_token": (
            "(logits, *, temperature=1.0, top_k=None, top_p=None, repetition_penalty=1.0, "
            "seen=None, generator=None)"
        ),
        "generate_tokens": (
            "(next_logits, ids, max_new_tokens, *, temperature=1.0, top_k=None, top_p=None, "
            "repetition_penalty=1.0, eos_token_id=None, generator=None)"
        ),
    },
    14: {
        "LayerCache.__init__": "(self, keys, values)",
        "LayerCache.append": "(self, k, v)",
        "KVCache.__init__": (
            "(self, config, batch_size=1, max_length=None, device=None, dtype=None)"
        ),
        "KVCache.truncate": "(self, length)",
        "KVCache.reset": "(self)",
        "cached_logits": "(model, cache)",
    },
    15: {
        "build_example": "(prompt, answer, eos, max_length)",
        "collate": "(examples, pad_id)",
        "masked_loss": "(logits, targets)",
        "learning_rate": "(step, *, peak, warmup_steps, max_steps, final_ratio=0.1)",
        "parameter_groups": "(model, weight_decay)",
        "train_step": (
            "(model, optimizer, batches, *, grad_clip=1.0, autocast_dtype=None, total=None)"
        ),
    },
    16: {
        "LoRALinear.__init__": "(self, base, rank, alpha, dropout=0.0)",
        "LoRALinear.forward": "(self, x)",
        "LoRALinear.merge": "(self)",
        "LoRALinear.unmerge": "(self)",
        "add_lora": "(model, rank=8, alpha=16, dropout=0.0, targets=('c_attn',))",
        "merge_lora": "(model)",
        "adapter_state": "(model)",
        "load_adapter_state": "(model, state)",
    },
    17: {
        "absmax_scale": "(weight, bits=8, group_size=None)",
        "quantize": "(weight, scale, bits=8)",
        "dequantize": "(q, scale)",
        "pack_int4": "(q)",
        "unpack_int4": "(packed)",
        "QuantizedLinear.__init__": "(self, linear, bits=8, group_size=None)",
        "QuantizedLinear.forward": "(self, x)",
        "quantize_model": "(model, bits=8, group_size=None)",
    },
    18: {
        "shard": "(batch, rank, size)",
        "broadcast_parameters": "(module, comm)",
        "average_gradients": f"(parameters, comm, bucket_bytes={25 * 2**20})",
        "DataParallel.__init__": f"(self, module, comm, bucket_bytes={25 * 2**20})",
        "DataParallel.no_sync": "(self)",
        "DataParallel.finish": "(self)",
    },
}
# A small instance of each class, and the attributes that it must have.
ATTRIBUTES = {
    1: [("Embeddings(7, 5, 6)", "wte wpe drop")],
    2: [("SimpleAttention(6)", "query key value")],
    3: [("ScaledDotProductAttention(6)", "")],
    4: [
        (
            "MultiHeadAttention(6, 2)",
            "n_head head_dim c_attn attention c_proj resid_dropout split_heads merge_heads",
        )
    ],
    5: [
        (
            "CausalMultiHeadAttention(6, 2, 5)",
            "n_head head_dim c_attn attention c_proj resid_dropout split_heads merge_heads",
        )
    ],
    6: [("NewGELU()", ""), ("FeedForward(6, 10)", "c_fc act c_proj drop")],
    7: [("LayerNorm(6)", "weight bias eps"), ("ResidualBlock(6)", "ln")],
    8: [("TransformerBlock(6, 2, 5)", "ln_1 attn ln_2 mlp")],
    9: [
        (
            "GPT2Config()",
            "vocab_size n_positions n_embd n_layer n_head resid_pdrop embd_pdrop attn_pdrop "
            "layer_norm_epsilon n_inner head_dim",
        )
    ],
    10: [("GPT2Model(GPT2Config(11, 5, 6, 3, 2))", "config embeddings h ln_f lm_head")],
    11: [],
    12: [],
    13: [],
    14: [
        ("LayerCache(torch.zeros(2, 3, 5, 4), torch.zeros(2, 3, 5, 4))", "keys values length"),
        (
            "KVCache(__import__('gpt2.model').model.GPT2Config(11, 5, 6, 3, 2))",
            "layers max_length length nbytes",
        ),
    ],
    15: [],
    16: [("LoRALinear(nn.Linear(6, 5), 2, 4)", "base lora_A lora_B scaling merged")],
    17: [("QuantizedLinear(nn.Linear(6, 5))", "qweight scale bias nbytes")],
    18: [],
}
CONSTANTS = {15: {"IGNORE": -100}}

Function = ast.FunctionDef | ast.AsyncFunctionDef


# ---------------------------------------------------------------- reading a source


def functions(source: str) -> dict[str, Function]:
    """Top-level functions and methods by qualified name, in file order."""
    found: dict[str, Function] = {}
    for node in ast.parse(source).body:
        if isinstance(node, Function):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{item.name}": item for item in node.body if isinstance(item, Function)
            }
    return found


def is_helper(name: str, skeleton: dict[str, Function]) -> bool:
    """A private function of the solution's own, which the skeleton need not have."""
    last = name.rpartition(".")[2]
    return name not in skeleton and last.startswith("_") and not last.startswith("__")


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """A body's statements after its docstring."""
    first = body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(
        getattr(first.value, "value", None), str
    )
    return body[1:] if is_docstring else body


def comments(source: str) -> list[tuple[int, str]]:
    """(line number, text) of every comment; a `#` inside a string is none."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def numbered(source: str, word: str) -> tuple[dict[str, list[int]], list[str]]:
    """The numbers of `# word n: …` comments by function, and what is wrong with such comments."""
    found: dict[str, list[int]] = {name: [] for name in functions(source)}
    defects = []
    for line, text in comments(source):
        match = re.fullmatch(rf"# {word} (\d+): \S.*", text)
        if match is None:
            if re.match(rf"#\s*{word}\b", text):
                defects.append(f"line {line}: {text!r} is not of the form '# {word} n: …'")
            continue
        owners = [
            name
            for name, node in functions(source).items()
            if node.lineno <= line <= (node.end_lineno or 0)
        ]
        if owners:
            found[owners[0]].append(int(match[1]))
        else:
            defects.append(f"line {line}: {text!r} stands in no function")
    return found, defects


# ---------------------------------------------------------------- the rules


def outline_defects(solution: str, skeleton: str) -> list[str]:
    """Same module docstring, classes with their fields, and public functions."""
    mine, theirs = outline(solution, skeleton), outline(skeleton, skeleton)
    # a skeleton also imports what only a hint uses
    lacks = imports(solution) - imports(skeleton)
    return [f"the skeleton does not import what the solution does: {lacks}"] * bool(lacks) + [
        f"{name}: solution {mine.get(name)!r}, skeleton {theirs.get(name)!r}"
        for name in mine | theirs
        if mine.get(name) != theirs.get(name)
    ]


def imports(source: str) -> set[str]:
    """The import statements of a file, one name each."""
    return {
        ast.unparse(type(node)(**{**vars(node), "names": [alias]}))
        for node in ast.parse(source).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }


def outline(source: str, skeleton: str) -> dict[str, object]:
    """Everything that the two files of a pair have to share."""
    tree = ast.parse(source)
    known = functions(skeleton)
    shared: dict[str, object] = {"module docstring": ast.get_docstring(tree, clean=False)}
    shared["top-level statements"] = [
        ast.unparse(node)
        for node in without_docstring(tree.body)
        if not isinstance(node, (ast.ClassDef, Function, ast.Import, ast.ImportFrom))
    ]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    shared["classes"] = [node.name for node in classes]
    for node in classes:
        shared[f"{node.name}'s bases"] = [ast.unparse(part) for part in node.bases + node.keywords]
        shared[f"{node.name}'s decorators"] = [ast.unparse(part) for part in node.decorator_list]
        shared[f"{node.name}'s docstring"] = ast.get_docstring(node, clean=False)
        shared[f"{node.name}'s fields"] = [
            ast.unparse(item)
            for item in without_docstring(node.body)
            if not isinstance(item, Function)
        ]
    shared["functions"] = [name for name in functions(source) if not is_helper(name, known)]
    for name, node in functions(source).items():
        if not is_helper(name, known):
            shared[f"{name}'s decorators"] = [ast.unparse(part) for part in node.decorator_list]
            returns = ast.unparse(node.returns) if node.returns else None
            shared[f"{name}'s signature"] = (ast.unparse(node.args), returns, type(node).__name__)
            shared[f"{name}'s docstring"] = ast.get_docstring(node, clean=False)
    return shared


def unfinished_defects(skeleton: str, given: set[str]) -> list[str]:
    """Every function that the learner writes holds nothing but the raise that names its TODO."""
    defects = []
    numbers, _ = numbered(skeleton, "TODO")
    for name, node in functions(skeleton).items():
        body = without_docstring(node.body)
        if name in given:
            if body or numbers[name]:
                defects.append(f"{name} is given, yet it has code or a TODO")
            continue
        if body and ast.unparse(body[0]) == "super().__init__()":
            body = body[1:]
        if not numbers[name]:
            defects.append(f"{name} has no TODO")
            continue
        want = f"TODO {numbers[name][0]}: "
        raised = ast.unparse(body[0]) if len(body) == 1 else ""
        if not re.fullmatch(rf"raise NotImplementedError\('{want}.+'\)", raised):
            defects.append(
                f"{name} must end in raise NotImplementedError({want + '…'!r}) and hold no other "
                f"code, but has {[ast.unparse(statement) for statement in body]}"
            )
    return defects


def numbering_defects(solution: str, skeleton: str) -> list[str]:
    """TODOs are 1 … N in file order, and each function's steps carry the same numbers."""
    todos, defects = numbered(skeleton, "TODO")
    steps, more = numbered(solution, "Step")
    defects += more
    flat = [number for numbers in todos.values() for number in numbers]
    if flat != list(range(1, len(flat) + 1)):
        defects.append(f"TODOs are numbered {flat}, not 1 … {len(flat)}")
    for name in todos | steps:
        if todos.get(name, []) != steps.get(name, []):
            defects.append(f"{name}: TODOs {todos.get(name, [])}, but steps {steps.get(name, [])}")
    for source, word in ((solution, "TODO"), (skeleton, "Step")):
        if any(numbered(source, word)[0].values()):
            defects.append(f"{word} comments in the wrong file of the two")
    return defects


def length_defects(solution: str, skeleton: str) -> list[str]:
    """Skeletons stay short, and lines fit the width of the house."""
    defects = []
    if len(skeleton.splitlines()) not in SKELETON_LINES:
        defects.append(
            f"the skeleton has {len(skeleton.splitlines())} lines, "
            f"not {SKELETON_LINES[0]} to {SKELETON_LINES[-1]}"
        )
    for where, source in (("solution", solution), ("skeleton", skeleton)):
        defects += [
            f"{where} line {number} has {len(line)} columns"
            for number, line in enumerate(source.splitlines(), 1)
            if len(line) > MAX_COLUMNS
        ]
    return defects


def squeezed(text: str) -> str:
    """Text without any space, so that a leak cannot hide behind its formatting."""
    return re.sub(r"\s+", "", text)


def body_lines(source: str) -> set[str]:
    """Code of the functions' bodies: each line and each whole statement, squeezed.

    Left out: docstrings, `super().__init__()`, and what is too short to give anything away.
    """
    code: set[str] = set()
    for node in functions(source).values():
        body = without_docstring(node.body)
        if not body:
            continue
        inside = range(body[0].lineno, (node.end_lineno or 0) + 1)
        cut = {line: text for line, text in comments(source) if line in inside}
        lines = source.splitlines()
        code |= {lines[line - 1].removesuffix(cut.get(line, "")) for line in inside}
        code |= {
            ast.unparse(statement)
            for part in body
            for statement in ast.walk(part)
            if isinstance(statement, ast.stmt) and not hasattr(statement, "body")
        }
    return {line for line in map(squeezed, code) if len(line) >= 8} - {"super().__init__()"}


def leak_defects(solution: str, skeleton: str, given: set[str]) -> list[str]:
    """No code line of the solution stands in the skeleton, as code, in a comment or in a message.

    Docstrings and signatures are published on purpose.
    """
    published: set[int] = set()
    for name, node in functions(skeleton).items():
        body = without_docstring(node.body)
        end = body[0].lineno if body else (node.end_lineno or 0) + 1
        todo = [line for line, _ in comments(skeleton) if node.lineno <= line < end]
        start = min(todo, default=end)
        if name not in given:
            published |= set(range(node.lineno, start))
    tree = ast.parse(skeleton)
    for node in [tree, *(part for part in tree.body if isinstance(part, ast.ClassDef))]:
        if len(without_docstring(node.body)) < len(node.body):
            published |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    rest = [line for number, line in enumerate(skeleton.splitlines(), 1) if number not in published]
    # a comment that runs over several lines is one text
    text = squeezed("\n".join(line.strip().removeprefix("#") for line in rest))
    return [f"the skeleton gives away {line!r}" for line in body_lines(solution) if line in text]


def signature(function: object) -> str:
    """A function's signature without annotations."""
    parsed = inspect.signature(getattr(function, "__func__", function))
    bare = [part.replace(annotation=part.empty) for part in parsed.parameters.values()]
    return str(parsed.replace(parameters=bare, return_annotation=parsed.empty))


def contract_defects(module: object, expected: dict[str, str | None]) -> list[str]:
    """The names and signatures of the contract, looked up in an imported file."""
    defects = []
    for name, want in expected.items():
        class_name, _, method = name.partition(".")
        owner = getattr(module, class_name, None) if method else module
        method = method or name
        if owner is None or not hasattr(owner, method):
            defects.append(f"{name} is missing")
        elif want is None:
            if method in vars(owner) and signature(vars(owner)[method]) != "(self)":
                defects.append(f"{name} takes arguments")
        elif signature(inspect.getattr_static(owner, method)) != want:
            got = signature(inspect.getattr_static(owner, method))
            defects.append(f"{name} is {got}, the contract says {want}")
    return defects


# ---------------------------------------------------------------- the pairs


def pair(problem: Problem) -> tuple[str, str]:
    """(solution, untouched skeleton) as text."""
    return problem.solution_path(ROOT).read_text(encoding="utf-8"), skeleton_text(problem)


def skeleton_text(problem: Problem) -> str:
    """The skeleton as published; problem.py may have been worked on."""
    return problem.skeleton_path(ROOT).read_text(encoding="utf-8")


def import_file(path: Path, name: str) -> object:
    """Run a file as a module of its own."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


each_pair = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.folder)


@each_pair
def test_same_outline(problem: Problem):
    """Catches a docstring, signature, import or field changed in only one of the two files."""
    assert not outline_defects(*pair(problem))


@each_pair
def test_functions_end_in_their_todo(problem: Problem):
    """Catches a skeleton that comes half solved, or whose error names another TODO."""
    assert not unfinished_defects(skeleton_text(problem), GIVEN.get(problem.number, set()))


@each_pair
def test_numbers_match(problem: Problem):
    """Catches a step added or removed in only one of the two files."""
    assert not numbering_defects(*pair(problem))


@each_pair
def test_lengths(problem: Problem):
    """Catches a skeleton that grows into a lecture, and lines that wrap."""
    assert not length_defects(*pair(problem))


@each_pair
def test_no_leak(problem: Problem):
    """Catches a TODO that is the answer itself."""
    assert not leak_defects(*pair(problem), GIVEN.get(problem.number, set()))


@each_pair
def test_skeleton_imports(problem: Problem):
    """Catches a skeleton that fails before the learner has written a line."""
    module = import_file(problem.skeleton_path(ROOT), f"skeleton_{problem.number}")
    assert all(hasattr(module, name) for name in problem.names)


@each_pair
def test_a_skeleton_imports_what_its_hints_use(problem: Problem):
    """Catches a hint's code that ends in a NameError when it is typed into the skeleton."""
    readme = problem.readme_path(ROOT).read_text(encoding="utf-8")
    hints = readme[readme.index("\n## Hints") :]
    used = set(re.findall(r"`[^`\n]*?\b(torch|math|F|nn|np|functools|itertools)\.", hints))
    skeleton = problem.skeleton_path(ROOT).read_text(encoding="utf-8")
    imported = {text.split()[-1] for text in imports(skeleton)}
    assert used <= imported


@each_pair
def test_problem_files_are_the_skeletons(problem: Problem):
    """Catches a skeleton changed in one of its two places; skips a file with a learner's code."""
    here = problem.problem_path(ROOT).read_text(encoding="utf-8")
    if is_worked_on(here, GIVEN.get(problem.number, set())):
        pytest.skip(f"{problem.problem_path(ROOT)} is being worked on")
    assert here == skeleton_text(problem)


def is_worked_on(source: str, given: set[str]) -> bool:
    """Whether somebody has begun to solve the problem in this file."""
    try:
        return bool(unfinished_defects(source, given))
    except (SyntaxError, tokenize.TokenError):
        return True


@each_pair
def test_contract(problem: Problem):
    """Catches an argument renamed, reordered or given another default, in both files at once."""
    expected = SIGNATURES[problem.number]
    constants = CONSTANTS.get(problem.number, {})
    known = expected.keys() | constants.keys() | {name.split(".")[0] for name in expected}
    assert set(problem.provides) <= known
    module = import_file(problem.solution_path(ROOT), f"solution_{problem.number}")
    assert not contract_defects(module, expected)
    assert {name: getattr(module, name) for name in constants} == constants


@each_pair
def test_attributes(problem: Problem):
    """Catches a module that was renamed: checkpoints and learners' later pieces would miss it."""
    module = import_file(problem.solution_path(ROOT), f"solution_{problem.number}")
    for construct, names in ATTRIBUTES[problem.number]:
        instance = eval(construct, vars(module))
        assert [name for name in names.split() if not hasattr(instance, name)] == []


@pytest.mark.parametrize("name", ["n_inner", "head_dim"])
def test_config_computes_its_widths(name: str):
    """Catches a derived width that became an argument, and so can disagree with n_embd."""
    module = import_file(PROBLEMS[8].solution_path(ROOT), "solution_9")
    assert isinstance(inspect.getattr_static(module.GPT2Config, name), property)


# ---------------------------------------------------------------- each rule can fail

SOLUTION = '''"""Problem 00: an example."""

import torch
from torch import Tensor, nn


class Twice(nn.Module):
    """Doubles: (C,) → (C,)."""

    factor: float = 2.0

    def __init__(self, n_embd: int, bias: float = 0.0):
        super().__init__()
        # Step 1: kept, because forward needs it
        self.bias = nn.Parameter(torch.full((n_embd,), bias))

    def forward(self, x: Tensor) -> Tensor:
        """2 x + bias: (C,) → (C,)."""
        # Step 2: one product
        y = self._scaled(x)
        # Step 3: shift last
        return y + self.bias

    def _scaled(self, x: Tensor) -> Tensor:
        return self.factor * x
'''
SKELETON = '''"""Problem 00: an example."""

import torch
from torch import Tensor, nn


class Twice(nn.Module):
    """Doubles: (C,) → (C,)."""

    factor: float = 2.0

    def __init__(self, n_embd: int, bias: float = 0.0):
        super().__init__()
        # TODO 1: create bias
        raise NotImplementedError("TODO 1: Twice.__init__")

    def forward(self, x: Tensor) -> Tensor:
        """2 x + bias: (C,) → (C,)."""
        # TODO 2: double
        # TODO 3: shift
        raise NotImplementedError("TODO 2: Twice.forward")
'''


def all_defects(solution: str, skeleton: str) -> dict[str, list[str]]:
    """What each rule says about a pair."""
    return {
        "outline": outline_defects(solution, skeleton),
        "unfinished": unfinished_defects(skeleton, set()),
        "numbering": numbering_defects(solution, skeleton),
        "length": length_defects(solution, skeleton),
        "leak": leak_defects(solution, skeleton, set()),
    }


def test_the_example_has_no_defect():
    """Catches a rule that is never content, which would make the tests below worthless."""
    assert not any(all_defects(SOLUTION, SKELETON).values())


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("outline", "an example", "another example"),
        ("outline", "import torch\n", ""),
        ("outline", "import torch\n", "import torch\n\nEPSILON = 1e-5\n"),
        ("outline", "class Twice(", "class Thrice("),
        ("outline", "(nn.Module)", "(torch.nn.Module)"),
        ("outline", "class Twice", "@torch.no_grad\nclass Twice"),
        ("outline", "Doubles", "Triples"),
        ("outline", "factor: float = 2.0", "factor: float = 3.0"),
        ("outline", "bias: float = 0.0", "bias: float = 1.0"),
        ("outline", "n_embd: int", "width: int"),
        ("outline", "x: Tensor) -> Tensor", "x: Tensor)"),
        ("outline", "2 x + bias", "2 x"),
        ("outline", "    def forward", "    @torch.no_grad()\n    def forward"),
        ("outline", "def forward", "def backward"),
        ("unfinished", 'raise NotImplementedError("TODO 2', 'raise NotImplementedError("TODO 3'),
        ("unfinished", 'raise NotImplementedError("TODO 2', 'raise ValueError("TODO 2'),
        ("unfinished", '        raise NotImplementedError("TODO 2: Twice.forward")\n', ""),
        ("unfinished", "        raise NotImplementedError(\"TODO 2", "        z = 0\n        raise "
         "NotImplementedError(\"TODO 2"),
        ("unfinished", "        # TODO 1: create bias\n", ""),
        ("numbering", "# TODO 3: shift", "# TODO 4: shift"),
        ("numbering", "        # TODO 3: shift\n", ""),
        ("numbering", "# TODO 1: create bias", "# TODO 2: create bias"),
        ("numbering", "2: double\n        # TODO 3: shift", "3: a\n        # TODO 2: b"),
        ("numbering", "# TODO 3: shift", "# TODO 3 shift"),
        ("numbering", "# TODO 3: shift", "# Step 3: shift"),
        ("numbering", "\n\nclass", "\n\n# TODO 0: begin\nclass"),
        ("length", "# TODO 2: double", "# TODO 2: double" + "!" * 80),
        ("length", '"""2 x + bias: (C,) → (C,)."""', '"""2 x + bias' + "\n" * 70 + '"""'),
        ("length", SKELETON, '"""Short."""\n'),
        ("leak", "# TODO 3: shift", "# TODO 3: return y+self.bias"),
        ("leak", "# TODO 3: shift", "# TODO 3: `return y\n        # + self.bias`"),
        ("leak", '"TODO 2: Twice.forward"', '"TODO 2: y = self._scaled(x)"'),
        ("leak", "        raise NotImplementedError(\"TODO 2", "        y = self._scaled(x)\n"
         "        raise NotImplementedError(\"TODO 2"),
        ("leak", "factor: float = 2.0", "factor: float = 2.0\n    # return y + self.bias"),
    ],
)  # fmt: skip
def test_a_spoilt_skeleton_is_found(rule: str, old: str, new: str):
    """Catches a rule that lets its own kind of mistake through."""
    assert old in SKELETON
    assert all_defects(SOLUTION, SKELETON.replace(old, new, 1))[rule]


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("outline", "    def _scaled", "    def scaled"),  # a public helper is part of the contract
        ("numbering", "        # Step 2: one product\n", ""),
        ("numbering", "# Step 3:", "# TODO 3:"),
        ("numbering", "        return self.f", "        # Step 4: x\n        return self.f"),
        ("length", "# Step 2: one product", "# Step 2: one product" + "." * 80),
    ],
)  # fmt: skip
def test_a_spoilt_solution_is_found(rule: str, old: str, new: str):
    """Catches a rule that looks at the skeleton alone."""
    assert old in SOLUTION
    assert all_defects(SOLUTION.replace(old, new, 1), SKELETON)[rule]


@pytest.mark.parametrize(
    ("old", "new", "worked_on"),
    [
        ("", "", False),
        ("# TODO 3: shift", "# TODO 3: move", False),
        ("# TODO 3: shift", "return x", True),
        ('raise NotImplementedError("TODO 1: Twice.__init__")', "self.bias = 0", True),
        ("n_embd: int", "n_embd: int)", True),
    ],
)
def test_work_of_a_learner_is_seen(old: str, new: str, worked_on: bool):
    """Catches a learner's file that is compared with the skeleton, or a skeleton that never is."""
    assert is_worked_on(SKELETON.replace(old, new, 1), set()) is worked_on


def test_a_given_function_may_hold_nothing():
    """Catches a place for another problem's work that has been filled in."""
    source = SKELETON + '\n    def later(self):\n        """Problem 11 writes it."""\n'
    assert not unfinished_defects(source, {"Twice.later"})
    assert unfinished_defects(source, set())
    assert unfinished_defects(source + "        return 1\n", {"Twice.later"})


@pytest.mark.parametrize(
    ("expected", "fits"),
    [
        ({"Twice.__init__": "(self, n_embd, bias=0.0)", "Twice.forward": "(self, x)"}, True),
        ({"Twice.__init__": "(self, n_embd, bias=0.5)"}, False),
        ({"Twice.__init__": "(self, bias=0.0, n_embd)"}, False),
        ({"Twice.__init__": None}, False),
        ({"Twice.backward": "(self, x)"}, False),
        ({"Thrice.forward": "(self, x)"}, False),
    ],
)
def test_a_broken_contract_is_found(tmp_path: Path, expected: dict[str, str | None], fits: bool):
    """Catches a comparison of signatures that accepts anything."""
    path = tmp_path / "solution.py"
    path.write_text(SOLUTION, encoding="utf-8")
    assert bool(contract_defects(import_file(path, "example"), expected)) is not fits
