"""Playout against a simulated line that knows the truth, in virtual time."""

import base64
import heapq
import itertools
import math
import random
import timeit
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlehome.bench.playback import Cut, Playback
from handlehome.codecs.framepool import FramePool, FrameQueue
from handlehome.codecs.payload import decode
from handlehome.codecs.playout import BYTES_PER_SECOND, PREBUFFER_MAX, SLICE_BYTES, Heard, Playout

NEAR = (0.010, 0.080)
FAR = (0.050, 0.300)
NO_DELAY = (0.0, 0.0)
SECOND = BYTES_PER_SECOND


class Way:
    """One direction of the network: a random delay for each message, order kept."""

    def __init__(self, rng: random.Random, delay: tuple[float, float]) -> None:
        self.rng = rng
        self.delay = delay
        self.latest = 0.0

    def arrival(self, now: float) -> float:
        self.latest = max(self.latest, now + self.rng.uniform(*self.delay))
        return self.latest


class Phone:
    """A playout, its line with network and playback buffer, and the time.

    Args:
        delay: Seconds that a message takes, each way.
        lead: Of the playout.
        wheel: Coarseness of the relay's timers, seconds.
        drift: By how much the line's clock is slow.
        frames: The line sends its 20 ms frames.
        lose: Share of the marks that get lost on their way back.
    """

    def __init__(
        self,
        *,
        seed: object = 0,
        delay: tuple[float, float] = NO_DELAY,
        lead: float = 1.0,
        limit: int = 120 * SECOND,
        wheel: float = 0.005,
        drift: float = 0.0,
        frames: bool = True,
        lose: float = 0.0,
    ) -> None:
        rng = random.Random(str(seed))
        self.rng = rng
        self.now = self.began = 1000.0
        self.up = Way(rng, delay)
        self.down = Way(rng, delay)
        self.playback = Playback(self.now)
        self.pool = FramePool(400)
        self.queue = FrameQueue(self.pool, limit)
        self.playout = Playout(self, self.queue, lead=lead)
        self.given = bytearray()  # taken by the playout since the last clear
        self.sent = bytearray()  # handed to the line since the last clear
        self.marks: list[tuple[str, int]] = []  # name, bytes handed to the line before
        self.sent_total = 0
        self.silenced = False  # a clear was sent, and no audio has come since
        self.cuts: list[Cut] = []
        self.completed: list[Heard] = []
        self._lose = lose
        self._wheel = wheel
        self._period = 0.020 * (1 + drift)
        self._frames = 0
        self._armed = False
        self._echo_at: float | None = None
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count()
        if frames:
            self.at(self.now + self._period, self._frame)
        self.playout.begin(self.now)

    # ---- time

    def at(self, when: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._events, (when, next(self._number), what))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            when, _, what = heapq.heappop(self._events)
            self.now = max(self.now, when)
            what()
            self.check()
        self.now = until

    def check(self) -> None:
        """What holds after every step."""
        assert self.given.startswith(self.sent)
        assert len(self.given) - len(self.sent) == len(self.queue)
        if not self.queue:
            assert self.pool.in_use == 0
            assert self.playout.due is None

    # ---- line

    def media(self, payload: bytes) -> None:
        assert not self.silenced
        ulaw = decode(payload)
        assert ulaw
        self.sent += ulaw
        self.sent_total += len(ulaw)
        self._arrives(lambda: self.playback.append(self.now, ulaw))

    def mark(self, name: str) -> None:
        self.marks.append((name, self.sent_total))
        self._arrives(lambda: self.playback.mark(self.now, name))

    def clear(self) -> None:
        self._arrives(lambda: self.cuts.append(self.playback.clear(self.now)))

    def _arrives(self, act: Callable[[], object]) -> None:
        def arrive() -> None:
            act()
            self._play()

        self.at(self.down.arrival(self.now), arrive)

    def _play(self) -> None:
        for echo in self.playback.advance(self.now):
            if self.rng.random() >= self._lose:
                self.at(self.up.arrival(self.now), lambda name=echo.name: self.echo(name))  # type: ignore[misc]
        when = self.playback.next_echo_at()
        if when is not None and when != self._echo_at:
            self._echo_at = when
            self.at(when, self._play)

    def _frame(self) -> None:
        stamp = self._frames * 20
        self._frames += 1
        self.at(self.up.arrival(self.now), lambda: self.playout.clock.frame(self.now, stamp))
        self.at(self.began + (self._frames + 1) * self._period, self._frame)

    # ---- relay

    def echo(self, name: str) -> None:
        self.completed += self.playout.echo(self.now, name)

    def audio(self, item_id: str, ulaw: bytes) -> bool:
        self.silenced = False
        taken_before = len(self.given)
        self.given += ulaw  # before: it may be sent from within
        taken = self.playout.audio(self.now, item_id, base64.b64encode(ulaw), len(ulaw))
        if not taken:
            del self.given[taken_before:]
        self._arm()
        self.check()
        return taken

    def done(self, item_id: str) -> None:
        self.completed += self.playout.item_done(self.now, item_id)
        self._arm()
        self.check()

    def interrupt(self) -> tuple[Heard, ...]:
        heard = self.playout.clear(self.now)
        if heard:
            self.silenced = True
            self.given.clear()
            self.sent.clear()
        assert not self.playout.outstanding
        self.check()
        return heard

    def say(
        self,
        item_id: str,
        seconds: float,
        *,
        pace: float = 8.0,
        delta: tuple[float, float] = (0.020, 0.400),
        jitter: float = 0.0,
        stall: float = 0.0,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> float:
        """The model says something from now on; returns when its last delta will come."""
        rng = self.rng
        size, offset, latest = int(seconds * SECOND), 0, 0.0
        while offset < size:
            count = min(size - offset, max(1, int(rng.uniform(*delta) * SECOND)))
            due = offset / SECOND / pace + rng.uniform(0, jitter) + 0.5 * (rng.random() < stall)
            latest = max(latest, due)
            ulaw = rng.randbytes(count)
            self.at(self.now + latest, lambda ulaw=ulaw: goes_on() and self.audio(item_id, ulaw))  # type: ignore[misc]
            offset += count
        self.at(self.now + latest, lambda: goes_on() and self.done(item_id))
        return self.now + latest

    def _arm(self) -> None:
        due = self.playout.due
        if due is not None and not self._armed:
            self._armed = True
            when = max(due, self.now)
            self.at(max(when, math.ceil(when / self._wheel) * self._wheel), self._tick)

    def _tick(self) -> None:
        self._armed = False
        due, sent = self.playout.due, self.sent_total
        self.playout.tick(self.now)
        if due is not None and due <= self.now and self.playout.due is not None:
            assert self.playout.due > self.now or self.sent_total > sent
        self._arm()


# ---- how exact the truncation is


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
        answer = 0
        for _ in range(each):
            answer += 1
            phone.run(rng.uniform(0.03, 0.08))
            phone.say(
                f"item {answer}",
                rng.uniform(4, 9),
                pace=pace,
                delta=delta,
                stall=stall,
                goes_on=lambda n=answer: n == answer,  # type: ignore[misc]
            )
            played = phone.playback.played_at(phone.now)
            phone.run(rng.uniform(0.9, 3.8))
            answer += 1
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
    delay: tuple[float, float], model: dict[str, float], p95: float, bias: float
) -> None:
    """The clear's own delay is random: with 10-80 ms, +-31 ms (p95) is all that can be had."""
    errors = interruptions(20, 20, delay, **model)  # type: ignore[arg-type]
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
