"""Extracts the data of stored calls anew, beside a running daemon or without one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from handlehome.extract.attempt import Calls, Profile
from handlehome.extract.processor import FINAL, TranscriptionProcessor
from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.processing import find_by_rules
from handlehome.store.calls import CallStore
from handlehome.store.journalfile import JournalFile
from handlehome.store.records import CallRecord, amended, fold

__all__ = ["Outcome", "StoredCalls", "reprocess"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: `status` as in `record.extraction`, "unknown" for a call that is not there."""

    call_sid: str
    status: str
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is left to do."""
        return self.status in FINAL and self.status != "given_up"


@dataclass(slots=True)
class StoredCalls:
    """Calls as a program beside the daemon has them.

    Results of calls that the journal still holds go there, since the daemon makes their records from it;
    those of others go straight into the stored record.
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
        if self.journal.events(call_sid):
            return bool(self.journal.write(call_sid, kind, data))
        record = self.load(call_sid)
        if record is not None:
            self._changed[call_sid] = amended(record, kind, data)
        return record is not None

    def save(self, call_sid: str) -> None:
        """Saves a call with its results."""
        events = self.journal.events(call_sid)
        record = fold(events) if events else self._changed.pop(call_sid, None)
        if record is None:
            return
        self.store.save(self.complete(record))
        if events:
            self.journal.write(call_sid, "call_saved", {"seq": events[-1].seq})

    def calls(self, profile: Profile, done: Callable[[str], object]) -> Calls:
        """As the processor wants them."""
        return Calls(self.load, self.append, self.files.caller_audio, find_by_rules(profile), done)


def reprocess(
    call_sids: Sequence[str],
    calls: StoredCalls,
    profile: Profile,
    make: Callable[[Calls], TranscriptionProcessor],
    *,
    told: Callable[[Outcome], object],
) -> list[Outcome]:
    """Makes one attempt at each call.

    Args:
        call_sids: which.
        calls: where they are.
        profile: what is extracted.
        make: makes the processor; it is started and closed here.
        told: gets each outcome as it comes, in any thread.

    Returns:
        The outcomes, in the order of `call_sids`.

    Raises:
        StoreError: journal or store can't be read.
    """
    outcomes: dict[str, Outcome] = {}
    changed = threading.Condition(threading.RLock())

    def note(outcome: Outcome) -> None:
        with changed:
            if outcome.call_sid in outcomes:
                return
            outcomes[outcome.call_sid] = outcome
            told(outcome)
            changed.notify()

    def done(call_sid: str) -> None:
        record = calls.load(call_sid)
        calls.save(call_sid)
        extraction = (record.extraction if record else None) or {}
        note(Outcome(call_sid, str(extraction.get("status")), extraction.get("error")))

    processor = make(calls.calls(profile, done))
    processor.start()
    try:
        for call_sid in dict.fromkeys(call_sids):
            record = calls.load(call_sid)
            if record is None or record.ended_at is None:
                note(Outcome(call_sid, "unknown", "there is no such ended call"))
            else:
                processor.reprocess(call_sid)
        with changed:
            while len(outcomes) < len(set(call_sids)):
                changed.wait(0.5)
                # A call that is stopped for the reason it was stopped for before is not saved again.
                health = processor.health()
                if not health.waiting and not health.running:
                    for call_sid in set(call_sids) - set(outcomes):
                        note(Outcome(call_sid, "stopped", health.reason))
    finally:
        processor.close()
    return [outcomes[call_sid] for call_sid in dict.fromkeys(call_sids)]
