"""Audio between the line's mu-law and the model's 24 kHz."""

import base64
import copy
import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal

from handlehome.bench import speech as recordings
from handlehome.bench.realtime.script import Answer, Script
from handlehome.codecs.g711 import ulaw_decode, ulaw_encode
from handlehome.codecs.resample import DELAY_SECONDS
from handlehome.relay.model.pcm import PcmTranscoder
from handlehome.relay.model.session import AUDIO_FORMATS
from tests.relay_model_room import SESSION, conversation

DELAY = round(DELAY_SECONDS * 8000)

PCM_SESSION = copy.deepcopy(SESSION)
for side in ("input", "output"):
    PCM_SESSION["audio"][side]["format"] = AUDIO_FORMATS["pcm24k"]


def band(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """0-3400 Hz of 8 kHz audio, without delay."""
    return np.asarray(
        signal.sosfiltfilt(signal.butter(8, 3400, fs=8000, output="sos"), samples.astype(float))
    )


def correlation(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    return float(np.corrcoef(band(one), band(other))[0, 1])


def speech() -> bytes:
    return recordings.load("caller-leak").ulaw[: 8000 * 4]


def b64(audio: bytes) -> bytes:
    return base64.b64encode(audio)


def down(audio: bytes, cuts: list[int]) -> bytes:
    """An item's audio through the transcoder, cut where `cuts` says."""
    transcoder = PcmTranscoder()
    edges = [0, *sorted(cut % (len(audio) + 1) for cut in cuts), len(audio)]
    out = bytearray()
    for start, end in itertools.pairwise(edges):
        payload, size = transcoder.downlink("item", b64(audio[start:end]))
        assert len(base64.b64decode(payload)) == size
        out += base64.b64decode(payload)
    return bytes(out)


def pcm24k(ulaw: bytes) -> bytes:
    """By another resampler."""
    samples = signal.resample_poly(ulaw_decode(ulaw).astype(float), 3, 1)
    return np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes()


def test_what_goes_up_and_comes_down_is_the_same_speech() -> None:
    transcoder = PcmTranscoder()
    said = speech()
    up = b"".join(
        base64.b64decode(transcoder.uplink(b64(said[start : start + 160])))
        for start in range(0, len(said), 160)
    )
    assert len(up) == 6 * len(said)
    back = down(up, list(range(0, len(up), 7000)))
    heard = len(back) - DELAY
    assert correlation(ulaw_decode(said[:heard]), ulaw_decode(back[DELAY:])) > 0.99


@pytest.mark.parametrize("end", [8000, 9001, 13_000])
def test_the_way_down_adds_no_delay_and_loses_no_more_than_the_filter_holds(end: int) -> None:
    said = speech()[:end]
    back = down(pcm24k(said), [])
    assert len(said) - len(back) == DELAY
    said = said[: len(back)]
    assert correlation(ulaw_decode(said), ulaw_decode(back)) > 0.99
    assert np.corrcoef(ulaw_decode(said[-240:]), ulaw_decode(back[-240:]))[0, 1] > 0.9


@given(st.binary(max_size=3000), st.lists(st.integers(0, 10_000), max_size=6))
def test_any_cut_even_within_a_sample_gives_the_same_audio(audio: bytes, cuts: list[int]) -> None:
    whole = down(audio, [])
    assert down(audio, cuts) == whole
    assert len(whole) == max(-(-(len(audio) // 2) // 3) - DELAY, 0)


def test_items_do_not_mix() -> None:
    """An item whose audio begins before another's has ended is heard as if it were alone."""
    one, other = pcm24k(speech()[:4000]), pcm24k(speech()[4000:8000])
    transcoder = PcmTranscoder()
    got = {"one": bytearray(), "other": bytearray()}
    for start in range(0, len(one), 3000):
        for name, audio in (("one", one), ("other", other)):
            got[name] += base64.b64decode(transcoder.downlink(name, b64(audio[start : start + 3000]))[0])
    for name, audio in (("one", one), ("other", other)):
        transcoder.forget(name)
        assert got[name] == down(audio, [])


def test_an_item_that_comes_back_begins_anew() -> None:
    audio = pcm24k(speech()[:4000])
    transcoder = PcmTranscoder()
    for _ in range(2):
        assert base64.b64decode(transcoder.downlink("item", b64(audio))[0]) == down(audio, [])
        transcoder.forget("item")
        transcoder.forget("item")


@pytest.mark.parametrize("codes", [b"", b"\xff", bytes(range(256))])
def test_any_frame_goes_up(codes: bytes) -> None:
    assert len(base64.b64decode(PcmTranscoder().uplink(b64(codes)))) == 6 * len(codes)


async def test_a_conversation_in_24_khz() -> None:
    """Through real sockets: what was heard before the session was ready, what after it, and the answer."""
    said, answer = speech(), recordings.load("assistant-advice").ulaw[: 8000 * 3]
    script = Script(vad="manual", answers=(Answer(audio=answer, text="Bonjour."),))
    async with conversation(script, session=PCM_SESSION, transcoder=PcmTranscoder()) as (room, session):
        room.hear(said)
        assert room.handler.heard_bytes == len(said)
        room.handler.answer("greeting")
        await room.told.wait("response_done")
        await room.told.wait("audio_done")
        (audio,) = room.told.audio.values()
        await session.wait_until(lambda session: len(session.audio) >= len(said) * 6)
        heard = np.frombuffer(bytes(session.audio), "<i2").astype(np.int16)
    # The simulated model's own resampler may be a sample short.
    assert len(answer) - len(audio) in (DELAY, DELAY + 1)
    answer = answer[: len(audio)]
    assert correlation(ulaw_decode(answer), ulaw_decode(bytes(audio))) > 0.99
    delay = round(DELAY_SECONDS * 24_000)
    there = signal.resample_poly(ulaw_decode(said).astype(float), 3, 1)[:-delay]
    assert np.corrcoef(there, heard[delay:])[0, 1] > 0.99


def test_silence_stays_silence() -> None:
    quiet = ulaw_encode(np.zeros(480, np.int16))
    assert set(down(pcm24k(quiet), [])) == {0xFF}


def test_noise_at_full_scale_saturates_quietly() -> None:
    loud = random.Random(3).randbytes(4800)
    assert len(down(loud, [])) == 800 - DELAY
