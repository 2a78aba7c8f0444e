"""Carries one call's record from the journal to the store; for the daemon and for programs beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from handlehome.store.calls import CallStore
from handlehome.store.journalfile import JournalFile
from handlehome.store.records import CallRecord, fold

__all__ = ["Carried", "carry"]

ROUNDS = 10
"""More changes than that, one during each save, are left to whoever makes them."""


class Carried(NamedTuple):
    """A saved record, and the sequence number of the last event in it."""

    record: CallRecord
    seq: int


def carry(
    journal: JournalFile, store: CallStore, call_sid: str, complete: Callable[[CallRecord], CallRecord]
) -> Carried | None:
    """Makes a call's record from its events and saves it.

    Another process may do the same at the same time, or erase the call. So the journal is looked at again
    after the save: what is older than the journal does not stay in the store, and what is erased does not
    come back.

    Returns:
        None when there is nothing to save: the call is erased, not known, or pruned from the journal.

    Raises:
        DamagedEvent: an event of the call can't be read.
        RecordRefused: the store will never take this record.
        StoreError: not now.
    """
    newest = journal.newest(call_sid)
    for _ in range(ROUNDS):
        if newest == 0:
            return None
        if newest < 0:
            store.delete(call_sid)
            return None
        events = journal.events(call_sid)
        if not events:
            newest = journal.newest(call_sid)
            continue
        record = complete(fold(events))
        store.save(record)
        newest = journal.newest(call_sid)
        if 0 <= newest <= events[-1].seq:
            return Carried(record, events[-1].seq)
    return Carried(record, events[-1].seq)
