"""After the call: the transcript is completed, the customer's data extracted, whatever fails on the way."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from loguru import logger

from handlehome.extract.attempt import Attempt, Calls, Found, Profile
from handlehome.extract.backlog import Backlog, Job, Service
from handlehome.extract.openai_rest import OpenAIRest
from handlehome.extract.retries import Backoff, Failure, Fault
from handlehome.store.records import CallRecord

__all__ = ["FINAL", "NO_KEY", "Health", "TranscriptionProcessor"]

Status = Literal["complete", "retrying", "stopped", "given_up", "nothing_said"]

FINAL: Final = frozenset({"complete", "given_up", "nothing_said"})
"""The values of `extraction.status` after which nothing more is done: audio of turns may go."""

NO_KEY: Final = "no OpenAI key: extracted by rules only"


@dataclass(frozen=True, slots=True)
class Health:
    """How processing is at this moment.

    Attributes:
        waiting: calls that wait for a free worker.
        running: calls that are being worked on.
        retrying: calls that wait for their next attempt.
        stopped: calls that wait until key, quota or model are in order.
        reason: why requests are stopped, None while they are not.
        completed: calls completed since the start.
        given_up: calls given up since the start.
        last_error: the last failure, None when there was none.
    """

    waiting: int
    running: int
    retrying: int
    stopped: int
    reason: str | None
    completed: int
    given_up: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What becomes of a call: its status, and unless that is final, when it is taken up again."""

    status: Status
    until: float | None = None
    service: Service | None = None


class _Abandoned(Exception):
    """The processor was closed under a request; what comes of it isn't wanted any more."""


class _NotTaken(Exception):
    """The journal did not take an event."""


class TranscriptionProcessor:
    """Completes the transcripts of ended calls and extracts the customers' data, in threads of its own.

    **One attempt** at a call: the caller's turns without text are transcribed from their audio; then the
    model is asked for the data; each result is journaled as it comes (`turn`, `usage`, `extracted`). When
    nobody said anything, nothing is asked.

    **When a request fails**, what rules find in the transcript is kept at once and the next attempt is made
    by `Backoff`, up to the horizon (24 h after the call's end); then the call is given up. When only the
    transcription fails, the model's data of what there is are kept in the same way. Data of the model, from
    an earlier run, are never replaced by those of rules. With a user's own schema there are no rules: `data`
    is None until the model has answered.

    **When key, quota, model or configuration are wrong**, the circuit of that service (transcription or
    extraction) opens: all calls that need it are "stopped", for as long as it takes, and one of them tries
    once a minute. Until then nothing is asked.

    **A turn is not tried for ever**: without audio, with nothing audible in it, transcribed to nothing, or
    refused for its own sake, it keeps its text None and hinders nothing. A complete call is not touched
    again, unless it is to be reprocessed.

    **Nothing is lost with the process**: what is pending is known by `extraction.status` in the record, and
    submitted again at the next start. Memory holds a few numbers per pending call. The threads are daemon
    threads rather than an executor's, which the interpreter waits for at its end, however long the server is
    silent.
    """

    def __init__(
        self,
        calls: Calls,
        profile: Profile,
        rest: OpenAIRest | None,
        *,
        workers: int = 4,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Starts nothing yet: see `start`.

        Args:
            calls: where calls come from and results go.
            profile: the assistant's side.
            rest: the API, closed by `close`; None without a key: then rules are all there is.
            workers: how many calls are worked on at once.
            backoff: the times of attempts.
            clock: seconds since the epoch; after moving it by hand, call `wake`.
            chance: random numbers from 0 to 1.
        """
        self._calls, self._profile, self._rest = calls, profile, rest
        self._backoff = backoff or Backoff()
        self._clock, self._chance = clock, chance
        self._lock = threading.Lock()  # held for a few assignments at a time
        self._work = threading.Condition(self._lock)
        self._results = threading.Lock()  # held while an event is handed over, so that none comes after close
        self._backlog = Backlog()
        self._closed = self._silent = False
        self._completed = self._given_up = 0
        self._last_error: str | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"extract-{number}", daemon=True)
            for number in range(workers)
        ]

    # For any thread, the event loop's too: nothing here blocks

    def start(self) -> None:
        """Starts the workers."""
        if self._rest is None:
            logger.warning("There is no OpenAI key: customers' data are extracted by rules only")
        for thread in self._threads:
            thread.start()

    def submit(self, call_sid: str) -> None:
        """Takes an ended call; again while it is pending, or after it is complete, changes nothing."""
        self._submit(call_sid, force=False)

    def reprocess(self, call_sid: str) -> None:
        """Takes a call although it may be complete: its data are extracted anew."""
        self._submit(call_sid, force=True)

    def wake(self) -> None:
        """Makes the workers look at the clock."""
        with self._work:
            self._work.notify_all()

    def health(self) -> Health:
        """How processing is."""
        with self._lock:
            backlog = self._backlog
            reasons = [
                f"{service}: {failure.message}"
                for service, circuit in backlog.circuits.items()
                if (failure := circuit.failure) is not None
            ]
            return Health(
                waiting=backlog.waiting,
                running=backlog.running,
                retrying=backlog.retrying,
                stopped=backlog.stopped,
                reason="; ".join(reasons) or None,
                completed=self._completed,
                given_up=self._given_up,
                last_error=self._last_error,
            )

    # May block

    def close(self, timeout: float = 5.0) -> bool:
        """Stops: no more attempts begin, those under way have `timeout` seconds and are then abandoned.

        After it, nothing is appended any more.

        Returns:
            Whether all of them ended.
        """
        with self._work:
            self._closed = True
            self._work.notify_all()
        until = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
        with self._results:
            self._silent = True
        ended = not any(thread.is_alive() for thread in self._threads)
        if ended and self._rest is not None:
            self._rest.close()
        return ended

    def _submit(self, call_sid: str, *, force: bool) -> None:
        with self._work:
            if not self._closed:
                self._backlog.submit(call_sid, self._clock(), force=force)
                self._work.notify()

    # The workers

    def _run(self) -> None:
        if self._rest is not None:
            try:
                self._rest.warm()
            except Exception as error:  # each request fails in the same way then, and says so in its record
                logger.opt(exception=error).error("The OpenAI client can't be built")
        while (job := self._next()) is not None:
            try:
                outcome = self._attempt(job)
            except _Abandoned:
                return
            except _NotTaken:
                logger.bind(call_sid=job.call_sid).error("The journal is full: this call is processed later")
                outcome = self._later(job)
            except Exception as error:  # a bug or a full disk under one call must not end the worker for all
                logger.bind(call_sid=job.call_sid).opt(exception=error).error(
                    "This call could not be processed"
                )
                outcome = self._later(job)
            self._hand_back(job, outcome)

    def _next(self) -> Job | None:
        with self._work:
            while not self._closed:
                now = self._clock()
                job = self._backlog.take(now)
                if job is not None:
                    return job
                at = self._backlog.wake_at()
                self._work.wait(None if at is None else max(0.0, at - now))
            return None

    def _hand_back(self, job: Job, outcome: _Outcome | None) -> None:
        with self._work:
            now = self._clock()
            if outcome is None:
                self._backlog.finish(job, now)
            elif outcome.service is not None:
                self._backlog.park(job, outcome.service, now)
            elif outcome.until is not None:
                self._backlog.delay(job, outcome.until, now)
            else:
                self._completed += outcome.status in ("complete", "nothing_said")
                self._given_up += outcome.status == "given_up"
                self._backlog.finish(job, now)
            self._work.notify_all()

    # One attempt

    def _attempt(self, job: Job) -> _Outcome | None:
        record = self._calls.load(job.call_sid)
        if record is None or record.ended_at is None:
            logger.bind(call_sid=job.call_sid).warning("There is no ended call to extract data from")
            return None
        before = record.extraction or {}
        if before.get("status") in FINAL and not job.force:
            return None
        if job.attempts is None:
            counted = 0 if job.force else before.get("attempts")
            job.attempts = counted if isinstance(counted, int) else 0
        calls = replace(self._calls, append=self._append)
        attempt = Attempt(
            job, calls, self._profile, self._rest, _Gate(self._work, self._backlog, job, self._clock)
        )
        found = attempt.run(record)
        job.attempts += attempt.asked
        outcome = self._outcome(job, record, found)
        error = self._error(found)
        same = {"status": "stopped", "method": found.method, "schema": found.schema, "error": error}
        if attempt.news or outcome.status != "stopped" or not same.items() <= before.items():
            self._keep(job, found, outcome, error)
        job.extracted = found.is_of_all_text
        return outcome

    def _outcome(self, job: Job, record: CallRecord, found: Found) -> _Outcome:
        failure = found.failure
        if failure is None and found.nothing_said:
            return _Outcome("nothing_said")
        if failure is None:
            # Without a key there is nothing to wait for, and no data for a user's own schema.
            return _Outcome("complete" if found.method else "given_up")
        if failure.fault is Fault.SETUP:
            return _Outcome("stopped", service=found.service)
        now = self._clock()
        since = job.submitted_at if job.force or record.ended_at is None else record.ended_at
        until = self._backoff.next(
            job.attempts or 1, now, since, chance=self._chance(), retry_after=failure.retry_after
        )
        return _Outcome("given_up") if until is None else _Outcome("retrying", until=until)

    def _error(self, found: Found) -> str | None:
        if found.failure is not None:
            return f"{found.service}: {found.failure.message}"
        return NO_KEY if self._rest is None and not found.nothing_said else None

    def _keep(self, job: Job, found: Found, outcome: _Outcome, error: str | None) -> None:
        """Journals what was found."""
        now = self._clock()
        extraction = {
            "status": outcome.status,
            "method": found.method,
            "model": found.model,
            "schema": found.schema,
            "attempts": job.attempts,
            "error": error,
            "at": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
        }
        self._append(job.call_sid, "extracted", {"data": found.data, "extraction": extraction})
        with self._results:
            if not self._silent:
                self._calls.done(job.call_sid)
        log = logger.bind(call_sid=job.call_sid)
        if found.failure is None:
            log.info("Data extraction: {}, by {}", outcome.status, found.method or "nobody")
            return
        with self._lock:
            self._last_error = error
        if outcome.until is not None:
            log.warning("Data extraction: next attempt in {:.0f} s: {}", outcome.until - now, error)
        else:
            log.log(
                "ERROR" if outcome.status == "given_up" else "WARNING",
                "Data extraction: {}: {}",
                outcome.status,
                error,
            )

    def _later(self, job: Job) -> _Outcome | None:
        """After an attempt without a result, not even a failure that could be kept."""
        job.attempts = (job.attempts or 0) + 1
        now = self._clock()
        until = self._backoff.next(job.attempts, now, job.submitted_at, chance=self._chance())
        return None if until is None else _Outcome("retrying", until=until)

    def _append(self, call_sid: str, kind: str, data: dict[str, Any]) -> bool:
        with self._results:
            if self._silent:
                raise _Abandoned
            if not self._calls.append(call_sid, kind, data):
                raise _NotTaken
            return True


class _Gate:
    """The circuits, as the attempt at one call sees them."""

    def __init__(
        self, work: threading.Condition, backlog: Backlog, job: Job, clock: Callable[[], float]
    ) -> None:
        self._work, self._backlog, self._job, self._clock = work, backlog, job, clock

    def blocked(self, service: Service) -> Failure | None:
        with self._work:
            return (
                None if self._backlog.allows(self._job, service) else self._backlog.circuits[service].failure
            )

    def answered(self, service: Service, failure: Failure | None) -> None:
        with self._work:
            if failure is None:
                changed = self._backlog.succeeded(service)
            else:
                changed = self._backlog.failed(service, failure, self._clock())
            is_open = self._backlog.circuits[service].is_open
            if changed:
                self._work.notify_all()
        if changed and is_open and failure is not None:
            logger.error("All requests for {} are stopped: {}", service, failure.message)
        elif changed:
            logger.info("Requests for {} work again", service)
