"""The downlink's playout: what to send to the line when, and what of it was heard.

Theory of operation
-------------------

The model speaks faster than the ear listens. Audio goes to the line as it comes until the line is `lead`
seconds ahead of the ear; the rest waits in a frame queue and follows in slices of 60 ms. All deadlines
derive from `_play_end`, the time at which everything sent will have been played: a tick that comes late
finds more room and sends more, and the schedule does not shift.

* **Marks.** A mark follows the first piece of a run, every 60 ms of audio after that, and the end of an item.
  The `ledger` keeps what was sent until a mark proves that it was played, and reckons what happens between.
* **Clear** makes the line return all outstanding marks at once: they prove nothing. A mark's name is a number
  that is never used again, so a mark that comes late is known for what it is.
* **Probes.** What was heard when `clear` acts there depends on how long `clear` takes to get there. That is
  measured with marks that are echoed at the moment when they act (see `lineclock`): marks sent into the empty
  buffer, at the start one after the other, and behind a `clear`; the first piece of a run; and the last mark
  that `clear` takes out, when so much audio was in front of it that the ear can't have reached it.
* **Prebuffer.** A run's start is held back until the audio in hand covers what the model's deltas may be
  late by (see `prebuffer`): not at all with a model that is known to be fast and steady.
* **Lost marks.** A mark that is overdue by seconds is given up, and what was in front of it counts as played.

Nothing here reads a clock or touches a socket: `now` is loop time in seconds, the line is an interface.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from handlehome.codecs.framepool import FrameQueue
from handlehome.codecs.ledger import BYTES_PER_SECOND, Heard, Item, Ledger
from handlehome.codecs.lineclock import LineClock
from handlehome.codecs.payload import decode, encode
from handlehome.codecs.played import Played, PlayedLog
from handlehome.codecs.prebuffer import Prebuffer

__all__ = ["BYTES_PER_SECOND", "SLICE_BYTES", "Heard", "Line", "Played", "Playout"]

SLICE_BYTES: Final = 480
"""60 ms: a multiple of 3, so that its base64 text carries no padding."""
MARK_BYTES: Final = 480
FIRST_BYTES: Final = 960
"""What a run that was held back starts with, so that its first mark is soon reached."""

FIRST_PROBES: Final = 8
"""Round trips measured one after the other before the first audio, if there is the time."""
CLEARED_SECONDS: Final = 0.1
"""With so much audio (and no less than `reach`) between the ear and a mark, `clear` caused its echo."""
LOST_SECONDS: Final = 10.0
"""How overdue a mark is when it is given up."""


class Line(Protocol):
    """The far end, as far as the playout is concerned."""

    def media(self, payload: bytes) -> None:
        """Sends base64 text of mu-law audio."""

    def mark(self, name: str) -> None:
        """Sends a mark to be echoed when playback reaches it."""

    def marked_media(self, payload: bytes, name: str) -> None:
        """Sends audio and a mark right behind it: two messages, one write."""

    def clear(self) -> None:
        """Drops everything that the far end has not yet played."""


@dataclass(slots=True)
class _Mark:
    name: str
    sent: float
    position: int
    """Bytes of the line's stream in front of it."""
    probe: bool
    """Echoed the moment that it (or the `clear` sent at `sent`) acts at the line."""
    void: bool = False


@dataclass(slots=True)
class _Waiting:
    """Bytes of one item in the queue."""

    item: Item
    size: int


class Playout:
    """Plays the model's items on one line (one leg of a call).

    Args:
        line: where media, marks and clears go; called synchronously.
        queue: holds audio that may not be sent yet; its limit bounds an answer.
        lead: seconds that the line may be ahead of the ear, 0.06 at least.
        recorded: somebody wants to know what was `played` when.

    Attributes:
        due: loop time at which `tick` wants to be called; None while nothing waits.
        prebuffer: says how long a run's start is held back; learns that from the model's deltas.
        underruns: times that the line ran dry in the middle of an item, as far as that was due to the model.
        clock: the line's clock; the owner feeds it with inbound frames.

    Raises:
        ValueError: `lead` is less than a slice.
    """

    __slots__ = (
        "_holding",
        "_item",
        "_lead",
        "_ledger",
        "_line",
        "_log",
        "_mark_number",
        "_marks",
        "_paused",
        "_play_end",
        "_queue",
        "_run",
        "_unmarked",
        "_waiting",
        "clock",
        "due",
        "prebuffer",
        "underruns",
    )

    def __init__(self, line: Line, queue: FrameQueue, *, lead: float = 1.0, recorded: bool = False) -> None:
        if lead * BYTES_PER_SECOND < SLICE_BYTES:
            raise ValueError(f"a lead of {lead} s is less than a slice")
        self.clock = LineClock()
        self.due: float | None = None
        self.prebuffer = Prebuffer()
        self.underruns = 0
        self._line = line
        self._queue = queue
        self._lead = lead
        self._paused = False
        self._holding = False  # a run's start is held back until `due`
        self._waiting: deque[_Waiting] = deque()  # whose the bytes in the queue are
        self._log = PlayedLog() if recorded else None
        self._ledger = Ledger(self._log)
        self._item: Item | None = None  # the one that received last
        self._marks: deque[_Mark] = deque()  # sent, not yet echoed
        self._mark_number = 0
        self._unmarked = 0  # bytes sent behind the last mark
        self._play_end = 0.0  # loop time at which all that was sent has been played, if it arrives at once
        # Loop time and position at which the current run began, if the line was surely empty then.
        self._run: tuple[float, int] | None = None

    def begin(self, now: float) -> None:
        """Probes the empty line; to be called once, when its stream starts."""
        self._mark(now, probe=True)

    @property
    def outstanding(self) -> bool:
        """Whether audio is queued or sent that is not proven as played."""
        return bool(self._waiting) or self._ledger.open

    def left(self, now: float) -> float:
        """Seconds until what was sent and what waits will have been played, by the clock."""
        return max(self._play_end - now, 0.0) + len(self._queue) / BYTES_PER_SECOND

    # ---- audio ----------------------------------------------------------------------------------

    def audio(self, now: float, item_id: str, payload: bytes, size: int) -> bool:
        """Takes audio of an item: sends it now, or keeps it for `tick`.

        Args:
            now: loop time.
            item_id: conversation item; audio is played in the order in which it comes.
            payload: base64 text, spliced into the message as it is when it can go at once.
            size: bytes of mu-law that it stands for.

        Returns:
            False when the queue's bound is reached: nothing was kept, the answer has to be cut.
        """
        if not size:
            return True
        item = self._item
        prebuffer = self.prebuffer
        if item is None or item.item_id != item_id or item.ended:
            item = self._item = self._ledger.find(item_id) or Item(item_id)
            prebuffer.item()
        seconds = size / BYTES_PER_SECOND
        ahead = self._play_end - now
        free = not self._waiting and not self._paused
        if free and ahead <= 0:
            # The line is dry.
            ahead = 0.0
            if item.received and not item.ended:
                self.underruns += 1
            prebuffer.start(now)
            prebuffer.delta(now, seconds)
            self._holding = prebuffer.until(seconds) > now
        else:
            prebuffer.delta(now, seconds)
        if free and not self._holding and ahead + seconds <= self._lead:
            if not item.received:
                self._ledger.items.append(item)
            item.received += size
            self._send(now, item, payload, size)
            return True
        return self._keep(now, item, payload, size)

    def item_done(self, now: float, item_id: str) -> tuple[Heard, ...]:
        """Takes note that no more audio of the item will come.

        Returns:
            The items that are thereby known to be heard to their end.
        """
        item = self._ledger.find(item_id)
        if item is None or item.ended:
            return ()
        item.ended = True
        if self._holding:
            self._release(now)
        elif item.sent == item.received and self._unmarked:
            self._mark(now)
        return self._ledger.completed()

    def tick(self, now: float) -> None:
        """Sends what may be sent at `now`; to be called at `due`, late is fine."""
        if self._holding and self.due is not None and now < self.due:
            return
        self._release(now)

    def pause(self) -> None:
        """Sends no audio until `resume`: the line's socket takes no more."""
        self._paused = True
        self.due = None

    def resume(self, now: float) -> None:
        """Goes on after `pause`, catching up."""
        self._paused = False
        self._release(now)

    def _keep(self, now: float, item: Item, payload: bytes, size: int) -> bool:
        """Queues audio; False when the queue takes no more."""
        waiting = self._waiting
        if not self._queue.push(decode(payload)):
            self._holding = self._holding and bool(waiting)
            return False
        if not item.received:
            self._ledger.items.append(item)
        item.received += size
        if waiting and waiting[-1].item is item:
            waiting[-1].size += size
        else:
            waiting.append(_Waiting(item, size))
        if self._holding:
            self.due = self.prebuffer.until(len(self._queue) / BYTES_PER_SECOND)
            if self.due <= now:
                self._release(now)
        elif self.due is None:
            self._release(now)
        return True

    def _release(self, now: float) -> None:
        """Sends what the lead allows."""
        self._holding = False
        self.due = None
        while self._waiting and not self._paused:
            waiting = self._waiting[0]
            # Rounded: at `due`, there has to be room for what `due` was reckoned for.
            ahead = max(self._play_end - now, 0.0)
            room = round((self._lead - ahead) * BYTES_PER_SECOND)
            slices = room - room % SLICE_BYTES if ahead else min(room, FIRST_BYTES)
            size = min(waiting.size, max(SLICE_BYTES, slices))
            if size > room:
                self.due = self._play_end - self._lead + size / BYTES_PER_SECOND
                return
            chunk = self._queue.read(size)
            size = len(chunk)
            if size == waiting.size:
                self._waiting.popleft()
            else:
                waiting.size -= size
            self._send(now, waiting.item, encode(chunk), size)

    def _send(self, now: float, item: Item, payload: bytes, size: int) -> None:
        ledger = self._ledger
        first_of_run = now >= self._play_end
        if first_of_run:
            self._play_end = now
            self._run = None if ledger.open else (now, ledger.sent)
        unmarked = self._unmarked
        ledger.add(now, item, size, unmarked > 0 and not first_of_run)
        self._unmarked = unmarked = unmarked + size
        self._play_end += size / BYTES_PER_SECOND
        if first_of_run or unmarked >= MARK_BYTES or (item.ended and item.sent == item.received):
            self._line.marked_media(payload, self._next_mark(now))
        else:
            self._line.media(payload)

    def _mark(self, now: float, *, probe: bool = False) -> None:
        self._line.mark(self._next_mark(now, probe=probe))

    def _next_mark(self, now: float, *, probe: bool = False) -> str:
        """The name of a mark that is about to be sent."""
        self._mark_number += 1
        name = str(self._mark_number)
        self._unmarked = 0
        marks = self._marks
        marks.append(_Mark(name, now, self._ledger.sent, probe))
        lost = now - self._lead - LOST_SECONDS
        if marks[0].sent < lost:
            while marks[0].sent < lost:
                marks.popleft()
            self._ledger.settle(lost, self.clock.reach)
        return name

    # ---- what was heard -------------------------------------------------------------------------

    def echo(self, now: float, name: str) -> tuple[Heard, ...]:
        """Takes a mark that came back.

        Returns:
            The items that are thereby known to be heard to their end, in order.
        """
        marks = self._marks
        if not marks or (marks[0].name != name and all(mark.name != name for mark in marks)):
            return ()
        mark = marks.popleft()
        while mark.name != name:  # its echo is lost
            mark = marks.popleft()
        if mark.void:
            return ()
        earliest, latest = self.clock.event(now)
        if mark.probe:
            self.clock.acted(mark.sent, (earliest + latest) / 2)
            if self._log is not None:
                self._log.cut_at((earliest + latest) / 2)
            if self.clock.samples < FIRST_PROBES and not self.outstanding:
                self._mark(now, probe=True)
            return ()
        ledger = self._ledger
        if self._run is not None:
            sent, start = self._run
            if start == ledger.proven:
                played = (mark.position - start) / BYTES_PER_SECOND
                self.clock.acted(sent, (earliest + latest) / 2 - played)
            self._run = None
        ledger.reached(mark.position, earliest, latest, self.clock.reach)
        return ledger.completed()

    def clear(self, now: float) -> tuple[Heard, ...]:
        """Stops: clears the line, forgets what waits.

        Returns:
            Each item that was not known to be heard to its end, in order, with what the line will have
            played when the clear acts there. Empty: nothing was playing, and nothing was sent.
        """
        # An item of which more was to come is cut short too, though all that came of it was heard.
        if not self._ledger.items:
            return ()
        self._line.clear()
        reach = self.clock.reach
        unreached = self._ledger.sent - self._unmarked - self._ledger.position(now + reach, reach)
        heard = self.stop(now)
        if self._marks and unreached > max(reach, CLEARED_SECONDS) * BYTES_PER_SECOND:
            last = self._marks[-1]
            last.sent, last.probe, last.void = now, True, False
        else:
            self._mark(now, probe=True)
        return heard

    def stop(self, now: float) -> tuple[Heard, ...]:
        """Like `clear`, for a line that is gone: sends nothing."""
        for mark in self._marks:
            mark.void = True
        heard = self._ledger.close(now + self.clock.reach, self.clock.reach)
        self._waiting.clear()
        self._queue.clear()
        self._item = None
        self._run = None
        self._holding = False
        self.due = None
        self._unmarked = 0
        self._play_end = now
        return heard

    def first_heard(self, item_id: str) -> float | None:
        """Line time at which the first sample of an item that is still playing was or will be audible."""
        item = self._ledger.find(item_id)
        if item is None or not item.sent:
            return None
        return self._ledger.begins(item, self.clock.reach)

    def heard(self, now: float) -> tuple[Heard, ...]:
        """What was sent and played of each item that is not known to be heard to its end, in order.

        Changes nothing. By the clock: up to line time `now`, which lies the line's shortest way back behind
        the ear. An item that a `clear` or `stop` cut off is told by that, and then no more.
        """
        return self._ledger.heard(now, self.clock.reach)

    def played(self, until: float) -> list[Played]:
        """What the line has played up to line time `until`, and was not told before.

        In order and without overlap; a gap in the playing is a gap in `at`, and a position that was cleared
        is never told. What was told isn't corrected, and nothing that is told later begins before `until`.
        So `until` has to stay so far behind now that the marks of what was played until then have come back:
        longer than a delta's audio and a mark's way back. Closer than that, the clock has to do. At a line's
        end: `stop`, then ask for everything, with infinity.

        Raises:
            RuntimeError: not made with `recorded`.
        """
        if self._log is None:
            raise RuntimeError("this playout was told that nobody wants to know what was played")
        return self._log.read(until, self._ledger.ahead(self.clock.reach))
