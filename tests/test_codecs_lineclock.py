"""What the line's clock says, from frames and round trips whose truth is known."""

import itertools
import random
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.codecs.lineclock import (
    FRAME_SECONDS,
    REACH_MAX_SECONDS,
    REACH_SAMPLES,
    WINDOW_SECONDS,
    LineClock,
)


def feed(
    clock: LineClock, start: float, seconds: float, *, shift: float = 0.0, jitter: float = 0.0, seed: int = 0
) -> float:
    """Frames of a line whose clock is `shift` behind ours, in order, the fastest without delay.

    Returns:
        When the last one arrived.
    """
    rng = random.Random(seed)
    arrival = 0.0
    for number in range(round(seconds / FRAME_SECONDS)):
        at = start + number * FRAME_SECONDS
        arrival = max(arrival, at + rng.uniform(0, jitter))
        clock.frame(arrival, round((at - shift) * 1000))
    return arrival


def test_without_frames_an_event_happened_when_it_arrived() -> None:
    assert LineClock().event(12.5) == (12.5, 12.5)


def test_without_round_trips_a_message_acts_at_once() -> None:
    clock = LineClock()
    feed(clock, 100.0, 5.0, jitter=0.05)
    assert (clock.reach, clock.samples) == (0.0, 0)


@pytest.mark.parametrize("shift", [-1000.0, 0.0, 5.0, 100.0])
def test_an_event_lies_within_the_frame_it_came_behind(shift: float) -> None:
    """However late it arrives: nothing that is sent later can come before it."""
    clock = LineClock()
    feed(clock, 100.0, 5.0, shift=shift)  # the last frame is stamped 104.98
    assert clock.event(104.981) == pytest.approx((104.98, 104.981))
    assert clock.event(105.0) == pytest.approx((104.98, 105.0))
    assert clock.event(107.5) == pytest.approx((104.98, 105.0))


def test_jitter_does_not_reach_the_time_of_an_event() -> None:
    clock = LineClock()
    feed(clock, 98.0, 2.0, jitter=0.07)
    for second in range(10):
        start = 100.0 + second
        arrival = feed(clock, start, 1.0, jitter=0.07, seed=second)
        happened = start + 0.99
        earliest, latest = clock.event(max(arrival, happened + 0.06))
        assert earliest - 0.010 <= happened <= latest


def test_the_shortest_way_is_kept_for_a_window_and_then_forgotten() -> None:
    clock = LineClock()
    feed(clock, 100.0, WINDOW_SECONDS - 1.0)
    late = 0.040  # from now on, every frame takes so much longer
    for number in range(round(3 * WINDOW_SECONDS / FRAME_SECONDS)):
        at = 100.0 + WINDOW_SECONDS + number * FRAME_SECONDS
        clock.frame(at + late, round(at * 1000))
        earliest, _ = clock.event(at + 1.0)
        if at < 100.0 + WINDOW_SECONDS * 1.5:
            assert earliest == pytest.approx(at, abs=1e-6)
    assert clock.event(at + 1.0)[0] == pytest.approx(at + late, abs=1e-6)


@pytest.mark.parametrize("drift", [-200e-6, 200e-6])
def test_a_drifting_clock_is_followed(drift: float) -> None:
    clock = LineClock()
    for number in range(180_000):  # an hour
        at = 100.0 + number * FRAME_SECONDS * (1 + drift)
        clock.frame(at, number * 20)
        if number > 5000:
            assert abs(clock.event(at + 1.0)[0] - at) < 200e-6 * 2 * WINDOW_SECONDS + 0.001


@pytest.mark.parametrize("jump_ms", [-3_600_000, -40, 3_600_000])
def test_a_clock_that_was_set_is_believed_at_once(jump_ms: int) -> None:
    clock = LineClock()
    feed(clock, 100.0, 5.0)
    for number in range(3):
        at = 105.0 + number * FRAME_SECONDS
        clock.frame(at, round(at * 1000) + jump_ms)
        assert clock.event(at + 0.5) == pytest.approx((at, at + FRAME_SECONDS))


def test_frames_that_come_in_a_burst_after_seconds_keep_their_time() -> None:
    clock = LineClock()
    feed(clock, 100.0, 5.0)
    for number in range(150):
        at = 105.0 + number * FRAME_SECONDS
        clock.frame(108.0, round(at * 1000))
        assert clock.event(108.0)[0] == pytest.approx(at)


def test_reach_is_the_mean_of_the_first_samples_and_then_follows() -> None:
    clock = LineClock()
    for number, took in enumerate([0.010, 0.030, 0.080], 1):
        clock.acted(10.0, 10.0 + took)
        assert clock.samples == number
    assert clock.reach == pytest.approx(0.040)
    for _ in range(4 * REACH_SAMPLES):
        clock.acted(10.0, 10.2)
    assert clock.reach == pytest.approx(0.200, abs=0.005)


def test_impossible_round_trips_are_bounded() -> None:
    clock = LineClock()
    clock.acted(10.0, 9.0)
    assert clock.reach == 0.0
    clock.acted(10.0, 1000.0)
    assert clock.reach == REACH_MAX_SECONDS / 2


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 2**40), st.floats(0, 5)), min_size=1, max_size=50),
)
def test_whatever_the_stamps_an_event_is_never_later_than_its_message(
    frames: list[tuple[float, int, float]],
) -> None:
    clock = LineClock()
    now = 100.0
    for wait, stamp, later in frames:
        now += wait
        clock.frame(now, stamp)
        now += later
        earliest, latest = clock.event(now)
        assert earliest <= latest <= now
        assert latest - earliest <= FRAME_SECONDS + 1e-6


def test_the_cost_of_a_frame(capsys: pytest.CaptureFixture[str]) -> None:
    clock = LineClock()
    stamps = itertools.count(0, 20)

    def run() -> None:
        for _ in range(1000):
            stamp = next(stamps)
            clock.frame(100.0 + stamp * 0.001, stamp)

    cost = min(timeit.repeat(run, number=1, repeat=9)) * 1e3
    with capsys.disabled():
        print(f"\nlineclock: {cost:.2f} us for a frame")
    assert cost < 10
