"""All calls of a process: admission, tokens, what Twilio is told, draining. Streams are real handlers."""

import asyncio
import time
from dataclasses import replace

import pytest

from handlehome.relay.call.call import CLOSE_SECONDS
from handlehome.relay.call.life import State
from handlehome.relay.call.switchboard import MAX_RECONNECTS, REMEMBERED_CALLS, TERMINAL, Switchboard
from handlehome.relay.phone.desk import NextStep, RefusalReason, Refused
from handlehome.relay.phone.handler import Refusal
from handlehome.relay.phone.tokens import LIFETIME_SECONDS
from handlehome.relay.saving import Interrupted
from tests.relay_call_doubles import (
    CALL,
    House,
    TwilioStream,
    admitted,
    asked,
    calm,  # noqa: F401 - an autouse fixture
    incoming,
)

OTHER = "CA" + "f" * 32


def house_of(max_calls: int = 10, **options: float) -> tuple[House, Switchboard]:
    house = House(**options)  # type: ignore[arg-type] # numbers all
    return house, Switchboard(house.premises, max_calls, house.finished.append)


def connected(call_sid: str = CALL, **options: float) -> tuple[House, Switchboard, TwilioStream]:
    """A live call with a ready model."""
    house, switchboard = house_of(**options)
    token = admitted(switchboard, call_sid)
    house.models[0].become_ready()
    stream = TwilioStream(house, switchboard, call_sid=call_sid)
    stream.start(token)
    stream.media()
    assert stream.wire.is_open
    return house, switchboard, stream


# ---- admission -----------------------------------------------------------------------------------


def test_the_models_session_is_opened_by_the_webhook() -> None:
    house, switchboard = house_of()
    admitted(switchboard)
    assert len(house.models) == 1
    assert switchboard.active_calls == 1
    assert house.kinds() == ["call_started"]


def test_a_retried_webhook_reuses_the_session_and_both_tokens_are_good_for_one_stream() -> None:
    house, switchboard = house_of()
    first, second = admitted(switchboard), admitted(switchboard)
    assert first != second
    assert len(house.models) == 1
    assert house.kinds() == ["call_started"]
    stream = TwilioStream(house, switchboard)
    stream.start(first)
    assert stream.wire.is_open


def test_a_retried_webhook_counts_the_minute_anew() -> None:
    house, switchboard = house_of()
    admitted(switchboard)
    house.clock.advance(50)
    token = admitted(switchboard)
    house.clock.advance(50)
    assert switchboard.active_calls == 1
    stream = TwilioStream(house, switchboard)
    stream.start(token)
    assert stream.wire.is_open


def test_a_webhook_retried_in_mid_call_disturbs_nothing() -> None:
    house, switchboard, stream = connected()
    admitted(switchboard)
    for _ in range(700):
        stream.media()
        house.clock.advance(0.2)
    assert stream.wire.is_open
    assert switchboard.active_calls == 1


def test_calls_beyond_the_capacity_are_refused_until_one_is_over() -> None:
    house, switchboard = house_of(max_calls=2)
    admitted(switchboard, "CA" + "0" * 32)
    admitted(switchboard, "CA" + "1" * 32)
    assert switchboard.refusing is RefusalReason.AT_CAPACITY
    assert not switchboard.accepting
    assert switchboard.incoming_call(incoming(OTHER)) == Refused(RefusalReason.AT_CAPACITY)
    assert len(house.models) == 2
    assert house.kinds(OTHER) == []
    admitted(switchboard, "CA" + "1" * 32)
    switchboard.call_status("CA" + "0" * 32, "completed")
    assert switchboard.accepting
    admitted(switchboard, OTHER)


def test_a_call_that_is_over_is_not_begun_again() -> None:
    house, switchboard, stream = connected()
    stream.stop()
    assert switchboard.incoming_call(incoming()) == Refused(RefusalReason.CALL_OVER)
    assert len(house.models) == 1


def test_a_call_that_we_are_ending_is_not_begun_again() -> None:
    house, switchboard, _ = connected()
    house.models[0].lose()
    assert switchboard.incoming_call(incoming()) == Refused(RefusalReason.CALL_OVER)


def test_finished_calls_are_remembered_for_a_while_only() -> None:
    _, switchboard = house_of()
    for number in range(REMEMBERED_CALLS + 1):
        sid = f"CA{number:032x}"
        admitted(switchboard, sid)
        switchboard.call_status(sid, "completed")
    assert switchboard.incoming_call(incoming(f"CA{1:032x}")) == Refused(RefusalReason.CALL_OVER)
    admitted(switchboard, f"CA{0:032x}")


def test_a_call_whose_stream_never_comes_is_given_up_after_a_minute() -> None:
    house, switchboard = house_of()
    admitted(switchboard)
    house.clock.advance(LIFETIME_SECONDS - 1)
    assert house.finished == []
    house.clock.advance(1.1)
    assert house.finished == [CALL]
    assert house.record().end_reason == "never_connected"
    house.assert_all_is_free()


# ---- tokens --------------------------------------------------------------------------------------


def refused(stream: TwilioStream) -> Refusal:
    closed = stream.wire.closed
    return next(refusal for refusal in Refusal if (refusal.code, refusal.reason) == closed)


def test_a_token_opens_one_stream_only() -> None:
    house, switchboard = house_of()
    token = admitted(switchboard)
    first, second = TwilioStream(house, switchboard), TwilioStream(house, switchboard, number=2)
    first.start(token)
    second.start(token)
    assert refused(second) is Refusal.USED_TOKEN
    assert first.wire.is_open


def test_a_token_of_another_call_is_refused_and_stays_good() -> None:
    house, switchboard = house_of()
    token = admitted(switchboard)
    admitted(switchboard, OTHER)
    thief = TwilioStream(house, switchboard, call_sid=OTHER)
    thief.start(token)
    assert refused(thief) is Refusal.FOREIGN_TOKEN
    stream = TwilioStream(house, switchboard, number=2)
    stream.start(token)
    assert stream.wire.is_open


@pytest.mark.parametrize("token", ["", "nonsense", "x" * 4000])
def test_an_unknown_token_is_refused(token: str) -> None:
    house, switchboard = house_of()
    admitted(switchboard)
    stream = TwilioStream(house, switchboard)
    stream.start(token)
    assert refused(stream) is Refusal.UNKNOWN_TOKEN
    assert house.kinds() == ["call_started"]


def test_an_expired_token_is_refused() -> None:
    """The call lives on by a later webhook's token."""
    house, switchboard = house_of()
    token = admitted(switchboard)
    house.clock.advance(30)
    admitted(switchboard)
    house.clock.advance(31)
    stream = TwilioStream(house, switchboard)
    stream.start(token)
    assert refused(stream) is Refusal.EXPIRED_TOKEN


def test_a_good_token_of_a_call_that_is_over_is_refused() -> None:
    house, switchboard = house_of()
    token = admitted(switchboard)
    switchboard.call_status(CALL, "completed")
    stream = TwilioStream(house, switchboard)
    stream.start(token)
    assert refused(stream) is Refusal.CALL_OVER


def test_after_a_refused_token_twilio_is_told_to_hang_up() -> None:
    house, switchboard = house_of()
    admitted(switchboard)
    TwilioStream(house, switchboard).start("nonsense")
    assert switchboard.connect_ended(incoming()) == (NextStep.HANG_UP, None)
    assert house.record().end_reason == "stream_refused"
    house.assert_all_is_free()


def test_a_refused_token_is_forgotten_once_the_right_one_comes() -> None:
    house, switchboard = house_of()
    token = admitted(switchboard)
    TwilioStream(house, switchboard).start("nonsense")
    stream = TwilioStream(house, switchboard, number=2)
    stream.start(token)
    stream.lose()
    assert switchboard.connect_ended(incoming())[0] is NextStep.RECONNECT


def test_a_stranger_at_the_door_of_a_live_call_disturbs_nothing() -> None:
    house, switchboard, stream = connected()
    TwilioStream(house, switchboard, number=9).start("nonsense")
    assert stream.wire.is_open
    stream.lose()
    assert switchboard.connect_ended(incoming())[0] is NextStep.RECONNECT


# ---- /call-ended ---------------------------------------------------------------------------------


def test_a_lost_stream_is_connected_again_three_times() -> None:
    house, switchboard, stream = connected()
    for number in range(MAX_RECONNECTS):
        stream.lose()
        step, token = switchboard.connect_ended(incoming())
        assert step is NextStep.RECONNECT
        assert token is not None
        stream = TwilioStream(house, switchboard, number=number + 2)
        stream.start(token)
        stream.media()
        assert stream.wire.is_open
    assert len(house.models) == 1
    assert len(asked(house)) == 1
    stream.lose()
    assert switchboard.connect_ended(incoming()) == (NextStep.FALLBACK, None)
    record = house.record()
    assert (len(record.legs), record.end_reason) == (4, "line_dropped")
    house.assert_all_is_free()


def test_call_ended_that_comes_before_the_socket_is_seen_to_be_lost() -> None:
    house, switchboard, stream = connected()
    step, token = switchboard.connect_ended(incoming())
    assert (step, token is None) == (NextStep.RECONNECT, False)
    assert stream.wire.closed == (1000, "")
    stream.lose()
    other = TwilioStream(house, switchboard, number=2)
    other.start(token or "")
    assert other.wire.is_open


def test_a_stream_that_never_came_is_connected_again() -> None:
    """Twilio could not reach the media socket."""
    house, switchboard = house_of()
    admitted(switchboard)
    assert switchboard.connect_ended(incoming())[0] is NextStep.RECONNECT
    house.clock.advance(LIFETIME_SECONDS + 1)
    assert house.record().end_reason == "never_connected"
    assert switchboard.connect_ended(incoming()) == (NextStep.NOTHING, None)


def test_after_the_goodbye_twilio_hangs_up() -> None:
    house, switchboard, stream = connected()
    model = house.models[0]
    number = model.begin()
    model.speak(number, 400)
    model.call_tool("end_call")
    model.done(number)
    house.clock.advance(0.5)
    stream.echo_marks()
    assert stream.wire.closed == (1000, "")
    assert switchboard.connect_ended(incoming()) == (NextStep.HANG_UP, None)
    assert house.record().end_reason == "assistant_said_goodbye"
    assert switchboard.connect_ended(incoming()) == (NextStep.NOTHING, None)


@pytest.mark.parametrize("before", ["webhook", "stream", "live", "lost"])
def test_when_the_model_cannot_be_had_the_fallback_is_spoken(before: str) -> None:
    house, switchboard = house_of()
    token = admitted(switchboard)
    if before in ("live", "lost"):
        stream = TwilioStream(house, switchboard)
        stream.start(token)
        if before == "lost":
            stream.lose()
    house.models[0].lose()
    if before == "stream":
        stream = TwilioStream(house, switchboard)
        stream.start(token)
        assert refused(stream) is Refusal.CALL_OVER
    assert switchboard.connect_ended(incoming()) == (NextStep.FALLBACK, None)
    assert house.record().end_reason == "model_lost"
    house.assert_all_is_free()


@pytest.mark.parametrize("reason", ["time_limit", "daemon_stopped"])
def test_after_a_stream_that_we_ended_twilio_says_goodbye(reason: str) -> None:
    house, switchboard, stream = connected(max_seconds=5)
    if reason == "daemon_stopped":
        switchboard.stop_calls()
    else:
        house.clock.advance(5.1)
    assert stream.wire.closed == (1000, "")
    assert switchboard.connect_ended(incoming()) == (NextStep.GOODBYE, None)
    assert house.record().end_reason == reason


def test_nobody_knows_the_call() -> None:
    _, switchboard = house_of()
    assert switchboard.connect_ended(incoming()) == (NextStep.NOTHING, None)


def test_for_a_call_that_is_over_there_is_nothing_to_do_even_while_its_words_are_awaited() -> None:
    house, switchboard, stream = connected()
    house.models[0].caller_starts("u1", 0)
    house.models[0].caller_stops("u1", 20)
    stream.stop()
    assert switchboard.active_calls == 1
    assert switchboard.connect_ended(incoming()) == (NextStep.NOTHING, None)
    house.models[0].transcribe("u1", "Merci.")
    assert switchboard.connect_ended(incoming()) == (NextStep.NOTHING, None)


def test_call_ended_of_a_caller_who_hung_up_ends_the_call() -> None:
    """It may come before the stream's `stop`: the call must not wait for another stream."""
    house, switchboard, _ = connected()
    assert switchboard.connect_ended(incoming(CallStatus="completed")) == (NextStep.NOTHING, None)
    assert house.record().end_reason == "caller_hung_up"
    house.assert_all_is_free()


# ---- status callbacks ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_a_terminal_status_ends_a_call_that_has_no_stream(status: str) -> None:
    house, switchboard = house_of()
    admitted(switchboard)
    switchboard.call_status(CALL, status)
    assert house.record().end_reason == "never_connected"
    house.assert_all_is_free()


def test_other_statuses_end_nothing() -> None:
    _, switchboard, stream = connected()
    for status in ("queued", "initiated", "ringing", "in-progress", "", "COMPLETED?"):
        switchboard.call_status(CALL, status)
    assert stream.wire.is_open
    assert switchboard.active_calls == 1


@pytest.mark.parametrize("order", ["before", "after", "twice", "never"])
def test_the_status_callback_comes_whenever_it_comes(order: str) -> None:
    house, switchboard, stream = connected()
    if order == "before":
        switchboard.call_status(CALL, "completed")
        assert not stream.wire.is_open
    stream.stop()
    if order in ("after", "twice"):
        switchboard.call_status(CALL, "completed")
    if order == "twice":
        switchboard.call_status(CALL, "completed")
    assert house.finished == [CALL]
    assert house.record().end_reason == "caller_hung_up"
    assert house.kinds().count("call_ended") == 1
    house.assert_all_is_free()


def test_a_status_of_nobodys_call_is_borne() -> None:
    _, switchboard = house_of()
    switchboard.call_status(OTHER, "completed")
    switchboard.stream_status(OTHER, "MZ1", "stream-error", "31920")
    switchboard.stream_status(OTHER, "MZ1", "stream-started", None)


# ---- both sides, silence -------------------------------------------------------------------------


def test_a_half_open_line_loses_its_leg_and_the_call_may_go_on() -> None:
    house, switchboard, stream = connected()
    house.clock.advance(12.1)
    assert refused(stream) is Refusal.LINE_SILENT
    stream.lose()
    step, token = switchboard.connect_ended(incoming())
    assert step is NextStep.RECONNECT
    TwilioStream(house, switchboard, number=2).start(token or "")
    assert [leg.end_reason for leg in house.record().legs] == ["silent", None]


def test_a_line_that_breaks_the_protocol_loses_its_leg() -> None:
    house, _, stream = connected()
    stream.handler.text_received(b"{")
    assert refused(stream) is Refusal.NOT_JSON
    house.clock.advance(60.1)
    assert house.record().end_reason == "line_broken"
    house.assert_all_is_free()


# ---- calls of an earlier process -----------------------------------------------------------------


def adopted(**options: float) -> tuple[House, Switchboard, list[str]]:
    house, switchboard = house_of(**options)
    ended: list[str] = []
    switchboard.adopt(Interrupted(CALL, 2, time.time() - 30, lambda: ended.append(CALL)))
    return house, switchboard, ended


def test_an_interrupted_call_ends_after_a_while() -> None:
    house, _, ended = adopted(resume_seconds=60)
    house.clock.advance(59.9)
    assert ended == []
    house.clock.advance(0.2)
    assert ended == [CALL]


def test_an_interrupted_call_ends_at_a_terminal_status() -> None:
    house, switchboard, ended = adopted()
    switchboard.call_status(CALL, "ringing")
    assert ended == []
    switchboard.call_status(CALL, "completed")
    assert ended == [CALL]
    house.clock.advance(100)
    assert ended == [CALL]


def test_an_interrupted_call_that_asks_what_is_next_goes_on_with_a_further_leg() -> None:
    house, switchboard, ended = adopted()
    step, token = switchboard.connect_ended(incoming())
    assert step is NextStep.RECONNECT
    stream = TwilioStream(house, switchboard)
    stream.start(str(token))
    house.clock.advance(5)
    assert ended == []
    assert [event.data["leg"] for event in house.events if event.kind == "leg_started"] == [3]
    house.models[0].become_ready()
    assert [answer[1] for answer in asked(house)] == ["resume"], "not greeted again"


def test_an_interrupted_call_that_can_not_be_taken_hears_the_fallback() -> None:
    _, switchboard, ended = adopted()
    switchboard.drain()
    assert switchboard.connect_ended(incoming()) == (NextStep.FALLBACK, None)
    assert ended == [CALL]


def test_an_interrupted_call_whose_caller_has_hung_up_ends() -> None:
    _, switchboard, ended = adopted()
    assert switchboard.connect_ended(incoming(CallStatus="completed")) == (NextStep.NOTHING, None)
    assert ended == [CALL]


def test_an_interrupted_call_that_comes_back_is_not_ended_while_it_is_live() -> None:
    house, switchboard, ended = adopted()
    token = admitted(switchboard)
    stream = TwilioStream(house, switchboard)
    stream.start(token)
    for _ in range(100):
        stream.media()
        house.clock.advance(1)
    assert ended == []
    assert stream.wire.is_open
    assert "call_resumed" in house.kinds()


# ---- draining ------------------------------------------------------------------------------------


async def test_draining_turns_new_calls_away_and_lets_the_others_end() -> None:
    house, switchboard, stream = connected()
    switchboard.drain()
    assert switchboard.refusing is RefusalReason.DRAINING
    assert switchboard.incoming_call(incoming(OTHER)) == Refused(RefusalReason.DRAINING)
    emptied = asyncio.ensure_future(switchboard.emptied())
    await asyncio.sleep(0)
    assert not emptied.done()
    stream.media()
    assert stream.wire.is_open
    stream.stop()
    await asyncio.wait_for(emptied, 1)
    house.assert_all_is_free()


async def test_an_empty_house_is_drained_at_once() -> None:
    _, switchboard = house_of()
    switchboard.drain()
    await asyncio.wait_for(switchboard.emptied(), 1)


async def test_the_end_of_draining_ends_every_call_whatever_its_state() -> None:
    house, switchboard = house_of()
    tokens = {f"CA{number:032x}": admitted(switchboard, f"CA{number:032x}") for number in range(5)}
    streams = [
        TwilioStream(house, switchboard, call_sid=sid, number=number) for number, sid in enumerate(tokens)
    ]
    for stream in streams[1:]:
        stream.start(tokens[stream.call_sid])
    streams[2].lose()
    house.models[3].lose()
    house.models[4].become_ready()
    house.models[4].caller_starts("u1", 0)
    house.models[4].caller_stops("u1", 10)
    streams[4].stop()
    switchboard.drain()
    switchboard.stop_calls()
    switchboard.finish_calls()
    await asyncio.wait_for(switchboard.emptied(), 1)
    reasons = [house.record(sid).end_reason for sid in tokens]
    assert reasons == ["daemon_stopped"] * 3 + ["model_lost", "caller_hung_up"]
    assert sorted(house.finished) == sorted(tokens)
    house.wheel.close()
    assert house.pool.in_use == 0


def test_a_call_that_twilio_does_not_ask_about_again_ends_by_itself() -> None:
    house, switchboard, _ = connected()
    house.models[0].lose()
    assert switchboard._calls[CALL].life.state is State.CLOSING
    house.clock.advance(CLOSE_SECONDS + 0.1)
    assert switchboard.active_calls == 0
    house.assert_all_is_free()


def test_a_repeated_request_is_answered_as_the_first_and_disturbs_nothing() -> None:
    """Twilio sends a webhook again when it got no answer in time; the new stream may be there already."""
    house, switchboard, stream = connected()
    stream.lose()
    again = replace(incoming(), idempotency_token="d9a4")
    step, token = switchboard.connect_ended(again)
    assert step is NextStep.RECONNECT
    second = TwilioStream(house, switchboard)
    second.start(str(token))
    assert switchboard.connect_ended(again) == (step, token)
    assert second.wire.closed is None, "the stream that came meanwhile goes on"
