"""Interruptions at random moments: the model is told what the caller has heard, and nothing else."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from handlehome.bench.realtime.script import Answer
from tests.soak.truncation import Outcome, campaign


@dataclass(frozen=True)
class Setting:
    """One setting of the campaign.

    Attributes:
        name: for the table.
        template: how the model speaks.
        delay_ms: of the line, each way.
        limit_ms: what the 95 % quantile of the error must not exceed.
        audio_format: between the daemon and the model.
    """

    name: str
    template: Answer
    delay_ms: tuple[float, float]
    limit_ms: float
    audio_format: str = "pcmu"


SETTINGS = (
    Setting("line 10-80 ms", Answer(), (10, 80), 45),
    Setting(
        "line 10-80 ms, slow model",
        Answer(pace=1.3, stall_chance=0.1, stall_ms=500),
        (10, 80),
        45,
    ),
    Setting("line 50-300 ms", Answer(), (50, 300), 140),
    Setting("line 10-80 ms, 24 kHz", Answer(), (10, 80), 45, "pcm24k"),
)


def check(outcome: Outcome, expected: int) -> None:
    """What holds of every interruption, however well its moment was met."""
    assert outcome.missed == 0
    assert outcome.refused == 0
    assert outcome.stale == 0
    assert len(outcome.errors_ms) + outcome.unheard == expected


async def test_what_the_model_is_told_was_heard(tmp_path: Path) -> None:
    """Sixty interruptions, with a bound that a busy machine keeps too: there, the line itself is late."""
    setting = SETTINGS[0]
    outcome = await campaign(tmp_path, template=setting.template, delay_ms=setting.delay_ms, calls=15, each=4)
    check(outcome, 60)
    assert len(outcome.errors_ms) >= 50
    assert outcome.quantile(0.5) <= 2 * setting.limit_ms


@pytest.mark.soak
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
async def test_six_hundred_interruptions(
    setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty calls of thirty interruptions each."""
    outcome = await campaign(
        tmp_path,
        template=setting.template,
        delay_ms=setting.delay_ms,
        calls=20,
        each=30,
        settings={"AUDIO_FORMAT": setting.audio_format},
    )
    with capsys.disabled():
        print(
            f"\n| truncation | {setting.name} | {len(outcome.errors_ms)} interruptions, "
            f"{outcome.unheard} unheard "
            f"| error p50 {outcome.quantile(0.5):.1f}, p95 {outcome.quantile(0.95):.1f}, "
            f"max {outcome.quantile(1):.1f} ms | missed {outcome.missed}, refused {outcome.refused}, "
            f"stale {outcome.stale} bytes |"
        )
    check(outcome, 600)
    assert len(outcome.errors_ms) >= 570
    assert outcome.quantile(0.95) <= setting.limit_ms
