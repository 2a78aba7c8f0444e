"""The appointment: the day and time last agreed on, else the last that the caller asked for.

Reads the turns in order and keeps two things: what the assistant has offered, and what stands. The caller's
own words set what stands; an offer stands when the caller agrees to it; what he declines falls. Days that are
named for another reason (the date of an invoice, holidays, opening hours, a deadline) are passed over."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from handlehome.extract.rules.dates import DayMention, days_in
from handlehome.extract.rules.dialogue import Dialogue, Turn, agrees, declines, is_question
from handlehome.extract.rules.numbers import in_figures
from handlehome.extract.rules.times import TimeMention, times_in

__all__ = ["Slot", "find"]

# Words right before a day that make it something else than the day of an appointment.
_NOT_BEFORE = re.compile(
    r"\b(?:pas|sauf|avant|d'ici|jusqu'a|jusqu'au|depuis|a partir de|a partir du|apres|au lieu de|au lieu du"
    r"|plutot que"
    r"|not|except|instead of|rather than|before|by|until|till|since|after|from"
    r"|(?:facture|devis|rendez-vous|rdv|intervention|visite|courrier|commande|passage|mail|message|depannage"
    r"|travaux"
    r"|rue|avenue|place|boulevard|square|quai|cours|impasse|allee|chemin|route|street|road"
    r"|invoice|visit|appointment|letter|order)(?: \w+)? (?:du|de|d'|of|from|on))(?: le| the| du)? $"
)
# What is said of a day, in its clause or the one behind it, that takes it back.
_NOT_AFTER = re.compile(
    r"\b(?:(?:peux|pourrai|pourrais|marche|va|convient|arrange|pouvons|avons|reste|ai|a|suis|serai|sera|est"
    r"|possible|irait"
    r"|travaille) (?:pas|plus)|pas (?:possible|disponible|dispo|la|libre)|plus (?:de place|rien|possible)"
    r"|impossible"
    r"|complet|plein|annulee?|cancell?ed|ferme|absente?|en deplacement|je travaille|can't|cannot|won't"
    r"|doesn't|don't"
    r"|not (?:possible|free)"
    r"|no good|booked|full|closed|i'm (?:away|busy|working|out)|i work|we're (?:full|closed))\b"
)
# Sentences in which days are no appointments.
_OTHER_TALK = re.compile(
    r"\b(?:ouverts?|ouvrez|fermes?|fermez|horaires?|vacances|conges?|je (?:pars|rentre|reviens)|j'arrive"
    r"|anniversaire"
    r"|rappel\w*|factur\w*|etai[ts]|etiez|est venue?s?|etes venue?s?|ont (?:pose|fait|change|installe)"
    r"|avez (?:pose|fait"
    r"|change|installe|envoye)|a eu lieu|opening hours|are you open|open on|holidays?|was|were|came"
    r"|call(?:ed)? you"
    r"|call (?:me )?back)\b"
)
_HAD = re.compile(r"\b(?:j'ai|j'avais|on a|on avait|nous avons|i have|i had|i've got|we have)\b[^.!?]{0,30}$")
_MOVES = re.compile(
    r"\b(?:decaler|deplacer|reporter|repousser|avancer|annuler|changer|modifier|reschedule|move|cancel"
    r"|change|postpone)\b"
)
_CALLS_OFF = re.compile(
    r"\b(?:vais (?:y )?reflechir|(?:je|vous|on) (?:vous )?rappelle(?:rai)?|laissez tomber|plus besoin"
    r"|annule[zr]?|tant pis"
    r"|think about it|call you back|never mind|cancel)\b"
)
_CORRECTS = re.compile(r"\b(?:non|pardon|plutot|enfin|excusez|sorry|no|rather|actually|i mean)\b")
_EITHER = re.compile(r"^\W*(?:ou|or)\b(?: bien| alors)?\W*(?:le |the |on )?$")
_SAME_DAY = re.compile(r"^[\s,]*(?:(?:donc|soit|alors|c'est-a-dire|le|so|that's|the|which is|de|du)[\s,]*)*$")
_SAME_TIME = re.compile(r"\b(?:meme heure|pareil|same time)\b")
_THANKS = re.compile(r"\b(?:merci|thanks|thank you)\b")


@dataclass(frozen=True, slots=True)
class Slot:
    """A day and, if it was said, a time (HH:MM)."""

    day: dt.date
    time: str | None = None


@dataclass(frozen=True, slots=True)
class _Said:
    """What a turn says of appointments: the days it names for one, those it rules out, and times.

    `either` is set when several days or times are left to choose from.
    """

    slots: tuple[Slot, ...]
    ruled_out: frozenset[dt.date]
    times: tuple[str, ...]
    either: bool


def find(dialogue: Dialogue, today: dt.date, region: str = "FR") -> Slot | None:
    """The appointment of a call that took place on a day, None when none was made or asked for."""
    stands: Slot | None = None
    offers: tuple[Slot, ...] = ()
    asked = False
    for turn in dialogue.turns:
        known = (*offers, *((stands,) if stands else ()))
        said = _read(turn, today, dialogue.language, region, known)
        if turn.role == "assistant":
            if stands is not None and stands.day in said.ruled_out:
                stands = None
            offers = _offered(said, offers, stands)
            asked = is_question(turn)
        else:
            stands, offers = _answered(turn, said, offers, stands, asked)
    if stands is not None and len(offers) == 1 and offers[0].day == stands.day and stands.time is None:
        return offers[0]
    return stands


def _offered(said: _Said, offers: tuple[Slot, ...], stands: Slot | None) -> tuple[Slot, ...]:
    if said.slots:
        known = {slot.day: slot.time for slot in (*offers, *((stands,) if stands else ()))}
        return tuple(replace(slot, time=slot.time or known.get(slot.day)) for slot in said.slots)
    base = offers[0] if len(offers) == 1 else stands
    if base is not None and len(said.times) == 1 and not said.either:
        return (replace(base, time=said.times[0]),)
    return offers


def _answered(
    turn: Turn, said: _Said, offers: tuple[Slot, ...], stands: Slot | None, asked: bool
) -> tuple[Slot | None, tuple[Slot, ...]]:
    """What stands, and what is still offered, after a turn of the caller."""
    offer = offers[0] if len(offers) == 1 else None
    base = offer or stands
    left: tuple[Slot, ...] = ()
    if said.slots and said.either:
        stands, left = None, said.slots
    elif said.slots:
        stands = _wished(said.slots[-1], turn, offer, stands)
    elif _CALLS_OFF.search(turn.plain):
        stands = None
    elif said.times and not said.either and base is not None:
        stands = replace(base, time=said.times[-1])
    elif offer is not None and _accepts(turn, asked):
        stands = offer
    elif offer is not None and stands is not None and offer.day == stands.day and not declines(turn):
        stands = offer if stands.time is None else stands
    elif said.ruled_out or declines(turn):
        fallen = said.ruled_out | ({slot.day for slot in offers} if declines(turn) else set())
        stands = None if stands is not None and stands.day in fallen else stands
    else:
        left = offers
    return stands, left


def _wished(slot: Slot, turn: Turn, offer: Slot | None, stands: Slot | None) -> Slot:
    """The day that the caller names, with the time that was spoken of for it if he names none."""
    if slot.time is not None:
        return slot
    for known in (offer, stands):
        if known is not None and (known.day == slot.day or _SAME_TIME.search(turn.plain)):
            return replace(slot, time=known.time)
    return slot


def _accepts(turn: Turn, asked: bool) -> bool:
    return agrees(turn) or (not asked and _THANKS.search(turn.plain) is not None and not declines(turn))


def _read(turn: Turn, today: dt.date, language: str, region: str, known: Sequence[Slot]) -> _Said:
    text = in_figures(turn.tokens, language)
    mentions = days_in(text, today, language, region)
    times = [time for time in times_in(text, language) if not _OTHER_TALK.search(_sentence(text, time.start))]
    kept: list[tuple[DayMention, dt.date]] = []
    ruled_out: set[dt.date] = set()
    for index, mention in enumerate(mentions):
        following = mentions[index + 1].start if index + 1 < len(mentions) else len(text)
        day = _in_context(mention, known)
        if day is None or day < today:
            continue
        if _is_other_talk(text, mention, turn.plain, known):
            continue
        if _NOT_BEFORE.search(_before(text, mention)):
            continue
        if _NOT_AFTER.search(_remark(text, mention.end, following)):
            ruled_out.add(day)
            continue
        kept.append((mention, day))
    kept = _without_corrected(text, _once(text, kept))
    times = _times_left(text, times)
    either = any(_EITHER.search(text[first.end : second.start]) for (first, _), (second, _) in pairwise(kept))
    asks_which = _several(text, times)
    slots = tuple(Slot(day, _time_of(mention, day, kept, times, asks_which)) for mention, day in kept)
    distinct = tuple(dict.fromkeys(slots))
    if not either and distinct:
        days = {slot.day for slot in distinct}
        if len(days) == 1:
            distinct = (max(distinct, key=lambda slot: slot.time is not None),)
        elif turn.role == "caller":
            distinct = distinct[-1:]
    return _Said(distinct, frozenset(ruled_out), tuple(time.time for time in times), either or asks_which)


def _in_context(mention: DayMention, known: Sequence[Slot]) -> dt.date | None:
    """The day; "jeudi" or "le 16" means the one that was spoken of before, if it is one."""
    for slot in known:
        if mention.weekday is not None and slot.day.weekday() == mention.weekday:
            return slot.day
        if mention.bare is not None and slot.day.day == mention.bare:
            return slot.day
    return mention.day


def _is_other_talk(text: str, mention: DayMention, plain: str, known: Sequence[Slot]) -> bool:
    if mention.habitual and mention.day is not None:
        chosen = any(slot.day.weekday() == mention.weekday for slot in known)
        if not chosen and not re.search(r"\b(?:plutot|alors|ou|disons) $", _before(text, mention)):
            return True
    if _OTHER_TALK.search(_clause(text, mention.start, mention.end)):
        return True
    return _HAD.search(_before(text, mention)) is not None and _MOVES.search(plain) is not None


def _before(text: str, mention: DayMention) -> str:
    return text[max(0, mention.start - 80) : mention.start]


def _sentence(text: str, at: int) -> str:
    begin = max(text.rfind(sign, 0, at) for sign in (" . ", " ! ", " ? ")) + 1
    ends = [end for sign in (" .", " !", " ?") if (end := text.find(sign, at)) >= 0]
    return text[begin : min(ends, default=len(text))]


def _clause(text: str, start: int, end: int) -> str:
    """The words round a place, as far as the next comma on either side."""
    sentence_start = max(text.rfind(sign, 0, start) for sign in (" . ", " ! ", " ? ", " , "))
    ends = [at for sign in (" .", " !", " ?", " ,") if (at := text.find(sign, end)) >= 0]
    return text[max(0, sentence_start) : min(ends, default=len(text))]


def _remark(text: str, start: int, following: int) -> str:
    """What is said of a day behind it: up to the next day, the end of the sentence, "mais" or "donc"."""
    return re.split(r" [.!?;](?: |$)|\b(?:mais|donc|but|so)\b", text[start:following])[0][:80]


def _once(text: str, kept: Sequence[tuple[DayMention, dt.date]]) -> list[tuple[DayMention, dt.date]]:
    """Two names of one day ("mardi prochain, le 24") count as the second, which is the more exact one."""
    result: list[tuple[DayMention, dt.date]] = []
    for mention, day in kept:
        if result and _SAME_DAY.search(text[result[-1][0].end : mention.start]):
            vaguer = result.pop()
            if mention.weekday is not None and vaguer[0].weekday is None:
                result.append((mention, vaguer[1]))  # "demain mercredi": "demain" is the exact one
                continue
        result.append((mention, day))
    return result


def _without_corrected(
    text: str, kept: Sequence[tuple[DayMention, dt.date]]
) -> list[tuple[DayMention, dt.date]]:
    """Days behind the last correction ("vendredi, non pardon, jeudi"), or all of them."""
    result: list[tuple[DayMention, dt.date]] = []
    for mention, day in kept:
        if result and _CORRECTS.search(text[result[-1][0].end : mention.start]):
            result = []
        result.append((mention, day))
    return result


def _times_left(text: str, times: Sequence[TimeMention]) -> list[TimeMention]:
    result: list[TimeMention] = []
    for time in times:
        if result and _CORRECTS.search(text[result[-1].end : time.start]):
            result = []
        result.append(time)
    return result


def _several(text: str, times: Sequence[TimeMention]) -> bool:
    """Whether times are offered to choose from: "dix heures ou quatorze heures"."""
    return any(
        re.search(r"\b(?:ou|or)\b", text[first.end : second.start]) is not None
        for first, second in pairwise(times)
    )


def _time_of(
    mention: DayMention,
    day: dt.date,
    kept: Sequence[tuple[DayMention, dt.date]],
    times: Sequence[TimeMention],
    several: bool,
) -> str | None:
    """The time that belongs to a day: the last one behind it; the only day may have it before, too."""
    if several or not times:
        return None
    following = min(
        (other.start for other, its in kept if other.start > mention.start and its != day), default=None
    )
    behind = [t.time for t in times if t.start >= mention.end and (following is None or t.start < following)]
    if behind:
        return behind[-1]
    return times[-1].time if len({its for _, its in kept}) == 1 else None
