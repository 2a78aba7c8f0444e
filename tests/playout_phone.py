"""A playout, its simulated line that knows the truth, and the network between them, in virtual time."""

import base64
import heapq
import itertools
import math
import random
from collections.abc import Callable
from functools import partial

from handlehome.bench.playback import Cut, Playback
from handlehome.codecs.framepool import FramePool, FrameQueue
from handlehome.codecs.payload import decode
from handlehome.codecs.playout import BYTES_PER_SECOND, Heard, Playout

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
        recorded: Of the playout.
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
        recorded: bool = False,
    ) -> None:
        rng = random.Random(str(seed))
        self.rng = rng
        self.now = self.began = 1000.0
        self.up = Way(rng, delay)
        self.down = Way(rng, delay)
        self.playback = Playback(self.now)
        self.pool = FramePool(400)
        self.queue = FrameQueue(self.pool, limit)
        self.playout = Playout(self, self.queue, lead=lead, recorded=recorded)
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
        self.period = 0.020 * (1 + drift)
        self._frames = 0
        self._armed = math.inf  # what the timer was set for
        self._echo_at: float | None = None
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count()
        if frames:
            self.at(self.now + self.period, self._frame)
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
        self.at(self.began + (self._frames + 1) * self.period, self._frame)

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
        if due is not None and due < self._armed:
            self._armed = due
            when = max(due, self.now, self.stuck_until)
            self.at(max(when, math.ceil(when / self._wheel) * self._wheel), partial(self._tick, due))

    def _tick(self, armed: float) -> None:
        if armed != self._armed:  # another timer was set, for an earlier time
            return
        self._armed = math.inf
        due, sent = self.playout.due, self.sent_total
        self.playout.tick(self.now)
        if due is not None and due <= self.now and self.playout.due is not None:
            assert self.playout.due > self.now or self.sent_total > sent
        self._arm()


def numbered(count: int, start: int = 0) -> bytes:
    return bytes((start + n) % 251 for n in range(count))


def heard(item_id: str, heard_ms: int, sent_ms: int, *, complete: bool) -> Heard:
    """As `Heard`, without the time: compare with `timeless`."""
    return Heard(item_id, heard_ms, sent_ms, complete)


def timeless(told: tuple[Heard, ...] | list[Heard]) -> list[Heard]:
    return [Heard(h.item_id, h.heard_ms, h.sent_ms, h.complete) for h in told]
