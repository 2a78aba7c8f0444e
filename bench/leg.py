"""One media stream of a simulated call: what Twilio sends, the line's delay and the playback buffer.

Everything is pushed: no task runs per stream, and audio goes out by absolute deadlines, so that a late tick
catches up. All times are seconds of `time.monotonic()`, which on Linux is the same clock in every process.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from websockets.frames import Close

from handlehome.bench import media
from handlehome.bench.network import LineDelay, Pipe, call_after
from handlehome.bench.playback import BYTES_PER_SECOND, Echo, Playback
from handlehome.bench.websocket import StreamSocket

MAX_LOG = 10_000
"""Entries that a log of messages keeps."""

FrameSource = Callable[[int, int], bytes]
"""Called with a frame's number in its stream (from 0) and its size; returns that much mu-law."""

NO_DELAY = LineDelay()


class Received(NamedTuple):
    """A message of the relay."""

    at: float
    """When it came off the socket."""
    event: str
    """`media`, `mark`, `clear`, `invalid` or `close`."""
    detail: str | int
    """The payload's size in bytes, the mark's name, or the reason."""


class ClearEffect(NamedTuple):
    """A `clear` and what it did."""

    t_received: float
    t_effective: float
    """When it reached the line, after the delay."""
    played_bytes: int
    dropped_bytes: int


class Violation(NamedTuple):
    """A message that Twilio would have warned of, and dropped."""

    code: int
    """31950 or 31951."""
    reason: str
    message: bytes
    """Its first 200 bytes."""


class Leg:
    """One media stream.

    Args:
        messages: Composes what is sent.
        next_frame: The caller's audio.
        delay: The line's delay.
        seed: Of the delay.
        frame_bytes: Size of an inbound payload; Twilio's is 160, 20 ms.
        keep_audio: Keep what was sent and what was played.
        changed: Set whenever a message has taken effect, and at the stream's end.

    Attributes:
        playback: The truth about what the caller heard.
        began: When `start` was sent and the first frame began; 0.0 before.
        ended: When the stream ended; 0.0 before.
        sent_ulaw: The caller's audio, every byte that was put into the line.
        sent_at: When each frame was written to the socket.
        received: The last 10,000 messages of the relay.
        echoes: The last 10,000 marks, as playback reached them.
        unplayed_bytes: What was still queued when the stream ended.
        close_code: Of the relay's close frame; None without one.
        gone: Set when the connection is closed and everything that arrived has taken effect.
    """

    def __init__(
        self,
        messages: media.StreamMessages,
        next_frame: FrameSource,
        *,
        delay: LineDelay = NO_DELAY,
        seed: int | str = 0,
        frame_bytes: int = 160,
        keep_audio: bool = True,
        changed: asyncio.Event | None = None,
    ) -> None:
        self.stream_sid = messages.stream_sid
        self.playback = Playback(time.monotonic(), keep_audio=keep_audio)
        self.began = 0.0
        self.ended = 0.0
        self.sent_ulaw = bytearray()
        self.sent_at = array("d")
        self.received: deque[Received] = deque(maxlen=MAX_LOG)
        self.echoes: deque[Echo] = deque(maxlen=MAX_LOG)
        self.clears: list[ClearEffect] = []
        self.violations: list[Violation] = []
        self.unplayed_bytes = 0
        self.close_code: int | None = None
        self.close_reason = ""
        self.gone = asyncio.Event()
        self._changed = changed or asyncio.Event()
        self._messages = messages
        self._next_frame = next_frame
        self._up = Pipe(delay.up_ms, random.Random(f"{seed} up"))
        self._down = Pipe(delay.down_ms, random.Random(f"{seed} down"))
        self._socket = StreamSocket(self)
        self._frame_bytes = frame_bytes
        self._keep_audio = keep_audio
        self._frames = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._echo_timer: asyncio.TimerHandle | None = None
        self._echo_due: float | None = None

    @property
    def live(self) -> bool:
        """Between `start` and the stream's end."""
        return self.began > 0 and not self.ended

    async def open(self, url: str, *, host: str, signature: str | None = None) -> None:
        """Opens the WebSocket, as `StreamSocket.open`, and sends `connected`; `begin` comes next."""
        await self._socket.open(url, host=host, signature=signature)
        self._socket.send(self._messages.connected())

    def begin(self, hook: media.StartHook | None = None) -> None:
        """Sends `start` and then the caller's audio; nothing at all if `hook` drops `start`."""
        start = self._messages.start(hook)
        if start is None or self.gone.is_set():
            return
        self.began = time.monotonic()
        self.playback = Playback(self.began, keep_audio=self._keep_audio)
        self.send_raw(start)
        self._tick()

    def send_raw(self, message: str | bytes) -> None:
        """Sends anything, as a text or binary message, after what was sent before."""
        self._up.push(lambda: self._transmit(message))

    def dtmf(self, digit: str) -> None:
        """Sends a key press: `0` to `9`, `*` or `#`."""
        self.send_raw(self._messages.dtmf(digit))

    def hold_uplink(self, seconds: float) -> None:
        """Network trouble: sends nothing for a while, then everything in one burst."""
        self._up.hold(seconds)

    def hold_downlink(self, seconds: float) -> None:
        """Network trouble: what the relay sends takes effect only after a while, in one burst."""
        self._down.hold(seconds)

    def go_silent(self) -> None:
        """Half-open: sends nothing any more, not even a close frame or a pong; the connection stays."""
        self._socket.go_silent()
        if self._ticker is not None:
            self._ticker.cancel()

    def close(self, *, stop: bool = True) -> None:
        """The caller hangs up: sends `stop`, then closes with 1000."""
        if self.live and stop:
            self.send_raw(self._messages.stop())
        self._end()
        self._up.push(self._socket.close)

    def abort(self) -> None:
        """The connection is reset, without `stop` and without a close frame."""
        self._end()
        self._up.discard()
        self._down.discard()
        self._socket.abort()

    # The relay's messages: off the socket, through the line, to the buffer

    def message_received(self, at: float, message: bytes, binary: bool) -> None:
        self._down.push(lambda: self._message(at, message, binary))

    def close_received(self, at: float, close: Close) -> None:
        self._down.push(lambda: self._closed(at, close))

    def socket_closed(self) -> None:
        self._up.discard()
        self._down.push(self._lost)

    def _message(self, at: float, text: bytes, binary: bool) -> None:
        if self.ended:
            return
        now = time.monotonic()
        try:
            if binary:
                raise media.MessageError(media.MALFORMED, "a binary frame")
            if not self.began:
                raise media.MessageError(media.INVALID, "a message before start")
            message = media.read(text, self.stream_sid)
        except media.MessageError as error:
            self.violations.append(Violation(error.code, str(error), text[:200]))
            self.received.append(Received(at, "invalid", str(error)))
            return
        match message:
            case media.Media(ulaw):
                self.playback.append(now, ulaw, at)
                self.received.append(Received(at, "media", len(ulaw)))
            case media.Mark(name):
                self.playback.mark(now, name)
                self.received.append(Received(at, "mark", name))
            case media.Clear():
                cut = self.playback.clear(now)
                self.clears.append(ClearEffect(at, now, cut.played_bytes, cut.dropped_bytes))
                self.received.append(Received(at, "clear", ""))
        self._echo()
        self._changed.set()

    def _closed(self, at: float, close: Close) -> None:
        self.close_code, self.close_reason = close.code, close.reason
        self.received.append(Received(at, "close", close.reason))
        self._end()

    def _lost(self) -> None:
        self._end()
        self.gone.set()

    def _echo(self) -> None:
        """Returns the marks that are due and waits for the next one."""
        for echo in self.playback.advance(time.monotonic()):
            self.echoes.append(echo)
            self.send_raw(self._messages.mark(echo.name))
        due = self.playback.next_echo_at()
        if due == self._echo_due:
            return
        self._echo_due = due
        if self._echo_timer is not None:
            self._echo_timer.cancel()
        if due is not None:
            self._echo_timer = call_after(due - time.monotonic(), self._echo_is_due)

    def _echo_is_due(self) -> None:
        self._echo_due = None
        self._echo()

    def _end(self) -> None:
        """The stream ends: nothing is played or sent from now on."""
        if self.ended:
            return
        self.ended = time.monotonic()
        self.playback.advance(self.ended)
        self.unplayed_bytes = self.playback.queued_bytes
        for timer in (self._ticker, self._echo_timer):
            if timer is not None:
                timer.cancel()
        self._changed.set()

    # What Twilio sends

    def _tick(self) -> None:
        """Sends the frames that are due; frame n is due when its audio is complete."""
        seconds = self._frame_bytes / BYTES_PER_SECOND
        while (left := self.began + (self._frames + 1) * seconds - time.monotonic()) <= 0:
            ulaw = self._next_frame(self._frames, self._frame_bytes)
            self._frames += 1
            if self._keep_audio:
                self.sent_ulaw += ulaw
            self._send_media(self._messages.media(ulaw))
            if self.ended:
                return
        self._ticker = call_after(left, self._tick)

    def _send_media(self, message: str) -> None:
        self._up.push(lambda: self._transmit(message, is_media=True))

    def _transmit(self, message: str | bytes, *, is_media: bool = False) -> None:
        at = time.monotonic()
        if self._socket.send(message) and is_media and self._keep_audio:
            self.sent_at.append(at)
