"""The simulator's listening side: requests recorded, checked, failed or answered."""

from __future__ import annotations

import asyncio
import hmac
import random
import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self, cast

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from handlehome.bench.rest import errors, faults, recordings, responses, transcriptions
from handlehome.bench.rest.audio import Wav
from handlehome.bench.rest.errors import ApiError
from handlehome.bench.rest.faults import Fault, Faults
from handlehome.bench.rest.request import MODELS, RESPONSES, TRANSCRIPTIONS, Json, RestRequest
from handlehome.bench.rest.values import NoValueError

Answer = Callable[[RestRequest], Json | str]
Transcribe = Callable[[Wav, RestRequest], str]

# Listed where the simulator isn't told which there are.
SOME_MODELS = ("gpt-realtime-2.1-mini", "gpt-realtime-2.1", "gpt-transcribe", "whisper-1", "gpt-5.6-luna")
# Bodies are read whole up to here, beyond what is allowed, so that the refusal reaches the client.
_MAX_READ = 2 * transcriptions.MAX_BYTES
_CREATED = 1_750_000_000


def nothing_known(_request: RestRequest) -> Json:
    """The answer of a model that found nothing in the transcript: nulls, as far as the schema allows."""
    return {}


class RestSimulator:
    """A REST server on a port of this machine, in the caller's loop; use it as ``async with``.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        api_key: The only key that is accepted; None: any.
        models: The models there are; None: whatever is asked for.
        answer: What `/v1/responses` says. A dict is laid over an empty value of the requested schema (see
            `values.value`); a text is said as it is. It may raise `ApiError`.
        transcribe: What is said in an audio file; it may raise `ApiError`.
        faults: What goes wrong with which request; see `handlehome.bench.rest.faults`.
        delay_s: Least and most seconds until an answer.
        mulaw: WAV files of mu-law are taken. Whether the real API does is not verified.
        seed: Of ids and delays.
        keep: Keep all requests in memory, with their bodies; without, `requests` stays empty.
        log: Called with a line for people at each answer.

    Attributes:
        requests: Those that have arrived, in order, refused ones included.
        api_key, models, answer, transcribe, faults, delay_s: May be changed at any time.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        api_key: str | None = None,
        models: Collection[str] | None = None,
        answer: Answer = nothing_known,
        transcribe: Transcribe = recordings.transcribe,
        faults: Faults = faults.none,
        delay_s: tuple[float, float] = (0.0, 0.0),
        mulaw: bool = False,
        seed: int = 0,
        keep: bool = True,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self.api_key = api_key
        self.models = models
        self.answer = answer
        self.transcribe = transcribe
        self.faults = faults
        self.delay_s = delay_s
        self._mulaw = mulaw
        self._rng = random.Random(seed)
        self._keep = keep
        self._log = log
        self.requests: list[RestRequest] = []
        self._numbers: dict[str, int] = {}
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._state = ServerState()

    async def __aenter__(self) -> Self:
        config = uvicorn.Config(
            self._app(), loop="none", lifespan="off", interface="asgi3", log_config=None, access_log=False
        )
        config.load()

        def connection() -> _Connection:
            return _Connection(config=config, server_state=self._state, app_state={})

        # Not `uvicorn.Server`: it takes the process's signals, and a tenth of a second to end.
        self._server = await asyncio.get_running_loop().create_server(connection, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            cast("_Connection", connection).transport.abort()
        # They see that the client is gone.
        await asyncio.gather(*self._state.tasks)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """``http://HOST:PORT/v1``: the SDK's `base_url`, OPENAI_BASE_URL."""
        return f"http://{self._host}:{self._port}/v1"

    def of(self, path: str) -> list[RestRequest]:
        """The requests for a path (`RESPONSES`, `TRANSCRIPTIONS`, `MODELS`)."""
        return [request for request in self.requests if request.path == path]

    async def wait_requests(
        self, count: int, path: str | None = None, *, answered: bool = False, timeout_s: float = 5.0
    ) -> list[RestRequest]:
        """Waits until so many requests have arrived, of one path or of all.

        Args:
            count: How many.
            path: Only those for this path.
            answered: Count only those that got their answer, be it a refusal.
            timeout_s: Seconds to wait.

        Raises:
            TimeoutError: They haven't come within that time.
        """

        def found() -> list[RestRequest]:
            requests = self.requests if path is None else self.of(path)
            return [request for request in requests if request.status is not None or not answered]

        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: len(found()) >= count)
        return found()

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route(RESPONSES, self._responses, methods=["POST"]),
                Route(TRANSCRIPTIONS, self._transcriptions, methods=["POST"]),
                Route(MODELS, self._models, methods=["GET"]),
                Route(MODELS + "/{model:path}", self._models, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _no_such_url},
        )

    async def _responses(self, http: Request) -> Response:
        def check(request: RestRequest) -> None:
            request.body = responses.parse(request.raw)

        def answer(request: RestRequest, fault: Fault | None) -> Json:
            text = responses.text_of(request, self.answer(request))
            return responses.answer(request, text, int(time.time()), fault.output if fault else None)

        return await self._serve(http, check, answer)

    async def _transcriptions(self, http: Request) -> Response:
        def check(request: RestRequest) -> None:
            content_type = request.headers.get("content-type", "")
            request.form, request.wav = transcriptions.parse(content_type, request.raw, mulaw=self._mulaw)

        def answer(request: RestRequest, _fault: Fault | None) -> Json | str:
            if request.wav is None:
                raise TypeError("the audio is read before it is transcribed")
            return transcriptions.answer(request, request.wav, self.transcribe(request.wav, request))

        return await self._serve(http, check, answer)

    async def _models(self, http: Request) -> Response:
        wanted = http.path_params.get("model")

        def check(_request: RestRequest) -> None:
            if wanted is not None and self.models is not None and wanted not in self.models:
                raise errors.no_model(wanted, "model")

        def answer(_request: RestRequest, _fault: Fault | None) -> Json:
            if wanted is not None:
                return _model(wanted)
            names = SOME_MODELS if self.models is None else self.models
            return {"object": "list", "data": [_model(name) for name in names]}

        return await self._serve(http, check, answer)

    async def _serve(
        self,
        http: Request,
        check: Callable[[RestRequest], None],
        answer: Callable[[RestRequest, Fault | None], Json | str],
    ) -> Response:
        try:
            request = await self._arrived(http)
        except ClientDisconnect:
            return Response()
        began = time.monotonic()
        fault: Fault | None = None
        status, headers = 200, {"x-request-id": request.request_id, "openai-version": "2020-10-01"}
        try:
            self._authorize(request)
            check(request)
            if request.model and self.models is not None and request.model not in self.models:
                raise errors.no_model(request.model)
            fault = self.faults(request)
            request.fault = fault.name if fault else ""
            silent = fault is not None and fault.connection == "silent"
            delay = self._rng.uniform(*self.delay_s) + (fault.delay_s if fault else 0.0)
            if not await _waited(http, None if silent else delay):
                return Response()
            if fault and fault.connection == "reset":
                http.state.transport.abort()
                return Response()
            if fault and fault.error:
                raise fault.error()
            request.answer = answer(request, fault)
        except ApiError as error:
            status, request.answer = error.status, error.body()
            headers |= error.headers
        except NoValueError as error:
            # A limit of the simulator; the request is right.
            status, request.answer = 500, ApiError(500, f"Simulator: {error}", kind="server_error").body()
        request.status = status
        headers["openai-processing-ms"] = f"{(time.monotonic() - began) * 1000:.0f}"
        if self._log:
            notes = [str(status), *([request.fault] if request.fault else [])]
            self._log(f"{request.method} {request.path} {request.model or '-'}: {', '.join(notes)}")
        async with self._changed:
            self._changed.notify_all()
        if fault and fault.connection == "dropped":
            return _Dropped(orjson.dumps(request.answer), status, headers, "application/json")
        if isinstance(request.answer, str):
            return PlainTextResponse(request.answer, status, headers)
        return JSONResponse(request.answer, status, headers)

    async def _arrived(self, http: Request) -> RestRequest:
        raw = bytearray()
        async for chunk in http.stream():
            raw += chunk[: _MAX_READ - len(raw)]
        path = http.url.path
        number = self._numbers[path] = self._numbers.get(path, -1) + 1
        request = RestRequest(
            number=number,
            method=http.method,
            path=path,
            headers=dict(http.headers),
            raw=bytes(raw),
            arrived_at=asyncio.get_running_loop().time(),
            request_id=f"req_{self._rng.getrandbits(128):032x}",
        )
        if self._keep:
            self.requests.append(request)
        async with self._changed:
            self._changed.notify_all()
        return request

    def _authorize(self, request: RestRequest) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not key:
            raise errors.no_key()
        if self.api_key is not None and not hmac.compare_digest(key.encode(), self.api_key.encode()):
            raise errors.wrong_key(key)


class _Connection(H11Protocol):
    """Tells the application which connection a request came by, so that it can be cut."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.app_state = {"transport": transport}


class _Dropped(Response):
    """Promises the whole body, sends half of it, and hangs up."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})
        scope["state"]["transport"].close()
        await _gone(receive)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _waited(http: Request, seconds: float | None) -> bool:
    """Waits; False as soon as the client is gone. None waits for that alone."""
    if seconds == 0:
        return True
    try:
        async with asyncio.timeout(seconds):
            await _gone(http.receive)
    except TimeoutError:
        return True
    return False


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "system", "shutdown_date": None}


async def _no_such_url(http: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = f"Invalid URL ({http.method} {http.url.path})"
    return JSONResponse(ApiError(status, message).body(), status)
