"""One-time tokens that tie a media stream to the call it was promised to.

Twilio's signature carries no time and no nonce, so a captured upgrade could be replayed. Our TwiML therefore
hands each stream a token that opens it once, for one CallSid, within a minute.
"""

import secrets
from dataclasses import dataclass
from enum import Enum

LIFETIME_SECONDS = 60.0
LIMIT = 10_000

_TOKEN_BYTES = 32


class TokenVerdict(Enum):
    """What became of a token that was presented; the value is the word for logs and close reasons."""

    OK = "ok"
    UNKNOWN = "unknown token"
    FOREIGN = "token of another call"
    USED = "token already used"
    EXPIRED = "token expired"


@dataclass(slots=True)
class _Issued:
    call_sid: str
    expires: float
    used: bool = False


class TokenRegister:
    """Issues and redeems tokens. Time is an argument: seconds of a clock that never goes back.

    A token, used or not, is remembered for one lifetime past its expiry, so that a late one is named
    `EXPIRED` or `USED`; then it is `UNKNOWN`. At most `limit` tokens are remembered: beyond that the oldest
    goes first.
    """

    def __init__(self, lifetime: float = LIFETIME_SECONDS, limit: int = LIMIT) -> None:
        """Args:
            lifetime: seconds for which a token can be redeemed.
            limit: tokens remembered at most.

        Raises:
            ValueError: lifetime or limit is not positive.
        """
        if lifetime <= 0 or limit <= 0:
            raise ValueError("a token needs a positive lifetime, and the register a positive limit")
        self._lifetime = lifetime
        self._limit = limit
        # All tokens live equally long, so the order of issue is the order of expiry: oldest first.
        self._issued: dict[str, _Issued] = {}

    def __len__(self) -> int:
        """Tokens remembered, whatever their state."""
        return len(self._issued)

    def issue(self, call_sid: str, now: float) -> str:
        """Makes a token for `call_sid`: 43 characters of `A-Z a-z 0-9 - _`, good until `now` + lifetime."""
        self._forget(now)
        if len(self._issued) >= self._limit:
            del self._issued[next(iter(self._issued))]
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._issued[token] = _Issued(call_sid, now + self._lifetime)
        return token

    def redeem(self, token: str, call_sid: str, now: float) -> TokenVerdict:
        """Uses a token up for `call_sid`.

        Only `OK` changes anything: a stranger who presents a token does not spoil it for its call, and learns
        nothing of its state.
        """
        self._forget(now)
        issued = self._issued.get(token)
        if issued is None:
            return TokenVerdict.UNKNOWN
        if issued.call_sid != call_sid:
            return TokenVerdict.FOREIGN
        if issued.used:
            return TokenVerdict.USED
        if now >= issued.expires:
            return TokenVerdict.EXPIRED
        issued.used = True
        return TokenVerdict.OK

    def _forget(self, now: float) -> None:
        while self._issued:
            oldest = next(iter(self._issued))
            if now < self._issued[oldest].expires + self._lifetime:
                return
            del self._issued[oldest]
