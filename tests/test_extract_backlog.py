"""Which call is worked on next."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from handlehome.extract.backlog import BARE_SECONDS, SERVICES, Backlog, Job, Service
from handlehome.extract.retries import PROBE_SECONDS, Failure, Fault

SETUP = Failure(Fault.SETUP, "bad key")


def taken(backlog: Backlog, now: float = 0.0) -> Job:
    job = backlog.take(now)
    assert job is not None
    return job


def test_calls_are_taken_in_the_order_in_which_they_came() -> None:
    backlog = Backlog()
    for sid in "abc":
        backlog.submit(sid, 0.0)
    assert [taken(backlog).call_sid for _ in range(3)] == ["a", "b", "c"]
    assert backlog.take(0.0) is None
    assert backlog.running == 3


def test_a_pending_call_is_not_taken_in_twice() -> None:
    backlog = Backlog()
    backlog.submit("a", 0.0)
    backlog.submit("a", 0.0)
    job = taken(backlog)
    backlog.submit("a", 0.0)
    backlog.delay(job, 10.0)
    backlog.submit("a", 0.0)
    assert backlog.take(9.9) is None
    assert taken(backlog, 10.0) is job
    backlog.finish(job)
    assert len(backlog) == 0


def test_an_open_circuit_parks_calls_and_lets_one_probe() -> None:
    backlog = Backlog()
    for sid in "abc":
        backlog.submit(sid, 0.0)
    jobs = [taken(backlog) for _ in range(3)]
    assert backlog.failed("extraction", SETUP, 0.0)
    for job in jobs:
        backlog.park(job, "extraction")
    assert (backlog.stopped, backlog.wake_at()) == (3, PROBE_SECONDS)
    assert backlog.take(PROBE_SECONDS - 0.1) is None
    probe = taken(backlog, PROBE_SECONDS)
    assert probe.call_sid == "a"
    assert backlog.allows(probe, "extraction")
    assert not backlog.allows(jobs[1], "extraction")
    assert backlog.take(PROBE_SECONDS) is None
    assert backlog.succeeded("extraction")
    backlog.finish(probe)
    assert [taken(backlog, PROBE_SECONDS).call_sid for _ in range(2)] == ["b", "c"]


def test_a_new_call_is_the_probe_when_none_is_parked() -> None:
    backlog = Backlog()
    backlog.failed("extraction", SETUP, 0.0)
    backlog.submit("a", 1.0)
    early = taken(backlog, 1.0)
    assert not backlog.allows(early, "extraction")
    backlog.finish(early)
    backlog.submit("b", 100.0)
    assert backlog.allows(taken(backlog, 100.0), "extraction")


def test_delayed_calls_learn_at_once_that_all_is_stopped() -> None:
    backlog = Backlog()
    for sid in "ab":
        backlog.submit(sid, 0.0)
    first, second = taken(backlog), taken(backlog)
    backlog.delay(first, 1800.0)
    backlog.failed("extraction", SETUP, 1.0)
    assert taken(backlog, 1.0) is first
    backlog.park(first, "extraction")
    backlog.park(second, "extraction")
    assert backlog.take(2.0) is None


def test_the_circuits_are_apart() -> None:
    """What is parked behind one service is not woken for a probe of the other."""
    backlog = Backlog()
    backlog.submit("a", 0.0)
    job = taken(backlog)
    backlog.failed("transcription", SETUP, 0.0)
    backlog.park(job, "transcription")
    backlog.failed("extraction", SETUP, -1000.0)
    assert backlog.allows(job, "extraction") is False
    assert backlog.take(1.0) is None
    assert backlog.wake_at() == PROBE_SECONDS


def test_parking_behind_a_circuit_that_closed_meanwhile_is_no_end() -> None:
    backlog = Backlog()
    backlog.submit("a", 0.0)
    job = taken(backlog)
    backlog.park(job, "extraction")
    assert taken(backlog) is job


def test_first_attempts_go_before_further_ones() -> None:
    backlog = Backlog()
    backlog.submit("a", 0.0)
    retried = taken(backlog)
    backlog.delay(retried, 10.0)
    backlog.submit("b", 20.0)
    backlog.submit("c", 20.0)
    assert [taken(backlog, 20.0).call_sid for _ in range(3)] == ["b", "c", "a"]


def test_what_a_closing_circuit_releases_goes_after_new_calls_too() -> None:
    backlog = Backlog()
    for sid in "ab":
        backlog.submit(sid, 0.0)
    jobs = [taken(backlog) for _ in range(2)]
    backlog.failed("extraction", SETUP, 0.0)
    for job in jobs:
        backlog.park(job, "extraction")
    backlog.submit("c", 1.0)
    backlog.succeeded("extraction")
    assert (backlog.waiting, backlog.stopped) == (3, 0)
    assert [taken(backlog, 1.0).call_sid for _ in range(3)] == ["c", "a", "b"]


def test_calls_without_data_are_given_out_in_time_wherever_they_are() -> None:
    backlog = Backlog()
    for number, sid in enumerate("abcd"):
        backlog.submit(sid, float(number))
    done, running = taken(backlog, 4.0), taken(backlog, 4.0)
    backlog.finish(done)
    assert backlog.bare_at() == 1.0 + BARE_SECONDS
    assert backlog.take_bare(0.9 + BARE_SECONDS) is None
    assert backlog.take_bare(1.0 + BARE_SECONDS) is running
    assert backlog.take_bare(1.0 + BARE_SECONDS) is None
    late = [backlog.take_bare(1e6) for _ in range(3)]
    assert [each and each.call_sid for each in late] == ["c", "d", None]
    assert (backlog.bare_at(), backlog.waiting, backlog.running) == (None, 2, 1)


def test_the_horizon_begins_at_the_first_failure_and_never_before_the_calls_end() -> None:
    job = Job("a", 0.0)
    assert job.failed(100.0, 50.0) == 100.0
    assert job.failed(200.0, 50.0) == 100.0
    assert job.failures == 2
    assert Job("b", 0.0).failed(100.0, 130.0) == 130.0


def test_the_horizon_begins_anew_after_a_stop() -> None:
    backlog = Backlog()
    backlog.submit("a", 0.0)
    job = taken(backlog)
    job.failed(0.0, 0.0)
    backlog.failed("extraction", SETUP, 1.0)
    backlog.park(job, "extraction")
    backlog.succeeded("extraction")
    assert taken(backlog, 200_000.0) is job
    assert job.failed(200_000.0, 0.0) == 200_000.0
    assert job.failures == 1


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order, a call is in one place, and is taken some day."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog()
        self.now = 0.0
        self.running: list[Job] = []
        self.pending: set[str] = set()

    @rule(sid=st.sampled_from("abcde"))
    def submit(self, sid: str) -> None:
        self.backlog.submit(sid, self.now)
        self.pending.add(sid)

    @rule()
    def take(self) -> None:
        job = self.backlog.take(self.now)
        if job is not None:
            assert job.call_sid not in [each.call_sid for each in self.running]
            self.running.append(job)

    @rule()
    def take_bare(self) -> None:
        job = self.backlog.take_bare(self.now)
        assert job is None or job.call_sid in self.pending

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from(["finish", "delay", "park"]), service=st.sampled_from(SERVICES))
    def hand_back(self, data: st.DataObject, end: str, service: Service) -> None:
        job = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if end == "delay":
            self.backlog.delay(job, self.now + 30.0)
        elif end == "park":
            self.backlog.park(job, service)
        else:
            self.backlog.finish(job)
            self.pending = set(self.backlog._jobs)

    @rule(service=st.sampled_from(SERVICES), fault=st.sampled_from(list(Fault)))
    def fail(self, service: Service, fault: Fault) -> None:
        self.backlog.failed(service, Failure(fault, "x"), self.now)

    @rule(service=st.sampled_from(SERVICES))
    def succeed(self, service: Service) -> None:
        self.backlog.succeeded(service)

    @rule(seconds=st.sampled_from([0.0, 1.0, 30.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def each_call_is_in_one_place(self) -> None:
        backlog = self.backlog
        assert set(backlog._jobs) == self.pending
        places = backlog.waiting + backlog.retrying + backlog.stopped + backlog.running
        assert places == len(backlog) == len(self.pending)
        assert backlog.running == len(self.running)
        assert set(backlog._bare) <= self.pending

    def teardown(self) -> None:
        for job in self.running:
            self.backlog.finish(job)
        left = len(self.backlog)
        for _ in range(left):
            at = self.backlog.wake_at()
            self.now = max(self.now, at or 0.0)
            job = self.backlog.take(self.now)
            assert job is not None, "a pending call is never taken"
            self.backlog.finish(job)
        assert len(self.backlog) == 0


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
