"""The caller's frames in order and without gaps, for whoever decodes them.

Theory of operation
-------------------

Two facts come with a frame: its number, which gives the order, and its timestamp, which gives the place.

* **Order.** A frame that follows on its predecessor is returned at once: no delay is added. Where numbers
  are missing, later frames wait for them, `window` at most; then the missing ones are given up. Nothing waits
  for numbers that are missing although the timestamps leave no room for them.
* **Place.** The audio returned is one timeline of samples, anchored to the first frame's timestamp. A
  timestamp within `TOLERANCE_MS` of where the samples have got to is taken for exact: the samples decide, so
  that stamps which are rounded or jitter neither click nor add up. One that is further ahead leaves a gap,
  which is filled to the sample; one that is further behind says that the frame begins in the past, and that
  part of it is cut. So the audio is never further than `TOLERANCE_MS` from the line's clock, whatever got
  lost.
* **Gaps.** Lost audio is concealed for `CONCEAL_MS` by the last frame, repeated and fading, and is silence
  from there on. A gap between consecutive numbers is silence from the start: the line sent nothing (but one
  shorter than 20 ms is no pause of the line's, and is concealed).
* **Wall time.** A stamp alone fills no gap; time must have passed. What passed between arrivals and didn't
  come as audio is kept as spare, so that after a stall a gap somewhere in the burst is filled, too; frames
  that come faster than they last use it up (but never below zero: such frames were delayed before, as all
  were that came first). What a gap needs beyond the spare time comes out of an allowance, `ALLOWANCE_MS` for
  the whole stream: the audio returned is never longer than the time that passed and that, but for what frames
  themselves brought sooner. Spare time is for what arrives soon: above the same limit it expires, as fast as
  the line goes on.
* **Jumps.** A timestamp that leads the wall clock by more than `ALLOWANCE_MS`, is more than `MAX_GAP_MS`
  ahead, or so far behind that its whole frame lies in the past, is a clock that was set: the audio goes on
  without a break, nothing is filled, and the timeline is anchored anew (`resyncs`). A number far from its
  predecessor's (RFC 3550 A.1's bounds) is a counter that was set (`restarts`): what waits is returned, and
  the timestamps alone place the frame. RFC 3550 wants two such frames in a row before it believes them,
  because on UDP anyone may send; here they come from one peer on one connection, and a stray one costs no
  audio.

Whether a timestamp stands for its frame's beginning or its end isn't documented. It makes a difference only
where frames change their size; there the reading that fits better is taken, and the next frame of the first
one's size corrects a wrong guess.

Nothing here reads a clock. A frame in order costs half a microsecond.
"""

import math
from collections import deque
from typing import Final

import numpy as np

from handlehome.codecs.g711 import ULAW_SILENCE, ulaw_decode, ulaw_encode

__all__ = ["ALLOWANCE_MS", "CONCEAL_MS", "MAX_GAP_MS", "MAX_WINDOW", "TOLERANCE_MS", "JitterBuffer"]

TOLERANCE_MS: Final = 8
"""Less than the shortest frame in use (10 ms), so that a lost one is noticed; more than stamps jitter."""

CONCEAL_MS: Final = 60
"""How long a lost frame is repeated: G.711 Appendix I has faded to silence by then."""

MAX_GAP_MS: Final = 10_000
"""The longest gap that is filled; a longer one is a clock that was set."""

ALLOWANCE_MS: Final = 400
"""How far a gap may lead the wall clock, and how much is filled in a stream that no wall time stands for.

A gap leads when all frames before it were slower on their way than the one behind it: by a retransmission of
TCP's, which takes 200 ms on Linux (TCP_RTO_MIN) and is doubled when it is lost, too. It must be less than the
500 ms of silence that end a turn for the model's voice-activity detection unless told otherwise.
"""

MAX_WINDOW: Final = 50
"""A second of 20 ms frames: a caller who waits longer has given up."""

_RATE: Final = 8  # samples per ms
_RATE_SECONDS: Final = 8000.0
_PIECE: Final = 160  # samples: gaps are filled in frames of 20 ms
_TOLERANCE: Final = TOLERANCE_MS * _RATE
_ALLOWANCE: Final = ALLOWANCE_MS * _RATE
_MAX_GAP: Final = MAX_GAP_MS * _RATE
_MAX_GAP_SECONDS: Final = MAX_GAP_MS / 1000

# RFC 3550 A.1: numbers up to so far ahead are a gap, up to so far behind late or double; others a restart.
_MAX_DROPOUT: Final = 3000
_MAX_MISORDER: Final = 100

_FIRST: Final = 1  # Twilio's first frame

_SILENCE: Final = bytes([ULAW_SILENCE]) * _PIECE

# G.711 Appendix I: 10 ms at full level, then 20 % less every 10 ms.
_FADE: Final = np.clip(1.2 - np.arange(CONCEAL_MS * _RATE) / (50 * _RATE), 0.0, 1.0).astype(np.float32)


class JitterBuffer:
    """Puts one stream's mu-law frames in order and fills what is missing.

    `position_ms - origin_ms` always is the duration of all audio that was returned.

    Args:
        window: Frames that may wait for a missing one, 0..`MAX_WINDOW`; 0 gives it up at once.

    Attributes:
        jitter: Interarrival jitter of the frames received, seconds (RFC 3550 6.4.1). Differences of more than
            `MAX_GAP_MS` are clocks that were set, and aren't counted.
        received: Frames put in, whatever became of them.
        reordered: Frames put in behind a later one, but in time.
        duplicates: Frames dropped because their number had been there.
        late: Frames dropped because their number had been given up.
        lost: Numbers given up.
        filled_ms: Duration of the gaps filled, concealed or silent.
        concealed_ms: Duration of those parts of it that repeat a frame.
        trimmed_ms: Duration of what was cut from frames that began in the past.
        resyncs: How often the timestamps jumped (or a gap was filled in part, with the allowance used up);
            each time `origin_ms` and `position_ms` did, too.
        restarts: How often the numbers jumped.

    Raises:
        ValueError: The window is out of range.
    """

    __slots__ = (
        "_allowance",
        "_arrived",
        "_given_up",
        "_in_step",
        "_lap",
        "_last",
        "_next",
        "_origin",
        "_position",
        "_size",
        "_spare",
        "_started",
        "_transit",
        "_waiting",
        "_window",
        "concealed_ms",
        "duplicates",
        "filled_ms",
        "jitter",
        "late",
        "lost",
        "received",
        "reordered",
        "restarts",
        "resyncs",
        "trimmed_ms",
    )

    def __init__(self, *, window: int = 4) -> None:
        if not 0 <= window <= MAX_WINDOW:
            raise ValueError(f"a window of {window} frames is not in 0..{MAX_WINDOW}")
        self.jitter = 0.0
        self.received = 0
        self.reordered = 0
        self.duplicates = 0
        self.late = 0
        self.lost = 0
        self.filled_ms = 0.0
        self.concealed_ms = 0.0
        self.trimmed_ms = 0.0
        self.resyncs = 0
        self.restarts = 0
        self._window = window
        self._next = _FIRST  # the number that is due, had numbers never wrapped around or jumped
        self._lap = 0  # what such a number is ahead of the line's own
        self._position = 0  # where the next audio returned will stand, samples by the line's timestamps
        self._origin = 0  # where the first audio returned stands, in the same samples
        self._size = 0  # of the first frame
        self._started = False  # a frame was returned: position, origin and size are known
        self._in_step = False  # started, and nothing waits
        self._last = b""  # the frame returned last
        self._waiting: list[tuple[int, int, bytes]] = []  # number, timestamp, frame; in order
        self._given_up: deque[int] = deque(maxlen=_MAX_MISORDER)
        self._transit = math.inf  # arrival minus timestamp of the frame before, seconds
        self._arrived = math.inf  # when the frame before came, seconds
        self._spare = 0.0  # wall time that passed and didn't come as audio, samples
        self._allowance = _ALLOWANCE  # samples that may still be filled without

    @property
    def position_ms(self) -> float:
        """Where the next audio returned will stand, by the line's timestamps; 0.0 before the first.

        Exact for a line whose timestamps say where frames begin, else a frame too late throughout.
        """
        return self._position / _RATE

    @property
    def origin_ms(self) -> float:
        """Where the first audio returned stands, by the line's timestamps of today; 0.0 before the first.

        It changes with `resyncs` only.
        """
        return self._origin / _RATE

    @property
    def waiting(self) -> int:
        """How many frames wait for a predecessor, 0..window."""
        return len(self._waiting)

    def put(self, now: float, sequence: int, timestamp_ms: int, frame: bytes) -> list[bytes]:
        """Takes a frame as it arrives. Once per frame.

        Args:
            now: When it arrived, seconds on any steady clock; for `jitter`, and for what a gap may last.
            sequence: Its number in the stream; may wrap around at 2**16 or 2**32.
            timestamp_ms: Its place in the stream.
            frame: Mu-law at 8 kHz, of any length; normally 20 ms, 160 bytes.

        Returns:
            The audio that became ready, in order and without gaps: mostly just `frame`; nothing while
            something is missing. No piece is empty, and none is longer than its frame or than 20 ms.
        """
        self.received += 1
        passed = now - self._arrived
        if passed > 0.0:
            self._arrived = now
        else:
            passed = 0.0
            if self.received == 1:
                self._arrived = now
        transit = now - timestamp_ms * 0.001
        difference = transit - self._transit
        self._transit = transit
        if difference < 0.0:
            difference = -difference
        if difference < _MAX_GAP_SECONDS:
            self.jitter += (difference - self.jitter) * 0.0625
        if (
            sequence + self._lap == self._next
            and self._in_step
            and frame
            and -_TOLERANCE <= timestamp_ms * _RATE - self._position <= _TOLERANCE
        ):
            size = len(frame)
            spare = self._spare
            time = passed * _RATE_SECONDS
            if spare > _ALLOWANCE:
                spare -= min(time, size)  # it expires
            spare += time - size
            self._spare = spare if spare > 0.0 else 0.0
            self._next += 1
            self._position += size
            self._last = frame
            return [frame]
        return self._put_odd(passed, sequence, timestamp_ms, frame)

    def flush(self) -> list[bytes]:
        """Gives up what is missing and returns what waits, gaps filled: the stream is at its end."""
        return self._release(0)

    def _put_odd(self, passed: float, sequence: int, timestamp_ms: int, frame: bytes) -> list[bytes]:
        """Takes any frame, so many seconds after the last one."""
        ahead = _ahead(sequence, self._next - self._lap)
        ready: list[bytes] = []
        if not self._started and not self._waiting and not 0 < ahead <= self._window:
            ahead = 0  # the stream begins here
        elif not -_MAX_MISORDER <= ahead < _MAX_DROPOUT:
            ready = self._release(0)
            self.restarts += 1
            ahead = 0
        self._spare += passed * _RATE_SECONDS  # only now: this frame's own time fills no gap before it
        number = self._next + ahead
        if ahead < 0:
            self._drop_old(number)
            return ready
        waiting = self._waiting
        index = len(waiting)
        while index and waiting[index - 1][0] >= number:
            index -= 1
        if index == len(waiting):
            self._lap = number - sequence  # the newest number tells whether the counter has wrapped
        elif waiting[index][0] == number:
            self.duplicates += 1
            return ready
        else:
            self.reordered += 1
        self._spare = max(0.0, self._spare - len(frame))
        waiting.insert(index, (number, timestamp_ms, frame))
        return ready + self._release(self._window)

    def _drop_old(self, number: int) -> None:
        """Counts a frame whose turn is over: a late one the first time, from then on a duplicate."""
        if number in self._given_up:
            self._given_up.remove(number)
            self.late += 1
        else:
            self.duplicates += 1

    def _release(self, limit: int) -> list[bytes]:
        """Returns what is due; gives up missing frames until at most `limit` wait."""
        ready: list[bytes] = []
        waiting = self._waiting
        while waiting:
            number, timestamp_ms, frame = waiting[0]
            missing = number - self._next
            if missing and self._follows(timestamp_ms, len(frame)):
                missing = 0
            if missing:
                if len(waiting) <= limit:
                    break
                self.lost += missing
                self._given_up.extend(range(number - min(missing, _MAX_MISORDER), number))
            del waiting[0]
            self._next = number + 1
            if frame:
                self._place(timestamp_ms, frame, missing > 0, ready)
        self._in_step = self._started and not waiting
        return ready

    def _errors(self, timestamp_ms: int, size: int) -> tuple[int, int]:
        """By how many samples a frame is ahead: if timestamps are frames' beginnings, and if their ends."""
        begins = timestamp_ms * _RATE - self._position
        return begins, begins + self._size - size

    def _follows(self, timestamp_ms: int, size: int) -> bool:
        """Whether a frame leaves no time for another one between itself and the audio returned."""
        begins, ends = self._errors(timestamp_ms, size)
        return self._started and max(abs(begins), abs(ends)) < min(_TOLERANCE + 1, size / 2)

    def _place(self, timestamp_ms: int, frame: bytes, lost: bool, ready: list[bytes]) -> None:
        """Appends a frame to what is ready, where its timestamp wants it; `lost`: something before it is."""
        if not self._started:
            self._started = True
            self._origin = self._position = timestamp_ms * _RATE
            self._size = len(frame)
        error = min(self._errors(timestamp_ms, len(frame)), key=abs)
        past = 0
        if error <= -max(len(frame), _TOLERANCE + 1):
            self._jump(error)
        elif error > _TOLERANCE:
            gap = self._backed(error)
            if gap < error:
                self._jump(error - gap)
            if gap:
                self._fill(gap, lost or error < _PIECE, ready)
        elif error < -_TOLERANCE:
            past = -error
            self.trimmed_ms += past / _RATE
        self._position += len(frame) - past
        self._last = frame
        ready.append(frame[past:])

    def _jump(self, by: int) -> None:
        """Anchors the timeline anew."""
        self.resyncs += 1
        self._origin += by
        self._position += by

    def _backed(self, gap: int) -> int:
        """How much of a gap is filled: as a rule all, or nothing of one that leads too far; takes the time.

        When the allowance is used up, a gap is filled as far as wall time goes: a pause of seconds isn't
        dropped because it is a millisecond too long.
        """
        spare = math.floor(self._spare)
        self._spare = max(0.0, self._spare - gap)  # a jump explains time that passed, too
        lead = max(0, gap - spare)
        if gap > _MAX_GAP or lead > _ALLOWANCE:
            return 0
        unbacked = min(lead, self._allowance)
        self._allowance -= unbacked
        return gap - lead + unbacked

    def _fill(self, gap: int, conceal: bool, ready: list[bytes]) -> None:
        """Appends `gap` samples: the last frame fading, if `conceal`, and silence behind."""
        self._position += gap
        self.filled_ms += gap / _RATE
        if conceal:
            faded = _fade(self._last, min(gap, len(_FADE)))
            ready += [faded[start : start + _PIECE] for start in range(0, len(faded), _PIECE)]
            self.concealed_ms += len(faded) / _RATE
            gap -= len(faded)
        frames, rest = divmod(gap, _PIECE)
        ready += [_SILENCE] * frames
        if rest:
            ready.append(_SILENCE[:rest])


def _ahead(sequence: int, due: int) -> int:
    """How far a number is ahead of the one due; the shorter way if a 16 or 32 bit counter wrapped around."""
    difference = sequence - due
    if -_MAX_MISORDER <= difference < _MAX_DROPOUT:
        return difference
    for turn in (1 << 16, 1 << 32):
        # A number beyond a turn is none of that counter's; `turn` itself is due behind its last one.
        if sequence < turn and due <= turn:
            wrapped = (difference + turn // 2) % turn - turn // 2
            if -_MAX_MISORDER <= wrapped < _MAX_DROPOUT:
                return wrapped
    return difference


def _fade(frame: bytes, size: int) -> bytes:
    """The last 20 ms of a frame, repeated for `size` samples and fading, up to `CONCEAL_MS`."""
    samples = np.resize(ulaw_decode(frame[-_PIECE:]), size)
    return ulaw_encode(np.rint(samples * _FADE[:size]).astype(np.int16))
