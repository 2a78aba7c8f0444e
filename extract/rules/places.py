"""The postcode, and the town that stands beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from handlehome.extract.rules.dialogue import Dialogue
from handlehome.extract.rules.numbers import number_words_split, readings
from handlehome.extract.rules.tokens import Token, words

__all__ = ["Place", "find", "places_in"]

_SURE, _HEARD = 0.95, 0.85

# What a region's postcodes look like, as one string without spaces. Others are left to the model.
_FORMS = {
    "FR": re.compile(r"(?:0[1-9]|[1-8]\d|9[0-5])\d{3}|9[78]\d{3}"),
    "BE": re.compile(r"[1-9]\d{3}"),
    "CH": re.compile(r"[1-9]\d{3}"),
    "LU": re.compile(r"[1-9]\d{3}"),
    "US": re.compile(r"\d{5}"),
    "GB": re.compile(r"[A-Z]{1,2}\d[A-Z\d]?\d[A-Z]{2}"),
}
_OVERSEAS = {"RE", "GP", "MQ", "GF", "YT", "PM"}  # French postcodes, telephone regions of their own

_LABELS = re.compile(
    r"\b(?:code postal|cp|code|postcode|post code|zip|zip code|postal code)\W*(?:(?:c'est|est|is"
    r"|it's)\W*)*(?:(?:le|the)\W*)?$"
)
_ASKED = re.compile(r"\b(?:code postal|postcode|post code|zip|postal code)\b")
_REFERENCES = re.compile(
    r"\b(?:facture|dossier|reference|ref|contrat|devis|commande|client|annee|compte|serie|invoice|order"
    r"|account)"
    r"(?: (?:numero|n|c'est|le|est|number))*\W*$"
)
_UNITS = words("euros euro € eur francs m m2 metres km kilometres watts kwh litres dollars pounds $ £ % h")
_STREETS = words(
    "rue avenue av boulevard bd place allee allees chemin impasse route quai cours square passage "
    "faubourg residence immeuble batiment appartement lotissement hameau domaine villa zone rond-point "
    "esplanade sentier montee street road lane drive court close way flat apartment building house floor"
)
_LINKS = words(
    "de du des d' la le les l' en sur sous lez les-bains aux et saint sainte st ste upon on the of"
)
_NOT_TOWNS = words(
    "commune ville village secteur quartier france belgique suisse madame monsieur mademoiselle je moi "
    "mon au c'est merci voila oui non premier deuxieme mrs mr ms i it's my thank thanks"
)
_STATES = words(
    "alabama alaska arizona arkansas california colorado connecticut delaware florida georgia hawaii "
    "idaho illinois indiana iowa kansas kentucky louisiana maine maryland massachusetts michigan "
    "minnesota mississippi missouri montana nebraska nevada hampshire jersey mexico york carolina dakota "
    "ohio oklahoma oregon pennsylvania rhode island tennessee texas utah vermont virginia wisconsin "
    "wyoming"
)
_DIRECTIONS = words("new north south west district of")
_BETWEEN = words(", . c' est le code postal zip postcode donc it's is the euh")


@dataclass(frozen=True, slots=True)
class Place:
    """A postcode and its town.

    Attributes:
        postcode: in its country's form.
        city: as it was written, None when none stands beside.
        turns: indexes of the turns that it was said in.
        confidence: 0 to 1.
    """

    postcode: str
    city: str | None
    turns: tuple[int, ...]
    confidence: float


def find(dialogue: Dialogue, region: str) -> Place | None:
    """The postcode that the caller said last; one that the assistant says, too, is surer."""
    best: Place | None = None
    for turn in dialogue.turns:
        tokens = number_words_split(turn.tokens, dialogue.language)
        if turn.role == "caller":
            found = places_in(tokens, region, dialogue.language, asked=_ASKED.search(turn.asks) is not None)
            if found:
                earlier = best.city if best is not None and best.postcode == found[-1].postcode else None
                best = replace(found[-1], city=found[-1].city or earlier)
        elif best is not None:
            repeated = places_in(tokens, region, dialogue.language, asked=True)
            if any(place.postcode == best.postcode for place in repeated):
                best = replace(best, confidence=_SURE)
    return best


def places_in(tokens: Sequence[Token], region: str, language: str, *, asked: bool = False) -> list[Place]:
    """All postcodes in one turn, in order.

    Args:
        tokens: the turn's words; see `numbers.number_words_split`.
        region: whose postcodes.
        language: of the number words.
        asked: the assistant has just asked for it, so that the bare number will do.
    """
    region = "FR" if region in _OVERSEAS else region
    form = _FORMS.get(region)
    if form is None:
        return []
    candidates = _lettered(tokens, language) if region == "GB" else _numbers(tokens, language)
    found = []
    for start, end, code in candidates:
        if not form.fullmatch(code):
            continue
        before = " ".join(token.word for token in tokens[max(0, start - 8) : start]).replace("' ", "'")
        following = tokens[end].word if end < len(tokens) else ""
        if following in _UNITS or _REFERENCES.search(before):
            continue
        short = len(code) == 4
        expected = asked or _LABELS.search(before) is not None or _behind_street(tokens, start, short=short)
        if any(token.text[:1].isupper() for token in tokens):
            opening = _before_state(tokens, start, region)
            city = _town_after(tokens, end, short=short) or _town_before(tokens, opening)
        else:
            city = _town_without_capitals(tokens, start, end, behind=expected)
        written = f"{code[:-3]} {code[-3:]}" if region == "GB" else code
        if city is None and not expected and region != "GB":
            continue
        turns = tuple(dict.fromkeys(token.turn for token in tokens[start:end]))
        found.append(Place(written, city, turns, _HEARD))
    return found


def _numbers(tokens: Sequence[Token], language: str) -> Iterator[tuple[int, int, str]]:
    """Runs of numbers with nothing between them, as one: 69 003, "trente-cinq deux cents"."""
    at = 0
    while at < len(tokens):
        start, digits = at, ""
        while at < len(tokens) and (found := readings(tokens, at, language)):
            digits += found[0][0]
            at = found[0][1]
        if at > start:
            joined = start > 0 and tokens[start - 1].text in {"-", "/", ":", "+"}
            if not joined:
                yield start, at, digits
        else:
            at += 1


def _lettered(tokens: Sequence[Token], language: str) -> Iterator[tuple[int, int, str]]:
    """Letters and numbers in turn, as British postcodes have them, written or spelled."""
    done = 0
    for start, token in enumerate(tokens):
        if start < done or not token.is_word or len(token.word) > 2:
            continue
        code, at = "", start
        while at < len(tokens) and len(code) < 7:
            found = readings(tokens, at, language) if tokens[at].word != "o" else []
            if found:
                code, at = code + found[0][0], found[0][1]
            elif tokens[at].is_word and len(tokens[at].word) <= 2:
                code, at = code + tokens[at].word.upper(), at + 1
            elif tokens[at].text == "," and code:
                at += 1
                continue
            else:
                break
            if _FORMS["GB"].fullmatch(code):
                done = at
                yield start, at, code
                break


def _behind_street(tokens: Sequence[Token], at: int, *, short: bool) -> bool:
    """Whether a street is named shortly before; with a comma between ("rue du 8 mai 1945") if the code is
    short."""
    words = [token.word for token in tokens[max(0, at - 10) : at]]
    return not _STREETS.isdisjoint(words) and (words[-1:] == [","] or not short)


def _town_without_capitals(tokens: Sequence[Token], start: int, end: int, *, behind: bool) -> str | None:
    """In a text without capitals: what stands between "à" and the postcode, or behind it at the end."""
    for at in range(start - 1, max(-1, start - 6), -1):
        if tokens[at].text in {"à", "in"} and at + 1 < start:
            return _titled(tokens[at + 1 : start])
    rest = tokens[end:]
    return _titled(rest) if behind and 1 <= len(rest) <= 2 else None


def _titled(tokens: Sequence[Token]) -> str | None:
    if not all(token.is_word and token.word not in _BETWEEN | _STREETS for token in tokens):
        return None
    words = [token.text if token.word in _LINKS else token.text.title() for token in tokens]
    return " ".join(words).replace("' ", "'")


def _town_after(tokens: Sequence[Token], at: int, *, short: bool) -> str | None:
    """The town behind a postcode; four figures might be a year, so no comma may stand between."""
    if at < len(tokens) and tokens[at].text == "," and not short:
        at += 1
    while at < len(tokens) and not short and tokens[at].word in {"c'", "est", "it's", "that's"}:
        at += 1
    if at < len(tokens) and tokens[at].word in {"a", "in"}:
        at += 1
    end = at
    while end < len(tokens) and end - at < 6 and (_is_name(tokens[end]) or _is_link(tokens, end, at)):
        end += 1
    return _written(tokens[at:end])


def _before_state(tokens: Sequence[Token], at: int, region: str) -> int:
    """Where the state begins that stands between an American town and its code: "Springfield, Virginia,
    22150"."""
    start = at
    while region == "US" and start > 0 and tokens[start - 1].text == ",":
        start -= 1
    end = start
    while region == "US" and start > 0 and tokens[start - 1].word in _STATES | _DIRECTIONS:
        start -= 1
    return start if start < end and tokens[start - 1].text == "," else at


def _town_before(tokens: Sequence[Token], at: int) -> str | None:
    """The town before a postcode: "à Dijon. 21000", "..., Créteil, 94000"."""
    end = at
    while end > 0 and tokens[end - 1].word in _BETWEEN:
        end -= 1
    start = end
    while start > 0 and end - start < 6 and (_is_name(tokens[start - 1]) or tokens[start - 1].word in _LINKS):
        start -= 1
    street = start > 0 and tokens[start - 1].word in _STREETS
    while start < end and tokens[start].word in _LINKS and not tokens[start].text[:1].isupper():
        start += 1
    opened = start == 0 or tokens[start - 1].word in {"a", "in", ",", ".", "sur", "de", "d'"}
    if not opened or street or any(token.word in _STREETS for token in tokens[start:end]):
        return None
    return _written(tokens[start:end])


def _is_name(token: Token) -> bool:
    return token.is_word and token.text[:1].isupper() and token.word not in _NOT_TOWNS


def _is_link(tokens: Sequence[Token], at: int, start: int) -> bool:
    """Whether a small word stands inside a name (Aix en Provence), not at its end."""
    if at == start or tokens[at].word not in _LINKS:
        return False
    return any(_is_name(token) for token in tokens[at + 1 : at + 3])


def _written(tokens: Sequence[Token]) -> str | None:
    if not any(_is_name(token) for token in tokens):
        return None
    return "".join(
        token.text + ("" if index + 1 == len(tokens) or token.end == tokens[index + 1].start else " ")
        for index, token in enumerate(tokens)
    )
