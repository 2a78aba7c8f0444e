"""What both WebSocket roles share: reading, writing, closing.

A `Connection` is an `asyncio.BufferedProtocol`. Reads go into its splitter's buffer; whole text messages go
from there to the `Receiver` by a direct call; every other frame goes through the websockets library's
Sans-I/O protocol, which stays the authority on the connection's state. Nothing here awaits, and no task or
future exists per frame or per connection.
"""

import asyncio
import codecs
import logging
from dataclasses import dataclass
from typing import Protocol, cast

from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from handlehome.relay.wire.frames import BINARY, TEXT, FrameSplitter, MaskSource, encode_frame

CLOSE_TIMEOUT = 2.0
"""Seconds that a closing handshake may take before the transport is aborted."""

MAX_WRITE_BUFFER = 4 << 20
"""Bytes that may wait for a peer that does not read before its connection is aborted."""

ABNORMAL_CLOSURE = 1006
"""The code that RFC 6455 (section 7.1.5) reserves for a connection that ended without a close frame."""

_MAX_REASON = 123  # bytes: a control frame's 125 less the code

PROTOCOL_LOGGER = logging.getLogger("handlehome.relay.wire.protocol")
# Below WARNING the library logs each handshake, whose headers are secrets, and each frame.
PROTOCOL_LOGGER.setLevel(logging.WARNING)

_masks = MaskSource()


@dataclass(slots=True)
class Counters:
    """Running totals over all connections of the process.

    Attributes:
        messages_dropped: Messages sent to a connection that was closing or closed.
        write_overflows: Connections aborted because their peer did not read.
        floods: Connections closed for too many control frames or fragments.
        close_timeouts: Connections aborted because their peer did not finish the closing handshake.
        requests_cut: HTTP connections cut because no whole request arrived in time.
        upgrades_refused: Upgrade requests that were answered with an HTTP error.
    """

    messages_dropped: int = 0
    write_overflows: int = 0
    floods: int = 0
    close_timeouts: int = 0
    requests_cut: int = 0
    upgrades_refused: int = 0


counters = Counters()
"""The process's totals, for the metrics page."""


class Receiver(Protocol):
    """The owner of a connection. All calls are direct, on the event loop, and must not block.

    An exception that escapes from one of them ends the connection and is logged by the event loop.
    """

    def connection_made(self, connection: "Connection") -> None:
        """The opening handshake is complete; messages may be sent."""

    def text_received(self, message: bytes) -> None:
        """A whole text message, valid UTF-8, has arrived."""

    def binary_received(self, message: bytes) -> None:
        """A whole binary message has arrived."""

    def connection_lost(self, code: int, reason: str) -> None:
        """The connection is over: called once after `connection_made`, and nothing after it.

        The call comes when nothing more can be received, which may be a little before the socket is closed.

        Args:
            code: The code of the close frame that ended it: the peer's, or ours if we were first; 1005
                if the peer's held none; 1006 if there was none.
            reason: The reason beside the code, or why we gave up.
        """

    def writing_paused(self) -> None:
        """The transport's write buffer has grown above its high-water mark: the peer reads too slowly."""

    def writing_resumed(self) -> None:
        """The write buffer has been drained."""


class Connection(asyncio.BufferedProtocol):
    """One WebSocket connection, in either role; see `server` and `client` for how it opens.

    Attributes:
        is_open: Whether messages can be sent: from the handshake's end to the first close frame.
        write_paused: Whether the write buffer is above its high-water mark.
        messages_dropped: How many messages were sent too late, and dropped.
    """

    # A call's objects are cold when its frame comes: what is smaller is faster.
    __slots__ = (
        "_abort_reason",
        "_close_timeout",
        "_close_timer",
        "_decoder",
        "_fragments",
        "_is_client",
        "_late_pong",
        "_loop",
        "_max_odd_frames",
        "_max_write_buffer",
        "_odd_frames",
        "_odd_frames_since",
        "_protocol",
        "_receiver",
        "_splitter",
        "_transport",
        "is_open",
        "messages_dropped",
        "write_paused",
    )

    def __init__(
        self,
        protocol: ServerProtocol | ClientProtocol,
        *,
        max_message: int,
        idle_buffer: int,
        close_timeout: float = CLOSE_TIMEOUT,
        max_write_buffer: int = MAX_WRITE_BUFFER,
        max_odd_frames: int | None = None,
    ) -> None:
        """Creates a connection that is not open yet.

        Args:
            protocol: State machine of the right role, without extensions, with the same `max_size`.
            max_message: Largest incoming message in bytes; a larger one is answered by close code 1009.
            idle_buffer: Bytes of receive buffer that the idle connection holds.
            close_timeout: See `CLOSE_TIMEOUT`.
            max_write_buffer: See `MAX_WRITE_BUFFER`.
            max_odd_frames: How many frames other than whole text messages the peer may send in one
                second, each of which costs far more than a text message; None for a trusted peer.
        """
        self.is_open = False
        self.write_paused = False
        self.messages_dropped = 0
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._is_client = isinstance(protocol, ClientProtocol)
        self._splitter = FrameSplitter(
            masked=not self._is_client,
            max_message=max_message,
            idle_size=idle_buffer,
            deliver=_nowhere,
            pass_on=self._odd_frame_received,
        )
        self._close_timeout = close_timeout
        self._max_write_buffer = max_write_buffer
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._abort_reason = ""
        self._late_pong = b""
        self._max_odd_frames = max_odd_frames
        self._odd_frames = 0
        self._odd_frames_since = 0.0
        # A fragmented message under way. Its size is bounded by the protocol.
        self._fragments: list[bytes] = []
        self._decoder: codecs.IncrementalDecoder | None = None

    # What the owner calls.

    @property
    def frames_received(self) -> int:
        """How many frames of any kind have arrived, so that a half-open line shows."""
        return self._splitter.frames

    @property
    def remote_address(self) -> tuple[str, int] | None:
        """Address and port of the socket's other end, None if there is no such thing."""
        if self._transport is None:
            return None
        peer = self._transport.get_extra_info("peername")
        return (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) and len(peer) >= 2 else None

    def send_text(self, message: bytes) -> None:
        """Sends a whole text message, which must be UTF-8, in one frame and one write.

        On a connection that is closing or closed the message is dropped and counted. Once per frame.
        """
        transport = self._transport
        if not self.is_open or transport is None:
            self._too_late()
            return
        transport.write(encode_frame(TEXT, message, _masks.next() if self._is_client else None))
        if self.write_paused:
            self._check_write_buffer(transport)

    def send_texts(self, first: bytes, second: bytes) -> None:
        """Sends two text messages, each in a frame of its own, in one write."""
        transport = self._transport
        if not self.is_open or transport is None:
            self._too_late(2)
            return
        if self._is_client:
            frames = encode_frame(TEXT, first, _masks.next()) + encode_frame(TEXT, second, _masks.next())
        else:
            frames = encode_frame(TEXT, first) + encode_frame(TEXT, second)
        transport.write(frames)
        if self.write_paused:
            self._check_write_buffer(transport)

    def send_binary(self, message: bytes) -> None:
        """Sends a whole binary message, as `send_text` does."""
        transport = self._transport
        if not self.is_open or transport is None:
            self._too_late()
            return
        transport.write(encode_frame(BINARY, message, _masks.next() if self._is_client else None))
        if self.write_paused:
            self._check_write_buffer(transport)

    def ping(self) -> None:
        """Asks the peer for a sign of life: its pong adds to `frames_received`."""
        if self.is_open and not self.write_paused:
            self._protocol.send_ping(b"")
            self._write_out()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Starts the closing handshake; `connection_lost` follows in any case.

        Args:
            code: A close code that may be sent (RFC 6455, section 7.4).
            reason: At most 123 bytes of UTF-8; what is longer is cut off.
        """
        if self.is_open:
            self._protocol.send_close(code, _fitting(reason))
            self._protocol_advanced()

    def abort(self, reason: str = "") -> None:
        """Drops the connection without a closing handshake.

        Args:
            reason: What the receiver is told if no close frame has passed.
        """
        self._abort_reason = self._abort_reason or reason
        self.is_open = False
        self._splitter.fast = False
        self._splitter.discarding = True
        if self._transport is not None:
            self._transport.abort()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the transport."""
        # A cast, because aiofastnet's transports only look like asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Returns where the next read goes."""
        return self._splitter.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Handles every whole frame of what was read."""
        self._splitter.buffer_updated(nbytes)

    def eof_received(self) -> None:
        """Handles the end of what the peer sends; the transport then closes itself."""
        rest = self._splitter.take_rest()
        if rest and not self._splitter.discarding:
            self._protocol.receive_data(rest)
        self._protocol.receive_eof()
        self._protocol_advanced()

    def connection_lost(self, exc: Exception | None) -> None:
        """Frees everything that the connection holds."""
        self.is_open = False
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self._ended(str(exc) if exc else "")
        self._transport = None
        # References in circles would keep all of this until the garbage collector runs, which is rarely.
        self._splitter.discarding = True
        self._splitter.deliver = self._splitter.pass_on = _nowhere
        self._protocol.parser.close()

    def pause_writing(self) -> None:
        """Tells the owner that the peer reads too slowly."""
        self.write_paused = True
        if self._receiver is not None:
            self._receiver.writing_paused()

    def resume_writing(self) -> None:
        """Tells the owner that the peer has caught up."""
        self.write_paused = False
        if self._late_pong and self.is_open and self._transport is not None:
            self._transport.write(self._late_pong)
        self._late_pong = b""
        if self._receiver is not None:
            self._receiver.writing_resumed()

    # For the two roles.

    def _opened(self, receiver: Receiver) -> None:
        """Starts delivery, once the opening handshake is complete."""
        self._receiver = receiver
        self.is_open = True
        self._splitter.fast = True
        self._splitter.deliver = receiver.text_received
        receiver.connection_made(self)

    def _write_out(self) -> None:
        """Writes what the protocol has to send."""
        writes = self._protocol.data_to_send()
        transport = self._transport
        if transport is None or not writes:
            return
        if self.write_paused and self.is_open:
            # Pongs. To a peer that does not read, the latest one says it all (RFC 6455, section 5.5.3).
            self._late_pong = writes[-1]
            return
        for data in writes:
            if data:
                transport.write(data)
            elif transport.can_write_eof():
                # Closing a socket that holds unread bytes resets it, and the peer would not see why.
                transport.write_eof()
            else:
                transport.close()

    def _protocol_advanced(self) -> None:
        """Brings the connection in line with the protocol's state after anything but a data frame."""
        protocol = self._protocol
        splitter = self._splitter
        if protocol.state is State.OPEN:
            splitter.fast = self.is_open and protocol.current_size is None
            self._write_out()
            return
        self.is_open = False
        splitter.fast = False
        self._write_out()
        if self._close_timer is None and self._transport is not None and protocol.close_expected():
            self._close_timer = self._loop.call_later(self._close_timeout, self._close_overdue)
        if protocol.close_rcvd is not None or protocol.parser_exc is not None or protocol.eof_sent:
            splitter.discarding = True
            self._ended("")

    # Inside.

    def _too_late(self, messages: int = 1) -> None:
        self.messages_dropped += messages
        counters.messages_dropped += messages

    def _check_write_buffer(self, transport: asyncio.Transport) -> None:
        if transport.get_write_buffer_size() > self._max_write_buffer:
            counters.write_overflows += 1
            self.abort("the peer does not read")

    def _odd_frame_received(self, frame: bytes) -> None:
        """Passes a frame through the protocol that is not a whole text message in an open connection."""
        if self._max_odd_frames is not None and self._odd_frames_exceeded():
            counters.floods += 1
            self._fail(1008, "too many control frames or fragments")
            return
        self._protocol.receive_data(frame)
        for event in self._protocol.events_received():
            if self.is_open and isinstance(event, Frame):
                self._data_received(event)
        self._protocol_advanced()

    def _odd_frames_exceeded(self) -> bool:
        now = self._loop.time()
        if now - self._odd_frames_since >= 1.0:
            self._odd_frames_since = now
            self._odd_frames = 0
        self._odd_frames += 1
        return self._max_odd_frames is not None and self._odd_frames > self._max_odd_frames

    def _data_received(self, frame: Frame) -> None:
        """Puts a message together and delivers it when it is whole."""
        if frame.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT} or self._receiver is None:
            return
        if frame.opcode is Opcode.TEXT:
            self._decoder = codecs.getincrementaldecoder("utf-8")()
        if self._decoder is not None:
            try:
                self._decoder.decode(frame.data, final=frame.fin)
            except UnicodeDecodeError as error:
                self._fail(1007, f"invalid UTF-8: {error.reason}")
                return
        self._fragments.append(bytes(frame.data))
        if not frame.fin:
            return
        message = b"".join(self._fragments)
        is_text = self._decoder is not None
        self._fragments.clear()
        self._decoder = None
        if is_text:
            self._receiver.text_received(message)
        else:
            self._receiver.binary_received(message)

    def _fail(self, code: int, reason: str) -> None:
        """Ends the connection because of what the peer did."""
        self._protocol.fail(code, reason)
        self._splitter.discarding = True
        self._protocol_advanced()
        self._ended("")

    def _close_overdue(self) -> None:
        self._close_timer = None
        counters.close_timeouts += 1
        self.abort("the closing handshake timed out")

    def _ended(self, reason: str) -> None:
        """Tells the owner, once."""
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        self._fragments.clear()
        protocol = self._protocol
        close: Close | None = protocol.close_sent
        if protocol.close_rcvd is not None and (close is None or protocol.close_rcvd_then_sent):
            close = protocol.close_rcvd
        if close is None:
            close = Close(ABNORMAL_CLOSURE, self._abort_reason or reason)
        receiver.connection_lost(int(close.code), close.reason)


def _nowhere(_: bytes) -> None:
    """Takes what comes after the end."""


def _fitting(reason: str) -> str:
    """Cuts a close reason to what a control frame holds, at a character's end."""
    return reason.encode()[:_MAX_REASON].decode(errors="ignore")
