"""Rules-only extraction: what can be read from a transcript without a model."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from handlehome.extract.rules import appointments, emails, phones, places, requests
from handlehome.extract.rules.dialogue import Dialogue
from handlehome.store.records import CallRecord

__all__ = ["extract"]


def extract(
    record: CallRecord, *, region: str = "FR", time_zone: str = "Europe/Paris", language: str = "fr"
) -> dict[str, Any]:
    """The data object of the default schema, as far as rules can fill it; the rest is null or empty.

    Filled are phone, email, postcode and the town beside it, the appointment's day and time, the request's
    type and urgency where plain words name them, and the language. Data is taken from what the caller says;
    the assistant's words count where the caller agrees to them. Of two mentions the later one counts.

    Args:
        record: the call; its turns without text are passed over.
        region: where phone numbers without a country code and postcodes are from, ISO 3166-1 alpha-2.
        time_zone: IANA name of the zone in which "demain" is counted.
        language: "fr" or "en": how the call is read when the caller's words don't show it.

    Raises:
        ZoneInfoNotFoundError: there is no such zone.
    """
    dialogue = Dialogue(record, language)
    today = datetime.fromtimestamp(record.started_at, ZoneInfo(time_zone)).date()
    phone = phones.find(dialogue, region, record.from_)
    email = emails.find(dialogue)
    place = places.find(dialogue, region)
    slot = appointments.find(dialogue, today, region)
    evidence: list[dict[str, Any]] = []

    def supported(field: str, turns: tuple[int, ...], confidence: float) -> None:
        ids = [record.turns[index].id for index in dict.fromkeys(sorted(turns))]
        evidence.append({"field": field, "turns": ids, "confidence": confidence})

    if phone is not None:
        supported("phone", phone.turns, phone.confidence)
    if email is not None:
        supported("email", email.turns, email.confidence)
    if place is not None:
        supported("postcode", place.turns, place.confidence)
        if place.city is not None:
            supported("city", place.turns, place.confidence)
    return {
        "customer": {
            "first_name": None,
            "last_name": None,
            "phone": phone.number if phone else None,
            "email": email.address if email else None,
            "address": {
                "street": None,
                "postcode": place.postcode if place else None,
                "city": place.city if place else None,
            },
            "company": None,
        },
        "request": {
            "type": requests.kind(dialogue),
            "services": [],
            "description": None,
            "urgency": requests.urgency(dialogue),
        },
        "appointment": {
            "date": slot.day.isoformat() if slot else None,
            "time": slot.time if slot else None,
            "duration_minutes": None,
            "mode": None,
        },
        "follow_up": None,
        "summary": None,
        "language": dialogue.spoken,
        "sentiment": None,
        "evidence": evidence,
    }
