"""Measures a sample-rate converter as a black box: 16-bit samples in, 16-bit samples out.

Each figure is taken from what the converter makes of a signal, never from its coefficients, so that rounding,
chunking and state are part of it, and any converter can stand beside any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

PASSBAND_HZ: Final = 3400
"""Upper end of the telephone band (ITU-T G.712)."""

STOPBAND_HZ: Final = 4600
"""Where the first image of the telephone band begins: 8000 - 3400."""

_AMPLITUDE: Final = 16384.0  # 6 dB below full scale
_TONE_SECONDS: Final = 1.5
_SETTLED_SECONDS: Final = 0.25  # what comes out before isn't looked at
_SWEEP_SECONDS: Final = 2.0
_SWEEP_HZ: Final = (50.0, 3350.0)
_FADE_SECONDS: Final = 0.05
_CENTRE_SECONDS: Final = 0.5  # of the pulse that tells the time shift
_PULSE_SECONDS: Final = 0.0005  # its standard deviation: nothing of it beyond 2 kHz
_NEAR_SECONDS: Final = 0.01
_GRID_HZ: Final = 48000  # shifts are whole samples at all of 8, 16 and 24 kHz


class Converter(Protocol):
    """A stream through a converter."""

    def process(self, samples: NDArray[np.int16], /) -> NDArray[np.int16]:
        """Takes a chunk and returns what is ready."""

    def flush(self) -> NDArray[np.int16]:
        """Returns the rest."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured.

    Attributes:
        name: For people.
        source: Hz.
        target: Hz.
        make: A new stream from `source` to `target`.
        streams: False for one that wants the whole signal at once.
    """

    name: str
    source: int
    target: int
    make: Callable[[], Converter]
    streams: bool = True


@dataclass(frozen=True, slots=True)
class Waits:
    """How far a stream's output is behind its input.

    Attributes:
        first_ms: Input that is needed before anything comes out.
        least_ms: What an event in the input takes to come out, at best ...
        most_ms: ... and at worst, right after the next chunk of 1 ms has gone in.
    """

    first_ms: float
    least_ms: float
    most_ms: float


def tone(hz: float, rate: int, seconds: float = _TONE_SECONDS) -> NDArray[np.int16]:
    """A cosine 6 dB below full scale (0 Hz: a constant), rounded to 16 bits."""
    instants = np.arange(round(rate * seconds)) / rate
    return _samples(_AMPLITUDE * np.cos(2 * np.pi * hz * instants))


def gains_db(subject: Subject, step_hz: int = 50) -> NDArray[np.float64]:
    """The gain for tones from 0 to 3400 Hz, one per `step_hz`."""
    frequencies = range(0, PASSBAND_HZ + 1, step_hz)
    return np.array([20 * np.log10(_spectrum(subject, hz)[hz]) for hz in frequencies])


def ripple_db(subject: Subject, step_hz: int = 50) -> float:
    """The highest gain less the lowest in the passband."""
    return float(np.ptp(gains_db(subject, step_hz)))


def rejection_db(subject: Subject, step_hz: int = 50) -> float:
    """How far images (upwards) or aliases (downwards) are below the tone that makes them, at worst.

    Upwards: tones from the passband, and the strongest line from 4600 Hz on. Downwards: tones from 4600 Hz
    on, and the strongest line in the passband.
    """
    if subject.target > subject.source:
        tones, seen = range(step_hz, PASSBAND_HZ + 1, step_hz), slice(STOPBAND_HZ, None)
    else:
        tones, seen = range(STOPBAND_HZ, subject.source // 2, step_hz), slice(0, PASSBAND_HZ + 1)
    return float(min(-20 * np.log10(_spectrum(subject, hz)[seen].max()) for hz in tones))


def shift_seconds(subject: Subject) -> float:
    """By how much the output, taken as a signal that starts with the input, is late."""
    instants = np.arange(round(subject.source * 2 * _CENTRE_SECONDS)) / subject.source
    pulse = _AMPLITUDE * np.exp(-0.5 * ((instants - _CENTRE_SECONDS) / _PULSE_SECONDS) ** 2)
    out = _whole(subject, _samples(pulse)).astype(np.float64)
    # The centre of gravity, of the pulse alone: far from it the dither that soxr adds would have leverage.
    near = round(subject.target * _NEAR_SECONDS)
    peak = int(np.argmax(out))
    around = np.arange(peak - near, peak + near + 1)
    centroid = float(np.sum(around * out[around]) / np.sum(out[around])) / subject.target
    shift = centroid - _CENTRE_SECONDS
    exact = round(shift * _GRID_HZ) / _GRID_HZ
    return exact if abs(shift - exact) < 1e-6 else shift


def waits(subject: Subject, seconds: float = 2.0) -> Waits:
    """Feeds noise millisecond by millisecond and watches what comes out when."""
    stream = subject.make()
    chunk = subject.source // 1000
    noise = _samples(np.random.default_rng(1).normal(0.0, 3000.0, round(1000 * seconds) * chunk))
    shift_ms = shift_seconds(subject) * 1000
    first = None
    out = 0
    behind = []
    for fed_ms in range(1, len(noise) // chunk + 1):
        out += len(stream.process(noise[(fed_ms - 1) * chunk : fed_ms * chunk]))
        if first is None and out:
            first = float(fed_ms)
        behind.append(fed_ms - out * 1000 / subject.target + shift_ms)
    # The least one only once the stream runs: before, its silence counts as prompt.
    return Waits(first or float("inf"), min(behind[len(behind) // 2 :]), max(behind))


def sweep_snr_db(subject: Subject) -> float:
    """A sine swept through the passband in 2 s, against the sweep computed at the outputs' own instants."""
    sweep = _samples(_sweep(np.arange(round(subject.source * _SWEEP_SECONDS)) / subject.source))
    out = _whole(subject, sweep).astype(np.float64)
    ideal = _sweep(np.arange(len(out)) / subject.target - shift_seconds(subject))
    return float(10 * np.log10(np.sum(ideal**2) / np.sum((out - ideal) ** 2)))


def _spectrum(subject: Subject, hz: int) -> NDArray[np.float64]:
    """Amplitudes of the converted tone, relative to its own, one per Hz from 0 to half the target rate."""
    out = _whole(subject, tone(hz, subject.source))
    settled = out[round(subject.target * _SETTLED_SECONDS) :][: subject.target]
    lines = np.abs(np.fft.rfft(settled)) / (len(settled) * _AMPLITUDE)
    lines[1:-1] *= 2  # each of them stands for its negative frequency, too
    return np.maximum(lines, 1e-10)


def _whole(subject: Subject, samples: NDArray[np.int16]) -> NDArray[np.int16]:
    stream = subject.make()
    return np.concatenate([stream.process(samples), stream.flush()])


def _sweep(instants: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = _SWEEP_HZ
    phase = 2 * np.pi * (low * instants + (high - low) / (2 * _SWEEP_SECONDS) * instants**2)
    edge = np.minimum(instants, _SWEEP_SECONDS - instants) / _FADE_SECONDS
    fade = 0.5 - 0.5 * np.cos(np.pi * np.clip(edge, 0.0, 1.0))
    return np.asarray(_AMPLITUDE * fade * np.sin(phase))


def _samples(signal: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.rint(signal).astype(np.int16)
