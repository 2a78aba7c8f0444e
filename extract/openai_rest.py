"""The two requests after a call, through the `openai` SDK: a transcription and an extraction.

One client serves all threads. Building it and loading what it needs holds the GIL for about 0.2 s, so `warm`
does it once, in a thread, before there are calls. The answers are read as JSON, not as the SDK's models:
making those holds the GIL longer than all else in a request.

The SDK does not retry (`max_retries=0`): when to try again is decided in one place, by `retries`. Connections
are not kept: `Deadline` needs new ones, and one that the server closed meanwhile would cost an attempt.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import httpx2
import openai
import orjson

from handlehome.extract.deadline import Deadline
from handlehome.extract.prompt import INSTRUCTIONS, Prompt
from handlehome.extract.retries import Failure, Fault, classify
from handlehome.extract.schema import AnswerError, AnswerSchema
from handlehome.extract.speech import seconds_of
from handlehome.extract.usage import Counts, usage_of_rest_response, usage_of_rest_transcription

__all__ = ["OpenAIRest", "RequestFailed", "SpeechHints"]

TIMEOUT_SECONDS: Final = 60.0
DEADLINE_SECONDS: Final = 90.0
CONNECT_SECONDS: Final = 5.0
MAX_OUTPUT_TOKENS: Final = 16_384
"""Bound on an answer's cost, reasoning included; a record of the default schema has about 600."""

_KEY: Final = re.compile(r"sk-[\w*.-]+")  # a refused key is repeated, in part, in the refusal
_LOGIN: Final = re.compile(r"//[^/@\s]*@")  # of a proxy, in its URL

TOO_LATE: Final = Failure(Fault.SERVICE, "no answer in time")

Effort = Literal["none", "minimal", "low", "medium", "high"]


class RequestFailed(Exception):
    """A request has not given a usable answer.

    Attributes:
        failure: why.
        usage: what it used up nevertheless.
    """

    def __init__(self, failure: Failure, usage: Counts | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.usage = usage or {}


@dataclass(frozen=True, slots=True)
class SpeechHints:
    """Help for the transcription: languages (ISO 639-1), words to expect, and what the talk is about."""

    languages: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    prompt: str | None = None

    def parameters(self, model: str) -> dict[str, Any]:
        """As parameters of a model: the older ones know neither `languages` nor `keywords`."""
        if not model.startswith(("whisper", "gpt-4o")):
            named = {
                "languages": list(self.languages),
                "keywords": list(self.keywords),
                "prompt": self.prompt,
            }
            return {name: value for name, value in named.items() if value}
        # Such a model takes one language, and words to expect only as text that came before.
        prompt = " ".join(filter(None, (self.prompt, ", ".join(self.keywords))))
        language = self.languages[0] if len(self.languages) == 1 else None
        named = {"language": language, "prompt": prompt, "response_format": "json"}
        return {name: value for name, value in named.items() if value}


class OpenAIRest:
    """The requests. All methods block; they may be called from any threads at once."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None = None,
        extraction_model: str,
        transcription_model: str,
        hints: SpeechHints | None = None,
        effort: Effort | None = "low",
        timeout: float = TIMEOUT_SECONDS,
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        """Makes no client yet.

        Args:
            api_key: the key.
            base_url: with `/v1`; None takes the SDK's default.
            extraction_model: the text model.
            transcription_model: the speech model.
            hints: for the transcription.
            effort: of reasoning; None for models that don't reason.
            timeout: seconds that the server may be silent.
            deadline: seconds that a request may take as a whole.
        """
        self.extraction_model = extraction_model
        self.transcription_model = transcription_model
        self._api_key, self._base_url = api_key, base_url
        self._timeout, self._deadline = timeout, deadline
        self._speech_parameters = (hints or SpeechHints()).parameters(transcription_model)
        self._effort = effort
        self._lock = threading.Lock()
        self._client: openai.OpenAI | None = None
        self._current = threading.local()

    def warm(self) -> None:
        """Builds the client, once; never on the event loop.

        Raises:
            RequestFailed: it can't be built, as each request will say until it can.
        """
        self._connected()

    def close(self) -> None:
        """Closes the client's connections; requests under way fail."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def transcribe(self, wav: bytes) -> tuple[str, Counts]:
        """What is said in a WAV file of at most 25 MB, and what that used up; "" when nothing is.

        Raises:
            RequestFailed: there is no such answer.
        """
        client, seconds = self._connected(), seconds_of(wav)
        with self._request():
            raw = client.audio.transcriptions.with_raw_response.create(
                model=self.transcription_model, file=("turn.wav", wav, "audio/wav"), **self._speech_parameters
            )
            answer = _object(raw.http_response.content)
        usage = usage_of_rest_transcription(answer, seconds=seconds)
        text = answer.get("text")
        if not isinstance(text, str):
            raise _unusable("the answer has no text", usage)
        return text.strip(), usage

    def extract(self, prompt: Prompt, schema: AnswerSchema) -> tuple[dict[str, Any], Counts]:
        """The data in a call, as the schema says, and what that used up.

        Raises:
            RequestFailed: there is no such answer: the model refused, was cut off, or broke the schema.
        """
        client = self._connected()
        # No temperature: models that reason refuse it.
        request: dict[str, Any] = {
            "model": self.extraction_model,
            "instructions": INSTRUCTIONS,
            "input": prompt.input,
            "text": {"format": schema.text_format},
            "store": False,
            "max_output_tokens": MAX_OUTPUT_TOKENS,
        }
        if self._effort is not None:
            request["reasoning"] = {"effort": self._effort}
        with self._request():
            raw = client.responses.with_raw_response.create(**request)
            answer = _object(raw.http_response.content)
        usage = usage_of_rest_response(answer)
        text = _final_text(answer, usage)
        try:
            return prompt.read(text, schema), usage
        except AnswerError as error:
            raise _unusable(str(error), usage) from None

    def _connected(self) -> openai.OpenAI:
        with self._lock:
            if self._client is None:
                try:
                    self._client = self._build()
                except Exception as error:  # a proxy, a certificate, a package: whatever it is concerns all
                    said = _LOGIN.sub("//", f"{type(error).__name__}: {error}")
                    failure = Failure(Fault.SETUP, f"the client can't be built: {said}"[:300])
                    raise RequestFailed(failure) from error
            return self._client

    def _build(self) -> openai.OpenAI:
        timeout = httpx2.Timeout(self._timeout, connect=min(CONNECT_SECONDS, self._timeout))
        client = openai.OpenAI(
            api_key=self._api_key,
            base_url=self._base_url,
            timeout=timeout,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(
                timeout=timeout,
                limits=httpx2.Limits(max_keepalive_connections=0),
                event_hooks={"request": [self._trace]},
            ),
        )
        # Loads the modules of both, which the SDK puts off until they are asked for.
        _ = client.responses.with_raw_response, client.audio.transcriptions
        return client

    def _trace(self, request: httpx2.Request) -> None:
        request.extensions["trace"] = self._current.deadline.trace

    @contextlib.contextmanager
    def _request(self) -> Iterator[None]:
        """Round the one request that this thread makes: bounds its time, and tells why it failed."""
        with _failures(), Deadline(self._deadline) as deadline:
            self._current.deadline = deadline
            try:
                yield
            except (openai.APIConnectionError, RequestFailed):  # an answer cut off may look complete
                if deadline.passed:
                    raise RequestFailed(TOO_LATE) from None
                raise


def _final_text(answer: dict[str, Any], usage: Counts) -> str:
    """The text of the final message. See openai.md: an answer can be 200 and yet hold none."""
    if answer.get("status") != "completed":
        details = answer.get("incomplete_details") or answer.get("error")
        reason = details.get("reason") or details.get("code") if isinstance(details, dict) else None
        raise _unusable(f"the answer is {answer.get('status')}{f' ({reason})' if reason else ''}", usage)
    output = answer.get("output")
    messages = [item for item in output if _is_final(item)] if isinstance(output, list) else []
    if not messages:
        raise _unusable("the answer holds no final message", usage)
    parts = [part for item in messages for part in item.get("content") or () if isinstance(part, dict)]
    if any(part.get("type") == "refusal" for part in parts):
        raise _unusable("the model refused", usage)
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _is_final(item: object) -> bool:
    return (
        isinstance(item, dict)
        and item.get("type") == "message"
        and item.get("phase") in (None, "final_answer")
    )


def _unusable(message: str, usage: Counts) -> RequestFailed:
    return RequestFailed(Failure(Fault.CALL, message), usage)


def _object(content: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        # Not this call's fault: something else than the API answered, a proxy for example.
        raise RequestFailed(Failure(Fault.SERVICE, "the server's answer is no JSON object"))
    return answer


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Turns the SDK's errors into `RequestFailed`; none of their texts that could repeat what was sent."""
    try:
        yield
    except openai.APIStatusError as error:
        codes = [code for code in (error.code, error.type) if isinstance(code, str)]
        said = f"HTTP {error.status_code}{f' ({codes[0]})' if codes else ''}"
        fault = classify(error.status_code, *codes)
        if fault is Fault.SETUP:
            said = f"{said}: {_KEY.sub('sk-...', error.message[:200])}"
        raise RequestFailed(Failure(fault, said, _retry_after(error.response.headers))) from None
    except openai.APITimeoutError:
        raise RequestFailed(TOO_LATE) from None
    except openai.APIConnectionError as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise RequestFailed(Failure(Fault.SERVICE, f"no connection{cause}"[:200])) from None
    except openai.OpenAIError as error:
        raise RequestFailed(Failure(Fault.SERVICE, f"{type(error).__name__}: {error}"[:200])) from None


def _retry_after(headers: httpx2.Headers) -> float | None:
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError):
            seconds = float(headers.get(name, "")) / unit
            if math.isfinite(seconds) and seconds >= 0:
                return seconds
    return None
