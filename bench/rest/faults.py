"""What may go wrong with an answer, and plans of when."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from handlehome.bench.rest import errors
from handlehome.bench.rest.errors import ApiError
from handlehome.bench.rest.request import RestRequest

Output = Literal[
    "refusal", "no_message", "cut", "filtered", "missing_field", "commentary", "preamble", "failed"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One request's fate. A request that is wrong is refused for that, before its fault.

    Attributes:
        name: For the log.
        delay_s: Seconds before anything is answered, besides those of the simulator.
        error: Makes the refusal that takes the answer's place.
        output: What is wrong with the answer of `/v1/responses`; elsewhere it changes nothing. `refusal`,
            `no_message`, `cut` (max_output_tokens) and `filtered` (content_filter) JSON, `missing_field`,
            only a `commentary` message, one as `preamble` of the right answer, status `failed`.
        connection: `reset` before the answer, `dropped` in the midst of it, or `silent` for ever.
    """

    name: str
    delay_s: float = 0.0
    error: Callable[[], ApiError] | None = None
    output: Output | None = None
    connection: Literal["reset", "dropped", "silent"] | None = None


Faults = Callable[[RestRequest], Fault | None]


def _fails(name: str, status: int, message: str, kind: str, code: str | None, **headers: str) -> Fault:
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    return Fault(name=name, error=lambda: ApiError(status, message, kind=kind, code=code, headers=sent))


INVALID_KEY = Fault(name="invalid key", error=lambda: errors.wrong_key("sk-simulated-0000"))
FORBIDDEN = _fails(
    "forbidden",
    403,
    "Country, region, or territory not supported",
    "request_forbidden",
    "unsupported_country_region_territory",
)
MODEL_NOT_FOUND = Fault(name="model not found", error=lambda: errors.no_model("simulated"))
INSUFFICIENT_QUOTA = _fails(
    "insufficient quota",
    429,
    "You exceeded your current quota, please check your plan and billing details.",
    "insufficient_quota",
    "insufficient_quota",
)
SLOW_DOWN = _fails("slow down", 429, "Slow down: requests come too fast.", "rate_limit_error", "slow_down")
SERVER_ERROR = _fails(
    "server error",
    500,
    "The server had an error while processing your request. Sorry about that!",
    "server_error",
    None,
)
OVERLOADED = _fails(
    "overloaded", 503, "The server is overloaded.", "service_unavailable_error", "server_is_overloaded"
)

REFUSAL = Fault(name="refusal", output="refusal")
NO_MESSAGE = Fault(name="no message", output="no_message")
CUT = Fault(name="cut", output="cut")
FILTERED = Fault(name="filtered", output="filtered")
MISSING_FIELD = Fault(name="missing field", output="missing_field")
COMMENTARY = Fault(name="commentary only", output="commentary")
PREAMBLE = Fault(name="preamble", output="preamble")
FAILED = Fault(name="failed", output="failed")

RESET = Fault(name="reset", connection="reset")
DROPPED = Fault(name="dropped", connection="dropped")
SILENT = Fault(name="silent", connection="silent")


def rate_limited(retry_after_s: float | None = None) -> Fault:
    """429 `rate_limit_exceeded`, with a `retry-after` header or without."""
    headers = {} if retry_after_s is None else {"retry_after": f"{retry_after_s:g}"}
    message = "Rate limit reached for requests. Please try again later."
    return _fails("rate limited", 429, message, "requests", "rate_limit_exceeded", **headers)


def slow(seconds: float) -> Fault:
    """The right answer, late."""
    return Fault(name=f"{seconds:g} s late", delay_s=seconds)


def none(_request: RestRequest) -> Fault | None:
    """The plan without faults."""
    return None


def always(fault: Fault, *, path: str | None = None) -> Faults:
    """Every request, or every one for `path`, has this fault."""
    return lambda request: fault if path in (None, request.path) else None


def numbered(plan: Mapping[int, Fault], *, path: str | None = None) -> Faults:
    """The requests of these numbers (from 0, counted for each path by itself) have these faults."""
    return lambda request: plan.get(request.number) if path in (None, request.path) else None


def at_random(chances: Mapping[Fault, float], *, seed: int = 0, path: str | None = None) -> Faults:
    """Each request has one of the faults with its probability.

    The draw depends on the seed, the path and the request's number only, not on what else goes on.

    Raises:
        ValueError: The probabilities sum up to more than 1.
    """
    if sum(chances.values()) > 1:
        raise ValueError("the probabilities sum up to more than 1")

    def draw(request: RestRequest) -> Fault | None:
        if path not in (None, request.path):
            return None
        drawn = random.Random(f"{seed}:{request.path}:{request.number}").random()
        for fault, chance in chances.items():
            drawn -= chance
            if drawn < 0:
                return fault
        return None

    return draw
