"""A script, run by `learn swap` in a process of its own: do these files import and run?

Its argument is a job as JSON. The job has "files", a list of [name to import it by, file], and
"contract", the names that each of them must have, by problem. The verdict is `{"error": null}`, or
the error, its line and which of the seven files that line is in. A process that ends without a
verdict has failed.
"""

import contextlib
import importlib.util
import io
import json
import sys
import traceback

from learn_gpt2.checking.child import answering

IDS = ((3, 1, 4, 1, 5), (9, 2, 6, 5, 3))


def main(job: str) -> None:
    """Run the trial and send the verdict."""
    send = answering()
    verdict = {"error": None, "module": None, "line": None}
    files = dict(json.loads(job)["files"])
    contract = json.loads(job)["contract"]
    whole = "gpt2.model" in files
    stage = "can't be imported"
    try:
        import torch

        import gpt2

        torch.set_num_threads(1)
        for name, file in files.items():
            load(gpt2, name, file)
        stage = "lacks what the contract asks for"
        for name, names in contract.items():
            check_contract(sys.modules[name], names)
        stage = "doesn't run"
        if whole:
            from gpt2.cache import KVCache

            run(sys.modules["gpt2.model"], torch, KVCache)
        for name in files:
            if name in RUNS:
                RUNS[name](sys.modules[name], torch)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        where = {file: f"{name.removeprefix('gpt2.')}.py" for name, file in files.items()}
        lines = [(where[f.filename], f.lineno) for f in frames if f.filename in where]
        text = " ".join(str(error).split())[:500]
        what = "the model" if whole else " and ".join(where.values())
        verdict["error"] = f"{what} {stage} with this piece: {type(error).__name__}: {text}"
        verdict["module"], verdict["line"] = lines[-1] if lines else (None, None)
    send(verdict)


def load(package, name: str, file: str) -> None:
    """Import a file as `gpt2.…`. ValueError when a whole file prints meanwhile: it would at every
    start of a command, whose output others read.
    """
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    setattr(package, name.removeprefix("gpt2."), module)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        spec.loader.exec_module(module)
    if printed.getvalue().strip() and name != "gpt2.model":
        first = " ".join(printed.getvalue().split())[:60]
        raise ValueError(
            f"it prints {first!r} while it is imported, and would whenever a command starts. Put "
            'that under `if __name__ == "__main__":`'
        )


def check_contract(module, contract: dict[str, list[str]]) -> None:
    """AttributeError or TypeError that names the first thing a file lacks."""
    for number, names in contract.items():
        for name in names:
            owner, _, method = name.partition(".")
            found = getattr(module, owner, None)
            constant = owner.isupper()
            kind = "class" if owner[0].isupper() else "function"
            fits = isinstance(found, type) if kind == "class" else callable(found)
            if found is None or not (fits or constant):
                kind = "constant" if constant else kind
                raise TypeError(f"problem {number} must provide a {kind} {owner}, got {found!r}")
            if method and not callable(getattr(found, method, None)):
                raise AttributeError(f"problem {number} must provide the method {name}")


def run(module, torch, cache_class) -> None:
    """One forward pass, and the same tokens with a cache: all but the last, then the last."""
    config, model = small(module)
    ids = torch.arange(10).view(2, 5)
    with torch.no_grad():
        expect(model(ids), (2, 5, 11), "the logits of (2, 5) ids")
        cache = cache_class(config, batch_size=2)
        expect(model(ids[:, :4], cache), (2, 4, 11), "the logits of (2, 4) ids with a cache")
        expect(model(ids[:, 4:], cache), (2, 1, 11), "the logits of the next id with a cache")
        expect(model(ids, last_only=True), (2, 1, 11), "the logits with last_only")


def small(module=None):
    """A tiny model and its config; module: the file that it comes from, default gpt2.model."""
    module = module or importlib.import_module("gpt2.model")
    config = module.GPT2Config(
        vocab_size=11, n_positions=7, n_embd=6, n_layer=2, n_head=2, resid_pdrop=0.0
    )
    return config, module.GPT2Model(config).eval()


def run_sampling(module, torch) -> None:
    """Three tokens for each of two rows, with everything that narrows the choice."""
    _, model = small()
    with torch.no_grad():
        tokens = module.generate_tokens(
            lambda ids: model(ids)[:, -1],
            torch.tensor(IDS)[:, :3],
            3,
            temperature=0.8,
            top_k=5,
            top_p=0.9,
            repetition_penalty=1.2,
        )
        for token in tokens:
            expect(token, (2,), "the next token of two rows")


def run_cache(module, torch) -> None:
    """The model with a cache, token after token, cut back and started again."""
    config, model = small()
    ids = torch.tensor(IDS)
    with torch.no_grad():
        run(sys.modules["gpt2.model"], torch, module.KVCache)
        cache = module.KVCache(config, batch_size=2)
        next_logits = module.cached_logits(model, cache)
        expect(next_logits(ids[:, :3]), (2, 11), "the next token's logits")
        expect(next_logits(ids), (2, 11), "the next token's logits, two tokens later")
        cache.truncate(2)
        cache.reset()
        if cache.length != 0 or cache.nbytes < 1:
            raise ValueError(f"after reset, length is {cache.length} and nbytes {cache.nbytes}")


def run_training_step(module, torch) -> None:
    """One optimizer step on two batches of one example each."""
    _, model = small()
    groups = module.parameter_groups(model, 0.1)
    optimizer = torch.optim.AdamW(groups, lr=module.learning_rate(0, **SCHEDULE))
    examples = [module.build_example([3, 1], [4, 1], 10, 7), module.build_example([5], [9], 10, 7)]
    batches = [module.collate([example], 0) for example in examples]
    loss, norm = module.train_step(model, optimizer, batches)
    for name, value in (("loss", loss), ("norm", norm)):
        if not 0 < float(value) < float("inf"):
            raise ValueError(f"the step's {name} is {float(value)}")


SCHEDULE = {"peak": 1e-3, "warmup_steps": 2, "max_steps": 9}


def run_lora(module, torch) -> None:
    """Adapters into a model, their state out and in, and merged."""
    _, model = small()
    module.add_lora(model, rank=2, alpha=4)
    with torch.no_grad():
        expect(model(torch.tensor(IDS)), (2, 5, 11), "the logits with LoRA")
        module.load_adapter_state(model, module.adapter_state(model))
        module.merge_lora(model)
        expect(model(torch.tensor(IDS)), (2, 5, 11), "the logits after merging")


def run_quantization(module, torch) -> None:
    """A model of eight bits, and one of four."""
    for bits in (8, 4):
        _, model = small()
        module.quantize_model(model, bits=bits)
        with torch.no_grad():
            expect(model(torch.tensor(IDS)), (2, 5, 11), f"the logits at {bits} bits")


def run_data_parallel(module, torch) -> None:
    """A backward pass on the only rank there is."""
    _, model = small()
    ids = module.shard(torch.tensor(IDS), 0, 1)
    parallel = module.DataParallel(model, Alone())
    parallel(ids).sum().backward()
    parallel.finish()


class Alone:
    """The only rank: nothing has to travel."""

    rank, size = 0, 1

    def broadcast(self, tensor, source=0) -> None:
        """It is there already."""

    def all_reduce(self, tensor) -> "Alone":
        """The sum over one rank is what that rank has."""
        return self

    def wait(self) -> None:
        """It is done already."""


RUNS = {
    "gpt2.sampling": run_sampling,
    "gpt2.cache": run_cache,
    "gpt2.training_step": run_training_step,
    "gpt2.lora": run_lora,
    "gpt2.quantization": run_quantization,
    "gpt2.data_parallel": run_data_parallel,
}


def expect(tensor, shape: tuple[int, ...], what: str) -> None:
    """ValueError for another shape."""
    found = tuple(getattr(tensor, "shape", ())) or type(tensor).__name__
    if found != shape:
        raise ValueError(f"{what} must have shape {shape}, got {found}")


if __name__ == "__main__":
    main(*sys.argv[1:])
