"""One call in virtual time: greeting, barge-in, goodbye."""

import pytest

from handlehome.relay.call.call import GOODBYE_SECONDS
from handlehome.relay.call.leg import ANSWER_BYTES
from handlehome.relay.call.life import EndReason, Event
from handlehome.relay.phone.handler import StreamEnd
from tests.relay_call_doubles import (
    GREETING,
    House,
    asked,
    call_of,
    calm,  # noqa: F401 - an autouse fixture
    live,
)

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
    """Who hears nothing twice is told so: the stream ends, and the fallback is spoken."""
    house, line = live()
    model = house.models[0]
    model.done(model.begin(), "failed")
    assert asked(house) == [("answer", "again", GREETING)]
    model.done(model.begin(), "failed")
    assert asked(house) == [("answer", "again", GREETING)]
    assert line.closed == (1000, "")
    assert call_of(house).life.reason is EndReason.MODEL_LOST


def test_an_answer_that_fails_is_asked_for_again_once_and_not_with_the_greeting() -> None:
    house, _ = live()
    model = house.models[0]
    model.say(100, "Bonjour.")
    model.caller_starts("u1", 0)
    model.caller_stops("u1", 500)
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
    house.clock.advance(0.2)  # a start may be held back
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
    house.clock.advance(0.2)  # a start may be held back
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
