"""Audio passes through unchanged, in both directions and in many calls at once."""

from pathlib import Path

import pytest

from tests.soak.integrity import campaign


async def test_every_byte_once_and_in_order(tmp_path: Path) -> None:
    """Six calls at once for some seconds, half of them over lines with jitter."""
    outcome = await campaign(tmp_path, calls=6, seconds=4)
    assert not outcome.faults
    assert outcome.up_bytes > 6 * 4 * 8000
    assert outcome.down_bytes > 6 * 2 * 8000


@pytest.mark.soak
async def test_every_byte_of_twenty_calls_for_a_minute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty calls at once for a minute."""
    outcome = await campaign(tmp_path, calls=20, seconds=60)
    with capsys.disabled():
        print("\n" + outcome.row())
    assert not outcome.faults
    assert outcome.up_bytes > 20 * 55 * 8000
    assert outcome.down_bytes > 20 * 40 * 8000
