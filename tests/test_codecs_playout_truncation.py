"""How exactly a playout tells what was heard when it is interrupted, on a line that knows the truth."""

import math
import random
from typing import Any

import pytest

from tests.playout_phone import FAR, NEAR, NO_DELAY, Phone


def interruptions(
    calls: int,
    each: int,
    delay: tuple[float, float],
    *,
    pace: float = 8.0,
    delta: tuple[float, float] = (0.020, 0.400),
    stall: float = 0.0,
    drift: float = 0.0,
    before: float = 0.3,
    lose: float = 0.0,
    frames: bool = True,
) -> list[float]:
    """Interrupts answers at random moments; what was told minus what was played, in ms, for each."""
    errors: list[float] = []
    for call in range(calls):
        phone = Phone(seed=f"{call} {delay}", delay=delay, drift=drift, lose=lose, frames=frames)
        rng = random.Random(f"{call} moments")
        phone.run(before)
        for number in range(each):
            phone.run(rng.uniform(0.03, 0.08))
            phone.say(f"item {number}", rng.uniform(4, 9), pace=pace, delta=delta, stall=stall)
            played = phone.playback.played_at(phone.now)
            phone.run(rng.uniform(0.9, 3.8))
            cuts = len(phone.cuts)
            heard = phone.interrupt()
            assert all(item.heard_ms <= item.sent_ms for item in heard)
            phone.run(0.7)
            assert len(phone.cuts) == cuts + bool(heard)
            assert not phone.playback.playing
            if heard:
                truth = (phone.cuts[-1].played_bytes - played) / 8
                errors.append(sum(item.heard_ms for item in heard) - truth)
    return errors


def quantile(errors: list[float], q: float) -> float:
    ranked = sorted(abs(error) for error in errors)
    return ranked[math.ceil(q * len(ranked)) - 1]


@pytest.mark.parametrize(
    ("delay", "model", "p95", "bias"),
    [
        pytest.param(NEAR, {}, 39, 6, id="10-80 ms"),
        pytest.param(NEAR, {"pace": 1.3, "delta": (0.06, 0.3), "stall": 0.1}, 41, 6, id="stalls"),
        pytest.param(NEAR, {"pace": 0.77, "delta": (0.06, 0.3), "stall": 0.1}, 45, 6, id="slow"),
        pytest.param(FAR, {}, 115, 30, id="50-300 ms"),
        pytest.param((0.020, 0.022), {}, 8, 3, id="steady"),
        pytest.param(NO_DELAY, {}, 8, 3, id="no delay"),
    ],
)
def test_interruptions_are_told_as_they_were_heard(
    delay: tuple[float, float], model: dict[str, Any], p95: float, bias: float
) -> None:
    """The clear's own delay is random: with 10-80 ms, +-31 ms (p95) is all that can be had."""
    errors = interruptions(20, 20, delay, **model)
    assert quantile(errors, 0.95) < p95
    assert abs(sum(errors) / len(errors)) < bias


@pytest.mark.parametrize("drift", [-200e-6, 200e-6])
def test_a_clock_that_drifts_for_an_hour_does_no_harm(drift: float) -> None:
    errors = interruptions(1, 30, NEAR, drift=drift)
    for error in errors:
        assert abs(error) < 75
    errors = interruptions(1, 100, NEAR, drift=drift, before=3600.0)
    assert quantile(errors, 0.95) < 45
    assert abs(sum(errors) / len(errors)) < 15


def test_without_media_timestamps_the_arrival_of_marks_has_to_do() -> None:
    assert quantile(interruptions(20, 20, NEAR, frames=False), 0.95) < 70


def test_half_of_the_marks_lost_costs_little() -> None:
    assert quantile(interruptions(20, 20, NEAR, lose=0.5), 0.95) < 45


def test_all_marks_lost_leaves_the_clock() -> None:
    assert quantile(interruptions(20, 20, NEAR, lose=1.0), 0.95) < 70
