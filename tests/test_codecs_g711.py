import audioop
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from handlehome.codecs import g711

ALL_SAMPLES = np.arange(-32768, 32768).astype(np.int16)
ALL_CODES = bytes(range(256))

# The definition, one sample at a time and independent of the module's tables: decision values and outputs of
# G.711 tables 1 and 2 (scaled to 16 bits), with G.191's rule that a negative sample counts as its one's
# complement, so that the codes of x and of -1 - x differ in the sign bit only.


def ulaw_magnitudes() -> list[tuple[int, int]]:
    """For each of the 128 magnitude codes, in rising order: its lowest sample and its decoded value."""
    rows = []
    for segment in range(8):
        for step in range(16):
            low = ((16 + step) << (segment + 3)) - 132
            rows.append((max(low, 0), low + (4 << segment)))
    return rows


def alaw_magnitudes() -> list[tuple[int, int]]:
    """For each of the 128 magnitude codes, in rising order: its lowest sample and its decoded value."""
    rows = [(16 * step, 16 * step + 8) for step in range(16)]
    for segment in range(1, 8):
        rows += [((16 + step) << (segment + 3), ((33 + 2 * step) << (segment + 2))) for step in range(16)]
    return rows


def reference_codes(magnitudes: list[tuple[int, int]], code_of: Callable[[int, bool], int]) -> bytes:
    """The codes of ALL_SAMPLES by searching the decision values."""
    lows = [low for low, _ in magnitudes]
    codes = []
    rank = 0
    for magnitude in range(32768):
        while rank < 127 and magnitude >= lows[rank + 1]:
            rank += 1
        codes.append(rank)
    negative = bytes(code_of(rank, True) for rank in reversed(codes))  # sample -1 - m has magnitude m
    return negative + bytes(code_of(rank, False) for rank in codes)


def ulaw_code(rank: int, negative: bool) -> int:
    return ~(rank | (0x80 if negative else 0)) & 0xFF


def alaw_code(rank: int, negative: bool) -> int:
    return (rank | (0 if negative else 0x80)) ^ 0x55


class Law(NamedTuple):
    magnitudes: list[tuple[int, int]]
    code: Callable[[int, bool], int]
    encode: Callable[[NDArray[np.int16]], bytes]
    decode: Callable[[g711.Buffer], NDArray[np.int16]]
    encode_into: Callable[[NDArray[np.int16], NDArray[np.uint8]], None]
    decode_into: Callable[[g711.Buffer, NDArray[np.int16] | NDArray[np.float32]], None]


ULAW = Law(
    ulaw_magnitudes(),
    ulaw_code,
    g711.ulaw_encode,
    g711.ulaw_decode,
    g711.ulaw_encode_into,
    g711.ulaw_decode_into,
)
ALAW = Law(
    alaw_magnitudes(),
    alaw_code,
    g711.alaw_encode,
    g711.alaw_decode,
    g711.alaw_encode_into,
    g711.alaw_decode_into,
)
laws = pytest.mark.parametrize("law", [ULAW, ALAW], ids=["ulaw", "alaw"])


@laws
def test_encode_equals_the_standard_for_all_samples(law: Law) -> None:
    assert law.encode(ALL_SAMPLES) == reference_codes(law.magnitudes, law.code)


@laws
def test_decode_equals_the_standard_for_all_codes(law: Law) -> None:
    expected = np.zeros(256, np.int16)
    for rank, (_, value) in enumerate(law.magnitudes):
        expected[law.code(rank, False)] = value
        expected[law.code(rank, True)] = -value
    decoded = law.decode(ALL_CODES)
    assert decoded.dtype == np.int16
    assert np.array_equal(decoded, expected)


@laws
@pytest.mark.parametrize("size", [0, 1, 159, 160, 480, 481, 9600])
def test_every_size_and_the_preallocated_forms_agree(law: Law, size: int) -> None:
    """The implementation changes with the size; the result doesn't."""
    samples = np.random.default_rng(size).integers(-32768, 32768, size).astype(np.int16)
    codes = law.encode(samples)
    assert codes == b"".join(law.encode(samples[n : n + 1]) for n in range(size))
    codes_out = np.empty(size, np.uint8)
    law.encode_into(samples, codes_out)
    assert codes_out.tobytes() == codes
    samples_out = np.empty(size, np.int16)
    law.decode_into(codes, samples_out)
    assert np.array_equal(samples_out, law.decode(codes))


@laws
def test_strided_samples_and_outputs_are_understood(law: Law) -> None:
    """One channel of interleaved stereo goes in and comes out."""
    stereo = np.arange(-2000, 2000, dtype=np.int16).reshape(-1, 2)
    left = stereo[:, 0]
    assert law.encode(left) == law.encode(left.copy())
    assert law.encode(left[:100]) == law.encode(left[:100].copy())
    out = np.zeros_like(stereo)
    law.decode_into(law.encode(left), out[:, 1])
    assert np.array_equal(out[:, 1], law.decode(law.encode(left)))
    assert not out[:, 0].any()


@laws
def test_codes_survive_decoding_and_encoding(law: Law) -> None:
    """But for mu-law's -0, which decodes to the sample 0 like +0."""
    again = law.encode(law.decode(ALL_CODES))
    changed = [n for n in range(256) if again[n] != n]
    assert changed == ([0x7F] if law is ULAW else [])


@laws
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_decode_takes_any_bytes(law: Law, kind: type) -> None:
    assert np.array_equal(law.decode(kind(ALL_CODES)), law.decode(ALL_CODES))


@laws
def test_an_output_of_the_wrong_shape_is_an_error(law: Law) -> None:
    with pytest.raises(ValueError, match="shape"):
        law.decode_into(b"\xff", np.empty(2, np.int16))
    with pytest.raises(ValueError, match=r"shape|match"):
        law.encode_into(np.zeros(1, np.int16), np.empty(2, np.uint8))


@laws
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint16, ">i2"])
def test_samples_of_another_type_are_an_error(law: Law, dtype: object) -> None:
    with pytest.raises(TypeError, match="int16"):
        law.encode(np.zeros(4, dtype))
    with pytest.raises(TypeError, match="int16"):
        law.encode_into(np.zeros(4, dtype), np.empty(4, np.uint8))


@laws
def test_decoding_into_floats_and_into_what_cannot_hold_a_sample(law: Law) -> None:
    """A resampler's float32 buffer takes the samples as they are."""
    floats = np.empty(256, np.float32)
    law.decode_into(ALL_CODES, floats)
    assert np.array_equal(floats, law.decode(ALL_CODES))
    with pytest.raises(TypeError, match="cast"):
        law.decode_into(ALL_CODES, np.empty(256, np.uint8))  # type: ignore[arg-type]  # the error itself


def test_audioop_encodes_508_negative_samples_otherwise_in_mu_law_and_none_in_a_law() -> None:
    theirs = np.frombuffer(audioop.lin2ulaw(ALL_SAMPLES.tobytes(), 2), np.uint8)
    ours = np.frombuffer(g711.ulaw_encode(ALL_SAMPLES), np.uint8)
    differ = ALL_SAMPLES[theirs != ours]
    assert len(differ) == 508
    assert differ.max() < 0
    assert audioop.lin2alaw(ALL_SAMPLES.tobytes(), 2) == g711.alaw_encode(ALL_SAMPLES)


def test_silence_is_the_code_of_zero() -> None:
    zero = np.zeros(1, np.int16)
    assert g711.ulaw_encode(zero) == bytes([g711.ULAW_SILENCE]) == b"\xff"
    assert g711.alaw_encode(zero) == bytes([g711.ALAW_SILENCE]) == b"\xd5"
