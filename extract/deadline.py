"""A bound on a whole request: httpx's time-outs begin anew with each byte that a server drips."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

__all__ = ["Deadline"]


class Deadline:
    """Shuts a request's connection down when its time is over; use it as ``with``.

    It learns of the connection while it is made (see `trace`): requests must not share connections, nor use
    one again. Looking up a name isn't cut short; the connection is shut down as soon as it is there.

    Attributes:
        passed: the time was over before the end of the ``with`` block.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True
        self._timer.name = "request-deadline"

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._socket = None

    def trace(self, _event: str, info: Mapping[str, Any]) -> None:
        """httpcore's request extension `trace`: connecting and starting TLS each return a network stream."""
        stream = info.get("return_value")
        if stream is not None and hasattr(stream, "get_extra_info"):
            with self._lock:
                self._socket = stream.get_extra_info("socket")
                self._shut_down()

    def _pass(self) -> None:
        with self._lock:
            self.passed = True
            self._shut_down()

    def _shut_down(self) -> None:
        """Wakes the thread that reads; it is that thread that closes the connection."""
        if self.passed and self._socket is not None:
            with contextlib.suppress(OSError):  # closed or superseded by TLS in this moment
                # Not SSLSocket's method, which would change an object that the other thread is using.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
