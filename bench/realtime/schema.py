"""Which client events the Realtime API takes: every field, its type, its range, and which must be there.

The tables describe the eleven client events; nothing here knows the state of a session.
"""

from collections.abc import Mapping

from handlehome.bench.realtime.checks import (
    Check,
    RefusedError,
    anything,
    array,
    boolean,
    either,
    integer,
    literal,
    nullable,
    number,
    shape,
    string_map,
    tagged,
    text,
)

VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
_EFFORTS = ("minimal", "low", "medium", "high", "xhigh")

string = text()
object_id = text(longest=128, pattern="[a-zA-Z0-9_-]+")

# No `rate` with the G.711 formats: the Realtime API refuses it there.
audio_format = tagged(
    "type",
    {
        "audio/pcm": shape({"type": string, "rate": literal(24000)}),
        "audio/pcmu": shape({"type": string}),
        "audio/pcma": shape({"type": string}),
    },
)
voice = either(str, literal(*VOICES), shape({"id": text(pattern="voice_.+")}, "id"))
modalities = either(list, literal(["audio"], ["text"]), array(string))
max_output_tokens = either(str, literal("inf"), integer(1, 4096))
turn_detection = tagged(
    "type",
    {
        "server_vad": shape(
            {
                "type": string,
                "threshold": number(0.0, 1.0),
                "prefix_padding_ms": integer(0),
                "silence_duration_ms": integer(0),
                "create_response": boolean,
                "interrupt_response": boolean,
                "idle_timeout_ms": nullable(integer(5000, 30000)),
            }
        ),
        "semantic_vad": shape(
            {
                "type": string,
                "eagerness": literal("low", "medium", "high", "auto"),
                "create_response": boolean,
                "interrupt_response": boolean,
            }
        ),
    },
)
transcription = shape(
    {
        "model": string,
        "language": string,
        "languages": array(string),
        "keywords": array(string),
        "prompt": string,
        "delay": literal(*_EFFORTS),
    }
)
noise_reduction = shape({"type": literal("near_field", "far_field"), "strength": number(0.0, 1.0)})
tool = tagged(
    "type",
    {
        "function": shape(
            {"type": string, "name": object_id, "description": string, "parameters": anything}, "name"
        ),
        "mcp": shape(
            {
                "type": string,
                "server_label": string,
                "server_url": string,
                "connector_id": string,
                "tunnel_id": string,
                "authorization": string,
                "headers": anything,
                "allowed_tools": anything,
                "require_approval": anything,
                "server_description": string,
                "defer_loading": boolean,
                "allowed_callers": array(literal("direct", "programmatic")),
            },
            "server_label",
        ),
    },
)
tool_choice = either(
    str,
    literal("none", "auto", "required"),
    tagged(
        "type",
        {
            "function": shape({"type": string, "name": string}, "name"),
            "mcp": shape({"type": string, "server_label": string, "name": nullable(string)}, "server_label"),
        },
    ),
)
reasoning = shape({"effort": literal(*_EFFORTS)})
prompt = shape({"id": string, "version": nullable(string), "variables": anything}, "id")
truncation = either(
    str,
    literal("auto", "disabled"),
    shape(
        {
            "type": literal("retention_ratio"),
            "retention_ratio": number(0.0, 1.0),
            "token_limits": shape({"post_instructions": integer(0)}),
        },
        "type",
        "retention_ratio",
    ),
)
tracing = either(
    str,
    literal("auto"),
    shape({"workflow_name": string, "group_id": string, "metadata": anything}),
)
session = shape(
    {
        "type": literal("realtime"),
        "model": string,
        "instructions": string,
        "output_modalities": modalities,
        "audio": shape(
            {
                "input": shape(
                    {
                        "format": audio_format,
                        "noise_reduction": nullable(noise_reduction),
                        "transcription": nullable(transcription),
                        "turn_detection": nullable(turn_detection),
                    }
                ),
                "output": shape({"format": audio_format, "voice": voice, "speed": number(0.25, 1.5)}),
            }
        ),
        "tools": array(tool),
        "tool_choice": tool_choice,
        "parallel_tool_calls": boolean,
        "reasoning": reasoning,
        "max_output_tokens": max_output_tokens,
        "truncation": truncation,
        "tracing": nullable(tracing),
        "prompt": nullable(prompt),
        "include": nullable(array(literal("item.input_audio_transcription.logprobs"))),
    },
    "type",
)

_ITEM: dict[str, Check] = {
    "type": string,
    "id": object_id,
    "object": literal("realtime.item"),
    "status": literal("completed", "incomplete", "in_progress"),
}
_INPUT_TEXT = shape({"type": string, "text": string}, "text")


def _message(contents: Mapping[str, Check]) -> Check:
    return shape({**_ITEM, "role": string, "content": array(tagged("type", contents))}, "content")


# Assistant messages can be replayed as text only: the API takes no assistant audio from a client.
_ITEM_KINDS: dict[str, Check] = {
    "message": tagged(
        "role",
        {
            "system": _message({"input_text": _INPUT_TEXT}),
            "user": _message(
                {
                    "input_text": _INPUT_TEXT,
                    "input_audio": shape({"type": string, "audio": string, "transcript": string}, "audio"),
                    "input_image": shape(
                        {"type": string, "image_url": string, "detail": string}, "image_url"
                    ),
                }
            ),
            "assistant": _message({"output_text": _INPUT_TEXT}),
        },
    ),
    "function_call": shape(
        {**_ITEM, "name": string, "call_id": object_id, "arguments": string}, "name", "arguments"
    ),
    "function_call_output": shape({**_ITEM, "call_id": object_id, "output": string}, "call_id", "output"),
    "mcp_approval_response": shape(
        {**_ITEM, "approval_request_id": string, "approve": boolean, "reason": nullable(string)},
        "approval_request_id",
        "approve",
    ),
}
item = tagged("type", _ITEM_KINDS)
input_item = tagged("type", {**_ITEM_KINDS, "item_reference": shape({"type": string, "id": object_id}, "id")})
response = shape(
    {
        "audio": shape({"output": shape({"format": audio_format, "voice": voice})}),
        "conversation": literal("auto", "none"),
        "input": array(input_item),
        "instructions": string,
        "max_output_tokens": max_output_tokens,
        "metadata": nullable(string_map),
        "output_modalities": modalities,
        "parallel_tool_calls": boolean,
        "prompt": nullable(prompt),
        "reasoning": reasoning,
        "tool_choice": tool_choice,
        "tools": array(tool),
    }
)


def _event(fields: Mapping[str, Check], *required: str) -> Check:
    return shape({"type": string, "event_id": text(longest=512), **fields}, *required)


EVENTS: dict[str, Check] = {
    "session.update": _event({"session": session}, "session"),
    "input_audio_buffer.append": _event({"audio": string}, "audio"),
    "input_audio_buffer.commit": _event({}),
    "input_audio_buffer.clear": _event({}),
    "conversation.item.create": _event({"item": item, "previous_item_id": nullable(string)}, "item"),
    "conversation.item.delete": _event({"item_id": string}, "item_id"),
    "conversation.item.retrieve": _event({"item_id": string}, "item_id"),
    "conversation.item.truncate": _event(
        {"item_id": string, "content_index": integer(0), "audio_end_ms": integer(0)},
        "item_id",
        "content_index",
        "audio_end_ms",
    ),
    "response.create": _event({"response": nullable(response)}),
    "response.cancel": _event({"response_id": nullable(string)}),
    "output_audio_buffer.clear": _event({}),
}


def check_event(event: object) -> str:
    """Checks one client event, already parsed from JSON.

    Returns:
        Its type.

    Raises:
        RefusedError: The event is not one the API takes.
    """
    if not isinstance(event, dict):
        raise RefusedError("invalid_event", "The event must be a JSON object.")
    if "type" not in event:
        raise RefusedError("missing_required_parameter", "Missing required parameter: 'type'.", "type")
    literal(*EVENTS)(event["type"], "type")
    kind: str = event["type"]
    EVENTS[kind](event, "")
    return kind
