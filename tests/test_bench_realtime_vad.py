"""Speech found by energy."""

import audioop

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.bench import speech
from handlehome.bench.realtime.vad import Change, EnergyVad

LOUD = audioop.ulaw2lin(b"\x10\x90" * 80, 2)
QUIET = audioop.ulaw2lin(b"\xff" * 160, 2)
CLICK = LOUD


def vad(**parameters: object) -> EnergyVad:
    return EnergyVad(
        {"type": "server_vad", "prefix_padding_ms": 300, "silence_duration_ms": 500, **parameters}, 8000
    )


def listen(detector: EnergyVad, audio: bytes, piece: int = 320, start_ms: float = 0) -> list[Change]:
    changes: list[Change] = []
    for offset in range(0, len(audio), piece):
        chunk = audio[offset : offset + piece]
        changes += detector.feed(chunk, start_ms + (offset + len(chunk)) / 16)
    return changes


def test_start_has_the_prefix_and_stop_the_silence() -> None:
    audio = QUIET * 50 + LOUD * 50 + QUIET * 50
    assert listen(vad(), audio) == [Change("started", 700), Change("stopped", 2500)]


def test_the_prefix_does_not_reach_before_the_beginning() -> None:
    assert listen(vad(), QUIET * 2 + LOUD * 5)[0] == Change("started", 0)


def test_a_click_is_not_speech() -> None:
    assert listen(vad(), (QUIET * 5 + CLICK) * 10) == []


def test_a_short_pause_does_not_end_speech() -> None:
    assert len(listen(vad(), LOUD * 20 + QUIET * 24 + LOUD * 20 + QUIET * 24)) == 1


@pytest.mark.parametrize("name", speech.ids())
def test_each_recording_is_one_turn(name: str) -> None:
    recording = speech.load(name)
    audio = QUIET * 50 + audioop.ulaw2lin(recording.ulaw, 2) + QUIET * 50
    started, stopped = listen(vad(), audio)
    assert started.ms == pytest.approx(1000 - 300, abs=150)
    assert stopped.ms == pytest.approx(1000 + recording.duration_ms + 500, abs=200)


@pytest.mark.parametrize(("threshold", "found"), [(0.0, True), (0.5, True), (1.0, False)])
def test_threshold_sets_the_level(threshold: float, found: bool) -> None:
    speech = audioop.mul(LOUD * 10, 2, 0.05)
    assert bool(listen(vad(threshold=threshold), speech)) is found


@pytest.mark.parametrize(("eagerness", "ends_ms"), [("high", 1500), ("auto", 1800), ("low", 2200)])
def test_semantic_vad_waits_by_its_eagerness(eagerness: str, ends_ms: int) -> None:
    detector = EnergyVad({"type": "semantic_vad", "eagerness": eagerness}, 8000)
    assert listen(detector, LOUD * 50 + QUIET * 100)[1] == Change("stopped", ends_ms)


def test_speech_forced_from_outside_ends_with_the_silence_after_it() -> None:
    detector = vad()
    detector.force(speaking=True)
    assert listen(detector, QUIET * 50) == [Change("stopped", 500)]


@given(pieces=st.lists(st.integers(1, 1000), min_size=1, max_size=50))
def test_changes_do_not_depend_on_how_the_audio_is_cut(pieces: list[int]) -> None:
    audio = QUIET * 20 + LOUD * 30 + QUIET * 40
    whole = listen(vad(), audio)
    detector, changes, offset = vad(), [], 0
    for size in [*pieces, len(audio)]:
        chunk = audio[offset : offset + 2 * size]
        offset += len(chunk)
        changes += detector.feed(chunk, offset / 16)
    assert changes == whole
