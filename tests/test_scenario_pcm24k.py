"""A call over real sockets whose model speaks 24 kHz: nothing else is different."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from handlehome.bench import speech
from handlehome.bench.scripts import receptionist
from handlehome.codecs.g711 import ulaw_decode
from handlehome.codecs.resample import DELAY_SECONDS
from tests.harness import running_stage


def band(samples: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """0-3400 Hz, without delay."""
    low = signal.butter(8, 3400, fs=rate, output="sos")
    return np.asarray(signal.sosfiltfilt(low, samples))


def alike(one: NDArray[np.float64], other: NDArray[np.float64], rate: int, shift: float = 0.01) -> float:
    """Correlation in the telephone band, at the best shift of up to `shift` seconds."""
    size = min(len(one), len(other))
    one, other = band(one[:size], rate), band(other[:size], rate)
    most = round(shift * rate)
    return max(
        float(np.corrcoef(one[most : size - most], other[most + move : size - most + move])[0, 1])
        for move in range(-most, most + 1)
    )


def linear(ulaw: bytes) -> NDArray[np.float64]:
    return ulaw_decode(ulaw).astype(float)


async def test_an_interrupted_conversation(tmp_path: Path) -> None:
    """Two questions, the first answer interrupted: words, marks, truncation and record are right."""
    recordings = {name: speech.load(name) for name in speech.ids()}
    async with running_stage(tmp_path, {"AUDIO_FORMAT": "pcm24k"}) as stage, stage.phone() as phone:
        session = await stage.session(await stage.dial(phone, receptionist()))
        await phone.wait_answer()
        await phone.say(recordings["caller-leak"].ulaw)
        await phone.wait_heard(phone.heard_bytes + 12_000)
        await phone.say(recordings["caller-urgent"].ulaw)
        await phone.wait_answer()
        await phone.hang_up()
        record = await stage.daemon.record(phone.call_sid)

    assert not phone.errors
    assert not phone.violations
    assert not session.violations
    assert not session.errors
    ((*_, accepted),) = session.truncations
    assert accepted
    expected = ["assistant-greeting", "caller-leak", "assistant-advice", "caller-urgent", "assistant-urgent"]
    assert [turn.text for turn in record.turns] == [recordings[name].text for name in expected]
    assert [turn.interrupted for turn in record.turns] == [name == "assistant-advice" for name in expected]

    # The model heard the caller.
    (leg,) = phone.legs
    heard = np.frombuffer(bytes(session.audio), "<i2").astype(float)
    said = signal.resample_poly(linear(bytes(leg.sent_ulaw)), 3, 1)
    assert len(heard) == 3 * len(leg.sent_ulaw)
    assert alike(said, heard, 24_000) > 0.99

    # The caller heard the model: the answer before, up to, and after the interruption, without gaps.
    (clear,) = leg.clears
    played = leg.playback.played()
    greeting, answer = (recordings[name].ulaw for name in ("assistant-greeting", "assistant-urgent"))
    held_back = round(DELAY_SECONDS * 8000)
    assert abs(clear.played_bytes + len(answer) - held_back - len(played)) <= 1
    assert alike(linear(greeting), linear(played), 8000) > 0.99
    assert alike(linear(answer), linear(played[clear.played_bytes :]), 8000) > 0.99
    assert not leg.playback.gaps()
