import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from handlehome.codecs import wav
from handlehome.codecs.g711 import ulaw_decode, ulaw_encode
from handlehome.codecs.levels import (
    FLOOR_DBFS,
    NOISE_FIRST_DBFS,
    NOISE_LOWEST_DBFS,
    Meter,
    peak_dbfs,
    rms_dbfs,
)

SPEECH = sorted(Path(__file__).parent.parent.glob("bench/speech/caller-*.wav"))
SILENCE = b"\xff" * 160
LOUDEST = 20 * math.log10(32124 / 32768)


def tone(level: float, seconds: float = 1.0) -> bytes:
    """A 1 kHz tone with an RMS of `level` dBFS."""
    amplitude = 32768 * math.sqrt(2) * 10 ** (level / 20)
    time = np.arange(round(8000 * seconds)) / 8000
    return ulaw_encode(np.rint(amplitude * np.sin(2 * np.pi * 1000 * time + 0.2)).astype(np.int16))


def noise(level: float, seconds: float) -> NDArray[np.float64]:
    """White noise with an RMS of `level` dBFS."""
    return np.random.default_rng(7).normal(0, 32768 * 10 ** (level / 20), round(8000 * seconds))


def encode(samples: NDArray[np.float64]) -> bytes:
    return ulaw_encode(np.clip(np.rint(samples), -32768, 32767).astype(np.int16))


def feed(meter: Meter, codes: bytes, size: int = 160) -> list[bool]:
    """Feeds a meter frame by frame, and returns what it said of voice."""
    voice = []
    for start in range(0, len(codes), size):
        meter.feed(codes[start : start + size])
        voice.append(meter.voice)
    return voice


@pytest.mark.parametrize("codes", [b"", b"\xff" * 160, b"\x7f" * 160, b"\xff\x7f" * 80])
def test_silence_has_the_floor_level(codes: bytes) -> None:
    assert rms_dbfs(codes) == peak_dbfs(codes) == FLOOR_DBFS


def test_the_loudest_and_the_softest_levels() -> None:
    assert rms_dbfs(b"\x00\x80" * 80) == pytest.approx(LOUDEST, abs=1e-4)
    assert peak_dbfs(b"\xff" * 159 + b"\x00") == pytest.approx(LOUDEST, abs=1e-9)
    assert rms_dbfs(b"\x7e\xfe" * 80) == pytest.approx(-72.247, abs=1e-3)
    assert rms_dbfs(b"\xff" * 999_999 + b"\x7e") == FLOOR_DBFS


def test_the_loudest_sine_is_three_decibels_below_full_scale() -> None:
    assert rms_dbfs(tone(-3.18)) == pytest.approx(-3.18, abs=0.1)


@given(st.binary(min_size=1, max_size=400))
def test_levels_equal_the_definition(codes: bytes) -> None:
    samples = ulaw_decode(codes).astype(np.float64)
    rms = math.sqrt(np.mean(samples**2))
    peak = np.abs(samples).max()
    if not peak:
        rms = peak = 32768 * 10 ** (FLOOR_DBFS / 20)
    assert rms_dbfs(codes) == pytest.approx(20 * math.log10(rms / 32768), abs=1e-3)
    assert peak_dbfs(codes) == pytest.approx(20 * math.log10(peak / 32768), abs=1e-9)


def test_a_new_meter_shows_silence() -> None:
    meter = Meter()
    assert meter.rms_dbfs == meter.peak_dbfs == FLOOR_DBFS
    assert not meter.voice


def test_an_empty_frame_changes_nothing() -> None:
    meter = Meter()
    feed(meter, tone(-20, 0.1))
    before = meter.rms_dbfs, meter.peak_dbfs, meter.noise_dbfs, meter.voice
    meter.feed(b"")
    assert (meter.rms_dbfs, meter.peak_dbfs, meter.noise_dbfs, meter.voice) == before


def test_every_of_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="every 0th"):
        Meter(every=0)


def test_rms_settles_at_the_level_of_a_steady_tone() -> None:
    meter = Meter()
    feed(meter, tone(-20, 2.0))
    assert meter.rms_dbfs == pytest.approx(rms_dbfs(tone(-20)), abs=0.05)


def test_rms_falls_by_the_standards_rate_when_the_tone_ends() -> None:
    """Time weighting F falls by 10 lg(e) = 4.34 dB per 125 ms: 34.7 dB/s."""
    meter = Meter()
    feed(meter, tone(-20, 2.0))
    before = meter.rms_dbfs
    feed(meter, SILENCE * 50)
    assert before - meter.rms_dbfs == pytest.approx(34.74, abs=0.05)


def test_rms_rises_to_63_percent_of_the_power_in_one_time_constant() -> None:
    meter = Meter()
    feed(meter, tone(-20, 0.125), size=100)
    expected = rms_dbfs(tone(-20)) + 10 * math.log10(1 - math.exp(-1))
    assert meter.rms_dbfs == pytest.approx(expected, abs=0.05)


def test_the_peak_rises_at_once_stands_a_second_and_falls_20_db_in_1700_ms() -> None:
    meter = Meter()
    meter.feed(SILENCE[:-1] + b"\x00")
    assert meter.peak_dbfs == pytest.approx(LOUDEST, abs=1e-9)
    feed(meter, SILENCE * 50)
    assert meter.peak_dbfs == pytest.approx(LOUDEST, abs=1e-9)
    feed(meter, SILENCE * 85)
    assert meter.peak_dbfs == pytest.approx(LOUDEST - 20, abs=1e-6)


def test_the_peak_of_a_steady_tone_stands() -> None:
    meter = Meter()
    for _ in range(200):
        meter.feed(b"\x10\x90" * 80)
        assert meter.peak_dbfs == pytest.approx(peak_dbfs(b"\x10"), abs=1e-9)


def test_a_louder_peak_takes_over_and_stands_anew() -> None:
    meter = Meter()
    feed(meter, tone(-30, 0.02) + SILENCE * 60)
    assert meter.peak_dbfs < peak_dbfs(tone(-30))
    feed(meter, tone(-20, 0.02) + SILENCE * 50)
    assert meter.peak_dbfs == pytest.approx(peak_dbfs(tone(-20)), abs=1e-9)


def test_the_peak_never_falls_below_what_plays() -> None:
    meter = Meter()
    feed(meter, tone(-10, 0.1))
    feed(meter, tone(-25, 10.0))
    assert meter.peak_dbfs == pytest.approx(peak_dbfs(tone(-25)), abs=0.3)


@pytest.mark.parametrize("size", [80, 320, 1600])
def test_frames_of_other_sizes_take_as_long(size: int) -> None:
    usual, other = Meter(), Meter()
    audio = tone(-20, 1.0) + SILENCE * 75
    feed(usual, audio)
    feed(other, audio, size)
    assert other.rms_dbfs == pytest.approx(usual.rms_dbfs, abs=0.01)
    assert other.peak_dbfs == pytest.approx(usual.peak_dbfs, abs=0.3 + 20 / 1.7 * size / 8000)
    assert other.noise_dbfs == pytest.approx(usual.noise_dbfs, abs=0.01)


def test_every_fifth_frame_takes_as_long() -> None:
    each, fifth = Meter(), Meter(every=5)
    audio = tone(-20, 1.0) + SILENCE * 75
    feed(each, audio)
    for start in range(0, len(audio), 800):
        fifth.feed(audio[start : start + 160])
    assert fifth.rms_dbfs == pytest.approx(each.rms_dbfs, abs=0.1)
    assert fifth.peak_dbfs == pytest.approx(each.peak_dbfs, abs=1.2)


def test_every_fifth_frame_ends_the_hangover_as_soon() -> None:
    meter = Meter(every=5)
    meter.feed(SILENCE)
    assert feed(meter, tone(-20, 0.02) + SILENCE * 3) == [True, True, False, False]


def test_voice_is_what_stands_out_from_the_noise_and_lasts_for_the_hangover() -> None:
    meter = Meter()
    line = encode(noise(-55, 3.0))
    assert not any(feed(meter, line))
    assert all(feed(meter, tone(-30, 0.5)))
    after = feed(meter, line)
    assert after == [True] * 9 + [False] * (150 - 9)


@pytest.mark.parametrize("level", [-72, -60, -50, -41])
def test_a_steady_line_is_no_voice_from_its_first_frame_on(level: float) -> None:
    meter = Meter()
    assert not any(feed(meter, encode(noise(level, 5.0))))
    assert meter.noise_dbfs == pytest.approx(max(level, NOISE_LOWEST_DBFS), abs=3)


def test_speech_from_the_first_frame_on_is_voice() -> None:
    meter = Meter()
    assert all(feed(meter, tone(-26, 1.0)))
    assert meter.noise_dbfs == pytest.approx(NOISE_FIRST_DBFS + 3, abs=0.01)


def test_a_click_on_a_silent_line_is_no_voice() -> None:
    meter = Meter()
    feed(meter, SILENCE * 50)
    assert not any(feed(meter, b"\x7e\xfe" * 80))


def test_louder_noise_is_voice_until_the_floor_has_caught_up() -> None:
    """It rises by 3 dB a second: 25 dB more are 16 dB above the margin."""
    meter = Meter()
    feed(meter, encode(noise(-60, 2.0)))
    voice = feed(meter, encode(noise(-35, 12.0)))
    assert voice[0]
    assert not any(voice[-50:])
    assert sum(voice) / 50 == pytest.approx(16 / 3, abs=1.2)


@pytest.mark.parametrize("level", [-70, -55, -45])
def test_recorded_speech_in_noise_is_found_and_its_pauses_too(level: float) -> None:
    """The truth is P.56's: 15.9 dB below the active level, here -26 dBFS, with the hangover."""
    spoken = found = quiet = wrong = 0
    for path in SPEECH:
        speech = ulaw_decode(wav.read_line(path.read_bytes())).astype(np.float64)
        speech *= 32768 * 10 ** (-26 / 20) / np.sqrt(np.mean(speech[np.abs(speech) > 300] ** 2))
        speech = np.concatenate([np.zeros(16_000), speech, np.zeros(24_000)])
        speech = speech[: len(speech) // 160 * 160]
        power = np.mean(speech.reshape(-1, 160) ** 2, axis=1)
        truth = power > (32768 * 10 ** ((-26 - 15.9) / 20)) ** 2
        maybe = truth.copy()
        for frames in range(1, 12):
            maybe[frames:] |= truth[:-frames]
        voice = np.array(feed(Meter(), encode(speech + noise(level, len(speech) / 8000))))
        spoken += truth.sum()
        found += (voice & truth).sum()
        quiet += (~maybe).sum()
        wrong += (voice & ~maybe).sum()
    assert len(SPEECH) >= 3
    assert found > 0.98 * spoken
    assert wrong < 0.02 * quiet


@given(st.lists(st.binary(max_size=300), max_size=30), st.integers(1, 10))
def test_any_frames_keep_a_meter_in_its_ranges(frames: list[bytes], every: int) -> None:
    meter = Meter(every=every)
    peaks = [meter.peak_dbfs]
    for frame in frames:
        meter.feed(frame)
        assert FLOOR_DBFS <= meter.rms_dbfs <= LOUDEST + 1e-6
        assert peak_dbfs(frame) - 1e-9 <= meter.peak_dbfs <= LOUDEST + 1e-9
        assert meter.noise_dbfs >= NOISE_LOWEST_DBFS - 1e-9
        peaks.append(meter.peak_dbfs)
    assert all(new >= old - 20 / 1.7 * every * 300 / 8000 - 1e-6 for old, new in pairwise(peaks))
