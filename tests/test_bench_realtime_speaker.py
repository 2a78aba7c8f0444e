"""The model's side of a session: responses, interruptions, function calls."""

import pytest

from handlehome.bench.realtime.script import Answer, Script
from tests.bench_realtime_driver import LOUD, PHONE, QUIET, Driver, audio_of, types

HELLO = Answer(text="Bonjour, Maison Services, que puis-je faire ?", audio=bytes(range(256)) * 100, pace=8)
SPOKEN = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
    "rate_limits.updated",
]


def test_an_answer_comes_whole_and_in_the_documented_order() -> None:
    driver = Driver(Script(greeting=HELLO))
    driver.send("response.create", response={"instructions": "Greet.", "metadata": {"purpose": "greeting"}})
    driver.advance(1)
    events = [event for _, event in driver.events]
    assert types(events) == [
        "session.created",
        "session.updated",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        *SPOKEN,
    ]
    assert audio_of(events) == HELLO.audio
    (done,) = driver.all("response.done")
    response = done["response"]
    assert response["status"] == "completed"
    assert response["metadata"] == {"purpose": "greeting"}
    assert response["output"][0]["content"] == [{"type": "output_audio", "transcript": HELLO.text}]
    assert response["usage"]["output_token_details"]["audio_tokens"] == 64
    assert driver.session.response_creates[0][1]["metadata"] == {"purpose": "greeting"}


def test_deltas_keep_their_absolute_schedule_at_the_pace() -> None:
    driver = Driver(
        Script(greeting=Answer(audio=QUIET * 50, pace=0.5, delta_ms=(100, 100), think_ms=(300, 300)))
    )
    start = driver.now
    driver.send("response.create")
    driver.advance(3)
    times = [t - start for t, event in driver.events if event["type"] == "response.output_audio.delta"]
    assert times == pytest.approx([0.3 + 0.2 * index for index in range(10)])


def test_speech_cancels_the_answer_after_late_deltas() -> None:
    driver = Driver(Script(greeting=HELLO, late_deltas=2, vad="manual"))
    driver.send("response.create")
    driver.advance(0.15)
    before = len(audio_of(driver.take()))
    driver.start_speech()
    assert types(driver.take()) == ["input_audio_buffer.speech_started"]
    driver.advance(0.05)
    events = driver.take()
    assert [event["type"] for event in events[:2]] == ["response.output_audio.delta"] * 2
    assert types(events) == SPOKEN
    (done,) = driver.all("response.done")
    response = done["response"]
    assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    item = response["output"][0]
    assert item["status"] == "incomplete"
    assert HELLO.text.startswith(item["content"][0]["transcript"])
    assert driver.session.generated_ms(item["id"]) == (before + len(audio_of(events))) // 8
    driver.advance(5)
    assert driver.take() == []


def test_speech_before_the_first_delta_cancels_without_an_item() -> None:
    driver = Driver(Script(greeting=Answer(text="a", audio=QUIET, think_ms=(500, 500)), vad="manual"))
    driver.send("response.create")
    driver.start_speech()
    driver.advance(1)
    (done,) = driver.all("response.done")
    assert (done["response"]["status"], done["response"]["output"]) == ("cancelled", [])


def test_speech_and_its_end_at_once_are_told_in_order() -> None:
    driver = Driver(Script(greeting=HELLO, answers=[HELLO], vad="manual"))
    driver.send("response.create")
    driver.advance(0.1)
    driver.take()
    driver.start_speech()
    driver.stop_speech()
    assert (
        types(driver.take())
        == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            *SPOKEN,
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
        ][: -3 if driver.session.channel.deadline else None]
    )


def test_without_interrupt_response_the_answer_goes_on() -> None:
    driver = Driver(Script(greeting=HELLO, vad="manual"))
    detection = {"type": "server_vad", "interrupt_response": False}
    driver.update(
        {"type": "realtime", "audio": {"input": {**PHONE["audio"]["input"], "turn_detection": detection}}}
    )
    driver.send("response.create")
    driver.advance(0.1)
    driver.start_speech()
    driver.stop_speech()
    error = driver.all("error")[0]["error"]
    assert error["code"] == "conversation_already_has_active_response"
    driver.advance(1)
    assert driver.all("response.done")[0]["response"]["status"] == "completed"


def test_a_second_response_at_a_time_is_refused_and_leaves_its_answer() -> None:
    driver = Driver(Script(greeting=HELLO, answers=[Answer(text="one")]))
    driver.send("response.create")
    (error,) = (e for e in driver.send("response.create", event_id="evt_2") if e["type"] == "error")
    assert error["error"]["code"] == "conversation_already_has_active_response"
    assert driver.session.channel.violations == []
    driver.advance(1)
    driver.send("response.create")
    driver.advance(1)
    assert driver.all("response.done")[1]["response"]["output"][0]["content"][0]["transcript"] == "one"


def test_a_cancelled_response_says_who_cancelled_it() -> None:
    driver = Driver(Script(greeting=HELLO))
    driver.send("response.create")
    driver.advance(0.1)
    driver.send("response.cancel")
    (done,) = driver.all("response.done")
    assert done["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    (error,) = driver.send("response.cancel", event_id="evt_11")
    assert error["error"]["code"] == "response_cancel_not_active"


def test_a_response_aside_runs_beside_and_leaves_the_conversation_alone() -> None:
    driver = Driver(Script(greeting=HELLO, answers=[HELLO]))
    driver.send("response.create")
    driver.send("response.create", response={"conversation": "none"})
    driver.advance(1)
    done = driver.all("response.done")
    assert sorted(e["response"]["conversation_id"] is None for e in done) == [False, True]
    assert len(driver.all("conversation.item.added")) == 1
    assert len(driver.all("response.output_item.added")) == 2


def test_a_function_call_follows_the_speech() -> None:
    arguments = '{"reason":"goodbye"}'
    answer = Answer(text="Au revoir.", audio=QUIET * 5, function_call=("end_call", arguments))
    driver = Driver(Script(greeting=answer, answers=[Answer(text="Voilà.")]))
    driver.send("response.create")
    driver.advance(1)
    (done,) = driver.all("response.function_call_arguments.done")
    assert (done["name"], done["arguments"], done["output_index"]) == ("end_call", arguments, 1)
    deltas = [event["delta"] for event in driver.all("response.function_call_arguments.delta")]
    assert "".join(deltas) == arguments
    output = driver.all("response.done")[0]["response"]["output"]
    assert [(item["type"], item["status"]) for item in output] == [
        ("message", "completed"),
        ("function_call", "completed"),
    ]
    driver.take()
    item = {"type": "function_call_output", "call_id": done["call_id"], "output": '{"ok":true}'}
    assert types(driver.send("conversation.item.create", item=item)) == [
        "conversation.item.added",
        "conversation.item.done",
    ]
    driver.send("response.create")
    driver.advance(1)
    assert driver.all("response.done")[1]["response"]["output"][0]["content"][0]["transcript"] == "Voilà."


def test_the_output_of_an_unknown_call_is_refused() -> None:
    driver = Driver(Script())
    item = {"type": "function_call_output", "call_id": "call_9", "output": ""}
    (error,) = driver.send("conversation.item.create", item=item)
    assert error["error"]["code"] == "invalid_value"


@pytest.mark.parametrize("audio", [b"", QUIET * 5])
def test_a_failed_response_tells_its_code(audio: bytes) -> None:
    driver = Driver(
        Script(greeting=Answer(text="Bon" if audio else "", audio=audio, fail="rate_limit_exceeded"))
    )
    driver.send("response.create")
    driver.advance(1)
    response = driver.all("response.done")[0]["response"]
    assert response["status"] == "failed"
    assert response["status_details"]["error"]["code"] == "rate_limit_exceeded"
    assert [item["status"] for item in response["output"]] == (["incomplete"] if audio else [])


def test_an_incomplete_response_tells_why() -> None:
    driver = Driver(Script(greeting=Answer(text="Bon", audio=QUIET, incomplete="max_output_tokens")))
    driver.send("response.create")
    driver.advance(1)
    response = driver.all("response.done")[0]["response"]
    assert response["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}


def test_a_text_response_has_text_events() -> None:
    driver = Driver(Script(greeting=HELLO))
    driver.send("response.create", response={"output_modalities": ["text"]})
    driver.advance(1)
    assert driver.all("response.output_text.done")[0]["text"] == HELLO.text
    assert not driver.all("response.output_audio.delta")


def test_the_voice_is_fixed_once_it_has_spoken() -> None:
    driver = Driver(Script(greeting=HELLO))
    driver.send("response.create")
    driver.advance(1)
    driver.take()
    (error,) = driver.update({"type": "realtime", "audio": {"output": {"voice": "cedar"}}})
    assert error["error"]["code"] == "cannot_update_voice"


def test_a_finished_answer_can_still_be_truncated() -> None:
    driver = Driver(Script(greeting=HELLO))
    driver.send("response.create")
    driver.advance(1)
    item_id = driver.all("response.done")[0]["response"]["output"][0]["id"]
    driver.take()
    (truncated,) = driver.send(
        "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=1240
    )
    assert (truncated["type"], truncated["audio_end_ms"]) == ("conversation.item.truncated", 1240)
    (error,) = driver.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=1241)
    assert error["error"]["message"] == "Audio content of 1240ms is already shorter than 1241ms"
    assert [(ms, ok) for _, _, ms, ok in driver.session.truncations] == [(1240, True), (1241, False)]
    assert driver.session.generated_ms(item_id) == 3200


def test_late_deltas_do_not_lengthen_a_truncated_item() -> None:
    driver = Driver(Script(greeting=HELLO, late_deltas=2, vad="manual"))
    driver.send("response.create")
    driver.advance(0.1)
    item_id = driver.all("response.output_item.added")[0]["item"]["id"]
    driver.start_speech()
    driver.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=100)
    driver.advance(0.1)
    item = driver.session.conversation.get(item_id)
    assert (item.audio_ms, len(item.audio)) == (100, 800)
    assert "transcript" not in item.body["content"][0]


def test_echo_returns_each_append_byte_for_byte() -> None:
    driver = Driver(Script(echo=True))
    driver.send("response.create")
    for frame in (LOUD, QUIET, b"\x01", bytes(range(256))):
        driver.append(frame)
    deltas = driver.all("response.output_audio.delta")
    assert audio_of(deltas) == LOUD + QUIET + b"\x01" + bytes(range(256))
    assert len({delta["event_id"] for delta in deltas}) == 4
    assert not driver.all("input_audio_buffer.speech_started")
    driver.advance(60)
    assert not driver.all("response.done")
    driver.take()
    item_id = deltas[0]["item_id"]
    (truncated,) = driver.send(
        "conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=40
    )
    assert truncated["type"] == "conversation.item.truncated"


def test_echo_needs_no_response_create() -> None:
    driver = Driver(Script(echo=True))
    driver.append(LOUD)
    assert types(driver.take())[0] == "response.created"
    assert driver.session.listener.audio == LOUD
