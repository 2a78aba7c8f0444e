"""The journal: every event of every call, on disk within milliseconds, written by a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from handlehome.store.datadir import connect
from handlehome.store.journalfile import JournalError, JournalFile, open_journal

__all__ = ["Journal", "JournalError", "JournalHealth"]

LINGER = 0.02  # seconds an event may wait for company before its transaction begins
MAX_BATCH = 2000  # events per transaction: about 10 ms of insertion
FIRST_RETRY, LAST_RETRY = 0.05, 2.0  # seconds between attempts to write, doubling

_Row = tuple[str, float, str, str]


@dataclass(frozen=True, slots=True)
class JournalHealth:
    """How the journal is.

    Attributes:
        ok: it writes, and refuses nothing.
        error: why the last attempt to write failed; None when it did not.
        waiting: events that are not yet on disk.
        waiting_bytes: their size.
        committed: events put on disk since `open`.
        refused: events turned away at the bound, or after `close`, since `open`.
    """

    ok: bool
    error: str | None
    waiting: int
    waiting_bytes: int
    committed: int
    refused: int


class Journal(JournalFile):
    """The journal of one data directory.

    **What survives.** Events go to disk in the order in which they were appended, in transactions (WAL,
    synchronous=FULL: the log is synced at each commit). An event's transaction begins at the latest `LINGER`
    (20 ms) after `append`, or when the one before it is done, and ends with a sync. From then on the event
    survives a `kill -9` at any moment, and a power cut as well if the disk keeps what it says that it has
    synced. `flush` returns after that point for everything appended before it. What was appended later may
    be lost with the process: the newest 20 ms and the duration of one commit, no more while the disk is
    well. What is lost is always the newest: of each call, the journal holds the events from the first one
    up to some point, without gaps, each of them once.

    **When the disk fails** (full, I/O error, locked), nothing is thrown away: the writer tries again, each
    time on a new connection, until it succeeds, and `health` says why it waits. Events wait in memory, up to
    `max_events` and `max_bytes`. Beyond three quarters of either, `turn` events are refused; beyond the
    bound, all are. A refused event is lost, and makes the one exception to "without gaps": `append` says so
    by its result, `health.refused` counts it, and `on_health` is called when refusing begins and ends. The
    last quarter is for the events of a call's life, so that no call stays unfinished for want of one.

    `append` and `flush` are for the event loop. All other methods may block on the disk: call them in a
    thread. Every method may be called from any thread.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        on_health: Callable[[JournalHealth], None] | None,
        max_events: int,
        max_bytes: int,
    ) -> None:
        """Takes over a prepared connection and starts the writer; use `open`."""
        super().__init__(path)
        self._connection: sqlite3.Connection | None = connection
        self._last_seq = _newest(connection)
        self._on_health = on_health
        self._max_events, self._max_bytes = max_events, max_bytes

        lock = threading.Lock()  # held for a few assignments at a time, never during I/O
        self._work = threading.Condition(lock)  # what the writer waits on
        self._done = threading.Condition(lock)  # what flush_sync waits on
        self._queue: deque[_Row] = deque()
        self._queued_at = 0.0  # monotonic time since when the queue's first event waits
        self._accepted = self._committed = self._refused = 0
        self._waiting_bytes = 0
        self._error: str | None = None
        self._refusing = False
        self._urgent = False  # somebody waits: don't linger
        self._idle = False  # the writer waits for a first event
        self._give_up_at: float | None = None  # monotonic; set by close
        self._ended = False
        self._flushes: list[tuple[int, asyncio.Future[None]]] = []
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        on_health: Callable[[JournalHealth], None] | None = None,
        max_events: int = 200_000,
        max_bytes: int = 64 << 20,
    ) -> Journal:
        """Opens the journal, makes it where it is missing, and starts its writer.

        Args:
            path: the database; the caller holds the lock of its `DataDir`.
            on_health: called when writing begins to fail, fails for another reason, or works again, and when
                refusing begins or ends; from the writer's thread or from within `append`: it must be quick.
            max_events: how many events may wait.
            max_bytes: how many bytes of events may wait.

        Raises:
            JournalError: the file is damaged, is no journal, has a newer schema, or can't be opened.
        """
        connection = open_journal(path)
        try:
            return cls(path, connection, on_health, max_events, max_bytes)
        except sqlite3.Error as error:
            connection.close()
            raise JournalError(f"{path}: can't be read ({error})") from error

    # For the event loop

    def append(self, call_sid: str, kind: str, data: dict[str, Any], at: float | None = None) -> bool:
        """Takes an event; never blocks, never touches the disk.

        Args:
            call_sid: the call.
            kind: see `Event`.
            data: what JSON can hold; it is encoded at once, and may change afterwards.
            at: when it happened, in seconds since the epoch; now by default.

        Returns:
            Whether the event was taken: False at the bound, and after `close`.

        Raises:
            TypeError: `data` holds what JSON can't, or text that is not Unicode.
            ValueError: `at` is not finite, or `call_sid` or `kind` are not Unicode.
        """
        when = time.time() if at is None else float(at)
        if not math.isfinite(when):
            raise ValueError(f"the time of a {kind} event is {when}")
        row = (call_sid, when, kind, orjson.dumps(data).decode())
        size = _size(row)
        (call_sid + kind).encode()  # what SQLite can't bind must fail here, not at each attempt to write
        with self._work:
            share = 0.75 if kind == "turn" else 1.0
            taken = (
                self._give_up_at is None
                and self._accepted - self._committed < share * self._max_events
                and self._waiting_bytes + size <= share * self._max_bytes
            )
            if taken:
                if not self._queue:
                    self._queued_at = time.monotonic()
                self._queue.append(row)
                self._accepted += 1
                self._waiting_bytes += size
                if self._idle:
                    self._idle = False
                    self._work.notify()
                return True
            self._refused += 1
            news = not self._refusing
            self._refusing = True
        if news:
            self._report()
        return False

    async def flush(self) -> None:
        """Returns when everything appended so far is on disk; while the disk fails it waits.

        Raises:
            JournalError: the journal was closed and could not write everything.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._work:
            if self._committed >= self._accepted:
                return
            if self._ended:
                raise self._incomplete()
            entry = (self._accepted, future)
            self._flushes.append(entry)
            self._hurry()
        try:
            await future
        finally:
            with self._work, contextlib.suppress(ValueError):
                self._flushes.remove(entry)

    @property
    def health(self) -> JournalHealth:
        """How the journal is at this moment."""
        with self._work:
            return JournalHealth(
                ok=self._error is None and not self._refusing,
                error=self._error,
                waiting=self._accepted - self._committed,
                waiting_bytes=self._waiting_bytes,
                committed=self._committed,
                refused=self._refused,
            )

    # For other threads

    def flush_sync(self, timeout: float) -> bool:
        """Waits, at most `timeout` seconds, until everything appended so far is on disk; returns if it is."""
        with self._work:
            ticket = self._accepted
            self._hurry()
            self._done.wait_for(lambda: self._committed >= ticket or self._ended, timeout)
            return self._committed >= ticket

    def close(self, timeout: float = 5.0) -> int:
        """Takes no more events, writes what waits, for at most about `timeout` seconds, and stops the writer.

        Returns:
            How many events could not be written and are lost: 0 unless the disk fails.
        """
        with self._work:
            if self._give_up_at is None:
                self._give_up_at = time.monotonic() + timeout
            self._work.notify()
        # A writer that hangs in a system call can't be helped: it is left behind as the daemon thread it is.
        self._thread.join(timeout + 1.0)
        with self._work:
            return self._accepted - self._committed

    # Shared; the lock is held

    def _hurry(self) -> None:
        self._urgent = True
        self._work.notify()

    def _incomplete(self) -> JournalError:
        left = self._accepted - self._committed
        return JournalError(
            f"{self.path}: closed with {left} events not written ({self._error or 'no time left'})"
        )

    # The writer's thread

    def _run(self) -> None:
        while batch := self._next_batch():
            if not self._write(batch):
                break
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        with self._work:
            self._ended = True
            self._done.notify_all()
            lost, self._flushes = self._flushes, []
            error = self._incomplete()
        for _, future in lost:
            _settle(future, error)

    def _next_batch(self) -> list[_Row]:
        """Waits for events and then for company; an empty list ends the writer."""
        with self._work:
            while not self._queue:
                if self._give_up_at is not None:
                    return []
                self._urgent = False
                self._idle = True
                self._work.wait()
            self._idle = False
            # What a full batch has left behind has waited long enough: then this returns at once.
            self._work.wait_for(
                lambda: self._urgent or self._give_up_at is not None,
                self._queued_at + LINGER - time.monotonic(),
            )
            if self._give_up_at is not None and time.monotonic() >= self._give_up_at:
                return []
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
            if not self._queue:
                self._urgent = False
            return batch

    def _write(self, batch: list[_Row]) -> bool:
        """Writes a batch, however often it takes; False when the journal was closed before it succeeded."""
        delay = FIRST_RETRY
        while True:
            try:
                self._last_seq = self._commit(batch)
            except (
                Exception
            ) as error:  # whatever it is, a writer that died of it would lose every later event
                self._failed(error)
            else:
                self._succeeded(batch)
                return True
            with self._work:
                self._work.wait_for(lambda: self._give_up_at is not None, delay)
                if self._give_up_at is not None:
                    if time.monotonic() >= self._give_up_at:
                        return False
                    self._work.wait(FIRST_RETRY)  # closing: quick attempts until the time is up
            delay = min(2 * delay, LAST_RETRY)

    def _commit(self, batch: list[_Row]) -> int:
        """Puts a batch on disk, once; returns the newest sequence number."""
        connection = self._connection
        if connection is None:
            connection = self._connection = connect(self.path)
            # A commit whose sync failed may be in the log all the same, and found there on opening.
            last = connection.execute(
                "SELECT 1 FROM events WHERE seq > ? AND (call_sid, at, kind, data) = (?, ?, ?, ?)",
                (self._last_seq, *batch[-1]),
            ).fetchone()
            if last is not None:
                return _newest(connection)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO events (call_sid, at, kind, data) VALUES (?, ?, ?, ?)", batch)
        newest = _newest(connection)
        connection.execute("COMMIT")
        return newest

    def _succeeded(self, batch: list[_Row]) -> None:
        with self._work:
            self._committed += len(batch)
            self._waiting_bytes -= sum(map(_size, batch))
            news = self._error is not None or self._refusing
            self._error = None
            self._refusing = self._give_up_at is not None and self._refusing
            served = [future for ticket, future in self._flushes if ticket <= self._committed]
            self._flushes = [entry for entry in self._flushes if entry[0] > self._committed]
            self._done.notify_all()
        for future in served:
            _settle(future, None)
        if news:
            self._report()

    def _failed(self, error: Exception) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        text = f"{type(error).__name__}: {error}"
        with self._work:
            news = text != self._error
            self._error = text
        if news:
            self._report()

    def _report(self) -> None:
        if self._on_health is not None:
            with contextlib.suppress(Exception):  # a broken log must not stop the journal
                self._on_health(self.health)


def _newest(connection: sqlite3.Connection) -> int:
    newest: int = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
    return newest


def _size(row: _Row) -> int:
    return len(row[0]) + len(row[2]) + len(row[3])


def _settle(future: asyncio.Future[None], error: JournalError | None) -> None:
    """Settles a future of another thread's loop."""

    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(settle)
