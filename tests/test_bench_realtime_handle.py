"""Driving a session from a test: triggers, injected events, waiting."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from handlehome.bench.realtime.handle import SimSession
from handlehome.bench.realtime.script import Answer, Script
from handlehome.bench.realtime.server import RealtimeSimulator
from tests.bench_realtime_driver import PHONE, QUIET

Pair = tuple[ClientConnection, SimSession]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """A configured client and the handle on its session; speech is triggered by hand."""
    script = Script(greeting=Answer(text="Bonjour.", audio=QUIET * 500, pace=2), vad="manual")
    async with RealtimeSimulator(script) as simulator:
        headers = {"Authorization": "Bearer k"}
        async with connect(simulator.url + "?model=m", additional_headers=headers, proxy=None) as websocket:
            await websocket.send(json.dumps({"type": "session.update", "session": PHONE}))
            session = await simulator.wait_session()
            await session.wait_until(lambda session: session.session.configured)
            for _ in range(2):
                await websocket.recv()
            yield websocket, session


async def receive(websocket: ClientConnection) -> dict[str, object]:
    event: dict[str, object] = json.loads(await asyncio.wait_for(websocket.recv(), 5))
    return event


async def test_a_trigger_tells_when_it_was_sent(pair: Pair) -> None:
    websocket, session = pair
    before = time.monotonic()
    sent = session.speech_started()
    assert before <= sent <= time.monotonic()
    assert session.sent[-1].t == sent
    assert (await receive(websocket))["type"] == "input_audio_buffer.speech_started"
    session.speech_stopped()
    assert (await receive(websocket))["type"] == "input_audio_buffer.speech_stopped"


async def test_a_trigger_interrupts_the_answer(pair: Pair) -> None:
    websocket, session = pair
    await websocket.send('{"type":"response.create"}')
    await session.wait_until(
        lambda session: any(e.type == "response.output_audio.delta" for e in session.sent)
    )
    session.speech_started()
    await session.wait_until(lambda session: session.sent[-1].type == "rate_limits.updated")
    (item_id,) = session.items
    assert 0 < session.generated_ms(item_id) < 10_000
    await websocket.send(
        json.dumps(
            {
                "type": "conversation.item.truncate",
                "item_id": item_id,
                "content_index": 0,
                "audio_end_ms": 10_001,
            }
        )
    )
    await session.wait_until(lambda session: len(session.truncations) == 1)
    assert session.truncations[0][2:] == (10_001, False)
    assert len(session.violations) == 1
    assert session.received[-1][1]["audio_end_ms"] == 10_001


async def test_any_event_can_be_injected(pair: Pair) -> None:
    websocket, session = pair
    session.send_raw({"type": "conversation.item.truncated", "event_id": "e", "item_id": "nobody"})
    assert (await receive(websocket))["item_id"] == "nobody"


async def test_a_session_expires_on_demand(pair: Pair) -> None:
    websocket, session = pair
    session.expire()
    assert (await receive(websocket))["type"] == "error"
    assert (await session.wait_closed())[0] == 1001


async def test_a_dropped_session_can_not_be_driven(pair: Pair) -> None:
    websocket, session = pair
    session.drop()
    with pytest.raises(ConnectionClosed):
        await websocket.recv()
    assert await session.wait_closed() == (1006, "")
    for action in (session.speech_started, session.speech_stopped, session.expire, session.drop):
        with pytest.raises(ValueError, match="over"):
            action()


async def test_waiting_ends_after_its_time(pair: Pair) -> None:
    _, session = pair
    with pytest.raises(TimeoutError):
        await session.wait_until(lambda session: False, 0.01)
