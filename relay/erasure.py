"""Takes people's data away: a phone number's, at its owner's wish, or what has been kept for long enough.

Everything that is kept of a call is named here, with the one who holds it: the journal (which also holds what
waits to be saved), the store with its clients, recordings and callers' audio, and the log's lines. A daemon
may be running meanwhile: what it still writes of an erased call is not kept (`JournalFile.erase`), and log
lines are overwritten in place, so that what it appends is not touched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.export import stored_calls
from handlehome.store.calls import CallQuery, CallStore
from handlehome.store.datadir import StoreError
from handlehome.store.journalfile import JournalFile

__all__ = [
    "ErasedNumber",
    "Keepers",
    "LiveCall",
    "PurgeIncomplete",
    "Purged",
    "Retention",
    "calls_of",
    "erase_number",
    "purge",
]

DAY_SECONDS = 86_400.0

KEEP_EVENTS_DAYS = 30
"""How long the journal keeps the events of a saved and processed call, if its record is kept for longer."""

_ERASED = b'{"erased":true}'


class PurgeIncomplete(Exception):
    """Not all that has been kept for long enough could be removed; the message says what was in the way."""


class LiveCall(Exception):
    """A call of this number is going on: it can be erased when it has ended."""


@dataclass(frozen=True, slots=True)
class Keepers:
    """Who keeps what of calls."""

    journal: JournalFile
    store: CallStore
    files: AudioFiles
    log_dir: Path


@dataclass(frozen=True, slots=True)
class ErasedNumber:
    """What was removed for the sake of a phone number.

    Attributes:
        calls: CallSids, of the journal's calls and the store's.
        records: how many of them were in the store.
        clients: how many clients are there no longer.
        events: how many events the journal held, those that waited to be saved included.
        files: recordings and callers' audio.
        log_lines: lines of the logs.
    """

    calls: tuple[str, ...]
    records: int
    clients: int
    events: int
    files: tuple[Path, ...]
    log_lines: int


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days things are kept; 0 keeps them (recordings: as long as their call's record)."""

    records: int
    recordings: int
    audio: int


@dataclass(frozen=True, slots=True)
class Purged:
    """How much was removed because it had been kept for long enough."""

    records: int
    events: int
    files: int
    log_lines: int


def erase_number(phone: str, keepers: Keepers) -> ErasedNumber:
    """Removes everything that is known of a number.

    Args:
        phone: E.164.
        keepers: who keeps it.

    Raises:
        LiveCall: one of its calls has not ended; nothing was removed.
        StoreError: the journal or the store can't be read or written; run it again.
        OSError: a file can't be removed; run it again.
    """
    journal, store = keepers.journal, keepers.store
    calls = calls_of(phone, keepers)
    live = set(calls).intersection(journal.unfinished())
    if live:
        raise LiveCall(f"{', '.join(sorted(live))} has not ended: try again when it has")
    # Those that know which calls are the number's come last, so that an erasure that was cut short can be
    # repeated; the journal before the store, which it would fill again.
    files = [path for call_sid in calls for path in keepers.files.delete(call_sid)]
    lines = _erase_log_lines(keepers.log_dir, lambda line: line.get("call_sid") in calls)
    events = journal.erase(calls)
    report = store.erase(phone)
    # What named the number only for a while, and the store knows no more by it.
    records = len(report.calls) + sum(store.delete(call_sid) for call_sid in calls)
    return ErasedNumber(tuple(calls), records, len(report.clients), events, tuple(files), lines)


def calls_of(phone: str, keepers: Keepers) -> dict[str, None]:
    """The calls of a number, as far as the journal or the store knows them, in order.

    Raises:
        StoreError: one of them can't be read.
    """
    found = dict.fromkeys(keepers.journal.calls_of(phone))
    for call in stored_calls(keepers.store, CallQuery(phone=phone)):
        found[call.record.call_sid] = None
    return found


def purge(keepers: Keepers, retention: Retention, now: float) -> Purged:
    """Removes what has been kept for long enough. The store knows its own days.

    What one keeper can't do now does not hold up the others.

    Args:
        keepers: who keeps what.
        retention: for how long.
        now: seconds since the epoch.

    Raises:
        PurgeIncomplete: not all of it could be removed; the rest is.
    """
    days = retention.records
    oldest = now - days * DAY_SECONDS if days else 0.0
    recordings = min(filter(None, (days, retention.recordings)), default=0)

    def old_events() -> int:
        kept = min(days or KEEP_EVENTS_DAYS, KEEP_EVENTS_DAYS)
        return keepers.journal.prune(now - kept * DAY_SECONDS, oldest)

    def old_files() -> int:
        files = keepers.files.expire_spools(now - retention.audio * DAY_SECONDS)
        if recordings:
            files += keepers.files.expire_recordings(now - recordings * DAY_SECONDS)
        return files

    def old_lines() -> int:
        if not days:
            return 0
        since = datetime.fromtimestamp(oldest, UTC).isoformat(timespec="milliseconds")
        return _erase_log_lines(
            keepers.log_dir, lambda line: bool(line.get("call_sid")) and str(line.get("time")) < since
        )

    problems: list[str] = []
    counts: list[int] = []
    for remove in (old_events, old_files, old_lines, lambda: keepers.store.purge(now)):
        try:
            counts.append(remove())
        except (StoreError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise PurgeIncomplete("; ".join(problems))
    events, files, lines, records = counts
    return Purged(records, events, files, lines)


def _erase_log_lines(folder: Path, doomed: Callable[[dict[str, Any]], bool]) -> int:
    return sum(_blank(path, doomed) for path in sorted(folder.glob("*.log*")) if path.is_file())


def _blank(path: Path, doomed: Callable[[dict[str, Any]], bool]) -> int:
    """Overwrites lines of a file that somebody may be appending to; their number and length stay."""
    blanked = 0
    with path.open("r+b", buffering=1 << 16) as file:
        position = 0
        for line in iter(file.readline, b""):
            if line.endswith(b"\n") and not line.startswith(_ERASED) and _is(doomed, line):
                os.pwrite(file.fileno(), _ERASED.ljust(len(line) - 1)[: len(line) - 1], position)
                blanked += 1
            position += len(line)
        if blanked:
            os.fsync(file.fileno())
    return blanked


def _is(doomed: Callable[[dict[str, Any]], bool], line: bytes) -> bool:
    try:
        parsed = json.loads(line)  # not orjson: it can't read all that the log can hold
    except ValueError:
        return False
    return isinstance(parsed, dict) and doomed(parsed)
