"""Audio files as the transcription endpoint takes them; this simulator reads WAV only.

By hand and apart from `handlehome.codecs.wav`, so that a fault in the files that we write is found here.
"""

from __future__ import annotations

import audioop
import struct
from dataclasses import dataclass

PCM = 1
MULAW = 7


class AudioError(ValueError):
    """Not a WAV file, a damaged one, or a format that isn't taken."""


@dataclass(frozen=True, slots=True)
class Wav:
    """A WAV file's audio.

    Attributes:
        tag: Format tag, `PCM` or `MULAW`.
        rate: Samples per second of each channel.
        channels: Their number, interleaved.
        data: Samples, 16-bit little-endian or mu-law.
    """

    tag: int
    rate: int
    channels: int
    data: bytes

    @property
    def seconds(self) -> float:
        """Its length."""
        width = 2 if self.tag == PCM else 1
        return len(self.data) / (width * self.channels * self.rate)

    def pcm(self) -> bytes:
        """16-bit little-endian mono samples at `rate`."""
        samples = audioop.ulaw2lin(self.data, 2) if self.tag == MULAW else self.data
        return samples if self.channels == 1 else audioop.tomono(samples, 2, 0.5, 0.5)


def read(data: bytes, *, mulaw: bool = False) -> Wav:
    """Reads a WAV file of 16-bit PCM, one or two channels.

    Args:
        data: The file.
        mulaw: Mu-law (format tag 7) is taken too. Whether the real API does is not verified.

    Raises:
        AudioError: It isn't such a file, or is cut short.
    """
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise AudioError("no RIFF/WAVE header")
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if at + 8 + size > len(data):
            raise AudioError(f"chunk {name.decode('latin-1')!r} is cut short")
        chunks.setdefault(name, data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    if len(chunks.get(b"fmt ", b"")) < 16 or b"data" not in chunks:
        raise AudioError("no fmt or data chunk")
    tag, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    if (tag, bits) != (PCM, 16) and ((tag, bits) != (MULAW, 8) or not mulaw):
        raise AudioError(f"format tag {tag} with {bits} bits")
    if channels not in (1, 2) or not 4000 <= rate <= 192_000 or block != channels * bits // 8:
        raise AudioError(f"{channels} channels at {rate} Hz in blocks of {block} bytes")
    samples = chunks[b"data"]
    return Wav(tag, rate, channels, samples[: len(samples) // block * block])
