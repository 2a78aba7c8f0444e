"""WAV files of mu-law at 8 kHz (format tag 7), which the standard library's `wave` cannot handle."""

from __future__ import annotations

import audioop
import struct
from pathlib import Path

SAMPLE_RATE = 8000

_PCM = 1
_MULAW = 7
_SILENCE = b"\xff"


class WavError(ValueError):
    """Not a WAV file that a telephone line can play."""


def read_ulaw(data: bytes) -> bytes:
    """Returns the mu-law samples of an 8 kHz mono WAV file, mu-law or 16-bit PCM.

    Args:
        data: The file's bytes.

    Raises:
        WavError: Another container, format, rate or number of channels, or a file cut short.
    """
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise WavError("not a RIFF/WAVE file")
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        if len(body) < size:
            raise WavError(f"chunk {name!r} is cut short: {len(body)} of {size} bytes")
        chunks.setdefault(name, body)
        at += 8 + size + size % 2
    fmt = chunks.get(b"fmt ", b"")
    if len(fmt) < 16 or b"data" not in chunks:
        raise WavError("no fmt or data chunk")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", fmt)
    if channels != 1 or rate != SAMPLE_RATE:
        raise WavError(f"{channels} channels at {rate} Hz; wanted one at {SAMPLE_RATE} Hz")
    if (tag, bits) == (_MULAW, 8):
        return chunks[b"data"]
    if (tag, bits) == (_PCM, 16):
        return audioop.lin2ulaw(chunks[b"data"], 2)
    raise WavError(f"format tag {tag} with {bits} bits; wanted mu-law or 16-bit PCM")


def ulaw_wav(*channels: bytes) -> bytes:
    """Returns a mu-law WAV file at 8 kHz; shorter channels are filled up with silence.

    Args:
        channels: The mu-law samples of each channel, one or two.
    """
    length = max(map(len, channels))
    width = len(channels)
    samples = bytearray(_SILENCE * (length * width))
    for number, channel in enumerate(channels):
        samples[number : len(channel) * width : width] = channel
    fmt = struct.pack("<HHIIHHH", _MULAW, width, SAMPLE_RATE, SAMPLE_RATE * width, width, 8, 0)
    body = (
        b"WAVE" + _chunk(b"fmt ", fmt) + _chunk(b"fact", struct.pack("<I", length)) + _chunk(b"data", samples)
    )
    return _chunk(b"RIFF", body)


def write_call_wav(path: Path, left: bytes, right: bytes) -> None:
    """Writes both sides of a call into one stereo file: the caller left, the assistant right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ulaw_wav(left, right))


def _chunk(name: bytes, body: bytes | bytearray) -> bytes:
    """RIFF: chunks begin at even offsets; the pad byte is not counted in the size."""
    return struct.pack("<4sI", name, len(body)) + body + b"\0" * (len(body) % 2)
