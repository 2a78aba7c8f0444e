"""A small honest relay for the simulated phone's own tests: webhooks and media streams under uvicorn."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

CONNECT = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Connect action="/call-ended">'
    '<Stream url="wss://{host}/media-stream/a"><Parameter name="token" value="t1"/></Stream>'
    "</Connect></Response>"
)


@dataclass
class Asked:
    """One webhook request."""

    path: str
    method: str
    url: str
    headers: dict[str, str]
    form: dict[str, str]


class Stream:
    """The relay's end of one media stream."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.sid = ""
        self.closed = False
        self.messages: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any] | None:
        """The next message; None when the phone has closed."""
        try:
            text = await self.websocket.receive_text()
        except WebSocketDisconnect:
            self.closed = True
            return None
        message: dict[str, Any] = json.loads(text)
        self.messages.append(message)
        if message["event"] == "start":
            self.sid = message["streamSid"]
        return message

    async def until(self, event: str, count: int = 1) -> dict[str, Any]:
        """The `count`th next message of this event."""
        while (message := await self.next()) is not None:
            count -= message["event"] == event
            if not count:
                return message
        raise AssertionError(f"closed before {event}")

    async def drain(self) -> None:
        while await self.next() is not None:
            pass

    async def media(self, ulaw: bytes) -> None:
        await self.send("media", media={"payload": base64.b64encode(ulaw).decode()})

    async def mark(self, name: str) -> None:
        await self.send("mark", mark={"name": name})

    async def clear(self) -> None:
        await self.send("clear")

    async def send(self, event: str, **body: Any) -> None:
        await self.websocket.send_text(json.dumps({"event": event, "streamSid": self.sid} | body))

    def heard(self) -> bytes:
        """The caller's audio so far."""
        payloads = (m["media"]["payload"] for m in self.messages if m["event"] == "media")
        return b"".join(base64.b64decode(payload) for payload in payloads)

    def events(self) -> list[str]:
        """The events so far, repetitions of `media` left out."""
        names: list[str] = []
        for message in self.messages:
            if message["event"] != "media" or names[-1] != "media":
                names.append(message["event"])
        return names


Behaviour = Callable[[Stream], Awaitable[None]]


class TinyRelay:
    """Answers webhooks with prepared documents and runs a behaviour for each stream."""

    def __init__(self, behaviour: Behaviour, first: str = CONNECT) -> None:
        self.behaviour = behaviour
        self.url = ""
        self.asked: list[Asked] = []
        self.streams: list[Stream] = []
        self.first = first
        self.ended: Iterator[str] = iter(())
        """What /call-ended answers; then an empty document."""
        self.status = 200
        self.content_type = "text/xml"
        self.refuse_upgrade = False

    async def webhook(self, request: Request) -> Response:
        body = (await request.body()).decode()
        form = dict(request.query_params) | dict(parse_qsl(body, keep_blank_values=True))
        headers = dict(request.headers)
        self.asked.append(Asked(request.url.path, request.method, str(request.url), headers, form))
        document = "<Response/>"
        if request.url.path == "/incoming-call":
            document = self.first.format(host=request.headers["host"])
        elif request.url.path == "/call-ended":
            document = next(self.ended, document).format(host=request.headers["host"])
        elif request.url.path != "/redirected":
            return Response(status_code=204)
        return Response(document, self.status, media_type=self.content_type)

    async def stream(self, websocket: WebSocket) -> None:
        if self.refuse_upgrade:
            await websocket.close()  # Before accept: HTTP 403.
            return
        await websocket.accept()
        stream = Stream(websocket)
        self.streams.append(stream)
        await self.behaviour(stream)
        if not stream.closed:
            await websocket.close(1000)

    def of(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]


class _Server(uvicorn.Server):
    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()


@contextlib.asynccontextmanager
async def running(relay: TinyRelay) -> AsyncIterator[TinyRelay]:
    """Serves it on a port of 127.0.0.1."""
    app = Starlette(
        routes=[
            WebSocketRoute("/media-stream/{instance}", relay.stream),
            Route("/{path:path}", relay.webhook, methods=["GET", "POST"]),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    relay.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(app, ws="websockets-sansio", log_config=None, lifespan="off")
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield relay
    finally:
        server.should_exit = True
        await task
        listener.close()
