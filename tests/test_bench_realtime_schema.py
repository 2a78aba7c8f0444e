"""The client events that the simulated server takes and refuses."""

from typing import Any

import pytest
from openai.types.realtime import RealtimeClientEvent
from pydantic import TypeAdapter

from handlehome.bench.realtime import schema
from handlehome.bench.realtime.checks import RefusedError

FULL_SESSION: dict[str, Any] = {
    "type": "realtime",
    "instructions": "You answer the phone for Example Ltd. Be brief.",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcmu"},
            "noise_reduction": None,
            "transcription": {"model": "gpt-transcribe", "languages": ["en", "de"]},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 500,
                "create_response": True,
                "interrupt_response": True,
                "idle_timeout_ms": 10000,
            },
        },
        "output": {"format": {"type": "audio/pcmu"}, "voice": "marin", "speed": 1.0},
    },
    "tools": [
        {
            "type": "function",
            "name": "end_call",
            "description": "Hang up.",
            "parameters": {"type": "object", "properties": {"reason": {"type": "string"}}},
        }
    ],
    "tool_choice": "auto",
    "max_output_tokens": 1024,
    "truncation": "auto",
    "tracing": None,
}

TAKEN: list[dict[str, Any]] = [
    {"type": "session.update", "event_id": "evt_1", "session": FULL_SESSION},
    {"type": "input_audio_buffer.append", "audio": "//8="},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "conversation.item.delete", "item_id": "item_1"},
    {"type": "conversation.item.retrieve", "item_id": "item_1"},
    {"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0, "audio_end_ms": 0},
    {"type": "response.create"},
    {
        "type": "response.create",
        "response": {
            "instructions": "Greet.",
            "metadata": {"a": "b"},
            "input": [],
            "conversation": "none",
        },
    },
    {"type": "response.cancel", "response_id": "resp_1"},
    {"type": "output_audio_buffer.clear"},
]
TAKEN += [
    {"type": "conversation.item.create", "item": item}
    for item in (
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
        {"type": "function_call", "name": "f", "call_id": "call_1", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "{}"},
    )
]


@pytest.mark.parametrize("event", TAKEN, ids=lambda event: event["type"])
def test_an_event_as_documented_is_taken(event: dict[str, Any]) -> None:
    assert schema.check_event(event) == event["type"]
    # The library's types agree that this is a client event.
    TypeAdapter(RealtimeClientEvent).validate_python(event)


def test_an_item_reference_is_taken_as_input() -> None:
    """The documentation has item references; the library's types do not."""
    response = {"input": [{"type": "item_reference", "id": "item_1"}]}
    assert schema.check_event({"type": "response.create", "response": response}) == "response.create"


def session_with(path: str, value: object) -> dict[str, Any]:
    """A minimal session with one field set."""
    session: dict[str, Any] = {"type": "realtime"}
    place = session
    *names, last = path.split(".")
    for name in names:
        place = place.setdefault(name, {})
    place[last] = value
    return session


@pytest.mark.parametrize(
    ("path", "value", "code", "param"),
    [
        ("modalities", ["audio", "text"], "unknown_parameter", "modalities"),
        ("voice", "alloy", "unknown_parameter", "voice"),
        ("input_audio_format", "g711_ulaw", "unknown_parameter", "input_audio_format"),
        ("temperature", 0.8, "unknown_parameter", "temperature"),
        ("turn_detection", None, "unknown_parameter", "turn_detection"),
        ("max_response_output_tokens", 5, "unknown_parameter", "max_response_output_tokens"),
        ("type", "transcription", "invalid_value", "type"),
        (
            "audio.input.format",
            {"type": "audio/pcmu", "rate": 8000},
            "unknown_parameter",
            "audio.input.format.rate",
        ),
        (
            "audio.input.format",
            {"type": "audio/pcm", "rate": 16000},
            "invalid_value",
            "audio.input.format.rate",
        ),
        ("audio.input.format", "g711_ulaw", "invalid_value", "audio.input.format"),
        ("audio.output.voice", "nova", "invalid_value", "audio.output.voice"),
        ("audio.output.speed", 2.0, "invalid_value", "audio.output.speed"),
        (
            "audio.input.turn_detection",
            {"threshold": 0.5},
            "missing_required_parameter",
            "audio.input.turn_detection.type",
        ),
        (
            "audio.input.turn_detection",
            {"type": "server_vad", "threshold": 2},
            "invalid_value",
            "audio.input.turn_detection.threshold",
        ),
        (
            "audio.input.turn_detection",
            {"type": "server_vad", "eagerness": "low"},
            "unknown_parameter",
            "audio.input.turn_detection.eagerness",
        ),
        (
            "audio.input.turn_detection",
            {"type": "semantic_vad", "threshold": 0.5},
            "unknown_parameter",
            "audio.input.turn_detection.threshold",
        ),
        (
            "audio.input.turn_detection",
            {"type": "server_vad", "idle_timeout_ms": 100},
            "invalid_value",
            "audio.input.turn_detection.idle_timeout_ms",
        ),
        ("output_modalities", ["audio", "text"], "invalid_value", "output_modalities"),
        ("max_output_tokens", 5000, "invalid_value", "max_output_tokens"),
        ("max_output_tokens", "all", "invalid_value", "max_output_tokens"),
        (
            "tools",
            [{"type": "function", "function": {"name": "f"}}],
            "unknown_parameter",
            "tools[0].function",
        ),
        ("tools", None, "invalid_value", "tools"),
        ("instructions", 5, "invalid_value", "instructions"),
    ],
)
def test_a_session_with_a_wrong_field_is_refused(path: str, value: object, code: str, param: str) -> None:
    with pytest.raises(RefusedError) as refused:
        schema.check_event({"type": "session.update", "session": session_with(path, value)})
    assert (refused.value.code, refused.value.param) == (code, f"session.{param}")


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ([], "invalid_event", None),
        ({}, "missing_required_parameter", "type"),
        ({"type": 5}, "invalid_value", "type"),
        ({"type": "session.start"}, "invalid_value", "type"),
        ({"type": "session.update"}, "missing_required_parameter", "session"),
        ({"type": "session.update", "session": {}}, "missing_required_parameter", "session.type"),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "", "id": 1}, "unknown_parameter", "id"),
        ({"type": "response.create", "session": {}}, "unknown_parameter", "session"),
        (
            {"type": "response.create", "response": {"modalities": ["audio"]}},
            "unknown_parameter",
            "response.modalities",
        ),
        (
            {"type": "response.create", "response": {"metadata": {"n": 1}}},
            "invalid_value",
            "response.metadata.n",
        ),
        (
            {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0},
            "missing_required_parameter",
            "audio_end_ms",
        ),
        (
            {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": -1},
            "invalid_value",
            "audio_end_ms",
        ),
        (
            {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": 1.5},
            "invalid_value",
            "audio_end_ms",
        ),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "a"}]},
            },
            "invalid_value",
            "item.content[0].type",
        ),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "function_call_output", "call_id": "c", "output": {}},
            },
            "invalid_value",
            "item.output",
        ),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "message", "role": "user", "id": "a b", "content": []},
            },
            "invalid_value",
            "item.id",
        ),
    ],
)
def test_a_wrong_event_is_refused(event: object, code: str, param: str | None) -> None:
    with pytest.raises(RefusedError) as refused:
        schema.check_event(event)
    assert (refused.value.code, refused.value.param) == (code, param)
