"""What the far end's clock says, learned from the messages that come from there.

Twilio plays our audio at the far end of two delays that we cannot see: ours to the line, and the
line's back to us. Three facts can be observed:

* inbound media carries the line's own timestamp, 50 times a second and without a pause, so the smallest
  difference "arrival minus timestamp" of a while is the line's clock plus the shortest way back;
* messages keep their order, so whatever arrives behind the frame stamped `ts` happened at the line
  within the 20 ms after `ts`, however late it arrived;
* a mark that finds the playback buffer empty is echoed at once, and so is one that `clear` takes out
  of it: the echo tells how long a message of ours takes to act there.

All results are in *line time*: the loop time at which an event at the line could have been known here
at the earliest. In that frame a message sent at `t` acts at `t + reach`, and the unknown shortest way
back cancels out. No clock is read here; `now` is an argument, in seconds.
"""

from __future__ import annotations

from typing import Final

FRAME_SECONDS: Final = 0.020

WINDOW_SECONDS: Final = 30.0
"""Half of the time over which the smallest difference is kept. Frames that met hardly any delay are rare
where delays vary by hundreds of ms, so short windows are noisy; at 200 ppm a clock drifts 12 ms in 60 s."""

REACH_SAMPLES: Final = 16
"""The mean's memory: the newest sample counts for a 16th at least, so that it follows the network."""

REACH_MAX_SECONDS: Final = 2.0


class LineClock:
    """Estimates when something happened at the line, and when something sent now will act there.

    Attributes:
        reach: Seconds from sending a message to its acting at the line, in line time: a running mean;
            0.0 as long as nothing is known.
        samples: How many times that was measured.
    """

    __slots__ = ("_newest", "_offset", "_stamp", "_turn_at", "reach", "samples")

    def __init__(self) -> None:
        self.reach = 0.0
        self.samples = 0
        self._stamp = float("inf")  # of the newest frame, seconds; infinite before the first one
        self._offset = 0.0  # smallest "arrival minus stamp" of this window and the one before
        self._newest = 0.0  # ... of this window
        self._turn_at = 0.0  # when the next window begins

    def frame(self, now: float, timestamp_ms: int) -> None:
        """Takes note of an inbound frame that carries the line's `timestamp_ms`. Once per frame."""
        stamp = timestamp_ms * 0.001
        offset = now - stamp
        if offset < self._newest:
            self._newest = offset
            if offset < self._offset:  # noqa: PLR1730 - min() is slower, and this runs once per frame
                self._offset = offset
        if stamp < self._stamp:
            # The first frame, or the line's clock was set back.
            self._offset = self._newest = offset
            self._turn_at = now + WINDOW_SECONDS
        elif now >= self._turn_at:
            self._offset = self._newest
            self._newest = offset
            self._turn_at = now + WINDOW_SECONDS
        self._stamp = stamp

    def event(self, now: float) -> tuple[float, float]:
        """The line times between which something happened whose message arrived at `now`."""
        earliest = self._offset + self._stamp
        latest = earliest + FRAME_SECONDS
        if latest <= now:
            return earliest, latest
        return min(earliest, now), now

    def acted(self, sent: float, at: float) -> None:
        """Takes note that a message sent at `sent` acted at line time `at`."""
        self.samples += 1
        sample = min(max(at - sent, 0.0), REACH_MAX_SECONDS)
        self.reach += (sample - self.reach) / min(self.samples, REACH_SAMPLES)
