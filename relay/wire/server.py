"""The phone's side: WebSocket server connections on uvicorn's port, and the HTTP connections they start as.

uvicorn reads an upgrade request with its HTTP protocol class and then hands the socket to its `ws=` class,
whatever the path. `media_protocol` makes such a class: it asks a gate, and either the gate's receiver owns
the connection from there on, or an HTTP answer ends it. `HttpProtocol` is the `http=` class to go with it.

    config = uvicorn.Config(app, http=HttpProtocol, ws=media_protocol(gate))
"""

import asyncio
import http
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers, MultipleValuesError
from websockets.exceptions import InvalidMessage
from websockets.http11 import Request
from websockets.server import ServerProtocol

from handlehome.relay.wire.connection import (
    CLOSE_TIMEOUT,
    MAX_WRITE_BUFFER,
    PROTOCOL_LOGGER,
    Connection,
    Receiver,
    counters,
)

MAX_MESSAGE = 64 << 10
"""Largest message that a phone line may send, in bytes. Its messages have some hundred."""

IDLE_BUFFER = 4 << 10
"""Bytes of receive buffer per phone line: ten media messages, so that a short stall is read at once."""

MAX_ODD_FRAMES = 100
"""Control frames, fragments and binary frames that a phone line may send per second.

Each costs some 10 us, so a flood costs about a millisecond of the loop before it is cut off, no more than its
handshake did; a real line sends a ping now and then.
"""

OPEN_TIMEOUT = 5.0
"""Seconds for a whole HTTP request to arrive."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """A valid WebSocket handshake request.

    Attributes:
        path: The request's path as it was sent, percent-encoded, without the query.
        query: What followed the question mark, "" if nothing did.
        headers: Case-insensitive; `get_all(name)` gives repeated ones, `get(name)` raises
            `websockets.datastructures.MultipleValuesError` for them.
        client: Address and port of the socket's other end, which may be a reverse proxy.
    """

    path: str
    query: str
    headers: Headers
    client: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer instead of the upgrade, after which the connection is closed.

    Attributes:
        status: 4xx or 5xx.
        text: The answer's body, plain text.
        headers: Further headers of the answer, such as Retry-After.
    """

    status: int
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


Gate = Callable[[UpgradeRequest], Receiver | Refusal]
"""Decides on an upgrade request, at once. A receiver that it returns always gets `connection_made`."""


class ServerConnection(Connection):
    """A server-side connection that uvicorn hands over."""

    __slots__ = (
        "_gate",
        "_server_protocol",
        "_siblings",
    )

    def __init__(
        self,
        gate: Gate,
        server_state: ServerState,
        *,
        max_message: int = MAX_MESSAGE,
        close_timeout: float = CLOSE_TIMEOUT,
        max_write_buffer: int = MAX_WRITE_BUFFER,
        max_odd_frames: int | None = MAX_ODD_FRAMES,
    ) -> None:
        """Creates a connection that waits for its replayed request; see `media_protocol`."""
        self._server_protocol = ServerProtocol(max_size=max_message, logger=PROTOCOL_LOGGER)
        super().__init__(
            self._server_protocol,
            max_message=max_message,
            idle_buffer=IDLE_BUFFER,
            close_timeout=close_timeout,
            max_write_buffer=max_write_buffer,
            max_odd_frames=max_odd_frames,
        )
        self._gate: Gate | None = gate
        # uvicorn's shutdown waits until this set is empty; its type lists uvicorn's own classes only.
        self._siblings = cast("set[Connection]", server_state.connections)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the transport over from the HTTP protocol."""
        super().connection_made(transport)
        self._siblings.add(self)
        # uvicorn does this too, but only after the handshake: should that fail, nobody would tell us.
        cast("asyncio.Transport", transport).set_protocol(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leaves uvicorn's set."""
        self._siblings.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes bytes that the HTTP protocol read: the replayed request, then what came behind it."""
        if self._gate is None:
            self._splitter.feed(data)
            return
        gate, self._gate = self._gate, None
        protocol = self._server_protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                self._answer(event, gate)
                return
        counters.upgrades_refused += 1
        if isinstance(protocol.handshake_exc, InvalidMessage) and self._transport is not None:
            # For a request with a body, say, at which the library hangs up without a word.
            response = protocol.reject(http.HTTPStatus.BAD_REQUEST, "not a valid WebSocket handshake")
            self._transport.write(response.serialize())
        self._protocol_advanced()

    def shutdown(self) -> None:
        """Closes the connection: uvicorn calls this when the whole server ends, not before."""
        if self.is_open:
            self.close(1001, "the server is going away")

    def _answer(self, request: Request, gate: Gate) -> None:
        protocol = self._server_protocol
        response = protocol.accept(request)
        decision: Receiver | Refusal | None = None
        if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            decision = self._ask(gate, request)
            if isinstance(decision, Refusal):
                response = protocol.reject(decision.status, decision.text)
                for name, value in decision.headers.items():
                    response.headers[name] = value
        protocol.send_response(response)
        self._write_out()
        if decision is None or isinstance(decision, Refusal):
            counters.upgrades_refused += 1
            self._protocol_advanced()
        else:
            self._opened(decision)

    def _ask(self, gate: Gate, request: Request) -> Receiver | Refusal:
        path, _, query = request.path.partition("?")
        try:
            return gate(UpgradeRequest(path, query, request.headers, self.remote_address))
        except MultipleValuesError as error:
            return Refusal(400, f"There is more than one {error}.")
        except Exception:  # a bug in the application: the client gets an answer all the same, as by HTTP
            _logger.exception("💥 the gate failed on an upgrade request")
            return Refusal(500)


def media_protocol(
    gate: Gate,
    *,
    max_message: int = MAX_MESSAGE,
    close_timeout: float = CLOSE_TIMEOUT,
    max_write_buffer: int = MAX_WRITE_BUFFER,
    max_odd_frames: int | None = MAX_ODD_FRAMES,
) -> type[asyncio.Protocol]:
    """Makes the class for uvicorn's `Config(ws=...)`.

    It speaks no subprotocol and no extension and does not look at `Origin`. There is no timeout for the
    handshake because `HttpProtocol` hands over whole requests only.

    Args:
        gate: Decides on each valid upgrade request.
        max_message: Largest message in bytes; a larger one is answered by close code 1009.
        close_timeout: Seconds for a closing handshake.
        max_write_buffer: Bytes that may wait for a client that does not read.
        max_odd_frames: See `MAX_ODD_FRAMES`; None for no bound.
    """

    class MediaProtocol(ServerConnection):
        __slots__ = ()

        def __init__(self, *, server_state: ServerState, **_: object) -> None:
            super().__init__(
                gate,
                server_state,
                max_message=max_message,
                close_timeout=close_timeout,
                max_write_buffer=max_write_buffer,
                max_odd_frames=max_odd_frames,
            )

    # uvicorn's annotation knows asyncio.Protocol only, but never reads by way of its data_received.
    return cast("type[asyncio.Protocol]", MediaProtocol)


class _RequestReader(h11.Connection):
    """h11's connection, whose errors hold nothing.

    An error of h11's stands in a circle with its own traceback, and through the frames of that holds what was
    read, up to 256 KiB, until the garbage collector runs: some hundred MiB in a flood of invalid requests.
    """

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return super().next_event()
        except h11.RemoteProtocolError as error:
            error.__traceback__ = None
            raise


class HttpProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with three gaps closed.

    - A connection on which no whole request has arrived `open_timeout` seconds after it was opened, or
      after a further request's first byte, is cut. (uvicorn's keep-alive timeout ends with the first byte.)
    - Bytes that a client sends right behind its upgrade request reach the WebSocket connection. (uvicorn
      replays the request alone.)
    - A request that is refused as invalid is freed at once.

    Attributes:
        open_timeout: Seconds; a subclass may set it.
    """

    open_timeout: ClassVar[float] = OPEN_TIMEOUT

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes uvicorn's arguments."""
        super().__init__(*args, **kwargs)
        limit = self.config.h11_max_incomplete_event_size
        self.conn = _RequestReader(h11.SERVER) if limit is None else _RequestReader(h11.SERVER, limit)
        self._request_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in H11Protocol
        """Starts the clock for the first request."""
        super().connection_made(transport)
        self._request_timer = self.loop.call_later(self.open_timeout, self._request_overdue)

    def data_received(self, data: bytes) -> None:
        """Reads, with the clock running as long as a request is incomplete."""
        if self._request_timer is None:
            self._request_timer = self.loop.call_later(self.open_timeout, self._request_overdue)
        super().data_received(data)
        if self.conn.their_state not in {h11.IDLE, h11.SEND_BODY}:
            self._stop_request_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self._stop_request_timer()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hands the socket over, with everything that came behind the request."""
        self._stop_request_timer()
        behind, _ = self.conn.trailing_data
        super().handle_websocket_upgrade(event)
        successor = self.transport.get_protocol()
        if behind and isinstance(successor, ServerConnection):
            successor.data_received(behind)

    def _stop_request_timer(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _request_overdue(self) -> None:
        self._request_timer = None
        counters.requests_cut += 1
        self.transport.abort()
