"""The effective session configuration: the server's defaults, and what a ``session.update`` makes of it."""

import copy

from handlehome.bench.realtime.checks import Json, RefusedError

# Documented defaults, filled in when an update names a turn detection without saying everything. The session
# that a server announces in `session.created` is known to say 200 ms of silence instead of 500.
_SERVER_VAD: Json = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
_SEMANTIC_VAD: Json = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}
BYTES_PER_MS = {"audio/pcmu": 8, "audio/pcma": 8, "audio/pcm": 48}


def default_session(session_id: str, model: str, expires_at: int) -> Json:
    """What ``session.created`` announces before any update.

    Args:
        session_id: ``sess_...``.
        model: The model of the URL's query.
        expires_at: Unix seconds.
    """
    pcm = {"type": "audio/pcm", "rate": 24000}
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "You are a helpful, friendly voice. Answer briefly, in the caller's language.",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "prompt": None,
        "truncation": "auto",
        "expires_at": expires_at,
        "audio": {
            "input": {
                "format": dict(pcm),
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": {**_SERVER_VAD, "silence_duration_ms": 200},
            },
            "output": {"format": dict(pcm), "voice": "marin", "speed": 1},
        },
        "include": None,
    }


def merged(current: Json, update: Json, *, spoken: bool, speaking: bool) -> Json:
    """The effective session after an update whose shape has been checked.

    Fields that are not sent keep their value; ``audio.input`` and ``audio.output`` are merged field by field;
    deeper objects are replaced, and a turn detection is completed from the documented defaults.

    Args:
        current: The effective session so far; not changed.
        update: ``session`` of a ``session.update``.
        spoken: The session has produced audio, which fixes the voice.
        speaking: A response is running, which fixes the speed.

    Raises:
        RefusedError: A field that can't be changed (any more).
    """
    if update.get("model", current["model"]) != current["model"]:
        message = "Cannot update a session's model; it is given by the URL."
        raise RefusedError("invalid_value", message, "session.model")
    if current["tracing"] is not None and update.get("tracing", current["tracing"]) != current["tracing"]:
        raise RefusedError("invalid_value", "Tracing cannot be changed once enabled.", "session.tracing")
    result = copy.deepcopy(current)
    result.update({name: value for name, value in update.items() if name != "audio"})
    audio = update.get("audio", {})
    for side in ("input", "output"):
        result["audio"][side].update(audio.get(side, {}))
    before, after = current["audio"]["output"], result["audio"]["output"]
    if spoken and after["voice"] != before["voice"]:
        message = "Cannot update a conversation's voice if assistant audio is present."
        raise RefusedError("cannot_update_voice", message, "session.audio.output.voice")
    if speaking and after["speed"] != before["speed"]:
        message = "Cannot change the speed while a response is in progress."
        raise RefusedError("invalid_value", message, "session.audio.output.speed")
    for side in ("input", "output"):
        if result["audio"][side]["format"]["type"] == "audio/pcm":
            result["audio"][side]["format"] = {"type": "audio/pcm", "rate": 24000}
    detection = result["audio"]["input"]["turn_detection"]
    if detection is not None:
        defaults = _SERVER_VAD if detection["type"] == "server_vad" else _SEMANTIC_VAD
        result["audio"]["input"]["turn_detection"] = {**defaults, **detection}
    return result
