"""The simulator's listening side: handshakes checked, each accepted one made a session."""

import asyncio
import hmac
import http
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import orjson
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from handlehome.bench.realtime.connection import SimConnection
from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Script
from handlehome.bench.realtime.session import Session

PATH = "/v1/realtime"
_CLOSE_S = 1.0

Scripts = Script | Callable[[int], Script]


class RealtimeSimulator:
    """A Realtime server on a port of this machine; use it as ``async with``.

    A request to another path is answered 404; without ``model`` 400; without the right key 401 (any key
    will do when `api_key` is None).

    Args:
        script: What every session answers, or a function of the handshake's number (from 0, refused ones
            counted) that gives it.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        api_key: The only key that is accepted.
        seed: Of all random delays, sizes and ids.
        keep_audio: Keep all audio in memory (8 KB/s and session).
        log: Called with a line for people at each session and turn.

    Attributes:
        sessions: Sessions in the order of their handshakes, ended ones included.
        handshakes: Number of handshakes seen.
    """

    def __init__(
        self,
        script: Scripts,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        api_key: str | None = None,
        seed: int = 0,
        keep_audio: bool = True,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self._script = script
        self._host = host
        self._port = port
        self._api_key = api_key
        self._seed = seed
        self._keep_audio = keep_audio
        self._log = log
        self._server: Server | None = None
        self._arrivals: set[asyncio.Event] = set()
        self.sessions: list[SimSession] = []
        self.handshakes = 0

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._handle,
            self._host,
            self._port,
            create_connection=SimConnection,
            process_request=self._process_request,
            compression=None,
            max_size=32 * 1024 * 1024,
            open_timeout=60,
            close_timeout=_CLOSE_S,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server:
            self._server.close(code=1001, reason="simulator stops")
            await self._server.wait_closed()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """``ws://HOST:PORT/v1/realtime``, to which a client adds ``?model=``."""
        return f"ws://{self._host}:{self._port}{PATH}"

    async def wait_session(self, index: int = 0, timeout_s: float = 5.0) -> SimSession:
        """Waits for session number `index` (from 0, refused handshakes not counted).

        Raises:
            TimeoutError: It hasn't come within `timeout_s` seconds.
        """
        arrival = asyncio.Event()
        self._arrivals.add(arrival)
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.sessions) <= index:
                    arrival.clear()
                    await arrival.wait()
        finally:
            self._arrivals.discard(arrival)
        return self.sessions[index]

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        if not isinstance(connection, SimConnection):
            raise TypeError("the server makes its own connections")
        number = self.handshakes
        self.handshakes += 1
        script = self._script if isinstance(self._script, Script) else self._script(number)
        faults = script.faults
        if faults.handshake_delay_s:
            await asyncio.sleep(faults.handshake_delay_s)
        url = urlsplit(request.path)
        model = parse_qs(url.query).get("model", [""])[0]
        if url.path != PATH:
            return _refusal(
                connection, 404, "invalid_request_error", "not_found", f"No such path: {url.path}."
            )
        if faults.handshake_status:
            status = faults.handshake_status
            return _refusal(connection, status, "server_error", None, "Refused by the script.")
        if not self._authorized(request.headers.get("Authorization", "")):
            message = "Incorrect API key provided."
            return _refusal(connection, 401, "invalid_request_error", "invalid_api_key", message)
        if not model:
            message = "You must provide a model parameter."
            return _refusal(connection, 400, "invalid_request_error", "missing_model", message)
        connection.number, connection.script, connection.model = number, script, model
        return None

    def _authorized(self, header: str) -> bool:
        scheme, _, key = header.partition(" ")
        if scheme != "Bearer" or not key:
            return False
        return self._api_key is None or hmac.compare_digest(key.encode(), self._api_key.encode())

    async def _handle(self, connection: ServerConnection) -> None:
        if not isinstance(connection, SimConnection):
            raise TypeError("the server makes its own connections")
        number, log = connection.number, self._log
        session = Session(
            number,
            connection.model,
            connection.script,
            seed=self._seed,
            keep_audio=self._keep_audio,
            note=(lambda line: log(f"[{number}] {line}")) if log else None,
        )
        if connection.request and "OpenAI-Beta" in connection.request.headers:
            session.channel.violations.append("header OpenAI-Beta: the beta interface is gone")
        handle = SimSession(session, connection)
        self.sessions.append(handle)
        for arrival in self._arrivals:
            arrival.set()
        await handle.serve()


def _refusal(
    connection: ServerConnection, status: int, kind: str, code: str | None, message: str
) -> Response:
    """An HTTP answer in place of the upgrade, in the shape of the REST interface's errors."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    response = connection.respond(http.HTTPStatus(status), orjson.dumps({"error": error}).decode())
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json"
    return response


async def run(
    host: str,
    port: int,
    script: Scripts,
    *,
    api_key: str | None = None,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> None:
    """Serves until it is cancelled, with a line for each session and turn.

    Raises:
        OSError: The port can't be had.
    """
    async with RealtimeSimulator(
        script, host, port, api_key=api_key, seed=seed, keep_audio=False, log=log
    ) as simulator:
        log(f"Simulated OpenAI Realtime server: {simulator.url}")
        await asyncio.get_running_loop().create_future()
