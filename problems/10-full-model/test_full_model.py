"""Checks of problem 10. The oracle is GPT-2 written out in plain PyTorch operators below."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import (
    CheckFailed,
    attribute,
    check,
    compare,
    expect_also_larger,
    expect_copies,
    expect_error,
    expect_finite_gradients,
    expect_mode_kept,
    expect_no_edit,
    expect_no_seed,
    expect_own_start,
    expect_state,
    fail,
    fill,
    operations,
    record_calls,
    sizes_from,
    tensor,
    weights,
)
from learn_gpt2.checking.earlier import other_name
from learn_gpt2.checking.surroundings import without_memory
from learn_gpt2.checking.textbook import model as gpt2

# Sizes that all differ, so that a swapped one can't hide. 12 is divisible by 2, 3 and 4.
B, T, V, P, C, L, H = sizes_from(
    (4, 5, 23, 14, 12, 3, 2), (3, 5, 26, 16, 12, 4, 2), (6, 5, 29, 15, 12, 3, 2)
)
PRODUCTS = ("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "linear", "tensordot")
EPS = 0.05  # large enough to show where it does not arrive

KNOWN = known(__file__)
MISTAKES = KNOWN.of("forward")
LAST_ONLY = KNOWN.of("last-only", "forward")
CACHE = KNOWN.of("cache", "forward")


# ── helpers ─────────────────────────────────────────────────────────────────────────────────────


def configure(**changes):
    """A small GPT2Config, the learner's or the reference's."""
    from gpt2.model import GPT2Config

    settings = {
        "vocab_size": V,
        "n_positions": P,
        "n_embd": C,
        "n_layer": L,
        "n_head": H,
        "layer_norm_epsilon": EPS,
    }
    return GPT2Config(**{**settings, **changes})


def build(piece, config):
    """GPT2Model(config); a piece that was called wrongly is told so."""
    try:
        return piece.GPT2Model(config)
    except ValueError as error:
        fail(
            KNOWN["arguments-swapped"],
            f"A right config is refused while the model is built: {error}",
        )
    except TypeError as error:
        names = ("Block", "Embeddings", "LayerNorm", "__init__")
        if other_name(error) is None and any(name in str(error) for name in names):
            fail(KNOWN["arguments-swapped"], f"Python says: {error}")
        raise


def model_of(piece, seed=0, **changes):
    """A model in eval mode with random weights, all of them different from 0 and 1."""
    config = configure(**changes)
    return fill(build(piece, config), seed=seed).eval(), config


def ids_of(b=B, t=T, seed=0, v=V):
    return torch.randint(v, (b, t), generator=torch.Generator().manual_seed(seed))


def logits_of(model, *arguments, **keywords):
    """What the model returns, checked to be one tensor; a refused right input gets its message."""
    try:
        got = model(*arguments, **keywords)
    except ValueError as error:
        if "positions" in str(error) or "max_length" in str(error):
            fail(KNOWN["positions-refused"], f"It says: {error}")
        fail(KNOWN["input-refused"], f"It says: {error}")
    except AttributeError as error:
        if "'NoneType' object has no attribute 'le" in str(error) or "'layers'" in str(error):
            fail(KNOWN["cache-required"], f"Python says: {error}")
        raise
    if isinstance(got, (tuple, list, dict)):
        fail(KNOWN["not-a-tensor"], f"It returns a {type(got).__name__} of {len(got)}.")
    if isinstance(got, torch.Tensor) and not got.is_floating_point():
        fail(KNOWN["argmax-returned"], f"It returns {got.dtype} of the shape {tuple(got.shape)}.")
    return tensor(got, "what forward returns")


def examine(model, config, ids, mistakes=MISTAKES, only=False, what="the output", **given):
    """Compare one call's logits with the oracle's; given: what is passed by keyword."""
    w = weights(model)
    compare(
        lambda: logits_of(model, ids, **given),
        gpt2(w, config, [ids], only),
        mistakes,
        lambda **switches: gpt2(w, config, [ids], only, **switches),
        what=what,
        axes="B T V",
        sizes={"n_embd": config.n_embd, "n_layer": config.n_layer},
        given=(ids,),
        atol=2e-5,
    )


def state_names(n_layer):
    """state_dict's names by the contract."""
    names = ["embeddings.wte.weight", "embeddings.wpe.weight", "lm_head.weight"]
    parts = ["ln_f"]
    for i in range(n_layer):
        layers = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        parts += [f"h.{i}.{layer}" for layer in layers]
    return names + [f"{part}.{kind}" for part in parts for kind in ("weight", "bias")]


# ── __init__ ────────────────────────────────────────────────────────────────────────────────────


@check(todo=5)
def test_attributes(piece):
    """The model has config, embeddings, h, ln_f and lm_head, under these names"""
    from gpt2.model import Embeddings, LayerNorm, TransformerBlock

    if not issubclass(piece.GPT2Model, nn.Module):
        fail("GPT2Model must be an nn.Module: class GPT2Model(nn.Module).", id="not-a-module")
    config = configure()
    model = build(piece, config)
    if not all(module.training for module in model.modules()):
        fail(KNOWN["mode-changed"])
    if isinstance(getattr(model, "h", None), (list, tuple)):
        fail(KNOWN["plain-list"])
    attribute(
        model, "config", object, "generation, the cache and problem 11 read the model's sizes there"
    )
    if model.config != config:
        fail(KNOWN["config-not-kept"], f"It is {model.config!r}"[:200])
    attribute(model, "embeddings", Embeddings)
    blocks = attribute(model, "h", nn.ModuleList)
    attribute(model, "ln_f", (LayerNorm, nn.LayerNorm))
    head = attribute(model, "lm_head", nn.Linear)
    for i, block in enumerate(blocks):
        if not isinstance(block, TransformerBlock):
            fail(
                f"h[{i}] is a {type(block).__name__}, and must be a TransformerBlock (problem 08).",
                id="wrong-attribute-type",
            )
    if len(blocks) != L:
        fail(KNOWN["wrong-layer-count"], f"With n_layer={L} it holds {len(blocks)}.")
    if len({id(block) for block in blocks}) < L:
        fail(KNOWN["shared-blocks"])
    if head.bias is not None:
        fail(KNOWN["head-bias"])
    if (head.in_features, head.out_features) != (C, V):
        fail(
            KNOWN["head-sizes-swapped"],
            f"With n_embd={C} and vocab_size={V} it is nn.Linear({head.in_features}, "
            f"{head.out_features}).",
        )


@check(todo=5, needs=test_attributes, points=2)
def test_tied(piece):
    """lm_head.weight is embeddings.wte.weight: one tensor with two names"""
    model = build(piece, configure())
    head, table = model.lm_head.weight, model.embeddings.wte.weight
    if head is not table:
        if head.data_ptr() == table.data_ptr():
            fail(KNOWN["shared-data-only"])
        fail(
            KNOWN["copied-head"]
            if head.shape == table.shape and torch.equal(head, table)
            else KNOWN["untied-head"]
        )
    names = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for same in names.values():
        if len(same) > 1 and "lm_head.weight" not in same:
            fail(KNOWN["shared-weights"], f"{' and '.join(same[:2])} are one tensor.")


@check(todo=5, needs=test_attributes)
def test_shapes(piece):
    """Every size of the config arrives at its place"""
    for config in (configure(), configure(vocab_size=31, n_positions=9, n_embd=20, n_layer=2)):
        model = build(piece, config)
        embeddings, width = model.embeddings, config.n_embd
        for name, rows in (("wte", config.vocab_size), ("wpe", config.n_positions)):
            got = tuple(getattr(embeddings, name).weight.shape)
            if got != (rows, width):
                fail(
                    KNOWN["arguments-swapped"],
                    f"embeddings.{name} is {got}, expected {(rows, width)} for {_sizes(config)}.",
                )
        got = tuple(model.ln_f.weight.shape)
        if got != (width,):
            fail(
                KNOWN["arguments-swapped"],
                f"ln_f.weight is {got}, expected {(width,)} for {_sizes(config)}.",
            )
        for i, block in enumerate(model.h):
            for name, layer, want in (
                ("attn.c_attn", block.attn.c_attn, (3 * width, width)),
                ("mlp.c_fc", block.mlp.c_fc, (4 * width, width)),
            ):
                if tuple(layer.weight.shape) != want:
                    fail(
                        KNOWN["arguments-swapped"],
                        f"h[{i}].{name}.weight is {tuple(layer.weight.shape)}, expected {want} for "
                        f"{_sizes(config)}.",
                    )
            if block.attn.n_head != config.n_head:
                fail(
                    KNOWN["n-head-not-passed"],
                    f"h[{i}] has {block.attn.n_head} heads; for {_sizes(config)}.",
                )


def _sizes(config):
    names = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    return ", ".join(f"{name}={getattr(config, name)}" for name in names)


@check(todo=5, needs=test_shapes)
def test_settings(piece):
    """The epsilon and the three dropout probabilities arrive at their places"""
    embd, resid, attn = 0.11, 0.22, 0.33
    model = build(piece, configure(embd_pdrop=embd, resid_pdrop=resid, attn_pdrop=attn))
    found = [("embeddings.drop", model.embeddings.drop.p, embd, KNOWN["embd-pdrop-not-passed"])]
    for i, block in enumerate(model.h):
        found += [
            (
                f"h[{i}].attn.resid_dropout",
                block.attn.resid_dropout.p,
                resid,
                KNOWN["resid-pdrop-not-passed"],
            ),
            (f"h[{i}].mlp.drop", block.mlp.drop.p, resid, KNOWN["resid-pdrop-not-passed"]),
        ]
    for name, got, want, m in found:
        if got != want:
            others = {embd, resid, attn} - {want}
            fail(
                KNOWN["pdrops-swapped"] if got in others else m,
                f"{name} has p={got}, expected {want} for embd_pdrop={embd}, resid_pdrop={resid}, "
                f"attn_pdrop={attn}.",
            )
    norms = [("ln_f", model.ln_f)]
    for i, block in enumerate(model.h):
        norms += [(f"h[{i}].ln_1", block.ln_1), (f"h[{i}].ln_2", block.ln_2)]
    for name, norm in norms:
        eps = getattr(norm, "eps", EPS)
        if eps != EPS:
            fail(
                KNOWN["eps-not-passed"], f"{name} has eps={eps}, expected layer_norm_epsilon={EPS}."
            )


@check(todo=5, needs=test_tied)
def test_models_are_apart(piece):
    """Two models start with different numbers, and share none"""
    expect_own_start(lambda: build(piece, configure()))


@check(todo=5, needs=test_tied)
def test_state_dict(piece):
    """state_dict() holds the checkpoint's tensors, under the contract's names"""
    for n_layer in (L, 1):
        expect_state(build(piece, configure(n_layer=n_layer)), state_names(n_layer))


@check(todo=5, needs=test_attributes, follows=test_tied)
def test_init_is_applied(piece):
    """__init__ ends with self.apply(self._init_weights): every module, children first"""
    try:
        model, calls = record_calls(piece.GPT2Model, "_init_weights", configure())
    except TypeError as error:
        raise CheckFailed(
            f"_init_weights must be called with one module: self.apply(self._init_weights). {error} "
            "[init-not-applied]",
            ["init-not-applied"],
        ) from None
    if not all(configured for _, configured in calls):
        fail(KNOWN["config-not-kept"], "It is not there yet when _init_weights is called.")
    seen = [module for module, _ in calls]
    if all(module is model for module in seen):
        fail(KNOWN["init-not-applied"])
    order = {id(module): n for n, module in enumerate(seen)}
    for name, module in model.named_modules():
        if id(module) not in order:
            fail(KNOWN["init-too-early"], f"It was not called for {name or 'the model itself'}.")
        for child_name, child in module.named_children():
            if order.get(id(child), -1) > order[id(module)]:
                fail(
                    KNOWN["init-order"],
                    f"{name or 'the model itself'} came before its {child_name}.",
                )
    if not (model.embeddings.wte.weight == 1).all():
        fail(KNOWN["tied-too-late"])


@check(todo=5, needs=(test_tied, test_shapes))
def test_parameter_counts(piece):
    """The four sizes have 124,439,808 · 354,823,168 · 774,030,080 · 1,557,611,200 parameters"""
    sizes = (
        (124_439_808, 768, 12, 12),
        (354_823_168, 1024, 24, 16),
        (774_030_080, 1280, 36, 20),
        (1_557_611_200, 1600, 48, 25),
    )
    from gpt2.formats.checkpoints import skip_init
    from gpt2.model import GPT2Config

    for want, width, n_layer, n_head in sizes:
        # shapes without memory; drawing random numbers there would make PyTorch import its compiler
        with without_memory(skip_init):
            model = build(piece, GPT2Config(n_embd=width, n_layer=n_layer, n_head=n_head))
        got = sum(p.numel() for p in model.parameters())
        if got != want:
            tied = got - want == 50257 * width
            fail(
                f"With n_embd={width}, n_layer={n_layer} there are {got:,} parameters, expected "
                f"{want:,}: {abs(got - want):,} too {'many' if got > want else 'few'}"
                + (", the untied head." if tied else ".")
            )


# ── forward ─────────────────────────────────────────────────────────────────────────────────────


@check(todo=10, needs=(test_tied, test_shapes))
def test_worked_example(piece):
    """Three tokens by hand: blocks that add nothing, width 2, a vocabulary of four"""
    config = configure(
        vocab_size=4, n_positions=3, n_embd=2, n_layer=1, n_head=1, layer_norm_epsilon=1e-5
    )
    model = build(piece, config).eval()
    with torch.no_grad():
        for parameter in model.h.parameters():
            parameter.zero_()
        table = torch.tensor([[1.0, 0], [0, 1], [1, 1], [-1, 0]])
        model.embeddings.wte.weight.copy_(table)
        model.embeddings.wpe.weight.copy_(torch.tensor([[0.0, 0], [2, 0], [5, 0]]))
        model.ln_f.weight.copy_(torch.tensor([2.0, 2.0]))
        model.ln_f.bias.copy_(torch.tensor([0.0, 1.0]))
    # token 1 at position 0: (0, 1) + (0, 0); its norm is (−1, 1), times 2 plus (0, 1): (−2, 3)
    # token 0 at position 1: (1, 0) + (2, 0) = (3, 0); its norm is (1, −1), so: (2, −1)
    # token 2 at position 2: (1, 1) + (5, 0) = (6, 1); its norm is (1, −1), so: (2, −1) again
    # a logit is the dot product with a row of the table: (1, 0), (0, 1), (1, 1), (−1, 0)
    want = torch.tensor([[[-2.0, 3, 1, 2], [2.0, -1, 1, -2], [2.0, -1, 1, -2]]])
    ids, w = torch.tensor([[1, 0, 2]]), weights(model)
    expect_also_larger(
        lambda: compare(
            lambda: logits_of(model, ids),
            want,
            MISTAKES,
            lambda **switches: gpt2(w, config, [ids], **switches),
            what="the output",
            axes="B T V",
            atol=1e-3,
        ),
        lambda: examine(*model_of(piece), ids_of()),
    )


@check(
    todo=10, needs=(test_tied, test_shapes), points=3, follows=(test_settings, test_worked_example)
)
def test_logits(piece):
    """The logits equal GPT-2's, written out in plain PyTorch with the same weights"""
    model, config = model_of(piece)
    examine(model, config, ids_of())


@check(todo=10, needs=test_logits)
def test_other_sizes(piece):
    """Other shapes: one token, one sequence, as many tokens as positions, other configs"""
    model, config = model_of(piece)
    for b, t in ((1, 1), (B, 1), (1, T), (2, P)):
        examine(model, config, ids_of(b, t, seed=t))
    model, config = model_of(
        piece, vocab_size=9, n_positions=25, n_embd=20, n_layer=1, n_head=4, layer_norm_epsilon=0.2
    )
    examine(model, config, ids_of(3, 25, v=9))
    model, config = model_of(piece, n_layer=5, n_head=3, layer_norm_epsilon=1e-5)
    examine(model, config, ids_of(3, 6))


@check(todo=10, needs=test_logits)
def test_too_many_positions(piece):
    """ValueError when there are more tokens than n_positions"""
    model, _ = model_of(piece)
    ids = ids_of(2, P + 1)
    expect_error(lambda: model(ids), [P], when=f"{P + 1} tokens meet n_positions={P}")


@check(todo=10, needs=test_logits, points=2)
def test_last_only(piece):
    """last_only=True gives the last position's logits alone, (B, 1, V)"""
    model, config = model_of(piece)
    what = "the output with last_only=True"
    for b, t in ((B, T), (2, 1)):
        examine(model, config, ids_of(b, t), LAST_ONLY, True, what, last_only=True)
    ids = ids_of()
    examine(model, config, ids, last_only=False)
    try:
        same = torch.equal(model(ids, None, True), model(input_ids=ids, cache=None, last_only=True))
    except (AttributeError, TypeError, RuntimeError) as error:
        fail(KNOWN["forward-arguments"], f"Python says: {error}")
    if not same:
        fail(KNOWN["forward-arguments"])


@check(todo=10, needs=test_last_only)
def test_last_only_saves_work(piece):
    """With last_only, only the last position is projected to the vocabulary"""
    model, _ = model_of(piece)
    with operations() as seen:
        model(ids_of(), last_only=True)
    # products alone: an embedding table may be read by one-hot rows, as wide as the vocabulary
    projected = [
        math.prod(shape[:-1])
        for name, shape in seen
        if name.startswith(PRODUCTS) and len(shape) > 1 and shape[-1] == V
    ]
    if B * T in projected:
        fail(
            KNOWN["last-only-after-head"],
            f"For {B} sequences, {B * T} rows of logits were computed.",
        )


@check(todo=10, needs=test_logits, points=2)
def test_input_is_checked(piece):
    """ValueError for input that is not a 2-D integer tensor, or is empty; it says what it got"""
    model, _ = model_of(piece)
    cases = (
        ("input_ids is 1-D, of shape (7,)", ids_of(1, 7)[0], ("1", "7", "one")),
        ("input_ids is 3-D, of shape (6, 3, 9)", ids_of(6, 27).view(6, 3, 9), ("3", "6", "three")),
        ("input_ids is a single number", torch.tensor(3), ("0", "()", "[]", "scalar")),
        ("input_ids holds floats", ids_of().float(), ("float", "Float")),
        ("input_ids holds bools", ids_of() > 9, ()),  # PyTorch's own error will do
        ("input_ids is empty, of shape (4, 0)", ids_of()[:, :0], ("0", "empty", "Empty")),
        ("input_ids is empty, of shape (0, 5)", ids_of()[:0], ("0", "empty", "Empty")),
        ("input_ids is a list", ids_of().tolist(), ("list",)),
    )
    for when, bad, says_one_of in cases:
        try:
            model(bad)
        except ValueError as error:
            if says_one_of and not any(word in str(error) for word in says_one_of):
                raise CheckFailed(
                    f"The ValueError when {when} must say what it got (its shape, dtype or type). It "
                    f"says: {str(error)!r}. [unhelpful-error]",
                    ["unhelpful-error"],
                ) from None
        except NotImplementedError:
            raise
        except Exception as error:
            if not says_one_of:
                continue
            fail(
                KNOWN["input-not-checked"],
                f"When {when}, {type(error).__name__} is raised: {error}"[:200],
            )
        else:
            fail(KNOWN["input-not-checked"], f"Nothing is raised when {when}.")


@check(todo=10, needs=test_logits, points=2)
def test_cache_is_filled(piece):
    """Layer i appends its keys and values to cache.layers[i]"""
    from gpt2.cache import KVCache

    model, config = model_of(piece)
    ids, w, t = ids_of(t=4), weights(model), 4
    cache = KVCache(config, batch_size=B)
    got = _with_cache(model, ids, cache)
    lengths = [layer.length for layer in cache.layers]
    if lengths != [t] * L:
        found = f"After {t} tokens, the {L} layers hold {', '.join(map(str, lengths))} tokens."
        if not any(lengths):
            fail(KNOWN["cache-not-passed"], found)
        if lengths == [L * t] + [0] * (L - 1):
            fail(KNOWN["cache-layer-0"], found)
        fail(KNOWN["cache-layers-wrong:cache-permuted"], found)
    stored = {}
    gpt2(w, config, [ids], stored=stored)
    for i, layer in enumerate(cache.layers):
        mine = layer.keys[:, :, :t]
        fits = [j for j in range(L) if torch.allclose(mine, stored[j][0], rtol=1e-3, atol=1e-4)]
        if fits and i not in fits:
            fail(
                KNOWN["cache-layers-wrong:cache-permuted"],
                f"cache.layers[{i}] holds the keys of layer {fits[0]}.",
            )
    compare(
        got,
        gpt2(w, config, [ids]),
        CACHE,
        lambda **switches: gpt2(w, config, [ids], stored={}, **switches),
        what="the output with an empty cache",
        axes="B T V",
        atol=5e-5,
    )


def _with_cache(model, ids, cache, **keywords):
    """The model's logits with a cache; the error of a cache passed whole gets its message."""
    try:
        return logits_of(model, ids, cache=cache, **keywords)
    except (AttributeError, TypeError) as error:
        text = str(error)
        if "append" in text and ("KVCache" in text or "list" in text):
            fail(KNOWN["cache-layers-whole"], f"Python says: {type(error).__name__}: {text}")
        raise


@check(todo=10, needs=test_cache_is_filled)
def test_stateless(piece):
    """The model itself remembers nothing: the same input gives the same logits"""
    from gpt2.cache import KVCache

    model, config = model_of(piece)
    ids = ids_of(t=4)
    want = logits_of(model, ids)
    cache = KVCache(config, batch_size=B)
    _with_cache(model, ids_of(seed=1), cache)
    if not torch.allclose(logits_of(model, ids), want, atol=1e-5):
        fail(KNOWN["model-keeps-state"])
    other = KVCache(config, batch_size=B)
    if not torch.allclose(_with_cache(model, ids, other), want, atol=1e-4):
        fail(KNOWN["model-keeps-state"])


@check(todo=10, needs=test_cache_is_filled, points=2, follows=test_stateless)
def test_cache_continues(piece):
    """With a cache, a second piece continues where the first ended, positions included"""
    from gpt2.cache import KVCache

    model, config = model_of(piece)
    w = weights(model)
    for cut, end in ((4, 7), (3, 4), (1, 4), (2, 8)):
        ids = ids_of(t=end, seed=end)
        pieces = [ids[:, :cut], ids[:, cut:]]

        def run(pieces=pieces):
            cache = KVCache(config, batch_size=B)
            _with_cache(model, pieces[0], cache)
            return _with_cache(model, pieces[1], cache)

        try:
            compare(
                run,
                gpt2(w, config, [ids])[:, cut:],
                CACHE,
                lambda pieces=pieces, **switches: gpt2(w, config, pieces, **switches),
                what=f"the output for {end - cut} new tokens after {cut} in the cache",
                axes="B T V",
                atol=5e-5,
            )
        except CheckFailed as failed:
            if not failed.mistakes:
                _name_positions(w, config, pieces, run())
            raise


def _name_positions(w, config, pieces, got):
    """Fail when some other positions of the second piece explain what the model gives."""
    cut = pieces[0].size(1)
    for first in range(P - pieces[1].size(1) + 1):
        if torch.allclose(
            gpt2(w, config, pieces, start=lambda past, *_, first=first: first if past else 0),
            got,
            rtol=1e-4,
            atol=5e-5,
        ):
            fail(
                KNOWN["positions-wrong"],
                f"The token after {cut} in the cache gets position {first}, expected {cut}.",
            )


@check(todo=10, needs=(test_cache_continues, test_last_only))
def test_cache_every_cut(piece):
    """A sequence cut into pieces in every way gives what it gives at once"""
    from gpt2.cache import KVCache

    model, config = model_of(piece, n_layer=2)
    ids = ids_of(2, T, seed=5)
    w = weights(model)
    want = gpt2(w, config, [ids])
    cache = KVCache(config, batch_size=2)
    with torch.no_grad():
        for size in (T - 1, 1):
            _with_cache(model, ids[:, :size], cache, last_only=True)
        lengths = [layer.length for layer in cache.layers]
        if lengths != [T] * 2:
            fail(
                KNOWN["cache-not-passed:cache-last-only"],
                f"After {T} tokens in two calls its layers hold {lengths}.",
            )
        for cuts in itertools.product((False, True), repeat=T - 1):
            cache.reset()
            ends = [i + 1 for i, cut in enumerate(cuts) if cut] + [T]
            begins = [0, *ends[:-1]]
            pairs = list(zip(begins, ends, strict=True))
            got = [_with_cache(model, ids[:, a:b], cache) for a, b in pairs]
            sizes = "+".join(str(b - a) for a, b in pairs)
            compare(
                torch.cat(got, 1),
                want,
                what=f"the output for {T} tokens fed as {sizes}",
                axes="B T V",
                atol=5e-5,
            )
            cache.reset()
            for a, b in pairs:
                got = _with_cache(model, ids[:, a:b], cache, last_only=True)
                compare(
                    got,
                    want[:, b - 1 : b],
                    LAST_ONLY,
                    lambda a=a, b=b, **switches: gpt2(
                        w,
                        config,
                        [p for p in (ids[:, :a], ids[:, a:b]) if p.numel()],
                        True,
                        **switches,
                    ),
                    what=f"the output with last_only and a cache, fed as {sizes},",
                    axes="B T V",
                    atol=5e-5,
                )


@check(todo=10, needs=(test_cache_continues, test_last_only), follows=test_cache_every_cut)
def test_same_in_training(piece):
    """Without dropout, training mode gives the same; forward switches no mode and sets no seed"""
    from gpt2.cache import KVCache

    model, config = model_of(piece, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0)
    ids = ids_of()

    def two_pieces(**keywords):
        cache = KVCache(config, batch_size=B)
        _with_cache(model, ids[:, :2], cache, **keywords)
        got = _with_cache(model, ids[:, 2:], cache, **keywords)
        if cache.length != T:
            fail(
                KNOWN["train-differs"],
                f"After {T} tokens in two calls the cache holds {cache.length}.",
            )
        return got

    for name, run in (
        ("A plain call", lambda: logits_of(model, ids)),
        ("With last_only=True, it", lambda: logits_of(model, ids, last_only=True)),
        ("With a cache, it", two_pieces),
        ("With a cache and last_only=True, it", lambda: two_pieces(last_only=True)),
    ):
        expect_mode_kept(model, run)
        expect_no_seed(run)
        want, got = run(), (model.train(), run())[1]
        random = not torch.equal(run(), got)
        model.eval()
        if not random and (got.shape != want.shape or not torch.allclose(got, want, atol=1e-4)):
            shapes = f"{tuple(want.shape)} in eval, {tuple(got.shape)} in training mode"
            fail(
                KNOWN["train-differs"], f"{name} gives other numbers (or another shape): {shapes}."
            )


@check(todo=10, needs=test_logits, follows=test_settings)
def test_dropout_probabilities(piece):
    """With one of the three dropout probabilities at 1, its branch vanishes in training"""
    names = ("embd", "resid", "attn")
    for name in names:
        settings = {f"{other}_pdrop": float(other == name) for other in names}
        model, config = model_of(piece, **settings)
        w, ids = weights(model), ids_of()
        model.train()
        first, second = logits_of(model, ids), logits_of(model, ids)
        if not torch.equal(first, second):
            with torch.no_grad():
                for block in model.h:
                    block.attn.c_proj.weight.zero_()  # what attention finds goes no further
            from_attention = torch.equal(logits_of(model, ids), logits_of(model, ids))
            fail(
                KNOWN["attn-pdrop-not-passed"] if from_attention else KNOWN["extra-dropout"],
                f"With {name}_pdrop=1 and the others 0, the logits in training are random.",
            )
        dropped = {f"drop_{name}": torch.zeros_like}
        compare(
            first,
            gpt2(w, config, [ids], **dropped),
            [KNOWN[f"{name}-pdrop-not-passed:nowhere"], *KNOWN.of("pdrops", "extra")],
            lambda dropped=dropped, w=w, config=config, ids=ids, **switches: gpt2(
                w, config, [ids], **{**dropped, **switches}
            ),
            what=f"in training, with {name}_pdrop=1 and the others 0, the output",
            axes="B T V",
        )


@check(todo=10, needs=test_dropout_probabilities, follows=test_settings)
def test_no_other_dropout(piece):
    """Without dropout, training and eval mode agree; the embeddings are dropped once"""
    off = {"resid_pdrop": 0.0, "attn_pdrop": 0.0}
    model, _ = model_of(piece, embd_pdrop=0.0, **off)
    ids = ids_of(t=9)
    want = logits_of(model, ids)
    if not torch.equal(logits_of(model.train(), ids), want):
        fail(
            KNOWN["extra-dropout"], "With all three probabilities 0, training and eval mode differ."
        )
    p, width = 0.4, 96
    config = configure(
        vocab_size=width, n_positions=16, n_embd=width, n_layer=1, embd_pdrop=p, **off
    )
    model = build(piece, config).train()
    with torch.no_grad():
        for parameter in model.h.parameters():
            parameter.zero_()  # the block adds nothing
        model.ln_f.weight.fill_(1.0)
        model.ln_f.bias.zero_()
        fill(model.embeddings)
        table = torch.linalg.qr(model.embeddings.wte.weight)[0]  # so that logits @ table is ln_f(x)
        model.embeddings.wte.weight.copy_(table)
        rows = (logits_of(model, ids_of(8, 16, v=width)) @ table).flatten(0, 1)
    # in each row, dropped numbers are equal to each other, and no others are
    values = rows.mul(1e3).round().mode(-1, keepdim=True).values
    share = float((rows.mul(1e3).round() - values).abs().le(1).double().mean())
    if abs(share - p) > 0.06:
        fail(
            KNOWN["extra-dropout"],
            f"With embd_pdrop={p}, {share:.0%} of the stream is 0 in training, expected {p:.0%}"
            + (": the embeddings are dropped twice." if share > p else "."),
        )


@check(todo=10, needs=test_logits)
def test_gradients(piece):
    """Gradients reach every parameter; wte gets both its shares, from reading and predicting"""
    model, config = model_of(piece)
    ids = torch.arange(V)[None, : P - 1]
    expect_finite_gradients(model, logits_of(model, torch.arange(P)[None]).pow(2).sum())
    model.zero_grad()
    F.cross_entropy(logits_of(model, ids).flatten(0, 1), ids_of(1, P - 1)[0]).backward()
    mine = model.embeddings.wte.weight.grad
    w = {name: p.requires_grad_() for name, p in weights(model).items()}
    logits = gpt2(w, config, [ids])
    F.cross_entropy(logits.flatten(0, 1), ids_of(1, P - 1)[0]).backward()
    if not torch.allclose(mine, w["embeddings.wte.weight"].grad, rtol=1e-3, atol=1e-5):
        fail(KNOWN["head-detached"])


@check(todo=10, needs=test_logits, follows=(test_cache_is_filled, test_stateless))
def test_copies_and_dtypes(piece):
    """A deep copy and a save/load round trip keep logits and tie; bfloat16 and GPU work"""
    import copy

    model, config = model_of(piece)
    ids = ids_of()
    expect_copies(model, lambda m: m(ids))
    twin = copy.deepcopy(model)
    if twin.lm_head.weight is not twin.embeddings.wte.weight:
        fail(KNOWN["untied-head"], "After copy.deepcopy the two are no longer one tensor.")
    if not torch.isfinite(logits_of(twin.to(torch.bfloat16), ids)).all():
        fail("In bfloat16 the logits are not finite.")
    if torch.cuda.is_available():
        got = logits_of(copy.deepcopy(model).cuda(), ids.cuda()).cpu()
        compare(got, gpt2(weights(model), config, [ids]), what="on the GPU, the output", rtol=1e-2)


@check(todo=10, needs=test_logits)
def test_inputs_untouched(piece):
    """The ids are left as they were"""
    model, _ = model_of(piece)
    expect_no_edit(lambda ids: model(ids), ids_of(), "input_ids")
