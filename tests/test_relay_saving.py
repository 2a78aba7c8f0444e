"""What becomes of a call's events, also when the process is killed meanwhile."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from handlehome.relay import saving
from handlehome.relay.outbox import Outbox
from handlehome.relay.saving import Archive
from handlehome.store.journal import Journal
from handlehome.store.records import CallRecord
from handlehome.store.sqlite import SqliteCallStore

PATIENCE = 10.0
CALL = "CA" + "1" * 32
OTHER = "CA" + "2" * 32


@dataclass
class Files:
    """A data directory's journal and store, open."""

    journal: Journal
    store: SqliteCallStore
    outbox: Outbox
    archive: Archive
    processed: list[str]

    async def saved(self) -> None:
        """Waits until nothing is being saved any more."""
        async with asyncio.timeout(PATIENCE):
            while self.outbox.health.waiting:  # noqa: ASYNC110 - nothing tells that a save is over
                await asyncio.sleep(0.001)
        await self.journal.flush()

    def kinds(self, call_sid: str = CALL) -> list[str]:
        return [event.kind for event in self.journal.events(call_sid)]

    def record(self, call_sid: str = CALL) -> CallRecord:
        record = self.store.get(call_sid)
        assert record is not None
        return record


@contextlib.asynccontextmanager
async def opened(folder: Path, *, live: bool = False) -> AsyncIterator[Files]:
    folder.mkdir(exist_ok=True)
    journal = Journal.open(folder / "journal.sqlite3")
    store = SqliteCallStore(folder / "calls.sqlite3")
    outbox = Outbox(journal, store)
    processed: list[str] = []
    archive = Archive(journal, outbox, process=processed.append, live=live)
    try:
        yield Files(journal, store, outbox, archive, processed)
    finally:
        await archive.close()
        journal.close()
        store.close()


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[Files]:
    async with opened(tmp_path) as there:
        yield there


def play(journal: Journal, call_sid: str = CALL, *, ended: bool = True) -> None:
    """A short call."""
    journal.append(call_sid, "call_started", {"from": "+33612345678", "to": "+33123456789"})
    journal.append(call_sid, "leg_started", {"leg": 1, "stream_sid": "MZ1"})
    turn = {"id": "u1", "after": None, "role": "caller", "text": "Allô ?", "start_ms": 0, "end_ms": 900}
    journal.append(call_sid, "turn", turn)
    if ended:
        journal.append(call_sid, "leg_ended", {"leg": 1, "reason": "stopped"})
        journal.append(call_sid, "call_ended", {"reason": "caller_hung_up"})


async def test_an_ended_call_is_saved_once_and_processed(files: Files) -> None:
    play(files.journal)
    files.archive.save(CALL)
    assert files.processed == [CALL]
    await files.saved()
    record = files.record()
    assert (record.status, record.end_reason, record.turns[0].text) == ("ended", "caller_hung_up", "Allô ?")
    assert files.kinds().count("call_saved") == 1
    assert files.journal.unsaved() == []
    assert await files.archive.recover() == []
    await files.saved()
    assert files.kinds().count("call_saved") == 1


async def test_a_live_call_is_saved_when_others_read_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "LIVE_SECONDS", 0.01)
    for live in (False, True):
        async with opened(tmp_path / str(live), live=live) as files:
            files.archive.write(CALL, "call_started", {"from": "+33612345678"})
            await files.saved()
            record = files.store.get(CALL)
            assert (record is not None) == live
            assert record is None or record.status == "live"
            assert "call_saved" not in files.kinds()


async def test_what_was_not_processed_before_the_end_is_processed_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as files:
        play(files.journal)
        play(files.journal, OTHER)
        extracted = {"data": None, "extraction": {"status": "nothing_said"}}
        files.journal.append(OTHER, "extracted", extracted)
    async with opened(tmp_path) as files:
        assert await files.archive.recover() == []
        assert files.processed == [CALL]
        await files.saved()
        assert files.record().status == files.record(OTHER).status == "ended"


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from handlehome.store.journal import Journal
from tests.test_relay_saving import CALL, OTHER, play

async def main():
    journal = Journal.open(Path({folder!r}) / "journal.sqlite3")
    play(journal, CALL, ended=False)
    play(journal, OTHER)
    await journal.flush()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_after_a_kill_ended_calls_are_saved_and_live_ones_are_interrupted(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parent.parent)
    script = KILLED.format(root=root, folder=str(tmp_path))
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    async with opened(tmp_path) as files:
        (call,) = await files.archive.recover()
        await files.saved()
        assert (call.call_sid, call.legs) == (CALL, 1)
        assert files.record(OTHER).end_reason == "caller_hung_up"
        assert files.kinds()[-1] == "call_interrupted"
        assert files.store.get(CALL) is None
        call.end()
        await files.saved()
        record = files.record()
        assert (record.status, record.end_reason) == ("ended", "daemon_stopped")
        assert record.legs[0].end_reason == "interrupted"
        assert record.turns[0].text == "Allô ?"
    async with opened(tmp_path) as files:
        assert await files.archive.recover() == []
        assert files.outbox.health.waiting == 0


async def test_a_call_interrupted_twice_is_still_taken_care_of(tmp_path: Path) -> None:
    for _ in range(3):
        async with opened(tmp_path) as files:
            if not files.kinds():
                play(files.journal, ended=False)
            else:
                assert len(await files.archive.recover()) == 1
    async with opened(tmp_path) as files:
        (call,) = await files.archive.recover()
        call.end()
        await files.saved()
        assert files.record().end_reason == "daemon_stopped"


async def test_closing_without_anything_to_save_takes_no_time(files: Files) -> None:
    await asyncio.wait_for(files.archive.close(), 1)
