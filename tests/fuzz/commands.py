"""Command lines of `gpt2`, in this process, and a few as processes.

What is right: exit code 0, or 1 or 2 with something said; no traceback; nothing written but in the
current folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fuzz.mutate import STRINGS, Mutator
from tests.fuzz.targets import Settings, State, Target, model_folder

SMALL_RUN = """
    --data data --max-steps 2 --n-layer 1 --n-embd 6 --n-head 1 --context 8 --batch-size 1
    --device cpu --threads 1 --sample-tokens 2 --eval-tokens 20 --out new-run
"""
WORDS = (
    *(text for text in STRINGS if "canary" not in text),
    "--",
    "-",
    "-h",
    "--version",
    "gpt2",
    "١",
    "1e3",
    "1e400",
    "-0",
    "9" * 5000,
    "3.0",
)
FLAGS = {
    "generate": {
        "--prompt": ("abc", "", "日é", "abcde" * 3),
        "--max-new-tokens": ("0", "3", "9"),
        "--temperature": ("0", "0.8", "1e-9", "100"),
        "--top-k": ("1", "5", "100000000000"),
        "--top-p": ("0.5", "1", "1e-300"),
        "--repetition-penalty": ("1", "1.5", "1e6"),
        "--num-samples": ("1", "2"),
        "--seed": ("0", "7", "9223372036854775807"),
        "--dtype": ("float32", "float16", "bfloat16"),
        "--quantize": ("int8", "int4"),
        "--device": ("cpu", "cuda", "mps"),
        "--no-cache": None,
        "--sliding": None,
    },
    "eval": {
        "--data": ("data", "run", "model", "nothing"),
        "--split": ("val", "train", "test"),
        "--context": ("1", "5", "14", "15"),
        "--stride": ("1", "3", "99"),
        "--max-tokens": ("1", "40", "100000000000000000000"),
        "--hellaswag": ("hellaswag.jsonl", "model", "nothing"),
        "--batch-size": ("1", "7"),
    },
    "validate": {
        "--oracle": ("stored",),
        "--dtype": ("float32", "bfloat16"),
        "--json": None,
    },
    "prepare": {
        "--out": ("new", "data", "model", "text.txt", "text.txt/x"),
        "--tokenizer": ("char", "bpe", "model", "data", "text.txt"),
        "--vocab-size": ("257", "300", "1"),
        "--val-fraction": ("0", "0.5", "0.9", "nan"),
        "--workers": ("1",),
        "--shard-tokens": ("1", "50", "1000000000000000"),
        "--limit": ("1",),
    },
    "train": {
        "--data": ("data", "nothing", "model"),
        "--out": ("new-run", "run", "text.txt"),
        "--config": ("run.toml", "nothing.toml", "model"),
        "--preset": ("tiny", "no-such"),
        "--resume": ("run", "model", "nothing"),
        "--n-layer": ("1", "2"),
        "--n-embd": ("4", "8", "7"),
        "--n-head": ("1", "2", "3"),
        "--context": ("4", "8", "1000"),
        "--batch-size": ("1", "2"),
        "--lr": ("1e-3", "1e30"),
        "--total-batch-tokens": ("8", "16", "17"),
        "--warmup-steps": ("0", "5"),
        "--beta1": ("0", "1"),
        "--precision": ("float32", "bfloat16"),
        "--init-from": ("model", "run", "nothing"),
        "--sample-prompt": ("the", "日", ""),
    },
    "plot": {"--out": ("curves.png", "no/such/x.png"), "--text-only": None},
    "attention": {"--out": ("page.html", "x.txt", "no/such/page.html"), "--device": ("cpu",)},
    "export": {
        "--gguf": ("x.gguf", "model", "no/such/x.gguf"),
        "--type": ("f32", "f16", "q8_0", "q4_0"),
        "--out": ("exported", "model", "text.txt", "text.txt/x"),
        "--dtype": ("float32", "float16"),
        "--no-tokenizer": None,
    },
    "bench": {"--rounds": ("0", "x"), "--device": ("tpu",)},
}
# where text is written to is what the caller chose; it stays within the current folder here
WRITTEN = ("--out", "--gguf", "--json", "--resume", "--data")
PLACES = ("model", "model", "broken", "run", "nothing", "text.txt", "x.gguf", "a/b", "gpt2", "")


class Commands(Target):
    """`gpt2 COMMAND …` with arguments and files that are nearly right."""

    name = "commands"
    shallow = r"^(2|usage)"
    names_file = False

    def __init__(self, scratch: Path):
        scratch = scratch.resolve()
        self.base = scratch / "folder"
        self.base.mkdir()
        state = State(scratch)
        model_folder(self.base / "model")
        shutil.copytree(state.data, self.base / "data")
        shutil.copytree(scratch / "run", self.base / "run")
        shutil.copytree(self.base / "model", self.base / "broken")
        (self.base / "text.txt").write_text("the cat sat on the mat\n" * 9, encoding="utf-8")
        line = {"ctx": "abc", "endings": ["a", "b", "c", "d"], "label": 1}
        (self.base / "hellaswag.jsonl").write_text(json.dumps(line), encoding="utf-8")
        (self.base / "run.toml").write_text("n_embd = 6\nmax_steps = 2\n", encoding="utf-8")
        self.config = json.loads((self.base / "model" / "config.json").read_text(encoding="utf-8"))
        self.settings = Settings(scratch)

    def make(self, m: Mutator, folder: Path) -> list[str]:
        rng = m.rng
        shutil.copytree(self.base, folder, dirs_exist_ok=True)
        for path in (folder / "run").rglob("training.json"):
            state = json.loads(path.read_text(encoding="utf-8"))
            state["config"]["data"] = "data"
            if rng.random() < 0.3:
                state = m.tree(state)
            path.write_bytes(m.json(state) if rng.random() < 0.3 else json.dumps(state).encode())
        files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]
        for path in rng.sample(files, rng.choice((0, 0, 0, 1, 1, 3))):
            path.write_bytes(m.bytes(path.read_bytes()))
        if rng.random() < 0.5:
            (folder / "broken" / "config.json").write_bytes(m.json(m.tree(self.config)))
        else:
            self._break(m, folder / "broken")
        if rng.random() < 0.3:
            self.settings.make(m, folder)
        if rng.random() < 0.2:
            (folder / "prompt").write_bytes(m.any_text().encode("utf-8", "surrogatepass"))
        return self.arguments(m)

    def _break(self, m: Mutator, folder: Path) -> None:
        path = m.rng.choice(sorted(folder.iterdir()))
        path.write_bytes(m.bytes(path.read_bytes()))

    def arguments(self, m: Mutator) -> list[str]:
        rng = m.rng
        command = rng.choice(("generate", "generate", *FLAGS))
        found = [command]
        place = rng.choice(PLACES) if rng.random() < 0.9 else rng.choice(WORDS)
        if command == "generate":
            found += ["--model", place]
        elif command == "attention":
            found += [place, rng.choice(("abc", "", m.any_text(9)))]
        elif command in ("eval", "validate", "export"):
            found += [place]
        elif command == "plot":
            found += [rng.choice(("run", "run/log.jsonl", "model", "nothing"))]
        elif command == "prepare":
            found += [rng.choice(("text.txt", "model", "text.txt,text.txt", "nothing", "", ","))]
            found += ["--out", "new", "--tokenizer", "char", "--workers", "1"]
        elif command == "train":
            found += SMALL_RUN.split()
        elif command == "bench":
            found += ["--rounds", "0"]
        flags = FLAGS[command]
        for flag in rng.sample(list(flags), min(len(flags), rng.randrange(4))):
            values = flags[flag]
            found.append(flag)
            if values is not None:
                hostile = rng.random() < 0.25 and flag not in WRITTEN
                value = rng.choice(WORDS) if hostile else rng.choice(values)
                if flag == "--prompt" and rng.random() < 0.5:
                    value = m.any_text()
                if flag in ("--num-samples", "--max-new-tokens") and hostile:
                    value = rng.choice(("-1", "x", "1e3", "", "9" * 5000, "١", "0"))
                found.append(value)
        if rng.random() < 0.05:
            found.insert(rng.randrange(1, len(found) + 1), rng.choice(WORDS))
        if command == "train" and "--resume" in found:
            found = [command, "--resume", found[found.index("--resume") + 1]]
            found += ["--max-steps", "5"]  # however many a hostile run asks for
        # what no command line of the system can carry
        return [word.replace("\0", "") for word in found]

    def check(self, given: list[str], folder: Path) -> None:
        from click.testing import CliRunner

        from gpt2.cli import cli, run

        before = os.getcwd()
        os.chdir(folder)
        text = (folder / "prompt").read_bytes() if (folder / "prompt").exists() else b""
        try:
            with CliRunner().isolation(input=text) as streams:
                code = run(cli, "gpt2", given)
                sys.stdout.flush()
                said = streams[1].getvalue().decode("utf-8", "replace")
        finally:
            os.chdir(before)
        judge(given, code, said)


def judge(given: list[str], code: int, said: str) -> None:
    """ValueError for a command that refused as it should; AssertionError for one that did not."""
    assert "Traceback" not in said, said
    # progress bars end in a line of their own
    lines = [line for line in said.splitlines() if line.startswith(("gpt2: ", "Error: "))]
    if code == 0:
        return
    if given and given[0] == "validate" and code == 1 and not lines:
        raise ValueError("1: validation failed")
    assert code in (1, 2), code
    assert len(lines) == 1, f"exit code {code}, said: {said[-500:]!r}"
    assert len(lines[0]) < 2000, f"a line of {len(lines[0])} characters"
    odd = [c for c in lines[0] if not c.isprintable()]
    assert not odd, f"control characters in a message: {odd[:3]} {lines[0][:300]!r}"
    raise ValueError(f"{'usage' if code == 2 else code}: {lines[0]}")


class Processes(Commands):
    """The same as processes of their own."""

    name = "processes"
    most = 24  # each takes seconds

    def check(self, given: list[str], folder: Path) -> None:
        text = (folder / "prompt").read_bytes() if (folder / "prompt").exists() else b""
        # a process takes no lone surrogates but those that stand for bytes
        given = [os.fsdecode(word.encode("utf-8", "surrogatepass")) for word in given]
        done = subprocess.run(
            [sys.executable, "-m", "gpt2", *given],
            input=text,
            capture_output=True,
            cwd=folder,
            timeout=120,
            check=False,
        )
        judge(given, done.returncode, done.stderr.decode("utf-8", "replace"))
