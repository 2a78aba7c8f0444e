"""The two requests, made by the real SDK to a simulated API that checks them."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import openai
import orjson
import pytest

from handlehome.bench.rest import faults
from handlehome.bench.rest.faults import Fault as Planned
from handlehome.bench.rest.server import RestSimulator
from handlehome.extract import speech
from handlehome.extract.openai_rest import OpenAIRest, RequestFailed, SpeechHints
from handlehome.extract.prompt import INSTRUCTIONS, Prompt, make_prompt
from handlehome.extract.retries import Failure, Fault
from handlehome.extract.schema import AnswerSchema
from handlehome.store.records import CallRecord, TurnRecord
from tests.extract_room import (
    ANSWER,
    DEFAULT_SCHEMA,
    RESPONSES,
    SPEECH,
    STARTED_AT,
    TRANSCRIPTIONS,
    model,
    rest_of,
)

WAV = next(speech.pieces(SPEECH))
RECORD = CallRecord(
    "CA1",
    STARTED_AT,
    turns=(TurnRecord("a", "assistant", "Bonjour."), TurnRecord("b", "caller", "Jean Dupont.")),
)


@pytest.fixture
async def api() -> AsyncIterator[RestSimulator]:
    async with model(api_key="sk-test") as simulator:
        yield simulator


def prompt() -> Prompt:
    return make_prompt(RECORD, time_zone="Europe/Paris", language="fr")


async def extract(api: RestSimulator, schema: AnswerSchema = DEFAULT_SCHEMA, **options: Any) -> Any:
    rest = rest_of(api, **options)
    try:
        return await asyncio.to_thread(rest.extract, prompt(), schema)
    finally:
        rest.close()


async def transcribe(api: RestSimulator, **options: Any) -> Any:
    rest = rest_of(api, **options)
    try:
        return await asyncio.to_thread(rest.transcribe, WAV)
    finally:
        rest.close()


def rest_at(server: asyncio.Server, **options: Any) -> OpenAIRest:
    """A client of a server that is none of OpenAI's."""
    return OpenAIRest(
        api_key="sk-test",
        base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1",
        extraction_model="m",
        transcription_model="gpt-transcribe",
        **options,
    )


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def failure(api: RestSimulator, **options: Any) -> Failure:
    with pytest.raises(RequestFailed) as raised:
        await extract(api, **options)
    return raised.value.failure


async def test_an_extraction_asks_for_strict_json_and_stores_nothing(api: RestSimulator) -> None:
    data, usage = await extract(api)
    assert data["customer"]["last_name"] == "Dupont"
    assert data["evidence"] == [{"field": "last_name", "turns": ["b"], "confidence": 0.9}]
    assert usage["input_text_tokens"] > 100
    assert usage["output_text_tokens"] > 10
    (request,) = api.requests
    assert request.body["store"] is False
    assert request.body["reasoning"] == {"effort": "low"}
    assert request.body["text"]["format"] == DEFAULT_SCHEMA.text_format
    assert request.body["instructions"] == INSTRUCTIONS
    assert not {"temperature", "top_p", "stream", "tools"} & request.body.keys()
    assert request.body["max_output_tokens"] > 1000


async def test_a_model_that_does_not_reason_is_not_told_how_to(api: RestSimulator) -> None:
    await extract(api, effort=None, extraction_model="gpt-4.1-mini")
    assert "reasoning" not in api.requests[0].body


async def test_an_own_schema_takes_the_same_way(api: RestSimulator) -> None:
    own = {
        "type": "object",
        "properties": {"plate": {"type": ["string", "null"]}},
        "required": ["plate"],
        "additionalProperties": False,
    }
    api.answer = lambda _: {"plate": "AB-123-CD"}
    data, _ = await extract(api, AnswerSchema("own", own))
    assert data == {"plate": "AB-123-CD"}
    api.answer = lambda _: '{"plate": 5}'
    with pytest.raises(RequestFailed, match="#/plate: type"):
        await extract(api, AnswerSchema("own", own))


async def test_a_comment_before_the_final_answer_is_passed_over(api: RestSimulator) -> None:
    api.faults = faults.always(faults.PREAMBLE)
    data, _ = await extract(api)
    assert data["customer"]["first_name"] == "Jean"


@pytest.mark.parametrize(
    ("planned", "message"),
    [
        (faults.REFUSAL, "the model refused"),
        (faults.NO_MESSAGE, "the answer holds no final message"),
        (faults.COMMENTARY, "the answer holds no final message"),
        (faults.CUT, "the answer is incomplete (max_output_tokens)"),
        (faults.FILTERED, "the answer is incomplete (content_filter)"),
        (faults.FAILED, "the answer is failed (server_error)"),
        (faults.MISSING_FIELD, "the answer breaks the schema: #: required"),
    ],
    ids=lambda value: value.name if isinstance(value, Planned) else "",
)
async def test_an_answer_without_data_is_this_calls_failure(
    api: RestSimulator, planned: Planned, message: str
) -> None:
    """What it used up is told nevertheless."""
    api.faults = faults.always(planned)
    with pytest.raises(RequestFailed) as raised:
        await extract(api)
    assert raised.value.failure == Failure(Fault.CALL, message)
    assert raised.value.usage["input_text_tokens"] > 100


@pytest.mark.parametrize("said", ["", "Sorry!", '{"customer": ', "[]", '{"summary": "\\ud800"}'])
async def test_an_answer_that_is_no_json_is_this_calls_failure(api: RestSimulator, said: str) -> None:
    api.answer = lambda _: said
    assert (await failure(api)).fault is Fault.CALL


@pytest.mark.parametrize(
    ("planned", "fault", "message"),
    [
        (faults.INVALID_KEY, Fault.SETUP, "HTTP 401 (invalid_api_key): "),
        (faults.FORBIDDEN, Fault.SETUP, "HTTP 403 (unsupported_country_region_territory): "),
        (faults.MODEL_NOT_FOUND, Fault.SETUP, "HTTP 404 (model_not_found): "),
        (faults.INSUFFICIENT_QUOTA, Fault.SETUP, "HTTP 429 (insufficient_quota): "),
        (faults.SLOW_DOWN, Fault.SERVICE, "HTTP 429 (slow_down)"),
        (faults.SERVER_ERROR, Fault.SERVICE, "HTTP 500 (server_error)"),
        (faults.OVERLOADED, Fault.SERVICE, "HTTP 503 (server_is_overloaded)"),
        (faults.RESET, Fault.SERVICE, "no connection"),
        (faults.DROPPED, Fault.SERVICE, "no connection"),
    ],
    ids=lambda value: value.name if isinstance(value, Planned) else "",
)
async def test_an_error_is_told_apart_by_whom_it_concerns(
    api: RestSimulator, planned: Planned, fault: Fault, message: str
) -> None:
    """Each is one request: the SDK retries nothing."""
    api.faults = faults.always(planned)
    failed = await failure(api)
    assert failed.fault is fault
    assert failed.message.startswith(message)
    assert len(failed.message) < 300
    assert len(api.requests) == 1


async def test_a_rate_limit_says_how_long_to_wait(api: RestSimulator) -> None:
    api.faults = faults.always(faults.rate_limited(17))
    assert (await failure(api)).retry_after == 17.0
    api.faults = faults.always(faults.rate_limited())
    assert (await failure(api)).retry_after is None


async def test_a_refused_key_is_not_repeated(api: RestSimulator) -> None:
    failed = await failure(api, api_key="sk-secret-1234567890")
    assert failed.fault is Fault.SETUP
    assert "1234567890" not in failed.message
    assert "secret" not in failed.message


async def test_a_silent_server_costs_no_more_than_the_timeout(api: RestSimulator) -> None:
    api.faults = faults.always(faults.SILENT)
    began = time.monotonic()
    assert await failure(api, timeout=0.3) == Failure(Fault.SERVICE, "no answer in time")
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["headers", "body"])
async def test_a_dripping_answer_costs_no_more_than_the_deadline(head: bytes) -> None:
    """Each byte comes within the time-out."""
    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head or b"HTTP/1.1 200 OK\r\nx-drip: ")
        while not writer.is_closing():
            writer.write(b"1")
            await asyncio.sleep(0.01)
        await closed(writer)
        gone.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        rest = rest_at(server, deadline=0.2)
        began = time.monotonic()
        with pytest.raises(RequestFailed) as raised:
            await asyncio.to_thread(rest.extract, prompt(), DEFAULT_SCHEMA)
        assert raised.value.failure == Failure(Fault.SERVICE, "no answer in time")
        assert time.monotonic() - began < 3
        await asyncio.wait_for(gone.wait(), 5)
        rest.close()


async def test_no_connection_is_used_twice() -> None:
    """One that the server closes while it rests would cost the next call an attempt."""
    connections = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]")
        await reader.read()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        rest = rest_at(server)
        for _ in range(2):
            with pytest.raises(RequestFailed, match="no JSON object"):
                await asyncio.to_thread(rest.extract, prompt(), DEFAULT_SCHEMA)
        assert len(connections) == 2
        rest.close()
        for writer in connections:
            await closed(writer)


BROKEN = [
    {"SSL_CERT_FILE": "/nowhere/ca.pem"},
    {"HTTPS_PROXY": "ftp://me:secret@127.0.0.1:1"},
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: next(iter(broken)))
async def test_a_client_that_cannot_be_built_concerns_all_calls_until_it_can(
    api: RestSimulator, broken: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = rest_of(api)
    with monkeypatch.context() as environment:
        for name, value in broken.items():
            environment.setenv(name, value)
        requests = [rest.warm, partial(rest.transcribe, WAV), partial(rest.extract, prompt(), DEFAULT_SCHEMA)]
        for request in requests:
            with pytest.raises(RequestFailed, match=r"^the client can't be built: ") as raised:
                await asyncio.to_thread(request)
            assert raised.value.failure.fault is Fault.SETUP
            assert "secret" not in raised.value.failure.message
    await asyncio.to_thread(rest.extract, prompt(), DEFAULT_SCHEMA)
    rest.close()


async def test_a_refused_connection_is_the_services_failure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        rest = OpenAIRest(
            api_key="sk-test",
            base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1",
            extraction_model="m",
            transcription_model="gpt-transcribe",
        )
        with pytest.raises(RequestFailed, match="no connection") as raised:
            await asyncio.to_thread(rest.extract, prompt(), DEFAULT_SCHEMA)
        assert raised.value.failure.fault is Fault.SERVICE
        rest.close()


async def test_a_wrong_base_url_concerns_all_calls(api: RestSimulator) -> None:
    assert (await failure(api, base_url=api.url + "/wrong")).fault is Fault.SETUP


async def test_a_proxys_page_is_the_services_failure() -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(page, "127.0.0.1", 0) as server:
        rest = rest_at(server)
        with pytest.raises(RequestFailed, match="no JSON object") as raised:
            await asyncio.to_thread(rest.extract, prompt(), DEFAULT_SCHEMA)
        assert raised.value.failure.fault is Fault.SERVICE
        rest.close()


async def test_a_turn_is_transcribed_with_languages_and_keywords(api: RestSimulator) -> None:
    text, usage = await transcribe(api, hints=SpeechHints(("fr", "en"), ("Maison Service",), "Un dépannage."))
    assert text == "Au revoir."
    assert usage == {"seconds": 1}
    (request,) = api.requests
    assert request.path == TRANSCRIPTIONS
    assert request.form.fields == {
        "model": ["gpt-transcribe"],
        "keywords[]": ["Maison Service"],
        "languages[]": ["fr", "en"],
        "prompt": ["Un dépannage."],
    }
    assert request.wav is not None
    assert request.wav.seconds == 1.0


@pytest.mark.parametrize(
    ("hints", "sent"),
    [
        (SpeechHints(("fr",), ("Acme", "Duval")), {"language": ["fr"], "prompt": ["Acme, Duval"]}),
        (SpeechHints(("fr", "en")), {}),
        (SpeechHints((), ("Acme",), "Un appel."), {"prompt": ["Un appel. Acme"]}),
    ],
)
async def test_whisper_gets_one_language_and_no_keywords(
    api: RestSimulator, hints: SpeechHints, sent: dict[str, list[str]]
) -> None:
    await transcribe(api, transcription_model="whisper-1", hints=hints)
    assert api.requests[0].form.fields == {"model": ["whisper-1"], "response_format": ["json"], **sent}


async def test_nothing_heard_is_an_empty_text(api: RestSimulator) -> None:
    api.transcribe = lambda *_: "  "
    assert (await transcribe(api))[0] == ""


async def test_errors_of_transcription_are_told_apart_too(api: RestSimulator) -> None:
    api.faults = faults.always(faults.OVERLOADED)
    with pytest.raises(RequestFailed, match="HTTP 503"):
        await transcribe(api)
    rest = rest_of(api)
    api.faults = faults.none
    with pytest.raises(RequestFailed) as raised:
        await asyncio.to_thread(rest.transcribe, next(speech.pieces(SPEECH[:80])))
    assert raised.value.failure.fault is Fault.CALL
    rest.close()


async def test_one_client_serves_all_threads_and_is_built_once(
    api: RestSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[openai.OpenAI] = []
    make = openai.OpenAI.__init__

    def counted(self: openai.OpenAI, **options: Any) -> None:
        built.append(self)
        make(self, **options)

    monkeypatch.setattr(openai.OpenAI, "__init__", counted)
    rest = rest_of(api)
    assert built == []
    await asyncio.gather(*(asyncio.to_thread(rest.extract, prompt(), DEFAULT_SCHEMA) for _ in range(8)))
    assert len(built) == 1
    assert built[0].max_retries == 0
    rest.close()
    rest.close()


async def test_the_answer_is_checked_even_if_the_api_does_not_keep_to_the_schema(api: RestSimulator) -> None:
    api.answer = lambda _: orjson.dumps(ANSWER).decode()
    failed = await failure(api)
    assert (failed.fault, failed.message) == (
        Fault.CALL,
        "the answer breaks the schema: #: required",
    )
    assert len(api.of(RESPONSES)) == 1
