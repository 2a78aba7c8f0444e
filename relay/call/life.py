"""The life of a call: one table of states and events.

Theory of operation. A call begins with its webhook and ends once. Between the two it has legs, one media
stream after another; it is LIVE while one runs and INTERRUPTED while none does and another may come.
In CLOSING we have ended the leg ourselves, and wait for Twilio to ask what is next, so that the caller
hears the right last words. Everything that affects the state is an event in `TABLE`; what is not in the
table changes nothing. The first end reason that a call is given on its way stays with it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Where a call is in its life."""

    CONNECTING = "connecting"
    """Admitted by the webhook; no leg has started."""
    LIVE = "live"
    """A leg carries audio."""
    INTERRUPTED = "interrupted"
    """No leg, but the call may go on with another one."""
    CLOSING = "closing"
    """We have ended the leg; Twilio is about to ask what is next."""
    ENDED = "ended"
    """Over; its record is being completed and saved."""


class Event(StrEnum):
    """What can happen to a call."""

    LEG_STARTED = "leg_started"
    CALLER_HUNG_UP = "caller_hung_up"
    """`stop` on the stream."""
    LEG_DROPPED = "leg_dropped"
    """The socket is gone without `stop`."""
    LEG_SILENT = "leg_silent"
    """The line sends nothing more: half-open."""
    LEG_BROKEN = "leg_broken"
    """The line broke the protocol, and its socket was closed by us."""
    MODEL_LOST = "model_lost"
    STATUS_TERMINAL = "status_terminal"
    """Twilio's status callback says that the call is over."""
    CONNECT_ENDED = "connect_ended"
    """Twilio asks what the call does after its stream, and the answer is not another stream."""
    STREAM_REFUSED = "stream_refused"
    """Twilio asks the same, and the stream that it brought had no valid token."""
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a name
    """The stream that was promised did not come in time."""
    RESUME_EXPIRED = "resume_expired"
    """Interrupted for too long."""
    GOODBYE_SAID = "goodbye_said"
    TIME_LIMIT = "time_limit"
    DAEMON_STOPS = "daemon_stops"
    CLOSE_EXPIRED = "close_expired"
    """Twilio did not ask what is next."""


class EndReason(StrEnum):
    """Why a call ended; stands in its record."""

    CALLER_HUNG_UP = "caller_hung_up"
    ASSISTANT_SAID_GOODBYE = "assistant_said_goodbye"
    NEVER_CONNECTED = "never_connected"
    STREAM_REFUSED = "stream_refused"
    LINE_DROPPED = "line_dropped"
    LINE_SILENT = "line_silent"
    LINE_BROKEN = "line_broken"
    MODEL_LOST = "model_lost"
    TIME_LIMIT = "time_limit"
    DAEMON_STOPPED = "daemon_stopped"


class Row(NamedTuple):
    """What an event does: the state after it, and the end reason it gives, if none was given before."""

    state: State
    reason: EndReason | None = None


_S, _E, _R = State, Event, EndReason

TABLE: dict[tuple[State, Event], Row] = {
    # A webhook was answered, the stream is to come.
    (_S.CONNECTING, _E.LEG_STARTED): Row(_S.LIVE),
    (_S.CONNECTING, _E.MODEL_LOST): Row(_S.CLOSING, _R.MODEL_LOST),
    (_S.CONNECTING, _E.STATUS_TERMINAL): Row(_S.ENDED, _R.NEVER_CONNECTED),
    (_S.CONNECTING, _E.CONNECT_ENDED): Row(_S.ENDED, _R.NEVER_CONNECTED),
    (_S.CONNECTING, _E.STREAM_REFUSED): Row(_S.ENDED, _R.STREAM_REFUSED),
    (_S.CONNECTING, _E.TOKEN_EXPIRED): Row(_S.ENDED, _R.NEVER_CONNECTED),
    (_S.CONNECTING, _E.DAEMON_STOPS): Row(_S.ENDED, _R.DAEMON_STOPPED),
    # A leg carries audio.
    (_S.LIVE, _E.CALLER_HUNG_UP): Row(_S.ENDED, _R.CALLER_HUNG_UP),
    (_S.LIVE, _E.LEG_DROPPED): Row(_S.INTERRUPTED),
    (_S.LIVE, _E.LEG_SILENT): Row(_S.INTERRUPTED),
    (_S.LIVE, _E.LEG_BROKEN): Row(_S.INTERRUPTED),
    (_S.LIVE, _E.MODEL_LOST): Row(_S.CLOSING, _R.MODEL_LOST),
    (_S.LIVE, _E.STATUS_TERMINAL): Row(_S.ENDED, _R.CALLER_HUNG_UP),
    (_S.LIVE, _E.GOODBYE_SAID): Row(_S.CLOSING, _R.ASSISTANT_SAID_GOODBYE),
    (_S.LIVE, _E.TIME_LIMIT): Row(_S.CLOSING, _R.TIME_LIMIT),
    (_S.LIVE, _E.DAEMON_STOPS): Row(_S.CLOSING, _R.DAEMON_STOPPED),
    # The leg was lost, the call may go on.
    (_S.INTERRUPTED, _E.LEG_STARTED): Row(_S.LIVE),
    (_S.INTERRUPTED, _E.MODEL_LOST): Row(_S.CLOSING, _R.MODEL_LOST),
    (_S.INTERRUPTED, _E.STATUS_TERMINAL): Row(_S.ENDED, _R.LINE_DROPPED),
    (_S.INTERRUPTED, _E.CONNECT_ENDED): Row(_S.ENDED, _R.LINE_DROPPED),
    (_S.INTERRUPTED, _E.STREAM_REFUSED): Row(_S.ENDED, _R.STREAM_REFUSED),
    (_S.INTERRUPTED, _E.TOKEN_EXPIRED): Row(_S.ENDED, _R.LINE_DROPPED),
    (_S.INTERRUPTED, _E.RESUME_EXPIRED): Row(_S.ENDED, _R.LINE_DROPPED),
    (_S.INTERRUPTED, _E.GOODBYE_SAID): Row(_S.CLOSING, _R.ASSISTANT_SAID_GOODBYE),
    (_S.INTERRUPTED, _E.TIME_LIMIT): Row(_S.CLOSING, _R.TIME_LIMIT),
    (_S.INTERRUPTED, _E.DAEMON_STOPS): Row(_S.ENDED, _R.DAEMON_STOPPED),
    # We ended the leg; the last words are Twilio's to fetch. A stream that still comes finds nobody.
    (_S.CLOSING, _E.CALLER_HUNG_UP): Row(_S.ENDED),
    (_S.CLOSING, _E.STATUS_TERMINAL): Row(_S.ENDED),
    (_S.CLOSING, _E.CONNECT_ENDED): Row(_S.ENDED),
    (_S.CLOSING, _E.STREAM_REFUSED): Row(_S.ENDED),
    (_S.CLOSING, _E.CLOSE_EXPIRED): Row(_S.ENDED),
}

_LOST_LEG: dict[Event, EndReason] = {
    Event.LEG_DROPPED: EndReason.LINE_DROPPED,
    Event.LEG_SILENT: EndReason.LINE_SILENT,
    Event.LEG_BROKEN: EndReason.LINE_BROKEN,
}


class Life:
    """Walks through `TABLE`.

    Attributes:
        state: where the call is.
        reason: why it ended or is about to; None while it lives.
    """

    __slots__ = ("_lost_leg", "reason", "state")

    def __init__(self) -> None:
        self.state = State.CONNECTING
        self.reason: EndReason | None = None
        self._lost_leg: EndReason | None = None

    def apply(self, event: Event) -> bool:
        """Takes an event.

        Returns:
            Whether it changed the state.
        """
        row = TABLE.get((self.state, event))
        if row is None:
            return False
        if row.state is State.LIVE:
            self.reason = None
        elif event in _LOST_LEG:
            self._lost_leg = _LOST_LEG[event]
        if row.reason is not None and self.reason is None:
            named = row.reason
            self.reason = (self._lost_leg or named) if named is EndReason.LINE_DROPPED else named
        self.state = row.state
        return True
