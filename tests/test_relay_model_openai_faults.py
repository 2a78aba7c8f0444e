"""What goes wrong on the model's side: strange events, lost and silent connections, slow readers."""

import asyncio
import base64
from typing import Any

import orjson
import pytest
from websockets.asyncio.server import ServerConnection

from handlehome.bench.realtime.script import Answer, Faults, Script
from handlehome.bench.realtime.server import RealtimeSimulator
from handlehome.relay.model import openai
from handlehome.relay.model.interface import ModelLost
from handlehome.relay.model.openai import (
    KEEPALIVE_SECONDS,
)
from tests.relay_model_room import (
    PATIENCE,
    SPEECH,
    Room,
    conversation,
    nothing_left,
    open_sockets,
    scripted,
)

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
