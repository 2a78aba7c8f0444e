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
* **Jumps.** By more than `JUMP_SAMPLES` nothing is levelled out, that would be heard for seconds. Audio that
  belongs further on goes there at once, behind silence. Where the track is ahead, what is quiet is left out
  until it is not; if nothing is quiet for `WAIT_SAMPLES`, what comes then is.
* **Now.** Nothing was spoken later than it came, whatever its timestamp says: no piece is put further than
  `AHEAD_SAMPLES` beyond the newest frame's arrival.
* **Gaps.** What is between two stretches is silence: the line's timestamps jumped, or the assistant paused.

* **Runs.** Nearly all frames are a line's usual ones: 20 ms each, and each follows on the one before.
  `CallerTrack.put_all` gives those of a batch to the jitter buffer as one long frame, at a tenth of the cost.
  Up to the last odd one, if there is any, they go one by one.

Pure: no I/O and no clock, times are arguments, in seconds. Nothing here grows: at most half a second of the
caller is held back, and `SENT_BYTES` of the assistant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from handlehome.codecs.jitterbuffer import ALLOWANCE_MS, TOLERANCE_MS, JitterBuffer
from handlehome.codecs.levels import NOISE_FIRST_DBFS, rms_dbfs
from handlehome.codecs.lineclock import LineClock
from handlehome.codecs.played import TOLERANCE

SAMPLES_PER_SECOND: Final = 8000
SAMPLES_PER_MS: Final = 8

SLACK_SAMPLES: Final = 40
"""5 ms: so far from its place a piece may stand, and so wide a gap between two is no gap."""

JUMP_SAMPLES: Final = 1600
"""200 ms, about the pause between two speakers' turns; to level it takes 3 s of another pitch already."""

WAIT_SAMPLES: Final = 5 * SAMPLES_PER_SECOND
"""People pause within a sentence or two; music and a noisy street do not."""

AHEAD_SAMPLES: Final = 800
"""100 ms: more than a frame's rounded timestamp and its size can be wrong by, half of what is a jump."""

GAP_SAMPLES: Final = round(TOLERANCE * SAMPLES_PER_SECOND)
"""When the assistant's audio pauses for longer, the pause is recorded. By less, `PlayedLog` moves what had no
pause at all."""

HOLD_SECONDS: Final = 0.5
"""Of 25 frames, one has nearly always met hardly any delay; and what is not on disk yet a kill takes."""

SENT_BYTES: Final = 60 * SAMPLES_PER_SECOND
"""More than a line is ahead of the ear unless it has stopped playing, and half a megabyte."""

_FRAME_MS: Final = 20  # the line's usual frames
_FRAME_BYTES: Final = _FRAME_MS * SAMPLES_PER_MS
_PULL_SAMPLES: Final = (
    5120  # an error shrinks to a third in so many samples, 0.64 s: as long as a word or two
)
_PULL_MOST: Final = 16  # one sample in so many: 6 %, a semitone, the least that people take for another pitch


class Piece(NamedTuple):
    """Mu-law audio at a position of the call's time line, in samples from its beginning."""

    at: int
    audio: bytes


class Track:
    """One channel: each piece behind the one before.

    Attributes:
        end: where the last piece ended, None before the first.
    """

    __slots__ = ("_waited", "end")

    def __init__(self) -> None:
        self.end: int | None = None
        self._waited = 0  # samples that were too far ahead of their place, in a row

    def fits(self, at: float) -> bool:
        """Whether a piece that belongs there and continues the one before is recorded as it is."""
        return self.end is not None and abs(at - self.end) <= SLACK_SAMPLES

    def place(self, at: float, audio: bytes, *, joined: bool) -> Piece:
        """Places a piece.

        Args:
            at: where it belongs, in samples. It never goes before the end of the piece before.
            audio: mu-law.
            joined: it continues the piece before; then it follows it, and is stretched if need be, unless
                it belongs more than `JUMP_SAMPLES` further on.

        Returns:
            The piece as it is to be recorded; its audio may be some samples longer or shorter, or left out
            where the track is more than `JUMP_SAMPLES` ahead.
        """
        end = self.end
        error = 0.0 if end is None else at - end
        waited, self._waited = self._waited, 0
        if end is None or error > (JUMP_SAMPLES if joined else 0):
            end = round(at)
        elif error < -JUMP_SAMPLES:
            self._waited = waited + len(audio)
            if self._waited > WAIT_SAMPLES or rms_dbfs(audio) < NOISE_FIRST_DBFS:
                audio = audio[round(-error) :]
        elif abs(error) > SLACK_SAMPLES:
            pull = max(1, round(abs(error) * len(audio) / _PULL_SAMPLES))
            pull = min(pull, len(audio) // _PULL_MOST, round(abs(error)))
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
        "_due",
        "_frame_ms",
        "_held",
        "_joined",
        "_now",
        "_offset",
        "_spared",
        "_stamp",
        "_track",
    )

    def __init__(self, began: float) -> None:
        self._began = began
        self._track = Track()
        self._buffer = JitterBuffer()
        self._clock = LineClock()
        self._due: tuple[int, int] | None = None  # number and timestamp of a usual frame that would follow
        self._spared = 0  # numbers the buffer hasn't seen: frames that were parts of longer ones
        self._offset = 0.0  # line time of the line's timestamp 0
        self._stamp: int | None = None  # the newest timestamp
        self._frame_ms = 0.0  # of the first frame that had any audio: one odd frame must not move the others
        self._now = began  # when the newest frame came
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
        self._now = now
        resyncs = self._buffer.resyncs
        idle = not self._buffer.waiting
        audio = self._buffer.put(now, sequence - self._spared, timestamp_ms, frame)
        jumped = self._buffer.resyncs != resyncs
        if jumped:
            pieces = self._release()
            self._joined = False
        if jumped or self._tells(timestamp_ms):
            self._clock.frame(now, timestamp_ms)
            self._learn(now, timestamp_ms)
        if not self._frame_ms:
            self._frame_ms = len(frame) / SAMPLES_PER_MS
        pieces += self._take(now, audio)
        if self._held and now - self._held[0][0] >= HOLD_SECONDS:
            pieces += self._release()
        # With nothing waiting before, one piece out of one frame is that frame.
        usual = idle and len(audio) == 1 and timestamp_ms == self._stamp and self._held is None
        self._due = (sequence + 1, timestamp_ms + _FRAME_MS) if usual else None
        return pieces

    def put_all(
        self,
        nows: tuple[float, ...],
        sequences: tuple[int, ...],
        timestamps_ms: tuple[int, ...],
        frames: Sequence[bytes],
    ) -> list[Piece]:
        """Takes frames, as they came: as `put` one after the other, but cheap for the line's usual ones.

        Args:
            nows: as for `put`, of each frame.
            sequences: likewise.
            timestamps_ms: likewise.
            frames: likewise.

        Returns:
            What `put` returns, in fewer pieces. (Where the audio is further than the slack from its place, a
            run is corrected by what its last frame tells of the line's clock.)
        """
        pieces: list[Piece] = []
        for n in range(len(frames)):
            if self._is_run(sequences[n:], timestamps_ms[n:], frames[n:]):
                return pieces + self._put_run(nows[n:], sequences[n:], timestamps_ms[n:], frames[n:])
            pieces += self.put(nows[n], sequences[n], timestamps_ms[n], frames[n])
        return pieces

    def _is_run(
        self, sequences: tuple[int, ...], timestamps_ms: tuple[int, ...], frames: Sequence[bytes]
    ) -> bool:
        """Whether the first frame is due, and all are usual and follow on each other."""
        number, stamp = sequences[0], timestamps_ms[0]
        return (
            (number, stamp) == self._due
            and sequences == tuple(range(number, number + len(frames)))
            and timestamps_ms == tuple(range(stamp, stamp + len(frames) * _FRAME_MS, _FRAME_MS))
            and set(map(len, frames)) == {_FRAME_BYTES}
            and abs(stamp - self._buffer.position_ms) <= TOLERANCE_MS
        )

    def _put_run(
        self,
        nows: tuple[float, ...],
        sequences: tuple[int, ...],
        timestamps_ms: tuple[int, ...],
        frames: Sequence[bytes],
    ) -> list[Piece]:
        """Takes frames as `_is_run` wants them.

        Within a run the estimate of the line's clock moves one way (but once in 30 s, see `LineClock`):
        what fits at both ends fits in between.
        """
        stamp = self._buffer.position_ms
        run = b"".join(frames)
        self._buffer.put(nows[-1], sequences[0] - self._spared, timestamps_ms[0], run)
        self._spared += len(frames) - 1
        self._due = (sequences[-1] + 1, timestamps_ms[-1] + _FRAME_MS)
        self._now = nows[-1]
        fits = self._track.fits(self._belongs(stamp))
        learn = self._clock.frame
        for now, timestamp_ms in zip(nows, timestamps_ms, strict=True):
            learn(now, timestamp_ms)
        self._learn(nows[-1], timestamps_ms[-1])
        if fits and self._track.fits(self._belongs(stamp)):
            return [self._place(stamp, run)]
        return [self._place(stamp + number * _FRAME_MS, frame) for number, frame in enumerate(frames)]

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

    def _tells(self, timestamp_ms: int) -> bool:
        """Whether a frame that came last says anything of the line's clock."""
        if self._stamp is None:
            return True
        if timestamp_ms < self._stamp:
            return False  # it was overtaken: a later one was here before it
        # While it waits, nobody knows whether the clock was set or only this one's timestamp is wrong.
        return not self._buffer.waiting or timestamp_ms - self._buffer.position_ms <= ALLOWANCE_MS

    def _learn(self, now: float, timestamp_ms: int) -> None:
        """Takes over what the clock has learned from the newest frame."""
        self._stamp = timestamp_ms
        self._offset = self._clock.event(now)[0] - timestamp_ms / 1000

    def _belongs(self, stamp: float) -> float:
        """Where on the track audio belongs that stands at `stamp` of the line's."""
        # A frame is sent when it is complete, with the line's clock of that moment or a frame before: what
        # counts is that `_offset` was learned from the same stamps.
        at = self._offset + (stamp - self._frame_ms) / 1000
        at = min(at, self._now + AHEAD_SAMPLES / SAMPLES_PER_SECOND)
        return (at - self._began) * SAMPLES_PER_SECOND

    def _place(self, stamp: float, audio: bytes) -> Piece:
        piece = self._track.place(self._belongs(stamp), audio, joined=self._joined)
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
        """Takes [start, end) out of what was sent, and all before it; audio without a gap is one piece."""
        taken: list[Piece] = []
        sent = self._sent
        while sent and sent[0].at < end:
            begin, audio = sent.popleft()
            self._kept -= len(audio)
            if begin + len(audio) > end:
                sent.appendleft(Piece(end, audio[end - begin :]))
                self._kept += len(sent[0].audio)
                audio = audio[: end - begin]
            if begin < start:
                audio = audio[start - begin :]
                begin = start
            if taken and taken[-1].at + len(taken[-1].audio) == begin:
                taken[-1] = Piece(taken[-1].at, taken[-1].audio + audio)
            elif audio:
                taken.append(Piece(begin, audio))
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
