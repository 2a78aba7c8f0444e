"""What the far end's clock says, learned from the messages that come from there.

Twilio plays our audio at the far end of two delays that we cannot see: ours to the line, and the
line's back to us. Three facts can be observed:

* inbound media carries the line's own timestamp, 50 times a second, so the smallest difference
  "arrival minus timestamp" over the last seconds is the line's clock plus the shortest way back;
* messages keep their order, so whatever arrives behind the frame stamped `ts` happened at the line
  within the 20 ms after `ts`, however late it arrived;
* a mark that finds the playback buffer empty is echoed at once, so its round trip tells how long a
  message of ours takes to act there.

All results are in *line time*: the loop time at which an event at the line could have been known here
at the earliest. In that frame a message sent at `t` acts at `t + reach`, and the unknown shortest way
back cancels out. No clock is read here; `now` is an argument, in seconds.
"""

from __future__ import annotations

from collections import deque

FRAME_SECONDS = 0.020
WINDOW_SECONDS = 10.0
"""Half of the time over which the clock offset's minimum is kept; a drifting clock is followed."""

REACH_SAMPLES = 16
REACH_MAX_SECONDS = 2.0


class LineClock:
    """Estimates when something happened at the line, and when something sent now will act there."""

    __slots__ = (
        "_jitter",
        "_next_window",
        "_offset",
        "_offset_before",
        "_offset_window",
        "_reaches",
        "_stamp",
        "last_frame",
        "reach",
    )

    def __init__(self) -> None:
        self._offset: float | None = None
        self._offset_window = 0.0
        self._offset_before = 0.0
        self._next_window = 0.0
        self._stamp = 0.0
        self._jitter = 0.0
        self._reaches: deque[float] = deque(maxlen=REACH_SAMPLES)
        self.reach = 0.0
        """Seconds from sending a message to its acting at the line, in line time: mean of samples."""
        self.last_frame: float | None = None
        """Loop time of the newest inbound frame."""

    def frame(self, now: float, timestamp_ms: int) -> None:
        """Takes note of an inbound frame that carries the line's `timestamp_ms`."""
        self.last_frame = now
        self._stamp = stamp = timestamp_ms * 0.001
        offset = now - stamp
        known = self._offset
        if known is None:
            self._offset = self._offset_window = self._offset_before = offset
            self._next_window = now + WINDOW_SECONDS
            return
        if offset < known:
            self._offset = known = offset
        self._offset_window = min(self._offset_window, offset)
        if now >= self._next_window:
            self._offset = min(self._offset_before, self._offset_window)
            self._offset_before = self._offset_window
            self._offset_window = offset
            self._next_window = now + WINDOW_SECONDS
        if not self._reaches:
            # Until a round trip is known, the way there is taken to be as long as the way back varies.
            self._jitter += (offset - known - self._jitter) * 0.1
            self.reach = self._jitter

    def event(self, now: float) -> float:
        """The line time of something whose message arrived at `now`."""
        if self._offset is None:
            return now
        # On average it happened in the middle of the 20 ms between two frames.
        return min(now, self._offset + self._stamp + FRAME_SECONDS / 2)

    def acted(self, sent: float, at: float) -> None:
        """Takes note that a message sent at `sent` acted at line time `at`."""
        self._reaches.append(min(max(at - sent, 0.0), REACH_MAX_SECONDS))
        self.reach = sum(self._reaches) / len(self._reaches)
