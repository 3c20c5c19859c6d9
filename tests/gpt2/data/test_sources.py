"""What `gpt2 prepare` reads of other people's folders and files, and what it says of the rest."""

from __future__ import annotations

import codecs
import json
import os
import random
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gpt2.cli import cli
from gpt2.data.preparing import prepare
from gpt2.data.shards import TokenSource
from gpt2.data.sources import PlainText, open_source
from gpt2.formats.opening import load_tokenizer

TEXT = "naïve 日本 🤖 to be\nor not\n\nto be"


def texts(name: str | Path) -> dict[str, str]:
    """A source → {the last part of each document's name: its text}."""
    found = {}
    for document in open_source(str(name)).documents():
        with document.open() as file:
            data = file.read()
        assert len(data) == document.size
        found[Path(document.name).name] = data.decode("utf-8")
    return found


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Files by name."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


# ---------------------------------------------------------------------------------- one file's text


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_every_editors_file_is_the_same_text(
    tmp_path: Path, mark: bytes, encoding: str, ends: str
) -> None:
    """Catches marks and carriage returns that become tokens, and UTF-16 that is refused."""
    (tmp_path / "a.txt").write_bytes(mark + TEXT.replace("\n", ends).encode(encoding))
    assert texts(tmp_path) == {"a.txt": TEXT}
    assert texts(tmp_path / "a.txt") == {"a.txt": TEXT}


def test_what_python_reads_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a line end or a character that is cut in two by a chunk: random texts in chunks of
    1 … 9 bytes against Python's own text files.
    """
    chosen = random.Random(7)
    path = tmp_path / "a.txt"
    for _ in range(300):
        text = "".join(chosen.choices("ab\r\n\r\n日🤖é ", k=chosen.randrange(1, 30)))
        mark, encoding = chosen.choice([(b"", "utf-8"), (codecs.BOM_UTF16_BE, "utf-16-be")])
        path.write_bytes(mark + text.encode(encoding))
        monkeypatch.setattr("gpt2.data.sources.CHUNK_BYTES", chosen.randrange(1, 10))
        with PlainText(path.open("rb"), "a.txt") as plain:
            found = plain.read().decode("utf-8")
        with path.open(encoding="utf-16" if mark else "utf-8", newline=None) as file:
            assert found == file.read()


def test_marks_between_joined_files_go_too(tmp_path: Path) -> None:
    """Catches U+FEFF in the middle, where `cat` has joined two files."""
    joined = codecs.BOM_UTF8 + b"one\r\n" + codecs.BOM_UTF8 + b"two\r\n"
    (tmp_path / "a.txt").write_bytes(joined)
    assert texts(tmp_path) == {"a.txt": "one\ntwo\n"}


def test_no_mark_and_no_carriage_return_becomes_a_token(tmp_path: Path) -> None:
    """Catches a vocabulary and shards that still have them, through the whole command; with pieces
    small enough that cuts fall everywhere.
    """
    text = TEXT * 30
    (tmp_path / "a.txt").write_bytes(codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode())
    (tmp_path / "b.txt").write_bytes((text + "x").encode("utf-16"))
    for tokenizer in ("char", "bpe"):
        index = prepare(
            str(tmp_path), tmp_path / f"{tokenizer}-out", tokenizer=tokenizer, piece_bytes=256
        )
        ours = load_tokenizer(index.folder)
        parts = [TokenSource(index, name) for name in ("train", "val")]
        found = "".join(ours.decode(part.read(0, part.tokens).tolist()) for part in parts)
        assert found.replace("<|endoftext|>", "") == text + text + "x"
        assert index.source["bytes"] == 2 * len(text.encode()) + 1
        if tokenizer == "char":
            assert index.vocab_size == len(set(text + "x"))


# ------------------------------------------------------------------------------------ which files


def test_a_folder_as_people_have_them(tmp_path: Path) -> None:
    """Catches hidden files, other people's packages and near-copies that get into a training set,
    and anything that is left out without a word.
    """
    folder = write(
        tmp_path / "corpus",
        {
            "a.txt": "alpha",
            "sub/b.md": "beta",
            "sub/deep/C.TXT": "gamma",
            ".ipynb_checkpoints/a-checkpoint.txt": "alphA",
            ".venv/lib/readme.txt": "venv",
            ".git/description.txt": "git",
            "._a.txt": b"\0\5\x16\7\0\2\0\0Mac OS X",
            ".DS_Store": b"\0\0\0\1Bud1",
            ".hidden.txt": "hidden",
            "__MACOSX/a.txt": "macosx",
            "node_modules/left-pad/README.md": "node",
            "env/pyvenv.cfg": "home = /usr",
            "env/lib/top_level.txt": "env",
            "notes.txt": b"",
            "copy.txt": codecs.BOM_UTF8 + b"alpha",
            "picture.png": b"\x89PNG\r\n",
            "table.json": "{}",
            "binary.txt": b"abc\0\1\2" * 9,
        },
    )
    (folder / "a.txt~").write_text("backup", encoding="utf-8")
    (folder / "#a.txt#").write_text("emacs", encoding="utf-8")
    (folder / "~$a.txt").write_bytes(b"office")
    assert sorted(texts(folder).values()) == ["alpha", "beta", "gamma"]
    result = CliRunner().invoke(
        cli,
        ["prepare", str(folder), "--out", str(tmp_path / "d"), "--tokenizer", "char"],
        catch_exceptions=False,
    )
    out = result.output.replace(str(folder) + os.sep, "")
    assert "reading 3 files, 14 bytes" in out
    read, left = out.split("Left out:")
    for name in ("a.txt", os.path.join("sub", "b.md"), os.path.join("sub", "deep", "C.TXT")):
        assert f"  {name}: " in read
    for name, why in (
        (f".ipynb_checkpoints{os.sep}", "hidden"),
        (f".venv{os.sep}", "hidden"),
        (f".git{os.sep}", "hidden"),
        ("._a.txt", "hidden"),
        (f"__MACOSX{os.sep}", "macOS"),
        (f"node_modules{os.sep}", "packages"),
        (f"env{os.sep}", "environment"),
        ("notes.txt", "empty"),
        ("copy.txt", "the same text as"),
        ("binary.txt", "NUL"),
        ("~$a.txt", "lock"),
        ("1 file that ends in .png", "itself to read it"),
        ("1 file that ends in .json", "itself to read it"),
        ("1 file that ends in .txt~", "itself to read it"),
    ):
        assert any(name in line and why in line for line in left.splitlines()), name
    rows = [json.loads(line) for line in (tmp_path / "d" / "files.jsonl").open()]
    assert [row["bytes"] for row in rows if "file" in row] == [5, 4, 5]
    assert len(rows) > 12


def test_a_hidden_folder_that_is_named_is_read(tmp_path: Path) -> None:
    """Catches a rule for what lies inside applied to what was asked for."""
    folder = write(tmp_path / ".notes", {"a.txt": "alpha", ".b.txt": "beta"})
    assert texts(folder) == {"a.txt": "alpha"}
    assert texts(folder / ".b.txt") == {".b.txt": "beta"}
    write(tmp_path, {"data.csv": "1,2"})
    assert texts(tmp_path / "data.csv") == {"data.csv": "1,2"}  # whatever its ending


@pytest.mark.skipif(os.name == "nt", reason="links need rights that few accounts have")
def test_links(tmp_path: Path) -> None:
    """Catches an endless walk, a text read twice, and links that are passed over in silence."""
    folder = write(tmp_path / "c", {"a.txt": "alpha", "sub/b.txt": "beta"})
    outside = write(tmp_path / "o", {"x.txt": "outside"})
    (folder / "loop").symlink_to(folder)
    (folder / "sub" / "up").symlink_to("..")
    (folder / "far").symlink_to(outside)
    (folder / "same.txt").symlink_to("a.txt")
    (folder / "other.txt").symlink_to(outside / "x.txt")
    (folder / "gone.txt").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.txt")
    os.link(folder / "sub" / "b.txt", folder / "hard.txt")
    source = open_source(str(folder))
    assert sorted(texts(folder).values()) == ["alpha", "beta", "outside"]
    reasons = {Path(item.name).name: item.reason for item in source.left_out}
    for name in ("loop", "up", "far"):
        assert "a link to a folder" in reasons[name]
    assert "nowhere" in reasons["gone.txt"]
    assert "regular" in reasons["pipe.txt"]
    assert texts(folder / "far") == {"x.txt": "outside"}  # named by itself


def test_the_folder_that_is_written_is_not_read(tmp_path: Path) -> None:
    """Catches a preparation that finds its own files, or another's, in the text."""
    folder = write(tmp_path / "c", {"a.txt": "alpha beta" * 9})
    first = prepare(str(folder), folder / "out", tokenizer="char")
    (folder / "out" / "notes.txt").write_text("mine", encoding="utf-8")
    second = prepare(str(folder), folder / "out2", tokenizer="char")
    assert first.source["sha256"] == second.source["sha256"]


def test_named_twice_is_read_once(tmp_path: Path) -> None:
    """Catches a text in both splits because its folder and itself were named."""
    folder = write(tmp_path, {"a.txt": "alpha", "b.txt": "beta"})
    assert list(texts(f"{folder},{folder / 'a.txt'},{folder}").values()) == ["alpha", "beta"]
    comma = write(tmp_path, {"x,y.txt": "comma"}) / "x,y.txt"
    assert texts(comma) == {"x,y.txt": "comma"}


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("caf\xe9 cr\xe8me".encode("latin-1"), "byte 0xe9 at position 3"),
        (b"x" * 70_000 + b"\xff", "byte 0xff at position 70000"),
        (b"abc\xe6\x97", "position 3"),
        (codecs.BOM_UTF16_LE + b"a\0b", "UTF-16-LE"),
        (codecs.BOM_UTF16_LE + b"\0\xd8a\0", "UTF-16-LE"),
    ],
)
def test_text_in_another_encoding_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    """Catches a traceback, a wrong position, and a file passed over in silence."""
    write(tmp_path, {"good.txt": "alpha", "bad.txt": content})
    for name in (tmp_path, tmp_path / "bad.txt"):
        with pytest.raises(ValueError, match=named) as error:
            open_source(str(name))
        assert "bad.txt" in str(error.value)
        assert "UTF-8" in str(error.value)


def test_all_wrong_files_are_counted(tmp_path: Path) -> None:
    """Catches one complaint per run for a folder of old files."""
    write(tmp_path, {f"f{i}.txt": b"\xff" for i in range(5)})
    with pytest.raises(ValueError, match=r"f0.*f1.*f2.*2 more"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"a\0b\0c\0d\0e\0f\0", "UTF-16"), (b"\x7fELF\2\1\1\0\0\0\0\0", "binary")],
)
def test_a_binary_file_that_is_named_is_refused(tmp_path: Path, content: bytes, named: str) -> None:
    """Catches NUL characters as training text."""
    write(tmp_path, {"a.txt": content})
    with pytest.raises(ValueError, match=named):
        open_source(str(tmp_path / "a.txt"))
    with pytest.raises(ValueError, match="no text in it"):
        open_source(str(tmp_path))


def test_nothing_to_read_says_what_was_there(tmp_path: Path) -> None:
    """Catches a bare "no files" for a folder full of them."""
    write(tmp_path, {"a.html": "<p>", "b.html": "<p>", ".c.txt": "hidden"})
    with pytest.raises(ValueError, match=r"\.c\.txt.*hidden.*2 files that end in \.html"):
        open_source(str(tmp_path))


def test_a_text_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """Catches shards that hold half of an old text and half of a new one."""
    write(tmp_path, {"a.txt": "alpha " * 50})
    source = open_source(str(tmp_path))
    write(tmp_path, {"a.txt": "alpha " * 60})
    from gpt2.data.preparing import cut_pieces

    with pytest.raises(ValueError, match="360 now"):
        list(cut_pieces(source, 0.1))


def test_a_changed_source_is_mentioned(tmp_path: Path) -> None:
    """Catches old data used without a word when the same command is run after an edit."""
    write(tmp_path / "c", {"a.txt": "alpha " * 50})
    said: list[str] = []
    for _ in range(2):
        prepare(str(tmp_path / "c"), tmp_path / "d", tokenizer="char", say=said.append)
    assert not [line for line in said if "note" in line]
    write(tmp_path / "c", {"b.txt": "beta"})
    prepare(str(tmp_path / "c"), tmp_path / "d", tokenizer="char", say=said.append)
    assert "take 304 bytes now and took 300" in said[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    """Catches a UnicodeEncodeError for a file named in another century."""
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/\xe9.txt", "wb") as file:
        file.write(b"alpha beta")
    said: list[str] = []
    prepare(os.fsdecode(folder), tmp_path / "d", tokenizer="char", say=said.append)
    "\n".join(said).encode("utf-8")
    prepare(os.fsdecode(folder), tmp_path / "d", tokenizer="char")  # the settings are the same
