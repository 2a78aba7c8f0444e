"""Where finished records live: the interface of a call store, and the embedded one."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Protocol

import orjson

from handlehome.store.datadir import StoreError, open_database
from handlehome.store.records import CallRecord

__all__ = ["CallStore", "CallStoreError", "SqliteCallStore"]

SCHEMA_VERSION = 1
# The document is the record; the columns beside it are what is searched by.
SCHEMA = """
CREATE TABLE calls (
    call_sid TEXT PRIMARY KEY,
    started_at TEXT NOT NULL,
    from_number TEXT,
    to_number TEXT,
    document TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX calls_by_start ON calls (started_at);
CREATE INDEX calls_by_caller ON calls (from_number, started_at);
CREATE INDEX calls_by_called ON calls (to_number, started_at)
"""


class CallStoreError(StoreError):
    """The call store can't be opened, read or written; the message says what to do."""


class CallStore(Protocol):
    """A place for call records. Methods block, and may be called from any thread but the event loop's."""

    def save(self, record: CallRecord) -> None:
        """Puts the record in the place of whatever is there under its CallSid; durable when it returns.

        Saving the same record again changes nothing.

        Raises:
            CallStoreError: it is not saved; trying again may help.
        """

    def get(self, call_sid: str) -> CallRecord | None:
        """The record of a call; None when there is none.

        Raises:
            CallStoreError: the store can't be read.
        """

    def recent(self, limit: int = 50) -> list[CallRecord]:
        """The records of the calls that started last, the latest first.

        Raises:
            CallStoreError: the store can't be read.
        """

    def close(self) -> None:
        """Frees what the store holds; afterwards the other methods raise `CallStoreError`."""


class SqliteCallStore:
    """The embedded call store: one SQLite file.

    WAL with synchronous=FULL: a saved record survives a power cut. Other processes may read meanwhile.
    """

    def __init__(self, path: Path) -> None:
        """Opens the store and makes it where it is missing.

        Args:
            path: the database; its directory must exist.

        Raises:
            CallStoreError: the file is damaged, is no call store, has a newer schema, or can't be opened.
        """
        self.path = path
        self._lock = threading.Lock()  # one connection, one thread at a time
        self._connection = open_database(path, schema=SCHEMA, version=SCHEMA_VERSION, error=CallStoreError)

    def save(self, record: CallRecord) -> None:
        """See `CallStore.save`."""
        document = record.to_document()
        self._execute(
            "INSERT INTO calls (call_sid, started_at, from_number, to_number, document) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT (call_sid) DO UPDATE SET "
            "started_at = excluded.started_at, from_number = excluded.from_number, "
            "to_number = excluded.to_number, document = excluded.document "
            "WHERE document <> excluded.document",
            record.call_sid,
            document["started_at"],
            record.from_,
            record.to,
            orjson.dumps(document).decode(),
        )

    def get(self, call_sid: str) -> CallRecord | None:
        """See `CallStore.get`."""
        rows = self._execute("SELECT document FROM calls WHERE call_sid = ?", call_sid)
        return self._record(rows[0][0]) if rows else None

    def recent(self, limit: int = 50) -> list[CallRecord]:
        """See `CallStore.recent`."""
        rows = self._execute(
            "SELECT document FROM calls ORDER BY started_at DESC, call_sid LIMIT ?", max(0, limit)
        )
        return [self._record(text) for (text,) in rows]

    def close(self) -> None:
        """See `CallStore.close`; the second time nothing happens."""
        with self._lock:
            self._connection.close()

    def _execute(self, statement: str, *parameters: str | int | None) -> list[tuple[str]]:
        with self._lock:
            try:
                return self._connection.execute(statement, parameters).fetchall()
            except sqlite3.Error as error:
                raise CallStoreError(f"{self.path}: {error}: check the file and the disk's space") from error

    def _record(self, text: str) -> CallRecord:
        try:
            return CallRecord.from_document(orjson.loads(text))
        except (ValueError, KeyError) as error:
            raise CallStoreError(f"{self.path}: a stored record is damaged ({error})") from error
