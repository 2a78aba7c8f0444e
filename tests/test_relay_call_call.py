"""One call in virtual time: barge-in, greeting, goodbye, lost legs and models, and how it ends."""

import pytest

from handlehome.relay.call.call import CLOSE_SECONDS, GOODBYE_SECONDS, TRANSCRIPT_SECONDS, Call
from handlehome.relay.call.leg import ANSWER_BYTES
from handlehome.relay.call.life import EndReason, Event, State
from handlehome.relay.model.interface import ModelLost
from handlehome.relay.phone.handler import StreamEnd
from tests.relay_call_doubles import (
    GREETING,
    House,
    VirtualLine,
    calm,  # noqa: F401 - an autouse fixture
    stream_sid,
)


def asked(house: House) -> list[tuple[object, ...]]:
    return [entry for entry in house.log if entry[0] == "answer"]


def live(house: House | None = None) -> tuple[House, VirtualLine]:
    """A call whose line is open and whose model is ready; its log is empty."""
    house = house or House()
    call = house.call()
    house.models[0].become_ready()
    line = house.line(call)
    house.clock.advance(0.1)
    house.log.clear()
    return house, line


def call_of(house: House) -> Call:
    call = house.models[0].listener
    assert isinstance(call, Call)
    return call


# ---- greeting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ready_first", [True, False])
def test_the_greeting_is_asked_for_once_when_line_and_model_are_there(ready_first: bool) -> None:
    house = House()
    call = house.call()
    if ready_first:
        house.models[0].become_ready()
        assert asked(house) == []
        line = house.line(call)
    else:
        line = house.line(call)
        assert asked(house) == []
        house.models[0].become_ready()
    assert asked(house) == [("answer", "greeting", GREETING)]
    line.leg.stream_ended(StreamEnd.DROPPED, "gone")
    house.line(call, 2)
    assert len(asked(house)) == 1


def test_a_greeting_that_fails_is_asked_for_again_once() -> None:
    house, _ = live()
    model = house.models[0]
    for _ in range(3):
        model.done(model.begin(), "failed")
    assert asked(house) == [("answer", "again", GREETING)]


def test_an_answer_that_fails_is_asked_for_again_once_and_not_with_the_greeting() -> None:
    house, _ = live()
    model = house.models[0]
    model.say(100, "Bonjour.")
    model.caller_starts("u1", 0)
    model.caller_stops("u1", 500)
    model.done(model.begin(), "failed")
    model.done(model.begin(), "failed")
    assert asked(house) == [("answer", "again", None)]
    model.say(100, "Voilà.")
    model.done(model.begin(), "failed")
    assert asked(house) == [("answer", "again", None)] * 2


def test_a_cancelled_or_incomplete_answer_is_not_asked_for_again() -> None:
    house, _ = live()
    model = house.models[0]
    model.done(model.begin(), "cancelled")
    model.done(model.begin(), "incomplete")
    assert asked(house) == []


# ---- barge-in ------------------------------------------------------------------------------------


def test_barge_in_clears_the_line_before_it_truncates_and_in_the_same_turn() -> None:
    house, line = live()
    model = house.models[0]
    number = model.begin()
    model.speak(number, 5000)
    house.clock.advance(1.0)
    house.log.clear()
    model.caller_starts("u1", 0)
    (clear, cut) = house.log
    assert clear == ("clear",)
    assert cut[:2] == ("cut", "item_1")
    assert 900 <= cut[2] <= 1000
    assert line.closed is None


def test_late_audio_of_the_interrupted_answer_is_dropped() -> None:
    house, _ = live()
    model = house.models[0]
    number = model.begin()
    model.speak(number, 2000)
    house.clock.advance(0.5)
    model.caller_starts("u1", 0)
    house.log.clear()
    model.speak(number, 400)
    model.done(number, "cancelled")
    house.clock.advance(5.0)
    assert house.log == []
    model.caller_stops("u1", 900)
    other = model.begin()
    model.speak(other, 400)
    assert house.log[0][0] == "media"


def test_an_item_of_which_nothing_was_heard_is_truncated_to_nothing() -> None:
    """A further item of the interrupted response comes only after the interruption."""
    house, _ = live()
    model = house.models[0]
    model.begin()
    model.speak("1", 1000)
    house.clock.advance(0.5)
    model.caller_starts("u1", 0)
    house.log.clear()
    for _ in range(2):
        model.speak_item("1", "item_late", 200)
    assert house.log == [("cut", "item_late", 0)]
    turn = next(turn for turn in house.record().turns if turn.id == "item_late")
    assert (turn.heard_ms, turn.interrupted) == (0, True)


def test_the_queued_items_behind_the_playing_one_are_truncated_too() -> None:
    house, _ = live()
    model = house.models[0]
    model.begin()
    for item in ("a", "b", "c"):
        model.speak_item("1", item, 800)
        model.listener.assistant_audio_done(item)
    house.clock.advance(1.0)
    house.log.clear()
    model.caller_starts("u1", 0)
    assert house.log[0] == ("clear",)
    cuts = {item: ms for kind, item, ms in house.log[1:] if kind == "cut"}
    assert "a" not in cuts
    assert 150 <= cuts["b"] <= 250
    assert cuts["c"] == 0


def test_an_answer_heard_to_its_end_is_not_truncated() -> None:
    house, _ = live()
    model = house.models[0]
    model.say(500, "Oui.")
    house.clock.advance(1.0)
    house.log.clear()
    model.caller_starts("u1", 0)
    assert house.log == []
    turn = house.record().turns[0]
    assert (turn.heard_ms, turn.interrupted, turn.heard_text) == (500, False, None)


def test_a_stalled_answer_is_interrupted_too_when_all_that_came_of_it_was_heard() -> None:
    """More was to come, and the model believes that it was said."""
    house, line = live()
    model = house.models[0]
    number = model.begin()
    model.speak(number, 500)
    line.speak(2000)
    house.log.clear()
    model.caller_starts("u1", 0)
    model.speak(number, 200)
    model.done(number, "cancelled")
    assert house.log == [("clear",), ("cut", "item_1", 500)]
    assert house.record().turns[0].interrupted is True


def test_barge_in_never_claims_more_than_was_sent() -> None:
    house, _ = live()
    model = house.models[0]
    number = model.begin()
    model.speak(number, 200)
    sent = sum(size for kind, size in [e for e in house.log if e[0] == "media"]) // 8
    house.clock.advance(30.0)
    model.speak(number, 60)
    house.log.clear()
    model.caller_starts("u1", 0)
    assert all(entry[2] <= sent + 60 for entry in house.log if entry[0] == "cut")


@pytest.mark.parametrize("server_interrupts", [True, False])
def test_the_response_is_cancelled_by_us_only_if_the_server_does_not(server_interrupts: bool) -> None:
    house, _ = live(House(server_interrupts=server_interrupts))
    model = house.models[0]
    model.speak(model.begin(), 1000)
    house.log.clear()
    model.caller_starts("u1", 0)
    cancels = [entry for entry in house.log if entry[0] == "cancel"]
    assert cancels == ([] if server_interrupts else [("cancel", "resp_1")])
    assert house.log[0] == ("clear",)


def test_the_words_that_were_heard_are_those_of_the_audio_that_was_heard() -> None:
    """The share is of all the audio that the words belong to, not of what was sent to the line so far."""
    house, _ = live()
    model = house.models[0]
    number = model.begin()
    model.speak(number, 10_000)
    model.listener.assistant_said("item_1", " ".join(f"mot{n:02}" for n in range(50)), final=False)
    house.clock.advance(2.0)
    model.caller_starts("u1", 0)
    model.done(number, "cancelled")
    (turn, *_) = house.record().turns
    assert turn.heard_text is not None
    assert 8 <= len(turn.heard_text.split()) <= 10


def test_barge_in_is_counted_only_when_something_was_cut() -> None:
    house, line = live()
    model = house.models[0]
    model.say(200, "Oui.")
    house.clock.advance(2.0)
    model.caller_starts("u1", 0)
    assert call_of(house).barge_ins == 0
    model.say(2000, "Non.")
    model.caller_starts("u2", 0)
    assert call_of(house).barge_ins == 1
    model.say(2000, "Si.")
    line.leg.stream_ended(StreamEnd.DROPPED, "gone")
    assert call_of(house).barge_ins == 1


def test_an_answer_that_outgrows_its_bound_is_cancelled() -> None:
    house, _ = live()
    model = house.models[0]
    number = model.begin()
    for _ in range(ANSWER_BYTES // 80_000 + 2):
        model.speak(number, 10_000)
    cancels = [entry for entry in house.log if entry[0] == "cancel"]
    assert cancels == [("cancel", "resp_1")]
    model.done(number, "cancelled")
    call_of(house).happened(Event.STATUS_TERMINAL)
    house.assert_all_is_free()


# ---- goodbye -------------------------------------------------------------------------------------


def test_the_goodbye_is_heard_before_the_line_is_closed() -> None:
    house, line = live()
    model = house.models[0]
    number = model.begin()
    model.speak(number, 3000)
    model.call_tool("end_call")
    model.done(number, text="Au revoir.")
    assert ("tool_result", "call_1", {"ok": True}) in house.log
    house.clock.advance(2.9)
    assert line.closed is None
    house.clock.advance(0.2)
    assert line.closed == (1000, "")
    assert call_of(house).life.reason is EndReason.ASSISTANT_SAID_GOODBYE
    assert house.record().turns[0].interrupted is False


def test_a_goodbye_that_was_heard_before_it_is_done_ends_the_call_at_once() -> None:
    """A slow model: `response.done` comes after all of its audio has been played."""
    house, line = live()
    model = house.models[0]
    number = model.begin()
    model.speak(number, 500)
    model.listener.assistant_audio_done("item_1")
    house.clock.advance(2.0)
    model.call_tool("end_call")
    assert line.closed is None
    model.done(number)
    assert line.closed == (1000, "")


def test_a_goodbye_whose_marks_never_come_back_ends_by_its_timer() -> None:
    house, line = live()
    line.echoing = False
    model = house.models[0]
    number = model.begin()
    model.speak(number, 500)
    model.call_tool("end_call")
    model.done(number)
    house.clock.advance(GOODBYE_SECONDS - 0.1)
    assert line.closed is None
    house.clock.advance(0.2)
    assert line.closed == (1000, "")


def test_who_interrupts_the_goodbye_is_not_hung_up_on() -> None:
    house, line = live()
    model = house.models[0]
    number = model.begin()
    model.speak(number, 3000)
    model.call_tool("end_call")
    house.clock.advance(1.0)
    model.caller_starts("u1", 0)
    model.done(number, "cancelled")
    house.clock.advance(GOODBYE_SECONDS + 1)
    assert line.closed is None
    model.caller_stops("u1", 2000)
    model.say(300, "Encore une chose ?")
    house.clock.advance(3.0)
    assert line.closed is None


def test_a_tool_that_does_not_exist_is_answered_with_an_error() -> None:
    house, line = live()
    model = house.models[0]
    number = model.begin()
    model.call_tool("order_pizza", "call_7")
    model.done(number)
    assert house.log[0] == ("tool_result", "call_7", {"error": "there is no function order_pizza"})
    assert asked(house) == [("answer", "tool", None)]
    assert line.closed is None


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
    assert ("media", 1600) in house.log
    house.clock.advance(120.0)
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
    assert (turn.start_ms, turn.end_ms) == (1000, 1500)


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
    line.leg.stream_ended(StreamEnd.STOPPED, "stop")
    (turn,) = house.record().turns
    assert (turn.id, turn.role, turn.text, turn.end_ms) == ("u1", "caller", None, None)


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
