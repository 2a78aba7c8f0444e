"""What a Realtime session is configured with (Realtime API reference)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from handlehome.relay.assistant import Assistant

AUDIO_FORMATS: dict[str, dict[str, Any]] = {
    "pcmu": {"type": "audio/pcmu"},
    "pcm24k": {"type": "audio/pcm", "rate": 24_000},
}
"""The session's `format` object of each `AUDIO_FORMAT`; `rate` must not be sent with mu-law."""

FIRST_WORDS = {
    "fr": "Accueille l'appelant en disant exactement ceci, rien de plus : « {greeting} »",
    "en": 'Greet the caller by saying exactly this and nothing more: "{greeting}"',
}


RESUME_WORDS = {
    "fr": "La ligne vient d'être coupée un instant. Excuse-toi en une courte phrase et reprends la "
    "conversation là où elle en était.",
    "en": "The line was cut for a moment. Apologise in one short sentence and take up the conversation where "
    "it was.",
}


def session_config(
    assistant: Assistant,
    *,
    voice: str,
    transcription_model: str,
    now: datetime,
    caller: str | None,
    tools: list[dict[str, Any]],
    audio_format: str = "pcmu",
) -> dict[str, Any]:
    """The `session` object of the first `session.update`.

    Args:
        assistant: the persona; its voice, where it has one, wins.
        voice: the voice otherwise.
        transcription_model: writes down what the caller says.
        now: the time of the call, aware.
        caller: the calling number as Twilio gives it.
        tools: functions the model may call.
        audio_format: a key of `AUDIO_FORMATS`.
    """
    format_ = AUDIO_FORMATS[audio_format]
    transcription: dict[str, Any] = {"model": transcription_model}
    if assistant.speech_to_text.languages:
        transcription["languages"] = list(assistant.speech_to_text.languages)
    if assistant.speech_to_text.keywords:
        transcription["keywords"] = list(assistant.speech_to_text.keywords)
    return {
        "type": "realtime",
        "instructions": assistant.instructions_for(now, caller),
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": format_,
                "noise_reduction": assistant.input_noise_reduction(),
                "transcription": transcription,
                "turn_detection": assistant.turn_detection(),
            },
            "output": {"format": format_, "voice": assistant.voice or voice},
        },
        "tools": tools,
        "tool_choice": "auto",
    }


def resume_words(assistant: Assistant) -> str:
    """Instructions for the response that takes up a conversation after the line was lost."""
    return RESUME_WORDS[assistant.language]


def first_words(assistant: Assistant) -> str:
    """Instructions for the response that opens the conversation."""
    return FIRST_WORDS[assistant.language].format(greeting=assistant.greeting)
