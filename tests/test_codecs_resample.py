import timeit
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal

from handlehome.bench import filters
from handlehome.codecs.resample import DELAY_SECONDS, Resampler, impulse_response

DIRECTIONS = [(8000, 24000), (24000, 8000), (8000, 16000), (16000, 8000)]
directions = pytest.mark.parametrize(("source", "target"), DIRECTIONS)
upwards = pytest.mark.parametrize("target", [24000, 16000])

Samples = NDArray[np.int16]


def noise(size: int, seed: int = 1, peak: int = 32767) -> Samples:
    return np.random.default_rng(seed).integers(-peak - 1, peak + 1, size).astype(np.int16)


def telephone_band(size: int, rate: int = 8000, seed: int = 1) -> Samples:
    """Loud noise that has nothing beyond 3400 Hz."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(0.0, 1.0, size))
    spectrum[np.fft.rfftfreq(size, 1 / rate) > 3400] = 0
    wave = np.fft.irfft(spectrum, size)
    return np.rint(wave * 20000 / np.abs(wave).max()).astype(np.int16)


def one_shot(source: int, target: int, samples: Samples) -> Samples:
    resampler = Resampler(source, target)
    return np.concatenate([resampler.process(samples), resampler.flush()])


def subject(source: int, target: int) -> filters.Subject:
    return filters.Subject("ours", source, target, lambda: Resampler(source, target))


def reference(source: int, target: int, samples: Samples) -> NDArray[np.float64]:
    """What scipy makes with the same taps in float64, neither rounded nor saturated."""
    up, down = max(target // source, 1), max(source // target, 1)
    taps = impulse_response(max(up, down)) / down
    return np.asarray(signal.upfirdn(taps, samples.astype(np.float64), up, down))


# -- The figures, measured through int16 chunks -----------------------------------------------------------


@directions
def test_ripple_of_the_telephone_band_is_below_a_tenth_of_a_decibel(source: int, target: int) -> None:
    """It is 0.006 dB, and the gain itself is 1."""
    gains = filters.gains_db(subject(source, target))
    assert np.ptp(gains) < 0.01
    assert np.abs(gains).max() < 0.01


@directions
def test_images_and_aliases_are_60_db_down(source: int, target: int) -> None:
    """They are 67.8 dB down."""
    assert filters.rejection_db(subject(source, target)) > 67.0


@directions
def test_delay_is_below_two_milliseconds(source: int, target: int) -> None:
    """It is what `delay` says, from the first sample on, and nothing is held back besides."""
    ours = subject(source, target)
    assert Resampler(source, target).delay == DELAY_SECONDS <= 0.002
    assert filters.shift_seconds(ours) == DELAY_SECONDS
    waits = filters.waits(ours)
    assert waits.first_ms == 1.0
    assert waits.least_ms == pytest.approx(1000 * DELAY_SECONDS)
    assert waits.most_ms == pytest.approx(1000 * DELAY_SECONDS)


@directions
def test_an_impulse_comes_out_delayed_and_symmetric(source: int, target: int) -> None:
    impulse = np.zeros(source // 50, np.int16)
    impulse[0] = 30000
    response = one_shot(source, target, impulse)
    middle = round(DELAY_SECONDS * target)
    assert np.argmax(response) == middle
    assert np.array_equal(response[: middle + 1], response[middle : 2 * middle + 1][::-1])
    assert not response[2 * middle + 1 :].any()


@directions
def test_a_swept_sine_keeps_75_db_above_its_errors(source: int, target: int) -> None:
    """G.711 itself leaves 38 dB."""
    assert filters.sweep_snr_db(subject(source, target)) > 75.0


@directions
def test_a_20_ms_frame_costs_at_most_15_microseconds(source: int, target: int) -> None:
    """Typically 8; repeated until a measurement isn't disturbed by other processes."""
    resampler = Resampler(source, target)
    frame = noise(source // 50)
    timer = timeit.Timer(lambda: resampler.process(frame))
    fastest = float("inf")
    for _ in range(500):
        fastest = min(fastest, timer.timeit(100) / 100)
        if fastest < 15e-6:
            break
    assert fastest < 15e-6


# -- Beside scipy and soxr --------------------------------------------------------------------------------


@directions
@pytest.mark.parametrize("size", [1, 160, 161, 4801])
def test_agrees_with_upfirdn_to_one_step(source: int, target: int, size: int) -> None:
    """With the same taps; float32 changes what is rounded on the edge, rarely."""
    samples = noise(size)
    ours = one_shot(source, target, samples)
    theirs = np.clip(np.rint(reference(source, target, samples)), -32768, 32767)
    # Behind the last output that is not zero there may be up to two that are.
    assert 0 <= len(ours) - len(theirs) < 3
    difference = np.abs(ours[: len(theirs)] - theirs)
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.002
    assert not ours[len(theirs) :].any()


@directions
def test_agrees_with_resample_poly_to_one_step(source: int, target: int) -> None:
    """Which leaves out the delay."""
    samples = noise(source, peak=20000)
    up, down = max(target // source, 1), max(source // target, 1)
    window = impulse_response(max(up, down)) / (up * down)
    theirs = signal.resample_poly(samples.astype(np.float64), up, down, window=window)
    delay = round(DELAY_SECONDS * target)
    ours = one_shot(source, target, samples)[delay : delay + len(theirs)]
    assert np.abs(ours - np.clip(np.rint(theirs), -32768, 32767)).max() <= 1


@directions
def test_speech_band_sounds_as_from_soxr(source: int, target: int) -> None:
    """Its best quality and ours agree to 60 dB where the telephone has anything to say."""
    samples = telephone_band(source, source)
    theirs = soxr.resample(samples, source, target, quality="VHQ")
    delay = round(DELAY_SECONDS * target)
    ours = one_shot(source, target, samples)[delay : delay + len(theirs)].astype(np.float64)
    inner = slice(target // 10, -target // 10)
    error = ours[inner] - theirs[inner]
    assert 10 * np.log10(np.sum(ours[inner] ** 2) / np.sum(error**2)) > 60.0


@pytest.mark.parametrize(("quality", "at_least_ms"), [("HQ", 12.0), ("VHQ", 16.0)])
def test_soxr_waits_longer(quality: str, at_least_ms: float) -> None:
    """Before its first sample several frames, and even at best, seven times as long as ours."""

    class Stream:
        def __init__(self) -> None:
            self._stream = soxr.ResampleStream(8000, 24000, 1, dtype="int16", quality=quality)

        def process(self, samples: Samples, /) -> Samples:
            return self._stream.resample_chunk(samples)

        def flush(self) -> Samples:
            return self._stream.resample_chunk(np.empty(0, np.int16), last=True)

    waits = filters.waits(filters.Subject("soxr", 8000, 24000, Stream))
    assert waits.first_ms >= 40.0
    assert waits.least_ms >= at_least_ms > 6 * 1000 * DELAY_SECONDS


# -- The stream -------------------------------------------------------------------------------------------


def in_chunks(resampler: Resampler, samples: Samples, sizes: Sequence[int]) -> Samples:
    """In chunks of the given sizes, over and over, and to the end."""
    parts = []
    start = 0
    turn = 0
    while start < len(samples):
        size = sizes[turn % len(sizes)]
        parts.append(resampler.process(samples[start : start + size]))
        start += size
        turn += 1
    parts.append(resampler.flush())
    return np.concatenate(parts)


@given(
    direction=st.sampled_from(DIRECTIONS),
    size=st.integers(0, 2000),
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 700), min_size=1, max_size=12).filter(any),
)
def test_any_chunking_equals_one_shot_bit_for_bit(
    direction: tuple[int, int], size: int, seed: int, sizes: list[int]
) -> None:
    samples = noise(size, seed)
    assert np.array_equal(in_chunks(Resampler(*direction), samples, sizes), one_shot(*direction, samples))


@given(
    direction=st.sampled_from(DIRECTIONS),
    samples=st.lists(st.sampled_from([-32768, -32767, -1, 0, 1, 32767]), max_size=700),
    size=st.integers(1, 40),
)
def test_small_chunks_of_extreme_samples_equal_one_shot(
    direction: tuple[int, int], samples: list[int], size: int
) -> None:
    array = np.array(samples, np.int16)
    assert np.array_equal(in_chunks(Resampler(*direction), array, [size]), one_shot(*direction, array))


@given(
    direction=st.sampled_from(DIRECTIONS),
    sizes=st.lists(st.integers(0, 700), max_size=20),
)
def test_every_output_is_handed_out_as_soon_as_its_input_is_there(
    direction: tuple[int, int], sizes: list[int]
) -> None:
    source, target = direction
    resampler = Resampler(source, target)
    came = went = 0
    for size in sizes:
        came += size
        went += len(resampler.process(noise(size)))
        assert went == -(-came * target // source)


@directions
def test_streams_side_by_side_do_not_mix(source: int, target: int) -> None:
    samples = [noise(1000, seed) for seed in range(3)]
    resamplers = [Resampler(source, target) for _ in samples]
    parts: list[list[Samples]] = [[] for _ in samples]
    for start in range(0, 1000, 70):
        for part, resampler, own in zip(parts, resamplers, samples, strict=True):
            part.append(resampler.process(own[start : start + 70]))
    for part, resampler, own in zip(parts, resamplers, samples, strict=True):
        part.append(resampler.flush())
        assert np.array_equal(np.concatenate(part), one_shot(source, target, own))


@directions
@pytest.mark.parametrize("size", [1, 100, 480, 1000])
def test_after_flush_and_after_reset_it_is_as_new(source: int, target: int, size: int) -> None:
    samples = noise(500, seed=2)
    expected = one_shot(source, target, samples)
    flushed, reset = Resampler(source, target), Resampler(source, target)
    flushed.process(noise(size))
    flushed.flush()
    reset.process(noise(size))
    reset.reset()
    for resampler in (flushed, reset):
        assert np.array_equal(in_chunks(resampler, samples, [160]), expected)


@directions
def test_flush_returns_all_that_is_not_silence(source: int, target: int) -> None:
    samples = noise(3 * 333)
    whole = one_shot(source, target, samples)
    assert len(whole) == -(-len(samples) * target // source) + round(2 * DELAY_SECONDS * target)
    silence = np.zeros(source, np.int16)
    resampler = Resampler(source, target)
    longer = np.concatenate([resampler.process(samples), resampler.process(silence)])
    assert np.array_equal(longer[: len(whole)], whole)
    assert not longer[len(whole) :].any()


@directions
def test_flush_of_a_stream_without_samples_is_empty(source: int, target: int) -> None:
    resampler = Resampler(source, target)
    assert len(resampler.flush()) == 0
    assert len(resampler.process(np.empty(0, np.int16))) == 0
    assert len(resampler.flush()) == 0
    resampler.process(noise(1))
    assert len(resampler.flush()) > 0
    assert len(resampler.flush()) == 0


# -- Samples ----------------------------------------------------------------------------------------------


@upwards
def test_upwards_keeps_the_samples_themselves(target: int) -> None:
    """Between the new ones, bit for bit, the extremes included."""
    samples = noise(1600)
    ratio = target // 8000
    delay = round(DELAY_SECONDS * 8000)
    assert np.array_equal(one_shot(8000, target, samples)[::ratio][delay : delay + len(samples)], samples)


@upwards
def test_a_round_trip_returns_the_telephone_band(target: int) -> None:
    """At 57 dB or more, twice the delay later."""
    samples = telephone_band(16000)
    back = one_shot(target, 8000, one_shot(8000, target, samples))
    delay = round(2 * DELAY_SECONDS * 8000)
    returned = back[delay : delay + len(samples)]
    assert np.corrcoef(samples, returned)[0, 1] > 0.99999
    error = returned.astype(np.float64) - samples
    assert 10 * np.log10(np.mean(samples.astype(np.float64) ** 2) / np.mean(error**2)) > 57.0


@directions
def test_overshoot_is_saturated(source: int, target: int) -> None:
    """A full-scale square wave overshoots between its samples; it must not come out on the other side."""
    instants = np.arange(source)
    square = np.where(instants // (source // 1000) % 2, -32768, 32767).astype(np.int16)
    exact = np.rint(reference(source, target, square))
    ours = one_shot(source, target, square)[: len(exact)]
    assert (exact > 32767).any()
    assert (exact < -32768).any()
    assert (ours[exact > 32767] == 32767).all()
    assert (ours[exact < -32768] == -32768).all()
    assert np.abs(ours - np.clip(exact, -32768, 32767)).max() <= 1


@directions
@pytest.mark.parametrize("value", [-32768, -1, 0, 1, 32767])
def test_a_constant_stays_one(source: int, target: int, value: int) -> None:
    """Within 0.006 dB."""
    out = Resampler(source, target).process(np.full(source, value, np.int16))
    settled = out[round(2 * DELAY_SECONDS * target) :].astype(np.float64)
    assert np.abs(settled - value).max() <= abs(value) * 0.0007


@directions
def test_what_comes_out_is_the_callers_own_and_what_went_in_is_untouched(source: int, target: int) -> None:
    resampler = Resampler(source, target)
    samples = noise(source // 50)
    kept = samples.copy()
    first = resampler.process(samples)
    copy = first.copy()
    assert first.flags.writeable
    assert first.flags.owndata
    assert first.dtype == np.int16
    samples[:] = 0  # may be reused at once
    second = resampler.process(kept)
    assert np.array_equal(first, copy)
    whole = Resampler(source, target).process(np.concatenate([kept, kept]))
    assert np.array_equal(np.concatenate([first, second]), whole)


def test_views_that_are_strided_or_read_only_are_welcome() -> None:
    """The decoder's arrays are read-only, and a channel of a stereo recording is every other sample."""
    stereo = noise(640)
    stereo.flags.writeable = False
    left = stereo[::2]
    assert np.array_equal(Resampler(8000, 24000).process(left), Resampler(8000, 24000).process(left.copy()))


@pytest.mark.parametrize("samples", [np.zeros(4), np.zeros(4, np.uint8), np.zeros(4, ">i2")])
def test_other_types_than_native_int16_are_refused(samples: Samples) -> None:
    with pytest.raises(TypeError, match="must be int16"):
        Resampler(8000, 24000).process(samples)


@pytest.mark.parametrize("shape", [(), (1, 160), (160, 1)])
def test_more_or_less_than_one_dimension_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one dimension"):
        Resampler(8000, 24000).process(np.zeros(shape, np.int16))


@pytest.mark.parametrize(
    ("source", "target"), [(8000, 8000), (8000, 48000), (16000, 24000), (24000, 16000), (0, 8000), (8000, 0)]
)
def test_other_rates_are_refused_by_name(source: int, target: int) -> None:
    with pytest.raises(ValueError, match=f"{source} Hz to {target} Hz"):
        Resampler(source, target)


@directions
def test_memory_stays_where_it_is(source: int, target: int) -> None:
    """5000 frames leave nothing behind."""
    resampler = Resampler(source, target)
    frame = noise(source // 50)
    for _ in range(100):
        resampler.process(frame)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5_000):
            resampler.process(frame)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Other threads of the tests may be at work; a byte per frame would already be 5,000.
    assert after - before < 5_000
    assert peak - before < 20_000
