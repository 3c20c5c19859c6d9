"""`learn_gpt2.assembly.assemble`: sources → model.py. Right answers in many styles must run in the
model as they ran alone; what can't be carried must be refused with file and line.
"""

import ast
import itertools
import shutil
import subprocess
import sys
import textwrap
import types
from dataclasses import replace
from pathlib import Path

import pytest

from learn_gpt2.assembly import sections as sec
from learn_gpt2.assembly.assemble import assemble
from learn_gpt2.checking.loading import execute
from learn_gpt2.manifest import MODEL_PROBLEMS

ROOT = Path(__file__).resolve().parents[3]
counter = itertools.count()


def reference(number: int) -> sec.Source:
    """The solution of one problem."""
    path = MODEL_PROBLEMS[number - 1].solution_path(ROOT)
    return sec.read_source(number, "reference", path, path.relative_to(ROOT).as_posix())


def sources(**texts: str) -> dict[int, sec.Source]:
    """The solutions, some of them replaced: sources(p03="…")."""
    found = {problem.number: reference(problem.number) for problem in MODEL_PROBLEMS}
    for key, text in texts.items():
        number = int(key[1:])
        path = f"problems/{MODEL_PROBLEMS[number - 1].folder}/problem.py"
        found[number] = sec.Source(number, "yours", path, textwrap.dedent(text), f"{number:07x}")
    return found


def run(text: str) -> types.ModuleType:
    """Import a model's text under a name of its own."""
    module = types.ModuleType(f"assembled_{next(counter)}")
    sys.modules[module.__name__] = module  # dataclasses look themselves up there
    execute(text, module.__name__, module)
    return module


def logits(module: types.ModuleType, like: types.ModuleType | None = None):
    """Logits of a tiny model with the weights of `like`'s: equal code gives equal ones."""
    import torch

    def make(m):
        torch.manual_seed(5)
        config = m.GPT2Config(vocab_size=13, n_positions=11, n_embd=6, n_layer=2, n_head=3)
        return m.GPT2Model(config).eval()

    model = make(module)
    if like is not None:
        weights = make(like).state_dict()
        model.load_state_dict({name: tensor * 5 for name, tensor in weights.items()})
    with torch.no_grad():
        return model(torch.arange(10).view(2, 5))


@pytest.fixture(scope="module")
def right() -> types.ModuleType:
    """The model that the solutions give."""
    return run(assemble(sources()))


def carried(right, **texts: str) -> tuple[str, types.ModuleType]:
    """Assemble with these pieces; the result must run like the reference, and split back."""
    import torch

    text = assemble(sources(**texts))
    module = run(text)
    torch.testing.assert_close(logits(module, right), logits(right, right))
    assert assemble(sec.split(text)) == text, "split and assemble must be inverse"
    return text, module


# --- the reference's file ---


def test_sections_stand_in_problem_order_and_name_their_sources():
    """A header that is missing, out of order, too wide or points to another line."""
    text = assemble(sources())
    found = sec.sections_of(text)
    assert [s.number for s in found] == list(range(1, 13))
    assert [s.indented for s in found] == [False] * 10 + [True, True]
    for section, problem in zip(found, MODEL_PROBLEMS, strict=True):
        assert section.path == f"solutions/{problem.folder}.py"
        line = (ROOT / section.path).read_text(encoding="utf-8").split("\n")[section.line - 1]
        assert line.strip()
        assert section.text.lstrip("\n").lstrip().startswith(line.strip())
    assert max(map(len, text.split("\n"))) <= 100


def test_ruff_has_nothing_to_say_about_it(tmp_path):
    """Import order, unused names, blank lines: what a linter would change in the written file."""
    ruff = shutil.which("ruff") or str(Path(sys.executable).with_name("ruff"))
    if not Path(ruff).exists():
        pytest.skip(f"ruff is not installed: looked on PATH and for {ruff}")
    folder = tmp_path / "src" / "gpt2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (folder / "model.py").write_text(assemble(sources()), encoding="utf-8")
    for command in (["check", "--no-cache"], ["format", "--no-cache", "--check", "--diff"]):
        done = subprocess.run([ruff, *command, "src"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_model_imports_nothing_of_the_curriculum():
    """A section that pulls in the runner or another problem's file."""
    for path in [None, ROOT / "src" / "gpt2" / "model.py"]:
        text = assemble(sources()) if path is None else path.read_text(encoding="utf-8")
        modules = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                modules.add(node.module)
        assert "gpt2.model" not in modules
        assert not {m.split(".")[0] for m in modules} & {"learn_gpt2", "problems", "solutions"}


def test_the_solutions_text_is_carried_unchanged():
    """A definition generated from its tree, or a comment lost on the way."""
    text = assemble(sources())
    for number in (1, 2, 3, 4, 5, 6, 7, 8, 9):
        source = reference(number).text
        start = min(n.lineno for n in ast.parse(source).body if isinstance(n, ast.ClassDef))
        if number == 9:
            start -= 1  # its decorator
        assert "\n".join(source.split("\n")[start - 1 :]).strip("\n") in text


def test_the_model_in_the_repository_runs_as_the_solutions_do(right):
    """gpt2.model differing from what the solutions give."""
    import torch

    import gpt2.model

    torch.testing.assert_close(logits(gpt2.model, right), logits(right, right))


# --- import styles ---

BLOCK = """
    class TransformerBlock(nn.Module):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, *, n_inner=None,
                     attn_dropout=None, layer_norm_epsilon=1e-5):
            super().__init__()
            self.ln_1 = {norm}(n_embd, layer_norm_epsilon)
            self.attn = {attn}(n_embd, n_head, n_positions, dropout, attn_dropout)
            self.ln_2 = {norm}(n_embd, layer_norm_epsilon)
            self.mlp = {mlp}(n_embd, n_inner or 4 * n_embd, dropout)

        def forward(self, x, cache=None):
            x = x + self.attn(self.ln_1(x), cache)
            return x + self.mlp(self.ln_2(x))
"""
STYLES = {
    "from": ("from gpt2.model import CausalMultiHeadAttention, FeedForward, LayerNorm", "{}"),
    "import": ("import gpt2.model", "gpt2.model.{}"),
    "import as": ("import gpt2.model as m", "m.{}"),
    "from package": ("from gpt2 import model", "model.{}"),
    "from package as": ("from gpt2 import cache, model as parts", "parts.{}"),
    "package": ("import gpt2", "gpt2.model.{}"),
    "package as": ("import gpt2 as g", "g.model.{}"),
    "from as": (
        "from gpt2.model import LayerNorm as X_LayerNorm, FeedForward as X_FeedForward\n"
        "    from gpt2.model import CausalMultiHeadAttention as X_CausalMultiHeadAttention",
        "X_{}",
    ),
}


@pytest.mark.parametrize("style", STYLES)
def test_import_styles_of_the_model(right, style):
    """A reference to an earlier piece left behind, or an import of gpt2.model that stays."""
    line, pattern = STYLES[style]
    words = {
        "norm": pattern.format("LayerNorm"),
        "attn": pattern.format("CausalMultiHeadAttention"),
        "mlp": pattern.format("FeedForward"),
    }
    piece = f"\n    {line}\n    from torch import nn\n\n" + BLOCK.format(**words)
    text, _ = carried(right, p08=piece)
    section = next(s for s in sec.sections_of(text) if s.number == 8).text
    assert "self.mlp = FeedForward(n_embd" in section
    assert "gpt2" not in section
    assert "from gpt2 import" not in text


def test_other_modules_of_the_package_stay_imported(right):
    """`gpt2.cache` losing its import together with `gpt2.model`, in the file or in a function."""
    piece = """
        import gpt2.cache, gpt2.model
        from torch import nn

        class SimpleAttention(nn.Module):
            kind = gpt2.cache.KVCache
            norm = gpt2.model.LayerNorm if "lazy" == 1 else None

            def both(self):
                import gpt2.model
                return gpt2.cache, gpt2.model.LayerNorm

            def none(self):
                from gpt2.model import LayerNorm
                from gpt2.model import FeedForward
    """
    text, module = carried(right, p02=piece.replace("gpt2.model.LayerNorm if", "None if"))
    assert "import gpt2.cache\n" in text
    cache, norm = module.SimpleAttention().both()
    assert cache.KVCache is module.SimpleAttention.kind
    assert norm is module.LayerNorm
    short = "import gpt2.model as m, gpt2 as g\nclass SimpleAttention:\n    kind = g.cache\n"
    assert run(assemble(sources(p02=short))).SimpleAttention.kind is cache


def test_imports_inside_functions(right):
    """An import of gpt2.model in a body: it must go, and the body must stay a body."""
    piece = """
        from torch import nn

        class TransformerBlock(nn.Module):
            def __init__(self, n_embd, n_head, n_positions, dropout=0.1, *, n_inner=None,
                         attn_dropout=None, layer_norm_epsilon=1e-5):
                import math; import gpt2.model
                from gpt2.model import LayerNorm  # the norm
                from gpt2.model import FeedForward as Mlp
                from gpt2 import cache, model as parts
                super().__init__()
                self.ln_1, self.ln_2 = (LayerNorm(n_embd, layer_norm_epsilon) for _ in "12")
                make = lambda: parts.CausalMultiHeadAttention(
                    n_embd, n_head, n_positions, dropout, attn_dropout)
                self.attn = make()
                self.mlp = Mlp(n_embd, 4 * n_embd if n_inner is None else n_inner, dropout)
                assert math.pi > 3 and cache.KVCache and isinstance(self.ln_1, gpt2.model.LayerNorm)
                self.check()

            def check(self):
                from gpt2.model import LayerNorm

            def forward(self, x, cache=None):
                x = x + self.attn(self.ln_1(x), cache)
                return x + self.mlp(self.ln_2(x))
    """
    text, _ = carried(right, p08=piece)
    assert "gpt2.model" not in text


# --- right answers in other styles ---

STYLED = {
    "assigned class": {
        "p07": """
            from torch import nn
            LayerNorm = nn.LayerNorm
            class ResidualBlock(nn.Module):
                def __init__(self, n, eps=1e-5):
                    super().__init__()
                    self.ln = LayerNorm(n, eps)
                def forward(self, x, sublayer): return x + sublayer(self.ln(x))
        """
    },
    "imported class": {
        "p07": """
            from torch import nn
            from torch.nn import LayerNorm
            class ResidualBlock(nn.Module):
                def forward(self, x, sublayer): return x + sublayer(self.ln(x))
        """
    },
    "subclass of PyTorch's, one line": {
        "p07": """
            import torch.nn as nn
            class LayerNorm(nn.LayerNorm): pass
            class ResidualBlock(nn.Module): ...
        """
    },
    "same name imported and subclassed": {
        "p07": """
            from torch.nn import LayerNorm, Module
            class LayerNorm(LayerNorm):
                '''Mine.'''
            class ResidualBlock(Module): ...
        """
    },
    "plain config class": {
        "p09": """
            class GPT2Config:
                def __init__(self, vocab_size=50257, n_positions=1024, n_embd=768, n_layer=12,
                             n_head=12, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1,
                             layer_norm_epsilon=1e-5):
                    for name, value in list(locals().items()):
                        if name != "self":
                            setattr(self, name, value)
                    self.n_inner, self.head_dim = 4 * n_embd, n_embd // n_head
        """
    },
    "helpers, constants and a base of their own": {
        "p06": """
            import math as maths
            from functools import partial as fix

            from torch import nn, tanh

            ROOT: float = maths.sqrt(2 / maths.pi)  # √(2/π)
            TABLE = []
            TABLE.append(0.044715)
            UNUSED = print

            def cubic(x):
                # the polynomial
                return x + TABLE[0] * x ** 3

            class _Base(nn.Module):
                SCALE = 0.5
                @staticmethod
                def half(x): return _Base.SCALE * x

            class NewGELU(_Base):
                def forward(self, x):
                    return self.half(x) * (1 + tanh(ROOT * cubic(x)))

            if maths.pi > 3:
                make = fix(nn.Linear, bias=True)
            else:
                def make(*a): raise ValueError

            class FeedForward(_Base):
                def __init__(self, n_embd, n_inner, dropout=0.1):
                    super().__init__()
                    self.c_fc, self.c_proj = make(n_embd, n_inner), make(n_inner, n_embd)
                    self.act, self.drop = NewGELU(), nn.Dropout(dropout)
                def forward(self, x):
                    return self.drop(self.c_proj(self.act(self.c_fc(x))))

            def test_it():
                print("left behind")

            print(NewGELU()(nn.Parameter(tanh(__import__("torch").ones(1)))))
            if __name__ == "__main__":
                test_it()
        """
    },
}


@pytest.mark.parametrize("style", STYLED)
def test_right_answers_in_other_styles(right, style):
    """A style of writing a piece that the assembler does not carry."""
    carried(right, **STYLED[style])


@pytest.mark.parametrize("number", range(1, 13))
def test_right_answers_of_the_graders_run_in_the_model(right, number):
    """An answer that passes its checks and then does something else inside the model."""
    from tests.graders import bank

    if not (ROOT / "tests" / "graders" / f"p{number:02d}.py").exists():
        pytest.skip(f"problem {number:02d} has no bank yet")
    for answer in bank.load(number).right:
        carried(right, **{f"p{number:02d}": answer.source})


def test_only_what_is_needed_goes_along(right):
    """Prints, tests and the main guard in the model; a needed constant or comment left out."""
    text, module = carried(right, **STYLED["helpers, constants and a base of their own"])
    assert "left behind" not in text
    assert "__main__" not in text
    assert "UNUSED" not in text
    assert "TABLE.append(0.044715)" in text
    assert "# the polynomial" in text
    assert "import math as maths" in text
    assert module.TABLE == [0.044715]


# --- clashes ---


def test_helpers_of_the_same_name_do_not_clash(right):
    """Two pieces with a function, constant or class of one name: the later must not win for both,
    nor a parameter, keyword, attribute, string or f-string text of that name be renamed.
    """
    piece3 = """
        import math
        import torch
        from torch import nn

        FACTOR = -0.5

        def _helper(q, k):
            return q @ k.transpose(-2, -1) * q.shape[-1] ** FACTOR

        class ScaledDotProductAttention(nn.Module):
            def __init__(self, n_embd, dropout=0.1):
                super().__init__()
                self.dropout = nn.Dropout(dropout)

            def forward(self, q, k, v, mask=None):
                scores = _helper(q, k)
                if mask is not None:
                    scores = scores.masked_fill(~mask, float("-inf"))
                weights = self.dropout(torch.softmax(scores, -1))
                return weights @ v, weights
    """
    piece6 = """
        import torch.nn.functional as math
        from torch import nn

        FACTOR = "FACTOR"

        def _helper(_helper=1, *, FACTOR=2):
            '''_helper and FACTOR in a string.'''
            return f"_helper {_helper} {FACTOR!r:>{FACTOR}} {{FACTOR}}"

        class Outer:
            FACTOR = FACTOR
            def _helper(self): return _helper(FACTOR=3) + self.FACTOR + FACTOR

        def counted():
            global FACTOR
            FACTOR = FACTOR + "!"
            return [FACTOR for FACTOR in (1,)], f"é {FACTOR} {'FACTOR' + FACTOR}"

        class NewGELU(nn.Module):
            outer, helper, counted = Outer, _helper, counted
            def forward(self, x): return math.gelu(x, approximate="tanh")

        class FeedForward(nn.Module):
            def __init__(self, n_embd, n_inner, dropout=0.1):
                super().__init__()
                self.c_fc, self.c_proj = nn.Linear(n_embd, n_inner), nn.Linear(n_inner, n_embd)
                self.act, self.drop = NewGELU(), nn.Dropout(dropout)
            def forward(self, x): return self.drop(self.c_proj(self.act(self.c_fc(x))))
    """
    _, module = carried(right, p03=piece3, p06=piece6)
    gelu = module.NewGELU
    assert module.FACTOR == -0.5
    assert gelu.outer()._helper() == "_helper 1   3 {FACTOR}" + "FACTORFACTOR"
    assert gelu.helper.__doc__ == "_helper and FACTOR in a string."
    assert gelu.counted() == ([1], "é FACTOR! FACTORFACTOR!")
    assert module.FACTOR == -0.5, "the global statement must follow the renaming"


def test_names_of_other_problems_and_builtins_are_not_taken_away(right):
    """A helper called as another problem's class, or as a builtin, that replaces it for all."""
    piece = """
        import torch
        from torch import nn
        from math import pow, sqrt as abs

        class LayerNorm(nn.Module):
            '''Mine, and no layer norm.'''

        def enumerate(x): return x
        def GPT2Model(): raise ValueError
        def FeedForward(): return abs(4.0) + pow(2, 1)
        isinstance = None

        class ScaledDotProductAttention(nn.Module):
            extra = LayerNorm
            def __init__(self, n_embd, dropout=0.1):
                super().__init__()
                self.scale = n_embd ** -0.5
                self.dropout = nn.Dropout(dropout)
                self.four = enumerate(FeedForward()), GPT2Model, isinstance
            def forward(self, q, k, v, mask=None):
                scores = q @ k.transpose(-2, -1) * self.scale
                if mask is not None:
                    scores = scores.masked_fill(~mask, float("-inf"))
                weights = torch.softmax(scores, -1)
                return weights @ v, weights
    """
    _, module = carried(right, p03=piece)
    attention = module.ScaledDotProductAttention(4)
    assert attention.extra.__doc__ == "Mine, and no layer norm."
    assert attention.four[0] == 4.0
    assert not hasattr(module, "isinstance")
    assert not hasattr(module, "pow")


def test_a_local_name_does_not_hide_the_class(right):
    """`LayerNorm = gpt2.model.LayerNorm` in a function: as bare names it would be unbound."""
    block = """
        import gpt2.model
        from torch import nn

        LayerNorm = gpt2.model.LayerNorm

        class TransformerBlock(nn.Module):
            FeedForward = gpt2.model.FeedForward

            def __init__(self, n_embd, n_head, n_positions, dropout=0.1, *, n_inner=None,
                         attn_dropout=None, layer_norm_epsilon=1e-5):
                super().__init__()
                CausalMultiHeadAttention = gpt2.model.CausalMultiHeadAttention
                def attention():
                    return CausalMultiHeadAttention(n_embd, n_head, n_positions, dropout)
                self.attn = attention()
                self.ln_1, self.ln_2 = LayerNorm(n_embd), LayerNorm(n_embd)
                self.mlp = self.FeedForward(n_embd, 4 * n_embd, dropout)

            def forward(self, x, cache=None):
                x = x + self.attn(self.ln_1(x), cache)
                return x + self.mlp(self.ln_2(x))
    """
    carried(right, p08=block)


def test_the_same_thing_imported_in_two_ways_is_one_import(right):
    """`import torch.nn as nn` beside `from torch import nn` taken for a clash."""
    piece = """
        import torch, torch.nn as nn
        from torch.nn import functional as F

        class SimpleAttention(nn.Module):
            def forward(self, x): return F.softmax(torch.ones(1))
    """
    text, _ = carried(right, p02=piece)
    assert "nn_0" not in text
    assert "F_0" not in text


def test_future_annotations_hold_for_the_whole_file(right):
    """An annotation that only works unevaluated."""
    piece = """
        from __future__ import annotations
        from torch import nn

        class SimpleAttention(nn.Module):
            def forward(self, x: NoSuchName) -> Neither: return x
    """
    text, _ = carried(right, p02=piece)
    assert ast.parse(text).body[1].module == "__future__"


# --- problems 11 and 12 ---

INIT = """
    import math
    from torch import nn
    import gpt2.model
    from gpt2.model import LayerNorm as Norm, TransformerBlock

    STD = 0.02
    {extra}
    class GPT2Model(gpt2.model.GPT2Model):
        '''Adds initial weights.'''
        RESIDUAL = ("attn", "mlp")

        def _init_weights(self, module: nn.Module) -> None:
            {first}
            if isinstance(module, (nn.Linear, nn.Embedding)):
                self._normal(module.weight, STD)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, Norm):
                nn.init.ones_(module.weight)
            elif isinstance(module, TransformerBlock):
                for part in self.RESIDUAL:
                    weight = getattr(module, part).c_proj.weight
                    self._normal(weight, STD / math.sqrt(2 * self.config.n_layer))

        @staticmethod
        def _normal(weight, std):
            nn.init.normal_(weight, std=std)

        class Nested:
            value = 7
"""


def init_piece(extra: str = "", first: str = "pass") -> str:
    """A right answer to problem 11."""
    return textwrap.dedent(INIT).format(extra=extra, first=first)


def test_methods_of_11_and_12_fill_the_class(right):
    """Constants, static methods, nested classes or helpers of problem 11 that don't come along."""
    text, module = carried(right, p11=init_piece())
    assert [s.number for s in sec.sections_of(text)] == [*range(1, 10), 11, 10, 11, 12]
    assert text.count("class GPT2Model") == 1
    assert "gpt2.model" not in text
    assert module.GPT2Model.Nested.value == 7
    assert (logits(module) == logits(right)).all(), "the same seed must give the same weights"


def test_helpers_after_the_class_and_other_indentation(right):
    """Two-space methods in a four-space class; docstrings must keep their own indentation."""
    piece = '''
from torch import nn
from gpt2.model import GPT2Model, LayerNorm, TransformerBlock
class GPT2Model(GPT2Model):
  # first a comment
  def _init_weights(self, module):
    """Doc
  less indented
    """
    text = """
  x"""
    if isinstance(module, (nn.Linear,
  nn.Embedding)):
      _set(module, self.config)
    if isinstance(module, TransformerBlock):
      nn.init.normal_(module.attn.c_proj.weight, std=0.02 / (2 * self.config.n_layer) ** .5)
      nn.init.normal_(module.mlp.c_proj.weight, std=0.02 / (2 * self.config.n_layer) ** .5)
    self.text = text

def _set(module, config):
  nn.init.normal_(module.weight, std=0.02)
  if getattr(module, "bias", None) is not None:
    nn.init.zeros_(module.bias)
'''
    text, module = carried(right, p11=piece)
    assert "\n    # first a comment\n    def _init_weights" in text
    # the text, and not __doc__: since Python 3.13 the compiler takes a docstring's indentation away
    method = next(
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == "_init_weights"
    )
    assert ast.get_docstring(method, clean=False) == "Doc\n  less indented\n    "
    config = module.GPT2Config(vocab_size=3, n_positions=2, n_embd=2, n_layer=1, n_head=1)
    assert module.GPT2Model(config).text == "\n  x"
    assert (logits(module) == logits(right)).all()


SUBCLASSES = {
    "super": init_piece(first="super()._init_weights(module)"),
    "super with arguments": init_piece(first="super(GPT2Model, self)._init_weights(module)"),
    "base by name": init_piece(first="gpt2.model.GPT2Model._init_weights(self, module)"),
    "mixin": init_piece().replace(
        "class GPT2Model(gpt2.model.GPT2Model)", "class _Init(gpt2.model.GPT2Model)"
    )
    + "\nclass GPT2Model(_Init):\n    pass\n",
    "own __init__": init_piece()
    + "    def __init__(self, config):\n        super().__init__(config)\n        self.extra = 1\n",
    "annotation": init_piece()
    + "    def twin(self) -> gpt2.model.GPT2Model:\n        return type(self)(self.config)\n",
    "class method added later": init_piece() + "\nGPT2Model.extra = 3\n",
}


@pytest.mark.parametrize("style", SUBCLASSES)
def test_what_only_a_subclass_can_do_stays_one(right, style):
    """Methods moved into the class where `super()` or the base's name would then mean another."""
    text, module = carried(right, p11=SUBCLASSES[style])
    assert (logits(module) == logits(right)).all()
    assert [s.number for s in sec.sections_of(text)] == list(range(1, 13))
    assert module.GPT2Model._build_weight_mapping(1)


def test_private_names_of_10_and_11_do_not_clash(right):
    """A private method of problem 11 that replaces problem 10's of the same name."""
    ten = reference(10).text.replace(
        "        self.apply(self._init_weights)",
        "        self._normal(); self.apply(self._init_weights)",
    )
    ten += "\n    def _normal(self):\n        self.was_normal = True\n"
    _, module = carried(right, p10=ten, p11=init_piece())
    config = module.GPT2Config(vocab_size=3, n_positions=2, n_embd=2, n_layer=1, n_head=1)
    assert module.GPT2Model(config).was_normal
    assert (logits(module) == logits(right)).all()


TENS = {
    "assigned": "\nclass _Core(nn.Module):{body}\n\nGPT2Model = _Core\n",
    "helper behind": "\nclass GPT2Model(nn.Module):{body}\n\ndef _table():\n    return 3\n",
    "decorated": "\n@_same\nclass GPT2Model(\n    nn.Module,  # the base\n):{body}\n",
}


@pytest.mark.parametrize("style", TENS)
def test_other_forms_of_problem_10(right, style):
    """A class of problem 10 that 11 and 12 can't be put into, or what stands behind it lost."""
    head, _, body = reference(10).text.partition("class GPT2Model(nn.Module):")
    body = body.replace("self.config = config", "self.config = config; self.three = _table()")
    helpers = "" if style == "helper behind" else "def _table():\n    return 3\n\n"
    ten = head + helpers + "def _same(x): return x\n" + TENS[style].format(body=body)
    eleven = reference(11).text.replace(
        "(gpt2.model.GPT2Model):", "(\n    gpt2.model.GPT2Model\n):"
    )
    eleven = eleven.replace('    """Problem 10', '    # """Problem 10')
    _, module = carried(right, p10=ten, p11=eleven)
    config = module.GPT2Config(vocab_size=3, n_positions=2, n_embd=2, n_layer=1, n_head=1)
    assert module.GPT2Model(config).three == 3
    assert (logits(module) == logits(right)).all()


def test_a_no_op_of_problem_10_gives_way(right):
    """The given `_init_weights` of problem 10 left standing behind problem 11's."""
    text, _ = carried(right, p10=reference(10).text, p11=reference(11).text)
    assert text.count("def _init_weights") == 1


# --- text that is not quite Python, or not quite text ---


def test_line_ends_mark_and_tabs(right, tmp_path):
    """Windows line ends, a byte-order mark, tabs: all must give one plain file."""
    path = tmp_path / "problem.py"
    for number in (3, 11, 12):
        text = "\ufeff" + reference(number).text.replace("    ", "\t").replace("\n", "\r\n")
        path.write_bytes(text.encode("utf-8"))
        source = sec.read_source(number, "yours", path, "problem.py")
        pieces = sources()
        pieces[number] = source
        whole = assemble(pieces)
        assert "\r" not in whole
        assert "\ufeff" not in whole
        assert (logits(run(whole)) == logits(right)).all()
        unix = sec.Source(number, "yours", "problem.py", source.text)
        path.write_bytes(unix.text.encode("utf-8"))
        assert sec.read_source(number, "yours", path, "problem.py").digest == source.digest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x = 1\ny = '\xe9'\n", "p.py:2: byte 0xe9 is not utf-8"),
        ("x = 1\n".encode("utf-16"), "p.py:1: the file is UTF-16"),
        (b"# coding: nonsense\n", "p.py:1: unknown encoding"),
        (b"#" * 1_000_001, "1,000,001 bytes"),
    ],
)
def test_files_that_are_no_text(tmp_path, data, message):
    """A decoding error without file and line."""
    path = tmp_path / "p.py"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        sec.read_source(1, "yours", path, "p.py")


REFUSED = {
    "syntax": (1, "\nclass Embeddings(:\n", r"problem\.py:2: invalid syntax"),
    "null": (1, "\0", r"problem\.py"),
    "star": (8, "from gpt2.model import *\n", r"problem\.py:1: `from gpt2\.model import \*` hides"),
    "relative": (8, "from . import x\n", r"problem\.py:1: relative imports"),
    "missing": (
        5,
        "class CausalMultiheadAttention: ...\n",
        r"no class CausalMultiHeadAttention, .*Mu",
    ),
    "own answer": (
        7,
        "import gpt2.model\nclass LayerNorm(gpt2.model.LayerNorm): ...\nclass ResidualBlock: ...\n",
        r"problem\.py:2: takes LayerNorm from gpt2\.model: that is what",
    ),
    "no such name": (
        1,
        "from gpt2.model import Embedding as E\nclass Embeddings(E): ...\n",
        r"problem\.py:2: takes Embedding from gpt2\.model, which no problem provides",
    ),
    "module as a value": (
        8,
        "import gpt2.model\nclass TransformerBlock:\n    m = vars(gpt2.model)\n",
        r"problem\.py:3: uses the module gpt2 itself",
    ),
    "assignment": (
        8,
        "import gpt2.model as m\nclass TransformerBlock:\n    m.LayerNorm = 3\n",
        r"problem\.py:3: assigns to m\.LayerNorm",
    ),
    "curriculum": (
        1,
        "from torch import nn\nfrom learn_gpt2 import manifest\nclass Embeddings: m = manifest\n",
        r"problem\.py:2: imports learn_gpt2",
    ),
    "bound twice": (
        8,
        "from gpt2.model import LayerNorm\nLayerNorm = LayerNorm\nclass TransformerBlock: ...\n",
        r"problem\.py:2: binds LayerNorm",
    ),
    "parameter": (
        8,
        "import gpt2.model\nclass TransformerBlock:\n"
        "    def f(self, LayerNorm): return gpt2.model.LayerNorm\n",
        r"problem\.py:3: LayerNorm of gpt2\.model is hidden",
    ),
    "method missing": (
        11,
        "import gpt2.model\nclass GPT2Model(gpt2.model.GPT2Model):\n    def init(self): ...\n",
        r"problem\.py:2: GPT2Model has no _init_weights, which problem 11",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_carried_is_refused_by_line(case):
    """A piece that is dropped or broken in silence instead of refused by name."""
    number, text, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        assemble(sources(**{f"p{number:02d}": text}))


def test_unused_oddities_do_not_refuse_a_piece(right):
    """Scratch code below a right answer that makes the assembler refuse it."""
    scratch = """
import gpt2.model, learn_gpt2.manifest
def scratch():
    print(vars(gpt2.model), learn_gpt2)
if __name__ == "__main__":
    gpt2.model.LayerNorm = 3
    scratch()
"""
    text, _ = carried(right, p01=reference(1).text + scratch)
    assert "scratch" not in text


def test_a_long_path_is_cut_in_the_header():
    """A header wider than the house's 100 columns, or one that can't be read back."""
    source = replace(reference(7), owner="file", path="/a" * 90 + "/p.py", digest="0123abc")
    header = sec.section_header(source, 1234)
    assert len(header) <= 100
    assert sec.HEADER.fullmatch(header)["line"] == "1234"
