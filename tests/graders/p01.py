"""Problem 01: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(1)

WTE = "self.wte = nn.Embedding(vocab_size, n_embd)"
WPE = "self.wpe = nn.Embedding(n_positions, n_embd)"
DROP = "self.drop = nn.Dropout(dropout)"
END = "end = start_pos + input_ids.size(1)"
BOUND = "if end > self.wpe.num_embeddings:"
POSITIONS = "positions = torch.arange(start_pos, end, device=input_ids.device)"
RETURN = "return self.drop(self.wte(input_ids) + self.wpe(positions))"
MESSAGE = 'f"start_pos + T = {end} positions > n_positions = {self.wpe.num_embeddings}"'
DEF = "def forward(self, input_ids: Tensor, start_pos: int = 0) -> Tensor:"
RAISE = f"""            raise ValueError(
                {MESSAGE}
            )
"""

# ── the tables
bank.wrong_edit(
    "tables-swapped",
    "sizes swapped",
    (WTE, "self.wte = nn.Embedding(n_positions, n_embd)"),
    (WPE, "self.wpe = nn.Embedding(vocab_size, n_embd)"),
)
bank.wrong_edit(
    "table-transposed", "width first", (WTE, "self.wte = nn.Embedding(n_embd, vocab_size)")
)
bank.wrong_edit(
    "table-shape", "GPT-2's 1024 written in", (WPE, "self.wpe = nn.Embedding(1024, n_embd)")
)
bank.wrong_edit(
    "table-shape", "a row too many", (WPE, "self.wpe = nn.Embedding(n_positions + 1, n_embd)")
)
bank.wrong_edit(
    "padding-idx",
    "padding_idx=0",
    (WTE, "self.wte = nn.Embedding(vocab_size, n_embd, padding_idx=0)"),
)
bank.wrong_edit(
    "embedding-option",
    "max_norm=1",
    (WTE, "self.wte = nn.Embedding(vocab_size, n_embd, max_norm=1.0)"),
)
bank.wrong_edit(
    "missing-attribute",
    "other names",
    (WTE, WTE.replace("wte", "token_embedding")),
    (RETURN, RETURN.replace("wte", "token_embedding")),
)
bank.wrong_edit(
    "wrong-attribute-type",
    "wpe a bare parameter",
    (WPE, "self.wpe = nn.Parameter(torch.zeros(n_positions, n_embd))"),
    (BOUND, "if end > self.wpe.size(0):"),
    (MESSAGE, 'f"{end} > {self.wpe.size(0)}"'),
    (RETURN, "return self.drop(self.wte(input_ids) + self.wpe[positions])"),
)
bank.wrong_edit(
    "extra-state",
    "a linear layer too many",
    (DROP, DROP + "\n        self.proj = nn.Linear(n_embd, n_embd)"),
)
bank.wrong_edit(
    "layer-norm-added",
    "a layer norm on top",
    (DROP, DROP + "\n        self.ln = nn.LayerNorm(n_embd)"),
    (RETURN, "return self.drop(self.ln(self.wte(input_ids) + self.wpe(positions)))"),
)
bank.wrong_edit(
    "positions-in-state-dict",
    "position_ids as a persistent buffer",
    (DROP, DROP + '\n        self.register_buffer("position_ids", torch.arange(n_positions))'),
    (POSITIONS, "positions = self.position_ids[start_pos:end]"),
)
bank.wrong_edit(
    "frozen-table", "frozen positions", (WPE, WPE + "\n        self.wpe.requires_grad_(False)")
)
bank.wrong_edit("wrong-default", "dropout=0.0", ("dropout: float = 0.1", "dropout: float = 0.0"))
bank.wrong_edit(
    "wrong-signature",
    "positions before vocabulary",
    ("vocab_size: int, n_positions: int", "n_positions: int, vocab_size: int"),
)
bank.wrong_edit("super-init-missing", "no super().__init__()", ("        super().__init__()\n", ""))
bank.wrong_edit("no-forward", "forward misspelt", ("def forward", "def foward"))

# ── the positions
bank.wrong_edit(
    "positions-ignore-start",
    "positions from 0",
    (POSITIONS, "positions = torch.arange(input_ids.size(1), device=input_ids.device)"),
)
bank.wrong_edit(
    "positions-from-one",
    "positions from 1",
    (POSITIONS, POSITIONS.replace("start_pos, end", "start_pos + 1, end + 1")),
)
bank.wrong_edit(
    "positions-too-few",
    "arange(start_pos, T)",
    (POSITIONS, POSITIONS.replace("end", "input_ids.size(1)")),
)
bank.wrong_edit(
    "positions-one-too-low",
    "start_pos - 1 with a cache",
    (
        POSITIONS,
        "first = max(start_pos - 1, 0)\n"
        "        positions = torch.arange(first, first + input_ids.size(1), device=input_ids.device)",
    ),
)
bank.wrong_edit(
    "positions-along-batch",
    "size(0) for size(1)",
    (END, END.replace("size(1)", "size(0)")),
)
bank.wrong_edit(
    "positions-along-batch",
    "positions down the batch",
    (
        POSITIONS,
        "B = input_ids.size(0)\n"
        "        positions = torch.arange(start_pos, start_pos + B, device=input_ids.device)[:, None]",
    ),
)
bank.wrong_edit(
    "positions-wrong-axis",
    "unsqueeze(1)",
    (RETURN, RETURN.replace("(positions)", "(positions[:, None])")),
)
bank.wrong_edit(
    "positions-through-batch",
    "positions count on through the batch",
    (
        POSITIONS,
        "positions = start_pos + torch.arange(input_ids.numel(), device=input_ids.device)"
        ".view_as(input_ids)",
    ),
)
bank.wrong_edit(
    "positions-mixed-with-batch",
    "repeat_interleave",
    (
        RETURN,
        "rows = positions.repeat_interleave(input_ids.size(0)).view(input_ids.shape)\n"
        "        return self.drop(self.wte(input_ids) + self.wpe(rows))",
    ),
)
bank.wrong_edit(
    "positions-all-the-same",
    "the last position for all",
    (POSITIONS, "positions = torch.full((input_ids.size(1),), end - 1, device=input_ids.device)"),
)
bank.wrong_edit(
    "positions-are-ids", "ids as positions", (RETURN, RETURN.replace("(positions)", "(input_ids)"))
)
bank.wrong_edit(
    "wrong-device", "positions on the CPU", (POSITIONS, "positions = torch.arange(start_pos, end)")
)
bank.wrong_edit(
    "float-index",
    "positions as floats",
    (POSITIONS, POSITIONS.replace("device=", "dtype=torch.float32, device=")),
)

# ── the sum
bank.wrong_edit(
    "position-missing", "no positions", (RETURN, "return self.drop(self.wte(input_ids))")
)
bank.wrong_edit(
    "scaled-by-root-width",
    "tokens times √C",
    (
        RETURN,
        RETURN.replace("self.wte(input_ids)", "self.wte(input_ids) * self.wte.embedding_dim**0.5"),
    ),
)
bank.wrong_edit("multiplied", "times for plus", (RETURN, RETURN.replace(" + ", " * ")))
bank.wrong_edit(
    "concatenated",
    "side by side",
    (
        RETURN,
        "t = self.wte(input_ids)\n"
        "        return self.drop(torch.cat((t, self.wpe(positions).expand_as(t)), dim=-1))",
    ),
)
bank.wrong_edit(
    "averaged",
    "the mean",
    (RETURN, "return self.drop((self.wte(input_ids) + self.wpe(positions)) / 2)"),
)
bank.wrong_edit(
    "sinusoidal-positions",
    "sines and cosines",
    (
        RETURN,
        "C = self.wpe.embedding_dim\n"
        "        angles = positions[:, None] / 10000 ** (torch.arange(0, C, 2) / C)\n"
        "        waves = torch.zeros(len(positions), C)\n"
        "        waves[:, 0::2], waves[:, 1::2] = angles.sin(), angles.cos()\n"
        "        return self.drop(self.wte(input_ids) + waves)",
    ),
)
bank.wrong_edit("no-return", "no return", (RETURN, RETURN.replace("return", "x =")))
bank.wrong_edit(
    "no-gradient",
    "positions detached",
    (RETURN, RETURN.replace("self.wpe(positions)", "self.wpe(positions).detach()")),
)
bank.wrong_edit("fixed-dtype", "the output made float32", (RETURN, RETURN + ".float()"))

# ── dropout
bank.wrong_edit(
    "dropout-missing", "no dropout", (RETURN, "return self.wte(input_ids) + self.wpe(positions)")
)
bank.wrong_edit(
    "dropout-on-tokens-only",
    "dropout on the tokens",
    (RETURN, "return self.drop(self.wte(input_ids)) + self.wpe(positions)"),
)
bank.wrong_edit(
    "dropout-apart",
    "dropout on both, before the sum",
    (RETURN, "return self.drop(self.wte(input_ids)) + self.drop(self.wpe(positions))"),
)
bank.wrong_edit("dropout-rate", "p always 0.1", (DROP, "self.drop = nn.Dropout(0.1)"))
bank.wrong_edit(
    "dropout-in-eval",
    "F.dropout without training=",
    (
        RETURN,
        "x = self.wte(input_ids) + self.wpe(positions)\n"
        "        return nn.functional.dropout(x, self.drop.p)",
    ),
)

# ── the bound
bank.wrong_edit("bound-missing", "no check", (BOUND, "if False:"))
bank.wrong_edit("bound-too-strict", "≥ for >", (BOUND, BOUND.replace(">", ">=")))
bank.wrong_edit("bound-too-loose", "one too many", (BOUND, BOUND.replace("end >", "end - 1 >")))
bank.wrong_edit(
    "bound-ignores-start", "T alone", (BOUND, BOUND.replace("end", "input_ids.size(1)"))
)
bank.wrong_edit(
    "bound-ignores-length", "start_pos alone", (BOUND, BOUND.replace("end >", "start_pos >="))
)
bank.wrong_edit("unhelpful-error", "no numbers", (MESSAGE, '"too many positions"'))
bank.wrong_edit(
    "unhelpful-error", "one number", (MESSAGE, 'f"at most {self.wpe.num_embeddings} positions"')
)
bank.wrong_edit("wrong-error-type", "IndexError", ("raise ValueError(", "raise IndexError("))
bank.wrong_edit(
    "positions-clamped",
    "clamped",
    (RAISE, "            pass\n"),
    (POSITIONS, POSITIONS + ".clamp(max=self.wpe.num_embeddings - 1)"),
)
bank.wrong_edit(
    "positions-wrapped",
    "modulo",
    (RAISE, "            pass\n"),
    (POSITIONS, POSITIONS + " % self.wpe.num_embeddings"),
)
bank.wrong_edit(
    "input-truncated",
    "cut off",
    (
        RAISE,
        "            end = self.wpe.num_embeddings\n            input_ids = input_ids[:, : end - start_pos]\n",
    ),
)
bank.wrong_file(
    "positions-ignore-start",
    "a beginner's: the reference of another course, without start_pos",
    """
    import torch
    import torch.nn as nn

    class Embeddings(nn.Module):
        def __init__(self, vocab_size, n_positions, n_embd, dropout=0.1):
            super().__init__()
            self.wte = nn.Embedding(vocab_size, n_embd)
            self.wpe = nn.Embedding(n_positions, n_embd)
            self.drop = nn.Dropout(dropout)

        def forward(self, input_ids, start_pos=0):
            batch_size, seq_len = input_ids.shape
            if start_pos + seq_len > self.wpe.weight.shape[0]:
                raise ValueError(f"{start_pos + seq_len} > {self.wpe.weight.shape[0]}")
            position_ids = torch.arange(seq_len, device=input_ids.device)
            position_ids = position_ids.unsqueeze(0).expand(batch_size, seq_len)
            return self.drop(self.wte(input_ids) + self.wpe(position_ids))
    """,
)
bank.wrong_file(
    "wrong-signature",
    "forward without start_pos",
    """
    import torch
    from torch import nn

    class Embeddings(nn.Module):
        def __init__(self, vocab_size, n_positions, n_embd, dropout=0.1):
            super().__init__()
            self.wte = nn.Embedding(vocab_size, n_embd)
            self.wpe = nn.Embedding(n_positions, n_embd)
            self.drop = nn.Dropout(dropout)

        def forward(self, input_ids):
            pos = torch.arange(input_ids.size(1), device=input_ids.device)
            return self.drop(self.wte(input_ids) + self.wpe(pos))
    """,
)

bank.right_file(
    "a slice of the table, functional dropout, the error by a helper",
    """
    import torch.nn.functional as F
    from torch import nn

    def require(condition, text):
        if not condition:
            raise ValueError(text)

    class Embeddings(nn.Module):
        def __init__(self, vocab_size, n_positions, n_embd, dropout=0.1):
            nn.Module.__init__(self)
            self.n_positions = n_positions
            self.wpe = nn.Embedding(n_positions, n_embd)
            self.wte = nn.Embedding(vocab_size, n_embd)
            self.drop = nn.Dropout(p=dropout)

        def forward(self, input_ids, start_pos=0):
            T = input_ids.shape[-1]
            require(
                start_pos + T <= self.n_positions,
                f"start_pos {start_pos} and {T} tokens don't fit in {self.n_positions}",
            )
            x = F.embedding(input_ids, self.wte.weight)
            x = x + self.wpe.weight[start_pos : start_pos + T]
            return F.dropout(x, self.drop.p, self.training)
    """,
)
bank.right_file(
    "a buffer that is not saved, in-place sum, positions repeated for the batch",
    """
    import torch
    from torch import nn

    class Embeddings(nn.Module):
        def __init__(self, vocab_size, n_positions, n_embd, dropout=0.1):
            super().__init__()
            self.wte = nn.Embedding(vocab_size, n_embd)
            self.wpe = nn.Embedding(n_positions, n_embd)
            self.drop = nn.Dropout(dropout)
            self.register_buffer("position_ids", torch.arange(n_positions)[None], persistent=False)

        def forward(self, input_ids, start_pos=0):
            B, T = input_ids.shape
            past = self.position_ids.size(1)
            try:
                assert start_pos + T <= past, f"{start_pos + T} > {past}"
            except AssertionError as error:
                raise ValueError(str(error)) from None
            ids = self.position_ids[:, start_pos : start_pos + T].expand(B, -1)
            x = self.wte(input_ids)
            x += self.wpe(ids)
            return self.drop(x)
    """,
)
bank.right_file(
    "one-hot products, positions by a running count",
    """
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    class Embeddings(nn.Module):
        def __init__(self, vocab_size, n_positions, n_embd, dropout=0.1):
            super().__init__()
            self.vocab_size, self.n_positions = vocab_size, n_positions
            self.wte, self.wpe = (nn.Embedding(n, n_embd) for n in (vocab_size, n_positions))
            self.drop = nn.Dropout(dropout)

        def forward(self, input_ids, start_pos=0):
            need = start_pos + input_ids.shape[1]
            if not need <= self.n_positions:
                raise ValueError("need %d positions, have %d" % (need, self.n_positions))
            one_hot = F.one_hot(input_ids, self.vocab_size).to(self.wte.weight.dtype)
            positions = torch.ones_like(input_ids).cumsum(dim=1) - 1 + start_pos
            return self.drop(torch.add(one_hot @ self.wte.weight, self.wpe(positions)))
    """,
)
bank.right_file(
    "positions made on the CPU and moved, ids checked, an extra option",
    """
    import torch
    from torch import Tensor, nn

    class Embeddings(nn.Module):
        def __init__(self, vocab_size: int, n_positions: int, n_embd: int, dropout: float = 0.1,
                     std: float = 0.02):
            super().__init__()
            self.wte = nn.Embedding(num_embeddings=vocab_size, embedding_dim=n_embd)
            self.wpe = nn.Embedding(num_embeddings=n_positions, embedding_dim=n_embd)
            self.drop = nn.Dropout(dropout)
            for table in (self.wte, self.wpe):
                nn.init.normal_(table.weight, std=std)

        def check(self, input_ids: Tensor, end: int) -> None:
            if end > (n := self.wpe.weight.shape[0]):
                raise ValueError(f"position {end - 1} ({end} tokens): there are only {n} positions")
            if input_ids.numel() and int(input_ids.max()) >= self.wte.num_embeddings:
                raise ValueError(f"no token {int(input_ids.max())}")

        def forward(self, input_ids: Tensor, start_pos: int = 0) -> Tensor:
            self.check(input_ids, start_pos + input_ids.size(-1))
            here = torch.tensor(range(start_pos, start_pos + input_ids.size(-1)))
            places = self.wpe(here.to(input_ids.device)).unsqueeze(0)
            return self.drop(self.wte(input_ids) + places)
    """,
)


# ── answers of somebody who has not seen the table ──────────────────────────────────────────────

PLAIN = """
    import torch
    import torch.nn as nn

    class Embeddings(nn.Module):
        def __init__(self, vocab_size, n_positions, n_embd, dropout=0.1):
            super().__init__()
            self.n_positions = n_positions
            self.wte = nn.Embedding(vocab_size, n_embd)
            self.wpe = nn.Embedding(n_positions, n_embd)
            self.drop = nn.Dropout(p=dropout)

        def forward(self, input_ids, start_pos=0):
            seq_len = input_ids.size(-1)
            if start_pos + seq_len > self.n_positions:
                raise ValueError(f"need {start_pos + seq_len} positions, have {self.n_positions}")
            pos = torch.arange(start_pos, start_pos + seq_len, device=input_ids.device)
            tok_emb = self.wte(input_ids)
            pos_emb = self.wpe(pos)
            return self.drop(tok_emb + pos_emb)
"""
bank.wrong_edit(
    "module-remembers",
    "positions kept from the first call of that length",
    (
        "pos = torch.arange(start_pos, start_pos + seq_len, device=input_ids.device)",
        "if not hasattr(self, '_pos') or self._pos.numel() != seq_len:\n            self._pos = torch.arange(start_pos, start_pos + seq_len, device=input_ids.device)\n        pos = self._pos",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "positions-from-wte",
    "positions looked up in the table of tokens",
    ("pos_emb = self.wpe(pos)", "pos_emb = self.wte(pos)"),
    base=PLAIN,
)
bank.wrong_edit(
    "grad-left-off",
    "gradients switched off and left off",
    (
        "pos = torch.arange(start_pos, start_pos + seq_len, device=input_ids.device)",
        "torch.set_grad_enabled(False)\n        pos = torch.arange(start_pos, start_pos + seq_len, device=input_ids.device)",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "seed-set",
    "the seed is set in forward",
    (
        "return self.drop(tok_emb + pos_emb)",
        "torch.manual_seed(0)\n        return self.drop(tok_emb + pos_emb)",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "seed-set",
    "the seed is set in __init__",
    ("super().__init__()", "super().__init__()\n        torch.manual_seed(1337)"),
    base=PLAIN,
)
bank.wrong_edit(
    "mode-changed",
    "forward switches to eval mode when there is a past",
    (
        "pos = torch.arange(start_pos, start_pos + seq_len, device=input_ids.device)",
        "if start_pos > 0:\n            self.eval()\n        pos = torch.arange(start_pos, start_pos + seq_len, device=input_ids.device)",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "positions-ignore-start",
    "start_pos is used in eval mode alone",
    (
        "pos = torch.arange(start_pos, start_pos + seq_len, device=input_ids.device)",
        "pos = torch.arange(seq_len, device=input_ids.device) + (0 if self.training else start_pos)",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "dropout-missing",
    "no dropout when there is a past",
    (
        "return self.drop(tok_emb + pos_emb)",
        "x = tok_emb + pos_emb\n        return self.drop(x) if start_pos == 0 else x",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "wrong-error-type",
    "a RuntimeError",
    (
        'raise ValueError(f"need {start_pos + seq_len} positions, have {self.n_positions}")',
        'raise RuntimeError(f"need {start_pos + seq_len} positions, have {self.n_positions}")',
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "edits-weights",
    "a lookup that changes the table",
    (
        "tok_emb = self.wte(input_ids)",
        "tok_emb = self.wte(input_ids)\n        self.wte.weight.data[input_ids] += 0.001",
    ),
    base=PLAIN,
)
bank.right_edit(
    "int32 positions, dropout asked for in training alone",
    (
        "pos = torch.arange(start_pos, start_pos + seq_len, device=input_ids.device)",
        "pos = torch.arange(start_pos, start_pos + seq_len, dtype=torch.int32, device=input_ids.device)",
    ),
    (
        "return self.drop(tok_emb + pos_emb)",
        "x = tok_emb + pos_emb\n        return self.drop(x) if self.training else x",
    ),
    base=PLAIN,
)
bank.right_edit(
    "a subclass of ValueError that names all three numbers",
    ("class Embeddings", "class TooLong(ValueError):\n    pass\n\nclass Embeddings"),
    (
        'raise ValueError(f"need {start_pos + seq_len} positions, have {self.n_positions}")',
        'raise TooLong(f"start_pos={start_pos} and T={seq_len} do not fit n_positions={self.n_positions}")',
    ),
    base=PLAIN,
)

# ── mistakes as public code has them, in other styles, and two at once
bank.wrong_edit(
    "missing-attribute",
    "wpe a parameter of another name, beside a right wte",
    (WPE, "self.pos_emb = nn.Parameter(torch.zeros(n_positions, n_embd))"),
    (BOUND, "if end > self.pos_emb.size(0):"),
    (MESSAGE, 'f"{end} > {self.pos_emb.size(0)}"'),
    (RETURN, "return self.drop(self.wte(input_ids) + self.pos_emb[positions])"),
)
bank.wrong_edit(
    "positions-ignore-start",
    "rows of the table's beginning, cut out of the weight",
    (RETURN, "return self.drop(self.wte(input_ids) + self.wpe.weight[: input_ids.size(1)])"),
)
bank.wrong_edit(
    "table-not-cut",
    "the whole table of positions is added",
    (RETURN, "return self.drop(self.wte(input_ids) + self.wpe.weight)"),
)
bank.wrong_edit(
    "dropout-rate",
    "F.dropout with 0.1 written in",
    (
        RETURN,
        "x = self.wte(input_ids) + self.wpe(positions)\n"
        "        return nn.functional.dropout(x, 0.1, self.training)",
    ),
)
bank.wrong_edit(
    "positions-from-one",
    "a cumulative sum of ones",
    (
        RETURN,
        "positions = torch.ones_like(input_ids).cumsum(1) + start_pos\n        "
        + RETURN.replace("positions)", "positions % self.wpe.num_embeddings)"),
    ),
)
bank.wrong_edit(
    "positions-all-the-same",
    "start_pos itself is looked up",
    (
        RETURN,
        "positions = torch.full_like(input_ids, start_pos)\n        " + RETURN,
    ),
)
bank.wrong_edit(
    "layer-norm-added",
    "F.layer_norm on the sum",
    (
        RETURN,
        "x = self.wte(input_ids) + self.wpe(positions)\n"
        "        return self.drop(nn.functional.layer_norm(x, x.shape[-1:]))",
    ),
)
bank.wrong_edit(
    "bound-missing",
    "the ids are compared with n_positions",
    (BOUND, "if int(input_ids.max()) > 10**6 + self.wpe.num_embeddings:"),
)
bank.wrong_edit(
    "wrong-error-type",
    "an assert",
    (
        BOUND,
        "assert end <= self.wpe.num_embeddings, f'{end} > {self.wpe.num_embeddings}'\n        if False:",
    ),
)
bank.wrong_edit(
    "scaled-by-root-width",
    "tokens times √C, and positions from 1",
    (
        RETURN,
        "x = self.wte(input_ids) * self.wte.embedding_dim**0.5\n"
        "        return self.drop(x + self.wpe((positions + 1) % self.wpe.num_embeddings))",
    ),
    also="positions-from-one",
)
bank.wrong_edit(
    "position-added-twice",
    "an in-place sum in two places",
    (
        RETURN,
        "x = self.wte(input_ids)\n        p = self.wpe(positions)\n        x = x + p\n"
        "        x += p\n        return self.drop(x)",
    ),
)
bank.wrong_edit(
    "plain-attribute",
    "a plain attribute of positions",
    (DROP, DROP + "\n        self.positions = torch.arange(n_positions)"),
    (POSITIONS, "positions = self.positions[start_pos:end]"),
)
