"""What the daemon has kept of a call: the stored record and the data in it, the journal, the files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from handlehome.bench.demo_daemon import JournalReader
from handlehome.store.calls import CallStoreError
from handlehome.store.records import CallRecord, Event
from handlehome.store.sqlite import SqliteCallStore

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def stored(data_dir: Path, call_sid: str) -> CallRecord | None:
    """The record as it is in the embedded store; None: there is none."""
    try:
        store = SqliteCallStore(data_dir / "calls.sqlite3")
    except CallStoreError:
        return None
    with contextlib.closing(store):
        return store.get(call_sid)


def journaled(data_dir: Path, call_sid: str) -> list[Event]:
    """The call's events in the journal, in order."""
    with contextlib.closing(JournalReader(data_dir / "journal.sqlite3")) as reader:
        return [event for event in reader.new() if event.call_sid == call_sid]


def kept_audio(data_dir: Path) -> list[str]:
    """The names of the callers' audio files that are kept for transcripts which are not complete."""
    folder = data_dir / "audio"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@dataclass(frozen=True, slots=True)
class Row:
    """One value of a record, for people.

    Attributes:
        part: What it belongs to, the customer or the appointment, say.
        name: Of the value.
        value: Empty: there is none.
        said_in: The turns that support it.
    """

    part: str
    name: str
    value: str
    said_in: str = ""


def rows(record: CallRecord) -> list[Row]:
    """The extracted data, how they came about, and what that used up.

    The record's data are of the default schema, or None.
    """
    return [*_customer(record), *_request(record.data or {}), *_rest(record.data or {}), *_origin(record)]


def _customer(record: CallRecord) -> Iterator[Row]:
    data = record.data or {}
    customer = _part(data, "customer")
    address = _part(customer, "address")
    numbers = {turn.id: number for number, turn in enumerate(record.turns, 1)}
    evidence = {entry["field"]: entry["turns"] for entry in data.get("evidence") or ()}

    def said_in(*fields: str) -> str:
        turns = {numbers.get(turn, 0) for field in fields for turn in evidence.get(field, ())}
        return f"turn {', '.join(map(str, sorted(turns)))}" if turns else ""

    source = {"said": "  (said in the call)", "caller_id": "  (the number that called)"}
    phone = f"{customer['phone']}{source[customer['phone_source']]}" if customer.get("phone") else ""
    place = _joined(" ", address.get("postcode"), address.get("city"))
    yield Row("Customer", "first name", _text(customer.get("first_name")), said_in("first_name"))
    yield Row("Customer", "last name", _text(customer.get("last_name")), said_in("last_name"))
    yield Row("Customer", "phone", phone, said_in("phone"))
    yield Row("Customer", "email", _text(customer.get("email")), said_in("email"))
    address_text = _joined(", ", address.get("street"), place)
    yield Row("Customer", "address", address_text, said_in("street", "postcode", "city"))
    yield Row("Customer", "company", _text(customer.get("company")), said_in("company"))


def _request(data: Mapping[str, Any]) -> Iterator[Row]:
    request, appointment = _part(data, "request"), _part(data, "appointment")
    urgency = f"urgency: {request['urgency']}" if request.get("urgency") else None
    yield Row("Request", "type", _joined(", ", request.get("type"), urgency))
    yield Row("Request", "services", ", ".join(request.get("services") or ()))
    yield Row("Request", "description", _text(request.get("description")))
    day = appointment.get("date")
    weekday = WEEKDAYS[date.fromisoformat(day).weekday()] if day else None
    minutes = appointment.get("duration_minutes")
    yield Row("Appointment", "date", _joined(", ", day, weekday))
    yield Row("Appointment", "time", _joined(", ", appointment.get("time"), minutes and f"{minutes} minutes"))
    yield Row("Appointment", "mode", _text(appointment.get("mode")).replace("_", " "))


def _rest(data: Mapping[str, Any]) -> Iterator[Row]:
    yield Row("Follow-up", "promised", _text(data.get("follow_up")))
    yield Row("Call", "summary", _text(data.get("summary")))
    yield Row("Call", "language", _text(data.get("language")))
    yield Row("Call", "sentiment", _text(data.get("sentiment")))


def _origin(record: CallRecord) -> Iterator[Row]:
    extraction, usage = record.extraction or {}, record.usage or {}
    by = _joined(" ", extraction.get("method"), extraction.get("model"))
    schema = f"schema: {extraction['schema']}" if extraction.get("schema") else None
    yield Row("Extraction", "status", _text(extraction.get("status")))
    yield Row("Extraction", "by", _joined(", ", by, schema))
    for source in ("realtime", "transcription", "extraction"):
        yield Row("Used up", source, _counts(_part(usage, source)))
    cost = usage.get("cost")
    yield Row("Used up", "cost", "" if cost is None else f"{cost:.6f} {usage['currency']}")


def _counts(usage: Mapping[str, Any]) -> str:
    """The model's name, then each count; those of tokens without the word, input first."""
    order = ("input", "cached", "cache", "output", "seconds")
    names = [name for start in order for name in sorted(usage) if name.split("_")[0] == start]
    counts = [f"{name.removesuffix('_tokens').replace('_', ' ')} {usage[name]:,.10g}" for name in names]
    return _joined(": ", usage.get("model"), ", ".join(counts))


def _part(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _joined(separator: str, *values: object) -> str:
    return separator.join(str(value) for value in values if value)
