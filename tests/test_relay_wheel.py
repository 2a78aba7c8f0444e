import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from handlehome.relay.wheel import Timer, TimerWheel
from tests.virtual_time import VirtualClock

TICK = 0.005


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def wheel(clock: VirtualClock) -> TimerWheel:
    return TimerWheel(clock)


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(sink)


def test_runs_once_between_the_deadline_and_a_tick_later(clock: VirtualClock, wheel: TimerWheel) -> None:
    ran: list[float] = []
    wheel.at(1000.0421, lambda: ran.append(clock.now))
    clock.run_until(1000.042)
    assert ran == []
    clock.run_until(1001)
    assert ran == [1000.045]


def test_a_deadline_on_the_grid_runs_on_time(clock: VirtualClock, wheel: TimerWheel) -> None:
    """For each of a minute's ticks: no floating-point remainder may push it into the next tick."""
    ran: list[float] = []
    deadlines = [1000 + ms / 1000 for ms in range(5, 60_000, 5)]
    for when in deadlines:
        wheel.at(when, lambda: ran.append(clock.now))
    clock.advance(60)
    assert ran == deadlines


@given(
    start=st.floats(0, 1e7),
    delays=st.lists(st.floats(-1, 100), min_size=1),
    rate=st.sampled_from([1, 60, 200]),
)
@settings(deadline=None, max_examples=60)
def test_never_early_and_never_more_than_a_tick_late(start: float, delays: list[float], rate: int) -> None:
    clock = VirtualClock(start)
    wheel = TimerWheel(clock, ticks_per_second=rate)
    ran: list[tuple[float, float]] = []
    for delay in delays:
        when = start + delay
        wheel.at(when, lambda when=when: ran.append((when, clock.now)))
    clock.advance(102)
    assert [when for when, _ in ran] == sorted(start + delay for delay in delays)
    for when, now in ran:
        assert when <= now <= max(when, start) + 1 / rate + 1e-8
    assert wheel.pending == clock.pending == 0


def test_timers_of_one_tick_run_together_in_order_of_deadline(clock: VirtualClock, wheel: TimerWheel) -> None:
    ran: list[tuple[str, float]] = []
    for name, when in (("c", 1000.0049), ("a", 1000.001), ("b1", 1000.002), ("b2", 1000.002)):
        wheel.at(when, lambda name=name: ran.append((name, clock.now)))
    clock.advance(TICK)
    assert ran == [(name, 1000.005) for name in ("a", "b1", "b2", "c")]


def test_a_held_up_loop_runs_everything_due_in_order_and_the_lateness_is_kept(
    clock: VirtualClock, wheel: TimerWheel
) -> None:
    ran: list[float] = []
    deadlines = [1000.5, 1000.013, 1000.1, 1000.012, 1000.7]
    for when in deadlines:
        wheel.at(when, lambda when=when: ran.append(when))
    clock.now = 1000.6
    clock.advance(0)
    assert ran == sorted(deadlines)[:-1]
    assert wheel.late_max == pytest.approx(1000.6 - 1000.015)
    clock.advance(0.1)
    assert ran[-1] == 1000.7
    assert wheel.late_max == pytest.approx(1000.6 - 1000.015)


def test_a_deadline_that_has_passed_runs_at_the_next_turn_and_is_not_the_loops_lateness(
    clock: VirtualClock, wheel: TimerWheel
) -> None:
    ran: list[float] = []
    wheel.at(900.0, lambda: ran.append(clock.now))
    assert ran == []
    clock.advance(0)
    assert ran == [1000.0]
    assert wheel.late_max == 0.0


def test_an_earlier_deadline_than_the_one_armed_is_not_missed(clock: VirtualClock, wheel: TimerWheel) -> None:
    ran: list[str] = []
    wheel.at(1010.0, lambda: ran.append("late"))
    wheel.at(1001.0, lambda: ran.append("early"))
    assert clock.pending == 1
    clock.advance(1)
    assert ran == ["early"]
    clock.advance(9)
    assert ran == ["early", "late"]


def test_an_idle_wheel_asks_nothing_of_the_loop(clock: VirtualClock, wheel: TimerWheel) -> None:
    assert clock.pending == 0
    timer = wheel.at(1001.0, lambda: None)
    other = wheel.at(1002.0, lambda: None)
    assert (wheel.pending, clock.pending) == (2, 1)
    timer.cancel()
    other.cancel()
    assert (wheel.pending, clock.pending) == (0, 0)
    wheel.at(1001.0, lambda: None)
    clock.advance(2)
    assert (wheel.pending, clock.pending) == (0, 0)


def test_a_thousand_timers_take_one_place_in_the_loop(clock: VirtualClock, wheel: TimerWheel) -> None:
    for n in range(1000):
        wheel.at(1000 + n / 7, lambda: None)
    assert (wheel.pending, clock.pending) == (1000, 1)


def test_cancelling_is_final_and_may_be_repeated(clock: VirtualClock, wheel: TimerWheel) -> None:
    ran: list[str] = []
    timer = wheel.at(1000.01, lambda: ran.append("cancelled"))
    kept = wheel.at(1000.01, lambda: ran.append("kept"))
    assert timer.pending
    timer.cancel()
    timer.cancel()
    assert not timer.pending
    assert wheel.pending == 1
    clock.advance(1)
    kept.cancel()
    assert ran == ["kept"]
    assert not kept.pending
    assert wheel.pending == 0


def test_a_wake_up_for_cancelled_timers_runs_nothing_and_arms_the_next(
    clock: VirtualClock, wheel: TimerWheel
) -> None:
    ran: list[str] = []
    wheel.at(1001.0, lambda: ran.append("cancelled")).cancel()
    early = wheel.at(1002.0, lambda: ran.append("cancelled"))
    wheel.at(1003.0, lambda: ran.append("kept"))
    early.cancel()
    clock.advance(2.5)
    assert ran == []
    assert clock.pending == 1
    clock.advance(1)
    assert ran == ["kept"]


def test_a_callback_may_cancel_one_that_is_due_with_it(clock: VirtualClock, wheel: TimerWheel) -> None:
    ran: list[str] = []
    doomed: list[Timer] = []

    def first() -> None:
        ran.append("first")
        for timer in doomed:
            timer.cancel()

    wheel.at(1000.001, first)
    doomed += [wheel.at(when, lambda: ran.append("doomed")) for when in (1000.002, 1000.012)]
    last = wheel.at(1000.013, lambda: ran.append("last"))
    clock.now += 1
    clock.advance(0)
    assert ran == ["first", "last"]
    assert not last.pending
    assert wheel.pending == 0


def test_a_callback_that_always_asks_for_now_runs_once_a_tick(clock: VirtualClock, wheel: TimerWheel) -> None:
    ran: list[float] = []

    def again() -> None:
        ran.append(clock.now)
        if len(ran) < 4:
            wheel.at(clock.now - 5, again)

    wheel.at(1000.0, again)
    clock.advance(0)
    assert ran == [1000.0]
    clock.advance(1)
    assert ran == [1000.0, 1000.005, 1000.01, 1000.015]


def test_absolute_deadlines_catch_up_after_a_stall(clock: VirtualClock, wheel: TimerWheel) -> None:
    """A timer set every 60 ms from its own last deadline is back on its grid after the loop was held up."""
    ran: list[float] = []
    due = 1000.0

    def fire() -> None:
        nonlocal due
        ran.append(clock.now)
        due += 0.06
        wheel.at(due, fire)

    wheel.at(due, fire)
    clock.advance(0.06)
    clock.now += 0.2
    clock.advance(1000.6 + 1e-6 - clock.now)
    assert len(ran) == 11
    assert ran[-3:] == pytest.approx([1000.48, 1000.54, 1000.6])


def test_a_callback_that_raises_is_logged_and_the_others_run(
    clock: VirtualClock, wheel: TimerWheel, log: list[str]
) -> None:
    ran: list[str] = []

    def broken() -> None:
        raise LookupError("no such call")

    wheel.at(1000.001, broken)
    wheel.at(1000.002, lambda: ran.append("same tick"))
    wheel.at(1000.012, lambda: ran.append("next tick"))
    clock.advance(1)
    assert ran == ["same tick", "next tick"]
    assert len(log) == 1
    assert "ERROR The timer callback" in log[0]
    assert "broken raised" in log[0]
    assert "LookupError: no such call" in log[0]


def test_an_interrupt_passes_and_leaves_the_other_timers_due(clock: VirtualClock, wheel: TimerWheel) -> None:
    ran: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    wheel.at(1000.001, interrupt)
    wheel.at(1000.002, lambda: ran.append("same tick"))
    with pytest.raises(KeyboardInterrupt):
        clock.advance(1)
    assert wheel.pending == 1
    clock.advance(1)
    assert ran == ["same tick"]


def test_callbacks_run_in_the_context_of_the_wheel_not_of_the_setter(clock: VirtualClock) -> None:
    call = ContextVar("call", default="none")
    wheel = TimerWheel(clock)
    seen: list[str] = []
    token = call.set("CA1")
    wheel.at(1000.01, lambda: seen.append(call.get()))
    clock.advance(1)
    call.reset(token)
    assert seen == ["none"]


def test_close_cancels_everything_for_good(clock: VirtualClock, wheel: TimerWheel) -> None:
    ran: list[str] = []
    timers = [wheel.at(1000 + n / 100, lambda: ran.append("ran")) for n in range(100)]
    wheel.close()
    wheel.close()
    assert (wheel.pending, clock.pending) == (0, 0)
    assert not any(timer.pending for timer in timers)
    clock.advance(5)
    timers[0].cancel()
    assert ran == []
    with pytest.raises(RuntimeError, match="closed"):
        wheel.at(1006.0, lambda: None)


def test_close_from_within_a_callback_stops_the_rest(clock: VirtualClock, wheel: TimerWheel) -> None:
    ran: list[str] = []
    wheel.at(1000.001, wheel.close)
    wheel.at(1000.002, lambda: ran.append("ran"))
    wheel.at(1000.1, lambda: ran.append("ran"))
    clock.advance(1)
    assert ran == []
    assert (wheel.pending, clock.pending) == (0, 0)


def test_time_outs_pushed_back_on_every_frame_leave_nothing_behind(
    clock: VirtualClock, wheel: TimerWheel
) -> None:
    """An hour of 20 ms frames, each of which moves a 10 s time-out, and no memory of the moves."""
    timeout = wheel.at(clock.now + 10, lambda: None)
    wheel.at(clock.now + 5000, lambda: None)
    for _ in range(3600 * 50):
        clock.now += 0.02
        timeout.cancel()
        timeout = wheel.at(clock.now + 10, lambda: None)
    assert wheel.pending == 2
    assert len(wheel._buckets) == 2
    assert len(wheel._ticks) < 100


def test_a_timer_that_is_over_keeps_nothing_alive(clock: VirtualClock, wheel: TimerWheel) -> None:
    class Call:
        def tick(self) -> None: ...

    call = Call()
    gone = weakref.ref(call)
    timers = [wheel.at(1000.01, call.tick), wheel.at(1000.5, call.tick)]
    timers[1].cancel()
    clock.advance(0.1)
    del call
    gc.collect()
    assert gone() is None
    assert len(timers) == 2


@pytest.mark.parametrize("rate", [0, -1])
def test_a_wheel_without_ticks_is_an_error(clock: VirtualClock, rate: int) -> None:
    with pytest.raises(ValueError, match="one tick per second"):
        TimerWheel(clock, ticks_per_second=rate)


@pytest.mark.parametrize("when", [float("inf"), float("nan")])
def test_a_deadline_that_is_no_time_is_an_error(wheel: TimerWheel, when: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        wheel.at(when, lambda: None)
    assert wheel.pending == 0


async def test_on_the_real_loop_nothing_is_early_and_the_loop_is_not_spun() -> None:
    """Each wake-up finds something to run, so the wheel's deadlines and uvloop's milliseconds agree."""
    loop = asyncio.get_running_loop()
    wake_ups = 0
    real_wake = TimerWheel._wake

    class Counted(TimerWheel):
        def _wake(self) -> None:
            nonlocal wake_ups
            wake_ups += 1
            real_wake(self)

    wheel = Counted(loop)
    ran: list[tuple[float, float]] = []
    done = loop.create_future()
    start = loop.time()
    for n in range(100):
        when = start + n * 0.0023
        wheel.at(when, lambda when=when: ran.append((when, loop.time())))
    wheel.at(start + 0.24, lambda: done.set_result(None))
    await done
    assert len(ran) == 100
    assert all(now >= when for when, now in ran)
    assert wake_ups <= 50
    assert wheel.pending == 0


def churn(
    arm_with: Callable[[asyncio.AbstractEventLoop], Callable[[float, Callable[[], None]], object]],
) -> float:
    """CPU microseconds per timer: 2000 timers, each set again every 60 ms, for 0.6 s on a fresh uvloop."""

    async def run() -> float:
        loop = asyncio.get_running_loop()
        arm = arm_with(loop)
        start = loop.time()
        fired = 0

        def start_timer(due: float) -> None:
            def fire() -> None:
                nonlocal due, fired
                fired += 1
                due += 0.06
                if due < start + 0.6:
                    arm(due, fire)

            arm(due, fire)

        for n in range(2000):
            start_timer(start + 0.06 + n * 0.00003)
        before = time.process_time()
        done = loop.create_future()
        loop.call_at(start + 0.65, done.set_result, None)
        await done
        return (time.process_time() - before) / fired * 1e6

    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()


def test_timers_set_again_every_60_ms_are_cheap(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the cost beside the loop's own timers; the bound only catches a change of order of magnitude."""
    wheel = min(churn(lambda loop: TimerWheel(loop).at) for _ in range(2))
    plain = min(churn(lambda loop: loop.call_at) for _ in range(2))
    with capsys.disabled():
        print(
            f"\nwheel, 2000 timers every 60 ms: {wheel:.1f} us each, "
            f"loop.call_at {plain:.1f} us, ratio {wheel / plain:.2f}"
        )
    assert wheel < 3 * plain
