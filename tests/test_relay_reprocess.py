"""Extraction of stored calls, beside the daemon: the real SDK, a simulated REST API, real stores."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from handlehome.bench.rest import faults
from handlehome.bench.rest.request import RESPONSES
from handlehome.bench.rest.server import RestSimulator
from handlehome.relay.assistant import load_assistant
from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.config import Settings
from handlehome.relay.processing import make_processor, make_profile, with_cost
from handlehome.relay.reprocess import Outcome, StoredCalls, reprocess
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

    async def run(self, rest: RestSimulator, *call_sids: str) -> list[tuple[str, str]]:
        settings = Settings(openai_api_key="sk-test", openai_base_url=rest.url)  # type: ignore[arg-type]  # read as from the environment
        assistant = load_assistant()
        profile = make_profile(settings, assistant)
        make = partial(make_processor, settings, assistant, profile)
        outcomes = await asyncio.to_thread(
            reprocess, call_sids, self.calls, profile, make, told=self.told.append
        )
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
        assert await house.run(rest, UNKNOWN, FIRST) == [(UNKNOWN, "unknown"), (FIRST, "complete")]
    assert [outcome.ok for outcome in house.told] == [False, True]


async def test_a_failure_is_told_and_not_waited_for(house: House) -> None:
    async with RestSimulator(faults=faults.always(faults.SERVER_ERROR, path=RESPONSES)) as rest:
        ((_, status),) = await house.run(rest, FIRST)
    assert status == "retrying"
    assert not house.told[0].ok
    assert house.told[0].error


async def test_a_wrong_key_is_told_for_every_call_also_the_second_time(house: House) -> None:
    async with RestSimulator(api_key="sk-other") as rest:
        for _ in range(2):
            assert {status for _, status in await house.run(rest, FIRST, SECOND)} == {"stopped"}
