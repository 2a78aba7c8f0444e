from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from handlehome.bench import filters

Samples = NDArray[np.int16]


class Linear:
    """A converter with given taps, in float64, that computes everything again for each chunk."""

    def __init__(self, taps: NDArray[np.float64], up: int, down: int) -> None:
        self._taps, self._up, self._down = taps, up, down
        self._parts: list[Samples] = []
        self._went = 0

    def process(self, samples: Samples, /) -> Samples:
        self._parts.append(samples)
        whole = np.concatenate(self._parts)
        ready = -(-len(whole) * self._up // self._down)
        return self._hand_out(whole, ready)

    def flush(self) -> Samples:
        return self._hand_out(np.concatenate(self._parts), None)

    def _hand_out(self, whole: Samples, until: int | None) -> Samples:
        out = np.rint(signal.upfirdn(self._taps, whole.astype(np.float64), self._up, self._down))[:until]
        part = out[self._went :].astype(np.int16)
        self._went = len(out)
        return part


class InFrames(Linear):
    """The same, but it takes nothing before it has 20 ms."""

    def __init__(self, taps: NDArray[np.float64], up: int, down: int) -> None:
        super().__init__(taps, up, down)
        self._waiting: list[Samples] = []

    def process(self, samples: Samples, /) -> Samples:
        self._waiting.append(samples)
        if sum(map(len, self._waiting)) < 160:
            return np.empty(0, np.int16)
        return super().process(self._taken())

    def flush(self) -> Samples:
        return np.concatenate([super().process(self._taken()), super().flush()])

    def _taken(self) -> Samples:
        taken = np.concatenate([np.empty(0, np.int16), *self._waiting])
        self._waiting.clear()
        return taken


def upwards(taps: NDArray[np.float64], kind: type[Linear] = Linear) -> filters.Subject:
    return filters.Subject("8 to 24", 8000, 24000, lambda: kind(taps, 3, 1))


def downwards(taps: NDArray[np.float64]) -> filters.Subject:
    return filters.Subject("24 to 8", 24000, 8000, lambda: Linear(taps, 1, 3))


def gain_db(taps: NDArray[np.float64], hz: float, rate: int) -> float:
    return float(20 * np.log10(np.abs(np.sum(taps * np.exp(-2j * np.pi * hz / rate * np.arange(len(taps)))))))


SHORT = np.asarray(3 * signal.firwin(31, 4000, fs=24000))  # a delay of 15 samples at 24 kHz
LONG = np.asarray(3 * signal.firwin(241, 4000, fs=24000))


def test_gains_are_those_of_the_taps() -> None:
    """What a filter's response says is what is measured on tones, in both directions."""
    for subject, taps, scale in ((upwards(SHORT), SHORT, 3.0), (downwards(SHORT / 3), SHORT / 3, 1.0)):
        gains = filters.gains_db(subject, 200)
        expected = [gain_db(taps / scale, hz, 24000) for hz in range(0, 3401, 200)]
        assert gains == pytest.approx(expected, abs=0.002)
        assert filters.ripple_db(subject, 200) == pytest.approx(np.ptp(expected), abs=0.004)


@pytest.mark.parametrize("taps", [SHORT, LONG], ids=["short", "long"])
def test_rejection_is_that_of_the_taps(taps: NDArray[np.float64]) -> None:
    """Of the strongest image of any tone, and of the strongest alias."""
    tones = range(100, 3401, 100)
    images = [8000 - hz for hz in tones] + [8000 + hz for hz in tones] + [16000 - hz for hz in tones]
    expected = -max(gain_db(taps / 3, hz, 24000) for hz in images if hz <= 12000)
    assert filters.rejection_db(upwards(taps), 100) == pytest.approx(expected, abs=0.2)
    outside = [hz for hz in range(4600, 12000, 100) if abs(hz - 8000) <= 3400]
    expected = -max(gain_db(taps / 3, hz, 24000) for hz in outside)
    assert filters.rejection_db(downwards(taps / 3), 100) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("make", [upwards, lambda taps: downwards(taps / 3)], ids=["up", "down"])
def test_shift_is_half_the_filters_length(make: Callable[[NDArray[np.float64]], filters.Subject]) -> None:
    assert filters.shift_seconds(make(SHORT)) == 15 / 24000
    assert filters.shift_seconds(make(LONG)) == 120 / 24000


def test_waits_of_a_stream_that_holds_nothing_back_are_its_shift() -> None:
    waits = filters.waits(upwards(SHORT), 0.2)
    assert waits.first_ms == 1.0
    assert waits.least_ms == pytest.approx(0.625)
    assert waits.most_ms == pytest.approx(0.625)


def test_waits_of_a_stream_that_works_in_frames_go_up_and_down() -> None:
    """Right after its frame nothing waits, right before it 19 ms do."""
    waits = filters.waits(upwards(SHORT, InFrames), 0.2)
    assert waits.first_ms == 20.0
    assert waits.least_ms == pytest.approx(0.625)
    assert waits.most_ms == pytest.approx(19.625)


def test_swept_sine_tells_a_good_filter_from_a_bad_one() -> None:
    """The errors of the bad one are 3 % of the sine, those of the good one are the rounding's."""
    assert filters.sweep_snr_db(upwards(SHORT)) == pytest.approx(30.0, abs=1.0)
    steep = np.asarray(3 * signal.firwin(961, 4000, window=("kaiser", 9.0), fs=24000))
    assert filters.sweep_snr_db(upwards(steep)) > 80.0


def test_a_tone_has_the_level_and_the_frequency_it_was_asked_for() -> None:
    spectrum = np.abs(np.fft.rfft(filters.tone(1000, 8000, 1.0))) / 4000
    assert np.argmax(spectrum) == 1000
    assert spectrum[1000] == pytest.approx(16384, abs=1)
    assert np.array_equal(filters.tone(0, 8000, 0.01), np.full(80, 16384, np.int16))
