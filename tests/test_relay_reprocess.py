"""Extraction of stored calls, beside the daemon: the real SDK, a simulated REST API, real stores."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handlehome.bench.rest import faults
from handlehome.bench.rest.request import RESPONSES, RestRequest
from handlehome.bench.rest.server import RestSimulator
from handlehome.extract.processor import Outcome
from handlehome.relay.assistant import load_assistant
from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.config import Settings
from handlehome.relay.processing import make_processor, make_profile, with_cost
from handlehome.relay.reprocess import StoredCalls, reprocess
from handlehome.store.journal import Journal
from handlehome.store.journalfile import JournalFile
from handlehome.store.records import fold
from handlehome.store.sqlite import SqliteCallStore

FIRST, SECOND, UNKNOWN = (f"CA{digit * 32}" for digit in "123")
ANSWER = {"customer": {"last_name": "Martin"}, "summary": "Une fuite."}


class House:
    """A data directory with two calls: the journal still holds the first, the second is in the store only."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal.open(folder / "journal.sqlite3")
        self.store = SqliteCallStore(folder / "calls.sqlite3")
        self.told: list[Outcome] = []
        settings = Settings()
        self.calls = StoredCalls(
            JournalFile(folder / "journal.sqlite3"), self.store, AudioFiles(folder), with_cost(settings)
        )
        for call_sid in (FIRST, SECOND):
            turn = {
                "id": "u1",
                "role": "caller",
                "text": "Martin, j'ai une fuite.",
                "start_ms": 0,
                "end_ms": 900,
            }
            self.journal.append(call_sid, "call_started", {"from": "+33612345678"})
            self.journal.append(call_sid, "turn", turn)
            self.journal.append(call_sid, "call_ended", {"reason": "caller_hung_up"})
        assert self.journal.flush_sync(5)
        for call_sid in (FIRST, SECOND):
            self.store.save(fold(self.journal.events(call_sid)))
        self.journal.append(SECOND, "call_saved", {"seq": self.journal.events(SECOND)[-1].seq}, 0.0)
        self.journal.flush_sync(5)
        self.journal.prune(4e9, 4e9)
        assert not self.journal.events(SECOND)

    async def run(self, rest: RestSimulator, *call_sids: str) -> list[tuple[str, str | None]]:
        settings = Settings.model_validate({"openai_api_key": "sk-test", "openai_base_url": rest.url})
        assistant = load_assistant()
        profile = make_profile(settings, assistant)
        processor = make_processor(settings, assistant, profile, self.calls.calls(profile))
        try:
            outcomes = await asyncio.to_thread(lambda: list(reprocess(call_sids, processor, workers=2)))
        finally:
            processor.close()
        self.told += outcomes
        return [(outcome.call_sid, outcome.status) for outcome in outcomes]

    def data(self, call_sid: str) -> dict[str, Any]:
        record = self.store.get(call_sid)
        assert record is not None
        assert record.data is not None
        return record.data

    def close(self) -> None:
        self.journal.close()
        self.store.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    there = House(tmp_path)
    yield there
    there.close()


async def test_calls_of_the_journal_and_of_the_store_alone(house: House) -> None:
    async with RestSimulator(answer=lambda request: ANSWER) as rest:
        assert await house.run(rest, FIRST, SECOND) == [(FIRST, "complete"), (SECOND, "complete")]
    for call_sid in (FIRST, SECOND):
        assert house.data(call_sid)["customer"]["last_name"] == "Martin"
        record = house.store.get(call_sid)
        assert record is not None
        assert record.usage is not None
        assert record.usage["cost"] > 0
    assert sorted(outcome.call_sid for outcome in house.told) == [FIRST, SECOND]
    # The daemon makes the same record from its journal, and has nothing left to save.
    assert fold(house.journal.events(FIRST)).data == house.data(FIRST)
    assert FIRST not in house.journal.unsaved()
    assert FIRST not in house.journal.unprocessed()


async def test_what_was_extracted_before_is_replaced(house: House) -> None:
    async with RestSimulator(answer=lambda request: ANSWER) as rest:
        await house.run(rest, FIRST, SECOND)
        rest.answer = lambda request: {"customer": {"last_name": "Durand"}}
        await house.run(rest, FIRST, SECOND)
    assert {house.data(call_sid)["customer"]["last_name"] for call_sid in (FIRST, SECOND)} == {"Durand"}


async def test_an_unknown_call_does_not_hold_up_the_others(house: House) -> None:
    async with RestSimulator(answer=lambda request: ANSWER) as rest:
        assert await house.run(rest, UNKNOWN, FIRST) == [(UNKNOWN, None), (FIRST, "complete")]
    assert [outcome.ok for outcome in house.told] == [False, True]


async def test_a_failure_leaves_what_was_there_and_is_told(house: House) -> None:
    async with RestSimulator(answer=lambda request: ANSWER) as rest:
        await house.run(rest, FIRST, SECOND)
        before = [house.store.get(call_sid) for call_sid in (FIRST, SECOND)]
        rest.faults = faults.always(faults.SERVER_ERROR, path=RESPONSES)
        assert await house.run(rest, FIRST, SECOND) == [(FIRST, "complete"), (SECOND, "complete")]
    assert [house.store.get(call_sid) for call_sid in (FIRST, SECOND)] == before
    assert [outcome.ok for outcome in house.told] == [True, True, False, False]
    assert all(outcome.error for outcome in house.told[2:])


async def test_a_wrong_key_is_told_for_every_call_also_the_second_time(house: House) -> None:
    async with RestSimulator(api_key="sk-other") as rest:
        for _ in range(2):
            assert {status for _, status in await house.run(rest, FIRST, SECOND)} == {"waiting"}
    assert not any(outcome.ok for outcome in house.told)
    assert all(outcome.error for outcome in house.told)


async def test_a_call_that_is_erased_meanwhile_stays_erased(house: House) -> None:
    def erase(request: RestRequest) -> dict[str, Any]:
        JournalFile(house.journal.path).erase([FIRST, SECOND])
        for call_sid in (FIRST, SECOND):
            house.store.delete(call_sid)
        return ANSWER

    async with RestSimulator(answer=erase) as rest:
        await house.run(rest, FIRST, SECOND)
    for call_sid in (FIRST, SECOND):
        assert house.store.get(call_sid) is None
        assert house.journal.events(call_sid) == []


async def test_the_callers_audio_goes_when_nothing_more_is_done_with_it(house: House) -> None:
    spool = house.calls.files.spool_path(FIRST)
    spool.parent.mkdir()
    spool.write_bytes(b"RIFF")
    async with RestSimulator(answer=lambda request: ANSWER) as rest:
        await house.run(rest, FIRST)
    assert not spool.exists()
