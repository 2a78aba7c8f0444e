"""`handlehome score` on the corpus, by the rules and by a simulated model."""

import asyncio
from pathlib import Path

import orjson
import pytest

from handlehome.bench.rest import faults
from handlehome.bench.rest.request import RESPONSES
from handlehome.bench.rest.server import RestSimulator
from handlehome.extract import corpus
from handlehome.relay.config import Settings
from handlehome.relay.score_command import run_score


def settings(rest: RestSimulator) -> Settings:
    return Settings.model_validate({"openai_api_key": "sk-test", "openai_base_url": rest.url})


def test_the_rules_are_scored_without_any_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_score(None, None, tmp_path / "score.json") == 0
    assert "phone" in capsys.readouterr().out
    written = orjson.loads((tmp_path / "score.json").read_bytes())
    assert written["name"] == "rules"
    assert len(written["cases"]) == len(corpus.load()) >= 30
    fields = {row["field"]: row for row in written["fields"]}
    assert fields["phone"]["f1"] > 0.9


async def test_a_model_is_asked_once_for_each_call(capsys: pytest.CaptureFixture[str]) -> None:
    async with RestSimulator() as rest:
        assert await asyncio.to_thread(run_score, settings(rest), "gpt-5.6-luna", None) == 0
        assert len(rest.of(RESPONSES)) == len(corpus.load())
        assert {request.model for request in rest.of(RESPONSES)} == {"gpt-5.6-luna"}


async def test_a_call_that_fails_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    async with RestSimulator(faults=faults.numbered({0: faults.SERVER_ERROR}, path=RESPONSES)) as rest:
        assert await asyncio.to_thread(run_score, settings(rest), "gpt-5.6-luna", None) == 1
    assert "HTTP 500" in capsys.readouterr().out


def test_a_model_without_a_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_score(Settings(), "gpt-5.6-luna", None) == 2
    assert "OPENAI_API_KEY" in capsys.readouterr().err
