"""Stored calls as CSV and JSON Lines."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from handlehome.relay.export import COLUMNS, ExportFormat, export, stored_calls
from handlehome.store.calls import EVERY_CALL, CallQuery
from handlehome.store.records import CallRecord, TurnRecord
from handlehome.store.sqlite import SqliteCallStore

DATA: dict[str, Any] = {
    "customer": {
        "first_name": "Zoé",
        "last_name": "Lefèvre",
        "phone": "+33612345678",
        "email": None,
        "address": {"street": "12, rue des Lilas", "postcode": "69003", "city": "Lyon"},
    },
    "request": {
        "type": "emergency",
        "services": ["plomberie", "chauffage"],
        "description": "Fuite,\n« urgent »",
    },
    "appointment": {"date": "2030-03-18", "time": "09:30"},
    "summary": '=HYPERLINK("http://evil")',
    "evidence": [],
}


def record(number: int, **more: Any) -> CallRecord:
    turns = (
        TurnRecord("a1", "assistant", "Bonjour."),
        TurnRecord("u1", "caller", "J'ai une fuite."),
        TurnRecord("u2", "caller", None),
    )
    return CallRecord(
        f"CA{number:032d}",
        1_900_000_000.0 + number,
        from_="+33612345678",
        to="+33123456789",
        status="ended",
        ended_at=1_900_000_000.0 + number + 61.5,
        end_reason="caller_hung_up",
        turns=turns,
        **more,
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteCallStore]:
    opened = SqliteCallStore(tmp_path / "calls.sqlite3")
    yield opened
    opened.close()


def rows(store: SqliteCallStore) -> list[dict[str, str]]:
    out = io.StringIO(newline="")
    export(stored_calls(store, EVERY_CALL), ExportFormat.CSV, out)
    return list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))


def test_a_row_has_what_was_extracted(store: SqliteCallStore) -> None:
    store.save(
        record(1, data=DATA, extraction={"status": "complete", "method": "model"}, usage={"cost": 0.0421})
    )
    (row,) = rows(store)
    assert list(row) == list(COLUMNS)
    assert row["call_sid"] == f"CA{1:032d}"
    assert row["started_at"] == "2030-03-17T17:46:41.000Z"
    assert row["duration_s"] == "61.5"
    assert (row["first_name"], row["last_name"], row["phone"]) == ("Zoé", "Lefèvre", "+33612345678")
    assert (row["street"], row["email"]) == ("12, rue des Lilas", "")
    assert row["services"] == "plomberie, chauffage"
    assert row["description"] == "Fuite,\n« urgent »"
    assert row["transcript"] == "assistant: Bonjour.\ncaller: J'ai une fuite."
    assert (row["extraction"], row["cost"], row["workflow"]) == ("complete", "0.0421", "new")


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+1+1", "-2+3", "\t=1"])
def test_what_a_caller_says_is_no_formula(store: SqliteCallStore, text: str) -> None:
    store.save(record(1, data={"summary": text}))
    assert rows(store)[0]["summary"] == f"'{text}"


@pytest.mark.parametrize("data", [None, {"quite": "another schema"}, {"customer": "no object"}])
def test_a_record_without_the_built_in_schema_has_empty_cells(
    store: SqliteCallStore, data: dict[str, Any] | None
) -> None:
    store.save(record(1, data=data))
    (row,) = rows(store)
    assert row["first_name"] == row["summary"] == row["cost"] == ""


def test_json_lines_hold_each_whole_document(store: SqliteCallStore) -> None:
    first, second = record(1, data=DATA), record(2)
    for each in (first, second):
        store.save(each)
    store.set_workflow(second.call_sid, "done")
    out = io.StringIO()
    assert export(stored_calls(store, EVERY_CALL), ExportFormat.JSONL, out) == 2
    documents = [orjson.loads(line) for line in out.getvalue().splitlines()]
    assert [document.pop("workflow") for document in documents] == ["done", "new"]
    assert [CallRecord.from_document(document) for document in documents] == [second, first]


def test_many_calls_come_page_by_page_in_order(store: SqliteCallStore) -> None:
    for number in range(450):
        store.save(record(number))
    found = [call.record.call_sid for call in stored_calls(store, CallQuery(since=1_900_000_010.0))]
    assert found == [f"CA{number:032d}" for number in range(449, 9, -1)]
