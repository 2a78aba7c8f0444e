"""After the call: the transcript is completed, the customer's data extracted, whatever fails on the way."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from loguru import logger

from handlehome.extract.attempt import Attempt, Calls, Found, Profile
from handlehome.extract.backlog import Backlog, Job, Service
from handlehome.extract.openai_rest import OpenAIRest, RequestFailed
from handlehome.extract.results import FINAL, Abandoned, NotTaken, Results, Status
from handlehome.extract.retries import Backoff, Failure, Fault
from handlehome.store.records import CallRecord

__all__ = ["FINAL", "NO_KEY", "Health", "Outcome", "TranscriptionProcessor"]

NO_KEY: Final = "no OpenAI key: extracted by rules only"
NO_CALL: Final = "there is no ended call to extract data from"
JOURNAL_FULL: Final = "the journal takes nothing"


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
class Outcome:
    """What came of a single attempt.

    Attributes:
        call_sid: the call.
        status: of its extraction, now; None when there is no such ended call.
        error: why its data could not be extracted anew, and so are as they were; None: they were.
    """

    call_sid: str
    status: str | None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class _Fate:
    """What becomes of a call: its status, and unless that is final, when it is taken up again."""

    status: Status
    until: float | None = None
    service: Service | None = None


class TranscriptionProcessor:
    """Completes the transcripts of ended calls and extracts the customers' data, in threads of its own.

    **One attempt** at a call: the caller's turns without text are transcribed from their audio; then the
    model is asked for the data; each result is journaled as it comes (`turn`, `usage`, `extracted`). When
    nobody said anything, nothing is asked.

    **When a request fails**, what rules find in the transcript is kept at once and the next attempt is made
    by `Backoff`, up to the horizon: 24 h after the first failure since the start, or since the last time all
    requests were stopped. Then the call is given up. When only the transcription fails, or the audio can't be
    read, the model's data of what there is are kept in the same way. Data of the model, from an earlier run,
    are never replaced by those of rules. With a user's own schema there are no rules: `data` is None until
    the model has answered.

    **When there is no answer yet**, because the API hangs or all workers are busy, what rules find is kept
    after `BARE_SECONDS`, by a thread of its own; the call goes on "waiting". First attempts go before
    further ones.

    **When key, quota, model or configuration are wrong**, the circuit of that service (transcription or
    extraction) opens: all calls that need it are "stopped", for as long as it takes, and one of them tries
    once a minute. Until then nothing is asked.

    **A turn is not tried for ever**: if there is no audio of it, or nothing audible in it, if it is
    transcribed to nothing or refused for its own sake, it keeps its text None and hinders nothing. A complete
    call is not touched again, but by `once`.

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
        self._results = Results(calls, clock)
        self._backlog = Backlog()
        self._closed = False
        self._completed = self._given_up = 0
        self._last_error: str | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"extract-{number}", daemon=True)
            for number in range(workers)
        ]
        if rest is not None:
            self._threads.append(threading.Thread(target=self._run_rules, name="extract-rules", daemon=True))

    # For any thread, the event loop's too: nothing here blocks

    def start(self) -> None:
        """Starts the workers."""
        if self._rest is None:
            logger.warning("There is no OpenAI key: customers' data are extracted by rules only")
        for thread in self._threads:
            thread.start()

    def submit(self, call_sid: str) -> None:
        """Takes an ended call; again while it is pending, or after it is complete, changes nothing."""
        with self._work:
            if not self._closed:
                self._backlog.submit(call_sid, self._clock())
                self._work.notify_all()  # a worker, and the thread that looks after what has no data yet

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

        After it, nothing is appended any more, and no `done` begins.

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
        self._results.close()
        ended = not any(thread.is_alive() for thread in self._threads)
        if ended and self._rest is not None:
            self._rest.close()
        return ended

    def once(self, call_sid: str) -> Outcome:
        """Makes one attempt at a call in this thread, though it may be complete; needs no `start`.

        A success is journaled as ever. A failure is told to the caller and nobody else: data and status stay
        as they were, and nothing is tried again; turns that were transcribed before it are kept. While key,
        quota or model are wrong, calls are not asked about, but for one a minute.

        Any threads may call it at once, for calls that this processor was not given by `submit`.

        Returns:
            What came of it. What `Calls` raises comes out of it.
        """
        record = self._ended(call_sid)
        if record is None:
            return Outcome(call_sid, None, NO_CALL)
        before = (record.extraction or {}).get("status")
        now = self._clock()
        job = Job(call_sid, now)
        with self._lock:
            self._backlog.permit(job, now)
        attempt = self._prepare(job)
        try:
            found = attempt.run(record)
            error = self._error(found)
            # Without a key rules are all there is; what a model found earlier is not found anew by that.
            method = "rules" if self._rest is None else "model"
            if found.failure is None and (found.nothing_said or found.method == method):
                status: Status = "nothing_said" if found.nothing_said else "complete"
                self._results.keep(job, found, status, int(attempt.asked), error)
                return Outcome(call_sid, status)
        except NotTaken:
            error = JOURNAL_FULL
        except Abandoned:
            return Outcome(call_sid, before, "the processor is closed")
        if attempt.news:
            self._results.done(call_sid)
        return Outcome(call_sid, before, error)

    # The threads

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                fate = self._attempt(job)
            except Abandoned:
                return
            except NotTaken:
                fate = self._later(job, JOURNAL_FULL)
            except Exception as error:  # a bug or a full disk under one call must not end the worker for all
                logger.bind(call_sid=job.call_sid).opt(exception=error).error(
                    "This call could not be processed"
                )
                fate = self._later(job, f"processing: {type(error).__name__}")
            self._hand_back(job, fate)

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

    def _hand_back(self, job: Job, fate: _Fate | None) -> None:
        with self._work:
            if fate is None:
                self._backlog.finish(job)
            elif fate.service is not None:
                self._backlog.park(job, fate.service)
            elif fate.until is not None:
                self._backlog.delay(job, fate.until)
            else:
                self._completed += fate.status in ("complete", "nothing_said")
                self._given_up += fate.status == "given_up"
                self._backlog.finish(job)
            self._work.notify_all()

    def _run_rules(self) -> None:
        """The thread that keeps what rules find for calls to whose data the workers don't get in time."""
        if self._rest is not None:
            try:
                self._rest.warm()
            except RequestFailed as failed:
                # No circuit is opened for it: each request tries to build the client, and fails with this.
                logger.error("OpenAI can't be asked: {}", failed)
        while (job := self._next_bare()) is not None:
            try:
                self._help_out(job)
            except Abandoned:
                return
            except Exception as error:  # the attempt at this call meets the same, and deals with it
                logger.bind(call_sid=job.call_sid).warning("Rules can't help out: {!r}", error)

    def _next_bare(self) -> Job | None:
        with self._work:
            while not self._closed:
                now = self._clock()
                job = self._backlog.take_bare(now)
                if job is not None:
                    return job
                at = self._backlog.bare_at()
                self._work.wait(None if at is None else max(0.0, at - now))
            return None

    def _help_out(self, job: Job) -> None:
        record = None if job.kept else self._ended(job.call_sid)
        before = (record.extraction or {}) if record is not None else {}
        if record is None or before.get("status") in FINAL or before.get("method") is not None:
            return
        found = self._prepare(job).without_model(record)
        if found.method is not None and self._results.keep(job, found, "waiting", _attempts(before), None):
            logger.bind(call_sid=job.call_sid).info("Data extraction: by rules, until the model has answered")

    # One attempt

    def _ended(self, call_sid: str) -> CallRecord | None:
        record = self._calls.load(call_sid)
        return None if record is None or record.ended_at is None else record

    def _prepare(self, job: Job) -> Attempt:
        calls = replace(self._calls, append=self._results.append)
        gate = _Gate(self._work, self._backlog, job, self._clock)
        return Attempt(job, calls, self._profile, self._rest, gate)

    def _attempt(self, job: Job) -> _Fate | None:
        record = self._ended(job.call_sid)
        if record is None:
            logger.bind(call_sid=job.call_sid).warning(NO_CALL)
            return None
        before = record.extraction or {}
        if before.get("status") in FINAL:
            return None
        if job.attempts is None:
            job.attempts = job.failures = _attempts(before)
        attempt = self._prepare(job)
        found = attempt.run(record)
        job.attempts += attempt.asked
        fate = self._fate(job, record, found)
        error = self._error(found)
        same = {"status": "stopped", "method": found.method, "schema": found.schema, "error": error}
        if attempt.news or fate.status != "stopped" or not same.items() <= before.items():
            self._keep(job, found, fate, error)
        job.extracted = found.is_of_all_text
        return fate

    def _fate(self, job: Job, record: CallRecord, found: Found) -> _Fate:
        failure = found.failure
        if failure is None and found.nothing_said:
            return _Fate("nothing_said")
        if failure is None:
            # Without a key there is nothing to wait for, and no data for a user's own schema.
            return _Fate("complete" if found.method else "given_up")
        if failure.fault is Fault.SETUP:
            return _Fate("stopped", service=found.service)
        now = self._clock()
        since = job.failed(now, record.ended_at or now)
        until = self._backoff.next(
            job.failures, now, since, chance=self._chance(), retry_after=failure.retry_after
        )
        return _Fate("given_up") if until is None else _Fate("retrying", until=until)

    def _error(self, found: Found) -> str | None:
        if found.failure is not None:
            return f"{found.service}: {found.failure.message}"
        return NO_KEY if self._rest is None and not found.nothing_said else None

    def _keep(self, job: Job, found: Found, fate: _Fate, error: str | None) -> None:
        """Journals what was found."""
        self._results.keep(job, found, fate.status, job.attempts or 0, error)
        log = logger.bind(call_sid=job.call_sid)
        if fate.status != "given_up" and found.failure is None:
            log.info("Data extraction: {}, by {}", fate.status, found.method or "nobody")
            return
        with self._lock:
            self._last_error = error
        if fate.until is not None:
            log.warning("Data extraction: next attempt in {:.0f} s: {}", fate.until - self._clock(), error)
        else:
            log.log(
                "ERROR" if fate.status == "given_up" else "WARNING",
                "Data extraction: {}: {}",
                fate.status,
                error,
            )

    def _later(self, job: Job, error: str) -> _Fate:
        """After an attempt without a result, not even a failure that could be kept."""
        now = self._clock()
        job.attempts = (job.attempts or 0) + 1
        since = job.failed(now, now)
        until = self._backoff.next(job.failures, now, since, chance=self._chance())
        log = logger.bind(call_sid=job.call_sid)
        if until is None:
            fate = _Fate("given_up")
            try:
                record = self._ended(job.call_sid)
                if record is not None:
                    self._keep(job, self._prepare(job).without_model(record), fate, error)
                return fate
            except Exception as again:  # what can't be told as given up stays pending
                log.warning("This call can't be given up: {!r}", again)
            job.stopped()
            until = now + self._backoff.longest
        log.error("This call is processed in {:.0f} s: {}", until - now, error)
        return _Fate("retrying", until=until)


def _attempts(extraction: Mapping[str, Any]) -> int:
    counted = extraction.get("attempts")
    return counted if isinstance(counted, int) else 0


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
