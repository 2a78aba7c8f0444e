"""A daemon whose records go to a real MongoDB: down at the start, there, gone, and back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from handlehome.bench.realtime.script import Script
from handlehome.bench.rest import recordings
from handlehome.bench.rest.server import RestSimulator
from handlehome.store.mongo import MongoCallStore
from tests.after_call import ADDRESS, BRIEF_ADDRESS, BRIEF_LEAK, GREETING, LEAK, call, until
from tests.harness import KEY, RunningDaemon, running_stage
from tests.mongod import Mongod

pytest_plugins = ["tests.mongo_fixtures"]


async def waiting(daemon: RunningDaemon, calls: int) -> None:
    """Waits until so many records wait to be saved."""
    async with asyncio.timeout(20):
        while True:
            if (await daemon.get("/healthz")).json()["outbox"]["waiting"] == calls:
                return
            await asyncio.sleep(0.05)  # another process tells it


async def test_live_turns_are_there_within_a_second_and_the_record_at_the_end(
    tmp_path: Path, mongo_uri: str
) -> None:
    store = MongoCallStore(mongo_uri)
    async with (
        RestSimulator(api_key=KEY, answer=recordings.extract) as rest,
        running_stage(tmp_path, {"MONGO_URI": mongo_uri, "OPENAI_BASE_URL": rest.url}) as stage,
        stage.phone() as phone,
    ):
        script = Script(greeting=GREETING, caller_texts=[ADDRESS.text], transcription_ms=(50, 50))
        await stage.dial(phone, script)
        await phone.wait_answer(quiet=0.2)
        await phone.say(ADDRESS.ulaw)

        def told() -> bool:
            events = stage.daemon.journal(phone.call_sid)
            return any(event.kind == "turn" and event.data["text"] == ADDRESS.text for event in events)

        async with asyncio.timeout(10):
            while not told():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)
        since = time.monotonic()
        live = await until(
            lambda: store.get(phone.call_sid), lambda record: ADDRESS.text in [t.text for t in record.turns]
        )
        assert time.monotonic() - since < 2.5
        assert live.status == "live"
        await phone.hang_up()
        record = await until(
            lambda: store.get(phone.call_sid),
            lambda record: (record.extraction or {}).get("status") == "complete",
        )
        assert record.data is not None
        assert record.data["customer"]["phone"] == "+33612345678"
        assert not (stage.daemon.data / "calls.sqlite3").exists()
        client = store.client("+33612345678")
        assert client is not None
    store.close()


async def test_calls_go_on_and_nothing_is_lost_while_the_server_is_away(
    tmp_path: Path, mongod: Mongod, mongo_uri: str
) -> None:
    """It is down at the start, comes, goes away under calls, and comes back."""
    store = MongoCallStore(mongo_uri)
    mongod.stop()
    try:
        async with running_stage(tmp_path, {"MONGO_URI": mongo_uri}) as stage:
            first = await call(stage, BRIEF_ADDRESS)
            await stage.daemon.journal_until(first.call_sid, "extracted", within=30)
            await waiting(stage.daemon, 1)
            assert (await stage.daemon.get("/readyz")).status_code == 200
            await asyncio.to_thread(mongod.start)
            await until(lambda: store.get(first.call_sid), lambda record: record.status == "ended", 45)
            await waiting(stage.daemon, 0)
            await asyncio.to_thread(mongod.kill)
            later = await asyncio.gather(*(call(stage, BRIEF_LEAK) for _ in range(3)))
            await asyncio.to_thread(mongod.start)
            for phone in later:
                record = await until(
                    lambda sid=phone.call_sid: store.get(sid), lambda record: record.status == "ended", 45
                )
                assert [turn.text for turn in record.turns if turn.role == "caller"] == [LEAK.text]
            await waiting(stage.daemon, 0)
            health = (await stage.daemon.get("/healthz")).json()
            assert health["outbox"]["refused"] == 0
        assert len(store.find().calls) == 4
    finally:
        store.close()
        if mongod._process is None:
            mongod.start()
