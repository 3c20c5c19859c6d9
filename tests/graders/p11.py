"""Problem 11: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(11)

BOTH = "if isinstance(module, (nn.Linear, nn.Embedding)):"
NORMAL = "nn.init.normal_(module.weight, std=0.02)"
BIAS = "nn.init.zeros_(module.bias)\n        # Step 2"
IF_BIAS = 'if getattr(module, "bias", None) is not None:\n'
NORM = "elif isinstance(module, LayerNorm):"
ONES = "nn.init.ones_(module.weight)"
NORM_ZEROS = "nn.init.zeros_(module.bias)\n        # Step 3"
BLOCK = "elif isinstance(module, TransformerBlock):"
PAIR = "for projection in (module.attn.c_proj, module.mlp.c_proj):"
SCALED = "nn.init.normal_(projection.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))"


def scaled(std: str) -> tuple[str, str]:
    """Another standard deviation for the residual projections."""
    return SCALED, f"nn.init.normal_(projection.weight, std={std})"


def plain(std: str) -> tuple[str, str]:
    """Another standard deviation for the others."""
    return NORMAL, f"nn.init.normal_(module.weight, std={std})"


bank.wrong_edit("wrong-std", "std 0.2", plain("0.2"))
bank.wrong_edit("wrong-std", "std 0.002", plain("0.002"))
bank.wrong_edit("variance-as-std", "std 0.02²", plain("0.02**2"))
bank.wrong_edit("variance-as-std", "std √0.02", plain("math.sqrt(0.02)"))
bank.wrong_edit("std-one", "std not given", (NORMAL, "nn.init.normal_(module.weight)"))
bank.wrong_edit("std-by-width", "1/√n_embd", plain("self.config.n_embd**-0.5"))
bank.wrong_edit("std-by-width", "Xavier", (NORMAL, "nn.init.xavier_uniform_(module.weight)"))
bank.wrong_edit("std-by-width", "Xavier, normal", (NORMAL, "nn.init.xavier_normal_(module.weight)"))
bank.wrong_edit("std-by-width", "Kaiming", (NORMAL, "nn.init.kaiming_normal_(module.weight)"))
bank.wrong_edit(
    "uniform", "uniform ±0.02", (NORMAL, "nn.init.uniform_(module.weight, -0.02, 0.02)")
)
bank.wrong_edit(
    "uniform",
    "uniform with the right spread",
    (NORMAL, "nn.init.uniform_(module.weight, -0.02 * 3**0.5, 0.02 * 3**0.5)"),
)
bank.wrong_edit(
    "truncated-normal",
    "cut off at two standard deviations",
    (NORMAL, "nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)"),
)
bank.wrong_edit(
    "truncated-normal",
    "cut off at three standard deviations",
    (NORMAL, "nn.init.trunc_normal_(module.weight, std=0.02, a=-0.06, b=0.06)"),
)
bank.wrong_edit("wrong-mean", "mean 0.02", (NORMAL, "nn.init.normal_(module.weight, 0.02, 0.02)"))
bank.wrong_edit(
    "std-as-mean", "arguments swapped", (NORMAL, "nn.init.normal_(module.weight, 0.02, 1.0)")
)
bank.wrong_edit("zero-weights", "zeros", (NORMAL, "nn.init.zeros_(module.weight)"))
bank.wrong_edit("zero-weights", "a constant", (NORMAL, "nn.init.constant_(module.weight, 0.02)"))
bank.wrong_edit(
    "embeddings-skipped", "nn.Linear alone", (BOTH, "if isinstance(module, nn.Linear):")
)
bank.wrong_edit(
    "linear-skipped", "nn.Embedding alone", (BOTH, "if isinstance(module, nn.Embedding):")
)
bank.wrong_edit(
    "wpe-0.01",
    "0.01 for the positions",
    (
        NORMAL,
        "n = getattr(module, 'num_embeddings', 0)\n            nn.init.normal_(module.weight, std=0.01 if n == self.config.n_positions else 0.02)",
    ),
)
bank.wrong_edit("biases-not-zero", "biases left", (IF_BIAS, "if False:\n"))
bank.wrong_edit(
    "biases-not-zero",
    "biases normal",
    (BIAS, BIAS.replace("zeros_(module.bias)", "normal_(module.bias, std=0.02)")),
)
bank.wrong_edit("biases-not-zero", "biases 1", (BIAS, BIAS.replace("zeros_", "ones_")))
bank.wrong_edit(
    "bias-is-none",
    "lm_head's bias not expected to be None",
    (IF_BIAS, "if isinstance(module, nn.Linear):\n"),
)
bank.wrong_edit(
    "bias-is-none", "embeddings have no bias", (IF_BIAS, "if module.bias is not None:\n")
)
bank.wrong_edit("norm-weight", "norm weights 0", (ONES, "nn.init.zeros_(module.weight)"))
bank.wrong_edit(
    "norm-weight", "norm weights normal", (ONES, "nn.init.normal_(module.weight, std=0.02)")
)
bank.wrong_edit("norm-bias", "norm biases 1", (NORM_ZEROS, NORM_ZEROS.replace("zeros_", "ones_")))
bank.wrong_edit("norm-skipped", "norms left out", (NORM, "elif False:"))
bank.wrong_edit("norm-bias", "norm biases left", (NORM_ZEROS, "pass\n        # Step 3"))
bank.wrong_edit("residual-not-scaled", "no scaling", (BLOCK, "elif False:"))
bank.wrong_edit(
    "residual-not-scaled",
    "no scaling: names never match",
    (BLOCK, 'elif hasattr(module, "c_proj.weight"):'),
)
bank.wrong_edit("residual-root-n", "√n_layer", scaled("0.02 / math.sqrt(self.config.n_layer)"))
bank.wrong_edit("residual-no-root", "2·n_layer", scaled("0.02 / (2 * self.config.n_layer)"))
bank.wrong_edit("residual-no-root", "n_layer", scaled("0.02 / self.config.n_layer"))
bank.wrong_edit(
    "residual-multiplied", "times √(2·n_layer)", scaled("0.02 * math.sqrt(2 * self.config.n_layer)")
)
bank.wrong_edit(
    "residual-wrong-number", "n_head", scaled("0.02 / math.sqrt(2 * self.config.n_head)")
)
bank.wrong_edit("residual-wrong-number", "always 12 layers", scaled("0.02 / math.sqrt(2 * 12)"))
bank.wrong_edit("residual-wrong-number", "√2 alone", scaled("0.02 / math.sqrt(2)"))
bank.wrong_edit(
    "variance-as-std", "0.02²/(2·n_layer)", scaled("0.02**2 / (2 * self.config.n_layer)")
)
bank.wrong_edit("std-by-width", "1/√n_embd there", scaled("self.config.n_embd**-0.5"))
bank.wrong_edit(
    "residual-one-of-two", "attention only", (PAIR, "for projection in (module.attn.c_proj,):")
)
bank.wrong_edit(
    "residual-one-of-two", "feed-forward only", (PAIR, "for projection in (module.mlp.c_proj,):")
)
bank.wrong_edit(
    "scaled-everywhere", "every linear layer", plain("0.02 / math.sqrt(2 * self.config.n_layer)")
)
bank.wrong_edit(
    "scaled-everywhere",
    "c_attn instead of c_proj",
    (PAIR, "for projection in (module.attn.c_attn, module.mlp.c_proj):"),
)
bank.wrong_edit(
    "scaled-everywhere",
    "c_fc, too",
    (PAIR, "for projection in (module.attn.c_proj, module.mlp.c_proj, module.mlp.c_fc):"),
)
bank.wrong_edit(
    "residual-scaled-again",
    "divided at every level",
    (BLOCK, "else:"),
    (
        PAIR,
        'for projection in (p for n, p in module.named_parameters() if n.endswith("c_proj.weight")):',
    ),
    (SCALED, "projection.data /= math.sqrt(2 * self.config.n_layer)"),
)
bank.wrong_edit(
    "layers-differ",
    "scaled by the layer's own depth",
    (BLOCK, "elif isinstance(module, nn.ModuleList):"),
    (
        PAIR,
        "for depth, projection in ((i, p) for i, b in enumerate(module) for p in (b.attn.c_proj, b.mlp.c_proj)):",
    ),
    scaled("0.02 / math.sqrt(2 * (depth + 1))"),
)
bank.wrong_edit(
    "untied-head",
    "a new parameter",
    (NORMAL, "module.weight = nn.Parameter(torch.randn_like(module.weight) * 0.02)"),
    ("import math\n", "import math\n\nimport torch\n"),
)
bank.wrong_edit(
    "needs-no-grad", "normal_ on the parameter", (NORMAL, "module.weight.normal_(std=0.02)")
)
bank.wrong_edit(
    "reseeded",
    "a seed in each call",
    (NORMAL, "torch.manual_seed(42)\n            " + NORMAL),
    ("import math\n", "import math\n\nimport torch\n"),
)
bank.wrong_edit(
    "reseeded",
    "a new generator in each call",
    (
        NORMAL,
        "nn.init.normal_(module.weight, std=0.02, generator=torch.Generator().manual_seed(0))",
    ),
    ("import math\n", "import math\n\nimport torch\n"),
)
bank.wrong_edit(
    "reseeded",
    "a seed once per model",
    (
        BOTH,
        "if module is self.embeddings.wte:\n            torch.manual_seed(1337)\n        " + BOTH,
    ),
    ("import math\n", "import math\n\nimport torch\n"),
)
bank.wrong_edit(
    "repeated-rows",
    "one row for all",
    (NORMAL, "module.weight.data.copy_(torch.randn(module.weight.size(1)) * 0.02)"),
    ("import math\n", "import math\n\nimport torch\n"),
)
bank.wrong_edit(
    "wrong-mean", "absolute values", (NORMAL, NORMAL + "\n            module.weight.data.abs_()")
)
bank.wrong_edit(
    "not-a-parameter",
    "frozen",
    (NORMAL, NORMAL + "\n            module.weight.requires_grad_(False)"),
)
bank.wrong_edit(
    "rows-differ",
    "a row of zeros, as for padding",
    (NORMAL, NORMAL + "\n            module.weight.data[0] = 0"),
)
bank.wrong_edit(
    "residual-wrong-std", "0.02 left out", scaled("1 / math.sqrt(2 * self.config.n_layer)")
)
bank.wrong_edit("residual-wrong-std", "a fixed number", scaled("0.0049"))
bank.wrong_edit(
    "zero-weights", "the projections start at zero", (SCALED, "nn.init.zeros_(projection.weight)")
)
bank.wrong_edit(
    "layers-differ",
    "the first block alone",
    (PAIR, "for projection in (self.h[0].attn.c_proj, self.h[0].mlp.c_proj):"),
)
bank.wrong_edit(
    "norm-skipped", "PyTorch's LayerNorm looked for", (NORM, "elif type(module) is nn.LayerNorm:")
)
bank.wrong_edit(
    "not-normal",
    "a Laplace distribution",
    (
        NORMAL,
        "module.weight.data.copy_(torch.distributions.Laplace(0, 0.02 / 2**0.5).sample(module.weight.shape))",
    ),
    ("import math\n", "import math\n\nimport torch\n"),
)

bank.right_file(
    "by name, once, when apply reaches the model itself",
    """
    import torch
    import gpt2.model

    class GPT2Model(gpt2.model.GPT2Model):
        @torch.no_grad()
        def _init_weights(self, module):
            if module is not self:
                return
            for name, parameter in self.named_parameters():
                if name.endswith(".bias"):
                    parameter.zero_()
                elif ".ln_" in name or name.startswith("ln_f"):
                    parameter.fill_(1.0)
                else:
                    std = 0.02
                    if name.endswith("c_proj.weight"):
                        std *= (2 * len(self.h)) ** -0.5
                    parameter.normal_(0.0, std)
    """,
)
bank.right_file(
    ".data, and the projections scaled down by the modules that own them",
    """
    import math
    import torch
    from torch import nn
    import gpt2.model as m

    class GPT2Model(m.GPT2Model):
        def _init_weights(self, module):
            if isinstance(module, nn.Linear):
                module.weight.data.normal_(mean=0.0, std=0.02)
                if module.bias is not None:
                    module.bias.data.zero_()
            elif isinstance(module, nn.Embedding):
                module.weight.data.normal_(mean=0.0, std=0.02)
            elif isinstance(module, m.LayerNorm):
                module.bias.data.zero_()
                module.weight.data.fill_(1.0)
            if isinstance(module, (m.CausalMultiHeadAttention, m.FeedForward)):
                module.c_proj.weight.data /= math.sqrt(2 * self.config.n_layer)
    """,
)
bank.right_file(
    "copy_ from randn, as Hugging Face's older code goes through named_parameters",
    """
    import torch
    from torch import nn
    from gpt2.model import GPT2Model as Base, LayerNorm

    STD = 0.02

    def draw(parameter, std):
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape) * std)

    class GPT2Model(Base):
        def _init_weights(self, module):
            match module:
                case nn.Linear(bias=None) | nn.Embedding():
                    draw(module.weight, STD)
                case nn.Linear():
                    draw(module.weight, STD)
                    nn.init.constant_(module.bias, 0)
                case LayerNorm():
                    nn.init.constant_(module.weight, 1)
                    nn.init.constant_(module.bias, 0)
            for name, p in module.named_parameters():
                if name == "c_proj.weight":
                    nn.init.normal_(p, mean=0.0, std=STD / (2 * self.config.n_layer) ** 0.5)
    """,
)
bank.right_edit(
    "trunc_normal_ with its default bounds, which are 100 standard deviations away",
    (NORMAL, "nn.init.trunc_normal_(module.weight, std=0.02)"),
)
bank.right_edit(
    "the whole model's projections when apply reaches the list of blocks",
    (BLOCK, "elif isinstance(module, nn.ModuleList):"),
    (
        PAIR,
        "for projection in (p for block in module for p in (block.attn.c_proj, block.mlp.c_proj)):",
    ),
)

# ── written by somebody who had not seen the checks ─────────────────────────────────────────────

PLAIN = """
    import math
    import torch
    from torch import nn
    import gpt2.model
    from gpt2.model import LayerNorm

    class GPT2Model(gpt2.model.GPT2Model):
        def _init_weights(self, module):
            if isinstance(module, nn.Linear):
                std = 0.02
                if self._writes_into_stream(module):
                    std = 0.02 / math.sqrt(2 * self.config.n_layer)
                module.weight.data.normal_(mean=0.0, std=std)
                if module.bias is not None:
                    module.bias.data.zero_()
            elif isinstance(module, nn.Embedding):
                module.weight.data.normal_(mean=0.0, std=0.02)
            elif isinstance(module, LayerNorm):
                module.weight.data.fill_(1.0)
                module.bias.data.zero_()

        def _writes_into_stream(self, module):
            for block in self.h:
                if module is block.attn.c_proj or module is block.mlp.c_proj:
                    return True
            return False
"""
for mistake, title, old, new in (
    (
        "std-as-mean",
        "normal_(0.02) for embeddings",
        "data.normal_(mean=0.0, std=0.02)",
        "data.normal_(0.02)",
    ),
    (
        "std-as-mean",
        "normal_(std) for linear layers",
        "data.normal_(mean=0.0, std=std)",
        "data.normal_(std)",
    ),
    (
        "config-of-module",
        "module.config",
        "2 * self.config.n_layer",
        "2 * module.config.n_layer",
    ),
    (
        "mode-changed",
        "eval mode",
        "if isinstance(module, nn.Linear):",
        "module.eval()\n        if isinstance(module, nn.Linear):",
    ),
    (
        "grad-left-off",
        "gradients off for good",
        "if isinstance(module, nn.Linear):",
        "torch.set_grad_enabled(False)\n        if isinstance(module, nn.Linear):",
    ),
    (
        "layers-differ",
        "the last block forgotten",
        "for block in self.h:",
        "for block in self.h[:-1]:",
    ),
    (
        "reseeded",
        "a generator with the same seed for each weight",
        "std=std)",
        "std=std, generator=torch.Generator().manual_seed(0))",
    ),
    (
        "scaled-everywhere",
        "lm_head, and with it the embeddings, scaled as an output projection",
        "if module is block.attn.c_proj or",
        "if module is self.lm_head or module is block.attn.c_proj or",
    ),
):
    bank.wrong_edit(mistake, title, (old, new), base=PLAIN)
bank.right_file(
    "by the module's own name",
    """
    import math
    from torch import nn
    import gpt2.model
    from gpt2.model import LayerNorm

    class GPT2Model(gpt2.model.GPT2Model):
        def _init_weights(self, module):
            match module:
                case nn.Linear() | nn.Embedding():
                    name = next(n for n, m in self.named_modules() if m is module)
                    scale = math.sqrt(2 * len(self.h)) if name.endswith(".c_proj") else 1
                    module.weight.data = module.weight.data.normal_().mul_(0.02 / scale)
                    if isinstance(module, nn.Linear) and module.bias is not None:
                        nn.init.constant_(module.bias, 0.0)
                case LayerNorm():
                    nn.init.constant_(module.weight, 1.0)
                    nn.init.constant_(module.bias, 0.0)
    """,
)
bank.right_file(
    "the projections divided once, at their block; the tied head passed over",
    """
    import math
    from torch import nn
    import gpt2.model
    from gpt2.model import LayerNorm, TransformerBlock

    class GPT2Model(gpt2.model.GPT2Model):
        def _init_weights(self, module):
            if module is self.lm_head:
                return
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.weight.data.normal_(0.0, 0.02)
                if isinstance(module, nn.Linear):
                    module.bias.data.zero_()
            elif isinstance(module, LayerNorm):
                module.weight.data.fill_(1.0)
                module.bias.data.zero_()
            elif isinstance(module, TransformerBlock):
                for projection in (module.attn.c_proj, module.mlp.c_proj):
                    projection.weight.data.div_(math.sqrt(2 * self.config.n_layer))
    """,
)

# ── mistakes as public code has them, in other styles, and two at once
bank.wrong_edit(
    "reseeded",
    "a seed in each call, with the manual_seed first",
    (BOTH, "import torch\n\n        torch.manual_seed(42)\n        " + BOTH),
)
bank.wrong_edit(
    "reseeded",
    "a generator of seed 0 in each call",
    (
        NORMAL,
        "import torch\n\n            module.weight.data.copy_(torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(0)) * 0.02)",
    ),
    (
        SCALED,
        "import torch\n\n                projection.weight.data.copy_(torch.randn(projection.weight.shape, generator=torch.Generator().manual_seed(0)) * 0.02 / math.sqrt(2 * self.config.n_layer))",
    ),
)
bank.wrong_edit(
    "wrong-std",
    "Xavier with gain 0.02",
    (NORMAL, "nn.init.xavier_normal_(module.weight, gain=0.02)"),
)
bank.wrong_edit(
    "linear-skipped",
    "PyTorch's own reset",
    (NORMAL, "nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5))"),
)
bank.wrong_edit(
    "residual-root-n", "√n_layer, by a power", scaled("0.02 * self.config.n_layer**-0.5")
)
bank.wrong_edit(
    "residual-wrong-number", "√(2·n_embd)", scaled("0.02 / math.sqrt(2 * self.config.n_embd)")
)
bank.wrong_edit(
    "residual-multiplied", "0.02·√2·√n_layer", scaled("0.02 * (2 * self.config.n_layer) ** 0.5")
)
bank.wrong_edit(
    "biases-not-zero",
    "biases 0.02",
    (BIAS, BIAS.replace("nn.init.zeros_(module.bias)", "nn.init.constant_(module.bias, 0.02)")),
)
bank.wrong_edit(
    "norm-weight",
    "norm weights 0.02 wide",
    (ONES, "nn.init.normal_(module.weight, mean=1.0, std=0.02)"),
)
bank.wrong_edit(
    "wrong-std",
    "0.02 and 0.2 mixed up, biases left",
    plain("0.2"),
    (BIAS, "pass\n        # Step 2"),
    also="biases-not-zero",
)
bank.wrong_edit(
    "residual-one-of-two",
    "c_proj of the attention twice",
    (PAIR, "for projection in (module.attn.c_proj, module.attn.c_proj):"),
)
