"""What a relayed frame costs: the daemon beside a plain `async for` relay, in one run.

Each round runs the daemon and then the baseline (`baseline`) under the same load (`load`), the relay pinned
to one core and the load to another. Measured over a steady window, after all calls are up and have run a
while:

* CPU: user and system time of the relay's process, all its threads, divided by the relayed frames. A frame
  that goes up (phone to model) is one, the same frame on its way back (model to phone) another; marks and
  their echoes are no frames: what they cost is in.
* Latency: per frame and direction, from the write at one end to the read at the other; see `load`.
* Messages: `input_audio_buffer.append` per frame up, `media` per frame down. Below 1, frames were gathered.
* Memory: resident, with all calls up less with none, per call.

Absolute times depend on the machine and on what else it does: while others use the cores, relays find
several frames waiting and handle them together, which is cheaper per frame and worse for latency. So what
counts is the ratio within one round, how far the rounds' ratios lie apart, and that both had their cores for
themselves ("waited"). Linux only (/proc).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path

import uvloop

from handlehome.bench.costrun import BARGE_IN_SECONDS, LATE_TICK, WARM_UP_SECONDS, Latency, Run, measure
from handlehome.bench.load import FRAME_SECONDS, LoadError
from handlehome.bench.twilio import WebhookError
from handlehome.bench.twiml import TwimlError

TARGET_RATIO = 0.6
TARGET_MEMORY_KIB = 200.0
ONE_TO_ONE = 0.999
"""Messages per frame; a single late moment may gather two frames."""
LATENCY_SLACK = (1.05, 0.1)
"""What noise may add to a latency that is to be no worse: a factor, and ms."""

BUSY = 0.85
"""A process that used more of its core than this had no reserve: latencies tell of queues, not of work."""
WAITED = 0.02
"""A process that had to wait for its core for more of the time than this was not alone."""


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
        if max(run.relay_waited, run.load_waited) > WAITED:
            lines.append(
                f"Something else ran on the cores: the {run.relay} waited {run.relay_waited:.0%} "
                f"of the time, the load beside it {run.load_waited:.0%}."
            )
        if run.late_max_ms > 1000 * FRAME_SECONDS:
            lines.append(
                f"The load's clock was late beside the {run.relay}, {run.late_ticks} times by over "
                f"{1000 * LATE_TICK:.0f} ms, once by {run.late_max_ms:.0f}: part of the latency."
            )
        lines += [f"{run.relay}: {fault}" for fault in run.faults[:3]]
    return list(dict.fromkeys(lines))


def ratios(runs: Sequence[Run]) -> list[float]:
    """The daemon's CPU per frame over the baseline's, for each round."""
    daemon = [run.cpu_us for run in runs if run.relay == "daemon"]
    baseline = [run.cpu_us for run in runs if run.relay == "baseline"]
    # The system counts CPU in ticks of 10 ms: too short a run may show none.
    return [ours / theirs if theirs > 0 else inf for ours, theirs in zip(daemon, baseline, strict=False)]


def table(runs: Sequence[Run]) -> list[str]:
    """Medians over the rounds, side by side."""
    sides = [[run for run in runs if run.relay == name] for name in ("daemon", "baseline")]
    lines = [f"{'':32}{'daemon':>28}{'baseline':>28}"]

    def row(label: str, form: str, *values: Callable[[Run], float], unit: str = "") -> None:
        cells = [" / ".join(format(_median(side, value), form) for value in values) for side in sides]
        lines.append(f"{label:32}{cells[0]:>28}{cells[1]:>28}  {unit}".rstrip())

    def percentiles(label: str, times: Callable[[Run], Latency | None]) -> None:
        cells = []
        for side in sides:
            known = [each for each in map(times, side) if each is not None]
            cells.append(_percentiles(known))
        lines.append(f"{label:32}{cells[0]:>28}{cells[1]:>28}  ms, p50 / p95 / p99")

    row("CPU per relayed frame", ".1f", lambda run: run.cpu_us, unit="us")
    row("  user / system", ".1f", lambda run: run.user_us, lambda run: run.system_us, unit="us")
    percentiles("latency up, phone to model", lambda run: run.up_ms)
    percentiles("latency down, model to phone", lambda run: run.down_ms)
    row("messages per frame, up / down", ".3f", lambda run: run.messages_up, lambda run: run.messages_down)
    row("frames lost / disordered", ".0f", lambda run: run.lost, lambda run: run.disordered)
    row("memory per call", ".0f", lambda run: run.kib_per_call, unit="KiB")
    percentiles("voice webhook", lambda run: run.webhook_ms)
    percentiles("start to greeting asked for", lambda run: run.greeting_ms)
    percentiles("barge-in, speech to clear", lambda run: run.barge_in_ms)
    row("core used, relay / load", ".0%", lambda run: run.relay_busy, lambda run: run.load_busy)
    row("waited for it, relay / load", ".1%", lambda run: run.relay_waited, lambda run: run.load_waited)
    row("load's late ticks", ".0f", lambda run: run.late_ticks)
    row("load's worst tick", ".1f", lambda run: run.late_max_ms, unit="ms late")
    return lines


def _median(runs: Sequence[Run], value: Callable[[Run], float]) -> float:
    return statistics.median(value(run) for run in runs)


def _percentiles(times: Sequence[Latency]) -> str:
    """The median of each percentile over several runs."""
    if not times:
        return "-"
    columns = [[each.p50 for each in times], [each.p95 for each in times], [each.p99 for each in times]]
    return " / ".join(f"{statistics.median(column):.2f}" for column in columns)


def slower(runs: Sequence[Run]) -> list[str]:
    """The latencies (medians over the rounds) in which the daemon is worse than the baseline."""
    factor, slack = LATENCY_SLACK
    found = []
    for direction in ("up_ms", "down_ms"):
        for percentile in ("p50", "p99"):
            ours, theirs = (
                statistics.median(
                    getattr(getattr(run, direction), percentile)
                    for run in runs
                    if run.relay == name and getattr(run, direction) is not None
                )
                for name in ("daemon", "baseline")
            )
            if ours > theirs * factor + slack:
                found.append(f"{direction[:-3]} {percentile} {ours:.2f} ms beside {theirs:.2f}")
    return found


def verdicts(runs: Sequence[Run]) -> list[tuple[bool, str]]:
    """The targets: whether each is met, and a line that says so."""
    ours = [run for run in runs if run.relay == "daemon"]
    found = ratios(runs)
    ratio = statistics.median(found)
    memory = max(run.kib_per_call for run in ours)
    lost = sum(run.lost + run.disordered for run in runs)
    worse = slower(runs)
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
            f"messages out per frame in: {gathered:.3f} (target 1: nothing is gathered)",
        ),
        (
            not worse,
            f"latency, p50 and p99 of both directions: {', '.join(worse) or 'nowhere worse'}"
            " (target: no worse than the baseline)",
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
                f"{run.cpu_us:6.1f} us per frame, up {_percentiles([run.up_ms] if run.up_ms else [])} ms, "
                f"down {_percentiles([run.down_ms] if run.down_ms else [])} ms",
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
    doubts = notes(runs)
    for line in doubts:
        print(f"note    {line}")
    if doubts:
        print(
            "        With these the result is not conclusive: repeat it on a machine that does nothing else."
        )
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
