"""WAV files of telephone audio: 16-bit PCM, A-law and mu-law (format tags 1, 6, 7), any number of channels.

Why by hand: the stdlib's `wave` knows tag 1 alone, and libsndfile (the package soundfile) converts G.711 to
linear and back, on which mu-law's negative zero is lost; neither can leave a file whole that is being written
when its process dies. What is needed of RIFF is a header of 58 bytes. The tests read and write the same
files through soundfile.

A stereo file of a call has the caller left and the assistant right.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from handlehome.codecs import g711

SAMPLE_RATE: Final = 8000

SILENCE: Final = bytes([g711.ULAW_SILENCE])
"""One sample of mu-law."""

HEADER_BYTES: Final = 58
"""What stands in front of the samples in every file that is written here."""

# RFC 2361 (WAVE codec registry), and Microsoft's "Multimedia Programming Interface and Data Specifications"
# 1.0: every tag but PCM needs the size of extra bytes (0) in `fmt ` and a `fact` chunk; PCM may have them.
_HEADER: Final = struct.Struct("<4sI4s 4sIHHIIHHH 4sII 4sI")


class Tag(IntEnum):
    """How samples are coded (`wFormatTag`)."""

    PCM = 1
    ALAW = 6
    ULAW = 7

    @property
    def width(self) -> int:
        """Bytes per sample."""
        return 2 if self is Tag.PCM else 1


class WavError(ValueError):
    """Not a WAV file that can be read here."""


@dataclass(frozen=True, slots=True)
class Wav:
    """A file's content.

    Attributes:
        tag: how the samples are coded.
        rate: samples per second and channel.
        channels: each channel's samples, all of one length: codes, or little-endian int16.
    """

    tag: Tag
    rate: int
    channels: tuple[bytes, ...]

    def ulaw(self) -> tuple[bytes, ...]:
        """Each channel's samples as mu-law: its own codes, or the nearest ones (see `g711`)."""
        if self.tag is Tag.ULAW:
            return self.channels
        if self.tag is Tag.ALAW:
            return tuple(g711.ulaw_encode(g711.alaw_decode(each)) for each in self.channels)
        return tuple(
            g711.ulaw_encode(np.frombuffer(each, "<i2").astype(np.int16, copy=False))
            for each in self.channels
        )


def header(frames: int, channels: int = 1, *, tag: Tag = Tag.ULAW, rate: int = SAMPLE_RATE) -> bytes:
    """What stands in front of the samples; `HEADER_BYTES` long.

    Args:
        frames: samples per channel. All samples together stay below 4 GiB, six days of a call.
        channels: 1 or more; their samples follow interleaved.
        tag: how they are coded.
        rate: samples per second and channel.

    Raises:
        struct.error: there are more samples than a WAV file can have.
    """
    frame_bytes = channels * tag.width
    size = frames * frame_bytes
    return _HEADER.pack(
        *(b"RIFF", HEADER_BYTES - 8 + size + size % 2, b"WAVE"),
        *(b"fmt ", 18, tag, channels, rate, rate * frame_bytes, frame_bytes, tag.width * 8, 0),
        *(b"fact", 4, frames),
        *(b"data", size),
    )


def interleave(*channels: bytes, width: int = 1, silence: bytes = SILENCE) -> bytearray:
    """The samples of all channels, one of each in turn; shorter channels are filled up with silence.

    Args:
        channels: each a whole number of samples.
        width: bytes per sample.
        silence: one sample of it.
    """
    length = max(map(len, channels))
    stride = len(channels) * width
    samples = bytearray(silence * (length // width * len(channels)))
    for number, channel in enumerate(channels):
        end = len(channel) // width * stride
        for byte in range(width):
            samples[number * width + byte : end : stride] = channel[byte::width]
    return samples


def write(*channels: bytes, tag: Tag = Tag.ULAW, rate: int = SAMPLE_RATE) -> bytes:
    """Returns a whole WAV file; shorter channels are filled up with silence.

    Args:
        channels: each channel's samples, one or more: codes, or little-endian int16.
        tag: how they are coded.
        rate: samples per second and channel.
    """
    silence = {Tag.PCM: b"\0\0", Tag.ALAW: bytes([g711.ALAW_SILENCE]), Tag.ULAW: SILENCE}[tag]
    samples = interleave(*channels, width=tag.width, silence=silence)
    frames = len(samples) // (tag.width * len(channels))
    # RIFF: chunks begin at even offsets; the pad byte is not counted in the size.
    return header(frames, len(channels), tag=tag, rate=rate) + samples + b"\0" * (len(samples) % 2)


def read(data: bytes) -> Wav:
    """Reads a WAV file, whoever wrote it; chunks that are not needed are passed over.

    Args:
        data: the file's bytes.

    Raises:
        WavError: another container or coding, a file cut short or one that contradicts itself.
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
    number, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", fmt)
    if number not in tuple(Tag) or bits != Tag(number).width * 8:
        raise WavError(f"format tag {number} with {bits} bits; wanted mu-law, A-law or 16-bit PCM")
    tag = Tag(number)
    samples = chunks[b"data"]
    if not channels or frame_bytes != channels * tag.width or len(samples) % frame_bytes:
        raise WavError(
            f"{len(samples)} bytes of samples in frames of {frame_bytes} bytes, {channels} channels"
        )
    frames = np.frombuffer(samples, np.uint8).reshape(-1, channels, tag.width)
    return Wav(tag, rate, tuple(frames[:, channel].tobytes() for channel in range(channels)))


def read_line(data: bytes) -> bytes:
    """Returns the mu-law samples of a mono WAV file at 8 kHz, whatever their coding.

    Args:
        data: the file's bytes.

    Raises:
        WavError: as `read`; or another rate or number of channels.
    """
    wav = read(data)
    if len(wav.channels) != 1 or wav.rate != SAMPLE_RATE:
        raise WavError(f"{len(wav.channels)} channels at {wav.rate} Hz; wanted one at {SAMPLE_RATE} Hz")
    return wav.ulaw()[0]
