"""The MongoDB server goes away and comes back while calls end: nothing is lost, doubled, or heard of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.mongod import Mongod
from tests.soak.outage import campaign

pytest_plugins = ["tests.mongo_fixtures"]


@pytest.fixture
async def server(mongod: Mongod) -> AsyncIterator[Mongod]:
    """A server that runs again afterwards, whatever happens."""
    yield mongod
    if mongod._process is None:
        await asyncio.to_thread(mongod.start)


async def test_eight_calls_end_while_the_server_is_away(
    tmp_path: Path, server: Mongod, mongo_uri: str
) -> None:
    outcome = await campaign(tmp_path, server, mongo_uri, calls=8, rounds=1)
    assert not outcome.faults
    assert outcome.calls == 8
    assert outcome.while_away > 0
    assert outcome.waited > 0


@pytest.mark.soak
async def test_fifty_calls_end_while_the_server_is_away_six_times(
    tmp_path: Path, server: Mongod, mongo_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = await campaign(tmp_path, server, mongo_uri, calls=50, rounds=6)
    with capsys.disabled():
        print("\n" + outcome.row())
    assert not outcome.faults
    assert outcome.calls == 300
    assert outcome.while_away > 60
