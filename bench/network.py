"""The simulated network between the phone and the relay: random delay, order kept."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class LineDelay:
    """How late messages arrive, in ms, drawn evenly from a range for each message; their order is kept."""

    up_ms: tuple[float, float] = (0, 0)
    """From the phone to the relay."""
    down_ms: tuple[float, float] = (0, 0)
    """From the relay to the phone."""


def call_after(seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    """Calls back after `seconds`, rounded up to uvloop's resolution of one ms.

    The callback may come a little early all the same: uvloop counts from when its iteration began.
    """
    return asyncio.get_running_loop().call_later(math.ceil(max(0.0, seconds) * 1000) / 1000, callback)


class Pipe:
    """One direction of the network.

    Args:
        bounds_ms: Least and greatest delay of a message.
        rng: Draws the delays.
    """

    def __init__(self, bounds_ms: tuple[float, float], rng: random.Random) -> None:
        self._low, self._high = (ms / 1000 for ms in bounds_ms)
        self._rng = rng
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._latest = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def push(self, arrive: Callable[[], None]) -> None:
        """Calls `arrive` after the delay and after all that was pushed before; at once without delay."""
        now = time.monotonic()
        delay = self._rng.uniform(self._low, self._high) if self._high else 0.0
        self._latest = max(self._latest, now + delay)
        if not self._waiting and self._latest <= now:
            arrive()
            return
        self._waiting.append((self._latest, arrive))
        if self._timer is None:
            self._timer = call_after(self._latest - now, self._deliver)

    def hold(self, seconds: float) -> None:
        """Lets nothing that is pushed from now on arrive before `seconds` have passed."""
        self._latest = max(self._latest, time.monotonic() + seconds)

    def discard(self) -> None:
        """Loses what is under way."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _deliver(self) -> None:
        # The timer stays set meanwhile, so that a push from within `arrive` does not start a second one.
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            self._waiting.popleft()[1]()
        self._timer = None
        if self._waiting:
            self._timer = call_after(self._waiting[0][0] - time.monotonic(), self._deliver)
