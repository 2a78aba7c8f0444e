"""What stands in MongoDB: how records become documents and come back, and how a query reads there.

Pure. A call's document is its record's, with dates for the times that are searched by, and beside it:

==================  =====================================================================================
`workflow`          the operator's status
`party`             who is at the other end, see `clients.party`
`client`            whose call it is, see `clients.client_of`
`customer_phone`    see `clients.customer_phone`
`request_type`      see `clients.request_type`
`words`             what it is found by, see `search.call_words`
`expires_at`        when the server drops it; absent when it never does
==================  =====================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from handlehome.store import clients, search
from handlehome.store.calls import CallQuery, CallStoreError, StoredCall, from_cursor, to_cursor
from handlehome.store.clients import ClientRecord
from handlehome.store.records import CallRecord
from handlehome.store.statistics import Group

__all__ = [
    "CALL_INDEXES",
    "CLIENT_INDEXES",
    "LATEST_FIRST",
    "behind",
    "call_document",
    "client_record",
    "clients_of",
    "conditions",
    "cursor_behind",
    "group",
    "said_of_client",
    "stored_call",
    "to_date",
    "to_ms",
]

LATEST_FIRST: Final = [("started_at", DESCENDING), ("_id", DESCENDING)]
CALL_INDEXES: Final = [
    IndexModel(LATEST_FIRST, name="by_start"),
    IndexModel([("from", ASCENDING), *LATEST_FIRST], name="by_caller"),
    IndexModel([("to", ASCENDING), *LATEST_FIRST], name="by_called"),
    IndexModel([("client", ASCENDING), *LATEST_FIRST], name="by_client"),
    IndexModel([("party", ASCENDING)], name="by_party"),
    IndexModel([("customer_phone", ASCENDING)], name="by_customer"),
    IndexModel([("words", ASCENDING)], name="by_words"),
    IndexModel([("expires_at", ASCENDING)], name="retention", expireAfterSeconds=0),
]
CLIENT_INDEXES: Final = [
    IndexModel([("last_seen", DESCENDING), ("_id", DESCENDING)], name="by_last"),
    IndexModel([("first_seen", ASCENDING)], name="by_first"),
    IndexModel([("expires_at", ASCENDING)], name="retention", expireAfterSeconds=0),
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DATES: Final = ("started_at", "ended_at")

_Document = dict[str, Any]


def call_document(record: CallRecord, retention: timedelta | None) -> _Document:
    """The document of a record, without the operator's status.

    Raises:
        ValueError, OverflowError, OSError: one of its times is no time.
        RecursionError: its data are nested too deep.
    """
    document = record.to_document()
    for name in _DATES:
        if document[name] is not None:
            document[name] = datetime.fromisoformat(document[name])
    document["party"] = clients.party(record)
    document["client"] = clients.client_of(record)
    document["customer_phone"] = clients.customer_phone(record)
    document["request_type"] = clients.request_type(record)
    document["words"] = search.call_words(record)
    if retention is not None:
        document["expires_at"] = document["started_at"] + retention
    return document


def conditions(query: CallQuery) -> list[_Document]:
    """A query's conditions, all of which must hold."""
    asked: list[tuple[str, str, Any]] = [
        ("started_at", "$gte", None if query.since is None else to_date(query.since)),
        ("started_at", "$lt", None if query.until is None else to_date(query.until)),
        ("from", "$eq", query.from_),
        ("to", "$eq", query.to),
        ("client", "$eq", query.client),
        ("status", "$eq", query.status),
        ("end_reason", "$eq", query.end_reason),
        ("request_type", "$eq", query.request_type),
        ("workflow", "$eq", query.workflow),
    ]
    held: list[_Document] = [
        {field: {operator: value}} for field, operator, value in asked if value is not None
    ]
    if query.phone is not None:
        held.append({"$or": [{"party": query.phone}, {"customer_phone": query.phone}]})
    if wanted := search.words(query.text or ""):
        held.append({"words": {"$all": [re.compile(f"^{re.escape(word)}") for word in wanted]}})
    return held


def behind(cursor: str, time: str) -> _Document:
    """The condition that holds for what comes after a cursor.

    Args:
        cursor: from `cursor_behind`.
        time: the field that the list is sorted by, before `_id`, both descending.

    Raises:
        ValueError: it is no cursor.
    """
    at_ms, key = from_cursor(cursor)
    at = _EPOCH + timedelta(milliseconds=at_ms)
    # The first condition bounds the index scan, the second one is the exact one.
    return {time: {"$lte": at}, "$or": [{time: {"$lt": at}}, {"_id": {"$lt": key}}]}


def cursor_behind(found: list[_Document], time: str, limit: int) -> str | None:
    """The cursor of a page; None when nothing comes after it.

    Args:
        found: the page and, if there is one, the document behind it.
        time: see `behind`.
        limit: how many documents are a page.
    """
    if limit <= 0 or len(found) <= limit:
        return None
    last = found[limit - 1]
    return to_cursor(to_ms(last[time]), last["_id"])


def stored_call(document: Mapping[str, Any], wanted: list[str] | None = None) -> StoredCall:
    """The call of a document, with the place where the wanted words stand.

    Raises:
        CallStoreError: the document is damaged.
    """
    try:
        times = {name: document[name] and _to_iso(document[name]) for name in _DATES}
        record = CallRecord.from_document({**document, **times})
        workflow = document["workflow"]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CallStoreError(f"MongoDB: a stored record is damaged ({error!r})") from error
    return StoredCall(record, workflow, search.snippet(record, wanted) if wanted else None)


def client_record(document: Mapping[str, Any]) -> ClientRecord:
    """The client of a document."""
    return ClientRecord(
        phone=document["_id"],
        first_seen=to_ms(document["first_seen"]) / 1000,
        last_seen=to_ms(document["last_seen"]) / 1000,
        calls=document["calls"],
        last_call=document["last_call"],
        **{name: document[name] for name in clients.CONTACT_FIELDS},
    )


def clients_of(calls: list[_Document]) -> set[str]:
    """Whose calls these are."""
    return {call["client"] for call in calls if call["client"] is not None}


def said_of_client(call: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a client takes from a call."""
    return call["client"], call["started_at"], clients.contact(call["data"])


def group(row: Mapping[str, Any]) -> Group:
    """One row of the statistics' aggregation."""
    same = row["_id"]
    return Group(
        same["start"],
        same["type"],
        same["status"],
        same["reason"],
        same["workflow"],
        row["calls"],
        row["timed"],
        row["total"],
        row["longest"],
    )


def to_date(at: float) -> datetime:
    """The date of a time in seconds since the epoch."""
    return _EPOCH + timedelta(milliseconds=round(at * 1000))


def to_ms(date: datetime) -> int:
    """The milliseconds since the epoch of a date."""
    return (date - _EPOCH) // timedelta(milliseconds=1)


def _to_iso(date: datetime) -> str:
    return date.isoformat(timespec="milliseconds").replace("+00:00", "Z")
