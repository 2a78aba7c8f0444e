"""Where results of processing go: into the journal, until the processor is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

from handlehome.extract.attempt import Calls, Found
from handlehome.extract.backlog import Job

__all__ = ["FINAL", "Abandoned", "NotTaken", "Results", "Status"]

Status = Literal["waiting", "complete", "retrying", "stopped", "given_up", "nothing_said"]

FINAL: Final = frozenset({"complete", "given_up", "nothing_said"})
"""The values of `extraction.status` after which nothing more is done: audio of turns may go."""


class Abandoned(Exception):
    """The processor was closed under a request; what comes of it isn't wanted any more."""


class NotTaken(Exception):
    """The journal did not take an event."""


class Results:
    """Hands results over; for any threads at once.

    Args:
        calls: takes them.
        clock: seconds since the epoch.
    """

    def __init__(self, calls: Calls, clock: Callable[[], float]) -> None:
        self._calls, self._clock = calls, clock
        self._lock = threading.Lock()  # held while an event is handed over, so that none comes after `close`
        self._closed = False

    def append(self, call_sid: str, kind: str, data: dict[str, Any]) -> bool:
        """Journals an event; returns True.

        Raises:
            Abandoned: closed.
            NotTaken: the journal has no room.
        """
        with self._lock:
            self._append(call_sid, kind, data)
        return True

    def keep(self, job: Job, found: Found, status: Status, attempts: int, error: str | None) -> bool:
        """Journals what was found, and has the record saved.

        A "waiting" call has no result yet: if one came in the meantime, that stays, and False is returned.

        Raises:
            Abandoned: closed.
            NotTaken: the journal has no room.
        """
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
        extraction = {
            "status": status,
            "method": found.method,
            "model": found.model,
            "schema": found.schema,
            "attempts": attempts,
            "error": error,
            "at": at,
        }
        with self._lock:
            if status == "waiting" and job.kept:
                return False
            self._append(job.call_sid, "extracted", {"data": found.data, "extraction": extraction})
            job.kept = True
        self.done(job.call_sid)
        return True

    def done(self, call_sid: str) -> None:
        """Has the record saved; may block, for as long as the store takes. Nothing happens when closed."""
        with self._lock:
            if self._closed:
                return
        self._calls.done(call_sid)

    def close(self) -> None:
        """After this, nothing is appended, and no `done` begins."""
        with self._lock:
            self._closed = True

    def _append(self, call_sid: str, kind: str, data: dict[str, Any]) -> None:
        if self._closed:
            raise Abandoned
        if not self._calls.append(call_sid, kind, data):
            raise NotTaken
