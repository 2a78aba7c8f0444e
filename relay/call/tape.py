"""One leg's audio on its way to the recorder: taps that cost the call next to nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from handlehome.codecs.played import Played
from handlehome.codecs.playout import Line
from handlehome.relay.recording import Recording
from handlehome.relay.wheel import Timer, TimerWheel

REPORT_SECONDS = 0.1
"""How often the playout is asked what was played."""

BEHIND_SECONDS = 0.8
"""Up to how long ago. What was heard is on disk within a second: 0.8, and 0.1 until the next report
(`REPORT_SECONDS`), and 0.1 until the thread comes round (`recording.CYCLE_SECONDS`). A mark behind the
longest usual delta (400 ms) is back by then, from a line 400 ms away or nearer.
"""

_PAD = ord("=")


class Tape:
    """What is recorded of one leg.

    Args:
        recording: the call's.
        wheel: shared timers.
        clock: loop time, seconds.

    Attributes:
        both: both sides are recorded.
        frame: takes the caller's frames (loop time, number, line's timestamp, base64 text); once per frame.
    """

    __slots__ = ("_clock", "_played", "_recording", "_timer", "_wheel", "both", "frame")

    def __init__(self, recording: Recording, wheel: TimerWheel, clock: Callable[[], float]) -> None:
        self.both = recording.both
        self.frame = recording.frame
        self._recording = recording
        self._wheel = wheel
        self._clock = clock
        self._played: Callable[[float], Iterable[Played]] | None = None
        self._timer: Timer | None = None
        recording.leg_started()

    def over(self, line: Line) -> Line:
        """The line as the playout shall see it: what is sent there is recorded, if both sides are."""
        return _TappedLine(line, self._recording) if self.both else line

    def start(self, played: Callable[[float], Iterable[Played]]) -> None:
        """Asks `played` for what was heard, from now on; see `Playout.played`."""
        self._played = played
        self._timer = self._wheel.at(self._clock() + REPORT_SECONDS, self._tick)

    def end(self) -> None:
        """The leg is over; its playout has been stopped."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._report(math.inf)
        self._played = None
        self._recording.leg_ended()

    def _tick(self) -> None:
        now = self._clock()
        self._report(now - BEHIND_SECONDS)
        self._timer = self._wheel.at(now + REPORT_SECONDS, self._tick)

    def _report(self, until: float) -> None:
        if self._played is not None:
            played = self._played(until)
            if played:
                self._recording.played(played)


class _TappedLine:
    """A line, and an ear on it."""

    __slots__ = ("_keep", "_marked_media", "_media", "_sent", "clear", "mark")

    def __init__(self, line: Line, recording: Recording) -> None:
        self.mark = line.mark
        self.clear = line.clear
        self._media = line.media
        self._marked_media = line.marked_media
        self._keep = recording.sent
        self._sent = 0

    def media(self, payload: bytes) -> None:
        self._media(payload)
        self._note(payload)

    def marked_media(self, payload: bytes, name: str) -> None:
        self._marked_media(payload, name)
        self._note(payload)

    def _note(self, payload: bytes) -> None:
        self._keep(self._sent, payload)
        # Padded base64, checked where it came in: four characters are three bytes.
        self._sent += len(payload) * 3 // 4 - payload[-2:].count(_PAD)
