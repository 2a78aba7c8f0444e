"""The downlink's playout: what to send to the line when, and what of it was heard.

Theory of operation. The model speaks faster than the ear listens. Audio goes to the line as it comes
until the line is `lead` seconds ahead of the ear; the rest waits in a frame queue and follows in slices
of 60 ms. All deadlines derive from `_play_end`, the time at which everything sent will have been
played: a tick that comes late finds more room and sends more, and the schedule does not shift.

The line plays one buffer, in order. Every *piece* sent is kept in a ledger (when, how much, of which
item) until a mark proves that it was played. A mark follows the first piece of a run, every 60 ms of
audio after that, and the end of an item. `clear` makes the line return all outstanding marks at once;
such marks prove nothing, and a name carries a number so that they are told apart. Behind each
`clear`, and at the start, a *probe* mark is sent into the then empty buffer: its echo shows how
long a message takes to act there (see `lineclock`).

What was heard at a moment is: the last proven position, plus a replay of the ledger from there (a
piece starts when the one before it ends, but not before it reached the line). So an answer that
came too slowly and left gaps is accounted for as exactly as one that came in a burst.

Nothing here reads a clock or touches a socket: `now` is loop time in seconds, the line is an interface.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

from handlehome.codecs.framepool import FrameQueue
from handlehome.codecs.lineclock import LineClock
from handlehome.codecs.payload import decode, encode

BYTES_PER_SECOND = 8000  # mu-law, 8 kHz, mono
SLICE_BYTES = 480  # 60 ms: a multiple of 3, so that its base64 text carries no padding
MARK_BYTES = 480

PREBUFFER_MIN = 0.020
PREBUFFER_START = 0.040
PREBUFFER_MAX = 0.120
PREBUFFER_DECAY = 0.8


class Line(Protocol):
    """The far end, as far as the playout is concerned."""

    def media(self, payload: bytes) -> None:
        """Sends base64 text of mu-law audio."""

    def mark(self, name: str) -> None:
        """Sends a mark to be echoed when playback reaches it."""

    def clear(self) -> None:
        """Drops everything that the far end has not yet played."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How much of an item was played, in ms of its audio.

    Attributes:
        item_id: conversation item.
        heard_ms: what the line had played; never more than `sent_ms`. Rounded down.
        sent_ms: what was sent to the line.
        complete: everything that came of the item was played, and its end is known.
        since: line time at which its first sample was audible; None: nothing was.
    """

    item_id: str
    heard_ms: int
    sent_ms: int
    complete: bool
    since: float | None = None


@dataclass(slots=True)
class _Item:
    """One item's bytes on their way: received from the model, sent to the line, played by it."""

    item_id: str
    start: int = 0
    """Position in the line's stream of its first byte, once sent."""
    received: int = 0
    sent: int = 0
    played: int = 0
    ended: bool = False
    underran: bool = False
    first_sent: float | None = None
    first_heard: float | None = None


@dataclass(slots=True)
class _Piece:
    """Audio sent without a gap, between two marks at most."""

    sent: float
    size: int
    item: _Item


@dataclass(slots=True)
class _Mark:
    name: str
    sent: float
    position: int
    """Bytes of the line's stream in front of it."""
    probe: bool = False
    void: bool = False


class Playout:
    """Plays the model's items on one line (one leg of a call).

    Args:
        line: where media, marks and clears go; called synchronously.
        queue: holds audio that may not be sent yet; its limit bounds an answer.
        lead: seconds that the line may be ahead of the ear.

    Attributes:
        due: loop time at which `tick` wants to be called; None while nothing waits.
        prebuffer: seconds of audio collected before a run starts, adapted to what underran.
        underruns: times that the line ran dry in the middle of an item.
        clock: the line's clock; the owner feeds it with inbound frames.
    """

    def __init__(self, line: Line, queue: FrameQueue, *, lead: float = 1.0) -> None:
        self.clock = LineClock()
        self.due: float | None = None
        self.prebuffer = PREBUFFER_START
        self.underruns = 0
        self._line = line
        self._queue = queue
        self._lead = lead
        self._paused = False
        self._holding = False  # a run's start is being collected
        self._items: deque[_Item] = deque()  # in order; the last one receives
        self._waiting: deque[list[Any]] = deque()  # [item, bytes of it in the queue]
        self._pieces: deque[_Piece] = deque()  # sent, not yet proven as played
        self._marks: deque[_Mark] = deque()  # sent, not yet echoed
        self._mark_number = 0
        self._run: _Piece | None = None  # first piece of a run that found the line surely empty
        self._sent = 0  # bytes, all in all
        self._unmarked = 0  # bytes sent behind the last mark
        self._play_end = 0.0
        self._proven = 0  # bytes that the last mark (or clear) accounts for
        self._proven_at = 0.0  # line time of it

    def begin(self, now: float) -> None:
        """Probes the empty line once; to be called when its stream starts."""
        self._mark(now, probe=True)

    @property
    def outstanding(self) -> bool:
        """Whether audio is queued or sent that is not proven as played."""
        return bool(self._pieces or self._waiting)

    # ---- audio ----------------------------------------------------------------------------------

    def audio(self, now: float, item_id: str, payload: bytes, size: int) -> bool:
        """Takes audio of an item: sends it now, or keeps it for `tick`.

        Args:
            now: loop time.
            item_id: conversation item; items are played in the order of their first audio.
            payload: base64 text, spliced into the message as it is when it can go at once.
            size: bytes of mu-law that it stands for.

        Returns:
            False when the queue's bound is reached: nothing was kept, the answer has to be cut.
        """
        if not size:
            return True
        item = self._items[-1] if self._items else None
        if item is None or item.item_id != item_id or item.ended:
            item = _Item(item_id)
            self._items.append(item)
        ahead = self._play_end - now
        if not self._waiting and not self._paused:
            if ahead > 0:
                if ahead + size / BYTES_PER_SECOND <= self._lead:
                    item.received += size
                    self._send(now, item, payload, size)
                    return True
            elif self._start(item, -ahead, size):
                item.received += size
                self._send(now, item, payload, size)
                return True
        if not self._queue.push(decode(payload)):
            return False
        item.received += size
        if self._waiting and self._waiting[-1][0] is item:
            self._waiting[-1][1] += size
        else:
            self._waiting.append([item, size])
        if self._holding and self.due is None:
            self.due = now + self.prebuffer
        if not self._holding or len(self._queue) >= self.prebuffer * BYTES_PER_SECOND:
            self.tick(now, release=True)
        return True

    def item_done(self, now: float, item_id: str) -> tuple[Heard, ...]:
        """Takes note that no more audio of the item will come.

        Returns:
            The items that are thereby known to be heard to their end.
        """
        item = next((item for item in reversed(self._items) if item.item_id == item_id), None)
        if item is None or item.ended:
            return ()
        item.ended = True
        if not item.underran:
            self.prebuffer = max(PREBUFFER_MIN, self.prebuffer * PREBUFFER_DECAY)
        if self._holding:
            self.tick(now, release=True)
        elif item.sent == item.received and self._unmarked:
            self._mark(now)
        return self._completed()

    def tick(self, now: float, *, release: bool = False) -> None:
        """Sends what may be sent at `now`; to be called at `due`, late is fine."""
        if self._holding and not release and self.due is not None and now < self.due:
            return
        self._holding = False
        self.due = None
        if self._paused:
            return
        while self._waiting:
            item, waiting = self._waiting[0]
            room = int((self._lead - max(self._play_end - now, 0.0)) * BYTES_PER_SECOND)
            size = min(waiting, max(SLICE_BYTES, room - room % SLICE_BYTES))
            if size > room:
                self.due = self._play_end - self._lead + size / BYTES_PER_SECOND
                return
            chunk = self._queue.read(size)
            size = len(chunk)
            if size == waiting:
                self._waiting.popleft()
            else:
                self._waiting[0][1] = waiting - size
            self._send(now, item, encode(chunk), size)

    def pause(self) -> None:
        """Sends nothing until `resume`: the line's socket takes no more."""
        self._paused = True

    def resume(self, now: float) -> None:
        """Goes on after `pause`, catching up."""
        self._paused = False
        self.tick(now, release=True)

    def _start(self, item: _Item, dry: float, size: int) -> bool:
        """Begins a run on a dry line; False: collect some audio first."""
        if item.received:
            self.underruns += 1
            item.underran = True
            self.prebuffer = min(PREBUFFER_MAX, max(self.prebuffer * 1.5, self.prebuffer + dry / 2))
        if size >= self.prebuffer * BYTES_PER_SECOND:
            return True
        self._holding = True
        return False

    def _send(self, now: float, item: _Item, payload: bytes, size: int) -> None:
        self._line.media(payload)
        first_of_run = now >= self._play_end
        if first_of_run:
            self._play_end = now
        if item.first_sent is None:
            item.first_sent = now
            item.start = self._sent
        piece = self._pieces[-1] if self._pieces else None
        if first_of_run or piece is None or not self._unmarked or piece.item is not item:
            surely_empty = first_of_run and piece is None
            piece = _Piece(now, size, item)
            self._pieces.append(piece)
            if surely_empty:
                self._run = piece
        else:
            piece.size += size
        item.sent += size
        self._sent += size
        self._unmarked += size
        self._play_end += size / BYTES_PER_SECOND
        if first_of_run or self._unmarked >= MARK_BYTES or (item.ended and item.sent == item.received):
            self._mark(now)

    def _mark(self, now: float, *, probe: bool = False) -> None:
        self._mark_number += 1
        name = str(self._mark_number)
        self._unmarked = 0
        self._marks.append(_Mark(name, now, self._sent, probe))
        self._line.mark(name)

    # ---- what was heard -------------------------------------------------------------------------

    def echo(self, now: float, name: str) -> tuple[Heard, ...]:
        """Takes a mark that came back.

        Returns:
            The items that are thereby known to be heard to their end, in order.
        """
        if not any(mark.name == name for mark in self._marks):
            return ()
        mark = self._marks.popleft()
        while mark.name != name:
            mark = self._marks.popleft()
        if mark.void:
            return ()
        at = self.clock.event(now)
        if mark.probe:
            self.clock.acted(mark.sent, at)
            return ()
        run = self._run
        if run is not None and self._pieces and run is self._pieces[0]:
            self.clock.acted(run.sent, at - (mark.position - self._proven) / BYTES_PER_SECOND)
            self._run = None
        self._prove(mark.position, at)
        return self._completed()

    def clear(self, now: float) -> tuple[Heard, ...]:
        """Stops: clears the line, forgets what waits.

        Returns:
            Each item that was not known to be heard to its end, in order, with what the line will have
            played when the clear acts there. Empty: nothing was playing, and nothing was sent.
        """
        # An item of which more was to come is cut short too, though all that came of it was heard.
        if not self._items:
            return ()
        self._line.clear()
        heard = self.stop(now)
        self._mark(now, probe=True)
        return heard

    def stop(self, now: float) -> tuple[Heard, ...]:
        """Like `clear`, for a line that is gone: sends nothing."""
        for mark in self._marks:
            mark.void = True
        acts = now + self.clock.reach
        self._prove(self._position(acts), acts)
        heard = tuple(self._heard(item) for item in self._items)
        self._items.clear()
        self._waiting.clear()
        self._queue.clear()
        self._pieces.clear()
        self._run = None
        self._holding = False
        self.due = None
        self._unmarked = 0
        self._proven = self._sent
        self._play_end = now
        return heard

    def first_heard(self, item_id: str) -> float | None:
        """Line time at which the first sample of an item that is still playing was or will be audible."""
        for item in self._items:
            if item.item_id == item_id and item.first_sent is not None:
                return item.first_heard or max(item.first_sent + self.clock.reach, self._proven_at)
        return None

    def _position(self, at: float) -> int:
        """Bytes of the stream that the line has played at line time `at`."""
        time = self._proven_at
        position = self._proven
        for piece in self._pieces:
            time = max(time, piece.sent + self.clock.reach)
            if at <= time:
                break
            played = int((at - time) * BYTES_PER_SECOND)
            if played < piece.size:
                return position + played
            position += piece.size
            time += piece.size / BYTES_PER_SECOND
        return position

    def _prove(self, position: int, at: float) -> None:
        """Accounts for everything in front of `position`, played by line time `at`."""
        todo = position - self._proven
        while todo > 0 and self._pieces:
            piece = self._pieces[0]
            item = piece.item
            size = min(piece.size, todo)
            item.played += size
            todo -= size
            if item.first_heard is None:
                item.first_heard = at - (position - item.start) / BYTES_PER_SECOND
            if size == piece.size:
                self._pieces.popleft()
            else:
                piece.size -= size
        self._proven = position
        self._proven_at = at

    def _completed(self) -> tuple[Heard, ...]:
        done: list[Heard] = []
        while self._items and self._items[0].ended and self._items[0].played >= self._items[0].received:
            done.append(self._heard(self._items.popleft()))
        return tuple(done)

    @staticmethod
    def _heard(item: _Item) -> Heard:
        return Heard(
            item.item_id,
            item.played * 1000 // BYTES_PER_SECOND,
            item.sent * 1000 // BYTES_PER_SECOND,
            item.ended and item.played >= item.received,
            item.first_heard,
        )
