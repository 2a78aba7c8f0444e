"""A handle on one session over its socket: sends what the session says, and lets tests drive it."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

import orjson
from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosedError

from handlehome.bench.realtime.channel import Close, Drop, Sent, ServerError
from handlehome.bench.realtime.checks import Json
from handlehome.bench.realtime.connection import SimConnection
from handlehome.bench.realtime.conversation import Item
from handlehome.bench.realtime.session import Session
from handlehome.bench.realtime.speaker import SentDelta

_UNREAD_LIMIT = 64 * 1024 * 1024
"""Bytes that may wait for a client that does not read; beyond, it is cut off."""


class SimSession:
    """One client's session, for tests and campaigns. All times are `time.monotonic` seconds.

    Attributes:
        session: The protocol's state.
        closed: Close code and reason once the connection is gone; 1006 when it broke.
    """

    def __init__(self, session: Session, connection: SimConnection) -> None:
        self.session = session
        self.closed: tuple[int, str] | None = None
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._closing: asyncio.Task[None] | None = None
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # What happened

    @property
    def number(self) -> int:
        """Of its handshake, from 0."""
        return self.session.number

    @property
    def received(self) -> deque[tuple[float, Json]]:
        """``(t, event)`` of client events without appends; bounded."""
        return self.session.received

    @property
    def audio(self) -> bytearray:
        """The caller's audio, decoded, in order; empty with ``keep_audio=False``."""
        return self.session.listener.audio

    @property
    def append_sizes(self) -> deque[int]:
        """Bytes of audio in each append; bounded."""
        return self.session.listener.sizes

    @property
    def append_times(self) -> deque[float]:
        """When each of these came; bounded."""
        return self.session.listener.times

    @property
    def deltas(self) -> deque[SentDelta]:
        """Audio deltas sent, without those of echo mode; bounded."""
        return self.session.speaker.deltas

    @property
    def first_append(self) -> float | None:
        """When the first append came."""
        return self.session.listener.first_at

    @property
    def appended(self) -> int:
        """Bytes of audio in all appends."""
        return self.session.listener.total

    @property
    def sent(self) -> deque[Sent]:
        """Events sent, without the deltas of echo mode; bounded."""
        return self.session.channel.sent

    @property
    def errors(self) -> deque[ServerError]:
        """``error`` events sent for the client's; bounded."""
        return self.session.channel.errors

    @property
    def violations(self) -> list[str]:
        """What a correct client never does. Races that it can run into are in `errors` only."""
        return self.session.channel.violations

    @property
    def truncations(self) -> list[tuple[float, str, int, bool]]:
        """``(t, item_id, audio_end_ms, accepted)``."""
        return self.session.truncations

    @property
    def response_creates(self) -> list[tuple[float, Json]]:
        """``(t, response)`` of each ``response.create``."""
        return self.session.response_creates

    @property
    def items(self) -> dict[str, Item]:
        """The conversation's items by id."""
        return self.session.conversation.items

    def generated_ms(self, item_id: str) -> int:
        """Whole ms of audio sent for an item, truncated or not.

        Raises:
            RefusedError: No such item.
        """
        return self.session.generated_ms(item_id)

    async def wait_until(self, condition: Callable[["SimSession"], bool], timeout_s: float = 5.0) -> None:
        """Waits until `condition` holds; it is looked at after each event of this session.

        Raises:
            TimeoutError: It didn't within `timeout_s` seconds.
        """
        if condition(self):
            return
        future: asyncio.Future[None] = self._loop.create_future()
        waiter = (lambda: condition(self), future)
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        finally:
            self._waiters.remove(waiter)

    async def wait_closed(self, timeout_s: float = 5.0) -> tuple[int, str]:
        """Waits for the end of the connection.

        Returns:
            `closed`.

        Raises:
            TimeoutError: It was still open after `timeout_s` seconds.
        """
        await self.wait_until(lambda session: session.closed is not None, timeout_s)
        return self.closed or (1006, "")

    # What to do

    def speech_started(self) -> float:
        """Turn detection says that the caller speaks.

        Returns:
            When the event was handed to the socket.

        Raises:
            ValueError: He speaks already, or the session is over.
        """
        return self._act(self.session.start_speech)

    def speech_stopped(self) -> float:
        """Turn detection says that the caller has stopped.

        Returns:
            When the event was handed to the socket.

        Raises:
            ValueError: He doesn't speak, or the session is over.
        """
        return self._act(self.session.stop_speech)

    def send_raw(self, event: Json) -> float:
        """Sends any event as it is, ``event_id`` included; returns when."""
        return self._act(lambda _now: self.session.channel.emit_raw(orjson.dumps(event)))

    def expire(self) -> float:
        """Ends the session as at its limit of 60 minutes; returns when."""
        return self._act(self.session.expire)

    def drop(self) -> float:
        """Resets the TCP connection; returns when."""
        return self._act(lambda _now: self.session.channel.drop())

    def _act(self, action: Callable[[float], None]) -> float:
        if self.session.channel.over:
            raise ValueError("the session is over")
        now = time.monotonic()
        action(now)
        self._pump()
        return now

    # The connection

    async def serve(self) -> None:
        """Runs the session until its connection is gone."""
        self.session.start(time.monotonic(), time.time())
        self._pump()
        # No frame can come in between: the loop takes what has come already before it lets go of the CPU.
        self._connection.sink = self._receive
        try:
            async for message in self._connection:
                self._receive(message)
        except ConnectionClosedError:
            pass  # `closed` tells it.
        finally:
            self.session.channel.end()
            if self._timer:
                self._timer.cancel()
            if self._closing:
                await self._closing
            code, reason = self._connection.close_code, self._connection.close_reason
            self.closed = (code or 1006, reason or "")
            self.session.note(f"session closed: {self.closed[0]} {self.closed[1]}".rstrip())
            self._wake()

    def _receive(self, message: str | bytes) -> None:
        self.session.receive(message, time.monotonic())
        self._pump()

    def _pump(self) -> None:
        """Sends what the session has to say, and sees to being called at its next deadline."""
        channel = self.session.channel
        while channel.outbox:
            message = channel.outbox.popleft()
            if isinstance(message, Close):
                self._closing = self._loop.create_task(self._connection.close(*message))
            elif isinstance(message, Drop):
                self._connection.transport.abort()
            else:
                # Synchronous, in order, and from timers too; the bound below takes the place of backpressure.
                broadcast((self._connection,), message, text=True)
        if self._connection.transport.get_write_buffer_size() > _UNREAD_LIMIT:
            channel.violations.append("the client does not read")
            channel.end()
            self._connection.transport.abort()
        deadline = channel.deadline
        if deadline is None:
            deadline = math.inf
        if deadline != self._timer_at:
            if self._timer:
                self._timer.cancel()
            self._timer, self._timer_at = None, deadline
            if deadline < math.inf:
                # uvloop's timers count whole ms.
                delay = math.ceil(max(0.0, deadline - time.monotonic()) * 1000) / 1000
                self._timer = self._loop.call_later(delay, self._tick)
        if self._waiters:
            self._wake()

    def _tick(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self.session.tick(time.monotonic())
        self._pump()

    def _wake(self) -> None:
        for holds, future in self._waiters:
            if not future.done() and holds():
                future.set_result(None)
