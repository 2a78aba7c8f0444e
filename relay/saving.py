"""From the journal to the store: each ended call's record is made and saved, whatever it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from handlehome.relay.call.life import EndReason
from handlehome.relay.logs import Event, call_logger, log_event
from handlehome.store.calls import CallStore
from handlehome.store.datadir import StoreError
from handlehome.store.journal import Journal
from handlehome.store.records import fold

RETRY_SECONDS = (0.5, 60.0)
"""Wait after the first failed attempt, doubled up to the second."""

CLOSE_SECONDS = 10.0

KEEP_SECONDS = 30 * 86_400.0
"""How long the events of a saved call stay in the journal."""


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
    """Saves calls from the journal into the store.

    A call is saved when its `call_saved` stands in the journal; until then each start tries again. Saving
    twice makes the same record.
    """

    def __init__(self, journal: Journal, store: CallStore) -> None:
        self._journal = journal
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Calls that are being saved."""
        return len(self._tasks)

    def save(self, call_sid: str) -> None:
        """Begins to save an ended call; returns at once."""
        task = asyncio.get_running_loop().create_task(self._save(call_sid))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _save(self, call_sid: str) -> None:
        log = call_logger(call_sid)
        wait, longest = RETRY_SECONDS
        while True:
            try:
                await self._journal.flush()
                await asyncio.to_thread(self._make_record, call_sid)
            except StoreError as error:
                log.error("The record can't be saved, next attempt in {:g} s: {}", wait, error)
                await asyncio.sleep(wait)
                wait = min(wait * 2, longest)
            except Exception as error:  # a bug must not go unseen in a task that nobody awaits
                # Another attempt would not help; the next start makes one all the same.
                log.error("The journal holds no record of this call: {!r}", error)
                return
            else:
                self._journal.append(call_sid, "call_saved", {})
                log_event(log, Event.SAVED, "The record is saved")
                return

    def _make_record(self, call_sid: str) -> None:
        self._store.save(fold(self._journal.events(call_sid)))

    async def recover(self) -> list[Interrupted]:
        """Takes care of what an earlier process left behind.

        Ended calls that were not saved are saved, and the events of old ones dropped. Calls in whose midst it
        died are marked as interrupted.

        Returns:
            The latter.
        """
        await asyncio.to_thread(self._journal.prune, time.time() - KEEP_SECONDS)
        unfinished = await asyncio.to_thread(self._unfinished)
        for call_sid in await asyncio.to_thread(self._journal.unsaved):
            self.save(call_sid)
        for call in unfinished:
            self._journal.append(call.call_sid, "call_interrupted", {})
            log_event(
                call_logger(call.call_sid), Event.CALL_RECOVERED, "This call was cut off by the daemon's end"
            )
        await self._journal.flush()
        return unfinished

    def _ending(self, call_sid: str, died: float) -> Callable[[], None]:
        def end() -> None:
            reason = {"reason": EndReason.DAEMON_STOPPED.value}
            self._journal.append(call_sid, "call_ended", reason, died)
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
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
