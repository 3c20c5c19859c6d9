"""What the process that ran a student's file may say: every answer is checked before it is used.

An answer is data that a student's code was near when it was made. It is put into this form, or
refused as a whole, before it is cached, counted or shown: so one file can't end the class's report.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

STATUSES = frozenset(("passed", "failed", "skipped"))
MOST_MESSAGE = 4_000  # characters of a message; ours have a few hundred
MOST_LINES = 12
MOST_MISTAKES = 8
MOST_NUMBER = 10_000_000  # of lines, TODOs and hints
ID = re.compile(r"[a-z0-9.]+(-[a-z0-9.]+)*\Z")
NAME = re.compile(r"\w{0,100}\Z", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{0,128}\Z")
PRINTS = ("exact", "layout", "names")  # fingerprints of a file, from strict to tolerant


class BadAnswer(ValueError):
    """An answer that has not the form it must have."""


@dataclass(frozen=True)
class Asked:
    """A check that was asked for: what its result is given by us and not by the answer."""

    name: str
    title: str
    points: int


def result(data: object, asked: Asked) -> dict:
    """One check's result in its form. BadAnswer when it can't be: another name, another status."""
    if not isinstance(data, dict):
        raise BadAnswer("a result is not an object")
    if data.get("name") != asked.name:
        raise BadAnswer(f"the result of {asked.name} has another name")
    status = data.get("status")
    if not isinstance(status, str) or status not in STATUSES:
        raise BadAnswer(f"the status of {asked.name} is not one of {', '.join(sorted(STATUSES))}")
    mistakes = data.get("mistakes", [])
    if not isinstance(mistakes, list) or len(mistakes) > MOST_MISTAKES:
        raise BadAnswer(f"the mistakes of {asked.name} are not a short list")
    cause = data.get("cause", "")
    if not isinstance(cause, str) or not NAME.match(cause):
        raise BadAnswer(f"the cause of {asked.name} is not a check's name")
    return {
        "name": asked.name,
        "title": asked.title,
        "status": status,
        "message": message(data.get("message", "")),
        "mistakes": [mistake_id(mistake) for mistake in mistakes],
        "hint": _number(data.get("hint")),
        "todo": _number(data.get("todo")),
        "points": asked.points,
        "line": _number(data.get("line")),
        "cause": cause,
    }


def results(data: object, asked: list[Asked]) -> list[dict]:
    """The results of all checks that were asked for, in order. BadAnswer when one is missing."""
    if not isinstance(data, list) or len(data) != len(asked):
        raise BadAnswer(f"not {len(asked)} results")
    return [result(one, check) for one, check in zip(data, asked, strict=True)]


def answer(data: object, asked: list[Asked]) -> dict:
    """A whole answer about one file: its results, fingerprints and unusual names."""
    if not isinstance(data, dict):
        raise BadAnswer("the answer is not an object")
    found = {"results": results(data.get("results"), asked), "unusual": names(data.get("unusual"))}
    prints = data.get("prints")
    if isinstance(prints, dict) and prints.keys() == {*PRINTS, "size"}:
        texts = [prints[name] for name in PRINTS]
        if all(isinstance(text, str) and DIGEST.match(text) for text in texts):
            found["prints"] = {**prints, "size": _number(prints["size"]) or 0}
    return found


def message(text: object) -> str:
    """A message: bounded, without control characters and lone surrogates."""
    if not isinstance(text, str):
        raise BadAnswer("a message is not a text")
    text = text[:MOST_MESSAGE].encode("utf-8", "replace").decode("utf-8")
    kept = ["".join(c if c.isprintable() else "?" for c in line) for line in text.splitlines()]
    return "\n".join(kept[:MOST_LINES])


def mistake_id(text: object) -> str:
    """A mistake's id: words of a-z and 0-9, joined by hyphens."""
    if not isinstance(text, str) or len(text) > 80 or not ID.match(text):
        raise BadAnswer("a mistake's id has other characters than a-z, 0-9 and -")
    return text


def names(data: object) -> list[str]:
    """A short list of short texts; everything else is left out."""
    if not isinstance(data, list):
        return []
    return [message(text)[:200] for text in data[:20] if isinstance(text, str)]


def _number(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_NUMBER:
        raise BadAnswer("a number is out of its bounds")
    return value
