"""Calls leave nothing behind: no task, timer, descriptor, block of audio, or memory."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import pytest

from tests.harness import all_records
from tests.soak.leaks import BADLY_ENDED, House, good, house, never_heard_of_again

RESUME = {"RESUME_SECONDS": "0.5"}


def resident() -> int:
    """Resident memory of this process, bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def one_after_another(here: House, count: int) -> None:
    for _ in range(count):
        await good(here.stage)
        if here.stage.model.handshakes % 10 == 0:
            here.stage.model.sessions.clear()  # the simulator's own memory is not what is looked at


async def at_once(here: House, count: int) -> None:
    await asyncio.gather(*(good(here.stage) for _ in range(count)))


async def test_calls_leave_nothing_behind(tmp_path: Path) -> None:
    """After calls at once, one after another, and ended in every bad way, all is as before."""
    async with house(tmp_path, RESUME) as here:
        before = here.belongings()
        await at_once(here, 20)
        assert await here.settled(before) == before
        await one_after_another(here, 30)
        assert await here.settled(before) == before
        await asyncio.gather(*(scenario(here.stage) for scenario in BADLY_ENDED))
        assert await here.settled(before) == before
        assert len(all_records(here.store)) == 20 + 30 + len(BADLY_ENDED)


@pytest.mark.soak
async def test_a_thousand_calls_leave_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1,000 calls one after another and 100 at once: nothing is left, and memory is flat."""
    async with house(tmp_path, RESUME) as here:
        before = here.belongings()
        await never_heard_of_again(here.stage)  # its token expires meanwhile
        await at_once(here, 100)
        await one_after_another(here, 200)
        early = resident()
        await one_after_another(here, 800)
        late = resident()
        assert await here.settled(before) == before
        for _ in range(10):
            await asyncio.gather(*(scenario(here.stage) for scenario in BADLY_ENDED))
        left = await here.settled(before)
        with capsys.disabled():
            print(
                f"\n| leaks | 1,000 calls, 100 at once, {10 * len(BADLY_ENDED)} ended badly "
                f"| tasks {len(left.tasks) - len(before.tasks):+d}, timers {left.timers - before.timers:+d}, "
                f"blocks {left.blocks - before.blocks:+d}, "
                f"files {sum(left.files.values()) - sum(before.files.values()):+d} "
                f"| memory over the last 800: {(late - early) / 1024:+.0f} KiB |"
            )
        assert left == before
        # The page caches of two databases (2 MB each) fill up, and a thousand CallSids are remembered.
        assert late - early < 8 << 20
        assert len(all_records(here.store)) == 1 + 100 + 1000 + 10 * len(BADLY_ENDED)
