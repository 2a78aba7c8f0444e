"""Numbers as people say them: digit by digit, in pairs, as "double zero", or written in figures.

What one number word or group of them is worth, `text2num` knows. Where one number ends and the next begins
("soixante quatre vingts": 60 80, or 64 20), nobody knows from the words alone: `readings` gives all readings,
longest first, and who asks knows which of them makes sense.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from text_to_num import text2num

from handlehome.extract.rules.tokens import Token, words

__all__ = ["FILLERS", "in_figures", "number_words_split", "readings"]

# "soixante quinze mille quatre cent quatre vingt" are eight words: no postcode or year has more by much.
_MOST_WORDS = 8

_ZEROS = {"fr": {"zero"}, "en": {"zero", "oh", "o", "nought", "naught"}}
_REPEATS = {"double": 2, "doubles": 2, "triple": 3}
_TIMES = {"deux": 2, "trois": 3, "quatre": 4, "2": 2, "3": 3, "4": 4}
_AND = {"et", "and"}
_ARTICLES = {"le", "la", "les", "l'", "the"}

# What people say or transcriptions write between the digits of one number.
FILLERS = words(
    ", . - – / ( ) … : euh heu hum hm mmh ben bah alors donc puis ensuite et um uh er erm then and"
)


@lru_cache(maxsize=4096)
def _value(words: str, language: str) -> int | None:
    try:
        number: int = text2num(words, language)
    except ValueError:
        return None
    return number


def _language(language: str) -> str:
    return language if language in _ZEROS else "fr"


def number_words_split(tokens: Sequence[Token], language: str) -> list[Token]:
    """The same tokens, but what hyphens join to several numbers ("zéro-six", "twenty-third") taken apart."""
    language = _language(language)
    found: list[Token] = []
    for token in tokens:
        parts = token.parts() if "-" in token.text and token.is_word else []
        zero = bool(parts) and parts[0].word in _ZEROS[language]
        joined = bool(parts) and (zero or _value(token.word, language) is None)
        numbers = [part.word in _ZEROS[language] or _value(part.word, language) is not None for part in parts]
        ordinal = language == "en" and len(parts) == 2 and parts[0].word in {"twenty", "thirty"}
        if joined and (all(numbers) or ordinal):
            found.extend(parts)
        else:
            found.append(token)
    return found


def readings(tokens: Sequence[Token], at: int, language: str) -> list[tuple[str, int]]:
    """The numbers that begin at a token.

    Returns:
        Digits (leading zeros kept) and the index behind the last token of each reading; longest first.
    """
    language = _language(language)
    token = tokens[at]
    if token.is_number:
        return [*_thousands(tokens, at, language), (token.text, at + 1)]
    if not token.is_word:
        return []
    if token.word in _ZEROS[language]:
        return [("0", at + 1)]
    repeated = _repeated(tokens, at, language)
    if repeated is not None:
        return [repeated]
    found = []
    words: list[str] = []
    for index in range(at, min(at + _MOST_WORDS, len(tokens))):
        if not tokens[index].is_word or tokens[index].word in _ZEROS[language]:
            break
        word = tokens[index].word
        if _value(word, language) is None and (word not in _AND or not words):
            break  # each word of a number is one itself, but for "et" and "and"
        words.append(word)
        value = _value(" ".join(words), language)
        # "vingts" has its s from "quatre" alone: what leaves it over, or begins with it, is no reading.
        following = tokens[index + 1].word if index + 1 < len(tokens) else ""
        if value is not None and "vingts" not in {following, words[0]}:
            found.append((str(value), index + 1))
    return found[::-1]


def _thousands(tokens: Sequence[Token], at: int, language: str) -> list[tuple[str, int]]:
    """ "33 mille", "31 mille 200": how transcriptions write some round numbers."""
    following = tokens[at + 1].word if at + 1 < len(tokens) else ""
    if following not in {"mille", "thousand"} or len(tokens[at].text) > 3:
        return []
    value = int(tokens[at].text) * 1000
    rest = readings(tokens, at + 2, language) if at + 2 < len(tokens) else []
    if rest and len(rest[0][0]) <= 3:
        return [(str(value + int(rest[0][0])), rest[0][1]), (str(value), at + 2)]
    return [(str(value), at + 2)]


def _repeated(tokens: Sequence[Token], at: int, language: str) -> tuple[str, int] | None:
    """ "double zéro", "triple seven", "deux fois le sept": one digit, several times."""
    times = _REPEATS.get(tokens[at].word)
    at += 1
    if times is None and at < len(tokens) and tokens[at].word in {"fois", "times"}:
        times = _TIMES.get(tokens[at - 1].word)
        at += 1
    if times is None:
        return None
    if at < len(tokens) and tokens[at].word in _ARTICLES:
        at += 1
    if at >= len(tokens):
        return None
    digit = "0" if tokens[at].word in _ZEROS[language] else str(_value(tokens[at].word, language))
    if tokens[at].is_number:
        digit = tokens[at].text
    return (digit * times, at + 1) if len(digit) == 1 and digit.isdecimal() else None


def in_figures(tokens: Sequence[Token], language: str) -> str:
    """The folded text with its number words as figures ("le 3 decembre a 14 heures 30"), one space apart.

    Signs stand alone between spaces, but those that join two figures (14:30, 03/12) keep them together.
    """
    tokens = number_words_split(tokens, language)
    out: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        found = readings(tokens, at, language)
        if found and not token.word.startswith("double"):
            out.append(found[0][0])
            at = found[0][1]
        else:
            out.append(token.word)
            at += 1
    text = " ".join(out)
    text = re.sub(r"(?<=\d) ([:/]) (?=\d)", r"\1", text)
    text = re.sub(r"(?<=\d{4}) - (?=\d{2} - \d{2})", "-", text)
    text = re.sub(r"(?<=\d{4}-\d{2}) - (?=\d{2})", "-", text)
    return text.replace("' ", "'")
