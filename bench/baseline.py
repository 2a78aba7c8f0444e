"""The relay that ours is measured against: two plain `async for` loops on websockets and orjson.

What a good programmer writes in an afternoon, with everything that makes this style fast: uvloop, no
compression, orjson, no limit on the receive queues, the collector frozen after start. Per call it
does what samples of this kind do:

* connects to the model and sends `session.update`, waits for `session.updated`, asks for the greeting;
* `media` of the phone becomes `input_audio_buffer.append`, `response.output_audio.delta` becomes `media`;
* a mark follows every 60 ms of audio (a whole delta, if that is longer), and its echo is taken back;
* on `speech_started` it sends `clear` and truncates the item by the line's own timestamps.

What it does not do, all of which the daemon does: signatures, tokens and webhooks, checking what it relays, a
playout with a lead, limits, a transcript, a journal, metrics, logs.

    python -m handlehome.bench.baseline --port 0 --model-url ws://127.0.0.1:9000/v1/realtime
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import orjson
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

MARK_CHARACTERS = 640
"""Base64 text of 60 ms of audio."""

SESSION = {
    "type": "realtime",
    "instructions": "You answer the phone.",
    "output_modalities": ["audio"],
    "audio": {
        "input": {"format": {"type": "audio/pcmu"}, "turn_detection": {"type": "server_vad"}},
        "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"},
    },
}


class Relay:
    """One call: its two connections and the state that both loops share."""

    def __init__(self, phone: ServerConnection, model: ClientConnection) -> None:
        self._phone = phone
        self._model = model
        self._stream_sid = ""
        self._marks: deque[str] = deque()
        self._mark_number = 0
        self._unmarked = 0
        self._timestamp = 0  # of the caller's latest frame, ms
        self._item: str | None = None
        self._item_began = 0

    async def run(self) -> None:
        """Relays until either side is gone."""
        await self._open()
        loops = [asyncio.create_task(self._from_phone()), asyncio.create_task(self._from_model())]
        _, running = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
        for loop in running:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)

    async def _open(self) -> None:
        while (event := orjson.loads(await self._phone.recv()))["event"] != "start":
            pass
        self._stream_sid = event["streamSid"]
        await self._to_model({"type": "session.update", "session": SESSION})
        while orjson.loads(await self._model.recv())["type"] != "session.updated":
            pass
        await self._to_model({"type": "response.create"})

    async def _from_phone(self) -> None:
        async for message in self._phone:
            event = orjson.loads(message)
            kind = event["event"]
            if kind == "media":
                media = event["media"]
                self._timestamp = int(media["timestamp"])
                await self._to_model({"type": "input_audio_buffer.append", "audio": media["payload"]})
            elif kind == "mark":
                if self._marks and self._marks[0] == event["mark"]["name"]:
                    self._marks.popleft()
            elif kind == "stop":
                break

    async def _from_model(self) -> None:
        async for message in self._model:
            event = orjson.loads(message)
            kind = event["type"]
            if kind == "response.output_audio.delta":
                await self._play(event)
            elif kind == "input_audio_buffer.speech_started":
                await self._interrupt()

    async def _play(self, event: dict[str, Any]) -> None:
        delta = event["delta"]
        if event["item_id"] != self._item:
            self._item, self._item_began = event["item_id"], self._timestamp
        await self._to_phone({"event": "media", "streamSid": self._stream_sid, "media": {"payload": delta}})
        self._unmarked += len(delta)
        if self._unmarked >= MARK_CHARACTERS:
            self._unmarked = 0
            self._mark_number += 1
            name = str(self._mark_number)
            self._marks.append(name)
            await self._to_phone({"event": "mark", "streamSid": self._stream_sid, "mark": {"name": name}})

    async def _interrupt(self) -> None:
        if self._marks and self._item is not None:
            await self._to_phone({"event": "clear", "streamSid": self._stream_sid})
            heard = self._timestamp - self._item_began
            await self._to_model(
                {
                    "type": "conversation.item.truncate",
                    "item_id": self._item,
                    "content_index": 0,
                    "audio_end_ms": heard,
                }
            )
        self._marks.clear()
        self._item = None

    async def _to_phone(self, message: dict[str, Any]) -> None:
        await self._phone.send(orjson.dumps(message), text=True)

    async def _to_model(self, event: dict[str, Any]) -> None:
        await self._model.send(orjson.dumps(event), text=True)


@contextlib.asynccontextmanager
async def serving(model_url: str, port: int = 0) -> AsyncIterator[int]:
    """Serves on 127.0.0.1 and gives the port.

    Args:
        model_url: Where each call's session is opened.
        port: 0 takes a free one.

    Raises:
        OSError: The port can't be had.
    """

    async def answer(phone: ServerConnection) -> None:
        try:
            async with connect(model_url, compression=None, max_queue=None, proxy=None) as model:
                await Relay(phone, model).run()
        except (ConnectionClosed, OSError) as error:
            print(f"A call ended early: {error!r}", flush=True)

    async with serve(answer, "127.0.0.1", port, compression=None, max_queue=None) as server:
        yield next(iter(server.sockets)).getsockname()[1]


async def _run(port: int, model_url: str) -> None:
    stopped = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    async with serving(model_url, port) as listening_port:
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        print(f"The baseline answers on http://127.0.0.1:{listening_port}", flush=True)
        await stopped.wait()


def main() -> None:
    """Runs it by itself until SIGTERM or SIGINT; prints where it listens."""
    parser = argparse.ArgumentParser(prog="handlehome.bench.baseline")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model-url", required=True)
    options = parser.parse_args()
    uvloop.run(_run(options.port, options.model_url))


if __name__ == "__main__":
    main()
