"""Valid input → input that is nearly valid: trees of JSON, TOML and bytes, changed in few places.

Few changes each time, so that most inputs get past a parser's first check.
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Sequence
from typing import Any

DEPTH = 10_000  # far beyond Python's recursion limit
DEEP_LIST, DEEP_OBJECT = "@deep list@", "@deep object@"  # too deep for json.dumps, so put in later

SURROGATE = "\ud800"
STRINGS = (
    *("", " ", "\0", "a\0b", SURROGATE, "\x1b[2J\x07", "\u202e", "\ufeff", "é", "日本", "🤖"),
    *("../outside", "..", ".", "/", "/etc/passwd", "~", "~nobody-of-that-name/x", "C:\\x", "a/b"),
    *("null", "nan", "inf", "-1", "1", "0x10", "٣", "1_000", "true", "x" * 300, "x" * 70_000),
    *("gpt2", "F32", "I64", "O", "<f8", "float32", "model.safetensors", "../canary.txt"),
)
NUMBERS = (
    *(0, -1, 1, 2, 3, 4, 7, 8, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53 + 1),
    *(2**63 - 1, 2**63, 2**64, 10**18, 10**30, -(2**63), 10**400),
    *(0.0, -0.0, 0.5, 1.0, 1.5, 3.0, -1.0, 1e-45, 1e-300, 1e308, math.nan, math.inf, -math.inf),
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [0], {"a": 0}, DEEP_LIST, DEEP_OBJECT)

CHARACTERS = (
    *"aZ09 \n\t\r\0\x07\x1b\x7f'\"\\{}[]<|>éßıİΑя日本한🤖",
    *"\u0301\u200d\u202e\ufeff\ufffd\ufffe\U0010ffff\u2028\x85\xa0\xad\ud800\udfff\udc80",
    *("<|endoftext|>", "👩‍👩‍👧‍👦", " " * 40, "\n" * 9, "a" * 200, "1234567890", "'re 'll '", "Ġ"),
)


class Mutator:
    """Changes drawn from one random number generator: the same seed, the same changes."""

    def __init__(self, rng: random.Random):
        self.rng = rng

    def some(self, most: int = 3) -> int:
        """1 … most, small ones more often."""
        return min(1 + int(self.rng.expovariate(1.2)), most)

    def value(self) -> Any:
        """Something that is seldom expected."""
        return copy.deepcopy(self.rng.choice(self.rng.choice((STRINGS, NUMBERS, NUMBERS, OTHERS))))

    # ------------------------------------------------------------------------------------- trees

    def tree(self, tree: Any, times: int | None = None) -> Any:
        """A copy of a tree of dicts and lists with some of its places changed."""
        tree = copy.deepcopy(tree)
        for _ in range(self.some() if times is None else times):
            tree = self._change(tree)
        return tree

    def _places(self, tree: Any) -> list[tuple[Any, Any]]:
        found: list[tuple[Any, Any]] = []
        waiting = [tree]
        while waiting:
            node = waiting.pop()
            keys: Sequence[Any] = ()
            if isinstance(node, dict):
                keys = list(node)
            elif isinstance(node, list):
                keys = range(len(node))
            for key in keys:
                found.append((node, key))
                waiting.append(node[key])
        return found

    def _change(self, tree: Any) -> Any:
        rng = self.rng
        places = self._places(tree)
        if not places or rng.random() < 0.01:
            return self.value()
        # the shallow half as often as the deep one, however few places it has
        node, key = rng.choice(places if rng.random() < 0.7 else places[: 1 + len(places) // 4])
        old = node[key]
        kind = rng.randrange(9)
        if kind <= 1:
            node[key] = self.value()
        elif kind == 2:
            if isinstance(node, dict):
                del node[key]
            else:
                node.insert(key, copy.deepcopy(old) if rng.random() < 0.5 else self.value())
        elif kind == 3 and isinstance(node, dict):
            other = rng.choice(list(node)) if rng.random() < 0.3 else rng.choice(STRINGS)
            node[other if rng.random() < 0.5 else str(key) + "x"] = node.pop(key)
        elif kind == 4:
            other_node, other_key = rng.choice(places)
            node[key] = copy.deepcopy(other_node[other_key])
            if other_key in other_node if isinstance(other_node, dict) else True:
                other_node[other_key] = copy.deepcopy(old)
        elif kind == 5:
            node[key] = rng.choice(([old], {"a": old}, str(old), [old, old]))
        else:
            node[key] = self.near(old)
        return tree

    def near(self, old: Any) -> Any:
        """A value of nearly the same meaning."""
        rng = self.rng
        if isinstance(old, bool):
            return rng.choice((not old, int(old), str(old).lower(), None))
        if isinstance(old, int):
            steps = (
                old + 1,
                old - 1,
                -old,
                old * 2,
                old * 10**9,
                old // 2,
                0,
                old + 0.5 if abs(old) < 2**60 else 0.5,
            )
            return rng.choice((*steps, str(old), old + 2**32, old + 2**64))
        if isinstance(old, float):
            return rng.choice(
                (old * 2, -old, old / 3, int(old) if math.isfinite(old) else 0, 1e308)
            )
        if isinstance(old, str):
            return self.text(old)
        if isinstance(old, list):
            shuffled = rng.sample(old, len(old))
            return rng.choice((shuffled, old[:-1], old * 2, old[::-1], tuple(old[:1]) and old[:1]))
        if isinstance(old, dict):
            return dict(rng.sample(list(old.items()), len(old)))
        return self.value()

    def text(self, text: str, times: int | None = None) -> str:
        """Characters put in, taken out, doubled."""
        for _ in range(self.some() if times is None else times):
            i = self.rng.randrange(len(text) + 1)
            j = min(len(text), i + self.some(8))
            middle = self.rng.choice((self.rng.choice(CHARACTERS), "", text[i:j] * 2, text[i:j]))
            text = text[:i] + middle + text[j:]
        return text

    def any_text(self, most: int = 30) -> str:
        """Text of any characters at all."""
        count = self.rng.randrange(most)
        if self.rng.random() < 0.5:
            return "".join(self.rng.choice(CHARACTERS) for _ in range(count))
        limit = self.rng.choice((0x80, 0x800, 0x110000))
        return "".join(chr(self.rng.randrange(limit)) for _ in range(count))

    # ------------------------------------------------------------------------------------- bytes

    def json(self, tree: Any) -> bytes:
        """A tree as JSON, now and then with what JSON writers don't write: names twice, thousands
        of levels, another encoding.
        """
        rng = self.rng
        ascii_only = rng.random() < 0.5
        text = json.dumps(tree, ensure_ascii=ascii_only, indent=rng.choice((None, 1)))
        text = text.replace(json.dumps(DEEP_LIST), "[" * DEPTH + "]" * DEPTH)
        text = text.replace(json.dumps(DEEP_OBJECT), '{"a":' * DEPTH + "0" + "}" * DEPTH)
        if rng.random() < 0.04 and isinstance(tree, dict) and tree:
            name = rng.choice(list(tree))
            again = json.dumps({name: self.value()}, ensure_ascii=ascii_only)[1:-1]
            text = text.rstrip()[:-1] + f", {again}" + "}"
        data = text.encode("utf-8", "surrogatepass")
        if rng.random() < 0.02:
            data = rng.choice((b"\xef\xbb\xbf" + data, text.encode("utf-16", "surrogatepass")))
        return self.bytes(data) if rng.random() < 0.06 else data

    def bytes(self, data: bytes, times: int | None = None) -> bytes:
        """Bits flipped, bytes put in, taken out, overwritten, the end cut off, more added."""
        rng = self.rng
        changed = bytearray(data)
        for _ in range(self.some(6) if times is None else times):
            i = rng.randrange(len(changed) + 1)
            kind = rng.randrange(8)
            if kind <= 2 and i < len(changed):
                changed[i] ^= 1 << rng.randrange(8)
            elif kind == 3:
                changed[i:i] = rng.randbytes(self.some(9))
            elif kind == 4:
                del changed[i : i + self.some(9)]
            elif kind == 5:
                changed[i : i + 8] = rng.choice((b"\xff" * 8, b"\0" * 8, b"\0" * 7 + b"\x10"))
            elif kind == 6:
                del changed[i:]
            else:
                changed += rng.randbytes(rng.randrange(64))
        return bytes(changed)
