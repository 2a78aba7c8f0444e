"""The outbox: carries calls' records from the journal to the store, for as long as it takes.

Theory of operation. The journal is the truth; what waits here is nothing but the names of calls whose record
has changed, each once, with the time from which it may be carried. One thread takes them in the order of
those times, ended calls before live ones, and carries each (see `carrying`): so a call's records reach the
store in order, a call that changes while it waits is carried once, and nothing is in memory that a crash
could take. When the store (or the disk) does not answer, everything waits and is tried again, at growing
intervals, each time with another call; a record that the store refuses is set aside with the reason, until
its call ends or changes after that, or the daemon starts again.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from handlehome.relay.carrying import Carried, carry
from handlehome.relay.logs import Event, call_logger, log_event
from handlehome.store.calls import CallStore, RecordRefused
from handlehome.store.datadir import StoreError
from handlehome.store.journal import Journal, JournalError
from handlehome.store.journalfile import DamagedEvent
from handlehome.store.records import CallRecord

__all__ = ["Outbox", "OutboxHealth"]

RETRY_SECONDS = (0.5, 30.0)
"""Wait after a failed attempt, doubled with each up to the second."""

FLUSH_SECONDS = 5.0
"""How long the journal may take to write what has just been appended."""


@dataclass(frozen=True, slots=True)
class OutboxHealth:
    """How the outbox is.

    Attributes:
        waiting: calls whose record has changed and is not yet in the store.
        oldest_seconds: for how long the first of them has been due.
        refused: calls whose record is set aside.
        error: what is in the way of all of them; None when nothing is.
    """

    waiting: int
    oldest_seconds: float
    refused: int
    error: str | None


class _Queue:
    """Calls, each once, by the time from which they are due."""

    def __init__(self) -> None:
        self.due: dict[str, float] = {}
        self._order: list[tuple[float, str]] = []  # a heap of the same, and of what is no longer true

    def put(self, call_sid: str, due: float) -> bool:
        """Puts a call in, or forward; tells whether that changed anything."""
        if due >= self.due.get(call_sid, inf):
            return False
        self.due[call_sid] = due
        heapq.heappush(self._order, (due, call_sid))
        return True

    def first(self) -> float:
        """When the first call is due; infinite when there is none."""
        while self._order and self.due.get(self._order[0][1]) != self._order[0][0]:
            heapq.heappop(self._order)
        return self._order[0][0] if self._order else inf

    def take(self) -> str:
        """Takes the first call out; there must be one."""
        self.first()
        _, call_sid = heapq.heappop(self._order)
        del self.due[call_sid]
        return call_sid


class Outbox:
    """See the module's docstring.

    Args:
        journal: where events come from, and where it is noted that a record is saved.
        store: where records go.
        complete: adds to a record what is not in the journal, such as what the call cost.
        saved: is told, in the outbox's thread, of the record of each ended call that is in the store now.
    """

    def __init__(
        self,
        journal: Journal,
        store: CallStore,
        *,
        complete: Callable[[CallRecord], CallRecord] = lambda record: record,
        saved: Callable[[CallRecord], object] = lambda _record: None,
    ) -> None:
        self._journal = journal
        self._store = store
        self._complete = complete
        self._saved = saved
        self._changed = threading.Condition()
        self._ended, self._live = _Queue(), _Queue()
        self._since: dict[str, float] = {}  # from when on each waiting call has been due
        self._carrying: str | None = None
        self._error: str | None = None
        self._refused: set[str] = set()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def touch(self, call_sid: str, delay: float = 0.0, *, live: bool = False) -> None:
        """Takes note that a call's record has changed; never blocks.

        Args:
            call_sid: the call.
            delay: seconds that it may wait, so that several changes are carried at once. A call that waits
                already is carried at the earlier of the two times.
            live: the call goes on, and ended ones come first.
        """
        due = time.monotonic() + delay
        with self._changed:
            if live and (call_sid in self._refused or call_sid in self._ended.due):
                return
            if (self._live if live else self._ended).put(call_sid, due):
                self._since[call_sid] = min(self._since.get(call_sid, inf), due)
                self._changed.notify()

    @property
    def health(self) -> OutboxHealth:
        """How the outbox is at this moment."""
        now = time.monotonic()
        with self._changed:
            oldest = min(self._since.values(), default=now)
            return OutboxHealth(len(self._since), max(now - oldest, 0.0), len(self._refused), self._error)

    def close(self, timeout: float) -> int:
        """Carries what waits, for at most `timeout` seconds, and stops.

        Returns:
            How many calls still wait; they are carried at the next start.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            for queue in (self._ended, self._live):
                for call_sid in list(queue.due):
                    queue.put(call_sid, 0.0)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._since, timeout)
            self._closing = True
            self._changed.notify_all()
        # What hangs in the store's network can't be helped: it is left behind as the daemon thread it is.
        self._thread.join(max(deadline - time.monotonic(), 0.0) + 1.0)
        return self.health.waiting

    # In the thread

    def _run(self) -> None:
        failures = 0
        while (taken := self._next()) is not None:
            queue, call_sid = taken
            error = self._attempt(call_sid)
            with self._changed:
                self._carrying = None
                recovered = error is None and self._error is not None
                self._error = error
                if error is not None:
                    # Behind the others: should it be this call's fault, they are not held up.
                    queue.put(call_sid, time.monotonic())
                elif call_sid not in self._ended.due and call_sid not in self._live.due:
                    del self._since[call_sid]
                else:
                    self._since[call_sid] = min(
                        self._ended.due.get(call_sid, inf), self._live.due.get(call_sid, inf)
                    )
                self._changed.notify_all()
            if recovered:
                call_logger("").info("Records are saved again")
            failures = 0 if error is None else failures + 1
            if error is not None:
                first, longest = RETRY_SECONDS
                wait = min(first * 2 ** min(failures - 1, 16), longest)
                if failures == 1:
                    call_logger(call_sid).error(
                        "Records can't be saved, next attempt in {:g} s: {}", wait, error
                    )
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, wait)

    def _next(self) -> tuple[_Queue, str] | None:
        """Waits for a call that is due; None: it is over."""
        with self._changed:
            while not self._closing:
                now = time.monotonic()
                for queue in (self._ended, self._live):
                    if queue.first() <= now:
                        self._carrying = queue.take()
                        return queue, self._carrying
                wait = min(self._ended.first(), self._live.first()) - now
                self._changed.wait(None if wait == inf else wait)
            return None

    def _attempt(self, call_sid: str) -> str | None:
        """Carries one call; returns what is in the way of all."""
        try:
            if not self._journal.flush_sync(FLUSH_SECONDS):
                raise JournalError("the journal is not written")
            carried = carry(self._journal, self._store, call_sid, self._complete)
        except (RecordRefused, DamagedEvent) as error:
            self._set_aside(call_sid, str(error))
        except StoreError as error:
            return str(error)
        except Exception as error:  # one record that can't be made must not hold up the others
            self._set_aside(call_sid, repr(error))
        else:
            with self._changed:
                self._refused.discard(call_sid)
            if carried is not None and carried.record.status == "ended":
                self._note_saved(carried)
        return None

    def _note_saved(self, carried: Carried) -> None:
        record, seq = carried
        log = call_logger(record.call_sid)
        self._journal.append(record.call_sid, "call_saved", {"seq": seq})
        status = None if record.extraction is None else record.extraction["status"]
        log_event(log, Event.SAVED, "The record is saved", extraction=status)
        try:
            self._saved(record)
        except OSError as error:
            log.warning("What is no longer needed of this call could not be removed: {}", error)

    def _set_aside(self, call_sid: str, reason: str) -> None:
        with self._changed:
            self._refused.add(call_sid)
        call_logger(call_sid).error("The record can't be saved and is set aside: {}", reason)
        self._journal.append(call_sid, "save_refused", {"reason": reason})
