"""WebSocket framing (RFC 6455, section 5.2) without sockets or clocks.

`FrameSplitter` cuts the incoming byte stream into frames by their headers. A frame of the common kind, one
whole text message in one final, correctly masked frame, is unmasked, checked and delivered straight away.
Every other frame is passed on as the bytes it came in, for the websockets library's own state machine to
judge. The splitter keeps no protocol state: whoever owns it says whether the short way is open (`fast`) and
whether the stream has ended (`discarding`).
"""

import os
from collections.abc import Callable

from websockets.speedups import apply_mask

TEXT = 0x81
"""First byte of a final text frame without extension bits."""

BINARY = 0x82
"""First byte of a final binary frame without extension bits."""

_MASKED = 0x80
_LENGTH_16 = 126
_LENGTH_64 = 127
_GROWTH = 4


def _header(first: int, masked: int, length: int) -> bytes:
    if length < _LENGTH_16:
        return bytes((first, masked | length))
    if length < 1 << 16:
        return bytes((first, masked | _LENGTH_16, length >> 8, length & 0xFF))
    return bytes((first, masked | _LENGTH_64)) + length.to_bytes(8, "big")


# Nearly every frame is a text frame of a few hundred bytes: looking its header up is half of making it.
_CACHED = 1024
_TEXT_HEADERS = tuple(_header(TEXT, 0, length) for length in range(_CACHED))
_MASKED_TEXT_HEADERS = tuple(_header(TEXT, _MASKED, length) for length in range(_CACHED))


def encode_frame(first: int, payload: bytes, mask: bytes | None = None) -> bytes:
    """Serialises one unfragmented data frame.

    Args:
        first: `TEXT` or `BINARY`.
        payload: The whole message; UTF-8 for text, which is not checked here.
        mask: Four unpredictable bytes for a client's frame, None for a server's.
    """
    length = len(payload)
    if mask is None:
        if length < _CACHED and first == TEXT:
            return _TEXT_HEADERS[length] + payload
        return _header(first, 0, length) + payload
    if length < _CACHED and first == TEXT:
        return _MASKED_TEXT_HEADERS[length] + mask + apply_mask(payload, mask)
    return _header(first, _MASKED, length) + mask + apply_mask(payload, mask)


class MaskSource:
    """Masking keys from the operating system's generator, fetched a page at a time.

    RFC 6455 (section 10.3) wants keys that a peer can't predict; one system call per frame would cost as
    much as the rest of writing it.
    """

    __slots__ = ("_keys", "_position")

    _PAGE = 4096

    def __init__(self) -> None:
        self._keys = b""
        self._position = 0

    def next(self) -> bytes:
        """Returns four bytes that were never returned before."""
        position = self._position
        if position >= len(self._keys):
            self._keys = os.urandom(self._PAGE)
            position = 0
        self._position = position + 4
        return self._keys[position : position + 4]


class FrameSplitter:
    """Owns a connection's receive buffer and splits what is read into it.

    The buffer is reused for every read. It grows with the bytes that really arrived, not with what a header
    announces, and shrinks to `idle_size` as soon as the large frame is through. Buffers are exchanged, never
    resized: the event loop still holds the old one's memory while it reports a read.

    Attributes:
        fast: Whether text frames may be delivered straight away: the connection is open, and no fragmented
            message and no closing handshake is under way. Set by the owner.
        discarding: Whether everything from here on is to be thrown away. Set by the owner.
        frames: How many whole frames have been split off, control frames and fragments included.
        deliver: Takes one whole text message, valid UTF-8.
        pass_on: Takes every other frame, whole; of a frame larger than `max_message`, the header alone,
            after which the owner must have set `discarding`.
    """

    __slots__ = (
        "_buffer",
        "_filled",
        "_idle_size",
        "_mask_bit",
        "_max_message",
        "_medium_head",
        "_medium_second",
        "_view",
        "deliver",
        "discarding",
        "fast",
        "frames",
        "pass_on",
    )

    def __init__(
        self,
        *,
        masked: bool,
        max_message: int,
        idle_size: int,
        deliver: Callable[[bytes], None],
        pass_on: Callable[[bytes], None],
    ) -> None:
        """Creates a splitter that passes everything on until its owner sets `fast`.

        Args:
            masked: Whether the peer must mask its frames: True for the server's side.
            max_message: Largest message in bytes.
            idle_size: Bytes of buffer that an idle connection holds; at least a frame header's 14.
            deliver: See the class.
            pass_on: See the class.
        """
        if idle_size < 14:
            raise ValueError(f"a buffer of {idle_size} bytes does not hold a frame header")
        self._mask_bit = _MASKED if masked else 0
        # Header of a message of 126 to 65,535 bytes: its second byte, and its size.
        self._medium_second = self._mask_bit | _LENGTH_16
        self._medium_head = 8 if masked else 4
        self._max_message = max_message
        self._idle_size = idle_size
        self._buffer = bytearray(idle_size)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self.deliver = deliver
        self.pass_on = pass_on
        self.fast = False
        self.discarding = False
        self.frames = 0

    @property
    def capacity(self) -> int:
        """The receive buffer's present size in bytes."""
        return len(self._buffer)

    def get_buffer(self, _sizehint: int = -1) -> memoryview:
        """Returns the free part of the buffer, for the next read; it is never empty."""
        return self._view[self._filled :] if self._filled else self._view

    def feed(self, data: bytes) -> None:
        """Takes bytes that were read by somebody else, as if they had been read into the buffer."""
        position = 0
        while position < len(data):
            free = self.get_buffer()
            count = min(len(free), len(data) - position)
            free[:count] = data[position : position + count]
            self.buffer_updated(count)
            position += count

    def take(self, count: int) -> bytes:
        """Takes the last read's `count` bytes out of the buffer again, unsplit."""
        return bytes(self._view[self._filled : self._filled + count])

    def take_rest(self) -> bytes:
        """Takes out the incomplete frame at the stream's end."""
        rest = bytes(self._view[: self._filled])
        self._settle(0, 0, 0)
        return rest

    def buffer_updated(self, count: int) -> None:  # noqa: PLR0912 - a call would cost what it does
        """Splits and hands out every frame that is whole after a read of `count` bytes."""
        buffer = self._buffer
        head = self._medium_head
        if (
            self.fast
            and not self._filled
            and count > head
            and buffer[0] == TEXT
            and buffer[1] == self._medium_second
            and (buffer[2] << 8) + buffer[3] + head == count
            and count - head <= self._max_message
        ):
            # Nearly always: one whole text message of a few hundred bytes, and nothing else.
            data = buffer[head:count]
            message = apply_mask(data, buffer[4:8]) if self._mask_bit else bytes(data)
            if message.isascii() or _is_utf8(message):
                self.frames += 1
                self.deliver(message)
                return
        end = self._filled + count
        start = 0
        needed = 0  # size of the frame at `start`; 0 while its header is incomplete
        while not self.discarding:
            available = end - start
            if available < 2:
                break
            second = buffer[start + 1]
            length = second & 0x7F
            payload = start + 2
            if length >= _LENGTH_16:
                payload += 2 if length == _LENGTH_16 else 8
                if end < payload:
                    break
                length = int.from_bytes(buffer[start + 2 : payload], "big")
            if length > self._max_message:
                self.pass_on(bytes(buffer[start:payload]))
                break
            if second & _MASKED:
                payload += 4
            stop = payload + length
            if end < stop:
                needed = stop - start
                break
            self.frames += 1
            if self.fast and buffer[start] == TEXT and second & _MASKED == self._mask_bit:
                # A slice of the bytearray, copied, is cheaper to unmask than a view at this size.
                data = buffer[payload:stop]
                message = apply_mask(data, buffer[payload - 4 : payload]) if self._mask_bit else bytes(data)
                if message.isascii() or _is_utf8(message):
                    self.deliver(message)
                    start = stop
                    continue
            self.pass_on(bytes(buffer[start:stop]))
            start = stop
        if self.discarding:
            start = end
            needed = 0
        if start == end and len(buffer) == self._idle_size:
            self._filled = 0
        else:
            self._settle(start, end, needed)

    def _settle(self, start: int, end: int, needed: int) -> None:
        """Moves the incomplete frame to the front, of a larger or smaller buffer where it should be one."""
        rest = end - start
        capacity = len(self._buffer)
        size = capacity
        if needed <= self._idle_size:
            size = self._idle_size
        elif needed > capacity:
            size = max(capacity, min(needed, _GROWTH * rest))
        if size != capacity:
            buffer = bytearray(size)
            buffer[:rest] = self._view[start:end]
            self._buffer = buffer
            self._view = memoryview(buffer)
        elif start:
            self._buffer[:rest] = self._buffer[start:end]
        self._filled = rest


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True
