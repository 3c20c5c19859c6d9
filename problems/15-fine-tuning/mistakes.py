"""Problem 15's known mistakes: what to say, which hint helps, and what each of them computes.

Families: `example` (build_example), `batch` (collate), `loss` (masked_loss), `rate`
(learning_rate), `step` (train_step), each with the steps of the function of that name in the test
file. Entries without ways are found by a check.
"""

import math

import torch
import torch.nn.functional as F

from learn_gpt2.checking.catalog import Catalog, way

IGNORE = -100
KNOWN = Catalog()

# ── build_example: steps cut, join, first, second, hide ─────────────────────────────────────────

KNOWN.add(
    "no-shift",
    2,
    "Targets are not shifted: target i is input i itself, so the model is trained to copy what it "
    "sees. Target i is the token after input i.",
    way(second=lambda t: t[:-1], hide=lambda t, p, e: [IGNORE] * p + t[p:]),
    way(second=lambda t: t[:-1]),
    way(first=lambda t: t, second=lambda t: t, hide=lambda t, p, e: [IGNORE] * p + t[p:]),
    way(first=lambda t: t, second=lambda t: t),
    way(first=lambda t: t[1:], hide=lambda t, p, e: [IGNORE] * (p - 1) + t[p - 1 :]),
    family="example",
)
KNOWN.add(
    "shifted-twice",
    2,
    "Targets are shifted twice: target i is the token two places after input i. One shift, in one "
    "place.",
    way(second=lambda t: [*t[2:], IGNORE]),
    way(first=lambda t: t[:-2], second=lambda t: t[2:]),
    way(second=lambda t: [*t[2:], IGNORE], hide=lambda t, p, e: [IGNORE] * (p - 2) + t[p - 2 :]),
    way(
        first=lambda t: t[:-2],
        second=lambda t: t[2:],
        hide=lambda t, p, e: [IGNORE] * (p - 2) + t[p - 2 :],
    ),
    family="example",
)
KNOWN.add(
    "prompt-trained",
    3,
    "The prompt is trained as well: targets inside the prompt must be IGNORE, for nobody wants the "
    "model to learn the questions.",
    way(hide=lambda t, p, e: t),
    family="example",
)
KNOWN.add(
    "first-answer-token-hidden",
    3,
    "The first token of the answer is not trained: its target stands beside the prompt's last "
    "token, one place before the answer's own inputs begin.",
    way(hide=lambda t, p, e: [IGNORE] * p + t[p:]),
    family="example",
)
KNOWN.add(
    "last-prompt-token-trained",
    3,
    "The last token of the prompt is trained: one target too few is hidden.",
    way(hide=lambda t, p, e: [IGNORE] * max(0, p - 2) + t[max(0, p - 2) :]),
    family="example",
)
KNOWN.add(
    "end-missing",
    2,
    "The end token is not in the example: the model never learns to stop.",
    way(join=lambda p, a, e: [*p, *a]),
    family="example",
)
KNOWN.add(
    "end-not-trained",
    3,
    "The end token is not trained: its target is IGNORE, so the model never learns to stop.",
    way(hide=lambda t, p, e: [IGNORE] * (p - 1) + t[p - 1 : -1] + [IGNORE]),
    way(
        join=lambda p, a, e: [*p, *a],
        first=lambda t: t,
        second=lambda t: [*t[1:], IGNORE],
    ),
    family="example",
)
KNOWN.add(
    "end-lost-by-value",
    3,
    "Every target that equals the end token is hidden, the one at the end of the answer included: "
    "the model never learns to stop. Hide by position, and not by value.",
    way(hide=lambda t, p, e: [IGNORE if x == e else x for x in [IGNORE] * (p - 1) + t[p - 1 :]]),
    family="example",
)
KNOWN.add(
    "end-fed",
    2,
    "The end token is among the inputs, with nothing after it to predict. Inputs lack the "
    "sequence's last token, as targets lack its first.",
    way(first=lambda t: t, second=lambda t: [*t[1:], IGNORE]),
    family="example",
)
KNOWN.add(
    "end-twice",
    2,
    "There are two end tokens behind the answer.",
    way(join=lambda p, a, e: [*p, *a, e, e]),
    family="example",
)
KNOWN.add(
    "end-between",
    2,
    "There is an end token between prompt and answer: it tells the model that the text is over, "
    "right where the answer should begin.",
    way(join=lambda p, a, e: [*p, e, *a, e]),
    way(join=lambda p, a, e: [*p, e, *a, e], hide=lambda t, p, e: [IGNORE] * p + t[p:]),
    family="example",
)
KNOWN.add(
    "end-in-front",
    2,
    "There is an end token in front of the prompt: the example is prompt, answer and one end.",
    way(join=lambda p, a, e: [e, *p, *a, e], hide=lambda t, p, e: [IGNORE] * p + t[p:]),
    way(join=lambda p, a, e: [e, *p, *a, e]),
    family="example",
)
KNOWN.add(
    "hidden-by-value",
    3,
    "Answer tokens that also occur in the prompt are hidden. What is hidden goes by position, and "
    "not by value.",
    way(by_value=True),
    family="example",
)
KNOWN.add(
    "answer-hidden",
    3,
    "The wrong part is hidden: the prompt is trained, and the answer is not.",
    way(hide=lambda t, p, e: t[: p - 1] + [IGNORE] * (len(t) - p + 1)),
    family="example",
)
KNOWN.add(
    "prompt-keeps-beginning",
    1,
    "A prompt that is too long loses its end, and must lose its beginning: what stands right "
    "before the answer matters most.",
    way(cut=lambda p, a, m: (p[: max(1, m - len(a))], a)),
    family="example",
)
KNOWN.add(
    "answer-cut",
    1,
    "Where an example is too long, the answer is cut. The prompt loses its beginning, and the "
    "answer is never cut.",
    way(late=lambda i, t, m: (i[:m], t[:m])),
    way(cut=lambda p, a, m: (p, a[: max(0, m - len(p))])),
    way(late=lambda i, t, m: (i[: m - 1], t[: m - 1])),
    way(cut=lambda p, a, m: (p, a), late=lambda i, t, m: (i[:m], t[:m])),
    family="example",
)
KNOWN.add(
    "room-one-too-small",
    1,
    "One token of the prompt too many is lost: inputs and targets may be max_length long, and the "
    "end token is not an input.",
    way(cut=lambda p, a, m: (p[-max(1, m - len(a) - 1) :], a)),
    family="example",
)
KNOWN.add(
    "room-one-too-large",
    1,
    "A long example has max_length + 1 inputs: one token of the prompt too few is lost.",
    way(cut=lambda p, a, m: (p[-max(1, m - len(a) + 1) :], a)),
    family="example",
)
KNOWN.add(
    "never-cut",
    1,
    "A long example is longer than max_length: the prompt must lose its beginning.",
    way(cut=lambda p, a, m: (p, a)),
    family="example",
)
KNOWN.add(
    "hidden-before-cutting",
    3,
    "When a prompt is cut, as many targets are hidden as it had tokens before: the beginning of "
    "the answer is not trained. Count the tokens of the prompt that are left.",
    way(uncut=True),
    family="example",
)
KNOWN.add(
    "empty-accepted",
    1,
    "An empty prompt or answer is accepted. Without a prompt nothing predicts the answer's first "
    "token, and without an answer there is nothing to learn.",
)
KNOWN.add(
    "no-room-accepted",
    1,
    "An answer that leaves no room for even one prompt token is accepted: len(answer) must be "
    "below max_length.",
)
KNOWN.add(
    "room-refused",
    1,
    "An answer that leaves room for one prompt token is refused.",
)
KNOWN.add(
    "lists-edited",
    1,
    "The list that was handed over is changed: the caller still needs it. Make a new list "
    "(`a + b`, not `a += b`).",
)
KNOWN.add(
    "not-lists",
    2,
    "build_example gives two lists of ints, for collate makes tensors of them.",
)
KNOWN.add(
    "lengths-differ",
    2,
    "Inputs and targets have different lengths: each input has one target.",
)

# ── collate: steps pad_inputs, pad_targets, side, change ────────────────────────────────────────

KNOWN.add(
    "padding-trained",
    4,
    "Targets are padded with the padding token: the model is trained to predict padding. Pad "
    "targets with IGNORE.",
    way(target_pad=lambda pad: pad),
    family="batch",
)
KNOWN.add(
    "targets-padded-with-zero",
    4,
    "Targets are padded with 0, which is a token as well: the model is trained to predict it. Pad "
    "targets with IGNORE.",
    way(target_pad=lambda pad: 0),
    family="batch",
)
KNOWN.add(
    "inputs-padded-with-ignore",
    4,
    "Inputs are padded with IGNORE, which is not a token: the embedding has no row for it. Pad "
    "inputs with pad_id.",
    way(input_pad=lambda pad: IGNORE),
    family="batch",
)
KNOWN.add(
    "inputs-padded-with-zero",
    4,
    "Inputs are padded with 0, whatever pad_id is.",
    way(input_pad=lambda pad: 0),
    family="batch",
)
KNOWN.add(
    "padded-left",
    4,
    "Padding is on the left: every token stands at the position of another, and attends to "
    "padding. Pad on the right, where causal attention keeps it out of what counts.",
    way(side="left"),
    family="batch",
)
KNOWN.add(
    "end-lost-as-padding",
    4,
    "Targets that equal pad_id become IGNORE. Where the padding is the end token, as in GPT-2, the "
    "end of each answer is lost with it, and the model never learns to stop. Hide by position.",
    way(change=lambda i, t, pad: (i, t.masked_fill(t == pad, IGNORE))),
    family="batch",
)
KNOWN.add(
    "shifted-in-collate",
    4,
    "collate shifts once more: build_example's targets are the tokens after the inputs already.",
    way(change=lambda i, t, pad: (i[:, :-1], t[:, 1:])),
    way(change=lambda i, t, pad: (i, torch.cat([t[:, 1:], t.new_full((len(t), 1), IGNORE)], 1))),
    family="batch",
)
KNOWN.add(
    "targets-from-inputs",
    4,
    "Targets are made of the inputs, and the ones that were handed over are not used.",
    way(change=lambda i, t, pad: (i, i.clone())),
    way(change=lambda i, t, pad: (i, i.masked_fill(i == pad, IGNORE))),
    family="batch",
)
KNOWN.add(
    "cut-to-shortest",
    4,
    "The batch is as wide as its shortest example: longer ones lose their end. It is as wide as "
    "the longest.",
    way(width=min),
    family="batch",
)
KNOWN.add(
    "one-column-too-many",
    4,
    "The batch is one column wider than its longest example.",
    way(width=lambda lengths: max(lengths) + 1),
    family="batch",
)
KNOWN.add(
    "order-changed",
    4,
    "The examples come out in another order than they went in.",
    way(order=lambda e: sorted(e, key=lambda x: len(x[0]))),
    way(order=lambda e: sorted(e, key=lambda x: -len(x[0]))),
    way(order=lambda e: e[::-1]),
    family="batch",
)
KNOWN.add(
    "inputs-and-targets-exchanged",
    4,
    "Inputs and targets are exchanged: collate gives the inputs first.",
    way(change=lambda i, t, pad: (t, i)),
    family="batch",
)
KNOWN.add(
    "not-int64",
    4,
    "Token ids must be int64: embeddings and cross-entropy take nothing else.",
)

# ── masked_loss: steps shift, scores, pick, keep, reduce ────────────────────────────────────────

KNOWN.add(
    "mean-for-sum",
    5,
    "The loss is the mean over targets, and must be their sum: means over parts of a batch do not "
    "add up to the batch's.",
    way(reduce=lambda x, kept: x[kept].mean()),
    family="loss",
)
KNOWN.add(
    "mean-over-all",
    5,
    "The loss is divided by all positions, those that don't count included; it must be a sum.",
    way(reduce=lambda x, kept: x[kept].sum() / x.numel()),
    family="loss",
)
KNOWN.add(
    "mean-over-examples",
    5,
    "The loss is divided by the number of examples; it must be a sum over all counted targets.",
    way(reduce=lambda x, kept: x[kept].sum() / x.size(0)),
    family="loss",
)
KNOWN.add(
    "shifted-in-loss",
    5,
    "The loss shifts the targets once more: they are the tokens after the inputs already, and so "
    "the model is trained two tokens ahead.",
    way(shift=lambda z, t: (z[:, :-1], t[:, 1:])),
    family="loss",
)
KNOWN.add(
    "ignored-counted",
    5,
    "Targets that are IGNORE count: of them something is added to the sum.",
    way(pick=lambda t: t.clamp(min=0), keep=lambda t: torch.ones_like(t, dtype=torch.bool)),
    way(pick=lambda t: t % 7, keep=lambda t: torch.ones_like(t, dtype=torch.bool)),
    way(
        scores=lambda z: F.log_softmax(z, -1),
        pick=lambda t: t.clone().masked_fill_(t == IGNORE, -1) % 10**9,
        keep=lambda t: torch.ones_like(t, dtype=torch.bool),
    ),
    family="loss",
)
KNOWN.add(
    "token-zero-ignored",
    5,
    "Token 0 is left out as well: only IGNORE doesn't count.",
    way(keep=lambda t: t > 0),
    family="loss",
)
KNOWN.add(
    "softmax-missing",
    5,
    "The softmax is missing: the loss is the negative logit, not the negative log-probability.",
    way(scores=lambda z: z),
    family="loss",
)
KNOWN.add(
    "log-missing",
    5,
    "The logarithm is missing: the loss is the negative probability.",
    way(scores=lambda z: z.softmax(-1)),
    family="loss",
)
KNOWN.add(
    "softmax-twice",
    5,
    "The softmax is applied twice: F.cross_entropy takes logits, and does it by itself.",
    way(scores=lambda z: F.log_softmax(z.softmax(-1), -1)),
    way(
        scores=lambda z: F.log_softmax(F.log_softmax(z, -1).exp(), -1),
    ),
    family="loss",
)
KNOWN.add(
    "loss-sign",
    5,
    "The loss has the wrong sign: it is minus the log-probability, which is positive.",
    way(reduce=lambda x, kept: -x[kept].sum()),
    family="loss",
)
KNOWN.add(
    "softmax-over-positions",
    5,
    "The softmax runs over the positions, and must run over the vocabulary.",
    way(scores=lambda z: F.log_softmax(z, 1)),
    family="loss",
)
KNOWN.add(
    "axes-mixed",
    5,
    "Logits are reshaped in a way that mixes positions: (B, T, V) flattens to (B·T, V) as it is, "
    "without a transpose.",
    way(scores=lambda z: F.log_softmax(z.transpose(1, 2).reshape(z.shape), -1)),
    way(scores=lambda z: F.log_softmax(z.transpose(0, 1).reshape(z.shape), -1)),
    family="loss",
)
KNOWN.add(
    "count-of-all",
    5,
    "The count is that of all positions: only targets that are not IGNORE count.",
)
KNOWN.add(
    "count-wrong",
    5,
    "The count is not the number of targets that are not IGNORE.",
)
KNOWN.add(
    "nan-without-targets",
    5,
    "Where no target counts, the loss is NaN: 0 / 0. A sum of nothing is 0.",
)
KNOWN.add(
    "error-without-targets",
    5,
    "Where no target counts, masked_loss stops with an error: the sum is 0 then, and the count, "
    "too.",
)
KNOWN.add(
    "loss-without-graph",
    5,
    "The sum carries no graph: it is detached, or turned into a number, and nothing can be trained "
    "with it.",
)
KNOWN.add(
    "loss-in-half",
    5,
    "The loss of bfloat16 logits is computed in bfloat16, which keeps three digits: turn the "
    "logits into float32 first.",
)
KNOWN.add(
    "loss-overflows",
    5,
    "Large logits make the loss infinite or NaN: a probability that rounds to 0 has no logarithm. "
    "Use log_softmax, or F.cross_entropy.",
)

# ── learning_rate: steps warm, share, shape, low, after ─────────────────────────────────────────

KNOWN.add(
    "warm-up-from-zero",
    6,
    "The first step has a learning rate of 0: step 0 of the warm-up is at 1/warmup_steps of the "
    "peak, since it is the first of so many.",
    way(warm=lambda s, w: s / w),
    family="rate",
)
KNOWN.add(
    "warm-up-too-long",
    6,
    "The warm-up is divided by warmup_steps + 1: its last step must be at the peak.",
    way(warm=lambda s, w: (s + 1) / (w + 1)),
    family="rate",
)
KNOWN.add(
    "warm-up-missing",
    6,
    "There is no warm-up: the learning rate starts at the peak.",
    way(warm=lambda s, w: 1.0),
    family="rate",
)
KNOWN.add(
    "cosine-from-start",
    6,
    "The cosine counts from step 0: it begins after the warm-up, at the peak.",
    way(share=lambda s, w, m: s / m),
    family="rate",
)
KNOWN.add(
    "cosine-too-slow",
    6,
    "The cosine takes max_steps steps, counted from the end of the warm-up: it must be at its end "
    "at max_steps, so it has max_steps − warmup_steps of them.",
    way(share=lambda s, w, m: (s - w) / m),
    family="rate",
)
KNOWN.add(
    "cosine-ends-one-early",
    6,
    "The cosine is at its end one step before max_steps.",
    way(share=lambda s, w, m: min(1.0, (s - w) / max(1, m - w - 1))),
    family="rate",
)
KNOWN.add(
    "cosine-one-ahead",
    6,
    "The cosine is one step ahead: at step warmup_steps it is still at the peak.",
    way(share=lambda s, w, m: (s + 1 - w) / (m - w)),
    family="rate",
)
KNOWN.add(
    "linear-decay",
    6,
    "The decay is a straight line, and must be half a cosine.",
    way(shape=lambda x: 1 - x),
    family="rate",
)
KNOWN.add(
    "quarter-cosine",
    6,
    "The decay is a quarter of a cosine (π / 2), which starts to fall at once and ends steeply; it "
    "must be half of one, ½ (1 + cos πx).",
    way(shape=lambda x: math.cos(0.5 * math.pi * x)),
    family="rate",
)
KNOWN.add(
    "whole-cosine",
    6,
    "The decay goes down and up again: it is a whole cosine (2π), and must be half of one.",
    way(shape=lambda x: 0.5 * (1 + math.cos(2 * math.pi * x))),
    family="rate",
)
KNOWN.add(
    "cosine-not-halved",
    6,
    "The cosine's factor goes from 2 to 0, and must go from 1 to 0: ½ (1 + cos πx).",
    way(shape=lambda x: 1 + math.cos(math.pi * x)),
    family="rate",
)
KNOWN.add(
    "cosine-below-zero",
    6,
    "The cosine's factor goes from 1 to −1, and must go from 1 to 0: ½ (1 + cos πx).",
    way(shape=lambda x: math.cos(math.pi * x)),
    family="rate",
)
KNOWN.add(
    "final-ratio-ignored",
    6,
    "final_ratio is not used: the schedule ends at 0.",
    way(low=lambda peak, ratio: 0.0),
    family="rate",
)
KNOWN.add(
    "final-ratio-fixed",
    6,
    "The schedule ends at a tenth of the peak, whatever final_ratio is.",
    way(low=lambda peak, ratio: 0.1 * peak),
    family="rate",
)
KNOWN.add(
    "final-ratio-absolute",
    6,
    "The schedule ends at final_ratio itself: it is a share of the peak.",
    way(low=lambda peak, ratio: ratio),
    family="rate",
)
KNOWN.add(
    "floor-added",
    6,
    "The floor is added to a cosine of the whole peak: the schedule starts above the peak. The "
    "cosine goes over peak − floor.",
    way(mix=lambda low, peak, f: low + peak * f),
    family="rate",
)
KNOWN.add(
    "floor-cuts",
    6,
    "The cosine goes to 0 and is cut off at the floor: it must arrive there at max_steps, and not "
    "before.",
    way(mix=lambda low, peak, f: max(low, peak * f)),
    family="rate",
)
KNOWN.add(
    "rises-after-end",
    6,
    "After max_steps the cosine goes on and rises again: from there on the rate stays at "
    "final_ratio · peak.",
    way(clamp=lambda x: x, ended=lambda s, w, m: False),
    family="rate",
)
KNOWN.add(
    "zero-after-end",
    6,
    "From max_steps on the rate is 0: it must stay at final_ratio · peak.",
    way(after=lambda low: 0.0),
    family="rate",
)
KNOWN.add(
    "warm-up-beyond-end",
    6,
    "Where the warm-up is longer than the run, it goes on after max_steps: from max_steps on the "
    "rate is final_ratio · peak, whatever the warm-up.",
)
KNOWN.add(
    "divides-by-zero",
    6,
    "A warm-up of 0 steps, or one that is as long as the run, ends in a division by zero.",
)

# ── parameter_groups ────────────────────────────────────────────────────────────────────────────

KNOWN.add(
    "norms-decay",
    7,
    "Norm weights decay: they have one dimension, and pulling them to 0 would switch their layer "
    "off. Go by the number of dimensions, and not by the name.",
)
KNOWN.add(
    "biases-decay",
    7,
    "Biases decay: only tensors of two and more dimensions do.",
)
KNOWN.add(
    "all-decay",
    7,
    "Everything decays, biases and norms too: only tensors of two and more dimensions do.",
)
KNOWN.add(
    "nothing-decays",
    7,
    "Nothing decays: tensors of two and more dimensions do, by weight_decay.",
)
KNOWN.add(
    "decay-exchanged",
    7,
    "The groups are exchanged: biases and norms decay, and matrices don't.",
)
KNOWN.add(
    "embeddings-left-undecayed",
    7,
    "Embeddings don't decay: they have two dimensions.",
)
KNOWN.add(
    "only-two-dimensions",
    7,
    "A tensor of three dimensions does not decay: all of two and more do.",
)
KNOWN.add(
    "decay-key-missing",
    7,
    "A group has no weight_decay of its own: an optimizer then uses its default, which for AdamW "
    "is 0.01. Write 0.0 down.",
)
KNOWN.add(
    "decay-other-value",
    7,
    "A group has another weight_decay than the one that was asked for.",
)
KNOWN.add(
    "tied-twice",
    7,
    "A tied parameter is there twice: an optimizer would refuse it, or step twice with it. Count "
    "tensors, and not names.",
)
KNOWN.add(
    "frozen-included",
    7,
    "A frozen parameter (requires_grad is False) is in a group: leave it out.",
)
KNOWN.add(
    "parameters-missing",
    7,
    "A parameter is in no group: it would never be trained.",
)

# ── train_step: steps scale, gather, clip, apply, report ────────────────────────────────────────

KNOWN.add(
    "mean-of-means",
    8,
    "The gradient is the mean of the parts' means: a token in a part with few targets counts for "
    "more than one in a part with many. Divide each part's sum by the targets of all parts.",
    way(scale=lambda s, n, total, k, size: s / n / k),
    family="step",
)
KNOWN.add(
    "means-added",
    8,
    "The parts' means are added up: the gradient grows with the number of parts. Divide each "
    "part's sum by the targets of all parts.",
    way(scale=lambda s, n, total, k, size: s / n),
    family="step",
)
KNOWN.add(
    "not-divided",
    8,
    "The summed loss is trained, and must be divided by the number of counted targets of all "
    "parts.",
    way(scale=lambda s, n, total, k, size: s),
    family="step",
)
KNOWN.add(
    "divided-by-parts",
    8,
    "The sums are divided by the number of parts, and must be by the number of counted targets.",
    way(scale=lambda s, n, total, k, size: s / k),
    family="step",
)
KNOWN.add(
    "divided-by-all-positions",
    8,
    "The sums are divided by the number of all positions, those that don't count included.",
    way(scale=lambda s, n, total, k, size: s / size),
    family="step",
)
KNOWN.add(
    "divided-twice",
    8,
    "The mean over all targets is divided by the number of parts once more.",
    way(scale=lambda s, n, total, k, size: s / total / k),
    family="step",
)
KNOWN.add(
    "gradients-left-over",
    9,
    "Gradients that were there before are added to this step's: start from none, at the beginning "
    "of the step.",
    way(start=lambda left: left),
    family="step",
)
KNOWN.add(
    "only-last-part",
    9,
    "Only the last part's gradient is left: gradients are zeroed between the parts, which should "
    "add up.",
    way(gather=lambda total, g: g),
    family="step",
)
KNOWN.add(
    "only-first-part",
    10,
    "Only the first part is trained.",
    way(parts=lambda b: b[:1]),
    family="step",
)
KNOWN.add(
    "clipped-each-part",
    12,
    "The gradient is clipped after each part, so before the last one came: clip once, when all "
    "parts are there.",
    way(when="each"),
    family="step",
)
KNOWN.add(
    "clipped-early",
    12,
    "The gradient is clipped before the last part came: clip once, after all parts.",
    way(when="early"),
    family="step",
)
KNOWN.add(
    "not-clipped",
    12,
    "The gradient is not clipped before the step.",
    way(clip=lambda g, c: g),
    family="step",
)
KNOWN.add(
    "clipped-by-value",
    12,
    "Every number of the gradient is clipped by itself, which turns the gradient: scale it as a "
    "whole where its norm is larger than grad_clip.",
    way(clip=lambda g, c: [x.clamp(-c, c) for x in g]),
    family="step",
)
KNOWN.add(
    "clipped-by-tensor",
    12,
    "Every tensor's gradient is clipped by its own norm: it is the norm of all of them together.",
    way(clip=lambda g, c: [clipped([x], c)[0] for x in g]),
    family="step",
)
KNOWN.add(
    "always-scaled",
    12,
    "The gradient is scaled to a norm of grad_clip also where it is shorter: clipping never makes "
    "it longer.",
    way(clip=lambda g, c: [x * (c / norm(g)) for x in g]),
    family="step",
)
KNOWN.add(
    "clip-ignored",
    12,
    "The gradient is clipped to a norm of 1, whatever grad_clip is.",
    way(clip=lambda g, c: clipped(g, 1.0)),
    family="step",
)
KNOWN.add(
    "no-step",
    12,
    "The weights do not change: the optimizer takes no step.",
    way(apply=lambda p, g, lr: p),
    way(clip=lambda g, c: [x * 0 for x in g]),
    family="step",
)
KNOWN.add(
    "step-each-part",
    12,
    "The optimizer takes a step for each part: it is one step, after all parts.",
    way(each=True),
    way(each=True, gather=lambda total, g: g),
    way(each=True, scale=lambda s, n, total, k, size: s / n, gather=lambda total, g: g),
    way(each=True, scale=lambda s, n, total, k, size: s / n),
    family="step",
)
KNOWN.add(
    "two-steps",
    12,
    "The optimizer takes two steps.",
    way(apply=lambda p, g, lr: [a - 2 * lr * b for a, b in zip(p, g, strict=True)]),
    family="step",
)
KNOWN.add(
    "prompt-counted",
    10,
    "All targets are trained, those that are IGNORE included.",
    way(counts=lambda t: t.clamp(min=0)),
    family="step",
)
KNOWN.add(
    "loss-of-last-part",
    10,
    "The loss that is returned is the last part's alone.",
)
KNOWN.add(
    "loss-not-the-mean",
    10,
    "The loss that is returned is not the mean over all counted targets of all parts.",
)
KNOWN.add(
    "loss-mean-of-means",
    10,
    "The loss that is returned is the mean of the parts' means.",
)
KNOWN.add(
    "loss-summed",
    10,
    "The loss that is returned is the sum over targets, and must be their mean.",
)
KNOWN.add(
    "norm-after-clipping",
    12,
    "The norm that is returned is the one after clipping: it would say grad_clip at most, and hide "
    "what it is there to show.",
)
KNOWN.add(
    "norm-squared",
    12,
    "The norm that is returned is squared: the root is missing.",
)
KNOWN.add(
    "norm-of-norms-added",
    12,
    "The norm that is returned is the sum of the tensors' norms: it is the root of the sum of all "
    "squares.",
)
KNOWN.add(
    "norm-wrong",
    12,
    "The norm that is returned is not that of the whole gradient before clipping.",
)
KNOWN.add(
    "results-exchanged",
    12,
    "Loss and norm are exchanged: train_step gives the loss first.",
)
KNOWN.add(
    "total-ignored",
    8,
    "`total` is not used: where it is given, the sums are divided by it, and so is the loss that "
    "is returned.",
)
KNOWN.add(
    "total-for-gradient-only",
    8,
    "`total` divides the gradient, and not the loss that is returned.",
)
KNOWN.add(
    "mode-switched",
    10,
    "train_step switches the model's mode. The caller chooses, with train() and eval().",
)
KNOWN.add(
    "no-target-accepted",
    8,
    "A step in which no target counts raises no ValueError.",
)
KNOWN.add(
    "no-target-changes",
    8,
    "A step in which no target counts changes the weights, or what the optimizer remembers, before "
    "it says so.",
)
KNOWN.add(
    "no-sync-missing",
    10,
    "The model's no_sync() is not used: the ranks compare their gradients after every part, and "
    "once, at the last one, is enough.",
)
KNOWN.add(
    "no-sync-for-all",
    10,
    "The last part runs inside no_sync(), too: then the ranks never compare their gradients.",
)
KNOWN.add(
    "no-sync-half",
    10,
    "Forward and backward of a part do not both run inside no_sync().",
)
KNOWN.add(
    "no-sync-required",
    10,
    "train_step calls no_sync() or finish() on a model that has none: ask first whether it has.",
)
KNOWN.add(
    "finish-missing",
    11,
    "The model's finish() is not called: gradients may still be on their way between the ranks.",
)
KNOWN.add(
    "finish-late",
    11,
    "finish() is called after clipping or after the step: until it is called, the gradients are "
    "not those of all ranks.",
)
KNOWN.add(
    "finish-each-part",
    11,
    "finish() is called for every part: once, after the last one, is enough.",
)
KNOWN.add(
    "autocast-missing",
    10,
    "autocast_dtype is not used: the model computes in float32.",
)
KNOWN.add(
    "autocast-always",
    10,
    "The model runs under autocast although autocast_dtype is None.",
)
KNOWN.add(
    "weights-in-half",
    10,
    "The model's weights change their dtype: autocast leaves them in float32.",
)


def norm(gradients):
    """The length of all of them together."""
    return torch.sqrt(sum((g.double() ** 2).sum() for g in gradients)).float()


def clipped(gradients, limit):
    """Scaled as one vector to a length of at most `limit`."""
    factor = min(1.0, float(limit / (norm(gradients) + 1e-6)))
    return [g * factor for g in gradients]
