"""Words of a transcript, with their place in it, and the small questions that all rules ask of words."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

__all__ = ["Token", "fold", "tokenize", "words"]

# An elided article or pronoun ("c'", "l'"), a word with its hyphens (English 's, 'll and n't belong to it), a
# number as far as its digits go, or one other character.
_TOKEN = re.compile(
    r"(?P<elision>[^\W\d_]{1,3}['’](?=[^\W\d_]{2}|[ay]\b)(?!(?:ll|re|ve|clock|hui)\b))"
    r"|(?P<word>[^\W\d_]+(?:-[^\W\d_]+)*(?:['’](?:s|m|d|t|re|ve|ll|hui|clock)\b)?)"
    r"|\d+|[^\s\d]"
)
_LIGATURES = str.maketrans({"œ": "oe", "æ": "ae", "ß": "ss", "’": "'"})


@dataclass(frozen=True, slots=True)
class Token:
    """One word, number or sign.

    Attributes:
        text: as it is written.
        word: folded (see `fold`): what rules compare.
        turn: which turn of the call it is from (its index in the record).
        start: where it begins in that turn's text.
        end: where it ends there.
    """

    text: str
    word: str
    turn: int
    start: int
    end: int

    @property
    def is_word(self) -> bool:
        return self.word[:1].isalpha()

    @property
    def is_number(self) -> bool:
        return self.text.isdecimal() and self.text.isascii()

    def parts(self) -> list[Token]:
        """The words between the hyphens of this one."""
        found, start = [], self.start
        for text in self.text.split("-"):
            end = start + len(text)
            found.append(Token(text, fold(text), self.turn, start, end))
            start = end + 1
        return found


def fold(text: str) -> str:
    """Lower case without accents and ligatures, so that "À Hélène’s" and "a helene's" are the same."""
    plain = unicodedata.normalize("NFKD", text.lower().translate(_LIGATURES))
    return "".join(char for char in plain if not unicodedata.combining(char))


def tokenize(text: str, turn: int = 0) -> list[Token]:
    """All words, numbers and signs of a text, in order; white space is left out."""
    return [Token(m[0], fold(m[0]), turn, m.start(), m.end()) for m in _TOKEN.finditer(text)]


def words(text: str) -> frozenset[str]:
    """The words of a list that is written as a text: vocabularies stay readable that way."""
    return frozenset(text.split())
