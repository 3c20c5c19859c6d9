"""The known mistakes of problem 17. A way names the steps of the test file's computation that it
replaces.
"""

import torch

from learn_gpt2.checking.catalog import Catalog, way

KNOWN = Catalog()

# ── the scale ───────────────────────────────────────────────────────────────────────────────────
KNOWN.add(
    "scale-over-128",
    2,
    "The largest weight is divided by 2^(bits−1), 128 or 8. It must become the largest integer "
    "that is used, 2^(bits−1) − 1: 127 or 7.",
    way(largest=lambda bits: 2 ** (bits - 1)),
    family="scale",
)
KNOWN.add(
    "scale-full-range",
    2,
    "The largest weight is divided by 2^bits − 1 (or 2^bits): that many steps are there for both "
    "signs together. One sign has 2^(bits−1) − 1.",
    way(largest=lambda bits: 2**bits - 1),
    way(largest=lambda bits: 2**bits),
    way(largest=lambda bits: 2**bits - 2, says="The scale is half of what it should be."),
    family="scale",
)
KNOWN.add(
    "scale-half-steps",
    2,
    "The largest weight is divided by (2^bits − 1) / 2, 127.5 or 7.5, which is not an integer. It "
    "must become 2^(bits−1) − 1.",
    way(largest=lambda bits: (2**bits - 1) / 2),
    family="scale",
)
KNOWN.add(
    "bits-ignored",
    2,
    "`bits` has no effect on the scale: the largest integer is 127 at 8 bits, and 7 at 4 bits.",
    way(largest=lambda bits: 127),
    way(largest=lambda bits: 7),
    family="scale",
)
KNOWN.add(
    "scale-without-absolute",
    2,
    "The largest weight is taken, not the largest absolute value: a group whose weights reach "
    "further down than up does not fit.",
    way(of=lambda groups: groups.amax(-1)),
    way(of=lambda groups: groups.amax(-1).abs()),
    way(
        of=lambda groups: groups.amin(-1).abs(),
        says="The smallest weight is taken, not the largest absolute value.",
    ),
    way(
        of=lambda groups: groups.amin(-1),
        says="The smallest weight is taken, not the largest absolute value.",
    ),
    way(
        of=lambda groups: groups.gather(-1, groups.abs().argmax(-1, keepdim=True))[..., 0],
        says="The scale has the sign of the largest weight. Take its absolute value: scales are "
        "positive.",
    ),
    way(
        of=lambda groups: groups.abs().amin(-1),
        says="The smallest absolute value is taken, and it must be the largest.",
    ),
    family="scale",
)
KNOWN.add(
    "scale-asymmetric",
    2,
    "The scale is made of the distance from the smallest weight to the largest. That belongs to "
    "quantization with a zero point; here zero stays zero, and what counts is the largest absolute "
    "value.",
    way(of=lambda groups: groups.amax(-1) - groups.amin(-1)),
    way(of=lambda groups: groups.amax(-1) - groups.amin(-1), largest=lambda bits: 2**bits - 1),
    way(
        of=lambda groups: (groups.amax(-1) - groups.amin(-1)) / 2,
    ),
    family="scale",
)
KNOWN.add(
    "scale-of-the-average",
    2,
    "The scale is made of an average (a mean, a standard deviation or a norm). Then the largest "
    "weights don't fit: take the largest absolute value.",
    way(of=lambda groups: groups.abs().mean(-1)),
    way(of=lambda groups: groups.std(-1)),
    way(of=lambda groups: groups.std(-1, unbiased=False)),
    way(of=lambda groups: groups.norm(dim=-1)),
    way(of=lambda groups: groups.pow(2).mean(-1).sqrt()),
    family="scale",
)
KNOWN.add(
    "scale-for-all",
    1,
    "There is one scale for the whole weight. Each group of each row has its own: the largest "
    "weight of all would cost every other row its digits.",
    way(
        of=lambda groups: groups.abs().max().expand(groups.shape[:2]),
    ),
    way(of=lambda groups: groups.abs().max().reshape(1, 1)),
    way(of=lambda groups: groups.abs().max()),
    way(of=lambda groups: groups.abs().max().reshape(1)),
    family="scale",
)
KNOWN.add(
    "scale-along-n",
    1,
    "The scales belong to the columns: the largest value was taken over the outputs (axis 0). A "
    "weight is (N, K), outputs first, and each row has scales of its own.",
    way(see=lambda w, size: w.t()[:, None]),
    way(see=lambda w, size: w.t()[:, None], end=lambda scale: scale.t()),
    way(see=lambda w, size: w.t()[:, None], end=lambda scale: scale.flatten()),
    way(see=lambda w, size: w.t().reshape(-1, w.size(0) // (size or w.size(0)), size or w.size(0))),
    family="scale",
)
KNOWN.add(
    "scale-shape",
    1,
    "The scales are right, their shape is not: it is (N, G), also when there is one group in a row "
    "(keepdim=True keeps the axis).",
    way(end=lambda scale: scale.flatten()),
    way(end=lambda scale: scale[..., None]),
    way(end=lambda scale: scale.t()),
    way(end=lambda scale: scale.reshape(-1, 1)),
    family="scale",
)
KNOWN.add(
    "scale-inverted",
    2,
    "The scale is the wrong way round: it is what one step of the integers is worth, largest "
    "weight over largest integer.",
    way(end=lambda scale: 1 / scale),
    family="scale",
)
KNOWN.add(
    "scale-not-divided",
    2,
    "The scale is the largest absolute value itself. Divide it by the largest integer: a scale is "
    "what one step is worth.",
    way(largest=lambda bits: 1),
    family="scale",
)
KNOWN.add(
    "scale-rounded",
    2,
    "The scales are rounded to half precision (or computed in it). They are float32, also for a "
    "weight in float16 or bfloat16: convert it first.",
    way(end=lambda scale: scale.half().float()),
    way(end=lambda scale: scale.bfloat16().float()),
    way("half", of=lambda groups: groups.abs().amax(-1), end=lambda scale: scale.half().float()),
    family="scale",
)
KNOWN.add(
    "scale-has-a-floor",
    2,
    "A small number is added to the scales, or they are not allowed to be small: for a group of "
    "small weights that is too coarse. Only a group of zeros gets another scale, 1.",
    way(end=lambda scale: scale + 1e-8),
    way(end=lambda scale: scale.clamp(min=1e-5)),
    way(end=lambda scale: scale.clamp(min=1e-6)),
    way(end=lambda scale: scale.clamp(min=1e-8)),
    way(end=lambda scale: scale + 1e-5),
    family="small",
)
KNOWN.add(
    "zeros-have-no-scale",
    2,
    "A group of zeros gets the scale 0, and 0 / 0 is NaN. Give it the scale 1.",
)
KNOWN.add(
    "zeros-scale-not-one",
    2,
    "A group of zeros gets a scale that is neither 0 nor 1. Any will do for its own weights, and "
    "the contract fixes 1, so that files of two implementations are the same.",
)
KNOWN.add(
    "groups-ignored",
    1,
    "`group_size` has no effect: there is one scale in each row. Each group_size neighbors have "
    "one.",
    way(see=lambda w, size: w[:, None]),
    family="groups",
)
KNOWN.add(
    "group-count-for-size",
    1,
    "`group_size` is taken for the number of groups. It is how many weights are in one; a row of K "
    "has K / group_size groups.",
    way(see=lambda w, size: w.reshape(len(w), size, -1) if size else w[:, None]),
    family="groups",
)
KNOWN.add(
    "groups-interleaved",
    1,
    "A group holds every G-th weight of the row. It must hold group_size neighbors: reshape to "
    "(N, G, group_size), and the last axis is the group.",
    way(see=lambda w, size: w.reshape(len(w), size, -1).transpose(1, 2) if size else w[:, None]),
    family="groups",
)
KNOWN.add(
    "groups-along-n",
    1,
    "The groups run along N: they hold weights of several outputs. A group lies inside one row, "
    "along K.",
    way(
        see=lambda w, size: (
            w.t().reshape(w.size(1), -1, size) if size and not len(w) % size else w[:, None]
        )
    ),
    way(
        see=lambda w, size: (
            w.t().reshape(w.size(1), -1, size) if size and not len(w) % size else w[:, None]
        ),
        end=lambda scale: scale.t(),
    ),
    way(see=lambda w, size: w.t().reshape(len(w), -1, size) if size else w[:, None]),
    family="groups",
)
KNOWN.add(
    "group-size-not-checked",
    1,
    "A group_size that does not divide K is accepted: some weights of a row would belong to no "
    "group, or to one that is too small. Raise a ValueError that names both numbers.",
)

# ── quantize and dequantize ─────────────────────────────────────────────────────────────────────
KNOWN.add(
    "truncated",
    3,
    "The quotients are cut off, not rounded: `.to(torch.int8)` alone cuts toward zero, and the "
    "error can be a whole step. Round first.",
    way(rounding=torch.trunc),
    way(rounding=torch.floor, says="The quotients are rounded down. Round to the nearest."),
    way(rounding=torch.ceil, says="The quotients are rounded up. Round to the nearest."),
    way(
        rounding=lambda t: torch.trunc(t + 0.5),
        says="0.5 is added and the sum cut off toward zero, which is right for positive numbers "
        "alone: −1.7 + 0.5 becomes −1. Use round, or floor after adding.",
    ),
    family="quantize",
)
KNOWN.add(
    "lowest-integer-used",
    3,
    "−2^(bits−1), that is −128 or −8, occurs. Clamp to −(2^(bits−1) − 1) … 2^(bits−1) − 1: as many "
    "steps below zero as above.",
    way(limits=lambda bits: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)),
    family="quantize",
)
KNOWN.add(
    "not-clamped",
    3,
    "Quotients beyond the largest integer are not clamped: in int8, 128 becomes −128, the far end.",
    way(limits=lambda bits: (-1e9, 1e9)),
    way(
        convert=lambda steps: steps.to(torch.int64).to(torch.int8),
        says="The integers are clamped after they were converted to int8, when 128 has become −128 "
        "already: clamp first.",
    ),
    way(limits=lambda bits: (-127, 127), says="They are clamped to ±127, whatever `bits` is."),
    way(
        limits=lambda bits: (-128, 127), says="They are clamped to −128 … 127, whatever `bits` is."
    ),
    way(limits=lambda bits: (-7, 7), says="They are clamped to ±7, whatever `bits` is."),
    family="quantize",
)
KNOWN.add(
    "clamped-too-narrow",
    3,
    "The quotients are clamped too soon: 2^(bits−1) − 1 itself, 127 or 7, is allowed, and so is "
    "its negative.",
    way(limits=lambda bits: (-(2 ** (bits - 1)) + 2, 2 ** (bits - 1) - 2)),
    way(limits=lambda bits: (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 2)),
    way(
        limits=lambda bits: (0, 2 ** (bits - 1) - 1),
        says="Negative quotients become 0: clamp to ±(2^(bits−1) − 1).",
    ),
    family="quantize",
)
KNOWN.add(
    "clamped-too-wide",
    3,
    "The quotients are clamped to ±2^(bits−1) or more, which is one too far: 127 or 7 is the "
    "largest integer.",
    way(limits=lambda bits: (-(2 ** (bits - 1)), 2 ** (bits - 1))),
    way(limits=lambda bits: (-(2**bits) + 1, 2**bits - 1)),
    family="quantize",
)
KNOWN.add(
    "multiplied-by-scale",
    3,
    "The weights are multiplied by the scale. How many steps a weight is, is the weight divided by "
    "the scale.",
    way(divide=lambda w, scale: w * scale),
    family="quantize",
)
KNOWN.add(
    "not-scaled",
    3,
    "The scale has no effect: the weights themselves are rounded. Divide them by the scale first.",
    way(divide=lambda w, scale: w),
    family="quantize",
)
KNOWN.add(
    "rounded-before-division",
    3,
    "The weights are rounded before they are divided by the scale, when most of them are 0.",
    way(divide=lambda w, scale: w.round() / scale),
    family="quantize",
)
KNOWN.add(
    "quantize-not-int8",
    3,
    "The integers must have the dtype torch.int8, also at 4 bits: that is where the bytes are "
    "saved.",
)
KNOWN.add(
    "rounding-at-random",
    3,
    "The same weights give other integers each time. Round to the nearest.",
)
KNOWN.add(
    "groups-tiled",
    4,
    "The scales of a row are repeated as a whole (s0 s1 s0 s1): column j must have the scale of "
    "its group, j // group_size (s0 s0 s1 s1). repeat_interleave repeats each, and a view of "
    "(N, G, group_size) needs no repeating.",
    way(spread=lambda scale, k: scale.repeat(1, k // scale.size(1))),
    family="spread",
)
KNOWN.add(
    "first-group-for-all",
    4,
    "All weights of a row get the scale of its first group.",
    way(spread=lambda scale, k: scale[:, :1]),
    way(
        spread=lambda scale, k: scale[:, -1:],
        says="All weights of a row get the scale of its last group.",
    ),
    way(
        spread=lambda scale, k: scale.amax(1, keepdim=True),
        says="All weights of a row get the largest scale of its groups.",
    ),
    way(
        spread=lambda scale, k: scale.mean(1, keepdim=True),
        says="All weights of a row get the mean of its groups' scales.",
    ),
    family="spread",
)
KNOWN.add(
    "scale-by-column",
    4,
    "The scales are laid along the columns: column j gets the scale of row j, which goes unnoticed "
    "when the weight is square. Row n has the scales scale[n].",
    way(spread=lambda scale, k: scale.t()),
    way(spread=lambda scale, k: scale[:, 0]),
    way(spread=lambda scale, k: scale.flatten()),
    family="spread",
)
KNOWN.add(
    "scale-not-applied",
    4,
    "dequantize gives the integers back as they are. Multiply each by the scale of its group.",
    way(multiply=lambda q, scale: q),
    family="dequantize",
)
KNOWN.add(
    "divided-by-scale",
    4,
    "dequantize divides by the scale. One step is worth one scale: multiply.",
    way(multiply=lambda q, scale: q / scale),
    family="dequantize",
)
KNOWN.add(
    "half-a-step-off",
    4,
    "Half a step is added to every weight (or taken off). The integer is already the nearest one.",
    way(multiply=lambda q, scale: (q + 0.5) * scale),
    way(multiply=lambda q, scale: (q - 0.5) * scale),
    family="dequantize",
)
KNOWN.add(
    "dequantize-not-float32",
    4,
    "dequantize must return float32: integers are converted before they are multiplied.",
)

# ── packing ─────────────────────────────────────────────────────────────────────────────────────
KNOWN.add(
    "nibbles-exchanged",
    5,
    "The two halves of a byte are exchanged: the even column belongs in the low four bits, the odd "
    "one in the high four.",
    way(low=lambda q: q[:, 1::2], high=lambda q: q[:, 0::2]),
    family="pack",
)
KNOWN.add(
    "halves-packed",
    5,
    "Column j shares its byte with column j + K / 2. Neighbors belong together: columns 0 and 1, 2 "
    "and 3, and so on.",
    way(
        low=lambda q: q[:, : q.size(1) // 2],
        high=lambda q: q[:, q.size(1) // 2 :],
    ),
    way(
        low=lambda q: q[:, q.size(1) // 2 :],
        high=lambda q: q[:, : q.size(1) // 2],
    ),
    family="pack",
)
KNOWN.add(
    "rows-packed",
    5,
    "Two rows share a byte. It must be two neighbors of one row: (N, K) → (N, K / 2).",
    way(low=lambda q: q[0::2], high=lambda q: q[1::2]),
    way(low=lambda q: q[: len(q) // 2], high=lambda q: q[len(q) // 2 :]),
    family="pack",
)
KNOWN.add(
    "offset-missing",
    5,
    "The integers are stored in two's complement (−1 as 15), without 8 added. With it, −8 … 7 "
    "become 0 … 15, and the order stays.",
    way(offset=lambda q: q & 15),
    way(
        offset=lambda q: q,
        says="8 is not added: the sign of a negative integer fills the whole byte.",
    ),
    way(
        offset=lambda q: q.abs(),
        says="The sign is lost: the absolute values are stored. Add 8, and there is no sign.",
    ),
    family="pack",
)
KNOWN.add(
    "offset-wrong",
    5,
    "Something else than 8 is added before packing: 8 makes 0 … 15 of −8 … 7.",
    way(offset=lambda q: q + 7),
    way(offset=lambda q: q + 16 & 15),
    way(offset=lambda q: q + 9 & 15),
    family="pack",
)
KNOWN.add(
    "offset-once",
    5,
    "8 is added to one of the two integers of a byte alone, or to the byte: each of them needs it.",
    way(join=lambda low, high: low | (high - 8 & 15) << 4),
    way(join=lambda low, high: (low - 8 & 15) | high << 4),
    family="pack",
)
KNOWN.add(
    "not-shifted",
    5,
    "The odd column is not shifted by four bits: both integers lie in the same bits of the byte.",
    way(join=lambda low, high: low | high),
    way(join=lambda low, high: low + high),
    way(
        join=lambda low, high: low | high << 3,
        says="The odd column is not shifted by four bits, which is to multiply by 16.",
    ),
    way(
        join=lambda low, high: low | high << 8,
        says="The odd column is shifted out of the byte: four bits, which is to multiply by 16.",
    ),
    family="pack",
)
KNOWN.add(
    "pack-not-uint8",
    5,
    "The bytes must have the dtype torch.uint8: 0 … 255. In int8, the high half of a byte "
    "carries a sign, and a shift to the right drags it along; wider integers save nothing.",
)
KNOWN.add(
    "odd-not-refused",
    5,
    "An odd number of columns is accepted: the last one has no neighbor. Raise a ValueError that "
    "names K.",
)
KNOWN.add(
    "unpacked-exchanged",
    6,
    "unpack_int4 takes the high half of a byte for the even column. That is the low half.",
    way(low=lambda b: b >> 4, high=lambda b: b & 15),
    family="unpack",
)
KNOWN.add(
    "unpacked-in-halves",
    6,
    "All low halves come first, then all high ones. They must alternate, as the columns did: stack "
    "them along a new last axis and flatten it.",
    way(lay=lambda low, high: torch.cat((low, high), 1)),
    way(lay=lambda low, high: torch.cat((high, low), 1)),
    way(lay=lambda low, high: torch.stack((low, high), 1).flatten(1)),
    family="unpack",
)
KNOWN.add(
    "unpacked-in-rows",
    6,
    "The two halves of a byte go to two rows. They are two neighbors of one row.",
    way(lay=lambda low, high: torch.stack((low, high), 1).flatten(0, 1)),
    way(lay=lambda low, high: torch.cat((low, high), 0)),
    family="unpack",
)
KNOWN.add(
    "offset-kept",
    6,
    "The 8 that was added is not subtracted again: 0 … 15 come back, in place of −8 … 7.",
    way(offset=lambda n: n),
    way(
        offset=lambda n: torch.where(n > 7, n - 16, n),
        says="The halves are read as two's complement (15 as −1). They were stored with 8 added: "
        "subtract it.",
    ),
    way(
        offset=lambda n: n - 7,
        says="Something else than 8 is subtracted: 8 was added.",
    ),
    family="unpack",
)
KNOWN.add(
    "high-bits-left",
    6,
    "The even column keeps the bits of its neighbor: `& 15` leaves the low four.",
    way(low=lambda b: b),
    family="unpack",
)
KNOWN.add(
    "unpack-not-int8",
    6,
    "unpack_int4 must return int8: in uint8 there is nothing below 0, and 3 − 8 is 251.",
)

# ── the layer ───────────────────────────────────────────────────────────────────────────────────
KNOWN.add(
    "qweight-not-a-buffer",
    7,
    "`qweight` and `scale` must be buffers (register_buffer): so that they move with the module, "
    "are saved with it, and are not trained.",
)
KNOWN.add(
    "buffer-not-saved",
    7,
    "A buffer is registered with persistent=False: it is not in state_dict(), and a saved model "
    "would have no weights.",
)
KNOWN.add(
    "float-copy-kept",
    7,
    "The layer still holds a float copy of its weight, so that it is larger than before. Read the "
    "weight in __init__, and keep only the integers, the scales and the bias.",
)
KNOWN.add(
    "graph-kept",
    7,
    "`scale` requires a gradient: it hangs on the graph of the float weight, which therefore "
    "stays in memory. Work with linear.weight.detach(), or inside torch.no_grad().",
)
KNOWN.add(
    "qweight-not-packed",
    7,
    "At 4 bits the integers are stored one to a byte, which saves nothing over 8 bits: pack them, "
    "(N, K / 2) uint8.",
)
KNOWN.add(
    "layer-bits-ignored",
    7,
    "`bits` does not reach all steps: absmax_scale and quantize both take it.",
)
KNOWN.add(
    "layer-groups-ignored",
    7,
    "`group_size` does not reach absmax_scale: the layer's scales are (N, 1).",
)
KNOWN.add(
    "bits-not-checked",
    7,
    "A layer is made with other bits than 4 and 8. There is no way to store them here: raise a "
    "ValueError.",
)
KNOWN.add(
    "bias-not-kept",
    7,
    "`bias` must be the linear layer's bias as it was, saved with the module, or None when there "
    "is none: a few numbers, for which float32 is cheap.",
)
KNOWN.add(
    "layer-edited",
    7,
    "The linear layer that is given is changed: its weight is quantized in place. Leave it as it "
    "was.",
)
KNOWN.add(
    "bias-missing",
    8,
    "The bias is not added.",
    way(add=lambda y, bias: y),
    family="forward",
)
KNOWN.add(
    "bias-twice",
    8,
    "The bias is added twice: F.linear adds the one that it is given.",
    way(add=lambda y, bias: y + 2 * bias),
    way(
        add=lambda y, bias: y - bias,
        says="The bias is subtracted.",
    ),
    family="forward",
)
KNOWN.add(
    "bias-scaled",
    8,
    "The bias is multiplied by the scale, or quantized. It belongs to the outputs as they are: add "
    "it last.",
    way(add=lambda y, bias: y, product=lambda x, q, s, b: (F_linear(x, q.float(), b)) * s[:, 0]),
    way(add=lambda y, bias: y + bias.round()),
    family="forward",
)
KNOWN.add(
    "product-not-scaled",
    8,
    "The product is made with the integers as they are: the scales have no effect on the output.",
    way(product=lambda x, q, s, b: F_linear(x, q.float())),
    family="forward",
)
KNOWN.add(
    "input-quantized",
    8,
    "The input is rounded as well. Only the weights are quantized here.",
    way(product=lambda x, q, s, b: F_linear(round_rows(x), spread_back(q, s))),
    way(product=lambda x, q, s, b: F_linear(round_rows(x, whole=True), spread_back(q, s))),
    way(product=lambda x, q, s, b: F_linear(x.round(), spread_back(q, s))),
    way(
        product=lambda x, q, s, b: F_linear(x.bfloat16().float(), spread_back(q, s)),
        says="The input is rounded to half precision. It keeps its dtype.",
    ),
    way(
        product=lambda x, q, s, b: F_linear(x.half().float(), spread_back(q, s)),
        says="The input is rounded to half precision. It keeps its dtype.",
    ),
    family="forward",
)
KNOWN.add(
    "weight-transposed",
    8,
    "The product is made with the transposed weight, which goes unnoticed when it is square: "
    "y = x Wᵀ, as F.linear computes it.",
    way(product=lambda x, q, s, b: x @ spread_back(q, s)),
    family="forward",
)
KNOWN.add(
    "packed-not-unpacked",
    8,
    "At 4 bits, forward multiplies with the bytes as they are packed: unpack them first.",
)
KNOWN.add(
    "computes-with-the-float-weight",
    8,
    "The output is that of the float weight: forward does not compute with what was quantized.",
)
KNOWN.add(
    "nbytes-counts-numbers",
    9,
    "`nbytes` counts numbers, not bytes: an int8 takes one byte, and a float32 four.",
)
KNOWN.add("nbytes-without-scale", 9, "`nbytes` leaves the scales out.")
KNOWN.add("nbytes-without-bias", 9, "`nbytes` leaves the bias out.")
KNOWN.add("nbytes-of-floats", 9, "`nbytes` counts the weight as if it were float32.")
KNOWN.add(
    "nbytes-a-method",
    9,
    "`nbytes` is a method, and must be read like an attribute, as a tensor's: @property above it "
    "does that.",
)

# ── the model ───────────────────────────────────────────────────────────────────────────────────
KNOWN.add(
    "head-left-out",
    10,
    "The head, lm_head, is still a float layer. It is the largest of all: quantize it as well.",
)
KNOWN.add(
    "layers-left-out",
    10,
    "Not all linear layers of the blocks were replaced: c_attn and c_proj of the attention, c_fc "
    "and c_proj of the feed-forward network, in every block.",
)
KNOWN.add(
    "embeddings-quantized",
    10,
    "The embeddings were changed. Their table stays as it is, in float, also where the head shared "
    "it.",
)
KNOWN.add(
    "norms-changed",
    10,
    "Something else than the linear layers was changed: norms and biases stay as they are.",
)
KNOWN.add(
    "not-in-place",
    10,
    "The model that was given is unchanged: its own layers must be replaced (setattr on the module "
    "that holds the layer).",
)
KNOWN.add(
    "names-wrong",
    10,
    "quantize_model returns something else than a list of the replaced layers' full names, such as "
    "`h.0.attn.c_attn`.",
)
KNOWN.add(
    "model-bits-ignored",
    10,
    "`bits` does not reach the layers.",
)
KNOWN.add(
    "model-groups-ignored",
    10,
    "`group_size` does not reach the layers.",
)
KNOWN.add(
    "half-done",
    10,
    "After the ValueError some layers are quantized and others are not. Make all new layers first, "
    "and put them in when none has failed.",
)
KNOWN.add(
    "layers-share-a-weight",
    10,
    "Two places hold the same quantized layer. Each linear layer is quantized by itself.",
)


# ── what the ways above compute with ────────────────────────────────────────────────────────────
def F_linear(x, weight, bias=None):
    """x Wᵀ + b, written out."""
    y = x @ weight.t()
    return y if bias is None else y + bias


def spread_back(q, scale):
    """The weights that the integers stand for."""
    return (q.unflatten(1, (scale.size(1), -1)) * scale[..., None]).flatten(1)


def round_rows(x, whole=False):
    """Activations in int8 steps: of each row, or of all together."""
    step = (x.abs().max() if whole else x.abs().amax(-1, keepdim=True)) / 127
    return (x / step).round() * step
