"""The load's WebSocket ends, against each other and against the websockets library."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from handlehome.bench.loadsocket import ClientSocket, HandshakeError, LoadSocket, ServerSocket

SIZES = (0, 1, 125, 126, 127, 65535, 65536, 100_000)


class Inbox:
    """What came in at one end, in order; `next` waits for it."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.was_lost = False

    def message_received(self, at: float, message: bytes) -> None:
        self.messages.put_nowait(message)

    def lost(self) -> None:
        self.was_lost = True

    async def next(self) -> bytes:
        return await asyncio.wait_for(self.messages.get(), 5)


class Client(Inbox, ClientSocket):
    def __init__(self) -> None:
        Inbox.__init__(self)
        ClientSocket.__init__(self)


class Server(Inbox, ServerSocket):
    def __init__(self) -> None:
        Inbox.__init__(self)
        ServerSocket.__init__(self)


@contextlib.asynccontextmanager
async def listening(ends: list[Server]) -> AsyncIterator[str]:
    def accept() -> Server:
        ends.append(Server())
        return ends[-1]

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/path"
    finally:
        server.close()
        for end in ends:
            end.abort()
        await asyncio.gather(*(end.gone for end in ends))
        await server.wait_closed()


async def ended(end: LoadSocket) -> None:
    await asyncio.wait_for(end.gone, 5)


async def test_messages_of_all_sizes_pass_both_ways_in_order() -> None:
    ends: list[Server] = []
    async with listening(ends) as url:
        client = Client()
        await client.connect(url)
        sent = [bytes([65 + n]) * size for n, size in enumerate(SIZES)]
        for message in sent:
            client.send(message)
        assert [await ends[0].next() for _ in sent] == sent
        for message in sent:
            ends[0].send(message)
        assert [await client.next() for _ in sent] == sent
        client.close()
        await ended(client)
        assert not client.was_lost
        assert not client.connected


async def test_the_server_speaks_with_the_websockets_client() -> None:
    ends: list[Server] = []
    async with listening(ends) as url, connect(url, compression=None, max_size=None) as client:
        for size in SIZES:
            await client.send("x" * size)
            assert await ends[0].next() == b"x" * size
            ends[0].send(b"y" * size)
            assert await client.recv() == "y" * size
        await asyncio.wait_for(await client.ping(), 5)


async def test_the_client_speaks_with_the_websockets_server() -> None:
    hosts: list[str] = []

    async def echo(connection: ServerConnection) -> None:
        assert connection.request is not None
        hosts.append(connection.request.headers["host"] + connection.request.headers["x-twilio-signature"])
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, compression=None, max_size=None) as server:
        client = Client()
        port = next(iter(server.sockets)).getsockname()[1]
        await client.connect(f"ws://127.0.0.1:{port}/", "wss://phone.example.com/x", "abc=")
        for size in SIZES:
            client.send(b"x" * size)
            assert await client.next() == b"x" * size
        client.close()
        await ended(client)
    assert hosts == ["phone.example.comabc="]
    assert not client.was_lost


async def test_a_frame_may_come_byte_by_byte() -> None:
    client = Client()
    client.is_open = True
    for message in (b"a" * 3, b"b" * 300):
        length = len(message)
        head = bytes((0x81, length)) if length < 126 else bytes((0x81, 126, length >> 8, length & 255))
        for byte in head + message:
            client.data_received(bytes((byte,)))
    assert [await client.next(), await client.next()] == [b"a" * 3, b"b" * 300]


async def test_the_end_is_noticed_when_the_peer_closes() -> None:
    async def refuse(connection: ServerConnection) -> None:
        await connection.close(1008, "no")

    async with serve(refuse, "127.0.0.1", 0) as server:
        client = Client()
        await client.connect(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/")
        await ended(client)
    assert client.was_lost


async def test_a_closing_server_is_answered() -> None:
    ends: list[Server] = []
    async with listening(ends) as url, connect(url) as client:
        ends[0].close()
        with pytest.raises(ConnectionClosed):
            await client.recv()
        await ended(ends[0])
    assert client.close_code == 1000
    assert not ends[0].was_lost


async def test_another_answer_than_101_is_an_error() -> None:
    async with serve(
        lambda _: None,  # type: ignore[arg-type, return-value]  # never called
        "127.0.0.1",
        0,
        process_request=lambda connection, _: connection.respond(403, "no"),
    ) as server:
        client = Client()
        with pytest.raises(HandshakeError, match="403"):
            await client.connect(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/")
    assert not client.is_open


async def test_a_request_without_a_key_is_cut_off() -> None:
    ends: list[Server] = []
    async with listening(ends) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await writer.wait_closed()
