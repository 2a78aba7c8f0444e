"""The server role behind a real uvicorn, on real sockets."""

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode

from handlehome.relay.wire import server as server_module
from handlehome.relay.wire.connection import Connection, counters
from handlehome.relay.wire.server import (
    HttpProtocol,
    Refusal,
    ServerConnection,
    UpgradeRequest,
    media_protocol,
)

PATIENCE = 10.0


class Echo:
    """Sends messages back and keeps how the connection ended."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.over = asyncio.Event()
        self.lost: list[tuple[int, str]] = []
        self.pauses: list[str] = []

    def connection_made(self, connection: Connection) -> None:
        self.connection = connection
        self.opened.set()

    def text_received(self, message: bytes) -> None:
        self.connection.send_text(message)

    def binary_received(self, message: bytes) -> None:
        self.connection.send_binary(message)

    def connection_lost(self, code: int, reason: str) -> None:
        self.lost.append((code, reason))
        self.over.set()

    def writing_paused(self) -> None:
        self.pauses.append("paused")

    def writing_resumed(self) -> None:
        self.pauses.append("resumed")


class Doorman:
    """A gate that lets everybody in and keeps what it saw."""

    def __init__(self) -> None:
        self.requests: list[UpgradeRequest] = []
        self.echoes: list[Echo] = []

    def __call__(self, request: UpgradeRequest) -> Echo | Refusal:
        self.requests.append(request)
        self.echoes.append(Echo())
        return self.echoes[-1]


class StartedServer(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An HTTP application that reads the request's body and says hello."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@contextlib.asynccontextmanager
async def serving(
    gate: Callable[[UpgradeRequest], Any], *, open_timeout: float = 5.0, **options: Any
) -> AsyncIterator[tuple[int, StartedServer]]:
    """Runs uvicorn with our two classes; yields its port and itself."""
    http = type("Http", (HttpProtocol,), {"open_timeout": open_timeout})
    config = uvicorn.Config(
        hello, http=http, ws=media_protocol(gate, **options), lifespan="off", log_config=None
    )
    server = StartedServer(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        task = asyncio.create_task(server._serve([listener]))
        try:
            await asyncio.wait_for(server.listening.wait(), PATIENCE)
            yield port, server
        finally:
            server.should_exit = True
            await asyncio.wait_for(task, PATIENCE)


def upgrade(path: str = "/media-stream/a", *, key: str | None = None) -> bytes:
    key = base64.b64encode(bytes(16)).decode() if key is None else key
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def masked(payload: bytes, opcode: Opcode = Opcode.TEXT) -> bytes:
    return Frame(opcode, payload).serialize(mask=True)


@contextlib.asynccontextmanager
async def raw(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def exchange(port: int, *chunks: bytes) -> bytes:
    """Writes, and returns what comes until the server closes the connection."""
    async with raw(port) as (reader, writer):
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), PATIENCE)


async def eventually(condition: Callable[[], bool]) -> None:
    """Lets the event loop go on until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing tells when the system has closed a socket
            await asyncio.sleep(0)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def echo_some(port: int) -> None:
    async with connect(f"ws://127.0.0.1:{port}/media-stream/a", compression=None) as client:
        for message in ("hello", "é" * 200, b"binary", "x" * 60000, ["in", "frag", "ments"], "last"):
            await client.send(message)
            assert await client.recv() == ("".join(message) if isinstance(message, list) else message)
        await asyncio.wait_for(await client.ping(), PATIENCE)


async def test_messages_and_pings_come_back() -> None:
    doorman = Doorman()
    async with serving(doorman) as (port, _):
        await echo_some(port)
        await asyncio.wait_for(doorman.echoes[0].over.wait(), PATIENCE)
    assert doorman.echoes[0].lost == [(1000, "")]


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_frames_are_read_into_the_connections_own_buffer(
    monkeypatch: pytest.MonkeyPatch, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Both loops leave the copying way of reading when uvicorn hands the socket over."""
    calls = {"data_received": 0, "buffer_updated": 0}
    for name in calls:
        original = getattr(ServerConnection, name)

        def spy(self: ServerConnection, argument: Any, name: str = name, original: Any = original) -> None:
            calls[name] += 1
            original(self, argument)

        monkeypatch.setattr(ServerConnection, name, spy)

    async def run() -> None:
        async with serving(Doorman()) as (port, _):
            await echo_some(port)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())
    assert calls["data_received"] == 1
    assert calls["buffer_updated"] >= 7


async def test_the_gate_sees_the_request() -> None:
    doorman = Doorman()
    async with serving(doorman) as (port, _):
        headers = [("X-Twilio-Signature", "abc"), ("X-Two", "1"), ("X-Two", "2")]
        async with connect(f"ws://127.0.0.1:{port}/media%20stream/a?b=c", additional_headers=headers):
            (request,) = doorman.requests
            assert (request.path, request.query) == ("/media%20stream/a", "b=c")
            assert request.headers["x-twilio-signature"] == "abc"
            assert request.headers.get_all("X-TWO") == ["1", "2"]
            assert request.client is not None
            assert request.client[0] == "127.0.0.1"
            assert doorman.echoes[0].connection.remote_address == request.client


@pytest.mark.parametrize("status", [403, 404, 503])
async def test_a_refusal_is_an_http_answer_and_the_connections_end(status: int) -> None:
    before = counters.upgrades_refused
    async with serving(lambda request: Refusal(status, "no call here", {"Retry-After": "7"})) as (
        port,
        server,
    ):
        answer = await exchange(port, upgrade() + masked(b"ignored"))
        head, body = answer.split(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"Retry-After: 7" in head
        assert b"Connection: close" in head
        assert body == b"no call here"
        with pytest.raises(InvalidStatus):
            await connect(f"ws://127.0.0.1:{port}/")
    assert counters.upgrades_refused == before + 2
    assert not server.server_state.connections


async def test_an_invalid_handshake_never_reaches_the_gate() -> None:
    doorman = Doorman()
    async with serving(doorman) as (port, _):
        answer = await exchange(port, upgrade(key="short"))
        assert answer.startswith(b"HTTP/1.1 400 ")
    assert doorman.requests == []


async def test_an_upgrade_request_with_a_body_is_refused() -> None:
    doorman = Doorman()
    async with serving(doorman) as (port, _):
        request = upgrade().replace(b"Host:", b"Content-Length: 3\r\nHost:")
        answer = await exchange(port, request + b"abc")
        assert answer.startswith(b"HTTP/1.1 400 ")
    assert doorman.requests == []


async def test_a_gate_that_fails_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: UpgradeRequest) -> Refusal:
        raise LookupError("bug")

    async with serving(broken) as (port, _):
        assert (await exchange(port, upgrade())).startswith(b"HTTP/1.1 500 ")
    assert "the gate failed" in caplog.text


async def test_a_receiver_that_fails_ends_its_connection_and_no_other() -> None:
    doorman = Doorman()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with serving(doorman) as (port, _):
        url = f"ws://127.0.0.1:{port}/"
        async with connect(url) as healthy, connect(url) as victim:
            del doorman.echoes[1].connection
            await victim.send("boom")
            with pytest.raises(ConnectionClosed):
                await victim.recv()
            await healthy.send("well?")
            assert await healthy.recv() == "well?"
        assert [code for code, _ in doorman.echoes[1].lost] == [1006]


async def test_a_receiver_that_fails_at_the_start_is_told_of_the_end() -> None:
    class Broken(Echo):
        def connection_made(self, connection: Connection) -> None:
            raise LookupError("bug")

    broken = Broken()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with serving(lambda request: broken) as (port, server):
        await exchange(port, upgrade())
        await asyncio.wait_for(broken.over.wait(), PATIENCE)
        assert [code for code, _ in broken.lost] == [1006]
        assert not server.server_state.connections


async def test_bytes_right_behind_the_upgrade_request_are_not_lost() -> None:
    async with serving(Doorman()) as (port, _), raw(port) as (reader, writer):
        large = masked(b"x" * 20000)
        writer.write(upgrade() + masked(b"early") + large[:7000])
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        assert await reader.readexactly(7) == b"\x81\x05early"
        writer.write(large[7000:])
        assert (
            await asyncio.wait_for(reader.readexactly(20004), PATIENCE) == b"\x81\x7e\x4e\x20" + b"x" * 20000
        )


async def test_an_upgrade_may_follow_other_requests_in_one_write() -> None:
    async with serving(Doorman()) as (port, _), raw(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + upgrade() + masked(b"early"))
        assert (await asyncio.wait_for(reader.readuntil(b"hello"), PATIENCE)).startswith(b"HTTP/1.1 200 ")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(7) == b"\x81\x05early"


async def test_a_message_above_the_bound_is_answered_and_the_answer_arrives() -> None:
    """Also when the client has sent far more than the server ever reads into a frame."""
    doorman = Doorman()
    async with (
        serving(doorman, max_message=1000) as (port, _),
        connect(f"ws://127.0.0.1:{port}/") as client,
    ):
        await client.send("x" * 1000)
        assert len(await client.recv()) == 1000
        await client.send("x" * 3_000_000)
        with pytest.raises(ConnectionClosedError) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        assert "exceeds limit of 1000 bytes" in caught.value.rcvd.reason
        assert doorman.echoes[0].lost == [(1009, caught.value.rcvd.reason)]


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [b"GET / HT"],
        [b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "],
        [b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nslow"],
        [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\nHost"],
    ],
    ids=["nothing", "request line", "headers", "body", "second request"],
)
async def test_a_request_that_does_not_end_is_cut(chunks: list[bytes]) -> None:
    before = counters.requests_cut
    async with serving(Doorman(), open_timeout=0.1) as (port, server):
        async with raw(port) as (reader, writer):
            for chunk in chunks:
                writer.write(chunk)
                if chunk.endswith(b"\r\n\r\n"):
                    await reader.readuntil(b"hello")
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        assert not server.server_state.connections
    assert counters.requests_cut == before + 1


async def test_an_open_connection_outlives_the_request_timeout() -> None:
    before = counters.requests_cut
    async with (
        serving(Doorman(), open_timeout=0.05) as (port, _),
        connect(f"ws://127.0.0.1:{port}/") as client,
    ):
        # The idle connection was opened later, so that its end proves the first one's timeout has passed.
        with contextlib.suppress(ConnectionResetError):
            await exchange(port)
        await client.send("still there")
        assert await client.recv() == "still there"
    assert counters.requests_cut == before + 1


async def test_the_servers_end_closes_the_connections_with_1001() -> None:
    doorman = Doorman()
    async with serving(doorman) as (port, server):
        client = await connect(f"ws://127.0.0.1:{port}/")
        assert len(server.server_state.connections) == 1
        server.should_exit = True
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1001
    assert doorman.echoes[0].lost == [(1001, "the server is going away")]
    assert not server.server_state.connections


async def test_a_client_that_ignores_our_close_is_dropped() -> None:
    doorman = Doorman()
    async with serving(doorman, close_timeout=0.05) as (port, _), raw(port) as (reader, writer):
        writer.write(upgrade())
        await reader.readuntil(b"\r\n\r\n")
        doorman.echoes[0].connection.close(1008, "no start message")
        await asyncio.wait_for(doorman.echoes[0].over.wait(), PATIENCE)
        assert doorman.echoes[0].lost == [(1008, "no start message")]


async def test_a_client_that_does_not_read_is_reported_and_then_dropped() -> None:
    doorman = Doorman()
    async with serving(doorman, max_write_buffer=1 << 20) as (port, _), raw(port) as (reader, writer):
        writer.write(upgrade())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        echo = doorman.echoes[0]
        for _ in range(1000):
            echo.connection.send_text(b"x" * 60000)
        assert echo.pauses == ["paused"]
        await asyncio.wait_for(echo.over.wait(), PATIENCE)
        assert echo.lost == [(1006, "the peer does not read")]
        assert 0 < echo.connection.messages_dropped < 1000


async def test_a_slow_client_that_catches_up_goes_on() -> None:
    doorman = Doorman()
    async with serving(doorman, max_write_buffer=64 << 20) as (port, _), raw(port) as (reader, writer):
        writer.write(upgrade())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        echo = doorman.echoes[0]
        sent = 0
        while not echo.connection.write_paused:
            echo.connection.send_text(b"x" * 60000)
            sent += 1
        writer.transport.resume_reading()
        await asyncio.wait_for(reader.readexactly(sent * 60004), PATIENCE)
        assert echo.pauses == ["paused", "resumed"]


async def test_many_connections_leave_nothing_behind() -> None:
    doorman = Doorman()
    async with serving(doorman) as (port, server):
        await echo_some(port)
        files = open_files()
        tasks = len(asyncio.all_tasks())
        for _ in range(5):
            clients = await asyncio.gather(*[connect(f"ws://127.0.0.1:{port}/") for _ in range(20)])
            for index, client in enumerate(clients):
                if index % 2:
                    client.transport.abort()
                await client.close()
        for echo in doorman.echoes:
            await asyncio.wait_for(echo.over.wait(), PATIENCE)
        await exchange(port, upgrade(key="bad"))
        await eventually(lambda: not server.server_state.connections)
        await eventually(lambda: open_files() <= files)
        assert len(asyncio.all_tasks()) == tasks


def test_the_defaults_are_the_ones_that_phone_lines_need() -> None:
    assert server_module.MAX_MESSAGE == 65536
    assert HttpProtocol.open_timeout == 5.0
