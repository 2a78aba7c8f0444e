"""The counts of the API's usage objects."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.audio import Transcription
from openai.types.realtime import RealtimeResponse
from openai.types.responses import ResponseUsage

from handlehome.extract.usage import (
    usage_of_response,
    usage_of_rest_response,
    usage_of_rest_transcription,
    usage_of_transcription,
)

# A second response of a session: what was said before is cached input by now.
REALTIME: dict[str, Any] = {
    "total_tokens": 840,
    "input_tokens": 700,
    "output_tokens": 140,
    "input_token_details": {
        "text_tokens": 400,
        "audio_tokens": 300,
        "image_tokens": 0,
        "cached_tokens": 448,
        "cached_tokens_details": {"text_tokens": 320, "audio_tokens": 128, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 40, "audio_tokens": 100},
}


def test_a_realtime_response_counts_each_kind() -> None:
    response = RealtimeResponse.model_validate({"usage": REALTIME}).to_dict()
    assert usage_of_response(response) == {
        "input_text_tokens": 400,
        "input_audio_tokens": 300,
        "cached_text_tokens": 320,
        "cached_audio_tokens": 128,
        "output_text_tokens": 40,
        "output_audio_tokens": 100,
    }


def test_what_the_api_tells_no_kind_of_stays_without_one() -> None:
    usage = {
        "input_tokens": 700,
        "output_tokens": 140,
        "input_token_details": {"text_tokens": 400, "audio_tokens": 300, "cached_tokens": 448},
        "output_token_details": {"audio_tokens": 100},
    }
    assert usage_of_response({"usage": usage}) == {
        "input_text_tokens": 400,
        "input_audio_tokens": 300,
        "cached_tokens": 448,
        "output_audio_tokens": 100,
        "output_tokens": 40,
    }
    assert usage_of_response({"usage": {"input_tokens": 7, "output_tokens": 1}}) == {
        "input_tokens": 7,
        "output_tokens": 1,
    }


def test_cached_input_of_a_single_kind_is_of_that_kind() -> None:
    usage = {"input_tokens": 100, "input_token_details": {"text_tokens": 100, "cached_tokens": 64}}
    assert usage_of_response({"usage": usage}) == {"input_text_tokens": 100, "cached_text_tokens": 64}


@pytest.mark.parametrize("response", [{}, {"usage": None}, {"usage": []}, {"usage": {"input_tokens": None}}])
def test_a_cancelled_response_without_usage_counts_nothing(response: dict[str, Any]) -> None:
    assert usage_of_response(response) == {}


def test_a_transcription_by_tokens_keeps_the_audios_length_too() -> None:
    usage = {
        "type": "tokens",
        "total_tokens": 50,
        "input_tokens": 40,
        "input_token_details": {"text_tokens": 8, "audio_tokens": 32},
        "output_tokens": 10,
    }
    assert usage_of_transcription(usage, seconds=3.2) == {
        "input_text_tokens": 8,
        "input_audio_tokens": 32,
        "output_text_tokens": 10,
        "seconds": 3.2,
    }


def test_the_apis_seconds_count_before_ours() -> None:
    assert usage_of_transcription({"type": "duration", "seconds": 4}, seconds=3.2) == {"seconds": 4}


def test_a_transcription_without_usage_counts_its_audio() -> None:
    assert usage_of_transcription(None, seconds=3.2) == {"seconds": 3.2}
    assert usage_of_transcription(None) == {}


def test_a_rest_transcription_counts_likewise() -> None:
    answer = Transcription.model_validate({"text": "Oui.", "usage": {"type": "duration", "seconds": 2}})
    assert usage_of_rest_transcription(answer.to_dict(), seconds=1.5) == {"seconds": 2}
    assert usage_of_rest_transcription({"text": "Oui.", "duration": 1.7}, seconds=1.5) == {"seconds": 1.7}
    assert usage_of_rest_transcription({"text": "Oui."}, seconds=1.5) == {"seconds": 1.5}


def test_a_rest_response_counts_text_with_what_the_cache_read_and_wrote() -> None:
    usage = ResponseUsage.model_validate(
        {
            "input_tokens": 2000,
            "input_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 512},
            "output_tokens": 300,
            "output_tokens_details": {"reasoning_tokens": 128},
            "total_tokens": 2300,
        }
    )
    assert usage_of_rest_response({"usage": usage.to_dict()}) == {
        "input_text_tokens": 2000,
        "cached_text_tokens": 1024,
        "cache_write_tokens": 512,
        "output_text_tokens": 300,
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "input_tokens", "input_token_details", "cached_tokens", "text_tokens"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["usage", "duration"]), JSON))
def test_no_shape_fails_and_all_counts_are_positive_numbers(answer: dict[str, Any]) -> None:
    for counts in (
        usage_of_response(answer),
        usage_of_rest_response(answer),
        usage_of_rest_transcription(answer),
    ):
        assert all(0 < count < float("inf") for count in counts.values())
