"""The known mistakes of problem 07, by the step that they replace (see `textbook`)."""

import torch
import torch.nn.functional as F

from learn_gpt2.checking.catalog import Catalog, way

KNOWN = Catalog()

norm = KNOWN.section("norm", hint=2)
norm(
    "unbiased-variance",
    "Your variance divides by C − 1 (PyTorch's default, an estimate from a sample). Layer norm divides by C, the biased variance: the C numbers are all there are.",
    hint=3,
    correction=1,
)
norm(
    "eps-outside-root",
    "You add eps to the standard deviation. It belongs under the root: √(variance + eps).",
    hint=4,
    root=lambda v, eps: v.sqrt() + eps,
)
norm(
    "eps-missing",
    "There is no eps under the root: a token of C equal numbers has variance 0, and 0/0 is NaN.",
    hint=4,
    root=lambda v, eps: v.sqrt(),
)
norm(
    "divides-by-variance",
    "You divide by the variance. Divide by its square root, the standard deviation.",
    hint=3,
    root=lambda v, eps: v + eps,
)
norm(
    "multiplies-by-std",
    "You multiply by the standard deviation, which spreads the numbers further. Divide by it.",
    hint=3,
    root=lambda v, eps: (v + eps).rsqrt(),
)
norm(
    "std-missing",
    "You subtract the mean and leave the spread as it is. Divide by √(variance + eps), too.",
    hint=3,
    root=lambda v, eps: torch.ones_like(v),
)
norm(
    "weight-ignored",
    "The weight has no effect: after normalizing, each of the C numbers is multiplied by its own weight.",
    hint=5,
    affine=lambda y, w, b: y + b,
)
norm(
    "bias-ignored",
    "The bias has no effect: it is added last, after the weight.",
    hint=5,
    affine=lambda y, w, b: y * w,
)
norm(
    "no-affine",
    "Weight and bias have no effect: the normalized numbers are scaled by the one, then shifted by the other.",
    hint=5,
    affine=lambda y, w, b: y,
)
norm(
    "bias-subtracted",
    "You subtract the bias. It is added.",
    hint=5,
    affine=lambda y, w, b: y * w - b,
)
norm(
    "bias-before-weight",
    "You add the bias before you multiply by the weight. The weight comes first, the bias last.",
    hint=5,
    affine=lambda y, w, b: (y + b) * w,
)
norm(
    "weight-and-bias-swapped",
    "Weight and bias are swapped: multiply by the weight, add the bias.",
    hint=5,
    affine=lambda y, w, b: y * b + w,
)
norm(
    "weight-added",
    "You add the weight. It multiplies; the bias is what is added.",
    hint=5,
    affine=lambda y, w, b: y + w + b,
)
norm(
    "weight-divides",
    "You divide by the weight. It multiplies.",
    hint=5,
    affine=lambda y, w, b: y / w + b,
)
norm(
    "weight-plus-one",
    "You multiply by 1 + weight. Here the weight starts at 1 itself, so multiply by it alone: the checkpoint's weights are meant so.",
    hint=5,
    affine=lambda y, w, b: y * (1 + w) + b,
)
norm(
    "affine-twice",
    "Weight and bias are applied twice. Once is enough.",
    hint=5,
    affine=lambda y, w, b: (y * w + b) * w + b,
)
norm(
    "weight-twice",
    "The weight is applied twice. Once is enough.",
    hint=5,
    affine=lambda y, w, b: y * w * w + b,
)
norm(
    "bias-twice",
    "The bias is added twice. Once is enough.",
    hint=5,
    affine=lambda y, w, b: y * w + 2 * b,
)
norm(
    "weight-before",
    "The weight is applied before normalizing, which undoes part of it. Normalize first, then scale and shift.",
    way(norm_input=lambda x, w, b: x * w, affine=lambda y, w, b: y + b),
    way(
        says="Weight and bias are applied before normalizing, which undoes part of them. Normalize first, then scale and shift.",
        norm_input=lambda x, w, b: x * w + b,
        affine=lambda y, w, b: y,
    ),
    hint=5,
)
norm(
    "rms-norm",
    "The mean is neither subtracted nor taken out of the spread: that is RMSNorm, a later invention. Subtract the mean first.",
    shift=lambda m: 0.0,
    spread=lambda x, m, v: v + m**2,
)
norm(
    "mean-not-subtracted",
    "The mean is not subtracted: x − mean is what is divided by the standard deviation.",
    shift=lambda m: 0.0,
)
norm(
    "mean-added",
    "You add the mean. Subtract it, so that the numbers of each token lie around 0.",
    shift=lambda m: -m,
)
norm(
    "sign-flipped",
    "You subtract x from the mean. It is x − mean: all signs are wrong now.",
    affine=lambda y, w, b: -y * w + b,
)
norm(
    "root-squared",
    "You square where the root must be: (variance + eps) ** 2. Divide by √(variance + eps), which is (variance + eps) ** 0.5.",
    hint=3,
    root=lambda v, eps: (v + eps) ** 2,
)
norm(
    "root-taken-twice",
    "The root is taken twice: √(std + eps), and std is a root already. Take the variance, or no second root.",
    hint=3,
    root=lambda v, eps: (v.sqrt() + eps).sqrt(),
)
norm(
    "mean-not-squared",
    "Your variance is E[x²] − mean. It is E[x²] − mean²: the square of the mean is subtracted.",
    hint=3,
    spread=lambda x, m, v: v + m**2 - m,
)
norm(
    "variance-not-centred",
    "Your variance is the mean of x². It is the mean of (x − mean)².",
    hint=3,
    spread=lambda x, m, v: v + m**2,
)
norm(
    "variance-is-sum",
    "You add the squared distances up and don't divide by C. The variance is their mean.",
    hint=3,
    spread=lambda x, m, v: v * x.size(-1),
)
norm(
    "variance-is-absolute",
    "You take the mean distance from the mean, without squares. The variance is the mean of the squared distances.",
    way(root=lambda v, eps: v + eps, spread=lambda x, m, v: (x - m).abs().mean(-1, keepdim=True)),
    way(spread=lambda x, m, v: (x - m).abs().mean(-1, keepdim=True)),
    hint=3,
)
norm(
    "mean-is-sum",
    "You subtract the sum. The mean is the sum divided by C.",
    middle=lambda x, m: x.sum(-1, keepdim=True),
)
norm(
    "mean-is-median",
    "You subtract the median, or another number of the row. Subtract the mean.",
    middle=lambda x, m: x.median(-1, keepdim=True).values,
)
norm(
    "normalised-over-tokens",
    "Mean and variance run over the tokens (axis T): each token then depends on the others, later ones too. They run over the last axis, each token by itself.",
    axes=lambda x: (-2,),
)
norm(
    "axis-from-the-left",
    "The axis is counted from the left (dim=2), which is the last only when x has three axes. Count from the right: dim=-1.",
    way(axes=lambda x: (2,)),
    way(
        says=(
            "The axis is counted from the left (dim=1). Count from the right: dim=-1 is the last, always."
        ),
        general=True,
        axes=lambda x: (1,),
    ),
)
norm(
    "normalised-over-batch",
    "Mean and variance run over the batch (axis 0): a sequence then depends on which others are in the batch. They run over the last axis.",
    axes=lambda x: (0,),
)
norm(
    "batch-norm",
    "Mean and variance run over batch and tokens: that is batch normalization. Layer norm takes them over the last axis, for each token by itself.",
    way(axes=lambda x: tuple(range(x.dim() - 1))),
    way(
        says="Batch normalization takes axis 1 for the features, and mean and variance over the batch. Layer norm takes them over the last axis, for each token by itself.",
        norm=lambda x, w, b, eps: F.batch_norm(x, None, None, w, b, True, 0.1, eps),
    ),
)
norm(
    "normalised-over-sequence",
    "Mean and variance run over tokens and features together: a token then depends on the others, later ones too. They run over the last axis alone.",
    way(axes=lambda x: (-2, -1)),
    way(
        says=(
            "Mean and variance run over all axes but the first. They run over the last axis alone."
        ),
        general=True,
        axes=lambda x: tuple(range(1, x.dim())),
    ),
)
norm(
    "normalised-over-everything",
    "There is one mean and one variance for the whole tensor (.mean() without dim). Each token has its own: over the last axis.",
    axes=lambda x: tuple(range(x.dim())),
)
norm(
    "mean-over-everything",
    "There is one mean for the whole tensor. Each token has its own: over the last axis.",
    middle=lambda x, m: x.mean(),
)
norm(
    "mean-over-tokens",
    "The mean runs over the tokens. It runs over the last axis, as the variance does.",
    middle=lambda x, m: x.mean(-2, keepdim=True),
)
norm(
    "variance-over-everything",
    "There is one variance for the whole tensor. Each token has its own: over the last axis.",
    way(spread=lambda x, m, v: x.var(correction=0)),
    way(
        says=(
            "The variance is averaged over all tokens. Each token has its own: over the last axis."
        ),
        spread=lambda x, m, v: v.mean(),
    ),
)
norm(
    "variance-over-tokens",
    "The variance runs over the tokens. It runs over the last axis, as the mean does.",
    spread=lambda x, m, v: x.var(-2, correction=0, keepdim=True),
)
norm(
    "mean-over-batch",
    "The mean runs over the batch. It runs over the last axis, as the variance does.",
    middle=lambda x, m: x.mean(0, keepdim=True),
)
norm(
    "variance-over-batch",
    "The variance runs over the batch. It runs over the last axis, as the mean does.",
    spread=lambda x, m, v: x.var(0, correction=0, keepdim=True),
)
norm(
    "keepdim-missing",
    "Mean and variance have lost the last axis, so they line up with the wrong one of x. keepdim=True leaves it there, with size 1.",
    keepdim=False,
)
norm(
    "length-one",
    "You divide each token by its length. Divide by the standard deviation, after subtracting the mean: the spread becomes 1, not the length.",
    hint=3,
    shift=lambda m: 0.0,
    root=lambda v, eps: v.sqrt(),
    spread=lambda x, m, v: (x * x).sum(-1, keepdim=True),
)
norm(
    "group-norm",
    "nn.GroupNorm takes axis 1 for the features; here they are the last.",
    norm=lambda x, w, b, eps: F.group_norm(x, 1, w, b, eps),
)
norm("returns-input", "forward returns x as it came.", hint=5, norm=lambda x, w, b, eps: x)
norm(
    "residual-in-norm",
    "LayerNorm adds x to its result. That sum is ResidualBlock's.",
    hint=5,
    norm=lambda x, w, b, eps: x + F.layer_norm(x, w.shape, w, b, eps),
)
norm(
    "softmax",
    "That is a softmax. Subtract the mean and divide by the standard deviation.",
    norm=lambda x, w, b, eps: x.softmax(-1) * w + b,
)
norm(
    "min-max",
    "You scale each token to lie between 0 and 1. Subtract the mean and divide by the standard deviation.",
    norm=lambda x, w, b, eps: (
        (x - x.amin(-1, True)) / (x.amax(-1, True) - x.amin(-1, True)) * w + b
    ),
)

gradient = KNOWN.section("gradient", hint=6)
gradient(
    "statistics-detached",
    "The gradient does not flow through mean and variance (detach, no_grad, .data). They depend on x, and so must the gradient.",
    way(detach="mean variance"),
    way(
        says=(
            "The gradient does not flow through the mean (detach, no_grad, .data). It depends on x."
        ),
        detach="mean",
    ),
    way(
        says=(
            "The gradient does not flow through the variance (detach, no_grad, .data). It depends on x."
        ),
        detach="variance",
    ),
)
gradient(
    "no-gradient",
    "No gradient reaches x: it is detached, or taken as .data. The layers below would not learn.",
    detach="input",
)

residual = KNOWN.section("residual", hint=8)
residual(
    "post-norm",
    "That is post-norm, ln(x + sublayer(x)): the stream itself is normalized. In GPT-2 only the branch is: x + sublayer(ln(x)).",
    hint=7,
    residual=lambda x, ln, f: ln(x + f(x)),
)
residual(
    "norm-twice",
    "The branch is normalized and the sum again: ln(x + sublayer(ln(x))). Leave the sum as it is, nothing normalizes the stream.",
    hint=7,
    residual=lambda x, ln, f: ln(x + f(ln(x))),
)
residual(
    "no-residual",
    "The input is not added: you return what the sublayer made. The block adds it to x.",
    residual=lambda x, ln, f: f(ln(x)),
)
residual(
    "no-norm",
    "The sublayer reads x itself. It reads the normalized copy, ln(x).",
    hint=7,
    residual=lambda x, ln, f: x + f(x),
)
residual(
    "residual-normalised",
    "You add the normalized x: ln(x) + sublayer(ln(x)). Add x itself, as it came in.",
    way(residual=lambda x, ln, f: ln(x) + f(ln(x))),
    way(
        says="x and the normalized x are both added. Add x alone.",
        residual=lambda x, ln, f: x + ln(x) + f(ln(x)),
    ),
    way(
        says=(
            "The roles are swapped: you normalize what is added, and the sublayer reads x itself."
        ),
        hint=7,
        residual=lambda x, ln, f: ln(x) + f(x),
    ),
)
residual(
    "norm-on-branch-output",
    "You normalize what the sublayer returns. Normalize what it reads: x + sublayer(ln(x)).",
    way(residual=lambda x, ln, f: x + ln(f(x))),
    way(
        says=(
            "You normalize what the sublayer reads and also what it returns. Only the first is right."
        ),
        residual=lambda x, ln, f: x + ln(f(ln(x))),
    ),
    hint=7,
)
residual(
    "no-sublayer",
    "The sublayer is not called: you return x + ln(x).",
    way(residual=lambda x, ln, f: x + ln(x)),
    way(says="The sublayer is not called: you return ln(x).", residual=lambda x, ln, f: ln(x)),
    way(
        says="You return x as it came. Add what the sublayer makes of ln(x).",
        residual=lambda x, ln, f: x,
    ),
    way("not-called", says="The sublayer is never called.", family=""),
    hint=7,
)
residual(
    "sublayer-alone",
    "There is neither norm nor sum: you return sublayer(x). Return x + sublayer(ln(x)).",
    hint=7,
    residual=lambda x, ln, f: f(x),
)
residual(
    "residual-doubled",
    "x is added twice. Once is enough.",
    residual=lambda x, ln, f: 2 * x + f(ln(x)),
)
residual(
    "branch-doubled",
    "What the sublayer makes is added twice. Once is enough.",
    way(residual=lambda x, ln, f: x + 2 * f(ln(x))),
    way(
        says=(
            "The sublayer's result for x and its result for ln(x) are both added. Add the second alone."
        ),
        residual=lambda x, ln, f: x + f(x) + f(ln(x)),
    ),
)
residual(
    "sublayer-twice",
    "The sublayer is applied twice, the second time to its own result. Once is enough.",
    way(residual=lambda x, ln, f: x + f(f(ln(x)))),
    way(
        says="The sublayer is applied twice. Once is enough.",
        residual=lambda x, ln, f: x + f(ln(x + f(ln(x)))),
    ),
    way(
        says="The sublayer is applied twice. Once is enough.",
        residual=lambda x, ln, f: x + f(ln(x)) + f(ln(x + f(ln(x)))),
    ),
    way(
        "called-often",
        says="The sublayer is called more than once. That costs twice the time, and a sublayer with dropout or a cache gives something else each time.",
        family="",
    ),
)
residual(
    "branch-subtracted",
    "What the sublayer makes is subtracted. Add it.",
    way(residual=lambda x, ln, f: x - f(ln(x))),
    way(
        says="x is subtracted from what the sublayer makes. Add the two.",
        residual=lambda x, ln, f: f(ln(x)) - x,
    ),
)
residual(
    "branch-multiplied",
    "x is multiplied by what the sublayer makes. Add the two.",
    residual=lambda x, ln, f: x * f(ln(x)),
)
residual(
    "sum-scaled",
    "The sum is scaled. GPT-2 adds, and that is all: x + sublayer(ln(x)).",
    way(residual=lambda x, ln, f: (x + f(ln(x))) / 2),
    way(
        says="The sum is scaled by 1/√2. GPT-2 adds, and that is all: x + sublayer(ln(x)).",
        residual=lambda x, ln, f: (x + f(ln(x))) / 2**0.5,
    ),
    way(
        says=(
            "Half of what the sublayer makes is added. GPT-2 adds all of it: x + sublayer(ln(x))."
        ),
        residual=lambda x, ln, f: x + f(ln(x)) / 2,
    ),
)
residual(
    "own-norm-unused",
    "The sublayer's input is normalized, without the weight and bias of self.ln: use that one.",
    hint=7,
    residual=lambda x, ln, f: x + f(F.layer_norm(x, x.shape[-1:])),
)
residual(
    "activation-added",
    "There is an activation around the sum. GPT-2 adds, and that is all: x + sublayer(ln(x)).",
    residual=lambda x, ln, f: torch.relu(x + f(ln(x))),
)
residual(
    "concatenated",
    "You concatenate x and what the sublayer makes. Add them: the width must stay C.",
    residual=lambda x, ln, f: torch.cat((x, f(ln(x))), -1),
)
residual(
    "residual-of-branch",
    "You add the sublayer's input to its output and leave x out. Add x itself.",
    residual=lambda x, ln, f: f(ln(x)) + f(x),
)

# ── found by a check, not by its numbers ──

hint_1 = KNOWN.section(hint=1)
hint_1("frozen-parameter", "weight and bias are learned: leave requires_grad at True.")
hint_1(
    "hard-coded-size",
    "The size of weight and bias is fixed in the code. It is the argument n_embd.",
)
hint_1(
    "not-a-parameter",
    "weight and bias must be nn.Parameter: a plain tensor is neither trained nor saved nor moved to the GPU, and a buffer is not trained.",
)
hint_1(
    "parameter-shape",
    "weight and bias hold one number for each of the C features: their shape is (n_embd,).",
)
hint_1(
    "wrong-start",
    "weight starts as ones and bias as zeros, so that a new layer norm normalizes and does nothing else.",
)

hint_4 = KNOWN.section(hint=4)
hint_4("eps-default", "The default of eps is 1e-5, as GPT-2's layer_norm_epsilon is.")
hint_4(
    "eps-ignored",
    "The argument eps has no effect: the norm is what eps = 1e-5 gives, whatever was asked for.",
)
hint_4(
    "eps-misplaced",
    "The result is right where the variance is large, and wrong where it is near eps: eps is added to the variance, once, before the root is taken.",
)
hint_4("eps-squared", "You add eps² under the root. It is eps itself: √(variance + eps).")
hint_4("eps-wrong", "The eps under the root is another than was asked for (the default is 1e-5).")
hint_4(
    "epsilon-not-passed",
    "The block's norm has another epsilon than layer_norm_epsilon: hand the argument on to LayerNorm.",
)

hint_5 = KNOWN.section(hint=5)
hint_5(
    "normalised-twice",
    "The numbers are normalized twice. Once is enough.",
    way(
        says="The norm is applied twice before the sublayer. Once is enough.",
        hint=7,
        family="residual",
        residual=lambda x, ln, f: x + f(ln(ln(x))),
    ),
)

hint_6 = KNOWN.section(hint=6)
hint_6(
    "dtype-changed",
    "The result has another dtype than x. If you compute in float32, go back to x.dtype at the end.",
)
hint_6(
    "running-statistics",
    "There are running statistics, as in batch normalization. Layer norm keeps none: mean and variance are those of the token at hand, in training and in eval mode.",
)
hint_6(
    "train-differs",
    "In training mode the result is another than in eval mode. Layer norm has no dropout and no running statistics: it does the same in both.",
    way(
        "block-train-differs",
        says="In training mode the result is another than in eval mode. There is no dropout here: the sublayers have their own.",
        hint=7,
    ),
)

hint_7 = KNOWN.section(hint=7)
hint_7(
    "sublayer-not-called",
    "A sublayer is any function. Call it: sublayer(…), not sublayer.forward(…), which also skips a module's hooks.",
)
hint_7(
    "wrong-argument-order",
    "forward takes (x, sublayer), in this order: yours takes the sublayer first.",
)

hint_8 = KNOWN.section(hint=8)
hint_8(
    "residual-detached",
    "No gradient flows along the stream: x is detached where it is added. With a sublayer that gives 0, the gradient must pass through the block unchanged.",
)
hint_8(
    "sublayer-kept",
    "The block keeps the sublayer as an attribute, so its weights are in the block's state_dict(). It is handed over at each call: use it and forget it.",
)
