"""Days as people name them, resolved against the day of the call.

A general date parser reads "après-demain à 14 h 30" as a quarter past eleven at night and doesn't know "mardi
en quinze"; the dozen forms that appointments are made in are patterns here, over text whose number words are
figures already (`numbers.in_figures`). What can't be resolved to one day ("début mars", "la semaine
prochaine") is no mention.

Rules where language leaves room:
- "mardi" is the next Tuesday after the day of the call, today's weekday a week ahead; "mardi prochain" and
  "ce mardi" are the same, except that on a Monday "mardi prochain" is not tomorrow.
- "next Tuesday" is that of the calendar week after this one, "this Tuesday" the next to come.
- "dans huit jours" is a week, "dans quinze jours" two weeks; "mardi en huit" a week after "mardi".
- A day without a year is the next such day.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["DayMention", "days_in"]

_DAYS = {
    "fr": ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"),
    "en": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
}
_MONTHS = {
    "janvier": 1, "fevrier": 2, "mars": 3, "avril": 4, "mai": 5, "juin": 6, "juillet": 7, "aout": 8,
    "septembre": 9, "octobre": 10, "novembre": 11, "decembre": 12,
    "janv": 1, "fevr": 2, "juil": 7, "sept": 9, "oct": 10, "nov": 11, "dec": 12,
    "january": 1, "february": 2, "march": 3, "april": 4, "may": 5, "june": 6, "july": 7, "august": 8,
    "september": 9, "october": 10, "november": 11, "december": 12,
}  # fmt: skip
_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14,
    "fifteenth": 15, "sixteenth": 16, "seventeenth": 17, "eighteenth": 18, "nineteenth": 19, "twentieth": 20,
    "thirtieth": 30, "premier": 1,
}  # fmt: skip
# French numbers of days that mean weeks.
_WEEKS = {8: 7, 15: 14}

_WD_FR, _WD_EN = "|".join(_DAYS["fr"]), "|".join(_DAYS["en"])
_MO = "|".join(sorted(_MONTHS, key=len, reverse=True))
_ORD = "|".join(_ORDINALS)
# "the first" and "the second" are mostly of two things, not of the month.
_ORD_BARE = "|".join(word for word, day in _ORDINALS.items() if day > 2)
_N = rf"(?P<n>\d{{1,2}}|(?:20|30)? ?(?:{_ORD}))(?: ?(?:er|st|nd|rd|th)\b)?"
_YEAR = r"(?: ,? ?(?P<year>20\d\d)\b)?"
_NUMERIC = r"(?P<n>\d{1,2})/(?P<m>\d{1,2})(?:/(?P<year>\d{4}|\d{2}))?\b"
_ISO = r"(?P<year>20\d\d)-(?P<m>\d\d)-(?P<n>\d\d)\b"
# What may follow a bare day of the month ("le 15"), so that "le 15 rue Hoche" and "le 06 12" are none.
_ENDS = (
    r"(?=$| [.,;!?)]| (?:a|au|vers|des|matin|apres-midi|soir|ou|et|si|ce|c'est|ca|est|pour|dans|en|je|il"
    r"|on|peu|at|or|in|if|is|would|works|then|alors|donc)\b)"
)

_PATTERNS = {
    "fr": (
        ("date", rf"(?:(?P<wd>{_WD_FR}) )?(?:le )?{_N} (?P<month>{_MO})\b{_YEAR}"),
        ("numeric", _NUMERIC),
        ("iso", _ISO),
        (
            "week",
            r"(?:la )?semaine prochaine(?: ,)?(?: (?:plutot|donc|alors|si possible|euh|disons|le|,))*"
            rf" (?P<wd>{_WD_FR})\b(?! \d)",
        ),
        (
            "week",
            rf"(?P<wd>{_WD_FR})(?: matin| soir| apres-midi)?(?: ,)? (?:de )?(?:la )?semaine prochaine\b",
        ),
        ("in", rf"(?P<wd>{_WD_FR}) (?:en|dans) (?P<count>8|15)(?: jours?)?\b"),
        ("weekday_n", rf"(?P<wd>{_WD_FR}) (?:le )?{_N}(?! ?(?:h|heures?|:|/|\d|pour|minutes?)\b)(?!\d)"),
        (
            "past",
            rf"(?:{_WD_FR}) (?:dernier|passe)\b|\bavant-hier\b|\bhier(?: soir| matin)?\b|\bil y a \d+ \w+",
        ),
        ("weekday", rf"(?P<le>\ble )?\b(?P<wd>{_WD_FR})\b(?P<next> (?:prochain|qui vient|suivant))?"),
        ("relative", r"\bapres-demain\b|\bapres demain\b"),
        ("relative", r"\b(?:demain|aujourd'hui|ce matin|cet? apres-midi|ce soir)\b"),
        ("in", r"\bdans (?P<count>\d+|une?) (?P<unit>jours?|semaines?)\b"),
        ("fortnight", r"\bdans (?:1|une) quinzaine\b"),
        ("bare", rf"\ble (?P<n>\d{{1,2}})(?: ?er\b)?{_ENDS}"),
    ),
    "en": (
        ("date", rf"(?:(?P<wd>{_WD_EN}) )?(?:, )?(?:the )?{_N} (?:of )?(?P<month>{_MO})\b{_YEAR}"),
        ("date", rf"(?:(?P<wd>{_WD_EN}) )?(?:, )?\b(?P<month>{_MO}) (?:the )?{_N}\b(?!:){_YEAR}"),
        ("numeric", _NUMERIC),
        ("iso", _ISO),
        ("in", rf"\ba week on (?P<wd>{_WD_EN})\b|\b(?P<wd2>{_WD_EN}) week\b"),
        (
            "week",
            rf"\bnext (?P<wd>{_WD_EN})\b|\b(?P<wd2>{_WD_EN})(?: of)? next week\b"
            rf"|\bnext week(?: on)? (?P<wd3>{_WD_EN})\b",
        ),
        ("past", rf"\blast (?:{_WD_EN})\b|\byesterday\b|\b\d+ (?:days?|weeks?) ago\b"),
        ("weekday_n", rf"(?P<wd>{_WD_EN}) (?:the ){_N}"),
        ("weekday", rf"\b(?P<wd>{_WD_EN})\b"),
        ("relative", r"\b(?:the )?day after tomorrow\b"),
        ("relative", r"\b(?:tomorrow|today|this (?:morning|afternoon|evening)|tonight)\b"),
        ("in", r"\bin (?P<count>\d+|an?) (?P<unit>days?|weeks?)\b"),
        ("fortnight", r"\bin a fortnight\b"),
        (
            "bare",
            rf"\bthe (?P<n>\d{{1,2}}(?= ?(?:st|nd|rd|th)\b)|(?:20|30) (?:{_ORD})|(?:{_ORD_BARE}))"
            rf"(?: ?(?:st|nd|rd|th))?{_ENDS}",
        ),
    ),
}
_COMPILED = {
    language: tuple((kind, re.compile(pattern)) for kind, pattern in patterns)
    for language, patterns in _PATTERNS.items()
}
_FAR = 300  # days; a day and month that come round so late are more likely just past


@dataclass(frozen=True, slots=True)
class DayMention:
    """A day that somebody named.

    Attributes:
        day: which, None when it lies in the past or is none ("le 31 juin").
        start: where its words begin in the text.
        end: where they end.
        weekday: 0 for Monday, when that is all that was said of it: the context may know a better day.
        bare: the day of the month, likewise.
        habitual: "le mardi" alone, which mostly means each Tuesday.
    """

    day: dt.date | None
    start: int
    end: int
    weekday: int | None = None
    bare: int | None = None
    habitual: bool = False


def days_in(text: str, today: dt.date, language: str, region: str = "FR") -> list[DayMention]:
    """The days that a text names, in order, none overlapping another.

    Args:
        text: folded, with figures; see `numbers.in_figures`.
        today: the day of the call, where it was called.
        language: "fr" or "en".
        region: "US" writes the month first.
    """
    found: list[DayMention] = []
    for kind, pattern in _COMPILED[language]:
        for match in pattern.finditer(text):
            if any(match.start() < other.end and other.start < match.end() for other in found):
                continue
            mention = _resolve(kind, match, today, language, region)
            if mention is not None:
                found.append(mention)
    return sorted(found, key=lambda mention: mention.start)


def _resolve(
    kind: str, match: re.Match[str], today: dt.date, language: str, region: str
) -> DayMention | None:
    groups = match.groupdict()
    name = next((groups[key] for key in ("wd", "wd2", "wd3") if groups.get(key)), None)
    weekday = _DAYS[language].index(name) if name else None
    number = _day_number(groups.get("n"))
    span = (match.start(), match.end())
    day: dt.date | None = None
    match kind:
        case "date" | "numeric" | "iso":
            month = _MONTHS[groups["month"]] if groups.get("month") else int(groups["m"])
            if kind == "numeric" and region == "US":
                number, month = month, number or 0
            day = _calendar_day(number, month, groups.get("year"), today)
        case "past":
            day = None
        case "week" if weekday is not None:
            day = today + dt.timedelta(7 - today.weekday() + weekday)
        case "in":
            day = _ahead(groups, weekday, today, language)
        case "fortnight":
            day = today + dt.timedelta(14)
        case "weekday_n" if weekday is not None and number is not None:
            day = _weekday_and_number(weekday, number, today)
            if day is None:
                return None
        case "weekday" if weekday is not None:
            day = _next(weekday, today)
            if groups.get("next") and day - today == dt.timedelta(1):
                day += dt.timedelta(7)
            habitual = bool(groups.get("le")) and not groups.get("next")
            return DayMention(day, *span, weekday=weekday, habitual=habitual)
        case "relative":
            day = today + dt.timedelta(_offset(match[0]))
        case "bare" if number is not None:
            day = _day_of_month(number, today)
            return DayMention(day, *span, bare=number) if day is not None else None
    return DayMention(day, *span)


def _day_number(text: str | None) -> int | None:
    """The number of "3", "third", "20 third"."""
    if not text:
        return None
    tens, _, ordinal = text.rpartition(" ") if not text.isdecimal() else (text, "", "")
    return (int(tens) if tens.strip().isdecimal() else 0) + _ORDINALS.get(ordinal, 0)


def _offset(words: str) -> int:
    if words.startswith(("apres", "day after", "the day after")):
        return 2
    return 1 if words in {"demain", "tomorrow"} else 0


def _ahead(
    groups: Mapping[str, str | None], weekday: int | None, today: dt.date, language: str
) -> dt.date | None:
    """The day of "mardi en huit", "dans trois semaines", "in two days"."""
    count = groups.get("count") or "8"
    days = int(count) if count.isdecimal() else 1
    if (groups.get("unit") or "").startswith(("sem", "week")):
        days *= 7
    if language == "fr" or weekday is not None:
        days = _WEEKS.get(days, days)
    if days > 366:
        return None
    return (today if weekday is None else _next(weekday, today)) + dt.timedelta(days)


def _next(weekday: int, today: dt.date) -> dt.date:
    return today + dt.timedelta((weekday - today.weekday() - 1) % 7 + 1)


def _calendar_day(number: int | None, month: int, year: str | None, today: dt.date) -> dt.date | None:
    if number is None or not 1 <= month <= 12:
        return None
    if year:
        named = int(year) + (2000 if len(year) == 2 else 0)
        day = _date(named, month, number)
    else:
        # Four years reach the next 29th of February.
        years = range(today.year, today.year + 5)
        day = next((day for y in years if (day := _date(y, month, number)) and day >= today), None)
        if day is not None and (day - today).days > _FAR and (month, number) != (2, 29):
            return None
    return day if day is not None and day >= today else None


def _weekday_and_number(weekday: int, number: int, today: dt.date) -> dt.date | None:
    """The next day that is both, within three months; a pair that isn't one is a mishearing."""
    for days in range(92):
        day = today + dt.timedelta(days)
        if day.weekday() == weekday and day.day == number:
            return day
    return None


def _day_of_month(number: int, today: dt.date) -> dt.date | None:
    return next((day for day in _month_days(number, today) if day >= today), None)


def _month_days(number: int, today: dt.date) -> Iterator[dt.date]:
    for ahead in range(3):
        year, month = divmod(today.year * 12 + today.month - 1 + ahead, 12)
        if 1 <= number <= calendar.monthrange(year, month + 1)[1]:
            yield dt.date(year, month + 1, number)


def _date(year: int, month: int, day: int) -> dt.date | None:
    try:
        return dt.date(year, month, day)
    except ValueError:
        return None
