"""The known mistakes of problem 12."""

from learn_gpt2.checking.catalog import Catalog, way

KNOWN = Catalog()


# ── found by a check, not by its numbers ──

hint_1 = KNOWN.section(hint=1)
hint_1(
    "mapping-form",
    "The mapping must be a dict {their key: (our key, transpose?)}, with a bool as second entry.",
)
hint_1(
    "mapping-inverted",
    "The mapping is the wrong way round: its keys are the checkpoint's names, its values begin with ours.",
)
hint_1(
    "not-static",
    "_build_weight_mapping takes n_layer alone and is called on the class: keep @staticmethod.",
)

hint_2 = KNOWN.section(hint=2)
hint_2(
    "fixed-layers", "The mapping has the same layers whatever n_layer is; it must follow n_layer."
)
hint_2("layers-from-1", "The layers are counted from 1; in the checkpoint the first is h.0.")
hint_2("mapping-crossed", "A tensor is mapped to the wrong place in our model.")
hint_2("mapping-extra-layer", "The mapping has a layer too many: the last is h.{n_layer − 1}.")
hint_2(
    "mapping-incomplete",
    "The mapping does not cover every tensor: each block has twelve, and outside are wte, wpe, ln_f.",
)
hint_2("mapping-lacks-biases", "The mapping lacks the biases.")
hint_2("mapping-lacks-embeddings", "The mapping lacks the token or position embeddings.")
hint_2("mapping-lacks-last-layer", "The mapping lacks a layer: blocks count from 0 to n_layer − 1.")
hint_2("mapping-lacks-ln-f", "The mapping lacks the last norm, ln_f.")
hint_2("mapping-unknown-key", "The mapping has a key that no GPT-2 checkpoint holds.")
hint_2(
    "mapping-unknown-name",
    "The mapping leads to a name that our model does not have; print dict(model.named_parameters()).",
)
hint_2("wrong-tensor", "A weight holds another tensor of the checkpoint.")

hint_3 = KNOWN.section(hint=3)
hint_3(
    "c-proj-not-transposed",
    "attn.c_proj.weight is not transposed. It is square, so its shape can't tell, and it is Conv1D's like the other three.",
)
hint_3(
    "no-transpose",
    "Nothing is transposed. Conv1D stores its weight as (in, out), nn.Linear as (out, in): c_attn, c_fc and both c_proj must be turned.",
)
hint_3(
    "reshape-instead-of-transpose",
    "A weight is reshaped and not transposed: the shape is right then, and the numbers are in the wrong places. Swap the axes.",
)
hint_3(
    "transpose-inverted",
    "The flags are the wrong way round: the Conv1D weights are to be transposed, and the others not.",
)
hint_3(
    "transpose-missing",
    "One of the four Conv1D weights of a block is not transposed: c_attn, c_fc and both c_proj are.",
)
hint_3(
    "transposes-embeddings",
    "The embedding tables are not Conv1D: they are stored as ours are, and must not be transposed.",
)

hint_4 = KNOWN.section(hint=4)
hint_4(
    "buffers-lost",
    "What another piece made in __init__ besides its weights (a mask or a constant in a buffer that is not saved) has lost its numbers: the meta device and to_empty() leave it undefined. Build the model where it is to stay; skip_init() is what saves the time.",
)
hint_4(
    "config-keys",
    "config.json holds more than GPT2Config knows. Take the fields you need (open_checkpoint does that for you).",
)
hint_4(
    "config-not-read",
    "The model's config is not what config.json says: every size, n_head and the epsilon come from there.",
    way(
        "dropout-changed",
        says="The model's dropout is not what config.json says. eval() switches dropout off; its probabilities stay, for further training.",
    ),
    *(
        way(
            says="The model computes with another number of heads than config.json's n_head.",
            family="heads",
            heads=lambda config, n_head=n_head: n_head,
        )
        for n_head in (12, 1, 2, 3, 6)
    ),
    way(
        says="The model computes with another epsilon than config.json's layer_norm_epsilon.",
        family="heads",
        eps_block=lambda eps: 1e-5,
        eps_final=lambda eps: 1e-5,
    ),
)
hint_4("default-name", 'model_name must default to "gpt2".')
hint_4(
    "name-ignored",
    "A local folder is given, and the network is asked. model_name must be passed on; a folder is opened where it is.",
)
hint_4(
    "not-a-classmethod",
    "from_pretrained is called on the class, before there is a model: keep @classmethod.",
)
hint_4(
    "options-not-passed",
    "from_pretrained takes revision, cache_dir and token and does not hand them on to open_checkpoint: another version of the model would be loaded than was asked for.",
)
hint_4(
    "pickle-loaded",
    "A pickle (pytorch_model.bin) is read. Opening one can run anybody's code: only safetensors are.",
)

hint_5 = KNOWN.section(hint=5)
hint_5(
    "buffer-in-mapping",
    "attn.bias and attn.masked_bias are mask buffers of Hugging Face's code, not weights: our model has no place for them.",
)
hint_5(
    "head-refused",
    "Some files hold the tied head a second time, as lm_head.weight. That is not an error: it is wte.",
)
hint_5(
    "head-required",
    "lm_head.weight is looked for in the file, and most files do not hold it: the head is tied to wte. Neither ask for it nor map it.",
)
hint_5(
    "lstrip",
    'The prefix is cut off by letters: key.lstrip("transformer.") removes all leading letters that occur in it, also of what follows it. key.removeprefix("transformer.") removes the prefix.',
)
hint_5(
    "mask-buffers",
    "Many files, also gpt2's on the hub, hold mask buffers (h.*.attn.bias). They are not weights: leave them out, without an error.",
)
hint_5(
    "mask-filter-too-wide",
    'attn.c_attn.bias is left out along with the mask buffers: "…c_attn.bias" ends in "attn.bias", too. Look for ".attn.bias", with the dot.',
)
hint_5(
    "prefix",
    "Keys come with the prefix `transformer.` from one tool and without it from another; both must load.",
)

hint_6 = KNOWN.section(hint=6)
hint_6(
    "missing-ignored",
    "A tensor that is missing from the file is skipped in silence: its weights stay random. Raise a ValueError that names it.",
)
hint_6(
    "unexpected-ignored",
    "A tensor that belongs to no GPT-2 of this config is skipped in silence: it may be another model. Raise a ValueError that names it.",
)
hint_6("unhelpful-error", "The error must name the tensor (and not only its size, or how many).")
hint_6(
    "wrong-error-type",
    "A file that does not fit must be refused with a ValueError that says why: the code that loads a model catches that. Another library's or Python's own error can be turned into one.",
)

hint_7 = KNOWN.section(hint=7)
hint_7("biases-not-loaded", "The biases are not loaded.")
hint_7("frozen", "The loaded model can't be trained: a parameter takes no gradient.")
hint_7("layer-not-loaded", "A whole layer is not loaded.")
hint_7(
    "misshapen-accepted",
    "A tensor of the wrong shape is accepted. Compare with our weight's shape, after the transpose, and raise a ValueError that names it.",
)
hint_7("needs-no-grad", "Copying into a parameter needs torch.no_grad() around it.")
hint_7(
    "nothing-loaded",
    "No weight of the file arrives in the model as it is. Do the keys match, and is what you read copied into the model that you return?",
)
hint_7(
    "qkv-reordered",
    "The three parts of c_attn are in another order. Theirs is query, key, value, and so is ours: copy the tensor as it is.",
)
hint_7(
    "shape-broadcast",
    "A tensor of the wrong shape is spread over the weight in silence: copy_ broadcasts. Compare the shapes first and raise a ValueError that names it.",
)
hint_7("tensor-skipped", "Some weights do not hold the checkpoint's values.")
hint_7(
    "untied-head",
    "After loading, lm_head.weight no longer is embeddings.wte.weight. Copy into the parameter instead of putting a new one in its place.",
)
hint_7(
    "wrong-dtype",
    "The model must be float32 (or what dtype= asks for), whatever the file's numbers are stored in.",
)

hint_8 = KNOWN.section(hint=8)
hint_8(
    "not-eval",
    "The model comes back in training mode: dropout makes its predictions random. Return it after .eval().",
)
hint_8("wrong-return", "from_pretrained must return the model.")
