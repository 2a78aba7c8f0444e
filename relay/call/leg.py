"""One media stream of a call: the caller's frames up, the playout down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from handlehome.codecs.framepool import FramePool, FrameQueue
from handlehome.codecs.playout import Heard, Line, Playout
from handlehome.relay.wheel import Timer, TimerWheel

ANSWER_BYTES = 2 * 60 * 8000
"""Two minutes of speech may wait for the ear; an answer that outgrows this is cut."""


class Stream(Line, Protocol):
    """The phone's socket, as far as a leg is concerned."""

    def close(self, code: int, reason: str) -> None:
        """Ends the stream from our side."""


class Leg:
    """Owns one stream's playout and the timer that drives it.

    Args:
        number: counted from 1 within the call.
        stream_sid: Twilio's StreamSid.
        stream: the phone's socket.
        hear: takes the caller's audio (base64 text, size in bytes); once per frame.
        played: is told of items that were heard to their end.
        pool: blocks for audio that waits.
        wheel: shared timers.
        clock: loop time, seconds.
        lead: seconds that the line may be ahead of the ear.
    """

    __slots__ = (
        "_clock",
        "_frame_clock",
        "_hear",
        "_played",
        "_queue",
        "_timer",
        "_wheel",
        "number",
        "playout",
        "started",
        "stream",
        "stream_sid",
    )

    def __init__(
        self,
        number: int,
        stream_sid: str,
        stream: Stream,
        *,
        hear: Callable[[bytes, int], None],
        played: Callable[[tuple[Heard, ...]], None],
        pool: FramePool,
        wheel: TimerWheel,
        clock: Callable[[], float],
        lead: float,
    ) -> None:
        self.number = number
        self.stream_sid = stream_sid
        self.stream = stream
        self.started = clock()
        self._queue = FrameQueue(pool, ANSWER_BYTES)
        self.playout = Playout(stream, self._queue, lead=lead)
        self._hear = hear
        self._played = played
        self._wheel = wheel
        self._clock = clock
        self._timer: Timer | None = None
        self._frame_clock = self.playout.clock.frame
        self.playout.begin(self.started)

    def frame(self, chunk: int, timestamp_ms: int, payload: bytes, size: int) -> None:
        """A frame of the caller's audio. Once per frame."""
        self._frame_clock(self._clock(), timestamp_ms)
        self._hear(payload, size)

    def audio(self, item_id: str, payload: bytes, size: int) -> bool:
        """Audio of the assistant; False: more than may wait."""
        playout = self.playout
        taken = playout.audio(self._clock(), item_id, payload, size)
        if playout.due is not None and self._timer is None:
            self._arm()
        return taken

    def item_done(self, item_id: str) -> None:
        """No more audio of that item will come."""
        self._tell(self.playout.item_done(self._clock(), item_id))
        self._arm()

    def mark(self, name: str) -> None:
        """A mark came back."""
        self._tell(self.playout.echo(self._clock(), name))

    def clear(self) -> tuple[Heard, ...]:
        """Stops what is playing, at once; see `Playout.clear`."""
        heard = self.playout.clear(self._clock())
        self._disarm()
        return heard

    def writing_paused(self) -> None:
        """The phone's socket takes no more for the moment."""
        self.playout.pause()

    def writing_resumed(self) -> None:
        """The phone's socket takes messages again."""
        self.playout.resume(self._clock())
        self._arm()

    def left(self) -> float:
        """Seconds until what came of the assistant so far has been played, by the clock."""
        return self.playout.left(self._clock())

    def end(self) -> tuple[Heard, ...]:
        """The stream is gone: frees everything, and says what was heard of what was playing."""
        self._disarm()
        return self.playout.stop(self._clock())

    def _tell(self, heard: tuple[Heard, ...]) -> None:
        if heard:
            self._played(heard)

    def _tick(self) -> None:
        self._timer = None
        self.playout.tick(self._clock())
        self._arm()

    def _arm(self) -> None:
        due = self.playout.due
        if self._timer is not None and due is not None and due < self._timer.when:
            self._disarm()
        if self._timer is None and due is not None:
            self._timer = self._wheel.at(due, self._tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
