"""When a request is tried again, in virtual time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.extract.retries import PROBE_SECONDS, Backoff, Circuit, Failure, Fault, classify

DAY = 86_400.0
SETUP = Failure(Fault.SETUP, "HTTP 401 (invalid_api_key)")
SERVICE = Failure(Fault.SERVICE, "HTTP 503")
CALL = Failure(Fault.CALL, "the model refused")


@pytest.mark.parametrize(
    ("status", "codes", "fault"),
    [
        (None, (), Fault.SERVICE),
        (401, ("invalid_api_key",), Fault.SETUP),
        (403, (), Fault.SETUP),
        (404, ("model_not_found",), Fault.SETUP),
        (404, (None, None), Fault.SETUP),
        (400, ("model_not_found",), Fault.SETUP),
        (400, ("invalid_json_schema",), Fault.SETUP),
        (400, (None, "invalid_request_error"), Fault.CALL),
        (400, ("audio_too_short",), Fault.CALL),
        (413, (), Fault.CALL),
        (408, (), Fault.SERVICE),
        (409, (), Fault.SERVICE),
        (429, ("rate_limit_exceeded", "requests"), Fault.SERVICE),
        (429, ("slow_down",), Fault.SERVICE),
        (429, ("insufficient_quota", "insufficient_quota"), Fault.SETUP),
        (429, (None, "insufficient_quota"), Fault.SETUP),
        (500, (), Fault.SERVICE),
        (503, ("server_is_overloaded",), Fault.SERVICE),
        (307, (), Fault.SETUP),
    ],
)
def test_whom_an_error_concerns(status: int | None, codes: tuple[str | None, ...], fault: Fault) -> None:
    assert classify(status, *codes) is fault


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(first=5, longest=60)
    waits = [backoff.next(attempts, 0.0, 0.0, chance=0.0) for attempts in range(1, 8)]
    assert waits == [5, 10, 20, 40, 60, 60, 60]


def test_chance_shortens_a_wait_by_up_to_half() -> None:
    assert Backoff(first=10).next(1, 100.0, 100.0, chance=1.0) == 105.0


def test_the_server_may_ask_for_more_but_not_for_ever() -> None:
    backoff = Backoff(first=5, longest=60)
    assert backoff.next(1, 0.0, 0.0, chance=0.0, retry_after=30.0) == 30.0
    assert backoff.next(1, 0.0, 0.0, chance=0.0, retry_after=1.0) == 5.0
    assert backoff.next(1, 0.0, 0.0, chance=0.0, retry_after=1e9) == 60.0
    assert backoff.next(1, 0.0, 0.0, chance=0.0, retry_after=float("nan")) == 5.0


def test_the_last_attempt_is_made_at_the_horizon_and_then_it_is_given_up() -> None:
    backoff = Backoff()
    assert backoff.next(50, DAY - 1, 0.0, chance=0.0) == DAY
    assert backoff.next(51, DAY, 0.0, chance=0.0) is None


@given(st.lists(st.floats(0, 1), min_size=200, max_size=200), st.floats(0, 2e9))
def test_a_day_of_failures_has_an_end_and_few_attempts(chances: list[float], since: float) -> None:
    """Every wait lies between half the first and the longest, and about 60 to 110 attempts fill the day."""
    backoff, now, attempts = Backoff(), since, 0
    while attempts < 200:
        attempts += 1
        at = backoff.next(attempts, now, since, chance=chances[attempts - 1])
        if at is None:
            break
        assert now < at <= since + backoff.horizon
        assert at - now <= backoff.longest + 1e-3
        now = at
    assert now == since + backoff.horizon
    assert 50 <= attempts <= 120


@given(st.integers(-5, 10**9), st.floats(0, 1))
def test_any_number_of_attempts_has_a_wait(attempts: int, chance: float) -> None:
    at = Backoff().next(attempts, 0.0, 0.0, chance=chance)
    assert at is not None
    assert 2.5 <= at <= 1800


def test_a_circuit_opens_by_what_concerns_all_calls_only() -> None:
    circuit = Circuit()
    assert not circuit.failed(SERVICE, 0.0)
    assert not circuit.failed(CALL, 0.0)
    assert not circuit.is_open
    assert circuit.failed(SETUP, 0.0)
    assert circuit.failure is SETUP
    assert not circuit.failed(SETUP, 1.0)


def test_an_open_circuit_lets_one_probe_pass_a_minute() -> None:
    circuit = Circuit()
    assert not circuit.try_probe(0.0)
    circuit.failed(SETUP, 100.0)
    assert circuit.probe_at == 100.0 + PROBE_SECONDS
    assert not circuit.try_probe(159.9)
    assert circuit.try_probe(160.0)
    assert not circuit.try_probe(160.0)
    assert circuit.try_probe(220.0)


@pytest.mark.parametrize(
    ("failure", "closes"), [(SERVICE, False), (SETUP, False), (CALL, True), (None, True)]
)
def test_which_end_of_a_probe_closes_the_circuit(failure: Failure | None, closes: bool) -> None:
    circuit = Circuit()
    circuit.failed(SETUP, 0.0)
    changed = circuit.succeeded() if failure is None else circuit.failed(failure, 60.0)
    assert changed is closes
    assert circuit.is_open is not closes
    assert (circuit.probe_at is None) is closes
