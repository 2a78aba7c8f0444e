"""Extracts the data of stored calls anew, beside a running daemon or without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from handlehome.extract.attempt import Calls, Profile
from handlehome.extract.processor import Outcome, TranscriptionProcessor
from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.carrying import carry
from handlehome.relay.processing import discard_audio, find_by_rules
from handlehome.store.calls import CallStore
from handlehome.store.journalfile import JournalFile
from handlehome.store.records import CallRecord, amended, fold

__all__ = ["StoredCalls", "reprocess"]


@dataclass(slots=True)
class StoredCalls:
    """Calls as a program beside the daemon has them.

    Results of calls that the journal still holds go there, since the daemon makes their records from it;
    those of others go straight into the stored record. What is erased meanwhile is not written again.
    """

    journal: JournalFile
    store: CallStore
    files: AudioFiles
    complete: Callable[[CallRecord], CallRecord]
    _changed: dict[str, CallRecord] = field(default_factory=dict)  # of calls that the journal has dropped

    def load(self, call_sid: str) -> CallRecord | None:
        """The record of a call."""
        events = self.journal.events(call_sid)
        if events:
            return fold(events)
        return self._changed.get(call_sid) or self.store.get(call_sid)

    def append(self, call_sid: str, kind: str, data: dict[str, Any]) -> bool:
        """Takes a result."""
        newest = self.journal.newest(call_sid)
        if newest:
            return newest > 0 and self.journal.write(call_sid, kind, data) > 0
        record = self.load(call_sid)
        if record is not None:
            self._changed[call_sid] = amended(record, kind, data)
        return record is not None

    def save(self, call_sid: str) -> None:
        """Saves a call with its results."""
        carried = carry(self.journal, self.store, call_sid, self.complete)
        if carried is not None:
            self.journal.write(call_sid, "call_saved", {"seq": carried.seq})
            discard_audio(self.files)(carried.record)
            return
        record = self._changed.get(call_sid)
        if record is not None and self.journal.newest(call_sid) == 0:
            self.store.save(self.complete(record))
            if self.journal.newest(call_sid) < 0:
                self.store.delete(call_sid)
        self._changed.pop(call_sid, None)

    def calls(self, profile: Profile) -> Calls:
        """As the processor wants them."""
        return Calls(self.load, self.append, self.files.caller_audio, find_by_rules(profile), self.save)


def reprocess(
    call_sids: Iterable[str], processor: TranscriptionProcessor, *, workers: int
) -> Iterator[Outcome]:
    """Makes one attempt at each call, several at once; gives the outcomes in order, as they come.

    Raises:
        StoreError: journal or store can't be read or written.
        OSError: the caller's audio can't be removed.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="reprocess") as pool:
        yield from pool.map(processor.once, dict.fromkeys(call_sids))
