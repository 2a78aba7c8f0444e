"""The daemon's listener: its sockets, its signals, its end; and the health routes, seen through it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import orjson
import pytest
import uvloop
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from handlehome.relay.api import health
from handlehome.relay.phone.desk import Accepted, Desk, IncomingCall, NextStep, RefusalReason, Refused
from handlehome.relay.server import MAX_HEADER_BYTES, DaemonServer, ListenError, listen


class Switchboard(Desk):
    """A desk that is open or not, and has a few calls."""

    reason: RefusalReason | None = None

    @property
    def refusing(self) -> RefusalReason | None:
        return self.reason

    @property
    def active_calls(self) -> int:
        return 3

    def incoming_call(self, call: IncomingCall) -> Accepted | Refused:
        return Accepted("token")

    def connect_ended(self, call: IncomingCall) -> tuple[NextStep, str | None]:
        return NextStep.NOTHING, None

    def call_status(self, call_sid: str, status: str) -> None:
        pass

    def stream_status(self, call_sid: str, stream_sid: str, event: str, error: str | None) -> None:
        pass


class Upgraded(asyncio.Protocol):
    """Stands where the media socket's class stands: answers with the path it was given."""

    def __init__(self, **given: Any) -> None:
        assert set(given) == {"config", "server_state", "app_state"}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"upgrade of " + data.split(b" ")[1])
        self.transport.close()


class Daemon:
    """A running server, the way the daemon runs it."""

    def __init__(self) -> None:
        self.desk = Switchboard()
        self.signals: list[tuple[signal.Signals, bool]] = []
        self.signalled = asyncio.Event()
        self.ready = asyncio.get_running_loop().create_future()
        self.hanging = asyncio.Event()
        self.release = asyncio.Event()
        app = FastAPI()
        app.include_router(health.routes(self.desk, dict))

        @app.get("/hang")
        async def hang() -> str:
            self.hanging.set()
            await self.release.wait()
            return "released"

        self.server = DaemonServer(
            app,
            listen("127.0.0.1", 0),
            http=H11Protocol,
            ws=Upgraded,
            on_signal=self._on_signal,
            on_ready=self.ready.set_result,
        )

    def _on_signal(self, signum: signal.Signals, hurry: bool) -> None:
        self.signals.append((signum, hurry))
        self.signalled.set()

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a request on a connection of its own."""
        head, _, body = (
            await self.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        ).partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body

    async def raw(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(request)
        try:
            return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def kill(self, signum: signal.Signals) -> None:
        """Sends this process a signal and waits until the daemon was told."""
        self.signalled.clear()
        os.kill(os.getpid(), signum)
        await self.signalled.wait()


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    daemon = Daemon()
    task = asyncio.create_task(daemon.server.serve())
    await daemon.ready
    yield daemon
    daemon.release.set()
    daemon.server.should_exit = True
    await task


async def test_port_0_is_reported_as_the_real_port(daemon: Daemon) -> None:
    assert daemon.ready.result() == daemon.server.port > 0
    assert (await daemon.get("/healthz"))[0] == 200


async def test_health_stays_up_and_readiness_says_why_not(daemon: Daemon) -> None:
    status, body = await daemon.get("/readyz")
    assert (status, orjson.loads(body)) == (200, {"ready": True, "active_calls": 3})
    for reason, word in (
        (RefusalReason.DRAINING, "draining"),
        (RefusalReason.AT_CAPACITY, "at_capacity"),
    ):
        daemon.desk.reason = reason
        status, body = await daemon.get("/readyz")
        assert (status, orjson.loads(body)) == (503, {"ready": False, "active_calls": 3, "reason": word})
        assert daemon.desk.accepting is False
        assert await daemon.get("/healthz") == (200, b'{"status":"ok"}')


async def test_a_signal_is_told_and_everything_stays_up(daemon: Daemon) -> None:
    """Draining begins with the signal and ends when the daemon says so, not before."""
    await daemon.kill(signal.SIGTERM)
    assert (await daemon.get("/healthz"))[0] == 200
    await daemon.kill(signal.SIGINT)
    assert (await daemon.get("/healthz"))[0] == 200
    assert daemon.signals == [(signal.SIGTERM, False), (signal.SIGINT, True)]
    assert daemon.server.should_exit is False


async def test_the_end_gives_socket_and_signal_handlers_back() -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    daemon = Daemon()
    task = asyncio.create_task(daemon.server.serve())
    await daemon.ready
    daemon.server.should_exit = True
    await task
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == before
    with pytest.raises(ConnectionRefusedError):
        await daemon.get("/healthz")


async def test_a_cancelled_server_gives_socket_and_signal_handlers_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    daemon = Daemon()
    task = asyncio.create_task(daemon.server.serve())
    await daemon.ready
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(ConnectionRefusedError):
        await daemon.get("/healthz")


async def test_a_request_under_way_is_answered_before_the_end(daemon: Daemon) -> None:
    answer = asyncio.create_task(daemon.get("/hang"))
    await daemon.hanging.wait()
    daemon.server.should_exit = True
    daemon.release.set()
    assert await answer == (200, b'"released"')


async def test_a_signal_during_the_end_waits_for_nobody() -> None:
    daemon = Daemon()
    task = asyncio.create_task(daemon.server.serve())
    await daemon.ready
    hanging = asyncio.create_task(daemon.get("/hang"))
    await daemon.hanging.wait()
    daemon.server.should_exit = True
    await daemon.kill(signal.SIGTERM)
    await asyncio.wait_for(task, 3)
    assert not hanging.done()
    daemon.release.set()
    await hanging


async def test_an_idle_connection_does_not_hold_up_the_end(daemon: Daemon) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.server.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"}")
    daemon.server.should_exit = True
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_every_upgrade_goes_to_the_given_class(daemon: Daemon) -> None:
    for path in (b"/media-stream/i1", b"/elsewhere"):
        answer = await daemon.raw(
            b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert answer == b"upgrade of " + path


async def test_headers_are_bounded(daemon: Daemon) -> None:
    answer = await daemon.raw(b"GET / HTTP/1.1\r\nX: " + b"x" * (MAX_HEADER_BYTES + 1))
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_answers_name_no_server(daemon: Daemon) -> None:
    answer = await daemon.raw(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"uvicorn" not in answer


def run_in_thread(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def test_outside_the_main_thread_it_serves_without_signals() -> None:
    served: list[int] = []

    async def main() -> None:
        daemon = Daemon()
        task = asyncio.create_task(daemon.server.serve())
        await daemon.ready
        served.append((await daemon.get("/healthz"))[0])
        daemon.server.should_exit = True
        await task

    before = signal.getsignal(signal.SIGTERM)
    run_in_thread(main)
    assert served == [200]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_process_that_drained_exits_with_0() -> None:
    """uvicorn would raise the signal again at the end, and the process would die of it."""
    script = textwrap.dedent("""
        import asyncio, uvloop
        from uvicorn.protocols.http.h11_impl import H11Protocol
        from handlehome.relay.server import DaemonServer, listen

        async def app(scope, receive, send): ...

        async def main():
            def on_signal(signum, hurry):
                print(signum.name, hurry, flush=True)
                server.should_exit = hurry
            server = DaemonServer(
                app, listen("127.0.0.1", 0), http=H11Protocol, ws=asyncio.Protocol,
                on_signal=on_signal, on_ready=lambda port: print("ready", flush=True),
            )
            await server.serve()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        print("clean", flush=True)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM False\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "SIGTERM True\nclean\n"
        assert process.wait(10) == 0


def close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def test_a_port_in_use_is_named() -> None:
    sockets = listen("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    with pytest.raises(
        ListenError, match=f"^PORT={port}: the port is already in use on 127.0.0.1$"
    ) as caught:
        listen("127.0.0.1", port)
    assert caught.value.exit_status == 1
    close(sockets)
    # What was just given up can be had again at once: a restart doesn't wait for old connections.
    close(listen("127.0.0.1", port))


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("no-such-host.invalid", 8080, "HOST=no-such-host.invalid"),
        ("x" * 70, 8080, "HOST=xxx"),
        ("192.0.2.1", 8080, "HOST=192.0.2.1: this machine has no such address"),
        ("127.0.0.1", 70_000, "PORT=70000"),
        ("127.0.0.1", -1, "PORT=-1"),
    ],
)
def test_an_address_that_cannot_be_is_named_in_one_line(host: str, port: int, said: str) -> None:
    with pytest.raises(ListenError) as caught:
        listen(host, port)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert caught.value.exit_status == 2


def test_all_addresses_of_a_name_have_the_same_port() -> None:
    sockets = listen("localhost", 0)
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    close(sockets)


def test_a_server_without_a_socket_is_refused() -> None:
    with pytest.raises(ValueError, match="socket"):
        DaemonServer(
            FastAPI(), [], http=H11Protocol, ws=asyncio.Protocol, on_signal=lambda signum, hurry: None
        )
