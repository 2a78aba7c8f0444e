"""Clients and models that misbehave: raw bytes on real sockets, and how the daemon takes them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self, cast
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection

from handlehome.bench import media, twilio
from handlehome.bench.phone import ACCOUNT_SID
from handlehome.bench.realtime.connection import SimConnection
from handlehome.bench.realtime.script import Script
from handlehome.bench.realtime.server import RealtimeSimulator

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 0x81, 0x82, 0x88, 0x89, 0x8A, 0x80
FIRST_FRAGMENT, MIDDLE_FRAGMENT = 0x01, 0x00

_READ_BYTES = 1 << 16
_KEPT_BYTES = 1 << 20


def frame(
    payload: bytes = b"", first: int = TEXT, *, masked: bool = True, announced: int | None = None
) -> bytes:
    """One WebSocket frame, right or wrong; its mask is zero, so that the payload shows.

    Args:
        payload: what follows the header.
        first: the header's first byte.
        masked: as a client must.
        announced: the length in the header, where it is not the payload's.
    """
    length = len(payload) if announced is None else announced
    bit = 0x80 if masked else 0
    if length < 126:
        header = bytes((first, bit | length))
    elif length < 1 << 16:
        header = bytes((first, bit | 126)) + length.to_bytes(2, "big")
    else:
        header = bytes((first, bit | 127)) + length.to_bytes(8, "big")
    return header + (bytes(4) if masked else b"") + payload


@dataclass(frozen=True, slots=True)
class Door:
    """Where a media socket is, and what opens it.

    Attributes:
        url: `ws://HOST:PORT/media-stream/INSTANCE`, as the TwiML names it.
        auth_token: signs the upgrade.
    """

    url: str
    auth_token: str

    @property
    def port(self) -> int:
        """The daemon's port."""
        return urlsplit(self.url).port or 80

    @property
    def path(self) -> str:
        """The media socket's path."""
        return urlsplit(self.url).path

    @property
    def signature(self) -> str:
        """Twilio's."""
        return twilio.signature(self.auth_token, self.url)

    def upgrade(self, path: str | None = None, signature: str | None = "right", extra: str = "") -> bytes:
        """A handshake request.

        Args:
            path: by default the media socket's.
            signature: "right", any other, or None for none.
            extra: further header lines.
        """
        signed = self.signature if signature == "right" else signature
        key = base64.b64encode(bytes(16)).decode()
        return (
            f"GET {path or self.path} HTTP/1.1\r\nHost: {urlsplit(self.url).netloc}\r\n"
            f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            + (f"X-Twilio-Signature: {signed}\r\n" if signed is not None else "")
            + f"{extra}\r\n"
        ).encode()

    def post(self, path: str = "/incoming-call", extra: str = "", body: bytes = b"") -> bytes:
        """The head of a webhook, unsigned, and the beginning of its body."""
        return (
            f"POST {path} HTTP/1.1\r\nHost: {urlsplit(self.url).netloc}\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\n{extra}\r\n"
        ).encode() + body


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended, as its client saw it.

    Attributes:
        status: of the HTTP answer; 0 without one.
        code: of the close frame; 0 without one.
        reason: beside the code.
        messages: text messages that came.
        seconds: from its opening to its end.
        reset: by TCP reset.
    """

    status: int
    code: int
    reason: str
    messages: tuple[bytes, ...]
    seconds: float
    reset: bool = False


class Attacker:
    """One TCP connection to the daemon. Use it as an asynchronous context manager."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        # It can do both; a writer's type shows one side only.
        self._transport = cast("asyncio.Transport", writer.transport)
        self._began = time.monotonic()
        self._received = bytearray()

    @classmethod
    async def open(cls, port: int, *, receive_bytes: int = 0) -> Self:
        """Connects.

        Args:
            port: the daemon's.
            receive_bytes: size of the kernel's receive buffer; 0 leaves it alone.
        """
        sock = socket.socket()
        sock.setblocking(False)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            return cls(*await asyncio.open_connection(sock=sock))
        except BaseException:
            sock.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    @property
    def cut(self) -> bool:
        """Whether the daemon has ended the connection."""
        return self._reader.at_eof() or self._reader.exception() is not None or self._writer.is_closing()

    def send(self, data: bytes) -> None:
        """Sends, if there still is a connection."""
        if not self._writer.is_closing():
            self._writer.write(data)

    async def flood(self, data: bytes, seconds: float, pause: float = 0.01) -> None:
        """Sends the same again and again, as fast as it is taken, until the connection is cut."""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(seconds):
                while not self.cut:
                    self._writer.write(data)
                    await self._writer.drain()
                    await asyncio.sleep(pause)

    def stop_reading(self) -> None:
        """Reads nothing until `read_on`."""
        self._transport.pause_reading()

    def read_on(self) -> None:
        """Reads again."""
        self._transport.resume_reading()

    async def status(self, within: float = 10.0) -> int:
        """Waits for the head of an HTTP answer.

        Returns:
            Its status; 0 if the connection ends first.
        """
        async with asyncio.timeout(within):
            while b"\r\n\r\n" not in self._received:
                if not await self._read():
                    return 0
        return self._status()

    async def ending(self, within: float = 20.0) -> Ending:
        """Waits until the daemon has ended the connection.

        Raises:
            TimeoutError: it hasn't within `within` seconds.
        """
        reset = False
        try:
            async with asyncio.timeout(within):
                while await self._read():
                    pass
        except ConnectionError:
            reset = True
        seconds = time.monotonic() - self._began
        status, rest = 0, bytes(self._received)
        if rest.startswith(b"HTTP/1.1 "):
            status = self._status()
            rest = rest.partition(b"\r\n\r\n")[2]
        code, reason, messages = 0, "", []
        for first, payload in _frames(rest if status in {0, 101} else b""):
            if first == CLOSE and not code:
                code, reason = int.from_bytes(payload[:2], "big") or 1005, payload[2:].decode()
            elif first == TEXT:
                messages.append(payload)
        return Ending(status, code, reason, tuple(messages), seconds, reset)

    def messages(self) -> list[bytes]:
        """The text messages that were read so far."""
        rest = bytes(self._received).partition(b"\r\n\r\n")[2]
        return [payload for first, payload in _frames(rest) if first == TEXT]

    async def read_for(self, seconds: float) -> None:
        """Reads what comes within some time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self._read():
                    pass

    async def _read(self) -> bool:
        data = await self._reader.read(_READ_BYTES)
        if len(self._received) < _KEPT_BYTES:
            self._received += data
        return bool(data)

    def _status(self) -> int:
        return int(self._received[9:12])


def _frames(data: bytes) -> list[tuple[int, bytes]]:
    """First byte and payload of each whole frame of a server's."""
    found = []
    position = 0
    while position + 2 <= len(data):
        length, begin = data[position + 1] & 0x7F, position + 2
        if length >= 126:
            begin += 2 if length == 126 else 8
            length = int.from_bytes(data[position + 2 : begin], "big")
        if begin + length > len(data):
            break
        found.append((data[position], data[begin : begin + length]))
        position = begin + length
    return found


class Line:
    """The messages of a media stream, for an attacker who knows them."""

    def __init__(self, call_sid: str, parameters: dict[str, str]) -> None:
        self.call_sid = call_sid
        self.parameters = parameters
        self.stream_sid = twilio.new_sid("MZ")
        self._messages = media.StreamMessages(ACCOUNT_SID, call_sid, self.stream_sid, parameters)

    def start(self) -> bytes:
        """A frame that holds `start`."""
        return frame((self._messages.start() or "").encode())

    def media(self, ulaw: bytes = b"\xff" * 160) -> bytes:
        """A frame that holds the next `media`."""
        return frame(self._messages.media(ulaw).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rogue(Script):
    """The script of a session that is no simulated model's.

    Attributes:
        act: does what it likes with the connection.
    """

    act: Callable[[ServerConnection], Awaitable[None]]


class MixedModel(RealtimeSimulator):
    """The simulated model; a session whose script is a `Rogue` is left to it."""

    async def _handle(self, connection: ServerConnection) -> None:
        # The one place where a handshake is over and no session has begun.
        if isinstance(connection, SimConnection) and isinstance(connection.script, Rogue):
            await connection.script.act(connection)
        else:
            await super()._handle(connection)
