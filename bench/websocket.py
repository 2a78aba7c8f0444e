"""Twilio's WebSocket: its handshake, and messages pushed by direct call.

A thin shell round the websockets library's `ClientProtocol`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from typing import Protocol
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from handlehome.bench.network import call_after

OPEN_SECONDS = 10.0
"""The handshake must be over by then."""
CLOSE_SECONDS = 5.0
"""A connection that should be closed is reset after this time."""
MAX_UNSENT = 1 << 20
"""A relay that leaves this many bytes unread is cut off."""

_NO_LINGER = struct.pack("ii", 1, 0)


class StreamRefusedError(Exception):
    """The WebSocket could not be opened.

    Attributes:
        code: Twilio's error number: 31901 (timed out), 31902 (refused), 31920 (handshake).
        status: The HTTP status, if there was an answer.
    """

    def __init__(self, code: int, reason: str, status: int | None = None) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.status = status


class Listener(Protocol):
    """Whoever uses the socket."""

    def message_received(self, at: float, message: bytes, binary: bool) -> None:
        """A whole message came off the socket at `at` (monotonic)."""

    def close_received(self, at: float, close: Close) -> None:
        """The relay's close frame came; it is answered already."""

    def socket_closed(self) -> None:
        """The connection is gone; the last call."""


class StreamSocket(asyncio.Protocol):
    """The client's side of one media stream's connection."""

    _transport: asyncio.Transport
    _ws: ClientProtocol

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._answered = asyncio.Event()
        self._opened = False
        self._silent = False
        self._fragments: list[bytes] = []
        self._opcode = Opcode.TEXT
        self._close_timer: asyncio.TimerHandle | None = None

    async def open(self, url: str, *, host: str, signature: str | None) -> None:
        """Connects and performs the handshake, with the headers that Twilio sends and no others.

        Args:
            url: Where to connect, `ws` or `wss`; a query is not sent.
            host: The Host header.
            signature: The value of `X-Twilio-Signature`.

        Raises:
            StreamRefusedError: No connection, or another answer than 101.
        """
        parts = urlsplit(url)
        secure = parts.scheme == "wss"
        self._ws = ClientProtocol(parse_uri(url), max_size=None)
        headers = {
            "host": host,
            "user-agent": "Twilio.TmeWs/1.0",
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-key": self._ws.key,
            "sec-websocket-version": "13",
        }
        if signature is not None:
            headers["x-twilio-signature"] = signature
        headers["accept-encoding"] = "gzip"
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await asyncio.get_running_loop().create_connection(
                    lambda: self,
                    parts.hostname or "",
                    parts.port or (443 if secure else 80),
                    ssl=ssl.create_default_context() if secure else None,
                )
                self._ws.send_request(Request(parts.path or "/", Headers(headers)))
                self._flush()
                await self._answered.wait()
        except TimeoutError as error:
            self.abort()
            raise StreamRefusedError(31901, f"no answer within {OPEN_SECONDS} s") from error
        except OSError as error:
            raise StreamRefusedError(31902, str(error)) from error
        except asyncio.CancelledError:
            self.abort()
            raise
        refused = self._ws.handshake_exc
        if refused is not None:
            self._transport.abort()
            status = refused.response.status_code if isinstance(refused, InvalidStatus) else None
            raise StreamRefusedError(31920, str(refused), status) from refused

    def send(self, message: str | bytes) -> bool:
        """Sends a text or binary message; returns whether it was written to the socket."""
        if self._silent or self._ws.state is not OPEN:
            return False
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            self.abort()
            return False
        if isinstance(message, str):
            self._ws.send_text(message.encode())
        else:
            self._ws.send_binary(message)
        self._flush()
        return True

    def close(self) -> None:
        """Closes with 1000; the connection is reset if the relay does not answer within 5 s."""
        if self._ws.state is OPEN:
            self._ws.send_close(1000)
            self._flush()
        self._expect_close()

    def abort(self) -> None:
        """Resets the connection without a close frame."""
        if not self._opened or self._transport.is_closing():
            return
        # Linger 0: the kernel sends RST instead of FIN.
        tcp: socket.socket | None = self._transport.get_extra_info("socket")
        if tcp is not None:  # None: it is gone already
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._transport.abort()

    def go_silent(self) -> None:
        """Writes nothing any more, not even a pong or a close frame; the connection stays."""
        self._silent = True

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """TCP always gives a Transport; the base class says BaseTransport because pipes share it."""
        self._transport = transport
        self._opened = True

    def data_received(self, data: bytes) -> None:
        at = time.monotonic()
        self._ws.receive_data(data)
        self._take(at)

    def eof_received(self) -> None:
        self._ws.receive_eof()
        self._take(time.monotonic())

    def connection_lost(self, _exc: Exception | None) -> None:
        self._ws.receive_eof()
        self._answered.set()
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._listener.socket_closed()

    def _take(self, at: float) -> None:
        self._flush()
        for event in self._ws.events_received():
            if isinstance(event, Frame):
                self._frame(at, event)
            else:
                self._answered.set()
        if self._ws.close_expected():
            self._expect_close()

    def _frame(self, at: float, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self._listener.close_received(at, Close.parse(frame.data))
            return
        if frame.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            return
        if frame.opcode is not Opcode.CONT:
            self._opcode = frame.opcode
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            message = b"".join(self._fragments)
            self._fragments.clear()
            self._listener.message_received(at, message, self._opcode is Opcode.BINARY)

    def _expect_close(self) -> None:
        if self._close_timer is None and not self._silent and not self._transport.is_closing():
            self._close_timer = call_after(CLOSE_SECONDS, self.abort)

    def _flush(self) -> None:
        writes = self._ws.data_to_send()
        if self._silent or self._transport.is_closing():
            return
        for data in writes:
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
