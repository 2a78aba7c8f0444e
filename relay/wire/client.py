"""The model's side: WebSocket client connections."""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Mapping

import aiofastnet
from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from handlehome.relay.wire.connection import (
    CLOSE_TIMEOUT,
    MAX_WRITE_BUFFER,
    PROTOCOL_LOGGER,
    Connection,
    Receiver,
)

MAX_MESSAGE = 1 << 20
"""Largest message that a model may send, in bytes, unless the caller says otherwise."""

IDLE_BUFFER = 16 << 10
"""Bytes of receive buffer per model: the size of a TLS record, and of most audio deltas."""

OPEN_TIMEOUT = 10.0
"""Seconds for name lookup, connection, TLS and the opening handshake together."""

MAX_EXCERPT = 1000
"""Characters of a refusal's body that are kept."""

_MAX_HEAD = 64 << 10


class HandshakeRefused(Exception):
    """The server did not switch to WebSocket.

    Attributes:
        status: Its HTTP status, None if it gave no valid HTTP answer.
        body: The beginning of the answer's body, or what was wrong with the answer.
    """

    def __init__(self, status: int | None, body: str) -> None:
        """Keeps the two, and words them."""
        super().__init__(f"the server answered {status or 'no HTTP'}: {body}")
        self.status = status
        self.body = body


async def connect(
    url: str,
    receiver: Receiver,
    *,
    headers: Mapping[str, str],
    ssl_context: ssl.SSLContext | None = None,
    open_timeout: float = OPEN_TIMEOUT,
    close_timeout: float = CLOSE_TIMEOUT,
    max_message: int = MAX_MESSAGE,
    max_write_buffer: int = MAX_WRITE_BUFFER,
) -> Connection:
    """Opens a WebSocket connection.

    By the time it returns, the receiver has had `connection_made` and possibly its first messages. When it
    raises, the receiver has not been called, or has had its `connection_lost`, and no socket is left.

    Args:
        url: `ws://` or `wss://`.
        receiver: The connection's owner.
        headers: Added to the handshake request.
        ssl_context: For `wss://`; by default one that trusts the system's authorities.
        open_timeout: See `OPEN_TIMEOUT`.
        close_timeout: Seconds for the closing handshake.
        max_message: Largest incoming message in bytes; a larger one is answered by close code 1009.
        max_write_buffer: Bytes that may wait for a server that does not read.

    Raises:
        HandshakeRefused: The server answered with anything but a valid switch to WebSocket.
        TimeoutError: Not open within `open_timeout`.
        OSError: Name lookup, TCP or TLS failed, or the server hung up without an answer.
        websockets.exceptions.InvalidURI: `url` is not a WebSocket URL.
    """
    uri = parse_uri(url)
    loop = asyncio.get_running_loop()
    connection = ClientConnection(
        ClientProtocol(uri, max_size=max_message, logger=PROTOCOL_LOGGER),
        receiver,
        headers,
        max_message=max_message,
        close_timeout=close_timeout,
        max_write_buffer=max_write_buffer,
    )
    if uri.secure:
        ssl_context = ssl_context or _default_ssl_context()
    try:
        async with asyncio.timeout(open_timeout):
            await aiofastnet.create_connection(
                loop, lambda: connection, uri.host, uri.port, ssl=ssl_context if uri.secure else None
            )
            await connection.handshake
    except BaseException as error:
        connection.abort()
        if isinstance(error, TimeoutError) and connection.refused_status is not None:
            raise HandshakeRefused(
                connection.refused_status, "the answer's body did not end in time"
            ) from error
        raise
    return connection


class ClientConnection(Connection):
    """A client-side connection; made by `connect`.

    Attributes:
        handshake: Done when the opening handshake is, one way or the other.
        refused_status: The HTTP status of an answer that is no switch to WebSocket, once it is known.
    """

    __slots__ = (
        "_client_protocol",
        "_head",
        "_headers",
        "_owner",
        "handshake",
        "refused_status",
    )

    def __init__(
        self,
        protocol: ClientProtocol,
        receiver: Receiver,
        headers: Mapping[str, str],
        *,
        max_message: int,
        close_timeout: float,
        max_write_buffer: int,
    ) -> None:
        """Creates a connection that starts its handshake when it gets a transport; see `connect`."""
        super().__init__(
            protocol,
            max_message=max_message,
            idle_buffer=IDLE_BUFFER,
            close_timeout=close_timeout,
            max_write_buffer=max_write_buffer,
        )
        self.handshake: asyncio.Future[None] = self._loop.create_future()
        self.refused_status: int | None = None
        self._client_protocol = protocol
        self._owner: Receiver | None = receiver
        self._headers = headers
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the handshake request."""
        super().connection_made(transport)
        request = self._client_protocol.connect()
        for name, value in self._headers.items():
            request.headers[name] = value
        self._client_protocol.send_request(request)
        self._write_out()

    def buffer_updated(self, nbytes: int) -> None:
        """Reads the server's answer, then frames."""
        if self._owner is None:
            self._splitter.buffer_updated(nbytes)
        else:
            self._answer_received(self._splitter.take(nbytes), self._owner)

    def eof_received(self) -> None:
        """Ends a handshake that is not complete."""
        super().eof_received()
        if self.refused_status is not None:
            self._check_refused()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends a handshake that is not complete."""
        super().connection_lost(exc)
        self._owner = None
        if not self.handshake.done():
            if self.refused_status is not None:
                self._refuse("")
            else:
                error = ConnectionResetError("the server hung up during the opening handshake")
                error.__cause__ = exc
                self.handshake.set_exception(error)

    def _answer_received(self, data: bytes, owner: Receiver) -> None:
        protocol = self._client_protocol
        if self.refused_status is not None:
            protocol.receive_data(data)
            self._check_refused()
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0 and len(self._head) <= _MAX_HEAD:
            return
        # The head alone: the protocol must not see frames behind it, which are the splitter's.
        size = len(self._head) if end < 0 else end + 4
        head, rest = self._head[:size], self._head[size:]
        self._head = b""
        protocol.receive_data(head)
        if protocol.state is State.OPEN:
            protocol.events_received()
            self._owner = None
            self._opened(owner)
            if not self.handshake.done():
                self.handshake.set_result(None)
            self._splitter.feed(rest)
            return
        with contextlib.suppress(ValueError, IndexError):
            self.refused_status = int(head.split(b" ", 2)[1])
        if protocol.handshake_exc is None:
            protocol.receive_data(rest)
        self._check_refused()

    def _check_refused(self) -> None:
        """Reports a refusal once the protocol has read all that belongs to it."""
        error = self._client_protocol.handshake_exc
        if error is None:
            return
        body = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
        for event in self._client_protocol.events_received():
            if isinstance(event, Response) and event.body:
                body = bytes(event.body).decode(errors="replace")
        self._refuse(body)

    def _refuse(self, body: str) -> None:
        if not self.handshake.done():
            self.handshake.set_exception(HandshakeRefused(self.refused_status, body[:MAX_EXCERPT]))


@functools.cache
def _default_ssl_context() -> ssl.SSLContext:
    """Loads the system's authorities once; it takes some ten milliseconds of the event loop."""
    return ssl.create_default_context()
