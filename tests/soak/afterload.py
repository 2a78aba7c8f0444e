"""Campaign: what the audio path feels of many calls that are post-processed at once.

A light load (`bench.load`) keeps calls going and measures every frame, in this process. The daemon runs in
its own, and is handed batches of calls that have just ended, each with a turn that must be transcribed from
its audio and a transcript to extract data from; the REST API answers in a third. Idle and loaded windows take
turns in one run. The daemon has a core to itself; so does the load, where there are three.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from array import array
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from handlehome.bench import speech
from handlehome.bench.costrun import Latency, latency, pinned, waited_seconds
from handlehome.bench.load import Load
from handlehome.bench.twilio import new_sid
from handlehome.codecs.mixdown import Piece
from handlehome.relay.audiofiles import AudioFile
from tests.harness import TOKEN, RunningDaemon, running_daemon
from tests.soak.afterload_daemon import DOOR

ROOT = Path(__file__).parents[2]

IDLE_SECONDS = 5.0
WARM_UP_SECONDS = 2.0
FINISH_SECONDS = 0.5
"""From the API's last answer until its record is saved."""

SPOKEN = speech.load("caller-leak")  # its words must be had from the audio
TURNS = ("caller-address", "assistant-appointment", "caller-confirm", "assistant-goodbye") * 4


@dataclass
class Outcome:
    """What a campaign saw.

    Attributes:
        live: calls that went on.
        calls: calls that were post-processed, all batches together.
        idle: how long each frame took, up and down, while nothing was post-processed; seconds.
        loaded: the same while a batch was.
        loaded_seconds: how long that was.
        waited: for how long of it the daemon's loop was ready to run, but something else ran; seconds.
        late: the worst lateness of the load's own clock in it; seconds.
        faults: what was not as it should be.
    """

    live: int
    calls: int = 0
    idle: array[float] = field(default_factory=lambda: array("d"))
    loaded: array[float] = field(default_factory=lambda: array("d"))
    loaded_seconds: float = 0.0
    waited: float = 0.0
    late: float = 0.0
    faults: list[str] = field(default_factory=list)

    def row(self, what: str) -> str:
        """The figures as a line of a table."""
        idle, loaded = self.latencies()
        figures = " | ".join(
            f"{name} {each.p50:.2f}/{each.p95:.2f}/{each.p99:.2f}/{each.max:.1f}"
            for name, each in (("idle", idle), ("loaded", loaded))
        )
        return (
            f"| {what} | {self.live} calls live, {self.calls} processed in {self.loaded_seconds:.1f} s | "
            f"p50/p95/p99/max ms: {figures} | p99 {loaded.p99 - idle.p99:+.2f} ms | "
            f"daemon waited for a core {self.waited:.2f} s, load at most {self.late * 1000:.0f} ms late |"
        )

    def latencies(self) -> tuple[Latency, Latency]:
        """Idle and loaded."""
        idle, loaded = latency(self.idle), latency(self.loaded)
        assert idle is not None
        assert loaded is not None
        return idle, loaded


async def campaign(
    folder: Path,
    *,
    live: int,
    calls: int,
    rounds: int,
    answers: tuple[float, float],
    apart: float,
    workers: int | None = None,
    pin: bool = True,
    idle_seconds: float = IDLE_SECONDS,
) -> Outcome:
    """Alternates idle windows and batches.

    Args:
        folder: for the daemon.
        live: calls that go on all the time.
        calls: in a batch.
        rounds: how many batches.
        answers: least and most seconds that the API takes for an answer.
        apart: seconds from one end of a call to the next.
        workers: EXTRACTION_WORKERS, if not the default.
        pin: each process keeps to its core, where there are two or more.
        idle_seconds: of each idle window.
    """
    outcome = Outcome(live)
    own, ours, theirs = _cores() if pin else (None, None, None)
    sids: list[str] = []
    async with Load(live, auth_token=TOKEN) as load, AsyncExitStack() as stack:
        with pinned(theirs):
            rest = await stack.enter_async_context(_rest())
        settings = {"OPENAI_BASE_URL": await rest.line(), "PYTHONPATH": str(ROOT)}
        if workers is not None:
            settings["EXTRACTION_WORKERS"] = str(workers)
        command = (sys.executable, "-m", "tests.soak.afterload_daemon")
        with pinned(own):
            daemon = await stack.enter_async_context(
                running_daemon(folder, load.model_url, settings, command=command)
            )
        with pinned(ours):
            await load.dial(daemon.url)
            _, door = await asyncio.open_connection("127.0.0.1", int((folder / DOOR).read_text()))
            await asyncio.sleep(WARM_UP_SECONDS)
            for _ in range(rounds):
                batch = [new_sid("CA") for _ in range(calls)]
                await asyncio.to_thread(_keep_audio, daemon, batch)
                lines = [_line(call_sid) for call_sid in batch]
                load.begin_window()
                await asyncio.sleep(idle_seconds)
                idle = load.end_window()
                waited = waited_seconds(str(daemon.pid))
                rest.say(f"{answers[0]} {answers[1]} {calls}")
                load.begin_window()
                for line in lines:
                    door.write(line)
                    await asyncio.sleep(apart)
                await asyncio.wait_for(rest.line(), 120)
                await asyncio.sleep(FINISH_SECONDS)
                loaded = load.end_window()
                outcome.idle.extend((*idle.up, *idle.down))
                outcome.loaded.extend((*loaded.up, *loaded.down))
                outcome.loaded_seconds += loaded.seconds
                outcome.waited += waited_seconds(str(daemon.pid)) - waited
                outcome.late = max(outcome.late, *loaded.lateness)
                sids += batch
            door.close()
            missing = await load.settle()
            await load.hang_up()
        outcome.calls = len(sids)
        outcome.faults += [f"{missing} frames are missing"] if missing else []
        outcome.faults += load.ledger.faults
        if load.ledger.totals.disordered:
            outcome.faults.append(f"{load.ledger.totals.disordered} frames out of order")
        outcome.faults += await asyncio.to_thread(_undone, daemon, sids)
    return outcome


def _cores() -> tuple[int, int, int] | tuple[None, None, None]:
    """The daemon's, the load's and the REST API's."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1], cores[2 if cores[2:] else 1]) if cores[1:] else (None, None, None)


def _keep_audio(daemon: RunningDaemon, sids: list[str]) -> None:
    """Puts the callers' audio where the daemon keeps it."""
    for call_sid in sids:
        file = AudioFile(daemon.data / "audio" / f"{call_sid}.wav", 1)
        file.write([(0, Piece(0, SPOKEN.ulaw))])
        file.close()


def _line(call_sid: str) -> bytes:
    """A call that has ended, as the daemon is handed it."""
    events: list[tuple[str, dict[str, Any]]] = [
        ("call_started", {"from": "+33612345678", "to": "+33123456789", "direction": "inbound"}),
        ("leg_started", {"leg": 1, "stream_sid": new_sid("MZ")}),
        ("turn", {"id": "item_0", "role": "caller", "start_ms": 0, "end_ms": round(SPOKEN.duration_ms)}),
    ]
    for number, name in enumerate(TURNS, 1):
        said = speech.load(name)
        turn = {"id": f"item_{number}", "after": f"item_{number - 1}", "role": said.role, "text": said.text}
        events.append(("turn", turn))
    events.append(("call_ended", {"reason": "caller_hung_up"}))
    return orjson.dumps((call_sid, events)) + b"\n"


def _undone(daemon: RunningDaemon, sids: list[str]) -> list[str]:
    """The calls of the batches whose processing is not complete."""
    records = daemon.records()
    undone = []
    for call_sid in sids:
        record = records.get(call_sid)
        if record is None:
            undone.append(f"{call_sid}: not saved")
        elif record.turns[0].text != SPOKEN.text or (record.extraction or {}).get("status") != "complete":
            undone.append(f"{call_sid}: {record.turns[0]}, {record.extraction}")
    return undone


class _Rest:
    """The REST API's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    def say(self, command: str) -> None:
        """Gives it a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")


@contextlib.asynccontextmanager
async def _rest() -> AsyncIterator[_Rest]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.soak.rest_process"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield _Rest(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
