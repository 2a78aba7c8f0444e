"""The outbox: carries calls' records from the journal to the store, for as long as it takes.

Theory of operation. The journal is the truth; what waits here is nothing but the names of calls whose record
has changed, each once, with the time from which it may be carried. One thread takes them in the order of
those times, makes the record anew from the journal, and saves it: so a call's records reach the store in
order, a call that changes while it waits is carried once, and nothing is in memory that a crash could take.
When the store (or the disk) does not answer, everything waits and is tried again, at growing intervals; a
record that the store refuses is set aside with the reason, until it changes or the daemon starts again.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from handlehome.relay.logs import Event, call_logger, log_event
from handlehome.store.calls import CallStore, RecordRefused
from handlehome.store.datadir import StoreError
from handlehome.store.journal import Journal, JournalError
from handlehome.store.records import CallRecord, fold

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
        refused: records that the store refused since the start.
        error: what is in the way of all of them; None when nothing is.
    """

    waiting: int
    oldest_seconds: float
    refused: int
    error: str | None


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
        self._due: dict[str, float] = {}  # times of `time.monotonic`
        self._order: list[tuple[float, str]] = []  # a heap of the same, and of what is no longer true
        self._carrying: str | None = None
        self._error: str | None = None
        self._refused = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def touch(self, call_sid: str, delay: float = 0.0) -> None:
        """Takes note that a call's record has changed; never blocks.

        Args:
            call_sid: the call.
            delay: seconds that it may wait, so that several changes are carried at once. A call that waits
                already is carried at the earlier of the two times.
        """
        due = time.monotonic() + delay
        with self._changed:
            known = self._due.get(call_sid)
            if known is None or due < known:
                self._put(call_sid, due)
                self._changed.notify()

    @property
    def health(self) -> OutboxHealth:
        """How the outbox is at this moment."""
        now = time.monotonic()
        with self._changed:
            oldest = self._order[0][0] if self._order else now
            waiting = len(self._due) + (self._carrying is not None and self._carrying not in self._due)
            return OutboxHealth(waiting, max(now - oldest, 0.0), self._refused, self._error)

    def close(self, timeout: float) -> int:
        """Carries what waits, for at most `timeout` seconds, and stops.

        Returns:
            How many calls still wait; they are carried at the next start.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            for call_sid in list(self._due):
                self._put(call_sid, 0.0)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._due and self._carrying is None, timeout)
            self._closing = True
            self._changed.notify_all()
        # What hangs in the store's network can't be helped: it is left behind as the daemon thread it is.
        self._thread.join(max(deadline - time.monotonic(), 0.0) + 1.0)
        return self.health.waiting

    # In the thread

    def _run(self) -> None:
        failures = 0
        while (taken := self._next()) is not None:
            due, call_sid = taken
            error = self._carry(call_sid)
            with self._changed:
                self._carrying = None
                recovered = error is None and self._error is not None
                self._error = error
                if error is not None:
                    self._put(call_sid, min(self._due.get(call_sid, inf), due))
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

    def _put(self, call_sid: str, due: float) -> None:
        self._due[call_sid] = due
        heapq.heappush(self._order, (due, call_sid))

    def _next(self) -> tuple[float, str] | None:
        """Waits for a call that is due; None: it is over."""
        order = self._order
        with self._changed:
            while not self._closing:
                while order and self._due.get(order[0][1]) != order[0][0]:
                    heapq.heappop(order)  # carried, or due earlier
                wait = order[0][0] - time.monotonic() if order else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                due, call_sid = heapq.heappop(order)
                del self._due[call_sid]
                self._carrying = call_sid
                return due, call_sid
            return None

    def _carry(self, call_sid: str) -> str | None:
        """Saves one record; returns what is in the way of all."""
        log = call_logger(call_sid)
        try:
            if not self._journal.flush_sync(FLUSH_SECONDS):
                raise JournalError("the journal is not written")
            events = self._journal.events(call_sid)
            if not events:
                return None  # erased meanwhile
            record = self._complete(fold(events))
            self._store.save(record)
            if not self._journal.events(call_sid):
                self._store.delete(call_sid)  # erased at the same time
                return None
            if record.status == "ended":
                self._saved(record)
        except RecordRefused as error:
            self._set_aside(call_sid, str(error))
        except StoreError as error:
            return str(error)
        except Exception as error:  # one record that can't be made must not hold up the others
            self._set_aside(call_sid, repr(error))
        else:
            if record.status == "ended":
                self._journal.append(call_sid, "call_saved", {"seq": events[-1].seq})
                log_event(log, Event.SAVED, "The record is saved", extraction=_status(record))
        return None

    def _set_aside(self, call_sid: str, reason: str) -> None:
        with self._changed:
            self._refused += 1
        call_logger(call_sid).error("The record can't be saved and is set aside: {}", reason)
        self._journal.append(call_sid, "save_refused", {"reason": reason})


def _status(record: CallRecord) -> str | None:
    return None if record.extraction is None else record.extraction["status"]
