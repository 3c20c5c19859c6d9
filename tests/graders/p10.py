"""Problem 10: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(10)

CONFIG = "self.config = config\n"
POSITIONS = "config.n_positions, config.n_embd, config.embd_pdrop"
LIST = "self.h = nn.ModuleList("
LAYERS = "for _ in range(config.n_layer)\n"
RESID = "                config.resid_pdrop,\n"
ATTN = "attn_dropout=config.attn_pdrop,"
EPS_BLOCK = "layer_norm_epsilon=config.layer_norm_epsilon,"
NORM = "self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)"
HEAD = "self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)"
TIE = "self.lm_head.weight = self.embeddings.wte.weight"
APPLY = "self.apply(self._init_weights)"
EMBED = "x = self.embeddings(input_ids, 0 if cache is None else cache.length)"
LOOP = "for i, block in enumerate(self.h):"
BLOCK = "x = block(x, None if cache is None else cache.layers[i])"
LAST = "x = x[:, -1:]"
IF_LAST = "        if last_only:\n            x = x[:, -1:]  # (B, 1, C)\n"
RETURN = "return self.lm_head(self.ln_f(x))"
CHECK = "if input_ids.dim() != 2 or not whole_numbers or input_ids.numel() == 0:"
IS_TENSOR = "if not isinstance(input_ids, Tensor):"


def blocks(expression: str) -> str:
    """The solution with `h` made by another expression around the same block."""
    start = bank.solution.index(LIST)
    end = bank.solution.index("        # Step 3")
    return bank.solution[:start] + expression + "\n" + bank.solution[end:]


ONE_BLOCK = (
    "TransformerBlock(config.n_embd, config.n_head, config.n_positions, config.resid_pdrop, "
    "n_inner=config.n_inner, attn_dropout=config.attn_pdrop, "
    "layer_norm_epsilon=config.layer_norm_epsilon)"
)

# ── __init__ ────────────────────────────────────────────────────────────────────────────────────

bank.wrong_edit("missing-attribute", "config not kept", (CONFIG, "self._config = config\n"))
bank.wrong_edit(
    "config-not-kept", "config kept as a dict", (CONFIG, "self.config = dict(vars(config))\n")
)
bank.wrong_edit(
    "arguments-swapped",
    "V and P swapped",
    (
        "            config.vocab_size, config.n_positions,",
        "            config.n_positions, config.vocab_size,",
    ),
)
bank.wrong_edit(
    "embd-pdrop-not-passed",
    "embd_pdrop not passed",
    (POSITIONS, "config.n_positions, config.n_embd"),
)
bank.wrong_edit(
    "pdrops-swapped",
    "resid_pdrop for the embeddings",
    (POSITIONS, POSITIONS.replace("embd_pdrop", "resid_pdrop")),
)
bank.wrong_edit("pdrops-swapped", "attn_pdrop for resid", (RESID, RESID.replace("resid", "attn")))
bank.wrong_edit("resid-pdrop-not-passed", "0.1 for resid_pdrop", (RESID, "                0.1,\n"))
bank.wrong_edit("attn-pdrop-not-passed", "attn_pdrop not passed", (ATTN, ""))
bank.wrong_edit("attn-pdrop-not-passed", "0.1 for attn_pdrop", (ATTN, "attn_dropout=0.1,"))
bank.wrong_edit(
    "pdrops-swapped", "embd_pdrop for attn_pdrop", (ATTN, "attn_dropout=config.embd_pdrop,")
)
bank.wrong_edit("eps-not-passed", "eps not passed to the blocks", (EPS_BLOCK, ""))
bank.wrong_edit(
    "eps-not-passed",
    "eps not passed to ln_f",
    (NORM, NORM.replace(", config.layer_norm_epsilon", "")),
)
bank.wrong_edit("plain-list", "a plain list", (LIST, "self.h = list("))
bank.wrong_edit("plain-list", "a tuple", (LIST, "self.h = tuple("))
bank.wrong_edit(
    "wrong-layer-count", "n_layer − 1 blocks", (LAYERS, "for _ in range(config.n_layer - 1)\n")
)
bank.wrong_edit(
    "wrong-layer-count", "n_layer + 1 blocks", (LAYERS, "for _ in range(config.n_layer + 1)\n")
)
bank.wrong_edit("wrong-layer-count", "always 12", (LAYERS, "for _ in range(12)\n"))
bank.wrong_edit("wrong-layer-count", "n_head blocks", (LAYERS, "for _ in range(config.n_head)\n"))
bank.wrong_edit(
    "shared-blocks",
    "[block] * n",
    base=blocks(f"        self.h = nn.ModuleList([{ONE_BLOCK}] * config.n_layer)".strip()),
)
bank.wrong_edit(
    "arguments-swapped",
    "the block is given the config",
    base=blocks("self.h = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layer))"),
)
bank.wrong_edit(
    "n-head-not-passed",
    "n_layer heads",
    base=blocks(
        f"self.h = nn.ModuleList({ONE_BLOCK.replace('config.n_head', 'config.n_layer')} for _ in range(config.n_layer))"
    ),
)
bank.wrong_edit("head-bias", "the head has a bias", (HEAD, HEAD.replace(", bias=False", "")))
bank.wrong_edit(
    "head-sizes-swapped",
    "Linear(V, C)",
    (HEAD, "self.lm_head = nn.Linear(config.vocab_size, config.n_embd, bias=False)"),
)
bank.wrong_edit("untied-head", "not tied", (TIE, "pass"))
bank.wrong_edit(
    "copied-head",
    "clone",
    (TIE, "self.lm_head.weight = nn.Parameter(self.embeddings.wte.weight.clone())"),
)
bank.wrong_edit(
    "copied-head",
    "copy_",
    (
        TIE,
        "with torch.no_grad():\n            self.lm_head.weight.copy_(self.embeddings.wte.weight)",
    ),
)
bank.wrong_edit(
    "shared-data-only", ".data", (TIE, "self.lm_head.weight.data = self.embeddings.wte.weight.data")
)
bank.wrong_edit(
    "shared-data-only",
    "a new Parameter around it",
    (TIE, "self.lm_head.weight = nn.Parameter(self.embeddings.wte.weight)"),
)
bank.wrong_edit("init-not-applied", "apply forgotten", (APPLY, "pass"))
bank.wrong_edit(
    "init-not-applied", "called once, for the model", (APPLY, "self._init_weights(self)")
)
bank.wrong_edit(
    "init-too-early",
    "apply before ln_f",
    (NORM, APPLY + "\n        " + NORM),
    (f"        {APPLY}\n\n", "\n"),
)
bank.wrong_edit(
    "init-order",
    "parents before children",
    (APPLY, "for module in self.modules():\n            self._init_weights(module)"),
)
bank.wrong_edit(
    "missing-attribute",
    "another name for the blocks",
    (LIST, "self.blocks = nn.ModuleList("),
    (LOOP, LOOP.replace("self.h", "self.blocks")),
)
bank.wrong_edit(
    "extra-state",
    "a buffer of positions",
    (
        APPLY,
        f'self.register_buffer("positions", torch.arange(config.n_positions))\n        {APPLY}',
    ),
)
bank.wrong_edit("super-init-missing", "no super().__init__()", ("        super().__init__()\n", ""))

# ── forward ─────────────────────────────────────────────────────────────────────────────────────

bank.wrong_edit("no-final-norm", "no ln_f", (RETURN, "return self.lm_head(x)"))
bank.wrong_edit(
    "final-norm-before-blocks",
    "ln_f before the blocks",
    (EMBED, f"x = self.ln_f({EMBED.removeprefix('x = ')})"),
    (RETURN, "return self.lm_head(x)"),
)
bank.wrong_edit(
    "final-norm-in-loop",
    "ln_f after every block",
    (BLOCK, BLOCK.replace("block(", "self.ln_f(block(") + ")"),
    (RETURN, "return self.lm_head(x)"),
)
bank.wrong_edit(
    "final-norm-after-head", "ln_f after the head", (RETURN, "return self.ln_f(self.lm_head(x))")
)
bank.wrong_edit(
    "final-norm-residual", "x + ln_f(x)", (RETURN, "return self.lm_head(x + self.ln_f(x))")
)
bank.wrong_edit("no-head", "the stream is returned", (RETURN, "return self.ln_f(x)"))
bank.wrong_edit(
    "head-not-transposed", "@ wte", (RETURN, "return self.ln_f(x) @ self.embeddings.wte.weight")
)
bank.wrong_edit(
    "head-is-wpe", "@ wpe.T", (RETURN, "return self.ln_f(x) @ self.embeddings.wpe.weight.T")
)
bank.wrong_edit("softmax-on-logits", "softmax", (RETURN, RETURN + ".softmax(-1)"))
bank.wrong_edit("softmax-on-logits", "log_softmax", (RETURN, RETURN + ".log_softmax(-1)"))
bank.wrong_edit("logits-scaled", "logits / √C", (RETURN, RETURN + " / self.config.n_embd**0.5"))
bank.wrong_edit(
    "embeddings-scaled", "embeddings · √C", (EMBED, EMBED + " * self.config.n_embd**0.5")
)
bank.wrong_edit(
    "no-positions", "wte alone", (EMBED, "x = self.embeddings.drop(self.embeddings.wte(input_ids))")
)
bank.wrong_edit(
    "blocks-skipped", "the last block left out", (LOOP, "for i, block in enumerate(self.h[:-1]):")
)
bank.wrong_edit(
    "blocks-skipped",
    "blocks not chained",
    (EMBED, EMBED + "\n        first = x"),
    (BLOCK, BLOCK.replace("block(x", "block(first")),
)
bank.wrong_edit(
    "block-repeated", "h[0] for every layer", (BLOCK, BLOCK.replace("block(", "self.h[0]("))
)
bank.wrong_edit(
    "blocks-reversed", "reversed", (LOOP, "for i, block in reversed(list(enumerate(self.h))):")
)
bank.wrong_edit("residual-doubled", "x + block(x)", (BLOCK, BLOCK.replace("x = ", "x = x + ")))
bank.wrong_edit("logits-shifted", "logits[:, :-1]", (RETURN, RETURN + "[:, :-1]"))
bank.wrong_edit("not-a-tensor", "(logits, cache)", (RETURN, RETURN + ", cache"))
bank.wrong_edit("no-return", "no return", (RETURN, RETURN.replace("return", "logits =")))
bank.wrong_edit(
    "last-only-always", "the last position always", (IF_LAST, "        x = x[:, -1:]\n")
)
bank.wrong_edit("last-only-ignored", "last_only ignored", (IF_LAST, ""))
bank.wrong_edit("last-only-shape", "(B, V)", (LAST, "x = x[:, -1]"))
bank.wrong_edit("last-only-first", "the first position", (LAST, "x = x[:, :1]"))
bank.wrong_edit("last-only-wrong-axis", "x[-1:]", (LAST, "x = x[-1:]"))
bank.wrong_edit("last-only-off-by-one", "x[:, :-1]", (LAST, "x = x[:, :-1]"))
bank.wrong_edit(
    "last-only-after-head",
    "all projected, the rest thrown away",
    (IF_LAST, ""),
    (
        RETURN,
        "logits = self.lm_head(self.ln_f(x))\n        return logits[:, -1:] if last_only else logits",
    ),
)
bank.wrong_edit(
    "last-only-too-early",
    "cut before the blocks",
    (IF_LAST, ""),
    (EMBED, EMBED + "\n        if last_only:\n            x = x[:, -1:]"),
)
bank.wrong_edit(
    "positions-restart", "start_pos never given", (EMBED, "x = self.embeddings(input_ids)")
)
bank.wrong_edit(
    "positions-restart",
    "start_pos for one new token only",
    (
        EMBED,
        "x = self.embeddings(input_ids, cache.length if cache is not None and input_ids.size(1) == 1 else 0)",
    ),
)
bank.wrong_edit(
    "positions-after-append",
    "start_pos too high by T",
    (
        EMBED,
        "x = self.embeddings(input_ids, 0 if cache is None else cache.length + input_ids.size(1))",
    ),
)
bank.wrong_edit(
    "positions-off-by-one",
    "start_pos too high by 1",
    (EMBED, "x = self.embeddings(input_ids, 0 if cache is None else cache.length + 1)"),
)
bank.wrong_edit("cache-not-passed", "the blocks get no cache", (BLOCK, "x = block(x)"))
bank.wrong_edit("cache-layer-0", "layers[0] for all", (BLOCK, BLOCK.replace("[i]", "[0]")))
bank.wrong_edit("cache-layers-wrong", "layers[-1 - i]", (BLOCK, BLOCK.replace("[i]", "[-1 - i]")))
bank.wrong_edit("cache-layers-wrong", "layers[i - 1]", (BLOCK, BLOCK.replace("[i]", "[i - 1]")))
bank.wrong_edit("cache-layers-whole", "layers, all of them", (BLOCK, BLOCK.replace("[i]", "")))
bank.wrong_edit("cache-layers-whole", "the cache itself", (BLOCK, "x = block(x, cache)"))
bank.wrong_edit(
    "cache-required",
    "None is not allowed for",
    (EMBED, "x = self.embeddings(input_ids, cache.length)"),
)
bank.wrong_edit(
    "cache-reset",
    "the cache is emptied first",
    (EMBED, "if cache is not None:\n            cache.reset()\n        " + EMBED),
)
bank.wrong_edit(
    "cache-slices-input",
    "only the last token when there is a cache",
    (
        EMBED,
        "if cache is not None and cache.length:\n            input_ids = input_ids[:, -1:]\n        "
        + EMBED,
    ),
)
bank.wrong_edit(
    "cache-slices-input",
    "the first cache.length tokens cut off",
    (
        EMBED,
        "if cache is not None:\n            input_ids = input_ids[:, cache.length:]\n        "
        + EMBED,
    ),
)
bank.wrong_edit(
    "input-not-checked", "nothing checked", (CHECK, "if False:"), (IS_TENSOR, "if False:")
)
bank.wrong_edit(
    "input-not-checked",
    "floats not refused",
    (CHECK, "if input_ids.dim() != 2 or input_ids.numel() == 0:"),
)
bank.wrong_edit(
    "input-not-checked",
    "empty not refused",
    (CHECK, "if input_ids.dim() != 2 or not whole_numbers:"),
)
bank.right_edit("bools left to PyTorch's own error", (" or input_ids.dtype == torch.bool", ""))
bank.wrong_edit("input-not-checked", "lists not refused", (IS_TENSOR, "if False:"))
bank.wrong_edit("input-not-checked", "1-D let through", (CHECK, CHECK.replace("!= 2", "> 2")))
bank.wrong_edit("input-refused", "the condition inverted", (CHECK, CHECK.replace("!= 2", "== 2")))
bank.wrong_edit(
    "unhelpful-error",
    "says nothing",
    ('                "input_ids must be a non-empty 2-D integer tensor (B, T), "\n', ""),
    ('f"got shape {tuple(input_ids.shape)} of {input_ids.dtype}"', '"bad input"'),
)
bank.wrong_edit(
    "no-gradient",
    "no_grad around the blocks",
    (LOOP, "for i, block in enumerate(self.h):\n            x = x.detach()"),
)
bank.wrong_edit(
    "head-detached",
    "the head's weight detached",
    (RETURN, "return nn.functional.linear(self.ln_f(x), self.lm_head.weight.detach())"),
)
bank.wrong_edit(
    "extra-dropout",
    "embeddings dropped twice",
    (EMBED, f"x = self.embeddings.drop({EMBED.removeprefix('x = ')})"),
)
bank.wrong_edit(
    "extra-dropout",
    "dropout before the head",
    (RETURN, "return self.lm_head(nn.functional.dropout(self.ln_f(x), 0.1, self.training))"),
)
bank.wrong_edit(
    "model-keeps-state",
    "the model counts positions itself",
    (CONFIG, CONFIG + "        self.past = 0\n"),
    (EMBED, "x = self.embeddings(input_ids, 0 if cache is None else self.past)"),
    (
        RETURN,
        "if cache is not None:\n            self.past += input_ids.size(1)\n        " + RETURN,
    ),
)

bank.wrong_edit("activation-at-the-end", "ReLU on the logits", (RETURN, RETURN + ".relu()"))
bank.wrong_edit(
    "activation-at-the-end",
    "GELU before the head",
    (RETURN, "return self.lm_head(nn.functional.gelu(self.ln_f(x)))"),
)
bank.wrong_edit(
    "positions-from-end",
    "positions from max_length",
    (EMBED, EMBED.replace("cache.length", "cache.max_length - input_ids.size(1)")),
)
bank.wrong_edit(
    "shared-weights", "ln_f is the last block's norm", (NORM, "self.ln_f = self.h[-1].ln_2")
)
bank.wrong_edit(
    "positions-refused",
    "too few positions in the blocks",
    ("                config.n_positions,\n", "                config.n_embd,\n"),
)
bank.wrong_edit(
    "forward-arguments",
    "last_only before cache",
    ("cache=None, last_only: bool = False", "last_only: bool = False, cache=None"),
)
bank.wrong_edit(
    "last-only-always",
    "last_only=True by default",
    ("last_only: bool = False", "last_only: bool = True"),
)
bank.wrong_edit(
    "last-only-ignored",
    "last_only ignored with a cache",
    ("        if last_only:", "        if last_only and cache is None:"),
)
bank.wrong_edit(
    "blocks-twice", "the first block twice", (LOOP, "x = self.h[0](x)\n        " + LOOP)
)
bank.wrong_edit(
    "positions-all-the-same",
    "each token embedded alone",
    (EMBED, "x = torch.cat([self.embeddings(ids[:, None]) for ids in input_ids.T], 1)"),
)
bank.wrong_edit(
    "cache-not-passed",
    "cached for single tokens only",
    (BLOCK, BLOCK.replace("cache is None", "cache is None or input_ids.size(1) > 1")),
)
bank.wrong_edit(
    "dropout-in-eval",
    "F.dropout without training=",
    (EMBED, EMBED + "\n        x = nn.functional.dropout(x, 0.1)"),
)
bank.wrong_edit(
    "no-gradient",
    "no_grad as a decorator",
    ("    def forward(self, input_ids", "    @torch.no_grad()\n    def forward(self, input_ids"),
)

# ── right ones ──────────────────────────────────────────────────────────────────────────────────

bank.right_file(
    "keywords everywhere, F.linear with the table, tied the other way round, helper methods",
    """
    import torch
    import torch.nn.functional as F
    from torch import nn
    import gpt2.model as parts

    INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

    class GPT2Model(nn.Module):
        def __init__(self, config):
            nn.Module.__init__(self)
            c = self.config = config
            self.lm_head = nn.Linear(in_features=c.n_embd, out_features=c.vocab_size, bias=False)
            self.embeddings = parts.Embeddings(
                vocab_size=c.vocab_size, n_positions=c.n_positions, n_embd=c.n_embd, dropout=c.embd_pdrop
            )
            self.embeddings.wte.weight = self.lm_head.weight
            self.ln_f = parts.LayerNorm(n_embd=c.n_embd, eps=c.layer_norm_epsilon)
            self.h = nn.ModuleList()
            while len(self.h) < c.n_layer:
                self.h.append(self.make_block())
            self.apply(self._init_weights)

        def make_block(self):
            c = self.config
            return parts.TransformerBlock(
                n_embd=c.n_embd, n_head=c.n_head, n_positions=c.n_positions, dropout=c.resid_pdrop,
                attn_dropout=c.attn_pdrop, layer_norm_epsilon=c.layer_norm_epsilon,
            )

        def _init_weights(self, module):
            pass

        @staticmethod
        def check(ids):
            if not torch.is_tensor(ids):
                raise ValueError(f"expected a tensor, got {type(ids)}")
            if ids.ndim != 2:
                raise ValueError(f"expected 2 dimensions, got {ids.ndim}")
            if ids.dtype not in INTEGERS:
                raise ValueError(f"expected integers, got {ids.dtype}")
            if 0 in ids.shape:
                raise ValueError("the input is empty")

        def forward(self, input_ids, cache=None, last_only=False):
            self.check(input_ids)
            layers = [None] * len(self.h) if cache is None else cache.layers
            stream = self.embeddings(input_ids, start_pos=cache.length if cache else 0)
            for block, layer in zip(self.h, layers):
                stream = block(stream, cache=layer)
            if last_only:
                stream = stream.narrow(1, stream.size(1) - 1, 1)
            return F.linear(self.ln_f(stream), self.embeddings.wte.weight)
    """,
)
bank.right_file(
    "einsum head, norm before the cut, int64 only, a ValueError subclass, tied after apply",
    """
    import torch
    from torch import nn
    from gpt2.model import Embeddings, LayerNorm, TransformerBlock

    class BadInput(ValueError):
        pass

    class GPT2Model(nn.Module):
        def __init__(self, config):
            super(GPT2Model, self).__init__()
            self.config = config
            self.embeddings = Embeddings(config.vocab_size, config.n_positions, config.n_embd, config.embd_pdrop)
            blocks = []
            for layer in range(config.n_layer):
                blocks.append(TransformerBlock(config.n_embd, config.n_head, config.n_positions,
                    config.resid_pdrop, n_inner=config.n_inner, attn_dropout=config.attn_pdrop,
                    layer_norm_epsilon=config.layer_norm_epsilon))
            self.h = nn.ModuleList(blocks)
            self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, False)
            self.apply(self._init_weights)
            self.lm_head.weight = self.embeddings.wte.weight

        def _init_weights(self, module):
            return None

        def forward(self, input_ids, cache=None, last_only=False):
            if not (isinstance(input_ids, torch.Tensor) and input_ids.dtype == torch.int64 and input_ids.dim() == 2 and input_ids.numel()):
                what = f"{tuple(input_ids.shape)} {input_ids.dtype}" if isinstance(input_ids, torch.Tensor) else repr(type(input_ids))
                raise BadInput("ids must be (B, T) int64, got " + what)
            past = 0
            if cache is not None:
                past = cache.length
            h = self.embeddings(input_ids, past)
            for i in range(self.config.n_layer):
                layer_cache = cache.layers[i] if cache is not None else None
                h = self.h[i](h, layer_cache)
            h = self.ln_f(h)
            if last_only is True:
                h = h[:, [-1], :]
            return torch.einsum("btc,vc->btv", h, self.lm_head.weight)
    """,
)
bank.right_edit(
    "PyTorch's own LayerNorm for ln_f",
    (NORM, "self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)"),
)
bank.right_edit(
    "the head made around the table's parameter",
    (HEAD, 'self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False, device="meta")'),
    (TIE, 'self.lm_head.register_parameter("weight", self.embeddings.wte.weight)'),
)
bank.right_edit(
    "children initialized first by hand, cut by unsqueeze, positions from a local name",
    (
        APPLY,
        "for module in reversed(list(self.modules())):\n            self._init_weights(module)",
    ),
    (LAST, "x = x[:, -1].unsqueeze(1)"),
    (
        EMBED,
        "start = 0\n        if cache is not None and cache.length > 0:\n            start = cache.length\n        x = self.embeddings(input_ids, start)",
    ),
)
bank.right_edit(
    "blocks deep-copied from one, then initialized; assert turned into ValueError",
    ("import torch\nfrom torch", "import copy\n\nimport torch\nfrom torch"),
    (
        IS_TENSOR,
        "try:\n            assert isinstance(input_ids, Tensor)\n        except AssertionError:",
    ),
    base=blocks(
        f"block = {ONE_BLOCK}\n        self.h = nn.ModuleList(copy.deepcopy(block) for _ in range(config.n_layer))"
    ),
)

# ── written by somebody who had not seen the checks ─────────────────────────────────────────────

PLAIN = """
    import torch
    from torch import nn
    from gpt2.model import Embeddings, LayerNorm, TransformerBlock

    class GPT2Model(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.config = config
            self.embeddings = Embeddings(
                config.vocab_size, config.n_positions, config.n_embd, dropout=config.embd_pdrop
            )
            blocks = []
            for _ in range(config.n_layer):
                blocks.append(TransformerBlock(
                    config.n_embd, config.n_head, config.n_positions, dropout=config.resid_pdrop,
                    n_inner=config.n_inner, attn_dropout=config.attn_pdrop,
                    layer_norm_epsilon=config.layer_norm_epsilon,
                ))
            self.h = nn.ModuleList(blocks)
            self.ln_f = LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
            self.lm_head.weight = self.embeddings.wte.weight
            self.apply(self._init_weights)

        def _init_weights(self, module):
            pass

        def forward(self, input_ids, cache=None, last_only=False):
            self._check(input_ids)
            start = cache.length if cache is not None else 0
            x = self.embeddings(input_ids, start_pos=start)
            for i, block in enumerate(self.h):
                layer = cache.layers[i] if cache is not None else None
                x = block(x, layer)
            x = self.ln_f(x)
            if last_only:
                x = x[:, -1:, :]
            return self.lm_head(x)

        def _check(self, ids):
            if not torch.is_tensor(ids):
                raise ValueError(f"expected a tensor, got {type(ids).__name__}")
            if ids.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
                raise ValueError(f"expected integers, got {ids.dtype}")
            if ids.ndim != 2 or ids.numel() == 0:
                raise ValueError(f"expected (B, T), got {tuple(ids.shape)}")
"""
TIED = "self.lm_head.weight = self.embeddings.wte.weight\n        self.apply(self._init_weights)"
bank.wrong_edit(
    "tied-too-late",
    "the head's weight takes the table's place after the weights are set",
    (
        TIED,
        "self.apply(self._init_weights)\n        self.embeddings.wte.weight = self.lm_head.weight",
    ),
    base=PLAIN,
)
START = "start = cache.length if cache is not None else 0"
LAYER = "layer = cache.layers[i] if cache is not None else None"
for mistake, title, old, new in (
    (
        "seed-set",
        "a seed before the weights are initialized",
        "self.apply(self._init_weights)",
        "torch.manual_seed(0); self.apply(self._init_weights)",
    ),
    ("seed-set", "a seed in forward", START, "torch.manual_seed(0); " + START),
    (
        "mode-changed",
        "a new model is in eval mode",
        "self.apply(self._init_weights)",
        "self.apply(self._init_weights).eval()",
    ),
    (
        "mode-changed",
        "a cache switches to eval mode",
        START,
        START + "\n        self.train(self.training and cache is None)",
    ),
    (
        "grad-left-off",
        "a cache switches gradients off",
        START,
        START + "\n        torch.set_grad_enabled(cache is None)",
    ),
    (
        "train-differs",
        "last_only in eval mode only",
        "if last_only:",
        "if last_only and not self.training:",
    ),
    (
        "train-differs",
        "the cache in eval mode only",
        START,
        "cache = None if self.training else cache\n        " + START,
    ),
    (
        "cache-not-passed",
        "the cache is not filled with last_only",
        LAYER,
        "layer = cache.layers[i] if cache is not None and not last_only else None",
    ),
    (
        "positions-wrong",
        "positions of twice the cache's length",
        START,
        "start = 2 * cache.length if cache is not None else 0",
    ),
    (
        "cache-not-passed",
        "an empty cache is passed over",
        LAYER,
        "layer = cache.layers[i] if cache is not None and cache.length else None",
    ),
    (
        "last-only-after-head",
        "the logits of all positions, cut afterwards",
        "x = x[:, -1:, :]",
        "return self.lm_head(x)[:, -1:]",
    ),
    (
        "untied-head",
        "a new head after tying",
        "self.apply(self._init_weights)",
        "self.apply(self._init_weights)\n"
        "        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)",
    ),
):
    bank.wrong_edit(mistake, title, (old, new), base=PLAIN)
bank.right_file(
    "the head on the embedding's weight, tied the other way round; two loops",
    """
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn
    import gpt2.model as g

    class GPT2Model(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.config = c = config
            self.lm_head = nn.Linear(c.n_embd, c.vocab_size, bias=False)
            self.ln_f = g.LayerNorm(c.n_embd, c.layer_norm_epsilon)
            self.h = nn.ModuleList([self._block(c) for _ in range(c.n_layer)])
            self.embeddings = g.Embeddings(c.vocab_size, c.n_positions, c.n_embd, c.embd_pdrop)
            self.embeddings.wte.weight = self.lm_head.weight
            self.apply(self._init_weights)

        @staticmethod
        def _block(c):
            return g.TransformerBlock(
                c.n_embd, c.n_head, c.n_positions, c.resid_pdrop,
                attn_dropout=c.attn_pdrop, layer_norm_epsilon=c.layer_norm_epsilon,
            )

        def _init_weights(self, module):
            return None

        def forward(self, input_ids: Tensor, cache=None, last_only: bool = False) -> Tensor:
            if not isinstance(input_ids, Tensor):
                raise ValueError(f"input_ids is a {type(input_ids).__name__}")
            try:
                torch.iinfo(input_ids.dtype)
                assert input_ids.dtype != torch.bool
            except Exception:
                raise ValueError(f"input_ids is {input_ids.dtype}") from None
            if input_ids.dim() != 2 or 0 in input_ids.shape:
                raise ValueError(f"input_ids is {list(input_ids.shape)}")
            if cache is None:
                x = self.embeddings(input_ids)
                for block in self.h:
                    x = block(x)
            else:
                x = self.embeddings(input_ids, cache.length)
                for block, layer in zip(self.h, cache.layers):
                    x = block(x, cache=layer)
            x = x.narrow(1, x.size(1) - 1, 1) if last_only else x
            c = self.config
            x = F.layer_norm(x, (c.n_embd,), self.ln_f.weight, self.ln_f.bias, c.layer_norm_epsilon)
            return F.linear(x, self.embeddings.wte.weight)
    """,
)

# ── mistakes as public code has them, in other styles, and two at once
bank.wrong_edit("argmax-returned", "the likeliest token", (RETURN, RETURN + ".argmax(-1)"))
bank.wrong_edit(
    "argmax-returned",
    "the likeliest token, its axis kept",
    (RETURN, RETURN + ".argmax(-1, keepdim=True)"),
)
bank.wrong_edit(
    "last-only-always",
    "the last position's logits, always",
    (RETURN, "return self.lm_head(self.ln_f(x))[:, -1:]"),
)
bank.wrong_edit(
    "not-a-tensor", "logits and a loss of None, as in nanoGPT", (RETURN, RETURN + ", None")
)
bank.wrong_edit("softmax-on-logits", "softmax over the positions", (RETURN, RETURN + ".softmax(1)"))
bank.wrong_edit(
    "no-final-norm",
    "the norm's result is not assigned",
    (RETURN, "self.ln_f(x)\n        return self.lm_head(x)"),
)
bank.wrong_edit(
    "logits-scaled",
    "logits times 1/√C, and no ln_f",
    (RETURN, "return self.lm_head(x) / self.config.n_embd**0.5"),
    also="no-final-norm",
)
bank.wrong_edit(
    "extra-dropout",
    "the embeddings go through dropout of the model's own",
    (EMBED, EMBED + "\n        x = nn.functional.dropout(x, 0.1, self.training)"),
)
bank.wrong_edit(
    "blocks-skipped",
    "the loop returns after the first block",
    (BLOCK, BLOCK + "\n            break"),
)
bank.wrong_edit(
    "untied-head",
    "the tie written the other way, to a new table",
    (
        TIE,
        "self.lm_head.weight = nn.Parameter(torch.randn(config.vocab_size, config.n_embd) * 0.02)",
    ),
)
bank.wrong_edit(
    "logits-shifted",
    "the first position's logits are dropped",
    (RETURN, "return self.lm_head(self.ln_f(x))[:, 1:]"),
)
