"""The embedded call store: what every store does, and what is its own."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from handlehome.store.calls import CallStoreError, CallStoreUnavailable
from handlehome.store.records import CallRecord, TurnRecord
from handlehome.store.sqlite import SqliteCallStore
from tests.call_store_suite import CALLER, RECORD, START, CallStoreSuite, Opener, call, customer, sids

# The first version's schema, as it stood.
SCHEMA_1 = """
CREATE TABLE calls (
    call_sid TEXT PRIMARY KEY,
    started_at TEXT NOT NULL,
    from_number TEXT,
    to_number TEXT,
    document TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX calls_by_start ON calls (started_at);
CREATE INDEX calls_by_caller ON calls (from_number, started_at);
CREATE INDEX calls_by_called ON calls (to_number, started_at);
PRAGMA user_version = 1;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.sqlite3"


@pytest.fixture
def opened(path: Path) -> Iterator[Opener]:
    with contextlib.ExitStack() as stack:

        def open_store(*, retention_days: int | None = None) -> SqliteCallStore:
            store = SqliteCallStore(path, retention_days=retention_days)
            stack.callback(store.close)
            return store

        yield open_store


class TestSqliteCallStore(CallStoreSuite):
    pass


@contextlib.contextmanager
def another(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def test_saving_twice_writes_nothing(opened: Opener, path: Path) -> None:
    store = opened()
    store.save(RECORD)
    with another(path) as reader:
        before = reader.execute("PRAGMA data_version").fetchone()
        store.save(RECORD)
        store.save(replace(RECORD, status="live"))
        assert reader.execute("PRAGMA data_version").fetchone() == before


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        ("TRUE", "calls_by_start"),
        (
            "(started_ms, call_sid) < (5, 'CA')",
            "calls_by_start",
        ),
        ("from_number = '+336'", "calls_by_caller"),
        ("to_number = '+336'", "calls_by_called"),
        ("client = '+336'", "calls_by_client"),
    ],
)
def test_lists_use_an_index(opened: Opener, path: Path, condition: str, index: str) -> None:
    opened()
    with another(path) as reader:
        query = (
            f"SELECT document FROM calls WHERE {condition} ORDER BY started_ms DESC, call_sid DESC LIMIT 5"  # noqa: S608  # constants
        )
        plan = str(reader.execute(f"EXPLAIN QUERY PLAN {query}").fetchall())
    assert index in plan
    assert "TEMP B-TREE" not in plan


def test_erasure_does_not_look_at_every_call(opened: Opener, path: Path) -> None:
    opened()
    with another(path) as reader:
        plan = reader.execute(
            "EXPLAIN QUERY PLAN SELECT id FROM calls WHERE party = 'a' OR customer_phone = 'a'"
        ).fetchall()
    assert "calls_by_party" in str(plan)
    assert "calls_by_customer" in str(plan)


@pytest.mark.parametrize("how", ["erased", "deleted", "purged"])
def test_nothing_of_a_removed_call_is_left_in_the_files(opened: Opener, path: Path, how: str) -> None:
    store = opened(retention_days=1)
    for number in range(30):
        store.save(call(number, started_at=START + 1e6 + number, from_="+33600000000"))
    secret = TurnRecord("a", "caller", "mirabelle " * 2000)
    store.save(call(900, started_at=START, turns=(secret,), data=customer(first_name="Cunégonde")))
    words = [b"mirabelle", b"Cun\xc3\xa9gonde", b"cunegonde", CALLER.encode()]
    before = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert all(word in before for word in words)
    match how:
        case "erased":
            assert store.erase(CALLER).calls == ("CA900",)
        case "deleted":
            assert store.delete("CA900")
        case "purged":
            assert store.purge(START + 1.5 * 86_400) == 1
    after = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert [word for word in words if word in after] == []
    assert len(sids(store)) == 30


def test_many_calls_are_purged_in_portions(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlehome.store.sqlite.PURGE_CALLS", 3)
    store = opened(retention_days=1)
    for number in range(7):
        store.save(call(number))
    assert store.purge(START + 10 * 86_400) == 7
    assert store.clients().clients == ()


def test_reading_does_not_wait_for_a_write(opened: Opener, path: Path) -> None:
    store = opened()
    store.save(RECORD)
    with another(path) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert store.get("CA1") == RECORD


def test_store_that_another_process_writes_to_is_unavailable_within_seconds(
    opened: Opener, path: Path
) -> None:
    store = opened()
    with another(path) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(CallStoreUnavailable, match="locked"):
            store.save(RECORD)
        writer.execute("ROLLBACK")
    store.save(RECORD)


def test_full_disk_is_unavailable_until_there_is_room(opened: Opener) -> None:
    store = opened()
    assert isinstance(store, SqliteCallStore)
    store.save(RECORD)
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages + 1}")
    large = call(1, turns=(TurnRecord("a", "caller", "x" * 100_000),))
    with pytest.raises(CallStoreUnavailable, match="full"):
        store.save(large)
    assert store.get("CA1") == RECORD
    store._writer.execute("PRAGMA max_page_count = 1000000")
    store.save(large)
    assert store.get("CA001") == large


def test_record_of_17_megabytes_is_kept(opened: Opener) -> None:
    store = opened()
    large = call(1, data={"text": "x" * 17_000_000})
    store.save(large)
    assert store.get("CA001") == large


def test_damaged_record_is_a_named_error(opened: Opener, path: Path) -> None:
    store = opened()
    store.save(RECORD)
    with another(path) as writer:
        writer.execute("UPDATE calls SET document = '{\"_id\": 1'")
    with pytest.raises(CallStoreError, match="damaged"):
        store.get("CA1")


def test_newer_store_is_refused(path: Path) -> None:
    SqliteCallStore(path).close()
    with another(path) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(CallStoreError, match="newer"):
        SqliteCallStore(path)


def _first_version(path: Path, *documents: str) -> None:
    with another(path) as connection:
        connection.executescript(SCHEMA_1)
        for number, document in enumerate(documents):
            connection.execute(
                "INSERT INTO calls VALUES (?, ?, NULL, NULL, ?)", (str(number), "2030", document)
            )


def _json(record: CallRecord) -> str:
    return orjson.dumps(record.to_document()).decode()


def test_store_of_version_1_is_brought_up_to_date(opened: Opener, path: Path, tmp_path: Path) -> None:
    """It holds afterwards what a new store would hold, in the same tables."""
    others = [call(number, data=customer(first_name=f"N{number}")) for number in range(3)]
    _first_version(path, _json(RECORD), *map(_json, others))
    store = opened()
    assert store.get("CA1") == RECORD
    assert sids(store) == ["CA002", "CA001", "CA1", "CA000"]
    found = store.stored("CA001")
    assert found is not None
    assert found.workflow == "new"
    client = store.client(CALLER)
    assert client is not None
    assert (client.calls, client.first_name, client.last_name) == (4, "N2", "Lefèvre")
    SqliteCallStore(tmp_path / "new").close()
    schemas = []
    for file in (path, tmp_path / "new"):
        with another(file) as connection:
            schemas.append(
                connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
            )
            assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert schemas[0] == schemas[1]
    assert sids(opened()) == ["CA002", "CA001", "CA1", "CA000"]


def test_store_of_version_1_with_a_damaged_record_stays_as_it_is(path: Path) -> None:
    _first_version(path, _json(RECORD), '{"_id": 1')
    for _ in range(2):
        with pytest.raises(CallStoreError, match=r"calls\.sqlite3: a stored record is damaged"):
            SqliteCallStore(path)
    with another(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (2,)
