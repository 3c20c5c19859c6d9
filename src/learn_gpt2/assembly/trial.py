"""A script, run by `learn swap` in a process of its own: does this model import and run?

Arguments: the model's file, the file for the verdict, the contract's names as JSON. The verdict is
`{"error": null}`, or the error and its line in the model. A process that ends without one failed.
"""

import importlib.util
import json
import sys
import traceback


def main(model_file: str, verdict_file: str, contract: str) -> None:
    """Run the trial and write the verdict."""
    verdict = {"error": None, "line": None}
    stage = "can't be imported"
    try:
        import torch

        import gpt2
        from gpt2.cache import KVCache

        torch.set_num_threads(1)
        spec = importlib.util.spec_from_file_location("gpt2.model", model_file)
        module = importlib.util.module_from_spec(spec)
        sys.modules["gpt2.model"] = gpt2.model = module
        spec.loader.exec_module(module)
        stage = "lacks what the contract asks for"
        check_contract(module, json.loads(contract))
        stage = "doesn't run"
        run(module, torch, KVCache)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == model_file]
        text = " ".join(str(error).split())[:500]
        verdict["error"] = f"the model {stage} with this piece: {type(error).__name__}: {text}"
        verdict["line"] = lines[-1] if lines else None
    with open(verdict_file, "w", encoding="utf-8") as file:
        json.dump(verdict, file)


def check_contract(module, contract: dict[str, list[str]]) -> None:
    """AttributeError or TypeError that names the first thing the model lacks."""
    for number, names in contract.items():
        for name in names:
            owner, _, method = name.partition(".")
            found = getattr(module, owner, None)
            if not isinstance(found, type):
                raise TypeError(f"problem {number} must provide a class {owner}, got {found!r}")
            if method and not callable(getattr(found, method, None)):
                raise AttributeError(f"problem {number} must provide the method {name}")


def run(module, torch, cache_class) -> None:
    """One forward pass, and the same tokens with a cache: all but the last, then the last."""
    config = module.GPT2Config(
        vocab_size=11, n_positions=7, n_embd=6, n_layer=2, n_head=2, resid_pdrop=0.0
    )
    model = module.GPT2Model(config).eval()
    ids = torch.arange(10).view(2, 5)
    with torch.no_grad():
        expect(model(ids), (2, 5, 11), "the logits of (2, 5) ids")
        cache = cache_class(config, batch_size=2)
        expect(model(ids[:, :4], cache), (2, 4, 11), "the logits of (2, 4) ids with a cache")
        expect(model(ids[:, 4:], cache), (2, 1, 11), "the logits of the next id with a cache")
        expect(model(ids, last_only=True), (2, 1, 11), "the logits with last_only")


def expect(tensor, shape: tuple[int, ...], what: str) -> None:
    """ValueError for another shape."""
    found = tuple(getattr(tensor, "shape", ())) or type(tensor).__name__
    if found != shape:
        raise ValueError(f"{what} must have shape {shape}, got {found}")


if __name__ == "__main__":
    main(*sys.argv[1:])
