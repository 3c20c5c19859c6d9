"""The known mistakes of problem 16. A way names the steps of the test file's computation that it
replaces.
"""

import torch
import torch.nn.functional as F

from learn_gpt2.checking.catalog import Catalog, way

KNOWN = Catalog()

# ── the layer ───────────────────────────────────────────────────────────────────────────────────
KNOWN.add(
    "base-trainable",
    1,
    "The base layer can still be trained. Freeze its weight and its bias: only A and B learn.",
)
KNOWN.add(
    "base-changed",
    1,
    "The base layer is not the one that was given: its weight or its bias has other numbers. Keep "
    "the layer as it is.",
)
KNOWN.add(
    "lora-shape",
    2,
    "lora_A leads from the inputs to the rank, lora_B from the rank to the outputs: nn.Linear(in, "
    "rank) and nn.Linear(rank, out).",
)
KNOWN.add(
    "lora-has-bias",
    2,
    "lora_A and lora_B must have no bias (bias=False): the update is a matrix, and it must fit "
    "into the weight when it is merged.",
)
KNOWN.add(
    "lora-frozen",
    2,
    "A or B can't be trained: they are what learns.",
)
KNOWN.add(
    "both-zero",
    2,
    "A and B both start at zero. Then each one's gradient is zero as well, and nothing is ever "
    "learned: A starts at random, B at zero.",
)
KNOWN.add(
    "both-random",
    2,
    "A and B both start at random, so that the first forward pass is not the model's own any "
    "more. B starts at zero.",
)
KNOWN.add(
    "start-exchanged",
    2,
    "A starts at zero and B at random. It is the other way round: A at random, B at zero.",
)
KNOWN.add(
    "start-of-a",
    2,
    "A does not start like a linear layer of PyTorch: Kaiming uniform with a = √5, which is "
    "uniform between −1/√in and 1/√in.",
)
KNOWN.add(
    "lora-dtype",
    2,
    "A and B have another dtype than the base's weight, or lie on another device. They must follow "
    "it: in a bfloat16 model their products would not go together.",
)
KNOWN.add(
    "alpha-for-scaling",
    3,
    "The scaling is alpha. It is alpha / rank, so that a larger rank does not mean a larger "
    "update.",
    way(scaling=lambda alpha, rank: alpha),
    family="scaling",
)
KNOWN.add(
    "scaling-missing",
    3,
    "The update is not scaled: multiply it by alpha / rank.",
    way(scaling=lambda alpha, rank: 1.0),
    family="scaling",
)
KNOWN.add(
    "scaling-inverted",
    3,
    "The scaling is rank / alpha. It is alpha / rank.",
    way(scaling=lambda alpha, rank: rank / alpha),
    family="scaling",
)
KNOWN.add(
    "scaling-by-root",
    3,
    "The scaling is alpha / √rank. That is a later proposal (rsLoRA); here it is alpha / rank.",
    way(scaling=lambda alpha, rank: alpha / rank**0.5),
    family="scaling",
)
KNOWN.add(
    "scaling-wrong",
    3,
    "The scaling is not alpha / rank.",
    way(scaling=lambda alpha, rank: 1 / rank, says="The scaling is 1 / rank: alpha is left out."),
    way(
        scaling=lambda alpha, rank: alpha * rank,
        says="The scaling is alpha · rank. It is alpha / rank.",
    ),
    way(
        scaling=lambda alpha, rank: alpha // rank,
        says="The scaling is rounded down to a whole number (`//`). It is alpha / rank.",
    ),
    way(
        scaling=lambda alpha, rank: (alpha / rank) ** 2,
        says="The update is scaled twice. Once is enough: by alpha / rank.",
    ),
    way(scaling=lambda alpha, rank: rank, says="The scaling is the rank. It is alpha / rank."),
    family="scaling",
)
KNOWN.add(
    "base-missing",
    4,
    "The output is the update's alone. It is added to the base's output.",
    way(join=lambda y, u, w: u),
    family="forward",
)
KNOWN.add(
    "update-missing",
    4,
    "The output is the base's alone: A and B have no effect.",
    way(join=lambda y, u, w: y),
    family="forward",
)
KNOWN.add(
    "update-subtracted",
    4,
    "The update is subtracted. Add it.",
    way(join=lambda y, u, w: y - u),
    family="forward",
)
KNOWN.add(
    "update-multiplied",
    4,
    "The base's output is multiplied by the update. Add them.",
    way(join=lambda y, u, w: y * u),
    way(join=lambda y, u, w: y * (1 + u)),
    family="forward",
)
KNOWN.add(
    "bias-lost",
    4,
    "The base's bias is left out.",
    way(join=lambda y, u, w: y + u - w["base.bias"]),
    family="forward",
)
KNOWN.add(
    "bias-twice",
    4,
    "The base's bias is added twice: base(x) has it already.",
    way(join=lambda y, u, w: y + u + w["base.bias"]),
    family="forward",
)
KNOWN.add(
    "activation-between",
    4,
    "There is an activation between A and B. Adapters of another kind have one; the update of "
    "LoRA is a matrix, which can be merged.",
    way(between=torch.relu),
    way(between=F.gelu),
    way(between=lambda h: F.gelu(h, approximate="tanh")),
    way(between=torch.tanh),
    way(between=F.silu),
    family="forward",
)
KNOWN.add(
    "base-scaled",
    4,
    "The base's output is scaled as well. Only the update is.",
    way(join=lambda y, u, w: y * w["scaling"] + u),
    family="forward",
)
KNOWN.add(
    "update-transposed",
    4,
    "The update is transposed, which goes unnoticed where a layer has as many inputs as outputs: "
    "first A, (…, in) → (…, rank), then B, (…, rank) → (…, out).",
    way(
        inner=lambda x, w: x @ w["lora_B.weight"],
        outer=lambda h, w: h @ w["lora_A.weight"],
    ),
    family="forward",
)
KNOWN.add(
    "update-of-the-output",
    4,
    "A reads the base's output. It reads the layer's input, as the base does.",
    way(
        inner=lambda x, w: (
            F.linear(x, w["base.weight"], w.get("base.bias")) @ w["lora_A.weight"].t()
        )
    ),
    family="forward",
)
KNOWN.add(
    "base-without-gradient",
    4,
    "No gradient comes through the base: it is called inside torch.no_grad(), or its output is "
    "detached. Its weight is frozen, and the layers below still need the gradient of its input.",
)
KNOWN.add(
    "dropout-missing",
    4,
    "Dropout has no effect in training: it acts on the update's input.",
)
KNOWN.add(
    "dropout-on-base",
    4,
    "Dropout acts on the base as well. It acts on the update's input alone.",
)
KNOWN.add(
    "dropout-after-a",
    4,
    "Dropout acts between A and B. It acts on the update's input, before A.",
)
KNOWN.add(
    "dropout-on-the-update",
    4,
    "Dropout acts on the update's output. It acts on its input, before A.",
)
KNOWN.add(
    "dropout-in-eval",
    4,
    "Dropout is active in eval mode: F.dropout needs training=self.training; nn.Dropout follows "
    "train() and eval() by itself.",
)
KNOWN.add(
    "dropout-rate",
    4,
    "Dropout does not have the rate that was asked for.",
)

# ── merging ─────────────────────────────────────────────────────────────────────────────────────
KNOWN.add(
    "merge-does-nothing",
    5,
    "merge() leaves the base's weight as it was: the update must be added to it, in place.",
    way(join=lambda weight, update: weight),
    family="merge",
)
KNOWN.add(
    "merge-transposed",
    5,
    "merge() adds the transposed update, which goes unnoticed where a weight is square. A weight "
    "is (out, in), and so is B A.",
    way(product=lambda a, b: (b @ a).t()),
    family="merge",
)
KNOWN.add(
    "merge-not-scaled",
    5,
    "merge() adds the update with another scaling than forward: alpha / rank belongs to both.",
    way(scaling=lambda alpha, rank: 1.0),
    way(scaling=lambda alpha, rank: alpha),
    way(scaling=lambda alpha, rank: (alpha / rank) ** 2),
    way(scaling=lambda alpha, rank: 1 / rank),
    way(scaling=lambda alpha, rank: rank / alpha),
    way(scaling=lambda alpha, rank: alpha / rank**0.5),
    family="merge",
)
KNOWN.add(
    "merge-subtracts",
    5,
    "merge() subtracts the update. Add it.",
    way(join=lambda weight, update: weight - update),
    family="merge",
)
KNOWN.add(
    "merge-replaces",
    5,
    "merge() puts the update in the place of the weight. Add it to the weight.",
    way(join=lambda weight, update: update),
    family="merge",
)
KNOWN.add(
    "merged-not-set",
    5,
    "`merged` must be True after merge(), and False after unmerge() and at first.",
)
KNOWN.add(
    "update-twice",
    5,
    "After merging, the update counts twice: it is in the base's weight, and forward adds it "
    "again.",
    way(twice=True),
    family="after",
)
KNOWN.add(
    "merged-output",
    5,
    "After merging, forward does not give the base's output, which has the update in it.",
    way(none=True),
    family="after",
)
KNOWN.add(
    "merged-twice",
    5,
    "A second merge() adds the update a second time. It must do nothing when the update is there "
    "already.",
)
KNOWN.add(
    "merge-keeps-graph",
    5,
    "After merging, the base's weight hangs on the graph of A and B and requires a gradient. Merge "
    "inside torch.no_grad().",
)
KNOWN.add(
    "merge-unfreezes",
    5,
    "After merging, the base's weight can be trained: a new nn.Parameter requires a gradient. "
    "Change the one that is there, in place.",
)
KNOWN.add(
    "merge-resets",
    5,
    "merge() or unmerge() changes A or B. They are needed to take the update out again.",
)
KNOWN.add(
    "merges-with-the-mode",
    5,
    "eval() or train() merges the update or takes it out. The caller does that, with "
    "merge() and unmerge().",
)
KNOWN.add(
    "unmerge-does-nothing",
    6,
    "unmerge() leaves the update in the base's weight.",
)
KNOWN.add(
    "unmerge-wrong",
    6,
    "After merge() and unmerge() the base's weight is not what it was: take out what was put in.",
)
KNOWN.add(
    "unmerged-twice",
    6,
    "unmerge() takes the update out although it is not there. It must do nothing then.",
)

# ── the model ───────────────────────────────────────────────────────────────────────────────────
KNOWN.add(
    "nothing-replaced",
    8,
    "No layer of the model was replaced. setattr on the module that holds the layer puts the new "
    "one in its place.",
)
KNOWN.add(
    "layers-missed",
    7,
    "Not all layers whose name ends in a target were replaced: go through the modules inside "
    "modules (named_modules), and all blocks.",
)
KNOWN.add(
    "too-many-replaced",
    7,
    "Layers were replaced that no target names. A target is the whole last part of a name.",
)
KNOWN.add(
    "target-in-part",
    7,
    "A target is compared with a part of the name (`in`, or endswith). It is the whole last part: "
    "`attn` does not mean `c_attn`, nor all that lies inside `attn`.",
)
KNOWN.add(
    "target-not-checked",
    7,
    "A target that no linear layer is called is passed over: with a slip of the pen nothing "
    "would be trained, and nobody told. Raise a ValueError that names it.",
)
KNOWN.add(
    "head-adapted",
    7,
    "lm_head is accepted as a target. Its weight is the embeddings' table, so an update in it "
    "would be one of the embeddings as well when it is merged. Raise a ValueError.",
)
KNOWN.add(
    "changed-before-error",
    7,
    "The model was changed before the ValueError was raised: look at all targets first.",
)
KNOWN.add(
    "names-wrong",
    7,
    "add_lora returns something else than a list of the replaced layers' full names, such as "
    "`h.0.attn.c_attn`.",
)
KNOWN.add(
    "rest-trainable",
    8,
    "Something else than A and B can still be trained: embeddings, norms and all other layers are "
    "frozen as well.",
)
KNOWN.add(
    "nothing-trainable",
    8,
    "A and B are frozen together with the rest: freeze the model first, or switch them on again.",
)
KNOWN.add(
    "mode-not-taken",
    8,
    "The new layers are in another mode than the old ones: in a model in eval mode their dropout "
    "is active (a new module starts in training).",
)
KNOWN.add(
    "arguments-not-passed-on",
    8,
    "rank, alpha or dropout does not reach the layers, or they are exchanged on the way.",
)
KNOWN.add(
    "layers-share-an-update",
    8,
    "Two places hold the same LoRALinear, or share A or B. Each layer has an update of its own.",
)
KNOWN.add(
    "merge-leaves-layers",
    9,
    "After merge_lora there are still LoRALinear in the model. Put their base in their place.",
)
KNOWN.add(
    "merge-loses-update",
    9,
    "After merge_lora the layers lack the update: merge before the base is put in place.",
)
KNOWN.add(
    "merge-lora-twice",
    9,
    "merge_lora adds the update again where a layer was merged already.",
)
KNOWN.add(
    "merge-lora-unmerges",
    9,
    "merge_lora takes the update out where a layer was merged already.",
)

# ── the adapter ─────────────────────────────────────────────────────────────────────────────────
KNOWN.add(
    "adapter-holds-base",
    10,
    "The adapter holds weights of the base as well: only A and B belong into it.",
)
KNOWN.add(
    "adapter-names",
    10,
    "The names are not those that peft gives: PREFIX, the layer's name in the model, then "
    "`.lora_A.weight` or `.lora_B.weight`.",
)
KNOWN.add(
    "adapter-incomplete",
    10,
    "The adapter lacks tensors: it holds A and B of every LoRALinear.",
)
KNOWN.add(
    "adapter-transposed",
    10,
    "A tensor of the adapter is transposed: A is (rank, in), B is (out, rank), as an nn.Linear "
    "holds its weight.",
)
KNOWN.add(
    "adapter-scaled",
    10,
    "The adapter's tensors are not A and B as they are: the code that loads them scales them, by alpha / "
    "rank.",
)
KNOWN.add(
    "load-does-nothing",
    11,
    "load_adapter_state leaves A and B as they were.",
)
KNOWN.add(
    "load-wrong",
    11,
    "After loading, A and B are not what the adapter holds.",
)
KNOWN.add(
    "missing-accepted",
    11,
    "An adapter that lacks tensors is accepted: half of the layers would keep what they had.",
)
KNOWN.add(
    "unexpected-accepted",
    11,
    "An adapter with a tensor that has no place in the model is accepted: it was made for another "
    "one.",
)
KNOWN.add(
    "misshapen-accepted",
    11,
    "A tensor of another shape is accepted (copy_ broadcasts, and .data takes anything): compare "
    "the shapes.",
)
KNOWN.add(
    "merged-accepted",
    11,
    "An adapter is loaded while the model is merged: its weights hold the old update, and unmerge "
    "would take out the new one.",
)
KNOWN.add(
    "loaded-in-part",
    11,
    "Before the ValueError a part of the adapter was loaded. Look at everything first, then copy.",
)
KNOWN.add(
    "load-freezes",
    11,
    "After loading, other parameters can be trained than before: copy the numbers into the "
    "parameters that are there.",
)
KNOWN.add(
    "state-edited",
    11,
    "load_adapter_state changes the dict that it is given.",
)
