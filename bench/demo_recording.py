"""The daemon's recording of a call, beside what the simulated line knows was said and heard. Pure.

The recording begins with the call, the line's own time with its media stream: so the two are off by a
constant, which is the same for both sides. A recording may leave out or double single samples, because the
line's clock is not the daemon's; therefore what is said at one moment is found by correlation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handlehome.codecs import g711, wav

TOLERANCE_MS = 40.0
"""How far anything in a recording may be from where it belongs: usually it is a few ms, but a daemon that
does not get a core in time learns late when the line began to play."""

LIKENESS = 0.9
"""Correlation from which on it is the same audio."""

_PER_MS = wav.SAMPLE_RATE // 1000
_EDGE = round(TOLERANCE_MS) * _PER_MS
_WINDOW = 50 * _PER_MS
_SEARCH = 100 * _PER_MS
_AUDIBLE = 512
"""Loudest sample (of 32768) below which a window is a pause within speech, where nothing can be found."""

Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Side:
    """One channel.

    Attributes:
        seconds: Of sound that should be in it.
        found: Which share of that (0-1) is in it.
        off_ms: How far the piece that is farthest off is from where it belongs.
        stray_ms: Of other sound in it.
    """

    seconds: float
    found: float
    off_ms: float
    stray_ms: float

    @property
    def right(self) -> bool:
        """All of it is there, where it belongs, and nothing else."""
        return self.seconds > 0 and self.found == 1 and self.off_ms <= TOLERANCE_MS and not self.stray_ms


@dataclass(frozen=True, slots=True)
class Comparison:
    """A recording beside the truth.

    Attributes:
        lead_ms: By how much it begins before the media stream.
        caller: Its left side.
        assistant: Its right side.
    """

    lead_ms: float
    caller: Side
    assistant: Side


def compare(file: bytes, spoken: bytes, heard: bytes) -> Comparison:
    """Compares a recording with the truth.

    Args:
        file: A stereo WAV file, the caller left, the assistant right.
        spoken: What the line sent, mu-law; silence is 0xFF.
        heard: What the line played, on the same time line.

    Raises:
        WavError: It is no such file.
    """
    recording = wav.read(file)
    if len(recording.channels) != 2 or recording.rate != wav.SAMPLE_RATE:
        raise wav.WavError(f"{len(recording.channels)} channels at {recording.rate} Hz; wanted 2 at 8000 Hz")
    left, right = recording.ulaw()
    said, played = _samples(spoken), _samples(heard)
    lead = _lag(_samples(left), said)
    return Comparison(
        lead / _PER_MS,
        _side(_samples(left), said, lead),
        _side(_samples(right), played, lead),
    )


def _samples(ulaw: bytes) -> Samples:
    return g711.ulaw_decode(ulaw).astype(np.float64)


def _lag(recorded: Samples, truth: Samples) -> int:
    """By how many samples the truth has to be moved to lie on the recording."""
    size = 1 << (len(recorded) + len(truth)).bit_length()
    spectrum = np.fft.rfft(recorded, size) * np.conj(np.fft.rfft(truth, size))
    peak = int(np.argmax(np.fft.irfft(spectrum, size)))
    return peak if peak < size // 2 else peak - size


def _side(recorded: Samples, truth: Samples, lead: int) -> Side:
    padded = np.pad(recorded, _SEARCH)
    windows, lags = 0, []
    for start in _windows(truth):
        window = truth[start : start + _WINDOW]
        windows += 1
        begin = start + lead
        lag = _found(padded[max(begin, 0) : begin + _WINDOW + 2 * _SEARCH], window) if begin >= 0 else None
        if lag is not None:
            lags.append(abs(lag - _SEARCH))
    return Side(
        seconds=int(np.count_nonzero(truth)) / wav.SAMPLE_RATE,
        found=len(lags) / windows if windows else 0.0,
        off_ms=max(lags, default=0) / _PER_MS,
        stray_ms=_stray(recorded, truth, lead) / _PER_MS,
    )


def _windows(truth: Samples) -> Iterator[int]:
    """Where something can be found: within sound, not where it begins or ends."""
    places = np.flatnonzero(truth)
    for sound in np.split(places, np.flatnonzero(np.diff(places) > _EDGE) + 1):
        if len(sound):
            for start in range(sound[0] + _EDGE, sound[-1] - _EDGE - _WINDOW + 1, _WINDOW):
                if np.abs(truth[start : start + _WINDOW]).max() >= _AUDIBLE:
                    yield start


def _found(recorded: Samples, window: Samples) -> int | None:
    """Where in a piece of the recording a window is; None: it isn't."""
    if len(recorded) < len(window):
        return None
    products = np.correlate(recorded, window, "valid")
    sums = np.concatenate(([0.0], np.cumsum(recorded**2)))
    energies = (sums[len(window) :] - sums[: -len(window)]) * np.dot(window, window)
    likeness = products / np.sqrt(np.maximum(energies, 1.0))
    best = int(np.argmax(likeness))
    return best if likeness[best] >= LIKENESS else None


def _stray(recorded: Samples, truth: Samples, lead: int) -> int:
    """Samples of sound where, give or take the tolerance, the truth has none."""
    wide = _EDGE
    sounding = np.zeros(len(recorded) + 2 * wide + 1)
    where = np.flatnonzero(truth) + lead
    where = where[(where >= 0) & (where < len(recorded))]
    # One more sound goes on from `wide` before each place, and one fewer from `wide` behind it.
    np.add.at(sounding, where, 1)
    np.add.at(sounding, where + 2 * wide + 1, -1)
    expected = np.cumsum(sounding)[wide : wide + len(recorded)] > 0
    return int(np.count_nonzero(recorded[~expected]))
