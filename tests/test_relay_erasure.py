"""Erasing a number, and what has been kept for too long: nothing of it may be left on the disk."""

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from handlehome.relay.audiofiles import AudioFiles
from handlehome.relay.erasure import (
    Keepers,
    LiveCall,
    Purged,
    PurgeIncomplete,
    Retention,
    erase_number,
    purge,
)
from handlehome.relay.logs import RotatingFile
from handlehome.store import mongo
from handlehome.store.calls import CallStore, CallStoreUnavailable
from handlehome.store.journal import Journal
from handlehome.store.mongo import MongoCallStore
from handlehome.store.records import fold
from handlehome.store.sqlite import SqliteCallStore

pytest_plugins = ["tests.mongo_fixtures"]

NUMBER, OTHER, COMPANY = "+33612345678", "+33698765432", "+33123456789"
FIRST, SECOND, FOREIGN = (f"CA{digit * 32}" for digit in "123")
DAY = 86_400.0
# Real days: a MongoDB removes what is past its time by its own clock.
TODAY = time.time()
YESTERDAY = datetime.fromtimestamp(TODAY - DAY, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class House:
    """A data directory and its logs, with one of the two stores."""

    def __init__(self, folder: Path, store: CallStore) -> None:
        self.folder = folder
        self.journal = Journal.open(folder / "journal.sqlite3")
        self.store = store
        self.files = AudioFiles(folder)
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.log = RotatingFile(self.logs / "combined.log", max_bytes=1 << 20, keep=2)
        self.keepers = Keepers(self.journal, self.store, self.files, self.logs)

    def call(self, call_sid: str, number: str, *, ended: bool = True, at: float = 1e9) -> None:
        """A call with everything that is kept of one."""
        secret = f"geheim {call_sid}"
        started = {"from": number, "to": COMPANY, "direction": "inbound"}
        self.journal.append(call_sid, "call_started", started, at)
        self.journal.append(call_sid, "turn", {"id": "u1", "role": "caller", "text": secret}, at + 1)
        if ended:
            self.journal.append(call_sid, "call_ended", {"reason": "caller_hung_up"}, at + 2)
            assert self.journal.flush_sync(5)
            self.store.save(fold(self.journal.events(call_sid)))
        for path in (self.files.recording_path(call_sid), self.files.spool_path(call_sid)):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(secret.encode())
            os.utime(path, (at, at))
        self.say(call_sid, secret)

    def say(self, call_sid: str | None, text: str, time: str = "2001-09-09T01:46:40.000000Z") -> None:
        line = {"time": time, "level": "INFO", "message": text, "call_sid": call_sid}
        self.log.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def on_disk(self, text: str) -> bool:
        """Whether any file holds these words."""
        return any(text.encode() in path.read_bytes() for path in self.folder.rglob("*") if path.is_file())

    def close(self) -> None:
        self.log.close()
        self.journal.close()
        self.store.close()


OpenStore = Callable[[int | None], CallStore]


@pytest.fixture(params=["SQLite", "MongoDB"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens a store that keeps records for so many days."""
    if request.param == "SQLite":
        return lambda days: SqliteCallStore(tmp_path / "calls.sqlite3", retention_days=days)
    uri = request.getfixturevalue("mongo_uri")
    return lambda days: MongoCallStore(uri, retention_days=days)


@pytest.fixture
def house(tmp_path: Path, open_store: OpenStore) -> Iterator[House]:
    there = House(tmp_path, open_store(None))
    yield there
    there.close()


def test_a_number_is_erased_everywhere_and_nobody_else(house: House) -> None:
    house.call(FIRST, NUMBER)
    house.call(FOREIGN, OTHER)
    house.call(SECOND, NUMBER)
    house.say(None, "Started")
    size = (house.logs / "combined.log").stat().st_size
    report = erase_number(NUMBER, house.keepers)
    assert sorted(report.calls) == [FIRST, SECOND]
    assert (report.records, report.clients, report.events, report.log_lines) == (2, 1, 6, 2)
    assert len(report.files) == 4
    assert not house.on_disk(f"geheim {FIRST}")
    assert not house.on_disk(f"geheim {SECOND}")
    assert house.on_disk(f"geheim {FOREIGN}")
    assert house.store.get(FOREIGN) is not None
    assert house.store.client(NUMBER) is None
    lines = (house.logs / "combined.log").read_bytes().splitlines()
    assert (house.logs / "combined.log").stat().st_size == size
    assert [orjson.loads(line).get("call_sid", "erased") for line in lines] == [
        "erased",
        FOREIGN,
        "erased",
        None,
    ]


def test_what_comes_late_of_an_erased_call_is_not_kept(house: House) -> None:
    """Its extraction, say, that was under way; and the log goes on behind what was erased."""
    house.call(FIRST, NUMBER)
    erase_number(NUMBER, house.keepers)
    house.journal.append(FIRST, "extracted", {"data": {"customer": {"last_name": "geheim late"}}})
    assert house.journal.flush_sync(5)
    house.say(None, "On it goes")
    assert not house.on_disk("geheim late")
    assert (house.logs / "combined.log").read_bytes().splitlines()[-1].endswith(b'"call_sid":null}')


def test_a_call_that_waits_to_be_saved_is_erased(house: House) -> None:
    house.call(FIRST, NUMBER)
    house.store.delete(FIRST)
    report = erase_number(NUMBER, house.keepers)
    assert (report.calls, report.records) == ((FIRST,), 0)
    assert house.journal.unsaved() == []


def test_a_live_call_is_not_erased_under_the_callers_voice(house: House) -> None:
    house.call(FIRST, NUMBER)
    house.call(SECOND, NUMBER, ended=False)
    assert house.journal.flush_sync(5)
    with pytest.raises(LiveCall, match=SECOND):
        erase_number(NUMBER, house.keepers)
    assert house.store.get(FIRST) is not None


def test_an_unknown_number_leaves_everything_as_it_is(house: House) -> None:
    house.call(FIRST, NUMBER)
    report = erase_number(OTHER, house.keepers)
    assert (report.calls, report.records, report.events, report.files, report.log_lines) == ((), 0, 0, (), 0)
    assert house.store.get(FIRST) is not None


def test_erasing_again_finds_nothing(house: House) -> None:
    house.call(FIRST, NUMBER)
    erase_number(NUMBER, house.keepers)
    report = erase_number(NUMBER, house.keepers)
    assert (report.calls, report.events, report.log_lines) == ((), 0, 0)


@pytest.mark.parametrize("line", [b"{\n", b"[]\n", b"\xff\n", b"no newline"])
def test_lines_that_are_none_of_the_logs_stay(house: House, line: bytes) -> None:
    house.call(FIRST, NUMBER)
    house.log.write(line)
    assert erase_number(NUMBER, house.keepers).log_lines == 1
    assert (house.logs / "combined.log").read_bytes().endswith(line)


# ---- what has been kept for long enough --------------------------------------------------------------


@pytest.fixture
def aged(tmp_path: Path, open_store: OpenStore) -> Iterator[Callable[[int], House]]:
    """A house whose store keeps records for so many days, with a call of day 0 and one of day 20."""
    houses: list[House] = []

    def build(days: int) -> House:
        house = House(tmp_path, open_store(days or None))
        houses.append(house)
        house.call(FIRST, NUMBER, at=TODAY)
        house.call(SECOND, NUMBER, at=TODAY + 20 * DAY)
        for call_sid, at in ((FIRST, TODAY + 3), (SECOND, TODAY + 20 * DAY + 3)):
            extracted = {"data": None, "extraction": {"status": "nothing_said"}}
            house.journal.append(call_sid, "extracted", extracted, at)
            assert house.journal.flush_sync(5)
            seq = house.journal.events(call_sid)[-1].seq
            house.journal.append(call_sid, "call_saved", {"seq": seq}, at)
        assert house.journal.flush_sync(5)
        return house

    yield build
    for house in houses:
        house.close()


def _in_store(house: House, call_sid: str) -> bool:
    try:
        return house.store.get(call_sid) is not None
    except CallStoreUnavailable:
        return False


def kept(house: House) -> dict[str, list[str]]:
    """What is still there of the two calls."""
    names = {FIRST: "first", SECOND: "second"}
    return {
        "records": [name for sid, name in names.items() if _in_store(house, sid)],
        "events": [name for sid, name in names.items() if house.journal.events(sid)],
        "recordings": [name for sid, name in names.items() if house.files.recording_path(sid).exists()],
        "audio": [name for sid, name in names.items() if house.files.spool_path(sid).exists()],
    }


def test_each_kind_is_kept_for_its_own_days(aged: Callable[[int], House]) -> None:
    house = aged(0)
    both = ["first", "second"]
    day = TODAY + 7.5 * DAY
    purge(house.keepers, Retention(0, 10, 7), day)
    assert kept(house) == {"records": both, "events": both, "recordings": both, "audio": ["second"]}
    purge(house.keepers, Retention(0, 10, 7), TODAY + 10.5 * DAY)
    assert kept(house)["recordings"] == ["second"]
    purge(house.keepers, Retention(0, 0, 7), TODAY + 31 * DAY)
    assert kept(house) == {"records": both, "events": ["second"], "recordings": ["second"], "audio": []}


def test_a_record_takes_all_that_belongs_to_it_along(aged: Callable[[int], House]) -> None:
    house = aged(15)
    house.say(FIRST, "early", YESTERDAY)
    house.say(None, "nobody's", YESTERDAY)
    purged = purge(house.keepers, Retention(15, 0, 30), TODAY + 15.5 * DAY)
    assert purged == Purged(records=1, events=1, files=1, log_lines=3)
    assert house.on_disk("nobody's")
    assert kept(house)["records"] == kept(house)["events"] == kept(house)["recordings"] == ["second"]
    assert house.store.client(NUMBER) is not None
    purge(house.keepers, Retention(15, 0, 30), TODAY + 40 * DAY)
    assert kept(house)["records"] == []
    assert house.store.client(NUMBER) is None


def test_what_has_not_been_saved_is_not_dropped(aged: Callable[[int], House]) -> None:
    house = aged(15)
    house.call(FOREIGN, OTHER, at=TODAY)
    house.store.delete(FOREIGN)
    purge(house.keepers, Retention(15, 0, 30), TODAY + 40 * DAY)
    assert house.journal.unsaved() == [FOREIGN]


def test_a_number_that_was_named_only_for_a_while_is_erased_with_its_call(house: House) -> None:
    """A later extraction has replaced it; the first one is still in the journal."""
    house.call(FIRST, OTHER)
    for phone in (NUMBER, OTHER):
        data = {"customer": {"phone": phone}}
        house.journal.append(FIRST, "extracted", {"data": data, "extraction": {"status": "complete"}})
    assert house.journal.flush_sync(5)
    house.store.save(fold(house.journal.events(FIRST)))
    report = erase_number(NUMBER, house.keepers)
    assert (report.calls, report.records) == ((FIRST,), 1)
    assert house.store.get(FIRST) is None


def test_a_store_that_is_away_does_not_keep_the_rest_from_being_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo, "SELECTION_MS", 50)
    store = MongoCallStore("mongodb://127.0.0.1:9/handlehome")
    house = House(tmp_path, store)
    house.call(FIRST, NUMBER, ended=False, at=TODAY)
    with pytest.raises(PurgeIncomplete):
        purge(house.keepers, Retention(0, 10, 7), TODAY + 11 * DAY)
    assert kept(house)["recordings"] == kept(house)["audio"] == []
    house.close()
