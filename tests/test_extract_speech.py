"""Which turns have no text, and their audio as files."""

import io
import wave
from dataclasses import replace

import pytest

from handlehome.extract import speech
from handlehome.store.records import CallRecord, TurnRecord
from tests.extract_room import SILENCE, SPEECH


def call(*turns: TurnRecord) -> CallRecord:
    return CallRecord("CA1", 1000.0, ended_at=1010.0, status="ended", turns=turns)


TURN = TurnRecord("a", "caller", None, 2000.0, 3000.0)


def test_a_callers_turn_without_text_is_a_gap_with_padding() -> None:
    (gap,) = speech.gaps(call(TURN))
    assert (gap.turn, gap.start_ms, gap.end_ms) == (TURN, 1800.0, 3200.0)


@pytest.mark.parametrize(
    "turn",
    [
        replace(TURN, text="Oui."),
        replace(TURN, text=""),
        replace(TURN, role="assistant"),
        replace(TURN, start_ms=None),
        replace(TURN, end_ms=2099.0),
        replace(TURN, end_ms=1000.0),
    ],
)
def test_what_is_no_gap(turn: TurnRecord) -> None:
    assert speech.gaps(call(turn)) == []


def test_what_is_known_to_give_nothing_is_left_out() -> None:
    assert speech.gaps(call(TURN), {"a"}) == []


def test_padding_does_not_go_before_the_call() -> None:
    (gap,) = speech.gaps(call(replace(TURN, start_ms=50.0)))
    assert gap.start_ms == 0.0


def test_a_turn_without_an_end_lasts_until_the_next_or_the_calls_end() -> None:
    endless = replace(TURN, end_ms=None)
    (gap,) = speech.gaps(call(endless))
    assert gap.end_ms == 10_200.0
    later = TurnRecord("b", "caller", "Oui.", 5000.0, 6000.0)
    (gap,) = speech.gaps(call(endless, TurnRecord("x", "assistant", "?", 4000.0), later))
    assert gap.end_ms == 5200.0
    assert speech.gaps(replace(call(endless), ended_at=None)) == []


def test_silence_and_what_is_too_short_are_not_audible() -> None:
    assert speech.is_audible(SPEECH)
    assert speech.is_audible(SILENCE * 100 + SPEECH)
    assert not speech.is_audible(SILENCE)
    assert not speech.is_audible(SPEECH[:799])
    assert not speech.is_audible(b"")
    assert not speech.is_audible(bytes([0x7F, 0xFF, 0xFE, 0x7E]) * 4000)  # the quietest noise there is


def test_a_piece_is_a_wav_file_of_16_bits() -> None:
    (piece,) = speech.pieces(SPEECH)
    with wave.open(io.BytesIO(piece)) as reader:
        assert reader.getparams()[:4] == (1, 2, 8000, len(SPEECH))
    assert speech.seconds_of(piece) == 1.0


def test_what_is_too_long_for_the_api_is_cut_without_loss() -> None:
    audio = SPEECH * 3600  # an hour
    lengths = []
    for piece in speech.pieces(audio):
        assert len(piece) < 25_000_000
        lengths.append(speech.seconds_of(piece))
    assert lengths == [1500.0, 1500.0, 600.0]
