"""What the demonstration reads of a call: from the store, the journal and the folder of kept audio."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from handlehome.bench import demo_record
from handlehome.bench.demo_record import Row
from handlehome.store.journal import Journal
from handlehome.store.records import CallRecord, TurnRecord
from handlehome.store.sqlite import SqliteCallStore

DATA: dict[str, Any] = {
    "customer": {
        "first_name": "Claire",
        "last_name": None,
        "phone": "+33612345678",
        "phone_source": "said",
        "email": None,
        "address": {"street": "12 rue des Lilas", "postcode": "69003", "city": "Lyon"},
        "company": None,
    },
    "request": {
        "type": "emergency",
        "services": ["plomberie", "gaz"],
        "description": None,
        "urgency": "high",
    },
    "appointment": {"date": "2030-01-31", "time": "15:00", "duration_minutes": 60, "mode": "on_site"},
    "follow_up": "Un plombier passera.",
    "summary": "Une fuite.",
    "language": "fr",
    "sentiment": "neutral",
    "evidence": [
        {"field": "first_name", "turns": ["i2"], "confidence": 1.0},
        {"field": "city", "turns": ["i2"], "confidence": 1.0},
        {"field": "street", "turns": ["i1", "i2"], "confidence": 1.0},
        {"field": "phone", "turns": ["gone"], "confidence": 1.0},
    ],
}
RECORD = CallRecord(
    "CA1",
    0.0,
    turns=(TurnRecord("i1", "assistant", "Bonjour."), TurnRecord("i2", "caller", "Claire, à Lyon.")),
    data=DATA,
    extraction={"status": "complete", "method": "model", "model": "gpt-5.6-luna", "schema": "default"},
    usage={
        "extraction": {"output_text_tokens": 279, "input_text_tokens": 1698, "model": "gpt-5.6-luna"},
        "transcription": {"seconds": 17.82, "input_audio_tokens": 107, "model": "gpt-transcribe"},
        "cost": 0.0215,
        "currency": "USD",
    },
)


def shown(record: CallRecord) -> dict[str, tuple[str, str]]:
    return {f"{row.part} {row.name}": (row.value, row.said_in) for row in demo_record.rows(record)}


def test_data_with_the_turns_that_tell_them() -> None:
    assert list(shown(RECORD).items()) == [
        ("Customer first name", ("Claire", "turn 2")),
        ("Customer last name", ("", "")),
        ("Customer phone", ("+33612345678  (said in the call)", "turn 0")),
        ("Customer email", ("", "")),
        ("Customer address", ("12 rue des Lilas, 69003 Lyon", "turn 1, 2")),
        ("Customer company", ("", "")),
        ("Request type", ("emergency, urgency: high", "")),
        ("Request services", ("plomberie, gaz", "")),
        ("Request description", ("", "")),
        ("Appointment date", ("2030-01-31, Thursday", "")),
        ("Appointment time", ("15:00, 60 minutes", "")),
        ("Appointment mode", ("on site", "")),
        ("Follow-up promised", ("Un plombier passera.", "")),
        ("Call summary", ("Une fuite.", "")),
        ("Call language", ("fr", "")),
        ("Call sentiment", ("neutral", "")),
        ("Extraction status", ("complete", "")),
        ("Extraction by", ("model gpt-5.6-luna, schema: default", "")),
        ("Used up realtime", ("", "")),
        ("Used up transcription", ("gpt-transcribe: input audio 107, seconds 17.82", "")),
        ("Used up extraction", ("gpt-5.6-luna: input text 1,698, output text 279", "")),
        ("Used up cost", ("0.021500 USD", "")),
    ]


def test_the_number_that_called_is_told_apart_from_one_that_was_said() -> None:
    customer = {**DATA["customer"], "phone_source": "caller_id"}
    record = replace(RECORD, data={**DATA, "customer": customer, "evidence": []})
    assert shown(record)["Customer phone"] == ("+33612345678  (the number that called)", "")


def test_a_record_without_data_is_shown_as_such() -> None:
    rows = demo_record.rows(CallRecord("CA1", 0.0))
    assert not any(row.value or row.said_in for row in rows)
    assert Row("Customer", "phone", "") in rows
    waiting = {"status": "waiting", "method": None, "model": None, "schema": None}
    assert shown(CallRecord("CA1", 0.0, extraction=waiting))["Extraction status"] == ("waiting", "")


def test_the_record_is_the_stores(tmp_path: Path) -> None:
    store = SqliteCallStore(tmp_path / "calls.sqlite3")
    store.save(RECORD)
    store.close()
    assert demo_record.stored(tmp_path, "CA1") == RECORD
    assert demo_record.stored(tmp_path, "CA2") is None
    assert demo_record.stored(tmp_path / "nowhere", "CA1") is None


def test_the_events_are_those_of_the_call(tmp_path: Path) -> None:
    assert demo_record.journaled(tmp_path, "CA1") == []
    journal = Journal.open(tmp_path / "journal.sqlite3")
    for call_sid in ("CA1", "CA2", "CA1"):
        journal.append(call_sid, "turn", {"id": call_sid})
    journal.close()
    events = demo_record.journaled(tmp_path, "CA1")
    assert [event.data for event in events] == [{"id": "CA1"}] * 2
    assert events[0].seq < events[1].seq


def test_kept_audio_is_what_lies_in_its_folder(tmp_path: Path) -> None:
    assert demo_record.kept_audio(tmp_path) == []
    (tmp_path / "audio").mkdir()
    assert demo_record.kept_audio(tmp_path) == []
    for name in ("b.wav", "a.wav"):
        (tmp_path / "audio" / name).touch()
    assert demo_record.kept_audio(tmp_path) == ["a.wav", "b.wav"]
