"""The back office: stores by setting, what it tells of itself, the daily removal, an end in order."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from handlehome.relay.assistant import load_assistant
from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.backoffice import BackOffice
from handlehome.relay.config import Settings
from handlehome.relay.keeping import open_store
from handlehome.relay.processing import ProcessingError
from handlehome.relay.recording import Recorder
from handlehome.store.journal import Journal
from handlehome.store.sqlite import SqliteCallStore

CALL = "CA" + "1" * 32


@asynccontextmanager
async def opened(
    folder: Path, **settings: object
) -> AsyncIterator[tuple[BackOffice, Journal, SqliteCallStore]]:
    checked = Settings(log_dir=folder / "logs", **settings)  # type: ignore[arg-type]  # read as from the environment
    journal = Journal.open(folder / "journal.sqlite3")
    store = open_store(checked, folder / "calls.sqlite3")
    assert isinstance(store, SqliteCallStore)
    recorder = Recorder(AudioFiles(folder), both=False)
    try:
        yield BackOffice(checked, load_assistant(), journal, store, recorder), journal, store
    finally:
        recorder.close()
        journal.close()
        store.close()


async def until(right: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not right():  # noqa: ASYNC110 - threads do it
            await asyncio.sleep(0.005)


def play(office: BackOffice) -> None:
    office.write(CALL, "call_started", {"from": "+33612345678"})
    office.write(CALL, "turn", {"id": "u1", "role": "caller", "text": "Rappelez-moi au 06 98 76 54 32."})
    office.write(CALL, "call_ended", {"reason": "caller_hung_up"})
    office.save(CALL)


async def test_a_call_is_saved_extracted_and_saved_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as (office, journal, store):
        assert await office.start() == []
        play(office)

        def extracted() -> bool:
            record = store.get(CALL)
            return record is not None and (record.extraction or {}).get("status") == "complete"

        await until(extracted)
        record = store.get(CALL)
        assert record is not None
        assert record.data is not None
        assert record.data["customer"]["phone"] == "+33698765432"
        await until(lambda: office.health()["outbox"]["waiting"] == 0)
        await office.close()
        await journal.flush()
        assert journal.unsaved() == journal.unprocessed() == []


async def test_what_was_left_is_done_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as (office, journal, _):
        play(office)
        await journal.flush()
        await office.close()
    async with opened(tmp_path) as (office, journal, store):
        await office.start()
        await until(lambda: not journal.unprocessed() and not journal.unsaved())
        record = store.get(CALL)
        assert record is not None
        assert record.status == "ended"
        await office.close()


async def test_health_counts_what_waits_and_says_nothing_of_callers(tmp_path: Path) -> None:
    async with opened(tmp_path) as (office, _, _):
        health = office.health()
        assert health == {
            "journal": {"ok": True, "waiting": 0, "refused": 0},
            "outbox": {"ok": True, "waiting": 0, "oldest_seconds": 0.0, "refused": 0},
            "extraction": {
                "ok": True,
                "waiting": 0,
                "running": 0,
                "retrying": 0,
                "stopped": 0,
                "given_up": 0,
            },
        }
        play(office)
        assert health != office.health()
        assert CALL not in str(office.health())
        await office.close()


async def test_what_is_old_is_removed_at_the_start(tmp_path: Path) -> None:
    files = AudioFiles(tmp_path)
    files.recordings.mkdir()
    old, new = files.recording_path(CALL), files.recording_path("CA" + "2" * 32)
    for path in (old, new):
        path.write_bytes(b"RIFF")
    os.utime(old, (0, 0))
    async with opened(tmp_path, recording_retention_days=1) as (office, _, _):
        await office.start()
        await until(lambda: not old.exists())
        assert new.exists()
        await office.close()


async def test_audio_of_calls_that_the_journal_does_not_know_is_removed(tmp_path: Path) -> None:
    """A kill in a call's first moments leaves such a file."""
    known, unknown = CALL, "CA" + "2" * 32
    files = AudioFiles(tmp_path)
    files.spool.mkdir()
    async with opened(tmp_path) as (office, journal, _):
        office.write(known, "call_started", {"from": "+33612345678"})
        await journal.flush()
        for call_sid in (known, unknown):
            files.spool_path(call_sid).write_bytes(b"RIFF")
        await office.start()
        assert files.spool_path(known).exists()
        assert not files.spool_path(unknown).exists()
        await office.close()


async def test_a_wrong_schema_starts_nothing(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text("[]")
    with pytest.raises(ProcessingError, match="EXTRACTION_SCHEMA"):
        async with opened(tmp_path, extraction_schema=schema):
            pass
