"""What the telephone's HTTP face asks of the calls, as plain types.

The webhooks know Twilio's requests and TwiML; the desk knows which calls there are. Neither knows how the
other works, and nothing here knows a web framework.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


@dataclass(frozen=True)
class IncomingCall:
    """One voice webhook: a call that wants instructions.

    Attributes:
        call_sid: `CA` and 32 hexadecimal digits; checked.
        account_sid: as sent, not checked; empty when absent.
        from_: E.164, a SIP URI, `client:name` or a placeholder of a hidden caller; empty when absent.
        to: like `from_`.
        direction: `inbound`, `outbound-api` or `outbound-dial`; empty when absent.
        idempotency_token: the same on each retry of one request, None when Twilio sent none.
        parameters: every parameter of the request, the first value of each name.
    """

    call_sid: str
    account_sid: str
    from_: str
    to: str
    direction: str
    idempotency_token: str | None
    parameters: Mapping[str, str]


class RefusalReason(Enum):
    """Why a call is not taken; the value is the word for logs, metrics and `/readyz`."""

    AT_CAPACITY = "at_capacity"
    DRAINING = "draining"
    CALL_OVER = "call_over"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Accepted:
    """The call is taken; `token` opens its media stream once."""

    token: str


@dataclass(frozen=True)
class Refused:
    """The call is not taken."""

    reason: RefusalReason


class NextStep(Enum):
    """What a call does once its `<Connect>` has ended."""

    HANG_UP = "hang_up"
    RECONNECT = "reconnect"
    FALLBACK = "fallback"
    GOODBYE = "goodbye"
    """Hang up with a word: it was we who ended the call."""
    NOTHING = "nothing"


class Desk(Protocol):
    """Answers the webhooks. No method waits: each is called on the loop, within a request.

    Requests come in any order, twice, or never. Every method bears a CallSid it has never heard of.
    """

    @property
    def refusing(self) -> RefusalReason | None:
        """Why a new call would be refused now, or None when it would be accepted."""

    @property
    def accepting(self) -> bool:
        """Whether a new call would be accepted now."""
        return self.refusing is None

    @property
    def active_calls(self) -> int:
        """Calls that count against the capacity now."""

    def incoming_call(self, call: IncomingCall) -> Accepted | Refused:
        """Admits a call or not. A repeated CallSid is answered alike, with a fresh token."""

    def connect_ended(self, call: IncomingCall) -> tuple[NextStep, str | None]:
        """Says what the call does next, with a fresh token for `RECONNECT` and only then."""

    def call_status(self, call_sid: str, status: str) -> None:
        """Takes note of a call's status; a terminal one ends the call."""

    def stream_status(self, call_sid: str, stream_sid: str, event: str, error: str | None) -> None:
        """Takes note of `stream-started`, `stream-stopped` or `stream-error` (with `error`)."""
