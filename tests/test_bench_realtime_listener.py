"""The caller's side of a session: buffer, turns, transcriptions."""

import pytest

from handlehome.bench.realtime.script import Answer, Script
from tests.bench_realtime_driver import LOUD, PHONE, QUIET, Driver, types

TRANSCRIPTION = "conversation.item.input_audio_transcription"


def without(field: str, **detection: object) -> dict[str, object]:
    audio_input = {
        **PHONE["audio"]["input"],
        field: {"type": "server_vad", **detection} if detection else None,
    }
    return {"type": "realtime", "audio": {"input": audio_input}}


def test_a_turn_comes_in_the_documented_order() -> None:
    driver = Driver(Script(caller_texts=["Bonjour, vous êtes ouverts ?"]))
    driver.say(QUIET, 1.0)
    driver.say(LOUD, 1.0)
    driver.say(QUIET, 0.6)
    events = driver.take()
    assert types(events)[:7] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.done",
    ]
    started, stopped, committed, added, done = events[:5]
    assert (started["audio_start_ms"], stopped["audio_end_ms"]) == (700, 2500)
    assert {
        started["item_id"],
        stopped["item_id"],
        committed["item_id"],
        added["item"]["id"],
        done["item"]["id"],
    } == {started["item_id"]}
    assert committed["previous_item_id"] is None
    driver.advance(0.5)
    events = driver.take()
    deltas = [event["delta"] for event in events if event["type"] == f"{TRANSCRIPTION}.delta"]
    completed = next(event for event in events if event["type"] == f"{TRANSCRIPTION}.completed")
    assert "".join(deltas) == completed["transcript"] == "Bonjour, vous êtes ouverts ?"
    assert completed["usage"]["type"] == "tokens"


def test_the_next_turn_follows_the_answer() -> None:
    driver = Driver(Script(answers=[Answer(text="Oui.", audio=QUIET * 10)]))
    for _ in range(2):
        driver.say(LOUD, 0.5)
        driver.say(QUIET, 1.5)
    committed = driver.all("input_audio_buffer.committed")
    assistant = next(e for e in driver.all("conversation.item.added") if e["item"]["role"] == "assistant")
    assert assistant["previous_item_id"] == committed[0]["item_id"]
    assert committed[1]["previous_item_id"] == assistant["item"]["id"]


def test_transcriptions_fail_or_never_come_where_the_script_says() -> None:
    faults = {"failed": {0}, "never": {1}}
    driver = Driver(Script(caller_texts=["a", "b", "c"], transcription_faults=faults))
    for _ in range(3):
        driver.say(LOUD, 0.3)
        driver.say(QUIET, 1.0)
    items = [event["item_id"] for event in driver.all("input_audio_buffer.committed")]
    assert [event["item_id"] for event in driver.all(f"{TRANSCRIPTION}.failed")] == [items[0]]
    completed = driver.all(f"{TRANSCRIPTION}.completed")
    assert [(event["item_id"], event["transcript"]) for event in completed] == [(items[2], "c")]


def test_without_a_transcription_model_there_are_no_transcripts() -> None:
    driver = Driver(Script(caller_texts=["a"]))
    driver.update(without("transcription"))
    driver.say(LOUD, 0.3)
    driver.say(QUIET, 1.0)
    assert driver.all("input_audio_buffer.committed")
    assert not driver.all(f"{TRANSCRIPTION}.completed")


def test_whisper_is_billed_by_duration() -> None:
    driver = Driver(Script(caller_texts=["a"]))
    driver.update({"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}})
    driver.say(LOUD, 1.0)
    driver.say(QUIET, 1.0)
    (completed,) = driver.all(f"{TRANSCRIPTION}.completed")
    assert completed["usage"] == {"type": "duration", "seconds": 1.5}
    assert not driver.all(f"{TRANSCRIPTION}.delta")


def test_a_commit_of_too_little_audio_is_refused() -> None:
    driver = Driver(Script())
    driver.say(QUIET, 0.08)
    (error,) = driver.send("input_audio_buffer.commit", event_id="evt_7")
    assert error["error"]["code"] == "input_audio_buffer_commit_empty"
    assert error["error"]["event_id"] == "evt_7"


def test_a_commit_makes_an_item_but_no_answer() -> None:
    driver = Driver(Script(caller_texts=["a"]))
    driver.update(without("turn_detection"))
    driver.say(LOUD, 0.5)
    assert types(driver.send("input_audio_buffer.commit")) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    driver.advance(1)
    assert types(driver.take()) == [f"{TRANSCRIPTION}.completed"]


def test_a_cleared_buffer_is_empty() -> None:
    driver = Driver(Script())
    driver.say(QUIET, 1.0)
    assert types(driver.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    assert driver.send("input_audio_buffer.commit")[0]["error"]["code"] == "input_audio_buffer_commit_empty"


def test_a_retrieved_item_holds_what_was_said() -> None:
    driver = Driver(Script())
    driver.say(LOUD, 1.0)
    driver.say(QUIET, 0.6)
    (committed,) = driver.all("input_audio_buffer.committed")
    (retrieved,) = (
        event
        for event in driver.send("conversation.item.retrieve", item_id=committed["item_id"])
        if event["type"] == "conversation.item.retrieved"
    )
    assert len(retrieved["item"]["content"][0]["audio"]) == 1500 * 8 // 3 * 4


def test_manual_triggers_work_without_energy() -> None:
    driver = Driver(Script(vad="manual"))
    driver.say(LOUD, 2.0)
    assert driver.take() == []
    driver.start_speech()
    with pytest.raises(ValueError, match="already"):
        driver.start_speech()
    driver.say(QUIET, 1.0)
    driver.stop_speech()
    with pytest.raises(ValueError, match="no speech"):
        driver.stop_speech()
    started, stopped, *_ = driver.take()
    assert (started["audio_start_ms"], stopped["audio_end_ms"]) == (1700, 3000)


def test_a_manual_trigger_and_the_energy_tell_speech_once() -> None:
    driver = Driver(Script())
    driver.say(QUIET, 1.0)
    driver.start_speech()
    driver.say(LOUD, 1.0)
    driver.say(QUIET, 1.0)
    kinds = types(driver.take())
    assert kinds.count("input_audio_buffer.speech_started") == 1
    assert kinds.count("input_audio_buffer.speech_stopped") == 1


def test_audio_that_is_not_base64_is_refused() -> None:
    driver = Driver(Script())
    for audio in ("A", "//8", "a b=", "é"):
        (error,) = driver.send("input_audio_buffer.append", audio=audio)
        assert (error["error"]["code"], error["error"]["param"]) == ("invalid_value", "audio")


def test_pcm_audio_is_understood_too() -> None:
    driver = Driver(Script())
    driver.update({"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}}})
    for sample in (b"\x00\x00", b"\x00\x20", b"\x00\x00"):
        driver.say(sample * 480, 1.0)
    started, stopped, *_ = driver.take()
    assert (started["audio_start_ms"], stopped["audio_end_ms"]) == (700, 2500)


def test_silence_after_an_answer_is_answered_when_idle_timeout_is_on() -> None:
    driver = Driver(
        Script(answers=[Answer(text="Oui.", audio=QUIET * 50), Answer(text="Allô ?", audio=QUIET)])
    )
    driver.update(without("turn_detection", idle_timeout_ms=5000))
    driver.send("response.create")
    start = driver.now
    driver.say(QUIET, 8.0)
    (timeout,) = driver.all("input_audio_buffer.timeout_triggered")
    assert driver.first_at("input_audio_buffer.timeout_triggered") == pytest.approx(start + 6.0, abs=0.05)
    assert driver.all("input_audio_buffer.committed")[0]["item_id"] == timeout["item_id"]
    assert [e["response"]["output"][0]["content"][0]["transcript"] for e in driver.all("response.done")] == [
        "Oui.",
        "Allô ?",
    ]
