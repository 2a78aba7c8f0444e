"""The server's events, as the API spells them; the session adds ``event_id`` when it sends one."""

from handlehome.bench.realtime.checks import Json, RefusedError


def session_created(session: Json) -> Json:
    return {"type": "session.created", "session": session}


def session_updated(session: Json) -> Json:
    return {"type": "session.updated", "session": session}


def error(refused: RefusedError, client_event_id: str | None, *, kind: str = "invalid_request_error") -> Json:
    detail = {
        "type": kind,
        "code": refused.code,
        "message": refused.message,
        "param": refused.param,
        "event_id": client_event_id,
    }
    return {"type": "error", "error": detail}


def speech_started(item_id: str, audio_start_ms: int) -> Json:
    return {
        "type": "input_audio_buffer.speech_started",
        "audio_start_ms": audio_start_ms,
        "item_id": item_id,
    }


def speech_stopped(item_id: str, audio_end_ms: int) -> Json:
    return {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": audio_end_ms, "item_id": item_id}


def timeout_triggered(item_id: str, audio_start_ms: int, audio_end_ms: int) -> Json:
    return {
        "type": "input_audio_buffer.timeout_triggered",
        "audio_start_ms": audio_start_ms,
        "audio_end_ms": audio_end_ms,
        "item_id": item_id,
    }


def committed(item_id: str, previous_item_id: str | None) -> Json:
    return {
        "type": "input_audio_buffer.committed",
        "previous_item_id": previous_item_id,
        "item_id": item_id,
    }


def cleared() -> Json:
    return {"type": "input_audio_buffer.cleared"}


def item_added(item: Json, previous_item_id: str | None) -> Json:
    return {"type": "conversation.item.added", "previous_item_id": previous_item_id, "item": item}


def item_done(item: Json, previous_item_id: str | None) -> Json:
    return {"type": "conversation.item.done", "previous_item_id": previous_item_id, "item": item}


def item_deleted(item_id: str) -> Json:
    return {"type": "conversation.item.deleted", "item_id": item_id}


def item_retrieved(item: Json) -> Json:
    return {"type": "conversation.item.retrieved", "item": item}


def item_truncated(item_id: str, content_index: int, audio_end_ms: int) -> Json:
    return {
        "type": "conversation.item.truncated",
        "item_id": item_id,
        "content_index": content_index,
        "audio_end_ms": audio_end_ms,
    }


_TRANSCRIPTION = "conversation.item.input_audio_transcription"


def transcription_delta(item_id: str, delta: str) -> Json:
    return {"type": f"{_TRANSCRIPTION}.delta", "item_id": item_id, "content_index": 0, "delta": delta}


def transcription_completed(item_id: str, transcript: str, usage: Json) -> Json:
    return {
        "type": f"{_TRANSCRIPTION}.completed",
        "item_id": item_id,
        "content_index": 0,
        "transcript": transcript,
        "usage": usage,
    }


def transcription_failed(item_id: str) -> Json:
    detail = {
        "type": "transcription_error",
        "code": "audio_unintelligible",
        "message": "The audio could not be transcribed.",
        "param": None,
    }
    return {"type": f"{_TRANSCRIPTION}.failed", "item_id": item_id, "content_index": 0, "error": detail}


def response_created(response: Json) -> Json:
    return {"type": "response.created", "response": response}


def response_done(response: Json) -> Json:
    return {"type": "response.done", "response": response}


def output_item_added(response_id: str, output_index: int, item: Json) -> Json:
    return {
        "type": "response.output_item.added",
        "response_id": response_id,
        "output_index": output_index,
        "item": item,
    }


def output_item_done(response_id: str, output_index: int, item: Json) -> Json:
    return {
        "type": "response.output_item.done",
        "response_id": response_id,
        "output_index": output_index,
        "item": item,
    }


def content(kind: str, response_id: str, item_id: str, **fields: object) -> Json:
    """An event about the one content part of an assistant message, such as ``output_audio.delta``.

    Args:
        kind: The type without its leading ``response.``.
        response_id: The response it belongs to.
        item_id: The message.
        fields: What the type has beyond the four fields that locate the part.
    """
    return {
        "type": f"response.{kind}",
        "response_id": response_id,
        "item_id": item_id,
        "output_index": 0,
        "content_index": 0,
        **fields,
    }


def arguments_delta(response_id: str, item: Json, output_index: int, delta: str) -> Json:
    return {
        "type": "response.function_call_arguments.delta",
        "response_id": response_id,
        "item_id": item["id"],
        "output_index": output_index,
        "call_id": item["call_id"],
        "delta": delta,
    }


def arguments_done(response_id: str, item: Json, output_index: int, arguments: str) -> Json:
    return {
        "type": "response.function_call_arguments.done",
        "response_id": response_id,
        "item_id": item["id"],
        "output_index": output_index,
        "call_id": item["call_id"],
        "name": item["name"],
        "arguments": arguments,
    }


def rate_limits_updated(requests_left: int, tokens_left: int) -> Json:
    limits = [
        {"name": "requests", "limit": 1000, "remaining": max(0, requests_left), "reset_seconds": 60},
        {"name": "tokens", "limit": 50000, "remaining": max(0, tokens_left), "reset_seconds": 60},
    ]
    return {"type": "rate_limits.updated", "rate_limits": limits}


def message_item(item_id: str, role: str, status: str, parts: list[Json]) -> Json:
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": status,
        "role": role,
        "content": parts,
    }


def function_call_item(item_id: str, call_id: str, name: str, arguments: str, status: str) -> Json:
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }
