"""Campaign: the MongoDB server goes away and comes back under load, while many calls end.

Each round's calls end before, during and after the outage; the server is killed and stopped by turns. The
calls themselves must not notice: every byte of both directions is compared. In the end journal and store are
compared.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from handlehome.bench.realtime.script import Answer, Script
from handlehome.bench.rest import recordings
from handlehome.bench.rest.server import RestSimulator
from handlehome.store.mongo import MongoCallStore
from tests.harness import KEY, Stage, running_stage
from tests.mongod import Mongod
from tests.soak.afterwards import CLIPS, Archive, settled
from tests.soak.integrity import first_difference

NUMBERS = [f"+336123456{number:02}" for number in range(20)]
AWAY_SECONDS = (2.0, 5.0)
SETTLE_SECONDS = 120.0


@dataclass
class Outcome:
    """What a campaign saw.

    Attributes:
        calls: how many there were.
        outages: how often the server went away.
        while_away: calls that ended while it was.
        waited: records that waited at most when it came back.
        audio_bytes: the audio that was compared.
        settled_s: for each outage, from the server's return and the last call's end until nothing waited.
        faults: what was not as it should be.
    """

    calls: int = 0
    outages: int = 0
    while_away: int = 0
    waited: int = 0
    audio_bytes: int = 0
    settled_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def row(self) -> str:
        """The figures as a line of a table."""
        return (
            f"| MongoDB away | {self.outages} outages, {self.calls} calls, {self.while_away} ended then | "
            f"up to {self.waited} records waited, nothing {max(self.settled_s):.1f} s later at the latest | "
            f"{self.audio_bytes / 1e6:.1f} MB of audio | {len(self.faults)} faults |"
        )


@dataclass
class _Server:
    """The MongoDB server.

    Attributes:
        down, up: when it went away and came back last; 0.0 before.
    """

    mongod: Mongod
    down: float = 0.0
    up: float = 0.0

    async def go_away(self, *, crash: bool) -> None:
        await asyncio.to_thread(self.mongod.kill if crash else self.mongod.stop)
        self.down = time.monotonic()

    async def come_back(self) -> None:
        await asyncio.to_thread(self.mongod.start)
        self.up = time.monotonic()


async def campaign(
    folder: Path, mongod: Mongod, uri: str, *, calls: int, rounds: int, seed: int = 1
) -> Outcome:
    """Stops and starts the server `rounds` times, with `calls` calls each time.

    Args:
        folder: for the daemon.
        mongod: runs, and runs when this returns; not if it raises.
        uri: of a database of this campaign's own.
        calls: at once.
        rounds: how many outages.
        seed: of what is random here.
    """
    outcome = Outcome()
    rng = random.Random(seed)
    server = _Server(mongod)
    sids: set[str] = set()
    async with AsyncExitStack() as stack:
        rest = RestSimulator(api_key=KEY, answer=recordings.extract, delay_s=(0.1, 1.5), keep=False)
        await stack.enter_async_context(rest)
        settings = {"MONGO_URI": uri, "OPENAI_BASE_URL": rest.url, "EXTRACTION_WORKERS": "16"}
        stage = await stack.enter_async_context(running_stage(folder, settings))
        for number in range(rounds):
            hung_up: dict[str, float] = {}
            some = asyncio.Event()

            def ended(call_sid: str, hung_up: dict[str, float] = hung_up, some: asyncio.Event = some) -> None:
                hung_up[call_sid] = time.monotonic()
                if len(hung_up) > calls // 5:
                    some.set()

            calling = [
                asyncio.create_task(_call(stage, rng.randrange(1 << 30), ended, outcome))
                for _ in range(calls)
            ]
            await asyncio.wait_for(some.wait(), 60)
            await server.go_away(crash=number % 2 == 0)
            await asyncio.sleep(rng.uniform(*AWAY_SECONDS))
            waiting = (await stage.daemon.get("/healthz")).json()["outbox"]["waiting"]
            outcome.waited = max(outcome.waited, waiting)
            await server.come_back()
            await asyncio.gather(*calling)
            outcome.faults += await settled(stage.daemon, SETTLE_SECONDS)
            outcome.settled_s.append(time.monotonic() - max(server.up, *hung_up.values()))
            outcome.while_away += sum(server.down <= at <= server.up for at in hung_up.values())
            outcome.outages += 1
            sids |= hung_up.keys()
            stage.model.sessions.clear()
    outcome.calls = len(sids)
    await asyncio.to_thread(_check, stage.daemon.data, uri, sids, outcome)
    return outcome


async def _call(stage: Stage, seed: int, ended: Callable[[str], None], outcome: Outcome) -> None:
    """One caller, who says something and listens to every answer to its end."""
    rng = random.Random(seed)
    await asyncio.sleep(rng.uniform(0, 4))
    clip = rng.choice(CLIPS)
    greeting, answer = (
        Answer(text=text, audio=rng.randbytes(rng.randrange(800, 8000))) for text in ("Bonjour.", "D'accord.")
    )
    script = Script(
        greeting=greeting,
        answers=(answer,),
        caller_texts=(clip.text,),
        transcription_faults={"failed": {0}} if rng.random() < 0.3 else {},
    )
    async with stage.phone(from_=rng.choice(NUMBERS)) as phone:
        session = await stage.session(await stage.dial(phone, script))
        await phone.wait_heard(len(greeting.audio), within=30)
        await phone.say(clip.ulaw)
        await phone.wait_heard(len(greeting.audio) + len(answer.audio), within=30)
        await phone.hang_up()
        ended(phone.call_sid)
        await session.wait_closed(10)
    up, down = bytes(phone.leg.sent_ulaw), greeting.audio + answer.audio
    differences = {
        "up": first_difference(up, bytes(session.audio)),
        "down": first_difference(down, phone.leg.playback.played()),
    }
    outcome.audio_bytes += len(up) + len(down)
    outcome.faults += [f"{phone.call_sid} {way}: {what}" for way, what in differences.items() if what]
    for each in (*phone.violations, *session.violations, *phone.errors):
        outcome.faults.append(f"{phone.call_sid}: {each}")


def _check(data: Path, uri: str, sids: set[str], outcome: Outcome) -> None:
    store = MongoCallStore(uri)
    try:
        archive = Archive(data, store, sids)
        outcome.faults += archive.faults()
        outcome.faults += [f"{sid}: lost" for sid in sids - archive.records.keys()]
        outcome.faults += [f"{sid}: nobody made this call" for sid in archive.records.keys() - sids]
        for record in archive.saved:
            if not any(turn.text for turn in record.turns if turn.role == "caller"):
                outcome.faults.append(f"{record.call_sid}: the caller's words are missing")
    finally:
        store.close()
