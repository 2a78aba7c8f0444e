"""A Realtime handler on real sockets and virtual time, and what it tells; for tests."""

import asyncio
import base64
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Script
from handlehome.bench.realtime.server import RealtimeSimulator
from handlehome.codecs.framepool import FramePool
from handlehome.relay.model.interface import ModelLost
from handlehome.relay.model.openai import Endpoint, OpenAIMessageHandler
from handlehome.relay.model.pcm import PcmTranscoder
from handlehome.relay.wheel import TimerWheel
from tests.virtual_time import VirtualClock

PATIENCE = 10.0
KEY = "sk-test"
PCMU = {"type": "audio/pcmu"}
SESSION: dict[str, Any] = {
    "type": "realtime",
    "instructions": "Be brief.",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": PCMU,
            "transcription": {"model": "gpt-transcribe"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 500, "create_response": True},
        },
        "output": {"format": PCMU, "voice": "marin"},
    },
}
SPEECH = bytes(random.Random(1).randbytes(24_000))
MANUAL = Script(vad="manual")


class Recorder:
    """The call's place: writes down what it is told, audio apart."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.audio: dict[str, bytearray] = {}
        self.changed = asyncio.Event()

    def _note(self, *entry: Any) -> None:
        self.told.append(entry)
        self.changed.set()

    def model_ready(self) -> None:
        self._note("ready")

    def model_lost(self, reason: ModelLost, detail: str) -> None:
        self._note("lost", reason, detail)

    def caller_started(self, item_id: str, start_ms: int) -> None:
        self._note("caller_started", item_id, start_ms)

    def caller_stopped(self, item_id: str, end_ms: int) -> None:
        self._note("caller_stopped", item_id, end_ms)

    def item_placed(self, item_id: str, after: str | None, role: str | None) -> None:
        self._note("item_placed", item_id, after, role)

    def caller_said(self, item_id: str, text: str | None) -> None:
        self._note("caller_said", item_id, text)

    def assistant_audio(self, response_id: str, item_id: str, payload: bytes, size: int) -> None:
        ulaw = base64.b64decode(payload, validate=True)
        assert len(ulaw) == size
        self.audio.setdefault(item_id, bytearray()).extend(ulaw)
        self.changed.set()

    def assistant_audio_done(self, item_id: str) -> None:
        self._note("audio_done", item_id)

    def assistant_said(self, item_id: str, text: str, *, final: bool) -> None:
        if final:
            self._note("assistant_said", item_id, text)

    def response_done(self, response_id: str, status: str, detail: str | None) -> None:
        self._note("response_done", response_id, status, detail)

    def used(self, source: str, model: str, counts: Mapping[str, float]) -> None:
        self._note("used", source, model, dict(counts))

    def tool_called(self, call_id: str, name: str, arguments: str) -> None:
        self._note("tool_called", call_id, name, arguments)

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [entry[1:] for entry in self.told if entry[0] == kind]

    async def wait(self, kind: str, count: int = 1) -> tuple[Any, ...]:
        """Waits for the count-th entry of a kind."""
        await self.until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)[count - 1]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Room:
    """A handler on virtual time with its recorder and pool."""

    def __init__(
        self,
        url: str,
        *,
        key: str = KEY,
        session: dict[str, Any] | None = None,
        transcoder: PcmTranscoder | None = None,
    ) -> None:
        self.told = Recorder()
        self.clock = VirtualClock()
        self.wheel = TimerWheel(self.clock)
        self.pool = FramePool(100)
        self.handler = OpenAIMessageHandler(
            Endpoint(url, "gpt-realtime-2.1", key),
            session or SESSION,
            self.told,
            pool=self.pool,
            wheel=self.wheel,
            clock=self.clock.time,
            transcoder=transcoder,
        )

    def hear(self, ulaw: bytes, frame: int = 160) -> None:
        for start in range(0, len(ulaw), frame):
            chunk = ulaw[start : start + frame]
            self.handler.hear(base64.b64encode(chunk), len(chunk))

    def assert_all_is_free(self) -> None:
        assert self.wheel.pending == 0
        assert self.pool.in_use == 0


def open_sockets() -> int:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(entry.readlink()))
    return sum(link.startswith("socket:") for link in links)


async def nothing_left(tasks: set[asyncio.Task[Any]], sockets: int) -> None:
    """Waits until there are no more tasks and sockets than before."""
    async with asyncio.timeout(PATIENCE):
        while asyncio.all_tasks() - tasks or open_sockets() > sockets:  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def conversation(script: Script = MANUAL, **options: Any) -> AsyncIterator[tuple[Room, SimSession]]:
    """A ready conversation; afterwards it is closed, and nothing of it may be left."""
    async with asyncio.timeout(2 * PATIENCE), RealtimeSimulator(script, api_key=KEY) as simulator:
        room = Room(simulator.url, **options)
        room.handler.open()
        session = await simulator.wait_session()
        await room.told.wait("ready")
        yield room, session
        room.handler.close()
        await session.wait_closed()
    room.assert_all_is_free()


@contextlib.asynccontextmanager
async def scripted(act: Callable[[ServerConnection], Awaitable[object]]) -> AsyncIterator[Room]:
    """A server that configures the session and then does what `act` does, until the test is over."""
    over = asyncio.Event()

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send('{"type":"session.updated","session":{}}')
        acting = asyncio.ensure_future(act(connection))
        await over.wait()
        acting.cancel()
        connection.transport.abort()

    async with (
        asyncio.timeout(2 * PATIENCE),
        serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server,
    ):
        port = next(iter(server.sockets)).getsockname()[1]
        room = Room(f"ws://127.0.0.1:{port}/v1/realtime")
        room.handler.open()
        try:
            await room.told.wait("ready")
            yield room
        finally:
            room.handler.close()
            over.set()
    room.assert_all_is_free()
