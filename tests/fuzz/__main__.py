"""`make fuzz`: every target, many cases, two processes; totals as a table, failures in files.

Run from the root: python -m tests.fuzz [TARGET …] [--cases N] [--seed S] [--workers W]
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 250
SILENCE = 180  # seconds without an answer after which a worker is stopped


class Worker:
    """A process that tries cases; one that dies is replaced, and the case it died of is kept."""

    def __init__(self, scratch: Path):
        self.scratch = scratch
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        env = dict(os.environ)
        env |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        env |= {"RUST_BACKTRACE": "0"}
        env |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONDONTWRITEBYTECODE": "1"}
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        env.setdefault("FUZZ_TIKTOKEN", _tiktoken())
        self.errors = self.scratch / "stderr.txt"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz", "--worker", str(self.scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w", encoding="utf-8"),
            cwd=ROOT,
            env=env,
            text=True,
            encoding="utf-8",
        )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, self.lines), daemon=True).start()

    @staticmethod
    def _read(process: subprocess.Popen, lines: queue.Queue[str]) -> None:
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    def run(self, task: dict[str, Any], report: Any) -> None:
        """All cases of a task, whatever becomes of the process."""
        first = task["first"]
        while first < task["last"]:
            if self.process is None or self.process.poll() is not None:
                self.start()
            self.process.stdin.write(json.dumps(task | {"first": first}) + "\n")
            self.process.stdin.flush()
            while True:
                try:
                    line = self.lines.get(timeout=SILENCE)
                except queue.Empty:
                    self.stop()
                    line, why = "", f"no answer for {SILENCE} s"
                else:
                    why = "the process died"
                if not line:
                    code = self.process.wait()
                    said = self.errors.read_text(encoding="utf-8", errors="replace")[-1500:]
                    message = f"{why} (exit code {code})"
                    report(
                        {"target": task["target"], "number": first, "verdict": "failed"}
                        | {"deep": True, "place": "", "message": message, "trace": said}
                    )
                    first += 1
                    break
                answer = json.loads(line)
                if answer.get("done"):
                    return
                if "broken" in answer:
                    self.process = None
                    raise RuntimeError(f"{task['target']} cannot be made:\n{answer['broken']}")
                first = answer["number"] + 1
                report(answer)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()


def _tiktoken() -> str:
    """The folder with GPT-2's own vocabulary, if it is at hand: nothing is downloaded."""
    for place in (os.environ.get("TIKTOKEN_CACHE_DIR"), ROOT.parent / "shared/data/tiktoken"):
        if place and (Path(place) / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee").is_file():
            return str(place)
    return ""


class Totals:
    """What came of the cases; failures are saved as they come, each kind a few times."""

    KEEP = 3

    def __init__(self, folder: Path, seed: int, bar: Any):
        self.folder, self.seed, self.bar = folder, seed, bar
        self.counts: dict[str, Counter] = defaultdict(Counter)
        self.places: dict[str, set[str]] = defaultdict(set)
        self.failures: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self.broken: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, answer: dict[str, Any]) -> None:
        with self.lock:
            name = answer["target"]
            self.counts[name][answer["verdict"]] += 1
            self.counts[name]["deep"] += answer["deep"]
            if answer["verdict"] == "refused":
                self.places[name].add(answer["place"])
            elif answer["verdict"] == "failed":
                kind = (name, answer["place"] + " " + answer["message"][:40])
                self.failures[kind].append(answer)
                if len(self.failures[kind]) <= self.KEEP:
                    self._save(answer)
            self.bar.update(1)

    def _save(self, answer: dict[str, Any]) -> None:
        folder = (
            self.folder / f"{answer['target'].replace('/', '-')}-{self.seed}-{answer['number']}"
        )
        folder.mkdir(parents=True, exist_ok=True)
        text = f"{answer['message']}\n\n{answer.get('trace', '')}\n"
        text += f"\nagain: {repeat(answer, self.seed)}\n"
        (folder / "failure.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
        write_input(answer["target"], self.seed, answer["number"], folder)

    def table(self) -> str:
        head = ("parser", "cases", "accepted", "refused", "at places", "deep", "failed")
        rows = [head]
        for name, count in self.counts.items():
            cases = count["accepted"] + count["refused"] + count["failed"]
            deep = f"{100 * count['deep'] / cases:.0f} %"
            figures = (cases, count["accepted"], count["refused"], len(self.places[name]))
            rows.append((name, *(f"{n:,}" for n in figures), deep, f"{count['failed']:,}"))
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def repeat(answer: dict[str, Any], seed: int) -> str:
    return f"python -m tests.fuzz {answer['target']!r} --seed {seed} --case {answer['number']}"


def write_input(name: str, seed: int, number: int, folder: Path) -> None:
    """A case's input once more: its files, and its arguments in `arguments.txt`.

    In a process of its own, because making valid inputs may take torch.
    """
    code = (
        "import sys; from pathlib import Path; from tests.fuzz import all_targets;"
        "from tests.fuzz.harness import generator; from tests.fuzz.mutate import Mutator;"
        "import tempfile; name, seed, number, folder = sys.argv[1:];"
        "target = all_targets()[name](Path(tempfile.mkdtemp(dir=sys.argv[4])));"
        "out = Path(folder) / 'input'; out.mkdir(exist_ok=True);"
        "given = target.make(Mutator(generator(int(seed), name, int(number))), out);"
        "Path(folder, 'arguments.txt').write_text(ascii(given), encoding='utf-8')"
    )
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            [sys.executable, "-c", code, name, str(seed), str(number), str(folder)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": scratch},
            capture_output=True,
            timeout=120,
            check=False,
        )


def one_case(name: str, seed: int, number: int) -> int:
    """Try one case in this process, and say what came of it."""
    from tests.fuzz import all_targets, harness

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "valid").mkdir()
        target = all_targets()[name](scratch / "valid")
        result = harness.try_case(target, seed, number, scratch, harness.Watch(scratch))
    print("\n".join(f"{key}: {value}" for key, value in result.items()))
    return int(result["verdict"] == "failed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--cases", type=int, default=10_000, help="per target (default 10,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--case", type=int, help="this one alone, in this process")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="for failures")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        from tests.fuzz import harness

        harness.work(options.worker)
        return 0
    from tests.fuzz import all_targets

    known = list(all_targets())
    names = options.targets or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no target {unknown[0]!r}; there are: {', '.join(known)}")
    if options.case is not None:
        return one_case(names[0], options.seed, options.case)

    from tqdm import tqdm

    tasks: queue.Queue[dict[str, Any]] = queue.Queue()
    count = 0
    for name in names:
        cases = min(options.cases, getattr(all_targets()[name], "most", options.cases))
        count += cases
        for first in range(0, cases, CHUNK):
            last = min(first + CHUNK, cases)
            tasks.put({"target": name, "first": first, "last": last, "seed": options.seed})
    bar = tqdm(total=count, unit="case", disable=None)
    totals = Totals(options.out, options.seed, bar)
    with tempfile.TemporaryDirectory() as scratch:
        workers = [Worker(Path(scratch) / f"worker-{i}") for i in range(options.workers)]

        def go(worker: Worker) -> None:
            while True:
                try:
                    task = tasks.get_nowait()
                except queue.Empty:
                    break
                bar.set_description(task["target"])
                try:
                    worker.run(task, totals)
                except RuntimeError as error:
                    totals.broken.append(str(error))
            worker.stop()

        threads = [threading.Thread(target=go, args=(worker,), daemon=True) for worker in workers]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            print("interrupted; so far:", file=sys.stderr)
        finally:
            for worker in workers:
                worker.stop()
            bar.close()
    print(f"seed {options.seed}\n{totals.table()}")
    for (name, _), found in totals.failures.items():
        print(f"\n{name}, {len(found)} times: {found[0]['message'][:300]}\n  {found[0]['place']}")
        print(f"  {repeat(found[0], options.seed)}")
    if totals.failures:
        print(f"\ninputs and tracebacks: {options.out}")
    print("".join(f"\n{reason}" for reason in dict.fromkeys(totals.broken)), end="")
    return int(bool(totals.failures or totals.broken))


if __name__ == "__main__":
    sys.exit(main())
