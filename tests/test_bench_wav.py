"""Mu-law WAV files."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import pytest

from handlehome.bench import wav


def pcm(channels: int = 1, rate: int = 8000, width: int = 2) -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(channels)
        file.setframerate(rate)
        file.setsampwidth(width)
        file.writeframes(bytes(100 * channels * width))
    return data.getvalue()


def test_mono_is_read_back() -> None:
    for ulaw in (b"", b"abc", bytes(range(256))):
        assert wav.read_ulaw(wav.ulaw_wav(ulaw)) == ulaw


def test_the_header_is_that_of_mu_law() -> None:
    data = wav.ulaw_wav(b"abc")
    assert struct.unpack_from("<4sI4s4sIHHIIHHH", data) == (
        *(b"RIFF", len(data) - 8, b"WAVE"),
        *(b"fmt ", 18, 7, 1, 8000, 8000, 1, 8, 0),
    )
    assert data.endswith(b"fact\x04\0\0\0\x03\0\0\0data\x03\0\0\0abc\0")


def test_a_call_has_the_caller_left_and_the_assistant_right(tmp_path: Path) -> None:
    path = tmp_path / "new" / "call.wav"
    wav.write_call_wav(path, b"abc", b"x")
    data = path.read_bytes()
    assert data.endswith(b"ax" + b"b\xff" + b"c\xff")
    assert struct.unpack_from("<HHIIH", data, 20) == (7, 2, 8000, 16000, 2)


def test_16_bit_pcm_is_converted() -> None:
    assert wav.read_ulaw(pcm()) == b"\xff" * 100


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "RIFF"),
        (b"RIFF\0\0\0\0WAVE", "fmt"),
        (wav.ulaw_wav(b"abcdef")[:-2], "cut short"),
        (pcm(channels=2), "2 channels"),
        (pcm(rate=16000), "16000 Hz"),
        (pcm(width=1), "format tag 1 with 8 bits"),
    ],
)
def test_other_files_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(wav.WavError, match=reason):
        wav.read_ulaw(data)
