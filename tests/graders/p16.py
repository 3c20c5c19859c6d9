"""Problem 16: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(16)
# the edits below are of a solution whose merge and unmerge are decorated, which is a line shorter
for name, sign in (("merge", "+"), ("unmerge", "-")):
    for old, new in (
        (f"    def {name}(self)", f"    @torch.no_grad()\n    def {name}(self)"),
        (
            f"            with torch.no_grad():\n                self.base.weight {sign}=",
            f"            self.base.weight {sign}=",
        ),
    ):
        assert bank.solution.count(old) == 1
        bank.solution = bank.solution.replace(old, new)

FREEZE = "self.base = base.requires_grad_(False)"
LIKE = 'like = {"device": base.weight.device, "dtype": base.weight.dtype}'
A = "self.lora_A = nn.Linear(base.in_features, rank, bias=False, **like)"
B = "self.lora_B = nn.Linear(rank, base.out_features, bias=False, **like)"
KAIMING = "nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))"
ZEROS = "nn.init.zeros_(self.lora_B.weight)"
SCALING = "self.scaling = alpha / rank"
DROPOUT = "self.dropout = nn.Dropout(dropout)"
MERGED = "self.dropout = nn.Dropout(dropout)\n        self.merged = False"
IF_MERGED = "if self.merged:\n            return self.base(x)"
FORWARD = "return self.base(x) + self.scaling * self.lora_B(self.lora_A(self.dropout(x)))"
MERGE = "if not self.merged:\n            self.base.weight += self._update()\n            self.merged = True"
UNMERGE = "if self.merged:\n            self.base.weight -= self._update()\n            self.merged = False"
UPDATE = "return self.scaling * (self.lora_B.weight @ self.lora_A.weight)"
GRAD_MERGE = "@torch.no_grad()\n    def merge"
HEAD = 'if "lm_head" in targets:'
FOUND = "found = {name: layer for name, layer in layers.items() if _last(name) in targets}"
UNKNOWN = "if unknown or not found:"
MADE = "made = {name: LoRALinear(layer, rank, alpha, dropout) for name, layer in found.items()}"
ALL_FROZEN = "model.requires_grad_(False)\n    for name"
PUT = "_replace(model, name, layer.train(found[name].training))"
RETURN = "return list(made)"
MERGE_ALL = "layer.merge()\n        _replace(model, name, layer.base)"
STATE = "return {name: weight.detach().clone() for name, weight in _adapter_weights(model).items()}"
IS_MERGED = "if merged:"
MISSING = '("missing", weights.keys() - state.keys()),'
EXTRA = '("not expected", state.keys() - weights.keys()),'
SHAPE = "if state[name].shape != weight.shape:"
COPY = "weight.copy_(state[name])"
KEY = 'f"{PREFIX}{name}.{part}.weight": getattr(layer, part).weight'


def wrong(mistake: str, title: str, *edits: tuple[str, str], also: str = "") -> None:
    bank.wrong_edit(mistake, title, *edits, also=also)


# the layer
wrong("base-trainable", "nothing is frozen", (FREEZE, "self.base = base"))
wrong(
    "base-trainable",
    "the bias learns on",
    (FREEZE, "self.base = base\n        base.weight.requires_grad_(False)"),
)
wrong(
    "base-changed",
    "a new layer of the same size",
    (
        FREEZE,
        "self.base = nn.Linear(base.in_features, base.out_features, base.bias is not None).requires_grad_(False)",
    ),
    also="lora-dtype raises",
)
wrong(
    "lora-shape",
    "in and out exchanged",
    (A, A.replace("base.in_features, rank", "rank, base.in_features")),
    also="raises",
)
wrong(
    "lora-shape",
    "rank and out exchanged",
    (B, B.replace("rank, base.out_features", "base.out_features, rank")),
    also="raises",
)
wrong("lora-has-bias", "A has a bias", (A, A.replace("bias=False, ", "")))
wrong("lora-has-bias", "B has a bias", (B, B.replace("bias=False, ", "")))
wrong(
    "lora-frozen",
    "A is frozen, as in LoRA-FA",
    (KAIMING, KAIMING + "\n        self.lora_A.weight.requires_grad_(False)"),
    also="no-gradient nothing-trainable",
)
wrong(
    "missing-attribute",
    "A and B as parameters called A and B",
    (A, "self.A = nn.Linear(base.in_features, rank, bias=False, **like)"),
    (KAIMING, "nn.init.kaiming_uniform_(self.A.weight, a=math.sqrt(5))"),
    (FORWARD, FORWARD.replace("lora_A", "A")),
    (UPDATE, UPDATE.replace("lora_A", "A")),
)
wrong(
    "wrong-attribute-type",
    "A is a parameter",
    (A, "self.lora_A = nn.Parameter(torch.randn(rank, base.in_features))"),
    (KAIMING, ""),
    (FORWARD, "return self.base(x) + self.scaling * self.lora_B(x @ self.lora_A.T)"),
    (UPDATE, "return self.scaling * (self.lora_B.weight @ self.lora_A)"),
)
wrong("both-zero", "A is zero as well", (KAIMING, "nn.init.zeros_(self.lora_A.weight)"))
wrong("both-random", "B as PyTorch makes it", (ZEROS, ""))
wrong("both-random", "B is normal", (ZEROS, "nn.init.normal_(self.lora_B.weight, std=0.02)"))
wrong(
    "start-exchanged",
    "A zero, B random",
    (KAIMING, "nn.init.zeros_(self.lora_A.weight)"),
    (ZEROS, "nn.init.kaiming_uniform_(self.lora_B.weight, a=math.sqrt(5))"),
)
wrong(
    "start-of-a",
    "normal over the root of the rank",
    (KAIMING, "nn.init.normal_(self.lora_A.weight, std=1 / math.sqrt(rank))"),
)
wrong("start-of-a", "0.01 randn", (KAIMING, "nn.init.normal_(self.lora_A.weight, std=0.01)"))
wrong(
    "start-of-a",
    "Kaiming uniform with a = 0",
    (KAIMING, "nn.init.kaiming_uniform_(self.lora_A.weight)"),
)
wrong("start-of-a", "Xavier", (KAIMING, "nn.init.xavier_uniform_(self.lora_A.weight)"))
wrong("start-of-a", "ones", (KAIMING, "nn.init.ones_(self.lora_A.weight)"))
wrong("seed-set", "a seed in __init__", (KAIMING, "torch.manual_seed(0)\n        " + KAIMING))
wrong("lora-dtype", "float32 on the CPU", (LIKE, "like = {}"))
wrong("lora-dtype", "the device alone follows", (LIKE, 'like = {"device": base.weight.device}'))
wrong(
    "alpha-for-scaling", "alpha", (SCALING, "self.scaling = alpha"), also="arguments-not-passed-on"
)
wrong("scaling-missing", "1", (SCALING, "self.scaling = 1.0"), also="arguments-not-passed-on")
wrong(
    "scaling-inverted",
    "rank / alpha",
    (SCALING, "self.scaling = rank / alpha"),
    also="arguments-not-passed-on",
)
wrong(
    "scaling-by-root",
    "rsLoRA",
    (SCALING, "self.scaling = alpha / math.sqrt(rank)"),
    also="arguments-not-passed-on",
)
wrong(
    "scaling-wrong",
    "alpha // rank",
    (SCALING, "self.scaling = alpha // rank"),
    also="arguments-not-passed-on",
)
wrong(
    "scaling-wrong",
    "1 / rank",
    (SCALING, "self.scaling = 1 / rank"),
    also="arguments-not-passed-on",
)
wrong(
    "alpha-for-scaling",
    "alpha in forward alone",
    (SCALING, SCALING + "\n        self.alpha = alpha"),
    (FORWARD, FORWARD.replace("self.scaling", "self.alpha")),
)
wrong("scaling-missing", "no scaling in forward", (FORWARD, FORWARD.replace("self.scaling * ", "")))
wrong(
    "scaling-wrong",
    "scaled twice",
    (FORWARD, FORWARD.replace("self.scaling * ", "self.scaling**2 * ")),
)
wrong(
    "merged-not-set",
    "merged from the start",
    ("self.merged = False\n\n    def forward", "self.merged = True\n\n    def forward"),
)
wrong("base-missing", "the update alone", (FORWARD, FORWARD.replace("self.base(x) + ", "")))
wrong("update-missing", "the base alone", (FORWARD, "return self.base(x)"))
wrong("update-subtracted", "minus", (FORWARD, FORWARD.replace(" + ", " - ")))
wrong("update-multiplied", "times", (FORWARD, FORWARD.replace(" + ", " * ")))
wrong(
    "bias-twice",
    "the bias again",
    (FORWARD, FORWARD + " + (0 if self.base.bias is None else self.base.bias)"),
)
wrong(
    "bias-lost",
    "the weight of the base alone",
    (FORWARD, FORWARD.replace("self.base(x)", "x @ self.base.weight.T")),
)
wrong(
    "activation-between",
    "ReLU, as in adapters",
    (
        FORWARD,
        "return self.base(x) + self.scaling * self.lora_B(torch.relu(self.lora_A(self.dropout(x))))",
    ),
)
wrong(
    "activation-between",
    "GELU",
    (
        FORWARD,
        "return self.base(x) + self.scaling * self.lora_B(nn.functional.gelu(self.lora_A(self.dropout(x))))",
    ),
)
wrong(
    "base-scaled",
    "all of it is scaled",
    (FORWARD, "return self.scaling * (self.base(x) + self.lora_B(self.lora_A(self.dropout(x))))"),
)
wrong(
    "update-transposed",
    "x B A on a square",
    (
        FORWARD,
        "x2 = self.dropout(x)\n        if self.base.in_features == self.base.out_features:\n            u = x2 @ self.lora_B.weight @ self.lora_A.weight\n        else:\n            u = self.lora_B(self.lora_A(x2))\n        return self.base(x) + self.scaling * u",
    ),
)
wrong(
    "update-of-the-output",
    "A reads the base's output",
    (
        FORWARD,
        "y = self.base(x)\n        u = self.lora_A(y) if y.size(-1) == x.size(-1) else self.lora_A(self.dropout(x))\n        return y + self.scaling * self.lora_B(u)",
    ),
)
wrong(
    "base-without-gradient",
    "the base under no_grad",
    (
        FORWARD,
        "with torch.no_grad():\n            y = self.base(x)\n        return y + self.scaling * self.lora_B(self.lora_A(self.dropout(x)))",
    ),
)
wrong(
    "base-without-gradient",
    "the base's output is detached",
    (FORWARD, FORWARD.replace("self.base(x)", "self.base(x).detach()")),
)
wrong(
    "dropout-missing",
    "no dropout",
    (FORWARD, FORWARD.replace("self.dropout(x)", "x")),
    also="arguments-not-passed-on",
)
wrong(
    "dropout-on-base",
    "both read the dropped input",
    (
        FORWARD,
        "x = self.dropout(x)\n        return self.base(x) + self.scaling * self.lora_B(self.lora_A(x))",
    ),
)
wrong(
    "dropout-on-base",
    "the output is dropped",
    (FORWARD, "return self.dropout(self.base(x) + self.scaling * self.lora_B(self.lora_A(x)))"),
)
wrong(
    "dropout-after-a",
    "between A and B",
    (FORWARD, FORWARD.replace("self.lora_A(self.dropout(x))", "self.dropout(self.lora_A(x))")),
)
wrong(
    "dropout-on-the-update",
    "after B",
    (FORWARD, "return self.base(x) + self.scaling * self.dropout(self.lora_B(self.lora_A(x)))"),
)
wrong(
    "dropout-in-eval",
    "F.dropout with its default",
    (FORWARD, FORWARD.replace("self.dropout(x)", "nn.functional.dropout(x, self.dropout.p)")),
    also="bad-copy",
)
# merging
wrong(
    "merge-does-nothing",
    "only the flag",
    (MERGE, "self.merged = True"),
    also="merged-output unmerge-wrong merge-loses-update",
)
wrong(
    "merge-transposed",
    "Aᵀ Bᵀ where that fits",
    (
        UPDATE,
        "u = self.lora_B.weight @ self.lora_A.weight\n        return self.scaling * (u.T if u.size(0) == u.size(1) else u)",
    ),
    also="merged-output",
)
wrong(
    "merge-not-scaled",
    "without the scaling",
    (UPDATE, "return self.lora_B.weight @ self.lora_A.weight"),
    also="merged-output",
)
wrong(
    "merge-not-scaled",
    "with alpha",
    (SCALING, SCALING + "\n        self.alpha = alpha"),
    (UPDATE, UPDATE.replace("scaling", "alpha")),
    also="merged-output",
)
wrong(
    "merge-subtracts",
    "minus",
    (MERGE, MERGE.replace("+=", "-=")),
    also="merged-output unmerge-wrong",
)
wrong(
    "merge-replaces",
    "= for +=",
    (
        MERGE,
        "if not self.merged:\n            self.base.weight.copy_(self._update())\n            self.merged = True",
    ),
    also="merged-output unmerge-wrong",
)
wrong(
    "merged-not-set",
    "the flag is forgotten",
    (MERGE, "if not self.merged:\n            self.base.weight += self._update()"),
    also="merged-twice update-twice unmerge-does-nothing",
)
wrong("update-twice", "forward adds it when merged too", (IF_MERGED, "pass"))
wrong(
    "merged-output",
    "forward takes the update out when merged",
    (
        IF_MERGED,
        "if self.merged:\n            return self.base(x) - self.scaling * self.lora_B(self.lora_A(x))",
    ),
)
wrong(
    "merged-twice",
    "no look at the flag",
    (MERGE, "self.base.weight += self._update()\n        self.merged = True"),
    also="merge-lora-twice",
)
wrong(
    "merge-keeps-graph",
    "no no_grad",
    (GRAD_MERGE, "def merge"),
    also="raises bad-copy merge-unfreezes",
)
wrong(
    "merge-unfreezes",
    "a new parameter",
    (
        MERGE,
        MERGE.replace(
            "self.base.weight += self._update()",
            "self.base.weight = nn.Parameter(self.base.weight + self._update())",
        ),
    ),
)
wrong(
    "merge-resets",
    "A and B start anew",
    (MERGE, MERGE + "\n            nn.init.zeros_(self.lora_B.weight)"),
    also="unmerge-does-nothing unmerge-wrong",
)
wrong(
    "merge-resets",
    "only forgotten when unmerged",
    (UNMERGE, UNMERGE + "\n            nn.init.zeros_(self.lora_B.weight)"),
    also="unmerge-wrong",
)
wrong(
    "merges-with-the-mode",
    "loralib's train()",
    (
        GRAD_MERGE,
        "def train(self, mode=True):\n        super().train(mode)\n        if mode:\n            self.unmerge()\n        else:\n            self.merge()\n        return self\n\n    @torch.no_grad()\n    def merge",
    ),
    also="merged-not-set merge-does-nothing base-trainable update-twice merged-twice unmerged-twice unmerge-does-nothing scaling-missing no-gradient bad-copy merge-lora-twice mode-not-taken dropout-in-eval merge-keeps-graph",
)
wrong("unmerge-does-nothing", "only the flag", (UNMERGE, "self.merged = False"))
wrong("unmerge-wrong", "added again", (UNMERGE, UNMERGE.replace("-=", "+=")))
wrong(
    "unmerge-wrong",
    "without the scaling",
    (UNMERGE, UNMERGE.replace("self._update()", "self.lora_B.weight @ self.lora_A.weight")),
)
wrong(
    "unmerged-twice",
    "no look at the flag",
    (UNMERGE, "self.base.weight -= self._update()\n        self.merged = False"),
)
wrong(
    "merged-not-set",
    "the flag stays after unmerge",
    (UNMERGE, "if self.merged:\n            self.base.weight -= self._update()"),
    also="unmerged-twice unmerge-wrong",
)
# the model
wrong(
    "nothing-replaced",
    "set on the model, under a name with underscores",
    (
        "setattr(model.get_submodule(parent), last, module)",
        'setattr(model, name.replace(".", "_"), module)',
    ),
)
wrong(
    "arguments-not-passed-on",
    "alpha is always 16",
    (MADE, MADE.replace("rank, alpha", "rank, 16")),
)
wrong("nothing-replaced", "nothing is put in", (PUT, "pass"))
wrong(
    "layers-missed",
    "one block",
    (FOUND, FOUND.replace("in targets}", 'in targets and "h.1" not in name}')),
)
wrong(
    "too-many-replaced",
    "every linear layer but the head",
    (FOUND, 'found = {name: layer for name, layer in layers.items() if name != "lm_head"}'),
    (
        "unknown = sorted(set(targets) - {_last(name) for name in found})",
        "unknown = sorted(set(targets) - {_last(name) for name in found})",
    ),
)
wrong(
    "target-in-part",
    "`in` the whole name",
    (
        FOUND,
        "found = {name: layer for name, layer in layers.items() if any(t in name for t in targets)}",
    ),
    (
        "unknown = sorted(set(targets) - {_last(name) for name in found})",
        "unknown = [t for t in targets if not any(t in name for name in found)]",
    ),
)
wrong(
    "target-in-part",
    "endswith",
    (
        FOUND,
        "found = {name: layer for name, layer in layers.items() if name.endswith(tuple(targets))}",
    ),
    (
        "unknown = sorted(set(targets) - {_last(name) for name in found})",
        "unknown = [t for t in targets if not any(name.endswith(t) for name in found)]",
    ),
)
wrong("target-not-checked", "unknown ones are passed over", (UNKNOWN, "if False:"))
wrong("target-not-checked", "one that fits is enough", (UNKNOWN, "if not found:"))
wrong("head-adapted", "lm_head is a layer like others", (HEAD, "if False:"))
wrong(
    "changed-before-error",
    "frozen before it looks",
    ("# Step 7: find", "model.requires_grad_(False)\n    # Step 7: find"),
)
wrong(
    "changed-before-error",
    "replaced one by one",
    (
        HEAD,
        'for name, layer in list(model.named_modules()):\n        if isinstance(layer, nn.Linear) and _last(name) in targets and name != "lm_head":\n            _replace(model, name, LoRALinear(layer, rank, alpha, dropout).train(layer.training))\n    if "lm_head" in targets or not set(targets) <= {_last(n) for n, m in model.named_modules() if isinstance(m, LoRALinear)}:\n        raise ValueError("no")\n    model.requires_grad_(False)\n    for name, layer in _lora_layers(model).items():\n        layer.lora_A.requires_grad_(True)\n        layer.lora_B.requires_grad_(True)\n    return list(_lora_layers(model))\n    if "lm_head" in targets:',
    ),
)
wrong("names-wrong", "last parts", (RETURN, "return [_last(name) for name in made]"))
wrong("names-wrong", "how many", (RETURN, "return len(made)"))
wrong("names-wrong", "the model", (RETURN, "return model"))
wrong("names-wrong", "nothing", (RETURN, "pass"))
wrong("rest-trainable", "only the bases are frozen", (ALL_FROZEN, "for name"))
wrong(
    "nothing-trainable", "frozen at the end", (RETURN, "model.requires_grad_(False)\n    " + RETURN)
)
wrong("mode-not-taken", "new layers in training", (PUT, "_replace(model, name, layer)"))
wrong(
    "arguments-not-passed-on",
    "alpha and rank exchanged",
    (MADE, MADE.replace("rank, alpha", "alpha, rank")),
    also="wrong-default",
)
wrong("arguments-not-passed-on", "dropout lost", (MADE, MADE.replace(", dropout)", ")")))
wrong(
    "arguments-not-passed-on",
    "rank 4 for all",
    (MADE, MADE.replace("rank, alpha", "4, alpha")),
    also="wrong-default raises no-error misshapen-accepted",
)
wrong(
    "layers-share-an-update",
    "one A for all",
    (
        MADE,
        MADE
        + "\n    first = next(iter(made.values()))\n    for layer in made.values():\n        if layer.lora_A.weight.shape == first.lora_A.weight.shape:\n            layer.lora_A = first.lora_A",
    ),
    also="nothing-trainable adapter-holds-base",
)
wrong("merge-leaves-layers", "merged and left in place", (MERGE_ALL, "layer.merge()"))
wrong("merge-loses-update", "not merged", (MERGE_ALL, "_replace(model, name, layer.base)"))
wrong(
    "merge-lora-twice",
    "added by hand",
    (
        MERGE_ALL,
        "with torch.no_grad():\n            layer.base.weight += layer._update()\n        _replace(model, name, layer.base)",
    ),
)
wrong(
    "merge-lora-unmerges",
    "toggled",
    (
        MERGE_ALL,
        "layer.unmerge() if layer.merged else layer.merge()\n        _replace(model, name, layer.base)",
    ),
)
wrong(
    "adapter-holds-base",
    "the whole state_dict",
    (STATE, "return {PREFIX + name: t for name, t in model.state_dict().items()}"),
    also="adapter-names",
)
wrong(
    "adapter-names",
    "without the prefix",
    (KEY, KEY.replace("{PREFIX}", "")),
    also="unexpected-accepted missing-accepted",
)
wrong(
    "adapter-names", "peft's names in memory", (KEY, KEY.replace('.weight":', '.default.weight":'))
)
wrong(
    "adapter-names",
    "lora_down and lora_up",
    (
        STATE,
        STATE.replace("name:", 'name.replace("lora_A", "lora_down").replace("lora_B", "lora_up"):'),
    ),
)
wrong(
    "adapter-incomplete",
    "B alone",
    (STATE, STATE.replace("items()}", 'items() if "lora_B" in name}')),
)
wrong(
    "adapter-transposed",
    "A as (in, rank)",
    (
        STATE,
        STATE.replace(
            "weight.detach().clone()",
            'weight.detach().t().clone() if "lora_A" in name else weight.detach().clone()',
        ),
    ),
)
wrong(
    "adapter-scaled",
    "B with the scaling in it",
    (
        STATE,
        "s = next(iter(_lora_layers(model).values())).scaling\n    return {name: weight.detach() * (s if 'lora_B' in name else 1) for name, weight in _adapter_weights(model).items()}",
    ),
    also="load-wrong",
)
wrong("load-does-nothing", "nothing is copied", (COPY, "pass"))
wrong("load-wrong", "added", (COPY, "weight.add_(state[name])"))
wrong(
    "missing-accepted",
    "what is missing is passed over",
    (MISSING, ""),
    (
        "for name, weight in weights.items():\n        if state",
        "for name, weight in weights.items():\n        if name in state and state",
    ),
    (COPY, "if name in state:\n                weight.copy_(state[name])"),
)
wrong("unexpected-accepted", "what is unexpected is passed over", (EXTRA, ""))
wrong(
    "misshapen-accepted",
    "copy_ broadcasts",
    (SHAPE, "if False:"),
    also="wrong-error-type loaded-in-part",
)
wrong(
    "misshapen-accepted",
    "the number of elements is compared",
    (SHAPE, "if state[name].numel() != weight.numel():"),
    (COPY, "weight.copy_(state[name].reshape(weight.shape))"),
)
wrong("merged-accepted", "no look at merged", (IS_MERGED, "if False:"))
wrong(
    "merged-accepted",
    "all of them must be merged to refuse",
    (IS_MERGED, "if merged and len(merged) == len(_lora_layers(model)):"),
)
wrong(
    "loaded-in-part",
    "copied while it looks",
    (
        SHAPE,
        "if state[name].shape == weight.shape:\n            weight.data.copy_(state[name])\n        else:",
    ),
)
wrong(
    "load-freezes",
    "new parameters without a gradient",
    (
        COPY,
        "layer, part = name.removeprefix(PREFIX).rsplit('.', 1)[0].rsplit('.', 1)\n            setattr(getattr(model.get_submodule(layer), part), 'weight', nn.Parameter(state[name].clone(), requires_grad=False))",
    ),
)
wrong("state-edited", "popped", (COPY, "weight.copy_(state.pop(name))"))
wrong("wrong-error-type", "KeyError", ('("missing", weights.keys() - state.keys()),', ""))


# ── right answers ───────────────────────────────────────────────────────────────────────────────

bank.right_edit(
    "F.linear twice",
    (
        FORWARD,
        "h = nn.functional.linear(self.dropout(x), self.lora_A.weight)\n        return self.base(x) + nn.functional.linear(h, self.lora_B.weight) * self.scaling",
    ),
)
bank.right_edit(
    "matmul with transposes",
    (
        FORWARD,
        "u = self.dropout(x) @ self.lora_A.weight.T @ self.lora_B.weight.T\n        return self.base(x).add(u, alpha=self.scaling)",
    ),
)
bank.right_edit(
    "the update not by modules but in one matrix",
    (FORWARD, "return self.base(x) + nn.functional.linear(self.dropout(x), self._update())"),
)
bank.right_edit(
    "the scaling on the input",
    (FORWARD, "return self.base(x) + self.lora_B(self.lora_A(self.dropout(x) * self.scaling))"),
)
bank.right_edit(
    "an if around the update",
    (IF_MERGED, "y = self.base(x)"),
    (
        FORWARD,
        "if not self.merged:\n            y = y + self.lora_B(self.lora_A(self.dropout(x))) * self.scaling\n        return y",
    ),
)
bank.right_edit(
    "Identity without dropout",
    (DROPOUT, "self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()"),
)
bank.right_edit("the start that nn.Linear has anyway", (KAIMING, ""))
bank.right_edit(
    "uniform by hand",
    (
        KAIMING,
        "bound = base.in_features**-0.5\n        nn.init.uniform_(self.lora_A.weight, -bound, bound)",
    ),
)
bank.right_edit(
    "frozen by a loop",
    (
        FREEZE,
        "self.base = base\n        for p in base.parameters():\n            p.requires_grad = False",
    ),
)
bank.right_edit(
    "merging .data",
    (GRAD_MERGE, "def merge"),
    (
        MERGE,
        "if self.merged:\n            return\n        self.base.weight.data += self._update().detach()\n        self.merged = True",
    ),
)
bank.right_edit(
    "merging with F.linear",
    (
        UPDATE,
        "return nn.functional.linear(self.lora_A.weight.t(), self.lora_B.weight).t() * self.scaling",
    ),
)
bank.right_edit(
    "merging with addmm",
    (
        MERGE,
        "if not self.merged:\n            self.base.weight.addmm_(self.lora_B.weight, self.lora_A.weight, alpha=self.scaling)\n            self.merged = True",
    ),
)
bank.right_edit(
    "the old weight is kept while merged",
    (
        MERGE,
        "if not self.merged:\n            self.kept = self.base.weight.clone()\n            self.base.weight += self._update()\n            self.merged = True",
    ),
    (
        UNMERGE,
        "if self.merged:\n            self.base.weight.copy_(self.kept)\n            del self.kept\n            self.merged = False",
    ),
)
bank.right_edit(
    "a new parameter that is frozen",
    (
        MERGE,
        MERGE.replace(
            "self.base.weight += self._update()",
            "self.base.weight = nn.Parameter(self.base.weight + self._update(), requires_grad=False)",
        ),
    ),
)
bank.right_edit(
    "the parameters themselves in the state", (STATE, "return dict(_adapter_weights(model))")
)
bank.right_edit("a sorted list", (RETURN, "return sorted(made, reverse=True)"))

bank.right_file(
    "recursion by named_children, A and B switched on afterwards",
    """
    import math
    import torch
    import torch.nn as nn
    import torch.nn.functional as F


    class LoRALinear(nn.Module):
        def __init__(self, base, rank, alpha, dropout=0.0):
            super().__init__()
            self.base = base
            self.base.weight.requires_grad = False
            if self.base.bias is not None:
                self.base.bias.requires_grad = False
            self.rank, self.alpha = rank, alpha
            self.scaling = alpha / rank
            self.lora_A = nn.Linear(base.in_features, rank, bias=False).to(base.weight.device, base.weight.dtype)
            self.lora_B = nn.Linear(rank, base.out_features, bias=False).to(base.weight.device, base.weight.dtype)
            self.p = dropout
            self.merged = False
            self.reset_parameters()

        def reset_parameters(self):
            nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
            self.lora_B.weight.data.zero_()

        def delta(self):
            return torch.matmul(self.lora_B.weight, self.lora_A.weight) * self.scaling

        def merge(self):
            if self.merged:
                return
            with torch.no_grad():
                self.base.weight.add_(self.delta())
            self.merged = True

        def unmerge(self):
            if not self.merged:
                return
            with torch.no_grad():
                self.base.weight.sub_(self.delta())
            self.merged = False

        def forward(self, x):
            out = F.linear(x, self.base.weight, self.base.bias)
            if self.merged:
                return out
            z = F.dropout(x, p=self.p, training=self.training)
            return out + self.lora_B(self.lora_A(z)) * self.scaling


    def add_lora(model, rank=8, alpha=16, dropout=0.0, targets=("c_attn",)):
        if "lm_head" in targets:
            raise ValueError("lm_head is tied to the embeddings and cannot be a target")
        linear_names = set()
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                linear_names.add(name.split(".")[-1])
        for target in targets:
            if target not in linear_names:
                raise ValueError(f"target {target!r} not found among {sorted(linear_names)}")
        for p in model.parameters():
            p.requires_grad = False
        replaced = []

        def visit(module, path):
            for child_name, child in module.named_children():
                full = child_name if not path else path + "." + child_name
                if isinstance(child, LoRALinear):
                    continue
                if isinstance(child, nn.Linear) and child_name in targets:
                    new = LoRALinear(child, rank, alpha, dropout)
                    new.train(child.training)
                    setattr(module, child_name, new)
                    replaced.append(full)
                else:
                    visit(child, full)

        visit(model, "")
        return replaced


    def merge_lora(model):
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, LoRALinear):
                    child.merge()
                    setattr(module, name, child.base)


    PREFIX = "base_model.model.transformer."


    def adapter_state(model):
        state = {}
        for key, value in model.state_dict().items():
            if ".lora_A." in key or ".lora_B." in key:
                state[PREFIX + key] = value
        return state


    def load_adapter_state(model, state):
        for module in model.modules():
            if isinstance(module, LoRALinear) and module.merged:
                raise ValueError("unmerge first")
        own = {PREFIX + k: p for k, p in model.named_parameters() if ".lora_A." in k or ".lora_B." in k}
        for key in own:
            if key not in state:
                raise ValueError(f"missing {key}")
        for key, value in state.items():
            if key not in own:
                raise ValueError(f"unexpected {key}")
            if tuple(value.shape) != tuple(own[key].shape):
                raise ValueError(f"{key}: {tuple(value.shape)} is not {tuple(own[key].shape)}")
        for key, value in state.items():
            own[key].data = value.detach().clone().to(own[key].dtype)
    """,
)
bank.right_file(
    "get_submodule and load_state_dict",
    """
    import torch
    from torch import nn
    from torch.nn import functional as F


    class LoRALinear(nn.Module):
        def __init__(self, base, rank, alpha, dropout=0.0):
            super().__init__()
            base.requires_grad_(False)
            self.base = base
            factory = dict(dtype=base.weight.dtype, device=base.weight.device)
            self.lora_A = nn.Linear(base.weight.shape[1], rank, False, **factory)
            self.lora_B = nn.Linear(rank, base.weight.shape[0], False, **factory)
            with torch.no_grad():
                self.lora_B.weight.fill_(0)
            self.drop = nn.Dropout(p=dropout)
            self.register_buffer("scaling", torch.tensor(alpha / rank), persistent=False)
            self.merged = False

        def forward(self, x):
            y = self.base(x)
            return y if self.merged else y + self.scaling.to(x.dtype) * self.lora_B(self.lora_A(self.drop(x)))

        @torch.no_grad()
        def _change(self, sign):
            self.base.weight += sign * self.scaling.to(self.base.weight) * (self.lora_B.weight @ self.lora_A.weight)
            self.merged = not self.merged

        def merge(self):
            if not self.merged:
                self._change(1)

        def unmerge(self):
            if self.merged:
                self._change(-1)


    def _layers(model):
        return [(n, m) for n, m in model.named_modules() if isinstance(m, LoRALinear)]


    def _put(model, name, new):
        path = name.split(".")
        parent = model.get_submodule(".".join(path[:-1]))
        parent._modules[path[-1]] = new


    def add_lora(model, rank=8, alpha=16, dropout=0.0, targets=("c_attn",)):
        wanted = set(targets)
        todo = [
            (n, m)
            for n, m in model.named_modules()
            if isinstance(m, nn.Linear) and n.split(".")[-1] in wanted
        ]
        seen = {n.split(".")[-1] for n, _ in todo}
        if "lm_head" in wanted or wanted - seen:
            raise ValueError(f"bad targets {targets}: found {seen}")
        model.requires_grad_(False)
        for name, layer in todo:
            new = LoRALinear(layer, rank, alpha, dropout)
            new.train(layer.training)
            _put(model, name, new)
        return [name for name, _ in todo]


    def merge_lora(model):
        for name, layer in _layers(model):
            layer.merge()
            _put(model, name, layer.base)
        return model


    def adapter_state(model):
        result = {}
        for name, layer in _layers(model):
            for part in ("lora_A", "lora_B"):
                result["base_model.model.transformer." + name + "." + part + ".weight"] = getattr(layer, part).weight.data
        return result


    def load_adapter_state(model, state):
        if any(layer.merged for _, layer in _layers(model)):
            raise ValueError("the model is merged")
        mine = adapter_state(model)
        wrong = set(mine) ^ set(state)
        if wrong:
            raise ValueError(f"these do not match: {sorted(wrong)}")
        for key in mine:
            if mine[key].shape != state[key].shape:
                raise ValueError(f"shape of {key}")
        cut = len("base_model.model.transformer.")
        model.load_state_dict({key[cut:]: value for key, value in state.items()}, strict=False)
    """,
)
