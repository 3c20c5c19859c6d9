"""Checks of problem 17. The oracle is PyTorch's torch.fake_quantize_per_channel_affine."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import (
    attribute,
    check,
    compare,
    expect_copies,
    expect_error,
    expect_module,
    expect_no_edit,
    expect_no_memory,
    fail,
    fill,
    sizes_from,
    tensor,
)

KNOWN = known(__file__)
# N outputs, G groups of SIZE neighbors, K = G · SIZE inputs: all differ, and K is even for packing
N, G, SIZE = sizes_from((5, 4, 6), (7, 3, 10), (9, 4, 8))
K = G * SIZE


# ── the computation, each step replaceable ──────────────────────────────────────────────────────


def in_rows(w, size):
    """(N, K) → (N, G, size)."""
    return w.reshape(len(w), -1, size or w.size(1))


def symmetric(bits):
    """The largest integer."""
    return 2 ** (bits - 1) - 1


def each_its_group(scale, k):
    """(N, G) → (N, K), the scale of each weight."""
    return scale.repeat_interleave(k // scale.size(1), 1)


def scale_of(
    w,
    bits=8,
    size=None,
    *,
    see=in_rows,
    of=lambda groups: groups.abs().amax(-1),
    largest=symmetric,
    end=lambda scale: scale,
):
    """The scales of a weight with any step replaced."""
    return end(of(see(w.float(), size)) / largest(bits))


def quantized(
    w,
    scale,
    bits=8,
    *,
    spread=each_its_group,
    divide=lambda w, scale: w / scale,
    rounding=torch.round,
    convert=lambda steps: steps,
    limits=lambda bits: (-symmetric(bits), symmetric(bits)),
):
    """The integers of a weight with any step replaced; out of int8's range they wrap."""
    steps = convert(rounding(divide(w.float(), spread(scale, w.size(1)))))
    return steps.clamp(*limits(bits)).to(torch.int64).to(torch.int8)


def dequantized(q, scale, *, spread=each_its_group, multiply=lambda q, scale: q * scale):
    """The weights of integers with any step replaced."""
    return multiply(q.float(), spread(scale, q.size(1)))


def packed_bytes(
    q,
    *,
    offset=lambda q: q + 8,
    low=lambda q: q[:, 0::2],
    high=lambda q: q[:, 1::2],
    join=lambda low, high: low | high << 4,
):
    """The bytes of pairs of integers with any step replaced."""
    q = offset(q.to(torch.int64))
    return join(low(q), high(q)).to(torch.uint8)


def unpacked(
    b,
    *,
    low=lambda b: b & 15,
    high=lambda b: b >> 4,
    offset=lambda n: n - 8,
    lay=lambda low, high: torch.stack((low, high), -1).flatten(1),
):
    """The integers of bytes with any step replaced."""
    b = b.to(torch.int64)
    return lay(offset(low(b)), offset(high(b))).to(torch.int8)


def output_of(
    x,
    q,
    scale,
    bias,
    *,
    product=lambda x, q, scale, bias: F.linear(x, dequantized(q, scale)),
    add=lambda y, bias: y + bias,
):
    """What a quantized layer gives, with any step replaced."""
    return add(product(x, q, scale, bias), torch.zeros(len(q)) if bias is None else bias)


def oracle(w, bits=8, size=None):
    """The weight after a way to the integers and back, by PyTorch's own operator."""
    groups = in_rows(w.detach().float(), size).flatten(0, 1)  # (N · G, size)
    largest = symmetric(bits)
    scale = groups.abs().amax(1) / largest
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = torch.zeros(len(scale), dtype=torch.int32)
    there = torch.fake_quantize_per_channel_affine(groups, scale, zero, 0, -largest, largest)
    return there.view(w.shape)


# ── what the checks compute with ────────────────────────────────────────────────────────────────


def weight(n=N, k=K, seed=0, spread=True):
    """Weights (N, K), rows and groups of sizes that differ."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(n, k, generator=generator)
    if spread:
        w = w * torch.rand(n, 1, generator=generator).add(0.2)
        w = w * torch.rand(1, k, generator=generator).add(0.2)
    return w


def near_steps(scale, bits=8, k=K, seed=0, reach=None):
    """Weights that are k + u steps of their scale, |u| ≤ 0.4: no way of rounding ties can differ.
    reach: the largest |k|.
    """
    generator = torch.Generator().manual_seed(seed)
    reach = symmetric(bits) if reach is None else reach
    steps = torch.randint(-reach, reach + 1, (len(scale), k), generator=generator)
    apart = torch.rand(len(scale), k, generator=generator) * 0.8 - 0.4
    return (steps + apart) * each_its_group(scale, k)


def scales(n=N, g=1, seed=0):
    """Scales (N, G) that all differ."""
    order = torch.randperm(n * g, generator=torch.Generator().manual_seed(seed))
    return (order.float() * 0.013 + 0.02).view(n, g)


def integers(n, k, bits=8, seed=0):
    """Integers (N, K) int8, the largest and the smallest among them."""
    largest = symmetric(bits)
    generator = torch.Generator().manual_seed(seed)
    q = torch.randint(-largest, largest + 1, (n, k), generator=generator)
    q[0, :2], q[-1, -2:] = torch.tensor([largest, -largest]), torch.tensor([-largest, largest])
    return q.to(torch.int8)


def linear(n=N, k=K, seed=0, bias=True):
    """A linear layer whose rows differ in size."""
    layer = fill(nn.Linear(k, n, bias=bias), seed)
    with torch.no_grad():
        layer.weight *= torch.linspace(0.3, 1.7, n)[:, None]
    return layer


def rows(*shape, seed=0):
    """An input."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 50))


def of_kind(value, dtype, mistake, what):
    """The tensor, when it has this dtype."""
    value = tensor(value, what)
    if value.dtype != dtype:
        fail(KNOWN[mistake], f"The dtype of {what} is {value.dtype}, expected {dtype}.")
    return value


def examine_scale(piece, w, bits=8, size=None, families=("scale",), **tolerance):
    """absmax_scale's answer, and then the same answer's dtype."""
    groups = f", group_size={size}" if size else ""
    compare(
        lambda: of_kind(piece.absmax_scale(w, bits, size), torch.float32, "scale-rounded", "scale"),
        scale_of(w, bits, size),
        KNOWN.of(*families),
        lambda **switches: scale_of(w, bits, size, **switches),
        what=f"the scale of a weight {tuple(w.shape)} at bits={bits}{groups}",
        axes="N G",
        given=[w],
        **{"atol": 0.0, "rtol": 1e-5, **tolerance},
    )


def examine_quantize(piece, w, scale, bits=8, families=("quantize",)):
    """quantize's answer."""
    compare(
        lambda: of_kind(
            piece.quantize(w, scale, bits), torch.int8, "quantize-not-int8", "what quantize returns"
        ),
        quantized(w, scale, bits),
        KNOWN.of(*families),
        lambda **switches: quantized(w, scale, bits, **switches),
        what=f"quantize at bits={bits}",
        axes="N K",
        given=[w, scale],
    )


def examine_dequantize(piece, q, scale, families=("dequantize",)):
    """dequantize's answer."""
    compare(
        lambda: of_kind(
            piece.dequantize(q, scale), torch.float32, "dequantize-not-float32", "the result"
        ),
        dequantized(q, scale),
        KNOWN.of(*families),
        lambda **switches: dequantized(q, scale, **switches),
        what="what dequantize returns",
        axes="N K",
        given=[q, scale],
    )


# ── the scale ───────────────────────────────────────────────────────────────────────────────────


@check(todo=2, points=2)
def test_scale(piece):
    """The largest absolute value of a row becomes 127, or 7 at 4 bits"""
    for bits in (8, 4):
        examine_scale(piece, weight(), bits)


@check(todo=2, needs=test_scale)
def test_scale_of_rows(piece):
    """Each row has its scale, also where the weight is square; the weight stays as it was"""
    examine_scale(piece, weight(K, K, seed=1))
    examine_scale(piece, weight(3 * K, K, seed=2))
    examine_scale(piece, -weight(N, K, seed=3).abs())
    expect_no_edit(lambda w: piece.absmax_scale(w), weight(), "the weight")


@check(todo=2, needs=test_scale)
def test_scale_of_small_rows(piece):
    """A row of zeros gets the scale 1, a row of small weights its small one"""
    w = weight(seed=6)
    w[1] = 0.0
    found = float(tensor(piece.absmax_scale(w)).flatten()[1])
    if not found > 0:
        fail(KNOWN["zeros-have-no-scale"], f"It is {found:.3g}.")
    if found != 1:
        fail(KNOWN["zeros-scale-not-one"], f"It is {found:.3g}.")
    for factor in (1e-3, 1e-5, 1e-7):
        examine_scale(piece, weight(seed=7) * factor, 8, None, ("small", "scale"))


@check(todo=2, needs=test_scale, points=2, follows=test_scale_of_small_rows)
def test_scale_of_groups(piece):
    """Each group_size neighbors of a row have a scale: (N, K / group_size)"""
    for bits in (8, 4):
        examine_scale(piece, weight(seed=4), bits, SIZE, ("groups", "scale"))
    square = weight(K, K, seed=5)
    for size in (SIZE, G, 2, 1, K):
        examine_scale(piece, square, 8, size, ("groups", "scale"))
    w = weight(seed=8)
    w[2, :SIZE] = 0.0
    got = tensor(piece.absmax_scale(w, 8, SIZE))
    want = scale_of(w, 8, SIZE)
    want[2, 0] = 1.0
    compare(got, want, what="the scale where one group is all zeros", axes="N G")


@check(todo=2, needs=test_scale_of_groups)
def test_scale_refuses(piece):
    """A group_size that does not divide K is a ValueError"""
    for size in (SIZE + 1, K - 1, 2 * K):
        expect_error(
            lambda size=size: piece.absmax_scale(weight(), 8, size),
            (),
            when=f"group_size = {size} and K = {K}",
            missing=KNOWN["group-size-not-checked"],
        )


# ── integers ────────────────────────────────────────────────────────────────────────────────────


@check(todo=3, points=2)
def test_quantize(piece):
    """The nearest integer to weight / scale, as int8"""
    w = near_steps(scales())
    try:
        first, *others = (tensor(piece.quantize(w, scales())) for _ in range(6))
    except (RuntimeError, IndexError):
        pass  # named below
    else:
        if not all(torch.equal(first, other) for other in others):
            fail(KNOWN["rounding-at-random"])
    for bits in (8, 4):
        scale = scales(seed=bits)
        w = near_steps(scale, bits, seed=1, reach=symmetric(bits) - 2)
        examine_quantize(piece, w, scale, bits, ("quantize", "spread"))


@check(todo=3, needs=test_quantize)
def test_quantize_clamps(piece):
    """Beyond ±127, or ±7 at 4 bits, everything becomes the outermost integer"""
    for bits in (4, 8):
        scale, largest = scales(seed=2), symmetric(bits)
        for reach in (30 * largest, largest, largest + 1, 2 * largest):
            examine_quantize(piece, near_steps(scale, bits, seed=4, reach=reach), scale, bits)


@check(todo=3, needs=test_quantize, points=2)
def test_quantize_groups(piece):
    """Each weight is divided by the scale of its own group"""
    for n, g in ((N, G), (K, G), (N, K), (G, G)):
        scale = scales(n, g, seed=5)
        examine_quantize(piece, near_steps(scale, seed=6), scale, 8, ("spread", "quantize"))
    square = scales(K, 1, seed=7)
    examine_quantize(piece, near_steps(square, seed=8), square, 8, ("spread", "quantize"))


@check(todo=3, needs=test_quantize)
def test_quantize_leaves_all(piece):
    """Weights and scales stay as they were, and may lie in memory in any way"""
    scale = scales(seed=9)
    w = near_steps(scale, seed=10)
    expect_no_edit(lambda w: piece.quantize(w, scale), w, "the weight")
    expect_no_edit(lambda scale: piece.quantize(w, scale), scale, "the scale")
    examine_quantize(piece, w.t().contiguous().t(), scale)


@check(todo=4, points=2)
def test_dequantize(piece):
    """Each integer times the scale of its group, in float32"""
    examine_dequantize(piece, integers(N, K), scales(), ("dequantize", "spread"))
    for n, g in ((N, G), (K, G), (K, 1), (G, G)):
        examine_dequantize(piece, integers(n, K), scales(n, g, seed=1), ("spread", "dequantize"))


@check(todo=4, needs=(test_scale_of_groups, test_quantize_groups, test_dequantize), points=2)
def test_there_and_back(piece):
    """The three together give what PyTorch's fake quantization gives: off by half a step at most"""
    for bits in (8, 4):
        for size in (None, SIZE, 2):
            w = weight(seed=12)
            w[1] = 0.0
            scale = piece.absmax_scale(w, bits, size)
            got = tensor(piece.dequantize(piece.quantize(w, scale, bits), scale))
            half = each_its_group(scale_of(w, bits, size), K) / 2
            off = (got - w).abs() - half * (1 + 1e-4)
            if (off > 0).any():
                n, k = divmod(int(off.argmax()), K)
                fail(
                    f"Row {n}, column {k} comes back as {got[n, k]:.4g} and was {w[n, k]:.4g}: that "
                    f"is more than half a step, {half[n, k]:.4g}, at bits={bits}, "
                    f"group_size={size}.",
                    id="error-above-half-a-step",
                )
            compare(got, oracle(w, bits, size), what="the weight after quantizing and back")


# ── packing ─────────────────────────────────────────────────────────────────────────────────────

PAIRS = (6, 10)  # rows, columns: both even, so that packing the wrong axis shows in the shape


def examine_pack(piece, q):
    """pack_int4's answer."""
    compare(
        lambda: of_kind(
            piece.pack_int4(q), torch.uint8, "pack-not-uint8", "what pack_int4 returns"
        ),
        packed_bytes(q),
        KNOWN.of("pack"),
        lambda **switches: packed_bytes(q, **switches),
        what="what pack_int4 returns",
        axes="N K/2",
        given=[q],
    )


@check(todo=5, points=2)
def test_pack(piece):
    """Two neighbors in a byte, 8 added, the even column in the low four bits"""
    for seed in range(3):
        examine_pack(piece, integers(*PAIRS, bits=4, seed=seed))
    examine_pack(piece, integers(PAIRS[1], PAIRS[1], bits=4, seed=3))
    examine_pack(piece, integers(3, 2, bits=4, seed=4))


@check(todo=5, needs=test_pack)
def test_pack_refuses(piece):
    """An odd number of columns is a ValueError"""
    for k in (7, 1):
        q = torch.ones(4, k, dtype=torch.int8)
        expect_error(
            lambda q=q: piece.pack_int4(q),
            (),
            when=f"K = {k} is odd",
            missing=KNOWN["odd-not-refused"],
        )


@check(todo=6, points=2)
def test_unpack(piece):
    """Every byte becomes the two integers that it was made of, in their order"""
    every = torch.arange(256).view(16, 16)
    low, high = every % 16, every // 16
    fine = (low > 0) & (high > 0)  # 0 would be −8, which quantize never gives
    every = torch.where(fine, every, torch.full_like(every, 0x9C)).to(torch.uint8)
    for b in (every, every[:4, :5], every[5:6, 3:4]):
        compare(
            lambda b=b: of_kind(
                piece.unpack_int4(b), torch.int8, "unpack-not-int8", "what unpack_int4 returns"
            ),
            unpacked(b),
            KNOWN.of("unpack"),
            lambda b=b, **switches: unpacked(b, **switches),
            what="what unpack_int4 returns",
            axes="N K",
            given=[b],
        )


@check(todo=6, needs=(test_pack, test_unpack))
def test_pack_and_unpack(piece):
    """unpack_int4 is the inverse of pack_int4"""
    q = integers(N, K, bits=4, seed=5)
    compare(tensor(piece.unpack_int4(piece.pack_int4(q))), q, what="packed and unpacked integers")


# ── the layer ───────────────────────────────────────────────────────────────────────────────────

ALL = (test_scale_of_groups, test_quantize_groups, test_dequantize)
CASES = ((8, SIZE), (8, None), (4, SIZE), (4, None))


def layer_of(piece, layer, bits=8, size=None):
    """A QuantizedLinear of a linear layer, in eval mode."""
    return expect_module(piece.QuantizedLinear(copy.deepcopy(layer), bits, size)).eval()


def tensors_of(module):
    """Everything that a module and the modules inside it hold: (name, tensor)."""
    for path, part in module.named_modules():
        for group in (vars(part), part._parameters, part._buffers):
            for name, value in group.items():
                if name in ("_parameters", "_buffers", "_modules"):
                    continue
                several = value.values() if isinstance(value, dict) else value
                several = several if isinstance(value, (dict, list, tuple)) else [value]
                for one in several:
                    if isinstance(one, Tensor):
                        yield f"{path}.{name}".strip("."), one


def expect_no_float(module, n, k, when):
    """No float tensor of the weight's size is among what the module holds."""
    for name, value in tensors_of(module):
        if value.is_floating_point() and value.numel() >= n * k:
            fail(KNOWN["float-copy-kept"], f"`{name}`, {tuple(value.shape)}, is there {when}.")
    for path, part in module.named_modules():
        if isinstance(part, nn.Linear):
            fail(KNOWN["float-copy-kept"], f"`{path}` is an nn.Linear, {when}.")


@check(todo=7, needs=ALL, points=2)
def test_layer_holds(piece):
    """Buffers `qweight` and `scale`, the bias as it was, and all of them saved"""
    for bits, size in CASES:
        plain = linear()
        if bits == 4:
            try:
                piece.pack_int4(integers(2, 4, 4))
            except NotImplementedError:
                continue  # TODO 5 comes later
        module = layer_of(piece, plain, bits, size)
        what = f"at bits={bits}, group_size={size}"
        why = "the engine reads it under this name"
        qweight = attribute(module, "qweight", Tensor, why)
        scale = attribute(module, "scale", Tensor, why)
        state = module.state_dict()
        for name in ("qweight", "scale"):
            if not any(name == found for found, _ in module.named_buffers()):
                fail(KNOWN["qweight-not-a-buffer"], f"`{name}` is not among its buffers.")
            if name not in state:
                fail(KNOWN["buffer-not-saved"], f"`{name}` is not in state_dict().")
        w = plain.weight.detach()
        if scale.shape == (N, 1) and size is not None:
            fail(KNOWN["layer-groups-ignored"], f"That is so {what}.")
        if bits == 4 and qweight.shape == (N, K) and qweight.dtype in (torch.int8, torch.uint8):
            if qweight.dtype == torch.int8 and qweight.abs().max() > 7:
                fail(KNOWN["layer-bits-ignored"], "At bits=4 there are integers beyond 7.")
            fail(KNOWN["qweight-not-packed"], f"It has the shape {tuple(qweight.shape)} {what}.")
        eight = scale_of(w, 8, size)
        if bits == 4 and scale.shape == eight.shape and torch.allclose(scale, eight, rtol=1e-4):
            fail(KNOWN["layer-bits-ignored"], f"The scales are those of 8 bits {what}.")
        compare(scale, scale_of(w, bits, size), what=f"`scale` {what}", axes="N G", atol=1e-7)
        q = quantized(w, scale_of(w, bits, size), bits)
        kept = q if bits == 8 else packed_bytes(q)
        kind = torch.int8 if bits == 8 else torch.uint8
        if qweight.dtype != kind:
            fail(KNOWN["quantize-not-int8" if bits == 8 else "pack-not-uint8"], f"`qweight` {what}")
        families = () if bits == 8 else KNOWN.of("pack")
        compare(
            qweight,
            kept,
            families,
            lambda q=q, **switches: packed_bytes(q, **switches),
            what=f"`qweight` {what}",
        )
        bias = getattr(module, "bias", None)
        if not isinstance(bias, Tensor) or not torch.equal(bias.detach(), plain.bias.detach()):
            fail(KNOWN["bias-not-kept"], "`bias` is not the linear layer's.")
        if "bias" not in state:
            fail(KNOWN["bias-not-kept"], "`bias` is not in state_dict().")


@check(todo=7, needs=test_layer_holds, points=2)
def test_layer_is_lean(piece):
    """No float copy of the weight is kept, and no graph that holds one"""
    for bits in (8, 4):
        module = layer_of(piece, linear(), bits)
        expect_no_float(module, N, K, "after __init__")
        for name, value in tensors_of(module):
            if value.requires_grad and name.rpartition(".")[2] != "bias":
                fail(KNOWN["graph-kept"], f"`{name}` requires a gradient.")


@check(todo=7, needs=test_layer_holds)
def test_layer_leaves_the_linear(piece):
    """The linear layer that is given stays as it was"""
    plain = linear(seed=1)
    before = copy.deepcopy(plain)
    for bits in (8, 4):
        piece.QuantizedLinear(plain, bits)
        if not torch.equal(plain.weight, before.weight) or not torch.equal(plain.bias, before.bias):
            fail(KNOWN["layer-edited"])


@check(todo=7, needs=test_layer_holds)
def test_layer_refuses(piece):
    """Bits other than 4 and 8, and a group_size that does not divide K, are a ValueError"""
    for bits in (3, 16, 2, 0):
        expect_error(
            lambda bits=bits: piece.QuantizedLinear(linear(), bits),
            (),
            when=f"bits = {bits}",
            missing=KNOWN["bits-not-checked"],
        )
    expect_error(
        lambda: piece.QuantizedLinear(linear(), 8, SIZE + 1),
        (),
        when=f"group_size = {SIZE + 1} and K = {K}",
        missing=KNOWN["group-size-not-checked"],
    )


def examine_forward(module, plain, x, bits, size):
    """A layer's output against the oracle's weight in F.linear."""
    w, bias = plain.weight.detach(), plain.bias
    bias = None if bias is None else bias.detach()
    want = F.linear(x, oracle(w, bits, size), bias)
    scale = scale_of(w, bits, size)
    q = quantized(w, scale, bits)
    with torch.no_grad():
        try:
            got = tensor(module(x))
        except RuntimeError as error:
            if bits == 4 and "shape" in str(error) and module.qweight.shape[1] * 2 == K:
                fail(KNOWN["packed-not-unpacked"], f"PyTorch says: {str(error)[:150]}")
            got = None
    if got is not None and got.shape == want.shape:
        exact = F.linear(x, w, bias)
        apart = float((want - exact).abs().max())
        if float((got - exact).abs().max()) < 1e-3 * apart:
            fail(KNOWN["computes-with-the-float-weight"])

    def run():
        with torch.no_grad():
            return tensor(module(x))

    compare(
        run,
        want,
        KNOWN.of("forward", "spread"),
        lambda spread=each_its_group, **switches: (
            output_of(x, q, scale, bias, **switches)
            if switches
            else F.linear(x, dequantized(q, scale, spread=spread), bias)
        ),
        what=f"the output at bits={bits}, group_size={size}",
        given=[x],
    )


@check(todo=8, needs=(test_layer_holds, test_pack_and_unpack), points=2)
def test_forward(piece):
    """The output is that of the weights which the integers stand for, plus the bias"""
    for bits, size in CASES:
        plain = linear(seed=2)
        examine_forward(layer_of(piece, plain, bits, size), plain, rows(3, K), bits, size)


@check(todo=8, needs=test_forward)
def test_forward_shapes(piece):
    """Inputs of any shape (…, K), a square weight, and a layer without a bias"""
    for bits, size in CASES:
        plain = linear(K, K, seed=3)
        module = layer_of(piece, plain, bits, size)
        for shape in ((K,), (1, K), (2, 3, K), (2, 1, 3, K)):
            examine_forward(module, plain, rows(*shape), bits, size)
        plain = linear(seed=4, bias=False)
        module = layer_of(piece, plain, bits, size)
        if getattr(module, "bias", None) is not None:
            fail(KNOWN["bias-not-kept"], "The linear layer has no bias, and this one has.")
        examine_forward(module, plain, rows(2, 3, K), bits, size)


@check(todo=8, needs=test_forward)
def test_forward_keeps_nothing(piece):
    """After a call the layer is as small as before, and a call changes nothing"""
    for bits in (8, 4):
        module = layer_of(piece, linear(seed=5), bits)
        x = rows(2, 3, K)
        with torch.no_grad():
            module(x)
        expect_no_float(module, N, K, "after a call")
        expect_no_edit(module, x)
        calls = [lambda m, n=n: tensor(m(rows(n, K, seed=n))) for n in (3, 1, 4)]
        expect_no_memory(module, calls, hint=8)


@check(todo=8, needs=test_forward)
def test_layer_travels(piece):
    """A copy and a saved and loaded layer give the same"""
    for bits in (8, 4):
        module = layer_of(piece, linear(seed=6), bits, SIZE)
        x = rows(2, K)
        expect_copies(module, lambda m, x=x: m(x))
        other = layer_of(piece, linear(seed=7), bits, SIZE)
        other.load_state_dict(module.state_dict())
        with torch.no_grad():
            compare(other(x), module(x), what="the output of another layer with this one's state")


@check(todo=9, needs=test_layer_holds, follows=test_forward_shapes)
def test_nbytes(piece):
    """`nbytes` is the bytes of qweight, scale and bias"""
    for bits, size in CASES:
        if bits == 4:
            try:
                piece.pack_int4(integers(2, 4, 4))
            except NotImplementedError:
                continue
        for bias in (True, False):
            module = layer_of(piece, linear(seed=8, bias=bias), bits, size)
            got = module.nbytes
            if callable(got):
                fail(KNOWN["nbytes-a-method"])
            groups = G if size else 1
            parts = N * K * bits // 8, 4 * N * groups, 4 * N * bias
            if got == sum(parts):
                continue
            seen = f"It is {got} at bits={bits}, group_size={size}, expected {sum(parts)}."
            if got == parts[0] + parts[2]:
                fail(KNOWN["nbytes-without-scale"], seen)
            if bias and got == parts[0] + parts[1]:
                fail(KNOWN["nbytes-without-bias"], seen)
            if got == parts[0]:
                fail(KNOWN["nbytes-without-scale"], seen)
            if got in (
                N * K * bits // 8 + N * groups + N * bias,
                N * K + N * groups + N * bias,
            ):
                fail(KNOWN["nbytes-counts-numbers"], seen)
            if got >= 4 * N * K:
                fail(KNOWN["nbytes-of-floats"], seen)
            fail(f"`nbytes` is wrong. {seen}", id="nbytes-wrong")


# ── the model ───────────────────────────────────────────────────────────────────────────────────

C, V, P, LAYERS = 24, 29, 11, 2
LINEAR = {
    f"h.{i}.{name}": sizes
    for i in range(LAYERS)
    for name, sizes in {
        "attn.c_attn": (C, 3 * C),
        "attn.c_proj": (C, C),
        "mlp.c_fc": (C, 4 * C),
        "mlp.c_proj": (4 * C, C),
    }.items()
}
NAMES = [*LINEAR, "lm_head"]


def shell(seed=0):
    """The modules of a GPT-2 under their names, without anything that runs them."""
    model = nn.Module()
    model.embeddings = nn.Module()
    model.embeddings.wte, model.embeddings.wpe = nn.Embedding(V, C), nn.Embedding(P, C)
    model.embeddings.drop = nn.Dropout(0.0)
    model.h = nn.ModuleList()
    for _ in range(LAYERS):
        block = nn.Module()
        block.ln_1, block.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        block.attn, block.mlp = nn.Module(), nn.Module()
        block.attn.c_attn, block.attn.c_proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        block.attn.resid_dropout = nn.Dropout(0.0)
        block.mlp.c_fc, block.mlp.c_proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
        model.h.append(block)
    model.ln_f = nn.LayerNorm(C)
    model.lm_head = nn.Linear(C, V, bias=False)
    model.lm_head.weight = model.embeddings.wte.weight
    return fill(model, seed)


def is_quantized(piece, module):
    """Whether it is the piece's layer."""
    return isinstance(module, piece.QuantizedLinear)


@check(todo=10, needs=(test_forward, test_layer_is_lean), points=2)
def test_model_layers(piece):
    """All linear layers of the blocks and the head are replaced, and named"""
    for bits, size in CASES:
        size = size and 8
        model = shell(1)
        plain = copy.deepcopy(model)
        names = piece.quantize_model(model, bits, size)
        parts = dict(model.named_modules())
        done = [name for name in NAMES if is_quantized(piece, parts.get(name))]
        if not done:
            fail(KNOWN["not-in-place"])
        if done == NAMES[:-1]:
            fail(KNOWN["head-left-out"])
        if len(done) < len(NAMES):
            lost = [name for name in NAMES if name not in done]
            fail(KNOWN["layers-left-out"], f"Still there: {', '.join(lost[:4])}.")
        if len({id(parts[name]) for name in NAMES}) < len(NAMES):
            fail(KNOWN["layers-share-a-weight"])
        try:
            found = sorted(names)
        except TypeError:
            found = None
        if found != sorted(NAMES):
            fail(KNOWN["names-wrong"], f"It returns {str(names)[:150]}.")
        for name in NAMES:
            w = plain.get_submodule(name).weight.detach()
            module = parts[name]
            want = scale_of(w, bits, size)
            if module.scale.shape != want.shape and module.scale.shape == (len(w), 1):
                fail(KNOWN["model-groups-ignored"], f"{name}: {tuple(module.scale.shape)}.")
            other = scale_of(w, 12 - bits, size)
            if torch.allclose(module.scale, other, rtol=1e-4):
                fail(KNOWN["model-bits-ignored"], f"At bits={bits}, {name}.")
            compare(module.scale, want, what=f"the scale of {name}", atol=1e-7)


@check(todo=10, needs=test_model_layers, follows=test_layer_leaves_the_linear)
def test_model_keeps_the_rest(piece):
    """Embeddings, norms and biases stay as they are"""
    model = shell(2)
    plain = copy.deepcopy(model)
    piece.quantize_model(model, 4, 8)
    parts = dict(model.named_modules())
    for name in ("wte", "wpe"):
        part, was = parts.get(f"embeddings.{name}"), plain.get_submodule(f"embeddings.{name}")
        if not isinstance(part, nn.Embedding) or not torch.equal(part.weight, was.weight):
            fail(KNOWN["embeddings-quantized"], f"embeddings.{name} is no longer what it was.")
    for path, was in plain.named_modules():
        part = parts.get(path)
        if isinstance(was, nn.Linear):
            same = was.bias is None or torch.equal(was.bias, part.bias)
        elif isinstance(was, nn.LayerNorm):
            same = isinstance(part, nn.LayerNorm) and torch.equal(was.weight, part.weight)
        else:
            same = type(part) is type(was)
        if not same:
            fail(KNOWN["norms-changed"], f"{path} is no longer what it was.")


@check(todo=10, needs=test_model_layers, points=2)
def test_model_output(piece):
    """A whole GPT-2 computes with the weights that the integers stand for"""
    from gpt2.model import GPT2Config, GPT2Model

    ids = torch.randint(0, V, (2, 7), generator=torch.Generator().manual_seed(3))
    for bits, size in ((8, None), (4, 8)):
        torch.manual_seed(4)
        model = GPT2Model(GPT2Config(V, P, C, LAYERS, 3)).eval()
        fill(model, 5, scale=0.3)
        wanted = copy.deepcopy(model)
        with torch.no_grad():
            head = oracle(wanted.lm_head.weight, bits, size)
            wanted.lm_head.weight = nn.Parameter(head)
            for name in LINEAR:
                layer = wanted.get_submodule(name)
                layer.weight.copy_(oracle(layer.weight, bits, size))
            want = wanted(ids)
            piece.quantize_model(model, bits, size)
            got = tensor(model(ids))
        compare(got, want, what=f"the logits at bits={bits}, group_size={size}", rtol=1e-3)


@check(todo=10, needs=test_model_layers, follows=(test_scale_refuses, test_layer_refuses))
def test_model_refuses(piece):
    """A group_size that one layer can't have changes none of them"""
    model = shell(6)
    model.h[1].mlp.c_proj = nn.Linear(4 * C + 1, C)
    expect_error(
        lambda: piece.quantize_model(model, 8, 8),
        (),
        when=f"group_size = 8 and one layer has K = {4 * C + 1}",
        missing=KNOWN["group-size-not-checked"],
    )
    if any(is_quantized(piece, part) for part in model.modules()):
        fail(KNOWN["half-done"])
    expect_error(
        lambda: piece.quantize_model(shell(7), 5),
        (),
        when="bits = 5",
        missing=KNOWN["bits-not-checked"],
    )
