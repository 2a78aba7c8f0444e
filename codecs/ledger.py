"""What went to the line of which item, and how much of it was played.

Theory of operation. The line plays one buffer, in order, so its audio is one stream of bytes and what was
played is a position in it. The ledger keeps the stream's *pieces* (when sent, how much, of which item) from
the last proven position on. A mark that comes back proves that its position was reached within a span of
line time, 20 ms wide (see `lineclock`). As long as the buffer has not run dry, the marks of a stretch all
tell the same thing, when the stretch began: the spans, shifted to a common position, are intersected.
Where they have no moment in common there was a gap, and only the newest counts.

What was played at some moment is the proven position plus a replay of the pieces behind it: a piece starts
when the one before it ends, but not before it reached the line. So an answer that came too slowly and left
gaps is accounted for as exactly as one that came in a burst.

Who wants to know what was played when (a recorder) gives the ledger a log; see `played`.

Positions are bytes of the whole stream; times are seconds of line time, but `sent`, which is loop time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from handlehome.codecs.played import PlayedLog

BYTES_PER_SECOND: Final = 8000
"""Mu-law, 8 kHz, mono."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How much of an item was played, in ms of its audio.

    Attributes:
        item_id: conversation item.
        heard_ms: what the line had played; never more than `sent_ms`. Rounded down.
        sent_ms: what was sent to the line. Rounded down.
        complete: everything that came of the item was played, and its end is known.
        since: line time at which its first sample was audible; None: nothing was.
        received_ms: what came of it from the model: `sent_ms`, and what waits or was dropped. Rounded down.
        cleared_ms: what the line took back of `sent_ms`, unplayed: `sent_ms - heard_ms` after a clear.
    """

    item_id: str
    heard_ms: int
    sent_ms: int
    complete: bool
    since: float | None = None
    received_ms: int = 0
    cleared_ms: int = 0


@dataclass(slots=True)
class Item:
    """One item's bytes on their way: received from the model, sent to the line, played by it.

    Attributes:
        ended: no more of it will come.
    """

    item_id: str
    received: int = 0
    sent: int = 0
    played: int = 0
    ended: bool = False
    first_heard: float | None = None

    def heard(self, ahead: int = 0, since: float | None = None, *, cleared: bool = False) -> Heard:
        """What is known of it now.

        Args:
            ahead: bytes played by the clock, behind those that are proven.
            since: when the first of these was audible.
            cleared: the line has dropped what it had not played.
        """
        played = self.played + ahead
        heard_ms = played * 1000 // BYTES_PER_SECOND
        sent_ms = self.sent * 1000 // BYTES_PER_SECOND
        return Heard(
            self.item_id,
            heard_ms,
            sent_ms,
            self.ended and played >= self.received,
            since if self.first_heard is None else self.first_heard,
            self.received * 1000 // BYTES_PER_SECOND,
            sent_ms - heard_ms if cleared else 0,
        )


@dataclass(slots=True)
class Piece:
    """Audio of one item that was sent without a gap, between two marks at most."""

    sent: float
    size: int
    item: Item


class Ledger:
    """The stream of one line.

    Args:
        log: gets to know what was played when; None: nobody wants to.

    Attributes:
        items: those not known to be heard to their end, in the order of their first audio.
        sent: bytes sent so far, all in all.
        proven: the part of them that is known to be played (or was cleared).
    """

    __slots__ = ("_earliest", "_latest", "_log", "_pieces", "items", "proven", "sent")

    def __init__(self, log: PlayedLog | None = None) -> None:
        self._log = log
        self.items: deque[Item] = deque()
        self.sent = 0
        self.proven = 0
        self._earliest = 0.0  # when `proven` was reached: between these two
        self._latest = 0.0
        self._pieces: deque[Piece] = deque()  # behind `proven`

    @property
    def open(self) -> bool:
        """Whether anything that was sent is not proven as played."""
        return self.proven < self.sent

    def find(self, item_id: str) -> Item | None:
        """The item of that name, if it is among `items`."""
        for item in reversed(self.items):
            if item.item_id == item_id:
                return item
        return None

    def add(self, now: float, item: Item, size: int, joined: bool) -> None:
        """Takes note of `size` bytes sent.

        Args:
            now: loop time.
            item: whose audio it is.
            size: more than 0.
            joined: no mark and no gap lies between this and what was sent before.
        """
        pieces = self._pieces
        if joined and pieces and pieces[-1].item is item:
            pieces[-1].size += size
        else:
            pieces.append(Piece(now, size, item))
        item.sent += size
        self.sent += size

    def reached(self, position: int, earliest: float, latest: float, reach: float) -> None:
        """Takes a proof: `position` was reached between two line times."""
        shift = (position - self.proven) / BYTES_PER_SECOND
        if shift < 0:
            return
        low, high = self._earliest + shift, self._latest + shift
        gap = earliest > high
        if not gap and low <= latest:
            earliest, latest = max(earliest, low), min(latest, high)
        if self._log is not None and shift:
            start = self._gap(position, reach) if gap else self.proven
            if start > self.proven:
                at = (self._earliest + self._latest) / 2 + (start - self.proven) / BYTES_PER_SECOND
                self._log.add(self.proven, start, at, at, joined=True)
            self._log.add(start, position, earliest, latest, joined=not gap)
        self._settle(position, earliest, latest)

    def position(self, at: float, reach: float) -> int:
        """Bytes of the stream that the line has played at line time `at`."""
        position = self.proven
        for begins, piece in self._replay(reach):
            size = _played(at - begins, piece.size)
            if not size:
                break
            position += size
        return position

    def ahead(self, reach: float) -> Iterator[tuple[float, int, int]]:
        """What is not proven: when it starts to play, position and size of each piece."""
        position = self.proven
        for begins, piece in self._replay(reach):
            yield begins, position, piece.size
            position += piece.size

    def heard(self, at: float, reach: float) -> tuple[Heard, ...]:
        """What of each of `items` the line will have played at line time `at`. Changes nothing."""
        ahead: dict[str, tuple[int, float | None]] = {}  # bytes behind `proven`, and since when
        for begins, piece in self._replay(reach):
            size = _played(at - begins, piece.size)
            if not size:
                break
            played, since = ahead.get(piece.item.item_id, (0, begins))
            ahead[piece.item.item_id] = played + size, since
        return tuple(item.heard(*ahead.get(item.item_id, (0, None))) for item in self.items)

    def settle(self, at: float, reach: float) -> None:
        """Takes for proven what the replay says was played at line time `at`."""
        position = self.proven
        ended = (self._earliest + self._latest) / 2
        for begins, piece in self._replay(reach):
            size = _played(at - begins, piece.size)
            if not size:
                break
            if piece.item.first_heard is None:
                piece.item.first_heard = begins
            joined = begins == ended
            ended = begins + size / BYTES_PER_SECOND
            if self._log is not None:
                self._log.add(position, position + size, ended, ended, joined=joined)
            position += size
        at = max(at, self._latest)  # a proof may be newer than what is settled without one
        self._settle(position, at, at)

    def completed(self) -> tuple[Heard, ...]:
        """Takes the items that were heard to their end out of `items`."""
        for item in self.items:
            if item.ended and item.played >= item.received:
                break
        else:
            return ()
        done = tuple(heard for item in self.items if (heard := item.heard()).complete)
        self.items = deque(item for item in self.items if not item.heard().complete)
        return done

    def close(self, at: float, reach: float) -> tuple[Heard, ...]:
        """Ends the stream where it will be at line time `at`; the next byte starts a new stretch.

        Returns:
            What was heard of each of `items`, which are forgotten.
        """
        self.settle(at, reach)
        heard = tuple(item.heard(cleared=True) for item in self.items)
        if self._log is not None:
            self._log.cut(at, self.sent)
        self.items.clear()
        self._pieces.clear()
        self.proven = self.sent
        return heard

    def begins(self, item: Item, reach: float) -> float:
        """Line time at which the first sample of an item, of which some was sent, was or will be audible."""
        if item.first_heard is not None:
            return item.first_heard
        return next(begins for begins, piece in self._replay(reach) if piece.item is item)

    def _replay(self, reach: float) -> Iterator[tuple[float, Piece]]:
        """The pieces not proven, each with the line time at which it starts to play."""
        time = (self._earliest + self._latest) / 2
        for piece in self._pieces:
            time = max(time, piece.sent + reach)
            yield time, piece
            time += piece.size / BYTES_PER_SECOND

    def _gap(self, position: int, reach: float) -> int:
        """Where a gap in front of `position` is most likely to be: where the replay has the longest."""
        start = gap = self.proven
        longest = 0.0
        ended = (self._earliest + self._latest) / 2
        for begins, piece in self._replay(reach):
            if start >= position:
                break
            if begins - ended > longest:
                gap, longest = start, begins - ended
            start += piece.size
            ended = begins + piece.size / BYTES_PER_SECOND
        return gap

    def _settle(self, position: int, earliest: float, latest: float) -> None:
        todo = position - self.proven
        pieces = self._pieces
        while todo > 0:
            piece = pieces[0]
            item = piece.item
            size = min(piece.size, todo)
            todo -= size
            item.played += size
            if item.first_heard is None:
                item.first_heard = (earliest + latest) / 2 - (todo + size) / BYTES_PER_SECOND
            if size == piece.size:
                pieces.popleft()
            else:
                piece.size -= size
        self.proven = position
        self._earliest = earliest
        self._latest = latest


def _played(seconds: float, size: int) -> int:
    """How many of `size` bytes were played `seconds` after the first one began to be."""
    return min(max(int(seconds * BYTES_PER_SECOND), 0), size)
