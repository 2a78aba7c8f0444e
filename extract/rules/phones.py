"""The caller's telephone number: dictated in any grouping, in pieces, corrected, read back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import phonenumbers

from handlehome.extract import normalise
from handlehome.extract.rules.dialogue import Dialogue, Turn, agrees
from handlehome.extract.rules.numbers import FILLERS, number_words_split, readings
from handlehome.extract.rules.owners import is_own
from handlehome.extract.rules.tokens import Token, words

__all__ = ["Phone", "Plan", "find", "numbers_in"]

_MIN_DIGITS, _MAX_DIGITS = 8, 15
_MOST_CHECKS = 200  # readings of one run that are looked up; dictated numbers have a handful
_HESITATIONS = {"euh", "heu", "hum", "hm", "um", "uh", "er", "erm", "…"}
_REFERENCES = words(
    "facture dossier reference ref contrat devis commande client siret siren serie iban carte compte invoice "
    "order account contract case card policy"
)
_OUR_OWN = re.compile(
    r"rappelez[- ]nous|appelez[- ]nous|nous joindre|notre numero|numero d'urgence|call us|our number|reach us"
)
_ABOUT_THE_CALLER = re.compile(
    r"\b(votre|meme numero|joindre|rappelle|repete|reprends|recapitul\w+|c'est (bien|ca)|donc|your"
    r"|so that's)\b"
)
_ALSO = re.compile(r"^(?!.*\b(?:plutot|non|instead|rather)\b).*\b(?:ou|sinon|aussi|or|also|otherwise)\b")
_MISTAKE = re.compile(r"\b(non|pardon|trompee?|erreur|excusez|desolee?|sorry|no|wrong)\b")
_TAIL = re.compile(r"\b(finit|termine|fini|ends?|ending)( \w+)? (par|in|with|on)\b|\b(a la fin|at the end)\b")

_SURE, _HEARD, _READ_BACK, _UNSURE = 0.98, 0.9, 0.8, 0.6


@dataclass(frozen=True, slots=True)
class Plan:
    """How numbers are read.

    Attributes:
        region: where a number without a country code is from.
        language: of the number words.
        caller: the number that called, E.164: who says the same digits without their country code means it.
    """

    region: str
    language: str
    caller: str | None = None


@dataclass(frozen=True, slots=True)
class Phone:
    """A telephone number.

    Attributes:
        number: E.164.
        turns: indexes of the turns that it was said in.
        confidence: 0 to 1.
        pieces: the digits as they were grouped.
        start: where it begins among the tokens searched.
        end: where it ends among them.
        own: it is the caller's.
        also: it was offered besides another one.
    """

    number: str
    turns: tuple[int, ...]
    confidence: float
    pieces: tuple[str, ...]
    start: int = 0
    end: int = 0
    own: bool = True
    also: bool = False


def find(dialogue: Dialogue, region: str, caller: str | None = None) -> Phone | None:
    """The caller's number as he gave it or agreed to it; the last word counts.

    Args:
        dialogue: the call.
        region: see `Plan`.
        caller: see `Plan`.
    """
    plan = Plan(region, dialogue.language, caller)
    best: Phone | None = None
    for turns in _in_order(dialogue):
        if turns[0].role == "caller":
            best = _said(turns, best, plan)
        else:
            best = _read_back(turns[0], best, dialogue, plan)
    return best


def _in_order(dialogue: Dialogue) -> list[list[Turn]]:
    groups = [*dialogue.utterances(), *([turn] for turn in dialogue.turns if turn.role == "assistant")]
    return sorted(groups, key=lambda group: group[-1].index)


def _said(turns: Sequence[Turn], best: Phone | None, plan: Plan) -> Phone | None:
    tokens = number_words_split([token for turn in turns for token in turn.tokens], plan.language)
    found = [phone for phone in numbers_in(tokens, plan, turns[0].asks) if phone.own]
    since = 0
    for phone in found:
        if best is None or not phone.also:
            best = phone
        since = phone.end
    return None if best is None else _corrected(best, tokens[since:], plan)


def _read_back(turn: Turn, best: Phone | None, dialogue: Dialogue, plan: Plan) -> Phone | None:
    if _OUR_OWN.search(turn.plain):
        return best
    tokens = number_words_split(turn.tokens, plan.language)
    found = numbers_in(tokens, plan)
    if len(found) != 1:
        return best
    (phone,) = found
    answer = dialogue.after(turn)
    agreed = agrees(answer)
    if best is not None and best.number == phone.number:
        turns = (*best.turns, turn.index) if agreed else best.turns
        return replace(best, turns=turns, confidence=_SURE)
    before = dialogue.before(turn)
    dictated = before is not None and any(
        readings(before.tokens, at, plan.language) for at in range(len(before.tokens))
    )
    if not agreed or answer is None or not (dictated or _ABOUT_THE_CALLER.search(turn.plain)):
        return best
    turns = (*(best.turns if best else ()), turn.index, answer.index)
    return replace(phone, turns=turns, confidence=_READ_BACK)


def numbers_in(tokens: Sequence[Token], plan: Plan, asks: str = "") -> list[Phone]:
    """All telephone numbers among some tokens, in order.

    Args:
        tokens: words of one speaker; see `numbers.number_words_split`.
        plan: how they are read.
        asks: what the assistant had asked before.
    """
    found: list[Phone] = []
    since = 0
    for start, end in _runs(tokens, plan.language):
        at = start
        while at < end:
            phone = _number_at(tokens, at, end, plan)
            if phone is None:
                at += 1
                continue
            near = {token.word for token in tokens[max(since, phone.start - 5) : phone.start]}
            before = " ".join(token.word for token in tokens[max(since, phone.start - 5) : phone.start])
            if not near & _REFERENCES:
                own = is_own(tokens, phone.start, phone.end, since, asks)
                found.append(replace(phone, own=own, also=_ALSO.search(before) is not None))
            at = since = phone.end
    return found


def _runs(tokens: Sequence[Token], language: str) -> Iterator[tuple[int, int]]:
    """Stretches of numbers with nothing but fillers between them."""
    at = 0
    while at < len(tokens):
        if not readings(tokens, at, language):
            at += 1
            continue
        start = at
        end = at
        while at < len(tokens):
            found = readings(tokens, at, language)
            if found:
                at = end = found[0][1]
            elif tokens[at].word in FILLERS:
                at += 1
            else:
                break
        yield start, end


def _number_at(tokens: Sequence[Token], start: int, end: int, plan: Plan) -> Phone | None:
    """The longest number that begins at `start`; one that uses up the whole run is better than any other."""
    plus = start > 0 and tokens[start - 1].word in {"+", "plus"}
    found: Phone | None = None
    rank = (False, 0)
    checks = 0
    for pieces, stop in _groupings(tokens, start, end, plan.language):
        digits = "".join(pieces)
        if not _may_be_whole(digits, plus, plan.region):
            continue
        checks += 1
        if checks > _MOST_CHECKS:
            break
        number = _e164(digits, plus, plan)
        whole = not any(readings(tokens, at, plan.language) for at in range(stop, end))
        if number is not None and (whole, len(digits)) > rank:
            rank = (whole, len(digits))
            said_in = tuple(dict.fromkeys(token.turn for token in tokens[start:stop]))
            found = Phone(number, said_in, _HEARD if whole else _UNSURE, pieces, start - plus, stop)
    return found


def _groupings(
    tokens: Sequence[Token], start: int, end: int, language: str
) -> Iterator[tuple[tuple[str, ...], int]]:
    """All ways to read numbers on from `start`: the groups of digits so far, and where the last of them ends.

    A group that is said twice round a hesitation may be one.
    """
    waiting: list[tuple[tuple[str, ...], int, bool]] = [((), start, False)]
    seen: set[tuple[str, int]] = set()
    while waiting:
        pieces, at, hesitated = waiting.pop()
        while at < end and at > start and tokens[at].word in FILLERS and not readings(tokens, at, language):
            hesitated = hesitated or tokens[at].word in _HESITATIONS
            at += 1
        if at >= end:
            continue
        for digits, stop in reversed(readings(tokens, at, language)):
            longer = (*pieces, digits)
            key = ("".join(longer), stop)
            if len(key[0]) > _MAX_DIGITS or key in seen:
                continue
            seen.add(key)
            yield longer, stop
            if hesitated and pieces and pieces[-1] == digits:
                waiting.append((pieces, stop, False))
            waiting.append((longer, stop, False))


def _may_be_whole(digits: str, plus: bool, region: str) -> bool:
    if not _MIN_DIGITS <= len(digits) <= _MAX_DIGITS:
        return False
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region.upper(), None)
    trunk = metadata.national_prefix if metadata is not None else None
    # Nearly nobody leaves the trunk prefix out, and without it many a reference number would be a telephone.
    return plus or trunk != "0" or digits.startswith("0")


def _e164(digits: str, plus: bool, plan: Plan) -> str | None:
    if plus:
        return normalise.phone("+" + digits, plan.region)
    national = digits.lstrip("0")
    if plan.caller is not None and national != digits and plan.caller.endswith(national):
        known = normalise.phone(plan.caller, plan.region)
        if known is not None and len(known) - len(national) <= 4:  # "+" and a country code
            return known
    return normalise.phone(digits, plan.region)


def _corrected(phone: Phone, after: Sequence[Token], plan: Plan) -> Phone:
    """The number with what was said behind it: "pardon, pas 12 mais 22", "non, ça finit par 46"."""
    said_after = [token.word for token in after]
    plain = " ".join(said_after)
    pieces = list(phone.pieces)
    for at, word in enumerate(said_after):
        if word not in {"pas", "not"}:
            continue
        wrong = readings(after, at + 1, plan.language) if at + 1 < len(after) else []
        if not wrong:
            continue
        digits, stop = wrong[0]
        while stop < len(after) and after[stop].word in {",", "mais", "but", "c'", "est", "it's"}:
            stop += 1
        right = readings(after, stop, plan.language) if stop < len(after) else []
        if right and digits in pieces:
            pieces[len(pieces) - 1 - pieces[::-1].index(digits)] = right[0][0]
            break
    else:
        said = [found[0][0] for at in range(len(after)) if (found := readings(after, at, plan.language))]
        if not (said and _MISTAKE.search(plain) and _TAIL.search(plain)):
            return phone
        whole = "".join(pieces)
        pieces = [whole[: len(whole) - len(said[-1])], said[-1]]
    plus = phone.number.startswith("+" + "".join(phone.pieces))
    number = _e164("".join(pieces), plus, plan)
    if number is None or number == phone.number:
        return phone
    turns = tuple(dict.fromkeys((*phone.turns, after[0].turn)))
    return replace(phone, number=number, pieces=tuple(pieces), turns=turns)
