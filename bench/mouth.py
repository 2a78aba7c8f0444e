"""What the caller says: speech put into the line frame by frame, silence in between."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import NamedTuple

from handlehome.bench.playback import BYTES_PER_SECOND, SILENCE


class CallOverError(Exception):
    """The call has ended; what was waited for will not happen."""


class Spoken(NamedTuple):
    """When an utterance was put into the line: its first frame's beginning and its last frame's end."""

    began: float
    ended: float


class _Utterance:
    def __init__(self, ulaw: bytes, at: float) -> None:
        self.ulaw = ulaw
        self.at = at
        self.position = 0
        self.began = 0.0
        self.spoken: asyncio.Future[Spoken] = asyncio.get_running_loop().create_future()


class Mouth:
    """A queue of utterances."""

    def __init__(self) -> None:
        self._queue: deque[_Utterance] = deque()
        self._closed = ""

    def say(self, ulaw: bytes, at: float = 0.0) -> asyncio.Future[Spoken]:
        """Queues speech; see `PhoneCall.say`."""
        utterance = _Utterance(ulaw, at)
        self._queue.append(utterance)
        if self._closed:
            self.close(self._closed)
        return utterance.spoken

    def close(self, reason: str) -> None:
        """Fails what is not said yet, now and from now on, with `CallOverError`."""
        self._closed = reason
        for utterance in self._queue:
            if not utterance.spoken.done():
                utterance.spoken.set_exception(CallOverError(reason))
                utterance.spoken.exception()  # Nobody has to wait for it.
        self._queue.clear()

    def next_frame(self, _number: int, size: int) -> bytes:
        """Returns the frame of `size` bytes that ends now."""
        now = time.monotonic()
        if not self._queue or self._queue[0].at > now:
            return SILENCE * size
        utterance = self._queue[0]
        if not utterance.position:
            utterance.began = now - size / BYTES_PER_SECOND
        frame = utterance.ulaw[utterance.position : utterance.position + size]
        utterance.position += size
        if utterance.position >= len(utterance.ulaw):
            self._queue.popleft()
            if not utterance.spoken.done():
                utterance.spoken.set_result(Spoken(utterance.began, now))
        return frame.ljust(size, SILENCE)
