"""The client role against real servers: the websockets library's, and raw ones that misbehave."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidURI
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from handlehome.relay.wire.client import MAX_EXCERPT, HandshakeRefused, connect
from handlehome.relay.wire.connection import Connection

PATIENCE = 10.0

# For localhost and 127.0.0.1 and nothing else, until the year 2126.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg0BJqlEYvpqOdflqc
fkaA86BVwz/yP42ZLLCi/Fma/QWhRANCAAT86ULSHqfhcsgSXNhYGAfsntjvsS5n
O2SWzIxs1sf/b8/+pGJuCOpDoBfAVH3GTfKO1i9jLlz006tkHwqmDXQl
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUOWp6veEsCKU/bZlTc6BXcNYY2r4wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMjE1MDgwN1oYDzIxMjYxMDI5
MTUwODA3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAT86ULSHqfhcsgSXNhYGAfsntjvsS5nO2SWzIxs1sf/b8/+pGJuCOpD
oBfAVH3GTfKO1i9jLlz006tkHwqmDXQlo28wbTAdBgNVHQ4EFgQU+Kf3boSb7b6f
r4xHh3n8ZKVorIwwHwYDVR0jBBgwFoAU+Kf3boSb7b6fr4xHh3n8ZKVorIwwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIhAJrFIYgkXZYAVh4jJa1U9Dw3igl3SxWf1ooaOdIpVIu2AiBO
xNXAV7DJeuykIvQfWepPGuo6rfZ2JKhRZtxwU1aIEg==
-----END CERTIFICATE-----
"""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[object, ...]] = asyncio.Queue()

    def connection_made(self, connection: Connection) -> None:
        self.events.put_nowait(("made",))

    def text_received(self, message: bytes) -> None:
        self.events.put_nowait(("text", message))

    def binary_received(self, message: bytes) -> None:
        self.events.put_nowait(("binary", message))

    def connection_lost(self, code: int, reason: str) -> None:
        self.events.put_nowait(("lost", code, reason))

    def writing_paused(self) -> None:
        self.events.put_nowait(("paused",))

    def writing_resumed(self) -> None:
        self.events.put_nowait(("resumed",))

    async def next(self) -> tuple[object, ...]:
        return await asyncio.wait_for(self.events.get(), PATIENCE)


async def echo(server: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in server:
            await server.send(message)


@contextlib.asynccontextmanager
async def echoing(**options: Any) -> AsyncIterator[tuple[str, Any]]:
    """Runs the library's own server; yields its URL and itself."""
    async with serve(echo, "127.0.0.1", 0, max_size=None, **options) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"{'wss' if 'ssl' in options else 'ws'}://127.0.0.1:{port}/v1/realtime?model=m", server


@contextlib.asynccontextmanager
async def answering(handle: Serve) -> AsyncIterator[str]:
    """Runs a server that treats each connection by `handle` and then closes it."""

    async def finish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(finish, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def switch(reader: asyncio.StreamReader) -> tuple[ServerProtocol, bytes]:
    """Reads a handshake request; returns the open protocol and the bytes that accept it."""
    protocol = ServerProtocol()
    protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    return protocol, b"".join(protocol.data_to_send())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def eventually(condition: Callable[[], bool]) -> None:
    """Lets the event loop go on until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing tells when the system has closed a socket
            await asyncio.sleep(0)


async def test_messages_go_and_come() -> None:
    recorder = Recorder()
    async with echoing() as (url, _):
        connection = await connect(url, recorder, headers={})
        assert connection.is_open
        assert await recorder.next() == ("made",)
        for message in (b"hello", b"x" * 200, b"y" * 70000, b"z" * (1 << 20), "é".encode()):
            connection.send_text(message)
            assert await recorder.next() == ("text", message)
        connection.send_binary(b"\xff")
        assert await recorder.next() == ("binary", b"\xff")
        connection.close(1000, "done")
        assert await recorder.next() == ("lost", 1000, "done")
        assert not connection.is_open


async def test_the_request_carries_the_headers_and_the_query() -> None:
    async with echoing() as (url, server):
        connection = await connect(url, Recorder(), headers={"Authorization": "Bearer key", "X-A": "b"})
        (peer,) = server.connections
        assert peer.request.path == "/v1/realtime?model=m"
        assert peer.request.headers["Authorization"] == "Bearer key"
        assert peer.request.headers["X-A"] == "b"
        assert "Origin" not in peer.request.headers
        assert "Sec-WebSocket-Extensions" not in peer.request.headers
        assert connection.remote_address == ("127.0.0.1", server.sockets[0].getsockname()[1])
        connection.abort()


async def test_tls_is_verified_and_used(tmp_path: Path) -> None:
    pem = tmp_path / "localhost.pem"
    pem.write_text(CERTIFICATE)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(pem)
    recorder = Recorder()
    async with echoing(ssl=server_side) as (url, _):
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(url, recorder, headers={})
        trusting = ssl.create_default_context(cafile=str(pem))
        connection = await connect(url, recorder, headers={}, ssl_context=trusting)
        assert await recorder.next() == ("made",)
        for message in (b"hello", b"x" * 500_000):
            connection.send_text(message)
            assert await recorder.next() == ("text", message)
        connection.close()
        assert await recorder.next() == ("lost", 1000, "")


async def test_messages_right_behind_the_answer_are_delivered_in_order() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol, accepted = await switch(reader)
        protocol.send_text(b"first")
        protocol.send_text(b"second" * 100)
        stream = accepted + b"".join(protocol.data_to_send())
        writer.write(stream[:-200])
        await writer.drain()
        writer.write(stream[-200:])
        await reader.read()

    recorder = Recorder()
    async with answering(handle) as url:
        connection = await connect(url, recorder, headers={})
        assert await recorder.next() == ("made",)
        assert await recorder.next() == ("text", b"first")
        assert await recorder.next() == ("text", b"second" * 100)
        connection.abort()
        assert await recorder.next() == ("lost", 1006, "")


async def test_an_answer_may_come_byte_by_byte() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, accepted = await switch(reader)
        for byte in accepted:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    async with answering(handle) as url:
        connection = await connect(url, Recorder(), headers={})
        assert connection._protocol.state is State.OPEN
        connection.abort()


REFUSALS = [
    (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\nwrong key", 401, "wrong key"),
    (b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\n\r\nslow down", 429, "slow down"),
    (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 302, "302"),
    (b"HTTP/1.1 500 X\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000, 500, "x" * MAX_EXCERPT),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, "hello"),
    (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 101, "Accept"),
    (b"HTTP/1.1 503 X\r\nContent-Length: 99\r\n\r\ncut", 503, ""),
    (b"SSH-2.0-OpenSSH_9.7\r\n\r\n", None, "HTTP"),
    (b"x" * 70000, None, "expected no more than"),
]


@pytest.mark.parametrize(("answer", "status", "body"), REFUSALS, ids=[str(row[1]) for row in REFUSALS])
async def test_any_other_answer_is_a_refusal_with_its_status(
    answer: bytes, status: int | None, body: str
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    recorder = Recorder()
    async with answering(handle) as url:
        with pytest.raises(HandshakeRefused) as caught:
            await connect(url, recorder, headers={})
    assert caught.value.status == status
    assert body in caught.value.body
    assert len(caught.value.body) <= MAX_EXCERPT
    assert recorder.events.empty()


async def test_a_refusal_whose_body_never_ends_still_has_its_status() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nhalf")
        await reader.read()

    async with answering(handle) as url:
        with pytest.raises(HandshakeRefused) as caught:
            await connect(url, Recorder(), headers={}, open_timeout=0.1)
    assert caught.value.status == 403


async def test_a_server_that_hangs_up_is_an_os_error() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Swit")

    async with answering(handle) as url:
        with pytest.raises(ConnectionResetError, match="hung up"):
            await connect(url, Recorder(), headers={})


async def test_a_port_without_a_server_is_an_os_error() -> None:
    async with answering(lambda reader, writer: asyncio.sleep(0)) as url:
        pass
    with pytest.raises(OSError, match="111"):
        await connect(url, Recorder(), headers={})


async def test_a_url_of_another_scheme_is_refused() -> None:
    with pytest.raises(InvalidURI):
        await connect("http://localhost/", Recorder(), headers={})


async def test_a_server_that_never_answers_is_a_timeout_and_its_socket_is_closed() -> None:
    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            over.set()

    async with answering(handle) as url:
        files = open_files()
        with pytest.raises(TimeoutError):
            await connect(url, Recorder(), headers={}, open_timeout=0.05)
        await asyncio.wait_for(over.wait(), PATIENCE)
        await eventually(lambda: open_files() <= files)


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_connect_leaves_no_socket(turns: int) -> None:
    """Whichever step it is cancelled in."""
    connected: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)
        await reader.read()

    async with answering(handle) as url:
        files = open_files()
        task = asyncio.create_task(connect(url, Recorder(), headers={}))
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns == 7:
            await eventually(lambda: bool(connected))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: open_files() <= files)


async def test_a_server_that_goes_away_is_reported() -> None:
    recorder = Recorder()
    async with echoing() as (url, server):
        await connect(url, recorder, headers={})
        assert await recorder.next() == ("made",)
        server.close()
        assert await recorder.next() == ("lost", 1001, "")


async def test_a_server_that_drops_the_line_is_1006() -> None:
    recorder = Recorder()
    async with echoing() as (url, server):
        await connect(url, recorder, headers={})
        assert await recorder.next() == ("made",)
        (peer,) = server.connections
        peer.transport.abort()
        lost = await recorder.next()
        assert lost[:2] == ("lost", 1006)


async def test_a_message_above_the_bound_is_1009() -> None:
    recorder = Recorder()
    async with echoing() as (url, server):
        connection = await connect(url, recorder, headers={}, max_message=1000)
        assert await recorder.next() == ("made",)
        (peer,) = server.connections
        connection.send_text(b"x" * 1001)
        assert (await recorder.next())[:2] == ("lost", 1009)
        await asyncio.wait_for(peer.wait_closed(), PATIENCE)
        assert peer.close_code == 1009


async def test_a_server_that_ignores_our_close_is_dropped() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, accepted = await switch(reader)
        writer.write(accepted)
        await reader.read()

    recorder = Recorder()
    async with answering(handle) as url:
        connection = await connect(url, recorder, headers={}, close_timeout=0.05)
        connection.close(1000, "done")
        assert await recorder.next() == ("made",)
        assert await recorder.next() == ("lost", 1000, "done")


async def test_a_receiver_that_fails_ends_its_connection() -> None:
    class Broken(Recorder):
        def text_received(self, message: bytes) -> None:
            raise LookupError("bug")

    reported = asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.set())
    recorder = Broken()
    async with echoing() as (url, server):
        connection = await connect(url, recorder, headers={})
        assert await recorder.next() == ("made",)
        connection.send_text(b"boom")
        assert (await recorder.next())[:2] == ("lost", 1006)
        await eventually(lambda: not server.connections)
    assert reported.is_set()


async def test_many_connections_leave_nothing_behind() -> None:
    async with echoing() as (url, server):
        files = open_files()
        recorder = Recorder()
        for _ in range(5):
            connections = await asyncio.gather(*[connect(url, recorder, headers={}) for _ in range(20)])
            for index, connection in enumerate(connections):
                if index % 2:
                    connection.abort()
                else:
                    connection.close()
            for _ in range(40):
                await recorder.next()
        await eventually(lambda: not server.connections)
        await eventually(lambda: open_files() <= files)
