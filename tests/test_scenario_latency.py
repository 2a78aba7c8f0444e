"""How long the daemon takes to act, measured outside of it."""

from pathlib import Path

import pytest

from tests.soak.latency import campaign, quantile


async def test_acts_at_once(tmp_path: Path) -> None:
    """Five calls, with bounds that a busy machine keeps too."""
    outcome = await campaign(tmp_path, calls=5, interruptions=3, webhooks=10)
    assert not outcome.faults
    assert len(outcome.clears) == 15
    assert quantile(outcome.clears, 0.5) < 20
    assert quantile(outcome.greetings, 0.5) < 50
    assert quantile(outcome.webhooks, 0.5) < 100


@pytest.mark.soak
async def test_acts_at_once_with_fifty_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The promised times: `clear`, the greeting and the webhook, with fifty calls running."""
    outcome = await campaign(tmp_path, calls=50, interruptions=20, webhooks=100)
    with capsys.disabled():
        print("\n" + outcome.row(50))
    assert not outcome.faults
    assert quantile(outcome.clears, 0.99) < 2
    assert quantile(outcome.greetings, 0.95) < 5
    assert quantile(outcome.webhooks, 0.95) < 20
