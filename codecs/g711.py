"""G.711: mu-law and A-law, to and from 16-bit linear samples.

Linear samples are int16, native byte order, left-justified as in ITU-T G.191 (Software Tool Library, module
g711): mu-law uses the upper 14 bits, A-law the upper 13. Codes are bytes as they stand on the line, A-law
with its even bits toggled. Decoding is exact for all 256 codes, encoding for all 65,536 samples, both as
defined by `ulaw_expand`, `ulaw_compress`, `alaw_expand` and `alaw_compress` of G.191.

Which implementation, and why
-----------------------------

Two are at hand: tables indexed by numpy, and `audioop` (stdlib until 3.12, the package audioop-lts from 3.13
on), a C loop over the bytes. Microseconds on one core of a 2-core cloud machine, CPython 3.11:

====================  =====  ======  ======  ===================================================
samples                 160    9600  80,000
====================  =====  ======  ======  ===================================================
decode, audioop        0.13       4      31  **used at every size**
... into an array      1.1        5      37  **used at every size**: audioop, and a copy
... numpy table        2.2       12      90  numpy pays 1 to 2 us per call and 8 bytes per index
mu-law encode, numpy   1.3       11      80  **used at every size**: exact
mu-law enc., audioop   0.6      140    1390  not exact (below), and searches the segment in a loop
A-law encode, numpy    1.3       12      85  **used above 480 samples**
A-law enc., audioop    0.6      135    1290  **used up to 480 samples**
====================  =====  ======  ======  ===================================================

(audioop's own time; an ndarray round its result costs 0.4 us more.)

audioop's decoders equal G.191 for all codes and its A-law encoder for all samples. Its mu-law encoder differs
for 508 samples, all negative: G.191 takes the magnitude of a negative sample as its one's complement, audioop
as the two's complement of the sample that has already been shifted to 14 bits (rounding down), which is one
14-bit step more, and with it the last four values before each decision threshold fall on the wrong side. A
test counts them.
"""

import audioop
from typing import Final

import numpy as np
from numpy.typing import NDArray

Buffer = bytes | bytearray | memoryview

ULAW_SILENCE: Final = 0xFF
"""Mu-law code of +0, what an idle line sends."""

ALAW_SILENCE: Final = 0xD5
"""A-law code of the smallest positive value (+8: A-law has no zero)."""

# Up to here audioop's A-law encoder is faster than a numpy table (the curves cross at 500 to 700 samples).
_ALAW_AUDIOOP_SAMPLES: Final = 480

_INT16: Final = np.dtype(np.int16)
_WIDTH: Final = 2  # bytes per linear sample, audioop's word for int16


def _ulaw_encode_table() -> NDArray[np.uint8]:
    """The codes of all samples, indexed by the sample's 16 bits taken as unsigned (G.711 table 2a/2b)."""
    samples = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
    # G.191: a negative sample's magnitude is its one's complement; 33 is the bias that makes every segment
    # start at a power of two, and 8191 the end of the last segment, all in units of the 14-bit scale.
    magnitude = np.minimum((np.where(samples < 0, ~samples, samples).astype(np.int32) >> 2) + 33, 8191)
    segment = np.frexp(magnitude)[1] - 6  # 0..7, by the position of the highest set bit (33 has bit 5)
    step = (magnitude >> (segment + 1)) & 0x0F
    sign = np.where(samples < 0, 0x80, 0)
    codes = ~(sign | segment << 4 | step) & 0xFF  # the line carries the complement
    return np.asarray(codes, np.uint8)


def _alaw_encode_table() -> NDArray[np.uint8]:
    """The codes of all samples, indexed by the sample's 16 bits taken as unsigned (G.711 table 1a/1b)."""
    samples = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
    magnitude = np.where(samples < 0, ~samples, samples).astype(np.int32) >> 4  # 0..2047
    # Segments 0 and 1 have the same step; from segment 1 on the leading one is implied.
    segment = np.maximum(np.frexp(magnitude)[1] - 4, 0)
    step = (magnitude >> np.maximum(segment - 1, 0)) & 0x0F
    sign = np.where(samples < 0, 0, 0x80)
    codes = (sign | segment << 4 | step) ^ 0x55  # the line carries even bits toggled
    return np.asarray(codes, np.uint8)


_ULAW_CODES: Final = _ulaw_encode_table()
_ALAW_CODES: Final = _alaw_encode_table()


def ulaw_decode(codes: Buffer) -> NDArray[np.int16]:
    """Decodes mu-law.

    Args:
        codes: Any number of codes.

    Returns:
        One sample per code, shape (len(codes),), -32124..32124, read-only (a view of what audioop made; who
        needs to write uses `ulaw_decode_into`).
    """
    return np.frombuffer(audioop.ulaw2lin(codes, _WIDTH), np.int16)


def alaw_decode(codes: Buffer) -> NDArray[np.int16]:
    """Decodes A-law.

    Args:
        codes: Any number of codes.

    Returns:
        One sample per code, shape (len(codes),), -32256..32256, read-only as with `ulaw_decode`.
    """
    return np.frombuffer(audioop.alaw2lin(codes, _WIDTH), np.int16)


def ulaw_decode_into(codes: Buffer, out: NDArray[np.int16] | NDArray[np.float32]) -> None:
    """Decodes mu-law into a preallocated array.

    Args:
        codes: Any number of codes.
        out: Takes the samples; shape (len(codes),), int16 or a type that holds it.

    Raises:
        TypeError: `out` is of a type that doesn't hold an int16.
        ValueError: `out` has another shape.
    """
    _copy(ulaw_decode(codes), out)


def alaw_decode_into(codes: Buffer, out: NDArray[np.int16] | NDArray[np.float32]) -> None:
    """Decodes A-law into a preallocated array.

    Args:
        codes: Any number of codes.
        out: Takes the samples; shape (len(codes),), int16 or a type that holds it.

    Raises:
        TypeError: `out` is of a type that doesn't hold an int16.
        ValueError: `out` has another shape.
    """
    _copy(alaw_decode(codes), out)


def ulaw_encode(samples: NDArray[np.int16]) -> bytes:
    """Encodes mu-law, exactly as G.191 does.

    Args:
        samples: int16, one dimension.

    Returns:
        One code per sample.

    Raises:
        TypeError: The samples aren't native int16.
    """
    return _ULAW_CODES.take(_bits(samples)).tobytes()


def alaw_encode(samples: NDArray[np.int16]) -> bytes:
    """Encodes A-law, exactly as G.191 does.

    Args:
        samples: int16, one dimension.

    Returns:
        One code per sample.

    Raises:
        TypeError: The samples aren't native int16.
    """
    if len(samples) <= _ALAW_AUDIOOP_SAMPLES:
        return audioop.lin2alaw(np.ascontiguousarray(_bits(samples)).data, _WIDTH)
    return _ALAW_CODES.take(_bits(samples)).tobytes()


def ulaw_encode_into(samples: NDArray[np.int16], out: NDArray[np.uint8]) -> None:
    """Encodes mu-law into a preallocated array; nothing is allocated but numpy's index buffer.

    Args:
        samples: int16, one dimension.
        out: Takes the codes; the same shape. `np.frombuffer(block, np.uint8)` makes one of a bytearray.

    Raises:
        TypeError: The samples aren't native int16, or `out` isn't uint8.
        ValueError: `out` has another shape.
    """
    _take(_ULAW_CODES, samples, out)


def alaw_encode_into(samples: NDArray[np.int16], out: NDArray[np.uint8]) -> None:
    """Encodes A-law into a preallocated array, as `ulaw_encode_into` does.

    Args:
        samples: int16, one dimension.
        out: Takes the codes; the same shape.

    Raises:
        TypeError: The samples aren't native int16, or `out` isn't uint8.
        ValueError: `out` has another shape.
    """
    _take(_ALAW_CODES, samples, out)


def _bits(samples: NDArray[np.int16]) -> NDArray[np.uint16]:
    """The samples as table indices. Checked, because a float array would be reinterpreted, not refused."""
    if samples.dtype != _INT16:
        raise TypeError(f"samples must be int16, not {samples.dtype}")
    return samples.view(np.uint16)


def _copy(samples: NDArray[np.int16], out: NDArray[np.int16] | NDArray[np.float32]) -> None:
    # Either would broadcast a single sample over the whole of `out`; an assignment would also wrap samples
    # around to fit them into a narrower type.
    if out.shape != samples.shape:
        raise ValueError(f"out has shape {out.shape}, not {samples.shape}")
    np.copyto(out, samples)


def _take(table: NDArray[np.uint8], samples: NDArray[np.int16], out: NDArray[np.uint8]) -> None:
    # `clip` never clips here (an index has 16 bits); with the default mode numpy would buffer `out`. It
    # checks the shape of `out` itself.
    table.take(_bits(samples), out=out, mode="clip")
