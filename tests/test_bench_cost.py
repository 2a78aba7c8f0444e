"""The cost benchmark's arithmetic and words, and the whole of it with a small load."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from handlehome.bench import cost
from handlehome.bench.costrun import Latency, Run

GOOD = Run(
    relay="daemon",
    user_us=15.0,
    system_us=5.0,
    relay_busy=0.3,
    load_busy=0.4,
    relay_waited=0.0,
    load_waited=0.0,
    frames=10_000,
    lost=0,
    disordered=0,
    messages_up=1.0,
    messages_down=1.0,
    kib_per_call=100.0,
    up_ms=Latency(0.2, 0.4, 0.6, 1.0),
    down_ms=Latency(0.2, 0.4, 0.6, 1.0),
    webhook_ms=Latency(5.0, 8.0, 9.0, 9.0),
    greeting_ms=None,
    barge_in_ms=None,
    late_ticks=0,
    late_max_ms=1.0,
    faults=(),
)
PLAIN = replace(GOOD, relay="baseline", user_us=35.0, webhook_ms=None)


def missed(*runs: Run) -> list[str]:
    return [line for met, line in cost.verdicts(runs) if not met]


def test_the_ratio_is_taken_round_by_round() -> None:
    dear = replace(GOOD, user_us=19.0)
    assert cost.ratios([GOOD, PLAIN, dear, PLAIN]) == [0.5, 0.6]


def test_all_targets_can_be_met() -> None:
    assert missed(GOOD, PLAIN) == []


@pytest.mark.parametrize(
    ("ours", "word"),
    [
        (replace(GOOD, user_us=20.0), "CPU per frame"),
        (replace(GOOD, kib_per_call=201.0), "memory"),
        (replace(GOOD, lost=1), "lost"),
        (replace(GOOD, disordered=1), "disordered"),
        (replace(GOOD, messages_down=0.99), "messages out"),
        (replace(GOOD, up_ms=Latency(0.2, 0.4, 0.8, 1.0)), "up p99"),
        (replace(GOOD, down_ms=Latency(0.4, 0.4, 0.6, 1.0)), "down p50"),
    ],
)
def test_each_target_can_be_missed(ours: Run, word: str) -> None:
    (line,) = missed(ours, PLAIN)
    assert word in line


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (replace(GOOD, load_busy=0.9), "load generator was the bottleneck"),
        (replace(PLAIN, relay_busy=0.9), "baseline was saturated"),
        (replace(GOOD, relay_waited=0.1), "Something else ran"),
        (replace(GOOD, late_ticks=3, late_max_ms=30.0), "clock was late"),
        (replace(GOOD, faults=("a stream was closed",)), "a stream was closed"),
    ],
)
def test_what_makes_the_result_doubtful_is_said_once(run: Run, word: str) -> None:
    (note,) = cost.notes([run, GOOD, run])
    assert word in note


def test_nothing_is_noted_of_a_quiet_run() -> None:
    assert cost.notes([GOOD, PLAIN]) == []


def test_the_table_shows_medians_side_by_side() -> None:
    lines = cost.table([GOOD, PLAIN, replace(GOOD, user_us=17.0), PLAIN, replace(GOOD, user_us=40.0), PLAIN])
    assert lines[1].split()[-3:] == ["22.0", "40.0", "us"]
    webhook = next(line for line in lines if "webhook" in line)
    assert "5.00 / 8.00 / 9.00" in webhook
    assert webhook.split()[-7] == "-"


def test_a_small_run_prints_a_table_and_writes_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The targets may be missed: two calls leave the relays cold."""
    status = cost.main(2, 1.0, 1, tmp_path / "cost.json")
    shown = capsys.readouterr().out
    assert "CPU per relayed frame" in shown
    written = json.loads((tmp_path / "cost.json").read_text())
    assert [run["relay"] for run in written["runs"]] == ["daemon", "baseline"]
    assert all(run["lost"] == 0 for run in written["runs"])
    assert (status == 0) == ("MISSED" not in shown)
