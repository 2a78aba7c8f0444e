"""Two speakers on one time line: where in a call's recording each piece of audio belongs.

Theory of operation
-------------------

The recording's clock is the call's: sample `n` stands for `n / 8000` seconds since the call began, in both
channels. Both speakers are put on it in *line time* (see `lineclock`), in which the line's own delays cancel
out, so that an interruption stands in the recording where it happened at the line.

* **Caller.** Frames go through a jitter buffer, which orders them and fills gaps. When a frame was spoken
  follows from its timestamp and the line's clock, not from its arrival, so that the network's jitter is not
  recorded. The estimate of the line's clock is coarse at first: the first half second is held back until it
  is good.
* **Assistant.** What was sent is kept by its position in the stream of sent bytes until it is known at which
  time which positions were played. What was cleared is never played, and forgotten.
* **Drift.** The line's crystal is not ours: at 100 ppm an hour's audio is 360 ms too long or too short.
  Within one uninterrupted stretch, pieces follow each other without a gap as long as they are less than
  `SLACK_SAMPLES` from where they belong; further off, single samples are left out or doubled, spread evenly
  and at most one in 16, until they are there. Errors of the estimates are levelled out the same way.
* **Gaps.** What is between two stretches is silence: the line's timestamps jumped, or the assistant paused.

Pure: no I/O and no clock, times are arguments, in seconds. Nothing here grows: at most half a second of the
caller is held back, and `SENT_BYTES` of the assistant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from handlehome.codecs.jitterbuffer import JitterBuffer
from handlehome.codecs.lineclock import LineClock

SAMPLES_PER_SECOND: Final = 8000
SAMPLES_PER_MS: Final = 8

SLACK_SAMPLES: Final = 40
"""5 ms: so far from its place a piece may stand, and so wide a gap between two is no gap."""

GAP_SAMPLES: Final = 80
"""10 ms: when the assistant's audio pauses for longer, the pause is recorded."""

HOLD_SECONDS: Final = 0.5
SENT_BYTES: Final = 60 * SAMPLES_PER_SECOND
"""More than any line is ahead of the ear."""

_PULL_SAMPLES: Final = 5120  # a piece is corrected by its length times its error, divided by this


class Piece(NamedTuple):
    """Mu-law audio at a position of the call's time line, in samples from its beginning."""

    at: int
    audio: bytes


class Track:
    """One channel: each piece behind the one before.

    Attributes:
        end: where the last piece ended, None before the first.
    """

    __slots__ = ("end",)

    def __init__(self) -> None:
        self.end: int | None = None

    def place(self, at: float, audio: bytes, *, joined: bool) -> Piece:
        """Places a piece.

        Args:
            at: where it belongs, in samples. It never goes before the end of the piece before.
            audio: mu-law.
            joined: it continues the piece before; then it follows it, and is stretched if need be.

        Returns:
            The piece as it is to be recorded; its audio may be some samples longer or shorter.
        """
        end = self.end
        if end is None or (not joined and at > end):
            end = round(at)
        else:
            error = at - end
            if abs(error) > SLACK_SAMPLES:
                pull = max(1, round(abs(error) * len(audio) / _PULL_SAMPLES))
                pull = min(pull, len(audio) // 16)
                audio = _stretched(audio, pull if error > 0 else -pull)
        self.end = end + len(audio)
        return Piece(end, audio)


class CallerTrack:
    """The caller's audio on one leg.

    Args:
        began: when the call began, on the clock of `put`.
    """

    __slots__ = (
        "_began",
        "_buffer",
        "_clock",
        "_frame_ms",
        "_held",
        "_joined",
        "_offset",
        "_stamp",
        "_track",
    )

    def __init__(self, began: float) -> None:
        self._began = began
        self._track = Track()
        self._buffer = JitterBuffer()
        self._clock = LineClock()
        self._offset = 0.0  # line time of the line's timestamp 0
        self._stamp: int | None = None  # the newest timestamp
        self._frame_ms = 0.0
        self._joined = False  # the next audio continues what was placed
        self._held: list[tuple[float, float, bytes]] | None = []  # not placed yet: arrival, timestamp, audio

    def put(self, now: float, sequence: int, timestamp_ms: int, frame: bytes) -> list[Piece]:
        """Takes a frame, as it comes.

        Args:
            now: when it came, seconds.
            sequence: the frame's number.
            timestamp_ms: the line's timestamp of it.
            frame: mu-law.

        Returns:
            What is to be recorded by now; not necessarily this frame.
        """
        pieces: list[Piece] = []
        resyncs = self._buffer.resyncs
        audio = self._buffer.put(now, sequence, timestamp_ms, frame)
        jumped = self._buffer.resyncs != resyncs
        if jumped:
            pieces = self._release()
            self._joined = False
        if jumped or self._stamp is None or timestamp_ms >= self._stamp:
            # One that was overtaken says nothing of the line's clock: a later one was here before it.
            self._stamp = timestamp_ms
            self._clock.frame(now, timestamp_ms)
            self._offset = self._clock.event(now)[0] - timestamp_ms / 1000
        self._frame_ms = len(frame) / SAMPLES_PER_MS
        pieces += self._take(now, audio)
        if self._held and now - self._held[0][0] >= HOLD_SECONDS:
            pieces += self._release()
        return pieces

    def end(self) -> list[Piece]:
        """The leg is over: gives what was held back."""
        pieces = self._take(0.0, self._buffer.flush())
        return self._release() + pieces

    def _take(self, now: float, audio: list[bytes]) -> list[Piece]:
        """Places what the jitter buffer returned, or holds it back."""
        stamp = self._buffer.position_ms - sum(map(len, audio)) / SAMPLES_PER_MS
        pieces: list[Piece] = []
        for each in audio:
            if self._held is not None:
                self._held.append((now, stamp, each))
            else:
                pieces.append(self._place(stamp, each))
            stamp += len(each) / SAMPLES_PER_MS
        return pieces

    def _release(self) -> list[Piece]:
        held, self._held = self._held or [], None
        return [self._place(stamp, audio) for _, stamp, audio in held]

    def _place(self, stamp: float, audio: bytes) -> Piece:
        # A frame is sent when it is complete, with the line's clock of that moment or a frame before: what
        # counts is that `_offset` was learned from the same stamps.
        seconds = self._offset - self._began + (stamp - self._frame_ms) / 1000
        piece = self._track.place(seconds * SAMPLES_PER_SECOND, audio, joined=self._joined)
        self._joined = True
        return piece


class AssistantTrack:
    """The assistant's audio on one leg, as it was heard.

    Args:
        began: when the call began, on the clock of `played`.

    Attributes:
        lost_bytes: of what was played, what was not there any more.
    """

    __slots__ = ("_began", "_kept", "_next", "_sent", "_track", "lost_bytes")

    def __init__(self, began: float) -> None:
        self._began = began
        self._track = Track()
        self._sent: deque[Piece] = deque()  # by position in the stream of sent bytes
        self._kept = 0  # bytes in it
        self._next = -1  # position behind what was played last
        self.lost_bytes = 0

    def sent(self, start: int, audio: bytes) -> None:
        """Takes audio that goes to the line, at a position of the stream of sent bytes; in order."""
        self._sent.append(Piece(start, audio))
        self._kept += len(audio)
        while self._kept > SENT_BYTES:
            self._kept -= len(self._sent.popleft().audio)

    def played(self, at: float, start: int, size: int) -> list[Piece]:
        """Takes note that positions were played; all before them is over.

        Args:
            at: line time at which the first of them became audible, seconds.
            start: the first position.
            size: how many.

        Returns:
            What is to be recorded, in order.
        """
        pieces: list[Piece] = []
        for begin, audio in self._take(start, start + size):
            belongs = (at - self._began) * SAMPLES_PER_SECOND + begin - start
            end = self._track.end
            joined = begin == self._next and end is not None and belongs - end <= GAP_SAMPLES
            pieces.append(self._track.place(belongs, audio, joined=joined))
            self._next = begin + len(audio)
            size -= len(audio)
        self.lost_bytes += size
        return pieces

    def _take(self, start: int, end: int) -> list[Piece]:
        """Takes [start, end) out of what was sent, and all before it."""
        taken: list[Piece] = []
        sent = self._sent
        while sent and sent[0].at < end:
            begin, audio = sent.popleft()
            self._kept -= len(audio)
            if begin + len(audio) > end:
                sent.appendleft(Piece(end, audio[end - begin :]))
                self._kept += len(sent[0].audio)
                audio = audio[: end - begin]
            if begin + len(audio) > start:
                taken.append(Piece(max(begin, start), audio[max(start - begin, 0) :]))
        return taken


def mix(line: bytearray, base: int, channels: int, channel: int, pieces: Iterable[Piece]) -> None:
    """Lays pieces into one channel of interleaved samples.

    Args:
        line: whole frames of one sample per channel; changed in place.
        base: position of its first frame.
        channels: samples per frame.
        channel: which of them, from 0.
        pieces: all of them within `line`.
    """
    for at, audio in pieces:
        first = (at - base) * channels + channel
        line[first : first + len(audio) * channels : channels] = audio


def _stretched(audio: bytes, by: int) -> bytes:
    """Doubles so many samples, or leaves them out if negative; spread evenly."""
    parts = abs(by)
    out = bytearray()
    for part in range(parts):
        end = (part + 1) * len(audio) // parts
        out += audio[part * len(audio) // parts : end]
        if by > 0:
            out.append(audio[end - 1])
        else:
            del out[-1]
    return bytes(out) if parts else audio
