"""What becomes of a call's events: the journal first, then the store, then extraction; across restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loguru import logger

from handlehome.relay.call.life import EndReason
from handlehome.relay.logs import Event, call_logger, log_event
from handlehome.relay.outbox import Outbox
from handlehome.store.journal import Journal

LIVE_SECONDS = 1.0
"""How long a change of a live call may wait on its way to a store that other daemons read."""

CLOSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A call in whose midst an earlier process died.

    Attributes:
        call_sid: the call.
        legs: how many streams it had.
        started_at: when it began, in seconds since the epoch.
        end: ends it for good, as of the last that is known of it; to be called once, unless it goes on.
    """

    call_sid: str
    legs: int
    started_at: float
    end: Callable[[], None]


class Archive:
    """What becomes of calls: events go to the journal, records to the store, transcripts to extraction.

    A call is saved when its end and all that came after it stand in the store; until then each start tries
    again. Saving twice makes the same record.

    Args:
        journal: takes the events.
        outbox: carries records to the store.
        process: completes the transcript of an ended call and extracts its data; None: nobody does.
        live: other daemons read the store, so that calls are saved while they go on.
    """

    def __init__(
        self,
        journal: Journal,
        outbox: Outbox,
        *,
        process: Callable[[str], None] | None = None,
        live: bool = False,
    ) -> None:
        self._journal = journal
        self._outbox = outbox
        self._process = process
        self._live = live

    def write(self, call_sid: str, kind: str, data: dict[str, Any], at: float | None = None) -> None:
        """Takes an event of a call; never blocks."""
        self._journal.append(call_sid, kind, data, at)
        if self._live and kind != "usage":  # which nobody needs before the call's end
            self._outbox.touch(call_sid, LIVE_SECONDS, live=True)

    def save(self, call_sid: str) -> None:
        """Takes an ended call over: it is saved, processed, and saved again."""
        self._outbox.touch(call_sid)
        if self._process is not None:
            self._process(call_sid)

    async def recover(self) -> list[Interrupted]:
        """Takes care of what an earlier process left behind.

        Ended calls that were not saved are saved, and those that were not processed are processed. Calls in
        whose midst it died are marked as interrupted.

        Returns:
            The latter.
        """
        unfinished = await asyncio.to_thread(self._unfinished)
        for call_sid in await asyncio.to_thread(self._journal.unsaved):
            self._outbox.touch(call_sid)
        if self._process is not None:
            for call_sid in await asyncio.to_thread(self._journal.unprocessed):
                self._process(call_sid)
        for call in unfinished:
            self.write(call.call_sid, "call_interrupted", {})
            log_event(
                call_logger(call.call_sid), Event.CALL_RECOVERED, "This call was cut off by the daemon's end"
            )
        await self._journal.flush()
        return unfinished

    def _ending(self, call_sid: str, died: float) -> Callable[[], None]:
        def end() -> None:
            self.write(call_sid, "call_ended", {"reason": EndReason.DAEMON_STOPPED.value}, died)
            self.save(call_sid)

        return end

    def _unfinished(self) -> list[Interrupted]:
        calls: list[Interrupted] = []
        for call_sid in self._journal.unfinished():
            events = [event for event in self._journal.events(call_sid) if event.kind != "call_interrupted"]
            legs = max((event.data["leg"] for event in events if event.kind == "leg_started"), default=0)
            end = self._ending(call_sid, max(event.at for event in events))
            calls.append(Interrupted(call_sid, legs, min(event.at for event in events), end))
        return calls

    async def close(self) -> None:
        """Waits, bounded, for what is being saved; the rest is saved at the next start."""
        left = await asyncio.to_thread(self._outbox.close, CLOSE_SECONDS)
        if left:
            logger.warning("{} records wait for the next start to be saved", left)
