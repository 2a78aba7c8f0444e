"""The daemon killed at random moments, of calls and of what comes after them: nothing is lost or doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlehome.store.mongo import MongoCallStore
from handlehome.store.sqlite import SqliteCallStore
from tests.soak.kills import Outcome, campaign

pytest_plugins = ["tests.mongo_fixtures"]


async def with_sqlite(folder: Path, kills: int, seed: int = 1) -> Outcome:
    return await campaign(
        folder,
        kills=kills,
        open_store=lambda data: SqliteCallStore(data / "calls.sqlite3"),
        settings={},
        seed=seed,
    )


async def with_mongo(folder: Path, uri: str, kills: int, seed: int = 2) -> Outcome:
    return await campaign(
        folder,
        kills=kills,
        open_store=lambda _data: MongoCallStore(uri),
        settings={"MONGO_URI": uri},
        seed=seed,
    )


async def test_two_kills_with_sqlite(tmp_path: Path) -> None:
    outcome = await with_sqlite(tmp_path, 2)
    assert not outcome.faults
    assert outcome.cut_off


async def test_two_kills_with_mongodb(tmp_path: Path, mongo_uri: str) -> None:
    outcome = await with_mongo(tmp_path, mongo_uri, 2)
    assert not outcome.faults
    assert outcome.cut_off


@pytest.mark.soak
async def test_two_hundred_kills_with_sqlite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = await with_sqlite(tmp_path, 200)
    with capsys.disabled():
        print("\n" + outcome.row("SQLite"))
    assert not outcome.faults
    assert outcome.in_calls > 100
    assert outcome.in_processing > 50


@pytest.mark.soak
async def test_two_hundred_kills_with_mongodb(
    tmp_path: Path, mongo_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = await with_mongo(tmp_path, mongo_uri, 200)
    with capsys.disabled():
        print("\n" + outcome.row("MongoDB"))
    assert not outcome.faults
    assert outcome.in_calls > 100
    assert outcome.in_processing > 50
