"""One relay under a small load, measured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from handlehome.bench.costrun import Latency, latency, measure, pinned, relay_process, waited_seconds
from handlehome.bench.load import LoadError


def test_percentiles_are_in_ms_by_nearest_rank() -> None:
    assert latency([n / 1000 for n in range(1, 101)]) == Latency(51, 96, 100, 100)
    assert latency([0.002]) == Latency(2, 2, 2, 2)
    assert latency([]) is None


def test_pinning_lasts_as_long_as_its_block() -> None:
    before = os.sched_getaffinity(0)
    with pinned(min(before)):
        assert os.sched_getaffinity(0) == {min(before)}
    with pinned(None):
        assert os.sched_getaffinity(0) == before
    assert os.sched_getaffinity(0) == before
    assert waited_seconds() >= 0


@pytest.mark.parametrize("name", ["daemon", "baseline"])
async def test_a_short_run_relays_every_frame_and_fills_every_figure(name: str) -> None:
    run = await measure(name, 3, 0.5, cores=None)
    assert run.relay == name
    assert (run.lost, run.disordered, run.faults) == (0, 0, ())
    assert (run.messages_up, run.messages_down) == (1.0, 1.0)
    assert run.frames == pytest.approx(3 * 2 * 50 * 0.5, rel=0.3)
    assert run.cpu_us > 0
    assert run.up_ms is not None
    assert run.down_ms is not None
    assert (run.webhook_ms is not None) == (name == "daemon")
    assert run.greeting_ms is not None
    assert run.barge_in_ms is not None


async def test_a_relay_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="did not start"):
        async with relay_process("daemon", "no address", tmp_path, 1):
            pass
