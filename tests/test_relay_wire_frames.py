"""The frame splitter and the frame writer, without sockets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.speedups import apply_mask

from handlehome.relay.wire.frames import BINARY, TEXT, FrameSplitter, MaskSource, encode_frame

MAX_MESSAGE = 1 << 16
IDLE = 64


class Sink:
    """A splitter with what came out of it."""

    def __init__(self, *, masked: bool = False, max_message: int = MAX_MESSAGE, fast: bool = True) -> None:
        self.delivered: list[bytes] = []
        self.passed_on: list[bytes] = []
        self.splitter = FrameSplitter(
            masked=masked,
            max_message=max_message,
            idle_size=IDLE,
            deliver=self.delivered.append,
            pass_on=self.passed_on.append,
        )
        self.splitter.fast = fast


def frame(payload: bytes, opcode: Opcode = Opcode.TEXT, *, mask: bool = False, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=mask)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536])
def test_a_server_frame_is_what_the_library_writes(length: int) -> None:
    payload = b"x" * length
    assert encode_frame(TEXT, payload) == frame(payload)
    assert encode_frame(BINARY, payload) == frame(payload, Opcode.BINARY)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536])
def test_a_client_frame_carries_its_mask(length: int) -> None:
    payload = b"x" * length
    mask = b"\x01\x02\x03\x04"
    encoded = encode_frame(TEXT, payload, mask)
    header = len(encoded) - length - 4
    assert encoded[1] & 0x80
    assert encoded[header : header + 4] == mask
    assert apply_mask(encoded[header + 4 :], mask) == payload


def test_masks_are_four_bytes_and_differ_across_pages() -> None:
    source = MaskSource()
    masks = [source.next() for _ in range(3000)]
    assert {len(mask) for mask in masks} == {4}
    # 3000 random values of 32 bits: a single pair is equal once in a thousand runs, five never.
    assert len(set(masks)) > 2995


@pytest.mark.parametrize("masked", [False, True])
def test_whole_text_frames_of_one_read_are_all_delivered(masked: bool) -> None:
    sink = Sink(masked=masked)
    messages = [b"", b"a", "é€😀".encode(), b"x" * 125, b"y" * 126, b"z" * MAX_MESSAGE]
    sink.splitter.feed(b"".join(frame(message, mask=masked) for message in messages))
    assert sink.delivered == messages
    assert sink.passed_on == []
    assert sink.splitter.frames == len(messages)


@pytest.mark.parametrize(
    "odd",
    [
        frame(b"x", Opcode.BINARY),
        frame(b"", Opcode.PING),
        frame(b"", Opcode.PONG),
        frame(b"\x03\xe8", Opcode.CLOSE),
        frame(b"x", fin=False),
        frame(b"x", Opcode.CONT),
        frame(b"x", mask=True),
        frame(b"\xff"),
        bytes((TEXT | 0x40, 0)),
        bytes((0x83, 0)),
    ],
    ids=["binary", "ping", "pong", "close", "start", "continued", "masked", "no_utf8", "rsv", "unknown"],
)
def test_every_other_frame_is_passed_on_as_it_came(odd: bytes) -> None:
    sink = Sink()
    sink.splitter.feed(frame(b"before") + odd + frame(b"after"))
    assert sink.delivered == [b"before", b"after"]
    assert sink.passed_on == [odd]


def test_an_unmasked_frame_is_passed_on_where_masks_are_due() -> None:
    sink = Sink(masked=True)
    sink.splitter.feed(frame(b"x"))
    assert sink.passed_on == [frame(b"x")]


def test_text_is_passed_on_while_the_short_way_is_closed() -> None:
    sink = Sink(fast=False)
    sink.splitter.feed(frame(b"x"))
    assert (sink.delivered, sink.passed_on) == ([], [frame(b"x")])


def test_nothing_comes_out_after_a_handler_has_ended_the_stream() -> None:
    sink = Sink()

    def stop(message: bytes) -> None:
        sink.delivered.append(message)
        sink.splitter.discarding = True

    sink.splitter.deliver = stop
    sink.splitter.feed(frame(b"first") + frame(b"second"))
    sink.splitter.feed(frame(b"third"))
    assert (sink.delivered, sink.passed_on) == ([b"first"], [])
    assert sink.splitter.take_rest() == b""


@pytest.mark.parametrize("length", [MAX_MESSAGE + 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_an_announced_giant_is_passed_on_by_its_header_alone(length: int) -> None:
    """A length above the bound takes no memory."""
    sink = Sink()
    header = bytes((TEXT, 127)) + length.to_bytes(8, "big")
    sink.splitter.feed(header)
    assert sink.passed_on == [header]
    assert sink.splitter.capacity == IDLE


def test_the_buffer_grows_with_what_arrives_and_shrinks_again() -> None:
    sink = Sink()
    large = frame(b"x" * 60000)
    sink.splitter.feed(large[:14])
    assert sink.splitter.capacity == IDLE
    sizes = []
    for position in range(14, len(large), 50):
        sink.splitter.feed(large[position : position + 50])
        sizes.append(sink.splitter.capacity)
        assert sizes[-1] <= max(IDLE, 4 * (position + 50))
    assert max(sizes) == len(large)
    assert sink.delivered == [b"x" * 60000]
    assert sink.splitter.capacity == IDLE


def test_the_buffer_shrinks_although_frames_never_end_with_a_read() -> None:
    sink = Sink()
    small = frame(b"y" * 20)
    stream = frame(b"x" * 60000) + small * 10
    sink.splitter.feed(stream[:-5])
    assert sink.splitter.capacity == IDLE
    sink.splitter.feed(stream[-5:])
    assert len(sink.delivered) == 11


def test_the_free_part_of_the_buffer_is_never_empty() -> None:
    """An empty buffer would make uvloop close the transport."""
    sink = Sink()
    for size in range(1, 300):
        for byte in frame(b"x" * size):
            free = sink.splitter.get_buffer()
            assert len(free) > 0
            free[0] = byte
            sink.splitter.buffer_updated(1)
    assert len(sink.delivered) == 299


def test_a_read_can_be_taken_out_unsplit() -> None:
    sink = Sink()
    free = sink.splitter.get_buffer()
    free[:3] = b"abc"
    assert sink.splitter.take(3) == b"abc"
    assert sink.splitter.take_rest() == b""


def test_the_incomplete_frame_at_the_end_can_be_taken_out() -> None:
    sink = Sink()
    sink.splitter.feed(frame(b"whole") + frame(b"half")[:3])
    assert sink.splitter.take_rest() == frame(b"half")[:3]
    assert sink.splitter.take_rest() == b""


def test_a_buffer_too_small_for_a_header_is_refused() -> None:
    with pytest.raises(ValueError, match="frame header"):
        FrameSplitter(masked=True, max_message=1, idle_size=13, deliver=print, pass_on=print)


@given(
    messages=st.lists(st.text(max_size=300)),
    cuts=st.lists(st.integers(1, 400), min_size=1),
    masked=st.booleans(),
)
def test_messages_survive_any_chunking(messages: list[str], cuts: list[int], masked: bool) -> None:
    sink = Sink(masked=masked)
    stream = b"".join(frame(message.encode(), mask=masked) for message in messages)
    position = 0
    while position < len(stream):
        for cut in cuts:
            sink.splitter.feed(stream[position : position + cut])
            position += cut
    assert sink.delivered == [message.encode() for message in messages]
    assert sink.splitter.frames == len(messages)
