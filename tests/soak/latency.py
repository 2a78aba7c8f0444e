"""Campaign: how long the daemon takes, measured outside of it.

The phones run in this process, the model and the daemon each in its own; all read the same clock. What this
process adds (its loop serves all phones) is in the figures; a control tells how much that is: the time that a
byte takes to a process that does nothing but send it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from handlehome.bench.phone import PhoneCall
from tests.harness import TOKEN, RunningDaemon, running_daemon

ROOT = Path(__file__).parents[2]

START_DELAY = 0.2
"""From `connected` to `start`, so that the session opened at the webhook is ready."""

_ECHO = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(64):
        connection.send(data)
"""


@dataclass
class Outcome:
    """What a campaign saw; all in ms.

    Attributes:
        clears: from sending `speech_started` to receiving `clear`.
        greetings: from sending `start` to receiving `response.create`.
        webhooks: the voice webhook's answer, the connection's opening included, while the calls run.
        controls: from sending a byte to an idle echo process to receiving it, while the calls run.
        first_webhook: the very first one of the process.
        faults: what the phones or the model complain of.
    """

    clears: list[float] = field(default_factory=list)
    greetings: list[float] = field(default_factory=list)
    webhooks: list[float] = field(default_factory=list)
    controls: list[float] = field(default_factory=list)
    first_webhook: float = 0.0
    faults: list[str] = field(default_factory=list)

    def row(self, calls: int) -> str:
        """The figures as a line of a table."""
        figures = ", ".join(
            f"{name} {quantile(values, 0.5):.2f}/{quantile(values, 0.95):.2f}/{quantile(values, 0.99):.2f}"
            for name, values in (
                (f"clear ({len(self.clears)})", self.clears),
                (f"greeting ({len(self.greetings)})", self.greetings),
                (f"webhook ({len(self.webhooks)})", self.webhooks),
                (f"control ({len(self.controls)})", self.controls),
            )
        )
        first = f"first webhook {self.first_webhook:.1f} ms"
        return f"| latency | {calls} calls | p50/p95/p99 ms: {figures} | {first} |"


def quantile(values: list[float], q: float) -> float:
    """The q-quantile (nearest rank) of some values."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, math.ceil(q * len(ranked)) - 1)]


async def campaign(folder: Path, *, calls: int, interruptions: int, webhooks: int) -> Outcome:
    """Runs `calls` calls at once with `interruptions` each, then asks the voice webhook beside them."""
    outcome = Outcome()
    async with contextlib.AsyncExitStack() as stack:
        model = await stack.enter_async_context(_child("-m", "tests.soak.model_process"))
        assert model.stdout is not None
        assert model.stdin is not None
        url = (await model.stdout.readline()).decode().strip()
        daemon = await stack.enter_async_context(running_daemon(folder, url))
        phones = []
        for _ in range(calls):
            phone = PhoneCall(daemon.url, auth_token=TOKEN, keep_audio=False, start_delay=START_DELAY)
            phones.append(await stack.enter_async_context(phone))
            await phone.dial()
            outcome.first_webhook = outcome.first_webhook or phone.webhook_ms
        for phone in phones:
            await phone.wait_heard(1)
        async with _controlled(outcome):
            model.stdin.write(b"%d %d\n" % (calls, interruptions))
            report = orjson.loads(await model.stdout.readline())
        await _ask_webhooks(daemon, webhooks, outcome)
        outcome.faults += report["violations"]
        for phone, sent, asked in zip(
            phones, report["speech_started"], report["response_create"], strict=True
        ):
            outcome.greetings.append((asked - phone.leg.began) * 1000)
            cleared = [clear.t_received for clear in phone.leg.clears]
            for at in sent:
                after = next((each - at for each in cleared if 0 <= each - at < 0.5), None)
                if after is None:
                    outcome.faults.append(f"{phone.call_sid}: no clear behind speech_started")
                else:
                    outcome.clears.append(after * 1000)
            outcome.faults += map(str, phone.violations)
            await phone.hang_up()
    return outcome


@contextlib.asynccontextmanager
async def _child(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process that ends when its standard input does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _ask_webhooks(daemon: RunningDaemon, count: int, outcome: Outcome) -> None:
    for _ in range(count):
        async with PhoneCall(daemon.url, auth_token=TOKEN) as phone:
            answer = await phone.webhook("/incoming-call")
            assert answer.status == 200
            outcome.webhooks.append(answer.ms)
            await phone.webhook("/call-status", CallStatus="canceled")
        await asyncio.sleep(0.05)


class _Echo(asyncio.Protocol):
    """Notes when the byte that was sent comes back."""

    def __init__(self) -> None:
        self.returned: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def data_received(self, _data: bytes) -> None:
        if not self.returned.done():
            self.returned.set_result(time.monotonic())


@contextlib.asynccontextmanager
async def _controlled(outcome: Outcome) -> AsyncIterator[None]:
    """Measures an echo in a process of its own meanwhile."""
    async with _child("-c", _ECHO) as process:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        transport, protocol = await asyncio.get_running_loop().create_connection(_Echo, "127.0.0.1", port)
        rng = random.Random(1)

        async def measure() -> None:
            while True:
                await asyncio.sleep(rng.uniform(0.01, 0.05))
                protocol.returned = asyncio.get_running_loop().create_future()
                began = time.monotonic()
                transport.write(b".")
                outcome.controls.append((await protocol.returned - began) * 1000)

        measuring = asyncio.create_task(measure())
        try:
            yield
        finally:
            measuring.cancel()
            await asyncio.wait((measuring,))
            transport.close()
