"""One call in virtual time: lost legs and models, and how it ends."""

import pytest

from handlehome.relay.call.call import CLOSE_SECONDS, TRANSCRIPT_SECONDS
from handlehome.relay.call.life import EndReason, Event, State
from handlehome.relay.model.interface import ModelLost
from handlehome.relay.phone.handler import StreamEnd
from tests.relay_call_doubles import (
    House,
    VirtualLine,
    call_of,
    calm,  # noqa: F401 - an autouse fixture
    live,
    stream_sid,
)

# ---- legs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [StreamEnd.DROPPED, StreamEnd.SILENT, StreamEnd.BROKEN])
def test_a_lost_leg_does_not_end_the_call(end: StreamEnd) -> None:
    house, line = live()
    call = call_of(house)
    line.leg.stream_ended(end, "test")
    assert call.life.state is State.INTERRUPTED
    house.clock.advance(30.0)
    again = house.line(call, 2)
    assert call.life.state is State.LIVE
    assert [leg.stream_sid for leg in house.record().legs] == [stream_sid(1), stream_sid(2)]
    assert house.record().legs[0].end_reason == end.value
    house.models[0].say(200, "Je suis là.")
    house.clock.advance(120.0)
    assert sum(size for kind, size in house.log if kind == "media") == 1600
    assert call.life.state is State.LIVE
    again.leg.stream_ended(StreamEnd.STOPPED, "stop")
    assert call.life.reason is EndReason.CALLER_HUNG_UP
    house.assert_all_is_free()


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (StreamEnd.DROPPED, "line_dropped"),
        (StreamEnd.SILENT, "line_silent"),
        (StreamEnd.BROKEN, "line_broken"),
    ],
)
def test_a_lost_leg_that_does_not_come_back_ends_the_call(end: StreamEnd, reason: str) -> None:
    house, line = live(House(resume_seconds=60))
    line.leg.stream_ended(end, "test")
    house.clock.advance(59.9)
    assert house.finished == []
    house.clock.advance(0.2)
    assert len(house.finished) == 1
    assert house.record().end_reason == reason
    house.assert_all_is_free()


def test_what_was_playing_when_the_leg_was_lost_is_truncated() -> None:
    house, line = live()
    model = house.models[0]
    number = model.begin()
    model.speak(number, 4000)
    house.clock.advance(1.0)
    house.log.clear()
    line.leg.stream_ended(StreamEnd.DROPPED, "gone")
    assert [entry[0] for entry in house.log] == ["cut", "cancel"]
    assert 900 <= house.log[0][2] <= 1000
    assert house.pool.in_use == 0


def test_an_answer_begun_without_a_line_is_not_played_from_its_middle() -> None:
    house, line = live()
    model = house.models[0]
    line.leg.stream_ended(StreamEnd.DROPPED, "gone")
    number = model.begin()
    model.speak(number, 300)
    house.line(call_of(house), 2)
    house.log.clear()
    model.speak(number, 300)
    model.done(number)
    assert house.log == []


def test_a_new_stream_takes_the_place_of_one_that_is_still_open() -> None:
    house, line = live()
    call = call_of(house)
    house.line(call, 2)
    assert line.closed is not None
    assert call.life.state is State.LIVE
    assert [leg.ended_at is None for leg in house.record().legs] == [False, True]


def test_the_callers_audio_of_all_legs_reaches_the_model_in_order() -> None:
    house, line = live()
    line.speak(200, 1)
    line.leg.stream_ended(StreamEnd.DROPPED, "gone")
    line.leg = None
    house.clock.advance(10.0)
    other = house.line(call_of(house), 2)
    other.speak(200, 2)
    assert bytes(house.models[0].heard) == b"\x01" * 1600 + b"\x02" * 1600


def test_call_time_of_a_later_leg_leaves_out_the_gap() -> None:
    """The model counts the audio that it heard; the transcript is in call time."""
    house, line = live()
    line.speak(1000)
    line.leg.stream_ended(StreamEnd.DROPPED, "gone")
    line.leg = None
    house.clock.advance(20.0)
    other = house.line(call_of(house), 2)
    began = house.clock.now
    other.speak(1000)
    model = house.models[0]
    model.caller_starts("u1", 1200)
    model.caller_stops("u1", 1800)
    (turn,) = house.record().turns
    call_began = house.events[0].at
    assert turn.start_ms == pytest.approx((began - call_began) * 1000 + 200, abs=25)
    assert turn.end_ms == pytest.approx((began - call_began) * 1000 + 800, abs=25)


def test_the_settings_of_turn_detection_are_taken_out_of_the_callers_times() -> None:
    house, line = live(House(padding_ms=300, silence_ms=500))
    line.speak(2000)
    model = house.models[0]
    model.caller_starts("u1", 700)
    model.caller_stops("u1", 2000)
    (turn,) = house.record().turns
    # The first frame was complete 100 ms after the stream had begun.
    assert (turn.start_ms, turn.end_ms) == (1080, 1580)


def test_the_response_time_is_from_the_end_of_speech_to_the_first_audible_sample() -> None:
    house, line = live(House(silence_ms=500))
    line.speak(2000)
    model = house.models[0]
    model.caller_starts("u1", 0)
    model.caller_stops("u1", 2000)
    line.speak(400, 0xFF)
    model.say(600, "Oui ?")
    line.speak(1000, 0xFF)
    turn = house.record().turns[1]
    # The end of speech lies 1.5 s into what was heard, 0.9 s before the answer.
    assert turn.response_ms == pytest.approx(900, abs=130)
    assert turn.start_ms == pytest.approx(2500, abs=130)


def test_keys_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    house, line = live()
    line.leg.dtmf("7")
    assert "7" not in caplog.text
    assert house.log == []


# ---- the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(ModelLost))
def test_a_lost_model_ends_the_stream_and_waits_for_twilio(reason: ModelLost) -> None:
    house, line = live()
    call = call_of(house)
    house.models[0].lose(reason)
    assert line.closed == (1000, "")
    assert (call.life.state, call.life.reason) == (State.CLOSING, EndReason.MODEL_LOST)
    house.clock.advance(CLOSE_SECONDS + 0.1)
    assert house.record().end_reason == "model_lost"
    house.assert_all_is_free()


def test_a_model_lost_before_the_stream_leaves_the_call_to_twilio() -> None:
    house = House()
    call = house.call()
    house.models[0].lose()
    assert call.life.state is State.CLOSING
    assert call.start_leg(stream_sid(), VirtualLine(house.clock, house.log)) is None
    call.happened(Event.CONNECT_ENDED)
    assert house.record().end_reason == "model_lost"
    house.assert_all_is_free()


@pytest.mark.parametrize("line_first", [True, False])
def test_both_sides_lost_at_once_end_the_call_as_lost_model(line_first: bool) -> None:
    house, line = live()
    call = call_of(house)
    house.models[0].speak(house.models[0].begin(), 5000)
    if line_first:
        line.leg.stream_ended(StreamEnd.DROPPED, "gone")
        house.models[0].lose()
    else:
        house.models[0].lose()
        line.leg.stream_ended(StreamEnd.DROPPED, "gone")
    assert (call.life.state, call.life.reason) == (State.CLOSING, EndReason.MODEL_LOST)
    call.happened(Event.CONNECT_ENDED)
    assert house.kinds().count("leg_ended") == house.kinds().count("call_ended") == 1
    assert len(house.finished) == 1
    house.assert_all_is_free()


# ---- the end -------------------------------------------------------------------------------------


def waiting_for_words() -> tuple[House, VirtualLine]:
    house, line = live()
    line.speak(1000)
    model = house.models[0]
    model.caller_starts("u1", 0)
    model.caller_stops("u1", 900)
    return house, line


def test_the_end_waits_for_the_callers_last_words() -> None:
    house, line = waiting_for_words()
    line.leg.stream_ended(StreamEnd.STOPPED, "stop")
    assert house.kinds()[-1] == "call_ended"
    house.clock.advance(1.0)
    assert house.finished == []
    house.models[0].transcribe("u1", "Au revoir.")
    assert len(house.finished) == 1
    assert house.record().turns[0].text == "Au revoir."
    house.assert_all_is_free()


def test_the_end_waits_for_words_three_seconds_at_most() -> None:
    house, line = waiting_for_words()
    line.leg.stream_ended(StreamEnd.STOPPED, "stop")
    house.clock.advance(TRANSCRIPT_SECONDS - 0.1)
    assert house.finished == []
    house.clock.advance(0.2)
    assert len(house.finished) == 1
    house.assert_all_is_free()


@pytest.mark.parametrize("text", ["Merci.", None])
def test_a_call_that_we_end_waits_for_words_too(text: str | None) -> None:
    house, line = waiting_for_words()
    call = call_of(house)
    call.happened(Event.TIME_LIMIT)
    assert line.closed == (1000, "")
    assert not house.models[0].closed
    house.models[0].transcribe("u1", text)
    assert house.models[0].closed
    call.happened(Event.CONNECT_ENDED)
    assert house.record().turns[0].text == text
    house.assert_all_is_free()


def test_a_model_lost_while_words_are_awaited_ends_the_wait() -> None:
    house, line = waiting_for_words()
    line.leg.stream_ended(StreamEnd.STOPPED, "stop")
    house.models[0].lose()
    assert len(house.finished) == 1
    house.assert_all_is_free()


def test_what_the_model_does_after_the_end_leaves_nothing_behind() -> None:
    """Its turn detection may still answer the last words, and call a tool."""
    house, line = waiting_for_words()
    line.leg.stream_ended(StreamEnd.STOPPED, "stop")
    model = house.models[0]
    number = model.begin()
    model.speak(number, 1000)
    model.call_tool("end_call")
    model.done(number)
    model.transcribe("u1", "Au revoir.")
    house.assert_all_is_free()
    assert [turn.id for turn in house.record().turns] == ["u1", "item_1"]


def test_a_caller_who_hangs_up_in_mid_sentence_has_a_turn() -> None:
    house, line = live()
    line.speak(400)
    house.models[0].caller_starts("u1", 100)
    model = house.models[0]
    line.leg.stream_ended(StreamEnd.STOPPED, "stop")
    assert ("commit",) in model.log, "the model makes a turn of what it has"
    assert not model.closed, "and writes it down"
    model.listener.caller_said("u1", "Au revoir")
    (turn,) = house.record().turns
    assert (turn.id, turn.role, turn.text) == ("u1", "caller", "Au revoir")
    assert turn.end_ms is not None
    house.assert_all_is_free()


def test_the_time_limit_counts_from_the_first_leg_and_through_lost_ones() -> None:
    house, line = live(House(max_seconds=100))
    call = call_of(house)
    house.clock.advance(50)
    line.leg.stream_ended(StreamEnd.DROPPED, "gone")
    house.clock.advance(10)
    other = house.line(call, 2)
    house.clock.advance(39)
    assert other.closed is None
    house.clock.advance(1.5)
    assert other.closed == (1000, "")
    assert call.life.reason is EndReason.TIME_LIMIT


def test_a_stopping_daemon_ends_the_stream_and_then_the_call() -> None:
    house, line = live()
    call = call_of(house)
    call.happened(Event.DAEMON_STOPS)
    assert line.closed == (1000, "")
    assert house.finished == []
    call.finish()
    assert house.record().end_reason == "daemon_stopped"
    assert len(house.finished) == 1
    call.finish()
    assert len(house.finished) == 1
    house.assert_all_is_free()


def test_finish_does_not_wait_for_words() -> None:
    house, line = waiting_for_words()
    line.leg.stream_ended(StreamEnd.STOPPED, "stop")
    call_of(house).finish()
    assert len(house.finished) == 1
    house.assert_all_is_free()


def test_the_record_tells_the_call() -> None:
    house, line = live()
    line.speak(1000)
    model = house.models[0]
    model.caller_starts("u1", 0)
    model.caller_stops("u1", 800)
    model.transcribe("u1", "Bonjour ?")
    model.say(500, "Bonjour !")
    house.clock.advance(2.0)
    line.leg.stream_ended(StreamEnd.STOPPED, "stop")
    record = house.record()
    assert (record.from_, record.to, record.assistant) == ("+33612345678", "+33123456789", "Camille")
    assert (record.status, record.end_reason) == ("ended", "caller_hung_up")
    assert [(turn.role, turn.text) for turn in record.turns] == [
        ("caller", "Bonjour ?"),
        ("assistant", "Bonjour !"),
    ]
    assert record.turns[1].heard_ms == 500
