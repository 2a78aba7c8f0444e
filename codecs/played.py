"""When the line played what, for who wants to write it down.

Theory of operation. What was sent to the line is one stream of bytes (see `ledger`). The ledger tells, as it
learns of it, that the bytes from here to there were played, and within which span of line time. Bytes played
without a gap are a *stretch*: all that is known of it tells the same thing, when it began. That
gets more exact with every mark, until the stretch is read (`read`); from then on it goes on where its last
reading ended, because what was read can't be corrected. Only when it has come to lie more than `TOLERANCE`
later is a gap shown.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["STRETCHES", "TOLERANCE", "Played", "PlayedLog"]

BYTES_PER_SECOND: Final = 8000
TOLERANCE: Final = 0.010
"""Seconds that a stretch may be off before its later part is moved: half of what one mark tells."""
STRETCHES: Final = 1024
"""Stretches kept for a reader that doesn't come, an hour of short answers; then the oldest are forgotten."""


class Played(NamedTuple):
    """Bytes that the line played, one after the other.

    Attributes:
        at: line time at which the first of them became audible, seconds.
        start: position of the first one in the stream of all bytes that were ever sent to the line.
        size: bytes.
    """

    at: float
    start: int
    size: int


@dataclass(slots=True)
class _Stretch:
    start: int
    end: int
    earliest: float
    """Its first byte was audible at this time or later, and no later than at `latest`."""
    latest: float


class PlayedLog:
    """Collects what was played until it is read."""

    __slots__ = ("_end", "_limit", "_read", "_stretches", "_until", "_whole")

    def __init__(self) -> None:
        self._stretches: deque[_Stretch] = deque(maxlen=STRETCHES)
        self._whole = True  # no more of the last stretch will come
        self._limit = 0  # up to where the last stretch may have been played, if its cut is still uncertain
        self._read = 0  # position up to which all was read or skipped
        self._end = -math.inf  # line time at which what was read last had been played
        self._until = -math.inf  # of the last reading

    def add(self, start: int, end: int, earliest: float, latest: float, *, joined: bool) -> None:
        """Takes note that the bytes from `start` to `end` were played.

        Args:
            start: position of the first of them.
            end: position behind the last one.
            earliest: `end` was reached at this line time or later,
            latest: ... and no later than that.
            joined: as far as is known there was no gap between these and what was added before.
        """
        if joined and not self._whole:
            stretch = self._stretches[-1]
            stretch.end = end
        else:
            stretch = _Stretch(start, end, 0.0, 0.0)
            self._stretches.append(stretch)
            self._whole = False
        played = (end - stretch.start) / BYTES_PER_SECOND
        stretch.earliest = earliest - played
        stretch.latest = latest - played

    def cut(self, at: float, limit: int) -> None:
        """What is added from now on does not continue what was added so far.

        Args:
            at: line time at which that was cut off, to the best knowledge.
            limit: position up to which it may have been played after all, if it was cut later.
        """
        self._whole = True
        self._limit = 0
        if self._stretches:
            stretch = self._stretches[-1]
            played = (stretch.end - stretch.start) / BYTES_PER_SECOND
            # Did the line fall silent before?
            if at - (stretch.earliest + stretch.latest) / 2 - played < 2 / BYTES_PER_SECOND:
                self._limit = limit

    def cut_at(self, at: float) -> None:
        """The last cut is now known to have been at line time `at`."""
        if self._whole and self._limit:
            stretch = self._stretches[-1]
            end = stretch.start + int((at - (stretch.earliest + stretch.latest) / 2) * BYTES_PER_SECOND)
            stretch.end = min(max(end, stretch.start, self._read), self._limit)
        self._limit = 0

    def read(self, until: float, ahead: Iterable[tuple[float, int, int]]) -> list[Played]:
        """What was played up to line time `until`, and was not read before.

        Args:
            until: line time, seconds.
            ahead: what is expected to be played behind all that was added: line time, position, bytes.
        """
        played: list[Played] = []
        stretches = self._stretches
        for stretch in stretches:
            at = (stretch.earliest + stretch.latest) / 2
            if not self._tell(played, until, at, stretch.start, stretch.end):
                break
        else:
            for at, start, size in ahead:
                if not self._tell(played, until, at, start, start + size):
                    break
        done = self._whole and not self._limit
        while stretches and stretches[0].end <= self._read and (done or len(stretches) > 1):
            stretches.popleft()
        if math.isfinite(until):
            self._until = max(self._until, until)
        return played

    def _tell(self, played: list[Played], until: float, at: float, start: int, end: int) -> bool:
        """Adds what is due of a stretch to `played`; False when some of it is not due yet."""
        behind = self._read - start
        if behind > 0:
            at += behind / BYTES_PER_SECOND
            start = self._read
        if start >= end:
            return True
        silent = self._end < self._until - 2 / BYTES_PER_SECOND  # after what was read, as far as was told
        seamless = at <= self._end + TOLERANCE and not silent
        at = self._end if seamless else max(at, self._end, self._until)
        # Rounded before it is cut: a whole number of bytes must not lose one to the floats.
        due = min(until - at, (end - start) / BYTES_PER_SECOND)
        size = int(round(due * BYTES_PER_SECOND, 3))
        if size <= 0:
            return False
        if played and at == self._end and start == self._read:
            last = played[-1]
            played[-1] = Played(last.at, last.start, last.size + size)
        else:
            played.append(Played(at, start, size))
        self._read = start + size
        self._end = at + size / BYTES_PER_SECOND
        return self._read == end
