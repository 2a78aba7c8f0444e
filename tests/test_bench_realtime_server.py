"""The simulator over real sockets: handshakes, faults, and the openai package's own client."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import AsyncOpenAI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from handlehome.bench.realtime import server
from handlehome.bench.realtime.script import Answer, Faults, Script
from handlehome.bench.realtime.server import RealtimeSimulator
from tests.bench_realtime_driver import LOUD, PHONE, QUIET, audio_of, types

HELLO = Answer(text="Bonjour, que puis-je faire ?", audio=bytes(range(256)) * 30, pace=50)


@asynccontextmanager
async def client_of(
    simulator: RealtimeSimulator, *, query: str = "?model=gpt-realtime-2.1", key: str = "sk-test"
) -> AsyncIterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with connect(
        simulator.url + query, additional_headers=headers, compression=None, proxy=None, close_timeout=0.2
    ) as websocket:
        yield websocket


async def send(websocket: ClientConnection, kind: str, **fields: Any) -> None:
    await websocket.send(json.dumps({"type": kind, **fields}))


async def read_until(websocket: ClientConnection, kind: str) -> list[dict[str, Any]]:
    events = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(await asyncio.wait_for(websocket.recv(), 5)))
    return events


async def configure(websocket: ClientConnection) -> None:
    await send(websocket, "session.update", session=PHONE)
    await read_until(websocket, "session.updated")


async def append(websocket: ClientConnection, frame: bytes, count: int = 1) -> None:
    for _ in range(count):
        await send(websocket, "input_audio_buffer.append", audio=base64.b64encode(frame).decode())


async def test_a_call_over_a_real_socket() -> None:
    """Greeting, a question found by energy, its answer interrupted, the item truncated."""
    script = Script(
        greeting=HELLO,
        answers=[Answer(text="Oui.", audio=QUIET * 500, pace=4)],
        caller_texts=["Ouvert ?"],
        late_deltas=2,
    )
    async with RealtimeSimulator(script, api_key="sk-test") as simulator, client_of(simulator) as websocket:
        await configure(websocket)
        await send(websocket, "response.create")
        assert audio_of(await read_until(websocket, "response.done")) == HELLO.audio
        await append(websocket, LOUD, 25)
        await append(websocket, QUIET, 30)
        delta = (await read_until(websocket, "response.output_audio.delta"))[-1]
        await append(websocket, LOUD, 25)
        events = await read_until(websocket, "response.done")
        assert "input_audio_buffer.speech_started" in types(events)
        assert events[-1]["response"]["status_details"]["reason"] == "turn_detected"
        await send(
            websocket,
            "conversation.item.truncate",
            item_id=delta["item_id"],
            content_index=0,
            audio_end_ms=10,
        )
        await read_until(websocket, "conversation.item.truncated")
        session = await simulator.wait_session()
        assert session.violations == []
        assert [ms for _, _, ms, ok in session.truncations if ok] == [10]
        assert session.audio == LOUD * 25 + QUIET * 30 + LOUD * 25
        assert len(session.response_creates) == 1
    assert session.closed == (1000, "")


async def test_the_openai_package_holds_a_session() -> None:
    """The SDK's realtime client is configured, greeted, heard and answered."""
    script = Script(greeting=HELLO, answers=[HELLO], caller_texts=["Vous êtes ouverts ?"])
    async with RealtimeSimulator(script, api_key="sk-test") as simulator:
        openai = AsyncOpenAI(base_url=f"http://127.0.0.1:{simulator.port}/v1", api_key="sk-test")
        async with (
            openai,
            openai.realtime.connect(
                model="gpt-realtime-2.1", websocket_connection_options={"proxy": None, "close_timeout": 1}
            ) as connection,
        ):
            assert (await connection.recv()).type == "session.created"
            await connection.session.update(session=PHONE)
            updated = await connection.recv()
            assert updated.type == "session.updated"
            assert updated.session.audio.input.turn_detection.prefix_padding_ms == 300
            await connection.response.create(response={"instructions": "Greet.", "metadata": {"n": "1"}})
            audio, transcript = b"", ""
            async for event in connection:
                if event.type == "response.output_audio.delta":
                    audio += base64.b64decode(event.delta)
                elif event.type == "response.output_audio_transcript.delta":
                    transcript += event.delta
                elif event.type == "response.done":
                    assert event.response.metadata == {"n": "1"}
                    assert event.response.usage.output_token_details.audio_tokens == 19
                    item_id = event.response.output[0].id
                    break
            assert (audio, transcript) == (HELLO.audio, HELLO.text)
            await connection.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=50)
            for frame in [LOUD] * 25 + [QUIET] * 30:
                await connection.input_audio_buffer.append(audio=base64.b64encode(frame).decode())
            seen = []
            async for event in connection:
                seen.append(event.type)
                if event.type == "conversation.item.input_audio_transcription.completed":
                    assert event.transcript == "Vous êtes ouverts ?"
                    break
            assert "conversation.item.truncated" in seen
            assert "response.created" in seen
        session = simulator.sessions[0]
        await session.wait_closed()
        assert (session.violations, session.closed) == ([], (1000, ""))


@pytest.mark.parametrize(
    ("query", "key", "status", "code"),
    [
        ("?model=m", "", 401, "invalid_api_key"),
        ("?model=m", "wrong", 401, "invalid_api_key"),
        ("", "sk-test", 400, "missing_model"),
        ("/other?model=m", "sk-test", 404, "not_found"),
    ],
)
async def test_a_wrong_handshake_is_refused(query: str, key: str, status: int, code: str) -> None:
    async with RealtimeSimulator(Script(), api_key="sk-test") as simulator:
        with pytest.raises(InvalidStatus) as refused:
            async with client_of(simulator, query=query, key=key):
                pass
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body)["error"]["code"] == code
        assert simulator.sessions == []


async def test_each_handshake_has_its_own_script() -> None:
    """The first is refused by the script, the second is slow and served."""
    scripts = [
        Script(faults=Faults(handshake_status=503)),
        Script(faults=Faults(handshake_delay_s=0.1)),
    ]
    async with RealtimeSimulator(lambda number: scripts[number]) as simulator:
        with pytest.raises(InvalidStatus) as refused:
            async with client_of(simulator):
                pass
        assert refused.value.response.status_code == 503
        start = asyncio.get_running_loop().time()
        async with client_of(simulator) as websocket:
            await read_until(websocket, "session.created")
        assert asyncio.get_running_loop().time() - start >= 0.09
        assert (await simulator.wait_session(0)).number == 1
        assert simulator.handshakes == 2


async def test_an_expired_session_closes_with_1001_and_its_reason() -> None:
    async with (
        RealtimeSimulator(Script(faults=Faults(expire_after_s=0.05))) as simulator,
        client_of(simulator) as websocket,
    ):
        (_, error) = await read_until(websocket, "error")
        assert error["error"]["code"] == "session_expired"
        with pytest.raises(ConnectionClosedOK) as closed:
            await websocket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
            1001,
            "Your session hit the maximum duration of 60 minutes.",
        )


async def test_a_dropped_connection_has_no_close_frame() -> None:
    async with (
        RealtimeSimulator(Script(faults=Faults(drop_at=("session.updated", 1)))) as simulator,
        client_of(simulator) as websocket,
    ):
        await read_until(websocket, "session.created")
        await send(websocket, "session.update", session=PHONE)
        with pytest.raises(ConnectionClosedError) as closed:
            await read_until(websocket, "never")
        assert closed.value.rcvd is None
        assert (await (await simulator.wait_session()).wait_closed())[0] == 1006


@pytest.mark.parametrize("answer", ["silence", "drop"])
async def test_a_close_frame_may_go_unanswered(answer: Any) -> None:
    async with RealtimeSimulator(Script(faults=Faults(close_answer=answer))) as simulator:
        async with client_of(simulator) as websocket:
            await read_until(websocket, "session.created")
        assert websocket.protocol.close_rcvd is None
        await simulator.sessions[0].wait_closed()


async def test_the_simulator_closes_what_is_open_when_it_stops() -> None:
    async with RealtimeSimulator(Script()) as simulator:
        async with client_of(simulator) as websocket:
            await read_until(websocket, "session.created")
            session = await simulator.wait_session()
            await simulator.__aexit__(None, None, None)
            with pytest.raises(ConnectionClosedOK):
                await websocket.recv()
        assert session.closed == (1001, "simulator stops")


async def test_a_session_that_never_comes_is_not_waited_for_for_ever() -> None:
    async with RealtimeSimulator(Script()) as simulator:
        with pytest.raises(TimeoutError):
            await simulator.wait_session(timeout_s=0.01)


async def test_the_beta_header_is_a_violation() -> None:
    async with (
        RealtimeSimulator(Script()) as simulator,
        connect(
            simulator.url + "?model=m",
            additional_headers={"Authorization": "Bearer k", "OpenAI-Beta": "realtime=v1"},
            proxy=None,
        ),
    ):
        session = await simulator.wait_session()
        assert session.violations == ["header OpenAI-Beta: the beta interface is gone"]


async def test_echo_carries_twenty_sessions_byte_for_byte() -> None:
    async with RealtimeSimulator(Script(echo=True), keep_audio=False) as simulator:

        async def call(number: int) -> None:
            async with client_of(simulator) as websocket:
                await configure(websocket)
                audio = bytes((number + index) % 256 for index in range(160 * 50))
                for offset in range(0, len(audio), 160):
                    await append(websocket, audio[offset : offset + 160])
                back = b""
                while len(back) < len(audio):
                    back += audio_of([json.loads(await websocket.recv())])
                assert back == audio

        await asyncio.gather(*(call(number) for number in range(20)))
        assert [session.violations for session in simulator.sessions] == [[]] * 20
        assert all(session.appended == 8000 and not session.audio for session in simulator.sessions)


async def test_it_runs_alone_and_tells_each_turn() -> None:
    lines: list[str] = []
    started = asyncio.Event()

    def log(line: str) -> None:
        lines.append(line)
        started.set()

    task = asyncio.create_task(server.run("127.0.0.1", 0, Script(greeting=HELLO), log=log))
    await started.wait()
    url = lines[0].split()[-1]
    async with connect(
        url + "?model=m", additional_headers={"Authorization": "Bearer k"}, proxy=None
    ) as websocket:
        await configure(websocket)
        await send(websocket, "response.create")
        await read_until(websocket, "response.done")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lines[1:] == [
        "[0] session opened",
        f"[0] assistant (completed): {HELLO.text}",
        "[0] session closed: 1000",
    ]
