"""Audio files as the transcription endpoint takes them."""

from __future__ import annotations

import audioop
import io
import struct
import wave

import pytest

from handlehome.bench.rest import audio


def pcm_wav(samples: bytes, *, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    """A file as the standard library writes it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((channels, width, rate, 0, "NONE", ""))
        out.writeframes(samples)
    return file.getvalue()


def raw_wav(tag: int, bits: int, data: bytes, *, rate: int = 8000, channels: int = 1) -> bytes:
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_pcm_comes_out_as_it_went_in() -> None:
    samples = struct.pack("<4h", 0, 1000, -1000, 32767)
    wav = audio.read(pcm_wav(samples))
    assert (wav.tag, wav.rate, wav.channels, wav.pcm()) == (audio.PCM, 8000, 1, samples)
    assert wav.seconds == 4 / 8000


def test_stereo_is_mixed_to_mono() -> None:
    wav = audio.read(pcm_wav(struct.pack("<4h", 100, 300, -100, -300), rate=24000, channels=2))
    assert wav.seconds == 2 / 24000
    assert wav.pcm() == struct.pack("<2h", 200, -200)


def test_chunks_that_nobody_knows_are_passed_over() -> None:
    data = pcm_wav(b"\1\0\2\0")
    listed = data[:12] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + data[12:]
    assert audio.read(listed).pcm() == b"\1\0\2\0"


def test_mulaw_is_taken_only_where_it_is_allowed() -> None:
    ulaw = bytes(range(256))
    with pytest.raises(audio.AudioError, match="format tag 7 with 8 bits"):
        audio.read(raw_wav(7, 8, ulaw))
    wav = audio.read(raw_wav(7, 8, ulaw), mulaw=True)
    assert wav.pcm() == audioop.ulaw2lin(ulaw, 2)
    assert wav.seconds == 256 / 8000


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no RIFF/WAVE header"),
        (b"\xff" * 8000, "no RIFF/WAVE header"),
        (pcm_wav(b"\0" * 100)[:-1], "chunk 'data' is cut short"),
        (b"RIFF\x04\0\0\0WAVE", "no fmt or data chunk"),
        (pcm_wav(b"\0" * 100, width=1), "format tag 1 with 8 bits"),
        (raw_wav(3, 32, b"\0" * 100), "format tag 3 with 32 bits"),
        (raw_wav(1, 16, b"\0" * 100, channels=3), "3 channels"),
        (raw_wav(1, 16, b"\0" * 100, rate=0), "at 0 Hz"),
    ],
)
def test_other_files_are_refused_with_the_reason(data: bytes, problem: str) -> None:
    with pytest.raises(audio.AudioError, match=problem):
        audio.read(data, mulaw=True)
