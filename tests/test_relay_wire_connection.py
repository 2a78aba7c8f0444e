"""What both WebSocket roles share, driven through a transport in memory."""

import asyncio
import codecs
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from handlehome.relay.wire.connection import Connection, Receiver, counters

MAX_MESSAGE = 300
IDLE = 64


class MemoryTransport(asyncio.Transport):
    """Keeps what is written, and how the connection treats the transport."""

    def __init__(self, *, half_close: bool = True) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.calls: list[str] = []
        self.waiting = 0
        self._half_close = half_close

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.calls
        self.writes.append(bytes(data))

    def can_write_eof(self) -> bool:
        return self._half_close

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 4711) if name == "peername" else default


class Recorder:
    """Keeps what a receiver is told, as tuples; `on_text` may do more."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []
        self.on_text: Callable[[bytes], None] = lambda message: None

    def connection_made(self, connection: Connection) -> None:
        self.connection = connection
        self.events.append(("made",))

    def text_received(self, message: bytes) -> None:
        assert type(message) is bytes
        self.events.append(("text", message))
        self.on_text(message)

    def binary_received(self, message: bytes) -> None:
        assert type(message) is bytes
        self.events.append(("binary", message))

    def connection_lost(self, code: int, reason: str) -> None:
        self.events.append(("lost", code, reason))

    def writing_paused(self) -> None:
        self.events.append(("paused",))

    def writing_resumed(self) -> None:
        self.events.append(("resumed",))


class Opened(Connection):
    """A connection of either role whose opening handshake is over."""

    def __init__(self, side: Side, receiver: Receiver, transport: MemoryTransport, **options: Any) -> None:
        super().__init__(
            open_protocol(side),
            max_message=MAX_MESSAGE,
            idle_buffer=IDLE,
            **({"close_timeout": 60} | options),
        )
        self.connection_made(transport)
        self._opened(receiver)

    def read(self, data: bytes) -> None:
        """Reads as a transport does."""
        while data:
            free = self.get_buffer(-1)
            count = min(len(free), len(data))
            free[:count] = data[:count]
            self.buffer_updated(count)
            data = data[count:]


def open_protocol(side: Side) -> ServerProtocol | ClientProtocol:
    if side is Side.SERVER:
        return ServerProtocol(state=State.OPEN, max_size=MAX_MESSAGE)
    return ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=MAX_MESSAGE)


def setup(
    side: Side = Side.SERVER, *, half_close: bool = True, **options: Any
) -> tuple[Opened, Recorder, MemoryTransport]:
    recorder, transport = Recorder(), MemoryTransport(half_close=half_close)
    return Opened(side, recorder, transport, **options), recorder, transport


def sent(side: Side, writes: list[bytes]) -> list[Frame]:
    """Parses what `side` wrote, as its peer would."""
    peer = Protocol(Side.CLIENT if side is Side.SERVER else Side.SERVER, state=State.OPEN, max_size=None)
    peer.receive_data(b"".join(writes))
    assert peer.parser_exc is None
    return [event for event in peer.events_received() if isinstance(event, Frame)]


def masked(payload: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    """A frame as a client sends it."""
    return Frame(opcode, payload, fin).serialize(mask=True)


@pytest.mark.parametrize("side", [Side.SERVER, Side.CLIENT])
@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
async def test_a_message_is_one_frame_in_one_write(side: Side, length: int) -> None:
    connection, _, transport = setup(side)
    connection.send_text(b"x" * length)
    connection.send_binary(b"\xff")
    assert len(transport.writes) == 2
    assert sent(side, transport.writes) == [
        Frame(Opcode.TEXT, b"x" * length),
        Frame(Opcode.BINARY, b"\xff"),
    ]


async def test_the_remote_address_is_the_transports() -> None:
    connection, _, _ = setup()
    assert connection.remote_address == ("192.0.2.1", 4711)
    connection.connection_lost(None)
    assert connection.remote_address is None


async def test_frames_of_every_kind_count_as_signs_of_life() -> None:
    connection, _, _ = setup()
    connection.read(masked(b"x") + masked(b"", Opcode.PONG) + masked(b"", Opcode.PING) + masked(b"x")[:4])
    assert connection.frames_received == 3


async def test_a_ping_is_answered_and_ours_is_sent() -> None:
    connection, recorder, transport = setup()
    connection.read(masked(b"hello", Opcode.PING))
    connection.ping()
    assert sent(Side.SERVER, transport.writes) == [Frame(Opcode.PONG, b"hello"), Frame(Opcode.PING, b"")]
    assert recorder.events == [("made",)]


async def test_closing_tells_the_receiver_when_the_peer_has_answered() -> None:
    connection, recorder, transport = setup()
    connection.close(4001, "goodbye")
    assert not connection.is_open
    assert recorder.events == [("made",)]
    connection.read(masked(b"late") + masked(b"\x0f\xa1", Opcode.CLOSE) + masked(b"later"))
    assert recorder.events == [("made",), ("lost", 4001, "goodbye")]
    assert transport.calls == ["write_eof"]
    connection.connection_lost(None)
    assert len(recorder.events) == 2


async def test_a_peer_that_closes_first_names_the_code() -> None:
    connection, recorder, transport = setup()
    connection.read(masked(b"\x03\xe9bye", Opcode.CLOSE))
    assert recorder.events[1:] == [("lost", 1001, "bye")]
    assert sent(Side.SERVER, transport.writes) == [Frame(Opcode.CLOSE, b"\x03\xe9bye")]
    connection.close()
    connection.connection_lost(None)
    assert len(recorder.events) == 2


async def test_a_close_frame_without_a_code_is_1005() -> None:
    connection, recorder, _ = setup()
    connection.read(masked(b"", Opcode.CLOSE))
    assert recorder.events[1:] == [("lost", 1005, "")]


async def test_a_lost_transport_without_a_close_frame_is_1006() -> None:
    connection, recorder, _ = setup()
    connection.connection_lost(ConnectionResetError("reset by peer"))
    assert recorder.events[1:] == [("lost", 1006, "reset by peer")]
    assert not connection.is_open


async def test_the_end_of_the_stream_without_a_close_frame_is_1006() -> None:
    connection, recorder, transport = setup()
    connection.eof_received()
    assert recorder.events[1:] == [("lost", 1006, "")]
    assert transport.calls == ["write_eof"]


async def test_a_transport_that_cannot_half_close_is_closed() -> None:
    connection, _, transport = setup(half_close=False)
    connection.read(masked(b"\x03\xe8", Opcode.CLOSE))
    assert transport.calls == ["close"]


async def test_a_closing_handshake_that_takes_too_long_is_aborted() -> None:
    before = counters.close_timeouts
    connection, recorder, transport = setup(close_timeout=0)
    aborted = asyncio.Event()
    transport.abort = aborted.set  # type: ignore[method-assign]  # to wait for it
    connection.close(1001, "leaving")
    await asyncio.wait_for(aborted.wait(), 5)
    connection.connection_lost(None)
    assert recorder.events[1:] == [("lost", 1001, "leaving")]
    assert counters.close_timeouts == before + 1


async def test_an_aborted_connection_says_why_and_delivers_nothing_more() -> None:
    connection, recorder, transport = setup()
    recorder.on_text = lambda message: connection.abort("no token")
    connection.read(masked(b"first") + masked(b"second"))
    connection.connection_lost(None)
    assert transport.calls == ["abort"]
    assert recorder.events == [("made",), ("text", b"first"), ("lost", 1006, "no token")]


async def test_what_follows_in_the_same_read_is_not_delivered_after_a_close() -> None:
    connection, recorder, _ = setup()
    recorder.on_text = lambda message: connection.close(4000, "enough")
    connection.read(masked(b"first") + masked(b"second") + masked(b"\x0f\xa0", Opcode.CLOSE))
    assert recorder.events[1:] == [("text", b"first"), ("lost", 4000, "enough")]


async def test_messages_to_a_closing_connection_are_dropped_and_counted() -> None:
    before = counters.messages_dropped
    connection, _, transport = setup()
    connection.close()
    connection.send_text(b"late")
    connection.ping()
    connection.connection_lost(None)
    connection.send_binary(b"later")
    assert connection.messages_dropped == 2
    assert counters.messages_dropped == before + 2
    assert [event.opcode for event in sent(Side.SERVER, transport.writes)] == [Opcode.CLOSE]


async def test_a_long_reason_is_cut_at_a_characters_end() -> None:
    connection, _, transport = setup()
    connection.close(4000, "é" * 100)
    (close,) = sent(Side.SERVER, transport.writes)
    assert bytes(close.data) == b"\x0f\xa0" + ("é" * 61).encode()


async def test_a_message_above_the_bound_is_1009() -> None:
    connection, recorder, transport = setup()
    connection.read(masked(b"x" * (MAX_MESSAGE + 1)))
    assert recorder.events[1:] == [("lost", 1009, "frame with 301 bytes exceeds limit of 300 bytes")]
    assert transport.calls == ["write_eof"]


async def test_fragments_above_the_bound_are_1009() -> None:
    connection, recorder, _ = setup()
    connection.read(masked(b"x" * 200, fin=False) + masked(b"x" * 101, Opcode.CONT))
    assert [event[:2] for event in recorder.events[1:]] == [("lost", 1009)]


async def test_a_whole_message_amid_the_fragments_of_another_is_1002() -> None:
    connection, recorder, _ = setup()
    connection.read(masked(b"x", fin=False) + masked(b"whole"))
    assert recorder.events[1:] == [("lost", 1002, "expected a continuation frame")]


async def test_the_short_way_is_open_again_after_a_fragmented_message() -> None:
    connection, recorder, _ = setup()
    connection.read(masked(b"a", fin=False) + masked(b"b", Opcode.CONT) + masked(b"c"))
    assert recorder.events[1:] == [("text", b"ab"), ("text", b"c")]
    assert connection._splitter.fast


async def test_invalid_utf8_is_1007_at_the_first_fragment_that_shows_it() -> None:
    connection, recorder, _ = setup()
    connection.read(masked(b"\xc3", fin=False) + masked(b"\x28", Opcode.CONT, fin=False))
    assert recorder.events[1:] == [("lost", 1007, "invalid UTF-8: invalid continuation byte")]


async def test_a_flood_of_control_frames_ends_the_connection() -> None:
    before = counters.floods
    connection, recorder, transport = setup(max_odd_frames=20)
    connection.read(masked(b"", Opcode.PING) * 25)
    assert recorder.events[1:] == [("lost", 1008, "too many control frames or fragments")]
    assert len(sent(Side.SERVER, transport.writes)) == 21
    assert counters.floods == before + 1


async def test_text_messages_are_no_flood() -> None:
    connection, recorder, _ = setup(max_odd_frames=20)
    connection.read(masked(b"x") * 100)
    assert len(recorder.events) == 101


async def test_a_peer_that_does_not_read_gets_the_latest_pong_only() -> None:
    """However many pings come, nothing piles up."""
    connection, recorder, transport = setup()
    connection.pause_writing()
    for number in range(1000):
        connection.read(masked(str(number).encode(), Opcode.PING))
    assert transport.writes == []
    connection.resume_writing()
    assert sent(Side.SERVER, transport.writes) == [Frame(Opcode.PONG, b"999")]
    assert recorder.events[1:] == [("paused",), ("resumed",)]


async def test_a_peer_that_never_reads_is_dropped_at_the_bound() -> None:
    before = counters.write_overflows
    connection, recorder, transport = setup(max_write_buffer=1000)
    connection.pause_writing()
    assert connection.write_paused
    transport.waiting = 1000
    connection.send_text(b"x")
    assert transport.calls == []
    transport.waiting = 1001
    connection.send_text(b"x")
    assert transport.calls == ["abort"]
    connection.connection_lost(None)
    assert recorder.events[2:] == [("lost", 1006, "the peer does not read")]
    assert counters.write_overflows == before + 1


async def test_a_lost_connection_is_freed_without_the_garbage_collector() -> None:
    """The daemon freezes the collector, so circles of references would stay."""
    connection, recorder, transport = setup()
    connection.read(masked(b"x") + masked(b"\x03\xe8", Opcode.CLOSE))
    connection.connection_lost(None)
    reference = weakref.ref(connection)
    protocol = weakref.ref(connection._protocol)
    recorder.events.clear()
    del recorder.connection
    gc.disable()
    try:
        del connection, transport
        assert reference() is None
        assert protocol() is None
    finally:
        gc.enable()


# The property: whatever a peer sends, the outcome is the one of the library's own parser.

Piece = tuple[int, Opcode | int, bytes, bool]
"""First byte's upper bits, opcode, payload, whether its masking is right."""


@st.composite
def pieces(draw: st.DrawFn) -> list[Piece]:
    """One message, whole or in fragments with control frames between them, or something worse."""
    kinds = ["text", "text", "text", "binary", "control", "close", "unfinished", "broken", "invalid"]
    kind = draw(st.sampled_from(kinds))
    if kind == "unfinished":
        return [(0x00, draw(st.sampled_from([1, 2])), draw(st.sampled_from([b"", b"x", b"\xc3"])), True)]
    if kind == "control":
        return [(0x80, draw(st.sampled_from([9, 10])), draw(st.binary(max_size=130)), True)]
    if kind == "close":
        code = draw(st.sampled_from([b"", b"\x03", b"\x03\xe8", b"\x03\xe9", b"\x0f\xa0", b"\x03\xed"]))
        return [(0x80, 8, code + draw(st.sampled_from([b"", b"bye", b"\xff"])), True)]
    if kind == "broken":
        upper = draw(st.sampled_from([0x00, 0x80, 0x90, 0xA0, 0xC0]))
        return [(upper, draw(st.integers(0, 15)), draw(st.binary(max_size=130)), draw(st.booleans()))]
    payload = draw(st.binary(max_size=320) if kind != "text" else st.text(max_size=160).map(str.encode))
    opcode = 2 if kind == "binary" else 1
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
    parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    result: list[Piece] = []
    for index, part in enumerate(parts):
        upper = 0x80 if index == len(parts) - 1 else 0
        result.append((upper, opcode if index == 0 else 0, part, True))
        if not upper and draw(st.booleans()):
            result.append((0x80, 9, b"between", True))
    return result


def serialised(piece: Piece, side: Side) -> bytes:
    """The frame as the peer of `side` sends it, which may well be wrong."""
    upper, opcode, payload, right = piece
    is_masked = (side is Side.SERVER) == right
    encoded = bytearray(Frame(Opcode.BINARY, payload).serialize(mask=is_masked))
    encoded[0] = upper | opcode
    return bytes(encoded)


def reference(side: Side, frames: list[bytes]) -> tuple[list[tuple[object, ...]], list[Frame], Protocol]:
    """What the library delivers and answers, frame by frame."""
    protocol = open_protocol(side)
    delivered: list[tuple[object, ...]] = []
    writes: list[bytes] = []
    parts: list[bytes] = []
    decoder: codecs.IncrementalDecoder | None = None
    for data in frames:
        protocol.receive_data(data)
        for event in protocol.events_received():
            if not isinstance(event, Frame) or event.opcode >= Opcode.CLOSE:
                continue
            if event.opcode is not Opcode.CONT:
                parts = []
                decoder = codecs.getincrementaldecoder("utf-8")() if event.opcode is Opcode.TEXT else None
            parts.append(bytes(event.data))
            try:
                if decoder is not None:
                    decoder.decode(event.data, event.fin)
            except UnicodeDecodeError as error:
                protocol.fail(1007, f"invalid UTF-8: {error.reason}")
                break
            if event.fin:
                delivered.append(("binary" if decoder is None else "text", b"".join(parts)))
        writes += protocol.data_to_send()
        if protocol.close_rcvd or protocol.close_sent:
            break
    protocol.receive_eof()
    writes += protocol.data_to_send()
    return delivered, sent(side, writes), protocol


@pytest.mark.parametrize("side", [Side.SERVER, Side.CLIENT])
async def test_any_stream_has_the_outcome_of_the_librarys_own_parser(side: Side) -> None:
    @settings(max_examples=300, deadline=None)
    @given(
        messages=st.lists(pieces(), max_size=8),
        cuts=st.lists(st.one_of(st.integers(1, 5), st.integers(1, 500)), min_size=1, max_size=10),
        missing=st.integers(0, 3),
    )
    def check(messages: list[list[Piece]], cuts: list[int], missing: int) -> None:
        frames = [serialised(piece, side) for message in messages for piece in message]
        if frames and missing:
            frames[-1] = frames[-1][:-missing]
        delivered, answers, protocol = reference(side, frames)
        connection, recorder, transport = setup(side)
        stream = b"".join(frames)
        position = index = 0
        while position < len(stream):
            cut = cuts[index % len(cuts)]
            connection.read(stream[position : position + cut])
            position += cut
            index += 1
        connection.eof_received()
        connection.connection_lost(None)
        assert [event for event in recorder.events if event[0] in ("text", "binary")] == delivered
        assert sent(side, transport.writes) == answers
        assert connection._protocol.close_sent == protocol.close_sent
        assert connection._protocol.close_rcvd == protocol.close_rcvd
        ends = [event for event in recorder.events if event[0] == "lost"]
        expected = protocol.close_rcvd or protocol.close_sent
        assert [end[1] for end in ends] == [expected.code if expected else 1006]

    check()
