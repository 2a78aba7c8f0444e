"""The simulated REST server, with the real SDK."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import httpx2
import openai
import pytest
from pydantic import BaseModel, ValidationError

from handlehome.bench import speech
from handlehome.bench.rest import faults, recordings
from handlehome.bench.rest.errors import ApiError
from handlehome.bench.rest.faults import Fault
from handlehome.bench.rest.request import MODELS, RESPONSES, TRANSCRIPTIONS, RestRequest
from handlehome.bench.rest.server import RestSimulator
from tests.test_bench_rest_audio import pcm_wav, raw_wav

KEY = "sk-test-0123456789"
SECOND = pcm_wav(b"\1\0" * 8000)


class Record(BaseModel):
    name: str | None
    urgency: Literal["low", "high"]


@asynccontextmanager
async def client_of(
    simulator: RestSimulator, *, key: str = KEY, retries: int = 0, timeout_s: float = 20.0
) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key=key, base_url=simulator.url, max_retries=retries, timeout=timeout_s
    ) as client:
        yield client


async def extract(client: openai.AsyncOpenAI, **more: Any) -> Record | None:
    response = await client.responses.parse(
        model="gpt-5.6-luna", input="Ann a une fuite.", text_format=Record, store=False, **more
    )
    return response.output_parsed


async def transcribe(client: openai.AsyncOpenAI, wav: bytes = SECOND, **more: Any) -> str:
    options = {"model": "gpt-transcribe"} | more
    return str((await client.audio.transcriptions.create(file=("turn.wav", wav), **options)).text)


async def test_an_extraction_is_answered_in_its_schema_and_kept() -> None:
    def answer(request: RestRequest) -> dict[str, Any]:
        return {"name": "Ann"} if "Ann" in request.text else {}

    async with RestSimulator(api_key=KEY, answer=answer) as simulator, client_of(simulator) as client:
        response = await client.responses.parse(
            model="gpt-5.6-luna", instructions="Extract.", input="Ann a une fuite.", text_format=Record
        )
    assert response.output_parsed == Record(name="Ann", urgency="low")
    assert response.usage is not None
    assert response.usage.input_tokens > 0
    (request,) = simulator.of(RESPONSES)
    assert (request.number, request.status, request.model) == (0, 200, "gpt-5.6-luna")
    assert (request.instructions, request.text) == ("Extract.", "Ann a une fuite.")
    assert request.request_id == response._request_id
    assert request.headers["authorization"] == f"Bearer {KEY}"


async def test_by_itself_it_knows_nothing_and_still_answers_any_schema() -> None:
    async with RestSimulator() as simulator, client_of(simulator) as client:
        assert await extract(client) == Record(name=None, urgency="low")


async def test_a_transcription_is_the_recordings_text() -> None:
    wav = raw_wav(7, 8, speech.load("caller-leak").ulaw)
    async with RestSimulator(mulaw=True) as simulator, client_of(simulator) as client:
        heard = await transcribe(client, wav, languages=["fr", "en"], keywords=["Maison Services"])
    assert heard == speech.load("caller-leak").text
    (request,) = simulator.of(TRANSCRIPTIONS)
    assert request.form.fields["languages[]"] == ["fr", "en"]
    assert request.form.files["file"].filename == "turn.wav"
    assert request.wav is not None
    assert request.wav.seconds == speech.load("caller-leak").duration_ms / 1000


async def test_what_is_heard_can_be_scripted() -> None:
    async with (
        RestSimulator(transcribe=lambda wav, request: f"{wav.seconds:g} s for {request.model}") as simulator,
        client_of(simulator) as client,
    ):
        assert await transcribe(client, model="whisper-1") == "1 s for whisper-1"


async def test_the_models_are_listed() -> None:
    async with RestSimulator(models=["m1", "m2"]) as simulator, client_of(simulator) as client:
        assert [model.id for model in (await client.models.list()).data] == ["m1", "m2"]
        assert (await client.models.retrieve("m1")).id == "m1"
        with pytest.raises(openai.NotFoundError) as refused:
            await client.models.retrieve("m3")
        assert refused.value.code == "model_not_found"
        simulator.models = None
        assert (await client.models.retrieve("org/m3")).id == "org/m3"
        assert "gpt-5.6-luna" in [model.id for model in (await client.models.list()).data]
    assert [request.path for request in simulator.requests][:2] == [MODELS, f"{MODELS}/m1"]


async def test_a_model_that_is_not_there_is_refused() -> None:
    async with RestSimulator(models=["gpt-6-luna"]) as simulator, client_of(simulator) as client:
        with pytest.raises(openai.NotFoundError) as refused:
            await extract(client)
        assert refused.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            await transcribe(client)
    assert [request.status for request in simulator.requests] == [404, 404]


async def test_a_wrong_key_is_refused_until_it_is_the_right_one() -> None:
    async with RestSimulator(api_key="sk-other-0123456789") as simulator, client_of(simulator) as client:
        for call in (extract(client), transcribe(client), client.models.retrieve("m")):
            with pytest.raises(openai.AuthenticationError) as refused:
                await call
            assert refused.value.code == "invalid_api_key"
            assert KEY not in str(refused.value)
        simulator.api_key = KEY
        assert await extract(client) is not None


async def test_a_request_without_a_key_is_refused() -> None:
    async with RestSimulator() as simulator, httpx2.AsyncClient() as http:
        answer = await http.get(f"{simulator.url}/models")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] is None
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_a_wrong_request_is_refused_before_its_fault() -> None:
    bad: Any = {"format": {"type": "json_schema", "name": "r", "strict": True, "schema": {"type": "object"}}}
    async with (
        RestSimulator(faults=faults.always(faults.SERVER_ERROR)) as simulator,
        client_of(simulator) as client,
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model="gpt-5.6-luna", input="x", text=bad)
        assert (refused.value.code, refused.value.param) == ("invalid_json_schema", "text.format.schema")
        with pytest.raises(openai.BadRequestError, match="RIFF"):
            await transcribe(client, b"\xff" * 8000)
    assert [request.fault for request in simulator.requests] == ["", ""]


async def test_a_file_above_25_mb_is_refused() -> None:
    async with RestSimulator(keep=False) as simulator, client_of(simulator) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await transcribe(client, pcm_wav(bytes(25 * 1024 * 1024)))
    assert refused.value.status_code == 413
    assert simulator.requests == []


async def test_other_urls_do_not_exist() -> None:
    async with RestSimulator() as simulator, httpx2.AsyncClient() as http:
        unknown = await http.post(f"{simulator.url}/chat/completions")
        wrong = await http.get(f"{simulator.url}/responses")
    assert (unknown.status_code, wrong.status_code) == (404, 405)
    assert unknown.json()["error"]["message"] == "Invalid URL (POST /v1/chat/completions)"


@pytest.mark.parametrize(
    ("fault", "error", "status", "code"),
    [
        (faults.INVALID_KEY, openai.AuthenticationError, 401, "invalid_api_key"),
        (faults.FORBIDDEN, openai.PermissionDeniedError, 403, "unsupported_country_region_territory"),
        (faults.MODEL_NOT_FOUND, openai.NotFoundError, 404, "model_not_found"),
        (faults.rate_limited(), openai.RateLimitError, 429, "rate_limit_exceeded"),
        (faults.INSUFFICIENT_QUOTA, openai.RateLimitError, 429, "insufficient_quota"),
        (faults.SLOW_DOWN, openai.RateLimitError, 429, "slow_down"),
        (faults.SERVER_ERROR, openai.InternalServerError, 500, None),
        (faults.OVERLOADED, openai.InternalServerError, 503, "server_is_overloaded"),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
async def test_each_refusal_is_the_sdks_error(
    fault: Fault, error: type[openai.APIStatusError], status: int, code: str | None
) -> None:
    async with (
        RestSimulator(faults=faults.always(fault)) as simulator,
        client_of(simulator) as client,
    ):
        for call in (extract(client), transcribe(client)):
            with pytest.raises(error) as refused:
                await call
            assert (refused.value.status_code, refused.value.code) == (status, code)
            assert refused.value.request_id in [request.request_id for request in simulator.requests]
    assert [request.fault for request in simulator.requests] == [fault.name] * 2


@pytest.mark.parametrize(
    "fault",
    [faults.REFUSAL, faults.NO_MESSAGE, faults.COMMENTARY, faults.FAILED],
    ids=lambda fault: str(fault.name),
)
async def test_without_a_final_message_nothing_is_parsed(fault: Fault) -> None:
    async with RestSimulator(faults=faults.always(fault)) as simulator, client_of(simulator) as client:
        assert await extract(client) is None
        assert await transcribe(client) == ""


@pytest.mark.parametrize(
    "fault", [faults.CUT, faults.FILTERED, faults.MISSING_FIELD], ids=lambda fault: str(fault.name)
)
async def test_broken_json_is_no_record(fault: Fault) -> None:
    async with RestSimulator(faults=faults.always(fault)) as simulator, client_of(simulator) as client:
        with pytest.raises(ValidationError):
            await extract(client)


async def test_a_preamble_is_not_the_answer() -> None:
    async with (
        RestSimulator(faults=faults.always(faults.PREAMBLE)) as simulator,
        client_of(simulator) as client,
    ):
        assert await extract(client) == Record(name=None, urgency="low")


@pytest.mark.parametrize("fault", [faults.RESET, faults.DROPPED], ids=lambda fault: str(fault.name))
async def test_a_lost_connection_is_the_sdks_connection_error(fault: Fault) -> None:
    plan = faults.numbered({0: fault})
    async with RestSimulator(faults=plan) as simulator, client_of(simulator) as client:
        for call in (extract(client), transcribe(client)):
            with pytest.raises(openai.APIConnectionError) as lost:
                await call
            assert not isinstance(lost.value, openai.APITimeoutError)
        assert await extract(client) is not None


async def test_silence_lasts_until_the_client_gives_up() -> None:
    plan = faults.numbered({0: faults.SILENT})
    async with (
        RestSimulator(faults=plan) as simulator,
        client_of(simulator, timeout_s=0.2) as client,
    ):
        with pytest.raises(openai.APITimeoutError):
            await extract(client)
        assert simulator.requests[0].status is None


async def test_silence_does_not_keep_it_from_stopping() -> None:
    async with AsyncExitStack() as running:
        simulator = RestSimulator(faults=faults.always(faults.SILENT))
        await running.enter_async_context(simulator)
        async with client_of(simulator) as client:
            waiting = asyncio.ensure_future(extract(client))
            await simulator.wait_requests(1)
            await running.aclose()
            with pytest.raises(openai.APIConnectionError):
                await waiting


async def test_the_sdk_tries_again_when_it_is_told_to() -> None:
    plan = faults.numbered({0: faults.rate_limited(0.01), 1: faults.rate_limited(0.01)})
    async with RestSimulator(faults=plan) as simulator, client_of(simulator, retries=2) as client:
        assert await extract(client) is not None
    assert [request.status for request in simulator.requests] == [429, 429, 200]
    assert [request.headers["x-stainless-retry-count"] for request in simulator.requests] == ["0", "1", "2"]


async def test_answers_take_their_time_and_do_not_wait_for_each_other() -> None:
    plan = faults.numbered({0: faults.slow(30)})
    async with RestSimulator(faults=plan, delay_s=(0.01, 0.02)) as simulator, client_of(simulator) as client:
        late = asyncio.ensure_future(extract(client))
        await simulator.wait_requests(1)
        await asyncio.gather(*(extract(client) for _ in range(10)))
        assert len(await simulator.wait_requests(10, RESPONSES, answered=True)) == 10
        assert not late.done()
        late.cancel()


async def test_waiting_for_requests_is_bounded() -> None:
    async with RestSimulator() as simulator:
        with pytest.raises(TimeoutError):
            await simulator.wait_requests(1, timeout_s=0.01)


async def test_a_script_may_refuse_by_itself() -> None:
    def answer(request: RestRequest) -> str:
        raise ApiError(422, "Not this one.", code="odd")

    async with RestSimulator(answer=answer) as simulator, client_of(simulator) as client:
        with pytest.raises(openai.UnprocessableEntityError, match="Not this one"):
            await extract(client)


async def test_a_schema_that_it_cannot_answer_is_its_own_error() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^q{17}$"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form: Any = {"format": {"type": "json_schema", "name": "r", "strict": True, "schema": schema}}
    async with RestSimulator() as simulator, client_of(simulator) as client:
        with pytest.raises(openai.InternalServerError, match="Simulator: no text found"):
            await client.responses.create(model="m", input="x", text=form)


async def test_each_answer_is_a_line_of_the_log() -> None:
    lines: list[str] = []
    async with (
        RestSimulator(
            log=lines.append, faults=faults.numbered({0: faults.SLOW_DOWN}, path=RESPONSES)
        ) as simulator,
        client_of(simulator) as client,
    ):
        with pytest.raises(openai.RateLimitError):
            await extract(client)
        await transcribe(client)
        await client.models.list()
    assert lines == [
        "POST /v1/responses gpt-5.6-luna: 429, slow down",
        "POST /v1/audio/transcriptions gpt-transcribe: 200",
        "GET /v1/models -: 200",
    ]


async def test_a_port_in_use_is_an_error() -> None:
    async with RestSimulator() as simulator:
        with pytest.raises(OSError, match="address already in use"):
            await RestSimulator(port=simulator.port).__aenter__()


def test_a_client_that_blocks_works_from_threads() -> None:
    """As post-call processing does: one client, several threads, none of them the loop's."""

    async def run() -> list[Record | None]:
        async with RestSimulator(answer=recordings.extract) as simulator:
            client = openai.OpenAI(api_key=KEY, base_url=simulator.url, max_retries=0)

            def work() -> Record | None:
                return client.responses.parse(model="m", input="x", text_format=Record).output_parsed

            try:
                return await asyncio.gather(*(asyncio.to_thread(work) for _ in range(8)))
            finally:
                client.close()

    assert asyncio.run(run()) == [Record(name=None, urgency="low")] * 8
