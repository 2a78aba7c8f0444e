"""WAV files, beside what libsndfile and the standard library make of them."""

import io
import struct
import wave

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from handlehome.codecs import g711, wav
from handlehome.codecs.wav import Tag, WavError

ALL_CODES = bytes(range(256))
SUBTYPES = {Tag.PCM: "PCM_16", Tag.ALAW: "ALAW", Tag.ULAW: "ULAW"}


def pcm(channels: int = 1, rate: int = 8000, width: int = 2) -> bytes:
    """A file of silence, as the standard library writes it."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(channels)
        file.setframerate(rate)
        file.setsampwidth(width)
        file.writeframes(bytes(100 * channels * width))
    return data.getvalue()


def test_the_header_is_that_of_mu_law() -> None:
    data = wav.write(b"abc")
    assert struct.unpack_from("<4sI4s4sIHHIIHHH", data) == (
        *(b"RIFF", len(data) - 8, b"WAVE"),
        *(b"fmt ", 18, 7, 1, 8000, 8000, 1, 8, 0),
    )
    assert data.endswith(b"fact\x04\0\0\0\x03\0\0\0data\x03\0\0\0abc\0")
    assert data.startswith(wav.header(3))
    assert len(wav.header(3)) == wav.HEADER_BYTES


def test_a_call_has_the_caller_left_and_the_assistant_right() -> None:
    data = wav.write(b"abc", b"x")
    assert data.endswith(b"ax" + b"b\xff" + b"c\xff")
    assert struct.unpack_from("<HHIIH", data, 20) == (7, 2, 8000, 16000, 2)


@given(
    st.sampled_from(Tag),
    st.lists(st.binary(max_size=50).map(lambda data: data * 2), min_size=1, max_size=3),
)
def test_what_is_written_is_read_back(tag: Tag, channels: list[bytes]) -> None:
    read = wav.read(wav.write(*channels, tag=tag))
    assert (read.tag, read.rate, len(read.channels)) == (tag, 8000, len(channels))
    for written, channel in zip(channels, read.channels, strict=True):
        assert channel.startswith(written)
        assert len(channel) == max(map(len, channels))


@pytest.mark.parametrize("tag", Tag)
@pytest.mark.parametrize("channels", [1, 2])
def test_libsndfile_reads_what_is_written_here(tag: Tag, channels: int) -> None:
    """Sample for sample, by its own G.711 tables."""
    written = [ALL_CODES, ALL_CODES[::-1]][:channels]
    samples, rate = soundfile.read(io.BytesIO(wav.write(*written, tag=tag)), dtype="int16", always_2d=True)
    decode = {
        Tag.PCM: lambda data: np.frombuffer(data, "<i2"),
        Tag.ALAW: g711.alaw_decode,
        Tag.ULAW: g711.ulaw_decode,
    }[tag]
    assert rate == 8000
    for channel, data in zip(samples.T, written, strict=True):
        assert np.array_equal(channel, decode(data))


@pytest.mark.parametrize("tag", Tag)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_libsndfile_writes_is_read_here(tag: Tag, channels: int) -> None:
    samples = np.stack([g711.ulaw_decode(ALL_CODES), g711.ulaw_decode(ALL_CODES[::-1])][:channels], axis=1)
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, subtype=SUBTYPES[tag], format="WAV")
    read = wav.read(file.getvalue())
    assert (read.tag, read.rate) == (tag, 8000)
    for channel, wanted in zip(read.ulaw(), samples.T, strict=True):
        error = np.abs(g711.ulaw_decode(channel).astype(int) - wanted)
        # A-law is coarser than mu-law where the signal is small: one of its steps there is 16.
        assert error.max() <= (0 if tag is not Tag.ALAW else np.maximum(np.abs(wanted) // 16, 16).max())


def test_the_standard_library_reads_pcm_that_is_written_here() -> None:
    with wave.open(io.BytesIO(wav.write(b"\1\2\3\4", b"\5\6", tag=Tag.PCM))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        assert file.readframes(10) == b"\1\2\5\6\3\4\0\0"


def test_a_telephone_line_takes_mono_at_8_khz() -> None:
    assert wav.read_line(wav.write(ALL_CODES)) == ALL_CODES
    assert wav.read_line(pcm()) == b"\xff" * 100
    assert wav.read_line(wav.write(bytes([g711.ALAW_SILENCE]), tag=Tag.ALAW)) == b"\xfe"


def test_chunks_that_are_not_needed_are_passed_over() -> None:
    data = wav.write(b"abc")
    odd = struct.pack("<4sI", b"LIST", 3) + b"xyz\0"
    assert wav.read_line(data[:12] + odd + data[12:] + odd) == b"abc"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "RIFF"),
        (b"RIFF\0\0\0\0WAVE", "fmt"),
        (wav.write(b"abcdef")[:-2], "cut short"),
        (pcm(channels=2), "2 channels"),
        (pcm(rate=16000), "16000 Hz"),
        (pcm(width=1), "format tag 1 with 8 bits"),
        (wav.write(b"ab").replace(b"fmt \x12\0\0\0\x07", b"fmt \x12\0\0\0\x09"), "format tag 9"),
        (wav.header(1, 2)[:-4] + struct.pack("<I", 3) + b"abc", "in frames of 2"),
    ],
)
def test_other_files_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(WavError, match=reason):
        wav.read_line(data)
