"""Full-text search, the part that all stores share: which words a call holds, and where they stand.

Pure. A word is a run of letters and digits, without its accents and in lower case. A call is found when each
word of the question begins one of its words. Both stores index the words that are made here, so that they
find the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any, Final

from handlehome.store.records import CallRecord

__all__ = ["call_words", "snippet", "words"]

MAX_TEXT = 100_000  # characters of one text that are looked at: no turn has as many
MAX_WORD = 40  # characters; a longer one is cut, in the index and in the question
BEFORE, AFTER = 60, 120  # characters of a snippet on each side of the first word that was found

_WORD: Final = re.compile(r"[^\W_]+")
_MARKS: Final = re.compile("[\u0300-\u036f]+")  # accents and the like, once they stand by themselves
_LIGATURES: Final = str.maketrans({"œ": "oe", "æ": "ae"})


def words(text: str) -> list[str]:
    """The words of a text, in its order."""
    return [word[:MAX_WORD] for word in _WORD.findall(_plain(text[:MAX_TEXT]))]


def call_words(record: CallRecord) -> list[str]:
    """Every word of a call once, sorted: of its turns, of its extracted data and of its numbers."""
    found: set[str] = set()
    for piece in _pieces(record):
        found.update(words(piece))
    return sorted(found)


def snippet(record: CallRecord, wanted: list[str]) -> str | None:
    """The place of a call that a search has found.

    Args:
        record: the call.
        wanted: the words of the question, from `words`.

    Returns:
        A part of the turn, or of the text in the extracted data, that holds the most of them; with an
        ellipsis where something is left out. None when nothing holds any.
    """
    beginnings = [re.compile(rf"(?<![^\W_]){re.escape(word)}") for word in wanted]
    best, most = "", 0
    for piece in _pieces(record):
        plain = _plain(piece[:MAX_TEXT])
        found = sum(beginning.search(plain) is not None for beginning in beginnings)
        if found > most:
            best, most = unicodedata.normalize("NFC", piece), found
        if most == len(wanted):
            break  # a page of results costs milliseconds, not tenths of a second
    return _cut(best, _first(best, wanted)) if most else None


def _first(text: str, wanted: list[str]) -> int:
    """Where the first of the wanted words stands in a composed text."""
    beginnings = tuple(wanted)
    for match in _WORD.finditer(text[:MAX_TEXT]):
        if any(word.startswith(beginnings) for word in words(match.group())):
            return match.start()
    return 0


def _pieces(record: CallRecord) -> Iterator[str]:
    for turn in record.turns:
        text = turn.text or turn.heard_text
        if text:
            yield text
    yield from _texts(record.data)
    yield from filter(None, (record.from_, record.to))


def _texts(value: Any) -> Iterator[str]:
    """All texts in extracted data, whatever their schema, but what only points at turns."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            if name != "evidence":
                yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)


def _plain(text: str) -> str:
    if text.isascii():
        return text.lower()
    return _MARKS.sub("", unicodedata.normalize("NFKD", text)).casefold().translate(_LIGATURES)


def _cut(text: str, at: int) -> str:
    start, end = max(0, at - BEFORE), min(len(text), at + AFTER)
    if start > 0:
        start = text.find(" ", start, at) + 1 or start  # at a word's beginning, if there is one
    if end < len(text):
        space = text.rfind(" ", at, end)
        end = space if space > at else end
    return ("… " if start > 0 else "") + text[start:end].strip() + (" …" if end < len(text) else "")
