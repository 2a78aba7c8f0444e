"""Playout against a simulated line that knows the truth, in virtual time."""

import base64
import heapq
import itertools
import math
import random
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlehome.bench.playback import Cut, Playback
from handlehome.codecs.framepool import FramePool, FrameQueue
from handlehome.codecs.payload import decode
from handlehome.codecs.playout import (
    BYTES_PER_SECOND,
    PREBUFFER_MAX,
    PREBUFFER_START,
    SLICE_BYTES,
    Heard,
    Playout,
)

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
        stamps: Their timestamps, ms, from the time since the stream began.
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
        stamps: Callable[[int], int] = lambda ms: ms,
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
        self.sent = 0  # how much of it was handed to the line
        self.marks: list[tuple[str, int]] = []  # name, bytes handed to the line before
        self.sent_total = 0
        self.sizes: list[int] = []
        self.silenced = False  # a clear was sent, and no audio has come since
        self.cut = 0  # interruptions so far
        self.cuts: list[Cut] = []
        self.stuck_until = 0.0  # no timer runs before
        self.completed: list[Heard] = []
        self._lose = lose
        self._stamps = stamps
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
        self._play()

    def check(self) -> None:
        """What holds after every step."""
        assert len(self.given) - self.sent == len(self.queue)
        if not self.queue:
            assert self.pool.in_use == 0
            assert self.playout.due is None

    # ---- line

    def media(self, payload: bytes) -> None:
        assert not self.silenced
        ulaw = decode(payload)
        assert ulaw
        assert self.given[self.sent : self.sent + len(ulaw)] == ulaw
        self.sent += len(ulaw)
        self.sizes.append(len(ulaw))
        self.sent_total += len(ulaw)
        self._arrives(lambda: self.playback.append(self.now, ulaw))

    def marked_media(self, payload: bytes, name: str) -> None:
        self.media(payload)
        self.mark(name)

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
                self.at(self.up.arrival(self.now), partial(self.echo, echo.name))
        when = self.playback.next_echo_at()
        if when is not None and when != self._echo_at:
            self._echo_at = when
            self.at(when, self._play)

    def _frame(self) -> None:
        stamp = self._stamps(self._frames * 20)
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
        self.cut += 1
        heard = self.playout.clear(self.now)
        if heard:
            self.silenced = True
            self.given.clear()
            self.sent = 0
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
    ) -> float:
        """The model says something from now on, until interrupted; returns when its last delta will come."""
        rng = self.rng
        size, offset, latest = int(seconds * SECOND), 0, 0.0
        while offset < size:
            count = min(size - offset, max(1, int(rng.uniform(*delta) * SECOND)))
            due = offset / SECOND / pace + rng.uniform(0, jitter) + 0.5 * (rng.random() < stall)
            latest = max(latest, due)
            ulaw = rng.randbytes(count)
            self.at(self.now + latest, partial(self._unless_cut, self.cut, self.audio, item_id, ulaw))
            offset += count
        self.at(self.now + latest, partial(self._unless_cut, self.cut, self.done, item_id))
        return self.now + latest

    def _unless_cut(self, cut: int, act: Callable[..., object], *args: object) -> None:
        if cut == self.cut:
            act(*args)

    def _arm(self) -> None:
        due = self.playout.due
        if due is not None and not self._armed:
            self._armed = True
            when = max(due, self.now, self.stuck_until)
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


# ---- what is sent when


def numbered(count: int, start: int = 0) -> bytes:
    return bytes((start + n) % 251 for n in range(count))


def heard(item_id: str, heard_ms: int, sent_ms: int, *, complete: bool) -> Heard:
    """As `Heard`, without the time: compare with `timeless`."""
    return Heard(item_id, heard_ms, sent_ms, complete)


def timeless(told: tuple[Heard, ...] | list[Heard]) -> list[Heard]:
    return [Heard(h.item_id, h.heard_ms, h.sent_ms, h.complete) for h in told]


def test_audio_that_may_go_at_once_is_spliced_as_it_came() -> None:
    payloads = []

    class Sink:
        def media(self, payload: bytes) -> None:
            payloads.append(payload)

        def marked_media(self, payload: bytes, name: str) -> None:
            self.media(payload)
            self.mark(name)

        def mark(self, name: str) -> None:
            pass

        def clear(self) -> None:
            pass

    playout = Playout(Sink(), FrameQueue(FramePool(1), SECOND))
    playout.begin(0.0)
    text = base64.b64encode(numbered(700))
    assert playout.audio(1.0, "item", text, 700)
    assert payloads[0] is text


def test_a_minute_in_one_delta_never_runs_further_ahead_than_the_lead() -> None:
    phone = Phone(frames=False)
    assert phone.audio("item", numbered(60 * SECOND))
    phone.done("item")
    while phone.playout.due is not None:
        phone.run(0.01)
        assert phone.playback.queued_bytes <= SECOND
    phone.run(2.0)
    assert phone.playback.played() == numbered(60 * SECOND)
    assert not phone.playback.gaps()
    assert timeless(phone.completed) == [heard("item", 60_000, 60_000, complete=True)]


def test_a_late_tick_catches_up_and_does_not_shift_the_schedule() -> None:
    phone = Phone(frames=False, lead=3.0)
    phone.audio("item", numbered(20 * SECOND))
    phone.run(4.0)
    ahead = phone.playback.queued_bytes
    phone.stuck_until = phone.now + 2.5
    phone.run(2.4)
    assert phone.playback.queued_bytes < SECOND
    phone.run(0.2)
    assert phone.playback.queued_bytes == pytest.approx(ahead, abs=2 * SLICE_BYTES)
    phone.run(20.0)
    assert not phone.playback.gaps()


def test_a_lead_of_less_than_a_slice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.05 s is less than a slice"):
        Playout(Phone(), FrameQueue(FramePool(1), 100), lead=0.05)


@pytest.mark.parametrize("lead", [0.06, 0.1, 0.5, 10.0])
def test_any_lead_works(lead: float) -> None:
    phone = Phone(frames=False, lead=lead, wheel=0.001)
    phone.say("item", 20.0)
    phone.run(30.0)
    assert phone.playback.played_bytes == 20 * SECOND
    assert [h.complete for h in phone.completed] == [True]


def test_slices_are_multiples_of_60_ms_without_padding() -> None:
    phone = Phone(frames=False)
    phone.audio("item", numbered(5 * SECOND))
    phone.run(10.0)
    assert {size % SLICE_BYTES for size in phone.sizes[:-1]} == {0}
    assert sum(phone.sizes) == 5 * SECOND


def test_a_mark_follows_a_runs_first_piece_each_60_ms_and_an_items_end() -> None:
    phone = Phone(frames=False)
    phone.marks.clear()
    for _ in range(10):
        phone.audio("item", numbered(400))
    phone.done("item")
    assert [position for _, position in phone.marks] == [400, 1200, 2000, 2800, 3600, 4000]
    assert len({name for name, _ in phone.marks}) == 6


def test_audio_that_outgrows_the_queue_is_refused_and_nothing_of_it_kept() -> None:
    phone = Phone(frames=False, limit=2 * SECOND)
    assert phone.audio("item", numbered(2 * SECOND))
    assert not phone.audio("item", numbered(2 * SECOND))
    assert not phone.audio("other", numbered(2 * SECOND))
    phone.run(5.0)
    assert phone.playback.played() == numbered(2 * SECOND)
    assert [h.item_id for h in phone.interrupt()] == ["item"]


def test_a_refused_first_delta_leaves_nothing() -> None:
    phone = Phone(frames=False, limit=SECOND)
    assert not phone.audio("item", numbered(2 * SECOND))
    assert phone.playout.due is None
    assert phone.interrupt() == ()
    assert phone.audio("item", numbered(400))
    phone.run(1.0)
    assert phone.playback.played_bytes == 400


def test_nothing_of_an_empty_delta_is_seen() -> None:
    phone = Phone(frames=False)
    assert phone.audio("item", b"")
    phone.done("item")
    assert phone.interrupt() == ()
    assert phone.sent_total == 0


def test_a_paused_line_gets_no_audio_and_then_all_that_may_go() -> None:
    phone = Phone(frames=False)
    phone.audio("item", numbered(SECOND // 2))
    phone.playout.pause()
    phone.audio("item", numbered(SECOND, SECOND // 2))
    phone.done("item")
    phone.run(0.2)
    assert (phone.sent_total, phone.playout.due) == (SECOND // 2, None)
    phone.playout.resume(phone.now)
    phone._arm()
    phone.run(2.0)
    assert phone.playback.played() == numbered(SECOND * 3 // 2)
    assert not phone.playback.gaps()
    assert len(phone.completed) == 1


def test_a_pause_while_a_start_is_held_back_loses_nothing() -> None:
    phone = Phone(frames=False)
    phone.audio("item", numbered(160))
    phone.playout.pause()
    phone.run(0.2)
    assert (phone.sent_total, phone.playout.due) == (0, None)
    phone.playout.resume(phone.now)
    phone.run(0.2)
    assert phone.playback.played() == numbered(160)


# ---- prebuffer


def test_the_first_run_waits_for_40_ms_of_audio_and_no_longer_than_40_ms() -> None:
    phone = Phone(frames=False)
    phone.audio("item", numbered(160))
    assert phone.sent_total == 0
    phone.audio("item", numbered(160))
    assert phone.sent_total == 320
    other = Phone(frames=False)
    other.audio("item", numbered(160))
    other.run(0.036)
    assert other.sent_total == 0
    other.run(0.010)
    assert other.sent_total == 160


def test_a_short_item_starts_when_it_has_ended() -> None:
    phone = Phone(frames=False)
    phone.audio("item", numbered(160))
    phone.done("item")
    assert phone.sent_total == 160


def answers(phone: Phone, count: int, pace: float, jitter: float, delta: tuple[float, float]) -> None:
    for number in range(count):
        end = phone.say(f"item {number}", phone.rng.uniform(1, 3), pace=pace, jitter=jitter, delta=delta)
        phone.run(end - phone.now + 3.5)


@pytest.mark.parametrize(("pace", "delta"), [(1.0, (0.02, 0.02)), (1.5, (0.02, 0.4)), (8.0, (0.02, 0.4))])
def test_smooth_audio_never_runs_dry_after_the_first_answer(pace: float, delta: tuple[float, float]) -> None:
    phone = Phone(frames=False)
    answers(phone, 1, pace, 0.0, delta)
    before = phone.playout.underruns
    answers(phone, 30, pace, 0.0, delta)
    assert phone.playout.underruns == before
    assert phone.playout.prebuffer <= 0.010 + 1e-6


def test_jitter_is_learned_within_a_few_answers() -> None:
    """Deltas up to 150 ms late at 1.5 times real time: one underrun in 50 answers at most, once known."""
    phone = Phone(frames=False)
    answers(phone, 2, 1.5, 0.150, (0.02, 0.4))
    before = phone.playout.underruns
    answers(phone, 50, 1.5, 0.150, (0.02, 0.4))
    assert phone.playout.underruns - before <= 1
    assert phone.playout.prebuffer <= PREBUFFER_MAX
    answers(phone, 17, 8.0, 0.0, (0.02, 0.4))
    assert phone.playout.prebuffer == 0.0


def test_a_stall_that_no_prebuffer_covers_does_not_delay_later_answers() -> None:
    phone = Phone(frames=False)
    phone.audio("item", numbered(SECOND // 5))
    phone.run(0.7)
    phone.audio("item", numbered(SECOND // 5))
    phone.done("item")
    assert (phone.playout.underruns, phone.playout.prebuffer) == (1, PREBUFFER_START)


# ---- items and what was heard


def test_items_are_complete_in_order_and_once() -> None:
    phone = Phone(delay=NEAR)
    for number in range(5):
        phone.audio(f"item {number}", numbered(1000 * (number + 1)))
        phone.done(f"item {number}")
        phone.done(f"item {number}")
    phone.done("unknown")
    phone.run(5.0)
    assert timeless(phone.completed) == [
        heard(f"item {n}", 125 * (n + 1), 125 * (n + 1), complete=True) for n in range(5)
    ]
    assert not phone.playout.outstanding
    assert phone.interrupt() == ()


def test_an_item_that_ends_after_it_was_heard_is_complete_at_once() -> None:
    phone = Phone()
    phone.audio("item", numbered(800))
    phone.run(1.0)
    assert phone.completed == []
    phone.done("item")
    assert timeless(phone.completed) == [heard("item", 100, 100, complete=True)]


def test_an_item_that_never_ends_does_not_keep_the_next_one_from_being_complete() -> None:
    phone = Phone()
    phone.audio("broken", numbered(800))
    phone.audio("good", numbered(800))
    phone.done("good")
    phone.run(1.0)
    assert timeless(phone.completed) == [heard("good", 100, 100, complete=True)]
    assert timeless(phone.interrupt()) == [heard("broken", 100, 100, complete=False)]


def test_interleaved_items_are_added_up() -> None:
    phone = Phone()
    for _ in range(3):
        phone.audio("one", numbered(800))
        phone.audio("two", numbered(1600))
    phone.done("one")
    phone.done("two")
    phone.run(2.0)
    assert timeless(phone.completed) == [
        heard("one", 300, 300, complete=True),
        heard("two", 600, 600, complete=True),
    ]


def test_audio_behind_an_items_end_still_belongs_to_it() -> None:
    phone = Phone()
    phone.audio("item", numbered(8000))
    phone.done("item")
    phone.audio("item", numbered(800))
    phone.run(2.0)
    assert timeless(phone.completed) == [heard("item", 1100, 1100, complete=True)]
    phone.audio("item", numbered(800))
    phone.run(2.0)
    assert phone.playback.played_bytes == 9600
    assert timeless(phone.interrupt()) == [heard("item", 100, 100, complete=False)]


def test_when_the_first_sample_is_audible() -> None:
    """Known before it is, and exactly afterwards; an item behind another one waits for its end."""
    phone = Phone()
    phone.run(1.0)
    start = phone.now
    phone.audio("one", numbered(4000))
    phone.audio("two", numbered(4000))
    one, two = phone.playout.first_heard("one"), phone.playout.first_heard("two")
    assert one == pytest.approx(start, abs=0.011)
    assert two == pytest.approx(start + 0.5, abs=0.011)
    assert phone.playout.first_heard("three") is None
    phone.run(0.8)
    assert phone.playout.first_heard("two") == pytest.approx(start + 0.5, abs=0.011)
    since = phone.interrupt()[0].since
    assert since is not None
    assert since == pytest.approx(start, abs=0.011)


# ---- clear


def test_clear_with_nothing_playing_sends_nothing() -> None:
    phone = Phone(frames=False)
    phone.run(0.1)
    marks = len(phone.marks)
    assert phone.interrupt() == ()
    phone.run(0.1)
    assert (phone.cuts, len(phone.marks)) == ([], marks)


def test_clear_of_audio_that_was_never_sent() -> None:
    phone = Phone(frames=False)
    phone.audio("item", numbered(160))
    assert timeless(phone.interrupt()) == [heard("item", 0, 0, complete=False)]
    phone.run(1.0)
    assert phone.playback.played_bytes == 0
    assert phone.playout.due is None


def test_clear_in_a_stall_tells_that_all_was_heard_but_not_the_end() -> None:
    phone = Phone()
    phone.audio("item", numbered(800))
    phone.run(1.0)
    assert not phone.playout.outstanding
    assert timeless(phone.interrupt()) == [heard("item", 100, 100, complete=False)]
    phone.run(0.1)
    assert len(phone.cuts) == 1


def test_the_second_of_two_clears_has_nothing_to_do() -> None:
    phone = Phone(frames=False, delay=NEAR)
    phone.audio("item", numbered(5 * SECOND))
    phone.run(1.0)
    assert len(phone.interrupt()) == 1
    assert phone.interrupt() == ()
    phone.run(1.0)
    assert len(phone.cuts) == 1


def test_audio_right_behind_a_clear_is_played_from_its_beginning() -> None:
    phone = Phone(delay=NEAR)
    phone.audio("old", numbered(5 * SECOND))
    phone.run(1.0)
    phone.interrupt()
    played = phone.playback.played_at(phone.now)
    phone.audio("new", numbered(SECOND, 7))
    phone.done("new")
    phone.run(2.0)
    cut = phone.cuts[0]
    assert cut.played_bytes >= played
    assert phone.playback.played()[cut.played_bytes :] == numbered(SECOND, 7)
    assert timeless(phone.completed) == [heard("new", 1000, 1000, complete=True)]


def test_marks_that_clear_returns_prove_nothing() -> None:
    phone = Phone(delay=NEAR)
    phone.audio("old", numbered(5 * SECOND))
    phone.done("old")
    phone.run(0.5)
    stale = [name for name, _ in phone.marks]
    phone.interrupt()
    phone.audio("new", numbered(5 * SECOND))
    phone.done("new")
    for name in stale:
        assert phone.playout.echo(phone.now, name) == ()
    phone.run(1.0)
    assert phone.completed == []
    [told] = phone.interrupt()
    assert told.item_id == "new"
    assert told.heard_ms == pytest.approx(1000, abs=100)


def test_foreign_and_repeated_marks_are_ignored() -> None:
    phone = Phone()
    phone.audio("item", numbered(SECOND))
    phone.done("item")
    for name in ("", "mark", "999", "-1", "1.0", "é"):
        assert phone.playout.echo(phone.now, name) == ()
    phone.run(2.0)
    assert len(phone.completed) == 1
    for name, _ in phone.marks:
        assert phone.playout.echo(phone.now, name) == ()


def test_the_end_of_the_line_says_what_was_heard_and_sends_nothing() -> None:
    phone = Phone()
    phone.audio("item", numbered(5 * SECOND))
    phone.run(1.0)
    sent, marks = phone.sent_total, len(phone.marks)
    [told] = phone.playout.stop(phone.now)
    assert told.heard_ms == pytest.approx(1000, abs=15)
    assert (phone.sent_total, len(phone.marks), phone.pool.in_use, phone.playout.due) == (
        sent,
        marks,
        0,
        None,
    )
    assert phone.playout.stop(phone.now) == ()


def test_an_hour_without_a_mark_is_counted_by_the_clock_and_bounded() -> None:
    phone = Phone(lose=1.0, frames=False)
    for number in range(360):
        phone.audio(f"item {number}", bytes(9 * SECOND))
        phone.done(f"item {number}")
        phone.run(10.0)
        assert len(phone.playout._marks) < 400
        assert len(phone.playout._ledger._pieces) < 400
    assert len(phone.completed) >= 355


def test_a_line_that_falls_silent_for_seconds_and_then_bursts() -> None:
    """What comes late comes in order, so that the time of each mark is still known."""
    phone = Phone(delay=NEAR)
    phone.audio("item", numbered(30 * SECOND))
    phone.run(5.0)
    phone.up.latest = phone.now + 3.0
    phone.run(3.5)
    [told] = phone.interrupt()
    phone.run(0.5)
    assert told.heard_ms == pytest.approx(phone.cuts[0].played_bytes / 8, abs=75)


@pytest.mark.parametrize("jump_ms", [-3_600_000, -1000, 1000, 3_600_000])
def test_timestamps_that_jump_do_no_lasting_harm(jump_ms: int) -> None:
    phone = Phone(delay=NEAR, stamps=lambda ms: ms + 10_000_000 + (jump_ms if ms > 5000 else 0))
    phone.run(2.0)
    phone.audio("item", numbered(30 * SECOND))
    phone.run(6.0)
    [told] = phone.interrupt()
    phone.run(0.5)
    assert told.heard_ms == pytest.approx(phone.cuts[0].played_bytes / 8, abs=75)


# ---- properties

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("audio"), st.integers(0, 3), st.integers(0, 5000)),
        st.tuples(st.just("audio"), st.just(0), st.sampled_from([1, 159, 160, 480, 8000, 60_000])),
        st.tuples(st.just("done"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("run"), st.integers(0, 1500), st.just(0)),
        st.tuples(st.just("clear"), st.just(0), st.just(0)),
        st.tuples(st.just("pause"), st.just(0), st.just(0)),
        st.tuples(st.just("resume"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=250, deadline=None)
@given(
    steps=STEPS,
    seed=st.integers(0, 1000),
    delay=st.sampled_from([NO_DELAY, NEAR, FAR]),
    lead=st.sampled_from([0.06, 0.3, 1.0, 4.0]),
    limit=st.sampled_from([10_000, 120 * SECOND]),
    wheel=st.sampled_from([0.001, 0.005, 0.1, 3.0]),
)
def test_no_byte_is_lost_repeated_or_too_early(
    *,
    steps: list[tuple[str, int, int]],
    seed: int,
    delay: tuple[float, float],
    lead: float,
    limit: int,
    wheel: float,
) -> None:
    """Whatever comes in whichever order; `Phone.check`, `media` and `_tick` hold the rest after each step."""
    phone = Phone(seed=seed, delay=delay, lead=lead, limit=limit, wheel=wheel)
    received: dict[str, int] = {}
    ended: list[str] = []
    generation = position = 0
    for what, number, size in steps:
        item_id = f"{generation}.{number}"
        if what == "audio" and item_id not in ended:
            if phone.audio(item_id, numbered(size, position)) and size:
                received[item_id] = received.get(item_id, 0) + size
                position += size
        elif what == "done":
            phone.done(item_id)
            if item_id in received and item_id not in ended:
                ended.append(item_id)
        elif what == "run":
            phone.run(number / 1000)
        elif what == "clear":
            complete = {h.item_id for h in phone.completed}
            told = phone.interrupt()
            assert {h.item_id for h in told} == set(received) - complete
            for item in told:
                assert 0 <= item.heard_ms <= item.sent_ms <= received[item.item_id] / 8
            generation += 1
            received.clear()
            ended.clear()
        elif what == "pause":
            phone.playout.pause()
        elif what == "resume":
            phone.playout.resume(phone.now)
            phone._arm()
        under_way = delay[1] + wheel
        ahead = phone.sent_total - phone.playback.played_bytes - phone.playback.dropped_bytes
        assert generation or ahead <= (lead + under_way) * SECOND + SLICE_BYTES
    phone.playout.resume(phone.now)
    phone._arm()
    phone.run(len(phone.given) / SECOND * (1 + wheel / lead) + 2 * wheel + 3.0)
    assert phone.sent == len(phone.given)
    assert phone.pool.in_use == 0
    assert phone.playout.due is None
    assert not phone.playout.outstanding or set(received) > set(ended)
    complete_now = [h for h in phone.completed if h.item_id in received]
    assert sorted(h.item_id for h in complete_now) == sorted(ended)
    for item in complete_now:
        assert item.complete
        assert item.heard_ms == item.sent_ms == received[item.item_id] * 1000 // SECOND


# ---- cost


def test_the_cost_of_a_delta(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, and far below the cost of a delta's message."""

    class Sink:
        name = ""

        def media(self, payload: bytes) -> None:
            pass

        def marked_media(self, payload: bytes, name: str) -> None:
            self.media(payload)
            self.mark(name)

        def mark(self, name: str) -> None:
            self.name = name

        def clear(self) -> None:
            pass

    sink = Sink()
    playout = Playout(sink, FrameQueue(FramePool(1), SECOND))
    playout.begin(0.0)
    payload = base64.b64encode(bytes(160))
    now = itertools.count(1.0, 0.0199)

    def run() -> None:
        name = ""
        for _ in range(500):
            at = next(now)
            playout.audio(at, "item", payload, 160)
            if sink.name != name:
                name = sink.name
                playout.echo(at, name)

    cost = min(timeit.repeat(run, number=1, repeat=9)) / 500 * 1e6
    with capsys.disabled():
        print(f"\nplayout: {cost:.2f} us for 20 ms of audio, marks and echoes included")
    assert cost < 30
