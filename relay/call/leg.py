"""One media stream of a call: the caller's frames up, the playout down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from handlehome.codecs.framepool import FramePool, FrameQueue
from handlehome.codecs.jitterbuffer import JitterBuffer
from handlehome.codecs.payload import decode, encode
from handlehome.codecs.playout import Heard, Line, Playout
from handlehome.relay.call.tape import Tape
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
        in_order: frames are put in order, and gaps between them filled, before they are heard.
        tape: records what is said on this leg.
    """

    __slots__ = (
        "_clock",
        "_frame_clock",
        "_hear",
        "_jitter_buffer",
        "_keep",
        "_played",
        "_queue",
        "_tape",
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
        in_order: bool = False,
        tape: Tape | None = None,
    ) -> None:
        self.number = number
        self.stream_sid = stream_sid
        self.stream = stream
        self.started = clock()
        self._queue = FrameQueue(pool, ANSWER_BYTES)
        recorded = tape is not None and tape.both
        line = stream if tape is None else tape.over(stream)
        self.playout = Playout(line, self._queue, lead=lead, recorded=recorded)
        self._hear = hear
        self._played = played
        self._wheel = wheel
        self._clock = clock
        self._timer: Timer | None = None
        self._frame_clock = self.playout.clock.frame
        self._jitter_buffer = JitterBuffer() if in_order else None
        self._tape = tape
        self._keep = None if tape is None else tape.frame
        self.playout.begin(self.started)
        if tape is not None and recorded:
            tape.start(self.playout.played)

    def frame(self, chunk: int, timestamp_ms: int, payload: bytes, size: int) -> None:
        """A frame of the caller's audio. Once per frame."""
        now = self._clock()
        self._frame_clock(now, timestamp_ms)
        if self._keep is not None:
            self._keep(now, chunk, timestamp_ms, payload)
        if self._jitter_buffer is None:
            self._hear(payload, size)
            return
        frame = decode(payload)
        for audio in self._jitter_buffer.put(now, chunk, timestamp_ms, frame):
            if audio is frame:
                self._hear(payload, size)
            else:
                self._hear(encode(audio), len(audio))

    def audio(self, item_id: str, payload: bytes, size: int) -> bool:
        """Audio of the assistant; False: more than may wait."""
        playout = self.playout
        taken = playout.audio(self._clock(), item_id, payload, size)
        due = playout.due
        if due is not None and (self._timer is None or due < self._timer.when):
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

    def heard_until(self) -> float:
        """Line time of the end of the caller's audio that came last; now, before the first."""
        return self.playout.clock.event(self._clock())[0]

    def left(self) -> float:
        """Seconds until what came of the assistant so far has been played, by the clock."""
        return self.playout.left(self._clock())

    def end(self) -> tuple[Heard, ...]:
        """The stream is gone: frees everything, and says what was heard of what was playing."""
        self._disarm()
        if self._jitter_buffer is not None:
            for audio in self._jitter_buffer.flush():
                self._hear(encode(audio), len(audio))
        heard = self.playout.stop(self._clock())
        if self._tape is not None:
            self._tape.end()
        return heard

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
