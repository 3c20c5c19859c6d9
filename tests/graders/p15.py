"""Problem 15: answers that are wrong, and answers that are right, in ways that people write them."""

from tests.graders.bank import Bank

bank = Bank(15)
wrong, right = bank.wrong_edit, bank.right_edit

# ── build_example ───────────────────────────────────────────────────────────────────────────────

RETURN = "    return tokens[:-1], [IGNORE] * hidden + tokens[1 + hidden :]\n"
wrong(
    "no-shift",
    "labels as transformers wants them: a copy of the inputs, the prompt hidden",
    (RETURN, "    return tokens, [IGNORE] * len(prompt) + tokens[len(prompt) :]\n"),
)
wrong(
    "no-shift",
    "inputs and targets lose the same end",
    (RETURN, "    return tokens[:-1], [IGNORE] * len(prompt) + tokens[len(prompt) : -1]\n"),
)
wrong(
    "shifted-twice",
    "shifted here and, it seems, once more",
    (RETURN, "    return tokens[:-2], [IGNORE] * (hidden - 1) + tokens[1 + hidden :]\n"),
)
wrong("prompt-trained", "nothing is hidden", (RETURN, "    return tokens[:-1], tokens[1:]\n"))
wrong(
    "first-answer-token-hidden",
    "as many targets hidden as the prompt has tokens",
    ("hidden = len(prompt) - 1", "hidden = len(prompt)"),
)
wrong(
    "last-prompt-token-trained",
    "one target too few hidden",
    ("hidden = len(prompt) - 1", "hidden = max(0, len(prompt) - 2)"),
)
wrong("end-missing", "no end token", ("[*prompt, *answer, eos]", "[*prompt, *answer]"))
wrong(
    "end-not-trained",
    "the end token's target is hidden",
    (RETURN, "    return tokens[:-1], [IGNORE] * hidden + tokens[1 + hidden : -1] + [IGNORE]\n"),
)
wrong(
    "end-lost-by-value",
    "whatever equals the end token is hidden",
    (
        RETURN,
        "    targets = [IGNORE] * hidden + tokens[1 + hidden :]\n"
        "    return tokens[:-1], [IGNORE if t == eos else t for t in targets]\n",
    ),
)
wrong(
    "end-fed",
    "the end token is an input",
    (RETURN, "    return tokens, [IGNORE] * hidden + tokens[1 + hidden :] + [IGNORE]\n"),
)
wrong(
    "end-between",
    "an end token between prompt and answer",
    ("[*prompt, *answer, eos]", "[*prompt, eos, *answer, eos]"),
    ("hidden = len(prompt) - 1", "hidden = len(prompt)"),
)
wrong(
    "hidden-by-value",
    "what occurs in the prompt is hidden",
    (RETURN, "    return tokens[:-1], [IGNORE if t in prompt else t for t in tokens[1:]]\n"),
)
wrong(
    "answer-hidden",
    "the mask the wrong way round",
    (
        RETURN,
        "    return tokens[:-1], tokens[1 : 1 + hidden] + [IGNORE] * (len(answer) + 1)\n",
    ),
)
wrong(
    "prompt-keeps-beginning",
    "a long prompt loses its end",
    ("prompt = prompt[-room:]", "prompt = prompt[:room]"),
)
wrong(
    "answer-cut",
    "everything is cut at max_length",
    ("    prompt = prompt[-room:]\n", ""),
    (
        RETURN,
        "    targets = [IGNORE] * hidden + tokens[1 + hidden :]\n"
        "    return tokens[:-1][:max_length], targets[:max_length]\n",
    ),
)
wrong(
    "room-one-too-small",
    "room for the end token among the inputs",
    ("prompt = prompt[-room:]", "prompt = prompt[-max(1, room - 1):]"),
)
wrong("never-cut", "a long example stays long", ("    prompt = prompt[-room:]\n", ""))
wrong(
    "hidden-before-cutting",
    "hides as many as the prompt had",
    ("    prompt = prompt[-room:]\n", "    whole = len(prompt)\n    prompt = prompt[-room:]\n"),
    (
        RETURN,
        "    targets = [IGNORE] * (whole - 1) + tokens[whole:]\n"
        "    targets = (targets + [IGNORE] * len(tokens))[: len(tokens) - 1]\n"
        "    return tokens[:-1], targets\n",
    ),
)
wrong(
    "empty-accepted",
    "an empty prompt passes",
    ("if not prompt or not answer:", "if not answer:"),
)
wrong(
    "empty-accepted",
    "an empty answer passes",
    ("if not prompt or not answer:", "if not prompt:"),
)
wrong(
    "no-room-accepted",
    "an answer that fills all passes, and the prompt with it",
    ("if room < 1:", "if room < 0:"),
)
wrong("room-refused", "room for one is not enough", ("if room < 1:", "if room < 2:"))
wrong(
    "lists-edited",
    "the prompt's own list grows",
    ("    prompt = prompt[-room:]\n", "    del prompt[:-room]\n"),
    (
        "    tokens = [*prompt, *answer, eos]\n",
        "    n = len(prompt)\n    prompt += answer\n    prompt.append(eos)\n    tokens = prompt\n",
    ),
    ("hidden = len(prompt) - 1", "hidden = n - 1"),
)
wrong(
    "not-lists",
    "tensors already",
    (
        RETURN,
        "    return torch.tensor(tokens[:-1]), "
        "torch.tensor([IGNORE] * hidden + tokens[1 + hidden :])\n",
    ),
)
wrong(
    "lengths-differ",
    "only the targets are shifted",
    (RETURN, "    return tokens, [IGNORE] * hidden + tokens[1 + hidden :]\n"),
)

# ── collate ─────────────────────────────────────────────────────────────────────────────────────

TARGETS = "    targets = torch.full((len(examples), T), IGNORE, dtype=torch.int64)\n"
END = "    return inputs, targets\n\n\ndef masked_loss"
wrong(
    "padding-trained",
    "targets padded like the inputs",
    (TARGETS, TARGETS.replace("IGNORE", "pad_id")),
)
wrong(
    "targets-padded-with-zero", "targets padded with 0", (TARGETS, TARGETS.replace("IGNORE", "0"))
)
wrong(
    "inputs-padded-with-ignore",
    "inputs padded like the targets",
    ("T), pad_id, dtype", "T), IGNORE, dtype"),
)
wrong("inputs-padded-with-zero", "inputs padded with 0", ("T), pad_id, dtype", "T), 0, dtype"))
wrong(
    "padded-left",
    "padding on the left",
    ("inputs[b, : len(ids)]", "inputs[b, T - len(ids) :]"),
    ("targets[b, : len(wanted)]", "targets[b, T - len(wanted) :]"),
)
wrong(
    "end-lost-as-padding",
    "as DataCollatorForLanguageModeling does: targets that equal the padding are hidden",
    (END, "    targets[targets == pad_id] = IGNORE\n" + END),
)
wrong(
    "shifted-in-collate",
    "one more shift",
    (END, END.replace("inputs, targets", "inputs[:, :-1], targets[:, 1:]")),
)
wrong(
    "targets-from-inputs",
    "labels are a clone of the inputs, the padding hidden",
    (END, "    targets = inputs.masked_fill(inputs == pad_id, IGNORE)\n" + END),
)
wrong(
    "cut-to-shortest",
    "as wide as the shortest",
    ("T = max(len(inputs) for", "T = min(len(inputs) for"),
    ("inputs[b, : len(ids)] = torch.tensor(ids)", "inputs[b, :T] = torch.tensor(ids[:T])"),
    (
        "targets[b, : len(wanted)] = torch.tensor(wanted)",
        "targets[b, :T] = torch.tensor(wanted[:T])",
    ),
)
wrong(
    "order-changed",
    "sorted by length",
    ("    T = max(", "    examples = sorted(examples, key=lambda e: len(e[0]))\n    T = max("),
)
wrong(
    "inputs-and-targets-exchanged",
    "targets first",
    (END, END.replace("inputs, targets", "targets, inputs")),
)
wrong(
    "not-int64",
    "int32 ids",
    (
        "inputs = torch.full((len(examples), T), pad_id, dtype=torch.int64)",
        "inputs = torch.full((len(examples), T), pad_id, dtype=torch.int32)",
    ),
)
wrong(
    "lists-edited",
    "the examples' own lists are padded",
    (
        "        inputs[b, : len(ids)] = torch.tensor(ids)\n",
        "        ids += [pad_id] * (T - len(ids))\n"
        "        inputs[b, : len(ids)] = torch.tensor(ids)\n",
    ),
)

# ── masked_loss ─────────────────────────────────────────────────────────────────────────────────

SUM = '    total = F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORE, reduction="sum")\n'
COUNT = "    return total, (targets != IGNORE).sum()\n"
wrong("mean-for-sum", "the mean", (SUM, SUM.replace('"sum"', '"mean"')))
wrong(
    "mean-over-all",
    "divided by all positions",
    (COUNT, COUNT.replace("total,", "total / targets.numel(),")),
)
wrong(
    "mean-over-examples",
    "divided by the batch size",
    (COUNT, COUNT.replace("total,", "total / len(targets),")),
)
wrong(
    "shifted-in-loss",
    "shifted in the loss as transformers does",
    (
        "    flat = logits.float().flatten(0, 1)",
        "    logits, targets = logits[:, :-1], targets[:, 1:]\n"
        "    flat = logits.float().flatten(0, 1)",
    ),
)
wrong(
    "ignored-counted",
    "hidden targets clamped and counted",
    (SUM, SUM.replace("targets.flatten()", "targets.flatten().clamp(min=0)")),
)
wrong(
    "ignored-counted",
    "gathered with −100 as an index",
    (SUM, "    total = -flat.log_softmax(-1).gather(1, targets.flatten()[:, None]).sum()\n"),
)
wrong(
    "token-zero-ignored",
    "token 0 taken for padding",
    (SUM, SUM.replace("targets.flatten()", "targets.masked_fill(targets == 0, IGNORE).flatten()")),
)
wrong(
    "softmax-twice",
    "softmax before cross_entropy",
    (SUM, SUM.replace("(flat,", "(flat.softmax(-1),")),
)
wrong(
    "softmax-missing",
    "nll_loss of the logits",
    (SUM, SUM.replace("F.cross_entropy", "F.nll_loss")),
)
wrong(
    "log-missing",
    "nll_loss of probabilities",
    (SUM, SUM.replace("F.cross_entropy(flat", "F.nll_loss(flat.softmax(-1)")),
)
wrong("loss-sign", "minus a minus", (COUNT, COUNT.replace("total,", "-total,")))
wrong(
    "axes-mixed",
    "transposed before it is flattened",
    ("logits.float().flatten(0, 1)", "logits.float().transpose(0, 1).flatten(0, 1)"),
)
wrong(
    "count-of-all",
    "all positions counted",
    (COUNT, COUNT.replace("(targets != IGNORE).sum()", "targets.numel()")),
)
wrong(
    "count-wrong",
    "rows counted that have a target",
    (COUNT, COUNT.replace("(targets != IGNORE).sum()", "(targets != IGNORE).any(1).sum()")),
)
wrong(
    "nan-without-targets",
    "the mean times the count",
    (SUM, SUM.replace('"sum")', '"mean") * (targets != IGNORE).sum()')),
)
wrong("not-a-tensor", "a number", (COUNT, COUNT.replace("total,", "total.item(),")))
wrong("loss-without-graph", "detached", (COUNT, COUNT.replace("total,", "total.detach(),")))
wrong("loss-in-half", "in the logits' own dtype", ("logits.float().flatten", "logits.flatten"))
wrong(
    "loss-overflows",
    "the logarithm of a softmax",
    (
        SUM,
        "    kept = targets.flatten() != IGNORE\n"
        "    p = flat[kept].softmax(-1)\n"
        "    total = -p.gather(1, targets.flatten()[kept][:, None]).log().sum()\n",
    ),
)
wrong(
    "error-without-targets",
    "stacks what is not there",
    (
        SUM,
        "    pairs = zip(flat, targets.flatten(), strict=True)\n"
        "    found = [F.cross_entropy(z, t) for z, t in pairs if t != IGNORE]\n"
        "    total = torch.stack(found).sum()\n",
    ),
)

# ── learning_rate ───────────────────────────────────────────────────────────────────────────────

ENDED = "    if step >= max_steps:\n        return low\n"
SHARE = "    share = (step - warmup_steps) / (max_steps - warmup_steps)\n"
RATE = "    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * share))\n"
wrong("warm-up-from-zero", "step / warmup_steps", ("peak * (step + 1) / w", "peak * step / w"))
wrong(
    "warm-up-too-long",
    "as nanoGPT has it now: divided by warmup_steps + 1",
    ("(step + 1) / warmup_steps", "(step + 1) / (warmup_steps + 1)"),
)
wrong(
    "warm-up-missing",
    "at the peak from the first step",
    ("return peak * (step + 1) / warmup_steps", "return peak"),
)
wrong("cosine-from-start", "counts from step 0", (SHARE, "    share = step / max_steps\n"))
wrong(
    "cosine-too-slow",
    "as long as the whole run",
    (SHARE, "    share = (step - warmup_steps) / max_steps\n"),
)
wrong("linear-decay", "a straight line", (RATE, "    return low + (peak - low) * (1 - share)\n"))
wrong(
    "quarter-cosine",
    "π / 2",
    (RATE, "    return low + (peak - low) * math.cos(math.pi / 2 * share)\n"),
)
wrong("whole-cosine", "2 π", (RATE, RATE.replace("math.pi * share", "2 * math.pi * share")))
wrong("cosine-not-halved", "the half is missing", (RATE, RATE.replace("0.5 * ", "")))
wrong(
    "cosine-below-zero",
    "cosine alone",
    (RATE, "    return low + (peak - low) * math.cos(math.pi * share)\n"),
)
wrong("final-ratio-ignored", "down to 0", ("low = final_ratio * peak", "low = 0.0"))
wrong("final-ratio-fixed", "a tenth, always", ("low = final_ratio * peak", "low = 0.1 * peak"))
wrong("final-ratio-absolute", "not a share", ("low = final_ratio * peak", "low = final_ratio"))
wrong("floor-added", "starts above the peak", (RATE, RATE.replace("(peak - low)", "peak")))
wrong(
    "floor-cuts",
    "max(low, …)",
    (RATE, "    return max(low, peak * 0.5 * (1 + math.cos(math.pi * share)))\n"),
)
wrong("rises-after-end", "no end", (ENDED, ""), also="divides-by-zero warm-up-beyond-end")
wrong("zero-after-end", "0 after the end", (ENDED, ENDED.replace("return low", "return 0.0")))
wrong(
    "warm-up-beyond-end",
    "the warm-up first, as most schedules have it",
    (ENDED, ""),
    ("    share = (step", "    if step >= max_steps:\n        return low\n    share = (step"),
)
wrong(
    "divides-by-zero",
    "no case for a warm-up of 0 steps",
    ("if step < warmup_steps:", "if step / warmup_steps < 1:"),
)

# ── parameter_groups ────────────────────────────────────────────────────────────────────────────

TRAINED = "    trained = [p for p in model.parameters() if p.requires_grad]\n"
WIDE = '{"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay}'
THIN = '{"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0}'
NAMED = "    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]\n"


def by_name(test):
    """Groups by a test of the name."""
    return (
        (TRAINED, NAMED),
        (
            WIDE,
            WIDE.replace(
                "p for p in trained if p.dim() >= 2", f"p for n, p in trained if not ({test})"
            ),
        ),
        (
            THIN,
            THIN.replace("p for p in trained if p.dim() < 2", f"p for n, p in trained if {test}"),
        ),
    )


wrong(
    "norms-decay",
    "biases by their name; norm weights are forgotten",
    *by_name('n.endswith("bias")'),
)
wrong(
    "norms-decay",
    "names of Hugging Face's norms, which are not these",
    *by_name('any(x in n for x in ("bias", "LayerNorm.weight"))'),
)
wrong("all-decay", "one group", (THIN, THIN.replace("0.0", "weight_decay")))
wrong("nothing-decays", "no decay", (WIDE, WIDE.replace(": weight_decay", ": 0.0")))
wrong(
    "decay-exchanged", "exchanged", ("p.dim() >= 2", "p.dim() <= 1"), ("p.dim() < 2", "p.dim() > 1")
)
wrong(
    "embeddings-left-undecayed",
    "as minGPT has it: embeddings don't decay",
    (
        TRAINED,
        TRAINED
        + "    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}\n",
    ),
    ("p.dim() >= 2", "p.dim() >= 2 and id(p) not in tables"),
    ("p.dim() < 2", "p.dim() < 2 or id(p) in tables"),
)
wrong(
    "only-two-dimensions",
    "exactly two",
    ("p.dim() >= 2", "p.dim() == 2"),
    ("p.dim() < 2", "p.dim() != 2"),
)
wrong(
    "decay-key-missing",
    "no key in the second group",
    (THIN, THIN.replace(', "weight_decay": 0.0', "")),
)
wrong("decay-other-value", "0.1 written down", (WIDE, WIDE.replace(": weight_decay", ": 0.1")))
wrong(
    "tied-twice",
    "by names, a tied one under both",
    (
        TRAINED,
        "    every = model.named_parameters(remove_duplicate=False)\n"
        "    trained = [p for _, p in every if p.requires_grad]\n",
    ),
)
wrong(
    "frozen-included",
    "requires_grad not asked",
    (TRAINED, "    trained = list(model.parameters())\n"),
)
wrong(
    "parameters-missing",
    "only the weights of linear layers and their biases",
    (
        TRAINED,
        "    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]\n"
        "    trained = [p for m in linear for p in m.parameters() if p.requires_grad]\n"
        "    trained = list({id(p): p for p in trained}.values())\n",
    ),
)

# ── train_step ──────────────────────────────────────────────────────────────────────────────────

ZERO = "    optimizer.zero_grad(set_to_none=True)\n"
PART = "            part = masked_loss(logits, targets)[0] / total\n"
LOOP = "    for i, (inputs, targets) in enumerate(batches):\n"
CLIP = "    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)\n"
STEP = "    optimizer.step()\n"
BACKWARD = "            part.backward()\n"
APPEND = "        parts.append(part.detach())\n"
FINISH = '    if hasattr(model, "finish"):\n        model.finish()\n'
REPORT = "    return torch.stack(parts).sum(), norm\n"
ALONE = (
    '        alone = nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()\n'
)
MEAN = (
    "            total_, n = masked_loss(logits, targets)\n"
    "            part = total_ / n / len(batches)\n"
)
wrong(
    "mean-of-means",
    "each part's mean, divided by the number of parts",
    (PART, MEAN),
    also="loss-mean-of-means total-ignored",
)
wrong(
    "means-added",
    "each part's mean, added up",
    (PART, MEAN.replace(" / len(batches)", "")),
    also="loss-mean-of-means total-ignored",
)
wrong(
    "not-divided", "the sum", (PART, PART.replace(" / total", "")), also="total-ignored loss-summed"
)
wrong(
    "divided-by-parts", "by the number of parts", (PART, PART.replace("/ total", "/ len(batches)"))
)
wrong(
    "divided-by-all-positions",
    "by all positions",
    ("int((targets != IGNORE).sum()) for _, targets", "targets.numel() for _, targets"),
    also="no-target-accepted",
)
wrong(
    "divided-twice",
    "and by the number of parts",
    (PART, PART.replace("/ total", "/ total / len(batches)")),
)
wrong("gradients-left-over", "nothing is zeroed", (ZERO, ""))
wrong(
    "gradients-left-over",
    "zeroed at the end only",
    (ZERO, ""),
    (STEP, STEP + ZERO),
)
wrong("only-last-part", "zeroed for each part", (ZERO, ""), (LOOP, LOOP + "    " + ZERO))
wrong(
    "clipped-each-part",
    "clipped after each part",
    (CLIP, ""),
    (APPEND, APPEND + "    " + CLIP),
    also="norm-wrong norm-after-clipping finish-late",
)
wrong(
    "clipped-early",
    "clipped before the last part",
    (CLIP, ""),
    (LOOP, LOOP + "        if i == len(batches) - 1:\n        " + CLIP),
    also="norm-wrong finish-late",
)
wrong(
    "not-clipped",
    "clipped after the step",
    (CLIP, ""),
    (STEP, STEP + CLIP),
)
wrong(
    "not-clipped",
    "the norm is taken, and nothing clipped",
    (CLIP, CLIP.replace("grad_clip", 'float("inf")')),
)
wrong(
    "clipped-by-value",
    "clip_grad_value_",
    (
        CLIP,
        CLIP.replace("grad_clip", 'float("inf")')
        + "    torch.nn.utils.clip_grad_value_(model.parameters(), grad_clip)\n",
    ),
)
wrong(
    "clipped-by-tensor",
    "each tensor by itself",
    (
        CLIP,
        CLIP.replace("grad_clip", 'float("inf")') + "    for p in model.parameters():\n"
        "        torch.nn.utils.clip_grad_norm_([p], grad_clip)\n",
    ),
)
wrong(
    "always-scaled",
    "scaled where it is short, too",
    (
        CLIP,
        CLIP.replace("grad_clip", 'float("inf")')
        + "    for p in model.parameters():\n        p.grad.mul_(grad_clip / norm)\n",
    ),
)
wrong("clip-ignored", "1.0 written down", (CLIP, CLIP.replace("grad_clip", "1.0")))
wrong("no-step", "no step", (STEP, ""))
wrong(
    "step-each-part",
    "a step for each part",
    (STEP, ""),
    (APPEND, APPEND + "    " + STEP),
)
wrong(
    "step-each-part",
    "clip, step and zero for each part",
    (STEP, ""),
    (CLIP, ""),
    (ZERO, ""),
    (LOOP, LOOP + "    " + ZERO),
    (APPEND, APPEND + "    " + CLIP + "    " + STEP),
)
wrong("two-steps", "two steps", (STEP, STEP + STEP))
wrong(
    "loss-of-last-part",
    "the last part's loss",
    (REPORT, REPORT.replace("torch.stack(parts).sum()", "part.detach()")),
)
wrong(
    "loss-mean-of-means",
    "the mean of the parts' own means",
    (
        APPEND,
        "        n = (targets != IGNORE).sum()\n        parts.append(part.detach() * total / n / len(batches))\n",
    ),
    also="total-for-gradient-only",
)
wrong("loss-summed", "the summed loss", (APPEND, "        parts.append(part.detach() * total)\n"))
wrong(
    "norm-after-clipping",
    "asked again after clipping",
    (
        STEP,
        "    grads = [p.grad for p in model.parameters() if p.grad is not None]\n"
        "    norm = torch.stack([g.norm() for g in grads]).norm()\n" + STEP,
    ),
)
wrong("norm-squared", "without its root", (REPORT, REPORT.replace("norm\n", "norm**2\n")))
wrong(
    "norm-of-norms-added",
    "norms added up",
    (
        CLIP,
        "    added = sum(p.grad.norm() for p in model.parameters() if p.grad is not None)\n" + CLIP,
    ),
    (REPORT, REPORT.replace("norm\n", "added\n")),
)
wrong(
    "results-exchanged", "the norm first", (REPORT, "    return norm, torch.stack(parts).sum()\n")
)
wrong(
    "total-ignored",
    "total is counted anyway",
    ("    if total is None:\n        total = sum", "    if True:\n        total = sum"),
)
wrong(
    "total-for-gradient-only",
    "the loss is divided by what was counted",
    (
        REPORT,
        "    own = sum(int((t != IGNORE).sum()) for _, t in batches)\n"
        "    return torch.stack(parts).sum() * total / own, norm\n",
    ),
)
wrong("mode-switched", "model.train()", (ZERO, "    model.train()\n" + ZERO))
wrong(
    "no-target-accepted",
    "goes on with 0 / 0",
    (
        '    if total <= 0:\n        raise ValueError(f"no target counts in {len(batches)} batches: all of them are IGNORE")\n',
        "",
    ),
    also="no-target-changes",
)
wrong(
    "no-target-changes",
    "says so after the step",
    (
        '    if total <= 0:\n        raise ValueError(f"no target counts in {len(batches)} batches: all of them are IGNORE")\n',
        "    total = total or 1e-9\n",
    ),
    (REPORT, '    if total < 1:\n        raise ValueError("no target")\n' + REPORT),
)
wrong("no-sync-missing", "no_sync() is never asked for", (ALONE, "        alone = nullcontext()\n"))
wrong("no-sync-for-all", "all parts inside", (ALONE, ALONE.replace("last or ", "")))
wrong(
    "no-sync-required",
    "always asked for",
    (ALONE, "        alone = nullcontext() if last else model.no_sync()\n"),
)
wrong("no-sync-required", "finish() always called", (FINISH, "    model.finish()\n"))
wrong(
    "no-sync-half",
    "the backward pass is outside",
    (BACKWARD, "        part.backward()\n"),
)
wrong("finish-missing", "never called", (FINISH, ""))
wrong("finish-late", "called after clipping", (FINISH, ""), (CLIP, CLIP + FINISH))
wrong("finish-late", "called after the step", (FINISH, ""), (STEP, STEP + FINISH))
wrong(
    "finish-each-part",
    "called for each part",
    (FINISH, ""),
    (APPEND, APPEND + '        if hasattr(model, "finish"):\n            model.finish()\n'),
)
wrong("autocast-missing", "never", ("enabled=autocast_dtype is not None", "enabled=False"))
wrong(
    "autocast-always",
    "bfloat16 where nothing was asked for",
    (
        "torch.autocast(kind, autocast_dtype, enabled=autocast_dtype is not None)",
        "torch.autocast(kind, autocast_dtype or torch.bfloat16)",
    ),
)
wrong(
    "weights-in-half",
    "the model is cast",
    (
        "            with torch.autocast(kind, autocast_dtype, enabled=autocast_dtype is not None):\n",
        "            if autocast_dtype is not None:\n                model.module.to(autocast_dtype)\n"
        "            with nullcontext():\n",
    ),
    also="autocast-missing",
)

# ── right answers ───────────────────────────────────────────────────────────────────────────────

right("the solution")
right(
    "a mask by position, zipped",
    (
        RETURN,
        "    trained = [i >= len(prompt) for i in range(len(tokens))]\n"
        "    targets = [t if use else IGNORE for t, use in zip(tokens, trained, strict=True)]\n"
        "    return tokens[:-1], targets[1:]\n",
    ),
)
right(
    "labels first, shifted afterwards",
    (
        RETURN,
        "    labels = [IGNORE] * len(prompt) + answer + [eos]\n    return tokens[:-1], labels[1:]\n",
    ),
)
right(
    "pad_sequence",
    (
        "    T = max(len(inputs) for inputs, _ in examples)\n",
        "    from torch.nn.utils.rnn import pad_sequence\n\n"
        "    ids = [torch.tensor(i, dtype=torch.long) for i, _ in examples]\n"
        "    labels = [torch.tensor(t, dtype=torch.long) for _, t in examples]\n"
        "    return (\n"
        "        pad_sequence(ids, batch_first=True, padding_value=pad_id),\n"
        "        pad_sequence(labels, batch_first=True, padding_value=IGNORE),\n"
        "    )\n"
        "    T = max(len(inputs) for inputs, _ in examples)\n",
    ),
)
right(
    "gather and log_softmax, counted as an int",
    (
        SUM,
        "    kept = targets.flatten() != IGNORE\n"
        "    wanted = targets.flatten().masked_fill(~kept, 0)\n"
        "    one = -flat.log_softmax(-1).gather(1, wanted[:, None]).squeeze(1)\n"
        "    total = (one * kept).sum()\n",
    ),
    (COUNT, "    return total, int(kept.sum())\n"),
)
right(
    "only the rows that count",
    (
        SUM,
        "    kept = targets != IGNORE\n"
        '    total = F.cross_entropy(logits[kept].float(), targets[kept], reduction="sum")\n',
    ),
)
right(
    "logsumexp, and reduction none",
    (
        SUM,
        '    one = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")\n'
        "    total = one.sum()\n",
    ),
)
right(
    "the schedule in one expression",
    (
        RATE,
        "    return peak * (final_ratio + (1 - final_ratio) * (math.cos(math.pi * share) + 1) / 2)\n",
    ),
)
right(
    "groups in other order, one for each parameter",
    (
        "    return [\n        " + WIDE + ",\n        " + THIN + ",\n    ]\n",
        "    return [\n"
        '        {"params": p, "weight_decay": weight_decay * (p.ndim > 1)} for p in trained\n'
        "    ]\n",
    ),
)
right(
    "groups by named_parameters",
    (TRAINED, "    trained = [p for _, p in model.named_parameters() if p.requires_grad]\n"),
)
right(
    "gradients set to None by hand",
    (ZERO, "    for p in model.parameters():\n        p.grad = None\n"),
)
right("gradients zeroed and not forgotten", (ZERO, "    optimizer.zero_grad(set_to_none=False)\n"))
right(
    "its own clipping, floats returned",
    (
        CLIP,
        "    grads = [p.grad for p in model.parameters() if p.grad is not None]\n"
        "    norm = math.sqrt(sum(float(g.float().pow(2).sum()) for g in grads))\n"
        "    if norm > grad_clip:\n"
        "        for g in grads:\n"
        "            g.mul_(grad_clip / norm)\n",
    ),
    (REPORT, "    return float(sum(parts)), norm\n"),
)
right(
    "gradients of sums, divided at the end",
    (PART, "            part = masked_loss(logits, targets)[0]\n"),
    (
        FINISH,
        "    for p in model.parameters():\n        if p.grad is not None:\n            p.grad.div_(total)\n"
        + FINISH,
    ),
    (REPORT, "    return sum(parts) / total, norm\n"),
)
right(
    "an ExitStack, and getattr",
    ("from contextlib import nullcontext\n", "from contextlib import ExitStack, nullcontext\n"),
    (
        ALONE,
        "        alone = ExitStack()\n"
        '        no_sync = getattr(model, "no_sync", None)\n'
        "        if no_sync is not None and not last:\n"
        "            alone.enter_context(no_sync())\n",
    ),
    (
        FINISH,
        '    finish = getattr(model, "finish", None)\n    if callable(finish):\n        finish()\n',
    ),
)
right(
    "the loss under autocast, too",
    (
        PART,
        "            with torch.autocast(kind, autocast_dtype, enabled=autocast_dtype is not None):\n"
        "                summed, _ = masked_loss(logits, targets)\n"
        "            part = summed / total\n",
    ),
)
right(
    "_foreach",
    (
        CLIP,
        "    grads = [p.grad for p in model.parameters() if p.grad is not None]\n"
        "    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))\n"
        "    torch._foreach_mul_(grads, float(torch.clamp(grad_clip / (norm + 1e-6), max=1.0)))\n",
    ),
)
