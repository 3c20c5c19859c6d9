"""The known mistakes of problem 11."""

from learn_gpt2.checking.catalog import Catalog

KNOWN = Catalog()

# ── found by a check, not by its numbers ──

hint_1 = KNOWN.section(hint=1)
hint_1(
    "bias-is-none",
    "Not every module has a bias: lm_head's is None, and nn.Embedding has no such attribute.",
)
hint_1(
    "biases-not-zero",
    "A linear layer's bias is not 0: PyTorch sets it to small random numbers, and _init_weights must set it to 0.",
)
hint_1(
    "embeddings-skipped",
    "This embedding table has PyTorch's own initial values, N(0, 1): _init_weights leaves nn.Embedding out, or gives no standard deviation.",
)
hint_1(
    "linear-skipped",
    "These linear layers have PyTorch's own initial weights: _init_weights leaves them out, or draws them in the same way again.",
)

hint_2 = KNOWN.section(hint=2)
hint_2(
    "loss-too-high",
    "An untrained model should find every token about equally likely, with a loss close to ln V.",
)
hint_2("not-normal", "These weights are not normally distributed: N(0, 0.02²) is asked for.")
hint_2(
    "std-as-mean",
    "0.02 is given as the mean: normal_'s first number is the mean, its second the standard deviation, which stays 1. Name it: std=0.02.",
)
hint_2(
    "std-by-width",
    "The standard deviation depends on the layer's width (Xavier, Kaiming or 1/√n). GPT-2's is 0.02 for all widths.",
)
hint_2(
    "std-one", "The standard deviation is 1, what normal_ uses when none is given. It must be 0.02."
)
hint_2(
    "truncated-normal",
    "These weights are cut off: a normal distribution has a few numbers beyond three standard deviations. Use the plain normal one.",
)
hint_2("uniform", "These weights are uniformly distributed. GPT-2's are normal: N(0, 0.02²).")
hint_2(
    "variance-as-std",
    "The standard deviation is 0.02 and the variance 0.02² = 0.0004; the two are mixed up (normal_ takes the standard deviation).",
)
hint_2(
    "wpe-0.01",
    "The position embeddings have standard deviation 0.01, as in OpenAI's code; the contract says 0.02 for every embedding, as Hugging Face does.",
)
hint_2("wrong-mean", "The mean of these weights is not 0: N(0, 0.02²) is asked for.")
hint_2("wrong-std", "The standard deviation is not the 0.02 of GPT-2.")
hint_2(
    "zero-weights",
    "These weights are all equal. Then all units compute the same and get the same gradient, and stay the same forever: they must be random.",
)

hint_3 = KNOWN.section(hint=3)
hint_3("norm-bias", "A LayerNorm's bias must start at 0.")
hint_3(
    "norm-skipped",
    "_init_weights leaves the LayerNorms as they are. It must set their weight to 1 and their bias to 0, whatever was there.",
)
hint_3("norm-weight", "A LayerNorm's weight must start at 1.")

hint_4 = KNOWN.section(hint=4)
hint_4(
    "config-of-module",
    "`module` is one layer of the model and has no config. The model is `self`: self.config.n_layer.",
)
hint_4(
    "residual-multiplied",
    "The projections into the stream are made larger; divide by √(2·n_layer).",
)
hint_4(
    "residual-no-root",
    "You divide by the number of branches instead of its root (or by the root twice). Variances add up, not standard deviations.",
)
hint_4(
    "residual-not-scaled",
    "The projections into the residual stream are not made smaller: 0.02/√(2·n_layer) for attn.c_proj and mlp.c_proj.",
)
hint_4(
    "residual-one-of-two",
    "Only one of the two projections into the residual stream is made smaller. A block writes twice: attn.c_proj and mlp.c_proj.",
)
hint_4(
    "residual-root-n",
    "You divide by √n_layer. Each block writes into the stream twice, so 2·n_layer branches add up: √(2·n_layer).",
)
hint_4(
    "residual-scaled-again",
    "The projections into the stream are made smaller several times, once for each module above them that apply comes by.",
)
hint_4(
    "residual-wrong-number",
    "The projections into the stream are divided by the root of another number than 2·n_layer (self.config.n_layer).",
)
hint_4(
    "residual-wrong-std",
    "The projections into the stream have another standard deviation than 0.02/√(2·n_layer).",
)
hint_4(
    "scaled-everywhere",
    "The factor 1/√(2·n_layer) is applied where nothing is written into the residual stream. It is for attn.c_proj and mlp.c_proj alone.",
)

hint_5 = KNOWN.section(hint=5)
hint_5(
    "mode-changed",
    "After _init_weights the model is in eval mode. It sets weights, and leaves the mode alone.",
)
hint_5(
    "needs-no-grad",
    "PyTorch refuses an in-place change of a parameter outside torch.no_grad(). nn.init's functions take care of that.",
)
hint_5(
    "not-a-parameter",
    "A weight is no longer a trainable parameter after _init_weights. Change the numbers in place (nn.init does).",
)
hint_5(
    "repeated-rows",
    "Rows (or columns) of a weight are copies of each other. Each number must be drawn by itself.",
)
hint_5(
    "reseeded",
    "The same random numbers come again and again: a seed is set inside _init_weights, so that all layers start equal. Leave the seed to the code that builds the model.",
)
hint_5("rows-differ", "Some rows of a weight are drawn differently from the others, or not at all.")
hint_5(
    "untied-head",
    "lm_head.weight is no longer embeddings.wte.weight: a new parameter was put in its place. Change the numbers in place instead (nn.init does).",
)

KNOWN.add("layers-differ", 4, "The layers have different standard deviations; they are to agree.")
