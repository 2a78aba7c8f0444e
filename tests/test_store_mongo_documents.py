"""Records as documents of MongoDB, and back."""

from datetime import UTC, datetime, timedelta

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given
from hypothesis import strategies as st

from handlehome.store.calls import CallQuery, CallStoreError, StoredCall
from handlehome.store.mongo_documents import (
    behind,
    call_document,
    conditions,
    cursor_behind,
    stored_call,
    to_date,
    to_ms,
)
from handlehome.store.records import CallRecord, LegRecord
from tests.call_store_suite import CALLER, RECORD

times = st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000)


@given(times, st.none() | times, times)
def test_record_comes_back_through_bson(start: float, end: float | None, leg: float) -> None:
    record = CallRecord("CA1", start, ended_at=end, legs=(LegRecord(1, None, leg, end),), data={"at": "2030"})
    sent = bson.encode({**call_document(record, None), "workflow": "done"})
    document = bson.decode(sent, CodecOptions(tz_aware=True, tzinfo=UTC))
    assert stored_call(document) == StoredCall(record, "done")
    assert to_ms(document["started_at"]) == round(start * 1000)


def test_what_stands_beside_the_record() -> None:
    document = call_document(RECORD, timedelta(days=30))
    assert document["started_at"] == to_date(RECORD.started_at)
    assert document["expires_at"] - document["started_at"] == timedelta(days=30)
    assert document["party"] == document["client"] == document["customer_phone"] == CALLER
    assert document["request_type"] == "quote"
    assert {"chaudiere", "zoe", "33612345678"} <= set(document["words"])
    assert "expires_at" not in call_document(RECORD, None)


def test_words_that_were_searched_for_are_shown() -> None:
    document = {**call_document(RECORD, None), "workflow": "new"}
    assert stored_call(document, ["lefevre"]).snippet == "Lefèvre"


@pytest.mark.parametrize("change", [{"started_at": "soon"}, {"ended_at": 5}, {"turns": [{}]}, {"legs": 3}])
def test_damaged_document_is_a_named_error(change: dict[str, object]) -> None:
    with pytest.raises(CallStoreError, match="damaged"):
        stored_call({**call_document(RECORD, None), "workflow": "new", **change})


def test_conditions_of_a_query() -> None:
    assert conditions(CallQuery()) == []
    query = CallQuery(since=1.5, to="+33", phone=CALLER)
    assert conditions(query) == [
        {"started_at": {"$gte": datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)}},
        {"to": {"$eq": "+33"}},
        {"$or": [{"party": CALLER}, {"customer_phone": CALLER}]},
    ]
    (words,) = conditions(CallQuery(text="L'Évier"))
    assert [word.pattern for word in words["words"]["$all"]] == ["^l", "^evier"]


def test_cursor_leads_behind_the_last_one_of_the_page() -> None:
    date = datetime(2030, 1, 1, tzinfo=UTC)
    found = [{"_id": f"CA{number}", "started_at": date} for number in (3, 2, 1)]
    cursor = cursor_behind(found, "started_at", 2)
    assert cursor is not None
    assert behind(cursor, "started_at") == {
        "started_at": {"$lte": date},
        "$or": [{"started_at": {"$lt": date}}, {"_id": {"$lt": "CA2"}}],
    }
    assert cursor_behind(found, "started_at", 3) is None
    assert cursor_behind([], "started_at", 0) is None
