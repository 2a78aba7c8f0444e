"""WebSocket ends for load generators: frames put together and cut up by hand, as cheaply as Python allows.

They know what a relay under load sends: whole text messages, pings and close frames. Fragments, binary
messages and extensions end the connection. A client masks with zeros (RFC 6455 allows any key; the peer
unmasks all the same).
"""

from __future__ import annotations

import asyncio
import re
import time
from urllib.parse import urlsplit

from websockets.speedups import apply_mask
from websockets.utils import accept_key, generate_key

OPEN_SECONDS = 10.0
"""The handshake must be over by then."""
CLOSE_SECONDS = 5.0
"""A peer that does not answer a close frame is cut off after this time."""

_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
_KEY = re.compile(rb"\r\nsec-websocket-key:[ \t]*([A-Za-z0-9+/=]+)[ \t]*\r\n", re.IGNORECASE)


class HandshakeError(Exception):
    """The relay did not open the WebSocket."""


class LoadSocket(asyncio.Protocol):
    """What both roles share.

    Attributes:
        is_open: Between the handshake and the first close frame.
        gone: Done when the connection is closed.
    """

    _masked = 0
    _mask = b""

    def __init__(self) -> None:
        self.is_open = False
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._closing = False
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def connected(self) -> bool:
        """There is a connection, open or not."""
        return self._transport is not None and not self.gone.done()

    # For those who derive

    def message_received(self, at: float, message: bytes) -> None:
        """A text message came with a read that returned at `at` (monotonic)."""
        raise NotImplementedError

    def opened(self) -> None:
        """The handshake is over."""

    def lost(self) -> None:
        """The connection is over, and `close` was not called."""

    def send(self, message: bytes) -> None:
        """Sends a text message; on a closed connection it is dropped."""
        if self.is_open:
            self._send_frame(_TEXT, message)

    def close(self) -> None:
        """Closes with 1000."""
        self._closing = True
        if self.is_open:
            self.is_open = False
            self._send_frame(_CLOSE, b"\x03\xe8")
            self._deadline = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.abort)
        elif self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drops the connection."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """TCP always gives a Transport; the base class says BaseTransport because pipes share it."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        at = time.monotonic()
        if self._rest:
            data = self._rest + data
        if not self.is_open and not self._closing:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._rest = data
                return
            self._handshake(data[:end])
            data = data[end:]
        self._rest = self._frames(at, data)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if not self.gone.done():
            self.gone.set_result(None)
        self._ended()

    # Inside

    def _handshake(self, head: bytes) -> None:
        """Takes the peer's part of the opening handshake."""
        raise NotImplementedError

    def _ready(self) -> None:
        self.is_open = True
        self.opened()

    def _send_frame(self, first: int, payload: bytes) -> None:
        length = len(payload)
        if length < 126:
            header = bytes((first, self._masked | length))
        elif length < 1 << 16:
            header = bytes((first, self._masked | 126, length >> 8, length & 0xFF))
        else:
            header = bytes((first, self._masked | 127)) + length.to_bytes(8, "big")
        if self._transport is not None:
            self._transport.write(header + self._mask + payload)

    def _frames(self, at: float, data: bytes) -> bytes:
        """Handles the whole frames, and returns what is left."""
        position, end = 0, len(data)
        while end - position >= 2:
            second = data[position + 1]
            length = second & 0x7F
            begin = position + 2
            if length >= 126:
                begin += 2 if length == 126 else 8
                length = int.from_bytes(data[position + 2 : begin], "big")
            if second & 0x80:
                begin += 4
            stop = begin + length
            if stop > end:
                break
            payload = data[begin:stop]
            if second & 0x80:
                payload = apply_mask(payload, data[begin - 4 : begin])
            if data[position] == _TEXT:
                self.message_received(at, payload)
            else:
                self._control(data[position], payload)
            position = stop
        return data[position:]

    def _control(self, first: int, payload: bytes) -> None:
        if first == _PING:
            self._send_frame(_PONG, payload)
        elif first == _CLOSE and self._transport is not None:
            if self.is_open:
                self._send_frame(_CLOSE, payload[:2])
                self._ended()
            self._transport.close()
        elif first != _PONG:
            self.abort()

    def _ended(self) -> None:
        """The connection is over; said once, unless it was us."""
        unexpected = not self._closing
        self.is_open = False
        self._closing = True
        if unexpected:
            self.lost()


class ClientSocket(LoadSocket):
    """The client's end."""

    _masked = 0x80
    _mask = bytes(4)

    def __init__(self) -> None:
        super().__init__()
        self._refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._key = generate_key()

    async def connect(self, url: str, public_url: str = "", signature: str | None = None) -> None:
        """Opens the WebSocket.

        Args:
            url: Where to connect, `ws`.
            public_url: What it is known by outside, for the Host header; by default `url`.
            signature: The value of `X-Twilio-Signature`.

        Raises:
            HandshakeError: Another answer than 101, or none in time.
            OSError: No connection.
        """
        parts = urlsplit(url)
        request = (
            f"GET {parts.path or '/'} HTTP/1.1\r\nhost: {urlsplit(public_url or url).netloc}\r\n"
            "user-agent: Twilio.TmeWs/1.0\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            f"sec-websocket-key: {self._key}\r\nsec-websocket-version: 13\r\n"
            + (f"x-twilio-signature: {signature}\r\n" if signature is not None else "")
            + "\r\n"
        )
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    lambda: self, parts.hostname or "", parts.port or 80
                )
                transport.write(request.encode())
                refused = await self._refused
        except TimeoutError as error:
            self.abort()
            raise HandshakeError(f"{url} did not answer within {OPEN_SECONDS} s") from error
        if refused:
            self.abort()
            raise HandshakeError(f"{url} {refused}")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._refused.done():
            self._closing = True  # `connect` says so
            self._refused.set_result("hung up")
        super().connection_lost(exc)

    def _handshake(self, head: bytes) -> None:
        accepted = head.startswith(b"HTTP/1.1 101 ") and accept_key(self._key).encode() in head
        if not self._refused.done():
            status = head.partition(b"\r\n")[0].decode("latin-1")
            self._refused.set_result("" if accepted else f"answered {status!r}")
        if accepted:
            self._ready()
        else:
            self._closing = True


class ServerSocket(LoadSocket):
    """The server's end; it accepts any path."""

    def _handshake(self, head: bytes) -> None:
        key = _KEY.search(head)
        if key is None or self._transport is None:
            self.abort()
            return
        accept = accept_key(key[1].decode())
        self._transport.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        self._ready()
