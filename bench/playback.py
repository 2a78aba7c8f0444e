"""Twilio's playback buffer, with time as an argument.

Twilio keeps one buffer per stream. Media is appended to it and played at 8 bytes per millisecond, without
waiting, as soon as there is any. A mark is echoed when playback reaches it, at once when nothing is queued.
`clear` drops what has not been played and makes Twilio return every outstanding mark
(https://www.twilio.com/docs/voice/media-streams/websocket-messages).

`Playback` also remembers the truth that a relay can only estimate: which byte was audible when, where the
buffer ran dry, and what each `clear` cut off.

Times are seconds of any clock that never goes back; each call's time must not be earlier than the last one's.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

BYTES_PER_SECOND = 8000
"""Mu-law at 8 kHz: one byte per sample (ITU-T G.711)."""

SILENCE = b"\xff"
"""Digital silence in mu-law."""

# Less than a microsecond: absorbs the rounding of `start + bytes / 8000` for clocks that have run for years.
_TOLERANCE = 0.004


class Echo(NamedTuple):
    """A mark that goes back to the relay."""

    name: str
    at: float
    """When playback reached it, or when `clear` released it."""
    cleared: bool
    """Released by `clear`: its audio was not necessarily heard."""


class Segment(NamedTuple):
    """Bytes that were audible, one after the other, from `at` on."""

    at: float
    ulaw: bytes
    tag: object
    """What `append` was given with these bytes."""


class Gap(NamedTuple):
    """An underrun: the buffer ran dry and soon got more."""

    at: float
    seconds: float
    played_bytes: int
    """Bytes played before the gap."""


class Cut(NamedTuple):
    """What one `clear` did."""

    at: float
    played_bytes: int
    dropped_bytes: int
    marks: tuple[str, ...]
    """The outstanding marks that it released."""


class _Run(NamedTuple):
    """An uninterrupted stretch of playback."""

    at: float
    first_byte: int
    """Bytes played before it."""
    follows_cut: bool
    """A `clear` came between the run before and this one."""


class Playback:
    """One stream's playback buffer.

    Args:
        now: When the stream begins.
        keep_audio: Keep what was played, for `segments` and `heard` (8000 bytes for each second of speech).
    """

    def __init__(self, now: float = 0.0, *, keep_audio: bool = True) -> None:
        self.began = now
        self.appended_bytes = 0
        self.played_bytes = 0
        """Up to the time of the last call of any method."""
        self.dropped_bytes = 0
        self.cuts: list[Cut] = []
        self._now = now
        self._keep_audio = keep_audio
        self._queue: deque[tuple[bytes, object]] = deque()
        self._head_played = 0
        """Bytes of the first payload in the queue that are played already."""
        self._marks: deque[tuple[str, int]] = deque()
        """Name and position, counted like `played_bytes`, in the order of arrival."""
        self._echoes: list[Echo] = []
        self._segments: list[Segment] = []
        self._runs: list[_Run] = []
        self._run_ends: list[tuple[float, int]] = []
        """When each finished run ended, and the bytes played by then; one entry fewer while one plays."""
        self._dry_since = now

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be played."""
        return self.appended_bytes - self.dropped_bytes - self.played_bytes

    @property
    def playing(self) -> bool:
        """Something is audible."""
        return len(self._runs) > len(self._run_ends)

    @property
    def dry_at(self) -> float:
        """When the buffer ran or, as things stand, will run dry; before any audio, when the stream began."""
        if not self.playing:
            return self._dry_since
        return self._time_of(self.played_bytes + self.queued_bytes)

    def append(self, now: float, payload: bytes, tag: object = None) -> None:
        """Queues mu-law behind what is queued. `tag` comes back in `segments`."""
        self._advance(now)
        if not payload:
            return
        if not self.playing:
            follows_cut = bool(self.cuts) and self.cuts[-1].at >= self._dry_since
            self._runs.append(_Run(now, self.played_bytes, follows_cut))
        self._queue.append((payload, tag))
        self.appended_bytes += len(payload)

    def mark(self, now: float, name: str) -> None:
        """Sets a mark behind what is queued; `advance` returns it when it is due, which may be at once."""
        self._advance(now)
        if self.playing:
            self._marks.append((name, self.played_bytes + self.queued_bytes))
        else:
            self._echoes.append(Echo(name, now, False))

    def clear(self, now: float) -> Cut:
        """Drops what is queued; the next `advance` returns all outstanding marks."""
        self._advance(now)
        marks = tuple(name for name, _ in self._marks)
        self._echoes.extend(Echo(name, now, True) for name in marks)
        self._marks.clear()
        cut = Cut(now, self.played_bytes, self.queued_bytes, marks)
        self.cuts.append(cut)
        self.dropped_bytes += cut.dropped_bytes
        if self.playing:
            if self._head_played:
                self._keep(*self._queue[0], self._head_played)
            self._queue.clear()
            self._head_played = 0
            self._end_run(now)
        return cut

    def advance(self, now: float) -> list[Echo]:
        """Plays up to `now` and returns the marks that are due, each once, in the order they were set."""
        self._advance(now)
        echoes, self._echoes = self._echoes, []
        return echoes

    def played_at(self, now: float) -> int:
        """Plays up to `now` and returns the bytes played in all."""
        self._advance(now)
        return self.played_bytes

    def next_echo_at(self) -> float | None:
        """When `advance` will next have a mark to return; None without one."""
        if self._echoes:
            return self._now
        return self._time_of(self._marks[0][1]) if self._marks else None

    def segments(self) -> list[Segment]:
        """What was audible when, up to the time of the last call.

        Raises:
            RuntimeError: The audio was not kept.
        """
        if not self._keep_audio:
            raise RuntimeError("this playback was told not to keep its audio")
        segments = list(self._segments)
        if self._head_played:
            payload, tag = self._queue[0]
            at = self._time_of(self.played_bytes - self._head_played)
            segments.append(Segment(at, payload[: self._head_played], tag))
        return segments

    def played(self) -> bytes:
        """All bytes that were audible, joined; no silence between them."""
        return b"".join(segment.ulaw for segment in self.segments())

    def heard(self, start: float, end: float) -> bytes:
        """What the caller heard from `start` to `end`: mu-law, 0xFF where nothing played."""
        length = max(0, round((end - start) * BYTES_PER_SECOND))
        line = bytearray(SILENCE * length)
        behind = 0
        for segment in self.segments():
            begin = round((segment.at - start) * BYTES_PER_SECOND)
            # Bytes that follow each other stay so, however their times round.
            begin = behind if abs(begin - behind) <= 1 else begin
            behind = begin + len(segment.ulaw)
            low, high = max(0, begin), min(length, behind)
            if low < high:
                line[low:high] = segment.ulaw[low - begin : high - begin]
        return bytes(line)

    def gaps(self, within: float = 1.0) -> list[Gap]:
        """Underruns in mid-utterance: silences of at most `within` seconds that no `clear` explains."""
        gaps = []
        for (ended_at, played), run in zip(self._run_ends, self._runs[1:], strict=False):
            seconds = run.at - ended_at
            if not run.follows_cut and seconds <= within:
                gaps.append(Gap(ended_at, seconds, played))
        return gaps

    def _advance(self, now: float) -> None:
        if now < self._now:
            raise ValueError(f"time went back from {self._now} to {now}")
        self._now = now
        if not self.playing:
            return
        run = self._runs[-1]
        total = self.played_bytes + self.queued_bytes
        reached = run.first_byte + math.floor((now - run.at) * BYTES_PER_SECOND + _TOLERANCE)
        reached = min(reached, total)
        self._play(reached - self.played_bytes)
        while self._marks and self._marks[0][1] <= reached:
            name, position = self._marks.popleft()
            self._echoes.append(Echo(name, self._time_of(position), False))
        if reached == total:
            self._end_run(self._time_of(total))

    def _play(self, count: int) -> None:
        while count:
            payload, tag = self._queue[0]
            step = min(count, len(payload) - self._head_played)
            self._head_played += step
            self.played_bytes += step
            count -= step
            if self._head_played == len(payload):
                self._keep(payload, tag, len(payload))
                self._queue.popleft()
                self._head_played = 0

    def _keep(self, payload: bytes, tag: object, count: int) -> None:
        """Files the first `count` bytes of a payload, the last of them just played."""
        if self._keep_audio:
            self._segments.append(Segment(self._time_of(self.played_bytes - count), payload[:count], tag))

    def _end_run(self, at: float) -> None:
        self._run_ends.append((at, self.played_bytes))
        self._dry_since = at

    def _time_of(self, position: int) -> float:
        """When the byte at a position of the current run begins to play."""
        run = self._runs[-1]
        return run.at + (position - run.first_byte) / BYTES_PER_SECOND
