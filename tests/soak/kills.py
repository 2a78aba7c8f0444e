"""Campaign: the daemon is killed (SIGKILL) again and again, under calls and under what comes after them.

Callers phone all the time, from a few numbers; in some calls the model fails to transcribe, and the REST API
is slow and at times fails. The daemon is killed at random moments and started again on the same directory; in
the end it may finish its work. Then journal, store and audio directory are compared with one another and with
what the phones and the model know.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from handlehome.bench.mouth import CallOverError
from handlehome.bench.phone import PhoneCall
from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Answer, Script
from handlehome.bench.rest import faults, recordings
from handlehome.bench.rest.server import RestSimulator
from handlehome.bench.twilio import WebhookError
from handlehome.store.calls import CallStore
from tests.harness import KEY, Stage, running_daemon
from tests.soak.afterwards import CLIPS, Archive, settled

CALLERS = 8
NUMBERS = [f"+336123456{number:02}" for number in range(12)]

LIFE_SECONDS = (0.1, 4.5)
"""From the daemon's first answer to its death: a call takes about 2.5, what comes after it 0.1 to 3."""

COMPLETE_SECONDS = 1.0
"""What the daemon was told so long before it died must not be lost."""

SETTLE_SECONDS = 120.0

SETTINGS = {"RESUME_SECONDS": "1", "EXTRACTION_WORKERS": "16"}

GREETING = Answer(text="Bonjour.", audio=b"\x11\x91" * 800)
ANSWER = Answer(text="D'accord.", audio=b"\x12\x92" * 600)
TOLD = ("conversation.item.input_audio_transcription.completed", "response.output_audio_transcript.done")
"""With these the model tells the words of a turn: the caller's, its own."""

REST_FAULTS = faults.at_random(
    {faults.SERVER_ERROR: 0.05, faults.OVERLOADED: 0.03, faults.RESET: 0.03, faults.CUT: 0.03}, seed=1
)


@dataclass
class Outcome:
    """What a campaign saw.

    Attributes:
        kills: how often the daemon was killed.
        in_calls: kills with calls going on.
        in_processing: kills with requests of post-processing under way.
        calls: calls of which the journal knows the beginning.
        cut_off: calls in whose midst the daemon died.
        turns: turns that the daemon was told of a second before it died, or earlier.
        transcribed: turns whose words were had from the audio.
        seconds: how long it took.
        faults: what was not as it should be.
    """

    kills: int
    in_calls: int = 0
    in_processing: int = 0
    calls: int = 0
    cut_off: int = 0
    turns: int = 0
    transcribed: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def row(self, store: str) -> str:
        """The figures as a line of a table."""
        return (
            f"| kill -9, {store} | {self.kills} kills, {self.in_calls} in calls, {self.in_processing} in "
            f"post-processing | {self.calls} calls, {self.cut_off} cut off, {self.turns} turns complete "
            f"before, {self.transcribed} transcribed after | "
            f"{self.seconds:.0f} s | {len(self.faults)} faults |"
        )


@dataclass
class _Call:
    """A call as phone and model know it.

    Attributes:
        text: what the caller says.
        failing: the model does not transcribe it.
        phone: the caller's end.
        session: the model's end.
        hung_up: when the caller hung up; 0.0 before.
        told: the turns whose words the daemon was told of long enough before it died.
        over: the caller hung up long enough before that; so his words must be there.
    """

    text: str
    failing: bool
    phone: PhoneCall
    session: SimSession | None = None
    hung_up: float = 0.0
    told: set[str] = field(default_factory=set)
    over: bool = False

    def died(self, at: float) -> None:
        """The daemon died: what must it have known?"""
        latest = at - COMPLETE_SECONDS
        if self.session is not None:
            self.told = {
                sent.item_id
                for sent in self.session.sent
                if sent.type in TOLD and sent.item_id is not None and sent.t <= latest
            }
            self.session = None  # it has kept much
        self.over = 0 < self.hung_up <= latest


async def campaign(
    folder: Path,
    *,
    kills: int,
    open_store: Callable[[Path], CallStore],
    settings: Mapping[str, str],
    seed: int,
) -> Outcome:
    """Kills a daemon `kills` times.

    Args:
        folder: for its directories.
        kills: how often.
        open_store: opens the store that it writes to, given its `DATA_DIR`.
        settings: which name that store.
        seed: of what is random here; what the processes make of it is their own.
    """
    outcome = Outcome(kills)
    began = time.monotonic()
    rest = RestSimulator(api_key=KEY, answer=recordings.extract, faults=REST_FAULTS, delay_s=(0.1, 1.5))
    stage = Stage(keep_audio=False)
    calls: list[_Call] = []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(rest)
        await stack.enter_async_context(stage.model)
        settings = {**SETTINGS, "OPENAI_BASE_URL": rest.url, **settings}
        rng = random.Random(seed)
        shortest, longest = LIFE_SECONDS
        lives = [shortest + (longest - shortest) * (n + rng.random()) / kills for n in range(kills)]
        rng.shuffle(lives)
        for number, seconds in enumerate(lives):
            async with running_daemon(folder, stage.model.url, settings) as stage.daemon:
                stage.url = stage.daemon.url
                life = _Life(stage, random.Random(f"{seed} {number}"), outcome)
                await life.spend(seconds, rest)
            calls += life.calls
            stage.model.sessions.clear()
            rest.requests.clear()
        rest.faults = faults.none  # whose retries would take their time
        async with running_daemon(folder, stage.model.url, settings) as daemon:
            outcome.faults += await settled(daemon, SETTLE_SECONDS)
    outcome.seconds = time.monotonic() - began
    await asyncio.to_thread(_check, daemon.data, calls, open_store, outcome)
    return outcome


class _Life:
    """One life of the daemon: its callers, and its end.

    Attributes:
        calls: that were dialled.
    """

    def __init__(self, stage: Stage, rng: random.Random, outcome: Outcome) -> None:
        self.calls: list[_Call] = []
        self._stage = stage
        self._rng = rng
        self._outcome = outcome
        self._over = False

    async def spend(self, seconds: float, rest: RestSimulator) -> None:
        """Lets people call, and kills the daemon."""
        callers = [asyncio.create_task(self._caller()) for _ in range(CALLERS)]
        await asyncio.sleep(seconds)
        outcome = self._outcome
        outcome.in_calls += any(call.phone.live for call in self.calls)
        outcome.in_processing += any(request.status is None for request in rest.requests)
        self._stage.daemon.process.kill()
        died = time.monotonic()
        self._over = True
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        for call in self.calls:
            call.died(died)
        await self._stage.daemon.process.wait()

    async def _caller(self) -> None:
        """Somebody calls again and again."""
        await asyncio.sleep(self._rng.uniform(0, 1))
        while not self._over:
            try:
                await self._call()
            except (AssertionError, CallOverError, OSError, TimeoutError, WebhookError) as error:
                if not self._over:
                    self._outcome.faults.append(f"a call failed under a living daemon: {error!r}")
                    return

    async def _call(self) -> None:
        clip = self._rng.choice(CLIPS)
        lost = self._rng.choices(("failed", "never", None), (3, 1, 6))[0]
        script = Script(
            greeting=GREETING,
            answers=(ANSWER,),
            repeat=True,
            caller_texts=(clip.text,),
            transcription_faults={lost: {0}} if lost else {},
        )
        async with self._stage.phone(from_=self._rng.choice(NUMBERS), keep_audio=False) as phone:
            call = _Call(clip.text, lost is not None, phone)
            self.calls.append(call)
            call.session = await self._stage.session(await self._stage.dial(phone, script))
            await phone.wait_answer(quiet=0.1)
            await phone.say(clip.ulaw)
            await phone.wait_answer(quiet=0.1)
            await phone.hang_up()
            call.hung_up = time.monotonic()


def _check(data: Path, calls: list[_Call], open_store: Callable[[Path], CallStore], outcome: Outcome) -> None:
    """Compares what the daemon left with what phones and model know."""
    told = {call.phone.call_sid: call for call in calls}
    store = open_store(data)
    try:
        archive = Archive(data, store, set(told))
        outcome.faults += archive.faults()
    finally:
        store.close()
    outcome.calls = len(archive.records)
    outcome.faults += [f"{sid}: nobody made this call" for sid in archive.records.keys() - told]
    for sid, call in told.items():
        record = archive.records.get(sid)
        turns = record.turns if record is not None else ()
        said = {turn.id for turn in turns if turn.text}
        texts = [turn.text for turn in turns if turn.role == "caller"]
        outcome.turns += len(call.told)
        outcome.transcribed += call.failing and call.text in texts
        outcome.cut_off += any(event.kind == "call_interrupted" for event in archive.events.get(sid, ()))
        outcome.faults += [f"{sid}: the turn {item} is missing" for item in sorted(call.told - said)]
        if call.over and texts != [call.text]:
            outcome.faults.append(f"{sid}: {call.text!r} was said ({call.failing=}), but there is {texts}")
