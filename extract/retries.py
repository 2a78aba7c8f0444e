"""When a failed request is tried again, and when none is: pure, time and chance are arguments."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

__all__ = ["PROBE_SECONDS", "Backoff", "Circuit", "Failure", "Fault", "classify"]

PROBE_SECONDS: Final = 60.0
"""How often one call may try whether an open circuit's trouble is over."""

_SETUP_CODES: Final = frozenset({
    "account_deactivated",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_quota",
    "invalid_api_key",
    "invalid_json_schema",
    "model_not_found",
    "unknown_parameter",
    "unsupported_parameter",
    "unsupported_value",
})  # fmt: skip


class Fault(enum.Enum):
    """Whose fault a failure is, and so whom it concerns."""

    SETUP = "setup"
    """Ours: key, quota, model or configuration. Every call's request would fail alike."""
    SERVICE = "service"
    """Theirs, for now: overloaded, broken, slow, out of reach."""
    CALL = "call"
    """This call's: its request was refused, or its answer can't be used. Others may succeed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has not succeeded.

    Attributes:
        fault: whom it concerns.
        message: one line for the log and the record; holds nothing that was said.
        retry_after: seconds that the server asked to wait, None when it didn't.
    """

    fault: Fault
    message: str
    retry_after: float | None = None


def classify(status: int | None, *codes: str | None) -> Fault:
    """Whose fault an error answer is.

    Args:
        status: the HTTP status; None when there was no answer at all.
        codes: the error's `code` and `type`: a used-up quota comes as 429, like a rate limit.
    """
    if not _SETUP_CODES.isdisjoint(codes):
        return Fault.SETUP
    if status is None or status in (408, 409, 429) or status >= 500:
        return Fault.SERVICE
    # Both endpoints exist: a 404 means the model, or a wrong base URL. So does a redirect.
    if status in (401, 403, 404) or status < 400:
        return Fault.SETUP
    return Fault.CALL


@dataclass(frozen=True, slots=True)
class Backoff:
    """The times of a call's attempts: waits that double, each shortened at random by up to half.

    Attributes:
        first: the wait after the first failure, seconds.
        longest: the longest wait, seconds.
        horizon: after this many seconds of failing the call is given up; the last attempt is made right then.
    """

    first: float = 5.0
    longest: float = 1800.0
    horizon: float = 86_400.0

    def next(
        self, attempts: int, now: float, since: float, *, chance: float, retry_after: float | None = None
    ) -> float | None:
        """When to try again.

        Args:
            attempts: how many attempts have failed, 1 or more.
            now: the time now, seconds since the epoch.
            since: when the horizon began, same clock: at the first of these failures. Time in which nothing
                was asked (the daemon was down, the service's circuit open) doesn't count.
            chance: a random number from 0 to 1.
            retry_after: the server's own wish; it can lengthen the wait, up to `longest`.

        Returns:
            The time of the next attempt, None to give up.
        """
        end = since + self.horizon
        if now >= end:
            return None
        # The exponent is bounded: 2.0**2000 would be an error, and attempts come from a stored record.
        wait = min(self.longest, self.first * 2.0 ** min(max(attempts, 1) - 1, 40))
        wait *= 1.0 - chance / 2
        if retry_after is not None and math.isfinite(retry_after):
            wait = max(wait, min(retry_after, self.longest))
        return min(now + wait, end)


class Circuit:
    """Stops the requests of all calls to one service while its trouble concerns them all.

    Closed, everything passes. A failure with `Fault.SETUP` opens it; from then on one request per
    `PROBE_SECONDS` may pass (`try_probe`). It closes when a request succeeds, or fails for its own call's
    sake: then key, quota and model are in order. A failure of the service proves neither.
    """

    __slots__ = ("_probe_at", "failure")

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self._probe_at = math.inf

    @property
    def is_open(self) -> bool:
        """Whether requests are stopped."""
        return self.failure is not None

    @property
    def probe_at(self) -> float | None:
        """When the next probe may pass; None while closed."""
        return None if self.failure is None else self._probe_at

    def failed(self, failure: Failure, now: float) -> bool:
        """Takes notice of a failed request; returns whether that opened or closed the circuit."""
        was_open = self.is_open
        if failure.fault is Fault.SETUP:
            self.failure, self._probe_at = failure, now + PROBE_SECONDS
        elif failure.fault is Fault.CALL:
            self.failure = None
        return self.is_open != was_open

    def succeeded(self) -> bool:
        """Takes notice of a success; returns whether that closed the circuit."""
        was_open = self.is_open
        self.failure = None
        return was_open

    def try_probe(self, now: float) -> bool:
        """Whether a request may pass as the probe; the next one only after `PROBE_SECONDS`."""
        if self.failure is None or now < self._probe_at:
            return False
        self._probe_at = now + PROBE_SECONDS
        return True
