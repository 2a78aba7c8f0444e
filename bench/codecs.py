"""The suite `handlehome bench codecs`: what the audio arithmetic does to the sound, and what it costs.

G.711 beside audioop; the resampler beside scipy and soxr, every figure measured on what comes out; levels and
jitter buffering per frame. scipy and soxr are development tools: where they are missing, their rows say so.
Costs are CPU time of one core, as microseconds per call: the best batch (what it costs undisturbed) and the
median (what it costs here). A batch is as many calls as take two milliseconds. What is compared takes turns,
batch by batch, so that whatever else the machine does meets all of it alike; how many times as fast one is as
the other is the median of the ratios of neighbouring batches. Targets in microseconds are judged by the best
batch: load only ever adds to it.
"""

from __future__ import annotations

import audioop
import json
import operator
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from handlehome.bench import filters
from handlehome.bench.converters import OTHERS, OURS, optional, subjects
from handlehome.codecs import g711, levels
from handlehome.codecs.jitterbuffer import JitterBuffer

SIZES: Final = (160, 9600, 80_000)
"""Samples: a frame, a slice of 1.2 s as models send them, a whole turn of 10 s."""

DIRECTIONS: Final = ((8000, 24000), (24000, 8000), (8000, 16000), (16000, 8000))

FRAMES_PER_SECOND: Final = 50

LARGE: Final = (9600, 80_000)
"""The sizes at which G.711 is judged."""

ENCODE_TIMES: Final = 2.0
DECODE_TIMES: Final = {9600: 0.75, 80_000: 0.9}
"""At least so many times as fast as audioop.

Decoding is audioop's own, with an ndarray round its result: about half a microsecond, a tenth of the time at
9600. On a machine with other work that takes up to 1.5, and the measurement is some per cent off.
"""

_BATCH_SECONDS: Final = 0.002
_LEAST_BATCHES: Final = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call, in microseconds of CPU."""

    best_us: float
    median_us: float

    def shown(self) -> tuple[str, str]:
        """Both, for a table."""
        return _three_digits(self.best_us), _three_digits(self.median_us)


@dataclass(frozen=True, slots=True)
class G711Row:
    """One operation at one size, beside audioop.

    Attributes:
        operation: The law, and encode or decode.
        samples: How many.
        ours: Cost of our function.
        audioop: Cost of audioop's.
        times: How many times as fast ours is: the median of the ratios of neighbouring batches.
        more_us: What ours takes more: the median of their differences.
    """

    operation: str
    samples: int
    ours: Cost
    audioop: Cost
    times: float
    more_us: float


@dataclass(frozen=True, slots=True)
class ResamplerRow:
    """One converter in one direction.

    Attributes:
        name: Whose.
        source: Hz.
        target: Hz.
        ripple_db: Of 0-3400 Hz.
        rejection_db: Of images and aliases, at worst.
        sweep_snr_db: Swept sine against errors of any kind.
        waits: Its delay; None if it wants the whole signal at once.
        frame: Cost of 20 ms.
    """

    name: str
    source: int
    target: int
    ripple_db: float
    rejection_db: float
    sweep_snr_db: float
    waits: filters.Waits | None
    frame: Cost


@dataclass(frozen=True, slots=True)
class FrameRow:
    """Anything else that is done with a frame of 160 bytes."""

    name: str
    frame: Cost


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a target is met, and the sentence that says by how much."""

    met: bool
    line: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that was measured.

    Attributes:
        machine: Where, by which versions, with how many BLAS threads.
        missing: Packages that could have stood beside ours.
        g711: Beside audioop.
        resampling: Beside scipy and soxr.
        frames: Whatever else is done with a frame.
        verdicts: On all targets.
    """

    machine: dict[str, str | int | None]
    missing: list[str]
    g711: list[G711Row]
    resampling: list[ResamplerRow]
    frames: list[FrameRow]
    verdicts: list[Verdict] = field(default_factory=list)


_EXPLAINED: Final = (
    "ripple: of 0-3400 Hz; images: of tones in 0-3400 Hz, downwards aliases into it; delay: from going in to "
    "coming out, at best to at worst; first: what went in before anything came out, by chunks of 1 ms. "
    "upfirdn and resample_poly are scipy's, with our taps and with its own, and want all of a signal at once."
)


def cost(function: Callable[[], object], seconds: float) -> Cost:
    """Calls the function for about so many seconds, at least six batches."""
    return _cost(*batches([function], seconds))


def batches(functions: Sequence[Callable[[], object]], seconds: float) -> list[list[float]]:
    """Calls functions in turn, batch by batch.

    Args:
        functions: Whatever is to be compared.
        seconds: About how long for each, at least six batches.

    Returns:
        CPU seconds per call in each batch, for each function; batches of the same index are neighbours.
    """
    calls = [_calls(function) for function in functions]
    found: list[list[float]] = [[] for _ in functions]
    turns = list(range(len(functions)))
    until = time.perf_counter() + seconds * len(functions)
    while len(found[0]) <= _LEAST_BATCHES or time.perf_counter() < until:
        for turn in turns:
            found[turn].append(_batch(functions[turn], calls[turn]) / calls[turn])
        turns.reverse()  # so that none is always the one behind another
    return found


def times_as_fast(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of neighbouring batches."""
    return statistics.median(other / one for one, other in zip(ours, theirs, strict=True))


def _cost(found: Sequence[float]) -> Cost:
    return Cost(1e6 * min(found), 1e6 * statistics.median(found))


def _calls(function: Callable[[], object]) -> int:
    """How many calls make a batch."""
    calls = 1
    while (took := _batch(function, calls)) < _BATCH_SECONDS:
        calls = max(2 * calls, min(int(calls * _BATCH_SECONDS / max(took, 1e-6)), 100 * calls))
    return calls


def _batch(function: Callable[[], object], calls: int) -> float:
    began = time.thread_time()
    for _ in range(calls):
        function()
    return time.thread_time() - began


def _g711_rows(seconds: float) -> Iterator[G711Row]:
    for size in SIZES:
        samples = np.random.default_rng(size).normal(0.0, 3000.0, size).astype(np.int16)
        linear = samples.tobytes()
        codes = g711.ulaw_encode(samples)
        pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "mu-law decode": (partial(g711.ulaw_decode, codes), partial(audioop.ulaw2lin, codes, 2)),
            "mu-law encode": (partial(g711.ulaw_encode, samples), partial(audioop.lin2ulaw, linear, 2)),
            "A-law decode": (partial(g711.alaw_decode, codes), partial(audioop.alaw2lin, codes, 2)),
            "A-law encode": (partial(g711.alaw_encode, samples), partial(audioop.lin2alaw, linear, 2)),
        }
        for operation, (ours, theirs) in pairs.items():
            one, other = batches([ours, theirs], seconds)
            more_us = 1e6 * statistics.median(map(operator.sub, one, other))
            yield G711Row(operation, size, _cost(one), _cost(other), times_as_fast(one, other), more_us)


def resampler_rows(
    compared: Sequence[filters.Subject], seconds: float, step_hz: int = 50
) -> Iterator[ResamplerRow]:
    """All figures of the converters of one direction.

    Args:
        compared: They.
        seconds: For the cost of each.
        step_hz: Between the tones that they are measured with.
    """
    costs = map(_cost, batches([_one_frame(subject) for subject in compared], seconds))
    for subject, frame in zip(compared, costs, strict=True):
        yield ResamplerRow(
            subject.name,
            subject.source,
            subject.target,
            filters.ripple_db(subject, step_hz),
            filters.rejection_db(subject, step_hz),
            filters.sweep_snr_db(subject),
            filters.waits(subject) if subject.streams else None,
            frame,
        )


def _one_frame(subject: filters.Subject) -> Callable[[], object]:
    """Converts 20 ms."""
    frame = np.random.default_rng(1).normal(0.0, 3000.0, subject.source // FRAMES_PER_SECOND).astype(np.int16)
    stream = subject.make()
    if subject.streams:
        return partial(stream.process, frame)
    return lambda: (stream.process(frame), stream.flush())


def _frame_rows(seconds: float) -> Iterator[FrameRow]:
    frame = g711.ulaw_encode(np.random.default_rng(1).normal(0.0, 3000.0, 160).astype(np.int16))
    yield FrameRow("level, RMS", cost(partial(levels.rms_dbfs, frame), seconds))
    yield FrameRow("level, peak", cost(partial(levels.peak_dbfs, frame), seconds))
    yield FrameRow("meter: RMS, peak, voice", cost(partial(levels.Meter().feed, frame), seconds))
    in_order = list(range(1, 1001))
    swapped = [number + 1 if number % 10 == 4 else number - (number % 10 == 5) for number in in_order]
    lossy = [number for number in in_order if number % 50]
    for name, numbers in {
        "jitter buffer, in order": in_order,
        "jitter buffer, every tenth swapped": swapped,
        "jitter buffer, 2 % lost": lossy,
    }.items():
        whole = cost(partial(_put_all, numbers, frame), seconds)
        yield FrameRow(name, Cost(whole.best_us / len(numbers), whole.median_us / len(numbers)))


def _put_all(numbers: list[int], frame: bytes) -> None:
    buffer = JitterBuffer()
    for number in numbers:
        buffer.put(0.02 * number, number, 20 * number, frame)


def verdicts(report: Report) -> list[Verdict]:
    """On each target."""
    found = []
    ours = [row for row in report.resampling if row.name == OURS]
    for row in ours:
        where = f"{row.source // 1000} to {row.target // 1000} kHz"
        delay = row.waits.most_ms if row.waits else float("inf")
        down, cost_us = row.rejection_db, row.frame.best_us
        found += [
            Verdict(row.ripple_db <= 0.1, f"{where}: ripple {row.ripple_db:.3f} dB, at most 0.1"),
            Verdict(down >= 60, f"{where}: images or aliases {down:.1f} dB down, at least 60"),
            Verdict(delay <= 2.0, f"{where}: delay {delay:.2f} ms, at most 2"),
            Verdict(cost_us <= 15, f"{where}: {cost_us:.1f} us per 20 ms frame (best batch), at most 15"),
        ]
    for law in report.g711:
        if law.samples in LARGE:
            encodes = law.operation.endswith("encode")
            least = ENCODE_TIMES if encodes else DECODE_TIMES[law.samples]
            line = (
                f"{law.operation} of {law.samples} samples: {law.times:.2f} times as fast as audioop, "
                f"at least {least:g}"
            )
            if not encodes:
                line += f" (audioop's own, and the ndarray round it: {law.more_us:+.1f} us)"
            found.append(Verdict(law.times >= least, line))
    return found


def tables(report: Report) -> list[Table]:
    """The report for people."""
    laws = _table("G.711", "samples", "ours\nus", "\nmedian", "audioop\nus", "\nmedian", "times\nas fast")
    for row in report.g711:
        costs = (*row.ours.shown(), *row.audioop.shown())
        laws.add_row(row.operation, str(row.samples), *costs, f"{row.times:.2f}")
    headings = ("ripple\ndB", "images\ndB down", "sweep\nSNR dB", "delay\nms", "first\nms")
    rates = _table("resampling", *headings, "20 ms\nus", "\nmedian")
    rates.caption = _EXPLAINED
    direction = None
    for line in report.resampling:
        if direction != (line.source, line.target):
            direction = (line.source, line.target)
            rates.add_section()
            rates.add_row(f"[bold]{line.source // 1000} to {line.target // 1000} kHz[/bold]")
        waits = line.waits
        rates.add_row(
            line.name,
            f"{line.ripple_db:.3f}",
            f"{round(line.rejection_db, 1) + 0.0:.1f}",  # never -0.0
            f"{line.sweep_snr_db:.1f}",
            _delay(waits) if waits else "-",
            f"{waits.first_ms:.0f}" if waits else "-",
            *line.frame.shown(),
        )
    rates.add_section()
    for package in report.missing:
        rates.add_row(f"{package} missing")
    frames = _table("a frame of 160 bytes", "us", "median")
    for frame in report.frames:
        frames.add_row(frame.name, *frame.frame.shown())
    return [laws, rates, frames]


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, caption_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table


def _three_digits(number: float) -> str:
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}"


def _delay(waits: filters.Waits) -> str:
    least, most = f"{waits.least_ms:.2f}", f"{waits.most_ms:.2f}"
    return least if least == most else f"{waits.least_ms:.0f} to {waits.most_ms:.0f}"


def _machine() -> dict[str, str | int | None]:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "blas_threads": blas_threads(),
    }


def blas_threads() -> int | None:
    """How many threads numpy's BLAS may use; None if nobody knows (threadpoolctl is not installed)."""
    threadpoolctl = optional("threadpoolctl")
    if threadpoolctl is None:
        return int(os.environ.get("OPENBLAS_NUM_THREADS", "0")) or None
    pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    return max(pools, default=1)


def main(seconds: float = 0.2, json_file: Path | None = None, step_hz: int = 50) -> int:
    """Runs the suite and prints its result.

    Args:
        seconds: For each cost.
        json_file: Takes all figures and the verdicts, too.
        step_hz: Between the tones that resamplers are measured with.

    Returns:
        0 when all targets are met, else 1.
    """
    modules = {name: optional(name) for name in OTHERS}
    missing = [name.partition(".")[0] for name, it in modules.items() if it is None]
    report = Report(_machine(), missing, [], [], [])
    everything = [subjects(*rates, modules) for rates in DIRECTIONS]
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        total = 4 * len(SIZES) + sum(map(len, everything)) + 6
        task = progress.add_task("G.711", total=total)
        for law in _g711_rows(seconds):
            report.g711.append(law)
            progress.advance(task)
        for (source, target), compared in zip(DIRECTIONS, everything, strict=True):
            progress.update(task, description=f"{source} to {target} Hz")
            for line in resampler_rows(compared, seconds, step_hz):
                report.resampling.append(line)
                progress.advance(task)
        progress.update(task, description="levels, jitter buffer")
        for frame in _frame_rows(seconds):
            report.frames.append(frame)
            progress.advance(task)
    report.verdicts.extend(verdicts(report))
    for table in tables(report):
        console.print(table)
    for verdict in report.verdicts:
        met = "met   " if verdict.met else "MISSED"
        console.print(f"{met}  {verdict.line}", soft_wrap=True, highlight=False)
    for package in report.missing:
        console.print(f"note    {package} is not installed: nothing of it to compare with", highlight=False)
    threads = report.machine["blas_threads"]
    console.print(f"note    BLAS threads: {threads or 'not known'}", soft_wrap=True, highlight=False)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
        console.print(f"        written to {json_file}", soft_wrap=True, highlight=False)
    return 0 if all(verdict.met for verdict in report.verdicts) else 1
