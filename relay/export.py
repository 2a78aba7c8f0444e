"""Writes stored calls out, for spreadsheets (CSV) and programs (JSON Lines)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, Final, TextIO

import orjson

from handlehome.store.calls import CallQuery, CallStore, StoredCall

__all__ = ["COLUMNS", "ExportFormat", "export", "stored_calls"]

PAGE_CALLS: Final = 200

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "call_sid": ("_id",),
    "started_at": ("started_at",),
    "duration_s": ("duration_ms",),
    "from": ("from",),
    "to": ("to",),
    "status": ("status",),
    "end_reason": ("end_reason",),
    "workflow": ("workflow",),
    "first_name": ("data", "customer", "first_name"),
    "last_name": ("data", "customer", "last_name"),
    "phone": ("data", "customer", "phone"),
    "email": ("data", "customer", "email"),
    "street": ("data", "customer", "address", "street"),
    "postcode": ("data", "customer", "address", "postcode"),
    "city": ("data", "customer", "address", "city"),
    "company": ("data", "customer", "company"),
    "request_type": ("data", "request", "type"),
    "services": ("data", "request", "services"),
    "description": ("data", "request", "description"),
    "urgency": ("data", "request", "urgency"),
    "appointment_date": ("data", "appointment", "date"),
    "appointment_time": ("data", "appointment", "time"),
    "follow_up": ("data", "follow_up"),
    "summary": ("data", "summary"),
    "language": ("data", "language"),
    "sentiment": ("data", "sentiment"),
    "extraction": ("extraction", "status"),
    "extraction_method": ("extraction", "method"),
    "cost": ("usage", "cost"),
    "transcript": ("turns",),
}
"""The columns of the CSV, each with its place in the document."""


class ExportFormat(StrEnum):
    """What to write."""

    CSV = "csv"
    JSONL = "jsonl"


def stored_calls(store: CallStore, query: CallQuery) -> Iterator[StoredCall]:
    """All calls that a query asks for, those that started last first, page by page."""
    cursor: str | None = None
    while True:
        page = store.find(query, limit=PAGE_CALLS, cursor=cursor)
        yield from page.calls
        cursor = page.cursor
        if cursor is None:
            return


def export(calls: Iterable[StoredCall], what: ExportFormat, out: TextIO) -> int:
    """Writes calls out.

    Args:
        calls: which.
        what: CSV has one row per call with `COLUMNS` (what the built-in schema extracts; the transcript as
            one text), in the dialect that spreadsheets read (RFC 4180). JSON Lines has each whole document.
        out: text file; for CSV opened with `newline=""`.

    Returns:
        How many calls there were.
    """
    count = 0
    table = csv.writer(out) if what is ExportFormat.CSV else None
    if table is not None:
        table.writerow(COLUMNS)
    for call in calls:
        document = {**call.record.to_document(), "workflow": call.workflow}
        if table is not None:
            table.writerow([_cell(name, _at(document, place)) for name, place in COLUMNS.items()])
        else:
            out.write(orjson.dumps(document).decode() + "\n")
        count += 1
    return count


def _at(document: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    return document


def _cell(name: str, value: Any) -> str | int | float:
    if name == "transcript":
        value = "\n".join(f"{turn['role']}: {turn['text']}" for turn in value if turn["text"])
    elif name == "duration_s" and value is not None:
        value /= 1000
    elif isinstance(value, list):
        value = ", ".join(map(str, value))
    elif isinstance(value, bool | dict):
        value = orjson.dumps(value).decode()
    if value is None:
        return ""
    return value if isinstance(value, int | float) else _guarded(str(value))


def _guarded(text: str) -> str:
    """Text that no spreadsheet takes for a formula: what callers say must not compute."""
    return f"'{text}" if text.startswith(("=", "@", "\t", "\r")) or _is_sum(text) else text


def _is_sum(text: str) -> bool:
    # A phone number in E.164 begins with a plus too.
    return text.startswith(("+", "-")) and not text[1:].replace(" ", "").isdigit()
