"""The journal's file: what is on disk, for whoever reads it, erases from it, or prunes it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from handlehome.store.datadir import StoreError, connect, open_database, run_script
from handlehome.store.records import Event

__all__ = ["DamagedEvent", "JournalError", "JournalFile", "open_journal"]

SCHEMA_VERSION = 2
# AUTOINCREMENT: a sequence number is never used again, whatever has been pruned.
_EVENTS = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    call_sid TEXT NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX events_by_call ON events (call_sid, seq);
"""
# What is still written of a call that has been erased (its extraction comes back late, say) is not kept.
_LIVES = """
CREATE TABLE erased (call_sid TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TRIGGER nothing_of_the_erased BEFORE INSERT ON events
    WHEN EXISTS (SELECT 1 FROM erased WHERE call_sid = NEW.call_sid)
    BEGIN SELECT raise(IGNORE); END;
CREATE INDEX events_of_life ON events (call_sid, kind, seq)
    WHERE kind IN ('call_started', 'call_ended', 'call_saved', 'extracted');
CREATE VIEW lives AS
    SELECT call_sid,
           max(seq) FILTER (WHERE kind = 'call_started') AS started,
           max(seq) FILTER (WHERE kind = 'call_ended') AS ended,
           ifnull((SELECT json_extract(data, '$.extraction.status') FROM events AS e
               WHERE e.call_sid = life.call_sid AND kind = 'extracted' ORDER BY seq DESC LIMIT 1),
               'waiting') IN ('waiting', 'retrying', 'stopped') AS pending,
           (SELECT max(ifnull(json_extract(data, '$.seq'), seq)) FROM events AS e
               WHERE e.call_sid = life.call_sid AND kind = 'call_saved') AS saved,
           (SELECT max(seq) FROM events AS e
               WHERE e.call_sid = life.call_sid AND kind <> 'call_saved') AS last
    FROM events AS life WHERE kind IN ('call_started', 'call_ended', 'call_saved', 'extracted')
    GROUP BY call_sid;
"""
SCHEMA = _EVENTS + _LIVES


def _to_version_2(connection: sqlite3.Connection) -> None:
    """What is saved is known to the event, extractions are part of a life, and calls can be erased."""
    run_script(connection, "DROP VIEW lives; DROP INDEX events_of_life;" + _LIVES)


CHECKPOINTS = 5  # attempts to empty the write-ahead log, each of which waits for two seconds
PRUNE_CALLS = 50  # calls per transaction, so that pruning never holds up the writer for long


class JournalError(StoreError):
    """The journal can't be opened, read or completed; the message says what to do."""


class DamagedEvent(JournalError):
    """An event of one call can't be read, now or later."""


def open_journal(path: Path) -> sqlite3.Connection:
    """Opens the database, makes it where it is missing, and brings it up to date.

    Raises:
        JournalError: the file is damaged, is no journal, has a newer schema, or can't be opened.
    """
    return open_database(
        path, schema=SCHEMA, version=SCHEMA_VERSION, error=JournalError, migrations=(_to_version_2,)
    )


class JournalFile:
    """A journal as it is on disk; a daemon may be writing to it. All methods block.

    Args:
        path: the database, which exists and is up to date.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def unfinished(self) -> list[str]:
        """The calls that have started and not ended, the earliest first; of what is on disk."""
        query = "SELECT call_sid FROM lives WHERE started IS NOT NULL AND ended IS NULL ORDER BY started"
        return [sid for (sid,) in self._read(query)]

    def unsaved(self) -> list[str]:
        """The calls that have ended and are not saved, the earliest first; of what is on disk.

        A call with events behind those that its last `call_saved` names (its extraction, say) counts as
        unsaved again.
        """
        query = (
            "SELECT call_sid FROM lives WHERE ended IS NOT NULL AND ifnull(saved, 0) < last ORDER BY ended"
        )
        return [sid for (sid,) in self._read(query)]

    def unprocessed(self) -> list[str]:
        """The calls that have ended and whose extraction is not settled, the earliest first."""
        query = "SELECT call_sid FROM lives WHERE ended IS NOT NULL AND pending ORDER BY ended"
        return [sid for (sid,) in self._read(query)]

    def calls_of(self, phone: str) -> list[str]:
        """The calls of a customer's number: from it, made to it, or with it in the extracted data.

        Args:
            phone: as the events have it: E.164, or what Twilio gave instead.
        """
        query = (
            "SELECT DISTINCT call_sid FROM events "
            "WHERE kind = 'call_started' AND (json_extract(data, '$.from') = ?1 OR "
            "json_extract(data, '$.to') = ?1 AND json_extract(data, '$.direction') <> 'inbound') "
            "OR kind = 'extracted' AND json_extract(data, '$.data.customer.phone') = ?1"
        )
        return [sid for (sid,) in self._read(query, phone)]

    def events(self, call_sid: str) -> list[Event]:
        """The events of a call that are on disk, in the order in which they were appended.

        Raises:
            JournalError: they can't be read.
            DamagedEvent: one of them is damaged.
        """
        rows = self._read(
            "SELECT call_sid, at, kind, data, seq FROM events WHERE call_sid = ? ORDER BY seq", call_sid
        )
        try:
            return [Event(sid, at, kind, orjson.loads(data), seq) for sid, at, kind, data, seq in rows]
        except orjson.JSONDecodeError as error:
            raise DamagedEvent(f"{self.path}: an event of {call_sid} is damaged ({error})") from error

    def newest(self, call_sid: str) -> int:
        """The sequence number of a call's last event that is on disk, notes about its saving apart.

        Returns:
            0 when there is none: the call is not known, or its events have been pruned; -1 when it is erased.
        """
        query = (
            "SELECT max(seq), EXISTS (SELECT 1 FROM erased WHERE call_sid = ?1) FROM events "
            "WHERE call_sid = ?1 AND kind NOT IN ('call_saved', 'save_refused')"
        )
        ((seq, erased),) = self._read(query, call_sid)
        return -1 if erased else seq or 0

    def write(self, call_sid: str, kind: str, data: dict[str, Any]) -> int:
        """Writes one event, for programs beside the daemon; durable when it returns.

        Returns:
            Its sequence number; 0 when the call has been erased.

        Raises:
            JournalError: it can't be written.
        """
        row = (call_sid, time.time(), kind, orjson.dumps(data).decode())
        try:
            with contextlib.closing(connect(self.path)) as connection:
                cursor = connection.execute(
                    "INSERT INTO events (call_sid, at, kind, data) VALUES (?, ?, ?, ?)", row
                )
                return (cursor.lastrowid or 0) if cursor.rowcount else 0
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: can't be written ({error})") from error

    def erase(self, calls: Iterable[str]) -> int:
        """Removes all events of calls, and those that may yet come; on disk they are overwritten.

        Returns:
            How many events were removed.

        Raises:
            JournalError: the database can't be written; some calls may be gone already.
        """
        removed = 0
        try:
            with contextlib.closing(connect(self.path)) as connection:
                for call_sid in calls:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute("INSERT OR REPLACE INTO erased VALUES (?, ?)", (call_sid, time.time()))
                    done = connection.execute("DELETE FROM events WHERE call_sid = ?", (call_sid,))
                    removed += done.rowcount
                    connection.execute("COMMIT")
                # Copies stay in the write-ahead log until it is emptied, which waits for readers.
                for _ in range(CHECKPOINTS):
                    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    if not busy:
                        break
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: can't be erased from ({error})") from error
        return removed

    def prune(self, before: float, pending_before: float = 0.0) -> int:
        """Drops the events of saved calls whose last event happened before a time.

        The file does not shrink: the space is used again.

        Args:
            before: seconds since the epoch.
            pending_before: the same for calls whose extraction is not settled.

        Returns:
            How many calls were dropped.

        Raises:
            JournalError: the database can't be read or written; some calls may be gone already.
        """
        query = (
            "SELECT call_sid FROM lives WHERE ended IS NOT NULL AND saved >= last "
            "AND (SELECT max(at) FROM events WHERE events.call_sid = lives.call_sid) "
            "< iif(pending, ?, ?)"
        )
        calls = [sid for (sid,) in self._read(query, pending_before, before)]
        try:
            with contextlib.closing(connect(self.path)) as connection:
                for first in range(0, len(calls), PRUNE_CALLS):
                    chunk = calls[first : first + PRUNE_CALLS]
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany("DELETE FROM events WHERE call_sid = ?", [(sid,) for sid in chunk])
                    connection.execute("COMMIT")
                connection.execute("DELETE FROM erased WHERE at < ?", (before,))
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: can't be pruned ({error})") from error
        return len(calls)

    def _read(self, query: str, *parameters: str | float) -> list[tuple[Any, ...]]:
        # A connection per reading: readings are rare, and in WAL mode they don't hold up the writer.
        try:
            with contextlib.closing(connect(self.path)) as connection:
                return connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: can't be read ({error})") from error
