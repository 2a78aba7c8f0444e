"""`TwilioMessageHandler`: one media stream of Twilio's.

Owns the socket's protocol: who may start, what a message means, when the line counts as dead. What
the stream is for, it asks the `Reception`; where its audio goes, it is told by it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from loguru import logger

from handlehome.relay.logs import Event, call_logger, log_event
from handlehome.relay.phone import messages
from handlehome.relay.phone.messages import InvalidMessage, Outgoing, Start
from handlehome.relay.wheel import Timer, TimerWheel
from handlehome.relay.wire.connection import Connection

START_SECONDS = 5.0
"""From the upgrade to `start`."""

SILENCE_SECONDS = 10.0
"""A line from which no media comes for this long is half-open."""

_BROKEN = frozenset({1002, 1007, 1008, 1009})
"""Codes with which the WebSocket below closes a connection whose peer breaks its rules."""

_WATCHES = 5  # looks within SILENCE_SECONDS


class StreamEnd(Enum):
    """How a stream ended, as seen from its socket."""

    STOPPED = "stopped"
    DROPPED = "dropped"
    SILENT = "silent"
    BROKEN = "broken"


class Refusal(Enum):
    """Why a socket is closed by us: WebSocket close code (RFC 6455, 7.4.1) and reason."""

    NO_START = (1008, "no start message within 5 s")
    NOT_JSON = (1007, "malformed message")
    BINARY = (1003, "binary frames are not part of Media Streams")
    UNKNOWN_TOKEN = (1008, "unknown token")
    FOREIGN_TOKEN = (1008, "token of another call")
    USED_TOKEN = (1008, "token already used")
    EXPIRED_TOKEN = (1008, "token expired")
    CALL_OVER = (1008, "the call is over")
    LINE_SILENT = (1001, "no media for 10 s")

    @property
    def code(self) -> int:
        """The close code."""
        return self.value[0]

    @property
    def reason(self) -> str:
        """The close reason, at most 123 bytes."""
        return self.value[1]


class StreamListener(Protocol):
    """What a stream is for: a leg of a call."""

    def frame(self, chunk: int, timestamp_ms: int, payload: bytes, size: int) -> None:
        """The caller's audio; once per frame."""

    def mark(self, name: str) -> None:
        """A mark came back."""

    def dtmf(self, digit: str) -> None:
        """The caller pressed a key."""

    def stream_ended(self, end: StreamEnd, detail: str) -> None:
        """Nothing more comes of the stream; once."""

    def writing_paused(self) -> None:
        """The socket takes no more for the moment."""

    def writing_resumed(self) -> None:
        """The socket takes messages again."""


class Reception(Protocol):
    """Decides who may start a stream."""

    def stream_started(self, stream: TwilioMessageHandler, start: Start) -> StreamListener | Refusal:
        """Checks the start message's token and names what the stream is for."""


class TwilioMessageHandler:
    """One stream: the `Receiver` of its connection, and the `Line` of its playout.

    Args:
        reception: decides at `start`.
        wheel: shared timers.
        clock: loop time, seconds.
    """

    __slots__ = (
        "_clock",
        "_connection",
        "_frame",
        "_frames",
        "_frames_seen",
        "_listener",
        "_log",
        "_outgoing",
        "_quiet",
        "_reception",
        "_refused",
        "_stream_sid",
        "_tail",
        "_timer",
        "_wheel",
        "slow_frames",
    )

    def __init__(self, reception: Reception, wheel: TimerWheel, clock: Callable[[], float]) -> None:
        self._reception = reception
        self._wheel = wheel
        self._clock = clock
        self._connection: Connection | None = None
        self._listener: StreamListener | None = None
        self._frame: Callable[[int, int, bytes, int], None] | None = None
        self._tail = b""
        self._stream_sid = ""
        self._outgoing = Outgoing("")
        self._timer: Timer | None = None
        self._frames = 0
        self._frames_seen = 0
        self._quiet = 0
        self._refused = False
        self._log = logger
        self.slow_frames = 0

    # ---- receiver -------------------------------------------------------------------------------

    def connection_made(self, connection: Connection) -> None:
        """The socket is open; `start` has to come soon."""
        self._connection = connection
        self._timer = self._wheel.at(self._clock() + START_SECONDS, self._no_start)

    def text_received(self, message: bytes) -> None:
        """One message of Twilio's."""
        if self._frame is not None:
            media = messages.parse_media(message, self._tail)
            if media is not None:
                self._frames += 1
                self._frame(*media)
                return
        try:
            self._any_message(messages.parse_message(message))
        except InvalidMessage as error:
            self._refuse(Refusal.NOT_JSON, str(error))

    def binary_received(self, message: bytes) -> None:
        """The protocol has no binary messages."""
        self._refuse(Refusal.BINARY, f"{len(message)} bytes")

    def connection_lost(self, code: int, reason: str) -> None:
        """The socket is gone."""
        if self._listener is None and not self._refused and code in _BROKEN:
            # Nobody else would tell of it: there is no call yet.
            detail = f"Media stream closed with {code}: {reason}"
            log_event(self._log, Event.REFUSED, detail, reason=reason)
        end = StreamEnd.BROKEN if code in _BROKEN else StreamEnd.DROPPED
        self._end(end, f"closed with {code} {reason}".strip())
        self._connection = None

    def writing_paused(self) -> None:
        """The socket takes no more for the moment."""
        if self._listener is not None:
            self._listener.writing_paused()

    def writing_resumed(self) -> None:
        """The socket takes messages again."""
        if self._listener is not None:
            self._listener.writing_resumed()

    # ---- messages -------------------------------------------------------------------------------

    def _any_message(self, parsed: dict[str, Any]) -> None:
        event = parsed["event"]
        listener = self._listener
        if listener is None:
            if event == "start" and self._connection is not None and self._connection.is_open:
                self._start(messages.start_of(parsed))
            return
        match event:
            case "media":
                media = messages.media_of(parsed, self._stream_sid)
                if media is not None:
                    self._frames += 1
                    self.slow_frames += 1
                    listener.frame(*media)
            case "mark":
                mark = parsed.get("mark")
                if isinstance(mark, dict) and isinstance(mark.get("name"), str):
                    listener.mark(mark["name"])
            case "dtmf":
                dtmf = parsed.get("dtmf")
                if isinstance(dtmf, dict) and isinstance(dtmf.get("digit"), str):
                    listener.dtmf(dtmf["digit"])
            case "stop":
                self._end(StreamEnd.STOPPED, "stop")
                self.close(1000, "stopped")
            case "start":
                self._refuse(Refusal.USED_TOKEN, "a second start")
            case _:
                self._log.debug("Twilio sent an event that is not known here: {}", event)

    def _start(self, start: Start) -> None:
        self._cancel_timer()
        self._stream_sid = start.stream_sid
        self._outgoing = Outgoing(start.stream_sid)
        self._tail = messages.media_tail(start.stream_sid)
        self._log = call_logger(start.call_sid)
        answer = self._reception.stream_started(self, start)
        if isinstance(answer, Refusal):
            self._refuse(answer, f"stream {start.stream_sid}")
            return
        self._listener = answer
        self._frame = answer.frame
        self._timer = self._wheel.at(self._clock() + SILENCE_SECONDS / _WATCHES, self._watch)

    def _watch(self) -> None:
        self._quiet = self._quiet + 1 if self._frames == self._frames_seen else 0
        if self._quiet == _WATCHES:
            self._refuse(Refusal.LINE_SILENT, "half-open")
            return
        self._frames_seen = self._frames
        self._timer = self._wheel.at(self._clock() + SILENCE_SECONDS / _WATCHES, self._watch)

    def _no_start(self) -> None:
        self._refuse(Refusal.NO_START, "")

    def _refuse(self, refusal: Refusal, detail: str) -> None:
        self._refused = True
        detail = f" ({detail})" if detail else ""
        log_event(
            self._log,
            Event.REFUSED,
            f"Media stream closed with {refusal.code}: {refusal.reason}{detail}",
            reason=refusal.reason,
        )
        self._end(StreamEnd.SILENT if refusal is Refusal.LINE_SILENT else StreamEnd.BROKEN, refusal.reason)
        self.close(refusal.code, refusal.reason)

    def _end(self, end: StreamEnd, detail: str) -> None:
        self._cancel_timer()
        listener, self._listener, self._frame = self._listener, None, None
        if listener is not None:
            listener.stream_ended(end, detail)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- line -----------------------------------------------------------------------------------

    def media(self, payload: bytes) -> None:
        """Sends base64 text of mu-law audio."""
        if self._connection is not None:
            self._connection.send_text(self._outgoing.media_head + payload + Outgoing.TAIL)

    def mark(self, name: str) -> None:
        """Sends a mark."""
        if self._connection is not None:
            self._connection.send_text(self._outgoing.mark_head + name.encode("ascii") + Outgoing.TAIL)

    def marked_media(self, payload: bytes, name: str) -> None:
        """Sends audio and a mark right behind it, in one write."""
        if self._connection is not None:
            outgoing = self._outgoing
            self._connection.send_texts(
                outgoing.media_head + payload + Outgoing.TAIL,
                outgoing.mark_head + name.encode("ascii") + Outgoing.TAIL,
            )

    def clear(self) -> None:
        """Drops what Twilio has not yet played."""
        if self._connection is not None:
            self._connection.send_text(self._outgoing.clear)

    def close(self, code: int, reason: str) -> None:
        """Ends the stream from our side; its listener is told nothing more."""
        self._cancel_timer()
        self._listener = self._frame = None
        if self._connection is not None:
            self._connection.close(code, reason)
