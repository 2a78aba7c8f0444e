"""The recordings that come with the package."""

from __future__ import annotations

import audioop
import math

import pytest

from handlehome.bench import speech


def test_caller_and_assistant_have_enough_to_say() -> None:
    recordings = [speech.load(name) for name in speech.ids()]
    assert sum(r.role == "caller" for r in recordings) >= 4
    assert sum(r.role == "assistant" for r in recordings) >= 4
    assert all(r.id.startswith(r.role) for r in recordings)
    assert sum(len(r.ulaw) for r in recordings) < 1_000_000
    assert len({r.text for r in recordings}) == len(recordings)


@pytest.mark.parametrize("name", speech.ids())
def test_each_recording_is_speech_of_even_loudness(name: str) -> None:
    recording = speech.load(name)
    assert recording.duration_ms == len(recording.ulaw) / 8
    # A brisk speaker says about 16 letters a second.
    assert 10 < len(recording.text) / recording.duration_ms * 1000 < 24
    samples = audioop.ulaw2lin(recording.ulaw, 2)
    dbfs = 20 * math.log10(audioop.rms(samples, 2) / 32768)
    assert -23 < dbfs < -19
    for edge in (recording.ulaw[:160], recording.ulaw[-160:]):
        assert audioop.rms(audioop.ulaw2lin(edge, 2), 2) < 50


def test_one_sentence_is_long_enough_to_be_interrupted() -> None:
    assert speech.load("assistant-advice").duration_ms > 6000


def test_an_unknown_id_is_answered_with_those_that_exist() -> None:
    with pytest.raises(KeyError, match="caller-leak"):
        speech.load("caller-song")
