"""Where call records live: the interface of a call store, and what is asked of it and comes back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final, Literal, Protocol, get_args

from handlehome.store.clients import ClientRecord
from handlehome.store.datadir import StoreError
from handlehome.store.records import CallRecord, Status
from handlehome.store.statistics import CallStatistics

__all__ = [
    "EVERY_CALL",
    "CallPage",
    "CallQuery",
    "CallStore",
    "CallStoreError",
    "CallStoreUnavailable",
    "ClientPage",
    "ErasureReport",
    "IndexConflict",
    "RecordRefused",
    "StoredCall",
    "Workflow",
    "check_workflow",
    "from_cursor",
    "to_cursor",
]

Workflow = Literal["new", "in_progress", "done", "archived"]
"""How far the operator has got with a call; the call's own life has its `status`."""


class CallStoreError(StoreError):
    """The call store can't be opened, read or written; the message says what to do."""


class CallStoreUnavailable(CallStoreError):
    """Not now: the server can't be reached, the disk is full, the store is locked, closed or not set up.

    Nothing is wrong with what was asked for; trying again may help.
    """


class IndexConflict(CallStoreUnavailable):
    """An index of ours exists with other keys or options; it works again once that one is dropped."""


class RecordRefused(CallStoreError):
    """This record can't be stored, now or later: it is too large, or holds what the store can't."""


@dataclass(frozen=True, slots=True)
class CallQuery:
    """Which calls; every condition that is not None must hold.

    Attributes:
        since: started then or later, in seconds since the epoch.
        until: started before then.
        from_: the calling number, as it is in the record.
        to: the called number.
        phone: the calls that `erase` would remove: those from the number, those that we made to it, and those
            whose extracted data give it as the customer's.
        client: E.164; the calls that belong to this client (see `clients.client_of`).
        status: "live", "interrupted" or "ended".
        end_reason: how the call ended.
        request_type: `request.type` in the extracted data.
        workflow: the operator's status.
        text: words, each of which begins a word of the call; accents and case don't matter. A text without
            any word is no condition.
    """

    since: float | None = None
    until: float | None = None
    from_: str | None = None
    to: str | None = None
    phone: str | None = None
    client: str | None = None
    status: Status | None = None
    end_reason: str | None = None
    request_type: str | None = None
    workflow: Workflow | None = None
    text: str | None = None


EVERY_CALL: Final = CallQuery()


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A call as it is in the store.

    Attributes:
        record: the call.
        workflow: the operator's status, "new" until it is set.
        snippet: where the call holds the words that were searched for; None when none were.
    """

    record: CallRecord
    workflow: Workflow
    snippet: str | None = None


@dataclass(frozen=True, slots=True)
class CallPage:
    """Some of the calls; `cursor` leads to those that follow, None when there are none."""

    calls: tuple[StoredCall, ...]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class ClientPage:
    """Some of the clients; `cursor` leads to those that follow, None when there are none."""

    clients: tuple[ClientRecord, ...]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What was removed for the sake of a phone number.

    Attributes:
        phone: the number.
        calls: CallSids of the calls that were removed, the latest first.
        clients: numbers of the clients that are there no longer.
        changed_clients: numbers of the clients of whom less is known now, since a removed call was theirs.
    """

    phone: str
    calls: tuple[str, ...]
    clients: tuple[str, ...]
    changed_clients: tuple[str, ...]


class CallStore(Protocol):
    """A place for call records. Methods block, and may be called from any thread but the event loop's.

    Each raises `CallStoreUnavailable` when the store can't do it now, within a bounded time, and
    `CallStoreError` when what is stored is damaged. Only `save` raises `RecordRefused`.

    **Retention.** A store keeps a call for the days given to its constructor, counted from the call's start,
    or for ever. A client is a digest of the stored calls, and goes with the last of them.
    """

    def save(self, record: CallRecord) -> None:
        """Puts the record in the place of whatever is there under its CallSid; durable when it returns.

        Saving the same record again changes nothing. What the last save says stands (save the states of a
        call in their order), but a call that has ended stays ended: a record of it that has not is passed
        over. The operator's status outlives every save. The call's client is brought up to date.

        Raises:
            RecordRefused: this record can't be stored, ever.
            CallStoreUnavailable: it is not known to be saved; trying again may help.
        """

    def get(self, call_sid: str) -> CallRecord | None:
        """The record of a call, equal to the one that was saved; None when there is none."""

    def stored(self, call_sid: str) -> StoredCall | None:
        """The record of a call with the operator's status; None when there is none."""

    def find(self, query: CallQuery = EVERY_CALL, *, limit: int = 50, cursor: str | None = None) -> CallPage:
        """The calls that a query asks for, those that started last first.

        Calls that come in between two pages are on neither, and no call is on both.

        Args:
            query: which calls.
            limit: how many at most.
            cursor: where to go on, from the page before.

        Raises:
            ValueError: the cursor is none.
        """

    def recent(self, limit: int = 50) -> list[CallRecord]:
        """The records of the calls that started last, the latest first."""

    def set_workflow(self, call_sid: str, workflow: Workflow) -> bool:
        """Sets the operator's status of a call; returns whether there is such a call.

        Raises:
            ValueError: there is no such status.
        """

    def delete(self, call_sid: str) -> bool:
        """Removes a call, and what only it said of its client; returns whether it was there."""

    def erase(self, phone: str) -> ErasureReport:
        """Removes all calls with a number, see `CallQuery.phone`, and its client.

        A call *to* the number that came in is not among them: then the number is ours. Whoever keeps more of
        these calls elsewhere should find and remove that first: when this is cut short by an error, the next
        attempt reports only what was left.

        Args:
            phone: as the records have it: E.164, or what Twilio gave instead.
        """

    def statistics(
        self, *, since: float | None = None, until: float | None = None, zone: tzinfo
    ) -> CallStatistics:
        """Figures over the calls that started in a span of time.

        Args:
            since: the first moment, in seconds since the epoch; None: from the first call.
            until: the moment that no longer counts; None: to the last call.
            zone: whose days and hours.
        """

    def client(self, phone: str) -> ClientRecord | None:
        """The client behind a number (E.164); None when there is none."""

    def clients(self, *, limit: int = 50, cursor: str | None = None) -> ClientPage:
        """The clients, those whose last call started last first; arguments as for `find`.

        Raises:
            ValueError: the cursor is none.
        """

    def purge(self, now: float) -> int:
        """Removes the calls whose days are over; returns how many it removed.

        Args:
            now: seconds since the epoch.
        """

    def close(self) -> None:
        """Frees what the store holds; afterwards the other methods raise `CallStoreUnavailable`."""


def check_workflow(workflow: str) -> None:
    """Raises ValueError unless it is one of the operator's statuses."""
    if workflow not in get_args(Workflow):
        raise ValueError(f"{workflow!r} is no status of a call: {', '.join(get_args(Workflow))}")


def to_cursor(at_ms: int, key: str) -> str:
    """Marks a place in a list that is sorted by time and, where times are equal, by key.

    Args:
        at_ms: milliseconds since the epoch.
        key: CallSid or phone number.
    """
    return f"{at_ms}.{key}"


def from_cursor(cursor: str) -> tuple[int, str]:
    """The time in milliseconds and the key that `to_cursor` was given.

    Raises:
        ValueError: it is no such mark.
    """
    match = re.fullmatch(r"(-?\d{1,13})\.(.+)", cursor, re.ASCII | re.DOTALL)
    if match is None:
        raise ValueError(f"{cursor!r} is no cursor")
    return int(match[1]), match[2]
