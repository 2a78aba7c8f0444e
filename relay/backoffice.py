"""The back office: everything that becomes of calls apart from talking, put together from the settings.

Events go to the journal; from there the outbox carries records to the store; the processor completes
transcripts and extracts data, and its results are events again; once a day what is old is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from loguru import logger

from handlehome.relay.assistant import Assistant
from handlehome.relay.config import Settings
from handlehome.relay.erasure import DAY_SECONDS, Keepers, Retention, purge
from handlehome.relay.outbox import Outbox
from handlehome.relay.processing import discard_audio, journal_calls, make_processor, make_profile, with_cost
from handlehome.relay.recording import Recorder
from handlehome.relay.saving import Archive, Interrupted
from handlehome.store.calls import CallStore
from handlehome.store.journal import Journal

__all__ = ["BackOffice"]

PROCESSOR_CLOSE_SECONDS = 5.0
HOUR_SECONDS = 3600.0


class BackOffice:
    """See the module's docstring.

    Args:
        settings: checked.
        assistant: checked.
        journal: open.
        store: open.
        recorder: has the callers' audio.

    Raises:
        ProcessingError: EXTRACTION_SCHEMA or PRICES_FILE can't be used; nothing has been started.
    """

    def __init__(
        self,
        settings: Settings,
        assistant: Assistant,
        journal: Journal,
        store: CallStore,
        recorder: Recorder,
    ) -> None:
        profile, complete = make_profile(settings, assistant), with_cost(settings)
        self._journal = journal
        self._outbox = Outbox(journal, store, complete=complete, saved=discard_audio(recorder.files))
        calls = journal_calls(journal, recorder, profile, self._outbox.touch)
        self._processor = make_processor(settings, assistant, profile, calls)
        self._archive = Archive(
            journal, self._outbox, process=self._processor.submit, live=settings.mongo_uri is not None
        )
        self._keepers = Keepers(journal, store, recorder.files, settings.log_dir)
        self._retention = Retention(
            settings.retention_days, settings.recording_retention_days, settings.audio_retention_days
        )
        self._daily: asyncio.Task[None] | None = None
        self.write = self._archive.write
        self.save = self._archive.save

    async def start(self) -> list[Interrupted]:
        """Starts to work, with what an earlier process left behind.

        Returns:
            The calls in whose midst it died.
        """
        await asyncio.to_thread(self._discard_strays)
        self._processor.start()
        interrupted = await self._archive.recover()
        self._daily = asyncio.get_running_loop().create_task(self._every_day())
        return interrupted

    def _discard_strays(self) -> None:
        """Removes audio of calls that the journal doesn't know: nobody would ask for it, or erase it."""
        for path in self._keepers.files.spool.glob("*.wav"):
            if self._journal.newest(path.stem) <= 0:
                path.unlink(missing_ok=True)

    def health(self) -> dict[str, Any]:
        """What waits and what is in the way, in numbers; nothing about callers."""
        journal, outbox, extraction = self._journal.health, self._outbox.health, self._processor.health()
        return {
            "journal": {"ok": journal.ok, "waiting": journal.waiting, "refused": journal.refused},
            "outbox": {
                "ok": outbox.error is None,
                "waiting": outbox.waiting,
                "oldest_seconds": round(outbox.oldest_seconds, 1),
                "refused": outbox.refused,
            },
            "extraction": {
                "ok": extraction.reason is None,
                "waiting": extraction.waiting,
                "running": extraction.running,
                "retrying": extraction.retrying,
                "stopped": extraction.stopped,
                "given_up": extraction.given_up,
            },
        }

    async def close(self) -> None:
        """Stops, bounded; what is left is taken up at the next start."""
        if self._daily is not None:
            self._daily.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._daily
        await asyncio.to_thread(self._processor.close, PROCESSOR_CLOSE_SECONDS)
        await self._archive.close()

    async def _every_day(self) -> None:
        while True:
            try:
                gone = await asyncio.to_thread(purge, self._keepers, self._retention, time.time())
            except Exception as error:  # whatever it is, what is old must be removed some day
                logger.warning("Not all that is old could be removed, next attempt in an hour: {}", error)
                await asyncio.sleep(HOUR_SECONDS)
                continue
            else:
                logger.info(
                    "Removed what is old: {} records, events of {} calls, {} audio files, {} log lines",
                    gone.records,
                    gone.events,
                    gone.files,
                    gone.log_lines,
                )
            await asyncio.sleep(DAY_SECONDS)
