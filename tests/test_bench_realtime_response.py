"""The plan of an answer's deltas."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from handlehome.bench.realtime.response import convert, plan
from handlehome.bench.realtime.script import Answer

AUDIO = bytes(random.Random(1).randbytes(24_000))


@given(
    seed=st.integers(0, 1000),
    length=st.integers(1, 24_000),
    pace=st.sampled_from([0.77, 1.0, 8.0, math.inf]),
    jitter_ms=st.sampled_from([0.0, 30.0]),
    stall_chance=st.sampled_from([0.0, 0.3]),
)
def test_deltas_are_the_whole_answer_in_order(
    seed: int, length: int, pace: float, jitter_ms: float, stall_chance: float
) -> None:
    answer = Answer(
        text="Bien sûr, je note  tout cela.",
        audio=AUDIO[:length],
        pace=pace,
        jitter_ms=jitter_ms,
        stall_chance=stall_chance,
        stall_ms=500,
    )
    pieces = plan(answer, "audio/pcmu", random.Random(seed))
    audio = [piece.data for piece in pieces if isinstance(piece.data, bytes)]
    text = [piece.data for piece in pieces if isinstance(piece.data, str)]
    assert b"".join(audio) == answer.audio
    assert "".join(text) == answer.text
    assert all(160 <= len(data) <= 3200 for data in audio[:-1])
    times = [piece.at_s for piece in pieces]
    assert times == sorted(times)
    assert isinstance(pieces[0].data, str)


def test_late_deltas_do_not_shift_the_schedule() -> None:
    """The last delta of a jittery and stalling answer is late by its own delay only."""
    answer = Answer(audio=AUDIO, delta_ms=(100, 100), pace=0.5, jitter_ms=20, stall_chance=0.3, stall_ms=500)
    pieces = plan(answer, "audio/pcmu", random.Random(3))
    for index, piece in enumerate(pieces):
        assert index * 0.2 <= piece.at_s <= index * 0.2 + 0.52


def test_an_infinite_pace_sends_all_at_once() -> None:
    pieces = plan(Answer(audio=AUDIO, pace=math.inf), "audio/pcmu", random.Random(0))
    assert {piece.at_s for piece in pieces} == {0.0}


def test_transcript_deltas_can_come_late() -> None:
    answer = Answer(text="one two", audio=AUDIO, pace=math.inf, transcript_delay_ms=250)
    pieces = plan(answer, "audio/pcmu", random.Random(0))
    assert [piece.at_s for piece in pieces if isinstance(piece.data, str)] == [0.25, 0.25]


def test_a_text_response_has_no_audio() -> None:
    pieces = plan(Answer(text="one two", audio=AUDIO), None, random.Random(0))
    assert [piece.data for piece in pieces] == ["one ", "two"]


def test_pcm_deltas_hold_whole_samples() -> None:
    pieces = plan(Answer(audio=AUDIO), "audio/pcm", random.Random(0))
    sizes = [len(piece.data) for piece in pieces]
    assert all(size % 2 == 0 for size in sizes)
    assert abs(sum(sizes) - len(AUDIO) * 6) <= 6


def test_conversion_keeps_the_length_in_time() -> None:
    assert convert(AUDIO, "audio/pcmu") == AUDIO
    assert len(convert(AUDIO, "audio/pcma")) == len(AUDIO)
    assert abs(len(convert(AUDIO, "audio/pcm")) - len(AUDIO) * 6) <= 6
