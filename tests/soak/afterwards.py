"""What must be there when calls are over and nothing waits: journal, store and audio agree."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from handlehome.bench import speech
from handlehome.extract.processor import FINAL
from handlehome.store.calls import CallStore
from handlehome.store.journalfile import JournalFile
from handlehome.store.records import CallRecord, Event, fold
from tests.harness import RunningDaemon, all_records

CLIP_BYTES = 8000


def _clip(name: str) -> speech.Recording:
    """A second from a recording's middle: enough for the simulated models to know the whole."""
    recording = speech.load(name)
    start = (len(recording.ulaw) - CLIP_BYTES) // 2
    return replace(recording, ulaw=recording.ulaw[start : start + CLIP_BYTES])


CLIPS = tuple(_clip(name) for name in ("caller-leak", "caller-address", "caller-heating", "caller-confirm"))
"""Words for short calls."""


async def settled(daemon: RunningDaemon, within: float) -> list[str]:
    """Waits until a daemon has nothing more to do; says what is not well then."""
    journal = JournalFile(daemon.data / "journal.sqlite3")
    until = time.monotonic() + within
    faults: list[str] = []
    while True:
        live = await asyncio.to_thread(journal.unfinished)
        health = (await daemon.get("/healthz")).json()
        pending = [health["extraction"][name] for name in ("waiting", "running", "retrying", "stopped")]
        if not live and not health["outbox"]["waiting"] and not any(pending):
            break
        if time.monotonic() > until:
            faults.append(f"not done after {within:g} s: {len(live)} calls go on, {health}")
            break
        await asyncio.sleep(0.1)  # another process tells it
    for part in ("journal", "outbox"):
        if health[part]["refused"]:
            faults.append(f"the {part} refused something: {health[part]}")
    return faults


class Archive:
    """What a daemon has left: its journal, and its store.

    Args:
        data: its `DATA_DIR`; the daemon is gone, or has nothing to do.
        store: where it saved; read here and now.

    Attributes:
        events: the journal, by CallSid.
        saved: all that is in the store.
        records: the same, by CallSid.
    """

    def __init__(self, data: Path, store: CallStore, calls: set[str]) -> None:
        self._data = data
        self._store = store
        self._journal = JournalFile(data / "journal.sqlite3")
        self.saved = all_records(store)
        self.records = {record.call_sid: record for record in self.saved}
        self.events: Mapping[str, list[Event]] = {
            sid: events for sid in self.records.keys() | calls if (events := self._journal.events(sid))
        }

    def faults(self) -> list[str]:
        """Where they don't agree, or something is left undone."""
        times = Counter(record.call_sid for record in self.saved)
        faults = [f"{sid}: saved {count} times" for sid, count in times.items() if count > 1]
        faults += [f"{sid}: saved, and not in the journal" for sid in self.records.keys() - self.events]
        faults += [f"{sid}: not saved" for sid in self.events.keys() - self.records]
        faults += [f"{sid}: does not end" for sid in self._journal.unfinished()]
        faults += [f"{sid}: not known to be saved" for sid in self._journal.unsaved()]
        for sid in self.events.keys() & self.records:
            faults += [f"{sid}: {what}" for what in _wrong(self.records[sid], self.events[sid])]
        counted = Counter(record.from_ for record in self.saved if record.from_ is not None)
        for number, count in counted.items():
            client = self._store.client(number)
            if client is None or client.calls != count:
                faults.append(f"{number}: {count} calls are there, but {client}")
        for path in (self._data / "audio").glob("*"):
            record = self.records.get(path.stem)
            state = record and (record.end_reason, record.duration_ms, record.extraction)
            faults.append(f"{path.name}: the caller's audio is left ({state})")
        return faults


def _wrong(record: CallRecord, events: list[Event]) -> list[str]:
    """What is not as it must be with a call that is done with."""
    wrong: list[str] = []
    kinds = Counter(event.kind for event in events)
    for kind in ("call_started", "call_ended"):
        if kinds[kind] != 1:
            wrong.append(f"{kinds[kind]} times {kind}")
    if record.status != "ended":
        wrong.append(f"is {record.status}")
    if _without_cost(record) != _without_cost(fold(events)):
        wrong.append("the record is not what the journal says")
    extraction = record.extraction or {}
    if extraction.get("status") not in FINAL - {"given_up"}:
        wrong.append(f"extraction is {extraction}")
    said = any(turn.text for turn in record.turns if turn.role == "caller")
    if said and extraction.get("method") != "model":
        wrong.append(f"something was said, but extraction is {extraction}")
    return wrong


def _without_cost(record: CallRecord) -> CallRecord:
    usage = {name: sums for name, sums in (record.usage or {}).items() if name not in ("cost", "currency")}
    return replace(record, usage=usage)
