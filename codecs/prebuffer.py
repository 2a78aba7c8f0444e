"""How long the start of a run of speech is held back, so that it does not run dry.

Theory of operation
-------------------

The model's audio comes in deltas, at some pace (seconds of audio per second), each more or less late. If no
delta is later than `target` against the best one, playing may start as soon as one of these holds, and won't
run dry as long as the model is no slower than the ear:

* `target` has passed since the best delta would have come, had it been the first one: its arrival minus the
  audio in front of it. Audio that comes in a rush moves this moment into the past;
* the audio in hand lasts until the next delta has come even if late. That one is expected after
  `audio / pace`, so each second in hand saves `1 - 1 / pace` of the waiting.

A fast and steady model meets the second condition with its first delta.

**Target.** As RFC 3550 does for packets, arrival times are compared with media times, here at the model's own
pace, which is measured over the last 16 deltas or so. A listener who consumes the audio at (nearly) that
pace, and starts with an item's first delta, would wait for a late one: that wait is how late it is. The
target is twice the longest wait of the last 16 items: an item shows its worst only now and then, and the
longest one that was seen is not yet the longest that there is. Audio behind by more than `STALL` has not come
late, it was stalled: no prebuffer in bounds helps, so nothing is learnt from it, and what follows counts as a
further item.

**Before that is known**, for the first 32 deltas, 150 ms of jitter and 1.5 times real time are assumed. A
faster model shows it with its first deltas: one at 8 times real time starts once 160 ms of audio and a delta
have come, which takes it 20 ms and a delta's time.

**Bounds.** 120 ms, once 100 ms of audio are in hand. With less, up to 150 ms: a start with 20 ms in hand
whose next delta comes after 163 ms (13 ms at 1.5 times real time, 150 ms of jitter) runs dry after any wait
of less than 143 ms.

Times are seconds, of the loop or of audio. No clock is read here.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["HOLD_MAX", "HOLD_SCANT", "MARGIN", "SCANT", "STALL", "TARGET_MAX", "Prebuffer"]

HOLD_MAX: Final = 0.120
"""A start is held back for so long at most,"""
SCANT: Final = 0.100
"""... unless there is less audio in hand than this:"""
HOLD_SCANT: Final = 0.150
"""then for so long."""
MARGIN: Final = 0.010
TARGET_MAX: Final = 0.150 + MARGIN
"""The target for as long as none was measured, and at most."""
STALL: Final = 0.240
"""Audio that falls behind the ear by more is not late but stalled."""

ITEMS: Final = 16
DELTAS: Final = 16
"""Memory of the pace: the newest delta counts for a 16th at least, as in RFC 3550, section 6.4.1."""
PACED: Final = 8
LEARNT: Final = 32
"""So many deltas have to be measured before the pace is believed, and before the target is."""
SAVING: Final = 1 / 3
"""1 - 1 / pace of a model at 1.5 times real time."""
SLOWER: Final = 1.05
"""The listener's pace in terms of the measured one, so that an error of the pace does not pile up."""
CAUTION: Final = 1.1
"""By how much the pace may be overestimated where audio in hand shortens the wait."""


class Prebuffer:
    """Learns how late deltas come, and says until when to hold a start back.

    To be told of each item (`item`), of each run that starts (`start`) and of each delta (`delta`), in the
    order in which they come.
    """

    __slots__ = (
        "_arrived",
        "_audio",
        "_began",
        "_best",
        "_count",
        "_late",
        "_latest",
        "_latest_of_items",
        "_offset",
        "_position",
        "_size",
        "_wait",
    )

    def __init__(self) -> None:
        self._latest_of_items: deque[float] = deque(maxlen=ITEMS)
        self._latest = 0.0  # of this item's deltas: the longest wait of a listener at the model's pace
        self._count = 0  # deltas measured
        self._wait = 0.0  # running means of the time between two deltas,
        self._audio = 0.0  # ... and of the audio that the first of them brought
        self.item()

    @property
    def target(self) -> float:
        """How late a delta is to be expected, 0..`TARGET_MAX`."""
        if self._count < LEARNT:
            return TARGET_MAX
        return min(2 * max(self._latest, *self._latest_of_items, 0.0) + MARGIN, TARGET_MAX)

    @property
    def saving(self) -> float:
        """By how much a second of audio in hand shortens the wait, 0..1 second."""
        if self._count < PACED or not self._audio:
            return SAVING
        return max(1 - CAUTION * self._wait / self._audio, 0.0)

    def item(self) -> None:
        """The next delta is the first of an item."""
        if self._count:
            self._latest_of_items.append(self._latest)
        self._latest = 0.0
        self._late = 0.0  # wait of that listener for the newest delta
        self._arrived = 0.0  # of the newest delta: when it came,
        self._size = 0.0  # ... its audio (0: there is none),
        self._position = 0.0  # ... and the item's audio up to its end
        self._best = float("inf")  # least "arrival minus the item's audio in front"
        self._began = self._offset = 0.0  # of the current run: its first delta, and the audio in front of it

    def start(self, now: float) -> None:
        """The next delta starts a run."""
        self._began = now
        self._offset = self._position

    def delta(self, now: float, audio: float) -> None:
        """Takes note of a delta of `audio` seconds. Once per delta."""
        size = self._size
        transit = now - self._position
        if size:
            wait = now - self._arrived
            if wait - size > STALL:
                self._latest_of_items.append(self._latest)
                self._latest = self._late = 0.0
                self._best = transit
            else:
                self._count = count = self._count + 1
                gain = 1 / count if count < DELTAS else 1 / DELTAS
                self._wait += (wait - self._wait) * gain
                self._audio += (size - self._audio) * gain
                late = self._late + wait - SLOWER * size * self._wait / self._audio
                if late <= 0:
                    late = 0.0
                elif late > self._latest and count > PACED:
                    self._latest = late
                self._late = late
        if transit < self._best:  # noqa: PLR1730 - min() is slower, and this runs once per delta
            self._best = transit
        self._arrived = now
        self._size = audio
        self._position += audio

    def until(self, audio: float) -> float:
        """Until when the run that has started is to be held back, with `audio` seconds of it in hand."""
        target = self.target
        return min(
            self._best + self._offset + target,
            self._began + target - self.saving * audio,
            self._began + (HOLD_SCANT if audio < SCANT else HOLD_MAX),
        )
