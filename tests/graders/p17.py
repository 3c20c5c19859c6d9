"""Problem 17: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(17)

GROUPS = "groups = weight.float().reshape(N, K // group_size, group_size)"
SCALE = "scale = groups.abs().amax(-1) / _largest(bits)  # (N, G)"
ZERO = "return torch.where(scale > 0, scale, torch.ones_like(scale))"
REFUSE = "if group_size < 1 or K % group_size:"
STEPS = "steps = weight.float() / _per_weight(scale.float(), weight.size(1))"
ROUND = "return steps.round().clamp(-largest, largest).to(torch.int8)"
BACK = "return q.float() * _per_weight(scale.float(), q.size(1))"
ODD = "if q.size(1) % 2:"
NIBBLES = "nibbles = (q + 8).to(torch.uint8)"
PACK = "return nibbles[:, 0::2] | nibbles[:, 1::2] << 4"
PAIRS = "pairs = torch.stack((packed & 15, packed >> 4), -1)  # (N, K / 2, 2)"
UNPACK = "return pairs.flatten(1).to(torch.int8) - 8"
BITS = "if bits not in (4, 8):"
WEIGHT = "weight = linear.weight.detach()"
MAKE = "scale = absmax_scale(weight, bits, group_size)"
Q = "q = quantize(weight, scale, bits)"
QWEIGHT = 'self.register_buffer("qweight", pack_int4(q) if bits == 4 else q)'
BUFFER = 'self.register_buffer("scale", scale)'
BIAS = "self.bias = linear.bias"
READ = "q = unpack_int4(self.qweight) if self.bits == 4 else self.qweight"
FORWARD = "return F.linear(x, dequantize(q, self.scale).to(x.dtype), self.bias)"
HELD = "held = (self.qweight, self.scale, self.bias)"
BYTES = "return sum(t.numel() * t.element_size() for t in held if t is not None)"
LAYERS = "layers = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]"
MADE = "made = {name: QuantizedLinear(layer, bits, group_size) for name, layer in layers}"
SET = "setattr(model.get_submodule(parent), last, made[name].train(layer.training))"
NAMES = "return list(made)"
LARGEST = "return 2 ** (bits - 1) - 1"
SPREAD = "return scale.repeat_interleave(K // scale.size(1), 1)"


def wrong(mistake: str, title: str, *edits: tuple[str, str], also: str = "") -> None:
    bank.wrong_edit(mistake, title, *edits, also=also)


# the scale
wrong(
    "scale-over-128", "absmax over 128", (SCALE, SCALE.replace("_largest(bits)", "2 ** (bits - 1)"))
)
wrong(
    "scale-full-range", "absmax over 255", (SCALE, SCALE.replace("_largest(bits)", "(2**bits - 1)"))
)
wrong("scale-full-range", "absmax over 256", (SCALE, SCALE.replace("_largest(bits)", "2**bits")))
wrong(
    "scale-half-steps",
    "absmax over 127.5",
    (SCALE, SCALE.replace("_largest(bits)", "((2**bits - 1) / 2)")),
)
wrong(
    "bits-ignored", "absmax over 127 at 4 bits too", (SCALE, SCALE.replace("_largest(bits)", "127"))
)
wrong("scale-without-absolute", "amax without abs", (SCALE, SCALE.replace(".abs()", "")))
wrong(
    "scale-without-absolute",
    "amax, then abs",
    (SCALE, SCALE.replace(".abs().amax(-1)", ".amax(-1).abs()")),
)
wrong(
    "scale-without-absolute",
    "the scale keeps the sign of the extreme, as Q4_0 does",
    (
        SCALE,
        "at = groups.abs().argmax(-1, keepdim=True)\n"
        "    scale = groups.gather(-1, at)[..., 0] / _largest(bits)",
    ),
    (ZERO, "return torch.where(scale != 0, scale, torch.ones_like(scale))"),
)
wrong(
    "scale-asymmetric",
    "max − min over 255",
    (SCALE, "scale = (groups.amax(-1) - groups.amin(-1)) / (2**bits - 1)"),
)
wrong(
    "scale-asymmetric",
    "max − min over 127",
    (SCALE, "scale = (groups.amax(-1) - groups.amin(-1)) / _largest(bits)"),
)
wrong("scale-of-the-average", "mean of the absolute values", (SCALE, SCALE.replace("amax", "mean")))
wrong(
    "scale-of-the-average",
    "the standard deviation",
    (SCALE, "scale = groups.std(-1) / _largest(bits)"),
)
wrong("scale-of-the-average", "the norm", (SCALE, "scale = groups.norm(dim=-1) / _largest(bits)"))
wrong(
    "scale-for-all",
    "one scale for the whole tensor, given to all",
    (SCALE, "scale = groups.abs().max().expand(N, K // group_size) / _largest(bits)"),
)
wrong(
    "scale-for-all",
    "one number, (1, 1)",
    (SCALE, "scale = groups.abs().max().view(1, 1) / _largest(bits)"),
)
wrong(
    "scale-along-n",
    "amax over axis 0",
    (
        SCALE,
        "scale = weight.float().abs().amax(0) / _largest(bits)\n"
        "    if group_size != K:\n"
        "        scale = groups.abs().amax(-1) / _largest(bits)",
    ),
)
wrong(
    "scale-along-n",
    "amax over axis 0, kept",
    (
        SCALE,
        "scale = weight.float().abs().amax(0, keepdim=True) / _largest(bits)\n"
        "    if group_size != K:\n"
        "        scale = groups.abs().amax(-1) / _largest(bits)",
    ),
)
wrong(
    "scale-along-n",
    "amax over axis 0, as a column: silent on a square",
    (
        SCALE,
        "scale = weight.float().abs().amax(0)[:, None] / _largest(bits)\n"
        "    if group_size != K:\n"
        "        scale = groups.abs().amax(-1) / _largest(bits)",
    ),
)
wrong(
    "scale-shape",
    "(N,) without groups",
    (ZERO, ZERO + ".squeeze(-1)"),
)
wrong("scale-inverted", "127 / absmax", (SCALE, "scale = _largest(bits) / groups.abs().amax(-1)"))
wrong("scale-not-divided", "absmax itself", (SCALE, "scale = groups.abs().amax(-1)"))
wrong("scale-rounded", "float16 scales", (ZERO, ZERO + ".half()"))
wrong("scale-rounded", "bfloat16 scales in float32", (ZERO, ZERO + ".bfloat16().float()"))
wrong("zeros-have-no-scale", "0 for zeros", (ZERO, "return scale"))
wrong("zeros-scale-not-one", "1e-8 at least", (ZERO, "return scale.clamp(min=1e-12)"))
wrong(
    "zeros-scale-not-one",
    "eps of float32 at least",
    (ZERO, "return torch.where(scale > 0, scale, torch.full_like(scale, 1.2e-7))"),
)
wrong(
    "scale-has-a-floor",
    "1e-8 is added",
    (ZERO, "return torch.where(scale > 0, scale + 1e-8, torch.ones_like(scale))"),
)
wrong(
    "scale-has-a-floor",
    "clamped to 1e-5, as in gpt-fast's cousins",
    (ZERO, "return torch.where(scale > 0, scale.clamp(min=1e-5), torch.ones_like(scale))"),
)
wrong(
    "groups-ignored",
    "one group a row",
    (GROUPS, "groups = weight.float().reshape(N, 1, K)"),
)
wrong(
    "group-count-for-size",
    "group_size groups",
    (GROUPS, "groups = weight.float().reshape(N, 1 if group_size == K else group_size, -1)"),
)
wrong(
    "groups-interleaved",
    "every G-th weight",
    (GROUPS, "groups = weight.float().reshape(N, group_size, K // group_size).transpose(1, 2)"),
)
wrong(
    "groups-along-n",
    "groups down the columns, by a reshape of the transpose",
    (
        GROUPS,
        "groups = weight.float()[:, None] if group_size == K else "
        "weight.float().t().reshape(N, K // group_size, group_size)",
    ),
)
wrong(
    "group-size-not-checked",
    "the rest is dropped",
    (REFUSE, "if False:"),
    (
        GROUPS,
        "group_size = min(group_size, K)\n"
        "    groups = weight.float()[:, : K // group_size * group_size]"
        ".reshape(N, K // group_size, group_size)",
    ),
)
wrong(
    "group-size-not-checked",
    "the last group is smaller",
    (REFUSE, "if False:"),
    (GROUPS, "groups = weight.float().split(group_size, 1)"),
    (SCALE, "scale = torch.stack([g.abs().amax(1) for g in groups], 1) / _largest(bits)"),
)
wrong(
    "wrong-error-type",
    "an assertion",
    (REFUSE, "assert K % group_size == 0\n    if group_size < 1:"),
)
# integers
wrong("truncated", "no round", (ROUND, ROUND.replace(".round()", "")))
wrong("truncated", "floor", (ROUND, ROUND.replace("round", "floor")))
wrong("truncated", "ceil", (ROUND, ROUND.replace("round", "ceil")))
wrong(
    "truncated",
    "0.5 added, then cut off",
    (ROUND, ROUND.replace("steps.round()", "(steps + 0.5).trunc()")),
)
wrong("lowest-integer-used", "clamped to −128", (ROUND, ROUND.replace("-largest", "-largest - 1")))
wrong("not-clamped", "no clamp", (ROUND, ROUND.replace(".clamp(-largest, largest)", "")))
wrong("not-clamped", "±127 at 4 bits", (ROUND, ROUND.replace("(-largest, largest)", "(-127, 127)")))
wrong(
    "not-clamped",
    "−128 … 127 at 4 bits",
    (ROUND, ROUND.replace("(-largest, largest)", "(-128, 127)")),
    also="lowest-integer-used",
)
wrong(
    "not-clamped",
    "converted before it is clamped",
    (ROUND, "return steps.round().to(torch.int64).to(torch.int8).clamp(-largest, largest)"),
)
wrong(
    "clamped-too-narrow",
    "±126",
    (ROUND, ROUND.replace("(-largest, largest)", "(1 - largest, largest - 1)")),
)
wrong("clamped-too-narrow", "negative ones are lost", (ROUND, ROUND.replace("-largest,", "0,")))
wrong("multiplied-by-scale", "times the scale", (STEPS, STEPS.replace("/", "*")))
wrong("not-scaled", "the scale is not used", (STEPS, "steps = weight.float()"))
wrong(
    "rounded-before-division",
    "round(w) / s",
    (STEPS, STEPS.replace("weight.float()", "weight.float().round()")),
)
wrong("quantize-not-int8", "floats", (ROUND, ROUND.replace(".to(torch.int8)", "")))
wrong("quantize-not-int8", "int32", (ROUND, ROUND.replace("int8", "int32")))
wrong(
    "rounding-at-random",
    "stochastic rounding",
    (
        ROUND,
        "return (steps + torch.rand_like(steps)).floor().clamp(-largest, largest).to(torch.int8)",
    ),
)
wrong(
    "groups-tiled",
    "repeat for repeat_interleave",
    (SPREAD, "return scale.repeat(1, K // scale.size(1))"),
)
wrong("groups-tiled", "tile", (SPREAD, "return torch.tile(scale, (1, K // scale.size(1)))"))
wrong("first-group-for-all", "the first group's scale", (SPREAD, "return scale[:, :1]"))
wrong(
    "scale-by-column",
    "scale[:, 0]",
    (
        SPREAD,
        "return scale[:, 0] if scale.size(1) == 1 else scale.repeat_interleave(K // scale.size(1), 1)",
    ),
    also="raises shape-mismatch",
)
wrong("scale-not-applied", "integers as floats", (BACK, "return q.float()"))
wrong("divided-by-scale", "q / s", (BACK, BACK.replace(" * ", " / ")))
wrong("half-a-step-off", "half a step more", (BACK, BACK.replace("q.float()", "(q.float() + 0.5)")))
wrong(
    "dequantize-not-float32",
    "float64",
    (BACK, BACK.replace("q.float()", "q.double()")),
    also="fixed-dtype",
)
wrong(
    "groups-tiled",
    "only when dequantizing",
    (BACK, "return q.float() * scale.repeat(1, q.size(1) // scale.size(1))"),
)
# packing
wrong(
    "nibbles-exchanged",
    "the even column high",
    (PACK, "return nibbles[:, 1::2] | nibbles[:, 0::2] << 4"),
)
wrong(
    "nibbles-exchanged",
    "both exchanged: the round trip works",
    (PACK, "return nibbles[:, 1::2] | nibbles[:, 0::2] << 4"),
    (PAIRS, PAIRS.replace("packed & 15, packed >> 4", "packed >> 4, packed & 15")),
    also="unpacked-exchanged",
)
wrong(
    "halves-packed",
    "first half with second half",
    (PACK, "half = q.size(1) // 2\n    return nibbles[:, :half] | nibbles[:, half:] << 4"),
)
wrong(
    "rows-packed",
    "two rows in a byte",
    (PACK, "return nibbles[0::2] | nibbles[1::2] << 4"),
    also="raises",
)
wrong("offset-missing", "two's complement", (NIBBLES, "nibbles = (q & 15).to(torch.uint8)"))
wrong("offset-missing", "the sign fills the byte", (NIBBLES, "nibbles = q.to(torch.uint8)"))
wrong("offset-missing", "absolute values", (NIBBLES, "nibbles = q.abs().to(torch.uint8)"))
wrong("offset-wrong", "7 added", (NIBBLES, "nibbles = (q + 7).to(torch.uint8)"))
wrong(
    "offset-once",
    "8 added to the even ones alone",
    (PACK, "return nibbles[:, 0::2] | ((q[:, 1::2] & 15).to(torch.uint8) << 4)"),
)
wrong("not-shifted", "no shift", (PACK, "return nibbles[:, 0::2] | nibbles[:, 1::2]"))
wrong("not-shifted", "times 8", (PACK, "return nibbles[:, 0::2] | nibbles[:, 1::2] * 8"))
wrong(
    "pack-not-uint8",
    "int8",
    (PACK, "return (nibbles[:, 0::2] | nibbles[:, 1::2] << 4).to(torch.int8)"),
)
wrong("pack-not-uint8", "int32", (NIBBLES, "nibbles = (q + 8).to(torch.int32)"))
wrong(
    "odd-not-refused",
    "padded with a zero",
    (ODD, "if q.size(1) % 2:\n        q = F.pad(q, (0, 1))\n    if False:"),
)
wrong(
    "odd-not-refused",
    "the last one is dropped",
    (ODD, "q = q[:, : q.size(1) // 2 * 2]\n    if False:"),
)
wrong("wrong-error-type", "whatever torch says", (ODD, "if False:"))
wrong(
    "unpacked-exchanged",
    "the high half first",
    (PAIRS, PAIRS.replace("packed & 15, packed >> 4", "packed >> 4, packed & 15")),
)
wrong("unpacked-in-halves", "cat", (PAIRS, "pairs = torch.cat((packed & 15, packed >> 4), 1)"))
wrong(
    "unpacked-in-halves",
    "stacked in front of the columns",
    (PAIRS, "pairs = torch.stack((packed & 15, packed >> 4), 1)"),
)
wrong(
    "unpacked-in-rows",
    "cat along the rows",
    (PAIRS, "pairs = torch.cat((packed & 15, packed >> 4), 0)"),
)
wrong("offset-kept", "0 … 15", (UNPACK, UNPACK.replace(" - 8", "")))
wrong(
    "offset-kept",
    "read as two's complement",
    (UNPACK, "n = pairs.flatten(1).to(torch.int8)\n    return torch.where(n > 7, n - 16, n)"),
)
wrong("high-bits-left", "no & 15", (PAIRS, PAIRS.replace("packed & 15", "packed")))
wrong("unpack-not-int8", "uint8 wraps", (UNPACK, "return pairs.flatten(1) - 8"))
wrong("unpack-not-int8", "int64", (UNPACK, UNPACK.replace("int8", "int64")))
# the layer
wrong(
    "qweight-not-a-buffer",
    "parameters that are not trained",
    (BUFFER, "self.scale = nn.Parameter(scale, requires_grad=False)"),
)
wrong(
    "qweight-not-a-buffer",
    "plain attributes",
    (QWEIGHT, "self.qweight = pack_int4(q) if bits == 4 else q"),
)
wrong("buffer-not-saved", "persistent=False", (QWEIGHT, QWEIGHT[:-1] + ", persistent=False)"))
wrong(
    "float-copy-kept",
    "the linear layer is kept",
    (BIAS, BIAS + "\n        self.linear = linear"),
    also="bad-copy",
)
wrong(
    "float-copy-kept",
    "the weight is kept as an attribute",
    (BIAS, BIAS + "\n        self.original = weight.clone()"),
)
wrong(
    "float-copy-kept",
    "a buffer of the float weight",
    (BIAS, BIAS + '\n        self.register_buffer("w", dequantize(q, scale))'),
)
wrong("float-copy-kept", "kept in a list", (BIAS, BIAS + "\n        self.kept = [weight.clone()]"))
wrong(
    "float-copy-kept",
    "dequantized once, at the first call",
    (
        FORWARD,
        'if not hasattr(self, "w"):\n            self.w = dequantize(q, self.scale)\n        return F.linear(x, self.w, self.bias)',
    ),
    also="module-remembers bad-copy plain-attribute wrong-device",
)
wrong("graph-kept", "the scale hangs on the weight", (WEIGHT, "weight = linear.weight"))
wrong(
    "qweight-not-packed",
    "4 bits in a byte each",
    (QWEIGHT, 'self.register_buffer("qweight", q)'),
    (READ, "q = self.qweight"),
)
wrong(
    "layer-bits-ignored",
    "the scale of 8 bits",
    (MAKE, MAKE.replace("bits", "8")),
    also="qweight-not-packed",
)
wrong(
    "layer-bits-ignored",
    "bits not handed to the scale",
    (MAKE, "scale = absmax_scale(weight, group_size=group_size)"),
)
wrong(
    "layer-bits-ignored",
    "always 8 bits",
    (BITS, "if bits not in (4, 8):"),
    (MAKE, MAKE.replace("bits", "8")),
    (Q, Q.replace("bits", "8")),
    (QWEIGHT, 'self.register_buffer("qweight", q)'),
    (READ, "q = self.qweight"),
)
wrong(
    "layer-groups-ignored",
    "no groups",
    (MAKE, "scale = absmax_scale(weight, bits)"),
    also="group-size-not-checked",
)
wrong("bits-not-checked", "any bits", (BITS, "if bits < 0:"), also="wrong-error-type no-error")
wrong("bias-not-kept", "the bias is lost", (BIAS, "self.bias = None"), also="bias-missing")
wrong(
    "bias-not-kept",
    "the bias is quantized",
    (
        BIAS,
        "self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().half().float())",
    ),
    also="bias-scaled",
)
wrong(
    "bias-not-kept",
    "a plain attribute",
    (BIAS, "self.bias = None if linear.bias is None else linear.bias.detach().clone()"),
)
wrong(
    "layer-edited",
    "the weight is rounded in place",
    (BUFFER, BUFFER + "\n        linear.weight.data.copy_(dequantize(q, scale))"),
)
wrong("bias-missing", "no bias", (FORWARD, FORWARD.replace(", self.bias)", ")")))
wrong(
    "bias-twice",
    "added again",
    (
        FORWARD,
        "y = F.linear(x, dequantize(q, self.scale), self.bias)\n        return y if self.bias is None else y + self.bias",
    ),
)
wrong("product-not-scaled", "integers alone", (FORWARD, "return F.linear(x, q.float(), self.bias)"))
wrong(
    "bias-scaled",
    "(x qᵀ + b) s",
    (
        FORWARD,
        "y = F.linear(x, q.float(), self.bias)\n        return y * self.scale[:, 0] if self.scale.size(1) == 1 else F.linear(x, dequantize(q, self.scale), self.bias)",
    ),
)
wrong(
    "input-quantized",
    "int8 activations",
    (
        FORWARD,
        "step = x.abs().amax(-1, keepdim=True) / 127\n        x = (x / step).round() * step\n        return F.linear(x, dequantize(q, self.scale), self.bias)",
    ),
)
wrong(
    "input-quantized",
    "bfloat16 rows",
    (FORWARD, "return F.linear(x.bfloat16().float(), dequantize(q, self.scale), self.bias)"),
)
wrong(
    "weight-transposed",
    "x W on a square",
    (
        FORWARD,
        "w = dequantize(q, self.scale)\n        y = x @ w if len(w) == w.size(1) else x @ w.t()\n        return y if self.bias is None else y + self.bias",
    ),
)
wrong("packed-not-unpacked", "the bytes are multiplied", (READ, "q = self.qweight"))
wrong(
    "computes-with-the-float-weight",
    "the weight's function is kept in a closure",
    (BIAS, BIAS + "\n        self.run = lambda x: F.linear(x, weight, linear.bias)"),
    (FORWARD, "return self.run(x)"),
    also="bad-copy",
)
wrong(
    "groups-tiled",
    "in forward alone",
    (
        FORWARD,
        "w = q.float() * self.scale.repeat(1, q.size(1) // self.scale.size(1))\n        return F.linear(x, w, self.bias)",
    ),
)
wrong(
    "nbytes-counts-numbers",
    "numbers",
    (BYTES, "return sum(t.numel() for t in held if t is not None)"),
)
wrong("nbytes-without-scale", "without the scale", (HELD, "held = (self.qweight, self.bias)"))
wrong("nbytes-without-bias", "without the bias", (HELD, "held = (self.qweight, self.scale)"))
wrong(
    "nbytes-of-floats",
    "4 bytes a weight",
    (BYTES, "return 4 * self.in_features * self.out_features"),
)
wrong("nbytes-a-method", "a method", ("    @property\n    def nbytes", "    def nbytes"))
# the model
wrong(
    "head-left-out",
    "the blocks alone",
    (
        LAYERS,
        LAYERS.replace(
            "isinstance(m, nn.Linear)]", 'isinstance(m, nn.Linear) and name != "lm_head"]'
        ),
    ),
)
wrong(
    "layers-left-out",
    "one block",
    (
        LAYERS,
        LAYERS.replace(
            "isinstance(m, nn.Linear)]", 'isinstance(m, nn.Linear) and "h.1" not in name]'
        ),
    ),
)
wrong(
    "layers-left-out",
    "the attention alone",
    (
        LAYERS,
        LAYERS.replace(
            "isinstance(m, nn.Linear)]", 'isinstance(m, nn.Linear) and "mlp" not in name]'
        ),
    ),
)
wrong(
    "layers-left-out",
    "direct children alone",
    (LAYERS, LAYERS.replace("named_modules", "named_children")),
)
wrong(
    "embeddings-quantized",
    "the shared table is rounded too",
    (
        NAMES,
        "w = model.embeddings.wte.weight.data\n    s = absmax_scale(w, bits, group_size)\n    w.copy_(dequantize(quantize(w, s, bits), s))\n    "
        + NAMES,
    ),
)
wrong(
    "embeddings-quantized",
    "the position table is emptied",
    (NAMES, "model.embeddings.wpe.weight.data.zero_()\n    " + NAMES),
)
wrong(
    "norms-changed",
    "biases are rounded",
    (
        MADE,
        "for _, layer in layers:\n        if layer.bias is not None:\n            layer.bias.data = layer.bias.data.half().float()\n    "
        + MADE,
    ),
)
wrong(
    "not-in-place",
    "a copy is made",
    (LAYERS, "import copy\n\n    model = copy.deepcopy(model)\n    " + LAYERS),
)
wrong("not-in-place", "nothing is put in", (SET, "pass"))
wrong(
    "names-wrong",
    "the last parts alone",
    (NAMES, 'return [name.rpartition(".")[2] for name in made]'),
)
wrong("names-wrong", "how many", (NAMES, "return len(made)"))
wrong("names-wrong", "nothing", (NAMES, "return None"))
wrong("names-wrong", "the model", (NAMES, "return model"))
wrong(
    "model-bits-ignored",
    "8 bits",
    (MADE, MADE.replace("bits, group_size", "8, group_size")),
    also="bits-not-checked",
)
wrong(
    "model-groups-ignored",
    "no groups",
    (MADE, MADE.replace(", group_size)", ")")),
    also="group-size-not-checked",
)
wrong(
    "half-done",
    "each is put in as it is made",
    (MADE, "made = dict(layers)"),
    ("made[name].train(layer.training)", "QuantizedLinear(layer, bits, group_size)"),
)


# ── right answers ───────────────────────────────────────────────────────────────────────────────

bank.right_edit(
    "rounding by rint", (ROUND, ROUND.replace("steps.round()", "torch.round(steps, decimals=0)"))
)
bank.right_edit(
    "rounding half up",
    (ROUND, "return torch.floor(steps + 0.5).clamp(-largest, largest).to(torch.int8)"),
)
bank.right_edit(
    "rounding half away from zero",
    (
        ROUND,
        "return (torch.sign(steps) * (steps.abs() + 0.5).floor()).clamp(-largest, largest).char()",
    ),
)
bank.right_edit(
    "clamped before it is rounded",
    (ROUND, "return steps.clamp(-largest, largest).round().to(torch.int8)"),
)
bank.right_edit(
    "rounding in float64",
    (STEPS, STEPS.replace("float()", "double()").replace("scale.double()", "scale.double()")),
)
bank.right_edit(
    "packing by multiplication",
    (PACK, "return (nibbles[:, 0::2] + 16 * nibbles[:, 1::2]).to(torch.uint8)"),
)
bank.right_edit(
    "packing two's complement with the sign bit turned",
    (NIBBLES, "nibbles = ((q & 15) ^ 8).to(torch.uint8)"),
)
bank.right_edit(
    "unpacking by division and remainder",
    (PAIRS, "pairs = torch.stack((packed % 16, packed // 16), -1)"),
)
bank.right_edit(
    "unpacking into a made tensor",
    (
        PAIRS,
        "pairs = torch.empty(len(packed), 2 * packed.size(1), dtype=torch.uint8)\n"
        "    pairs[:, 0::2], pairs[:, 1::2] = packed & 15, packed >> 4",
    ),
)
bank.right_edit(
    "subtracting in uint8, which wraps as it should",
    (UNPACK, "return (pairs.flatten(1) - 8).view(torch.int8)"),
)
bank.right_edit(
    "the product first, then the scales",
    (
        FORWARD,
        "if self.scale.size(1) == 1:\n"
        "            y = F.linear(x, q.to(x.dtype)) * self.scale[:, 0]\n"
        "        else:\n"
        "            parts = x.unflatten(-1, (self.scale.size(1), -1))\n"
        '            y = torch.einsum("...gk,ngk,ng->...n", parts, '
        "q.float().unflatten(1, (self.scale.size(1), -1)), self.scale)\n"
        "        return y if self.bias is None else y + self.bias",
    ),
)
bank.right_edit(
    "a buffer for the bias",
    (
        BIAS,
        'self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())',
    ),
)
bank.right_edit("a list sorted the other way", (NAMES, "return sorted(made, reverse=True)"))
bank.right_edit("zeros in place", (ZERO, "scale[scale == 0] = 1.0\n    return scale"))
bank.right_edit("masked_fill", (ZERO, "return scale.masked_fill(scale == 0, 1.0)"))
bank.right_edit(
    "min and max",
    (SCALE, "scale = torch.maximum(groups.amax(-1), -groups.amin(-1)) / _largest(bits)"),
)
bank.right_edit(
    "the infinity norm",
    (SCALE, 'scale = torch.linalg.vector_norm(groups, float("inf"), -1) / _largest(bits)'),
)
bank.right_edit("bit shifts for the largest integer", (LARGEST, "return (1 << bits - 1) - 1"))
bank.right_edit(
    "scales as a view of groups",
    (
        STEPS,
        "G = scale.size(1)\n    steps = (weight.float().unflatten(1, (G, -1)) / scale[..., None]).flatten(1)",
    ),
)
bank.right_edit(
    "kron",
    (SPREAD, "return torch.kron(scale, torch.ones(1, K // scale.size(1), device=scale.device))"),
)
bank.right_edit(
    "indexed by column",
    (SPREAD, "return scale[:, torch.arange(K, device=scale.device) // (K // scale.size(1))]"),
)
bank.right_edit(
    "no_grad for detach",
    (WEIGHT, "weight = linear.weight"),
    (MAKE, "with torch.no_grad():\n            scale = absmax_scale(weight, bits, group_size)"),
)

bank.right_file(
    "loops over rows and groups",
    """
    import torch
    import torch.nn as nn


    def absmax_scale(weight, bits=8, group_size=None):
        N, K = weight.shape
        size = group_size or K
        if K % size != 0:
            raise ValueError("group size must divide the row")
        qmax = 127 if bits == 8 else 7
        out = torch.zeros(N, K // size, dtype=torch.float32)
        for n in range(N):
            for g in range(K // size):
                biggest = 0.0
                for k in range(g * size, (g + 1) * size):
                    biggest = max(biggest, abs(float(weight[n, k])))
                out[n, g] = biggest / qmax if biggest > 0 else 1.0
        return out


    def quantize(weight, scale, bits=8):
        N, K = weight.shape
        size = K // scale.shape[1]
        qmax = 2 ** (bits - 1) - 1
        out = torch.zeros(N, K, dtype=torch.int8)
        for g in range(scale.shape[1]):
            part = weight[:, g * size : (g + 1) * size].float()
            out[:, g * size : (g + 1) * size] = torch.clamp(
                torch.round(part / scale[:, g : g + 1]), -qmax, qmax
            ).to(torch.int8)
        return out


    def dequantize(q, scale):
        size = q.shape[1] // scale.shape[1]
        parts = [
            part.to(torch.float32) * scale[:, g].unsqueeze(1)
            for g, part in enumerate(torch.split(q, size, dim=1))
        ]
        return torch.cat(parts, dim=1)


    def pack_int4(q):
        if q.shape[1] % 2 != 0:
            raise ValueError("odd number of columns")
        shifted = q.to(torch.int32) + 8
        low, high = shifted[:, ::2], shifted[:, 1::2]
        return torch.bitwise_or(low, torch.bitwise_left_shift(high, 4)).to(torch.uint8)


    def unpack_int4(packed):
        low = torch.bitwise_and(packed, 0x0F)
        high = torch.bitwise_right_shift(packed, 4)
        N, half = packed.shape
        return (torch.stack([low, high], dim=2).reshape(N, 2 * half).to(torch.int16) - 8).to(torch.int8)


    class QuantizedLinear(nn.Module):
        def __init__(self, linear, bits=8, group_size=None):
            super().__init__()
            if bits != 8 and bits != 4:
                raise ValueError(f"cannot store {bits} bits")
            self.bits = bits
            with torch.no_grad():
                scale = absmax_scale(linear.weight, bits, group_size)
                q = quantize(linear.weight, scale, bits)
                if bits == 4:
                    q = pack_int4(q)
            self.register_buffer("qweight", q)
            self.register_buffer("scale", scale)
            if linear.bias is not None:
                self.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
            else:
                self.register_parameter("bias", None)

        @property
        def nbytes(self):
            total = self.qweight.nbytes + self.scale.nbytes
            if self.bias is not None:
                total += self.bias.nbytes
            return total

        def forward(self, x):
            q = self.qweight
            if self.bits == 4:
                q = unpack_int4(q)
            y = torch.matmul(x, dequantize(q, self.scale).t())
            if self.bias is not None:
                y = y + self.bias
            return y


    def quantize_model(model, bits=8, group_size=None):
        new, names = [], []

        def walk(module, prefix):
            for name, child in module.named_children():
                full = f"{prefix}.{name}" if prefix else name
                if isinstance(child, nn.Linear):
                    new.append((module, name, QuantizedLinear(child, bits, group_size)))
                    names.append(full)
                else:
                    walk(child, full)

        walk(model, "")
        for parent, name, layer in new:
            setattr(parent, name, layer)
        return names
    """,
)
bank.right_file(
    "by the blocks' names, with _modules",
    """
    import numpy as np
    import torch
    import torch.nn as nn
    import torch.nn.functional as F


    def absmax_scale(weight, bits=8, group_size=None):
        rows, cols = weight.shape
        g = cols if group_size is None else group_size
        if g <= 0 or cols % g:
            raise ValueError(f"group_size {g} does not divide K {cols}")
        m = weight.detach().to(torch.float32).abs().view(rows, cols // g, g).max(dim=2).values
        s = m / float(2 ** (bits - 1) - 1)
        s[m == 0] = 1
        return s


    def quantize(weight, scale, bits=8):
        lim = 2 ** (bits - 1) - 1
        g = weight.size(1) // scale.size(1)
        w = weight.detach().float().cpu().numpy().reshape(weight.size(0), scale.size(1), g)
        q = np.clip(np.rint(w / scale.numpy()[:, :, None]), -lim, lim).astype(np.int8)
        return torch.from_numpy(q.reshape(weight.shape))


    def dequantize(q, scale):
        g = q.size(1) // scale.size(1)
        return (q.view(q.size(0), -1, g).float() * scale.unsqueeze(2)).view(q.shape)


    def pack_int4(q):
        n, k = q.shape
        if k & 1:
            raise ValueError(f"K = {k}")
        pairs = (q.view(n, k // 2, 2).to(torch.int16) + 8)
        return (pairs[..., 0] + pairs[..., 1] * 16).to(torch.uint8)


    def unpack_int4(packed):
        table = torch.arange(16, dtype=torch.int8) - 8
        b = packed.long()
        out = torch.empty(packed.size(0), packed.size(1) * 2, dtype=torch.int8)
        out[:, ::2] = table[b & 0xF]
        out[:, 1::2] = table[b >> 4]
        return out


    class QuantizedLinear(nn.Module):
        def __init__(self, linear, bits=8, group_size=None):
            super().__init__()
            if bits not in {4, 8}:
                raise ValueError(bits)
            scale = absmax_scale(linear.weight.data, bits, group_size)
            ints = quantize(linear.weight.data, scale, bits)
            self.register_buffer("scale", scale)
            self.register_buffer("qweight", ints if bits == 8 else pack_int4(ints))
            self.register_parameter("bias", linear.bias)

        def forward(self, x):
            ints = unpack_int4(self.qweight) if self.qweight.dtype == torch.uint8 else self.qweight
            return F.linear(x, dequantize(ints, self.scale), self.bias)

        @property
        def nbytes(self):
            bias = 0 if self.bias is None else self.bias.numel() * 4
            return self.qweight.numel() + self.scale.numel() * 4 + bias


    def quantize_model(model, bits=8, group_size=None):
        names = []
        todo = []
        for i, block in enumerate(model.h):
            for part, keys in (("attn", ("c_attn", "c_proj")), ("mlp", ("c_fc", "c_proj"))):
                for key in keys:
                    holder = getattr(block, part)
                    todo.append((holder, key, QuantizedLinear(getattr(holder, key), bits, group_size)))
                    names.append(f"h.{i}.{part}.{key}")
        todo.append((model, "lm_head", QuantizedLinear(model.lm_head, bits, group_size)))
        for holder, key, new in todo:
            holder._modules[key] = new
        return names + ["lm_head"]
    """,
)
