"""What a request for a transcription must be, and what the answer looks like."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from openai.types.audio import Transcription, TranscriptionVerbose

from handlehome.bench.rest import transcriptions
from handlehome.bench.rest.errors import ApiError
from handlehome.bench.rest.request import TRANSCRIPTIONS, RestRequest
from tests.test_bench_rest_audio import pcm_wav, raw_wav

SECOND = pcm_wav(b"\1\0" * 8000)


def parse(
    fields: dict[str, Any] | None = None,
    data: bytes | None = SECOND,
    *,
    name: str = "turn.wav",
    part: str = "file",
    mulaw: bool = False,
) -> RestRequest:
    files = {} if data is None else {part: (name, data, "audio/wav")}
    request = httpx2.Request(
        "POST", "http://127.0.0.1/", data={"model": "gpt-transcribe"} | (fields or {}), files=files
    )
    content_type = request.headers.get("content-type", "")
    sent, wav = transcriptions.parse(content_type, request.read(), mulaw=mulaw)
    return RestRequest(0, "POST", TRANSCRIPTIONS, {}, b"", 0.0, "req_0", form=sent, wav=wav)


def answer(text: str, fields: dict[str, Any] | None = None) -> Any:
    request = parse(fields)
    assert request.wav is not None
    return transcriptions.answer(request, request.wav, text)


def test_a_wav_file_of_pcm_is_taken_with_its_hints() -> None:
    request = parse({"languages[]": ["fr", "en"], "keywords[]": ["Maison Services"], "prompt": "Appel."})
    assert request.model == "gpt-transcribe"
    assert request.wav is not None
    assert request.wav.seconds == 1.0


def test_a_wav_file_of_mulaw_is_taken_where_it_is_allowed() -> None:
    data = raw_wav(7, 8, b"\x80" * 8000)
    assert parse(data=data, mulaw=True).wav is not None
    with pytest.raises(ApiError, match="format tag 7"):
        parse(data=data)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"voice": "x"}, "voice", "unknown_parameter"),
        ({"keywords": "x"}, "keywords", "unknown_parameter"),
        ({"prompt": ["a", "b"]}, "prompt", "duplicate_parameter"),
        ({"language": "fr", "languages[]": ["fr"]}, "languages", "invalid_value"),
        ({"languages[]": ["french"]}, "languages", "invalid_language_format"),
        ({"language": "FR"}, "language", "invalid_language_format"),
        ({"keywords[]": ["a<b"]}, "keywords", "invalid_value"),
        ({"keywords[]": ["ok", "a>b"]}, "keywords", "invalid_value"),
        ({"keywords[]": ["a\nb"]}, "keywords", "invalid_value"),
        ({"model": "whisper-1", "keywords[]": ["a"]}, "keywords", "unsupported_parameter"),
        ({"model": "whisper-1", "languages[]": ["fr"]}, "languages", "unsupported_parameter"),
        ({"response_format": "verbose_json"}, "response_format", "unsupported_value"),
        ({"model": "gpt-4o-transcribe", "response_format": "text"}, "response_format", "unsupported_value"),
        ({"model": "whisper-1", "response_format": "srt"}, "response_format", "unsupported_value"),
        ({"timestamp_granularities[]": ["word"]}, "timestamp_granularities", "invalid_value"),
        ({"stream": "true"}, "stream", "unsupported_value"),
    ],
)
def test_a_wrong_field_is_refused_with_its_name(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse(fields)
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)


@pytest.mark.parametrize(
    ("data", "name", "problem"),
    [
        (b"\xff" * 8000, "turn.ulaw", "Invalid file format"),
        (b"\xff" * 8000, "turn", "Invalid file format"),
        (b"\xff" * 8000, "turn.wav", "corrupted or unsupported: no RIFF/WAVE header"),
        (SECOND[:-1], "turn.wav", "corrupted or unsupported: chunk 'data' is cut short"),
        (pcm_wav(b"\0\0" * 799), "turn.wav", "too short"),
        (b"ID3", "turn.mp3", "reads WAV files only, not mp3"),
    ],
)
def test_a_file_that_is_no_audio_is_refused(data: bytes, name: str, problem: str) -> None:
    with pytest.raises(ApiError, match=problem) as refused:
        parse(data=data, name=name)
    assert (refused.value.status, refused.value.param) == (400, "file")


def test_a_form_without_the_file_is_refused() -> None:
    with pytest.raises(ApiError, match="Could not parse multipart form"):
        parse(data=None)
    with pytest.raises(ApiError, match="Unknown parameter: 'audio'"):
        parse(part="audio")
    with pytest.raises(ApiError, match="Missing required parameter: 'file'"):
        transcriptions.parse(
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b--\r\n',
        )


def test_more_than_25_mb_is_too_large() -> None:
    with pytest.raises(ApiError, match="Maximum content size limit") as refused:
        parse(data=pcm_wav(bytes(25 * 1024 * 1024)))
    assert refused.value.status == 413


def test_gpt_transcribe_tells_languages_and_is_billed_by_seconds() -> None:
    got = answer("Bonjour.", {"languages[]": ["fr", "en"]})
    assert Transcription.model_validate(got, strict=True).text == "Bonjour."
    assert got["languages"] == [{"code": "fr"}]
    assert got["usage"] == {"type": "duration", "seconds": 1}
    assert answer("")["languages"] == []


def test_the_models_billed_by_tokens_tell_tokens() -> None:
    got = answer("Bonjour.", {"model": "gpt-4o-transcribe"})
    assert "languages" not in got
    assert got["usage"] == {
        "type": "tokens",
        "total_tokens": 12,
        "input_tokens": 10,
        "input_token_details": {"text_tokens": 0, "audio_tokens": 10},
        "output_tokens": 2,
    }


def test_whisper_answers_in_the_format_that_is_wanted() -> None:
    assert answer("Oui.", {"model": "whisper-1"}) == {
        "text": "Oui.",
        "usage": {"type": "duration", "seconds": 1},
    }
    assert answer("Oui.", {"model": "whisper-1", "response_format": "text"}) == "Oui.\n"
    got = answer("Oui.", {"model": "whisper-1", "language": "fr", "response_format": "verbose_json"})
    verbose = TranscriptionVerbose.model_validate(got, strict=True)
    assert (verbose.text, verbose.language, verbose.duration) == ("Oui.", "fr", 1.0)
