"""Post-processing of many calls at once, and the audio of those that go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.afterload import campaign


async def test_calls_go_on_while_others_are_processed(tmp_path: Path) -> None:
    """Five of each, with a bound that a busy machine keeps too."""
    outcome = await campaign(
        tmp_path, live=5, calls=5, rounds=1, answers=(0.1, 0.3), apart=0.02, pin=False, idle_seconds=1.0
    )
    assert not outcome.faults
    idle, loaded = outcome.latencies()
    assert loaded.p50 < idle.p50 + 20, outcome.row("a few calls")


@pytest.mark.soak
async def test_fifty_calls_being_processed_are_not_heard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fifty, each with answers that take 1 to 3 s, by the default workers, beside fifty that go on."""
    outcome = await campaign(
        tmp_path, live=50, calls=50, rounds=1, answers=(1.0, 3.0), apart=0.02, idle_seconds=10.0
    )
    with capsys.disabled():
        print("\n" + outcome.row("post-processing, answers in 1-3 s"))
    assert not outcome.faults
    idle, loaded = outcome.latencies()
    assert loaded.p99 < idle.p99 + 5


@pytest.mark.soak
async def test_fifty_calls_processed_by_fifty_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """EXTRACTION_WORKERS as high as it should not be: threads that compute take turns with the loop."""
    outcome = await campaign(
        tmp_path, live=50, calls=50, rounds=2, answers=(1.0, 3.0), apart=0.02, workers=50
    )
    with capsys.disabled():
        print("\n" + outcome.row("post-processing, 50 workers"))
    assert not outcome.faults


@pytest.mark.soak
async def test_fifty_calls_processed_flat_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With immediate answers and the default number of workers; the figure is published, not bounded."""
    outcome = await campaign(tmp_path, live=50, calls=50, rounds=5, answers=(0.0, 0.0), apart=0.0)
    with capsys.disabled():
        print("\n" + outcome.row("post-processing, flat out"))
    assert not outcome.faults
