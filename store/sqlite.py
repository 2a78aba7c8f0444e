"""The embedded call store: one SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from datetime import tzinfo
from pathlib import Path
from typing import Any, Final

import orjson

from handlehome.store import clients, search
from handlehome.store.calls import (
    EVERY_CALL,
    CallPage,
    CallQuery,
    CallStoreError,
    CallStoreUnavailable,
    ClientPage,
    ErasureReport,
    RecordRefused,
    StoredCall,
    Workflow,
    check_workflow,
    from_cursor,
    to_cursor,
)
from handlehome.store.clients import ClientRecord
from handlehome.store.datadir import connect, open_database, run_script
from handlehome.store.records import CallRecord
from handlehome.store.statistics import SLICE_MS, CallStatistics, Group, summed_up

__all__ = ["SqliteCallStore"]

SCHEMA_VERSION: Final = 2
# The document is the record; the columns beside it are what is searched by, and follow from it, but for
# `workflow`. The words lie at the rowid of their call. Clients follow from the calls, see `clients`.
SCHEMA: Final = """
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    call_sid TEXT NOT NULL UNIQUE,
    started_ms INTEGER NOT NULL,
    duration_ms INTEGER,
    from_number TEXT,
    to_number TEXT,
    party TEXT,
    client TEXT,
    customer_phone TEXT,
    contact TEXT,
    status TEXT NOT NULL,
    end_reason TEXT,
    request_type TEXT,
    workflow TEXT NOT NULL DEFAULT 'new',
    document TEXT NOT NULL
);
CREATE INDEX calls_by_start ON calls (started_ms, call_sid);
CREATE INDEX calls_by_caller ON calls (from_number, started_ms, call_sid);
CREATE INDEX calls_by_called ON calls (to_number, started_ms, call_sid);
CREATE INDEX calls_by_client ON calls (client, started_ms, call_sid);
CREATE INDEX calls_by_party ON calls (party);
CREATE INDEX calls_by_customer ON calls (customer_phone);
CREATE VIRTUAL TABLE call_words USING fts5 (words, tokenize = 'unicode61 remove_diacritics 2');
CREATE TABLE clients (
    phone TEXT PRIMARY KEY,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    last_call TEXT NOT NULL,
    contact TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX clients_by_last ON clients (last_ms, phone)
"""

COLUMNS: Final = (
    "call_sid", "started_ms", "duration_ms", "from_number", "to_number", "party", "client", "customer_phone",
    "contact", "status", "end_reason", "request_type", "document",
)  # fmt: skip
INSERT: Final = f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608  # constants
UPDATE: Final = f"UPDATE calls SET {', '.join(f'{name} = ?' for name in COLUMNS)} WHERE id = ?"  # noqa: S608  # constants

PURGE_CALLS: Final = 100  # calls per transaction, so that purging never holds up a save for long
DAY_MS: Final = 86_400_000

_Value = str | int | None


class SqliteCallStore:
    """The embedded call store: one SQLite file.

    WAL with synchronous=FULL: a saved record survives a power cut. Other processes may read meanwhile. What
    is deleted, erased or purged is overwritten in the file before the method returns. A record may be as
    large as SQLite lets a text be (1 GB).
    """

    def __init__(self, path: Path, *, retention_days: int | None = None) -> None:
        """Opens the store, makes it where it is missing, and brings an earlier version's up to date.

        Args:
            path: the database; its directory must exist.
            retention_days: how long `purge` leaves a call there, from its start; None: for ever.

        Raises:
            CallStoreError: the file is damaged, is no call store, has a newer schema, or can't be opened.
        """
        self.path = path
        self._retention_days = retention_days
        self._write_lock = threading.Lock()  # of a connection, one thread at a time
        self._read_lock = threading.Lock()
        self._writer = open_database(
            path, schema=SCHEMA, version=SCHEMA_VERSION, error=CallStoreError, migrations=(_with_columns,)
        )
        try:
            self._reader = connect(path)  # its own, so that a long reading holds up no save
        except sqlite3.Error as error:
            self._writer.close()
            raise self._named(error) from error

    def save(self, record: CallRecord) -> None:
        """See `CallStore.save`."""
        try:
            row, words = _row(record), _words(record)
        except (ValueError, TypeError, OverflowError, OSError, RecursionError) as error:
            raise RecordRefused(f"the record of {record.call_sid} can't be stored: {error}") from error
        with self._writing() as connection:
            found = connection.execute(
                "SELECT id, status, client, contact, started_ms, document FROM calls WHERE call_sid = ?",
                (record.call_sid,),
            ).fetchone()
            if found is None:
                identity = connection.execute(INSERT, tuple(row.values())).lastrowid
            else:
                identity, status, *_, document = found
                if document == row["document"] or (status == "ended" and record.status != "ended"):
                    return
                connection.execute(UPDATE, (*row.values(), identity))
                connection.execute("DELETE FROM call_words WHERE rowid = ?", (identity,))
            connection.execute("INSERT INTO call_words (rowid, words) VALUES (?, ?)", (identity, words))
            if found is None or found[2:5] != (row["client"], row["contact"], row["started_ms"]):
                for phone in {clients.client_of(record), found[2] if found else None}:
                    if phone is not None:
                        _settle(connection, phone)

    def get(self, call_sid: str) -> CallRecord | None:
        """See `CallStore.get`."""
        call = self.stored(call_sid)
        return None if call is None else call.record

    def stored(self, call_sid: str) -> StoredCall | None:
        """See `CallStore.stored`."""
        rows = self._read("SELECT document, workflow FROM calls WHERE call_sid = ?", call_sid)
        return self._stored(*rows[0]) if rows else None

    def find(self, query: CallQuery = EVERY_CALL, *, limit: int = 50, cursor: str | None = None) -> CallPage:
        """See `CallStore.find`."""
        conditions, values = _conditions(query)
        if cursor is not None:
            conditions.append("(started_ms, call_sid) < (?, ?)")
            values.extend(from_cursor(cursor))
        wanted = search.words(query.text or "")
        if wanted:
            conditions.append("id IN (SELECT rowid FROM call_words WHERE call_words MATCH ?)")
            values.append(" ".join(f'"{word}"*' for word in wanted))
        limit = max(0, limit)
        rows = self._read(
            "SELECT document, workflow, started_ms, call_sid FROM calls "  # noqa: S608  # constants
            f"WHERE {' AND '.join(conditions) or 'TRUE'} ORDER BY started_ms DESC, call_sid DESC LIMIT ?",
            *values,
            limit + 1 if limit else 0,
        )
        calls = tuple(self._stored(text, workflow, wanted) for text, workflow, *_ in rows[:limit])
        return CallPage(calls, to_cursor(*rows[limit - 1][2:]) if len(rows) > limit else None)

    def recent(self, limit: int = 50) -> list[CallRecord]:
        """See `CallStore.recent`."""
        return [call.record for call in self.find(limit=limit).calls]

    def set_workflow(self, call_sid: str, workflow: Workflow) -> bool:
        """See `CallStore.set_workflow`."""
        check_workflow(workflow)
        with self._writing() as connection:
            done = connection.execute(
                "UPDATE calls SET workflow = ? WHERE call_sid = ?", (workflow, call_sid)
            )
            return done.rowcount > 0

    def delete(self, call_sid: str) -> bool:
        """See `CallStore.delete`."""
        with self._writing() as connection:
            calls = _remove(connection, "call_sid = ?", call_sid)
            for client in _clients(calls):
                _settle(connection, client)
        self._overwrite()
        return bool(calls)

    def erase(self, phone: str) -> ErasureReport:
        """See `CallStore.erase`."""
        with self._writing() as connection:
            known = {
                phone
                for (phone,) in connection.execute("SELECT phone FROM clients WHERE phone = ?", (phone,))
            }
            (condition,), values = _conditions(CallQuery(phone=phone))
            calls = _remove(connection, condition, *values)
            known |= {client for _, client in calls if client is not None}
            left = {client for client in known if _settle(connection, client)}
        self._overwrite()
        return ErasureReport(
            phone, tuple(call for call, _ in calls), tuple(sorted(known - left)), tuple(sorted(left))
        )

    def statistics(
        self, *, since: float | None = None, until: float | None = None, zone: tzinfo
    ) -> CallStatistics:
        """See `CallStore.statistics`."""
        conditions, values = _conditions(CallQuery(since=since, until=until))
        rows = self._read(
            f"SELECT started_ms / {SLICE_MS} * {SLICE_MS} AS start, request_type, status, end_reason, "  # noqa: S608  # constants
            "workflow, count(*), count(duration_ms), ifnull(sum(duration_ms), 0), max(duration_ms) "
            f"FROM calls WHERE {' AND '.join(conditions) or 'TRUE'} "
            "GROUP BY start, request_type, status, end_reason, workflow",
            *values,
        )
        return summed_up((Group(*row) for row in rows), zone)

    def client(self, phone: str) -> ClientRecord | None:
        """See `CallStore.client`."""
        rows = self._read("SELECT * FROM clients WHERE phone = ?", phone)
        return _client(rows[0]) if rows else None

    def clients(self, *, limit: int = 50, cursor: str | None = None) -> ClientPage:
        """See `CallStore.clients`."""
        values: tuple[_Value, ...] = () if cursor is None else from_cursor(cursor)
        limit = max(0, limit)
        rows = self._read(
            f"SELECT * FROM clients WHERE {'(last_ms, phone) < (?, ?)' if values else 'TRUE'} "  # noqa: S608  # constants
            "ORDER BY last_ms DESC, phone DESC LIMIT ?",
            *values,
            limit + 1 if limit else 0,
        )
        more = len(rows) > limit
        return ClientPage(
            tuple(map(_client, rows[:limit])),
            to_cursor(rows[limit - 1][2], rows[limit - 1][0]) if more else None,
        )

    def purge(self, now: float) -> int:
        """See `CallStore.purge`."""
        if self._retention_days is None:
            return 0
        before = round(now * 1000) - self._retention_days * DAY_MS
        removed = 0
        while True:
            with self._writing() as connection:
                oldest = "SELECT id FROM calls WHERE started_ms <= ? ORDER BY started_ms LIMIT ?"
                calls = _remove(connection, f"id IN ({oldest})", before, PURGE_CALLS)
                for client in _clients(calls):
                    _settle(connection, client)
            removed += len(calls)
            if len(calls) < PURGE_CALLS:
                break
        if removed:
            self._overwrite()
        return removed

    def close(self) -> None:
        """See `CallStore.close`; the second time nothing happens."""
        with self._read_lock:
            self._reader.close()
        with self._write_lock:
            self._writer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on disk afterwards, or nothing."""
        with self._write_lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    # Some errors have rolled back already.
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._named(error) from error

    def _read(self, statement: str, *values: _Value) -> list[tuple[Any, ...]]:
        with self._read_lock:
            try:
                return self._reader.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise self._named(error) from error

    def _overwrite(self) -> None:
        """Has the deleted words and pages disappear from the index of words and from the log."""
        with self._writing() as connection:
            connection.execute("INSERT INTO call_words (call_words) VALUES ('optimize')")
        with self._read_lock, self._write_lock:
            try:
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                raise self._named(error) from error

    def _named(self, error: sqlite3.Error) -> CallStoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        text = f"{self.path}: {error}: check the file and the disk's space"
        if code == sqlite3.SQLITE_TOOBIG or isinstance(error, sqlite3.DataError):
            return RecordRefused(text)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return CallStoreError(
                f"{self.path}: the database is damaged ({error}): start again to learn more"
            )
        return CallStoreUnavailable(text)

    def _stored(self, text: str, workflow: Workflow, wanted: list[str] | None = None) -> StoredCall:
        try:
            record = CallRecord.from_document(orjson.loads(text))
        except (ValueError, KeyError) as error:
            raise CallStoreError(f"{self.path}: a stored record is damaged ({error})") from error
        return StoredCall(record, workflow, search.snippet(record, wanted) if wanted else None)


def _row(record: CallRecord) -> dict[str, _Value]:
    """What stands in `COLUMNS` for a record.

    Raises:
        ValueError, TypeError, OverflowError, OSError, RecursionError: it holds what JSON can't, or no time.
    """
    document = record.to_document()
    contact = clients.contact(record.data)
    return dict(
        zip(
            COLUMNS,
            (
                record.call_sid,
                round(record.started_at * 1000),
                record.duration_ms,
                record.from_,
                record.to,
                clients.party(record),
                clients.client_of(record),
                clients.customer_phone(record),
                orjson.dumps(contact).decode() if contact else None,
                record.status,
                record.end_reason,
                clients.request_type(record),
                orjson.dumps(document).decode(),
            ),
            strict=True,
        )
    )


def _words(record: CallRecord) -> str:
    return " ".join(search.call_words(record))


def _conditions(query: CallQuery) -> tuple[list[str], list[_Value]]:
    """The query's conditions, but for the text, as SQL."""
    asked: list[tuple[str, _Value]] = [
        ("started_ms >= ?", None if query.since is None else round(query.since * 1000)),
        ("started_ms < ?", None if query.until is None else round(query.until * 1000)),
        ("from_number = ?", query.from_),
        ("to_number = ?", query.to),
        ("client = ?", query.client),
        ("status = ?", query.status),
        ("end_reason = ?", query.end_reason),
        ("request_type = ?", query.request_type),
        ("workflow = ?", query.workflow),
    ]
    held = [(condition, value) for condition, value in asked if value is not None]
    conditions: list[str] = [condition for condition, _ in held]
    values: list[_Value] = [value for _, value in held]
    if query.phone is not None:
        conditions.append("(party = ? OR customer_phone = ?)")
        values += [query.phone, query.phone]
    return conditions, values


def _remove(connection: sqlite3.Connection, condition: str, *values: _Value) -> list[tuple[str, str | None]]:
    """Removes calls; returns the CallSid and the client of each, the latest first."""
    calls = connection.execute(
        f"SELECT id, call_sid, client FROM calls WHERE {condition} ORDER BY started_ms DESC, call_sid DESC",  # noqa: S608  # constants
        values,
    ).fetchall()
    for table, key in (("calls", "id"), ("call_words", "rowid")):
        connection.executemany(f"DELETE FROM {table} WHERE {key} = ?", [call[:1] for call in calls])  # noqa: S608  # constants
    return [(call_sid, client) for _, call_sid, client in calls]


def _settle(connection: sqlite3.Connection, phone: str) -> bool:
    """Makes a client what the calls say; returns whether there is one."""
    count, first = connection.execute(
        "SELECT count(*), min(started_ms) FROM calls WHERE client = ?", (phone,)
    ).fetchone()
    if not count:
        connection.execute("DELETE FROM clients WHERE phone = ?", (phone,))
        return False
    latest_first = "FROM calls WHERE client = ? {} ORDER BY started_ms DESC, call_sid DESC"
    last = connection.execute(f"SELECT started_ms, call_sid {latest_first.format('')} LIMIT 1", (phone,))
    last_ms, last_call = last.fetchone()
    contacts = connection.execute(
        f"SELECT contact {latest_first.format('AND contact IS NOT NULL')}", (phone,)
    )
    known = clients.latest(orjson.loads(text) for (text,) in contacts)
    connection.execute(
        "INSERT OR REPLACE INTO clients (phone, first_ms, last_ms, calls, last_call, contact) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (phone, first, last_ms, count, last_call, orjson.dumps(known).decode()),
    )
    return True


def _client(row: tuple[Any, ...]) -> ClientRecord:
    phone, first_ms, last_ms, calls, last_call, contact = row
    return ClientRecord(phone, first_ms / 1000, last_ms / 1000, calls, last_call, **orjson.loads(contact))


def _clients(calls: list[tuple[str, str | None]]) -> set[str]:
    return {client for _, client in calls if client is not None}


def _with_columns(connection: sqlite3.Connection) -> None:
    """From version 1, which had but the document and four columns, to version 2."""
    run_script(
        connection,
        "ALTER TABLE calls RENAME TO calls_1; DROP INDEX calls_by_start; DROP INDEX calls_by_caller; "
        "DROP INDEX calls_by_called",
    )
    run_script(connection, SCHEMA)
    for (text,) in connection.execute("SELECT document FROM calls_1 ORDER BY started_at"):
        try:
            record = CallRecord.from_document(orjson.loads(text))
        except (ValueError, KeyError) as error:
            raise CallStoreError(f"a stored record is damaged ({error})") from error
        identity = connection.execute(INSERT, tuple(_row(record).values())).lastrowid
        connection.execute("INSERT INTO call_words (rowid, words) VALUES (?, ?)", (identity, _words(record)))
    for (phone,) in connection.execute(
        "SELECT DISTINCT client FROM calls WHERE client IS NOT NULL"
    ).fetchall():
        _settle(connection, phone)
    connection.execute("DROP TABLE calls_1")
