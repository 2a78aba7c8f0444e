import json
from collections.abc import Callable
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
    encode_times: float = 15.0,
    decode_times: float = 0.98,
    slice_times: float = 0.88,
) -> Report:
    def row(name: str, waits: Waits | None) -> ResamplerRow:
        return ResamplerRow(
            name, 8000, 24000, ripple_db, rejection_db, 75.0, waits, Cost(frame_us, frame_us + 1)
        )

    return Report(
        {"blas_threads": 1},
        ["soxr"],
        [
            G711Row("mu-law encode", 160, Cost(2.0, 2.0), Cost(0.7, 0.7), 0.35, 1.3),
            G711Row("mu-law decode", 9600, Cost(4.1, 4.1), Cost(3.7, 3.7), slice_times, 0.4),
            G711Row("mu-law encode", 80_000, Cost(90.0, 90.0), Cost(1400.0, 1400.0), encode_times, -1310.0),
            G711Row("mu-law decode", 80_000, Cost(31.0, 31.0), Cost(31.0, 31.0), decode_times, 0.4),
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
    assert len(found) == 7  # four of the resampler, three of G.711 at large sizes
    assert all(verdict.met for verdict in found)


@pytest.mark.parametrize(
    ("figure", "value", "word"),
    [
        ("ripple_db", 0.11, "ripple"),
        ("rejection_db", 59.9, "aliases"),
        ("delay_ms", 2.1, "delay"),
        ("frame_us", 15.1, "frame"),
        ("encode_times", 1.99, "encode of 80000 samples: 1.99 times as fast as audioop, at least 2"),
        ("decode_times", 0.89, "decode of 80000 samples: 0.89 times as fast as audioop, at least 0.9"),
        ("slice_times", 0.74, "decode of 9600 samples: 0.74 times as fast as audioop, at least 0.75"),
    ],
)
def test_each_missed_target_is_named(figure: str, value: float, word: str) -> None:
    missed = [verdict.line for verdict in suite.verdicts(report(**{figure: value})) if not verdict.met]
    assert len(missed) == 1
    assert word in missed[0]


def test_decoding_says_what_the_ndarray_costs() -> None:
    lines = [verdict.line for verdict in suite.verdicts(report()) if "decode" in verdict.line]
    assert len(lines) == 2
    assert all(line.endswith("(audioop's own, and the ndarray round it: +0.4 us)") for line in lines)


def test_what_is_compared_takes_turns() -> None:
    """And each is the first as often as the last."""
    order: list[str] = []

    def note(name: str) -> Callable[[], None]:
        def called() -> None:
            sum(range(50_000))
            if not order or order[-1] != name:
                order.append(name)

        return called

    found = suite.batches([note("a"), note("b")], 0.0)
    assert [len(each) for each in found] == [6, 6]
    assert "".join(order[-7:]) == "abababa"


def test_load_that_slows_both_down_alike_changes_no_ratio() -> None:
    load = [1.0, 3.0, 1.0, 10.0, 2.0]
    assert suite.times_as_fast(load, [2 * each for each in load]) == 2
    assert suite.times_as_fast([*load, 1000.0, 1.0], [*(2 * each for each in load), 1.0, 1000.0]) == 2


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
    assert len(measured["verdicts"]) == 4 + 4 * len(suite.LARGE)
    for verdict in measured["verdicts"]:
        assert f"{'met   ' if verdict['met'] else 'MISSED'}  {verdict['line']}" in shown
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
