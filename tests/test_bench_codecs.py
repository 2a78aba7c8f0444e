import json
from pathlib import Path

import pytest
from rich.console import Console

from handlehome.bench import codecs as suite
from handlehome.bench.codecs import Cost, FrameRow, G711Row, Report, ResamplerRow
from handlehome.bench.filters import Waits


def report(
    *,
    ripple_db: float = 0.01,
    rejection_db: float = 70.0,
    delay_ms: float = 1.75,
    frame_us: float = 8.0,
    encode_us: float = 90.0,
    decode_us: float = 30.0,
) -> Report:
    def row(name: str, waits: Waits | None) -> ResamplerRow:
        return ResamplerRow(
            name, 8000, 24000, ripple_db, rejection_db, 75.0, waits, Cost(frame_us, frame_us + 1)
        )

    return Report(
        {"blas_threads": 1},
        ["soxr"],
        [
            G711Row("mu-law encode", 160, Cost(2.0, 2.0), Cost(0.7, 0.7)),
            G711Row("mu-law encode", 80_000, Cost(encode_us, encode_us), Cost(1400.0, 1400.0)),
            G711Row("mu-law decode", 80_000, Cost(decode_us, decode_us), Cost(31.0, 31.0)),
        ],
        [row("ours", Waits(1.0, delay_ms, delay_ms)), row("resample_poly", None)],
        [FrameRow("level, RMS", Cost(0.3, 0.4))],
    )


def text(report: Report) -> str:
    console = Console(width=80)
    with console.capture() as shown:
        for table in suite.tables(report):
            console.print(table)
    return shown.get()


def test_cost_is_the_time_of_one_call() -> None:
    """Whatever a call takes: batches are made long enough for the clock."""

    def busy() -> None:
        sum(range(20_000))

    ten = suite.cost(lambda: [busy() for _ in range(10)], 0.05)
    one = suite.cost(busy, 0.05)
    assert 0 < one.best_us <= one.median_us
    assert 5 < ten.best_us / one.best_us < 20
    assert suite.cost(lambda: None, 0.01).best_us < 5


def test_all_targets_met() -> None:
    found = suite.verdicts(report())
    assert len(found) == 6  # four of the resampler, two of G.711 at the largest size
    assert all(met for met, _ in found)


@pytest.mark.parametrize(
    ("figure", "value", "word"),
    [
        ("ripple_db", 0.11, "ripple"),
        ("rejection_db", 59.9, "aliases"),
        ("delay_ms", 2.1, "delay"),
        ("frame_us", 15.1, "frame"),
        ("encode_us", 701.0, "encode"),
        ("decode_us", 40.0, "decode"),
    ],
)
def test_each_missed_target_is_named(figure: str, value: float, word: str) -> None:
    missed = [line for met, line in suite.verdicts(report(**{figure: value})) if not met]
    assert len(missed) == 1
    assert word in missed[0]


def test_tables_fit_a_terminal_and_say_what_is_missing() -> None:
    shown = text(report())
    assert "soxr missing" in shown
    assert "8 to 24 kHz" in shown
    assert "1.75" in shown
    assert "level, RMS" in shown
    assert "…" not in shown


def test_a_delay_that_varies_is_shown_from_best_to_worst() -> None:
    measured = report()
    measured.resampling[0] = ResamplerRow(
        "soxr VHQ", 8000, 24000, 0.0, 115.0, 86.0, Waits(155.0, 16.8, 154.04), Cost(123.4, 1234.5)
    )
    shown = text(measured)
    assert "17 to 154" in shown
    assert "1234" in shown
    assert "…" not in shown


def test_the_suite_runs_from_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer tones, one direction and hardly any time; whether targets are met is for a quiet machine."""
    monkeypatch.setattr(suite, "DIRECTIONS", ((8000, 24000),))
    written = tmp_path / "codecs.json"
    status = suite.main(seconds=0.0, json_file=written, step_hz=850)
    shown = capsys.readouterr().out
    measured = json.loads(written.read_text(encoding="utf-8"))
    assert status == ("MISSED" in shown)
    assert "met     8 to 24 kHz: ripple" in shown
    assert str(written) in shown.replace("\n", "")
    assert measured["resampling"][0]["name"] == "ours"
    assert len(measured["resampling"]) == 7
    assert len(measured["g711"]) == 4 * len(suite.SIZES)
    assert measured["missing"] == []
    assert measured["machine"]["blas_threads"] >= 1


def test_without_development_tools_the_suite_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "DIRECTIONS", ((24000, 8000),))
    monkeypatch.setattr(suite, "optional", lambda name: None)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    suite.main(seconds=0.0, step_hz=850)
    shown = capsys.readouterr().out
    assert "scipy is not installed" in shown
    assert "soxr is not installed" in shown
    assert "BLAS threads: not known" in shown
