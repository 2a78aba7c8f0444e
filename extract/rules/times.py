"""Times of day as people say them: "14 h 30", "neuf heures et quart", "half past two".

Works on text whose number words are figures already (`numbers.in_figures`). Of a span ("entre 13 et 15
heures") the beginning counts. Lengths and limits ("pendant deux heures", "avant 18 heures") are no times. One
to six o'clock is in the afternoon unless it is said to be in the morning: nobody sends a plumber at four."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["TimeMention", "times_in"]

_H = r"(?P<h>[01]?\d|2[0-3])"
_PATTERNS = {
    "fr": (
        re.compile(
            rf"(?:\bentre |\bde ){_H}(?: ?h(?:eures?)?\b)?(?: ?(?P<m>[0-5]\d)\b)? (?:et"
            rf"|a) \d{{1,2}} ?h(?:eures?)?\b(?: [0-5]\d\b)?"
        ),
        re.compile(
            rf"\b{_H} ?h(?:eures?)?\b(?: ?(?P<m>[0-5]\d|5)\b(?! ?(?:h|euros|minutes de)\b)"
            rf"| et (?P<part>demie?|quart)"
            r"| moins (?:le )?(?P<less>quart|\d{1,2}))?"
        ),
        re.compile(rf"\b{_H}:(?P<m>[0-5]\d)\b"),
        re.compile(
            r"\b(?<!apres-)(?<!apres )(?P<noon>midi|minuit)\b"
            r"(?: et (?P<part>demie?|quart)| (?P<m>[0-5]\d)\b)?"
        ),
    ),
    "en": (
        re.compile(rf"\b(?P<past>half|quarter|\d{{1,2}}) (?P<way>past|to) {_H}\b"),
        re.compile(rf"\b{_H}(?:[: ](?P<m>[0-5]\d))? ?(?P<half>a ?\. ?m|p ?\. ?m|am|pm)\b"),
        re.compile(rf"\b{_H}:(?P<m>[0-5]\d)\b"),
        re.compile(rf"\b{_H} o'clock\b"),
        re.compile(
            rf"\b(?:at|around|about|from|between) {_H}(?: (?P<m>[0-5]\d))?\b(?! ?(?:\d|/|%|hours?|minutes?"
            rf"|days?|pounds|dollars|[a-z]+ (?:road|street|avenue|lane)))"
        ),
        re.compile(r"\b(?P<noon>noon|midday|midnight)\b"),
    ),
}
_NOT_BEFORE = re.compile(
    r"\b(?:dans|pendant|durant|depuis|il y a|avant|d'ici|jusqu'a|en|toutes les|d'|moins de|plus de|environ"
    r"|combien"
    r"|sous|before|until|till|by|for|within|since|every|after)(?: les| l'| environ)? $"
)
_NOT_AFTER = re.compile(r"^ (?:de (?:travail|route|trajet|main)|plus tard|avant|sur 24|later|ago|hours?)\b")
_LENGTH = re.compile(r"\b(?:dure|durer|durera|prend|prendre|prendra|takes?)\b[^.]{0,20}$")
_NEAR = 200  # characters on either side that say something about a time
_MORNING = re.compile(r"\b(?:du matin|in the morning|le matin|ce matin|demain matin)\b")
_AFTERNOON = re.compile(
    r"\b(?:de l'apres-midi|apres-midi|du soir|ce soir|le soir|demain soir|(?:in the|this) (?:afternoon"
    r"|evening)|afternoon"
    r"|evening|tonight|tomorrow evening)\b"
)


@dataclass(frozen=True, slots=True)
class TimeMention:
    """A time of day, HH:MM, and where its words stand in the text."""

    time: str
    start: int
    end: int


def times_in(text: str, language: str) -> list[TimeMention]:
    """The times of day that a text names, in order, none overlapping another.

    Args:
        text: folded, with figures; see `numbers.in_figures`.
        language: "fr" or "en".
    """
    found: list[TimeMention] = []
    for pattern in _PATTERNS[language]:
        for match in pattern.finditer(text):
            if any(match.start() < other.end and other.start < match.end() for other in found):
                continue
            before, after = text[max(0, match.start() - _NEAR) : match.start()], text[match.end() :][:_NEAR]
            if _NOT_BEFORE.search(before) or _NOT_AFTER.search(after) or _LENGTH.search(before):
                continue
            found.append(TimeMention(_resolve(match, before, after), match.start(), match.end()))
    return sorted(found, key=lambda mention: mention.start)


def _resolve(match: re.Match[str], before: str, after: str) -> str:
    groups = match.groupdict()
    hour = {"minuit": 0, "midnight": 0}.get(groups["noon"], 12) if groups.get("noon") else int(groups["h"])
    minute = int(groups.get("m") or 0)
    if groups.get("part"):
        minute = 15 if groups["part"] == "quart" else 30
    if groups.get("less"):
        hour, minute = hour - 1, 60 - (15 if groups["less"] == "quart" else int(groups["less"]))
    if groups.get("past"):
        minute = {"half": 30, "quarter": 15}.get(groups["past"]) or int(groups["past"])
        if groups["way"] == "to":
            hour, minute = hour - 1, 60 - minute
    if not groups.get("noon"):
        hour = _of_24(hour, (groups.get("half") or "")[:1], before, after)
    return f"{hour % 24:02}:{minute % 60:02}"


def _of_24(hour: int, half: str, before: str, after: str) -> int:
    """The hour of 24: by "a" or "p" if it was said, else by what stands in the same sentence."""
    if half == "a":
        return hour % 12
    closest = re.match(rf" (?:{_MORNING.pattern}|(?P<pm>{_AFTERNOON.pattern}))", after)
    sentence = re.split(r" [.!?] ", before)[-1] + "|" + re.split(r" [.!?](?: |$)", after)[0]
    if half == "p" or (closest is not None and closest["pm"]):
        later = True
    elif closest is not None:
        later = False
    elif _AFTERNOON.search(sentence):
        later = True
    else:
        later = hour <= 6 and not _MORNING.search(sentence)
    return hour + 12 if later and 0 < hour < 12 else hour
