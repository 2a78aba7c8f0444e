"""A call in virtual time whose channels are mixed, beside the truth of what was said and played."""

import base64
import heapq
import itertools
import math
import random
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from handlehome.bench.playback import Playback
from handlehome.codecs.framepool import FramePool, FrameQueue
from handlehome.codecs.mixdown import AssistantTrack, CallerTrack, Piece, mix
from handlehome.codecs.payload import decode
from handlehome.codecs.playout import Playout
from handlehome.relay.call.tape import BEHIND_SECONDS, REPORT_SECONDS

BEGAN = 1000.0
LEG = 1002.0
FRAME = 160
BATCH = 20
"""Of the caller's frames, so many come to the track at once."""


def block(number: int) -> bytes:
    """20 ms that tell which they are."""
    return bytes([number % 251 + 1]) * FRAME


class MixedCall:
    """A line with network, playback and a crystal of its own; a playout; and the two tracks.

    Args:
        delay: seconds that a message takes, each way; order kept.
        drift: by how much the line's clock is slow.
        stalls: share of the model's deltas before which it pauses.
    """

    def __init__(self, *, seed: int, delay: tuple[float, float], drift: float, stalls: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.now = LEG
        self.playback = Playback(0.0)
        self.playout = Playout(self, FrameQueue(FramePool(400), 960_000), recorded=True)
        self.caller = CallerTrack(BEGAN)
        self.assistant = AssistantTrack(BEGAN)
        self.left: list[Piece] = []
        self.right: list[Piece] = []
        self.interruptions = 0
        self._delay = delay
        self._pace = 1 + drift  # our seconds per second of the line's
        self._stalls = stalls
        self._up = self._down = 0.0  # when the newest message of each way arrives
        self._sent = 0
        self._frames = 0
        self._blocks = 0
        self._speaking = 0
        self._armed = False
        self._batch: list[tuple[float, int, int, bytes]] = []
        self._echo_at: float | None = None
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count()
        self.playout.begin(self.now)
        self._next_frame()
        self.at(self.now + REPORT_SECONDS, self._report)

    # ---- time: ours, and the line's, in which the playback lives

    def at(self, when: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._events, (when, next(self._number), what))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._events[0][0] <= until:
            when, _, what = heapq.heappop(self._events)
            self.now = max(self.now, when)
            what()
        self.now = until

    def _of_line(self, line: float) -> float:
        return LEG + line * self._pace

    def _line(self) -> float:
        return (self.now - LEG) / self._pace

    def position(self, line: float) -> float:
        """Where in the recording belongs what happened at a time of the line's."""
        # Line time: when it could have been known here at the earliest.
        return (self._of_line(line) + self._delay[0] - BEGAN) * 8000

    # ---- the line

    def media(self, payload: bytes) -> None:
        ulaw = decode(payload)
        self.assistant.sent(self._sent, ulaw)
        self._sent += len(ulaw)
        self._arrive(lambda: self.playback.append(self._line(), ulaw))

    def marked_media(self, payload: bytes, name: str) -> None:
        self.media(payload)
        self.mark(name)

    def mark(self, name: str) -> None:
        self._arrive(lambda: self.playback.mark(self._line(), name))

    def clear(self) -> None:
        self._arrive(lambda: self.playback.clear(self._line()))

    def _arrive(self, act: Callable[[], object]) -> None:
        self._down = max(self._down, self.now + self.rng.uniform(*self._delay))

        def arrive() -> None:
            act()
            self._play()

        self.at(self._down, arrive)

    def _play(self) -> None:
        for echo in self.playback.advance(self._line()):
            self._up = max(self._up, self.now + self.rng.uniform(*self._delay))
            self.at(self._up, partial(self._echo, echo.name))
        due = self.playback.next_echo_at()
        if due is not None and due != self._echo_at:
            self._echo_at = due
            self.at(self._of_line(due) + 1e-6, self._play)

    def _echo(self, name: str) -> None:
        self.playout.echo(self.now, name)

    def _next_frame(self) -> None:
        number = self._frames
        self._frames += 1
        complete = self._of_line(self._frames * 0.020)
        self.at(complete, lambda: self._send_frame(number))

    def _send_frame(self, number: int) -> None:
        self._up = max(self._up, self.now + self.rng.uniform(*self._delay))
        self.at(self._up, lambda: self._frame(number))
        self._next_frame()

    def _frame(self, number: int) -> None:
        self.playout.clock.frame(self.now, number * 20)
        self._batch.append((self.now, number + 1, number * 20, block(number)))
        if len(self._batch) == BATCH:
            self._take_batch()

    def _take_batch(self) -> None:
        if self._batch:
            self.left += self.caller.put_all(*zip(*self._batch, strict=True))
            self._batch.clear()

    # ---- the relay

    def _report(self) -> None:
        for played in self.playout.played(self.now - BEHIND_SECONDS):
            self.right += self.assistant.played(*played)
        self.at(self.now + REPORT_SECONDS, self._report)

    def _arm(self) -> None:
        due = self.playout.due
        if due is not None and not self._armed:
            self._armed = True
            self.at(math.ceil(max(due, self.now) * 200) / 200, self._tick)

    def _tick(self) -> None:
        self._armed = False
        self.playout.tick(self.now)
        self._arm()

    def answer(self, seconds: float) -> None:
        """The model speaks: deltas of all sizes, faster than the ear, now and then with a stall."""
        rng = self.rng
        self._speaking += 1
        number = self._speaking
        item = f"item{number}"
        pace = rng.uniform(1.5, 8.0)
        ulaw = b"".join(block(self._blocks + index) for index in range(round(seconds * 50)))
        self._blocks += round(seconds * 50)
        offset, latest = 0, 0.0
        while offset < len(ulaw):
            size = round(rng.uniform(0.020, 0.400) * 8000)
            due = offset / 8000 / pace + rng.uniform(0, 0.150) + 0.6 * (rng.random() < self._stalls)
            latest = max(latest, due)
            piece = ulaw[offset : offset + size]
            self.at(self.now + latest, partial(self._delta, number, item, piece))
            offset += size
        self.at(self.now + latest, partial(self._done, number, item))

    def _delta(self, number: int, item: str, ulaw: bytes) -> None:
        if number == self._speaking:
            self.playout.audio(self.now, item, base64.b64encode(ulaw), len(ulaw))
            self._arm()

    def _done(self, number: int, item: str) -> None:
        if number == self._speaking:
            self.playout.item_done(self.now, item)
            self._arm()

    def interrupt(self) -> None:
        self._speaking += 1
        self.interruptions += len(self.playout.clear(self.now)) > 0

    def end(self) -> None:
        """The leg is over."""
        self.playback.advance(self._line())
        self.playout.stop(self.now)
        for played in self.playout.played(math.inf):
            self.right += self.assistant.played(*played)
        self._take_batch()
        self.left += self.caller.end()

    # ---- what came of it

    def caller_errors(self) -> NDArray[np.float64]:
        """By how many samples each of the caller's frames stands off its place."""
        codes = np.frombuffer(b"".join(piece.audio for piece in self.left), np.uint8)
        stands = self.left[0].at + np.array([0, *(np.flatnonzero(np.diff(codes)) + 1)])
        return stands - np.array([self.position(number * 0.020) for number in range(len(stands))])

    def assistant_errors(self) -> NDArray[np.float64]:
        """By how many samples each 20 ms that were wholly played stand off; infinite: they aren't there."""
        end = round((self.now - BEGAN + 10) * 8000)
        line = bytearray(end)
        mix(line, 0, 1, 0, self.right)
        recorded = np.frombuffer(line, np.uint8)
        errors = []
        run: list[tuple[int, float, int]] = []  # code, line time of its first sample, samples
        for segment in self.playback.segments():
            codes = np.frombuffer(segment.ulaw, np.uint8)
            starts = [0, *(np.flatnonzero(np.diff(codes)) + 1)]
            for start, stop in zip(starts, [*starts[1:], len(codes)], strict=True):
                code, at, size = int(codes[start]), segment.at + start / 8000, int(stop - start)
                if run and run[-1][0] == code and abs(run[-1][1] + run[-1][2] / 8000 - at) < 0.001:
                    run[-1] = (code, run[-1][1], run[-1][2] + size)
                else:
                    run.append((code, at, size))
        for code, at, size in run:
            if size == FRAME:
                middle = round(self.position(at)) + FRAME // 2
                where = np.flatnonzero(recorded[middle - 2000 : middle + 2000] == code)
                errors.append(where.mean() - 2000 if len(where) else math.inf)
        return np.array(errors)
