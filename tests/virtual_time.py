"""A loop clock that tests move by hand, so that an hour's call takes milliseconds and never flakes."""

from collections.abc import Callable
from contextvars import Context, copy_context
from heapq import heappop, heappush
from itertools import count
from typing import Any


class VirtualHandle:
    """One callback at one virtual time; what `VirtualClock.call_at` returns."""

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context
    ) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._context = context
        self._done = False

    def when(self) -> float:
        """The virtual time it was set for."""
        return self._when

    def cancel(self) -> None:
        """Takes the callback back, if it hasn't run."""
        self._done = True

    def cancelled(self) -> bool:
        """Whether the callback isn't going to run any more (it has run or was cancelled)."""
        return self._done

    def run(self) -> None:
        """Runs the callback in its context."""
        self._done = True
        self._context.run(self._callback, *self._args)


class VirtualClock:
    """The timing half of an event loop, on a clock that only moves when told.

    Takes the loop's place in `TimerWheel(loop)` and wherever else only `time`, `call_at`, `call_later` and
    `call_soon` are used. Callbacks run inside `advance`, in order of their time, equal times in the order
    they were set; what they raise comes out of `advance`.

    Attributes:
        now: The virtual time in seconds. Moving it forward by hand is a loop that is held up: time passes
            and nothing runs, until the next `advance` (of 0 seconds, say) runs what has become late.
    """

    def __init__(self, now: float = 1000.0) -> None:
        """Starts at `now`, not at 0, so that a deadline mistaken for a duration shows."""
        self.now = now
        self._heap: list[tuple[float, int, VirtualHandle]] = []
        self._order = count()

    def time(self) -> float:
        """The virtual time, as `loop.time()`."""
        return self.now

    def call_at(
        self, when: float, callback: Callable[..., object], /, *args: Any, context: Context | None = None
    ) -> VirtualHandle:
        """Sets a callback for the absolute virtual time `when`, as `loop.call_at`."""
        handle = VirtualHandle(when, callback, args, copy_context() if context is None else context)
        heappush(self._heap, (when, next(self._order), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], /, *args: Any, context: Context | None = None
    ) -> VirtualHandle:
        """Sets a callback for `delay` seconds from now, as `loop.call_later`."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_soon(
        self, callback: Callable[..., object], /, *args: Any, context: Context | None = None
    ) -> VirtualHandle:
        """Sets a callback for the next `advance`, as `loop.call_soon`."""
        return self.call_at(self.now, callback, *args, context=context)

    @property
    def pending(self) -> int:
        """Callbacks that are set and not cancelled; 0 when nothing would ever wake the loop."""
        return sum(not handle.cancelled() for _, _, handle in self._heap)

    def advance(self, seconds: float) -> None:
        """Moves the clock by `seconds` (0 or more), running what is due on the way at its own time."""
        assert seconds >= 0, "time doesn't run backwards"
        self.run_until(self.now + seconds)

    def run_until(self, end: float) -> None:
        """Moves the clock to the absolute virtual time `end`, as `advance` does."""
        while self._heap and self._heap[0][0] <= end:
            when, _, handle = heappop(self._heap)
            if not handle.cancelled():
                self.now = max(self.now, when)
                handle.run()
        self.now = max(self.now, end)
