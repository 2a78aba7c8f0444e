"""What a call costs: right, or unknown."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from handlehome.extract.prices import Prices, PricesError

TABLE = {
    "voice": {
        "audio": {"input": 10.0, "cached": 0.3, "output": 20.0},
        "text": {"input": 0.6, "cached": 0.06, "output": 2.4},
    },
    "ears": {"minute": 0.006},
    "mind": {"text": {"input": 0.2, "cached": 0.02, "cache_write": 0.25, "output": 1.2}},
    "plain": {"text": {"input": 1, "output": 2}},
}
M = 1_000_000


def of(model: str, **counts: float) -> dict[str, Any]:
    return {"realtime": {"model": model, **counts}}


@pytest.fixture
def prices() -> Prices:
    return Prices(TABLE)


def test_a_realtime_session_pays_fresh_and_cached_input_apart(prices: Prices) -> None:
    usage = of(
        "voice",
        input_text_tokens=3 * M,
        cached_text_tokens=2 * M,
        input_audio_tokens=5 * M,
        cached_audio_tokens=1 * M,
        output_text_tokens=1 * M,
        output_audio_tokens=2 * M,
    )
    expected = 1 * 0.6 + 2 * 0.06 + 4 * 10 + 1 * 0.3 + 1 * 2.4 + 2 * 20
    assert prices.cost(usage) == pytest.approx(expected)
    assert prices.missing(usage) == []


def test_input_that_is_all_cached_pays_nothing_fresh(prices: Prices) -> None:
    assert prices.cost(of("voice", input_text_tokens=M, cached_text_tokens=M)) == pytest.approx(0.06)


def test_an_extraction_pays_what_it_wrote_to_the_cache(prices: Prices) -> None:
    usage = of(
        "mind",
        input_text_tokens=10 * M,
        cached_text_tokens=4 * M,
        cache_write_tokens=3 * M,
        output_text_tokens=M,
    )
    assert prices.cost(usage) == pytest.approx(3 * 0.2 + 4 * 0.02 + 3 * 0.25 + 1.2)


def test_a_transcription_pays_by_the_minute_whatever_its_tokens(prices: Prices) -> None:
    assert prices.cost(of("ears", seconds=90)) == pytest.approx(0.009)
    assert prices.cost(of("ears", seconds=90, input_audio_tokens=900)) == pytest.approx(0.009)


def test_a_whole_call_is_the_sum_of_its_sources(prices: Prices) -> None:
    usage = {
        "realtime": {"model": "voice", "output_audio_tokens": 1000},
        "transcription": {"model": "ears", "seconds": 30.5},
        "extraction": {"model": "mind", "input_text_tokens": 1500, "output_text_tokens": 300},
        "cost": None,
        "currency": "USD",
    }
    assert prices.cost(usage) == round(0.02 + 0.00305 + 0.0003 + 0.00036, 6)


def test_nothing_used_costs_nothing(prices: Prices) -> None:
    assert prices.cost({}) == 0
    assert prices.cost({"cost": None, "currency": "USD", "realtime": None}) == 0
    assert prices.cost(of("no such model", seconds=0)) == 0


@pytest.mark.parametrize(
    ("usage", "lacking"),
    [
        (of("new", input_text_tokens=5, output_text_tokens=1), ["new"]),
        ({"realtime": {"input_text_tokens": 5}}, ["None"]),
        (of("plain", input_text_tokens=5, cached_text_tokens=1), ["plain: cached_text_tokens"]),
        (of("plain", input_audio_tokens=5), ["plain: input_audio_tokens"]),
        (of("voice", input_tokens=5, output_text_tokens=1), ["voice: input_tokens"]),
        (of("voice", input_image_tokens=5), ["voice: input_image_tokens"]),
        (of("voice", seconds=5), ["voice: seconds"]),
        (of("ears", input_audio_tokens=50, output_text_tokens=5), ["ears: seconds"]),
        (
            of("voice", input_text_tokens=5, cached_text_tokens=6),
            ["voice: cached_text_tokens beyond input_text_tokens"],
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_has_no_price_makes_the_cost_unknown_and_is_named(
    prices: Prices, usage: dict[str, Any], lacking: list[str]
) -> None:
    known = {"extraction": {"model": "mind", "output_text_tokens": M}}
    assert prices.cost(known | usage) is None
    assert prices.missing(known | usage) == lacking


def test_each_thing_that_lacks_a_price_is_named_once(prices: Prices) -> None:
    usage = {"realtime": {"model": "new", "seconds": 1}, "extraction": {"model": "new", "seconds": 2}}
    assert prices.missing(usage) == ["new"]


def test_a_dated_snapshot_costs_what_its_model_costs_unless_it_has_its_own_price() -> None:
    prices = Prices({"mind": {"minute": 60}, "mind-2025-01-01": {"minute": 120}})
    assert prices.cost(of("mind-2026-07-01", seconds=1)) == 1
    assert prices.cost(of("mind-2025-01-01", seconds=1)) == 2
    assert "mind-2026-07-01" in prices
    assert "mind-mini" not in prices


def test_the_built_in_table_knows_the_default_models() -> None:
    prices = Prices.load()
    for model in ("gpt-realtime-2.1-mini", "gpt-transcribe", "gpt-5.6-luna", "whisper-1"):
        assert model in prices
    usage = {
        "realtime": {"model": "gpt-realtime-2.1-mini", "input_audio_tokens": M, "output_audio_tokens": M},
        "transcription": {"model": "gpt-transcribe", "seconds": 60},
        "extraction": {"model": "gpt-5.6-luna", "input_text_tokens": M, "output_text_tokens": M},
    }
    assert prices.cost(usage) == pytest.approx(10 + 20 + 0.0045 + 0.2 + 1.2)


def test_the_built_in_table_says_its_date_and_source() -> None:
    head = (resources.files("handlehome.extract") / "prices.toml").read_text("utf-8").split("\n\n")[0]
    assert re.search(r"20\d\d-\d\d-\d\d", head)
    assert "openai.com" in head


def test_a_users_file_adds_models_and_replaces_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('["mine"]\nminute = 1\n["gpt-5.6-luna"]\ntext.input = 5\n', encoding="utf-8")
    prices = Prices.load(path)
    assert prices.cost(of("mine", seconds=60)) == 1
    assert prices.cost(of("gpt-transcribe", seconds=60)) == 0.0045
    assert prices.cost(of("gpt-5.6-luna", input_text_tokens=M)) == 5
    assert prices.missing(of("gpt-5.6-luna", output_text_tokens=M)) == ["gpt-5.6-luna: output_text_tokens"]


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("[m.text]\ninput = -1", "[m] text.input: -1 is negative"),
        ("[m.text]\ninput = '1'", "[m] text.input: '1' is not a number"),
        ("[m.text]\ninput = true", "[m] text.input: True is not a number"),
        ("[m.text]\ninput = nan", "[m] text.input: nan is not a number"),
        ("[m.text]\ninput = inf", "[m] text.input: inf is not a number"),
        ("[m.text]\ninputs = 1", "[m] text.inputs: unknown key; did you mean input?"),
        ("[m.audio]\ncache_write = 1", "[m] audio.cache_write: unknown key; expected input, cached, output"),
        ("[m]\nminutes = 1", "[m] minutes: unknown key; did you mean minute?"),
        ("[m]\ntext = 1", "[m] text: expected a table"),
        ("[m]", "[m]: has no price"),
        ("[m]\ntext = {}", "[m]: has no price"),
        ("m = 1", "[m]: expected a table"),
        ("[m]\nminute = 1\ntext.input = 1", "[m] minute: a model is priced by the minute or by tokens"),
        ("[m", "Expected ']'"),
    ],
)
def test_each_mistake_is_a_line_with_file_table_and_key(tmp_path: Path, toml: str, problem: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(toml, encoding="utf-8")
    with pytest.raises(PricesError) as caught:
        Prices.load(path)
    (line,) = caught.value.lines
    assert line.startswith(f"{path}: {problem}")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("[a]\nminute = -1\n[b.text]\ninputt = 1\noutput = 'x'\n", encoding="utf-8")
    with pytest.raises(PricesError) as caught:
        Prices.load(path)
    assert len(caught.value.lines) == 3


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PricesError, match=r"missing\.toml: cannot be read: No such file"):
        Prices.load(tmp_path / "missing.toml")
    (tmp_path / "p.toml").write_bytes(b"\xff\xff")
    with pytest.raises(PricesError, match="is not UTF-8"):
        Prices.load(tmp_path / "p.toml")
