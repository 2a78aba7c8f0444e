"""Values in their one form: E.164 numbers, email addresses, ISO dates; what is none becomes None.

Pure. Nothing is ever guessed or completed, with one exception that is marked: the number that called.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import email_validator
import phonenumbers

from handlehome.extract.schema import CUSTOMER_FIELDS, MODES, REQUEST_TYPES, SENTIMENTS, URGENCIES

__all__ = ["data", "date", "email", "phone", "text", "time"]

_SHORT, _LONG = 200, 4000  # characters; more is no name and no description
_MAX_ITEMS: Final = 50
_PAST_DAYS, _FUTURE_DAYS = 31, 731  # an appointment lies near the call, or the date was misheard
_MAX_MINUTES: Final = 14 * 24 * 60
_NOTHING: Final = frozenset({
    "", "-", "?", "n/a", "na", "none", "null", "nil", "unknown", "not specified", "not provided",
    "not mentioned", "inconnu", "inconnue", "non précisé", "non précisée", "non communiqué",
    "non communiquée", "non spécifié", "non spécifiée", "non renseigné", "non renseignée",
})  # fmt: skip
_TIME: Final = re.compile(r"([01]?\d|2[0-3])\s*[:hH.]\s*([0-5]\d)?(?::[0-5]\d(?:\.\d+)?)?")
_POSTCODE: Final = re.compile(r"(?=.*\d)[A-Z0-9](?:[A-Z0-9 -]{1,8})[A-Z0-9]")
# Mobile numbers reserved for fiction (ARCEP, Ofcom): no numbering plan has them, but demos live on them.
_FICTION: Final = re.compile(r"\+3363998\d{4}|\+447700900\d{3}")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def phone(value: str | None, region: str) -> str | None:
    """A telephone number in E.164.

    Args:
        value: the number, national or international, with any separators.
        region: the region (ISO 3166-1 alpha-2) whose national form is understood.

    Returns:
        None when it is no number that its country's numbering plan has, short codes and Twilio's stand-ins
        for a withheld number (+266696687, ...) among them.
    """
    if not value or len(value) > _SHORT:
        return None
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return None
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return written if phonenumbers.is_valid_number(number) or _FICTION.fullmatch(written) else None


def email(value: str | None) -> str | None:
    """An email address in lower case; None when it is none. Its domain is not looked up in the DNS."""
    if not value:
        return None
    try:
        checked = email_validator.validate_email(value.strip(), check_deliverability=False)
    except email_validator.EmailNotValidError:
        return None
    # Capitals come from the speech recogniser; no mail server in use tells them apart.
    return checked.normalized.lower()


def date(value: str | None) -> str | None:
    """A day as YYYY-MM-DD, of ISO 8601 (a time behind it is dropped); None when there is no such day."""
    if not value:
        return None
    try:
        return dt.datetime.fromisoformat(value.strip()).date().isoformat()
    except ValueError:
        return None


def time(value: str | None) -> str | None:
    """A time of day as HH:MM, of 9:05, 09:05:00, 9h05, 9 h; None when there is no such time."""
    match = _TIME.fullmatch(value.strip()) if value else None
    return f"{int(match[1]):02}:{match[2] or '00'}" if match else None


def text(value: object, limit: int = _SHORT, *, cut: bool = False) -> str | None:
    """A text without control characters and surplus spaces; None when it says nothing ("unknown", "n/a").

    Args:
        value: the text; anything else gives None.
        limit: how many characters it may have.
        cut: shortens a longer one instead of giving None.
    """
    if not isinstance(value, str):
        return None
    clean = " ".join(_CONTROL.sub(" ", value).split())
    if clean.casefold().rstrip(".") in _NOTHING:
        return None
    if len(clean) > limit:
        return clean[: limit - 1].rstrip() + "…" if cut else None
    return clean


def data(
    data: Mapping[str, Any], *, region: str, caller: str | None, on: dt.date | None = None
) -> dict[str, Any]:
    """The whole data object of the default schema, normalised; what is missing or wrong in it is None.

    `customer.phone_source` is added: "said", or "caller_id" when no number was said and the number that
    called is filled in, or None. Doing it twice changes nothing.

    Args:
        data: an object of the default schema; turn ids stand in `evidence`.
        region: see `phone`.
        caller: the number that called, as Twilio gives it.
        on: the call's day; with it, an appointment far from it is None.
    """
    customer = _customer(_object(data, "customer"), region, caller)
    request, appointment = _object(data, "request"), _object(data, "appointment")
    day = date(text(appointment.get("date")))
    if day is not None and on is not None and not _is_near(dt.date.fromisoformat(day), on):
        day = None
    return {
        "customer": customer,
        "request": {
            "type": _one_of(request.get("type"), REQUEST_TYPES),
            "services": _services(request.get("services")),
            "description": text(request.get("description"), _LONG, cut=True),
            "urgency": _one_of(request.get("urgency"), URGENCIES),
        },
        "appointment": {
            "date": day,
            "time": time(text(appointment.get("time"))),
            "duration_minutes": _minutes(appointment.get("duration_minutes")),
            "mode": _one_of(appointment.get("mode"), MODES),
        },
        "follow_up": text(data.get("follow_up"), _LONG, cut=True),
        "summary": text(data.get("summary"), _LONG, cut=True),
        "language": _language(data.get("language")),
        "sentiment": _one_of(data.get("sentiment"), SENTIMENTS),
        "evidence": _evidence(data.get("evidence"), customer),
    }


def _customer(customer: Mapping[str, Any], region: str, caller: str | None) -> dict[str, Any]:
    address = _object(customer, "address")
    said = None if customer.get("phone_source") == "caller_id" else phone(text(customer.get("phone")), region)
    known = said or phone(caller, region)
    return {
        "first_name": text(customer.get("first_name")),
        "last_name": text(customer.get("last_name")),
        "phone": known,
        "phone_source": "said" if said else "caller_id" if known else None,
        "email": email(text(customer.get("email"), 320)),
        "address": {
            "street": text(address.get("street")),
            "postcode": _postcode(text(address.get("postcode"))),
            "city": text(address.get("city")),
        },
        "company": text(customer.get("company")),
    }


def _evidence(entries: object, customer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry per field that has a value which was said, and turns that support it."""
    kept: dict[str, dict[str, Any]] = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, Mapping):
            continue
        name, turns, sure = entry.get("field"), entry.get("turns"), entry.get("confidence")
        if not isinstance(name, str) or name not in CUSTOMER_FIELDS or name in kept:
            continue
        value = customer["address"].get(name) if name in customer["address"] else customer[name]
        if value is None or (name == "phone" and customer["phone_source"] != "said"):
            continue
        ids = list(dict.fromkeys(turn for turn in _items(turns) if isinstance(turn, str)))
        confidence = float(sure) if isinstance(sure, int | float) and math.isfinite(sure) else 0.0
        if ids:
            kept[name] = {"field": name, "turns": ids, "confidence": min(1.0, max(0.0, confidence))}
    return list(kept.values())


def _object(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, Mapping) else {}


def _items(value: object) -> Iterable[object]:
    return value[:_MAX_ITEMS] if isinstance(value, list) else ()


def _services(value: object) -> list[str]:
    named = (text(each) for each in _items(value))
    return list(dict.fromkeys(each for each in named if each is not None))


def _one_of(value: object, known: Iterable[str]) -> str | None:
    return value if isinstance(value, str) and value in known else None


def _minutes(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 1 <= value <= _MAX_MINUTES else None


def _postcode(value: str | None) -> str | None:
    if value is None:
        return None
    joined = value.upper().replace(".", " ")
    if not re.search("[A-Z]", joined):
        joined = joined.replace(" ", "")  # "7 5 0 1 1", as it was dictated; SW1A 1AA keeps its space
    return joined if _POSTCODE.fullmatch(joined) else None


def _language(value: object) -> str | None:
    match = re.fullmatch(r"([a-z]{2})(?:[-_].*)?", value.strip().lower()) if isinstance(value, str) else None
    return match[1] if match else None


def _is_near(day: dt.date, on: dt.date) -> bool:
    return -_PAST_DAYS <= (day - on).days <= _FUTURE_DAYS
