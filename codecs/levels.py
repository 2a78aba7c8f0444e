"""Levels of mu-law audio: RMS and peak in dBFS, and a meter for a live stream.

0 dBFS is a constant 32768, full scale of the 16-bit samples that mu-law decodes to: the loudest sine that
mu-law can carry, 3.17 dBm0, has an RMS of -3.2 dBFS. Telephone speech is around -26 dBFS (ITU-T P.56's active
level, as recorded speech is normalised for tests).

All of it is done by audioop, whose decoder is a table of 256 entries in C. A sample is decoded to 32 bits,
where it stands in the upper half: audioop's RMS is an integer, and at 16 bits a quiet line would be off by
decibels. For a frame of 160 codes, microseconds on one core of a 2-core cloud machine, CPython 3.11:

========================  =======
`Meter.feed`                0.8
`rms_dbfs`                  0.6
`peak_dbfs`                 0.6
numpy, table of squares     3.0  for the RMS alone
max over bytes.translate    2.6  for the peak alone
========================  =======
"""

import audioop
import math
from typing import Final

from handlehome.codecs.g711 import Buffer

__all__ = ["FLOOR_DBFS", "Meter", "peak_dbfs", "rms_dbfs"]

FLOOR_DBFS: Final = -100.0
"""Level reported for digital silence and for no samples; the smallest non-zero mu-law value is at -72.2."""

RMS_SECONDS: Final = 0.125
"""Time constant of a meter's RMS: time weighting F of IEC 61672-1."""

PEAK_HOLD_SECONDS: Final = 1.0
"""How long a meter's peak stands: the hold time of IEC 60268-18."""

PEAK_FALL_DB_PER_SECOND: Final = 20 / 1.7
"""How fast it falls then: the return time of IEC 60268-18, and of a type I meter of IEC 60268-10."""

VOICE_MARGIN_DB: Final = 9.0
"""How far voice is above the noise floor: ours. White noise in frames of 20 ms stays within 3 dB of it, and a
margin of 12 loses words of soft speech in a noisy room."""

VOICE_HANGOVER_SECONDS: Final = 0.2
"""How long voice lasts behind its last loud frame: ITU-T P.56's, which bridges the gaps between syllables."""

NOISE_LOWEST_DBFS: Final = -60.0
"""The noise floor isn't taken for lower than that, or a click on a silent line would be voice."""

NOISE_FIRST_DBFS: Final = -40.0
"""What the floor is taken for until a quieter frame comes: few lines are noisier, and speech that begins with
the stream stands out from it."""

NOISE_RISE_DB_PER_SECOND: Final = 3.0
"""How fast the noise floor follows louder noise: ours, so that a sentence without a pause stays voice."""

_RATE: Final = 8000
_WIDTH: Final = 4  # bytes of a sample, as audioop is asked to decode
_FULL_SCALE: Final = 32768.0 * 65536.0  # of such a sample

_MARGIN: Final = 10 ** (VOICE_MARGIN_DB / 10)
_NOISE_LOWEST: Final = 10 ** (NOISE_LOWEST_DBFS / 10)
_NOISE_FIRST: Final = 10 ** (NOISE_FIRST_DBFS / 10)
_PEAK_HOLD: Final = round(PEAK_HOLD_SECONDS * _RATE)
_HANGOVER: Final = round(VOICE_HANGOVER_SECONDS * _RATE)


def rms_dbfs(codes: Buffer) -> float:
    """The level of mu-law audio.

    Args:
        codes: Any number of codes.

    Returns:
        RMS, FLOOR_DBFS..-0.17; FLOOR_DBFS for silence and for no codes.
    """
    return _dbfs(audioop.rms(audioop.ulaw2lin(codes, _WIDTH), _WIDTH) / _FULL_SCALE)


def peak_dbfs(codes: Buffer) -> float:
    """The peak of mu-law audio.

    Args:
        codes: Any number of codes.

    Returns:
        The largest magnitude, FLOOR_DBFS..-0.17; FLOOR_DBFS for silence and for no codes.
    """
    return _dbfs(audioop.max(audioop.ulaw2lin(codes, _WIDTH), _WIDTH) / _FULL_SCALE)


class Meter:
    """Level, peak and a voice hint of one stream, as they move. The frames' sizes are its time.

    * RMS is the mean square averaged exponentially, with `RMS_SECONDS`.
    * The peak rises at once to the largest sample, stands for `PEAK_HOLD_SECONDS` and then falls.
    * Voice is a frame that is `VOICE_MARGIN_DB` above the noise floor, and `VOICE_HANGOVER_SECONDS` after it.
      The floor falls at once to the quietest frame and rises slowly. This is a hint for meters and logs: it
      hears music, and steady noise that sets in until the floor has caught up with it.

    Args:
        every: Which frames it is fed with: each (1), every second (2), ...; a frame counts for so many.

    Raises:
        ValueError: `every` is less than 1.
    """

    __slots__ = (
        "_every",
        "_fall",
        "_hangover",
        "_held",
        "_noise",
        "_peak",
        "_power",
        "_rise",
        "_samples",
        "_size",
        "_weight",
    )

    def __init__(self, *, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every {every}th frame")
        self._every = every
        self._power = 0.0  # mean square, 1.0 is full scale
        self._peak = 0.0  # magnitude, 1.0 is full scale
        self._held = 0  # samples for which the peak still stands
        self._noise = _NOISE_FIRST  # mean square
        self._hangover = 0  # samples for which voice still lasts
        # What a frame of the size seen last stands for.
        self._size = -1
        self._samples = 0
        self._weight = self._fall = self._rise = 0.0

    @property
    def rms_dbfs(self) -> float:
        """FLOOR_DBFS..-0.17; FLOOR_DBFS for silence."""
        return _dbfs(math.sqrt(self._power))

    @property
    def peak_dbfs(self) -> float:
        """FLOOR_DBFS..-0.17; FLOOR_DBFS for silence."""
        return _dbfs(self._peak)

    @property
    def noise_dbfs(self) -> float:
        """The noise floor, NOISE_LOWEST_DBFS..-0.17."""
        return _dbfs(math.sqrt(self._noise))

    @property
    def voice(self) -> bool:
        """Whether somebody seems to be speaking."""
        return self._hangover > 0

    def feed(self, frame: bytes) -> None:
        """Takes a frame of mu-law, of any length. Once per frame."""
        size = len(frame)
        if size != self._size:
            if not size:
                return
            self._scale(size)
        linear = audioop.ulaw2lin(frame, _WIDTH)
        level = audioop.rms(linear, _WIDTH) / _FULL_SCALE
        power = level * level
        self._power += (power - self._power) * self._weight

        peak = audioop.max(linear, _WIDTH) / _FULL_SCALE
        if peak >= self._peak:
            self._peak = peak
            self._held = _PEAK_HOLD
        elif self._held > 0:
            self._held -= self._samples
        else:
            self._peak *= self._fall

        noise = self._noise * self._rise
        if power < noise:
            noise = power if power > _NOISE_LOWEST else _NOISE_LOWEST
        self._noise = noise
        if power > noise * _MARGIN:
            self._hangover = _HANGOVER
        elif self._hangover > 0:
            self._hangover -= self._samples

    def _scale(self, size: int) -> None:
        """Works out what a frame of `size` codes does to each of the averages."""
        self._size = size
        self._samples = size * self._every
        seconds = self._samples / _RATE
        self._weight = -math.expm1(-seconds / RMS_SECONDS)
        self._fall = 10 ** (-PEAK_FALL_DB_PER_SECOND * seconds / 20)
        self._rise = 10 ** (NOISE_RISE_DB_PER_SECOND * seconds / 10)


def _dbfs(amplitude: float) -> float:
    """`amplitude`: 1.0 is full scale."""
    if amplitude <= 0.0:
        return FLOOR_DBFS
    return max(20.0 * math.log10(amplitude), FLOOR_DBFS)
