"""Which call is worked on next: pure, without threads and clock; `TranscriptionProcessor` locks round it.

Theory of operation
-------------------

A call is in one place at a time: `ready` (in order of arrival), `delayed` (until its next attempt), `due`
(for that attempt, after all that are ready), `parked` (behind the circuit of a service), or running. What is
kept of it is a few numbers, never its record.

Each service of the API has its circuit. While one is open, the calls that need it are parked behind it; when
a probe is due, the first of them goes to the head of the queue with a permit to pass. When the circuit
closes, all that are parked behind it are due.

A service that hangs holds every worker for its whole deadline. So that no call waits for that without data,
`take_bare` gives out the calls that came `BARE_SECONDS` ago, wherever they are: rules need no worker.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Literal

from handlehome.extract.retries import Circuit, Failure

__all__ = ["BARE_SECONDS", "SERVICES", "Backlog", "Job", "Service"]

Service = Literal["transcription", "extraction"]
SERVICES: Final[tuple[Service, ...]] = ("transcription", "extraction")

BARE_SECONDS: Final = 3.0
"""How long a call may be without data. Most answers come sooner, and save the rules' result a write."""


@dataclass(slots=True, eq=False)
class Job:
    """What is remembered of a call while it is pending.

    Attributes:
        call_sid: the call.
        submitted_at: when it was given, seconds since the epoch.
        attempts: attempts so far; None until read from the record.
        failures: of those, the ones that count for the wait until the next: since the last stop.
        failing_since: when the first attempt failed since the last stop or the process's start; None: none.
        kept: a result of it is journaled; guarded by `Results`.
        extracted: the model's data are there, of all turns that have a text; what is missing is a turn.
        unheard: turns in whose audio there is nothing to transcribe; not tried again.
        permits: the services it may ask although their circuit is open.
    """

    call_sid: str
    submitted_at: float
    attempts: int | None = None
    failures: int = 0
    failing_since: float | None = None
    kept: bool = False
    extracted: bool = False
    unheard: set[str] = field(default_factory=set)
    permits: frozenset[Service] = frozenset()

    def failed(self, now: float, ended_at: float) -> float:
        """Takes notice of a failure that another attempt may mend.

        Args:
            now: the time now.
            ended_at: when the call ended, by the clock of then.

        Returns:
            When the horizon began: at the first such failure, never before the call's end.
        """
        self.failures += 1
        if self.failing_since is None:
            self.failing_since = max(now, ended_at)
        return self.failing_since

    def stopped(self) -> None:
        """Takes notice that it isn't tried for now, for no fault of its own: waits and horizon begin anew."""
        self.failures, self.failing_since = 0, None


class Backlog:
    """The pending calls and the circuits. Times are seconds of one clock, given by the caller."""

    def __init__(self) -> None:
        self.circuits: dict[Service, Circuit] = {service: Circuit() for service in SERVICES}
        self._jobs: dict[str, Job] = {}
        self._ready: deque[Job] = deque()
        self._due: deque[Job] = deque()
        self._bare: dict[str, Job] = {}  # in order of arrival, until given by `take_bare` or finished
        self._delayed: list[tuple[float, int, Job]] = []
        self._parked: dict[Service, OrderedDict[str, Job]] = {service: OrderedDict() for service in SERVICES}
        self._running: set[str] = set()
        self._order = count()

    @property
    def waiting(self) -> int:
        """Calls whose turn it is as soon as a worker is free."""
        return len(self._ready) + len(self._due)

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

    def submit(self, call_sid: str, now: float) -> None:
        """Takes a call in; one that is pending stays as it is."""
        if call_sid not in self._jobs:
            self._jobs[call_sid] = self._bare[call_sid] = job = Job(call_sid, now)
            self._ready.append(job)

    def take(self, now: float) -> Job | None:
        """The next call to work on, if there is one now; `finish`, `delay` or `park` hands it back."""
        while self._delayed and self._delayed[0][0] <= now:
            self._due.append(heapq.heappop(self._delayed)[2])
        for service, circuit in self.circuits.items():
            parked = self._parked[service]
            if parked and circuit.probe_at is not None and circuit.probe_at <= now:
                self._ready.appendleft(parked.popitem(last=False)[1])
        queue = self._ready or self._due
        if not queue:
            return None
        job = queue.popleft()
        self._running.add(job.call_sid)
        self.permit(job, now)
        return job

    def permit(self, job: Job, now: float) -> None:
        """Makes the call the probe of each open circuit that lets one pass now."""
        job.permits = frozenset(
            service for service, circuit in self.circuits.items() if circuit.try_probe(now)
        )

    def take_bare(self, now: float) -> Job | None:
        """The next call that came `BARE_SECONDS` ago, each once; it stays where it is, running or not."""
        at = self.bare_at()
        return None if at is None or now < at else self._bare.pop(next(iter(self._bare)))

    def bare_at(self) -> float | None:
        """When `take_bare` has something; None: not before another call comes."""
        first = next(iter(self._bare.values()), None)
        return None if first is None else first.submitted_at + BARE_SECONDS

    def wake_at(self) -> float | None:
        """When `take` has something, if nothing else happens; None: not before something does."""
        times = [self._delayed[0][0]] if self._delayed else []
        for service, circuit in self.circuits.items():
            if self._parked[service] and circuit.probe_at is not None:
                times.append(circuit.probe_at)
        return min(times, default=None)

    def finish(self, job: Job) -> None:
        """The call is done with, whatever came out."""
        self._running.discard(job.call_sid)
        self._bare.pop(job.call_sid, None)
        del self._jobs[job.call_sid]

    def delay(self, job: Job, until: float) -> None:
        """The call's next attempt is at `until`."""
        self._running.discard(job.call_sid)
        heapq.heappush(self._delayed, (until, next(self._order), job))

    def park(self, job: Job, service: Service) -> None:
        """The call waits until the service's circuit closes, which may have happened meanwhile."""
        self._running.discard(job.call_sid)
        job.stopped()
        if self.circuits[service].is_open:
            self._parked[service][job.call_sid] = job
        else:
            self._due.append(job)

    def allows(self, job: Job, service: Service) -> bool:
        """Whether the call may ask the service now."""
        return service in job.permits or not self.circuits[service].is_open

    def failed(self, service: Service, failure: Failure, now: float) -> bool:
        """Takes notice of a failed request; returns whether the circuit opened or closed by it."""
        changed = self.circuits[service].failed(failure, now)
        if changed and self.circuits[service].is_open and service == "extraction":
            # Their records are to say so at once, not only when their attempt would have been due.
            self._due.extend(job for _, _, job in sorted(self._delayed, key=lambda entry: entry[:2]))
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
            self._due.extend(self._parked[service].values())
            self._parked[service].clear()
