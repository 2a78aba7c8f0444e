"""The Realtime handler over real sockets, against the simulated server; timers in virtual time."""

import asyncio
import base64
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from websockets.asyncio.server import ServerConnection, serve

from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Answer, Faults, Script
from handlehome.bench.realtime.server import RealtimeSimulator
from handlehome.codecs.framepool import BLOCK_BYTES, FramePool
from handlehome.relay.model import openai
from handlehome.relay.model.interface import ModelLost
from handlehome.relay.model.openai import (
    EARLY_AUDIO_BYTES,
    KEEPALIVE_SECONDS,
    OPEN_SECONDS,
    Endpoint,
    OpenAIMessageHandler,
)
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

    def __init__(self, url: str, *, key: str = KEY, session: dict[str, Any] | None = None) -> None:
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


# ---- opening -------------------------------------------------------------------------------------


async def test_a_session_is_configured_and_closed_with_1000() -> None:
    async with conversation() as (room, session):
        assert [event["type"] for _, event in session.received] == ["session.update"]
        assert room.handler.ready
        assert room.told.told == [("ready",)]
    assert session.closed == (1000, "")
    assert session.violations == []
    assert not room.handler.ready


@pytest.mark.parametrize("size", [160, 4000, BLOCK_BYTES, BLOCK_BYTES * 2 + 77, EARLY_AUDIO_BYTES])
async def test_audio_before_the_session_is_ready_arrives_whole_and_in_order(size: int) -> None:
    speech = (SPEECH * 4)[:size]
    async with RealtimeSimulator(Script(vad="manual", session_update_ms=(50, 50))) as simulator:
        room = Room(simulator.url)
        room.handler.open()
        room.hear(speech[: size // 2])
        session = await simulator.wait_session()
        room.hear(speech[size // 2 :])
        assert room.pool.in_use > 0
        await room.told.wait("ready")
        assert room.pool.in_use == 0
        room.hear(SPEECH[:1600])
        await session.wait_until(lambda s: s.appended >= size + 1600)
        assert bytes(session.audio) == speech + SPEECH[:1600]
        assert session.violations == []
        assert room.handler.heard_bytes == size + 1600
        assert room.handler.dropped_bytes == 0
        room.handler.close()
        await session.wait_closed()
    room.assert_all_is_free()


async def test_more_than_ten_seconds_of_early_audio_are_dropped_and_counted() -> None:
    """What came first is kept, since it holds the caller's first word."""
    speech = SPEECH * 4
    async with RealtimeSimulator(Script(vad="manual", session_update_ms=(50, 50))) as simulator:
        room = Room(simulator.url)
        room.handler.open()
        room.hear(speech)
        session = await simulator.wait_session()
        await room.told.wait("ready")
        await session.wait_until(lambda s: s.appended >= EARLY_AUDIO_BYTES)
        assert bytes(session.audio) == speech[:EARLY_AUDIO_BYTES]
        assert room.handler.dropped_bytes == len(speech) - EARLY_AUDIO_BYTES
        assert room.handler.heard_bytes == EARLY_AUDIO_BYTES
        room.handler.close()
        await session.wait_closed()


async def test_a_wrong_key_is_told_as_refused() -> None:
    async with RealtimeSimulator(MANUAL, api_key="another") as simulator:
        room = Room(simulator.url)
        room.handler.open()
        room.hear(SPEECH)
        reason, detail = await room.told.wait("lost")
    assert reason is ModelLost.REFUSED
    assert "401" in detail
    assert KEY not in detail
    room.assert_all_is_free()


async def test_a_model_that_nobody_listens_for_is_unreachable() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    room = Room(f"ws://127.0.0.1:{port}/v1/realtime")
    room.handler.open()
    reason, detail = await room.told.wait("lost")
    assert reason is ModelLost.UNREACHABLE
    assert detail
    room.assert_all_is_free()


async def test_a_slow_handshake_is_waited_for() -> None:
    script = Script(vad="manual", faults=Faults(handshake_delay_s=0.1))
    async with conversation(script) as (room, _):
        room.clock.advance(OPEN_SECONDS)
        assert room.told.of("lost") == []


@pytest.mark.parametrize(
    "script",
    [
        Script(faults=Faults(handshake_delay_s=0.5)),
        Script(session_update_ms=(30_000, 30_000)),
    ],
    ids=["handshake", "session.updated"],
)
async def test_a_session_that_is_never_ready_is_given_up(script: Script) -> None:
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    async with RealtimeSimulator(script) as simulator:
        room = Room(simulator.url)
        room.handler.open()
        room.hear(SPEECH)
        async with asyncio.timeout(PATIENCE):
            while not simulator.handshakes:  # noqa: ASYNC110 - the simulator doesn't tell
                await asyncio.sleep(0)
        room.clock.advance(OPEN_SECONDS - 0.1)
        assert room.told.told == []
        room.clock.advance(0.2)
        reason, _ = await room.told.wait("lost")
        assert reason is ModelLost.NOT_READY
        room.assert_all_is_free()
    await nothing_left(tasks, sockets)


async def test_a_session_whose_configuration_is_refused_is_lost() -> None:
    session = {**SESSION, "temperature": 0.8}
    async with RealtimeSimulator(MANUAL) as simulator:
        room = Room(simulator.url, session=session)
        room.handler.open()
        reason, detail = await room.told.wait("lost")
    assert reason is ModelLost.REFUSED
    assert "unknown_parameter" in detail
    room.assert_all_is_free()


@pytest.mark.parametrize("script", [MANUAL, Script(faults=Faults(handshake_delay_s=0.05))])
@pytest.mark.parametrize("turns", range(0, 24, 3))
async def test_closing_at_any_moment_of_the_opening_leaves_nothing(script: Script, turns: int) -> None:
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    async with RealtimeSimulator(script) as simulator:
        room = Room(simulator.url)
        room.handler.open()
        room.hear(SPEECH)
        for _ in range(turns):
            await asyncio.sleep(0)
        ready = room.told.told[:]
        room.handler.close()
        room.handler.close()
        room.hear(SPEECH)
        room.assert_all_is_free()
        await asyncio.sleep(0.01)
        assert room.told.told == ready
    await nothing_left(tasks, sockets)
    assert room.told.of("lost") == []


def test_the_model_is_named_in_the_query_and_the_key_in_a_header() -> None:
    endpoint = Endpoint("wss://api.openai.com/v1/realtime", "gpt 2/x&y", "sk")
    assert endpoint.address() == "wss://api.openai.com/v1/realtime?model=gpt%202/x%26y"
    assert endpoint.headers() == {"Authorization": "Bearer sk"}
    assert Endpoint("ws://h/p?a=b", "m", "").address() == "ws://h/p?a=b&model=m"
    assert Endpoint("ws://h/p", "m", "").headers() == {}


# ---- a conversation ------------------------------------------------------------------------------


async def test_an_answer_is_told_whole_and_in_order() -> None:
    greeting = Answer(text="Bonjour, que puis-je faire ?", audio=SPEECH, pace=1000)
    async with conversation(Script(vad="manual", greeting=greeting)) as (room, session):
        room.handler.answer("greeting", "Say hello.")
        _, status, detail = await room.told.wait("response_done")
        ((item_id, text),) = room.told.of("assistant_said")
        assert (status, detail) == ("completed", None)
        assert text == greeting.text
        assert bytes(room.told.audio[item_id]) == SPEECH
        assert room.told.of("item_placed") == [(item_id, None, "assistant")]
        assert room.told.of("audio_done") == [(item_id,)]
        ((_, request),) = session.response_creates
        assert request == {"metadata": {"purpose": "greeting"}, "instructions": "Say hello."}
        assert room.handler.slow_deltas == 0
        assert room.handler.active_response is None
    assert session.violations == []


async def test_a_turn_of_the_callers() -> None:
    script = Script(
        vad="manual",
        answers=[Answer(text="Oui.", audio=SPEECH[:4000], pace=100)],
        caller_texts=["Bonjour ?"],
        transcription_ms=(0, 0),
    )
    async with conversation(script) as (room, session):
        room.hear(SPEECH[:8000])
        await session.wait_until(lambda s: s.appended == 8000)
        session.speech_started()
        session.speech_stopped()
        await room.told.wait("response_done")
        user = room.told.of("caller_started")[0][0]
        assert room.told.of("caller_stopped")[0][0] == user
        assert room.told.of("caller_said") == [(user, "Bonjour ?")]
        places = room.told.of("item_placed")
        assert places[0] == (user, None, "user")
        assert places[-1][1:] == (user, "assistant")
        assert session.response_creates == []


async def test_an_interruption_is_truncated_by_the_server() -> None:
    greeting = Answer(text="Bonjour.", audio=SPEECH, pace=1)
    async with conversation(Script(vad="manual", greeting=greeting)) as (room, session):
        room.handler.answer("greeting")
        await room.told.until(lambda: bool(room.told.audio))
        (item_id,) = room.told.audio
        room.hear(SPEECH[:1600])
        session.speech_started()
        await room.told.wait("caller_started")
        room.handler.cut(item_id, 10)
        _, status, _ = await room.told.wait("response_done")
        assert status == "cancelled"
        await session.wait_until(lambda s: bool(s.truncations))
        assert session.truncations[0][1:] == (item_id, 10, True)
        assert room.told.of("audio_done") == [(item_id,)]
    assert session.violations == []


async def test_a_response_is_cancelled() -> None:
    greeting = Answer(text="Bonjour.", audio=SPEECH, pace=0.5)
    async with conversation(Script(vad="manual", greeting=greeting)) as (room, session):
        room.handler.answer("greeting")
        await room.told.until(lambda: bool(room.told.audio))
        response = room.handler.active_response
        assert response is not None
        room.handler.cancel(response)
        room.handler.cancel(response)
        assert (await room.told.wait("response_done"))[:2] == (response, "cancelled")
        await session.wait_until(lambda s: bool(s.errors))
        assert [error.code for error in session.errors] == ["response_cancel_not_active"]
    assert session.violations == []


async def test_a_tool_is_called_and_its_result_answered() -> None:
    script = Script(
        vad="manual",
        answers=[
            Answer(text="Je regarde.", audio=SPEECH[:800], pace=100, function_call=("look", '{"a": 1}')),
            Answer(text="Voilà.", audio=SPEECH[:800], pace=100),
        ],
    )
    async with conversation(script) as (room, session):
        room.handler.answer("first")
        call_id, name, arguments = await room.told.wait("tool_called")
        assert (name, orjson.loads(arguments)) == ("look", {"a": 1})
        room.handler.tool_result(call_id, {"ok": True, "mot": "é"})
        room.handler.answer("tool")
        await room.told.wait("response_done", 2)
        assert len(session.response_creates) == 2
        assert session.errors == type(session.errors)()
    assert session.violations == []


async def test_a_failed_response_is_told_with_its_code() -> None:
    script = Script(vad="manual", greeting=Answer(fail="inference_rate_limit_exceeded"))
    async with conversation(script) as (room, _):
        room.handler.answer("greeting")
        done = await room.told.wait("response_done")
        assert done[1:] == ("failed", "inference_rate_limit_exceeded")


async def test_a_transcription_that_fails_is_told() -> None:
    script = Script(vad="manual", transcription_faults={"failed": {0}}, transcription_ms=(0, 0))
    async with conversation(script) as (room, session):
        room.hear(SPEECH[:8000])
        await session.wait_until(lambda s: s.appended == 8000)
        session.speech_started()
        session.speech_stopped()
        assert (await room.told.wait("caller_said"))[1] is None


@pytest.mark.parametrize("codeless", [False, True])
async def test_a_request_that_loses_the_race_is_granted_after_the_servers_own_response(
    codeless: bool,
) -> None:
    """The wish is sent while the server already begins an answer of its own."""
    script = Script(
        vad="manual",
        greeting=Answer(text="Bonjour.", audio=SPEECH[:800], pace=100),
        answers=[Answer(text="Oui.", audio=SPEECH[:8000], pace=10)],
        faults=Faults(codeless_errors=codeless),
    )
    async with conversation(script) as (room, session):
        # What the server does in one go reaches the client only afterwards; the wish crosses it.
        session.session.speaker.create(lambda: script.answers[0], {}, asyncio.get_running_loop().time())
        room.handler.answer("greeting", "Say hello.")
        await room.told.wait("response_done", 2)
        assert [text for _, text in room.told.of("assistant_said")] == ["Oui.", "Bonjour."]
        assert len(session.response_creates) == 2
    assert session.violations == []


# ---- what goes wrong -----------------------------------------------------------------------------


async def test_unknown_events_and_fields_are_tolerated() -> None:
    script = Script(
        vad="manual",
        greeting=Answer(text="Bonjour.", audio=SPEECH, pace=1000, function_call=("end_call", "{}")),
        transcription_ms=(0, 0),
        caller_texts=["Oui."],
        faults=Faults(unknown_event_every=2, unknown_fields=True),
    )
    async with conversation(script) as (room, session):
        room.handler.answer("greeting")
        await room.told.wait("response_done")
        assert bytes(next(iter(room.told.audio.values()))) == SPEECH
        assert room.handler.slow_deltas > 0
        assert len(room.told.of("tool_called")) == 1
        room.hear(SPEECH[:8000])
        await session.wait_until(lambda s: s.appended == 8000)
        session.speech_started()
        session.speech_stopped()
        assert (await room.told.wait("caller_said"))[1] == "Oui."
        assert room.handler.invalid_events == 0


async def test_codeless_errors_are_borne() -> None:
    async with conversation(Script(vad="manual", faults=Faults(codeless_errors=True))) as (room, session):
        room.handler.cancel("resp_unknown")
        room.handler.cut("item_unknown", 5)
        await session.wait_until(lambda s: len(s.errors) == 2)
        room.handler.answer("greeting")
        await room.told.wait("response_done")
        assert room.told.of("lost") == []


STRANGE: list[dict[str, Any]] = [
    {"type": "response.output_audio.delta", "delta": "AAAA"},
    {"type": "response.output_audio.delta", "response_id": "r", "item_id": "i", "delta": 'A"AA'},
    {"type": "response.output_audio.delta", "response_id": 1, "item_id": [], "delta": "AAAA"},
    {"type": "response.output_audio.done"},
    {"type": "input_audio_buffer.speech_started"},
    {"type": "input_audio_buffer.speech_started", "item_id": "i", "audio_start_ms": "soon"},
    {"type": "input_audio_buffer.speech_stopped", "item_id": "i", "audio_end_ms": None},
    {"type": "conversation.item.added", "item": None},
    {"type": "conversation.item.input_audio_transcription.completed", "item_id": "i"},
    {"type": "response.created"},
    {"type": "response.created", "response": []},
    {"type": "response.done", "response": {"id": "r"}},
    {"type": "response.done", "response": {"id": "r", "status": "failed", "status_details": "x"}},
    {"type": "response.output_item.done", "item": {"type": "function_call", "status": "completed"}},
    {"type": "error"},
    {"type": "error", "error": "x"},
    {"type": 5},
    {"kind": "none"},
]


async def test_events_that_are_not_as_documented_end_nothing() -> None:
    async with conversation() as (room, session):
        for event in STRANGE:
            session.send_raw(event)
        room.handler.answer("greeting")
        await room.told.wait("response_done")
        assert room.handler.invalid_events == len(STRANGE)
        assert room.told.of("lost") == []
        assert room.told.audio == {}


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


async def test_binary_and_malformed_messages_are_borne() -> None:
    async def act(connection: ServerConnection) -> None:
        for message in (b"\x00\xff", "{", "[]", "null", '"x"', "{}", ""):
            await connection.send(message)
        await connection.send('{"type":"input_audio_buffer.speech_started","item_id":"u","audio_start_ms":1}')

    async with scripted(act) as room:
        await room.told.wait("caller_started")
        assert room.handler.invalid_events == 7
        assert room.told.of("lost") == []


@pytest.mark.parametrize("code", sorted(openai.FATAL_CODES))
async def test_a_fatal_error_ends_the_conversation(code: str) -> None:
    async with conversation() as (room, session):
        session.send_raw({"type": "error", "error": {"type": "x", "code": code, "message": "No."}})
        reason, detail = await room.told.wait("lost")
        assert reason is ModelLost.REFUSED
        assert code in detail


async def test_a_dropped_connection_is_told_once() -> None:
    async with conversation() as (room, session):
        room.hear(SPEECH[:800])
        session.drop()
        reason, detail = await room.told.wait("lost")
        assert reason is ModelLost.DROPPED
        assert "1006" in detail
        room.hear(SPEECH)
        room.handler.answer("greeting")
        room.handler.cut("i", 1)
        room.assert_all_is_free()
        await session.wait_closed()
    assert len(room.told.of("lost")) == 1


async def test_an_expired_session_is_told_as_such() -> None:
    async with conversation() as (room, session):
        session.expire()
        reason, detail = await room.told.wait("lost")
        assert reason is ModelLost.EXPIRED
        assert "1001" in detail


@pytest.mark.parametrize("answer", ["silence", "drop"])
async def test_a_server_that_does_not_answer_the_close_leaves_nothing_behind(answer: Any) -> None:
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    script = Script(vad="manual", faults=Faults(close_answer=answer))
    async with RealtimeSimulator(script) as simulator:
        room = Room(simulator.url)
        room.handler.open()
        await room.told.wait("ready")
        room.handler.close()
        room.assert_all_is_free()
    await nothing_left(tasks, sockets)
    assert room.told.told == [("ready",)]


# ---- a silent or slow server ---------------------------------------------------------------------


async def test_a_silent_connection_is_pinged_and_lives_on() -> None:
    """The simulator answers pings; nothing else comes."""
    async with conversation() as (room, _):
        for _ in range(6):
            room.clock.advance(KEEPALIVE_SECONDS)
            connection = room.handler._connection
            assert connection is not None
            before = connection.frames_received
            async with asyncio.timeout(PATIENCE):
                while room.handler._pinged and connection.frames_received == before:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0)
        assert room.told.of("lost") == []


async def test_a_connection_that_answers_no_ping_is_given_up() -> None:
    """The other side's process hangs: its kernel acknowledges, nobody reads."""

    async def act(connection: ServerConnection) -> None:
        connection.transport.pause_reading()

    async with scripted(act) as room:
        # The session's own events count as a sign of life at the first look.
        room.clock.advance(3 * KEEPALIVE_SECONDS - 0.1)
        assert room.told.of("lost") == []
        room.clock.advance(0.2)
        reason, _ = await room.told.wait("lost")
        assert reason is ModelLost.SILENT


async def test_audio_waits_for_a_server_that_reads_slowly_and_keeps_its_order() -> None:
    heard = bytearray()
    go = asyncio.Event()
    total = 60 * len(SPEECH)

    async def act(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await go.wait()
        connection.transport.resume_reading()
        while len(heard) < total:
            event = orjson.loads(await connection.recv())
            heard.extend(base64.b64decode(event["audio"]))
        await connection.send('{"type":"input_audio_buffer.speech_started","item_id":"u","audio_start_ms":1}')

    async with scripted(act) as room:
        connection = room.handler._connection
        assert connection is not None
        sent = 0
        while not connection.write_paused:
            room.handler.hear(base64.b64encode(SPEECH), len(SPEECH))
            sent += len(SPEECH)
            await asyncio.sleep(0)
        total = sent + 3 * len(SPEECH)
        room.hear(SPEECH * 3)
        assert room.pool.in_use > 0
        assert room.handler.dropped_bytes == 0
        go.set()
        await room.told.wait("caller_started")
        assert room.pool.in_use == 0
        assert bytes(heard) == SPEECH * (total // len(SPEECH))
        room.hear(SPEECH[:160])
        assert room.pool.in_use == 0
