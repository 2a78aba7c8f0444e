"""Which call is worked on next: pure, without threads and clock; `TranscriptionProcessor` locks round it.

Theory of operation
-------------------

A call is in one place at a time: `ready` (in order of arrival), `delayed` (until its next attempt), `parked`
(behind the circuit of a service), or running. What is kept of it is a few numbers, never its record.

Each service of the API has its circuit. While one is open, the calls that need it are parked behind it; when
a probe is due, the first of them goes to the head of the queue with a permit to pass. When the circuit
closes, all that are parked behind it are ready again.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Literal

from handlehome.extract.retries import Circuit, Failure

__all__ = ["SERVICES", "Backlog", "Job", "Service"]

Service = Literal["transcription", "extraction"]
SERVICES: Final[tuple[Service, ...]] = ("transcription", "extraction")


@dataclass(slots=True, eq=False)
class Job:
    """What is remembered of a call while it is pending.

    Attributes:
        call_sid: the call.
        submitted_at: when it was given, seconds since the epoch.
        force: it is redone although it was complete.
        attempts: attempts so far; None until read from the record.
        extracted: the model's data are there, of all turns that have a text; what is missing is a turn.
        unheard: turns in whose audio there is nothing to transcribe; not tried again.
        permits: the services it may ask although their circuit is open.
    """

    call_sid: str
    submitted_at: float
    force: bool = False
    attempts: int | None = None
    extracted: bool = False
    unheard: set[str] = field(default_factory=set)
    permits: frozenset[Service] = frozenset()

    def restart(self, now: float) -> None:
        """Makes it a forced one from the beginning."""
        self.submitted_at, self.force, self.attempts, self.extracted = now, True, None, False
        self.unheard.clear()


class Backlog:
    """The pending calls and the circuits. Times are seconds of one clock, given by the caller."""

    def __init__(self) -> None:
        self.circuits: dict[Service, Circuit] = {service: Circuit() for service in SERVICES}
        self._jobs: dict[str, Job] = {}
        self._ready: deque[Job] = deque()
        self._delayed: list[tuple[float, int, Job]] = []
        self._parked: dict[Service, OrderedDict[str, Job]] = {service: OrderedDict() for service in SERVICES}
        self._running: set[str] = set()
        self._again: set[str] = set()
        self._order = count()

    @property
    def waiting(self) -> int:
        """Calls whose turn it is as soon as a worker is free."""
        return len(self._ready)

    @property
    def running(self) -> int:
        """Calls that are being worked on."""
        return len(self._running)

    @property
    def retrying(self) -> int:
        """Calls that wait for their next attempt."""
        return len(self._delayed)

    @property
    def stopped(self) -> int:
        """Calls that are parked behind an open circuit."""
        return sum(map(len, self._parked.values()))

    def __len__(self) -> int:
        return len(self._jobs)

    def submit(self, call_sid: str, now: float, *, force: bool = False) -> None:
        """Takes a call in; one that is pending stays as it is, unless forced: then it begins anew."""
        job = self._jobs.get(call_sid)
        if job is None:
            self._jobs[call_sid] = job = Job(call_sid, now, force)
            self._ready.append(job)
        elif force and call_sid in self._running:
            self._again.add(call_sid)
        elif force:
            job.restart(now)
            if job not in self._ready:
                self._withdraw(job)
                self._ready.append(job)

    def take(self, now: float) -> Job | None:
        """The next call to work on, if there is one now; `finish`, `delay` or `park` hands it back."""
        while self._delayed and self._delayed[0][0] <= now:
            self._ready.append(heapq.heappop(self._delayed)[2])
        for service, circuit in self.circuits.items():
            parked = self._parked[service]
            if parked and circuit.probe_at is not None and circuit.probe_at <= now:
                self._ready.appendleft(parked.popitem(last=False)[1])
        if not self._ready:
            return None
        job = self._ready.popleft()
        self._running.add(job.call_sid)
        job.permits = frozenset(
            service for service, circuit in self.circuits.items() if circuit.try_probe(now)
        )
        return job

    def wake_at(self) -> float | None:
        """When `take` has something, if nothing else happens; None: not before something does."""
        times = [self._delayed[0][0]] if self._delayed else []
        for service, circuit in self.circuits.items():
            if self._parked[service] and circuit.probe_at is not None:
                times.append(circuit.probe_at)
        return min(times, default=None)

    def finish(self, job: Job, now: float) -> None:
        """The call is done with, whatever came out."""
        if not self._back(job, now):
            del self._jobs[job.call_sid]

    def delay(self, job: Job, until: float, now: float) -> None:
        """The call's next attempt is at `until`."""
        if not self._back(job, now):
            heapq.heappush(self._delayed, (until, next(self._order), job))

    def park(self, job: Job, service: Service, now: float) -> None:
        """The call waits until the service's circuit closes, which may have happened meanwhile."""
        if self._back(job, now):
            return
        if self.circuits[service].is_open:
            self._parked[service][job.call_sid] = job
        else:
            self._ready.append(job)

    def allows(self, job: Job, service: Service) -> bool:
        """Whether the call may ask the service now."""
        return service in job.permits or not self.circuits[service].is_open

    def failed(self, service: Service, failure: Failure, now: float) -> bool:
        """Takes notice of a failed request; returns whether the circuit opened or closed by it."""
        changed = self.circuits[service].failed(failure, now)
        if changed and self.circuits[service].is_open and service == "extraction":
            # Their records are to say so at once, not only when their attempt would have been due.
            self._ready.extend(job for _, _, job in sorted(self._delayed, key=lambda entry: entry[:2]))
            self._delayed.clear()
        elif changed:
            self._release(service)
        return changed

    def succeeded(self, service: Service) -> bool:
        """Takes notice of a success; returns whether the circuit closed by it."""
        changed = self.circuits[service].succeeded()
        if changed:
            self._release(service)
        return changed

    def _release(self, service: Service) -> None:
        if not self.circuits[service].is_open:
            self._ready.extend(self._parked[service].values())
            self._parked[service].clear()

    def _back(self, job: Job, now: float) -> bool:
        """Takes a running call back; True when it was forced meanwhile, and is ready again."""
        self._running.discard(job.call_sid)
        if job.call_sid not in self._again:
            return False
        self._again.discard(job.call_sid)
        job.restart(now)
        self._ready.append(job)
        return True

    def _withdraw(self, job: Job) -> None:
        for parked in self._parked.values():
            parked.pop(job.call_sid, None)
        left = [entry for entry in self._delayed if entry[2] is not job]
        if len(left) != len(self._delayed):
            self._delayed = left
            heapq.heapify(self._delayed)
