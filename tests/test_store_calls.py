"""The embedded call store."""

import sqlite3
import threading
from pathlib import Path

import pytest

from handlehome.store.calls import CallStore, CallStoreError, SqliteCallStore
from handlehome.store.records import CallRecord, LegRecord, TurnRecord

RECORD = CallRecord(
    "CA1",
    1_900_000_000.25,
    from_="+33612345678",
    to="+33123456789",
    direction="inbound",
    assistant="Léa",
    status="ended",
    ended_at=1_900_000_061.5,
    end_reason="caller_hung_up",
    legs=(LegRecord(0, "MZ1", 1_900_000_000.5, 1_900_000_061.5, "caller_hung_up"),),
    turns=(TurnRecord("item_1", "assistant", "Bonjour !", 300, 1200.5, 900.25, "Bon", True, None),),
)


@pytest.fixture
def store(tmp_path: Path):
    opened = SqliteCallStore(tmp_path / "calls.sqlite3")
    yield opened
    opened.close()


def test_is_a_call_store(store: SqliteCallStore) -> None:
    kept: CallStore = store
    assert kept.recent() == []


def test_record_comes_back_as_it_was_saved(store: SqliteCallStore) -> None:
    store.save(RECORD)
    assert store.get("CA1") == RECORD
    assert store.get("CA2") is None


def test_saving_twice_leaves_one_record_and_writes_nothing(store: SqliteCallStore) -> None:
    store.save(RECORD)
    reader = sqlite3.connect(store.path)
    before = reader.execute("PRAGMA data_version").fetchone()
    store.save(RECORD)
    assert reader.execute("PRAGMA data_version").fetchone() == before
    reader.close()
    assert store.recent(10) == [RECORD]


def test_later_record_replaces_the_earlier_one(store: SqliteCallStore) -> None:
    live = CallRecord("CA1", 1_900_000_000.25)
    store.save(live)
    store.save(RECORD)
    assert store.recent(10) == [RECORD]


def test_recent_calls_come_latest_first_and_limited(store: SqliteCallStore) -> None:
    for second in (5, 1, 9, 3):
        store.save(CallRecord(f"CA{second}", 1_900_000_000.0 + second))
    assert [record.call_sid for record in store.recent(3)] == ["CA9", "CA5", "CA3"]
    assert store.recent(0) == store.recent(-1) == []


@pytest.mark.parametrize(
    ("question", "index"),
    [
        ("ORDER BY started_at DESC LIMIT 5", "calls_by_start"),
        ("WHERE from_number = '+33612345678' ORDER BY started_at", "calls_by_caller"),
        ("WHERE to_number = '+33612345678' ORDER BY started_at", "calls_by_called"),
    ],
)
def test_searches_use_an_index(store: SqliteCallStore, question: str, index: str) -> None:
    reader = sqlite3.connect(store.path)
    plan = reader.execute(f"EXPLAIN QUERY PLAN SELECT document FROM calls {question}").fetchall()  # noqa: S608  # constants
    reader.close()
    assert index in str(plan)
    assert "TEMP B-TREE" not in str(plan)


def test_saved_record_is_there_after_reopening_without_closing(tmp_path: Path) -> None:
    first = SqliteCallStore(tmp_path / "calls.sqlite3")
    first.save(RECORD)
    second = SqliteCallStore(tmp_path / "calls.sqlite3")
    assert second.get("CA1") == RECORD
    second.close()
    first.close()


def test_threads_save_and_read_at_once(store: SqliteCallStore) -> None:
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(25):
                record = CallRecord(f"CA{worker}-{number}", 1_900_000_000.0 + number)
                store.save(record)
                assert store.get(record.call_sid) == record
                store.recent(5)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.recent(1000)) == 100


def test_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteCallStore(tmp_path / "calls.sqlite3")
    store.close()
    store.close()
    with pytest.raises(CallStoreError, match="closed"):
        store.save(RECORD)


def test_damaged_record_is_a_named_error(store: SqliteCallStore) -> None:
    store.save(RECORD)
    writer = sqlite3.connect(store.path)
    with writer:
        writer.execute("UPDATE calls SET document = '{\"_id\": 1'")
    writer.close()
    with pytest.raises(CallStoreError, match="damaged"):
        store.get("CA1")


def test_newer_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite3"
    SqliteCallStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(CallStoreError, match="newer"):
        SqliteCallStore(path)
