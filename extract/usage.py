"""What one answer of the API used up, in the counts of a `usage` journal event. Pure.

The counts are whole tokens, `seconds` of audio apart; those that are 0 are left out:

==========================  ====================================================================
`input_text_tokens`         all input of this kind: cached and cache-written tokens are among it
`input_audio_tokens`        likewise
`input_image_tokens`        likewise
`cached_text_tokens`        the part of the input that came out of the prompt cache
`cached_audio_tokens`       likewise
`cached_image_tokens`       likewise
`cache_write_tokens`        the part of the text input that was written to the prompt cache
`output_text_tokens`        reasoning is among it
`output_audio_tokens`
`seconds`                   length of the audio that was transcribed
`input_tokens`              what the API did not tell the kind of; likewise `cached_tokens`,
                            `output_tokens`. Nothing has a price without its kind
==========================  ====================================================================

Sources: `openai/types/realtime/realtime_response_usage*.py`, `responses/response_usage.py` and
`audio/transcription.py` of openai 3.54.0. Objects of the SDK go in as `model.to_dict()`. A usage object that
is missing, or of another shape, gives {} or what is sound of it: usage never fails a call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["Counts", "usage_of_response", "usage_of_rest_response", "usage_of_rest_transcription"]
__all__ += ["usage_of_transcription"]

Counts = dict[str, int | float]

_KINDS = ("text", "audio", "image")


def usage_of_response(response: Mapping[str, Any]) -> Counts:
    """The counts of a Realtime response.

    Args:
        response: `response` of `response.done`.
    """
    usage = _mapping(response.get("usage"))
    given = _mapping(usage.get("input_token_details"))
    entered = _by_kind("input", usage.get("input_tokens"), given)
    cached = _by_kind("cached", given.get("cached_tokens"), _mapping(given.get("cached_tokens_details")))
    if len(entered) == 1 and "cached_tokens" in cached:
        # All input is of one kind, so what was cached of it is too.
        (name,) = entered
        cached = _positive({name.replace("input", "cached"): sum(cached.values())})
    left = _by_kind("output", usage.get("output_tokens"), _mapping(usage.get("output_token_details")))
    return {**entered, **cached, **left}


def usage_of_transcription(usage: Mapping[str, Any] | None, *, seconds: float | None = None) -> Counts:
    """The counts of a transcription.

    Some models are priced by the minute and yet report tokens, therefore both are kept.

    Args:
        usage: `usage` of `conversation.item.input_audio_transcription.completed` or of a transcription
            over REST: `{"type": "tokens", ...}` or `{"type": "duration", "seconds": ...}`.
        seconds: length of the audio as known here; counts where the API tells none.
    """
    usage = _mapping(usage)
    details = _mapping(usage.get("input_token_details"))
    return {
        **_by_kind("input", usage.get("input_tokens"), details),
        **_positive({"output_text_tokens": usage.get("output_tokens")}),
        **_positive({"seconds": usage.get("seconds") or seconds}),
    }


def usage_of_rest_response(response: Mapping[str, Any]) -> Counts:
    """The counts of an answer of `/v1/responses` to a text.

    Args:
        response: The whole answer.
    """
    usage = _mapping(response.get("usage"))
    details = _mapping(usage.get("input_tokens_details"))
    return _positive(
        {
            "input_text_tokens": usage.get("input_tokens"),
            "cached_text_tokens": details.get("cached_tokens"),
            "cache_write_tokens": details.get("cache_write_tokens"),
            "output_text_tokens": usage.get("output_tokens"),
        }
    )


def usage_of_rest_transcription(answer: Mapping[str, Any], *, seconds: float | None = None) -> Counts:
    """The counts of an answer of `/v1/audio/transcriptions`.

    Args:
        answer: The whole answer, `json` or `verbose_json`.
        seconds: Length of the audio that was sent; counts where the answer tells none.
    """
    return usage_of_transcription(answer.get("usage"), seconds=answer.get("duration") or seconds)


def _by_kind(side: str, total: object, details: Mapping[str, Any]) -> Counts:
    """`{side}_{kind}_tokens` of each kind, and the rest of the total without one."""
    counts: Counts = _positive({f"{side}_{kind}_tokens": details.get(f"{kind}_tokens") for kind in _KINDS})
    return counts | _positive({f"{side}_tokens": _number(total) - sum(counts.values())})


def _positive(counts: Mapping[str, object]) -> Counts:
    return {name: number for name, value in counts.items() if (number := _number(value)) > 0}


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    return value


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
