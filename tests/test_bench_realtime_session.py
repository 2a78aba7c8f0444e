"""A simulated session's configuration, conversation and end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlehome.bench.realtime.channel import Close, Drop
from handlehome.bench.realtime.script import Answer, Faults, Script
from tests.bench_realtime_driver import LOUD, PHONE, Driver, types


def test_the_session_is_created_at_once_with_the_defaults() -> None:
    driver = Driver(Script(), configured=False)
    (created,) = driver.take()
    session = created["session"]
    assert (session["model"], session["expires_at"]) == ("gpt-realtime-2.1", 1_800_003_600)
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}


def test_an_update_is_answered_with_the_full_effective_session() -> None:
    driver = Driver(Script(), configured=False)
    created = driver.take()[0]["session"]
    (updated,) = driver.update(PHONE)
    session = updated["session"]
    assert session.keys() == created.keys()
    assert session["instructions"] == "Be brief."
    assert session["audio"]["input"]["turn_detection"]["prefix_padding_ms"] == 300


def test_an_update_with_beta_names_is_refused_and_changes_nothing() -> None:
    driver = Driver(Script())
    before = driver.session.session
    (error,) = driver.send("session.update", event_id="evt_1", session={**PHONE, "modalities": ["audio"]})
    assert error["error"] == {
        "type": "invalid_request_error",
        "code": "unknown_parameter",
        "message": "Unknown parameter: 'session.modalities'.",
        "param": "session.modalities",
        "event_id": "evt_1",
    }
    assert driver.session.session == before
    assert len(driver.session.channel.violations) == 1


def test_audio_before_the_updated_session_is_a_violation() -> None:
    driver = Driver(Script(session_update_ms=(50, 50)), configured=False)
    driver.append(LOUD)
    driver.update(PHONE)
    driver.append(LOUD)
    assert driver.session.channel.violations == ["append before session.updated, taken as audio/pcm"]
    driver.advance(0.1)
    assert types(driver.take()) == ["session.updated"]


def test_audio_after_a_slow_update_but_before_its_answer_is_a_violation_too() -> None:
    driver = Driver(Script(session_update_ms=(50, 50)), configured=False)
    driver.update(PHONE)
    driver.append(LOUD)
    assert len(driver.session.channel.violations) == 1


@pytest.mark.parametrize("message", ["", "{", "[]", "null", '"a"', b"\x00"])
def test_a_message_that_is_no_event_is_refused(message: str | bytes) -> None:
    driver = Driver(Script())
    (error,) = driver.send_text(message)
    assert error["error"]["code"] == "invalid_event"


@given(
    st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps)
)
def test_no_message_breaks_the_session(message: str) -> None:
    driver = Driver(Script())
    assert [event["type"] for event in driver.send_text(message)] == ["error"]


@given(
    st.sampled_from(
        ["session.update", "response.create", "conversation.item.create", "conversation.item.truncate"]
    ),
    st.dictionaries(
        st.sampled_from(
            ["session", "response", "item", "item_id", "event_id", "content_index", "audio_end_ms", "type"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.dictionaries(st.sampled_from(["type", "audio", "content", "id", "role"]), inner),
        ),
    ),
)
def test_an_event_of_any_shape_is_answered(kind: str, fields: dict[str, object]) -> None:
    driver = Driver(Script())
    assert driver.send_text(json.dumps({**fields, "type": kind}))


def test_spaced_json_appends_as_well_as_compact_json() -> None:
    driver = Driver(Script())
    driver.send("input_audio_buffer.append", audio="//8=", event_id="evt_1")
    driver.send_text('{"audio":"AAE=","type":"input_audio_buffer.append"}')
    assert driver.session.listener.audio == b"\xff\xff\x00\x01"
    assert list(driver.session.listener.sizes) == [2, 2]


def test_items_are_created_where_the_client_says() -> None:
    driver = Driver(Script())
    item = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "a"}]}
    added, done = driver.send("conversation.item.create", item={**item, "id": "first"})
    assert (added["item"]["status"], added["previous_item_id"], done["item"]) == (
        "completed",
        None,
        added["item"],
    )
    driver.send("conversation.item.create", item={**item, "id": "second"})
    (added, _) = driver.send("conversation.item.create", item=item, previous_item_id="first")
    assert added["previous_item_id"] == "first"
    (error,) = driver.send("conversation.item.create", item=item, previous_item_id="nowhere")
    assert error["error"]["param"] == "previous_item_id"
    (deleted,) = driver.send("conversation.item.delete", item_id="second")
    assert deleted == {
        "type": "conversation.item.deleted",
        "event_id": deleted["event_id"],
        "item_id": "second",
    }
    assert driver.session.conversation.order == ["first", added["item"]["id"]]


def test_the_playback_buffer_is_not_for_websockets() -> None:
    driver = Driver(Script())
    assert driver.send("output_audio_buffer.clear")[0]["type"] == "error"


def test_a_session_ends_after_an_hour() -> None:
    driver = Driver(Script())
    driver.advance(3599)
    assert driver.take() == []
    driver.advance(1.1)
    (error,) = driver.take()
    assert error["error"]["code"] == "session_expired"
    assert driver.ends == [Close(1001, "Your session hit the maximum duration of 60 minutes.")]
    assert driver.send("response.create") == []


def test_a_short_clock_ends_it_sooner_and_says_so() -> None:
    driver = Driver(Script(faults=Faults(expire_after_s=3)), configured=False)
    assert driver.take()[0]["session"]["expires_at"] == 1_800_000_003
    driver.advance(3.1)
    assert isinstance(driver.ends[0], Close)


def test_a_connection_can_be_dropped_by_the_clock() -> None:
    driver = Driver(Script(faults=Faults(drop_after_s=3)))
    driver.advance(3.1)
    assert driver.ends == [Drop()]


def test_a_drop_amid_an_answer_stops_it() -> None:
    faults = Faults(drop_at=("response.output_audio.delta", 2))
    driver = Driver(Script(greeting=Answer(text="a", audio=LOUD * 100), faults=faults))
    driver.send("response.create")
    driver.advance(5)
    assert len(driver.all("response.output_audio.delta")) == 2
    assert not driver.all("response.done")
    assert driver.ends == [Drop()]


def test_equal_seeds_make_equal_sessions() -> None:
    script = Script(greeting=Answer(text="a b c", audio=LOUD * 50, jitter_ms=30, think_ms=(0, 500)))
    runs = []
    for seed in (1, 1, 2):
        driver = Driver(script, seed=seed)
        driver.send("response.create")
        driver.advance(5)
        runs.append(driver.events)
    assert runs[0] == runs[1] != runs[2]


def test_the_greeting_waits_for_the_client_to_ask() -> None:
    """A turn made by the caller before any response.create takes an answer, not the greeting."""
    driver = Driver(Script(greeting=Answer(text="greeting"), answers=[Answer(text="answer")], vad="manual"))
    driver.start_speech()
    driver.stop_speech()
    driver.advance(1)
    driver.send("response.create")
    driver.advance(1)
    said = [e["response"]["output"][0]["content"][0]["transcript"] for e in driver.all("response.done")]
    assert said == ["answer", "greeting"]
