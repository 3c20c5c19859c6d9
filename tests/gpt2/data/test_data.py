"""Shards, loader and preparation: what is read is what was written, each token in one split."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpt2.data.preparing import Piece, cut_pieces, encode_piece, open_source, prepare
from gpt2.data.shards import BatchLoader, TokenSource, read_index, token_dtype
from gpt2.formats.opening import load_tokenizer
from gpt2.text.tokenizer_training import train_bpe, train_char
from gpt2.training.settings import TrainConfig
from gpt2.training.trainer import train

WORDS = "naïve 日本 to be, or not\nto be:  that is\n\nthe question 12 34 don't\tstop 🙂".split(" ")  # noqa: SIM905

PREPARE = [sys.executable, "-m", "gpt2", "prepare"]


def some_text(characters: int = 9000, seed: int = 3) -> str:
    """Words of several scripts and all sorts of white space."""
    chosen = random.Random(seed)
    text = ""
    while len(text) < characters:
        text += chosen.choice(WORDS) + chosen.choice([" ", "\n", "\n\n", "  ", " \n"])
    return text


@pytest.fixture
def prepared(tmp_path: Path):
    """A char-level folder of several shards, with the text it was made of."""
    text = some_text()
    (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="\n")
    index = prepare(
        str(tmp_path / "a.txt"),
        tmp_path / "data",
        tokenizer="char",
        shard_tokens=700,
        piece_bytes=512,
    )
    return index, text


def whole(index, split: str) -> list[int]:
    """All tokens of a split."""
    source = TokenSource(index, split)
    return source.read(0, source.tokens).tolist()


def test_shards_hold_the_text_and_the_splits_are_its_two_parts(prepared) -> None:
    """Catches a piece lost, doubled or out of order, and text that stands in both splits."""
    index, text = prepared
    tokenizer = load_tokenizer(index.folder)
    train, val = (tokenizer.decode(whole(index, split)) for split in ("train", "val"))
    assert train + val == text
    assert len(index.split("train").shards) > 3
    size = len(text.encode())
    assert 0 <= len(train.encode()) - int(size * 0.9) < 4  # the next whole character
    assert index.split("val").bytes == len(val.encode())
    assert index.source["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_a_split_of_one_file_is_nanogpts_for_tiny_shakespeare(tmp_path: Path) -> None:
    """Catches a boundary that is off by one: the last tenth, rounded as int(0.9 · n) rounds."""
    text = "".join(chr(97 + i % 26) for i in range(1013))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    index = prepare(str(tmp_path / "a.txt"), tmp_path / "d", tokenizer="char")
    assert index.split("train").tokens == int(0.9 * 1013)


def test_bpe_in_pieces_is_bpe_of_the_whole(tmp_path: Path) -> None:
    """Catches cuts that change the tokens: pieces of 64 bytes against one encode."""
    text = some_text(5000).replace("🙂", "ok")
    text = "\n".join(line for line in text.split("\n"))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="\n")
    source = open_source(str(tmp_path / "a.txt"))
    tokenizer = train_bpe([text], 400)
    ids: list[int] = []
    count = 0
    for piece in cut_pieces(source, 0.0, piece_bytes=256):
        ids += encode_piece(tokenizer, piece).tolist()
        count += 1
    assert count > 10
    assert ids == [*tokenizer.encode(text), tokenizer.eos_token_id]


def test_several_documents_end_with_the_end_of_text(tmp_path: Path) -> None:
    """Catches documents run into one another, and a copy that would stand in both splits."""
    for name, text in (("b", "second text"), ("a", "first"), ("c", "first")):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    index = prepare(str(tmp_path), tmp_path / "d", vocab_size=260, val_fraction=0.0)
    tokenizer = load_tokenizer(index.folder)
    assert tokenizer.decode(whole(index, "train")) == ("first<|endoftext|>second text<|endoftext|>")
    assert index.source["copies_left_out"] == 1


def test_the_default_source_needs_no_network(tmp_path: Path) -> None:
    """Catches a default that is not the language reference of this Python."""
    index = prepare(out=tmp_path / "d", vocab_size=300)
    text = load_tokenizer(index.folder).decode(whole(index, "train")[:2000])
    assert "assert" in text
    assert index.dtype == "uint16"


def test_workers_change_nothing(tmp_path: Path) -> None:
    """Catches pieces written in the order in which workers finish."""
    (tmp_path / "a.txt").write_text(some_text(4000), encoding="utf-8", newline="\n")
    folders = []
    for workers in (1, 2):
        folders.append(tmp_path / f"d{workers}")
        prepare(
            str(tmp_path / "a.txt"),
            folders[-1],
            vocab_size=300,
            workers=workers,
            piece_bytes=256,
            shard_tokens=500,
        )
    one, two = ({p.name: p.read_bytes() for p in f.glob("*.npy")} for f in folders)
    assert len(one) > 2
    assert one == two


def test_killed_at_any_moment_it_goes_on_to_the_same_shards(tmp_path: Path) -> None:
    """Catches progress that claims more than is on the disk, or forgets what is.

    The moments are counted, not timed: each piece encoded, each file synced or renamed is one.
    """
    (tmp_path / "a.txt").write_text(some_text(60_000), encoding="utf-8", newline="\n")
    program = """if True:
        import os, sys, time, gpt2.data.preparing as p
        def told(function):
            def wrapped(*args, **kwargs):
                print("before", flush=True)
                result = function(*args, **kwargs)
                print("after", flush=True)
                return result
            return wrapped
        p.encode_piece, os.fsync, os.replace = map(told, (p.encode_piece, os.fsync, os.replace))
        times = iter(range(10**9))
        time.monotonic = lambda: 3.0 * next(times)   # saves progress after each piece
        p.prepare(sys.argv[1], sys.argv[2], tokenizer="char", shard_tokens=6000, piece_bytes=1024)
        print("done", flush=True)
    """
    arguments = [sys.executable, "-c", program, str(tmp_path / "a.txt"), str(tmp_path / "d")]
    chosen, kills, said = random.Random(5), 0, ""
    while said != "done\n":
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(chosen.randint(1, 150)):
            said = process.stdout.readline()
            if said in ("", "done\n"):
                break
        else:
            time.sleep(chosen.uniform(0, 0.002))
            process.kill()
            kills += 1
        assert said, "it failed"
        said = "done\n" if "done\n" in process.stdout.readlines() else said
        process.wait()
        assert kills < 100, "it does not come to its end"
    assert kills > 4
    expected = prepare(
        str(tmp_path / "a.txt"),
        tmp_path / "e",
        tokenizer="char",
        shard_tokens=6000,
        piece_bytes=1024,
    )
    for path in expected.folder.glob("*.npy"):
        assert (tmp_path / "d" / path.name).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "d").glob("*.part"))


def test_prepared_again_nothing_is_done_and_other_settings_are_refused(prepared) -> None:
    """Catches a second run that mixes another tokenizer's ids into the folder."""
    index, _ = prepared
    stamp = (index.folder / "train-00000.npy").stat().st_mtime_ns
    source = str(index.folder.parent / "a.txt")
    prepare(source, index.folder, tokenizer="char", shard_tokens=700, piece_bytes=512)
    assert (index.folder / "train-00000.npy").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="already holds"):
        prepare(source, index.folder, vocab_size=300)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), "train-00001.npy"),
        (lambda path: np.save(path, np.zeros(700, np.uint32)), "train-00001.npy"),
        (lambda path: np.save(path, np.zeros(699, np.uint16)), "train-00001.npy"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(1400)), "train-00001.npy"),
        (lambda path: path.unlink(), "train-00001.npy"),
    ],
    ids=["truncated", "other dtype", "other length", "foreign", "missing"],
)
def test_a_wrong_shard_is_named(prepared, what, message: str) -> None:
    """Catches training on half a shard, or on somebody else's."""
    index, _ = prepared
    what(index.folder / "train-00001.npy")
    with pytest.raises(ValueError, match=message):
        TokenSource(index, "train")


def test_an_id_past_the_vocabulary_is_named(prepared) -> None:
    """Catches a shard of another vocabulary with the right length."""
    index, _ = prepared
    path = index.folder / "train-00000.npy"
    tokens = np.load(path)
    tokens[5] = index.vocab_size
    np.save(path, tokens)
    with pytest.raises(ValueError, match=r"train-00000.npy holds the id"):
        TokenSource(index, "train").read(0, 10)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw | {"format": "other"},
        lambda raw: raw | {"splits": None},
        lambda raw: raw | {"dtype": "uint32"},
        lambda raw: raw | {"vocab_size": -1},
        lambda raw: [],
        lambda raw: json.loads(json.dumps(raw).replace("train-00000.npy", "../train-00000.npy")),
    ],
)
def test_a_damaged_index_is_refused(prepared, spoil) -> None:
    """Catches an index that is believed although it cannot be right, or leaves its folder."""
    index, _ = prepared
    path = index.folder / "index.json"
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=r"index\.json"):
        read_index(index.folder)


def test_targets_are_the_inputs_one_later(prepared) -> None:
    """Catches a shift by none or by two."""
    index, _ = prepared
    tokens = np.array(whole(index, "train"))
    loader = BatchLoader(TokenSource(index, "train"), 3, 11, seed=4)
    for _ in range(20):
        x, y = loader.next()
        assert x.shape == y.shape == (3, 11)
        assert (x[:, 1:] == y[:, :-1]).all()
        for row, target in zip(x.numpy(), y.numpy(), strict=True):
            starts = [
                s for s in range(len(tokens) - 11) if (tokens[s : s + 11] == row).all()
            ]  # windows cross shards too
            assert any(tokens[s + 11] == target[-1] for s in starts)


def test_a_sequential_pass_reads_each_window_once(prepared) -> None:
    """Catches windows left out or read twice within an epoch."""
    index, _ = prepared
    source = TokenSource(index, "train")
    loader = BatchLoader(source, 1, 50, order="sequential")
    count = (source.tokens - 1) // 50
    rows = np.concatenate([loader.next()[0][0].numpy() for _ in range(count)])
    assert rows.tolist() == whole(index, "train")[: count * 50]
    assert loader.next()[0][0].tolist() == rows[:50].tolist()


def test_random_windows_reach_everywhere_evenly(prepared) -> None:
    """Catches starts that favor a part of the text, and seeds that make no difference."""
    index, _ = prepared
    source = TokenSource(index, "train")
    starts = BatchLoader(source, 1, 20, seed=1).starts(np.arange(200_000))
    assert starts.min() == 0
    assert starts.max() == source.tokens - 21
    counts = np.histogram(starts, 10, (0, source.tokens - 20))[0]
    assert abs(counts - 20_000).max() < 670  # 5 standard deviations
    other = BatchLoader(source, 1, 20, seed=2).starts(np.arange(200_000))
    assert (starts == other).mean() < 0.01


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_what_one_process_reads(prepared, world_size: int) -> None:
    """Catches ranks that read the same sequences, or others than one process would."""
    index, _ = prepared
    source = TokenSource(index, "train")
    alone = BatchLoader(source, 6, 9, seed=7)
    ranks = [
        BatchLoader(source, 6 // world_size, 9, seed=7, rank=r, world_size=world_size)
        for r in range(world_size)
    ]
    for _ in range(5):
        together = np.concatenate([loader.next()[0].numpy() for loader in ranks])
        assert (alone.next()[0].numpy() == together).all()


def test_the_position_is_a_number_that_any_number_of_ranks_goes_on_from(prepared) -> None:
    """Catches a resumed loader that repeats or leaves out sequences."""
    index, _ = prepared
    source = TokenSource(index, "train")
    loader = BatchLoader(source, 6, 9, seed=7)
    for _ in range(3):
        loader.next()
    state = json.loads(json.dumps(loader.state()))
    expected = loader.next()[0].numpy()
    ranks = [BatchLoader(source, 2, 9, seed=7, rank=r, world_size=3) for r in range(3)]
    for rank in ranks:
        rank.load_state(state)
    assert (np.concatenate([rank.next()[0].numpy() for rank in ranks]) == expected).all()
    with pytest.raises(ValueError, match="seed was 7 and is 8"):
        BatchLoader(source, 6, 9, seed=8).load_state(state)


def test_a_char_tokenizer_names_what_it_does_not_know() -> None:
    """Catches characters dropped in silence."""
    tokenizer = train_char(["abc", "cab"])
    assert tokenizer.encode("cab") == [2, 0, 1]
    with pytest.raises(ValueError, match="é"):
        tokenizer.encode("cé")


def test_a_bpe_tokenizer_encodes_any_text_and_transformers_reads_it(tmp_path: Path) -> None:
    """Catches a tokenizer.json that only we understand, and bytes without a token."""
    from transformers import AutoTokenizer

    tokenizer = train_bpe([some_text()], 350)
    assert tokenizer.vocab_size <= 350
    assert tokenizer.eos_token_id == tokenizer.vocab_size - 1
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "Ωmega \x00 to be 🙂, don't"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert len(tokenizer.encode(some_text())) < len(some_text().encode()) / 1.5


def test_sizes_and_sources_that_cannot_be(tmp_path: Path) -> None:
    """Catches bad input that ends in a traceback."""
    assert token_dtype(65536) == "uint16"
    assert token_dtype(65537) == "uint32"
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        prepare(str(tmp_path / "none"), tmp_path / "d")
    (tmp_path / "bad.txt").write_bytes(b"abc \xff\xfe" * 10)
    with pytest.raises(ValueError, match="UTF-8"):
        prepare(str(tmp_path / "bad.txt"), tmp_path / "d2", vocab_size=260)
    with pytest.raises(ValueError, match="vocab_size = 9"):
        train_bpe(["abc"], 9)
    with pytest.raises(ValueError, match="not a folder of prepared data"):
        read_index(tmp_path)


def test_one_process_at_a_time_writes_a_folder(tmp_path: Path) -> None:
    """Catches two preparations or runs that write each other's files; and a lock that outlives a
    killed process.
    """
    (tmp_path / "a.txt").write_text(some_text(500), encoding="utf-8")
    holder = "import sys, time; from gpt2.common.folder_lock import only_one\n"
    holder += "with only_one(sys.argv[1]):\n    print('held', flush=True); time.sleep(60)"
    line = [sys.executable, "-c", holder, str(tmp_path / "d")]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process"):
            prepare(str(tmp_path / "a.txt"), tmp_path / "d", tokenizer="char")
        with pytest.raises(ValueError, match="another process"):
            train(TrainConfig(data=str(tmp_path / "none")), tmp_path / "d")
    finally:
        process.kill()
        process.wait()
    prepare(str(tmp_path / "a.txt"), tmp_path / "d", tokenizer="char")
    assert not (tmp_path / "d" / ".lock").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no open file")
def test_a_lock_file_that_was_deleted_meanwhile_is_not_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches two processes in one folder: the second one opened the first one's lock file, which
    was deleted before it was locked, while a third one made and locked a new file of that name.
    """
    import fcntl

    from gpt2.common.folder_lock import LOCK_NAME, only_one

    path, real, holder = tmp_path / LOCK_NAME, fcntl.flock, []

    def flock(file: object, operation: int) -> None:
        if not holder:
            path.unlink()
            holder.append(path.open("ab"))
            real(holder[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ValueError, match="another process"), only_one(tmp_path):
        pass
    holder[0].close()
    with only_one(tmp_path):
        assert path.exists()
    assert not path.exists()


def test_a_folder_of_which_nothing_came_is_gone_again(tmp_path: Path) -> None:
    """Catches an empty folder left behind by a failure, and one deleted that held something."""
    from gpt2.common.folder_lock import only_one

    with pytest.raises(RuntimeError), only_one(tmp_path / "new"):
        raise RuntimeError
    assert not (tmp_path / "new").exists()
    with only_one(tmp_path / "used"):
        (tmp_path / "used" / "a").touch()
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["a"]


def test_a_source_that_changed_meanwhile_is_refused(tmp_path: Path, monkeypatch) -> None:
    """Catches shards whose beginning and end come from two versions of a text."""
    path = tmp_path / "a.txt"
    path.write_text(some_text(4000), encoding="utf-8")

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gpt2.data.preparing.encode_piece", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(str(path), tmp_path / "d", tokenizer="char", piece_bytes=512)
    path.write_text(some_text(4100), encoding="utf-8")
    with pytest.raises(ValueError, match="bytes when"):
        prepare(str(path), tmp_path / "d", tokenizer="char", piece_bytes=512)


def test_a_vocabulary_past_65536_takes_wider_tokens(tmp_path: Path) -> None:
    """Catches ids cut off at 16 bits."""
    text = "".join(chr(code) for code in range(0x10000, 0x10000 + 66_000))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    index = prepare(str(tmp_path / "a.txt"), tmp_path / "d", tokenizer="char", val_fraction=0.0)
    assert (index.dtype, index.vocab_size) == ("uint32", 66_000)
    assert whole(index, "train") == list(range(66_000))


def test_the_last_characters_bytes_stay_together() -> None:
    """Catches a piece that ends within a character, where there is no line to cut at."""
    import io

    from gpt2.data.preparing import _read_cuts

    data = ("é日🙂" * 400).encode()
    parts = list(_read_cuts(io.BytesIO(data), None, 101, None))
    assert len(parts) > 20
    assert "".join(part.decode() for part, _ in parts) == data.decode()
    assert [end for _, end in parts] == [False] * (len(parts) - 1) + [True]
    assert Piece("train", parts, "x").size == len(data)


def memory_of_family(pid: int) -> int:
    """Bytes that a process and its descendants take, shared pages counted once (Linux)."""
    family = [pid]
    for member in family:
        try:
            children = Path(f"/proc/{member}/task/{member}/children").read_text()
            family += map(int, children.split())
        except OSError:
            pass  # it has ended
    total = 0
    for member in family:
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except OSError:
            pass
    return total


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GPT2_SOAK"), reason="takes minutes: GPT2_SOAK=1")
def test_a_gigabyte_takes_less_than_500_megabytes_of_memory(tmp_path: Path) -> None:
    """Catches text or tokens that pile up, and workers that load what they don't need: 1 GB, with
    as many workers as the command starts by itself."""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("Linux alone says how much memory is shared")
    block = "".join(some_text(3000, seed) for seed in range(300)).encode()
    with (tmp_path / "big.txt").open("wb") as file:
        for _ in range(-(-1_000_000_000 // len(block))):
            file.write(block)
    for tokenizer in ("bpe", "char"):
        out, peak, began = tmp_path / tokenizer, 0, time.monotonic()
        process = subprocess.Popen(
            [*PREPARE, str(tmp_path / "big.txt"), "--out", str(out), "--tokenizer", tokenizer],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        while process.poll() is None:
            peak = max(peak, memory_of_family(process.pid))
            time.sleep(0.1)
        seconds = time.monotonic() - began
        print(f"{tokenizer}: peak {peak / 1e6:.0f} MB, {seconds:.0f} s, {os.cpu_count()} cores")
        assert process.returncode == 0
        assert 20e6 < peak < 500e6
    (tmp_path / "big.txt").unlink()


def test_interrupted_by_the_user_it_says_so(tmp_path: Path) -> None:
    """Catches a traceback, or lost work, after Ctrl-C."""
    if os.name == "nt":
        pytest.skip("Windows sends no SIGINT to a single process")
    (tmp_path / "a.txt").write_text(some_text(3_000_000), encoding="utf-8")
    process = subprocess.Popen(
        [*PREPARE, str(tmp_path / "a.txt"), "--out", str(tmp_path / "d"), "--tokenizer", "char"],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "d" / "tokenizer.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was faster than the signal")
    assert "Traceback" not in errors
    assert (tmp_path / "d" / "progress.json").exists()
