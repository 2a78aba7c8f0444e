"""The plain relay, against a model and a phone played by hand."""

from __future__ import annotations

import asyncio
import base64
import signal
import sys
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from handlehome.bench.baseline import serving

SID = "MZ" + "0" * 32


def media(timestamp_ms: int, ulaw: bytes) -> dict[str, Any]:
    payload = base64.b64encode(ulaw).decode()
    return {
        "event": "media",
        "streamSid": SID,
        "media": {"track": "inbound", "timestamp": str(timestamp_ms), "payload": payload},
    }


def delta(ulaw: bytes) -> dict[str, Any]:
    return {
        "type": "response.output_audio.delta",
        "item_id": "item_1",
        "delta": base64.b64encode(ulaw).decode(),
    }


async def send(connection: ClientConnection | ServerConnection, message: dict[str, Any]) -> None:
    await connection.send(orjson.dumps(message), text=True)


async def receive(connection: ClientConnection | ServerConnection) -> dict[str, Any]:
    return dict(orjson.loads(await asyncio.wait_for(connection.recv(), 5)))


async def test_a_call() -> None:
    """It configures the model first, then relays both ways with a mark per 60 ms, and cuts on speech."""
    sessions: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def accept(connection: ServerConnection) -> None:
        sessions.put_nowait(connection)
        await connection.wait_closed()

    async with serve(accept, "127.0.0.1", 0) as server:
        model_url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
        async with serving(model_url) as port, connect(f"ws://127.0.0.1:{port}/media-stream") as phone:
            await send(phone, {"event": "connected"})
            await send(phone, {"event": "start", "streamSid": SID})
            await send(phone, media(20, b"a" * 160))
            model = await asyncio.wait_for(sessions.get(), 5)
            assert (await receive(model))["type"] == "session.update"
            await send(model, {"type": "session.created"})
            await send(model, {"type": "session.updated"})
            assert await receive(model) == {"type": "response.create"}
            assert await receive(model) == {
                "type": "input_audio_buffer.append",
                "audio": base64.b64encode(b"a" * 160).decode(),
            }
            for _ in range(3):
                await send(model, delta(b"b" * 160))
            heard = [await receive(phone) for _ in range(4)]
            assert [message["event"] for message in heard] == ["media", "media", "media", "mark"]
            assert heard[0]["media"] == {"payload": base64.b64encode(b"b" * 160).decode()}
            await send(phone, media(60, b"a" * 160))
            await receive(model)
            await send(model, {"type": "input_audio_buffer.speech_started"})
            assert await receive(phone) == {"event": "clear", "streamSid": SID}
            assert await receive(model) == {
                "type": "conversation.item.truncate",
                "item_id": "item_1",
                "content_index": 0,
                "audio_end_ms": 40,
            }
            await send(phone, {"event": "stop"})
            await asyncio.wait_for(model.wait_closed(), 5)


async def test_by_itself_it_prints_its_address_and_ends_on_sigterm() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "handlehome.bench.baseline", "--model-url", "ws://127.0.0.1:1/"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 20)
    assert line.startswith(b"The baseline answers on http://127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 5) == 0
