"""`/v1/audio/transcriptions`: what a request must be, and the answer."""

from __future__ import annotations

import math
import re
from pathlib import PurePath

from handlehome.bench.rest import audio, errors, form
from handlehome.bench.rest.errors import ApiError
from handlehome.bench.rest.request import Json, RestRequest

MAX_BYTES = 25 * 1024 * 1024
MIN_SECONDS = 0.1
FILE_TYPES = ("flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "ogg", "wav", "webm")
LISTS = frozenset(
    {"keywords[]", "languages[]", "include[]", "timestamp_granularities[]"}
    | {"known_speaker_names[]", "known_speaker_references[]"}
)
SINGLE = frozenset(
    {"model", "language", "prompt", "response_format", "temperature", "chunking_strategy", "stream"}
)

# What each model answers with; models that aren't named here answer with JSON.
FORMATS = {
    "whisper-1": ("json", "text", "srt", "verbose_json", "vtt"),
    "gpt-4o-transcribe-diarize": ("json", "text", "diarized_json"),
}
# Those of them that this simulator can write.
WRITTEN = ("json", "text", "verbose_json")

_LANGUAGE = re.compile(r"[a-z]{2}")
_BILLED_BY_TOKENS = re.compile(r"gpt-4o-")


def parse(content_type: str, raw: bytes, *, mulaw: bool = False) -> tuple[form.Form, audio.Wav]:
    """The request's form and its audio, checked.

    Args:
        content_type: Header of the request.
        raw: Its body.
        mulaw: WAV files of mu-law are taken.

    Raises:
        ApiError: 413 for too large a body, 400 for all else that the API refuses.
    """
    if len(raw) > MAX_BYTES:
        message = f"Maximum content size limit ({MAX_BYTES}) exceeded ({len(raw)} bytes read)"
        raise ApiError(413, message, kind="server_error")
    try:
        sent = form.parse(content_type, raw)
    except form.FormError as error:
        raise ApiError(400, f"Could not parse multipart form: {error}.") from None
    for name, values in sent.fields.items():
        if name not in SINGLE | LISTS:
            raise errors.unknown(name)
        if name in SINGLE and len(values) > 1:
            raise errors.invalid(name, f"Duplicate parameter: '{name}'.", "duplicate_parameter")
    for name in sent.files:
        if name != "file":
            raise errors.unknown(name)
    if not sent.value("model"):
        raise errors.missing("model")
    if "file" not in sent.files:
        raise errors.missing("file")
    _check_hints(sent)
    _check_format(sent)
    return sent, _audio(sent.files["file"], mulaw)


def _check_hints(sent: form.Form) -> None:
    model, language = sent.value("model"), sent.value("language")
    languages, keywords = sent.fields.get("languages[]", []), sent.fields.get("keywords[]", [])
    if model != "gpt-transcribe":
        for name in ("languages[]", "keywords[]"):
            if name in sent.fields:
                message = f"'{name.removesuffix('[]')}' is not supported with the model '{model}'."
                raise errors.invalid(name.removesuffix("[]"), message, "unsupported_parameter")
    if language is not None and languages:
        raise errors.invalid("languages", "'language' and 'languages' are mutually exclusive.")
    for code in (*languages, *filter(None, [language])):
        if not _LANGUAGE.fullmatch(code):
            message = f"Invalid language '{code}'. Language parameter must be specified in ISO-639-1 format."
            raise errors.invalid("language" if language else "languages", message, "invalid_language_format")
    for keyword in keywords:
        if re.search(r"[<>\r\n]", keyword):
            raise errors.invalid("keywords", "Keywords must not contain '<', '>' or line breaks.")


def _check_format(sent: form.Form) -> None:
    model, wanted = sent.value("model") or "", sent.value("response_format") or "json"
    allowed = FORMATS.get(model, ("json",))
    if wanted not in allowed:
        message = f"response_format '{wanted}' is not compatible with model '{model}'. Use 'json' instead."
        raise errors.invalid("response_format", message, "unsupported_value")
    if wanted not in WRITTEN:
        raise errors.invalid(
            "response_format", f"This simulator doesn't write {wanted}.", "unsupported_value"
        )
    if "timestamp_granularities[]" in sent.fields and wanted != "verbose_json":
        message = "timestamp_granularities needs response_format 'verbose_json'."
        raise errors.invalid("timestamp_granularities", message)
    if sent.value("stream") == "true" and model != "whisper-1":
        raise errors.invalid("stream", "This simulator streams no transcripts.", "unsupported_value")


def _audio(file: form.FormFile, mulaw: bool) -> audio.Wav:
    kind = PurePath(file.filename).suffix.removeprefix(".").lower()
    if kind not in FILE_TYPES:
        raise errors.invalid("file", f"Invalid file format. Supported formats: {list(FILE_TYPES)}")
    if kind != "wav":
        raise errors.invalid("file", f"This simulator reads WAV files only, not {kind}.")
    try:
        wav = audio.read(file.data, mulaw=mulaw)
    except audio.AudioError as error:
        raise errors.invalid("file", f"Audio file might be corrupted or unsupported: {error}") from None
    if wav.seconds < MIN_SECONDS:
        message = f"Audio file is too short. Minimum audio length is {MIN_SECONDS} seconds."
        raise errors.invalid("file", message, "audio_too_short")
    return wav


def answer(request: RestRequest, wav: audio.Wav, text: str) -> Json | str:
    """The transcript in the format that was asked for.

    Args:
        request: The request, parsed.
        wav: Its audio.
        text: What is said in it.
    """
    sent = request.form
    languages = sent.fields.get("languages[]") or [sent.value("language") or "fr"]
    match sent.value("response_format"):
        case "text":
            return text + "\n"
        case "verbose_json":
            return {
                "task": "transcribe",
                "language": languages[0],
                "duration": round(wav.seconds, 2),
                "text": text,
                "segments": [],
                "usage": _usage(request.model, wav.seconds, text),
            }
    body: Json = {"text": text, "usage": _usage(request.model, wav.seconds, text)}
    if request.model == "gpt-transcribe":
        body["languages"] = [{"code": code} for code in languages[:1] if text]
    return body


def _usage(model: str, seconds: float, text: str) -> Json:
    """Tokens for models that are billed by them, seconds for those billed by the length of the audio."""
    if not _BILLED_BY_TOKENS.match(model):
        return {"type": "duration", "seconds": math.ceil(seconds)}
    heard, written = math.ceil(seconds * 10), -(-len(text) // 4)
    return {
        "type": "tokens",
        "total_tokens": heard + written,
        "input_tokens": heard,
        "input_token_details": {"text_tokens": 0, "audio_tokens": heard},
        "output_tokens": written,
    }
