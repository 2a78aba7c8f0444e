"""The Realtime handler over real sockets: opening, and a conversation with the simulated server."""

import asyncio
import socket

import orjson
import pytest

from handlehome.bench.realtime.script import Answer, Faults, Script
from handlehome.bench.realtime.server import RealtimeSimulator
from handlehome.codecs.framepool import BLOCK_BYTES
from handlehome.relay.model.interface import ModelLost
from handlehome.relay.model.openai import (
    EARLY_AUDIO_BYTES,
    OPEN_SECONDS,
    Endpoint,
)
from tests.relay_model_room import (
    KEY,
    MANUAL,
    PATIENCE,
    SESSION,
    SPEECH,
    Room,
    conversation,
    nothing_left,
    open_sockets,
)

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
