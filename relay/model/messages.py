"""Messages of the Realtime API, as far as the relay sends and reads them.

Shapes: the GA event types of `openai.types.realtime`; the tests validate each against that package.
Audio in both directions is text that is spliced, not parsed; see `parse_delta`.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from handlehome.codecs.payload import payload_size

APPEND_HEAD = b'{"type":"input_audio_buffer.append","audio":"'
APPEND_TAIL = b'"}'

# The layout in which the API sends audio; ids are plain names there. Any other layout is as good,
# and takes the slow path.
_DELTA = re.compile(
    rb'\{"type":"response\.output_audio\.delta","event_id":"[A-Za-z0-9_.-]*","response_id":"([A-Za-z0-9_.-]+)",'
    rb'"item_id":"([A-Za-z0-9_.-]+)","output_index":(?:0|[1-9]\d*),"content_index":(?:0|[1-9]\d*),"delta":"'
)

Delta = tuple[str, str, bytes, int]
"""A piece of an item's audio: response id, item id, base64 text, and the bytes it stands for."""


class InvalidEvent(Exception):
    """The peer sent something that is no event of the protocol."""


def append(payload: bytes) -> bytes:
    """`input_audio_buffer.append` of base64 text that has been checked."""
    return APPEND_HEAD + payload + APPEND_TAIL


def parse_delta(message: bytes) -> Delta | None:
    """Reads a `response.output_audio.delta` in its usual layout without parsing JSON.

    Returns:
        None for every other event, and for every other layout of this one.
    """
    head = _DELTA.match(message)
    if head is None or not message.endswith(b'"}', head.end()):
        return None
    payload = message[head.end() : -2]
    size = payload_size(payload)
    if size < 0:
        return None
    response_id, item_id = head.groups()
    return response_id.decode(), item_id.decode(), payload, size


def parse_event(message: bytes) -> dict[str, Any]:
    """Parses any event.

    Raises:
        InvalidEvent: no JSON object, or no `type`.
    """
    try:
        event = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise InvalidEvent(f"not JSON: {error}") from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise InvalidEvent("not an event: no type")
    return event


_TEXTS = ("item_id", "response_id", "transcript", "delta", "id")
_TEXTS_OR_NULL = ("call_id", "name", "arguments", "status")
_TIMES_MS = ("audio_start_ms", "audio_end_ms")
_MAX_MS = 10**8  # a session lasts 3.6 million ms


def check_event(event: dict[str, Any]) -> None:
    """Checks the fields that are read of events, as far as they are there: what is kept must be sound.

    Raises:
        InvalidEvent: one is of the wrong kind, or out of range.
    """
    for part in (event, event.get("item", {}), event.get("response", {})):
        if not isinstance(part, dict):
            raise InvalidEvent("an item or a response is no object")
        for name in _TEXTS:
            if not isinstance(part.get(name, ""), str):
                raise InvalidEvent(f"{name} is no string")
        for name in _TEXTS_OR_NULL:
            if not isinstance(part.get(name), str | None):
                raise InvalidEvent(f"{name} is no string")
    if not isinstance(event.get("previous_item_id"), str | None):
        raise InvalidEvent("previous_item_id is no string")
    for name in _TIMES_MS:
        value = event.get(name, 0)
        if not isinstance(value, int) or not 0 <= value <= _MAX_MS:
            raise InvalidEvent(f"{name} is no time")


def delta_of(event: dict[str, Any]) -> Delta:
    """The slow path of `parse_delta`: the same from a parsed event.

    Raises:
        InvalidEvent: a field is missing, or the audio is not base64.
    """
    try:
        payload = event["delta"].encode("ascii")
        response_id, item_id = event["response_id"], event["item_id"]
    except (KeyError, AttributeError, UnicodeEncodeError) as error:
        raise InvalidEvent(f"audio delta: {error!r}") from error
    if not isinstance(response_id, str) or not isinstance(item_id, str):
        raise InvalidEvent("audio delta: an id is no string")
    size = payload_size(payload)
    if size < 0:
        raise InvalidEvent("audio delta: not base64")
    return response_id, item_id, payload, size


def session_update(session: dict[str, Any]) -> dict[str, Any]:
    """`session.update`."""
    return {"type": "session.update", "event_id": "evt_session", "session": session}


def response_create(event_id: str, instructions: str | None, purpose: str) -> dict[str, Any]:
    """`response.create`; `purpose` comes back in the response's metadata."""
    response: dict[str, Any] = {"metadata": {"purpose": purpose}}
    if instructions is not None:
        response["instructions"] = instructions
    return {"type": "response.create", "event_id": event_id, "response": response}


def commit() -> dict[str, Any]:
    """`input_audio_buffer.commit`: makes an item of the audio so far, without an answer."""
    return {"type": "input_audio_buffer.commit"}


def response_cancel(event_id: str, response_id: str) -> dict[str, Any]:
    """`response.cancel`."""
    return {"type": "response.cancel", "event_id": event_id, "response_id": response_id}


def item_truncate(item_id: str, audio_end_ms: int) -> dict[str, Any]:
    """`conversation.item.truncate`: the model is to know what was heard."""
    return {
        "type": "conversation.item.truncate",
        "item_id": item_id,
        "content_index": 0,
        "audio_end_ms": audio_end_ms,
    }


def function_output(call_id: str, output: dict[str, Any]) -> dict[str, Any]:
    """`conversation.item.create` of a function call's result."""
    return {
        "type": "conversation.item.create",
        "item": {
            "type": "function_call_output",
            "call_id": call_id,
            "output": orjson.dumps(output).decode(),
        },
    }
