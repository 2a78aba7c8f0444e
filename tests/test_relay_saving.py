"""From the journal to the store: once, whatever goes wrong meanwhile, and after a kill."""

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from loguru import logger

from handlehome.relay import saving
from handlehome.relay.saving import Archive
from handlehome.store.calls import SqliteCallStore
from handlehome.store.journal import Journal
from handlehome.store.records import CallRecord

PATIENCE = 10.0
CALL = "CA" + "1" * 32
OTHER = "CA" + "2" * 32


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between attempts are as short as they can be; how often there are attempts is not checked."""
    monkeypatch.setattr(saving, "RETRY_SECONDS", (0.005, 0.02))


@dataclass
class Files:
    """A data directory's journal and store, open."""

    journal: Journal
    store: SqliteCallStore
    archive: Archive

    async def saved(self) -> None:
        """Waits until nothing is being saved any more."""
        async with asyncio.timeout(PATIENCE):
            while self.archive.waiting:  # noqa: ASYNC110 - nothing tells that a save is over
                await asyncio.sleep(0.001)
        await self.journal.flush()

    def kinds(self, call_sid: str = CALL) -> list[str]:
        return [event.kind for event in self.journal.events(call_sid)]

    def record(self, call_sid: str = CALL) -> CallRecord:
        record = self.store.get(call_sid)
        assert record is not None
        return record


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Files]:
    journal = Journal.open(folder / "journal.sqlite3")
    store = SqliteCallStore(folder / "calls.sqlite3")
    archive = Archive(journal, store)
    try:
        yield Files(journal, store, archive)
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


async def test_an_ended_call_is_saved_once(files: Files) -> None:
    play(files.journal)
    files.archive.save(CALL)
    assert files.archive.waiting == 1
    await files.saved()
    record = files.record()
    assert (record.status, record.end_reason, record.turns[0].text) == ("ended", "caller_hung_up", "Allô ?")
    assert files.kinds().count("call_saved") == 1
    assert files.journal.unsaved() == []
    assert await files.archive.recover() == []
    await files.saved()
    assert files.kinds().count("call_saved") == 1


async def test_saving_waits_for_the_journal(files: Files) -> None:
    """What was appended just before is in the record, though the journal's writer may be behind."""
    play(files.journal)
    for number in range(500):
        turn = {"id": f"a{number}", "after": None, "role": "assistant", "text": "Oui."}
        files.journal.append(CALL, "turn", turn)
    files.archive.save(CALL)
    await files.saved()
    assert len(files.record().turns) == 501


async def test_a_store_that_fails_is_tried_again_until_it_works(files: Files, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "calls.sqlite3")) as other:
        other.execute("ALTER TABLE calls RENAME TO broken")
        errors: list[str] = []
        failed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def note(message: str) -> None:
            errors.append(message)
            loop.call_soon_threadsafe(failed.set)

        sink = logger.add(note, level="ERROR", format="{message}")
        play(files.journal)
        files.archive.save(CALL)
        async with asyncio.timeout(PATIENCE):
            while len(errors) < 3:
                failed.clear()
                await failed.wait()
        assert files.archive.waiting == 1
        assert "call_saved" not in files.kinds()
        other.execute("ALTER TABLE broken RENAME TO calls")
        await files.saved()
        logger.remove(sink)
    assert files.record().status == "ended"
    assert files.kinds().count("call_saved") == 1
    assert "can't be saved" in errors[0]


async def test_one_call_that_cannot_be_saved_does_not_hold_up_another(files: Files) -> None:
    files.journal.append(OTHER, "call_started", {})
    files.journal.append(OTHER, "turn", {"id": "u1"})
    files.journal.append(OTHER, "call_ended", {"reason": "caller_hung_up"})
    play(files.journal)
    files.archive.save(OTHER)
    files.archive.save(CALL)
    await files.saved()
    assert files.record().status == "ended"
    assert files.store.get(OTHER) is None
    assert files.journal.unsaved() == [OTHER]


async def test_a_call_of_which_nothing_is_known_is_left_alone(files: Files) -> None:
    files.archive.save(CALL)
    await files.saved()
    assert files.store.get(CALL) is None


async def test_what_could_not_be_saved_before_the_end_is_saved_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "CLOSE_SECONDS", 0.05)
    with contextlib.closing(sqlite3.connect(tmp_path / "calls.sqlite3")) as other:
        async with opened(tmp_path) as files:
            other.execute("ALTER TABLE calls RENAME TO broken")
            play(files.journal)
            files.archive.save(CALL)
        other.execute("ALTER TABLE broken RENAME TO calls")
    async with opened(tmp_path) as files:
        assert files.store.get(CALL) is None
        assert await files.archive.recover() == []
        await files.saved()
        assert files.record().end_reason == "caller_hung_up"


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
        assert files.archive.waiting == 0


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
