"""The sending side of a simulated session without its socket: outbox, event ids, timers, faults and logs."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import orjson

from handlehome.bench.realtime import events
from handlehome.bench.realtime.checks import Json, RefusedError
from handlehome.bench.realtime.script import Faults

LOG_LENGTH = 20_000
"""Entries kept of each log; the oldest go first."""

_RACES = {"response_cancel_not_active", "conversation_already_has_active_response"}
"""Errors that a correct client can meet, when its event crosses one of the server's on the way."""

_EARLY_S = 0.0005
"""Timers of an event loop are that coarse: a step due within it runs now."""

Step = Callable[[float], None]


class Close(NamedTuple):
    """To be done after the events before it: the closing handshake, begun by the server."""

    code: int
    reason: str


class Drop(NamedTuple):
    """To be done after the events before it: TCP reset, no closing handshake."""


class Sent(NamedTuple):
    """One event that was sent: monotonic seconds, type and the ids in it."""

    t: float
    type: str
    event_id: str
    item_id: str | None
    response_id: str | None


class ServerError(NamedTuple):
    """One ``error`` that was sent: monotonic seconds, its code, message, and the client event's type."""

    t: float
    code: str
    message: str
    client_event: str


class Channel:
    """What a session sends, in order, and when it has to be called again.

    Args:
        tag: Makes the ids of this session unique.
        faults: What goes wrong on the wire.

    Attributes:
        outbox: Encoded events, `Close` and `Drop`, for the owner of the socket to take from the left.
        over: Nothing more is to be sent.
        sent: Log of events, deltas of echo mode left out.
        errors: Log of ``error`` events.
        violations: What a correct client never does, in words.
    """

    def __init__(self, tag: str, faults: Faults) -> None:
        self._tag = tag
        self._faults = faults
        self._numbers = itertools.count(1)
        self._events = 0
        self._of_type = 0
        self._steps: list[tuple[float, int, Step]] = []
        self.outbox: deque[bytes | Close | Drop] = deque()
        self.over = False
        self.sent: deque[Sent] = deque(maxlen=LOG_LENGTH)
        self.errors: deque[ServerError] = deque(maxlen=LOG_LENGTH)
        self.violations: list[str] = []

    def new_id(self, kind: str) -> str:
        """A fresh id such as ``item_...``, as long as the real ones."""
        return f"{kind}_{self._tag}{next(self._numbers):08d}"

    def emit(self, event: Json, now: float) -> None:
        """Sends one event, with a fresh ``event_id`` behind its type."""
        if self.over:
            return
        self._events += 1
        if self._faults.unknown_event_every and self._events % self._faults.unknown_event_every == 0:
            stranger = {
                "type": "session.weather.changed",
                "event_id": self.new_id("event"),
                "sky": {"clear": True},
            }
            self.outbox.append(orjson.dumps(stranger))
        event_id = self.new_id("event")
        event = {"type": event["type"], "event_id": event_id, **event}
        if self._faults.unknown_fields:
            event = {
                name: {**value, "x_unknown": [1, {"deep": None}]} if isinstance(value, dict) else value
                for name, value in event.items()
            } | {"x_unknown": "field"}
        self.outbox.append(orjson.dumps(event))
        kind: str = event["type"]
        item_id = event.get("item_id") or event.get("item", {}).get("id")
        response_id = event.get("response_id") or event.get("response", {}).get("id")
        self.sent.append(Sent(now, kind, event_id, item_id, response_id))
        if self._faults.drop_at and kind == self._faults.drop_at[0]:
            self._of_type += 1
            if self._of_type == self._faults.drop_at[1]:
                self.drop()

    def emit_raw(self, message: bytes) -> None:
        """Sends a text message as it is, unlogged."""
        if not self.over:
            self.outbox.append(message)

    def refuse(self, refused: RefusedError, now: float, client_event: Json | None = None) -> None:
        """Sends an ``error``; it is a violation too unless a correct client can run into it.

        Args:
            refused: What is wrong.
            now: Monotonic seconds.
            client_event: The event at fault, when it can be named.
        """
        event = client_event or {}
        kind = str(event.get("type"))
        event_id = event.get("event_id")
        self.errors.append(ServerError(now, refused.code, refused.message, kind))
        if refused.code not in _RACES:
            self.violations.append(f"{kind}: {refused.code}: {refused.message}")
        told = events.error(refused, event_id if isinstance(event_id, str) else None)
        if self._faults.codeless_errors:
            for name in ("code", "param", "event_id"):
                del told["error"][name]
        self.emit(told, now)

    def close(self, code: int, reason: str) -> None:
        """Ends the session by a closing handshake."""
        if not self.over:
            self.outbox.append(Close(code, reason))
            self.end()

    def drop(self) -> None:
        """Ends the session by a TCP reset."""
        if not self.over:
            self.outbox.append(Drop())
            self.end()

    def end(self) -> None:
        """Nothing more is sent, no timer runs any more."""
        self.over = True
        self._steps.clear()

    def at(self, when: float, step: Step) -> None:
        """Has `step` called with the time, once it is `when` (monotonic seconds)."""
        if not self.over:
            heapq.heappush(self._steps, (when, next(self._numbers), step))

    @property
    def deadline(self) -> float | None:
        """When `tick` is needed next; None while nothing is scheduled."""
        return self._steps[0][0] if self._steps else None

    def tick(self, now: float) -> None:
        """Does everything that is due."""
        while self._steps and self._steps[0][0] <= now + _EARLY_S:
            heapq.heappop(self._steps)[2](now)
