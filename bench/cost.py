"""What a relayed frame costs: the daemon beside a plain `async for` relay, in one run.

Each round runs the daemon and then the baseline (`baseline`) under the same load (`load`), with the relay pinned
to one core and the load to another. Measured over a steady window, after all calls are up and have run a while:

* CPU: user and system time of the relay's process, all its threads, divided by the relayed frames. A frame
  that goes up (phone to model) is one, the same frame on its way back (model to phone) another; marks and
  their echoes are no frames: what they cost is in.
* Latency: per frame and direction, from the write at one end to the read at the other; see `load`.
* Messages: `input_audio_buffer.append` per frame up, `media` per frame down. Below 1, frames were gathered.
* Memory: resident, with all calls up less with none, per call.

Absolute times depend on the machine and on what else it does. What counts is the ratio within one round, and how
far the rounds' ratios lie apart. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from handlehome.bench.load import FRAME_SECONDS, Load, LoadError
from handlehome.bench.loadsocket import HandshakeError
from handlehome.bench.twilio import WebhookError
from handlehome.bench.twiml import TwimlError

TARGET_RATIO = 0.6
TARGET_MEMORY_KIB = 200.0
ONE_TO_ONE = 0.999

BUSY = 0.85
"""A process that used more of its core than this had no reserve: latencies tell of queues, not of work."""
LATE_TICK = 0.005
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
        seconds: Of the steady window.
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
    await asyncio.sleep(WARM_UP_SECONDS)
    user, system = relay.cpu_seconds()
    load.begin_window()
    await asyncio.sleep(seconds)
    window = load.end_window()
    after = relay.cpu_seconds()
    memory = relay.memory_bytes()
    lost = await load.settle()
    disordered = load.ledger.totals.disordered
    faults = tuple(load.ledger.faults)
    barge_ins = await load.barge_in(BARGE_IN_SECONDS)
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


def notes(runs: Sequence[Run]) -> list[str]:
    """What makes a result doubtful, one line each."""
    lines = []
    for run in runs:
        if run.load_busy > BUSY:
            lines.append(
                f"The load generator was the bottleneck beside the {run.relay}: "
                f"{run.load_busy:.0%} of its core. Fewer calls, or a faster core for it."
            )
        if run.relay_busy > BUSY:
            lines.append(f"The {run.relay} was saturated: {run.relay_busy:.0%} of its core.")
        if run.late_max_ms > 1000 * FRAME_SECONDS:
            lines.append(
                f"The load's own clock was late beside the {run.relay}, {run.late_ticks} times by more than "
                f"{1000 * LATE_TICK:.0f} ms, once by {run.late_max_ms:.0f} ms: part of the latency is the load's."
            )
        lines += [f"{run.relay}: {fault}" for fault in run.faults[:3]]
    return list(dict.fromkeys(lines))


def ratios(runs: Sequence[Run]) -> list[float]:
    """The daemon's CPU per frame over the baseline's, for each round."""
    daemon = [run.cpu_us for run in runs if run.relay == "daemon"]
    baseline = [run.cpu_us for run in runs if run.relay == "baseline"]
    return [ours / theirs for ours, theirs in zip(daemon, baseline, strict=False)]


def table(runs: Sequence[Run]) -> list[str]:
    """The medians over the rounds, side by side."""
    daemon = [run for run in runs if run.relay == "daemon"]
    baseline = [run for run in runs if run.relay == "baseline"]
    lines = [f"{'':34}{'daemon':>22}{'baseline':>22}"]

    def row(label: str, shown: Callable[[Run], str | None], unit: str = "") -> None:
        cells = [shown(_median(side)) or "-" for side in (daemon, baseline)]
        lines.append(f"{label:34}{cells[0]:>22}{cells[1]:>22}{unit and '  ' + unit}")

    def percentiles(label: str, name: str) -> None:
        row(label, lambda run: _percentiles(getattr(run, name)), "ms, p50 / p95 / p99")

    row("CPU per relayed frame", lambda run: f"{run.cpu_us:.1f}", "us")
    row("  user / system", lambda run: f"{run.user_us:.1f} / {run.system_us:.1f}", "us")
    percentiles("latency up, phone to model", "up_ms")
    percentiles("latency down, model to phone", "down_ms")
    row("messages per frame, up / down", lambda run: f"{run.messages_up:.3f} / {run.messages_down:.3f}")
    row("frames lost / disordered", lambda run: f"{run.lost} / {run.disordered}", "in the median round")
    row("memory per call", lambda run: f"{run.kib_per_call:.0f}", "KiB")
    percentiles("voice webhook", "webhook_ms")
    percentiles("start to greeting asked for", "greeting_ms")
    percentiles("barge-in, speech to clear", "barge_in_ms")
    row("core used, relay / load", lambda run: f"{run.relay_busy:.0%} / {run.load_busy:.0%}")
    row("load's late ticks / worst", lambda run: f"{run.late_ticks} / {run.late_max_ms:.1f} ms")
    return lines


def _median(runs: Sequence[Run]) -> Run:
    """The round whose CPU time is in the middle; of two, the dearer one."""
    return sorted(runs, key=lambda run: run.cpu_us)[len(runs) // 2]


def _percentiles(times: Latency | None) -> str | None:
    return f"{times.p50:.2f} / {times.p95:.2f} / {times.p99:.2f}" if times else None


def verdicts(runs: Sequence[Run]) -> list[tuple[bool, str]]:
    """The targets: whether each is met, and a line that says so."""
    ours = [run for run in runs if run.relay == "daemon"]
    found = ratios(runs)
    ratio = statistics.median(found)
    memory = max(run.kib_per_call for run in ours)
    lost = sum(run.lost + run.disordered for run in runs)
    gathered = min(min(run.messages_up, run.messages_down) for run in ours)
    return [
        (
            ratio <= TARGET_RATIO,
            f"CPU per frame, daemon / baseline: {ratio:.2f}"
            f" (rounds {min(found):.2f} to {max(found):.2f}; target at most {TARGET_RATIO})",
        ),
        (
            memory <= TARGET_MEMORY_KIB,
            f"memory per call: {memory:.0f} KiB (target at most {TARGET_MEMORY_KIB:.0f})",
        ),
        (not lost, f"frames lost or disordered in all rounds: {lost} (target 0)"),
        (
            gathered >= ONE_TO_ONE,
            f"messages out per frame in: {gathered:.3f} (target 1: nothing is gathered while the loop keeps up)",
        ),
    ]


async def _rounds(calls: int, seconds: float, rounds: int, cores: tuple[int, int] | None) -> list[Run]:
    runs: list[Run] = []
    for number in range(1, rounds + 1):
        for name in ("daemon", "baseline"):
            print(f"round {number} of {rounds}: {name:9}", end="", flush=True)
            run = await measure(name, calls, seconds, cores=cores)
            runs.append(run)
            print(
                f"{run.cpu_us:6.1f} us per frame, up {_percentiles(run.up_ms)} ms, "
                f"down {_percentiles(run.down_ms)} ms",
                flush=True,
            )
    return runs


def main(calls: int = 100, seconds: float = 15.0, rounds: int = 3, json_file: Path | None = None) -> int:
    """Runs the benchmark and prints its result.

    Args:
        calls: At once, 1 to 999.
        seconds: Of each steady window.
        rounds: Of both relays.
        json_file: Takes every run's figures, too.

    Returns:
        0 when all targets are met, 1 when not, or when the benchmark could not be run.
    """
    cpus = sorted(os.sched_getaffinity(0))
    cores = (cpus[0], cpus[1]) if len(cpus) > 1 else None
    print(f"{calls} calls, {seconds:g} s steady, {rounds} rounds of daemon and baseline; about ", end="")
    print(f"{rounds * 2 * (seconds + WARM_UP_SECONDS + BARGE_IN_SECONDS + 5) / 60:.0f} minutes.")
    if cores is None:
        print("This machine has one core: relay and load share it, latencies tell little.")
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        runs = uvloop.run(_rounds(calls, seconds, rounds, cores))
    except (LoadError, WebhookError, TwimlError, OSError) as error:
        print(f"\nThe benchmark could not be run: {error}")
        return 1
    finally:
        gc.enable()
        gc.unfreeze()
    print("", *table(runs), "", sep="\n")
    found = verdicts(runs)
    for met, line in found:
        print(f"{'met   ' if met else 'MISSED'}  {line}")
    for line in notes(runs):
        print(f"note    {line}")
    if json_file is not None:
        result = {
            "calls": calls,
            "seconds": seconds,
            "machine": {
                "python": platform.python_version(),
                "cpus": len(cpus),
                "system": platform.platform(),
            },
            "ratios": ratios(runs),
            "runs": [asdict(run) for run in runs],
        }
        json_file.write_text(json.dumps(result, indent=1) + "\n")
        print(f"        written to {json_file}")
    return 0 if all(met for met, _ in found) else 1


def _command() -> int:
    parser = argparse.ArgumentParser(
        prog="handlehome.bench.cost", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    return main(options.calls, options.seconds, options.rounds, options.json)


if __name__ == "__main__":
    sys.exit(_command())
