"""Every event the simulated server sends is one the openai package knows, field by field."""

import typing
from collections.abc import Iterator
from typing import Any

import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel, ValidationError

from handlehome.bench.realtime.script import Answer, Script
from tests.bench_realtime_driver import LOUD, PHONE, QUIET, Driver

# Fields of the server's session that the documentation shows; the library's types are those of a request.
DOCUMENTED = {("RealtimeSessionCreateRequest", name) for name in ("id", "object", "expires_at")}


def classes() -> dict[str, type[BaseModel]]:
    """The library's class for each event type."""
    union = typing.get_args(RealtimeServerEvent)[0]
    found = {}
    for member in typing.get_args(union):
        found[typing.get_args(member.model_fields["type"].annotation)[0]] = member
    return found


def extras(value: object) -> Iterator[tuple[str, str]]:
    """Fields that a validated model was given and doesn't have, at any depth."""
    if isinstance(value, BaseModel):
        for name in value.model_extra or {}:
            yield type(value).__name__, name
        for name in type(value).model_fields:
            yield from extras(getattr(value, name))
    elif isinstance(value, list):
        for element in value:
            yield from extras(element)


def validate(event: dict[str, Any], known: dict[str, type[BaseModel]]) -> None:
    model = known[event["type"]].model_validate(event, strict=True)
    assert set(extras(model)) <= DOCUMENTED, event


def rich_session() -> Driver:
    """A session in which everything happens that the simulator can do."""
    answers = [
        Answer(text="Oui, nous sommes ouverts.", audio=QUIET * 200, pace=2),
        Answer(text="Je regarde.", audio=QUIET * 5, function_call=("look_up", '{"day":"lundi"}')),
        Answer(text="Lundi, oui.", audio=QUIET * 5),
        Answer(fail="server_error"),
        Answer(text="Je vous", audio=QUIET * 5, incomplete="content_filter"),
        Answer(text="Allô ?", audio=QUIET * 5),
    ]
    script = Script(
        greeting=Answer(text="Bonjour à vous.", audio=QUIET * 50),
        answers=[*answers, *answers],
        caller_texts=["Vous êtes ouverts ?"],
        transcription_faults={"failed": {1}},
        transcription_ms=(50, 100),
    )
    driver = Driver(script, configured=False)
    tools = [{"type": "function", "name": "look_up", "parameters": {"type": "object"}}]
    driver.update({**PHONE, "tools": tools, "output_modalities": ["audio"], "max_output_tokens": 1024})
    driver.update({"type": "realtime", "audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}})
    detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    driver.update({"type": "realtime", "audio": {"input": {"turn_detection": detection}}})
    driver.send("response.create", response={"metadata": {"purpose": "greeting"}})
    driver.say(QUIET, 1)
    for _ in range(2):
        driver.say(LOUD, 1)
        driver.say(QUIET, 1)
    message = next(e for e in driver.all("response.output_item.added") if e["item"]["type"] == "message")
    item_id = message["item"]["id"]
    driver.send("conversation.item.retrieve", item_id=item_id)
    driver.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=100)
    driver.send("conversation.item.retrieve", item_id=item_id)
    driver.send("conversation.item.delete", item_id=item_id)
    call = driver.all("response.function_call_arguments.done")[0]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "{}"}
    driver.send("conversation.item.create", item=output)
    for response in ({}, {}, {}, {"output_modalities": ["text"]}, {"conversation": "none"}):
        driver.send("response.create", response=response)
        driver.send("response.create")
        driver.advance(2)
    driver.send("response.cancel", event_id="evt_1")
    driver.say(QUIET, 1)
    driver.send("input_audio_buffer.commit")
    driver.send("input_audio_buffer.clear")
    driver.update({"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}})
    driver.say(QUIET, 12)
    driver.advance(3600)
    return driver


def test_every_event_of_a_rich_session_is_one_the_library_knows() -> None:
    known = classes()
    driver = rich_session()
    events = [event for _, event in driver.events]
    for event in events:
        validate(event, known)
    assert len({event["event_id"] for event in events}) == len(events)
    never = {kind for kind in known if "mcp" in kind or kind.startswith("output_audio_buffer")} | {
        "conversation.created",
        "conversation.item.created",
        "conversation.item.input_audio_transcription.segment",
        "input_audio_buffer.dtmf_event_received",
    }
    assert {event["type"] for event in events} == set(known) - never


def test_an_echoed_delta_is_one_the_library_knows() -> None:
    driver = Driver(Script(echo=True))
    driver.append(LOUD)
    validate(driver.all("response.output_audio.delta")[0], classes())


def test_the_check_itself_finds_what_is_wrong() -> None:
    known = classes()
    with pytest.raises(AssertionError):
        validate({"type": "input_audio_buffer.cleared", "event_id": "e", "more": 1}, known)
    with pytest.raises(ValidationError):
        validate({"type": "input_audio_buffer.cleared"}, known)
