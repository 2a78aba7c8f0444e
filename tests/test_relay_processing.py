"""The settings' side of what happens after a call."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handlehome.extract.prices import Prices
from handlehome.relay.assistant import load_assistant
from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.config import Settings
from handlehome.relay.processing import ProcessingError, discard_audio, journal_calls, make_profile, with_cost
from handlehome.relay.recording import Recorder
from handlehome.store.journal import Journal
from handlehome.store.records import CallRecord

CALL = "CA" + "1" * 32
ASSISTANT = load_assistant()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.open(tmp_path / "journal.sqlite3")
    yield opened
    opened.close()


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    started = Recorder(AudioFiles(tmp_path), both=False)
    yield started
    started.close()


def test_the_profile_is_the_assistants() -> None:
    profile = make_profile(Settings(phone_region="BE"), ASSISTANT)
    assert (profile.region, profile.time_zone, profile.language) == ("BE", "Europe/Paris", "fr")
    assert profile.schema.name == "default"


@pytest.mark.parametrize("text", ["{", '{"type": "array"}', '{"type": "object", "properties": {"a": {}}}'])
def test_a_schema_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(ProcessingError) as caught:
        make_profile(Settings(extraction_schema=path), ASSISTANT)
    assert caught.value.lines
    assert all(line.startswith("EXTRACTION_SCHEMA: ") for line in caught.value.lines)


def test_prices_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('["gpt-transcribe"]\nminute = -1\n')
    with pytest.raises(ProcessingError) as caught:
        with_cost(Settings(prices_file=path))
    assert all(line.startswith("PRICES_FILE: ") for line in caught.value.lines)


def record(usage: dict[str, Any] | None) -> CallRecord:
    return CallRecord(CALL, 0.0, usage=usage)


def test_what_a_call_used_has_its_price() -> None:
    complete = with_cost(Settings())
    usage = {"transcription": {"model": "gpt-transcribe", "seconds": 60}}
    done = complete(record(usage))
    assert done.usage == {**usage, "cost": Prices.load().cost(usage), "currency": "USD"}
    assert done.usage["cost"] == pytest.approx(0.0045)


def test_a_model_without_a_price_leaves_the_cost_unknown() -> None:
    done = with_cost(Settings())(record({"realtime": {"model": "unheard-of", "input_audio_tokens": 7}}))
    assert done.usage is not None
    assert done.usage["cost"] is None


def test_a_call_that_used_nothing_costs_nothing() -> None:
    assert with_cost(Settings())(record(None)).usage is None


@pytest.mark.parametrize(
    ("status", "kept"), [("retrying", True), ("stopped", True), ("complete", False), ("given_up", False)]
)
def test_the_callers_audio_goes_when_nothing_more_is_done_with_it(
    tmp_path: Path, status: str, kept: bool
) -> None:
    files = AudioFiles(tmp_path)
    spool = files.spool_path(CALL)
    spool.parent.mkdir()
    spool.write_bytes(b"audio")
    discard = discard_audio(files)
    for _ in range(2):
        discard(CallRecord(CALL, 0.0, extraction={"status": status}))
        assert spool.exists() == kept


def test_a_call_is_loaded_with_what_was_appended_just_before(journal: Journal, recorder: Recorder) -> None:
    calls = journal_calls(journal, recorder, make_profile(Settings(), ASSISTANT), lambda call_sid: None)
    assert calls.load(CALL) is None
    calls.append(CALL, "call_started", {"from": "+33612345678"})
    found = calls.load(CALL)
    assert found is not None
    assert found.from_ == "+33612345678"


def test_rules_know_the_region_and_the_day(journal: Journal, recorder: Recorder) -> None:
    calls = journal_calls(journal, recorder, make_profile(Settings(), ASSISTANT), lambda call_sid: None)
    calls.append(CALL, "call_started", {"from": "+33698765432"})
    turn = {"id": "u1", "role": "caller", "text": "Mon numéro est le 06 12 34 56 78."}
    calls.append(CALL, "turn", turn)
    found = calls.load(CALL)
    assert found is not None
    assert calls.rules(found)["customer"]["phone"] == "+33612345678"
