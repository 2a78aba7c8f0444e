"""The caller's e-mail address: written out, dictated ("point", "arobase", "tiret du bas"), spelled, read
back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Literal

from handlehome.extract import normalise
from handlehome.extract.rules.dialogue import Dialogue, Turn, agrees
from handlehome.extract.rules.numbers import number_words_split, readings
from handlehome.extract.rules.owners import is_own
from handlehome.extract.rules.tokens import Token, words

__all__ = ["Email", "addresses_in", "find"]

_SURE, _HEARD, _READ_BACK, _UNSURE = 0.98, 0.85, 0.8, 0.5
_MOST_PARTS = 24  # on either side of the @

_TWO_OF_A_LETTER = [("digits", True), ("letter", False)]

Kind = Literal["at", "sep", "word", "letter", "digits", "article", "pause", "skip", "stop"]

# Phrases that mean one sign, longest first, and phrases that say how to write it but are not part of it.
_SIGNS: tuple[tuple[str, str], ...] = (
    ("tiret du bas", "_"), ("tiret du 8", "_"), ("tiret du huit", "_"), ("tiret d' en bas", "_"),
    ("tiret bas", "_"), ("trait du bas", "_"), ("barre du bas", "_"), ("under score", "_"),
    ("underscore", "_"), ("souligne", "_"), ("tiret du milieu", "-"), ("tiret du 6", "-"),
    ("tiret du six", "-"), ("tiret haut", "-"), ("tiret", "-"), ("trait d' union", "-"), ("hyphen", "-"),
    ("dash", "-"), ("minus", "-"), ("point", "."), ("dot", "."), ("plus", "+"),
)  # fmt: skip
_AT: tuple[str, ...] = ("a robase", "a commercial", "at sign")
_AT_WORD = re.compile(r"arr?ob+a[sz]{1,2}e?|@")
_MAY_BE_AT = re.compile(rf"{_AT_WORD.pattern}|robase|commercial|at|chez")
_SKIPPED: tuple[str, ...] = (
    "tout attache", "tous attaches", "attache", "en un seul mot", "en un mot", "tout en un mot",
    "tout colle", "sans espace", "sans espaces", "sans accent", "tout en minuscules", "tout en minuscule",
    "en minuscules", "en minuscule", "minuscule", "en lettres", "en chiffres", "le chiffre", "le nombre",
    "la lettre", "je vous l' epelle", "je vous epelle", "j' epelle", "je l' epelle", "all one word",
    "one word", "no spaces", "no space", "all lower case", "lower case", "lowercase", "the number",
    "the letter", "puis", "ensuite", "then",
)  # fmt: skip
_PAUSES = words(", euh heu hum hm um uh er …")
_ARTICLES = words("le la les l' du de des d' the")
_STOPS = words(
    "mail mails email emails e-mail courriel adresse address est suis c' s' j' m' n' t' qu' sur par pour "
    "a alors oui ouais bon ben bah voila donc notez note ecrivez ecrire envoyez envoyer m'envoyer mettez "
    "moi mon ma mes me votre vous ca cela et ou au aux chez dans pas non mais que qui sinon aussi plutot "
    "pardon hein en it's is that's my at to sure yes so would be on and or use send it no sorry not "
    "toujours encore juste simplement simple tout celui celle still just"
)
_AS_IN = frozenset({"comme", "as", "for", "like"})
_PROVIDERS = words(
    "gmail g orange free sfr wanadoo hotmail outlook yahoo laposte icloud proton protonmail live msn "
    "bluewin skynet proximus bbox neuf aol gmx me"
)


@dataclass(frozen=True, slots=True)
class Email:
    """An e-mail address.

    Attributes:
        address: in lower case.
        turns: indexes of the turns that it was said in.
        confidence: 0 to 1.
        start: where it begins among the tokens searched.
        end: where it ends among them.
        own: it is the caller's.
    """

    address: str
    turns: tuple[int, ...]
    confidence: float
    start: int = 0
    end: int = 0
    own: bool = True


@dataclass(frozen=True, slots=True)
class _Part:
    kind: Kind
    text: str
    start: int
    end: int


def find(dialogue: Dialogue) -> Email | None:
    """The caller's address as he gave it or agreed to it; the last word counts."""
    best: Email | None = None
    groups = [*dialogue.utterances(), *([turn] for turn in dialogue.turns if turn.role == "assistant")]
    for turns in sorted(groups, key=lambda group: group[-1].index):
        tokens = [token for turn in turns for token in turn.tokens]
        found = addresses_in(tokens, dialogue.language, turns[0].asks)
        if turns[0].role == "assistant":
            best = _read_back(turns[0], found, best, dialogue)
            continue
        own = [email for email in found if email.own]
        since = own[-1].end if own else 0
        if own:
            best = own[-1]
        if best is not None:
            best = _respelled(best, tokens[since:], dialogue.language)
    return best


def _read_back(turn: Turn, found: Sequence[Email], best: Email | None, dialogue: Dialogue) -> Email | None:
    if len(found) != 1:
        return best
    answer = dialogue.after(turn)
    agreed = agrees(answer)
    if best is not None and best.address == found[0].address:
        turns = (*best.turns, turn.index) if agreed else best.turns
        return replace(best, turns=turns, confidence=_SURE)
    before = dialogue.before(turn)
    dictated = before is not None and any(
        part.kind == "at" for part in _parts(before.tokens, dialogue.language)
    )
    if not agreed or answer is None or not (dictated or "votre" in turn.plain or "your" in turn.plain):
        return best
    turns = (*(best.turns if best else ()), turn.index, answer.index)
    return replace(found[0], turns=turns, confidence=_READ_BACK)


def addresses_in(tokens: Sequence[Token], language: str, asks: str = "") -> list[Email]:
    """All e-mail addresses among some tokens of one speaker, in order.

    Args:
        tokens: the words.
        language: of the number words.
        asks: what the assistant had asked before, folded.
    """
    if not any(_MAY_BE_AT.fullmatch(token.word) for token in tokens):
        return []
    tokens = number_words_split(tokens, language)
    parts = _parts(tokens, language)
    found: list[Email] = []
    since = 0
    for index, part in enumerate(parts):
        if part.kind != "at" and not _is_spoken_at(parts, index):
            continue
        domain, end = _domain(parts, index + 1)
        local, start, sure = _local(parts, index, since)
        address = normalise.email(f"{local}@{domain}") if local and domain else None
        if address is None:
            continue
        first, last = parts[start].start, parts[end - 1].end
        turns = tuple(dict.fromkeys(token.turn for token in tokens[first:last]))
        own = is_own(tokens, first, last, found[-1].end if found else 0, asks)
        found.append(Email(address, turns, _HEARD if sure else _UNSURE, first, last, own))
        since = end
    return found


def _parts(tokens: Sequence[Token], language: str) -> list[_Part]:
    """The tokens as parts of an address: signs, words, letters, digits, and what is none of it."""
    parts: list[_Part] = []
    at = 0
    while at < len(tokens):
        part = (
            _phrase(tokens, at)
            or _glued_sign(tokens, at)
            or _as_in(tokens, at, parts)
            or _doubled(tokens, at, parts, language)
            or _number(tokens, at, language)
            or _single(tokens, at)
        )
        parts.append(part)
        at = part.end
    return parts


def _phrase(tokens: Sequence[Token], at: int) -> _Part | None:
    words = " ".join(token.word for token in tokens[at : at + 5]) + " "
    for phrase, sign in _SIGNS:
        if words.startswith(phrase + " "):
            return _Part("sep", sign, at, at + phrase.count(" ") + 1)
    for phrase in _AT:
        if words.startswith(phrase + " "):
            return _Part("at", "@", at, at + phrase.count(" ") + 1)
    for phrase in _SKIPPED:
        if words.startswith(phrase + " "):
            return _Part("skip", "", at, at + phrase.count(" ") + 1)
    return None


def _glued_sign(tokens: Sequence[Token], at: int) -> _Part | None:
    """A sign that stands between two words without spaces, as in an address that was written out."""
    token = tokens[at]
    if _AT_WORD.fullmatch(token.word):
        return _Part("at", "@", at, at + 1)
    if token.text not in {".", "-", "_", "+"} or at + 1 >= len(tokens):
        return None
    following = tokens[at + 1]
    glued = (
        following.turn == token.turn
        and following.start == token.end
        and (following.is_word or following.is_number)
    )
    return _Part("sep", token.text, at, at + 1) if glued else None


def _as_in(tokens: Sequence[Token], at: int, parts: Sequence[_Part]) -> _Part | None:
    """ "b comme Bernard" """
    is_letter = bool(parts) and parts[-1].kind == "letter"
    if not is_letter or tokens[at].word not in _AS_IN or at + 1 >= len(tokens):
        return None
    return _Part("skip", "", at, at + 2) if tokens[at + 1].word.startswith(parts[-1].text) else None


def _doubled(tokens: Sequence[Token], at: int, parts: Sequence[_Part], language: str) -> _Part | None:
    """ "deux n", "double l" among letters."""
    if at + 1 >= len(tokens) or len(tokens[at + 1].word) != 1 or not tokens[at + 1].is_word:
        return None
    spelling = tokens[at].word == "double" or (bool(parts) and parts[-1].kind == "letter")
    two = tokens[at].word == "double" or readings(tokens, at, language)[:1] == [("2", at + 1)]
    return _Part("letter", tokens[at + 1].word * 2, at, at + 2) if spelling and two else None


def _number(tokens: Sequence[Token], at: int, language: str) -> _Part | None:
    found = readings(tokens, at, language)
    return _Part("digits", found[0][0], at, found[0][1]) if found and tokens[at].word != "o" else None


def _single(tokens: Sequence[Token], at: int) -> _Part:
    token = tokens[at]
    word = token.word
    kind: Kind = "word"
    if word in _PAUSES:
        kind = "pause"
    elif word in _ARTICLES:
        kind = "article"
    elif len(word) == 1 and word.isalpha() and token.text not in {"à", "À"}:
        kind = "letter"
    elif word in _STOPS or not token.is_word:
        kind = "stop"
    elif "-" in word and all(len(piece) == 1 for piece in word.split("-")):
        kind, word = "letter", word.replace("-", "")  # W-O-J-C-I-K
    return _Part(kind, word.replace("'", ""), at, at + 1)


def _is_spoken_at(parts: Sequence[_Part], index: int) -> bool:
    """ "at" and "chez" say @ where the rest is a domain."""
    if parts[index].text not in {"at", "chez"} or parts[index].kind != "stop":
        return False
    domain, _ = _domain(parts, index + 1)
    return bool(domain) and (parts[index].text == "at" or domain.partition(".")[0] in _PROVIDERS)


def _domain(parts: Sequence[_Part], at: int) -> tuple[str, int]:
    """The domain that begins at a part, and where it ends; "" when it has no end such as "point fr"."""
    labels = ""
    end = at
    complete = False
    for index in range(at, min(at + _MOST_PARTS, len(parts))):
        part = parts[index]
        if part.kind in {"pause", "skip"}:
            if complete:
                break
            continue
        following = parts[index + 1] if index + 1 < len(parts) else None
        if part.kind == "sep":
            if not labels or labels[-1] in ".-":
                break
            labels += part.text
            complete = False
        elif part.kind in {"word", "letter", "digits", "article"} or (
            part.kind == "stop" and part.text.isalpha()
        ):
            labels += part.text
            # Behind a "point" one word is the last label, unless another "point" or letter follows.
            top = labels.rpartition(".")[2] if "." in labels else ""
            complete = top.isalpha() and len(top) >= 2
            goes_on = following is not None and following.kind == "sep" and following.text in ".-"
            spelled = part.kind == "letter" and following is not None and following.kind == "letter"
            if complete and not goes_on and not spelled:
                end = index + 1
                break
        else:
            break
        end = index + 1
    return (labels, end) if complete else ("", end)


def _local(parts: Sequence[_Part], at: int, since: int) -> tuple[str, int, bool]:
    """What stands before the @: the text, the part it begins with, and whether its beginning is plain."""
    start = at
    while start > since and at - start < _MOST_PARTS and _goes_back(parts, start, since):
        start -= 1
    while start < at and parts[start].kind in {"pause", "skip", "sep", "article"}:
        start += 1
    chosen = [part for part in parts[start:at] if part.kind not in {"pause", "skip"}]
    glued = any(part.kind == "skip" for part in parts[start:at])
    leading = 0
    for part in chosen:
        if part.kind != "word":
            break
        leading += 1
    if leading > 3:
        return "", start, False
    return "".join(_spelled_once(chosen)), start, leading < 2 or glued


def _goes_back(parts: Sequence[_Part], start: int, since: int) -> bool:
    """Whether the part before `start` belongs to the same address."""
    part = parts[start - 1]
    if part.kind in {"stop", "at"}:
        return False
    earlier = parts[start - 2] if start - 2 >= since else None
    later = parts[start]
    if part.kind == "article":
        between = {"sep", "article", "word"} if part.text == "d" else {"sep", "article"}  # Jeanne d'Arc
        return earlier is not None and earlier.kind in between
    if part.kind == "pause":
        if earlier is None or earlier.kind == "stop":
            return False
        joins = {"sep", "letter", "digits", "pause", "at", "skip"}
        return earlier.kind in joins - {"at"} or later.kind in joins
    return True


def _spelled_once(parts: Sequence[_Part]) -> Iterator[str]:
    """The texts of the parts; a word that is spelled right behind it counts once, as it is spelled.

    So does one of whose letters it is said that there are two ("durand deux r").
    """
    index = 0
    while index < len(parts):
        part = parts[index]
        two = parts[index + 1 : index + 3]
        if part.kind == "word" and [(each.kind, each.text == "2") for each in two] == _TWO_OF_A_LETTER:
            letter = two[1].text
            if letter in part.text:
                yield part.text if letter * 2 in part.text else part.text.replace(letter, letter * 2, 1)
                index += 3
                continue
        stop = index + 1
        while stop < len(parts) and parts[stop].kind == "letter":
            stop += 1
        spelled = "".join(each.text for each in parts[index + 1 : stop])
        if part.kind == "word" and len(spelled) >= 3 and _same_word(part.text, spelled):
            yield spelled
            index = stop
        else:
            yield part.text
            index += 1


def _same_word(heard: str, spelled: str) -> bool:
    return heard[:1] == spelled[:1] and SequenceMatcher(None, heard, spelled).ratio() >= 0.6


def _respelled(email: Email, after: Sequence[Token], language: str) -> Email:
    """The address with the word that is spelled behind it: "..., Lefèvre c'est l e f e b v r e"."""
    parts = _parts(number_words_split(after, language), language)
    letters = ""
    runs: list[str] = []
    for part in [*parts, _Part("stop", "", 0, 0)]:
        if part.kind == "letter":
            letters += part.text
        elif part.kind not in {"pause", "skip"}:
            runs.append(letters)
            letters = ""
    local, _, domain = email.address.partition("@")
    labels = re.split(r"([._+-])", local)
    for run in (run for run in runs if len(run) >= 3):
        for index, label in enumerate(labels):
            # "avec un b, l e f e b v r e": what is spelled begins where the word does.
            spelled = run[max(0, run.find(label[:1])) :]
            if len(label) >= 3 and len(spelled) >= 3 and label != spelled and _same_word(label, spelled):
                labels[index] = spelled
    address = normalise.email("".join(labels) + "@" + domain)
    if address is None or address == email.address:
        return email
    return replace(email, address=address, turns=tuple(dict.fromkeys((*email.turns, after[0].turn))))
