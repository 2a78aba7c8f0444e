"""The call store in MongoDB: what every store does, and what is its own; on a real server."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest

from handlehome.store import mongo
from handlehome.store.calls import (
    CallQuery,
    CallStoreError,
    CallStoreUnavailable,
    IndexConflict,
    RecordRefused,
)
from handlehome.store.mongo import MongoCallStore
from handlehome.store.records import TurnRecord
from tests.call_store_suite import (
    CALLER,
    OTHER,
    RECORD,
    CallStoreSuite,
    Opener,
    at_once,
    call,
    customer,
    sids,
)
from tests.mongod import Mongod, connected

pytest_plugins = ["tests.mongo_fixtures"]

DAY = 86_400.0
PATIENCE = 30.0


@pytest.fixture
def opened(mongo_uri: str) -> Iterator[Opener]:
    with contextlib.ExitStack() as stack:

        def open_store(*, retention_days: int | None = None) -> MongoCallStore:
            store = MongoCallStore(mongo_uri, retention_days=retention_days)
            stack.callback(store.close)
            return store

        yield open_store


class TestMongoCallStore(CallStoreSuite):
    pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bounded by seconds gives up at once."""
    for name in ("SELECTION_MS", "CONNECT_MS", "SOCKET_MS"):
        monkeypatch.setattr(mongo, name, 300)


# What is stored


def test_times_are_dates_in_the_database(opened: Opener, mongo_uri: str) -> None:
    """So are those that the server drops documents by."""
    opened(retention_days=30).save(replace(RECORD, started_at=4e9, ended_at=4e9 + 1.5))
    with connected(mongo_uri) as client:
        database = client.get_default_database()
        document = database["calls"].find_one()
        known = database["clients"].find_one()
    assert document is not None
    assert known is not None
    assert document["started_at"] == datetime.fromtimestamp(4e9, UTC)
    assert document["ended_at"] == datetime.fromtimestamp(4e9 + 1.5, UTC)
    assert document["expires_at"] == known["expires_at"] == datetime.fromtimestamp(4e9 + 30 * DAY, UTC)
    assert known["last_seen"] == document["started_at"]
    assert (document["_id"], document["from"], document["workflow"]) == ("CA1", CALLER, "new")
    assert document["data"] == RECORD.data


def test_without_retention_nothing_expires(opened: Opener, mongo_uri: str) -> None:
    opened(retention_days=30).save(replace(RECORD, started_at=4e9))
    opened().save(replace(RECORD, started_at=4e9))
    with connected(mongo_uri) as client:
        database = client.get_default_database()
        for name in ("calls", "clients"):
            document = database[name].find_one()
            assert document is not None
            assert "expires_at" not in document


def test_server_drops_by_itself_what_has_expired(mongod: Mongod, opened: Opener, mongo_uri: str) -> None:
    """What a client owes to a dropped call goes with the next purge."""
    store = opened(retention_days=30)
    now = time.time()
    store.save(call(1, started_at=now - 29 * DAY, from_=OTHER, data=customer(email="a@example.fr")))
    store.save(call(2, started_at=now, from_=OTHER))
    store.save(call(3, started_at=now - 31 * DAY))
    store.save(call(4, started_at=now - 31 * DAY, from_=OTHER, data=customer(first_name="Zoé")))
    with connected(mongo_uri) as client:
        calls = client.get_default_database()["calls"]
        _until(lambda: calls.count_documents({}) == 2)
    assert store.purge(now) == 0
    known = store.client(OTHER)
    assert known is not None
    assert (known.calls, known.first_name, known.email) == (2, None, "a@example.fr")
    assert store.client(CALLER) is None


def test_large_purge_goes_in_portions(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo, "PURGE_CALLS", 3)
    store = opened(retention_days=1)
    for number in range(7):
        store.save(call(number, started_at=4e9 + number))
    assert store.purge(4e9 + 10 * DAY) == 7
    assert store.clients().clients == ()


def test_record_over_16_megabytes_is_refused_and_the_rest_goes_on(opened: Opener) -> None:
    store = opened()
    with pytest.raises(RecordRefused, match=r"CA001.*too large"):
        store.save(call(1, data={"text": "x" * 17_000_000}))
    with pytest.raises(RecordRefused, match="CA001"):
        store.save(call(1, data={"text": "x" * 16_777_000}))  # what stands beside it makes it too large
    assert store.get("CA001") is None
    assert store.client(CALLER) is None
    store.save(call(2))


@pytest.mark.parametrize("depth", [250, 5000])
def test_record_that_is_nested_too_deep_is_refused(opened: Opener, depth: int) -> None:
    store = opened()
    data: dict[str, object] = {}
    for _ in range(depth):
        data = {"in": data}
    with pytest.raises(RecordRefused, match="CA001"):
        store.save(call(1, data=data))
    assert store.get("CA001") is None


def test_damaged_record_is_a_named_error(opened: Opener, mongo_uri: str) -> None:
    store = opened()
    store.save(RECORD)
    with connected(mongo_uri) as client:
        client.get_default_database()["calls"].update_one({"_id": "CA1"}, {"$set": {"started_at": "soon"}})
    with pytest.raises(CallStoreError, match="damaged"):
        store.get("CA1")


# Indexes


def test_lists_and_searches_use_an_index(opened: Opener, mongo_uri: str) -> None:
    store = opened()
    store.save(RECORD)
    with connected(mongo_uri) as client:
        calls = client.get_default_database()["calls"]
        order = [("started_at", -1), ("_id", -1)]
        for condition, index in (
            ({}, "by_start"),
            ({"from": CALLER}, "by_caller"),
            ({"to": CALLER}, "by_called"),
            ({"client": CALLER}, "by_client"),
        ):
            plan = calls.find(condition).sort(order).limit(5).explain()["queryPlanner"]["winningPlan"]
            assert index in str(plan)
            assert "SORT'" not in str(plan)
        by_words = calls.find({"words": {"$regex": "^chaud"}}).explain()["queryPlanner"]["winningPlan"]
        assert "by_words" in str(by_words)


def test_indexes_that_are_there_do_no_harm(opened: Opener) -> None:
    for _ in range(2):
        opened().save(RECORD)
    at_once(*[lambda: opened().save(RECORD)] * 4)


def test_index_that_is_not_ours_in_the_place_of_ours_is_named(opened: Opener, mongo_uri: str) -> None:
    """The store works as soon as it is gone."""
    store = opened()
    with connected(mongo_uri) as client:
        calls = client.get_default_database()["calls"]
        calls.create_index("expires_at", name="retention", expireAfterSeconds=5)
        with pytest.raises(IndexConflict, match=r"calls.*retention"):
            store.save(RECORD)
        calls.drop_index("retention")
    store.save(RECORD)


def test_unique_index_of_somebody_else_is_no_endless_loop(opened: Opener, mongo_uri: str) -> None:
    store = opened()
    store.save(call(1))
    with connected(mongo_uri) as client:
        client.get_default_database()["calls"].create_index("from", unique=True, name="theirs")
    with pytest.raises(CallStoreUnavailable, match="unique index"):
        store.save(call(2))


# The address


@pytest.mark.parametrize(
    "uri",
    ["mongodb://", "http://localhost", "mongodb://localhost:123456", "mongodb://a:top:secret@localhost"],
)
def test_address_that_is_none_is_refused_without_its_password(uri: str) -> None:
    with pytest.raises(CallStoreError, match="MONGO_URI") as caught:
        MongoCallStore(uri)
    assert "secret" not in f"{caught.value}{caught.value.__cause__}"


def test_database_is_the_uris_or_handlehome() -> None:
    for uri, name in (("mongodb://127.0.0.1/mine", "mine"), ("mongodb://127.0.0.1", "handlehome")):
        store = MongoCallStore(uri)
        assert store._calls.database.name == name
        store.close()


# When there is no server


@pytest.mark.usefixtures("quick")
def test_without_a_server_the_store_is_unavailable_within_a_bound() -> None:
    """It can be opened all the same, and several threads don't wait for each other."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        store = MongoCallStore(f"mongodb://127.0.0.1:{nobody.getsockname()[1]}/")

        def work() -> None:
            with pytest.raises(CallStoreUnavailable, match="ServerSelectionTimeoutError"):
                store.save(RECORD)

        began = time.monotonic()
        at_once(*[work] * 8)
        assert time.monotonic() - began < 5
        with pytest.raises(CallStoreUnavailable):
            store.find(CallQuery(text="a"))
        store.close()


@pytest.mark.usefixtures("quick")
def test_server_that_never_answers_is_unavailable_within_a_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = MongoCallStore(f"mongodb://127.0.0.1:{silent.getsockname()[1]}/?directConnection=true")
        began = time.monotonic()
        with pytest.raises(CallStoreUnavailable):
            store.get("CA1")
        assert time.monotonic() - began < 5
        store.close()


def test_server_that_is_stopped_and_comes_later_is_found(mongod: Mongod, opened: Opener, quick: None) -> None:
    mongod.stop()
    try:
        store = opened()
        with pytest.raises(CallStoreUnavailable):
            store.save(RECORD)
    finally:
        mongod.start()
    _again(lambda: store.save(RECORD))
    assert store.get("CA1") == RECORD


@pytest.mark.parametrize("how", ["kill", "step down"])
def test_server_that_goes_and_comes_back_loses_and_doubles_nothing(
    mongod: Mongod, opened: Opener, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four threads save while it does; what failed is saved again until it succeeds."""
    monkeypatch.setattr(mongo, "SELECTION_MS", 300)
    store = opened()
    store.save(call(0))
    saved = threading.Semaphore(0)
    gone = threading.Event()
    failed: list[CallStoreError] = []

    def saving(worker: int) -> None:
        for number in range(worker, 120, 4):
            if number >= 40:
                gone.wait(PATIENCE)  # these meet a server that is gone, or on its way back
            record = call(number, data=customer(email=f"{number}"))
            _again(partial(store.save, record), failed)
            saved.release()

    def trouble() -> None:
        for _ in range(20):
            assert saved.acquire(timeout=PATIENCE)
        if how == "step down":
            with connected(mongod.uri()) as client:
                # Secondaries catch up: there are none. It is elected again when the second is over.
                client.admin.command("replSetStepDown", 1, force=True)
            gone.set()
            return
        mongod.kill()
        gone.set()
        try:
            _until(lambda: bool(failed))
        finally:
            mongod.start()

    at_once(trouble, *[partial(saving, worker) for worker in range(4)])
    assert len(store.find(limit=1000).calls) == 120
    known = store.client(CALLER)
    assert known is not None
    assert (known.calls, known.last_call, known.email) == (120, "CA119", "119")


def test_client_that_a_crash_left_behind_is_put_right_by_the_next_save(
    opened: Opener, mongo_uri: str
) -> None:
    store = opened()
    store.save(RECORD)
    with connected(mongo_uri) as client:
        client.get_default_database()["clients"].delete_many({})
    store.save(RECORD)
    known = store.client(CALLER)
    assert known is not None
    assert (known.calls, known.first_name) == (1, "Zoé")


def test_live_states_leave_the_client_alone(opened: Opener, mongo_uri: str) -> None:
    """A call is saved every second while it lives: that must cost one operation."""
    store = opened()
    live = replace(RECORD, status="live", ended_at=None, data=None, turns=())
    store.save(live)
    with connected(mongo_uri) as client:
        client.get_default_database()["clients"].delete_many({})
    store.save(replace(live, turns=(TurnRecord("a", "caller", "Allô ?"),)))
    assert store.client(CALLER) is None
    assert sids(store, CallQuery(text="allo")) == ["CA1"]


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def _again(work: Callable[[], None], failed: list[CallStoreError] | None = None) -> None:
    """Does it until it succeeds, as an outbox would."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            work()
        except CallStoreUnavailable as error:
            if time.monotonic() > until:
                raise
            if failed is not None:
                failed.append(error)
            time.sleep(0.05)
        else:
            return
