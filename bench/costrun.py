"""One relay under load, once: its process, pinned to a core, and what a steady window of it measures.

Linux only: CPU time, memory and waiting come from /proc.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from handlehome.bench.load import Load, LoadError
from handlehome.bench.loadsocket import HandshakeError

LATE_TICK = 0.005
"""A tick of the load's clock that is later than this is a hiccup, in seconds."""
WARM_UP_SECONDS = 2.0
BARGE_IN_SECONDS = 3.0
START_SECONDS = 30.0
STOP_SECONDS = 15.0

_AUTH_TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of nobody's account


@dataclass(frozen=True)
class Latency:
    """Percentiles, in ms."""

    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class Run:
    """One relay under load, once.

    Attributes:
        relay: `daemon` or `baseline`.
        user_us, system_us: CPU time per relayed frame.
        relay_busy, load_busy: share of its core that each of the two used.
        relay_waited, load_waited: share of the window in which each was ready to run and something else ran.
        frames: relayed frames, up and down, in the window.
        lost: frames that never arrived, of all.
        disordered: frames that came damaged, or in the wrong order or call.
        messages_up, messages_down: per frame.
        kib_per_call: resident memory.
        webhook_ms, greeting_ms, barge_in_ms: voice webhook; `start` to the request for the greeting;
            `speech_started` to `clear`. None: there was none.
        late_ticks: of the load's clock, by more than 5 ms; `late_max_ms` is the worst.
    """

    relay: str
    user_us: float
    system_us: float
    relay_busy: float
    load_busy: float
    relay_waited: float
    load_waited: float
    frames: int
    lost: int
    disordered: int
    messages_up: float
    messages_down: float
    kib_per_call: float
    up_ms: Latency | None
    down_ms: Latency | None
    webhook_ms: Latency | None
    greeting_ms: Latency | None
    barge_in_ms: Latency | None
    late_ticks: int
    late_max_ms: float
    faults: tuple[str, ...]

    @property
    def cpu_us(self) -> float:
        """CPU time per relayed frame."""
        return self.user_us + self.system_us


def latency(seconds: Sequence[float] | array[float]) -> Latency | None:
    """Percentiles (nearest rank) of times in seconds; None of none."""
    if not len(seconds):
        return None
    ordered = sorted(seconds)

    def rank(share: float) -> float:
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Latency(rank(0.5), rank(0.95), rank(0.99), 1000 * ordered[-1])


def waited_seconds(pid: str = "self") -> float:
    """For how long so far a process's main thread has waited for a core; 0.0 where nobody counts it."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0


class RelayProcess:
    """A relay in a process of its own, pinned to a core."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self._process = process
        self.url = url

    def cpu_seconds(self) -> tuple[float, float]:
        """User and system time so far, all threads."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        tick = os.sysconf("SC_CLK_TCK")
        return int(fields[11]) / tick, int(fields[12]) / tick

    def waited_seconds(self) -> float:
        """For how long so far the event loop's thread was ready to run, but did not."""
        return waited_seconds(str(self._process.pid))

    def memory_bytes(self) -> int:
        """Resident memory."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextlib.asynccontextmanager
async def relay_process(name: str, model_url: str, folder: Path, calls: int) -> AsyncIterator[RelayProcess]:
    """Starts `daemon` or `baseline` on a free port, and ends it.

    Args:
        name: Which.
        model_url: Where it finds the model.
        folder: An empty folder of its own.
        calls: How many it must take.

    Raises:
        LoadError: It did not start.
    """
    module = "handlehome.relay.cli" if name == "daemon" else "handlehome.bench.baseline"
    arguments = ["start"] if name == "daemon" else ["--port", "0", "--model-url", model_url]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PORT": "0",
        "MAX_CALLS": str(calls),
        "DRAIN_SECONDS": "1",
        "DATA_DIR": str(folder / "data"),
        "LOG_DIR": str(folder / "logs"),
        "OPENAI_REALTIME_URL": model_url,
        "OPENAI_API_KEY": "sk-of-nobody",
        "TWILIO_AUTH_TOKEN": _AUTH_TOKEN,
    }
    console: list[str] = []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def read(output: asyncio.StreamReader) -> None:
        async for line in output:
            console.append(line.decode(errors="replace").rstrip())
            found = re.search(r" answers? on (http://\S+)", console[-1])
            if found and not ready.done():
                ready.set_result(found[1])
        if not ready.done():
            ready.set_exception(LoadError("\n".join([f"the {name} did not start:", *console[-20:]])))

    if process.stdout is None:
        raise TypeError("a pipe was asked for")
    reader = asyncio.create_task(read(process.stdout))
    try:
        async with asyncio.timeout(START_SECONDS):
            url = await ready
        yield RelayProcess(process, url)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
        await reader


async def measure(name: str, calls: int, seconds: float, *, cores: tuple[int, int] | None) -> Run:
    """Runs one relay under load.

    Args:
        name: `daemon` or `baseline`.
        calls: At once.
        seconds: Of the steady window; shortens what comes before and after it, too, when it is very short.
        cores: Of the relay and of the load; None: not pinned.

    Raises:
        LoadError: The relay did not start, or did not take the calls.
    """
    with tempfile.TemporaryDirectory(prefix="handlehome-bench-", ignore_cleanup_errors=True) as folder:
        async with Load(calls, auth_token=_AUTH_TOKEN) as load, contextlib.AsyncExitStack() as stack:
            with pinned(cores[0] if cores else None):
                relay = await stack.enter_async_context(
                    relay_process(name, load.model_url, Path(folder), calls)
                )
            with pinned(cores[1] if cores else None):
                try:
                    return await _measure(name, relay, load, seconds)
                finally:
                    await load.hang_up()


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Keeps this process, and those it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def _measure(name: str, relay: RelayProcess, load: Load, seconds: float) -> Run:
    calls = len(load.ledger.phones)
    empty = relay.memory_bytes()
    try:
        await load.dial(relay.url, webhook=name == "daemon")
    except HandshakeError as error:
        raise LoadError(str(error)) from error
    await asyncio.sleep(min(WARM_UP_SECONDS, seconds))
    waited = relay.waited_seconds(), waited_seconds()
    user, system = relay.cpu_seconds()
    load.begin_window()
    await asyncio.sleep(seconds)
    window = load.end_window()
    after = relay.cpu_seconds()
    waited = relay.waited_seconds() - waited[0], waited_seconds() - waited[1]
    memory = relay.memory_bytes()
    lost = await load.settle()
    disordered = load.ledger.totals.disordered
    faults = tuple(load.ledger.faults)
    barge_ins = await load.barge_in(min(BARGE_IN_SECONDS, seconds))
    passed = window.totals
    frames = passed.arrived + passed.played
    if not frames:
        raise LoadError(f"the {name} relayed nothing in the window")
    return Run(
        relay=name,
        user_us=(after[0] - user) / frames * 1e6,
        system_us=(after[1] - system) / frames * 1e6,
        relay_busy=(after[0] + after[1] - user - system) / window.seconds,
        load_busy=window.busy,
        relay_waited=waited[0] / window.seconds,
        load_waited=waited[1] / window.seconds,
        frames=frames,
        lost=lost,
        disordered=disordered,
        messages_up=passed.messages_up / max(passed.arrived, 1),
        messages_down=passed.messages_down / max(passed.played, 1),
        kib_per_call=(memory - empty) / calls / 1024,
        up_ms=latency(window.up),
        down_ms=latency(window.down),
        webhook_ms=latency([ms / 1000 for ms in load.webhook_ms]),
        greeting_ms=latency([ms / 1000 for ms in load.greeting_ms()]),
        barge_in_ms=latency(barge_ins),
        late_ticks=sum(late > LATE_TICK for late in window.lateness),
        late_max_ms=1000 * max(window.lateness, default=0.0),
        faults=faults,
    )
